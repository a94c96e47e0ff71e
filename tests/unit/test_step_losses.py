"""Losses over the pairs or texts of a whole step: against loops, at their minimum, and with finite gradients."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import normalize

from distill.training import losses


def vectors(seed, n=7, widths=(5, 3), dtype=torch.float64):
    """Unit vectors of a student and of a teacher of another width."""
    generator = torch.Generator().manual_seed(seed)
    return [normalize(torch.randn(n, width, generator=generator, dtype=dtype), dim=-1) for width in widths]


def huber(x):
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def minus(a, b):
    return [x - y for x, y in zip(a, b, strict=True)]


def rkd_distance(s, t):
    pairs = list(itertools.combinations(range(len(s)), 2))
    found = []
    for rows in (s, t):
        distances = [math.sqrt(dot(minus(rows[i], rows[j]), minus(rows[i], rows[j]))) for i, j in pairs]
        found.append([distance / mean(distances) for distance in distances])
    return mean(huber(a - b) for a, b in zip(*found, strict=True))


def rkd_angle(s, t):
    found = []
    for i, j, k in itertools.permutations(range(len(s)), 3):
        cosines = []
        for rows in (s, t):
            left, right = minus(rows[j], rows[i]), minus(rows[k], rows[i])
            cosines.append(dot(left, right) / math.sqrt(dot(left, left) * dot(right, right)))
        found.append(huber(cosines[0] - cosines[1]))
    return mean(found)


def similarity_mse(s, t):
    return mean((dot(s[i], s[j]) - dot(t[i], t[j])) ** 2 for i, j in itertools.permutations(range(len(s)), 2))


def similarity_kl(s, t, temperature=0.5, teacher_temperature=None):
    found = []
    for i in range(len(s)):
        rows = []
        for model, tau in ((s, temperature), (t, teacher_temperature or temperature)):
            weights = [math.exp(dot(model[i], model[j]) / tau) for j in range(len(s)) if j != i]
            rows.append([weight / sum(weights) for weight in weights])
        found.append(temperature**2 * sum(p * math.log(p / q) for q, p in zip(*rows, strict=True)))
    return mean(found)


def cka(s, t):
    """1 − ‖YᵀX‖²/(‖XᵀX‖·‖YᵀY‖) of centred columns, by entries."""

    def centred(rows):
        return list(zip(*[[x - mean(column) for x in column] for column in zip(*rows, strict=True)], strict=True))

    def norm(a, b):
        columns = itertools.product(zip(*a, strict=True), zip(*b, strict=True))
        return math.sqrt(sum(dot(left, right) ** 2 for left, right in columns))

    s, t = centred(s), centred(t)
    return 1 - norm(t, s) ** 2 / (norm(s, s) * norm(t, t))


RELATIONS = [
    (losses.rkd_distance, rkd_distance, {}),
    (losses.rkd_angle, rkd_angle, {}),
    (losses.similarity_mse, similarity_mse, {}),
    (losses.similarity_kl, similarity_kl, {"temperature": 0.5}),
    (losses.similarity_kl, similarity_kl, {"temperature": 0.3, "teacher_temperature": 2.0}),
    (losses.cka, cka, {}),
]

# with two temperatures the best student has other cosines than its teacher
ALIKE = [(function, settings) for function, _, settings in RELATIONS if "teacher_temperature" not in settings]


@pytest.mark.parametrize(("function", "loop", "settings"), RELATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_is_the_formula(function, loop, settings, seed):
    student, teacher = vectors(seed)
    expected = loop(student.tolist(), teacher.tolist(), **settings)
    # distances and directions are taken in float32
    assert function(student, teacher, **settings).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("function", "settings"), ALIKE)
def test_a_student_that_lies_like_its_teacher_is_at_the_minimum(function, settings):
    teacher, _ = vectors(3, widths=(4, 2))
    turn = torch.linalg.qr(torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q.T
    student = (teacher @ turn).requires_grad_()  # another space, of another width
    loss = function(student, teacher, **settings)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert student.grad.abs().max() < 1e-6
    other, _ = vectors(4, widths=(6, 2))
    assert function(other, teacher, **settings) > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("function", "settings"), [(function, settings) for function, _, settings in RELATIONS])
def test_gradients_are_finite_in_bf16_and_of_texts_in_one_place(function, settings, dtype):
    student, teacher = vectors(5, dtype=torch.float32)
    student[1] = student[0]
    teacher[2] = teacher[0]
    for given in (student, torch.ones_like(student) / math.sqrt(student.shape[1])):  # of all texts in one place, too
        learned = given.to(dtype).requires_grad_()
        loss = function(learned, teacher.to(dtype), **settings)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(learned.grad).all()
        assert learned.grad.abs().max() < 1e3


def cosent(s, t, scale):
    pairs = itertools.permutations(range(len(s)), 2)
    return math.log(1 + sum(math.exp(scale * (s[b] - s[a])) for a, b in pairs if t[a] > t[b]))


class TestCoSent:
    @pytest.mark.parametrize("seed", range(3))
    def test_is_the_formula(self, seed):
        generator = torch.Generator().manual_seed(seed)
        scores = torch.rand(9, generator=generator, dtype=torch.float64)
        targets = torch.randint(0, 4, (9,), generator=generator)  # with ties, which say nothing
        value = losses.cosent(scores, targets, 20.0).item()
        assert value == pytest.approx(cosent(scores.tolist(), targets.tolist(), 20.0), abs=1e-6)

    def test_the_right_order_is_the_best_and_wide_margins_end_the_learning(self):
        targets = torch.tensor([0.9, 0.5, 0.1])
        values = {
            order: losses.cosent(targets[list(order)], targets, 20.0).item()
            for order in itertools.permutations(range(3))
        }
        assert min(values, key=values.get) == (0, 1, 2)
        scores = (100 * targets).requires_grad_()
        losses.cosent(scores, targets, 20.0).backward()
        assert scores.grad.abs().max() == 0

    def test_without_an_order_is_zero_with_zero_gradient(self):
        for n in (0, 1, 3):
            scores = torch.ones(n, requires_grad=True)
            loss = losses.cosent(scores, torch.ones(n), 20.0)
            loss.backward()
            assert loss.item() == 0
            assert scores.grad.abs().sum() == 0

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
    def test_gradients_are_finite(self, dtype):
        scores = (100 * torch.randn(12, generator=torch.Generator().manual_seed(0))).to(dtype).requires_grad_()
        losses.cosent(scores, torch.arange(12.0).to(dtype), 20.0).backward()
        assert torch.isfinite(scores.grad).all()


class TestFalseNegatives:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    documents = normalize(torch.tensor([[0.8, 0.6], [0.6, 0.8], [-1.0, 0.0]]), dim=-1)
    # cosines by query: (.8, .6, −1), (.6, .8, 0), (.8, .6, −1); own: .8, .8, −1

    def test_absolute_margin(self):
        # limits .8 − .3 = .5 and −1 − .3 = −1.3
        assert losses.false_negatives(self.queries, self.documents, 0.3).tolist() == [
            [False, True, False],
            [True, False, False],
            [True, True, False],
        ]

    def test_relative_margin_is_a_share_of_the_size_of_the_own_cosine(self):
        # limits .8 − .3·.8 = .56 and −1 − .3·1 = −1.3; with .2: .64 and −1.2
        for margin, expected in ((0.3, True), (0.2, False)):
            found = losses.false_negatives(self.queries, self.documents, margin, "relative")
            assert found[0, 1].item() is expected
            assert found[2].tolist() == [True, True, False]

    def test_without_a_margin_only_nearer_ones_are_left_out(self):
        assert losses.false_negatives(self.queries, self.documents)[:2].sum() == 0
