"""Any number and kind of texts through `encode`, `encode_iter`, `rank` and `search`; order and numbers are kept."""

import threading

import numpy as np
import pytest

from distill.errors import BadInput
from distill.runtime.opening import load
from distill.runtime.vectors import Index
from tests.tiny.conftest import SENTENCES
from tests.tiny.test_runtime import DOCUMENTS, TEXTS

ODD = ["", " ", "\n\t", "가" * 50_000, "word " * 20_000, "a\ud800b", "\ud83d\ude00", "\x00", "é", "e\u0301", "🏳️‍🌈", "a"]


@pytest.fixture(scope="module")
def bi(graphs):
    return load(graphs / "bert_bi", n_threads=1)


@pytest.fixture(scope="module")
def cross(graphs):
    return load(graphs / "bert_cross", n_threads=1)


@pytest.mark.parametrize("name", ["bert_bi", "xlmr_bi"])
def test_odd_texts_have_embeddings_alone_and_together(name, graphs):
    scorer = load(graphs / name, n_threads=1)
    together = scorer.encode(ODD)
    assert np.isfinite(together).all()
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together, np.concatenate([scorer.encode([text]) for text in ODD]), atol=1e-5)


def test_a_lone_surrogate_is_a_replacement_character(bi):
    np.testing.assert_array_equal(*bi.encode(["a\ud800b", "a\ufffdb"]))
    np.testing.assert_allclose(bi.encode(["a \ud83d\ude00"]), bi.encode(["a 😀"]), atol=1e-6)


def test_an_iterator_is_read_a_chunk_at_a_time(bi):
    read = []

    def texts():
        for text in TEXTS:
            read.append(text)
            yield text

    chunks = bi.encode_iter(texts(), chunk_size=4)
    first = next(chunks)
    assert (len(first), len(read)) == (4, 4)
    np.testing.assert_allclose(np.concatenate([first, *chunks]), bi.encode(TEXTS), atol=1e-5)
    assert list(bi.encode_iter([])) == []
    np.testing.assert_allclose(bi.encode(texts()), bi.encode(TEXTS), atol=1e-6)
    with pytest.raises(BadInput, match="texts, row 5: a text is expected"):
        list(bi.encode_iter([*TEXTS[:5], None], chunk_size=4))
    with pytest.raises(BadInput, match="one text; a list"):
        list(bi.encode_iter("a"))


@pytest.mark.parametrize("output", ["int8", "binary"])
def test_outputs_for_an_index(bi, output):
    vectors, codes = bi.encode(TEXTS), bi.encode(TEXTS, output=output)
    if output == "binary":
        np.testing.assert_array_equal(np.unpackbits(codes, axis=1), vectors > 0)
    else:
        wide = codes / np.linalg.norm(codes.astype(np.float32), axis=1, keepdims=True)
        assert (wide * vectors).sum(axis=1).min() > 0.9999
    np.testing.assert_array_equal(np.concatenate(list(bi.encode_iter(TEXTS, chunk_size=5, output=output))), codes)


@pytest.mark.parametrize("kind", ["bi", "cross"])
def test_rank_is_the_order_of_score(kind, request):
    scorer, documents = request.getfixturevalue(kind), [*DOCUMENTS, DOCUMENTS[0]]
    scores = scorer.score([TEXTS[0]] * len(documents), documents)
    rows, ranked = scorer.rank(TEXTS[0], documents)
    # two of the documents have the same tokens, and their scores may differ in the last bit
    assert sorted(rows.tolist()) == list(range(len(documents))) and (np.diff(scores[rows]) <= 1e-6).all()
    assert rows.tolist().index(0) < rows.tolist().index(len(documents) - 1)  # equal ones keep their order
    np.testing.assert_allclose(ranked, scores[rows], atol=1e-6)
    best, _ = scorer.rank(TEXTS[0], documents, top_k=3)
    assert best.tolist() == rows[:3].tolist()
    assert [part.shape for part in scorer.rank(TEXTS[0], [])] == [(0,), (0,)]
    assert scorer.rank(TEXTS[0], documents[:2], top_k=9)[0].shape == (2,)


def test_the_query_and_equal_documents_run_once(bi, cross):
    for scorer, most in ((bi, len(set(SENTENCES)) + 1), (cross, len(set(SENTENCES)))):
        done = []
        scorer.rank("a query", SENTENCES * 3, progress=done.append)
        assert sum(done) == most


def test_rank_takes_embeddings_of_documents(bi, cross):
    rows, scores = bi.rank(TEXTS[0], DOCUMENTS)
    for output, tolerance in (("float32", 1e-5), ("int8", 0.01)):
        found, cosines = bi.rank(TEXTS[0], bi.encode(DOCUMENTS, output=output))
        np.testing.assert_allclose(cosines, scores, atol=tolerance)
        assert sorted(found) == sorted(rows)  # in order of the same cosines; ties may change places
    with pytest.raises(BadInput, match=r"documents of shape \(2, 3\); \(n_documents, 64\)"):
        bi.rank("a", np.zeros((2, 3)))
    with pytest.raises(BadInput, match="cross-encoder"):
        cross.rank("a", np.zeros((2, 64)))
    with pytest.raises(BadInput, match="top_k 0; at least 1"):
        bi.rank("a", ["b"], top_k=0)


def test_search_finds_what_rank_finds(bi):
    vectors = bi.encode(SENTENCES)
    index = Index(bi.encode(SENTENCES, output="int8"), bi.encode(SENTENCES, output="binary"))
    rows, cosines = bi.search(TEXTS[:4], index, top_k=3)
    for query, found, scores in zip(TEXTS[:4], rows, cosines, strict=True):
        expected, right = bi.rank(query, vectors, top_k=3)
        np.testing.assert_allclose(scores, right, atol=0.01)
        assert found[0] == expected[0]


def test_calls_from_several_threads_wait_for_one_another(bi):
    expected, found = bi.encode(TEXTS), [None] * 4

    def work(number):
        for _ in range(5):
            found[number] = bi.encode(TEXTS)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for vectors in found:
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_what_is_a_text_is_one_for_encode_score_and_rank(bi):
    odd = ["", "a\ud800b", "\u200b", "NaN"]
    cosines = [float(a @ b) for a, b in zip(bi.encode_queries(odd), bi.encode_documents(odd), strict=True)]
    np.testing.assert_allclose(bi.score(odd, odd), cosines, atol=1e-5)
    rows, scores = bi.rank(odd[1], odd)
    np.testing.assert_allclose(bi.score([odd[1]] * 4, [odd[row] for row in rows]), scores, atol=1e-5)
    for wrong in ([None], [float("nan")], [7], [b"a"]):
        for use in (bi.encode, lambda texts: bi.score(texts, texts), lambda texts: bi.rank("a", texts)):
            with pytest.raises(BadInput):
                use(wrong)


def test_a_model_of_documents_alone_embeds_no_query_of_a_search(bert_bi):
    scorer = load(bert_bi)
    vectors = scorer.encode(["a", "b"])
    for side in ("query", "document"):
        scorer.side = side
        for find in (lambda: scorer.rank("a", vectors), lambda: scorer.search(["a"], Index(vectors=vectors), top_k=1)):
            if side == "query":
                assert find()[0].ravel()[0] == 0
            else:
                with pytest.raises(BadInput, match="reads the document side of pairs only"):
                    find()


def test_tokens_are_counted_as_they_are_read(bi, monkeypatch):
    monkeypatch.setitem(bi._files.prompts, "query", "Python 개발자: ")
    counts = bi.token_counts(["a", "b"], ["a", "b"])
    monkeypatch.delitem(bi._files.prompts, "query")
    np.testing.assert_array_equal(counts, bi.token_counts(["Python 개발자: a", "Python 개발자: b"], ["a", "b"]))


def test_pairs_without_a_text_are_counted_once(bi, caplog):
    bi._has_said_gaps = False
    for _ in range(2):
        bi.score(["", "a", "\u200b", "a"], ["b", "\ud800", "b", "b"])
    said = [record.getMessage() for record in caplog.records if "without a text" in record.getMessage()]
    assert len(said) == 1 and "3 of 4 pairs have a side without a text" in said[0]


def test_scores_that_are_no_numbers_are_refused_and_nan_stays(bi):
    with pytest.raises(BadInput, match=r"scores are 'x' \(str\); numbers are expected"):
        bi.unit("x")
    assert np.isnan(bi.unit([float("nan")])).all()
