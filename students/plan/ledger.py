"""Measurements of candidate shapes: made like the benchmark's, stored on disk, and never repeated.

They are stored under everything that determines them: CPU, versions, threads, precision, and all settings of the
candidate besides its shape. A plan that was killed, or is run again with another budget, uses the stored ones.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill.errors import BadInput
from distill.evaluation.latency import environment
from distill.files.artefact import content_hash, write_json
from distill.machine.cpu import usable_cpus
from distill.progress import progress
from students.plan.cost_model import PRECISIONS, Measurement, Shape
from students.plan.measuring import cost_row, measure_folders
from students.plan.shapes import Candidates

__all__ = ["Ledger"]

_MEMORY_PER_PROCESS_MB = 700


class Ledger:
    """Measurements by phase: `scouts` (rough), `measured` (all in turns), `verified`; each shape in fp32 and int8."""

    def __init__(self, path: Path, candidates: Candidates) -> None:
        self.path, self.candidates = path, candidates
        machine = environment()
        self.key = content_hash(
            [
                machine["cpu"],
                machine["cpu_flags"],
                machine["cores"],
                machine["versions"],
                self.n_threads,
                candidates.identity(),
            ]
        )
        self.stored = _read(path)
        self.phases: dict[str, Any] = self.stored.setdefault(self.key, {"environment": machine, "phases": {}})["phases"]

    @property
    def n_threads(self) -> int:
        """The number of threads of a measured model."""
        return self.candidates.plan.threads or usable_cpus()

    def rows(self, *phases: str, precision: str) -> list[Measurement]:
        """Return the measurements of these phases in one precision, one per shape, from the last phase with it."""
        found = {
            Shape(**row["shape"]): Measurement(Shape(**row["shape"]), **row["costs"])
            for phase in phases
            for row in self.phases.get(phase, [])
            if row.get("precision", "int8") == precision  # older rows are all int8
        }
        return list(found.values())

    def measure(
        self, phase: str, shapes: Sequence[Shape], *, seconds: float, along: Sequence[Shape] = ()
    ) -> list[float]:
        """Measure the shapes that a phase lacks, in turns, each in both precisions.

        :param along: shapes of an earlier phase, measured again in between
        :returns: for each shape of `along`, its p50 divided by that of the earlier phase (the geometric mean of both
            precisions): the drift of the machine
        """
        known_by_precision = [
            {measurement.shape for measurement in self.rows(phase, precision=precision)} for precision in PRECISIONS
        ]
        missing = [shape for shape in shapes if not all(shape in known for known in known_by_precision)]
        if not missing:
            return []
        folders = self._write([*missing, *along])
        drift = []
        for group in _groups([*missing, *along]):
            results = self._measure_group(group, folders, seconds)
            for shape in group:
                if shape in missing:
                    rows = [
                        {"shape": asdict(shape), "precision": precision, **cost_row(results[shape, precision])}
                        for precision in PRECISIONS
                    ]
                    self.phases.setdefault(phase, []).extend(rows)
                else:
                    drift.append(self._drift(shape, results))
            write_json(self.path, self.stored)
        return drift

    def _drift(self, shape: Shape, results: Mapping[tuple[Shape, str], dict[str, Any]]) -> float:
        ratios = []
        for precision in PRECISIONS:
            before = {
                measurement.shape: measurement.p50_ms for measurement in self.rows("measured", precision=precision)
            }
            ratios.append(results[shape, precision]["latency_ms"]["p50"] / before[shape])
        return float(math.prod(ratios) ** (1 / len(ratios)))

    def _write(self, shapes: Sequence[Shape]) -> dict[Shape, dict[str, Path]]:
        folders = {}
        with progress("building candidates", len(shapes)) as report:
            for shape in shapes:
                folders[shape] = self.candidates.write(shape)
                report(1, str(shape))
        return folders

    def _measure_group(
        self, shapes: Sequence[Shape], folders: Mapping[Shape, Mapping[str, Path]], seconds: float
    ) -> dict[tuple[Shape, str], dict[str, Any]]:
        jobs = [(shape, precision) for shape in shapes for precision in PRECISIONS]
        results = measure_folders(
            [(f"{shape.layers} × {shape.width} {precision}", folders[shape][precision]) for shape, precision in jobs],
            self.candidates.texts(),
            length=self.candidates.length,
            n_threads=self.n_threads,
            seconds=seconds,
        )
        return dict(zip(jobs, results, strict=True))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is damaged ({error}); remove it, and the plan measures again") from None
    return stored


def _groups(shapes: Sequence[Shape]) -> list[list[Shape]]:
    """Split into groups that fit into memory, with one process per shape and precision; one group if all fit."""
    import psutil

    at_once = max(2, int(psutil.virtual_memory().available / 1e6 / _MEMORY_PER_PROCESS_MB / len(PRECISIONS)))
    n_groups = -(-len(shapes) // at_once)
    return [list(shapes[number::n_groups]) for number in range(n_groups)]
