"""Get embeddings from an OpenAI-compatible endpoint and keep them on disk, so that each text is paid for once.

Vectors are stored by the text's hash in append-only shards, in a folder per model and dimensions. After an invalid
answer the request is repeated, up to three attempts in all.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from distill.endpoints.answers import TRIES, BadAnswer, asked_again
from distill.endpoints.budget import Budget
from distill.endpoints.tokens import cut_to_tokens, estimated_tokens
from distill.errors import BadInput
from distill.progress import OnProgress
from distill.recipe.endpoint import Endpoint
from distill.scorers.answer_store import AnswerStore
from distill.wording import counted, in_dollars

__all__ = ["EmbeddingBatch", "RemoteEmbeddings"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddingBatch:
    """The limits of one request."""

    texts: int = 256
    tokens: int = 100_000
    """Estimated tokens; a longer text has a request of its own."""


class RemoteEmbeddings:
    """An encoder behind an endpoint, with every vector kept on disk, so that each text is paid for once.

    `cost` is the dollars that this object has spent, `n_requests` counts its requests, `n_truncated` the truncated
    texts.

    :param cache: a folder that keeps models and dimensions apart; any number of processes may share it
    :param dimensions: the width to request; None is the server's default
    :param max_tokens: longer texts are truncated; the estimate of tokens is rather too high than too low
    """

    def __init__(
        self,
        endpoint: Endpoint,
        cache: Path,
        *,
        dimensions: int | None = None,
        batch: EmbeddingBatch | None = None,
        max_tokens: int = 8191,
        budget: Budget | None = None,
    ) -> None:
        self.endpoint, self.dimensions = endpoint, dimensions
        self.batch, self.max_tokens = batch or EmbeddingBatch(), max_tokens
        self.n_requests = self.n_truncated = 0
        self._budget = budget or Budget(None)
        self._spent_before = self._budget.spent
        self._store = AnswerStore(cache, {"model": endpoint.model, "dimensions": dimensions})
        endpoint.price  # noqa: B018  # raises at once if the price is unknown

    @property
    def cost(self) -> float:
        """Dollars spent so far."""
        return self._budget.spent - self._spent_before

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that would be sent: each once, truncated if too long, without those in the cache."""
        return [text for text in dict.fromkeys(map(self._truncated, texts)) if text not in self._store]

    def encode(self, texts: Sequence[str], *, on_progress: OnProgress | None = None) -> np.ndarray:
        """Return the vectors of texts; request only those that are not in the cache.

        *Shape:* (n_texts, width), float32

        :param on_progress: called with the number of texts done since its last call

        :raises BadInput: if a text is empty, which servers refuse
        :raises BadAnswer: if the server gives no valid vector of some texts; all others are kept
        """
        if empty := [i for i, text in enumerate(texts) if not text.strip()]:
            raise BadInput(
                f"{len(empty)} of {len(texts)} texts are empty (first: number {empty[0] + 1}); leave them out"
            )
        sent_texts = [self._truncated(text) for text in texts]
        if n_cut := sum(a != b for a, b in zip(texts, sent_texts, strict=True)):
            self.n_truncated += n_cut
            log.warning(
                "%d of %d texts were cut to about %d tokens for %s",
                n_cut,
                len(texts),
                self.max_tokens,
                self.endpoint.model,
            )
        missing = [text for text in dict.fromkeys(sent_texts) if text not in self._store]
        report = on_progress or (lambda _: None)
        report(len(texts) - len(missing))
        if missing:
            asyncio.run(self._ask(missing, report))
        log.info(
            "%s: %s, %d asked, %s so far",
            self.endpoint.model,
            counted(len(texts), "text"),
            len(missing),
            in_dollars(self.cost),
        )
        return self._store.gather(sent_texts)

    async def _ask(self, texts: Sequence[str], report: OnProgress) -> None:
        from distill.endpoints.client import Client, run_all  # imported here because only requests need openai

        failed: list[tuple[str, str]] = []
        async with Client(self.endpoint, self._budget) as client:
            batches = self._batches(texts)

            async def embed(batch: list[str]) -> None:
                self._store.add(batch, await client.embed(batch, dimensions=self.dimensions))

            async def work() -> None:
                for batch in batches:  # a shared iterator: each worker takes the next batch
                    try:
                        await asked_again(partial(embed, batch))
                    except BadAnswer as problem:
                        failed.extend((text, str(problem)) for text in batch)
                        continue
                    report(len(batch))

            try:
                await run_all(work() for _ in range(self.endpoint.concurrency))
            finally:
                self.n_requests += client.n_requests
                self._store.close()
        if failed:
            text, reason = failed[0]
            raise BadAnswer(
                f"{self.endpoint.model} at {self.endpoint.host}: no embedding of {len(failed):,} of {len(texts):,} texts after "
                f"{TRIES} attempts each (first: {reason}; text {text[:60]!r}); what it embedded is kept and not asked again"
            )

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        n_tokens = 0
        for text in texts:
            n = estimated_tokens(text)
            if batch and (len(batch) == self.batch.texts or n_tokens + n > self.batch.tokens):
                yield batch
                batch, n_tokens = [], 0
            batch.append(text)
            n_tokens += n
        if batch:
            yield batch

    def _truncated(self, text: str) -> str:
        """Return the longest prefix that is estimated to fit."""
        return cut_to_tokens(text, self.max_tokens)
