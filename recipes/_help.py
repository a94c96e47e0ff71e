"""The help of a command's arguments, which typer beside click 8.5 loses, put back."""

import inspect
from typing import Any, get_type_hints

import typer

__all__ = ["with_help_of_arguments"]


def with_help_of_arguments(app: typer.Typer) -> Any:
    """Return the commands as click sees them, each argument with the help that its annotation states."""
    group: Any = typer.main.get_command(app)
    for command in group.commands.values():
        command.format_arguments = _nothing  # typer writes its own list of them
        hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
        for parameter in command.params:
            if parameter.param_type_name == "argument" and parameter.help is None:
                metadata = getattr(hints[parameter.name], "__metadata__", ())
                parameter.help = next((info.help for info in metadata if getattr(info, "help", None)), None)
    return group


def _nothing(context: Any, formatter: Any) -> None:
    pass
