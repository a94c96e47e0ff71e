"""Statistics of weighted pairs: values of a metric on resamples without building the resamples.

A resample is a column of counts, one for each pair: how often the pair was drawn. Every statistic here takes such
counts as weights, for many resamples at once, and returns exactly the value of the plain statistic on the repeated
rows. Sort orders and ties are computed once. scikit-learn's `sample_weight` gives the same values for one resample at a
time; it is 40 times slower for ROC-AUC and 15 times for average precision (5,000 pairs: 9 s and 5 s for 1,000 resamples
of one model).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from distill.metrics.columns import FloatArray, IntArray, Statistic

__all__ = ["average_precision", "kendall", "mean", "roc_auc", "spearman"]

_EXACT_TAU = 2000  # most pairs for which tau's n x n matrix is built (16 MB in float32)


@dataclass(frozen=True)
class _Ranking:
    """Ascending order of a column and its ties, computed once for all resamples."""

    order: IntArray  # (n,) pairs from the lowest value to the highest
    ends: IntArray  # (groups,) position in `order` of the last pair of each group of equal values
    codes: IntArray  # (n,) group of each pair

    @classmethod
    def of(cls, values: FloatArray) -> "_Ranking":
        _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
        return cls(np.argsort(codes, kind="stable"), np.cumsum(counts) - 1, codes)

    def cumulative(self, weights: FloatArray) -> FloatArray:
        """Return the weight at or below each group: (n, b) -> (groups, b)."""
        return np.cumsum(weights[self.order], axis=0)[self.ends]

    def groups(self, weights: FloatArray) -> FloatArray:
        """Return the weight of each group: (n, b) -> (groups, b)."""
        return np.diff(self.cumulative(weights), axis=0, prepend=0.0)

    def centred_ranks(self, weights: FloatArray) -> FloatArray:
        """Return the mean rank of each pair among the repeated rows, minus the mean of all ranks: (n, b) -> (n, b).

        A group that fills the ranks s + 1 to e has the mean rank (s + e + 1)/2, and the mean of all ranks is (N + 1)/2.
        Both are halves of whole numbers, so there is no rounding, and a constant column has a spread of exactly 0.
        """
        upto = self.cumulative(weights)
        twice = upto - upto[-1]
        twice[1:] += upto[:-1]
        ranks: FloatArray = (twice / 2)[self.codes]
        return ranks


def spearman(left: FloatArray, right: FloatArray) -> Statistic:
    """Return Spearman's correlation: Pearson's correlation of mean ranks."""
    left_ranking, right_ranking = _Ranking.of(left), _Ranking.of(right)

    def statistic(weights: FloatArray) -> FloatArray:
        a, b = left_ranking.centred_ranks(weights), right_ranking.centred_ranks(weights)
        weighted_a, weighted_b = weights * a, weights * b
        spread = np.sqrt(_columns_dot(weighted_a, a)) * np.sqrt(_columns_dot(weighted_b, b))
        return _ratio(_columns_dot(weighted_a, b), spread)

    return statistic


def roc_auc(scores: FloatArray, positive: npt.NDArray[np.bool_]) -> Statistic:
    """Return the area from the rank sum (Mann-Whitney): centred ranks of the P positives add up to area·PN - PN/2."""
    ranking = _Ranking.of(scores)

    def statistic(weights: FloatArray) -> FloatArray:
        centred = ranking.centred_ranks(weights)
        positives = weights[positive].sum(axis=0)
        rank_sum = _columns_dot(weights[positive], centred[positive])
        return 0.5 + _ratio(rank_sum, positives * (weights.sum(axis=0) - positives))

    return statistic


def average_precision(scores: FloatArray, positive: npt.NDArray[np.bool_]) -> Statistic:
    """Return average precision: over groups of equal scores, from the top, the sum of recall gained times precision."""
    ranking = _Ranking.of(-scores)

    def statistic(weights: FloatArray) -> FloatArray:
        found = ranking.cumulative(weights * positive[:, None])
        # if nothing has been drawn, nothing has been found: the numerator is 0, and any divisor except 0 works
        precision = found / np.maximum(ranking.cumulative(weights), 1)
        gained = np.diff(found, axis=0, prepend=0.0)
        average = _ratio(_columns_dot(gained, precision), found[-1])
        # scikit-learn gives 1 if all drawn pairs are positive; here that is undefined, as on the whole data
        average[found[-1] == weights.sum(axis=0)] = np.nan
        return average

    return statistic


def mean(values: FloatArray, rows: IntArray) -> Statistic:
    """Return the weighted mean of `values`; the weight of the i-th value is that of pair `rows[i]`."""

    def statistic(weights: FloatArray) -> FloatArray:
        return _ratio(values @ weights[rows], weights[rows].sum(axis=0))

    return statistic


def kendall(left: FloatArray, right: FloatArray) -> Statistic:
    """Return tau-b: concordant minus discordant couples, over the geometric mean of both columns' untied couples."""
    rankings, untied = [_Ranking.of(column) for column in (left, right)], list[Statistic]()
    if len(left) <= _EXACT_TAU:
        score, untied = _exact_concordance(left, right), [partial(_untied, ranking) for ranking in rankings]
    else:
        score, untied = _linear_concordance(left, right), [_linear_untied(ranking) for ranking in rankings]

    def statistic(weights: FloatArray) -> FloatArray:
        untied_left, untied_right = (np.sqrt(untied_of(weights)) for untied_of in untied)
        return np.clip(_ratio(score(weights), untied_left * untied_right), -1, 1)

    return statistic


def _exact_concordance(left: FloatArray, right: FloatArray) -> Statistic:
    """Return concordant minus discordant couples as the quadratic form wᵀSw/2; S is -1, 0 or 1 for each two pairs."""
    signs = _signs(left, right, np.arange(len(left)))

    def score(weights: FloatArray) -> FloatArray:
        # float32 is exact here: every partial sum is a whole number far below 2^24
        sums = signs @ weights.astype(np.float32)
        return _columns_dot(weights, sums.astype(np.float64)) / 2

    return score


def _linear_concordance(left: FloatArray, right: FloatArray) -> Statistic:
    """Return a first-order approximation of the quadratic form at the whole data, for data too large for the matrix.

    wᵀSw/2 at w = 1 + d is score + hᵀd + dᵀSd/2 with h = S1. The last term is of order 1/n relative to the rest (the
    Hájek projection of a U-statistic; van der Vaart, "Asymptotic Statistics", 1998, chapter 12) and is dropped. Its mean
    is not 0 (a pair that is drawn twice is tied with itself), so it is dropped in the divisor of tau as well
    (`_linear_untied`), where it has the same mean. A pair's h is computed against 2,000 random pairs, which are always
    the same.
    """
    n = len(left)
    others = np.random.default_rng(0).choice(n, _EXACT_TAU, replace=False)
    blocks = np.array_split(np.arange(n), max(1, n // 1000))
    gradient = np.concatenate([_signs(left, right, others, rows).sum(axis=1, dtype=np.float64) for rows in blocks])
    gradient *= (n - 1) / (_EXACT_TAU - np.isin(np.arange(n), others))  # no pair is compared with itself
    unit = np.ones((n, 1))
    untied = np.sqrt(_untied(_Ranking.of(left), unit) * _untied(_Ranking.of(right), unit))
    whole = float(stats.kendalltau(left, right, variant="b").statistic * untied[0])

    def score(weights: FloatArray) -> FloatArray:
        change: FloatArray = gradient @ (weights - 1)
        return whole + change

    return score


def _linear_untied(ranking: _Ranking) -> Statistic:
    """Return `_untied` to first order at the whole data, as `_linear_concordance` is: (n, b) -> (b,)."""
    n = len(ranking.codes)
    unit = np.ones((n, 1))
    gradient = n - ranking.groups(unit)[ranking.codes, 0]
    whole = _untied(ranking, unit)

    def untied(weights: FloatArray) -> FloatArray:
        change: FloatArray = gradient @ (weights - 1)
        return np.maximum(whole + change, 0.0)

    return untied


def _signs(left: FloatArray, right: FloatArray, others: IntArray, rows: IntArray | None = None) -> Any:
    """Return S: 1 if both columns order two pairs alike, -1 if not, 0 for ties. *Shape:* (rows, others), float32."""
    rows = np.arange(len(left)) if rows is None else rows
    signs = np.sign(left[rows, None] - left[others]).astype(np.float32)
    signs *= np.sign(right[rows, None] - right[others])
    return signs


def _untied(ranking: _Ranking, weights: FloatArray) -> FloatArray:
    """Return the number of couples of rows whose values differ: (N² - Σ t²)/2 over groups of weight t."""
    total = weights.sum(axis=0)
    groups = ranking.groups(weights)
    untied: FloatArray = (total * total - _columns_dot(groups, groups)) / 2
    return untied


def _columns_dot(left: FloatArray, right: FloatArray) -> FloatArray:
    """Return the dot product of each column of two (n, b) arrays: (b,)."""
    product: FloatArray = np.einsum("nb,nb->b", left, right)
    return product


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """Return the quotient; NaN if the divisor is 0."""
    quotient: FloatArray = np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)
    return quotient
