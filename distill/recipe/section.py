"""The base class of every section of a recipe, and the types of its fields."""

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = ["Count", "Name", "OneOrMore", "Positive", "Scripts", "Seconds", "Section", "Seed", "Share", "Tokens"]

Positive = Annotated[float, Field(gt=0, le=1e30)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seconds = Annotated[float, Field(gt=0, le=1e6)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Tokens = Annotated[int, Field(ge=8, le=1_000_000)]
Share = Annotated[float, Field(gt=0, lt=1)]
T = TypeVar("T")
OneOrMore = Annotated[
    tuple[T, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, int | float) else value),
    Field(min_length=1),
]
Script = Literal[
    "latin",
    "hangul",
    "kana",
    "cjk",
    "cyrillic",
    "greek",
    "arabic",
    "hebrew",
    "devanagari",
    "bengali",
    "tamil",
    "telugu",
    "thai",
]
Scripts = Annotated[
    tuple[Script, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    Field(min_length=1),
]
"""Scripts in which texts are written. kana is Japanese text, including its Chinese characters."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]


class Section(BaseModel):
    """A part of a recipe. It is frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)
    silent_at_default: ClassVar[frozenset[str]] = frozenset()
    """Fields that a fingerprint leaves out at their default, so that artefacts made before these fields existed stay
    valid."""

    def deciding(self, exclude: Any = None) -> dict[str, Any]:
        """Return the content for the fingerprint of an artefact that is made from this section.

        :param exclude: fields that do not affect the artefact, in the form that `model_dump` accepts
        """
        content = self.model_dump(mode="json", exclude=exclude)
        _leave_defaults_out(self, content)
        return content


def _leave_defaults_out(section: Section, content: dict[str, Any]) -> None:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if name in section.silent_at_default and value == field.default:
            content.pop(name, None)
        elif isinstance(value, Section) and isinstance(content.get(name), dict):
            _leave_defaults_out(value, content[name])
