"""The metrics: each is an `evaluate.Metric` that works without a network, and has a form for weighted pairs.

They are defined here because `evaluate.load` downloads scripts. The values come from SciPy and scikit-learn if these
have the metric. The values on resamples, and ROC-AUC, come from `distill.metrics.weighted`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.metrics import average_precision_score

from distill.metrics import weighted
from distill.metrics.columns import POSITIVE, FloatArray, ScoredColumns, Statistic, query_numbers
from distill.metrics.ndcg import ndcg_by_query

__all__ = [
    "METRIC_CLASSES",
    "AblationMse",
    "AveragePrecision",
    "MetricPlan",
    "NdcgAt10",
    "OfflineMetric",
    "RocAuc",
    "Spearman",
    "TeacherKendall",
    "TeacherSpearman",
]

_MIN_QUERIES = 10  # with fewer queries, a mean nDCG says too little


@dataclass(frozen=True)
class MetricPlan:
    """A metric that is defined on the data: its value, its number of pairs or queries, and its weighted form."""

    value: float
    n: int
    statistic: Statistic


class OfflineMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """A metric that works without a network, a cache folder or a lock file.

    By default `evaluate` keeps its columns in an Arrow file under HF_HOME, with a lock; with `keep_in_memory` it still
    makes the folder. This class keeps the columns in memory and makes no folder, so that any number of processes can
    compute at the same time, even if HOME is read-only.

    `compute` returns `{key: value}`; None means that the metric is undefined on this data.
    """

    key: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str] = ""
    compares: ClassVar[tuple[str, str]] = ("scores", "labels")  # the columns that are predictions and references
    extra: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config_name: str | None = None) -> None:
        super().__init__(config_name=config_name, keep_in_memory=True)

    def _build_data_dir(self) -> str:
        return ""  # nothing is written, so no folder is needed

    def _info(self) -> evaluate.MetricInfo:
        columns = {"predictions": "float64", "references": "float64", **self.extra}
        are = "labels in [0, 1]" if self.compares[1] == "labels" else "the teacher's scores"
        return evaluate.MetricInfo(
            description=self.summary,
            citation=self.source,
            inputs_description=f"predictions: scores; references: {are}.",
            # no format="numpy": datasets would convert float64 columns to float32
            features=datasets.Features({name: datasets.Value(kind) for name, kind in columns.items()}),
        )

    def _compute(self, **columns: Any) -> dict[str, float | None]:
        """Compute the metric from columns, and return `{key: value}`."""
        value = self._value(**{name: np.asarray(column) for name, column in columns.items()})
        return {self.key: None if value is None else float(value)}

    def _value(self, predictions: FloatArray, references: FloatArray) -> float | None:
        raise NotImplementedError

    def _weighted(self, predictions: FloatArray, references: FloatArray) -> Statistic:
        raise NotImplementedError

    def plan(self, columns: ScoredColumns) -> MetricPlan | None:
        """Return the value and the weighted form; None if the metric is undefined.

        This does not call `compute`, which first writes an Arrow table and hashes it. That takes longer than the
        metric, cascades compute a metric hundreds of times, and the columns are float64 arrays already.
        """
        predictions, references = (getattr(columns, name) for name in self.compares)
        if predictions is None or references is None:
            return None
        value = self._compute(predictions=predictions, references=references)[self.key]
        return None if value is None else MetricPlan(value, len(predictions), self._weighted(predictions, references))


class Spearman(OfflineMetric):
    """Spearman's rank correlation with the labels; ties get their mean rank. In [-1, 1]; None if either is constant."""

    key = "spearman"
    summary = "Spearman's rank correlation of scores and labels."
    source = "Spearman, The proof and measurement of association between two things, 1904."

    def _value(self, predictions: FloatArray, references: FloatArray) -> float | None:
        if _constant(predictions) or _constant(references):
            return None
        return float(stats.spearmanr(predictions, references).statistic)

    def _weighted(self, predictions: FloatArray, references: FloatArray) -> Statistic:
        return weighted.spearman(predictions, references)


class RocAuc(OfflineMetric):
    """Probability that a positive pair scores above a negative one; a tie counts half. Positive: label ≥ 0.5.

    In [0, 1], 0.5 by chance; None unless both classes are present.
    """

    key = "roc_auc"
    summary = "Area under the ROC curve; labels of 0.5 and above are positive."
    source = "Hanley and McNeil, Radiology 143, 1982."

    def _value(self, predictions: FloatArray, references: FloatArray) -> float | None:
        """Return the area, computed on weights of 1.

        scikit-learn's `roc_auc_score` spends more time on checks than on the area, and cascades need the area hundreds
        of times.
        """
        positive = references >= POSITIVE
        if _constant(positive):
            return None
        (value,) = weighted.roc_auc(predictions, positive)(np.ones((len(predictions), 1)))  # each pair drawn once
        return float(value)

    def _weighted(self, predictions: FloatArray, references: FloatArray) -> Statistic:
        return weighted.roc_auc(predictions, references >= POSITIVE)


class AveragePrecision(OfflineMetric):
    """Precision averaged over the recall steps, without interpolation. Positive: label ≥ 0.5.

    In (0, 1], the share of positives by chance; None unless both classes are present.
    """

    key = "average_precision"
    summary = "Average precision; labels of 0.5 and above are positive."
    source = "As defined by scikit-learn's average_precision_score."

    def _value(self, predictions: FloatArray, references: FloatArray) -> float | None:
        positive = references >= POSITIVE
        return None if _constant(positive) else float(average_precision_score(positive, predictions))

    def _weighted(self, predictions: FloatArray, references: FloatArray) -> Statistic:
        return weighted.average_precision(predictions, references >= POSITIVE)


class NdcgAt10(OfflineMetric):
    """Discounted gain of the top 10, divided by that of the best order, as a mean over queries. In [0, 1].

    The gain is the label itself, not 2^label - 1. For labels in [0, 1] the two are the same if labels are binary and
    similar if they are graded, and scikit-learn uses the linear form. The discount is 1/log2(rank + 1). Candidates with
    equal scores share their mean gain, the expectation over all orders among them (McSherry and Najork, "Computing
    information retrieval performance measures efficiently in the presence of tied scores", ECIR 2008).

    `compute` takes `query_ids` beside predictions and references. Only queries with 2 candidates or more and a label
    above 0 count; None if there is no such query.
    """

    key = "ndcg_at_10"
    summary = "Normalised discounted cumulative gain of the top 10, averaged over queries; linear gain."
    source = "Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 20, 2002."
    extra: ClassVar[Mapping[str, str]] = {"query_ids": "string"}

    def _compute(self, **columns: Any) -> dict[str, float | None]:
        """Return the mean of `ndcg_by_query`."""
        scores, labels = np.asarray(columns["predictions"]), np.asarray(columns["references"])
        _, values = ndcg_by_query(scores, labels, query_numbers(columns["query_ids"]))
        return {self.key: float(values.mean()) if len(values) else None}

    def plan(self, columns: ScoredColumns) -> MetricPlan | None:
        """Return the mean over queries and its weighted form; None if fewer than ten queries count."""
        scores, labels, queries = columns.scores, columns.labels, columns.queries
        if labels is None or queries is None:
            return None
        keep, values = ndcg_by_query(scores, labels, queries)
        if len(keep) < _MIN_QUERIES:
            return None
        value = float(values.mean())
        # queries are drawn whole, so the weight of any of its pairs is the weight of a query
        rows = np.unique(queries, return_index=True)[1][keep]
        return MetricPlan(value, len(keep), weighted.mean(values, rows))


class AblationMse(OfflineMetric):
    """Mean squared difference between a unit-interval score and its label, as in the published ablation.

    Lower is better.

    The score is (cosine + 1) / 2 for a bi-encoder and the probability for a cross-encoder. In [0, 1].
    """

    key = "ablation_mse"
    compares = ("unit_scores", "labels")
    summary = "Mean of (unit-interval score - label) squared."

    def _value(self, predictions: FloatArray, references: FloatArray) -> float | None:
        return float(np.mean((predictions - references) ** 2))

    def _weighted(self, predictions: FloatArray, references: FloatArray) -> Statistic:
        return weighted.mean((predictions - references) ** 2, np.arange(len(predictions)))


class TeacherSpearman(Spearman):
    """Spearman's rank correlation with the teacher's scores, on any scale. In [-1, 1]; None if either is constant."""

    key = "teacher_spearman"
    summary = "Spearman's rank correlation of a model's scores and its teacher's."
    compares = ("scores", "teacher_scores")


class TeacherKendall(OfflineMetric):
    """Kendall's tau-b with the teacher's scores, on any scale. In [-1, 1]; None if either is constant."""

    key = "teacher_kendall"
    summary = "Kendall's tau-b of a model's scores and its teacher's."
    source = "Kendall, The treatment of ties in ranking problems, Biometrika 33, 1945."
    compares = ("scores", "teacher_scores")

    def _value(self, predictions: FloatArray, references: FloatArray) -> float | None:
        if _constant(predictions) or _constant(references):
            return None
        return float(stats.kendalltau(predictions, references, variant="b").statistic)

    def _weighted(self, predictions: FloatArray, references: FloatArray) -> Statistic:
        return weighted.kendall(predictions, references)


def _constant(values: npt.NDArray[Any]) -> bool:
    return bool(np.all(values == values[:1]))


METRIC_CLASSES: tuple[type[OfflineMetric], ...] = (
    Spearman,
    RocAuc,
    AveragePrecision,
    NdcgAt10,
    AblationMse,
    TeacherSpearman,
    TeacherKendall,
)
"""The metrics in the order of a report."""
