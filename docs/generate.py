"""Write the reference pages that the code knows best: every recipe field and every command.

    python docs/generate.py            # writes docs/reference/recipe.md and docs/reference/cli.md

A test checks that both pages are up to date.
"""

import ast
import inspect
import itertools
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel

from distill.recipe import Recipe

REFERENCE = Path(__file__).parent / "reference"
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
}
_HUGE = 10_000  # a larger bound catches slips and tells a reader nothing


def pages() -> dict[Path, str]:
    """Return the text of each generated page."""
    return {REFERENCE / "recipe.md": recipe_page(), REFERENCE / "cli.md": cli_page()}


# ---------------------------------------------------------------------------------------------------------------------
# Recipe
# ---------------------------------------------------------------------------------------------------------------------


def recipe_page() -> str:
    """Return the page of all sections of a recipe, in the order in which `Recipe` mentions them."""
    schema = Recipe.model_json_schema()
    parts = [_head("Recipe fields", "the recipe's schema")]
    parts.append(
        "A recipe is one YAML file. `distill run recipe.yaml key=value …` changes any field from the command line, for "
        "example `training.epochs=1`. Unknown keys are refused. `null` turns a field off or leaves it to its default.\n"
    )
    for section in sections_of(Recipe):
        own = schema if section is Recipe else schema["$defs"][section.__name__]
        parts.append(_section_text(section, own, schema["$defs"]))
    return "\n".join(parts)


def sections_of(root: type[BaseModel]) -> list[type[BaseModel]]:
    """Return a model and all models that its fields mention, breadth first."""
    found = [root]
    for section in found:
        for field in section.model_fields.values():
            found += [other for other in _models_in(field.annotation, field.metadata) if other not in found]
    return found


def _models_in(annotation: Any, metadata: Any = ()) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in (*get_args(annotation), *metadata):
        if argument is not annotation:
            yield from _models_in(argument)


def field_docs(section: type[BaseModel]) -> dict[str, str]:
    """Return the docstring below each field of a section, those of its base classes included.

    >>> field_docs(Recipe)["seed"].startswith("Seed of")
    True
    """
    found = {}
    inherited = [base for base in section.__mro__ if issubclass(base, BaseModel) and base is not BaseModel]
    for base in reversed(inherited):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for statement, following in itertools.pairwise(body):
            is_doc = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and is_doc:
                found[statement.target.id] = " ".join(str(following.value.value).split())
    return found


def _section_text(section: type[BaseModel], own: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    docs, required = field_docs(section), own.get("required", [])
    about = _in_yaml(inspect.cleandoc(section.__doc__ or "").split(">>>")[0].strip())
    lines = [f"## {section.__name__}", "", about, "", "| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        key = field.alias or name
        shown = own["properties"][key]
        default = "required" if key in required else _default(shown.get("default"), shown)
        lines.append(f"| `{key}` | {_cell(_type(shown))} | {_cell(default)} | {_cell(_in_yaml(docs.get(name, '')))} |")
    return "\n".join([*lines, ""])


def _in_yaml(text: str) -> str:
    """Return a docstring with the values of Python as YAML spells them; "None of them" is no value."""
    for python, yaml in (("None", "null"), ("True", "true"), ("False", "false")):
        text = re.sub(rf"(?<!`)\b{python}\b(?! of )", f"`{yaml}`", text)
    return text


def _default(value: Any, shown: Mapping[str, Any]) -> str:
    if isinstance(value, Mapping) or (value is None and "default" not in shown):
        return "`{}`" if shown.get("type") == "object" else "its own defaults"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(shown: Mapping[str, Any]) -> str:
    """Return a JSON schema's type in words; a section is a link to its place on the page."""
    if "$ref" in shown:
        name = shown["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in shown:
            return ", ".join(dict.fromkeys(_type(one) for one in shown[several]))
    if "enum" in shown or "const" in shown:
        return ", ".join(f"`{value}`" for value in shown.get("enum", [shown.get("const")]))
    kind = shown.get("type", "any")
    if kind == "array":
        return _list_type(shown)
    if kind == "object":
        inner = next(iter(shown.get("patternProperties", {}).values()), shown.get("additionalProperties", True))
        return "names → " + (_type(inner) if isinstance(inner, Mapping) else "any")
    words = {"string": "text", "boolean": "true or false", "integer": "whole number", "null": "null"}.get(kind, kind)
    bounds = [form.format(shown[key]) for key, form in _BOUNDS.items() if key in shown and abs(shown[key]) <= _HUGE]
    return " ".join([words, " and ".join(bounds)]).strip()


def _list_type(shown: Mapping[str, Any]) -> str:
    if "prefixItems" in shown:
        return "[" + ", ".join(_type(one) for one in shown["prefixItems"]) + "]"
    return "list of " + _type(shown.get("items", {}))


# ---------------------------------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Return the page of all commands with their arguments and options."""
    from recipes.cli import command

    parts = [_head("Command line", "the commands' own help")]
    parts.append(
        "`distill COMMAND --help` prints the same. Exit codes: 0 done; 1 a gate or a job failed; 2 bad input, with one line "
        "per problem that says what came, what is accepted and what to do. `--json` prints JSON instead of a table. An "
        "output that exists is only replaced with `--overwrite`.\n"
    )
    for name, one in command().commands.items():
        parts.append(_command_text(name, one))
    return "\n".join(parts)


def _command_text(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    hints = get_type_hints(inspect.unwrap(command.callback))
    usage = " ".join(["distill", name, *(_argument_name(one) for one in arguments), "[OPTIONS]" if options else ""])
    lines = [f"## distill {name}", "", command.help or "", "", "```text", usage.strip(), "```", ""]
    lines += ["| argument or option | default | meaning |", "|---|---|---|"]
    for one in arguments:
        lines.append(f"| `{_argument_name(one)}` | {'required' if one.required else ''} | {_cell(one.help or '')} |")
    for one in options:
        names = " ".join(one.opts + one.secondary_opts) + ("" if one.is_flag else " " + _value_name(hints[one.name]))
        default = "required" if one.required else _option_default(one)
        lines.append(f"| `{names}` | {default} | {_cell(one.help or '')} |")
    return "\n".join([*lines, ""])


def _argument_name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _value_name(hint: Any) -> str:
    """Return what stands for the value of an option, by the annotation: what typer makes of it has changed its form."""
    forms = {int: "N", float: "NUMBER", Path: "PATH"}
    return next((forms[kind] for kind in (hint, *get_args(hint)) if kind in forms), "TEXT")


def _option_default(option: Any) -> str:
    value = option.default
    return "" if value in (None, "", False) or callable(value) else f"`{value}`"


# ---------------------------------------------------------------------------------------------------------------------


def _head(title: str, source: str) -> str:
    return f"# {title}\n\nThis page is generated from {source} by `python docs/generate.py`.\n"


def _cell(text: str) -> str:
    """Return text that fits one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
