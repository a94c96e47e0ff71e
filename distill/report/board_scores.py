"""Scores on tasks of MTEB beside a model: `boards.json`, and a section of its card.

    [{"task": "KorSTS", "type": "STS", "metric": "cosine_spearman", "score": 0.8, "data": "<its data's revision>",
      "model": "<the model's revision>", "opened": "openvino int8, 128 tokens"}]

The file describes the model and is no part of its revision. Scores of another revision of the model are not shown.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.errors import BadInput
from distill.files.artefact import BOARDS, read_card, revision, write_json
from distill.files.outputs import inert
from distill.files.trust import read_json

__all__ = ["BoardScore", "board_scores", "store_board_scores", "with_board_scores"]

_TITLE = "## Tasks of MTEB"
_SECTION = re.compile(rf"^{_TITLE}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BEFORE = re.compile(r"^## Where it comes from$", re.MULTILINE)
_KEYS = {"task": str, "type": str, "metric": str, "score": float, "data": str, "model": str, "opened": str}


@dataclass(frozen=True)
class BoardScore:
    """A model's main score on a task: of an STS task Spearman's correlation of the cosines, of pair classification average precision.

    :param type: the task's, such as STS
    :param data: the revision of the task's data
    :param model: the revision of the model
    :param opened: runtime, precision and length that it was opened with
    """

    task: str
    type: str
    metric: str
    score: float
    data: str
    model: str
    opened: str


def board_scores(folder: Path) -> list[BoardScore]:
    """Return the scores that lie beside a model, of its present revision alone; [] where there are none.

    :raises BadInput: for a file that is none of this toolkit's
    """
    path = folder / BOARDS
    if not os.path.lexists(path):
        return []
    held = read_json(path, list)
    for row in held:
        if not isinstance(row, dict) or {name: type(row.get(name)) for name in _KEYS} != _KEYS:
            raise BadInput(f"{path} holds no scores of boards; remove it, or run distill evaluate --card again")
    now = _revision(folder)
    scores = (BoardScore(**{name: row[name] for name in _KEYS}) for row in held)
    return [score for score in scores if score.model == now]


def store_board_scores(folder: Path, scores: Sequence[BoardScore]) -> bool:
    """Put scores beside a model, in place of earlier ones on the same tasks, and into its card.

    :returns: whether there is a card (README.md)
    """
    kept = {score.task: score for score in [*board_scores(folder), *scores]}
    write_json(folder / BOARDS, [asdict(score) for score in kept.values()])
    card = folder / "README.md"
    if not card.is_file():
        return False
    card.write_text(with_board_scores(card.read_text(encoding="utf-8"), list(kept.values())), encoding="utf-8")
    return True


def _revision(folder: Path) -> str:
    card = read_card(folder)
    return card.revision if card is not None and card.revision else revision(folder)


def with_board_scores(card: str, scores: Sequence[BoardScore]) -> str:
    """Return a model card with a section of these scores, and with them in its metadata; as it is without any."""
    if not scores:
        return card
    section = f"{_TITLE}\n\n{inert(_table(scores))}\n\n"
    text = _SECTION.sub("", card)
    place = _BEFORE.search(text)
    if place is None:
        text = f"{text.rstrip()}\n\n{section}"
    else:
        text = f"{text[: place.start()]}{section}{text[place.start() :]}"
    return _with_metadata(text, scores)


def _table(scores: Sequence[BoardScore]) -> str:
    rows = [" | ".join([one.task, one.type, one.metric, f"{one.score:.4f}", one.opened]) for one in scores]
    rows = [f"| {' '.join(row.split())} |" for row in rows]
    return "\n".join(["| task | type | metric | score | opened as |", "|---|---|---|---:|---|", *rows])


def _with_metadata(text: str, scores: Sequence[BoardScore]) -> str:
    """Return a card with the scores among the results that the hub reads; as it is where it has no metadata."""
    from huggingface_hub import EvalResult, ModelCard

    if not text.startswith("---\n"):
        return text
    try:
        card = ModelCard(text, ignore_metadata_errors=False)
    except Exception as error:  # whatever a parser of YAML raises
        raise BadInput(
            f"the card's metadata cannot be read ({' '.join(str(error).split())[:120]}); mend README.md"
        ) from None
    names = {score.task for score in scores}
    data: Any = card.data  # a ModelCardData, which the library types as what it derives from
    kept = [result for result in data.eval_results or [] if result.dataset_name not in names]
    data.model_name = data.model_name or "model"  # the hub's form of results has a name
    data.eval_results = kept + [
        EvalResult(
            task_type=one.type,
            dataset_type="mteb",
            dataset_name=one.task,
            dataset_revision=one.data,
            metric_type=one.metric,
            metric_value=round(one.score, 4),
        )
        for one in scores
    ]
    return str(card)
