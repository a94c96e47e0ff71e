"""Calibration and thresholds of a finished run, on its evaluation pairs: every kind, and several precisions and recalls.

    python tests/benchmarks/calibration_of_a_run.py runs/quickstart

Nothing is written into the run but the scores that `distill benchmark` keeps in .work; copy a run to leave it untouched.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from distill.evaluation.benchmark import Scored, score_row, student_rows, teacher_row
from distill.evaluation.teacher_exports import primary_teacher
from distill.metrics.calibration import CALIBRATION_KINDS, Calibration, fit_calibration
from distill.metrics.columns import ScoredColumns
from distill.metrics.measures import Bootstrap, Estimate
from distill.metrics.operating_point import precision_and_recall, threshold_for
from distill.metrics.reliability import reliability
from distill.recipe.schema import Recipe
from distill.run import Run

_BOOTSTRAP = Bootstrap(2000, 0)
_SHARES: tuple[tuple[str, float], ...] = (("precision", 0.7), ("precision", 0.8), ("precision", 0.9), ("recall", 0.8))


def main() -> None:
    """Print a table of errors and one of operating points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    folder = parser.parse_args().run
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8")) | {"output_dir": str(folder)}
    run = Run(Recipe.model_validate(recipe))
    kind, validation, evaluation = run.student_section.kind, run.split.validation, run.split.evaluation
    wanted = [row for row in student_rows(run) if row.role in ("student", "export")]
    rows = [teacher_row(run, primary_teacher(run)), *wanted]
    own = {row.name: score_row(run, row, validation) for row in rows}
    other = {row.name: score_row(run, row, evaluation) for row in rows}
    print(f"{len(validation)} validation pairs, {len(evaluation)} evaluation pairs")
    first: Calibration | None = None
    for row in rows[1:]:
        print(row.name, "unit score", _errors(other[row.name].unit, evaluation))
        for name in CALIBRATION_KINDS:
            fitted = fit_calibration(name, kind, own[row.name].scores, validation.labels)
            assert fitted is not None
            first = first or fitted
            print(row.name, name, _errors(fitted(other[row.name].scores), evaluation))
        if row.role == "export":
            print(row.name, "with the student's own", _errors(first(other[row.name].scores), evaluation))
    for row in rows:
        for by, share in _SHARES:
            print(row.name, by, share, _point(own[row.name], other[row.name], validation, evaluation, by, share))


def _errors(probabilities: np.ndarray, pairs: Any) -> str:
    found = reliability(probabilities, pairs.labels, pairs.query_ids, _BOOTSTRAP)
    return f"ECE {_shown(found.ece)} (plain {found.plain:.3f}, without error {found.noise:.3f}), Brier {_shown(found.brier)}"


def _point(own: Scored, other: Scored, validation: Any, pairs: Any, by: str, share: float) -> str:
    threshold = threshold_for(own.scores, validation.labels, **{by: share})
    if threshold is None:
        return "not reached"
    columns = ScoredColumns.checked(other.scores, pairs.labels, pairs.query_ids)
    precision, recall = precision_and_recall(columns, threshold, _BOOTSTRAP)
    return f"threshold {threshold:.3f}: precision {_shown(precision)}, recall {_shown(recall)}"


def _shown(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


if __name__ == "__main__":
    main()
