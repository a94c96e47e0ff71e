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


@pytest.mark.parametrize("name", PROGRAMS)
def test_sigterm(name):
    body, printed, code = PROGRAMS[name]
    program = f"import signal, threading\nfrom distill.machine.termination import termination_requests\n{body}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (printed, code), done.stderr
