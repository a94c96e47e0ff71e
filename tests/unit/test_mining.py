"""Retrieval by BM25, limits on what is taken for an answer, and drawing in strata: each against a value worked by hand."""

import math
import re
import unicodedata

import numpy as np
import pytest

from distill.errors import BadInput
from distill.mining.choosing import FalseNegatives, RankStratum, draw_candidates, read_strata
from distill.mining.retrieval import Bm25, terms_of
from distill.runtime.vectors import nearest_rows

DOCUMENTS = ["the cat sat on the mat", "a dog and a cat", "birds fly", "the the the dog"]


def by_hand(query, documents, k1=1.2, b=0.75):
    """BM25 as the formula is written, term by term."""
    told = [re.findall(r"\w\w+", document.lower()) for document in documents]
    mean = sum(map(len, told)) / len(told)
    scores = []
    for words in told:
        score = 0.0
        for term in set(re.findall(r"\w\w+", query.lower())):
            df = sum(term in other for other in told)
            tf = words.count(term)
            idf = math.log(1 + (len(told) - df + 0.5) / (df + 0.5))
            score += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(words) / mean))
        scores.append(score)
    return scores


class TestBm25:
    @pytest.mark.parametrize("query", ["the cat", "dog dog birds", "mat", "nothing of it"])
    def test_scores_are_those_of_the_formula(self, query):
        rows, scores = Bm25(DOCUMENTS).search([query], 4)
        expected = by_hand(query, DOCUMENTS)
        found = [row for row in rows[0] if row >= 0]
        assert sorted(found) == [row for row, score in enumerate(expected) if score > 0]
        np.testing.assert_allclose(scores[0][: len(found)], sorted([s for s in expected if s > 0])[::-1], rtol=1e-5)
        np.testing.assert_allclose([expected[row] for row in found], scores[0][: len(found)], rtol=1e-5)
        assert (rows[0][len(found) :] == -1).all() and (scores[0][len(found) :] == 0).all()

    def test_korean_words_with_endings_meet_by_their_characters(self):
        documents = ["서울에서 개발자를 찾습니다", "간호사 모집"]
        assert terms_of(documents) == "char"
        rows, _ = Bm25(documents, terms="char").search(["개발자"], 2)
        assert rows.tolist() == [[0, -1]]
        assert Bm25(documents, terms="word").search(["개발자"], 2)[0].tolist() == [[-1, -1]]

    def test_a_mixed_set_counts_characters_from_a_quarter_of_such_letters_on(self):
        """Of 51 % English and 49 % Korean documents, words were counted, by which Korean ones are not found."""
        assert terms_of(["개발자를 찾습니다"] * 49 + ["a Java developer"] * 51) == "char"
        assert terms_of(["日本語のテキスト"] * 49 + ["two words"] * 51) == "char"
        assert terms_of(["가나", "six letters of English"]) == "word"
        assert terms_of(["2024", ""]) == "word"

    @pytest.mark.parametrize("terms", ["word", "char"])
    def test_unicode_forms_and_zero_width_characters_make_no_difference(self, terms):
        documents = ["서울 간호사 모집", "python 개발자 모집"]
        other_forms = [unicodedata.normalize("NFD", documents[0]), "py\u200bthon 개발자\u00a0모집"]
        query = ["파이썬 개발자 python"]
        rows, scores = Bm25(documents, terms=terms).search(query, 2)
        assert rows[0, 0] == 1
        for documents_given, query_given in (
            (other_forms, query),
            (documents, [unicodedata.normalize("NFD", query[0])]),
        ):
            found, found_scores = Bm25(documents_given, terms=terms).search(query_given, 2)
            np.testing.assert_array_equal(found, rows)
            np.testing.assert_allclose(found_scores, scores)

    def test_documents_without_terms_find_nothing(self):
        rows, scores = Bm25(["!", "?"]).search(["a word"], 5)
        assert rows.shape == scores.shape == (1, 0)

    def test_many_queries_are_searched_in_blocks(self, monkeypatch):
        monkeypatch.setattr("distill.mining.retrieval._SCORES_AT_ONCE", 8)
        queries = ["the cat", "dog", "mat", "birds"] * 3
        rows, _ = Bm25(DOCUMENTS).search(queries, 2)
        alone = [Bm25(DOCUMENTS).search([query], 2)[0][0] for query in queries]
        np.testing.assert_array_equal(rows, alone)


def test_the_nearest_are_those_of_a_full_sort():
    random = np.random.default_rng(0)
    queries, documents = random.normal(size=(30, 5)), random.normal(size=(70, 5))
    cosines = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (
        documents / np.linalg.norm(documents, axis=1)[:, None]
    ).T
    rows, scores = nearest_rows(queries, documents, 9)
    np.testing.assert_array_equal(rows, np.argsort(-cosines, axis=1)[:, :9])
    np.testing.assert_allclose(scores, np.sort(cosines, axis=1)[:, ::-1][:, :9], rtol=1e-5)
    assert nearest_rows(queries, documents[:3], 9)[0].shape == (30, 3)


class TestFalseNegatives:
    POSITIVES = np.array([0.9, 0.5, np.nan])

    @pytest.mark.parametrize(
        ("limits", "expected"),
        [
            ({}, [np.inf, np.inf, np.inf]),
            ({"margin": 0.2}, [0.7, 0.3, -np.inf]),
            ({"relative_margin": 0.1}, [0.81, 0.45, -np.inf]),
            ({"max_score": 0.6}, [0.6, 0.6, 0.6]),
            ({"percentile": 50}, [0.7, 0.7, 0.7]),
            ({"margin": 0.2, "max_score": 0.6}, [0.6, 0.3, 0.6]),
        ],
    )
    def test_the_lowest_limit_holds(self, limits, expected):
        np.testing.assert_allclose(FalseNegatives(**limits).limits(self.POSITIVES), expected)

    def test_a_percentile_of_no_positives_lets_nothing_through(self):
        assert FalseNegatives(percentile=50).limits(np.array([np.nan])).tolist() == [-np.inf]


class TestStrata:
    @pytest.mark.parametrize(
        "text", ["", "1-10", "0-5:1", "5-1:2", "1-5:0", "1-10:4,10-20:4", "a-b:c", "1-10:4;", "1-5:-1"]
    )
    def test_what_is_no_strata_is_refused(self, text):
        with pytest.raises(BadInput, match=r"^strata .*"):
            read_strata(text)

    def test_all_are_taken_where_there_are_no_more(self):
        allowed = np.array([[True, False, True, True, True, True]])
        drawn = draw_candidates(allowed, [RankStratum(1, 3, 9), RankStratum(5, 99, 1)], seed=0)
        assert drawn[0, :4].tolist() == [True, False, True, False] and drawn[0, 4:].sum() == 1

    def test_the_draw_is_even_and_of_the_seed(self):
        allowed = np.ones((4000, 10), dtype=bool)
        drawn = draw_candidates(allowed, read_strata("1-10:3"), seed=1)
        assert (drawn.sum(axis=1) == 3).all()
        np.testing.assert_allclose(drawn.mean(axis=0), 0.3, atol=0.03)
        np.testing.assert_array_equal(drawn, draw_candidates(allowed, read_strata("1-10:3"), seed=1))
        assert not np.array_equal(drawn, draw_candidates(allowed, read_strata("1-10:3"), seed=2))
