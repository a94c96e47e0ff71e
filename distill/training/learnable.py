"""Checks before the first step that the objectives have something to learn from.

A term of the objectives needs a basis to average over (groups, positives, pairs), targets that differ within it
(labels, a teacher's scores), and a teacher whose scores are related to the labels. If one of these is missing, the
training is refused in one line that names it.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import numpy as np

from distill.data.ragged import Ragged
from distill.data.splitting import numbered
from distill.errors import BadInput, JobFailed
from distill.recipe.objectives import (
    CoSent,
    EmbeddingMatch,
    Labels,
    ListTerm,
    MarginMatch,
    RelationTerm,
    Rkd,
    ScoreMatch,
)
from distill.training.mixtures import check_mixtures
from distill.training.negatives import GuideVectors
from distill.training.read_texts import are_read
from distill.training.terms import compares_candidates
from distill.training.trainset import group_pairs, is_ordered

if TYPE_CHECKING:
    from distill.recipe.objectives import Objectives, Term
    from distill.run import Run
    from distill.training.trainset import TrainSet

__all__ = [
    "LEAST_SPREAD",
    "check_learnable",
    "check_pairs",
    "check_related",
    "rank_correlation",
    "unlearnable",
    "unrelated",
]

log = logging.getLogger(__name__)
LEAST_SPREAD = 1e-4  # of scores in logits or cosines: below it a teacher's scores count as constant
_LEAST_CORRELATION = 0.05  # a rank correlation below this counts as none
_LEAST_PAIRS = 200  # with fewer pairs a useful teacher cannot be distinguished from noise
_NORMAL_975 = 1.959964
_SAMPLE_TEXTS = 64  # number of texts whose embeddings are checked
_SAMPLE_PAIRS = 256  # number of pairs whose scores are checked


class _Facts(Protocol):
    """What is known of pairs without teachers. *Shape:* each array (n_pairs,)."""

    @property
    def labels(self) -> np.ndarray | None: ...
    @property
    def query_rows(self) -> np.ndarray: ...
    @property
    def document_rows(self) -> np.ndarray: ...
    @property
    def unit_pairs(self) -> Ragged: ...


@dataclass(frozen=True)
class _PairFacts:
    labels: np.ndarray | None
    query_rows: np.ndarray
    document_rows: np.ndarray
    unit_pairs: Ragged


def check_pairs(run: "Run") -> None:
    """Refuse objectives that cannot learn from the training pairs, before a teacher is trained for them.

    Teachers' scores, and pairs that teachers find, are checked later (`check_learnable`).

    :raises BadInput: if the pairs lack what a term needs
    """
    recipe = run.recipe
    if recipe.student is None:
        return
    if mixtures := recipe.objectives.mixtures():
        check_mixtures(mixtures, run.split.validation)
    _check_scripts(run)
    facts, more_to_come = _facts(run), bool(recipe.data.unlabelled_pairs)
    for field, term in recipe.objectives.terms().items():
        _check_facts(
            "student" if run.name is None else f"stage {run.name}",
            field,
            facts,
            term,
            recipe.student.training.global_batch,
            more_to_come=more_to_come,
        )


def unlearnable(run: "Run", ways: "Mapping[str, Labels | CoSent]", *, global_batch: int) -> dict[str, str]:
    """Return the reasons why some terms cannot learn from the labels of the training pairs.

    :param ways: terms by name; the result has the same names
    """
    reasons, facts = {}, _facts(run)
    for name, term in ways.items():
        try:
            _check_facts("control", name, facts, term, global_batch)
        except BadInput as error:
            reasons[name] = str(error)
    return reasons


def _facts(run: "Run") -> _PairFacts:
    pairs = run.split.train
    documents = numbered(pairs.documents, {})
    return _PairFacts(pairs.labels, pairs.query_ids, documents, group_pairs(pairs, run.recipe.data.candidates))


def _check_scripts(run: "Run") -> None:
    """Refuse a teacher if no text is in the scripts that it reads."""
    names = run.recipe.teachers if run.name is None else run.recipe.objectives.teachers()
    for name in names:
        teacher = run.recipe.teachers[name]
        if teacher.scripts is None:
            continue
        split = run.split
        paired = (side for pairs in (split.train, split.unlabelled_pairs) for side in (pairs.queries, pairs.documents))
        texts = chain(*paired, split.unlabelled, (source for source, _ in split.parallel))
        if not any(are_read([text], teacher.scripts)[0] for text in texts):
            raise BadInput(
                f"teachers.{name}.scripts: no text of the recipe is in {', '.join(teacher.scripts)}; name the scripts of its texts, or leave it out"
            )


def check_learnable(name: str, units: "TrainSet", objectives: "Objectives", *, global_batch: int) -> None:
    """Refuse objectives that cannot learn from the units.

    :param name: the model to be trained, for messages
    :raises BadInput: if the data lacks what a term needs: several candidates, a positive, a negative, labels that
        differ
    :raises JobFailed: if a teacher's signals are constant
    """
    for field, term in objectives.terms().items():
        _check_facts(name, field, units, term, global_batch)
        _check_signals(f"{name}: {field}", units, term, global_batch)
    _say_lone_pairs(name, units, objectives)


def _say_lone_pairs(name: str, units: "TrainSet", objectives: "Objectives") -> None:
    """Log how many pairs the terms over lists leave out: of queries with one document, and the rest of longer ones."""
    fields = [field for field, term in objectives.terms().items() if compares_candidates(term)]
    n_alone = int((units.unit_pairs.lengths == 1).sum())
    if fields and n_alone:
        log.info(
            "%s: %d of %d pairs are alone in their list (data.candidates), and count for nothing in %s",
            name,
            n_alone,
            len(units.query_rows),
            ", ".join(fields),
        )


def _check_facts(
    name: str, field: str, facts: _Facts, term: "Term", global_batch: int, *, more_to_come: bool = False
) -> None:
    """Check the pairs without teachers' signals.

    :param more_to_come: teachers will find more pairs, without labels
    """
    where = f"{name}: {field} ({term.loss})" if isinstance(term, ScoreMatch) else f"{name}: {field}"
    if isinstance(term, Labels):
        _check_labels(name, facts, term, global_batch)
    elif isinstance(term, ListTerm | CoSent) and term.taught_by is None:
        _check_differing(where, facts.labels)
        if isinstance(term, ListTerm):
            _check_ordered(where, facts.labels, facts.unit_pairs)
    elif compares_candidates(term) and not more_to_come and not (facts.unit_pairs.lengths > 1).any():
        raise BadInput(
            f"{where} compares the candidates of a query, and no training query has two documents; use score_match.loss bce or logit_mse, or add documents"
        )


def _check_signals(where: str, units: "TrainSet", term: "Term", global_batch: int) -> None:
    """Check the teachers' signals."""
    if isinstance(term, ScoreMatch | MarginMatch | ListTerm | CoSent):
        if term.taught_by is not None:
            prefix = f"{where} ({term.loss})" if isinstance(term, ScoreMatch) else where
            _check_scores(prefix, units, term.taught_by, by_group=compares_candidates(term))
    elif isinstance(term, EmbeddingMatch):
        if units.embeddings is not None:
            _check_embeddings(where, units, term.taught_by, units.embeddings)
    elif isinstance(term, RelationTerm):
        _check_relations(where, units, term, global_batch)
    elif isinstance(term, Labels) and term.guide is not None and units.guide is not None:
        _check_guide(f"{where.partition(':')[0]}: infonce", units, units.guide, term.guide.teacher)


def _check_labels(name: str, facts: _Facts, term: "Labels", global_batch: int) -> None:
    if facts.labels is None:
        raise BadInput(f"{name}: the training pairs have no labels to learn from; leave objectives.labels out")
    if term.loss == "infonce":
        _check_positives(name, facts, facts.labels, term.positive_from, global_batch)
        return
    known = facts.labels[np.isfinite(facts.labels)]
    if len(known) and np.ptp(known) == 0:
        raise BadInput(
            f"{name}: every training label is {float(known[0]):g}, and {term.loss or 'the label loss'} would learn one score for all pairs; add pairs with other labels, or use loss infonce (bi-encoders, positives alone)"
        )


def _check_differing(where: str, labels: np.ndarray | None) -> None:
    if labels is None:
        raise BadInput(f"{where}: the training pairs have no labels to learn from; name a teacher, or leave it out")
    known = labels[np.isfinite(labels)]
    if not len(known) or np.ptp(known) == 0:
        problem = "no training pair has one" if not len(known) else f"every training label is {float(known[0]):g}"
        raise BadInput(
            f"{where} learns the order of labels, and {problem}; add pairs with other labels (a student may name a teacher instead)"
        )


def _check_ordered(where: str, labels: np.ndarray | None, unit_pairs: Ragged) -> None:
    """Refuse data without a list whose labels differ; log how many lists have an order."""
    groups = unit_pairs.several()
    ordered = sum(is_ordered(labels, pairs) for pairs in groups)
    if not ordered:
        why = "all of them have one label within a query" if groups else "no training query has two documents"
        raise BadInput(
            f"{where} learns the order of a query's candidates, and {why}; add candidates, or name a teacher"
        )
    if ordered < len(groups):
        log.info(
            "%s: %d of %d lists have candidates with different labels, the others do not count",
            where,
            ordered,
            len(groups),
        )


def _check_relations(where: str, units: "TrainSet", term: RelationTerm, global_batch: int) -> None:
    needed = 3 if isinstance(term, Rkd) and term.angle else 2
    largest = int(np.sort(units.unit_sequences)[-global_batch:].sum())
    if min(largest, len(units.tokens)) < needed:
        raise BadInput(
            f"{where} compares the texts of a step, and a step holds {min(largest, len(units.tokens))} of the {needed} that it takes; raise training.global_batch (say 32)"
        )
    _check_embeddings(where, units, term.teacher, units.relations[term.teacher])


def _check_guide(where: str, units: "TrainSet", guide: GuideVectors, teacher: str) -> None:
    """Refuse a guide that leaves no negatives; log the share that it removes in a sample of pairs."""
    _check_embeddings(where, units, teacher, guide.embeddings)
    pairs = np.random.default_rng(0).permutation(len(units.query_rows))[:_SAMPLE_PAIRS]
    excluded = units.negatives().excluded(pairs)
    guided = guide.false_negatives(units.query_rows[pairs], units.document_rows[pairs])
    n_negatives = int((~excluded).sum())
    n_dropped = int((guided & ~excluded).sum())
    if n_negatives and n_dropped == n_negatives:
        raise JobFailed(
            f"{where}: the guide {teacher} takes every document for an answer at guide.margin {guide.margin:g}; lower it "
            "(down to -2), or name a teacher whose cosines differ"
        )
    log.info(
        "%s: the guide %s leaves out %.2g %% of the negatives (of %d pairs)",
        where,
        teacher,
        100 * n_dropped / max(1, n_negatives),
        len(pairs),
    )


def _check_positives(name: str, units: _Facts, labels: np.ndarray, positive_from: float, global_batch: int) -> None:
    where, positive = f"{name}: infonce", labels >= positive_from
    if not positive.any():
        raise BadInput(f"{where} learns from positives, and no training label is {positive_from:g} or more")
    documents = len(np.unique(units.document_rows))
    pairs = np.unique(np.stack([units.query_rows, units.document_rows])[:, positive], axis=1)
    _, answers = np.unique(pairs[0], return_counts=True)
    if documents <= answers.min():
        raise BadInput(
            f"{where} needs documents that do not answer a query, and {_so_many(documents, 'document')} all do; add pairs with other documents"
        )
    if global_batch * int(units.unit_pairs.lengths.max()) < 2:
        raise BadInput(
            f"{where} compares the pairs of a step, and a step holds one; set training.global_batch (say 32)"
        )


def _check_scores(where: str, units: "TrainSet", teacher: str, *, by_group: bool) -> None:
    scores = units.teacher_scores[teacher]
    _check_numbers(where, teacher, scores)
    if not by_group:
        if len(scores) and float(np.std(scores)) < LEAST_SPREAD:
            raise JobFailed(f"{where}: teacher {teacher} gives every pair the same score, {float(scores[0]):.4g}")
        return
    groups = units.unit_pairs.several()
    if max(float(np.ptp(scores[pairs])) for pairs in groups) < LEAST_SPREAD:
        raise JobFailed(f"{where}: teacher {teacher} gives all candidates of every query the same score")


def _check_embeddings(
    where: str, units: "TrainSet", teacher: str, embeddings: Callable[[np.ndarray], np.ndarray]
) -> None:
    if not len(units.tokens):
        return
    vectors = embeddings(np.arange(min(_SAMPLE_TEXTS, len(units.tokens))))
    if units.some_unread:  # the embeddings of the other texts were checked when they were read
        return
    _check_numbers(where, teacher, vectors)
    if all_alike(vectors):
        raise JobFailed(f"{where}: teacher {teacher} gives every text the same embedding")


def all_alike(vectors: np.ndarray) -> bool:
    """Tell whether several unit vectors are the same one. *Shape:* vectors: (n_texts, width)."""
    return len(vectors) > 1 and float(np.ptp(vectors, axis=0).max()) < LEAST_SPREAD / math.sqrt(vectors.shape[1])


def _check_numbers(where: str, teacher: str, values: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(bad):
        raise JobFailed(
            f"{where}: teacher {teacher} gives NaN or infinity for {len(bad)} of {len(values)} items, the first in row {int(bad[0])}; run `distill cache-signals` anew with signals.precision=fp32"
        )


def _so_many(n: int, what: str) -> str:
    return f"the one {what}" if n == 1 else f"the {n} {what}s"


# ---------------------------------------------------------------------------------------------------------------------
# Are the scores related to the labels?
# ---------------------------------------------------------------------------------------------------------------------


def check_related(name: str, units: "TrainSet", *, allow_unrelated: bool) -> None:
    """Refuse teachers' scores that are unrelated to the labels, such as shuffled signals or noise.

    :raises JobFailed: naming the teacher and the correlation, unless `allow_unrelated`
    """
    for teacher, scores in units.teacher_scores.items():
        problem = unrelated(f"{name}: the scores of teacher {teacher}", scores, units.labels)
        if problem is None:
            continue
        if not allow_unrelated:
            raise JobFailed(problem)
        log.warning("%s (signals.allow_unrelated is set)", problem)


def unrelated(what: str, scores: np.ndarray, labels: np.ndarray | None) -> str | None:
    """Return a message if scores are unrelated to the labels; None if they are related, or too few pairs can tell.

    They are unrelated if the 95 % interval of Spearman's correlation includes 0 or lies below it, or if it ends below
    0.05 (significant, but too small). With fewer than 200 pairs nothing is refused; the log states a doubt.

    Pairs whose label is NaN have no label and are left out.

    *Shape:* scores, labels: (n_pairs,)
    """
    if labels is None:
        return None
    known = np.isfinite(labels)
    scores, labels = scores[known], labels[known]
    if len(labels) < 4 or np.ptp(labels) == 0 or np.ptp(scores) == 0:
        return None
    rho, low, high = rank_correlation(scores, labels)
    if low > 0 and high >= _LEAST_CORRELATION:
        return None
    if len(labels) < _LEAST_PAIRS:
        log.warning("%s: Spearman to the labels %.2f (%.2f to %.2f), which may be nothing", what, rho, low, high)
        return None
    verdict = "are against the labels" if high < 0 else "have nothing to do with the labels"
    return (
        f"{what} {verdict}: Spearman {rho:.3f} ({low:.3f} to {high:.3f}) over {len(labels)} pairs; "
        "take a teacher that knows such pairs (train it longer, where it is trained), label again, or set signals.allow_unrelated=true"
    )


def rank_correlation(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Return Spearman's correlation and its 95 % interval (Bonett & Wright 2000). *Shape:* scores, labels: (n_pairs,).

    >>> labels = np.arange(103) % 2
    >>> [round(value, 3) for value in rank_correlation(np.arange(103), labels)]
    [0.0, -0.194, 0.194]
    """
    from scipy.stats import spearmanr

    rho = float(spearmanr(scores, labels).statistic)
    if abs(rho) >= 1:
        return rho, rho, rho
    z, half = math.atanh(rho), _NORMAL_975 * math.sqrt((1 + rho * rho / 2) / (len(labels) - 3))
    return rho, math.tanh(z - half), math.tanh(z + half)
