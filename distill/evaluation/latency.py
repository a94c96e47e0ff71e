"""Measure latency, throughput and memory of model folders, each in its own process.

    measure(Request(Path("student-int8")), resumes, job_descriptions)
    measure_all([Request(Path("teacher")), Request(Path("student-int8"))], queries, documents)

`measure_all` keeps one process per model alive and measures them in turns, round by round, one process at a time. Other
load on the machine then affects all models alike. Results contain the raw samples, the precision that was used and the
memory of the process. `environment` describes the machine.

The latency of a pair is the time of one call of `Scorer.score`, including tokenisation. OpenVINO takes about 2.8 times
as long on the first use of a shape, so pairs are scored once before they are timed. The time of the very first call is
kept as `cold_ms`. All models are timed on the same pairs in every round, and the runtime's cache of words is cleared
before each call. Medians have an interval over the rounds (`distill.metrics.rounds`), which includes drift. Rounds are
added until the interval is narrow.
"""

import gc
import json
import logging
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from distill._moved import moved_names
from distill.data.words import forget_words
from distill.errors import BadInput, JobFailed
from distill.evaluation.load import batch_grid, memory_growth, open_loop, saturated_pairs_per_s
from distill.files.artefact import versions
from distill.machine.cpu import cpu_model, usable_cpus
from distill.machine.memory import peak_mb, resident_mb
from distill.metrics.rounds import Rounds, Until
from distill.models.files import GRAPHS, Precision, Runtime, read_model_files
from distill.recipe.token_teachers import TOKEN_TEACHERS
from distill.runtime.scorer import Scorer
from distill.scorers.baselines import TfIdfScorer
from distill.scorers.opening import check_scorer_folder, model_folder, open_scorer
from distill.scorers.pairing import OneSide
from distill.scorers.scoring import SCORER_FILE, PairScorer
from distill.wording import counted

__all__ = ["LENGTHS", "LoadSettings", "Measuring", "Request", "environment", "measure", "measure_all", "size_mb"]

log = logging.getLogger(__name__)

__getattr__ = moved_names(__name__)

LENGTHS = (32, 64, 128, 256, 512)
MeasuringProgress = Callable[[int, int, str], None]
_N_TIMED_PAIRS = 200  # most pairs for latency; more would only add first uses of shapes
_LEAST_TIMED, _LEAST_THROUGHPUT = 24, 64  # fewest pairs, even if the slowest model is very slow
_N_BUCKET_PAIRS = 8
_CPU_FLAGS = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "i8mm",
)
_TORCH_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", "pytorch_model*")


@dataclass(frozen=True)
class LoadSettings:
    """Further measurements beyond latency and throughput; see `distill.evaluation.load`."""

    batches: tuple[int, ...] = ()
    """Batch sizes, each timed on each length bucket."""
    rates: tuple[float, ...] = ()
    """Arrival rates of the open loop, as shares of the capacity that is measured just before."""
    n_shapes: int = 0
    """Number of random shapes over which memory growth is measured; 0 does not measure it."""
    seconds: float = 10.0
    """Seconds for all batches together, for the capacity, and for each rate."""


@dataclass(frozen=True)
class Request:
    """One model to measure, and how to open it; see `distill.runtime.opening.load` for the meaning of None."""

    path: Path
    name: str = ""
    runtime: Runtime | None = None
    precision: Precision | None = None
    n_threads: int | None = None
    max_length: int | None = None
    count: bool = True
    """Whether to count the parameters. For a graph this needs torch, whose import takes seconds in each process."""


@dataclass(frozen=True)
class Measuring:
    """How models are measured. All models are measured alike."""

    seconds: float = 10.0
    """Seconds per model and kind of measurement (latency, latency by length, throughput). A model that cannot score the
    pairs once in this time takes longer."""
    rounds: int = 5
    """The number of rounds into which this time is divided."""
    lengths: Sequence[int] = LENGTHS
    """Upper bounds of the length buckets, in tokens that the model reads of a pair: of the joint sequence for a
    cross-encoder, the sum over both texts for a bi-encoder. Longer pairs get further buckets, each with twice the bound
    before it."""
    seed: int = 0
    """Seed for the pairs of each length and for the arrivals under load."""
    load: LoadSettings | None = None
    """Further measurements afterwards, model by model; None makes none."""
    until: Until | None = None
    """The wanted width of the intervals of latency and throughput, and the time limit. Rounds of all models are added
    until one of them is reached; None adds none."""

    def check(self) -> None:
        """Check seconds, rounds and lengths.

        :raises BadInput: if seconds are not positive, rounds are below 1, or lengths are empty, not positive or do not
            increase
        """
        if self.seconds <= 0 or self.rounds < 1:
            raise BadInput(
                f"seconds {self.seconds}, rounds {self.rounds}; a positive time and at least one round are needed"
            )
        lengths = list(self.lengths)
        if not lengths or lengths[0] < 1 or lengths != sorted(set(lengths)):
            raise BadInput(f"lengths {lengths}; rising upper bounds in tokens are expected, such as {list(LENGTHS)}")


def measure(
    request: Request,
    queries: Sequence[str],
    documents: Sequence[str],
    measuring: Measuring = Measuring(),
    *,
    on_progress: MeasuringProgress | None = None,
) -> dict[str, Any]:
    """Measure one model folder; see `measure_all`."""
    return measure_all([request], queries, documents, measuring, on_progress=on_progress)[0]


def measure_all(
    requests: Sequence[Request],
    queries: Sequence[str],
    documents: Sequence[str],
    measuring: Measuring = Measuring(),
    *,
    on_progress: MeasuringProgress | None = None,
) -> list[dict[str, Any]]:
    """Measure several model folders in turns. All of them are in memory at the same time.

    :param queries: the queries of the pairs to score; `documents` has their documents. Latency and throughput of all
        models are measured on the same pairs: as many as the slowest model has time for, at least 24 for latency and 64
        for throughput (`latency_pairs`, `throughput_pairs`).
    :param on_progress: called with (steps done, total steps, description of the current step).
    :returns: for each request, in order: name, path, kind, runtime, precision, n_threads, max_length, parameters (if
        the request counts them), size_mb, load_seconds, cold_ms, latency_ms {batch, n, mean, p50, p95, p99},
        latency_pairs, latency_by_length [{tokens, n, p50, p95}], throughput_pairs_per_s, throughput_pairs,
        peak_memory_mb, steady_memory_mb, latency_interval and throughput_interval {low, high} (95 %, of p50 and of the
        median), measuring (`Rounds.described`, the same for all), per_run (raw samples: latency_ms,
        latency_by_length_ms, throughput_pairs_per_s, and how many of the first and the last each round gave:
        latency_per_round, throughput_per_round); with `load` also under_load {batches, capacity_pairs_per_s, open_loop,
        memory}.
    :raises BadInput: if a folder is incomplete, or queries and documents are not of the same length, or empty.
    :raises JobFailed: if a measuring process dies, with its last line on stderr.
    """
    _check(requests, queries, documents)
    measuring.check()
    if not requests:
        return []
    rounds, load = measuring.rounds, measuring.load
    report = _Reporter(on_progress, total=len(requests) * (rounds + 1 + (load is not None)))
    with ExitStack() as stack:
        log.info("measuring: %s, each in a process of its own", counted(len(requests), "model"))
        workers = [stack.enter_context(_worker(request)) for request in requests]
        for worker in workers:  # all processes import in parallel; measuring starts after the last has finished
            worker.wait_until_ready()
        for worker in workers:
            report(f"loading {worker.name}")
            worker.setup(queries, documents, measuring.lengths, measuring.seconds / rounds, measuring.seed)
        fits = [worker.fits() for worker in workers]
        for worker in workers:
            worker.take(*_same_pairs(fits, len(queries), rounds), rounds)
        measured_rounds = Rounds(len(workers), Until() if measuring.until is None else measuring.until)
        while measured_rounds.number < rounds or measured_rounds.go_on():
            if measured_rounds.number >= rounds:
                report.add(len(workers))
            for place in measured_rounds.order:  # the first model changes from round to round
                report(f"round {measured_rounds.number + 1}, {workers[place].name}")
                measured_rounds.keep(place, workers[place].round(by_length=measured_rounds.number < rounds))
            measured_rounds.number += 1
        if load is not None:
            for worker in workers:
                report(f"under load, {worker.name}")
                worker.under_load(load, measuring.seed)
        report.finish()
        return [_whole(worker.finish(), measured_rounds, place) for place, worker in enumerate(workers)]


def _whole(measured: dict[str, Any], measured_rounds: Rounds, place: int) -> dict[str, Any]:
    """Add the intervals, and how the measuring ended, to a model's measurements."""
    return {
        **measured,
        **measured_rounds.intervals(place),
        "measuring": measured_rounds.described(),
        "per_run": {**measured["per_run"], **measured_rounds.sizes(place)},
    }


def _same_pairs(fits: Sequence[Mapping[str, int]], n_pairs: int, rounds: int) -> tuple[int, int]:
    """Return the numbers of pairs for latency and throughput: what the slowest model has time for, or the minimum.

    >>> _same_pairs([{"latency": 3, "throughput": 8}, {"latency": 900, "throughput": 700}], 800, 5)
    (24, 64)
    """
    latency = max(_LEAST_TIMED, rounds * min(fit["latency"] for fit in fits))
    throughput = max(_LEAST_THROUGHPUT, min(fit["throughput"] for fit in fits))
    return min(latency, _N_TIMED_PAIRS, n_pairs), min(throughput, n_pairs)


class _Reporter:
    def __init__(self, on_progress: MeasuringProgress | None, total: int) -> None:
        self.on_progress, self.total, self.done = on_progress, total, 0

    def __call__(self, what: str) -> None:
        if self.on_progress is not None:
            self.on_progress(self.done, self.total, what)
        self.done += 1

    def add(self, steps: int) -> None:
        self.total += steps

    def finish(self) -> None:
        if self.on_progress is not None:
            self.on_progress(self.total, self.total, "measured")


def _check(
    requests: Sequence[Request],
    queries: Sequence[str],
    documents: Sequence[str],
) -> None:
    if not queries or len(queries) != len(documents):
        raise BadInput(f"{len(queries)} queries and {len(documents)} documents; at least one pair is needed to measure")
    for request in requests:
        check_scorer_folder(request.path)


# ---------------------------------------------------------------------------------------------------------------------
# The parent's side: one line of JSON to the process, one line back
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def _worker(request: Request) -> Iterator["_Worker"]:
    with tempfile.TemporaryFile() as errors:
        n_threads = request.n_threads or usable_cpus()
        process = _start(_runtime_of(request), n_threads, errors)
        try:
            yield _Worker(request, n_threads, process, errors)
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                _close(stream)


def _start(runtime: str, n_threads: int, errors: IO[bytes]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "distill.evaluation.latency", runtime],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        encoding="utf-8",
        env=_worker_environment(n_threads),
    )


def _runtime_of(request: Request) -> str:
    """Return the runtime that a process imports before it is ready; "" for a baseline or a cascade."""
    if (request.path / SCORER_FILE).is_file():
        return "torch" if check_scorer_folder(request.path) in TOKEN_TEACHERS else ""
    return request.runtime or read_model_files(request.path).held_runtime


def _close(stream: IO[str] | None) -> None:
    try:
        if stream is not None:
            stream.close()
    except OSError:  # the process died with unread input in the pipe
        pass


def _worker_environment(n_threads: int) -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    threads = {name: str(n_threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, **threads, "PYTHONPATH": search, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


@dataclass
class _Worker:
    request: Request
    n_threads: int
    process: "subprocess.Popen[str]"
    errors: IO[bytes]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.request.name or self.request.path.name

    def setup(
        self, queries: Sequence[str], documents: Sequence[str], lengths: Sequence[int], slice_s: float, seed: int
    ) -> None:
        wanted = self.request
        self.facts = self._ask(
            {
                "path": str(wanted.path),
                "runtime": wanted.runtime,
                "precision": wanted.precision,
                "n_threads": self.n_threads,
                "max_length": wanted.max_length,
                "queries": list(queries),
                "documents": list(documents),
                "lengths": list(lengths),
                "slice_s": slice_s,
                "seed": seed,
            }
        )

    def fits(self) -> dict[str, Any]:
        return self._ask({"do": "fits"})

    def take(self, n_latency: int, n_throughput: int, rounds: int) -> None:
        self._ask({"do": "take", "latency": n_latency, "throughput": n_throughput, "rounds": rounds})

    def wait_until_ready(self) -> None:
        self._answer()

    def round(self, *, by_length: bool) -> dict[str, Any]:
        return self._ask({"do": "round", "by_length": by_length})

    def under_load(self, load: LoadSettings, seed: int) -> None:
        self._ask({"do": "load", "load": asdict(load), "seed": seed})

    def finish(self) -> dict[str, Any]:
        measured = self._ask({"do": "finish", "count": self.request.count})
        runtime = self.facts["runtime"]
        size = size_mb(model_folder(self.request.path), runtime)
        return {
            "name": self.name,
            "path": str(self.request.path),
            **self.facts,
            "n_threads": self.n_threads,
            "size_mb": size,
            **measured,
        }

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # the process has died; `_answer` reports it
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline()
        if not answer:
            raise JobFailed(f"measuring {self.name} failed: {self._last_words()}")
        values: dict[str, Any] = json.loads(answer)
        return values

    def _last_words(self) -> str:
        code = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        if code == -9:
            return f"its process was killed, most likely for want of memory ({lines[-1] if lines else 'no message'})"
        return lines[-1] if lines else f"its process ended with code {code} and no message"


# ---------------------------------------------------------------------------------------------------------------------
# The child's side
# ---------------------------------------------------------------------------------------------------------------------


class _Meter:
    """Measures one loaded model, slice by slice."""

    def __init__(self, scorer: PairScorer, request: Mapping[str, Any]) -> None:
        self.scorer, self.slice_s = scorer, float(request["slice_s"])
        self.queries, self.documents = request["queries"], request["documents"]
        rng = random.Random(request["seed"])
        timed = list(range(len(self.queries)))
        rng.shuffle(timed)
        self.buckets = _buckets(scorer.token_counts(self.queries, self.documents), request["lengths"])
        self.timed = timed[:_N_TIMED_PAIRS]
        self.bucketed = {
            bound: rng.sample(rows, min(len(rows), _N_BUCKET_PAIRS)) for bound, rows in self.buckets.items()
        }
        self.latency: list[float] = []
        self.by_length: dict[int, list[float]] = {bound: [] for bound in self.buckets}
        self.throughput: list[float] = []
        self.loaded: dict[str, Any] = {}
        self.position = 0
        self.cold_ms = self.time_one(self.timed[0])
        self._warm_up()
        self.n_throughput = self._fitting_pairs()
        self.least_per_round = 1

    def fits(self) -> dict[str, int]:
        """Return how many pairs this model can score in a round, by kind of measurement."""
        one_ms = float(np.median([self.time_one(row) for row in self.timed[:3]]))
        return {"latency": max(1, int(1000 * self.slice_s / one_ms)), "throughput": self.n_throughput}

    def take(self, n_latency: int, n_throughput: int, rounds: int) -> dict[str, Any]:
        """Measure only the first pairs, which are the same for all models, and each at least once over the rounds.

        :param n_latency: number of pairs for latency; `n_throughput` is that for throughput
        """
        self.timed, self.n_throughput = self.timed[:n_latency], n_throughput
        self.least_per_round = -(-n_latency // rounds)
        return {}

    def time_one(self, row: int) -> float:
        """Return the milliseconds for scoring one pair, with an empty cache of words."""
        query, document = [self.queries[row]], [self.documents[row]]
        forget_words()
        start = time.perf_counter_ns()
        self.scorer.score(query, document)
        return (time.perf_counter_ns() - start) / 1e6

    def _warm_up(self) -> None:
        """Score pairs once, so that their shapes are known, for at most the time of two slices."""
        rows = [*self.timed[:3], *(row for rows in self.bucketed.values() for row in rows), *self.timed[3:]]
        end = time.perf_counter() + 2 * self.slice_s
        for number, row in enumerate(rows):
            if number >= 3 and time.perf_counter() > end:
                break
            self.time_one(row)

    def _fitting_pairs(self) -> int:
        """Return the number of pairs for a throughput run that fits into a slice; at least eight if there are eight."""
        n_pairs = 8
        for at_most in (64, 512, len(self.queries)):  # small runs underrate a fast model; each warms up shapes
            n_pairs = min(n_pairs, len(self.queries))
            n_pairs = min(at_most, max(8, int(self._run_throughput(n_pairs) * self.slice_s)))
        return min(n_pairs, len(self.queries))

    def _run_throughput(self, n_pairs: int) -> float:
        forget_words()
        start = time.perf_counter()
        self.scorer.score(self.queries[:n_pairs], self.documents[:n_pairs])
        return n_pairs / (time.perf_counter() - start)

    def round(self, *, by_length: bool) -> dict[str, Any]:
        """Run one slice of each kind; return the samples, and the seconds that latency and throughput took."""
        start, before = time.perf_counter(), (len(self.latency), len(self.throughput))
        self._latency_slice()
        self._throughput_slice()
        seconds = time.perf_counter() - start
        if by_length:
            self._length_slice()
        return {"latency": self.latency[before[0] :], "throughput": self.throughput[before[1] :], "seconds": seconds}

    def _latency_slice(self) -> None:
        end, least = time.perf_counter() + self.slice_s, len(self.latency) + self.least_per_round
        while len(self.latency) < least or time.perf_counter() < end:
            self.latency.append(self.time_one(self.timed[self.position % len(self.timed)]))
            self.position += 1

    def _length_slice(self) -> None:
        end, turn = time.perf_counter() + self.slice_s, 0
        while turn == 0 or time.perf_counter() < end:
            for bound, rows in self.bucketed.items():
                self.by_length[bound].append(self.time_one(rows[len(self.by_length[bound]) % len(rows)]))
            turn += 1

    def _throughput_slice(self) -> None:
        end = time.perf_counter() + self.slice_s
        self.throughput.append(self._run_throughput(self.n_throughput))
        while time.perf_counter() < end:
            self.throughput.append(self._run_throughput(self.n_throughput))

    def under_load(self, load: LoadSettings, seed: int) -> dict[str, Any]:
        """Make the further measurements that `load` requests."""
        if load.batches:
            self.loaded["batches"] = batch_grid(
                self.scorer, self.queries, self.documents, self.buckets, batches=load.batches, seconds=load.seconds
            )
        if load.rates:
            sides = self.queries, self.documents
            saturated_pairs_per_s(self.scorer, *sides, seconds=load.seconds / 4)  # warms up the shapes
            capacity = saturated_pairs_per_s(self.scorer, *sides, seconds=load.seconds)
            self.loaded["capacity_pairs_per_s"] = capacity
            self.loaded["open_loop"] = [
                {
                    "load": share,
                    **open_loop(self.scorer, *sides, rate=share * capacity, seconds=load.seconds, seed=seed),
                }
                for share in load.rates
            ]
        if load.n_shapes:
            self.loaded["memory"] = memory_growth(
                self.scorer, self.queries, self.documents, n_shapes=load.n_shapes, seed=seed
            )
        return {}

    def finish(self) -> dict[str, Any]:
        """Return all measurements."""
        by_length = [{"tokens": bound, **_statistics(values, (50, 95))} for bound, values in self.by_length.items()]
        return {
            "cold_ms": self.cold_ms,
            "latency_ms": {"batch": 1, **_statistics(self.latency, (50, 95, 99)), "mean": float(np.mean(self.latency))},
            "latency_by_length": by_length,
            "throughput_pairs_per_s": float(np.median(self.throughput)),
            "throughput_pairs": self.n_throughput,
            "latency_pairs": len(self.timed),
            "steady_memory_mb": resident_mb(),
            "peak_memory_mb": peak_mb(),
            **({"under_load": self.loaded} if self.loaded else {}),
            "per_run": {
                "latency_ms": _rounded(self.latency),
                "latency_by_length_ms": {str(bound): _rounded(values) for bound, values in self.by_length.items()},
                "throughput_pairs_per_s": _rounded(self.throughput),
            },
        }


def _buckets(tokens: np.ndarray, bounds: Sequence[int]) -> dict[int, list[int]]:
    """Return the rows of each bucket that is not empty, by its upper bound in tokens.

    >>> _buckets(np.array([30, 33, 200]), [32, 64])
    {32: [0], 64: [1], 256: [2]}
    """
    edges = list(bounds)
    while edges[-1] < int(tokens.max()):
        edges.append(2 * edges[-1])
    places = np.searchsorted(edges, tokens, side="left")
    return {edges[place]: np.flatnonzero(places == place).tolist() for place in np.unique(places)}


def _statistics(samples: Sequence[float], percentiles: Sequence[int]) -> dict[str, float]:
    values = {f"p{point}": float(np.percentile(samples, point)) for point in percentiles}
    return {"n": len(samples), **values}


def _rounded(samples: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in samples]


def _load(request: Mapping[str, Any]) -> tuple[PairScorer, dict[str, Any]]:
    start = time.perf_counter()
    scorer = open_scorer(
        request["path"],
        runtime=request["runtime"],
        precision=request["precision"],
        n_threads=request["n_threads"],
        max_length=request["max_length"],
        device="cpu",
    )
    seconds = time.perf_counter() - start
    if isinstance(scorer, Scorer) and scorer.side is not None:  # the teacher embeds the other side in any case
        scorer = OneSide(scorer)
    facts = {
        "kind": scorer.kind,
        "runtime": scorer.runtime,
        "precision": scorer.precision,
        "max_length": scorer.max_length,
        "load_seconds": round(seconds, 3),
        "loaded_memory_mb": resident_mb(),
        **({"variant": scorer.variant} if isinstance(scorer, TfIdfScorer) else {}),
    }
    return scorer, facts


def _import_heavy(runtime: str) -> None:
    """Import packages before loading, so that processes import in parallel and `load_seconds` excludes imports."""
    if runtime == "torch":
        import sentence_transformers.base.modules  # noqa: F401  # 6 of the 8 seconds; imports torch and transformers
    elif runtime == "openvino":
        import openvino  # noqa: F401
    elif runtime == "onnx":
        import onnxruntime  # noqa: F401


def _serve(requests: IO[str], answers: IO[str], runtime: str) -> None:
    """Answer requests, one line of JSON each, until the input ends."""

    def answer(values: Mapping[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    gc.disable()  # garbage collection takes a fifth of the time of imports, and there is almost no garbage
    _import_heavy(runtime)
    gc.freeze()
    gc.enable()
    answer({"ready": True})
    first = json.loads(requests.readline())
    scorer, facts = _load(first)
    meter = _Meter(scorer, first)
    answer(facts)
    for line in requests:
        message = json.loads(line)
        if message["do"] == "round":
            answer(meter.round(by_length=message["by_length"]))
        elif message["do"] == "fits":
            answer(meter.fits())
        elif message["do"] == "take":
            answer(meter.take(message["latency"], message["throughput"], message["rounds"]))
        elif message["do"] == "load":
            answer(meter.under_load(LoadSettings(**message["load"]), message["seed"]))
        else:
            # parameters are counted last: counting may build the architecture, which serving does not need
            answer({**meter.finish(), **({"parameters": scorer.n_parameters} if message["count"] else {})})


# ---------------------------------------------------------------------------------------------------------------------
# Size of a model, and description of the machine
# ---------------------------------------------------------------------------------------------------------------------


def size_mb(folder: Path, runtime: Runtime) -> float:
    """Return the size, in 10⁶ bytes, of a folder's files without the weights of other runtimes."""
    others = [name for other_runtime, names in GRAPHS.items() if other_runtime != runtime for name in names]
    skipped = {(folder / name).with_suffix(suffix) for name in others for suffix in (".xml", ".bin", ".onnx")}
    if runtime not in ("torch", "numpy"):
        skipped |= {path for pattern in _TORCH_WEIGHTS for path in folder.glob(pattern)}
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return sum(path.stat().st_size for path in files if path not in skipped) / 1e6


def environment() -> dict[str, Any]:
    """Return a description of the machine and the software of the measurements."""
    cpu, flags = cpu_model()
    return {
        "cpu": cpu,
        "cpu_flags": [flag for flag in _CPU_FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "threads": usable_cpus(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _main() -> None:
    # libraries print to stdout: send that to stderr, so that only answers go into the pipe
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _serve(sys.stdin, answers, sys.argv[1] if len(sys.argv) > 1 else "")


if __name__ == "__main__":
    _main()
