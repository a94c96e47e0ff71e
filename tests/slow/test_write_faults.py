"""Each write of a tiny run fails once with a full disk: what is finished stays whole, and the end is that of an undisturbed run."""

import io
import shutil
from contextlib import redirect_stderr
from itertools import count

import pytest
import torch

from distill.files.artefact import CALIBRATION, CARD, revision
from recipes._launch import guarded
from students import export_student, train_student
from teachers import cache_signals, train_teachers
from tests.conftest import make_run
from tests.slow.failing_disk import FailingDisk
from tests.slow.killing import broken, leftovers

pytestmark = pytest.mark.slow

CHANGES = {
    "data": {"validation_share": 0.25},  # enough for a calibration
    "training": {"max_steps": 2, "checkpoint_seconds": 0, "evaluations_per_epoch": 1, "dropout": 0.1},
    "signals": {"shard_size": 64, "allow_unrelated": True},
    "export": {
        "precisions": ["fp32"],
        "parity_pairs": 20,
        "min_rank_agreement": 0.5,
        "min_mean_cosine": 0.5,
        "min_cosine": 0.5,
    },
}
STAGES = (train_teachers, cache_signals, train_student, export_student)


def run_stage(stage, folder):
    """Run a stage as the command line does: locked, and what goes wrong is a message. Returns the exit code and that message."""
    torch.set_num_threads(1)  # loading a model sets them for the process, and the last bits depend on them

    def work():
        run = make_run(folder, **CHANGES)
        with run.lock():
            stage(run)
            run.write_recipe()

    with redirect_stderr(io.StringIO()) as said:
        code = guarded(work)
    return code, next((line for line in reversed(said.getvalue().splitlines()) if line.startswith("error: ")), "")


def contents(folder):
    """Revisions of all finished folders as they are now, calibrations, and shards, in whose names are their checksums."""
    cards = [card for card in folder.rglob(CARD) if ".work" not in card.parts]
    models = {str(card.parent.relative_to(folder)): revision(card.parent) for card in cards}
    fitted = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob(CALIBRATION)}
    return models | fitted | {path.name: "" for path in folder.glob("signals/*/*/*.arrow")}


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """An undisturbed run: its folder before each stage, and after the last."""
    root = tmp_path_factory.mktemp("calm")
    (root / "run").mkdir()
    for number, stage in enumerate(STAGES):
        shutil.copytree(root / "run", root / str(number), symlinks=True)
        assert run_stage(stage, root / "run") == (0, "")
    return root


def with_a_fault(stage, folder, n, whole):
    """Run a stage whose n-th write fails, and once more: where it failed and what is wrong, or None where there is none."""
    had = contents(folder)
    with pytest.MonkeyPatch.context() as patch:
        disk = FailingDisk(patch, folder, n)
        code, said = run_stage(stage, folder)
    if disk.failed_at is None:
        return None
    expected = code == 1 and said.startswith("error: No space left on device")
    checks = {
        # 0 where what failed was worth nothing, such as a cache
        f"exit code {code}: {said}": code and not expected,
        f"not whole: {(found := broken(folder))}": found,
        f"left over: {(left := leftovers(folder))}": left,
        "something finished is lost": not had.items() <= contents(folder).items(),
    }
    code, said = run_stage(stage, folder)
    checks |= {
        f"does not go on: exit code {code}: {said}": code,
        "other bits at the end": contents(folder) != whole,
        f"not whole at the end: {(found := broken(folder))}": found,
    }
    return disk.failed_at, [line for line, is_so in checks.items() if is_so]


@pytest.mark.parametrize("number", range(len(STAGES)), ids=[stage.__name__ for stage in STAGES])
def test_every_write_fails_once(calm, tmp_path, number):
    whole = contents(calm / str(number + 1) if number + 1 < len(STAGES) else calm / "run")
    wrong, failed = [], []
    for n in count(1):
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(calm / str(number), folder, symlinks=True)
        found = with_a_fault(STAGES[number], folder, n, whole)
        if found is None:
            break
        print(n, *found)
        failed.append(found[0])
        wrong += [(n, found[0], line) for line in found[1]]
    assert wrong == []
    assert len(failed) > 5
