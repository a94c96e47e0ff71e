"""Lock folders, so that only one process at a time writes to them."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from distill.errors import BadInput

__all__ = ["lock", "make_locked", "only_process", "opened_lock"]


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes while the block runs.

    :raises BadInput: if another process is writing to it
    """
    with opened_lock(folder / ".lock") as file:
        lock(file, f"another process is writing to {folder}; wait for it or name another folder")
        yield


def opened_lock(path: Path) -> TextIO:
    """Open the file of a lock for reading and writing. A link is not followed: it may lead to a file of the user's.

    :raises BadInput: if it is a link
    """
    try:
        return os.fdopen(
            os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+", errors="replace"
        )
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise BadInput(f"{path} is a link, and the file of a lock is none; remove it") from None


def lock(file: TextIO | int, held: str) -> None:
    """Lock a file or a folder until it is closed; the kernel releases it when the process dies.

    :param file: an open file, or a descriptor
    :param held: the error message if another process has locked it
    :raises BadInput: if another process has locked it, or its filesystem has no locks
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadInput(held) from None
    except OSError as error:
        raise BadInput(f"this filesystem locks no files ({error.strerror}); name a folder on another one") from None


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
            lock(descriptor, held)
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
