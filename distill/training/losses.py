"""Losses: pure functions of tensors, each with its formula, reduction, shapes, paper and a worked number.

All are means, over pairs, over queries or over texts as said; none has a hidden scale. Temperatures divide logits, and
the Kullback–Leibler loss carries τ², so that its gradient keeps its size as τ grows (Hinton et al. 2015). Scores and
embeddings are expected in float32: autocast ends before the loss.

>>> import torch
"""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "bce",
    "contrastive",
    "embedding_cosine",
    "embedding_mse",
    "in_batch_infonce",
    "kl_divergence",
    "margin_mse",
    "mse",
]


def bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of logits against probabilities, mean over pairs.

    −[y·log σ(x) + (1−y)·log(1−σ(x))]; soft targets are allowed (knowledge distillation of scores).

    *Shape:* logits, targets in [0, 1]: (n_pairs,) → ()

    >>> round(bce(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0])).item(), 4)  # (log 2 + log(1+e⁻²)) / 2
    0.41
    """
    return functional.binary_cross_entropy_with_logits(logits, targets)


def mse(predictions: Tensor, targets: Tensor) -> Tensor:
    """Squared difference, mean over pairs.

    *Shape:* predictions, targets: (n_pairs,) → ()

    >>> mse(torch.tensor([0.5, 1.0]), torch.tensor([0.0, 1.0])).item()
    0.125
    """
    return functional.mse_loss(predictions, targets)


def contrastive(cosines: Tensor, labels: Tensor) -> Tensor:
    """The published ablation's contrastive loss: mean over pairs of ((cos + 1)/2 − label)².

    *Shape:* cosines in [−1, 1], labels in [0, 1]: (n_pairs,) → ()

    >>> contrastive(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])).item()  # (0 + 0.25) / 2
    0.125
    """
    return mse((cosines + 1) / 2, labels)


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
    own = torch.eye(len(queries), dtype=torch.bool, device=queries.device)
    similarities = similarities.masked_fill(excluded & ~own, float("-inf"))
    log_probabilities = similarities.log_softmax(dim=1).diagonal()
    return -(log_probabilities[positive].sum()) / positive.sum().clamp(min=1)


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """τ²·KL(teacher ‖ student) over the candidates of a query, mean over queries (Hinton et al. 2015).

    τ² Σ_c p_c (log p_c − log q_c) with p = softmax(teacher/τ), q = softmax(student/τ).

    *Shape:* student_logits, teacher_logits, mask (True where there is a candidate): (n_queries, n_candidates) → ()

    >>> teacher, student = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    >>> round(kl_divergence(student, teacher, torch.ones(1, 2, dtype=bool), 1.0).item(), 4)  # .8808·log(1.7616)+.1192·log(.2384)
    0.3278
    >>> round(kl_divergence(student, teacher, torch.ones(1, 2, dtype=bool), 4.0).item(), 4)  # 16·0.0303: τ² keeps the size
    0.4848
    """
    student = _masked_log_softmax(student_logits / temperature, mask)
    teacher = _masked_log_softmax(teacher_logits / temperature, mask)
    divergence = (teacher.exp() * (teacher - student)).masked_fill(~mask, 0.0).sum(dim=1)
    return temperature**2 * divergence.mean()


def _masked_log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    # a large negative number, not -inf: (-inf) - (-inf) is NaN in the difference above, and in its gradient
    return logits.masked_fill(~mask, -1e9).log_softmax(dim=1)


def margin_mse(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> Tensor:
    """MarginMSE (Hofstätter et al. 2020): squared difference of score margins.

    Mean over queries of the mean over the query's candidate pairs a < b of ((s_a − s_b) − (t_a − t_b))².
    Queries with one candidate have no margin and do not count.

    *Shape:* student_scores, teacher_scores, mask: (n_queries, n_candidates) → ()

    >>> student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 1.0]])
    >>> margin_mse(student, teacher, torch.ones(1, 2, dtype=bool)).item()  # (1 − 2)²
    1.0
    """
    difference = student_scores - teacher_scores
    margins = difference[:, :, None] - difference[:, None, :]  # (n_queries, n_candidates, n_candidates)
    upper = torch.ones(margins.shape[1:], dtype=torch.bool, device=margins.device).triu(1)
    counted = mask[:, :, None] & mask[:, None, :] & upper
    per_query = (margins.square() * counted).sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp(min=1)
    return per_query.sum() / counted.any(dim=2).any(dim=1).sum().clamp(min=1)


def embedding_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − cos(student, teacher), mean over texts.

    *Shape:* student, teacher: (n_texts, width) → ()

    >>> embedding_cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])).item()
    1.0
    """
    return (1 - functional.cosine_similarity(student, teacher, dim=-1)).mean()


def embedding_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """‖student − teacher‖² summed over the width, mean over texts; 2·(1 − cos) for unit vectors.

    *Shape:* student, teacher: (n_texts, width) → ()

    >>> embedding_mse(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item()
    2.0
    """
    return (student - teacher).square().sum(dim=-1).mean()
