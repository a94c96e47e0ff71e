"""Quantization-aware fine-tuning of a student whose int8 export fails the gate.

    <run>/student ─▶ calibration sets the ranges ─▶ int8 simulated in what the export quantizes
                                                  ─▶ the float student's own results + the recipe's objectives
                                                  ─▶ <run>/recovered, ordinary float weights

It goes through the one training loop, on the student's own job: teachers' signals from the cache, batches, resumption.

The gate compares with the float student, and no objective of a recipe knows that one: what it still learns by them takes a
student away from what it was, to a better place or not. So the float student's results on the same batch teach first, as
full-precision weights teach quantized ones in LLM-QAT (Liu et al. 2023), and the teachers keep the task in view. A tiny
student of one epoch, 100 steps at 2e-4: its rank agreement went from 1.0 to 0.896 by the objectives alone, to 0.954 with
equal weights, to 0.992 with a tenth of the objectives.

What it can mend is what weights do. Planted outliers in a down-projection, ONNX, nothing in float: 1 − mean cosine from 0.0033
to 0.0005 in 200 steps at 1e-3. Where the error is the rounding of activations there is nothing to learn: three layers of
MiniLM-L6, all of them in int8, stayed at 0.0025 (0.0023 after 100 steps at 5e-5). There more of SmoothQuant's α, which a search
tries first, or a layer in float is the way.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.models.modeling import load_model, tokenizer_of, transformer_of
from distill.recipe.schema import Recover, Training
from distill.run import Run
from distill.training import losses
from distill.training.fitting import Job, built_for_training, fit
from distill.training.objectives import Step
from distill.training.trainset import Basis, Batch
from students.asymmetric import own_side_pairs
from students.export.calibration import Sample, calibration_inputs
from students.export.simulation import simulate_int8
from students.train import student_from, training_inputs, training_job

__all__ = ["RecoveryStep", "from_first_process", "recover_student"]

log = logging.getLogger(__name__)
_SEQUENCES_AT_ONCE = 64


def recover_student(run: Run) -> Path:
    """Train the student on with int8 simulated, where that is not done yet; every process of a launch calls this.

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
        # the projection was left out of the student, and a new one would pull it somewhere else
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
    """Return all that decides how the recovered student comes out."""
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
    """Return the student's own training, for some steps, without dropout, ending with its last weights.

    Which weights do best on the labels is not asked: what is wanted is the float student.
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
        step.scale_and_bias.data = torch.tensor(scale_and_bias)  # what the student has learned beside it
    return step


def _sample(run: Run, job: Job, model: Any) -> Sample:
    """Draw the inputs that the export will be calibrated on."""
    pairs, n_inputs = own_side_pairs(run, run.split.train), run.recipe.export.calibration_pairs
    return calibration_inputs(job.kind, tokenizer_of(model), job.max_length, pairs, n_inputs, run.recipe.seed)


class RecoveryStep(Step):
    """The job's objectives, less of them, and one more term, "float_student": stay where the float student is.

    Of a bi-encoder 1 − cosine of the embeddings, of a cross-encoder the squared difference of the logits.

    :param float_student: the student as it was; it is frozen here
    """

    def __init__(self, model: Any, job: Job, settings: Recover, float_student: Any) -> None:
        kinds = {name: source.kind for name, source in job.sources.items()}
        super().__init__(model, job.kind, job.objectives, teacher_kinds=kinds)
        self.settings = settings
        self.float_student = None
        if settings.match_student is not None:
            self.float_student = float_student.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "RecoveryStep":
        """Set the mode of what is trained; the float student stays without dropout."""
        super().train(mode)
        if self.float_student is not None:
            self.float_student.eval()
        return self

    def factors(self, share: float) -> dict[str, float]:
        """Return what the schedules ended with: the student has learned by them already."""
        return super().factors(1.0)

    def learns_from(self, totals: Mapping[Basis, int], factors: Mapping[str, float] | None = None) -> bool:
        """Tell whether a step has a loss: the float student's results are there in each."""
        return self.float_student is not None or super().learns_from(totals, factors)

    def _losses_at_widths(self, batch: Batch, scores: Tensor, embeddings: Tensor | None) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        if self.settings.objectives is not None:
            own = super()._losses_at_widths(batch, scores, embeddings)
            terms = {name: self.settings.objectives * loss for name, loss in own.items()}
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
            results = [self.float_student(some)[output].float() for part in batch.inputs for some in _in_parts(part)]
        return torch.cat(results)[batch.order]


def _in_parts(inputs: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Cut inputs into parts: those of a whole step may be more than fit into one pass."""
    for start in range(0, len(next(iter(inputs.values()))), _SEQUENCES_AT_ONCE):
        yield {name: value[start : start + _SEQUENCES_AT_ONCE] for name, value in inputs.items()}


def from_first_process(value: bool | None) -> bool:
    """Return what the first process says, on all of them: each calls this, the others with None."""
    from accelerate.utils import broadcast_object_list

    return bool(broadcast_object_list([value])[0])
