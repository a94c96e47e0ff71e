"""Token ids of texts from a cache of words, because most words of a text were tokenised before.

If no token crosses a space, the ids of a text are the ids of its words in order. Words repeat (Zipf 1935), and a
dictionary returns a known word ten times as fast as the tokenizer. One-layer and static students spend a third to most
of their time on tokenising. The ids are always exactly the tokenizer's. Only pipelines that are known to have this
property get a cache. They are recognised by the exact sequence of their parts:

- A pre-tokenizer that splits at white space first, so that its later parts see one word (`_CUT_AT_SPACES`), after a
  normalizer that maps each character, or each run of a letter and its marks, separately (`_CHARACTER_NORMALIZERS`). A
  space is neither a letter nor a mark, so no such run crosses it. The charsmap of SentencePiece (`Precompiled`) maps
  grapheme clusters, which may contain a space, so each word is checked with a space on either side.
- `Metaspace` alone, if it marks every word, after such normalizers and the `Strip` and the `Replace` of many spaces
  that converters of SentencePiece models write. Each word is checked here too, and several spaces in a row are not
  cached.

With Punctuation or Digits before Metaspace, its schemes "never" and "first", byte-level BPE, or any other Replace or
Split, the tokenizer reads every text. It also reads a text that contains an added token, which may absorb the spaces
beside it, or a word that fails its check.
"""

import json
import re
import weakref
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from distill.data.tokens import TokenTable, pad_token_id, special_tokens, tokenize
from distill.machine.forks import ForkSafeLock

__all__ = ["WordMemory", "forget_words"]

_MOST_WORDS = 65_536  # about 15 MB; beyond that all are forgotten
_CHUNK = 1024  # texts split at a time, so that the words of a million texts are never in memory at once
_LONGEST = 48  # characters: longer words are addresses, or a script without spaces, and rarely repeat
_CHARACTER_NORMALIZERS = frozenset(
    {"BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "Precompiled"}
)
_CUT_AT_SPACES = frozenset(
    {("BertPreTokenizer",), ("Whitespace",), ("WhitespaceSplit",), ("WhitespaceSplit", "Metaspace")}
)
_MODELS = frozenset({"WordPiece", "Unigram", "BPE", "WordLevel"})
_PROCESSORS = frozenset({"TemplateProcessing", "BertProcessing", "RobertaProcessing"})
_MANY_SPACES = {"Regex": " {2,}"}

_memories: "weakref.WeakSet[WordMemory]" = weakref.WeakSet()


def forget_words() -> None:
    """Forget the cached words in this process, so that a measurement with repeated texts does not profit."""
    for memory in list(_memories):
        memory.forget()


class WordMemory:
    """A cache of the ids of words that a tokenizer has read. Several threads may use it.

    :param drops_spaces: whether spaces and line breaks, however many, produce no token
    :param is_checked: whether each word is checked to be normalised the same alone and between spaces
    """

    def __init__(self, tokenizer: Any, drops_spaces: bool, is_checked: bool, before: bytes, after: bytes) -> None:
        self._tokenizer, self._drops_spaces, self._is_checked = tokenizer, drops_spaces, is_checked
        self._before, self._after = before, after
        self._ids: dict[str, bytes | None] = {}  # int32 ids; None: a text with this word is tokenised as a whole
        added = _added_tokens(tokenizer)
        marks = {*added, *map(self._normalized, added), *(() if drops_spaces else (" ", "▁"))} - {""}
        self._marks = re.compile("|".join(map(re.escape, marks))) if marks else None
        self._lock = ForkSafeLock()
        _memories.add(self)

    @classmethod
    def of(cls, tokenizer: Any) -> "WordMemory | None":
        """Return an empty cache, or None for a tokenizer that is not known to keep its tokens within words."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or tokenizer.truncation_side != "right" or not _is_plain_model(backend):
            return None
        kinds = _kinds(backend)
        if kinds is None or not _spaces_stay_outside(tokenizer):
            return None
        special_ids, types = special_tokens(tokenizer), tokenize(tokenizer, ["a"], max_length=64).type_ids
        if special_ids is None or (types is not None and types.any()):
            return None
        before, after = (np.array(ids, np.int32).tobytes() for ids in special_ids)
        return cls(tokenizer, *kinds, before, after)

    def forget(self) -> None:
        """Forget all words."""
        with self._lock:
            self._ids.clear()

    def tokenize(self, texts: Sequence[str], *, max_length: int) -> TokenTable:
        """Return what `distill.data.tokens.tokenize` returns for these texts, with their special tokens."""
        room = max(0, 4 * max_length - len(self._before) - len(self._after))
        rows: list[bytes] = []
        whole_rows: list[int] = []
        for start in range(0, len(texts), _CHUNK):
            with self._lock:
                parts = [self._words_of(text) for text in texts[start : start + _CHUNK]]
                self._learn(parts)
                ids = self._ids.__getitem__
                for row, words in enumerate(parts, start):
                    try:
                        rows.append(self._before + b"".join(map(ids, words))[:room] + self._after)  # type: ignore[arg-type]
                    except TypeError:  # one of them is None
                        whole_rows.append(row)
                        rows.append(b"")
        if whole_rows:
            table = tokenize(self._tokenizer, [texts[row] for row in whole_rows], max_length=max_length)
            for row, first, end in zip(whole_rows, table.offsets[:-1], table.offsets[1:], strict=True):
                rows[row] = table.ids[first:end].tobytes()
        offsets = np.concatenate([[0], np.cumsum([len(row) // 4 for row in rows], dtype=np.int64)])
        types = np.zeros(offsets[-1], np.int8) if "token_type_ids" in self._tokenizer.model_input_names else None
        return TokenTable(np.frombuffer(b"".join(rows), np.int32), offsets, types, pad_token_id(self._tokenizer))

    def _words_of(self, text: str) -> list[str]:
        return (text.replace("\n", " ") if self._drops_spaces else text).split(" ")

    def _learn(self, parts: Sequence[Sequence[str]]) -> None:
        if len(self._ids) > _MOST_WORDS:
            self._ids.clear()
        new_words = set(chain.from_iterable(parts)).difference(self._ids)
        self._ids.update(dict.fromkeys(new_words))
        cacheable = [word for word in new_words if len(word) <= _LONGEST and self._stands_alone(word)]
        if cacheable:
            table = tokenize(self._tokenizer, cacheable, max_length=1 << 20, special_tokens=False)
            flat, ends = table.ids.tobytes(), (4 * table.offsets).tolist()
            self._ids.update(
                (word, flat[start:end]) for word, start, end in zip(cacheable, ends[:-1], ends[1:], strict=True)
            )

    def _normalized(self, text: str) -> str:
        normalizer = self._tokenizer.backend_tokenizer.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def _stands_alone(self, word: str) -> bool:
        """Return whether a word is normalised the same alone and between spaces, and has no added token or space mark.

        If a mark stands for the space before a word, spaces beside an added token get their own mark, and so does a
        character that is normalised to a space. Characters that are stripped from the ends of a text are kept inside
        it.
        """
        if self._marks is not None and self._marks.search(word):
            return False
        if not self._is_checked:
            return True
        try:
            alone, between = self._normalized(word), self._normalized(f"a {word} a")
        except UnicodeEncodeError:  # a lone surrogate, which Rust does not accept as text
            return False
        if self._drops_spaces:
            return between == f"a {alone} a"
        return alone != "" and between == f"a {alone} a" and not (self._marks and self._marks.search(alone))


# ---------------------------------------------------------------------------------------------------------------------
# Supported pipelines
# ---------------------------------------------------------------------------------------------------------------------


def _is_plain_model(backend: Any) -> bool:
    """Return whether the model tokenises each word separately, and only fixed ids are added around one text."""
    if type(backend.model).__name__ not in _MODELS or getattr(backend.model, "dropout", None):
        return False
    processor = backend.post_processor
    if processor is None:
        return True
    state = json.loads(processor.__getstate__())
    pieces = [piece for piece in state.get("single", []) if "Sequence" in piece]
    return state["type"] in _PROCESSORS and (state["type"] != "TemplateProcessing" or len(pieces) == 1)


def _kinds(backend: Any) -> tuple[bool, bool] | None:
    """Return whether spaces produce no token, and whether words must be checked; None for an unsupported pipeline."""
    pre_tokenizers, normalizers = _steps(backend.pre_tokenizer), _steps(backend.normalizer)
    if not all(_marks_every_word(step) for step in pre_tokenizers if step["type"] == "Metaspace"):
        return None
    cuts, kinds = tuple(step["type"] for step in pre_tokenizers), {step["type"] for step in normalizers}
    if cuts in _CUT_AT_SPACES:
        is_supported = all(step["type"] in _CHARACTER_NORMALIZERS or _joins_spaces(step, " ") for step in normalizers)
        return (True, not kinds <= _CHARACTER_NORMALIZERS - {"Precompiled"}) if is_supported else None
    if cuts == ("Metaspace",):
        is_supported = all(
            step["type"] in _CHARACTER_NORMALIZERS | {"Strip"} or _joins_spaces(step, " ", "▁") for step in normalizers
        )
        return (False, True) if is_supported else None
    return None


def _marks_every_word(step: Mapping[str, Any]) -> bool:
    return bool(step["replacement"] == "▁" and step["prepend_scheme"] == "always" and step["split"])


def _joins_spaces(step: Mapping[str, Any], *contents: str) -> bool:
    """Return whether a normalizer replaces many spaces by one character, as converters of SentencePiece models do."""
    return bool(step["type"] == "Replace" and step["pattern"] == _MANY_SPACES and step["content"] in contents)


def _spaces_stay_outside(tokenizer: Any) -> bool:
    """Return whether no added token contains white space, as written or as normalised."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    added = _added_tokens(tokenizer)
    spellings = [*added, *(() if normalizer is None else map(normalizer.normalize_str, added))]
    return not any(character.isspace() for text in spellings for character in text)


def _added_tokens(tokenizer: Any) -> list[str]:
    return [token.content for token in tokenizer.backend_tokenizer.get_added_tokens_decoder().values()]


def _steps(component: Any) -> list[Mapping[str, Any]]:
    """Return the parts of a normalizer or pre-tokenizer, as in a tokenizer.json; nested parts are flattened."""
    if component is None:
        return []
    return _flat_steps(json.loads(component.__getstate__()))


def _flat_steps(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    inner = state.get("pretokenizers", state.get("normalizers"))
    return [state] if inner is None else [step for part in inner for step in _flat_steps(part)]
