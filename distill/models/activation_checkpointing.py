"""Activation checkpointing by the names that transformers has had for it: gradient_checkpointing before 5.24."""

from typing import Any

__all__ = ["enable_checkpointing", "is_checkpointing"]


def is_checkpointing(transformer: Any) -> bool:
    """Tell whether a model of transformers computes its activations again in the backward pass."""
    newer = hasattr(type(transformer), "is_activation_checkpointing")
    return bool(transformer.is_activation_checkpointing if newer else transformer.is_gradient_checkpointing)


def enable_checkpointing(transformer: Any) -> None:
    """Let a model of transformers compute its activations again in the backward pass, without re-entrant autograd."""
    newer = hasattr(type(transformer), "activation_checkpointing_enable")
    enable = transformer.activation_checkpointing_enable if newer else transformer.gradient_checkpointing_enable
    enable({"use_reentrant": False})
