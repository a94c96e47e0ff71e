"""An array that grows in a file beside an output, so that a killed command goes on behind its last whole block.

    .scores.tsv.unfinished/  rows.bin · state.json · .lock

`state.json` says what the rows are made from and how many are whole; it is written after them. Rows that were made from something
else are never taken: the array is begun anew. The folder is gone once the output is in place.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from distill.errors import BadInput
from distill.files.artefact import read_json, write_json
from distill.files.locking import only_process
from distill.files.outputs import is_stream
from distill.wording import counted

__all__ = ["GrowingArray", "growing_array"]

log = logging.getLogger(__name__)
_ROWS, _STATE = "rows.bin", "state.json"


class GrowingArray:
    """Rows of numbers that come in blocks: those of an earlier attempt are read, the others are computed and kept.

    :param folder: keeps them; None keeps none (an output that is a stream)
    :param header: bytes that stand before the rows, where the file becomes the output itself
    """

    def __init__(
        self, folder: Path | None, made_from: Mapping[str, str], width: int, dtype: type[np.floating], header: bytes
    ) -> None:
        self._folder, self._made_from = folder, dict(made_from)
        self._shape, self._dtype = (() if width == 0 else (width,)), np.dtype(dtype)
        self._header = header
        self.n_found = self.n_kept = self._read_state()
        self._n_given = 0
        if folder is not None:
            with (folder / _ROWS).open("r+b" if self.n_found else "wb") as file:
                file.write(header)
                file.truncate(self._place(self.n_found))  # what stands behind was not whole

    @classmethod
    def unkept(cls, width: int = 0, dtype: type[np.floating] = np.float64) -> "GrowingArray":
        """Return an array that computes every row and keeps none."""
        return cls(None, {}, width, dtype, b"")

    @property
    def path(self) -> Path | None:
        """The file: the header, and the rows one behind the other."""
        return None if self._folder is None else self._folder / _ROWS

    def next(self, n_rows: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the next rows. *Shape:* (n_rows,) or (n_rows, width).

        :param compute: gives them; called only where an earlier attempt has not left them
        """
        start, stop = self._n_given, self._n_given + n_rows
        self._n_given = stop
        if stop <= self.n_kept:
            return self._read(start, n_rows)
        rows = np.ascontiguousarray(compute(), dtype=self._dtype)
        if rows.shape != (n_rows, *self._shape):
            raise ValueError(f"rows of shape {rows.shape}, expected {(n_rows, *self._shape)}")
        self._keep(start, rows)
        return rows

    def _keep(self, start: int, rows: np.ndarray) -> None:
        if self._folder is None:
            return
        with (self._folder / _ROWS).open("r+b") as file:
            file.seek(self._place(start))
            file.write(rows.tobytes())
            file.flush()
            os.fsync(file.fileno())  # the state never says more than the disk holds
        self.n_kept = start + len(rows)
        write_json(self._folder / _STATE, {"made_from": self._made_from, "n_rows": self.n_kept})

    def _read(self, start: int, n_rows: int) -> np.ndarray:
        assert self._folder is not None
        count = n_rows * int(np.prod(self._shape, dtype=np.int64))
        rows = np.fromfile(self._folder / _ROWS, dtype=self._dtype, count=count, offset=self._place(start))
        return rows.reshape(n_rows, *self._shape)

    def _place(self, row: int) -> int:
        return len(self._header) + row * self._dtype.itemsize * int(np.prod(self._shape, dtype=np.int64))

    def _read_state(self) -> int:
        """Return how many rows of an earlier attempt can be taken."""
        if self._folder is None or not (self._folder / _STATE).is_file():
            return 0
        try:
            state = read_json(self._folder / _STATE)
            made_from, n_rows = dict(state["made_from"]), state["n_rows"]
            is_whole = (
                type(n_rows) is int and n_rows >= 0 and self._place(n_rows) <= (self._folder / _ROWS).stat().st_size
            )
        except (BadInput, LookupError, TypeError, ValueError, OSError):
            is_whole = False
        if not is_whole:
            log.warning("%s is damaged; all is computed anew", self._folder)
            return 0
        differing = [name for name, value in self._made_from.items() if made_from.get(name) != value]
        if differing:
            named, rows = ", ".join(differing), counted(n_rows, "row")
            log.warning("an earlier attempt got %s done with other %s; all is computed anew", rows, named)
            return 0
        return int(n_rows)


@contextmanager
def growing_array(
    target: Path,
    made_from: Mapping[str, str],
    *,
    width: int = 0,
    dtype: type[np.floating] = np.float64,
    header: bytes = b"",
) -> Iterator[GrowingArray]:
    """Yield the array behind an output. It is kept where the block fails or is killed, and gone where it ends well.

    :param target: the output, which `distill.files.outputs.check_output_file` has let pass
    :param made_from: what decides the rows, each under a name that a message can use ("model")
    :param width: numbers of a row; 0 makes each row one number
    :raises BadInput: where another process works on the same output
    """
    if is_stream(target):
        yield GrowingArray(None, made_from, width, dtype, header)
        return
    folder = target.with_name(f".{target.name}.unfinished")
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        raise BadInput(f"{folder} is no folder; unfinished results belong there: remove it, or name another output")
    folder.mkdir(exist_ok=True)
    with only_process(folder):
        array = GrowingArray(folder, made_from, width, dtype, header)
        if array.n_found:
            log.warning("%s: going on behind the %s of an earlier attempt", target, counted(array.n_found, "row"))
        try:
            yield array
        except BaseException:
            if array.n_kept:
                stored = f"{counted(array.n_kept, 'row')} of the result {'is' if array.n_kept == 1 else 'are'} stored"
                log.warning("%s in %s; the same command goes on from there", stored, folder)
            else:
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
