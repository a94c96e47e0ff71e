"""Count tokens without the server's tokenizer: an upper bound and an estimate."""

import math

import numpy as np

__all__ = ["cut_to_tokens", "estimated_tokens", "most_tokens", "sixths_of_tokens"]


def most_tokens(text: str) -> int:
    """Return the number of bytes, an upper bound of the tokens of any byte-level tokenizer."""
    return len(text.encode("utf-8", "surrogatepass"))


def estimated_tokens(text: str) -> int:
    """Estimate the number of tokens, rather too high: three ASCII characters are one, any other character is 1.5.

    >>> estimated_tokens("서버 개발자")
    8
    """
    return math.ceil(int(sixths_of_tokens(text).sum()) / 6)


def cut_to_tokens(text: str, max_tokens: int) -> str:
    """Return the longest prefix of a text that is estimated to have at most `max_tokens` tokens.

    >>> cut_to_tokens("서버 개발자", 5)
    '서버 개'
    """
    if most_tokens(text) <= max_tokens or estimated_tokens(text) <= max_tokens:
        return text
    n_fitting = np.searchsorted(np.cumsum(sixths_of_tokens(text)), 6 * max_tokens, side="right")
    return text[: int(n_fitting)]


def sixths_of_tokens(text: str) -> np.ndarray:
    """Return the estimated sixths of a token of each character, as integers. *Shape:* (n_characters,)."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return np.where(codes < 128, 2, 9)
