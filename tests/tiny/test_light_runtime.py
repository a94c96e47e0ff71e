"""A graph runs without torch and transformers, whole or with the folder's modules behind it, and says the same."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from distill.runtime.opening import load
from tests.conftest import ROOT
from tests.tiny.conftest import SENTENCES
from tests.tiny.test_runtime import DOCUMENTS, QUERIES, TEXTS, stock_encode

pytestmark = pytest.mark.integration

HEAVY = ["torch", "transformers", "sentence_transformers", "scipy", "pydantic", "datasets"]
PROGRAM = f"""
import json, sys
from distill.runtime import load
scorer = load(sys.argv[1], n_threads=1)
texts = json.loads(sys.argv[2])
scores = scorer.score(texts, texts[::-1])
scorer.rank(texts[0], texts, top_k=2)
if scorer.kind == "bi_encoder":
    scorer.encode(texts, output="int8")
print(json.dumps([scores.tolist(), sorted(set({HEAVY}) & set(sys.modules))]))
"""


@pytest.mark.parametrize("name", ["bert_bi", "bert_cross", "xlmr_bi", "onnx_bi"])
def test_a_graph_needs_neither_torch_nor_transformers(name, graphs, request):
    source = request.getfixturevalue(name.replace("onnx", "bert"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(graphs / name), json.dumps(SENTENCES)],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    scores, heavy = json.loads(done.stdout)
    assert heavy == []
    expected = load(source, runtime="torch", n_threads=1).score(SENTENCES, SENTENCES[::-1])
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def whole(folder, target, ending):
    """Copy an OpenVINO folder with mean pooling and what follows put into its graph."""
    import openvino
    from openvino import opset13 as ops

    shutil.copytree(folder, target)
    path = target / "openvino/openvino_model.xml"
    model = openvino.Core().read_model(path)
    mask = next(port for port in model.inputs if "attention_mask" in port.get_names())
    weights = ops.unsqueeze(ops.convert(mask, "f32"), np.int64(-1))
    tokens = model.output("last_hidden_state").get_node().input_value(0)
    summed = ops.reduce_sum(ops.multiply(tokens, weights), np.int64(1))
    pooled = ops.divide(summed, ops.reduce_sum(weights, np.int64(1)))
    result = ops.result(ending(ops, pooled, load(target, n_threads=1)))
    result.output(0).set_names({"logits" if "cross" in target.name else "sentence_embedding"})
    openvino.save_model(openvino.Model([result], model.get_parameters(), "whole"), target / "new.xml", False)
    for suffix in ("xml", "bin"):
        (target / f"new.{suffix}").replace(path.with_suffix(f".{suffix}"))
    return target


def normalised(ops, pooled, scorer):
    return ops.normalize_l2(pooled, np.int64([1]), 1e-12, "max")


def test_a_whole_graph_gives_what_graph_and_modules_give(graphs, bert_bi, tmp_path):
    folder = whole(graphs / "bert_bi", tmp_path / "whole_bi", normalised)
    scorer, apart = load(folder, n_threads=1), load(graphs / "bert_bi", n_threads=1)
    np.testing.assert_allclose(scorer.encode(TEXTS), apart.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(scorer.encode(TEXTS), stock_encode(bert_bi, TEXTS), atol=1e-4)
    assert scorer.n_parameters == apart.n_parameters


def test_a_whole_cross_encoder_ends_in_logits(graphs, tmp_path):
    def mean_of_all(ops, pooled, scorer):
        return ops.reduce_mean(pooled, np.int64([1]), keep_dims=True)

    folder = whole(graphs / "bert_cross", tmp_path / "whole_cross", mean_of_all)
    scorer = load(folder, n_threads=1)
    assert scorer.embedding_width == 1
    alone = scorer.score(QUERIES[:1], DOCUMENTS[:1])
    np.testing.assert_allclose(scorer.score(QUERIES, DOCUMENTS)[:1], alone, atol=1e-5)
