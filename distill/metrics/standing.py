"""Compare the quality of a report's rows with the best teacher, chance, the untrained student and the floor.

A share of the teacher's score looks too good if a model that learned nothing reaches most of that score. So beside the
share of the primary teacher's value, each row has for each metric:

    retention_best   value / the best teacher's value
    above_chance     (value − chance) / (best teacher − chance): ROC-AUC over 0.5, average precision over the share of positives
    gain             {"untrained", "floor"}: (value − base) / (best teacher − base), the share of the possible gain

The floor is the best TF-IDF row, which only counts common terms. The best teacher is the best in the primary metric.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill.metrics.columns import POSITIVE
from distill.metrics.names import LOWER_IS_BETTER, NO_SHARE

__all__ = [
    "Row",
    "above_chance",
    "beside_untrained",
    "best_teacher",
    "first_teacher",
    "floor_of",
    "is_broken",
    "is_level_with_floor",
    "problem_of",
    "share_of",
    "value_of",
    "with_standing",
]

Row = Mapping[str, Any]
"""A row of benchmark.json: the measurements of one model."""


def problem_of(scores: np.ndarray) -> str | None:
    """Return a message if scores are not finite or all equal, else None. *Shape:* (n_pairs,)."""
    broken = int((~np.isfinite(scores)).sum())
    if broken:
        return f"{broken} of {len(scores)} scores are not finite: there is no quality to state"
    if len(scores) > 1 and np.ptp(scores) == 0:
        return "every pair has the same score: it tells no pair from another"
    return None


def value_of(row: Row | None, metric: str) -> float | None:
    """Return a metric's value, or None if there is no row, or the row lacks the metric or its value."""
    estimate = None if row is None else (row.get("metrics") or {}).get(metric)
    return None if estimate is None or estimate.get("value") is None else float(estimate["value"])


def first_teacher(rows: Sequence[Row]) -> Row | None:
    """Return the teacher that shares and speed-ups are relative to: the first row of one."""
    return next((row for row in rows if row.get("role") == "teacher"), None)


_CHANCE = {"roc_auc": 0.5}


def above_chance(metric: str | None) -> str:
    """Return " above chance" for a metric whose share counts from chance, else nothing."""
    return " above chance" if metric in _CHANCE else ""


def share_of(row: Row, reference: Row | None, metric: str) -> float | None:
    """Return (value − chance) / (reference − chance): what a table calls the share of the teacher.

    Chance is 0.5 for ROC-AUC and 0 for other metrics. None if the reference is not above chance, or a value is missing.
    (`retention` in benchmark.json is value / reference, in which a useless model has half of a ROC-AUC.)

    >>> share_of({"metrics": {"roc_auc": {"value": 0.5}}}, {"metrics": {"roc_auc": {"value": 0.9}}}, "roc_auc")
    0.0
    """
    value, top, base = value_of(row, metric), value_of(reference, metric), _CHANCE.get(metric, 0.0)
    if metric in NO_SHARE or value is None or top is None or top <= base:
        return None
    return (value - base) / (top - base)


def _best(rows: Sequence[Row], metric: str) -> Row | None:
    sign = -1 if metric in LOWER_IS_BETTER else 1
    known = [(sign * value, row) for row in rows if (value := value_of(row, metric)) is not None]
    return max(known, key=lambda pair: pair[0])[1] if known else None


def best_teacher(rows: Sequence[Row], metric: str) -> Row | None:
    """Return the teacher's row with the best value of a metric."""
    return _best([row for row in rows if row["role"] == "teacher"], metric)


def floor_of(rows: Sequence[Row], metric: str) -> Row | None:
    """Return the TF-IDF row with the best value of a metric."""
    return _best([row for row in rows if row.get("role") == "baseline" and row.get("kind") == "tfidf"], metric)


def is_level_with_floor(row: Row, floor: Row | None, result: Mapping[str, Any]) -> bool:
    """Return whether the interval of a model's difference to the floor includes 0, so that no difference is shown.

    A model that is under the floor is not level with it, and none is if there is no floor.

    :param result: the report, with its `comparisons`
    """
    if floor is None or row.get("under_floor"):
        return False
    interval = _interval_beside(row, floor, result.get("comparisons") or ())
    return interval is not None and interval[0] <= 0 <= interval[1]


def _interval_beside(row: Row, floor: Row, comparisons: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Return the interval of a row's difference to the floor; None if they were not compared."""
    compared = f"{row['name']} − {floor['name']}"
    for comparison in comparisons:
        low, high = comparison.get("low"), comparison.get("high")
        if comparison.get("name") == compared and low is not None and high is not None:
            return low, high
    return None


def _is_under_floor(row: Row, floor: Row, metric: str, comparisons: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a row is worse than the floor: by the interval of their difference, else by their values."""
    interval = _interval_beside(row, floor, comparisons)
    if interval is not None:
        return interval[0] > 0 if metric in LOWER_IS_BETTER else interval[1] < 0
    value, least = value_of(row, metric), value_of(floor, metric)
    return value is not None and least is not None and _is_worse(value, least, metric)


def is_broken(rows: Sequence[Row], metric: str) -> bool:
    """Return whether the control is worse than the untrained student.

    The comparison with the control then shows nothing.
    """
    untrained, control = (
        value_of(next((row for row in rows if row["role"] == role), None), metric) for role in ("untrained", "control")
    )
    return untrained is not None and control is not None and _is_worse(control, untrained, metric)


def beside_untrained(row: Row, metric: str) -> str | None:
    """Return in words that a student is not shown to be better than itself untrained; None if it is, or is not compared."""
    compared = row.get("over_untrained") or {}
    low, high = compared.get("low"), compared.get("high")
    if low is None or high is None:
        return None
    worse, better = (low, high) if metric in LOWER_IS_BETTER else (-high, -low)
    if better < 0:
        return None
    return (
        "Worse than the same student untrained"
        if worse > 0
        else "Not shown to be better than the same student untrained"
    )


def _is_worse(value: float, reference: float, metric: str) -> bool:
    return value > reference if metric in LOWER_IS_BETTER else value < reference


def with_standing(
    rows: Sequence[dict[str, Any]],
    labels: np.ndarray | None,
    metric: str,
    comparisons: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Add the shares of the module's docstring to each row, and `under_floor` to rows that are worse than TF-IDF.

    A row that was compared with TF-IDF is worse only if the interval of the difference excludes 0.

    :param labels: the labels of the evaluation pairs; *shape:* (n_pairs,)
    :param metric: the primary metric
    :param comparisons: the report's comparisons
    """
    best, floor = best_teacher(rows, metric), floor_of(rows, metric)
    untrained = next((row for row in rows if row["role"] == "untrained"), None)
    chance = {"roc_auc": 0.5}
    if labels is not None:
        chance["average_precision"] = float((labels >= POSITIVE).mean())
    done = []
    for row in rows:
        more: dict[str, Any] = {}
        if best is not None and row is not best:
            bases = {"untrained": untrained, "floor": floor}
            more["retention_best"] = _shares(row, best, dict.fromkeys(row["metrics"], 0.0))
            more["above_chance"] = _shares(row, best, chance)
            more["gain"] = {
                name: _shares(row, best, {key: value_of(base, key) for key in row["metrics"]})
                for name, base in bases.items()
                if base is not None and base is not row
            }
        if row["role"] != "baseline" and floor is not None and _is_under_floor(row, floor, metric, comparisons):
            more["under_floor"] = True
        done.append({**row, **more})
    return done


def _shares(row: Row, best: Row, bases: Mapping[str, float | None]) -> dict[str, float]:
    """Return (value − base) / (best − base) for each metric in which the best teacher is above the base."""
    found = {}
    for key, base in bases.items():
        value, top = value_of(row, key), value_of(best, key)
        if key not in NO_SHARE and None not in (value, top, base) and top > base:  # type: ignore[operator]
            found[key] = (value - base) / (top - base)  # type: ignore[operator]
    return found
