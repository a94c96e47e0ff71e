"""The terms of `objectives` on layers: the mapping of layers, the states that are read, and the losses of a pass.

student's pass ──▶ hooks ──▶ states, queries, keys, values ─┐
the same tokens ──▶ live teacher, no gradient ──▶ the same ─┴─▶ mean over real tokens × the pass's share of the step's tokens
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from distill.errors import BadInput
from distill.models.layers import EncoderLayers, SeenLayers, Vectors
from distill.models.modeling import tokenizer_of
from distill.recipe.objectives import HiddenMatch, LayerTerm, Objectives, RelationMatch
from distill.training import losses
from distill.training.live_teacher import LiveTeacher, token_ids
from distill.training.trainset import Batch

__all__ = ["LayerLosses", "map_layers", "relation_layer"]

# attention scores are exactly q·k/√d: no added positions, no rotation
_PLAIN_ATTENTION = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
_LARGE = 24  # with this many layers or more, an upper middle layer teaches better than the last (Wang et al. 2021)
_UPPER_MIDDLE = 19 / 24
_SHOWN_HEADS = 6


def map_layers(choice: str, n_student: int, n_teacher: int) -> dict[int, int]:
    """Return the teacher's layer of each student's layer by a rule, both counted from 0.

    uniform: ⌈(i+1)·n_teacher/n_student⌉ − 1 (TinyBERT). last: i + n_teacher − n_student (PKD-Last, Sun et al. 2019, with the last
    layer). skip: (i+1)·⌊n_teacher/n_student⌋ − 1 for all but the student's last (PKD-Skip).

    >>> [map_layers(choice, 3, 12) for choice in ("uniform", "last", "skip")]
    [{0: 3, 1: 7, 2: 11}, {0: 9, 1: 10, 2: 11}, {0: 3, 1: 7}]
    >>> map_layers("uniform", 4, 6), map_layers("skip", 3, 7)
    ({0: 1, 1: 2, 2: 4, 3: 5}, {0: 1, 1: 3})
    """
    if choice == "uniform":
        return {layer: -(-(layer + 1) * n_teacher // n_student) - 1 for layer in range(n_student)}
    if choice == "last":
        return {layer: layer + n_teacher - n_student for layer in range(n_student)}
    return {layer: (layer + 1) * (n_teacher // n_student) - 1 for layer in range(n_student - 1)}


def relation_layer(n_layers: int) -> int:
    """Return the teacher's layer whose relations are learned by default, counted from 0.

    >>> relation_layer(12), relation_layer(24)  # the last; the 19th
    (11, 18)
    """
    return n_layers - 1 if n_layers < _LARGE else round(_UPPER_MIDDLE * n_layers) - 1


class _Plan(Protocol):
    """The layers and states that a term reads, and its loss."""

    @property
    def term(self) -> LayerTerm: ...
    @property
    def pairs(self) -> Sequence[tuple[int, int]]:
        """Layers of student and teacher."""

    @property
    def reads(self) -> tuple[bool, bool, bool]:
        """Whether it reads states, queries to values, and embeddings."""

    def loss(self, student: SeenLayers, teacher: SeenLayers, mask: Tensor) -> Tensor:
        """Return the loss, a mean over real tokens."""


@dataclass(frozen=True)
class _HiddenPlan:
    term: HiddenMatch
    pairs: Sequence[tuple[int, int]]
    n_heads: int
    projections: nn.ModuleDict

    @property
    def reads(self) -> tuple[bool, bool, bool]:
        return True, self.term.attention is not None, self.term.embeddings

    def loss(self, student: SeenLayers, teacher: SeenLayers, mask: Tensor) -> Tensor:
        compare = losses.token_mse if self.term.loss == "mse" else losses.token_cosine
        layer_losses = [
            compare(self._projected("states", student.states[student_layer]), teacher.states[teacher_layer], mask)
            for student_layer, teacher_layer in self.pairs
        ]
        if student.embeddings is not None and teacher.embeddings is not None and self.term.embeddings:
            layer_losses.append(compare(self._projected("embeddings", student.embeddings), teacher.embeddings, mask))
        hidden = torch.stack(layer_losses).mean()
        return hidden if self.term.attention is None else hidden + self._attention(student, teacher, mask)

    def _projected(self, what: str, states: Tensor) -> Tensor:
        projected: Tensor = self.projections[what](states.float()) if what in self.projections else states
        return projected

    def _attention(self, student: SeenLayers, teacher: SeenLayers, mask: Tensor) -> Tensor:
        compare = losses.attention_mse if self.term.attention == "mse" else losses.attention_kl
        sides = [
            (_queries_and_keys(student, student_layer), _queries_and_keys(teacher, teacher_layer))
            for student_layer, teacher_layer in self.pairs
        ]
        return torch.stack(
            [compare(student_side, teacher_side, mask, self.n_heads) for student_side, teacher_side in sides]
        ).mean()


def _queries_and_keys(seen: SeenLayers, layer: int) -> tuple[Tensor, Tensor]:
    return seen.vectors[layer]["queries"], seen.vectors[layer]["keys"]


@dataclass(frozen=True)
class _RelationPlan:
    term: RelationMatch
    pairs: Sequence[tuple[int, int]]

    @property
    def reads(self) -> tuple[bool, bool, bool]:
        return False, True, False

    @property
    def weights(self) -> dict[Vectors, float]:
        """The weights of the relations that count."""
        weights: dict[Vectors, float] = {
            "queries": self.term.queries,
            "keys": self.term.keys,
            "values": self.term.values,
        }
        return {kind: weight for kind, weight in weights.items() if weight}

    def loss(self, student: SeenLayers, teacher: SeenLayers, mask: Tensor) -> Tensor:
        (student_layer, teacher_layer), heads = self.pairs[0], self.term.heads
        relation_losses = [
            weight
            * losses.relation_kl(
                student.vectors[student_layer][kind], teacher.vectors[teacher_layer][kind], mask, heads
            )
            for kind, weight in self.weights.items()
        ]
        return torch.stack(relation_losses).sum()


class LayerLosses(nn.Module):
    """The terms on layers of a student and its live teachers. Its own parameters are only projections.

    :param student: the sentence-transformers model that is trained
    :raises BadInput: for layers that do not exist, heads that do not divide a width, and encoders of unknown structure
    """

    def __init__(self, objectives: Objectives, student: Any, teachers: Mapping[str, LiveTeacher]) -> None:
        super().__init__()
        self.projections = nn.ModuleDict()
        self.student, self.teachers = EncoderLayers(student, "the student"), dict(teachers)
        self.plans: dict[str, _Plan] = {}
        for name, term in objectives.terms().items():
            if isinstance(term, LayerTerm):
                self.plans[name] = self._plan(f"objectives.{name}", term, self.teachers[term.teacher].layers)
        tokenizer = tokenizer_of(student)
        self.ids = {
            name: torch.from_numpy(token_ids(tokenizer, tokenizer_of(teacher.model)))
            for name, teacher in self.teachers.items()
        }

    def _plan(self, where: str, term: LayerTerm, teacher: EncoderLayers) -> _Plan:
        if isinstance(term, HiddenMatch):
            pairs = _hidden_pairs(where, term, self.student, teacher)
            if self.student.width != teacher.width:
                for what in ("states", *(["embeddings"] if term.embeddings else [])):
                    self.projections[what] = nn.Linear(self.student.width, teacher.width, bias=False)
            if term.attention is not None:
                _check_attention(f"{where}.attention", self.student, teacher)
            return _HiddenPlan(term, pairs, self.student.n_heads, self.projections)
        if isinstance(term, RelationMatch):
            student_layer = _place(f"{where}.student_layer", term.student_layer, self.student)
            teacher_layer = relation_layer(len(teacher)) if term.teacher_layer is None else term.teacher_layer
            plan = _RelationPlan(term, [(student_layer, _place(f"{where}.teacher_layer", teacher_layer, teacher))])
            _check_heads(f"{where}.heads", plan, self.student, teacher)
            return plan
        raise TypeError(f"{type(term).__name__} is no objective on layers")

    def watching(self) -> AbstractContextManager[list[SeenLayers]]:
        """Record the layers of the student's passes inside this context."""
        return self.student.watched(*self._read(list(self.plans.values()), 0))

    def losses_of(self, batch: Batch, passes: Sequence[SeenLayers]) -> dict[str, Tensor]:
        """Return the weighted losses by name of a batch; {} if no sequence has the student's tokens in any teacher.

        :param passes: the student's recorded layers, for each part of the batch
        """
        if batch.alike is None:
            raise ValueError("the batch does not say which sequences student and teachers read alike")
        sizes = [len(part["input_ids"]) for part in batch.inputs]
        by_part = torch.split(torch.empty_like(batch.alike).index_copy(0, batch.order, batch.alike), sizes)
        counts = [int(part["attention_mask"][rows].sum()) for part, rows in zip(batch.inputs, by_part, strict=True)]
        losses_by_term: dict[str, list[Tensor]] = {name: [] for name in self.plans}
        for part, seen, rows, count in zip(batch.inputs, passes, by_part, counts, strict=True):
            if count:
                share = batch.share["tokens"] * count / sum(counts)
                for name, loss in self._losses_of_part(part, seen, rows).items():
                    losses_by_term[name].append(share * loss)
        return {name: torch.stack(parts).sum() for name, parts in losses_by_term.items() if parts}

    def _losses_of_part(self, part: Mapping[str, Tensor], seen: SeenLayers, rows: Tensor) -> dict[str, Tensor]:
        """Return the weighted losses of some sequences, means over their real tokens. *Shape:* rows: (n_sequences,) bool."""
        n_tokens = int(part["attention_mask"][rows].sum(dim=1).max())  # the teacher may have no more positions
        inputs = {name: values[rows, :n_tokens] for name, values in part.items()}
        student, teacher_layers, mask = (
            seen.part(rows, n_tokens),
            self._teacher_layers(inputs),
            inputs["attention_mask"].bool(),
        )
        return {
            name: plan.term.weight * plan.loss(student, teacher_layers[plan.term.teacher], mask)
            for name, plan in self.plans.items()
        }

    @torch.no_grad()
    def _teacher_layers(self, inputs: Mapping[str, Tensor]) -> dict[str, SeenLayers]:
        """Return each teacher's layers for the student's inputs, in its own precision."""
        teacher_layers, device = {}, inputs["input_ids"].device
        for name, teacher in self.teachers.items():
            layers, self.ids[name] = teacher.moved(device), self.ids[name].to(device)
            plans = [plan for plan in self.plans.values() if plan.term.teacher == name]
            in_bf16 = torch.autocast(device.type, dtype=torch.bfloat16, enabled=teacher.precision == "bf16")
            with in_bf16, layers.watched(*self._read(plans, 1)) as passes:
                layers.module(teacher.features(inputs, self.ids[name]))
            teacher_layers[name] = passes[0]
        return teacher_layers

    def _read(self, plans: Sequence[_Plan], side: int) -> tuple[set[int], set[int], bool]:
        """Return the layers whose states and vectors are read, and whether embeddings are: student (0), teacher (1)."""
        states = {pair[side] for plan in plans if plan.reads[0] for pair in plan.pairs}
        vectors = {pair[side] for plan in plans if plan.reads[1] for pair in plan.pairs}
        return states, vectors, any(plan.reads[2] for plan in plans)


def _hidden_pairs(
    where: str, term: HiddenMatch, student: EncoderLayers, teacher: EncoderLayers
) -> list[tuple[int, int]]:
    if not isinstance(term.layers, str):
        pairs = [
            (_place(f"{where}.layers", student_layer, student), _place(f"{where}.layers", teacher_layer, teacher))
            for student_layer, teacher_layer in term.layers.items()
        ]
        if len({student_layer for student_layer, _ in pairs}) < len(pairs):
            raise BadInput(f"{where}.layers: {term.layers} names a layer of the student twice; name each once")
        return pairs
    n_student, n_teacher = len(student), len(teacher)
    if term.layers != "uniform" and n_student > n_teacher:
        raise BadInput(
            f"{where}.layers: {term.layers} matches {n_student} layers of the student with {n_teacher} of the teacher; set uniform, or name pairs of layers"
        )
    pairs = list(map_layers(term.layers, n_student, n_teacher).items())
    if not pairs:
        raise BadInput(f"{where}.layers: skip leaves out the one layer that the student has; set uniform or last")
    return pairs


def _place(where: str, layer: int, layers: EncoderLayers) -> int:
    place = layers.place(layer)
    if place is None:
        raise BadInput(
            f"{where}: {layers.who} has no layer {layer}; it has {len(layers)}, 0 to {len(layers) - 1}, or -1 for the last"
        )
    return place


def _check_attention(where: str, student: EncoderLayers, teacher: EncoderLayers) -> None:
    for layers in (student, teacher):
        if layers.kind not in _PLAIN_ATTENTION:
            raise BadInput(
                f"{where}: {layers.who} is of type {layers.kind}, whose attention is more than queries times keys; accepted: {', '.join(_PLAIN_ATTENTION)}; use relation_match"
            )
        layers.widths(0)
    if student.n_heads != teacher.n_heads:
        raise BadInput(
            f"{where}: the student has {student.n_heads} attention heads, {teacher.who} {teacher.n_heads}, and maps are matched head by head; use relation_match"
        )


def _check_heads(where: str, plan: _RelationPlan, student: EncoderLayers, teacher: EncoderLayers) -> None:
    (student_layer, teacher_layer), heads = plan.pairs[0], plan.term.heads
    sides = {layers.who: layers.widths(layer) for layers, layer in ((student, student_layer), (teacher, teacher_layer))}
    widths = sorted({widths[kind] for widths in sides.values() for kind in plan.weights})
    if any(width % heads for width in widths):
        common = [n for n in range(1, widths[0] + 1) if not any(width % n for width in widths)]
        shown = ", ".join(str(n) for n in common[-_SHOWN_HEADS:])
        raise BadInput(
            f"{where}: {heads} does not divide the widths of queries, keys and values ({', '.join(map(str, widths))}); set one of {shown}"
        )
