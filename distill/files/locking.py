"""Lock folders, so that only one process at a time writes to them."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distill.errors import BadInput

__all__ = ["make_locked", "only_process"]


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes while the block runs.

    :raises BadInput: if another process is writing to it
    """
    with (folder / ".lock").open("a") as lock:
        _lock(lock.fileno(), f"another process is writing to {folder}; wait for it or name another folder")
        yield


def make_locked(folder: Path, held: str) -> int:
    """Create and lock a folder that its last user removes; return its descriptor, which holds the lock until closed.

    :param held: the error message if another process has locked the folder
    :raises BadInput: if another process has locked it
    """
    while True:
        try:
            folder.mkdir(exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except (FileExistsError, FileNotFoundError):  # its last user removed it between two of these calls
            if not _may_be_made(folder):
                raise
            continue
        try:
            _lock(descriptor, held)
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
        except FileNotFoundError:  # the previous owner has removed the folder
            pass
        except BadInput:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _may_be_made(folder: Path) -> bool:
    """Return whether a path is a folder, or nothing is there but its parent."""
    try:
        return stat.S_ISDIR(folder.lstat().st_mode)
    except FileNotFoundError:
        return folder.parent.is_dir()


def _lock(descriptor: int, held: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel releases it when the process dies
    except OSError:
        raise BadInput(held) from None
