"""A forked child: locks are free, values are made anew and the parent's are never destroyed, the tokenizer is silent."""

import os
import subprocess
import sys
import threading

import pytest

from distill.machine.forks import ForkSafeLock, PerProcess
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def in_child(work, seconds=20):
    """Run `work` in a forked child; return what it returns, a short text."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.write(write, str(work()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    timer = threading.Timer(seconds, os.kill, (pid, 9))
    timer.start()
    with os.fdopen(read) as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    timer.cancel()
    return told if status == 0 else f"status {status}"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_lock_that_another_thread_holds_is_free_in_a_child():
    lock, held, done = ForkSafeLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def take():
        with lock:
            return "free"

    assert in_child(take) == "free"
    done.set()
    thread.join()


WHILE_ANOTHER_THREAD_TOKENISES = """
import os, threading
from distill.data.tokens import tokenize
from distill.models.files import LightTokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}, "b"))
backend.pre_tokenizer = pre_tokenizers.Whitespace()
backend.enable_truncation(5)                       # its own limit, which a call sets aside and puts back
tokenizer = LightTokenizer(backend, ("input_ids",), 0, "right", 8)
texts, stop = ["a b " * 500] * 20, threading.Event()
def busy():
    while not stop.is_set():
        tokenize(tokenizer, texts, max_length=8)
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads: thread.start()
codes = []
try:
    for _ in range(20):                            # the threads are inside of the tokenizer nearly always
        pid = os.fork()
        if pid == 0:
            whole = tokenize(tokenizer, texts[:2], max_length=8).lengths.tolist() == [8, 8]
            os._exit(0 if whole and backend.truncation["max_length"] == 5 else 3)
        codes.append(os.waitpid(pid, 0)[1])
finally:
    stop.set()
print(codes == [0] * 20)
"""


def test_a_fork_waits_for_a_tokenizer_that_is_in_a_call():
    done = subprocess.run(
        [sys.executable, "-c", WHILE_ANOTHER_THREAD_TOKENISES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert done.stdout.split() == ["True"], done.stderr


class Destroyed:
    def __init__(self):
        self.pid = os.getpid()

    def __del__(self):
        if os.getpid() != self.pid:
            os._exit(7)


def test_a_value_is_made_anew_and_the_parents_is_not_destroyed():
    value = PerProcess()
    assert value.get(Destroyed) is value.get(Destroyed)

    def ask():
        nonlocal value
        own = value.get(Destroyed).pid == os.getpid()
        value = None
        return own

    assert in_child(ask) == "True"
    assert value.get(Destroyed).pid == os.getpid()


PROGRAM = """
import os, sys
from distill.data.tokens import tokenize
from distill.models.files import LightTokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}, "b"))
backend.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = LightTokenizer(backend, ("input_ids",), 0, "right", 8)
texts = ["a b"] * 5000
first = tokenize(tokenizer, texts, max_length=8).ids.sum()
pid = os.fork()
same = tokenize(tokenizer, texts, max_length=8).ids.sum() == first
if pid == 0:
    os._exit(0 if same else 3)
print(os.waitpid(pid, 0)[1], same, os.environ.get("TOKENIZERS_PARALLELISM"))
"""


@pytest.mark.parametrize("stated", [None, "true", "false"])
def test_a_child_tokenises_without_threads_and_without_a_word(stated):
    env = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    if stated is not None:
        env["TOKENIZERS_PARALLELISM"] = stated
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=True
    )
    assert done.stdout.split() == ["0", "True", str(stated)] and done.stderr == ""
