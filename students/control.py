"""The control: what labels alone can do for the student, at its best.

A control that learns by an unfit loss flatters the teacher: of a bi-encoder, the squared error of the cosine can rank worse
after training than before. So every label loss of the student's kind is tried for some steps from the student's own start,
the one with the best validation value is trained to the end, and what each was worth is kept in the control's card.
"""

import logging
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.artefact import content_hash, read_card
from distill.recipe import Control, LabelLoss, Labels, Objectives, Student, Training
from distill.recipe_checks import LABEL_LOSSES
from distill.run import Run
from distill.trainset import POSITIVE_FROM

__all__ = [
    "ControlPlan",
    "choose_loss",
    "control_objectives",
    "control_training",
    "describe",
    "plan_control",
    "remove_trials",
]

log = logging.getLogger(__name__)
_TRIAL_SHARE = 5  # a trial takes a fifth of the steps


@dataclass(frozen=True)
class ControlPlan:
    """Which losses are tried, for how many optimizer steps, and how many steps the best one is trained."""

    losses: tuple[LabelLoss, ...]
    steps: int
    trial_steps: int


def plan_control(run: Run) -> ControlPlan | None:
    """Return how the control of a finished student is made; None where the recipe wants none or there are no labels."""
    section = run.student_section
    labels = run.split.train.labels
    if not section.control or labels is None:
        return None
    settings = section.control if isinstance(section.control, Control) else Control()
    steps = settings.steps or int(run.require(run.student, "train_student").details["training"]["step"])
    losses = (settings.loss,) if settings.loss else _losses(section, labels)
    return ControlPlan(losses, steps, min(steps, settings.trial_steps or math.ceil(steps / _TRIAL_SHARE)))


def _losses(section: Student, labels: np.ndarray) -> tuple[LabelLoss, ...]:
    """Return the losses that can teach something: constant labels rank nothing, InfoNCE needs positives."""
    varied, positive = bool(np.ptp(labels) > 0), bool((labels >= POSITIVE_FROM).any())
    known = LABEL_LOSSES[section.kind]
    fit = tuple(loss for loss in known if (positive if loss == "infonce" else varied))
    return fit or known[:1]


def control_objectives(run: Run, loss: LabelLoss) -> Objectives:
    """Return the label loss alone, at the temperature and weight that the recipe has for labels."""
    objectives = run.recipe.objectives
    labels = (objectives.labels or Labels()).model_copy(update={"loss": loss})
    return Objectives(labels=labels, matryoshka=objectives.matryoshka)


def control_training(training: Training, steps: int) -> Training:
    """Return the student's training section for a number of steps over fewer pairs; the best weights are looked for once an epoch."""
    once = min(training.evaluations_per_epoch, 1)
    changes = {"epochs": float(steps), "max_steps": steps, "evaluations_per_epoch": once, "patience": None}
    return training.model_copy(update=changes)


def choose_loss(
    run: Run, plan: ControlPlan, inputs: Mapping[str, Any], train: Callable[[LabelLoss, Path, Mapping[str, Any]], None]
) -> tuple[LabelLoss, dict[str, float | None]]:
    """Try each loss and return the best with the validation value of each; a finished trial is not made again.

    :param train: trains a loss for the steps of a trial into a folder
    """
    if len(plan.losses) == 1:
        return plan.losses[0], {}
    values: dict[str, float | None] = {}
    for loss in plan.losses:
        tried = {**inputs, "trial": loss}
        folder = run.work / f"trial-{loss}-{content_hash(tried)}"
        if read_card(folder) is None:
            train(loss, folder, tried)
        value = run.require(folder, "train_student").metrics.get("validation")
        values[loss] = value if value is not None and math.isfinite(value) else None
    ranked = [loss for loss in plan.losses if values[loss] is not None]
    best = max(ranked, key=lambda loss: values[loss] or 0.0) if ranked else plan.losses[0]
    said = ", ".join(f"{loss} {'undefined' if value is None else f'{value:.4f}'}" for loss, value in values.items())
    log.info(
        "control: %s is the best label loss of %d steps on the validation pairs (%s)", best, plan.trial_steps, said
    )
    return best, values


def remove_trials(run: Run) -> None:
    """Remove the trials' weights: the control's card has what they were worth."""
    for folder in run.work.glob("trial-*"):
        shutil.rmtree(folder, ignore_errors=True)


def describe(plan: ControlPlan, loss: LabelLoss, values: Mapping[str, float | None]) -> dict[str, Any]:
    """Return what the control's card says of how it was chosen."""
    return {"control": {**asdict(plan), "losses": list(plan.losses), "loss": loss, "validation": dict(values)}}
