"""The shapes that a graph sees: lengths in steps, rows in powers of two, batches by a budget of tokens.

OpenVINO keeps memory for every new shape (400 random ones of MiniLM int8: +2.1 GB), so lengths go up to the next of
about twenty steps and batches hold a power of two. Measured on 2 cores with mixed lengths (mean 57 tokens): steps of
8 to 32 tokens are 10 % faster than 32 throughout.
"""

from collections.abc import Iterator, Mapping

import numpy as np

__all__ = ["Batch", "Features", "padded_length", "plan_batches"]

Features = Mapping[str, np.ndarray]  # the inputs of a model by name, each (n_rows, n_padded), int64
Batch = tuple[np.ndarray, Features]  # which rows of the caller's these are, and their padded inputs


def padded_length(n_tokens: int) -> int:
    """Round a length up to a step of 8, 16 or 32 tokens: about twenty lengths to 512, and little padding.

    >>> [padded_length(n) for n in (1, 9, 33, 65, 500)]
    [8, 16, 48, 96, 512]
    """
    step = 8 if n_tokens <= 32 else 16 if n_tokens <= 64 else 32
    return -(-n_tokens // step) * step


def plan_batches(
    lengths: np.ndarray, *, batch_tokens: int, fixed_shapes: bool, at_most: int | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (rows, padded length), longest first: memory that suffices for the first batch suffices for all.

    A row is never padded to more than twice its own length, or 16 tokens. With `fixed_shapes` the number of rows is a
    power of two, so that a long list and a remainder share their shapes.

    :param at_most: the longest padded length: a model has no positions beyond its own limit.

    *Shape:* lengths: (n_texts,)

    >>> [(rows.tolist(), n) for rows, n in plan_batches(np.array([3, 60, 5, 64]), batch_tokens=128, fixed_shapes=True)]
    [([3, 1], 64), ([2, 0], 8)]
    """
    order = np.argsort(-lengths, kind="stable")
    ascending = -lengths[order]
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))  # a static model reads no tokens of an empty text
        width = padded_length(longest) if fixed_shapes else -(-longest // 8) * 8
        width = width if at_most is None else max(longest, min(width, at_most))
        shortest = width // 2 if width > 16 else 0
        alike = int(np.searchsorted(ascending, -shortest, side="right")) - start
        n_rows = max(1, min(batch_tokens // width, alike))
        if fixed_shapes:
            n_rows = 1 << (n_rows.bit_length() - 1)
        yield order[start : start + n_rows], width
        start += n_rows
