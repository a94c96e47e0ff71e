"""Search by measurement for the fastest way to run a graph on this machine.

    distill tune student-int8          # takes seconds; later loads of the folder on such a machine use the result

The best settings depend on the CPU, the number of threads, the graph and the library's version, and change the speed by
up to half. They do not depend on the weights or the words, so random token ids of mixed lengths are timed. Three
settings are searched one after the other, with the candidates of each interleaved: streams (in ONNX Runtime with and
without the LayerNorm fusion), tokens per batch, threads of a single call. The shortest time of each candidate counts,
because other load on the machine can only add time.

Precisions are also compared: the exports of one student, each with its own best settings, run in turns, and the median
of many rounds counts (`distill.runtime.fastest` uses the result). If the CPU multiplies bf16, a float graph of OpenVINO
is also run in the other of bf16 and fp32. That result is shown but never chosen, because it has passed no gate.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.tokens import TokenTable
from distill.errors import BadInput
from distill.machine.cpu import multiplies_bf16
from distill.models.files import ModelFiles, Precision, Runtime
from distill.runtime.buckets import PaddedBatch, plan_batches
from distill.runtime.engines import ANY_LENGTH, Engine, open_graph
from distill.runtime.fastest import ExportFolder, Found, speeds_key
from distill.runtime.settings import (
    Mode,
    RunSettings,
    Speed,
    read_settings,
    settings_key,
    settings_path,
    speeds_path,
    store_settings,
    store_speeds,
)

__all__ = ["Measured", "alone", "compare_precisions", "fastest_settings", "measure_precisions", "stored_files", "tune"]

Measured = list[dict[str, Any]]
_BATCH_TOKENS = (256, 512, 1024, 2048, 4096)
_LONGEST = 400  # tokens of the longest sample text; longer ones would use up the measuring time
_SINGLE_LENGTHS = (24, 64, 160)  # tokens of the texts that single calls are timed with: short, median, long
_ROUNDS = (2, 6)  # for settings: at least, at most
_TURNS = (5, 101)  # for precisions: at least, at most
_GAIN = 0.98  # a candidate replaces the default only if it takes less than this share of the default's time


def tune(
    files: ModelFiles, runtime: Runtime, precision: Precision | None, n_threads: int, *, seconds: float = 15.0
) -> tuple[RunSettings, Measured]:
    """Search for the fastest settings, store and return them with all measurements; see `fastest_settings`.

    :raises BadInput: if the runtime is torch
    """
    if runtime == "torch":
        raise BadInput(f"{files.folder} is a torch model: there is nothing to tune, export it first")
    settings, measured = fastest_settings(files, runtime, precision, n_threads, seconds=seconds)
    store_settings(files, settings_key(files, runtime, precision, n_threads), settings, measured)
    return settings, measured


def fastest_settings(
    files: ModelFiles, runtime: Runtime, precision: Precision | None, n_threads: int, *, seconds: float = 15.0
) -> tuple[RunSettings, Measured]:
    """Return the fastest settings found in about `seconds`, and every candidate with its tokens per second.

    Each candidate runs over the sample at least three times; a slow model therefore takes longer than `seconds`.
    """

    def opened(settings: RunSettings, mode: Mode) -> Engine:
        return open_graph(files, runtime, precision, n_threads, settings, mode)

    best, measured = RunSettings.default(files, runtime, n_threads), Measured()
    streams = list(_powers(n_threads))
    fusions = (True, False) if runtime == "onnx" else (best.skip_layer_norm_fusion,)
    candidates = [replace(best, n_streams=n, skip_layer_norm_fusion=fused) for n in streams for fused in fusions]
    engines = {candidate: opened(candidate, "throughput") for candidate in candidates}
    table = _sample(next(iter(engines.values())), files, seconds)
    runs = {candidate: _throughput(engine, table, candidate.batch_tokens) for candidate, engine in engines.items()}
    best = _fastest(runs, best, seconds * 0.4, "throughput", int(table.lengths.sum()), measured)
    engine = engines[best]
    del engines, runs  # each engine holds a copy of the weights
    sizes = [replace(best, batch_tokens=n) for n in _BATCH_TOKENS]
    runs = {candidate: _throughput(engine, table, candidate.batch_tokens) for candidate in sizes}
    best = _fastest(runs, best, seconds * 0.4, "throughput", int(table.lengths.sum()), measured)
    del engine, runs
    latency_candidates = [replace(best, n_latency_threads=n) for n in streams]
    runs = {candidate: _single_calls(opened(candidate, "latency"), table) for candidate in latency_candidates}
    best = _fastest(runs, best, seconds * 0.2, "latency", int(table.lengths[_single_rows(table)].sum()), measured)
    return best, measured


def compare_precisions(found: Found, n_threads: int, *, seconds: float = 15.0) -> list[Speed]:
    """Measure which of a student's exports is fastest on this machine; store and return their speeds, fastest first.

    Exports without stored settings are tuned first, for `seconds` each: comparing a tuned export with one on default
    settings would be unfair.

    :raises BadInput: if there are no graphs to compare
    """
    graphs = _graphs(found)
    if not graphs:
        raise BadInput(f"{found.folder} holds no graph; there is nothing to tune")
    for graph in graphs:
        if read_settings(graph.files, settings_key(graph.files, graph.runtime, None, n_threads)) is None:
            tune(graph.files, graph.runtime, None, n_threads, seconds=seconds)
    speeds = measure_precisions(graphs, n_threads, seconds=seconds)
    if len(graphs) > 1:
        store_speeds(found.folder, speeds_key(graphs, n_threads), speeds)
    return speeds


def stored_files(found: Found, n_threads: int) -> list[Path]:
    """Return the files that hold the settings of a student's exports, and their speeds beside each other."""
    graphs = _graphs(found)
    paths = [settings_path(graph.files, settings_key(graph.files, graph.runtime, None, n_threads)) for graph in graphs]
    paths.append(speeds_path(found.folder, speeds_key(graphs, n_threads)))
    return [path for path in paths if path is not None]


def _graphs(found: Found) -> list[ExportFolder]:
    return [export for export in found.exports if export.runtime != "numpy"]


def alone(files: ModelFiles, runtime: Runtime, n_threads: int) -> Found:
    """Return a graph that is not a student's export as if it were one, with the precision it runs in by default."""
    return Found(
        files.folder, [ExportFolder(files, runtime, open_graph(files, runtime, None, n_threads).precision)], []
    )


def measure_precisions(exports: Sequence[ExportFolder], n_threads: int, *, seconds: float = 15.0) -> list[Speed]:
    """Measure the exports in turns, in one process, for about `seconds`; return the most tokens per second first.

    All exports are in memory at the same time.
    """
    variants = [*((export, None) for export in exports), *_other_precisions(exports)]
    engines = [_as_tuned(export, hint, n_threads) for export, hint in variants]
    table = _sample(engines[0], exports[0].files, seconds)
    n_tokens = int(table.lengths.sum())
    throughput_runs = [_throughput(engine, table, engine.batch_tokens) for engine in engines]
    latency_runs = [_single_calls(engine, table) for engine in engines]
    for run in (*throughput_runs, *latency_runs):
        run()  # warm up: run each shape once
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in variants]
    order, end = list(range(len(variants))), time.perf_counter() + seconds
    for turn in range(_TURNS[1]):
        if turn >= _TURNS[0] and time.perf_counter() > end:
            break
        for place in order:
            times[place][0].append(_timed(throughput_runs[place]))
            times[place][1].append(_timed(latency_runs[place]))
        order.append(order.pop(0))  # rotate the order, so that no export is always first
    n_calls = len(_single_rows(table))
    speeds = [
        Speed(
            export.folder.name,
            export.runtime,
            export.precision if hint is None else f"{hint} asked",
            n_tokens / float(np.median(export_times[0])),
            1000 * float(np.median(export_times[1])) / n_calls,
            judged=hint is None,
        )
        for (export, hint), export_times in zip(variants, times, strict=True)
    ]
    return sorted(speeds, key=lambda speed: speed.tokens_per_s, reverse=True)


def _as_tuned(export: ExportFolder, hint: Precision | None, n_threads: int) -> Engine:
    """Open a graph with its stored settings and the given precision; None is the graph's own."""
    settings = read_settings(export.files, settings_key(export.files, export.runtime, None, n_threads))
    return open_graph(export.files, export.runtime, hint, n_threads, settings)


def _other_precisions(exports: Sequence[ExportFolder]) -> list[tuple[ExportFolder, Precision | None]]:
    """Return OpenVINO's float graphs, each with the other float precision to try, if no export has that precision."""
    precisions = {export.precision for export in exports if export.runtime == "openvino"}
    other_precision: dict[str, Precision] = {"fp32": "bf16", "bf16": "fp32"}
    return [
        (export, other_precision[export.precision])
        for export in exports
        if multiplies_bf16()
        and export.runtime == "openvino"
        and export.precision in other_precision
        and other_precision[export.precision] not in precisions
    ]


def _timed(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _powers(n_threads: int) -> Iterator[int]:
    """Yield the powers of two below a number, and the number itself.

    >>> list(_powers(6))
    [1, 2, 4, 6]
    """
    n = 1
    while n < n_threads:
        yield n
        n *= 2
    yield n_threads


def _fastest(
    runs: Mapping[RunSettings, Callable[[], None]],
    default: RunSettings,
    seconds: float,
    what: str,
    n_tokens: int,
    measured: Measured,
) -> RunSettings:
    """Time all candidates in turn until the time is up; return the default unless another is clearly faster."""
    times: dict[RunSettings, list[float]] = {settings: [] for settings in runs}
    for run in runs.values():
        run()  # warm up: run each shape once
    end = time.perf_counter() + seconds
    for round_number in range(_ROUNDS[1]):
        if round_number >= _ROUNDS[0] and time.perf_counter() > end:
            break
        for settings, run in runs.items():
            start = time.perf_counter()
            run()
            times[settings].append(time.perf_counter() - start)
    least = {settings: min(values) for settings, values in times.items()}
    measured += [
        {"what": what, **asdict(candidate), "tokens_per_s": n_tokens / duration}
        for candidate, duration in least.items()
    ]
    best = min(least, key=lambda settings: least[settings])
    return best if default not in least or least[best] < _GAIN * least[default] else default


def _throughput(engine: Engine, table: TokenTable, batch_tokens: int) -> Callable[[], None]:
    planned = plan_batches(
        table.lengths,
        batch_tokens=batch_tokens,
        fixed_shapes=engine.fixed_shapes,
        at_most=engine.length_limit(ANY_LENGTH),
    )
    batches: list[PaddedBatch] = [(rows, table.padded(rows, width)) for rows, width in planned]

    def run() -> None:
        for _ in engine.run(iter(batches)):
            pass

    return run


def _single_calls(engine: Engine, table: TokenTable) -> Callable[[], None]:
    rows = _single_rows(table)
    batches: Sequence[PaddedBatch] = [
        (np.array([row]), table.padded(np.array([row]), int(table.lengths[row]))) for row in rows
    ]

    def run() -> None:
        for batch in batches:
            for _ in engine.run([batch]):
                pass

    return run


def _single_rows(table: TokenTable) -> list[int]:
    longest = int(table.lengths.max())
    return [int(np.argmin(np.abs(table.lengths - length))) for length in _SINGLE_LENGTHS if length <= longest] or [0]


def _sample(engine: Engine, files: ModelFiles, seconds: float) -> TokenTable:
    """Draw random token ids of log-uniform lengths up to 400; fewer texts for a slower model or a shorter search."""
    longest, rng = min(engine.length_limit(None), _LONGEST), np.random.default_rng(0)
    vocabulary = int(files.config.get("vocab_size", 1000))

    def table(n_sequences: int) -> TokenTable:
        steps = np.linspace(np.log(min(8, longest)), np.log(longest), n_sequences)
        lengths = np.maximum(1, np.exp(steps).astype(np.int64))
        ids = rng.integers(0, vocabulary, int(lengths.sum()), dtype=np.int32)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return TokenTable(ids, offsets, np.zeros(len(ids), dtype=np.int8), 0)

    probe = table(8)
    run = _throughput(engine, probe, 512)
    run()
    start = time.perf_counter()
    run()
    tokens_per_s = probe.lengths.sum() / (time.perf_counter() - start)
    # one pass takes a sixtieth of the time; between 32 texts (a few batches) and 512 (still a short search)
    return table(int(np.clip(tokens_per_s * seconds / 60 / 100, 32, 512)))
