"""Enter a context of the whole process for several threads: the first one in enters it, the last one out leaves it.

Such a context changes a function, a logger's level or a thread pool, and changes it back. Two threads that overlap would
otherwise change back in the wrong order, and the second would restore what the first had changed.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from distill.machine.forks import ForkSafeLock

__all__ = ["SharedContext"]


class SharedContext:
    """A context manager that several threads may be inside of, and a thread several times.

    :param make: returns the context of the process
    """

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make, self._lock, self._n_inside = make, ForkSafeLock(), 0
        self._entered: AbstractContextManager[Any] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._entered is None:
                entered = self._make()
                entered.__enter__()
                self._entered = entered
            self._n_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0 and self._entered is not None:
                entered, self._entered = self._entered, None
                entered.__exit__(None, None, None)
