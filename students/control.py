"""The control: the best that labels alone can do for the student, so that student − control is what the teacher gave.

    every label loss of the student's kind ──▶ a short trial each, judged on the validation pairs ──▶ the best one to the end

Trials and control start from the built student and take as many units per step as the student does. The control takes as
many optimizer steps as the student took: where it has fewer pairs, since the student also learned from pairs without
labels, it goes over them more often. A trial's schedule is its own, so that it ends with a small learning rate too.
"""

import logging
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import BadInput
from distill.files.artefact import content_hash, read_card
from distill.recipe.checks import LABEL_LOSSES
from distill.recipe.schema import Control, LabelLoss, Labels, Objectives, Training
from distill.run import Run
from distill.training.fitting import Job, fit
from distill.wording import or_least, value_in_words, values_in_words

__all__ = ["MakeJob", "check_control", "train_control"]

log = logging.getLogger(__name__)
_LEAST_TRIAL_STEPS = 10  # of each loss that is tried: a trial that ends within the warm-up compares nothing
MakeJob = Callable[[str, Objectives, Mapping[str, Any]], Job]
"""From a name, objectives and inputs to a job of the student's."""


def train_control(run: Run, inputs: Mapping[str, Any], make_job: MakeJob) -> None:
    """Choose the control's label loss and train it, unless that is done; every process of a launch calls this.

    :param inputs: what decides the control besides its section: the built student, data, training settings
    """
    section = control_section(run)
    steps = section.steps or steps_of_student(run)
    losses = [section.loss] if section.loss is not None else label_losses(run)
    trial_steps = min(steps, max(_LEAST_TRIAL_STEPS, round(section.trial_share * steps)))
    inputs = {**inputs, "control": {"losses": losses, "steps": steps, "trial_steps": trial_steps}}
    if run.is_finished(run.control, inputs):
        return
    values = {} if len(losses) == 1 else _trials(run, losses, trial_steps, inputs, make_job)
    loss = max(losses, key=lambda name: or_least(values.get(name)))  # of equals the first
    said = {"loss": loss, "steps": steps, "trial_steps": trial_steps, "trials": values}
    log.info("control: %s, %d steps%s", loss, steps, _said(values, trial_steps))
    job = make_job("control", control_objectives(run, loss), inputs)
    fit(run, _changed(job, steps, details={**job.details, "control": said}))
    shutil.rmtree(_trials_folder(run), ignore_errors=True)


def control_section(run: Run) -> Control:
    """Return how the control is trained; `control: true` is all by default."""
    given = run.student_section.control
    return given if isinstance(given, Control) else Control()


def label_losses(run: Run) -> list[LabelLoss]:
    """Return the label losses to try, the first of equals being taken: that of the objectives first, where it is stated."""
    known = [loss for loss in LABEL_LOSSES[run.student_section.kind] if _teaches(run, loss)]
    stated = None if run.recipe.objectives.labels is None else run.recipe.objectives.labels.loss
    return sorted(known, key=lambda loss: loss != stated)


def check_control(run: Run) -> None:
    """Refuse labels that teach a control nothing, before the student is trained.

    :raises BadInput: where all labels are the same, and no positives for InfoNCE
    """
    labels = run.split.train.labels
    if run.student_section.control and labels is not None and not label_losses(run):
        raise BadInput(
            f"every training label is {labels[0]:g}, so that labels alone teach the control nothing; set student.control=false"
        )


def _teaches(run: Run, loss: LabelLoss) -> bool:
    """Tell whether a loss can learn from the training labels: InfoNCE from positives, the others from differences."""
    labels = run.split.train.labels
    if labels is None:
        return False
    if loss == "infonce":
        least = (run.recipe.objectives.labels or Labels()).positive_from
        return bool((labels >= least).any()) and run.student_section.training.global_batch > 1
    return bool(np.ptp(labels) > 0)


def control_objectives(run: Run, loss: LabelLoss) -> Objectives:
    """Return the label loss, at the temperature of the recipe's own, learned at the student's widths."""
    given = run.recipe.objectives
    labels = (given.labels or Labels()).model_copy(
        update={"loss": loss, "weight": 1.0, "guide": None, "schedule": None}
    )
    return Objectives(labels=labels, matryoshka=given.matryoshka)


def steps_of_student(run: Run) -> int:
    """Return how many optimizer steps the finished student took."""
    card = run.require(run.student, "train_student")
    return int(card.details["training"]["step"])


def _trials(
    run: Run, losses: list[LabelLoss], steps: int, inputs: Mapping[str, Any], make_job: MakeJob
) -> dict[str, float | None]:
    """Return each loss's value on the validation pairs after a short training; a finished trial is not done again.

    None is a value that the validation pairs do not define.
    """
    values: dict[str, float | None] = {}
    for loss in losses:
        trial = {**inputs, "stage": "control_trial", "loss": loss}
        folder = _trials_folder(run) / f"{loss}-{content_hash(trial)}"
        if read_card(folder) is None:
            job = _changed(
                make_job(f"control_trial_{loss}", control_objectives(run, loss), trial), steps, target=folder
            )
            fit(run, job)
        card = run.require(folder, "train_student")
        value = card.metrics.get("validation")
        values[loss] = None if value is None or not math.isfinite(value) else float(value)
        log.info("control: %s after %d steps: validation %s", loss, steps, value_in_words(values[loss]))
    return values


def _trials_folder(run: Run) -> Path:
    return run.work / "control_trials"


def _changed(job: Job, steps: int, **changes: Any) -> Job:
    """Let a job take exactly so many steps, however many pairs it has."""
    training = job.training
    own: dict[str, Any] = {"max_steps": steps, "epochs": float(max(steps, training.epochs)), "patience": None}
    if training.evaluations_per_epoch or "target" in changes:  # its epochs are short: once in each is often enough
        own["evaluations_per_epoch"] = 1
    return replace(job, training=Training(**{**training.model_dump(), **own}), **changes)


def _said(values: Mapping[str, float | None], steps: int) -> str:
    if not values:
        return ""
    return f" (validation after {steps} steps: {values_in_words(values)})"
