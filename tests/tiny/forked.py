"""Measuring processes that share their imports: forks of one process that has imported torch, and done nothing else.

The variables for threads (OMP_NUM_THREADS and its like) are those of the tests; torch is told its threads when it loads a model.
"""

import multiprocessing
import os
import sys
import traceback
from multiprocessing.reduction import DupFd

from distill.evaluation import latency

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["sentence_transformers.base.modules", __name__])


class ForkedProcess:
    """What the measuring uses of a `subprocess.Popen`."""

    def __init__(self, runtime, errors):
        asked, asking = _CONTEXT.Pipe(duplex=False)
        answered, answering = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_serve, args=(asked, answering, DupFd(errors.fileno()), runtime))
        self._process.start()
        asked.close()
        answering.close()
        self.stdin, self.stdout = _text(asking, "w"), _text(answered, "r")

    def kill(self):
        self._process.kill()

    def wait(self):
        self._process.join()
        return self._process.exitcode


def _text(connection, mode):
    file = os.fdopen(os.dup(connection.fileno()), mode, encoding="utf-8")
    connection.close()
    return file


def _serve(asked, answering, errors, runtime):
    descriptor = errors.detach()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
    try:
        with _text(asked, "r") as requests, _text(answering, "w") as answers:
            latency._serve(requests, answers, runtime)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
