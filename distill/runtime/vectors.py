"""Convert embeddings for an index to int8 or binary, and search them with rescoring.

    index = Index(binary=scorer.encode(texts, output="binary"), vectors=scorer.encode(texts, output="int8"))
    rows, cosines = scorer.search(queries, index, top_k=10)

int8 scales each vector by its own greatest absolute value. No scale has to be calibrated or stored, because a cosine
does not depend on it. Binary keeps the signs, eight per byte, 32 times smaller than float32. Its ranking is inexact, so
it only finds candidates, which are then rescored with the vectors (float32 or int8, in memory or mapped from a file;
Yamada et al. 2021, https://aclanthology.org/2021.acl-short.123).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from distill.errors import BadInput
from distill.runtime.arguments import check_choice, check_count, check_vectors

__all__ = ["OUTPUTS", "Index", "Output", "nearest_rows", "packed", "row_cosines", "top_rows", "truncated", "unit_rows"]

Output = Literal["float32", "int8", "binary"]
OUTPUTS = ("float32", "int8", "binary")
_BLOCK = 65_536  # documents compared at once; limits the memory of a search
_PAIRS_AT_ONCE = 8192  # pairs whose vectors are gathered at once
_COSINES_AT_ONCE = 2**25  # cosines of a block of queries: 128 MB
_BITS = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def packed(vectors: np.ndarray, output: Output) -> np.ndarray:
    """Return float32 embeddings unchanged, as int8, or as signs with eight dimensions per byte.

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
    """Return the rows of the k highest scores, highest first; equal scores keep their order. *Shape:* (n,) → (k,).

    >>> top_rows(np.array([0.1, 0.9, 0.5, 0.9]), 3)
    array([1, 3, 2])
    """
    if k < len(scores):
        # take all rows with at least the k-th highest score, so that the partition does not decide the order of ties
        edge = np.partition(scores, len(scores) - k)[len(scores) - k]
        chosen = np.flatnonzero(scores >= edge)
    else:
        chosen = np.arange(len(scores))
    return chosen[np.argsort(-scores[chosen], kind="stable")][:k]


def nearest_rows(queries: np.ndarray, documents: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each query the rows of the k documents with the highest cosine, highest first, and the cosines.

    *Shape:* queries: (n_queries, width), documents: (n_documents, width) → (n_queries, min(k, n_documents)) each

    >>> nearest_rows(np.eye(2), np.array([[1.0, 0.1], [0.0, 2.0], [1.0, 0.0]]), 2)[0]
    array([[2, 0],
           [1, 0]])
    """
    k = min(k, len(documents))
    document_vectors = unit_rows(documents).astype(np.float32, copy=False)
    rows, scores = np.zeros((len(queries), k), dtype=np.int64), np.zeros((len(queries), k), dtype=np.float32)
    size = max(1, min(1024, _COSINES_AT_ONCE // max(len(documents), 1)))
    for start in range(0, len(queries), size):
        cosines = unit_rows(queries[start : start + size]).astype(np.float32, copy=False) @ document_vectors.T
        for query, values in enumerate(cosines, start):
            rows[query] = top_rows(values, k)
            scores[query] = values[rows[query]]
    return rows, scores


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors to unit length; a zero vector stays zero. *Shape:* (n, width) → (n, width), of the same dtype.

    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def row_cosines(one: np.ndarray, left: np.ndarray, other: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the cosine of row left[i] of `one` and row right[i] of `other`, for each pair i.

    Both arrays are normalised in place: a copy of all embeddings would double the memory.

    *Shape:* (n, width), (n_pairs,), (m, width), (n_pairs,) → (n_pairs,)
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
    """Embeddings of documents to search: vectors, binary embeddings, or (best) both.

    With both, `n_candidates` · `top_k` documents with the smallest Hamming distance are rescored with the vectors.

    *Shape:* vectors: (n_documents, width), float16, float32, float64 or int8; binary: (n_documents, ceil(width / 8)),
    uint8
    """

    vectors: np.ndarray | None = None
    binary: np.ndarray | None = None
    n_candidates: int = 8

    def __post_init__(self) -> None:
        if self.vectors is None and self.binary is None:
            raise BadInput("an index needs vectors, binary embeddings or both")
        check_count("n_candidates", self.n_candidates)
        for name, matrix in (("vectors", self.vectors), ("binary", self.binary)):
            _check_kind(name, matrix)
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
        matrix = self.binary if self.vectors is None else self.vectors
        return 0 if matrix is None else len(matrix)

    def search(self, queries: np.ndarray, *, top_k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return for each query the rows of its nearest documents, nearest first, and their cosines.

        With binary embeddings alone, the second result is the share of equal signs, mapped to [-1, 1].

        :raises BadInput: if top_k is below 1, queries have another width, or a vector is not finite

        *Shape:* queries: (n_queries, width), float or int8; results: (n_queries, min(top_k, n_documents)) each
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
        """Return the required width of queries; binary embeddings alone determine it only up to seven dimensions."""
        if self.vectors is not None:
            return int(self.vectors.shape[1])
        assert self.binary is not None
        n_bytes, query_width = int(self.binary.shape[1]), int((np.shape(queries) or (0,))[-1])
        return query_width if _n_bytes(query_width) == n_bytes else 8 * n_bytes

    def _rescored(self, query: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
        assert self.vectors is not None
        candidates = np.sort(
            self._alike(query, top_k * self.n_candidates)[0]
        )  # sorted, because the vectors may be in a mapped file
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


def _check_kind(name: str, matrix: np.ndarray | None) -> None:
    if matrix is None:
        return
    shape, dtype = getattr(matrix, "shape", ()), getattr(matrix, "dtype", np.dtype(object))
    numbers = dtype == np.uint8 if name == "binary" else dtype.kind == "f" or dtype == np.int8
    if len(shape) != 2 or not numbers:
        accepted = "(n_documents, bytes) of uint8" if name == "binary" else "(n_documents, width) of float or int8"
        raise BadInput(f"{name} of shape {shape}, {dtype}; {accepted} is expected")


def _n_bytes(width: int) -> int:
    return -(-width // 8)


def _finite(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Check scores and return them unchanged. Vectors are checked only in a search: they may be in a mapped file.

    :raises BadInput: naming the first row whose vector is NaN or infinite
    """
    wrong = ~np.isfinite(scores)
    if wrong.any():
        raise BadInput(f"vectors, row {int(rows[wrong.argmax()])}: NaN or infinite; every number is to be finite")
    return scores


def _cosines(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the cosines. *Shape:* query: (width,), of unit length; vectors: (n, width); result: (n,)."""
    floats = vectors.astype(np.float32, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):  # `_finite` reports values that are not finite
        cosines: np.ndarray = floats @ query / np.maximum(np.linalg.norm(floats, axis=1), 1e-12)
    return cosines


def truncated(vectors: np.ndarray, width: int) -> np.ndarray:
    """Keep the first dimensions of each vector and rescale it to unit length. *Shape:* (n, any) → (n, width).

    >>> truncated(np.array([[0.6, 0.0, 0.8]]), 2).tolist()
    [[1.0, 0.0]]
    """
    return unit_rows(vectors[:, :width])
