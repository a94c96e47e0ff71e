"""What a row's quality is worth: worked by hand."""

import json

import numpy as np
import pytest

from distill.data.pairs import Pairs
from distill.evaluation.benchmark import (
    _UNMEASURED,
    BenchmarkEntry,
    Scored,
    _comparisons,
    _is_of,
    _read_scores,
    assemble,
    said_of_pairs,
    said_of_quality,
)
from distill.metrics.measures import Bootstrap
from distill.metrics.standing import is_broken, problem_of, share_of, with_standing
from distill.report.content import BenchmarkResults
from distill.report.model_card import _what
from distill.report.words import headline, verdict, worth


def row(name, role, value, kind="bi_encoder", **more):
    return {"name": name, "role": role, "kind": kind, "metrics": {"roc_auc": {"value": value}}, **more}


ROWS = [
    row("cross", "teacher", 0.8),
    row("bi", "teacher", 0.9),
    row("untrained", "untrained", 0.6),
    row("student", "student", 0.84),
    row("control", "control", 0.7),
    row("tfidf", "baseline", 0.7, "tfidf"),
]


def test_shares_of_the_best_teacher_above_chance_and_of_the_gain():
    done = {one["name"]: one for one in with_standing(ROWS, np.array([0.0, 1.0]), "roc_auc")}
    student = done["student"]
    assert student["retention_best"]["roc_auc"] == pytest.approx(0.84 / 0.9)
    assert student["above_chance"]["roc_auc"] == pytest.approx(0.34 / 0.4)
    assert student["gain"]["untrained"]["roc_auc"] == pytest.approx(0.24 / 0.3)
    assert student["gain"]["floor"]["roc_auc"] == pytest.approx(0.14 / 0.2)
    assert "gain" not in done["bi"] and done["cross"]["retention_best"]["roc_auc"] == pytest.approx(0.8 / 0.9)
    assert "untrained" not in done["untrained"]["gain"]
    assert [name for name, one in done.items() if one.get("under_floor")] == ["untrained"]


def test_a_share_of_roc_auc_counts_from_chance():
    cross, useless = ROWS[0], row("useless", "student", 0.5)
    assert (share_of(useless, cross, "roc_auc"), share_of(cross, useless, "roc_auc")) == (0.0, None)
    spearman = {"metrics": {"spearman": {"value": 0.4}}}
    assert share_of(spearman, {"metrics": {"spearman": {"value": 0.8}}}, "spearman") == 0.5
    assert share_of(spearman, None, "spearman") is None


def test_average_precision_above_the_share_of_positives():
    rows = [
        {**one, "metrics": {"average_precision": {"value": value}}}
        for one, value in zip(ROWS[1:4], (0.85, 0.3, 0.55), strict=True)
    ]
    done = {one["name"]: one for one in with_standing(rows, np.array([0, 0, 0, 1.0]), "average_precision")}
    assert done["student"]["above_chance"]["average_precision"] == pytest.approx(0.3 / 0.6)


def test_a_control_below_the_untrained_student_is_broken():
    assert not is_broken(ROWS, "roc_auc")
    worse = [*ROWS[:4], row("control", "control", 0.59)]
    assert is_broken(worse, "roc_auc")
    said = said_of_quality({"rows": worse, "primary_metric": "roc_auc"})
    assert said == [
        "The control is broken: it is worse than the untrained student, so student − control shows nothing."
    ]
    shown = {"name": "student − control", "low": 0.1, "high": 0.2, "broken_control": True}
    assert "helped" not in verdict(shown) and "broken" in verdict(shown)


def test_what_is_under_the_floor_is_said_in_headline_and_notes():
    rows = [*ROWS[:3], row("student", "student", 0.65), row("tfidf", "baseline", 0.82, "tfidf")]
    rows = with_standing(rows, None, "roc_auc")
    (said,) = said_of_quality({"rows": rows, "primary_metric": "roc_auc"})
    assert (
        said
        == "Worse than tfidf (0.820), which counts common terms: cross, student. A better teacher or more labels have to come first."
    )
    content = BenchmarkResults.of({"rows": rows, "primary_metric": "roc_auc"})
    assert headline(content).endswith(". Worse than TF-IDF, which counts common terms: cross and student")
    student = next(one for one in content.rows if one["name"] == "student")
    assert worth(student, content) == (
        "of the best teacher’s ROC-AUC: 72.2\u00a0% of its value, 37.5\u00a0% above chance, "
        "16.7\u00a0% over the untrained student and below TF-IDF"
    )


def test_the_headline_warns_of_a_model_whose_share_of_a_teacher_is_unknown():
    rows = with_standing([row("student", "student", 0.65), row("tfidf", "baseline", 0.82, "tfidf")], None, "roc_auc")
    content = BenchmarkResults.of({"rows": rows, "primary_metric": "roc_auc"})
    assert headline(content) == "student: ROC-AUC 0.650. Worse than TF-IDF, which counts common terms: student"


def test_what_is_not_shown_to_be_above_the_floor_is_said_in_headline_and_notes():
    rows = [*ROWS[1:3], row("student", "student", 0.84), row("tfidf", "baseline", 0.82, "tfidf")]
    rows = with_standing(rows, None, "roc_auc")
    compared = {"name": "student − tfidf", "metric": "roc_auc", "value": 0.02, "low": -0.01, "high": 0.05}
    result = {"rows": rows, "primary_metric": "roc_auc", "comparisons": [compared]}
    (said,) = said_of_quality(result)
    assert said == "Not shown to be better than tfidf: student. The interval of the difference includes 0."
    assert headline(BenchmarkResults.of(result)).endswith(". Not shown to be better than TF-IDF: student")
    shown = {**result, "comparisons": [{**compared, "low": 0.01}]}
    assert said_of_quality(shown) == [] and "TF-IDF" not in headline(BenchmarkResults.of(shown))
    unknown = {**result, "rows": [*rows[:-1], row("tfidf", "baseline", float("nan"), "tfidf")]}
    assert "TF-IDF" not in headline(BenchmarkResults.of(unknown))


@pytest.mark.parametrize(("high", "said"), [(0.003, "Not shown to be better than"), (-0.01, "Worse than")])
def test_a_lower_value_is_worse_only_where_the_interval_of_the_difference_says_so(high, said):
    """A report said both "Worse than TF-IDF: student" and "the interval includes 0: no difference shown"."""
    rows = [*ROWS[1:3], row("student", "student", 0.751), row("tfidf", "baseline", 0.82, "tfidf")]
    compared = {"name": "student − tfidf", "metric": "roc_auc", "value": -0.069, "low": -0.146, "high": high}
    rows = with_standing(rows, None, "roc_auc", [compared])
    result = {"rows": rows, "primary_metric": "roc_auc", "comparisons": [compared]}
    (warning,) = said_of_quality(result)
    assert warning.startswith(f"{said} tfidf") and "student" in warning
    top = headline(BenchmarkResults.of(result))
    assert f". {said} TF-IDF" in top and top.count("TF-IDF") == 1
    assert ("no difference shown" in verdict(compared)) == (said != "Worse than")
    student = {"parameters": 1, "size_mb": 1.0, "runtime": "torch", "precision": "fp32", **rows[2]}
    card = _what(student, result)
    assert (card["floor"], card["level_with"]) == (("tfidf", None) if said == "Worse than" else (None, "tfidf"))


def test_teacher_student_and_exports_are_compared_with_the_best_tfidf(tmp_path):
    labels = (np.arange(120) % 2).astype(np.float32)
    pairs = Pairs([f"q{i}" for i in range(120)], [f"d{i}" for i in range(120)], labels)
    strengths = {"teacher": 3.0, "student": 1.0, "int8": 1.0, "paragraphs": 1.0, "words": 0.2, "characters": 1.0}
    roles = {"teacher": "teacher", "student": "student", "int8": "export"}
    rows = [BenchmarkEntry(name, roles.get(name, "baseline"), tmp_path, None, None, None) for name in strengths]
    rng, scored = np.random.default_rng(0), {}
    for name, strength in strengths.items():
        scores = strength * labels + rng.normal(size=120)
        scored[name] = Scored(scores, 1 / (1 + np.exp(-scores)), 1)
    speed = {name: {**_UNMEASURED, "kind": "tfidf"} for name in ("words", "characters")}
    result = assemble(rows, scored, speed, pairs, bootstrap=Bootstrap(100, 0), comparisons=_comparisons(rows))
    with_floor = [one for one in result["comparisons"] if one["name"].endswith(" − characters")]
    assert [one["name"] for one in with_floor] == [f"{name} − characters" for name in ("teacher", "student", "int8")]
    assert with_floor[0]["low"] > 0
    for one in with_floor[1:]:
        one |= {"low": -0.1, "high": 0.1}
    for row in result["rows"]:
        row.pop("under_floor", None)
    (said,) = said_of_quality(result)
    assert said.startswith("Not shown to be better than characters: student, int8.")
    other = {"name": "student − words", "metric": "roc_auc", "value": 0.0, "low": -0.1, "high": 0.1}
    assert said_of_quality({**result, "comparisons": [other]}) == []


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.02, 0.01, "Not shown to be better than"), (-0.2, -0.1, "Worse than"), (0.01, 0.2, None)],
)
def test_a_student_that_is_not_shown_to_have_learned_is_named(low, high, said):
    compared = row("student", "student", 0.7, over_untrained={"value": 0.0, "low": low, "high": high})
    result = {"rows": [*ROWS[1:3], compared], "primary_metric": "roc_auc", "comparisons": []}
    words = [] if said is None else [f"{said} the same student untrained: student"]
    assert [line.partition(".")[0] for line in said_of_quality(result)] == words
    assert headline(BenchmarkResults.of(result)).endswith("".join(f". {line}" for line in words))


def test_a_report_without_a_teacher_states_no_share_of_one(tmp_path):
    """`benchmark.teachers: []` made the untrained student the teacher: "97 % of the teacher’s ROC-AUC"."""
    labels = (np.arange(120) % 2).astype(np.float32)
    pairs = Pairs([f"q{i}" for i in range(120)], [f"d{i}" for i in range(120)], labels)
    rows = [BenchmarkEntry(role, role, tmp_path, None, None, None) for role in ("untrained", "student", "control")]
    scored = {row.name: Scored(labels + place, labels, 1) for place, row in enumerate(rows)}
    speed = {row.name: {**_UNMEASURED, "throughput_pairs_per_s": 10.0} for row in rows}
    result = assemble(rows, scored, speed, pairs, bootstrap=Bootstrap(20, 0), comparisons=_comparisons(rows))
    assert [row["retention"] for row in result["rows"]] == [{}, {}, {}]
    assert [set(row.get("over_untrained", ())) for row in result["rows"]] == [set(), {"value", "low", "high"}, set()]
    assert {row["speedup"] for row in result["rows"]} == {None}
    assert not any(name.startswith("teacher") for row in result["rows"] for name in row["metrics"])
    assert [one["name"] for one in result["comparisons"]] == ["student − control", "control − untrained"]


@pytest.mark.parametrize(
    ("labels", "metric", "said"),
    [
        ([0.0, 1.0] * 5, "roc_auc", []),
        (
            [1.0] * 10,
            "ablation_mse",
            [
                "All labels are 1, so no ranking can be measured. Ablation MSE is shown instead: "
                "the mean squared difference of scores in [0, 1] and labels, where lower is better."
            ],
        ),
        ([0.0, 1.0], "roc_auc", ["Intervals of so few pairs (2, fewer than 10) say nothing."]),
    ],
)
def test_pairs_that_measure_little_are_said_and_logged(labels, metric, said, caplog):
    """With labels all alike the main column silently became another one; one pair had an interval of no width."""
    texts = [f"text {i}" for i in range(len(labels))]
    assert said_of_pairs(Pairs(texts, texts, np.array(labels, dtype=np.float32)), metric) == said
    assert caplog.messages == said


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([0.1, 0.2], None),
        ([0.5, 0.5], "every pair has the same score: it tells no pair from another"),
        ([0.5, float("nan")], "1 of 2 scores are not finite: there is no quality to state"),
        ([float("inf"), float("nan")], "2 of 2 scores are not finite: there is no quality to state"),
    ],
)
def test_scores_without_quality(scores, said):
    assert problem_of(np.array(scores)) == said


@pytest.mark.parametrize("broken", ["teacher", "student"])
@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_a_constant_or_broken_row_says_so_and_spoils_no_other(broken, value, tmp_path):
    rng = np.random.default_rng(0)
    labels = (rng.random(80) < 0.5).astype(np.float32)
    pairs = Pairs([f"q{i}" for i in range(80)], [f"d{i}" for i in range(80)], labels)
    rows = [
        BenchmarkEntry(name, role, tmp_path, "torch", "fp32", None)
        for name, role in (("teacher", "teacher"), ("student", "student"), ("control", "control"))
    ]
    scored = {}
    for one in rows:
        scores = np.full(80, value) if one.name == broken else labels + rng.normal(size=80)
        scored[one.name] = Scored(scores, np.clip(np.nan_to_num(scores), 0, 1), 1)
    result = assemble(
        rows,
        scored,
        {},
        pairs,
        bootstrap=Bootstrap(20, 0),
        comparisons=[("student", "control"), ("control", "teacher")],
    )
    found = {one["name"]: one for one in result["rows"]}
    assert ("problem" in found[broken]) and result["primary_metric"] == "roc_auc"
    assert all("problem" not in one for name, one in found.items() if name != broken)
    assert found["control"]["metrics"]["roc_auc"]["value"] > 0.5
    assert [one["name"] for one in result["comparisons"]] == (
        ["student − control"] if broken == "teacher" else ["control − teacher"]
    )
    BenchmarkResults.of(result)


@pytest.mark.parametrize("n_bytes", [0, 40, 300])
def test_what_a_power_failure_left_of_scores_or_a_report_is_made_again(n_bytes, tmp_path, caplog):
    """Both ended every later start with a traceback."""
    scores, report = tmp_path / "scores.npz", tmp_path / "benchmark.json"
    np.savez(scores, scores=np.ones(2), unit=np.ones(2), n_parameters=-1)
    report.write_text(json.dumps({"inputs": {"a": 1}, "rows": ["x" * 400]}))
    assert _read_scores(scores).n_parameters is None and _is_of(report, {"a": 1}) and not _is_of(report, {"a": 2})
    for path in (scores, report):
        path.write_bytes(path.read_bytes()[:n_bytes])
    assert _read_scores(scores) is None and not _is_of(report, {"a": 1})
    assert "the pairs are scored again" in caplog.text and "the report is made again" in caplog.text
