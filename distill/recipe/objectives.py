"""What the student learns from: the sections of `objectives`, each one weighted and scheduled term of the loss.

The fields of `Objectives` are the catalogue. A term says itself which signals it needs and what it compares; formulas stand
with the loss functions (`distill.training.losses`) and on the page docs/explanations/losses.md.
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
"""By what a model learns that has labels alone: a loss of `objectives.labels`, or the term `objectives.cosent`."""
SignalKind = Literal["scores", "embeddings"]
StepShare = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0, le=1e30)]


class Schedule(Section):
    """How the weight of a term changes during training: a factor on `weight`, a pure function of the step.

    linear, cosine: the factor is `from` until `start`, then changes to `to`, which it has from `end` on. constant: the factor is
    1 between `start` and `end`, and 0 outside. Steps are counted as shares of the whole training: 0 is the first, 1 the last.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    kind: Literal["constant", "linear", "cosine"] = "linear"
    """linear changes in a line, cosine as half a cosine wave, constant not at all."""
    first: NotNegative = Field(default=0.0, alias="from")
    """The factor before the change (linear, cosine)."""
    last: NotNegative = Field(default=1.0, alias="to")
    """The factor after the change (linear, cosine)."""
    start: StepShare = 0.0
    """Share of the steps at which the change begins, or the term itself (constant)."""
    end: StepShare = 1.0
    """Share of the steps at which the change is done, or the term ends (constant)."""

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
        """Return the factor after a share of the steps, 0 being the first step and 1 the last.

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
    """What every objective has: a weight, and how it changes."""

    signal: ClassVar[SignalKind | None] = None
    """What a teacher must have said for this term."""
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
    """How the weight changes during training. None keeps it."""

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

        :raises ValueError: where one of them was given another value than its default
        """
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for {used_by}, not {loss}; leave it out")

    def factor(self, share: float) -> float:
        """Return what the schedule multiplies the weight with after a share of the steps."""
        return 1.0 if self.schedule is None else self.schedule.factor(share)

    @property
    def named(self) -> tuple[str, ...]:
        """The teachers that the term learns from, the one that counts most first."""
        teacher = getattr(self, "teacher", None)
        return () if teacher is None else (teacher,)

    def needs(self) -> Iterator[tuple[str, SignalKind]]:
        """Yield the teachers that the term asks, each with the signal."""
        for teacher in self.named:
            if self.signal is not None:
                yield teacher, self.signal


class Guide(Section):
    """A teacher that keeps false negatives out of InfoNCE (GISTEmbed, Solatorio 2024).

    A document of the batch is no negative of a query where the teacher finds it about as near as the query's own document.
    """

    teacher: str
    """The name of a bi-encoder teacher."""
    margin: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """How much less near than the query's own document a document may be and still be left out."""
    strategy: Literal["absolute", "relative"] = "absolute"
    """absolute: left out where its cosine is more than own − margin. relative: where it is more than own − margin·|own|."""


class Labels(Term):
    """Learn from the labels."""

    loss: LabelLoss | None = None
    """The loss, as for teachers. None is bce for a cross-encoder, contrastive for a bi-encoder."""
    temperature: Positive = 0.05
    """Temperature of InfoNCE."""
    positive_from: Annotated[float, Field(gt=0, le=1)] = 0.5
    """InfoNCE: a pair whose label, mapped to [0, 1], is at least this is a positive."""
    guide: Guide | None = None
    """A teacher that says which documents of the batch are false negatives (InfoNCE). None trusts the labels alone."""

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
        """Yield the guide, with the embeddings that it tells false negatives by."""
        if self.guide is not None:
            yield self.guide.teacher, "embeddings"


class Mixing(Section):
    """How the scores of several teachers become one probability, and so one logit.

    Each teacher's scores first become probabilities, fitted to the labels of the validation pairs: scales and temperatures of
    teachers have nothing to do with each other. The probabilities are then averaged by weight.
    """

    calibration: Literal["platt", "isotonic", "temperature"] = "platt"
    """platt: σ(a·score + b) (Platt 1999). temperature: σ(logit / τ) (Guo et al. 2017). isotonic: the best rising steps (Zadrozny &
    Elkan 2002), which need some hundred validation pairs and make ties."""
    weights: Literal["fixed", "fitted", "agreement"] = "fixed"
    """fixed: those of `teachers`, as shares of their sum. fitted: the shares under which the labels of the validation pairs are
    likeliest, by expectation-maximisation from those of `teachers`. agreement: for each pair, those of `teachers` times the
    share in which a teacher agrees with the others, squared; it takes three teachers."""


class ScoreTerm(Term):
    """A term that learns from scores: of one teacher, or of several as one."""

    signal: ClassVar[SignalKind | None] = "scores"
    teacher: str | None = None
    """The teacher's name."""
    teachers: dict[Name, Positive] | None = None
    """Several teachers with their weights, such as {a: 0.7, b: 0.3}, in place of `teacher`. Their mixture is one teacher whose logits
    are learned."""
    mixing: Mixing | None = None
    """How the scores of several teachers become one. None takes the defaults."""

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
        """How several teachers become one."""
        return self.mixing or Mixing()

    @property
    def named(self) -> tuple[str, ...]:
        """The teachers that the term learns from, the one that counts most first."""
        if self.teachers is None:
            return super().named
        return tuple(sorted(self.teachers, key=lambda name: -(self.teachers or {})[name]))

    @property
    def told_by(self) -> str | None:
        """What its scores are kept under: the teacher's name, or that of the mixture; None learns the labels.

        >>> ScoreMatch(teachers={"a": 0.7, "b": 0.3}).told_by
        'a 0.7 + b 0.3 (fixed, platt)'
        """
        if self.teachers is None:
            return self.teacher
        told = " + ".join(f"{name} {weight:g}" for name, weight in self.teachers.items())
        return f"{told} ({self.how_mixed.weights}, {self.how_mixed.calibration})"


class ScoreMatch(ScoreTerm):
    """Match the teacher's scores.

    mse: squared difference of scores in [0, 1]. bce: the teacher's probability as a soft label.
    logit_mse: squared difference of logits. kl: τ²·KL over the candidates of a query.
    """

    loss: Literal["mse", "bce", "logit_mse", "kl"] = "mse"
    """The loss; kl needs `data.candidates`."""
    temperature: Positive = 1.0
    """τ: the student's logits are divided by it (bce and kl). The loss carries τ²."""
    teacher_temperature: Positive | None = None
    """What the teacher's logits are divided by (bce and kl). None is `temperature`."""

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
    """Match the teacher's text embeddings. Where the widths differ, a projection is learned."""

    signal: ClassVar[SignalKind | None] = "embeddings"
    teacher: str | None = None
    """The name of a bi-encoder teacher."""
    teachers: dict[Name, Positive] | None = None
    """Several bi-encoder teachers with their weights, such as {a: 0.7, b: 0.3}, in place of `teacher`."""
    combine: Literal["concatenate", "each"] = "concatenate"
    """Several teachers. concatenate: their embeddings one behind the other are one embedding, whose cosine is the weighted mean of
    theirs. each: a projection into the space of each, which needs `projection: drop`; the losses are averaged by weight."""
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
    def told_by(self) -> str:
        """The teacher's name, or that of several together.

        >>> EmbeddingMatch(teachers={"a": 3, "b": 1}).told_by
        'a 3 & b 1 (concatenate)'
        """
        if self.teachers is None:
            return str(self.teacher)
        return " & ".join(f"{name} {weight:g}" for name, weight in self.teachers.items()) + f" ({self.combine})"


class ListTerm(ScoreTerm):
    """A loss over the candidates of a query; it needs `data.candidates`."""

    teacher: str | None = None
    """The teacher whose scores are learned. Without it, and without teachers, the labels are learned."""

    @property
    def compares_logits(self) -> bool:
        """Whether the student's logits are compared, so that a bi-encoder's cosines need a scale and a bias."""
        return True

    @property
    def compares_teacher_logits(self) -> bool:
        """Whether the teacher's logits are compared, so that a bi-encoder teacher's cosines need a scale."""
        return self.told_by is not None


class ListNet(ListTerm):
    """ListNet (Cao et al. 2007): cross-entropy of the student's softmax over the candidates of a query to the teacher's."""

    temperature: Positive = 1.0
    """τ: the student's logits are divided by it. The loss carries τ²."""
    teacher_temperature: Positive | None = None
    """What the teacher's logits, or the labels, are divided by. None is `temperature`."""


class _Pairwise(ListTerm):
    targets: Literal["soft", "hard"] | None = None
    """What a pair of candidates is to learn. soft: the teacher's probability that the first is the better one. hard: only which one
    is better. None is soft from a teacher, hard from labels."""
    temperature: Positive = 1.0
    """τ: the logits of both are divided by it. The loss carries τ²."""

    @property
    def is_soft(self) -> bool:
        """Whether the targets are probabilities."""
        return self.targets == "soft" or (self.targets is None and self.told_by is not None)


class RankNet(_Pairwise):
    """RankNet (Burges et al. 2005): cross-entropy of every two candidates of a query, which one is the better."""


class LambdaLoss(_Pairwise):
    """LambdaLoss (Wang et al. 2018): RankNet whose pairs count by what their exchange would cost in NDCG."""

    scheme: Literal["ndcg_loss2pp", "ndcg_loss2", "lambdarank"] = "ndcg_loss2pp"
    """How a pair is weighted. lambdarank: change of the gain times change of the discount at the student's ranks. ndcg_loss2: the
    discount at the distance of the ranks. ndcg_loss2pp: `mu` times ndcg_loss2 plus lambdarank."""
    mu: Positive = 10.0
    """Weight of ndcg_loss2 within ndcg_loss2pp."""
    k: Count | None = None
    """Only pairs count of which one candidate is among the student's first k. None counts all."""

    @model_validator(mode="after")
    def _mu_is_used(self) -> "LambdaLoss":
        if self.scheme != "ndcg_loss2pp":
            self.refuse_unused("scheme ndcg_loss2pp", self.scheme, ("mu",))
        return self


class ListMle(ListTerm):
    """ListMLE (Xia et al. 2008): the likelihood of the teacher's order under the student's scores."""

    position_aware: bool = False
    """Weigh the first places more (p-ListMLE, Lan et al. 2014)."""


class AdrMse(ListTerm):
    """ADR-MSE (Schlatt et al. 2025, Rank-DistiLLM): squared difference of ranks, discounted; the student's ranks are smooth."""

    alpha: Positive = 1.0
    """Steepness of the smooth ranks: a larger one comes nearer to true ranks, with smaller gradients."""


class CoSent(ScoreTerm):
    """CoSENT (Huang et al. 2024): any two pairs of a step are to be in the teacher's order."""

    couples: ClassVar[bool] = True
    teacher: str | None = None
    """The teacher whose order is learned. Without it, and without teachers, that of the labels is learned."""
    scale: Positive | None = None
    """What the student's scores are multiplied by. None is 20 for cosines (bi-encoder), 1 for logits (cross-encoder)."""


class RelationTerm(Term):
    """A loss on how texts lie to each other. The widths of student and teacher may differ, and no projection is learned."""

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
    """Angles are taken over at most this many texts of a step: they grow with its cube. The choice is random."""

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
    """What the teacher's cosines are divided by (kl). None is `temperature`."""

    @model_validator(mode="after")
    def _temperature_is_used(self) -> "Similarity":
        if self.loss == "mse":
            self.refuse_unused("kl", self.loss)
        return self


class Cka(RelationTerm):
    """1 − CKA (linear centred kernel alignment, Kornblith et al. 2019) over the texts of a step."""


class LayerTerm(Term):
    """A loss on what happens inside of the encoder, token by token. The teacher reads every batch during training.

    Student and teacher have to read the same tokens: a text that their tokenizers cut differently does not count, and is said.
    """

    teacher: str
    """The name of a teacher of the student's kind, or of kind mlm."""


class HiddenMatch(LayerTerm):
    """Match the teacher's hidden states layer by layer (TinyBERT, Jiao et al. 2020; DistilBERT, Sanh et al. 2019).

    Where the widths differ, a projection into the teacher's width is learned, which serves training alone.
    """

    layers: Literal["uniform", "last", "skip"] | Annotated[dict[int, int], Field(min_length=1)] = "uniform"
    """Which layer of the teacher each layer of the student matches. uniform: at equal distances, the last the last. last: the
    teacher's last ones. skip: every k-th from the k-th on, k = teacher's layers / student's layers rounded down, without the
    student's last layer. Or {student: teacher, …}, counted from 0, -1 being the last."""
    loss: Literal["mse", "cosine"] = "mse"
    """mse: squared difference, mean over the width. cosine: 1 − cosine."""
    embeddings: bool = False
    """Also match what enters the first layer."""
    attention: Literal["mse", "kl"] | None = None
    """Also match the attention of these layers, of encoders without rotary or relative positions and with as many heads. mse: squared
    difference of the scores before the softmax. kl: KL of the probabilities. It is added with the same weight."""

    @field_validator("layers", mode="before")
    @classmethod
    def _a_rule_or_pairs(cls, given: Any) -> Any:
        """Say in one line what is accepted: each form of the field would complain by itself."""
        pairs = isinstance(given, Mapping) and {
            str(layer).removeprefix("-").isdigit() for both in given.items() for layer in both
        }
        if given not in ("uniform", "last", "skip") and pairs != {True}:
            raise ValueError(
                f"got {given!r}; it should be uniform, last, skip, or pairs such as {{0: 1, 2: 5}} (student: teacher)"
            )
        return given


class RelationMatch(LayerTerm):
    """Match the relations of queries, keys and values between the tokens of a text (MiniLMv2, Wang et al. 2021).

    Heads and widths of student and teacher may differ, and no projection is learned.
    """

    teacher_layer: int | None = None
    """The teacher's layer, counted from 0, -1 being the last. None is the last, or of 24 layers and more the one at 19/24 from the
    first: the 19th of 24."""
    student_layer: int = -1
    """The student's layer, counted from 0, -1 being the last."""
    heads: Count = 48
    """Relation heads into which both are split anew. It divides the widths of both."""
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

    Those on layers (hidden_match, relation_match) are not repeated: they know no prefix of an embedding. The embeddings may then be cut to these widths. A plain list of widths is accepted.
    """

    dimensions: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)]
    """The widths k. The full width, `student.dimensions`, is always among them."""
    weights: tuple[Positive, ...] | None = None
    """One weight for each width, divided by their sum. None weighs all widths alike. The full width weighs 1 where it is not
    listed."""

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
    """Which of two candidates is the better."""
    lambda_loss: LambdaLoss | None = None
    """Which of two candidates is the better, weighted by NDCG."""
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
    """How a teacher's embeddings lie as a whole."""
    hidden_match: HiddenMatch | None = None
    """A teacher's hidden states, and its attention."""
    relation_match: RelationMatch | None = None
    """Relations of a teacher's queries, keys and values."""
    matryoshka: Matryoshka | None = None
    """Also train the other terms, but for those on layers, on the first k dimensions, for each k listed. null trains the full width only."""
    logit_scale: Positive = 10.0
    """A bi-encoder student's logits are scale · cosine + bias, where a term needs logits (labels by bce, score_match by bce,
    logit_mse or kl, margin_mse, lists). Training learns both, from this scale and a bias of 0."""
    teacher_logit_scale: Positive = 10.0
    """A bi-encoder teacher's logits are this scale · cosine, in score_match by logit_mse or kl, margin_mse and lists."""

    def terms(self) -> dict[str, Term]:
        """Return the terms that are set, by name, in the order of the fields."""
        return {name: term for name, term in self if isinstance(term, Term)}

    def teachers(self) -> dict[str, set[SignalKind]]:
        """Return the signals ("scores", "embeddings") that each teacher must have cached."""
        needs: dict[str, set[SignalKind]] = {}
        for term in self.terms().values():
            for teacher, signal in term.needs():
                needs.setdefault(teacher, set()).add(signal)
        return needs

    def label_terms(self) -> dict[str, Term]:
        """Return the terms that learn labels: `labels`, and CoSENT and lists that name no teacher.

        >>> list(Objectives(cosent=CoSent(), listnet=ListNet(teacher="a")).label_terms())
        ['cosent']
        """
        ordered = (CoSent, ListTerm)
        return {
            name: term
            for name, term in self.terms().items()
            if isinstance(term, Labels) or (isinstance(term, ordered) and term.told_by is None)
        }

    def mixtures(self) -> dict[str, ScoreTerm]:
        """Return a term of each mixture of teachers, by what its scores are kept under."""
        terms = [term for term in self.terms().values() if isinstance(term, ScoreTerm) and term.teachers is not None]
        return {str(term.told_by): term for term in terms}

    @property
    def live_teachers(self) -> list[str]:
        """The teachers whose layers are matched: they read every batch, and nothing of it is cached."""
        return sorted({term.teacher for term in self.terms().values() if isinstance(term, LayerTerm)})

    @property
    def mixed_teachers(self) -> set[str]:
        """The teachers that are part of a mixture: their scores of the validation pairs are needed, too."""
        return {name for term in self.mixtures().values() for name in term.named}

    @property
    def primary_teacher(self) -> str | None:
        """The teacher that is learned from first of all: of scores before of embeddings; None learns from labels alone."""
        named = [(term.signal != "scores", term.named[0]) for term in self._of_teachers()]
        return min(named, key=lambda one: one[0])[1] if named else None  # of equals the first

    @property
    def kept_teachers(self) -> tuple[str, ...]:
        """The teachers into whose space the student is to write, keeping the way there."""
        match = self.embedding_match
        return () if match is None or match.projection == "drop" else match.named

    @property
    def from_teachers(self) -> bool:
        """Whether a term learns what a teacher says; a guide of InfoNCE says nothing to learn."""
        return bool(self._of_teachers())

    @property
    def from_texts(self) -> bool:
        """Whether a term learns from texts without a pair, too: all that match or relate embeddings, or match layers."""
        return any(isinstance(term, EmbeddingMatch | RelationTerm | LayerTerm) for term in self.terms().values())

    @property
    def couples(self) -> bool:
        """Whether a term compares the units of a step with each other, so that a step has to be seen as a whole."""
        infonce = self.labels is not None and self.labels.loss == "infonce"
        return infonce or any(term.couples for term in self.terms().values())

    def factors(self, share: float) -> dict[str, float]:
        """Return what each term's weight is multiplied by after a share of the steps, 0 being the first and 1 the last."""
        return {name: term.factor(share) for name, term in self.terms().items()}

    def described(self) -> dict[str, Any]:
        """Return the terms for a fingerprint; one that came later and is not set is left out, so that finished runs stay so."""
        return {name: told for name, told in self.deciding().items() if told is not None or name in _FIRST_TERMS}

    def _of_teachers(self) -> list[Any]:
        return [term for term in self.terms().values() if term.named]


def by_labels_alone(
    loss: SoleLoss, labels: Labels, cosent: CoSent | None = None, matryoshka: Matryoshka | None = None
) -> Objectives:
    """Return the objectives of a model that learns labels by one loss.

    :param labels: settings of that loss, where it is one of `objectives.labels`
    :param cosent: its settings, where it is CoSENT; None takes the defaults

    >>> list(by_labels_alone("cosent", Labels()).terms()), list(by_labels_alone("bce", Labels()).terms())
    (['cosent'], ['labels'])
    """
    if loss == "cosent":
        return Objectives(cosent=cosent or CoSent(), matryoshka=matryoshka)
    return Objectives(labels=labels.model_copy(update={"loss": loss}), matryoshka=matryoshka)


_FIRST_TERMS = {"labels", "score_match", "margin_mse", "embedding_match", "matryoshka"}
