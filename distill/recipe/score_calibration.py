"""How the student's scores become probabilities, and the threshold from which a pair counts as a match."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.recipe.section import Section, Share

__all__ = ["OperatingPoint", "ScoreCalibration"]

_Score = Annotated[float, Field(ge=-1e12, le=1e12)]


class OperatingPoint(Section):
    """The score from which a pair counts as a match.

    It is found on the labelled validation pairs. Set precision, recall or value.
    """

    precision: Share | None = None
    """The least precision: the share of true matches among the predicted matches. The lowest threshold that reaches it
    is taken. The precision is that of a logistic fit, because the observed precision is too optimistic on the pairs
    that choose the threshold."""
    recall: Share | None = None
    """The least recall: the share of all matches that are predicted. The highest threshold that reaches it is taken."""
    value: _Score | None = None
    """The teacher's own threshold, on its scores as `distill score` gives them. The student's threshold is then the one
    with the same precision or recall (`equal`) as the teacher at this value."""
    equal: Literal["precision", "recall"] = "precision"
    """The measure in which the student equals the teacher at `value`."""

    @model_validator(mode="after")
    def _one(self) -> "OperatingPoint":
        names = [name for name in ("precision", "recall", "value") if getattr(self, name) is not None]
        if len(names) != 1:
            raise ValueError(
                f"{' and '.join(names) or 'nothing'} given; name one of precision, recall (shares), value (the teacher's threshold)"
            )
        if self.value is None and self.equal != "precision":
            raise ValueError("equal belongs to value; leave it out")
        return self


class ScoreCalibration(Section):
    """How the student's scores become probabilities, fitted to the labelled validation pairs after training.

    Calibration changes no score and trains no model. It is fitted separately to the scores of the student and of each
    export, and stored beside them (`calibration.json`). It needs 50 validation pairs with labels that differ. With
    fewer pairs it is left out, and a message says so.
    """

    kind: Literal["platt", "isotonic", "temperature", "none"] = "platt"
    """platt: σ(a·score + b) (Platt 1999). temperature: σ(logit / τ) (Guo et al. 2017), for students whose scores are
    probabilities that are only too sharp or too flat. isotonic: the best-fitting increasing step function (Zadrozny &
    Elkan 2002), which needs some hundred validation pairs and makes ties. none: no calibration."""
    threshold: OperatingPoint | None = None
    """The threshold from which a pair counts as a match (`distill score --decide`). None stores no threshold."""

    @model_validator(mode="after")
    def _something(self) -> "ScoreCalibration":
        if self.kind == "none" and self.threshold is not None:
            raise ValueError("a threshold is stored with a calibration, and kind is none; set kind: platt")
        return self
