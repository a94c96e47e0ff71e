"""A folder of Parquet shards that a job fills: whole files, each row once, whichever process dies when.

    <output>/shard-<keys>.parquet    rows; the name is the hash of their keys, and each row has its `key` (16 bytes)
            /_job.json               all that decides a row, and what the last run counted

A row's key is the hash of its text(s) and of what is kept beside them. A batch that is handed out twice, as Ray does where it
cannot know whether the first try came to its end, writes the same file; a row that any shard has is not computed again. What two
batches of one run had both (a text that came twice) is taken out at the end. Names with an underscore in front are no tables for
pyarrow, pandas, Spark and Ray.
"""

import hashlib
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from distill.errors import BadInput
from distill.files.artefact import content_hash
from distill.files.outputs import check_output_folder
from distill.ray.storage import Place, files_below
from distill.run import differences
from distill.signals import text_keys

__all__ = ["JOB", "KEY", "ShardFolder", "row_keys", "shard_name"]

JOB, KEY = "_job.json", "key"
_KEY_BYTES = 16


def row_keys(rows: Iterable[Sequence[Any]]) -> np.ndarray:
    """Hash rows: texts, and the values that are kept beside them. *Shape:* (n_rows, 2) uint64."""
    return text_keys([json.dumps(row, ensure_ascii=False, default=str) for row in rows])


def shard_name(keys: np.ndarray) -> str:
    """Return the name of the shard with these rows. *Shape:* keys: (n, 2)."""
    return f"shard-{hashlib.sha256(np.ascontiguousarray(keys).tobytes()).hexdigest()[:16]}.parquet"


class ShardFolder:
    """The output of a job."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def check(self, settings: Mapping[str, Any], inputs: Sequence[str], *, overwrite: bool) -> None:
        """Check that a job of these settings may write here, before any work.

        :param inputs: what it reads
        :raises BadInput: where something else lies there, or rows of other settings do
        """
        if self.place.local is not None:
            check_output_folder(self.place.local, inputs=list(inputs), ours=[JOB], overwrite=True)
        elif self.place.is_file:
            raise BadInput(f"{self.place} is a file; name a folder")
        held = self._settings()
        if held is None and files_below(self.place, hidden=True):
            raise BadInput(f"{self.place} holds other files, which would be mixed up; name a new folder")
        if held is not None and held != _as_json(settings) and not overwrite:
            changes = ", ".join(differences(held, _as_json(settings)))
            raise BadInput(
                f"{self.place} holds rows that were made otherwise ({changes}); name a new folder, or add --overwrite"
            )

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Make the folder ready: without rows of other settings, and without what killed processes left."""
        same = self._settings() == _as_json(settings)
        for file in files_below(self.place, hidden=True):
            if file.name.startswith(".shard-") or (not same and file.name.startswith("shard-")):
                file.remove()
        self.place.make_folder()
        if not same:
            self._write_job({"settings": settings, "counts": {}})

    def keys(self) -> np.ndarray:
        """Return the key of every row that is there, shard by shard. *Shape:* (n_rows, 2) uint64."""
        return _joined([self._keys_of(file) for file in self.shards()])

    def has(self, name: str) -> bool:
        """Whether there is a shard of this name."""
        return (self.place / name).is_file

    def write(self, name: str, rows: pa.Table, keys: np.ndarray) -> None:
        """Write a shard. *Shape:* keys: (n_rows, 2)."""
        buffer = pa.py_buffer(np.ascontiguousarray(keys).tobytes())
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(_KEY_BYTES), len(keys), [None, buffer])
        self._write(name, rows.append_column(KEY, column))

    def settle(self) -> int:
        """Take out rows that stand in two shards, or twice in one; returns how many."""
        shards = self.shards()
        keys = [self._keys_of(file) for file in shards]
        if not shards:
            return 0
        together = _joined(keys)
        is_first = np.zeros(len(together), dtype=bool)
        is_first[np.unique(together, axis=0, return_index=True)[1]] = True
        parts = np.split(is_first, np.cumsum([len(part) for part in keys])[:-1])
        for file, kept in zip(shards, parts, strict=True):
            if not kept.any():
                file.remove()
            elif not kept.all():
                with file.open() as raw:
                    self._write(file.name, pyarrow.parquet.read_table(raw).filter(pa.array(kept)))
        return int((~is_first).sum())

    def finish(self, settings: Mapping[str, Any], counts: Mapping[str, Any]) -> None:
        """State what a run counted."""
        self._write_job({"settings": settings, "counts": counts})

    def shards(self) -> list[Place]:
        """The shards that are there, by name."""
        return [file for file in files_below(self.place) if file.name.startswith("shard-")]

    def _settings(self) -> Any:
        file = self.place / JOB
        if not file.is_file:
            return None
        try:
            return json.loads(file.read())["settings"]
        except (ValueError, LookupError, TypeError):
            raise BadInput(f"{file} is not what this toolkit writes; name a new folder") from None

    def _write_job(self, stated: Mapping[str, Any]) -> None:
        text = json.dumps(stated, ensure_ascii=False, indent=2, default=str) + "\n"
        (self.place / JOB).write(text.encode(), f".{JOB}.{_process()}.tmp")

    def _write(self, name: str, rows: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pyarrow.parquet.write_table(rows, sink, compression="zstd", use_dictionary=False)
        (self.place / name).write(sink.getvalue(), f".{name}.{_process()}.tmp")

    def _keys_of(self, file: Place) -> np.ndarray:
        try:
            with file.open() as raw:
                column = pyarrow.parquet.read_table(raw, columns=[KEY])[KEY]
            return np.frombuffer(b"".join(column.to_pylist()), dtype=np.uint64).reshape(-1, 2)
        except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BadInput(f"{file} is damaged ({reason}); remove it and run the job again") from None


def _as_json(settings: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(settings, ensure_ascii=False, default=str))


def _joined(keys: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(keys) if keys else np.zeros((0, 2), dtype=np.uint64)


def _process() -> str:
    return f"{content_hash(socket.gethostname())[:6]}-{os.getpid()}"
