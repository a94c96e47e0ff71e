"""The HTTP client under `openai`: one call of `send` is one attempt; it limits the rate, counts money and faults.

    openai (retries, back-off) ─▶ MeteredClient.send: rate limits · budget · time and size of the answer ─▶ server

`openai` decides whether to retry from the result of `send`: an error of httpx2, or a response with the header
`x-should-retry`. Retried are 408, 409, 429, 5xx, timeouts, broken connections, and answers that are not JSON.

**Money.** Before a request is sent, its highest possible price is held: every byte of the prompt counted as one token
(a byte-level tokenizer makes no more) and `max_tokens` of answer. A reranker reads the query with each document, so the
query counts that often. The `usage` in the answer then settles the hold. If the server may have worked but gave no
usage (a timeout, a reset, a 502 or 504), the hold counts as spent.

**The key** is added to the headers here, below `openai`: no object of `openai` holds it. No other header comes from the
environment (`OPENAI_ORG_ID`, `OPENAI_CUSTOM_HEADERS`), redirects are not followed, and the key is removed from the
server's answer before any other code reads it. Proxies come from the environment, as for every HTTP client.
"""

import asyncio
import json
import logging
import math
import re
import ssl
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import quote

import httpx2
import openai
from aiolimiter import AsyncLimiter

from distill.endpoints.answers import JsonObject, usage_in
from distill.endpoints.budget import Budget
from distill.endpoints.tokens import estimated_tokens, most_tokens
from distill.errors import JobFailed
from distill.recipe.endpoint import Endpoint, Usage

__all__ = ["LONGEST_WAIT_SECONDS", "MeteredClient", "Rate", "Stopped", "cause_of", "error_in", "retry_after"]

log = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 120.0  # openai does not wait longer either
_SHORTEST_SECRET = 8  # shorter keys are placeholders ("EMPTY", "ollama") and may occur in any text
_LARGEST_ANSWER = 64 << 20  # bytes after decompression: 2,048 embeddings of 1,536 numbers take half of that
_MAYBE_BILLED = {502, 504}  # a gateway gave up, possibly after the model had answered
_SENT_HEADERS = {"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent"}
_KEPT_HEADERS = {"retry-after", "retry-after-ms", "x-request-id"}


class Stopped(openai.OpenAIError):
    """Carries an error of this toolkit through `openai`, which retries after every error that is not its own.

    :param failure: the error to raise instead of this one
    """

    def __init__(self, failure: JobFailed) -> None:
        super().__init__(str(failure))
        self.failure = failure


class _NotJson(httpx2.RemoteProtocolError):
    """An answer with status 200 that is not a JSON object."""


class Rate:
    """Limits units per minute, spread evenly, first come first served; at most one second's units are used at once.

    A request may need more units than one second has; the next request then waits until they are all made up for.
    """

    def __init__(self, per_minute: int) -> None:
        self._at_once = max(1.0, per_minute / 60)
        self._limiter = AsyncLimiter(self._at_once, 60 * self._at_once / per_minute)
        self._owed = 0.0
        self._turn = asyncio.Lock()

    async def take(self, n: int) -> None:
        """Wait until `n` units may be used."""
        async with self._turn:
            self._owed += n
            rest = max(0.0, n - self._at_once)
            while self._owed > rest:
                part = min(self._owed - rest, self._at_once)
                await self._limiter.acquire(part)
                self._owed -= part

    def correct(self, n: int) -> None:
        """Correct the units used by `n`: more, or fewer if `n` is negative."""
        self._owed += n


@cache
def _certificates() -> ssl.SSLContext:
    """Return this machine's trusted certificates, read once per process; reading takes as long as 100 requests."""
    return httpx2.create_ssl_context()


class MeteredClient(httpx2.AsyncClient):
    """Sends the requests that `openai` builds.

    `faults` counts the failed attempts by cause, and `n_requests` counts the requests that were sent.
    """

    def __init__(self, endpoint: Endpoint, budget: Budget) -> None:
        key = endpoint.key()
        limits = httpx2.Limits(max_connections=endpoint.concurrency)
        super().__init__(follow_redirects=False, limits=limits, verify=_certificates())
        self.faults: Counter[str] = Counter()
        self.n_requests = 0
        self._endpoint, self._price, self._budget = endpoint, endpoint.price, budget
        self._key_header, self._redact = _key_header(endpoint, key), _redactor(key)
        self._request_rate = Rate(endpoint.requests_per_minute) if endpoint.requests_per_minute else None
        self._token_rate = Rate(endpoint.tokens_per_minute) if endpoint.tokens_per_minute else None
        self._paused_until = 0.0

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request once; the body of the response is fully read, and the key is removed from it.

        :raises Stopped: if the budget is used up, or the body is longer than any valid answer.
        """
        content = request.content.decode()
        body = json.loads(content)
        text = content + _repeated_query(body)
        max_output = int(body.get("max_tokens") or body.get("max_completion_tokens") or 0)
        expected_tokens = estimated_tokens(text) + max_output
        await self._wait_for_turn(expected_tokens)
        try:
            hold = await self._budget.hold(self._price.of(Usage(most_tokens(text), max_output)))
        except JobFailed as spent:
            raise Stopped(spent) from None
        dollars: float | None = None  # None: unknown
        try:
            response = await self._answered(request)
            if response.is_success:
                usage = usage_in(response.extensions["value"])
                dollars = None if usage is None else self._price.of(usage)
                if self._token_rate and usage:
                    self._token_rate.correct(sum(usage) - expected_tokens)
            elif response.status_code not in _MAYBE_BILLED:
                dollars = 0.0
            return response
        except httpx2.RequestError as error:
            cause, is_billed = cause_of(error)
            dollars = None if is_billed else 0.0
            self._note(cause)
            raise
        finally:
            self._budget.settle(hold, dollars)

    async def _wait_for_turn(self, n_tokens: int) -> None:
        if self._request_rate:
            await self._request_rate.take(1)
        if self._token_rate:
            await self._token_rate.take(n_tokens)
        while (pause := self._paused_until - time.monotonic()) > 0:
            await asyncio.sleep(pause)

    async def _answered(self, request: httpx2.Request) -> httpx2.Response:
        """Return the response to one request; unless it is an error, its parsed body is in `extensions["value"]`."""
        self.n_requests += 1
        headers = {name: value for name, value in request.headers.items() if name in _SENT_HEADERS} | self._key_header
        sent = httpx2.Request(
            request.method, request.url, headers=headers, content=request.content, extensions=request.extensions
        )
        try:
            async with asyncio.timeout(self._endpoint.timeout_s):  # httpx2 limits each read, not the total
                response = await super().send(sent, stream=True)
                content = await self._bounded_body(response)
        except TimeoutError:
            raise httpx2.ReadTimeout("timeout", request=request) from None
        text = self._redact(content.decode("utf-8", "replace"))
        kept = {name: value for name, value in response.headers.items() if name in _KEPT_HEADERS}
        whole = httpx2.Response(
            response.status_code, headers=kept | {"content-type": "application/json"}, text=text, request=request
        )
        if not whole.is_success:
            whole.headers["x-should-retry"] = "true" if self._may_pass(whole) else "false"
            return whole
        try:
            value = json.loads(text)
            is_list = isinstance(value, list) and request.url.path.endswith("/rerank")  # of text-embeddings-inference
            whole.extensions["value"] = {"results": value} if is_list else value
        except (ValueError, RecursionError):
            raise _NotJson("no JSON", request=request) from None
        if not isinstance(whole.extensions["value"], dict):
            raise _NotJson("no JSON object", request=request)
        return whole

    async def _bounded_body(self, response: httpx2.Response) -> bytes:
        """Return the body; it is read in chunks with a size limit, because a server may send without end."""
        content = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _LARGEST_ANSWER:
                    raise Stopped(
                        JobFailed(
                            f"{response.request.url} sends more than {_LARGEST_ANSWER >> 20} MiB, "
                            "which is no answer; check base_url"
                        )
                    )
        finally:
            await response.aclose()
        return bytes(content)

    def _may_pass(self, response: httpx2.Response) -> bool:
        """Return whether the same request may succeed later; if so, count the fault."""
        status = response.status_code
        if status not in (408, 409, 429) and status < 500:
            return False
        if status == 429 and error_in(response.text)[1] == "insufficient_quota":
            return False
        wait = retry_after(response.headers.get("retry-after"))
        if wait is not None and wait > LONGEST_WAIT_SECONDS:
            return False
        self._note(f"status {status}")
        if wait:  # the limit is that of the whole account: all requests wait
            self._paused_until = max(self._paused_until, time.monotonic() + wait)
        return True

    def _note(self, cause: str) -> None:
        self.faults[cause] += 1
        if self.faults[cause] == 1 and self._endpoint.max_attempts > 1:  # later ones of the same kind are only counted
            log.warning("%s: %s; trying again", self._endpoint.base_url, cause)


def _repeated_query(body: JsonObject) -> str:
    """Return the query of a rerank for each document after the first: servers count it with every document."""
    n_documents = len(body.get("documents") or body.get("texts") or ())
    return str(body.get("query", "")) * (n_documents - 1)


def cause_of(error: BaseException | None) -> tuple[str, bool]:
    """Return the cause of a failed attempt in a few words, and whether the server may charge for the request."""
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return f"cannot connect ({type(error).__name__})", False
    if isinstance(error, httpx2.TimeoutException):
        return "timeout", True
    if isinstance(error, _NotJson):
        return "status 200 without JSON", True
    return f"broken connection ({type(error).__name__})", True


def error_in(answer: str) -> tuple[str, str]:
    """Return the message, on one line, and the code of an error response of any form."""
    try:
        error = json.loads(answer)["error"]
        message, code = (error["message"], error.get("code")) if isinstance(error, dict) else (error, "")
    except (ValueError, KeyError, TypeError, RecursionError):
        message, code = re.sub(r"<[^>]*>", " ", answer), ""
    return " ".join(str(message).split())[:300] or "(no message)", str(code or "")


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, given as a number or a date; None if it is neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _redactor(key: str | None) -> Callable[[str], str]:
    if key is None or len(key) < _SHORTEST_SECRET:
        return lambda text: text
    forms = {key, json.dumps(key)[1:-1], key.replace("/", "\\/"), quote(key, safe="")}  # as a server may repeat it
    pattern = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))
    return lambda text: pattern.sub("[key]", text)


def _key_header(endpoint: Endpoint, key: str | None) -> dict[str, str]:
    if key is None:
        return {}
    return {"api-key": key} if endpoint.is_azure else {"authorization": f"Bearer {key}"}
