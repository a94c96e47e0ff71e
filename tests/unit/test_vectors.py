"""Index embeddings: hand-worked codes, and the recall that rescoring brings back."""

import numpy as np
import pytest

from distill.errors import BadInput
from distill.runtime.vectors import Index, packed, top_rows


def test_int8_scales_each_vector_to_its_greatest_value():
    codes = packed(np.array([[0.5, -0.25, 0.1], [0, 0, 0]], dtype=np.float32), "int8")
    assert codes.dtype == np.int8
    assert codes.tolist() == [[127, -64, 25], [0, 0, 0]]  # 63.5 goes to the even 64


def test_binary_packs_eight_signs_a_byte():
    # + - + 0 - + + -   + : 10100110 1(0000000)
    codes = packed(np.array([[1, -1, 2, 0, -3, 1, 1, -1, 5]], dtype=np.float32), "binary")
    assert codes.tolist() == [[0b10100110, 0b10000000]]


def test_other_outputs_are_refused():
    with pytest.raises(BadInput, match="output 'int4'; one of float32, int8, binary"):
        packed(np.zeros((1, 8)), "int4")


@pytest.mark.parametrize("k", [1, 3, 5, 9])
def test_top_rows_are_those_of_a_stable_sort(k):
    scores = np.array([0.2, 0.9, 0.5, 0.9, 0.5])
    assert top_rows(scores, k).tolist() == [1, 3, 2, 4, 0][:k]


def test_search_by_hand():
    vectors = np.array([[1, 0], [0, 2], [3, 3]], dtype=np.float32)
    rows, cosines = Index(vectors).search(np.array([[0, 5]], dtype=np.float32), top_k=2)
    assert rows.tolist() == [[1, 2]]
    np.testing.assert_allclose(cosines, [[1, np.sqrt(0.5)]], atol=1e-6)


@pytest.fixture(scope="module")
def clustered():
    """Documents around 200 topics in 128 dimensions, and a query near each topic: neighbours as close as real ones."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(200, 128))
    documents = np.repeat(topics, 50, axis=0) + 0.7 * rng.normal(size=(10_000, 128))
    queries = topics + 0.7 * rng.normal(size=topics.shape)
    return documents.astype(np.float32), queries.astype(np.float32)


def recall(index, queries, expected):
    found, _ = index.search(queries, top_k=10)
    return np.mean([len(set(left) & set(right)) / 10 for left, right in zip(found.tolist(), expected, strict=True)])


def test_recall_of_the_ten_nearest(clustered):
    documents, queries = clustered[0], clustered[1][::3]
    expected = Index(documents).search(queries, top_k=10)[0].tolist()
    binary, int8 = packed(documents, "binary"), packed(documents, "int8")
    alone = recall(Index(binary=binary), queries, expected)
    assert recall(Index(int8), queries, expected) >= 0.98
    assert 0.3 <= alone <= 0.8  # signs alone misorder
    assert recall(Index(documents, binary, n_candidates=4), queries, expected) >= 0.93
    assert recall(Index(int8, binary), queries, expected) >= 0.97
    assert recall(Index(documents, binary, n_candidates=1), queries, expected) == pytest.approx(alone)


def test_few_documents_and_none(clustered):
    documents, queries = clustered
    few = Index(documents[:3], packed(documents[:3], "binary"))
    assert few.search(queries[:2], top_k=10)[0].shape == (2, 3)
    assert few.search(queries[:0], top_k=10)[0].shape == (0, 3)
    assert Index(documents[:0]).search(queries[:2], top_k=10)[0].shape == (2, 0)


def test_an_index_of_nothing_or_of_unlike_parts_is_refused():
    with pytest.raises(BadInput, match="needs vectors, binary embeddings or both"):
        Index()
    with pytest.raises(BadInput, match="2 vectors and 1 binary"):
        Index(np.zeros((2, 8)), np.zeros((1, 1), dtype=np.uint8))
