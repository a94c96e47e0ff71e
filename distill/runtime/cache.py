"""The user's cache folder: compiled graphs, and the settings that were measured to be fastest.

`$MATCHDISTILL_CACHE` names it ("off" disables it); otherwise it is `matchdistill` in the user's cache folder. Compiled
graphs are never in the model's own folder, which may be read-only, shared by different machines, or hashed. Measured
settings are stored beside the model, and here only if its folder is read-only (`distill.runtime.settings`). If the cache
cannot be read or written, everything works without it: a cache saves time and changes no result.

A compiled graph is an entry: a folder, named by the hash of everything that it depends on, including a graph's content (SHA-256: 1.4 GB/s
if the CPU has instructions for it, else a third of that). It is written under a temporary name and renamed: of two
processes that start together, each writes its own folder and one of them is kept. An entry contains checksums, and is
made anew if they do not match. Entries that were not used for a month are removed when a new one is written. Settings
are small files, and stay; so do embeddings that were paid for (`distill.scorers.opening`).
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from distill.errors import BadInput
from distill.files.artefact import content_hash
from distill.machine.cpu import cpu_model

__all__ = ["GraphContent", "cache_folder", "cached", "file_hash", "graph_files", "machine_identity"]

Result = TypeVar("Result")
_UNUSED_SECONDS = 30 * 24 * 3600.0
_LEFTOVER_SECONDS = 3600.0
# the first two limit oneDNN's kernels (also in torch), the third OpenVINO's own kernels
_CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "OV_CPU_MAX_ISA")
_CHECKSUMS = "checksums.json"
_LARGE_MB = 600  # larger graphs are neither hashed nor cached: an entry takes about twice the size of the weights


def cache_folder(part: str) -> Path | None:
    """Return the folder of a part of the cache, created if needed; None if there is no usable cache."""
    setting = os.environ.get("MATCHDISTILL_CACHE", "")
    if setting == "off":
        return None
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = (Path(setting) if setting else home / "matchdistill") / part
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the home is read-only, or the user has none
        return None
    return folder if os.access(folder, os.W_OK) else None


def machine_identity() -> list[Any]:
    """Return what compiled graphs and measured settings depend on: the CPU's name, flags and limits from variables."""
    name, flags = cpu_model()
    caps = {variable: os.environ[variable] for variable in _CAPS if variable in os.environ}
    return [name, sorted(flags), *([caps] if caps else [])]


def file_hash(path: Path) -> str:
    """Return 64 hex digits of SHA-256 over a file's content; a process reads an unchanged file only once."""
    status = path.stat()
    # a changed file has another ctime, which tools cannot set, unlike the time of modification
    return _file_hash(str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=256)
def _file_hash(path: str, *_: int) -> str:
    return _hash(path)


def _hash(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def graph_files(graph: Path) -> list[Path]:
    """Return the files that a graph may have: itself, and its weights in OpenVINO, or in an ONNX file of over 2 GB."""
    return [graph, graph.with_suffix(".bin"), graph.with_name(f"{graph.name}_data")]


class GraphContent:
    """The content of a graph's files when they were opened, to ensure that a later compilation uses the same graph.

    A graph is compiled again in a forked child, for example. For files of more than 600 MB, the size and the time of
    modification are compared instead of the content.

    :param paths: the files; missing ones are ignored
    :ivar content: size and hash of each file
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = [path for path in paths if path.is_file()]
        self.content = self._read()

    @property
    def is_large(self) -> bool:
        """Whether a file is too large to be hashed and cached."""
        return any(size > _LARGE_MB * 1e6 for size, _ in self.content)

    def identity(self) -> list[Any]:
        """Return what identifies the graph: path, time of modification, size and hash of each file."""
        stamps = [(str(path.resolve()), path.stat().st_mtime_ns) for path in self._paths]
        return [[*stamp, *content] for stamp, content in zip(stamps, self.content, strict=True)]

    def check(self) -> None:
        """Check that the files have not changed since they were opened.

        :raises BadInput: if they were replaced or removed
        """
        try:
            same = self._read() == self.content
        except OSError:
            same = False
        if not same:
            raise BadInput(f"{self._paths[0]} was replaced after it was loaded; load the folder again")

    def _read(self) -> list[tuple[int, str]]:
        statuses = [path.stat() for path in self._paths]
        return [
            (status.st_size, f"modified {status.st_mtime_ns}" if status.st_size > _LARGE_MB * 1e6 else file_hash(path))
            for path, status in zip(self._paths, statuses, strict=True)
        ]


def cached(part: str, identity: Any, make: Callable[[Path | None], Result]) -> Result:
    """Return `make(folder)` for the folder of an existing entry, or for a new folder that becomes the entry.

    `make` writes its result into the folder if it is empty, and reads it from the folder otherwise. A damaged or
    unusable entry is made anew. If that fails, or there is no cache, the result is `make(None)`.
    """
    root = cache_folder(part)
    if root is None:
        return make(None)
    entry = root / content_hash(identity)
    if entry.is_dir():
        try:
            _check(entry)
            result = make(entry)
            os.utime(entry)
            return result
        except Exception:  # a partial file, a file of another user: OpenVINO raises RuntimeError for all of these
            shutil.rmtree(entry, ignore_errors=True)
    temporary = root / f".{entry.name}.{os.getpid()}.{time.time_ns()}.tmp"
    try:
        temporary.mkdir()
        result = make(temporary)
        (temporary / _CHECKSUMS).write_text(json.dumps(_checksums(temporary)), encoding="utf-8")
    except Exception:  # a full disk must not fail here; a bad graph fails again in make(None)
        shutil.rmtree(temporary, ignore_errors=True)
        return make(None)
    _put_in_place(temporary, entry)
    _remove_unused(root)
    return result


def _checksums(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _CHECKSUMS]
    return {path.relative_to(folder).as_posix(): _hash(path) for path in files}


def _check(entry: Path) -> None:
    """Check that an entry still has the content that was written; a disk error or another program may have changed it.

    :raises ValueError: if it has changed; OSError and JSON errors mean the same
    """
    if json.loads((entry / _CHECKSUMS).read_text(encoding="utf-8")) != _checksums(entry):
        raise ValueError(f"{entry} is damaged")


def _put_in_place(temporary: Path, entry: Path) -> None:
    try:
        temporary.rename(entry)
    except OSError:  # another process was first
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_unused(root: Path) -> None:
    now = time.time()
    for path in root.iterdir():
        try:
            age = now - path.stat().st_mtime
        except OSError:  # removed by another process
            continue
        if age > (_LEFTOVER_SECONDS if path.name.startswith(".") else _UNUSED_SECONDS):
            shutil.rmtree(path, ignore_errors=True)
