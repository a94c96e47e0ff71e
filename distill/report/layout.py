"""Where things go in a picture, in pixels with y downwards: axes with round ticks, and labels kept apart.

The SVG pictures of the page and the PNG files are laid out by the same code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Axis", "Box", "along", "linear_axis", "log_axis", "place", "spread", "text_width", "toward"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[float]
    log: bool = False

    def at(self, value: float) -> float:
        """Give the pixel of a value."""
        low, high, own = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (own - low) / (high - low) * (self.end - self.start)


def log_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """Axis around the values with ticks at 1, 2, 5, 10 and so on: two at least, and no more than there is room for."""
    steps = [mantissa * 10.0**power for power in range(-15, 18) for mantissa in (1, 2, 5)]
    low, high = min(values) / 1.3, max(values) * 1.3
    if sum(low <= step <= high for step in steps) < 2:
        low, high = max(step for step in steps if step <= low), min(step for step in steps if step >= high)
    ticks = [step for step in steps if low <= step <= high]
    room = (end - start) / 48 if end > start else (start - end) / 28  # numbers are wider than high
    if len(ticks) > room:
        ticks = [tick for tick in ticks if f"{tick:e}".startswith("1")]
    return Axis(low, high, start, end, ticks, log=True)


def linear_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """Axis with four to eight round ticks around the values."""
    span = max(max(values) - min(values), 0.01)
    raw = span / 5
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(m * scale for m in (1, 2, 5, 10) if m * scale >= raw)
    low, high = math.floor(min(values) / step) * step, math.ceil(max(values) / step) * step
    high = high if high > low else low + step
    ticks = [low + i * step for i in range(round((high - low) / step) + 1)]
    return Axis(low, high, start, end, ticks)


class Box(NamedTuple):
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float


def text_width(text: str, size: float) -> float:
    """Width in pixels of a text, guessed with room to spare: Hangul, Kana and Han letters are square."""
    return sum(1.0 if ord(letter) >= 0x1100 else 0.57 for letter in text) * size


def place(
    anchors: Sequence[tuple[float, float]], texts: Sequence[str], size: float, taken: Sequence[Box], within: Box
) -> list[Box]:
    """Find a place for each label near its anchor, clear of other labels, marks and bars as far as there is room.

    Greedy: each label takes the place that costs least, in pixels covered and steps away. What comes first has the
    choice, so several orders are tried and the one that costs least in all is kept. Deterministic.
    """
    known = [*taken, *(Box(x - 7, y - 7, x + 7, y + 7) for x, y in anchors)]
    tries = [_around(x, y, text_width(text, size), size * 1.25) for (x, y), text in zip(anchors, texts, strict=True)]
    alone = [_alone(places, known, within) for places in tries]
    rng = np.random.default_rng(0)
    orders = [list(range(len(texts))), *(rng.permutation(len(texts)).tolist() for _ in range(31))]
    _, best = min(_placed(tries, alone, order) for order in orders)
    return [places[chosen] for places, chosen in zip(tries, best, strict=True)]


def _around(x: float, y: float, width: float, height: float) -> list[Box]:
    """Places beside, above and below a mark, then the same farther off."""
    places = []
    for gap in (10.0, 16.0, 24.0, 34.0, 46.0, 62.0):
        for down in (0.0, -1.0, 1.0):
            top = y - height / 2 + down * gap
            places += [(x + gap, top), (x - gap - width, top)]
        places += [(x - width / 2, y - gap - height), (x - width / 2, y + gap)]
    return [Box(left, top, left + width, top + height) for left, top in places]


def _alone(places: Sequence[Box], known: Sequence[Box], within: Box) -> FloatArray:
    """Cost of each place before other labels come in: what lies outside weighs most, then what is covered."""
    area = (places[0].right - places[0].left) * (places[0].bottom - places[0].top)
    outside = area - _overlaps(places, [within])[:, 0]
    cost: FloatArray = 10 * outside + _overlaps(places, known).sum(axis=1) + 1.5 * np.arange(len(places))
    return cost


def _placed(
    tries: Sequence[Sequence[Box]], alone: Sequence[FloatArray], order: Sequence[int]
) -> tuple[float, list[int]]:
    """Total cost of one greedy order, and the number of the place that each label takes."""
    total, chosen, placed = 0.0, [0] * len(order), list[Box]()
    for i in order:
        costs = alone[i] + (3 * _overlaps(tries[i], placed).sum(axis=1) if placed else 0)
        chosen[i] = int(np.argmin(costs))
        total += float(costs[chosen[i]])
        placed.append(tries[i][chosen[i]])
    return total, chosen


def _overlaps(some: Sequence[Box], others: Sequence[Box]) -> FloatArray:
    """Area that each two boxes share: (some, others)."""
    one, two = np.asarray(some, dtype=float)[:, None], np.asarray(others, dtype=float)
    sides = np.minimum(one[..., 2:], two[..., 2:]) - np.maximum(one[..., :2], two[..., :2])
    area: FloatArray = np.maximum(sides, 0).prod(axis=-1)
    return area


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move heights apart to at least `gap`, keeping their order, within bounds as far as there is room."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed: list[float] = []
    for i in order:
        placed.append(max(heights[i], placed[-1] + gap if placed else low))
    limit = high
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - gap
    return [placed[order.index(i)] for i in range(len(heights))]


def along(path: Sequence[tuple[float, float]]) -> list[Box]:
    """Small boxes along a line, so that a label keeps off it where it can."""
    spots = []
    for start, end in pairwise(path):
        length = math.dist(start, end)
        spots += [toward(start, end, pixels) for pixels in range(0, int(length), 8)]
    return [Box(x - 3, y - 3, x + 3, y + 3) for x, y in spots]


def toward(start: tuple[float, float], end: tuple[float, float], pixels: float) -> tuple[float, float]:
    """Go so many pixels from one point to another."""
    share = pixels / max(math.dist(start, end), 1e-9)
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share
