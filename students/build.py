"""Build the student before it is trained: its backbone, and what the recipe takes away from it.

The result is an artefact of its own, `<run>/built`: a plain model folder, from which the student and its control both
start. What was cut is saved, loaded with the stock library and compared before it is put in place, so that a config that
does not describe its weights is found here and not in a worse student.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.errors import BadInput, JobFailed
from distill.files.artefact import new_folder, write_card
from distill.models.backbone import identify
from distill.models.modeling import is_static, load_model, prepared, quiet, save_model, transformer_of
from distill.models.prompts import keep_prompts, model_prompts
from distill.recipe.schema import Student, TeacherBackbone
from distill.run import Run
from distill.training.building import model_builder
from students.cut.depth import choose_layers, keep_layers
from students.cut.dimensions import with_output, write_axes
from students.cut.importance import pair_batches
from students.cut.sources import signal_source
from students.cut.static import static_model
from students.cut.width import narrow
from students.vocabulary.corpus import change_vocabulary, factorise, student_corpus

__all__ = ["build_student", "check_reload"]

log = logging.getLogger(__name__)
_TOLERANCE = 1e-5  # between a student and its saved folder: rounding in float32
_PROBE = ("one two three", "하나 둘", "four")
# what of the section decides the training and not the model that is trained
_NOT_BUILDING = {"asymmetric", "calibration", "control", "training"}


def build_student(run: Run) -> None:
    """Build the student of a run, if it is not built yet; every process of a launch calls this."""
    from accelerate import PartialState

    state = PartialState()
    build = model_builder(run, run.student_section)
    if state.is_main_process:
        _build(run, build)
    state.wait_for_everyone()


def _build(run: Run, build: Any) -> None:
    section = run.student_section
    parents = _parents(run)
    described = run.split.describe()
    inputs = {
        "stage": "build_student",
        "student": section.deciding(exclude=_NOT_BUILDING),
        "parents": parents,
        "writes_into_teacher": bool(_matched(run)),
        "seed": run.recipe.seed,
        "data": {part: described[part] for part in ("train", "unlabelled", "parallel")},
    }
    scripts = {name: list(read) for name in _matched(run) if (read := run.recipe.teachers[name].scripts) is not None}
    inputs |= {"scripts": scripts} if scripts else {}
    if section.vocabulary is not None and section.vocabulary.texts:
        inputs["texts"] = student_corpus(run).fingerprint()
    if run.is_finished(run.built, inputs):
        return
    output_width = _output_width(run)
    backbone = model = build()
    if section.kind == "bi_encoder" and section.prompts is None and any(prompts := model_prompts(model)):
        log.info("student: keeps the prompts of its backbone, %r before queries, %r before documents", *prompts)
    details = _take_away(run, model, section, output_width)
    axes = None
    if section.static is not None:
        texts = [*run.split.train.queries, *run.split.train.documents, *run.split.unpaired]
        model = static_model(backbone, section.static, texts, max_length=section.max_length)
    if section.kind == "bi_encoder":
        model, output, axes = with_output(run, model, backbone, output_width)
        details |= output
        keep_prompts(model, backbone.prompts, backbone.default_prompt_name)
    model = prepared(model, max_length=section.max_length, prompts=section.prompts)
    card = run.card(section.kind, "build_student", inputs, parents, details)
    with new_folder(run.built) as folder:
        save_model(model, folder)
        check_reload(model, folder)
        if axes is not None:
            write_axes(folder, axes)
        write_card(folder, card)
    log.info("built: %s, %.1f M parameters", run.built, sum(weight.numel() for weight in model.parameters()) / 1e6)


def _take_away(run: Run, model: Any, section: Student, output_width: int | None) -> dict[str, Any]:
    """Apply the recipe's surgery in place, in the order of the section's keys; return what is to be said of each."""
    details: dict[str, Any] = {}
    if section.layers is not None or section.width is not None:
        details = _cut_layers_and_width(run, model, section, output_width)
    if section.vocabulary is not None:
        corpus = student_corpus(run)
        corpus.add(
            "prompts", model_prompts(model)
        )  # of the backbone: they stand before every text, as the recipe's own do
        details["vocabulary"] = change_vocabulary(model, section.vocabulary, corpus, seed=run.recipe.seed)
    if section.embedding_rank is not None:
        details["embedding_rank"] = factorise(model, section.embedding_rank, student_corpus(run))
    return details


def _cut_layers_and_width(run: Run, model: Any, section: Student, output_width: int | None) -> dict[str, Any]:
    details: dict[str, Any] = {}
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # to measure what may go takes many forward passes
    batches = pair_batches(
        model,
        section.kind,
        run.split.train,
        max_length=section.max_length,
        prompts=section.prompts or model_prompts(model),
        seed=run.recipe.seed,
    )
    if section.layers is not None:
        layers, steps = choose_layers(model, section.kind, section.layers, batches)
        keep_layers(transformer_of(model), layers)
        details["layers"] = {"kept": list(layers), "left_out": steps}
        log.info("layers: %s", list(layers))
    if section.width is not None:
        way_back = output_width == model.get_embedding_dimension() if section.kind == "bi_encoder" else False
        details["width"] = narrow(model, section.kind, section.width, batches, way_back=way_back)
        log.info("width: %s", details["width"])
    model.to("cpu")
    return details


def _parents(run: Run) -> dict[str, str]:
    """Return the revision of what the student is built from."""
    backbone, matched = run.student_section.backbone, _matched(run)
    names = {backbone.teacher} if isinstance(backbone, TeacherBackbone) else set()
    names.update(matched)  # their embeddings are where the output starts
    parents = {"backbone": identify(backbone)} if isinstance(backbone, str) else {}
    return parents | {name: run.require(run.teacher(name), "train_teacher").revision for name in sorted(names)}


def _matched(run: Run) -> tuple[str, ...]:
    """Return the teachers into whose space the student is to write, keeping the way there."""
    match = run.recipe.objectives.embedding_match
    return () if match is None or match.projection == "drop" else match.named


def _output_width(run: Run) -> int | None:
    """Return the width of that space."""
    matched = _matched(run)
    return sum(_width_of(run, name) for name in matched) if matched else None


def _width_of(run: Run, matched: str) -> int:
    if matched in run.recipe.black_boxes:
        width = signal_source(run, matched).width
        if not width:
            raise BadInput(
                f"{run.signals(matched)} holds no embeddings yet; run the stage cache_signals of this recipe first"
            )
        return width
    return int(load_model(run.teacher(matched)).get_embedding_dimension())


def check_reload(model: Any, folder: Path) -> None:
    """Load what was written and compare: a config that does not describe the cut would come back as another model.

    :raises JobFailed: where it does
    """
    again = load_model(folder)
    with quiet():
        here, there = (_outputs(one.eval()) for one in (model, again))
    difference = float(np.abs(here - there).max())
    if not difference < _TOLERANCE:
        raise JobFailed(
            f"the student built from {_name(model)} is another model when loaded again (difference {difference:.2g}); name a small model as student.backbone instead"
        )


def _name(model: Any) -> str:
    return type(model[0] if is_static(model) else transformer_of(model)).__name__


def _outputs(model: Any) -> np.ndarray:
    if hasattr(model, "encode"):
        vectors: np.ndarray = model.encode(list(_PROBE), show_progress_bar=False)
        return vectors
    scores: np.ndarray = model.predict([(text, _PROBE[0]) for text in _PROBE], show_progress_bar=False)
    return scores
