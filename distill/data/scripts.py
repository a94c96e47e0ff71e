"""The scripts that texts are written in: for the characters of a vocabulary, and for samples with every script."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain

__all__ = [
    "NO_LETTERS",
    "Sources",
    "kept_scripts",
    "letter_shares",
    "letters_of",
    "main_script",
    "names_of",
    "rows_by_script",
    "rows_with_every_script",
    "script_of",
    "script_shares",
    "stratified",
]

Sources = Mapping[str, Sequence[str]]
"""Texts by the name of a language or domain."""
NO_LETTERS = "NO LETTERS"
"""The result of `main_script` for a text without letters."""
_KANA = ("HIRAGANA", "KATAKANA")
_LEAST_SCRIPT_SHARE = 0.01  # of a source's letters: single characters of a rarer script are kept only if they are used


@lru_cache(maxsize=200_000)
def script_of(letter: str) -> str:
    """Return the script of a letter, from the first word of its Unicode name; "" for characters that are no letters.

    >>> script_of("한"), script_of("é"), script_of("語"), script_of("7")
    ('HANGUL', 'LATIN', 'CJK', '')
    """
    if len(letter) != 1 or not unicodedata.category(letter).startswith("L"):
        return ""
    return unicodedata.name(letter, "").split(" ")[0].split("-")[0]


def letters_of(scripts: Iterable[str], texts: Iterable[str]) -> set[str]:
    """Return the letters of some scripts that occur in texts; kana includes Chinese characters.

    >>> sorted(letters_of(["hangul"], ["C++ 개발자"]))
    ['개', '발', '자']
    """
    names = names_of(scripts)
    return {letter for letter in set(chain.from_iterable(texts)) if script_of(letter) in names}


def names_of(scripts: Iterable[str]) -> set[str]:
    """Return the names that `script_of` gives to the letters of some scripts.

    >>> sorted(names_of(["hangul", "kana"]))
    ['CJK', 'HANGUL', 'HIRAGANA', 'KATAKANA']
    """
    return set(chain.from_iterable((*_KANA, "CJK") if name == "kana" else (name.upper(),) for name in scripts))


def kept_scripts(sources: Sources) -> list[str]:
    """Return the scripts with at least a hundredth of the letters in some source."""
    found = set()
    for texts in sources.values():
        found |= {script for script, share in letter_shares(texts).items() if share >= _LEAST_SCRIPT_SHARE}
    return sorted(found)


def letter_shares(texts: Iterable[str]) -> dict[str, float]:
    """Return the share of all letters in each script; {} for texts without letters.

    >>> letter_shares(["C++ 개발자", "2024"])
    {'LATIN': 0.25, 'HANGUL': 0.75}
    """
    scripts: Counter[str] = Counter()
    for letter, n in Counter(chain.from_iterable(texts)).items():
        scripts[script_of(letter)] += n
    del scripts[""]
    n_letters = scripts.total()
    return {script: n / n_letters for script, n in scripts.items()}


def main_script(text: str) -> str:
    """Return the script of most letters of a text; Japanese, including its Chinese characters, is KANA.

    >>> main_script("Python 개발자를 찾습니다"), main_script("日本語のテキスト"), main_script("2024-05")
    ('HANGUL', 'KANA', 'NO LETTERS')
    """
    scripts: Counter[str] = Counter()
    for letter, n in Counter(text).items():
        script = script_of(letter)
        scripts["KANA" if script in _KANA else script] += n
    del scripts[""]
    if scripts["KANA"]:  # Chinese characters in a text with kana count as Japanese
        scripts["KANA"] += scripts.pop("CJK", 0)
    if not +scripts:
        return NO_LETTERS
    return max(sorted(scripts), key=lambda script: scripts[script])


def rows_by_script(texts: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of the texts in each main script, sorted by script."""
    found: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        found.setdefault(main_script(text), []).append(row)
    return dict(sorted(found.items()))


def stratified(counts: Mapping[str, int], n: int) -> dict[str, int]:
    """Divide a sample of `n` among scripts in proportion to their texts, but with at least half of an equal share each.

    :param counts: number of texts by script
    :returns: number of texts of each script to take, `n` in all (or all texts if there are fewer)

    >>> stratified({"HANGUL": 990, "LATIN": 10}, 20), stratified({"HANGUL": 990, "LATIN": 2}, 20)
    ({'HANGUL': 15, 'LATIN': 5}, {'HANGUL': 18, 'LATIN': 2})
    """
    total = sum(counts.values())
    n = min(n, total)
    least = {script: min(count, n // (2 * len(counts))) for script, count in counts.items()}
    spare = n - sum(least.values())
    room = {script: count - least[script] for script, count in counts.items()}
    exact_extras = {script: spare * n_room / max(1, sum(room.values())) for script, n_room in room.items()}
    extras = {script: int(share) for script, share in exact_extras.items()}
    by_remainder = sorted(counts, key=lambda script: (extras[script] - exact_extras[script], script))
    for script in by_remainder[: spare - sum(extras.values())]:
        extras[script] += 1
    return {script: least[script] + extras[script] for script in counts}


def rows_with_every_script(texts: Sequence[str], n: int, least: int) -> list[int]:
    """Return the first `n` rows and, for each script with fewer than `least` of them, its next rows up to `least`.

    >>> rows_with_every_script(["a", "b", "c", "가", "나", "d"], 2, 1)
    [0, 1, 3]
    """
    rows = list(range(min(n, len(texts))))
    for script_rows in rows_by_script(texts).values():
        n_in = sum(row < n for row in script_rows)
        rows += script_rows[n_in : max(n_in, least)]
    return rows


def script_shares(texts: Sequence[str]) -> dict[str, float]:
    """Return the share of texts in each main script, the most frequent first."""
    counts = Counter(map(main_script, texts))
    return {script: n / len(texts) for script, n in counts.most_common()}
