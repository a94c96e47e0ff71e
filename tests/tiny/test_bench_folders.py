"""`distill benchmark A B --pairs …` as a user calls it, a second time against the first."""

import json
import re
import shutil

import numpy as np
import pytest

from distill.data.pairs import Pairs
from distill.errors import BadInput
from distill.evaluation import compare_folders
from distill.evaluation.benchmark import _UNMEASURED
from distill.evaluation.compare_folders import FolderMeasuring, bench_folders
from distill.evaluation.latency import LoadSettings
from distill.recipe.schema import Benchmark
from recipes.cli import main

pytestmark = pytest.mark.integration

LINES = ["query\tdocument\tlabel"] + [
    f"query {i}\t{'맞음' if i % 2 else '아님'} document {i}\t{i % 2}" for i in range(24)
]


@pytest.mark.slow
def test_folders_side_by_side_and_against_the_last_time(bert_bi, bert_cross, tmp_path, capsys):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    other = shutil.copytree(bert_bi, tmp_path / "other")
    command = ["benchmark", str(bert_cross), str(other), "--pairs", str(pairs), "--seconds", "0.2", "--json"]
    extra = ["--batches", "1,4", "--loads", "0.5", "--shapes", "20"]
    assert main([*command, *extra, "-o", str(tmp_path / "one")]) == 0
    report = json.loads(capsys.readouterr().out)
    first, second = report["rows"]
    assert (first["name"], second["name"]) == ("model", "other")
    assert second["speedup"] == second["throughput_pairs_per_s"] / first["throughput_pairs_per_s"]
    for row in report["rows"]:
        load = row["under_load"]
        assert {cell["batch"] for cell in load["batches"]} == {1, 4}
        assert load["open_loop"][0]["rate"] == 0.5 * load["capacity_pairs_per_s"]
        assert load["memory"]["n_shapes"] == 20
        assert 0 < row["first_score_seconds"] <= row["first_score_cold_seconds"]
    words = re.sub(
        r"<style>.*?</style>|<[^>]*>",
        " ",
        (tmp_path / "one" / "index.html").read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    assert "of the first model’s ROC-AUC" in words and "eacher" not in words
    previous = str(tmp_path / "one" / "benchmark.json")
    worse = ["--against", previous, "--max-metric-drop", "0.0", "--max-slowdown", "1000"]
    assert main([*command, *worse, "-o", str(tmp_path / "two")]) == 0
    # a report that was better: exit code 1, and the new report is there to look at
    better = json.loads((tmp_path / "one" / "benchmark.json").read_text(encoding="utf-8"))
    better["rows"][1]["metrics"][better["primary_metric"]]["value"] += 0.1
    (tmp_path / "better.json").write_text(json.dumps(better), encoding="utf-8")
    worse[1] = str(tmp_path / "better.json")
    assert main([*command, *worse, "-o", str(tmp_path / "three")]) == 1
    assert "other: ROC-AUC fell by 0.1000, at most 0 is allowed" in capsys.readouterr().err
    assert (tmp_path / "three" / "benchmark.json").is_file()


def test_bad_options_are_one_line(bert_bi, tmp_path, capsys):
    for arguments, said in (
        ([str(bert_bi)], "--pairs is missing"),
        ([str(bert_bi), __file__], f"is a file: give it as --pairs {__file__}"),
        ([str(bert_bi), "--pairs", "x.tsv", "--max-slowdown", "1.1"], "name it with --against"),
        (
            [str(bert_bi), "--pairs", "x.tsv", "--batches", "one"],
            "--batches one: numbers with commas between are expected",
        ),
        ([str(bert_bi), "--pairs", "x.tsv", "--loads", "50"], "--loads 50: shares of the capacity are expected"),
        ([str(bert_bi), "--pairs", "x.tsv", "--threads", "0"], "numbers from 1 are expected"),
        ([str(bert_bi), "--pairs", str(tmp_path / "none.tsv")], "no such file"),
        ([str(tmp_path / "none"), "--pairs", str(tmp_path / "none.tsv")], "there is no such directory"),
    ):
        assert main(["benchmark", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error and "Traceback" not in error


def test_a_second_folder_that_cannot_be_opened_is_refused_before_anything_is_scored(bert_bi, tmp_path, monkeypatch):
    second = shutil.copytree(bert_bi, tmp_path / "second")
    weights = second / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    monkeypatch.setattr("distill.evaluation.compare_folders._scored", lambda *_: pytest.fail("scored"))
    measuring = FolderMeasuring(Benchmark(), LoadSettings())
    with pytest.raises(BadInput, match="second cannot be loaded"):
        bench_folders([bert_bi, second], Pairs(["a"], ["b"], None), tmp_path / "out", measuring=measuring)
    assert not (tmp_path / "out").exists()


def test_labels_that_are_all_alike_are_said_in_console_and_report(bert_bi, tmp_path, monkeypatch, caplog):
    """Every label was 1, and the main column silently became another one."""
    monkeypatch.setattr(compare_folders, "measure_rows", lambda rows, *_, **__: {row.name: _UNMEASURED for row in rows})
    monkeypatch.setattr(compare_folders, "_first_score", lambda *_: {})
    pairs = Pairs(["a", "b", "c"], ["d", "e", "f"], np.ones(3, dtype=np.float32))
    measuring = FolderMeasuring(Benchmark(bootstrap=20), LoadSettings())
    result = bench_folders([bert_bi], pairs, tmp_path / "out", measuring=measuring)
    alike, few = result["notes"]
    assert alike.startswith("All labels are 1, so no ranking can be measured. Ablation MSE is shown instead")
    assert few.startswith("Intervals of so few pairs (3,")
    assert {alike, few} <= set(caplog.messages)
    assert "no ranking can be measured" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
