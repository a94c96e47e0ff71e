"""A threshold on scores: found where precision or recall reaches a share, and what it gives, with intervals.

    precision   matches among what reaches the threshold
    recall      what reaches the threshold among the matches

A label of at least 0.5 is a match, graded or not, as in ROC-AUC.
"""

import numpy as np

from distill.metrics.columns import POSITIVE, FloatArray, ScoredColumns
from distill.metrics.measures import Bootstrap, Estimate, estimate_shares

__all__ = ["LEAST_CALLED", "point_at", "precision_and_recall", "threshold_for"]

LEAST_CALLED = 10
"""Pairs that reach a threshold, for its precision to be taken for one."""


def threshold_for(
    scores: np.ndarray, labels: np.ndarray, *, precision: float | None = None, recall: float | None = None
) -> float | None:
    """Return the lowest threshold that reaches a precision, or the highest that reaches a recall; None where none does.

    It lies midway to the next lower score. *Shape:* both (n_pairs,).

    >>> scores, labels = np.arange(40) / 40, (np.arange(40) >= 20).astype(float)
    >>> threshold_for(scores, labels, precision=0.8), threshold_for(scores, labels, recall=0.5)
    (0.3625, 0.7375)
    """
    order = np.argsort(-scores, kind="stable")
    ranked, matches = scores[order], np.cumsum(labels[order] >= POSITIVE)
    ends = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))  # equal scores are called together
    called, found = ends + 1, matches[ends]
    if precision is not None:
        reached = np.flatnonzero((found >= precision * called - 1e-9) & (called >= LEAST_CALLED))[::-1]
    else:
        assert recall is not None
        reached = np.flatnonzero((found >= recall * matches[-1] - 1e-9) & (matches[-1] > 0))
    if len(reached) == 0:
        return None
    end = ends[reached[0]]
    return float(ranked[end] if end + 1 == len(ranked) else (ranked[end] + ranked[end + 1]) / 2)


def point_at(scores: np.ndarray, labels: np.ndarray, threshold: float) -> tuple[float | None, float | None]:
    """Return precision and recall at a threshold; None where there is nothing to divide by. *Shape:* both (n_pairs,)."""
    called, matches = scores >= threshold, labels >= POSITIVE
    found = int((called & matches).sum())
    return (
        found / int(called.sum()) if called.any() else None,
        found / int(matches.sum()) if matches.any() else None,
    )


def precision_and_recall(
    columns: ScoredColumns, threshold: float, bootstrap: Bootstrap
) -> tuple[Estimate | None, Estimate | None]:
    """Return both with 95 % intervals over resampled queries; `n` counts what was divided by."""
    assert columns.labels is not None
    called, matches = columns.scores >= threshold, columns.labels >= POSITIVE
    found: FloatArray = (called & matches).astype(np.float64)
    wholes = {"precision": called.astype(np.float64), "recall": matches.astype(np.float64)}
    told = estimate_shares(columns, {name: (found, whole) for name, whole in wholes.items()}, bootstrap)
    return told["precision"], told["recall"]
