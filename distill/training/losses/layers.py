"""Losses of what happens inside of the encoders: hidden states, attention, and the relations of queries, keys and values.

Each is a mean over real tokens, so that any split of a batch gives the same mean. Padding counts on neither axis: no padded
token is a row, and none is looked at from a row. Tensors in half precision are taken in float32.
"""

import math

from torch import Tensor
from torch.nn import functional

__all__ = ["attention_kl", "attention_mse", "relation_kl", "token_cosine", "token_mse"]

_NEVER = -1e9  # a score whose softmax is 0, without the NaN that −∞ would bring into a gradient


def token_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared difference of hidden states, mean over the width and over real tokens (TinyBERT, Jiao et al. 2020).

    *Shape:* student, teacher: (n_sequences, n_tokens, width); mask: (n_sequences, n_tokens), True for real tokens → ()

    >>> import torch
    >>> student, teacher = torch.tensor([[[1.0, 2.0], [9.0, 9.0]]]), torch.tensor([[[1.0, 4.0], [0.0, 0.0]]])
    >>> token_mse(student, teacher, torch.tensor([[True, False]])).item()  # (0² + 2²)/2; the second token is padding
    2.0
    """
    return functional.mse_loss(_full(student)[mask], _full(teacher)[mask])


def token_cosine(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """1 − cosine of hidden states, mean over real tokens (DistilBERT, Sanh et al. 2019).

    *Shape:* student, teacher: (n_sequences, n_tokens, width); mask: (n_sequences, n_tokens), True for real tokens → ()

    >>> import torch
    >>> student, teacher = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]]), torch.tensor([[[0.0, 2.0], [3.0, 4.0]]])
    >>> token_cosine(student, teacher, torch.tensor([[True, True]])).item()  # (1 + 0)/2
    0.5
    """
    return 1 - functional.cosine_similarity(_full(student)[mask], _full(teacher)[mask], dim=-1).mean()


def attention_mse(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], mask: Tensor, heads: int) -> Tensor:
    """Squared difference of attention scores before the softmax (TinyBERT, Jiao et al. 2020).

    Mean over heads, over real tokens, and over the real tokens that each of them looks at, of (qᵢ·kⱼ/√d − qᵢ′·kⱼ′/√d′)².

    *Shape:* student, teacher: queries and keys, each (n_sequences, n_tokens, heads · d); mask: (n_sequences, n_tokens) → ()

    >>> import torch
    >>> student = torch.tensor([[[0.0], [1.0]]]), torch.tensor([[[1.0], [2.0]]])  # scores 0, 0; 1, 2
    >>> teacher = torch.tensor([[[0.0], [0.0]]]), torch.tensor([[[1.0], [2.0]]])  # scores 0, 0; 0, 0
    >>> attention_mse(student, teacher, torch.tensor([[True, True]]), heads=1).item()  # (0 + (1 + 4)/2)/2
    1.25
    """
    difference = _scores(*student, heads) - _scores(*teacher, heads)
    real = mask[:, None, None, :]
    row_differences = difference.square().masked_fill(~real, 0.0).sum(dim=3) / real.sum(dim=3)
    return _mean_over_rows(row_differences, mask)


def attention_kl(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], mask: Tensor, heads: int) -> Tensor:
    """KL of the student's attention from the teacher's, Σⱼ pᵢⱼ (log pᵢⱼ − log qᵢⱼ) (MiniLM, Wang et al. 2020).

    Mean over heads and real tokens; p and q are softmax(QKᵀ/√d) of teacher and student over real tokens.

    *Shape:* student, teacher: queries and keys, each (n_sequences, n_tokens, heads · d); mask: (n_sequences, n_tokens) → ()

    >>> import torch
    >>> keys = torch.tensor([[[0.0], [math.log(3)]]])
    >>> student, teacher = (torch.zeros(1, 2, 1), keys), (torch.ones(1, 2, 1), keys)
    >>> round(attention_kl(student, teacher, torch.tensor([[True, True]]), heads=1).item(), 4)  # ¼ log ½ + ¾ log 3/2
    0.1308
    """
    return _divergence(_scores(*student, heads), _scores(*teacher, heads), mask)


def relation_kl(student: Tensor, teacher: Tensor, mask: Tensor, heads: int) -> Tensor:
    """KL between the relations of queries, of keys or of values (MiniLMv2, Wang et al. 2021).

    (1/(heads · n)) Σ_h Σᵢ KL(softmax(tᵢ·tⱼ/√d_t) ‖ softmax(sᵢ·sⱼ/√d_s)) over the n real tokens i, with the vectors of both split
    anew into `heads` relation heads of d_t and d_s numbers. Neither the widths nor the attention heads have to agree. In
    the paper each sequence counts alike, here each token.

    *Shape:* student: (n_sequences, n_tokens, width); teacher: (n_sequences, n_tokens, teacher_width); mask: (n_sequences,
    n_tokens), True for real tokens → (). `heads` divides both widths. Memory: n_sequences · heads · n_tokens² numbers, several times.

    >>> import torch
    >>> teacher = torch.tensor([[[0.0], [math.log(3) ** 0.5]]])  # scores 0, 0; 0, log 3: p = (½, ½), (¼, ¾)
    >>> round(relation_kl(torch.zeros(1, 2, 1), teacher, torch.tensor([[True, True]]), heads=1).item(), 4)  # (0 + 0.1308)/2
    0.0654
    """
    return _divergence(_scores(student, student, heads), _scores(teacher, teacher, heads), mask)


def _full(values: Tensor) -> Tensor:
    return values.float() if values.element_size() < 4 else values


def _scores(left: Tensor, right: Tensor, heads: int) -> Tensor:
    """Return left · right/√d of each head. *Shape:* (n, n_tokens, heads · d) each → (n, heads, n_tokens, n_tokens)."""
    left, right = (_full(side).reshape(*side.shape[:2], heads, -1).transpose(1, 2) for side in (left, right))
    return left @ right.transpose(2, 3) / math.sqrt(left.shape[3])


def _divergence(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the KL of softmaxed scores, mean over heads and real tokens. *Shape:* (n, heads, n_tokens, n_tokens) each."""
    hidden = ~mask[:, None, None, :]
    log_q, log_p = (scores.masked_fill(hidden, _NEVER).log_softmax(dim=3) for scores in (student, teacher))
    return _mean_over_rows(functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(dim=3), mask)


def _mean_over_rows(values: Tensor, mask: Tensor) -> Tensor:
    """*Shape:* values: (n, heads, n_tokens); mask: (n, n_tokens) → ()."""
    real = mask[:, None, :].expand_as(values)
    mean: Tensor = values[real].mean()
    return mean
