"""The terms of `objectives`: each function computes a term's weighted loss from its section and a batch's outputs.

A loss is a mean over its basis (pairs, texts, …), times the batch's share of the basis in the step. So the losses of
all passes and processes add up to the mean over the step. A term whose basis is empty in a batch gives None.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.files.artefact import ModelKind
from distill.recipe.objectives import (
    AdrMse,
    CoSent,
    EmbeddingMatch,
    LabelLoss,
    Labels,
    LambdaLoss,
    LayerTerm,
    ListMle,
    ListNet,
    ListTerm,
    MarginMatch,
    RankNet,
    RelationTerm,
    Rkd,
    ScoreMatch,
    Similarity,
    Term,
)
from distill.training import losses
from distill.training.trainset import Basis, Batch

__all__ = [
    "DEFAULT_LOSS",
    "Seen",
    "basis_of",
    "compares_candidates",
    "loss_of",
    "sides",
    "teacher_logits",
    "teacher_unit",
]

DEFAULT_LOSS: dict[str, LabelLoss] = {"cross_encoder": "bce", "bi_encoder": "contrastive"}
_COSENT_SCALE: dict[str, float] = {"cross_encoder": 1.0, "bi_encoder": 20.0}


def teacher_logits(scores: Tensor, kind: ModelKind, scale: float) -> Tensor:
    """Return a teacher's scores on a logit scale: as they are (cross-encoder) or `scale` times the cosine."""
    return scores if kind == "cross_encoder" else scale * scores


def teacher_unit(scores: Tensor, kind: ModelKind, temperature: float = 1.0) -> Tensor:
    """Return a teacher's probability at a temperature: σ(z/τ), with z a cross-encoder's logit, or that of p = (cos + 1)/2.

    The student's logits are divided by τ as well, so at any τ the best student has the teacher's own probabilities.

    >>> teacher_unit(torch.tensor([0.8]), "bi_encoder"), teacher_unit(torch.tensor([0.8]), "bi_encoder", 4.0)
    (tensor([0.9000]), tensor([0.6340]))
    """
    if kind == "cross_encoder":
        return torch.sigmoid(scores / temperature)
    unit = ((scores + 1) / 2).clamp(0, 1)  # by rounding a cosine may exceed 1
    return unit if temperature == 1 else torch.sigmoid(torch.logit(unit) / temperature)


@dataclass(frozen=True)
class Seen:
    """A batch with the student's outputs for it.

    *Shape:* scores (cosines or logits), logits: (n_pairs,); embeddings: (n_sequences, width), only of bi-encoders

    :param projected: maps embeddings into the matched teacher's space
    """

    batch: Batch
    kind: ModelKind
    scores: Tensor
    logits: Tensor
    embeddings: Tensor | None
    teacher_kinds: Mapping[str, ModelKind]
    projected: Callable[[Tensor], Tensor]
    teacher_logit_scale: float
    block_widths: tuple[int, ...] = ()
    some_unread: bool = False
    """Some teacher does not read all texts: where it has no embedding, its numbers are NaN."""

    @property
    def unit(self) -> Tensor:
        """The scores in [0, 1]."""
        return torch.sigmoid(self.scores) if self.kind == "cross_encoder" else (self.scores + 1) / 2

    def teacher_logits(self, teacher: str) -> Tensor:
        """Return a teacher's scores as logits. *Shape:* (n_pairs,)."""
        kind = self.teacher_kinds[teacher]
        return teacher_logits(self.batch.teacher_scores[teacher], kind, self.teacher_logit_scale)

    def teacher_unit(self, teacher: str, temperature: float = 1.0) -> Tensor:
        """Return a teacher's scores in [0, 1]. *Shape:* (n_pairs,)."""
        return teacher_unit(self.batch.teacher_scores[teacher], self.teacher_kinds[teacher], temperature)


def basis_of(term: Term) -> Basis:
    """Return the basis that a term's loss is a mean over; a step without it has no such loss."""
    if isinstance(term, Labels):
        return "positives" if term.loss == "infonce" else "labelled"
    if isinstance(term, ScoreMatch):
        return "groups" if term.loss == "kl" else "pairs"
    if isinstance(term, ListTerm):
        return "ordered" if term.taught_by is None else "groups"
    if isinstance(term, LayerTerm):
        return "tokens"
    if isinstance(term, CoSent):
        return "labelled" if term.taught_by is None else "pairs"
    return "groups" if isinstance(term, MarginMatch) else "texts"


def compares_candidates(term: Term) -> bool:
    """Tell whether a term compares the candidates of a query with each other."""
    return basis_of(term) in ("groups", "ordered")


def loss_of(term: Term, seen: Seen) -> Tensor | None:
    """Return a term's weighted loss for a batch; None if its basis is empty in the batch."""
    if isinstance(term, Labels):
        return _labels(term, seen)
    if isinstance(term, ScoreMatch):
        return _score_match(term, seen)
    if isinstance(term, MarginMatch):
        return _margin_mse(term, seen)
    if isinstance(term, EmbeddingMatch):
        return _embedding_match(term, seen)
    if isinstance(term, ListTerm):
        return _list(term, seen)
    if isinstance(term, CoSent):
        return _cosent(term, seen)
    if isinstance(term, RelationTerm):
        return _relation(term, seen)
    if isinstance(term, LayerTerm):
        return None  # not a function of the outputs: see `distill.training.layer_terms`
    raise TypeError(f"{type(term).__name__} is no objective of matching")


# ---------------------------------------------------------------------------------------------------------------------
# Pairs
# ---------------------------------------------------------------------------------------------------------------------


def sides(batch: Batch, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit vectors of queries and documents; those of a side that is not learned are the teacher's.

    *Shape:* embeddings: (n_sequences, width); result: (n_pairs, width) each
    """
    unit = nn.functional.normalize(embeddings, dim=-1)
    if batch.other_embeddings is None:
        return unit[batch.query_rows], unit[batch.document_rows]
    own_vectors, other_vectors = unit[batch.query_rows], nn.functional.normalize(batch.other_embeddings.float(), dim=-1)
    return (own_vectors, other_vectors) if batch.other_role else (other_vectors, own_vectors)


def _labels(term: Labels, seen: Seen) -> Tensor | None:
    batch, name = seen.batch, term.loss or DEFAULT_LOSS[seen.kind]
    if batch.labels is None or not len(seen.scores):
        return None
    known = torch.isfinite(batch.labels)  # pairs without a label are left out, also as negatives
    if not known.any():
        return 0.0 * seen.scores.sum()
    labels = batch.labels[known]
    if name == "infonce" and seen.embeddings is not None and batch.excluded is not None:
        queries, documents = (side[known] for side in sides(batch, seen.embeddings))
        excluded = batch.excluded[known][:, known]
        loss = losses.in_batch_infonce(queries, documents, labels >= term.positive_from, excluded, term.temperature)
        return term.weight * batch.share["positives"] * loss
    if name == "bce":
        loss = losses.bce(seen.logits[known], labels)
    elif seen.kind == "bi_encoder":
        loss = losses.contrastive(seen.scores[known], labels)
    else:
        loss = losses.mse(seen.unit[known], labels)
    return term.weight * batch.share["labelled"] * loss


def _score_match(term: ScoreMatch, seen: Seen) -> Tensor | None:
    batch, teacher, temperature = seen.batch, str(term.taught_by), term.temperature
    if not len(batch.slots if term.loss == "kl" else seen.scores):
        return None
    if term.loss == "kl":
        student, targets = seen.logits[batch.slots], seen.teacher_logits(teacher)[batch.slots]
        loss = losses.kl_divergence(student, targets, batch.slot_mask, temperature, term.teacher_temperature)
        return term.weight * batch.share["groups"] * loss
    if term.loss == "mse":
        loss = losses.mse(seen.unit, seen.teacher_unit(teacher))
    elif term.loss == "logit_mse":
        loss = losses.mse(seen.logits, seen.teacher_logits(teacher))
    else:
        probability = seen.teacher_unit(teacher, term.teacher_temperature or temperature)
        loss = temperature**2 * losses.bce(seen.logits / temperature, probability)
    return term.weight * batch.share["pairs"] * loss


def _cosent(term: CoSent, seen: Seen) -> Tensor | None:
    """Return CoSENT over all pairs, or over those with a label."""
    batch, scale = seen.batch, term.scale or _COSENT_SCALE[seen.kind]
    if not len(seen.scores):
        return None
    if term.taught_by is not None:
        loss = losses.cosent(seen.scores, batch.teacher_scores[term.taught_by], scale)
        return term.weight * batch.share["pairs"] * loss
    if batch.labels is None:
        return None
    known = torch.isfinite(batch.labels)
    return term.weight * batch.share["labelled"] * losses.cosent(seen.scores[known], batch.labels[known], scale)


# ---------------------------------------------------------------------------------------------------------------------
# Lists
# ---------------------------------------------------------------------------------------------------------------------


def _margin_mse(term: MarginMatch, seen: Seen) -> Tensor | None:
    batch = seen.batch
    if not len(batch.slots):
        return None
    teacher = seen.teacher_logits(str(term.taught_by))
    loss = losses.margin_mse(seen.logits[batch.slots], teacher[batch.slots], batch.slot_mask)
    return term.weight * batch.share["groups"] * loss


def _list(term: ListTerm, seen: Seen) -> Tensor | None:
    """Return a loss over lists: all with a teacher's scores, or those whose labels differ."""
    batch, mask = seen.batch, seen.batch.slot_mask
    if not len(batch.slots):
        return None
    if term.taught_by is not None:
        student, targets = seen.logits[batch.slots], seen.teacher_logits(term.taught_by)[batch.slots]
        relevance = seen.teacher_unit(term.taught_by)[batch.slots]
        return term.weight * batch.share["groups"] * _list_loss(term, student, targets, relevance, mask)
    if batch.labels is None:
        return None
    labels = batch.labels[batch.slots]
    mask = mask & torch.isfinite(labels)
    high, low = (labels.masked_fill(~mask, fill) for fill in (float("-inf"), float("inf")))
    ordered = high.amax(dim=1) > low.amin(dim=1)
    if not ordered.any():
        return 0.0 * seen.scores.sum()
    labels, mask = labels.masked_fill(~mask, 0.0)[ordered], mask[ordered]
    loss = _list_loss(term, seen.logits[batch.slots][ordered], labels, labels, mask)
    return term.weight * batch.share["ordered"] * loss


def _list_loss(term: ListTerm, student: Tensor, targets: Tensor, relevance: Tensor, mask: Tensor) -> Tensor:
    if isinstance(term, ListNet):
        return losses.listnet(student, targets, mask, term.temperature, term.teacher_temperature)
    if isinstance(term, RankNet):
        return losses.ranknet(student, targets, mask, soft=term.is_soft, temperature=term.temperature)
    if isinstance(term, LambdaLoss):
        return losses.lambda_loss(
            student,
            targets,
            relevance,
            mask,
            soft=term.is_soft,
            temperature=term.temperature,
            scheme=term.scheme,
            mu=term.mu,
            k=term.k,
        )
    if isinstance(term, ListMle):
        return losses.list_mle(student, targets, mask, position_aware=term.position_aware)
    if isinstance(term, AdrMse):
        return losses.adr_mse(student, targets, mask, term.alpha)
    raise TypeError(f"{type(term).__name__} is no loss over lists")


# ---------------------------------------------------------------------------------------------------------------------
# Texts
# ---------------------------------------------------------------------------------------------------------------------


def _embedding_match(term: EmbeddingMatch, seen: Seen) -> Tensor | None:
    if seen.embeddings is None or seen.batch.teacher_embeddings is None:
        return None
    projected, teacher = seen.projected(seen.embeddings), seen.batch.teacher_embeddings.float()
    if projected.shape[1] < teacher.shape[1]:  # a prefix (Matryoshka), so the target is the teacher's prefix
        teacher = nn.functional.normalize(teacher[:, : projected.shape[1]], dim=-1)
    known = torch.isfinite(teacher) if seen.some_unread else None
    loss_of_embeddings = losses.embedding_cosine if term.loss == "cosine" else losses.embedding_mse
    if not seen.block_widths:
        return term.weight * seen.batch.share["texts"] * loss_of_embeddings(projected, teacher, known)
    block_losses, start = [], 0
    for share, width in zip(term.shares.values(), seen.block_widths, strict=True):
        block = slice(start, start := start + width)
        known_in_block = None if known is None else known[:, block]
        block_losses.append(share * loss_of_embeddings(projected[:, block], teacher[:, block], known_in_block))
    return term.weight * seen.batch.share["texts"] * torch.stack(block_losses).sum()


def _relation(term: RelationTerm, seen: Seen) -> Tensor | None:
    """Return a loss on the distances between the distinct texts, in unit length."""
    batch = seen.batch
    if seen.embeddings is None or batch.distinct is None:
        return None
    teacher_vectors, distinct = batch.relations[term.teacher], batch.distinct
    if seen.some_unread:
        distinct = distinct[torch.isfinite(teacher_vectors[distinct]).all(dim=-1)]
    student = nn.functional.normalize(seen.embeddings[distinct], dim=-1)
    teacher = nn.functional.normalize(teacher_vectors[distinct].float(), dim=-1)
    if len(student) < 2:
        return 0.0 * seen.scores.sum()
    return term.weight * batch.share["texts"] * _relation_loss(term, student, teacher)


def _relation_loss(term: RelationTerm, student: Tensor, teacher: Tensor) -> Tensor:
    if isinstance(term, Rkd):
        n = term.angle_texts
        distance = term.distance * losses.rkd_distance(student, teacher)
        return distance + term.angle * losses.rkd_angle(student[:n], teacher[:n]) if term.angle else distance
    if isinstance(term, Similarity):
        if term.loss == "mse":
            return losses.similarity_mse(student, teacher)
        return losses.similarity_kl(student, teacher, term.temperature, term.teacher_temperature)
    return losses.cka(student, teacher)
