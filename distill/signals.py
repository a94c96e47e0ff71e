"""The teachers' signals (scores and embeddings): cached on disk, complete, addressed by content; or computed live.

    signals/<teacher>/<identity>/manifest.json            identity: revision, max_length, prompts, precision, dtype
                                /scores-<chunk>-<checksum>.arrow      key (16 bytes), value
                                /embeddings-<chunk>-<checksum>.arrow  key (16 bytes), value[width]

An item's key is the hash of its text, or of its query and document. Shards are memory-mapped Arrow files. Each is
written under a temporary name and renamed, so a killed run continues where it stopped, and any number of processes can
write at the same time. A shard's name has the checksum of its bytes, which is verified when it is opened: a damaged
shard is refused, not trained on. A cache made by another teacher, length or precision has another identity and is not
found: stale signals cannot be used by mistake (sentence-transformers' scripts name the folder by hand).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import pyarrow as pa

from distill.errors import BadInput
from distill.files.artefact import ModelKind, content_hash, left_by_the_dead, maker, read_json, write_json
from distill.files.hashing import file_digest
from distill.metrics.logistic import sigmoid
from distill.models.prompts import encode_by_role
from distill.progress import OnProgress
from distill.recipe.objectives import SignalKind

__all__ = [
    "CachedSignals",
    "Identity",
    "KeySet",
    "LiveSignals",
    "SignalCache",
    "SignalSource",
    "describe_scores",
    "pair_keys",
    "text_keys",
]

_KEY_BYTES = 16
MANIFEST = "manifest.json"


def text_keys(texts: Sequence[str], prompt: str = "") -> np.ndarray:
    """Hash texts, each with its prompt in front. *Shape:* (n_texts, 2) uint64."""
    return _keys(f"{prompt}{text}" for text in texts)


def pair_keys(queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """Hash pairs; the query's length keeps ("ab", "c") and ("a", "bc") apart. *Shape:* (n_pairs, 2) uint64."""
    return _keys(f"{len(query)}:{query}{document}" for query, document in zip(queries, documents, strict=True))


def _keys(items: Any) -> np.ndarray:
    digests = bytearray()  # a list of millions of digests would take five times their bytes
    for item in items:
        digests += hashlib.blake2b(item.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()
    return np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)


@dataclass(frozen=True)
class Identity:
    """Everything that determines a teacher's signals."""

    revision: str
    kind: ModelKind
    max_length: int
    prompts: tuple[str, str] = ("", "")
    runtime: str = "torch"
    precision: Literal["bf16", "fp32"] = "fp32"
    dtype: Literal["float16", "float32"] = "float32"

    @property
    def key(self) -> str:
        """The name of the cache folder of this identity."""
        return content_hash(asdict(self))


class SignalSource(Protocol):
    """Where a training run gets a teacher's signals from: the cache, or the teacher itself."""

    @property
    def kind(self) -> ModelKind:
        """The teacher's kind, which determines the scale of its scores."""

    def scores(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return logits (cross-encoder) or cosines (bi-encoder). *Shape:* (n_pairs,) float32."""

    def embeddings(self, texts: Sequence[str], roles: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function from indices of these texts to their embeddings, (n, width) float32.

        :param roles: 0 for a query, 1 for a document: which prompt each text has
        """

    @property
    def width(self) -> int:
        """The width of the teacher's embeddings."""


class SignalCache:
    """The shards of one identity, for writing and reading.

    :param on_bytes: called with the number of bytes read while checksums are verified
    """

    def __init__(self, folder: Path, identity: Identity, on_bytes: OnProgress | None = None) -> None:
        self.identity, self.folder, self._on_bytes = identity, folder / identity.key, on_bytes
        self._tables: dict[SignalKind, _Index] = {}
        self._verified: set[str] = set()

    def missing(self, kind: SignalKind, keys: np.ndarray) -> np.ndarray:
        """Return the first index of each key that no shard has. *Shape:* keys (n, 2) → (n_missing,)."""
        _, first_indices = np.unique(keys, axis=0, return_index=True)
        first_indices = np.sort(first_indices)
        return first_indices[self._index(kind).find(keys[first_indices]) < 0]

    def write(self, kind: SignalKind, keys: np.ndarray, values: np.ndarray) -> None:
        """Write one shard. *Shape:* keys: (n, 2); values: (n,) scores or (n, width) embeddings, all finite.

        :raises BadInput: if a value is too large for the cache's number format
        """
        with np.errstate(over="ignore"):
            data = values.astype(self.identity.dtype)
        if np.isinf(data).any():
            raise BadInput(
                f"{kind} of up to {np.abs(values).max():g} do not fit into {self.identity.dtype}; set signals.dtype=float32"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        column = (
            pa.array(data)
            if data.ndim == 1
            else pa.FixedSizeListArray.from_arrays(pa.array(data.ravel()), data.shape[1])
        )
        key_column = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(_KEY_BYTES), len(keys), [None, pa.py_buffer(np.ascontiguousarray(keys).tobytes())]
        )
        table = pa.table({"key": key_column, "value": column})
        chunk = hashlib.sha256(keys.tobytes()).hexdigest()[:16]
        temporary = self.folder / f".{kind}-{chunk}.{maker()}.tmp"
        try:
            with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            target = self.folder / f"{kind}-{chunk}-{_checksum(temporary)}.arrow"
            temporary.replace(target)
            self._verified.add(target.name)
            self._tables.pop(kind, None)
        finally:
            temporary.unlink(missing_ok=True)

    def finish(self, summary: Mapping[str, Any], seconds: float) -> None:
        """Write the manifest: the full identity, counts, statistics of the scores, and the time of labelling.

        Unfinished shards of killed processes are removed.

        :param seconds: time of this labelling run; those of earlier finished runs are added
        """
        for leftover in left_by_the_dead(self.folder, ".*.tmp"):
            leftover.unlink(missing_ok=True)
        counts = {kind: self.count(kind) for kind in ("scores", "embeddings")}
        path = self.folder / MANIFEST
        stored_seconds = read_json(path).get("seconds", 0.0) if path.is_file() else 0.0
        earlier_seconds = stored_seconds if isinstance(stored_seconds, int | float) else 0.0
        manifest = {
            "identity": asdict(self.identity),
            "items": counts,
            "seconds": round(earlier_seconds + seconds, 1),
            **summary,
        }
        write_json(path, manifest)

    def summary(self, name: str) -> Any:
        """Return an entry of the manifest's summary from an earlier labelling run, or None.

        :raises BadInput: if the manifest is damaged
        """
        path = self.folder / MANIFEST
        return read_json(path).get(name) if path.is_file() else None

    def refresh(self) -> None:
        """Read the folder's shards again, because other processes write too."""
        self._tables.clear()

    def find(self, kind: SignalKind, keys: np.ndarray, what: str) -> np.ndarray:
        """Return the row of each key.

        :raises BadInput: if one is missing
        """
        rows = self._index(kind).find(keys)
        if (rows < 0).any():
            n_missing = int((rows < 0).sum())
            other_caches = (
                sorted(path.parent.name for path in self.folder.parent.glob(f"*/{MANIFEST}"))
                if self.folder.parent.is_dir()
                else []
            )
            hint = (
                f"; there is a cache of another teacher, length or precision: {', '.join(other_caches)}"
                if other_caches and self.folder.name not in other_caches
                else ""
            )
            raise BadInput(
                f"{self.folder} lacks {what} of {n_missing} of {len(keys)} items{hint}; run `distill cache-signals` with this recipe"
            )
        return rows

    def known(self, kind: SignalKind, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key, −1 for a key that the cache lacks. *Shape:* keys (n, 2) → (n,)."""
        return self._index(kind).find(keys)

    def read(self, kind: SignalKind, rows: np.ndarray) -> np.ndarray:
        """Return values by row, float32. *Shape:* (n,) or (n, width)."""
        return self._index(kind).read(rows)

    def count(self, kind: SignalKind) -> int:
        """Return how many items of a kind the shards hold."""
        return len(self._index(kind))

    def unchecked(self) -> list[Path]:
        """Return the shards whose names have no checksum: their bytes cannot be verified."""
        return [path for path in sorted(self.folder.glob("*.arrow")) if _stated_checksum(path) is None]

    def width(self) -> int:
        """The width of the cached embeddings."""
        return self._index("embeddings").width

    def _index(self, kind: SignalKind) -> "_Index":
        if kind not in self._tables:
            paths = sorted(self.folder.glob(f"{kind}-*.arrow"))
            for path in paths:
                if path.name not in self._verified:
                    _verify(path, self._on_bytes)
                    self._verified.add(path.name)
            self._tables[kind] = _Index(paths)
        return self._tables[kind]


def _checksum(path: Path, on_bytes: OnProgress | None = None) -> str:
    digest: str = file_digest(path, lambda: hashlib.blake2b(digest_size=8), on_bytes).hexdigest()
    return digest


def _stated_checksum(path: Path) -> str | None:
    """Return the checksum in a shard's name; None where it has none."""
    return next(iter(path.stem.split("-")[2:]), None)


def _verify(path: Path, on_bytes: OnProgress | None) -> None:
    """Verify a shard's bytes by the checksum in its name; a shard of an earlier release has none.

    :raises BadInput: naming it
    """
    if not path.is_file():
        raise BadInput(f"{path} is no file; remove it and run `distill cache-signals` again")
    checksum = _stated_checksum(path)
    try:
        if checksum is not None and _checksum(path, on_bytes) != checksum:
            raise BadInput(
                f"{path} is damaged (its checksum is another); remove it and run `distill cache-signals` again"
            )
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read ({error.strerror}); remove it and run `distill cache-signals` again"
        ) from None


class KeySet:
    """Keys for fast look-up: sorted by the first 8 bytes, compared by the rest. *Shape:* keys: (n, 2) uint64."""

    def __init__(self, keys: np.ndarray) -> None:
        self._keys = keys
        self._order = np.argsort(keys[:, 0], kind="stable")
        self._sorted = keys[self._order, 0]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key, −1 where there is none. *Shape:* keys (n, 2) → (n,)."""
        if not len(self):
            return np.full(len(keys), -1, dtype=np.int64)
        places = np.minimum(np.searchsorted(self._sorted, keys[:, 0]), len(self) - 1)
        rows = self._order[places]
        found: np.ndarray = np.where((self._keys[rows] == keys).all(axis=1), rows, -1)
        return found


class _Index:
    """Memory-mapped shards and a sorted table of their keys (24 bytes an item)."""

    def __init__(self, paths: Sequence[Path]) -> None:
        keys, starts = [], [0]
        self._values: list[np.ndarray] = []
        for path in paths:
            try:
                table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
                keys.append(_numpy_keys(table["key"]))
                values = _numpy_values(table["value"])
                if keys[-1].shape != (len(values), 2) or values.shape[1:] != (self._values or [values])[0].shape[1:]:
                    raise ValueError("its columns do not fit together, or not to the other shards")
            except (pa.ArrowException, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
                reason = " ".join(str(error).split())[:200]
                raise BadInput(
                    f"{path} is damaged ({reason}); remove it and run `distill cache-signals` again"
                ) from None
            self._values.append(values)
            starts.append(starts[-1] + len(table))
        self._starts = np.array(starts)
        self._keys = KeySet(np.concatenate(keys) if keys else np.zeros((0, 2), dtype=np.uint64))

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def width(self) -> int:
        return int(self._values[0].shape[1]) if self._values else 0

    def find(self, keys: np.ndarray) -> np.ndarray:
        return self._keys.find(keys)

    def read(self, rows: np.ndarray) -> np.ndarray:
        shape = (len(rows), *self._values[0].shape[1:])
        out = np.empty(shape, dtype=np.float32)
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        for shard in np.unique(shards):
            in_shard = shards == shard
            out[in_shard] = self._values[shard][rows[in_shard] - self._starts[shard]]
        return out


def _numpy_keys(column: pa.ChunkedArray) -> np.ndarray:
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype=np.uint64).reshape(-1, 2)[chunk.offset : chunk.offset + len(chunk)]
        for chunk in column.chunks
    ]
    return np.concatenate(parts)


def _numpy_values(column: pa.ChunkedArray) -> np.ndarray:
    chunk = column.chunk(0)  # a shard is written as one chunk
    if pa.types.is_fixed_size_list(chunk.type):
        return np.asarray(chunk.values.to_numpy(zero_copy_only=True)).reshape(len(chunk), chunk.type.list_size)
    return np.asarray(chunk.to_numpy(zero_copy_only=True))


@dataclass
class CachedSignals:
    """Signals from the cache."""

    cache: SignalCache

    @property
    def kind(self) -> ModelKind:
        """The teacher's kind."""
        return self.cache.identity.kind

    @property
    def width(self) -> int:
        """The width of the teacher's embeddings."""
        return self.cache.width()

    def scores(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return the cached scores of pairs."""
        rows = self.cache.find("scores", pair_keys(queries, documents), "scores")
        return self.cache.read("scores", rows)

    def embeddings(self, texts: Sequence[str], roles: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
        """Return a reader of the cached embeddings.

        :raises BadInput: if one is missing
        """
        prompts = self.cache.identity.prompts
        keys = _keys(prompts[role] + text for text, role in zip(texts, roles, strict=True))
        rows = self.cache.find("embeddings", keys, "embeddings")
        return lambda numbers: self.cache.read("embeddings", rows[numbers])


class LiveSignals:
    """Signals computed by the teacher during training: nothing is stored, and every epoch computes them again.

    :param prompts: for a scorer that has only `encode`; a scorer that distinguishes queries and documents has its own
    """

    def __init__(self, scorer: Any, prompts: tuple[str, str]) -> None:
        self.scorer, self.prompts = scorer, prompts

    @property
    def kind(self) -> ModelKind:
        """The teacher's kind."""
        return cast(ModelKind, self.scorer.kind)

    @property
    def width(self) -> int:
        """The width of the teacher's embeddings."""
        return int(self.scorer.embedding_width)

    def scores(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Score pairs now, once for the run."""
        return np.asarray(self.scorer.score(queries, documents), dtype=np.float32)

    def embeddings(self, texts: Sequence[str], roles: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function that encodes when called."""
        if hasattr(self.scorer, "encode_queries"):
            return lambda numbers: encode_by_role(
                self.scorer, [texts[number] for number in numbers], [roles[number] for number in numbers]
            )
        prompted = [self.prompts[role] + text for text, role in zip(texts, roles, strict=True)]
        return lambda numbers: np.asarray(self.scorer.encode([prompted[i] for i in numbers]), dtype=np.float32)


def describe_scores(scores: np.ndarray, labels: np.ndarray | None, kind: ModelKind) -> dict[str, Any]:
    """Describe a teacher's scores: scale, spread, saturation, and agreement with the labels.

    Scores without spread, or nearly saturated ones, are the most common reason why distillation fails without an error.

    *Shape:* scores, labels: (n_pairs,)
    """
    from scipy.stats import spearmanr

    unit = sigmoid(scores.astype(np.float64)) if kind == "cross_encoder" else (scores + 1) / 2
    low, middle, high = np.quantile(scores, [0.05, 0.5, 0.95]).tolist()
    description: dict[str, Any] = {
        "scale": "logit" if kind == "cross_encoder" else "cosine",
        "quantile_5": low,
        "median": middle,
        "quantile_95": high,
        "std": float(scores.std()),
        "share_saturated": float(((unit < 0.001) | (unit > 0.999)).mean()),
    }
    if labels is not None and np.ptp(scores) > 0 and np.ptp(labels) > 0:
        description["spearman_with_labels"] = float(spearmanr(scores, labels).statistic)
    return description
