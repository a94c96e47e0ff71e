"""How the weights of the terms change, and what a fingerprint says of objectives that came before there were schedules."""

import pytest

from distill.recipe.schema import (
    Cka,
    CoSent,
    EmbeddingMatch,
    Guide,
    Labels,
    ListNet,
    MarginMatch,
    Matryoshka,
    Objectives,
    Schedule,
    ScoreMatch,
)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ({"kind": "linear", "from": 0, "to": 1}, {0: 0, 0.25: 0.25, 1: 1}),
        ({"from": 1, "to": 0.5, "start": 0.2, "end": 0.6}, {0: 1, 0.2: 1, 0.4: 0.75, 0.6: 0.5, 1: 0.5}),
        # (1 − cos 60°)/2 of the way
        ({"kind": "cosine", "from": 2, "to": 0, "end": 0.6}, {0: 2, 0.2: 1.5, 0.3: 1, 0.6: 0, 1: 0}),
        ({"kind": "constant", "start": 0.5}, {0: 0, 0.49: 0, 0.5: 1, 1: 1}),
        ({"kind": "constant", "end": 0.5}, {0: 1, 0.5: 1, 0.51: 0, 1: 0}),
    ],
    ids=str,
)
def test_factors(schedule, factors):
    given = Schedule.model_validate(schedule)
    assert {share: given.factor(share) for share in factors} == pytest.approx(factors)
    assert Schedule.model_validate(given.model_dump()) == given


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"kind": "constant", "from": 0.5, "start": 0.2}, "from and to belong to kind linear and cosine"),
        ({"kind": "constant"}, "changes nothing; set start or end"),
        ({"from": -1}, "greater than or equal to 0"),
        ({"end": 1.2}, "less than or equal to 1"),
    ],
)
def test_what_says_nothing_is_refused(schedule, message):
    with pytest.raises(ValueError, match=message):
        Schedule.model_validate(schedule)


def test_objectives_know_what_they_need():
    objectives = Objectives(
        labels=Labels(loss="infonce", guide=Guide(teacher="guide")),
        listnet=ListNet(),
        cosent=CoSent(teacher="cross"),
        cka=Cka(teacher="bi"),
        embedding_match=EmbeddingMatch(teacher="bi"),
    )
    assert objectives.teachers() == {"guide": {"embeddings"}, "bi": {"embeddings"}, "cross": {"scores"}}
    assert (objectives.primary_teacher, objectives.from_teachers, objectives.from_texts) == ("cross", True, True)
    guided = Objectives(labels=Labels(loss="infonce", guide=Guide(teacher="guide")))
    assert (guided.primary_teacher, guided.from_teachers, guided.from_texts, guided.couples) == (
        None,
        False,
        False,
        True,
    )
    assert not Objectives(listnet=ListNet(teacher="cross")).couples


def test_the_primary_teacher_is_one_of_scores_in_the_order_of_the_fields():
    match, margin = EmbeddingMatch(teacher="a"), MarginMatch(teacher="b")
    assert Objectives(embedding_match=match).primary_teacher == "a"
    assert Objectives(embedding_match=match, margin_mse=margin).primary_teacher == "b"
    assert Objectives(margin_mse=margin, score_match=ScoreMatch(teacher="c")).primary_teacher == "c"


def test_a_fingerprint_of_old_objectives_has_no_new_word():
    objectives = Objectives(
        labels=Labels(loss="infonce"), score_match=ScoreMatch(teacher="a"), matryoshka=Matryoshka(dimensions=(8,))
    )
    assert objectives.described() == {
        "labels": {"loss": "infonce", "weight": 1.0, "temperature": 0.05},
        "score_match": {"teacher": "a", "loss": "mse", "weight": 1.0, "temperature": 1.0},
        "margin_mse": None,
        "embedding_match": None,
        "matryoshka": {"dimensions": [8], "weights": None},
    }
    changed = Objectives(score_match=ScoreMatch(teacher="a", schedule=Schedule(end=0.5)))
    assert changed.described()["score_match"]["schedule"] == {
        "kind": "linear",
        "from": 0.0,
        "to": 1.0,
        "start": 0.0,
        "end": 0.5,
    }
