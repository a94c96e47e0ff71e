"""Choose the rows to hold out, so that no text is in two parts, and test whether the parts resemble each other.

Texts are compared by `text_key`: in NFC, with white space folded. Rows that share a text, directly or through other
rows, form a component. A component can be held out whole without loss. If it is larger than the share, queries or
documents are held out of it instead, and the remaining rows that share a text with them are dropped.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from distill.data.ragged import Ragged
from distill.wording import counted

__all__ = [
    "Drawn",
    "Groups",
    "Way",
    "beyond_chance",
    "held_together",
    "hold_out",
    "label_shift",
    "numbered",
    "sample",
    "take_groups",
    "take_nested_groups",
    "text_key",
]

Way = Literal["auto", "component", "query", "document"]
_ROOM = 1.5  # a group is held out only if the rows then exceed the share by no more than half of it
_BEYOND_CHANCE = 3.0  # standard errors
_LEAST_ROWS = 20  # with fewer rows any difference counts as chance
_UNSEEN = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def text_key(text: str) -> str:
    r"""Return the key that texts are compared by: NFC, no zero-width characters, white space as one space, stripped.

    >>> text_key("a\u00a0 b\u200b\n") == "a b", text_key("\u1112\u1161\u11ab") == "한"
    (True, True)
    """
    visible = text if text.isascii() else _UNSEEN.sub("", unicodedata.normalize("NFC", text))
    key = " ".join(visible.split())
    return text if key == text else key  # reuse the object: most of millions of texts are their own key


def sample(n_rows: int, at_most: int | None, seed: int) -> list[int]:
    """Return up to `at_most` rows, drawn at random with the seed, in ascending order; None takes all.

    >>> sample(3, None, 0), len(sample(100, 10, 0))
    ([0, 1, 2], 10)
    """
    if at_most is None or at_most >= n_rows:
        return list(range(n_rows))
    return sorted(np.random.default_rng(seed).permutation(n_rows)[:at_most].tolist())


def numbered(texts: Iterable[str], numbers: dict[str, int]) -> np.ndarray:
    """Return a number for each text, the same for equal texts, counted in order of appearance. *Shape:* (n_texts,).

    :param numbers: the numbers given so far; new ones are added
    """
    return np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), dtype=np.int64)


@dataclass(frozen=True)
class Groups:
    """Groups of rows, each with a name."""

    names: list[str]
    rows: Ragged

    @classmethod
    def of(cls, names: list[str], numbers: np.ndarray) -> "Groups":
        """Put rows into groups by their numbers. *Shape:* numbers: (n_rows,), each an index into `names`."""
        sizes = np.bincount(numbers, minlength=len(names))
        return cls(names, Ragged.cut(np.argsort(numbers, kind="stable"), sizes))

    @classmethod
    def by_text(cls, texts: Iterable[str]) -> "Groups":
        """Group rows with the same text, in the order of their first rows."""
        places: dict[str, int] = {}
        numbers = numbered(texts, places)
        return cls.of(list(places), numbers)


@dataclass(frozen=True)
class Drawn:
    """Rows held out, remaining rows, and how many rows were dropped because they share a text with the held-out ones.

    :param sizes: number of rows of each group that could be held out whole. *Shape:* (n_groups,)
    """

    held: list[int]
    rest: list[int]
    n_dropped: int
    way: Way
    sizes: np.ndarray


def hold_out(queries: Sequence[str], documents: Sequence[str], share: float, *, seed: int, way: Way = "auto") -> Drawn:
    """Hold out a share of the rows, in whole groups; their order depends only on the seed and their texts.

    :param queries: the keys of the queries, one per row; likewise `documents`
    :param way: what is held out whole; auto uses components, or queries if components give less than half the share
    """
    target = max(1, round(len(queries) * share))
    chosen_way: Way = "component" if way == "auto" else way
    groups = _groups(queries, documents, chosen_way)
    held = take_groups(groups, target, seed)
    if way == "auto" and len(held) < target // 2:
        chosen_way, groups = "query", _groups(queries, documents, "query")
        held = take_groups(groups, target, seed)
    held_set = set(held)
    texts = {text for row in held for text in (queries[row], documents[row])}
    rest = [row for row in range(len(queries)) if row not in held_set]
    clean = [row for row in rest if queries[row] not in texts and documents[row] not in texts]
    return Drawn(held, clean, len(rest) - len(clean), chosen_way, groups.rows.lengths)


def _groups(queries: Sequence[str], documents: Sequence[str], way: Way) -> Groups:
    if way == "component":
        return _components(queries, documents)
    return Groups.by_text(documents if way == "document" else queries)


def _components(queries: Sequence[str], documents: Sequence[str]) -> Groups:
    """Group rows that share a text, directly or through other rows; a group is named by its smallest text."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    places: dict[str, int] = {}
    query_numbers, document_numbers = numbered(queries, places), numbered(documents, places)
    n_texts = len(places)
    edges = coo_array(
        (np.ones(len(query_numbers), dtype=np.int8), (query_numbers, document_numbers)), shape=(n_texts, n_texts)
    )
    n_components, component = connected_components(edges, directed=False)
    names: list[str | None] = [None] * n_components
    for text, number in zip(places, component.tolist(), strict=True):
        smallest = names[number]
        if smallest is None or text < smallest:
            names[number] = text
    return Groups.of([name for name in names if name is not None], component[query_numbers])


def take_groups(groups: Groups, target: int, seed: int) -> list[int]:
    """Take whole groups in an order given by the seed until `target` rows are reached, at most half more."""
    sizes, taken_rows, n_taken = groups.rows.lengths.tolist(), list[np.ndarray](), 0
    for number in _drawn_order(groups, seed):
        if n_taken >= target:
            break
        if n_taken + sizes[number] <= _most(target):
            taken_rows.append(groups.rows[number])
            n_taken += sizes[number]
    return np.sort(np.concatenate(taken_rows)).tolist() if taken_rows else []


def take_nested_groups(groups: Groups, at_most: int, seed: int) -> list[int]:
    """Take whole groups in an order given by the seed, up to the first with which the rows are more than `at_most`.

    What is taken for a number is part of what is taken for a larger one.

    >>> groups = Groups.by_text("aaabbc")
    >>> [take_nested_groups(groups, at_most, 0) for at_most in (2, 3, 5, 6)]  # drawn: a, c, b
    [[], [0, 1, 2], [0, 1, 2, 5], [0, 1, 2, 3, 4, 5]]
    """
    sizes = groups.rows.lengths
    order = _drawn_order(groups, seed)
    n_fitting = int(np.searchsorted(np.cumsum(sizes[order]), at_most, side="right"))
    return sorted(row for number in order[:n_fitting] for row in groups.rows[number].tolist())


def _drawn_order(groups: Groups, seed: int) -> list[int]:
    """Return the numbers of the groups in an order that depends only on the seed and their names."""
    digests = [hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest() for name in groups.names]
    return sorted(range(len(digests)), key=digests.__getitem__)


def _most(target: int) -> float:
    return target * _ROOM + 1


def held_together(
    queries: Sequence[str], documents: Sequence[str], share: float, *, sizes: np.ndarray, seed: int, name: str
) -> str | None:
    """Return a note on the rows in components too large to hold out; None if there are none.

    The note gives their number, and how many rows the other ways would drop.

    :param sizes: number of rows of each component
    """
    large = sizes[sizes > _most(max(1, round(len(queries) * share)))].tolist()
    if not large:
        return None
    costs = {way: hold_out(queries, documents, share, seed=seed, way=way).n_dropped for way in ("query", "document")}
    lone = len(queries) - sum(large)
    return (
        f"{sum(large)} of {len(queries)} pairs hang together over shared texts in {counted(len(large), 'group')} larger than the {name} share "
        f"(the largest has {max(large)} pairs) and none of them is held out: the {name} pairs are drawn from the other {lone} alone; "
        f"data.split=query draws from all and drops {costs['query']} pairs, data.split=document {costs['document']}"
    )


def label_shift(
    labels: np.ndarray, clusters: Iterable[str], others: np.ndarray, other_clusters: Iterable[str]
) -> float:
    """Return the difference of two means of labels in standard errors over clusters of rows; 0 for too few rows.

    The standard error is that of two draws from all rows together: v (1/n + 1/m), where v is the mean over all rows of
    the clusters' contributions (Σ_{i∈c} (yᵢ − ȳ))². The error is pooled, because a few rows that happen to have the
    same label would give a far too small error of their own.
    *Shape:* labels: (n,), others: (m,)
    """
    n, m = len(labels), len(others)
    if min(n, m) < _LEAST_ROWS:
        return 0.0
    mean = float((labels.sum(dtype=np.float64) + others.sum(dtype=np.float64)) / (n + m))
    squares = _cluster_squares(labels - mean, clusters) + _cluster_squares(others - mean, other_clusters)
    error = np.sqrt(squares / (n + m) * (1 / n + 1 / m))
    difference = abs(float(labels.mean()) - float(others.mean()))
    return 0.0 if difference < 1e-6 else difference / max(float(error), 1e-6)


def beyond_chance(shift: float) -> bool:
    """Return whether a result of `label_shift` is larger than chance explains."""
    return shift > _BEYOND_CHANCE


def _cluster_squares(residuals: np.ndarray, clusters: Iterable[str]) -> float:
    sums = np.bincount(numbered(clusters, {}), weights=residuals.astype(np.float64))
    return float((sums**2).sum())
