"""Token ids on disk: texts that several trainings of a run share are tokenised once, and memory-mapped.

    .work/tokens/<hash>/ids.bin · lengths.bin · type_ids.bin · tokens.json

The name is a hash of the tokenizer, the length and all texts, so that other texts never get these ids. A folder is
complete, because it gets this name by a rename at the end; the digests of its files are checked before use. Small sets
stay in memory.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.ragged import starts
from distill.data.tokens import TokenTable, has_types, pad_token_id, token_parts, tokenize
from distill.errors import BadInput
from distill.files.artefact import content_hash, new_folder, read_json, write_json
from distill.files.hashing import file_digest, texts_digest

__all__ = ["LEAST_SEQUENCES", "tokenize_once"]

LEAST_SEQUENCES = 50_000
_FILES = {"ids": np.int32, "lengths": np.int32, "type_ids": np.int8}
_CARD = "tokens.json"


def tokenize_once(
    folder: Path,
    tokenizer: Any,
    texts: Sequence[str],
    pair_texts: Sequence[str] | None = None,
    *,
    max_length: int,
    on_progress: Callable[[int], None] | None = None,
) -> TokenTable:
    """Tokenise texts as `distill.data.tokens.tokenize` does, or read the result of an earlier call from a folder.

    :param folder: holds one folder for each set of texts
    """
    state = _state(tokenizer, max_length)
    if len(texts) < LEAST_SEQUENCES or state is None:
        return tokenize(tokenizer, texts, pair_texts, max_length=max_length, on_progress=on_progress)
    target = folder / content_hash(
        [state, texts_digest(texts), None if pair_texts is None else texts_digest(pair_texts)]
    )
    if (found := _read(target, tokenizer, max_length)) is not None:
        if on_progress is not None:
            on_progress(len(texts))
        return found
    shutil.rmtree(target, ignore_errors=True)
    names = [name for name in _FILES if name != "type_ids" or has_types(tokenizer)]
    with new_folder(target) as new_target:
        files = {name: (new_target / f"{name}.bin").open("wb") for name in names}
        try:
            for part in token_parts(tokenizer, texts, pair_texts, max_length=max_length, on_progress=on_progress):
                for name, file in files.items():
                    file.write(np.ascontiguousarray(getattr(part, name), dtype=_FILES[name]).data)
        finally:
            for file in files.values():
                file.close()
        write_json(new_target / _CARD, {name: _file_digest(new_target / f"{name}.bin") for name in names})
    table = _read(target, tokenizer, max_length)
    if table is None:
        raise BadInput(f"{target} is not what was just written there; look at the disk, and run the command again")
    return table


def _state(tokenizer: Any, max_length: int) -> list[Any] | None:
    """Return everything besides the text that determines a tokenizer's output; None without a Rust backend."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    content = json.loads(backend.to_str())
    rules = {name: value for name, value in content.items() if name not in ("truncation", "padding")}
    return [rules, getattr(tokenizer, "truncation_side", "right"), has_types(tokenizer), max_length]


def _file_digest(path: Path) -> str:
    return str(file_digest(path, lambda: hashlib.blake2b(digest_size=16)).hexdigest())


def _read(folder: Path, tokenizer: Any, max_length: int) -> TokenTable | None:
    """Return the table in a folder; None if it is missing or incomplete."""
    card = folder / _CARD
    if not card.is_file():
        return None
    digests = read_json(card)
    names = {name for name in _FILES if name != "type_ids" or has_types(tokenizer)}
    paths = {name: folder / f"{name}.bin" for name in names}
    if set(digests) != names or not all(path.is_file() for path in paths.values()):
        return None
    if any(_file_digest(path) != digests[name] for name, path in paths.items()):
        return None
    arrays = {name: np.memmap(path, dtype=_FILES[name], mode="r").view(np.ndarray) for name, path in paths.items()}
    offsets = starts(arrays["lengths"])
    return TokenTable(arrays["ids"], offsets, arrays.get("type_ids"), pad_token_id(tokenizer), max_length)
