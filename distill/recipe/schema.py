"""The recipe: one YAML file in the order of the steps, validated as a whole before anything loads.

    data → teachers → signals → student → objectives → training → export → benchmark

Every setting of the toolkit is a field on this page, with its unit and meaning. `null` (None) means off. A teacher or
the student may have its own `training` section. Its keys win over the recipe's, and the resolved recipe is stored with
every artefact. If the student is trained in stages, each stage has its own keys (`TrainingStage`).

Each section checks its own values. `distill.recipe.checks` checks that sections agree with each other.
`distill.recipe.reading` reads files and overrides, and reports all problems at once.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from distill.recipe.black_box import BLACK_BOXES, BlackBox, CallableTeacher, EndpointTeacher, FileColumns, FileTeacher
from distill.recipe.checks import problems_of
from distill.recipe.endpoint import Endpoint
from distill.recipe.objectives import (
    AdrMse,
    Cka,
    CoSent,
    EmbeddingMatch,
    Guide,
    HiddenMatch,
    LabelLoss,
    Labels,
    LambdaLoss,
    ListMle,
    ListNet,
    MarginMatch,
    Matryoshka,
    Objectives,
    RankNet,
    RelationMatch,
    Rkd,
    Schedule,
    ScoreMatch,
    Similarity,
    SoleLoss,
)
from distill.recipe.score_calibration import OperatingPoint, ScoreCalibration
from distill.recipe.section import Count, Name, OneOrMore, Positive, Scripts, Seconds, Section, Seed, Share, Tokens
from distill.recipe.token_teachers import TOKEN_TEACHERS, LateInteractionTeacher, M3Teacher, M3Weights, TokenTeacher
from distill.resumes.sections import SectionKind

__all__ = [
    "AdrMse",
    "AnyTeacher",
    "Asymmetric",
    "Backbone",
    "Baseline",
    "Benchmark",
    "BlackBox",
    "CallableTeacher",
    "Card",
    "CascadeDial",
    "Cka",
    "CoSent",
    "Columns",
    "Control",
    "Data",
    "EmbeddingMatch",
    "Encoder",
    "EndpointTeacher",
    "Export",
    "ExportFormat",
    "ExportPrecision",
    "FileColumns",
    "FileTeacher",
    "FreshBackbone",
    "FurtherCut",
    "Guide",
    "HiddenMatch",
    "LabelLoss",
    "LabelledPairs",
    "Labels",
    "LambdaLoss",
    "LateInteractionTeacher",
    "LayerChoice",
    "Layers",
    "ListMle",
    "ListNet",
    "Lora",
    "M3Teacher",
    "M3Weights",
    "MarginMatch",
    "Matryoshka",
    "Mlm",
    "MoreVocabulary",
    "Name",
    "NewVocabulary",
    "Objectives",
    "OperatingPoint",
    "Paragraphs",
    "Parallel",
    "Plan",
    "Pooling",
    "RankNet",
    "Recipe",
    "Recover",
    "RelationMatch",
    "Remote",
    "Resume",
    "Rkd",
    "Schedule",
    "ScoreCalibration",
    "ScoreMatch",
    "Section",
    "Signals",
    "Similarity",
    "SoleLoss",
    "Static",
    "Student",
    "Teacher",
    "TeacherBackbone",
    "TfIdf",
    "TokenTeacher",
    "Training",
    "TrainingStage",
    "Trim",
    "Unlabelled",
    "UnlabelledPairs",
    "Vocabulary",
    "Width",
    "merge_training",
]


_ONE_OR_SEVERAL = BeforeValidator(lambda value: (value,) if isinstance(value, Mapping) else value)


class Columns(Section):
    """The names of the columns in a table of pairs."""

    query: str = "query"
    """Column of the queries, such as résumés or questions."""
    document: str = "document"
    """Column of the documents, such as job descriptions or answers."""
    label: str = "label"
    """Column of the labels, which are numbers within `data.label_range`."""


class Unlabelled(Section):
    """Texts without pairs or labels: a file and its text columns. Only objectives on embeddings can use them."""

    path: str
    """A .txt (one text a line), .csv, .tsv, .jsonl or .parquet file, or the name of a hub dataset."""
    columns: Annotated[tuple[str, ...], Field(min_length=1)] = ("text",)
    """The columns that hold texts."""
    max_texts: Count | None = None
    """How many texts to take at random, with the recipe's seed. None takes all of them."""


class UnlabelledPairs(Section):
    """Pairs without labels.

    The teachers score them and only the student learns from them. Set one of the three sources.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    path: str | None = None
    """Source 1: a file of pairs, in the formats of `data.train`. A label column is not read."""
    columns: Columns | None = None
    """The file's columns of queries and documents. None uses `data.columns`."""
    max_pairs: Count | None = None
    """How many pairs of the file to take at random, with the recipe's seed. None takes all of them."""
    bundled: Count | None = None
    """Source 2: this many generated pairs. They are made like the pairs of `train: bundled`, and none is the same
    pair."""
    teacher: Name | None = Field(default=None, alias="from")
    """Source 3: a bi-encoder teacher. For each training query it finds the nearest documents among all training
    documents."""
    per_query: Count = 4
    """How many documents the teacher finds for each query."""

    @model_validator(mode="after")
    def _one_source(self) -> "UnlabelledPairs":
        sources = {"path": self.path, "bundled": self.bundled, "from": self.teacher}
        named = [name for name, value in sources.items() if value is not None]
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


class LabelledPairs(Section):
    """Labelled pairs of another file, with columns and labels of its own, to train on beside the pairs of `data.train`.

    None of them validates or evaluates, and pairs with a validation or evaluation text are left out.
    """

    path: str
    """A file of pairs, in the formats of `data.train`, or the name of a hub dataset."""
    columns: Columns | None = None
    """The file's columns. None uses `data.columns`."""
    label_range: tuple[float, float] | None = None
    """The lowest and the highest possible label in this file. None uses `data.label_range`."""
    max_pairs: Count | None = None
    """How many pairs of the file to take at random, with the recipe's seed. None takes all of them."""

    @model_validator(mode="after")
    def _file(self) -> "LabelledPairs":
        if self.path == "bundled":
            raise ValueError("path is a file or a hub dataset; generated pairs are data.train=bundled")
        if self.label_range is not None:
            check_label_range(self.label_range)
        return self


class Parallel(Section):
    """Texts with translations, for a student that covers more languages than its teacher (Reimers & Gurevych 2020).

    The student's embeddings of both texts learn to match the teacher's embedding of the source text.
    """

    path: str
    """A table with one column for each language."""
    source: str = "en"
    """The column with the texts in a language that the teacher knows."""
    target: str = "ko"
    """The column with their translations."""
    max_pairs: Count | None = None
    """How many translations to take at random, with the recipe's seed. None takes all of them."""


class Resume(Section):
    """Which parts of a résumé are read."""

    side: Literal["query", "document"] = "query"
    """Which side of the pairs holds résumés."""
    keep: Annotated[tuple[SectionKind, ...], Field(min_length=1)] | None = None
    """The sections to keep. [experience, education, skills] are those of the published V2 data; None keeps all. A
    résumé without any of these sections is kept whole and counted."""
    blind: bool = False
    """Remove names, birth dates, addresses, phone numbers and other personal data."""


class Data(Section):
    """The source of the pairs, and how they are split."""

    train: str
    """`bundled` (generated résumé–JD pairs), a .csv, .tsv (.gz), .jsonl or .parquet file, or the name of a hub dataset."""
    evaluation: str | None = None
    """Pairs that only the report uses. None holds out `evaluation_share` of train."""
    split: Literal["auto", "component", "query", "document"] = "auto"
    """Which pairs are held out together, so that no text is on both sides of a split. component: pairs that share texts
    stay together, and no pair is dropped. query, document: training pairs that share a text with a held-out pair are
    dropped. auto takes component, or query if the components are too large."""
    evaluation_share: Share = 0.1
    """Share of the queries that is held out for the report, if `evaluation` names no file."""
    validation_share: Share = 0.05
    """Share of the training queries that is held out to choose the best checkpoint and to stop early."""
    max_validation_pairs: Count = 1000
    """The maximum number of validation pairs."""
    columns: Columns = Columns()
    """The names of the columns."""
    resume: Resume | None = None
    """Read one side as résumés. None reads every text as it is."""
    label_range: tuple[float, float] = (0.0, 1.0)
    """The lowest and the highest possible label in the file. Labels are mapped from this range to [0, 1]."""
    candidates: Annotated[int, Field(ge=2)] | None = None
    """Train on each query together with up to this many of its documents. None trains on single pairs."""
    unlabelled: tuple[Unlabelled, ...] = ()
    """Texts without pairs or labels, for objectives on embeddings (`embedding_match`, `rkd`, `similarity`, `cka`)."""
    unlabelled_pairs: Annotated[tuple[UnlabelledPairs, ...], _ONE_OR_SEVERAL] = ()
    """Pairs without labels. Only the student learns from them, through the teachers' signals."""
    labelled_pairs: Annotated[tuple[LabelledPairs, ...], _ONE_OR_SEVERAL] = ()
    """Further files of labelled pairs to train on: teachers and control, and the student's objectives on labels, use them
    like the pairs of `train`."""
    labelled_share: Share | None = None
    """Use the labels of this share of the training pairs of `train`, whole queries at a time. The other pairs are used without their
    labels. None uses all labels."""
    max_labelled: Count | None = None
    """The same limit as a number: at most this many pairs keep their labels. Set this or `labelled_share`."""
    parallel: tuple[Parallel, ...] = ()
    """Texts with translations, for a student that learns another language."""
    hub_split: str = "train"
    """The split to load, if `train` names a hub dataset."""
    max_pairs: Count | None = None
    """How many pairs of each file to take at random, with the recipe's seed. None takes all of them."""
    skip_bad_rows: bool = False
    """Skip rows with an empty text or an unusable label, and count them. False stops at the first such row."""
    bundled_pairs: Count = 8000
    """How many pairs `train: bundled` generates, for training and evaluation together."""

    @model_validator(mode="after")
    def _range(self) -> "Data":
        if self.labelled_share is not None and self.max_labelled is not None:
            raise ValueError("labelled_share and max_labelled both say how many labels are used; set one")
        check_label_range(self.label_range)
        return self


def is_label_range(low: float, high: float) -> bool:
    """Tell whether labels from low to high can be mapped to [0, 1].

    >>> is_label_range(0, 5), is_label_range(1, 1), is_label_range(0, math.inf)
    (True, False, False)
    """
    return low < high and math.isfinite(high - low)


def check_label_range(label_range: tuple[float, float]) -> None:
    """Refuse a range that is not finite, or whose lower end does not come first."""
    low, high = label_range
    if not is_label_range(low, high):
        raise ValueError(f"label_range is [{low}, {high}]; the lower end comes first")


Pooling = Literal["mean", "cls", "lasttoken"]


class FreshBackbone(Section):
    """An encoder with random weights and a tokenizer trained on the recipe's own text."""

    form: ClassVar[Literal["fresh"]] = "fresh"
    """The name of this form, for fields that accept several forms."""
    tokenizer: Literal["wordpiece", "unigram"] = "wordpiece"
    """The tokenizer's algorithm. wordpiece makes a BERT, unigram an XLM-RoBERTa."""
    vocabulary: Annotated[int, Field(ge=64, le=5_000_000)] = 16000
    """Number of tokens."""
    layers: Annotated[int, Field(ge=1, le=512)] = 4
    """Number of transformer layers."""
    width: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Hidden size, a multiple of `heads`."""
    heads: Annotated[int, Field(ge=1, le=4096)] = 4
    """Number of attention heads."""
    feed_forward: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Hidden size of the feed-forward networks. None is four times the width."""
    max_length: Tokens = 512
    """The longest input in tokens."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "FreshBackbone":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads")
        return self


class TeacherBackbone(Section):
    """A teacher of this recipe, with all of its weights. The student's other keys define what is cut from it.

    A teacher may start from an earlier teacher. A cross-encoder that starts from random weights stays at chance for
    thousands of steps; one that starts from a trained bi-encoder learns at once.
    """

    form: ClassVar[Literal["teacher"]] = "teacher"
    teacher: str
    """The teacher's name."""


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
    """Rank of the update matrices."""
    alpha: Positive = 32.0
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Dropout before the adapters."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the modules that get adapters, or all linear layers of the encoder."""


class Mlm(Section):
    """Masked-language modelling: how a teacher of `kind: mlm` is adapted to the recipe's text."""

    probability: Annotated[float, Field(gt=0, le=0.5)] = 0.15
    """Share of the tokens that the model must predict."""
    whole_words: bool = False
    """Mask all tokens of a word together. Single tokens of a Korean word are too easy to guess."""


class Training(Section):
    """How a model is trained. A unit is a pair, or a query with its candidates if `data.candidates` is set."""

    silent_at_default: ClassVar[frozenset[str]] = frozenset({"auxiliary_learning_rate"})

    epochs: Annotated[float, Field(gt=0, le=10_000)] = 3.0
    """Passes over the training units."""
    max_steps: Count | None = None
    """The maximum number of optimizer steps. The learning-rate schedule ends there, too. None trains for `epochs`."""
    learning_rate: Positive = 2e-5
    """The peak learning rate of AdamW, reached after the warm-up."""
    auxiliary_learning_rate: Positive = 1e-3
    """The peak learning rate of parameters outside the model: the projection into a teacher's space, and the scale and
    bias of cosines. They are not pretrained, so `learning_rate` is too low for them. The higher of the two rates is
    used."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate changes after the warm-up: linearly to zero, to zero along a cosine, or not at all."""
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW."""
    global_batch: Count = 32
    """Units per optimizer step, summed over all processes."""
    micro_batch: Count = 32
    """The most units per forward pass and process. Gradients are accumulated up to `global_batch`. No loss depends on
    it: losses that compare the units of a step with each other, such as InfoNCE, see all of `global_batch`, and encode
    it twice if it takes several passes."""
    token_budget: Count = 8192
    """The most tokens per forward pass and process, padding included."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Number format of the forward and backward pass. auto is bf16 if the hardware multiplies bf16 (AVX512-BF16, AMX,
    CUDA from compute capability 8.0), else fp32."""
    max_grad_norm: Positive | None = 1.0
    """Gradients are clipped to this norm. None does not clip them."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout during training. None keeps the model's own."""
    evaluations_per_epoch: Annotated[int, Field(ge=0, le=100_000)] = 2
    """Number of evaluations on the validation pairs per epoch; the best weights are kept. 0 does not evaluate and keeps
    the last weights."""
    patience: Count | None = None
    """Stop training after this many evaluations without a better value. None never stops early."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass. This takes less memory and more time."""
    checkpoint_seconds: Annotated[float, Field(ge=0, le=1e9)] = 60.0
    """Seconds between checkpoints. A killed run loses at most this much work. 0 writes a checkpoint after every
    step."""
    tensorboard: bool = True
    """Write curves for TensorBoard."""


def _known_kind(kind: Any) -> Any:
    known = ("cross_encoder", "bi_encoder", "mlm", *BLACK_BOXES, *TOKEN_TEACHERS)
    if kind not in known:
        accepted = ", ".join(map(repr, known))
        raise ValueError(f"got {repr(kind)[:80]}; it should be one of {accepted}")
    return kind


class Teacher(Section):
    """A teacher: trained on the labels, or `frozen` and used as it is.

    `kind: mlm` does not learn labels. It adapts an encoder to the recipe's text, so that a later teacher can start from
    it.
    """

    form: ClassVar[Literal["model"]] = "model"
    silent_at_default: ClassVar[frozenset[str]] = frozenset({"positive_from"})

    kind: Annotated[Literal["cross_encoder", "bi_encoder", "mlm"], BeforeValidator(_known_kind)]
    """cross_encoder reads a pair together and gives a score. bi_encoder reads each text alone and gives an embedding."""
    backbone: Backbone
    """The encoder to start from: a model's name or path, `{teacher: NAME}`, or a fresh encoder."""
    frozen: bool = False
    """Do not train; use the model as it is."""
    pooling: Pooling | None = None
    """How token embeddings become one vector: their mean, the first token's, or the last token's. None takes the
    backbone's own pooling. If it has none, None is mean for an encoder and lasttoken for a decoder."""
    head: Annotated[tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...], Field(max_length=20)] | None = None
    """Hidden widths of the cross-encoder's MLP. [] is a single linear layer. None takes the backbone's own head, else [256]."""
    loss: SoleLoss | None = None
    """How the labels are learned. Cross-encoder: bce, mse or cosent; None is bce. Bi-encoder: contrastive (MSE between (cos+1)/2
    and the label), bce, infonce or cosent; None is contrastive. cosent learns the order of the labels: it suits graded ones."""
    temperature: Positive = 0.05
    """Temperature of InfoNCE."""
    positive_from: Annotated[float, Field(gt=0, le=1)] = 0.5
    """InfoNCE: a pair is a positive if its label, mapped to [0, 1], is at least this."""
    max_length: Tokens = 512
    """Longer texts are truncated to this many tokens and counted. For a cross-encoder this is the length of both texts
    together."""
    prompts: tuple[str, str] | None = None
    """Texts put before every query and every document, such as ["query: ", "passage: "]. None adds nothing."""
    scripts: Scripts | None = None
    """The scripts that the teacher reads, such as [latin]. If a text is mostly in another script, the student does not
    learn the teacher's embedding or layers for it; such texts are counted. For a translation (`data.parallel`) the
    source text decides. None reads all scripts."""
    lora: Lora | None = None
    """Train low-rank adapters instead of all weights. None trains all weights."""
    mlm: Mlm | None = None
    """Settings of `kind: mlm`. None takes the defaults."""
    training: Training = Training()
    """Keys that differ from the recipe's own `training` section."""

    @property
    def model_kind(self) -> Literal["cross_encoder", "bi_encoder"]:
        """The kind of the saved model. An adapted encoder is saved as a bi-encoder."""
        return "bi_encoder" if self.kind == "mlm" else self.kind


def _teacher_form(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "form", None)
    return str(kind) if kind in (*BLACK_BOXES, *TOKEN_TEACHERS) else "model"


AnyTeacher = Annotated[
    Annotated[Teacher, Tag("model")]
    | Annotated[FileTeacher, Tag("file")]
    | Annotated[EndpointTeacher, Tag("endpoint")]
    | Annotated[CallableTeacher, Tag("callable")]
    | Annotated[M3Teacher, Tag("bge_m3")]
    | Annotated[LateInteractionTeacher, Tag("late_interaction")],
    Discriminator(_teacher_form),
]
"""A teacher that is a model, a model that compares tokens, or a black box."""


class Signals(Section):
    """The cache of the teachers' scores and embeddings."""

    dtype: Literal["float16", "float32"] = "float32"
    """Number format on disk."""
    runtime: Literal["torch", "openvino"] = "torch"
    """The runtime that computes signals on a CPU. openvino is about 1.5 times as fast as torch. A GPU always uses
    torch."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format in which the teachers compute. auto is as in `training`."""
    shard_size: Count = 4096
    """Items per file of the cache. A killed run loses at most this many."""
    live: bool = False
    """Compute the teachers' outputs during training, in torch, instead of reading the cache. `dtype`, `runtime` and
    `shard_size` are for the cache alone."""
    allow_unrelated: bool = False
    """Continue although a teacher's scores do not correlate with the labels. False stops and prints the correlation."""


class Asymmetric(Section):
    """A student for one side of the pairs, in the vector space of a frozen teacher.

    The teacher still embeds the other side. A small query encoder can thus search an index that the teacher has built.
    Each export is checked against the teacher's own vectors.
    """

    side: Literal["query", "document"] = "query"
    """The side that the student reads."""
    min_cosine: Annotated[float, Field(ge=-1, le=1)] = 0.8
    """The least accepted mean cosine between the student's and the teacher's vectors of held-out texts."""
    min_recall: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The least accepted recall: the share of the `top_k` documents found by the teacher alone that are also found when
    the student embeds its side."""
    top_k: Count = 10
    """How many documents `min_recall` compares."""

    @property
    def role(self) -> int:
        """0 if the student reads queries, 1 if it reads documents."""
        return int(self.side == "document")


class Trim(Section):
    """Cut the vocabulary to the tokens that a corpus uses. Set one of the two keys."""

    coverage: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of token occurrences that are kept in every source of the corpus, at least; such as 0.999."""
    size: Annotated[int, Field(ge=64, le=5_000_000)] | None = None
    """The maximum number of tokens that are kept."""

    @model_validator(mode="after")
    def _one(self) -> "Trim":
        if (self.coverage is None) == (self.size is None):
            raise ValueError("set coverage (as 0.999) or size (as 32000), one of them")
        return self


class NewVocabulary(Section):
    """Train a tokenizer on the corpus and make word embeddings for it. The backbone's layers are kept."""

    tokenizer: Literal["unigram", "wordpiece"] = "unigram"
    """The tokenizer's algorithm."""
    size: Annotated[int, Field(ge=64, le=5_000_000)] = 16000
    """Number of tokens."""
    start: Literal["exact", "mean", "focus"] = "focus"
    """How a new token's embedding is initialised. A token that is also in the old vocabulary keeps its embedding. Any
    other token starts as a random vector (exact), as the mean of the old tokens that spell it (mean), or as a mixture
    of the shared tokens that are most similar in the corpus (focus; Dobler & de Melo 2023)."""


class MoreVocabulary(Section):
    """Add tokens for scripts that the backbone's tokenizer spells letter by letter.

    Text in other scripts keeps its tokens and their embeddings, so the model reads such text as before. WordPiece,
    Unigram and byte-level BPE tokenizers can be extended.
    """

    scripts: Scripts
    """The scripts that get tokens, such as hangul. Every new token consists of their letters alone."""
    tokens: Annotated[int, Field(ge=64, le=5_000_000)] = 12000
    """At most this many tokens are added. They are trained on the corpus."""
    start: Literal["exact", "mean", "focus"] = "focus"
    """How a new token's embedding is initialised, as in `train`."""


class Vocabulary(Section):
    """How the backbone's vocabulary is changed: trimmed, replaced by a new one, or extended.

    Set one of the three keys.
    """

    silent_at_default: ClassVar[frozenset[str]] = frozenset({"extend"})

    trim: Trim | None = None
    """Cut the vocabulary to the tokens that a corpus uses."""
    train: NewVocabulary | None = None
    """Train a new vocabulary on a corpus."""
    extend: MoreVocabulary | None = None
    """Keep the vocabulary and add tokens for some scripts."""
    texts: tuple[Unlabelled, ...] = ()
    """The corpus. Each column is one source; the columns of a row belong together, as translations do. [] is the
    recipe's own text: training, unlabelled and parallel."""

    @model_validator(mode="after")
    def _one(self) -> "Vocabulary":
        if sum(change is not None for change in (self.trim, self.train, self.extend)) != 1:
            raise ValueError("set trim, train or extend, one of them")
        return self


class Static(Section):
    """A student without layers.

    A text's embedding is the mean of its tokens' vectors, which the backbone computes once.
    """

    weighting: Literal["zipf", "sif", "none"] = "zipf"
    """A token's weight, from its frequency in the recipe's text. zipf: log(1 + rank). sif: a / (a + share) with a =
    1e-3 (Arora et al. 2017). none: 1."""


LayerRule = Literal["every", "first", "last", "spread", "importance"]
_LAYERS_ARE = (
    f"layers are a list from 0 on, as [0, 2, 4], or one of {', '.join(get_args(LayerRule))}, as {{importance: 3}}"
)


class LayerChoice(Section):
    """The rule by which a student keeps layers of the backbone. Set one of the rules."""

    form: ClassVar[Literal["rule"]] = "rule"
    every: Count | None = None
    """Keep every N-th layer, starting with the first."""
    first: Count | None = None
    """Keep the first N layers."""
    last: Count | None = None
    """Keep the last N layers."""
    spread: Count | None = None
    """Keep N layers at equal distances, including the first and the last."""
    importance: Count | None = None
    """Keep N layers. Layers are removed one at a time, always the one whose removal changes the model's scores least.
    For a bi-encoder, scores are the cosines between all texts of a sample of the training pairs."""

    @property
    def rule(self) -> LayerRule:
        """The name of the rule."""
        return next(name for name in get_args(LayerRule) if getattr(self, name) is not None)

    @property
    def number(self) -> int:
        """The rule's number: how many layers are kept, or the step for `every`."""
        return int(getattr(self, self.rule))

    @model_validator(mode="after")
    def _one_rule(self) -> "LayerChoice":
        rules = [name for name in get_args(LayerRule) if getattr(self, name) is not None]
        if len(rules) != 1:
            raise ValueError(f"{' and '.join(rules) or 'no rule'} given; {_LAYERS_ARE}")
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
"""Which layers are kept: a list, counted from 0, or a rule."""


def _share_or_count(value: Any) -> Any:
    if type(value) not in (int, float) or value <= 0 or (type(value) is float and value > 1):
        raise ValueError(f"got {repr(value)[:80]}; a share in (0, 1], as 0.5, or a whole number, as 256")
    return value


Part = Annotated[int | float, BeforeValidator(_share_or_count)]
"""How much is kept: a share (0.5) or a count (256). 1.0 is all, 1 is one."""


class Width(Section):
    """How wide the layers of a student are.

    The parts of each layer that matter least for the backbone's scores are removed.
    """

    feed_forward: Part | None = None
    """Neurons to keep in each feed-forward network, as a share or a count. None keeps all."""
    heads: Part | None = None
    """Attention heads to keep in each layer, as a share or a count. None keeps all, or as many as `hidden` needs. Most
    architectures require heads × head size = hidden size; for these, set `hidden` instead."""
    hidden: Part | None = None
    """The new hidden size, as a share or a count. None keeps the backbone's."""
    hidden_by: Literal["pca", "dimensions"] = "pca"
    """pca: keep the directions in which the hidden states vary most. dimensions: remove the dimensions that the other
    dimensions predict best."""

    @model_validator(mode="after")
    def _something(self) -> "Width":
        if self.feed_forward is None and self.heads is None and self.hidden is None:
            raise ValueError("nothing is made narrower; set feed_forward, heads or hidden, or leave width out")
        return self


class Control(Section):
    """How the control is trained.

    The control is the same student with the same initial weights, trained on the labels without a teacher.
    """

    loss: SoleLoss | None = None
    """The loss on the labels. None tries every label loss of the student's kind, cosent, and the recipe's own label
    terms if these are several or include lists. Losses that the validation pairs do not show to be worse than the best
    trial are trained in full, and the best of these trainings is the control."""
    learning_rates: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    """The peak learning rates to try with each loss. None is the student's own rate, or that of each of its stages. If all
    trainings in full are worse than the best trial, a third and a ninth of its rate are tried in full."""
    steps: Count | None = None
    """Optimizer steps. None is as many as the student took."""
    trial_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Length of each trial, as a share of the control's steps. A trial has at least ten steps."""


class Student(Section):
    """The small model that is trained and exported."""

    kind: Literal["cross_encoder", "bi_encoder"]
    """cross_encoder reads a pair together and gives a score. bi_encoder reads each text alone and gives an embedding."""
    backbone: Backbone
    """The encoder to start from: a model's name or path, `{teacher: NAME}`, or a fresh encoder. The keys below cut it."""
    layers: Layers | None = None
    """Which of the backbone's layers are kept: a list counted from 0, such as [0, 2, 4], or a rule, such as
    {importance: 3}. None keeps all."""
    width: Width | None = None
    """How wide the layers are. None keeps the backbone's widths."""
    vocabulary: Vocabulary | None = None
    """Trim or extend the vocabulary, or train a new one. None keeps the backbone's."""
    embedding_rank: Count | None = None
    """Store the word embeddings as a product of two matrices with this inner width. A BERT or XLM-RoBERTa is then saved as a
    MobileBERT with the same layers. None keeps one matrix."""
    pooling: Pooling | None = None
    """How token embeddings become one vector. None takes the backbone's pooling."""
    head: Annotated[tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...], Field(max_length=20)] | None = None
    """Hidden widths of a cross-encoder's MLP. [] is a single linear layer. None takes the backbone's own head, else [256]."""
    static: Static | None = None
    """Replace the backbone's layers by a table of token vectors. None keeps the layers."""
    dimensions: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """Width of the embeddings, with the most important dimensions first. None is the backbone's width, or the width of the
    teacher whose embeddings are matched."""
    max_length: Tokens = 512
    """Longer texts are truncated to this many tokens and counted. For a cross-encoder this is the length of both texts
    together."""
    prompts: tuple[str, str] | None = None
    """Texts put before every query and every document. None adds nothing."""
    asymmetric: Asymmetric | None = None
    """Embed one side of the pairs and leave the other to a frozen teacher. None embeds both sides."""
    control: bool | Control = True
    """Train the same student without a teacher, for comparison. true takes the defaults of `Control`; false trains no
    control, and the report says so."""
    calibration: ScoreCalibration = ScoreCalibration()
    """How the student's scores become probabilities. A change here does not train the student again."""
    training: Training = Training()
    """Keys that differ from the recipe's own `training` section."""

    @property
    def model_kind(self) -> Literal["cross_encoder", "bi_encoder"]:
        """The kind of the saved model."""
        return self.kind


ExportFormat = Literal["openvino", "onnx"]
ExportPrecision = Literal["fp32", "bf16", "fp16", "int8", "int8_dynamic", "int8_weights", "int4_weights"]


class Recover(Section):
    """Fine-tune with simulated int8; the loss is mostly the distance to the float student.

    This happens only if the int8 export fails the gate, and before more layers are kept in float. Gradients pass
    straight through the rounding (Jacob et al. 2018). Batches, precision and schedule are those of the student's
    training. The gate still compares the export with the student before this fine-tuning.
    """

    steps: Count = 200
    """Optimizer steps."""
    learning_rate: Positive = 2e-5
    """The peak learning rate."""
    match_student: Positive | None = 1.0
    """Weight of the distance to the float student: 1 − cosine for a bi-encoder, the squared difference of logits for a
    cross-encoder. None learns from the objectives alone."""
    objectives: Positive | None = 0.1
    """Weight of the recipe's objectives, with the teachers' cached signals. If the student has not converged, a
    large weight moves it away from the float student that the gate compares with. None learns from the float student
    alone."""

    @model_validator(mode="after")
    def _something(self) -> "Recover":
        if self.match_student is None and self.objectives is None:
            raise ValueError("nothing is learned; set match_student (say 1.0), objectives (say 0.1), or both")
        return self


class Export(Section):
    """Exports of the student. Each export is compared with torch, and refused if the two do not agree (the gate)."""

    PRECISIONS: ClassVar[Mapping[ExportFormat, tuple[ExportPrecision, ...]]] = {
        "openvino": ("fp32", "bf16", "fp16", "int8", "int8_weights", "int4_weights"),
        "onnx": ("fp32", "int8", "int8_dynamic"),
    }
    """The precisions of each format."""
    formats: Annotated[tuple[ExportFormat, ...], Field(min_length=1)] = ("openvino",)
    """openvino runs fastest on a CPU. onnx is read by fastembed, text-embeddings-inference, transformers.js and others."""
    precisions: tuple[ExportPrecision, ...] = ("fp32", "int8")
    """fp32 and int8 (weights and activations, static ranges) exist in both formats. Only openvino has bf16, fp16
    (weights of half the size), int8_weights (a quarter) and int4_weights (an eighth, word embeddings excepted, as far
    as the gate accepts). Only onnx has int8_dynamic. With int8_dynamic a text's result depends on the other texts of
    its batch, so do not build an index with it."""
    calibration_pairs: Count = 300
    """Number of training pairs that set the int8 ranges. int4 weights are fitted on 128 of their texts."""
    smooth_quant_alpha: Annotated[float, Field(ge=0, le=1)] = 0.7
    """SmoothQuant's α: how much of the activations' outliers is moved into the weights."""
    keep_float: tuple[str, ...] | Literal["ffn_down", "search"] | None = "ffn_down"
    """Which layers stay in float. ffn_down: the second matrix of each feed-forward network, where int8 loses most.
    search: try more and more layers in float until the gate passes (this takes minutes); it also runs after a failed
    gate. A list names layers; null keeps none in float."""
    recover: Recover | None = None
    """Fine-tune with simulated int8 if the int8 export fails the gate. This repairs damage from outliers among the
    weights, not from the rounding of activations. None is off."""
    parity_pairs: Count = 500
    """Number of held-out pairs on which the gate compares export and torch."""
    min_cosine: float | None = None
    """Gate: the least cosine between the export's and torch's embedding of any text. None is the precision's default,
    here and below."""
    min_mean_cosine: float | None = None
    """Gate: the least mean of these cosines."""
    min_rank_agreement: float | None = None
    """Gate: the least Spearman correlation between the export's and torch's pair scores."""
    min_batch_cosine: float | None = None
    """Gate: the least cosine between a text's embedding alone and its embedding in a batch."""
    min_top_k_overlap: float | None = None
    """Gate: the least mean share of a query's best documents that export and torch have in common."""
    max_metric_drop: float | None = None
    """Gate: the largest accepted drop of the metric on the validation labels; it counts if its whole 95 % interval is below zero."""

    @model_validator(mode="after")
    def _patterns(self) -> "Export":
        for pattern in () if isinstance(self.keep_float, str) else self.keep_float or ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"keep_float {pattern!r} is no regular expression ({error})") from None
        return self

    @property
    def wanted(self) -> list[tuple[ExportFormat, ExportPrecision]]:
        """Each format with each requested precision that it has, once."""
        return [
            (format, precision)
            for format in dict.fromkeys(self.formats)
            for precision in dict.fromkeys(self.precisions)
            if precision in self.PRECISIONS[format]
        ]


class TfIdf(Section):
    """Cosine of TF-IDF vectors, by scikit-learn."""

    kind: Literal["tfidf"] = "tfidf"
    """Names this kind of baseline."""
    fit: Literal["corpus", "pair"] = "corpus"
    """corpus: fit once on all text that the student may learn from, with and without labels. pair: fit on each pair
    alone, as in the published ablation."""
    analyzer: Literal["word", "char", "char_wb"] | None = None
    """Unit of the n-grams: words, characters, or characters within words. If neither analyzer nor ngrams is given,
    three settings are tried: words, characters 2 to 4 within words, and characters 1 to 3. The best on the validation
    pairs is taken, or characters 1 to 3 if evaluation is in another script than validation."""
    ngrams: tuple[Count, Count] | None = None
    """The shortest and the longest n-gram. None is [1, 1] if an analyzer is given."""

    @model_validator(mode="after")
    def _rising(self) -> "TfIdf":
        if self.ngrams is not None and self.ngrams[0] > self.ngrams[1]:
            raise ValueError(f"ngrams {list(self.ngrams)}: the shortest comes first")
        return self

    @property
    def is_chosen_by_validation(self) -> bool:
        """Whether the analyzer and n-grams are chosen on the validation pairs, because the recipe sets neither."""
        return self.fit == "corpus" and self.analyzer is None and self.ngrams is None


class Remote(Section):
    """Embeddings from an OpenAI-compatible server. Each text is sent once and its embedding is kept on disk."""

    kind: Literal["remote"] = "remote"
    """Names this kind of baseline."""
    endpoint: Endpoint
    """The server and its model."""
    dimensions: Count | None = None
    """Width of the embeddings to request. None is the model's own width."""
    cache: str | None = None
    """Folder of the stored embeddings. None is a folder beside the run's baselines."""


class Encoder(Section):
    """An encoder without training for the task ("zero-shot")."""

    kind: Literal["encoder"] = "encoder"
    """Names this kind of baseline."""
    backbone: Backbone
    """The encoder's name or path, or a fresh encoder."""
    pooling: Pooling | None = None
    """How token embeddings become one vector. None takes the encoder's own, else mean."""
    max_length: Tokens = 512
    """Longer texts are truncated to this many tokens."""
    head: None = None
    """Always null: a bi-encoder has no head."""
    prompts: tuple[str, str] | None = None
    """Texts put before every query and every document. None adds nothing."""

    @property
    def model_kind(self) -> Literal["bi_encoder"]:
        """The kind of the saved model."""
        return "bi_encoder"


class Paragraphs(Section):
    """A bi-encoder that compares long texts paragraph by paragraph.

    The score is the mean of the best `top_k` matches between paragraphs, seen from either side.
    """

    kind: Literal["paragraphs"] = "paragraphs"
    """Names this kind of baseline."""
    model: str
    """`student`, the name of a bi-encoder teacher or baseline of this recipe, or a model folder."""
    top_k: Count = 3
    """Number of best matches that are averaged."""
    max_characters: Annotated[int, Field(ge=40)] = 400
    """Longer paragraphs are split at lines and sentences."""


Baseline = Annotated[TfIdf | Remote | Encoder | Paragraphs, Field(discriminator="kind")]


def _tfidf_alone() -> dict[str, Baseline]:
    return {"tfidf": TfIdf()}


_DEFAULT_SECONDS, _SHARED_SECONDS = 10.0, 60.0  # of measuring: per row and kind, and of all rows together


class Benchmark(Section):
    """What the report measures: quality, latency and size."""

    threads: Count | None = None
    """Threads of each model. None is every CPU that this process may use."""
    seconds: Seconds | None = None
    """Measuring time in seconds, per row and kind of measurement. A slow row takes longer, because it processes all
    common pairs at least once. None is 10, or if neither `interval` nor `max_seconds` is stated either, an equal part of one minute
    for all rows, of which there may be a dozen; the report says how wide the intervals are then."""
    throughput_pairs: Count = 512
    """The maximum number of pairs for throughput. All rows use the same pairs: as many as the slowest row has time for,
    at least 64 (latency: 24)."""
    interval: Annotated[float, Field(gt=0, lt=2)] | None = 0.1
    """Measure all rows, round by round, until the 95 % interval of each row's p50 latency and throughput is no wider than this
    share of the value, or until `max_seconds`. None stops after `seconds`."""
    max_seconds: Seconds | None = None
    """The maximum measuring time in seconds, per row and kind of measurement. None is three times `seconds`, or its part of the minute."""
    lengths: tuple[Count, ...] = (32, 64, 128, 256, 512)
    """Upper bounds, in tokens, of the length ranges for which latency is reported."""
    bootstrap: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Bootstrap resamples for each 95 % interval."""
    teachers: tuple[str, ...] | None = None
    """Which teachers get a row. None is all except adapted encoders (kind mlm)."""
    teacher_exports: tuple[ExportPrecision, ...] | None = None
    """Precisions in which the matched teacher is exported as well, in `export.formats`. They split the "× teacher"
    speedup into the part of the smaller model and the part of the runtime. None is each of fp32, bf16 and int8 in which
    the student is exported. For a large teacher each export takes minutes, and memory for the model once more. [] makes
    none, and the report says so."""
    baselines: dict[Name, Baseline] = Field(default_factory=_tfidf_alone)
    """Other scorers to compare with, by name. {} compares with none."""

    def seconds_for(self, n_rows: int) -> tuple[float, float]:
        """Return the seconds per row and kind of measurement: those that are always measured, and the most.

        >>> Benchmark().seconds_for(10), Benchmark(interval=0.05).seconds_for(10), Benchmark(seconds=2).seconds_for(10)
        ((1.2, 2.4), (10.0, 30.0), (2.0, 6.0))
        """
        if not {"seconds", "interval", "max_seconds"} & self.model_fields_set:
            # three kinds, of which rounds are added of two
            seconds = min(_DEFAULT_SECONDS, _SHARED_SECONDS / max(n_rows, 1) / 5)
            return seconds, 2 * seconds
        seconds = self.seconds or min(_DEFAULT_SECONDS, self.max_seconds or _DEFAULT_SECONDS)
        return seconds, self.max_seconds or 3 * seconds


class Card(Section):
    """Facts for the model cards that nothing measures."""

    license: str | None = None
    """The licence as the hub spells it, such as apache-2.0. None names the licences of the models that the student was
    made from."""
    languages: tuple[str, ...] = ()
    """Language codes, such as [ko, en]."""


class CascadeDial(Section):
    """`distill cascade`: score with the student and send unsure pairs to the teacher."""

    teacher: Name | None = None
    """The teacher that scores the unsure pairs. None is the teacher whose scores are matched."""
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the pairs that go to the teacher. None is the smallest share at which the cascade equals the teacher on
    the validation pairs; see `margin`."""
    top_k: Count | None = None
    """Send the k best documents of each query to the teacher, instead of the unsure pairs."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """The cascade equals the teacher if it loses less than this: the lower end of the interval of cascade − teacher, in
    the report's first metric, is above −margin (non-inferiority), after Holm's correction for all shares that are
    tried."""


PLANNED_VOCABULARY = 32_000  # tokens of a fresh encoder, if plan.vocabulary is not set


class Plan(Section):
    """A budget for the student.

    `distill plan` measures on this machine and finds the largest shapes within the budget.
    """

    budget_p95_ms: Positive | None = None
    """The maximum p95 latency in milliseconds for one text (cross-encoder: one pair) at a time, tokenisation included.
    None is no limit."""
    budget_mb: Positive | None = None
    """The maximum size, in megabytes (10⁶ bytes), of the exported folder in the plan's precision. None is no limit."""
    precision: Literal["auto", "fp32", "int8"] = "auto"
    """The precision that must meet the budget. auto takes fp32 or int8, whichever is faster on this machine, if the recipe exports
    both. The plan shows both."""
    length: Tokens | None = None
    """Tokens of the text, or of both texts of a pair. None is 256, or the student's max_length if that is less."""
    threads: Count | None = None
    """Threads to measure with. None is every CPU that this process may use."""
    kind: Literal["cross_encoder", "bi_encoder"] | None = None
    """Kind of the student. None is the kind in the recipe, else bi_encoder."""
    teacher: Name | None = None
    """Cut this teacher. None cuts the model that `student.backbone` names; if it names none, fresh encoders are
    planned."""
    family: Literal["bert", "xlm-roberta"] | None = None
    """Architecture of fresh encoders. None is bert."""
    vocabulary: OneOrMore[Annotated[int, Field(ge=64)]] | None = None
    """Vocabulary sizes to choose from. None is 32000 for a fresh encoder, and `student.vocabulary` for a cut one."""
    widths: OneOrMore[Annotated[int, Field(ge=16)]] | None = None
    """Hidden sizes to choose from. None is 128 to 768 for a fresh encoder, and `student.width.hidden` for a cut one. A
    fresh encoder's attention heads are 64 wide if 64 divides the width, else 32 or 16."""
    feed_forward: OneOrMore[Positive] | None = None
    """Feed-forward sizes to choose from. Fresh encoder: multiples of the width; None is [2, 4]. Cut encoder: shares to
    keep; None keeps all."""
    layers: OneOrMore[Count] | None = None
    """Numbers of layers to choose from. None is 2 to 12 for a fresh encoder, 1 to all for a cut one."""
    measured: Annotated[int, Field(ge=3)] = 10
    """Number of shapes that are measured. The cost of all other shapes is predicted from these."""
    verified: Count = 3
    """Number of proposed shapes that are measured as well."""
    seconds: Seconds = 1.5
    """Measuring time in seconds, per shape and kind of measurement."""


class FurtherCut(Section):
    """What a later stage cuts from the student of the previous stage.

    The keys have the same meaning as in `student`.
    """

    layers: Layers | None = None
    """Which of the student's layers are kept: a list counted from 0, or a rule. None keeps all."""
    width: Width | None = None
    """How wide the layers are. None keeps the widths."""
    embedding_rank: Count | None = None
    """Store the word embeddings as a product of two matrices with this inner width. None keeps them."""
    dimensions: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """Width of the embeddings, with the most important dimensions first. None keeps the width."""

    @model_validator(mode="after")
    def _something(self) -> "FurtherCut":
        if not any(value is not None for _, value in self):
            raise ValueError(
                "nothing is taken away; set layers, width, embedding_rank or dimensions, or leave student out"
            )
        return self


class TrainingStage(Section):
    """One stage of the student's training. It starts from the finished student of the previous stage."""

    data: Data | None = None
    """Keys that differ from the recipe's own `data` section. All stages are evaluated on the recipe's evaluation
    pairs."""
    objectives: Objectives | None = None
    """What the student learns from in this stage. Keys are not merged with the recipe's section. None takes that
    section as it is."""
    training: Training | None = None
    """Keys that differ from `student.training` and the recipe's own `training` section."""
    student: FurtherCut | None = None
    """What is cut from the student of the previous stage before this stage starts. The first stage trains the student
    of the section `student`."""


class Recipe(Section):
    """A whole run."""

    name: Name
    """The run's name."""
    output_dir: str | None = None
    """The run's folder. None is runs/<name>."""
    seed: Seed = 42
    """Seed of every random choice: splits, samples, initial weights, order of the batches."""
    overwrite: bool = False
    """Rebuild finished folders that another recipe made. False stops at such a folder."""
    data: Data
    """The pairs."""
    teachers: dict[Name, AnyTeacher] = Field(default_factory=dict)
    """The teachers by name."""
    signals: Signals = Signals()
    """How the teachers' outputs are computed and stored."""
    student: Student | None = None
    """The student. None trains and compares teachers only."""
    objectives: Objectives = Objectives()
    """What the student learns from."""
    training: Training = Training()
    """How teachers and student are trained, unless their own sections override it."""
    stages: dict[Name, TrainingStage] = Field(default_factory=dict)
    """The stages of the student's training by name, in their order. {} is one stage with the recipe's own sections."""
    export: Export = Export()
    """Which exports are made, and what the gate accepts."""
    benchmark: Benchmark = Benchmark()
    """What the report measures."""
    cascade: CascadeDial = CascadeDial()
    """Settings of `distill cascade`."""
    card: Card = Card()
    """Facts for the model cards."""
    plan: Plan = Plan()
    """The budget of `distill plan`."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.output_dir or f"runs/{self.name}")

    @property
    def models(self) -> dict[str, Teacher]:
        """The teachers that are models: they can be trained, loaded, exported and cut."""
        return {name: teacher for name, teacher in self.teachers.items() if isinstance(teacher, Teacher)}

    @property
    def black_boxes(self) -> dict[str, BlackBox]:
        """The teachers that only answer and are never trained or cut: black boxes, and models that compare tokens."""
        return {name: teacher for name, teacher in self.teachers.items() if isinstance(teacher, BlackBox)}

    @property
    def in_stages(self) -> tuple["Recipe", ...]:
        """The recipe of each stage: this recipe without `stages`, with the stage's keys applied.

        Without stages, this recipe.
        """
        recipes, student = [], self.student
        for stage in self.stages.values():
            if self.student is not None and student is not None:
                cut = None if stage.student is None else stage.student.dimensions
                changes = {"training": stage.training or self.student.training, "dimensions": cut or student.dimensions}
                student = student.model_copy(update=changes)
            own = {"data": stage.data or self.data, "objectives": stage.objectives or self.objectives}
            recipes.append(self.model_copy(update={**own, "student": student, "stages": {}}))
        return tuple(recipes) or (self,)

    @property
    def exports(self) -> list[tuple[ExportFormat | Literal["numpy"], ExportPrecision]]:
        """Formats and precisions of the student's exports.

        A static student has no graph, and its folder is the fp32 export.
        """
        if self.student is None or self.student.static is None:
            return [*self.export.wanted]
        return [("numpy", "int8")] if "int8" in self.export.precisions else []

    @model_validator(mode="before")
    @classmethod
    def _merge(cls, raw: Any) -> Any:
        return _merge_stages(merge_training(raw))

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Recipe":
        if problems := problems_of(self):
            raise ValueError("\n".join(problems))
        return self


def merge_training(raw: Any) -> Any:
    """Complete the `training` sections of the teachers and the student with the keys of the recipe's section."""
    shared = _as_set(raw.get("training", {})) if isinstance(raw, Mapping) else None
    if not isinstance(shared, Mapping):
        return raw
    merged = dict(raw)
    if isinstance(raw.get("teachers"), Mapping):
        merged["teachers"] = {name: _with_training(teacher, shared) for name, teacher in raw["teachers"].items()}
    if "student" in raw:
        merged["student"] = _with_training(raw["student"], shared)
    return merged


def _with_training(section: Any, shared: Mapping[str, Any]) -> Any:
    keys = _as_set(section)
    own = _as_set(keys.get("training", {})) if isinstance(keys, Mapping) else None
    if not isinstance(own, Mapping) or _teacher_form(section) != "model":
        return section
    return {**keys, "training": {**shared, **own}}


def _as_set(section: Any) -> Any:
    """Return the keys that were set in a section that was made in Python; anything else as it is."""
    return section.model_dump(exclude_unset=True) if isinstance(section, Section) else section


def _merge_stages(raw: Any) -> Any:
    """Complete the `data` and `training` sections of each stage with the recipe's own keys."""
    if not isinstance(raw, Mapping) or not isinstance(raw.get("stages"), Mapping):
        return raw
    student = raw.get("student")
    own = {
        "data": _as_set(raw.get("data")),
        "training": student.get("training") if isinstance(student, Mapping) else None,
    }
    return {**raw, "stages": {name: _completed(_as_set(stage), own) for name, stage in raw["stages"].items()}}


def _completed(stage: Any, own: Mapping[str, Any]) -> Any:
    if not isinstance(stage, Mapping):
        return stage
    keys = {name: _as_set(section) for name, section in stage.items()}
    merged = {
        name: {**defaults, **keys[name]}
        for name, defaults in own.items()
        if isinstance(defaults, Mapping) and isinstance(keys.get(name), Mapping)
    }
    return {**keys, **merged}
