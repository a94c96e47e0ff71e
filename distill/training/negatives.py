"""Which documents of a step are no negatives of a query: InfoNCE must not push its own answers away."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from distill.training.losses import false_negatives

__all__ = ["GuideVectors", "Negatives"]


@dataclass(frozen=True)
class GuideVectors:
    """A teacher that tells false negatives, see `losses.false_negatives`.

    :param embeddings: gives its embeddings of sequences. *Shape:* (n,) → (n, teacher_width)
    """

    embeddings: Callable[[np.ndarray], np.ndarray]
    margin: float = 0.0
    strategy: Literal["absolute", "relative"] = "absolute"

    def false_negatives(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Tell which documents it takes for answers, too. *Shape:* sequences, (n_pairs,) each → (n_pairs, n_pairs) bool."""
        query_vectors, document_vectors = (
            torch.nn.functional.normalize(torch.from_numpy(self.embeddings(rows)).float(), dim=-1)
            for rows in (queries, documents)
        )
        found: np.ndarray = false_negatives(query_vectors, document_vectors, self.margin, self.strategy).numpy()
        return found


class Negatives:
    """Which documents answer which queries in all training pairs, looked up for the pairs of a step.

    :param query_rows: the sequence of each pair's query. *Shape:* (n_pairs,), as of documents and labels
    :param positive_from: the least label of an answer
    :param guide: a teacher that says more
    :param text_numbers: the number of each sequence's text, because a text has two sequences where sides have prompts;
        None takes the sequence's own number. *Shape:* (n_sequences,)
    """

    def __init__(
        self,
        query_rows: np.ndarray,
        document_rows: np.ndarray,
        labels: np.ndarray | None,
        guide: GuideVectors | None = None,
        *,
        positive_from: float = 0.5,
        text_numbers: np.ndarray | None = None,
    ) -> None:
        self.query_rows, self.document_rows, self.guide = query_rows, document_rows, guide
        self.text_numbers = text_numbers
        positive = np.zeros(len(query_rows), dtype=bool) if labels is None else labels >= positive_from
        order = np.argsort(query_rows[positive], kind="stable")
        self._queries = query_rows[positive][order]
        self._answers = document_rows[positive][order]

    def excluded(self, pairs: np.ndarray) -> np.ndarray:
        """Tell which documents of these pairs are no negatives of their queries; its own document always is among them.

        They are the same text, the query's own text, an answer to the same query anywhere in the training pairs, or a false
        negative to the guide.

        *Shape:* (n_pairs,) → (n_pairs, n_pairs) bool
        """
        queries, documents = self.query_rows[pairs], self.document_rows[pairs]
        excluded: np.ndarray = documents[:, None] == documents[None, :]
        query_texts, document_texts = (
            rows if self.text_numbers is None else self.text_numbers[rows] for rows in (queries, documents)
        )
        excluded |= query_texts[:, None] == document_texts[None, :]
        for query in np.unique(queries):
            is_answer = np.isin(documents, self._answers_to(query))
            excluded[queries == query] |= is_answer
        if self.guide is not None and len(pairs):
            excluded |= self.guide.false_negatives(queries, documents)
        return excluded

    def _answers_to(self, query: int) -> np.ndarray:
        first, after = np.searchsorted(self._queries, [query, query + 1])
        return self._answers[first:after]
