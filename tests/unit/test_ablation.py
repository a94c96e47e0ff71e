"""The ablation's recipe and table."""

import csv
import json
from pathlib import Path

import pytest

from distill.ablation import (
    AblationCell,
    AblationRow,
    load_ablation,
    low_spread_note,
    recipe_of,
    stand_ins_of,
    write_table,
)
from distill.errors import BadInput
from distill.metrics.measures import Estimate
from tests.conftest import ROOT

PUBLISHED = ROOT / "recipes" / "ablation_resume_jd.yaml"


def cell(mse, auc, spread, **more):
    return AblationCell(
        {
            "ablation_mse": Estimate(mse, mse - 0.01, mse + 0.01, 100),
            "roc_auc": Estimate(auc, auc - 0.01, auc + 0.01, 100),
        },
        spread,
        **more,
    )


class TestRecipe:
    def test_every_published_value_has_its_row(self):
        ablation = load_ablation(PUBLISHED)
        published = {row.model: dict(row.published) for row in ablation.rows}
        assert published["tfidf_pair"] == {"V1": 0.2214, "V2": 0.2267}
        assert published["openai"] == {"V2": 0.2853}
        assert published["mbert"] == {"V1": 0.3887, "V2": 0.3449}
        assert published["mpnet"] == {"V1": 0.3936, "V2": 0.3254}
        assert published["bge"] == {"V1": 0.3621, "V2": 0.3394}
        assert published["mbert_mlm"] == {"V1": 0.4612, "V2": 0.4250}
        assert published["mbert_contrastive"] == {"V1": 0.1066, "V2": 0.1056}
        assert published["mbert_mlm_contrastive"] == {"V1": 0.1084}
        assert published["mpnet_contrastive"] == {"V1": 0.1038, "V2": 0.1024}
        assert published["bge_contrastive"] == {"V1": 0.1085, "V2": 0.1052}
        assert published["bge_cross"] == {"V1": 0.0016, "V2": 0.0803}
        parameters = {row.name: row.parameters for row in ablation.rows}
        assert [parameters[name] for name in ("mBERT", "mPNet", "BGE-m3-korean")] == ["135M", "278M", "568M"]
        assert parameters["cross-encoder BGE-m3-korean + MLP"] == "568M"

    def test_their_settings_are_there(self):
        recipe = recipe_of(load_ablation(PUBLISHED), "V1")
        assert recipe.data.train == "recuse/resume-jd-match-kr"
        assert recipe_of(load_ablation(PUBLISHED), "V2").data.train == "recuse/datasetV2"
        mlm, bge = recipe.teachers["mbert_mlm"], recipe.teachers["bge_contrastive"]
        assert (mlm.training.learning_rate, mlm.kind) == (5e-5, "mlm")
        assert (bge.training.learning_rate, bge.training.global_batch, bge.training.epochs) == (2e-5, 4, 3)
        assert (bge.training.precision, bge.training.patience, bge.training.evaluations_per_epoch) == ("fp16", 5, 5)
        assert (bge.max_length, recipe.teachers["mbert_contrastive"].max_length, recipe.seed) == (1024, 512, 42)

    def test_smoke_stands_in_for_every_backbone_and_the_data(self):
        ablation = load_ablation(PUBLISHED, smoke=True)
        recipe = recipe_of(ablation, "V2")
        assert recipe.data.train == "bundled"
        assert recipe.data.resume.keep == ("experience", "education", "skills")
        learned = stand_ins_of(ablation, [row.model for row in ablation.rows])
        made = {str(Path(learned.output_dir).resolve() / "teachers" / name) for name in learned.teachers}
        named = [teacher.backbone for teacher in recipe.teachers.values() if isinstance(teacher.backbone, str)]
        assert (set(named), len(made), len(named)) == (made, 3, 5)
        assert recipe.teachers["mbert_mlm_contrastive"].backbone.teacher == "mbert_mlm"
        assert str(ablation.folder).endswith("-smoke")

    def test_only_the_stand_ins_of_chosen_rows_are_made(self):
        ablation = load_ablation(PUBLISHED, smoke=True)
        assert stand_ins_of(ablation, ["tfidf", "openai"]) is None
        assert list(stand_ins_of(ablation, ["bge_paragraphs"]).teachers) == ["upskyy--bge-m3-korean"]
        (name,) = stand_ins_of(ablation, ["mbert_mlm_contrastive", "mbert"]).teachers
        assert name == "sentence-transformers--distiluse-base-multilingual-cased-v2"

    def test_without_pretraining_every_row_starts_from_random_weights(self):
        ablation = load_ablation(PUBLISHED, ["smoke.pretraining=null"], smoke=True)
        assert stand_ins_of(ablation, [row.model for row in ablation.rows]) is None
        assert ablation.teachers["bge_cross"].backbone.layers == 3

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            ("rows=[{name: a, model: nobody}]", "rows.0.model: no teacher or baseline is called 'nobody'"),
            ("rows=[{name: a, model: tfidf, published: {V9: 1}}]", "no data version of that name; known: V1, V2"),
            ("rows=[{name: a, model: tfidf}, {name: a, model: mbert}]", "'a' is there twice"),
            ("teachers.x={kind: mlm, backbone: {teacher: nobody}}", "no earlier teacher is called 'nobody'"),
            ("colour=red", "colour: unknown key"),
            ("rowz=[]", "rowz: unknown key; did you mean 'rows'?"),
            ("student={}", "student: unknown key; known: baselines, bootstrap"),
        ],
    )
    def test_what_does_not_fit_is_said(self, override, words):
        with pytest.raises(BadInput) as error:
            load_ablation(PUBLISHED, [override])
        assert words in str(error.value)

    @pytest.mark.parametrize("override", ["teachers=[1]", "teachers.mbert=3", "baselines=x"])
    def test_smoke_names_what_is_no_section(self, override):
        with pytest.raises(BadInput, match=f"{override.partition('=')[0]}: .*a section is expected"):
            load_ablation(PUBLISHED, [override], smoke=True)

    def test_smoke_names_a_backbone_without_a_stand_in(self):
        with pytest.raises(BadInput, match=r"smoke\.backbones has nothing for some/other"):
            load_ablation(PUBLISHED, ["teachers.bge_cross.backbone=some/other"], smoke=True)


class TestNote:
    def test_a_model_that_wins_by_squeezing_is_named(self):
        cells = {"flat": cell(0.20, 0.60, 0.05), "sharp": cell(0.24, 0.90, 0.25)}
        assert "ranks worse (ROC-AUC 0.600 against 0.900)" in low_spread_note("flat", cells["flat"], cells)
        assert low_spread_note("sharp", cells["sharp"], cells) is None

    def test_one_that_is_better_in_both_is_not(self):
        cells = {"good": cell(0.10, 0.95, 0.30), "bad": cell(0.24, 0.60, 0.10)}
        assert low_spread_note("good", cells["good"], cells) is None

    def test_a_row_that_was_not_run_says_nothing(self):
        cells = {"flat": cell(0.20, 0.60, 0.05), "gone": AblationCell({}, problem="no network")}
        assert low_spread_note("flat", cells["flat"], cells) is None
        assert low_spread_note("gone", cells["gone"], cells) is None


class TestTable:
    @pytest.fixture
    def folder(self, tmp_path):
        rows = [
            AblationRow(
                "a|b <x>",
                {"V1": 0.2214},
                {"V1": cell(0.2, 0.8, 0.1, n_parameters=135_000_000, seconds=61.4), "V2": cell(0.3, 0.7, 0.1)},
                "134M",
            ),
            AblationRow("remote", {}, {"V2": AblationCell({}, problem="no key")}),
        ]
        write_table("title", rows, ["V1", "V2"], ["a note"], tmp_path)
        return tmp_path

    def test_csv_holds_published_beside_ours(self, folder):
        with (folder / "ablation.csv").open(encoding="utf-8", newline="") as file:
            header, first, second = csv.reader(file)
        line = dict(zip(header, first, strict=True))
        assert (line["V1 published"], line["V1 ours"], line["V1 95 %"]) == ("0.2214", "0.2000", "0.1900–0.2100")
        assert line["parameters published"] == "134M"
        assert (line["parameters"], line["V1 training"], line["V2 published"]) == ("135.0 M", "61 s", "")
        assert dict(zip(header, second, strict=True))["V1 ours"] == ""

    def test_markdown_and_html_are_escaped_and_say_what_was_not_run(self, folder):
        markdown, page = (folder / "ablation.md").read_text(), (folder / "ablation.html").read_text()
        assert "a\\|b &lt;x>" in markdown
        assert "a|b &lt;x&gt;" in page
        assert "remote, V2: not run: no key" in markdown
        assert "http:" not in page and "https:" not in page

    def test_json_holds_everything(self, folder):
        value = json.loads((folder / "ablation.json").read_text())
        assert value["rows"][0]["ours"]["V1"]["metrics"]["roc_auc"]["n"] == 100
        assert value["rows"][1]["ours"]["V2"]["problem"] == "no key"
