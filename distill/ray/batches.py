"""The work of an actor on a batch of rows: compute keys, find unfinished rows, compute results, write a shard."""

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from distill.errors import BadInput
from distill.files.artefact import revision
from distill.ray.actors import EmbedActor, ScoreActor
from distill.ray.attempts import attempt
from distill.ray.reading import BATCH, PATH, PROBLEM, ROW, Source, from_value
from distill.ray.shards import KEY, ShardFolder, row_keys, shard_name
from distill.signals import KeySet
from distill.wording import counted

__all__ = ["Batched", "RayJob", "ShardActor", "state_of"]


@dataclass(frozen=True)
class RayJob:
    """A computation on the rows of a source.

    :param source: the rows
    :param models: the folders of the models; they have these paths on every machine
    :param work: creates the actor's model; it is called in each actor
    :param settings: everything that affects the results, besides models and columns
    :param shard_rows: rows of a batch and of its shard; a kill loses at most this many for each actor
    :param skip_bad_rows: leave out rows that are not text, and report their number and the first of them
    """

    source: Source
    models: tuple[Path, ...]
    work: Callable[[], EmbedActor | ScoreActor]
    settings: Mapping[str, Any]
    shard_rows: int = 8192
    skip_bad_rows: bool = False

    @property
    def skips(self) -> bool:
        """Whether rows that are not text are left out: with `skip_bad_rows`, and for the empty lines of a .txt."""
        return self.skip_bad_rows or self.source.form == "txt"


@dataclass(frozen=True)
class Batched:
    """The outcome of one batch.

    :param shard: the name of its file; "" if no row had to be computed
    :param actor: the process that had the batch
    :param rows: number of rows in the batch; computed, done_before, repeated and left_out are parts of them
    :param seconds: time from receiving the batch to having written its shard
    :param cpu_seconds: CPU time in these seconds, of all threads of the process
    :param tries: number of starts
    :param problem: why nothing was written; None without a problem
    :param is_bad_input: whether the user can fix the problem
    :param first_left_out: the first row that is not text, and the reason
    :param paths: the files from which the rows come
    """

    shard: str
    actor: str
    rows: int
    computed: int = 0
    done_before: int = 0
    repeated: int = 0
    left_out: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    tries: int = 1
    problem: str | None = None
    is_bad_input: bool = False
    first_left_out: str | None = None
    paths: str = ""


def state_of(job: RayJob) -> dict[str, Any]:
    """Return everything that affects the output, as found on this machine. The model is opened for this.

    :raises BadInput: if the model cannot be opened, or a kept column has the name of a result
    """
    work = job.work()
    for name in job.source.kept:
        if name in (*work.outputs, KEY):
            raise BadInput(f"--keep {name}: the output has a column {name} of its own; rename it in the input")
    columns = {"texts": list(job.source.texts), "kept": list(job.source.kept), "results": list(work.outputs)}
    return {"source": job.source.address, **columns, **_facts(job, work), **job.settings}


def _facts(job: RayJob, work: EmbedActor | ScoreActor) -> dict[str, Any]:
    """Return the facts about the models that must be the same on every machine."""
    scorer = work.scorer
    return {
        "models": [revision(folder) for folder in job.models],
        "kind": scorer.kind,
        "runtime": scorer.runtime,
        "precision": scorer.precision,
        "max_length": scorer.max_length,
    }


class ShardActor:
    """One process with a model. It takes batches of rows, writes a shard for each, and reports the outcome.

    :param state: the state that the driver found (`state_of`); a machine with another model or precision is refused
    :param done: keys of finished rows
    :param begun: returns, for a batch's place in the source, the argument `begin` of `attempt`
    :raises BadInput: if this machine has another model, or opens it with another runtime, precision or length
    """

    def __init__(
        self,
        job: RayJob,
        folder: ShardFolder,
        state: Mapping[str, Any],
        done: KeySet,
        begun: Callable[[str], Callable[[], int]],
    ) -> None:
        self.job, self.folder, self.done, self.begun = job, folder, done, begun
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.work = job.work()
        differing = [
            f"{name} {value}, where the job began {state[name]}"
            for name, value in _facts(job, self.work).items()
            if value != state[name]
        ]
        if differing:
            raise BadInput(
                f"{self.name} opens another model, or otherwise: {'; '.join(differing)}; state --precision fp32"
            )

    def __call__(self, table: pa.Table) -> dict[str, list[str]]:
        """Return a row with the outcome of each batch."""
        batches = table[BATCH].to_pylist() if len(table) else []  # a file without rows gives a block without columns
        return {"told": [json.dumps(asdict(self.handle(from_value(batch)))) for batch in batches]}

    def handle(self, table: pa.Table) -> Batched:
        """Compute the unfinished rows of a batch, write them, and return the outcome."""
        began, cpu_began, usable = time.monotonic(), time.process_time(), table[PROBLEM].is_null().to_numpy()
        outcome = Batched("", self.name, len(table), paths=_paths(table))
        if not usable.all():
            outcome = self._with_bad_rows(outcome, table, usable)
            if outcome.problem is not None:
                return outcome
        keys = self._keys(table)
        rows, counts = self._todo(keys, usable)
        outcome = replace(outcome, **counts)
        if not len(rows):
            return outcome
        outcome = replace(outcome, shard=shard_name(keys[rows]))
        # by its place, not its shard: batches of the same rows have one shard, and are no retries of each other
        begin = self.begun(f"{table[PATH][0]}, row {table[ROW][0]}")
        result = attempt(lambda: self._write(outcome.shard, table.take(rows), keys[rows]), begin)
        outcome = replace(outcome, tries=result.tries, problem=result.problem, is_bad_input=result.is_bad_input)
        if result.problem is not None:
            return outcome
        if not result.value and result.tries == 1:
            return replace(outcome, shard="", repeated=outcome.repeated + len(rows))
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
        return replace(outcome, computed=len(rows), seconds=seconds, cpu_seconds=cpu_seconds)

    def _with_bad_rows(self, outcome: Batched, table: pa.Table, usable: np.ndarray) -> Batched:
        place, n_bad = int(np.argmin(usable)), int((~usable).sum())
        first = f"{table[PATH][place].as_py()}: {table[PROBLEM][place].as_py()}"
        if self.job.skips:
            return replace(outcome, left_out=n_bad, first_left_out=first)
        return replace(outcome, problem=f"{counted(n_bad, 'row')} cannot be used ({first})", is_bad_input=True)

    def _keys(self, table: pa.Table) -> np.ndarray:
        names = (*self.job.source.texts, *self.job.source.kept)
        return row_keys(zip(*(table[name].to_pylist() for name in names), strict=True))

    def _todo(self, keys: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the rows to compute (usable, each once, in no earlier shard), and counts of others.

        *Shape:* rows: (n_todo,).
        """
        rows = np.flatnonzero(usable)
        _, first = np.unique(keys[rows], axis=0, return_index=True)
        unique = rows[np.sort(first)]
        todo = unique[self.done.find(keys[unique]) < 0]
        return todo, {"repeated": len(rows) - len(unique), "done_before": len(unique) - len(todo)}

    def _write(self, shard: str, table: pa.Table, keys: np.ndarray) -> bool:
        """Compute rows and write them; return False if the shard is there: of an earlier try, or of another batch."""
        if self.folder.has(shard):
            return False
        rows = table.select(list(self.job.source.kept))
        texts = (table[name].to_pylist() for name in self.job.source.texts)
        for column, values in self.work.results(*texts).items():
            if not np.isfinite(values).all():
                raise BadInput(
                    f"the model gives NaN or infinity as {column}; state --precision fp32, or take another one"
                )
            rows = rows.append_column(column, _arrow(values))
        self.folder.write(shard, rows, keys)
        return True


def _arrow(values: np.ndarray) -> Any:
    flat = pa.array(np.ascontiguousarray(values).ravel())
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _paths(table: pa.Table) -> str:
    paths = list(dict.fromkeys(table[PATH].to_pylist()))
    return " and ".join([*paths[:1], *([f"{len(paths) - 1} more"] if len(paths) > 1 else [])])
