import csv
import json
import os
import re
import shutil
from dataclasses import asdict
from html.parser import HTMLParser
from itertools import combinations, pairwise

import numpy as np
import pytest

from distill.errors import BadInput
from distill.files.artefact import Artefact, write_json
from distill.metrics.measures import METRICS, Estimate
from distill.metrics.names import METRIC_NAMES
from distill.report import pictures as report_pictures
from distill.report.build import write_report
from distill.report.calibrated import calibration_table, curve_of
from distill.report.content import BenchmarkResults, latency_of
from distill.report.model_card import write_model_cards
from distill.report.page import page as html_page
from distill.report.pictures import PNG_FILES, Pictures, draw
from distill.report.series import points_of
from distill.report.words import verdict
from tests.conftest import make_run


def interval(value, half=0.012, n=4820):
    return {"value": value, "low": value - half, "high": min(value + half * 0.9, 1.0), "n": n}


def row(name, role, kind, runtime, precision, size, quality, p50, per_second):
    """A row as the benchmark writes it; `quality` has Spearman, AUC, AP, NDCG, MSE, agreement with the teacher."""
    spearman, auc, precision_mean, ndcg, mse, agree = quality
    metrics = {
        "spearman": interval(spearman, 0.014),
        "roc_auc": interval(auc, 0.009),
        "average_precision": interval(precision_mean, 0.016),
        "ndcg_at_10": interval(ndcg, 0.011, 402),
        "ablation_mse": interval(mse, 0.004),
    }
    if agree is not None:
        metrics |= {"teacher_spearman": interval(agree), "teacher_kendall": interval(agree - 0.14)}
    return {
        "name": name,
        "role": role,
        "kind": kind,
        "runtime": runtime,
        "precision": precision,
        "parameters": int(size * 1e6 / (1 if precision == "int8" else 4)),
        "size_mb": size,
        "peak_memory_mb": size * 1.6 + 380,
        "metrics": metrics,
        "latency_ms": {"batch": 1, "p50": p50, "p95": p50 * 1.18, "p99": p50 * 1.41},
        "throughput_pairs_per_s": per_second,
        "latency_by_length": [
            {"tokens": tokens, "p50": p50 * (tokens / 64) ** 0.9, "p95": p50 * 1.2 * (tokens / 64) ** 0.9}
            for tokens in (32, 64, 128, 256)
        ],
        "per_run": {"latency_ms": [p50, p50 * 1.01]},
    }


def calibration(shift):
    """What a row says of a calibration: bins off by a shift before, and by nothing after."""

    def stage(off):
        bins = [{"probability": p / 10, "share": interval(p / 10 + off * p / 10, 0.04, 482)} for p in range(1, 10, 2)]
        return {"ece": interval(off, 0.01), "plain": off + 0.01, "noise": 0.0123, "brier": interval(0.2), "bins": bins}

    point = {"by": "precision", "share": 0.9, "threshold": 0.613, "validation": {"precision": 0.91, "recall": 0.52}}
    point |= {"precision": interval(0.887, 0.03), "recall": interval(0.534, 0.03)}
    told = {"kind": "platt", "fitted_to": 300, "graded": False, "before": stage(shift), "after": stage(0.0)}
    return told | {"operating_point": point}


def benchmark():
    teacher = (0.812, 0.958, 0.921, 0.943, 0.071, None)
    student = (0.783, 0.941, 0.893, 0.926, 0.083, 0.941)
    export = (0.782, 0.940, 0.892, 0.925, 0.083, 0.940)
    int8 = (0.778, 0.938, 0.888, 0.922, 0.085, 0.934)
    control = (0.741, 0.915, 0.852, 0.899, 0.102, 0.861)
    lexical = (0.512, 0.792, 0.668, 0.781, None, 0.547)
    rows = [
        row("한국어 학생 모델", "export", "bi_encoder", "onnx", "int8", 23.4, int8, 3.4, 540.0),
        row("teacher", "teacher", "cross_encoder", "torch", "fp32", 2271.0, teacher, 212.0, 6.1),
        row("student", "student", "bi_encoder", "torch", "fp32", 90.9, student, 9.8, 148.0),
        row("control", "control", "bi_encoder", "torch", "fp32", 90.9, control, 9.9, 147.0),
        row("student", "export", "bi_encoder", "openvino", "bf16", 90.9, export, 4.6, 402.0),
        row("student", "export", "bi_encoder", "openvino", "int8", 23.1, int8, 3.1, 611.0),
        row("TF-IDF", "baseline", "lexical", "scikit-learn", None, 4.2, (*lexical[:4], 0.2, lexical[5]), 0.41, 5200.0),
    ]
    rows[-1]["metrics"].pop("ablation_mse")
    rows[-1]["latency_by_length"] = []
    rows[2]["calibration"] = calibration(-0.2)
    rows[1]["operating_point"] = {"threshold": 1.25, "precision": interval(0.905), "recall": interval(0.713)}
    return {
        "title": "Korean and English question matching, MiniLM student of a cross-encoder",
        "primary_metric": "roc_auc",
        "recipe": {
            "name": "match-ko-en",
            "teacher": {"model": "teachers/cross-encoder", "temperature": 2.0},
            "student": {"model": "all-MiniLM-L6-v2", "layers": 6},
            "loss": {"margin_mse": 1.0, "labels": 0.2},
            "note": "질문 쌍 <script>alert(1)</script>",
        },
        "data": {"n_pairs": 4820, "n_queries": 402, "source": "held-out questions, 질문 쌍, deduplicated by text"},
        "environment": {
            "cpu": "AMD EPYC 9R14, 2 cores",
            "threads": 2,
            "versions": {"torch": "2.11.0", "transformers": "5.5.1", "openvino": "2026.1", "python": "3.11.7"},
            "platform": "Linux 6.1, glibc 2.36",
            "date": "2026-05-04",
        },
        "rows": rows,
        "comparisons": [
            {"name": "student − control", "metric": "roc_auc", "value": 0.026, "low": 0.018, "high": 0.034, "n": 4820},
            {"name": "int8 − fp32", "metric": "roc_auc", "value": -0.003, "low": -0.007, "high": 0.001, "n": 4820},
        ],
        "notes": [
            "The teacher was run with batches of 8 for throughput and of 1 for latency.",
            "Questions longer than 256 tokens were cut.",
        ],
    }


def test_a_model_card_names_a_teacher_of_those_alone_that_have_one(tmp_path):
    result, folders = benchmark(), {}
    result["rows"] = result["rows"][1:4]
    for place in result["rows"]:
        place |= {"retention": {"roc_auc": 0.955}, "speedup": 24.1}
        folders[place["name"]] = folder = tmp_path / place["name"]
        folder.mkdir()
        write_json(folder / "artefact.json", asdict(Artefact("bi_encoder", "train_student", "f", "r")))
    write_model_cards(make_run(tmp_path / "run"), result, folders)
    cards = {name: (folder / "README.md").read_text(encoding="utf-8") for name, folder in folders.items()}
    speed = "at 24.1 times its pairs a second"
    assert "% of the ROC-AUC" not in cards["teacher"]
    assert f"It keeps 96.3 % of the ROC-AUC above chance of its teacher, `teacher`, {speed}" in cards["student"]
    assert f"It reaches 90.6 % of the ROC-AUC above chance of the teacher, `teacher`, {speed}" in cards["control"]


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of style."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "line", "rect", "circle", "path"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words, self.cells = [], [], [], []
        self.feed(text)
        self.text = re.sub(r"[ \n]+", " ", "".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def found(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def once(part):
    """A part of `draw` that draws nothing twice: pictures take a second, and many tests have the same."""
    made = {}

    def again(*shown):
        key = repr(shown)
        if key not in made:
            made[key] = part(*shown)
        return made[key]

    return again


_PARTS = {name: once(getattr(report_pictures, name)) for name in ("_scatter", "_by_length", "_panels", "_reliability")}


def drawn(content):
    """The pictures of a report; what an earlier test has drawn from the same points, lines or loads is not drawn again."""
    with pytest.MonkeyPatch.context() as patch:
        for name, part in _PARTS.items():
            patch.setattr(report_pictures, name, part)
        return draw(content)


def page(content):
    checked = BenchmarkResults.of(content)
    text = html_page(checked, drawn(checked))
    return text, Page(text)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a written report, and what `write_report` gave. Read from it."""
    folder = tmp_path_factory.mktemp("written") / "new" / "report"
    return folder, write_report(benchmark(), folder)


def wording(content):
    """The page without its pictures, where only what it says changes: to draw new ones takes a second or two."""
    return Page(html_page(BenchmarkResults.of(content), Pictures()))


def small():
    """A report with a picture of each kind that takes little to draw."""
    return {"rows": [benchmark()["rows"][2]]}


@pytest.fixture(scope="module")
def written_small(tmp_path_factory):
    """The folder of a small report. Copy it."""
    folder = tmp_path_factory.mktemp("small") / "report"
    write_report(small(), folder)
    return folder


def test_writes_every_file_and_nothing_else(written):
    folder, files = written
    assert [path.name for path in files] == [
        "benchmark.json",
        "benchmark.csv",
        "index.html",
        "quality_latency.png",
        "quality_throughput.png",
        "latency_by_length.png",
        "reliability.png",
    ]
    assert sorted(folder.iterdir()) == sorted(files)
    for path in files[3:]:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_json_is_what_came_in(written):
    assert json.loads((written[0] / "benchmark.json").read_text(encoding="utf-8")) == benchmark()


def test_json_takes_arrays_and_estimates_and_has_no_nan(tmp_path):
    content = {"rows": [{"name": "a", "metrics": {"spearman": Estimate(0.5, 0.4, 0.6, 9)}, "speedup": float("nan")}]}
    content["rows"][0]["per_run"] = np.array([1.0, np.inf])
    content["rows"][0]["parameters"] = np.int64(7)
    write_report(content, tmp_path)
    text = (tmp_path / "benchmark.json").read_text(encoding="utf-8")
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)["rows"][0] == {
        "name": "a",
        "metrics": {"spearman": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}},
        "speedup": None,
        "per_run": [1.0, None],
        "parameters": 7,
    }


def test_a_folder_whose_name_is_no_utf_8_is_reported():
    """Its report ended in a traceback after all measurements."""
    content = BenchmarkResults.of({"rows": [{"name": os.fsdecode(b"model-\xff"), "path": os.fsdecode(b"\xff")}]})
    assert content.labels == ["model-\\udcff"]
    json.dumps(content.raw, ensure_ascii=False).encode()


def test_csv_has_one_flat_line_a_row(written):
    with (written[0] / "benchmark.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["role"] for line in lines] == [
        "teacher",
        "student",
        "control",
        "export",
        "export",
        "export",
        "baseline",
    ]
    teacher, student = lines[:2]
    assert float(student["roc_auc"]) == 0.941
    assert float(student["roc_auc_low"]) == pytest.approx(0.932)
    assert float(student["roc_auc_retention"]) == pytest.approx(0.941 / 0.958)
    assert float(student["speedup"]) == pytest.approx(148 / 6.1)
    assert float(teacher["latency_p95_ms"]) == pytest.approx(212 * 1.18)
    assert float(teacher["latency_64_tokens_p50_ms"]) == pytest.approx(212)
    assert (student["under_floor"], student["problem"], student["latency_pairs"]) == ("False", "", "")
    assert lines[-1]["precision"] == lines[-1]["ablation_mse"] == lines[-1]["latency_64_tokens_p50_ms"] == ""


def test_headline_names_the_fastest_that_keeps_95_percent():
    _, parsed = page(benchmark())
    # 0.438/0.458 = 95.6 %; 611/6.1 = 100 times the speed; 23.1/2271 = 1/98 of the size.
    assert (
        "student (int8): 95.6\u00a0% of the teacher’s ROC-AUC above chance at 100× its speed and 1/98 of its size"
        in parsed.text
    )


def test_headline_without_costs_shares_or_students():
    metrics = {"spearman": {"value": 0.7}}
    _, parsed = page({"rows": [{"name": "s", "role": "student", "metrics": metrics}]})
    assert "s: Spearman 0.700" in parsed.text
    _, parsed = page({"rows": [{"name": "b", "role": "baseline"}]})
    assert "One model measured" in parsed.text


def test_headline_of_poor_students_names_the_one_that_keeps_most():
    content = benchmark()
    for one in content["rows"]:
        if one["role"] in ("student", "export"):
            one["metrics"]["roc_auc"]["value"] = 0.8 if one["runtime"] == "torch" else 0.7
    assert "student (fp32): 65.5\u00a0% of the teacher’s ROC-AUC above chance" in wording(content).text


def test_page_is_one_file_that_asks_the_network_for_nothing():
    text, parsed = page(under_load())
    assert not re.search(r"https?://|url\(|@import|<script|<iframe|<object", text)
    assert all("src" not in attributes for _, attributes in parsed.tags)
    assert [attributes["href"] for attributes in parsed.found("link")] == ["data:,"]
    assert parsed.open == []


def loaded(scale, *, lengths=(32, 64, 128, 256), batches=(1, 8, 32)):
    """What was measured under load: a call costs `scale` ms, and each token of each pair 1/100 of it."""
    return {
        "batches": [
            {
                "tokens": tokens,
                "batch": size,
                "n": 40,
                "p50": (took := scale * (1 + size * tokens / 100)),
                "p95": 1.2 * took,
                "pairs_per_s": 1000 * size / took,
            }
            for tokens in lengths
            for size in batches
        ],
        "capacity_pairs_per_s": 1000 / scale,
        "open_loop": [
            {
                "load": share,
                "rate": share * 1000 / scale,
                "n": 200,
                "p50": scale / (1 - share),
                "p95": 3 * scale / (1 - share),
                "p99": 5 * scale / (1 - share),
                "mean_batch": 1.4,
            }
            for share in (0.25, 0.5, 0.9)
        ],
        "memory": {"n_shapes": 400, "growth_mb": 12.0, "end_mb": 600.0},
    }


def under_load():
    content = benchmark()
    for one, scale in zip(content["rows"][:3], (1.0, 40.0, 4.0), strict=True):
        one["under_load"] = loaded(scale)
    return content


def test_batches_are_shown_by_length_and_the_best_of_each_is_bold():
    text, parsed = page(under_load())
    assert parsed.open == [] and "Batches" in parsed.text
    tables = [one for one in text.split("<table")[1:] if one.startswith(' class="heat"')]
    assert ["teacher" in tables[0], "student" in tables[1], "한국어" in tables[2]] == [True] * 3
    assert all(table.count("<strong>") == 4 for table in tables)
    # the student: 4 ms a call and 0.04 a token; 32 pairs of 32 tokens take 44.96 ms, 712 a second
    student = tables[1]
    assert "<strong>712</strong> <small>45.0 ms</small>" in student
    assert student.index(">5.28 ms<") < student.index(">14.2 ms<") < student.index(">45.0 ms<")
    # one scale for all: the slowest cell is the teacher's single pair of 256 tokens, the fastest the export's batch
    assert tables[0].count("--heat: 0%") == tables[2].count("--heat: 100%") == 1
    assert text.count("--heat: 0%") == text.count("--heat: 100%") == 1


def test_load_is_drawn_for_each_model_on_one_scale():
    text, parsed = page(under_load())
    panels = [one.split("</svg>")[0] for one in text.split('<svg class="panel"')[1:]]
    assert len(panels) == 3
    for panel in panels:
        assert panel.count('class="trace ') == 3
        assert [name for name in ("p50", "p95", "p99") if f">{name}</text>" in panel] == ["p50", "p95", "p99"]
    ticks = [re.findall(r'class="tick">.*?>([\d,.]+)</text>', panel) for panel in panels]
    assert ticks[0] == ticks[1] == ticks[2] and len(ticks[0]) >= 4
    assert "p50: 5.33 ms at 62.5" in panels[1]  # in words, for who does not see it
    assert "5.33 <small>p95 16.0</small> <small>p99 26.7</small> <small>62.5/s</small>" in text
    assert "at most 250 pairs/s" in parsed.text


def test_labels_of_a_panel_stay_inside_and_apart():
    text, _ = page(under_load())
    for panel in text.split('<svg class="panel"')[1:]:
        width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', panel).groups())
        found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>(p\d\d)<', panel)
        places = sorted(float(y) for _, y, _ in found)
        assert len(found) == 3 and min(after - before for before, after in pairwise(places)) >= 12
        assert all(float(x) + len(name) * 0.65 * 12 <= width for x, _, name in found)
        assert all(0 < place < height for place in places)


@pytest.mark.parametrize("missing", ["batches", "open_loop", "capacity_pairs_per_s"])
def test_what_was_not_measured_under_load_is_left_out(missing):
    content = under_load()
    for one in content["rows"]:
        one.get("under_load", {}).pop(missing, None)
    text, parsed = page(content)
    assert parsed.open == [] and not re.search(r"\b(None|nan|NaN)\b", parsed.text)
    assert ('class="heat"' in text) == (missing != "batches")
    assert ("Latency under load" in text) == (missing != "open_loop")
    assert ("at most" in parsed.text) == (missing == "batches")


def test_cells_that_are_missing_or_senseless_are_dashes():
    content = under_load()
    cells = content["rows"][2]["under_load"]["batches"]
    cells[0]["p50"], cells[4]["p50"] = None, 0
    del cells[8]["tokens"]
    content["rows"][2]["under_load"]["open_loop"][1]["p99"] = float("nan")
    text, parsed = page(content)
    assert parsed.open == []
    student = next(one for one in text.split('<table class="heat"') if ">student (fp32)</caption>" in one)
    assert student.count('title="not measured"') == 3
    assert text.split("Latency under load")[-1].split("</section>")[0].count('title="not measured"') == 1


def test_one_cell_and_one_load_are_enough():
    under = {"batches": loaded(2.0)["batches"][:1], "open_loop": loaded(2.0)["open_loop"][:1]}
    text, parsed = page({"rows": [{"name": "alone", "under_load": under}]})
    assert parsed.open == [] and text.count('class="heat"') == 1 and text.count('class="panel"') == 1


@pytest.mark.integration
def test_everything_is_escaped():
    content = under_load()
    content["rows"] = content["rows"][:3]
    evil = '"><script>alert(1)</script>&'
    content["title"] = content["notes"][0] = content["rows"][0]["name"] = evil
    content["rows"][0]["kind"] = content["rows"][0]["precision"] = content["data"]["source"] = evil
    content["comparisons"][0]["name"] = content["environment"]["versions"]["torch"] = evil
    text, parsed = page(content)
    assert "<script" not in text
    assert parsed.found("script") == [] and parsed.open == []
    assert parsed.text.count("<script>alert(1)</script>") >= 8


def test_table_comes_first_and_is_a_table_for_a_screen_reader():
    text, parsed = page(benchmark())
    assert text.index("<table") < text.index("<svg")
    assert len(parsed.found("caption")) == len(parsed.found("table")) == 3
    assert {attributes.get("scope") for attributes in parsed.found("th")} == {"col", "colgroup", "row"}
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in parsed.found("svg"))
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_pictures_are_described_in_their_own_units():
    pictures = draw(BenchmarkResults.of(benchmark()))
    assert " ms" in pictures.quality_latency[0].about and "pairs/s" not in pictures.quality_latency[0].about
    assert " pairs/s" in pictures.quality_throughput[0].about and " ms" not in pictures.quality_throughput[0].about


def test_each_number_has_its_interval_and_each_row_its_precision():
    text, parsed = page(benchmark())
    assert "0.915 <small>.906–.923</small>" in text
    assert "student · bi-encoder · PyTorch · fp32" in parsed.text.replace("\u00a0", " ")
    assert "export · bi-encoder · OpenVINO · bf16" in parsed.text.replace("\u00a0", " ")
    assert "baseline · lexical · scikit-learn · precision not recorded" in parsed.text.replace("\u00a0", " ")
    assert "OpenVINO computes in bf16 by default" in parsed.text


def test_best_is_bold_beside_the_teacher():
    text, _ = page(benchmark())
    assert "<strong>0.941</strong>" in text
    assert "<strong>0.958</strong>" not in text
    # Lower is better: 0.083 is the least error beside the teacher, twice as shown.
    assert text.count("<strong>0.083</strong>") == 2
    assert "<strong>0.41</strong>" in text  # milliseconds


def test_retention_is_said_for_each_row():
    _, parsed = page(benchmark())
    assert (
        "student (fp32) keeps 96.4\u00a0% of the teacher’s Spearman, 96.3\u00a0% of its ROC-AUC above chance, "
        in parsed.text
    )
    assert "at 24× its speed and 1/25 of its size" in parsed.text
    # The control and the baseline had no teacher to keep anything of.
    assert parsed.text.count(" keeps ") == 4 + 1  # and the heading
    assert parsed.text.count(" reaches ") == 2


def test_csv_has_what_a_quality_is_worth_and_what_speed_rests_on(tmp_path):
    content = benchmark()
    content["rows"] = content["rows"][:2]  # the second is written first: a teacher
    content["rows"][1] |= {
        "under_floor": True,
        "problem": "every pair has the same score",
        "latency_pairs": 24,
        "throughput_pairs": 64,
        "latency_interval": {"low": 200.0, "high": 220.0},
        "throughput_interval": {"low": 6.0, "high": 6.2},
        "retention_best": {"roc_auc": 0.9},
        "above_chance": {"roc_auc": 0.8},
        "gain": {"untrained": {"roc_auc": 0.7}, "floor": {"roc_auc": -0.6}},
        "speedup_split": {"model": 5.0, "runtime": 2.0, "beside": "x", "same": True},
    }
    write_report(content, tmp_path)
    with (tmp_path / "benchmark.csv").open(encoding="utf-8", newline="") as file:
        line = next(csv.DictReader(file))
    expected = {
        "under_floor": "True",
        "problem": "every pair has the same score",
        "latency_pairs": "24",
        "throughput_pairs": "64",
        "latency_p50_low_ms": "200.0",
        "throughput_high_pairs_per_s": "6.2",
        "roc_auc_retention_best": "0.9",
        "roc_auc_above_chance": "0.8",
        "roc_auc_gain_over_untrained": "0.7",
        "roc_auc_gain_over_floor": "-0.6",
        "speedup_from_model": "5.0",
        "speedup_from_runtime": "2.0",
    }
    assert {key: line[key] for key in expected} == expected


def test_a_difference_that_excludes_zero_is_not_shown_as_zero():
    content = benchmark()
    content["comparisons"] = [
        {"name": "a − b", "metric": "roc_auc", "value": 0.0169, "low": 0.000226, "high": 0.0337},
        {"name": "c − d", "metric": "roc_auc", "value": -0.00002, "low": -0.00004, "high": -0.00001},
        {"name": "e − f", "metric": "roc_auc", "value": 0.0001, "low": -0.0002, "high": 0.0003},
    ]
    parsed = wording(content)
    assert "+0.0169 (+0.0002 to +0.0337)" in parsed.text
    assert "−0.00002 (−0.00004 to −0.00001)" in parsed.text
    assert "+0.000 (+0.000 to +0.000) – the interval includes 0" in parsed.text


@pytest.mark.parametrize(
    "name, metric, low, high, words",
    [
        ("student − control", "roc_auc", 0.01, 0.03, "the interval excludes 0: the teacher helped"),
        ("student - control", "roc_auc", -0.03, -0.01, "the interval excludes 0: the teacher did harm"),
        ("student − control", "ablation_mse", -0.03, -0.01, "the interval excludes 0: the teacher helped"),
        ("student − control", "roc_auc", -0.01, 0.03, "the interval includes 0: no difference shown"),
        ("student − control", "roc_auc", 0.0, 0.03, "the interval includes 0: no difference shown"),
        ("int8 − fp32", "roc_auc", -0.03, -0.01, "the interval excludes 0: fp32 is better"),
        ("int8 − fp32", "roc_auc", 0.01, 0.02, "the interval excludes 0: int8 is better"),
        ("int8 − fp32", "roc_auc", None, None, "no interval was computed, so nothing is shown"),
    ],
)
def test_comparison_in_plain_words(name, metric, low, high, words):
    assert verdict({"name": name, "metric": metric, "value": 0.0, "low": low, "high": high}) == words


def test_almost_nothing_is_enough(tmp_path):
    content = {"rows": [{"name": "alone"}]}
    write_report(content, tmp_path)
    text, parsed = page(content)
    assert "alone" in parsed.text and "precision not recorded" in parsed.text
    assert "<svg" not in text and "None" not in parsed.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmark.csv", "benchmark.json", "index.html"]


@pytest.mark.integration
@pytest.mark.parametrize("key", [*row("a", "student", "b", "c", "d", 1, (0, 0, 0, 0, 0, None), 1, 1)])
@pytest.mark.parametrize("how", ["missing", "none"])
def test_any_key_of_a_row_may_be_missing(key, how):
    if key == "name":
        pytest.skip("a row has a name")
    content = benchmark()
    del content["primary_metric"]
    content["rows"] = content["rows"][1:4]
    for one in content["rows"]:
        one.pop(key)
        if how == "none":
            one[key] = None
    text, parsed = page(content)
    assert parsed.open == []
    assert not re.search(r"\b(None|nan|NaN)\b", text)


@pytest.mark.parametrize("key", [*benchmark()])
def test_any_part_of_a_benchmark_may_be_missing(tmp_path, key):
    content = benchmark()
    del content[key]
    if key == "rows":
        with pytest.raises(BadInput, match="rows"):
            write_report(content, tmp_path)
    else:
        assert page(content)[1].open == []


@pytest.mark.parametrize(
    "content, message",
    [
        ({}, "nothing to report"),
        ({"rows": []}, "nothing to report"),
        ({"rows": [{"role": "teacher"}]}, "row 1 has no name"),
        ({"rows": [{"name": "a"}], "primary_metric": "auc"}, "no row has 'auc'; there are none"),
        ({**benchmark(), "primary_metric": "auc"}, "no row has 'auc'; there are spearman, roc_auc"),
    ],
)
def test_bad_benchmark_is_refused_before_anything_is_written(tmp_path, content, message):
    folder = tmp_path / "report"
    with pytest.raises(BadInput, match=message):
        write_report(content, folder)
    assert not folder.exists()


@pytest.mark.integration
def test_failure_leaves_the_earlier_report_whole(tmp_path, written_small, monkeypatch):
    shutil.copytree(written_small, tmp_path, dirs_exist_ok=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(PNG_FILES) <= set(before)

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(report_pictures, "save_png", fail)
    with pytest.raises(KeyboardInterrupt):
        write_report({**small(), "title": "other"}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_json_by_which_a_report_counts_as_finished_is_put_in_place_last(tmp_path, monkeypatch):
    placed, replace = [], os.replace

    def noted(source, target):
        placed.append(os.path.basename(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    (tmp_path / ".report.999999999.tmp").mkdir()  # of a killed process
    write_report({"rows": [{"name": "alone"}]}, tmp_path)
    assert sorted(placed) == sorted(path.name for path in tmp_path.iterdir())
    assert placed[-1] == "benchmark.json"


def test_calibration_is_drawn_tabulated_and_said():
    text, shown = page(benchmark())
    assert "<h2>Calibration</h2>" in text and "share of matches by probability" in text
    assert "0.080 at 0.100" in text and "calibrated (platt): 0.100 at 0.100" in text  # what is drawn, in words
    assert "a model without error shows an ECE of about 0.012" in shown.text
    assert "The thresholds were set on validation pairs for a precision of 0.900" in shown.text
    table = calibration_table(BenchmarkResults.of(benchmark()))
    assert [head.text for head in table.heads][:2] == ["ECE before", "ECE after"]
    cells = {line.name: [cell and (cell.text, *cell.small) for cell in line.cells] for line in table.lines}
    assert cells["student (fp32)"][-3:] == [("0.613",), ("0.887", ".857–.914"), ("0.534", ".504–.561")]
    assert cells["teacher (fp32)"] == [None] * 4 + [("1.250",), ("0.905", ".893–.916"), ("0.713", ".701–.724")]


def test_a_report_without_a_calibration_says_nothing_of_it(tmp_path):
    content = {**benchmark(), "rows": benchmark()["rows"][:1]}
    assert curve_of(BenchmarkResults.of(content)) is None
    assert "Calibration" not in page(content)[0]
    odd = {"calibration": {"before": {"bins": [{"probability": 0.5}]}, "after": {"bins": "none"}, "kind": None}}
    write_report({"rows": [benchmark()["rows"][0] | odd]}, tmp_path)
    assert not (tmp_path / "reliability.png").exists()


@pytest.mark.integration
def test_picture_of_an_earlier_report_does_not_stay(tmp_path, written_small):
    shutil.copytree(written_small, tmp_path, dirs_exist_ok=True)
    assert {path.name for path in tmp_path.iterdir()} >= set(PNG_FILES)
    (tmp_path / "mine.txt").write_text("kept")
    write_report({"rows": [{"name": "alone"}]}, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["benchmark.csv", "benchmark.json", "index.html", "mine.txt"]


@pytest.mark.integration
def test_single_model_is_drawn(tmp_path):
    one = benchmark()["rows"][2] | {"latency_by_length": [{"tokens": 64, "p50": 3.0}, {"tokens": None, "p50": 1.0}]}
    assert len(write_report({"rows": [one]}, tmp_path)) == 7


def test_rows_alike_in_name_are_told_apart():
    rows = [
        {"name": "s", "runtime": "torch", "precision": "int8"},
        {"name": "s", "runtime": "openvino", "precision": "int8"},
        {"name": "t", "precision": "fp32"},
        {"name": "t-int8", "precision": "int8"},
        {"name": "u"},
    ]
    assert BenchmarkResults.of({"rows": rows}).labels == [
        "s (PyTorch int8)",
        "s (OpenVINO int8)",
        "t (fp32)",
        "t-int8",
        "u",
    ]


def in_latin(content):
    """The same report with names that the font of matplotlib has, so that a box is what is drawn."""
    rows = [{**one, "name": one["name"].replace("한국어 학생 모델", "Korean")} for one in content["rows"]]
    return {**content, "rows": rows}


def labels(figure):
    """What a picture names, with the box of each name, as it was laid out."""
    found = [text for text in figure.findobj(lambda one: one.get_gid() == "label")]
    return {" ".join(text.get_text().split()): text.get_window_extent() for text in found}


@pytest.mark.integration
@pytest.mark.parametrize("size", [0, 1], ids=["desk", "phone"])
def test_labels_do_not_cover_each_other(size):
    content = BenchmarkResults.of(in_latin(benchmark()))
    figure = drawn(content).quality_latency[size].figure
    boxes = labels(figure)
    assert sorted(boxes) == sorted(content.labels)
    assert not [pair for pair in combinations(boxes.values(), 2) if pair[0].overlaps(pair[1])]
    (axes,) = figure.axes
    marks = axes.transData.transform([(point.x, point.y) for point in points_of(content, latency_of)])
    assert not [box for box in boxes.values() for mark in marks if box.contains(*mark)]
    assert all(
        0 <= box.x0 and box.x1 <= figure.bbox.x1 and 0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes.values()
    )


def crowd():
    """A report of many models of nearly the same quality and speed."""
    content = benchmark()
    content["rows"] += [
        row(
            f"a student with a long name {i}",
            "student",
            "bi_encoder",
            "torch",
            "fp32",
            30,
            (0.7, 0.93 + i / 900, 0.9, 0.9, 0.1, 0.9),
            4 + i / 9,
            400,
        )
        for i in range(6)
    ]
    return content


@pytest.mark.integration
def test_many_models_are_numbered_and_the_key_names_them():
    raw = crowd()
    for one in raw["rows"]:  # the other pictures take seconds
        del one["throughput_pairs_per_s"], one["latency_by_length"]
    content = BenchmarkResults.of(raw)
    phone = draw(content).quality_latency[1]
    boxes = labels(phone.figure)
    assert sorted(boxes, key=int) == [str(number) for number in range(1, 14)]
    assert not [pair for pair in combinations(boxes.values(), 2) if pair[0].overlaps(pair[1])]
    (key,) = phone.figure.legends
    said = [" ".join(text.get_text().split()) for text in key.get_texts()]
    assert said == [f"{number} {label}" for number, label in enumerate(content.labels, 1)]
    text = Page(phone.svg).text
    assert all(label in text for label in content.labels)


def test_every_line_is_named_inside_the_picture():
    content = in_latin(crowd())
    del content["primary_metric"]
    lines = ("name", "role", "runtime", "precision", "latency_by_length")  # without the scatter, which takes seconds
    content["rows"] = [{key: one[key] for key in lines} for one in content["rows"]]
    pictures = draw(BenchmarkResults.of(content))
    assert len(pictures.latency_by_length) == 2 and not pictures.quality_latency
    for picture in pictures.latency_by_length:
        boxes = list(labels(picture.figure).values())
        assert len(boxes) == 12 and all(box.x1 <= picture.figure.bbox.x1 + 1 for box in boxes)
        assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]


@pytest.mark.integration
def test_pictures_are_the_same_every_time(tmp_path):
    content = benchmark()
    content["rows"] = content["rows"][1:4]
    first, second = (draw(BenchmarkResults.of(content)) for _ in range(2))
    for one, other in zip(first.quality_latency, second.quality_latency, strict=True):
        assert one.svg == other.svg
    first.write(tmp_path)
    before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    second.write(tmp_path)
    assert before == [path.read_bytes() for path in sorted(tmp_path.iterdir())]


def test_pictures_hold_text_and_the_colours_of_the_page():
    text, parsed = page(benchmark())
    svg = text[text.index("<svg") : text.index("</svg>")]
    assert "한국어 학생 모델" in svg and "var(--accent)" in svg and "var(--paper)" in svg
    assert not re.search(r"#[0-9a-f]{6}|font-family|<use|<defs|<style| id=|xmlns|clip-path", svg)
    for picture in text.split("<svg")[1:]:
        assert picture.count("<title>") == picture.count("<desc>") == 1
    assert parsed.text.count("한국어 학생 모델") > 6


def test_front_is_what_no_other_beats():
    def model(name, p50, value):
        return {"name": name, "latency_ms": {"p50": p50}, "metrics": {"spearman": {"value": value}}}

    # b is slower and worse than a; c is slower but better; d is the same as c.
    rows = [model("a", 1, 0.5), model("b", 2, 0.4), model("c", 3, 0.9), model("d", 3, 0.9)]
    points = points_of(BenchmarkResults.of({"rows": rows}), latency_of)
    assert [point.front for point in points] == [True, False, True, True]


@pytest.mark.integration
def test_value_outside_its_own_interval_is_drawn_all_the_same(tmp_path):
    content = benchmark()
    content["rows"] = content["rows"][1:3]
    content["primary_metric"] = "spearman"
    content["rows"][0]["metrics"]["spearman"] = {"value": 1e6, "low": 0.9, "high": 0.95, "n": 9}
    write_report(content, tmp_path)
    assert (tmp_path / "quality_latency.png").is_file()


def test_names_of_metrics_are_those_of_the_metrics():
    assert tuple(METRIC_NAMES) == METRICS
