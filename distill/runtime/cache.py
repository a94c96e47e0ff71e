"""A cache folder of this user: compiled graphs, and the settings that were measured to be fastest.

`$MATCHDISTILL_CACHE` names it ("off" for none), else it is `matchdistill` in the user's cache folder. It is never the
model's own folder, which may be read-only, shared by different machines, or hashed. If an entry cannot be written or
read, the program goes on without it: the cache only saves time and never changes a result.

An entry is a folder named by the hash of everything that it depends on, including a graph's content: SHA-256, 1.4 GB/s
if the CPU has instructions for it, a third of that elsewhere. It is written under a temporary name and renamed, so that
two processes that start together do not disturb each other. An entry has checksums; one that does not match them is
made again. Entries unused for a month are removed when a new one is written.
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

__all__ = ["GraphContent", "cache_folder", "cached", "file_hash", "machine_identity"]

Made = TypeVar("Made")
_UNUSED_SECONDS = 30 * 24 * 3600.0
_LEFTOVER_SECONDS = 3600.0
# the first two cap oneDNN's kernels (of torch too), the third OpenVINO's own: both, for a smaller CPU all through
_CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "OV_CPU_MAX_ISA")
_CHECKSUMS = "checksums.json"
_LARGE_MB = (
    600  # what is kept is about twice the weights; larger graphs are compiled every time, and not read for a hash
)


def cache_folder(part: str) -> Path | None:
    """Return the folder of a part of the cache, created if needed; None if there can be no cache."""
    stated = os.environ.get("MATCHDISTILL_CACHE", "")
    if stated == "off":
        return None
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = (Path(stated) if stated else home / "matchdistill") / part
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a read-only home, or a user without one
        return None
    return folder if os.access(folder, os.W_OK) else None


def machine_identity() -> list[Any]:
    """Return what affects a compiled graph or a measurement on this machine: the CPU's name and instructions."""
    name, flags = cpu_model()
    capped = {variable: os.environ[variable] for variable in _CAPS if variable in os.environ}
    return [name, sorted(flags), *([capped] if capped else [])]


def file_hash(path: Path) -> str:
    """Return 64 hex digits of SHA-256 over a file's content; an unchanged file is read once per process."""
    facts = path.stat()
    # a changed file has another ctime, which no tool can set, while a tool may restore the modification time
    return _file_hash(str(path.resolve()), facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


@lru_cache(maxsize=256)
def _file_hash(path: str, *_: int) -> str:
    return _hash(path)


def _hash(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class GraphContent:
    """The content of a graph's files when it was opened: a second compilation (in a fork) must use the same graph.

    For files of more than 600 MB only size and modification time are compared.

    :param paths: the files; missing ones are left out
    :ivar content: size and hash of each
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = [path for path in paths if path.is_file()]
        self.content = self._read()

    @property
    def is_large(self) -> bool:
        """Whether it is too large to be hashed, or to be cached in compiled form."""
        return any(size > _LARGE_MB * 1e6 for size, _ in self.content)

    def identity(self) -> list[Any]:
        """Return what identifies the graph: path, size, modification time and hash of each file."""
        facts = [(str(path.resolve()), path.stat().st_mtime_ns) for path in self._paths]
        return [[*fact, *content] for fact, content in zip(facts, self.content, strict=True)]

    def check(self) -> None:
        """Check that the files are those that were opened.

        :raises BadInput: if they were replaced or removed in the meantime
        """
        try:
            same = self._read() == self.content
        except OSError:
            same = False
        if not same:
            raise BadInput(f"{self._paths[0]} was replaced after it was loaded; load the folder again")

    def _read(self) -> list[tuple[int, str]]:
        facts = [path.stat() for path in self._paths]
        return [
            (fact.st_size, f"modified {fact.st_mtime_ns}" if fact.st_size > _LARGE_MB * 1e6 else file_hash(path))
            for path, fact in zip(self._paths, facts, strict=True)
        ]


def cached(part: str, identity: Any, make: Callable[[Path | None], Made]) -> Made:
    """Return `make(folder)` with the entry's folder, or with a new folder that becomes the entry on success.

    `make` writes its result into an empty folder, and reads it from one that is not empty. If an entry is damaged or
    cannot be used, it is made again; if that fails as well, `make(None)` works without a cache.
    """
    root = cache_folder(part)
    if root is None:
        return make(None)
    entry = root / content_hash(identity)
    if entry.is_dir():
        try:
            _check(entry)
            made = make(entry)
            os.utime(entry)
            return made
        except Exception:  # half a disk, another user's file: OpenVINO raises RuntimeError for all of these
            shutil.rmtree(entry, ignore_errors=True)
    temporary = root / f".{entry.name}.{os.getpid()}.{time.time_ns()}.tmp"
    try:
        temporary.mkdir()
        made = make(temporary)
        (temporary / _CHECKSUMS).write_text(json.dumps(_checksums(temporary)), encoding="utf-8")
    except Exception:  # a full disk is no reason to fail; a bad graph fails again, by itself
        shutil.rmtree(temporary, ignore_errors=True)
        return make(None)
    _put_in_place(temporary, entry)
    _remove_unused(root)
    return made


def _checksums(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _CHECKSUMS]
    return {path.relative_to(folder).as_posix(): _hash(path) for path in files}


def _check(entry: Path) -> None:
    """Check an entry against its checksums: the disk or another program may have changed it.

    :raises ValueError: if it has changed; callers treat OSError and JSON errors alike
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
