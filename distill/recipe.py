"""The recipe: one YAML in the order of the flow, validated whole before anything loads.

    data → teachers → signals → student → objectives → training → export → benchmark

Every knob of the toolkit is a field on this page, with its unit and meaning. Unknown keys are refused with the nearest
name, and all problems are reported at once. `null` means off. A teacher or the student may carry its own `training`
section: its keys win over the recipe's, so that the resolved recipe (stored with every artefact) states each run in full.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from distill.errors import BadInput
from distill.remote import Endpoint
from distill.sections import Kind as SectionKind

__all__ = [
    "PRECISIONS",
    "Backbone",
    "Baseline",
    "Benchmark",
    "Columns",
    "CutBackbone",
    "Data",
    "EmbeddingMatch",
    "Encoder",
    "Endpoint",
    "Export",
    "ExportFormat",
    "ExportPrecision",
    "FreshBackbone",
    "LabelLoss",
    "Labels",
    "Lora",
    "MarginMatch",
    "Mlm",
    "Name",
    "Objectives",
    "Paragraphs",
    "Recipe",
    "Remote",
    "Resume",
    "ScoreMatch",
    "Section",
    "Signals",
    "Student",
    "Teacher",
    "TfIdf",
    "Training",
    "Unlabelled",
    "load_recipe",
    "merge_training",
    "read_raw",
    "validated",
]

S = TypeVar("S", bound=BaseModel)
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


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
    """None takes all of them."""


class Resume(Section):
    """What of a résumé is read; see `distill.sections`."""

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
    """Pairs that only the report sees; None splits `evaluation_share` from train, by query."""
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
    hub_split: str = "train"
    max_pairs: Count | None = None
    skip_bad_rows: bool = False
    """Leave rows with an empty text or an unusable label out (and count them) instead of stopping."""
    bundled_pairs: Count = 8000
    """How many pairs `bundled` generates, training and evaluation together."""

    @model_validator(mode="after")
    def _range(self) -> "Data":
        low, high = self.label_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"label_range is [{low}, {high}]; the lower end comes first")
        return self


class FreshBackbone(Section):
    """An encoder with random weights and a tokenizer trained on the recipe's own text."""

    tokenizer: Literal["wordpiece", "unigram"] = "wordpiece"
    """WordPiece gives a BERT, Unigram an XLM-RoBERTa architecture."""
    vocabulary: Annotated[int, Field(ge=64)] = 16000
    layers: Count = 4
    width: Count = 256
    heads: Count = 4
    feed_forward: Count | None = None
    """None is four times the width."""
    max_length: Annotated[int, Field(ge=8)] = 512

    @model_validator(mode="after")
    def _heads_divide(self) -> "FreshBackbone":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads")
        return self


class CutBackbone(Section):
    """A teacher of this recipe, or chosen layers of it; embeddings and tokenizer stay.

    A teacher may start from an earlier one: a cross-encoder from random weights stays at chance for thousands of steps
    where one that was a bi-encoder first takes off at once.
    """

    teacher: str
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Counted from 0; None is all of them."""

    @model_validator(mode="after")
    def _ascending(self) -> "CutBackbone":
        if self.layers is not None and list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"layers {list(self.layers)} must ascend without repeats")
        return self


def _backbone_form(value: Any) -> str:
    if isinstance(value, str):
        return "name"
    keys = value if isinstance(value, Mapping) else vars(value)
    return "cut" if "teacher" in keys else "fresh"


Backbone = Annotated[
    Annotated[str, Tag("name")] | Annotated[FreshBackbone, Tag("fresh")] | Annotated[CutBackbone, Tag("cut")],
    Discriminator(_backbone_form),
]
"""A model's name or path, a fresh encoder, or layers of a teacher (students only)."""


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

    epochs: Positive = 3.0
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
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    max_grad_norm: Positive | None = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """None keeps the model's own."""
    evaluations_per_epoch: Annotated[int, Field(ge=0)] = 2
    """0 turns evaluation during training off: the last weights are taken."""
    patience: Count | None = None
    """Evaluations without a better value before training stops; None never stops early."""
    gradient_checkpointing: bool = False
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
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
    head: tuple[Count, ...] | None = None
    """Hidden widths of the cross-encoder's MLP; [] is one linear layer, None the backbone's own head, else [256]."""
    loss: LabelLoss | None = None
    """Cross-encoder: bce or mse. Bi-encoder: contrastive (MSE of (cos+1)/2), bce or infonce. None is the first."""
    temperature: Positive = 0.05
    """Of InfoNCE."""
    max_length: Annotated[int, Field(ge=8)] = 512
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
    precision: Literal["bf16", "fp32"] = "bf16"
    shard_size: Count = 4096
    """Items per shard: what a killed run loses at most."""
    live: bool = False
    """Ask the teachers during training instead of the cache."""


class Student(Section):
    """What is shipped. `control` trains the same student without the teacher, for the report."""

    kind: Literal["cross_encoder", "bi_encoder"]
    backbone: Backbone
    pooling: Literal["mean", "cls"] | None = None
    """None takes the backbone's or, cut from a teacher, the teacher's."""
    head: tuple[Count, ...] | None = None
    max_length: Annotated[int, Field(ge=8)] = 512
    prompts: tuple[str, str] | None = None
    control: bool = True
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


class Objectives(Section):
    """What the student learns from: each is one weighted term, null is off."""

    labels: Labels | None = None
    score_match: ScoreMatch | None = None
    margin_mse: MarginMatch | None = None
    embedding_match: EmbeddingMatch | None = None

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
ExportPrecision = Literal["fp32", "bf16", "fp16", "int8", "int8_dynamic", "int8_weights"]
PRECISIONS: Mapping[ExportFormat, tuple[ExportPrecision, ...]] = {
    "openvino": ("fp32", "bf16", "fp16", "int8", "int8_weights"),
    "onnx": ("fp32", "int8", "int8_dynamic"),
}
"""What each export format comes in."""


class Export(Section):
    """Exports of the student, each checked against torch before it is put in place."""

    formats: tuple[ExportFormat, ...] = ("openvino",)
    """openvino runs fastest on a CPU; onnx is what fastembed, text-embeddings-inference, transformers.js and others read."""
    precisions: tuple[ExportPrecision, ...] = ("fp32", "int8")
    """fp32 and int8 (weights and activations, static ranges) come in both formats, the others in the one that has them:
    in openvino bf16, fp16 (weights of half the size) and int8_weights (of a quarter), in onnx int8_dynamic, whose
    result for a text changes with its neighbours in the batch: not for an index."""
    calibration_pairs: Count = 300
    """Pairs of the recipe's own training text that set the int8 ranges."""
    smooth_quant_alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How much of the activations' outliers goes into the weights."""
    keep_float: tuple[str, ...] | Literal["ffn_down"] | None = "ffn_down"
    """What stays out of int8: the feed-forward down-projections carry almost all of the damage."""
    parity_pairs: Count = 500
    min_cosine: float | None = None
    """Of any text's embedding to torch's; None is the default of the precision."""
    min_mean_cosine: float | None = None
    min_rank_agreement: float | None = None
    """Spearman between the export's and torch's pair scores."""

    @property
    def wanted(self) -> list[tuple[ExportFormat, ExportPrecision]]:
        """Each format with each precision that it comes in."""
        return [
            (format, precision)
            for format in self.formats
            for precision in self.precisions
            if precision in PRECISIONS[format]
        ]


class TfIdf(Section):
    """Cosine of TF-IDF vectors, through scikit-learn."""

    kind: Literal["tfidf"] = "tfidf"
    fit: Literal["corpus", "pair"] = "corpus"
    """corpus: fitted once on the training texts. pair: on each pair alone, as the published ablation did."""
    analyzer: Literal["word", "char", "char_wb"] = "word"
    ngrams: tuple[Count, Count] = (1, 1)

    @model_validator(mode="after")
    def _rising(self) -> "TfIdf":
        if self.ngrams[0] > self.ngrams[1]:
            raise ValueError(f"ngrams {list(self.ngrams)}: the shortest comes first")
        return self


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
    max_length: Annotated[int, Field(ge=8)] = 512
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
    seconds: Positive = 10.0
    """Measuring time per row and kind of measurement."""
    throughput_pairs: Count = 512
    lengths: tuple[Count, ...] = (32, 64, 128, 256, 512)
    """Length buckets in tokens."""
    bootstrap: Count = 1000
    """Resamples behind each 95 % interval."""
    teachers: tuple[str, ...] | None = None
    """Which teachers get a row; None is all but adapted encoders (kind mlm)."""
    baselines: dict[Name, Baseline] = Field(default_factory=_tfidf_alone)
    """What the models are compared with; {} is nothing."""


class Recipe(Section):
    """A whole run."""

    name: Name
    output_dir: str | None = None
    """None is runs/<name>."""
    seed: int = 42
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

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.output_dir or f"runs/{self.name}")

    @model_validator(mode="before")
    @classmethod
    def _merge_training(cls, raw: Any) -> Any:
        return merge_training(raw)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Recipe":
        problems = [
            *_teacher_problems(self),
            *_student_problems(self),
            *_objective_problems(self),
            *_export_problems(self.export),
            *_baseline_problems(self),
        ]
        if problems:
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


_LOSSES = {"cross_encoder": ("bce", "mse"), "bi_encoder": ("contrastive", "bce", "infonce"), "mlm": ()}
_NOT_FOR_MLM = ("frozen", "head", "loss", "prompts", "lora")


def _teacher_problems(recipe: Recipe) -> list[str]:
    problems = []
    earlier: list[str] = []
    for name, teacher in recipe.teachers.items():
        where = f"teachers.{name}"
        if isinstance(teacher.backbone, CutBackbone) and teacher.backbone.teacher not in earlier:
            known = ", ".join(earlier) or "none"
            problems.append(
                f"{where}.backbone.teacher: no earlier teacher is called {teacher.backbone.teacher!r}; earlier: {known}"
            )
        earlier.append(name)
        if teacher.frozen and isinstance(teacher.backbone, FreshBackbone):
            problems.append(f"{where}.frozen: a fresh encoder knows nothing yet; train it (frozen: false)")
        problems += _mlm_problems(where, teacher)
        if teacher.kind != "mlm":
            problems += _loss_problems(f"{where}.loss", teacher.loss, teacher.kind, recipe.data)
        problems += _section_problems(where, teacher)
    return problems


def _mlm_problems(where: str, teacher: Teacher) -> list[str]:
    if teacher.kind != "mlm":
        return (
            [] if teacher.mlm is None else [f"{where}.mlm: only a teacher of kind mlm has it, this is a {teacher.kind}"]
        )
    given = [name for name in _NOT_FOR_MLM if getattr(teacher, name)]
    return [f"{where}.{name}: means nothing for kind mlm; leave it out" for name in given]


def _student_problems(recipe: Recipe) -> list[str]:
    if recipe.student is None:
        return []
    backbone, problems = recipe.student.backbone, []
    if isinstance(backbone, CutBackbone) and backbone.teacher not in recipe.teachers:
        problems.append(_unknown_teacher("student.backbone.teacher", backbone.teacher, recipe))
    return problems + _section_problems("student", recipe.student)


def _section_problems(where: str, section: Teacher | Student) -> list[str]:
    if section.prompts is not None and section.kind == "cross_encoder":
        return [f"{where}.prompts: a cross-encoder reads both texts at once; prompts are for bi-encoders"]
    if isinstance(section.backbone, FreshBackbone) and section.max_length > section.backbone.max_length:
        return [
            f"{where}.max_length: {section.max_length} is more than the fresh backbone's {section.backbone.max_length}"
        ]
    return []


def _loss_problems(where: str, loss: str | None, kind: str, data: Data) -> list[str]:
    if loss is not None and loss not in _LOSSES[kind]:
        return [f"{where}: a {kind} learns labels by {' or '.join(_LOSSES[kind])}, not {loss}"]
    return []


def _objective_problems(recipe: Recipe) -> list[str]:
    objectives, student = recipe.objectives, recipe.student
    terms = {
        name: getattr(objectives, name) for name in Objectives.model_fields if getattr(objectives, name) is not None
    }
    if student is None:
        return ["objectives: there is no student to learn by them; add the section student"] if terms else []
    if not terms:
        return [f"objectives: the student learns nothing; set one of {', '.join(Objectives.model_fields)}"]
    problems = []
    for name, term in terms.items():
        if isinstance(term, Labels):
            continue
        if term.teacher not in recipe.teachers:
            problems.append(_unknown_teacher(f"objectives.{name}.teacher", term.teacher, recipe))
        elif recipe.teachers[term.teacher].kind == "mlm":
            problems.append(
                f"objectives.{name}.teacher: {term.teacher} is of kind mlm, an encoder to start from; it has learned no labels to teach"
            )
    if objectives.labels:
        problems += _loss_problems("objectives.labels.loss", objectives.labels.loss, student.kind, recipe.data)
    problems += _candidate_problems(recipe)
    return problems + _embedding_problems(recipe, student)


def _export_problems(export: Export) -> list[str]:
    made = export.wanted
    idle = [precision for precision in export.precisions if precision not in dict((p, f) for f, p in made)]
    problems = [
        f"export.precisions: {precision} does not come in {' or '.join(export.formats)}; "
        f"add {next(format for format, known in PRECISIONS.items() if precision in known)} to export.formats"
        for precision in idle
    ]
    return problems + [
        f"export.precisions: none comes in {format}; it has {', '.join(PRECISIONS[format])}"
        for format in export.formats
        if format not in dict(made) and export.precisions and not idle
    ]


def _candidate_problems(recipe: Recipe) -> list[str]:
    if recipe.data.candidates is not None:
        return []
    match, problems = recipe.objectives.score_match, []
    if match is not None and match.loss == "kl":
        problems.append(
            "objectives.score_match.loss: kl compares the candidates of a query; set data.candidates (say 4)"
        )
    if recipe.objectives.margin_mse is not None:
        problems.append("objectives.margin_mse: margins need several documents per query; set data.candidates (say 4)")
    return problems


def _embedding_problems(recipe: Recipe, student: Student) -> list[str]:
    match, problems = recipe.objectives.embedding_match, []
    if match is None:
        if recipe.data.unlabelled and all(teacher.kind != "mlm" for teacher in recipe.teachers.values()):
            problems.append(
                "data.unlabelled: only objectives.embedding_match and a teacher of kind mlm learn from texts without pairs; set one or drop them"
            )
        return problems
    if student.kind != "bi_encoder":
        problems.append("objectives.embedding_match: a cross-encoder student has no text embeddings; use score_match")
    if match.teacher in recipe.teachers and recipe.teachers[match.teacher].kind == "cross_encoder":
        problems.append(
            f"objectives.embedding_match.teacher: {match.teacher} is a cross-encoder; only a bi-encoder has text embeddings"
        )
    return problems


def _baseline_problems(recipe: Recipe) -> list[str]:
    problems = []
    for name, baseline in recipe.benchmark.baselines.items():
        where = f"benchmark.baselines.{name}"
        if name in recipe.teachers or name in ("student", "control"):
            problems.append(f"{where}: the report has a row of that name already; choose another")
        if isinstance(baseline, Encoder) and isinstance(baseline.backbone, CutBackbone):
            problems.append(
                f"{where}.backbone: an encoder as it comes is a name, a path or a fresh one; a teacher has a row of its own"
            )
        if isinstance(baseline, Paragraphs):
            problems += _paragraph_problems(f"{where}.model", baseline.model, recipe)
    return problems


def _paragraph_problems(where: str, model: str, recipe: Recipe) -> list[str]:
    section = recipe.student if model == "student" else recipe.teachers.get(model)
    if section is not None:
        kind = section.model_kind
        return (
            [f"{where}: {model} is a cross-encoder; paragraphs are matched by a bi-encoder"]
            if kind == "cross_encoder"
            else []
        )
    if isinstance(recipe.benchmark.baselines.get(model), Encoder) or Path(model).is_dir():
        return []
    known = [
        *recipe.teachers,
        "student",
        *(name for name, other in recipe.benchmark.baselines.items() if isinstance(other, Encoder)),
    ]
    return [f"{where}: no model or folder is called {model!r}; {_suggest(model, known)}"]


def _unknown_teacher(where: str, name: str, recipe: Recipe) -> str:
    return f"{where}: no teacher is called {name!r}; {_suggest(name, list(recipe.teachers))}"


def _suggest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, lay `key=value` overrides over it and validate the whole.

    :param overrides: as `training.learning_rate=1.0e-4`; the value is YAML.
    :raises BadInput: with one line per problem, all of them.
    """
    return validated(Recipe, read_raw(path, overrides), path)


def read_raw(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML and lay `key=value` overrides over it.

    :raises BadInput: for what is no YAML or no override
    """
    raw = _read_yaml(Path(path))
    for override in overrides:
        _apply_override(raw, override)
    return raw


def validated(schema: type[S], raw: Mapping[str, Any], path: str | Path) -> S:
    """Validate the whole of a mapping.

    :raises BadInput: with one line per problem, all of them
    """
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        lines = _problem_lines(error, raw)
        raise BadInput(
            f"{path}: {len(lines)} problem{'s' * (len(lines) > 1)}\n" + "\n".join(f"  {line}" for line in lines)
        ) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        packaged = Path(__file__).parent.parent / "recipes" / path.name
        hint = f"; the ones that come with the toolkit are in {packaged.parent}" if packaged.parent.is_dir() else ""
        raise BadInput(f"{path}: no such recipe{hint}")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise BadInput(f"{path}: a recipe is a mapping of sections, this is {type(raw).__name__}")
    return raw


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if override.startswith("-") or not equals or not key:
        raise BadInput(f"{override!r} is no override; write key=value, as training.learning_rate=1.0e-4")
    *parents, last = key.split(".")
    node = raw
    for parent in parents:
        if not isinstance(node.setdefault(parent, {}), dict):
            node[parent] = {}
        node = node[parent]
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise BadInput(f"{override!r}: the value is not valid YAML") from None


def _problem_lines(error: ValidationError, raw: Mapping[str, Any]) -> list[str]:
    """One line per problem; what `training` passed on to its heirs is said once."""
    lines: dict[str, None] = {}
    for problem in error.errors():
        loc = problem["loc"]
        place = [str(part) for i, part in enumerate(loc) if not _is_form(loc, i)]
        own = place[2:] if place[:1] == ["teachers"] else place[1:]
        if own[:1] == ["training"] and not _is_given(raw, place):
            place = own
        for line in _describe(".".join(place), problem):
            lines.setdefault(line)
    return list(lines)


def _is_form(loc: Sequence[Any], i: int) -> bool:
    """Tell whether a part of a place is not a key but the form that pydantic took a backbone or a baseline for."""
    if i and loc[i - 1] == "backbone":
        return loc[i] in ("name", "fresh", "cut")
    return i > 1 and loc[i - 2] == "baselines"


def _is_given(raw: Any, place: Sequence[str]) -> bool:
    for part in place:
        if not isinstance(raw, Mapping) or part not in raw:
            return False
        raw = raw[part]
    return True


def _describe(place: str, problem: Any) -> list[str]:
    kind, given = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        name = place.rpartition(".")[2]
        return [f"{place}: unknown key; {_suggest(name, _known_keys(problem['loc']))}"]
    if kind == "missing":
        return [f"{place}: missing"]
    if kind == "value_error":
        text = str(problem["ctx"]["error"])
        return text.split("\n") if not place else [f"{place}: {text}"]
    if isinstance(given, Mapping | list):
        return [f"{place}: {problem['msg']}"]
    return [f"{place}: got {given!r}; {problem['msg'].replace('Input should', 'it should')}"]


def _known_keys(loc: Sequence[Any]) -> list[str]:
    """The field names of the section that an unknown key was found in."""
    sections: dict[str, type[BaseModel]] = {
        "data": Data, "columns": Columns, "resume": Resume, "unlabelled": Unlabelled, "signals": Signals, "student": Student,
        "objectives": Objectives, "labels": Labels, "score_match": ScoreMatch, "margin_mse": MarginMatch,
        "embedding_match": EmbeddingMatch, "training": Training, "export": Export, "benchmark": Benchmark,
        "lora": Lora, "mlm": Mlm, "tfidf": TfIdf, "remote": Remote, "encoder": Encoder, "paragraphs": Paragraphs, "endpoint": Endpoint, "fresh": FreshBackbone, "cut": CutBackbone,
    }  # fmt: skip
    for part in reversed(loc[2 if loc[0] == "teachers" else 0 : -1]):  # a teacher may be named like a section
        if part in sections:
            return list(sections[part].model_fields)
    return list(Teacher.model_fields if loc[0] == "teachers" else Recipe.model_fields)
