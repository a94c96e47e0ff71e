"""`distill run` from a recipe to a report, as a user calls it, and a second time."""

import json
import re

import pytest

from recipes.cli import main
from students.export.quantize_openvino import has_optimum
from tests.conftest import SHORT_BENCHMARK, write_recipe

pytestmark = pytest.mark.integration

STAGES = ("teachers/cross", "student", "control", "exports/openvino-fp32", "exports/openvino-int8", "report")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    changes = {
        "student": {"control": True},
        "export": {"precisions": ["fp32", "int8"], "calibration_pairs": 20, "parity_pairs": 20},
        "benchmark": SHORT_BENCHMARK,
    }
    return write_recipe(tmp_path_factory.mktemp("whole"), **changes)


def test_run_leaves_all_folders_and_the_documented_report(recipe, capsys):
    assert main(["run", str(recipe), "--json"]) == 0
    folder = recipe.parent / "run"
    assert all((folder / stage).is_dir() for stage in STAGES)
    report = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in report["rows"]}
    assert [row["role"] for row in report["rows"]] == [
        "teacher",
        "teacher_export",
        "teacher_export",
        "untrained",
        "student",
        "control",
        "export",
        "export",
        "baseline",
    ]
    assert rows["student (int8)"]["precision"] == "int8"
    assert rows["student (fp32)"]["precision"] == "fp32"
    for row in report["rows"]:
        assert {"p50", "p95", "p99", "batch"} <= set(row["latency_ms"])
        assert row["throughput_pairs_per_s"] > 0 and row["peak_memory_mb"] > 0 and row["parameters"] > 0
        assert all(
            m["low"] <= m["value"] <= m["high"] for name, m in row["metrics"].items() if name != "teacher_kendall"
        )
        for kind, value in (("latency", row["latency_ms"]["p50"]), ("throughput", row["throughput_pairs_per_s"])):
            assert row[f"{kind}_interval"]["low"] <= value <= row[f"{kind}_interval"]["high"]
        assert (row["latency_pairs"], row["throughput_pairs"]) == (16, 16)
    assert report["measuring"]["ended_by"] in ("interval", "seconds") and report["measuring"]["rounds"] == 5
    for name, beside in (("student (fp32)", "cross (fp32)"), ("student (int8)", "cross (int8)")):
        split = rows[name]["speedup_split"]
        assert split["beside"] == beside and split["same"]
        assert split["model"] * split["runtime"] == pytest.approx(rows[name]["speedup"])
    assert rows["cross (int8)"]["precision"] == "int8" and rows["cross (int8)"]["retention"]["roc_auc"] > 0.9
    assert "from the smaller model × " in (folder / "report/index.html").read_text()
    assert {"cpu", "threads", "versions"} <= set(report["environment"])
    # a second run finds all of it finished and changes nothing
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("artefact.json")}
    assert main(["run", str(recipe)]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("artefact.json")} == before


@pytest.mark.parametrize("folder", ["teachers/cross", "student", "control", "exports/openvino-int8"])
def test_each_model_has_a_card_that_the_hub_reads_and_whose_code_runs(recipe, folder, capsys):
    from huggingface_hub import ModelCard

    assert main(["run", str(recipe)]) == 0
    capsys.readouterr()
    model = recipe.parent / "run" / folder
    card = ModelCard.load(model / "README.md")
    assert card.data.library_name == "sentence-transformers"
    assert card.data.pipeline_tag == "text-ranking"
    metrics = {result.metric_type: result.metric_value for result in card.data.eval_results}
    report = json.loads((recipe.parent / "run" / "report" / "benchmark.json").read_text())
    named = {"teachers/cross": "cross", "exports/openvino-int8": "student (int8)"}.get(folder, folder)
    row = next(row for row in report["rows"] if row["name"] == named)
    assert metrics == {name: round(estimate["value"], 4) for name, estimate in row["metrics"].items()}
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    if folder.startswith("exports"):
        teacher = next(row for row in report["rows"] if row["name"] == "cross")["metrics"]["roc_auc"]["value"]
        assert "| openvino-int8 |" in card.text
        assert ("of its teacher, `cross`" in card.text) == (teacher > 0.5)  # there is no share of a teacher at chance
        if not has_optimum():
            pytest.skip("stock sentence-transformers opens OpenVINO through optimum-intel")
    found = {}
    exec(code.replace("path/to/this/folder", str(model)), found)
    assert found["scores"].shape == (1,)
