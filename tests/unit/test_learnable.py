"""What is refused before a training that would learn nothing; and that temperature moves no optimum."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.data.pairs import Pairs
from distill.errors import BadInput, JobFailed
from distill.recipe.schema import (
    AdrMse,
    Cka,
    CoSent,
    EmbeddingMatch,
    Guide,
    Labels,
    MarginMatch,
    Objectives,
    RankNet,
    Rkd,
    Schedule,
    ScoreMatch,
    Similarity,
)
from distill.training import losses
from distill.training.learnable import (
    check_learnable,
    check_pairs,
    check_related,
    rank_correlation,
    unlearnable,
    unrelated,
)
from distill.training.negatives import GuideVectors
from distill.training.objectives import teacher_logits, teacher_unit
from distill.training.trainset import validation_value
from tests.unit.test_objectives import LISTS, step_of, trainset_of

BI, CROSS = "bi_encoder", "cross_encoder"


def pairs(queries, documents, labels):
    return Pairs(queries, documents, None if labels is None else np.array(labels, dtype=np.float32))


LONE = pairs(["a", "b", "c", "d"], ["w", "x", "y", "z"], [0, 1, 0, 1])
GROUPED = pairs(["a", "a", "b", "b"], ["w", "x", "y", "z"], [0, 1, 0, 1])
KL, MARGIN = (
    Objectives(score_match=ScoreMatch(teacher="cross", loss="kl")),
    Objectives(margin_mse=MarginMatch(teacher="cross")),
)
INFONCE = Objectives(labels=Labels(loss="infonce"))


def test_what_labels_alone_cannot_teach_has_a_reason():
    ways = {"infonce": Labels(loss="infonce"), "bce": Labels(loss="bce"), "cosent": CoSent()}

    def reasons(train, global_batch=32):
        data = SimpleNamespace(candidates=None)
        run = SimpleNamespace(recipe=SimpleNamespace(data=data), split=SimpleNamespace(train=train))
        return unlearnable(run, ways, global_batch=global_batch)

    assert reasons(LONE) == {}
    assert set(reasons(pairs(["a", "b"], ["w", "x"], [1, 1]))) == {"bce", "cosent"}
    one_document = reasons(pairs(["a", "b"], ["w", "w"], [1, 1]))
    assert set(one_document) == set(ways) and "needs documents that do not answer" in one_document["infonce"]
    assert set(reasons(LONE, global_batch=1)) == {"infonce"}


def check(objectives, units, global_batch=32):
    check_learnable("student", units, objectives, global_batch=global_batch)


class TestBeforeAnythingIsTrained:
    """What the pairs themselves lack is refused without tokens and signals."""

    def check(self, objectives, train, kind=CROSS, candidates=4, unlabelled_pairs=()):
        student = SimpleNamespace(kind=kind, training=SimpleNamespace(global_batch=32))
        data = SimpleNamespace(candidates=candidates, unlabelled_pairs=unlabelled_pairs)
        recipe = SimpleNamespace(student=student, data=data, objectives=objectives, teachers={})
        check_pairs(SimpleNamespace(recipe=recipe, split=SimpleNamespace(train=train), name=None))

    @pytest.mark.parametrize("objectives", [KL, MARGIN, Objectives(adr_mse=AdrMse(teacher="cross"))])
    def test_no_query_with_two_documents(self, objectives):
        with pytest.raises(BadInput, match=r"student: .*no training query has two documents"):
            self.check(objectives, LONE)
        self.check(objectives, GROUPED)
        self.check(objectives, LONE, unlabelled_pairs=["a teacher finds more"])

    def test_lists_from_labels(self):
        ranknet = Objectives(ranknet=RankNet())
        with pytest.raises(BadInput, match="ranknet learns the order of .*no training query has two documents"):
            self.check(ranknet, LONE)
        with pytest.raises(BadInput, match="ranknet: the training pairs have no labels to learn from; name a teacher"):
            self.check(ranknet, pairs(GROUPED.queries, GROUPED.documents, None))
        self.check(ranknet, GROUPED)

    def test_labels(self):
        with pytest.raises(BadInput, match="no training label is 0.5 or more"):
            self.check(INFONCE, pairs(LONE.queries, LONE.documents, [0, 0.2, 0.4, 0]), kind=BI)
        with pytest.raises(BadInput, match="the one document all do"):
            self.check(INFONCE, pairs(["a", "b"], ["x", "x"], [1, 1]), kind=BI, candidates=None)
        self.check(INFONCE, LONE, kind=BI, candidates=None)

    def test_what_teachers_say_is_not_asked(self):
        self.check(Objectives(cosent=CoSent(teacher="cross"), cka=Cka(teacher="bi")), LONE)


class TestNothingToLearn:
    @pytest.mark.parametrize("objectives", [KL, MARGIN])
    def test_no_query_with_two_documents(self, objectives):
        with pytest.raises(BadInput, match=r"student: .*no training query has two documents"):
            check(objectives, trainset_of(CROSS, candidates=4, pairs=LONE))
        check(objectives, trainset_of(CROSS, candidates=4, pairs=GROUPED))

    @pytest.mark.parametrize("objectives", [KL, Objectives(ranknet=RankNet())])
    def test_pairs_that_are_compared_with_none_are_counted(self, objectives, caplog):
        five = pairs(["a"] * 5 + ["b"], list("uvwxyz"), [0, 1, 0, 1, 0, 1])  # of "a" one is left over, "b" has one
        (field,) = objectives.terms()
        with caplog.at_level("INFO"):
            check(objectives, trainset_of(CROSS, candidates=4, pairs=five))
        assert (
            f"student: 2 of 6 pairs are alone in their list (data.candidates), and count for nothing in {field}"
            in caplog.text
        )
        caplog.clear()
        with caplog.at_level("INFO"):
            check(objectives, trainset_of(CROSS, candidates=4, pairs=GROUPED))
            check(Objectives(labels=Labels(loss="bce")), trainset_of(CROSS, candidates=4, pairs=five))
        assert "alone in their list" not in caplog.text

    @pytest.mark.parametrize("objectives", [KL, MARGIN])
    def test_the_same_score_for_all_candidates(self, objectives):
        units = trainset_of(CROSS, candidates=4, pairs=GROUPED)
        units.teacher_scores["cross"] = np.array(
            [1.0, 1.0, -2.0, -2.0], dtype=np.float32
        )  # differs between queries alone
        with pytest.raises(JobFailed, match="teacher cross gives all candidates of every query the same score"):
            check(objectives, units)

    @pytest.mark.parametrize("loss", ["mse", "bce", "logit_mse"])
    def test_the_same_score_for_all_pairs(self, loss):
        units = trainset_of(CROSS, pairs=LONE)
        objectives = Objectives(score_match=ScoreMatch(teacher="cross", loss=loss))
        check(objectives, units)
        units.teacher_scores["cross"] = np.full(4, 0.3, dtype=np.float32)
        with pytest.raises(JobFailed, match="teacher cross gives every pair the same score, 0.3"):
            check(objectives, units)

    def test_the_same_embedding_for_all_texts(self):
        units = trainset_of(BI, pairs=LONE)
        objectives = Objectives(embedding_match=EmbeddingMatch(teacher="bi"))
        check(objectives, units)
        units.embeddings = lambda rows: np.ones((len(rows), 4), dtype=np.float32)
        with pytest.raises(JobFailed, match="teacher bi gives every text the same embedding"):
            check(objectives, units)

    def test_labels_that_are_all_the_same(self):
        units = trainset_of(BI, pairs=pairs(LONE.queries, LONE.documents, [1, 1, 1, 1]))
        for loss in ("contrastive", "bce", None):
            with pytest.raises(BadInput, match="every training label is 1, .* use loss infonce"):
                check(Objectives(labels=Labels(loss=loss)), units)
        check(INFONCE, units)

    def test_no_labels(self):
        with pytest.raises(BadInput, match="the training pairs have no labels"):
            check(INFONCE, trainset_of(BI, pairs=pairs(LONE.queries, LONE.documents, None)))

    def test_infonce_without_a_positive(self):
        with pytest.raises(BadInput, match=r"infonce learns from positives, and no training label is 0\.5 or more"):
            check(INFONCE, trainset_of(BI, pairs=pairs(LONE.queries, LONE.documents, [0, 0.2, 0.4, 0])))

    def test_infonce_over_a_single_document(self):
        with pytest.raises(BadInput, match="needs documents that do not answer a query, and the one document all do"):
            check(INFONCE, trainset_of(BI, pairs=pairs(["a", "b", "c"], ["x", "x", "x"], [1, 1, 1])))

    def test_infonce_over_one_query_that_all_documents_answer(self):
        with pytest.raises(BadInput, match="the 3 documents all do"):
            check(INFONCE, trainset_of(BI, pairs=pairs(["a", "a", "a"], ["x", "y", "z"], [1, 1, 1])))

    def test_infonce_in_steps_of_one_pair(self):
        units = trainset_of(BI, pairs=LONE)
        with pytest.raises(BadInput, match=r"a step holds one; set training\.global_batch"):
            check(INFONCE, units, global_batch=1)
        check(INFONCE, units, global_batch=2)

    @pytest.mark.parametrize("field", LISTS)
    def test_lists_without_an_order(self, field):
        by_labels = Objectives(**{field: LISTS[field]()})
        with pytest.raises(
            BadInput, match=f"student: {field} learns the order of .*no training query has two documents"
        ):
            check(by_labels, trainset_of(CROSS, candidates=4, pairs=LONE))
        tied = pairs(GROUPED.queries, GROUPED.documents, [0, 0, 1, 1])
        with pytest.raises(
            BadInput, match="all of them have one label within a query; add candidates, or name a teacher"
        ):
            check(by_labels, trainset_of(CROSS, candidates=4, pairs=tied))
        with pytest.raises(BadInput, match=f"{field}: the training pairs have no labels to learn from; name a teacher"):
            check(by_labels, trainset_of(CROSS, candidates=4, pairs=pairs(GROUPED.queries, GROUPED.documents, None)))
        check(by_labels, trainset_of(CROSS, candidates=4, pairs=GROUPED))
        by_teacher = Objectives(**{field: LISTS[field](teacher="cross")})
        with pytest.raises(BadInput, match=f"student: {field} .*no training query has two documents"):
            check(by_teacher, trainset_of(CROSS, candidates=4, pairs=LONE))
        check(by_teacher, trainset_of(CROSS, candidates=4, pairs=tied))

    def test_cosent_needs_labels_or_scores_that_differ(self):
        same = trainset_of(BI, pairs=pairs(LONE.queries, LONE.documents, [1, 1, 1, 1]))
        with pytest.raises(BadInput, match="cosent learns the order of labels, and every training label is 1"):
            check(Objectives(cosent=CoSent()), same)
        check(Objectives(cosent=CoSent(teacher="cross")), same)
        same.teacher_scores["cross"] = np.full(4, 0.3, dtype=np.float32)
        with pytest.raises(JobFailed, match="cosent: teacher cross gives every pair the same score"):
            check(Objectives(cosent=CoSent(teacher="cross")), same)

    @pytest.mark.parametrize(("field", "term"), [("rkd", Rkd), ("similarity", Similarity), ("cka", Cka)])
    def test_relations_need_texts_that_a_teacher_tells_apart(self, field, term):
        objectives, units = Objectives(**{field: term(teacher="bi")}), trainset_of(BI, pairs=LONE)
        check(objectives, units)
        units.relations = {"bi": lambda rows: np.ones((len(rows), 4), dtype=np.float32)}
        with pytest.raises(JobFailed, match=f"{field}: teacher bi gives every text the same embedding"):
            check(objectives, units)

    def test_angles_need_three_texts_a_step(self):
        units = trainset_of(BI, pairs=LONE)
        with pytest.raises(BadInput, match=r"rkd compares .* a step holds 2 of the 3 .*raise training\.global_batch"):
            check(Objectives(rkd=Rkd(teacher="bi")), units, global_batch=1)
        check(Objectives(rkd=Rkd(teacher="bi", angle=0)), units, global_batch=1)

    def test_a_guide_that_leaves_no_negatives(self, caplog):
        objectives = Objectives(labels=Labels(loss="infonce", guide=Guide(teacher="bi", margin=2)))
        units = trainset_of(BI, pairs=pairs(LONE.queries, LONE.documents, [1, 1, 1, 1]))
        units.guide = GuideVectors(units.embeddings, margin=2)
        with pytest.raises(
            JobFailed, match=r"infonce: the guide bi takes every document for an answer at guide\.margin 2; lower it"
        ):
            check(objectives, units)
        units.guide = GuideVectors(units.embeddings, margin=-2)
        with caplog.at_level("INFO"):
            check(objectives, units)
        assert "the guide bi leaves out 0 % of the negatives (of 4 pairs)" in caplog.text

    def test_scores_that_are_no_numbers(self):
        units = trainset_of(CROSS, pairs=LONE)
        units.teacher_scores["cross"] = np.array([0, 1, np.nan, np.inf], dtype=np.float32)
        with pytest.raises(JobFailed, match="gives NaN or infinity for 2 of 4 items, the first in row 2"):
            check(Objectives(score_match=ScoreMatch(teacher="cross")), units)


def test_a_step_learns_where_it_holds_what_a_loss_is_a_mean_over():
    held = {"pairs": 4, "labelled": 4, "groups": 0, "texts": 8, "positives": 0}
    assert not step_of(CROSS, KL).learns_from(held)
    assert not step_of(BI, MARGIN).learns_from(held)
    assert not step_of(BI, INFONCE).learns_from(held)
    assert step_of(CROSS, KL).learns_from({**held, "groups": 1})
    assert step_of(BI, INFONCE).learns_from({**held, "positives": 1})
    assert step_of(BI, Objectives(margin_mse=MarginMatch(teacher="cross"), labels=Labels())).learns_from(held)
    assert not step_of(BI, Objectives(labels=Labels())).learns_from({**held, "labelled": 0})


def test_new_terms_and_scheduled_ones_learn_where_they_count():
    held = {"pairs": 4, "labelled": 0, "groups": 1, "ordered": 0, "texts": 8, "positives": 0}
    for objectives, expected in (
        (Objectives(ranknet=RankNet()), False),
        (Objectives(ranknet=RankNet(teacher="cross")), True),
        (Objectives(cosent=CoSent()), False),
        (Objectives(cosent=CoSent(teacher="cross")), True),
        (Objectives(cka=Cka(teacher="bi")), True),
    ):
        assert step_of(BI, objectives).learns_from(held) is expected
    late = Objectives(score_match=ScoreMatch(teacher="cross", schedule=Schedule(start=0.5)), ranknet=RankNet())
    step = step_of(CROSS, late)
    assert not step.learns_from(held, step.factors(0.5))
    assert step.learns_from(held, step.factors(0.6))


class TestRelation:
    LABELS = np.tile([0.0, 1.0], 150)

    def test_interval_by_hand(self):
        # ρ = 1 − 6·Σd²/(n(n² − 1)) with two neighbours exchanged: 1 − 12/(10·99); z ± 1.96·√((1 + ρ²/2)/7)
        rho, low, high = rank_correlation(np.array([1, 0, *range(2, 10)]), np.arange(10))
        z, half = math.atanh(1 - 12 / 990), 1.959964 * math.sqrt((1 + (1 - 12 / 990) ** 2 / 2) / 7)
        assert (rho, low, high) == pytest.approx((1 - 12 / 990, math.tanh(z - half), math.tanh(z + half)))

    def test_of_a_good_teacher_is_fine(self):
        assert unrelated("x", self.LABELS + np.random.default_rng(0).normal(size=300), self.LABELS) is None

    def test_of_noise_is_refused(self):
        said = unrelated("the scores of teacher t", np.random.default_rng(3).normal(size=300), self.LABELS)
        assert said is not None and "have nothing to do with the labels: Spearman " in said and "over 300 pairs" in said

    def test_of_a_good_teacher_shuffled_is_refused(self):
        rng = np.random.default_rng(1)
        assert unrelated("x", rng.permutation(self.LABELS + rng.normal(size=300)), self.LABELS) is not None

    def test_against_the_labels_is_refused(self):
        assert "are against the labels" in (unrelated("x", -self.LABELS + np.arange(300) * 1e-4, self.LABELS) or "")

    def test_of_few_pairs_is_not_told(self):
        assert unrelated("x", np.random.default_rng(0).normal(size=40), self.LABELS[:40]) is None

    def test_weak_but_shown_is_fine(self):
        rng = np.random.default_rng(0)
        labels = np.tile([0.0, 1.0], 2000)
        scores = labels + 5 * rng.normal(size=4000)  # ρ ≈ 0.1
        assert 0 < rank_correlation(scores, labels)[1] and rank_correlation(scores, labels)[2] < 0.15
        assert unrelated("x", scores, labels) is None

    def test_of_constant_labels_is_not_asked(self):
        assert unrelated("x", np.arange(300.0), np.ones(300)) is None

    def test_the_recipe_may_allow_it(self):
        units = trainset_of(CROSS, pairs=pairs([f"q{i}" for i in range(300)], ["d"] * 300, self.LABELS))
        units.teacher_scores = {"cross": np.random.default_rng(3).normal(size=300)}
        with pytest.raises(JobFailed, match=r"student: the scores of teacher cross .*signals\.allow_unrelated=true"):
            check_related("student", units, allow_unrelated=False)
        check_related("student", units, allow_unrelated=True)


@pytest.mark.parametrize("scores", [[1, 1, 1], [1, float("nan"), 1], [1, float("inf"), 0]])
def test_a_validation_value_of_nothing_is_undefined(scores):
    assert math.isnan(validation_value(np.array(scores, dtype=float), np.array([0, 1, 0])))
    assert math.isnan(validation_value(np.array([1.0, 2, 3]), np.ones(3)))


class TestTemperatureMovesNoOptimum:
    """A student of the teacher's own probabilities has no gradient, whatever divides both logits."""

    @pytest.mark.parametrize("kind", [BI, CROSS])
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
    def test_of_soft_labels(self, kind, temperature):
        scores = torch.tensor([0.8, -0.3, 0.0, 0.99])
        student = (torch.logit((scores + 1) / 2) if kind == BI else scores).requires_grad_()
        loss = temperature**2 * losses.bce(student / temperature, teacher_unit(scores.detach(), kind, temperature))
        (gradient,) = torch.autograd.grad(loss, student)
        assert gradient.abs().max() < 1e-6

    def test_at_four_the_optimum_stays_at_nine_tenths(self):
        grid = torch.linspace(0.5, 0.9999, 5001, dtype=torch.float64)
        target = teacher_unit(torch.tensor(0.8, dtype=torch.float64), BI, 4.0).expand(len(grid))
        logits = torch.logit(grid) / 4
        loss = -(
            target * torch.nn.functional.logsigmoid(logits) + (1 - target) * torch.nn.functional.logsigmoid(-logits)
        )
        assert grid[loss.argmin()].item() == pytest.approx(0.9, abs=2e-4)

    @pytest.mark.parametrize("kind", [BI, CROSS])
    @pytest.mark.parametrize("temperature", [0.5, 4.0])
    def test_of_candidates(self, kind, temperature):
        teacher = teacher_logits(torch.tensor([[0.8, -0.3, 0.1]]), kind, 10.0)
        student = teacher.clone().requires_grad_()
        loss = losses.kl_divergence(student, teacher, torch.ones(1, 3, dtype=torch.bool), temperature)
        (gradient,) = torch.autograd.grad(loss, student)
        assert gradient.abs().max() < 1e-6

    def test_cosines_of_one_are_certain(self):
        assert teacher_unit(torch.tensor([1.0, -1.0, 1.0000001]), BI, 4.0).tolist() == [1.0, 0.0, 1.0]
