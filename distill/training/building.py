"""Build the model that a recipe's section describes: a named one, a fresh encoder, or a teacher of the recipe.

A model that starts from a teacher keeps its tokenizer and, if the kinds agree, its pooling and head. The student's
cuts are made later, by the stage build_student.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from distill.errors import BadInput, loading
from distill.files.artefact import check_model_folder
from distill.models.backbone import fresh_backbone, resolve_name
from distill.models.modeling import (
    architectures,
    bi_encoder,
    brings_scores,
    build_model,
    cross_encoder,
    is_generative,
    lacks_of_scorer,
    load_model,
    prepared,
    quiet,
)
from distill.models.prompts import keep_prompts
from distill.recipe.schema import Encoder, FreshBackbone, Student, Teacher, TeacherBackbone
from distill.run import Run

__all__ = ["model_builder"]


def model_builder(run: Run, section: Teacher | Student | Encoder) -> Callable[..., Any]:
    """Return a function that builds the section's model, untrained and the same on every call.

    Files that all processes share (a fresh backbone) are made here, by the first process.
    """
    from accelerate import PartialState

    backbone, seed, kind = section.backbone, run.recipe.seed, section.model_kind
    if isinstance(section, Teacher) and section.frozen:
        _check_frozen_scorer(run, section)
    if isinstance(backbone, TeacherBackbone):
        return partial(_from_teacher, run.teacher(backbone.teacher), section, seed)
    name = str(backbone)
    if isinstance(backbone, FreshBackbone):
        with PartialState().main_process_first(), quiet():
            name = str(fresh_backbone(backbone, run.learned.training_texts, seed=seed, folder=run.work / "backbones"))
    return partial(
        build_model,
        kind,
        name,
        pooling=section.pooling,
        head=section.head,
        max_length=section.max_length,
        prompts=section.prompts,
        seed=seed,
        own_scorer=isinstance(section, Teacher),
    )


def _from_teacher(teacher: Path, section: Teacher | Student | Encoder, seed: int) -> Any:
    import torch

    model, teacher_kind = load_model(teacher), check_model_folder(teacher)
    if is_generative(model) and not (isinstance(section, Teacher) and section.model_kind == "cross_encoder"):
        raise BadInput(
            f"{teacher} is a generative reranker: it teaches as it is, and no other model is cut out of it; name an encoder as backbone"
        )
    torch.manual_seed(seed)
    unchanged = section.model_kind == teacher_kind and section.pooling is None and section.head is None
    if section.model_kind == "bi_encoder":
        teacher_model = model
        model = bi_encoder(list(teacher_model) if unchanged else [teacher_model[0]], section.pooling)
        if teacher_kind == "bi_encoder":
            keep_prompts(model, teacher_model.prompts, teacher_model.default_prompt_name)
    elif not unchanged:
        model = cross_encoder(model[0], section.pooling, section.head)
    return prepared(model, max_length=section.max_length, prompts=section.prompts)


def _check_frozen_scorer(run: Run, teacher: Teacher) -> None:
    """Refuse a frozen cross-encoder without a head: a new head would be random, and its scores noise.

    :raises BadInput: naming the model and what it is
    """
    if teacher.kind != "cross_encoder":
        return
    is_recipe_teacher = isinstance(teacher.backbone, TeacherBackbone)
    name = (
        str(run.teacher(teacher.backbone.teacher))
        if isinstance(teacher.backbone, TeacherBackbone)
        else str(teacher.backbone)
    )
    way_out = "train it (frozen: false), or name a reranker with a head of its own"
    if teacher.pooling is not None or teacher.head is not None:
        raise BadInput(
            f"{name} is frozen, but pooling and head ask for a new, random head: leave them out, or {way_out}"
        )
    resolved = name if is_recipe_teacher else resolve_name(name)
    with quiet(), loading(name):
        if brings_scores(resolved):
            return
        architecture_names = architectures(resolved)
        missing = lacks_of_scorer(resolved)
        if missing is None:
            return
    generative_names = [kind for kind in architecture_names if kind.endswith("ForCausalLM")]
    if generative_names or missing.endswith("/config.json is missing"):
        raise BadInput(
            f"{name} is a generative reranker{f' ({generative_names[0]})' if generative_names else ''} without the description of its scorer: {missing}; copy the whole "
            f"folder as sentence-transformers saves it (modules.json with a LogitScore that names the tokens for yes and no), "
            f"name its sequence-classification form, or {way_out}"
        )
    raise BadInput(
        f"{name} ({', '.join(architecture_names) or 'an encoder'}) has no head that scores pairs, and a frozen teacher gets no new one; {way_out}"
    )
