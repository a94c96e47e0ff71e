"""Scores become probabilities, and a threshold is found: fits, the file beside a model, hand-worked numbers."""

import json

import numpy as np
import pytest

from distill.errors import BadInput
from distill.files.artefact import CALIBRATION, revision
from distill.metrics.calibration import CALIBRATION_KINDS, Calibration, fit_calibration
from distill.metrics.columns import ScoredColumns
from distill.metrics.measures import Bootstrap
from distill.metrics.operating_point import point_at, precision_and_recall, threshold_for
from distill.models.stored_calibration import StoredCalibration, read_calibration, write_calibration
from distill.recipe.schema import Recipe, ScoreCalibration

RNG = np.random.default_rng(0)
N = 4000
LATENT = RNG.normal(0, 2, N)
LABELS = (RNG.random(N) < 1 / (1 + np.exp(-LATENT))).astype(np.float64)
GRID = np.linspace(-12, 12, 501)


def unit(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64)))


@pytest.mark.parametrize("kind", CALIBRATION_KINDS)
def test_a_fit_gives_the_probabilities_that_labels_were_drawn_with(kind):
    fitted = fit_calibration(kind, "cross_encoder", 5 * LATENT, LABELS)
    grid = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    np.testing.assert_allclose(fitted(5 * grid), unit(grid), atol=0.06)
    assert (np.diff(fitted(GRID)) >= 0).all() and 0 <= fitted(GRID).min() and fitted(GRID).max() <= 1


def test_isotonic_steps_are_those_of_scikit_learn():
    from sklearn.isotonic import IsotonicRegression

    fitted = fit_calibration("isotonic", "cross_encoder", LATENT, LABELS)
    theirs = IsotonicRegression(y_min=1e-3, y_max=1 - 1e-3, out_of_bounds="clip").fit(LATENT, LABELS)
    np.testing.assert_allclose(fitted(GRID), theirs.predict(GRID), atol=1e-12)


def test_no_number_overflows():
    told = Calibration("platt", "cross_encoder", slope=50.0)(np.array([-1e6, 1e6]))
    assert told.tolist() == [0.0, 1.0]
    cosines = Calibration("temperature", "bi_encoder", slope=2.0)(np.array([-1.0, 0.0, 1.0]))
    assert np.isfinite(cosines).all() and cosines[1] == 0.5


@pytest.mark.parametrize("scores", [-LATENT, np.zeros(N), np.where(np.arange(N) == 3, np.nan, LATENT)])
def test_scores_that_do_not_rise_with_the_labels_have_no_calibration(scores):
    assert fit_calibration("platt", "cross_encoder", scores, LABELS) is None
    assert fit_calibration("platt", "cross_encoder", LATENT, np.ones(N)) is None


# ---------------------------------------------------------------------------------------------------------------------
# The file
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CALIBRATION_KINDS)
def test_what_is_written_is_read_again(kind, tmp_path):
    before = revision(tmp_path)
    fitted = fit_calibration(kind, "bi_encoder", np.tanh(LATENT / 3), LABELS)
    stored = StoredCalibration(fitted, 0.25, {"by": "precision", "share": 0.9}, {"revision": "abc", "pairs": N})
    write_calibration(tmp_path, stored)
    again = read_calibration(tmp_path, "bi_encoder")
    np.testing.assert_allclose(again.calibration(GRID / 12), fitted(GRID / 12), rtol=1e-12)
    assert (again.threshold, again.operating_point, again.fitted) == (0.25, stored.operating_point, stored.fitted)
    assert revision(tmp_path) == before  # it describes the model


def test_a_folder_without_the_file_has_none(tmp_path):
    assert read_calibration(tmp_path, "bi_encoder") is None


PLATT = {"kind": "platt", "model": "bi_encoder", "slope": 4.0, "bias": -1.0}
STEPS = {"kind": "isotonic", "model": "bi_encoder", "scores": [0.0, 0.5], "probabilities": [0.1, 0.9]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not valid JSON"),
        ("[1]", "is to hold an object"),
        ("[" * 100_000, "not valid JSON"),
        ({}, "kind None; platt, isotonic, temperature are known"),
        (PLATT | {"kind": ["platt"]}, "kind list; platt, isotonic"),
        (PLATT | {"kind": "sigmoid"}, "kind sigmoid"),
        (PLATT | {"model": "cross_encoder"}, "for the scores of a cross_encoder, and this is a bi_encoder"),
        (PLATT | {"slope": float("nan")}, "slope is nan; a finite number"),
        (PLATT | {"slope": float("inf")}, "slope is inf; a finite number"),
        (PLATT | {"slope": 10**400}, "a finite number"),
        (PLATT | {"slope": 0}, "slope is 0; a number above 0"),
        (PLATT | {"slope": -3.0}, "slope is -3; a number above 0"),
        (PLATT | {"slope": True}, "slope is True; a finite number"),
        (PLATT | {"bias": None}, "bias is None; a finite number"),
        ({"kind": "temperature", "model": "bi_encoder", "temperature": 0}, "temperature is 0"),
        (STEPS | {"scores": [0.5, 0.0]}, "its scores do not rise"),
        (STEPS | {"scores": [0.5, 0.5]}, "its scores do not rise"),
        (STEPS | {"probabilities": [0.9, 0.1]}, "its probabilities fall"),
        (STEPS | {"probabilities": [0.1, 1.5]}, "leave \\[0, 1\\]"),
        (STEPS | {"probabilities": [0.1]}, "no list of 2 to 100,000"),
        (STEPS | {"scores": [0.0, 0.1, 0.2]}, "3 scores and 2 probabilities"),
        (STEPS | {"scores": [0.0, "1"]}, "scores is 1; a finite number"),
        (STEPS | {"scores": list(range(100_001))}, "no list of 2 to 100,000"),
        (PLATT | {"padding": "x" * 4_100_000}, "more than 4 MB"),
        (PLATT | {"threshold": [0.5]}, "threshold is list, no object"),
        (PLATT | {"threshold": {"score": float("nan")}}, "threshold.score is nan"),
        (PLATT | {"threshold": {}}, "threshold.score is None"),
        (PLATT | {"fitted": 3}, "fitted is 3, no object"),
    ],
)
def test_a_file_of_somebody_else_is_refused(content, says, tmp_path):
    (tmp_path / CALIBRATION).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(BadInput, match=says) as refused:
        read_calibration(tmp_path, "bi_encoder")
    assert len(str(refused.value)) < 600 and "\n" not in str(refused.value)


def test_a_folder_of_that_name_is_refused(tmp_path):
    (tmp_path / CALIBRATION).mkdir()
    with pytest.raises(BadInput, match="is no file"):
        read_calibration(tmp_path, "bi_encoder")


# ---------------------------------------------------------------------------------------------------------------------
# The threshold
# ---------------------------------------------------------------------------------------------------------------------

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.04, 0.03])
MATCHES = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 0], dtype=float)


def realised(rule, n=300, share=0.8):
    """What a threshold's precision is on other pairs, over draws of labels from known probabilities: its mean, and its distance."""
    rng, found = np.random.default_rng(5), []
    for _ in range(60):
        scores = rng.normal(-2, 1.5, n)
        threshold = rule(scores, (rng.random(n) < unit(scores)).astype(float), share)
        if threshold is not None:
            fresh = rng.normal(-2, 1.5, 50_000)
            found.append(unit(fresh[fresh >= threshold]).mean())
    return np.mean(found), np.abs(np.array(found) - share).mean()


def lowest_that_reaches(scores, labels, share):
    order = np.argsort(-scores)
    reached = np.flatnonzero(np.cumsum(labels[order]) >= share * np.arange(1, len(scores) + 1))
    return scores[order[reached[-1]]] if len(reached) else None


def test_a_threshold_keeps_its_precision_on_other_pairs():
    mean, distance = realised(lambda *pairs: threshold_for(*pairs[:2], precision=pairs[2]))
    assert mean == pytest.approx(0.8, abs=0.01)
    searched, further = realised(lowest_that_reaches)  # which looks for it where the sample is good
    assert searched < 0.78 and further > 1.3 * distance


def test_the_lowest_threshold_of_a_precision():
    threshold = threshold_for(LATENT, LABELS, precision=0.9)
    reaches = np.sort(LATENT[LATENT >= threshold])
    fitted = fit_calibration("platt", "cross_encoder", LATENT, LABELS)
    assert fitted(reaches).mean() >= 0.9 > fitted(np.append(reaches, LATENT[LATENT < threshold].max())).mean()
    assert threshold_for(LATENT, LABELS, precision=0.99999) is None
    assert threshold_for(-LATENT, LABELS, precision=0.9) is None
    assert threshold_for(SCORES, np.ones(12), precision=0.9) is None
    assert threshold_for(np.ones(12), MATCHES, precision=0.5) is None


def test_the_highest_threshold_of_a_recall():
    assert threshold_for(SCORES, MATCHES, recall=8 / 9) == pytest.approx(0.15)
    assert threshold_for(SCORES, MATCHES, recall=0.01) == pytest.approx(0.85)
    assert threshold_for(SCORES, MATCHES, recall=1.0) == pytest.approx(0.045)
    assert threshold_for(SCORES, np.zeros(12), recall=0.5) is None


def test_equal_scores_are_called_together():
    scores, labels = np.repeat([0.9, 0.5, 0.1], 10), np.r_[np.ones(10), np.ones(5), np.zeros(15)]
    assert threshold_for(scores, labels, recall=0.6) == pytest.approx(0.7)
    assert threshold_for(scores, labels, recall=0.7) == pytest.approx(0.3)


def test_precision_and_recall_at_a_threshold_with_intervals():
    assert point_at(SCORES, MATCHES, 0.15) == (1.0, 8 / 9)
    assert point_at(SCORES, MATCHES, 2.0) == (None, 0.0) and point_at(SCORES, np.zeros(12), 0.5) == (0.0, None)
    columns = ScoredColumns.checked(LATENT, LABELS)
    precision, recall = precision_and_recall(columns, 1.0, Bootstrap(300, 0))
    assert (precision.value, recall.value) == point_at(LATENT, LABELS, 1.0)
    called = int((LATENT >= 1).sum())
    width = 2 * 1.96 * np.sqrt(precision.value * (1 - precision.value) / called)
    assert precision.n == called and precision.high - precision.low == pytest.approx(width, rel=0.15)
    assert recall.n == int(LABELS.sum()) and recall.low < recall.value < recall.high
    assert precision_and_recall(columns, 99.0, Bootstrap(50, 0))[0] is None


# ---------------------------------------------------------------------------------------------------------------------
# The recipe
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"kind": "sigmoid"}, "platt"),
        ({"kind": "none", "threshold": {"precision": 0.9}}, "stored with a calibration, and kind is none"),
        ({"threshold": {}}, "nothing given; name one of precision, recall"),
        ({"threshold": {"precision": 0.9, "recall": 0.9}}, "precision and recall given"),
        ({"threshold": {"precision": 1.0}}, "less than 1"),
        ({"threshold": {"recall": 0.9, "equal": "recall"}}, "equal belongs to value"),
    ],
)
def test_a_section_that_contradicts_itself(section, says):
    with pytest.raises(ValueError, match=says):
        ScoreCalibration.model_validate(section)


def test_a_teachers_threshold_takes_a_teacher():
    student = {"kind": "bi_encoder", "backbone": {}, "calibration": {"threshold": {"value": 0.5}}}
    with pytest.raises(ValueError, match="student.calibration.threshold.value: it is a teacher's threshold"):
        Recipe.model_validate({"name": "r", "data": {"train": "bundled"}, "student": student})
