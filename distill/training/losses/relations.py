"""Losses of how the texts of a step lie to each other: no width of the student has to be the teacher's.

They need the whole step. The functions take embeddings as they are; the step gives them unit vectors, each text once.
"""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["cka", "rkd_angle", "rkd_distance", "similarity_kl", "similarity_mse"]

_SHORTEST = 1e-6  # a difference of unit vectors below it is rounding: it has no direction


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """RKD-D (Park et al. 2019): Huber loss of the distances of two texts, mean over all pairs of texts.

    h(‖s_i − s_j‖/μ_s − ‖t_i − t_j‖/μ_t) with μ the mean of a model's distances that are not 0, and h(x) = x²/2 up to 1, |x| − ½
    beyond. The authors' code takes the mean over n² entries, the diagonal among them: (n−1)/n of this one.

    *Shape:* student: (n_texts, width), teacher: (n_texts, teacher_width) → ()

    >>> student = torch.tensor([[0.0], [1.0], [3.0]])  # distances 1, 3, 2: 0.5, 1.5 and 1 of their mean
    >>> teacher = torch.eye(3)  # all the same
    >>> round(rkd_distance(student, teacher).item(), 4)  # (0.5² + 0.5² + 0)/2 over 3
    0.0833
    """
    return functional.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))


def _relative_distances(vectors: Tensor) -> Tensor:
    """Return the distances above the diagonal in units of their mean. *Shape:* (n, width) → (n·(n−1)/2,)."""
    distances = functional.pdist(vectors.float())
    return distances / distances[distances > 0].mean() if (distances > 0).any() else distances


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """RKD-A (Park et al. 2019): Huber loss of the cosine of the angle at one text between two others, mean over all triplets.

    h(cos∠s_j s_i s_k − cos∠t_j t_i t_k) over i ≠ j ≠ k ≠ i. The authors' code takes the mean over n³ entries:
    (n−1)(n−2)/n² of this one. Memory and time grow with n³.

    *Shape:* student: (n_texts, width), teacher: (n_texts, teacher_width) → ()

    >>> student = torch.tensor([[0.0], [1.0], [3.0]])  # in a line: cosines 1, −1, 1
    >>> teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # 0, √½, √½
    >>> round(rkd_angle(student, teacher).item(), 4)  # (1²/2 + (1.7071 − ½) + 0.2929²/2)/3
    0.5833
    """
    n = len(student)
    different = ~torch.eye(n, dtype=torch.bool, device=student.device)
    triplets = different[:, :, None] & different[:, None, :] & different[None, :, :]
    losses = functional.smooth_l1_loss(_angles(student), _angles(teacher), reduction="none")
    return losses.masked_fill(~triplets, 0.0).sum() / max(1, n * (n - 1) * (n - 2))


def _angles(vectors: Tensor) -> Tensor:
    """Return cosines of angles, [i, j, k] at i between j and k. *Shape:* (n, width) → (n, n, n)."""
    vectors = vectors.float()
    differences = vectors[None, :, :] - vectors[:, None, :]  # [i, j]: from i to j
    lengths = differences.square().sum(dim=2, keepdim=True).clamp(min=_SHORTEST**2).sqrt()
    # texts in one place: no direction, and no gradient of 1/length either
    unit = differences / lengths.masked_fill(lengths <= _SHORTEST, float("inf"))
    return unit @ unit.transpose(1, 2)


def similarity_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of the cosines of two texts, mean over all pairs of texts (after Tung & Mori 2019).

    *Shape:* student: (n_texts, width), teacher: (n_texts, teacher_width), unit length → ()

    >>> similarity_mse(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])).item()  # (0 − 1)²
    1.0
    """
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    return functional.mse_loss((student @ student.T)[others], (teacher @ teacher.T)[others])


def similarity_kl(
    student: Tensor, teacher: Tensor, temperature: float, teacher_temperature: float | None = None
) -> Tensor:
    """τ²·KL between each text's softmax over the cosines to all others, mean over texts (after Fang et al. 2021, SEED).

    τ² Σ_j p_ij (log p_ij − log q_ij), j ≠ i, with p of the teacher's cosines/τ' and q of the student's/τ.

    *Shape:* student: (n_texts, width), teacher: (n_texts, teacher_width), unit length → ()

    >>> teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # p = (.7311, .2689), twice, and (½, ½)
    >>> round(similarity_kl(torch.eye(3), teacher, 1.0).item(), 4)  # (2·0.1110 + 0)/3
    0.074
    """
    diagonal = torch.eye(len(student), dtype=torch.bool, device=student.device)
    log_q = (student @ student.T / temperature).masked_fill(diagonal, -1e9).log_softmax(dim=1)
    log_p = (teacher @ teacher.T / (teacher_temperature or temperature)).masked_fill(diagonal, -1e9).log_softmax(dim=1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).masked_fill(diagonal, 0.0).sum(dim=1).mean()


def cka(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − linear CKA (Kornblith et al. 2019), one number for all texts together.

    1 − ⟨HKH, HLH⟩/(‖HKH‖·‖HLH‖) with K and L the products of a model's embeddings, and H taking off the means. It does not
    see rotations, nor one scale for all. With fewer texts than dimensions even random embeddings come out alike: use large
    steps.

    *Shape:* student: (n_texts, width), teacher: (n_texts, teacher_width) → ()

    >>> student, teacher = torch.tensor([[1.0], [0.0], [-1.0]]), torch.tensor([[1.0], [-2.0], [1.0]])
    >>> cka(student, teacher).item()  # 1·1 + 0·(−2) + (−1)·1 = 0: nothing in common
    1.0
    """
    student, teacher = (vectors.float() - vectors.float().mean(dim=0) for vectors in (student, teacher))
    student_products, teacher_products = student @ student.T, teacher @ teacher.T
    scale = student_products.norm() * teacher_products.norm()
    similarity: Tensor = (student_products * teacher_products).sum() / scale.clamp(min=torch.finfo(torch.float32).tiny)
    return 1 - similarity
