"""Embeddings and scores of models during mining, stored on disk, so that a killed run only computes the rest."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np

from distill.files.artefact import revision
from distill.models.prompts import folder_prompts
from distill.progress import progress
from distill.runtime.scorer import PairedScorer, Scorer
from distill.runtime.vectors import row_cosines
from distill.scorers.scoring import check_numbers
from distill.signals import Identity, SignalCache, pair_keys, text_keys

__all__ = ["CachedScorer"]

_AT_ONCE = 2048  # texts or pairs per shard: the most that a kill can lose


class CachedScorer:
    """A model whose embeddings and scores are stored in shards on disk, under everything that determines them.

    :param folder: the folder of the shards; several models share it
    """

    def __init__(self, scorer: Scorer, folder: Path) -> None:
        self.scorer = scorer
        prompts = folder_prompts(scorer.path)
        self._cache = SignalCache(
            folder,
            Identity(
                revision=revision(scorer.path),
                kind=scorer.kind,
                max_length=scorer.max_length or 0,
                prompts=prompts,
                runtime=str(scorer.runtime),
                precision=cast(Literal["bf16", "fp32"], scorer.precision),
            ),
        )
        # what stands before a text in its key: two models of one folder give a text two embeddings, without a prompt, too
        sides = ("query\0", "document\0") if isinstance(scorer, PairedScorer) else ("", "")
        self._prefixes = (f"{sides[0]}{prompts[0]}", f"{sides[1]}{prompts[1]}")

    @property
    def name(self) -> str:
        """The model's name in settings and messages: its folder, its revision and how it computes."""
        identity = self._cache.identity
        computes = f"{identity.runtime} {identity.precision}, max_length {identity.max_length}"
        return f"{self.scorer.path} ({identity.revision}, {computes})"

    def embeddings(self, queries: Sequence[str], documents: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the embeddings of queries and of documents. *Shape:* (n, width) float32 each."""
        return (
            self._embedded(queries, self._prefixes[0], self.scorer.encode_queries, "queries"),
            self._embedded(documents, self._prefixes[1], self.scorer.encode_documents, "documents"),
        )

    def scores(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return the score of each pair in [0, 1]. *Shape:* (n_pairs,) float32."""
        if self.scorer.kind == "bi_encoder":
            distinct_queries, distinct_documents = list(dict.fromkeys(queries)), list(dict.fromkeys(documents))
            query_vectors, document_vectors = self.embeddings(distinct_queries, distinct_documents)
            row_of, column_of = (
                {text: row for row, text in enumerate(texts)} for texts in (distinct_queries, distinct_documents)
            )
            rows = np.array([row_of[text] for text in queries], dtype=np.int64)
            columns = np.array([column_of[text] for text in documents], dtype=np.int64)
            return self.scorer.unit(row_cosines(query_vectors, rows, document_vectors, columns))

        def compute(rows: np.ndarray) -> np.ndarray:
            return self.scorer.score([queries[row] for row in rows], [documents[row] for row in rows])

        return self.scorer.unit(self._kept("scores", pair_keys(queries, documents), compute, "pairs")[:, 0])

    def _embedded(
        self, texts: Sequence[str], prefix: str, encode: Callable[[list[str]], np.ndarray], what: str
    ) -> np.ndarray:
        return self._kept(
            "embeddings", text_keys(texts, prefix), lambda rows: encode([texts[row] for row in rows]), what
        )

    def _kept(
        self,
        kind: Literal["scores", "embeddings"],
        keys: np.ndarray,
        compute: Callable[[np.ndarray], np.ndarray],
        what: str,
    ) -> np.ndarray:
        """Return the values of all keys, and compute those that no shard has. *Shape:* (n, width) or (n, 1)."""
        if not len(keys):
            return np.zeros((0, 1), dtype=np.float32)
        missing = self._cache.missing(kind, keys)
        with progress(f"{self.scorer.path.name}: {what}", len(keys), start=len(keys) - len(missing)) as report:
            for part in _parts(len(missing), _AT_ONCE):
                rows = missing[part]
                self._cache.write(kind, keys[rows], check_numbers(self.scorer.path, compute(rows)))
                report(len(rows))
        self._cache.refresh()
        values = self._cache.read(kind, self._cache.find(kind, keys, what))
        return values.reshape(len(keys), -1)


def _parts(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
