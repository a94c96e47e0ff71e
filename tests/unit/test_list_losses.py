"""Losses over ragged lists: against loops, at their minimum, and with finite gradients."""

import itertools
import math

import pytest
import torch

from distill.training import losses


def ragged(seed, sizes=(5, 2, 3, 7), dtype=torch.float64):
    """Student, teacher and labels of lists of these sizes, padded with what must not count."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(sizes), max(sizes))
    student, teacher = (torch.randn(shape, generator=generator, dtype=dtype) * 2 for _ in range(2))
    mask = torch.arange(shape[1])[None] < torch.tensor(sizes)[:, None]
    return student.masked_fill(~mask, 55.0), teacher.masked_fill(~mask, -66.0), mask


def lists_of(student, teacher, mask):
    """The same as plain lists, without padding."""
    return [(s[m].tolist(), t[m].tolist()) for s, t, m in zip(student, teacher, mask, strict=True)]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softmax(values, temperature):
    weights = [math.exp(value / temperature) for value in values]
    return [weight / sum(weights) for weight in weights]


def listnet(s, t, temperature=1.0, teacher_temperature=None):
    told = softmax(t, teacher_temperature or temperature)
    return -(temperature**2) * sum(p * math.log(q) for p, q in zip(told, softmax(s, temperature), strict=True))


def kl(s, t, temperature=1.0, teacher_temperature=None):
    told = softmax(t, teacher_temperature or temperature)
    return temperature**2 * sum(p * math.log(p / q) for p, q in zip(told, softmax(s, temperature), strict=True))


def ranknet(s, t, soft=True, temperature=1.0):
    found = []
    for a, b in itertools.permutations(range(len(s)), 2):
        if t[a] > t[b]:
            p = sigmoid((t[a] - t[b]) / temperature) if soft else 1.0
            won = sigmoid((s[a] - s[b]) / temperature)
            found.append(-(temperature**2) * (p * math.log(won) + (1 - p) * math.log(1 - won)))
    return mean(found)


def lambda_loss(s, t, soft=True, scheme="ndcg_loss2pp", mu=10.0, k=None):
    relevance = [sigmoid(value) for value in t]
    rank = {place: 1 + sum(other > s[place] for other in s) for place in range(len(s))}
    best = sum((2**y - 1) / math.log2(2 + i) for i, y in enumerate(sorted(relevance, reverse=True)[:k]))
    gain = [(2**y - 1) / best for y in relevance]

    def discount(r):
        return 1 / math.log2(1 + r)

    found = []
    for a, b in itertools.permutations(range(len(s)), 2):
        if t[a] <= t[b] or (k is not None and min(rank[a], rank[b]) > k):
            continue
        apart = abs(rank[a] - rank[b])
        tight = abs(discount(apart) - discount(apart + 1))
        coarse = abs(discount(rank[a]) - discount(rank[b]))
        weight = {"ndcg_loss2pp": mu * tight + coarse, "ndcg_loss2": tight, "lambdarank": coarse}[scheme]
        p, won = (sigmoid(t[a] - t[b]) if soft else 1.0), sigmoid(s[a] - s[b])
        found.append(-weight * abs(gain[a] - gain[b]) * (p * math.log(won) + (1 - p) * math.log(1 - won)))
    return mean(found)


def list_mle(s, t, position_aware=False):
    order = sorted(range(len(s)), key=lambda place: -t[place])
    n = len(s)
    weights = [2 ** (n - rank) - 1 for rank in range(1, n + 1)] if position_aware else [1] * n
    total = sum(weights) if position_aware else 1
    return -sum(
        weight / total * math.log(math.exp(s[place]) / sum(math.exp(s[other]) for other in order[rank:]))
        for rank, (place, weight) in enumerate(zip(order, weights, strict=True))
    )


def adr_mse(s, t, alpha=1.0):
    found = []
    for place in range(len(s)):
        rank = 1 + sum(other > t[place] for other in t)
        smooth = 1 + sum(sigmoid(alpha * (s[other] - s[place])) for other in range(len(s)) if other != place)
        found.append((rank - smooth) ** 2 / math.log2(1 + rank))
    return mean(found)


def of_scores(student, teacher, mask, **settings):
    return losses.lambda_loss(student, teacher, teacher.sigmoid(), mask, **settings)


CASES = [
    (losses.kl_divergence, kl, {"temperature": 2.0}),
    (losses.kl_divergence, kl, {"temperature": 0.7, "teacher_temperature": 3.0}),
    (losses.listnet, listnet, {}),
    (losses.listnet, listnet, {"temperature": 1.5, "teacher_temperature": 0.5}),
    (losses.ranknet, ranknet, {}),
    (losses.ranknet, ranknet, {"soft": False}),
    (losses.ranknet, ranknet, {"temperature": 2.0}),
    *(
        (of_scores, lambda_loss, {"scheme": scheme, "soft": soft, "k": k})
        for scheme in ("ndcg_loss2pp", "ndcg_loss2", "lambdarank")
        for soft in (True, False)
        for k in (None, 2)
    ),
    (losses.list_mle, list_mle, {}),
    (losses.list_mle, list_mle, {"position_aware": True}),
    (losses.adr_mse, adr_mse, {}),
    (losses.adr_mse, adr_mse, {"alpha": 3.0}),
]
SOFT = [  # a student of the teacher's scores is the best there is
    (losses.kl_divergence, {"temperature": 2.0}),
    (losses.listnet, {}),
    (losses.ranknet, {}),
    (of_scores, {}),
    (of_scores, {"scheme": "lambdarank", "k": 3}),
    (losses.margin_mse, {}),
]
ORDER = [  # the order alone counts
    (losses.ranknet, {"soft": False}),
    (of_scores, {"soft": False}),
    (losses.list_mle, {}),
    (losses.list_mle, {"position_aware": True}),
    (losses.adr_mse, {}),
]


@pytest.mark.parametrize(("function", "loop", "settings"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_is_the_mean_over_queries_of_the_formula(function, loop, settings, seed):
    student, teacher, mask = ragged(seed)
    expected = mean(loop(s, t, **settings) for s, t in lists_of(student, teacher, mask))
    assert function(student, teacher, mask, **settings).item() == pytest.approx(expected, abs=1e-6, rel=1e-6)


@pytest.mark.parametrize(("function", "settings"), [(function, settings) for function, _, settings in CASES])
def test_padding_gets_no_gradient(function, settings):
    student, teacher, mask = ragged(4)
    student.requires_grad_()
    function(student, teacher, mask, **settings).backward()
    assert student.grad[~mask].abs().max() == 0
    assert student.grad[mask].abs().max() > 0


@pytest.mark.parametrize(("function", "settings"), SOFT)
@pytest.mark.parametrize("seed", range(3))
def test_a_student_that_equals_its_teacher_is_at_the_minimum(function, settings, seed):
    _, teacher, mask = ragged(seed)
    student = teacher.clone().requires_grad_()
    least = function(student, teacher, mask, **settings)
    least.backward()
    assert student.grad.abs().max() < 1e-9
    if function is of_scores:  # its weights are those of the student's own ranks: within them it is the minimum
        nudge = 1e-4 * torch.randn(teacher.shape, generator=torch.Generator().manual_seed(9), dtype=teacher.dtype)
    else:
        nudge = torch.randn(teacher.shape, generator=torch.Generator().manual_seed(9), dtype=teacher.dtype)
    assert function(teacher + nudge, teacher, mask, **settings) > least


@pytest.mark.parametrize(("function", "settings"), ORDER)
def test_the_teachers_order_is_the_best_of_all_and_wide_margins_end_the_learning(function, settings):
    teacher = torch.tensor([[2.0, 0.5, -0.2, -1.0]], dtype=torch.float64)
    mask = torch.ones_like(teacher, dtype=torch.bool)
    values = {
        order: function(teacher[:, list(order)], teacher, mask, **settings).item()
        for order in itertools.permutations(range(4))
    }
    assert min(values, key=values.get) == (0, 1, 2, 3)
    wide = (100 * teacher).requires_grad_()
    loss = function(wide, teacher, mask, **settings)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert wide.grad.abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [1.0, 50.0, 1000.0])
@pytest.mark.parametrize(("function", "settings"), [*SOFT, *ORDER])
def test_gradients_are_finite_in_bf16_and_for_scores_of_any_size(function, settings, size, dtype):
    student, teacher, mask = ragged(5, dtype=torch.float32)
    student, teacher = (size * student).to(dtype).requires_grad_(), (size * teacher).to(dtype)
    function(student, teacher, mask, **settings).backward()
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(("function", "settings"), [*SOFT, *ORDER])
def test_lists_of_one_add_nothing_and_the_order_of_the_data_does_not_matter(function, settings):
    student, teacher, mask = ragged(6, sizes=(6, 4))
    shuffled = torch.tensor([3, 1, 5, 0, 2, 4])
    again = function(student[:, shuffled], teacher[:, shuffled], mask[:, shuffled], **settings)
    assert again.item() == pytest.approx(function(student, teacher, mask, **settings).item(), abs=1e-9)


class TestTies:
    def test_ranknet_takes_equal_scores_for_even_odds_and_equal_labels_for_none(self):
        student, ties = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
        mask = torch.ones(1, 2, dtype=torch.bool)
        # −(½ log ¾ + ½ log ¼)
        assert losses.ranknet(student, ties, mask).item() == pytest.approx(0.836988, abs=1e-5)
        assert losses.ranknet(student, ties, mask, soft=False).item() == 0

    def test_list_mle_lets_equal_targets_compete_in_any_order(self):
        # s = (log 2, 0, 0), targets (1, 0, 0): log 4 − log 2 = log 2, then twice log 2
        student, targets = torch.tensor([[math.log(2), 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
        mask = torch.ones(1, 3, dtype=torch.bool)
        assert losses.list_mle(student, targets, mask).item() == pytest.approx(3 * math.log(2), abs=1e-6)

    def test_adr_mse_gives_equal_targets_their_mean_rank(self):
        # both have rank 1.5, and so has a student that ties them
        assert losses.adr_mse(torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool)).item() == 0


def test_lambda_loss_of_lists_without_any_gain_is_zero():
    labels = torch.zeros(1, 3)
    student = torch.tensor([[0.3, 0.2, 0.1]], requires_grad=True)
    loss = losses.lambda_loss(student, labels, labels, torch.ones(1, 3, dtype=torch.bool), soft=False)
    loss.backward()
    assert loss.item() == 0
    assert student.grad.abs().max() == 0
