"""Measure how well probabilities are calibrated: expected calibration error, Brier score, and bins for a diagram.

    ECE     Σ_b n_b / n · |mean probability − share of matches| over bins of equal mass (Naeini et al. 2015; Nixon et al. 2019)
    Brier   mean of (probability − label)²  (Brier 1950)

There are ten bins with a tenth of the pairs each, or fewer bins if one would have less than 20 pairs. Equal
probabilities are always in the same bin. Labels may be grades in [0, 1]. Both measures then compare the expected grade
with the mean grade.

The ECE of a sample is biased upwards: it is above 0 even for a model without error, because the shares of matches in
the bins vary by chance. `ece` is corrected with the bootstrap's estimate of this bias: 2 · ECE − mean of resampled
ECEs, not below 0 (Kumar et al. 2019, there with normal draws). Its interval is the basic one, 2 · ECE − quantiles
(Davison & Hinkley 1997, section 5.2). For a model without error, this removes less than half of the bias. `noise` is
the ECE that a model without error has on as many pairs: the mean of Σ_b |deviation of a resampled bin from the bin|.
The lower end of the interval is 0 if the ECE is not above the 97.5 % quantile of these sums.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distill.metrics.columns import FloatArray, IntArray, ScoredColumns, Statistic
from distill.metrics.measures import Bootstrap, Estimate, estimate_shares, sampled_statistics

__all__ = ["Reliability", "ReliabilityBin", "equal_mass_bins", "expected_calibration_error", "reliability"]

_N_BINS = 10
_LEAST_IN_BIN = 20


@dataclass(frozen=True)
class ReliabilityBin:
    """A bin of pairs: their mean probability, and their share of matches with its 95 % interval."""

    probability: float
    share: Estimate


@dataclass(frozen=True)
class Reliability:
    """The calibration error of probabilities.

    :param ece: the ECE minus its estimated bias, with its interval
    :param plain: the uncorrected ECE on these pairs
    :param noise: the ECE of a model without error on as many pairs
    """

    ece: Estimate
    plain: float
    noise: float
    brier: Estimate
    bins: tuple[ReliabilityBin, ...]

    def to_dict(self) -> Mapping[str, Any]:
        """Return the fields as plain numbers for JSON."""
        return asdict(self)


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, clusters: np.ndarray | None, bootstrap: Bootstrap
) -> Reliability:
    """Compare probabilities with labels, both in [0, 1]. Whole clusters are resampled. *Shape:* each (n_pairs,).

    :raises BadInput: if columns have different lengths or are out of range
    """
    columns = ScoredColumns.checked(probabilities, labels, clusters, unit_scores=probabilities)
    assert columns.labels is not None
    clipped, checked_labels = np.clip(columns.scores, 0, 1), columns.labels
    numbers = equal_mass_bins(clipped)
    members = (numbers == np.arange(numbers.max() + 1)[:, None]).astype(np.float64)  # (n_bins, n_pairs)
    gaps = clipped - checked_labels

    def gap_of(row: FloatArray) -> Statistic:
        # the mean gap of the bin, times the bin's share of the pairs
        return lambda weights: ((row * gaps) @ weights) / weights.sum(axis=0)

    whole = np.array([float((row * gaps).sum()) / len(gaps) for row in members])
    statistics = {str(number): gap_of(row) for number, row in enumerate(members)}
    drawn = sampled_statistics(columns, statistics, bootstrap.n_samples, bootstrap.seed)
    sampled = np.stack(list(drawn.values()))  # (n_bins, n_samples)
    plain = float(np.abs(whole).sum())
    ece, noise = _less_its_bias(
        plain, np.abs(sampled).sum(axis=0), np.abs(sampled - whole[:, None]).sum(axis=0), len(gaps)
    )
    parts = {str(number): (checked_labels * row, row) for number, row in enumerate(members)}
    found = estimate_shares(columns, parts | {"brier": (gaps**2, np.ones(len(gaps)))}, bootstrap)
    brier = found.pop("brier")
    assert brier is not None
    bins = tuple(
        ReliabilityBin(float(clipped[numbers == int(number)].mean()), share)
        for number, share in found.items()
        if share is not None
    )
    return Reliability(ece, plain, noise, brier, bins)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the uncorrected ECE over bins of equal mass. *Shape:* each (n_pairs,).

    >>> round(expected_calibration_error(np.repeat([0.2, 0.7], 20), np.repeat([0.0, 1.0], 20)), 3)
    0.25
    """
    numbers = equal_mass_bins(np.asarray(probabilities, dtype=np.float64))
    sums = np.bincount(numbers, weights=np.asarray(probabilities) - np.asarray(labels))
    return float(np.abs(sums).sum() / len(numbers))


def equal_mass_bins(values: np.ndarray) -> IntArray:
    """Return each value's bin, numbered from 0 without a gap. Equal values share a bin. *Shape:* (n,).

    >>> equal_mass_bins(np.r_[np.arange(30) / 100, np.full(10, 0.5)]).tolist() == [0] * 20 + [1] * 20
    True
    """
    n_bins = max(1, min(_N_BINS, len(values) // _LEAST_IN_BIN))
    _, first, inverse, counts = np.unique(np.sort(values), return_index=True, return_inverse=True, return_counts=True)
    middles = first + (counts - 1) / 2  # the mean rank of equal values
    places = np.minimum((middles * n_bins / len(values)).astype(np.intp), n_bins - 1)
    ranked = places[inverse]
    numbers = np.empty(len(values), dtype=np.intp)
    numbers[np.argsort(values, kind="stable")] = ranked
    return np.unique(numbers, return_inverse=True)[1]


def _less_its_bias(plain: float, sampled: FloatArray, without_error: FloatArray, n: int) -> tuple[Estimate, float]:
    """Return the bias-corrected ECE with its interval, and the mean ECE of a model without error.

    *Shape:* sampled, without_error: (n_samples,)
    """
    low, high = np.percentile(sampled, [2.5, 97.5])
    value = max(0.0, 2 * plain - float(sampled.mean()))
    least = 0.0 if plain <= np.percentile(without_error, 97.5) else max(0.0, 2 * plain - float(high))
    return Estimate(value, min(value, least), max(value, 2 * plain - float(low)), n), float(without_error.mean())
