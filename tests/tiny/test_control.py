"""The control is the best that labels alone can do, and pairs without labels are the student's alone."""

import numpy as np
import pytest

from distill.artefact import read_card
from distill.data import held_out_keys
from distill.splitting import text_key
from students import train_student
from students.control import plan_control
from teachers import cache_signals, train_teachers

BI = {"kind": "bi_encoder", "backbone": {"teacher": "bi"}, "layers": [0], "max_length": 64, "control": True}


@pytest.fixture(scope="module")
def few_labels(tmp_path_factory, trained):
    """A bi-encoder student of a finished teacher: 120 labelled pairs, the rest without."""
    from tests.conftest import make_run

    run = make_run(
        tmp_path_factory.mktemp("few") / "run",
        data={"labelled_pairs": 120, "validation_share": 0.25},
        teachers={"cross": {"kind": "bi_encoder", "backbone": str(trained.teacher("bi")), "frozen": True, "head": None}},
        student=BI | {"backbone": {"teacher": "cross"}},
        objectives={"score_match": {"teacher": "cross", "loss": "bce"}, "labels": {"loss": "bce"}},
        training={"evaluations_per_epoch": 1},
    )
    train_teachers(run)
    cache_signals(run)
    train_student(run)
    return run


def test_the_labels_of_the_rest_are_not_read(few_labels):
    split = few_labels.split
    assert len(split.train) + len(split.validation) <= 120 and len(split.unlabelled_pairs) > 50
    assert split.unlabelled_pairs.labels is None
    labels = split.taught.labels
    assert np.isfinite(labels[: len(split.train)]).all() and np.isnan(labels[len(split.train) :]).all()
    held_out = held_out_keys(split.validation, split.evaluation)
    assert held_out.isdisjoint(map(text_key, [*split.unlabelled_pairs.queries, *split.unlabelled_pairs.documents]))


def test_the_student_learns_from_all_pairs_and_the_control_from_the_labelled(few_labels):
    split = few_labels.split
    student, control = (read_card(folder).details for folder in (few_labels.student, few_labels.control))
    assert {"labels", "score_match"} <= set(student["history"][0])
    assert {"labels", "score_match"} & set(control["history"][0]) == {"labels"}
    assert student["inputs"]["data"]["unlabelled_pairs"]["n_pairs"] == len(split.unlabelled_pairs)
    assert "unlabelled_pairs" not in control["inputs"]["data"]


def test_the_control_has_the_best_loss_and_the_students_steps(few_labels):
    student, control = (read_card(folder).details for folder in (few_labels.student, few_labels.control))
    chosen = control["control"]
    assert chosen["losses"] == ["contrastive", "bce", "infonce"] and set(chosen["validation"]) == set(chosen["losses"])
    assert chosen["validation"][chosen["loss"]] == max(chosen["validation"].values())
    assert control["training"]["step"] == chosen["steps"] == student["training"]["step"]
    assert read_card(few_labels.control).parents == {"built": read_card(few_labels.built).revision}
    assert not list(few_labels.work.glob("trial-*"))


def test_a_finished_control_is_kept(few_labels):
    revision = read_card(few_labels.control).revision
    train_student(few_labels)
    assert read_card(few_labels.control).revision == revision and not list(few_labels.work.glob("trial-*"))


@pytest.mark.parametrize(
    ("control", "expected"),
    [(False, None), ({"loss": "bce"}, (("bce",), None, None)), ({"steps": 7, "trial_steps": 3}, (None, 7, 3))],
)
def test_the_recipe_overrides(few_labels, control, expected):
    from distill.recipe import Recipe
    from distill.run import Run

    recipe = few_labels.recipe.model_dump(mode="json")
    recipe["student"]["control"] = control
    run = Run(Recipe.model_validate(recipe))
    plan = plan_control(run)
    if expected is None:
        assert plan is None
        return
    losses, steps, trial = expected
    made = read_card(few_labels.student).details["training"]["step"]
    assert plan.losses == (losses or ("contrastive", "bce", "infonce"))
    assert plan.steps == (steps or made) and plan.trial_steps == (trial or -(-made // 5))
