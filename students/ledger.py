"""Measurements of candidate shapes: taken with the toolkit's one meter, kept on disk, never taken twice.

They are kept by what decides them: CPU, versions, threads, and all of the candidate besides its shape. A plan that was
killed, or asked again with another budget, goes on with what is there.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill.artefact import content_hash, write_json
from distill.errors import BadInput
from distill.latency import environment
from distill.progress import progress
from distill.runtime import usable_cpus
from students.cost_model import Measurement, Shape
from students.measuring import cost_row, measure_folders
from students.shapes import Candidates

__all__ = ["Ledger"]

_MEMORY_PER_PROCESS_MB = 700


class Ledger:
    """What was measured, by phase: `scouts` (roughly), `measured` (all in turns), `verified`."""

    def __init__(self, path: Path, candidates: Candidates) -> None:
        self.path, self.candidates = path, candidates
        where = environment()
        self.key = content_hash([
            where["cpu"], where["cpu_flags"], where["cores"], where["versions"], self.n_threads, candidates.identity(),
        ])  # fmt: skip
        self.stored = _read(path)
        self.phases: dict[str, Any] = self.stored.setdefault(self.key, {"environment": where, "phases": {}})["phases"]

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
        names = [f"{shape.layers} × {shape.width}" for shape in shapes]
        texts = self.candidates.texts()
        return measure_folders(
            folders, names, texts, length=self.candidates.length, n_threads=self.n_threads, seconds=seconds, seed=0
        )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is damaged ({error}); remove it, and the plan measures again") from None
    return stored


def _groups(shapes: Sequence[Shape]) -> list[list[Shape]]:
    """Cut into groups whose processes fit the memory together; one group where they all do."""
    import psutil

    at_once = max(2, int(psutil.virtual_memory().available / 1e6 / _MEMORY_PER_PROCESS_MB))
    n_groups = -(-len(shapes) // at_once)
    return [list(shapes[number::n_groups]) for number in range(n_groups)]
