"""Embeddings for an index: int8 and binary, and searching them with rescoring.

    index = Index(binary=scorer.encode(texts, output="binary"), vectors=scorer.encode(texts, output="int8"))
    rows, cosines = scorer.search(queries, index, top_k=10)

int8 scales each vector by its greatest absolute value. A cosine does not depend on the scale, so nothing has to be
calibrated or stored. Binary keeps the signs, eight a byte, 32 times smaller than float32. Its order is inexact, so it
only finds candidates; the vectors (float32 or int8, in memory or mapped from a file) rank them
(Yamada et al. 2021, https://aclanthology.org/2021.acl-short.123).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from distill.errors import BadInput
from distill.runtime.arguments import check_choice, check_count, check_vectors

__all__ = ["OUTPUTS", "Index", "Output", "nearest_rows", "packed", "row_cosines", "top_rows", "truncated", "unit_rows"]

Output = Literal["float32", "int8", "binary"]
OUTPUTS = ("float32", "int8", "binary")
_BLOCK = 65_536  # documents compared at once: bounds the memory of a search
_PAIRS_AT_ONCE = 8192  # pairs whose vectors are gathered together
_COSINES_AT_ONCE = 2**25  # of a block of queries: 128 MB
_BITS = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def packed(vectors: np.ndarray, output: Output) -> np.ndarray:
    """Return float32 embeddings as they are, as int8, or as signs of eight dimensions a byte.

    *Shape:* vectors: (n, width); result: (n, width), or (n, ceil(width / 8)) of uint8

    >>> packed(np.array([[0.5, -0.25, 0.1]]), "int8").tolist(), packed(np.array([[0.5, -0.25, 0.1]]), "binary").tolist()
    ([[127, -64, 25]], [[160]])
    """
    check_choice("output", output, OUTPUTS)
    if output == "float32":
        return vectors
    if output == "binary":
        return np.packbits(vectors > 0, axis=1)
    greatest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True, initial=0), 1e-12)
    scaled: np.ndarray = np.rint(vectors * (127 / greatest)).astype(np.int8)
    return scaled


def top_rows(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the rows of the k greatest scores, greatest first; equal ones keep their order. *Shape:* (n,) → (k,).

    >>> top_rows(np.array([0.1, 0.9, 0.5, 0.9]), 3)
    array([1, 3, 2])
    """
    if k < len(scores):
        # all scores that reach the k-th greatest, so that the order of equal ones does not depend on the partition
        edge = np.partition(scores, len(scores) - k)[len(scores) - k]
        chosen = np.flatnonzero(scores >= edge)
    else:
        chosen = np.arange(len(scores))
    return chosen[np.argsort(-scores[chosen], kind="stable")][:k]


def nearest_rows(queries: np.ndarray, documents: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each query the rows of the k documents with the greatest cosines, greatest first, and the cosines.

    *Shape:* queries: (n_queries, width), documents: (n_documents, width) → (n_queries, min(k, n_documents)) each

    >>> nearest_rows(np.eye(2), np.array([[1.0, 0.1], [0.0, 2.0], [1.0, 0.0]]), 2)[0]
    array([[2, 0],
           [1, 0]])
    """
    k = min(k, len(documents))
    told = unit_rows(documents).astype(np.float32, copy=False)
    rows, scores = np.zeros((len(queries), k), dtype=np.int64), np.zeros((len(queries), k), dtype=np.float32)
    size = max(1, min(1024, _COSINES_AT_ONCE // max(len(documents), 1)))
    for start in range(0, len(queries), size):
        cosines = unit_rows(queries[start : start + size]).astype(np.float32, copy=False) @ told.T
        for query, values in enumerate(cosines, start):
            rows[query] = top_rows(values, k)
            scores[query] = values[rows[query]]
    return rows, scores


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return vectors in unit length; one of zeros stays. *Shape:* (n, width) → (n, width), of the same dtype.

    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def row_cosines(one: np.ndarray, left: np.ndarray, other: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the cosines of chosen rows. *Shape:* (n, width), (n_pairs,), (m, width), (n_pairs,) → (n_pairs,).

    Both arrays are normalised in place, because a copy of all embeddings would double the memory.
    """
    for vectors in (one, other):
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    parts = [
        np.einsum("ij,ij->i", one[left[i : i + _PAIRS_AT_ONCE]], other[right[i : i + _PAIRS_AT_ONCE]])
        for i in range(0, len(left), _PAIRS_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


@dataclass(frozen=True)
class Index:
    """Document embeddings to search: vectors, binary ones that find candidates, or (best) both.

    `n_candidates` documents by Hamming distance are rescored for each of the `top_k` asked for.

    *Shape:* vectors: (n_documents, width), float16, float32, float64 or int8; binary: (n_documents, ceil(width / 8)), uint8
    """

    vectors: np.ndarray | None = None
    binary: np.ndarray | None = None
    n_candidates: int = 8

    def __post_init__(self) -> None:
        if self.vectors is None and self.binary is None:
            raise BadInput("an index needs vectors, binary embeddings or both")
        check_count("n_candidates", self.n_candidates)
        for name, held in (("vectors", self.vectors), ("binary", self.binary)):
            _check_kind(name, held)
        if self.vectors is None or self.binary is None:
            return
        if len(self.vectors) != len(self.binary):
            raise BadInput(f"{len(self.vectors)} vectors and {len(self.binary)} binary ones; one of each a document")
        if self.binary.shape[1] != _n_bytes(self.vectors.shape[1]):
            raise BadInput(
                f"vectors of {self.vectors.shape[1]} numbers and binary ones of {self.binary.shape[1]} bytes; "
                f"{_n_bytes(self.vectors.shape[1])} are expected"
            )

    def __len__(self) -> int:
        held = self.binary if self.vectors is None else self.vectors
        return 0 if held is None else len(held)

    def search(self, queries: np.ndarray, *, top_k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return for each query the rows of its nearest documents, nearest first, and their cosines.

        With binary embeddings alone the second result is the share of equal signs, mapped onto [-1, 1].

        :raises BadInput: for a top_k below 1, queries of another width, and vectors that are not finite

        *Shape:* queries: (n_queries, width), float or int8; results: (n_queries, k), k being at most the documents
        """
        top_k = check_count("top_k", top_k) or 1
        queries = check_vectors("queries", queries, self._width(queries), what="n_queries").astype(
            np.float32, copy=False
        )
        unit = unit_rows(queries)
        if self.binary is None:
            found = [self._nearest(query, top_k) for query in unit]
        elif self.vectors is None:
            found = [self._alike(query, top_k) for query in unit]
        else:
            found = [self._rescored(query, top_k) for query in unit]
        rows, scores = zip(*found, strict=True) if found else ((), ())
        shape = (len(queries), min(top_k, len(self)))
        return np.array(rows, dtype=np.int64).reshape(shape), np.array(scores, dtype=np.float32).reshape(shape)

    def _width(self, queries: np.ndarray) -> int:
        """Return how wide queries have to be; binary embeddings alone leave up to seven dimensions open."""
        if self.vectors is not None:
            return int(self.vectors.shape[1])
        assert self.binary is not None
        n_bytes, asked = int(self.binary.shape[1]), int((np.shape(queries) or (0,))[-1])
        return asked if _n_bytes(asked) == n_bytes else 8 * n_bytes

    def _rescored(self, query: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
        assert self.vectors is not None
        candidates = np.sort(
            self._alike(query, top_k * self.n_candidates)[0]
        )  # in order: they may lie in a mapped file
        scores = _finite(_cosines(query, self.vectors[candidates]), candidates)
        chosen = top_rows(scores, top_k)
        return candidates[chosen], scores[chosen]

    def _nearest(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        assert self.vectors is not None
        blocks = range(0, len(self.vectors), _BLOCK)
        scores = np.concatenate([_cosines(query, self.vectors[i : i + _BLOCK]) for i in blocks] or [np.zeros(0)])
        _finite(scores, np.arange(len(scores)))
        chosen = top_rows(scores, k)
        return chosen, scores[chosen]

    def _alike(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        assert self.binary is not None
        signs = np.packbits(query > 0)
        blocks = range(0, len(self.binary), _BLOCK)
        distances = [_BITS[self.binary[i : i + _BLOCK] ^ signs].sum(axis=1, dtype=np.int32) for i in blocks]
        scores = 1 - 2 * np.concatenate(distances or [np.zeros(0)]) / len(query)
        chosen = top_rows(scores, k)
        return chosen, scores[chosen]


def _check_kind(name: str, held: np.ndarray | None) -> None:
    if held is None:
        return
    shape, dtype = getattr(held, "shape", ()), getattr(held, "dtype", np.dtype(object))
    numbers = dtype == np.uint8 if name == "binary" else dtype.kind == "f" or dtype == np.int8
    if len(shape) != 2 or not numbers:
        accepted = "(n_documents, bytes) of uint8" if name == "binary" else "(n_documents, width) of float or int8"
        raise BadInput(f"{name} of shape {shape}, {dtype}; {accepted} is expected")


def _n_bytes(width: int) -> int:
    return -(-width // 8)


def _finite(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Check scores and return them. Vectors are checked only when they are searched, since they may be a mapped file.

    :raises BadInput: naming the first row whose vector is NaN or infinite
    """
    wrong = ~np.isfinite(scores)
    if wrong.any():
        raise BadInput(f"vectors, row {int(rows[wrong.argmax()])}: NaN or infinite; every number is to be finite")
    return scores


def _cosines(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """*Shape:* query: (width,), of unit length; vectors: (n, width); result: (n,)."""
    wide = vectors.astype(np.float32, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):  # `_finite` names rows that are not finite
        cosines: np.ndarray = wide @ query / np.maximum(np.linalg.norm(wide, axis=1), 1e-12)
    return cosines


def truncated(vectors: np.ndarray, width: int) -> np.ndarray:
    """Keep the first dimensions of each vector, in unit length again. *Shape:* (n, any) → (n, width).

    >>> truncated(np.array([[0.6, 0.0, 0.8]]), 2).tolist()
    [[1.0, 0.0]]
    """
    return unit_rows(vectors[:, :width])
