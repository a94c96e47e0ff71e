"""Call OpenAI-compatible servers (OpenAI, Azure, vLLM, Ollama) for chat, embeddings and reranking, with limits.

    Endpoint (settings) ─▶ Client: concurrency ─▶ openai: retries ─▶ MeteredClient: rates · budget ─▶ server

`distill.endpoints.metered` describes retries, costs and the handling of the key. A 4xx that cannot succeed later and a
used-up quota fail at once.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import numpy as np
from pydantic import BaseModel

from distill._moved import moved_names
from distill.endpoints.answers import Answer, BadAnswer, JsonObject, Message, rerank_scores_in, usage_in, vectors_in
from distill.endpoints.budget import Budget
from distill.errors import BadInput, JobFailed
from distill.recipe.endpoint import Endpoint, Usage

try:
    import httpx2
    import openai
    from openai.types.chat import ChatCompletion

    from distill.endpoints.metered import LONGEST_WAIT_SECONDS, MeteredClient, Stopped, cause_of, error_in, retry_after
except ModuleNotFoundError as error:
    raise BadInput(
        f"calls of a language-model server need {error.name}; install it with: pip install 'matchdistill[synthesis]'"
    ) from None

__all__ = ["Client", "run_all"]

__getattr__ = moved_names(__name__)

log = logging.getLogger(__name__)
_Response = TypeVar("_Response")

_CONNECT_SECONDS = 10.0
_DAY_SECONDS = 86_400
_HINTS = {
    401: "; check the key in {variable}",
    403: "; the key in {variable} may not use {model!r}",
    404: "; check base_url and the model {model!r}",
}


class _Refused(BadInput):
    """A 4xx: the same request would fail again."""

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Client:
    """A client of one endpoint; use it as `async with Client(endpoint) as client`."""

    def __init__(self, endpoint: Endpoint, budget: Budget | None = None) -> None:
        self.endpoint, self.budget = endpoint, budget or Budget(None)
        self._http = MeteredClient(endpoint, self.budget)
        self.faults = self._http.faults
        self._openai = openai.AsyncOpenAI(
            api_key="added by MeteredClient",
            base_url=endpoint.base_url,
            default_query={"api-version": endpoint.api_version} if endpoint.api_version else None,
            timeout=httpx2.Timeout(endpoint.timeout_s, connect=_CONNECT_SECONDS, pool=None),
            max_retries=endpoint.max_attempts - 1,
            http_client=self._http,
        )
        self._slots = asyncio.Semaphore(endpoint.concurrency)
        self._format: Literal["json_schema", "json_object", "plain"] = "json_schema"
        self._format_is_proven = False
        self._limit_field = "max_tokens"
        self._rerank_form: Literal["documents", "texts"] = "documents"
        self._proven_rerank_form: Literal["documents", "texts"] | None = None

    @property
    def n_requests(self) -> int:
        """How many requests were sent, each attempt counted."""
        return self._http.n_requests

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._openai.close()

    async def chat(
        self, messages: Sequence[Message], schema: type[BaseModel], *, max_tokens: int, temperature: float = 1.0
    ) -> Answer:
        """Request an answer in the form of `schema`; the caller has to check that it has this form.

        If a server refuses `response_format: json_schema` with a 400 or 422, the request is repeated with
        `json_object`, and then without a response format; both put the schema into a system message.

        :raises BadAnswer: if the response holds no answer.
        :raises BudgetSpent: if the request could cost more than what is left.
        :raises JobFailed: if the server fails `max_attempts` times in a row, or the key's quota is used up.
        :raises BadInput: if the server refuses the request.
        """
        while True:
            asked_format, limit = self._format, self._limit_field
            body: JsonObject = {"model": self.endpoint.model, limit: max_tokens, "temperature": temperature}
            body |= _in_format(asked_format, messages, schema)
            try:
                completion = await self._called(self._openai.chat.completions.create(**body))
            except _Refused as refusal:
                if refusal.code == "content_filter":
                    raise BadAnswer("content filter") from None
                if limit == "max_tokens" and "max_completion_tokens" in str(refusal):
                    self._limit_field = "max_completion_tokens"  # OpenAI's reasoning models accept only this name
                    continue
                if refusal.status not in (400, 422) or not self._step_down(asked_format, refusal):
                    raise
            else:
                self._format_is_proven = True
                return _answer_of(completion)

    def _step_down(self, asked_format: str, refusal: _Refused) -> bool:
        """Use a simpler response format from now on; return False if the refusal cannot be about the format."""
        if self._format != asked_format:  # another request has changed the format meanwhile
            return True
        if self._format_is_proven or asked_format == "plain":
            return False
        self._format = "json_object" if asked_format == "json_schema" else "plain"
        log.info("%s; asking again with response format %s", refusal, self._format)
        return True

    async def embed(self, texts: Sequence[str], *, dimensions: int | None = None) -> np.ndarray:
        """Return one vector per text, in order.

        *Shape:* (n_texts, width), float32

        :param dimensions: the width to request; None is the server's default
        :raises BadAnswer: if the number of vectors is wrong, widths differ, or a value is not a finite number.
        :raises BadInput: if the embeddings have no index
        """
        body: JsonObject = {"model": self.endpoint.model, "encoding_format": "float"}
        body["input"] = [text.encode("utf-8", "replace").decode() for text in texts]  # a lone surrogate cannot be sent
        if dimensions is not None:
            body["dimensions"] = dimensions
        # the raw response is used: openai's types take 12 ms per vector of 1,536 numbers, json and numpy 2 ms
        raw = await self._called(self._openai.embeddings.with_raw_response.create(**body))
        try:
            return vectors_in(raw.http_response.extensions["value"], len(texts), dimensions)
        except BadInput as problem:
            raise BadInput(f"{self.endpoint.base_url}: {problem}") from None

    async def rerank(self, query: str, documents: Sequence[str]) -> np.ndarray:
        """Return a score of each document for a query, in order.

        If a server refuses `documents` with a 400 or 422, the request is repeated with `texts`, the field name of
        text-embeddings-inference.

        *Shape:* (n_documents,), float64

        :raises BadAnswer: if the number of scores is wrong, or a value is not a finite number
        """
        query, *documents = (text.encode("utf-8", "replace").decode() for text in (query, *documents))
        while True:
            form = self._rerank_form
            body: JsonObject = {"query": query, "texts": documents, "truncate": True}
            if form == "documents":
                body = {"model": self.endpoint.model, "query": query, "documents": documents}
            try:
                response = await self._called(self._openai.post("/rerank", cast_to=httpx2.Response, body=body))
            except _Refused as refusal:
                # this request may have used the other form while a parallel one proved the current form
                if refusal.status not in (400, 422) or form in ("texts", self._proven_rerank_form):
                    raise
                log.info("%s; asking again with texts, as text-embeddings-inference wants them", refusal)
                self._rerank_form = "texts"
            else:
                self._proven_rerank_form = form
                return rerank_scores_in(response.extensions["value"], len(documents))

    async def _called(self, call: Awaitable[_Response]) -> _Response:
        """Return the result of a call of `openai`; turn its errors into those of this toolkit."""
        async with self._slots:
            try:
                return await call
            except Stopped as stop:
                raise stop.failure from None
            except openai.APIConnectionError as error:
                raise self._failed_too_often(cause_of(error.__cause__)[0]) from None
            except openai.APIStatusError as error:
                raise self._failure(error.response) from None

    def _failure(self, response: httpx2.Response) -> Exception:
        status, (message, code) = response.status_code, error_in(response.text)
        if status == 429 and code == "insufficient_quota":
            return JobFailed(f"{self.endpoint.base_url}: the quota of this key is used up ({message})")
        if response.headers["x-should-retry"] == "true":
            return self._failed_too_often(f"status {status}")
        wait = retry_after(response.headers.get("retry-after")) or 0.0
        if wait > LONGEST_WAIT_SECONDS:
            return JobFailed(
                f"{self.endpoint.base_url} asks to wait {_wait_in_words(wait)} (status {status}); go on later"
            )
        hint = _HINTS.get(status, "").format(variable=self.endpoint.key_variable, model=self.endpoint.model)
        return _Refused(f"{response.request.url} answered {status}: {message}{hint}", status, code)

    def _failed_too_often(self, cause: str) -> JobFailed:
        return JobFailed(
            f"{self.endpoint.base_url} failed {self.endpoint.max_attempts} times in a row (last: {cause}); "
            "call again when it works, what is stored will not be asked again"
        )


def _wait_in_words(seconds: float) -> str:
    """Return a time to wait in seconds, or from two days on in days."""
    return f"{seconds:.0f} s" if seconds < 2 * _DAY_SECONDS else f"{seconds / _DAY_SECONDS:,.0f} days"


def _in_format(form: str, messages: Sequence[Message], schema: type[BaseModel]) -> JsonObject:
    """Return the request fields `messages` and `response_format` that ask for an answer in the form of `schema`."""
    shape = schema.model_json_schema()
    if form == "json_schema":
        response_format = {
            "type": "json_schema",
            "json_schema": {"name": schema.__name__, "schema": shape, "strict": True},
        }
        return {"messages": list(messages), "response_format": response_format}
    instruction = {
        "role": "system",
        "content": f"Answer with one JSON object of this schema and nothing else: {json.dumps(shape)}",
    }
    fields: JsonObject = {"messages": [instruction, *messages]}
    return fields | {"response_format": {"type": "json_object"}} if form == "json_object" else fields


def _answer_of(completion: ChatCompletion) -> Answer:
    """Return the answer in a completion; `openai` does not check its types, and servers may omit fields."""
    try:
        choice = completion.choices[0]
        text, refusal = choice.message.content, choice.message.refusal
    except (IndexError, TypeError, AttributeError):
        raise BadAnswer("no message in the response") from None
    usage = usage_in({"usage": completion.usage.model_dump()}) if completion.usage else None
    return Answer(
        text if isinstance(text, str) else "",
        str(choice.finish_reason),
        str(refusal) if refusal else None,
        usage or Usage(0, 0),
    )


async def run_all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines concurrently; if one fails, cancel the others and raise its error."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in work:
                group.create_task(coroutine)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
