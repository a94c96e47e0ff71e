"""Calibrate scores to probabilities with an increasing function, fitted to labelled pairs and applied with numpy.

    platt         σ(slope · score + bias)           Platt 1999
    temperature   σ(logit / τ)                      Guo et al. 2017; the logit of a cosine c is that of (c + 1) / 2
    isotonic      linear between increasing steps   Zadrozny & Elkan 2002

Labels may be grades in [0, 1]. The result is then the expected grade. Fitting needs scikit-learn and scipy.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from distill.files.artefact import ModelKind
from distill.metrics.logistic import fit_logistic, logit, sigmoid

__all__ = ["CALIBRATION_KINDS", "LEAST_PAIRS", "Calibration", "CalibrationKind", "fit_calibration"]

CalibrationKind = Literal["platt", "isotonic", "temperature"]
CALIBRATION_KINDS: tuple[CalibrationKind, ...] = get_args(CalibrationKind)
LEAST_PAIRS = 50
"""The minimum number of labelled pairs for a fit of two parameters."""
_CLIP = 1e-6
_STEP_CLIP = 1e-3  # isotonic steps stay this far from 0 and 1, which the outermost steps often reach on a few pairs


@dataclass(frozen=True)
class Calibration:
    """An increasing function from a model's scores to probabilities.

    :param model_kind: the kind of scores: cosines of a bi-encoder, or logits of a cross-encoder
    :param slope: platt: above 0; temperature: 1 / τ
    :param bias: platt alone
    :param steps: isotonic: (scores, probabilities), both increasing; scores outside get the probability of the nearest
        end
    """

    kind: CalibrationKind
    model_kind: ModelKind
    slope: float = 1.0
    bias: float = 0.0
    steps: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())

    def __call__(self, scores: Any) -> np.ndarray:
        """Return probabilities. *Shape:* that of scores, float64.

        >>> Calibration("platt", "cross_encoder", slope=2.0, bias=-1.0)([0.5, 1.0]).round(3).tolist()
        [0.5, 0.731]
        """
        values = np.asarray(scores, dtype=np.float64)
        if self.kind == "isotonic":
            calibrated: np.ndarray = np.interp(values, *self.steps)
            return calibrated
        if self.kind == "temperature":
            values = _logits(self.model_kind, values)
        return sigmoid(self.slope * values + self.bias)


def fit_calibration(
    kind: CalibrationKind, model_kind: ModelKind, scores: np.ndarray, labels: np.ndarray
) -> Calibration | None:
    """Fit a calibration to labels in [0, 1]; None if the scores do not increase with the labels.

    *Shape:* both (n_pairs,).
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if not np.isfinite(scores).all() or np.ptp(scores) == 0 or np.ptp(labels) == 0:
        return None
    slope, bias = fit_logistic(scores[:, None], labels)
    if slope <= 0:
        return None
    if kind == "isotonic":
        return Calibration(kind, model_kind, steps=_steps(scores, labels))
    if kind == "temperature":
        return Calibration(kind, model_kind, slope=1 / _temperature(_logits(model_kind, scores), labels))
    return Calibration(kind, model_kind, slope=slope, bias=bias)


def _steps(scores: np.ndarray, labels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=_STEP_CLIP, y_max=1 - _STEP_CLIP, out_of_bounds="clip").fit(scores, labels)
    return tuple(map(float, fitted.X_thresholds_)), tuple(map(float, fitted.y_thresholds_))


def _temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        z = logits / np.exp(log_temperature)
        return float((np.logaddexp(0, z) - labels * z).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x))


def _logits(kind: ModelKind, scores: np.ndarray) -> np.ndarray:
    if kind == "cross_encoder":
        return scores
    unit = np.clip((scores + 1) / 2, _CLIP, 1 - _CLIP)
    return logit(unit)
