"""A model on an OpenAI-compatible server: its address, its API key, its rate limits and its prices."""

import os
import re
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from distill.errors import BadInput

__all__ = ["PRICES", "PRICES_AS_OF", "Endpoint", "Price", "Usage"]

_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}


class Usage(NamedTuple):
    """Number of input tokens and output tokens."""

    input_tokens: int
    output_tokens: int = 0


class Price(NamedTuple):
    """Dollars per million tokens."""

    input: float
    output: float = 0.0

    def of(self, usage: Usage) -> float:
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


class Endpoint(BaseModel):
    """A model on an OpenAI-compatible server, with its rate limits and prices.

    >>> Endpoint(model="gpt-4o-mini-2024-07-18").price
    Price(input=0.15, output=0.6)
    """

    # hide inputs in errors: an API key in the wrong field must not be printed
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
    """Environment variable that holds the API key."""
    concurrency: int = Field(default=8, ge=1)
    """Number of requests at the same time."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """The most requests per minute. None is no limit."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """The most tokens per minute. None is no limit."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Seconds to wait for a whole answer."""
    max_attempts: int = Field(default=8, ge=1)
    """Attempts per request if the server or the network fails."""
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
        path = (
            parts.path.rstrip("/").removesuffix("/chat/completions").removesuffix("/embeddings").removesuffix("/rerank")
        )
        return parts._replace(path=path).geturl()

    @model_validator(mode="after")
    def _has_a_version(self) -> Self:
        if self.is_azure and "/deployments/" in self.base_url and self.api_version is None:
            raise ValueError("api_version is missing: the URL of an Azure deployment wants one, as 2024-10-21")
        return self

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine. It then needs no key, and costs nothing unless prices are set."""
        return urlsplit(self.base_url).hostname in _LOCAL_HOSTS

    @property
    def host(self) -> str:
        """The server's host, with the port if the address has one."""
        return urlsplit(self.base_url).netloc

    @property
    def is_azure(self) -> bool:
        """Whether the key goes into an `api-key` header."""
        return self.api_version is not None or str(urlsplit(self.base_url).hostname).endswith(".azure.com")

    @property
    def price(self) -> Price:
        """The price of the model's tokens.

        :raises BadInput: if no price is known or set.
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
        """Return the API key from the environment; None if it is not set and the server is local.

        :raises BadInput: if it is missing or cannot be sent in a header.
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
