"""How much each layer, head and neuron changes a model's outputs, on a sample of the recipe's own pairs.

Labels are not needed: the outputs to preserve are the model's own scores and, for a bi-encoder, the geometry of its
embeddings. A layer is judged by how the outputs change without it (`output_change`). Heads and neurons are too many to
remove one by one, so they are judged by a first-order estimate of that change (`head_and_neuron_importance`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.data.pairs import Pairs
from distill.data.tokens import tokenize
from distill.files.artefact import ModelKind
from distill.models.modeling import tokenizer_of, transformer_of
from students.cut.structure import Layer

__all__ = ["Importance", "PairBatch", "head_and_neuron_importance", "output_change", "outputs", "pair_batches"]

_N_PAIRS = 256  # pairs on which importance is measured, at most
_N_TOKENS = 16_384  # tokens in all: long texts mean fewer pairs, in the same time
_LEAST_PAIRS = 16  # pairs at least, however long they are
_BATCH_TOKENS = 4096  # tokens of a forward pass, with padding


@dataclass(frozen=True)
class PairBatch:
    """Padded token ids of some pairs.

    A cross-encoder has one row per pair; a bi-encoder has first all queries, then all documents.

    *Shape:* each value of features: (n_rows, n_tokens)
    """

    features: dict[str, Tensor]
    n_pairs: int


def pair_batches(
    model: Any, kind: ModelKind, pairs: Pairs, *, max_length: int, prompts: tuple[str, str] | None = None, seed: int = 0
) -> list[PairBatch]:
    """Draw pairs and batch them by length: at most 256, fewer if texts are long (16,384 tokens, at least 16 pairs)."""
    rows = np.random.default_rng([seed, len(pairs)]).permutation(len(pairs))[:_N_PAIRS]
    sample, (query_prompt, document_prompt) = pairs.select(rows), prompts or ("", "")
    tokenizer, n = tokenizer_of(model), len(sample)
    if kind == "cross_encoder":
        tokens = tokenize(tokenizer, sample.queries, sample.documents, max_length=max_length)
        lengths = tokens.lengths
    else:
        texts = [query_prompt + text for text in sample.queries] + [document_prompt + text for text in sample.documents]
        tokens = tokenize(tokenizer, texts, max_length=max_length)
        lengths = tokens.lengths[:n] + tokens.lengths[n:]
    n_kept = max(min(n, _LEAST_PAIRS), int(np.searchsorted(np.cumsum(lengths), _N_TOKENS, side="right")))
    order = np.argsort(lengths[:n_kept], kind="stable")
    size = max(1, _BATCH_TOKENS // max(1, int(lengths[order[-1]])))
    batches = []
    for start in range(0, n_kept, size):
        chunk = order[start : start + size]
        sequences = chunk if kind == "cross_encoder" else np.concatenate([chunk, n + chunk])
        batches.append(PairBatch(tokens.batch(sequences), len(chunk)))
    return batches


def _forward(model: Any, kind: ModelKind, batch: PairBatch) -> Tensor:
    """Return logits, or embeddings of unit length. *Shape:* (n_pairs, 1) or (2 · n_pairs, width)."""
    device = next(model.parameters()).device
    result = model({name: value.to(device) for name, value in batch.features.items()})
    if kind == "cross_encoder":
        scores: Tensor = result["scores"].reshape(-1, 1)
        return scores
    return nn.functional.normalize(result["sentence_embedding"], dim=-1)


@torch.no_grad()
def outputs(model: Any, kind: ModelKind, batches: Sequence[PairBatch]) -> Tensor:
    """Return a model's outputs for all pairs. *Shape:* (n_pairs, 1) logits, or (2 · n_pairs, width) embeddings."""
    return torch.cat([_forward(model, kind, batch).float() for batch in batches])


def output_change(before: Tensor, after: Tensor) -> float:
    """Return 1 − the correlation of two models' scores, or of all cosines between their embeddings.

    A shift or a rescaling of all scores counts as no change: a short training undoes it, and no rank depends on it.

    *Shape:* (n, 1) scores, or (n, width) embeddings of unit length; the widths may differ

    >>> output_change(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[3.0], [5.0], [9.0]]))
    0.0
    >>> output_change(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[2.0], [1.0], [0.0]]))
    2.0
    """
    values_before, values_after = (_values(values).double() for values in (before, after))
    values_before, values_after = values_before - values_before.mean(), values_after - values_after.mean()
    norms = float(values_before.norm() * values_after.norm())
    return 1.0 if norms == 0 else round(1 - float(values_before @ values_after) / norms, 9)


def _values(outputs: Tensor) -> Tensor:
    if outputs.shape[1] == 1:
        return outputs[:, 0]
    above = torch.triu_indices(len(outputs), len(outputs), offset=1)
    return (outputs @ outputs.T)[above[0], above[1]]


@dataclass(frozen=True)
class Importance:
    """The importance of heads and neurons. *Shape:* heads: (n_layers, n_heads); neurons: (n_layers, n_neurons)."""

    heads: Tensor
    neurons: Tensor


def head_and_neuron_importance(
    model: Any, kind: ModelKind, layers: Sequence[Layer], batches: Sequence[PairBatch]
) -> Importance:
    """Return the mean over pairs of |∂s/∂ξ|: how much a pair's score s changes, to first order, if a gate ξ closes.

    For a gate that multiplies a head's output (or a neuron's activation) a, ∂s/∂ξ at ξ = 1 is Σ a · ∂s/∂a over the
    pair's tokens and the head's dimensions (Michel et al. 2019 do this with the loss; CoFi learns the gates instead).
    """
    transformer = transformer_of(model)
    n_heads = transformer.config.num_attention_heads
    names = [name for layer in layers for name in (layer.attention_out, layer.feed_forward_out)]
    part_inputs: dict[str, Tensor] = {}

    def noting(name: str) -> Any:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            inputs[0].retain_grad()
            part_inputs[name] = inputs[0]

        return note

    handles = [transformer.get_submodule(name).register_forward_pre_hook(noting(name)) for name in names]
    totals: dict[str, Tensor] = {}
    try:
        for batch in batches:
            scores = _pair_scores(_forward(model, kind, batch), kind, batch.n_pairs)
            torch.autograd.backward(scores.sum())
            for layer in layers:
                for name, n_gates in ((layer.attention_out, n_heads), (layer.feed_forward_out, None)):
                    gradients = _gate_gradients(part_inputs[name], batch.n_pairs, n_gates).abs().sum(dim=0)
                    totals[name] = totals[name] + gradients if name in totals else gradients
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
    n = sum(batch.n_pairs for batch in batches)
    return Importance(
        heads=torch.stack([totals[layer.attention_out] for layer in layers]).cpu() / n,
        neurons=torch.stack([totals[layer.feed_forward_out] for layer in layers]).cpu() / n,
    )


def _pair_scores(results: Tensor, kind: ModelKind, n_pairs: int) -> Tensor:
    """Return logits or cosines. *Shape:* (n_pairs,)."""
    return results[:, 0] if kind == "cross_encoder" else (results[:n_pairs] * results[n_pairs:]).sum(dim=-1)


def _gate_gradients(value: Tensor, n_pairs: int, n_gates: int | None) -> Tensor:
    """Sum value · gradient over tokens, over both texts of a pair, and over the dimensions of a gate.

    *Shape:* (n_rows, n_tokens, width) → (n_pairs, n_gates); n_gates None: one gate per dimension, (n_pairs, width)
    """
    if value.grad is None:
        raise ValueError("the scores do not depend on a part whose importance is asked")
    gradients = (value.detach() * value.grad).sum(dim=1).float()  # (n_rows, width)
    if len(gradients) > n_pairs:
        gradients = gradients[:n_pairs] + gradients[n_pairs:]
    return gradients if n_gates is None else gradients.view(n_pairs, n_gates, -1).sum(dim=-1)
