"""One process at a time in a folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distill.errors import BadInput

__all__ = ["only_process"]


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder as long as the block runs.

    :raises BadInput: where another process is writing to it
    """
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it when the process dies
        except OSError:
            raise BadInput(f"another process is writing to {folder}; wait for it or name another folder") from None
        yield
