"""Embed or score all rows of a source on a cluster, and write a folder of shards.

A killed job continues where it stopped.

A source is read in parallel and split into batches of `shard_rows` rows. Each actor takes batches, computes the rows
that are in no shard yet, and writes a shard for each batch. The driver receives one line per batch, with counts, time
and failures.
"""

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from distill.errors import BadInput, JobFailed, MatchDistillError
from distill.progress import progress
from distill.ray.attempts import Attempts, counter_of
from distill.ray.batches import Batched, RayJob, ShardActor, state_of
from distill.ray.cluster import Actors, Cluster, connected
from distill.ray.reading import read_batches
from distill.ray.shards import ShardFolder
from distill.ray.tally import Tally
from distill.signals import KeySet

__all__ = ["run_job", "told_by_ray"]

log = logging.getLogger(__name__)
_LONGEST = 400
_OURS = re.compile(r"(BadInput|JobFailed): (.+)")


def run_job(job: RayJob, folder: ShardFolder, actors: Actors, *, overwrite: bool = False) -> Tally:
    """Compute the missing rows of a job and write them to its folder.

    :param overwrite: replace rows that were made with other settings
    :raises BadInput: if the folder holds other files or other settings, rows cannot be used, or the cluster lacks
        resources
    :raises JobFailed: if batches failed, after all others were written
    """
    state = state_of(job)
    folder.check(state, [job.source.address, *map(str, job.models)], overwrite=overwrite)
    began, tally = time.monotonic(), Tally()
    with connected(actors) as cluster, told_by_ray():
        folder.begin(state)
        rows, n_rows = read_batches(job.source, job.shard_rows, cluster.options["compute"].max_size)
        with progress(folder.place.name, n_rows) as report:
            for batch in _batches(rows, cluster, job, folder, state):
                tally.add(batch)
                report(batch.rows, _note(tally, began))
    tally.counts["repeated"] += folder.settle()
    folder.finish(state, {**tally.counts, "failed": len(tally.failed), "seconds": round(time.monotonic() - began, 1)})
    for line in tally.lines():
        log.info("%s", line)
    tally.check()
    return tally


def _batches(
    rows: Any, cluster: Cluster, job: RayJob, folder: ShardFolder, state: Mapping[str, Any]
) -> Iterator[Batched]:
    ray = cluster.ray
    attempts = ray.remote(num_cpus=0)(Attempts).remote()
    done = ray.put(KeySet(folder.keys()))  # kept in the driver, so that restarted actors can get it
    outcomes = rows.map_batches(
        _RayShardActor,
        batch_size=None,
        batch_format="pyarrow",
        fn_constructor_args=(job, folder, state, done, attempts),
        **cluster.options,
    )
    for row in outcomes.iter_rows():
        yield Batched(**json.loads(row["told"]))


class _RayShardActor(ShardActor):
    """A `ShardActor` whose keys are in Ray's object store, once per machine, and whose counter is a Ray actor."""

    def __init__(self, job: RayJob, folder: ShardFolder, state: Mapping[str, Any], done: Any, attempts: Any) -> None:
        import ray

        keys = ray.get(done) if isinstance(done, ray.ObjectRef) else done
        super().__init__(job, folder, state, keys, counter_of(attempts, ray))


def _note(tally: Tally, began: float) -> str:
    failed = f", {len(tally.failed)} failed" if tally.failed else ""
    return f"{tally.counts['computed'] / (time.monotonic() - began):,.0f} rows/s{failed}"


@contextmanager
def told_by_ray() -> Iterator[None]:
    """Turn Ray's own errors into errors of this toolkit with one line.

    :raises BadInput: if an actor raised it when it started
    :raises JobFailed: for any other error of Ray
    """
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)  # the error that a task raised
        ours = _OURS.search(str(error))
        if isinstance(cause, MatchDistillError):
            raise type(cause)(str(cause)) from None
        if ours is not None:  # Ray gives an error raised at the start of an actor only as text
            raise (BadInput if ours.group(1) == "BadInput" else JobFailed)(ours.group(2).strip()) from None
        message = " ".join(f"{type(cause or error).__name__}: {cause or error}".split())
        raise JobFailed(f"Ray gave up: {message[:_LONGEST]}; the same command goes on where it was") from None
