"""Files and folders by path or address: on a disk, in an object store, wherever pyarrow or fsspec reads."""

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, cast

from distill.errors import BadInput

__all__ = ["Place", "files_below", "place_at"]

_HIDDEN = (".", "_")  # first letters of names that readers of tables leave out: what a job keeps beside its tables
_LONGEST = 200


@dataclass(frozen=True)
class Place:
    """A file or folder of a filesystem, which other machines see under the same address.

    :param filesystem: a `pyarrow.fs.FileSystem`
    :param path: where it is there
    :param scheme: what stands before its path in messages, such as "s3://"; "" for a disk
    """

    filesystem: Any
    path: str
    scheme: str = ""

    def __str__(self) -> str:
        return self.scheme + self.path

    def __truediv__(self, name: str) -> "Place":
        return replace(self, path=f"{self.path.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        """The end of its name from the last dot on."""
        return PurePosixPath(self.path).suffix

    @property
    def local(self) -> Path | None:
        """Its path on a disk of this machine; None where it is elsewhere."""
        return None if self.scheme else Path(self.path)

    @property
    def is_file(self) -> bool:
        """Whether there is a file."""
        return bool(self.filesystem.get_file_info(self.path).is_file)

    @property
    def is_folder(self) -> bool:
        """Whether there is a folder."""
        from pyarrow.fs import FileType

        return bool(self.filesystem.get_file_info(self.path).type == FileType.Directory)

    def open(self, mode: Literal["rb"] = "rb", /) -> IO[bytes]:
        """Open it for reading bytes, from any place of it."""
        return cast(IO[bytes], self.filesystem.open_input_file(self.path))

    def read(self) -> bytes:
        """Return all of its bytes."""
        with self.open() as file:
            return file.read()

    def write(self, data: bytes | Any, temporary: str) -> None:
        """Write a file whole or not at all: under a temporary name beside it, then renamed.

        :param data: bytes or a `pyarrow.Buffer`
        :param temporary: a name that no other process writes to
        """
        beside = replace(self, path=f"{self.path.rpartition('/')[0]}/{temporary}")
        with self.filesystem.open_output_stream(beside.path) as file:
            file.write(data)
        self.filesystem.move(beside.path, self.path)

    def make_folder(self) -> None:
        """Make the folder and those around it."""
        self.filesystem.create_dir(self.path, recursive=True)

    def remove(self) -> None:
        """Remove the file."""
        self.filesystem.delete_file(self.path)


def place_at(address: str) -> Place:
    """Return the place that a path or an address (s3://, gs://, hdfs://, abfs:// …) names, there or not.

    :raises BadInput: for an address that neither pyarrow nor fsspec knows how to open
    """
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem, FSSpecHandler, LocalFileSystem, PyFileSystem

    scheme, mark, _ = address.partition("://")
    if not mark:
        return Place(LocalFileSystem(), str(Path(address).absolute()))
    try:
        filesystem, path = FileSystem.from_uri(address)
        return Place(filesystem, path, "" if isinstance(filesystem, LocalFileSystem) else f"{scheme}://")
    except (ArrowException, ValueError, OSError):
        pass
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:_LONGEST]
        raise BadInput(
            f"{address[:_LONGEST]} cannot be opened ({reason}); name a path, or an address of s3, gs …"
        ) from None
    return Place(PyFileSystem(FSSpecHandler(filesystem)), path, f"{scheme}://")


def files_below(place: Place, *, hidden: bool = False) -> list[Place]:
    """Return a file itself, or all files of a folder and of those in it, by name.

    :param hidden: with those whose path below the folder has a part that begins with a dot or an underscore
    """
    from pyarrow.fs import FileSelector

    if place.is_file:
        return [place]
    found = place.filesystem.get_file_info(FileSelector(place.path, recursive=True, allow_not_found=True))
    start = len(place.path.rstrip("/")) + 1
    paths = sorted(info.path for info in found if info.is_file)
    return [
        replace(place, path=path)
        for path in paths
        if hidden or not any(part.startswith(_HIDDEN) for part in path[start:].split("/"))
    ]
