r"""A normalised form of a text for the rules of sections and blinding, with a mapping back to the original characters.

    NFD Hangul and letters with marks → one character each          (macOS and many PDF extractors decompose them)
    full-width, half-width, styled letters and ligatures → plain    ｈｏｎｇ, ﾎﾞ, 𝐉𝐨𝐡𝐧, ﬁ
    zero-width characters, soft hyphens, direction marks → removed
    \r\n, \r, form feeds, U+2028 … → \n                             spaces, dashes and bars of any kind → one of each
    letters with spaces between them, before a colon or a bar: "연 락 처 :" → "연락처 :"

The original text is not changed. Rules match in the plain form, and their matches are removed from the original.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Plain", "plain", "plain_characters"]

_PLAIN = {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}  # full-width forms
_PLAIN |= dict.fromkeys("\u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))), " ")
_PLAIN |= dict.fromkeys("‐‑‒–—―−", "-") | dict.fromkeys("│┃ㅣ∣", "|") | dict.fromkeys("’‘", "'") | {"∶": ":"}
_NOT_PLAIN = re.compile(f"[{''.join(map(re.escape, _PLAIN))}]")
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e01ef]+"
)
_LINE_END = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
_MARK = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20dc\u3099\u309a\ufe20-\ufe2f"
_COMPOSED = re.compile(
    "[\u1100-\u115e\ua960-\ua97c][\u1161-\u11a7\ud7b0-\ud7c6]+[\u11a8-\u11ff\ud7cb-\ud7fb]*"  # a syllable of jamo
    "|[가-힣][\u11a8-\u11c2]"
    f"|[^\\s{_MARK}][{_MARK}]+"
    "|[\uffa1-\uffbe][\uffc2-\uffdc]+[\uffa1-\uffbe]?(?![\uffc2-\uffdc])"  # a syllable of half-width jamo
    "|[\uff65-\uff9d][\uff9e\uff9f]?|[\U0001d400-\U0001d7ff\ufb00-\ufb06\u2f00-\u2fd5\uf900-\ufaff\u24b6-\u24e9]"
)
_APART = re.compile(
    r"(?<![가-힣A-Za-z])(?:[가-힣](?: {1,4}[가-힣]){1,9}(?![가-힣])|[A-Za-z](?: {1,2}[A-Za-z]){2,15}(?![A-Za-z]))(?= {0,8}[:|\t])"
)


@dataclass(frozen=True)
class Plain:
    """A text in plain characters.

    :param starts: for each character, the start of its source in the original; None: the offsets are the same
    :param ends: for each character, the end of its source in the original; None: the offsets are the same
    """

    text: str
    original: str
    starts: list[int] | None = None
    ends: list[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the span of the original for a span of the plain text."""
        if self.starts is None or self.ends is None:
            return start, end
        if start == end:
            return (at := self.boundary(start)), at
        return self.starts[start], self.ends[end - 1]

    def boundary(self, at: int) -> int:
        """Return the offset in the original for a character of the plain text; the length at the end of the text."""
        if self.starts is None or (at == 0 and self.starts):
            return at
        return self.starts[at] if at < len(self.starts) else len(self.original)


def plain(text: str) -> Plain:
    r"""Return the plain form of a text.

    >>> found = plain("\u110b\u1175 \u1105\u1173\u11b7\u200b：\u3000a\r\n")
    >>> found.text, found.span(0, 3)
    ('이름: a\n', (0, 8))
    """
    found = Plain(text, text)
    if not text.isascii():
        found = _rewritten(found, _UNSEEN, lambda _: "")
        found = _rewritten(found, _COMPOSED, _as_one)
    found = _rewritten(found, _LINE_END, lambda _: "\n")
    found = Plain(plain_characters(found.text), text, found.starts, found.ends)
    return _rewritten(found, _APART, lambda words: words.replace(" ", ""))


def _as_one(characters: str) -> str:
    """Return a cluster as one composed character (NFC); compatibility characters in their plain form (NFKC)."""
    composed = unicodedata.normalize("NFC", characters)
    return unicodedata.normalize("NFKC", composed) if _COMPATIBLE.search(composed) else composed


_COMPATIBLE = re.compile("[\uff65-\uffdc\U0001d400-\U0001d7ff\ufb00-\ufb06\u2f00-\u2fd5\u24b6-\u24e9]")


def plain_characters(text: str) -> str:
    """Return a text of the same length with one form of each space, dash, bar and full-width character."""
    return text if text.isascii() else _NOT_PLAIN.sub(lambda match: _PLAIN[match[0]], text)


def _rewritten(found: Plain, pattern: re.Pattern[str], change: Callable[[str], str]) -> Plain:
    """Return the plain text with every match replaced, and with the mapping to the original updated.

    :param change: returns the replacement of a match
    """
    matches = [
        (match.span(), words) for match in pattern.finditer(found.text) if (words := change(match[0])) != match[0]
    ]
    if not matches:
        return found
    n = len(found.text)
    before_starts = list(range(n)) if found.starts is None else found.starts
    before_ends = list(range(1, n + 1)) if found.ends is None else found.ends
    pieces, starts, ends = (
        [found.text[: matches[0][0][0]]],
        before_starts[: matches[0][0][0]],
        before_ends[: matches[0][0][0]],
    )
    for ((start, end), words), ((following, _), _) in pairwise([*matches, ((n, n), "")]):
        pieces += [words, found.text[end:following]]
        first, last = before_starts[start], before_ends[end - 1]
        starts += [first] * len(words)
        ends += [last] * len(words)
        starts += before_starts[end:following]
        ends += before_ends[end:following]
    return Plain("".join(pieces), found.original, starts, ends)
