"""How the student's scores become probabilities, and where a pair is called a match."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.recipe.section import Section, Share

__all__ = ["OperatingPoint", "ScoreCalibration"]

_Score = Annotated[float, Field(ge=-1e12, le=1e12)]


class OperatingPoint(Section):
    """Where a score is high enough for a match. It is found on the labelled validation pairs. Name one of the three."""

    precision: Share | None = None
    """The least share of matches among the pairs that are called matches. The lowest threshold that reaches it by a logistic fit is
    taken: the share itself is too good where it was looked for."""
    recall: Share | None = None
    """The least share of all matches that are called matches. The highest threshold that reaches it is taken."""
    value: _Score | None = None
    """The teacher's own threshold, on its scores as `distill score` gives them. The student's is the one of equal `equal`."""
    equal: Literal["precision", "recall"] = "precision"
    """What the student has in common with the teacher at `value`."""

    @model_validator(mode="after")
    def _one(self) -> "OperatingPoint":
        given = [name for name in ("precision", "recall", "value") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'nothing'} given; name one of precision, recall (shares), value (the teacher's threshold)"
            )
        if self.value is None and self.equal != "precision":
            raise ValueError("equal belongs to value; leave it out")
        return self


class ScoreCalibration(Section):
    """How the student's scores become probabilities, fitted to the labelled validation pairs after training.

    It moves no score and trains nothing: it is stored beside the student and beside each export (`calibration.json`), fitted
    anew to the scores of each. It takes 50 validation pairs with labels that differ; without them it is left out, which is said.
    """

    kind: Literal["platt", "isotonic", "temperature", "none"] = "platt"
    """platt: σ(a·score + b) (Platt 1999). temperature: σ(logit / τ) (Guo et al. 2017), for students whose scores are probabilities
    but for their sharpness. isotonic: the best rising steps (Zadrozny & Elkan 2002), which need some hundred validation pairs and
    make ties. none: leave it out."""
    threshold: OperatingPoint | None = None
    """Where a pair is called a match (`distill score --decide`). None stores no threshold."""

    @model_validator(mode="after")
    def _something(self) -> "ScoreCalibration":
        if self.kind == "none" and self.threshold is not None:
            raise ValueError("a threshold is stored with a calibration, and kind is none; set kind: platt")
        return self
