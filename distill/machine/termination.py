"""SIGTERM as a request: a scheduler sends it some seconds before it kills, time enough for a checkpoint, and to clear up.

in a training     its step ends with a checkpoint (`termination_requests`)
anywhere else     the work ends as by Ctrl-C, so that no temporary file stays beside an output (`ended_in_order`)

A closed terminal or connection sends SIGHUP, which is taken for SIGTERM where nobody (as `nohup`) has it ignored.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from distill.errors import Terminated

__all__ = ["ended_in_order", "termination_requests"]


_EXIT_CODE = 128 + signal.SIGTERM
_CLEARING_SECONDS = 8.0  # less than what docker waits before it kills


class _InOrder:
    """A handler that ends the work as Ctrl-C does. A second SIGTERM ends the process at once, and so does a long wait."""

    def __init__(self) -> None:
        self.came, self._process = False, os.getpid()
        self._limit = threading.Timer(_CLEARING_SECONDS, os._exit, [_EXIT_CODE])
        self._limit.daemon = True

    def __call__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() != self._process:  # a forked child has nothing to clear up
            signal.raise_signal(signal.SIGTERM)
        self.came = True
        self._limit.start()
        raise KeyboardInterrupt

    def done(self) -> None:
        self._limit.cancel()


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP, end the block as Ctrl-C does: what is unfinished is removed on the way out.

    A handler that somebody else has set stays, and another thread than the main one cannot set any.

    :raises Terminated: in place of whatever SIGTERM made of the block
    """
    if threading.current_thread() is not threading.main_thread() or _handler() is not signal.SIG_DFL:
        yield
        return
    handler = _InOrder()
    signal.signal(signal.SIGTERM, handler)
    hangs_up = signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    if hangs_up:
        signal.signal(signal.SIGHUP, _hang_up)
    try:
        yield
    except BaseException:
        if not handler.came:
            raise
        raise Terminated("ended by SIGTERM; nothing finished was lost: start the same command again") from None
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if hangs_up:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
        handler.done()


def _hang_up(*_: object) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal sends it, and its shell once more
    signal.raise_signal(signal.SIGTERM)


def _handler() -> Any:
    return signal.getsignal(signal.SIGTERM)


@contextmanager
def termination_requests(grace: Callable[[], float] | None = None) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGTERM came; within the block it does not end the process by itself.

    A handler that somebody else has set stays, and another thread than the main one cannot set any: then nothing is told.

    :param grace: seconds after which the process ends all the same (exit code 143): one of several processes may wait for ever
        for another that has died, which is why their launcher sent the signal. None waits without a limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = _handler()
    if before is not signal.SIG_DFL and not isinstance(before, _InOrder):
        yield lambda: False
        return
    came, limits = threading.Event(), list[threading.Timer]()

    def hear(*_: object) -> None:
        if grace is not None and not came.is_set():  # a thread: the main one may wait outside of Python
            limits.append(threading.Timer(grace(), os._exit, [_EXIT_CODE]))
            limits[0].daemon = True
            limits[0].start()
        came.set()

    signal.signal(signal.SIGTERM, hear)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
        for limit in limits:
            limit.cancel()
    if came.is_set():  # the block ended by itself, and the process is to end all the same
        signal.raise_signal(signal.SIGTERM)
