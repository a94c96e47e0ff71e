"""Measure a calibration and a threshold, both found on validation pairs, on the evaluation pairs.

    before   the unit score: (cosine + 1) / 2, or the sigmoid of the logit
    after    the probability of `calibration.json`

The teacher's operating point is measured for comparison, with its own threshold from the same validation pairs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import Pairs
from distill.files.artefact import CALIBRATION, ModelKind, read_json
from distill.metrics.columns import ScoredColumns
from distill.metrics.measures import Bootstrap
from distill.metrics.operating_point import precision_and_recall, threshold_for
from distill.metrics.reliability import reliability
from distill.metrics.standing import problem_of
from distill.models.stored_calibration import StoredCalibration, read_calibration
from distill.recipe.schema import OperatingPoint
from distill.wording import counted

__all__ = ["calibration_notes", "measured_calibration", "stored_calibrations", "teacher_operating_point"]


def stored_calibrations(folders: Mapping[str, Path]) -> dict[str, Any]:
    """Return the content of each folder's calibration file, by the given names. Folders without one are left out."""
    return {name: read_json(path) for name, folder in folders.items() if (path := folder / CALIBRATION).is_file()}


def measured_calibration(
    folder: Path, kind: ModelKind, scores: np.ndarray, unit: np.ndarray, pairs: Pairs, bootstrap: Bootstrap
) -> dict[str, Any] | None:
    """Return the entry `calibration` of a row of benchmark.json.

    It is None if the folder has no calibration, the pairs have no labels or the scores are unusable.

    :param pairs: pairs to which the calibration was not fitted. *Shape:* scores, unit: (n_pairs,)
    """
    stored = read_calibration(folder, kind)
    if stored is None or pairs.labels is None or problem_of(scores) is not None:
        return None
    stages = {"before": unit, "after": stored.calibration(scores)}
    entry: dict[str, Any] = {
        "kind": stored.calibration.kind,
        "fitted_to": stored.fitted.get("pairs"),
        "graded": is_graded(pairs.labels),
        **{
            name: reliability(values, pairs.labels, pairs.clusters, bootstrap).to_dict()
            for name, values in stages.items()
        },
    }
    if stored.threshold is not None:
        found = _point(scores, stored.threshold, pairs, bootstrap)
        entry["operating_point"] = {**stored.operating_point, **_on_validation(stored), **found}
    return entry


def _on_validation(stored: StoredCalibration) -> dict[str, Any]:
    return {"validation": {name: stored.operating_point.get(name) for name in ("precision", "recall")}}


def teacher_operating_point(
    point: OperatingPoint,
    scores: np.ndarray,
    pairs: Pairs,
    validation_scores: Callable[[], np.ndarray],
    validation: Pairs,
    bootstrap: Bootstrap,
) -> dict[str, Any] | None:
    """Return the teacher's threshold with its precision and recall on the pairs.

    It is None if no threshold reaches the recipe's precision or recall, the pairs have no labels or the scores are
    unusable.

    :param validation_scores: returns the teacher's scores of the validation pairs; not called if the recipe sets the
        threshold
    """
    if problem_of(scores) is not None or pairs.labels is None:
        return None
    threshold = point.value
    if threshold is None:
        assert validation.labels is not None
        own = validation_scores()
        known = np.flatnonzero(np.isfinite(validation.labels) & np.isfinite(own))
        wanted = {"precision": point.precision, "recall": point.recall}
        threshold = threshold_for(own[known], validation.labels[known], **wanted) if len(known) else None
    return None if threshold is None else _point(scores, threshold, pairs, bootstrap)


def _point(scores: np.ndarray, threshold: float, pairs: Pairs, bootstrap: Bootstrap) -> dict[str, Any]:
    columns = ScoredColumns.checked(scores, **pairs.metric_columns)
    found = zip(("precision", "recall"), precision_and_recall(columns, threshold, bootstrap), strict=True)
    return {
        "threshold": threshold,
        **{name: None if estimate is None else asdict(estimate) for name, estimate in found},
    }


def is_graded(labels: np.ndarray) -> bool:
    """Return whether labels are grades: whether any label is neither 0 nor 1."""
    return bool(np.setdiff1d(labels, [0.0, 1.0]).size)


def calibration_notes(rows: Sequence[Mapping[str, Any]], pairs: Pairs) -> list[str]:
    """Return notes on the pairs behind the calibrations, and on their meaning if labels are grades."""
    calibrations = [row["calibration"] for row in rows if row.get("calibration")]
    if not calibrations:
        return []
    n = counted(max(calibration["fitted_to"] or 0 for calibration in calibrations), "validation pair")
    notes = [
        f"Calibrations and thresholds were fitted to {n}, and are measured on the {len(pairs):,} evaluation pairs."
    ]
    if any(calibration["graded"] for calibration in calibrations):
        notes.append(
            "The labels are grades: a calibrated score is the expected grade, the ECE compares it with the mean grade, and for "
            "precision and recall a label of at least 0.5 is a match."
        )
    return notes
