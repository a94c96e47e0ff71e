"""Find the threshold on scores that reaches a precision or a recall, and measure both at a threshold, with intervals.

    precision   share of matches among the pairs that reach the threshold
    recall      share of the matches that reach the threshold

A pair is a match if its label is at least 0.5, for graded labels, too, as in ROC-AUC.

The observed precision at a chosen threshold is too optimistic: a threshold with a precision of 0.9 on 300 pairs of the
quickstart had 0.76 on other pairs. So the precision is taken from a logistic fit to all pairs, which has two
parameters.
"""

import numpy as np

from distill.metrics.columns import POSITIVE, FloatArray, ScoredColumns
from distill.metrics.logistic import fit_logistic, sigmoid
from distill.metrics.measures import Bootstrap, Estimate, estimate_shares

__all__ = ["point_at", "precision_and_recall", "threshold_for"]


def threshold_for(
    scores: np.ndarray, labels: np.ndarray, *, precision: float | None = None, recall: float | None = None
) -> float | None:
    """Return the lowest threshold that reaches a precision, or the highest that reaches a recall; None if none does.

    The precision is the mean of σ(slope · score + bias), fitted to the pairs, over the pairs that reach the threshold.
    The recall is the share of matches that reach it. The threshold is midway between two neighbouring scores. *Shape:*
    both (n_pairs,).

    >>> threshold_for(np.arange(40) / 40, (np.arange(40) >= 20).astype(float), recall=0.5)
    0.7375
    """
    order = np.argsort(-scores, kind="stable")
    ranked, matches = scores[order].astype(np.float64), labels[order] >= POSITIVE
    ends = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))  # no threshold separates equal scores
    if not matches.any() or matches.all() or len(ends) == 1:
        return None
    if precision is not None:
        slope, bias = fit_logistic(ranked[:, None], matches.astype(np.float64))
        expected_precision = np.cumsum(sigmoid(slope * ranked + bias))[ends] / (ends + 1)
        reached = np.flatnonzero((expected_precision >= precision) & (slope > 0))[::-1]
    else:
        assert recall is not None
        reached = np.flatnonzero(np.cumsum(matches)[ends] >= recall * matches.sum() - 1e-9)
    if len(reached) == 0:
        return None
    end = ends[reached[0]]
    return float(ranked[end] if end + 1 == len(ranked) else (ranked[end] + ranked[end + 1]) / 2)


def point_at(scores: np.ndarray, labels: np.ndarray, threshold: float) -> tuple[float | None, float | None]:
    """Return (precision, recall) at a threshold, each None if its denominator is 0.

    *Shape:* scores, labels: (n_pairs,).
    """
    predicted, matches = scores >= threshold, labels >= POSITIVE
    found = int((predicted & matches).sum())
    return (
        found / int(predicted.sum()) if predicted.any() else None,
        found / int(matches.sum()) if matches.any() else None,
    )


def precision_and_recall(
    columns: ScoredColumns, threshold: float, bootstrap: Bootstrap
) -> tuple[Estimate | None, Estimate | None]:
    """Return precision and recall with 95 % intervals over resampled clusters; `n` is the denominator's count."""
    assert columns.labels is not None
    predicted, matches = columns.scores >= threshold, columns.labels >= POSITIVE
    found: FloatArray = (predicted & matches).astype(np.float64)
    wholes = {"precision": predicted.astype(np.float64), "recall": matches.astype(np.float64)}
    estimates = estimate_shares(columns, {name: (found, whole) for name, whole in wholes.items()}, bootstrap)
    return estimates["precision"], estimates["recall"]
