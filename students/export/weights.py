"""Weights alone in 8 or in 4 bits: OpenVINO stores them so and unpacks them as it computes.

int4 is for the matrix products of the transformer: 32 neighbours of a weight's row share a scale and a zero point, and the
rounding of each column makes up for that of those before it on what the layer really sees (GPTQ, Frantar et al. 2023). A
layer whose input width 32 does not divide stays in int8, as the word embeddings do, from which everything else comes, and,
by NNCF's rule, a bi-encoder's last product.

Where all of them in int4 are too much, those that it harms most go back to int8, a fifth of the weights at a time, until
the gate holds: `shrink`.

Mean and least cosine to fp32 of MiniLM-L6 on 3,000 sentences of STS-B, calibrated on 128 others; int8 has 0.9997, 0.998:

    asymmetric, groups of 128, 64, 32    0.961, 0.867   0.969, 0.867   0.977, 0.907
    symmetric, groups of 32              0.971, 0.904
    groups of 64, scales estimated       0.976, 0.903   AWQ finds no pattern of its own in an encoder and changes nothing
    groups of 32, GPTQ                   0.990, 0.959   27 s; symmetric 0.989, 0.959
    the same, a fifth in int8            0.995, 0.961   chosen by the inputs' variance instead of the weights: 0.992, 0.969
    the same, two fifths in int8         0.997, 0.982
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from distill.errors import BadInput
from distill.graphs.openvino import Traced
from students.export.calibration import Sample
from students.export.gate import ParityReport, Thresholds
from students.export.quantize_openvino import compress_weights

__all__ = [
    "INT4_SHARES",
    "MOST_INPUTS",
    "compress_to_int4",
    "compress_to_int8",
    "constant_of",
    "named_inputs",
    "range_of",
    "shrink",
]

log = logging.getLogger(__name__)
INT4_SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)  # with less in int4 the file is as large as with int8
_GROUP = 32  # weights that share a scale in int4, see the table above
MOST_INPUTS = 128  # GPTQ keeps what each layer is given of all of them in memory


def compress_to_int8(traced: Traced, ignored: Sequence[str]) -> None:
    """Store the weights in int8, in place.

    :param ignored: matrix products that stay in float
    """
    compress_weights(traced, (), ignored=ignored, bits=8)


def compress_to_int4(traced: Traced, ignored: Sequence[str], sample: Sample, share: float) -> dict[str, int]:
    """Store the weights in int4 and int8, in place; return how many matrix products are in each.

    :param ignored: matrix products that stay in float
    :param sample: what the graph will see, one text at a time and unpadded. *Shape:* each array (1, n_tokens)
    :param share: of the weights that may be in int4; the products that it harms most stay in int8
    :raises BadInput: where no product can be in int4
    """
    compress_weights(
        traced,
        named_inputs(traced.model, sample),
        ignored=ignored,
        bits=4,
        group_size=_GROUP,
        group_size_fallback="adjust",
        gptq=True,
        ratio=share,
        sensitivity_metric="weight_quantization_error",
    )
    found = _stored(traced.model)
    if not found["int4"]:
        raise BadInput(
            "int4_weights: 32 divides no layer's input width, so that nothing can be in int4; take int8_weights"
        )
    return found


def named_inputs(graph: Any, sample: Sample) -> list[dict[str, np.ndarray]]:
    """Return of each input what the graph takes."""
    names = [port.get_any_name() for port in graph.inputs]
    return [{name: inputs[name] for name in names if name in inputs} for inputs in sample]


def _stored(graph: Any) -> dict[str, int]:
    """Count the weights of matrix products by their type; embeddings, which are looked up, are not among them."""
    counts = Counter({"int4": 0, "int8": 0, "float": 0})
    for node in graph.get_ops():
        if node.get_type_name() == "MatMul" and (constant := constant_of(node.input_value(1).get_node())) is not None:
            name = constant.get_element_type().get_type_name()
            counts[{"u4": "int4", "i4": "int4", "u8": "int8", "i8": "int8"}.get(name, "float")] += 1
    return dict(counts)


def constant_of(node: Any) -> Any | None:
    """Follow what unpacks a weight (convert, subtract, multiply, reshape, transpose) to where it is stored; None where it is computed."""
    while node.get_type_name() in ("Convert", "Subtract", "Multiply", "Reshape", "Transpose"):
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


def range_of(product: Any) -> Any | None:
    """Return the FakeQuantize that rounds what a matrix product with int8 weights reads; None where it multiplies floats."""
    constant, read = constant_of(product.input_value(1).get_node()), product.input_value(0).get_node()
    while read.get_type_name() in ("Reshape", "Transpose"):  # between the rounding and the product
        read = read.input_value(0).get_node()
    is_int8 = constant is not None and constant.get_element_type().get_type_name() == "i8"
    return read if is_int8 and read.get_type_name() == "FakeQuantize" else None


class _Compared(Protocol):
    @property
    def report(self) -> ParityReport:
        """How close it came."""


A = TypeVar("A", bound=_Compared)


def shrink(attempt: Callable[[float], A], thresholds: Thresholds) -> list[A]:
    """Try the shares of `INT4_SHARES`, the greatest first, until the gate holds; return what was tried.

    :param attempt: makes an export with a share of its weights in int4, and compares it
    """
    trials: list[A] = []
    for share in INT4_SHARES:
        trials.append(attempt(share))
        failures = trials[-1].report.failures(thresholds)
        log.info("int4 for %.0f %% of the weights: %s", 100 * share, "; ".join(failures) or "the gate holds")
        if not failures:
            break
    return trials
