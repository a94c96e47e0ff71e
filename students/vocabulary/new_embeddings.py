"""Initial embeddings of new tokens, computed from those of the old vocabulary.

    exact   the old embedding of the same text, ignoring marks of word boundaries; all others are drawn at random
    mean    … else the mean of the old tokens of the same text (VIPI, Mosin et al. 2023)
    focus   … else a mixture of the embeddings of tokens that both vocabularies have, weighted by sparsemax over the
            similarity in an auxiliary space (FOCUS, Dobler & de Melo 2023)

FOCUS uses fastText vectors as its auxiliary space. Nothing is downloaded here: the space is an SVD of the positive
pointwise mutual information between the new tokens and the texts that contain them (Levy & Goldberg 2014 on the
factorisation; Dumais et al. 1997 on texts joined with their translations, which relates Korean to English tokens).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from distill.data.tokens import tokenize
from students.vocabulary.surface import OldPieces
from students.vocabulary.tokenizer_json import TokenizerJson
from students.vocabulary.word_embeddings import replace_vocabulary, word_embedding

__all__ = ["Inherited", "Start", "auxiliary_space", "give_new_embeddings", "sparsemax"]

Start = Literal["exact", "mean", "focus"]
_NO_LIMIT = 1 << 24
_SPACE_WIDTH = 256  # dimensions of the auxiliary space in which similar tokens are found
_SPACE_TEXTS = 200_000  # texts used for the auxiliary space: at most the first so many
_SIMILARITIES_AT_ONCE = 512


@dataclass(frozen=True)
class Inherited:
    """The new ids of old tokens that keep their embeddings.

    :param tokens: new ids by old ids
    :param special: old ids without a meaning in texts: new tokens never start from them
    """

    tokens: Mapping[int, int]
    special: Collection[int]


def give_new_embeddings(
    transformer: Any,
    tokenizers: tuple[TokenizerJson, TokenizerJson],
    new_tokenizer: Any,
    kept: Inherited,
    start: tuple[Start, int],
    contexts: Sequence[Sequence[str]],
) -> dict[str, int]:
    """Give a model, in place, embeddings for another vocabulary; return how many tokens were initialised in which way.

    :param tokenizers: the old and the new one
    :param new_tokenizer: the new one as a transformers tokenizer
    :param start: how embeddings are initialised, and the seed of the random ones
    :param contexts: groups of texts that belong together, for the auxiliary space
    """
    old, new = tokenizers
    weights, starts = _mixtures(old, new, new_tokenizer, kept, start[0], contexts)
    mixing, drawn = _as_matrix(weights, new, word_embedding(transformer).num_embeddings)
    replace_vocabulary(transformer, lambda rows: _rows(rows, mixing, drawn, start[1]), len(new.tokens), kept.tokens)
    return starts


def _mixtures(
    old: TokenizerJson,
    new: TokenizerJson,
    new_tokenizer: Any,
    kept: Inherited,
    start: Start,
    contexts: Sequence[Sequence[str]],
) -> tuple[dict[int, dict[int, float]], dict[str, int]]:
    """Return the weights of old tokens by new token, and how many new tokens are initialised in which way."""
    pieces = OldPieces(old)
    weights: dict[int, dict[int, float]] = {new_id: {old_id: 1.0} for old_id, new_id in kept.tokens.items()}
    copied = set(weights)
    for i, piece in new.model_pieces.items():
        match = pieces.match(new, piece) if i not in weights else None
        if match is not None:
            weights[i] = {match: 1.0}
            copied.add(i)
    remaining = [i for i in new.model_pieces if i not in weights]
    if start == "mean":
        for i in remaining:
            parts = pieces.parts(new, new.model_pieces[i])
            if parts:
                weights[i] = {part: parts.count(part) / len(parts) for part in set(parts)}
    elif start == "focus":
        special = {kept.tokens[i] for i in kept.special if i in kept.tokens}
        overlap = {i: next(iter(weights[i])) for i in sorted(copied - special)}
        weights |= _similar(new_tokenizer, len(new.tokens), remaining, overlap, contexts)
    n_mixed = len(weights) - len(copied)
    starts = {
        "copied": len(copied),
        "pieces": n_mixed * (start == "mean"),
        "similar": n_mixed * (start == "focus"),
        "drawn": sum(i not in weights for i in new.tokens),
    }
    return weights, starts


def _as_matrix(weights: Mapping[int, Mapping[int, float]], new: TokenizerJson, n_old: int) -> tuple[Any, np.ndarray]:
    """Return the weights of the old rows in each new row as a matrix, and the new tokens that are drawn at random.

    *Shape:* mixing: sparse (n_new, n_old); drawn: (n_drawn,)
    """
    from scipy.sparse import coo_matrix

    entries = [(i, j, weight) for i, parts in weights.items() for j, weight in parts.items()]
    rows, columns, values = (np.array(side) for side in zip(*entries, strict=True))
    drawn = np.array([i for i in new.tokens if i not in weights], dtype=np.int64)
    return coo_matrix((values, (rows, columns)), shape=(len(new.tokens), n_old)).tocsr(), drawn


def _rows(old: Any, mixing: Any, drawn: np.ndarray, seed: int) -> Any:
    """Mix old rows (or biases) into new ones; draw the others with the mean and spread of the old rows, per value."""
    import torch

    values = old.float().cpu().numpy().reshape(len(old), -1)
    rows = np.asarray(mixing @ values[: mixing.shape[1]], dtype=np.float32)
    noise = np.random.default_rng(seed).standard_normal((len(drawn), values.shape[1]), dtype=np.float32)
    rows[drawn] = values.mean(axis=0) + values.std(axis=0) * noise
    return torch.from_numpy(rows).reshape(-1, *old.shape[1:]).to(old.device)


def _similar(
    tokenizer: Any,
    n_tokens: int,
    remaining: Sequence[int],
    overlap: Mapping[int, int],
    contexts: Sequence[Sequence[str]],
) -> dict[int, dict[int, float]]:
    """Return weights of old tokens for the new tokens in `remaining`, except for tokens that never occur in the corpus.

    :param overlap: the old id of each new token that both vocabularies have
    """
    context_texts = ["\n".join(texts) for texts in contexts[:_SPACE_TEXTS]]
    table = tokenize(tokenizer, context_texts, max_length=_NO_LIMIT, special_tokens=False)
    space = auxiliary_space(table.ids, table.offsets, n_tokens)
    has_vector = np.abs(space).sum(axis=1) > 0
    anchors = np.array([i for i in overlap if has_vector[i]], dtype=np.int64)
    old_ids = np.array([overlap[int(i)] for i in anchors], dtype=np.int64)
    todo = np.array([i for i in remaining if has_vector[i]], dtype=np.int64)
    if not len(anchors):
        return {}
    found = {}
    for begin in range(0, len(todo), _SIMILARITIES_AT_ONCE):
        batch = todo[begin : begin + _SIMILARITIES_AT_ONCE]
        for i, row in zip(batch.tolist(), sparsemax(space[batch] @ space[anchors].T), strict=True):
            chosen = np.flatnonzero(row)
            weights: dict[int, float] = {}
            for place in chosen.tolist():  # two new tokens may have the same old token
                weights[int(old_ids[place])] = weights.get(int(old_ids[place]), 0.0) + float(row[place])
            found[i] = weights
    return found


def auxiliary_space(ids: np.ndarray, offsets: np.ndarray, n_tokens: int, width: int = _SPACE_WIDTH) -> np.ndarray:
    """Return unit vectors of tokens, close if the tokens occur in the same texts; zero for unseen ones.

    The positive pointwise mutual information of token t and text d is max(0, log n(t, d)·N / (n(t)·n(d))); its SVD
    U S Vᵀ gives the vectors V √S.

    *Shape:* ids: (n_occurrences,); offsets: (n_texts + 1,); result: (n_tokens, width)
    """
    from scipy.sparse import csr_matrix
    from sklearn.utils.extmath import randomized_svd

    n_texts = len(offsets) - 1
    matrix = csr_matrix((np.ones(len(ids), dtype=np.float32), ids, offsets), shape=(n_texts, n_tokens))
    matrix.sum_duplicates()
    text_lengths, token_counts = np.diff(offsets), np.bincount(ids, minlength=n_tokens)
    rows = np.repeat(np.arange(n_texts), np.diff(matrix.indptr))
    expected = text_lengths[rows].astype(np.float64) * token_counts[matrix.indices] / max(len(ids), 1)
    matrix.data = np.maximum(np.log(matrix.data / expected), 0).astype(np.float32)
    width = min(width, n_texts, n_tokens)
    _, scale, directions = randomized_svd(matrix, width, n_iter=4, random_state=0)
    vectors = directions.T * np.sqrt(scale)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.where((token_counts > 0)[:, None] & (lengths > 1e-9), vectors / np.maximum(lengths, 1e-9), 0)
    return np.asarray(vectors, dtype=np.float32)


def sparsemax(scores: np.ndarray) -> np.ndarray:
    """Project rows onto the probability simplex (Martins & Astudillo 2016): like softmax, but with exact zeros.

    *Shape:* (n, n_scores) → (n, n_scores)

    >>> sparsemax(np.array([[1.0, 0.5, -1.0]]))
    array([[0.75, 0.25, 0.  ]])
    """
    descending = -np.sort(-scores, axis=1)
    sums = np.cumsum(descending, axis=1)
    places = np.arange(1, scores.shape[1] + 1)
    support = (1 + places * descending > sums).sum(axis=1)
    threshold = (sums[np.arange(len(scores)), support - 1] - 1) / support
    return np.asarray(np.maximum(scores - threshold[:, None], 0))
