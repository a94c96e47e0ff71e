"""Stages in several processes on the CPU, as `accelerate launch` starts them, and how their results are compared."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file

from distill.files.artefact import read_card
from tests.conftest import ROOT

FSDP = ("--config_file", "recipes/accelerate/fsdp.yaml", "--num_processes", "2")
RESUMED = ("training.checkpoint_seconds=0",)


def command(processes, stage, recipe, *overrides):
    """How users run a stage: in so many processes, or as `FSDP` says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    accelerate = [str(Path(sys.executable).with_name("accelerate")), "launch", "--num_machines", "1"]
    asked = ["-m", f"recipes.{stage}", str(recipe), *overrides]
    if processes == 1:
        return [*accelerate, "--num_processes", "1", *asked]
    accelerate += ["--main_process_port", str(port)]
    if processes == FSDP:
        return [*accelerate, *FSDP, "-m", "tests.slow.fsdp_on_gloo", stage, str(recipe), *overrides]
    return [*accelerate, "--multi_gpu", "--num_processes", str(processes), *asked]


def environment():
    return {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


def launch(processes, stage, recipe, *overrides):
    """Run a stage, and return what it printed on stderr."""
    asked = command(processes, stage, recipe, *overrides)
    done = subprocess.run(asked, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def terminate_in_training(processes, stage, recipe, checkpoints):
    """Send SIGTERM to the launcher once a checkpoint stands; return what was printed.

    :param checkpoints: a folder and the pattern of the checkpoints below it
    """
    training = subprocess.Popen(
        command(processes, stage, recipe, *RESUMED), cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
    )
    folder, pattern = checkpoints
    while not list(folder.glob(pattern)):
        assert training.poll() is None
        time.sleep(0.05)
    began = time.monotonic()
    training.send_signal(signal.SIGTERM)
    _, printed = training.communicate(timeout=60)
    assert time.monotonic() - began < 15 and training.returncode != 0
    return printed


def same_histories(ours: Path, theirs: Path):
    """Check that two models were trained by one curve."""
    histories = [read_card(folder).details["history"] for folder in (ours, theirs)]
    assert [row["step"] for row in histories[0]] == [row["step"] for row in histories[1]]
    for mine, other in zip(*histories, strict=True):
        assert set(mine) == set(other)
        for key in set(mine) - {"seconds"}:
            # a validation value moves in steps where two scores change places
            assert other[key] == pytest.approx(mine[key], abs=0.02 if key == "validation" else 1e-4, rel=1e-3), key


def weights_of(folder: Path) -> Mapping:
    return {
        f"{path.relative_to(folder)}:{name}": value
        for path in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def same_weights(ours: Path, theirs: Path, atol=1e-3):
    """Check that two models have the same tensors, up to rounding; 0 is to the bit."""
    mine, other = weights_of(ours), weights_of(theirs)
    assert mine.keys() == other.keys()
    for name, value in mine.items():
        if "key.bias" not in name or not atol:  # its gradient is rounding alone, see tests/tiny/test_training.py
            assert (other[name] - value).abs().max() <= atol, name
