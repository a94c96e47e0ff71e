"""Measurements of candidate shapes: taken with the toolkit's one meter, kept on disk, never taken twice.

They are kept by what decides them: CPU, versions, threads, and all of the candidate besides its shape. A plan that was
killed, or asked again with another budget, goes on with what is there.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill.artefact import content_hash, write_json
from distill.latency import Request, environment, measure_all
from distill.progress import progress
from distill.runtime import usable_cpus
from students.cost_model import Measurement, Shape
from students.shapes import Candidates

__all__ = ["Ledger", "cost_row", "measure_folders"]

_MEMORY_PER_PROCESS_MB = 700
_ROUNDS = 5
Write = Callable[[Shape], Path]


class Ledger:
    """What was measured, by phase: `scouts` (roughly), `measured` (all in turns), `verified`."""

    def __init__(self, path: Path, candidates: Candidates) -> None:
        self.path, self.candidates = path, candidates
        where = environment()
        self.key = content_hash([
            where["cpu"], where["cpu_flags"], where["cores"], where["versions"], self.n_threads, candidates.identity(),
        ])  # fmt: skip
        stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.stored: dict[str, Any] = stored
        self.phases: dict[str, Any] = stored.setdefault(self.key, {"environment": where, "phases": {}})["phases"]

    @property
    def n_threads(self) -> int:
        """Threads of a measured model."""
        return self.candidates.plan.threads or usable_cpus()

    def rows(self, *phases: str) -> list[Measurement]:
        """Return what is known of these phases, one measurement a shape, the last phase's word."""
        found = {
            Shape(**row["shape"]): Measurement(Shape(**row["shape"]), **row["costs"])
            for phase in phases
            for row in self.phases.get(phase, [])
        }
        return list(found.values())

    def measure(
        self, phase: str, shapes: Sequence[Shape], *, seconds: float, along: Sequence[Shape] = ()
    ) -> list[float]:
        """Measure the shapes that a phase lacks, in turns.

        :param along: shapes that an earlier phase knows, measured again in between
        :returns: for each of `along`, its p50 over that of the earlier phase: how far the machine has drifted
        """
        known = {one.shape for one in self.rows(phase)}
        missing = [shape for shape in shapes if shape not in known]
        if not missing:
            return []
        folders = self._write([*missing, *along])
        before = {one.shape: one.p50_ms for one in self.rows("measured")}
        drift = []
        for group in _groups([*missing, *along]):
            results = self._measure_group(group, [folders[shape] for shape in group], seconds)
            for shape, result in zip(group, results, strict=True):
                if shape in missing:
                    row = {"shape": asdict(shape), **cost_row(result)}
                    self.phases.setdefault(phase, []).append(row)
                else:
                    drift.append(result["latency_ms"]["p50"] / before[shape])
            write_json(self.path, self.stored)
        return drift

    def _write(self, shapes: Sequence[Shape]) -> dict[Shape, Path]:
        folders = {}
        with progress("building int8 candidates", len(shapes)) as report:
            for shape in shapes:
                folders[shape] = self.candidates.write(shape)
                report(1, str(shape))
        return folders

    def _measure_group(self, shapes: Sequence[Shape], folders: Sequence[Path], seconds: float) -> list[dict[str, Any]]:
        plan = self.candidates.plan
        names = [f"{shape.layers} × {shape.width}" for shape in shapes]
        texts = self.candidates.texts()
        return measure_folders(
            folders, names, texts, length=plan.length, n_threads=self.n_threads, seconds=seconds, seed=0
        )


def measure_folders(
    folders: Sequence[Path], names: Sequence[str], texts: tuple[list[str], list[str]], *, length: int, n_threads: int,
    seconds: float, seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Measure int8 folders in turns, as `distill.latency.measure_all` does, on texts of one length."""
    requests = [
        Request(folder, name, "openvino", None, n_threads, length) for folder, name in zip(folders, names, strict=True)
    ]
    with progress("measuring", 0) as report:
        last = 0

        def on_progress(done: int, total: int, what: str) -> None:
            nonlocal last
            report(done - last, what, total=total)
            last = done

        queries, documents = texts
        return measure_all(
            requests, queries, documents, seconds=seconds, rounds=_ROUNDS, lengths=(2 * length,), seed=seed,
            on_progress=on_progress,
        )  # fmt: skip


def cost_row(result: dict[str, Any]) -> dict[str, Any]:
    """Return the costs of a measurement, and the raw samples behind them."""
    latency = result["latency_ms"]
    costs = {
        "p50_ms": latency["p50"], "p95_ms": latency["p95"], "text_ms": 1000 / result["throughput_pairs_per_s"],
        "size_mb": result["size_mb"],
    }  # fmt: skip
    return {"costs": costs, "n": latency["n"], "latency_ms": result["per_run"]["latency_ms"]}


def _groups(shapes: Sequence[Shape]) -> list[list[Shape]]:
    """Cut into groups whose processes fit the memory together; one group where they all do."""
    import psutil

    at_once = max(2, int(psutil.virtual_memory().available / 1e6 / _MEMORY_PER_PROCESS_MB))
    n_groups = -(-len(shapes) // at_once)
    return [list(shapes[number::n_groups]) for number in range(n_groups)]
