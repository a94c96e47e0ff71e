"""Read and set the prompts that a bi-encoder puts before queries and documents.

Qwen3-Embedding, E5 and EmbeddingGemma store prompts in config_sentence_transformers.json, and score lower without them.
A model keeps its stored prompts unless the recipe states others. A saved model stores the prompts that it uses.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import BadInput

__all__ = [
    "DOCUMENT_PROMPTS",
    "NO_PROMPTS",
    "PROMPTS_FILE",
    "QUERY_PROMPTS",
    "encode_by_role",
    "folder_prompts",
    "give_prompts",
    "keep_prompts",
    "leaves_prompt_out",
    "model_prompts",
    "role_prompts",
    "stored_prompt",
]

PROMPTS_FILE = "config_sentence_transformers.json"
QUERY_PROMPTS, DOCUMENT_PROMPTS = ("query",), ("document", "passage", "corpus")
NO_PROMPTS = ("", "")


def role_prompts(prompts: Mapping[str, str] | None, default_name: str | None = None) -> tuple[str, str]:
    """Return the prompts for queries and documents; a role without a prompt gets the default prompt.

    >>> role_prompts({"query": "query: ", "passage": "passage: "})
    ('query: ', 'passage: ')
    >>> role_prompts({"retrieval": "represent: "}, "retrieval")
    ('represent: ', 'represent: ')
    """
    stored = prompts or {}
    default = stored.get(default_name) or "" if default_name else ""

    def of(names: Sequence[str]) -> str:
        return next((stored[name] for name in names if stored.get(name)), default)

    return of(QUERY_PROMPTS), of(DOCUMENT_PROMPTS)


def stored_prompt(prompts: Mapping[str, str], name: str, folder: Path) -> str:
    """Return one of the prompts that a model folder stores.

    :raises BadInput: if none has that name
    """
    if not isinstance(name, str) or name not in prompts:
        raise BadInput(f"{folder} stores no prompt named {name}; stored: {', '.join(prompts) or 'none'}")
    return prompts[name]


def folder_prompts(folder: Path) -> tuple[str, str]:
    """Return the prompts that a model folder stores for queries and documents.

    :raises BadInput: if its file of prompts is not valid JSON
    """
    path = folder / PROMPTS_FILE
    if not path.is_file():
        return NO_PROMPTS
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is not valid JSON ({error}); copy the folder again or rebuild it") from None
    return role_prompts(stored.get("prompts"), stored.get("default_prompt_name"))


def model_prompts(model: Any) -> tuple[str, str]:
    """Return the prompts of a loaded sentence-transformers model for queries and documents."""
    return role_prompts(getattr(model, "prompts", None), getattr(model, "default_prompt_name", None))


def keep_prompts(model: Any, prompts: Mapping[str, str] | None, default_name: str | None) -> None:
    """Give a model its stored prompts, which are lost when a model is built from its modules.

    The prompts of both roles are also stored as "query" and "document": stock `encode_query` and `encode_document` read
    these names first, and an empty prompt there hides one named "passage", and the default prompt.
    """
    stored = {name: prompt for name, prompt in (prompts or {}).items() if prompt is not None}
    model.prompts = {**model.prompts, **stored}
    model.default_prompt_name = default_name if default_name in stored else None
    model.prompts |= dict(zip(("query", "document"), model_prompts(model), strict=True))


def give_prompts(model: Any, prompts: tuple[str, str]) -> None:
    """Replace a model's prompts for queries and documents by those of a recipe."""
    other_prompts = {
        name: text for name, text in model.prompts.items() if name not in (*QUERY_PROMPTS, *DOCUMENT_PROMPTS)
    }
    model.prompts = {**other_prompts, "query": prompts[0], "document": prompts[1]}
    model.default_prompt_name = None  # it would apply to a role whose prompt is empty


def leaves_prompt_out(model: Any) -> bool:
    """Tell whether a model's pooling ignores the prompt's tokens, as in INSTRUCTOR (include_prompt: false)."""
    return any(getattr(module, "include_prompt", True) is False for module in model)


def encode_by_role(scorer: Any, texts: Sequence[str], roles: Sequence[int], *, progress: Any = False) -> np.ndarray:
    """Embed texts as queries (role 0) or documents (role 1), each with the stored prompt of its role.

    *Shape:* texts, roles: (n_texts,); result: (n_texts, width), float32
    """
    role_ids = np.asarray(roles, dtype=np.int64)
    out = np.zeros((len(texts), scorer.embedding_width), dtype=np.float32)
    for role, encode in ((0, scorer.encode_queries), (1, scorer.encode_documents)):
        rows = np.flatnonzero(role_ids == role)
        if len(rows):
            out[rows] = encode([texts[row] for row in rows.tolist()], progress=progress)
    return out
