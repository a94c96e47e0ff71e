"""Exports of the matched teacher in the student's runtimes, which split the speed-up "× teacher" into two causes.

    speed-up = (student's export ÷ teacher's export) · (teacher's export ÷ teacher in torch)
                the smaller model                       the runtime, which the teacher can use too

The stage export makes them (`students.export.teacher`), and they are rows of the report (role `teacher_export`). If one
cannot be made, the reason is stored in a file beside it, and the report repeats the reason.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.errors import BadInput
from distill.files.artefact import content_hash, read_card, read_json, write_json
from distill.metrics.standing import Row, first_teacher
from distill.recipe.schema import ExportFormat, ExportPrecision
from distill.run import Run

__all__ = [
    "forget_refusal",
    "keep_refusal",
    "matched_teacher",
    "measured_teachers",
    "primary_teacher",
    "refusal",
    "teacher_export_notes",
    "wanted_teacher_exports",
    "with_split",
]

_SHOWS_THE_RUNTIME: tuple[ExportPrecision, ...] = ("fp32", "bf16", "int8")


def primary_teacher(run: Run) -> str:
    """Return the teacher for retention: the main teacher of the last stage that has one, else the first teacher.

    :raises BadInput: if the recipe has no teacher
    """
    names = (stage.recipe.objectives.primary_teacher for stage in reversed(run.stages))
    found = next(filter(None, [*names, *run.recipe.teachers]), None)
    if found is None:
        raise BadInput("this recipe has no teacher to compare the student with; add one to teachers")
    return found


def measured_teachers(run: Run) -> list[str]:
    """Return the teachers that have a row in the report; the matched teacher is the first."""
    recipe = run.recipe
    trained = [name for name, teacher in recipe.teachers.items() if teacher.kind != "mlm"]
    names = trained if recipe.benchmark.teachers is None else list(recipe.benchmark.teachers)
    return sorted(names, key=lambda name: name != primary_teacher(run))


def matched_teacher(run: Run) -> str | None:
    """Return the teacher with which the report compares speed; None if there is none, or it is a black box."""
    name = next(iter(measured_teachers(run)), None)
    return None if name in run.recipe.black_boxes else name


def wanted_teacher_exports(run: Run) -> list[tuple[ExportFormat, ExportPrecision]]:
    """Return the formats and precisions of the matched teacher's exports; [] without a student or a teacher."""
    recipe = run.recipe
    if recipe.student is None or matched_teacher(run) is None:
        return []
    precisions = recipe.benchmark.teacher_exports
    if precisions is None:
        precisions = tuple(precision for precision in recipe.export.precisions if precision in _SHOWS_THE_RUNTIME)
    return [
        (format, precision)
        for format in recipe.export.formats
        for precision in precisions
        if precision in recipe.export.PRECISIONS[format]
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Exports that could not be made
# ---------------------------------------------------------------------------------------------------------------------


def _refusal_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.refused.json")


def keep_refusal(folder: Path, inputs: Mapping[str, Any], reason: str) -> None:
    """Store the reason for a missing export beside its place, so that later runs do not try the same inputs again."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_json(_refusal_file(folder), {"fingerprint": content_hash(inputs), "reason": reason})


def refusal(folder: Path, inputs: Mapping[str, Any] | None = None) -> str | None:
    """Return the stored reason why an export was not made; None if there is none.

    :param inputs: the inputs of the refused export; None accepts any inputs
    """
    path = _refusal_file(folder)
    if not path.is_file():
        return None
    try:
        stored: dict[str, Any] = read_json(path)
        same = inputs is None or stored["fingerprint"] == content_hash(inputs)
        return str(stored["reason"]) if same else None
    except (BadInput, ValueError, LookupError, TypeError):
        return None


def forget_refusal(folder: Path) -> None:
    """Remove the stored reason of an earlier attempt, because the export exists now."""
    _refusal_file(folder).unlink(missing_ok=True)


def teacher_export_notes(run: Run) -> list[str]:
    """Return notes on the exports of the matched teacher that the report lacks, with the reasons."""
    recipe, name = run.recipe, matched_teacher(run)
    if recipe.student is None or name is None or not recipe.exports:
        return []
    wanted = wanted_teacher_exports(run)
    if not wanted:
        why = (
            "benchmark.teacher_exports leaves it out"
            if recipe.benchmark.teacher_exports == ()
            else "export.precisions has none of fp32, bf16 and int8"
        )
        return [
            f"The teacher {name} was measured in torch alone ({why}): × teacher is not split into model and runtime."
        ]
    notes = []
    for format, precision in wanted:
        folder = run.teacher_export(name, precision, format)
        if read_card(folder) is not None:
            continue
        why = refusal(folder) or "the stage export of this recipe has not made it"
        notes.append(f"There is no row of the teacher {name} in {format} {precision}: {why}.")
    return notes


# ---------------------------------------------------------------------------------------------------------------------
# The two factors
# ---------------------------------------------------------------------------------------------------------------------


def with_split(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add `speedup_split` {beside, model, runtime, same} to each of the student's exports; model · runtime is its speed-up.

    `beside` is the teacher's export for the comparison: the one with the same runtime and precision (`same`), else the
    fastest with the same runtime, else the fastest of all.
    """
    teacher = first_teacher(rows)
    exports = [row for row in rows if row["role"] == "teacher_export" and row["throughput_pairs_per_s"]]
    if teacher is None or not exports or not teacher["throughput_pairs_per_s"]:
        return list(rows)
    return [_split(row, teacher, exports) if row["role"] == "export" else row for row in rows]


def _split(row: dict[str, Any], teacher: Row, exports: Sequence[Row]) -> dict[str, Any]:
    speed = row["throughput_pairs_per_s"]
    if not speed:
        return row

    def nearness(export: Row) -> tuple[bool, bool, float]:
        same_runtime = export["runtime"] == row["runtime"]
        same = same_runtime and export["precision"] == row["precision"]
        return same, same_runtime, export["throughput_pairs_per_s"]

    beside = max(exports, key=nearness)
    middle = beside["throughput_pairs_per_s"]
    split = {
        "beside": beside["name"],
        "model": speed / middle,
        "runtime": middle / teacher["throughput_pairs_per_s"],
        "same": nearness(beside)[0],
    }
    return {**row, "speedup_split": split}
