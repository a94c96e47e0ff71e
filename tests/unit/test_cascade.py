"""The cascade's three functions on scores whose truth is known."""

import tracemalloc

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from distill.errors import BadInput, JobFailed
from distill.evaluation.cascade_words import say_chosen, say_validation
from distill.metrics.logistic import unit_scores
from distill.metrics.measures import Estimate
from distill.metrics.noninferiority import Claim, holm, judged, one_sided_p
from distill.scorers.cascade import Cascade, fit_cascade, top_k_of_queries


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


def test_alone_keeps_the_order_of_pairs_that_match_nearly_certainly_not(fitted):
    far = Cascade(**{**fitted.model_dump(), "student": (4.0, -2.0)})
    student = np.array([-12.0, -10.0, -9.5, -9.0, -8.0])  # log-odds of -50 to -34
    np.testing.assert_allclose(far.alone(student), expit(4 * student - 2), rtol=1e-14)
    np.testing.assert_allclose(unit_scores("cross_encoder", 4 * student), expit(4 * student), rtol=1e-6)


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
    assert top_k_of_queries(["a", "a\0"], np.zeros(2), 1).all()  # two queries


def test_one_long_query_does_not_make_room_for_all_others_as_long():
    queries = ["long " * 10_000, *(f"query {i}" for i in range(500))]
    tracemalloc.start()
    chosen = top_k_of_queries(queries, np.zeros(len(queries)), 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert chosen.all() and peak < 1_000_000  # 100 MB as an array of texts


def test_p_is_the_share_of_resamples_at_or_below_the_bound():
    samples = np.array([-0.03, -0.01, 0.0, 0.01, 0.02, 0.02, 0.03, 0.04, 0.05])
    assert one_sided_p(samples, -0.02) == pytest.approx(2 / 10)  # (1 + one) / (1 + 9)
    assert one_sided_p(samples, -0.01) == pytest.approx(3 / 10)  # at the bound is not above it
    assert one_sided_p(samples, 0) == pytest.approx(4 / 10)
    assert one_sided_p(np.array([0.1, np.nan, 0.1]), 0) == pytest.approx(2 / 4)  # undefined counts against
    assert one_sided_p(np.ones(39), 0) == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        ([], []),
        ([0.02], [0.02]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 4·.005, 3·.01, 2·.03, then .04 raised to .06
        ([0.6, 0.5], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm(given, corrected):
    assert holm(given) == pytest.approx(corrected)


def claim(samples, bound):
    low, high = np.percentile(samples, [2.5, 97.5])
    return Claim(Estimate(float(np.mean(samples)), float(low), float(high), 100), np.asarray(samples), bound)


def test_equals_needs_the_margin_and_not_an_interval_that_reaches_0():
    wide, narrow = np.linspace(-0.05, 0.05, 1001), np.linspace(-0.008, 0.002, 1001)
    assert not judged([claim(wide, -0.01)])[0]["holds"]  # reaches 0, and tells nothing
    test = judged([claim(narrow, -0.01)])[0]
    assert test["holds"] and test["low"] > -0.01 and test["value"] < 0
    worse = judged([claim(narrow - 0.005, -0.01)])[0]
    assert not worse["holds"] and worse["p"] == pytest.approx((1 + 300 + 1) / 1002, abs=0.002)  # −.013 … −.003


def test_what_one_test_shows_several_need_not():
    samples = np.r_[np.full(20, -0.02), np.zeros(979)]  # p = 21 / 1000
    assert judged([claim(samples, -0.01)])[0]["holds"]
    both = judged([claim(samples, -0.01)] * 2)
    assert [test["p_holm"] for test in both] == pytest.approx([0.042, 0.042])
    assert not any(test["holds"] for test in both)


def difference(value, low, high, holds):
    return {"value": value, "low": low, "high": high, "holds": holds}


def validation(*differences, chosen=1.0, equal=None, by="validation", n_pairs=400):
    positions = [
        {"share": share, "minus_teacher": one} for share, one in zip((0.0, 0.2, 1.0), differences, strict=True)
    ]
    return {
        "n_pairs": n_pairs,
        "margin": 0.01,
        "n_tested": 3,
        "positions": positions,
        "chosen_by": by,
        "top_k": None,
        "chosen_share": chosen,
        "equal_from": equal,
    }


WORSE, WIDE, EQUAL = (
    difference(-0.05, -0.06, -0.04, False),
    difference(0, -0.02, 0.02, False),
    difference(-0.001, -0.004, 0.002, True),
)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            validation(WORSE, EQUAL, EQUAL, chosen=0.2, equal=0.2),
            "On 400 validation pairs 20% of the pairs is the least share that equals the teacher's spearman within the margin of "
            "0.01 (3 shares tested, Holm)",
        ),
        (
            validation(EQUAL, EQUAL, EQUAL, chosen=0.0, equal=0.0),
            "On 400 validation pairs the student alone equals the teacher's spearman within the margin of 0.01 (3 shares tested, Holm)",
        ),
        (
            validation(WORSE, WORSE, WORSE),
            "On 400 validation pairs no share is shown to be one that equals the teacher's spearman within the margin of 0.01 "
            "(3 shares tested, Holm): each is worse by more; so every pair goes to the teacher",
        ),
        (
            validation(WORSE, WIDE, WIDE),
            "On 400 validation pairs no share is shown to be one that equals the teacher's spearman within the margin of 0.01 "
            "(3 shares tested, Holm): the pairs are too few to tell, the narrowest interval of cascade − teacher is ±0.02 wide; "
            "at least 1,600 validation pairs are needed for this margin; so every pair goes to the teacher",
        ),
        (
            validation(WORSE, EQUAL, EQUAL, chosen=0.1, equal=0.2, by="recipe"),
            "On 400 validation pairs 20% of the pairs is the least share that equals the teacher's spearman within the margin of "
            "0.01 (3 shares tested, Holm); the recipe asks for a share of 10%",
        ),
    ],
)
def test_what_the_validation_pairs_say(told, words):
    assert say_validation("spearman", told) == words


@pytest.mark.parametrize(
    ("equals", "beats", "student", "share", "words"),
    [
        (EQUAL, False, True, 0.2, "it equals the teacher within the margin of 0.01 and beats the student alone"),
        (EQUAL, True, False, 0.2, "it beats the teacher, and is not shown to beat the student alone"),
        (
            WORSE,
            False,
            True,
            0.2,
            "it is worse than the teacher by more than the margin of 0.01 and beats the student alone",
        ),
        (EQUAL, False, None, 0.0, "it equals the teacher within the margin of 0.01"),
        (
            WIDE,
            False,
            True,
            0.2,
            "not shown to equal the teacher within the margin of 0.01: the pairs are too few to tell, the narrowest interval of "
            "cascade − teacher is ±0.02 wide; at least 4,000 evaluation pairs are needed for this margin and beats the student alone",
        ),
    ],
)
def test_what_the_evaluation_pairs_say(equals, beats, student, share, words):
    tests = {"equals_teacher": equals, "beats_teacher": {"holds": beats}}
    if student is not None:
        tests["beats_student"] = {"holds": student}
    chosen = {
        "share": share,
        "n_pairs": 1000,
        "margin": 0.01,
        "spearman": {"value": 0.8},
        "share_of_teacher_cost": 0.3,
        "n_tested": len(tests),
        "tests": tests,
    }
    said = say_chosen("spearman", chosen)
    assert said.startswith("On 1,000 evaluation pairs ")
    assert said.endswith(f"at 30% of its cost: {words} ({len(tests)} comparisons tested, Holm)")


def test_a_cascade_that_costs_more_than_its_teacher_is_said():
    chosen = {
        "share": 1.0,
        "n_pairs": 1000,
        "margin": 0.01,
        "spearman": {"value": 0.8},
        "share_of_teacher_cost": 1.2,
        "n_tested": 2,
        "tests": {"equals_teacher": EQUAL, "beats_teacher": {"holds": False}},
    }
    assert "it costs more than the teacher alone" in say_chosen("spearman", chosen)
