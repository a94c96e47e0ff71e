"""Speak to an OpenAI-compatible server (OpenAI, Azure, vLLM, Ollama): chats and embeddings, within limits of rate and money.

    Endpoint (settings) ─▶ Client: concurrency · rate limits · budget · retries ─▶ chat(), embed()

What is retried: 429, 5xx, timeouts, broken connections, and pages that are no JSON; with a back-off that doubles, or as
long as the server's `Retry-After` says. What ends at once: any other 4xx, and a quota that is used up.

**Money.** Before a request goes out its worst price is held: every byte of the prompt as one token (a byte-level
tokenizer makes no more of it) and `max_tokens` of answer. The answer's `usage` then settles the hold. Where the server
may have worked but did not say (a timeout, a reset, a 502 or 504), the hold stays spent.

**The key** comes from an environment variable and stays in the header of the requests: no setting, log line, file or error
holds it, and what a server says is freed of it before anyone reads it.
"""

import asyncio
import json
import logging
import math
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import quote, urlsplit
from uuid import uuid4

import httpx
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from distill.errors import BadInput, JobFailed

__all__ = [
    "PRICES",
    "PRICES_AS_OF",
    "Answer",
    "BadAnswer",
    "Budget",
    "BudgetSpent",
    "Client",
    "Endpoint",
    "Price",
    "Usage",
    "estimated_tokens",
    "most_tokens",
    "run_all",
    "sixths_of_tokens",
]

log = logging.getLogger(__name__)
Record = dict[str, Any]
Message = Mapping[str, str]

_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}
_SHORTEST_SECRET = 8  # shorter keys are placeholders ("EMPTY", "ollama") and may stand in any text
_CONNECT_SECONDS = 10.0
_LONGEST_WAIT_SECONDS = 600.0
_FIRST_WAIT_SECONDS, _LONGEST_BACK_OFF_SECONDS = 1.0, 60.0
_LARGEST_ANSWER = 64 << 20  # bytes, unpacked: 2,048 embeddings of 1,536 numbers have half of it
_MAYBE_BILLED = {502, 504}  # a gateway gave up, perhaps after the model had answered


class Price(NamedTuple):
    """Dollars per million tokens."""

    input: float
    output: float = 0.0

    def of(self, usage: "Usage") -> float:
        """Return what these tokens cost in dollars.

        >>> Price(0.15, 0.60).of(Usage(1000, 2000))
        0.00135
        """
        return (usage.input_tokens * self.input + usage.output_tokens * self.output) / 1e6


PRICES_AS_OF = "2026-11"
PRICES = {
    "gpt-4o": Price(2.50, 10.00),
    "gpt-4o-mini": Price(0.15, 0.60),
    "text-embedding-3-large": Price(0.13),
    "text-embedding-3-small": Price(0.02),
}


class Usage(NamedTuple):
    """How many tokens went in and came out."""

    input_tokens: int
    output_tokens: int = 0


class BadAnswer(JobFailed):
    """The server answered, but not with what was asked for; asking again may help."""


class BudgetSpent(JobFailed):
    """The next request could cost more than what is left of the budget."""


class _Transient(Exception):
    """A failure that is worth another try.

    :param wait: the seconds that the server asks to wait
    :param billed: whether the server may charge for the request
    """

    def __init__(self, cause: str, *, wait: float | None = None, billed: bool = False) -> None:
        super().__init__(cause)
        self.cause, self.wait, self.billed = cause, wait, billed


class Endpoint(BaseModel):
    """A model on an OpenAI-compatible server, with limits of rate and its prices.

    >>> Endpoint(model="gpt-4o-mini-2024-07-18").price
    Price(input=0.15, output=0.6)
    """

    # inputs are hidden: a key that someone puts into the wrong field must not come back in the error
    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False, hide_input_in_errors=True
    )

    model: str = Field(min_length=1)
    """The model's name on the server."""
    base_url: str = "https://api.openai.com/v1"
    """The server's address."""
    api_version: str | None = None
    """API version, which Azure deployments require."""
    key_variable: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the key."""
    concurrency: int = Field(default=8, ge=1)
    """Requests at the same time."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """The most requests per minute. None is no limit."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """The most tokens per minute. None is no limit."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Seconds to wait for a whole answer."""
    max_attempts: int = Field(default=8, ge=1)
    """Attempts per request when server or network fail."""
    input_price: float | None = Field(default=None, ge=0)
    """Dollars per million prompt tokens. None takes the known price of the model."""
    output_price: float | None = Field(default=None, ge=0)
    """Dollars per million answer tokens. None takes the known price of the model."""

    @field_validator("base_url")
    @classmethod
    def _without_secrets(cls, url: str) -> str:
        parts = urlsplit(url.strip())
        if parts.username or parts.password:
            raise ValueError("base_url must hold no user or password: the key belongs in the environment")
        if parts.query or parts.fragment:
            raise ValueError("base_url must end before the '?'; what stands behind Azure's api-version= is api_version")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:  # a bad port raises
            raise ValueError("base_url must look like https://api.openai.com/v1")
        path = parts.path.rstrip("/").removesuffix("/chat/completions").removesuffix("/embeddings")
        return parts._replace(path=path).geturl()

    @model_validator(mode="after")
    def _has_a_version(self) -> Self:
        if self.is_azure and "/deployments/" in self.base_url and self.api_version is None:
            raise ValueError("api_version is missing: the URL of an Azure deployment wants one, as 2024-10-21")
        return self

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine: then it needs no key and costs nothing unless told otherwise."""
        return urlsplit(self.base_url).hostname in _LOCAL_HOSTS

    @property
    def is_azure(self) -> bool:
        """Whether the key goes into an `api-key` header."""
        return self.api_version is not None or str(urlsplit(self.base_url).hostname).endswith(".azure.com")

    @property
    def price(self) -> Price:
        """What tokens cost.

        :raises BadInput: where nobody said.
        """
        known = PRICES.get(re.sub(r"-\d{4}-\d{2}-\d{2}$", "", self.model))  # dated versions cost the same
        if self.is_local:
            known = Price(0.0, 0.0)
        input_price = known.input if self.input_price is None and known else self.input_price
        output_price = known.output if self.output_price is None and known else self.output_price
        if input_price is None or output_price is None:
            raise BadInput(
                f"no price is known for model {self.model!r} (known: {', '.join(PRICES)}); give input_price and "
                "output_price in dollars per million tokens, 0 for a server that is free or has no output"
            )
        return Price(input_price, output_price)

    def key(self) -> str | None:
        """Return the key from the environment; None where a local server needs none.

        :raises BadInput: where it is missing or cannot stand in a header.
        """
        key = os.environ.get(self.key_variable, "").strip()
        if not key and not self.is_local:
            raise BadInput(
                f"{self.base_url} needs a key: set the environment variable {self.key_variable} "
                "(to any word where the server asks for none)"
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise BadInput(f"the key in {self.key_variable} holds a blank, a line break or a non-ASCII character")
        return key or None


def most_tokens(text: str) -> int:
    """Return a number of tokens that no byte-level tokenizer exceeds: the number of bytes."""
    return len(text.encode("utf-8", "surrogatepass"))


def estimated_tokens(text: str) -> int:
    """Guess the number of tokens, rather too many: three ASCII characters make one, any other character one and a half.

    >>> estimated_tokens("서버 개발자")
    8
    """
    return math.ceil(int(sixths_of_tokens(text).sum()) / 6)


def sixths_of_tokens(text: str) -> np.ndarray:
    """Return the estimate for each character, in whole sixths of a token. *Shape:* (n_characters,)."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return np.where(codes < 128, 2, 9)


class Budget:
    """A sum of dollars that is never exceeded: what a request may cost is held before it is sent.

    :param limit: None counts without a limit
    :param spent: what earlier runs have spent
    :param record: called with each change before it counts, to survive a kill
    """

    def __init__(
        self, limit: float | None, *, spent: float = 0.0, record: Callable[[Record], None] = lambda change: None
    ) -> None:
        self.limit, self.spent = limit, spent
        self._record = record
        self._held: dict[str, float] = {}
        self._waiting: list[asyncio.Future[None]] = []

    async def hold(self, dollars: float) -> str:
        """Set dollars aside and return the name of the hold; waits while others may yet give some back.

        :raises BudgetSpent: where too little is left and nothing is on its way back.
        """
        while self.limit is not None and self.spent + sum(self._held.values()) + dollars > self.limit:
            if not self._held:
                raise BudgetSpent(
                    f"the budget of ${self.limit:.4f} is used up: ${self.spent:.4f} are spent "
                    f"and the next request may cost ${dollars:.4f}"
                )
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(settled)
            await settled
        name = uuid4().hex
        self._record({"hold": name, "dollars": dollars})
        self._held[name] = dollars
        return name

    def settle(self, hold: str, dollars: float | None) -> None:
        """Replace a hold by what was really paid; None: nobody knows, so all of it."""
        paid = self._held[hold] if dollars is None else dollars
        self._record({"settled": hold, "dollars": paid})
        del self._held[hold]
        self.spent += paid
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()


class _Rate:
    """So many units per minute, evenly: first come, first served, at most a second's worth at once.

    A request may take more than the bucket holds; the next one then waits until the debt is paid.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_second = per_minute / 60
        self._capacity = max(1.0, self._per_second)
        self._level, self._updated = self._capacity, time.monotonic()
        self._turn = asyncio.Lock()

    async def take(self, n: int) -> None:
        """Wait until `n` units may be used."""
        async with self._turn:
            needed = min(float(n), self._capacity)
            while self._refilled() < needed:
                await asyncio.sleep((needed - self._level) / self._per_second)
            self._level -= n

    def correct(self, n: int) -> None:
        """Take `n` more (or, below zero, fewer) than were taken before."""
        self._level = min(self._capacity, self._refilled() - n)

    def _refilled(self) -> float:
        now = time.monotonic()
        self._level = min(self._capacity, self._level + (now - self._updated) * self._per_second)
        self._updated = now
        return self._level + 1e-9  # a sleep may end a rounding error early


@dataclass(frozen=True)
class Answer:
    """What a model wrote; `refusal` is its own word that it will not, `finish_reason` why it stopped."""

    text: str
    finish_reason: str
    refusal: str | None
    usage: Usage


class Client:
    """A connection to one endpoint; `async with Client(endpoint) as client`.

    Counts what went wrong on the way in `faults` (cause → times) and what was sent in `n_requests`.
    """

    def __init__(self, endpoint: Endpoint, budget: Budget | None = None) -> None:
        self.endpoint, self.price = endpoint, endpoint.price
        self.budget = budget or Budget(None)
        self.faults: Counter[str] = Counter()
        self.n_requests = 0
        key = endpoint.key()
        self._redact = _redactor(key)
        self._http = httpx.AsyncClient(
            headers=_key_header(endpoint, key),
            params={"api-version": endpoint.api_version} if endpoint.api_version else None,
            timeout=httpx.Timeout(endpoint.timeout_s, connect=_CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=endpoint.concurrency),
        )
        self._slots = asyncio.Semaphore(endpoint.concurrency)
        self._requests = _Rate(endpoint.requests_per_minute) if endpoint.requests_per_minute else None
        self._tokens = _Rate(endpoint.tokens_per_minute) if endpoint.tokens_per_minute else None
        self._paused_until = 0.0
        self._format: Literal["json_schema", "json_object", "plain"] = "json_schema"
        self._format_is_proven = False
        self._limit_field = "max_tokens"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def chat(
        self, messages: Sequence[Message], schema: type[BaseModel], *, max_tokens: int, temperature: float = 1.0
    ) -> Answer:
        """Ask for an answer in the shape of `schema`; whether it has that shape is for the caller to check.

        A server that refuses `response_format: json_schema` with a 400 is asked with `json_object`, then in plain words.

        :raises BadAnswer: where the response holds no answer.
        """
        while True:
            asked_format, limit = self._format, self._limit_field
            body: Record = {"model": self.endpoint.model, limit: max_tokens, "temperature": temperature}
            try:
                response = await self._post(
                    "chat/completions",
                    body | _in_format(asked_format, messages, schema),
                    max_output_tokens=max_tokens,
                )
            except _Refused as refusal:
                if refusal.code == "content_filter":
                    raise BadAnswer("content filter") from None
                if limit == "max_tokens" and "max_completion_tokens" in str(refusal):
                    self._limit_field = "max_completion_tokens"  # OpenAI's reasoning models know no other name
                    continue
                if refusal.status not in (400, 422) or not self._step_down(asked_format, refusal):
                    raise
            else:
                self._format_is_proven = True
                return _read_answer(response)

    def _step_down(self, asked_format: str, refusal: "_Refused") -> bool:
        """Ask for less from now on; False where a refusal cannot be about the format."""
        if self._format != asked_format:  # another request in flight has found out
            return True
        if self._format_is_proven or asked_format == "plain":
            return False
        self._format = "json_object" if asked_format == "json_schema" else "plain"
        log.info("%s; asking again with response format %s", refusal, self._format)
        return True

    async def embed(self, texts: Sequence[str], *, dimensions: int | None = None) -> np.ndarray:
        """Return one vector per text, in order.

        *Shape:* (n_texts, width), float32

        :raises BadAnswer: on a wrong number of vectors, unequal widths, or values that are no finite numbers.
        """
        body: Record = {"model": self.endpoint.model, "input": list(texts), "encoding_format": "float"}
        if dimensions is not None:
            body["dimensions"] = dimensions
        return _read_vectors(await self._post("embeddings", body), len(texts), dimensions)

    async def _post(self, path: str, body: Record, *, max_output_tokens: int = 0) -> Record:
        """Send until an answer comes that is JSON."""
        text = json.dumps(body, ensure_ascii=False)
        worst = Usage(most_tokens(text), max_output_tokens)
        expected_tokens = estimated_tokens(text) + max_output_tokens
        async with self._slots:
            for attempt in range(1, self.endpoint.max_attempts + 1):
                await self._wait_for_turn(expected_tokens)
                hold = await self.budget.hold(self.price.of(worst))
                try:
                    response = await self._send(path, text)
                except _Transient as failure:
                    self.budget.settle(hold, None if failure.billed else 0.0)
                    self.faults[failure.cause] += 1
                    if attempt == self.endpoint.max_attempts:
                        raise JobFailed(
                            f"{self.endpoint.base_url} failed {attempt} times in a row (last: {failure.cause}); "
                            "call again when it works, what is stored will not be asked again"
                        ) from None
                    if self.faults[failure.cause] == 1:  # the next ones of its kind are counted only
                        log.warning("%s: %s; trying again", self.endpoint.base_url, failure.cause)
                    await self._back_off(attempt, failure)
                except (JobFailed, BadInput) as failure:
                    self.budget.settle(hold, None if isinstance(failure, _TooLong) else 0.0)
                    raise
                except asyncio.CancelledError:
                    self.budget.settle(hold, None)
                    raise
                else:
                    usage = _read_usage(response)
                    self.budget.settle(hold, None if usage is None else self.price.of(usage))
                    if self._tokens and usage:
                        self._tokens.correct(sum(usage) - expected_tokens)
                    return response
        raise AssertionError("the last attempt returns or raises")

    async def _wait_for_turn(self, n_tokens: int) -> None:
        if self._requests:
            await self._requests.take(1)
        if self._tokens:
            await self._tokens.take(n_tokens)
        while (pause := self._paused_until - time.monotonic()) > 0:
            await asyncio.sleep(pause)

    async def _back_off(self, attempt: int, failure: _Transient) -> None:
        if not failure.wait:
            longest = min(_LONGEST_BACK_OFF_SECONDS, _FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
            await asyncio.sleep(longest * random.uniform(0.5, 1.0))  # apart, so that not all come back at once
        else:  # the server speaks of the whole account: everyone waits
            self._paused_until = max(self._paused_until, time.monotonic() + failure.wait)

    async def _send(self, path: str, text: str) -> Record:
        """Send once."""
        self.n_requests += 1
        try:
            async with asyncio.timeout(self.endpoint.timeout_s):  # httpx limits each read, not the whole
                response, content = await self._ask(path, text)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _Transient(f"cannot connect ({type(error).__name__})") from None
        except (TimeoutError, httpx.TimeoutException):
            raise _Transient("timeout", billed=True) from None
        except httpx.RequestError as error:
            raise _Transient(f"broken connection ({type(error).__name__})", billed=True) from None
        answer = self._redact(content.decode("utf-8", "replace"))
        if response.status_code != 200:
            raise self._failure(response, answer)
        try:
            value = json.loads(answer)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise _Transient("status 200 without JSON", billed=True)
        return value

    async def _ask(self, path: str, text: str) -> tuple[httpx.Response, bytes]:
        """Return the response with its body, read as it comes: a server may send without end.

        :raises JobFailed: for a body of more than any answer has
        """
        url, content = f"{self.endpoint.base_url}/{path}", bytearray()
        headers = {"content-type": "application/json"}
        async with self._http.stream("POST", url, content=text.encode("utf-8", "replace"), headers=headers) as response:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _LARGEST_ANSWER:
                    raise _TooLong(
                        f"{url} sends more than {_LARGEST_ANSWER >> 20} MiB, which is no answer; check base_url"
                    )
        return response, bytes(content)

    def _failure(self, response: httpx.Response, answer: str) -> Exception:
        status, (message, code) = response.status_code, _error_of(answer)
        if status == 429 and code == "insufficient_quota":
            return JobFailed(f"{self.endpoint.base_url}: the quota of this key is used up ({message})")
        if status in (408, 409, 429) or status >= 500:
            wait = _retry_after(response.headers.get("retry-after"))
            if wait is not None and wait > _LONGEST_WAIT_SECONDS:
                return JobFailed(f"{self.endpoint.base_url} asks to wait {wait:.0f} s (status {status}); go on later")
            return _Transient(f"status {status}", wait=wait, billed=status in _MAYBE_BILLED)
        hint = _HINTS.get(status, "").format(variable=self.endpoint.key_variable, model=self.endpoint.model)
        return _Refused(f"{response.request.url} answered {status}: {message}{hint}", status, code)


_HINTS = {
    401: "; check the key in {variable}",
    403: "; the key in {variable} may not use {model!r}",
    404: "; check base_url and the model {model!r}",
}


class _TooLong(JobFailed):
    """An answer without end; the server may charge for it."""


class _Refused(BadInput):
    """A 4xx: asking the same again is of no use."""

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


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


def _in_format(form: str, messages: Sequence[Message], schema: type[BaseModel]) -> Record:
    """Return the messages and how to say that the answer shall have the shape of `schema`."""
    shape = schema.model_json_schema()
    if form == "json_schema":
        response_format = {
            "type": "json_schema",
            "json_schema": {"name": schema.__name__, "schema": shape, "strict": True},
        }
        return {"messages": list(messages), "response_format": response_format}
    told = {
        "role": "system",
        "content": f"Answer with one JSON object of this schema and nothing else: {json.dumps(shape)}",
    }
    spoken: Record = {"messages": [told, *messages]}
    return spoken | {"response_format": {"type": "json_object"}} if form == "json_object" else spoken


def _read_answer(response: Record) -> Answer:
    try:
        choice = response["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise BadAnswer("no message in the response") from None
    return Answer(
        text if isinstance(text, str) else "",
        str(choice.get("finish_reason")),
        str(refusal) if refusal else None,
        _read_usage(response) or Usage(0, 0),
    )


def _read_usage(response: Record) -> Usage | None:
    try:
        usage = Usage(int(response["usage"]["prompt_tokens"]), int(response["usage"].get("completion_tokens") or 0))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    return usage if min(usage) >= 0 else None


def _read_vectors(response: Record, n_texts: int, dimensions: int | None) -> np.ndarray:
    try:
        entries = sorted(response["data"], key=lambda entry: int(entry["index"]))
        rows = [np.asarray(entry["embedding"], dtype=np.float32) for entry in entries]
        indices = [int(entry["index"]) for entry in entries]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise BadAnswer("the response holds no list of embeddings with their index") from None
    if indices != list(range(n_texts)):
        raise BadAnswer(f"{n_texts} texts were sent and {len(rows)} embeddings came back, or their numbers are wrong")
    widths = {row.shape for row in rows}
    if len(widths) != 1 or rows[0].ndim != 1 or rows[0].size == 0:
        raise BadAnswer(f"the embeddings have no common width: {sorted(map(str, widths))}")
    if dimensions is not None and rows[0].size != dimensions:
        raise BadAnswer(f"{dimensions} dimensions were asked for and {rows[0].size} came")
    vectors = np.stack(rows)
    if not np.isfinite(vectors).all():
        raise BadAnswer("an embedding holds NaN or infinity")
    return vectors


def _error_of(answer: str) -> tuple[str, str]:
    """Return the message and the code of an error response, in one line however it looks."""
    try:
        error = json.loads(answer)["error"]
        message, code = (error["message"], error.get("code")) if isinstance(error, dict) else (error, "")
    except (ValueError, KeyError, TypeError):
        message, code = re.sub(r"<[^>]*>", " ", answer), ""
    return " ".join(str(message).split())[:300] or "(no message)", str(code or "")


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for: a number of them, or a date."""
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


async def run_all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines together; the first that fails stops the others and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in work:
                group.create_task(coroutine)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
