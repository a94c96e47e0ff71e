"""Which rows are held out, so that no text stands on both sides, and whether the parts resemble each other.

Texts are compared by `text_key`: in NFC, white space folded. Rows that share a text, directly or over others, form a
component. A component can be held out whole at no cost; one that is larger than the share cannot, and then queries or
documents are held out of it and the remaining rows that share a text with them are dropped.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = [
    "Drawn",
    "Way",
    "beyond_chance",
    "held_together",
    "hold_out",
    "label_shift",
    "sample",
    "take_groups",
    "text_key",
]

Way = Literal["auto", "component", "query", "document"]
_ROOM = 1.5  # a group is held out where the rows exceed the share by no more than half of it
_BEYOND_CHANCE = 3.0  # standard errors
_LEAST_ROWS = 20  # below it any difference is chance
_UNSEEN = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def text_key(text: str) -> str:
    r"""Return what texts are compared by: NFC, without zero-width characters, white space of any kind as one space, stripped.

    >>> text_key("a\u00a0 b\u200b\n") == "a b", text_key("\u1112\u1161\u11ab") == "한"
    (True, True)
    """
    if not text.isascii():
        text = _UNSEEN.sub("", unicodedata.normalize("NFC", text))
    return " ".join(text.split())


def sample(n_rows: int, at_most: int | None, seed: int) -> list[int]:
    """Return up to `at_most` rows, drawn at random with the seed, in their order; None takes all.

    >>> sample(3, None, 0), len(sample(100, 10, 0))
    ([0, 1, 2], 10)
    """
    if at_most is None or at_most >= n_rows:
        return list(range(n_rows))
    return sorted(np.random.default_rng(seed).permutation(n_rows)[:at_most].tolist())


@dataclass(frozen=True)
class Drawn:
    """Rows held out, rows that are left, and how many were dropped because they share a text with those held out."""

    held: list[int]
    rest: list[int]
    n_dropped: int
    way: Way


def hold_out(queries: Sequence[str], documents: Sequence[str], share: float, *, seed: int, way: Way = "auto") -> Drawn:
    """Hold out a share of the rows; whole groups, in an order that depends on the seed and their texts alone.

    :param queries: the texts of each row, by their keys
    :param way: what is held out whole; auto takes components, and queries where components leave less than half the share
    """
    target = max(1, round(len(queries) * share))
    chosen: Way = "component" if way == "auto" else way
    held = take_groups(_groups(queries, documents, chosen), target, seed)
    if way == "auto" and len(held) < target // 2:
        chosen, held = "query", take_groups(_groups(queries, documents, "query"), target, seed)
    taken = set(held)
    texts = {text for row in held for text in (queries[row], documents[row])}
    rest = [row for row in range(len(queries)) if row not in taken]
    clean = [row for row in rest if queries[row] not in texts and documents[row] not in texts]
    return Drawn(held, clean, len(rest) - len(clean), chosen)


def _groups(queries: Sequence[str], documents: Sequence[str], way: Way) -> dict[str, list[int]]:
    if way == "component":
        return _components(queries, documents)
    groups: dict[str, list[int]] = {}
    for row, text in enumerate(documents if way == "document" else queries):
        groups.setdefault(text, []).append(row)
    return groups


def _components(queries: Sequence[str], documents: Sequence[str]) -> dict[str, list[int]]:
    """Group rows that share a text, directly or over others; keyed by the component's smallest text."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while parent.setdefault(text, text) != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for query, document in zip(queries, documents, strict=True):
        a, b = root(query), root(document)
        parent[max(a, b)] = min(a, b)
    groups: dict[str, list[int]] = {}
    for row, query in enumerate(queries):
        groups.setdefault(root(query), []).append(row)
    return groups


def take_groups(groups: dict[str, list[int]], target: int, seed: int) -> list[int]:
    """Take whole groups in an order given by the seed until `target` rows are reached, never much more."""
    taken: list[int] = []
    for key in sorted(
        groups, key=lambda text: hashlib.sha256(f"{seed}:{text}".encode("utf-8", "surrogatepass")).digest()
    ):
        if len(taken) >= target:
            break
        if len(taken) + len(groups[key]) <= _most(target):
            taken += groups[key]
    return sorted(taken)


def _most(target: int) -> float:
    return target * _ROOM + 1


def held_together(
    queries: Sequence[str], documents: Sequence[str], share: float, *, seed: int, name: str
) -> str | None:
    """Say how many rows no draw of whole components can hold out, and what the other ways cost; None where there are none."""
    most = _most(max(1, round(len(queries) * share)))
    large = [len(rows) for rows in _components(queries, documents).values() if len(rows) > most]
    if not large:
        return None
    costs = {way: hold_out(queries, documents, share, seed=seed, way=way).n_dropped for way in ("query", "document")}
    lone = len(queries) - sum(large)
    return (
        f"{sum(large)} of {len(queries)} pairs hang together over shared texts in {len(large)} groups larger than the {name} share "
        f"(the largest has {max(large)} pairs) and none of them is held out: the {name} pairs are drawn from the other {lone} alone; "
        f"data.split=query draws from all and drops {costs['query']} pairs, data.split=document {costs['document']}"
    )


def label_shift(
    labels: np.ndarray, clusters: Iterable[str], others: np.ndarray, other_clusters: Iterable[str]
) -> float:
    """Return how far two means of labels lie apart, in standard errors over clusters of rows; 0 where rows are too few.

    The variance of a mean over clusters c is Σ_c (Σ_{i∈c} (yᵢ − ȳ))² / n². *Shape:* labels: (n,), others: (m,)
    """
    if min(len(labels), len(others)) < _LEAST_ROWS:
        return 0.0
    error = np.sqrt(_variance_of_mean(labels, clusters) + _variance_of_mean(others, other_clusters))
    apart = abs(float(labels.mean()) - float(others.mean()))
    return 0.0 if apart < 1e-6 else apart / max(float(error), 1e-6)


def beyond_chance(shift: float) -> bool:
    """Tell whether a shift of `label_shift` is more than chance gives."""
    return shift > _BEYOND_CHANCE


def _variance_of_mean(labels: np.ndarray, clusters: Iterable[str]) -> float:
    numbers: dict[str, int] = {}
    rows = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    sums = np.bincount(rows, weights=labels.astype(np.float64) - float(labels.mean()))
    return float((sums**2).sum()) / len(labels) ** 2
