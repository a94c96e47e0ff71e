"""Losses that compare the pairs of a step with each other: they need the whole step, not a part of it."""

from typing import Literal

import torch
from torch import Tensor

__all__ = ["cosent", "false_negatives", "in_batch_infonce"]


def in_batch_infonce(
    queries: Tensor, documents: Tensor, positive: Tensor, excluded: Tensor, temperature: float
) -> Tensor:
    """InfoNCE with the batch's other documents as negatives (van den Oord et al. 2018), mean over positives.

    −log(exp(s_ij/τ) / Σ_k exp(s_ik/τ)) for each positive (i, j), where k runs over j and the documents not excluded for i.

    *Shape:* queries: (n_pairs, width), documents: (n_pairs, width), unit length; positive: (n_pairs,) bool, whether
    document i answers query i; excluded: (n_pairs, n_pairs) bool, documents that are no negatives of query i.

    Couples all pairs of a micro-batch: its value depends on `micro_batch`. Without a positive it is 0.

    >>> q = torch.eye(2)
    >>> round(in_batch_infonce(q, q, torch.tensor([True, True]), torch.zeros(2, 2, dtype=bool), 1.0).item(), 4)  # log(1 + e⁻¹)
    0.3133
    """
    similarities = queries @ documents.T / temperature  # (n_pairs, n_pairs)
    diagonal = torch.eye(len(queries), dtype=torch.bool, device=queries.device)
    similarities = similarities.masked_fill(excluded & ~diagonal, float("-inf"))
    log_probabilities = similarities.log_softmax(dim=1).diagonal()
    return -(log_probabilities[positive].sum()) / positive.sum().clamp(min=1)


def false_negatives(
    queries: Tensor, documents: Tensor, margin: float = 0.0, strategy: Literal["absolute", "relative"] = "absolute"
) -> Tensor:
    """Tell which documents a guide takes for answers, too (GISTEmbed, Solatorio 2024): they are no negatives of the query.

    Document j is none of query i where g_ij > g_ii − margin (absolute) or g_ij > g_ii − margin·|g_ii| (relative), with g_ij the
    guide's cosine of query i and document j. A query's own document never is.

    *Shape:* queries, documents: (n_pairs, width), the guide's vectors in unit length → (n_pairs, n_pairs) bool

    >>> queries, documents = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.8], [0.8, 0.6]])
    >>> false_negatives(queries, documents).tolist()  # 0.8 > 0.6: each query is nearer to the other's document
    [[False, True], [True, False]]
    """
    cosines = queries @ documents.T
    own_cosines = cosines.diagonal()[:, None]
    limit = own_cosines - margin if strategy == "absolute" else own_cosines - margin * own_cosines.abs()
    return (cosines > limit) & ~torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)


def cosent(scores: Tensor, targets: Tensor, scale: float) -> Tensor:
    """CoSENT (Huang et al. 2024): log(1 + Σ exp(scale·(s_b − s_a))) over all pairs of pairs with target a > target b.

    One number for all pairs together, not a mean: it couples them. Only the order of the targets counts, and no finite scores
    reach its infimum, 0. Without two targets that differ it is 0.

    *Shape:* scores, targets: (n_pairs,) → ()

    >>> round(cosent(torch.tensor([0.1, 0.0]), torch.tensor([1.0, 0.0]), 20.0).item(), 4)  # log(1 + e⁻²)
    0.1269
    """
    differences = scale * (scores[None, :] - scores[:, None])  # [a, b]: s_b − s_a
    wanted = targets[:, None] > targets[None, :]
    terms = differences.masked_fill(~wanted, float("-inf")).flatten()
    return torch.cat([terms.new_zeros(1), terms]).logsumexp(dim=0)
