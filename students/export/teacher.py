"""Exports of the matched teacher, so that the report compares student and teacher in the same runtime.

They are made like the student's and pass the same gate. A teacher is large and its exports only show its speed: int8 is
tried with the feed-forward down-projections in float, without a search, and with fewer texts for calibration and gate.
If an export fails, the run continues, and the report states the error.
"""

import logging
from typing import Any

from distill.data.scripts import rows_with_every_script
from distill.errors import is_full_disk
from distill.evaluation.teacher_exports import (
    forget_refusal,
    keep_refusal,
    matched_teacher,
    refusal,
    wanted_teacher_exports,
)
from distill.recipe.schema import ExportFormat, ExportPrecision
from distill.run import Run
from students.export.gate import N_OF_SCRIPT, keep_worst, thresholds_of
from students.export.stage import export_model

__all__ = ["export_teacher"]

log = logging.getLogger(__name__)
_CALIBRATION_PAIRS, _PARITY_PAIRS = 100, 200  # at most; the recipe may ask for fewer
_MOST_SHOWN = 300


def export_teacher(run: Run) -> None:
    """Export the matched teacher in each form of `benchmark.teacher_exports` that is not finished.

    If there are several processes, only the first one exports.
    """
    from accelerate import PartialState

    name = matched_teacher(run)
    if name is None or not PartialState().is_main_process:
        return
    for format, precision in wanted_teacher_exports(run):
        _export(run, name, format, precision)


def _inputs(run: Run, format: ExportFormat, precision: ExportPrecision, revision: str) -> dict[str, Any]:
    """Return everything that determines an export of a teacher."""
    settings, described = run.recipe.export, run.split.describe()
    limits = {key: value for key, value in settings.model_dump(mode="json").items() if key.startswith(("min_", "max_"))}
    return {
        "stage": "export_teacher",
        "format": format,
        "precision": precision,
        "teacher": revision,
        "export": {
            **limits,
            "smooth_quant_alpha": settings.smooth_quant_alpha,
            "calibration_pairs": min(settings.calibration_pairs, _CALIBRATION_PAIRS),
            "parity_pairs": min(settings.parity_pairs, _PARITY_PAIRS),
        },
        "seed": run.recipe.seed,
        "data": {part: described[part]["fingerprint"] for part in ("train", "validation")},
    }


def _export(run: Run, name: str, format: ExportFormat, precision: ExportPrecision) -> None:
    settings, teacher = run.recipe.export, run.require(run.teacher(name), "train_teacher")
    target, inputs = run.teacher_export(name, precision, format), _inputs(run, format, precision, teacher.revision)
    if run.is_finished(target, inputs):
        return
    reason = refusal(target, inputs)
    if reason is not None:
        log.info("%s: not made, as before: %s", target, reason)
        return
    card = run.card(teacher.kind, "export", inputs, {"teacher": teacher.revision})
    train, validation = run.split.train, run.split.validation
    held_back = list(zip(validation.queries, validation.documents, strict=True))
    rows = rows_with_every_script([" ".join(pair) for pair in held_back], inputs["export"]["parity_pairs"], N_OF_SCRIPT)
    try:
        report = export_model(
            run.teacher(name),
            target,
            format=format,
            precision=precision,
            calibration=list(zip(train.queries, train.documents, strict=True)),
            n_calibration=inputs["export"]["calibration_pairs"],
            held_back=[held_back[row] for row in rows],
            labels=None if validation.labels is None else validation.labels[rows],
            smooth_quant_alpha=settings.smooth_quant_alpha,
            thresholds=thresholds_of(settings, precision),
            seed=run.recipe.seed,
            card=card,
            may_search=False,
            overwrite=True,
        )
    except Exception as error:  # tracers and quantizers raise whatever modelling code does under them
        if isinstance(error, OSError) or is_full_disk(error):
            raise  # no fault of the teacher
        if not isinstance(error, MemoryError):  # at the next start there may be more memory
            keep_refusal(target, inputs, _in_one_line(error))
        log.warning("%s: not made; the run goes on without it: %s", target, _in_one_line(error))
        return
    forget_refusal(target)
    log.info("%s: %s", target, report.in_words)
    keep_worst(run, target, report)


def _in_one_line(error: Exception) -> str:
    """Return the error message without the table of the worst texts, which are the user's."""
    first = (str(error).splitlines() or [""])[0].strip().rstrip(".:")
    return first[:_MOST_SHOWN] or type(error).__name__
