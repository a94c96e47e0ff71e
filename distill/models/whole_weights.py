"""Check that all loaded weights come from the checkpoint, with none randomly initialised and none NaN.

transformers initialises missing weights at random and only logs it. Causes are a missing layer, the `module.` prefix of
a wrapped model, or a config with more layers than the file. Labels from such a model would be noise. Every loader of
weights for training, labelling or export therefore uses `whole_weights`, and passes the loaded model to `check_finite`.
"""

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from distill.errors import BadInput, JobFailed
from distill.machine.shared_context import SharedContext

__all__ = ["check_finite", "check_loaded", "not_finite", "whole_weights"]

log = logging.getLogger(__name__)
_BUFFERS = ("position_ids", "token_type_ids", "inv_freq")  # the model computes these itself
_SHOWN = 4


_loading = threading.local()  # `name`: the model that this thread loads


@contextmanager
def whole_weights(name: str) -> Iterator[None]:
    """Make `from_pretrained` of transformers refuse a checkpoint with missing tensors, inside the block and its thread.

    :param name: the name of the model, for messages
    :raises BadInput: naming the tensors that are missing or have another shape
    """
    outer: str | None = getattr(_loading, "name", None)
    _loading.name = name
    try:
        with _refusing:
            yield
    finally:
        _loading.name = outer


@contextmanager
def _refusing_process() -> Iterator[None]:
    from transformers import PreTrainedModel

    original = PreTrainedModel.__dict__["from_pretrained"]

    def from_pretrained(cls: type, *args: Any, **options: Any) -> Any:
        name: str | None = getattr(_loading, "name", None)
        if name is None:  # another thread is inside the block
            return original.__func__(cls, *args, **options)
        wants_info = options.pop("output_loading_info", False)
        # `check_loaded` refuses differing shapes by name; the error of transformers refers to a report that is hidden
        options.setdefault("ignore_mismatched_sizes", True)
        model, info = original.__func__(cls, *args, output_loading_info=True, **options)
        check_loaded(name, model, info)
        return (model, info) if wants_info else model

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)
    try:
        yield
    finally:
        PreTrainedModel.from_pretrained = original


_refusing = SharedContext(_refusing_process)


def check_loaded(name: str, model: Any, info: Mapping[str, Any]) -> None:
    """Refuse a model with randomly initialised weights, and log the tensors of its file that it does not use.

    An unused pooler may be missing, and so may buffers that the model computes itself. transformers does not report
    tied weights as missing.

    :param info: the loading info from `from_pretrained(…, output_loading_info=True)`
    :raises BadInput: naming the tensors
    """
    missing = [key for key in sorted(info["missing_keys"]) if not _may_miss(key, model)]
    unexpected = sorted(info["unexpected_keys"])
    mismatched = sorted(str(entry[0]) for entry in info["mismatched_keys"])
    kind = type(model).__name__
    if missing:
        instead = f"; it has {_named(unexpected)} instead" if unexpected else ""
        raise BadInput(
            f"{name}: the weights lack {_named(missing)} of {kind}{instead}; transformers would draw them at random: copy the whole model, or correct config.json"
        )
    if mismatched:
        raise BadInput(f"{name}: {_named(mismatched)} of {kind} have another shape in the file than in config.json")
    unexpected = [key for key in unexpected if not key.endswith("position_ids")]  # a buffer that older releases stored
    if unexpected:
        log_line = log.warning if any(_is_of(key, model) for key in unexpected) else log.info
        log_line("%s: the file also holds %s, which %s has no place for; left out", name, _named(unexpected), kind)


def _may_miss(key: str, model: Any) -> bool:
    if key.rpartition(".")[2] in _BUFFERS:
        return True
    # a sequence classifier uses its pooler; a bare encoder is followed by a Pooling module
    is_classifier = type(model).__name__.endswith("ForSequenceClassification")
    return not is_classifier and "pooler" in key.split(".")


def _is_of(key: str, model: Any) -> bool:
    """Tell whether an unexpected tensor belongs to the encoder, such as a layer beyond the number in config.json."""
    parts = key.removeprefix(f"{model.base_model_prefix}.").split(".")
    return any(child == parts[0] for child, _ in model.base_model.named_children()) and "pooler" not in parts


def _named(keys: Iterable[str]) -> str:
    names = list(keys)
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def not_finite(tensors: Iterable[tuple[str, Any]]) -> str | None:
    """Return the name of the first tensor with NaN or infinity, and its first such row; None if all values are finite.

    >>> import torch
    >>> not_finite([("bias", torch.ones(2)), ("weight", torch.tensor([[0.0], [torch.nan]]))])
    'weight (row 1)'
    """
    import torch

    for name, tensor in tensors:
        # a finite sum means that all values are finite; this needs no mask of the tensor's size
        if not tensor.is_floating_point() or torch.isfinite(tensor.sum(dtype=torch.float64)):
            continue
        bad = ~torch.isfinite(tensor)
        if bad.any():
            return f"{name} (row {int(bad.nonzero()[0, 0])})" if tensor.ndim else name
    return None


def check_finite(name: str, model: Any, *, trained: bool = False) -> None:
    """Refuse a model whose weights contain NaN or infinity.

    :param trained: the model was trained in this run, so the error is JobFailed instead of BadInput
    :raises BadInput: naming the tensor
    :raises JobFailed: naming the tensor, if `trained`
    """
    found = not_finite(model.state_dict().items())
    if found is None:
        return
    if trained:
        raise JobFailed(
            f"{name}: training left NaN or infinity in {found}; lower training.learning_rate, or set training.precision=fp32"
        )
    raise BadInput(f"{name}: {found} holds NaN or infinity; copy the model again or train it again")
