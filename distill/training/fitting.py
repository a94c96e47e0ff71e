"""Train a model by its objectives and write the artefact: the common part of teachers, students and controls."""

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.cut_texts import CutTexts
from distill.data.pairs import Pairs
from distill.data.tokens import TokenTable
from distill.errors import BadInput
from distill.files.artefact import ModelKind, new_folder, write_card
from distill.models.activation_checkpointing import enable_checkpointing
from distill.models.lora import add_adapters, merged
from distill.models.modeling import is_generative, is_static, save_model, set_dropout, tokenizer_of, transformer_of
from distill.models.prompts import NO_PROMPTS, leaves_prompt_out, model_prompts
from distill.progress import progress
from distill.recipe.objectives import RelationTerm, ScoreTerm
from distill.recipe.schema import Lora, Objectives, Training
from distill.run import Run
from distill.signals import SignalSource
from distill.training.handing_over import hand_over, take_over
from distill.training.layer_terms import LayerLosses
from distill.training.learnable import check_learnable, check_related
from distill.training.live_teacher import LiveTeacher, tokens_read_alike
from distill.training.loop import TrainingOutput, TrainResult, train
from distill.training.negatives import GuideVectors
from distill.training.objectives import Step
from distill.training.read_texts import ReadScripts, any_unread, are_read
from distill.training.task import TaskStep, Units
from distill.training.trainset import LoneTexts, Tokenization, TrainSet
from distill.training.unlabelled import taught_pairs

__all__ = ["Job", "built_for_training", "fit", "seed_parameters_beside", "set_embedding_targets"]

log = logging.getLogger(__name__)
# On a CPU in bf16 the backward pass of fused attention takes a third of a step, of eager attention a tenth: 1.3 times
# as many sentences per second at up to 128 tokens. Eager attention needs more memory: it is not for long texts.
_EAGER_UP_TO_TOKENS = 256


@dataclass(frozen=True)
class Job:
    """One model to train.

    :param build_model: builds the sentence-transformers model, the same on every process and every time
    :param sources: the teachers' signals by name
    :param matched: the embeddings to match, if they are not one teacher's unchanged embeddings
    :param inputs: everything that determines the result, for the fingerprint
    :param own_role: learn only queries (0) or documents (1), against the vectors of the other side from `other_source`
    :param details: further entries for the artefact's card
    :param handed_over: the folder of the previous stage's student, with the parameters learned beside it
    :param hands_over: save the parameters learned beside the model for the next stage
    """

    name: str
    stage: str
    kind: ModelKind
    target: Path
    build_model: Callable[[], Any]
    objectives: Objectives
    training: Training
    max_length: int
    prompts: tuple[str, str] | None
    inputs: Mapping[str, Any]
    parents: Mapping[str, str]
    lora: Lora | None = None
    sources: Mapping[str, SignalSource] = field(default_factory=dict)
    matched: SignalSource | None = None
    role_prompts: bool = False
    projected_width: int | None = None
    block_widths: tuple[int, ...] = ()
    """The widths of the teachers' embeddings, where several are matched each by itself."""
    axes: np.ndarray | None = None
    """The teacher's axes along which the student's numbers are told, (teacher_width, width); they lead back into its space."""
    own_role: int | None = None
    other_source: SignalSource | None = None
    live: Mapping[str, LiveTeacher] = field(default_factory=dict)
    """The teachers whose layers are matched."""
    details: Mapping[str, Any] = field(default_factory=dict)
    handed_over: Path | None = None
    hands_over: bool = False
    seed: int = 0
    """The recipe's seed, which `fit` sets."""

    @property
    def some_unread(self) -> bool:
        """Whether some teacher does not read all texts, so that it has no embedding of them."""
        return any_unread(self.sources.values())


LoadUnits = Callable[[Run, Job, bool], tuple[Units, Units]]


def fit(
    run: Run, job: Job, load_units: LoadUnits | None = None, build_step: Callable[[Job], TaskStep] | None = None
) -> None:
    """Train a model and put its artefact in place; every process of a launch calls this.

    :param load_units: returns the training units and the validation units; None uses the recipe's pairs
    :param build_step: returns the step, the same on every process; None is the step of matching
    """
    from accelerate import PartialState

    state, job = PartialState(), replace(job, seed=run.recipe.seed)
    folder = run.work_folder(job.name, job.inputs)
    began = time.monotonic()
    trainset, validation = (load_units or _load_pairs)(run, job, state.is_main_process)
    log.info("%s: %d units, %d tokens", job.name, len(trainset), len(trainset.tokens.ids))
    step, result = train(
        lambda: (build_step or _build_step)(job),
        trainset,
        validation if len(validation) else None,
        job.training,
        seed=run.recipe.seed,
        output=TrainingOutput(job.name, folder, run.folder / "tensorboard" / job.name),
    )
    if state.is_main_process:
        cut = trainset.cut if isinstance(trainset, TrainSet) else None
        _save(run, job, step, result, time.monotonic() - began, cut)
        shutil.rmtree(folder, ignore_errors=True)
    state.wait_for_everyone()


def _load_pairs(run: Run, job: Job, show: bool) -> tuple[TrainSet, TrainSet]:
    split = run.split
    model = job.build_model()
    if job.live:
        LayerLosses(job.objectives, model, job.live)  # refuses layers that do not fit, before the texts are read
    tokenizer, prompts = tokenizer_of(model), _prompts(model, job)
    by_role = job.role_prompts or any(prompts)
    unlabelled, parallel = (split.unlabelled, split.parallel) if job.objectives.from_texts else ([], [])
    pairs = _pairs(run, job)
    n_lone = len(unlabelled) + 2 * len(parallel)
    n_sequences = len(pairs) if job.kind == "cross_encoder" else 2 * len(pairs) + n_lone
    lone = LoneTexts(unlabelled, parallel, role=1 if job.own_role is None else job.own_role)
    with progress(f"{job.name}: tokenizing", n_sequences, show=show) as report:
        tokenization = Tokenization(job.kind, tokenizer, job.max_length, prompts, by_role, report, store=run.tokens)
        if is_generative(model):
            tokenization = replace(tokenization, generative=model)
        trainset = TrainSet.build(tokenization, pairs, candidates=run.recipe.data.candidates, lone=lone)
    if trainset.cut is not None and show:
        trainset.cut.say(job.name)
    if is_static(model) and show:
        _say_zero_texts(job.name, model[0].embedding.weight.detach().numpy(), trainset.tokens)
    labels = job.objectives.labels
    if labels is not None:
        trainset.in_batch_negatives = labels.loss == "infonce"
        trainset.positive_from = labels.positive_from
    trainset.coupled = job.objectives.couples
    _attach_signals(trainset, pairs, job)
    if job.live:
        trainset.alike = tokens_read_alike(job.name, job.live, tokenizer, trainset, pairs)
    validation = TrainSet.build(replace(tokenization, on_progress=None), split.validation)
    for units in (trainset, validation):
        _learn_one_side(units, job)
    check_learnable(job.name, trainset, job.objectives, global_batch=job.training.global_batch)
    check_related(job.name, trainset, allow_unrelated=run.recipe.signals.allow_unrelated)
    return trainset, validation


def _say_zero_texts(name: str, vectors: np.ndarray, tokens: TokenTable) -> None:
    """Warn of the texts whose embedding is zero in a static student: those without a token that has a vector."""
    n_with_vector = np.concatenate([[0], np.cumsum(np.asarray(vectors.any(axis=1))[tokens.ids])])
    n_zero = int((np.diff(n_with_vector[tokens.offsets]) == 0).sum())
    if n_zero:
        log.warning(
            "%s: %d of %d texts consist of unknown tokens alone: their embedding is zero, and nothing is learned from "
            "them; take a backbone whose tokenizer knows their script, or leave them out",
            name,
            n_zero,
            len(tokens),
        )


def _prompts(model: Any, job: Job) -> tuple[str, str]:
    """Return and log the prompts of queries and documents: the recipe's, or those of the model's folder.

    :raises BadInput: if the model's pooling leaves out the prompt's tokens, which training does not support
    """
    if job.kind == "cross_encoder":
        return NO_PROMPTS
    prompts = model_prompts(model)
    if any(prompts):
        log.info("%s: %r before queries, %r before documents", job.name, *prompts)
        if leaves_prompt_out(model):
            raise BadInput(
                f'{job.name}: its model pools without the prompt\'s tokens (include_prompt: false), which training does not; set prompts: ["", ""] to train without prompts'
            )
    return prompts


def _pairs(run: Run, job: Job) -> Pairs:
    """Return a job's training pairs; pairs without labels only if a teacher gives signals for them."""
    return taught_pairs(run) if job.objectives.from_teachers else run.split.train


def _attach_signals(trainset: TrainSet, pairs: Pairs, job: Job) -> None:
    terms = [term for term in job.objectives.terms().values() if isinstance(term, ScoreTerm)]
    teacher_names = dict.fromkeys(term.taught_by for term in terms if term.taught_by is not None)
    trainset.teacher_scores = {name: job.sources[name].scores(pairs.queries, pairs.documents) for name in teacher_names}
    match, labels = job.objectives.embedding_match, job.objectives.labels
    trainset.some_unread = job.some_unread
    _say_what_is_read(trainset, job)
    if match is not None:
        source = job.matched or job.sources[match.taught_by]
        trainset.embeddings = source.embeddings(trainset.teacher_texts, trainset.roles)
    relation_teachers = {term.teacher for term in job.objectives.terms().values() if isinstance(term, RelationTerm)}
    for name in sorted(relation_teachers):
        trainset.relations[name] = job.sources[name].embeddings(trainset.teacher_texts, trainset.roles)
    if labels is not None and (guide := labels.guide) is not None:
        vectors = job.sources[guide.teacher].embeddings(trainset.teacher_texts, trainset.roles)
        trainset.guide = GuideVectors(vectors, guide.margin, guide.strategy)


def _say_what_is_read(trainset: TrainSet, job: Job) -> None:
    """Log on how many texts each teacher is used, if not on all."""
    for name, source in job.sources.items():
        if isinstance(source, ReadScripts):
            texts = list(dict.fromkeys(trainset.teacher_texts))
            n_read, scripts = int(are_read(texts, source.scripts).sum()), ", ".join(source.scripts)
            log.info("%s: %s is trained on %d of %d texts, those in %s", job.name, name, n_read, len(texts), scripts)


def _learn_one_side(units: TrainSet, job: Job) -> None:
    if job.own_role is not None and job.other_source is not None:
        units.learn_one_side(job.own_role)
        units.embeddings = job.other_source.embeddings(units.teacher_texts, units.roles)


def _build_step(job: Job) -> Step:
    model = built_for_training(job)
    if job.lora is not None:
        add_adapters(model, job.lora)
    seed_parameters_beside(job)
    kinds = {name: source.kind for name, source in job.sources.items()}
    step = Step(model, job.kind, job.objectives, teacher_kinds=kinds, projected_width=job.projected_width)
    set_embedding_targets(step, job)
    if job.live:
        step.layer_losses = LayerLosses(job.objectives, model, job.live)
    if job.handed_over is not None:
        take_over(step, job.handed_over, job.name)
    return step


def set_embedding_targets(step: Step, job: Job) -> None:
    """Tell a step how the teachers' embeddings lie: their widths, their axes, and whether some texts have none."""
    import torch

    step.block_widths, step.some_unread = job.block_widths, job.some_unread
    step.axes = None if job.axes is None else torch.from_numpy(job.axes)


def seed_parameters_beside(job: Job) -> None:
    """Seed torch for the parameters beside the model (projections, a new head): the same on every process.

    The model itself is drawn from the recipe's seed; these are drawn from another stream.
    """
    import torch

    torch.manual_seed(int(np.random.SeedSequence((job.seed, 1)).generate_state(1)[0]))


def built_for_training(job: Job) -> Any:
    """Build the job's model with the dropout, attention and checkpointing of its training section."""
    import torch
    from accelerate import PartialState

    model = job.build_model()
    if is_static(model):
        # gradients of the rows that a step met, not of the whole table; between processes they are dense
        model[0].embedding.sparse = PartialState().num_processes == 1
        return model
    if job.training.dropout is not None:
        set_dropout(model, job.training.dropout)
    if job.max_length <= _EAGER_UP_TO_TOKENS and not torch.cuda.is_available():
        transformer_of(model).set_attn_implementation("eager")
    if job.training.gradient_checkpointing:
        enable_checkpointing(transformer_of(model))
    return model


def _save(run: Run, job: Job, step: TaskStep, result: TrainResult, seconds: float, cut: CutTexts | None) -> None:
    from accelerate import PartialState

    values = [value for row in result.history if (value := row.get("validation")) is not None]
    details = {
        "n_processes": PartialState().num_processes,
        "seconds": round(seconds, 1),
        "training": {name: value for name, value in vars(result).items() if name != "history"},
        "history": result.history,
        "scale_and_bias": None if step.scale_and_bias is None else step.scale_and_bias.tolist(),
        **({} if cut is None else {"cut_texts": cut.to_json()}),
        **step.details,
        **job.details,
    }
    metrics = {"validation": result.best_value, "n": len(run.split.validation), **step.metrics(values)}
    card = replace(run.card(job.kind, job.stage, job.inputs, job.parents, details), metrics=metrics)
    with new_folder(job.target) as folder:
        save_model(merged(step.model), folder)
        if job.hands_over:
            hand_over(step, folder)
        write_card(folder, card)
    kept = "the last weights" if result.kept == "last" else f"validation {result.best_value:.4f}"
    log.info("%s: %s, %s", job.name, job.target, kept)
