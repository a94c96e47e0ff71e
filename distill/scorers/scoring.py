"""The common interface of all scorers of pairs: models, baselines and cascades."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from distill.progress import OnProgress

__all__ = ["SCORER_FILE", "PairScorer"]

SCORER_FILE = "scorer.json"
"""The file that describes a scorer whose folder is not a model folder of sentence-transformers."""


class PairScorer(Protocol):
    """The interface that the benchmark needs from a scorer of pairs."""

    @property
    def kind(self) -> str:
        """Such as "bi_encoder" or "tfidf"."""

    @property
    def runtime(self) -> str:
        """The runtime, such as "torch"."""

    @property
    def precision(self) -> str:
        """The precision, such as "int8"."""

    @property
    def max_length(self) -> int | None:
        """The most tokens of a text or pair; None is no limit."""

    @property
    def n_parameters(self) -> int:
        """The number of learned parameters."""

    def score(
        self, queries: Sequence[str], documents: Sequence[str], *, progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Score pairs. *Shape:* (n_pairs,), float32 or float64."""

    def unit(self, scores: np.ndarray) -> np.ndarray:
        """Map scores onto [0, 1]. *Shape:* that of scores, float32."""

    def token_counts(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Tokens that are read of each pair. *Shape:* (n_pairs,)."""
