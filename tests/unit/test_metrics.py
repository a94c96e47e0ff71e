import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from distill.errors import BadInput
from distill.metrics import measures, ndcg, offline, weighted
from distill.metrics.columns import ScoredColumns, query_numbers
from distill.metrics.measures import (
    METRICS,
    AblationMse,
    AveragePrecision,
    Estimate,
    NdcgAt10,
    RocAuc,
    Spearman,
    TeacherKendall,
    TeacherSpearman,
    evaluate_scores,
    metric_value,
    paired_difference,
    retention,
)
from distill.metrics.names import METRIC_NAMES


def sample(n=400, queries=40, seed=0, decimals=1):
    """Scores with many ties, binary labels, a teacher and query ids."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(float)
    scores = np.round(labels + rng.normal(size=n), decimals)
    return {
        "scores": scores,
        "labels": labels,
        "query_ids": np.array([f"q{query}" for query in rng.integers(0, queries, n)]),
        "teacher_scores": np.round(scores + rng.normal(0, 0.3, n), decimals),
        "unit_scores": 1 / (1 + np.exp(-scores)),
    }


# --- Values worked by hand -----------------------------------------------------------------------------------------


def test_spearman_by_hand():
    # Ranks of the scores 1 2 3 4, of the labels 1 3 2 4: squared distances 0 + 1 + 1 + 0, 1 - 6*2/(4*15) = 0.8.
    result = Spearman().compute(predictions=[0.1, 0.2, 0.3, 0.4], references=[0.0, 0.6, 0.4, 1.0])
    assert result == {"spearman": pytest.approx(0.8)}


def test_roc_auc_by_hand_with_a_tie():
    # Positives score 3 and 2, negatives 2 and 1. Couples won: 3>2, 3>1, 2>1, and 2=2 for a half: 3.5 of 4.
    result = RocAuc().compute(predictions=[3, 2, 2, 1], references=[1, 1, 0, 0])
    assert result == {"roc_auc": pytest.approx(0.875)}


def test_average_precision_by_hand():
    # Order + - +: precision 1/1 at the first positive, 2/3 at the second: (1 + 2/3)/2 = 5/6.
    result = AveragePrecision().compute(predictions=[0.9, 0.8, 0.7], references=[1, 0, 1])
    assert result == {"average_precision": pytest.approx(5 / 6)}


def test_ndcg_by_hand():
    # Query a: labels 0, 1 in score order: DCG 1/log2(3), best 1: 0.6309. Query b is in the best order: 1.
    # Query c has one candidate and query d no label above 0, so neither counts.
    result = NdcgAt10().compute(
        predictions=[0.9, 0.1, 0.8, 0.2, 0.5, 0.5, 0.4],
        references=[0, 1, 1, 0.5, 1, 0, 0],
        query_ids=["a", "a", "b", "b", "c", "d", "d"],
    )
    assert result == {"ndcg_at_10": pytest.approx((1 / np.log2(3) + 1) / 2)}


def test_ndcg_counts_the_top_ten_only():
    # The only positive is at rank 11, then at rank 10: 0, and 1/log2(11).
    ids = ["q"] * 11
    last = [0.0] * 10 + [1.0]
    tenth = [0.0] * 9 + [1.0, 0.0]
    scores = [float(11 - i) for i in range(11)]
    assert NdcgAt10().compute(predictions=scores, references=last, query_ids=ids) == {"ndcg_at_10": 0.0}
    value = NdcgAt10().compute(predictions=scores, references=tenth, query_ids=ids)["ndcg_at_10"]
    assert value == pytest.approx(1 / np.log2(11))


def test_ablation_mse_by_hand():
    # Cosines 0.6 and -1 map to 0.8 and 0: (0.2² + 0.5²)/2 = 0.145.
    result = AblationMse().compute(predictions=[(0.6 + 1) / 2, (-1 + 1) / 2], references=[1, 0.5])
    assert result == {"ablation_mse": pytest.approx(0.145)}


def test_kendall_by_hand_with_ties():
    # 4 pairs, 6 couples. Teacher ties one couple (3, 4), the student none. Of the other five, four agree: 4 - 1 = 3.
    # tau-b = 3 / sqrt(6 * 5).
    result = TeacherKendall().compute(predictions=[1, 2, 4, 3], references=[2, 1, 3, 3])
    assert result == {"teacher_kendall": pytest.approx(3 / np.sqrt(30))}


def test_teacher_spearman_is_on_any_scale():
    result = TeacherSpearman().compute(predictions=[-5.0, 0.0, 7.0], references=[100.0, 300.0, 900.0])
    assert result == {"teacher_spearman": pytest.approx(1)}


def test_float64_survives_evaluate():
    # These differ in float64 only; as float32 they would tie and give 0.5.
    assert RocAuc().compute(predictions=[1.0, 1.0 + 1e-12], references=[0, 1]) == {"roc_auc": 1.0}


@pytest.mark.parametrize("metric", [Spearman, TeacherSpearman, TeacherKendall])
def test_rank_correlation_with_a_constant_is_none(metric):
    assert metric().compute(predictions=[0.5, 0.5], references=[0, 1]) == {metric.key: None}
    assert metric().compute(predictions=[0.5, 0.6], references=[1, 1]) == {metric.key: None}


@pytest.mark.parametrize("metric", [RocAuc, AveragePrecision])
def test_one_class_is_none(metric):
    assert metric().compute(predictions=[0.5, 0.6], references=[0.5, 1.0]) == {metric.key: None}


def test_no_query_that_counts_is_none():
    assert NdcgAt10().compute(predictions=[1, 2], references=[0, 0], query_ids=["a", "a"]) == {"ndcg_at_10": None}


def test_metric_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metric = Spearman()
    metric.compute(predictions=[1, 2, 3], references=[0, 0.5, 1])
    assert metric.data_dir == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_home_that_cannot_be_written():
    code = (
        "import numpy as np; from distill.metrics.measures import evaluate_scores; x = np.arange(9.) / 9;"
        "print(evaluate_scores(scores=x, labels=x, seed=0)['spearman'].value)"
    )
    environment = {**os.environ, "HOME": "/proc/none", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(1)


def test_every_metric_has_one_name():
    assert [metric.key for metric in offline.METRIC_CLASSES] == list(METRIC_NAMES)
    assert METRICS == tuple(METRIC_NAMES)


# --- Parity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_ndcg_is_sklearns_with_ties_and_graded_labels(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 30, 25)
    ids = np.repeat(np.arange(25), sizes)
    labels = rng.integers(0, 5, len(ids)) / 4
    scores = rng.integers(0, 6, len(ids)).astype(float)
    groups = [ids == query for query in range(25) if labels[ids == query].max() > 0]
    expected = np.mean([ndcg_score([labels[rows]], [scores[rows]], k=10) for rows in groups])
    shuffled = rng.permutation(len(ids))
    keep, values = ndcg.ndcg_by_query(scores[shuffled], labels[shuffled], ids[shuffled])
    assert len(keep) == len(groups)
    assert values.mean() == pytest.approx(expected, abs=1e-12)


def weights_and_rows(n, seed):
    """Counts of a bootstrap resample and the rows that they stand for."""
    rng = np.random.default_rng(seed)
    counts = np.bincount(rng.integers(0, n, n), minlength=n)
    return counts.astype(float)[:, None], np.repeat(np.arange(n), counts)


CASES = [
    ("spearman", lambda x, y: weighted.spearman(x, y), lambda x, y: stats.spearmanr(x, y).statistic),
    ("auc", lambda x, y: weighted.roc_auc(x, y > 0), lambda x, y: roc_auc_score(y > 0, x)),
    ("ap", lambda x, y: weighted.average_precision(x, y > 0), lambda x, y: average_precision_score(y > 0, x)),
    ("tau", lambda x, y: weighted.kendall(x, y), lambda x, y: stats.kendalltau(x, y).statistic),
    ("mean", lambda x, y: weighted.mean((x - y) ** 2, np.arange(len(x))), lambda x, y: np.mean((x - y) ** 2)),
]


@pytest.mark.parametrize("name, make, plain", CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("decimals", [0, 1, 12], ids=["many ties", "ties", "no ties"])
@pytest.mark.parametrize("n", [5, 20, 300])
def test_weighted_statistic_is_the_plain_one_on_the_repeated_rows(name, make, plain, decimals, n):
    rng = np.random.default_rng(n)
    right = np.round(rng.normal(size=n), decimals)
    left = np.round(right + rng.normal(size=n), decimals)
    right[:2] = (-1, 1)  # both classes are there
    statistic = make(left, right)
    checked = 0
    for seed in range(20):
        weights, rows = weights_and_rows(n, seed)
        x, y = left[rows], right[rows]
        if name == "mean" or (np.ptp(x) and np.ptp(y) and y.min() <= 0 < y.max()):
            assert statistic(weights)[0] == pytest.approx(plain(x, y), abs=1e-12)
            checked += 1
    assert checked >= 5


@pytest.mark.parametrize("name, make, plain", CASES[:4], ids=[case[0] for case in CASES[:4]])
def test_degenerate_resample_is_nan_not_a_number_made_up(name, make, plain):
    statistic = make(np.array([1.0, 2.0, 3.0]), np.array([-1.0, -1.0, 1.0]))
    one_class = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])  # only negatives; only positives
    assert np.isnan(statistic(one_class)).all()


def test_tau_of_large_data_has_the_spread_of_the_exact_one(monkeypatch):
    data = sample(n=1500, decimals=12)
    call = {"scores": data["scores"], "labels": None, "teacher_scores": data["teacher_scores"], "seed": 3}
    exact = evaluate_scores(**call)["teacher_kendall"]
    monkeypatch.setattr(weighted, "_EXACT_TAU", 700)
    linear = evaluate_scores(**call)["teacher_kendall"]
    assert linear.value == exact.value
    width = exact.high - exact.low
    assert linear.low == pytest.approx(exact.low, abs=0.1 * width)
    assert linear.high == pytest.approx(exact.high, abs=0.1 * width)


def test_tau_of_large_data_that_nearly_agree_is_in_its_interval_as_in_the_exact_one(monkeypatch):
    rng = np.random.default_rng(0)
    teacher_scores = rng.normal(size=1500)
    scores = teacher_scores + 0.005 * rng.normal(size=1500)  # as an int8 export beside its student
    call = {"scores": scores, "labels": None, "teacher_scores": teacher_scores, "seed": 3}
    call["query_ids"] = np.arange(1500) // 3
    exact = evaluate_scores(**call)["teacher_kendall"]
    monkeypatch.setattr(weighted, "_EXACT_TAU", 700)
    linear = evaluate_scores(**call)["teacher_kendall"]
    assert linear.low < linear.value < linear.high
    middles = [(estimate.low + estimate.high) / 2 for estimate in (linear, exact)]
    assert middles[0] == pytest.approx(middles[1], abs=0.2 * (exact.high - exact.low))


# --- evaluate_scores -----------------------------------------------------------------------------------------------


def test_all_metrics_in_report_order_with_their_intervals():
    result = evaluate_scores(**sample(), seed=0, n_bootstrap=200)
    assert tuple(result) == METRICS
    for estimate in result.values():
        assert estimate.low < estimate.value < estimate.high
    assert {key: result[key].n for key in ("spearman", "ndcg_at_10")} == {
        "spearman": 400,
        "ndcg_at_10": 39,
    }  # one query has no positive


def test_json_has_no_nan_and_keeps_every_number():
    result = evaluate_scores(**sample(), seed=0, n_bootstrap=50)
    text = json.dumps({key: estimate.to_dict() for key, estimate in result.items()}, allow_nan=False)
    assert {key: Estimate(**value) for key, value in json.loads(text).items()} == result


def test_only_what_the_data_defines():
    data = sample()
    scores, labels = data["scores"], data["labels"]
    by_pair = {"spearman", "roc_auc", "average_precision"}
    assert set(evaluate_scores(scores=scores, labels=labels, seed=0, n_bootstrap=20)) == by_pair
    constant = evaluate_scores(scores=np.ones(400), labels=labels, seed=0, n_bootstrap=20)
    assert set(constant) == {"roc_auc", "average_precision"}
    assert constant["roc_auc"].value == 0.5
    assert constant["average_precision"].value == pytest.approx(labels.mean())
    assert evaluate_scores(scores=scores, labels=np.ones(400), seed=0, n_bootstrap=20) == {}
    no_labels = evaluate_scores(scores=scores, labels=None, teacher_scores=data["teacher_scores"], seed=0)
    assert set(no_labels) == {"teacher_spearman", "teacher_kendall"}


def test_graded_labels_are_positive_from_a_half():
    labels = np.array([0, 0.25, 0.49, 0.5, 0.75, 1.0] * 5)
    result = evaluate_scores(scores=labels, labels=labels, seed=0, n_bootstrap=50)
    assert result["roc_auc"].value == 1.0
    low = evaluate_scores(scores=labels, labels=labels * 0.4, seed=0, n_bootstrap=50)
    assert set(low) == {"spearman"}


def test_ndcg_needs_ten_queries():
    ids = np.repeat(np.arange(9), 3)
    labels = np.tile([1.0, 0.0, 0.5], 9)
    scores = np.random.default_rng(0).random(27)
    assert "ndcg_at_10" not in evaluate_scores(scores=scores, labels=labels, query_ids=ids, seed=0, n_bootstrap=20)
    ids[:6], labels[:6] = [0, 0, 0, 9, 9, 9], [1, 0, 0, 1, 0, 0]
    assert "ndcg_at_10" in evaluate_scores(
        scores=np.append(scores, [1, 2]),
        labels=np.append(labels, [1, 0]),
        query_ids=np.append(ids, [10, 10]),
        seed=0,
        n_bootstrap=20,
    )


def test_same_seed_same_interval():
    data = sample()
    once, again = (evaluate_scores(**data, seed=7, n_bootstrap=100) for _ in range(2))
    other = evaluate_scores(**data, seed=8, n_bootstrap=100)
    assert once == again
    assert once["spearman"].value == other["spearman"].value
    assert once["spearman"].low != other["spearman"].low


def test_interval_by_pair_is_the_plain_bootstrap():
    data = sample(n=120)
    estimate = evaluate_scores(scores=data["scores"], labels=data["labels"], seed=0, n_bootstrap=64)["roc_auc"]
    drawn = np.random.default_rng(0).integers(0, 120, size=(64, 120))
    values = [roc_auc_score(data["labels"][rows], data["scores"][rows]) for rows in drawn]
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-12)


def test_interval_by_query_draws_whole_queries():
    ids = np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3])
    for weights in measures._resamples(ids, 10, 20, seed=0):
        by_query = weights[[0, 3, 4, 6]]
        assert (weights == by_query[ids]).all()
        assert (by_query.sum(axis=0) == 4).all()


def test_repeated_pairs_of_a_query_widen_the_interval():
    data = sample(n=100)
    copies = {key: np.repeat(data[key], 8) for key in ("scores", "labels")}
    by_pair = evaluate_scores(**copies, seed=0)["spearman"]
    by_query = evaluate_scores(**copies, query_ids=np.repeat(np.arange(100), 8), seed=0)["spearman"]
    # Eight copies of a pair say what one does: wider by the root of 8, which is 2.8.
    assert (by_query.high - by_query.low) / (by_pair.high - by_pair.low) == pytest.approx(np.sqrt(8), rel=0.15)
    of_own_query = {
        "query_ids": np.arange(800),
        "clusters": np.repeat(np.arange(100), 8),
    }  # eight queries share a document
    assert evaluate_scores(**copies, **of_own_query, seed=0)["spearman"] == by_query


def test_single_query_falls_back_to_pairs():
    data = sample(n=100)
    columns = {key: data[key] for key in ("scores", "labels")}
    alone = evaluate_scores(**columns, query_ids=np.zeros(100), seed=0, n_bootstrap=100)
    assert alone == evaluate_scores(**columns, seed=0, n_bootstrap=100)


def test_too_little_data_to_bound_is_left_out():
    # One positive in two pairs: half of the resamples have one class.
    result = evaluate_scores(scores=np.array([0.1, 0.9]), labels=np.array([0.0, 1.0]), seed=1, n_bootstrap=400)
    assert "roc_auc" not in result or np.isfinite(result["roc_auc"].low)
    single = evaluate_scores(scores=np.array([0.1]), labels=np.array([0.0]), unit_scores=np.array([0.1]), seed=0)
    assert set(single) == {"ablation_mse"}


def test_rare_positive_drops_the_resamples_without_it():
    scores, labels = np.arange(30.0), np.zeros(30)
    labels[25] = 1
    estimate = evaluate_scores(scores=scores, labels=labels, seed=0)["roc_auc"]
    assert estimate.value == pytest.approx(25 / 29)
    assert 0.5 < estimate.low < estimate.value < estimate.high <= 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scores": np.array([0.1, np.nan, 0.3])}, r"scores: 1 of 3 values are not finite \(nan at position 1\)"),
        ({"scores": np.array([0.1, np.inf, 0.3])}, "inf at position 1"),
        ({"labels": np.array([0, 1, np.nan])}, "labels: 1 of 3"),
        ({"labels": np.array([0, 1])}, r"labels: shape \(2,\) where \(3,\)"),
        ({"labels": np.array([0, 5, 3])}, "labels: values from 0 to 5; map them"),
        ({"unit_scores": np.array([-1, 0, 1])}, "unit_scores: values from -1 to 1"),
        ({"teacher_scores": np.array([np.nan, 0, 1])}, "teacher_scores: 1 of 3"),
        ({"query_ids": np.array(["a"])}, "query_ids: 1 entries for 3"),
        ({"scores": np.array([]), "labels": None}, "no pairs"),
        ({"n_bootstrap": 0}, "n_bootstrap: 0"),
    ],
)
def test_bad_input_says_what_came(change, message):
    call = {"scores": np.array([0.1, 0.2, 0.3]), "labels": np.array([0.0, 1.0, 1.0]), "seed": 0, **change}
    with pytest.raises(BadInput, match=message):
        evaluate_scores(**call)


def test_a_cosine_may_round_past_one():
    evaluate_scores(scores=np.ones(3), labels=np.ones(3), unit_scores=np.full(3, 1.004), seed=0, n_bootstrap=10)


@pytest.mark.slow
def test_thousand_resamples_of_five_thousand_pairs_take_seconds():
    data = sample(n=5000, queries=500, decimals=12)
    start = time.perf_counter()
    evaluate_scores(**data, seed=0)
    assert time.perf_counter() - start < 10


# --- paired_difference and retention -------------------------------------------------------------------------------


def test_difference_of_a_model_and_itself_is_exactly_nothing():
    data = sample()
    difference = paired_difference(
        "roc_auc", *2 * [ScoredColumns.checked(data["scores"], data["labels"])], seed=0, n_bootstrap=50
    )
    assert difference == Estimate(0.0, 0.0, 0.0, 400)


def test_difference_is_narrower_than_two_intervals_and_has_the_right_sign():
    data = sample(n=600, decimals=12)
    worse = data["scores"] + np.random.default_rng(1).normal(0, 0.5, 600)
    labels, ids = data["labels"], data["query_ids"]
    a = evaluate_scores(scores=data["scores"], labels=labels, query_ids=ids, seed=0)["roc_auc"]
    b = evaluate_scores(scores=worse, labels=labels, query_ids=ids, seed=0)["roc_auc"]
    difference = paired_difference(
        "roc_auc", *(ScoredColumns.checked(scores, labels, ids) for scores in (data["scores"], worse)), seed=0
    )
    assert difference.value == pytest.approx(a.value - b.value)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.high - difference.low < a.high - a.low


@pytest.mark.parametrize("metric", METRICS)
def test_difference_of_each_metric(metric):
    data = sample()
    columns = {key: data[key] for key in ("labels", "query_ids", "teacher_scores")}
    difference = paired_difference(
        metric,
        ScoredColumns.checked(data["scores"], unit_scores=data["unit_scores"], **columns),
        ScoredColumns.checked(-data["scores"], unit_scores=1 - data["unit_scores"], **columns),
        n_bootstrap=100,
        seed=0,
    )
    assert (difference.value < 0) == (metric == "ablation_mse")
    assert difference.low <= difference.value <= difference.high


def test_difference_refuses_what_it_cannot_compare():
    three, two = (ScoredColumns.checked(scores, scores) for scores in ([0.1, 0.2, 0.3], [0.1, 0.2]))
    with pytest.raises(BadInput, match="known are spearman"):
        paired_difference("accuracy", three, three, seed=0)
    with pytest.raises(BadInput, match="score the same pairs"):
        paired_difference("spearman", three, two, seed=0)
    with pytest.raises(BadInput, match="ndcg_at_10: not defined"):
        paired_difference("ndcg_at_10", three, three, seed=0)


def test_a_value_alone_is_the_one_that_has_an_interval():
    scores, labels = [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]
    columns = ScoredColumns.checked(scores, labels)
    assert metric_value("roc_auc", columns) == 0.75  # three of four pairs of a match and another are in order
    estimates = evaluate_scores(scores=np.array(scores), labels=np.array(labels), seed=0)
    assert metric_value("spearman", columns) == estimates["spearman"].value
    with pytest.raises(BadInput, match="known are spearman"):
        metric_value("accuracy", columns)
    with pytest.raises(BadInput, match="ndcg_at_10: not defined on this data"):
        metric_value("ndcg_at_10", columns)


def test_retention_keeps_what_a_share_means_something_for():
    own = {key: Estimate(0.6, 0.5, 0.7, 10) for key in METRICS}
    teacher = {key: Estimate(0.8, 0.7, 0.9, 10) for key in METRICS if key != "average_precision"}
    teacher["ndcg_at_10"] = Estimate(0.0, 0.0, 0.0, 10)
    assert retention(own, teacher) == {"spearman": pytest.approx(0.75), "roc_auc": pytest.approx(0.75)}


def test_ids_are_told_apart_to_their_last_character_and_may_be_long():
    """numpy texts are as long as the longest and drop NULs at the end: 40 GB here, and two queries were one."""
    ids = ["b", "a", "a\0", 7, "7", "x" * 1_000_000, *["a"] * 10_000]
    numbers = query_numbers(ids)
    assert numbers[:6].tolist() == [3, 1, 2, 0, 0, 4] and set(numbers[6:]) == {1}
