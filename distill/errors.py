"""The tree of errors, and what each means for the exit code.

    MatchDistillError          anything this toolkit raises on purpose
    ├── BadInput               what came in is wrong; exit code 2
    └── JobFailed              the input was fine, the work was not; exit code 1
        └── GateFailed         a quality gate refused the result; exit code 1

A message says what came, what is accepted and what to do, in one line per problem.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["BadInput", "GateFailed", "JobFailed", "MatchDistillError", "loading"]

_FROM = re.compile(r"Exception from \S+:\d+: ")  # where in OpenVINO's own source it was raised
_LONGEST = 300


class MatchDistillError(Exception):
    """Base of every error that this toolkit raises on purpose."""

    exit_code = 1


class BadInput(MatchDistillError):
    """A recipe, file, column, label or model folder that cannot be used; exit code 2."""

    exit_code = 2


class JobFailed(MatchDistillError):
    """Valid input, but the work could not be finished; exit code 1."""


class GateFailed(JobFailed):
    """A quality gate refused a result; nothing was put in place; exit code 1."""


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Turn whatever a loader raises into `BadInput` that names the model."""
    try:
        yield
    except BadInput:
        raise
    except BaseException as error:  # the hub, safetensors, json and tokenizers each raise their own
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of libraries in Rust
            raise
        reason = _FROM.sub("", " ".join(str(error).split()))
        if "trust_remote_code" in reason:
            raise BadInput(
                f"{name} asks to run code of its own (auto_map), which is never run here; use a model whose architecture transformers has"
            ) from None
        advice = "; copy the folder again or rebuild it" if os.path.isdir(name) else ""
        reason = reason[:_LONGEST] or type(error).__name__
        raise BadInput(f"{name} cannot be loaded as an encoder: {reason}{advice}") from None
