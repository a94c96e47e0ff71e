"""Write and check model folders: plain sentence-transformers folders with `artefact.json` beside the weights.

A bi-encoder is `[Transformer, Pooling, (Dense), Normalize]`, a cross-encoder `[Transformer, Pooling, Dense…,
Dense→scores]`; stock `SentenceTransformer(path)` and `CrossEncoder(path)` load these folders. `artefact.json` records
what the weights do not contain: lineage (revisions of the parents), the resolved recipe, the data fingerprint,
versions, metrics.

A folder is written under a temporary name and then renamed, so every folder with a final name is complete.
"""

import errno
import glob
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from distill.errors import BadInput, is_full_disk, naming_full_disk
from distill.files.hashing import file_digest
from distill.files.trust import (
    check_files,
    check_module,
    check_settings,
    check_shards,
    inside,
    read_json,
    refuse_pickles,
)
from distill.progress import OnProgress

__all__ = [
    "ASYMMETRIC",
    "BOARDS",
    "CALIBRATION",
    "CARD",
    "INNER_MODEL",
    "PICKLE_FILES",
    "WEIGHT_FILES",
    "Artefact",
    "ModelKind",
    "Side",
    "check_model_folder",
    "check_named_settings",
    "check_pair_prompt",
    "check_tokenizer",
    "check_unchanged",
    "content_files",
    "content_hash",
    "is_static_module",
    "is_temporary",
    "left_by_the_dead",
    "maker",
    "new_file",
    "new_folder",
    "read_card",
    "read_json",
    "read_routes",
    "restore",
    "restore_below",
    "revision",
    "scratch_folder",
    "served_side",
    "versions",
    "write_card",
    "write_json",
    "write_text",
]

log = logging.getLogger(__name__)
ModelKind = Literal["bi_encoder", "cross_encoder"]
Side = Literal["query", "document"]
ASYMMETRIC = "asymmetric"  # key in a card's details: the side that the model serves, and the teacher of the other side
CARD = "artefact.json"
INNER_MODEL = "model"  # subfolder of a token-comparing teacher: holds its encoder
CALIBRATION = "calibration.json"  # how the model's scores become probabilities
BOARDS = "boards.json"  # the model's scores on MTEB tasks
_NOT_CONTENT = {CARD, CALIBRATION, BOARDS, "README.md"}  # these files describe the model; its revision ignores them
_MODEL_TYPES: dict[str, ModelKind] = {"SentenceTransformer": "bi_encoder", "CrossEncoder": "cross_encoder"}
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
PICKLE_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spm.model",
    "spiece.model",
    "tokenizer.model",
)
_ROUTER, _SCORER = "router_config.json", "scorer.json"
_BELOW = ("exports/*/modules.json", "student/modules.json", "*/modules.json", "teachers/*/modules.json")
_SHOWN_MODELS = 4
# process id, thread id, and the place where these mean something; "old" is a folder that is being replaced
_MADE_BY = re.compile(r"\.(\d+)(?:-\d+)?(?:-([0-9a-f]{8}))?(\.old)?\.tmp(?:\.|$)")
_LEFT_AFTER_SECONDS = 86_400  # nobody writes to a temporary name of another machine any more
_TRIES = 3
_GRAPHS = ("openvino/openvino_model.xml", "onnx/model.onnx", "openvino_model.xml", "model.onnx")


@dataclass(frozen=True)
class Artefact:
    """The content of `artefact.json`, which describes the model beside it.

    `revision` is the content hash of the folder's other files, and `files` lists their names. `settings` holds the
    hashes of the settings files (.json) among them. `fingerprint` is the hash of all inputs (recipe sections, data,
    parents): a stage is finished if its folder carries the expected fingerprint.
    """

    kind: str
    stage: str
    fingerprint: str
    revision: str = ""
    parents: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


def versions() -> dict[str, str]:
    """Return the versions of the libraries that influence what a model computes."""
    return dict(_versions())


@cache  # cached: reading the versions takes as long as writing a card, and they do not change within a process
def _versions() -> dict[str, str]:
    names = (
        "matchdistill",
        "torch",
        "transformers",
        "sentence-transformers",
        "accelerate",
        "optimum-intel",
        "openvino",
        "nncf",
    )
    found = {}
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def content_hash(value: Any) -> str:
    """Return 16 hex digits of SHA-256 over a JSON-serialisable value; the order of keys does not matter.

    >>> content_hash({"b": 1, "a": [2]}) == content_hash({"a": [2], "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def revision(folder: Path, on_bytes: OnProgress | None = None) -> str:
    """Return 16 hex digits of SHA-256 over the names and contents of a model folder's files.

    `artefact.json`, `calibration.json`, `boards.json`, `README.md` and hidden files are ignored: they describe the
    model.

    :param on_bytes: called with the number of bytes read since its last call
    """
    digest = hashlib.sha256()
    for path in content_files(folder):
        digest.update(os.fsencode(path.relative_to(folder)))
        digest.update(file_digest(path, "sha256", on_bytes).digest())
    return digest.hexdigest()[:16]


def content_files(folder: Path) -> list[Path]:
    """Return the files of a model folder that its revision covers."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in _NOT_CONTENT
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def write_json(path: Path, value: Any, *, sync: bool = False) -> None:
    """Write indented JSON; a reader never sees a partial file.

    :param sync: as in `write_text`
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", sync=sync)


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Write a text under a temporary name, then rename the file; a reader never sees a partial file.

    Line ends are written unchanged.

    :param sync: flush the file to disk before the rename, so that it survives a power failure
    """
    temporary = path.with_name(f".{path.name}.{maker()}.tmp")
    try:
        with naming_full_disk(path), temporary.open("wb") as file:
            file.write(text.encode("utf-8"))
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_card(folder: Path, artefact: Artefact) -> Artefact:
    """Write `artefact.json` into a complete model folder; fill in `revision`, `files`, `settings` and `versions`."""
    files = [str(path.relative_to(folder)) for path in content_files(folder)]
    computed: dict[str, Any] = {
        "revision": revision(folder),
        "files": files,
        "settings": {name: _settings_hash(folder / name) for name in files if name.endswith(".json")},
        "versions": versions(),
    }
    whole = Artefact(**{**asdict(artefact), **computed})
    write_json(folder / CARD, asdict(whole))
    return whole


def read_card(folder: Path) -> Artefact | None:
    """Read `artefact.json`; return None if the folder has none (a model from another source).

    :raises BadInput: if the file exists but this toolkit did not write it in this form.
    """
    path = folder / CARD
    if not os.path.lexists(path):
        return None
    mappings = ("parents", "recipe", "data", "metrics", "details", "versions", "settings")
    try:
        value = read_json(path)
        card = Artefact(**value)
        kinds: dict[str, type] = {**dict.fromkeys(mappings, dict), "files": list}
        wrong = [name for name in value if not isinstance(value[name], kinds.get(name, str))]
        if wrong:
            raise TypeError(f"{', '.join(wrong)} of another type")
        asymmetric = card.details.get(ASYMMETRIC)
        if asymmetric is not None and asymmetric["side"] not in get_args(Side):
            raise TypeError(f"side {asymmetric['side']!r} of pairs")
        return card
    except (BadInput, TypeError, LookupError) as error:
        raise BadInput(
            f"{path} is not a card of this toolkit ({error}); restore it or build the folder again"
        ) from None


def check_unchanged(folder: Path) -> None:
    """Check that a model folder still holds the files that its card describes, before other machines or tools use it.

    A folder without a card passes.

    :raises BadInput: if a file was truncated, changed, added or removed since the card was written, or the card is
        invalid
    """
    card = read_card(folder)
    if card is None or not card.revision:
        return
    now = revision(folder)
    if now != card.revision:
        raise BadInput(
            f"{folder} was changed or damaged after it was made: its files are of revision {now}, {CARD} states {card.revision}; copy it again or rebuild it, "
            f"or remove {CARD} where you changed it on purpose"
        )


@contextmanager
def new_file(target: Path, *, keep: bool = True) -> Iterator[Path]:
    """Yield a temporary file beside `target`; rename it to `target` if the block succeeds, else remove it.

    The temporary file has the suffixes of `target`, because some writers choose the format by suffix. Check a path that
    a user names with `distill.files.outputs` first. Leftovers of killed processes under the same name are removed
    first.

    :param keep: False only tests whether the file could be written
    :raises BadInput: if the parent is not a writable folder, or `target` is a folder
    """
    if not target.parent.is_dir():
        raise BadInput(f"{target.parent} is no folder; make it first, or name another output")
    if target.is_dir():
        raise BadInput(f"{target} is a folder; name a file in it")
    temporary = target.with_name(f".{maker()}.tmp.{target.name}")
    for leftover in left_by_the_dead(target.parent, f".*.tmp.{glob.escape(target.name)}"):
        with suppress(OSError):  # a leftover that cannot be removed does no harm
            leftover.unlink()
    try:
        temporary.touch()  # fail before any work if the file cannot be written
    except OSError as error:
        if is_full_disk(error):
            raise
        raise BadInput(f"{target} cannot be written: {error.strerror}") from None
    try:
        with naming_full_disk(target):
            yield temporary
        if keep:
            if target.is_file():
                temporary.chmod(target.stat().st_mode & 0o777)  # keep the permissions of the old file
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target` and rename it to `target` if the block succeeds.

    If the block fails, the temporary folder is removed and an existing `target` stays as it was. Leftovers of
    killed processes under the same name are removed first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(target.parent, target.name) as temporary:
        yield temporary
        _replace_folder(temporary, target)


@contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a temporary folder in `parent`, remove it at the end; first remove the folders of killed processes."""
    restore(parent / name)
    for leftover in left_by_the_dead(parent, f".{glob.escape(name)}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = parent / f".{name}.{maker()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with naming_full_disk(parent / name):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def maker() -> str:
    """Return the process, the thread and their place for a temporary name, so that no two writers use the same file."""
    place = _place()
    return f"{os.getpid()}-{threading.get_ident()}" + (f"-{place}" if place else "")


@cache
def _place() -> str:
    """Return eight digits for where a process id means something: this start of the machine, this container."""
    try:
        boot, container = Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {container}".encode()).hexdigest()[:8]


def is_temporary(name: str) -> bool:
    """Tell whether a name is one of the temporary names that this module uses during a write.

    >>> is_temporary(".report.4711.tmp"), is_temporary(".4711.tmp.scores.csv"), is_temporary("notes.tmp")
    (True, True, False)
    """
    return name.startswith(".") and _MADE_BY.search(name) is not None


def left_by_the_dead(folder: Path, pattern: str) -> list[Path]:
    """Return the paths that killed processes left under temporary names, which contain the process id.

    What another container or machine made, or this one before it was started again, counts once it is a day old.
    """
    matches = {path: _MADE_BY.search(path.name) for path in folder.glob(pattern)}
    return [path for path, match in matches.items() if match is not None and _is_dead(path, match[1], match[2])]


def _is_dead(path: Path, process: str, place: str | None) -> bool:
    if place in (None, _place()):
        return not Path(f"/proc/{process}").exists()
    try:
        return time.time() - path.stat().st_mtime > _LEFT_AFTER_SECONDS
    except FileNotFoundError:  # its maker is alive
        return False


def restore(target: Path) -> None:
    """Move a folder back that a killed process had moved aside to replace it; nothing is done where `target` exists.

    A replacement is two renames, and between them there is no `target`. Who replaces it right now tries again.
    """
    if os.path.lexists(target):
        return
    moved_aside = f".{glob.escape(target.name)}.*.old.tmp"
    try:
        found = [path for path in target.parent.glob(moved_aside) if _MADE_BY.search(path.name)]
        for old in sorted(found, key=lambda path: path.stat().st_ctime, reverse=True)[:1]:  # a rename sets the ctime
            old.rename(target)
            log.warning("%s: a process was killed while it replaced this folder; the earlier one is back", target)
    except OSError:  # another process was faster, or nothing may be written here
        return


def restore_below(folder: Path) -> None:
    """Do the same for all folders of a run."""
    for depth in ("", "*/", "*/*/"):
        for old in folder.glob(f"{depth}.*.old.tmp"):
            if (made := _MADE_BY.search(old.name)) is not None and made[3]:
                restore(old.with_name(old.name[1 : made.start()]))


def _replace_folder(temporary: Path, target: Path) -> None:
    """Put a folder in the place of another one, which is found at any moment: by its name, or by `restore`."""
    old = temporary.with_name(f".{target.name}.{maker()}.old.tmp")
    for tries_left in reversed(range(_TRIES)):
        if target.exists():
            target.rename(old)
        try:
            temporary.rename(target)
            break
        except OSError as error:
            with suppress(OSError):  # there was no old folder, or another process has moved it back
                old.rename(target)
            if not tries_left or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    with suppress(FileNotFoundError):
        old.rename(temporary)  # a name under which `restore` does not look: half a folder is no earlier one
        shutil.rmtree(temporary, ignore_errors=True)


def check_model_folder(folder: Path) -> ModelKind:
    """Check that a model folder is complete and refers to nothing outside itself, and return the kind of model.

    :raises BadInput: naming the file that is missing or wrong.
    """
    restore(folder)
    if not _is_folder(folder):
        what = (
            "it is a file; name a folder"
            if _is_file(folder)
            else "there is no such directory (names of the hub are for recipes)"
        )
        raise BadInput(f"{folder} is no model folder: {what}")
    if not (folder / "modules.json").is_file():
        if (folder / _SCORER).is_file():
            raise BadInput(
                f"{folder} only scores pairs ({_SCORER}): a baseline, a cascade or a teacher that compares tokens has no "
                "embeddings; name a model folder"
            )
        raise BadInput(
            f"{folder} has no modules.json: a sentence-transformers model folder is expected{_models_in(folder)}"
        )
    check_files(folder)
    config_path = folder / "config_sentence_transformers.json"
    config = read_json(config_path) if config_path.is_file() else {}
    prompts = config.get("prompts") or {}
    default_name = config.get("default_prompt_name")
    texts = [default_name, *prompts.values()] if isinstance(prompts, dict) else [0]
    if any(not isinstance(text, str | None) for text in texts):
        raise BadInput(f"{config_path}: prompts are to be texts by name; copy the folder again or rebuild it")
    kind = _MODEL_TYPES.get(str(config.get("model_type")), "bi_encoder")
    modules = _read_modules(folder)
    # the template of a generative reranker includes the prompt
    if kind == "cross_encoder" and not any(module["type"].endswith(".LogitScore") for module in modules):
        check_pair_prompt(str(folder), prompts, default_name)
    routes = read_routes(folder)
    for chain in [modules] if routes is None else routes.values():
        _check_modules(folder, chain)
    check_named_settings(folder)
    return kind


def check_pair_prompt(name: str, prompts: Mapping[str, str | None], default_name: str | None) -> None:
    """Refuse a cross-encoder that puts a prompt before every pair, because nothing here does.

    :raises BadInput: naming the model and the prompt
    """
    if prompt := prompts.get(default_name or ""):
        raise BadInput(
            f"{name} puts the prompt {prompt!r} before every pair, which no cross-encoder here does; remove its "
            "default_prompt_name, or name another model"
        )


def _is_folder(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:  # a name that is too long
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _models_in(folder: Path) -> str:
    """Name the model folders below a folder that is not one itself, such as a run; a student's exports come first."""
    found = (path.parent.relative_to(folder) for pattern in _BELOW for path in sorted(folder.glob(pattern)))
    models = [place for place in dict.fromkeys(found) if not place.name.startswith(".")]
    if not models:
        return ""
    listing = ", ".join(map(str, models[:_SHOWN_MODELS])) + (
        f" and {len(models) - _SHOWN_MODELS} more" if len(models) > _SHOWN_MODELS else ""
    )
    has_exports = folder.name == "exports" or any(place.parts[0] == "exports" for place in models)
    fastest = (
        "; distill score and embed, and load in Python, also open the fastest one here by precision auto"
        if has_exports
        else ""
    )
    return f"; in it are {listing}: name one of them{fastest}"


def _read_modules(folder: Path) -> list[dict[str, str]]:
    modules: list[dict[str, str]] = read_json(folder / "modules.json", list)
    if not modules:
        raise BadInput(f"{folder}/modules.json lists no module; copy the folder again or rebuild it")
    for number, module in enumerate(modules):
        check_module(folder, module, f"modules.json: module {number}")
    return modules


def served_side(folder: Path) -> Side | None:
    """Return the side of pairs that a model was trained to serve alone; None if it serves both.

    A Router serves both sides, even if its card names the side of the small model.
    """
    card = read_card(folder)
    asymmetric = None if card is None else card.details.get(ASYMMETRIC)
    return None if asymmetric is None or read_routes(folder) is not None else asymmetric["side"]


def read_routes(folder: Path) -> dict[str, list[dict[str, str]]] | None:
    """Return the modules of each side of a sentence-transformers Router, as in modules.json; None for other models.

    :raises BadInput: if the sides are not query and document
    """
    first, *rest = _read_modules(folder)
    if not first["type"].endswith(".Router"):
        return None
    _require(folder, f"{_below(first['path'])}{_ROUTER}")
    path = folder / first["path"] / _ROUTER
    router = read_json(path)
    try:
        routes = {
            route: [{"path": f"{_below(first['path'])}{name}", "type": router["types"][name]} for name in names] + rest
            for route, names in router["structure"].items()
        }
    except (KeyError, TypeError, AttributeError):
        raise BadInput(f"{path} does not name the modules of each side; copy the folder again or rebuild it") from None
    for route, chain in routes.items():
        if len(chain) == len(rest):
            raise BadInput(f"{path} names no module for {str(route)[:80]}; copy the folder again or rebuild it")
        for number, module in enumerate(chain):
            check_module(folder, module, f"{_ROUTER}: {route}: module {number}")
    if set(routes) != {"query", "document"}:
        raise BadInput(f"{folder} routes {', '.join(routes)}; a Router of query and document is expected")
    return routes


def _below(path: str) -> str:
    return f"{path}/" if path else ""


def _check_modules(folder: Path, modules: Sequence[Mapping[str, str]]) -> None:
    base = _below(modules[0]["path"])
    check_settings(folder / modules[0]["path"])
    check_shards(folder / modules[0]["path"])
    refuse_pickles(folder / modules[0]["path"], (*WEIGHT_FILES, *_GRAPHS), PICKLE_FILES)
    if is_static_module(modules[0]):  # a table of vectors and its tokenizer; there is no config.json
        _require(folder, f"{base}tokenizer.json")
        _require(folder, f"{base}model.safetensors")
    else:
        _require(folder, f"{base}config.json")
        _require(folder, *(f"{base}{name}" for name in _TOKENIZERS))
        _require(folder, *(f"{base}{name}" for name in (*WEIGHT_FILES, *_GRAPHS)))
    for module in modules:
        if module["path"] and not module["type"].endswith(("Normalize", "StaticEmbedding")):
            _require(folder, f"{module['path']}/config.json")
        if module["type"].endswith("Dense"):
            refuse_pickles(folder / module["path"], WEIGHT_FILES, PICKLE_FILES)
            _require(folder, *(f"{module['path']}/{name}" for name in WEIGHT_FILES))


def check_named_settings(folder: Path) -> None:
    """Check that the settings files named in the card exist: without one, a loader would use defaults.

    Settings that changed since the card was written cause a warning only, because the change may be deliberate.

    :raises BadInput: naming the first missing file
    """
    card = read_card(folder)
    if card is None:
        return
    for name in card.files:
        if str(name).endswith(".json"):
            _require(folder, inside(folder, name, f"{CARD}: a file"))
    paths = {name: folder / inside(folder, name, f"{CARD}: a file") for name in card.settings}
    hashes = {name: _settings_hash(path) for name, path in paths.items() if path.is_file()}
    changed = {name: now for name, now in hashes.items() if now != card.settings[name]}
    if changed:
        _warn_of_changed(folder, *changed.items())


@cache
def _warn_of_changed(folder: Path, *changed: tuple[str, str]) -> None:
    """Warn of changed settings, once in a process, because a command opens a folder several times.

    :param changed: the name and present hash of each file
    """
    log.warning(
        "%s: %s changed since the folder was made; its results may differ (distill verify %s)",
        folder,
        ", ".join(name for name, _ in changed),
        folder,
    )


def _settings_hash(path: Path) -> str:
    return str(file_digest(path, "sha256").hexdigest()[:16])


def check_tokenizer(folder: Path) -> None:
    """Check that a folder has a tokenizer: transformers would otherwise build an empty one that knows no word.

    :raises BadInput: if it has none
    """
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise BadInput(f"{folder} has no tokenizer ({', '.join(_TOKENIZERS[:3])} …); copy the folder again, all of it")


def is_static_module(module: Mapping[str, Any]) -> bool:
    """Tell whether an entry of modules.json is a table of token vectors."""
    return str(module["type"]).endswith(".StaticEmbedding")


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file()


def _require(folder: Path, *alternatives: str) -> None:
    if not any(_has(folder, name) for name in alternatives):
        raise BadInput(
            f"{folder} is not a whole model folder: {_one_of(alternatives)} is missing; copy it again or rebuild it"
        )


def _one_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"any of {', '.join(names)}"
