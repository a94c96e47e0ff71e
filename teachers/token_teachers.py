"""Teachers that compare tokens: they are checked before anything is trained, and used without training.

Their folder in the run is complete: the model, its heads as safetensors, and the settings of the comparison. The
folder's revision covers all of it.
"""

import logging
from pathlib import Path

from distill.files.artefact import INNER_MODEL
from distill.files.trust import check_source
from distill.models.backbone import identify, resolve_name
from distill.models.late_interaction import check_late_interaction, open_late_interaction, set_lengths
from distill.models.m3_heads import HEADS, find_head, read_heads, write_heads
from distill.models.modeling import build_model, quiet, save_model, stored_file
from distill.recipe.schema import LateInteractionTeacher, M3Teacher, TokenTeacher
from distill.run import Run
from teachers.described import put_into_run

__all__ = ["check_token_teacher", "take_token_teacher"]

log = logging.getLogger(__name__)


def check_token_teacher(settings: TokenTeacher) -> None:
    """Refuse a folder or name that is not such a model, without loading it.

    :raises BadInput: if a part of it is missing
    """
    name = resolve_name(settings.backbone)
    if isinstance(settings, M3Teacher):
        check_source(name)
        for head in HEADS:
            find_head(name, head)
    else:
        check_late_interaction(name)


def take_token_teacher(run: Run, name: str, settings: TokenTeacher) -> None:
    """Copy a model into the run's folder, unless it is already there."""
    identity = identify(settings.backbone)
    section = settings.deciding(exclude={"scripts"})
    inputs = {"stage": "train_teacher", "name": name, "teacher": section, "parents": {"backbone": identity}}
    stated = settings.model_dump(mode="json", exclude={"backbone", "prompts", "scripts"})
    if put_into_run(run, name, inputs, stated, lambda folder: _write(settings, folder)):
        log.info("teacher %s: %s, used as it is, stored in %s", name, settings.in_words, run.teacher(name))


def _write(settings: TokenTeacher, folder: Path) -> None:
    """Write the model, and BGE-m3's heads beside it."""
    name = resolve_name(settings.backbone)
    if isinstance(settings, M3Teacher):
        has_pooling = stored_file(name, "modules.json") is not None  # folders trained with FlagEmbedding lack it
        model = build_model(
            "bi_encoder",
            name,
            pooling=None if has_pooling else "cls",
            max_length=settings.max_length,
            prompts=settings.prompts,
        )
        write_heads(read_heads(name, int(model[0].model.config.hidden_size)), folder)
        save_model(model, folder / INNER_MODEL)
        return
    assert isinstance(settings, LateInteractionTeacher)
    late = open_late_interaction(name, prompts=settings.prompts)
    set_lengths(name, late, settings.query_length, settings.document_length)
    with quiet():
        late.save_pretrained(str(folder / INNER_MODEL), create_model_card=False, safe_serialization=True)
