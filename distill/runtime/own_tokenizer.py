"""Copy a tokenizer for a scorer, so that no other code sets its truncation; the copy can read special tokens as text.

Stock sentence-transformers reads "[SEP]" or "</s>" in a text as the special token, so the author of a text can change
its score. As text, such a string is split like any other word, by any algorithm; SentencePiece's own library does the
same.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Any

from distill.errors import BadInput
from distill.models.files import LightTokenizer

__all__ = ["own_tokenizer", "special_token_ids"]


def own_tokenizer(tokenizer: Any, *, special_tokens_as_text: bool) -> Any:
    """Return a copy of a tokenizer, with the same ids.

    :param tokenizer: a tokenizer of transformers, or a `LightTokenizer`, which only the scorer uses and is not copied
    :param special_tokens_as_text: read special tokens in a text as ordinary text; those added around a text stay
    :raises BadInput: if `special_tokens_as_text` is set for a tokenizer without a tokenizer.json
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "encode_batch_fast"):
        if special_tokens_as_text:
            raise BadInput("special_tokens_as_text needs a tokenizer.json; save the tokenizer as a fast one")
        return tokenizer
    if isinstance(tokenizer, LightTokenizer) and not special_tokens_as_text:
        return tokenizer
    state = json.loads(backend.to_str())
    if special_tokens_as_text:
        state = _without_special_tokens(state)
    return LightTokenizer(
        _read(state),
        tuple(tokenizer.model_input_names),
        tokenizer.pad_token_id,
        tokenizer.truncation_side,
        tokenizer.model_max_length,
    )


def special_token_ids(tokenizer: Any) -> set[int]:
    """Return the ids of a tokenizer's special tokens."""
    ids = getattr(tokenizer, "all_special_ids", None)
    if ids is not None:
        return set(ids)
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return {number for number, token in added.items() if token.special}


def _read(state: Mapping[str, Any]) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(state, ensure_ascii=False))


def _without_special_tokens(state: dict[str, Any]) -> dict[str, Any]:
    """Return a tokenizer state that does not recognise special tokens in a text; all ids stay.

    Special tokens are renamed to strings that occur in no text, so that they are not split off first. The pieces of the
    same name are renamed too: otherwise a Unigram model would find "</s>" among its pieces, and a WordPiece model would
    find "[SEP]" if its pre-tokenizer does not split at "[". None is removed: the loader numbers added tokens that are
    not in the model one after the other, so a token behind a removed one would get the id of a special token.
    """
    special = {token["content"] for token in state.get("added_tokens") or [] if token["special"]}
    prefix = secrets.token_hex(8)  # random, so that no author can put it into a text
    model = dict(state["model"])
    unknown = model.get("unk_token")
    if isinstance(model["vocab"], Mapping):
        model["vocab"] = {prefix + piece if piece in special else piece: n for piece, n in model["vocab"].items()}
    else:
        model["vocab"] = [[prefix + piece if piece in special else piece, score] for piece, score in model["vocab"]]
    if unknown is not None and unknown in special:
        model["unk_token"] = prefix + unknown
    if model.get("merges"):
        parts = ((pair, pair if isinstance(pair, list) else pair.split(" ", 1)) for pair in model["merges"])
        model["merges"] = [pair for pair, (left, right) in parts if not {left, right, left + right} & special]
    added = [
        {**token, "content": prefix + token["content"]} if token["special"] else token
        for token in state.get("added_tokens") or []
    ]
    return {**state, "model": model, "added_tokens": added}
