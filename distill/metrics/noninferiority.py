"""Test whether one model is as good as another, within a margin, with a correction for multiple tests.

    equals    H₀: difference ≤ −margin   p small: worse by less than the margin (non-inferiority)
    beats     H₀: difference ≤ 0         p small: better (superiority)

An interval that includes 0 does not show equality, because with few pairs every interval includes 0. Instead a margin
is set beforehand, and the lower end of the interval must be above −margin. p is the share of bootstrap resamples at or
below the bound, so that p ≤ 0.025 agrees with the 95 % percentile interval. Several such tests are corrected after Holm
(1979). The correction keeps the chance of at least one false claim at the level, however the tests depend on each
other.

Non-inferiority: Piaggio et al. 2012, JAMA 308:2594. Resampled p with the +1: Davison & Hinkley 1997, 4.2.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.metrics.measures import Estimate

__all__ = ["LEVEL", "MIN_RESAMPLES", "Claim", "holm", "judged", "one_sided_p", "pairs_needed"]

LEVEL = 0.025
"""The one-sided level, which is that of the lower end of a 95 % interval."""
MIN_RESAMPLES = 2000
"""Minimum number of resamples. Holm's first step over 10 tests needs p ≤ 0.0025, which 1000 resamples can hardly
resolve."""


@dataclass(frozen=True)
class Claim:
    """The claim that a difference is above a bound: −margin for "equals", 0 for "beats"."""

    difference: Estimate
    samples: np.ndarray
    """The difference on each resample. *Shape:* (n_resamples,)"""
    bound: float


def one_sided_p(samples: np.ndarray, bound: float) -> float:
    """Return p of H₀ "the difference is at most `bound`": (1 + resamples at or below it) / (1 + resamples).

    Undefined resamples count against the claim.

    >>> one_sided_p(np.array([-0.02, 0.0, 0.01, 0.02]), -0.01)  # (1 + 1) / (1 + 4)
    0.4
    """
    above = int((np.asarray(samples) > bound).sum())
    return (1 + len(samples) - above) / (1 + len(samples))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values after Holm's correction: the i-th smallest times (m − i + 1), made monotone, at most 1.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]  # 3 · 0.01, then 2 · 0.03, then 1 · 0.04 raised to 0.06
    [0.03, 0.06, 0.06]
    """
    corrected, so_far = [0.0] * len(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        so_far = max(so_far, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = so_far
    return corrected


def judged(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Test claims together.

    Return for each claim its difference, p, p after Holm's correction, and whether it holds.
    """
    p_values = [one_sided_p(claim.samples, claim.bound) for claim in claims]
    return [
        {**claim.difference.to_dict(), "bound": claim.bound, "p": p, "p_holm": corrected, "holds": corrected <= LEVEL}
        for claim, p, corrected in zip(claims, p_values, holm(p_values), strict=True)
    ]


def pairs_needed(n_pairs: int, half_width: float, margin: float) -> int:
    """Return about how many pairs are needed for an interval with a half-width of the margin.

    The width of an interval decreases with the square root of the number of pairs.

    :param half_width: half of the interval's width on `n_pairs` pairs

    >>> pairs_needed(300, 0.02, 0.01)
    1200
    """
    return math.ceil(n_pairs * (half_width / margin) ** 2)
