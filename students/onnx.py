"""int8 for ONNX graphs, by ONNX Runtime's own quantizer and settings that were measured.

Static (the default): quantize–dequantize pairs around the weights' matrix products, unsigned activations with ranges from
calibration, signed weights. What the defaults would add costs more than it gives: with products of two activations and
outputs quantized too, the same graph took 408 instead of 182 ms and fell to cosine 0.947; signed activations took 607 ms.

Dynamic: ranges from each batch as it comes. Faster to make and to run, and a text's result then depends on the texts
beside it, which ONNX Runtime's maintainers call expected (https://github.com/microsoft/onnxruntime/issues/10111).

Only lookups in weights are quantized, never those in activations: a head that reads the first position is one.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import BadInput
from distill.graph import GraphModule
from distill.modeling import quiet
from distill.onnx import GRAPH, save_onnx

__all__ = ["quantize_dynamic", "quantize_static"]

_OPERATIONS = ["MatMul", "Gather"]


def quantize_static(
    folder: Path, sample: Sequence[Mapping[str, np.ndarray]], keep_float: Sequence[str], *, may_be_idle: bool = False
) -> list[str]:
    """Quantize the graph of a folder in place; return the names of the matrix products that were kept in float.

    :param sample: calibration inputs, unpadded and one at a time. *Shape:* each array (1, n_tokens)
    :param keep_float: regular expressions, searched in names like "transformer.model.encoder.layer.0.output.dense.MatMul"
    :param may_be_idle: accept patterns that match nothing
    :raises BadInput: for a pattern that matches nothing
    """
    from onnxruntime.quantization import QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    path = folder / GRAPH
    names = _input_names(path)
    given = [{name: inputs[name] for name in names} for inputs in sample]
    kept, excluded = _excluded(path, keep_float, may_be_idle)
    with _replacing(path) as written:
        quantize(
            str(path), str(written), _Reader(given), quant_format=QuantFormat.QDQ, op_types_to_quantize=_OPERATIONS,
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=excluded,
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]}, **_storage(path),
        )  # fmt: skip
    return kept


def quantize_dynamic(folder: Path, keep_float: Sequence[str], *, may_be_idle: bool = False) -> list[str]:
    """Quantize the graph of a folder in place, with ranges found as it runs; see `quantize_static`."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    path = folder / GRAPH
    kept, excluded = _excluded(path, keep_float, may_be_idle)
    with _replacing(path) as written:
        quantize(
            str(path), str(written), op_types_to_quantize=_OPERATIONS, per_channel=True, weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded, extra_options={"MatMulConstBOnly": True}, **_storage(path),
        )  # fmt: skip
    return kept


class _Reader:
    """What ONNX Runtime's calibration reads from."""

    def __init__(self, inputs: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._rest = iter(inputs)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """Return the next input, None at the end."""
        return next(self._rest, None)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a path whose file takes the place of the graph, together with weights beside it."""
    written = path.with_name("quantized.onnx")
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises on the root logger to run a preparation that fails on such graphs
    try:
        with quiet():
            yield written
    finally:
        logging.disable(disabled)
    import onnx

    model = onnx.load(str(written))
    for old in path.parent.iterdir():
        old.unlink()
    save_onnx(model, path)


def _storage(path: Path) -> dict[str, bool]:
    """Weights of a model that is too large for one file stay beside it while it is quantized."""
    return {"use_external_data_format": path.with_name(f"{path.name}_data").is_file()}


def _input_names(path: Path) -> list[str]:
    import onnx

    return [value.name for value in onnx.load(str(path), load_external_data=False).graph.input]


def _excluded(path: Path, keep_float: Sequence[str], may_be_idle: bool) -> tuple[list[str], list[str]]:
    """Return the matrix products that the caller keeps in float, and all nodes that are not to be quantized."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {value.name for value in graph.initializer}
    products = {_dotted(node.name): node.name for node in graph.node if _is_weighted_product(node, weights)}
    kept: set[str] = set()
    for pattern in keep_float:
        found = {name for name in products if re.search(pattern, name)}
        if not found and not may_be_idle:
            raise BadInput(
                f"keep_float {pattern!r} matches no matrix product; there are {', '.join(sorted(products)[:3])} …"
            )
        kept |= found
    others = {node.name for node in graph.node if node.op_type in _OPERATIONS and not _is_quantizable(node, weights)}
    # Gemm is a product of two-dimensional things: Dense layers and score. The dynamic quantizer rewrites it, under this name
    others |= {f"{node.name}_MatMul" for node in graph.node if node.op_type == "Gemm"}
    return sorted(kept), sorted({products[name] for name in kept} | others)


def _dotted(name: str) -> str:
    """Write a node's name as OpenVINO does, with dots, so that one pattern serves both."""
    return name.strip("/").replace("/", ".")


def _is_weighted_product(node: Any, weights: set[str]) -> bool:
    return node.op_type == "MatMul" and any(name in weights for name in node.input)


def _is_quantizable(node: Any, weights: set[str]) -> bool:
    if GraphModule.head in node.name:
        return False
    return _is_weighted_product(node, weights) or (node.op_type == "Gather" and node.input[0] in weights)
