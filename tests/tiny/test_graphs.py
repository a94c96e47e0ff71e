"""One graph from token ids to the result is torch's, whatever the family, the shape and the side of the padding."""

import json
import shutil

import numpy as np
import pytest
import torch

from distill.errors import BadInput, JobFailed
from distill.graphs import trace as graph
from distill.graphs.onnx import write_onnx
from distill.graphs.openvino import pin_precision, save_graph, trace
from distill.graphs.trace import load_graph_module
from distill.models.modeling import quiet
from distill.runtime.opening import load
from tests.tiny.conftest import SENTENCES
from tests.tiny.families import FAMILIES, MAX_LENGTH, build_family

pytestmark = pytest.mark.integration

SHAPES = [(1, 1), (1, 2), (3, 7), (4, 33), (2, MAX_LENGTH)]  # rows, tokens
TEXTS = [*SENTENCES, "", "a", " ".join(SENTENCES), "가나다 " * 300]


def features(module, n_rows, n_tokens, *, left=False):
    """Ragged inputs drawn apart from those that the exporter checks with."""
    return module.features(n_rows, n_tokens, seed=100 * n_rows + n_tokens, left=left)


def stock(folder, given):
    """What unpatched sentence-transformers computes of the same inputs, with whatever attention it chooses itself."""
    from sentence_transformers import CrossEncoder, SentenceTransformer

    kind = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))["model_type"]
    with quiet():
        model = (SentenceTransformer if kind == "SentenceTransformer" else CrossEncoder)(str(folder), device="cpu")
    results = []
    for one in given:
        state = {name: torch.from_numpy(values) for name, values in one.items()}
        with torch.inference_mode():
            for module in model:
                state = module(state)
        results.append(state["sentence_embedding" if kind == "SentenceTransformer" else "scores"].numpy())
    return results


def check(folder, tmp_path, *, left=True, names):
    """Both formats against stock torch, at shapes of this file."""
    import onnxruntime
    import openvino

    module = load_graph_module(folder)
    assert module.output_names == names
    given = [features(module, *shape, left=side) for shape in SHAPES for side in ((False, True) if left else (False,))]
    expected = stock(folder, given)
    write_onnx(folder, tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx/model.onnx"))
    assert tuple(port.name for port in session.get_outputs()) == names
    traced = trace(folder).model
    assert tuple(port.get_any_name() for port in traced.outputs) == names
    compiled = openvino.Core().compile_model(
        traced, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    for one, wanted in zip(given, expected, strict=True):
        (from_onnx,) = session.run([names[-1]], one)
        np.testing.assert_allclose(from_onnx, wanted, atol=1e-4)
        np.testing.assert_allclose(compiled(one)[names[-1]], wanted, atol=1e-4)


# the others differ from these in little and take as long
_SLOW = {"electra", "distilbert", "roberta", "xlm-roberta", "deberta-v2"}


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.slow) if name in _SLOW else name for name in FAMILIES]
)
def test_a_bi_encoder_of_every_family(family, tmp_path):
    folder = build_family(tmp_path, family, "bi_encoder")
    check(folder, tmp_path / "out", names=("last_hidden_state", "sentence_embedding"))


@pytest.mark.parametrize(
    "family", ["bert", *(pytest.param(name, marks=pytest.mark.slow) for name in ("modernbert", "deberta-v2"))]
)
def test_a_reranker_with_its_own_head(family, tmp_path):
    folder = build_family(tmp_path, family, "cross_encoder", own_head=True)
    # its head reads the first position: with padding there, it says nothing in torch either
    check(folder, tmp_path / "out", left=False, names=("logits",))


def test_dense_layers_and_score_are_inside(bert_cross, tmp_path):
    check(bert_cross, tmp_path, names=("last_hidden_state", "logits"))


@pytest.mark.parametrize(
    "pooling",
    [
        "cls",
        "lasttoken",
        pytest.param("max", marks=pytest.mark.slow),
        pytest.param("weightedmean", marks=pytest.mark.slow),
    ],
)
def test_every_pooling_is_inside_onnx(pooling, bert_bi, tmp_path):
    import onnxruntime

    folder = shutil.copytree(bert_bi, tmp_path / "model")
    settings = {"embedding_dimension": 64, "pooling_mode": pooling, "include_prompt": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    write_onnx(folder, tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx/model.onnx"))
    given = [features(load_graph_module(folder), *shape, left=left) for shape in SHAPES for left in (False, True)]
    for one, wanted in zip(given, stock(folder, given), strict=True):
        np.testing.assert_allclose(session.run(["sentence_embedding"], one)[0], wanted, atol=1e-4)


def test_truncation_is_that_of_torch_in_both_formats(xlmr_bi, tmp_path):
    for name in ("onnx", "openvino"):
        folder = shutil.copytree(xlmr_bi, tmp_path / name)
        if name == "onnx":
            write_onnx(folder, folder)
        else:
            save_graph(trace(folder), folder)
            pin_precision(folder, "fp32")
        scorer = load(folder, runtime=name, n_threads=1)
        np.testing.assert_allclose(scorer.encode(TEXTS), load(xlmr_bi, runtime="torch").encode(TEXTS), atol=1e-4)


@pytest.mark.slow
def test_a_graph_that_is_not_torch_is_refused(bert_bi, monkeypatch, tmp_path):
    def blind(q_length, kv_length, mask_function, attention_mask=None, **_):
        return torch.zeros(attention_mask.shape[0], 1, 1, attention_mask.shape[1])  # padding is looked at

    monkeypatch.setattr(graph, "_additive_mask", blind)
    with pytest.raises(JobFailed, match="cannot be exported to ONNX: the ONNX graph .*differs by"):
        write_onnx(bert_bi, tmp_path)
    with pytest.raises(JobFailed, match="cannot be exported to OpenVINO: the OpenVINO graph .*differs by"):
        trace(bert_bi)


def test_what_no_graph_can_know_is_refused(bert_bi, tmp_path):
    folder = shutil.copytree(bert_bi, tmp_path / "model")
    path = folder / "1_Pooling" / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace("true", "false"), encoding="utf-8")
    with pytest.raises(BadInput, match="include_prompt: false"):
        load_graph_module(folder)


def test_the_masks_of_transformers_are_back_afterwards():
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask

    with pytest.raises(RuntimeError), graph.traceable_masks():
        assert ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is graph._additive_mask
        raise RuntimeError
    assert (ALL_MASK_ATTENTION_FUNCTIONS["sdpa"], ALL_MASK_ATTENTION_FUNCTIONS["eager"]) == (sdpa_mask, eager_mask)


def test_a_full_disk_is_no_fault_of_the_model(bert_bi, monkeypatch, tmp_path):
    def full(*_):
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr("distill.graphs.onnx._export", full)
    with pytest.raises(RuntimeError, match="iostream"):
        write_onnx(bert_bi, tmp_path)
