"""Compute digests of files and texts; for files with progress, because a model of many gigabytes takes minutes."""

import hashlib
from collections.abc import Callable, Iterable
from io import BufferedReader
from pathlib import Path
from typing import Any

from distill.progress import OnProgress

__all__ = ["file_digest", "texts_digest"]


class _Counted:
    """A file that reports the bytes read, with the two methods that `hashlib.file_digest` needs."""

    def __init__(self, file: BufferedReader, on_bytes: OnProgress) -> None:
        self._file, self._on_bytes = file, on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        n = self._file.readinto(buffer)
        self._on_bytes(n)
        return n


def file_digest(path: Path, digest: str | Callable[[], Any], on_bytes: OnProgress | None = None) -> Any:
    """Return the digest object of a file's bytes.

    :param digest: as in `hashlib.file_digest`
    :param on_bytes: called after each block with its number of bytes
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file if on_bytes is None else _Counted(file, on_bytes), digest)


def texts_digest(*lists: Iterable[str]) -> str:
    """Return 32 hex digits of BLAKE2b over lists of texts; texts that are split differently have another digest."""
    digest = hashlib.blake2b(digest_size=16)
    for number, texts in enumerate(lists):
        digest.update(f"list {number}".encode())
        for text in texts:
            digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
