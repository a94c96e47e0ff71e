"""The interface of everything that scores pairs: a model, a baseline or a cascade."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from distill.errors import JobFailed
from distill.progress import OnProgress
from distill.wording import counted

__all__ = ["SCORER_FILE", "PairScorer", "check_numbers"]

SCORER_FILE = "scorer.json"
"""The file that describes the scorer in a folder that is not a sentence-transformers model folder."""


class PairScorer(Protocol):
    """The interface that the benchmark needs of a scorer of pairs."""

    @property
    def kind(self) -> str:
        """The kind, such as "bi_encoder" or "tfidf"."""

    @property
    def runtime(self) -> str:
        """The runtime, such as "torch"."""

    @property
    def precision(self) -> str:
        """The precision, such as "int8"."""

    @property
    def max_length(self) -> int | None:
        """Maximum number of tokens of a text or pair; None is no limit."""

    @property
    def n_parameters(self) -> int:
        """Number of learned parameters."""

    def score(
        self, queries: Sequence[str], documents: Sequence[str], *, progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Return the score of each pair. *Shape:* (n_pairs,), float32 or float64."""

    def unit(self, scores: np.ndarray) -> np.ndarray:
        """Map scores to [0, 1]. *Shape:* that of scores, float32."""

    def token_counts(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each pair that are read. *Shape:* (n_pairs,)."""


def check_numbers(model: Path, values: np.ndarray) -> np.ndarray:
    """Return a model's scores or embeddings unchanged.

    :raises JobFailed: if one is NaN or infinite, because it would be written and used like any other number
    """
    n_wrong = int((~np.isfinite(values)).sum())
    if n_wrong:
        raise JobFailed(
            f"{model} says NaN or infinity of {counted(n_wrong, 'number')}; set --precision fp32, or take another model"
        )
    return values
