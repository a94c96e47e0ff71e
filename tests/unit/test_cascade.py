"""The cascade's three functions on scores whose truth is known."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from distill import dial
from distill.cascade import Cascade, fit_cascade, top_k_of_queries
from distill.errors import BadInput, JobFailed


def two_models(n=4000, seed=0):
    """A student that sees half of what decides a label, and a teacher that sees all of it."""
    rng = np.random.default_rng(seed)
    easy, hard = rng.normal(size=n), rng.normal(size=n)
    labels = (rng.random(n) < expit(3 * easy + 3 * hard)).astype(float)
    return 2 * easy + 1, 3 * easy + 3 * hard, labels


@pytest.fixture(scope="module")
def fitted():
    return fit_cascade(*two_models())


def test_alone_keeps_the_students_order_and_is_calibrated(fitted):
    student, _, labels = two_models(seed=1)
    probabilities = fitted.alone(student)
    assert (np.diff(probabilities[np.argsort(student)]) >= 0).all()
    middle = (probabilities > 0.4) & (probabilities < 0.6)
    assert labels[middle].mean() == pytest.approx(0.5, abs=0.06)


def test_together_finds_the_true_weights():
    student, teacher, labels = two_models(40_000)
    c, d, e = fit_cascade(student, teacher, labels).both
    # the label's log-odds are the teacher's score: the student has nothing to add, in its own units
    assert d == pytest.approx(1, abs=0.08)
    assert c * 2 == pytest.approx(0, abs=0.15)
    assert e + c == pytest.approx(0, abs=0.1)


def test_doubt_is_high_in_the_middle_of_yes_and_no(fitted):
    middle, ends = fitted.doubt(np.array([1.0])), fitted.doubt(np.array([-6.0, 8.0]))
    assert (middle > 3 * ends).all()


def test_doubt_of_grades_is_where_the_models_part():
    rng = np.random.default_rng(0)
    labels = rng.random(4000)
    student = np.where(labels < 0.3, 0.3 * rng.random(4000), labels)  # blind below 0.3
    cascade = fit_cascade(student, labels, labels)
    assert cascade.doubt(np.array([0.15])) > 3 * cascade.doubt(np.array([0.7]))


def test_routed_is_exactly_the_share_of_most_doubt(fitted):
    student, *_ = two_models(seed=2)
    for share in (0, 0.1, 0.33, 1):
        routed = fitted.routed(student, share)
        assert routed.sum() == round(share * len(student))
        if 0 < share < 1:
            assert fitted.doubt(student[routed]).min() >= fitted.doubt(student[~routed]).max()
    assert fitted.level(student, 0) == float("inf")
    assert (fitted.doubt(student) >= fitted.level(student, 0.25)).mean() == pytest.approx(0.25, abs=0.02)


def test_asking_where_in_doubt_beats_asking_blindly(fitted):
    student, teacher, labels = two_models(seed=3)
    routed = fitted.routed(student, 0.3)
    chosen = roc_auc_score(labels, fitted.combined(student, teacher, routed))
    blind = roc_auc_score(labels, fitted.combined(student, teacher, np.random.default_rng(0).permutation(routed)))
    alone = roc_auc_score(labels, student)
    assert chosen > blind + 0.01 > alone


def test_ends_of_the_dial_are_the_models(fitted):
    student, teacher, _ = two_models(seed=4)
    none, every = np.zeros(len(student), bool), np.ones(len(student), bool)
    assert np.array_equal(fitted.combined(student, np.full(len(student), np.nan), none), fitted.alone(student))
    assert np.array_equal(fitted.combined(student, teacher, every), fitted.together(student, teacher))


def test_is_stored_without_loss(fitted):
    assert Cascade.model_validate_json(fitted.model_dump_json()) == fitted


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ((np.arange(9.0), np.arange(9.0), np.ones(9)), "9 held-back pairs"),
        ((np.arange(60.0), np.arange(60.0), np.ones(60)), "labels of the held-back pairs are all 1"),
        ((np.zeros(60), np.arange(60.0), np.arange(60) / 60), "student's scores of the held-back pairs are all 0"),
    ],
)
def test_what_cannot_be_fitted_is_said(columns, said):
    with pytest.raises(BadInput, match=said):
        fit_cascade(*columns)


def test_student_that_is_upside_down_is_refused():
    student, teacher, labels = two_models()
    with pytest.raises(JobFailed, match="do not rise with the labels"):
        fit_cascade(-student, teacher, labels)


def test_top_k_of_each_query():
    queries = ["a", "b", "a", "b", "a"]
    scores = np.array([0.3, 0.2, 0.9, 0.8, 0.3])
    assert top_k_of_queries(queries, scores, 1).tolist() == [False, False, True, True, False]
    assert top_k_of_queries(queries, scores, 2).tolist() == [True, True, True, True, False]  # the earlier of two ties
    assert not top_k_of_queries(queries, scores, 0).any()
    assert top_k_of_queries([], np.zeros(0), 3).shape == (0,)


def place(share, cost, teacher, student):
    """A position of a dial with its differences to both models, as (low, high)."""
    return {
        "share": share,
        "share_of_teacher_cost": cost,
        "minus_teacher": {"low": teacher[0], "high": teacher[1]},
        "minus_student": {"low": student[0], "high": student[1]},
    }


ALONE, SAME = place(0.0, 0.2, (-0.05, -0.01), (0.0, 0.0)), (-0.01, 0.01)


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ([ALONE, place(0.5, 0.7, (-0.03, -0.01), SAME)], "no share equals the teacher's spearman; beats no single model of equal cost"),
        (
            [ALONE, place(0.5, 0.7, SAME, (0.01, 0.03))],
            "equals the teacher's spearman within the interval from 50% of the pairs on, at 70% of its cost; "
            "beats the student alone, at no more than the teacher's cost, from 50% on",
        ),
        (
            [ALONE, place(0.5, 0.7, (0.01, 0.03), (0.02, 0.04))],
            "equals the teacher's spearman within the interval from 50% of the pairs on, at 70% of its cost; "
            "beats the teacher alone, at no more than the teacher's cost, from 50% on",
        ),
        (
            [place(0.0, 0.13, (0.01, 0.03), (0.0, 0.0)), place(0.5, 0.63, (0.01, 0.03), SAME)],
            "the student alone beats the teacher's spearman, at 13% of its cost; beats no single model of equal cost",
        ),
        (
            [ALONE, place(1.0, 1.2, (0.01, 0.03), (0.01, 0.03))],
            "equals the teacher's spearman within the interval from 100% of the pairs on, at 120% of its cost; "
            "beats no single model of equal cost",
        ),
    ],
)  # fmt: skip
def test_the_verdict_is_about_models_of_equal_cost(positions, words):
    assert dial._verdict("spearman", positions) == words
