"""Logistic regression on labels in [0, 1]: scores become probabilities."""

import numpy as np

__all__ = ["fit_logistic"]


def fit_logistic(columns: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """Fit σ(columns · w + bias) to labels in [0, 1]; return (*w, bias). *Shape:* columns (n, n_columns), labels (n,)."""
    from sklearn.linear_model import LogisticRegression

    centre, scale = columns.mean(axis=0), columns.std(axis=0)
    standard = (columns - centre) / scale
    # a grade y is y of a match and 1 − y of none
    doubled = np.concatenate([standard, standard])
    classes, weights = np.repeat([1, 0], len(labels)), np.concatenate([labels, 1 - labels])
    model = LogisticRegression(C=10.0, max_iter=1000).fit(doubled, classes, sample_weight=weights)
    slopes = model.coef_[0] / scale
    return (*map(float, slopes), float(model.intercept_[0] - slopes @ centre))
