"""Sum up the batches of a job: counts, the rate of each actor, failed batches and retried batches."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from distill.errors import BadInput, JobFailed
from distill.ray.batches import Batched
from distill.wording import counted

__all__ = ["Tally", "Worked"]

_SHOWN = 5


@dataclass(frozen=True)
class Worked:
    """The number of rows that an actor computed, and the time for them."""

    rows: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: "Worked") -> "Worked":
        return Worked(self.rows + other.rows, self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def __str__(self) -> str:
        rate, of_cpu = (self.rows / max(time, 1e-9) for time in (self.seconds, self.cpu_seconds))
        return f"{counted(self.rows, 'row')}, {rate:,.1f} a second, {of_cpu:,.1f} a CPU second"


class Tally:
    """The totals of all batches."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("rows", "computed", "done_before", "repeated", "left_out"), 0)
        self.failed: list[Batched] = []
        self.retried: list[Batched] = []
        self.first_left_out: str | None = None
        self.actors: dict[str, Worked] = defaultdict(Worked)

    def add(self, batch: Batched) -> None:
        """Add a batch to the totals."""
        for name in self.counts:
            self.counts[name] += getattr(batch, name)
        if batch.problem is not None:
            self.failed.append(batch)
        elif batch.tries > 1:
            self.retried.append(batch)
        self.first_left_out = self.first_left_out or batch.first_left_out
        if batch.computed:
            self.actors[batch.actor] += Worked(batch.computed, batch.seconds, batch.cpu_seconds)

    def lines(self) -> Iterator[str]:
        """Yield the lines for the log: rates, rows left out, and retried batches."""
        for name, worked in sorted(self.actors.items()):
            yield f"actor {name}: {worked}"
        if self.counts["left_out"]:
            yield f"{counted(self.counts['left_out'], 'row')} left out (one of them: {self.first_left_out})"
        for batch in self.retried:
            yield f"{batch.shard} ({batch.paths}) was begun {batch.tries} times, and is done"

    def check(self) -> None:
        """Raise an error that names the failed batches, if there are any.

        :raises BadInput: if the user can fix the problem of one of them
        :raises JobFailed: if not
        """
        if not self.failed:
            return
        problems = "; ".join(f"{batch.shard or batch.paths}: {batch.problem}" for batch in self.failed[:_SHOWN])
        more = f"; and {len(self.failed) - _SHOWN} more" if len(self.failed) > _SHOWN else ""
        kind = BadInput if any(batch.is_bad_input for batch in self.failed) else JobFailed
        n_rows = counted(sum(batch.rows for batch in self.failed), "row")
        what = "1 batch" if len(self.failed) == 1 else f"{len(self.failed):,} batches"
        raise kind(
            f"{what} of {n_rows} failed ({problems}{more}); the others are written, and the same command goes on with the rest"
        )
