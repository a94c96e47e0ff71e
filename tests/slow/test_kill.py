"""SIGKILL at random moments of each stage, until the run is done: what stands there at the end is what an undisturbed run makes."""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import psutil
import pytest

from distill.files.artefact import read_card, revision
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
    "signals": {"shard_size": 1},
    "export": {"precisions": ["fp32", "int8"], "calibration_pairs": 20, "parity_pairs": 20, "min_rank_agreement": 0.5},
    "benchmark": {
        "seconds": 0.1,
        "max_seconds": 0.1,
        "throughput_pairs": 16,
        "bootstrap": 50,
        "lengths": [16, 32],
        "threads": 2,
    },
}
N_KILLS = 5  # in each stage
N_TRIES = 20


@dataclass(frozen=True)
class Stage:
    """What a stage makes, the words that say that it begins and that it is done, and whether it goes on where it was."""

    makes: tuple[str, ...]
    begins: tuple[str, ...]
    ends: str
    goes_on: bool = True


STAGES = {
    "train_teacher": Stage(("teachers", ".work"), ("teacher cross: tokenizing",), "teacher cross: /"),
    "cache_signals": Stage(("signals",), ("teacher cross: /", "teachers/cross is finished"), "signals of cross: "),
    "train_student": Stage(("student", "control"), ("student: tokenizing", "student is finished"), "control: /"),
    "export": Stage(("exports",), ("control: /", "control is finished"), "openvino-int8: ", goes_on=False),
    "benchmark": Stage(("report", "baselines"), ("openvino-int8: ", "int8 is finished"), "report: ", goes_on=False),
}


class Run:
    """`distill run` in a process of its own, with what it has printed so far and when."""

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
                self.printed.append((time.monotonic(), line))

    def when(self, *texts):
        """When a line with one of these texts was printed first; None if none was."""
        return next((at for at, line in self.printed if any(text in line for text in texts)), None)

    def wait_for(self, *texts):
        """Wait until a line holds one of these texts, or the run has ended."""
        while self.process.poll() is None and self.when(*texts) is None:
            time.sleep(0.01)

    def finish(self):
        self.process.wait(timeout=500)
        self.reader.join()
        lines = [line for _, line in self.printed]
        assert self.process.returncode == 0, "".join(lines)[-3000:]
        assert not any("Traceback" in line for line in lines)

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


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """An undisturbed run: its folder, and how many seconds each stage took."""
    folder = tmp_path_factory.mktemp("calm")
    run = Run(write_recipe(folder, **CHANGES))
    run.finish()
    seconds = {name: run.when(stage.ends) - run.when(*stage.begins) for name, stage in STAGES.items()}
    return folder / "run", seconds


def undone(calm_folder, folder, name):
    """Put a folder into the state in which a stage has not begun."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(calm_folder, folder)
    for later in list(STAGES)[list(STAGES).index(name) :]:
        for part in STAGES[later].makes:
            shutil.rmtree(folder / part, ignore_errors=True)


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_killed_five_times_ends_as_an_undisturbed_one(calm, tmp_path, name):
    calm_folder, seconds = calm
    stage, recipe, rng = STAGES[name], write_recipe(tmp_path, **CHANGES), random.Random(name)
    longest = seconds[name] * (0.4 if stage.goes_on else 1)  # so that five kills come to its end, by and by or each
    undone(calm_folder, tmp_path / "run", name)
    n_kills = 0
    for _ in range(N_TRIES):
        run = Run(recipe)
        run.wait_for(*stage.begins)
        time.sleep(rng.uniform(0, longest))
        over = run.process.poll() is not None or run.when(stage.ends) is not None
        assert run.kill() == []  # the processes that measure end with the one that asked for it
        if over:
            run.reader.join()
            assert not any("Traceback" in line for _, line in run.printed)
            undone(calm_folder, tmp_path / "run", name)
            continue
        n_kills += 1
        if n_kills == N_KILLS:
            break
    assert n_kills == N_KILLS
    Run(recipe).finish()
    disturbed, undisturbed = make_run(tmp_path / "run", **CHANGES), make_run(calm_folder, **CHANGES)
    assert made(disturbed) == made(undisturbed)
    assert leftovers(disturbed.folder) == []
