"""What one training stage hands over to the next beside the student itself.

What is learned beside a model serves its training alone: a projection into a teacher's space that is left out of the student
(`embedding_match.projection: drop`), and the scale and bias that turn cosines into logits. A stage that learned them anew would
first pull the student away from where it was. They are handed over where the next stage means the same by them.
AdamW's moments are not: each stage has a warm-up, and its steps are of other losses.
"""

import json
import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from distill.recipe.objectives import Objectives
from distill.training.objectives import Step
from distill.training.task import TaskStep

__all__ = ["hand_over", "take_over"]

log = logging.getLogger(__name__)
_FILE = "beside_the_model.safetensors"
_WORDS = {
    "projection": "the projection",
    "scale_and_bias": "scale and bias of cosines",
    "hidden_states": "the projection of hidden states",
    "hidden_embeddings": "the projection of what enters the first layer",
}


def hand_over(step: TaskStep, folder: Path) -> None:
    """Write what was learned beside the model into its folder; nothing where nothing was."""
    from safetensors.torch import save_file

    if not isinstance(step, Step):
        return
    learned = _beside(step)
    if learned:
        meant = {name: json.dumps(_meaning(name, step.objectives)) for name in learned}
        save_file({name: value.detach().cpu().contiguous() for name, value in learned.items()}, folder / _FILE, meant)


def take_over(step: Step, folder: Path, name: str) -> None:
    """Start what is learned beside the model where the stage before ended, if it means the same; say what did.

    :param folder: of the student after the stage before
    :param name: of the job, for the log
    """
    found = _read(folder / _FILE)
    taken = []
    for key, parameter in _beside(step).items():
        meant, value = found.get(key, (None, parameter))
        if meant == json.dumps(_meaning(key, step.objectives)) and value.shape == parameter.shape:
            parameter.data.copy_(value)
            taken.append(key)
    anew = [key for key in _beside(step) if key not in taken]
    log.info(
        "%s: handed over: %s; anew: %s",
        name,
        ", ".join(["the weights", *(_WORDS[key] for key in taken)]),
        ", ".join([*(_WORDS[key] for key in anew), "AdamW's moments"]),
    )


def _read(path: Path) -> dict[str, tuple[str, Tensor]]:
    """Return what was handed over, each with what it meant."""
    import safetensors

    if not path.is_file():
        return {}
    with safetensors.safe_open(str(path), "pt") as file:  # type: ignore[no-untyped-call]
        meant: dict[str, str] = file.metadata() or {}
        return {name: (told, file.get_tensor(name)) for name, told in meant.items()}


def _beside(step: Step) -> dict[str, Tensor]:
    """Return the parameters that are learned beside the model, by what they are called."""
    projection = None if step.projection is None else step.projection.weight
    both = {"projection": projection, "scale_and_bias": step.scale_and_bias}
    if step.layer_losses is not None:
        named = step.layer_losses.projections.named_parameters()
        both |= {f"hidden_{name.partition('.')[0]}": parameter for name, parameter in named}
    return {name: value for name, value in both.items() if value is not None}


def _meaning(name: str, objectives: Objectives) -> Any:
    """Return what decides what a parameter is for."""
    match = objectives.embedding_match
    if name == "projection" and match is not None:
        return match.told_by
    if name.startswith("hidden_"):
        return sorted(objectives.live_teachers)
    return objectives.logit_scale
