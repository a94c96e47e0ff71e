"""Search the fewest layers that have to stay in float to pass the gate, by measurement.

    1. SmoothQuant's α, with everything in int8.
    2. Each linear layer's own error in int8 with that α, from its weights and its inputs on calibration texts: one pass in torch.
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

from students.export.calibration import Sample
from students.export.gate import ParityReport, Thresholds
from students.export.quantize_onnx import smooth_scale
from students.export.rounding import SAFE_CODE, round_to_outputs

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
    errors: Callable[[float], Mapping[str, float]],
    thresholds: Thresholds,
    alphas: Sequence[float] = ALPHAS,
) -> tuple[Trial, list[Trial]]:
    """Find the fewest layers in float with which the gate passes.

    :param attempt: makes and compares an export with an α and patterns of layers in float
    :param errors: returns the error in int8 of each linear layer with an α, by name
    :param alphas: the values of α to try
    :returns: the best trial (one that passes, if any does) and all trials in order
    """
    trials: list[Trial] = []
    worst: list[str] = []

    def run_trial(alpha: float, n_float: int) -> Trial:
        patterns = tuple(_pattern(name) for name in worst[:n_float])
        report = attempt(alpha, patterns)
        trial = Trial(alpha, patterns, report, tuple(report.failures(thresholds)))
        trials.append(trial)
        log.info(
            "int8 with α %s and %d layers in float: rank agreement %s%s",
            alpha,
            n_float,
            report.rank_agreement,
            "" if trial.failures else ", the gate holds",
        )
        return trial

    for alpha in alphas:
        if not run_trial(alpha, 0).failures:
            return trials[-1], trials
    alpha = max(trials, key=lambda trial: trial.report.closeness).alpha
    error_of = errors(alpha)
    worst = sorted(error_of, key=lambda name: -error_of[name])
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
    """Match a layer's matrix products in either graph: "…layer.0.output.dense/aten::linear/MatMul" or "….dense.MatMul".

    Where layers share their weights (ALBERT), the second product is "….dense_1.MatMul" in ONNX.
    """
    return rf"(?:^|\.){re.escape(name)}(?:_\d+)?[./]"


def layer_errors(
    transformer: Any, inputs: Sample, *, alpha: float = -1, smooths_all: bool = False, nearest: bool = False
) -> dict[str, float]:
    """Return the relative error of each linear layer's output when weights and inputs are in int8.

    Weights are symmetric by output channel in 7 bits, inputs asymmetric over the whole calibration range, as in a
    static int8 graph, but without the errors of the layers before. The error is ‖Wx − Q(sW)Q(x/s)‖² / ‖Wx‖², over all
    inputs, with the factors s of SmoothQuant.

    :param inputs: unpadded, one text at a time. *Shape:* each array (1, n_tokens)
    :param alpha: of SmoothQuant; -1 turns it off
    :param smooths_all: whether all layers are smoothed, as in OpenVINO, or those behind a layer norm, as in ONNX
    :param nearest: round weights to the nearest step, see `students.export.rounding`
    """
    import torch

    from students.export.simulation import show_inputs_and_norms

    chosen = [inputs[i] for i in np.linspace(0, len(inputs) - 1, min(_N_ERROR_INPUTS, len(inputs))).astype(int)]
    rows_of_layer: dict[str, list[Any]] = {}
    norm_of = show_inputs_and_norms(
        transformer, chosen, lambda name, rows: rows_of_layer.setdefault(name, []).append(rows)
    )
    weights = {name: transformer.get_submodule(name).weight.detach() for name in rows_of_layer}
    errors = {}
    for name, parts in rows_of_layer.items():
        weight, rows = weights[name], torch.cat(parts)
        if alpha >= 0 and (smooths_all or name in norm_of):
            beside = [other for other in weights if other == name or norm_of.get(other, other) == norm_of.get(name)]
            scale = smooth_scale(rows.abs().amax(dim=0).numpy(), [weights[other].numpy().T for other in beside], alpha)
            weight, rows = weight * torch.from_numpy(scale), rows / torch.from_numpy(scale)
        errors[name] = _int8_error(weight, rows, nearest=nearest)
    return errors


def _int8_error(weight: Any, rows: Any, *, nearest: bool = False) -> float:
    """*Shape:* weight (n_out, n_in), rows (n_rows, n_in)."""
    import torch

    scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / SAFE_CODE
    low, high = rows.amin().clamp_max(0), rows.amax().clamp_min(0)
    step = (high - low).clamp_min(1e-12) / 255
    rounded_rows = ((rows - low) / step).round() * step + low
    codes = (weight / scale).round()
    if not nearest:
        gram = (rounded_rows.T.double() @ rounded_rows.double()).numpy()
        codes = torch.from_numpy(round_to_outputs(weight.numpy().T, scale.numpy()[:, 0], gram, SAFE_CODE).T)
    exact = rows @ weight.T
    return float(((rounded_rows @ (codes * scale).T - exact) ** 2).sum() / (exact**2).sum().clamp_min(1e-20))
