"""From what a recipe asks for to what a training step computes.

A step is an `nn.Module` around a sentence-transformers model: `forward(batch)` returns named, weighted losses, each the
batch's share of the mean over the whole optimizer step. The loop adds them up; it does not know a teacher from a
student. The step also holds what is learned beside the model: a projection into the teacher's space, and the affine map
that turns a bi-encoder's cosine into a logit (scale and bias), so that BCE and KL see no squashed scores.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill.data.tokens import bags
from distill.files.artefact import ModelKind
from distill.models.modeling import is_static
from distill.recipe.schema import EmbeddingMatch, LabelLoss, Labels, Matryoshka, Objectives, ScoreMatch
from distill.training import losses
from distill.training.task import TaskStep
from distill.training.trainset import Basis, Batch

__all__ = ["DEFAULT_LOSS", "Step", "matryoshka_shares", "teacher_logits", "teacher_unit"]

DEFAULT_LOSS: dict[str, LabelLoss] = {"cross_encoder": "bce", "bi_encoder": "contrastive"}


def teacher_logits(scores: Tensor, kind: ModelKind, scale: float) -> Tensor:
    """Return a teacher's scores on a logit scale: as they are (cross-encoder) or `scale` times the cosine."""
    return scores if kind == "cross_encoder" else scale * scores


def teacher_unit(scores: Tensor, kind: ModelKind, temperature: float = 1.0) -> Tensor:
    """Return a teacher's probability at a temperature: σ(z/τ), with z a cross-encoder's logit, or that of p = (cos + 1)/2.

    The student's logits are divided by τ, too, so that a student of the teacher's own probabilities is the best one at any τ.

    >>> teacher_unit(torch.tensor([0.8]), "bi_encoder"), teacher_unit(torch.tensor([0.8]), "bi_encoder", 4.0)
    (tensor([0.9000]), tensor([0.6340]))
    """
    if kind == "cross_encoder":
        return torch.sigmoid(scores / temperature)
    unit = ((scores + 1) / 2).clamp(0, 1)  # rounding takes a cosine over 1
    return unit if temperature == 1 else torch.sigmoid(torch.logit(unit) / temperature)


def _sides(batch: Batch, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit vectors of queries and documents; of a side that is not learned the teacher's.

    *Shape:* embeddings: (n_sequences, width); result: (n_pairs, width) each
    """
    unit = nn.functional.normalize(embeddings, dim=-1)
    if batch.other_embeddings is None:
        return unit[batch.query_rows], unit[batch.document_rows]
    own, other = unit[batch.query_rows], nn.functional.normalize(batch.other_embeddings.float(), dim=-1)
    return (own, other) if batch.other_role else (other, own)


class Step(TaskStep):
    """One training step of a bi-encoder or cross-encoder.

    :param model: a sentence-transformers `SentenceTransformer` or `CrossEncoder`
    :param teacher_kinds: the kind of each teacher whose scores a batch carries, for their scale
    :param projected_width: the teacher's width, where embeddings are matched through a projection that is dropped afterwards
    """

    def __init__(
        self,
        model: Any,
        kind: ModelKind,
        objectives: Objectives,
        *,
        teacher_kinds: dict[str, ModelKind] | None = None,
        projected_width: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.kind, self.objectives = model, kind, objectives
        self.is_static = is_static(model)
        self.teacher_kinds = teacher_kinds or {}
        if kind == "bi_encoder" and self._needs_logits():
            self.scale_and_bias = nn.Parameter(torch.tensor([objectives.logit_scale, 0.0]))
        self.projection = None
        if projected_width is not None:
            self.projection = nn.Linear(model.get_embedding_dimension(), projected_width, bias=False)

    def _needs_logits(self) -> bool:
        labels, scores = self.objectives.labels, self.objectives.score_match
        by_labels = labels is not None and labels.loss == "bce"
        by_scores = scores is not None and scores.loss != "mse"
        return by_labels or by_scores or self.objectives.margin_mse is not None

    def beside_the_model(self) -> list[nn.Parameter]:
        """Return the parameters that are learned beside the model."""
        own = [] if self.projection is None else list(self.projection.parameters())
        return own if self.scale_and_bias is None else [*own, self.scale_and_bias]

    def learns_from(self, totals: Mapping[Basis, int]) -> bool:
        """Tell whether a step that holds so many pairs, groups, texts and positives has a loss at all."""
        objectives = self.objectives
        by_labels, by_scores = objectives.labels, objectives.score_match
        bases: list[Basis] = []
        if by_labels is not None:
            bases.append("positives" if by_labels.loss == "infonce" else "pairs")
        if by_scores is not None:
            bases.append("groups" if by_scores.loss == "kl" else "pairs")
        if objectives.margin_mse is not None:
            bases.append("groups")
        if objectives.embedding_match is not None:
            bases.append("texts")
        return any(totals[basis] for basis in bases)

    def forward(self, batch: Batch, *, predict: bool = False) -> dict[str, Tensor]:
        """Return the weighted losses by name, or, to `predict`, {"scores": (n_pairs,)} (cosines or logits)."""
        if self.kind == "cross_encoder":
            output = self._run(batch, "scores").squeeze(-1)  # (n_pairs,)
            scores, embeddings = output, None
        else:
            embeddings = self._run(batch, "sentence_embedding")  # (n_sequences, width)
            scores = _cosines(embeddings, batch)
        if predict:
            return {"scores": scores}
        with torch.autocast(scores.device.type, enabled=False):
            terms = self._losses_at_widths(batch, scores, embeddings)
            return {**terms, "nothing": self._nothing(scores, embeddings)}

    def _run(self, batch: Batch, output: str) -> Tensor:
        inputs = [bags(part) for part in batch.inputs] if self.is_static else [dict(part) for part in batch.inputs]
        parts = [self.model(part)[output].float() for part in inputs]
        return torch.cat(parts)[batch.order]

    def _losses_at_widths(self, batch: Batch, scores: Tensor, embeddings: Tensor | None) -> dict[str, Tensor]:
        """Return each loss as its weighted mean over the widths of the Matryoshka, or at the whole width where there is none."""
        if self.objectives.matryoshka is None or embeddings is None:
            return self._losses(batch, scores, embeddings)
        terms: dict[str, Tensor] = {}
        for width, share in matryoshka_shares(self.objectives.matryoshka, embeddings.shape[1]).items():
            prefix = nn.functional.normalize(embeddings[:, :width], dim=-1)
            for name, loss in self._losses(batch, _cosines(prefix, batch), prefix).items():
                terms[name] = terms[name] + share * loss if name in terms else share * loss
        return terms

    def _losses(self, batch: Batch, scores: Tensor, embeddings: Tensor | None) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        objectives = self.objectives
        if objectives.labels is not None and batch.labels is not None and len(scores):
            terms["labels"] = self._labels(objectives.labels, batch, scores, embeddings)
        if objectives.score_match is not None and (
            len(batch.slots) if objectives.score_match.loss == "kl" else len(scores)
        ):
            terms["score_match"] = self._score_match(objectives.score_match, batch, scores)
        margin = objectives.margin_mse
        if margin is not None and len(batch.slots):
            teacher = self._teacher_logits(batch, margin.teacher)
            loss = losses.margin_mse(self._logits(scores)[batch.slots], teacher[batch.slots], batch.slot_mask)
            terms["margin_mse"] = margin.weight * batch.share["groups"] * loss
        match = objectives.embedding_match
        if match is not None and embeddings is not None and batch.teacher_embeddings is not None:
            terms["embedding_match"] = self._embedding_match(match, batch, embeddings)
        return terms

    def _nothing(self, scores: Tensor, embeddings: Tensor | None) -> Tensor:
        """Zero that depends on every parameter: DDP waits for the gradient of each, used in this pass or not."""
        output = scores if embeddings is None else embeddings
        return 0.0 * sum((parameter.sum() for parameter in self.beside_the_model()), start=output.sum())

    def _logits(self, scores: Tensor) -> Tensor:
        if self.scale_and_bias is None:
            return scores
        return self.scale_and_bias[0] * scores + self.scale_and_bias[1]

    def _teacher_logits(self, batch: Batch, teacher: str) -> Tensor:
        scale = self.objectives.teacher_logit_scale
        return teacher_logits(batch.teacher_scores[teacher], self.teacher_kinds[teacher], scale)

    def _unit(self, scores: Tensor) -> Tensor:
        return torch.sigmoid(scores) if self.kind == "cross_encoder" else (scores + 1) / 2

    def _labels(self, term: Labels, batch: Batch, scores: Tensor, embeddings: Tensor | None) -> Tensor:
        name = term.loss or DEFAULT_LOSS[self.kind]
        if batch.labels is None:
            raise ValueError("a batch without labels has no label loss")
        known = torch.isfinite(batch.labels)  # pairs without a label have no part in it, not as negatives either
        if not known.any():
            return 0.0 * scores.sum()
        labels = batch.labels[known]
        if name == "infonce" and embeddings is not None and batch.excluded is not None:
            queries, documents = (side[known] for side in _sides(batch, embeddings))
            excluded = batch.excluded[known][:, known]
            loss = losses.in_batch_infonce(queries, documents, labels >= term.positive_from, excluded, term.temperature)
            return term.weight * batch.share["positives"] * loss
        if name == "bce":
            loss = losses.bce(self._logits(scores[known]), labels)
        elif self.kind == "bi_encoder":
            loss = losses.contrastive(scores[known], labels)
        else:
            loss = losses.mse(self._unit(scores[known]), labels)
        return term.weight * batch.share["labelled"] * loss

    def _score_match(self, term: ScoreMatch, batch: Batch, scores: Tensor) -> Tensor:
        teacher, kind = batch.teacher_scores[term.teacher], self.teacher_kinds[term.teacher]
        temperature = term.temperature
        if term.loss == "kl":
            student = self._logits(scores)[batch.slots]
            logits = self._teacher_logits(batch, term.teacher)[batch.slots]
            loss = losses.kl_divergence(student, logits, batch.slot_mask, temperature)
            return term.weight * batch.share["groups"] * loss
        if term.loss == "mse":
            loss = losses.mse(self._unit(scores), teacher_unit(teacher, kind))
        elif term.loss == "logit_mse":
            loss = losses.mse(self._logits(scores), self._teacher_logits(batch, term.teacher))
        else:
            loss = temperature**2 * losses.bce(
                self._logits(scores) / temperature, teacher_unit(teacher, kind, temperature)
            )
        return term.weight * batch.share["pairs"] * loss

    def _embedding_match(self, term: EmbeddingMatch, batch: Batch, embeddings: Tensor) -> Tensor:
        projected = embeddings if self.projection is None else self.projection(embeddings)
        if batch.teacher_embeddings is None:
            raise ValueError("a batch without teacher embeddings has no embedding loss")
        teacher = batch.teacher_embeddings.float()
        if projected.shape[1] < teacher.shape[1]:  # a prefix, and so is what it is to match
            teacher = nn.functional.normalize(teacher[:, : projected.shape[1]], dim=-1)
        loss_of = losses.embedding_cosine if term.loss == "cosine" else losses.embedding_mse
        return term.weight * batch.share["texts"] * loss_of(projected, teacher)


def matryoshka_shares(settings: Matryoshka, whole: int) -> dict[int, float]:
    """Return what each width counts in the mean over all; the whole width is always among them.

    >>> matryoshka_shares(Matryoshka(dimensions=(64, 32)), 128)
    {64: 0.333333, 32: 0.333333, 128: 0.333333}
    >>> matryoshka_shares(Matryoshka(dimensions=(128, 64), weights=(3.0, 1.0)), 128)
    {128: 0.75, 64: 0.25}
    """
    weights = dict(zip(settings.dimensions, settings.weights or (1.0,) * len(settings.dimensions), strict=True))
    weights.setdefault(whole, 1.0)
    total = sum(weights.values())
    return {width: weight / total for width, weight in weights.items()}


def _cosines(embeddings: Tensor, batch: Batch) -> Tensor:
    """Return the cosine of each pair. *Shape:* (n_sequences, width) → (n_pairs,)."""
    queries, documents = _sides(batch, embeddings)
    return (queries * documents).sum(dim=-1)
