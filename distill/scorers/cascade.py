"""A cascade: the student scores every pair, the teacher only those for which the student's score is least certain.

    cascade = fit_cascade(student_scores, teacher_scores, labels)      # on held-out pairs
    routed = cascade.routed(student_scores, share=0.2)                 # the pairs that go to the teacher
    scores = cascade.combined(student_scores, teacher_scores, routed)

Three small functions are fitted on held-out pairs, which are separate from the pairs that are reported:

    student      p_s = σ(a·s + b), the student's score as the probability of a match; monotone, so the ranking stays
    both         p_b = σ(c·s + d·t + e), the probability from both scores; the student's score is available at no cost
    doubt        E[(p_b − p_s)² | s], the expected squared change by the teacher for a pair with student score s

Doubt is a smooth curve over the student's score. With yes/no labels it is high in the middle and low at both ends (the
usual band around the threshold). With graded labels it is high wherever student and teacher disagree, which a threshold
would not show. A level of doubt is the setting: pairs at or above it go to the teacher. With `top_k`, the k best
documents of each query go to the teacher instead, whatever their doubt; this is reranking.

Cascades of classifiers: Viola & Jones 2001; deferral by estimated gain: Jitkrittum et al. 2023, arXiv 2307.02764.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from distill.data.splitting import numbered
from distill.errors import BadInput, JobFailed
from distill.metrics.logistic import fit_logistic, sigmoid, too_few_pairs
from distill.models.files import Runtime
from distill.progress import OnProgress
from distill.runtime.arguments import check_texts
from distill.scorers.scoring import PairScorer

__all__ = ["Cascade", "CascadeScorer", "CascadeSettings", "compares_documents", "fit_cascade"]

_N_KNOTS = 33  # of the curve of doubt, at equally spaced quantiles of the student's scores


class Cascade(BaseModel):
    """The fitted functions; `knots` and `doubts` are the curve of doubt over the student's score, linear in between."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student: tuple[float, float]
    """(a, b) of p_s."""
    both: tuple[float, float, float]
    """(c, d, e) of p_b."""
    knots: tuple[float, ...]
    doubts: tuple[float, ...]

    def alone(self, student_scores: np.ndarray) -> np.ndarray:
        """Return p_s. *Shape:* that of student_scores, float64."""
        slope, bias = self.student
        return sigmoid(slope * np.asarray(student_scores, dtype=np.float64) + bias)

    def together(self, student_scores: np.ndarray, teacher_scores: np.ndarray) -> np.ndarray:
        """Return p_b. *Shape:* that of student_scores, float64."""
        c, d, e = self.both
        return sigmoid(c * np.asarray(student_scores, np.float64) + d * np.asarray(teacher_scores, np.float64) + e)

    def doubt(self, student_scores: np.ndarray) -> np.ndarray:
        """Return the doubt of each pair (the teacher's expected squared change). *Shape:* that of student_scores."""
        return np.asarray(np.interp(student_scores, self.knots, self.doubts))

    def level(self, student_scores: np.ndarray, share: float) -> float:
        """Return the level of doubt that sends this share of the pairs to the teacher; inf if that is no pair."""
        n_routed = round(share * len(student_scores))
        if n_routed == 0:
            return float("inf")
        return float(np.sort(self.doubt(student_scores))[-n_routed])

    def routed(self, student_scores: np.ndarray, share: float) -> np.ndarray:
        """Return which pairs go to the teacher: exactly this share, with the highest doubt. *Shape:* (n,), bool."""
        order = np.argsort(-self.doubt(student_scores), kind="stable")
        chosen = np.zeros(len(order), dtype=bool)
        chosen[order[: round(share * len(order))]] = True
        return chosen

    def combined(self, student_scores: np.ndarray, teacher_scores: np.ndarray, routed: np.ndarray) -> np.ndarray:
        """Return p_b for the pairs that went to the teacher, p_s for the others.

        *Shape:* all arguments and the result: (n,)

        :param teacher_scores: only the values of `routed` pairs are used
        """
        scores = self.alone(student_scores)
        scores[routed] = self.together(student_scores[routed], teacher_scores[routed])
        return scores


def fit_cascade(student_scores: np.ndarray, teacher_scores: np.ndarray, labels: np.ndarray) -> Cascade:
    """Fit a cascade on held-out pairs.

    *Shape:* all arguments: (n_pairs,)

    :param labels: in [0, 1]; grades count as probabilities
    :raises BadInput: if there are fewer than 50 pairs, or all labels or all scores of one model are equal
    :raises JobFailed: if the student's scores do not increase with the labels
    """
    if problem := too_few_pairs(len(labels)):
        raise BadInput(problem)
    for name, values in (
        ("labels", labels),
        ("student's scores", student_scores),
        ("teacher's scores", teacher_scores),
    ):
        if np.ptp(values) == 0:
            raise BadInput(f"the {name} of the held-back pairs are all {values[0]:.6g}; nothing can be fitted to them")
    columns = np.column_stack([student_scores, teacher_scores]).astype(np.float64)
    a, b = fit_logistic(columns[:, :1], labels)
    if a <= 0:
        raise JobFailed(
            "the student's scores do not rise with the labels of the held-back pairs; there is nothing to start a cascade from"
        )
    c, d, e = fit_logistic(columns, labels)
    fitted = Cascade(student=(a, b), both=(c, d, e), knots=(0.0, 1.0), doubts=(0.0, 0.0))
    squared_changes = (fitted.together(student_scores, teacher_scores) - fitted.alone(student_scores)) ** 2
    knots, doubts = _smooth_curve(columns[:, 0], squared_changes)
    return fitted.model_copy(update={"knots": tuple(knots.tolist()), "doubts": tuple(doubts.tolist())})


def _smooth_curve(scores: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average `values` over pairs of similar score; return knots and values of the curve. *Shape:* (n_knots,) each.

    This is Nadaraya–Watson smoothing over ranks, so that every knot has the same number of neighbours; the kernel's
    standard deviation is a twelfth of the pairs.
    """
    order = np.argsort(scores, kind="stable")
    ranks = (np.arange(len(order)) + 0.5) / len(order)
    places = np.linspace(0, 1, _N_KNOTS)
    weights = np.exp(-0.5 * ((places[:, None] - ranks[None, :]) * 12) ** 2)  # (n_knots, n_pairs)
    curve = (weights @ values[order]) / weights.sum(axis=1)
    knots, first = np.unique(np.quantile(scores, places), return_index=True)
    return knots, curve[first]


class CascadeSettings(BaseModel):
    """The content of `scorer.json` in a cascade's folder; paths are relative to that folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["cascade"] = "cascade"
    student: str
    teacher: str
    student_runtime: Runtime
    teacher_runtime: Runtime
    student_max_length: int
    teacher_max_length: int
    level: float | None = None
    """Pairs with at least this doubt go to the teacher; None: no pair goes because of its doubt."""
    top_k: int | None = None
    """The number of best documents of each query that go to the teacher; None: the doubt decides."""
    cascade: Cascade

    def models(self) -> tuple[tuple[str, Runtime, int], tuple[str, Runtime, int]]:
        """Return (path, runtime, max_length) of student and teacher."""
        return (
            (self.student, self.student_runtime, self.student_max_length),
            (self.teacher, self.teacher_runtime, self.teacher_max_length),
        )


@dataclass(frozen=True)
class CascadeScorer:
    """A scorer made of student, teacher and the rule that decides between them; its scores are probabilities."""

    student: PairScorer
    teacher: PairScorer
    settings: CascadeSettings
    kind = "cascade"

    @property
    def runtime(self) -> str:
        """The student's runtime, as the student scores every pair."""
        return str(self.student.runtime)

    @property
    def precision(self) -> str:
        """The student's precision."""
        return str(self.student.precision)

    @property
    def max_length(self) -> int | None:
        """The student's maximum length."""
        return self.student.max_length

    @property
    def n_parameters(self) -> int:
        """The number of parameters of both models."""
        return self.student.n_parameters + self.teacher.n_parameters

    def score(
        self, queries: Sequence[str], documents: Sequence[str], *, progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Return the probability of a match for each pair. *Shape:* (n_pairs,), float64."""
        queries, documents = check_texts("queries", queries), check_texts("documents", documents)
        student_scores = np.asarray(self.student.score(queries, documents, progress=progress), dtype=np.float64)
        routed = self.routed(queries, student_scores)
        teacher_scores = np.zeros_like(student_scores)
        rows = np.flatnonzero(routed)
        if len(rows):
            teacher_scores[rows] = self.teacher.score([queries[i] for i in rows], [documents[i] for i in rows])
        return self.settings.cascade.combined(student_scores, teacher_scores, routed)

    def routed(self, queries: Sequence[str], student_scores: np.ndarray) -> np.ndarray:
        """Return which pairs go to the teacher. *Shape:* (n_pairs,), bool."""
        if self.settings.top_k is not None:
            return top_k_of_queries(queries, student_scores, self.settings.top_k)
        level = float("inf") if self.settings.level is None else self.settings.level
        return np.asarray(self.settings.cascade.doubt(student_scores) >= level)

    def unit(self, scores: np.ndarray) -> np.ndarray:
        """Return the scores unchanged, as they are probabilities. *Shape:* that of scores, float32."""
        return np.asarray(scores, dtype=np.float32)

    def token_counts(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each pair that the student reads. *Shape:* (n_pairs,)."""
        return self.student.token_counts(queries, documents)

    def __repr__(self) -> str:
        dial = f"top {self.settings.top_k}" if self.settings.top_k else f"doubt ≥ {self.settings.level}"
        return f"CascadeScorer({self.student!r} → {self.teacher!r}, {dial})"


def compares_documents(scorer: PairScorer) -> bool:
    """Tell whether a pair's score depends on the query's other documents, so that one call must score all of them."""
    return isinstance(scorer, CascadeScorer) and scorer.settings.top_k is not None


def top_k_of_queries(queries: Sequence[str], scores: np.ndarray, k: int) -> np.ndarray:
    """Return which pairs are among the k best of their query; of equal scores the earlier one counts as better.

    *Shape:* (n_pairs,), bool

    >>> top_k_of_queries(["a", "a", "b", "a"], np.array([0.1, 0.9, 0.0, 0.5]), 2)
    array([False,  True,  True,  True])
    """
    query_ids = numbered(queries, {})
    order = np.lexsort((np.arange(len(query_ids)), -np.asarray(scores), query_ids))  # by query, best first
    starts = np.flatnonzero(np.r_[True, np.diff(query_ids[order]) > 0])
    places = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order[places < k]] = True
    return chosen
