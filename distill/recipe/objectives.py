"""What the student learns from: the sections of `objectives`, each one weighted and scheduled term of the loss.

The fields of `Objectives` list all terms. Each term class defines which signals it needs and what it compares. The
formulas are in the loss functions (`distill.training.losses`) and on the page docs/explanations/losses.md.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from distill.recipe.section import Count, Name, Positive, Section

__all__ = [
    "AdrMse",
    "Cka",
    "CoSent",
    "EmbeddingMatch",
    "Guide",
    "HiddenMatch",
    "LabelLoss",
    "Labels",
    "LambdaLoss",
    "LayerTerm",
    "ListMle",
    "ListNet",
    "ListTerm",
    "MarginMatch",
    "Matryoshka",
    "Mixing",
    "Objectives",
    "RankNet",
    "RelationMatch",
    "RelationTerm",
    "Rkd",
    "Schedule",
    "ScoreMatch",
    "ScoreTerm",
    "SignalKind",
    "Similarity",
    "SoleLoss",
    "Term",
    "by_labels_alone",
]

LabelLoss = Literal["bce", "mse", "contrastive", "infonce"]
SoleLoss = Literal[LabelLoss, "cosent"]
"""The loss of a model that learns from labels alone: a loss of `objectives.labels`, or the term `objectives.cosent`."""
SignalKind = Literal["scores", "embeddings"]
StepShare = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0, le=1e30)]


class Schedule(Section):
    """How the weight of a term changes during training: a factor on `weight` that depends on the step alone.

    linear, cosine: the factor is `from` until `start`, changes to `to` between `start` and `end`, and stays there.
    constant: the factor is 1 between `start` and `end`, and 0 outside. Steps are given as shares of the whole training:
    0 is the first step, 1 the last.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    kind: Literal["constant", "linear", "cosine"] = "linear"
    """linear changes the factor linearly, cosine along half a cosine wave, constant not at all."""
    first: NotNegative = Field(default=0.0, alias="from")
    """The factor before the change (linear, cosine)."""
    last: NotNegative = Field(default=1.0, alias="to")
    """The factor after the change (linear, cosine)."""
    start: StepShare = 0.0
    """Share of the steps at which the change begins (linear, cosine), or at which the term begins (constant)."""
    end: StepShare = 1.0
    """Share of the steps at which the change ends (linear, cosine), or at which the term ends (constant)."""

    @model_validator(mode="after")
    def _sound(self) -> "Schedule":
        if self.start >= self.end:
            raise ValueError(f"start {self.start:g} is not before end {self.end:g}")
        if self.kind == "constant" and {"first", "last"} & self.model_fields_set and (self.first, self.last) != (0, 1):
            raise ValueError(
                "from and to belong to kind linear and cosine; a constant schedule has start and end alone"
            )
        if self.kind == "constant" and (self.start, self.end) == (0, 1):
            raise ValueError("a constant schedule from 0 to 1 changes nothing; set start or end, or leave it out")
        if self.kind != "constant" and self.first == self.last:
            raise ValueError(f"from and to are both {self.first:g}, nothing changes; set the weight instead")
        return self

    def factor(self, share: float) -> float:
        """Return the factor after a share of the steps; 0 is the first step and 1 the last.

        >>> rising = Schedule(kind="linear", first=0.0, last=1.0, start=0.0, end=0.5)
        >>> [rising.factor(share) for share in (0.0, 0.25, 0.5, 1.0)]
        [0.0, 0.5, 1.0, 1.0]
        >>> round(Schedule(kind="cosine", first=1.0, last=0.0).factor(0.25), 4)  # (1 + cos 45°) / 2
        0.8536
        """
        if self.kind == "constant":
            return float(self.start <= share <= self.end)
        done = min(max((share - self.start) / (self.end - self.start), 0.0), 1.0)
        if self.kind == "cosine":
            done = 0.5 * (1 - math.cos(math.pi * done))
        return self.first + (self.last - self.first) * done


class Term(Section):
    """Base of every objective: a weight, and how it changes."""

    signal: ClassVar[SignalKind | None] = None
    """The kind of signal that this term needs from its teachers."""
    couples: ClassVar[bool] = False
    """Whether the term compares the units of a step with each other."""
    silent_at_default: ClassVar[frozenset[str]] = frozenset(
        {
            "schedule",
            "guide",
            "positive_from",
            "teacher_temperature",
            "targets",
            "k",
            "scale",
            "teachers",
            "mixing",
            "combine",
        }
    )

    weight: Positive = 1.0
    """Weight of this term."""
    schedule: Schedule | None = None
    """How the weight changes during training. None keeps it constant."""

    @property
    def compares_logits(self) -> bool:
        """Whether the student's logits are compared, so that a bi-encoder's cosines need a scale and a bias."""
        return False

    @property
    def compares_teacher_logits(self) -> bool:
        """Whether the teacher's logits are compared, so that a bi-encoder teacher's cosines need a scale."""
        return False

    def refuse_unused(
        self, used_by: str, loss: str, names: Sequence[str] = ("temperature", "teacher_temperature")
    ) -> None:
        """Refuse settings that this term's loss does not read.

        :raises ValueError: if one of them has another value than its default
        """
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for {used_by}, not {loss}; leave it out")

    def factor(self, share: float) -> float:
        """Return the schedule's factor on the weight after a share of the steps; 1 without a schedule."""
        return 1.0 if self.schedule is None else self.schedule.factor(share)

    @property
    def named(self) -> tuple[str, ...]:
        """The teachers that the term learns from, the one that counts most first."""
        teacher = getattr(self, "teacher", None)
        return () if teacher is None else (teacher,)

    def needs(self) -> Iterator[tuple[str, SignalKind]]:
        """Yield the teachers that the term uses, each with the kind of signal."""
        for teacher in self.named:
            if self.signal is not None:
                yield teacher, self.signal


class Guide(Section):
    """A teacher that keeps false negatives out of InfoNCE (GISTEmbed, Solatorio 2024).

    A document of the batch is not used as a negative of a query if the teacher finds it about as near as the query's
    own document.
    """

    teacher: str
    """The name of a bi-encoder teacher."""
    margin: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """How much lower than the cosine of the query's own document a document's cosine may be for the document to be left
    out."""
    strategy: Literal["absolute", "relative"] = "absolute"
    """absolute: a document is left out if its cosine is more than own − margin. relative: if it is more than
    own − margin·|own|. own is the cosine of the query's own document."""


class Labels(Term):
    """Learn from the labels."""

    loss: LabelLoss | None = None
    """The loss, as for teachers. None is bce for a cross-encoder, contrastive for a bi-encoder."""
    temperature: Positive = 0.05
    """Temperature of InfoNCE."""
    positive_from: Annotated[float, Field(gt=0, le=1)] = 0.5
    """InfoNCE: a pair is a positive if its label, mapped to [0, 1], is at least this."""
    guide: Guide | None = None
    """A teacher that finds false negatives among the documents of the batch (InfoNCE). None uses the labels alone."""

    @model_validator(mode="after")
    def _of_infonce_alone(self) -> "Labels":
        if self.loss != "infonce":
            self.refuse_unused("loss infonce", self.loss or "the default loss", ("guide",))
        return self

    @property
    def compares_logits(self) -> bool:
        """Whether the student's logits are compared, so that a bi-encoder's cosines need a scale and a bias."""
        return self.loss == "bce"

    def needs(self) -> Iterator[tuple[str, SignalKind]]:
        """Yield the guide, whose embeddings identify false negatives."""
        if self.guide is not None:
            yield self.guide.teacher, "embeddings"


class Mixing(Section):
    """How the scores of several teachers become one probability, and from it one logit.

    Each teacher's scores are first calibrated to probabilities on the labels of the validation pairs, because the
    scales and temperatures of teachers are not comparable. The weighted mean of the probabilities is the result.
    """

    calibration: Literal["platt", "isotonic", "temperature"] = "platt"
    """platt: σ(a·score + b) (Platt 1999). temperature: σ(logit / τ) (Guo et al. 2017). isotonic: the best-fitting
    increasing step function (Zadrozny & Elkan 2002), which needs some hundred validation pairs and makes ties."""
    weights: Literal["fixed", "fitted", "agreement"] = "fixed"
    """fixed: the weights of `teachers`, as shares of their sum. fitted: the shares with the greatest likelihood of the
    validation labels, by expectation-maximisation that starts from the weights of `teachers`. agreement: for each pair,
    the weights of `teachers` times the square of the agreement, which is 1 − the mean distance of the teacher's
    probability to those of the others; it needs at least three teachers."""


class ScoreTerm(Term):
    """A term that learns from the scores of one teacher, or of several teachers combined into one."""

    signal: ClassVar[SignalKind | None] = "scores"
    teacher: str | None = None
    """The teacher's name."""
    teachers: dict[Name, Positive] | None = None
    """Several teachers with their weights, such as {a: 0.7, b: 0.3}, in place of `teacher`. Their mixture acts as one
    teacher whose logits are learned."""
    mixing: Mixing | None = None
    """How the scores of several teachers are combined. None takes the defaults."""

    @model_validator(mode="after")
    def _one_or_several(self) -> "ScoreTerm":
        if self.teacher is not None and self.teachers is not None:
            raise ValueError("teacher and teachers both given; name one teacher, or several with their weights")
        if self.teachers is None:
            if self.mixing is not None:
                raise ValueError("mixing is for several teachers; set teachers, or leave it out")
            return self
        if len(self.teachers) < 2:
            raise ValueError(f"teachers names {len(self.teachers)}; two or more are expected, else set teacher")
        if self.how_mixed.weights == "agreement" and len(self.teachers) < 3:
            raise ValueError("mixing.weights: agreement takes three teachers: of two, each agrees with the other alike")
        return self

    @property
    def how_mixed(self) -> Mixing:
        """How several teachers are combined: `mixing`, or its defaults."""
        return self.mixing or Mixing()

    @property
    def named(self) -> tuple[str, ...]:
        """The teachers that the term learns from, the one that counts most first."""
        if self.teachers is None:
            return super().named
        return tuple(sorted(self.teachers, key=lambda name: -(self.teachers or {})[name]))

    @property
    def taught_by(self) -> str | None:
        """The name under which the scores are cached: the teacher's, or the mixture's. None if the labels are learned.

        >>> ScoreMatch(teachers={"a": 0.7, "b": 0.3}).taught_by
        'a 0.7 + b 0.3 (fixed, platt)'
        """
        if self.teachers is None:
            return self.teacher
        mixture = " + ".join(f"{name} {weight:g}" for name, weight in self.teachers.items())
        return f"{mixture} ({self.how_mixed.weights}, {self.how_mixed.calibration})"


class ScoreMatch(ScoreTerm):
    """Match the teacher's scores.

    mse: squared difference of scores in [0, 1]. bce: the teacher's probability as a soft label.
    logit_mse: squared difference of logits. kl: τ²·KL over the candidates of a query.
    """

    loss: Literal["mse", "bce", "logit_mse", "kl"] = "mse"
    """The loss. kl needs `data.candidates`."""
    temperature: Positive = 1.0
    """τ: the student's logits are divided by it (bce and kl). The loss is multiplied by τ²."""
    teacher_temperature: Positive | None = None
    """The teacher's logits are divided by this (bce and kl). None is `temperature`."""

    @model_validator(mode="after")
    def _somebody_teaches(self) -> "ScoreMatch":
        _check_named(self)
        return self

    @model_validator(mode="after")
    def _temperature_is_used(self) -> "ScoreMatch":
        if self.loss not in ("bce", "kl"):
            self.refuse_unused("bce and kl", self.loss)
        return self

    @property
    def compares_logits(self) -> bool:
        """Whether the student's logits are compared, so that a bi-encoder's cosines need a scale and a bias."""
        return self.loss != "mse"

    @property
    def compares_teacher_logits(self) -> bool:
        """Whether the teacher's logits are compared, so that a bi-encoder teacher's cosines need a scale."""
        return self.loss in ("logit_mse", "kl")


def _check_named(term: ScoreTerm) -> None:
    if not term.named:
        raise ValueError("no teacher is named; set teacher, or teachers with their weights, such as {a: 0.7, b: 0.3}")


class MarginMatch(ScoreTerm):
    """MarginMSE (Hofstätter et al. 2020): match the score differences between the candidates of a query."""

    @model_validator(mode="after")
    def _somebody_teaches(self) -> "MarginMatch":
        _check_named(self)
        return self

    @property
    def compares_logits(self) -> bool:
        """Whether the student's logits are compared, so that a bi-encoder's cosines need a scale and a bias."""
        return True

    @property
    def compares_teacher_logits(self) -> bool:
        """Whether the teacher's logits are compared, so that a bi-encoder teacher's cosines need a scale."""
        return True


class EmbeddingMatch(Term):
    """Match the teacher's text embeddings. If the widths differ, a projection is learned."""

    signal: ClassVar[SignalKind | None] = "embeddings"
    teacher: str | None = None
    """The name of a bi-encoder teacher."""
    teachers: dict[Name, Positive] | None = None
    """Several bi-encoder teachers with their weights, such as {a: 0.7, b: 0.3}, in place of `teacher`."""
    combine: Literal["concatenate", "each"] = "concatenate"
    """How several teachers are combined. concatenate: their embeddings are concatenated into one embedding, whose
    cosine is the weighted mean of their cosines. each: one projection into the space of each teacher; the weighted mean
    of the losses is taken. each needs `projection: drop`."""
    loss: Literal["cosine", "mse"] = "cosine"
    """cosine: 1 − cosine. mse: squared distance."""
    projection: Literal["keep", "drop"] = "keep"
    """keep: the projection becomes part of the student, whose embeddings then have the teacher's width and space. drop: the
    projection only serves training, and the student keeps its own width."""

    @model_validator(mode="after")
    def _one_or_several(self) -> "EmbeddingMatch":
        if (self.teacher is None) == (self.teachers is None):
            raise ValueError("name one teacher, or several with their weights as teachers: {a: 0.7, b: 0.3}")
        if self.teachers is not None and len(self.teachers) < 2:
            raise ValueError(f"teachers names {len(self.teachers)}; two or more are expected, else set teacher")
        if self.combine == "each" and self.teachers is None:
            raise ValueError("combine is for several teachers; set teachers, or leave it out")
        if self.combine == "each" and self.projection == "keep":
            raise ValueError("combine: each learns projections that serve training alone; set projection: drop")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """The weights of the teachers as shares of their sum.

        >>> EmbeddingMatch(teachers={"a": 3, "b": 1}).shares
        {'a': 0.75, 'b': 0.25}
        """
        weights = self.teachers or {str(self.teacher): 1.0}
        return {name: weight / sum(weights.values()) for name, weight in weights.items()}

    @property
    def named(self) -> tuple[str, ...]:
        """The teachers that the term learns from, the one that counts most first."""
        return tuple(sorted(self.shares, key=lambda name: -self.shares[name]))

    @property
    def taught_by(self) -> str:
        """The teacher's name, or the name of the combination of several teachers.

        >>> EmbeddingMatch(teachers={"a": 3, "b": 1}).taught_by
        'a 3 & b 1 (concatenate)'
        """
        if self.teachers is None:
            return str(self.teacher)
        return " & ".join(f"{name} {weight:g}" for name, weight in self.teachers.items()) + f" ({self.combine})"


class ListTerm(ScoreTerm):
    """A loss over the candidates of a query. It needs `data.candidates`."""

    teacher: str | None = None
    """The teacher whose scores are learned. Without it, and without teachers, the labels are learned."""

    @property
    def compares_logits(self) -> bool:
        """Whether the student's logits are compared, so that a bi-encoder's cosines need a scale and a bias."""
        return True

    @property
    def compares_teacher_logits(self) -> bool:
        """Whether the teacher's logits are compared, so that a bi-encoder teacher's cosines need a scale."""
        return self.taught_by is not None


class ListNet(ListTerm):
    """ListNet (Cao et al. 2007): cross-entropy between teacher's and student's softmax over a query's candidates."""

    temperature: Positive = 1.0
    """τ: the student's logits are divided by it. The loss is multiplied by τ²."""
    teacher_temperature: Positive | None = None
    """The teacher's logits, or the labels, are divided by this. None is `temperature`."""


class _Pairwise(ListTerm):
    targets: Literal["soft", "hard"] | None = None
    """The target for a pair of candidates. soft: the teacher's probability that the first is better. hard: only which
    of the two is better. None is soft for a teacher's scores, hard for labels."""
    temperature: Positive = 1.0
    """τ: the logits of student and teacher are divided by it. The loss is multiplied by τ²."""

    @property
    def is_soft(self) -> bool:
        """Whether the targets are probabilities."""
        return self.targets == "soft" or (self.targets is None and self.taught_by is not None)


class RankNet(_Pairwise):
    """RankNet (Burges et al. 2005): for every two candidates of a query, cross-entropy on which one is better."""


class LambdaLoss(_Pairwise):
    """LambdaLoss (Wang et al. 2018): RankNet whose pairs are weighted by how much swapping them would change NDCG."""

    scheme: Literal["ndcg_loss2pp", "ndcg_loss2", "lambdarank"] = "ndcg_loss2pp"
    """How a pair is weighted. lambdarank: difference of the gains times difference of the discounts at the student's
    ranks. ndcg_loss2: difference of the gains times difference of the discounts at the ranks d and d + 1, where d is the
    distance of the two ranks. ndcg_loss2pp: `mu` times ndcg_loss2 plus lambdarank."""
    mu: Positive = 10.0
    """Weight of ndcg_loss2 within ndcg_loss2pp."""
    k: Count | None = None
    """Only pairs with a candidate among the student's first k count. None counts all pairs."""

    @model_validator(mode="after")
    def _mu_is_used(self) -> "LambdaLoss":
        if self.scheme != "ndcg_loss2pp":
            self.refuse_unused("scheme ndcg_loss2pp", self.scheme, ("mu",))
        return self


class ListMle(ListTerm):
    """ListMLE (Xia et al. 2008): the likelihood of the teacher's order under the student's scores."""

    position_aware: bool = False
    """Give the first ranks more weight (p-ListMLE, Lan et al. 2014)."""


class AdrMse(ListTerm):
    """ADR-MSE (Schlatt et al. 2025, Rank-DistiLLM): discounted squared difference of ranks, smooth for the student."""

    alpha: Positive = 1.0
    """Steepness of the smooth ranks. A larger value approximates the true ranks better and has smaller gradients."""


class CoSent(ScoreTerm):
    """CoSENT (Huang et al. 2024): the student learns to order any two pairs of a step as the teacher does."""

    couples: ClassVar[bool] = True
    teacher: str | None = None
    """The teacher whose order is learned. Without it, and without teachers, the order of the labels is learned."""
    scale: Positive | None = None
    """The student's scores are multiplied by this. None is 20 for cosines (bi-encoder), 1 for logits
    (cross-encoder)."""


class RelationTerm(Term):
    """A loss on the relations between texts.

    The widths of student and teacher may differ, and no projection is learned.
    """

    signal: ClassVar[SignalKind | None] = "embeddings"
    couples: ClassVar[bool] = True
    teacher: str
    """The name of a bi-encoder teacher."""


class Rkd(RelationTerm):
    """Relational distillation (Park et al. 2019): distances between two texts, angles between three."""

    distance: NotNegative = 1.0
    """Weight of the distances, each in units of the step's mean distance."""
    angle: NotNegative = 2.0
    """Weight of the angles."""
    angle_texts: Annotated[int, Field(ge=3, le=512)] = 64
    """Angles are computed between at most this many texts of a step, chosen at random: the number of angles grows with
    the cube of the number of texts."""

    @model_validator(mode="after")
    def _something(self) -> "Rkd":
        if not self.distance and not self.angle:
            raise ValueError("distance and angle are both 0, nothing is learned; set one")
        return self


class Similarity(RelationTerm):
    """Match the cosines between every two texts of a step."""

    loss: Literal["mse", "kl"] = "mse"
    """mse: squared difference of the cosines (Tung & Mori 2019). kl: τ²·KL of each text's softmax over the others."""
    temperature: Positive = 0.05
    """τ: the student's cosines are divided by it (kl)."""
    teacher_temperature: Positive | None = None
    """The teacher's cosines are divided by this (kl). None is `temperature`."""

    @model_validator(mode="after")
    def _temperature_is_used(self) -> "Similarity":
        if self.loss == "mse":
            self.refuse_unused("kl", self.loss)
        return self


class Cka(RelationTerm):
    """1 − CKA (linear centred kernel alignment, Kornblith et al. 2019) over the texts of a step."""


class LayerTerm(Term):
    """A loss on the inner states of the encoder, token by token. The teacher reads every batch during training.

    Student and teacher must read the same tokens. Texts that their tokenizers split differently are left out, and their
    number is logged.
    """

    teacher: str
    """The name of a teacher of the student's kind, or of kind mlm."""


class HiddenMatch(LayerTerm):
    """Match the teacher's hidden states layer by layer (TinyBERT, Jiao et al. 2020; DistilBERT, Sanh et al. 2019).

    If the widths differ, a projection into the teacher's width is learned. It is used in training only.
    """

    layers: Literal["uniform", "last", "skip"] | Annotated[dict[int, int], Field(min_length=1)] = "uniform"
    """Which layer of the teacher each layer of the student matches. uniform: the teacher's layers at equal distances;
    the last matches the last. last: the teacher's last layers. skip: every k-th layer of the teacher, starting with the
    k-th, where k = teacher's layers / student's layers, rounded down; the student's last layer matches none. Or
    {student: teacher, …}, counted from 0; -1 is the last layer."""
    loss: Literal["mse", "cosine"] = "mse"
    """mse: squared difference, mean over the width. cosine: 1 − cosine."""
    embeddings: bool = False
    """Also match the input of the first layer."""
    attention: Literal["mse", "kl"] | None = None
    """Also match the attention of these layers, with the same weight. Both encoders must have the same number of heads,
    and no rotary or relative positions. mse: squared difference of the scores before the softmax. kl: KL of the
    probabilities."""

    @field_validator("layers", mode="before")
    @classmethod
    def _a_rule_or_pairs(cls, value: Any) -> Any:
        """Refuse other values with one message; pydantic would give one for each form of the field."""
        pairs = isinstance(value, Mapping) and {
            str(layer).removeprefix("-").isdigit() for pair in value.items() for layer in pair
        }
        if value not in ("uniform", "last", "skip") and pairs != {True}:
            raise ValueError(
                f"got {value!r}; it should be uniform, last, skip, or pairs such as {{0: 1, 2: 5}} (student: teacher)"
            )
        return value


class RelationMatch(LayerTerm):
    """Match the relations of queries, keys and values between the tokens of a text (MiniLMv2, Wang et al. 2021).

    Heads and widths of student and teacher may differ, and no projection is learned.
    """

    teacher_layer: int | None = None
    """The teacher's layer, counted from 0; -1 is the last. None is the last layer. For a teacher of 24 or more layers,
    None is the layer at 19/24 of the depth: the 19th of 24."""
    student_layer: int = -1
    """The student's layer, counted from 0; -1 is the last."""
    heads: Count = 48
    """Number of relation heads into which the vectors of student and teacher are split. It must divide the widths of
    both."""
    queries: NotNegative = 1.0
    """Weight of the relations of queries."""
    keys: NotNegative = 1.0
    """Weight of the relations of keys."""
    values: NotNegative = 1.0
    """Weight of the relations of values."""

    @model_validator(mode="after")
    def _something(self) -> "RelationMatch":
        if not self.queries and not self.keys and not self.values:
            raise ValueError("queries, keys and values are all 0, nothing is learned; set one")
        return self


class Matryoshka(Section):
    """Also train the other terms on the first k dimensions, for each k listed (Kusupati et al. 2022).

    Embeddings can then be truncated to these widths. Terms on layers (hidden_match, relation_match) are not repeated,
    because they do not use the embedding. A plain list of widths is accepted.
    """

    dimensions: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)]
    """The widths k. The full width, `student.dimensions`, is always among them."""
    weights: tuple[Positive, ...] | None = None
    """One weight for each width; the weights are divided by their sum. None weighs all widths alike. If the full width
    is not listed, its weight is 1."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, raw: Any) -> Any:
        return {"dimensions": raw} if isinstance(raw, list | tuple) else raw

    @model_validator(mode="after")
    def _one_weight_each(self) -> "Matryoshka":
        if len(set(self.dimensions)) != len(self.dimensions):
            raise ValueError(f"dimensions {list(self.dimensions)}: each width once")
        if self.weights is not None and len(self.weights) != len(self.dimensions):
            raise ValueError(
                f"{len(self.weights)} weights for {len(self.dimensions)} dimensions; one of each is expected"
            )
        return self


class Objectives(Section):
    """What the student learns from. Each section is one weighted term of the loss; null turns it off."""

    silent_at_default: ClassVar[frozenset[str]] = frozenset({"logit_scale", "teacher_logit_scale"})

    labels: Labels | None = None
    """The labels."""
    score_match: ScoreMatch | None = None
    """A teacher's scores."""
    margin_mse: MarginMatch | None = None
    """Differences between a teacher's scores."""
    embedding_match: EmbeddingMatch | None = None
    """A teacher's embeddings."""
    listnet: ListNet | None = None
    """The distribution over the candidates of a query."""
    ranknet: RankNet | None = None
    """Which of two candidates is better."""
    lambda_loss: LambdaLoss | None = None
    """Which of two candidates is better, weighted by NDCG."""
    list_mle: ListMle | None = None
    """The order of the candidates."""
    adr_mse: AdrMse | None = None
    """The ranks of the candidates."""
    cosent: CoSent | None = None
    """The order of all pairs of a step."""
    rkd: Rkd | None = None
    """Distances and angles between a teacher's embeddings."""
    similarity: Similarity | None = None
    """Cosines between a teacher's embeddings."""
    cka: Cka | None = None
    """The similarity structure of a teacher's embeddings as a whole (CKA)."""
    hidden_match: HiddenMatch | None = None
    """A teacher's hidden states, and its attention."""
    relation_match: RelationMatch | None = None
    """Relations of a teacher's queries, keys and values."""
    matryoshka: Matryoshka | None = None
    """Also train the other terms, except those on layers, on the first k dimensions, for each k listed. null trains the
    full width only."""
    logit_scale: Positive = 10.0
    """If a term needs logits (labels with bce; score_match with bce, logit_mse or kl; margin_mse; lists), a bi-encoder
    student's logits are scale · cosine + bias. Both are learned, starting from this scale and a bias of 0."""
    teacher_logit_scale: Positive = 10.0
    """A bi-encoder teacher's logits are this scale · cosine, in score_match with logit_mse or kl, margin_mse and
    lists."""

    def terms(self) -> dict[str, Term]:
        """Return the terms that are set, by name, in the order of the fields."""
        return {name: term for name, term in self if isinstance(term, Term)}

    def teachers(self) -> dict[str, set[SignalKind]]:
        """Return the kinds of signals ("scores", "embeddings") that are needed from each teacher."""
        needs: dict[str, set[SignalKind]] = {}
        for term in self.terms().values():
            for teacher, signal in term.needs():
                needs.setdefault(teacher, set()).add(signal)
        return needs

    def label_terms(self) -> dict[str, Term]:
        """Return the terms that learn labels: `labels`, and the CoSENT and list terms without a teacher.

        >>> list(Objectives(cosent=CoSent(), listnet=ListNet(teacher="a")).label_terms())
        ['cosent']
        """
        ordered = (CoSent, ListTerm)
        return {
            name: term
            for name, term in self.terms().items()
            if isinstance(term, Labels) or (isinstance(term, ordered) and term.taught_by is None)
        }

    def mixtures(self) -> dict[str, ScoreTerm]:
        """Return one term for each mixture of teachers, by the name under which the mixture's scores are cached."""
        terms = [term for term in self.terms().values() if isinstance(term, ScoreTerm) and term.teachers is not None]
        return {str(term.taught_by): term for term in terms}

    @property
    def live_teachers(self) -> list[str]:
        """The teachers whose layers are matched. They read every batch during training; their layers are not cached."""
        return sorted({term.teacher for term in self.terms().values() if isinstance(term, LayerTerm)})

    @property
    def mixed_teachers(self) -> set[str]:
        """The teachers that are part of a mixture. Their scores of the validation pairs are needed, too."""
        return {name for term in self.mixtures().values() for name in term.named}

    @property
    def primary_teacher(self) -> str | None:
        """The main teacher: of the first term on scores, else of the first other term with a teacher, else None."""
        candidates = [(term.signal != "scores", term.named[0]) for term in self._of_teachers()]
        # min returns the first of equals
        return min(candidates, key=lambda candidate: candidate[0])[1] if candidates else None

    @property
    def kept_teachers(self) -> tuple[str, ...]:
        """The teachers whose embedding space the student keeps: those of `embedding_match` with `projection: keep`."""
        match = self.embedding_match
        return () if match is None or match.projection == "drop" else match.named

    @property
    def from_teachers(self) -> bool:
        """Whether a term learns from a teacher's signals. A guide of InfoNCE does not count."""
        return bool(self._of_teachers())

    @property
    def from_texts(self) -> bool:
        """Whether a term also learns from texts without pairs, as all terms on embeddings, relations and layers do."""
        return any(isinstance(term, EmbeddingMatch | RelationTerm | LayerTerm) for term in self.terms().values())

    @property
    def couples(self) -> bool:
        """Whether a term compares the units of a step with each other, so that its loss needs the whole step."""
        infonce = self.labels is not None and self.labels.loss == "infonce"
        return infonce or any(term.couples for term in self.terms().values())

    def factors(self, share: float) -> dict[str, float]:
        """Return the factor on each term's weight after a share of the steps; 0 is the first step and 1 the last."""
        return {name: term.factor(share) for name, term in self.terms().items()}

    def described(self) -> dict[str, Any]:
        """Return the terms for a fingerprint.

        Terms added to the toolkit later are left out if unset: finished runs stay valid.
        """
        return {
            name: settings for name, settings in self.deciding().items() if settings is not None or name in _FIRST_TERMS
        }

    def _of_teachers(self) -> list[Any]:
        return [term for term in self.terms().values() if term.named]


def by_labels_alone(
    loss: SoleLoss, labels: Labels, cosent: CoSent | None = None, matryoshka: Matryoshka | None = None
) -> Objectives:
    """Return the objectives of a model that learns labels with one loss.

    :param labels: settings of the loss, if it is one of `objectives.labels`
    :param cosent: settings of the loss, if it is CoSENT; None takes the defaults

    >>> list(by_labels_alone("cosent", Labels()).terms()), list(by_labels_alone("bce", Labels()).terms())
    (['cosent'], ['labels'])
    """
    if loss == "cosent":
        return Objectives(cosent=cosent or CoSent(), matryoshka=matryoshka)
    return Objectives(labels=labels.model_copy(update={"loss": loss}), matryoshka=matryoshka)


_FIRST_TERMS = {"labels", "score_match", "margin_mse", "embedding_match", "matryoshka"}
