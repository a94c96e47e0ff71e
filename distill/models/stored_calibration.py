"""Read and write `calibration.json` beside a model, which turns its scores into probabilities and decisions.

    {"kind": "platt", "model": "bi_encoder", "slope": 11.2, "bias": -6.1,
     "threshold": {"score": 0.58, …}, "fitted": {…}}

The file describes the model and is not part of its revision. It may come from anybody, so every number is checked.
Stock sentence-transformers ignores it. This module needs neither torch nor scikit-learn.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from distill.errors import BadInput
from distill.files.artefact import CALIBRATION, ModelKind, read_json, write_json
from distill.metrics.calibration import CALIBRATION_KINDS, Calibration

__all__ = ["StoredCalibration", "read_calibration", "required_calibration", "required_threshold", "write_calibration"]

_MOST_BYTES = 4_000_000
_MOST_STEPS = 100_000
_LARGEST = 1e12  # of a slope, a bias or a score; fitted values are far smaller


@dataclass(frozen=True)
class StoredCalibration:
    """The content of `calibration.json`.

    :param calibration: the function from scores to probabilities
    :param threshold: a pair with at least this score is a match; None if the recipe names no operating point
    :param operating_point: how the threshold was found
    :param fitted: the model and data that it was fitted to: {revision, section, data, pairs}
    """

    calibration: Calibration
    threshold: float | None = None
    operating_point: Mapping[str, Any] = field(default_factory=dict)
    fitted: Mapping[str, Any] = field(default_factory=dict)


def required_calibration(folder: Path, model_kind: ModelKind) -> StoredCalibration:
    """Read the calibration of a model folder.

    :raises BadInput: if there is none, and as `read_calibration`
    """
    stored = read_calibration(folder, model_kind)
    if stored is None:
        raise BadInput(
            f"{folder} carries no calibration, so its scores are no probabilities: it was switched off, or fewer than 50 labelled "
            "validation pairs were there to fit it (raise data.validation_share and run its recipe again); or use unit scores"
        )
    return stored


def required_threshold(folder: Path, stored: StoredCalibration) -> float:
    """Return the threshold of a model folder.

    :raises BadInput: if there is none
    """
    if stored.threshold is None:
        raise BadInput(
            f"{folder} carries no threshold; name one in the recipe (student.calibration.threshold) and run it again"
        )
    return stored.threshold


def write_calibration(folder: Path, stored: StoredCalibration) -> None:
    """Write `calibration.json` into a model folder."""
    calibration = stored.calibration
    value: dict[str, Any] = {"kind": calibration.kind, "model": calibration.model_kind}
    if calibration.kind == "isotonic":
        value |= {"scores": list(calibration.steps[0]), "probabilities": list(calibration.steps[1])}
    elif calibration.kind == "temperature":
        value |= {"temperature": 1 / calibration.slope}
    else:
        value |= {"slope": calibration.slope, "bias": calibration.bias}
    if stored.threshold is not None:
        value["threshold"] = {"score": stored.threshold, **stored.operating_point}
    write_json(folder / CALIBRATION, {**value, "fitted": dict(stored.fitted)})


def read_calibration(folder: Path, model_kind: ModelKind) -> StoredCalibration | None:
    """Read `calibration.json` of a model folder; return None if there is none.

    :raises BadInput: if the file has another form, is for another kind of model, or its numbers are not finite or do
        not give an increasing function
    """
    path = folder / CALIBRATION
    if not os.path.lexists(path):
        return None
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise _refused(path, f"it has more than {_MOST_BYTES // 10**6} MB")
    value = read_json(path)
    if value.get("kind") not in CALIBRATION_KINDS:
        raise _refused(path, f"kind {_shown(value.get('kind'))}; {', '.join(CALIBRATION_KINDS)} are known")
    if value.get("model") != model_kind:
        raise _refused(path, f"it is for the scores of a {_shown(value.get('model'))}, and this is a {model_kind}")
    threshold = value.get("threshold")
    details = ("threshold", threshold), ("fitted", value.get("fitted"))
    for name, detail in details:
        if detail is not None and not isinstance(detail, dict):
            raise _refused(path, f"{name} is {_shown(detail)}, no object")
    threshold = dict(threshold) if threshold is not None else None
    score = None if threshold is None else _number(path, "threshold.score", threshold.pop("score", None))
    return StoredCalibration(_function(path, value, model_kind), score, threshold or {}, value.get("fitted") or {})


def _function(path: Path, value: Mapping[str, Any], model_kind: ModelKind) -> Calibration:
    kind = value["kind"]
    if kind == "isotonic":
        return Calibration(kind, model_kind, steps=_steps(path, value))
    if kind == "temperature":
        return Calibration(kind, model_kind, slope=1 / _above_zero(path, "temperature", value))
    return Calibration(
        kind, model_kind, slope=_above_zero(path, "slope", value), bias=_number(path, "bias", value.get("bias"))
    )


def _steps(path: Path, value: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    columns = []
    for name in ("scores", "probabilities"):
        values = value.get(name)
        if not isinstance(values, list) or not 2 <= len(values) <= _MOST_STEPS:
            raise _refused(path, f"{name} is no list of 2 to {_MOST_STEPS:,} numbers")
        columns.append(tuple(_number(path, name, number) for number in values))
    scores, probabilities = columns
    if len(scores) != len(probabilities):
        raise _refused(path, f"{len(scores)} scores and {len(probabilities)} probabilities")
    if any(later <= earlier for earlier, later in pairwise(scores)):
        raise _refused(path, "its scores do not rise")
    if any(later < earlier for earlier, later in pairwise(probabilities)):
        raise _refused(path, "its probabilities fall as the scores rise")
    if not (0 <= probabilities[0] and probabilities[-1] <= 1):
        raise _refused(path, "its probabilities leave [0, 1]")
    return scores, probabilities


def _above_zero(path: Path, name: str, value: Mapping[str, Any]) -> float:
    number = _number(path, name, value.get(name))
    if number < 1 / _LARGEST:
        raise _refused(path, f"{name} is {number:g}; a number above 0 is expected, for probabilities rise with scores")
    return number


def _number(path: Path, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise _refused(path, f"{name} is {_shown(value)}; a finite number is expected")
    assert math.isfinite(value)
    return float(value)


def _shown(value: Any) -> str:
    return str(value)[:80] if isinstance(value, str | int | float | None) else type(value).__name__


def _refused(path: Path, why: str) -> BadInput:
    return BadInput(f"{path}: {why}; remove the file, or run the recipe's stage again, which fits it anew")
