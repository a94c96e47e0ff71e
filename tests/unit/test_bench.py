"""Serving under load with a model whose speed is known, and reports held against earlier ones."""

import json
import mmap
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from distill.data.pairs import Pairs
from distill.errors import BadInput, GateFailed
from distill.evaluation.benchmark import BenchmarkEntry, score_row
from distill.evaluation.compare_folders import _first_score
from distill.evaluation.earlier_report import check_against, check_earlier, folder_names
from distill.evaluation.load import batch_grid, memory_growth, open_loop, saturated_pairs_per_s
from tests.conftest import make_run


class Clock:
    """Seconds that pass when somebody sleeps, and a microsecond when somebody looks: a busy machine changes nothing."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 1e-6
        return self.now

    def sleep(self, seconds):
        self.now += max(0.0, seconds)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(Sleeper, "clock", clock)
    monkeypatch.setattr("distill.evaluation.load.time", clock)
    return clock


class Sleeper:
    """Takes 2 ms a call and 0.5 ms a pair."""

    clock = None

    def __init__(self):
        self.calls = []

    def score(self, queries, documents, *, progress=False):
        self.calls.append((list(queries), list(documents)))
        self.clock.sleep(0.002 + 0.0005 * len(queries))
        return np.zeros(len(queries))


PAIRS = [f"query {i}" for i in range(20)], [f"a document of {i} words and more" for i in range(20)]


def test_capacity_is_that_of_full_batches():
    rate = saturated_pairs_per_s(Sleeper(), *PAIRS, seconds=0.3)
    assert 0.6 * 1600 < rate < 1600  # 16 pairs in 10 ms


def test_open_loop_serves_every_arrival_and_counts_the_waiting():
    idle = open_loop(Sleeper(), *PAIRS, rate=40, seconds=0.8, seed=0)
    assert idle["n"] == 32 and idle["p50"] >= 2.5
    assert idle["mean_batch"] < 1.5
    scorer = Sleeper()
    busy = open_loop(scorer, *PAIRS, rate=1200, seconds=0.5, seed=0)
    assert busy["n"] == sum(len(queries) for queries, _ in scorer.calls) == 600
    assert busy["mean_batch"] > 2 and max(len(queries) for queries, _ in scorer.calls) <= 16
    assert busy["p50"] <= busy["p95"] <= busy["p99"]
    over = open_loop(Sleeper(), *PAIRS, rate=4000, seconds=0.3, seed=0)
    assert over["p50"] > 5 * idle["p50"]  # more arrives than can be served: the line grows


def test_grid_times_each_batch_of_each_length():
    cells = batch_grid(Sleeper(), *PAIRS, {8: [0, 1, 2], 16: [3]}, batches=(1, 4), seconds=0.2)
    assert [(cell["tokens"], cell["batch"]) for cell in cells] == [(8, 1), (8, 4), (16, 1), (16, 4)]
    assert all(cell["n"] >= 2 and cell["p50"] >= 2 + 0.5 * cell["batch"] for cell in cells)


def test_growth_sees_what_a_scorer_keeps():
    class Hoarder(Sleeper):
        def score(self, queries, documents, *, progress=False):
            kept = mmap.mmap(-1, 1_000_000)  # from the system: an array may fit into what earlier tests have freed
            kept.write(bytes(1_000_000))
            self.calls.append(kept)
            return np.zeros(len(queries))

    found = memory_growth(Hoarder(), *PAIRS, n_shapes=50, seed=0)
    assert found["n_shapes"] == 50
    assert 35 < found["growth_mb"] < 80


def report(path, cpu="cpu", metric="spearman", fingerprint="0123456789abcdef", **rows):
    """A benchmark.json whose models have these (latency, throughput, metric)."""
    rng = np.random.default_rng(0)
    value = {
        "primary_metric": metric,
        "data": {} if fingerprint is None else {"fingerprint": fingerprint},
        "environment": {"cpu": cpu},
        "rows": [
            {
                "name": name,
                "metrics": {metric: {"value": quality, "low": 0, "high": 1, "n": 9}},
                "per_run": {
                    "latency_ms": (latency * rng.normal(1, 0.02, 200)).tolist(),
                    "throughput_pairs_per_s": (speed * rng.normal(1, 0.02, 40)).tolist(),
                },
            }
            for name, (latency, speed, quality) in rows.items()
        ],
    }
    path.write_text(json.dumps(value), encoding="utf-8")
    return value


LIMITS = {"max_slowdown": 1.1, "max_metric_drop": 0.005}


def test_the_same_passes_and_states_its_ratio(tmp_path):
    report(tmp_path / "old.json", a=(10, 100, 0.8), b=(5, 200, 0.79))
    now = report(tmp_path / "new.json", a=(10.2, 99, 0.8), b=(5, 200, 0.788))
    rows = check_against(now, tmp_path / "old.json", **LIMITS)
    assert [row["name"] for row in rows] == ["a", "b"]
    assert rows[0]["slowdown"]["latency"]["value"] == pytest.approx(1.02, abs=0.01)
    assert rows[0]["slowdown"]["latency"]["low"] < 1.02 < rows[0]["slowdown"]["latency"]["high"] + 0.01
    assert rows[1]["metric_drop"] == pytest.approx(0.002)


def test_what_is_slower_or_worse_is_named(tmp_path):
    report(tmp_path / "old.json", a=(10, 100, 0.8), b=(5, 200, 0.79))
    now = report(tmp_path / "new.json", a=(12, 100, 0.8), b=(5, 150, 0.78))
    with pytest.raises(GateFailed) as failure:
        check_against(now, tmp_path / "old.json", **LIMITS)
    lines = str(failure.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["a", "b", "b"]
    assert "latency 1.2" in lines[0] and "throughput 1.3" in lines[1] and "Spearman fell by 0.0100" in lines[2]
    assert check_against(now, tmp_path / "old.json", max_slowdown=None, max_metric_drop=None)


def test_on_another_machine_models_are_compared_relative_to_the_first(tmp_path):
    report(tmp_path / "old.json", cpu="fast", a=(10, 100, 0.8), b=(5, 200, 0.79))
    now = report(tmp_path / "new.json", cpu="slow", a=(20, 50, 0.8), b=(10, 100, 0.79))
    rows = check_against(now, tmp_path / "old.json", **LIMITS)
    assert all(row["relative"] for row in rows)
    assert rows[1]["slowdown"]["latency"]["value"] == pytest.approx(1, abs=0.02)
    now = report(tmp_path / "new.json", cpu="slow", a=(20, 50, 0.8), b=(20, 100, 0.79))
    with pytest.raises(GateFailed, match="b: latency 2.* relative to the first model"):
        check_against(now, tmp_path / "old.json", **LIMITS)


def test_speeds_of_two_machines_are_not_compared_without_the_first_model(tmp_path, caplog):
    report(tmp_path / "old.json", cpu="fast", b=(5, 200, 0.79))
    now = report(tmp_path / "new.json", cpu="slow", a=(20, 50, 0.8), b=(10, 100, 0.79))
    with pytest.raises(BadInput, match=r"of another machine \(fast; here slow\), and has no a, relative to which"):
        check_against(now, tmp_path / "old.json", **LIMITS)
    assert check_against(now, tmp_path / "old.json", max_slowdown=None, max_metric_drop=0.005)
    assert "slowdowns are those of the machine as well" in caplog.text


def test_a_report_of_other_pairs_is_refused_and_one_that_names_none_is_said(tmp_path, caplog):
    now = report(tmp_path / "new.json", a=(10, 100, 0.8))
    report(tmp_path / "old.json", fingerprint="fedcba9876543210", a=(10, 100, 0.8))
    with pytest.raises(BadInput, match="is of other pairs"):
        check_against(now, tmp_path / "old.json", **LIMITS)
    pairs = Pairs(["a"], ["b"], np.array([1.0]))
    (tmp_path / "pairs.csv").write_text("query,document\n", encoding="utf-8")
    with pytest.raises(BadInput, match="pairs.csv is no benchmark.json; give one that"):
        check_earlier(tmp_path / "pairs.csv", [tmp_path / "a"], pairs)
    with pytest.raises(BadInput, match="is of other pairs"):  # before anything is measured
        check_earlier(tmp_path / "old.json", [tmp_path / "a"], pairs)
    report(tmp_path / "old.json", fingerprint=pairs.fingerprint(), a=(10, 100, 0.8))
    check_earlier(tmp_path / "old.json", [tmp_path / "a"], pairs)
    assert not caplog.messages
    report(tmp_path / "old.json", fingerprint=None, a=(10, 100, 0.8))
    check_earlier(tmp_path / "old.json", [tmp_path / "a"], pairs)
    assert check_against(now, tmp_path / "old.json", **LIMITS)
    (said,) = caplog.messages
    assert "does not say which pairs it measured" in said


def test_a_folder_with_a_bracket_in_its_name_is_found_in_an_earlier_report(tmp_path):
    pairs = Pairs(["a"], ["b"], np.array([1.0]))
    for name in ("student (1)", "student (1) (2 threads)"):
        report(tmp_path / "old.json", fingerprint=pairs.fingerprint(), **{name: (10, 100, 0.8)})
        check_earlier(tmp_path / "old.json", [tmp_path / "student (1)"], pairs)
    with pytest.raises(BadInput, match="has none of teacher"):
        check_earlier(tmp_path / "old.json", [tmp_path / "teacher"], pairs)


def test_the_metric_is_the_earlier_one_and_a_drop_that_is_undefined_is_refused(tmp_path):
    report(tmp_path / "old.json", metric="roc_auc", a=(10, 100, 0.9), b=(5, 200, 0.9))
    now = report(tmp_path / "new.json", a=(10, 100, 0.8), b=(5, 200, 0.8))
    with pytest.raises(BadInput, match=r"for a, b, so .*old.json has ROC-AUC, this report has Spearman"):
        check_against(now, tmp_path / "old.json", **LIMITS)
    rows = check_against(now, tmp_path / "old.json", max_slowdown=1.1, max_metric_drop=None)
    assert [row["metric_drop"] for row in rows] == [None, None]
    for row in now["rows"]:
        row["metrics"]["roc_auc"] = {"value": 0.899, "low": 0, "high": 1, "n": 9}
    rows = check_against(now, tmp_path / "old.json", **LIMITS)
    assert {row["metric"] for row in rows} == {"roc_auc"} and rows[0]["metric_drop"] == pytest.approx(0.001)
    del now["rows"][1]["metrics"]["roc_auc"]
    with pytest.raises(BadInput, match="ROC-AUC is not in both reports for b, so"):
        check_against(now, tmp_path / "old.json", **LIMITS)


def test_a_metric_where_lower_is_better_has_lost_where_it_rises(tmp_path):
    report(tmp_path / "old.json", metric="ablation_mse", a=(10, 100, 0.10))
    better = report(tmp_path / "new.json", metric="ablation_mse", a=(10, 100, 0.05))
    assert check_against(better, tmp_path / "old.json", **LIMITS)[0]["metric_drop"] == pytest.approx(-0.05)
    worse = report(tmp_path / "new.json", metric="ablation_mse", a=(10, 100, 0.15))
    with pytest.raises(GateFailed, match="Ablation MSE rose by 0.0500, at most 0.005"):
        check_against(worse, tmp_path / "old.json", **LIMITS)


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"rows": []}'])
def test_what_is_no_report_is_refused(tmp_path, text):
    (tmp_path / "old.json").write_text(text)
    with pytest.raises(BadInput):
        check_against(report(tmp_path / "new.json", a=(1, 1, 1)), tmp_path / "old.json", **LIMITS)


def test_overwrite_scores_each_model_once(tmp_path, monkeypatch):
    opened = []

    def scorer(run, row):
        opened.append(row.name)
        return SimpleNamespace(
            kind="bi_encoder", score=lambda *_, **__: np.zeros(2), unit=lambda scores: scores, n_parameters=1
        )

    monkeypatch.setattr("distill.evaluation.benchmark._opened", scorer)
    pairs = Pairs(["a", "b"], ["c", "d"], np.array([1.0, 0.0]))
    row = BenchmarkEntry("trial", "control", tmp_path / "trial", "torch", "fp32", 64)
    run = make_run(tmp_path / "run", overwrite=True)
    for view in (run, run.for_teachers, run):  # a control compares its best trial with each of the others
        assert len(score_row(view, row, pairs).scores) == 2
    assert opened == ["trial"]
    score_row(make_run(tmp_path / "run", overwrite=True), row, pairs)  # what an earlier process stored is made again
    assert opened == ["trial", "trial"]


def test_texts_of_the_first_score_are_no_arguments_of_a_process(tmp_path, monkeypatch):
    asked = []

    def run(command, *, input, **_):
        asked.append((command, input))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("distill.evaluation.compare_folders.subprocess.run", run)
    query, document = "\u0301" * 200_000, "이력서\u2028"  # longer than an argument may be
    pairs = Pairs([query, "b"], [document, "c"], np.array([1.0, 0.0]))
    row = BenchmarkEntry("model", "teacher", tmp_path / "model", None, None, None)
    assert set(_first_score(row, pairs)) == {"first_score_seconds", "first_score_cold_seconds"}
    command, given = asked[0]
    assert json.loads(given) == [query, document]
    assert "-P" in command and command[-1] == str(tmp_path / "model") and query not in command


def test_names_tell_folders_apart(tmp_path):
    folders = [tmp_path / "one" / "int8", tmp_path / "two" / "int8"]
    assert folder_names(folders) == ["one/int8", "two/int8"]
    assert folder_names([tmp_path / "x", tmp_path / "y"]) == ["x", "y"]
    with pytest.raises(BadInput, match="given twice"):
        folder_names([tmp_path / "x", tmp_path / "one" / ".." / "x"])
