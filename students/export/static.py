"""The int8 export of a static student: each token's vector in one byte a number, with a scale of its own.

A static student needs no graph: its folder is what runs, in numpy. Its export is the same folder with a table a quarter of
the size, in the form of model2vec (`embeddings` and `weights`), which stock `SentenceTransformer(path)` loads as well.
"""

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import Pairs, pairs_of
from distill.errors import BadInput
from distill.files.artefact import CARD, Artefact, write_card
from distill.files.outputs import output_folder
from distill.run import Run
from distill.runtime.opening import load
from distill.runtime.scorer import Scorer
from students.asymmetric import Compatibility, check_side, pair_details
from students.calibrate import calibrate_export
from students.export.gate import (
    ParityReport,
    TextPairs,
    Thresholds,
    check_gate,
    compare,
    held_back_pairs,
    keep_worst,
    thresholds_of,
)

__all__ = ["export_static_student", "export_table", "int8_rows"]

log = logging.getLogger(__name__)
_WEIGHTS = "model.safetensors"
_NOT_COPIED = (CARD, "README.md", _WEIGHTS)


def export_static_student(run: Run) -> None:
    """Write the int8 table of a run's static student where the recipe asks for int8; fp32 is the student itself.

    Other students are for `students.export.stage`.

    :raises GateFailed: where it is too far from the student's
    """
    from accelerate import PartialState

    settings = run.recipe.export
    target, asymmetric = run.export("int8", "numpy"), run.student_section.asymmetric
    if ("numpy", "int8") not in run.recipe.exports or not PartialState().is_main_process:
        return
    student = run.require(run.student, "train_student")
    inputs = {
        "stage": "export",
        "precision": "int8",
        "student": student.revision,
        "export": settings.model_dump(mode="json", exclude={"precisions"}),
        **({} if asymmetric is None else {"asymmetric": asymmetric.model_dump(mode="json")}),
    }
    if not run.is_finished(target, inputs):
        _export(run, target, inputs)
    calibrate_export(run, target, "numpy")


def _export(run: Run, target: Path, inputs: dict[str, Any]) -> None:
    settings, student = run.recipe.export, run.require(run.student, "train_student")
    card = run.card(student.kind, "export", inputs, {"student": student.revision}, pair_details(run))
    held_back = held_back_pairs(run)
    check = None if run.student_section.asymmetric is None else partial(check_side, run)
    report = export_table(run.student, target, held_back, thresholds_of(settings, "int8"), card, check)
    log.info("%s: least cosine %.5f, %s", target, report.min_cosine, report.in_words)
    keep_worst(run, target, report)


def export_table(
    source: Path,
    target: Path,
    held_back: Pairs | TextPairs,
    thresholds: Thresholds,
    card: Artefact,
    check: Callable[[Scorer], Compatibility] | None = None,
) -> ParityReport:
    """Write `target`: the static model `source` with its table in int8, checked on held-back pairs; an earlier export there is replaced.

    :param held_back: with labels, the metric on them is part of the gate
    :param check: what else has to hold, of a student that serves one side beside its teacher
    :raises BadInput: where there are no pairs to check it on, and for a target that holds something else
    :raises GateFailed: where it is too far; nothing is put in place then
    """
    from safetensors.numpy import load_file, save_file

    held_back = held_back if isinstance(held_back, Pairs) else pairs_of(held_back)
    if len(held_back) < 2:
        raise BadInput(f"{len(held_back)} held-back pairs; at least 2 (better 200) are needed to check the export")
    codes, scales = int8_rows(load_file(source / _WEIGHTS)["embedding.weight"])
    with output_folder(target, inputs=[source], ours=[CARD], overwrite=True) as folder:
        for path in sorted(source.iterdir()):
            if path.is_dir():
                shutil.copytree(path, folder / path.name)
            elif path.name not in _NOT_COPIED and not path.name.startswith("."):
                shutil.copyfile(path, folder / path.name)
        save_file({"embeddings": codes, "weights": scales}, folder / _WEIGHTS)
        reference, exported = load(source), load(folder)
        reference.side = exported.side = None  # of an asymmetric student, pairs of its own side's texts are compared
        texts = list(zip(held_back.queries, held_back.documents, strict=True))
        report = compare(reference, exported, texts, held_back.labels)
        check_gate(report, thresholds, source, "int8")
        details: dict[str, Any] = {
            "precision": "int8",
            "format": "numpy",
            "runs_in": "int8",
            "parity": report.numbers,
            "thresholds": asdict(thresholds),
        }
        if check is not None:
            details["compatibility"] = asdict(check(exported))
        write_card(folder, replace(card, details={**card.details, **details}))
    return report


def int8_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each row in signed bytes, and a scale for each row: row ≈ scale · codes, off by half a scale at most.

    *Shape:* table: (n_rows, width) → codes: (n_rows, width) int8, scales: (n_rows,) float32

    >>> codes, scales = int8_rows(np.array([[0.5, -0.25], [0.0, 0.0]], dtype=np.float32))
    >>> codes.tolist(), scales.round(5).tolist()
    ([[127, -64], [0, 0]], [0.00394, 0.0])
    """
    scales = np.abs(table).max(axis=1) / np.float32(127)
    codes = np.rint(table / np.maximum(scales, np.float32(1e-30))[:, None]).astype(np.int8)
    return codes, scales.astype(np.float32)
