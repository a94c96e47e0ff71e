"""The control: every label loss gets a trial, those that may be the best are trained as long as the student; pairs without labels."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.data import token_files
from distill.data.pairs import Pairs
from distill.errors import BadInput, JobFailed
from distill.files.artefact import read_card
from distill.training.fitting import fit
from distill.training.unlabelled import find_pairs, taught_pairs
from students import control as control_module
from students import train_student
from students.control import by_labels, check_control, control_objectives, losses_on_labels
from teachers import cache_signals, train_teachers
from tests.conftest import BACKBONE, BI_TEACHER, train_teachers_once

pytestmark = pytest.mark.integration

SHORT = {"max_pairs": 120}
BI_STUDENT = {
    "kind": "bi_encoder",
    "backbone": {"teacher": "bi"},
    "layers": [0],
    "max_length": 64,
    "control": {"trial_share": 0.5},
}
LEARNS_FROM_BI = {
    "teachers": {"bi": BI_TEACHER, "cross": None},
    "student": BI_STUDENT,
    "objectives": {"score_match": {"teacher": "bi", "loss": "mse"}},
}


def finished(run):
    train_teachers_once(run)
    cache_signals(run)
    train_student(run)
    return read_card(run.student), read_card(run.control)


def test_the_best_of_all_label_losses_is_trained_as_long_as_the_student(tiny_run):
    changes = {**LEARNS_FROM_BI, "data": SHORT, "training": {"epochs": 4}}
    student, control = finished(tiny_run(**changes))
    said = control.details["control"]
    assert set(said["trials"]) == {"contrastive", "bce", "infonce", "cosent"}
    assert set(said["in_full"]) == set(said["trials"])  # 14 validation pairs tell nothing apart
    assert said["loss"] == max(said["in_full"], key=said["in_full"].get)
    assert said["steps"] == student.details["training"]["step"] == control.details["training"]["step"] == 12
    assert said["trial_steps"] == 10  # ten at least
    # finished is finished, and the trials leave nothing behind
    run = tiny_run(**changes)
    before = (run.control / "artefact.json").stat().st_mtime_ns
    train_student(run)
    assert (run.control / "artefact.json").stat().st_mtime_ns == before
    assert not (run.work / "control_trials").exists()


def test_a_stated_loss_and_length_need_no_trial(tiny_run):
    student = {**BI_STUDENT, "control": {"loss": "bce", "steps": 2}}
    _, control = finished(tiny_run(**{**LEARNS_FROM_BI, "student": student}, data=SHORT))
    assert control.details["control"] == {"loss": "bce", "steps": 2, "trial_steps": 2, "trials": {}}
    assert control.details["training"]["step"] == 2


def test_the_control_chooses_among_as_many_evaluations_as_the_student(tiny_run):
    student = {**BI_STUDENT, "control": {"loss": "bce"}}
    training = {"epochs": 2, "evaluations_per_epoch": 3}
    cards = finished(tiny_run(**{**LEARNS_FROM_BI, "student": student}, data=SHORT, training=training))
    of_student, of_control = (sum("validation" in row for row in card.details["history"]) for card in cards)
    assert of_student == of_control == 6


def test_learning_rates_to_try(tiny_run):
    student = {**BI_STUDENT, "control": {"loss": "cosent", "learning_rates": [1e-3, 1e-4], "steps": 10}}
    _, control = finished(tiny_run(**{**LEARNS_FROM_BI, "student": student}, data=SHORT))
    said = control.details["control"]
    assert set(said["trials"]) == {"cosent at 0.001", "cosent at 0.0001"}
    assert f"cosent at {said['learning_rate']:g}" == max(said["in_full"], key=said["in_full"].get)


def test_a_trial_that_fails_is_not_taken(tiny_run, monkeypatch, caplog):
    def fitted(run, job):
        if job.training.learning_rate == 0.5:
            raise JobFailed("the loss is no number at step 3")
        fit(run, job)

    monkeypatch.setattr("students.control.fit", fitted)
    student = {**BI_STUDENT, "control": {"loss": "cosent", "learning_rates": [0.5, 1e-4], "steps": 10}}
    _, control = finished(tiny_run(**{**LEARNS_FROM_BI, "student": student}, data=SHORT))
    said = control.details["control"]
    assert said["learning_rate"] == 1e-4 and said["trials"]["cosent at 0.5"] is None
    assert "control: cosent at 0.5 failed and is not compared: the loss is no number at step 3" in caplog.text


def test_a_mixture_of_terms_on_labels_is_one_way_to_learn_them(tiny_run):
    teaching = {"score_match": {"teacher": "bi", "loss": "mse"}}
    on_labels = {"labels": {"loss": "bce", "weight": 0.5}, "cosent": {"weight": 2.0}}
    run = tiny_run(**{**LEARNS_FROM_BI, "objectives": {**teaching, **on_labels}}, data=SHORT)
    assert losses_on_labels(run) == ["recipe", "contrastive", "bce", "infonce", "cosent"]
    mixed = control_objectives(run, "recipe")
    assert mixed.terms() == run.recipe.objectives.label_terms() and not mixed.from_teachers
    alone = tiny_run(**{**LEARNS_FROM_BI, "objectives": {**teaching, "cosent": {}}}, data=SHORT)
    assert losses_on_labels(alone) == ["cosent", "contrastive", "bce", "infonce"]
    assert list(control_objectives(alone, "cosent").terms()) == ["cosent"]


def test_the_control_has_no_schedule_and_the_recipes_settings_of_each_loss(tiny_run):
    fading = {"kind": "linear", "from": 1.0, "to": 0.0}
    on_labels = {
        "labels": {"schedule": fading},
        "cosent": {"schedule": fading, "scale": 5.0, "weight": 2.0},
        "listnet": {"schedule": fading},
    }
    teaching = {"score_match": {"teacher": "bi", "loss": "mse"}, "logit_scale": 3.0, **on_labels}
    run = tiny_run(**{**LEARNS_FROM_BI, "objectives": teaching}, data={**SHORT, "candidates": 4})
    mixed = control_objectives(run, "recipe")
    assert list(mixed.terms()) == ["labels", "listnet", "cosent"]
    assert all(term.schedule is None for term in mixed.terms().values()) and mixed.cosent.weight == 2
    alone = control_objectives(run, "cosent").cosent
    assert (alone.scale, alone.weight, alone.schedule) == (5.0, 1.0, None)
    assert control_objectives(run, "bce").logit_scale == 3.0
    # what decides the control: its losses' settings, and no schedule
    assert by_labels(run.recipe.objectives).cosent.scale == 5.0
    assert by_labels(run.recipe.objectives).labels.schedule is None


def pairs_of(tmp_path, rows):
    path = tmp_path / "few.tsv"
    path.write_text(
        "query\tdocument\tlabel\n" + "".join(f"{q}\t{d}\t{label}\n" for q, d, label in rows), encoding="utf-8"
    )
    return {"train": str(path)}


def test_a_stated_loss_that_learns_nothing_is_refused_before_the_student_is_trained(tiny_run, tmp_path):
    data = pairs_of(tmp_path, [(f"query {i}", f"document {i}", 1) for i in range(40)])
    run = tiny_run(**{**LEARNS_FROM_BI, "student": {**BI_STUDENT, "control": {"loss": "cosent"}}}, data=data)
    with pytest.raises(BadInput, match=r"student\.control\.loss cosent: .* every training label is 1"):
        check_control(run)
    run = tiny_run(**LEARNS_FROM_BI, data=data)
    check_control(run)
    assert losses_on_labels(run) == ["infonce"]
    low = pairs_of(tmp_path, [(f"query {i}", f"document {i}", 0.1 * (i % 2)) for i in range(40)])
    run = tiny_run(**{**LEARNS_FROM_BI, "student": {**BI_STUDENT, "control": {"loss": "infonce"}}}, data=low)
    with pytest.raises(BadInput, match=r"control\.loss infonce: .* no training label is 0\.5 or more"):
        check_control(run)


def test_steps_of_one_query_hold_an_order_of_its_candidates(tiny_run):
    one = {**BI_STUDENT, "training": {"global_batch": 1, "micro_batch": 1}}
    run = tiny_run(**{**LEARNS_FROM_BI, "student": one}, data={**SHORT, "candidates": 4})
    assert "cosent" in losses_on_labels(run)
    assert "cosent" not in losses_on_labels(tiny_run(**{**LEARNS_FROM_BI, "student": one}, data=SHORT))


@pytest.mark.parametrize("name", ["bi", "cross"])
def test_a_teacher_learns_the_order_of_labels(tiny_run, name):
    teacher = {"kind": f"{name}_encoder", "backbone": BACKBONE, "max_length": 64, "loss": "cosent"}
    run = tiny_run(
        teachers={"cross": None, name: teacher},
        student=None,
        objectives={"score_match": None, "labels": None},
        data=SHORT,
    )
    train_teachers(run)
    assert read_card(run.teacher(name)).details["training"]["step"] > 0


def test_a_step_of_one_pair_has_no_order(tiny_run):
    with pytest.raises(ValueError, match=r"student\.control\.loss: cosent compares the pairs of a step"):
        student = {**BI_STUDENT, "control": {"loss": "cosent"}, "training": {"global_batch": 1, "micro_batch": 1}}
        tiny_run(**{**LEARNS_FROM_BI, "student": student})


def test_a_loss_of_another_kind_is_refused(tiny_run):
    with pytest.raises(ValueError, match=r"student\.control\.loss: a bi_encoder learns labels by .* not mse"):
        tiny_run(**{**LEARNS_FROM_BI, "student": {**BI_STUDENT, "control": {"loss": "mse"}}})


def test_the_student_learns_from_all_pairs_and_the_others_from_the_labelled_ones(tiny_run):
    data = {**SHORT, "max_labelled": 32}
    student, control = finished(run := tiny_run(**LEARNS_FROM_BI, data=data))
    n_train, n_more = len(run.split.train), len(run.split.unlabelled_pairs)
    assert 28 < n_train + len(run.split.validation) <= 32  # whole queries; few labels to pick a checkpoint by, too
    assert len(taught_pairs(run)) == n_train + n_more and np.isnan(taught_pairs(run).labels).sum() == n_more
    teacher = read_card(run.teacher("bi"))
    assert teacher.details["training"]["step"] == 1  # at most 32 pairs in a step of 32
    assert student.details["training"]["step"] == control.details["training"]["step"] > 1
    (manifest,) = run.signals("bi").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["items"]["scores"] == n_train + n_more


@pytest.mark.slow
def test_a_bi_encoder_finds_pairs_for_the_student(tiny_run):
    data = {**SHORT, "unlabelled_pairs": {"from": "bi", "per_query": 3}}
    student, _ = finished(run := tiny_run(**LEARNS_FROM_BI, data=data))
    found = find_pairs(run.teacher("bi"), run.split.train, per_query=3, max_length=64)
    assert len(found) == 3 * len(set(run.split.train.queries))
    labelled = set(zip(run.split.train.queries, run.split.train.documents, strict=True))
    new = [pair for pair in zip(found.queries, found.documents, strict=True) if pair not in labelled]
    assert len(taught_pairs(run)) == len(run.split.train) + len(new)
    held_out = {*run.split.evaluation.queries, *run.split.evaluation.documents}
    assert held_out.isdisjoint([*taught_pairs(run).queries, *taught_pairs(run).documents])
    assert student.details["training"]["step"] > 3


def test_pairs_are_found_by_a_teacher_that_embeds(tiny_run):
    with pytest.raises(ValueError, match=r"data\.unlabelled_pairs\.0\.from: cross is a cross_encoder"):
        tiny_run(data={**SHORT, "unlabelled_pairs": [{"from": "cross"}]})


def test_unlabelled_pairs_of_a_file(tiny_run, tmp_path):
    evaluation = tiny_run(data=SHORT).split.evaluation
    path = tmp_path / "pairs.tsv"
    rows = ["new query\tnew document", "new query\tnew document", f"{evaluation.queries[0]}\tnew document"]
    path.write_text("\n".join(["q\td", *rows]) + "\n", encoding="utf-8")
    given = {"path": str(path), "columns": {"query": "q", "document": "d"}}
    split = tiny_run(data={**SHORT, "unlabelled_pairs": [given]}).split
    assert (split.unlabelled_pairs.queries, split.unlabelled_pairs.documents) == (["new query"], ["new document"])
    assert "1 unlabelled pair holds a held-out text and was left out of training" in split.notes
    path.write_text(f"q\td\n{evaluation.queries[0]}\tx\n", encoding="utf-8")
    with pytest.raises(BadInput, match="none of 1 pair without labels is left: 1 pair holds a text of the validation"):
        _ = tiny_run(data={**SHORT, "unlabelled_pairs": [given]}).split


def test_bundled_pairs_without_labels_are_others_than_the_labelled_ones(tiny_run):
    split = tiny_run(
        data={"train": "bundled", "bundled_pairs": 80, "unlabelled_pairs": [{"bundled": 40}], "labelled_share": 0.5}
    ).split
    known = {*split.train.queries, *split.validation.queries, *split.evaluation.queries}
    rest = len(split.unlabelled_pairs) - 40
    assert rest > 0 and abs(len(split.train) + len(split.validation) - rest) <= 4
    assert known.isdisjoint(split.unlabelled_pairs.queries[rest:])
    assert split.unlabelled_pairs.labels is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no source given"),
        ({"path": "x.tsv", "bundled": 3}, "path and bundled given"),
        ({"bundled": 3, "max_pairs": 2}, "belong to path"),
    ],
)
def test_one_source_each(tiny_run, given, said):
    with pytest.raises(ValueError, match=said):
        tiny_run(data={**SHORT, "unlabelled_pairs": [given]})


@pytest.mark.slow
def test_student_trials_and_control_read_tokens_that_are_made_once(tiny_run, monkeypatch):
    """Large sets are tokenised once for all of them; the weights are those of tokens in memory."""
    changes = {**LEARNS_FROM_BI, "data": SHORT}
    finished(tiny_run(**changes))
    made, sizes = token_files.token_parts, []
    monkeypatch.setattr(token_files, "LEAST_SEQUENCES", 1)
    monkeypatch.setattr(token_files, "token_parts", lambda *given, **named: sizes.append(1) or made(*given, **named))
    run = tiny_run("on_disk", **changes)
    finished(run)
    assert len(sizes) == 2  # training and validation; not twice for four trials, the control and the student each
    assert not run.tokens.exists()
    for model in ("student", "control"):
        assert files_equal(tiny_run(**changes).folder / model, run.folder / model), model


def files_equal(one, other):
    return (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("in_full", "kept"), [([0.5, 0.75], 1), ([0.5, 0.4, 0.45], "trial"), ([0.5, None, 0.71], 2)])
def test_a_learning_rate_too_high_for_labels_is_lowered(tiny_run, monkeypatch, caplog, in_full, kept):
    """A trial has 0.7 on the validation pairs; of the long trainings the first that is not worse ends the search."""
    left, asked = list(in_full), []
    train = control_module._Trainer.train

    def valued(self, name, way, steps):
        training = train(self, name, way, steps)
        asked.append((name, way.learning_rate, steps))
        if name.startswith("control_trial"):
            return replace(training, value=0.7 if way.loss == "bce" else 0.6)
        value = left.pop(0)
        if value is None:
            raise JobFailed("the loss is not finite")
        return replace(training, value=value)

    monkeypatch.setattr(control_module._Trainer, "train", valued)
    monkeypatch.setattr(control_module, "_is_worse", lambda run, one, other: True)
    student = {**BI_STUDENT, "control": {"steps": 12, "trial_share": 0.1}}
    run = tiny_run(**{**LEARNS_FROM_BI, "student": student}, data=SHORT)
    student_rate = run.recipe.student.training.learning_rate
    _, control = finished(run)
    assert left == []
    assert [steps for *_, steps in asked] == [10] * 4 + [12] * len(in_full)
    rates = [rate for _, rate, steps in asked if steps == 12]
    assert rates == [None, *(pytest.approx(student_rate / divisor, rel=0.01) for divisor in (3, 9)[: len(rates) - 1])]
    said = control.details["control"]
    assert said["loss"] == "bce" and list(said["in_full"].values()) == [value for value in in_full if value is not None]
    assert control.details["training"]["step"] == said["steps"] == (10 if kept == "trial" else 12)
    assert said.get("learning_rate") == (None if kept == "trial" else rates[kept])
    assert "the learning rate is too high for labels" in caplog.text
    train_student(run)  # finished is finished
    assert len(asked) == 4 + len(in_full) and not (run.work / "control_trials").exists()


def test_scoring_trials_leaves_the_threads_of_the_training(tiny_run):
    run = tiny_run(**{**LEARNS_FROM_BI, "benchmark": {"threads": 2}}, data=SHORT)
    cards = finished(run)
    assert len(cards[1].details["control"]["in_full"]) > 1
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert len(control_module._scores(run, run.control, run.split.validation)) == len(run.split.validation)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_only_what_is_shown_to_be_worse_is_left_after_its_trial(tiny_run, monkeypatch):
    """CoSENT ranks the validation pairs right, BCE nearly, InfoNCE by chance, contrastive failed."""
    run = tiny_run(**LEARNS_FROM_BI)
    labels = run.split.validation.labels
    noise = np.random.default_rng(0).normal(size=len(labels))
    scores = {"cosent": labels + 0.01 * noise, "bce": labels + 0.3 * noise, "infonce": noise, "built": -noise}
    monkeypatch.setattr(control_module, "_scores", lambda run, folder, pairs: scores[folder.name])
    values = {"cosent": 1.0, "bce": 0.9, "infonce": 0.5}
    trials = [
        control_module._Training(control_module._Way(loss), 10, run.folder / loss, values[loss]) for loss in values
    ]
    ways = [control_module._Way("contrastive"), *(trial.way for trial in trials)]

    def undecided():
        return [way.loss for way in control_module._undecided(run, ways, trials, trials[0])]

    assert undecided() == ["cosent", "bce"]
    scores["infonce"] = np.zeros(len(labels))  # ranks nothing
    assert undecided() == ["cosent", "bce"]
    scores["built"] = scores["cosent"]  # the untrained student is as good: no trial has learned anything
    assert undecided() == ["cosent", "bce", "infonce"]
    unranked = [replace(trial, value=None) for trial in trials]
    assert control_module._undecided(run, ways, unranked, unranked[0]) == [unranked[0].way]


def test_pairs_that_define_no_interval_show_nothing(monkeypatch):
    """All matches belong to one of two queries: a resample often has no match, or nothing else."""
    pairs = Pairs(["a"] * 3 + ["b"] * 3, list("cdefgh"), labels=np.repeat([1.0, 0.0], 3))
    scores = {"one": np.arange(6.0), "other": -np.arange(6.0)}
    monkeypatch.setattr(control_module, "_scores", lambda run, folder, pairs: scores[folder.name])
    shown = []
    for seed in range(4):
        run = SimpleNamespace(split=SimpleNamespace(validation=pairs), recipe=SimpleNamespace(seed=seed))
        shown.append(control_module._is_worse(run, Path("one"), Path("other")))
    assert False in shown
