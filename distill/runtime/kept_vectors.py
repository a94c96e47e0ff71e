"""Embeddings that are kept over several calls, for texts that recur in a file which is read a block at a time."""

import hashlib
from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np

__all__ = ["KeptVectors"]

_MOST_BYTES = 256_000_000  # of embeddings and keys together
_KEY_BYTES = 150  # of a hash and its place in the dictionary; a text itself may be as long as it likes


class KeptVectors:
    """The embeddings of the first texts that come, as many as fit; later ones are computed as often as they are asked for.

    None makes room for another: the documents of a file that has all of them for each query come in one order again and
    again, and what was met last would be forgotten just before it is wanted.
    """

    def __init__(self, width: int, *, most_bytes: int = _MOST_BYTES) -> None:
        n_rows = max(1, most_bytes // (4 * width + _KEY_BYTES))
        self._vectors = np.empty((n_rows, width), dtype=np.float32)  # memory is taken as it is written
        self._rows: dict[bytes, int] = {}
        self._n_taken = 0
        self._lock = Lock()  # two threads may score

    def of(self, texts: Sequence[str], n_left_out: int, compute: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
        """Return the embedding of each text. *Shape:* (n_texts, width), float32; a copy.

        :param texts: each once
        :param n_left_out: first tokens that the pooling leaves out, which the embedding depends on
        :param compute: gives those of the texts that are not kept
        """
        keys = [_key(text, n_left_out) for text in texts]
        held = np.array([self._rows.get(key, -1) for key in keys], dtype=np.int64)
        lacking = np.flatnonzero(held < 0)
        if len(lacking) == len(texts):
            out = compute(texts)
        else:
            out = self._vectors[held]
            out[lacking] = compute([texts[row] for row in lacking.tolist()])
        with self._lock:
            new = lacking[: len(self._vectors) - self._n_taken]
            rows = range(self._n_taken, self._n_taken + len(new))
            self._vectors[rows.start : rows.stop] = out[new]
            self._rows.update({keys[text]: row for row, text in zip(rows, new.tolist(), strict=True)})
            self._n_taken = rows.stop
        return out


def _key(text: str, n_left_out: int) -> bytes:
    return hashlib.blake2b(f"{n_left_out}:{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
