"""More merges for a byte-level BPE, trained on words of some scripts after its own merges.

A merge is learned only if its piece holds whole letters of the scripts, or the first bytes of such a letter that no
letter of another script begins with. So the new merges never apply to text without such letters. The old merges keep
their place before the new ones.
"""

import heapq
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise, product

from distill.data.scripts import names_of, script_of
from distill.recipe.schema import MoreVocabulary
from students.vocabulary.surface import bytes_of
from students.vocabulary.tokenizer_json import TokenizerJson

__all__ = ["more_merges", "trained_merges"]

_LEADS = ((0xC0, 0xE0, 2), (0xE0, 0xF0, 3), (0xF0, 0xF8, 4))  # first bytes of letters of two, three and four bytes
_LEAST_COUNT = 2  # how often a pair must occur in the corpus


def more_merges(
    old: TokenizerJson, texts: Sequence[str], letters: Collection[str], settings: MoreVocabulary
) -> list[tuple[str, str]]:
    """Return merges for at most the requested number of new pieces.

    :param texts: texts as the tokenizer normalises them
    :param letters: the letters of the scripts in them
    """
    backend, letters = old.backend(), frozenset(letters)
    words: Counter[str] = Counter()
    for text in texts:
        if not letters.isdisjoint(text):
            words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    pieces = {
        tuple(token.value for token in backend.model.tokenize(word)): n
        for word, n in words.items()
        if not letters.isdisjoint(bytes_of(word).decode(errors="ignore"))
    }
    return trained_merges(pieces, settings.tokens, old.ids, _Allowed(settings.scripts))


class _Allowed:
    """Decides whether a piece may be learned: it must never match in text without letters of the scripts."""

    def __init__(self, scripts: Sequence[str]) -> None:
        self.names = names_of(scripts)
        self.begins_one = lru_cache(maxsize=None)(self._begins_one)

    def __call__(self, piece: str) -> bool:
        piece_bytes = bytes_of(piece).removeprefix(b" ")
        letters = piece_bytes.decode(errors="ignore")
        if letters:
            return all(script_of(letter) in self.names for letter in letters)
        return len(piece_bytes) == len(piece) and self.begins_one(piece_bytes)

    def _begins_one(self, start: bytes) -> bool:
        """Return whether all letters that begin with these bytes (at least one) are of the scripts."""
        letters = list(_beginning_with(start))
        return bool(letters) and all(script_of(letter) in self.names for letter in letters)


def _beginning_with(start: bytes) -> Iterator[str]:
    """Yield the known characters whose UTF-8 begins with these bytes; nothing if they begin no character."""
    n_bytes = next((n for low, high, n in _LEADS if low <= start[0] < high), 0)
    if len(start) < 2:
        return
    for rest in product(range(0x80, 0xC0), repeat=max(n_bytes - len(start), 0)):
        try:
            letter = (start + bytes(rest)).decode()
        except UnicodeDecodeError:
            continue
        if len(letter) == 1 and unicodedata.category(letter) != "Cn":
            yield letter


def trained_merges(
    words: Mapping[tuple[str, ...], int], n_pieces: int, known: Mapping[str, int], is_allowed: Callable[[str], bool]
) -> list[tuple[str, str]]:
    """Merge the most frequent allowed pair of neighbours, repeatedly (Sennrich et al. 2016); ties go by spelling.

    :param words: words as tuples of pieces, with their counts
    :param n_pieces: largest number of new pieces
    :param known: pieces that already exist

    >>> trained_merges({("a", "b", "c"): 3, ("b", "c"): 2}, 2, {}, lambda piece: True)
    [('b', 'c'), ('a', 'bc')]
    """
    corpus = _Corpus(words)
    queue = [(-n, pair) for pair, n in corpus.pairs.items()]
    heapq.heapify(queue)
    merges: list[tuple[str, str]] = []
    new_pieces: set[str] = set()
    while queue and len(new_pieces) < n_pieces:
        negative, pair = heapq.heappop(queue)
        n = corpus.pairs[pair]
        if n < _LEAST_COUNT or not is_allowed(pair[0] + pair[1]):
            continue
        if n != -negative:  # the count is outdated
            heapq.heappush(queue, (-n, pair))
            continue
        merges.append(pair)
        new_pieces |= {pair[0] + pair[1]} - known.keys()
        for grown in corpus.merge(pair):
            heapq.heappush(queue, (-corpus.pairs[grown], grown))
    return merges


class _Corpus:
    """Words as pieces, and the counts of each pair of neighbours in them."""

    def __init__(self, words: Mapping[tuple[str, ...], int]) -> None:
        self.words = [list(word) for word in words]
        self.counts = list(words.values())
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.places: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        for place in range(len(self.words)):
            self._count(place, 1)

    def _count(self, place: int, sign: int) -> set[tuple[str, str]]:
        word_pairs = set()
        for pair in pairwise(self.words[place]):
            self.pairs[pair] += sign * self.counts[place]
            self.places[pair].add(place)
            word_pairs.add(pair)
        return word_pairs

    def merge(self, pair: tuple[str, str]) -> list[tuple[str, str]]:
        """Merge a pair everywhere; return the pairs in the words that changed, sorted."""
        grown: set[tuple[str, str]] = set()
        for place in sorted(self.places.pop(pair)):
            self._count(place, -1)
            self.words[place] = _merged(self.words[place], pair)
            grown |= self._count(place, 1)
        return sorted(grown)


def _merged(word: Sequence[str], pair: tuple[str, str]) -> list[str]:
    pieces: list[str] = []
    i = 0
    while i < len(word):
        is_pair = i + 1 < len(word) and (word[i], word[i + 1]) == pair
        pieces.append(word[i] + word[i + 1] if is_pair else word[i])
        i += 2 if is_pair else 1
    return pieces
