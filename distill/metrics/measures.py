"""Quality of scored pairs, with intervals.

Each metric is an `evaluate.Metric` subclass, defined here because `evaluate.load` downloads scripts. Their values come
from SciPy and scikit-learn where these have them. `evaluate_scores` adds 95 % percentile bootstrap intervals (Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13): pairs are drawn with replacement, or whole queries
where a query has several candidates, since pairs of one query are not independent (Field and Welsh, "Bootstrapping
clustered data", JRSS B 69, 2007).

A resample is never built. It is a column of counts, how often each pair was drawn, and every statistic here has a form
that takes such weights and gives exactly what the plain statistic gives on the repeated rows. Sort orders and ties are
worked out once.

What is defined when:

    spearman            scores and labels both vary
    roc_auc             labels have both classes; a label of at least 0.5 is positive, graded or not
    average_precision   as roc_auc
    ndcg_at_10          10 queries or more with 2 candidates or more and a label above 0
    ablation_mse        labels and unit-interval scores are there
    teacher_spearman    teacher's scores are there, and both vary
    teacher_kendall     as teacher_spearman

A metric that is not defined is left out; no value is ever NaN. A resample in which a metric is undefined (say, one
without a positive pair) is dropped from its interval, and a metric that is undefined in more than half of them is left
out too, for there is too little data to bound it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from distill.errors import BadInput

__all__ = [
    "METRICS",
    "AblationMse",
    "AveragePrecision",
    "Estimate",
    "NdcgAt10",
    "RocAuc",
    "Spearman",
    "TeacherKendall",
    "TeacherSpearman",
    "evaluate_scores",
    "paired_difference",
    "paired_samples",
    "primary_metric",
    "retention",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
Statistic = Callable[[FloatArray], FloatArray]  # weights (pairs, resamples) -> values (resamples,), NaN: undefined

POSITIVE = 0.5  # labels at or above this are positive
CUT = 10  # ranks that NDCG looks at
MIN_QUERIES = 10  # fewer queries than this say nothing about a ranking
UNIT_SLACK = 0.01  # a cosine computed in bf16 may leave [-1, 1] by a rounding error
EXACT_TAU = 2000  # pairs up to which tau's n x n matrix is cheap (16 MB in float32)
BLOCK = 64  # resamples at a time: 5,000 pairs x 64 are 2.5 MB, so the work stays in cache


# --- Metrics -------------------------------------------------------------------------------------------------------


class _OfflineMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """A metric that works without a network, a cache folder or a lock file.

    `evaluate` keeps its columns in an Arrow file under HF_HOME, behind a lock, unless told to keep them in memory, and
    makes the folder even then; so this class keeps them in memory and makes no folder. Any number of processes can
    compute at once, also where HOME is read-only.

    `compute` gives `{key: value}`, where None means undefined on this data.
    """

    key: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str] = ""
    references_are: ClassVar[str] = "labels in [0, 1]"
    extra: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config_name: str | None = None) -> None:
        super().__init__(config_name=config_name, keep_in_memory=True)

    def _build_data_dir(self) -> str:
        return ""  # nothing is written, so there is nothing to make

    def _info(self) -> evaluate.MetricInfo:
        columns = {"predictions": "float64", "references": "float64", **self.extra}
        return evaluate.MetricInfo(
            description=self.summary,
            citation=self.source,
            inputs_description=f"predictions: scores; references: {self.references_are}.",
            # No format="numpy": datasets would hand float64 columns over as float32.
            features=datasets.Features({name: datasets.Value(kind) for name, kind in columns.items()}),
        )

    def _compute(self, **columns: Any) -> dict[str, float | None]:
        """Hand the columns over as arrays; the answer is `{key: value}`."""
        value = self._value(**{name: np.asarray(column) for name, column in columns.items()})
        return {self.key: None if value is None else float(value)}

    def _value(self, predictions: FloatArray, references: FloatArray) -> float | None:
        raise NotImplementedError


class Spearman(_OfflineMetric):
    """Spearman's rank correlation with the labels, ties at their mean rank. In [-1, 1]; None if either is constant."""

    key = "spearman"
    summary = "Spearman's rank correlation of scores and labels."
    source = "Spearman, The proof and measurement of association between two things, 1904."

    def _value(self, predictions: FloatArray, references: FloatArray) -> float | None:
        if _constant(predictions) or _constant(references):
            return None
        return float(stats.spearmanr(predictions, references).statistic)


class RocAuc(_OfflineMetric):
    """Chance that a positive pair scores above a negative one, ties counting half. Positive: label ≥ 0.5.

    In [0, 1], 0.5 by chance; None unless both classes are there.
    """

    key = "roc_auc"
    summary = "Area under the ROC curve; labels of 0.5 and above are positive."
    source = "Hanley and McNeil, Radiology 143, 1982."

    def _value(self, predictions: FloatArray, references: FloatArray) -> float | None:
        positive = references >= POSITIVE
        return None if _constant(positive) else float(roc_auc_score(positive, predictions))


class AveragePrecision(_OfflineMetric):
    """Precision averaged over the recall steps, without interpolation. Positive: label ≥ 0.5.

    In (0, 1], the share of positives by chance; None unless both classes are there.
    """

    key = "average_precision"
    summary = "Average precision; labels of 0.5 and above are positive."
    source = "As defined by scikit-learn's average_precision_score."

    def _value(self, predictions: FloatArray, references: FloatArray) -> float | None:
        positive = references >= POSITIVE
        return None if _constant(positive) else float(average_precision_score(positive, predictions))


class NdcgAt10(_OfflineMetric):
    """Mean over queries of the discounted gain of the top 10 over that of the best order. In [0, 1].

    The gain is the label itself, not 2^label - 1: on labels in [0, 1] the two are the same for binary labels and close
    for graded ones, and the linear form is scikit-learn's. The discount is 1/log2(rank + 1). Candidates with equal
    scores share their mean gain, the expectation over all orders among them (McSherry and Najork, "Computing
    information retrieval performance measures efficiently in the presence of tied scores", ECIR 2008).

    Takes `query_ids` beside predictions and references. Only queries with 2 candidates or more and a label above 0
    count; None if there is none.
    """

    key = "ndcg_at_10"
    summary = "Normalised discounted cumulative gain of the top 10, averaged over queries; linear gain."
    source = "Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 20, 2002."
    extra: ClassVar[Mapping[str, str]] = {"query_ids": "string"}

    def _compute(self, **columns: Any) -> dict[str, float | None]:
        """Mean of `_ndcg_by_query`."""
        scores, labels = np.asarray(columns["predictions"]), np.asarray(columns["references"])
        _, values = _ndcg_by_query(scores, labels, _codes(columns["query_ids"]))
        return {self.key: float(values.mean()) if len(values) else None}


class AblationMse(_OfflineMetric):
    """Mean squared distance of a unit-interval score from its label: the published ablation's metric. Lower is better.

    The score is (cosine + 1) / 2 for a bi-encoder and the probability for a cross-encoder. In [0, 1].
    """

    key = "ablation_mse"
    summary = "Mean of (unit-interval score - label) squared."

    def _value(self, predictions: FloatArray, references: FloatArray) -> float | None:
        return float(np.mean((predictions - references) ** 2))


class TeacherSpearman(Spearman):
    """Spearman's rank correlation with the teacher's scores, on any scale. In [-1, 1]; None if either is constant."""

    key = "teacher_spearman"
    summary = "Spearman's rank correlation of a model's scores and its teacher's."
    references_are = "the teacher's scores"


class TeacherKendall(_OfflineMetric):
    """Kendall's tau-b with the teacher's scores, on any scale. In [-1, 1]; None if either is constant."""

    key = "teacher_kendall"
    summary = "Kendall's tau-b of a model's scores and its teacher's."
    source = "Kendall, The treatment of ties in ranking problems, Biometrika 33, 1945."
    references_are = "the teacher's scores"

    def _value(self, predictions: FloatArray, references: FloatArray) -> float | None:
        if _constant(predictions) or _constant(references):
            return None
        return float(stats.kendalltau(predictions, references, variant="b").statistic)


def _constant(values: npt.NDArray[Any]) -> bool:
    return bool(np.all(values == values[:1]))


def _codes(query_ids: Any) -> IntArray:
    """Give each distinct id a number from 0, comparing them as text so that 7 and "7" are one query."""
    return np.unique(np.asarray([str(query) for query in query_ids]), return_inverse=True)[1]


# --- NDCG by query -------------------------------------------------------------------------------------------------


def _ndcg_by_query(scores: FloatArray, labels: FloatArray, queries: IntArray) -> tuple[IntArray, FloatArray]:
    """Find the queries that count, by number from 0 as in `queries` (one entry a pair), and the NDCG@10 of each."""
    ideal = _dcg(labels, labels, queries)
    keep = np.flatnonzero((np.bincount(queries) >= 2) & (ideal > 0))
    return keep, _dcg(scores, labels, queries)[keep] / ideal[keep]


def _dcg(scores: FloatArray, gains: FloatArray, queries: IntArray) -> FloatArray:
    """Discounted gain of the top 10 of each query, ties sharing their mean gain; shape (queries,)."""
    order = np.lexsort((-scores, queries))
    sizes = np.bincount(queries)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    discount = np.where(rank < CUT, 1 / np.log2(rank + 2), 0.0)
    new = (np.diff(scores[order], prepend=np.nan) != 0) | (rank == 0)
    tie = np.cumsum(new) - 1
    shared = np.bincount(tie, gains[order]) / np.bincount(tie)
    return np.bincount(queries[order], shared[tie] * discount).astype(np.float64)


# --- Statistics of weighted pairs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ranking:
    """Ascending order of a column and its ties, worked out once for all resamples."""

    order: IntArray  # (n,) pairs from the lowest value to the highest
    ends: IntArray  # (groups,) position in `order` of the last pair of each group of equal values
    codes: IntArray  # (n,) group of each pair

    @classmethod
    def of(cls, values: FloatArray) -> "_Ranking":
        _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
        return cls(np.argsort(codes, kind="stable"), np.cumsum(counts) - 1, codes)

    def cumulative(self, weights: FloatArray) -> FloatArray:
        """Weight at or below each group: (n, b) -> (groups, b)."""
        return np.cumsum(weights[self.order], axis=0)[self.ends]

    def groups(self, weights: FloatArray) -> FloatArray:
        """Weight of each group: (n, b) -> (groups, b)."""
        return np.diff(self.cumulative(weights), axis=0, prepend=0.0)

    def centred_ranks(self, weights: FloatArray) -> FloatArray:
        """Mean rank of each pair among the repeated rows, less the mean of all ranks: (n, b) -> (n, b).

        A group that fills the ranks s + 1 to e has the mean rank (s + e + 1)/2, and all ranks have (N + 1)/2. Both are
        halves of whole numbers, so nothing is rounded and a constant column has a spread of exactly 0.
        """
        upto = self.cumulative(weights)
        twice = upto - upto[-1]
        twice[1:] += upto[:-1]
        ranks: FloatArray = (twice / 2)[self.codes]
        return ranks


def _spearman(left: FloatArray, right: FloatArray) -> Statistic:
    """Pearson's correlation of mean ranks."""
    one, two = _Ranking.of(left), _Ranking.of(right)

    def statistic(weights: FloatArray) -> FloatArray:
        a, b = one.centred_ranks(weights), two.centred_ranks(weights)
        weighted_a, weighted_b = weights * a, weights * b
        spread = np.sqrt(_columns_dot(weighted_a, a)) * np.sqrt(_columns_dot(weighted_b, b))
        return _ratio(_columns_dot(weighted_a, b), spread)

    return statistic


def _roc_auc(scores: FloatArray, positive: npt.NDArray[np.bool_]) -> Statistic:
    """Area from the rank sum (Mann-Whitney): centred ranks of the P positives add up to area·PN - PN/2."""
    ranking = _Ranking.of(scores)

    def statistic(weights: FloatArray) -> FloatArray:
        centred = ranking.centred_ranks(weights)
        positives = weights[positive].sum(axis=0)
        rank_sum = _columns_dot(weights[positive], centred[positive])
        return 0.5 + _ratio(rank_sum, positives * (weights.sum(axis=0) - positives))

    return statistic


def _average_precision(scores: FloatArray, positive: npt.NDArray[np.bool_]) -> Statistic:
    """Sum over groups of equal scores, from the top, of recall gained times precision there."""
    ranking = _Ranking.of(-scores)

    def statistic(weights: FloatArray) -> FloatArray:
        found = ranking.cumulative(weights * positive[:, None])
        # Where nothing was drawn yet nothing was found either, so any divisor but 0 does.
        precision = found / np.maximum(ranking.cumulative(weights), 1)
        gained = np.diff(found, axis=0, prepend=0.0)
        average = _ratio(_columns_dot(gained, precision), found[-1])
        # sklearn gives 1 where all drawn are positive; undefined here, as for the whole data.
        average[found[-1] == weights.sum(axis=0)] = np.nan
        return average

    return statistic


def _mean(values: FloatArray, rows: IntArray) -> Statistic:
    """Weighted mean of `values`; the weight of the i-th is that of pair `rows[i]`."""

    def statistic(weights: FloatArray) -> FloatArray:
        return _ratio(values @ weights[rows], weights[rows].sum(axis=0))

    return statistic


def _kendall(left: FloatArray, right: FloatArray) -> Statistic:
    """Tau-b: concordant less discordant, over the geometric mean of the untied."""
    one, two = _Ranking.of(left), _Ranking.of(right)
    score = _exact_concordance(left, right) if len(left) <= EXACT_TAU else _linear_concordance(left, right)

    def statistic(weights: FloatArray) -> FloatArray:
        untied = np.sqrt(_untied(one, weights)) * np.sqrt(_untied(two, weights))
        return np.clip(_ratio(score(weights), untied), -1, 1)

    return statistic


def _exact_concordance(left: FloatArray, right: FloatArray) -> Statistic:
    """Concordant less discordant, as the quadratic form wᵀSw/2; S holds -1, 0 or 1 for each two pairs."""
    signs = _signs(left, right, np.arange(len(left)))

    def score(weights: FloatArray) -> FloatArray:
        # float32 is exact: every partial sum is a whole number far below 2^24.
        beside = signs @ weights.astype(np.float32)
        return _columns_dot(weights, beside.astype(np.float64)) / 2

    return score


def _linear_concordance(left: FloatArray, right: FloatArray) -> Statistic:
    """First-order form of the same around the whole data, for data too large for the matrix.

    wᵀSw/2 at w = 1 + d is score + hᵀd + dᵀSd/2 with h = S1. The last term is of the order 1/n of the rest (the Hájek
    projection of a U-statistic; van der Vaart, "Asymptotic Statistics", 1998, chapter 12) and is dropped. A pair's h is
    taken against a random 2,000 others, the same ones every time.
    """
    n = len(left)
    others = np.random.default_rng(0).choice(n, EXACT_TAU, replace=False)
    blocks = np.array_split(np.arange(n), max(1, n // 1000))
    lean = np.concatenate([_signs(left, right, others, rows).sum(axis=1, dtype=np.float64) for rows in blocks])
    lean *= n / EXACT_TAU
    unit = np.ones((n, 1))
    untied = np.sqrt(_untied(_Ranking.of(left), unit) * _untied(_Ranking.of(right), unit))
    whole = float(stats.kendalltau(left, right, variant="b").statistic * untied[0])

    def score(weights: FloatArray) -> FloatArray:
        change: FloatArray = lean @ (weights - 1)
        return whole + change

    return score


def _signs(left: FloatArray, right: FloatArray, others: IntArray, rows: IntArray | None = None) -> Any:
    """S of shape (rows, others) in float32: 1 where two pairs stand in the same order in both columns, -1 where not."""
    rows = np.arange(len(left)) if rows is None else rows
    one = np.sign(left[rows, None] - left[others]).astype(np.float32)
    one *= np.sign(right[rows, None] - right[others])
    return one


def _untied(ranking: _Ranking, weights: FloatArray) -> FloatArray:
    """Couples of rows whose values differ: (N² - Σ t²)/2 over groups of weight t."""
    total = weights.sum(axis=0)
    groups = ranking.groups(weights)
    untied: FloatArray = (total * total - _columns_dot(groups, groups)) / 2
    return untied


def _columns_dot(left: FloatArray, right: FloatArray) -> FloatArray:
    """Dot product of each column of two (n, b) arrays: (b,)."""
    product: FloatArray = np.einsum("nb,nb->b", left, right)
    return product


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """Quotient, NaN where the divisor is 0."""
    quotient: FloatArray = np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)
    return quotient


# --- Input ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pairs:
    """Checked columns, one entry a pair."""

    scores: FloatArray
    labels: FloatArray | None
    queries: IntArray | None  # numbered from 0
    teacher: FloatArray | None
    unit: FloatArray | None

    @classmethod
    def checked(cls, scores: Any, labels: Any, query_ids: Any, teacher: Any, unit: Any) -> "_Pairs":
        """Raise `BadInput` on a column of another length, one that is not finite, or one out of its range."""
        n = len(scores)
        if n == 0:
            raise BadInput("scores: there are no pairs to evaluate")
        if query_ids is not None and len(query_ids) != n:
            raise BadInput(f"query_ids: {len(query_ids)} entries for {n} scores; give one id a pair")
        return cls(
            scores=_column("scores", scores, n),
            labels=None if labels is None else _column("labels", labels, n, slack=0.0),
            queries=None if query_ids is None else _codes(query_ids),
            teacher=None if teacher is None else _column("teacher_scores", teacher, n),
            unit=None if unit is None else _column("unit_scores", unit, n, slack=UNIT_SLACK),
        )


def _column(name: str, values: Any, n: int, slack: float | None = None) -> FloatArray:
    """Give a float64 column of n finite values, within [0, 1] by `slack` where that is given."""
    column = np.asarray(values, dtype=np.float64)
    if column.shape != (n,):
        raise BadInput(f"{name}: shape {column.shape} where {(n,)} is expected; give one number a pair")
    broken = np.flatnonzero(~np.isfinite(column))
    if len(broken):
        first = f"{column[broken[0]]} at position {broken[0]}"
        raise BadInput(
            f"{name}: {len(broken)} of {n} values are not finite ({first}); a model that overflows does this"
        )
    if slack is not None and (column.min() < -slack or column.max() > 1 + slack):
        raise BadInput(f"{name}: values from {column.min():g} to {column.max():g}; map them to [0, 1] first")
    return column


# --- Plans: what to compute on given pairs -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """A metric that is defined on the data: its value, how many units it averages, and its weighted form."""

    value: float
    n: int
    statistic: Statistic


def _planned(metric: _OfflineMetric, n: int, make: Callable[[], Statistic], **columns: Any) -> _Plan | None:
    """Value of a metric, or None where it says that it is undefined.

    Not through `compute`: that writes an Arrow table and hashes it first, which takes more than the metric (cascades ask
    hundreds of times), and these columns are float64 arrays already.
    """
    value = metric._compute(**columns)[metric.key]
    return None if value is None else _Plan(value, n, make())


def _plan_spearman(pairs: _Pairs) -> _Plan | None:
    scores, labels = pairs.scores, pairs.labels
    if labels is None:
        return None
    return _planned(Spearman(), len(scores), partial(_spearman, scores, labels), predictions=scores, references=labels)


def _plan_roc_auc(pairs: _Pairs) -> _Plan | None:
    scores, labels = pairs.scores, pairs.labels
    if labels is None:
        return None
    make = partial(_roc_auc, scores, labels >= POSITIVE)
    return _planned(RocAuc(), len(scores), make, predictions=scores, references=labels)


def _plan_average_precision(pairs: _Pairs) -> _Plan | None:
    scores, labels = pairs.scores, pairs.labels
    if labels is None:
        return None
    make = partial(_average_precision, scores, labels >= POSITIVE)
    return _planned(AveragePrecision(), len(scores), make, predictions=scores, references=labels)


def _plan_ndcg(pairs: _Pairs) -> _Plan | None:
    scores, labels, queries = pairs.scores, pairs.labels, pairs.queries
    if labels is None or queries is None:
        return None
    keep, values = _ndcg_by_query(scores, labels, queries)
    if len(keep) < MIN_QUERIES:
        return None
    # Queries are drawn whole, so any pair of a query carries its weight.
    rows = np.unique(queries, return_index=True)[1][keep]
    columns = {"predictions": scores, "references": labels, "query_ids": queries.astype(str)}
    return _planned(NdcgAt10(), len(keep), partial(_mean, values, rows), **columns)


def _plan_ablation_mse(pairs: _Pairs) -> _Plan | None:
    unit, labels = pairs.unit, pairs.labels
    if labels is None or unit is None:
        return None
    make = partial(_mean, (unit - labels) ** 2, np.arange(len(unit)))
    return _planned(AblationMse(), len(unit), make, predictions=unit, references=labels)


def _plan_teacher_spearman(pairs: _Pairs) -> _Plan | None:
    scores, teacher = pairs.scores, pairs.teacher
    if teacher is None:
        return None
    make = partial(_spearman, scores, teacher)
    return _planned(TeacherSpearman(), len(scores), make, predictions=scores, references=teacher)


def _plan_teacher_kendall(pairs: _Pairs) -> _Plan | None:
    scores, teacher = pairs.scores, pairs.teacher
    if teacher is None:
        return None
    make = partial(_kendall, scores, teacher)
    return _planned(TeacherKendall(), len(scores), make, predictions=scores, references=teacher)


_PLANS: Mapping[str, Callable[[_Pairs], _Plan | None]] = {
    "spearman": _plan_spearman,
    "roc_auc": _plan_roc_auc,
    "average_precision": _plan_average_precision,
    "ndcg_at_10": _plan_ndcg,
    "ablation_mse": _plan_ablation_mse,
    "teacher_spearman": _plan_teacher_spearman,
    "teacher_kendall": _plan_teacher_kendall,
}

METRICS = tuple(_PLANS)
"""Keys that `evaluate_scores` may give, in the order of a report."""


# --- Bootstrap -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, from `n` pairs (from `n` queries for NDCG). All finite."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float | int]:
        """Plain numbers for JSON.

        >>> Estimate(0.5, 0.25, 0.75, 100).to_dict()
        {'value': 0.5, 'low': 0.25, 'high': 0.75, 'n': 100}
        """
        return asdict(self)


def _resamples(queries: IntArray | None, n: int, n_bootstrap: int, seed: int) -> Iterator[FloatArray]:
    """Draw blocks of resamples: counts of each pair, shape (n, ≤ 64). Pairs of one query are drawn together.

    With a single query there is nothing to draw but its pairs, so those are drawn.
    """
    units = np.arange(n) if queries is None or queries.max() == 0 else queries
    size = int(units.max()) + 1
    rng = np.random.default_rng(seed)
    for start in range(0, n_bootstrap, BLOCK):
        block = min(BLOCK, n_bootstrap - start)
        drawn = rng.integers(0, size, size=(block, size)) * block + np.arange(block)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * block).reshape(size, block)
        yield counts.astype(np.float64)[units]


def _sampled(pairs: _Pairs, wanted: Mapping[str, Statistic], n_bootstrap: int, seed: int) -> dict[str, FloatArray]:
    """Values of each statistic on the same resamples, shape (n_bootstrap,)."""
    if n_bootstrap < 1:
        raise BadInput(f"n_bootstrap: {n_bootstrap}; give 1 or more, 1000 for an interval worth quoting")
    blocks: dict[str, list[FloatArray]] = {key: [] for key in wanted}
    if wanted:
        for weights in _resamples(pairs.queries, len(pairs.scores), n_bootstrap, seed):
            for key, statistic in wanted.items():
                blocks[key].append(statistic(weights))
    return {key: np.concatenate(values) for key, values in blocks.items()}


def _estimate(value: float, samples: FloatArray, n: int) -> Estimate | None:
    """Percentile interval over the defined samples, or None where half or more are not."""
    defined = samples[np.isfinite(samples)]
    if 2 * len(defined) <= len(samples):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high), n)


def evaluate_scores(
    *,
    scores: npt.NDArray[Any],
    labels: npt.NDArray[Any] | None,
    query_ids: npt.NDArray[Any] | None = None,
    teacher_scores: npt.NDArray[Any] | None = None,
    unit_scores: npt.NDArray[Any] | None = None,
    n_bootstrap: int = 1000,
    seed: int,
) -> dict[str, Estimate]:
    """Every metric that the data defines, with its 95 % interval; see the module for which and when.

    All columns have shape (pairs,). `scores` and `teacher_scores` are on any scale, higher meaning a better match;
    `labels` are in [0, 1]; `unit_scores` are the scores mapped to [0, 1]. `query_ids` say which pairs share a query:
    queries are then drawn whole. The same seed gives the same intervals.

    `BadInput` is raised for columns that are empty, of differing lengths, not finite or out of range.
    """
    pairs = _Pairs.checked(scores, labels, query_ids, teacher_scores, unit_scores)
    plans = {key: plan for key, make in _PLANS.items() if (plan := make(pairs)) is not None}
    sampled = _sampled(pairs, {key: plan.statistic for key, plan in plans.items()}, n_bootstrap, seed)
    estimates = {key: _estimate(plan.value, sampled[key], plan.n) for key, plan in plans.items()}
    return {key: estimate for key, estimate in estimates.items() if estimate is not None}


def paired_difference(
    metric: str,
    *,
    scores_a: npt.NDArray[Any],
    scores_b: npt.NDArray[Any],
    labels: npt.NDArray[Any] | None,
    query_ids: npt.NDArray[Any] | None = None,
    teacher_scores: npt.NDArray[Any] | None = None,
    unit_scores_a: npt.NDArray[Any] | None = None,
    unit_scores_b: npt.NDArray[Any] | None = None,
    n_bootstrap: int = 1000,
    seed: int,
) -> Estimate:
    """metric(a) - metric(b) on the same pairs, with the 95 % interval of the difference over the same resamples.

    Much narrower than two separate intervals suggest, since both models meet the same easy and hard pairs. `metric` is
    one of `METRICS`; the columns are those of `evaluate_scores`. With the same seed and query ids, the resamples are
    those of `evaluate_scores` too.

    `BadInput` is raised for an unknown metric, for columns that do not fit and where the metric is not defined.
    """
    estimate, _ = paired_samples(
        metric, scores_a=scores_a, scores_b=scores_b, labels=labels, query_ids=query_ids, teacher_scores=teacher_scores,
        unit_scores_a=unit_scores_a, unit_scores_b=unit_scores_b, n_bootstrap=n_bootstrap, seed=seed,
    )  # fmt: skip
    return estimate


def paired_samples(
    metric: str,
    *,
    scores_a: npt.NDArray[Any],
    scores_b: npt.NDArray[Any],
    labels: npt.NDArray[Any] | None,
    query_ids: npt.NDArray[Any] | None = None,
    teacher_scores: npt.NDArray[Any] | None = None,
    unit_scores_a: npt.NDArray[Any] | None = None,
    unit_scores_b: npt.NDArray[Any] | None = None,
    n_bootstrap: int = 1000,
    seed: int,
) -> tuple[Estimate, FloatArray]:
    """Return what `paired_difference` does, and the difference on each resample, NaN where it is undefined.

    *Shape:* samples: (n_bootstrap,)
    """
    if metric not in _PLANS:
        raise BadInput(f"metric: {metric!r}; known are {', '.join(METRICS)}")
    a = _Pairs.checked(scores_a, labels, query_ids, teacher_scores, unit_scores_a)
    b = _Pairs.checked(scores_b, labels, query_ids, teacher_scores, unit_scores_b)
    if len(a.scores) != len(b.scores):
        raise BadInput(f"scores_b: {len(b.scores)} scores where scores_a has {len(a.scores)}; score the same pairs")
    one, two = _PLANS[metric](a), _PLANS[metric](b)
    if one is not None and two is not None:
        sampled = _sampled(a, {"a": one.statistic, "b": two.statistic}, n_bootstrap, seed)
        samples = sampled["a"] - sampled["b"]
        estimate = _estimate(one.value - two.value, samples, one.n)
        if estimate is not None:
            return estimate, samples
    raise BadInput(
        f"{metric}: not defined for both models on this data (see distill.metrics.measures for what it needs)"
    )


def retention(metrics: Mapping[str, Estimate], teacher_metrics: Mapping[str, Estimate]) -> dict[str, float]:
    """Share of the teacher's quality that a model keeps: value / teacher's value, for each metric that both have.

    Above 1 the model beats its teacher. Left out are ablation_mse (lower is better, so a share says little), the
    agreement with the teacher (the teacher's is 1), and a teacher whose value is not above 0. A ROC-AUC of chance is
    0.5, so its share has a floor of about a half: read it beside the value.

    >>> retention({"spearman": Estimate(0.6, 0.5, 0.7, 9)}, {"spearman": Estimate(0.8, 0.7, 0.9, 9)})
    {'spearman': 0.75}
    """
    shared = [key for key in METRICS if key in metrics and key in teacher_metrics]
    skipped = {"ablation_mse", "teacher_spearman", "teacher_kendall"}
    return {
        key: metrics[key].value / teacher_metrics[key].value
        for key in shared
        if key not in skipped and teacher_metrics[key].value > 0
    }


def primary_metric(metrics: Mapping[str, Estimate], labels: npt.NDArray[Any] | None) -> str:
    """Return what the report leads with: ROC-AUC where labels are two values, else Spearman."""
    graded = labels is not None and len(np.unique(labels)) > 2
    wanted = ("spearman", "roc_auc", "ndcg_at_10") if graded else ("roc_auc", "spearman", "ndcg_at_10")
    return next((name for name in wanted if name in metrics), "ablation_mse")
