"""Token ids of many sequences in two flat arrays, and padded batches cut from them.

Tokenising once, in bulk and without padding, costs a fraction of tokenising each batch in each epoch. It also gives the
lengths that the batch planner needs. A million sequences of 60 tokens take 240 MB.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.data.ragged import starts
from distill.machine.forks import ForkSafeLock

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "MANY_UNKNOWN",
    "TokenPart",
    "TokenTable",
    "bags",
    "has_types",
    "pad_token_id",
    "special_tokens",
    "token_parts",
    "tokenize",
    "tokenizer_lock",
    "unknown_id",
]

# a Rust object has no attributes and no weak references, so a tokenizer's lock is found by the tokenizer's address
_LOCKS = tuple(ForkSafeLock(fork_waits=True) for _ in range(64))
MANY_UNKNOWN = 0.02  # from this share of unknown tokens on, a tokenizer does not know a text's script
_CHUNK = 2048  # sequences per tokenizer call: enough to keep its threads busy, few enough to show progress


@dataclass(frozen=True)
class TokenTable:
    """Ragged token ids.

    *Shape:* ids, type_ids: (n_tokens,); offsets: (n_sequences + 1,), sequence i is ids[offsets[i]:offsets[i + 1]]

    :param max_length: upper limit of sequences and padded batches, because the model may have no more positions
    :param pad_left: pad on the left, because a generative reranker reads its answer from the last position
    """

    ids: np.ndarray
    offsets: np.ndarray
    type_ids: np.ndarray | None
    pad_id: int
    max_length: int | None = None
    pad_left: bool = False

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per sequence. *Shape:* (n_sequences,)."""
        return np.diff(self.offsets)

    def padded(self, rows: np.ndarray, width: int) -> dict[str, np.ndarray]:
        """Pad the given sequences to `width` tokens, on the right, or on the left if `pad_left`.

        *Shape:* rows: (n_rows,); each of input_ids, attention_mask, token_type_ids: (n_rows, width), int64
        """
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        mask = np.arange(width) < lengths[:, None]  # (n_rows, width)
        if self.pad_left:
            mask = mask[:, ::-1]
        # the tokens of a row are contiguous in `ids`, so one flat index fills the unmasked positions in reading order
        places = np.repeat(self.offsets[rows] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        ids = np.full(mask.shape, self.pad_id, dtype=np.int64)
        ids[mask] = self.ids[places]
        batch = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if self.type_ids is not None:
            batch["token_type_ids"] = types = np.zeros(mask.shape, dtype=np.int64)
            types[mask] = self.type_ids[places]
        return batch

    def batch(self, rows: Sequence[int] | np.ndarray, *, multiple: int = 8) -> "dict[str, Tensor]":
        """Pad the given sequences to the longest one, rounded up to a multiple, as torch tensors; see `padded`.

        The rounding stops at `max_length`, which may not be a multiple.
        """
        import torch

        rows = np.asarray(rows)
        longest = int((self.offsets[rows + 1] - self.offsets[rows]).max())
        width = -(-longest // multiple) * multiple
        if self.max_length is not None:
            width = max(longest, min(width, self.max_length))
        batch = self.padded(rows, width)
        return {name: torch.from_numpy(values) for name, values in batch.items()}


def bags(features: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Turn a padded batch into the input of a static model: all ids in one array, and the start of each text.

    *Shape:* input_ids, attention_mask: (n_rows, n_padded) → input_ids: (n_tokens,), offsets: (n_rows,)
    """
    mask = features["attention_mask"].bool()
    lengths = mask.sum(dim=1)
    return {"input_ids": features["input_ids"][mask], "offsets": lengths.cumsum(0) - lengths}


def tokenize(
    tokenizer: Any,
    texts: Sequence[str],
    pair_texts: Sequence[str] | None = None,
    *,
    max_length: int,
    special_tokens: bool = True,
    on_progress: Callable[[int], None] | None = None,
) -> TokenTable:
    """Tokenise texts, or pairs of texts as one sequence each, truncated to `max_length` tokens.

    Pairs are truncated from the longer text first, as sentence-transformers does. Several threads may share a
    tokenizer.

    :param special_tokens: add CLS, SEP and the like, as the model expects; False gives the text alone
    :param on_progress: called with the number of sequences done since the last call
    """
    parts = list(
        token_parts(
            tokenizer,
            texts,
            pair_texts,
            max_length=max_length,
            special_tokens=special_tokens,
            on_progress=on_progress,
        )
    )
    ids, lengths = _joined([part.ids for part in parts]), _joined([part.lengths for part in parts])
    types = _joined([part.type_ids for part in parts if part.type_ids is not None]) if has_types(tokenizer) else None
    return TokenTable(ids, starts(lengths), types, pad_token_id(tokenizer), max_length)


@dataclass(frozen=True)
class TokenPart:
    """The tokens of some texts. *Shape:* ids, type_ids: (n_tokens,) int32, int8; lengths: (n_texts,)."""

    ids: np.ndarray
    type_ids: np.ndarray | None
    lengths: np.ndarray


def token_parts(
    tokenizer: Any,
    texts: Sequence[str],
    pair_texts: Sequence[str] | None = None,
    *,
    max_length: int,
    special_tokens: bool = True,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[TokenPart]:
    """Yield what `tokenize` joins, 2,048 texts at a time; the parameters are the same."""
    with_types = has_types(tokenizer)
    encode = _fast(tokenizer, max_length, special_tokens) or _slow(tokenizer, max_length, with_types, special_tokens)
    for start in range(0, len(texts), _CHUNK):
        chunk = list(texts[start : start + _CHUNK])
        pairs = None if pair_texts is None else list(pair_texts[start : start + _CHUNK])
        ids, types = encode(chunk, pairs)
        lengths = np.array([len(sequence) for sequence in ids], dtype=np.int32)
        yield TokenPart(_flat(ids), _flat(types).astype(np.int8) if with_types else None, lengths)
        if on_progress is not None:
            on_progress(len(chunk))


def has_types(tokenizer: Any) -> bool:
    """Return whether a tokenizer's model takes token types, which say to which of two texts a token belongs."""
    return "token_type_ids" in tokenizer.model_input_names


_Sequences = list[list[int]]
_Encode = Callable[[list[str], list[str] | None], tuple[_Sequences, _Sequences]]


def _fast(tokenizer: Any, max_length: int, special_tokens: bool) -> _Encode | None:
    """Return a call of the Rust tokenizer itself, without offsets: half the time of the call in transformers."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "encode_batch_fast"):
        return None
    side = getattr(tokenizer, "truncation_side", "right")
    lock = tokenizer_lock(backend)

    def encode(texts: list[str], pairs: list[str] | None) -> tuple[_Sequences, _Sequences]:
        with lock:
            stored_truncation = backend.truncation  # a static model's folder stores its limit here
            backend.enable_truncation(max_length, strategy="longest_first", direction=side)
            backend.no_padding()
            try:
                encodings = _encoded(backend, texts, pairs, special_tokens)
            finally:
                if stored_truncation is None:
                    backend.no_truncation()
                else:
                    backend.enable_truncation(**stored_truncation)
        return [encoding.ids for encoding in encodings], [encoding.type_ids for encoding in encodings]

    return encode


def tokenizer_lock(backend: Any) -> ForkSafeLock:
    """Return the lock of a `tokenizers` tokenizer; a caller must hold it if several threads may use the tokenizer.

    Truncation is a setting of the tokenizer, not of a call. Setting it while another thread encodes raises "Already
    borrowed". A fork waits for the lock, because otherwise the tokenizer would stay borrowed in the child.
    """
    return _LOCKS[(id(backend) >> 4) % len(_LOCKS)]


def _encoded(backend: Any, texts: list[str], pairs: list[str] | None, special_tokens: bool) -> list[Any]:
    try:
        encodings = backend.encode_batch_fast(_inputs(texts, pairs), add_special_tokens=special_tokens)
    except TypeError:  # lone surrogates, which Rust does not accept as text
        repaired = _inputs(_repaired(texts), None if pairs is None else _repaired(pairs))
        encodings = backend.encode_batch_fast(repaired, add_special_tokens=special_tokens)
    return list(encodings)


def _inputs(texts: list[str], pairs: list[str] | None) -> list[Any]:
    return list(texts) if pairs is None else list(zip(texts, pairs, strict=True))


def _repaired(texts: Sequence[str]) -> list[str]:
    r"""Replace each lone surrogate by a replacement character; a pair of surrogates becomes its character.

    >>> _repaired(["a\ud800b", "\ud83d\ude00"])
    ['a�b', '😀']
    """
    return [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]


def _slow(tokenizer: Any, max_length: int, with_types: bool, special_tokens: bool) -> _Encode:
    def encode(texts: list[str], pairs: list[str] | None) -> tuple[_Sequences, _Sequences]:
        encoded = tokenizer(
            texts,
            pairs,
            truncation="longest_first",
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=with_types,
            add_special_tokens=special_tokens,
            verbose=False,
        )
        return encoded["input_ids"], encoded.get("token_type_ids", [])

    return encode


def _flat(sequences: Sequence[Sequence[int]]) -> np.ndarray:
    return np.fromiter(itertools.chain.from_iterable(sequences), dtype=np.int32)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]] | None:
    """Return the ids that a tokenizer adds before and after a text, found with the text "a"; None if that fails."""
    text_ids, all_ids = (
        tokenize(tokenizer, ["a"], max_length=64, special_tokens=with_special).ids.tolist()
        for with_special in (False, True)
    )
    for start in range(len(all_ids) - len(text_ids) + 1):
        if all_ids[start : start + len(text_ids)] == text_ids:
            return all_ids[:start], all_ids[start + len(text_ids) :]
    return None


def unknown_id(tokenizer: object) -> int | None:
    """Return the id of a tokenizer's unknown token, or None if it has none."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is not None:
        return int(unknown)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    for token in ("[UNK]", "<unk>", "<UNK>"):
        number = None if backend is None else backend.token_to_id(token)
        if number is not None:
            return int(number)
    return None


def pad_token_id(tokenizer: Any) -> int:
    """Return the padding id; 0 if a tokenizer has none, because the values at masked positions do not matter."""
    return 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
