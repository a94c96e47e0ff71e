"""Work that is tried again: what fails by an error in the actor that it failed in, what ends the process in the next one.

Ray starts a dead actor again and gives it the same batch, any number of times. A batch that ends every process would do so for ever:
a counter outside of the actors says how often a batch was begun.
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
    """How often each batch was begun; as a Ray actor of a job's driver it outlives those that work."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """Count a beginning and return how many there were with it."""
        self._begun[name] += 1
        return self._begun[name]


@dataclass(frozen=True)
class Tried(Generic[T]):
    """What work gave, or why it gave nothing.

    :param value: None where it failed
    :param problem: None where it did not
    :param is_bad_input: whether a user has something to mend
    :param tries: how often it was begun, in this process and in those that died
    """

    value: T | None
    problem: str | None
    tries: int
    is_bad_input: bool = False


def attempt(work: Callable[[], T], begin: Callable[[], int]) -> Tried[T]:
    """Do work, up to three times where it fails. Bad input is bad the second time, too.

    :param begin: counts a beginning, here or in another process, and says how many there were
    """
    problem = ""
    while (tries := begin()) <= MOST_TRIES:
        try:
            return Tried(work(), None, tries)
        except BadInput as error:
            return Tried(None, str(error), tries, is_bad_input=True)
        except Exception as error:  # whatever a model or a filesystem raises
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST]}"
    ended = f"{MOST_TRIES} processes ended while they worked on it (out of memory?)"
    return Tried(None, problem or ended, tries - 1)


def counter_of(attempts: Any, ray: Any) -> Callable[[str], Callable[[], int]]:
    """Return what gives `attempt` its `begin` for a batch, where the counter is a Ray actor."""
    return lambda name: lambda: int(ray.get(attempts.begin.remote(name)))
