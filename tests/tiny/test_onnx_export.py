"""ONNX exports: fp32 is torch, int8 is int8 where it should be, and what other tools read gives the same."""

import json
import random
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from distill.errors import BadInput, GateFailed
from distill.files.artefact import check_model_folder, read_card, revision
from distill.graphs.trace import GraphModule
from distill.metrics.calibration import Calibration
from distill.metrics.logistic import sigmoid
from distill.models.stored_calibration import StoredCalibration, write_calibration
from distill.recipe.schema import Export
from distill.runtime.opening import load
from students.export import graphs as export_graphs
from students.export import layouts, weights
from students.export.arithmetic import greatest_code
from students.export.float_layers import behind_pooling, kept_nodes
from students.export.layouts import TOOLS, write_layout
from students.export.stage import DEFAULT_THRESHOLDS, FFN_DOWN, Thresholds, export_model
from tests.conftest import ROOT, make_run
from tests.tiny.conftest import SENTENCES

pytestmark = pytest.mark.integration

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
PAIRS = [(left, right) for left in SENTENCES for right in SENTENCES if left != right]
HELD_BACK = [*PAIRS[::3], ("", "a"), (" ".join(SENTENCES), "가나다 " * 200)]
QUERIES, DOCUMENTS = [pair[0] for pair in HELD_BACK], [pair[1] for pair in HELD_BACK]

# stands in docs/how-to/export-and-gate.md, word for word
DOCS_EXAMPLE = """
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder = "runs/quickstart/exports/onnx-int8"
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")  # cuts and pads as the model wants it
session = onnxruntime.InferenceSession(f"{folder}/onnx/model.onnx")
encoded = tokenizer.encode_batch(["[기술] 파이썬, k8s, PostgreSQL", "[자격요건] Python, Kubernetes 경험"])
known = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
inputs = {port.name: np.array([getattr(one, known[port.name]) for one in encoded]) for port in session.get_inputs()}
resume, jd = session.run(["sentence_embedding"], inputs)[0]
print(resume @ jd)  # cosine: the vectors have unit length
""".strip()


def export(source, target, precision="fp32", **options):
    options = {"calibration": PAIRS, "n_calibration": 20, "thresholds": Thresholds(), "n_threads": 1, **options}
    return export_model(source, target, format="onnx", precision=precision, held_back=HELD_BACK, **options)


@pytest.fixture(scope="module")
def exports(bert_bi, xlmr_cross, tmp_path_factory):
    """Exports by kind and precision, each made once."""
    made = {}

    def make(kind, precision):
        if (kind, precision) not in made:
            target = tmp_path_factory.mktemp(kind) / precision
            made[kind, precision] = target, export({"bi": bert_bi, "cross": xlmr_cross}[kind], target, precision)
        return made[kind, precision]

    return make


@pytest.mark.parametrize("kind", ["bi", "cross"])
def test_fp32_is_torch_and_the_folder_is_whole(kind, exports, bert_bi, xlmr_cross):
    target, report = exports(kind, "fp32")
    source = {"bi": bert_bi, "cross": xlmr_cross}[kind]
    assert not report.failures(DEFAULT_THRESHOLDS["fp32"]) and report.batch_difference < 1e-5
    assert check_model_folder(target) == report.kind and not list(target.glob("*.safetensors"))
    card = read_card(target)
    assert (card.details["format"], card.details["precision"]) == ("onnx", "fp32")
    assert card.parents == {source.name: revision(source)}
    ours, reference = load(target, n_threads=1), load(source, runtime="torch", n_threads=1)
    assert (ours.runtime, ours.precision, ours.n_parameters) == ("onnx", "fp32", reference.n_parameters)
    np.testing.assert_allclose(ours.score(QUERIES, DOCUMENTS), reference.score(QUERIES, DOCUMENTS), atol=1e-5)


def test_stock_finds_the_graph_where_it_looks(exports):
    """`SentenceTransformer(path, backend="onnx")` needs optimum-onnx; this is the part of it that chooses the file."""
    from sentence_transformers.backend.utils import backend_should_export

    target, _ = exports("bi", "fp32")
    must_export, options = backend_should_export(target, True, {}, "model.onnx", "*.onnx", "ONNX")
    assert not must_export and options == {"subfolder": "onnx", "file_name": "model.onnx"}
    settings = json.loads((target / "sentence_bert_config.json").read_text(encoding="utf-8"))
    assert not {"model_args", "model_kwargs"} & set(settings)  # OpenVINO's options would reach onnxruntime


@pytest.mark.parametrize("kind", ["bi", "cross"])
def test_static_int8_does_not_hang_on_the_batch(kind, exports, bert_bi, xlmr_cross):
    target, report = exports(kind, "int8")
    source = {"bi": bert_bi, "cross": xlmr_cross}[kind]
    assert report.precision == "int8" and report.rank_agreement > 0.9 and report.batch_difference < 1e-5
    assert (target / "onnx/model.onnx").stat().st_size < 0.7 * (source / "model.safetensors").stat().st_size
    calibration = read_card(target).details["calibration"]
    assert calibration["smooth_quant_alpha"] == 0.7 and calibration["n_kept_float"] == 2


@pytest.mark.parametrize("precision", ["int8", "int8_dynamic"])
@pytest.mark.parametrize("kind", ["bi", "cross"])
def test_int8_is_the_same_on_every_cpu(kind, precision, exports):
    target, report = exports(kind, precision)
    found = report.arithmetic
    assert greatest_code(target, "onnx") == found["greatest_code"] == 64 and found["overflow_safe"]
    assert read_card(target).details["overflow_safe"]
    if kind == "bi":
        assert found["min_cosine"] > 0.99999 and found["rank_agreement"] is None
    else:
        assert found["rank_agreement"] > 0.9999 and found["difference"] < 1e-3 and found["min_cosine"] is None


@pytest.mark.parametrize("precision", ["int8", "int8_dynamic"])
def test_weights_of_8_bits_are_refused(precision, bert_bi, tmp_path):
    limits = Thresholds(arithmetic_mean_cosine=0.9995, arithmetic_min_cosine=0.999)
    with pytest.raises(GateFailed, match="weights up to 12[78] saturate on CPUs without VNNI"):
        export(bert_bi, tmp_path / "int8", precision, thresholds=limits, _overflow_safe=False)


def test_an_encoder_without_a_length_limit_has_that_of_its_positions(tmp_path):
    from distill.models.backbone import fresh_backbone
    from distill.models.modeling import build_model, save_model
    from distill.recipe.schema import FreshBackbone

    settings = FreshBackbone(tokenizer="unigram", vocabulary=200, layers=1, width=32, heads=2, max_length=40)
    backbone = fresh_backbone(settings, SENTENCES * 20, seed=1, folder=tmp_path / "backbones")
    save_model(build_model("bi_encoder", backbone, max_length=40), tmp_path / "source")
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        settings = json.loads((tmp_path / "source" / name).read_text(encoding="utf-8"))
        settings.pop(key, None)
        (tmp_path / "source" / name).write_text(json.dumps(settings), encoding="utf-8")
    assert load(tmp_path / "source", n_threads=1).max_length == 40
    for format in ("openvino", "onnx"):
        export_model(
            tmp_path / "source",
            tmp_path / format,
            format=format,
            precision="fp32",
            held_back=HELD_BACK[-4:],
            n_threads=1,
        )
        assert load(tmp_path / format, n_threads=1).max_length == 40


def test_dynamic_int8_does_and_says_so(exports):
    target, report = exports("cross", "int8_dynamic")
    _, static = exports("cross", "int8")
    assert report.precision == "int8" and report.batch_difference > 100 * static.batch_difference
    assert "alone and beside others" in read_card(target).details["warning"]


@pytest.mark.parametrize("precision", ["int8", "int8_dynamic"])
def test_down_projections_and_what_is_behind_pooling_stay_float(precision, exports):
    graph = onnx.load(str(exports("cross", precision)[0] / "onnx/model.onnx")).graph
    kinds = {value.name: value.data_type for value in graph.initializer}
    behind = [node for node in graph.node if GraphModule.head in node.name and node.op_type in ("Gemm", "MatMul")]
    assert len(behind) == 2 and all(kinds[node.input[1]] == onnx.TensorProto.FLOAT for node in behind)
    down = [node for node in graph.node if any(re.search(p, node.name.replace("/", ".")) for p in FFN_DOWN)]
    products = [node for node in down if node.op_type == "MatMul"]
    assert len(products) == 2 and all(kinds[node.input[1]] == onnx.TensorProto.FLOAT for node in products)
    assert onnx.TensorProto.INT8 in kinds.values()


@pytest.mark.slow
def test_openvino_leaves_what_is_behind_pooling_alone(xlmr_cross, tmp_path):
    import openvino

    export_model(
        xlmr_cross,
        tmp_path / "int8",
        precision="int8",
        held_back=HELD_BACK[:4],
        calibration=PAIRS,
        n_calibration=4,
        thresholds=Thresholds(),
        n_threads=1,
        keep_float=None,
    )
    graph = openvino.Core().read_model(tmp_path / "int8/openvino/openvino_model.xml")
    behind = set(behind_pooling(graph))
    assert len(behind) == 2 and len(kept_nodes(graph, [GraphModule.head])) == 2
    fed = {
        port.get_node().get_friendly_name()
        for node in graph.get_ops()
        if node.get_type_name() == "FakeQuantize"
        for port in node.output(0).get_target_inputs()
    }
    assert fed and not fed & behind


@pytest.mark.slow
def test_bytes_repeat_and_a_typo_is_named(bert_bi, exports, tmp_path):
    export(bert_bi, tmp_path / "again", "int8")
    assert revision(tmp_path / "again") == revision(exports("bi", "int8")[0])
    with pytest.raises(BadInput, match="'no such layer' matches no matrix product; there are transformer.encoder"):
        export(bert_bi, tmp_path / "typo", "int8", keep_float=["no such layer"])
    export(bert_bi, tmp_path / "one", "int8", keep_float=[r"layer\.1\.output\.dense"], n_calibration=4)
    assert read_card(tmp_path / "one").details["calibration"]["n_kept_float"] == 1
    with pytest.raises(GateFailed, match="int8 export of"):
        export(bert_bi, tmp_path / "gate", "int8", thresholds=Thresholds(min_cosine=0.9999999), may_search=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "one"]


def test_formats_have_their_precisions(bert_bi, tmp_path):
    with pytest.raises(BadInput, match="'bf16' is not known in onnx; accepted: fp32, int8, int8_dynamic"):
        export(bert_bi, tmp_path / "target", "bf16")
    with pytest.raises(BadInput, match="'int8_dynamic' is not known in openvino"):
        export_model(bert_bi, tmp_path / "target", precision="int8_dynamic", held_back=HELD_BACK)
    with pytest.raises(BadInput, match="'tflite' is not known; accepted: openvino, onnx"):
        export_model(bert_bi, tmp_path / "target", format="tflite", precision="fp32", held_back=HELD_BACK)


@pytest.mark.slow
def test_smaller_openvino_weights(bert_bi, monkeypatch, tmp_path):
    traced = export_graphs.trace(bert_bi)
    monkeypatch.setattr(export_graphs, "trace", lambda _: traced)  # the first leaves it as it is
    for precision, share in (("fp16", 0.6), ("int8_weights", 0.4)):
        report = export_model(bert_bi, tmp_path / precision, precision=precision, held_back=HELD_BACK, n_threads=1)
        weights = (tmp_path / precision / "openvino/openvino_model.bin").stat().st_size
        assert weights < share * (bert_bi / "model.safetensors").stat().st_size
        assert report.min_cosine > 0.99
    assert report.precision == "int8"


def weights_mb(folder):
    return (folder / "openvino/openvino_model.bin").stat().st_size / 1e6


@pytest.mark.slow
def test_int4_weights_where_the_gate_holds_and_nowhere_else(bert_bi, monkeypatch, tmp_path):
    traced = export_graphs.trace(bert_bi)
    graph = traced.model

    def trace(_):
        traced.model = graph.clone()
        return traced

    monkeypatch.setattr(export_graphs, "trace", trace)
    monkeypatch.setattr(weights, "INT4_SHARES", (1.0, 0.5))
    make = partial(export_model, bert_bi, held_back=HELD_BACK[:12], calibration=PAIRS, n_calibration=4, n_threads=1)
    make(tmp_path / "int8", precision="int8_weights", thresholds=Thresholds())
    report = make(tmp_path / "int4", precision="int4_weights", thresholds=Thresholds())
    assert weights_mb(tmp_path / "int4") < 0.9 * weights_mb(tmp_path / "int8")
    assert report.precision == "int4" and report.rank_agreement > 0.8
    assert report.batch_cosine > 0.99999 and report.batch_difference < 1e-4
    details = read_card(tmp_path / "int4").details
    assert (details["precision"], details["runs_in"]) == ("int4_weights", "int4")
    assert details["weights"] == {"int4": 11, "int8": 1, "float": 0}  # six a layer, and the last is left alone
    assert [trial["int4_share"] for trial in details["search"]["trials"]] == [1.0]

    make(tmp_path / "kept", precision="int4_weights", thresholds=Thresholds(), keep_float=[r"layer\.0\."])
    assert read_card(tmp_path / "kept").details["weights"] == {"int4": 5, "int8": 1, "float": 6}

    with pytest.raises(GateFailed, match=r"int4_weights export of .*min_cosine(.|\n)*int8_weights"):
        make(tmp_path / "strict", precision="int4_weights", thresholds=Thresholds(min_cosine=0.9999999))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int4", "int8", "kept"]


@pytest.mark.slow
def test_int4_leaves_the_head_of_a_cross_encoder_in_float(xlmr_cross, tmp_path):
    report = export_model(
        xlmr_cross,
        tmp_path / "int4",
        precision="int4_weights",
        held_back=HELD_BACK[:4],
        calibration=PAIRS,
        n_calibration=2,
        thresholds=Thresholds(),
        n_threads=1,
    )
    assert report.precision == "int4" and report.batch_difference < 1e-4
    assert read_card(tmp_path / "int4").details["weights"] == {"int4": 12, "int8": 0, "float": 2}


def test_the_stage_and_the_report_cover_both_formats(bi_folder, tmp_path):
    from distill.evaluation.benchmark import student_rows
    from students.export.stage import export_student

    run = make_run(
        tmp_path / "run",
        student={"kind": "bi_encoder", "backbone": {"teacher": "cross"}},
        export={
            "formats": ["onnx"],
            "precisions": ["fp32", "int8_dynamic"],
            "calibration_pairs": 20,
            "parity_pairs": 20,
        },
    )
    shutil.copytree(bi_folder, run.student)
    export_student(run)
    assert [row.name for row in student_rows(run)] == [
        "untrained",
        "student",
        "student (onnx fp32)",
        "student (onnx int8_dynamic)",
    ]
    assert [row.path.name for row in student_rows(run)[2:]] == ["onnx-fp32", "onnx-int8_dynamic"]
    written = read_card(run.export("fp32", "onnx"))
    export_student(run)  # finished
    assert read_card(run.export("fp32", "onnx")) == written
    assert set(Export.PRECISIONS) == {"openvino", "onnx"}


def test_the_example_of_the_docs_gives_what_sentence_transformers_gives(exports, bert_bi, capsys):
    from sentence_transformers import SentenceTransformer

    target, _ = exports("bi", "fp32")
    code = DOCS_EXAMPLE.replace("runs/quickstart/exports/onnx-int8", str(target))
    assert code != DOCS_EXAMPLE and len(code.splitlines()) <= 15
    exec(compile(code, "export-and-gate.md", "exec"), {})
    texts = re.findall(r'"(\[[^"]+)"', DOCS_EXAMPLE)
    left, right = SentenceTransformer(str(bert_bi), device="cpu").encode(texts)
    assert float(capsys.readouterr().out) == pytest.approx(float(left @ right), abs=1e-4)
    assert DOCS_EXAMPLE in (ROOT / "docs" / "how-to" / "export-and-gate.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# Layouts
# ---------------------------------------------------------------------------------------------------------------------


def texts_and_pairs(kind):
    """200 texts or pairs, Korean and English, from one word to more than the model reads."""
    rng, words = random.Random(0), " ".join(SENTENCES).split()
    texts = [*SENTENCES, "A", "가나다 " * 300]
    texts += [" ".join(rng.choices(words, k=rng.randint(1, 40))) for _ in range(200 - len(texts))]
    return texts if kind == "bi" else list(zip(texts, reversed(texts), strict=True))


def expected(kind, folder):
    scorer, given = load(folder, runtime="torch", n_threads=1), texts_and_pairs(kind)
    if kind == "bi":
        return scorer.encode(given)
    return scorer.score([left for left, _ in given], [right for _, right in given])[:, None]


GRAPHS = {
    "fastembed": "model.onnx",
    "tei": "model.onnx",
    "transformers.js": "onnx/model.onnx",
    "triton": "1/model.onnx",
    "optimum": "model.onnx",
}


@pytest.mark.parametrize("kind", ["bi", pytest.param("cross", marks=pytest.mark.slow)])
@pytest.mark.parametrize("tool", TOOLS)
def test_every_layout_is_torch_with_onnxruntime_and_tokenizers(kind, tool, exports, bert_bi, xlmr_cross, tmp_path):
    source, _ = exports(kind, "fp32")
    write_layout(source, tmp_path / "made", tool=tool)
    folder = tmp_path / "made"
    result = {"bi": "sentence_embedding", "cross": "logits"}[kind]
    values = layouts._run(folder / GRAPHS[tool], folder / "tokenizer.json", texts_and_pairs(kind), result)
    np.testing.assert_allclose(values, expected(kind, {"bi": bert_bi, "cross": xlmr_cross}[kind]), atol=1e-4)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["model_max_length"] == 96 and config["tokenizer_class"] != "TokenizersBackend"
    if tool != "triton" and kind == "cross":
        model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert tool == "fastembed" or model["architectures"] == ["XLMRobertaForSequenceClassification"]


@pytest.mark.parametrize("tool", ["tei", "optimum"])
def test_a_calibrated_layout_gives_probabilities(tool, exports, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(exports("cross", "fp32")[0], source)
    calibration = Calibration("platt", "cross_encoder", slope=3.0, bias=-0.5)
    write_calibration(source, StoredCalibration(calibration))
    write_layout(source, tmp_path / "made", tool=tool, calibrated=True)
    pairs = texts_and_pairs("cross")[:20]
    folder = tmp_path / "made"
    found = layouts._run(folder / GRAPHS[tool], folder / "tokenizer.json", pairs, "logits")[:, 0]
    scorer = load(source, n_threads=1)
    probabilities = scorer.score([left for left, _ in pairs], [right for _, right in pairs], calibrated=True)
    np.testing.assert_allclose(sigmoid(found), probabilities, atol=1e-5)


def test_what_has_no_calibration_of_logits_is_said(exports, tmp_path):
    with pytest.raises(BadInput, match="has no calibration.json"):
        write_layout(exports("cross", "fp32")[0], tmp_path / "made", tool="tei", calibrated=True)
    with pytest.raises(BadInput, match="is a bi-encoder"):
        write_layout(exports("bi", "fp32")[0], tmp_path / "made", tool="tei", calibrated=True)
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
def test_fastembed_reads_its_layout(exports, bert_bi, xlmr_cross, tmp_path):
    fastembed = pytest.importorskip("fastembed")
    from fastembed.common.model_description import ModelSource, PoolingType
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    for kind in ("bi", "cross"):
        write_layout(exports(kind, "fp32")[0], tmp_path / kind, tool="fastembed")
    options = {"sources": ModelSource(hf="ours/ours"), "model_file": "model.onnx"}
    fastembed.TextEmbedding.add_custom_model(
        model="ours/bi", pooling=PoolingType.DISABLED, normalization=False, dim=64, **options
    )
    texts = texts_and_pairs("bi")
    vectors = list(fastembed.TextEmbedding("ours/bi", specific_model_path=str(tmp_path / "bi")).embed(texts))
    np.testing.assert_allclose(np.stack(vectors), expected("bi", bert_bi), atol=1e-4)
    TextCrossEncoder.add_custom_model(model="ours/cross", **options)
    reader = TextCrossEncoder("ours/cross", specific_model_path=str(tmp_path / "cross"))
    scores = list(reader.rerank_pairs(texts_and_pairs("cross")))
    np.testing.assert_allclose(scores, expected("cross", xlmr_cross)[:, 0], atol=1e-4)


def test_fastembed_files(exports, tmp_path):
    write_layout(exports("bi", "fp32")[0], tmp_path / "made", tool="fastembed")
    specials = json.loads((tmp_path / "made/special_tokens_map.json").read_text(encoding="utf-8"))
    config = json.loads((tmp_path / "made/tokenizer_config.json").read_text(encoding="utf-8"))
    assert specials["pad_token"] == config["pad_token"] == "[PAD]" and specials["cls_token"] == "[CLS]"
    session = onnxruntime.InferenceSession(str(tmp_path / "made/model.onnx"))
    assert [port.name for port in session.get_outputs()] == ["sentence_embedding"]  # it takes the first


def test_text_embeddings_inference_files(exports, tmp_path):
    write_layout(exports("bi", "fp32")[0], tmp_path / "bi", tool="tei")
    pooling = json.loads((tmp_path / "bi/1_Pooling/config.json").read_text(encoding="utf-8"))
    assert pooling["pooling_mode_mean_tokens"] is True and pooling["pooling_mode_cls_token"] is False
    settings = json.loads((tmp_path / "bi/sentence_bert_config.json").read_text(encoding="utf-8"))
    assert settings == {"max_seq_length": 96, "do_lower_case": False}
    write_layout(exports("cross", "fp32")[0], tmp_path / "cross", tool="tei")
    config = json.loads((tmp_path / "cross/config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "LABEL_0"} and config["label2id"] == {"LABEL_0": 0}  # one label: a reranker
    assert config["hidden_size"] == 64 and config["pad_token_id"] == 1 and not (tmp_path / "cross/1_Pooling").exists()


def test_transformers_js_files(exports, tmp_path):
    for precision, name, dtype in (("fp32", "model.onnx", "fp32"), ("int8", "model_quantized.onnx", "q8")):
        write_layout(exports("bi", precision)[0], tmp_path / precision, tool="transformers.js")
        assert [path.name for path in (tmp_path / precision / "onnx").iterdir()] == [name]
        config = json.loads((tmp_path / precision / "config.json").read_text(encoding="utf-8"))
        assert config["transformers.js_config"] == {"dtype": dtype} and config["model_type"] == "bert"
        tokenizer = json.loads((tmp_path / precision / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert tokenizer["tokenizer_class"] == "BertTokenizer"  # the base class gives pairs no token types
    session = onnxruntime.InferenceSession(str(tmp_path / "fp32/onnx/model.onnx"))
    assert [port.name for port in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]


def test_triton_configuration_is_that_of_the_graph(exports, tmp_path):
    write_layout(exports("bi", "int8")[0], tmp_path / "student", tool="triton")
    text = (tmp_path / "student/config.pbtxt").read_text(encoding="utf-8")
    assert 'name: "student"' in text and 'backend: "onnxruntime"' in text and "max_batch_size: 64" in text
    tensors = re.findall(r'name: "(\w+)"\s+data_type: (\w+)\s+dims: \[ (-?\d+) \]', text)
    session = onnxruntime.InferenceSession(str(tmp_path / "student/1/model.onnx"))
    kinds = {"tensor(int64)": "TYPE_INT64", "tensor(float)": "TYPE_FP32"}
    ports = [*session.get_inputs(), *session.get_outputs()]
    assert tensors == [
        (port.name, kinds[port.type], str(port.shape[1]) if isinstance(port.shape[1], int) else "-1") for port in ports
    ]


@pytest.mark.slow
def test_optimum_reads_its_layout_of_an_openvino_export(xlmr_cross, tmp_path):
    OVModelForSequenceClassification = pytest.importorskip("optimum.intel").OVModelForSequenceClassification
    from transformers import AutoTokenizer

    from distill.models.modeling import quiet

    export_model(xlmr_cross, tmp_path / "fp32", precision="fp32", held_back=HELD_BACK[:4], n_threads=1)
    write_layout(tmp_path / "fp32", tmp_path / "optimum", tool="optimum")
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "optimum")
        model = OVModelForSequenceClassification.from_pretrained(
            tmp_path / "optimum", ov_config={"INFERENCE_PRECISION_HINT": "f32"}
        )
    inputs = tokenizer(QUERIES[:5], DOCUMENTS[:5], padding=True, truncation=True, return_tensors="pt")
    wanted = load(xlmr_cross, runtime="torch").score(QUERIES[:5], DOCUMENTS[:5])
    np.testing.assert_allclose(model(**inputs).logits[:, 0], wanted, atol=1e-4)
    with pytest.raises(BadInput, match="an ONNX export is needed; add onnx to export.formats"):
        write_layout(tmp_path / "fp32", tmp_path / "triton", tool="triton")


def test_the_command_and_what_it_refuses(exports, tmp_path, capsys, monkeypatch):
    from recipes.cli import main

    source, _ = exports("bi", "int8")
    assert main(["layout", str(source), str(tmp_path / "made"), "--for", "fastembed"]) == 0
    assert (tmp_path / "made" / "model.onnx").is_file()
    assert main(["layout", str(source), str(tmp_path / "other"), "--for", "coreml"]) == 2
    assert (
        "layout 'coreml' is not known; accepted: fastembed, tei, transformers.js, triton, optimum"
        in capsys.readouterr().err
    )
    monkeypatch.setattr(layouts, "_run", lambda *_: np.zeros((len(layouts._SAMPLES), 64)))
    with pytest.raises(GateFailed, match="the triton layout of .* differs from it by"):
        write_layout(source, tmp_path / "broken", tool="triton")
    assert not Path(tmp_path / "broken").exists()
    damaged = shutil.copytree(source, tmp_path / "damaged")
    (damaged / "config.json").write_text("{}")
    assert main(["layout", str(damaged), str(tmp_path / "other"), "--for", "fastembed"]) == 2
    assert "was changed or damaged after it was made" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_lower_casing_of_sentence_transformers_goes_into_the_tokenizer(bert_bi, tmp_path):
    source = shutil.copytree(bert_bi, tmp_path / "source")
    path = source / "sentence_bert_config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text(encoding="utf-8")), "do_lower_case": True}), encoding="utf-8"
    )
    state = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    state["normalizer"] = None  # now only sentence-transformers lower-cases
    (source / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    export(source, tmp_path / "export")
    wanted = load(source, runtime="torch").encode(["Python AND Django"])
    folder = tmp_path / "export"
    values = layouts._run(
        folder / "onnx/model.onnx", folder / "tokenizer.json", ["Python AND Django"], "sentence_embedding"
    )
    np.testing.assert_allclose(values, wanted, atol=1e-4)
