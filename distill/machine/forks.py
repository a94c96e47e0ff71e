"""Keep state usable after `os.fork`: free locks, open compiled models anew, use tokenizers without threads.

A forked child has the memory of its parent but none of its threads (gunicorn --preload, a multiprocessing pool on
Linux). There, a lock that another thread held stays locked, and a compiled model waits for threads that do not exist;
so does its destructor. A child therefore frees the locks of this module and makes each `PerProcess` value anew when it
is first needed; the parent's value is never destroyed in the child. A tokenizer cannot be opened anew, so a fork waits
until no thread is using one. The tokenizer's thread pool does not exist in the child, which tokenises in the calling
thread.
"""

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["ForkSafeLock", "PerProcess", "is_forked_since"]

Value = TypeVar("Value")
_PARALLELISM = "TOKENIZERS_PARALLELISM"


class ForkSafeLock:
    """A lock, not reentrant, that is free in a forked child even if a thread of the parent held it.

    :param fork_waits: make a fork in another thread wait until the lock is free. Use it for an object that would be
        unusable in a child if a thread was inside a call during the fork. The thread that holds the lock must not fork.
    """

    def __init__(self, *, fork_waits: bool = False) -> None:
        self._lock = threading.Lock()
        _locks.add(self)
        if fork_waits:
            _waited_for.add(self)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Wait for the lock and take it."""
        self._lock.acquire()

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def free(self) -> None:
        """Replace the lock, which a thread of the parent may hold; call it in a child that still has one thread."""
        self._lock = threading.Lock()


class PerProcess(Generic[Value]):
    """A value that is made when it is first needed, and made anew in a forked child; several threads may use it.

    It does not store the function that makes the value: a reference cycle with its owner would delay freeing both.
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._held: list[Value] = []
        _values.add(self)

    def get(self, make: Callable[[], Value]) -> Value:
        """Return the value of this process; call `make` if there is none yet."""
        with self._lock:
            if not self._held:
                self._held.append(make())
            return self._held[0]

    def abandon(self) -> bool:
        """Drop the parent's value without destroying it; return whether there was one.

        Its destructor would wait for threads that do not exist in this process.
        """
        values, self._held = self._held, []
        if values:
            never_destroy(values)
        return bool(values)


_locks: "weakref.WeakSet[ForkSafeLock]" = weakref.WeakSet()
_waited_for: "weakref.WeakSet[ForkSafeLock]" = weakref.WeakSet()
_values: "weakref.WeakSet[PerProcess[Any]]" = weakref.WeakSet()


def never_destroy(value: object) -> None:
    """Keep a value alive until the process ends, even through the interpreter's own shutdown."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _leave_at_once() -> None:
    """Make this process end without the destructors of libraries that the parent loaded: they wait for missing threads.

    ONNX Runtime 1.32 hangs in them. Python has already ended by then: its exit handlers have run and its files are
    flushed. The C library calls exit functions in reverse order of registration, with the exit code.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "on_exit"):  # glibc
        library.on_exit(library._exit, None)


def is_forked_since(pid: int) -> bool:
    """Tell whether this process is not the process `pid` itself but a forked child of it."""
    return os.getpid() != pid


class _Tokenizers:
    """Makes a fork wait for running calls of tokenizers, and switches off their thread pool in the child.

    A call of another thread would never end in the child, where the tokenizer would stay "Already borrowed". The pool
    is switched off through an environment variable, which the tokenizer reads at each call; without it, the tokenizer
    prints a warning after a fork.
    """

    def __init__(self) -> None:
        self.stated: str | None = None
        self._held: list[ForkSafeLock] = []
        self._lock = threading.Lock()  # one fork at a time: a second one would read "false" as the user's setting

    def before(self) -> None:
        self._lock.acquire()
        self._held = list(_waited_for)
        for lock in self._held:
            lock.acquire()
        self.stated = os.environ.get(_PARALLELISM)
        if "tokenizers" in sys.modules:
            os.environ[_PARALLELISM] = "false"

    def after_in_parent(self) -> None:
        if self.stated is not None:
            os.environ[_PARALLELISM] = self.stated
        elif "tokenizers" in sys.modules:
            os.environ.pop(_PARALLELISM, None)
        for lock in self._held:
            lock.release()
        self._held = []
        self._lock.release()

    def after_in_child(self) -> None:
        self._lock, self._held = threading.Lock(), []


def _after_in_child() -> None:
    _tokenizers.after_in_child()
    for lock in list(_locks):
        lock.free()
    if any([value.abandon() for value in list(_values)]):  # a list, so that any() does not stop early
        _leave_at_once()


_tokenizers = _Tokenizers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_tokenizers.before, after_in_parent=_tokenizers.after_in_parent, after_in_child=_after_in_child
    )
