"""int8 for ONNX graphs: ONNX Runtime's own quantizer, around it what it lacks, and settings that were measured.

Static (the default): quantize–dequantize pairs around the weights' matrix products, unsigned activations with ranges from
calibration, signed weights a scale for each output, rounded anew (`students.export.rounding`). What the quantizer's defaults
would add costs more than it gives: with products of two activations and outputs quantized too, the same graph took 408
instead of 182 ms and fell to cosine 0.947.

Two things are done before, on the float graph, where they change nothing:

    SmoothQuant   (Xiao et al. 2022) s = max|x|^α / max|W|^(1−α) for each channel; x / s and s·W are multiplied instead.
                  Only where x comes out of a layer norm, into which 1/s is folded where nothing else reads it: on the others
                  it gains nothing. Of MiniLM-L6 with down-projections in float the mean and the least cosine go from
                  0.994 and 0.983 to 0.9985 and 0.996.
    embeddings    the lookup tables in int8 with a scale for each column: 0.9999. The quantizer's one scale for a table: 0.998.

Dynamic: ranges from each batch as it comes. It needs no calibration, and a text's result then depends on the texts beside
it, which ONNX Runtime's maintainers call expected (https://github.com/microsoft/onnxruntime/issues/10111).
"""

import logging
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from distill.graphs.onnx import GRAPH, open_session, save_onnx
from distill.graphs.trace import GraphModule
from distill.models.modeling import quiet
from students.export.calibration import Sample
from students.export.float_layers import FFN_DOWN, matched
from students.export.rounding import RoundedLayer, is_rounded, round_layers

__all__ = ["quantize_dynamic", "quantize_static", "smooth_scale"]

_Array = np.ndarray


def quantize_static(
    folder: Path,
    sample: Sample,
    keep_float: Sequence[str],
    *,
    alpha: float = 0.7,
    nearest: bool = False,
    overflow_safe: bool = True,
) -> list[str]:
    """Quantize the graph of a folder in place; return the names of the matrix products that were kept in float.

    :param sample: calibration inputs, unpadded and one at a time. *Shape:* each array (1, n_tokens)
    :param keep_float: regular expressions, searched in names like "transformer.encoder.layer.0.output.dense.MatMul"
    :param alpha: how much of the activations' outliers goes into the weights; -1 turns SmoothQuant off
    :param nearest: round weights to the nearest step, see `students.export.rounding`
    :param overflow_safe: weights in 7 bits, see `students.export.arithmetic`
    :raises BadInput: for a pattern that is wrong, see `students.export.float_layers.matched`
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    path = folder / GRAPH
    model = onnx.load(str(path))
    _read_directly(model.graph)
    names = [value.name for value in model.graph.input]
    graph_inputs = [{name: inputs[name] for name in names} for inputs in sample]
    kept, excluded = _excluded(model.graph, keep_float)
    if alpha >= 0:
        _smooth(model, path, graph_inputs, alpha, excluded)
    _quantize_tables(model.graph)
    with _replacing(model, path) as (prepared, written):
        with _without_advice():
            quantize(
                str(prepared),
                str(written),
                _Reader(graph_inputs),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=excluded,
                reduce_range=overflow_safe,
                extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
                **_storage(prepared),
            )
        if not nearest:
            _round_to_outputs(model, written, graph_inputs, overflow_safe=overflow_safe)
    return kept


def quantize_dynamic(folder: Path, keep_float: Sequence[str], *, overflow_safe: bool = True) -> list[str]:
    """Quantize the graph of a folder in place, with ranges found as it runs; see `quantize_static`."""
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    path = folder / GRAPH
    model = onnx.load(str(path))
    _read_directly(model.graph)
    kept, excluded = _excluded(model.graph, keep_float)
    _quantize_tables(model.graph)
    with _replacing(model, path) as (prepared, written), _without_advice():
        quantize(
            str(prepared),
            str(written),
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
            reduce_range=overflow_safe,
            extra_options={"MatMulConstBOnly": True},
            **_storage(prepared),
        )
    return kept


class _Reader:
    """What ONNX Runtime's calibration reads from."""

    def __init__(self, inputs: Sample) -> None:
        self._rest = iter(inputs)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """Return the next input, None at the end."""
        return next(self._rest, None)


@contextmanager
def _replacing(model: Any, path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the path of the prepared graph and one to write to; what is written there takes the place of `path`."""
    import onnx

    prepared, written = path.with_name("prepared.onnx"), path.with_name("quantized.onnx")
    save_onnx(model, prepared)
    yield prepared, written
    quantized = onnx.load(str(written))
    for old in path.parent.iterdir():
        old.unlink()
    save_onnx(quantized, path)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Hide what the quantizer advises on the root logger: to run a preparation that fails on such graphs."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with quiet():
            yield
    finally:
        logging.disable(disabled)


def _storage(path: Path) -> dict[str, bool]:
    """Weights of a model that is too large for one file stay beside it while it is quantized."""
    return {"use_external_data_format": path.with_name(f"{path.name}_data").is_file()}


def _round_to_outputs(model: Any, written: Path, sample: Sample, *, overflow_safe: bool) -> None:
    """Round the int8 weights of a quantized graph anew, in its file (`students.export.rounding`).

    :param model: the float graph that was quantized
    """
    import onnx

    quantized = onnx.load(str(written))
    weights = {value.name: value for value in model.graph.initializer}
    originals = {node.name: weights[node.input[1]] for node in model.graph.node if _is_weighted_product(node, weights)}
    stored = {value.name: value for value in quantized.graph.initializer}
    unpacked = {node.output[0]: node.input for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    uses = Counter(unpacked[node.input[1]][0] for node in quantized.graph.node if _reads_packed(node, unpacked))
    places = dict[str, str]()
    layers = []
    for node in quantized.graph.node:
        if not _reads_packed(node, unpacked) or node.name not in originals:
            continue
        parts = unpacked[node.input[1]]
        original, codes, scale = (
            _values(value) for value in (originals[node.name], stored[parts[0]], stored[parts[1]])
        )
        if uses[parts[0]] == 1 and is_rounded(original, codes, scale):  # ALBERT's layers share theirs
            places[node.name] = parts[0]
            layers.append(RoundedLayer(node.name, node.input[0], original, scale))

    def run(names: Sequence[str]) -> Iterator[list[_Array]]:
        return _results(quantized, written.with_name("watched.onnx"), names, sample)

    def put(layer: RoundedLayer, codes: _Array) -> None:
        stored[places[layer.name]].CopyFrom(onnx.numpy_helper.from_array(codes, places[layer.name]))

    round_layers(layers, run, put, n_products=uses.total(), overflow_safe=overflow_safe)
    save_onnx(quantized, written)


def _reads_packed(node: Any, unpacked: Mapping[str, Any]) -> bool:
    """Tell whether a node multiplies what it unpacks from 8 bits on both sides."""
    return node.op_type == "MatMul" and all(name in unpacked for name in node.input)


# ---------------------------------------------------------------------------------------------------------------------
# Which products
# ---------------------------------------------------------------------------------------------------------------------


def _excluded(graph: Any, keep_float: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the matrix products that the caller keeps in float, and all nodes that are not to be quantized.

    Of the patterns of `FFN_DOWN`, those of other architectures may match nothing.
    """
    weights = {value.name for value in graph.initializer}
    products = {_dotted(node.name): node.name for node in graph.node if _is_weighted_product(node, weights)}
    kept = matched(keep_float, list(products), may_be_idle=keep_float is FFN_DOWN)
    others = {node.name for node in graph.node if node.op_type == "MatMul" and node.name not in products.values()}
    # Gemm is a product of two-dimensional things: Dense layers and score. The dynamic quantizer rewrites it, under this name
    others |= {f"{node.name}_MatMul" for node in graph.node if node.op_type == "Gemm"}
    return sorted(kept), sorted({products[name] for name in kept} | others)


def _read_directly(graph: Any) -> None:
    """Let products read a weight that they share itself: to all but the first, the exporter gives copies (Identity)."""
    weights = {value.name for value in graph.initializer}
    copies = [node for node in graph.node if node.op_type == "Identity" and node.input[0] in weights]
    copied = {node.output[0]: node.input[0] for node in copies}
    for node in graph.node:
        node.input[:] = [copied.get(name, name) for name in node.input]
    for node in copies:
        graph.node.remove(node)


def _dotted(name: str) -> str:
    """Write a node's name as OpenVINO does, with dots, so that one pattern serves both."""
    return name.strip("/").replace("/", ".")


def _is_weighted_product(node: Any, weights: Container[str]) -> bool:
    in_head = GraphModule.head in node.name
    return node.op_type == "MatMul" and node.input[1] in weights and not in_head


# ---------------------------------------------------------------------------------------------------------------------
# What is done to the float graph before
# ---------------------------------------------------------------------------------------------------------------------


def _smooth(model: Any, path: Path, sample: Sample, alpha: float, excluded: Sequence[str]) -> None:
    """Move outliers of activations into the weights, in place; the float graph computes the same."""
    graph = model.graph
    weights = {value.name: value for value in graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    norms = {node.output[0]: node for node in graph.node if node.op_type == "LayerNormalization"}
    groups = {
        name: [
            node
            for node in readers.get(name, [])
            if _is_weighted_product(node, weights)
            and node.name not in excluded
            and len(readers[node.input[1]]) == 1  # ALBERT's layers share theirs, and have ranges of their own
        ]
        for name in norms
    }
    groups = {name: group for name, group in groups.items() if group}
    outputs = {value.name for value in graph.output}
    for name, greatest in _greatest(model, path, list(groups), sample).items():
        group, norm = groups[name], norms[name]
        scale = smooth_scale(greatest, [_values(weights[node.input[1]]) for node in group], alpha)
        for node in group:
            node.input[1] = _added(graph, node.input[1], _values(weights[node.input[1]]) * scale[:, None])
        if len(group) == len(readers[name]) and name not in outputs:
            for place in range(1, len(norm.input)):  # its own scale and shift
                norm.input[place] = _added(graph, f"{name}_{place}", _values(weights[norm.input[place]]) / scale)
        else:
            _insert_division(graph, norm, group, scale)
    _drop_unread(graph)


def smooth_scale(greatest: _Array, weights: Sequence[_Array], alpha: float) -> _Array:
    """Return s for each channel, with a geometric mean of one.

    *Shape:* greatest: (n_in,); weights: (n_in, n_out) each; result: (n_in,)

    >>> smooth_scale(np.array([16.0, 1.0]), [np.array([[1.0], [1.0]])], 0.5).tolist()
    [2.0, 0.5]
    """
    weight_maxima = np.max([np.abs(values).max(axis=1) for values in weights], axis=0)
    scale = np.maximum(greatest, 1e-5) ** alpha / np.maximum(weight_maxima, 1e-5) ** (1 - alpha)
    normalised: _Array = scale / np.exp(np.log(scale).mean())
    return normalised


def _greatest(model: Any, path: Path, names: Sequence[str], sample: Sample) -> dict[str, _Array]:
    """Return the greatest absolute value of each channel over the calibration. *Shape:* (n_channels,) each."""
    greatest = dict.fromkeys(names, np.zeros(1, dtype=np.float32))
    for arrays in _results(model, path.with_name("watched.onnx"), names, sample):
        for name, values in zip(names, arrays, strict=True):
            greatest[name] = np.maximum(greatest[name], np.abs(values).reshape(-1, values.shape[-1]).max(axis=0))
    return greatest


def _results(model: Any, place: Path, names: Sequence[str], sample: Sample) -> Iterator[list[_Array]]:
    """Yield the named values inside a graph for each calibration input.

    :param place: where the graph with these outputs is written
    """
    import onnx

    if not names:  # everything is kept in float
        return
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    save_onnx(watched, place)
    session = open_session(place)
    for inputs in sample:
        yield session.run(list(names), dict(inputs))


def _insert_division(graph: Any, norm: Any, group: Sequence[Any], scale: _Array) -> None:
    """Let a group of products read a layer norm's output divided by `scale`, which others read as it is."""
    import onnx

    smoothed = f"{norm.output[0]}_smoothed"
    factor = _added(graph, smoothed, 1 / scale)
    division = onnx.helper.make_node("Mul", [norm.output[0], factor], [smoothed], name=f"{norm.name}_smooth")
    for node in group:
        node.input[0] = smoothed
    graph.node.insert(list(graph.node).index(norm) + 1, division)


def _quantize_tables(graph: Any) -> None:
    """Put the tables of lookups into int8, with a scale for each column, in place.

    Rows are looked up in int8, then turned into float and multiplied: each is as wide as one product of a vector.
    """
    import onnx

    weights = {value.name: value for value in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Gather" and node.input[0] in weights]:
        table = weights[node.input[0]]
        if len(table.dims) != 2 or table.data_type != onnx.TensorProto.FLOAT:
            continue
        values, result = _values(table), node.output[0]
        scale = np.maximum(np.abs(values).max(axis=0), 1e-12) / 127
        node.input[0] = _added(graph, f"{table.name}_int8", np.rint(values / scale).astype(np.int8))
        node.output[0] = f"{result}_int8"
        cast = onnx.helper.make_node(
            "Cast", [node.output[0]], [f"{result}_steps"], name=f"{node.name}_float", to=onnx.TensorProto.FLOAT
        )
        factor = _added(graph, f"{result}_scale", scale.astype(np.float32))
        product = onnx.helper.make_node("Mul", [cast.output[0], factor], [result], name=f"{node.name}_scaled")
        place = list(graph.node).index(node)
        graph.node.insert(place + 1, cast)
        graph.node.insert(place + 2, product)
    _drop_unread(graph)


def _values(weight: Any) -> _Array:
    import onnx

    values: _Array = onnx.numpy_helper.to_array(weight)
    return values


def _added(graph: Any, name: str, values: _Array) -> str:
    """Add a weight under a free name like `name` and return it."""
    import onnx

    names = {value.name for value in graph.initializer}
    new_name = next(f"{name}_{number}" for number in range(len(names) + 1) if f"{name}_{number}" not in names)
    kind = values.dtype if values.dtype == np.int8 else np.float32
    graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values, dtype=kind), new_name))
    return new_name


def _drop_unread(graph: Any) -> None:
    used_names = {name for node in graph.node for name in node.input}
    kept = [value for value in graph.initializer if value.name in used_names]
    del graph.initializer[:]
    graph.initializer.extend(kept)
