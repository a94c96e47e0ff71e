"""SIGKILL at random moments, until the run is done: what stands there at the end is what an undisturbed run makes."""

import json
import os
import random
import subprocess
import sys
import threading
import time

import psutil
import pytest

from distill.artefact import read_card, revision
from tests.conftest import ROOT, make_run, write_recipe

pytestmark = pytest.mark.slow

CHANGES = {
    "training": {
        "epochs": 30,
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


class Run:
    """`distill run` in a process of its own, with what it has printed so far."""

    def __init__(self, recipe):
        command = [sys.executable, "-m", "recipes.cli", "run", str(recipe)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.printed = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        with self.process.stdout as lines:
            for line in lines:
                self.printed.append(line)

    def wait_for(self, text):
        """Wait until a line holds this text, or the run has ended."""
        while self.process.poll() is None and not any(text in line for line in self.printed):
            time.sleep(0.05)

    def finish(self):
        self.process.wait(timeout=500)
        self.reader.join()
        assert self.process.returncode == 0, "".join(self.printed)[-3000:]
        assert not any("Traceback" in line for line in self.printed)

    def kill(self):
        """Kill the process alone, as the memory killer does; return which of the processes it started outlive it."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        self.reader.join(timeout=30)
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
    Run(write_recipe(tmp_path / "calm", **CHANGES)).finish()
    recipe, rng, reached = write_recipe(tmp_path / "killed", **CHANGES), random.Random(1), []
    # a slow machine gets further by and by
    while len(reached) < N_KILLS or ("teachers/cross" not in reached[-1] and len(reached) < 4 * N_KILLS):
        run = Run(recipe)
        run.wait_for("cross")  # past the imports: the first stage speaks
        time.sleep(rng.uniform(0.1, 6))
        assert run.kill() == []
        stages = (
            "teachers/cross",
            "signals/cross",
            "student",
            "control",
            "exports/openvino-fp32",
            "exports/openvino-int8",
        )
        reached.append([stage for stage in stages if (tmp_path / "killed" / "run" / stage).exists()])
    assert reached[0] == []
    assert "teachers/cross" in reached[-1]
    run = Run(recipe)
    run.wait_for(
        "openvino-int8"
    )  # the last line before the models are scored and measured, each in a process of its own
    time.sleep(5)
    assert run.process.poll() is None
    assert run.kill() == []  # the processes that measure end with the one that asked for it
    Run(recipe).finish()
    calm, killed = (make_run(tmp_path / name / "run", **CHANGES) for name in ("calm", "killed"))
    assert made(killed) == made(calm)
    assert leftovers(killed.folder) == []
