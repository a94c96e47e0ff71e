"""Read a recipe: a YAML file, with `key=value` overrides applied, and validated as a whole.

All problems are reported in one error, one line per problem with its place in the recipe; for an unknown key the line
suggests the nearest name. The recipe of an ablation and the section of a plan are read in the same way.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from distill.errors import BadInput
from distill.recipe.black_box import BLACK_BOXES
from distill.recipe.checks import suggest
from distill.recipe.schema import Data, Recipe
from distill.recipe.token_teachers import TOKEN_TEACHERS
from distill.recipe.yaml_reading import parse_line, read_yaml

__all__ = ["load_recipe", "packaged_recipe", "read_raw", "validated"]

log = logging.getLogger(__name__)
S = TypeVar("S", bound=BaseModel)
_DEEPEST_KEY = 20
_MOST_LINES = 50
_LONGEST_LINE = 600
_SHOWN = 60
_EXPECTED = {
    "tuple_type": "a list in brackets is expected, as [0, 1]",
    "list_type": "a list in brackets is expected, as [0, 1]",
    "dict_type": "a section is expected, as {key: value}",
    "model_type": "a section is expected, as {key: value}",
    "model_attributes_type": "a section is expected, as {key: value}",
    "string_type": "a text is expected",
    "string_pattern_mismatch": "letters, digits and . _ - are accepted, and it begins with a letter or a digit",
    "int_type": "a whole number is expected",
    "int_parsing": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "float_type": "a number is expected",
    "float_parsing": "a number is expected",
    "bool_type": "true or false is expected",
    "bool_parsing": "true or false is expected",
}
_PACKAGED = Path(__file__).parents[2] / "recipes"


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply `key=value` overrides and validate the result.

    :param path: a YAML file, or the bare name of a recipe that comes with the toolkit, such as "quickstart"
    :param overrides: for example `training.learning_rate=1.0e-4`; the value is YAML.
    :raises BadInput: with one line for each problem.
    """
    recipe = validated(Recipe, read_raw(path, overrides), path)
    _refuse_files_beside_the_recipe(recipe, Path(path))
    return recipe


def _refuse_files_beside_the_recipe(recipe: Recipe, path: Path) -> None:
    """Refuse a file of data that is not in the current folder, where paths start, and is in the recipe's.

    :raises BadInput: naming it
    """
    sections = {"data": recipe.data} | {
        f"stages.{name}.data": stage.data for name, stage in recipe.stages.items() if stage.data is not None
    }
    for place, data in sections.items():
        for key, name in _files_of(data):
            beside = path.parent / name
            if Path(name).suffix and not _is_file(Path(name), Path.exists) and _is_file(beside):
                raise BadInput(
                    f"{path}: {place}.{key}: {name}: no such file; relative paths start at the current folder, not at the "
                    f"recipe's, where a file of this name is: write {beside}"
                )


def _files_of(data: Data) -> Iterator[tuple[str, str]]:
    """Yield each file that a section of data names, with its key."""
    named: dict[str, str | None] = {"train": data.train, "evaluation": data.evaluation}
    for key in ("unlabelled", "unlabelled_pairs", "labelled_pairs", "parallel"):
        named |= {f"{key}.{number}.path": source.path for number, source in enumerate(getattr(data, key))}
    yield from ((key, name) for key, name in named.items() if name is not None)


def read_raw(path: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file, or take its content as a mapping, and apply `key=value` overrides.

    :raises BadInput: if the file is not YAML, or an override is not valid
    """
    try:
        raw: dict[str, Any] = _unshared(path if isinstance(path, Mapping) else _read_yaml(Path(path)))
    except RecursionError:
        raise BadInput("the recipe is nested too deeply") from None
    for override in overrides:
        _apply_override(raw, override)
    return raw


def validated(schema: type[S], raw: Mapping[str, Any], path: str | Path) -> S:
    """Validate a mapping against a schema.

    :param path: the name of the mapping in messages
    :raises BadInput: with one line for each problem
    """
    try:
        parsed = schema.model_validate(raw)
        lines = list(_truths_as_numbers(raw, parsed, ""))
    except RecursionError:
        raise BadInput(f"{path}: it is nested too deeply for a recipe") from None
    except ValidationError as error:
        lines = _problem_lines(schema, error, raw)
    if not lines:
        return parsed
    shown_lines = [f"  {line[:_LONGEST_LINE]}" for line in lines[:_MOST_LINES]]
    more = [f"  and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
    raise BadInput(f"{path}: {len(lines)} problem{'s' * (len(lines) > 1)}\n" + "\n".join([*shown_lines, *more]))


def _truths_as_numbers(raw: Any, parsed: Any, place: str) -> Iterator[str]:
    """Yield a problem for each place where pydantic read true or false (yes, no, on, off) as the number 1 or 0."""
    if isinstance(raw, Mapping):
        for key, raw_value in raw.items():
            parsed_value = parsed.get(key) if isinstance(parsed, Mapping) else getattr(parsed, key, None)
            yield from _truths_as_numbers(raw_value, parsed_value, f"{place}.{key}" if place else key)
    elif isinstance(raw, list) and isinstance(parsed, list | tuple) and len(raw) == len(parsed):
        for number, (raw_value, parsed_value) in enumerate(zip(raw, parsed, strict=True)):
            yield from _truths_as_numbers(raw_value, parsed_value, f"{place}[{number}]")
    elif isinstance(raw, bool):
        parsed_value = parsed[0] if isinstance(parsed, list | tuple) and len(parsed) == 1 else parsed
        if isinstance(parsed_value, int | float) and not isinstance(parsed_value, bool):
            yield f"{place}: got {_as_yaml(raw)}; a number is expected, and true and false are none"


def _unshared(value: Any) -> Any:
    """Copy nested mappings and lists, without shared objects.

    An override of one place then changes neither the other places of the same YAML alias nor the caller's mapping.
    """
    if isinstance(value, Mapping):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def packaged_recipe(name: str | Path) -> Path | None:
    """Return the path of a recipe of the toolkit by its bare name, with or without .yaml; None if there is none.

    >>> packaged_recipe("quickstart").name, packaged_recipe("recipes/quickstart.yaml")
    ('quickstart.yaml', None)
    """
    if Path(name).name != str(name) or "\0" in str(name):
        return None
    path = _PACKAGED / f"{str(name).removesuffix('.yaml')}.yaml"
    return path if _is_file(path) else None


def _read_yaml(path: Path) -> dict[str, Any]:
    if not _is_file(path):
        packaged = packaged_recipe(path)
        if packaged is None:
            names = ", ".join(sorted(found.stem for found in _PACKAGED.glob("*.yaml")))
            hint = f"; those of the toolkit go by their names ({names}) and are in {_PACKAGED}" if names else ""
            what = "it is a folder; name a .yaml file in it" if _is_file(path, Path.is_dir) else f"no such recipe{hint}"
            raise BadInput(f"{str(path)[:200]}: {what}")
        log.info("recipe %s: %s", path, packaged)
        path = packaged
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        what = {type(None): "is empty", list: "is a list", str: "is one text"}.get(type(raw), f"is {raw!r}")
        raise BadInput(f"{path}: a recipe is a mapping of sections, this {what}")
    return raw


def _is_file(path: Path, kind: Callable[[Path], bool] = Path.is_file) -> bool:
    try:
        return kind(path)
    except OSError:  # a name that is too long
        return False


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if override.startswith("-") or not equals or not key:
        raise BadInput(f"{override!r} is no override; write key=value, as training.learning_rate=1.0e-4")
    *parents, last = key.split(".")
    node = raw
    if "" in (last, *parents):
        raise BadInput(f"{override[:120]!r} has an empty key; write key=value, as training.learning_rate=1.0e-4")
    if len(parents) > _DEEPEST_KEY:
        raise BadInput(f"{override[:120]!r} goes {len(parents) + 1} sections deep; no recipe does")
    for parent in parents:
        if not isinstance(node.setdefault(parent, {}), dict):
            node[parent] = {}
        node = node[parent]
    node[last] = parse_line(value, f"{override[:120]!r}: the value")


def _problem_lines(schema: type[BaseModel], error: ValidationError, raw: Mapping[str, Any]) -> list[str]:
    """Return one line per problem.

    A problem of `training` or `data` that was merged into other sections is reported once.
    """
    lines: dict[str, None] = {}
    for problem in error.errors():
        loc = problem["loc"]
        place = [str(part) for i, part in enumerate(loc) if not _is_form(loc, i)]
        own = place[2:] if place[:1] in (["teachers"], ["stages"]) else place[1:]
        if own[:1] in (["training"], ["data"]) and not _is_given(raw, place):
            place = ["student", *own] if place[0] == "stages" and _is_given(raw, ["student", *own]) else own
        for line in _describe(schema, ".".join(place), problem):
            lines.setdefault(line)
    return list(lines)


def _is_form(loc: Sequence[Any], i: int) -> bool:
    """Return whether a part of a place is not a key, but pydantic's name for one form of a union."""
    if i and loc[i - 1] == "backbone":
        return loc[i] in ("name", "fresh", "teacher")
    if i and loc[i - 1] == "layers":
        return loc[i] in ("list", "rule")
    if i == 2 and loc[0] == "teachers":
        return loc[i] in ("model", *BLACK_BOXES, *TOKEN_TEACHERS)
    return i > 1 and loc[i - 2] == "baselines"


def _is_given(raw: Any, place: Sequence[str]) -> bool:
    for part in place:
        if not isinstance(raw, Mapping) or part not in raw:
            return False
        raw = raw[part]
    return True


def _describe(schema: type[BaseModel], place: str, problem: Any) -> list[str]:
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        name = place.rpartition(".")[2]
        return [f"{place}: unknown key; {suggest(name, _known_keys(schema, problem['loc']))}"]
    if kind == "missing":
        return [f"{place}: missing"]
    if kind == "value_error":
        text = str(problem["ctx"]["error"])
        return text.split("\n") if not place else [f"{place}: {text}"]
    if kind == "too_short":
        return [f"{place}: {value!r} names nothing; list one at least, or leave it out"]
    # pydantic's own messages mention tuples, instances and regular expressions
    expected = _EXPECTED.get(kind, problem["msg"].replace("Input should", "it should"))
    if kind == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
        expected += "; put a number in quotes"
    if isinstance(value, Mapping | list) and kind not in _EXPECTED:
        return [f"{place}: {problem['msg']}"]
    if "endpoint" in place.split(".")[2:]:  # an API key in the wrong field must not be printed
        is_name = kind == "string_pattern_mismatch"
        return [
            f"{place}: {'the name of an environment variable is expected, never the key itself' if is_name else expected}"
        ]
    return [f"{place}: got {_as_yaml(value)}; {expected}"]


def _as_yaml(value: Any) -> str:
    """Return a value as a recipe writes it, on one line and cut if it is long.

    >>> _as_yaml(None), _as_yaml(True), _as_yaml("a"), _as_yaml([1, None])
    ('null', 'true', "'a'", '[1, None]')
    """
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _known_keys(schema: type[BaseModel], loc: Sequence[Any]) -> list[str]:
    """Return the field names of the section with the unknown key, by following the place through the schema."""
    sections, is_name = [schema], False
    for part in loc[:-1]:
        if is_name:  # a teacher may be named like a section
            is_name = False
            continue
        matching = [section for section in sections if part in _forms(section)]
        fields = [section.model_fields[part] for section in sections if part in section.model_fields]
        if len(sections) > 1 and matching:  # the part names one form of a union
            sections = matching
        elif fields:  # otherwise the part is an index in a list
            sections = list(dict.fromkeys(found for field in fields for found in _sections_in(field.annotation)))
            is_name = get_origin(fields[0].annotation) is dict
    return list(dict.fromkeys(name for section in sections for name in section.model_fields))


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections_in(inner)


def _forms(section: type[BaseModel]) -> tuple[Any, ...]:
    """Return the names that pydantic may use in a place for a section of a union."""
    kind = section.model_fields.get("kind")
    return (section.__name__, getattr(section, "form", None), *(get_args(kind.annotation) if kind else ()))
