"""Token ids of texts from remembered words: most of what a tokenizer is asked, it was asked before.

Where no token reaches over a space, a text's ids are those of its words, one after the other, and words repeat (Zipf 1935):
a dictionary answers for a known one ten times as fast as the tokenizer. One-layer and static students spend a third to most
of their time there. The ids are always the tokenizer's own: what may read over a space has no memory (byte-level BPE), and a
text with a word that cannot be told from its neighbours goes to the tokenizer whole.
"""

import json
import threading
import weakref
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from distill.tokens import TokenTable, pad_token_id, special_tokens, tokenize

__all__ = ["WordMemory", "forget_words"]

_MOST_WORDS = 65_536  # about 15 MB; then all are forgotten
_CHUNK = 1024  # texts split at a time: the words of a million texts are never there at once
_LONGEST = 48  # characters: longer ones are addresses, or a script without spaces, and do not come again
_LOCAL_NORMALIZERS = (
    "BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip", "Nmt", "Precompiled",
)  # fmt: skip
_DROP_SPACES = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")
_MANY_SPACES = {"Regex": " {2,}"}

_memories: "weakref.WeakSet[WordMemory]" = weakref.WeakSet()


def forget_words() -> None:
    """Forget the words of every memory in this process: a measurement that repeats its texts must earn nothing by it."""
    for memory in list(_memories):
        memory.forget()


class WordMemory:
    """The ids of the words that a tokenizer was asked for. Several threads may use it.

    :param drops_spaces: whether spaces and line breaks leave no token, however many there are
    """

    def __init__(self, tokenizer: Any, drops_spaces: bool, before: bytes, after: bytes) -> None:
        self._tokenizer, self._drops_spaces = tokenizer, drops_spaces
        self._before, self._after = before, after
        self._ids: dict[str, bytes | None] = {}  # int32; None: a text with this word goes to the tokenizer whole
        added = [token.content for token in tokenizer.backend_tokenizer.get_added_tokens_decoder().values()]
        self._marks = {" ", "▁", *added, *map(self._normalized, added)}
        self._lock = threading.Lock()
        _memories.add(self)

    @classmethod
    def of(cls, tokenizer: Any) -> "WordMemory | None":
        """Return an empty memory, or None for a tokenizer whose tokens may depend on what stands beyond a space."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or getattr(backend.model, "dropout", None) or tokenizer.truncation_side != "right":
            return None
        if any({" ", "\n"} & set(token.content) for token in backend.get_added_tokens_decoder().values()):
            return None
        pre_tokenizers, normalizers = _steps(backend.pre_tokenizer), _steps(backend.normalizer)
        drops_spaces = any(step["type"] in _DROP_SPACES for step in pre_tokenizers)
        marks = [step for step in pre_tokenizers if step["type"] == "Metaspace"]
        if not drops_spaces and not any(step["split"] for step in marks):
            return None
        if any(step["prepend_scheme"] == "first" for step in marks):
            return None
        if not all(step["type"] in _LOCAL_NORMALIZERS or step.get("pattern") == _MANY_SPACES for step in normalizers):
            return None
        around, types = special_tokens(tokenizer), tokenize(tokenizer, ["a"], max_length=64).type_ids
        if around is None or (types is not None and types.any()):
            return None
        before, after = (np.array(ids, np.int32).tobytes() for ids in around)
        return cls(tokenizer, drops_spaces, before, after)

    def forget(self) -> None:
        """Forget all words."""
        with self._lock:
            self._ids.clear()

    def tokenize(self, texts: Sequence[str], *, max_length: int) -> TokenTable:
        """Return what `distill.tokens.tokenize` returns for these texts, with their special tokens."""
        room = max(0, 4 * max_length - len(self._before) - len(self._after))
        rows: list[bytes] = []
        whole: list[int] = []
        for start in range(0, len(texts), _CHUNK):
            with self._lock:
                parts = [self._words_of(text) for text in texts[start : start + _CHUNK]]
                self._learn(parts)
                ids = self._ids.__getitem__
                for row, words in enumerate(parts, start):
                    try:
                        rows.append(self._before + b"".join(map(ids, words))[:room] + self._after)  # type: ignore[arg-type]
                    except TypeError:  # one of them is None
                        whole.append(row)
                        rows.append(b"")
        if whole:
            table = tokenize(self._tokenizer, [texts[row] for row in whole], max_length=max_length)
            for row, first, end in zip(whole, table.offsets[:-1], table.offsets[1:], strict=True):
                rows[row] = table.ids[first:end].tobytes()
        offsets = np.concatenate([[0], np.cumsum([len(row) // 4 for row in rows], dtype=np.int64)])
        types = np.zeros(offsets[-1], np.int8) if "token_type_ids" in self._tokenizer.model_input_names else None
        return TokenTable(np.frombuffer(b"".join(rows), np.int32), offsets, types, pad_token_id(self._tokenizer))

    def _words_of(self, text: str) -> list[str]:
        return (text.replace("\n", " ") if self._drops_spaces else text).split(" ")

    def _learn(self, parts: Sequence[Sequence[str]]) -> None:
        if len(self._ids) > _MOST_WORDS:
            self._ids.clear()
        new = set(chain.from_iterable(parts)).difference(self._ids)
        self._ids.update(dict.fromkeys(new))
        asked = [word for word in new if len(word) <= _LONGEST and (self._drops_spaces or self._stands_alone(word))]
        if asked:
            table = tokenize(self._tokenizer, asked, max_length=1 << 20, special_tokens=False)
            flat, ends = table.ids.tobytes(), (4 * table.offsets).tolist()
            self._ids.update(
                (word, flat[start:end]) for word, start, end in zip(asked, ends[:-1], ends[1:], strict=True)
            )

    def _normalized(self, text: str) -> str:
        normalizer = self._tokenizer.backend_tokenizer.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def _stands_alone(self, word: str) -> bool:
        """Whether a mark stands for the one space in front of a word, and for nothing else.

        Spaces beside an added token get a mark of their own, and so does what is normalised to a space. What is cut off the
        ends of a text stays inside of one.
        """
        try:
            alone, between = self._normalized(word), self._normalized(f"a{word}a")
        except UnicodeEncodeError:  # a lone surrogate, which is no text in Rust
            return False
        plain = not any(mark in alone or mark in word for mark in self._marks)
        return plain and alone != "" and between == f"a{alone}a"


def _steps(component: Any) -> list[Mapping[str, Any]]:
    """Return the parts of a normalizer or pre-tokenizer, as in a tokenizer.json."""
    if component is None:
        return []
    state = json.loads(component.__getstate__())
    steps: list[Mapping[str, Any]] = state.get("pretokenizers", state.get("normalizers", [state]))
    return steps
