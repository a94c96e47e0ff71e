"""The control: the best student from labels alone, so that student − control is the gain from the teacher.

    every loss on labels of the student's kind ──▶ a short trial each, validation pairs choose ──▶ full training

The losses are those of `objectives.labels`, CoSENT, and the recipe's own terms on labels if they are a mixture or
lists.

Trials and control start from the built student and take as many units per step as the student does. The control takes
as many optimizer steps as the student took. It has fewer pairs if the student also learned from pairs without labels;
then it repeats them more often. A trial has its own schedule, so it also ends with a small learning rate.

If the student is trained in stages, the control is trained once, on the pairs and with the settings of the last stage
that learns labels, for as many steps as all stages together. It starts from the student before any stage, with the cuts
of all stages. Learning rates of late stages suit only a trained student, so the learning rate of each stage is tried.
"""

import logging
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from distill.errors import BadInput, JobFailed, Terminated
from distill.files.artefact import content_hash, read_card
from distill.recipe.checks import SOLE_LOSSES
from distill.recipe.objectives import Term, by_labels_alone
from distill.recipe.schema import Control, Labels, Objectives, SoleLoss, Training
from distill.run import Run
from distill.training.fitting import Job, fit
from distill.training.learnable import unlearnable
from distill.wording import label_loss_in_words, or_least, value_in_words, values_in_words

__all__ = ["MakeJob", "by_labels", "check_control", "control_run", "train_control"]

log = logging.getLogger(__name__)
_Loss = SoleLoss | Literal["recipe"]  # recipe: its own terms on labels
_LEAST_TRIAL_STEPS = 10  # of each trial: one that ends within the warm-up is no comparison
MakeJob = Callable[[str, Objectives, Mapping[str, Any]], Job]
"""Returns a job of the student from a name, objectives and inputs."""


@dataclass(frozen=True)
class _Way:
    """One way to train the control: a loss, and a learning rate if it is not that of its section."""

    loss: _Loss
    learning_rate: float | None = None

    @property
    def name(self) -> str:
        return self.loss if self.learning_rate is None else f"{self.loss} at {self.learning_rate:g}"

    @property
    def in_words(self) -> str:
        return label_loss_in_words(self.loss, self.learning_rate)


def control_run(run: Run) -> Run:
    """Return the run of the stage whose labels the control learns: the last one with labels, else the last one."""
    return next((stage for stage in reversed(run.stages) if stage.recipe.objectives.label_terms()), run)


def train_control(run: Run, inputs: Mapping[str, Any], make_job: MakeJob) -> None:
    """Choose the control's label loss and train it, unless that is done; every process of a launch calls this.

    :param inputs: everything else that determines the control: the built student, data, training settings
    """
    section = control_section(run)
    steps = section.steps or steps_of_student(run)
    losses: list[_Loss] = [section.loss] if section.loss is not None else losses_on_labels(run)
    trial_steps = min(steps, max(_LEAST_TRIAL_STEPS, round(section.trial_share * steps)))
    ways, rates = _ways(run, losses), _learning_rates(run)
    inputs = {**inputs, "control": {"losses": losses, "steps": steps, "trial_steps": trial_steps, **rates}}
    if "recipe" in losses:
        inputs["control"]["recipe"] = control_objectives(run, "recipe").described()
    if run.is_finished(run.control, inputs):
        return
    values = {} if len(ways) == 1 else _trials(run, ways, trial_steps, inputs, make_job)
    way = max(ways, key=lambda one: or_least(values.get(one.name)))  # the first of equal values
    said: dict[str, Any] = {"loss": way.loss, "steps": steps, "trial_steps": trial_steps, "trials": values}
    said |= {} if way.learning_rate is None else {"learning_rate": way.learning_rate}
    log.info("control: %s, %d steps%s", way.in_words, steps, _said(values, trial_steps))
    job = make_job("control", control_objectives(run, way.loss), inputs)
    fit(run, _changed(job, steps, way, details={**job.details, "control": said}))
    shutil.rmtree(_trials_folder(run), ignore_errors=True)


def _ways(run: Run, losses: list[_Loss]) -> list[_Way]:
    """Return the ways to try: each loss, with each learning rate if the stages have several."""
    rates = _learning_rates(run).get("learning_rates", [None])
    return [_Way(loss, rate) for loss in losses for rate in rates]


def _learning_rates(run: Run) -> dict[str, list[float]]:
    """Return the learning rates to try if stated or if stages differ; that of the control's own stage comes first."""
    if (stated := control_section(run).learning_rates) is not None:
        return {"learning_rates": list(dict.fromkeys(stated))}
    own = run.student_section.training.learning_rate
    rates = list(dict.fromkeys([own, *(stage.student_section.training.learning_rate for stage in run.stages)]))
    return {"learning_rates": rates} if len(rates) > 1 else {}


def control_section(run: Run) -> Control:
    """Return the settings of the control; `control: true` means all defaults."""
    given = run.student_section.control
    return given if isinstance(given, Control) else Control()


def losses_on_labels(run: Run) -> list[_Loss]:
    """Return the losses to try, that of the objectives first if it is stated; of equal results the first wins."""
    kind, reasons = run.student_section.kind, _unlearnable(run)
    known: list[_Loss] = [loss for loss in SOLE_LOSSES[kind] if loss not in reasons]
    terms = run.recipe.objectives.label_terms()
    if known and terms and (len(terms) > 1 or not terms.keys() <= {"labels", "cosent"}):
        return ["recipe", *known]
    labels = run.recipe.objectives.labels
    stated = "cosent" if "cosent" in terms else None if labels is None else labels.loss
    return sorted(known, key=lambda loss: loss != stated)


def check_control(run: Run) -> None:
    """Refuse labels from which the control cannot learn, before the student is trained.

    :raises BadInput: if no loss can learn from them, or the stated one cannot
    """
    if not run.student_section.control or run.split.train.labels is None:
        return
    reasons, stated = _unlearnable(run), control_section(run).loss
    if stated is not None and stated in reasons:
        raise BadInput(f"student.control.loss {stated}: {reasons[stated]}; or set student.control=false")
    if len(reasons) == len(SOLE_LOSSES[run.student_section.kind]):
        raise BadInput(
            f"labels alone teach the control nothing; set student.control=false ({next(iter(reasons.values()))})"
        )


def _unlearnable(run: Run) -> dict[str, str]:
    """Return the losses that cannot learn from the training labels, with the reasons."""
    batch, data = run.student_section.training.global_batch, run.recipe.data
    losses = SOLE_LOSSES[run.student_section.kind]
    if run.split.train.labels is None:
        return dict.fromkeys(losses, "the training pairs have no labels")
    terms: dict[str, Any] = {loss: next(iter(control_objectives(run, loss).terms().values())) for loss in losses}
    reasons = unlearnable(run, terms, global_batch=batch)
    if batch * (data.candidates or 1) < 2:  # a stated loss was already refused with the recipe
        reasons.setdefault("cosent", "cosent compares the pairs of a step, and a step holds one")
    return reasons


def control_objectives(run: Run, loss: _Loss) -> Objectives:
    """Return the control's objectives for a loss: with the recipe's settings, at the student's Matryoshka widths."""
    given, terms = run.recipe.objectives, _unhelped(run.recipe.objectives)
    if loss == "recipe":
        return Objectives(**terms, matryoshka=given.matryoshka, logit_scale=given.logit_scale)
    alone = {name: term.model_copy(update={"weight": 1.0}) for name, term in terms.items()}
    objectives = by_labels_alone(loss, alone.get("labels", Labels()), alone.get("cosent"), given.matryoshka)
    return objectives.model_copy(update={"logit_scale": given.logit_scale})


def by_labels(given: Objectives) -> Objectives:
    """Return the part of the objectives that affects the control: the settings of its losses."""
    terms = _unhelped(given)
    settings = {name: term for name, term in terms.items() if name == "cosent"}
    labels = terms.get("labels", Labels())
    return Objectives(labels=labels, **settings, matryoshka=given.matryoshka, logit_scale=given.logit_scale)


def _unhelped(given: Objectives) -> dict[str, Any]:
    """Return the terms on labels without a teacher (guide), with a constant weight."""

    def alone(term: Term) -> Term:
        return term.model_copy(update={"schedule": None, **({"guide": None} if isinstance(term, Labels) else {})})

    return {name: alone(term) for name, term in given.label_terms().items()}


def steps_of_student(run: Run) -> int:
    """Return how many optimizer steps the finished student took, in all of its stages."""
    cards = [run.require(stage.student, "train_student") for stage in run.stages]
    return sum(int(card.details["training"]["step"]) for card in cards)


def _trials(
    run: Run, ways: list[_Way], steps: int, inputs: Mapping[str, Any], make_job: MakeJob
) -> dict[str, float | None]:
    """Return each way's value on the validation pairs after a short training; finished trials are kept.

    None stands for an undefined value, or for a training that failed.
    """
    values: dict[str, float | None] = {}
    for way in ways:
        trial = {**inputs, "stage": "control_trial", "loss": way.loss}
        trial |= {} if way.learning_rate is None else {"learning_rate": way.learning_rate}
        folder = _trials_folder(run) / f"{way.loss}-{content_hash(trial)}"
        if read_card(folder) is None:
            job = make_job(f"control_trial_{way.loss}", control_objectives(run, way.loss), trial)
            try:
                fit(run, _changed(job, steps, way, target=folder))
            except Terminated:
                raise
            except JobFailed as error:  # for example the learning rate was too high
                log.warning("control: %s failed and is not compared: %s", way.name, error)
                values[way.name] = None
                continue
        card = run.require(folder, "train_student")
        value = card.metrics.get("validation")
        values[way.name] = None if value is None or not math.isfinite(value) else float(value)
        log.info("control: %s after %d steps: validation %s", way.name, steps, value_in_words(values[way.name]))
    return values


def _trials_folder(run: Run) -> Path:
    return run.work / "control_trials"


def _changed(job: Job, steps: int, way: _Way, **changes: Any) -> Job:
    """Return the job with exactly this number of steps, for any number of pairs."""
    training = job.training
    own: dict[str, Any] = {"max_steps": steps, "epochs": float(max(steps, training.epochs)), "patience": None}
    if way.learning_rate is not None:
        own["learning_rate"] = way.learning_rate
    if training.evaluations_per_epoch or "target" in changes:  # its epochs are short: one evaluation in each is enough
        own["evaluations_per_epoch"] = 1
    return replace(job, training=Training(**{**training.model_dump(), **own}), **changes)


def _said(values: Mapping[str, float | None], steps: int) -> str:
    if not values:
        return ""
    return f" (validation after {steps} steps: {values_in_words(values)})"
