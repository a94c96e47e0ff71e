"""Measure a model under load: requests at random times, batches of every size, and memory over many shapes.

A model that is called back to back has no queue, but a service has one, because users call at any time. Here requests
arrive at random times (a Poisson process). This is an open loop: arrivals do not slow down if the model is slow.
Requests wait in a queue, and waiting requests are scored together. The latency is what the user sees, including the
wait (Schroeder et al. 2006, "Open Versus Closed").
"""

import random
import time
from collections.abc import Mapping, Sequence

import numpy as np

from distill.data.words import forget_words
from distill.machine.memory import resident_mb
from distill.scorers.scoring import PairScorer

__all__ = ["batch_grid", "memory_growth", "open_loop", "saturated_pairs_per_s"]

_MAX_BATCH = 16  # most requests scored together; in a larger batch the first request waits too long for the last
_MAX_SHAPE_BATCH = 16


def saturated_pairs_per_s(
    scorer: PairScorer, queries: Sequence[str], documents: Sequence[str], *, seconds: float
) -> float:
    """Return the pairs per second with a queue that is never empty. Arrival rates are shares of this capacity."""
    forget_words()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        rows = [(done + i) % len(queries) for i in range(_MAX_BATCH)]
        scorer.score([queries[i] for i in rows], [documents[i] for i in rows])
        done += len(rows)
    return done / (time.perf_counter() - start)


def open_loop(
    scorer: PairScorer, queries: Sequence[str], documents: Sequence[str], *, rate: float, seconds: float, seed: int
) -> dict[str, float]:
    """Serve requests that arrive at `rate` pairs per second for `seconds`; return latencies in ms from arrival.

    :returns: rate (pairs/s), n, p50, p95, p99, mean_batch; all requests that arrive are served and counted
    """
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / rate, size=max(1, round(rate * seconds)))
    arrivals = np.cumsum(gaps)  # seconds from the start
    rows = rng.integers(len(queries), size=len(arrivals))
    latencies, n_batches, served = np.zeros(len(arrivals)), 0, 0
    forget_words()
    start = time.perf_counter()
    while served < len(arrivals):
        now = time.perf_counter() - start
        if arrivals[served] > now:
            time.sleep(arrivals[served] - now)
            now = time.perf_counter() - start
        waiting = int(np.searchsorted(arrivals, now, side="right")) - served
        batch = rows[served : served + min(max(waiting, 1), _MAX_BATCH)]
        scorer.score([queries[int(i)] for i in batch], [documents[int(i)] for i in batch])
        done = time.perf_counter() - start
        latencies[served : served + len(batch)] = done - arrivals[served : served + len(batch)]
        served, n_batches = served + len(batch), n_batches + 1
    p50, p95, p99 = (1000 * np.percentile(latencies, (50, 95, 99))).tolist()
    return {"rate": rate, "n": served, "p50": p50, "p95": p95, "p99": p99, "mean_batch": served / n_batches}


def batch_grid(
    scorer: PairScorer,
    queries: Sequence[str],
    documents: Sequence[str],
    buckets: Mapping[int, Sequence[int]],
    *,
    batches: Sequence[int],
    seconds: float,
) -> list[dict[str, float]]:
    """Time each batch size on each length bucket, for an equal part of `seconds` and at least twice.

    :param buckets: rows of the pairs in each bucket, by its upper bound in tokens
    :returns: for each cell: tokens, batch, n, p50, p95 (ms per batch), pairs_per_s
    """
    part = seconds / (len(buckets) * len(batches))
    cells = []
    for bound, rows in buckets.items():
        for size in batches:
            chosen = [rows[i % len(rows)] for i in range(size)]
            batch = [queries[i] for i in chosen], [documents[i] for i in chosen]
            scorer.score(*batch)  # warm up: the first use of a shape is slower
            times: list[float] = []
            start = time.perf_counter()
            while len(times) < 2 or time.perf_counter() - start < part:
                forget_words()  # the texts repeat, and cached words would make them faster
                began = time.perf_counter()
                scorer.score(*batch)
                times.append(1000 * (time.perf_counter() - began))
            p50, p95 = np.percentile(times, (50, 95)).tolist()
            cells.append(
                {
                    "tokens": bound,
                    "batch": size,
                    "n": len(times),
                    "p50": p50,
                    "p95": p95,
                    "pairs_per_s": 1000 * size / p50,
                }
            )
    return cells


def memory_growth(
    scorer: PairScorer, queries: Sequence[str], documents: Sequence[str], *, n_shapes: int, seed: int
) -> dict[str, float]:
    """Score batches of random size and length; return the number of shapes, and memory growth and end in MB.

    Texts are cut at a random word, so that lengths vary up to those of the pairs. The first tenth of the batches warms
    up.
    """
    rng = random.Random(seed)
    warm, course = max(1, n_shapes // 10), []
    for number in range(n_shapes):
        share, size = rng.random(), rng.randint(1, _MAX_SHAPE_BATCH)
        rows = [rng.randrange(len(queries)) for _ in range(size)]
        scorer.score(*([_cut(texts[i], share) for i in rows] for texts in (queries, documents)))
        if number >= warm - 1:
            course.append(resident_mb())
    return {"n_shapes": n_shapes, "growth_mb": course[-1] - course[0], "end_mb": course[-1]}


def _cut(text: str, share: float) -> str:
    words = text.split()
    return " ".join(words[: max(1, round(share * len(words)))])
