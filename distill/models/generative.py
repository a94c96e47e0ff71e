"""Check generative rerankers and tokenize for them: decoders that answer yes or no to a pair, as in `CrossEncoder`.

`distill.runtime.engine_generative` scores pairs with them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill.data.cut_texts import CutTexts
from distill.data.tokens import TokenTable, pad_token_id
from distill.errors import BadInput, loading
from distill.progress import OnProgress

__all__ = ["check_generative", "default_prompt", "template_tokens", "tokenize_templated"]

_LOGITS = "causal_logits"
_ANY_LENGTH = 1_000_000
_PAIRS_AT_ONCE = 256


def default_prompt(model: Any) -> str | None:
    """Return the instruction that a model puts before every pair; None if it stores none."""
    name = model.default_prompt_name
    prompt: str | None = None if name is None else model.prompts.get(name)
    return prompt


def check_generative(name: str, model: Any, max_length: int) -> int:
    """Check a loaded generative reranker with one pair of one-letter texts.

    :returns: the number of tokens that template and instruction take
    :raises BadInput: if its scorer reads an output or a token that the decoder does not have, its template does not
        accept a pair, or leaves no room for one in `max_length`
    """
    scorer, config = model[-1], model[0].model.config
    if type(scorer).__name__ != "LogitScore" or scorer.module_input_name != _LOGITS:
        raise BadInput(f"{name}: LogitScore is to come last and to read {_LOGITS}; copy the folder again")
    ids = [scorer.true_token_id, *([] if scorer.false_token_id is None else [scorer.false_token_id])]
    if any(type(i) is not int or not 0 <= i < config.vocab_size for i in ids):
        id_list = ", ".join(str(i)[:20] for i in ids)
        raise BadInput(
            f"{name}: LogitScore reads the tokens {id_list} of a vocabulary of {config.vocab_size}; copy the folder again"
        )
    with loading(name):
        n_tokens = template_tokens(model)
    if n_tokens + 2 > max_length:
        raise BadInput(
            f"{name}: its template and instruction alone take {n_tokens} tokens; max_length {max_length} leaves no room for a pair, raise it"
        )
    return n_tokens


def tokenize_templated(
    model: Any, queries: Sequence[str], documents: Sequence[str], on_progress: OnProgress | None = None
) -> tuple[TokenTable, CutTexts]:
    """Apply a generative reranker's template and tokenizer to pairs, and count the pairs that are truncated.

    Only the texts of a pair are truncated, never the template, as in sentence-transformers.

    :param on_progress: called with the number of pairs done since its last call
    """
    tokenizer, ids, lengths = model[0].tokenizer, [], []
    for start in range(0, len(queries), _PAIRS_AT_ONCE):
        part = list(
            zip(queries[start : start + _PAIRS_AT_ONCE], documents[start : start + _PAIRS_AT_ONCE], strict=True)
        )
        features = model.preprocess(part, prompt=default_prompt(model))
        mask = features["attention_mask"].numpy().astype(bool)
        ids.append(features["input_ids"].numpy()[mask].astype(np.int32))
        lengths.append(mask.sum(axis=1))
        if on_progress is not None:
            on_progress(len(part))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths or [np.zeros(0, dtype=np.int64)]))])
    token_ids = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32)
    limit = int(model.max_seq_length)
    table = TokenTable(token_ids, offsets, None, pad_token_id(tokenizer), limit, pad_left=True)
    return table, _cut(model, table, queries, documents)


def _cut(model: Any, table: TokenTable, queries: Sequence[str], documents: Sequence[str]) -> CutTexts:
    limit = int(model.max_seq_length)
    full_rows = np.flatnonzero(table.lengths >= limit)
    if not len(full_rows):
        return CutTexts(len(table), 0, 0, limit)
    model.max_seq_length = _ANY_LENGTH
    try:
        pairs = [(queries[row], documents[row]) for row in full_rows.tolist()]
        whole_lengths = model.preprocess(pairs, prompt=default_prompt(model))["attention_mask"].sum(dim=1).numpy()
    finally:
        model.max_seq_length = limit
    lost_tokens = whole_lengths[whole_lengths > limit] - limit
    return CutTexts(len(table), len(lost_tokens), int(np.median(lost_tokens)) if len(lost_tokens) else 0, limit)


def template_tokens(model: Any) -> int:
    """Return the number of tokens that a pair has besides its texts: template, instruction and special tokens."""
    limit = model.max_seq_length
    model.max_seq_length = _ANY_LENGTH  # otherwise a template longer than the limit would be truncated
    try:
        features = model.preprocess([("a", "a")], prompt=default_prompt(model))
    finally:
        model.max_seq_length = limit
    return int(features["attention_mask"].sum()) - 2
