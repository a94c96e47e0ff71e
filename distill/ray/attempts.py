"""Retry failed work: after an error in the same actor, and after the end of a process in the next one.

Ray restarts a dead actor and gives it the same batch, any number of times. A batch that ends every process would be
retried for ever, so a counter outside of the actors counts how often each batch was started.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from distill.errors import BadInput

__all__ = ["MOST_TRIES", "Attempts", "Tried", "attempt", "counter_of"]

T = TypeVar("T")
MOST_TRIES = 3
_LONGEST = 500


class Attempts:
    """Counts how often each batch was started. It runs as a Ray actor of the driver and outlives the working actors."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """Count a start of a batch and return the number of its starts so far."""
        self._begun[name] += 1
        return self._begun[name]


@dataclass(frozen=True)
class Tried(Generic[T]):
    """The result of work, or the reason of its failure.

    :param value: the result; None if the work failed
    :param problem: the reason; None if the work succeeded
    :param tries: number of starts, in this process and in those that died
    :param is_bad_input: whether the user can fix the problem
    """

    value: T | None
    problem: str | None
    tries: int
    is_bad_input: bool = False


def attempt(work: Callable[[], T], begin: Callable[[], int]) -> Tried[T]:
    """Run work, up to three times if it fails. After `BadInput` it is not retried, because it would fail again.

    :param begin: counts a start, here or in another process, and returns the number of starts
    """
    problem = ""
    while (tries := begin()) <= MOST_TRIES:
        try:
            return Tried(work(), None, tries)
        except BadInput as error:
            return Tried(None, str(error), tries, is_bad_input=True)
        except Exception as error:  # any error of a model or a filesystem
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST]}"
    ended = f"{MOST_TRIES} processes ended while they worked on it (out of memory?)"
    return Tried(None, problem or ended, tries - 1)


def counter_of(attempts: Any, ray: Any) -> Callable[[str], Callable[[], int]]:
    """Return a function from a batch's name to the argument `begin` of `attempt`, for a counter that is a Ray actor."""
    return lambda name: lambda: int(ray.get(attempts.begin.remote(name)))
