"""The student's scores as probabilities, and its threshold: fitted to labelled validation pairs, stored with models.

Each export has its own fit, because quantized scores differ. Nothing is trained, so a finished student is not changed.
"""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import Pairs
from distill.errors import BadInput
from distill.evaluation.benchmark import BenchmarkEntry, primary_teacher, score_row, teacher_row
from distill.files.artefact import CALIBRATION, read_card
from distill.metrics.calibration import LEAST_PAIRS, fit_calibration
from distill.metrics.operating_point import point_at, threshold_for
from distill.models.files import Precision, Runtime
from distill.models.stored_calibration import StoredCalibration, read_calibration, write_calibration
from distill.recipe.schema import OperatingPoint
from distill.run import Run
from students.asymmetric import index_teacher

__all__ = ["calibrate_export", "calibrate_router", "calibrate_student", "say_what_keeps_from_calibrating"]

log = logging.getLogger(__name__)
_FEW_FOR_STEPS = 500  # labelled pairs; with fewer, the steps of an isotonic calibration are mostly noise


def say_what_keeps_from_calibrating(run: Run) -> None:
    """Warn before training if the validation pairs cannot calibrate the student; only the main process warns."""
    from accelerate import PartialState

    problem = _problem(run)
    if PartialState().is_main_process and run.student_section.calibration.kind != "none" and problem is not None:
        log.warning("the student gets no calibration: %s", problem)


def calibrate_student(run: Run) -> None:
    """Fit and store the calibration of the finished student; only the main process does it."""
    _calibrate(run, run.student, "student", "torch")


def calibrate_export(run: Run, folder: Path, runtime: Runtime) -> None:
    """Fit and store the calibration of a finished export, on the export's own scores."""
    _calibrate(run, folder, f"student ({folder.name})", runtime)


def calibrate_router(run: Run) -> None:
    """Fit and store the calibration of an asymmetric student and its teacher as one Router, if there is one."""
    if run.student_section.asymmetric is not None and read_card(run.router) is not None:
        _calibrate(run, run.router, "router", "torch")


def _problem(run: Run) -> str | None:
    """Return why nothing can be fitted to the validation pairs; None if it can."""
    labels = run.split.validation.labelled().labels
    if labels is None or len(labels) < LEAST_PAIRS:
        n = 0 if labels is None else len(labels)
        return f"it takes {LEAST_PAIRS} labelled validation pairs, and there are {n}; raise data.validation_share"
    if np.ptp(labels) == 0:
        return f"every validation label is {labels[0]:g}, and it takes two kinds"
    return None


def _calibrate(run: Run, folder: Path, name: str, runtime: Runtime) -> None:
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    if run.student_section.calibration.kind == "none" or _problem(run) is not None:
        (folder / CALIBRATION).unlink(missing_ok=True)
        return
    fitted_to = _fitted_to(run, folder)
    with suppress(BadInput):  # an unreadable calibration is fitted again
        stored = read_calibration(folder, run.student_section.kind)
        if stored is not None and stored.fitted == fitted_to:
            return
    _fit(run, folder, name, runtime, fitted_to)


def _fitted_to(run: Run, folder: Path) -> dict[str, Any]:
    """Return everything that determines a calibration; if it is unchanged, nothing is fitted again."""
    section, validation = run.student_section.calibration, run.split.validation.labelled()
    card = read_card(folder)
    assert card is not None
    point = section.threshold
    teacher_input = {"teacher": _teacher_revision(run)} if point is not None and point.value is not None else {}
    return {
        "revision": card.revision,
        "section": section.deciding(),
        "data": validation.fingerprint(),
        "pairs": len(validation),
        **teacher_input,
    }


def _teacher_revision(run: Run) -> str:
    return run.require(run.teacher(primary_teacher(run)), "train_teacher").revision


def _fit(run: Run, folder: Path, name: str, runtime: Runtime, fitted_to: dict[str, Any]) -> None:
    section, student = run.student_section.calibration, run.student_section
    validation = run.split.validation.labelled()
    assert validation.labels is not None and section.kind != "none"
    if section.kind == "isotonic" and folder == run.student and len(validation) < _FEW_FOR_STEPS:
        log.warning(
            "an isotonic calibration follows the noise of few pairs, and there are %d labelled validation pairs: set "
            "student.calibration.kind=platt, or a larger data.validation_share",
            len(validation),
        )
    (folder / CALIBRATION).unlink(missing_ok=True)
    teacher = index_teacher(run)
    precision: Precision | None = "fp32" if runtime == "torch" else None
    other_side = None if teacher is None or folder == run.router else run.teacher(teacher)
    length = None if folder == run.router else student.max_length  # in a Router each side has its own limit
    row = BenchmarkEntry(name, "student", folder, runtime, precision, length, other_side)
    scores = score_row(run, row, validation).scores
    calibration = fit_calibration(section.kind, student.kind, scores, validation.labels)
    if calibration is None:
        log.warning(
            "%s gets no calibration: its scores do not rise with the labels of %d validation pairs",
            name,
            len(validation),
        )
        return
    threshold, point = None, dict[str, Any]()
    if section.threshold is not None:
        threshold, point = _threshold(run, name, section.threshold, scores, validation)
    write_calibration(folder, StoredCalibration(calibration, threshold, point, fitted_to))
    threshold_note = "" if threshold is None else f", threshold {threshold:.4g}"
    log.info("%s: %s calibration on %d validation pairs%s", name, section.kind, len(validation), threshold_note)


def _threshold(
    run: Run, name: str, point: OperatingPoint, scores: np.ndarray, validation: Pairs
) -> tuple[float | None, dict[str, Any]]:
    """Return the student's threshold and how it was found; None and {} if no threshold reaches the target."""
    assert validation.labels is not None
    metric, share = ("precision", point.precision) if point.precision is not None else ("recall", point.recall)
    details: dict[str, Any] = {}
    if point.value is not None:
        teacher = primary_teacher(run)
        teacher_point = point_at(
            score_row(run, teacher_row(run, teacher), validation).scores, validation.labels, point.value
        )
        metric, share = point.equal, teacher_point[("precision", "recall").index(point.equal)]
        details = {"teacher": teacher, "teacher_threshold": point.value}
        if not share:
            log.warning(
                "%s gets no threshold: no match of the validation pairs reaches %g of %s", name, point.value, teacher
            )
            return None, {}
    assert share is not None
    threshold = threshold_for(scores, validation.labels, **{metric: share})
    if threshold is None:
        log.warning("%s gets no threshold: none reaches a %s of %g on the validation pairs", name, metric, share)
        return None, {}
    precision, recall = point_at(scores, validation.labels, threshold)
    return threshold, {"by": metric, "share": share, "precision": precision, "recall": recall, **details}
