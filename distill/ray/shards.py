"""A folder of Parquet shards that a job writes. Files are complete and each row is there once, even if processes die.

    <output>/shard-<keys>.parquet    rows; the name is the hash of their keys, and each row has its `key` (16 bytes)
            /_job.json               the settings that affect the rows, and the counts of the last run

A row's key is the hash of its text(s) and its kept columns. Ray assigns a batch twice if it does not know whether the
first try has finished; both tries then write the same file. Rows that are already in a shard are not computed again. If
two batches of one run have the same row (a text that occurs twice), one of them is removed at the end. pyarrow, pandas,
Spark and Ray ignore files whose name starts with an underscore when they read tables.
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
_UNFINISHED = (".shard-", f".{JOB}.")


def row_keys(rows: Iterable[Sequence[Any]]) -> np.ndarray:
    """Return the hashes of rows, each with its texts and kept values. *Shape:* (n_rows, 2) uint64."""
    return text_keys([json.dumps(row, ensure_ascii=False, default=str) for row in rows])


def shard_name(keys: np.ndarray) -> str:
    """Return the name of the shard with these rows. *Shape:* keys: (n, 2)."""
    return f"shard-{hashlib.sha256(np.ascontiguousarray(keys).tobytes()).hexdigest()[:16]}.parquet"


class ShardFolder:
    """The output folder of a job."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def check(self, settings: Mapping[str, Any], inputs: Sequence[str], *, overwrite: bool) -> None:
        """Check, before any work, that a job with these settings may write to the folder.

        :param inputs: paths of the job's inputs
        :raises BadInput: if the folder holds other files, or rows of other settings and `overwrite` is not set
        """
        if self.place.local is not None:
            check_output_folder(self.place.local, inputs=list(inputs), ours=[JOB], overwrite=True)
        elif self.place.is_file:
            raise BadInput(f"{self.place} is a file; name a folder")
        stored = self._settings()
        found = (file for file in files_below(self.place, hidden=True) if not file.name.startswith(_UNFINISHED))
        if stored is None and next(found, None) is not None:
            raise BadInput(f"{self.place} holds other files, which would be mixed up; name a new folder")
        if stored is not None and stored != _as_json(settings) and not overwrite:
            changes = ", ".join(differences(stored, _as_json(settings)))
            raise BadInput(
                f"{self.place} holds rows that were made otherwise ({changes}); name a new folder, or add --overwrite"
            )

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Prepare the folder: remove rows of other settings, and temporary files of killed processes."""
        same = self._settings() == _as_json(settings)
        for file in files_below(self.place, hidden=True):
            if file.name.startswith(_UNFINISHED) or (not same and file.name.startswith("shard-")):
                file.remove()
        self.place.make_folder()
        if not same:
            self._write_job({"settings": settings, "counts": {}})

    def keys(self) -> np.ndarray:
        """Return the keys of all stored rows, shard by shard. *Shape:* (n_rows, 2) uint64."""
        return _joined([self._keys_of(file) for file in self.shards()])

    def has(self, name: str) -> bool:
        """Return whether there is a shard of this name."""
        return (self.place / name).is_file

    def write(self, name: str, rows: pa.Table, keys: np.ndarray) -> None:
        """Write a shard. *Shape:* keys: (n_rows, 2)."""
        buffer = pa.py_buffer(np.ascontiguousarray(keys).tobytes())
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(_KEY_BYTES), len(keys), [None, buffer])
        self._write(name, rows.append_column(KEY, column))

    def settle(self) -> int:
        """Remove rows that are in two shards, or twice in one; return the number of removed rows."""
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
        """Store the counts of a run."""
        self._write_job({"settings": settings, "counts": counts})

    def shards(self) -> list[Place]:
        """Return the existing shards, sorted by name."""
        return [file for file in files_below(self.place) if file.name.startswith("shard-")]

    def _settings(self) -> Any:
        file = self.place / JOB
        if not file.is_file:
            return None
        try:
            return json.loads(file.read())["settings"]
        except (ValueError, LookupError, TypeError):
            raise BadInput(f"{file} is not what this toolkit writes; name a new folder") from None

    def _write_job(self, job: Mapping[str, Any]) -> None:
        text = json.dumps(job, ensure_ascii=False, indent=2, default=str) + "\n"
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
    """Return the process id and a number of the machine, for temporary names as `is_temporary` knows them."""
    return f"{os.getpid()}-{int(content_hash(socket.gethostname())[:6], 16)}"
