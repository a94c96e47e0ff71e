"""SIGTERM as a request to end."""

import signal
import subprocess
import sys
import threading

from distill.machine.termination import termination_requests


def test_it_is_told_and_then_ends_the_process():
    program = """
import signal
from distill.machine.termination import termination_requests
with termination_requests() as must_end:
    assert not must_end()
    signal.raise_signal(signal.SIGTERM)
    assert must_end()
    print("finished the step", flush=True)
print("never")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("finished the step\n", -signal.SIGTERM)


def test_another_handler_stays():
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        with termination_requests() as must_end:
            signal.raise_signal(signal.SIGTERM)
            assert came == [1] and not must_end()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_set_none():
    found = []

    def work():
        with termination_requests() as must_end:
            found.append((must_end(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, signal.SIG_DFL)]
    with termination_requests(heard=False):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
