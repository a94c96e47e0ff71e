"""The control: a student trained on labels alone, so that student − control is the gain from the teacher.

    every label loss of the student's kind ──▶ a short trial each, judged on validation pairs
      ──▶ in full: the best one, and each that the validation pairs do not show to be worse
      ──▶ as long as all are worse than the best trial: in full again at a third of its learning rate, at most twice

A short trial often cannot tell the losses apart. In the quickstart all trials are near chance, and their order changes with
the CPU: the loss that wins there ends between .85 and .93, depending on luck. A trial is shown to be worse if the 95 %
interval of its difference to the best, drawn over the validation pairs, lies below 0, and if the best is shown to be better
than the untrained student in the same way.

The losses are those of `objectives.labels`, CoSENT, and the recipe's own label terms if these are a mixture or
listwise.

Trials and control start from the built student and use the same batch size as the student. The control takes as many
optimizer steps as the student took. If it has fewer pairs, because the student also learned from unlabelled pairs, it
takes more epochs. It chooses its weights among at least as many evaluations on the validation pairs as the student did.
Each trial has its own learning-rate schedule, so that it too ends with a small learning rate. Only the student's learning
rates are tried, unless `student.control.learning_rates` lists others. A rate that suits the student's objectives may be too
high for labels, and a short trial does not show it. So the control is the best of all these trainings on the validation
pairs: it is never worse there than its trial.

If the student is trained in stages, the control is a single training. It uses the pairs and settings of the last stage
that learns labels, takes as many steps as all stages together, and starts from the student before any stage, with the
cuts of all stages. Later stages often have learning rates for an already trained student, so the learning rates of all
stages are tried.
"""

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distill.data.pairs import Pairs
from distill.errors import BadInput, JobFailed, Terminated
from distill.evaluation.benchmark import BenchmarkEntry, score_row
from distill.files.artefact import Artefact, content_hash, new_folder, read_card, write_card
from distill.machine.processes import from_first_process
from distill.metrics.columns import ScoredColumns
from distill.metrics.measures import defined_metrics, paired_difference, primary_metric
from distill.recipe.checks import SOLE_LOSSES
from distill.recipe.objectives import Term, by_labels_alone
from distill.recipe.schema import Control, Labels, Objectives, SoleLoss, Training
from distill.run import Run
from distill.training.fitting import Job, fit
from distill.training.learnable import unlearnable
from distill.wording import label_loss_in_words, or_least, value_in_words
from students.asymmetric import index_teacher

__all__ = ["MakeJob", "by_labels", "check_control", "control_run", "train_control"]

log = logging.getLogger(__name__)
_Loss = SoleLoss | Literal["recipe"]  # recipe: the recipe's own label terms
_LEAST_TRIAL_STEPS = 10  # of each loss that is tried: a trial that ends within the warm-up allows no comparison
_RATE_DIVISORS = (3, 9)  # of the learning rate in full, as long as the training is worse than its trial
MakeJob = Callable[[str, Objectives, Mapping[str, Any]], Job]
"""Makes a training job of the student from a name, objectives and inputs."""


@dataclass(frozen=True)
class _Way:
    """One way to train a control: a loss, and a learning rate if it differs from the section's."""

    loss: _Loss
    learning_rate: float | None = None

    @property
    def name(self) -> str:
        return self.loss if self.learning_rate is None else f"{self.loss} at {self.learning_rate:g}"

    @property
    def in_words(self) -> str:
        return label_loss_in_words(self.loss, self.learning_rate)


@dataclass(frozen=True)
class _Training:
    """A finished training of a control, and its value on the validation pairs; None if they do not define it."""

    way: _Way
    steps: int
    folder: Path
    value: float | None


def control_run(run: Run) -> Run:
    """Return the run of the stage whose labels the control learns: the last that learns labels, else the last stage."""
    return next((stage for stage in reversed(run.stages) if stage.recipe.objectives.label_terms()), run)


def train_control(run: Run, inputs: Mapping[str, Any], make_job: MakeJob) -> None:
    """Choose the control's label loss and train it, unless that is done; every process of a launch calls this.

    :param inputs: what determines the control besides its section: the built student, data, training settings
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
    trainer = _Trainer(run, inputs, make_job)
    if len(ways) > 1:
        log.info(
            "control: %s for %d steps each, then what may be the best of them for %d steps (a stated student.control.loss trains once)",
            ", ".join(way.in_words for way in ways),
            trial_steps,
            steps,
        )
    trials = [] if len(ways) == 1 else [_trial(trainer, way, trial_steps) for way in ways]
    finished = [trial for trial in trials if trial is not None]
    best_trial = max(finished, key=_value, default=None)  # the first among equals
    in_full = _in_full(trainer, _undecided(run, ways, finished, best_trial), steps, best_trial)
    best = max([*in_full, *([] if best_trial is None else [best_trial])], key=_value)
    values = {way.name: None if trial is None else trial.value for way, trial in zip(ways, trials, strict=False)}
    summary: dict[str, Any] = {"loss": best.way.loss, "steps": best.steps, "trial_steps": trial_steps, "trials": values}
    if best.way.learning_rate is not None:
        summary["learning_rate"] = best.way.learning_rate
    if len(in_full) > 1 or best is best_trial:
        summary["in_full"] = {training.way.name: training.value for training in in_full}
    _keep(run, best, inputs, summary)
    shutil.rmtree(_trials_folder(run), ignore_errors=True)


def _ways(run: Run, losses: list[_Loss]) -> list[_Way]:
    """Return the ways to try: each loss at each learning rate, if there are several rates."""
    rates = _learning_rates(run).get("learning_rates", [None])
    return [_Way(loss, rate) for loss in losses for rate in rates]


def _learning_rates(run: Run) -> dict[str, list[float]]:
    """Return the learning rates to try, if they are given or differ between stages; the control's own stage first."""
    if (stated_rates := control_section(run).learning_rates) is not None:
        return {"learning_rates": list(dict.fromkeys(stated_rates))}
    own_rate = run.student_section.training.learning_rate
    rates = list(dict.fromkeys([own_rate, *(stage.student_section.training.learning_rate for stage in run.stages)]))
    return {"learning_rates": rates} if len(rates) > 1 else {}


def control_section(run: Run) -> Control:
    """Return the settings of the control's training; `control: true` means all defaults."""
    section = run.student_section.control
    return section if isinstance(section, Control) else Control()


def losses_on_labels(run: Run) -> list[_Loss]:
    """Return the losses to try: the loss of the recipe's objectives first, if any, because the first wins a tie."""
    kind, reasons = run.student_section.kind, _unlearnable(run)
    learnable: list[_Loss] = [loss for loss in SOLE_LOSSES[kind] if loss not in reasons]
    terms = run.recipe.objectives.label_terms()
    if learnable and terms and (len(terms) > 1 or not terms.keys() <= {"labels", "cosent"}):
        return ["recipe", *learnable]
    labels = run.recipe.objectives.labels
    stated_loss = "cosent" if "cosent" in terms else None if labels is None else labels.loss
    return sorted(learnable, key=lambda loss: loss != stated_loss)


def check_control(run: Run) -> None:
    """Refuse labels that a control cannot learn from, before the student is trained.

    :raises BadInput: if no loss can learn from them, or if the given loss cannot
    """
    if not run.student_section.control or run.split.train.labels is None:
        return
    reasons, stated_loss = _unlearnable(run), control_section(run).loss
    if stated_loss is not None and stated_loss in reasons:
        raise BadInput(f"student.control.loss {stated_loss}: {reasons[stated_loss]}; or set student.control=false")
    if len(reasons) == len(SOLE_LOSSES[run.student_section.kind]):
        raise BadInput(
            f"labels alone teach the control nothing; set student.control=false ({next(iter(reasons.values()))})"
        )


def _unlearnable(run: Run) -> dict[str, str]:
    """Return the losses that cannot learn from the training labels, and why."""
    batch, data = run.student_section.training.global_batch, run.recipe.data
    losses = SOLE_LOSSES[run.student_section.kind]
    if run.split.train.labels is None:
        return dict.fromkeys(losses, "the training pairs have no labels")
    terms: dict[str, Any] = {loss: next(iter(control_objectives(run, loss).terms().values())) for loss in losses}
    reasons = unlearnable(run, terms, global_batch=batch)
    if batch * (data.candidates or 1) < 2:  # a loss given in the recipe is refused with the recipe
        reasons.setdefault("cosent", "cosent compares the pairs of a step, and a step holds one")
    return reasons


def control_objectives(run: Run, loss: _Loss) -> Objectives:
    """Return the control's objectives for a loss, with the recipe's settings for it and its Matryoshka widths."""
    recipe_objectives, terms = run.recipe.objectives, _plain_label_terms(run.recipe.objectives)
    if loss == "recipe":
        return Objectives(**terms, matryoshka=recipe_objectives.matryoshka, logit_scale=recipe_objectives.logit_scale)
    unweighted = {name: term.model_copy(update={"weight": 1.0}) for name, term in terms.items()}
    objectives = by_labels_alone(
        loss, unweighted.get("labels", Labels()), unweighted.get("cosent"), recipe_objectives.matryoshka
    )
    return objectives.model_copy(update={"logit_scale": recipe_objectives.logit_scale})


def by_labels(given: Objectives) -> Objectives:
    """Return the settings of a control's losses: what determines it in these objectives, besides how it is trained."""
    terms = _plain_label_terms(given)
    settings = {name: term for name, term in terms.items() if name == "cosent"}
    labels = terms.get("labels", Labels())
    return Objectives(labels=labels, **settings, matryoshka=given.matryoshka, logit_scale=given.logit_scale)


def _plain_label_terms(objectives: Objectives) -> dict[str, Any]:
    """Return the label terms without a teacher's guidance, with a constant weight in all steps."""

    def plain(term: Term) -> Term:
        return term.model_copy(update={"schedule": None, **({"guide": None} if isinstance(term, Labels) else {})})

    return {name: plain(term) for name, term in objectives.label_terms().items()}


def steps_of_student(run: Run) -> int:
    """Return how many optimizer steps the finished student took in all of its stages."""
    return sum(int(card.details["training"]["step"]) for card in _student_cards(run))


def _student_cards(run: Run) -> list[Artefact]:
    return [run.require(stage.student, "train_student") for stage in run.stages]


@dataclass(frozen=True)
class _Trainer:
    """Trains controls, each in a folder of its own; finished ones are not repeated."""

    run: Run
    inputs: Mapping[str, Any]
    make_job: MakeJob

    @property
    def learning_rate(self) -> float:
        return self.run.student_section.training.learning_rate

    def train(self, name: str, way: _Way, steps: int) -> _Training:
        """Train for exactly this number of steps.

        :param name: of the training in messages and curves
        :raises JobFailed: if the training fails, for example because the learning rate is too high
        """
        run = self.run
        inputs = {**self.inputs, "stage": "control_trial", "loss": way.loss, "steps": steps}
        inputs |= {} if way.learning_rate is None else {"learning_rate": way.learning_rate}
        folder = _trials_folder(run) / f"{way.loss}-{content_hash(inputs)}"
        if read_card(folder) is None:
            job = self.make_job(name, control_objectives(run, way.loss), inputs)
            fit(run, _changed(job, steps, way, control_evaluations(run, steps), target=folder))
        value = run.require(folder, "train_student").metrics.get("validation")
        return _Training(way, steps, folder, None if value is None or not math.isfinite(value) else float(value))

    def tried(self, name: str, way: _Way, steps: int) -> _Training | None:
        """Return the same, or None after a warning if the training fails."""
        try:
            return self.train(name, way, steps)
        except Terminated:
            raise
        except JobFailed as error:
            log.warning("control: %s failed and is not compared: %s", way.name, error)
            return None


def _trial(trainer: _Trainer, way: _Way, steps: int) -> _Training | None:
    training = trainer.tried(f"control_trial_{way.loss}", way, steps)
    if training is not None:
        log.info("control: %s after %d steps: validation %s", way.name, steps, value_in_words(training.value))
    return training


def _value(training: _Training) -> float:
    return or_least(training.value)


def _undecided(run: Run, ways: Sequence[_Way], finished: Sequence[_Training], best: _Training | None) -> list[_Way]:
    """Return the ways that the trials leave: the best one, and those that are not shown to be worse.

    If the best one itself is not shown to be better than the untrained student, they leave all.

    :param finished: the trials that did not fail
    :param best: the best of them; None without trials
    """
    if best is None or best.value is None:  # no trial, or validation pairs that cannot rank
        return [ways[0] if best is None else best.way]
    if _is_worse(run, run.stages[-1].untrained, best.folder):
        others = [training for training in finished if training is not best]
        worse = {
            training.way
            for training in others
            if training.value is None or _is_worse(run, training.folder, best.folder)
        }
    else:  # no trial has learned anything yet, and their order says nothing
        worse = set()
    undecided = [training.way for training in finished if training.way not in worse]
    log.info("control: %s in full", ", ".join(way.in_words for way in undecided))
    return undecided


def _is_worse(run: Run, one: Path, other: Path) -> bool:
    """Tell whether the 95 % interval of a student's difference to another one is below 0; the first process decides.

    :param one: the folder of the student
    :param other: that of the other one, which can rank the validation pairs
    """
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return from_first_process(None)
    pairs = run.split.validation.labelled()
    columns = [ScoredColumns.checked(_scores(run, folder, pairs), **pairs.metric_columns) for folder in (one, other)]
    metric = primary_metric(defined_metrics(columns[1]), pairs.labels)
    if metric not in defined_metrics(columns[0]):  # constant
        return from_first_process(True)
    try:
        difference = paired_difference(metric, *columns, seed=run.recipe.seed)
    except BadInput:  # not defined on half of the resamples, such as those of two queries: nothing is shown
        return from_first_process(False)
    return from_first_process(difference.high < 0)


def _scores(run: Run, folder: Path, pairs: Pairs) -> np.ndarray:
    """Return the scores of pairs; the trainings that follow compute on as many threads as before, to the same bits."""
    import torch

    teacher, student = index_teacher(run), run.student_section
    other_side = None if teacher is None else run.teacher(teacher)
    row = BenchmarkEntry(folder.name, "control", folder, "torch", "fp32", student.max_length, other_side)
    n_threads = torch.get_num_threads()
    try:
        return score_row(run, row, pairs).scores
    finally:
        torch.set_num_threads(n_threads)  # a scorer takes benchmark.threads


def _in_full(trainer: _Trainer, ways: Sequence[_Way], steps: int, best_trial: _Training | None) -> list[_Training]:
    """Train for all steps in each way; as long as all are worse than the best trial, lower its learning rate.

    :raises JobFailed: if no training succeeds and there is no trial to compare with
    """
    if best_trial is None or best_trial.value is None:
        return [trainer.train("control", ways[0], steps)]
    rate = best_trial.way.learning_rate or trainer.learning_rate
    lower = [_Way(best_trial.way.loss, float(f"{rate / divisor:.3g}")) for divisor in _RATE_DIVISORS]
    trainings: list[_Training] = []
    for group in [list(ways), *([way] for way in lower)]:
        tried = [trainer.tried(f"control_{way.name.replace(' ', '_')}", way, steps) for way in group]
        trainings += [training for training in tried if training is not None]
        best = max(trainings, key=_value, default=None)
        if best is not None and _value(best) >= best_trial.value:
            break
        log.warning(
            "control: %s, %d steps: validation %s, after %d trial steps %.4f: the learning rate is too high for labels",
            ", ".join(way.name for way in group),
            steps,
            value_in_words(None if best is None else best.value),
            best_trial.steps,
            best_trial.value,
        )
    return trainings


def _keep(run: Run, training: _Training, inputs: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Make a training the run's control."""
    from accelerate import PartialState

    state = PartialState()
    if state.is_main_process:
        card = run.require(training.folder, "train_student")
        details = {**card.details, "inputs": inputs, "control": summary}
        with new_folder(run.control) as folder:
            shutil.copytree(training.folder, folder, dirs_exist_ok=True)
            write_card(folder, replace(card, fingerprint=content_hash(inputs), details=details))
        log.info("control: %s, validation %s", run.control, value_in_words(training.value))
    state.wait_for_everyone()


def _trials_folder(run: Run) -> Path:
    return run.work / "control_trials"


def control_evaluations(run: Run, steps: int) -> int:
    """Return how often a control of this many steps is evaluated in an epoch: not less often in all than the student."""
    histories = [card.details["history"] for card in _student_cards(run)]
    n_of_student = sum(row.get("validation") is not None for history in histories for row in history)
    n_units = len(run.split.train) / (run.recipe.data.candidates or 1)
    epochs = steps * run.student_section.training.global_batch / n_units
    return max(1, math.ceil(n_of_student / epochs))


def _changed(job: Job, steps: int, way: _Way, evaluations_per_epoch: int, **changes: Any) -> Job:
    """Return the job with exactly this number of steps, whatever its number of pairs."""
    training = job.training
    settings: dict[str, Any] = {"max_steps": steps, "epochs": float(max(steps, training.epochs)), "patience": None}
    if way.learning_rate is not None:
        settings["learning_rate"] = way.learning_rate
    if training.evaluations_per_epoch or "target" in changes:  # a trial is always evaluated
        settings["evaluations_per_epoch"] = evaluations_per_epoch
    return replace(job, training=Training(**{**training.model_dump(), **settings}), **changes)
