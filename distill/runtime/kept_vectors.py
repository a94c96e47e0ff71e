"""Keep embeddings over several calls, for texts that recur in a file that is read in blocks."""

import hashlib
from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np

__all__ = ["KeptVectors"]

_MOST_BYTES = 256_000_000  # of embeddings and keys together
_KEY_BYTES = 150  # of a hash and its dictionary entry; texts are not stored


class KeptVectors:
    """The embeddings of the first texts, as many as fit; those of later texts are computed at every call.

    No embedding is evicted: if a file lists all documents for each query in the same order, least-recently-used
    eviction would drop each embedding just before it is needed again.

    :param width: the width of an embedding
    :param most_bytes: the memory limit for embeddings and keys together
    """

    def __init__(self, width: int, *, most_bytes: int = _MOST_BYTES) -> None:
        n_rows = max(1, most_bytes // (4 * width + _KEY_BYTES))
        self._vectors = np.empty((n_rows, width), dtype=np.float32)  # memory is used only when it is written
        self._rows: dict[bytes, int] = {}
        self._n_taken = 0
        self._lock = Lock()  # two threads may score

    def of(self, texts: Sequence[str], n_left_out: int, compute: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
        """Return the embedding of each text. *Shape:* (n_texts, width), float32; a copy.

        :param texts: texts without duplicates
        :param n_left_out: number of first tokens that the pooling ignores, which changes the embedding
        :param compute: returns the embeddings of texts that are not kept
        """
        keys = [_key(text, n_left_out) for text in texts]
        kept_rows = np.array([self._rows.get(key, -1) for key in keys], dtype=np.int64)
        missing = np.flatnonzero(kept_rows < 0)
        if len(missing) == len(texts):
            out = compute(texts)
        else:
            out = self._vectors[kept_rows]
            out[missing] = compute([texts[row] for row in missing.tolist()])
        with self._lock:
            new = missing[: len(self._vectors) - self._n_taken]
            rows = range(self._n_taken, self._n_taken + len(new))
            self._vectors[rows.start : rows.stop] = out[new]
            self._rows.update({keys[text]: row for row, text in zip(rows, new.tolist(), strict=True)})
            self._n_taken = rows.stop
        return out


def _key(text: str, n_left_out: int) -> bytes:
    return hashlib.blake2b(f"{n_left_out}:{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
