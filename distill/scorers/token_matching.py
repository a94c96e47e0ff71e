"""Compare two texts by their tokens: lexical match of weighted tokens, and late interaction of token vectors.

Each function takes one query and one document, so that padding and other texts of a batch have no influence.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["TextOutputs", "lexical_match", "lexical_weights", "mean_max_similarity", "sum_max_similarity"]


@dataclass(frozen=True)
class TextOutputs:
    """A model's outputs for one text; None for outputs that were not requested.

    *Shape:* dense: (width,), of unit length; token_ids, token_weights: (n_different_tokens,), ids increasing; vectors:
    (n_tokens, width)
    """

    dense: np.ndarray | None = None
    token_ids: np.ndarray | None = None
    token_weights: np.ndarray | None = None
    vectors: np.ndarray | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes of memory of the outputs."""
        arrays = (self.dense, self.token_ids, self.token_weights, self.vectors)
        return sum(array.nbytes for array in arrays if array is not None)


def lexical_weights(ids: np.ndarray, weights: np.ndarray, left_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different token ids of a text, increasing, and the greatest weight of each, without ids in `left_out`.

    *Shape:* ids, weights: (n_tokens,); left_out: (n,) ids; results: (n_different_tokens,)

    >>> ids, weights = lexical_weights(np.array([0, 7, 5, 7, 2]), np.array([9.0, 0.5, 0.25, 0.75, 9.0]), np.array([0, 2]))
    >>> ids.tolist(), weights.tolist()
    ([5, 7], [0.25, 0.75])
    """
    kept = ~np.isin(ids, left_out)
    unique_ids, places = np.unique(ids[kept], return_inverse=True)
    greatest = np.zeros(len(unique_ids), dtype=np.float32)
    np.maximum.at(greatest, places, weights[kept].astype(np.float32))
    return unique_ids, greatest


def lexical_match(query: TextOutputs, document: TextOutputs) -> float:
    """Return the sum of query weight × document weight over the tokens that both texts contain.

    >>> one = TextOutputs(token_ids=np.array([5, 7, 9]), token_weights=np.array([0.5, 0.25, 1.0]))
    >>> other = TextOutputs(token_ids=np.array([7, 9]), token_weights=np.array([1.0, 0.5]))
    >>> lexical_match(one, other)
    0.75
    """
    assert query.token_ids is not None and document.token_ids is not None
    assert query.token_weights is not None and document.token_weights is not None
    _, left, right = np.intersect1d(query.token_ids, document.token_ids, assume_unique=True, return_indices=True)
    return float(query.token_weights[left].astype(np.float64) @ document.token_weights[right].astype(np.float64))


def sum_max_similarity(query: np.ndarray, document: np.ndarray) -> float:
    """Return the sum over query tokens of the greatest dot product with a document token (Khattab & Zaharia 2020).

    It is 0 if one of the texts has no tokens.

    *Shape:* query: (n_query_tokens, width); document: (n_document_tokens, width)

    >>> sum_max_similarity(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.6, 0.8], [1.0, 0.0]]))
    1.8
    """
    if not len(query) or not len(document):
        return 0.0
    return float((query @ document.T).max(axis=1).sum(dtype=np.float64))


def mean_max_similarity(query: np.ndarray, document: np.ndarray) -> float:
    """Return `sum_max_similarity` divided by the number of query tokens; in [-1, 1] for unit vectors.

    *Shape:* query: (n_query_tokens, width); document: (n_document_tokens, width)
    """
    return sum_max_similarity(query, document) / max(len(query), 1)
