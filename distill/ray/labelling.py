"""Compute a teacher's signals on a cluster: items are split into chunks, and each goes to the next free actor.

A chunk has the same items in the same order as a shard of a single-process run. Its signals are returned to the driver,
which writes them. The shards therefore have the same names as without a cluster, and the same bytes if the teacher
computes the same values on all machines.
"""

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from distill.errors import BadInput, JobFailed
from distill.files.artefact import revision
from distill.models.prompts import encode_by_role
from distill.progress import OnProgress
from distill.ray.actors import on_this_share
from distill.ray.attempts import Attempts, attempt, counter_of
from distill.ray.cluster import Actors, connected
from distill.ray.jobs import told_by_ray
from distill.recipe.objectives import SignalKind
from distill.runtime.opening import LoadArguments, load

__all__ = ["LabelActor", "TeacherFolder", "ask", "ask_on_ray"]

_NUMBER = "_number"


@dataclass(frozen=True)
class TeacherFolder:
    """A teacher's folder, which has the same path on every machine, and how to open it.

    :param revision: the model's revision, which is checked on every machine
    :param opening: arguments of `distill.runtime.load`
    """

    folder: Path
    revision: str
    opening: Mapping[str, Any]


def ask(
    scorer: Any, kind: SignalKind, columns: Mapping[str, Sequence[Any]], progress: bool | OnProgress = False
) -> np.ndarray:
    """Return a teacher's signals for some items.

    :param scorer: a model, or another object with the same methods
    :param columns: for scores, query and document of each pair; for embeddings, role and text

    *Shape:* (n_items,) scores or (n_items, width) embeddings, float32
    """
    if kind == "scores":
        scores: np.ndarray = scorer.score(columns["query"], columns["document"], progress=progress)
        return scores
    return encode_by_role(scorer, columns["text"], columns["role"], progress=progress)


class LabelActor:
    """One process with a teacher.

    :param begun: returns, for a chunk's number, the argument `begin` of `attempt`
    :raises BadInput: if this machine has another model in the folder
    """

    def __init__(self, teacher: TeacherFolder, kind: SignalKind, begun: Callable[[str], Callable[[], int]]) -> None:
        found = revision(teacher.folder)
        if found != teacher.revision:
            raise BadInput(
                f"{socket.gethostname()} has another model in {teacher.folder}; put all machines on one filesystem"
            )
        self.scorer = load(teacher.folder, **on_this_share(teacher.folder, cast(LoadArguments, teacher.opening)))
        self.kind, self.begun = kind, begun

    def __call__(self, table: pa.Table) -> dict[str, list[Any]]:
        """Return one row: the chunk's number, and its values or the problem."""
        columns = table.to_pydict()
        number = columns.pop(_NUMBER)[0]
        result = attempt(lambda: ask(self.scorer, self.kind, columns), self.begun(str(number)))
        values = np.zeros(0, dtype=np.float32) if result.value is None else np.asarray(result.value, dtype=np.float32)
        return {"number": [number], "values": [values.tobytes()], "problem": [result.problem or ""]}


class _RayLabelActor(LabelActor):
    """A `LabelActor` whose counter is a Ray actor."""

    def __init__(self, teacher: TeacherFolder, kind: SignalKind, attempts: Any) -> None:
        import ray

        super().__init__(teacher, kind, counter_of(attempts, ray))


def ask_on_ray(
    teacher: TeacherFolder, kind: SignalKind, chunks: Sequence[Mapping[str, Sequence[Any]]], actors: Actors
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each chunk and its signals, in the order in which they are finished.

    :param chunks: columns in the form that `ask` takes
    :raises JobFailed: if chunks failed, after all others were yielded
    """
    failed = []
    with connected(actors) as cluster, told_by_ray():
        ray = cluster.ray
        attempts = ray.remote(num_cpus=0)(Attempts).remote()
        signals = ray.data.from_arrow([_table(chunk, number) for number, chunk in enumerate(chunks)]).map_batches(
            _RayLabelActor,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_args=(teacher, kind, attempts),
            **cluster.options,
        )
        for row in signals.iter_rows():
            if row["problem"]:
                failed.append(f"chunk {row['number']} ({_first(chunks[row['number']])}): {row['problem']}")
                continue
            n_items = len(next(iter(chunks[row["number"]].values())))
            values = np.frombuffer(row["values"], dtype=np.float32)
            yield row["number"], values if kind == "scores" else values.reshape(n_items, -1)
    if failed:
        raise JobFailed(f"{len(failed)} of {len(chunks)} chunks failed: {'; '.join(failed[:3])}; the others are stored")


def _table(chunk: Mapping[str, Sequence[Any]], number: int) -> pa.Table:
    n_items = len(next(iter(chunk.values())))
    return pa.table({**{name: list(values) for name, values in chunk.items()}, _NUMBER: [number] * n_items})


def _first(chunk: Mapping[str, Sequence[Any]]) -> str:
    return f"from {str([values[0] for values in chunk.values()])[:80]} on"
