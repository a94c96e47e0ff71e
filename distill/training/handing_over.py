"""Parameters beside the student that one training stage hands over to the next.

Some parameters serve training only: a projection into a teacher's space that is not part of the student
(`embedding_match.projection: drop`), and the scale and bias that turn cosines into logits. If a stage started them at
random, its first steps would pull the student away from its state. So they are handed over if they have the same
meaning in the next stage. AdamW's moments are not: each stage has a warm-up and other losses.
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
_TITLES = {
    "projection": "the projection",
    "scale_and_bias": "scale and bias of cosines",
    "hidden_states": "the projection of hidden states",
    "hidden_embeddings": "the projection of what enters the first layer",
}


def hand_over(step: TaskStep, folder: Path) -> None:
    """Write the parameters beside the model into its folder, if there are any."""
    from safetensors.torch import save_file

    if not isinstance(step, Step):
        return
    parameters = _beside(step)
    if parameters:
        meanings = {name: json.dumps(_meaning(name, step.objectives)) for name in parameters}
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in parameters.items()}, folder / _FILE, meanings
        )


def take_over(step: Step, folder: Path, name: str) -> None:
    """Load the previous stage's parameters beside the model if they have the same meaning, and log which were loaded.

    :param folder: the folder of the previous stage's student
    :param name: the job's name, for the log
    """
    stored_parameters = _read(folder / _FILE)
    taken_keys = []
    for key, parameter in _beside(step).items():
        meaning, value = stored_parameters.get(key, (None, parameter))
        if meaning == json.dumps(_meaning(key, step.objectives)) and value.shape == parameter.shape:
            parameter.data.copy_(value)
            taken_keys.append(key)
    new_keys = [key for key in _beside(step) if key not in taken_keys]
    log.info(
        "%s: handed over: %s; anew: %s",
        name,
        ", ".join(["the weights", *(_TITLES[key] for key in taken_keys)]),
        ", ".join([*(_TITLES[key] for key in new_keys), "AdamW's moments"]),
    )


def _read(path: Path) -> dict[str, tuple[str, Tensor]]:
    """Return the handed-over parameters by name, each with its meaning."""
    import safetensors

    if not path.is_file():
        return {}
    with safetensors.safe_open(str(path), "pt") as file:  # type: ignore[no-untyped-call]
        meanings: dict[str, str] = file.metadata() or {}
        return {name: (meaning, file.get_tensor(name)) for name, meaning in meanings.items()}


def _beside(step: Step) -> dict[str, Tensor]:
    """Return the parameters beside the model by name."""
    projection = None if step.projection is None else step.projection.weight
    parameters = {"projection": projection, "scale_and_bias": step.scale_and_bias}
    if step.layer_losses is not None:
        named = step.layer_losses.projections.named_parameters()
        parameters |= {f"hidden_{name.partition('.')[0]}": parameter for name, parameter in named}
    return {name: value for name, value in parameters.items() if value is not None}


def _meaning(name: str, objectives: Objectives) -> Any:
    """Return the settings that determine a parameter's meaning."""
    match = objectives.embedding_match
    if name == "projection" and match is not None:
        return match.taught_by
    if name.startswith("hidden_"):
        return sorted(objectives.live_teachers)
    return objectives.logit_scale
