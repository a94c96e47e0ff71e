"""A cache folder of this user: compiled graphs, and the settings that were measured to be fastest.

`$MATCHDISTILL_CACHE` names it ("off" for none), else it is `matchdistill` in the user's cache folder. Never the model's
own folder: it may be read-only, shared by unlike machines, or hashed. Whatever cannot be written or read is done
without: a cache saves time and decides nothing.

An entry is a folder named by the hash of all that it depends on, written under a temporary name and renamed, so that
two processes that start together each write their own and one of them wins. Entries unused for a month are removed when
a new one is written.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from distill.artefact import content_hash
from distill.machine import cpu_model

__all__ = ["cache_folder", "cached", "file_identity", "machine_identity"]

Made = TypeVar("Made")
_UNUSED_SECONDS = 30 * 24 * 3600.0
_LEFTOVER_SECONDS = 3600.0


def cache_folder(part: str) -> Path | None:
    """Return a part of the cache, made if need be; None where there is none to be had."""
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
    """Return what a compiled graph or a measured setting depends on: the CPU by name and by what it can do."""
    name, flags = cpu_model()
    return [name, sorted(flags)]


def file_identity(path: Path) -> list[Any]:
    """Return what tells one version of a file from another without reading it."""
    facts = path.stat()
    return [str(path.resolve()), facts.st_size, facts.st_mtime_ns]


def cached(part: str, identity: Any, make: Callable[[Path | None], Made]) -> Made:
    """Return `make(folder)` with the entry's folder, or with a new one that becomes the entry when it went well.

    `make` writes what it makes into an empty folder, and reads it where the folder is not empty. Where an entry does
    not serve it is made anew, and without a cache in the end: `make(None)`.
    """
    root = cache_folder(part)
    if root is None:
        return make(None)
    entry = root / content_hash(identity)
    if entry.is_dir():
        try:
            made = make(entry)
            os.utime(entry)
            return made
        except Exception:  # half a disk, another user's file: OpenVINO raises RuntimeError for all of these
            shutil.rmtree(entry, ignore_errors=True)
    temporary = root / f".{entry.name}.{os.getpid()}.{time.time_ns()}.tmp"
    try:
        temporary.mkdir()
        made = make(temporary)
    except Exception:  # a full disk is no reason to fail; a bad graph fails again, by itself
        shutil.rmtree(temporary, ignore_errors=True)
        return make(None)
    _put_in_place(temporary, entry)
    _remove_unused(root)
    return made


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
