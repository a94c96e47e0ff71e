"""A finding: what a check found, how serious it is, and what to do."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from distill._moved import moved_names

__all__ = ["SEVERITIES", "Finding", "Severity", "ordered"]

__getattr__ = moved_names(__name__)  # old names, from before the rename

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    :param level: problem: the student would learn nothing, or the wrong thing. warning: quality is likely lost. note:
        worth knowing
    :param check: the check's name, as in the documentation
    :param about: the data, the teacher or the objective concerned
    :param says: what was found, with its numbers
    :param advice: what to do; "" for a note that needs no action
    :param numbers: the same numbers, for programs
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
        """The finding and the advice, as one line."""
        return f"{self.about}: {self.says}" + (f"; {self.advice}" if self.advice else "")


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with problems first; within a level they keep their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.level))
