"""Exports are whole folders that stock sentence-transformers loads, as close to torch as they claim."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch

from distill.errors import BadInput, GateFailed, JobFailed
from distill.files.artefact import check_model_folder, read_card, revision
from distill.graphs.trace import check_graph, load_graph_module
from distill.machine.cpu import cpu_class
from distill.runtime.opening import load
from students.export import graphs as export_graphs
from students.export import stage as export
from students.export.calibration import rows_over_lengths
from students.export.float_layers import kept_nodes
from students.export.gate import DEFAULT_THRESHOLDS, Thresholds
from students.export.stage import export_openvino
from tests.tiny.conftest import SENTENCES

pytestmark = pytest.mark.integration

PAIRS = [(left, right) for left in SENTENCES for right in SENTENCES if left != right]
HELD_BACK = [*PAIRS[::3], ("", "a"), (" ".join(SENTENCES), "가나다 " * 200)]
QUERIES, DOCUMENTS = [pair[0] for pair in HELD_BACK], [pair[1] for pair in HELD_BACK]
NO_GATE = Thresholds()


@pytest.fixture(scope="session", params=["bert_bi", "xlmr_bi", "xlmr_cross"])
def exported(request, tmp_path_factory):
    source = request.getfixturevalue(request.param)
    target = tmp_path_factory.mktemp("export") / "fp32"
    return source, target, export_openvino(source, target, precision="fp32", held_back=HELD_BACK, n_threads=1)


@pytest.fixture(scope="session")
def traced(bert_bi, tmp_path_factory):
    """What `trace` gives, made once and read again: tests of what comes after need not trace anew."""
    import openvino
    from transformers import AutoConfig

    from distill.graphs.openvino import Traced

    target = tmp_path_factory.mktemp("traced") / "fp32"
    export_openvino(bert_bi, target, precision="fp32", held_back=HELD_BACK, n_threads=1)
    config, core = AutoConfig.from_pretrained(bert_bi), openvino.Core()
    graph = target / "openvino/openvino_model.xml"
    return lambda source: Traced(core.read_model(graph), config)


@pytest.fixture
def untraced(traced, monkeypatch):
    monkeypatch.setattr(export_graphs, "trace", traced)


@pytest.fixture(scope="session")
def quantized(bert_bi, traced, tmp_path_factory):
    target = tmp_path_factory.mktemp("export") / "int8"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_graphs, "trace", traced)
        return target, _int8(bert_bi, target)


def _int8(source, target, **options):
    options = {"calibration": PAIRS, "n_calibration": 20, "thresholds": NO_GATE, "n_threads": 1, **options}
    return export_openvino(source, target, precision="int8", held_back=HELD_BACK, **options)


def test_fp32_is_torch(exported):
    source, target, report = exported
    assert not report.failures(DEFAULT_THRESHOLDS["fp32"])
    assert report.precision == "fp32" and report.n_pairs == len(HELD_BACK) and report.batch_difference < 1e-4
    ours, reference = load(target, n_threads=1), load(source, runtime="torch", n_threads=1)
    assert (ours.runtime, ours.precision, ours.n_parameters) == ("openvino", "fp32", reference.n_parameters)
    np.testing.assert_allclose(ours.score(QUERIES, DOCUMENTS), reference.score(QUERIES, DOCUMENTS), atol=1e-5)


def test_stock_loads_it_and_gives_the_same(exported, monkeypatch):
    pytest.importorskip("optimum.intel", reason="stock sentence-transformers opens OpenVINO through optimum-intel")
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from torch import nn

    from distill.models.modeling import quiet

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _, target, report = exported
    scorer = load(target, n_threads=1)
    with quiet():
        if report.kind == "bi_encoder":
            stock = SentenceTransformer(str(target), backend="openvino", device="cpu").encode(QUERIES)
            np.testing.assert_allclose(scorer.encode(QUERIES), stock, atol=1e-5)
        else:
            stock = CrossEncoder(str(target), backend="openvino", device="cpu")
            values = stock.predict(HELD_BACK, activation_fn=nn.Identity())
            np.testing.assert_allclose(scorer.score(QUERIES, DOCUMENTS), values, atol=2e-5)


def test_the_folder_is_whole_and_holds_no_torch_weights(exported):
    source, target, report = exported
    assert check_model_folder(target) == report.kind
    assert not list(target.glob("*.safetensors")) and (target / "openvino/openvino_model.bin").is_file()
    card = read_card(target)
    assert card.kind == report.kind and card.stage == "export" and card.parents == {source.name: revision(source)}
    assert card.details["precision"] == card.details["runs_in"] == "fp32"
    assert card.details["parity"]["n_pairs"] == len(HELD_BACK) and report.worst
    assert "worst" not in card.details["parity"] and "text" in report.worst[0]
    with pytest.raises(BadInput, match="no torch weights, only a graph"):
        load(target, runtime="torch")


def test_fp32_weights_stay_fp32_and_bytes_repeat(bert_bi, exported, tmp_path):
    import openvino

    source, target, _ = exported
    graph = openvino.Core().read_model(target / "openvino/openvino_model.xml")
    kinds = {node.get_element_type().get_type_name() for node in graph.get_ops() if node.get_type_name() == "Constant"}
    assert not kinds & {"f16", "bf16", "i8", "u8"}
    if source == bert_bi:
        export_openvino(source, tmp_path / "again", precision="fp32", held_back=HELD_BACK, n_threads=1)
        assert revision(tmp_path / "again") == revision(target)


def test_bf16_is_the_same_graph_with_another_pin(bert_bi, untraced, tmp_path):
    report = export_openvino(bert_bi, tmp_path / "bf16", precision="bf16", held_back=HELD_BACK, n_threads=1)
    assert report.precision in ("bf16", "fp32")  # fp32 where the CPU has no bf16
    settings = json.loads((tmp_path / "bf16/sentence_bert_config.json").read_text(encoding="utf-8"))
    assert settings["model_args"] == {"ov_config": {"INFERENCE_PRECISION_HINT": "bf16"}}


def test_int8_is_int8_and_smaller(bert_bi, quantized):
    target, report = quantized
    scorer = load(target, n_threads=1)
    assert scorer.precision == report.precision == "int8"
    assert report.mean_cosine > 0.95 and report.rank_agreement > 0.8
    assert report.batch_difference < 0.02  # static ranges: a text's result does not hang on its neighbours
    calibration = read_card(target).details["calibration"]
    assert calibration["n_inputs"] == len(SENTENCES)  # a bi-encoder is calibrated on single texts, each once
    assert calibration["n_kept_float"] == 2 and calibration["keep_float"] == "ffn_down"
    weights = (target / "openvino/openvino_model.bin").stat().st_size
    assert weights < 0.6 * (bert_bi / "model.safetensors").stat().st_size


def test_int8_is_the_same_on_every_cpu(quantized):
    from students.export.arithmetic import greatest_code

    target, report = quantized
    assert greatest_code(target, "openvino") == 64 == report.arithmetic["greatest_code"]
    assert report.arithmetic["mean_cosine"] > 0.9995 and report.arithmetic["min_cosine"] > 0.999
    details = read_card(target).details
    assert details["overflow_safe"] and details["exported_on"] == cpu_class() == report.arithmetic["cpu_class"]
    assert cpu_class() in details["parity"]["arithmetic"]["judged"]


def test_weights_of_8_bits_are_refused(bert_bi, untraced, tmp_path):
    limits = Thresholds(arithmetic_mean_cosine=0.9995, arithmetic_min_cosine=0.999)
    with pytest.raises(GateFailed, match="weights up to 12[78] saturate on CPUs without VNNI"):
        _int8(bert_bi, tmp_path / "int8", thresholds=limits, _overflow_safe=False)
    assert not list(tmp_path.iterdir())


def test_int8_repeats(bert_bi, quantized, untraced, tmp_path):
    _int8(bert_bi, tmp_path / "again")
    assert revision(tmp_path / "again") == revision(quantized[0])


def test_cross_encoder_int8_is_calibrated_on_pairs(xlmr_cross, tmp_path):
    report = _int8(xlmr_cross, tmp_path / "int8", keep_float=None)
    assert report.min_cosine is None and report.rank_agreement > 0.8
    calibration = read_card(tmp_path / "int8").details["calibration"]
    assert calibration["n_inputs"] == 20 and calibration["n_kept_float"] == 0


def test_the_gate_refuses_and_leaves_what_was_there(bert_bi, untraced, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "artefact.json").write_text("kept", encoding="utf-8")
    limits = Thresholds(min_cosine=1.1, max_difference=1e-12)  # out of reach for fp32 too: no layer is searched
    with pytest.raises(GateFailed) as caught:
        export_openvino(
            bert_bi, target, precision="fp32", held_back=HELD_BACK, n_threads=1, thresholds=limits, overwrite=True
        )
    message = str(caught.value)
    assert "min_cosine" in message and "max_difference" in message and "at most 1e-12" in message
    assert message.count("\n  cosine") == 5 and all(len(line) < 220 for line in message.splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert [(path.name, path.read_text(encoding="utf-8")) for path in target.iterdir()] == [("artefact.json", "kept")]


def test_what_a_quantizer_raises_is_one_line(bert_bi, monkeypatch, tmp_path):
    def fails(*_):
        raise RuntimeError("Exception from core.cpp:117:\ncould not append an elementwise post-op\n\n")

    monkeypatch.setattr(export, "write_openvino_graph", fails)
    with pytest.raises(
        JobFailed, match="cannot be written in int8 in openvino: .*117: could not append .*; take another"
    ):
        _int8(bert_bi, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_model_whose_own_results_are_nan_says_so(bert_bi):
    module = load_graph_module(bert_bi)
    with torch.no_grad():
        module.transformer.model.embeddings.word_embeddings.weight.fill_(1e38)
    with pytest.raises(JobFailed, match="torch itself computes NaN"):
        check_graph(module, lambda features: module(*(torch.from_numpy(given) for given in features.values())), "it")


def test_the_target_goes_through_the_door_of_all_outputs(bert_bi, untraced, tmp_path):
    def export(target, **options):
        export_openvino(bert_bi, target, precision="fp32", held_back=HELD_BACK, n_threads=1, **options)

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(BadInput, match=r"holds other files \(thesis.txt\)"):
            export(tmp_path / "mine", overwrite=overwrite)
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "artefact.json").write_text("{}")
    with pytest.raises(BadInput, match="holds an earlier result"):
        export(tmp_path / "earlier")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(BadInput, match="is a link"):
        export(tmp_path / "link")
    with pytest.raises(BadInput, match="is an input of this command"):
        export(bert_bi, overwrite=True)
    with pytest.raises(BadInput, match="lies in an input"):
        export(bert_bi / "int8")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine" and (bert_bi / "model.safetensors").is_file()


def test_bad_arguments_are_refused_before_anything_is_done(bert_bi, untraced, tmp_path):
    target = tmp_path / "target"
    with pytest.raises(BadInput, match="int8 needs calibration pairs"):
        _int8(bert_bi, target, calibration=[])
    with pytest.raises(BadInput, match="smooth_quant_alpha 2"):
        _int8(bert_bi, target, smooth_quant_alpha=2)
    with pytest.raises(BadInput, match="1 held-back pairs"):
        export_openvino(bert_bi, target, precision="fp32", held_back=HELD_BACK[:1])
    with pytest.raises(BadInput, match="precision 'int4' is not known"):
        export_openvino(bert_bi, target, precision="int4", held_back=HELD_BACK)
    with pytest.raises(BadInput, match="matches no matrix product"):
        _int8(bert_bi, target, keep_float=["no such layer"])
    assert not list(tmp_path.iterdir())


def test_bfloat16_weights_become_float32_and_settings_for_torch_stay_behind(bert_bi, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    source = shutil.copytree(bert_bi, tmp_path / "source")
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    _change(source / "config.json", dtype="bfloat16")
    _change(source / "sentence_bert_config.json", model_kwargs={"attn_implementation": "eager"})
    report = export_openvino(source, tmp_path / "target", precision="fp32", held_back=HELD_BACK, n_threads=1)
    assert report.max_difference < 1e-4
    settings = json.loads((tmp_path / "target/sentence_bert_config.json").read_text(encoding="utf-8"))
    assert settings["model_args"] == {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}


def _change(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def test_calibration_is_spread_over_the_lengths():
    lengths = np.array([5] * 95 + [50, 60, 70, 80, 90])
    rows = rows_over_lengths(lengths, 20, seed=0)
    assert len(rows) == len(set(rows)) == 20 and lengths[rows].max() >= 50
    assert rows_over_lengths(lengths, 20, seed=0) == rows != rows_over_lengths(lengths, 20, seed=1)


def test_no_pattern_keeps_nothing(exported):
    import openvino

    graph = openvino.Core().read_model(exported[1] / "openvino/openvino_model.xml")
    assert kept_nodes(graph, None) == []
    assert len(kept_nodes(graph, "ffn_down")) == 2


@pytest.mark.slow
def test_a_layer_that_int8_breaks_is_found_and_kept_in_float(bert_bi, monkeypatch, tmp_path):
    from distill.models.modeling import load_model, save_model, transformer_of

    model = load_model(bert_bi)
    layer = transformer_of(model).encoder.layer[1]
    with (
        torch.no_grad()
    ):  # four channels of the feed-forward layer so wide that nothing is left of the others in 256 steps
        layer.intermediate.dense.weight[:4] = 0
        layer.intermediate.dense.bias[:4] = 4000
        layer.output.dense.weight[:, :4] *= 1e-5
    save_model(model, tmp_path / "source")
    traced = export_graphs.trace(tmp_path / "source")  # once: each trial is of the same graph
    graph = traced.model

    def trace(_):
        traced.model = graph.clone()
        return traced

    monkeypatch.setattr(export_graphs, "trace", trace)
    one_alpha = partial(export.fewest_float_layers, alphas=(0.5,))  # no α helps here, and each is a whole export
    monkeypatch.setattr(export, "fewest_float_layers", one_alpha)
    limits = Thresholds(min_cosine=0.9993)
    options = {"calibration": HELD_BACK, "n_calibration": 20, "n_threads": 1, "thresholds": limits}
    report = export_openvino(
        tmp_path / "source", tmp_path / "int8", precision="int8", held_back=HELD_BACK, keep_float=None, **options
    )
    assert not report.failures(limits)
    found = read_card(tmp_path / "int8").details["search"]
    assert found["trials"][-1]["holds"] or any(trial["holds"] for trial in found["trials"])
    assert any("layer.1.output.dense" in name for name in found["kept_float"])
    assert len(found["kept_float"]) < 12
