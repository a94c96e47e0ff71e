"""Several teachers as one: calibrated first, then averaged by fixed, fitted or agreeing weights; with hand-worked numbers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from distill.data.pairs import Pairs
from distill.errors import BadInput, JobFailed
from distill.recipe.objectives import CoSent, EmbeddingMatch, ListNet, MarginMatch, Mixing, Objectives, ScoreMatch
from distill.training.mixtures import (
    MixedSignals,
    agreement,
    calibration,
    check_mixtures,
    fitted_shares,
    join_teachers,
    mix_teachers,
)
from teachers.disagreement import _finding

RNG = np.random.default_rng(0)
N = 4000
LATENT = RNG.normal(0, 2, N)
LABELS = (RNG.random(N) < 1 / (1 + np.exp(-LATENT))).astype(np.float32)
PAIRS = Pairs([f"q{i}" for i in range(N)], [f"d{i}" for i in range(N)], LABELS)


class Told:
    """A source of signals: scores by the pair's number."""

    def __init__(self, scores, kind="cross_encoder"):
        self.all, self.kind, self.width = np.asarray(scores, dtype=np.float32), kind, 0

    def scores(self, queries, documents):
        return self.all[[int(query[1:]) for query in queries]]


def unit(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64)))


@pytest.mark.parametrize("how", ["platt", "temperature", "isotonic"])
def test_a_score_on_another_scale_becomes_the_probability_that_it_stands_for(how):
    """A teacher whose logits are five times too large is calibrated back to them."""
    fitted = calibration("t", Mixing(calibration=how), "cross_encoder", 5 * LATENT, LABELS)
    grid = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    np.testing.assert_allclose(fitted(5 * grid), unit(grid), atol=0.06)


def test_cosines_are_calibrated_too():
    cosines = 0.6 + 0.05 * LATENT  # narrow, as those of many encoders
    platt = calibration("t", Mixing(), "bi_encoder", cosines, LABELS)
    np.testing.assert_allclose(platt(0.6 + 0.05 * np.array([-2.0, 0.0, 2.0])), unit([-2, 0, 2]), atol=0.04)
    wide = calibration("t", Mixing(calibration="temperature"), "bi_encoder", np.tanh(LATENT / 2), LABELS)
    assert wide(np.array([0.0]))[0] == pytest.approx(0.5)


def test_grades_count_as_probabilities():
    grades = unit(LATENT).astype(np.float32)
    platt = calibration("t", Mixing(), "cross_encoder", LATENT, grades)
    np.testing.assert_allclose(platt(np.array([-2.0, 0.0, 2.0])), unit([-2, 0, 2]), atol=0.01)


@pytest.mark.parametrize("scores", [-LATENT, np.zeros(N)])
def test_a_teacher_whose_scores_do_not_rise_with_the_labels_is_refused(scores):
    with pytest.raises(JobFailed, match="scores of teacher bad do not rise with the labels of 4000 validation pairs"):
        calibration("bad", Mixing(), "cross_encoder", scores, LABELS)


def test_fixed_weights_average_probabilities_and_give_their_logit():
    term = ScoreMatch(teachers={"a": 0.6, "b": 0.2})
    mixed = mix_teachers(term, {"a": Told(3 * LATENT), "b": Told(0.5 + 0.1 * LATENT, "bi_encoder")}, PAIRS)
    assert mixed.kind == "cross_encoder" and mixed.shares == {"a": pytest.approx(0.75), "b": pytest.approx(0.25)}
    told = mixed.probabilities(PAIRS.queries[:5], PAIRS.documents[:5])
    p = 0.75 * told[0] + 0.25 * told[1]
    np.testing.assert_allclose(mixed.scores(PAIRS.queries[:5], PAIRS.documents[:5]), np.log(p / (1 - p)), rtol=1e-5)


def test_fitted_weights_go_to_the_better_teacher():
    noise = RNG.normal(0, 6, N)
    sources = {"good": Told(LATENT), "noisy": Told(LATENT + noise)}
    mixed = mix_teachers(ScoreMatch(teachers={"good": 1, "noisy": 1}, mixing=Mixing(weights="fitted")), sources, PAIRS)
    assert mixed.shares["good"] > 0.9 and sum(mixed.shares.values()) == pytest.approx(1)


def test_fitted_shares_are_the_likeliest():
    """Two teachers that are right on other halves: the best share by a grid over all of them."""
    first, second = (np.where(np.arange(N) % 2 == side, unit(LATENT), 0.5) for side in (0, 1))
    [share, _] = fitted_shares(np.stack([first, second]), LABELS, [0.9, 0.1])
    grid = np.linspace(0.01, 0.99, 981)
    mixtures = grid[:, None] * first + (1 - grid[:, None]) * second
    loss = -(LABELS * np.log(mixtures) + (1 - LABELS) * np.log(1 - mixtures)).mean(axis=1)
    assert share == pytest.approx(grid[loss.argmin()], abs=0.01)


def test_by_agreement_an_outlier_counts_less_on_its_pair_alone():
    told = np.array([[0.9, 0.5], [0.9, 0.5], [0.1, 0.5]])
    np.testing.assert_allclose(agreement(told), [[0.6, 1], [0.6, 1], [0.2, 1]])
    mixed = MixedSignals({}, {}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, "agreement")
    # 0.36, 0.36 and 0.04 of 0.76: (0.72 · 0.9 + 0.04 · 0.1) / 0.76
    np.testing.assert_allclose(mixed.mixed(told), [0.652 / 0.76, 0.5])


def test_too_few_or_equal_labels_calibrate_nothing():
    term = {"a 1 + b 1 (fixed, platt)": ScoreMatch(teachers={"a": 1, "b": 1})}
    with pytest.raises(BadInput, match="there are 49; 50 at least are needed: raise data.validation_share"):
        check_mixtures(term, PAIRS.select(range(49)))
    with pytest.raises(BadInput, match="there are 0"):
        check_mixtures(term, Pairs(["q"], ["d"]))
    ones = np.flatnonzero(LABELS == 1)[:60].tolist()
    with pytest.raises(BadInput, match="every validation label is 1"):
        check_mixtures(term, PAIRS.select(ones))


def test_a_mixture_has_no_embeddings():
    with pytest.raises(BadInput, match="no embeddings"):
        MixedSignals({}, {}, {}, "fixed").embeddings([], [])


def test_a_term_names_one_teacher_or_several():
    assert ScoreMatch(teacher="a").taught_by == "a" and ScoreMatch(teacher="a").named == ("a",)
    several = ScoreMatch(teachers={"a": 0.3, "b": 0.7})
    assert several.taught_by == "a 0.3 + b 0.7 (fixed, platt)" and several.named == ("b", "a")
    assert list(several.needs()) == [("b", "scores"), ("a", "scores")]
    assert ListNet().taught_by is None and CoSent(teachers={"a": 1, "b": 1}).taught_by == "a 1 + b 1 (fixed, platt)"
    objectives = Objectives(
        score_match=several, listnet=ListNet(teachers={"a": 0.3, "b": 0.7}), cosent=CoSent(teacher="c")
    )
    assert list(objectives.mixtures()) == [several.taught_by] and objectives.mixed_teachers == {"a", "b"}
    assert objectives.primary_teacher == "b" and objectives.from_teachers
    assert objectives.teachers() == {"a": {"scores"}, "b": {"scores"}, "c": {"scores"}}


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (ScoreMatch, {}, "no teacher is named; set teacher, or teachers"),
        (MarginMatch, {}, "no teacher is named"),
        (ScoreMatch, {"teacher": "a", "teachers": {"b": 1, "c": 1}}, "teacher and teachers both given"),
        (ScoreMatch, {"teachers": {"a": 1}}, "teachers names 1; two or more are expected"),
        (ScoreMatch, {"teacher": "a", "mixing": {}}, "mixing is for several teachers"),
        (ListNet, {"teachers": {"a": 1, "b": 1}, "mixing": {"weights": "agreement"}}, "agreement takes three teachers"),
        (ScoreMatch, {"teachers": {"a": 1, "b": 0}}, "greater than 0"),
    ],
)
def test_terms_that_contradict_themselves(kind, fields, says):
    with pytest.raises(ValueError, match=says):
        kind.model_validate(fields)


def test_a_finished_student_of_one_teacher_stays_finished():
    told = Objectives(score_match=ScoreMatch(teacher="a")).described()["score_match"]
    assert told == {"weight": 1.0, "teacher": "a", "loss": "mse", "temperature": 1.0}


class Vectors:
    """A source of signals: embeddings by the text's number."""

    kind = "bi_encoder"

    def __init__(self, vectors):
        self.all, self.width = np.asarray(vectors, dtype=np.float32), len(vectors[0])

    def embeddings(self, texts, roles):
        rows = np.array([int(text) for text in texts])
        return lambda numbers: self.all[rows[numbers]]


A, B = Vectors([[3.0, 4.0], [1.0, 0.0]]), Vectors([[0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])


def test_joined_embeddings_have_the_weighted_mean_of_the_cosines():
    joined = join_teachers(EmbeddingMatch(teachers={"a": 3, "b": 1}), {"a": A, "b": B})
    first, second = joined.embeddings(["0", "1"], [0, 1])(np.array([0, 1]))
    assert joined.width == 5 and joined.widths == (2, 3)
    np.testing.assert_allclose(first, [0.75**0.5 * 0.6, 0.75**0.5 * 0.8, 0, 0.5, 0], atol=1e-6)
    assert first @ second == pytest.approx(0.75 * 0.6 + 0.25 * 0.0) and first @ first == pytest.approx(1)
    each = join_teachers(EmbeddingMatch(teachers={"a": 3, "b": 1}, combine="each", projection="drop"), {"a": A, "b": B})
    np.testing.assert_allclose(each.embeddings(["0"], [0])(np.array([0]))[0], [0.6, 0.8, 0, 1, 0], atol=1e-6)
    with pytest.raises(BadInput, match="no scores"):
        joined.scores([], [])


@pytest.mark.parametrize("loss", ["cosine", "mse"])
def test_each_teacher_is_matched_by_itself(loss):
    """1 − cosine, or squared distance, of each block, averaged by weight: worked out by hand."""
    from types import SimpleNamespace

    import torch

    from distill.training.terms import Seen, loss_of

    term = EmbeddingMatch(teachers={"a": 3, "b": 1}, combine="each", projection="drop", loss=loss)
    teacher = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0]])
    student = torch.tensor([[0.6, 0.8, 0.0, 0.0, 1.0]])
    batch = SimpleNamespace(teacher_embeddings=teacher, share={"texts": 1.0})
    seen = Seen(batch, "bi_encoder", None, None, student, {}, lambda own: own, 10.0, block_widths=(2, 3))
    alone = [
        loss_of(
            EmbeddingMatch(teacher="t", loss=loss),
            Seen(
                SimpleNamespace(teacher_embeddings=one, share={"texts": 1.0}),
                "bi_encoder",
                None,
                None,
                own,
                {},
                lambda own: own,
                10.0,
            ),
        ).item()
        for one, own in ((teacher[:, :2], student[:, :2]), (teacher[:, 2:], student[:, 2:]))
    ]
    assert loss_of(term, seen).item() == pytest.approx(0.75 * alone[0] + 0.25 * alone[1])
    if loss == "cosine":
        assert loss_of(term, seen).item() == pytest.approx(0.75 * 0.4 + 0.25 * 1.0)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "name one teacher, or several"),
        ({"teacher": "a", "teachers": {"a": 1, "b": 1}}, "name one teacher, or several"),
        ({"teachers": {"a": 1}}, "teachers names 1"),
        ({"teacher": "a", "combine": "each", "projection": "drop"}, "combine is for several teachers"),
        ({"teachers": {"a": 1, "b": 1}, "combine": "each"}, "set projection: drop"),
    ],
)
def test_embedding_terms_that_contradict_themselves(fields, says):
    with pytest.raises(ValueError, match=says):
        EmbeddingMatch.model_validate(fields)


def test_a_finished_student_of_one_space_stays_finished():
    told = Objectives(embedding_match=EmbeddingMatch(teacher="a")).described()["embedding_match"]
    assert told == {"weight": 1.0, "teacher": "a", "loss": "cosine", "projection": "keep"}


def test_a_teacher_with_one_probability_for_all_has_no_rank_correlation():
    mixed = SimpleNamespace(shares={"a": 0.5, "b": 0.5})
    finding = _finding("mixture a + b", mixed, np.array([[0.5, 0.5, 0.5], [0.1, 0.4, 0.2]]))
    assert finding.line.endswith("no rank correlation: a gives every pair one probability")
    json.dumps(finding.to_json(), allow_nan=False)
