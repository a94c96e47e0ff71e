"""Losses of hidden states, attention and relations: against loops, at their minimum, and blind to padding."""

import math

import pytest
import torch

from distill.training import losses
from distill.training.layer_terms import map_layers, relation_layer

LENGTHS = (5, 2, 1)  # of three sequences, padded to five tokens
MASK = torch.arange(5) < torch.tensor(LENGTHS)[:, None]


def vectors(seed, width, dtype=torch.float64):
    return torch.randn(3, 5, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def softmax(row):
    weights = [math.exp(x) for x in row]
    return [weight / sum(weights) for weight in weights]


def head(tensor, sequence, number, heads):
    """The vectors of the real tokens of a sequence, in one head."""
    size = tensor.shape[2] // heads
    return tensor[sequence, : LENGTHS[sequence], number * size : (number + 1) * size].tolist()


def scores(left, right):
    return [[dot(x, y) / math.sqrt(len(x)) for y in right] for x in left]


def rows_of(student, teacher, heads):
    """Each row of scores of both, over all sequences and heads; of each the pair of left and right vectors is given."""
    for sequence in range(len(LENGTHS)):
        for number in range(heads):
            sides = [[head(part, sequence, number, heads) for part in side] for side in (student, teacher)]
            yield from zip(*(scores(*side) for side in sides), strict=True)


def kl(student, teacher, heads):
    found = [
        sum(p * math.log(p / q) for q, p in zip(softmax(own), softmax(other), strict=True))
        for own, other in rows_of(student, teacher, heads)
    ]
    return sum(found) / len(found)


def relation_kl(student, teacher, heads):
    return kl((student, student), (teacher, teacher), heads)


def attention_mse(student, teacher, heads):
    found = [
        sum((q - p) ** 2 for q, p in zip(own, other, strict=True)) / len(own)
        for own, other in rows_of(student, teacher, heads)
    ]
    return sum(found) / len(found)


def real_tokens(tensor):
    return [tensor[i, j].tolist() for i, length in enumerate(LENGTHS) for j in range(length)]


def token_mse(student, teacher):
    pairs = zip(real_tokens(student), real_tokens(teacher), strict=True)
    found = [sum((x - y) ** 2 for x, y in zip(own, other, strict=True)) / len(own) for own, other in pairs]
    return sum(found) / len(found)


def token_cosine(student, teacher):
    pairs = zip(real_tokens(student), real_tokens(teacher), strict=True)
    found = [1 - dot(own, other) / math.sqrt(dot(own, own) * dot(other, other)) for own, other in pairs]
    return sum(found) / len(found)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
class TestIsTheFormula:
    @pytest.mark.parametrize("heads", [1, 3, 6])
    def test_relations(self, seed, dtype, heads):
        student, teacher = vectors(seed, 6, dtype), vectors(seed + 9, 12, dtype)  # of other widths
        found = losses.relation_kl(student, teacher, MASK, heads).item()
        assert found == pytest.approx(relation_kl(student, teacher, heads), abs=1e-6)

    @pytest.mark.parametrize(("loss", "loop"), [(losses.attention_mse, attention_mse), (losses.attention_kl, kl)])
    def test_attention(self, seed, dtype, loss, loop):
        student, teacher = (tuple(vectors(seed + 7 * i + side, 6 * side, dtype) for i in range(2)) for side in (1, 2))
        found = loss(student, teacher, MASK, heads=3).item()
        assert found == pytest.approx(loop(student, teacher, 3), abs=1e-6, rel=1e-6)

    @pytest.mark.parametrize(("loss", "loop"), [(losses.token_mse, token_mse), (losses.token_cosine, token_cosine)])
    def test_hidden_states(self, seed, dtype, loss, loop):
        student, teacher = vectors(seed, 6, dtype), vectors(seed + 9, 6, dtype)
        assert loss(student, teacher, MASK).item() == pytest.approx(loop(student, teacher), abs=1e-6)


def all_losses(student, teacher, mask=MASK):
    """Each loss of vectors of one width."""
    return {
        "token_mse": losses.token_mse(student, teacher, mask),
        "token_cosine": losses.token_cosine(student, teacher, mask),
        "attention_mse": losses.attention_mse((student, student), (teacher, teacher), mask, 3),
        "attention_kl": losses.attention_kl((student, student), (teacher, teacher), mask, 3),
        "relation_kl": losses.relation_kl(student, teacher, mask, 3),
    }


def test_a_student_like_its_teacher_is_at_the_minimum():
    teacher = vectors(0, 6)
    student = teacher.clone().requires_grad_()
    for name, loss in all_losses(student, teacher).items():
        assert loss.item() == pytest.approx(0, abs=1e-12), name
        (gradient,) = torch.autograd.grad(loss, student, retain_graph=True)
        assert gradient.abs().max() < 1e-9, name
    assert min(loss.item() for loss in all_losses(vectors(1, 6), teacher).values()) > 1e-2


def test_relations_do_not_see_a_turn_within_a_head():
    teacher = vectors(0, 6)
    turn = torch.linalg.qr(vectors(1, 5)[0, :2, :2]).Q
    turned = teacher.clone().unflatten(2, (3, 2)) @ turn
    assert losses.relation_kl(turned.flatten(2), teacher, MASK, 3).item() == pytest.approx(0, abs=1e-12)
    assert losses.relation_kl(turned.flatten(2), teacher, MASK, 2) > 1e-3  # across heads it does


def test_padding_changes_nothing_whatever_stands_there():
    student, teacher = vectors(2, 6), vectors(3, 6)
    noisy = [torch.where(MASK[:, :, None], side, 1e3 * vectors(4, 6)) for side in (student, teacher)]
    wide = [torch.cat([side, 7 + vectors(5, 6)], dim=1) for side in noisy]
    wide_mask = torch.cat([MASK, torch.zeros_like(MASK)], dim=1)
    for name, loss in all_losses(student, teacher).items():
        assert all_losses(*noisy)[name].item() == pytest.approx(loss.item(), abs=1e-12), name
        assert all_losses(*wide, wide_mask)[name].item() == pytest.approx(loss.item(), abs=1e-12), name


def test_each_token_counts_alike_whatever_its_sequence():
    student, teacher = vectors(2, 6), vectors(3, 6)
    together = all_losses(student, teacher)
    alone = [all_losses(*(side[i : i + 1] for side in (student, teacher, MASK))) for i in range(3)]
    for name, loss in together.items():
        expected = sum(n * part[name].item() for n, part in zip(LENGTHS, alone, strict=True)) / sum(LENGTHS)
        assert loss.item() == pytest.approx(expected, abs=1e-12), name


# of scores of thousands the gradient of a square is beyond fp16's range, whose scaler skips such a step
@pytest.mark.parametrize(("dtype", "size"), [(torch.bfloat16, 100.0), (torch.float16, 1.0), (torch.float32, 100.0)])
def test_gradients_are_finite_in_half_precision(dtype, size):
    student, teacher = (size * vectors(0, 6, torch.float32)).to(dtype).requires_grad_(), vectors(1, 6).to(dtype)
    for name, loss in all_losses(student, teacher).items():
        (gradient,) = torch.autograd.grad(loss, student, retain_graph=True)
        assert torch.isfinite(loss), name
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().max() > 0, name


class TestMaps:
    @pytest.mark.parametrize(("n_student", "n_teacher"), [(1, 6), (3, 6), (4, 6), (6, 6), (5, 24), (6, 4)])
    def test_uniform_rises_and_ends_with_the_last(self, n_student, n_teacher):
        found = list(map_layers("uniform", n_student, n_teacher).values())
        assert found == sorted(found)
        assert found[-1] == n_teacher - 1
        assert len(set(found)) == min(n_student, n_teacher)

    def test_of_tinybert_and_pkd(self):
        # TinyBERT's four layers learn from 3, 6, 9 and 12, counted from 1
        assert [layer + 1 for layer in map_layers("uniform", 4, 12).values()] == [3, 6, 9, 12]
        # PKD-Skip of six layers: 2, 4, 6, 8, 10; PKD-Last: the last ones
        assert [layer + 1 for layer in map_layers("skip", 6, 12).values()] == [2, 4, 6, 8, 10]
        assert [layer + 1 for layer in map_layers("last", 6, 12).values()] == [7, 8, 9, 10, 11, 12]
        assert map_layers("skip", 1, 12) == {}

    def test_the_upper_middle_of_large_teachers(self):
        assert [relation_layer(n) for n in (6, 12, 23, 24, 48)] == [5, 11, 22, 18, 37]
