"""Read YAML for recipes: plain values, each key once, and limits on size and depth.

`yaml.safe_load` alone has three faults: it silently takes the second of two equal keys, it accepts nine lines of
aliases that expand to a thousand million values, and it fails in many ways on input that is nested a thousand levels
deep.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from distill.errors import BadInput

__all__ = ["parse_line", "parse_yaml", "read_yaml"]

_MOST_BYTES = 5_000_000
_MOST_VALUES = 200_000  # with every alias expanded
_DEEPEST = 50
_LONGEST_KEY = 200
# YAML 1.1 reads 010 as 8 and 1:30 as 90. Here both are text, and pydantic reads "010" in a number field as 10.
_OCTAL_OR_SEXAGESIMAL = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")


class _Loader(yaml.SafeLoader):
    """A safe loader that reads octal and sexagesimal numbers as text."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """Return the tag of a node; that of a text for a plain number that YAML would read as octal or sexagesimal."""
        plain = kind is yaml.ScalarNode and implicit[0] and _OCTAL_OR_SEXAGESIMAL.fullmatch(value)
        tag = yaml.SafeLoader.resolve(self, kind, value, implicit)  # type: ignore[no-untyped-call]
        return self.DEFAULT_SCALAR_TAG if plain else tag


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    :raises BadInput: if the file cannot be read, is not UTF-8, is not YAML, or is too large for a recipe
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadInput(f"{path} has {path.stat().st_size / 1e6:.0f} MB: that is no recipe")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not valid YAML: byte {error.start + 1} is not UTF-8; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Parse a text as YAML.

    :param where: the name of the text in messages
    :raises BadInput: with one line, for every kind of problem
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                _measure(node, {}, 0)
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise BadInput(f"{where} is not valid YAML: it is nested deeper than {_DEEPEST} levels") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise BadInput(f"{where} is not valid YAML: {' '.join(str(error).split())[:400]}") from None
    _check_values(value, where, "")
    return value


def parse_line(text: str, where: str) -> Any:
    """Parse a value from a command line as YAML, and refuse comments.

    :raises BadInput: as `parse_yaml`, and if YAML would drop a part of the value as a comment, as in a file name "a
        #1.csv"
    """
    value = parse_yaml(text, where)
    if left_out := _comment_in(text):
        raise BadInput(f"{where} ends before {left_out[:80]!r}, a comment in YAML; put the whole value in quotes")
    return value


def _comment_in(text: str) -> str:
    """Return the text from the first YAML comment on, up to the next token; "" without a comment.

    >>> _comment_in("a #1.csv"), _comment_in("[a, 'b #c']"), _comment_in("- a #b")
    ('#1.csv', '', '#b')
    """
    end = 0
    for token in yaml.scan(text):  # comments are not tokens; they are in the text between two tokens
        between = text[end : token.start_mark.index]
        if "#" in between:
            return between[between.index("#") :].strip()
        end = token.end_mark.index
    return ""


def _measure(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Return the number of values of a node with its aliases expanded.

    :raises ValueError: if there are too many values, or they are nested too deeply
    """
    if depth > _DEEPEST:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels, or holds itself")
    if id(node) in known:
        return known[id(node)]
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        parts = list(node.value)
    elif isinstance(node, yaml.MappingNode):
        _read_keys(node)
        parts = [part for pair in node.value for part in pair]
    n = 1 + sum(_measure(part, known, depth + 1) for part in parts)
    if n > _MOST_VALUES:
        raise ValueError(f"with its aliases it stands for more than {_MOST_VALUES:,} values")
    known[id(node)] = n
    return n


def _read_keys(node: yaml.MappingNode) -> None:
    """Refuse a second key of the same name, and make a text of a whole number: layers are named by theirs."""
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
            continue
        if key.value in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key.value!r} stands there twice", key.start_mark
            )
        seen.add(key.value)
        if key.tag == "tag:yaml.org,2002:int":
            key.tag = yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG


def _check_values(value: Any, where: str, place: str) -> None:
    """Check keys and values, so that the schema only receives values that it can handle.

    :raises BadInput: for the first value that it cannot handle
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str) or len(key) > _LONGEST_KEY:
                raise BadInput(
                    f"{where}: {place or 'the outermost mapping'} has the key {str(key)[:80]!r} ({type(key).__name__}); keys are short texts, put it in quotes"
                )
            _check_text(key, where, place)
            _check_values(inner, where, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_values(inner, where, f"{place}[{number}]")
    elif isinstance(value, str):
        _check_text(value, where, place)
    elif isinstance(value, int) and abs(value) > 2**63:
        raise BadInput(
            f"{where}: {place or 'the value'} is a number of {value.bit_length()} bits; no setting is that large"
        )
    elif value is not None and not isinstance(value, bool | int | float):
        raise BadInput(
            f"{where}: {place or 'the value'} is a {type(value).__name__} in YAML; put it in quotes if a text is meant"
        )


def _check_text(text: str, where: str, place: str) -> None:
    if "\0" in text:
        raise BadInput(f"{where}: {place or 'the value'} holds a NUL character; remove it")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadInput(
            f"{where}: {place or 'the value'} holds half of a surrogate pair, which is no character; remove it"
        )
