"""What the scripts that try bad input on the real commands share: inputs, a finished run to damage, and running a command."""

import io
import os
import signal
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout

from tests.conftest import BI_TEACHER, ROOT, make_run

HEADER = "query\tdocument\tlabel\n"
GOOD = HEADER + "".join(f"query {i // 2}\tdocument {i}\t{i % 2}\n" for i in range(60))
MORE = {"teachers": {"bi": BI_TEACHER}}


def finished_run(folder):
    """A small run with teachers, signals and a student, that cases copy."""
    from students import train_student
    from teachers import cache_signals, train_teachers

    run = make_run(folder / "finished" / "run", **MORE)
    for stage in (train_teachers, cache_signals, train_student):
        stage(run)
    return run


def pairs(folder):
    """A file of good pairs in a case's folder."""
    path = folder / "pairs.tsv"
    if not path.exists():
        path.write_text(GOOD)
    return path


def truncated(piece):
    """Damage a model folder: the first half of a file is left."""

    def cut(model):
        content = (model / piece).read_bytes()
        (model / piece).write_bytes(content[: len(content) // 2])

    return cut


class TooSlow(BaseException):
    """More than the limit."""


def _stop(*_):
    raise TooSlow


def in_process(argv, limit=60):
    """Run a command: exit code and what it printed; a traceback, and more seconds than the limit, count as code −1."""
    from recipes.cli import main

    out, err = io.StringIO(), io.StringIO()
    before = signal.signal(signal.SIGALRM, _stop)
    signal.alarm(limit)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(argument) for argument in argv])
        except BaseException:
            code = -1
            traceback.print_exc()
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
    return code, err.getvalue() + out.getvalue()


def as_process(argv, limit=120):
    """Run a command in a process of its own, with nothing on its stdin."""
    done = subprocess.run(
        [sys.executable, "-m", "recipes.cli", *map(str, argv)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        check=False,
        timeout=limit,
    )
    return done.returncode, done.stderr + done.stdout
