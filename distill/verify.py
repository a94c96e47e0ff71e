"""Verify a folder: check every artefact, shard and report against its hashes, its parents and the recipe.

    contents    revision = SHA-256 over the files of a model folder; the checksum in the name of a shard of signals
    inputs      fingerprint = hash of all inputs that the card states
    lineage     the stated revisions of parents, of a signals' teacher and of a calibration's model, against the folders
    recipe      the fields of the recipe that the cards state, against recipe.json

Nothing is trained or changed, and no model is loaded.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distill.errors import BadInput
from distill.files.artefact import (
    CALIBRATION,
    CARD,
    Artefact,
    check_model_folder,
    content_files,
    content_hash,
    is_temporary,
    read_card,
    revision,
)
from distill.files.trust import read_json
from distill.models.stored_calibration import read_calibration
from distill.progress import OnProgress, byte_progress
from distill.run import differences
from distill.signals import MANIFEST, Identity, SignalCache
from distill.wording import counted

__all__ = ["Verdict", "verify"]

State = Literal["ok", "note", "broken"]
_SHOWN_CHANGES = 3


@dataclass(frozen=True)
class Verdict:
    """The result of the checks of one folder or file.

    :param place: the folder or file
    :param state: ok, note (nothing is wrong, but there is something to know) or broken
    :param line: the finding in one line
    """

    place: str
    state: State
    line: str


def verify(folder: Path, *, show: bool = False) -> list[Verdict]:
    """Check a run's folder, or a single model folder, and return a verdict for each part.

    :param show: show progress if hashing takes some seconds
    :raises BadInput: if the folder is neither of the two
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; name a run's folder, such as runs/quickstart, or a model folder")
    cards = sorted(place for place in _folders(folder) if os.path.lexists(place / CARD))
    caches = sorted(path for path in folder.glob("signals/*/*") if path.is_dir())
    if not cards and not caches:
        raise BadInput(f"{folder} holds no {CARD} and no signals; name a run's folder, or a model folder made here")
    runs = sorted(path.parent.name for path in folder.glob("*/recipe.json"))
    if runs and not (folder / "recipe.json").exists():  # signals and reports of runs in subfolders would not be checked
        raise BadInput(f"{folder} holds the runs {', '.join(runs[:5])}; name one of them")
    n_bytes = sum(_size(content_files, place) for place in cards) if show else 0
    n_bytes += sum(_size(lambda cache: cache.glob("*.arrow"), cache) for cache in caches) if show else 0
    with byte_progress("verify", n_bytes) as on_bytes:
        checks = [(_place(folder, place), _artefact(folder, place, on_bytes)) for place in cards]
        checks += [(_place(folder, cache), _signals(folder, cache, on_bytes)) for cache in caches]
        checks += [
            ("report", _report(folder, cards)),
            ("recipe.json", _recipe(folder, cards)),
            (".work", _leftovers(folder)),
        ]
        return [verdict for place, check in checks for verdict in _guarded(place, check)]


def _size(files_of: Callable[[Path], Iterable[Path]], folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in files_of(folder))
    except (OSError, RuntimeError):  # reported by the check of the folder
        return 0


def _folders(root: Path) -> Iterator[Path]:
    """Yield the folder and all folders below it, except unfinished work.

    A link to a folder is yielded but not followed.
    """
    for place, names, _ in os.walk(root):
        names[:] = [name for name in names if name != ".work"]
        yield Path(place)
        yield from (Path(place) / name for name in names if (Path(place) / name).is_symlink())


def _guarded(place: str, check: Iterator[Verdict]) -> Iterator[Verdict]:
    """Yield the verdicts of a check. If it cannot read something, yield "broken" so that the other checks still run."""
    try:
        yield from check
    except (BadInput, OSError, RuntimeError) as error:  # RuntimeError: circular links
        yield Verdict(place, "broken", " ".join(str(error).split()))
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # JSON with an unexpected structure
        reason = " ".join(str(error).split())[:100]
        yield Verdict(
            place,
            "broken",
            f"its JSON is not what this toolkit writes ({reason}); restore it, or remove it and run its stage",
        )


def _place(root: Path, path: Path) -> str:
    return str(path.relative_to(root)) if path != root else str(path)


# ---------------------------------------------------------------------------------------------------------------------
# Artefacts
# ---------------------------------------------------------------------------------------------------------------------


def _artefact(root: Path, folder: Path, on_bytes: OnProgress) -> Iterator[Verdict]:
    place, card = _place(root, folder), read_card(folder)
    assert card is not None  # the caller found the card's file
    if (folder / "modules.json").exists() or card.kind in ("bi_encoder", "cross_encoder"):
        check_model_folder(folder)
    problems = [*_contents(folder, card, on_bytes), *_lineage(root, card), *_calibration(folder, card)]
    for problem in problems:
        yield Verdict(place, "broken", problem)
    if not problems:
        yield Verdict(place, "ok", f"{card.kind} of {card.stage}, revision {card.revision}")


def _contents(folder: Path, card: Artefact, on_bytes: OnProgress) -> Iterator[str]:
    current_revision = revision(folder, on_bytes)
    if current_revision != card.revision:
        yield f"its files are not those that were written (revision {card.revision}, now {current_revision}); copy it again, or remove it and run its stage"
    inputs = card.details.get("inputs")
    if inputs is not None and content_hash(inputs) != card.fingerprint:
        yield f"its card was changed: the inputs that it states do not have its fingerprint {card.fingerprint}"


def _lineage(root: Path, card: Artefact) -> Iterator[str]:
    """Compare the revisions of the parents with the folders of these names in the same run."""
    for name, stated_revision in card.parents.items():
        parent = next((path for path in _of_that_name(root, name) if path.is_dir()), None)
        parent_card = None if parent is None else _card(parent)
        if parent_card is not None and parent_card.revision != stated_revision:
            yield f"it was made from {name} at revision {stated_revision}, which is {parent_card.revision} now; run its stage again"


def _of_that_name(root: Path, name: str) -> tuple[Path, ...]:
    if ".." in Path(name).parts or Path(name).is_absolute():  # the path leaves the run's folder
        return ()
    return (root / name, root / "teachers" / name)


def _calibration(folder: Path, card: Artefact) -> Iterator[str]:
    if not (folder / CALIBRATION).exists() or card.kind not in ("bi_encoder", "cross_encoder"):
        return
    stored = read_calibration(folder, "bi_encoder" if card.kind == "bi_encoder" else "cross_encoder")
    fitted_revision = None if stored is None else stored.fitted.get("revision")
    if fitted_revision is not None and fitted_revision != card.revision:
        yield f"{CALIBRATION} was fitted on the scores of revision {fitted_revision}; run its stage again"


# ---------------------------------------------------------------------------------------------------------------------
# Signals
# ---------------------------------------------------------------------------------------------------------------------


def _signals(root: Path, folder: Path, on_bytes: OnProgress) -> Iterator[Verdict]:
    place = _place(root, folder)
    if not (folder / MANIFEST).is_file():
        yield Verdict(
            place, "note", f"{MANIFEST} is missing: labelling has not come to its end; run `distill cache-signals`"
        )
        return
    manifest = read_json(folder / MANIFEST)
    identity = _identity(folder, manifest)
    cache = SignalCache(folder.parent, identity, on_bytes)
    counts, n_bad = _read_all(cache)
    missing = {
        kind: n_stated - counts[kind] for kind, n_stated in manifest.get("items", {}).items() if n_stated > counts[kind]
    }
    for kind, n in missing.items():
        yield Verdict(
            place, "broken", f"{n:,} of {manifest['items'][kind]:,} {kind} are gone; run `distill cache-signals` again"
        )
    if n_bad:
        yield Verdict(
            place,
            "broken",
            f"{n_bad:,} values are NaN or infinite; remove the folder and run `distill cache-signals` again",
        )
    teacher = read_card(root / "teachers" / folder.parent.name)
    if not missing and not n_bad:
        summary = ", ".join(f"{n:,} {kind}" for kind, n in counts.items() if n)
        yield Verdict(place, "ok", f"{summary or 'no signals'} of revision {identity.revision}")
    unchecked = cache.unchecked()
    if unchecked:
        yield Verdict(
            place,
            "note",
            f"no checksum in the name of {counted(len(unchecked), 'shard')} (an earlier release, or renamed): its bytes are not checked",
        )
    if teacher is not None and teacher.revision != identity.revision:
        yield Verdict(place, "note", f"its teacher is at revision {teacher.revision} now: no stage reads these signals")


def _identity(folder: Path, manifest: Mapping[str, Any]) -> Identity:
    """Return the identity of the signals: their teacher and settings.

    :raises BadInput: if the manifest states no identity, or another one than the folder's name
    """
    try:
        fields = dict(manifest["identity"])
        identity = Identity(**{**fields, "prompts": tuple(fields["prompts"])})
    except (TypeError, KeyError, ValueError):
        raise BadInput(
            f"{MANIFEST} states no identity; remove the folder and run `distill cache-signals` again"
        ) from None
    if identity.key != folder.name:
        raise BadInput(
            f"{MANIFEST} states the identity {identity.key}, not that of the folder; remove it and run `distill cache-signals` again"
        )
    return identity


def _read_all(cache: SignalCache) -> tuple[dict[str, int], int]:
    """Verify the shards' checksums; return the number of items of each kind, and of values that are not finite."""
    counts, n_bad = {}, 0
    for kind in ("scores", "embeddings"):
        n = counts[kind] = cache.count(kind)
        for start in range(0, n, 8192):
            values = cache.read(kind, np.arange(start, min(n, start + 8192)))
            n_bad += int((~np.isfinite(values)).sum())
    return counts, n_bad


# ---------------------------------------------------------------------------------------------------------------------
# Report, recipe, leftovers
# ---------------------------------------------------------------------------------------------------------------------


def _report(root: Path, cards: Sequence[Path]) -> Iterator[Verdict]:
    path = root / "report" / "benchmark.json"
    if not path.is_file():
        return
    inputs = read_json(path).get("inputs")
    revisions = inputs.get("models") if isinstance(inputs, dict) else None
    present_revisions = {card.revision for folder in cards if (card := _card(folder)) is not None}
    gone = (
        [name for name, measured_revision in revisions.items() if measured_revision not in present_revisions]
        if isinstance(revisions, dict)
        else []
    )
    if gone:
        yield Verdict("report", "note", f"it measured models that do not stand here any more: {', '.join(gone)}")
    else:
        yield Verdict("report", "ok", "the models that benchmark.json measured stand here")


def _card(folder: Path) -> Artefact | None:
    try:
        return read_card(folder)
    except BadInput:  # reported by the check of the folder
        return None


def _recipe(root: Path, cards: Sequence[Path]) -> Iterator[Verdict]:
    """Yield a note for each folder that was made with other values of its fields than recipe.json has."""
    if root in cards:  # a single model folder, not a run's folder
        return
    if not os.path.lexists(root / "recipe.json"):
        yield Verdict(
            "recipe.json",
            "note",
            "it is missing: what the cards say of the recipe is not compared; the next stage that ends writes it",
        )
        return
    recipe = read_json(root / "recipe.json")
    for folder in cards:
        card = _card(folder)
        changes = [] if card is None else _changes(_place(root, folder), card, recipe)
        if changes:
            more = f" and {len(changes) - _SHOWN_CHANGES} more" if len(changes) > _SHOWN_CHANGES else ""
            shown = ", ".join(changes[:_SHOWN_CHANGES]) + more
            yield Verdict(
                _place(root, folder), "note", f"recipe.json is another now ({shown}); its stage would refuse it"
            )


def _of_stage(place: str, inputs: Mapping[str, Any], recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the recipe of the training stage that made a folder of the run; the recipe itself if it has no stages."""
    stages, student = recipe.get("stages"), recipe.get("student")
    if not isinstance(stages, dict) or not stages or not isinstance(student, dict):
        return recipe
    names, parts = list(stages), place.split("/")
    label_stages = [name for name in names if (stages[name].get("objectives") or {}).get("labels")]
    name = parts[1] if parts[0] == "stages" and len(parts) > 1 else names[0] if place == "built" else names[-1]
    name = next(reversed(label_stages), name) if inputs.get("name") == "control" else name
    if name not in stages:  # the recipe no longer has this stage
        return {**recipe, "student": None, "objectives": None}
    stage_dimensions = [
        (stages[earlier_name].get("student") or {}).get("dimensions") for earlier_name in names[: names.index(name) + 1]
    ]
    dimensions = next((width for width in reversed(stage_dimensions) if width), student.get("dimensions"))
    stage_settings = {"training": stages[name].get("training") or student.get("training"), "dimensions": dimensions}
    objectives = stages[name].get("objectives") or recipe.get("objectives")
    return {**recipe, "student": {**student, **stage_settings}, "objectives": objectives}


def _changes(place: str, card: Artefact, recipe: Mapping[str, Any]) -> list[str]:
    """Return the inputs of the folder at a place in the run that have other values in a recipe."""
    inputs = card.details.get("inputs")
    if not isinstance(inputs, dict):  # the card states no inputs to compare
        return []
    stage_recipe = _of_stage(place, inputs, recipe)
    sections = {"student": stage_recipe.get("student"), "objectives": stage_recipe.get("objectives")}
    if inputs.get("name") == "control":  # it learns the labels, whatever the recipe's objectives are
        del sections["objectives"]
    teachers = stage_recipe.get("teachers")
    sections["teacher"] = teachers.get(inputs.get("name")) if isinstance(teachers, dict) else None
    return [line for key, section in sections.items() for line in _differing(inputs.get(key), section, key)]


def _differing(inputs: Any, section: Any, place: str) -> list[str]:
    """Compare the fields that both have: a fingerprint leaves out fields without effect, and adds computed ones."""
    if not isinstance(inputs, dict) or not isinstance(section, dict):
        return []
    shared = [key for key in inputs if key in section]
    nested = [key for key in shared if isinstance(inputs[key], dict) and isinstance(section[key], dict)]
    changes = [line for key in nested for line in _differing(inputs[key], section[key], f"{place}.{key}")]
    plain = [key for key in shared if key not in nested]
    return changes + differences({key: inputs[key] for key in plain}, {key: section[key] for key in plain}, place)


def _leftovers(root: Path) -> Iterator[Verdict]:
    """Yield a note for each remainder of unfinished work: temporary files and folders, and checkpoints."""
    checkpoints = (path for path in root.glob(".work/*-*") if path.is_dir() and not path.name.startswith("graph-"))
    partial_paths = (path for place in _folders(root) for path in place.glob(".*") if is_temporary(path.name))
    for path in sorted({*partial_paths, *checkpoints}):
        files = (
            [path] if path.is_file() else [Path(place) / name for place, _, names in os.walk(path) for name in names]
        )
        size = sum(file.lstat().st_size for file in files)
        yield Verdict(_place(root, path), "note", f"left by unfinished work, {size / 1e6:.1f} MB")
