"""The plan of units for each optimizer step, forward pass and process.

A step is a uniform random sample of `global_batch` units, so bucketing by length does not bias what is learned.
Inside a step the units are sorted by length and cut into forward passes with the least padding plus a fixed cost per
pass. The gradients of the passes add up to the mean over the step, so the curve is the same for any number of processes
and passes. Every process makes the same number of passes (FSDP waits for all of them). The plan depends only on
(seed, epoch), so a resumed run has the same plan.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

__all__ = ["Planner", "cut_by_length"]

# What a forward and backward pass costs before its first token, in tokens of a small encoder's work.
# A static model only adds vectors: padding costs nothing, so a step is cut only where its size requires it.
_PASS_PRICE_TOKENS = {"cpu": 96, "cuda": 4096, "static": 1 << 24}
_BLOCKS_SOLVED_EXACTLY = 512  # beyond it the quadratic plan is made per slice of the sorted step


def cut_by_length(lengths: np.ndarray, *, size: int, token_budget: int, pass_price: int) -> list[int]:
    """Return the ends of the cheapest cut of ascending lengths into forward passes.

    Cost of a pass over i..j: (j − i)·lengths[j − 1] + pass_price, at most `size` sequences and `token_budget` padded
    tokens (a single sequence may exceed it). Solved exactly by dynamic programming over the cut points.

    >>> cut_by_length(np.array([8, 8, 8, 100]), size=32, token_budget=4096, pass_price=50)
    [3, 4]
    >>> cut_by_length(np.array([8, 8, 8, 100]), size=32, token_budget=4096, pass_price=500)
    [4]
    """
    n = len(lengths)
    cost = np.full(n + 1, np.inf)
    cost[0], previous = 0.0, np.zeros(n + 1, dtype=np.int64)
    for end in range(1, n + 1):
        starts = np.arange(max(0, end - size), end)
        padded = (end - starts) * int(lengths[end - 1])
        total = cost[starts] + padded + pass_price
        total[(padded > token_budget) & (starts < end - 1)] = np.inf
        best = int(np.argmin(total))
        cost[end], previous[end] = total[best], starts[best]
    ends = [n]
    while previous[ends[-1]] > 0:
        ends.append(int(previous[ends[-1]]))
    return ends[::-1] if n else []


@lru_cache(maxsize=1)  # drawn once an epoch: for a million units it takes 30 ms, more than a step of a static student
def _shuffled(n_units: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n_units)


@dataclass(frozen=True)
class Planner:
    """Plans the passes of every step.

    :param lengths: the padded length that a unit asks for, in tokens. *Shape:* (n_units,)
    :param sequences: how many sequences of that length a unit brings. *Shape:* (n_units,)
    :param coupled: the loss compares the units of a step with each other. A step that fits into one pass then takes
        one, despite the padding, because several passes would each be run twice (`distill.training.coupling`).
    """

    lengths: np.ndarray
    sequences: np.ndarray
    global_batch: int
    micro_batch: int
    token_budget: int
    seed: int
    n_processes: int = 1
    coupled: bool = False
    device: str = "cpu"

    @property
    def steps_per_epoch(self) -> int:
        """The number of optimizer steps of an epoch; the last one may be smaller."""
        return -(-len(self.lengths) // self.global_batch)

    def step(self, number: int) -> list[list[np.ndarray]]:
        """Return the passes of a step counted from 0 over all epochs: passes[p][process] = unit numbers.

        A process whose share of the last pass is empty gets an empty array there.
        """
        epoch, position = divmod(number, self.steps_per_epoch)
        units = self._order(epoch)[position * self.global_batch : (position + 1) * self.global_batch]
        return list(self._passes(units))

    def evaluation(self) -> Iterator[list[np.ndarray]]:
        """Yield passes over all units once, longest last, without regard to steps."""
        order = np.argsort(self.lengths, kind="stable")
        for start in range(0, len(order), _BLOCKS_SOLVED_EXACTLY):
            yield from self._passes(order[start : start + _BLOCKS_SOLVED_EXACTLY])

    def _order(self, epoch: int) -> np.ndarray:
        return _shuffled(len(self.lengths), self.seed, epoch)

    def _passes(self, units: np.ndarray) -> Iterator[list[np.ndarray]]:
        n = self.n_processes
        if self.coupled and self._fits(units):
            yield [units]
            return
        units = units[np.argsort(self.lengths[units], kind="stable")]
        # a block of n neighbours has one unit for each process; its cost is that of its longest unit
        ends = np.minimum(np.arange(n, len(units) + n, n), len(units))
        block_lengths = self.lengths[units[ends - 1]]
        width = int(max(1, self.sequences[units].max(initial=1)))
        start = 0
        for end in self._cuts(block_lengths, width):
            chunk = units[start * n : end * n]
            yield [chunk[process::n] for process in range(n)]
            start = end

    def _fits(self, units: np.ndarray) -> bool:
        """Tell whether all units make one pass of one process."""
        padded = int(self.sequences[units].sum()) * int(self.lengths[units].max(initial=0))
        return self.n_processes == 1 and len(units) <= self.micro_batch and padded <= self.token_budget

    def _cuts(self, block_lengths: np.ndarray, width: int) -> list[int]:
        cuts: list[int] = []
        for start in range(0, len(block_lengths), _BLOCKS_SOLVED_EXACTLY):
            part = block_lengths[start : start + _BLOCKS_SOLVED_EXACTLY]
            price = max(1, _PASS_PRICE_TOKENS[self.device] // width)
            cut = cut_by_length(
                part, size=self.micro_batch, token_budget=max(1, self.token_budget // width), pass_price=price
            )
            cuts += [start + end for end in cut]
        return cuts
