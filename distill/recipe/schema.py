"""The recipe: one YAML in the order of the flow, validated whole before anything loads.

    data → teachers → signals → student → objectives → training → export → benchmark

Every knob of the toolkit is a field on this page, with its unit and meaning. `null` means off. A teacher or the student
may carry its own `training` section: its keys win over the recipe's, so that the resolved recipe (stored with every
artefact) states each run in full.

A section refuses what is wrong within it; what sections must agree on with each other is `distill.recipe.checks`. Files
and overrides are read by `distill.recipe.reading`, which reports all problems at once.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from distill.endpoints.client import Endpoint
from distill.recipe.checks import problems_of
from distill.resumes.sections import Kind as SectionKind

__all__ = [
    "Asymmetric",
    "Backbone",
    "Baseline",
    "Benchmark",
    "Card",
    "CascadeDial",
    "Columns",
    "Control",
    "Data",
    "EmbeddingMatch",
    "Encoder",
    "Export",
    "ExportFormat",
    "ExportPrecision",
    "FreshBackbone",
    "LabelLoss",
    "Labels",
    "LayerChoice",
    "Layers",
    "Lora",
    "MarginMatch",
    "Matryoshka",
    "Mlm",
    "Name",
    "NewVocabulary",
    "Objectives",
    "Paragraphs",
    "Parallel",
    "Plan",
    "Recipe",
    "Recover",
    "Remote",
    "Resume",
    "ScoreMatch",
    "Section",
    "Signals",
    "Static",
    "Student",
    "Teacher",
    "TeacherBackbone",
    "TfIdf",
    "Training",
    "Trim",
    "Unlabelled",
    "UnlabelledPairs",
    "Vocabulary",
    "Width",
    "merge_training",
]

Positive = Annotated[float, Field(gt=0, le=1e30)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seconds = Annotated[float, Field(gt=0, le=1e6)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Tokens = Annotated[int, Field(ge=8, le=1_000_000)]
Share = Annotated[float, Field(gt=0, lt=1)]
T = TypeVar("T")
OneOrMore = Annotated[
    tuple[T, ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, int | float) else given),
    Field(min_length=1),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]


class Section(BaseModel):
    """A part of a recipe: frozen, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class Columns(Section):
    """Which column holds what."""

    query: str = "query"
    document: str = "document"
    label: str = "label"


class Unlabelled(Section):
    """Texts without pairs or labels, for the embedding objective: a file and its text columns."""

    path: str
    columns: tuple[str, ...] = ("text",)
    max_texts: Count | None = None
    """None takes all of them; a number, as many at random with the recipe's seed."""


class UnlabelledPairs(Section):
    """Pairs without labels, which the teachers score and the student alone learns from: one of three sources."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    path: str | None = None
    """A file of pairs, as `data.train`; a label column is not read."""
    columns: Columns | None = None
    """Its columns of queries and documents; None is as `data.columns`."""
    max_pairs: Count | None = None
    """None takes all of them."""
    bundled: Count | None = None
    """So many generated pairs, made like those of `train: bundled` and none of them."""
    teacher: Name | None = Field(default=None, alias="from")
    """`from`: a bi-encoder teacher, which finds among all documents of training those nearest to each query of training."""
    per_query: Count = 4
    """How many it finds."""

    @model_validator(mode="after")
    def _one_source(self) -> "UnlabelledPairs":
        given = {"path": self.path, "bundled": self.bundled, "from": self.teacher}
        named = [name for name, value in given.items() if value is not None]
        if len(named) != 1:
            raise ValueError(
                f"{' and '.join(named) or 'no source'} given; name one of path (a file of pairs), "
                "bundled (a number of pairs), from (a bi-encoder teacher)"
            )
        if self.path is None and (self.columns is not None or self.max_pairs is not None):
            raise ValueError("columns and max_pairs belong to path; leave them out")
        if self.teacher is None and "per_query" in self.model_fields_set and self.per_query != 4:
            raise ValueError("per_query belongs to from; leave it out")
        return self


class Parallel(Section):
    """Texts with their translations, for a student of more languages than its teacher (Reimers & Gurevych 2020).

    The teacher's embedding of the source text is what the student's embeddings of both sides are to match.
    """

    path: str
    source: str = "en"
    """The column in a language that the teacher knows."""
    target: str = "ko"
    max_pairs: Count | None = None
    """None takes all of them; a number, as many at random with the recipe's seed."""


class Resume(Section):
    """What of a résumé is read; see `distill.resumes.sections`."""

    side: Literal["query", "document"] = "query"
    keep: Annotated[tuple[SectionKind, ...], Field(min_length=1)] | None = None
    """Sections to keep, as [experience, education, skills] for the published V2; None keeps all. A résumé in which none of
    them is found stays whole, and is counted."""
    blind: bool = False
    """Take out names, birth dates, addresses, numbers and the like."""


class Data(Section):
    """Where pairs come from. Labels are mapped from `label_range` to [0, 1]."""

    train: str
    """`bundled` (generated résumé–JD pairs), a .csv, .tsv (.gz), .jsonl or .parquet file, or the name of a hub dataset."""
    evaluation: str | None = None
    """Pairs that only the report sees; None splits `evaluation_share` from train."""
    split: Literal["auto", "component", "query", "document"] = "auto"
    """What is held out whole. No text ever stands on both sides: component holds out pairs that share texts together and drops
    none, query and document drop the training pairs that share a text with the held-out ones. auto takes components, or
    queries where these are too large."""
    evaluation_share: Share = 0.1
    validation_share: Share = 0.05
    """Share of the training queries that picks the best checkpoint and stops early."""
    max_validation_pairs: Count = 1000
    columns: Columns = Columns()
    resume: Resume | None = None
    """Read one side as résumés; None reads every text as it is."""
    label_range: tuple[float, float] = (0.0, 1.0)
    candidates: Annotated[int, Field(ge=2)] | None = None
    """Train on queries with up to this many of their documents; None trains on single pairs."""
    unlabelled: tuple[Unlabelled, ...] = ()
    unlabelled_pairs: Annotated[
        tuple[UnlabelledPairs, ...], BeforeValidator(lambda given: (given,) if isinstance(given, Mapping) else given)
    ] = ()
    """Pairs that teachers and control never see the labels of, and the student learns from by the teachers' signals."""
    labelled_share: Share | None = None
    """Use the labels of this share of the training queries; the other training pairs become unlabelled pairs. None uses all."""
    max_labelled: Count | None = None
    """Likewise, as a number of pairs at most."""
    parallel: tuple[Parallel, ...] = ()
    hub_split: str = "train"
    max_pairs: Count | None = None
    """None takes all of them; a number, as many of each file at random with the recipe's seed."""
    skip_bad_rows: bool = False
    """Leave rows with an empty text or an unusable label out (and count them) instead of stopping."""
    bundled_pairs: Count = 8000
    """How many pairs `bundled` generates, training and evaluation together."""

    @model_validator(mode="after")
    def _range(self) -> "Data":
        if self.labelled_share is not None and self.max_labelled is not None:
            raise ValueError("labelled_share and max_labelled both say how many labels are used; set one")
        low, high = self.label_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"label_range is [{low}, {high}]; the lower end comes first")
        return self


class FreshBackbone(Section):
    """An encoder with random weights and a tokenizer trained on the recipe's own text."""

    form: ClassVar[Literal["fresh"]] = "fresh"
    """What this form is called where a value may have several."""
    tokenizer: Literal["wordpiece", "unigram"] = "wordpiece"
    """WordPiece gives a BERT, Unigram an XLM-RoBERTa architecture."""
    vocabulary: Annotated[int, Field(ge=64, le=5_000_000)] = 16000
    layers: Annotated[int, Field(ge=1, le=512)] = 4
    width: Annotated[int, Field(ge=1, le=65_536)] = 256
    heads: Annotated[int, Field(ge=1, le=4096)] = 4
    feed_forward: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """None is four times the width."""
    max_length: Tokens = 512

    @model_validator(mode="after")
    def _heads_divide(self) -> "FreshBackbone":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads")
        return self


class TeacherBackbone(Section):
    """A teacher of this recipe, whole; what a student leaves out of it is said by the student's own keys.

    A teacher may start from an earlier one: a cross-encoder from random weights stays at chance for thousands of steps
    where one that was a bi-encoder first takes off at once.
    """

    form: ClassVar[Literal["teacher"]] = "teacher"
    teacher: str


def _backbone_form(value: Any) -> str:
    if isinstance(value, Section):
        return str(value.form)  # type: ignore[attr-defined]
    if isinstance(value, Mapping):
        return "teacher" if "teacher" in value else "fresh"
    return "name"


Backbone = Annotated[
    Annotated[str, Tag("name")] | Annotated[FreshBackbone, Tag("fresh")] | Annotated[TeacherBackbone, Tag("teacher")],
    Discriminator(_backbone_form),
]
"""A model's name or path, a fresh encoder, or a teacher of this recipe."""


class Lora(Section):
    """Low-rank adapters through peft (Hu et al. 2021), merged when the teacher is saved."""

    rank: Count = 16
    alpha: Positive = 32.0
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"


class Mlm(Section):
    """Masked-language modelling: how a teacher of `kind: mlm` goes on learning on the recipe's text."""

    probability: Annotated[float, Field(gt=0, le=0.5)] = 0.15
    """Share of the tokens that is chosen."""
    whole_words: bool = False
    """Choose all pieces of a word together: for Korean in small pieces, single ones are too easy."""


class Training(Section):
    """The one loop. A unit is a pair, or a query with its candidates where `data.candidates` is set."""

    epochs: Annotated[float, Field(gt=0, le=10_000)] = 3.0
    max_steps: Count | None = None
    """Stops earlier than `epochs` would; the schedule ends there too."""
    learning_rate: Positive = 2e-5
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    global_batch: Count = 32
    """Units per optimizer step, over all processes."""
    micro_batch: Count = 32
    """Units per forward pass and process at most; accumulation follows."""
    token_budget: Count = 8192
    """Padded tokens per forward pass and process at most."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto is bf16 where the hardware multiplies it (AVX512-BF16, AMX, CUDA from 8.0), else fp32."""
    max_grad_norm: Positive | None = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """None keeps the model's own."""
    evaluations_per_epoch: Annotated[int, Field(ge=0, le=100_000)] = 2
    """0 turns evaluation during training off: the last weights are taken."""
    patience: Count | None = None
    """Evaluations without a better value before training stops; None never stops early."""
    gradient_checkpointing: bool = False
    checkpoint_seconds: Annotated[float, Field(ge=0, le=1e9)] = 60.0
    """At most this much work is lost to a kill; 0 writes a checkpoint after every step."""
    tensorboard: bool = True


LabelLoss = Literal["bce", "mse", "contrastive", "infonce"]


class Teacher(Section):
    """A teacher: trained on the labels, or `frozen` and used as it comes.

    `kind: mlm` learns no labels: it adapts an encoder to the recipe's text, for a later teacher to start from.
    """

    kind: Literal["cross_encoder", "bi_encoder", "mlm"]
    backbone: Backbone
    frozen: bool = False
    pooling: Literal["mean", "cls"] | None = None
    """None takes the backbone's own, else the mean of all token embeddings."""
    head: Annotated[tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...], Field(max_length=20)] | None = None
    """Hidden widths of the cross-encoder's MLP; [] is one linear layer, None the backbone's own head, else [256]."""
    loss: LabelLoss | None = None
    """Cross-encoder: bce or mse. Bi-encoder: contrastive (MSE of (cos+1)/2), bce or infonce. None is the first."""
    temperature: Positive = 0.05
    """Of InfoNCE."""
    max_length: Tokens = 512
    prompts: tuple[str, str] | None = None
    """Texts put before every query and every document, as ("query: ", "passage: ")."""
    lora: Lora | None = None
    mlm: Mlm | None = None
    """Of `kind: mlm`; None is its defaults."""
    training: Training = Training()

    @property
    def model_kind(self) -> Literal["cross_encoder", "bi_encoder"]:
        """What the saved model is: an adapted encoder is saved as a bi-encoder."""
        return "bi_encoder" if self.kind == "mlm" else self.kind


class Signals(Section):
    """The cache of what the teachers say."""

    dtype: Literal["float16", "float32"] = "float32"
    runtime: Literal["torch", "openvino"] = "torch"
    """What labels on a CPU; OpenVINO is about 1.5 times as fast. A GPU always runs torch."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """What the teachers compute in; auto as in `training`."""
    shard_size: Count = 4096
    """Items per shard: what a killed run loses at most."""
    live: bool = False
    """Ask the teachers during training instead of the cache."""
    allow_unrelated: bool = False
    """Go on where a teacher's scores have nothing to do with the labels; False stops there, naming the correlation."""


class Asymmetric(Section):
    """A student that serves one side, in the space of the teacher whose embeddings are matched.

    The other side stays the frozen teacher: queries by a small student against an index that the teacher has built, or
    documents by a small student for the teacher's queries. What is exported is checked against the teacher's own vectors.
    """

    side: Literal["query", "document"] = "query"
    min_cosine: Annotated[float, Field(ge=-1, le=1)] = 0.8
    """The least mean cosine of the student's vectors to the teacher's own, on held-back texts."""
    min_recall: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The least share of the teacher's `top_k` documents that the pair finds, too."""
    top_k: Count = 10

    @property
    def role(self) -> int:
        """0 where the student reads queries, 1 where it reads documents."""
        return int(self.side == "document")


class Trim(Section):
    """Cut the vocabulary to the tokens that a corpus uses; one of the two."""

    coverage: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the token occurrences of every source of the corpus that stays at least, as 0.999."""
    size: Annotated[int, Field(ge=64, le=5_000_000)] | None = None
    """Tokens that stay at most."""

    @model_validator(mode="after")
    def _one(self) -> "Trim":
        if (self.coverage is None) == (self.size is None):
            raise ValueError("set coverage (as 0.999) or size (as 32000), one of them")
        return self


class NewVocabulary(Section):
    """Train a tokenizer on the corpus and give the backbone embeddings for it; its layers stay."""

    tokenizer: Literal["unigram", "wordpiece"] = "unigram"
    size: Annotated[int, Field(ge=64, le=5_000_000)] = 16000
    start: Literal["exact", "mean", "focus"] = "focus"
    """exact: the old embedding of the same text, else drawn. mean: else the mean of its old pieces. focus: else a mixture
    of what both vocabularies have, by similarity in the corpus (Dobler & de Melo 2023)."""


class Vocabulary(Section):
    """What becomes of the backbone's vocabulary: trimmed, or replaced by a new one."""

    trim: Trim | None = None
    train: NewVocabulary | None = None
    texts: tuple[Unlabelled, ...] = ()
    """The corpus, each column a source of its own, columns of a row belonging together (as translations do); () is the
    recipe's own training, unlabelled and parallel text."""

    @model_validator(mode="after")
    def _one(self) -> "Vocabulary":
        if (self.trim is None) == (self.train is None):
            raise ValueError("set trim or train, one of them")
        return self


class Static(Section):
    """A student without layers: the mean of one vector for each token, each made by the backbone. Microseconds a text."""

    weighting: Literal["zipf", "sif", "none"] = "zipf"
    """How much a token counts, by how often it stands in the recipe's text: zipf log(1 + rank), sif a / (a + share) with
    a = 1e-3 (Arora et al. 2017), none 1."""


LayerRule = Literal["every", "first", "last", "spread", "importance"]
_LAYERS_ARE = (
    f"layers are a list from 0 on, as [0, 2, 4], or one of {', '.join(get_args(LayerRule))}, as {{importance: 3}}"
)


class LayerChoice(Section):
    """Which layers of the backbone a student keeps, by one rule."""

    form: ClassVar[Literal["rule"]] = "rule"
    every: Count | None = None
    """Every n-th, from the first on."""
    first: Count | None = None
    last: Count | None = None
    spread: Count | None = None
    """As many, from the first to the last at equal distances."""
    importance: Count | None = None
    """As many, the others left out one after the other: always the one without which the backbone's own scores (of a
    bi-encoder, all cosines between texts) change least on a sample of the training pairs."""

    @property
    def rule(self) -> LayerRule:
        """The name of the rule."""
        return next(name for name in get_args(LayerRule) if getattr(self, name) is not None)

    @property
    def number(self) -> int:
        """The rule's number: of layers, or for `every` the step."""
        return int(getattr(self, self.rule))

    @model_validator(mode="after")
    def _one_rule(self) -> "LayerChoice":
        given = [name for name in get_args(LayerRule) if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"{' and '.join(given) or 'no rule'} given; {_LAYERS_ARE}")
        return self


def _checked_layers(value: Any) -> Any:
    if isinstance(value, Mapping | LayerChoice):
        return value
    if not isinstance(value, list | tuple) or not value or any(type(layer) is not int or layer < 0 for layer in value):
        raise ValueError(f"got {str(value)[:80]}; {_LAYERS_ARE}")
    if list(value) != sorted(set(value)):
        raise ValueError(f"{list(value)} must ascend without repeats")
    return value


def _layers_form(value: Any) -> str:
    return "rule" if isinstance(value, Mapping | LayerChoice) else "list"


Layers = Annotated[
    Annotated[tuple[int, ...], Tag("list")] | Annotated[LayerChoice, Tag("rule")],
    Discriminator(_layers_form),
    BeforeValidator(_checked_layers),
]
"""Which layers stay: a list, counted from 0, or a rule."""


def _share_or_count(value: Any) -> Any:
    if type(value) not in (int, float) or value <= 0 or (type(value) is float and value > 1):
        raise ValueError(f"got {repr(value)[:80]}; a share in (0, 1], as 0.5, or a whole number, as 256")
    return value


Part = Annotated[int | float, BeforeValidator(_share_or_count)]
"""How much stays: a share (0.5) or a count (256); 1.0 is all, 1 is one."""


class Width(Section):
    """How wide the layers of a student are: what does least for the backbone's own scores is taken out of each."""

    feed_forward: Part | None = None
    """Neurons of each feed-forward network; None is all."""
    heads: Part | None = None
    """Attention heads of each layer; None is all, or what `hidden` asks for. Most architectures tie heads × head size to
    the hidden size, and then it is set by `hidden` alone."""
    hidden: Part | None = None
    """The hidden size; None is the backbone's."""
    hidden_by: Literal["pca", "dimensions"] = "pca"
    """pca: the directions in which hidden states vary most. dimensions: the dimensions without which they are predicted best."""

    @model_validator(mode="after")
    def _something(self) -> "Width":
        if self.feed_forward is None and self.heads is None and self.hidden is None:
            raise ValueError("nothing is made narrower; set feed_forward, heads or hidden, or leave width out")
        return self


class Control(Section):
    """How the control is trained: the same student from the same start by the labels alone, as well as they allow."""

    loss: LabelLoss | None = None
    """None tries every label loss of the student's kind and takes what is best on the validation pairs."""
    steps: Count | None = None
    """Optimizer steps; None is as many as the student took."""
    trial_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Length of each trial, as a share of the control's steps; ten steps at least."""


class Student(Section):
    """What is shipped. `control` trains the same student without the teacher, for the report."""

    kind: Literal["cross_encoder", "bi_encoder"]
    backbone: Backbone
    layers: Layers | None = None
    """Which of the backbone's layers stay: a list counted from 0, as [0, 2, 4], or a rule, as {importance: 3}; None is all."""
    width: Width | None = None
    """How wide the layers are; None is as wide as the backbone's."""
    vocabulary: Vocabulary | None = None
    """None keeps the backbone's."""
    embedding_rank: Count | None = None
    """Word embeddings as a product of two matrices, this wide between; None keeps them whole. It makes a BERT or XLM-R an
    ordinary MobileBERT, whose layers are the same."""
    pooling: Literal["mean", "cls"] | None = None
    """None takes the backbone's."""
    head: Annotated[tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...], Field(max_length=20)] | None = None
    static: Static | None = None
    """A table of token vectors in place of the backbone's layers; None keeps the layers."""
    dimensions: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """Width of the embeddings, the most important dimensions first; None is the backbone's, or the matched teacher's."""
    max_length: Tokens = 512
    prompts: tuple[str, str] | None = None
    asymmetric: Asymmetric | None = None
    """Serve one side only, beside the frozen teacher; None serves both."""
    control: bool | Control = True
    """true is the best that labels alone can do; see `Control`. false leaves it out, and the report says so."""
    training: Training = Training()

    @property
    def model_kind(self) -> Literal["cross_encoder", "bi_encoder"]:
        """What the saved model is."""
        return self.kind


class Labels(Section):
    """Learn from the labels; losses as for teachers."""

    loss: LabelLoss | None = None
    weight: Positive = 1.0
    temperature: Positive = 0.05


class ScoreMatch(Section):
    """Match the teacher's scores.

    mse: squared difference of scores in [0, 1]. bce: the teacher's probability as a soft label.
    logit_mse: squared difference of logits. kl: τ²·KL over the candidates of a query.
    """

    teacher: str
    loss: Literal["mse", "bce", "logit_mse", "kl"] = "mse"
    weight: Positive = 1.0
    temperature: Positive = 1.0
    """Divides the logits of teacher and student (bce, kl)."""


class MarginMatch(Section):
    """MarginMSE (Hofstätter et al. 2020): match score differences between the candidates of a query."""

    teacher: str
    weight: Positive = 1.0


class EmbeddingMatch(Section):
    """Match the teacher's text embeddings, through a learned projection where the widths differ."""

    teacher: str
    loss: Literal["cosine", "mse"] = "cosine"
    weight: Positive = 1.0
    projection: Literal["keep", "drop"] = "keep"
    """keep: the student puts out vectors of the teacher's width and space; drop: of its own."""


class Matryoshka(Section):
    """Embeddings that may be cut short: all terms are learned on prefixes too (Kusupati et al. 2022). A list of widths will do."""

    dimensions: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)]
    """The widths; the whole one, `student.dimensions`, is always among them."""
    weights: tuple[Positive, ...] | None = None
    """Of each width in turn; None is equal ones. They are divided by their sum, the whole width's being 1 where it is not listed."""

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
    """What the student learns from: each is one weighted term, null is off."""

    labels: Labels | None = None
    score_match: ScoreMatch | None = None
    margin_mse: MarginMatch | None = None
    embedding_match: EmbeddingMatch | None = None
    matryoshka: Matryoshka | None = None
    """No term of its own: widths at which the others are learned as well; null is the whole width alone."""

    def teachers(self) -> dict[str, set[str]]:
        """Return the signals ("scores", "embeddings") that each teacher must have cached."""
        needs: dict[str, set[str]] = {}
        for term, signal in (
            (self.score_match, "scores"),
            (self.margin_mse, "scores"),
            (self.embedding_match, "embeddings"),
        ):
            if term is not None:
                needs.setdefault(term.teacher, set()).add(signal)
        return needs


ExportFormat = Literal["openvino", "onnx"]
ExportPrecision = Literal["fp32", "bf16", "fp16", "int8", "int8_dynamic", "int8_weights", "int4_weights"]


class Recover(Section):
    """Recovery for int8: the student goes on training for a moment with int8 simulated in what the export quantizes.

    Straight-through gradients (Jacob et al. 2018), and the batches, precision and schedule of the student's training. It is
    done where int8 does not hold at the gate, before anything more is put into float, and the gate still compares with the
    student as it was: that one teaches first, the recipe's teachers beside it.
    """

    steps: Count = 200
    learning_rate: Positive = 2e-5
    match_student: Positive | None = 1.0
    """Weight of the float student's own results, which the gate compares with: of a bi-encoder 1 − cosine, of a
    cross-encoder the squared difference of logits. None learns from the objectives alone."""
    objectives: Positive | None = 0.1
    """Weight of the recipe's objectives, with their teachers' cached signals; None learns from the float student alone.
    What a student that is not trained to the end still learns by them takes it away from what it was."""

    @model_validator(mode="after")
    def _something(self) -> "Recover":
        if self.match_student is None and self.objectives is None:
            raise ValueError("nothing is learned; set match_student (say 1.0), objectives (say 0.1), or both")
        return self


class Export(Section):
    """Exports of the student, each checked against torch before it is put in place."""

    PRECISIONS: ClassVar[Mapping[ExportFormat, tuple[ExportPrecision, ...]]] = {
        "openvino": ("fp32", "bf16", "fp16", "int8", "int8_weights", "int4_weights"),
        "onnx": ("fp32", "int8", "int8_dynamic"),
    }
    """What each format comes in."""
    formats: Annotated[tuple[ExportFormat, ...], Field(min_length=1)] = ("openvino",)
    """openvino runs fastest on a CPU; onnx is what fastembed, text-embeddings-inference, transformers.js and others read."""
    precisions: tuple[ExportPrecision, ...] = ("fp32", "int8")
    """fp32 and int8 (weights and activations, static ranges) come in both formats, the others in the one that has them:
    in openvino bf16, fp16 (weights of half the size), int8_weights (of a quarter) and int4_weights (an eighth but for the
    word embeddings, as far as the gate holds), in onnx int8_dynamic, whose result for a text changes with its neighbours in
    the batch: not for an index."""
    calibration_pairs: Count = 300
    """Pairs of the recipe's own training text that set the int8 ranges; int4 weights are fitted on 128 of their texts."""
    smooth_quant_alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How much of the activations' outliers goes into the weights."""
    keep_float: tuple[str, ...] | Literal["ffn_down", "search"] | None = "ffn_down"
    """What stays out of int8: the feed-forward down-projections carry almost all of the damage. search: the least that
    holds the gate, by trying (minutes); it is what follows, too, where the gate does not hold."""
    recover: Recover | None = None
    """Train the student on with int8 simulated where int8 does not hold, before layers are put into float; None is off. It
    mends what outliers among the weights do, not the rounding of activations."""
    parity_pairs: Count = 500
    min_cosine: float | None = None
    """Of any text's embedding to torch's; None is the default of the precision."""
    min_mean_cosine: float | None = None
    min_rank_agreement: float | None = None
    """Spearman between the export's and torch's pair scores."""
    min_batch_cosine: float | None = None
    """Of a text alone to the same text in a batch."""
    min_top_k_overlap: float | None = None
    """Mean share of a query's best documents that export and torch both name."""
    max_metric_drop: float | None = None
    """What the metric on the validation labels may lose."""

    @property
    def wanted(self) -> list[tuple[ExportFormat, ExportPrecision]]:
        """Each format with each precision that it comes in."""
        return [
            (format, precision)
            for format in self.formats
            for precision in self.precisions
            if precision in self.PRECISIONS[format]
        ]


class TfIdf(Section):
    """Cosine of TF-IDF vectors, through scikit-learn."""

    kind: Literal["tfidf"] = "tfidf"
    fit: Literal["corpus", "pair"] = "corpus"
    """corpus: fitted once on the training texts. pair: on each pair alone, as the published ablation did."""
    analyzer: Literal["word", "char", "char_wb"] | None = None
    """None of analyzer and ngrams tries words, characters 2 to 4 within words and characters 1 to 3, and takes what ranks the
    validation pairs best; else None is word."""
    ngrams: tuple[Count, Count] | None = None
    """The shortest and the longest; None is 1 to 1 beside a stated analyzer."""

    @model_validator(mode="after")
    def _rising(self) -> "TfIdf":
        if self.ngrams is not None and self.ngrams[0] > self.ngrams[1]:
            raise ValueError(f"ngrams {list(self.ngrams)}: the shortest comes first")
        return self

    @property
    def is_chosen_by_validation(self) -> bool:
        """Whether the recipe leaves the terms open."""
        return self.fit == "corpus" and self.analyzer is None and self.ngrams is None


class Remote(Section):
    """Embeddings of an OpenAI-compatible endpoint, each text asked once and kept on disk."""

    kind: Literal["remote"] = "remote"
    endpoint: Endpoint
    dimensions: Count | None = None
    """None is the model's own width."""
    cache: str | None = None
    """A folder; None is one beside the run's baselines."""


class Encoder(Section):
    """An encoder as it comes, untrained for the task ("zero-shot")."""

    kind: Literal["encoder"] = "encoder"
    backbone: Backbone
    pooling: Literal["mean", "cls"] | None = None
    max_length: Tokens = 512
    head: None = None
    """A bi-encoder has none."""
    prompts: tuple[str, str] | None = None

    @property
    def model_kind(self) -> Literal["bi_encoder"]:
        """What the saved model is."""
        return "bi_encoder"


class Paragraphs(Section):
    """Any bi-encoder on paragraphs of long documents: the mean of the best `top_k` matches from either side."""

    kind: Literal["paragraphs"] = "paragraphs"
    model: str
    """`student`, the name of a bi-encoder teacher or baseline of this recipe, or a model folder."""
    top_k: Count = 3
    max_characters: Annotated[int, Field(ge=40)] = 400
    """Longer blocks are cut at their lines and sentences."""


Baseline = Annotated[TfIdf | Remote | Encoder | Paragraphs, Field(discriminator="kind")]


def _tfidf_alone() -> dict[str, Baseline]:
    return {"tfidf": TfIdf()}


class Benchmark(Section):
    """The report: quality beside latency beside size."""

    threads: Count | None = None
    """None is what the machine (or its container) gives."""
    seconds: Seconds = 10.0
    """Measuring time per row and kind of measurement; longer for a row that cannot go through the common pairs once in it."""
    throughput_pairs: Count = 512
    """At most. All rows are measured over the same pairs: as many as the slowest has time for, at least 64 (latency: 24)."""
    interval: Annotated[float, Field(gt=0, lt=2)] | None = 0.1
    """Go on, round by round for all rows, until the 95 % intervals of each row's p50 latency and throughput are no wider
    than this share of their value, or `max_seconds` is reached; None stops after `seconds`."""
    max_seconds: Seconds | None = None
    """The limit for that, per row and kind of measurement; None is three times `seconds`."""
    lengths: tuple[Count, ...] = (32, 64, 128, 256, 512)
    """Length buckets in tokens."""
    bootstrap: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Resamples behind each 95 % interval."""
    teachers: tuple[str, ...] | None = None
    """Which teachers get a row; None is all but adapted encoders (kind mlm)."""
    teacher_exports: tuple[ExportPrecision, ...] | None = None
    """What the matched teacher is exported in as well, in `export.formats`, so that "× teacher" is split into what the smaller
    model gives and what the runtime gives; None is each of fp32, bf16 and int8 that the student is exported in. A large
    teacher takes minutes and its size in memory once more each: [] leaves it out, and the report says so."""
    baselines: dict[Name, Baseline] = Field(default_factory=_tfidf_alone)
    """What the models are compared with; {} is nothing."""


class Card(Section):
    """What the model cards say and no number shows."""

    license: str | None = None
    """As the hub spells it, such as apache-2.0; None: the parents' terms are named instead."""
    languages: tuple[str, ...] = ()
    """As ko, en."""


class CascadeDial(Section):
    """Student first, teacher only where in doubt: `distill cascade`; see `distill.scorers.cascade`."""

    teacher: Name | None = None
    """None is the teacher whose scores are matched."""
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of the pairs that go to the teacher; None is the least that equals the teacher on the validation pairs, see margin."""
    top_k: Count | None = None
    """The k best documents of each query go to the teacher, instead of a share by doubt."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """The cascade equals the teacher where it loses less than this: the lower end of the interval of cascade − teacher, in the
    report's first metric, lies above −margin (non-inferiority), after Holm's correction for all shares that are tried."""


class Plan(Section):
    """What a student may cost: `distill plan` finds the largest shapes that cost no more, measured on this machine."""

    budget_p95_ms: Positive | None = None
    """p95 of one text at a time (a cross-encoder: one pair), tokenisation included; None is no limit."""
    budget_mb: Positive | None = None
    """Of the folder in the plan's precision, in 10⁶ bytes; None is no limit."""
    precision: Literal["auto", "fp32", "int8"] = "auto"
    """What the budget is for. auto: of fp32 and int8 the one that is measured to be faster on this machine, if the recipe
    exports both; a plan shows both anyway."""
    length: Tokens | None = None
    """Tokens of that text, or of that pair together; None is 256, or the student's max_length where that is less."""
    threads: Count | None = None
    """None is what the machine (or its container) gives."""
    kind: Literal["cross_encoder", "bi_encoder"] | None = None
    """None is the student's, else bi_encoder."""
    teacher: Name | None = None
    """Plan cuts of this teacher; None: of what `student.backbone` names, else fresh encoders."""
    family: Literal["bert", "xlm-roberta"] | None = None
    """Of fresh encoders; None is bert."""
    vocabulary: OneOrMore[Annotated[int, Field(ge=64)]] | None = None
    """Sizes to choose from: of a fresh encoder, where None is 32000; or to trim a cut one to, where None is as the student's
    own section says."""
    widths: OneOrMore[Annotated[int, Field(ge=16)]] | None = None
    """Of a fresh encoder; None is 128 to 768, and attention heads are 64 wide where that divides it, else 32 or 16. Of a cut
    one the hidden sizes to make it (`student.width.hidden`); None is as the student's own section says."""
    feed_forward: OneOrMore[Positive] | None = None
    """Multiples of the width of a fresh encoder; None is [2, 4]. Of a cut one the shares that stay; None is all."""
    layers: OneOrMore[Count] | None = None
    """How many; None is 2 to 12 of a fresh encoder, 1 to all of a teacher."""
    measured: Annotated[int, Field(ge=3)] = 10
    """Shapes that are measured before the rest is predicted."""
    verified: Count = 3
    """Of the shapes that come out, how many are measured as well."""
    seconds: Seconds = 1.5
    """Measuring time per shape and kind of measurement."""


class Recipe(Section):
    """A whole run."""

    name: Name
    output_dir: str | None = None
    """None is runs/<name>."""
    seed: Seed = 42
    overwrite: bool = False
    """Rebuild a finished folder that was made by another recipe, instead of stopping."""
    data: Data
    teachers: dict[Name, Teacher] = Field(default_factory=dict)
    signals: Signals = Signals()
    student: Student | None = None
    """None: teachers alone are trained and compared."""
    objectives: Objectives = Objectives()
    training: Training = Training()
    export: Export = Export()
    benchmark: Benchmark = Benchmark()
    cascade: CascadeDial = CascadeDial()
    card: Card = Card()
    plan: Plan = Plan()

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.output_dir or f"runs/{self.name}")

    @property
    def exports(self) -> list[tuple[ExportFormat | Literal["numpy"], ExportPrecision]]:
        """Formats and precisions of the student's exports. A static student is its own fp32 and has no graph."""
        if self.student is None or self.student.static is None:
            return [*self.export.wanted]
        return [("numpy", "int8")] if "int8" in self.export.precisions else []

    @model_validator(mode="before")
    @classmethod
    def _merge_training(cls, raw: Any) -> Any:
        return merge_training(raw)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Recipe":
        if problems := problems_of(self):
            raise ValueError("\n".join(problems))
        return self


def merge_training(raw: Any) -> Any:
    """Lay each teacher's and the student's own `training` over that of the whole."""
    if not isinstance(raw, Mapping) or not isinstance(raw.get("training", {}), Mapping):
        return raw
    merged = dict(raw)
    if isinstance(raw.get("teachers"), Mapping):
        merged["teachers"] = {name: _with_training(teacher, raw) for name, teacher in raw["teachers"].items()}
    if isinstance(raw.get("student"), Mapping):
        merged["student"] = _with_training(raw["student"], raw)
    return merged


def _with_training(section: Any, raw: Mapping[str, Any]) -> Any:
    own = section.get("training", {}) if isinstance(section, Mapping) else None
    if not isinstance(own, Mapping):
        return section
    return {**section, "training": {**(raw.get("training") or {}), **own}}
