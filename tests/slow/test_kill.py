"""SIGKILL at random moments, until the run is done: what stands there at the end is what an undisturbed run makes."""

import json
import os
import random
import subprocess
import sys
import time

import psutil
import pytest

from distill.artefact import read_card, revision
from tests.conftest import ROOT, make_run, write_recipe

pytestmark = pytest.mark.slow

CHANGES = {
    "training": {
        "epochs": 40,
        "dropout": 0.1,
        "checkpoint_seconds": 0.2,
        "evaluations_per_epoch": 1,
        "global_batch": 16,
    },
    "student": {"control": True},
    "signals": {"shard_size": 16},
    "export": {"precisions": ["fp32", "int8"], "calibration_pairs": 20, "parity_pairs": 20},
    "benchmark": {"seconds": 0.1, "throughput_pairs": 16, "bootstrap": 50, "lengths": [16, 32], "threads": 2},
}
N_KILLS = 8


def start(recipe):
    command = [sys.executable, "-m", "recipes.cli", "run", str(recipe)]
    return subprocess.Popen(
        command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed[-3000:]
    assert "Traceback" not in printed
    return printed


def kill(process):
    """Kill the process alone, as the memory killer does; what it started is to end by itself."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    process.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=30)
    return alive


def made(run):
    """All that is to be the same: contents of model folders, and the metrics of the report."""
    folders = [run.teacher("cross"), run.student, run.control, run.export("fp32"), run.export("int8")]
    report = json.loads((run.report / "benchmark.json").read_text())
    return {
        "revisions": {folder.name: revision(folder) for folder in folders},
        "cards": {folder.name: read_card(folder).revision for folder in folders},
        "validation": {folder.name: dict(read_card(folder).metrics) for folder in folders},
        "report": {row["name"]: row["metrics"] for row in report["rows"]},
        "comparisons": report["comparisons"],
    }


def leftovers(folder):
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp") or ".tmp." in path.name]


def test_killed_run_ends_as_an_undisturbed_one(tmp_path):
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
    began = time.monotonic()
    finish(start(write_recipe(tmp_path / "calm", **CHANGES)))
    whole = time.monotonic() - began
    recipe, rng, orphans, reached = write_recipe(tmp_path / "killed", **CHANGES), random.Random(1), [], []
    for _ in range(N_KILLS):
        process = start(recipe)
        try:
            # past the imports, anywhere in what is left of the run
            process.wait(timeout=rng.uniform(0.12, 0.5) * whole)
            break
        except subprocess.TimeoutExpired:
            orphans += kill(process)
            stages = ("teachers/cross", "signals/cross", "student", "control", "exports/openvino-int8", "report")
            reached.append([stage for stage in stages if (tmp_path / "killed" / "run" / stage).exists()])
    finish(start(recipe))
    calm, killed = (make_run(tmp_path / name / "run", **CHANGES) for name in ("calm", "killed"))
    assert made(killed) == made(calm)
    assert leftovers(killed.folder) == []
    assert orphans == []
    assert len(reached) >= 3
