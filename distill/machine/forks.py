"""State that works after `os.fork`: locks are free again, compiled models are opened anew, tokenizers have no threads.

A forked child has the memory of its parent and none of its threads (gunicorn --preload, a multiprocessing pool on Linux).
A lock that another thread held stays held; a compiled model waits for threads that are gone, and so does its destructor.
So a child frees the locks of this module, and makes each `PerProcess` value anew when it is first needed; the parent's is
never destroyed there. A tokenizer cannot be opened anew, so a fork waits until no thread is inside of one; its thread pool
is gone, and a child tokenises in the calling thread.
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
    """A lock, not reentrant; free in a forked child, whichever thread of the parent held it.

    :param fork_waits: let a fork of another thread wait until the lock is free: for an object that a child would find as
        that thread left it, in the middle of a call. Whoever holds the lock must not fork.
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
        """Wait for the lock and hold it."""
        self._lock.acquire()

    def release(self) -> None:
        """Let the next one have it."""
        self._lock.release()

    def free(self) -> None:
        """Replace what a thread of the parent may hold; for a child that has one thread yet."""
        self._lock = threading.Lock()


class PerProcess(Generic[Value]):
    """A value that is made when it is first needed, and made anew in a forked child. Several threads may ask for it.

    It does not hold what makes it: an owner that makes it itself would then be freed by the collector only.
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._held: list[Value] = []
        _values.add(self)

    def get(self, make: Callable[[], Value]) -> Value:
        """Return the value of this process; `make` is called where there is none yet."""
        with self._lock:
            if not self._held:
                self._held.append(make())
            return self._held[0]

    def abandon(self) -> bool:
        """Let go of the parent's value without destroying it: its destructor would wait for threads that are not here.

        Return whether there was one.
        """
        held, self._held = self._held, []
        if held:
            never_destroy(held)
        return bool(held)


_locks: "weakref.WeakSet[ForkSafeLock]" = weakref.WeakSet()
_waited_for: "weakref.WeakSet[ForkSafeLock]" = weakref.WeakSet()
_values: "weakref.WeakSet[PerProcess[Any]]" = weakref.WeakSet()


def never_destroy(value: object) -> None:
    """Hold a value until the process is gone, through the interpreter's own end as well."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _leave_at_once() -> None:
    """Let this process end before the destructors of libraries that its parent has loaded: they wait for its threads.

    ONNX Runtime 1.32 hangs there. Python has ended by then: its own handlers have run and its files are flushed. The C
    library calls what was registered last first, with the exit code.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "on_exit"):  # glibc
        library.on_exit(library._exit, None)


def is_forked_since(pid: int) -> bool:
    """Whether this process is another than that of `pid`: a forked child of it."""
    return os.getpid() != pid


class _Tokenizers:
    """Lets a fork wait for tokenizers that are in a call, and switches their thread pool off in a child.

    Another thread's call would never end in the child, where the tokenizer would stay "Already borrowed". The pool is switched
    off without a word: the tokenizer reads the variable at each call, and after a fork it warns where it is not set.
    """

    def __init__(self) -> None:
        self.stated: str | None = None
        self._held: list[ForkSafeLock] = []
        self._lock = threading.Lock()  # one fork at a time: a second would take "false" for what the user stated

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
    if any([value.abandon() for value in list(_values)]):  # a list: each of them
        _leave_at_once()


_tokenizers = _Tokenizers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_tokenizers.before, after_in_parent=_tokenizers.after_in_parent, after_in_child=_after_in_child
    )
