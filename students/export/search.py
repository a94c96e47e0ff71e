"""Search the fewest layers that have to stay in float to pass the gate, by measurement.

    1. SmoothQuant's α, with everything in int8.
    2. Each linear layer's own error in int8, from its weights and its inputs on calibration texts: one pass in torch.
       The worst layers stand out by orders of magnitude: down-projections, whose inputs have outliers.
    3. The worst 1, 2, 4, … layers in float until the gate passes, then back to the smallest number that passes.

The criterion is the gate itself, first by the order of pairs. A trial is a whole export, quantized and compared.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from students.export.calibration import Sample, show_linear_inputs
from students.export.gate import ParityReport, Thresholds
from students.export.rounding import SAFE_CODE

__all__ = ["Trial", "fewest_float_layers", "layer_errors"]

log = logging.getLogger(__name__)
ALPHAS = (0.7, 0.5, 0.3, 0.95)  # of SmoothQuant, the default first; the search continues with the best one
_N_ERROR_INPUTS = 24  # on which the error of each layer is measured, over all lengths


@dataclass(frozen=True)
class Trial:
    """One export of the search: its settings and its comparison with the source."""

    alpha: float
    keep_float: tuple[str, ...]
    """Patterns of the linear layers in float."""
    report: ParityReport
    failures: tuple[str, ...]

    def described(self) -> dict[str, Any]:
        """The card's entry on it."""
        report = self.report
        return {
            "smooth_quant_alpha": self.alpha,
            "n_layers_float": len(self.keep_float),
            "rank_agreement": report.rank_agreement,
            "mean_cosine": report.mean_cosine,
            "min_cosine": report.min_cosine,
            "holds": not self.failures,
        }


def fewest_float_layers(
    attempt: Callable[[float, tuple[str, ...]], ParityReport],
    errors: Mapping[str, float],
    thresholds: Thresholds,
    alphas: Sequence[float] = ALPHAS,
) -> tuple[Trial, list[Trial]]:
    """Find the fewest layers in float with which the gate passes.

    :param attempt: makes and compares an export with an α and patterns of layers in float
    :param errors: the error in int8 of each linear layer, by name
    :param alphas: the values of α to try
    :returns: the best trial (one that passes, if any does) and all trials in order
    """
    trials: list[Trial] = []

    def run_trial(alpha: float, n_float: int) -> Trial:
        patterns = tuple(_pattern(name) for name in worst[:n_float])
        report = attempt(alpha, patterns)
        trial = Trial(alpha, patterns, report, tuple(report.failures(thresholds)))
        trials.append(trial)
        log.info(
            "int8 with α %s and %d of %d layers in float: rank agreement %s%s",
            alpha,
            n_float,
            len(worst),
            report.rank_agreement,
            "" if trial.failures else ", the gate holds",
        )
        return trial

    worst = sorted(errors, key=lambda name: -errors[name])
    for alpha in alphas:
        if not run_trial(alpha, 0).failures:
            return trials[-1], trials
    alpha = max(trials, key=lambda trial: trial.report.closeness).alpha
    n_failing, passing, n_float = 0, None, 1
    while passing is None and n_failing < len(worst):
        n_float = min(n_float, len(worst))
        if run_trial(alpha, n_float).failures:
            n_failing, n_float = n_float, 2 * n_float
        else:
            passing = trials[-1]
    if passing is None:
        return max(trials, key=lambda trial: trial.report.closeness), trials
    while len(passing.keep_float) - n_failing > 1:
        middle = (len(passing.keep_float) + n_failing) // 2
        if run_trial(alpha, middle).failures:
            n_failing = middle
        else:
            passing = trials[-1]
    return passing, trials


def _pattern(name: str) -> str:
    """Match a layer's matrix product in either graph: "…layer.0.output.dense/aten::linear/MatMul" or "….dense.MatMul"."""
    return rf"(?:^|\.){re.escape(name)}[./]"


def layer_errors(transformer: Any, inputs: Sample) -> dict[str, float]:
    """Return the relative error of each linear layer's output when weights and inputs are in int8.

    Weights are symmetric by output channel in 7 bits, inputs asymmetric over the whole calibration range, as in a
    static int8 graph, but without the errors of the layers before. The error is ‖Wx − Q(W)Q(x)‖² / ‖Wx‖², over all
    inputs.

    :param inputs: unpadded, one text at a time. *Shape:* each array (1, n_tokens)
    """
    import torch

    chosen = [inputs[i] for i in np.linspace(0, len(inputs) - 1, min(_N_ERROR_INPUTS, len(inputs))).astype(int)]
    rows_of_layer: dict[str, list[Any]] = {}
    show_linear_inputs(transformer, chosen, lambda name, rows: rows_of_layer.setdefault(name, []).append(rows))
    with torch.no_grad():
        return {
            name: _int8_error(transformer.get_submodule(name).weight, torch.cat(rows))
            for name, rows in rows_of_layer.items()
        }


def _int8_error(weight: Any, rows: Any) -> float:
    """*Shape:* weight (n_out, n_in), rows (n_rows, n_in)."""
    scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / SAFE_CODE
    rounded_weight = (weight / scale).round() * scale
    low, high = rows.amin().clamp_max(0), rows.amax().clamp_min(0)
    step = (high - low).clamp_min(1e-12) / 255
    rounded_rows = ((rows - low) / step).round() * step + low
    exact = rows @ weight.T
    return float(((rounded_rows @ rounded_weight.T - exact) ** 2).sum() / (exact**2).sum().clamp_min(1e-20))
