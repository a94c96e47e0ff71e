"""The graphs of an export: traced, quantized and written into a folder, in OpenVINO or ONNX."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.graphs.onnx import write_onnx
from distill.graphs.openvino import Traced, pin_precision, save_graph, trace
from distill.recipe.schema import ExportPrecision
from students.export.calibration import Sample
from students.export.float_layers import FFN_DOWN, behind_pooling, kept_nodes, of_two_activations
from students.export.quantize_onnx import quantize_dynamic, quantize_static
from students.export.quantize_openvino import quantize
from students.export.rounding import float_weights, round_graph
from students.export.weights import compress_to_int4, compress_to_int8, named_inputs

__all__ = ["Quantization", "write_onnx_graph", "write_openvino_graph"]


@dataclass(frozen=True)
class Quantization:
    """How the matrix products of a graph are stored and computed."""

    precision: ExportPrecision
    sample: Sample = ()
    """Inputs that set int8 ranges and fit int4 weights."""
    smooth_quant_alpha: float = 0.7
    """How much of the activations' outliers goes into the weights; -1 turns SmoothQuant off."""
    keep_float: Sequence[str] | str | None = None
    """Patterns of the matrix products that stay in float; "ffn_down" is the feed-forward down-projections."""
    int4_share: float = 1.0
    """Share of the weights in int4; the others are in int8."""
    overflow_safe: bool = True
    """int8 weights in 7 bits, see `students.export.arithmetic`."""
    nearest: bool = False
    """Round int8 weights to the nearest step instead of what changes a layer's outputs least (`students.export.rounding`)."""


def write_openvino_graph(source: Path, folder: Path, quantization: Quantization) -> tuple[list[str], dict[str, int]]:
    """Write the graph and its pinned precision; return the matrix products in float, and for int4 the counts."""
    precision, keep_float = quantization.precision, quantization.keep_float
    pin_precision(folder, precision)
    traced, kept, stored = trace(source), list[str](), dict[str, int]()
    if precision == "int8":
        kept = _quantize(traced, quantization)
    elif precision in ("int8_weights", "int4_weights"):
        # activations stay in float here, so the feed-forward down-projections need no exception
        kept = [] if keep_float == "ffn_down" else kept_nodes(traced.model, keep_float)
        ignored = sorted({*kept, *behind_pooling(traced.model)})
        if precision == "int8_weights":
            compress_to_int8(traced, ignored)
        else:
            stored = compress_to_int4(traced, ignored, quantization.sample, quantization.int4_share)
    _number_nodes(traced.model)
    save_graph(traced, folder, half=precision == "fp16")
    return kept, stored


def write_onnx_graph(source: Path, folder: Path, quantization: Quantization) -> list[str]:
    """Write the graph; return the names of the matrix products kept in float."""
    keep_float = quantization.keep_float
    pin_precision(folder, None)
    write_onnx(source, folder)
    patterns = FFN_DOWN if keep_float == "ffn_down" else tuple(keep_float or ())
    overflow_safe = quantization.overflow_safe
    if quantization.precision == "int8":
        alpha, nearest = quantization.smooth_quant_alpha, quantization.nearest
        return quantize_static(
            folder, quantization.sample, patterns, alpha=alpha, nearest=nearest, overflow_safe=overflow_safe
        )
    if quantization.precision == "int8_dynamic":
        return quantize_dynamic(folder, patterns, overflow_safe=overflow_safe)
    return []


def _quantize(traced: Traced, quantization: Quantization) -> list[str]:
    """Quantize in place; return the names of the matrix products kept in float."""
    kept = kept_nodes(traced.model, quantization.keep_float)
    ignored = sorted({*kept, *behind_pooling(traced.model), *of_two_activations(traced.model)})
    inputs = named_inputs(traced.model, quantization.sample)
    alpha, overflow_safe = quantization.smooth_quant_alpha, quantization.overflow_safe
    weights = {} if quantization.nearest else float_weights(traced.model)
    quantize(traced, inputs, ignored=ignored, alpha=alpha, overflow_safe=overflow_safe)
    if not quantization.nearest:
        round_graph(traced.model, weights, inputs, overflow_safe=overflow_safe)
    return kept


def _number_nodes(graph: Any) -> None:
    """Number unnamed nodes by position: OpenVINO counts them per process, so equal exports had different hashes."""
    graph.set_friendly_name("model")
    for place, node in enumerate(graph.get_ordered_ops()):
        if re.fullmatch(r"[A-Za-z]+_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{place}")
