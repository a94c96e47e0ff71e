"""int8 weights are rounded so that the outputs of a layer change least, in both formats, with the same codes' range."""

import numpy as np
import pytest

from distill.data.tokens import tokenize
from distill.graphs.openvino import trace
from distill.models.files import open_tokenizer, read_model_files
from students.export import rounding
from students.export.arithmetic import greatest_code
from students.export.graphs import Quantization, write_onnx_graph, write_openvino_graph
from students.export.quantize_onnx import quantize_static
from students.export.rounding import float_weights, is_rounded, round_graph, round_to_outputs
from tests.tiny.conftest import SENTENCES

RNG = np.random.default_rng(0)


def correlated_inputs(n_rows=400, n_in=24, rank=6):
    return RNG.normal(size=(n_rows, rank)) @ RNG.normal(size=(rank, n_in)) + 0.1 * RNG.normal(size=(n_rows, n_in))


def test_outputs_change_less_than_with_the_nearest_step():
    inputs, weights = correlated_inputs(), RNG.normal(size=(24, 10))
    scale = np.abs(weights).max(axis=0) / 64
    codes = round_to_outputs(weights, scale, inputs.T @ inputs, 64)
    nearest = np.rint(weights / scale)
    assert is_rounded(weights, nearest, scale) and not is_rounded(weights, codes, scale)
    assert np.abs(codes).max() <= 64 and codes.dtype == np.int8
    errors = [float(((inputs @ (given * scale - weights)) ** 2).sum()) for given in (codes, nearest)]
    assert errors[0] < errors[1] / 4


def test_inputs_that_are_independent_are_rounded_to_the_nearest_step():
    weights, scale = RNG.normal(size=(8, 4)), np.full(4, 0.1)
    codes = round_to_outputs(weights, scale, np.diag(np.arange(8.0)), 64)  # one input is always 0
    np.testing.assert_array_equal(codes, np.rint(weights / scale))


def test_blocks_change_nothing(monkeypatch):
    inputs, weights = correlated_inputs(), RNG.normal(size=(24, 10))
    gram, scale = inputs.T @ inputs, np.full(10, 0.05)
    whole = round_to_outputs(weights, scale, gram, 64)
    monkeypatch.setattr(rounding, "_BLOCK", 7)
    np.testing.assert_array_equal(round_to_outputs(weights, scale, gram, 64), whole)


@pytest.fixture(scope="module")
def sample(bert_bi):
    table = tokenize(open_tokenizer(read_model_files(bert_bi)), SENTENCES, max_length=32)
    rows = range(len(SENTENCES))
    return [{name: tensor.numpy() for name, tensor in table.batch([row], multiple=1).items()} for row in rows]


@pytest.mark.integration
@pytest.mark.parametrize("format", ["openvino", "onnx"])
@pytest.mark.parametrize("alpha", [0.7, pytest.param(-1, marks=pytest.mark.slow)])
def test_an_export_is_rounded_anew_and_closer_to_torch(bert_bi, sample, format, alpha, tmp_path, monkeypatch):
    layers = []
    monkeypatch.setattr(rounding, "_GRAM_BYTES", 10_000)  # each input in a group of its own
    rounded = rounding.round_to_outputs
    monkeypatch.setattr(rounding, "round_to_outputs", lambda *given: layers.append(given) or rounded(*given))
    write = write_openvino_graph if format == "openvino" else write_onnx_graph
    for nearest in (True, False):
        folder = tmp_path / f"nearest-{nearest}"
        folder.mkdir()
        write(bert_bi, folder, Quantization("int8", sample, alpha, None, nearest=nearest))
        assert greatest_code(folder, format) <= 64
        assert bool(layers) is not nearest
    assert len(layers) == 12  # two layers of query, key, value, output and both of the feed-forward network
    errors = {"new": 0.0, "nearest": 0.0}
    for weights, scale, gram, greatest in layers:
        for name, codes in (("new", rounded(weights, scale, gram, greatest)), ("nearest", np.rint(weights / scale))):
            off = codes * scale - weights
            errors[name] += float(np.einsum("io,ij,jo->", off, gram, off))
    assert errors["new"] < errors["nearest"]


def test_weights_that_are_not_understood_stay_as_they_are(bert_bi, sample, caplog):
    """A float graph has no int8 product: nothing is rounded, and nothing changes."""
    graph = trace(bert_bi).model
    weights = float_weights(graph)
    before = {name: values.copy() for name, values in weights.items()}
    round_graph(graph, weights, sample, overflow_safe=True)
    assert all((float_weights(graph)[name] == values).all() for name, values in before.items())


def test_weights_that_products_share_are_one_weight_in_onnx(tmp_path, caplog):
    """The exporter gives all but the first product a copy (ALBERT): they were left in float, and read what was rounded for the first."""
    import onnx
    from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

    weights = RNG.normal(size=(8, 8)).astype(np.float32)
    nodes = [
        make_node("MatMul", ["x", "w"], ["hidden"], name="/layer/MatMul"),
        make_node("Identity", ["w"], ["copy"]),
        make_node("MatMul", ["hidden", "copy"], ["y"], name="/layer_1/MatMul"),
    ]
    x, y = (make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, "n", 8]) for name in "xy")
    graph = make_graph(nodes, "shared", [x], [y], [onnx.numpy_helper.from_array(weights, "w")])
    path = tmp_path / "onnx/model.onnx"
    path.parent.mkdir()
    onnx.save(make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8), str(path))
    inputs = correlated_inputs(n_in=8).astype(np.float32)
    with caplog.at_level("INFO"):
        quantize_static(tmp_path, [{"x": inputs[None]}], (), alpha=-1)
    written = onnx.load(str(path)).graph
    unpacked = {node.output[0]: node.input[0] for node in written.node if node.op_type == "DequantizeLinear"}
    read = {unpacked.get(node.input[1]) for node in written.node if node.op_type == "MatMul"}
    assert len(read) == 1 and None not in read
    assert "2 of 2 matrix products keep weights of the nearest step" in caplog.text


def test_what_is_reshaped_after_it_was_rounded_is_an_int8_product(tmp_path):
    """So are attention outputs of ALBERT: their codes were neither rounded anew, nor counted, nor looked at by `greatest_code`."""
    import openvino
    from openvino import opset13 as ops

    inputs, weights = correlated_inputs(n_in=8).astype(np.float32), RNG.normal(size=(8, 5)).astype(np.float32)
    scale = np.abs(weights).max(axis=0) / 64
    nearest = np.rint(weights / scale).astype(np.int8)
    x = ops.parameter([1, -1, 2, 4], np.float32, name="x")
    low, high = inputs.min(), inputs.max()
    read = ops.reshape(ops.fake_quantize(x, low, high, low, high, 256), np.array([1, -1, 8]), special_zero=False)
    unpacked = ops.multiply(ops.convert(ops.constant(nearest.T), "f32"), ops.constant(scale[:, None]))
    graph = openvino.Model([ops.matmul(read, unpacked, False, True, name="product")], [x], "reshaped")
    graph.inputs[0].get_tensor().set_names({"x"})
    round_graph(graph, {"product": weights}, [{"x": inputs.reshape(1, -1, 2, 4)}], overflow_safe=True)
    codes = next(node for node in graph.get_ops() if node.get_element_type().get_type_name() == "i8").data.T
    errors = [float(((inputs @ (given * scale - weights)) ** 2).sum()) for given in (codes, nearest)]
    assert errors[0] < errors[1]
    (tmp_path / "openvino").mkdir()
    openvino.save_model(graph, tmp_path / "openvino/openvino_model.xml", compress_to_fp16=False)
    assert greatest_code(tmp_path, "openvino") == np.abs(codes).max()
