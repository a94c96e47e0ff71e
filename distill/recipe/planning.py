"""Settings of a plan: the section `plan` of a recipe, or its defaults without one, overridden by the command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.errors import BadInput
from distill.recipe.reading import read_raw, validated
from distill.recipe.schema import Recipe

__all__ = ["load_plan"]

_STANDALONE = "runs/plan"


def load_plan(
    path: str | None, overrides: Sequence[str], given: Mapping[str, Any], output: Path | None
) -> tuple[Recipe, Path]:
    """Return the recipe to plan for and the folder of the plan.

    Without a recipe, shapes of fresh encoders are planned, and the text is that of generated résumé–JD pairs.

    :param given: keys of the section `plan` from the command line; None keeps the recipe's value
    :param output: folder of the plan; None is `plan` in the run's folder, or runs/plan without a recipe
    :raises BadInput: if the recipe is not valid or cannot be planned, or no budget is set
    """
    if path is not None and "=" in path:  # the first argument is an override, not a recipe
        overrides, path = [path, *overrides], None
    alone = {
        "name": "plan",
        "output_dir": str(output or _STANDALONE),
        "data": {"train": "bundled", "bundled_pairs": 2000},
    }
    raw = read_raw(alone if path is None else path, overrides)
    section = raw.get("plan") or {}
    if isinstance(section, Mapping):
        raw["plan"] = {**section, **{key: value for key, value in given.items() if value is not None}}
    recipe = validated(Recipe, raw, path or "distill plan")
    if recipe.plan.budget_p95_ms is None and recipe.plan.budget_mb is None:
        raise BadInput(
            "a plan needs a budget: --budget-p95-ms, --budget-mb or both (plan.budget_p95_ms, plan.budget_mb)"
        )
    if recipe.student is not None and recipe.student.static is not None:
        raise BadInput("student.static: a static student has no layers to plan; leave it out to plan one that has")
    if cutting := [name for name, stage in recipe.stages.items() if stage.student is not None]:
        raise BadInput(
            f"stages.{cutting[0]}.student: it cuts the planned student again; leave it out of the recipe that is planned"
        )
    return recipe, output or (recipe.folder if path is None else recipe.folder / "plan")
