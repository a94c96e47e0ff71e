"""The shapes of a graph's inputs: few lengths, few numbers of rows, chosen so that little padding is computed.

OpenVINO keeps memory for every new shape (400 random ones of MiniLM int8: +2.1 GB), so lengths are rounded up to one of
28 steps, and the rows of a batch to a power of two. The batches are then a shortest path: texts are sorted by length,
and each call and each padded token has a cost. For 250 texts of 8 to 400 tokens (mean 100) the plan computes 12 % more
than the real tokens, calls included, in 45 batches; with powers of four 14 %, in 61.
"""

from collections.abc import Iterator, Mapping

import numpy as np

__all__ = ["Features", "PaddedBatch", "padded_length", "plan_batches"]

Features = Mapping[str, np.ndarray]  # the inputs of a model by name, each (n_rows, n_padded), int64
PaddedBatch = tuple[np.ndarray, Features]  # which rows of the caller's these are, and their padded inputs

_ROWS = tuple(2**power for power in range(14))
_CALL_TOKENS = 26  # what starting a batch costs, in tokens of a six-layer student: about 1.7 ms of one core


def padded_length(n_tokens: int) -> int:
    """Round a length up to a step of 8, 16 or 32 tokens: 28 lengths to 512, and little padding.

    Never to 32: on CPUs with AMX, OpenVINO 2026.4 computes int8 attention with heads of 32 dimensions wrongly at
    exactly that length (MiniLM-L6: cosine 0.61 to 0.99 to torch, while lengths of 31 and 33 give 0.997).

    >>> [padded_length(n) for n in (1, 9, 31, 65, 257, 500)]
    [8, 16, 36, 80, 288, 512]
    """
    step = 8 if n_tokens <= 64 else 16 if n_tokens <= 256 else 32
    rounded = -(-n_tokens // step) * step
    return 36 if rounded == 32 else rounded


def plan_batches(
    lengths: np.ndarray, *, batch_tokens: int, fixed_shapes: bool, at_most: int | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (rows, padded length), longest first: if the memory suffices for the first batch, it suffices for all.

    :param batch_tokens: padded tokens of a batch; a longer text has a batch to itself.
    :param fixed_shapes: few shapes for a graph; else batches of any number of rows, cut as they come.
    :param at_most: the longest padded length: the positions that the model has.

    *Shape:* lengths: (n_texts,)

    >>> lengths = np.array([3, 60, 5, 64, 3, 2])
    >>> [(rows.tolist(), n) for rows, n in plan_batches(lengths, batch_tokens=128, fixed_shapes=True)]
    [([3, 1], 64), ([2, 0, 4, 5], 8)]
    """
    order = np.argsort(-lengths, kind="stable")
    descending = lengths[order]
    limit = at_most or int(lengths.max(initial=0)) + 32
    # an empty text of a static model has no tokens, and still a width
    widths = [max(n, min(padded_length(max(1, n)), limit)) for n in descending.tolist()]
    sizes = (
        _fewest_tokens(widths, batch_tokens)
        if fixed_shapes
        else _as_they_come(descending.tolist(), widths, batch_tokens)
    )
    start = 0
    for n_rows in sizes:
        yield order[start : start + n_rows], widths[start]
        start += n_rows


def _fewest_tokens(widths: list[int], batch_tokens: int) -> Iterator[int]:
    """Return how many of the rows each batch takes, so that padded tokens and calls cost the least together."""
    n = len(widths)
    cost, size = [0] * (n + 1), [1] * n
    for i in range(n - 1, -1, -1):
        width = widths[i]
        cost[i] = width + _CALL_TOKENS + cost[i + 1]
        for rows in _ROWS[1:]:
            if i + rows > n or rows * width > batch_tokens:
                break
            whole = rows * width + _CALL_TOKENS + cost[i + rows]
            if whole < cost[i]:
                cost[i], size[i] = whole, rows
    i = 0
    while i < n:
        yield size[i]
        i += size[i]


def _as_they_come(lengths: list[int], widths: list[int], batch_tokens: int) -> Iterator[int]:
    """Fill every batch, but pad no row beyond twice its own length, or 16 tokens."""
    start = 0
    while start < len(widths):
        width, end = widths[start], start + 1
        last = min(len(widths), start + batch_tokens // width)
        while end < last and (2 * lengths[end] >= width or width <= 16):
            end += 1
        yield end - start
        start = end
