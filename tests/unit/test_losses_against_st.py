"""Losses beside those of sentence-transformers, over the same random numbers, in their value and their gradient."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from distill.training import losses
from tests.unit.test_list_losses import ragged

cross = pytest.importorskip("sentence_transformers.cross_encoder.losses")
LOG2 = math.log(2)


class Scores(nn.Module):
    """A cross-encoder whose scores are given: pair (q, d) has the number `table[q, d]`."""

    num_labels, device = 1, torch.device("cpu")

    def __init__(self, table):
        super().__init__()
        self.table = table

    def preprocess(self, pairs, prompt=None, task=None):
        return {"places": torch.tensor([[int(query), int(document)] for query, document in pairs])}

    def forward(self, features):
        query, document = features["places"].T
        return {"scores": self.table[query, document][:, None]}


def of_st(loss_class, student, teacher, mask, **settings):
    """Their loss and its gradient, of lists."""
    table = student.clone().requires_grad_()
    loss = loss_class(Scores(table), **settings)
    queries = [str(row) for row in range(len(mask))]
    documents = [[str(place) for place in range(int(row.sum()))] for row in mask]
    value = loss((queries, documents), [row[own] for row, own in zip(teacher, mask, strict=True)])
    value.backward()
    return value.item(), table.grad


def of_ours(function, student, teacher, mask, **settings):
    student = student.clone().requires_grad_()
    value = function(student, teacher, mask, **settings)
    value.backward()
    return value.item(), student.grad


def graded(student, teacher, mask, **settings):
    return losses.lambda_loss(student, teacher, teacher, mask, **settings)


def cases():
    scheme = {
        "ndcg_loss2pp": cross.NDCGLoss2PPScheme(),
        "ndcg_loss2": cross.NDCGLoss2Scheme(),
        "lambdarank": cross.LambdaRankScheme(),
    }
    # theirs is the mean over all pairs of the batch, ours over queries of the mean over their pairs: lists of one length, equal
    # numbers of ordered pairs; and their logarithm has base 2
    yield "listnet", cross.ListNetLoss, {}, losses.listnet, {}, (5, 2, 3, 7), 1.0
    yield "list_mle", cross.ListMLELoss, {"respect_input_order": False}, losses.list_mle, {}, (5, 2, 3, 7), 1.0
    yield (
        "p_list_mle",
        cross.PListMLELoss,
        {"respect_input_order": False},
        losses.list_mle,
        {"position_aware": True},
        (5, 2, 3, 7),
        1.0,
    )
    yield "adr_mse", cross.ADRMSELoss, {"alpha": 2.0}, losses.adr_mse, {"alpha": 2.0}, (5, 5, 5), 1.0
    yield "ranknet", cross.RankNetLoss, {}, losses.ranknet, {"soft": False}, (5, 5, 5), LOG2
    yield (
        "ranknet_sigma",
        cross.RankNetLoss,
        {"sigma": 0.5, "reduction_log": "natural"},
        losses.ranknet,
        {"soft": False, "temperature": 2.0},
        (4, 4),
        4.0,
    )
    for name, theirs in scheme.items():
        yield (
            name,
            cross.LambdaLoss,
            {"weighting_scheme": theirs},
            graded,
            {"soft": False, "scheme": name},
            (5, 5, 5),
            LOG2,
        )
    yield "lambda_at_k", cross.LambdaLoss, {"k": 2}, graded, {"soft": False, "k": 2}, (5, 5), LOG2


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case[0])
def test_lists(case):
    _, theirs, their_settings, ours, our_settings, sizes, scale = case
    student, teacher, mask = ragged(11, sizes=sizes, dtype=torch.float32)
    teacher = teacher.abs() if theirs in (cross.LambdaLoss, cross.RankNetLoss) else teacher  # grades are not negative
    value, gradient = of_st(theirs, student, teacher, mask, **their_settings)
    got, got_gradient = of_ours(ours, student, teacher, mask, **our_settings)
    assert got == pytest.approx(scale * value, rel=1e-5, abs=1e-6)
    assert torch.allclose(got_gradient[mask], scale * gradient[mask], atol=1e-6)


def test_margin_mse_of_two_candidates():
    student, teacher, mask = ragged(12, sizes=(2, 2, 2), dtype=torch.float32)

    class Own(cross.MarginMSELoss):
        def __init__(self, model):
            nn.Module.__init__(self)
            self.model, self.activation_fn, self.loss_fct = model, nn.Identity(), nn.MSELoss()

    queries, first, second = ["0", "1", "2"], ["0"] * 3, ["1"] * 3
    value = Own(Scores(student))([queries, first, second], teacher[:, 0] - teacher[:, 1])
    assert losses.margin_mse(student, teacher, mask).item() == pytest.approx(value.item(), rel=1e-6)


class Vectors(nn.Module):
    """A bi-encoder whose vectors are given."""

    def forward(self, features):
        return {"sentence_embedding": features["vectors"]}


def unit(seed, *shape):
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_cosent():
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss

    left, right = unit(1, 12, 6), unit(2, 12, 6)
    labels = torch.randint(0, 4, (12,), generator=torch.Generator().manual_seed(3)).float()
    value = CoSENTLoss(Vectors())([{"vectors": left}, {"vectors": right}], labels)
    assert losses.cosent((left * right).sum(dim=1), labels, 20.0).item() == pytest.approx(value.item(), rel=1e-6)


@pytest.mark.parametrize("temperatures", [(1.0, None), (2.0, None), (0.5, 3.0)])
def test_kl_with_a_temperature_for_each(temperatures):
    from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss

    student, teacher = temperatures
    columns = [unit(seed, 5, 6) for seed in range(4)]
    told = torch.randn(5, 3, generator=torch.Generator().manual_seed(4))
    theirs = DistillKLDivLoss(Vectors(), temperature=student, teacher_temperature=teacher)
    value = theirs([{"vectors": column} for column in columns], told)
    dots = torch.stack([(columns[0] * column).sum(dim=1) for column in columns[1:]], dim=1)
    ours = losses.kl_divergence(dots, told, torch.ones(5, 3, dtype=torch.bool), student, teacher)
    assert ours.item() == pytest.approx(value.item(), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("strategy", "margin"), [("absolute", 0.0), ("absolute", 0.2), ("relative", 0.1)])
def test_infonce_with_a_guide(strategy, margin):
    """Against GISTEmbedLoss without its two further kinds of negatives, queries and documents of one side."""
    from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss

    class Own(GISTEmbedLoss):
        def __init__(self, model, guide):
            nn.Module.__init__(self)
            self.model, self.guide, self.temperature = model, guide, 0.1
            self.similarity_fct, self.cross_entropy_loss = nn.CosineSimilarity(dim=-1), nn.CrossEntropyLoss()
            self.must_retokenize = self.contrast_anchors = self.contrast_positives = self.gather_across_devices = False
            self.margin_strategy, self.margin = strategy, margin

    class Guide(Vectors):
        def forward(self, features):
            return {"sentence_embedding": features["guide"]}

    queries, documents, told_queries, told_documents = (unit(seed, 8, 4) for seed in range(4))
    features = [{"vectors": queries, "guide": told_queries}, {"vectors": documents, "guide": told_documents}]
    value = Own(Vectors(), Guide())(features, None).item()
    excluded = losses.false_negatives(told_queries, told_documents, margin, strategy)
    assert 0 < excluded.sum() < 56
    ours = losses.in_batch_infonce(queries, documents, torch.ones(8, dtype=torch.bool), excluded, 0.1)
    assert ours.item() == pytest.approx(value, rel=1e-5)
