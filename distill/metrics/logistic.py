"""Logistic regression on labels in [0, 1], which turns scores into probabilities."""

import numpy as np

from distill.files.artefact import ModelKind

__all__ = ["fit_logistic", "logit", "sigmoid", "too_few_pairs", "unit_scores"]

_MIN_PAIRS = 50  # fewer are too few for the curves of a cascade


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(−x)) without overflow, and exact near 0 as well. *Shape:* that of values, float64."""
    with np.errstate(under="ignore"):
        small = np.exp(-np.abs(values))
    unit: np.ndarray = np.where(values < 0, small, 1) / (1 + small)
    return unit


def logit(probabilities: np.ndarray) -> np.ndarray:
    """Return ln(p / (1 − p)) of probabilities above 0 and below 1. *Shape:* that of probabilities."""
    logits: np.ndarray = np.log(probabilities / (1 - probabilities))
    return logits


def unit_scores(kind: ModelKind, scores: np.ndarray) -> np.ndarray:
    """Map scores onto [0, 1]: (cosine + 1) / 2, or the sigmoid of the logit. *Shape:* that of scores, float32."""
    values = np.asarray(scores, dtype=np.float64)
    if kind == "bi_encoder":
        return np.clip((values + 1) / 2, 0, 1).astype(np.float32)
    return sigmoid(values).astype(np.float32)


def too_few_pairs(n_pairs: int) -> str | None:
    """Return why a cascade cannot be fitted on so few held-back pairs; None if it can."""
    if n_pairs >= _MIN_PAIRS:
        return None
    return f"{n_pairs} held-back pairs; a cascade is fitted on {_MIN_PAIRS} at least (better 500): raise data.validation_share"


def fit_logistic(columns: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """Fit σ(columns · w + bias) to labels in [0, 1]; return (*w, bias). *Shape:* columns (n, n_columns), labels (n,)."""
    from sklearn.linear_model import LogisticRegression

    centre, scale = columns.mean(axis=0), columns.std(axis=0)
    standard = (columns - centre) / scale
    # a grade y counts as a match with weight y and as no match with weight 1 − y
    doubled = np.concatenate([standard, standard])
    classes, weights = np.repeat([1, 0], len(labels)), np.concatenate([labels, 1 - labels])
    model = LogisticRegression(C=10.0, max_iter=1000).fit(doubled, classes, sample_weight=weights)
    slopes = model.coef_[0] / scale
    return (*map(float, slopes), float(model.intercept_[0] - slopes @ centre))
