"""Quality of scored pairs, with intervals.

`evaluate_scores` gives the metrics of `distill.metrics.offline` with 95 % percentile bootstrap intervals (Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13): pairs are drawn with replacement, or whole queries
where a query has several candidates, since pairs of one query are not independent (Field and Welsh, "Bootstrapping
clustered data", JRSS B 69, 2007).

A resample is never built; it is a column of counts, how often each pair was drawn (`distill.metrics.weighted`).

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

from collections.abc import Iterator, Mapping
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
"""Keys that `evaluate_scores` may give, in the order of a report."""

_BLOCK = 64  # resamples at a time: 5,000 pairs x 64 are 2.5 MB, so the work stays in cache


@cache
def _metrics() -> dict[str, OfflineMetric]:
    """Return the metrics by key; making one takes longer than its value."""
    return {metric.key: metric() for metric in METRIC_CLASSES}


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
    for start in range(0, n_bootstrap, _BLOCK):
        block = min(_BLOCK, n_bootstrap - start)
        drawn = rng.integers(0, size, size=(block, size)) * block + np.arange(block)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * block).reshape(size, block)
        yield counts.astype(np.float64)[units]


def sampled_statistics(
    columns: ScoredColumns, wanted: Mapping[str, Statistic], n_bootstrap: int, seed: int
) -> dict[str, FloatArray]:
    """Return values of each statistic on the same resamples, those of `evaluate_scores`. *Shape:* (n_bootstrap,)."""
    if n_bootstrap < 1:
        raise BadInput(f"n_bootstrap: {n_bootstrap}; give 1 or more, 1000 for an interval worth quoting")
    blocks: dict[str, list[FloatArray]] = {key: [] for key in wanted}
    if wanted:
        for weights in _resamples(columns.queries, len(columns.scores), n_bootstrap, seed):
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


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn: the number of resamples, and the seed that draws them."""

    n_samples: int = 1000
    seed: int = 0


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
    columns = ScoredColumns.checked(scores, labels, query_ids, teacher_scores, unit_scores)
    plans = {key: plan for key, metric in _metrics().items() if (plan := metric.plan(columns)) is not None}
    sampled = sampled_statistics(columns, {key: plan.statistic for key, plan in plans.items()}, n_bootstrap, seed)
    estimates = {key: _estimate(plan.value, sampled[key], plan.n) for key, plan in plans.items()}
    return {key: estimate for key, estimate in estimates.items() if estimate is not None}


def estimate_shares(
    columns: ScoredColumns, parts: Mapping[str, tuple[FloatArray, FloatArray]], bootstrap: Bootstrap
) -> dict[str, Estimate | None]:
    """Return Σ part / Σ whole over pairs for each (part, whole), with its 95 % interval; None where it is not defined.

    A mean is a share whose whole is 1 for each pair. `n` counts the pairs whose whole is not 0. *Shape:* each (n_pairs,).
    """

    def statistic(part: FloatArray, whole: FloatArray) -> Statistic:
        def share(weights: FloatArray) -> FloatArray:
            total = whole @ weights
            value: FloatArray = np.where(total > 0, (part @ weights) / np.maximum(total, 1e-300), np.nan)
            return value

        return share

    statistics = {name: statistic(*one) for name, one in parts.items()}
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
    """metric(a) - metric(b) on the same pairs, with the 95 % interval of the difference over the same resamples.

    Much narrower than two separate intervals suggest, since both models meet the same easy and hard pairs. `metric` is
    one of `METRICS`; `ScoredColumns.checked` takes the columns of `evaluate_scores`. With the same seed and query ids, the
    resamples are those of `evaluate_scores` too.

    `BadInput` is raised for an unknown metric, for columns that do not fit and where the metric is not defined.
    """
    return paired_samples(metric, a, b, n_bootstrap=n_bootstrap, seed=seed)[0]


def paired_samples(
    metric: str, a: ScoredColumns, b: ScoredColumns, *, n_bootstrap: int = 1000, seed: int
) -> tuple[Estimate, FloatArray]:
    """Return what `paired_difference` does, and the difference on each resample, NaN where it is undefined.

    *Shape:* samples: (n_bootstrap,)
    """
    known = _known(metric)
    if len(a.scores) != len(b.scores):
        raise BadInput(f"scores of b: {len(b.scores)}, of a: {len(a.scores)}; score the same pairs")
    one, two = known.plan(a), known.plan(b)
    if one is not None and two is not None:
        sampled = sampled_statistics(a, {"a": one.statistic, "b": two.statistic}, n_bootstrap, seed)
        samples = sampled["a"] - sampled["b"]
        estimate = _estimate(one.value - two.value, samples, one.n)
        if estimate is not None:
            return estimate, samples
    raise BadInput(
        f"{metric}: not defined for both models on this data (see distill.metrics.measures for what it needs)"
    )


def metric_value(metric: str, columns: ScoredColumns) -> float:
    """Return the value of one of `METRICS` alone, where `evaluate_scores` gives all of them with their intervals.

    :raises BadInput: for an unknown metric, and where the metric is not defined
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
    """Share of the teacher's quality that a model keeps: value / teacher's value, for each metric that both have.

    Above 1 the model beats its teacher. Left out are ablation_mse (lower is better, so a share says little), the
    agreement with the teacher (the teacher's is 1), and a teacher whose value is not above 0. A ROC-AUC of chance is
    0.5, so its share has a floor of about a half: read it beside the value.

    >>> retention({"spearman": Estimate(0.6, 0.5, 0.7, 9)}, {"spearman": Estimate(0.8, 0.7, 0.9, 9)})
    {'spearman': 0.75}
    """
    shared = [key for key in METRICS if key in metrics and key in teacher_metrics]
    return {
        key: metrics[key].value / teacher_metrics[key].value
        for key in shared
        if key not in NO_SHARE and teacher_metrics[key].value > 0
    }


def primary_metric(metrics: Mapping[str, Estimate], labels: npt.NDArray[Any] | None) -> str:
    """Return what the report leads with: ROC-AUC where labels are two values, else Spearman."""
    graded = labels is not None and len(np.unique(labels)) > 2
    wanted = ("spearman", "roc_auc", "ndcg_at_10") if graded else ("roc_auc", "spearman", "ndcg_at_10")
    return next((name for name in wanted if name in metrics), "ablation_mse")
