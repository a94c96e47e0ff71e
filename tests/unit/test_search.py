"""The search for what has to stay out of int8, on exports whose truth is known, and the gate's own measures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from students.export.agreement import top_k_overlap
from students.export.gate import ParityReport, Thresholds
from students.export.search import _int8_error, _pattern, fewest_float_layers, layer_errors
from students.export.weights import INT4_SHARES, shrink

LIMITS = Thresholds(rank_agreement=0.99)


def report(agreement):
    return ParityReport("bi_encoder", "int8", 9, 0.9, 0.9, 1.0, agreement, None, 0.1, 0.1, 0.0, None, None, ())


class Exports:
    """Exports that hold once the named layers are in float; α 0.7 is a little better than the others."""

    def __init__(self, *needed):
        self.needed, self.asked = {_pattern(name) for name in needed}, []

    def __call__(self, alpha, patterns):
        self.asked.append((alpha, len(patterns)))
        return report((0.99 if self.needed <= set(patterns) else 0.9) + (0.001 if alpha == 0.7 else 0))


ERRORS = {f"layer.{i}": error for i, error in enumerate([0.1, 0.5, 0.3, 0.2, 0.05, 0.01, 0.02, 0.03])}


def test_all_in_int8_where_that_holds():
    exports = Exports()
    best, trials = fewest_float_layers(exports, lambda alpha: ERRORS, LIMITS)
    assert best.keep_float == () and len(trials) == 1 and best.alpha == 0.7


@pytest.mark.parametrize(
    ("needed", "n_float"),
    [
        (["layer.1"], 1),
        (["layer.1", "layer.2"], 2),
        (["layer.3"], 3),
        (["layer.0"], 4),
        (["layer.4"], 5),
        (["layer.5"], 8),
    ],
)
def test_the_least_that_holds_is_found(needed, n_float):
    exports = Exports(*needed)
    best, trials = fewest_float_layers(exports, lambda alpha: ERRORS, LIMITS)
    assert not best.failures and len(best.keep_float) == n_float
    assert best.alpha == 0.7  # the best of those that were tried with everything in int8
    assert len(trials) <= 4 + 4 + 2
    assert best.keep_float == tuple(_pattern(name) for name in sorted(ERRORS, key=lambda name: -ERRORS[name])[:n_float])


def test_where_nothing_holds_the_closest_is_given():
    best, trials = fewest_float_layers(
        lambda alpha, patterns: report(0.5 + len(patterns) / 100), lambda alpha: ERRORS, LIMITS, [0.5]
    )
    assert best.failures and len(best.keep_float) == 8
    assert [len(trial.keep_float) for trial in trials] == [0, 1, 2, 4, 8]


def test_a_rank_agreement_of_zero_is_closer_than_a_negative_one():
    assert report(0.0).closeness > report(-0.5).closeness > report(None).closeness


def test_int4_gives_way_to_int8_until_the_gate_holds():
    def export(share):
        return SimpleNamespace(share=share, report=report(1 - share / 50))

    assert [one.share for one in shrink(export, LIMITS)] == [1.0, 0.8, 0.6, 0.4]
    assert [one.share for one in shrink(export, Thresholds(rank_agreement=0.9))] == [1.0]
    assert [one.share for one in shrink(export, Thresholds(rank_agreement=1.0))] == list(INT4_SHARES)


def test_pattern_finds_its_layer_in_both_graphs_and_no_other():
    import re

    pattern = _pattern("layer.0.output.dense")
    for name in (
        "__module.model.layer.0.output.dense/aten::linear/MatMul",
        "transformer.model.encoder.layer.0.output.dense.MatMul",
        "transformer.encoder.layer.0.output.dense_1.MatMul",
    ):
        assert re.search(pattern, name)
    assert re.search(_pattern("pooler"), "pooler/MatMul")
    for name in (
        "x.layer.0.output.dense2.MatMul",
        "x.layer.10.output.dense.MatMul",
        "x.layer.0.attention.output.dense.MatMul",
    ):
        assert not re.search(pattern, name)


def test_error_by_hand():
    # rows 0 and 255: steps of 1; weights ±127 are ±64 steps: both are exact
    assert _int8_error(torch.tensor([[127.0, -127.0]]), torch.tensor([[0.0, 255.0], [7.0, 9.0]])) == 0
    # one row of 2.4 beside a range of 0 to 255 is read as 2: the output 2.4 becomes 2
    error = _int8_error(torch.tensor([[1.0]]), torch.tensor([[2.4], [255.0], [0.0]]))
    assert error == pytest.approx(0.4**2 / (2.4**2 + 255**2), rel=1e-3)


def test_layer_with_outliers_stands_out():
    torch.manual_seed(0)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.first, self.second = nn.Embedding(50, 16), nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, input_ids):
            hidden = self.first(self.embedding(input_ids))
            hidden = torch.cat([hidden[..., :1] * 500, hidden[..., 1:]], dim=-1)  # one channel dwarfs the rest
            return SimpleNamespace(last_hidden_state=self.second(hidden))

    model = Encoder()
    with torch.no_grad():
        model.second.weight[:, 0] /= 500
    inputs = [{"input_ids": np.random.default_rng(i).integers(0, 50, (1, 9))} for i in range(30)]
    errors = layer_errors(model, inputs)
    assert errors["second"] > 100 * errors["first"]
    assert not model.first._forward_pre_hooks


def test_layers_are_ranked_as_they_are_smoothed():
    """Outliers that SmoothQuant moves into the weights are no reason to keep a layer in float; ONNX has it behind norms alone."""
    torch.manual_seed(0)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.norm = nn.Embedding(50, 16), nn.LayerNorm(16)
            self.normed, self.other = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, input_ids):
            hidden = self.norm(self.embedding(input_ids))
            return SimpleNamespace(last_hidden_state=self.normed(hidden) + self.other(hidden * 1.0))

    model = Encoder()
    with torch.no_grad():
        model.norm.weight[0] = 300
        model.normed.weight[:, 0] /= 300
        model.other.weight[:, 0] /= 300
    inputs = [{"input_ids": np.random.default_rng(i).integers(0, 50, (1, 9))} for i in range(30)]
    rough, onnx, openvino = (
        layer_errors(model, inputs, **given) for given in ({}, {"alpha": 0.7}, {"alpha": 0.7, "smooths_all": True})
    )
    assert onnx["normed"] < rough["normed"] / 10 and onnx["other"] == rough["other"]
    assert openvino["other"] < rough["other"] / 10


def test_top_k_overlap_by_hand():
    queries = ["a"] * 4 + ["b"] * 2 + ["c"]
    scores = np.array([4, 3, 2, 1, 1, 0, 9.0])
    own = np.array([4, 1, 2, 3, 0, 1, 9.0])  # a: {0, 1} and {0, 3}; b: {0} and {1}; c has one document
    assert top_k_overlap(queries, scores, own) == pytest.approx((0.5 + 0) / 2)
    assert top_k_overlap(["c"], np.ones(1), np.ones(1)) is None
