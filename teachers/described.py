"""The folder of a teacher that is used without training: its description and its card."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distill.files.artefact import Artefact, content_hash, new_folder, write_card, write_json
from distill.run import Run
from distill.scorers.scoring import SCORER_FILE

__all__ = ["put_into_run"]


def put_into_run(
    run: Run,
    name: str,
    inputs: Mapping[str, Any],
    stated: Mapping[str, Any],
    write: Callable[[Path], None] | None = None,
) -> bool:
    """Write the folder of a teacher, unless it exists; return whether it was written.

    :param inputs: everything that determines the teacher, for its fingerprint; `parents` go into its card
    :param stated: the content of its scorer.json
    :param write: writes a model into the folder; None for a teacher without one
    """
    if run.is_finished(run.teacher(name), inputs):
        return False
    card = Artefact(
        kind=run.recipe.black_boxes[name].form,
        stage="train_teacher",
        fingerprint=content_hash(inputs),
        parents=dict(inputs.get("parents", {})),
        recipe=run.stated.model_dump(mode="json"),
        details={"inputs": inputs},
    )
    with new_folder(run.teacher(name)) as folder:
        if write is not None:
            write(folder)
        write_json(folder / SCORER_FILE, stated)
        write_card(folder, card)
    return True
