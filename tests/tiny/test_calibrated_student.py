"""A student that carries its calibration and a threshold: through the stages of a tiny run, in Python and on the command line."""

import csv
import json
import logging
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from distill.data.pairs import Pairs
from distill.errors import BadInput
from distill.evaluation.benchmark import _calibrated, _inputs, score_row, student_rows, teacher_row
from distill.evaluation.calibrated import calibration_notes, measured_calibration
from distill.files.artefact import CALIBRATION, read_card
from distill.metrics.measures import Bootstrap
from distill.recipe.schema import Recipe, TfIdf
from distill.report.model_card import use_of
from distill.report.templates import render
from distill.run import Run
from distill.runtime.opening import load
from distill.scorers.baselines import write_tfidf
from distill.scorers.opening import open_scorer
from recipes.cli import main
from students import calibrate_router, export_router, export_static_student, train_student
from students.calibrate import calibrate_student
from teachers import cache_signals
from tests.conftest import BI_TEACHER, make_run, pairs_file, train_teachers_once
from tests.tiny.test_static_student import STATIC

pytestmark = pytest.mark.integration

LABELS_ALONE = {"score_match": None, "labels": {"loss": "contrastive"}}


def alike_pairs():
    """240 pairs of 60 queries; a match has words of the query in another order, so that a model's scores rise with the labels."""
    rng, lines = random.Random(0), ["query\tdocument\tlabel"]
    words = [
        word
        for pair in (line.split("\t") for line in Path(pairs_file()).read_text("utf-8").splitlines()[1:])
        for word in pair[1].split()
    ]
    words = sorted(set(words))
    for number in range(60):
        own = rng.sample(words, 8)
        lines += [f"{number} {' '.join(own)}\t{number}-0 {' '.join(rng.sample(own, 5))} {rng.choice(words)}\t1"]
        lines += [
            f"{number} {' '.join(own)}\t{number}-{i} {' '.join([own[0], *rng.sample(words, 5)])}\t0" for i in (1, 2, 3)
        ]
    path = Path(pairs_file()).with_name("alike.tsv")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def calibrated_run(folder, calibration, validation_share=0.4, **changes):
    # 86 validation pairs or so, of 24 queries
    return make_run(
        folder,
        data={"train": alike_pairs(), "validation_share": validation_share},
        teachers={"bi": BI_TEACHER, "cross": None},
        student=STATIC | {"calibration": calibration},
        objectives=LABELS_ALONE,
        **changes,
    )


def changed(run, calibration, **data):
    """The same run with another calibration."""
    recipe = run.recipe.model_dump(mode="json")
    recipe["student"]["calibration"] = calibration
    recipe["data"] |= data
    return Run(Recipe.model_validate(recipe))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = calibrated_run(tmp_path_factory.mktemp("calibrated") / "run", {"threshold": {"recall": 0.8}})
    train_teachers_once(run)
    train_student(run)
    export_static_student(run)
    return run


def test_probabilities_come_from_the_scores_of_each_folder(run):
    pairs = run.split.validation
    for folder in (run.student, run.export("int8", "numpy")):
        scorer = load(folder)
        scores = scorer.score(pairs.queries, pairs.documents)
        told = scorer.score(pairs.queries, pairs.documents, calibrated=True)
        held = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
        assert held["kind"] == "platt" and held["fitted"]["pairs"] == len(pairs) >= 50
        np.testing.assert_allclose(told, 1 / (1 + np.exp(-(held["slope"] * scores + held["bias"]))), atol=1e-6)
        assert told.mean() == pytest.approx(pairs.labels.mean(), abs=0.02)  # a fit with an intercept, on these pairs
        assert (scorer.decide(scores) == (scores >= held["threshold"]["score"])).all()
        recall = scorer.decide(scores)[pairs.labels >= 0.5].mean()
        assert recall >= 0.8 and held["threshold"]["recall"] == pytest.approx(recall)
        rows, ranked = scorer.rank(pairs.queries[0], pairs.documents[:9], top_k=4, calibrated=True)
        plain_rows, plain = scorer.rank(pairs.queries[0], pairs.documents[:9], top_k=4)
        assert (rows == plain_rows).all()
        np.testing.assert_array_equal(ranked, scorer.probability(plain))


def test_a_finished_calibration_is_kept_and_another_trains_nothing(run, caplog):
    def times():
        names = ("model.safetensors", "artefact.json", CALIBRATION)
        return {name: (run.student / name).stat().st_mtime_ns for name in names}

    before = times()
    train_student(run)
    assert times() == before
    train_student(changed(run, {"kind": "isotonic"}))
    assert caplog.text.count("an isotonic calibration follows the noise of few pairs") == 1
    after = times()
    assert after.pop(CALIBRATION) > before.pop(CALIBRATION) and after == before
    held = json.loads((run.student / CALIBRATION).read_text(encoding="utf-8"))
    assert held["kind"] == "isotonic" and "threshold" not in held
    with pytest.raises(
        BadInput, match=r"carries no threshold; name one in the recipe \(student.calibration.threshold\)"
    ):
        load(run.student).decide(np.zeros(2))
    train_student(changed(run, {"kind": "none"}))
    assert not (run.student / CALIBRATION).exists()
    with pytest.raises(BadInput, match="carries no calibration, so its scores are no probabilities"):
        load(run.student).score(["a"], ["b"], calibrated=True)
    (run.student / CALIBRATION).write_text("{broken")
    train_student(run)
    assert times() | {CALIBRATION: 0} == before | {CALIBRATION: 0}
    assert load(run.student).score(["a"], ["b"], calibrated=True).shape == (1,)


def test_the_teachers_threshold_becomes_one_of_equal_recall(run, caplog):
    pairs = run.split.validation
    teacher = load(run.teacher("bi"), runtime="torch", precision="fp32", max_length=64)
    scores = teacher.score(pairs.queries, pairs.documents)
    value = float(np.median(scores))
    recall = (scores >= value)[pairs.labels >= 0.5].mean()
    with caplog.at_level(logging.WARNING):
        train_student(changed(run, {"threshold": {"value": value, "equal": "recall"}}))
    held = json.loads((run.student / CALIBRATION).read_text(encoding="utf-8"))
    point = held["threshold"]
    assert point["by"] == "recall" and point["share"] == pytest.approx(recall, abs=0.03)
    assert point["recall"] >= point["share"] and point["teacher"] == "bi" and point["teacher_threshold"] == value
    caplog.clear()
    train_student(changed(run, {"threshold": {"value": 7.0}}))
    assert "threshold" not in json.loads((run.student / CALIBRATION).read_text(encoding="utf-8"))
    assert "student gets no threshold: no match of the validation pairs reaches 7 of bi" in caplog.text
    train_student(run)


def test_too_few_validation_pairs_are_said_before_training(tmp_path, caplog):
    run = calibrated_run(tmp_path / "run", {}, validation_share=0.1)
    train_teachers_once(run)
    with caplog.at_level(logging.INFO):
        train_student(run)
    lines = [record.message for record in caplog.records]
    said = next(line for line in lines if line.startswith("the student gets no calibration"))
    assert "it takes 50 labelled validation pairs, and there are" in said and "raise data.validation_share" in said
    assert lines.index(said) < next(
        i for i, line in enumerate(lines) if line.startswith("student: ") and "units" in line
    )
    assert not (run.student / CALIBRATION).exists()
    calibrate_student(run)
    assert not (run.student / CALIBRATION).exists()


def test_distill_score_adds_the_columns_that_are_asked_for(run, tmp_path, capsys):
    table, out = tmp_path / "pairs.csv", tmp_path / "scores.csv"
    table.write_text("query,document\n개발자,engineer\nnurse,간호사\n", encoding="utf-8")
    model = run.export("int8", "numpy")
    assert main(["score", str(model), str(table), "-o", str(out), "--calibrated", "--decide"]) == 0
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    assert list(rows[0]) == ["row", "score", "unit_score", "probability", "match"]
    scorer = load(model)
    scores = scorer.score(["개발자", "nurse"], ["engineer", "간호사"])
    np.testing.assert_allclose([float(row["probability"]) for row in rows], scorer.probability(scores), atol=1e-6)
    assert [row["match"] for row in rows] == [str(int(one)) for one in scorer.decide(scores)]
    assert main(["score", str(run.built), str(table), "-o", str(tmp_path / "no.csv"), "--calibrated"]) == 2
    assert "carries no calibration" in capsys.readouterr().err and not (tmp_path / "no.csv").exists()
    (tmp_path / "tfidf").mkdir()
    write_tfidf(tmp_path / "tfidf", TfIdf(), ["개발자 engineer", "nurse 간호사"])
    assert main(["score", str(tmp_path / "tfidf"), str(table), "-o", str(tmp_path / "no.csv"), "--decide"]) == 2
    assert "is a tfidf, which carries no calibration; leave out --calibrated and --decide" in capsys.readouterr().err


def test_the_report_measures_both_on_the_evaluation_pairs(run):
    rows = [teacher_row(run, "bi"), *student_rows(run)]
    pairs, bootstrap = run.split.evaluation, Bootstrap(100, 0)
    scored = {row.name: score_row(run, row, pairs) for row in rows}
    added = _calibrated(run, rows, scored, bootstrap)
    assert set(added) == {"bi", "student", "student (numpy int8)"}
    for name in ("student", "student (numpy int8)"):
        told = added[name]["calibration"]
        assert told["after"]["brier"]["value"] < told["before"]["brier"]["value"] and not told["graded"]
        assert told["before"]["ece"]["n"] == len(pairs)
        point, scores = told["operating_point"], scored[name].scores
        assert point["by"] == "recall" and point["share"] == 0.8 <= point["validation"]["recall"]
        assert point["recall"]["value"] == (scores >= point["threshold"])[pairs.labels >= 0.5].mean()
    validation = run.split.validation
    own = load(run.teacher("bi"), runtime="torch", precision="fp32", max_length=64)
    recall = (own.score(validation.queries, validation.documents) >= added["bi"]["operating_point"]["threshold"])[
        validation.labels >= 0.5
    ].mean()
    assert recall >= 0.8  # the teacher's threshold is found on the same validation pairs
    assert calibration_notes([{"name": name, **more} for name, more in added.items()], pairs) == [
        f"Calibrations and thresholds were fitted to {len(validation)} validation pairs, and are measured on the {len(pairs)} evaluation pairs."
    ]
    inputs = _inputs(run, rows)["calibrations"]
    assert set(inputs) == {"student", "student (numpy int8)"}  # another calibration is another report


def test_grades_are_said_to_be_grades(run):
    pairs = run.split.evaluation
    graded = Pairs(pairs.queries, pairs.documents, (0.25 + pairs.labels / 2).astype(np.float32))
    scores = np.linspace(-0.5, 0.9, len(pairs))
    told = measured_calibration(run.student, "bi_encoder", scores, (scores + 1) / 2, graded, Bootstrap(50, 0))
    assert told["graded"]
    assert "a calibrated score is the expected grade" in calibration_notes([{"calibration": told}], graded)[1]


def test_the_model_card_says_what_it_is_worth(run):
    row = student_rows(run)[1]
    scored = {row.name: score_row(run, row, run.split.evaluation)}
    told = _calibrated(run, [row], scored, Bootstrap(50, 0))["student"]["calibration"]
    text, without = (
        render("model_card_use.md", use=use_of({"runtime": "torch"} | more, read_card(run.student)))
        for more in ({"calibration": told}, {})
    )
    assert f"`score(…, calibrated=True)` gives probabilities of a match (platt, fitted to {told['fitted_to']}" in text
    assert f"{told['operating_point']['recall']['value']:.3f}" in text and "calibrated" not in without


def test_a_student_of_one_side_is_calibrated_beside_its_teacher(tmp_path):
    run = make_run(
        tmp_path / "run",
        data={"train": alike_pairs(), "validation_share": 0.4},
        teachers={"bi": BI_TEACHER, "cross": None},
        student={
            "kind": "bi_encoder",
            "backbone": {"teacher": "bi"},
            "asymmetric": {"side": "query", "min_cosine": -1, "min_recall": 0},
            "calibration": {"kind": "isotonic"},
        },
        objectives={"score_match": None, "embedding_match": {"teacher": "bi"}},
    )
    train_teachers_once(run)
    for stage in (cache_signals, train_student, export_router, calibrate_router):
        stage(run)
    pairs = run.split.validation
    beside = open_scorer(run.student, other_side=run.teacher("bi"))
    alone = open_scorer(run.router)
    for scorer in (beside, alone):
        told = scorer.score(pairs.queries, pairs.documents, calibrated=True)
        assert 0 < told.min() <= told.max() < 1 and told.mean() == pytest.approx(pairs.labels.mean(), abs=0.02)


def test_truncated_embeddings_have_other_cosines(run):
    with pytest.raises(BadInput, match="opened with truncate 8; its calibration is for whole embeddings"):
        load(run.student, truncate=8).score(["a"], ["b"], calibrated=True)


def test_stock_sentence_transformers_passes_over_the_file(run):
    from sentence_transformers import SentenceTransformer

    stock = SentenceTransformer(str(run.student), device="cpu")
    assert stock.encode(["a"], show_progress_bar=False).shape == (1, 16)


def test_a_hostile_file_is_refused_where_probabilities_are_asked_for(run, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(run.student, folder)
    (folder / CALIBRATION).write_text('{"kind": "platt", "model": "bi_encoder", "slope": NaN, "bias": 0}')
    with pytest.raises(BadInput, match="slope is nan"):
        load(folder).score(["a"], ["b"], calibrated=True)
    assert load(folder).score(["a"], ["b"]).shape == (1,)
