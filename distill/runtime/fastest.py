"""Choose the fastest export of a student on this machine: as measured by `distill tune`, else as expected of the CPU.

    load("runs/x/exports", precision="auto")          # or runs/x, or any export in it

Every finished export has passed its gate, so each may be chosen, with one exception: dynamic int8, where the result of
a text depends on the other texts in its batch. Cards, not folder names, tell which exports belong to one student. A
measurement is valid for the exports, CPU, threads and versions that it was made with; after any change, the expectation
is used again.
"""

import importlib.util
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from distill.errors import BadInput
from distill.files.artefact import Artefact, content_hash, read_card
from distill.machine.cpu import cpu_class, multiplies_bf16, multiplies_int8
from distill.models.files import ModelFiles, Runtime, read_model_files
from distill.runtime.settings import Mode, Speed, read_speeds, settings_key

__all__ = [
    "ExportFolder",
    "Found",
    "exports_at",
    "faster_float",
    "fastest_export",
    "fastest_measured",
    "measured_speeds",
    "speeds_key",
]

log = logging.getLogger(__name__)
_CLEARLY = 1.02  # speed relative to the expected export; smaller differences are noise of the measurement
_PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime", "numpy": "numpy"}
_ORDER = ("fp32", "fp16", "int8_weights", "int8", "int4_weights")  # for a CPU without instructions for 8 or 16 bits
_UNJUDGED = "int8_dynamic"


@dataclass(frozen=True)
class ExportFolder:
    """One export of a student; `precision` is that of its card, such as "int8_weights"."""

    files: ModelFiles
    runtime: Runtime
    precision: str

    @property
    def folder(self) -> Path:
        """The export's folder."""
        return self.files.folder


@dataclass(frozen=True)
class Found:
    """The exports of one student, the folder that holds them, and the exports that cannot be chosen, with reasons."""

    folder: Path
    exports: Sequence[ExportFolder]
    left_out: Sequence[str]


def exports_at(path: Path) -> Found | None:
    """Return the exports at a path: a run's folder, its folder of exports, or one export with those beside it.

    :returns: None if the path is a model folder that is not an export, or is not a folder
    :raises BadInput: if a folder is neither a model folder nor holds exports, or holds exports of several students
    """
    if (path / "modules.json").is_file() or not path.is_dir():
        card = read_card(path)
        return None if card is None or card.stage != "export" else _found(path.absolute().parent, card)
    root = path / "exports" if (path / "exports").is_dir() else path
    found = _found(root, None)
    if not found.exports:
        raise BadInput(f"{path} holds no export; name a run's folder, its folder of exports, or a model folder")
    return found


def _found(root: Path, own_card: Artefact | None) -> Found:
    exports, left_out, students = list[ExportFolder](), list[str](), dict[str, str]()
    for folder in sorted(root.iterdir()):
        try:
            card = read_card(folder) if folder.is_dir() and not folder.name.startswith(".") else None
            if card is None or card.stage != "export" or not _is_one_model(card):
                continue
            student = _student(card)
            if own_card is not None and student != _student(own_card):
                continue
            files = read_model_files(folder)
            reason = _unusable(card, files)
        except (BadInput, OSError) as error:
            left_out.append(f"{folder.name}: {' '.join(str(error).split())}")
            continue
        if reason is not None:
            left_out.append(f"{folder.name}: {reason}")
            continue
        students.setdefault(student, folder.name)
        exports.append(ExportFolder(files, card.details["format"], card.details["precision"]))
    if len(students) > 1:
        raise BadInput(f"{root} holds exports of different students ({', '.join(students.values())}); name one of them")
    return Found(root, exports, left_out)


def _is_one_model(card: Artefact) -> bool:
    """Tell whether a card describes a single graph or table; a Router of two models also has a card."""
    return card.details.get("format") in _PACKAGES and isinstance(card.details.get("precision"), str)


def _student(card: Artefact) -> str:
    return str(card.parents.get("student") or sorted(card.parents.items()))


def _unusable(card: Artefact, files: ModelFiles) -> str | None:
    if card.details["precision"] == _UNJUDGED:
        return "a text's result changes with its neighbours in the batch"
    runtime = card.details["format"]
    if runtime != "numpy" and files.graph(runtime) is None:
        return "it holds no graph"
    package = _PACKAGES[runtime]
    return None if importlib.util.find_spec(package) is not None else f"{package} is not installed"


def speeds_key(exports: Iterable[ExportFolder], n_threads: int) -> str:
    """Return the hash of everything that the speeds of these exports depend on: graphs, versions, CPU and threads."""
    keys = [
        settings_key(export.files, export.runtime, None, n_threads) for export in exports if export.runtime != "numpy"
    ]
    return content_hash(["speeds", *sorted(keys)])


def measured_speeds(found: Found, n_threads: int) -> list[Speed] | None:
    """Return the speeds that `distill tune` measured of exactly these exports on this machine; None if it has not."""
    speeds = read_speeds(found.folder, lambda: speeds_key(found.exports, n_threads)) or []
    judged_names = {speed.folder for speed in speeds if speed.judged}
    # None also if a folder was renamed, or if an export is a table of vectors, which is not measured
    return speeds if judged_names and all(export.folder.name in judged_names for export in found.exports) else None


def _speed(speed: Speed, mode: Mode | None) -> float:
    """Return the speed to compare: calls per ms, tokens per second, or (mode None) the geometric mean of both."""
    if mode is None:
        return sqrt(speed.tokens_per_s / speed.p50_ms)
    return 1 / speed.p50_ms if mode == "latency" else speed.tokens_per_s


def _expected(exports: Sequence[ExportFolder]) -> tuple[ExportFolder, str]:
    """Return the export that is expected to be fastest on this class of CPU, and the reason."""
    first = [*(["int8"] if multiplies_int8() else []), *(["bf16"] if multiplies_bf16() else [])]
    order = [*dict.fromkeys([*first, *_ORDER, "bf16"])]
    best = min(
        exports,
        key=lambda export: (
            order.index(export.precision) if export.precision in order else len(order),
            export.runtime != "openvino",
        ),
    )
    what = (
        f"{cpu_class()} multiplies {' and '.join(first)}"
        if first
        else f"{cpu_class()} multiplies neither int8 nor bf16"
    )
    return best, f"expected: {what}; not measured, see distill tune"


def fastest_measured(
    exports: Sequence[ExportFolder], speeds: Sequence[Speed], mode: Mode | None
) -> tuple[ExportFolder, str]:
    """Return the export measured as fastest, or the expected one if none is clearly faster, and the reason."""
    by_name = {speed.folder: speed for speed in speeds if speed.judged}
    expected = _expected(exports)[0]
    best = max(exports, key=lambda export: _speed(by_name[export.folder.name], mode))
    gain = _speed(by_name[best.folder.name], mode) / _speed(by_name[expected.folder.name], mode)
    best = best if gain >= _CLEARLY else expected
    best_speed = by_name[best.folder.name]
    other_speeds = [by_name[export.folder.name] for export in exports if export is not best]
    notes = [f"{speed.folder} {speed.tokens_per_s:.0f} and {speed.p50_ms:.2f} ms" for speed in other_speeds]
    return (
        best,
        f"measured: {best_speed.tokens_per_s:.0f} tokens/s, {best_speed.p50_ms:.2f} ms a call; {', '.join(notes)}",
    )


def fastest_export(
    path: Path, runtime: Runtime | None, n_threads: int, mode: Mode | None
) -> tuple[Path, Runtime | None]:
    """Return the folder to open and its runtime; log the choice and the reason.

    :param runtime: only exports for this runtime are considered; None considers all
    :raises BadInput: if the path holds no such export
    """
    found = exports_at(path)
    if found is None:
        log.info("precision auto: %s, because it is no export of a student", path)
        return path, runtime
    exports = [export for export in found.exports if runtime in (None, export.runtime)]
    if not exports and (path / "modules.json").is_file():
        log.info("precision auto: %s, the only one that can be used; left out: %s", path, "; ".join(found.left_out))
        return path, runtime
    if not exports:
        names = ", ".join(export.folder.name for export in found.exports) or "none that can be taken"
        raise BadInput(f"{path} holds no export for runtime {runtime or 'any'}; there is {names}")
    if len(exports) == 1:
        best, why = exports[0], "no other export beside it"
    else:
        speeds = measured_speeds(found, n_threads)
        best, why = _expected(exports) if speeds is None else fastest_measured(exports, speeds, mode)
    left_out = f"; left out {'; '.join(found.left_out)}" if found.left_out else ""
    log.info("precision auto: %s (%s%s)", best.folder, why, left_out)
    return best.folder, best.runtime


def faster_float(folder: Path, n_threads: int, mode: Mode | None) -> str | None:
    """Return a line that names the fp32 sibling of an int8 export if it is faster here (measured, else expected)."""
    sibling = folder.with_name(f"{folder.name.removesuffix('int8')}fp32")
    if not folder.name.endswith("-int8") or not sibling.is_dir():
        return None
    with suppress(BadInput, OSError):
        found = exports_at(folder)
        speeds = None if found is None else measured_speeds(found, n_threads)
        if found is not None and speeds is not None:
            own = next(export for export in found.exports if export.folder.name == folder.absolute().name)
            fp32 = next(
                (export for export in found.exports if (export.runtime, export.precision) == (own.runtime, "fp32")),
                None,
            )
            if fp32 is None or fastest_measured([own, fp32], speeds, mode)[0] is own:
                return None
            return f"fp32 is faster than int8 here ({fastest_measured([own, fp32], speeds, mode)[1]}); to take it, open {fp32.folder}"
    if multiplies_int8():
        return None
    return f"fp32 is likely faster than int8 on this CPU ({cpu_class()}, no VNNI or AMX; `distill tune` measures it); to take it, open {sibling}"
