"""Build the model that a recipe's section describes: a named one, a fresh encoder, or a teacher of the recipe.

A model that starts from a teacher keeps its tokenizer and, where the kinds agree, its pooling and head. What a student
leaves out of its backbone is taken away afterwards, by the stage build_student.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from distill.artefact import check_model_folder
from distill.backbone import fresh_backbone
from distill.modeling import bi_encoder, build_model, cross_encoder, load_model, prepared, quiet
from distill.recipe import Encoder, FreshBackbone, Student, Teacher, TeacherBackbone
from distill.run import Run

__all__ = ["model_builder"]


def model_builder(run: Run, section: Teacher | Student | Encoder) -> Callable[..., Any]:
    """Return a function that builds the section's model, untrained and the same on every call.

    Files that all processes share (a fresh backbone) are made here, by the first process.
    """
    from accelerate import PartialState

    backbone, seed, kind = section.backbone, run.recipe.seed, section.model_kind
    if isinstance(backbone, TeacherBackbone):
        return partial(_from_teacher, run.teacher(backbone.teacher), section, seed)
    name = str(backbone)
    if isinstance(backbone, FreshBackbone):
        train = run.split.train
        texts = list(dict.fromkeys([*train.queries, *train.documents, *run.split.unpaired]))
        with PartialState().main_process_first(), quiet():
            name = str(fresh_backbone(backbone, texts, seed=seed, folder=run.work / "backbones"))
    return partial(
        build_model, kind, name, pooling=section.pooling, head=section.head, max_length=section.max_length,
        prompts=section.prompts, seed=seed,
    )  # fmt: skip


def _from_teacher(teacher: Path, section: Teacher | Student | Encoder, seed: int) -> Any:
    import torch

    model, teacher_kind = load_model(teacher), check_model_folder(teacher)
    torch.manual_seed(seed)
    same = section.model_kind == teacher_kind and section.pooling is None and section.head is None
    if section.model_kind == "bi_encoder":
        model = bi_encoder(list(model) if same else [model[0]], section.pooling)
    elif not same:
        model = cross_encoder(model[0], section.pooling, section.head)
    return prepared(model, max_length=section.max_length, prompts=section.prompts)
