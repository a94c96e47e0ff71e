"""Normalised discounted cumulative gain of the first ten (Järvelin and Kekäläinen, TOIS 20, 2002), with linear gain.

The discount of rank r is 1/log2(r + 1), and the gain is the label itself.
"""

from collections.abc import Sequence

import numpy as np

from distill.metrics.columns import FloatArray, IntArray

__all__ = ["CUT", "ndcg_by_query", "ndcg_of_found"]

CUT = 10  # number of ranks that count


def ndcg_by_query(scores: FloatArray, labels: FloatArray, queries: IntArray) -> tuple[IntArray, FloatArray]:
    """Return the numbers of the queries that count, and the nDCG@10 of each.

    A query counts if it has at least two documents and a label above 0.

    :param queries: the number of each pair's query, counted from 0; *shape:* (n_pairs,)
    """
    ideal = _dcg_by_query(labels, labels, queries)
    keep = np.flatnonzero((np.bincount(queries) >= 2) & (ideal > 0))
    return keep, _dcg_by_query(scores, labels, queries)[keep] / ideal[keep]


def ndcg_of_found(gains: Sequence[float], judged: Sequence[float]) -> float:
    """Return the nDCG@10 of the documents that a search found, in their order; NaN if no document has a gain above 0.

    :param gains: gains of the found documents, in order of rank; 0 for a document without a label
    :param judged: gains of all documents with a label for the query

    >>> round(ndcg_of_found([0.0, 1.0], [1.0]), 4)
    0.6309
    """
    best = _dcg(sorted(judged, reverse=True))
    return _dcg(gains) / best if best else float("nan")


def _discounts(ranks: IntArray) -> FloatArray:
    """Return the weight of each rank, counted from 0; 0 from the eleventh on."""
    weights: FloatArray = np.where(ranks < CUT, 1 / np.log2(ranks + 2), 0.0)
    return weights


def _dcg(gains: Sequence[float]) -> float:
    return float(np.asarray(gains, dtype=np.float64) @ _discounts(np.arange(len(gains))))


def _dcg_by_query(scores: FloatArray, gains: FloatArray, queries: IntArray) -> FloatArray:
    """Return the discounted gain of the top 10 of each query.

    Tied documents share their mean gain. *Shape:* (n_queries,).
    """
    order = np.lexsort((-scores, queries))
    sizes = np.bincount(queries)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    new = (np.diff(scores[order], prepend=np.nan) != 0) | (rank == 0)
    tie = np.cumsum(new) - 1
    shared = np.bincount(tie, gains[order]) / np.bincount(tie)
    return np.bincount(queries[order], shared[tie] * _discounts(rank)).astype(np.float64)
