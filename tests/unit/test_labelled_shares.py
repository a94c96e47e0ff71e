"""The table and the picture of labelled shares, on made-up numbers; the runs themselves are a benchmark's."""

import json

import pytest

from distill.errors import BadInput
from distill.recipe.schema import Teacher
from tests.benchmarks import labelled_shares
from tests.benchmarks.labelled_shares import (
    COMPARED,
    ROWS,
    by_share,
    is_finished,
    overrides,
    read_report,
    share_of_gain,
    take_frozen,
    write_results,
)

ENVIRONMENT = {"cpu": "Some CPU", "cpu_flags": ["avx2"], "threads": 2, "memory_gb": 25.3}


def estimate(value, spread=0.01):
    return {"value": value, "low": value - spread, "high": value + 2 * spread, "n": 900}


def write_run(output, share, seed, *, untrained=0.6, control=0.7, student=0.8, teachers=(0.85, 0.9), tfidf=(0.5, 0.65)):
    """A finished run's report with these values."""
    rows = [
        *((f"teacher {i}", "teacher", "bi_encoder", value) for i, value in enumerate(teachers)),
        ("untrained", "untrained", "bi_encoder", untrained),
        ("student", "student", "bi_encoder", student),
        *([("control", "control", "bi_encoder", control)] if control is not None else []),
        *((f"words {i}", "baseline", "tfidf", value) for i, value in enumerate(tfidf)),
        ("mini", "baseline", "bi_encoder", 0.99),
    ]
    report = {
        "primary_metric": "roc_auc",
        "data": {"n_pairs": 900},
        "environment": ENVIRONMENT,
        "rows": [
            {"name": name, "role": role, "kind": kind, "metrics": {"roc_auc": estimate(value), "spearman": estimate(0)}}
            for name, role, kind, value in rows
        ],
        "comparisons": []
        if control is None
        else [{"name": COMPARED, "metric": "roc_auc", **estimate(student - control)}],
    }
    folder = labelled_shares.folder_of(output, share, seed)
    (folder / "report").mkdir(parents=True)
    (folder / "report" / "benchmark.json").write_text(json.dumps(report))
    return folder


def test_a_report_gives_the_best_teacher_and_the_best_floor(tmp_path):
    run = read_report(write_run(tmp_path, 0.3, 1), 0.3, 1)
    assert [run["rows"][name]["value"] for name in ROWS] == [0.6, 0.7, 0.8, 0.9, 0.65]
    assert run[COMPARED]["value"] == pytest.approx(0.1) and run["metric"] == "roc_auc"
    assert run["machine"] == "Some CPU (avx2), 2 threads, 25.3 GB"


def test_share_of_the_gain():
    rows = {
        "untrained": estimate(0.6),
        "control": estimate(0.7),
        "student": estimate(0.8),
        "best teacher": estimate(0.9),
    }
    assert share_of_gain(rows) == pytest.approx(2 / 3)
    assert share_of_gain(rows, "control") == pytest.approx(1 / 3)
    assert share_of_gain({**rows, "best teacher": estimate(0.6)}) is None
    assert share_of_gain({**rows, "control": None}, "control") is None


def test_means_are_over_the_seeds_of_a_share(tmp_path):
    runs = [
        read_report(write_run(tmp_path, share, seed, student=student), share, seed)
        for share, seed, student in ((0.1, 0, 0.7), (1.0, 0, 0.8), (1.0, 1, 0.84))
    ]
    (most, two), (least, one) = by_share(runs)
    assert (most["share"], len(two), least["share"], len(one)) == (1.0, 2, 0.1, 1)
    assert most["rows"]["student"] == pytest.approx({"value": 0.82, "low": 0.81, "high": 0.84})
    assert least["rows"]["student"]["value"] == 0.7


def test_table_has_a_line_per_seed_and_their_mean(tmp_path):
    for share, seed, student in ((1.0, 0, 0.8), (1.0, 1, 0.82), (0.03, 0, 0.7)):
        write_run(tmp_path, share, seed, student=student)
    wanted = [(1.0, 0), (1.0, 1), (0.03, 0), (0.03, 1)]  # the last is not finished
    write_results(tmp_path, wanted, name="demo", command="python -m x")
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    told = [line for line in lines if line.startswith("| ") and "---" not in line]
    assert told[0] == (
        "| labels | seed | untrained | control | student | best teacher | TF-IDF | student − control | "
        "share of the gain: control | student |"
    )
    assert [line.split(" | ")[:2] for line in told[1:]] == [
        ["| 100 %", "mean of 2"],
        ["| 100 %", "0"],
        ["| 100 %", "1"],
        ["| 3 %", "0"],
    ]
    assert told[2] == (
        "| 100 % | 0 | 0.6000 (0.5900 to 0.6200) | 0.7000 (0.6900 to 0.7200) | 0.8000 (0.7900 to 0.8200) | "
        "0.9000 (0.8900 to 0.9200) | 0.6500 (0.6400 to 0.6700) | +0.1000 (+0.0900 to +0.1200) | 33% | 67% |"
    )
    assert "0.8100 (0.8000 to 0.8300)" in told[1] and "| 70% |" in told[1]
    assert "Machine: Some CPU (avx2), 2 threads, 25.3 GB." in lines and "    python -m x" in lines
    assert "roc_auc on 900 evaluation pairs" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_picture_is_svg_and_png(tmp_path):
    for share in (1.0, 0.1):
        write_run(tmp_path, share, 0, control=None)  # a recipe without one
    write_results(tmp_path, [(1.0, 0), (0.1, 0)], name="demo", command="x")
    svg = (tmp_path / "shares.svg").read_text(encoding="utf-8")
    assert svg.startswith("<?xml") and ">student<" in svg and ">control<" not in svg and ">10<" in svg
    assert (tmp_path / "shares.png").read_bytes().startswith(b"\x89PNG")
    assert "| – |" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "table.json").read_text())["runs"][0]["rows"]["control"] is None


def test_no_finished_run_is_said(tmp_path):
    with pytest.raises(BadInput, match="holds no finished run of these shares and seeds"):
        write_results(tmp_path, [(1.0, 0)], name="demo", command="x")


def test_all_labels_are_no_share_and_later_words_rule(tmp_path):
    assert "data.labelled_share=null" in overrides(tmp_path, 1.0, 3, [])
    told = overrides(tmp_path, 0.03, 3, ["data.labelled_share=0.5", "benchmark.seconds=9"])
    assert told.index("data.labelled_share=0.03") > told.index("data.labelled_share=0.5")
    assert told.index("benchmark.seconds=9") > told.index("benchmark.seconds=0.2") and "seed=3" in told


def test_a_run_is_finished_by_its_command(tmp_path):
    assert not is_finished(tmp_path, ["recipe", "a=1"])
    (tmp_path / "labelled_shares.json").write_text(json.dumps({"command": ["recipe", "a=1"], "finished": True}))
    assert is_finished(tmp_path, ["recipe", "a=1"])
    with pytest.raises(BadInput, match=r"was run with other overrides \(recipe a=1\)"):
        is_finished(tmp_path, ["recipe", "a=2"])


def test_frozen_teachers_come_from_a_finished_run(tmp_path):
    teachers = {
        "frozen": Teacher(kind="bi_encoder", backbone="some-model", frozen=True),
        "learned": Teacher(kind="bi_encoder", backbone="some-model"),
    }
    for run, finished in (("a", False), ("b", True)):
        for part in ("teachers/frozen", "teachers/learned", "signals/frozen"):
            (tmp_path / run / part).mkdir(parents=True)
            (tmp_path / run / part / "file").write_text(run)
        (tmp_path / run / "labelled_shares.json").write_text(json.dumps({"finished": finished}))
    target = tmp_path / "c"
    target.mkdir()
    assert take_frozen(teachers, tmp_path, target) == ["frozen"]
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("file")) == [
        "signals/frozen/file",
        "teachers/frozen/file",
    ]
    assert (target / "teachers" / "frozen" / "file").read_text() == "b"
    assert take_frozen(teachers, tmp_path, target) == []
