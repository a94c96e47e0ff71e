"""Access files and folders by path or address: on a disk, in an object store, or wherever pyarrow or fsspec reads."""

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, cast

from distill.errors import BadInput

__all__ = ["Place", "files_below", "place_at"]

_HIDDEN = (".", "_")  # readers of tables ignore names with these first characters; a job uses them for its own files
_LONGEST = 200


@dataclass(frozen=True)
class Place:
    """A file or folder in a filesystem, which has the same address on all machines.

    :param filesystem: a `pyarrow.fs.FileSystem`
    :param path: the path in this filesystem
    :param scheme: the prefix of the path in messages, such as "s3://"; "" for a disk
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
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        """The end of the name, from the last dot."""
        return PurePosixPath(self.path).suffix

    @property
    def local(self) -> Path | None:
        """The path on a disk of this machine; None if it is elsewhere."""
        return None if self.scheme else Path(self.path)

    @property
    def is_file(self) -> bool:
        """Whether there is a file at this place."""
        return bool(self.filesystem.get_file_info(self.path).is_file)

    @property
    def is_folder(self) -> bool:
        """Whether there is a folder at this place."""
        from pyarrow.fs import FileType

        return bool(self.filesystem.get_file_info(self.path).type == FileType.Directory)

    def open(self, mode: Literal["rb"] = "rb", /) -> IO[bytes]:
        """Open the file for reading bytes, with random access."""
        return cast(IO[bytes], self.filesystem.open_input_file(self.path))

    def read(self) -> bytes:
        """Return the content of the file."""
        with self.open() as file:
            return file.read()

    def write(self, data: bytes | Any, temporary: str) -> None:
        """Write a file atomically: write under a temporary name in the same folder, then rename.

        :param data: bytes or a `pyarrow.Buffer`
        :param temporary: a file name that no other process uses
        """
        temporary_place = replace(self, path=f"{self.path.rpartition('/')[0]}/{temporary}")
        with self.filesystem.open_output_stream(temporary_place.path) as file:
            file.write(data)
        self.filesystem.move(temporary_place.path, self.path)

    def make_folder(self) -> None:
        """Create the folder and its parents."""
        self.filesystem.create_dir(self.path, recursive=True)

    def remove(self) -> None:
        """Remove the file."""
        self.filesystem.delete_file(self.path)


def place_at(address: str) -> Place:
    """Return the place for a path or an address (s3://, gs://, hdfs://, abfs:// …), which need not exist.

    :raises BadInput: if neither pyarrow nor fsspec can open the address
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
    """Return the file itself, or all files of a folder and its subfolders, sorted by path.

    :param hidden: include files whose path below the folder has a part that starts with a dot or an underscore
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
