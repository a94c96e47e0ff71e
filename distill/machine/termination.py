"""SIGTERM as a request: a scheduler sends it some seconds before it kills, time enough for a checkpoint."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["termination_requests"]


_EXIT_CODE = 128 + signal.SIGTERM


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
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
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
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for limit in limits:
            limit.cancel()
    if came.is_set():  # the block ended by itself, and the process is to end all the same
        signal.raise_signal(signal.SIGTERM)
