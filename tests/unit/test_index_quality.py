"""Forms of an index against labels and the exact search, on vectors set by hand."""

import numpy as np
import pytest

from distill.data.pairs import Pairs
from distill.errors import BadInput
from distill.evaluation.index_quality import Relevance, _questions, index_quality, measure_forms, table_cells


class TestRelevance:
    relevance = Relevance(gains=[{0: 1.0, 1: 0.5, 2: 0.2}, {3: 0.3}], own=[-1, -1])

    def test_recall_counts_labels_from_a_half_on(self):
        recall = self.relevance.recall(np.array([[5, 1, 7], [3, 0, 1]]))
        assert recall[0] == 0.5  # 1 of {0, 1}
        assert np.isnan(recall[1])  # none is relevant

    def test_ndcg_by_hand(self):
        ndcg = self.relevance.ndcg(np.array([[5, 1, 0], [0, 3, 1]]))
        best = 1.0 + 0.5 / np.log2(3) + 0.2 / 2
        assert ndcg[0] == pytest.approx((0.5 / np.log2(3) + 1.0 / 2) / best)
        assert ndcg[1] == pytest.approx(1 / np.log2(3))


class TestQuestions:
    pairs = Pairs(["a", "a", "b", "c", "d"], ["b", "c", "a", "x", "d"], np.array([1.0, 0.2, 0.5, 0.1, 1.0]))

    def test_are_those_with_an_answer_and_do_not_find_themselves(self):
        documents = ["b", "c", "a", "x", "d", "more"]
        queries, relevance = _questions(self.pairs, documents, 10, seed=0)
        assert queries == ["a", "b"]  # c has no answer, d only itself
        assert relevance.gains == [{0: 1.0, 1: pytest.approx(0.2)}, {2: 0.5}]
        assert relevance.own == [2, 0]

    def test_without_labels_all_ask(self):
        queries, relevance = _questions(Pairs(["a", "b"], ["x", "y"]), ["x", "y"], 10, seed=0)
        assert queries == ["a", "b"]
        assert relevance.gains == [{}, {}]

    def test_none_is_refused(self):
        with pytest.raises(BadInput, match="label of 0.5 or more"):
            _questions(Pairs(["a"], ["x"], np.array([0.2])), ["x"], 10, seed=0)

    def test_are_drawn_where_there_are_many(self):
        pairs = Pairs([f"q{i}" for i in range(30)], [f"d{i}" for i in range(30)], np.ones(30))
        queries, _ = _questions(pairs, pairs.documents, 7, seed=1)
        assert len(queries) == 7 == len(set(queries))


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    documents = rng.normal(size=(600, 32)) * np.linspace(2, 0.1, 32)
    queries = documents[:40] + 0.3 * rng.normal(size=(40, 32))
    documents, queries = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (documents, queries))
    relevance = Relevance([{i: 1.0} for i in range(40)], [-1] * 40)
    return measure_forms(queries.astype(np.float32), documents.astype(np.float32), relevance, widths=[32, 8])


class TestForms:
    def test_the_first_is_exact(self, rows):
        assert (rows[0]["form"], rows[0]["dimensions"], rows[0]["found_as_exact"]) == ("float32", 32, 1.0)
        assert rows[0]["recall_lost"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 40}

    def test_smaller_forms_find_less(self, rows):
        found = [row["found_as_exact"] for row in rows if row["dimensions"] == 32]  # float32, int8, both, signs
        assert found == sorted(found, reverse=True)
        assert found[1] > 0.95 > found[3]
        assert next(row for row in rows if row["dimensions"] == 8)["found_as_exact"] < 1

    def test_sizes(self, rows):
        sizes = [(row["bytes"], row["bytes_searched"]) for row in rows]
        assert sizes == [(128, 128), (32, 32), (36, 4), (4, 4), (32, 32), (8, 8), (9, 1), (1, 1)]

    def test_loss_is_what_is_missing(self, rows):
        for row in rows:
            assert row["ndcg"]["value"] + row["ndcg_lost"]["value"] == pytest.approx(rows[0]["ndcg"]["value"])
            assert row["ndcg_lost"]["low"] <= row["ndcg_lost"]["value"] <= row["ndcg_lost"]["high"]

    def test_is_printed(self, rows):
        assert table_cells(rows[2], 1000)[:4] == ["binary, then int8", "32", "0.0", "0.0"]
        unlabelled = {name: value for name, value in rows[0].items() if not name.startswith(("recall", "ndcg"))}
        assert table_cells(unlabelled, 1000)[5:] == ["", "", "", ""]


def test_a_few_documents_are_searched_by_queries_that_are_among_them_and_others():
    vectors = np.eye(5, 16, dtype=np.float32)
    relevance = Relevance([{1: 1.0}, {3: 1.0}], own=[0, -1])
    rows = measure_forms(vectors[[0, 3]], vectors, relevance, widths=[16])
    assert rows[0]["found_as_exact"] == 1 and rows[0]["recall"]["value"] == 1


class Encoder:
    kind, embedding_width, path = "bi_encoder", 4, "folder"


def test_what_cannot_be_measured_is_refused():
    pairs = Pairs(["a"], ["b"], np.array([1.0]))
    with pytest.raises(BadInput, match="--truncate 4: folder gives 4 dimensions"):
        index_quality(Encoder(), pairs, [], widths=[2, 4])
    cross = Encoder()
    cross.kind = "cross_encoder"
    with pytest.raises(BadInput, match="no embeddings to index"):
        index_quality(cross, pairs, [])
