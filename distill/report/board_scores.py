"""Store a model's scores on MTEB tasks beside the model: in `boards.json`, and in a section of its model card.

    [{"task": "KorSTS", "type": "STS", "metric": "cosine_spearman", "score": 0.8, "data": "<its data's revision>",
      "model": "<the model's revision>", "opened": "openvino int8, 128 tokens"}]

The file describes the model and is not part of its revision. Scores of other revisions of the model are not shown.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.errors import BadInput
from distill.files.artefact import BOARDS, new_file, read_card, revision, write_json, write_text
from distill.files.outputs import inert
from distill.files.trust import read_json

__all__ = ["BoardScore", "board_scores", "check_board_places", "store_board_scores", "with_board_scores"]

_BEGIN, _END = "<!-- distill evaluate: begin -->", "<!-- distill evaluate: end -->"
_SECTION = re.compile(f"{_BEGIN}.*?{_END}", re.DOTALL)
_BEFORE = re.compile(r"^## Where it comes from\r?$", re.MULTILINE)
_KEYS = {"task": str, "type": str, "metric": str, "score": float, "data": str, "model": str, "opened": str}


@dataclass(frozen=True)
class BoardScore:
    """A model's main score on a task: Spearman's correlation of cosines (STS) or average precision (classification).

    :param type: the type of the task, such as STS
    :param data: the revision of the task's data
    :param model: the revision of the model
    :param opened: runtime, precision and maximum length with which the model was opened
    """

    task: str
    type: str
    metric: str
    score: float
    data: str
    model: str
    opened: str


def board_scores(folder: Path) -> list[BoardScore]:
    """Return the stored scores of a model's current revision; [] if there are none.

    :raises BadInput: if the file does not have this toolkit's format
    """
    path = folder / BOARDS
    if not os.path.lexists(path):
        return []
    rows = read_json(path, list)
    for row in rows:
        if not _is_score(row):
            raise BadInput(f"{path} holds no scores of boards; remove it, and run distill evaluate --card again")
    now = _revision(folder)
    scores = (BoardScore(**{name: row[name] for name in _KEYS}) for row in rows)
    return [score for score in scores if score.model == now]


def _is_score(row: Any) -> bool:
    return (
        isinstance(row, dict) and {name: type(row.get(name)) for name in _KEYS} == _KEYS and math.isfinite(row["score"])
    )


def check_board_places(folder: Path) -> None:
    """Check, before scores are computed, that they can be written beside a model and into its card.

    :raises BadInput: with the name of the file that cannot be read or written
    """
    board_scores(folder)
    _read_card_text(folder / "README.md")
    with new_file(folder / BOARDS, keep=False):  # fails early if the folder cannot be written
        pass


def store_board_scores(folder: Path, scores: Sequence[BoardScore]) -> bool:
    """Store scores beside a model and in its card. They replace earlier scores on the same tasks.

    :returns: whether the model has a card (README.md)
    """
    kept = {score.task: score for score in [*board_scores(folder), *scores]}
    text = _read_card_text(folder / "README.md")
    write_json(folder / BOARDS, [asdict(score) for score in kept.values()])
    if text is None:
        return False
    write_text(folder / "README.md", with_board_scores(text, list(kept.values())))
    return True


def _read_card_text(path: Path) -> str | None:
    """Return the text of a card, with its line ends unchanged; None if there is no card.

    :raises BadInput: if the card is a link, not a file or not UTF-8
    """
    if not os.path.lexists(path):
        return None
    if path.is_symlink() or not path.is_file():
        raise BadInput(f"{path} is a link or no file, and is not written through; copy the folder, or leave out --card")
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8; save it so, or leave out --card") from None


def _revision(folder: Path) -> str:
    card = read_card(folder)
    return card.revision if card is not None and card.revision else revision(folder)


def with_board_scores(card: str, scores: Sequence[BoardScore]) -> str:
    """Return a model card with a section of these scores between two markers. All other text is unchanged."""
    if not scores:
        return card
    ends = "\r\n" if "\r\n" in card else "\n"
    section = f"{_BEGIN}\n\n## Tasks of MTEB\n\n{inert(_table(scores))}\n\n{_END}".replace("\n", ends)
    old_section = _SECTION.search(card)
    if old_section is not None:
        return f"{card[: old_section.start()]}{section}{card[old_section.end() :]}"
    place = _BEFORE.search(card)
    if place is None:
        return f"{card}{ends if card.endswith(ends) else 2 * ends}{section}{ends}"
    return f"{card[: place.start()]}{section}{2 * ends}{card[place.start() :]}"


def _table(scores: Sequence[BoardScore]) -> str:
    rows = [" | ".join([score.task, score.type, score.metric, f"{score.score:.4f}", score.opened]) for score in scores]
    rows = [f"| {' '.join(row.split())} |" for row in rows]
    return "\n".join(["| task | type | metric | score | opened as |", "|---|---|---|---:|---|", *rows])
