"""Quality of scored pairs, with intervals.

`evaluate_scores` returns the metrics of `distill.metrics.offline` with 95 % percentile bootstrap intervals (Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). Pairs are drawn with replacement. If clusters
(or query ids) are given, whole clusters are drawn, because pairs of one query, or of one document, are not independent
(Field and Welsh, "Bootstrapping clustered data", JRSS B 69, 2007).

A resample is not stored as rows. It is a column of counts, one for each pair: how often the pair was drawn
(`distill.metrics.weighted`).

Each metric is defined under a condition:

    spearman            scores and labels both vary
    roc_auc             labels have both classes; a label of at least 0.5 is positive, graded or not
    average_precision   as roc_auc
    ndcg_at_10          10 queries or more with 2 candidates or more and a label above 0
    ablation_mse        labels and unit-interval scores are given
    teacher_spearman    the teacher's scores are given, and both vary
    teacher_kendall     as teacher_spearman

A metric that is not defined is left out; no value is ever NaN. Resamples in which a metric is undefined (for example,
without a positive pair) are left out of its interval. A metric that is undefined in half of the resamples or more is
left out, too, because there is too little data to bound it.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.errors import BadInput
from distill.metrics.columns import FloatArray, IntArray, ScoredColumns, Statistic
from distill.metrics.names import METRIC_NAMES, NO_SHARE
from distill.metrics.offline import (
    METRIC_CLASSES,
    AblationMse,
    AveragePrecision,
    NdcgAt10,
    OfflineMetric,
    RocAuc,
    Spearman,
    TeacherKendall,
    TeacherSpearman,
)

__all__ = [
    "METRICS",
    "AblationMse",
    "AveragePrecision",
    "Bootstrap",
    "Estimate",
    "NdcgAt10",
    "RocAuc",
    "Spearman",
    "TeacherKendall",
    "TeacherSpearman",
    "defined_metrics",
    "estimate_shares",
    "evaluate_scores",
    "metric_value",
    "paired_difference",
    "paired_samples",
    "primary_metric",
    "retention",
    "sampled_statistics",
]

METRICS = tuple(METRIC_NAMES)
"""Keys that `evaluate_scores` may return, in the order of a report."""

_BLOCK = 64  # resamples at a time: 5,000 pairs x 64 are 2.5 MB, which fit into the CPU's cache


@cache
def _metrics() -> dict[str, OfflineMetric]:
    """Return the metrics by key. They are cached, because creating one takes longer than computing its value."""
    return {metric.key: metric() for metric in METRIC_CLASSES}


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, from `n` pairs (from `n` queries for NDCG). All finite."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float | int]:
        """Return the fields as plain numbers for JSON.

        >>> Estimate(0.5, 0.25, 0.75, 100).to_dict()
        {'value': 0.5, 'low': 0.25, 'high': 0.75, 'n': 100}
        """
        return asdict(self)


def _resamples(clusters: IntArray | None, n: int, n_bootstrap: int, seed: int) -> Iterator[FloatArray]:
    """Yield blocks of resamples as counts of each pair. Pairs of one cluster are drawn together. *Shape:* each (n, ≤ 64).

    If there is only one cluster, its pairs are drawn one by one.
    """
    units = np.arange(n) if clusters is None or clusters.max() == 0 else clusters
    size = int(units.max()) + 1
    rng = np.random.default_rng(seed)
    for start in range(0, n_bootstrap, _BLOCK):
        block = min(_BLOCK, n_bootstrap - start)
        drawn = rng.integers(0, size, size=(block, size)) * block + np.arange(block)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * block).reshape(size, block)
        yield counts.astype(np.float64)[units]


def sampled_statistics(
    columns: ScoredColumns, wanted: Mapping[str, Statistic], n_bootstrap: int, seed: int
) -> dict[str, FloatArray]:
    """Return the values of each statistic on the resamples that `evaluate_scores` draws. *Shape:* each (n_bootstrap,).

    :raises BadInput: if `n_bootstrap` is less than 1
    """
    if n_bootstrap < 1:
        raise BadInput(f"n_bootstrap: {n_bootstrap}; give 1 or more, 1000 for an interval worth quoting")
    blocks: dict[str, list[FloatArray]] = {key: [] for key in wanted}
    if wanted:
        for weights in _resamples(columns.clusters, len(columns.scores), n_bootstrap, seed):
            for key, statistic in wanted.items():
                blocks[key].append(statistic(weights))
    return {key: np.concatenate(values) for key, values in blocks.items()}


def _estimate(value: float, samples: FloatArray, n: int) -> Estimate | None:
    """Return a value with the percentile interval over the defined samples; None if half or more are undefined."""
    defined = samples[np.isfinite(samples)]
    if 2 * len(defined) <= len(samples):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high), n)


@dataclass(frozen=True)
class Bootstrap:
    """Settings of bootstrap intervals: the number of resamples and the seed."""

    n_samples: int = 1000
    seed: int = 0


def evaluate_scores(
    *,
    scores: npt.NDArray[Any],
    labels: npt.NDArray[Any] | None,
    query_ids: npt.NDArray[Any] | None = None,
    teacher_scores: npt.NDArray[Any] | None = None,
    unit_scores: npt.NDArray[Any] | None = None,
    clusters: npt.NDArray[Any] | None = None,
    n_bootstrap: int = 1000,
    seed: int,
) -> dict[str, Estimate]:
    """Return every metric that is defined on the data, with its 95 % interval.

    The module's docstring lists when a metric is defined.

    The same seed gives the same intervals. *Shape:* all columns (n_pairs,).

    :param scores: on any scale; a higher score is a better match
    :param labels: in [0, 1]
    :param query_ids: pairs with the same id share a query
    :param clusters: pairs with the same id are drawn together, see `distill.data.pairs.Pairs.clusters`; None draws whole
        queries
    :param teacher_scores: on any scale
    :param unit_scores: the scores mapped to [0, 1]
    :raises BadInput: if columns are empty, of different lengths, not finite or out of range
    """
    columns = ScoredColumns.checked(scores, labels, query_ids, teacher_scores, unit_scores, clusters)
    plans = {key: plan for key, metric in _metrics().items() if (plan := metric.plan(columns)) is not None}
    sampled = sampled_statistics(columns, {key: plan.statistic for key, plan in plans.items()}, n_bootstrap, seed)
    estimates = {key: _estimate(plan.value, sampled[key], plan.n) for key, plan in plans.items()}
    return {key: estimate for key, estimate in estimates.items() if estimate is not None}


def estimate_shares(
    columns: ScoredColumns, parts: Mapping[str, tuple[FloatArray, FloatArray]], bootstrap: Bootstrap
) -> dict[str, Estimate | None]:
    """Return Σ part / Σ whole over the pairs for each (part, whole), with its 95 % interval; None if it is not defined.

    For a mean, whole is 1 for each pair. `n` is the number of pairs whose whole is not 0. *Shape:* each (n_pairs,).
    """

    def statistic(part: FloatArray, whole: FloatArray) -> Statistic:
        def share(weights: FloatArray) -> FloatArray:
            total = whole @ weights
            value: FloatArray = np.where(total > 0, (part @ weights) / np.maximum(total, 1e-300), np.nan)
            return value

        return share

    statistics = {name: statistic(*part_and_whole) for name, part_and_whole in parts.items()}
    sampled = sampled_statistics(columns, statistics, bootstrap.n_samples, bootstrap.seed)
    estimates = dict[str, Estimate | None]()
    for name, (part, whole) in parts.items():
        total = float(whole.sum())
        estimates[name] = (
            _estimate(float(part.sum()) / total, sampled[name], int(np.count_nonzero(whole))) if total > 0 else None
        )
    return estimates


def paired_difference(
    metric: str, a: ScoredColumns, b: ScoredColumns, *, n_bootstrap: int = 1000, seed: int
) -> Estimate:
    """Return metric(a) − metric(b) on the same pairs, with the 95 % interval of the difference over the same resamples.

    The interval is much narrower than two separate intervals suggest, because both models score the same easy and hard
    pairs. With the same seed and query ids, the resamples are the same as in `evaluate_scores`.

    :param metric: one of `METRICS`
    :param a: columns as `ScoredColumns.checked` returns them; so is `b`
    :raises BadInput: if the metric is unknown or not defined for both models, or the columns have different lengths
    """
    return paired_samples(metric, a, b, n_bootstrap=n_bootstrap, seed=seed)[0]


def paired_samples(
    metric: str, a: ScoredColumns, b: ScoredColumns, *, n_bootstrap: int = 1000, seed: int
) -> tuple[Estimate, FloatArray]:
    """Return the result of `paired_difference`, and the difference on each resample, which is NaN if undefined.

    *Shape:* samples: (n_bootstrap,)
    """
    known = _known(metric)
    if len(a.scores) != len(b.scores):
        raise BadInput(f"scores of b: {len(b.scores)}, of a: {len(a.scores)}; score the same pairs")
    plan_a, plan_b = known.plan(a), known.plan(b)
    if plan_a is not None and plan_b is not None:
        sampled = sampled_statistics(a, {"a": plan_a.statistic, "b": plan_b.statistic}, n_bootstrap, seed)
        samples = sampled["a"] - sampled["b"]
        estimate = _estimate(plan_a.value - plan_b.value, samples, plan_a.n)
        if estimate is not None:
            return estimate, samples
    raise BadInput(
        f"{metric}: not defined for both models on this data (see distill.metrics.measures for what it needs)"
    )


def defined_metrics(columns: ScoredColumns) -> list[str]:
    """Return the names of the metrics that are defined on the data, without an interval and its resamples."""
    return [key for key, metric in _metrics().items() if metric.plan(columns) is not None]


def metric_value(metric: str, columns: ScoredColumns) -> float:
    """Return the value of one of `METRICS`, without an interval.

    :raises BadInput: if the metric is unknown or not defined on the data
    """
    plan = _known(metric).plan(columns)
    if plan is None:
        raise BadInput(f"{metric}: not defined on this data (see distill.metrics.measures for what it needs)")
    return plan.value


def _known(metric: str) -> OfflineMetric:
    if metric not in METRICS:
        raise BadInput(f"metric: {metric!r}; known are {', '.join(METRICS)}")
    return _metrics()[metric]


def retention(metrics: Mapping[str, Estimate], teacher_metrics: Mapping[str, Estimate]) -> dict[str, float]:
    """Return the share of the teacher's quality that a model keeps: value / teacher's value, for each common metric.

    Above 1 the model beats its teacher. Three kinds of metrics are left out: ablation_mse (lower is better, so a share
    says little), the agreement with the teacher (the teacher's own is 1), and metrics in which the teacher's value is
    not above 0. Chance has a ROC-AUC of 0.5, so the share of a ROC-AUC is about a half for a useless model: read it
    beside the value.

    >>> retention({"spearman": Estimate(0.6, 0.5, 0.7, 9)}, {"spearman": Estimate(0.8, 0.7, 0.9, 9)})
    {'spearman': 0.75}
    """
    shared = [key for key in METRICS if key in metrics and key in teacher_metrics]
    return {
        key: metrics[key].value / teacher_metrics[key].value
        for key in shared
        if key not in NO_SHARE and teacher_metrics[key].value > 0
    }


def primary_metric(metrics: Collection[str], labels: npt.NDArray[Any] | None) -> str:
    """Return the report's primary metric: ROC-AUC if there are at most two label values, else Spearman.

    If the metrics lack both, it is nDCG@10, else the ablation MSE.
    """
    graded = labels is not None and len(np.unique(labels)) > 2
    wanted = ("spearman", "roc_auc", "ndcg_at_10") if graded else ("roc_auc", "spearman", "ndcg_at_10")
    return next((name for name in wanted if name in metrics), "ablation_mse")
