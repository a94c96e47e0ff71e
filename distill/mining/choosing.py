"""Which candidates count as answers and are left out, and which of the others are drawn."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.errors import BadInput

__all__ = ["FalseNegatives", "RankStratum", "draw_candidates", "read_strata"]


@dataclass(frozen=True)
class FalseNegatives:
    """Limits on the teacher's score from which a candidate counts as an unlabelled answer and is left out.

    Scores are in [0, 1]: the sigmoid of a logit, or (cosine + 1)/2. If several limits are set, the lowest applies.

    :param margin: limit = the score of the query's own positive − margin (the lowest score, if it has several
        positives)
    :param relative_margin: limit = that score × (1 − relative_margin) (NV-Retriever, Moreira et al. 2024)
    :param max_score: limit = this score, for every query
    :param percentile: limit = this percentile, in [0, 100], of the scores of all positives
    """

    margin: float | None = None
    relative_margin: float | None = None
    max_score: float | None = None
    percentile: float | None = None

    @property
    def is_set(self) -> bool:
        """Whether any limit is set."""
        return any(value is not None for value in vars(self).values())

    def limits(self, positives: np.ndarray) -> np.ndarray:
        """Return each query's limit: inf if none is set, −inf if the limits that are set do not apply to this query.

        A margin does not apply to a query without a positive: without a limit, even its best candidate would count as a
        negative.

        *Shape:* positives: (n_queries,) the lowest score of a query's positives, NaN if it has none → (n_queries,)

        >>> FalseNegatives(margin=0.1, max_score=0.75).limits(np.array([0.9, 0.8, np.nan])).round(2).tolist()
        [0.75, 0.7, 0.75]
        """
        found = [np.full(len(positives), np.inf)]
        if self.margin is not None:
            found.append(np.nan_to_num(positives - self.margin, nan=np.inf))
        if self.relative_margin is not None:
            found.append(np.nan_to_num(positives * (1 - self.relative_margin), nan=np.inf))
        if self.max_score is not None:
            found.append(np.full(len(positives), self.max_score))
        known_scores = positives[~np.isnan(positives)]
        if self.percentile is not None and len(known_scores):
            found.append(np.full(len(positives), np.percentile(known_scores, self.percentile)))
        limits: np.ndarray = np.min(found, axis=0)
        return np.where(np.isinf(limits) & self.is_set, -np.inf, limits)

    def taken_for_answers(self, scores: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """Return which candidates are left out, because they score as high as the limit of their query or higher.

        *Shape:* scores: (n_queries, n_candidates), NaN is not judged; limits: (n_queries,) of `limits` → as scores, bool
        """
        with np.errstate(invalid="ignore"):
            taken: np.ndarray = (scores >= limits[:, None]) & ~np.isneginf(limits)[:, None]
        return taken


@dataclass(frozen=True)
class RankStratum:
    """A number of candidates to draw from a range of ranks, counted from 1; all of them if there are fewer."""

    first: int
    last: int
    number: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}:{self.number}"


def read_strata(text: str) -> tuple[RankStratum, ...]:
    """Read strata such as "1-10:4,11-100:4": 4 of the ranks 1 to 10, and 4 of 11 to 100.

    >>> [str(stratum) for stratum in read_strata("1-10:4, 11-100:4")]
    ['1-10:4', '11-100:4']

    :raises BadInput: if the text is no such list, or a rank is in two strata
    """
    strata = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,7})-(\d{1,7}):(\d{1,7})\s*", part)
        if match is None or not 1 <= int(match[1]) <= int(match[2]) or int(match[3]) < 1:
            raise BadInput(f"strata {part.strip()!r}; ranks and a number are expected, such as 1-10:4,11-100:4")
        strata.append(RankStratum(int(match[1]), int(match[2]), int(match[3])))
    strata.sort(key=lambda stratum: stratum.first)
    for stratum, following in itertools.pairwise(strata):
        if following.first <= stratum.last:
            raise BadInput(f"strata {stratum} and {following} share a rank; let each begin behind the one before")
    return tuple(strata)


def draw_candidates(allowed: np.ndarray, strata: Sequence[RankStratum], seed: int) -> np.ndarray:
    """Draw candidates of each query, at random within each stratum; ranks count the candidates that were left out too.

    *Shape:* allowed: (n_queries, depth) bool, in the order of the ranks → same shape, True if drawn

    >>> draw_candidates(np.array([[False, True, True, True]]), [RankStratum(1, 2, 5), RankStratum(3, 4, 1)], seed=0).sum(axis=1)
    array([2])
    """
    drawn = np.zeros_like(allowed)
    random = np.random.default_rng(seed).random(allowed.shape)
    for stratum in strata:
        part = slice(stratum.first - 1, stratum.last)
        order = np.where(allowed[:, part], random[:, part], np.inf)
        chosen = np.argsort(order, axis=1, kind="stable")[:, : stratum.number]
        chosen_mask = np.zeros_like(allowed[:, part])
        np.put_along_axis(chosen_mask, chosen, True, axis=1)
        drawn[:, part] = chosen_mask & allowed[:, part]
    return drawn
