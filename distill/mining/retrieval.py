"""Exact BM25 retrieval: for each query the documents with the highest scores."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from distill.data.scripts import letter_shares
from distill.data.splitting import text_key
from distill.progress import progress
from distill.runtime.vectors import top_rows

__all__ = ["Bm25", "Terms", "terms_of"]

log = logging.getLogger(__name__)
Terms = Literal["word", "char"]
# scripts whose words have endings, or are written without spaces
_WITHOUT_WORDS = ("HANGUL", "HIRAGANA", "KATAKANA", "CJK", "THAI")
_LEAST_SHARE = 0.25  # of all letters, from which on such scripts decide
_SCORES_AT_ONCE = 2**25  # scores of a block of queries: 128 MB


def terms_of(documents: Sequence[str]) -> Terms:
    """Return which terms suit these texts: characters if a quarter of the letters is of words with endings or no spaces.

    Words of other scripts are found by their characters too, but Korean ones not by their words.

    >>> terms_of(["한국어 문장입니다"]), terms_of(["an English sentence"]), terms_of(["개발자를 찾습니다", "a Java developer"])
    ('char', 'word', 'char')
    """
    shares = letter_shares(documents[:2000])
    return "char" if sum(shares.get(script, 0.0) for script in _WITHOUT_WORDS) >= _LEAST_SHARE else "word"


class Bm25:
    """Okapi BM25 (Robertson & Zaragoza 2009) with the idf of Lucene: ln(1 + (N − df + ½)/(df + ½)).

    Terms are those of `text_key`: Unicode forms, zero-width characters and kinds of white space make no difference.

    :param terms: word: words of at least two letters or digits, in lower case. char: 2 and 3 characters within words.
    :param k1: how fast repeated occurrences of a term stop adding to the score
    :param b: how much the score of long documents is reduced, from 0 to 1
    """

    def __init__(self, documents: Sequence[str], *, terms: Terms = "word", k1: float = 1.2, b: float = 0.75) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        form: dict[str, Any] = {} if terms == "word" else {"analyzer": "char_wb", "ngram_range": (2, 3)}
        self._counter = CountVectorizer(dtype=np.float32, **form)
        try:
            counts = self._counter.fit_transform(map(text_key, documents)).tocsc()
        except ValueError:  # no document holds a term
            self._weights = None
            return
        lengths = np.asarray(counts.sum(axis=1)).ravel()
        df = np.diff(counts.indptr)
        idf = np.log1p((len(documents) - df + 0.5) / (df + 0.5))
        saturation = k1 * (1 - b + b * lengths / max(float(lengths.mean()), 1e-9))
        tf, rows = counts.data, counts.indices
        counts.data = (tf * (k1 + 1) / (tf + saturation[rows]) * np.repeat(idf, df)).astype(np.float32)
        self._weights = counts.T.tocsr()
        self.n_documents = len(documents)

    def search(self, queries: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return for each query the rows of the k documents with the highest scores, highest first, and the scores.

        A document that shares no term with the query is not returned: its place holds row -1 and score 0.

        *Shape:* (n_queries, min(k, n_documents)), int64 and float32
        """
        if self._weights is None:
            return np.full((len(queries), 0), -1, dtype=np.int64), np.zeros((len(queries), 0), dtype=np.float32)
        k = min(k, self.n_documents)
        terms = self._counter.transform(map(text_key, queries))
        terms.data[:] = 1.0
        rows, scores = np.full((len(queries), k), -1, dtype=np.int64), np.zeros((len(queries), k), dtype=np.float32)
        for block in _blocks(len(queries), self.n_documents):
            products = (terms[block] @ self._weights).toarray()
            for query, values in enumerate(products, block.start):
                best = top_rows(values, k)
                best = best[values[best] > 0]
                rows[query, : len(best)], scores[query, : len(best)] = best, values[best]
        return rows, scores


def _blocks(n_queries: int, n_documents: int) -> Iterator[slice]:
    size = max(1, min(1024, _SCORES_AT_ONCE // max(n_documents, 1)))
    with progress("BM25", n_queries) as report:
        for start in range(0, n_queries, size):
            block = slice(start, min(start + size, n_queries))
            yield block
            report(block.stop - block.start)
