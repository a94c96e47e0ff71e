"""Static students: one vector per token, made by the backbone; a text's embedding is the mean of its tokens' vectors.

The method is model2vec (Tulkens & van Dongen 2024).

    each token between the special tokens ──▶ backbone, its pooling ──▶ minus the mean of all tokens ──▶ × weight

The quality of an untrained table depends on the weight. Weights by the token's frequency in the recipe's own text raise
Spearman on STS-B dev from .685 to .80 (MiniLM's 30,522 tokens). SIF by rank in the vocabulary, which model2vec uses
without a text, gives .749. The least-squares start of `students.cut.dimensions` raises all of them, and training on the
teacher's embeddings brings them close together (the teacher itself has .867):

    weighting                     none   zipf   sif, a = 1e-2   1e-3   1e-4
    as it is                      .685   .794            .776   .799   .782
    through least squares         .825   .834            .831   .833   .806
    trained, 18,400 texts × 4     .837   .840            .837   .838   .840

Special tokens get a zero vector: stock `StaticEmbedding` never uses them, and the unknown token carries no meaning.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from distill.data.tokens import special_tokens, tokenize
from distill.errors import BadInput
from distill.models.modeling import bi_encoder, tokenizer_of, without_last_norm
from distill.recipe.schema import Static

__all__ = ["static_model", "token_vectors", "token_weights"]

_SIF_SMOOTHING = 1e-3  # a of Arora et al. (2017): a token of frequency p has the weight a / (a + p)
_TOKENS_AT_ONCE = 1024


def static_model(model: Any, settings: Static, texts: Sequence[str], *, max_length: int) -> Any:
    """Return the static student of a bi-encoder: a tokenizer, a table of token vectors, and Normalize.

    :param texts: the texts in which tokens are counted
    :raises BadInput: for a tokenizer without a tokenizer.json, which stock `StaticEmbedding` cannot read
    """
    import copy

    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = tokenizer_of(model)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise BadInput("student.static: this tokenizer has no fast form, which a static student needs")
    table = tokenize(tokenizer, texts, max_length=max_length, special_tokens=False)
    vectors = token_vectors(model)
    counts = np.bincount(table.ids, minlength=len(vectors))
    special = np.isin(np.arange(len(vectors)), tokenizer.all_special_ids)
    vectors = (vectors - vectors[~special].mean(axis=0)) * token_weights(counts, settings.weighting)[:, None]
    vectors[special] = 0.0
    return bi_encoder([StaticEmbedding(copy.deepcopy(backend), embedding_weights=vectors.astype(np.float32))], None)


def token_weights(counts: np.ndarray, weighting: str) -> np.ndarray:
    """Return the weight of each token, from its number of occurrences in the text.

    sif: a / (a + p) with a = 1e-3 and p the token's share of all tokens (Arora, Liang & Ma 2017). zipf: log(1 + rank),
    where the most frequent token has rank 1. none: 1.

    *Shape:* counts: (n_tokens,) → (n_tokens,)

    >>> token_weights(np.array([999, 1, 0]), "sif").round(4).tolist()  # shares .999, .001 and 0
    [0.001, 0.5, 1.0]
    >>> token_weights(np.array([1, 5, 0]), "zipf").round(4).tolist()  # ranks 2, 1, 3
    [1.0986, 0.6931, 1.3863]
    """
    if weighting == "sif":
        return np.asarray(_SIF_SMOOTHING / (_SIF_SMOOTHING + counts / max(1, counts.sum())))
    if weighting == "zipf":
        rank = np.empty(len(counts))
        rank[np.argsort(-counts, kind="stable")] = np.arange(1, len(counts) + 1)
        return np.asarray(np.log1p(rank))
    return np.ones(len(counts))


def token_vectors(model: Any) -> np.ndarray:
    """Embed each token of a bi-encoder's vocabulary by itself, between the special tokens, before normalisation.

    *Shape:* (n_tokens, width)
    """
    import torch

    body = without_last_norm(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before, after = special_tokens(tokenizer_of(model)) or ([], [])
    n_tokens = model[0].model.get_input_embeddings().weight.shape[0]
    parts = []
    model.eval().to(device)
    with torch.inference_mode():
        for ids in _blocks(n_tokens):
            inputs = torch.tensor([[*before, token, *after] for token in ids], device=device)
            state = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
            for module in body:
                state = module(state)
            parts.append(state["sentence_embedding"].float().cpu().numpy())
    model.to("cpu")
    return np.concatenate(parts)


def _blocks(n_tokens: int) -> Iterator[range]:
    return (range(i, min(i + _TOKENS_AT_ONCE, n_tokens)) for i in range(0, n_tokens, _TOKENS_AT_ONCE))
