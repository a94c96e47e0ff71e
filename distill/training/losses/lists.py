"""Losses over the candidates of each query: ragged lists, padded, with a mask that says which candidates are real.

All are means over queries, so that a query's candidates have to be together and the queries of a batch need not.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "LambdaScheme",
    "adr_mse",
    "kl_divergence",
    "lambda_loss",
    "list_mle",
    "listnet",
    "margin_mse",
    "ranknet",
]

LambdaScheme = Literal["ndcg_loss2pp", "ndcg_loss2", "lambdarank"]


def kl_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    temperature: float,
    teacher_temperature: float | None = None,
) -> Tensor:
    """τ²·KL(teacher ‖ student) over the candidates of a query, mean over queries (Hinton et al. 2015).

    τ² Σ_c p_c (log p_c − log q_c) with p = softmax(teacher/τ'), q = softmax(student/τ); τ' is τ where it is not given.

    *Shape:* student_logits, teacher_logits, mask (True where there is a candidate): (n_queries, n_candidates) → ()

    >>> teacher, student = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    >>> round(kl_divergence(student, teacher, torch.ones(1, 2, dtype=bool), 1.0).item(), 4)  # .8808·log(1.7616)+.1192·log(.2384)
    0.3278
    >>> round(kl_divergence(student, teacher, torch.ones(1, 2, dtype=bool), 4.0).item(), 4)  # 16·0.0303: τ² keeps the size
    0.4848
    """
    student = _masked_log_softmax(student_logits / temperature, mask)
    teacher = _masked_log_softmax(teacher_logits / (teacher_temperature or temperature), mask)
    divergence = (teacher.exp() * (teacher - student)).masked_fill(~mask, 0.0).sum(dim=1)
    return temperature**2 * divergence.mean()


def listnet(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    temperature: float = 1.0,
    teacher_temperature: float | None = None,
) -> Tensor:
    """ListNet (Cao et al. 2007): τ² times the cross-entropy of the chances to come first, mean over queries.

    −τ² Σ_c p_c log q_c with p = softmax(teacher/τ'), q = softmax(student/τ). The gradient is that of `kl_divergence`; the value is
    larger by τ² times the teacher's entropy, which no student takes away.

    *Shape:* student_logits, teacher_logits, mask: (n_queries, n_candidates) → ()

    >>> round(listnet(torch.zeros(1, 2), torch.tensor([[2.0, 0.0]]), torch.ones(1, 2, dtype=bool)).item(), 4)  # −(.8808 + .1192)·log ½
    0.6931
    """
    student = _masked_log_softmax(student_logits / temperature, mask)
    teacher = _masked_log_softmax(teacher_logits / (teacher_temperature or temperature), mask).exp()
    return -(temperature**2) * (teacher * student).masked_fill(~mask, 0.0).sum(dim=1).mean()


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


def ranknet(
    student_logits: Tensor, targets: Tensor, mask: Tensor, *, soft: bool = True, temperature: float = 1.0
) -> Tensor:
    """RankNet (Burges et al. 2005): cross-entropy of which of two candidates is the better.

    Mean over queries of the mean over candidate pairs of −τ²·[p log σ(d) + (1−p) log σ(−d)], with d = (s_a − s_b)/τ. Soft:
    p = σ((t_a − t_b)/τ), over all pairs, at its minimum where every student margin is the teacher's. Hard: p = 1 over the pairs
    with t_a > t_b; equal targets say nothing, and no finite scores reach the infimum, 0.

    *Shape:* student_logits, targets, mask: (n_queries, n_candidates) → ()

    >>> student, teacher = torch.tensor([[0.0, 1.0986]]), torch.tensor([[1.0986, 0.0]])
    >>> round(ranknet(student, teacher, torch.ones(1, 2, dtype=bool)).item(), 4)  # p = ¾, σ(d) = ¼: −(¾ log ¼ + ¼ log ¾)
    1.1116
    >>> round(ranknet(student, teacher, torch.ones(1, 2, dtype=bool), soft=False).item(), 4)  # −log ¼
    1.3863
    """
    losses, counted = _pairwise(student_logits, targets, mask, soft=soft, temperature=temperature)
    return _mean_of_pairs(losses, counted)


def lambda_loss(
    student_logits: Tensor,
    targets: Tensor,
    relevance: Tensor,
    mask: Tensor,
    *,
    soft: bool = True,
    temperature: float = 1.0,
    scheme: LambdaScheme = "ndcg_loss2pp",
    mu: float = 10.0,
    k: int | None = None,
) -> Tensor:
    """LambdaLoss (Wang et al. 2018): RankNet with each pair weighted by what it is worth in NDCG.

    With ranks i, j by the student's scores, G = (2^relevance − 1)/maxDCG and D(r) = log2(1 + r): lambdarank weighs by
    |1/D(i) − 1/D(j)|·|G_i − G_j|, ndcg_loss2 by |1/D(|i−j|) − 1/D(|i−j|+1)|·|G_i − G_j|, ndcg_loss2pp by μ times the second
    plus the first. The weights have no gradient. With k, maxDCG is that of the first k, and a pair counts where i or j ≤ k.

    *Shape:* student_logits, targets, relevance (≥ 0), mask: (n_queries, n_candidates) → ()

    >>> labels = torch.tensor([[1.0, 0.0]])
    >>> round(lambda_loss(torch.zeros(1, 2), labels, labels, torch.ones(1, 2, dtype=bool), soft=False).item(), 4)  # (10 + 1)·(1 − 1/log2 3)·log 2
    2.814
    """
    with torch.no_grad():
        ranks = _ranks(student_logits, mask)
        weights = _lambda_weights(ranks, relevance, mask, scheme, mu, k)
    losses, counted = _pairwise(student_logits, targets, mask, soft=soft, temperature=temperature)
    if k is not None:
        counted = counted & ((ranks[:, :, None] <= k) | (ranks[:, None, :] <= k))
    return _mean_of_pairs(weights * losses, counted)


def list_mle(student_logits: Tensor, targets: Tensor, mask: Tensor, *, position_aware: bool = False) -> Tensor:
    """ListMLE (Xia et al. 2008): −log of the likelihood of the targets' order (Plackett–Luce), mean over queries.

    Σ_c w_c·[log Σ_{b: t_b ≤ t_c} exp(s_b) − s_c], with w = 1, or of p-ListMLE (Lan et al. 2014) w = 2^(n − rank) − 1 divided by
    its sum. Equal targets compete with each other, whatever their order in the data (Breslow 1974). Only the order counts, and
    no finite scores reach the infimum of distinct targets, 0.

    *Shape:* student_logits, targets, mask: (n_queries, n_candidates) → ()

    >>> round(list_mle(torch.tensor([[0.0, 1.0986]]), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2, dtype=bool)).item(), 4)  # log(1 + 3) − 0, then 0
    1.3863
    """
    competes = (targets[:, None, :] <= targets[:, :, None]) & mask[:, None, :]  # [c, b]
    competes = competes | _own(mask)  # a padded row keeps one entry: logsumexp of nothing has no gradient
    normalizers = student_logits[:, None, :].masked_fill(~competes, float("-inf")).logsumexp(dim=2)
    losses = (normalizers - student_logits).masked_fill(~mask, 0.0)
    if not position_aware:
        return losses.sum(dim=1).mean()
    # 2^(n − rank) − 1 divided by 2^n, which no list is too long for
    sizes = mask.sum(dim=1, keepdim=True)
    weights = (torch.exp2(-_mean_ranks(targets, mask)) - torch.exp2(-sizes.float())).masked_fill(~mask, 0.0)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (weights * losses).sum(dim=1).mean()


def adr_mse(student_logits: Tensor, targets: Tensor, mask: Tensor, alpha: float = 1.0) -> Tensor:
    """ADR-MSE (Schlatt et al. 2025, Rank-DistiLLM): discounted squared difference of ranks.

    Mean over queries of the mean over candidates of (r_c − r̂_c)²/log2(1 + r_c), where r is the rank by the targets (equal ones
    share the mean of their ranks) and r̂_c = 1 + Σ_{b≠c} σ(α·(s_b − s_c)). Only the order of the targets counts: the loss of the
    right order falls to 0 as the student's margins grow.

    *Shape:* student_logits, targets, mask: (n_queries, n_candidates) → ()

    >>> round(adr_mse(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2, dtype=bool)).item(), 4)  # r̂ = 1.5: (¼ + ¼/log2 3)/2
    0.2039
    """
    ranks = _mean_ranks(targets, mask)
    others = mask[:, None, :] & ~_own(mask)
    above = torch.sigmoid(alpha * (student_logits[:, None, :] - student_logits[:, :, None]))  # [c, b]: b above c
    smooth_ranks = 1 + (above * others).sum(dim=2)
    losses = ((ranks - smooth_ranks).square() / torch.log2(1 + ranks)).masked_fill(~mask, 0.0)
    return (losses.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()


def _own(mask: Tensor) -> Tensor:
    """Return the diagonal. *Shape:* (n_queries, n_candidates) → (1, n_candidates, n_candidates)."""
    return torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)[None]


def _pairwise(
    student_logits: Tensor, targets: Tensor, mask: Tensor, *, soft: bool, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of every pair (a, b), and which pairs count: of two candidates the better one is a."""
    student_margins = (student_logits[:, :, None] - student_logits[:, None, :]) / temperature
    target_margins = (targets[:, :, None] - targets[:, None, :]) / temperature
    both = mask[:, :, None] & mask[:, None, :]
    counted = both & (target_margins > 0)
    losses = functional.softplus(-student_margins)
    if soft:
        # equal ones count once
        counted = counted | (both & (target_margins == 0) & torch.ones_like(both[0]).triu(1))
        losses = losses + torch.sigmoid(-target_margins) * student_margins  # p·softplus(−d) + (1−p)·softplus(d)
    return temperature**2 * losses, counted


def _mean_of_pairs(losses: Tensor, counted: Tensor) -> Tensor:
    n_pairs = counted.sum(dim=(1, 2)).clamp(min=1)
    return (losses.masked_fill(~counted, 0.0).sum(dim=(1, 2)) / n_pairs).mean()


def _ranks(scores: Tensor, mask: Tensor) -> Tensor:
    """Return ranks from 1, the highest score first, padding last. *Shape:* (n_queries, n_candidates)."""
    order = scores.masked_fill(~mask, float("-inf")).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1) + 1


def _mean_ranks(targets: Tensor, mask: Tensor) -> Tensor:
    """Return ranks from 1, the highest target first, equal ones sharing their mean. *Shape:* (n_queries, n_candidates)."""
    above = ((targets[:, None, :] > targets[:, :, None]) & mask[:, None, :]).sum(dim=2)
    equal = ((targets[:, None, :] == targets[:, :, None]) & mask[:, None, :]).sum(dim=2)
    return above.float() + (equal.float() + 1) / 2


def _lambda_weights(
    ranks: Tensor, relevance: Tensor, mask: Tensor, scheme: LambdaScheme, mu: float, k: int | None
) -> Tensor:
    """Return the weight of every pair. *Shape:* ranks, relevance, mask: (n_queries, n) → (n_queries, n, n)."""
    gains = (torch.exp2(relevance) - 1).masked_fill(~mask, 0.0)
    sorted_gains = gains.sort(dim=1, descending=True).values
    places = torch.arange(1, gains.shape[1] + 1, device=gains.device)
    max_dcg = (sorted_gains * _inverse_discount(places))[:, :k].sum(dim=1, keepdim=True)
    gains = gains / max_dcg.clamp(min=1e-10)
    weights = torch.zeros_like(gains[:, :, None] - gains[:, None, :])
    if scheme != "lambdarank":
        # of a candidate with itself nothing counts
        distances = (ranks[:, :, None] - ranks[:, None, :]).abs().clamp(min=1)
        steps = (_inverse_discount(distances) - _inverse_discount(distances + 1)).abs()
        weights = steps * (mu if scheme == "ndcg_loss2pp" else 1.0)
    if scheme != "ndcg_loss2":
        discounts = _inverse_discount(ranks)
        weights = weights + (discounts[:, :, None] - discounts[:, None, :]).abs()
    return weights * (gains[:, :, None] - gains[:, None, :]).abs()


def _inverse_discount(ranks: Tensor) -> Tensor:
    return 1 / torch.log2(1 + ranks.float())
