"""Refuse empty paths on the command line: as a path, "" is the current folder."""

from collections.abc import Callable
from typing import Any

import typer

__all__ = ["refusing_empty_paths"]

Convert = Callable[[Any, Any, Any], Any]


def refusing_empty_paths(group: Any) -> Any:
    """Return a group of click's commands whose arguments and options of paths refuse ""."""
    for command in group.commands.values():
        for parameter in command.params:
            if parameter.type.name == "path":
                parameter.type.convert = _refusing(parameter.type.convert)
    return group


def _refusing(convert: Convert) -> Convert:
    def converted(value: Any, parameter: Any, context: Any) -> Any:
        if value == "":
            raise typer.BadParameter("the path is empty", ctx=context, param=parameter)
        return convert(value, parameter, context)

    return converted
