"""A fast tokenizer as JSON: where the JSON names which ids, and the same tokenizer over fewer or more of them.

Unigram, WordPiece and BPE models are cut in `tokenizer.json` itself, never through a tokenizer class. transformers 5
rebuilds `XLMRobertaTokenizer` with `unk_id=3` and its own pre-tokenizer, whatever the file says. So the result here is
a plain `PreTrainedTokenizerFast`, which every version loads exactly as the file says.

Ids appear in `model.vocab`, Unigram's `unk_id`, `added_tokens`, the post-processor (also inside a Sequence), and
`padding.pad_id`. The loader gives added tokens that are not in the model the ids after the model's; they stay after
the model's here too.
"""

import json
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from distill.errors import BadInput, JobFailed

__all__ = ["LEAD", "WORD_MARK", "TokenizerJson", "rebuilt", "renumbered"]

Algorithm = Literal["Unigram", "WordPiece", "BPE"]
_ALGORITHMS = ("Unigram", "WordPiece", "BPE")
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
WORD_MARK = "▁"
LEAD = "."  # a first piece of one character, so that the model treats the rest as the inside of a word


class TokenizerJson:
    """The tokens of a tokenizer, from its tokenizer.json.

    :raises BadInput: if the tokenizer has no such JSON, or its model is of another type
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state = state
        name = state["model"].get("type")
        if name not in _ALGORITHMS:
            raise BadInput(f"a tokenizer of type {name}; Unigram, WordPiece and BPE vocabularies can be cut")
        self.algorithm: Algorithm = name

    @classmethod
    def of(cls, tokenizer: Any) -> "TokenizerJson":
        """Read the JSON of a transformers tokenizer in its current state (not its file)."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise BadInput(f"{type(tokenizer).__name__} is no fast tokenizer; save one with a tokenizer.json first")
        return cls.of_backend(backend)

    @classmethod
    def of_backend(cls, backend: Any) -> "TokenizerJson":
        """Read the JSON of a tokenizer of the `tokenizers` library."""
        return cls(json.loads(backend.to_str()))

    @cached_property
    def model_pieces(self) -> dict[int, str]:
        """The model's pieces by id, in ascending order of ids."""
        vocab = self.state["model"]["vocab"]
        if self.algorithm == "Unigram":
            return {i: piece for i, (piece, _) in enumerate(vocab)}
        return dict(sorted((i, piece) for piece, i in vocab.items()))

    @cached_property
    def added(self) -> dict[int, str]:
        """The added tokens by id: special tokens, and others that are matched before the model sees the text."""
        return {token["id"]: token["content"] for token in self.state["added_tokens"]}

    @cached_property
    def tokens(self) -> dict[int, str]:
        """All tokens by id."""
        return dict(sorted({**self.model_pieces, **self.added}.items()))

    @cached_property
    def ids(self) -> dict[str, int]:
        """All ids by token."""
        return {token: i for i, token in self.tokens.items()}

    @property
    def unk_id(self) -> int | None:
        """The id of the unknown token; None if the model has none, or names one that it lacks."""
        model = self.state["model"]
        if self.algorithm == "Unigram":
            return model["unk_id"] if model["unk_id"] is None else int(model["unk_id"])
        return self.ids.get(model["unk_token"])

    @cached_property
    def is_byte_level(self) -> bool:
        """Whether pieces are written in the 256 characters that byte-level BPE uses for bytes."""
        pre_tokenizer = self.state["pre_tokenizer"] or {}
        parts = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
        return self.algorithm == "BPE" and any(part.get("type") == "ByteLevel" for part in parts)

    def post_processor_ids(self) -> set[int]:
        """Return the ids of the tokens that the post-processor adds around a text."""
        return set(_post_processor_ids(self.state["post_processor"]))

    def named_ids(self) -> set[int]:
        """Return every id that the JSON names outside the model's vocabulary, and the id of the unknown token."""
        found = set(self.added) | self.post_processor_ids()
        if self.state["padding"] is not None:
            found.add(self.state["padding"]["pad_id"])
        if self.unk_id is not None:
            found.add(self.unk_id)
        return found & set(self.tokens)

    def letter_ids(self, is_kept: Callable[[str], bool]) -> set[int]:
        """Return ids that must be kept: byte pieces, and single characters (c, ##c, ▁) that `is_kept` accepts.

        Byte-level BPE needs all 256 bytes. Unigram also needs the piece with the lowest score: an unknown character
        scores ten less than it, so a higher lowest score would change how texts with unknown characters are split.
        """
        prefix = self.state["model"].get("continuing_subword_prefix") or ""
        found = set()
        for i, piece in self.model_pieces.items():
            letter = piece.removeprefix(prefix) if len(piece) > 1 else piece
            is_whole = self.is_byte_level or letter == WORD_MARK or is_kept(letter)
            if (len(letter) == 1 and is_whole) or _BYTE_PIECE.fullmatch(piece):
                found.add(i)
        if self.algorithm == "Unigram":
            scores = self.state["model"]["vocab"]
            found.add(min(range(len(scores)), key=lambda i: (scores[i][1], i)))
        return found

    @cached_property
    def parents(self) -> dict[int, set[int]]:
        """For BPE: the ids of all parts from which merges make a piece, by the piece's id; {} for the other models."""
        found: dict[int, set[int]] = {}
        for left, right, result in self._merges():
            found.setdefault(self.ids[result], set()).update((self.ids[left], self.ids[right]))
        return found

    def with_parents(self, kept: Iterable[int]) -> set[int]:
        """Add the parents of the pieces to a set of ids, recursively: a merge cannot apply if its parts are missing."""
        todo, closed = list(kept), set(kept)
        while todo:
            new = self.parents.get(todo.pop(), set()) - closed
            closed |= new
            todo += new
        return closed

    def _merges(self) -> Iterator[tuple[str, str, str]]:
        if self.algorithm != "BPE":
            return
        n_prefix = len(self.state["model"].get("continuing_subword_prefix") or "")
        for merge in self.state["model"]["merges"]:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            yield left, right, left + right[n_prefix:]

    def in_order(self, kept: Collection[int], pad_id: int | None) -> list[int]:
        """Return old ids in their new order: the model's, then the added ones; the padding id stays if possible.

        The RoBERTa family counts positions from the padding id, so the padding id must not change there.
        """
        model = [i for i in self.model_pieces if i in kept]
        if pad_id in model and model.index(pad_id) < pad_id < len(model):
            model.remove(pad_id)
            model.insert(pad_id, pad_id)
        return model + sorted(i for i in kept if i not in self.model_pieces)

    def cut(self, order: list[int]) -> "TokenizerJson":
        """Return the tokenizer over the given old ids, renumbered in that order (see `in_order`)."""
        return self._with_ids({old: i for i, old in enumerate(order)})

    def extended(
        self, pieces: Mapping[str, float], merges: Sequence[tuple[str, str]], pad_id: int | None
    ) -> tuple["TokenizerJson", dict[int, int]]:
        """Return the tokenizer with more pieces after the model's own, and the new id of each old one.

        :param pieces: the new pieces with their scores, which only Unigram uses
        :param merges: the BPE merges that make the new pieces; they are added after the existing merges
        :param pad_id: the padding id, which stays the same if possible
        """
        order = self.in_order(self.tokens.keys(), pad_id)
        n_model = len(self.model_pieces)
        moved = {old: i if i < n_model else i + len(pieces) for i, old in enumerate(order)}
        extended = self._with_ids(moved)
        vocab = extended.state["model"]["vocab"]
        if self.algorithm == "Unigram":
            vocab.extend([piece, score] for piece, score in pieces.items())
        else:
            vocab.update((piece, n_model + i) for i, piece in enumerate(pieces))
        if self.algorithm == "BPE":
            extended.state["model"]["merges"].extend(list(pair) for pair in merges)
        return TokenizerJson(extended.state), moved

    def _with_ids(self, new: Mapping[int, int]) -> "TokenizerJson":
        """Return the tokenizer over old ids, given their new ids in ascending order."""
        model = dict(self.state["model"])
        if self.algorithm == "Unigram":
            model["vocab"] = [self.state["model"]["vocab"][i] for i in new if i in self.model_pieces]
            model["unk_id"] = None if self.unk_id is None else new[self.unk_id]
        else:
            model["vocab"] = {self.model_pieces[i]: new[i] for i in new if i in self.model_pieces}
        if self.algorithm == "BPE":
            model["merges"] = [
                [left, right]
                for left, right, result in self._merges()
                if {left, right, result} <= model["vocab"].keys()
            ]
        padding = self.state["padding"]
        return TokenizerJson(
            {
                **self.state,
                "model": model,
                "added_tokens": sorted(
                    ({**token, "id": new[token["id"]]} for token in self.state["added_tokens"]),
                    key=lambda token: token["id"],
                ),
                "post_processor": renumbered(self.state["post_processor"], new),
                "padding": padding and {**padding, "pad_id": new.get(padding["pad_id"], 0)},
            }
        )

    def unreachable(self) -> list[str]:
        """Return pieces that the model never produces: their own text is split into other pieces.

        Added tokens and byte pieces are skipped: they are matched without the model, or used as a fallback.
        """
        model = self.backend().model
        prefix = self.state["model"].get("continuing_subword_prefix") or ""
        inner = bool(prefix) and self.algorithm == "WordPiece"
        skipped = self.named_ids()
        found = []
        for i, piece in self.model_pieces.items():
            if i in skipped or _BYTE_PIECE.fullmatch(piece):
                continue
            if inner and piece.startswith(prefix) and len(piece) > len(prefix):
                pieces = [token.value for token in model.tokenize(LEAD + piece.removeprefix(prefix))][1:]
                is_reached = pieces == [piece] or LEAD not in self.ids  # it cannot be tested without LEAD
            else:
                is_reached = [token.value for token in model.tokenize(piece)] == [piece]
            if not is_reached:
                found.append(piece)
        return found

    def backend(self) -> Any:
        """Return the tokenizer of the `tokenizers` library, without truncation and padding."""
        from tokenizers import Tokenizer

        return Tokenizer.from_str(json.dumps({**self.state, "truncation": None, "padding": None}, ensure_ascii=False))

    def read(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts, without special tokens around them."""
        return [encoding.ids for encoding in self.backend().encode_batch_fast(list(texts), add_special_tokens=False)]


def _post_processor_ids(processor: Mapping[str, Any] | None) -> Iterator[int]:
    if processor is None:
        return
    for part in processor.get("processors", []):
        yield from _post_processor_ids(part)
    for name in ("sep", "cls"):
        if name in processor:
            yield processor[name][1]
    for token in (processor.get("special_tokens") or {}).values():
        yield from token["ids"]


def renumbered(processor: Mapping[str, Any] | None, new: Mapping[int, int]) -> dict[str, Any] | None:
    """Return a post-processor with new ids."""
    if processor is None:
        return None
    changed = dict(processor)
    if "processors" in processor:
        changed["processors"] = [renumbered(part, new) for part in processor["processors"]]
    for name in ("sep", "cls"):
        if name in processor:
            changed[name] = [processor[name][0], new[processor[name][1]]]
    if "special_tokens" in processor:
        changed["special_tokens"] = {
            name: {**token, "ids": [new[i] for i in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
    return changed


def rebuilt(tokenizer: Any, changed: TokenizerJson, **settings: Any) -> Any:
    """Return a transformers tokenizer with another JSON and all other settings of the given one.

    :param settings: entries that override those of its `tokenizer_config.json`
    :raises JobFailed: if the loaded tokenizer does not give every token the id in the JSON
    """
    from transformers import PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")) | settings
        # by default the class has no token types; with add_bos_token or add_eos_token it writes its own template
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": tokenizer.model_input_names}
        for key in ("added_tokens_decoder", "add_bos_token", "add_eos_token", "vocab_file", "merges_file"):
            settings.pop(key, None)
        for path in folder.iterdir():  # vocab.txt, merges.txt or sentencepiece.bpe.model would still hold every token
            path.unlink()
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
        text = json.dumps(changed.state, ensure_ascii=False)
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")
        new = PreTrainedTokenizerFast.from_pretrained(folder)
    if new.get_vocab() != changed.ids:
        raise JobFailed(f"the cut tokenizer has {len(new)} tokens when loaded, {len(changed.ids)} were written")
    return new
