"""The training step that computes the losses of a recipe's objectives.

A step is an `nn.Module` around a sentence-transformers model: `forward(batch)` returns named, weighted losses, each the
batch's share of the mean over the whole optimizer step. The loop adds them up; it does not distinguish teachers from
students. The step also has the parameters beside the model: a projection into the teacher's space, and the scale and
bias that turn a bi-encoder's cosine into a logit, because BCE and KL need scores that are not limited to [−1, 1].
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from distill.data.tokens import bags
from distill.files.artefact import ModelKind
from distill.models.modeling import is_static
from distill.recipe.objectives import Matryoshka, Objectives
from distill.training.layer_terms import LayerLosses
from distill.training.task import TaskStep
from distill.training.terms import (
    DEFAULT_LOSS,
    Seen,
    basis_of,
    loss_of,
    sides,
    teacher_logits,
    teacher_unit,
)
from distill.training.trainset import Basis, Batch

__all__ = ["DEFAULT_LOSS", "Step", "matryoshka_shares", "teacher_logits", "teacher_unit"]


class Step(TaskStep):
    """One training step of a bi-encoder or cross-encoder.

    :param model: a sentence-transformers `SentenceTransformer` or `CrossEncoder`
    :param teacher_kinds: the kind of each teacher whose scores a batch carries, for their scale
    :param projected_width: the teacher's width, if embeddings are matched through a projection that is dropped after
        training
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
        if kind == "bi_encoder" and any(term.compares_logits for term in objectives.terms().values()):
            self.scale_and_bias = nn.Parameter(torch.tensor([objectives.logit_scale, 0.0]))
        self.block_widths: tuple[int, ...] = ()  # for several teachers whose embeddings are matched separately
        self.some_unread = False  # some teacher does not read all texts
        self.axes: Tensor | None = None  # (teacher_width, width): the axes of the student's dimensions
        self.layer_losses: LayerLosses | None = None  # of the terms on layers, where there are any
        self.projection = None
        if projected_width is not None:
            self.projection = nn.Linear(model.get_embedding_dimension(), projected_width, bias=False)

    def beside_the_model(self) -> list[nn.Parameter]:
        """Return the parameters that are learned beside the model."""
        parts = [part for part in (self.projection, self.layer_losses) if part is not None]
        parameters = [parameter for part in parts for parameter in part.parameters()]
        return parameters if self.scale_and_bias is None else [*parameters, self.scale_and_bias]

    def factors(self, share: float) -> dict[str, float]:
        """Return each term's factor by its schedule, after a share of the steps."""
        return self.objectives.factors(share)

    def learns_from(self, totals: Mapping[Basis, int], factors: Mapping[str, float] | None = None) -> bool:
        """Tell whether a step with these numbers of pairs, groups, texts and positives has any loss."""
        active_terms = {
            name: term for name, term in self.objectives.terms().items() if (factors or {}).get(name, 1.0) > 0
        }
        return any(totals.get(basis_of(term), 0) for term in active_terms.values())

    def forward(
        self,
        batch: Batch,
        *,
        predict: bool = False,
        outputs_only: bool = False,
        pulls: tuple[Tensor, list[Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """Return the weighted losses by name, or, with `predict`, {"scores": (n_pairs,)} (cosines or logits).

        :param outputs_only: return {"outputs": the argument of `losses_of`} instead
        :param pulls: gradients of a loss with respect to these outputs and to the parameters beside the model: return a
            number that has these gradients (none for outputs of weight zero), together with the losses on layers
        """
        layers = None if outputs_only or predict else self.layer_losses
        with nullcontext([]) if layers is None else layers.watching() as passes:
            outputs = self._outputs(batch)
        if outputs_only:
            return {"outputs": outputs}
        if predict:
            return {"scores": self._scores(batch, outputs)}
        with torch.autocast(outputs.device.type, enabled=False):
            terms = self.losses_of(batch, outputs) if pulls is None else {"pull": self._pull(outputs, *pulls)}
            terms |= {} if layers is None else layers.losses_of(batch, passes)
            return {**terms, "nothing": self._nothing(outputs)}

    def losses_of(self, batch: Batch, outputs: Tensor) -> dict[str, Tensor]:
        """Return the weighted losses by name of embeddings (n_sequences, width), or of a cross-encoder's scores (n_pairs,)."""
        embeddings = None if self.kind == "cross_encoder" else outputs
        return self._losses_at_widths(batch, self._scores(batch, outputs), embeddings)

    def _outputs(self, batch: Batch) -> Tensor:
        if self.kind == "cross_encoder":
            return self._run(batch, "scores").squeeze(-1)  # (n_pairs,)
        return self._run(batch, "sentence_embedding")  # (n_sequences, width)

    def _scores(self, batch: Batch, outputs: Tensor) -> Tensor:
        return outputs if self.kind == "cross_encoder" else _cosines(outputs, batch)

    def _pull(self, outputs: Tensor, gradient: Tensor, beside_gradients: list[Tensor]) -> Tensor:
        pulled = (outputs[: len(gradient)] * gradient).sum()
        parameters = self.beside_the_model() if beside_gradients else []
        return sum(
            (
                (parameter * parameter_gradient).sum()
                for parameter, parameter_gradient in zip(parameters, beside_gradients, strict=True)
            ),
            start=pulled,
        )

    def _run(self, batch: Batch, output: str) -> Tensor:
        inputs = [bags(part) for part in batch.inputs] if self.is_static else [dict(part) for part in batch.inputs]
        parts = [self.model(part)[output].float() for part in inputs]
        outputs = torch.cat(parts)[batch.order]
        if self.is_static:  # at zero the gradient of the normalisation is 1 / eps: clipped, it leaves nothing of a step
            outputs = outputs.masked_fill(~outputs.detach().bool().any(dim=-1, keepdim=True), 0.0)
        return outputs

    def _losses_at_widths(self, batch: Batch, scores: Tensor, embeddings: Tensor | None) -> dict[str, Tensor]:
        """Return each loss as its weighted mean over the Matryoshka widths, or at the whole width without them."""
        if self.objectives.matryoshka is None or embeddings is None:
            return self._losses(batch, scores, embeddings)
        terms: dict[str, Tensor] = {}
        for width, share in matryoshka_shares(self.objectives.matryoshka, embeddings.shape[1]).items():
            prefix = nn.functional.normalize(embeddings[:, :width], dim=-1)
            for name, loss in self._losses(batch, _cosines(prefix, batch), prefix).items():
                terms[name] = terms[name] + share * loss if name in terms else share * loss
        return terms

    def _losses(self, batch: Batch, scores: Tensor, embeddings: Tensor | None) -> dict[str, Tensor]:
        seen = Seen(
            batch,
            self.kind,
            scores,
            self._logits(scores),
            embeddings,
            self.teacher_kinds,
            projected=self._projected,
            teacher_logit_scale=self.objectives.teacher_logit_scale,
            block_widths=self.block_widths,
            some_unread=self.some_unread,
        )
        losses = {name: loss_of(term, seen) for name, term in self.objectives.terms().items()}
        return {name: loss for name, loss in losses.items() if loss is not None}

    def _projected(self, embeddings: Tensor) -> Tensor:
        """Map embeddings, or their first dimensions, into the matched teacher's space."""
        if self.axes is not None:
            return embeddings @ self.axes[:, : embeddings.shape[1]].T.to(embeddings)
        return embeddings if self.projection is None else self.projection(embeddings)

    def _nothing(self, outputs: Tensor) -> Tensor:
        """Return a zero that depends on every parameter, because DDP waits for every gradient in every pass."""
        return 0.0 * sum((parameter.sum() for parameter in self.beside_the_model()), start=outputs.sum())

    def _logits(self, scores: Tensor) -> Tensor:
        if self.scale_and_bias is None:
            return scores
        return self.scale_and_bias[0] * scores + self.scale_and_bias[1]


def matryoshka_shares(settings: Matryoshka, whole: int) -> dict[int, float]:
    """Return each width's weight in the mean over all widths; the whole width is always included.

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
    queries, documents = sides(batch, embeddings)
    return (queries * documents).sum(dim=-1)
