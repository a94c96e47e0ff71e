"""Round int8 weights so that the errors of a layer's outputs are small on real inputs, not the errors of the weights.

Rounding each weight to the nearest step ignores that a layer's inputs are correlated. Here (GPTQ, Frantar et al. 2023) the
weights of one input after the other are rounded, and those of the inputs to come make up for the error. Scales, codes,
size and speed stay as they were. With weights in 7 bits, which every CPU computes alike
(`students.export.arithmetic`), the error of MiniLM-L6's layer outputs is 4 to 11 times smaller, in mean squares.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.progress import progress
from students.export.weights import constant_of, range_of

__all__ = [
    "EXACT_OPTIONS",
    "SAFE_CODE",
    "RoundedLayer",
    "float_weights",
    "is_rounded",
    "round_graph",
    "round_layers",
    "round_to_outputs",
]

log = logging.getLogger(__name__)
SAFE_CODE = 64
"""Weights up to this (7 bits) cannot saturate: 2 · 255 · 64 = 32,640 is less than 2¹⁵, see `students.export.arithmetic`."""
EXACT_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"}
"""With these OpenVINO keeps the rounded numbers of an int8 graph in float and sums them exactly; the second is private."""
_DAMPING = 0.01  # of the mean diagonal of XᵀX, as Frantar et al.
_BLOCK = 128  # inputs whose errors are handed on together to those after the block
_GRAM_BYTES = 1 << 29  # of the matrices that one run over the calibration inputs collects


def round_to_outputs(weights: np.ndarray, scale: np.ndarray, gram: np.ndarray, greatest: int) -> np.ndarray:
    """Return int8 codes with which codes · scale gives nearly the outputs X · weights.

    :param weights: *Shape:* (n_in, n_out)
    :param scale: the step of each output. *Shape:* (n_out,)
    :param gram: XᵀX of the layer's inputs. *Shape:* (n_in, n_in)
    :param greatest: the greatest absolute code
    :returns: *Shape:* (n_in, n_out)

    The second input repeats the first, so its weight makes up for the first one's rounding from 0.4 to 0:

    >>> ones = np.ones((2, 2))
    >>> round_to_outputs(np.array([[0.4], [0.4]]), np.array([1.0]), ones, 64).ravel().tolist()
    [0, 1]
    """
    order = np.argsort(-np.diag(gram), kind="stable")  # the inputs that matter most first
    hessian = gram[np.ix_(order, order)].astype(np.float64)
    diagonal = np.diag_indices(len(order))
    hessian[diagonal] += max(_DAMPING * float(hessian[diagonal].mean()), 1e-12)
    factor = np.linalg.cholesky(np.linalg.inv(hessian)).T
    left = weights[order].astype(np.float64)
    codes = np.empty(weights.shape, dtype=np.int8)
    for start in range(0, len(order), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(order)))
        errors = np.empty((block.stop - start, weights.shape[1]))
        for row in range(start, block.stop):
            code = np.clip(np.rint(left[row] / scale), -greatest, greatest)
            codes[order[row]] = code
            errors[row - start] = (left[row] - code * scale) / factor[row, row]
            left[row + 1 : block.stop] -= np.outer(factor[row, row + 1 : block.stop], errors[row - start])
        left[block.stop :] -= factor[block, block.stop :].T @ errors
    return codes


@dataclass(frozen=True)
class RoundedLayer:
    """A matrix product in int8 and its weights before they were rounded.

    *Shape:* weights (n_in, n_out), scale (n_out,)
    """

    name: str
    reads: str
    """The name of its input; several layers may read the same one."""
    weights: np.ndarray
    scale: np.ndarray


def is_rounded(weights: np.ndarray, codes: np.ndarray, scale: np.ndarray) -> bool:
    """Tell whether the codes are these weights, each rounded to the nearest step.

    *Shape:* weights, codes (n_in, n_out), scale (n_out,)
    """
    return bool(np.abs(weights / scale - codes).max() < 0.51)


def round_layers(
    layers: Sequence[RoundedLayer],
    run: Callable[[Sequence[str]], Iterable[Sequence[np.ndarray]]],
    put: Callable[[RoundedLayer, np.ndarray], None],
    *,
    n_products: int,
    overflow_safe: bool,
) -> None:
    """Round the weights of layers anew, in groups whose inputs fit into memory, and put the codes in place.

    :param run: yields, for each calibration input, what the named layers read. *Shape:* (1, n_tokens, n_in) each
    :param put: stores the codes of a layer
    :param n_products: number of matrix products in int8; what is not among the layers keeps the nearest step
    """
    if len(layers) < n_products:
        log.info("%d of %d matrix products keep weights of the nearest step", n_products - len(layers), n_products)
    greatest = SAFE_CODE if overflow_safe else 127
    with progress("rounding weights", len(layers)) as report:
        for names in _groups({layer.reads: len(layer.weights) for layer in layers}):
            grams = _gram_matrices(names, run(names), lambda: report(0, "reading calibration inputs"))
            for layer in layers:
                if layer.reads in grams:
                    put(layer, round_to_outputs(layer.weights, layer.scale, grams[layer.reads], greatest))
                    report(1)


def _groups(widths: Mapping[str, int]) -> Iterator[list[str]]:
    """Cut inputs into groups whose gram matrices fit into memory together, in order.

    :param widths: of each input, by name

    >>> list(_groups({"a": 4096, "b": 4096, "c": 8192, "d": 10}))
    [['a', 'b'], ['c'], ['d']]
    """
    group: list[str] = []
    size = 0
    for name, width in widths.items():
        n_bytes = 8 * width * width
        if group and size + n_bytes > _GRAM_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += n_bytes
    if group:
        yield group


def _gram_matrices(
    names: Sequence[str], results: Iterable[Sequence[np.ndarray]], on_input: Callable[[], None]
) -> dict[str, np.ndarray]:
    """Return XᵀX of each named input over all tokens. *Shape:* (n_in, n_in) each, float64."""
    grams: dict[str, np.ndarray] = {}
    for arrays in results:
        for name, values in zip(names, arrays, strict=True):
            rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
            grams[name] = grams[name] + rows.T @ rows if name in grams else rows.T @ rows
        on_input()
    return grams


# ---------------------------------------------------------------------------------------------------------------------
# OpenVINO
# ---------------------------------------------------------------------------------------------------------------------


def float_weights(graph: Any) -> dict[str, np.ndarray]:
    """Return the weights of an OpenVINO graph's matrix products by name. *Shape:* (n_in, n_out) each."""
    return {node.get_friendly_name(): _stored_values(node) for node in _products(graph)}


def round_graph(
    graph: Any, weights: Mapping[str, np.ndarray], sample: Sequence[Mapping[str, np.ndarray]], *, overflow_safe: bool
) -> None:
    """Round the int8 weights of an OpenVINO graph anew, in place.

    :param weights: from before quantization, see `float_weights`
    :param sample: calibration inputs, unpadded and one at a time. *Shape:* each array (1, n_tokens)
    """
    import openvino

    nodes = {node.get_friendly_name(): node for node in _products(graph) if range_of(node) is not None}
    uses = Counter(_stored(node).get_friendly_name() for node in nodes.values())
    layers = [
        layer
        for name, node in nodes.items()
        if name in weights
        and uses[_stored(node).get_friendly_name()] == 1  # ALBERT's layers share theirs
        and (layer := _layer(node, weights[name])) is not None
    ]

    def run(names: Sequence[str]) -> Iterator[list[np.ndarray]]:
        watched = graph.clone()
        n_outputs = len(watched.outputs)
        inputs = {node.get_friendly_name(): node for node in watched.get_ops()}
        watched.add_outputs([inputs[name].output(0) for name in names])
        request = openvino.Core().compile_model(watched, "CPU", EXACT_OPTIONS).create_infer_request()
        for features in sample:
            request.infer(dict(features))
            yield [request.get_output_tensor(n_outputs + place).data for place in range(len(names))]

    def put(layer: RoundedLayer, codes: np.ndarray) -> None:
        old = _stored(nodes[layer.name])
        stored = codes.T if nodes[layer.name].get_attributes()["transpose_b"] else codes
        new = openvino.op.Constant(np.ascontiguousarray(stored))
        new.set_friendly_name(old.get_friendly_name())
        for reader in list(old.output(0).get_target_inputs()):
            reader.replace_source_output(new.output(0))

    round_layers(layers, run, put, n_products=len(nodes), overflow_safe=overflow_safe)


def _products(graph: Any) -> list[Any]:
    """Return the matrix products with a weight of two dimensions, in the order of the computation."""
    return [
        node
        for node in graph.get_ordered_ops()
        if node.get_type_name() == "MatMul"
        and (constant := constant_of(node.input_value(1).get_node())) is not None
        and len(constant.get_output_shape(0)) == 2
    ]


def _stored(node: Any) -> Any:
    """Return the constant with the weights of one of the `_products`."""
    return constant_of(node.input_value(1).get_node())


def _stored_values(node: Any) -> np.ndarray:
    """*Shape:* (n_in, n_out)."""
    values: np.ndarray = _stored(node).data
    return values.T if node.get_attributes()["transpose_b"] else values


def _layer(node: Any, weights: np.ndarray) -> RoundedLayer | None:
    """Describe a quantized matrix product; None if its weights are not understood, so that they stay as they are."""
    unpacked, read, codes = node.input_value(1).get_node(), node.input_value(0).get_node(), _stored_values(node)
    parts = [port.get_node().get_type_name() for port in unpacked.input_values()]
    if unpacked.get_type_name() != "Multiply" or parts != ["Convert", "Constant"]:
        return None
    scale = unpacked.input_value(1).get_node().data.reshape(-1)
    if len(scale) != codes.shape[1]:
        return None
    for smoothing in (_smoothing(range_of(node).input_value(0).get_node(), len(codes)), None):  # type: ignore[union-attr]
        smoothed = weights if smoothing is None else weights / smoothing[:, None]
        if is_rounded(smoothed, codes, scale):
            return RoundedLayer(node.get_friendly_name(), read.get_friendly_name(), smoothed, scale)
    return None


def _smoothing(node: Any, width: int) -> np.ndarray | None:
    """Return the constant that SmoothQuant multiplies a layer's input with; None without one. *Shape:* (n_in,)."""
    if node.get_type_name() != "Multiply" or node.input_value(1).get_node().get_type_name() != "Constant":
        return None
    factor: np.ndarray = node.input_value(1).get_node().data.reshape(-1)
    return factor if len(factor) == width and factor.all() else None
