"""Checks of the command line: of its arguments before it is parsed, and of options that nothing would read."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from distill.errors import BadInput

__all__ = ["refuse_empty_arguments", "refuse_unread"]


def refuse_empty_arguments(arguments: Sequence[str]) -> None:
    """Refuse an empty argument, which would become the current folder; the value of an option may be empty.

    :raises BadInput: naming its place
    """
    for number, (before, argument) in enumerate(pairwise(("", *arguments)), start=1):
        if not argument and not before.startswith("-"):
            raise BadInput(
                f"argument {number} is empty; a path or a name is expected there (is a shell variable not set?)"
            )


def refuse_unread(context: Any, why: str, *names: str, all_but: Sequence[str] = ()) -> None:
    """Refuse options that were given and would not be read.

    :param context: the command's context, of click
    :param why: what follows the option in the message
    :param names: the names of the options, as the command's function has them
    :param all_but: refuse all arguments and options but these, in place of `names`
    :raises BadInput: naming the first of them
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name)
        is_unread = parameter.name not in all_but if all_but else parameter.name in names
        if is_unread and source is not None and source.name == "COMMANDLINE":
            raise BadInput(f"{max(parameter.opts, key=len)} {why}, or leave it out")
