"""Train the student on the teachers' signals, and its control: the same student, on the same pairs, without them."""

from functools import partial
from typing import Any

from distill.backbone import identify
from distill.building import model_builder
from distill.fitting import Job, fit
from distill.recipe import CutBackbone, Labels, Objectives
from distill.run import Run
from distill.runtime import load
from distill.signals import CachedSignals, LiveSignals, SignalCache, SignalSource

__all__ = ["train_student"]


def train_student(run: Run) -> None:
    """Train what is not finished of student and control; every process of a launch calls this."""
    objectives = run.recipe.objectives
    _train(run, "student", objectives)
    if run.student_section.control:
        if run.split.train.labels is not None:
            _train(run, "control", Objectives(labels=objectives.labels or Labels()))


def _train(run: Run, name: str, objectives: Objectives) -> None:
    target = run.student if name == "student" else run.control
    parents = _parents(run, objectives)
    inputs = _inputs(run, name, objectives, parents)
    if run.is_finished(target, inputs):
        return
    student = run.student_section
    sources = {teacher: _source(run, teacher) for teacher in objectives.teachers()}
    widths = _widths(run)
    build = model_builder(run, student)
    own_width = build().get_embedding_dimension() if widths else None
    output_width, projected_width = _projection(run, own_width, widths)
    fit(run, Job(
        name=name, stage="train_student", kind=student.kind, target=target,
        build_model=partial(build, output_width=output_width) if output_width else build, objectives=objectives,
        training=student.training, max_length=student.max_length, prompts=student.prompts, inputs=inputs, parents=parents,
        sources=sources, role_prompts=any(run.recipe.teachers[t].prompts for t in sources) or student.prompts is not None,
        projected_width=projected_width if name == "student" else None,
    ))  # fmt: skip


def _inputs(run: Run, name: str, objectives: Objectives, parents: dict[str, str]) -> dict[str, Any]:
    student, described = run.student_section, run.split.describe()
    parts = ("train", "validation", "unlabelled") if objectives.embedding_match else ("train", "validation")
    section = student.model_dump(
        mode="json", exclude={"control": True, "training": {"checkpoint_seconds", "tensorboard"}}
    )
    return {
        "stage": "train_student", "name": name, "student": section, "objectives": objectives.model_dump(mode="json"),
        "parents": parents, "signals": {teacher: run.signal_identity(teacher).key for teacher in objectives.teachers()},
        "seed": run.recipe.seed, "candidates": run.recipe.data.candidates,
        "data": {part: described[part] for part in parts},
    }  # fmt: skip


def _parents(run: Run, objectives: Objectives) -> dict[str, str]:
    """Return the revisions of everything that a student comes from."""
    backbone, names = run.student_section.backbone, set(objectives.teachers())
    parents = {}
    if isinstance(backbone, CutBackbone):
        names.add(backbone.teacher)
    elif isinstance(backbone, str):
        parents["backbone"] = identify(backbone)
    return parents | {name: run.require(run.teacher(name), "train_teacher").revision for name in sorted(names)}


def _source(run: Run, name: str) -> SignalSource:
    teacher = run.recipe.teachers[name]
    if run.recipe.signals.live:
        scorer = load(
            run.teacher(name), runtime="torch", precision=run.recipe.signals.precision, max_length=teacher.max_length
        )
        return LiveSignals(scorer, teacher.prompts or ("", ""))
    return CachedSignals(SignalCache(run.signals(name), run.signal_identity(name)))


def _widths(run: Run) -> int | None:
    """Return the width of the teacher whose embeddings are matched."""
    match = run.recipe.objectives.embedding_match
    return None if match is None else _source(run, match.teacher).width


def _projection(run: Run, own_width: int | None, teacher_width: int | None) -> tuple[int | None, int | None]:
    """Return (width of a Dense that stays, width of a projection that goes): the control has the first one too."""
    match = run.recipe.objectives.embedding_match
    if match is None or own_width == teacher_width:
        return None, None
    return (teacher_width, None) if match.projection == "keep" else (None, teacher_width)
