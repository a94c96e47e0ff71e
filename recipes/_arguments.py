"""A check of the command line before it is parsed."""

from collections.abc import Sequence
from itertools import pairwise

from distill.errors import BadInput

__all__ = ["refuse_empty_arguments"]


def refuse_empty_arguments(arguments: Sequence[str]) -> None:
    """Refuse an empty argument, which would become the current folder; the value of an option may be empty.

    :raises BadInput: naming its place
    """
    for number, (before, argument) in enumerate(pairwise(("", *arguments)), start=1):
        if not argument and not before.startswith("-"):
            raise BadInput(
                f"argument {number} is empty; a path or a name is expected there (is a shell variable not set?)"
            )
