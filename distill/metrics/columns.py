"""The columns that a metric may need, checked, with one entry per pair."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.errors import BadInput

__all__ = ["POSITIVE", "FloatArray", "IntArray", "ScoredColumns", "Statistic", "query_numbers"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
Statistic = Callable[[FloatArray], FloatArray]  # weights (pairs, resamples) -> values (resamples,), NaN: undefined

POSITIVE = 0.5  # labels at or above this are positive
_UNIT_SLACK = 0.01  # a cosine computed in bf16 may leave [-1, 1] by a rounding error


@dataclass(frozen=True)
class ScoredColumns:
    """Checked columns with one entry per pair."""

    scores: FloatArray
    labels: FloatArray | None
    queries: IntArray | None  # numbered from 0
    teacher_scores: FloatArray | None
    unit_scores: FloatArray | None
    clusters: IntArray | None  # numbered from 0; pairs of one cluster are drawn together

    @classmethod
    def checked(
        cls,
        scores: Any,
        labels: Any = None,
        query_ids: Any = None,
        teacher_scores: Any = None,
        unit_scores: Any = None,
        clusters: Any = None,
    ) -> "ScoredColumns":
        """Check the columns and convert them to arrays; without clusters, queries are the clusters.

        :raises BadInput: if a column has another length, values that are not finite, or values out of its range
        """
        n = len(scores)
        if n == 0:
            raise BadInput("scores: there are no pairs to evaluate")
        for name, ids in (("query_ids", query_ids), ("clusters", clusters)):
            if ids is not None and len(ids) != n:
                raise BadInput(f"{name}: {len(ids)} entries for {n} scores; give one id a pair")
        cluster_ids = query_ids if clusters is None else clusters
        return cls(
            scores=_column("scores", scores, n),
            labels=None if labels is None else _column("labels", labels, n, slack=0.0),
            queries=None if query_ids is None else query_numbers(query_ids),
            teacher_scores=None if teacher_scores is None else _column("teacher_scores", teacher_scores, n),
            unit_scores=None if unit_scores is None else _column("unit_scores", unit_scores, n, slack=_UNIT_SLACK),
            clusters=None if cluster_ids is None else query_numbers(cluster_ids),
        )


def _column(name: str, values: Any, n: int, slack: float | None = None) -> FloatArray:
    """Return a float64 column of n finite values. With `slack`, they must be in [0, 1], plus or minus the slack."""
    column = np.asarray(values, dtype=np.float64)
    if column.shape != (n,):
        raise BadInput(f"{name}: shape {column.shape} where {(n,)} is expected; give one number a pair")
    broken = np.flatnonzero(~np.isfinite(column))
    if len(broken):
        first = f"{column[broken[0]]} at position {broken[0]}"
        raise BadInput(
            f"{name}: {len(broken)} of {n} values are not finite ({first}); a model that overflows does this"
        )
    if slack is not None and (column.min() < -slack or column.max() > 1 + slack):
        raise BadInput(f"{name}: values from {column.min():g} to {column.max():g}; map them to [0, 1] first")
    return column


def query_numbers(query_ids: Any) -> IntArray:
    """Return a number from 0 for each distinct id. Ids are compared as text, so that 7 and "7" are one query."""
    names = [str(query) for query in query_ids]
    # not numpy's own texts: each is as long as the longest, and they drop NULs at the end
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.array([numbers[name] for name in names], dtype=np.intp)
