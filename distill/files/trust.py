"""Check model folders from other people: what their files may contain, and which other files and hosts they may name.

    files      only regular files and folders; a link leads to a file of the folder (or of the hub's cache around it)
    paths      relative, inside the folder, and not hidden
    numbers    of layers and labels are limited: loaders build an object for each before they read the weights
    modules    only those of sentence-transformers that import nothing which the folder names
    code       none: `trust_remote_code` is False for every loader, and no setting of a folder turns it on
    weights    safetensors; a pickle can run any code when it is opened

This module imports neither torch nor transformers.
"""

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from distill.errors import BadInput, loading

__all__ = [
    "ALLOWED_MODULES",
    "NO_CODE",
    "check_files",
    "check_module",
    "check_settings",
    "check_shards",
    "check_source",
    "inside",
    "load_auto",
    "read_json",
    "refuse_pickles",
    "without_booleans",
]

T = TypeVar("T")
ALLOWED_MODULES = (
    "Transformer",
    "Pooling",
    "Dense",
    "Normalize",
    "LayerNorm",
    "Dropout",
    "StaticEmbedding",
    "Router",
    "Asym",
    "WeightedLayerPooling",
    "CNN",
    "LSTM",
    "LogitScore",
)
NO_CODE: Mapping[str, Any] = {"trust_remote_code": False}
"""Options for every third-party loader that could run code from a model folder."""
_MOST_JSON_BYTES = 200_000_000  # the tokenizer.json of a large vocabulary has 40 MB
_MOST_FILES = 20_000
_NAMES_ELSEWHERE = ("tokenizer_name_or_path", "model_name_or_path", "cache_dir", "cache_folder", "subfolder", "token")
_MOST_PARTS = {"layer": 1000, "block": 1000, "group": 1000, "expert": 10_000, "labels": 1_000_000}
_SETTINGS = ("sentence_bert_config.json", "config_sentence_transformers.json")


def read_json(path: Path, kind: type[T] | None = None) -> Any:
    """Read a JSON file that may come from somebody else.

    :param kind: the type that its outermost value must have; None means an object
    :raises BadInput: if it is not a regular file, not valid JSON, too large, nested too deeply, or of another type
    """
    wanted: type = dict if kind is None else kind
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BadInput(f"{path} is no file; copy the folder again or rebuild it")
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise BadInput(f"{path} has more than {_MOST_JSON_BYTES // 10**6} MB, which no JSON file here has")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (ValueError, RecursionError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{path} is not valid JSON ({reason}); copy the folder again or rebuild it") from None
    if not isinstance(value, wanted):
        expected = "an object" if wanted is dict else "a list"
        raise BadInput(f"{path} is to hold {expected}, not {type(value).__name__}; copy the folder again or rebuild it")
    return value


def inside(folder: Path, stated: Any, where: str) -> str:
    """Return a path that a file of the folder states, after checking that it stays in the folder.

    :param where: the place of the path in the file, for messages
    :raises BadInput: if it is absolute, contains "..", is hidden (`check_files` and the revision leave that out), or is
        not a text
    """
    if not isinstance(stated, str) or "\0" in stated or "\\" in stated or len(stated) > 255:
        raise BadInput(f"{folder}: {where} is {str(stated)[:80]!r}; a path within the folder is expected")
    path = PurePosixPath(stated)
    if path.is_absolute() or ".." in path.parts or stated.startswith("~"):
        raise BadInput(f"{folder}: {where} is {stated!r}, which leads out of the folder; only paths within it are read")
    if any(part.startswith(".") for part in path.parts):
        raise BadInput(
            f"{folder}: {where} is {stated!r}, which is hidden: neither checked nor part of the revision; name it without a dot"
        )
    return stated


def check_source(name: str) -> None:
    """Check a model folder of any kind before any library opens it; a hub name is not checked here.

    :raises BadInput: naming the file and its problem
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    check_files(folder)
    if (folder / "modules.json").is_file():
        for number, module in enumerate(read_json(folder / "modules.json", list)):
            check_module(folder, module, f"modules.json: module {number}")
    elif (folder / "1_Pooling" / "config.json").is_file():  # loaders would use the transformer alone, with mean pooling
        raise BadInput(f"{folder} is not a whole model folder: modules.json is missing beside 1_Pooling; copy it again")
    check_settings(folder)


def check_files(folder: Path) -> None:
    """Check that a folder holds only regular files and folders, and no link that leads out of it or to a folder.

    :raises BadInput: naming the first entry that is something else
    """
    # in the hub's cache, a snapshot is a folder of links into blobs/, which is beside snapshots/
    root = (folder.parent.parent if folder.parent.name == "snapshots" else folder).resolve()
    for number, path in enumerate(_paths(folder)):
        if number > _MOST_FILES:
            raise BadInput(f"{folder} holds more than {_MOST_FILES} files: it is no model folder")
        try:
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise BadInput(
                    f"{path} is a link out of the folder, to {os.readlink(path)}; copy the file into its place"
                )
            if path.is_symlink() and path.is_dir():
                raise BadInput(
                    f"{path} is a link to a folder, whose files are neither checked nor part of the revision; copy it into its place"
                )
            mode = path.stat().st_mode
        except (OSError, RuntimeError) as error:  # pathlib raises a RuntimeError for links in a circle
            reason = getattr(error, "strerror", None) or error
            raise BadInput(f"{path} cannot be read ({reason}); copy the folder again or rebuild it") from None
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise BadInput(f"{path} is neither a file nor a folder (a pipe, a socket or a device); remove it")


def _paths(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".git"]
        yield from (Path(root) / name for name in (*folders, *names) if not name.startswith("."))


def check_module(folder: Path, module: Any, where: str, allowed: Sequence[str] = ALLOWED_MODULES) -> None:
    """Check an entry of modules.json.

    :param where: the entry's place, for messages
    :param allowed: names of the modules of sentence-transformers that may be run
    :raises BadInput: if it is not a valid entry, its path leads out of the folder, or its module is not allowed
    """
    if not isinstance(module, Mapping) or "path" not in module or "type" not in module:
        raise BadInput(f"{folder}/{where} is no entry with path and type; copy the folder again or rebuild it")
    inside(folder, module["path"], f"{where}: path")
    if not re.fullmatch(rf"sentence_transformers(\.[a-z_0-9]+)*\.({'|'.join(allowed)})", str(module["type"])):
        raise BadInput(
            f"{folder}/{where}: {str(module['type'])[:120]} is not run here; accepted are sentence_transformers' own "
            f"{', '.join(allowed)}"
        )
    for settings in sorted((folder / module["path"]).glob("*config.json")) if module["path"] else ():
        _check_numbers(settings, read_json(settings), "")
    config = folder / module["path"] / "config.json"
    is_dense = str(module["type"]).endswith(".Dense") and module["path"]
    if is_dense and folder.is_dir() and not config.is_file():
        raise BadInput(f"{folder} lacks {module['path']}/config.json, which {where} names; copy the folder again")
    if is_dense and config.is_file():
        activation = str(read_json(config).get("activation_function", "torch.nn.Tanh"))
        if not re.fullmatch(r"torch\.nn\.[A-Za-z_.]+", activation):
            raise BadInput(f"{config}: activation_function {activation[:120]}; one of torch.nn is expected")


def check_settings(folder: Path) -> None:
    """Check that a folder's settings make a loader run no code, load no other model and read no path outside.

    :raises BadInput: naming the file and the key
    """
    if (folder / "adapter_config.json").is_file():
        raise BadInput(
            f"{folder} holds an adapter of another model (adapter_config.json); merge it into that model first"
        )
    if (folder / "config.json").is_file():
        _check_numbers(folder / "config.json", read_json(folder / "config.json"), "")
    paths = [folder / name for name in _SETTINGS]
    for path in {*paths, *folder.glob("sentence_*_config.json")}:
        if path.is_file():
            _check_keys(path, read_json(path), "")


def _check_numbers(path: Path, value: Mapping[str, Any], place: str) -> None:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            _check_numbers(path, inner, f"{place}{key}.")
        elif isinstance(inner, int) and not str(key).endswith("_size"):
            most = next((most for part, most in _MOST_PARTS.items() if part in str(key)), None)
            if most is not None and inner > most:
                raise BadInput(f"{path}: {place}{key} is {str(inner)[:20]}; no model has more than {most:,}")


def _check_keys(path: Path, value: Any, place: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name = f"{place}.{key}" if place else str(key)
            if key == "trust_remote_code" and inner:
                raise BadInput(
                    f"{path}: {name} asks to run code of the folder's own; such code is never run here, remove the key"
                )
            lowered = str(key).lower()  # OpenVINO's options are in capitals, such as CACHE_DIR
            if lowered in _NAMES_ELSEWHERE and inner:
                raise BadInput(
                    f"{path}: {name} names something outside of the folder ({str(inner)[:80]!r}); remove the key"
                )
            if lowered.endswith(("file_name", "_file", "_path")) and inner:
                inside(path.parent, inner, f"{path.name}: {name}")
            _check_keys(path, inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check_keys(path, inner, place)


def refuse_pickles(folder: Path, wanted: Sequence[str], pickles: Sequence[str]) -> None:
    """Refuse a folder whose weights exist only as a pickle.

    :param wanted: the file names that are accepted instead of a pickle
    :param pickles: the file names of pickles
    :raises BadInput: saying how to convert the pickle to safetensors
    """
    found = next((name for name in pickles if (folder / name).is_file()), None)
    if found is not None and not any((folder / name).is_file() for name in wanted):
        raise BadInput(
            f"{folder / found} is a pickle, which can run code when it is opened; ask for safetensors, or make them where you "
            f"trust the file: transformers' save_pretrained(…, safe_serialization=True)"
        )


def check_shards(folder: Path, index: str = "model.safetensors.index.json") -> None:
    """Check that the shards which an index names are in the folder.

    :raises BadInput: if the index is invalid, a path leads out of the folder, or a shard is missing
    """
    if not (folder / index).is_file() or (folder / "model.safetensors").is_file():
        return
    shards = read_json(folder / index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise BadInput(f"{folder / index} has no weight_map; copy the folder again or rebuild it")
    for name in set(map(str, shards.values())):
        if not (folder / inside(folder, name, f"{index}: a shard")).is_file():
            raise BadInput(f"{folder} is not a whole model folder: {name} is missing; copy it again or rebuild it")


def load_auto(auto_class: Any, name: str | Path, **options: Any) -> Any:
    """Call `from_pretrained` of one of transformers' Auto classes, and never run code that comes with a model.

    :raises BadInput: if the model cannot be loaded, or only with such code
    """
    with loading(str(name)):
        return auto_class.from_pretrained(str(name), **NO_CODE, **options)


def without_booleans(values: Any) -> Any:
    """Return a list of numbers unchanged; refuse booleans, which an array would turn into 1 and 0.

    :raises TypeError: if the list contains a boolean (numpy raises the same error for a value that is not a number)
    """
    if bool in map(type, values):
        raise TypeError("booleans are no numbers")
    return values
