"""SIGTERM as a request to end; in processes of their own, which it may end."""

import signal
import subprocess
import sys

import pytest

PROGRAMS = {
    "it is told, and then ends the process": (
        """
with termination_requests() as must_end:
    assert not must_end()
    signal.raise_signal(signal.SIGTERM)
    assert must_end()
    print("finished the step", flush=True)
print("never")
""",
        "finished the step\n",
        -signal.SIGTERM,
    ),
    "an error of the block goes its way": (
        """
try:
    with termination_requests() as must_end:
        signal.raise_signal(signal.SIGTERM)
        raise KeyError
except KeyError:
    print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
""",
        "True\n",
        0,
    ),
    "another handler stays": (
        """
came = []
signal.signal(signal.SIGTERM, lambda *_: came.append(1))
with termination_requests() as must_end:
    signal.raise_signal(signal.SIGTERM)
    print(came, must_end())
""",
        "[1] False\n",
        0,
    ),
    "other threads set none": (
        """
def work():
    with termination_requests() as must_end:
        print(must_end(), signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
thread = threading.Thread(target=work)
thread.start()
thread.join()
""",
        "False True\n",
        0,
    ),
    "what waits for ever ends after its grace": (
        """
with termination_requests(lambda: 0.2):
    signal.raise_signal(signal.SIGTERM)
    print("waiting", flush=True)
    threading.Event().wait(60)
""",
        "waiting\n",
        143,
    ),
    "what ends in time is not ended by its grace": (
        """
try:
    with termination_requests(lambda: 0.2) as must_end:
        signal.raise_signal(signal.SIGTERM)
        raise KeyError(must_end())
except KeyError as error:
    threading.Event().wait(0.5)
    print(error)
""",
        "True\n",
        0,
    ),
}


PROGRAMS |= {
    "work ends as by Ctrl-C": (
        """
try:
    with ended_in_order():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            print("cleared up")
except Terminated as error:
    print(error, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
""",
        "cleared up\nended by SIGTERM; what was stored stays: start the same command again True\n",
        0,
    ),
    "a second one ends the process at once": (
        """
with ended_in_order():
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        print("clearing up", flush=True)
        signal.raise_signal(signal.SIGTERM)
""",
        "clearing up\n",
        -signal.SIGTERM,
    ),
    "a training within the work ends with its step": (
        """
try:
    with ended_in_order(), termination_requests() as must_end:
        signal.raise_signal(signal.SIGTERM)
        print("finished the step", must_end())
except Terminated:
    print("ended")
""",
        "finished the step True\nended\n",
        0,
    ),
    "a forked child ends by itself": (
        """
with ended_in_order():
    child = os.fork()
    if not child:
        signal.raise_signal(signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""",
        f"{-signal.SIGTERM}\n",
        0,
    ),
    "a hangup is taken for SIGTERM": (
        """
try:
    with ended_in_order():
        try:
            signal.raise_signal(signal.SIGHUP)
        finally:
            signal.raise_signal(signal.SIGHUP)
            print("cleared up")
except Terminated:
    print(signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)
""",
        "cleared up\nTrue\n",
        0,
    ),
    "a training's step ends before a hangup does": (
        """
try:
    with ended_in_order(), termination_requests() as must_end:
        signal.raise_signal(signal.SIGHUP)
        print("finished the step", must_end())
except Terminated:
    print("ended")
""",
        "finished the step True\nended\n",
        0,
    ),
    "a hangup that is ignored stays ignored": (
        """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with ended_in_order():
    signal.raise_signal(signal.SIGHUP)
    print("goes on")
""",
        "goes on\n",
        0,
    ),
    "of the work another handler stays": (
        """
signal.signal(signal.SIGTERM, lambda *_: print("theirs"))
with ended_in_order():
    signal.raise_signal(signal.SIGTERM)
    print("goes on")
""",
        "theirs\ngoes on\n",
        0,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_sigterm(name):
    body, printed, code = PROGRAMS[name]
    imports = (
        "import os, signal, threading\nfrom distill.errors import Terminated\nfrom distill.machine.termination import "
    )
    program = f"{imports}ended_in_order, termination_requests\n{body}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (printed, code), done.stderr
