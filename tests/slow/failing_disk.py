"""A disk that is full at the n-th write below a folder, and at that one alone.

What Python opens to write, renames and makes a folder of is a write, and so is each call of a library that writes a file by
itself (safetensors, torch, Arrow, OpenVINO). A file that fails was begun: it is empty, or half of it is there.
"""

import builtins
import errno
import io
import os
from pathlib import Path


class FailingDisk:
    """Lets the n-th write below a folder fail with "No space left on device"; `n_writes` counts them.

    :param patch: a `pytest.MonkeyPatch`, which takes everything back
    :param n: which write fails, from 1; None counts alone
    """

    def __init__(self, patch, folder, n=None):
        self.folder, self.n, self.n_writes, self.inside = os.fspath(folder), n, 0, False
        self.failed_at = None
        for module in (builtins, io):
            patch.setattr(module, "open", self._opening(module.open))
        patch.setattr(os, "open", self._opening_low(os.open))
        for name in ("rename", "replace"):
            patch.setattr(os, name, self._before(getattr(os, name), 1, f"os.{name}"))
        patch.setattr(os, "mkdir", self._before(os.mkdir, 0, "os.mkdir"))
        self._patch_libraries(patch)

    def _patch_libraries(self, patch):
        import openvino
        import pyarrow
        import safetensors.torch
        import torch

        patch.setattr(safetensors.torch, "serialize_file", self._half(safetensors.torch.serialize_file, "safetensors"))
        patch.setattr(torch, "save", self._half(torch.save, "torch.save"))
        patch.setattr(openvino, "save_model", self._half(openvino.save_model, "openvino", ".bin"))
        patch.setattr(pyarrow, "OSFile", self._opening(pyarrow.OSFile))

    def _counts(self, path, what):
        """Count a write below the folder, and tell whether it is to fail; the writes of a library's call are that call."""
        path = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        if self.inside or not str(path).startswith(self.folder + os.sep):
            return False
        self.n_writes += 1
        if self.n_writes != self.n:
            return False
        self.failed_at = f"{what} {os.path.relpath(path, self.folder)}"
        return True

    def _full(self, path):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))

    def _opening(self, original):
        def open_file(file, mode="r", *arguments, **options):
            if set(mode) & set("wax+") and self._counts(file, "open"):
                original(file, mode, *arguments, **options).close()
                raise self._full(file)
            return original(file, mode, *arguments, **options)

        return open_file

    def _opening_low(self, original):
        def open_file(path, flags, *arguments, **options):
            if flags & (os.O_WRONLY | os.O_RDWR) and self._counts(path, "os.open"):
                raise self._full(path)
            return original(path, flags, *arguments, **options)

        return open_file

    def _before(self, original, place, what):
        """Fail before a call that either does all or nothing; the path that counts is its argument at `place`."""

        def call(*arguments, **options):
            if self._counts(arguments[place], what):
                raise self._full(arguments[place])
            return original(*arguments, **options)

        return call

    def _half(self, original, what, suffix=None):
        """Fail after a call whose second argument is the file that it writes: half of it stays."""

        def call(value, path, *arguments, **options):
            fails, before = self._counts(path, what), self.inside
            self.inside = True
            try:
                result = original(value, path, *arguments, **options)
            finally:
                self.inside = before
            if fails:
                written = Path(path) if suffix is None else Path(path).with_suffix(suffix)
                os.truncate(written, written.stat().st_size // 2)
                raise self._full(path)
            return result

        return call
