"""A disk that runs full: each stage says so in one line and goes on when there is room again; nothing is half-written."""

import os
import subprocess
import sys

import pytest

from distill.files.artefact import read_card, revision
from tests.conftest import ROOT, SHORT_BENCHMARK, write_recipe

pytestmark = pytest.mark.slow

CHANGES = {
    "training": {"epochs": 2, "tensorboard": True, "checkpoint_seconds": 0, "evaluations_per_epoch": 1},
    "student": {"control": True},
    "signals": {"shard_size": 16},
    "export": {"precisions": ["fp32", "int8"], "calibration_pairs": 20, "parity_pairs": 20},
    "benchmark": {**SHORT_BENCHMARK, "bootstrap": 20, "threads": 1},
}
STAGES = ("train-teacher", "cache-signals", "train-student", "export", "benchmark")
SHARES = (0.0, 0.3, 0.8)  # of what the stage would write: how much room it finds
DISK_MB = 64


def stage(name, recipe, folder):
    """Run a stage as users do; returns its exit code and what it printed on stderr."""
    command = [sys.executable, "-m", "recipes.cli", name, str(recipe), f"output_dir={folder}"]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=500)
    return done.returncode, done.stderr


def used(folder):
    """Bytes of disk that a folder takes."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def leftovers(folder):
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp") or ".tmp." in path.name]


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A small disk of its own."""
    folder = tmp_path_factory.mktemp("disk")
    if os.geteuid():
        pytest.skip("only root may mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A run with room enough: its folder, the recipe, and how many bytes each stage wrote."""
    folder = tmp_path_factory.mktemp("calm")
    recipe, sizes = write_recipe(folder, **CHANGES), {}
    for name in STAGES:
        before = used(folder)
        assert stage(name, recipe, folder / "run")[0] == 0
        sizes[name] = used(folder) - before
    return folder / "run", recipe, sizes


class Filler:
    """A file that leaves so much room on a disk and no more."""

    def __init__(self, disk, room):
        self.path = disk / "filler"
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        self.path.write_bytes(bytes(max(0, free - room)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.path.unlink()


def models(folder):
    """The content hash of each finished model of a run, which is what its card says that it is."""
    found = {}
    for card in folder.rglob("artefact.json"):
        found[str(card.parent.relative_to(folder))] = revision(card.parent)
        assert read_card(card.parent).revision == revision(card.parent), card
    return found


def test_every_stage_says_it_in_one_line_and_goes_on(disk, calm):
    calm_folder, recipe, sizes = calm
    run, n_stopped = disk / "run", 0
    for name in STAGES:
        finished = models(run)
        for share in SHARES:
            with Filler(disk, int(share * sizes[name])):
                code, said = stage(name, recipe, run)
                assert "Traceback" not in said, said
                if share == 0 or code:
                    assert code == 1, (name, share, said)
                    assert said.count("error: ") == 1, said
                    assert said.splitlines()[-1].startswith("error: No space left on device"), said
                    n_stopped += 1
                assert leftovers(run) == [], (name, share)
                assert models(run).items() >= finished.items(), (name, share)
        code, said = stage(name, recipe, run)
        assert code == 0, said
    assert n_stopped > len(STAGES)
    assert models(run) == models(calm_folder)
    assert (run / "report" / "index.html").is_file()
    assert leftovers(run) == []
