"""The part of a report on calibrated scores: the curve of the picture, the table and its caption."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill.report.content import BenchmarkResults, Row, number_at, role_of
from distill.report.tables import ColumnHead, ReportTable, Shown, TableLine
from distill.report.words import bound, three_decimals

__all__ = ["STAGES", "Bin", "Curve", "calibration_table", "curve_of"]

STAGES = ("before", "after")
_ERRORS = (("ece", "ECE"), ("brier", "Brier"))
_POINT = ("precision", "recall")


@dataclass(frozen=True)
class Bin:
    """Pairs of similar probability: the mean probability, and the share of matches with its interval."""

    probability: float
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """The bins of a model before and after its calibration."""

    label: str
    kind: str
    bins: Mapping[str, list[Bin]]


def curve_of(content: BenchmarkResults) -> Curve | None:
    """Return the curve of the first calibrated row (the student's if it has one); None without a calibrated row.

    The curves of the exports look alike.
    """
    for label, row in content.labelled():
        bins = {stage: _bins(row, stage) for stage in STAGES}
        if all(bins.values()):
            return Curve(label, str((row["calibration"] or {}).get("kind") or "calibrated"), bins)
    return None


def _bins(row: Row, stage: str) -> list[Bin]:
    found = ((row.get("calibration") or {}).get(stage) or {}).get("bins")
    bins = []
    for entry in found if isinstance(found, list) else []:
        numbers = [
            number_at(entry, "probability"),
            *(number_at(entry, "share", part) for part in ("value", "low", "high")),
        ]
        known = [number for number in numbers if number is not None]
        if len(known) == len(numbers):
            bins.append(Bin(*known))
    return bins


def calibration_table(content: BenchmarkResults) -> ReportTable | None:
    """Return the table of errors before and after calibration, with operating points; None without calibrations."""
    rows = [(label, row) for label, row in content.labelled() if row.get("calibration") or row.get("operating_point")]
    if not any(row.get("calibration") for _, row in rows):
        return None
    has_points = any(_operating_point(row) for _, row in rows)
    heads = [f"{name} {stage}" for _, name in _ERRORS for stage in STAGES]
    heads += ["threshold", *_POINT] if has_points else []
    lines = [
        TableLine(label, str((row.get("calibration") or {}).get("kind") or ""), _cells(row, has_points), role_of(row))
        for label, row in rows
    ]
    return ReportTable("Calibration", [" ".join(_caption(content))], [ColumnHead(head) for head in heads], lines)


def _cells(row: Row, has_points: bool) -> list[Shown | None]:
    cells = [_estimate(row.get("calibration"), stage, key) for key, _ in _ERRORS for stage in STAGES]
    if not has_points:
        return cells
    point = _operating_point(row)
    threshold = number_at(point, "threshold")
    threshold_cell = None if threshold is None else Shown(three_decimals(threshold))
    return [*cells, threshold_cell, *(_estimate(point, part) for part in _POINT)]


def _operating_point(row: Row) -> Mapping[str, Any]:
    found = row.get("operating_point") or (row.get("calibration") or {}).get("operating_point")
    return found if isinstance(found, Mapping) else {}


def _estimate(values: Any, *path: str) -> Shown | None:
    value, low, high = (number_at(values, *path, part) for part in ("value", "low", "high"))
    if value is None:
        return None
    small = [] if low is None or high is None else [f"{bound(low)}–{bound(high)}"]
    return Shown(three_decimals(value), small)


def _caption(content: BenchmarkResults) -> list[str]:
    calibrated = [row["calibration"] for row in content.rows if row.get("calibration")]
    noise = next((known for entry in calibrated if (known := number_at(entry, "after", "noise")) is not None), None)
    sentences = [
        "ECE: the mean distance between probability and share of matches, over bins of equal mass, less its estimated bias; in small "
        "type 95 % intervals. Brier: the mean of (probability − label)². Before: the unit score; after: the calibrated one.",
    ]
    if noise is not None:
        sentences.append(
            f"On as many pairs a model without error shows an ECE of about {three_decimals(noise)} before its bias is taken off."
        )
    point = next((point for entry in calibrated if (point := entry.get("operating_point"))), None)
    share = number_at(point, "share")
    if point is not None and share is not None:
        sentences.append(
            f"The thresholds were set on validation pairs for a {point.get('by')} of {three_decimals(share) if share < 0.9995 else f'{share:g}'}; precision and recall "
            "here are those of the evaluation pairs."
        )
    return sentences
