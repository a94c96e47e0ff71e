"""The text of a piece, and whether it begins a word.

"▁foo" (Unigram), "foo" (WordPiece) and "Ġfoo" (BPE) begin a word; "foo", "##foo" and "foo" continue one.

This finds the old pieces for a new token's text, despite the differences between tokenizers: marks of word boundaries,
bytes written as letters, and the old normaliser's changes to a text (lower case, decomposed Hangul).
"""

from functools import cached_property
from typing import Any

from students.vocabulary.tokenizer_json import LEAD, WORD_MARK, TokenizerJson

__all__ = ["OldPieces", "byte_letters", "bytes_of", "surface"]


def byte_letters() -> dict[str, int]:
    """Return the byte for each letter of byte-level BPE (Radford et al. 2019); printable ones are their own."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


def bytes_of(piece: str) -> bytes:
    """Return the bytes of a piece of a byte-level vocabulary.

    :raises KeyError: for a letter that stands for no byte
    """
    return bytes(_BYTE_OF_LETTER[letter] for letter in piece)


_BYTE_OF_LETTER = byte_letters()
_LETTER_OF_BYTE = {byte: letter for letter, byte in _BYTE_OF_LETTER.items()}


def surface(tokenizer: TokenizerJson, piece: str) -> tuple[bool, str] | None:
    """Return whether a piece begins a word, and its text; None for part of a character or a piece without text."""
    if tokenizer.is_byte_level:
        try:
            text = bytes_of(piece).decode()
        except (KeyError, UnicodeDecodeError):
            return None
        begins, text = text.startswith(" "), text.removeprefix(" ")
    elif tokenizer.algorithm == "WordPiece":
        prefix = tokenizer.state["model"]["continuing_subword_prefix"]
        inside = len(piece) > len(prefix) and piece.startswith(prefix)
        begins, text = not inside, piece.removeprefix(prefix) if inside else piece
    else:
        begins, text = piece.startswith(WORD_MARK), piece.removeprefix(WORD_MARK)
    return (begins, text) if text else None


class OldPieces:
    """Looks up pieces of the old vocabulary by their text."""

    def __init__(self, old: TokenizerJson) -> None:
        self.old, self.backend = old, old.backend()

    @cached_property
    def _by_surface(self) -> dict[tuple[bool, str], int]:
        skipped = self.old.named_ids()
        found: dict[tuple[bool, str], int] = {}
        for i, piece in self.old.model_pieces.items():
            surface_form = surface(self.old, piece) if i not in skipped else None
            if surface_form is not None:
                found.setdefault(surface_form, i)
        return found

    def match(self, new: TokenizerJson, piece: str) -> int | None:
        """Return the old id with a new piece's text, with the same word boundary or else the other; None if none."""
        surface_form = surface(new, piece)
        if surface_form is None:
            return None
        begins, text = surface_form[0], self._normal(surface_form[1])
        found = self._by_surface.get((begins, text), self._by_surface.get((not begins, text)))
        return found

    def parts(self, new: TokenizerJson, piece: str) -> list[int]:
        """Return the ids of the old pieces of a new piece's text, without unknown tokens."""
        surface_form = surface(new, piece)
        if surface_form is None:
            return []
        begins, text = surface_form
        ids = [] if begins else self._inside(self._normal(text))
        if not ids:
            spaced_text = f" {text}" if self.old.is_byte_level else text
            ids = [i for i in self.backend.encode(spaced_text, add_special_tokens=False).ids if i != self.old.unk_id]
        return [i for i in ids if self.old.tokens[i] != WORD_MARK]

    def _inside(self, text: str) -> list[int]:
        """Tokenise text as the inside of a word; return [] if that is not possible without unknown tokens."""
        model: Any = self.backend.model
        if self.old.algorithm == "WordPiece":
            tokens = model.tokenize(LEAD + text)
            tokens = tokens[1:] if tokens and tokens[0].value == LEAD else []
        elif self.old.is_byte_level:
            tokens = model.tokenize("".join(_LETTER_OF_BYTE[byte] for byte in text.encode()))
        else:
            tokens = model.tokenize(text)
        ids = [token.id for token in tokens]
        return [] if self.old.unk_id in ids else ids

    def _normal(self, text: str) -> str:
        """Return a text as the old normaliser changes it, without the spaces or marks that it adds at the ends."""
        normalizer = self.backend.normalizer
        return text if normalizer is None else normalizer.normalize_str(text).strip(f" {WORD_MARK}") or text
