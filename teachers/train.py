"""Train the recipe's teachers on the labels: a cross-encoder and bi-encoders, full fine-tuning or LoRA.

A teacher of kind mlm uses no labels: it adapts an encoder to the recipe's text, as the start of a later teacher.

A cross-encoder reads query and document together: backbone → mean of all token embeddings (or CLS) → MLP → one score, BCE.
A bi-encoder embeds each text separately: mean or CLS pooling, the ablation's contrastive loss, or InfoNCE over the
batch.
"""

import logging
from pathlib import Path
from typing import Any

from distill.errors import BadInput
from distill.files.artefact import Artefact, content_hash, new_folder, read_card, write_card
from distill.models.backbone import identify
from distill.models.generative import default_prompt, template_tokens
from distill.models.modeling import is_generative, save_model, stored_prompts
from distill.models.prompts import NO_PROMPTS
from distill.recipe.objectives import by_labels_alone
from distill.recipe.schema import Labels, Teacher, TeacherBackbone
from distill.run import Run
from distill.training.building import model_builder
from distill.training.fitting import Job, fit
from distill.training.learnable import check_pairs
from distill.training.objectives import DEFAULT_LOSS
from teachers.adapt import adapt
from teachers.black_boxes import check_black_boxes, describe_black_box

__all__ = ["train_teacher", "train_teachers"]

log = logging.getLogger(__name__)


def train_teachers(run: Run) -> None:
    """Train every unfinished teacher (copy it if it is frozen); every process of a launch calls this."""
    if not run.recipe.teachers and run.recipe.student is None:
        raise BadInput("this recipe has neither teachers nor a student; there is nothing to train")
    for stage in run.stages:
        check_pairs(stage)
    check_black_boxes(run)
    for name in run.recipe.teachers:
        train_teacher(run, name)
    run.drop_tokens()


def train_teacher(run: Run, name: str) -> None:
    """Train one teacher, unless it is finished; its backbone must be. For a black box only its folder is written.

    It learns from the recipe's own data, whatever data the stages of the student's training use.
    """
    run = run.for_teachers
    if name in run.recipe.black_boxes:
        describe_black_box(run, name)
        return
    teacher = run.recipe.models[name]
    inputs = _inputs(run, name, teacher)
    if teacher.frozen:
        inputs = _with_training_as_made(run.teacher(name), inputs)
    if not run.is_finished(run.teacher(name), inputs):
        _make(run, name, teacher, inputs)


def _with_training_as_made(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs with a finished folder's training section, because it does not affect a frozen teacher."""
    card = read_card(folder)
    stored_section = {} if card is None else card.details.get("inputs", {}).get("teacher", {})
    return inputs | {
        "teacher": inputs["teacher"]
        | ({"training": stored_section["training"]} if "training" in stored_section else {})
    }


def _inputs(run: Run, name: str, teacher: Teacher) -> dict[str, Any]:
    """Return everything that determines a teacher; `checkpoint_seconds` and `tensorboard` do not."""
    section = teacher.deciding(exclude={"scripts": True, "training": {"checkpoint_seconds", "tensorboard"}})
    inputs: dict[str, Any] = {
        "stage": "train_teacher",
        "name": name,
        "teacher": section,
        "parents": _parents(run, teacher),
    }
    if any(prompts := _stored_prompts(run, teacher)):
        inputs["prompts"] = list(prompts)  # earlier releases dropped the prompts, so a teacher made by them differs
    if teacher.frozen:
        return inputs
    described = run.split.describe()
    return {
        **inputs,
        "seed": run.recipe.seed,
        "candidates": run.recipe.data.candidates,
        "data": {part: described[part] for part in _parts(teacher)},
    }


def _stored_prompts(run: Run, teacher: Teacher) -> tuple[str, str]:
    """Return the prompts stored with a bi-encoder's backbone, if the recipe gives none."""
    if teacher.model_kind == "cross_encoder" or teacher.prompts is not None:
        return NO_PROMPTS
    if isinstance(teacher.backbone, TeacherBackbone):
        return run.teacher_prompts(teacher.backbone.teacher)
    return stored_prompts(teacher.backbone) if isinstance(teacher.backbone, str) else NO_PROMPTS


def _parts(teacher: Teacher) -> tuple[str, ...]:
    return ("train", "validation", "unlabelled", "parallel") if teacher.kind == "mlm" else ("train", "validation")


def _make(run: Run, name: str, teacher: Teacher, inputs: dict[str, Any]) -> None:
    from accelerate import PartialState

    build, parents = model_builder(run, teacher), _parents(run, teacher)
    if teacher.frozen:
        if PartialState().is_main_process:
            _copy(run, name, teacher, build(), inputs, parents)
        PartialState().wait_for_everyone()
        return
    kind = teacher.model_kind
    labels = Labels(temperature=teacher.temperature, positive_from=teacher.positive_from)
    job = Job(
        name=f"teacher {name}",
        stage="train_teacher",
        kind=kind,
        target=run.teacher(name),
        build_model=build,
        objectives=by_labels_alone(teacher.loss or DEFAULT_LOSS[kind], labels),
        training=teacher.training,
        max_length=teacher.max_length,
        prompts=teacher.prompts,
        inputs=inputs,
        parents=parents,
        lora=teacher.lora,
        role_prompts=teacher.prompts is not None,
    )
    if teacher.kind == "mlm":
        adapt(run, job, teacher)
    else:
        fit(run, job)


def _parents(run: Run, teacher: Teacher) -> dict[str, str]:
    """Return what a teacher starts from: a backbone by name or content hash, or an earlier teacher's revision."""
    if isinstance(teacher.backbone, TeacherBackbone):
        name = teacher.backbone.teacher
        return {name: run.require(run.teacher(name), "train_teacher").revision}
    return {"backbone": identify(teacher.backbone)} if isinstance(teacher.backbone, str) else {}


def _copy(run: Run, name: str, teacher: Teacher, model: Any, inputs: dict[str, Any], parents: dict[str, str]) -> None:
    artefact = Artefact(
        kind=teacher.model_kind,
        stage="train_teacher",
        fingerprint=content_hash(inputs),
        parents=parents,
        recipe=run.stated.model_dump(mode="json"),
        details={"inputs": inputs},
    )
    with new_folder(run.teacher(name)) as folder:
        save_model(model, folder)
        write_card(folder, artefact)
    log.info("teacher %s: used as it is, stored in %s", name, run.teacher(name))
    if is_generative(model):
        instruction = default_prompt(model)
        log.info(
            "teacher %s: a generative reranker, scored by its own LogitScore; %s; template and instruction take %d of %d tokens",
            name,
            f"instruction {instruction!r}" if instruction else "no instruction is stored",
            template_tokens(model),
            teacher.max_length,
        )
    if any(prompts := run.teacher_prompts(name)):
        log.info("teacher %s: %r before queries, %r before documents", name, *prompts)
