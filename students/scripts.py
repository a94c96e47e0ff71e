"""Which scripts a corpus is written in: their single characters stay in a vocabulary, used or not."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain

__all__ = ["Sources", "kept_scripts", "script_of"]

Sources = Mapping[str, Sequence[str]]
"""Texts by the name of a language or domain."""
_LEAST_SCRIPT_SHARE = (
    0.01  # of a source's letters: below it single characters of a script stay only where they are used
)


@lru_cache(maxsize=200_000)
def script_of(letter: str) -> str:
    """Return the script of a letter by the first word of its Unicode name; "" for what all scripts share.

    >>> script_of("한"), script_of("é"), script_of("語"), script_of("7")
    ('HANGUL', 'LATIN', 'CJK', '')
    """
    if len(letter) != 1 or not unicodedata.category(letter).startswith("L"):
        return ""
    return unicodedata.name(letter, "").split(" ")[0].split("-")[0]


def kept_scripts(sources: Sources) -> list[str]:
    """Return the scripts that at least a hundredth of some source's letters are written in."""
    found = set()
    for texts in sources.values():
        letters = Counter(chain.from_iterable(texts))
        scripts: Counter[str] = Counter()
        for letter, n in letters.items():
            scripts[script_of(letter)] += n
        n_letters = sum(scripts.values()) - scripts.pop("", 0)
        found |= {script for script, n in scripts.items() if n >= _LEAST_SCRIPT_SHARE * n_letters}
    return sorted(found)
