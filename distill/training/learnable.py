"""Is there anything to learn? Asked before the first step, so that no training learns nothing in silence.

A term of the objectives needs something that it is a mean over (groups, positives, pairs), something that differs within
it (labels, a teacher's scores), and of a teacher that what it says has to do with the labels. What lacks one of these is
refused in one line that says which.
"""

import logging
import math
from typing import TYPE_CHECKING

import numpy as np

from distill.errors import BadInput, JobFailed

if TYPE_CHECKING:
    from distill.recipe.schema import Labels, Objectives
    from distill.training.trainset import TrainSet

__all__ = ["LEAST_SPREAD", "check_learnable", "check_related", "rank_correlation", "unrelated"]

log = logging.getLogger(__name__)
LEAST_SPREAD = 1e-4  # of scores in logits or cosines: below it a teacher says the same of everything
_NOTHING = 0.05  # a rank correlation that is none
_LEAST_PAIRS = 200  # below it a teacher that is worth something is not told from noise
_NORMAL_975 = 1.959964
_SAMPLE_TEXTS = 64


def check_learnable(name: str, units: "TrainSet", objectives: "Objectives", *, micro_batch: int) -> None:
    """Refuse objectives that the units give nothing to.

    :param name: what is to be trained, for the message
    :raises BadInput: where the data lacks what a term is about: several candidates, a positive, a negative, labels that differ
    :raises JobFailed: where a teacher says the same of everything
    """
    if objectives.labels is not None:
        _check_labels(name, units, objectives.labels, micro_batch)
    match, margin = objectives.score_match, objectives.margin_mse
    if match is not None:
        _check_scores(f"{name}: score_match ({match.loss})", units, match.teacher, by_group=match.loss == "kl")
    if margin is not None:
        _check_scores(f"{name}: margin_mse", units, margin.teacher, by_group=True)
    if objectives.embedding_match is not None:
        _check_embeddings(f"{name}: embedding_match", units, objectives.embedding_match.teacher)


def _check_labels(name: str, units: "TrainSet", term: "Labels", micro_batch: int) -> None:
    if units.labels is None:
        raise BadInput(f"{name}: the training pairs have no labels to learn from; leave objectives.labels out")
    if term.loss == "infonce":
        _check_positives(name, units, units.labels >= term.positive_from, term.positive_from, micro_batch)
    elif len(known := units.labels[np.isfinite(units.labels)]) and np.ptp(known) == 0:
        raise BadInput(
            f"{name}: every training label is {float(known[0]):g}, and {term.loss or 'the label loss'} would learn one score for all pairs; add pairs with other labels, or use loss infonce (bi-encoders, positives alone)"
        )


def _check_positives(
    name: str, units: "TrainSet", positive: np.ndarray, positive_from: float, micro_batch: int
) -> None:
    where = f"{name}: infonce"
    if not positive.any():
        raise BadInput(f"{where} learns from positives, and no training label is {positive_from:g} or more")
    documents = len(np.unique(units.document_rows))
    pairs = np.unique(np.stack([units.query_rows, units.document_rows])[:, positive], axis=1)
    _, answers = np.unique(pairs[0], return_counts=True)
    if documents <= answers.min():
        raise BadInput(
            f"{where} needs documents that do not answer a query, and {_so_many(documents, 'document')} all do; add pairs with other documents"
        )
    if micro_batch * max(len(group) for group in units.unit_pairs) < 2:
        raise BadInput(
            f"{where} compares the pairs of a forward pass, and a pass holds one; set training.micro_batch (say 32)"
        )


def _check_scores(where: str, units: "TrainSet", teacher: str, *, by_group: bool) -> None:
    scores = units.teacher_scores[teacher]
    _check_numbers(where, teacher, scores)
    if not by_group:
        if len(scores) and float(np.std(scores)) < LEAST_SPREAD:
            raise JobFailed(f"{where}: teacher {teacher} gives every pair the same score, {float(scores[0]):.4g}")
        return
    groups = [pairs for pairs in units.unit_pairs if len(pairs) > 1]
    if not groups:
        raise BadInput(
            f"{where} compares the candidates of a query, and no training query has two documents; use score_match.loss bce or logit_mse, or add documents"
        )
    if max(float(np.ptp(scores[pairs])) for pairs in groups) < LEAST_SPREAD:
        raise JobFailed(f"{where}: teacher {teacher} gives all candidates of every query the same score")


def _check_embeddings(where: str, units: "TrainSet", teacher: str) -> None:
    if units.embeddings is None or not len(units.tokens):
        return
    vectors = units.embeddings(np.arange(min(_SAMPLE_TEXTS, len(units.tokens))))
    _check_numbers(where, teacher, vectors)
    if len(vectors) > 1 and float(np.ptp(vectors, axis=0).max()) < LEAST_SPREAD / math.sqrt(vectors.shape[1]):
        raise JobFailed(f"{where}: teacher {teacher} gives every text the same embedding")


def _check_numbers(where: str, teacher: str, values: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(bad):
        raise JobFailed(
            f"{where}: teacher {teacher} says NaN or infinity of {len(bad)} of {len(values)} items, the first in row {int(bad[0])}; run cache_signals anew with signals.precision=fp32"
        )


def _so_many(n: int, what: str) -> str:
    return f"the one {what}" if n == 1 else f"the {n} {what}s"


# ---------------------------------------------------------------------------------------------------------------------
# Has it to do with the labels?
# ---------------------------------------------------------------------------------------------------------------------


def check_related(name: str, units: "TrainSet", *, allow_unrelated: bool) -> None:
    """Refuse teachers' scores that have nothing to do with the labels: shuffled signals, a teacher of noise.

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
    """Return a line where scores have nothing to do with the labels; None where they do, or too few pairs can tell.

    They have nothing to do with them where the 95 % interval of Spearman's correlation reaches 0 or lies below it, and
    where it ends below 0.05, too: shown, but nothing. Of fewer than 200 pairs nothing is refused, a doubt is said.

    A label of NaN is none, and its pair does not count.

    *Shape:* scores, labels: (n_pairs,)
    """
    if labels is None:
        return None
    known = np.isfinite(labels)
    scores, labels = scores[known], labels[known]
    if len(labels) < 4 or np.ptp(labels) == 0 or np.ptp(scores) == 0:
        return None
    rho, low, high = rank_correlation(scores, labels)
    if low > 0 and high >= _NOTHING:
        return None
    if len(labels) < _LEAST_PAIRS:
        log.warning("%s: Spearman to the labels %.2f (%.2f to %.2f), which may be nothing", what, rho, low, high)
        return None
    says = "are against the labels" if high < 0 else "have nothing to do with the labels"
    return (
        f"{what} {says}: Spearman {rho:.3f} ({low:.3f} to {high:.3f}) over {len(labels)} pairs; "
        "train the teacher longer, label again, or set signals.allow_unrelated=true"
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
