"""The gate: an export is compared with its torch source on held-out pairs, and refused if it differs too much.

It compares what a user would notice: the order of pair scores, the best documents of each query, the metric on the
labels, embeddings, and whether a text's result depends on the other texts of its batch (by padding, or by the batch's
int8 range; an index built in batches would then disagree with single queries).

Three rules prevent a mean from hiding a failure. Each script with enough texts is checked by itself, because the mean
over mixed text is dominated by the most frequent script. int8 is compared between the two classes of CPU
(`students.export.arithmetic`). And a check fails if it is defined for the source but not for the export: a model with
constant scores has no ranks. Checks that are undefined for both are reported.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from distill import runtime
from distill._moved import moved_names
from distill.data.pairs import Pairs as LabelledPairs  # `Pairs` of this module is the old name of TextPairs
from distill.data.pairs import pairs_of
from distill.data.scripts import rows_by_script, rows_with_every_script
from distill.errors import BadInput, GateFailed
from distill.files.artefact import ModelKind, write_json
from distill.metrics.columns import ScoredColumns
from distill.metrics.measures import defined_metrics, paired_difference, primary_metric
from distill.models.prompts import folder_prompts
from distill.recipe.schema import Export, ExportPrecision
from distill.run import Run
from distill.runtime.vectors import unit_rows
from distill.wording import counted
from students.asymmetric import own_side_pairs
from students.export.agreement import is_constant, rank_agreement, top_k_overlap

__all__ = [
    "DEFAULT_THRESHOLDS",
    "N_OF_SCRIPT",
    "ParityReport",
    "TextPairs",
    "Thresholds",
    "check_gate",
    "compare",
    "held_back_pairs",
    "keep_worst",
    "say_few",
    "thresholds_of",
]

__getattr__ = moved_names(__name__)  # names from before the rename

log = logging.getLogger(__name__)
TextPairs = Sequence[tuple[str, str]]
N_OF_SCRIPT = 20
"""The least number of texts (for a cross-encoder: pairs) with which a script is checked by itself."""
_FEW_PAIRS = 100
_N_ALONE = 32  # texts or pairs that are also run one by one


@dataclass(frozen=True)
class Thresholds:
    """Limits for an export; None is not checked.

    Cosines are between a text's embedding and torch's; `batch_cosine` is between a text alone and the same text in a
    batch. They are for bi-encoders only. `rank_agreement` is Spearman's correlation of the pair scores of both,
    `top_k_overlap` the mean share of a query's best documents that both have in common, `max_difference` the largest
    difference of a pair's score in [0, 1], `batch_difference` that between a pair alone and in a batch. `metric_drop`
    is the allowed loss of the metric on the labels, which counts only if the whole interval of the difference is below
    zero.

    Cosines and a cross-encoder's rank agreement have to hold for each script as well, see `ParityReport.scripts`.
    Limits that start with `arithmetic` compare int8 on this CPU with exact int8, see
    `students.export.arithmetic.Arithmetic`.
    """

    min_cosine: float | None = None
    mean_cosine: float | None = None
    batch_cosine: float | None = None
    rank_agreement: float | None = None
    top_k_overlap: float | None = None
    max_difference: float | None = None
    batch_difference: float | None = None
    metric_drop: float | None = None
    arithmetic_mean_cosine: float | None = None
    arithmetic_min_cosine: float | None = None
    arithmetic_rank_agreement: float | None = None
    arithmetic_difference: float | None = None


_AT_MOST = ("max_difference", "batch_difference", "metric_drop", "arithmetic_difference")
# That weights cannot overflow is read from their codes. What is left is rounding at the edge of a step, which differs between
# two ways of running one graph, too (MiniLM on Korean: mean .9993, least .9967); saturating weights gave .905 and .845.
_SAME_ON_EVERY_CPU = Thresholds(
    arithmetic_mean_cosine=0.999,
    arithmetic_min_cosine=0.995,
    arithmetic_rank_agreement=0.999,
    arithmetic_difference=0.1,
)

_HALF = Thresholds(
    min_cosine=0.995,
    mean_cosine=0.999,
    batch_cosine=0.995,
    rank_agreement=0.995,
    max_difference=0.05,
    batch_difference=0.05,
    metric_drop=0.005,
)

DEFAULT_THRESHOLDS: Mapping[ExportPrecision, Thresholds] = {
    "fp32": Thresholds(
        min_cosine=0.99999,
        mean_cosine=0.99999,
        batch_cosine=0.99999,
        rank_agreement=0.9999,
        max_difference=1e-4,
        batch_difference=1e-4,
        metric_drop=0.001,
    ),
    "bf16": _HALF,
    "fp16": _HALF,
    "int8": replace(
        _SAME_ON_EVERY_CPU,
        min_cosine=0.97,
        mean_cosine=0.99,
        batch_cosine=0.99,
        rank_agreement=0.985,
        max_difference=0.1,
        batch_difference=0.05,
        metric_drop=0.01,
    ),
    # dynamic ranges depend on the batch by definition, so it is not checked; the card says so
    "int8_dynamic": replace(
        _SAME_ON_EVERY_CPU,
        min_cosine=0.95,
        mean_cosine=0.985,
        rank_agreement=0.98,
        max_difference=0.15,
        metric_drop=0.01,
    ),
    "int8_weights": Thresholds(
        min_cosine=0.99,
        mean_cosine=0.997,
        batch_cosine=0.995,
        rank_agreement=0.995,
        max_difference=0.05,
        batch_difference=0.05,
        metric_drop=0.005,
    ),
    # like int8, except for the batch: no range depends on it
    "int4_weights": Thresholds(
        min_cosine=0.95,
        mean_cosine=0.985,
        batch_cosine=0.995,
        rank_agreement=0.98,
        max_difference=0.15,
        batch_difference=0.05,
        metric_drop=0.01,
    ),
}
_ADVICE: Mapping[ExportPrecision, str] = {
    "fp32": "the graph does not compute what torch does; export to the other format (export.formats: openvino, onnx), or run in torch",
    "bf16": "take precision fp32",
    "fp16": "take precision fp32",
    "int8": "calibrate on more of your own text (export.calibration_pairs), keep more in float (keep_float), or take precision int8_weights (in openvino) or fp32",
    "int8_dynamic": "keep more in float (keep_float), or take precision int8 or fp32",
    "int8_weights": "keep more in float (keep_float), or take precision fp16",
    "int4_weights": "keep more in float (keep_float), or take precision int8_weights",
}


def thresholds_of(settings: Export, precision: ExportPrecision) -> Thresholds:
    """Return the precision's default thresholds, with those that the recipe sets."""
    recipe_values = {
        "min_cosine": settings.min_cosine,
        "mean_cosine": settings.min_mean_cosine,
        "batch_cosine": settings.min_batch_cosine,
        "rank_agreement": settings.min_rank_agreement,
        "top_k_overlap": settings.min_top_k_overlap,
        "metric_drop": settings.max_metric_drop,
    }
    return replace(
        DEFAULT_THRESHOLDS[precision], **{name: value for name, value in recipe_values.items() if value is not None}
    )


def held_back_pairs(run: Run) -> LabelledPairs:
    """Return the pairs for the gate of a run's student: the first of validation, and some of every script, with labels.

    An asymmetric student is checked on texts of its own side, which have no labels.
    """
    pairs, labels = own_side_pairs(run, run.split.validation), run.split.validation.labels
    rows = rows_with_every_script([" ".join(pair) for pair in pairs], run.recipe.export.parity_pairs, N_OF_SCRIPT)
    unseen = set(rows_by_script([" ".join(pair) for pair in own_side_pairs(run, run.split.train)]))
    unseen -= set(rows_by_script([" ".join(pairs[row]) for row in rows]))
    if unseen:
        log.warning(
            "no held-back pair is in %s, although training pairs are: the export is not checked there",
            ", ".join(sorted(unseen)),
        )
    say_few(len(rows))
    held_back = pairs_of(pairs[row] for row in rows)
    if labels is None or run.student_section.asymmetric is not None:
        return held_back
    return replace(held_back, labels=labels[rows])


@cache
def say_few(n_pairs: int) -> None:
    """Warn once that so few held-back pairs judge exports that a rare fault can be missed."""
    if n_pairs < _FEW_PAIRS:
        log.warning(
            "exports are compared with torch on %s: a fault in one of %d pairs is missed with a "
            "probability of a half; hold back %d or more (data.validation_share, export.parity_pairs)",
            counted(n_pairs, "held-back pair"),
            round(n_pairs / math.log(2)),
            _FEW_PAIRS,
        )


def keep_worst(run: Run, target: Path, report: "ParityReport") -> None:
    """Write the texts that differ most in an export into the run's `.work`, beside no model that is shared."""
    path = run.work / f"worst-{'-'.join(target.relative_to(run.folder).parts)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, list(report.worst))
    log.info("the texts that differ most: %s", path)


@dataclass(frozen=True)
class ParityReport:
    """How close an export is to its torch source on held-back pairs; names as in `Thresholds`.

    `metric` names the metric on the labels, `metric_difference` is export − source with its 95 % interval. `worst` has
    the texts (for a cross-encoder: pairs) that differ most, shortened. None stands for a value that the pairs do not
    define.

    `scripts` has the values of each script with at least `N_OF_SCRIPT` texts (for a cross-encoder: pairs), and their
    number `n`; `scripts_too_few` the number of texts of the others. `arithmetic` is that of
    `students.export.arithmetic`, None if an export has no int8 products. `undefined` names checks that are defined for
    the source but not for the export, `not_judged` those that are defined for neither.
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
    scripts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scripts_too_few: Mapping[str, int] = field(default_factory=dict)
    undefined: tuple[str, ...] = ()
    not_judged: tuple[str, ...] = ()
    arithmetic: Mapping[str, Any] | None = None

    @property
    def numbers(self) -> dict[str, Any]:
        """All of it but `worst`: for the card of a folder that may be shared, where no text of a user may stand."""
        return {name: value for name, value in asdict(self).items() if name != "worst"}

    @property
    def in_words(self) -> str:
        """How close the export is, on how many pairs and on which scale: for a log."""
        agreement = "" if self.rank_agreement is None else f"rank agreement {self.rank_agreement:.5f}, "
        difference = f"greatest difference {self.max_difference:.2g} of a score in [0, 1]"
        return f"{agreement}{difference}, on {counted(self.n_pairs, 'held-back pair')}"

    @property
    def metric_drop(self) -> float | None:
        """The loss of the metric if the whole interval of the difference is below zero, else 0."""
        if self.metric_difference is None:
            return None
        return -self.metric_difference["value"] if self.metric_difference["high"] < 0 else 0.0

    @property
    def closeness(self) -> tuple[float, float]:
        """A key to compare reports, greater is better: the order of pairs, then the worst text."""
        worst = self.min_cosine if self.min_cosine is not None else -self.max_difference
        return (-1.0 if self.rank_agreement is None else self.rank_agreement, worst)

    def failures(self, thresholds: Thresholds) -> list[str]:
        """Return each threshold that is missed, with what was measured."""
        found = []
        for name, limit in ((threshold.name, getattr(thresholds, threshold.name)) for threshold in fields(thresholds)):
            if limit is None:
                continue
            if name in self.undefined:
                found.append(f"{name} is undefined: the export tells nothing apart, where its source does")
            if name == "rank_agreement":
                scripts = [script for script, numbers in self.scripts.items() if numbers.get("undefined")]
                found += [
                    f"{name} in {script} is undefined: the export tells nothing apart there" for script in scripts
                ]
            for scope, value in self._measured(name):
                if value is not None and not (value <= limit if name in _AT_MOST else value >= limit):  # a NaN fails
                    bound = f"{'at most' if name in _AT_MOST else 'at least'} {limit:.6g}"
                    found.append(f"{name}{scope} {value:.6g}, {bound} is asked for")
        return found + self._unsafe(thresholds)

    def _measured(self, name: str) -> list[tuple[str, float | None]]:
        """Return the values of a check: over all texts and for each script."""
        if name.startswith("arithmetic_"):
            part = name.removeprefix("arithmetic_")
            return [(" (this CPU against exact int8)", None if self.arithmetic is None else self.arithmetic[part])]
        script_values = [(f" in {script}", numbers.get(name)) for script, numbers in self.scripts.items()]
        return [
            ("", getattr(self, name)),
            *(script_values if len(script_values) + len(self.scripts_too_few) > 1 else []),
        ]

    def _unsafe(self, thresholds: Thresholds) -> list[str]:
        """Return failures by weights that saturate on other CPUs, even if this CPU cannot show it."""
        if self.arithmetic is None or self.arithmetic["overflow_safe"] or thresholds.arithmetic_mean_cosine is None:
            return []
        return [f"weights up to {self.arithmetic['greatest_code']} saturate on CPUs without VNNI, at most 64 is safe"]


def compare(
    reference: runtime.Scorer,
    exported: runtime.Scorer,
    pairs: TextPairs,
    labels: np.ndarray | None = None,
    *,
    seed: int = 0,
) -> ParityReport:
    """Score pairs with both models and report the differences.

    :param labels: in [0, 1], for the metric; None leaves it out. *Shape:* (n_pairs,)
    """
    queries, documents = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    scores = reference.score(queries, documents)
    own_scores = exported.score(queries, documents)
    differences = np.abs(reference.unit(scores) - exported.unit(own_scores))
    if reference.kind == "bi_encoder":
        cosines, worst = _compare_embeddings(reference, exported, pairs)
    else:
        cosines, worst = None, _worst_pairs(pairs, scores, own_scores, differences)
    metric, difference = _metric_difference(scores, own_scores, pairs, labels, seed)
    scripts, too_few = _by_script(_judged_texts(exported, pairs), cosines, scores, own_scores, differences)
    undefined, not_judged = _undefined(scores, own_scores, labels, difference)
    if not_judged:
        log.warning(
            "%s: not checked, because the held-back pairs do not define it: %s",
            exported.path.name,
            ", ".join(not_judged),
        )
    return ParityReport(
        kind=reference.kind,
        precision=exported.precision,
        n_pairs=len(pairs),
        min_cosine=None if cosines is None else float(cosines.min()),
        mean_cosine=None if cosines is None else float(cosines.mean()),
        batch_cosine=None if cosines is None else _batch_cosine(exported, list(dict.fromkeys([*queries, *documents]))),
        rank_agreement=rank_agreement(scores, own_scores),
        top_k_overlap=top_k_overlap(queries, scores, own_scores),
        max_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        batch_difference=_batch_difference(exported, queries, documents, own_scores),
        metric=metric,
        metric_difference=difference,
        worst=tuple(worst),
        scripts=scripts,
        scripts_too_few=too_few,
        undefined=undefined,
        not_judged=not_judged,
    )


def _by_script(
    texts: Sequence[str],
    cosines: np.ndarray | None,
    scores: np.ndarray,
    own_scores: np.ndarray,
    differences: np.ndarray,
) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Return the values of each script with enough texts, and the number of texts of the others.

    :param cosines: of the texts, in order; None for a cross-encoder, whose pairs are compared
    """
    found: dict[str, dict[str, Any]] = {}
    too_few: dict[str, int] = {}
    for script, rows in rows_by_script(texts).items():
        if len(rows) < N_OF_SCRIPT:
            too_few[script] = len(rows)
        elif cosines is not None:
            script_cosines = cosines[rows]
            found[script] = {
                "n": len(rows),
                "mean_cosine": float(script_cosines.mean()),
                "min_cosine": float(script_cosines.min()),
            }
        else:
            agreement = rank_agreement(scores[rows], own_scores[rows])
            found[script] = {
                "n": len(rows),
                "rank_agreement": agreement,
                "max_difference": float(differences[rows].max()),
            }
            found[script]["undefined"] = agreement is None and not is_constant(scores[rows])
    return found, too_few


def _undefined(
    scores: np.ndarray, own_scores: np.ndarray, labels: np.ndarray | None, metric_difference: Any
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the checks that are undefined for the export only, and those that are undefined for both."""
    if is_constant(scores):
        return (), ("rank_agreement", *(("metric_drop",) if labels is not None else ()))
    lacks_metric = labels is not None and metric_difference is None
    if is_constant(own_scores) or not np.isfinite(own_scores).all():
        return ("rank_agreement", "top_k_overlap", *(("metric_drop",) if labels is not None else ())), ()
    return (), (("metric_drop",) if lacks_metric else ())


def _sides(exported: runtime.Scorer, pairs: TextPairs) -> tuple[list[str], list[str]]:
    """Return the different queries and the different documents; without prompts, all different texts and none."""
    queries, documents = [left for left, _ in pairs], [right for _, right in pairs]
    if not any(folder_prompts(exported.path)):
        return list(dict.fromkeys([*queries, *documents])), []
    return list(dict.fromkeys(queries)), list(dict.fromkeys(documents))


def _judged_texts(exported: runtime.Scorer, pairs: TextPairs) -> list[str]:
    """Return what is compared by script: a bi-encoder's texts, a cross-encoder's pairs."""
    if exported.kind != "bi_encoder":
        return [f"{left} {right}" for left, right in pairs]
    queries, documents = _sides(exported, pairs)
    return [*queries, *documents]


def _compare_embeddings(
    reference: runtime.Scorer, exported: runtime.Scorer, pairs: TextPairs
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Compare the embeddings of all different texts, each under the prompt of its side."""
    queries, documents = _sides(exported, pairs)

    def embedded(scorer: runtime.Scorer) -> np.ndarray:
        if not documents:
            return _exact_unit_rows(scorer.encode(queries))
        return _exact_unit_rows(np.concatenate([scorer.encode_queries(queries), scorer.encode_documents(documents)]))

    unique = [*queries, *documents]
    exported_vectors, reference_vectors = embedded(exported), embedded(reference)
    cosines = _row_cosines(exported_vectors, reference_vectors)
    order = np.argsort(cosines, kind="stable")[:5]
    return cosines, [{"text": _short(unique[i]), "cosine": round(float(cosines[i]), 6)} for i in order]


def _row_cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the cosines of unit rows; two zero rows, which a static model gives texts of unknown tokens, are equal: 1."""
    cosines: np.ndarray = (rows * others).sum(axis=1)
    cosines[~rows.any(axis=1) & ~others.any(axis=1)] = 1.0
    return cosines


def _exact_unit_rows(vectors: np.ndarray) -> np.ndarray:
    return unit_rows(vectors.astype(np.float64))


def _worst_pairs(
    pairs: TextPairs, scores: np.ndarray, own_scores: np.ndarray, differences: np.ndarray
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


def _metric_difference(
    scores: np.ndarray, own_scores: np.ndarray, pairs: TextPairs, labels: np.ndarray | None, seed: int
) -> tuple[str | None, dict[str, float] | None]:
    """Return the metric's name, and the difference export − source with its interval, drawn as in the report."""
    if labels is None:
        return None, None
    beside_scores = replace(pairs_of(pairs), labels=labels).metric_columns
    columns = ScoredColumns.checked(scores, **beside_scores)
    metric = primary_metric(defined_metrics(columns), labels)
    try:
        own_columns = ScoredColumns.checked(own_scores, **beside_scores)
        estimate = paired_difference(metric, own_columns, columns, n_bootstrap=500, seed=seed)
    except BadInput:  # not defined on these pairs: all labels or scores are equal
        return None, None
    return metric, {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _alone(n: int) -> np.ndarray:
    return np.linspace(0, n - 1, min(_N_ALONE, n)).astype(int)


def _batch_cosine(exported: runtime.Scorer, texts: Sequence[str]) -> float:
    """Return the least cosine of a text alone to the same text beside all others."""
    together = _exact_unit_rows(exported.encode(texts))
    rows = _alone(len(texts))
    alone = _exact_unit_rows(np.concatenate([exported.encode([texts[int(i)]]) for i in rows]))
    return float(_row_cosines(alone, together[rows]).min())


def _batch_difference(
    exported: runtime.Scorer, queries: Sequence[str], documents: Sequence[str], scores: np.ndarray
) -> float:
    rows = _alone(len(queries))
    alone = np.concatenate([exported.score([queries[int(i)]], [documents[int(i)]]) for i in rows])
    return float(np.abs(exported.unit(alone) - exported.unit(scores[rows])).max())


def check_gate(report: ParityReport, thresholds: Thresholds, source: Path, precision: ExportPrecision) -> None:
    """Raise if a threshold is missed.

    :raises GateFailed: with a table of the worst texts
    """
    failures = report.failures(thresholds)
    if not failures:
        return
    lines = [f"the {precision} export of {source} is too far from torch: {'; '.join(failures)}", "worst:"]
    for row in report.worst:
        numbers = "  ".join(f"{name} {value}" for name, value in row.items() if name != "text")
        lines.append(f"  {numbers}  {row['text']}")
    lines.append(_ADVICE[precision])
    raise GateFailed("\n".join(lines))
