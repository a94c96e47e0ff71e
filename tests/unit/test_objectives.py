"""Steps over a stub encoder: what a batch's losses add up to, whatever the passes and processes."""

import copy
import math
import threading
from contextlib import nullcontext
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from distill.data.pairs import Pairs
from distill.recipe.schema import (
    AdrMse,
    Cka,
    CoSent,
    EmbeddingMatch,
    Labels,
    LambdaLoss,
    ListMle,
    ListNet,
    MarginMatch,
    Objectives,
    RankNet,
    Rkd,
    ScoreMatch,
    Similarity,
)
from distill.training.batching import Planner
from distill.training.coupling import CoupledStep, run_coupled
from distill.training.negatives import GuideVectors, Negatives
from distill.training.objectives import Step, teacher_logits, teacher_unit
from distill.training.trainset import LoneTexts, Tokenization, TrainSet

WIDTH, TEACHER_WIDTH = 6, 4


class WordTokenizer:
    """Numbers words by their hash; pairs are joined by a separator."""

    model_input_names = ("input_ids", "attention_mask")
    pad_token_id = 0

    def __call__(self, texts, pair_texts=None, *, max_length, **_):
        pair_texts = pair_texts or [None] * len(texts)
        joined = [text if pair is None else f"{text} | {pair}" for text, pair in zip(texts, pair_texts, strict=True)]
        return {"input_ids": [[1 + sum(word.encode()) % 97 for word in text.split()][:max_length] for text in joined]}


class Stub(nn.Module):
    """The mean of word vectors, through one layer: knows nothing of padding."""

    def __init__(self, kind):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.words = nn.Parameter(torch.randn(100, WIDTH, generator=generator))
        self.layer = nn.Parameter(torch.randn(WIDTH, 1 if kind == "cross_encoder" else WIDTH, generator=generator))
        self.output = "scores" if kind == "cross_encoder" else "sentence_embedding"

    def forward(self, features):
        mask = features["attention_mask"].unsqueeze(-1)
        mean = (self.words[features["input_ids"]] * mask).sum(1) / mask.sum(1)
        return {self.output: torch.tanh(mean @ self.layer) * 2}

    def get_embedding_dimension(self):
        return WIDTH


def pairs_of(n_queries=9, n_documents=3):
    rng = np.random.default_rng(0)
    queries = [f"query {q} " + "so " * (q % 4) for q in range(n_queries) for _ in range(n_documents)]
    documents = [f"document {d} " + "long " * int(rng.integers(0, 9)) for d in range(len(queries))]
    return Pairs(queries, documents, rng.random(len(queries)).astype(np.float32))


def trainset_of(kind, candidates=None, unlabelled=(), pairs=None):
    pairs = pairs_of() if pairs is None else pairs
    trainset = TrainSet.build(
        Tokenization(kind, WordTokenizer(), 16), pairs, candidates=candidates, lone=LoneTexts(unlabelled)
    )
    rng = np.random.default_rng(1)
    trainset.teacher_scores = {
        "cross": rng.normal(size=len(pairs)).astype(np.float32),
        "bi": rng.uniform(-1, 1, len(pairs)).astype(np.float32),
    }
    vectors = rng.normal(size=(len(trainset.tokens), TEACHER_WIDTH)).astype(np.float32)
    trainset.embeddings = lambda rows: vectors[rows]
    trainset.relations = {"bi": trainset.embeddings} if kind == BI else {}
    return trainset


def step_of(kind, objectives):
    torch.manual_seed(0)
    projected = TEACHER_WIDTH if objectives.embedding_match else None
    kinds = {"cross": "cross_encoder", "bi": "bi_encoder"}
    return Step(Stub(kind), kind, objectives, teacher_kinds=kinds, projected_width=projected)


def run(step, trainset, units, **plan):
    """Losses and gradients of one optimizer step: summed over passes, averaged over processes as DDP does.

    Without a plan, all in one pass.
    """
    n_processes = plan.get("n_processes", 1)
    planner = Planner(
        lengths=trainset.unit_lengths,
        sequences=trainset.unit_sequences,
        global_batch=len(units),
        seed=0,
        **{"micro_batch": 1000, "token_budget": 10**6, **plan},
    )
    passes = list(planner._passes(units)) if plan else [[units]]
    step.zero_grad()
    if trainset.coupled and plan:
        return (*run_in_threads(step, trainset, passes, trainset.counts(units), n_processes), len(passes))
    sums = {}
    for per_process in passes:
        for process in range(n_processes):
            batch = trainset.batch(per_process[process], totals=trainset.counts(units), n_processes=n_processes)
            terms = step(batch)
            (sum(terms.values()) / n_processes).backward()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.item() / n_processes
    gradients = {name: parameter.grad.clone() for name, parameter in step.named_parameters()}
    return sums, gradients, len(passes)


class Threads:
    """Stands in for accelerate: its processes are threads, each with its copy of the step."""

    def __init__(self, n):
        self.parts, self.barrier = [None] * n, threading.Barrier(n)

    def accelerator(self, index):
        def gather(tensor):
            self.parts[index] = tensor
            self.barrier.wait()
            whole = torch.cat(self.parts)
            self.barrier.wait()
            return whole

        return SimpleNamespace(
            process_index=index,
            num_processes=len(self.parts),
            device=torch.device("cpu"),
            gather=gather,
            no_sync=lambda step: nullcontext(),
            backward=lambda loss: loss.backward(),
        )


def run_in_threads(step, trainset, passes, totals, n):
    """Losses and gradients of a coupled step."""
    together, steps, results = Threads(n), [copy.deepcopy(step) for _ in range(n)], [None] * n

    coupled = CoupledStep(trainset, passes, totals, {}, lambda number: number)

    def work(index):
        accelerator, own = together.accelerator(index), steps[index]
        results[index], _ = run_coupled(accelerator, own, own, coupled)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    sums = {name: sum(result[name].item() for result in results) / n for name in results[0]}
    gradients = {
        name: sum(dict(own.named_parameters())[name].grad for own in steps) / n
        for name, parameter in step.named_parameters()
        if parameter.requires_grad
    }
    return sums, gradients


CROSS, BI = "cross_encoder", "bi_encoder"
LISTS = {"listnet": ListNet, "ranknet": RankNet, "lambda_loss": LambdaLoss, "list_mle": ListMle, "adr_mse": AdrMse}
CASES = [
    (CROSS, Objectives(labels=Labels(loss="bce")), None),
    (CROSS, Objectives(labels=Labels(loss="mse", weight=0.3)), None),
    (BI, Objectives(labels=Labels(loss="contrastive")), None),
    (BI, Objectives(labels=Labels(loss="bce")), None),
    *(
        (kind, Objectives(score_match=ScoreMatch(teacher=teacher, loss=loss, temperature=temperature)), None)
        for kind in (CROSS, BI)
        for teacher in ("cross", "bi")
        for loss, temperature in (("mse", 1.0), ("bce", 2.0), ("logit_mse", 1.0))
    ),
    *(
        (kind, Objectives(score_match=ScoreMatch(teacher="cross", loss="kl", temperature=3.0)), 2)
        for kind in (CROSS, BI)
    ),
    *(
        (kind, Objectives(margin_mse=MarginMatch(teacher=teacher)), 3)
        for kind in (CROSS, BI)
        for teacher in ("cross", "bi")
    ),
    *(
        (kind, Objectives(**{name: term(teacher=teacher)}), 3)
        for kind in (CROSS, BI)
        for teacher in ("cross", "bi", None)
        for name, term in LISTS.items()
    ),
    (
        CROSS,
        Objectives(score_match=ScoreMatch(teacher="cross", loss="bce", temperature=2.0, teacher_temperature=0.5)),
        None,
    ),
    (
        CROSS,
        Objectives(listnet=ListNet(teacher="cross", weight=0.5), list_mle=ListMle(), adr_mse=AdrMse(teacher="bi")),
        2,
    ),
    (BI, Objectives(embedding_match=EmbeddingMatch(teacher="bi", loss="cosine")), None),
    (BI, Objectives(embedding_match=EmbeddingMatch(teacher="bi", loss="mse")), 2),
    (
        BI,
        Objectives(
            labels=Labels(weight=0.2),
            score_match=ScoreMatch(teacher="cross", loss="kl"),
            margin_mse=MarginMatch(teacher="cross"),
            embedding_match=EmbeddingMatch(teacher="bi"),
        ),
        2,
    ),
]


# the last is all of the others at once: the inner loop has it alone
PLANS = [
    pytest.param({"micro_batch": 2}, marks=pytest.mark.integration),
    pytest.param({"token_budget": 60}, marks=pytest.mark.integration),
    pytest.param({"n_processes": 2}, marks=pytest.mark.integration),
    {"n_processes": 4, "micro_batch": 2},
]
PLAN_NAMES = ["micro_batch 2", "token_budget 60", "n_processes 2", "n_processes 4, micro_batch 2"]


def name_of(case):
    kind, objectives, candidates = case
    terms = {name: term.model_dump() for name, term in objectives.terms().items()}
    details = "-".join(f"{name}-{term.get('loss', '')}-{term.get('teacher', '')}" for name, term in terms.items())
    return f"{kind}-{details}-{candidates}"


@cache
def in_one_pass(number):
    """The trainset of a case, its units, a step over it, and what `run` gives of all units at once."""
    kind, objectives, candidates = CASES[number]
    unlabelled = [f"lone {i} text" for i in range(5)] if objectives.embedding_match else ()
    trainset = trainset_of(kind, candidates, unlabelled)
    units, step = np.arange(len(trainset)), step_of(kind, objectives)
    return trainset, units, step, run(step, trainset, units)


@pytest.mark.parametrize("case", CASES, ids=name_of)
@pytest.mark.parametrize("plan", PLANS, ids=PLAN_NAMES)
def test_losses_of_small_passes_and_several_processes_add_up_to_those_of_one_pass(case, plan):
    _, objectives, _ = case
    trainset, units, step, (whole, whole_gradients, n_passes) = in_one_pass(CASES.index(case))
    parts, part_gradients, n_small = run(step, trainset, units, **plan)
    assert n_passes == 1
    assert n_small > 1 or "n_processes" in plan
    assert set(whole) == set(parts) == {*objectives.terms(), "nothing"}
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, abs=1e-6, rel=1e-6)
    for name, gradient in whole_gradients.items():
        assert (part_gradients[name] - gradient).abs().max() <= 3e-6 * max(1.0, gradient.abs().max()), name
    assert sum(gradient.abs().sum() for gradient in whole_gradients.values()) > 0


COUPLED = [
    (BI, Objectives(labels=Labels(loss="infonce", temperature=0.3)), None),
    (BI, Objectives(labels=Labels(loss="infonce"), margin_mse=MarginMatch(teacher="cross")), 3),
    *(
        (kind, Objectives(cosent=CoSent(teacher=teacher, weight=0.5)), None)
        for kind in (CROSS, BI)
        for teacher in ("cross", None)
    ),
    (BI, Objectives(rkd=Rkd(teacher="bi")), None),
    (BI, Objectives(rkd=Rkd(teacher="bi", angle_texts=5)), None),
    (BI, Objectives(similarity=Similarity(teacher="bi")), None),
    (BI, Objectives(similarity=Similarity(teacher="bi", loss="kl", temperature=0.2)), 2),
    (BI, Objectives(cka=Cka(teacher="bi")), None),
    (
        BI,
        Objectives(
            labels=Labels(loss="bce"),
            score_match=ScoreMatch(teacher="cross", loss="kl"),
            cka=Cka(teacher="bi"),
            embedding_match=EmbeddingMatch(teacher="bi"),
            ranknet=RankNet(),
        ),
        2,
    ),
]


@pytest.mark.parametrize("case", COUPLED, ids=name_of)
@pytest.mark.parametrize("plan", PLANS, ids=PLAN_NAMES)
def test_losses_that_couple_a_step_do_not_see_its_passes_and_processes(case, plan):
    kind, objectives, candidates = case
    assert objectives.couples
    unlabelled = [f"lone {i} text" for i in range(5)] if objectives.from_texts else ()
    trainset = trainset_of(kind, candidates, unlabelled)
    trainset.coupled, trainset.in_batch_negatives = True, objectives.labels is not None
    units, step = np.arange(len(trainset)), step_of(kind, objectives)
    whole, whole_gradients, n_passes = run(step, trainset, units)
    parts, part_gradients, n_small = run(step, trainset, units, **plan)
    assert n_passes == 1
    assert n_small > 1 or "n_processes" in plan
    assert set(whole) - {"nothing"} == set(parts) == set(objectives.terms())
    for name, value in parts.items():
        assert whole[name] == pytest.approx(value, abs=1e-6, rel=1e-5)
        assert value > 1e-3
    for name, gradient in whole_gradients.items():
        assert (part_gradients[name] - gradient).abs().max() <= 3e-6 * max(1.0, gradient.abs().max()), name
    assert sum(gradient.abs().sum() for gradient in whole_gradients.values()) > 0


class Dropped(Stub):
    """The stub with dropout before its layer."""

    def forward(self, features):
        mask = features["attention_mask"].unsqueeze(-1)
        mean = (self.words[features["input_ids"]] * mask).sum(1) / mask.sum(1)
        return {self.output: torch.tanh(nn.functional.dropout(mean, 0.5, self.training) @ self.layer)}


def test_a_pass_of_a_coupled_step_draws_the_same_dropout_both_times():
    objectives = Objectives(cka=Cka(teacher="bi"), similarity=Similarity(teacher="bi"))
    trainset = trainset_of(BI)
    trainset.coupled = True
    step = Step(Dropped(BI), BI, objectives, teacher_kinds={"bi": BI})
    passes = [[units] for units in np.array_split(np.random.default_rng(0).permutation(len(trainset)), 4)]
    totals = trainset.counts(np.arange(len(trainset)))
    _, gradients = run_in_threads(step, trainset, passes, totals, 1)
    # the same with the graphs of all passes at once
    outputs = []
    for number, (units,) in enumerate(passes):
        torch.manual_seed(number)
        outputs.append(step(trainset.batch(units, totals=totals), outputs_only=True)["outputs"])
    whole = trainset.batch(np.concatenate([units for (units,) in passes]), totals=totals)
    sum(step.losses_of(whole, torch.cat(outputs)).values()).backward()
    for name, parameter in step.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-7), name


class TestByHand:
    """Two pairs whose scores are set from outside."""

    def losses_of(self, kind, objectives, scores, labels=(1.0, 0.0), teacher=(0.0, 0.0), candidates=None):
        pairs = Pairs(["same query"] * 2, ["first", "second"], np.array(labels, dtype=np.float32))
        trainset = TrainSet.build(Tokenization(kind, WordTokenizer(), 16), pairs, candidates=candidates)
        trainset.teacher_scores = {name: np.array(teacher, dtype=np.float32) for name in ("cross", "bi")}
        step = step_of(kind, objectives)
        batch = trainset.batch(np.arange(len(trainset)), totals=trainset.counts(np.arange(len(trainset))))
        terms = step._losses(batch, torch.tensor(scores), torch.zeros(3, WIDTH) if kind == BI else None)
        return {name: value.item() for name, value in terms.items() if name != "nothing"}

    def test_labels_of_a_cross_encoder(self):
        # bce of logits (0, log 3) against (1, 0): log 2 and log(1 + 3); mean (0.693147 + 1.386294)/2, weighted by 2
        got = self.losses_of(CROSS, Objectives(labels=Labels(weight=2)), (0.0, math.log(3)))
        assert got == {"labels": pytest.approx(2.079442, abs=1e-5)}

    def test_labels_of_a_bi_encoder(self):
        # contrastive: (1 − 1)² and (0.5 − 0)²
        got = self.losses_of(BI, Objectives(labels=Labels()), (1.0, 0.0))
        assert got == {"labels": pytest.approx(0.125)}

    def test_bce_of_a_bi_encoder_sees_ten_times_the_cosine_at_first(self):
        # logits (1, 0) against (1, 0): log(1 + e⁻¹) = 0.313262, log 2
        got = self.losses_of(BI, Objectives(labels=Labels(loss="bce")), (0.1, 0.0))
        assert got == {"labels": pytest.approx((0.313262 + 0.693147) / 2, abs=1e-5)}

    def test_score_mse_compares_unit_scores_over_both_kinds(self):
        # the student's cosines 1 and 0 are 1 and 0.5; the teacher's logits 0 and log 3 are 0.5 and 0.75
        objectives = Objectives(score_match=ScoreMatch(teacher="cross", loss="mse"))
        got = self.losses_of(BI, objectives, (1.0, 0.0), teacher=(0.0, math.log(3)))
        assert got == {"score_match": pytest.approx((0.25 + 0.0625) / 2, abs=1e-6)}

    def test_logit_mse_compares_logits(self):
        # a bi-encoder teacher's cosines count ten times: (1 − 2)², (0 − (−5))²
        objectives = Objectives(score_match=ScoreMatch(teacher="bi", loss="logit_mse"))
        got = self.losses_of(CROSS, objectives, (1.0, 0.0), teacher=(0.2, -0.5))
        assert got == {"score_match": pytest.approx(13.0, rel=1e-5)}

    def test_score_bce_divides_both_logits_by_the_temperature(self):
        # τ = 2, teacher log 9 / 2 = log 3: 0.75; student 0: log 2 each, times τ² = 4
        objectives = Objectives(score_match=ScoreMatch(teacher="cross", loss="bce", temperature=2))
        got = self.losses_of(CROSS, objectives, (0.0, 0.0), teacher=(math.log(9), -7.0))
        assert got == {"score_match": pytest.approx(4 * math.log(2), rel=1e-5)}

    def test_margin_mse_is_on_the_teachers_scale(self):
        # the student's cosines 0.3 and 0.1 are logits 3 and 1, the teacher's 1 and 0: (2 − 1)²
        objectives = Objectives(margin_mse=MarginMatch(teacher="cross"))
        got = self.losses_of(BI, objectives, (0.3, 0.1), teacher=(1.0, 0.0), candidates=2)
        assert got == {"margin_mse": pytest.approx(1.0, rel=1e-5)}

    def test_temperatures_of_their_own(self):
        # bce: the teacher's log 9 / 2 = log 3: 0.75; the student's 2·log 3 / 2: −[¾ log ¾ + ¼ log ¼] = 0.562335, and of equal
        # logits 0 and 0 log 2; times τ² = 4
        told = {"temperature": 2, "teacher_temperature": 2}
        objectives = Objectives(score_match=ScoreMatch(teacher="cross", loss="bce", **told))
        got = self.losses_of(CROSS, objectives, (2 * math.log(3), 0.0), teacher=(math.log(9), 0.0))
        assert got == {"score_match": pytest.approx(4 * (0.562335 + 0.693147) / 2, abs=1e-5)}
        # kl: the teacher's (2·log 3, 0)/4 → (√3, 1)/(√3 + 1), the student's (log 3, 0)/1 → (¾, ¼)
        objectives = Objectives(score_match=ScoreMatch(teacher="cross", loss="kl", teacher_temperature=4))
        got = self.losses_of(CROSS, objectives, (math.log(3), 0.0), teacher=(2 * math.log(3), 0.0), candidates=2)
        p = 3**0.5 / (3**0.5 + 1)
        expected = p * math.log(p / 0.75) + (1 - p) * math.log((1 - p) / 0.25)
        assert got == {"score_match": pytest.approx(expected, abs=1e-6)}

    def test_lists_from_labels_and_from_a_teacher(self):
        # labels: only the order, d = log 3: −log ¾. A teacher with logits (log 3, 0): −(¾ log ¾ + ¼ log ¼)
        scores = (math.log(3), 0.0)
        got = self.losses_of(CROSS, Objectives(ranknet=RankNet()), scores, candidates=2)
        assert got == {"ranknet": pytest.approx(0.287682, abs=1e-5)}
        told = {"teacher": scores, "candidates": 2}
        got = self.losses_of(CROSS, Objectives(ranknet=RankNet(teacher="cross")), scores, **told)
        assert got == {"ranknet": pytest.approx(0.562335, abs=1e-5)}
        got = self.losses_of(CROSS, Objectives(ranknet=RankNet(teacher="cross", targets="hard")), scores, **told)
        assert got == {"ranknet": pytest.approx(0.287682, abs=1e-5)}

    def test_lists_of_equal_labels_do_not_count(self):
        pairs = Pairs(["a", "a", "b", "b"], ["w", "x", "y", "z"], np.array([1, 0, 1, 1], dtype=np.float32))
        trainset = trainset_of(CROSS, candidates=2, pairs=pairs)
        units = np.arange(2)
        assert trainset.counts(units)["ordered"] == 1
        step = step_of(CROSS, Objectives(ranknet=RankNet()))
        batch = trainset.batch(units, totals=trainset.counts(units))
        got = step._losses(batch, torch.tensor([0.0, 0.0, 5.0, -5.0]), None)
        assert got["ranknet"].item() == pytest.approx(math.log(2), abs=1e-6)

    def test_cosent_of_cosines_and_of_logits(self):
        # 20·(0.1 − 0) = 2: log(1 + e⁻²); a cross-encoder's logits are taken as they are: log(1 + e⁻¹)
        assert self.losses_of(BI, Objectives(cosent=CoSent()), (0.1, 0.0)) == {
            "cosent": pytest.approx(0.126928, abs=1e-5)
        }
        assert self.losses_of(CROSS, Objectives(cosent=CoSent()), (1.0, 0.0)) == {
            "cosent": pytest.approx(0.313262, abs=1e-5)
        }
        told = Objectives(cosent=CoSent(teacher="bi", scale=1.0))  # the other way round than the labels
        assert self.losses_of(BI, told, (0.0, 1.0), teacher=(0.2, 0.4)) == {"cosent": pytest.approx(0.313262, abs=1e-5)}

    def test_same_scores_cost_nothing(self):
        for loss, candidates in (("mse", None), ("logit_mse", None), ("kl", 2)):
            objectives = Objectives(
                score_match=ScoreMatch(teacher="cross", loss=loss), margin_mse=MarginMatch(teacher="cross")
            )
            got = self.losses_of(CROSS, objectives, (1.5, -0.5), teacher=(1.5, -0.5), candidates=candidates)
            assert all(value == pytest.approx(0, abs=1e-6) for value in got.values())


def test_teacher_scores_on_both_scales():
    scores = torch.tensor([0.0, math.log(3)])
    assert teacher_logits(scores, CROSS, 10.0).tolist() == scores.tolist()
    assert teacher_unit(scores, CROSS).tolist() == pytest.approx([0.5, 0.75])
    assert teacher_unit(scores, CROSS, temperature=0.5).tolist() == pytest.approx([0.5, 0.9])  # log 9
    assert teacher_logits(torch.tensor([0.5]), BI, 10.0).tolist() == [5.0]
    assert teacher_unit(torch.tensor([0.5]), BI).tolist() == [0.75]


class TestInfoNce:
    def excluded(self, pairs):
        trainset = TrainSet.build(Tokenization(BI, WordTokenizer(), 16), pairs)
        trainset.in_batch_negatives = True
        units = np.arange(len(pairs))
        return trainset.batch(units, totals=trainset.counts(units)).excluded.tolist()

    def test_same_document_text_is_no_negative(self):
        labels = np.array([1, 1, 1], dtype=np.float32)
        assert self.excluded(Pairs(["a", "b", "c"], ["x", "y", "x"], labels)) == [
            [True, False, True],  # a's x is c's x
            [False, True, False],
            [True, False, True],
        ]

    @pytest.mark.parametrize("prompts", [("", ""), ("query: ", "passage: ")])
    def test_the_querys_own_text_is_no_negative(self, prompts):
        pairs = Pairs(["a", "c"], ["b", "a"], np.ones(2, dtype=np.float32))
        trainset = TrainSet.build(Tokenization(BI, WordTokenizer(), 16, prompts, any(prompts)), pairs)
        assert trainset.negatives().excluded(np.arange(2)).tolist() == [[True, True], [False, True]]

    def test_known_positives_of_the_same_query_are_no_negatives(self):
        # a has the positives x and y and the judged negative z, which stays a negative
        labels = np.array([1, 1, 0, 1], dtype=np.float32)
        assert self.excluded(Pairs(["a", "a", "a", "b"], ["x", "y", "z", "w"], labels)) == [
            [True, True, False, False],
            [True, True, False, False],
            [True, True, True, False],  # z against itself is the diagonal, which the loss keeps
            [False, False, False, True],
        ]

    def test_answers_in_other_steps_are_no_negatives(self):
        labels = np.array([1, 1, 1, 0], dtype=np.float32)
        trainset = TrainSet.build(
            Tokenization(BI, WordTokenizer(), 16), Pairs(["a", "b", "a", "b"], ["x", "y", "y", "x"], labels)
        )
        trainset.in_batch_negatives = True
        # a's y is an answer by the third pair, which is not here; b's x is judged to be none
        batch = trainset.batch(np.array([0, 1]), totals=trainset.counts(np.arange(4)))
        assert batch.excluded.tolist() == [[True, True], [False, True]]

    def test_a_guide_leaves_out_what_it_takes_for_answers(self):
        labels = np.ones(3, dtype=np.float32)
        trainset = TrainSet.build(
            Tokenization(BI, WordTokenizer(), 16), Pairs(["a", "b", "c"], ["x", "y", "z"], labels)
        )
        trainset.in_batch_negatives = True
        told = dict(zip("abcxyz", [[1, 0], [0, 1], [-1, 0], [3, 1], [3, 0.5], [-2, 0.1]], strict=True))
        vectors = np.array([told[text] for text in trainset.texts], dtype=np.float32)
        trainset.guide = GuideVectors(lambda rows: vectors[rows])
        batch = trainset.batch(np.arange(3), totals=trainset.counts(np.arange(3)))
        # y is nearer to a than x is; x is nearer to b than y is; z is a's and b's farthest
        assert batch.excluded.tolist() == [[True, True, False], [True, True, False], [False, False, True]]

    def test_known_positives_are_recognised_by_text_under_another_query_too(self):
        # y is a positive of a; b's y is the same text and must not push a away
        labels = np.array([1, 1, 0], dtype=np.float32)
        assert self.excluded(Pairs(["a", "a", "b"], ["x", "y", "y"], labels))[0] == [True, True, True]

    @pytest.mark.parametrize("plan", [{}, {"micro_batch": 3}, {"n_processes": 2, "micro_batch": 2}], ids=str)
    def test_is_the_mean_over_the_positives_of_the_step_with_all_its_documents(self, plan):
        pairs = pairs_of(8, 1)
        pairs = Pairs(pairs.queries, pairs.documents, np.array([1, 0, 1, 1, 0, 1, 1, 1], dtype=np.float32))
        trainset = trainset_of(BI, pairs=pairs)
        trainset.in_batch_negatives = trainset.coupled = True
        step = step_of(BI, Objectives(labels=Labels(loss="infonce", temperature=0.5, weight=3)))
        units = np.arange(8)
        sums, _, n_passes = run(step, trainset, units, **plan)
        assert n_passes > 1 or not plan
        # the same from the definition: the sum over positives, over the 6 of the step
        total = 0.0
        with torch.no_grad():
            unit = [
                nn.functional.normalize(step.model(trainset.tokens.batch(side[units]))["sentence_embedding"], dim=-1)
                for side in (trainset.query_rows, trainset.document_rows)
            ]
        logits = (unit[0] @ unit[1].T / 0.5).tolist()
        for i in range(8):
            if pairs.labels[i]:
                total -= math.log(math.exp(logits[i][i]) / sum(math.exp(value) for value in logits[i]))
        assert sums["labels"] == pytest.approx(3 * total / 6, rel=1e-5)

    def test_pass_without_a_positive_gives_zero_and_no_nan(self):
        pairs = Pairs(["a", "b"], ["x", "y"], np.zeros(2, dtype=np.float32))
        trainset = trainset_of(BI, pairs=pairs)
        trainset.in_batch_negatives = True
        step = step_of(BI, Objectives(labels=Labels(loss="infonce")))
        sums, gradients, _ = run(step, trainset, np.arange(2))
        assert sums["labels"] == 0
        assert all(gradient.abs().sum() == 0 for gradient in gradients.values())


class TestStep:
    def test_every_parameter_gets_a_gradient_in_a_pass_that_uses_none_of_it(self):
        # margin_mse over units with one candidate has nothing to say, DDP waits for the scale all the same
        step = step_of(
            BI, Objectives(margin_mse=MarginMatch(teacher="cross"), embedding_match=EmbeddingMatch(teacher="bi"))
        )
        trainset = trainset_of(BI, candidates=2, pairs=pairs_of(3, 1))
        trainset.embeddings = None
        _, gradients, _ = run(step, trainset, np.arange(len(trainset)))
        assert set(gradients) == {"model.words", "model.layer", "projection.weight", "scale_and_bias"}

    def test_scale_is_learned_only_where_a_loss_needs_logits(self):
        for objectives, needed in [
            (Objectives(labels=Labels()), False),
            (Objectives(labels=Labels(loss="bce")), True),
            (Objectives(score_match=ScoreMatch(teacher="bi", loss="mse")), False),
            (Objectives(score_match=ScoreMatch(teacher="bi", loss="kl")), True),
            (Objectives(margin_mse=MarginMatch(teacher="bi")), True),
        ]:
            assert (step_of(BI, objectives).scale_and_bias is not None) is needed
            assert step_of(CROSS, objectives).scale_and_bias is None

    @pytest.mark.parametrize("kind", [CROSS, BI])
    def test_predicts_in_the_order_of_the_pairs_whatever_the_padding(self, kind):
        trainset, step = trainset_of(kind), step_of(kind, Objectives(labels=Labels()))
        units = np.random.default_rng(2).permutation(len(trainset))
        together = trainset.batch(units, totals=trainset.counts(units))
        assert together.rows.tolist() == units.tolist()
        with torch.no_grad():
            scores = step(together, predict=True)["scores"]
            alone = [
                step(trainset.batch(units[[i]], totals=trainset.counts(units)), predict=True)["scores"]
                for i in range(len(units))
            ]
        assert torch.allclose(scores, torch.cat(alone), atol=1e-6)


class TestTrainSet:
    def test_units_are_pairs_queries_and_lone_texts(self):
        pairs = Pairs(["a", "b", "a", "a"], ["x", "y", "z", "w"], np.zeros(4, dtype=np.float32))
        trainset = TrainSet.build(
            Tokenization(BI, WordTokenizer(), 16), pairs, candidates=2, lone=LoneTexts(["l", "x", "l"])
        )
        # a has three documents: a unit of two and one of one; then b; then the lone texts, each once
        assert [unit.tolist() for unit in trainset.unit_pairs] == [[0, 2], [3], [1], [], []]
        assert trainset.texts == ["a", "b", "x", "y", "z", "w", "l"]
        assert [sorted(trainset.texts[row] for row in rows) for rows in trainset.unit_texts] == [
            ["a", "x", "z"],
            ["a", "w"],
            ["b", "y"],
            ["l"],
            ["x"],
        ]
        assert trainset.counts(np.arange(5)) == {
            "pairs": 4,
            "labelled": 4,
            "groups": 1,
            "ordered": 0,
            "texts": 9,
            "positives": 0,
            "tokens": 0,
        }

    def test_prompts_keep_a_text_in_both_roles_apart(self):
        pairs = Pairs(["same"], ["same"], np.ones(1, dtype=np.float32))
        one = TrainSet.build(Tokenization(BI, WordTokenizer(), 16), pairs)
        two = TrainSet.build(Tokenization(BI, WordTokenizer(), 16, ("query: ", "passage: "), by_role=True), pairs)
        assert (len(one.tokens), len(two.tokens)) == (1, 2)
        assert (two.texts, two.roles) == (["same", "same"], [0, 1])
        assert two.tokens.lengths.tolist() == [2, 2]

    def test_empty_share_of_a_pass_counts_for_nothing(self):
        trainset, step = trainset_of(CROSS), step_of(CROSS, Objectives(labels=Labels()))
        batch = trainset.batch(np.zeros(0, dtype=np.int64), totals=trainset.counts(np.arange(4)), n_processes=2)
        assert set(batch.share.values()) == {0.0}
        assert sum(step(batch).values()).item() == 0


@pytest.mark.parametrize("loss", ["contrastive", "bce", "infonce"])
@pytest.mark.parametrize("plan", [{}, {"micro_batch": 2}])
def test_pairs_without_a_label_have_no_part_in_the_label_loss(loss, plan):
    """The loss of labelled pairs is the same whatever stands beside them, in one pass as in several."""
    labels = np.array([1, 0, 1], dtype=np.float32)
    known = Pairs(["a b", "c d", "e f"], ["x a", "y d", "z f"], labels)
    unknown = np.append(labels, [np.nan, np.nan]).astype(np.float32)
    more = Pairs([*known.queries, "a b", "g"], [*known.documents, "w", "x a"], unknown)
    found = []
    for pairs in (known, more):
        trainset = trainset_of(BI, pairs=pairs)
        trainset.in_batch_negatives = trainset.coupled = loss == "infonce"
        step = step_of(BI, Objectives(labels=Labels(loss=loss)))
        found.append(run(step, trainset, np.arange(len(pairs)), **plan)[0]["labels"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


# settings that were constants


def test_scales_and_positives_are_settings_of_the_recipe():
    trainset = trainset_of(BI, candidates=3)
    units = np.arange(len(trainset.unit_pairs))
    match = ScoreMatch(teacher="bi", loss="logit_mse")

    def loss(**settings):
        step = step_of(BI, Objectives(score_match=match, **settings))
        return float(step(trainset.batch(units, totals=trainset.counts(units)))["score_match"].detach())

    cosines = step_of(BI, Objectives(score_match=match))(
        trainset.batch(units, totals=trainset.counts(units)), predict=True
    )["scores"].detach()
    teacher = torch.from_numpy(trainset.teacher_scores["bi"])
    for own, other in ((10.0, 10.0), (3.0, 10.0), (10.0, 4.0)):
        expected = float((own * cosines - other * teacher).square().mean())
        assert loss(logit_scale=own, teacher_logit_scale=other) == pytest.approx(expected, rel=1e-5)
    assert loss() == loss(logit_scale=10.0, teacher_logit_scale=10.0)


def test_positives_start_at_the_given_label():
    trainset = trainset_of(BI)
    units = np.arange(len(trainset.unit_pairs))
    for least in (0.5, 0.8):
        trainset.positive_from = least
        expected = int((trainset.labels >= least).sum())
        assert trainset.counts(units)["positives"] == expected > 0
    few, many = (
        Negatives(trainset.query_rows, trainset.document_rows, trainset.labels, positive_from=least)
        .excluded(np.arange(9))
        .sum()
        for least in (0.5, 0.1)
    )
    assert many > few
