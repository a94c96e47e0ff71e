"""What everything that scores pairs has in common, be it a model, a baseline or a cascade of two."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from distill.progress import OnProgress

__all__ = ["SCORER_FILE", "PairScorer"]

SCORER_FILE = "scorer.json"
"""What says of a folder how it scores, where it is no model folder of sentence-transformers."""


class PairScorer(Protocol):
    """What the benchmark needs of anything that scores pairs."""

    @property
    def kind(self) -> str:
        """Such as "bi_encoder" or "tfidf"."""

    @property
    def runtime(self) -> str:
        """What computes, such as "torch"."""

    @property
    def precision(self) -> str:
        """What it computes in, such as "int8"."""

    @property
    def max_length(self) -> int | None:
        """Tokens of a text or pair; None: all of them."""

    @property
    def n_parameters(self) -> int:
        """Numbers that were learned."""

    def score(
        self, queries: Sequence[str], documents: Sequence[str], *, progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Score pairs. *Shape:* (n_pairs,), float32 or float64."""

    def unit(self, scores: np.ndarray) -> np.ndarray:
        """Map scores onto [0, 1]. *Shape:* that of scores, float32."""

    def token_counts(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Tokens that are read of each pair. *Shape:* (n_pairs,)."""
