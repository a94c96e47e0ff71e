"""A cascade of a whole tiny run: its folder opens like any other model, and its dial adds up."""

import json
import random

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from distill.data.pairs import Pairs
from distill.evaluation.cascade_dial import _Costs, _models, _Part, make_dial
from distill.files.artefact import Artefact, write_card
from distill.recipe.reading import load_recipe
from distill.run import Run
from distill.scorers.cascade import fit_cascade
from distill.scorers.opening import open_scorer
from recipes.cli import main
from tests.conftest import BI_TEACHER, make_run, write_recipe

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cascade")
    rng = random.Random(0)
    lines = ["query\tdocument\tlabel"]
    for number in range(300):  # one word decides, nine times in ten
        label = number % 2
        word = "맞음" if (rng.random() < 0.9) == bool(label) else "아님"
        lines.append(f"query {number}\t{word} document {number * 7}\t{label}")
    pairs = folder / "pairs.tsv"
    pairs.write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = write_recipe(
        folder,
        data={"train": str(pairs), "validation_share": 0.4},
        training={"epochs": 4},
        export={"precisions": ["fp32"]},
        benchmark={"seconds": 0.3, "max_seconds": 0.3, "throughput_pairs": 20, "bootstrap": 50, "baselines": {}},
        cascade={"share": 0.3, "margin": 0.02},
    )
    assert main(["train-student", str(recipe)]) == 2  # nothing to learn from yet
    for stage in ("train-teacher", "cache-signals", "train-student", "export"):
        assert main([stage, str(recipe)]) == 0
    assert main(["cascade", str(recipe)]) == 0
    return recipe, folder / "run"


def test_dial_adds_up(finished):
    dial = json.loads((finished[1] / "cascade" / "dial.json").read_text())
    metric, places = dial["metric"], dial["positions"]
    assert places[0]["share"] == 0 and places[-1]["share"] == 1
    assert places[0][metric]["value"] == pytest.approx(dial["alone"]["student"]["value"])  # calibrated, the same ranks
    costs = [place["ms_per_pair"] for place in places]
    assert costs == sorted(costs)
    assert costs[-1] == pytest.approx(dial["alone"]["student"]["ms_per_pair"] + dial["alone"]["teacher"]["ms_per_pair"])
    assert dial["verdict"] and (finished[1] / "cascade" / "dial.png").stat().st_size > 5000


def test_share_is_chosen_on_validation_and_reported_on_evaluation(finished):
    run = Run(load_recipe(finished[0]))
    dial = json.loads((run.cascade / "dial.json").read_text())
    validation, chosen = dial["validation"], dial["chosen"]
    assert validation["n_pairs"] == len(run.split.validation) != len(run.split.evaluation) == chosen["n_pairs"]
    assert validation["n_tested"] == len(validation["positions"]) == len(dial["positions"])
    assert validation["chosen_by"] == "recipe" and dial["chosen_share"] == 0.3 and dial["margin"] == 0.02
    # the share that is reported is what the level of doubt, from the validation pairs, sends on of the evaluation pairs
    scorer, pairs = open_scorer(run.cascade), run.split.evaluation
    student = np.float64(scorer.student.score(pairs.queries, pairs.documents))
    assert chosen["share"] == pytest.approx((scorer.settings.cascade.doubt(student) >= scorer.settings.level).mean())
    value = roc_auc_score(pairs.labels, scorer.score(pairs.queries, pairs.documents))
    assert chosen["roc_auc"]["value"] == pytest.approx(value, abs=1e-6)
    for test in (*chosen["tests"].values(), *(place["minus_teacher"] for place in validation["positions"])):
        assert test["p"] <= test["p_holm"] and test["holds"] == (test["p_holm"] <= 0.025)
    assert f"{len(validation['positions'])} shares tested, Holm" in dial["verdict"]


def test_another_measurement_makes_another_cascade(finished, capsys):
    recipe, _ = finished
    assert main(["cascade", str(recipe), "benchmark.lengths=[64]"]) == 0  # no cost depends on it
    assert main(["cascade", str(recipe), "benchmark.threads=1"]) == 2
    assert "was made from something else (benchmark.threads: None → 1)" in capsys.readouterr().err


def scored(run, pairs, seed, noise):
    """A teacher that mostly knows the label, and a student that is as good but for noise. *Shape:* (n_pairs,)."""
    rng = np.random.default_rng(seed)
    teacher = 2 * pairs.labels - 1 + rng.normal(size=len(pairs))
    return _Part(run, pairs, teacher + noise * rng.normal(size=len(pairs)), teacher)


def dial_of(tmp_path, noise, n=300, **cascade):
    """A dial over made-up scores of n pairs each."""
    run = make_run(tmp_path / "run", cascade=cascade, benchmark={"bootstrap": 50})
    held_back, evaluated = (
        scored(run, Pairs([f"q{i}" for i in range(n)], ["d"] * n, np.arange(n) % 2 * 1.0), seed, noise)
        for seed in (1, 2)
    )
    fitted = fit_cascade(held_back.student, held_back.teacher, held_back.pairs.labels)
    return make_dial(run, fitted, held_back, evaluated, _Costs(0.001, 0.01))


def test_least_share_within_the_margin_is_chosen(tmp_path):
    dial, level = dial_of(tmp_path, noise=1.0, margin=0.08)
    places = dial["validation"]["positions"]
    first = next(place for place in places if place["minus_teacher"]["holds"])
    assert dial["chosen_share"] == pytest.approx(first["share"], abs=0.001) and 0 < first["share"] < 1
    assert all(place["minus_teacher"]["low"] > -0.08 for place in places if place["minus_teacher"]["holds"])
    assert dial["chosen"]["share"] == pytest.approx(dial["chosen_share"], abs=0.1) and level > 0
    assert dial["chosen"]["tests"]["beats_student"]["holds"]


def test_student_that_is_the_teacher_needs_none(tmp_path):
    dial, level = dial_of(tmp_path, noise=0.01, n=100)
    assert dial["chosen_share"] == 0 and level is None and dial["chosen"]["share"] == 0
    assert "beats_student" not in dial["chosen"]["tests"]
    assert "the student alone equals the teacher's roc_auc within the margin of 0.01" in dial["verdict"]


def test_too_few_pairs_are_said(tmp_path):
    dial, level = dial_of(tmp_path, noise=3.0, n=60, margin=0.0001)
    assert "too few to tell" in dial["verdict"] and "validation pairs are needed" in dial["verdict"]
    assert dial["chosen_share"] == 1 and level == 0  # every pair, also those of less doubt than any that was held back
    assert dial["chosen"]["share"] == 1


def test_folder_is_a_scorer_that_asks_the_teacher_where_in_doubt(finished):
    cascade = open_scorer(finished[1] / "cascade")
    queries, documents = ["개발자 파이썬", "간호사 병동", "a cook"], ["python developer", "ward nurse", "chef wanted"]
    student, teacher = (np.float64(one.score(queries, documents)) for one in (cascade.student, cascade.teacher))
    fitted = cascade.settings.cascade
    routed = fitted.doubt(student) >= cascade.settings.level
    expected = np.where(routed, fitted.together(student, teacher), fitted.alone(student))
    np.testing.assert_allclose(cascade.score(queries, documents), expected, atol=1e-6)


def test_second_run_changes_nothing_and_score_reads_it(finished, tmp_path, capsys):
    recipe, run = finished
    before = (run / "cascade" / "dial.json").read_bytes()
    assert main(["cascade", str(recipe), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["positions"]
    assert (run / "cascade" / "dial.json").read_bytes() == before
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("query\tdocument\n개발자\tdeveloper\n요리사\tnurse\n", encoding="utf-8")
    assert main(["score", str(run / "cascade"), str(pairs), "-o", str(tmp_path / "scores.tsv")]) == 0
    assert len((tmp_path / "scores.tsv").read_text().splitlines()) == 3


def test_share_and_top_k_together_are_refused(finished, capsys):
    assert main(["cascade", str(finished[0]), "cascade.top_k=3"]) == 2
    assert "cascade: share and top_k are two ways to choose; set one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "made", "chosen"),
    [
        ({}, ["exports/openvino-fp32", "exports/openvino-int8"], "exports/openvino-int8"),
        ({"export": {"precisions": ["fp32"]}}, ["exports/openvino-fp32"], "exports/openvino-fp32"),
        ({"export": {"formats": ["onnx"]}}, ["exports/onnx-fp32", "exports/onnx-int8"], "exports/onnx-int8"),
        ({"export": {"precisions": []}}, [], "student"),
        (
            {"student": {"kind": "bi_encoder", "layers": None, "static": {}}, "teachers": {"bi": BI_TEACHER}},
            ["exports/numpy-int8"],
            "exports/numpy-int8",
        ),
    ],
)
def test_the_student_is_the_int8_export_in_whatever_format(tmp_path, changes, made, chosen):
    run = make_run(tmp_path / "run", **changes)
    for folder in ("teachers/cross", "student", *made):
        (run.folder / folder).mkdir(parents=True)
        write_card(run.folder / folder, Artefact(kind="bi_encoder", stage="test", fingerprint="test"))
    student, teacher = _models(run)
    assert student.path == run.folder / chosen and teacher.path == run.teacher("cross")
    assert student.runtime == ("torch" if chosen == "student" else student.path.name.partition("-")[0])
