"""Check and write every output whose path a user names.

A file is written under a temporary name beside the target and renamed when it is complete. A target that is not a
regular file (a terminal, /dev/stdout, /dev/null, a named pipe) is written to directly: a rename would replace the
device node by a file, for root even /dev/null. A folder has to be new or empty, or one that the command wrote before.

All checks run before the work, so that a refused output wastes no time.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from distill.errors import BadInput
from distill.files.artefact import CARD, is_temporary, new_file, new_folder, restore

__all__ = ["check_output_file", "check_output_folder", "inert", "is_stream", "output_file", "output_folder"]

_MODEL_FILES = ("modules.json", CARD, "scorer.json", "router_config.json")
_BESIDE_CONFIG = (
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model.bin",
    "*.onnx",
    "*.xml",
    "tokenizer*.json",
)
_STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")  # /dev/shm is a folder like any other


@contextmanager
def output_file(target: Path, *, inputs: Sequence[str | Path] = (), overwrite: bool = False) -> Iterator[Path]:
    """Check an output file and yield the path to write to; see `check_output_file`.

    The file is moved into place if the block succeeds; if it fails, an existing file stays as it was.
    """
    check_output_file(target, inputs=inputs, overwrite=overwrite)
    if is_stream(target):
        yield target
        return
    with new_file(target) as temporary:
        yield temporary
        _refuse_existing(target, overwrite)  # another process may have written the target meanwhile


def check_output_file(target: Path, *, inputs: Sequence[str | Path] = (), overwrite: bool = False) -> None:
    """Check a path to which a command will write a file.

    :param inputs: files and folders that the command reads
    :param overwrite: allow replacing an existing regular file
    :raises BadInput: if the path is an input or inside one, in a model folder, a folder, a link, a disk or a socket, if
        the file exists already, or if its parent is not a writable folder
    """
    _refuse_inputs(target, inputs)
    if is_stream(target):
        _refuse_existing(target, overwrite)  # a file behind /dev/stdout that is appended to would be emptied
        return
    _refuse_link(target)
    found = _file_status(target)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise BadInput(f"{target} is a folder; name a file in it")
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise BadInput(f"{target} is a disk or a socket, not a file; name another output")
    if not target.parent.is_dir():
        raise BadInput(f"{target.parent} is no folder; make it first, or name another output")
    _refuse_model_folder(target)
    _refuse_existing(target, overwrite)
    with new_file(target, keep=False):  # fail before any work if the file cannot be written
        pass


@contextmanager
def output_folder(
    target: Path, *, inputs: Sequence[str | Path] = (), ours: Sequence[str] = (), overwrite: bool = False
) -> Iterator[Path]:
    """Check an output folder and yield a temporary folder to write to; see `check_output_folder`.

    The folder is moved into place if the block succeeds. If the block fails, or another process has written other files
    to the target meanwhile, the target stays as it is.
    """
    check_output_folder(target, inputs=inputs, ours=ours, overwrite=overwrite)
    with new_folder(target) as temporary:
        yield temporary
        check_output_folder(target, ours=ours, overwrite=overwrite)


def check_output_folder(
    target: Path, *, inputs: Sequence[str | Path] = (), ours: Sequence[str] = (), overwrite: bool = False
) -> None:
    """Check a path to which a command will write a folder.

    :param inputs: files and folders that the command reads
    :param ours: file names by which a folder that this command wrote before is recognised; () accepts only new and
        empty folders
    :param overwrite: allow replacing such a folder
    :raises BadInput: if the path is an input, inside or around one, in a model folder, a file, a link, or a folder that
        holds other files
    """
    restore(target)
    _refuse_inputs(target, inputs)
    _refuse_link(target)
    found = _file_status(target)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        raise BadInput(f"{target} is a file; name a folder")
    _refuse_model_folder(target)
    _check_can_be_made(target)
    try:
        # ignore temporary names: a killed process may have left them before it wrote a file of `ours`
        names = [] if found is None else [name for name in os.listdir(target) if not is_temporary(name)]
    except OSError as error:
        raise BadInput(f"{target} cannot be read ({error.strerror}); name another folder") from None
    if not names:
        return
    if not any((target / name).is_file() for name in ours):
        raise BadInput(
            f"{target} holds other files ({_shown(names)}), which would be lost or mixed up; name a new folder"
        )
    if not overwrite:
        raise BadInput(
            f"{target} holds an earlier result, which would be lost; name another folder, or add --overwrite"
        )


def make_folder(folder: Path) -> None:
    """Create a folder that passed `check_output_folder`, and its parents.

    :raises BadInput: if it cannot be created, such as below /proc
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
        raise BadInput(f"{folder} cannot be made a folder ({error.strerror}); name another one") from None


def _shown(names: Sequence[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    return first if len(names) < 4 else f"{first} and {len(names) - 3} more"


def _file_status(path: Path) -> os.stat_result | None:
    """Return the status of what a path leads to; None if nothing is there.

    :raises BadInput: if the path is impossible: a name is too long, or a parent is a file
    """
    try:
        return path.stat()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{str(path)[:120]} cannot be made a folder or a file ({reason}); name another output") from None


def is_stream(target: Path) -> bool:
    """Tell whether a target is written to directly: a terminal, a pipe or another character device."""
    found = _file_status(target)
    if found is None:
        return False
    if str(target).startswith(_STREAMS) and stat.S_ISREG(found.st_mode):
        return True  # /dev/stdout that a shell redirects to a file
    return stat.S_ISCHR(found.st_mode) or stat.S_ISFIFO(found.st_mode)


def _refuse_link(target: Path) -> None:
    if target.is_symlink():
        raise BadInput(f"{target} is a link to {os.readlink(target)}; name that path itself, or another output")


def _refuse_existing(target: Path, overwrite: bool) -> None:
    found = _file_status(target)
    if found is not None and found.st_size and not overwrite:
        raise BadInput(
            f"{target} is there already ({found.st_size:,} bytes, which would be lost); name another output, or add --overwrite"
        )


def _refuse_inputs(target: Path, inputs: Sequence[str | Path]) -> None:
    found, place = _file_status(target), _resolved(target)
    for input_path in map(Path, inputs):
        status = _input_status(input_path)
        if status is None:  # such as the name of a data set or model on the hub
            continue
        if found is not None and os.path.samestat(status, found):
            raise BadInput(f"{target} is an input of this command ({input_path}); name another output")
        source = _resolved(input_path)
        if source.is_relative_to(place):
            raise BadInput(f"{target} holds an input of this command ({input_path}); name another output")
        if not stat.S_ISDIR(status.st_mode):
            continue
        if place.is_relative_to(source):
            raise BadInput(f"{target} lies in an input of this command ({input_path}); name a path outside of it")
        if found is not None and stat.S_ISREG(found.st_mode) and found.st_nlink > 1 and _holds(input_path, found):
            raise BadInput(f"{target} is a file of an input of this command ({input_path}); name another output")


def _input_status(input_path: Path) -> os.stat_result | None:
    try:
        return input_path.stat()
    except (OSError, ValueError):
        return None


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise BadInput(f"{path} leads nowhere ({error}); name another output") from None


def _holds(folder: Path, status: os.stat_result) -> bool:
    """Tell whether a folder contains this file under another name (a hard link)."""
    for root, _, names in os.walk(folder):
        for name in names:
            found = _input_status(Path(root) / name)
            if found is not None and os.path.samestat(found, status):
                return True
    return False


def _refuse_model_folder(target: Path) -> None:
    for folder in _resolved(target).parents:
        if _is_model_folder(folder):
            raise BadInput(
                f"{target} lies in the model folder {folder}, which is no place for results; name a path outside of it"
            )


def _is_model_folder(folder: Path) -> bool:
    try:
        if any((folder / name).is_file() for name in _MODEL_FILES):
            return True
        has_config = (folder / "config.json").is_file()
        return has_config and any(next(folder.glob(pattern), None) is not None for pattern in _BESIDE_CONFIG)
    except OSError:  # no permission to read the folder
        return False


def _check_can_be_made(target: Path) -> None:
    """Check that the nearest existing parent is a writable folder."""
    nearest = target
    while _input_status(nearest) is None and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise BadInput(f"{nearest} is a file, and {target} would lie below it; name another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise BadInput(f"{nearest} cannot be written into; name another folder")


def inert(markdown: str) -> str:
    """Escape a Markdown text so that it contains no HTML tags and loads no pictures.

    >>> inert("a <img src=x> ![y](http://z)")
    'a &lt;img src=x> !&#91;y](http://z)'
    """
    return markdown.replace("<", "&lt;").replace("![", "!&#91;")
