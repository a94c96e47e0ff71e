"""Handle SIGTERM as a request to stop: a scheduler sends it some seconds before it kills the process.

    in training       the current step ends with a checkpoint (`termination_requests`)
    anywhere else     the work ends as by Ctrl-C, so that no temporary file stays beside an output (`ended_in_order`)

A closed terminal or connection sends SIGHUP, which is treated as SIGTERM unless it is ignored (as by `nohup`).
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
_CLEARING_SECONDS = 8.0  # less than docker waits before it kills


class _InOrder:
    """A handler that ends the work as Ctrl-C does; a second SIGTERM, or 8 seconds, end the process at once."""

    def __init__(self) -> None:
        self.came, self._process = False, os.getpid()
        self._limit = threading.Timer(_CLEARING_SECONDS, os._exit, [_EXIT_CODE])
        self._limit.daemon = True

    def __call__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() != self._process:  # a forked child has nothing to clean up
            signal.raise_signal(signal.SIGTERM)
        self.came = True
        self._limit.start()
        raise KeyboardInterrupt

    def done(self) -> None:
        self._limit.cancel()


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the block as Ctrl-C does, so that unfinished files are removed.

    If another handler is already set, or this is not the main thread, nothing changes.

    :raises Terminated: if SIGTERM came and the block raised, instead of the error of the block
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
        raise Terminated("ended by SIGTERM; what was stored stays: start the same command again") from None
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if hangs_up:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
        handler.done()


def _hang_up(*_: object) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal sends it, and then its shell again
    signal.raise_signal(signal.SIGTERM)


def _handler() -> Any:
    return signal.getsignal(signal.SIGTERM)


@contextmanager
def termination_requests(grace: Callable[[], float] | None = None) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGTERM came; inside the block SIGTERM does not end the process.

    If other code has set a handler (`ended_in_order` does not count), or this is not the main thread, the function
    always returns False. If SIGTERM came and the block ends normally, SIGTERM is raised again after the block.

    :param grace: returns the seconds after SIGTERM until the process ends anyway (exit code 143): a process may wait
        forever for another one that has died, which is why their launcher sent the signal. None sets no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = _handler()
    if before is not signal.SIG_DFL and not isinstance(before, _InOrder):
        yield lambda: False
        return
    requested, limits = threading.Event(), list[threading.Timer]()

    def hear(*_: object) -> None:
        # a timer thread: the main thread may be waiting outside of Python
        if grace is not None and not requested.is_set():
            limits.append(threading.Timer(grace(), os._exit, [_EXIT_CODE]))
            limits[0].daemon = True
            limits[0].start()
        requested.set()

    signal.signal(signal.SIGTERM, hear)
    try:
        yield requested.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
        for limit in limits:
            limit.cancel()
    if requested.is_set():  # the block ended normally; SIGTERM still has to end the process
        signal.raise_signal(signal.SIGTERM)
