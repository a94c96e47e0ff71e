"""Which matrix products of an int8 export stay in float.

Always:

* products of two activations (attention): both sides have 8 bits there, and CPUs without VNNI overflow;
* the layers after pooling: they see one vector a text, so int8 would save nothing.

By `keep_float`: the feed-forward down-projections, whose inputs have outliers ("ffn_down"); what patterns name; or as few as
the gate needs ("search", see `students.export.search`).
"""

import re
from collections.abc import Sequence
from typing import Any, Literal

from distill.errors import BadInput
from students.export.weights import constant_of

__all__ = ["FFN_DOWN", "behind_pooling", "kept_nodes", "matched", "of_two_activations", "stays_float"]

FFN_DOWN = (
    r"layer[s.]*\.\d+\.output\.dense",  # BERT, RoBERTa, XLM-R, ELECTRA, DeBERTa, MPNet; not attention.output.dense
    r"layers?\.\d+\.ffn\.lin2",  # DistilBERT
    r"layers\.\d+\.mlp\.Wo",  # ModernBERT
    r"layers\.\d+\.mlp\.down_proj",  # decoders used as encoders
)
"""Patterns of the feed-forward down-projections, by architecture."""


def kept_nodes(graph: Any, keep_float: Sequence[str] | str | None) -> list[str]:
    """Return the names of the matrix products that match, sorted.

    :raises BadInput: for a caller's pattern that is wrong, see `matched`
    """
    names = sorted(node.get_friendly_name() for node in graph.get_ops() if node.get_type_name() == "MatMul")
    if keep_float == "ffn_down":
        return [name for name in names if any(re.search(pattern, name) for pattern in FFN_DOWN)]
    return sorted(matched(keep_float or (), names))


def matched(patterns: Sequence[str], names: Sequence[str], *, may_be_idle: bool = False) -> set[str]:
    """Return the names of matrix products that patterns match.

    :param may_be_idle: accept patterns that match nothing
    :raises BadInput: for a pattern that is no regular expression or, because a typo would silently cost quality, one
        that matches nothing
    """
    kept: set[str] = set()
    for pattern in patterns:
        try:
            found = {name for name in names if re.search(pattern, name)}
        except re.error as error:
            raise BadInput(
                f"keep_float {pattern!r} is no regular expression ({error}); escape its signs with \\"
            ) from None
        if not found and not may_be_idle:
            examples = ", ".join(sorted(names)[:3])
            raise BadInput(f"keep_float {pattern!r} matches no matrix product; there are {examples} …")
        kept |= found
    return kept


def behind_pooling(graph: Any) -> list[str]:
    """Return the matrix products after pooling (Dense layers and score): one vector per text, not per token."""
    return [
        node.get_friendly_name()
        for node in graph.get_ops()
        if node.get_type_name() == "MatMul" and node.get_output_partial_shape(0).rank.get_length() == 2
    ]


def of_two_activations(graph: Any) -> list[str]:
    """Return the matrix products without a weight: those of attention, unless it is one fused operation."""
    return [
        node.get_friendly_name()
        for node in graph.get_ops()
        if node.get_type_name() == "MatMul"
        and not any(constant_of(node.input_value(side).get_node()) for side in (0, 1))
    ]


def stays_float(name: str, keep_float: Sequence[str] | Literal["ffn_down", "search"] | None) -> bool:
    """Tell whether an export leaves a linear layer of the transformer out of int8.

    :param name: of the layer in the transformer; patterns are searched in what the nodes of either graph are called

    >>> stays_float("encoder.layer.0.output.dense", "ffn_down"), stays_float("encoder.layer.0.output.dense", "search")
    (True, False)
    """
    if keep_float is None or keep_float == "search":
        return False
    nodes = (f"__module.transformer.model.{name}/aten::linear/MatMul", f"transformer.{name}.MatMul")
    patterns = FFN_DOWN if keep_float == "ffn_down" else keep_float
    return any(re.search(pattern, node) for pattern in patterns for node in nodes)
