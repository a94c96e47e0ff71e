"""Two gloo processes that shard the weights (FSDP): the curve and weights of one process, checkpoints, and an export."""

import re
import shutil

import pytest

from distill.files.artefact import read_card
from distill.runtime import load
from tests.conftest import make_run, write_recipe
from tests.slow.launching import FSDP, RESUMED, launch, same_histories, same_weights, terminate_in_training
from tests.slow.test_two_processes import CHANGES, folders

pytestmark = pytest.mark.slow

OBJECTIVES = {name: term for name, term in CHANGES["objectives"].items() if name != "cka"}  # not with a projection
SHARDED = {**CHANGES, "objectives": OBJECTIVES}
STAGES = ("train_teacher", "cache_signals", "train_student")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same recipe in one process, and sharded over two."""
    made = {}
    for processes in (1, FSDP):
        folder = tmp_path_factory.mktemp("fsdp")
        recipe = write_recipe(folder, **SHARDED)
        printed = [launch(processes, stage, recipe) for stage in STAGES]
        made[processes] = (make_run(folder / "run", **SHARDED), printed)
    return made


@pytest.mark.parametrize("name", ["cross", "bi", "student", "control"])
def test_curve_and_weights_are_those_of_one_process(runs, name):
    one, sharded = (folders(runs[processes][0])[name] for processes in (1, FSDP))
    same_histories(one, sharded)
    same_weights(one, sharded)


def test_the_weights_were_sharded(runs):
    said = ": FSDP shards its weights over 2 processes"
    assert [sum(said in printed for printed in runs[processes][1]) for processes in (1, FSDP)] == [0, 2]
    assert read_card(runs[FSDP][0].student).details["n_processes"] == 2


def test_sigterm_leaves_a_checkpoint_that_the_same_command_goes_on_from(runs, tmp_path):
    recipe = write_recipe(tmp_path, **SHARDED)
    shutil.copytree(runs[FSDP][0].folder, tmp_path / "run")
    for part in ("student", "control"):
        shutil.rmtree(tmp_path / "run" / part)
    printed = terminate_in_training(FSDP, "train_student", recipe, (tmp_path / "run/.work", "student-*/step-*"))
    [step] = set(re.findall(r"SIGTERM at step (\d+) of", printed))
    assert f"student resumes at step {step}" in launch(FSDP, "train_student", recipe, *RESUMED)
    same_weights(runs[FSDP][0].student, tmp_path / "run/student", atol=0)


def test_the_student_is_exported_and_scores(runs):
    run, _ = runs[FSDP]
    recipe = write_recipe(run.folder.parent, **SHARDED)
    gate = ("export.min_rank_agreement=0.9", "export.min_mean_cosine=0.9", "export.min_cosine=0.5")
    launch(1, "export", recipe, "export.precisions=[fp32]", *gate)
    pair = (["python engineer in Seoul"], ["python wanted"])
    exported = load(run.folder / "exports/openvino-fp32").score(*pair)
    assert exported == pytest.approx(load(run.student).score(*pair), abs=1e-4)


@pytest.mark.parametrize("way", ["lora", "gradient_checkpointing"])
def test_adapters_and_checkpointing_learn_as_in_one_process(way, tmp_path):
    changed = {"lora": {"rank": 4, "dropout": 0.0}} if way == "lora" else {"training": {"gradient_checkpointing": True}}
    teachers = {"bi": {**CHANGES["teachers"]["bi"], **changed}}
    trained = []
    for processes in (1, FSDP):
        folder = tmp_path / str(len(trained))
        folder.mkdir()
        changes = {"teachers": teachers, "training": CHANGES["training"]}
        launch(processes, "train_teacher", write_recipe(folder, **changes))
        trained.append(folder / "run/teachers/bi")
    same_histories(*trained)
    same_weights(*trained)
