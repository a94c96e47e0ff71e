"""A finding: what a check saw, how much it matters, and what to do."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from distill._moved import moved_names

__all__ = ["SEVERITIES", "Finding", "Severity", "ordered"]

__getattr__ = moved_names(__name__)  # of before the rename

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that a check saw.

    :param level: problem: nothing, or the wrong thing, would be learned. warning: quality is likely lost. note: worth knowing
    :param check: the check's name, as in the documentation
    :param about: the data, the teacher or the objective that it is about
    :param says: what was seen, with its numbers
    :param advice: what to do; "" for a note that asks for nothing
    :param numbers: the same numbers for a program
    """

    level: Severity
    check: str
    about: str
    says: str
    advice: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return asdict(self)

    @property
    def line(self) -> str:
        """What was seen and what to do, as one line."""
        return f"{self.about}: {self.says}" + (f"; {self.advice}" if self.advice else "")


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with problems first; within a level they keep their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.level))
