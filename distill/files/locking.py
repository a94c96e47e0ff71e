"""One process at a time in a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distill.errors import BadInput

__all__ = ["make_locked", "only_process"]


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder as long as the block runs.

    :raises BadInput: where another process is writing to it
    """
    with (folder / ".lock").open("a") as lock:
        _lock(lock.fileno(), f"another process is writing to {folder}; wait for it or name another folder")
        yield


def make_locked(folder: Path, held: str) -> int:
    """Make a folder that its last user removes, and lock it: its descriptor, which holds the lock until it is closed.

    :param held: the message where another process has locked it
    :raises BadInput: where one has
    """
    while True:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _lock(descriptor, held)
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
        except FileNotFoundError:  # the process that had it has removed it
            pass
        except BadInput:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, held: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it when the process dies
    except OSError:
        raise BadInput(held) from None
