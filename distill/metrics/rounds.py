"""Rounds of measurements: intervals of medians over the rounds, and the decision when to stop.

    taken = Rounds(n_models, Until(interval=0.1, seconds=30))
    while taken.number < 5 or taken.go_on(): …   # one round of every model, stored with `keep`

A machine's speed drifts, so samples of one round are more alike than samples of different rounds. The interval
therefore comes from a two-stage bootstrap, which draws rounds and then samples within each drawn round (Davison &
Hinkley 1997, section 3.8). It covers the variation between rounds as well as within them. The same pairs are timed in
every round, so the interval describes the machine on these pairs and not the variation between texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

__all__ = ["Rounds", "Until", "interval_of_median"]

_KINDS = ("latency", "throughput")
_N_RESAMPLES = 400  # enough for the interval of a median, which is computed after every round
_MOST_ROUNDS = 1000
Ending = Literal["rounds", "interval", "seconds"]


@dataclass(frozen=True)
class Until:
    """When to stop after the requested rounds: at the interval or at the seconds, whichever is reached first."""

    interval: float | None = None
    """The maximum width of every 95 % interval, as a share of its median; None adds no round."""
    seconds: float = 0.0
    """Seconds of measuring latency and throughput, per model and kind."""


def interval_of_median(rounds: Sequence[Sequence[float]], *, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the median of all samples, over rounds and over samples within them.

    >>> interval_of_median([[2.0, 2.0], [2.0, 2.0, 2.0]])
    (2.0, 2.0)
    >>> low, high = interval_of_median([[1.0] * 9, [1.0] * 9, [3.0] * 9])  # one round of three ran on a busy machine
    >>> low, high
    (1.0, 3.0)
    """
    rng = np.random.default_rng(seed)
    samples, sizes = (
        np.concatenate([np.asarray(values, np.float64) for values in rounds]),
        np.array([*map(len, rounds)]),
    )
    # each drawn round gives as many samples as a round has on average
    starts, n_each = np.cumsum(sizes) - sizes, -(-len(samples) // len(sizes))
    drawn = rng.integers(len(sizes), size=(_N_RESAMPLES, len(sizes), 1))
    within = (rng.random((_N_RESAMPLES, len(sizes), n_each)) * sizes[drawn]).astype(np.int64)
    medians = np.median(samples[starts[drawn] + within].reshape(_N_RESAMPLES, -1), axis=1)
    # rounds of different sizes weigh alike here but not in the plain median, which must still be in the interval
    plain = float(np.median(samples))
    low, high = np.percentile(medians, (2.5, 97.5)).tolist()
    return min(low, plain), max(high, plain)


@dataclass
class Rounds:
    """The samples of each model and kind, round by round."""

    n_models: int
    until: Until
    number: int = 0
    """Number of rounds that every model has finished."""
    ended_by: Ending = "rounds"
    spent: float = 0.0
    """Seconds of measuring latency and throughput, all models together."""
    widest: tuple[float, int, str] | None = None
    """(relative width, index of the model, kind) of the widest interval after the last check."""
    samples: dict[str, list[list[list[float]]]] = field(init=False)

    def __post_init__(self) -> None:
        self.samples = {kind: [[] for _ in range(self.n_models)] for kind in _KINDS}

    @property
    def order(self) -> list[int]:
        """The indices of the models, rotated by one each round."""
        start = self.number % self.n_models
        return [*range(start, self.n_models), *range(start)]

    def keep(self, place: int, answer: Mapping[str, Any]) -> None:
        """Store one round of a model.

        :param place: index of the model
        :param answer: latency and throughput (lists of samples), and seconds
        """
        for kind in _KINDS:
            self.samples[kind][place].append(list(answer[kind]))
        self.spent += float(answer["seconds"])

    def go_on(self) -> bool:
        """Return whether another round is needed. If not, store the reason in `ended_by`."""
        if self.until.interval is None:
            return False
        self.widest = max((self._width(kind, place), place, kind) for kind in _KINDS for place in range(self.n_models))
        if self.widest[0] <= self.until.interval:
            self.ended_by = "interval"
            return False
        if self.spent >= self.until.seconds * self.n_models * len(_KINDS) or self.number >= _MOST_ROUNDS:
            self.ended_by = "seconds"
            return False
        return True

    def _width(self, kind: str, place: int) -> float:
        samples = self.samples[kind][place]
        low, high = interval_of_median(samples)
        return (high - low) / float(np.median(np.concatenate(samples)))

    def intervals(self, place: int) -> dict[str, dict[str, float]]:
        """Return the 95 % intervals of a model's p50 latency and of its throughput."""
        found = {kind: interval_of_median(self.samples[kind][place]) for kind in _KINDS}
        return {f"{kind}_interval": {"low": low, "high": high} for kind, (low, high) in found.items()}

    def sizes(self, place: int) -> dict[str, list[int]]:
        """Return the number of samples in each round of a model."""
        return {f"{kind}_per_round": [len(values) for values in self.samples[kind][place]] for kind in _KINDS}

    def described(self) -> dict[str, Any]:
        """Return how measuring ended: rounds, seconds (all models), ended_by (rounds, interval, seconds) and limits."""
        limits = (
            {} if self.until.interval is None else {"interval": self.until.interval, "max_seconds": self.until.seconds}
        )
        widest = {} if self.widest is None else {"widest": round(self.widest[0], 4), "widest_place": self.widest[1]}
        return {
            "rounds": self.number,
            "seconds": round(self.spent, 1),
            "ended_by": self.ended_by,
            **limits,
            **widest,
        }
