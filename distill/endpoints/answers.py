"""Read and check the answers of an endpoint; this module does not need the client packages."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from distill.errors import BadInput, JobFailed
from distill.files.trust import without_booleans
from distill.recipe.endpoint import Usage
from distill.wording import counted

__all__ = [
    "TRIES",
    "Answer",
    "BadAnswer",
    "JsonObject",
    "Message",
    "asked_again",
    "rerank_scores_in",
    "usage_in",
    "vectors_in",
]

TRIES = 3
"""How often an answer is asked for that comes back invalid."""
_Result = TypeVar("_Result")

JsonObject = dict[str, Any]
"""A JSON object that was received or will be sent."""
Message = Mapping[str, str]


class BadAnswer(JobFailed):
    """The server's answer is not what was requested; a repeated request may help."""


@dataclass(frozen=True)
class Answer:
    """A model's answer; `refusal` is its message if it refuses, and `finish_reason` is why it stopped."""

    text: str
    finish_reason: str
    refusal: str | None
    usage: Usage


async def asked_again(request: Callable[[], Awaitable[_Result]]) -> _Result:
    """Return what a request gives; after an invalid answer it is sent again, up to three times in all.

    :raises BadAnswer: if the last answer is invalid, too
    """
    for _ in range(TRIES - 1):
        with suppress(BadAnswer):
            return await request()
    return await request()


def usage_in(response: JsonObject) -> Usage | None:
    """Return the token counts of a response; None if they are missing or invalid."""
    try:
        counts = response["usage"]  # rerankers state only total_tokens
        n_prompt = counts["prompt_tokens"] if "prompt_tokens" in counts else counts["total_tokens"]
        usage = Usage(int(n_prompt), int(counts.get("completion_tokens") or 0))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    return usage if min(usage) >= 0 else None


def vectors_in(response: JsonObject, n_texts: int, dimensions: int | None) -> np.ndarray:
    """Return the vectors of a response, in the order of their texts. *Shape:* (n_texts, width), float32.

    :raises BadAnswer: if the number of vectors or a width is wrong, a value is not finite, or a vector is all zeros
    :raises BadInput: if embeddings have no `index`: their order would be a guess
    """
    try:
        if any(isinstance(entry, dict) and "embedding" in entry and "index" not in entry for entry in response["data"]):
            raise BadInput("its embeddings have no index, which is required: without it nobody knows their texts")
        if any(None in entry["embedding"] for entry in response["data"]):
            raise BadAnswer("an embedding holds null where a number is wanted")
        entries = sorted(response["data"], key=lambda entry: int(entry["index"]))
        rows = [np.asarray(without_booleans(entry["embedding"]), dtype=np.float32) for entry in entries]
        indices = [int(entry["index"]) for entry in entries]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise BadAnswer("the response holds no list of embeddings with their index") from None
    if indices != list(range(n_texts)):
        raise BadAnswer(
            f"{counted(n_texts, 'text')} sent and {counted(len(rows), 'embedding')} came back, or their index is not 0 to {n_texts - 1}"
        )
    if any(row.ndim != 1 or row.size == 0 for row in rows):
        raise BadAnswer("an embedding is empty or no list of numbers")
    if len(widths := sorted({row.size for row in rows})) > 1:
        raise BadAnswer(f"the embeddings have no common width: from {widths[0]} to {widths[-1]} numbers")
    if dimensions is not None and rows[0].size != dimensions:
        raise BadAnswer(f"{dimensions} dimensions were asked for and {rows[0].size} came")
    vectors = np.stack(rows)
    if not np.isfinite(vectors).all():
        raise BadAnswer("the server's embeddings hold NaN or infinity")
    if not vectors.any(axis=1).all():
        raise BadAnswer("the server's embeddings hold a vector of zeros, which has no direction")
    return vectors


def rerank_scores_in(response: JsonObject, n_documents: int) -> np.ndarray:
    """Return the scores of a rerank response, in the order of the documents. *Shape:* (n_documents,), float64.

    Jina, Cohere and vLLM send `{"results": [{"index", "relevance_score"}]}`. text-embeddings-inference sends
    `[{"index", "score"}]`, which the client also passes as `{"results": …}`.

    :raises BadAnswer: if the number of scores is wrong, or a value is not a finite number
    """
    try:
        entries = sorted(response["results"], key=lambda entry: int(entry["index"]))
        indices = [int(entry["index"]) for entry in entries]
        values = [entry["relevance_score"] if "relevance_score" in entry else entry["score"] for entry in entries]
        scores = np.array([float(score) for score in without_booleans(values)])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise BadAnswer("the response holds no list of results with index and relevance_score") from None
    if indices != list(range(n_documents)):
        raise BadAnswer(
            f"{counted(n_documents, 'document')} sent and {counted(len(indices), 'score')} came back, or their index is not "
            f"0 to {n_documents - 1}"
        )
    if not np.isfinite(scores).all():
        raise BadAnswer("the server's scores hold NaN or infinity")
    return scores
