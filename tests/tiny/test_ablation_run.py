"""An ablation on tiny models: shared stages once, rows that fail alone, a table that is whole."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from distill.ablation import load_ablation
from distill.errors import BadInput, JobFailed
from distill.evaluation.benchmark import score_row
from distill.files.artefact import read_card
from recipes.cli import main
from teachers.ablation import run_ablation
from tests.conftest import BACKBONE, TRAINING, pairs_file

pytestmark = pytest.mark.integration

CONTRASTIVE = {"kind": "bi_encoder", "backbone": "stand/in", "loss": "contrastive", "max_length": 64}
TABLE = {
    "name": "tiny",
    "data": {"V1": {"train": "unused"}},
    "teachers": {
        "mlm": {"kind": "mlm", "backbone": "stand/in", "max_length": 64},
        "contrastive": CONTRASTIVE,
        "both": {**CONTRASTIVE, "backbone": {"teacher": "mlm"}},
    },
    "baselines": {
        "tfidf": {"kind": "tfidf", "fit": "pair"},
        "remote": {"kind": "remote", "endpoint": {"model": "text-embedding-3-large"}},
        "bare": {"kind": "encoder", "backbone": "stand/in", "max_length": 64},
        "paragraphs": {"kind": "paragraphs", "model": "contrastive"},
    },
    "training": TRAINING,
    "rows": [
        {"name": "TF-IDF", "model": "tfidf", "published": {"V1": 0.2214}},
        {"name": "remote", "model": "remote"},
        {"name": "bare", "model": "bare"},
        {"name": "MLM", "model": "mlm"},
        {"name": "contrastive", "model": "contrastive"},
        {"name": "MLM + contrastive", "model": "both"},
        {"name": "paragraphs", "model": "paragraphs"},
    ],
    "bootstrap": 50,
    "smoke": {
        "data": {"V1": {"train": "bundled", "bundled_pairs": 160, "resume": {"keep": ["skills"], "blind": True}}},
        "backbones": {"stand/in": BACKBONE},
        "pretraining": {"pairs": 80, "training": {**TRAINING, "epochs": 1}},
        "max_length": 64,
        "training": {**TRAINING, "epochs": 2},
    },
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished table, and how it was called for."""
    folder = tmp_path_factory.mktemp("ablation")
    path = folder / "table.yaml"
    path.write_text(yaml.safe_dump({**TABLE, "output_dir": str(folder / "out")}, sort_keys=False), encoding="utf-8")
    assert main(["ablate", str(path), "--smoke"]) == 0
    return path, folder / "out-smoke"


class TestTable:
    def test_every_row_has_its_values(self, finished):
        table = json.loads((finished[1] / "ablation.json").read_text())
        rows = table["rows"]
        assert table["notes"][0].startswith("A smoke run")
        assert [row["name"] for row in rows] == [row["name"] for row in TABLE["rows"]]
        for row in rows:
            cell = row["ours"]["V1"]
            assert cell["problem"] is None
            assert {"ablation_mse", "roc_auc", "spearman"} <= set(cell["metrics"])
        trained = {row["name"]: row["ours"]["V1"]["seconds"] for row in rows}
        assert trained["TF-IDF"] is None
        assert trained["MLM + contrastive"] > trained["MLM"] > 0
        assert trained["paragraphs"] == trained["contrastive"]

    def test_the_adapted_encoder_is_made_once_and_started_from(self, finished):
        teachers = finished[1] / "V1" / "teachers"
        assert read_card(teachers / "both").parents == {"mlm": read_card(teachers / "mlm").revision}

    def test_rows_start_from_the_stand_in_that_learned_first(self, finished):
        (stand_in,) = (finished[1] / "stand-ins" / "teachers").iterdir()
        for name in ("mlm", "contrastive"):
            assert read_card(finished[1] / "V1" / "teachers" / name).parents == {
                "backbone": read_card(stand_in).revision
            }

    def test_a_second_run_trains_nothing_and_asks_nothing(self, finished, capsys):
        path, folder = finished
        before = {file: file.stat().st_mtime_ns for file in (folder / "V1").rglob("*.safetensors")}
        vectors = sorted((folder / "V1" / "baselines" / "embeddings").rglob("*"))
        assert main(["ablate", str(path), "--smoke", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["versions"] == ["V1"]
        assert before == {file: file.stat().st_mtime_ns for file in (folder / "V1").rglob("*.safetensors")}
        assert vectors == sorted((folder / "V1" / "baselines" / "embeddings").rglob("*"))

    def test_chosen_rows_alone(self, finished):
        path, folder = finished
        ablation = load_ablation(path, [f"output_dir={folder}-few"], smoke=True)
        run_ablation(ablation, only=["tfidf"], smoke=True)
        assert [row["name"] for row in json.loads((ablation.folder / "ablation.json").read_text())["rows"]] == [
            "TF-IDF"
        ]
        assert not (ablation.folder / "V1" / "teachers").exists()
        assert not (ablation.folder / "stand-ins").exists()
        with pytest.raises(BadInput, match="no row has that model"):
            run_ablation(ablation, only=["nobody"], smoke=True)


class TestVersions:
    @pytest.fixture
    def table(self, tmp_path):
        path = tmp_path / "table.yaml"
        data = {"V1": {"train": pairs_file(), "max_pairs": 120}, "V2": {"train": str(tmp_path / "none.csv")}}
        rows = [row for row in TABLE["rows"] if row["model"] == "tfidf"]
        out = str(tmp_path / "out")
        path.write_text(yaml.safe_dump({**TABLE, "data": data, "rows": rows, "output_dir": out}, sort_keys=False))
        return path

    def test_one_that_cannot_be_read_leaves_the_others(self, table, tmp_path, capsys):
        assert main(["ablate", str(table)]) == 1
        assert "V2: " in (said := capsys.readouterr().err) and "no such file" in said
        value = json.loads((tmp_path / "out" / "ablation.json").read_text())
        assert value["rows"][0]["ours"]["V1"]["metrics"]["ablation_mse"]["value"] > 0
        assert "no such file" in value["notes"][-1]

    def test_one_can_be_chosen(self, table, tmp_path, capsys):
        assert main(["ablate", str(table), "--versions", "V1"]) == 0
        assert json.loads((tmp_path / "out" / "ablation.json").read_text())["versions"] == ["V1"]
        assert main(["ablate", str(table), "--versions", "V3"]) == 2
        assert "there are V1, V2" in capsys.readouterr().err

    def test_a_folder_of_something_else_is_left_alone(self, table, tmp_path, capsys):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("mine")
        assert main(["ablate", str(table)]) == 2
        assert "holds other files (thesis.txt)" in capsys.readouterr().err
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]

    def test_none_that_can_be_read_is_bad_input(self, table, tmp_path):
        assert main(["ablate", str(table), "--versions", "V2"]) == 2
        assert not (tmp_path / "out" / "ablation.json").exists()


def test_a_row_that_cannot_run_leaves_the_others(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    real = {"train": pairs_file(), "max_pairs": 120}
    path = tmp_path / "table.yaml"
    rows = [row for row in TABLE["rows"] if row["model"] in ("tfidf", "remote", "bare")]
    path.write_text(
        yaml.safe_dump(
            {**TABLE, "data": {"V1": real}, "rows": rows, "output_dir": str(tmp_path / "out")}, sort_keys=False
        )
    )
    with pytest.raises(JobFailed) as error:
        run_ablation(load_ablation(path))
    assert "2 rows could not be run" in str(error.value)
    assert "set the environment variable OPENAI_API_KEY" in str(error.value)
    values = json.loads((tmp_path / "out" / "ablation.json").read_text())["rows"]
    assert values[0]["ours"]["V1"]["metrics"]["ablation_mse"]["value"] > 0
    assert "cannot be loaded" in values[2]["ours"]["V1"]["problem"]


def test_a_row_whose_scores_are_no_numbers_leaves_the_others(tmp_path, monkeypatch):
    def broken(run, row, pairs):
        scored = score_row(run, row, pairs)
        return replace(scored, scores=np.full(len(pairs), np.nan)) if row.name == "broken" else scored

    monkeypatch.setattr("teachers.ablation.score_row", broken)
    tfidf = TABLE["baselines"]["tfidf"]
    table = {
        **TABLE,
        "data": {"V1": {"train": pairs_file(), "max_pairs": 120}},
        "baselines": {"broken": tfidf, "tfidf": tfidf},
        "rows": [{"name": name, "model": name} for name in ("broken", "tfidf")],
        "output_dir": str(tmp_path / "out"),
    }
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    with pytest.raises(JobFailed, match=r"1 rows could not be run"):
        run_ablation(load_ablation(path))
    cells = [row["ours"]["V1"] for row in json.loads((tmp_path / "out" / "ablation.json").read_text())["rows"]]
    assert "values are not finite" in cells[0]["problem"]
    assert cells[1]["problem"] is None and cells[1]["metrics"]["ablation_mse"]["value"] > 0
