"""Two gloo processes on the CPU: the same curve, the same weights and the same cache as one process."""

import json
import re
import shutil

import numpy as np
import pytest

from distill.files.artefact import read_card
from distill.signals import SignalCache, pair_keys
from tests.conftest import BACKBONE, BI_TEACHER, make_run, write_recipe
from tests.slow.launching import RESUMED, launch, same_histories, same_weights, terminate_in_training

pytestmark = pytest.mark.slow

CHANGES = {
    "data": {"candidates": 4},
    "teachers": {"bi": {**BI_TEACHER, "loss": "bce"}},
    "student": {"kind": "bi_encoder", "backbone": {**BACKBONE, "width": 16, "layers": 1}, "control": True},
    "objectives": {
        "labels": {"loss": "bce", "weight": 0.2},
        "score_match": {"teacher": "cross", "loss": "kl"},
        "embedding_match": {"teacher": "bi", "projection": "drop"},
        "cka": {"teacher": "bi"},  # over whole steps, whatever the passes and processes
    },
    "signals": {"shard_size": 16},
    "training": {"epochs": 8, "global_batch": 16, "micro_batch": 4, "evaluations_per_epoch": 1, "learning_rate": 1e-3},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same recipe through one process and through two."""
    made = {}
    for n_processes in (1, 2):
        folder = tmp_path_factory.mktemp(f"processes{n_processes}")
        recipe = write_recipe(folder, **CHANGES)
        printed = [launch(n_processes, stage, recipe) for stage in ("train_teacher", "cache_signals", "train_student")]
        made[n_processes] = (make_run(folder / "run", **CHANGES), printed)
    return made


def folders(run):
    return {"cross": run.teacher("cross"), "bi": run.teacher("bi"), "student": run.student, "control": run.control}


@pytest.mark.parametrize("name", ["cross", "bi", "student", "control"])
def test_curve_and_weights_are_those_of_one_process(runs, name):
    one, two = (folders(runs[n][0])[name] for n in (1, 2))
    assert [read_card(folder).details["n_processes"] for folder in (one, two)] == [1, 2]
    same_histories(one, two)
    same_weights(one, two)


def test_sigterm_to_the_launcher_leaves_a_checkpoint_that_two_processes_go_on_from(runs, tmp_path):
    recipe = write_recipe(tmp_path, **CHANGES)
    shutil.copytree(runs[2][0].folder, tmp_path / "run")
    for part in ("student", "control"):
        shutil.rmtree(tmp_path / "run" / part)
    printed = terminate_in_training(2, "train_student", recipe, (tmp_path / "run/.work", "student-*/step-*"))
    [step] = set(re.findall(r"SIGTERM at step (\d+) of", printed))
    [folder] = (tmp_path / "run/.work").glob("student-*")
    assert (folder / f"step-{int(step):08d}").is_dir()
    launch(2, "train_student", recipe, *RESUMED)
    same_weights(runs[2][0].student, tmp_path / "run/student", atol=0)


def test_cache_is_whole_and_the_same(runs):
    read = {}
    for n_processes, (run, _) in runs.items():
        pairs = run.split.train
        cache = SignalCache(run.signals("cross"), run.signal_identity("cross"))
        read[n_processes] = cache.read(
            "scores", cache.find("scores", pair_keys(pairs.queries, pairs.documents), "scores")
        )
        manifest = json.loads((cache.folder / "manifest.json").read_text())
        assert manifest["items"]["scores"] == len(pairs)
    np.testing.assert_allclose(read[2], read[1], atol=1e-2)


def test_messages_come_from_the_first_process_only(runs):
    for stage in runs[2][1]:
        assert "Traceback" not in stage
    assert runs[2][1][0].count("teacher cross: tokenizing  ") == 1
    assert runs[2][1][0].count("validation ") == runs[1][1][0].count("validation ")


def test_finished_stages_are_skipped_by_two_processes_too(runs):
    run, _ = runs[2]
    before = read_card(run.student)
    assert "is finished" in launch(2, "train_student", write_recipe(run.folder.parent, **CHANGES))
    assert read_card(run.student) == before


def test_export_and_report_are_the_first_process_s_alone(runs):
    run, _ = runs[2]
    recipe = write_recipe(run.folder.parent, **CHANGES)
    overrides = (
        "export.precisions=[fp32]",
        "export.min_rank_agreement=0.9",
        "export.min_mean_cosine=0.9",
        "export.min_cosine=0.5",
    )
    launch(2, "export", recipe, *overrides)
    said = launch(2, "benchmark", recipe, *overrides, "benchmark.seconds=0.1", "benchmark.bootstrap=20")
    assert said.count("report: ") == 1
    report = json.loads((run.report / "benchmark.json").read_text())
    roles = [row["role"] for row in report["rows"]]
    assert [role for role in roles if role != "teacher_export"] == [  # of which there are as the CPU says
        "teacher",
        "teacher",
        "untrained",
        "student",
        "control",
        "export",
        "baseline",
    ]


def test_an_adapted_encoder_is_nearly_that_of_one_process(tmp_path):
    """The masks are drawn by pass, so curves agree as two seeds do, not to the last digit."""
    adapted = {
        "kind": "mlm",
        "backbone": BACKBONE,
        "max_length": 64,
        "training": {"evaluations_per_epoch": 1, "epochs": 2},
    }
    perplexities = []
    for n_processes in (1, 2):
        folder = tmp_path / str(n_processes)
        folder.mkdir()
        launch(n_processes, "train_teacher", write_recipe(folder, teachers={"adapted": adapted}))
        card = read_card(folder / "run" / "teachers" / "adapted")
        perplexities.append((card.metrics["perplexity_before"], card.metrics["perplexity_after"]))
    assert perplexities[1] == pytest.approx(perplexities[0], rel=0.05)
    assert perplexities[1][1] < perplexities[1][0]


def test_bad_input_on_two_processes_is_said_once_and_named_by_the_launcher(tmp_path):
    recipe = write_recipe(tmp_path, data={"train": str(tmp_path / "none.tsv")})
    with pytest.raises(AssertionError) as caught:
        launch(2, "train_teacher", recipe)
    printed = str(caught.value)
    reason = f"error: {tmp_path / 'none.tsv'}: no such file"
    # not even once if the launcher stopped the first process, because the second one was quicker
    assert sum(line.startswith(reason) for line in printed.splitlines()) <= 1
    assert reason in printed[printed.index("Root Cause") :]
