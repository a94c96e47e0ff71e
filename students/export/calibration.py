"""Inputs that set int8 ranges: the user's own text, one text at a time and unpadded, and the inputs of its layers."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill._moved import moved_names
from distill.data.scripts import rows_by_script, stratified
from distill.files.artefact import ModelKind
from distill.models.prompts import NO_PROMPTS, folder_prompts

__all__ = ["Sample", "as_read", "calibration_inputs", "rows_over_lengths", "show_linear_inputs"]

__getattr__ = moved_names(__name__)

Sample = Sequence[Mapping[str, np.ndarray]]
"""Inputs by name. *Shape:* each array (1, n_tokens)."""


def calibration_inputs(
    kind: ModelKind,
    tokenizer: Any,
    max_length: int,
    pairs: Sequence[tuple[str, str]],
    n_inputs: int,
    seed: int,
) -> list[dict[str, np.ndarray]]:
    """Tokenise and draw single, unpadded inputs from all scripts, in each evenly over the lengths.

    A rare script gets at least half of an equal share (`distill.data.scripts.stratified`), because ranges of the
    frequent scripts would clip its values.

    *Shape:* each array (1, n_tokens)
    """
    from distill.data.tokens import tokenize

    drawn = random.Random(seed).sample(range(len(pairs)), min(len(pairs), 20 * n_inputs))
    lefts, rights = [pairs[i][0] for i in drawn], [pairs[i][1] for i in drawn]
    if kind == "bi_encoder":
        singles = list(dict.fromkeys([*lefts, *rights]))
        table, texts = tokenize(tokenizer, singles, max_length=max_length), singles
    else:
        table = tokenize(tokenizer, lefts, rights, max_length=max_length)
        texts = [f"{left} {right}" for left, right in zip(lefts, rights, strict=True)]
    rows: list[int] = []
    groups = {script: np.array(group) for script, group in rows_by_script(texts).items()}
    for script, n_rows in stratified({name: len(group) for name, group in groups.items()}, n_inputs).items():
        if n_rows:
            rows += groups[script][rows_over_lengths(table.lengths[groups[script]], n_rows, seed)].tolist()
    return [{name: tensor.numpy() for name, tensor in table.batch([row], multiple=1).items()} for row in rows]


def as_read(kind: ModelKind, folder: Path, pairs: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Return pairs as the model in a folder reads them: a bi-encoder's prompts stand before the texts of their side."""
    prompts = folder_prompts(folder) if kind == "bi_encoder" else NO_PROMPTS
    return [(prompts[0] + left, prompts[1] + right) for left, right in pairs] if any(prompts) else pairs


def rows_over_lengths(lengths: np.ndarray, n_rows: int, seed: int) -> list[int]:
    """Draw rows evenly over the lengths: one from each of `n_rows` equal slices of the rows sorted by length.

    >>> rows_over_lengths(np.array([9, 1, 5, 2]), 2, seed=0)
    [3, 0]
    """
    order = np.argsort(lengths, kind="stable")
    rng = random.Random(seed)
    return [int(rng.choice(part)) for part in np.array_split(order, min(n_rows, len(order)))]


def show_linear_inputs(transformer: Any, sample: Sample, note: Callable[[str, Any], None]) -> None:
    """Run a transformer over a sample and pass the input of each linear layer to `note`.

    A pooler is left out: it reads one vector per text, and is not in the graph.

    :param note: called with the name of a layer and its input. *Shape:* (n_tokens, n_in)
    """
    import torch
    from torch import nn

    def hook(name: str, layer_inputs: Any) -> None:
        if layer_inputs[0].dim() > 2:
            note(name, layer_inputs[0].flatten(0, -2))

    hooks = [
        module.register_forward_pre_hook(lambda _, layer_inputs, name=name: hook(name, layer_inputs))
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear)
    ]
    with torch.no_grad():
        try:
            for features in sample:
                transformer(**{name: torch.from_numpy(values) for name, values in features.items()})
        finally:
            for handle in hooks:
                handle.remove()
