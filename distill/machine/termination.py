"""SIGTERM as a request: a scheduler sends it some seconds before it kills, time enough for a checkpoint."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["termination_requests"]


@contextmanager
def termination_requests(*, heard: bool = True) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGTERM came; within the block it does not end the process by itself.

    A handler that somebody else has set stays, and another thread than the main one cannot set any: then nothing is told.

    :param heard: False leaves SIGTERM as it is
    """
    if not heard or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield lambda: False
        return
    came = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if came.is_set():  # the block ended by itself, and the process is to end all the same
        signal.raise_signal(signal.SIGTERM)
