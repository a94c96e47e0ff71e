"""Embeddings of an OpenAI-compatible endpoint, kept on disk: a text is paid for once, by whichever process asks first.

Vectors lie in shards that are only ever added to, under a folder of their model and dimensions, found by the text's hash.
"""

import asyncio
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from distill.endpoints.answers import BadAnswer, JsonObject
from distill.endpoints.budget import Budget
from distill.endpoints.tokens import estimated_tokens, most_tokens, sixths_of_tokens
from distill.errors import BadInput
from distill.files.artefact import content_hash, write_json
from distill.recipe.endpoint import Endpoint
from distill.wording import in_dollars

__all__ = ["EmbeddingBatch", "RemoteEmbeddings"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddingBatch:
    """The most that one call asks for."""

    texts: int = 256
    tokens: int = 100_000
    """By an estimate; a longer text has a call to itself."""


class RemoteEmbeddings:
    """An encoder behind an endpoint, with every vector kept on disk: a text is paid for once.

    `cost` is what this object has spent in dollars, `n_requests` what it has sent, `n_truncated` how many texts were cut.

    :param cache: a folder; models and dimensions do not mix in it, any number of processes may share it
    :param max_tokens: where a text is cut, by an estimate that is rather too careful
    """

    def __init__(
        self,
        endpoint: Endpoint,
        cache: Path,
        *,
        dimensions: int | None = None,
        batch: EmbeddingBatch | None = None,
        max_tokens: int = 8191,
        budget: Budget | None = None,
    ) -> None:
        self.endpoint, self.dimensions = endpoint, dimensions
        self.batch, self.max_tokens = batch or EmbeddingBatch(), max_tokens
        self.n_requests = self.n_truncated = 0
        self._budget = budget or Budget(None)
        self._spent_before = self._budget.spent
        self._store = _VectorStore(cache, {"model": endpoint.model, "dimensions": dimensions})
        endpoint.price  # noqa: B018  # says at once where the price is unknown

    @property
    def cost(self) -> float:
        """Dollars spent so far."""
        return self._budget.spent - self._spent_before

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of texts, asking only for those that the cache lacks.

        *Shape:* (n_texts, width), float32

        :raises BadInput: on an empty text, which servers refuse.
        """
        if empty := [i for i, text in enumerate(texts) if not text.strip()]:
            raise BadInput(
                f"{len(empty)} of {len(texts)} texts are empty (first: number {empty[0] + 1}); leave them out"
            )
        sent = [self._truncated(text) for text in texts]
        if n_cut := sum(a != b for a, b in zip(texts, sent, strict=True)):
            self.n_truncated += n_cut
            log.warning(
                "%d of %d texts were cut to about %d tokens for %s",
                n_cut,
                len(texts),
                self.max_tokens,
                self.endpoint.model,
            )
        missing = [text for text in dict.fromkeys(sent) if text not in self._store]
        if missing:
            asyncio.run(self._ask(missing))
        log.info(
            "%s: %d texts, %d asked, %s so far", self.endpoint.model, len(texts), len(missing), in_dollars(self.cost)
        )
        return self._store.gather(sent)

    async def _ask(self, texts: Sequence[str]) -> None:
        from distill.endpoints.client import Client, run_all  # needs openai, which only asking does

        async with Client(self.endpoint, self._budget) as client:
            batches = self._batches(texts)

            async def work() -> None:
                for batch in batches:  # shared: each worker takes the next one
                    self._store.add(batch, await client.embed(batch, dimensions=self.dimensions))

            try:
                await run_all(work() for _ in range(self.endpoint.concurrency))
            finally:
                self.n_requests += client.n_requests
                self._store.close()

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        n_tokens = 0
        for text in texts:
            n = estimated_tokens(text)
            if batch and (len(batch) == self.batch.texts or n_tokens + n > self.batch.tokens):
                yield batch
                batch, n_tokens = [], 0
            batch.append(text)
            n_tokens += n
        if batch:
            yield batch

    def _truncated(self, text: str) -> str:
        """Return the longest beginning that is estimated to fit."""
        if most_tokens(text) <= self.max_tokens or estimated_tokens(text) <= self.max_tokens:
            return text
        n_fitting = np.searchsorted(np.cumsum(sixths_of_tokens(text)), 6 * self.max_tokens, side="right")
        return text[: int(n_fitting)]


class _VectorStore:
    """Vectors by the hash of their text, in append-only shards.

    A process writes a shard of its own and never changes another's. A record is hash, checksum, vector; one that a kill
    cut off, or whose checksum is wrong, counts as missing.
    """

    def __init__(self, root: Path, identity: JsonObject) -> None:
        self._identity, self._folder = identity, root / content_hash(identity)
        self._card = self._folder / "identity.json"
        self._width: int | None = None
        self._places: dict[bytes, tuple[int, int]] = {}
        self._shards: list[np.ndarray] = []
        self._added: dict[bytes, np.ndarray] = {}
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
        key = _text_key(text)
        return key in self._added or key in self._places

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Append vectors to this process's shard, on disk when the call returns."""
        self._check_width(vectors.shape[1])
        if self._file is None:
            self._file = (self._folder / f"{uuid4().hex}.vectors").open("xb")
        records = np.zeros(len(texts), dtype=_record_type(vectors.shape[1]))
        for record, text, vector in zip(records, texts, vectors, strict=True):
            key = _text_key(text)
            record["key"], record["checksum"], record["vector"] = np.void(key), zlib.crc32(vector.tobytes()), vector
            self._added[key] = vector
        self._file.write(records.tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())

    def gather(self, texts: Sequence[str]) -> np.ndarray:
        """Return the stored vectors of texts. *Shape:* (n_texts, width), float32."""
        vectors = np.zeros((len(texts), self._width or 0), dtype=np.float32)
        for i, key in enumerate(map(_text_key, texts)):
            if key in self._added:
                vectors[i] = self._added[key]
            else:
                shard, row = self._places[key]
                vectors[i] = self._shards[shard][row]["vector"]
        return vectors

    def close(self) -> None:
        """Close this process's shard; the next vectors go to a new one."""
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
        assert self._width is not None
        kind = _record_type(self._width)
        n_whole = path.stat().st_size // kind.itemsize
        if not n_whole:
            return
        shard = np.memmap(path, dtype=kind, mode="r", shape=(n_whole,))
        for row, record in enumerate(shard):
            if zlib.crc32(record["vector"].tobytes()) == record["checksum"]:
                self._places[record["key"].tobytes()] = (len(self._shards), row)
        self._shards.append(shard)


def _record_type(width: int) -> np.dtype[Any]:
    return np.dtype([("key", "V32"), ("checksum", "<u4"), ("vector", "<f4", (width,))])


def _text_key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
