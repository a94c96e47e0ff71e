"""The tree of errors, and what each means for the exit code.

    MatchDistillError          anything this toolkit raises on purpose
    ├── BadInput               what came in is wrong; exit code 2
    └── JobFailed              the input was fine, the work was not; exit code 1
        └── GateFailed         a quality gate refused the result; exit code 1

A message says what came, what is accepted and what to do, in one line per problem.
"""

__all__ = ["BadInput", "GateFailed", "JobFailed", "MatchDistillError"]


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
