"""The gate's measures, on scorers whose truth is known: no model."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from distill.data.pairs import Pairs
from distill.data.scripts import main_script, rows_by_script, stratified
from distill.errors import BadInput
from distill.metrics.columns import ScoredColumns
from distill.metrics.measures import paired_difference
from students.export.agreement import rank_agreement, settled, top_k_overlap
from students.export.arithmetic import Arithmetic
from students.export.calibration import as_read, calibration_inputs
from students.export.float_layers import matched
from students.export.gate import (
    DEFAULT_THRESHOLDS,
    N_OF_SCRIPT,
    ParityReport,
    Thresholds,
    _compare_embeddings,
    _judged_texts,
    _row_cosines,
    check_gate,
    compare,
    say_few,
)

FP32, INT8 = DEFAULT_THRESHOLDS["fp32"], DEFAULT_THRESHOLDS["int8"]


class Scorer:
    """Scores by pair, or embeddings by text, as they are given."""

    def __init__(self, kind, results):
        self.kind, self.results, self.precision, self.path = kind, results, "int8", Path("x")

    def encode(self, texts):
        return np.array([self.results[text] for text in texts])

    def score(self, queries, documents):
        if self.kind == "cross_encoder":
            return np.array([self.results[pair] for pair in zip(queries, documents, strict=True)])
        return (self.encode(queries) * self.encode(documents)).sum(axis=1)

    def unit(self, scores):
        return (scores + 1) / 2 if self.kind == "bi_encoder" else 1 / (1 + np.exp(-np.asarray(scores)))


def cross(pairs, scores):
    return Scorer("cross_encoder", dict(zip(pairs, scores, strict=True)))


def pairs_of(n, text="w"):
    return [(f"{text} {i}", f"{text} {i + 1000}") for i in range(n)]


# ---------------------------------------------------------------------------------------------------------------------
# Order
# ---------------------------------------------------------------------------------------------------------------------


def noisy(scores, size, seed):
    return (scores + np.random.default_rng(seed).uniform(-size, size, len(scores))).astype(np.float32)


def test_ties_that_rounding_breaks_are_no_disagreement():
    scores = np.concatenate([np.ones(600), np.random.default_rng(0).uniform(0, 1, 2400)])
    one, other = noisy(scores, 1e-7, 1), noisy(scores, 1e-7, 2)
    assert rank_agreement(one, other) == pytest.approx(1, abs=1e-12)
    assert rank_agreement(one, noisy(scores, 3e-5, 3)) == pytest.approx(1, abs=1e-6)


def test_ties_hold_where_all_scores_have_moved():
    scores = np.concatenate([np.full(500, 0.9), np.linspace(0, 0.8, 500)])
    assert rank_agreement(noisy(scores, 1e-7, 1), noisy(scores * 0.9, 1e-7, 2)) == pytest.approx(1, abs=1e-12)


def test_what_is_no_rounding_counts():
    scores = np.arange(100.0)
    swapped = scores.copy()
    swapped[[10, 11]] = swapped[[11, 10]]
    assert rank_agreement(scores, swapped) == pytest.approx(1 - 6 * 2 / (100 * (100**2 - 1)))
    assert rank_agreement(scores, -scores) == pytest.approx(-1)


def test_a_constant_has_no_ranks_and_is_not_drawn_to_the_other_side():
    scores = np.linspace(-2, 3, 50)
    assert rank_agreement(scores, np.full(50, 0.4)) is None
    assert rank_agreement(np.full(50, 0.4), scores) is None
    assert rank_agreement(scores, noisy(np.full(50, 0.4), 1e-7, 0)) is None
    assert rank_agreement(scores, np.full(50, np.nan)) is None


def test_the_scale_of_logits_does_not_matter():
    scores = np.random.default_rng(0).normal(size=300)
    for scale in (1e-3, 1, 1e3):
        ranks, own = settled(scale * scores, scale * noisy(scores, 1e-6, 1))
        assert (ranks == own).all()


def test_identical_documents_share_the_best_places():
    scores = np.array([1.0, 1.0000001, 0.9999999, 0.2])
    assert top_k_overlap(["a"] * 4, scores, scores[[1, 2, 0, 3]]) == 1


# ---------------------------------------------------------------------------------------------------------------------
# Undefined
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [None, np.tile([0.0, 1.0], 20)])
def test_an_export_that_answers_the_same_for_everything_is_refused(labels, tmp_path):
    pairs = pairs_of(40)
    scores = np.linspace(-0.1, 0.1, 40)  # so little that no difference is large
    report = compare(cross(pairs, scores), cross(pairs, np.zeros(40)), pairs, labels)
    assert report.max_difference < INT8.max_difference
    failures = report.failures(INT8)
    assert any("rank_agreement is undefined" in line for line in failures)
    assert any("metric_drop is undefined" in line for line in failures) == (labels is not None)
    with pytest.raises(Exception, match="tells nothing apart"):
        check_gate(report, INT8, tmp_path, "int8")


def test_two_zero_rows_are_equal_and_one_is_not():
    rows = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    assert _row_cosines(rows, rows[[0, 2, 2]]).tolist() == [1.0, 0.0, 1.0]


def test_few_pairs_are_said_once_and_every_line_names_their_number(caplog):
    pairs = pairs_of(15)
    scores = np.linspace(-2, 2, 15)
    report = compare(cross(pairs, scores), cross(pairs, scores + 0.01), pairs)
    assert report.in_words.endswith("of a score in [0, 1], on 15 held-back pairs")
    for n in (15, 15, 100):
        say_few(n)
    assert [record.getMessage().split(":")[0] for record in caplog.records if "a half" in record.getMessage()] == [
        "exports are compared with torch on 15 held-back pairs"
    ]


def test_what_neither_side_defines_is_said(caplog):
    pairs = pairs_of(40)
    with caplog.at_level("WARNING", "students.export.gate"):
        report = compare(cross(pairs, np.zeros(40)), cross(pairs, np.zeros(40)), pairs, np.tile([0.0, 1.0], 20))
    assert report.not_judged == ("rank_agreement", "metric_drop") and not report.failures(INT8)
    assert "not checked" in caplog.text and "rank_agreement" in caplog.text
    alike = compare(cross(pairs, np.arange(40.0)), cross(pairs, np.arange(40.0)), pairs, np.zeros(40))
    assert alike.not_judged == ("metric_drop",) and not alike.failures(INT8)


@pytest.mark.parametrize("precision", [name for name in DEFAULT_THRESHOLDS if name != "int8_dynamic"])
def test_a_score_that_depends_on_the_batch_is_refused_in_every_static_precision(precision):
    pairs = pairs_of(40)
    report = compare(cross(pairs, np.arange(40.0)), cross(pairs, np.arange(40.0)), pairs)
    limits = DEFAULT_THRESHOLDS[precision]
    assert not [line for line in report.failures(limits) if "batch" in line]
    assert any("batch_difference 0.2" in line for line in replace(report, batch_difference=0.2).failures(limits))


def test_each_side_is_compared_under_its_own_prompt(tmp_path):
    (tmp_path / "config_sentence_transformers.json").write_text('{"prompts": {"query": "q: ", "document": "d: "}}')
    asked = []

    def encode(side):
        def encoded(texts):
            asked.append((side, list(texts)))
            return np.ones((len(texts), 2), dtype=np.float32)

        return encoded

    names = {name: encode(name) for name in ("encode", "encode_queries", "encode_documents")}
    scorer = SimpleNamespace(kind="bi_encoder", path=tmp_path, **names)
    cosines, _ = _compare_embeddings(scorer, scorer, [("a", "b"), ("a", "a")])
    assert len(cosines) == 3 and asked[:2] == [("encode_queries", ["a"]), ("encode_documents", ["b", "a"])]
    assert _judged_texts(scorer, [("a", "b"), ("a", "a")]) == ["a", "b", "a"]
    assert as_read("bi_encoder", tmp_path, [("a", "b")]) == [("q: a", "d: b")]
    assert as_read("cross_encoder", tmp_path, [("a", "b")]) == [("a", "b")]
    (tmp_path / "config_sentence_transformers.json").unlink()
    _compare_embeddings(scorer, scorer, [("a", "b"), ("a", "a")])
    assert asked[-1] == ("encode", ["a", "b"])


def test_what_is_not_finite_fails():
    pairs = pairs_of(40)
    report = compare(cross(pairs, np.arange(40.0)), cross(pairs, np.full(40, np.nan)), pairs)
    assert report.failures(INT8) and report.undefined


def test_one_long_query_does_not_make_room_for_all_others_as_long():
    labels, scores = np.tile([0.0, 1.0], 250), np.linspace(-1, 1, 500)

    def peak_of_compare(pairs):
        tracemalloc.start()
        compare(cross(pairs, scores), cross(pairs, scores), pairs, labels)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    pairs = pairs_of(500)
    longer = [("long " * 10_000, "document"), *pairs[1:]]
    peak_of_compare(pairs)  # what is imported on the way is not counted below
    assert peak_of_compare(longer) < peak_of_compare(pairs) + 5_000_000  # 100 MB as an array of texts


# ---------------------------------------------------------------------------------------------------------------------
# Scripts
# ---------------------------------------------------------------------------------------------------------------------


def test_a_bad_minority_is_not_hidden_by_the_mean():
    english, korean = pairs_of(400), pairs_of(N_OF_SCRIPT, "가나")
    texts = [text for pair in [*english, *korean] for text in pair]
    rng = np.random.default_rng(0)
    vectors = {
        text: vector / np.linalg.norm(vector)
        for text, vector in zip(texts, rng.normal(size=(len(texts), 8)), strict=True)
    }
    turned = {}
    for text, vector in vectors.items():
        other = rng.normal(size=8)
        other -= other @ vector * vector
        cosine = 0.94 if text.startswith("가") else 0.999
        turned[text] = cosine * vector + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)
    report = compare(Scorer("bi_encoder", vectors), Scorer("bi_encoder", turned), [*english, *korean])
    assert report.mean_cosine > 0.99 and report.scripts["HANGUL"]["n"] == 2 * N_OF_SCRIPT
    assert report.scripts["HANGUL"]["mean_cosine"] == pytest.approx(0.94)
    assert report.scripts["LATIN"]["mean_cosine"] == pytest.approx(0.999)
    (failure,) = report.failures(Thresholds(mean_cosine=0.99))
    assert failure.startswith("mean_cosine in HANGUL 0.94, at least 0.99")


def test_a_script_of_few_texts_is_counted_and_not_judged():
    pairs = [*pairs_of(30), *pairs_of(5, "가나")]
    report = compare(cross(pairs, np.arange(35.0)), cross(pairs, np.arange(35.0)), pairs)
    assert report.scripts_too_few == {"HANGUL": 5} and list(report.scripts) == ["LATIN"]


def test_a_cross_encoder_that_is_dumb_in_one_script_is_refused():
    pairs = [*pairs_of(300), *pairs_of(25, "가나")]
    scores = np.linspace(-1, 1, 325)
    own = scores.copy()
    own[300:] = own[300]
    report = compare(cross(pairs, scores), cross(pairs, own), pairs)
    assert report.rank_agreement > 0.99
    assert "rank_agreement in HANGUL is undefined: the export tells nothing apart there" in report.failures(INT8)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Python 개발자를 찾습니다", "HANGUL"),
        ("日本語です", "KANA"),
        ("中文", "CJK"),
        ("1 + 1", "NO LETTERS"),
        ("", "NO LETTERS"),
    ],
)
def test_main_script(text, script):
    assert main_script(text) == script and rows_by_script([text, text]) == {script: [0, 1]}


def test_samples_are_shared_among_scripts():
    assert stratified({"A": 10}, 300) == {"A": 10}
    assert stratified({"A": 1000, "B": 1000}, 300) == {"A": 150, "B": 150}
    shares = stratified({"A": 10_000, "B": 10, "C": 500}, 300)
    assert sum(shares.values()) == 300 and shares["B"] == 10 and shares["C"] >= 50
    for n in range(1, 40):
        shares = stratified({"A": 7, "B": 11, "C": 1, "D": 19}, n)
        assert sum(shares.values()) == min(n, 38)
        assert all(0 <= shares[name] <= most for name, most in (("A", 7), ("B", 11), ("C", 1), ("D", 19)))


def test_calibration_heeds_the_rare_script(monkeypatch):
    class Table:
        def __init__(self, texts):
            self.texts, self.lengths = texts, np.array([len(text) for text in texts])

        def batch(self, rows, multiple):
            import torch

            return {"row": torch.tensor([[main_script(self.texts[row]) == "HANGUL"] for row in rows])}

    monkeypatch.setattr("distill.data.tokens.tokenize", lambda _, texts, pairs=None, max_length=0: Table(list(texts)))
    pairs = [*pairs_of(490), *pairs_of(10, "가나")]
    made = calibration_inputs("cross_encoder", None, 99, pairs, 40, 0)
    assert len(made) == 40 and sum(bool(one["row"][0, 0]) for one in made) == 10


# ---------------------------------------------------------------------------------------------------------------------
# The metric on the labels
# ---------------------------------------------------------------------------------------------------------------------


def test_the_metric_is_chosen_by_the_labels_and_not_by_a_resample():
    pairs, scores = pairs_of(40), np.linspace(0, 1, 40)
    labels = (np.arange(40) == 39).astype(np.float32)  # a resample has no positive with probability 0.36
    model = cross(pairs, scores)
    assert {compare(model, model, pairs, labels, seed=seed).metric for seed in range(9)} == {"roc_auc"}


def test_the_interval_is_drawn_by_document_where_no_query_repeats():
    rng = np.random.default_rng(0)
    pairs = [(f"query {row}", f"document {row % 4}") for row in range(80)]
    labels = (rng.random(80) < 0.5).astype(np.float32)
    source, export = (labels + rng.normal(0, size, 80) for size in (0.5, 0.9))
    found = compare(cross(pairs, source), cross(pairs, export), pairs, labels, seed=0)
    drawn = Pairs(*map(list, zip(*pairs, strict=True)))
    columns = (
        ScoredColumns.checked(scores, labels, drawn.query_ids, clusters=drawn.clusters) for scores in (export, source)
    )
    expected = paired_difference("roc_auc", *columns, n_bootstrap=500, seed=0)
    assert found.metric_difference == {"value": expected.value, "low": expected.low, "high": expected.high}


# ---------------------------------------------------------------------------------------------------------------------
# Arithmetic and advice
# ---------------------------------------------------------------------------------------------------------------------


def report(arithmetic=None):
    base = ParityReport("bi_encoder", "int8", 9, 1, 1, 1, 1, None, 0, 0, 0, None, None, ())
    return base if arithmetic is None else replace(base, arithmetic=vars(arithmetic))


def test_the_arithmetic_of_the_other_cpus_is_judged():
    exact = Arithmetic("avx512-vnni", 127, False, "…", mean_cosine=1.0, min_cosine=1.0)
    assert report(exact).failures(INT8) == ["weights up to 127 saturate on CPUs without VNNI, at most 64 is safe"]
    assert not report(exact).failures(Thresholds())
    assert not report(replace(exact, greatest_code=64, overflow_safe=True)).failures(INT8)
    apart = replace(exact, greatest_code=64, overflow_safe=True, mean_cosine=0.9989, min_cosine=0.9949)
    assert [line.split(" ")[0] for line in report(apart).failures(INT8)] == [
        "arithmetic_mean_cosine",
        "arithmetic_min_cosine",
    ]
    assert not report().failures(INT8)


@pytest.mark.parametrize("precision", DEFAULT_THRESHOLDS)
def test_advice_fits_the_precision(precision, tmp_path):
    failed = replace(report(), metric_difference={"value": -0.5, "low": -0.6, "high": -0.4}, metric="spearman")
    with pytest.raises(Exception) as caught:
        check_gate(failed, DEFAULT_THRESHOLDS[precision], tmp_path, precision)
    advice = str(caught.value).splitlines()[-1]
    assert ("calibrat" in advice) == (precision == "int8")
    assert ("keep_float" in advice) == precision.startswith("int")
    assert f"precision {precision} " not in advice


def test_patterns_of_layers_in_float_that_are_wrong_are_refused_in_one_line():
    names = ["layer.0.output.dense.MatMul", "layer.1.output.dense.MatMul"]
    assert matched([r"layer\.1\."], names) == {names[1]}
    assert matched(["layer.2"], names, may_be_idle=True) == set()
    for pattern, said in (
        ("layer.2", "matches no matrix product; there are layer.0"),
        ("(", "is no regular expression"),
    ):
        with pytest.raises(BadInput, match=said):
            matched([pattern], names)
