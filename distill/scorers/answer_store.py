"""Store a server's answers on disk by the hash of the request: vectors, or scores as vectors of one number.

Records are in append-only shards, in one folder per identity (such as model and dimensions). Any number of processes
may share the folder.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from distill.endpoints.answers import BadAnswer, JsonObject
from distill.errors import BadInput
from distill.files.artefact import content_hash, write_json

__all__ = ["AnswerStore"]


class AnswerStore:
    """Vectors by the hash of their text, in append-only shards.

    Each process writes a shard of its own and never changes another one. A record is hash, checksum and vector. A
    record that is incomplete after a kill, or has a wrong checksum, counts as missing.

    :param root: the folder that contains the folders of all identities
    :param identity: everything besides the text that determines the answers
    """

    def __init__(self, root: Path, identity: JsonObject) -> None:
        self._identity, self._folder = identity, root / content_hash(identity)
        self._card = self._folder / "identity.json"
        self._width: int | None = None
        self._places: dict[bytes, tuple[int, int]] = {}  # shard and row; neither vectors nor open files are kept
        self._shards: list[Path] = []
        self._file: Any = None
        if self._card.is_file():
            self._width = self._known_width()
            for path in sorted(self._folder.glob("*.vectors")):
                self._load(path)

    def _known_width(self) -> int:
        try:
            return int(json.loads(self._card.read_text(encoding="utf-8"))["width"])
        except (ValueError, KeyError, TypeError):
            raise BadInput(f"{self._card} is damaged; remove {self._folder} and pay again, or restore it") from None

    def __contains__(self, text: str) -> bool:
        return _text_key(text) in self._places

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Append vectors to this process's shard; they are on disk when the call returns.

        :raises BadAnswer: if their width differs from that of the stored vectors
        """
        self._check_width(vectors.shape[1])
        if self._file is None:
            self._shards.append(self._folder / f"{uuid4().hex}.vectors")
            self._file = self._shards[-1].open("xb")
        keys = [_text_key(text) for text in texts]
        records = np.zeros(len(texts), dtype=_record_type(vectors.shape[1]))
        for record, key, vector in zip(records, keys, vectors, strict=True):
            record["key"], record["checksum"], record["vector"] = np.void(key), zlib.crc32(vector.tobytes()), vector
        first_row = self._file.tell() // records.itemsize
        self._file.write(records.tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._places.update((key, (len(self._shards) - 1, row)) for row, key in enumerate(keys, first_row))

    def gather(self, texts: Sequence[str]) -> np.ndarray:
        """Return the stored vectors of texts. *Shape:* (n_texts, width), float32."""
        vectors = np.zeros((len(texts), self._width or 0), dtype=np.float32)
        places = np.array([self._places[_text_key(text)] for text in texts], dtype=np.int64).reshape(-1, 2)
        for shard in np.unique(places[:, 0]).tolist():
            own = np.flatnonzero(places[:, 0] == shard)
            vectors[own] = self._records(self._shards[shard])["vector"][places[own, 1]]
        return vectors

    def close(self) -> None:
        """Close this process's shard; the next vectors go to a new shard."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _check_width(self, width: int) -> None:
        if self._width is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json(self._card, self._identity | {"width": width})
            self._width = width
        if width != self._width:
            raise BadAnswer(
                f"the server sends embeddings of width {width}, those kept in {self._folder} have {self._width}; "
                "the model behind this name has changed: name another cache folder"
            )

    def _load(self, path: Path) -> None:
        for row, record in enumerate(self._records(path)):
            if zlib.crc32(record["vector"].tobytes()) == record["checksum"]:
                self._places[record["key"].tobytes()] = (len(self._shards), row)
        self._shards.append(path)

    def _records(self, path: Path) -> np.ndarray:
        """Map the whole records of a shard into memory; the file is open as long as the result is used."""
        assert self._width is not None
        kind = _record_type(self._width)
        n_whole = path.stat().st_size // kind.itemsize
        return np.memmap(path, dtype=kind, mode="r", shape=(n_whole,)) if n_whole else np.zeros(0, dtype=kind)


def _record_type(width: int) -> np.dtype[Any]:
    return np.dtype([("key", "V32"), ("checksum", "<u4"), ("vector", "<f4", (width,))])


def _text_key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
