"""Train the student on the teachers' signals, and its control: the same student, on the same pairs, without them."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from distill.errors import BadInput
from distill.files.artefact import read_card
from distill.models.modeling import load_model, prepared
from distill.recipe.schema import Objectives
from distill.run import Run
from distill.signals import SignalSource
from distill.training.fitting import Job, fit
from distill.training.live_teacher import live_teachers
from distill.training.mixtures import JoinedSignals, join_teachers, mix_teachers
from distill.training.read_texts import any_unread
from distill.training.unlabelled import taught_pairs
from students.asymmetric import index_teacher, pair_details
from students.build import build_stage, build_untrained
from students.calibrate import calibrate_student, say_what_keeps_from_calibrating
from students.control import by_labels, check_control, control_run, train_control
from students.cut.dimensions import read_axes
from students.cut.sources import AlongAxes, embedding_source, scripts_of, signal_source

__all__ = ["student_from", "train_student", "training_inputs", "training_job"]

log = logging.getLogger(__name__)


def train_student(run: Run) -> None:
    """Build the student, train its unfinished stages, then its control; every process of a launch calls this."""
    control = control_run(run)
    check_control(control)
    say_what_keeps_from_calibrating(run)
    _check_order(run)
    for stage in run.stages:
        build_stage(stage)
        _train_stage(stage)
    build_untrained(run)
    if run.student_section.control and control.split.train.labels is not None:
        # the control of an asymmetric student also learns the labels alone, but against the same given index
        inputs = training_inputs(control, "control", by_labels(control.recipe.objectives))
        train_control(control, inputs, partial(training_job, control))
    run.drop_tokens()
    calibrate_student(run)


def _check_order(run: Run) -> None:
    """Refuse finished students of other stages than the recipe's, before hours of training.

    :raises BadInput: if a finished student started from another folder, for example after a stage was renamed or moved
    """
    for stage in run.stages:
        card = None if run.recipe.overwrite else read_card(stage.student)
        start = run.place_of(stage.start)
        if card is not None and card.parents and start not in card.parents:
            actual_start = next(
                (name for name in card.parents if name == "built" or name.startswith("stages/")), "another folder"
            )
            raise BadInput(
                f"{stage.student} was made from something else (it started from {actual_start}, and is to start from {start}); stages got other names "
                "or places: set output_dir to a new folder, or overwrite=true to replace it"
            )


def _train_stage(run: Run) -> None:
    objectives, name = run.recipe.objectives, "student" if run is run.stages[-1] else f"student-{run.name}"
    inputs = training_inputs(run, name, objectives)
    if run.is_finished(run.student, inputs):
        return
    if run.name is not None:
        log.info("stage %s (%d of %d) starts from %s", run.name, run.place + 1, len(run.stages), run.start)
    fit(run, training_job(run, name, objectives, inputs))


def training_job(run: Run, name: str, objectives: Objectives, inputs: Mapping[str, Any]) -> Job:
    """Return the training job of the student, or of its control; see `training_inputs`."""
    student, is_control = run.student_section, name.startswith("control")
    sources: dict[str, SignalSource] = {teacher: signal_source(run, teacher) for teacher in objectives.teachers()}
    if (match := objectives.embedding_match) is not None and match.teachers is not None:
        sources[match.taught_by] = join_teachers(match, sources)
    mixed = {
        mixture: mix_teachers(term, sources, run.split.validation) for mixture, term in objectives.mixtures().items()
    }
    sources |= mixed
    axes, match = read_axes(run.built), objectives.embedding_match
    some_unread = any_unread(sources.values())
    # embeddings of only some teachers cannot be expressed along the axes: the student's are mapped back from them
    matched = None
    if axes is not None and match is not None and not some_unread:
        matched = AlongAxes(sources[match.taught_by], axes)
    index = index_teacher(run)
    return Job(
        name=name,
        stage="train_student",
        kind=student.kind,
        target=run.control if is_control else run.student,
        build_model=partial(student_from, run, run.stages[-1].untrained if is_control else run.start),
        objectives=objectives,
        training=student.training,
        max_length=student.max_length,
        prompts=student.prompts,
        inputs=inputs,
        parents=inputs["parents"],
        sources=sources,
        matched=matched,
        role_prompts=index is not None
        or any(any(run.teacher_prompts(t)) for t in {*objectives.teachers(), *objectives.live_teachers})
        or student.prompts is not None,
        projected_width=_projected_width(run, objectives),
        block_widths=_block_widths(run, objectives),
        axes=axes if some_unread and match is not None else None,
        own_role=None if student.asymmetric is None else student.asymmetric.role,
        other_source=None if index is None else signal_source(run, index),
        live=live_teachers(run, objectives),
        details=pair_details(run)
        | ({"mixtures": {name: dict(signals.shares) for name, signals in mixed.items()}} if mixed else {}),
        handed_over=None if is_control or run.before is None else run.before.student,
        hands_over=not is_control and run is not run.stages[-1],
    )


def student_from(run: Run, folder: Path) -> Any:
    """Load a folder of the student, with the settings of the recipe's section for training."""
    student = run.student_section
    return prepared(load_model(folder), max_length=student.max_length, prompts=student.prompts)


def training_inputs(run: Run, name: str, objectives: Objectives) -> dict[str, Any]:
    """Return everything that determines the trained student, or its control.

    :param name: the job's name: "student" in the last training stage, "student-<stage>" in an earlier one, "control"
    """
    parents = _parents(run, name, objectives)
    student, described = run.student_section, run.split.describe()
    parts = ["train", "validation", *(["unlabelled", "parallel"] if objectives.from_texts else [])]
    if objectives.from_teachers and len(taught := taught_pairs(run)) > len(run.split.train):
        described = described | {"taught": {"fingerprint": taught.fingerprint()}}
        parts.append("taught")
    not_learned: Any = {
        "control": True,
        "calibration": True,
        "training": {"checkpoint_seconds", "tensorboard"},
        "asymmetric": {"min_cosine", "min_recall", "top_k"},
    }
    section = student.deciding(exclude=not_learned)
    teachers = {*objectives.teachers(), *filter(None, [index_teacher(run)])}
    live = {
        teacher: {"max_length": run.recipe.models[teacher].max_length, "precision": run.recipe.signals.precision}
        for teacher in objectives.live_teachers
    }
    return {
        **scripts_of(run, {*teachers, *objectives.live_teachers}),
        "stage": "train_student",
        "name": name,
        "student": section,
        "objectives": objectives.described(),
        "parents": parents,
        "signals": {teacher: run.signal_identity(teacher).key for teacher in sorted(teachers)},
        "seed": run.recipe.seed,
        "candidates": run.recipe.data.candidates,
        "data": {part: described[part] for part in parts},
        **({"live": live} if live else {}),
    }


def _parents(run: Run, name: str, objectives: Objectives) -> dict[str, str]:
    """Return the revisions of all models that a student is made from."""
    start = run.stages[-1].untrained if name.startswith("control") else run.start
    teachers = {*objectives.teachers(), *objectives.live_teachers, *filter(None, [index_teacher(run)])}
    parents = {run.place_of(start): run.require(start, "build_student").revision}
    return parents | {
        teacher: run.require(run.teacher(teacher), "train_teacher").revision for teacher in sorted(teachers)
    }


def _projected_width(run: Run, objectives: Objectives) -> int | None:
    """Return the width of a projection into the teacher's space that is dropped after training."""
    match = objectives.embedding_match
    if match is None or match.projection == "keep":
        return None
    teacher_width = embedding_source(run, match).width
    is_own = teacher_width == load_model(run.start).get_embedding_dimension() and match.combine == "concatenate"
    return None if is_own else teacher_width


def _block_widths(run: Run, objectives: Objectives) -> tuple[int, ...]:
    """Return the widths of teachers whose embeddings are matched separately."""
    match = objectives.embedding_match
    source = None if match is None or match.combine != "each" else embedding_source(run, match)
    return source.widths if isinstance(source, JoinedSignals) else ()
