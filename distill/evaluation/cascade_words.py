"""Put a cascade's tests into words: the share chosen on validation pairs, and its result on evaluation pairs."""

from collections.abc import Mapping
from typing import Any

from distill.metrics.noninferiority import pairs_needed

__all__ = ["say_chosen", "say_validation"]


def say_validation(metric: str, validation: Mapping[str, Any]) -> str:
    """Return which share validation pairs choose, how many were tested, and whether there are too few pairs to tell."""
    margin, n_tested = validation["margin"], validation["n_tested"]
    within = f"equals the teacher's {metric} within the margin of {margin:g}"
    test_count = f"({n_tested} {'numbers of documents' if validation['top_k'] else 'shares'} tested, Holm)"
    equal = validation["equal_from"]
    sentence = f"On {validation['n_pairs']:,} validation pairs "
    if equal is None:
        sentence += f"no share is shown to be one that {within} {test_count}{_why_not(validation)}"
    elif equal == 0:
        sentence += f"the student alone {within} {test_count}"
    else:
        sentence += f"{equal:.0%} of the pairs is the least share that {within} {test_count}"
    if validation["chosen_by"] == "recipe":
        request = (
            f"top {validation['top_k']}" if validation["top_k"] else f"a share of {validation['chosen_share']:.0%}"
        )
        return f"{sentence}; the recipe asks for {request}"
    return sentence if equal is not None else f"{sentence}; so every pair goes to the teacher"


def _why_not(validation: Mapping[str, Any]) -> str:
    """Return why no share equals the teacher: too few pairs, or each share is worse by more than the margin."""
    differences = [place["minus_teacher"] for place in validation["positions"]]
    return _too_few(differences, validation["n_pairs"], validation["margin"], "validation") or (
        ": each is worse by more"
        if all(difference["high"] < -validation["margin"] for difference in differences)
        else ""
    )


def _too_few(differences: list[Mapping[str, Any]], n_pairs: int, margin: float, of: str) -> str:
    """Return a note if the pairs are too few: all intervals have half-widths of the margin or more; "" if not.

    Even a cascade identical to the teacher could then not be shown to equal it. Shares that are shown to be worse are
    not counted.
    """
    widths = [
        (difference["high"] - difference["low"]) / 2 for difference in differences if difference["high"] >= -margin
    ]
    if not widths or min(widths) < margin:
        return ""
    return (
        f": the pairs are too few to tell, the narrowest interval of cascade − teacher is ±{min(widths):.3g} wide; "
        f"at least {pairs_needed(n_pairs, min(widths), margin):,} {of} pairs are needed for this margin"
    )


def say_chosen(metric: str, chosen: Mapping[str, Any]) -> str:
    """Return how the chosen cascade compares with teacher and student on the evaluation pairs, and its cost."""
    tests, margin = chosen["tests"], chosen["margin"]
    difference = tests["equals_teacher"]
    cascade = "the student alone" if chosen["share"] == 0 else f"asking the teacher of {chosen['share']:.0%}"
    sentence = (
        f"On {chosen['n_pairs']:,} evaluation pairs {cascade} has {metric} {chosen[metric]['value']:.4f}, "
        f"{difference['value']:+.4f} to the teacher's ({difference['low']:+.4f} to {difference['high']:+.4f}), "
        f"at {chosen['share_of_teacher_cost']:.0%} of its cost: "
    )
    if tests["beats_teacher"]["holds"]:
        sentence += "it beats the teacher"
    elif difference["holds"]:
        sentence += f"it equals the teacher within the margin of {margin:g}"
    elif difference["high"] < -margin:
        sentence += f"it is worse than the teacher by more than the margin of {margin:g}"
    else:
        sentence += f"not shown to equal the teacher within the margin of {margin:g}"
        sentence += _too_few([difference], chosen["n_pairs"], margin, "evaluation")
    if "beats_student" in tests:
        sentence += " and beats" if tests["beats_student"]["holds"] else ", and is not shown to beat"
        sentence += " the student alone"
    if chosen["share_of_teacher_cost"] > 1:
        sentence += "; it costs more than the teacher alone"
    return f"{sentence} ({chosen['n_tested']} comparisons tested, Holm)"
