import math

import pytest
import torch

from distill.training import losses

LOG2 = math.log(2)


def full(*shape):
    return torch.ones(*shape, dtype=torch.bool)


class TestBce:
    def test_is_the_formula(self):
        # x = log 3: σ = 3/4. Soft label 1/4: −[¼ log ¾ + ¾ log ¼] = ¼·0.28768 + ¾·1.38629 = 1.11164
        value = losses.bce(torch.tensor([math.log(3.0)]), torch.tensor([0.25]))
        assert value.item() == pytest.approx(1.11164, abs=1e-5)

    def test_gradient_is_the_difference_over_n(self):
        # d/dx = (σ(x) − y)/n: (0.5 − 1)/2 and (0.75 − 0.25)/2
        logits = torch.tensor([0.0, math.log(3.0)], requires_grad=True)
        losses.bce(logits, torch.tensor([1.0, 0.25])).backward()
        assert logits.grad.tolist() == pytest.approx([-0.25, 0.25], abs=1e-6)

    def test_large_logits_stay_finite(self):
        value = losses.bce(torch.tensor([500.0, -500.0]), torch.tensor([0.0, 1.0]))
        assert value.item() == 500.0


class TestMseAndContrastive:
    def test_mse_is_the_mean_square(self):
        assert losses.mse(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 1.0])).item() == pytest.approx(
            (0 + 4 + 9) / 3
        )

    def test_contrastive_maps_cosines_to_unit_scores(self):
        # (−1+1)/2 = 0 against 1; (0.5+1)/2 = 0.75 against 0.5; mean of 1 and 0.0625
        value = losses.contrastive(torch.tensor([-1.0, 0.5]), torch.tensor([1.0, 0.5]))
        assert value.item() == pytest.approx(0.53125)

    def test_contrastive_gradient(self):
        # d/dcos = 2·((cos+1)/2 − y)·½ / n = (0.5 − 1)/1
        cosine = torch.tensor([0.0], requires_grad=True)
        losses.contrastive(cosine, torch.tensor([1.0])).backward()
        assert cosine.grad.item() == pytest.approx(-0.5)


class TestInfoNce:
    def similar(self):
        """Queries and documents with similarities [[1, 0.6], [0, 0.8]]."""
        return torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.6, 0.8]])

    def test_is_the_cross_entropy_of_the_own_document(self):
        queries, documents = self.similar()
        # τ = 0.2: logits [[5, 3], [0, 4]]; log(1 + e⁻²) = 0.126928, log(1 + e⁻⁴) = 0.018150; mean 0.072539
        value = losses.in_batch_infonce(queries, documents, full(2), ~full(2, 2), 0.2)
        assert value.item() == pytest.approx(0.072539, abs=1e-6)

    def test_only_positives_count(self):
        queries, documents = self.similar()
        value = losses.in_batch_infonce(queries, documents, torch.tensor([True, False]), ~full(2, 2), 0.2)
        assert value.item() == pytest.approx(0.126928, abs=1e-6)

    def test_excluded_documents_are_no_negatives_and_the_own_one_always_counts(self):
        queries, documents = self.similar()
        # query 0 may not see document 1: nothing is left but its own, log 1 = 0; its own is excluded too, in vain
        excluded = torch.tensor([[True, True], [False, False]])
        value = losses.in_batch_infonce(queries, documents, full(2), excluded, 0.2)
        assert value.item() == pytest.approx(0.018150 / 2, abs=1e-6)

    def test_without_a_positive_is_zero_with_zero_gradient(self):
        queries, documents = self.similar()
        queries.requires_grad_()
        value = losses.in_batch_infonce(queries, documents, ~full(2), ~full(2, 2), 0.2)
        value.backward()
        assert value.item() == 0
        assert queries.grad.abs().max() == 0

    def test_gradient_is_finite_where_all_else_is_excluded(self):
        queries, documents = self.similar()
        queries.requires_grad_()
        losses.in_batch_infonce(queries, documents, full(2), full(2, 2), 0.2).backward()
        assert torch.isfinite(queries.grad).all()


class TestKl:
    def test_of_equal_logits_is_zero_whatever_the_shift(self):
        # softmax does not see a constant added to all logits of a query
        logits = torch.tensor([[2.0, -1.0, 0.5]])
        assert losses.kl_divergence(logits + 3.0, logits, full(1, 3), 2.0).item() == pytest.approx(0, abs=1e-6)

    def test_is_tau_squared_times_the_divergence(self):
        # teacher logits 2·(log 3, 0), τ = 2: p = (¾, ¼); the student is uniform, q = ½:
        # ¾ log 1.5 + ¼ log 0.5 = 0.304099 − 0.173287 = 0.130812; τ² = 4: 0.523248
        teacher, student = torch.tensor([[2 * math.log(3.0), 0.0]]), torch.tensor([[7.0, 7.0]])
        assert losses.kl_divergence(student, teacher, full(1, 2), 2.0).item() == pytest.approx(0.523248, abs=1e-5)

    def test_is_the_teachers_divergence_from_the_student_not_the_other_way(self):
        # p = (½, ½), q = (¾, ¼): ½ log(2/3) + ½ log 2 = 0.143841; the other way it were 0.130812
        teacher, student = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
        assert losses.kl_divergence(student, teacher, full(1, 2), 1.0).item() == pytest.approx(0.143841, abs=1e-5)

    def test_masked_candidates_do_not_exist(self):
        teacher, student = torch.tensor([[1.0, 0.0, 9.0]]), torch.tensor([[0.0, 0.0, -50.0]], requires_grad=True)
        mask = torch.tensor([[True, True, False]])
        value = losses.kl_divergence(student, teacher, mask, 1.0)
        alone = losses.kl_divergence(student[:, :2], teacher[:, :2], full(1, 2), 1.0)
        assert value.item() == pytest.approx(alone.item(), abs=1e-7)
        value.backward()
        assert student.grad[0, 2] == 0
        assert torch.isfinite(student.grad).all()

    def test_is_the_mean_over_queries(self):
        teacher, student = torch.tensor([[2 * math.log(3.0), 0.0], [1.0, 1.0]]), torch.zeros(2, 2)
        assert losses.kl_divergence(student, teacher, full(2, 2), 2.0).item() == pytest.approx(0.523248 / 2, abs=1e-5)

    def test_gradient_keeps_its_size_as_the_temperature_grows(self):
        # for large τ: τ²·(q − p)/τ → (centred student − centred teacher)/n_candidates, whatever τ (Hinton et al., §2)
        teacher = torch.tensor([[0.9, -0.3, 0.0]])

        def gradient(temperature):
            student = torch.tensor([[0.0, 0.6, -0.6]], requires_grad=True)
            losses.kl_divergence(student, teacher, full(1, 3), temperature).backward()
            return student.grad[0]

        expected = torch.tensor([(0.0 - 0.7) / 3, (0.6 + 0.5) / 3, (-0.6 + 0.2) / 3])  # the teacher's mean is 0.2
        for temperature in (8.0, 32.0):
            assert torch.allclose(gradient(temperature), expected, atol=0.02)
        assert gradient(1.0).norm().item() == pytest.approx(gradient(32.0).norm().item(), rel=0.35)


class TestMarginMse:
    def test_is_the_mean_over_candidate_pairs(self):
        # differences s − t: 1, 0, −2; margins a<b: 1, 3, 2; squares 1 + 9 + 4 over 3
        student, teacher = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[1.0, 1.0, 2.0]])
        assert losses.margin_mse(student, teacher, full(1, 3)).item() == pytest.approx(14 / 3)

    def test_a_shift_of_all_scores_costs_nothing(self):
        teacher = torch.tensor([[3.0, 1.0, -2.0]])
        assert losses.margin_mse(teacher + 5, teacher, full(1, 3)).item() == pytest.approx(0, abs=1e-10)

    def test_masked_candidates_do_not_exist_and_lone_ones_do_not_count(self):
        student = torch.tensor([[1.0, 0.0, 99.0], [5.0, 7.0, 9.0]])
        teacher = torch.tensor([[3.0, 1.0, -99.0], [0.0, 0.0, 0.0]])
        mask = torch.tensor([[True, True, False], [True, False, False]])
        # query 0: (1 − 2)² = 1; query 1 has one candidate and is not counted in the mean
        assert losses.margin_mse(student, teacher, mask).item() == 1.0

    def test_gradient(self):
        # loss = ((s0 − s1) − 2)²: d/ds0 = 2·(1 − 2) = −2, d/ds1 = 2
        student = torch.tensor([[1.0, 0.0]], requires_grad=True)
        losses.margin_mse(student, torch.tensor([[3.0, 1.0]]), full(1, 2)).backward()
        assert student.grad.tolist() == [[-2.0, 2.0]]

    def test_without_margins_is_zero(self):
        assert losses.margin_mse(torch.ones(2, 1), torch.zeros(2, 1), full(2, 1)).item() == 0


class TestEmbeddings:
    def test_cosine_does_not_see_lengths(self):
        # cos((3, 4), (4, 3)·2) = 24/25; opposite vectors cost 2; mean of 0.04 and 2
        student, teacher = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[8.0, 6.0], [-5.0, 0.0]])
        assert losses.embedding_cosine(student, teacher).item() == pytest.approx(1.02)

    def test_mse_sums_over_the_width(self):
        # (1 + 4) and 0, mean over two texts
        student, teacher = torch.tensor([[1.0, 2.0], [3.0, 3.0]]), torch.tensor([[0.0, 0.0], [3.0, 3.0]])
        assert losses.embedding_mse(student, teacher).item() == 2.5

    def test_mse_of_unit_vectors_is_twice_the_cosine_loss(self):
        vectors = torch.nn.functional.normalize(
            torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0)), dim=-1
        )
        assert losses.embedding_mse(*vectors).item() == pytest.approx(
            2 * losses.embedding_cosine(*vectors).item(), rel=1e-5
        )

    def test_of_identical_vectors_are_zero(self):
        vectors = torch.tensor([[0.3, -0.4, 1.2]])
        assert losses.embedding_mse(vectors, vectors).item() == 0
        assert losses.embedding_cosine(vectors, vectors).item() == pytest.approx(0, abs=1e-6)


def test_log_two_is_what_an_undecided_pair_costs():
    assert losses.bce(torch.zeros(3), torch.tensor([0.0, 1.0, 0.5])).item() == pytest.approx(LOG2)
    assert losses.in_batch_infonce(
        torch.ones(2, 1), torch.ones(2, 1), full(2), ~full(2, 2), 1.0
    ).item() == pytest.approx(LOG2)
