"""The gate: an export is compared with its torch source on held-back pairs, and refused where it is too far away.

Compared are what a user would notice: the order of pair scores, the best documents of each query, the metric on the labels,
embeddings, and whether a text's result depends on the texts beside it (it does where padding or the batch's range reaches
the numbers: an index built in batches then disagrees with queries that come alone).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill import runtime
from distill.artefact import ModelKind
from distill.errors import BadInput, GateFailed
from distill.metrics import evaluate_scores, paired_difference, primary_metric
from distill.recipe import Export, ExportPrecision

__all__ = ["DEFAULT_THRESHOLDS", "Pairs", "ParityReport", "Thresholds", "check_gate", "compare", "thresholds_of"]

Pairs = Sequence[tuple[str, str]]
_N_ALONE = 32  # texts or pairs that are also run one by one


@dataclass(frozen=True)
class Thresholds:
    """What an export must keep of its source; None is not checked.

    Cosines are those of a text's embedding to torch's, `batch_cosine` of a text alone to the same in a batch; they hold
    for bi-encoders only. `rank_agreement` is Spearman's correlation of the pair scores of both, `top_k_overlap` the mean
    share of a query's best documents that both name, `max_difference` the largest difference of a pair's score in
    [0, 1], `batch_difference` that of a pair alone to the same in a batch, `metric_drop` what the metric on the labels
    may lose: it counts where the whole interval of the difference lies below zero.
    """

    min_cosine: float | None = None
    mean_cosine: float | None = None
    batch_cosine: float | None = None
    rank_agreement: float | None = None
    top_k_overlap: float | None = None
    max_difference: float | None = None
    batch_difference: float | None = None
    metric_drop: float | None = None


_AT_MOST = ("max_difference", "batch_difference", "metric_drop")

DEFAULT_THRESHOLDS: Mapping[ExportPrecision, Thresholds] = {
    "fp32": Thresholds(
        min_cosine=0.99999, mean_cosine=0.99999, batch_cosine=0.99999, rank_agreement=0.9999, max_difference=1e-4,
        batch_difference=1e-4, metric_drop=0.001,
    ),
    "bf16": Thresholds(min_cosine=0.995, mean_cosine=0.999, batch_cosine=0.995, rank_agreement=0.995, max_difference=0.05, metric_drop=0.005),
    "fp16": Thresholds(min_cosine=0.995, mean_cosine=0.999, batch_cosine=0.995, rank_agreement=0.995, max_difference=0.05, metric_drop=0.005),
    "int8": Thresholds(min_cosine=0.95, mean_cosine=0.985, batch_cosine=0.99, rank_agreement=0.98, max_difference=0.15, metric_drop=0.01),
    # the batch is not held against dynamic ranges: that it decides is what they are, and said in the card
    "int8_dynamic": Thresholds(min_cosine=0.95, mean_cosine=0.985, rank_agreement=0.98, max_difference=0.15, metric_drop=0.01),
    "int8_weights": Thresholds(min_cosine=0.99, mean_cosine=0.997, batch_cosine=0.995, rank_agreement=0.995, max_difference=0.05, metric_drop=0.005),
    # as int8, but for the batch: no range is taken from one
    "int4_weights": Thresholds(min_cosine=0.95, mean_cosine=0.985, batch_cosine=0.995, rank_agreement=0.98, max_difference=0.15, metric_drop=0.01),
}  # fmt: skip
_ADVICE: Mapping[ExportPrecision, str] = {
    "int8_weights": "keep more in float (keep_float), or take precision fp16",
    "int4_weights": "keep more in float (keep_float), or take precision int8_weights",
}


def thresholds_of(settings: Export, precision: ExportPrecision) -> Thresholds:
    """Lay the recipe's thresholds over the defaults of the precision."""
    given = {
        "min_cosine": settings.min_cosine,
        "mean_cosine": settings.min_mean_cosine,
        "batch_cosine": settings.min_batch_cosine,
        "rank_agreement": settings.min_rank_agreement,
        "top_k_overlap": settings.min_top_k_overlap,
        "metric_drop": settings.max_metric_drop,
    }
    return replace(DEFAULT_THRESHOLDS[precision], **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class ParityReport:
    """How close an export is to its torch source on held-back pairs; names as in `Thresholds`.

    `metric` names the metric on the labels, `metric_difference` is export − source with its 95 % interval. `worst` holds
    the texts (of a cross-encoder: pairs) that differ most, shortened. None is what the pairs do not define.
    """

    kind: ModelKind
    precision: str
    n_pairs: int
    min_cosine: float | None
    mean_cosine: float | None
    batch_cosine: float | None
    rank_agreement: float | None
    top_k_overlap: float | None
    max_difference: float
    mean_difference: float
    batch_difference: float
    metric: str | None
    metric_difference: Mapping[str, float] | None
    worst: tuple[Mapping[str, Any], ...]

    @property
    def metric_drop(self) -> float | None:
        """What the metric loses, where it is certain that it does; 0 where it is not."""
        if self.metric_difference is None:
            return None
        return -self.metric_difference["value"] if self.metric_difference["high"] < 0 else 0.0

    @property
    def closeness(self) -> tuple[float, float]:
        """What is better first: the order of pairs, then the worst text."""
        worst = self.min_cosine if self.min_cosine is not None else -self.max_difference
        return (self.rank_agreement or -1.0, worst)

    def failures(self, thresholds: Thresholds) -> list[str]:
        """Return each threshold that is missed, with what was measured."""
        checks = [(name, getattr(self, name), getattr(thresholds, name)) for name in asdict(thresholds)]
        return [
            f"{name} {value:.6g}, {'at most' if name in _AT_MOST else 'at least'} {limit:.6g} is asked for"
            for name, value, limit in checks
            if None not in (value, limit) and not (value <= limit if name in _AT_MOST else value >= limit)
        ]


def compare(
    reference: runtime.Scorer,
    exported: runtime.Scorer,
    pairs: Pairs,
    labels: np.ndarray | None = None,
    *,
    seed: int = 0,
) -> ParityReport:
    """Score pairs with both and report how far they are apart.

    :param labels: in [0, 1], for the metric; None leaves it out. *Shape:* (n_pairs,)
    """
    queries, documents = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    scores = reference.score(queries, documents)
    own_scores = exported.score(queries, documents)
    differences = np.abs(reference.unit(scores) - exported.unit(own_scores))
    if reference.kind == "bi_encoder":
        cosines, worst = _compare_embeddings(reference, exported, [*queries, *documents])
    else:
        cosines, worst = None, _worst_pairs(pairs, scores, own_scores, differences)
    metric, difference = _metric_difference(scores, own_scores, queries, labels, seed)
    return ParityReport(
        kind=reference.kind,
        precision=exported.precision,
        n_pairs=len(pairs),
        min_cosine=None if cosines is None else float(cosines.min()),
        mean_cosine=None if cosines is None else float(cosines.mean()),
        batch_cosine=None if cosines is None else _batch_cosine(exported, list(dict.fromkeys([*queries, *documents]))),
        rank_agreement=_rank_agreement(scores, own_scores),
        top_k_overlap=_top_k_overlap(queries, scores, own_scores),
        max_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        batch_difference=_batch_difference(exported, queries, documents, own_scores),
        metric=metric,
        metric_difference=difference,
        worst=tuple(worst),
    )


def _compare_embeddings(
    reference: runtime.Scorer, exported: runtime.Scorer, texts: Sequence[str]
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    unique = list(dict.fromkeys(texts))
    ours, theirs = _unit_rows(exported.encode(unique)), _unit_rows(reference.encode(unique))
    cosines = (ours * theirs).sum(axis=1)
    order = np.argsort(cosines, kind="stable")[:5]
    return cosines, [{"text": _short(unique[i]), "cosine": round(float(cosines[i]), 6)} for i in order]


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    rows: np.ndarray = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return rows


def _worst_pairs(
    pairs: Pairs, scores: np.ndarray, own_scores: np.ndarray, differences: np.ndarray
) -> list[dict[str, Any]]:
    order = np.argsort(-differences, kind="stable")[:5]
    return [
        {
            "text": f"{_short(pairs[i][0], 32)} | {_short(pairs[i][1], 32)}",
            "torch": round(float(scores[i]), 4),
            "export": round(float(own_scores[i]), 4),
            "difference": round(float(differences[i]), 6),
        }
        for i in order
    ]


def _short(text: str, n_characters: int = 64) -> str:
    line = " ".join(text.split())
    return line if len(line) <= n_characters else line[: n_characters - 1] + "…"


def _rank_agreement(scores: np.ndarray, own_scores: np.ndarray) -> float | None:
    """Spearman's correlation; None where one side is constant, which has no ranks."""
    from scipy.stats import spearmanr

    if np.ptp(scores) == 0 or np.ptp(own_scores) == 0:
        return None
    return float(spearmanr(scores, own_scores).statistic)


def _top_k_overlap(queries: Sequence[str], scores: np.ndarray, own_scores: np.ndarray) -> float | None:
    """Return the mean share of a query's better half (ten at most) that both name; None without queries of several documents."""
    rows: dict[str, list[int]] = {}
    for row, query in enumerate(queries):
        rows.setdefault(query, []).append(row)
    shares = []
    for group in rows.values():
        k = min(10, len(group) // 2)
        if k:
            best, own_best = (
                {group[i] for i in np.argsort(-side[group], kind="stable")[:k]} for side in (scores, own_scores)
            )
            shares.append(len(best & own_best) / k)
    return float(np.mean(shares)) if shares else None


def _metric_difference(
    scores: np.ndarray, own_scores: np.ndarray, queries: Sequence[str], labels: np.ndarray | None, seed: int
) -> tuple[str | None, dict[str, float] | None]:
    """Return the metric of the labels and how much of it the export has less or more, with its interval."""
    if labels is None:
        return None, None
    _, query_ids = np.unique(np.asarray(queries, dtype=str), return_inverse=True)
    metric = primary_metric(
        evaluate_scores(scores=scores, labels=labels, query_ids=query_ids, n_bootstrap=2, seed=seed), labels
    )
    try:
        estimate = paired_difference(
            metric, scores_a=own_scores, scores_b=scores, labels=labels, query_ids=query_ids, n_bootstrap=500, seed=seed
        )
    except BadInput:  # not defined on these pairs: labels or scores that are all alike
        return None, None
    return metric, {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _alone(n: int) -> np.ndarray:
    return np.linspace(0, n - 1, min(_N_ALONE, n)).astype(int)


def _batch_cosine(exported: runtime.Scorer, texts: Sequence[str]) -> float:
    """Return the least cosine of a text alone to the same text beside all others."""
    together = _unit_rows(exported.encode(texts))
    rows = _alone(len(texts))
    alone = _unit_rows(np.concatenate([exported.encode([texts[int(i)]]) for i in rows]))
    return float((alone * together[rows]).sum(axis=1).min())


def _batch_difference(
    exported: runtime.Scorer, queries: Sequence[str], documents: Sequence[str], scores: np.ndarray
) -> float:
    rows = _alone(len(queries))
    alone = np.concatenate([exported.score([queries[int(i)]], [documents[int(i)]]) for i in rows])
    return float(np.abs(exported.unit(alone) - exported.unit(scores[rows])).max())


def check_gate(report: ParityReport, thresholds: Thresholds, source: Path, precision: ExportPrecision) -> None:
    """Pass, or say what is too far away.

    :raises GateFailed: with a table of the worst texts
    """
    failures = report.failures(thresholds)
    if not failures:
        return
    lines = [f"the {precision} export of {source} is too far from torch: {'; '.join(failures)}", "worst:"]
    for row in report.worst:
        numbers = "  ".join(f"{name} {value}" for name, value in row.items() if name != "text")
        lines.append(f"  {numbers}  {row['text']}")
    calibrated = "calibrate on more of your own text, keep more in float (keep_float), or take precision bf16"
    lines.append(_ADVICE.get(precision, calibrated))
    raise GateFailed("\n".join(lines))
