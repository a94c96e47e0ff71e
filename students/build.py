"""Build the untrained student: its backbone, with the cuts of the recipe.

The result is an artefact of its own, `<run>/built`: a plain model folder, from which the student and its control both
start. A later training stage may cut the student of the stage before (`<run>/stages/<name>/built`). Its control then
starts from the same cuts without the training between them (`<run>/stages/<name>/untrained`). A cut model is saved,
loaded with the stock library and compared before it is put in place, so a config that does not fit its weights is found
here.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.errors import BadInput, JobFailed
from distill.files.artefact import new_folder, write_card
from distill.models.backbone import identify
from distill.models.modeling import is_static, load_model, prepared, quiet, save_model, transformer_of
from distill.models.prompts import keep_prompts, model_prompts
from distill.recipe.schema import FreshBackbone, Student, TeacherBackbone
from distill.run import Run
from distill.training.building import model_builder
from students.cut.depth import choose_layers, keep_layers
from students.cut.dimensions import read_axes, with_output, write_axes
from students.cut.importance import pair_batches
from students.cut.sources import scripts_of, signal_source
from students.cut.static import static_model
from students.cut.width import narrow
from students.vocabulary.corpus import change_vocabulary, factorise, student_corpus

__all__ = ["build_stage", "build_student", "build_untrained", "check_reload"]

log = logging.getLogger(__name__)
_TOLERANCE = 1e-5  # between a student and its saved folder: rounding in float32
_PROBE = ("one two three", "하나 둘", "four")
# fields of the section that affect the training, but not the built model
_NOT_BUILDING = {"asymmetric", "calibration", "control", "training"}


def build_student(run: Run) -> None:
    """Build the student for a run's first training stage, unless it exists; every process of a launch calls this."""
    from accelerate import PartialState

    first, state = run.stages[0], PartialState()
    build = model_builder(first, first.student_section)
    if state.is_main_process:
        _build(first, build)
    state.wait_for_everyone()


def build_stage(run: Run) -> None:
    """Build the model that a training stage starts from, unless it is the unchanged student of the stage before."""
    if run.before is None:
        build_student(run)
    elif run.builds:
        _build_further(run, run.before.student, run.built)


def build_untrained(run: Run) -> None:
    """Build the student with the cuts of all stages and no training between them, the start of the control."""
    for stage in run.stages:
        if stage.before is not None and stage.builds:
            _build_further(stage, stage.before.untrained, stage.untrained)


def _build_further(run: Run, start: Path, target: Path) -> None:
    from accelerate import PartialState

    state = PartialState()
    if state.is_main_process:
        _cut_further(run, start, target)
    state.wait_for_everyone()


def _cut_further(run: Run, start: Path, target: Path) -> None:
    """Cut a student and give it the output that the stage asks for; `start` and `target` are folders."""
    parents = {run.place_of(start): run.require(start, "train_student").revision, **_teachers(run, _matched(run))}
    described = run.split.describe()
    inputs = {
        "stage": "build_student",
        "cut": None if run.cut is None else run.cut.deciding(),
        "dimensions": run.student_section.dimensions,
        "space": list(run.space),
        "parents": parents,
        "seed": run.recipe.seed,
        "data": {part: described[part] for part in ("train", "unlabelled", "parallel")},
        **scripts_of(run, _matched(run)),
    }
    if run.is_finished(target, inputs):
        return
    before, model = load_model(start), load_model(start)
    cut = {name: getattr(run.cut, name, None) for name in ("layers", "width", "embedding_rank")}
    section = run.student_section.model_copy(update={**cut, "vocabulary": None})
    # a narrower model keeps the width of its embeddings
    details = _take_away(
        run, model, section, None if section.kind == "cross_encoder" else before.get_embedding_dimension()
    )
    model, output, axes = _with_output_of_stage(run, model, before)
    model = prepared(model, max_length=section.max_length, prompts=section.prompts)
    card = run.card(section.kind, "build_student", inputs, parents, details | output)
    with new_folder(target) as folder:
        save_model(model, folder)
        check_reload(model, folder)
        if axes is not None:
            write_axes(folder, axes)
        write_card(folder, card)
    log.info("stage %s: %s, %.1f M parameters", run.name, target, _millions(model))


def _with_output_of_stage(run: Run, model: Any, before: Any) -> tuple[Any, dict[str, Any], np.ndarray | None]:
    """Return the model with the stage's output (or unchanged), a message on it, and the teacher's axes."""
    assert run.before is not None
    if run.space == run.before.space and getattr(run.cut, "dimensions", None) is None:
        return model, {}, read_axes(run.before.built)
    model, output, axes = with_output(run, model, before, _output_width(run))
    keep_prompts(model, before.prompts, before.default_prompt_name)
    return model, output, axes


def _build(run: Run, build: Any) -> None:
    section = run.student_section
    parents = _parents(run)
    described = run.split.describe()
    inputs: dict[str, Any] = {
        "stage": "build_student",
        "student": section.deciding(exclude=_NOT_BUILDING),
        "parents": parents,
        "writes_into_teacher": bool(_matched(run)),
        "seed": run.recipe.seed,
        "data": {part: described[part] for part in ("train", "unlabelled", "parallel")},
    }
    inputs |= scripts_of(run, _matched(run))
    if section.vocabulary is not None and section.vocabulary.texts:
        inputs["texts"] = student_corpus(run).fingerprint()
    elif run.learned is not run.split and _reads_text(section):
        inputs["learned"] = {
            name: description for name, description in run.learned.describe().items() if name in inputs["data"]
        }
    if run.is_finished(run.built, inputs):
        return
    output_width = _output_width(run)
    backbone = model = build()
    if section.kind == "bi_encoder" and section.prompts is None and any(prompts := model_prompts(model)):
        log.info("student: keeps the prompts of its backbone, %r before queries, %r before documents", *prompts)
    details = _take_away(run, model, section, output_width)
    axes = None
    if section.static is not None:
        texts = [*run.learned.train.queries, *run.learned.train.documents, *run.learned.unpaired]
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
    log.info("built: %s, %.1f M parameters", run.built, _millions(model))


def _reads_text(section: Student) -> bool:
    """Tell whether the built student depends on all stages' text: by its vocabulary, or its tokens' weights."""
    is_fresh = isinstance(section.backbone, FreshBackbone)
    return is_fresh or any(part is not None for part in (section.vocabulary, section.embedding_rank, section.static))


def _millions(model: Any) -> float:
    return float(sum(weight.numel() for weight in model.parameters()) / 1e6)


def _take_away(run: Run, model: Any, section: Student, output_width: int | None) -> dict[str, Any]:
    """Make the recipe's cuts in place, in the order of the section's keys; return a message on each."""
    details: dict[str, Any] = {}
    if section.layers is not None or section.width is not None:
        details = _cut_layers_and_width(run, model, section, output_width)
    if section.vocabulary is not None:
        corpus = student_corpus(run)
        corpus.add("prompts", filter(None, model.prompts.values()))  # they come before texts, like the recipe's own
        details["vocabulary"] = change_vocabulary(model, section.vocabulary, corpus, seed=run.recipe.seed)
    if section.embedding_rank is not None:
        details["embedding_rank"] = factorise(model, section.embedding_rank, student_corpus(run))
    return details


def _cut_layers_and_width(run: Run, model: Any, section: Student, output_width: int | None) -> dict[str, Any]:
    details: dict[str, Any] = {}
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # choosing what to cut takes many forward passes
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
    """Return the revisions of the models that the student is built from."""
    backbone = run.student_section.backbone
    names = {backbone.teacher} if isinstance(backbone, TeacherBackbone) else set()
    names.update(_matched(run))  # the output layer starts from their embeddings
    parents = {"backbone": identify(backbone)} if isinstance(backbone, str) else {}
    return parents | _teachers(run, names)


def _teachers(run: Run, names: Iterable[str]) -> dict[str, str]:
    return {name: run.require(run.teacher(name), "train_teacher").revision for name in sorted(names)}


def _matched(run: Run) -> tuple[str, ...]:
    """Return the teachers in whose space the student's embeddings are to be, through a projection that is kept."""
    return run.recipe.objectives.kept_teachers


def _output_width(run: Run) -> int | None:
    """Return the width of that space."""
    matched = _matched(run)
    return sum(_width_of(run, name) for name in matched) if matched else None


def _width_of(run: Run, teacher: str) -> int:
    if teacher in run.recipe.black_boxes:
        width = signal_source(run, teacher).width
        if not width:
            raise BadInput(
                f"{run.signals(teacher)} holds no embeddings yet; run `distill cache-signals` with this recipe first"
            )
        return width
    return int(load_model(run.teacher(teacher)).get_embedding_dimension())


def check_reload(model: Any, folder: Path) -> None:
    """Load the written folder and compare: with a config that does not describe the cut, another model would be loaded.

    :raises JobFailed: if the two differ
    """
    reloaded = load_model(folder)
    with quiet():
        outputs, reloaded_outputs = (_outputs(each.eval()) for each in (model, reloaded))
    difference = float(np.abs(outputs - reloaded_outputs).max())
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
