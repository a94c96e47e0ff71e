"""Quantization-aware fine-tuning of a student whose int8 export fails the gate.

    <run>/student ─▶ calibration sets the ranges ─▶ int8 simulated in what the export quantizes
                                                  ─▶ the float student's own results + the recipe's objectives
                                                  ─▶ <run>/recovered, ordinary float weights

It uses the training loop with the student's own job: teachers' signals from the cache, batches, resumption.

The gate compares with the float student, which no objective of a recipe contains: training by the objectives moves the
student away from it. So the main loss is the distance to the float student's outputs on the same batch, as
full-precision weights teach quantized ones in LLM-QAT (Liu et al. 2023); the objectives get a small weight. For a tiny
student of one epoch, after 100 steps at 2e-4, the rank agreement fell from 1.0 to 0.896 with the objectives alone, to
0.954 with equal weights, and to 0.992 with a tenth of the objectives.

Recovery can repair errors that come from weights rounded to the nearest step, and its weights are exported so. With
planted outliers in a down-projection (ONNX, nothing in float), 1 − mean cosine fell from 0.0033 to 0.0005 in 200 steps at
1e-3. The rounding of every other export (`students.export.rounding`) repairs more without a training: in the tests'
example 0.0119 becomes 0.0021 by 30 steps of recovery, and 0.0004 by rounding. If the error is the rounding of activations, there is
nothing to learn: three layers of MiniLM-L6, all in int8, stayed at 0.0025 (0.0023 after 100 steps at 5e-5). Then a
higher α of SmoothQuant, which the search tries first, or a layer in float helps.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill._moved import moved_names
from distill.models.modeling import load_model, tokenizer_of, transformer_of
from distill.recipe.schema import Recover, Training
from distill.run import Run
from distill.training import losses
from distill.training.fitting import Job, built_for_training, fit, set_embedding_targets
from distill.training.objectives import Step
from distill.training.trainset import Basis, Batch
from students.asymmetric import own_side_pairs
from students.export.calibration import Sample, as_read, calibration_inputs
from students.export.simulation import simulate_int8
from students.train import student_from, training_inputs, training_job

__all__ = ["RecoveryStep", "recover_student"]

__getattr__ = moved_names(__name__)

log = logging.getLogger(__name__)
_SEQUENCES_AT_ONCE = 64


def recover_student(run: Run) -> Path:
    """Fine-tune the student with simulated int8, unless that is done; every process of a launch calls this.

    :returns: the folder of the recovered student
    """
    settings, student = run.recipe.export.recover, run.student_section
    assert settings is not None
    card = run.require(run.student, "train_student")
    inputs = _inputs(run, card.revision)
    if run.is_finished(run.recovered, inputs):
        return run.recovered
    job = training_job(run, "student", run.recipe.objectives, inputs)
    if job.projected_width is not None:
        # the projection is not part of the student, and a new one would pull the student away
        job = replace(job, objectives=job.objectives.model_copy(update={"embedding_match": None}), projected_width=None)
    if job.live:
        log.info("recovered: hidden_match and relation_match are left out, no live teacher reads the batches")
        without = {"hidden_match": None, "relation_match": None}
        job = replace(job, objectives=job.objectives.model_copy(update=without), live={})
    job = replace(
        job,
        name="recovered",
        stage="recover_student",
        target=run.recovered,
        build_model=partial(student_from, run, run.student),
        training=_training(student.training, settings),
        inputs=inputs,
    )
    fit(run, job, build_step=partial(_build_step, run, settings, card.details.get("scale_and_bias")))
    return run.recovered


def _inputs(run: Run, student_revision: str) -> dict[str, Any]:
    """Return everything that determines the recovered student."""
    export = run.recipe.export
    return {
        **training_inputs(run, "student", run.recipe.objectives),
        "stage": "recover_student",
        "name": "recovered",
        "parents": {"student": student_revision},
        "export": export.model_dump(
            mode="json", include={"recover", "calibration_pairs", "smooth_quant_alpha", "keep_float"}
        ),
    }


def _training(training: Training, settings: Recover) -> Training:
    """Return the student's own training settings, for some steps, without dropout, keeping the last weights.

    The weights are not chosen by the labels, because the target is the float student.
    """
    changes = {
        "max_steps": settings.steps,
        "epochs": float(settings.steps),
        "learning_rate": settings.learning_rate,
        "dropout": 0.0,
        "evaluations_per_epoch": 0,
        "patience": None,
    }
    return training.model_copy(update=changes)


def _build_step(run: Run, settings: Recover, scale_and_bias: list[float] | None, job: Job) -> Step:
    export, model = run.recipe.export, built_for_training(job)
    simulate_int8(
        transformer_of(model), _sample(run, job, model), keep_float=export.keep_float, alpha=export.smooth_quant_alpha
    )
    step = RecoveryStep(model, job, settings, load_model(run.student))
    if step.scale_and_bias is not None and scale_and_bias is not None:
        step.scale_and_bias.data = torch.tensor(scale_and_bias)  # learned beside the student
    return step


def _sample(run: Run, job: Job, model: Any) -> Sample:
    """Draw the inputs with which the export will be calibrated."""
    pairs = as_read(job.kind, run.student, own_side_pairs(run, run.split.train))
    n_inputs = run.recipe.export.calibration_pairs
    return calibration_inputs(job.kind, tokenizer_of(model), job.max_length, pairs, n_inputs, run.recipe.seed)


class RecoveryStep(Step):
    """The job's objectives with a lower weight, and the term "float_student": the distance to the float student.

    For a bi-encoder it is 1 − cosine of the embeddings, for a cross-encoder the squared difference of the logits.

    :param float_student: the student before recovery; it is frozen here
    """

    def __init__(self, model: Any, job: Job, settings: Recover, float_student: Any) -> None:
        kinds = {name: source.kind for name, source in job.sources.items()}
        super().__init__(model, job.kind, job.objectives, teacher_kinds=kinds)
        set_embedding_targets(self, job)
        self.settings = settings
        self.float_student = None
        if settings.match_student is not None:
            self.float_student = float_student.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "RecoveryStep":
        """Set the mode of the trained student; the float student stays without dropout."""
        super().train(mode)
        if self.float_student is not None:
            self.float_student.eval()
        return self

    def factors(self, share: float) -> dict[str, float]:
        """Return the schedules' final factors, because the student has already been trained by the schedules."""
        return super().factors(1.0)

    def learns_from(self, totals: Mapping[Basis, int], factors: Mapping[str, float] | None = None) -> bool:
        """Tell whether a step has a loss: always, because of the float student's outputs."""
        return self.float_student is not None or super().learns_from(totals, factors)

    def _losses_at_widths(self, batch: Batch, scores: Tensor, embeddings: Tensor | None) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        if self.settings.objectives is not None:
            own_losses = super()._losses_at_widths(batch, scores, embeddings)
            terms = {name: self.settings.objectives * loss for name, loss in own_losses.items()}
        if self.settings.match_student is None:
            return terms
        if embeddings is None:
            loss = losses.mse(scores, self._float_results(batch, "scores").squeeze(-1))
        else:
            loss = losses.embedding_cosine(embeddings, self._float_results(batch, "sentence_embedding"))
        share = batch.share["pairs" if embeddings is None else "texts"]
        return {**terms, "float_student": self.settings.match_student * share * loss}

    def _float_results(self, batch: Batch, output: str) -> Tensor:
        assert self.float_student is not None
        with torch.no_grad():
            results = [
                self.float_student(features)[output].float() for part in batch.inputs for features in _in_parts(part)
            ]
        return torch.cat(results)[batch.order]


def _in_parts(inputs: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Cut inputs into parts, because a whole step may be too large for one pass."""
    for start in range(0, len(next(iter(inputs.values()))), _SEQUENCES_AT_ONCE):
        yield {name: value[start : start + _SEQUENCES_AT_ONCE] for name, value in inputs.items()}
