"""Get a server's answers to texts or pairs, each once: an estimate first, one answer as a test, the cost at the end.

    signals/<name>/answers/          vectors or scores by the hash of the request (`distill.scorers.answer_store`)
    signals/<name>/spending.jsonl    each hold and settlement of the budget; the file survives a kill

If the recipe names a cache folder, the answers are in that folder instead.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.endpoints.ledger import JsonLines, budget_of
from distill.endpoints.tokens import estimated_tokens
from distill.errors import BadInput, JobFailed
from distill.progress import OnProgress
from distill.recipe.black_box import EndpointTeacher
from distill.recipe.endpoint import Usage
from distill.scorers.file_answers import to_scale
from distill.scorers.file_rows import Item
from distill.scorers.remote_embeddings import EmbeddingBatch, RemoteEmbeddings
from distill.scorers.remote_scores import RemoteScores, grading_messages
from distill.wording import counted, in_dollars

__all__ = ["EndpointAnswers"]

log = logging.getLogger(__name__)
_SPENDING = "spending.jsonl"
_GRADE_TOKENS = 20  # of an answer with only a grade
_LEAST_GRADE = 0.01  # grades 0 and 4 become 0.01 and 0.99, which have a logit; five grades are no more exact


class EndpointAnswers:
    """The answers of an endpoint, with stored answers of earlier runs.

    :param folder: the folder of the answers and of the ledger of their cost
    :param may_ask: False sends no request
    """

    def __init__(self, name: str, settings: EndpointTeacher, folder: Path, *, may_ask: bool = True) -> None:
        self.name, self.settings, self.folder, self.may_ask = name, settings, folder, may_ask
        self._spending = JsonLines(folder / _SPENDING, dollars=int | float)
        self.budget = budget_of(self._spending, settings.budget)
        cache = Path(settings.cache) if settings.cache else folder / "answers"
        self._source: RemoteEmbeddings | RemoteScores
        if settings.asks == "embeddings":
            self._source = RemoteEmbeddings(
                settings.endpoint,
                cache,
                dimensions=settings.dimensions,
                batch=EmbeddingBatch(settings.batch_size),
                max_tokens=settings.max_tokens,
                budget=self.budget,
            )
        else:
            self._source = RemoteScores(settings, cache, self.budget)

    def ask(self, items: Sequence[Item], roles: Sequence[int], progress: OnProgress) -> np.ndarray:
        """Return the answers; request those that are not stored.

        :raises BadInput: if the server refuses, or answers are missing and no request may be sent
        :raises JobFailed: if the server fails, or the budget is used up
        """
        if not self.may_ask and (missing := self.missing(items, roles)):
            raise BadInput(f"{len(missing):,} of {len(items):,} were never asked")
        if self.may_ask:
            self.folder.mkdir(parents=True, exist_ok=True)
        try:
            if isinstance(self._source, RemoteEmbeddings):
                return self._source.encode(self._prompted(items, roles), on_progress=progress)
            scores = self._source.score(self._pairs(items), on_progress=progress)
        except JobFailed as problem:
            raise type(problem)(f"teacher {self.name}: {problem}") from None
        except BadInput as problem:
            raise BadInput(f"teacher {self.name}: {problem}") from None
        finally:
            self._spending.close()
        least = {"least": _LEAST_GRADE} if self.settings.asks == "chat" else {}
        return to_scale(f"teacher {self.name}: {self.settings.endpoint.model}", self.settings, scores, **least)

    def missing(self, items: Sequence[Item], roles: Sequence[int]) -> list[Any]:
        """Return what would be sent: texts with their prompts, or pairs."""
        if isinstance(self._source, RemoteEmbeddings):
            return self._source.missing(self._prompted(items, roles))
        return self._source.missing(self._pairs(items))

    def check(self, items: Sequence[Item], roles: Sequence[int]) -> None:
        """Check before training that the teacher can be asked; request and store the first missing answer.

        :raises BadInput: if there is no key or no price, or the estimate exceeds the budget
        """
        missing, endpoint = self.missing(items, roles), self.settings.endpoint
        price, spent = endpoint.price, self.budget.spent
        where = f"teacher {self.name}"
        if not missing:
            log.info(
                "%s: all %d answers of %s are cached, nothing is sent; %s spent",
                where,
                len(items),
                endpoint.model,
                in_dollars(spent),
            )
            return
        endpoint.key()
        dollars = price.of(self._usage(missing))
        what = counted(len(missing), "text" if self.settings.signal == "embeddings" else "pair")
        estimate = f"{what} {'goes' if len(missing) == 1 else 'go'} to {endpoint.model} at {endpoint.host}, estimated at {in_dollars(dollars)}"
        log.info("%s: %s (%d are kept, %s spent)", where, estimate, len(items) - len(missing), in_dollars(spent))
        limit = self.settings.budget
        if limit is not None and dollars + spent > limit:
            raise BadInput(
                f"{where}: {estimate}, with {in_dollars(spent)} spent already; that is more than its budget of {in_dollars(limit)}: raise budget, "
                "or set data.max_pairs"
            )
        first = next(
            number
            for number in range(len(items))
            if self.missing(items[number : number + 1], roles[number : number + 1])
        )
        self.ask(items[first : first + 1], roles[first : first + 1], lambda _: None)

    def cost(self) -> dict[str, Any]:
        """Return the teacher's cost for this run, {"dollars", "requests"}; killed requests count in full."""
        n_requests = sum("hold" in change for change in self._spending.records)
        return {"dollars": self.budget.spent, "requests": n_requests}

    def _usage(self, missing: Sequence[Any]) -> Usage:
        if self.settings.asks == "embeddings":
            return Usage(sum(estimated_tokens(text) for text in missing))
        if self.settings.asks == "rerank":
            return Usage(sum(estimated_tokens(text) for pair in missing for text in pair))
        instruction = sum(estimated_tokens(message["content"]) for message in grading_messages(self.settings, "", ""))
        tokens = sum(estimated_tokens(text) for pair in missing for text in pair) + instruction * len(missing)
        return Usage(tokens, _GRADE_TOKENS * len(missing))

    def _prompted(self, items: Sequence[Item], roles: Sequence[int]) -> list[str]:
        prompts = self.settings.prompts or ("", "")
        return [f"{prompts[role]}{item}" for item, role in zip(items, roles, strict=True)]

    def _pairs(self, items: Sequence[Item]) -> list[tuple[str, str]]:
        return [(item[0], item[1]) for item in items]
