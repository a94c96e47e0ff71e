"""Losses of a pair's score and of a text's embedding."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["bce", "contrastive", "embedding_cosine", "embedding_mse", "mse"]


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


def embedding_cosine(student: Tensor, teacher: Tensor, known: Tensor | None = None) -> Tensor:
    """1 − cos(student, teacher), mean over texts.

    *Shape:* student, teacher: (n_texts, width) → ()

    :param known: which of the teacher's numbers are there, (n_texts, width): both are compared by these alone, and a text counts
        for its share of the teacher's unit length that is known

    >>> embedding_cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])).item()
    1.0
    >>> known = torch.tensor([[True, False, True]])  # .36 · (1 − .8), of the angle between (4, 3) and (.6, 0)
    >>> round(embedding_cosine(torch.tensor([[4.0, 9.0, 3.0]]), torch.tensor([[0.6, 0.8, 0.0]]), known).item(), 4)
    0.072
    """
    if known is None:
        return (1 - torch.cosine_similarity(student, teacher, dim=-1)).mean()
    student, teacher = torch.where(known, student, 0.0), torch.where(known, teacher, 0.0)
    shares = teacher.square().sum(dim=-1)
    return (shares * (1 - torch.cosine_similarity(student, teacher, dim=-1))).mean()


def embedding_mse(student: Tensor, teacher: Tensor, known: Tensor | None = None) -> Tensor:
    """‖student − teacher‖² summed over the width, mean over texts; 2·(1 − cos) for unit vectors.

    *Shape:* student, teacher: (n_texts, width) → ()

    :param known: which of the teacher's numbers are there, (n_texts, width); the others are left out of the sum

    >>> embedding_mse(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item()
    2.0
    """
    difference = student - teacher if known is None else torch.where(known, student - teacher, 0.0)
    return difference.square().sum(dim=-1).mean()
