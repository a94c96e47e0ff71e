"""Look up and check the answers to texts or pairs in a file: by the exact text, else by the folded text.

A folded text is what this toolkit compares everywhere (`distill.data.splitting.text_key`): NFC, with each run of white
space as one space. Only the requested answers are kept and checked, so a file may hold more.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from distill.data.splitting import text_key
from distill.errors import BadInput
from distill.metrics.logistic import logit
from distill.recipe.black_box import FileTeacher, ScaledAnswers
from distill.scorers.file_rows import Item, answer_rows
from distill.wording import counted

__all__ = ["FileAnswers", "read_answers", "shown_item", "to_scale"]

log = logging.getLogger(__name__)
_SAME = 1e-3  # two answers to one text with a smaller relative difference count as equal: servers round differently
_LEAST_UNIT = 1e-6  # unit scores are clipped to this distance from 0 and 1, which have no logit
_ROUNDING = 1e-4
_SHOWN = 60


@dataclass(frozen=True)
class FileAnswers:
    """The answers to the requested items, and the items without an answer.

    *Shape:* values: (n_found, width) embeddings, or (n_found,) logits or cosines, float32

    :param rows: the row in `values` of each item's answer
    :param missing: the items without an answer
    :param n_folded: how many items were found only by their folded text
    """

    rows: Mapping[Item, int]
    values: np.ndarray
    missing: list[Item]
    n_folded: int

    def of(self, items: Sequence[Item]) -> np.ndarray:
        """Return the answers to items, none of which may be missing."""
        return self.values[[self.rows[item] for item in items]]


def read_answers(name: str, settings: FileTeacher, items: Sequence[Item], *, whole: bool = False) -> FileAnswers:
    """Look up items in a teacher's files.

    :param name: the teacher's name, for messages
    :param whole: True if these are all items of a recipe; the same answer to all of them is then refused
    :raises BadInput: if a file cannot be read or an answer is invalid: different answers to one item, NaN, vectors of
        different widths, zero vectors, scores outside their range, the same answer to all items
    """
    found = _Found.of(items)
    try:
        for path in settings.path:
            for row_items, values in answer_rows(settings, path):
                found.take(path, row_items, values)
    except BadInput as problem:
        raise BadInput(f"teacher {name}: {problem}") from None
    where = (
        f"teacher {name}: {settings.path[0]}{'' if len(settings.path) == 1 else f' and {len(settings.path) - 1} more'}"
    )
    answers = found.answers(where)
    if answers.n_folded:
        log.info(
            "%s: %s found only after white space and Unicode were normalized", where, counted(answers.n_folded, "text")
        )
    checked = _checked_vectors if settings.signal == "embeddings" else _checked_scores
    values = checked(where, settings, answers.values, _shown_by_row(answers))
    if whole and len(values) > 1 and (values == values[0]).all():
        same_answer = "vector" if values.ndim == 2 else f"score, {answers.values[0]:g}"
        raise BadInput(f"{where}: all {len(values):,} answers are the same {same_answer}; they tell nothing apart")
    return FileAnswers(answers.rows, values, answers.missing, answers.n_folded)


def shown_item(item: Item) -> str:
    """Return the start of a text, or of both texts of a pair, for a message."""
    texts = [item] if isinstance(item, str) else item
    cut = [" ".join(text.split()) for text in texts]
    return " and ".join(repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…") for text in cut)


def _shown_by_row(answers: FileAnswers) -> Mapping[int, Item]:
    return {row: item for item, row in reversed(list(answers.rows.items()))}


def _key(item: Item) -> Item:
    return text_key(item) if isinstance(item, str) else (text_key(item[0]), text_key(item[1]))


@dataclass
class _Found:
    """The answers found so far: for each item the first with the exact text, and the first with the folded text."""

    items: list[Item]
    by_item: dict[Item, int]
    by_key: dict[Item, list[int]]
    values: list[np.ndarray] = field(default_factory=list)
    exact: dict[int, int] = field(default_factory=dict)
    folded: dict[int, int] = field(default_factory=dict)
    contradicted: dict[int, None] = field(default_factory=dict)  # items whose exact text has different answers
    contradicted_folded: set[int] = field(default_factory=set)
    n_repeats: int = 0

    @classmethod
    def of(cls, items: Sequence[Item]) -> "_Found":
        unique = list(dict.fromkeys(items))
        by_key: dict[Item, list[int]] = {}
        for number, item in enumerate(unique):
            by_key.setdefault(_key(item), []).append(number)
        return cls(unique, {item: number for number, item in enumerate(unique)}, by_key)

    def take(self, path: str, items: Sequence[Item], values: np.ndarray) -> None:
        """Keep the answers to the requested items."""
        if self.values and values.shape[1:] != self.values[0].shape and len(items):
            raise BadInput(
                f"{path}: its vectors have no common width: {self.values[0].size} numbers in some, {values.shape[1]} in others"
            )
        for item, value in zip(items, values, strict=True):
            number = self.by_item.get(item)
            if number is not None:
                self.n_repeats += number in self.exact
                if not self._keep(self.exact, number, value):
                    self.contradicted[number] = None
            for other_number in self.by_key.get(_key(item), ()):
                if other_number != number and not self._keep(self.folded, other_number, value):
                    self.contradicted_folded.add(other_number)

    def _keep(self, rows: dict[int, int], number: int, value: np.ndarray) -> bool:
        """Keep the first answer; return False if this one differs from it."""
        if number in rows:
            return _is_same(self.values[rows[number]], value)
        rows[number] = len(self.values)
        self.values.append(np.array(value))
        return True

    def answers(self, where: str) -> FileAnswers:
        """Return the answers that were found.

        :raises BadInput: if an item has different answers
        """
        folded = {number: row for number, row in self.folded.items() if number not in self.exact}
        unclear = [*self.contradicted, *(number for number in folded if number in self.contradicted_folded)]
        if unclear:
            example = shown_item(self.items[unclear[0]])
            raise BadInput(
                f"{where}: {counted(len(unclear), 'item')} of {len(self.items):,} stand there several times with different answers, "
                f"as {example}; leave one of each"
            )
        if self.n_repeats:
            log.info(
                "%s: %s repeated with the same answer",
                where,
                counted(self.n_repeats, "row"),
            )
        places = {**self.exact, **folded}
        kept = sorted(places.values())
        row_of = {place: row for row, place in enumerate(kept)}
        values = np.stack([self.values[place] for place in kept]) if kept else np.zeros(0)
        rows = {self.items[number]: row_of[place] for number, place in sorted(places.items())}
        return FileAnswers(rows, values, [item for item in self.items if item not in rows], len(folded))


def _is_same(left: np.ndarray, right: np.ndarray) -> bool:
    size = float(np.abs(left).max()) if np.size(left) else 0.0
    same: bool = np.allclose(left, right, rtol=0, atol=_SAME * max(size, 1e-12), equal_nan=True)
    return same


# --- checks -----------------------------------------------------------------------------------------------------------


def _checked_vectors(
    where: str, settings: ScaledAnswers, values: np.ndarray, item_of: Mapping[int, Item]
) -> np.ndarray:
    with np.errstate(over="ignore"):
        vectors = values.astype(np.float32)
    if not len(vectors):
        return vectors
    _refuse(where, "vectors hold NaN or infinity", np.array(~np.isfinite(vectors).all(axis=1)), item_of)
    _refuse(where, "vectors are all zeros, which have no direction", np.array(~vectors.any(axis=1)), item_of)
    return vectors


def _checked_scores(where: str, settings: ScaledAnswers, values: np.ndarray, item_of: Mapping[int, Item]) -> np.ndarray:
    if not len(values):
        return values.astype(np.float32)
    _refuse(where, "scores are NaN, infinite or missing", ~np.isfinite(values), item_of)
    return to_scale(where, settings, values)


def _refuse(where: str, what: str, wrong: np.ndarray, item_of: Mapping[int, Item]) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        raise BadInput(
            f"{where}: {len(rows):,} of {len(wrong):,} {what}, as that of {shown_item(item_of[int(rows[0])])}"
        )


def to_scale(where: str, settings: ScaledAnswers, values: np.ndarray, least: float = _LEAST_UNIT) -> np.ndarray:
    """Convert scores to cosines or logits; a score u of scale "unit" becomes ln(u / (1 − u)).

    *Shape:* values: (n_pairs,) float64; result: the same, float32

    :param least: unit scores are clipped to [least, 1 − least], because 0 and 1 have no logit
    :raises BadInput: if scores are outside their range
    """
    if settings.scale == "logit":
        return values.astype(np.float32)
    low, high = (-1.0, 1.0) if settings.scale == "cosine" else settings.score_range
    slack = _ROUNDING * (high - low)
    outside = np.flatnonzero((values < low - slack) | (values > high + slack))
    if len(outside):
        other_scales = "logit (log-odds)" if settings.scale == "cosine" else "logit (log-odds) or cosine"
        advice = (
            f"set scale: {other_scales}" if settings.scale == "cosine" else f"set score_range, or scale: {other_scales}"
        )
        raise BadInput(
            f"{where}: {len(outside):,} of {len(values):,} scores lie outside [{low:g}, {high:g}], as {values[outside[0]]:g}; "
            f"{advice}"
        )
    if settings.scale == "cosine":
        cosines: np.ndarray = np.clip(values, -1, 1).astype(np.float32)
        return cosines
    unit = np.clip((values - low) / (high - low), least, 1 - least)
    return logit(unit).astype(np.float32)
