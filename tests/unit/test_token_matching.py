"""Comparing texts by their tokens, by hand; and what a recipe says of such teachers."""

import numpy as np
import pytest

from distill.errors import BadInput
from distill.recipe.reading import validated
from distill.recipe.schema import Recipe
from distill.scorers.token_matching import (
    TextOutputs,
    lexical_match,
    lexical_weights,
    mean_max_similarity,
    sum_max_similarity,
)
from tests.conftest import BACKBONE, merge, tiny_recipe

M3 = {"kind": "bge_m3", "backbone": "some/bge-m3"}
LATE = {"kind": "late_interaction", "backbone": "some/colbert"}
BI_STUDENT = {"kind": "bi_encoder", "backbone": BACKBONE, "layers": None}


def test_of_a_token_that_comes_twice_the_greatest_weight_counts_and_special_tokens_have_none():
    ids, weights = np.array([0, 9, 4, 9, 4, 2, 1, 1]), np.array([5, 0.1, 0.2, 0.3, 0.0, 5, 5, 5])
    different, greatest = lexical_weights(ids, weights, np.array([0, 1, 2]))
    assert different.tolist() == [4, 9]
    np.testing.assert_allclose(greatest, [0.2, 0.3], rtol=1e-6)


def test_a_lexical_match_is_of_the_tokens_that_both_have():
    query = TextOutputs(token_ids=np.array([3, 5, 8]), token_weights=np.array([0.5, 1.0, 2.0]))
    document = TextOutputs(token_ids=np.array([1, 5, 8]), token_weights=np.array([9.0, 0.25, 0.125]))
    nothing = TextOutputs(token_ids=np.zeros(0, dtype=np.int64), token_weights=np.zeros(0))
    assert lexical_match(query, document) == lexical_match(document, query) == 0.5  # 1 · 0.25 + 2 · 0.125
    assert lexical_match(query, nothing) == lexical_match(nothing, nothing) == 0.0


def test_late_interaction_is_of_the_querys_tokens():
    query, document = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.6, 0.8], [0.8, 0.6], [0.0, -1.0]])
    assert sum_max_similarity(query, document) == pytest.approx(1.6)  # 0.8 + 0.8
    assert mean_max_similarity(query, document) == pytest.approx(0.8)
    assert sum_max_similarity(document, query) == pytest.approx(1.6)  # 0.8 + 0.8 + 0
    assert mean_max_similarity(document, query) == pytest.approx(1.6 / 3)
    assert mean_max_similarity(query, -query) == 0.0, "each token has one that it is at right angles with"
    assert sum_max_similarity(query[:0], document) == sum_max_similarity(query, document[:0]) == 0.0


ASYMMETRIC = {"score_match": None, "embedding_match": {"teacher": "m3"}}


def recipe(**changes):
    base = {
        "teachers": {"cross": None, "m3": M3},
        "student": BI_STUDENT,
        "objectives": {"score_match": {"teacher": "m3"}},
    }
    return validated(Recipe, tiny_recipe("run", **merge(base, changes)), "recipe.yaml")


def test_what_a_recipe_says_of_them():
    told = recipe(teachers={"late": LATE, "sums": LATE | {"similarity": "maxsim"}})
    m3, late, sums = (told.teachers[name] for name in ("m3", "late", "sums"))
    assert (m3.weights.dense, m3.weights.sparse, m3.weights.multi_vector) == (0.4, 0.2, 0.4)
    assert [teacher.model_kind for teacher in (m3, late, sums)] == ["bi_encoder", "bi_encoder", "cross_encoder"]
    assert m3.has_embeddings and not late.has_embeddings
    assert (
        recipe(teachers={"m3": M3 | {"weights": {"sparse": 0}}}).teachers["m3"].in_words
        == "0.4 dense + 0.4 multi_vector of bge-m3"
    )
    recipe(objectives={"embedding_match": {"teacher": "m3"}})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teachers": {"m3": M3 | {"weights": {"dense": 0, "sparse": 0, "multi_vector": 0}}}}, "all weights are 0"),
        ({"teachers": {"m3": M3 | {"weights": {"dense": -1}}}}, r"weights\.dense"),
        ({"teachers": {"m3": M3 | {"scale": "unit"}}}, r"teachers\.m3\.scale"),
        ({"teachers": {"m3": M3 | {"backbone": None}}}, r"teachers\.m3\.backbone"),
        ({"teachers": {"m3": M3 | {"kind": "bge-m3"}}}, "'bge_m3', 'late_interaction'"),
        ({"teachers": {"late": LATE}, "objectives": {"embedding_match": {"teacher": "late"}}}, "gives scores of pairs"),
        ({"student": {"asymmetric": {}}, "objectives": ASYMMETRIC}, "m3 is no model that could serve the other side"),
        ({"signals": {"live": True}}, "m3 is no model that could be asked during training"),
        ({"cascade": {"teacher": "m3"}}, "m3 is of kind bge_m3, no model to ask unsure pairs"),
        ({"data": {"unlabelled_pairs": [{"from": "m3"}]}}, "m3 is of kind bge_m3, no model to find pairs with"),
    ],
)
def test_what_cannot_be_is_one_line(changes, says):
    with pytest.raises(BadInput, match=says) as problem:
        recipe(**changes)
    assert len(str(problem.value).splitlines()) <= 3


def test_no_student_is_cut_out_of_one():
    raw = tiny_recipe("run", teachers={"cross": None, "m3": M3}, objectives={"score_match": {"teacher": "m3"}})
    raw["student"]["backbone"] = {"teacher": "m3"}
    with pytest.raises(BadInput, match="m3 is of kind bge_m3, no model to start from"):
        validated(Recipe, raw, "recipe.yaml")
