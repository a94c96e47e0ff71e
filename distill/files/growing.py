"""An array that grows in a file beside an output, so that a killed command continues after its last complete block.

    .scores.tsv.unfinished/  HASH.rows · HASH.json

HASH covers everything that determines the rows, so rows of another model or other texts are never reused; they stay
until an output is finished. The .json file states what determines the rows and how many are complete; it is written
after them.
"""

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import BadInput
from distill.files.artefact import content_hash, is_temporary, read_json, write_json
from distill.files.locking import make_locked
from distill.files.outputs import is_stream
from distill.wording import counted

__all__ = ["GrowingArray", "growing_array", "take_file"]

log = logging.getLogger(__name__)
_OURS = re.compile(r"[0-9a-f]{16}\.(rows|json)")


class GrowingArray:
    """Rows of numbers in blocks: rows of an earlier attempt are read, the others are computed and stored.

    :param place: the path of the files, without suffix; None stores nothing
    :param made_from: everything that determines the rows, by names for messages
    :param width: numbers per row; 0 makes each row a single number
    :param dtype: the type of the numbers
    :param header: bytes in front of the rows, for a file that will become the output itself
    """

    def __init__(
        self, place: Path | None, made_from: Mapping[str, str], width: int, dtype: type[np.floating], header: bytes
    ) -> None:
        self._place, self._made_from = place, dict(made_from)
        self._shape, self._dtype, self._header = (() if width == 0 else (width,)), np.dtype(dtype), header
        self._row_bytes = self._dtype.itemsize * max(1, width)
        self.n_found = self.n_stored = self._count_stored()
        self._n_given = 0

    @property
    def path(self) -> Path | None:
        """The file with the header and the rows one after the other; None if nothing is stored."""
        return None if self._place is None else self._place.with_suffix(".rows")

    def next(self, n_rows: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the next rows; stored ones are mapped into memory, not read. *Shape:* (n_rows,) or (n_rows, width).

        :param compute: computes them; called only if an earlier attempt has not stored them
        :raises ValueError: if `compute` returns another shape
        """
        start, stop = self._n_given, self._n_given + n_rows
        self._n_given = stop
        if self.path is not None and 0 < n_rows and stop <= self.n_stored:
            return np.memmap(self.path, self._dtype, "r", self._offset(start), (n_rows, *self._shape))
        rows = np.ascontiguousarray(compute(), dtype=self._dtype)
        if rows.shape != (n_rows, *self._shape):
            raise ValueError(f"rows of shape {rows.shape}, expected {(n_rows, *self._shape)}")
        if self.path is not None:
            self._store(self.path, start, rows)
        return rows

    def _store(self, path: Path, start: int, rows: np.ndarray) -> None:
        with _opened(path) as file:
            file.truncate(self._offset(start))  # drop an incomplete block after it
            if start == 0:
                file.seek(0)
                file.write(self._header)
            file.seek(self._offset(start))
            file.write(rows.tobytes())
            file.flush()
            os.fsync(file.fileno())  # the stored count must never exceed the rows on disk
        n_rows = start + len(rows)
        write_json(path.with_suffix(".json"), {"made_from": self._made_from, "n_rows": n_rows}, sync=True)
        self.n_stored = n_rows

    def _offset(self, row: int) -> int:
        return len(self._header) + row * self._row_bytes

    def _count_stored(self) -> int:
        """Return how many rows of an earlier attempt can be reused."""
        if self._place is None or self.path is None or not self._place.with_suffix(".json").exists():
            return 0
        try:
            state = read_json(self._place.with_suffix(".json"))
            n_rows = state["n_rows"]
            if state["made_from"] == self._made_from and type(n_rows) is int and n_rows >= 0:
                if self._offset(n_rows) <= self.path.stat().st_size:
                    return n_rows
        except (BadInput, LookupError, TypeError, OSError):
            pass
        log.warning("%s is damaged; its rows are computed again", self._place.with_suffix(".json"))
        return 0


@contextmanager
def growing_array(
    target: Path,
    made_from: Callable[[], Mapping[str, str]],
    *,
    keep: bool,
    width: int = 0,
    dtype: type[np.floating] = np.float64,
    header: bytes = b"",
) -> Iterator[GrowingArray]:
    """Yield the array of an output; its rows stay if the block fails or is killed, and are removed if it succeeds.

    :param target: the output, which has passed `distill.files.outputs.check_output_file`
    :param made_from: returns everything that determines the rows, by names for messages; called only if rows are stored
    :param keep: store the rows; ignored for a stream, whose rows are never stored
    :param width: numbers per row; 0 makes each row a single number
    :raises BadInput: if another process writes the same output, or other files are in the place of the rows
    """
    folder = target.with_name(f".{target.name}.unfinished")
    if is_stream(target) or not keep:
        if not is_stream(target) and folder.is_dir():
            log.warning("%s holds rows of an earlier attempt, which are not used; remove it to free the disk", folder)
        yield GrowingArray(None, {}, width, dtype, header)
        return
    decided_by = {**made_from(), "form of the rows": f"{width} {np.dtype(dtype)} {header.hex()}"}
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        raise BadInput(f"{folder} is no folder; rows of an unfinished output belong there: remove it, or name another")
    place, array = folder / content_hash(decided_by), None
    descriptor = make_locked(folder, f"another process is writing {target}; wait for it, or name another output")
    try:
        _check_members(folder)
        array = GrowingArray(place, decided_by, width, dtype, header)
        _log_reuse(target, folder, array, decided_by)
        yield array
    except BaseException:
        if array is not None and array.n_stored:
            log.warning("%s holds %s; the same command continues after them", folder, _rows(array.n_stored))
        else:
            _remove(folder, place.name)
        raise
    else:
        _remove(folder)
    finally:
        os.close(descriptor)


def take_file(source: Path, temporary: Path) -> None:
    """Replace an output's temporary file by a hard link or a copy of a file; the source stays, in case of a refusal."""
    temporary.unlink()
    try:
        os.link(source, temporary)
    except OSError:  # a file system without links
        shutil.copyfile(source, temporary)


def _rows(n_rows: int) -> str:
    return f"the first {counted(n_rows, 'row')}" if n_rows != 1 else "the first row"


def _log_reuse(target: Path, folder: Path, array: GrowingArray, decided_by: Mapping[str, str]) -> None:
    """Log how many rows of earlier attempts are reused, or why none are."""
    if array.n_found:
        log.warning("%s: continuing after %s", target, _rows(array.n_found))
        return
    for path in folder.glob("*.json"):
        # ignore a damaged file: it cannot be continued
        with suppress(BadInput, LookupError, TypeError, ValueError, AttributeError):
            earlier = read_json(path)
            names = [name for name, value in decided_by.items() if earlier["made_from"].get(name) != value]
            if names:
                log.warning(
                    "%s: an earlier attempt (%s) differs in %s; all rows are computed",
                    target,
                    _rows(earlier["n_rows"]),
                    ", ".join(names),
                )


def _check_members(folder: Path) -> None:
    """Check that a folder holds only files of unfinished outputs, because it is removed at the end.

    :raises BadInput: naming another file that it holds
    """
    for path in folder.iterdir():
        is_ours = _OURS.fullmatch(path.name) or is_temporary(path.name)
        if not is_ours or path.is_symlink() or not path.is_file():
            raise BadInput(
                f"{folder} holds {path.name}, which is no file of an unfinished output; move it away, or name another output"
            )


def _opened(path: Path) -> Any:
    """Open a file for writing at any position, without following a link."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b")


def _remove(folder: Path, name: str = "*") -> None:
    """Remove the files of one attempt or of all; log a warning if they cannot be removed."""
    try:
        for path in [*folder.glob(f"{name}.rows"), *folder.glob(f"{name}.json"), *folder.glob(".*.tmp")]:
            path.unlink(missing_ok=True)
        if not os.listdir(folder):
            folder.rmdir()
    except OSError as error:
        log.warning("%s cannot be removed (%s); it is not needed any more", folder, error.strerror)
