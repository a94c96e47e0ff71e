"""Recipes with objectives on layers: what a run trains, what it keeps, where it goes on, and what it refuses."""

import pytest

from distill.errors import BadInput
from distill.files.artefact import read_card
from distill.models.modeling import load_model
from distill.training import loop as training
from recipes.cli import main
from students import build_student, train_student
from students.train import training_inputs
from teachers import cache_signals, train_teachers
from teachers.doctor import diagnose
from tests.conftest import BACKBONE, BI_TEACHER, train_teachers_once, write_recipe

pytestmark = pytest.mark.integration

SHORT = {"max_pairs": 120}
STUDENT = {"kind": "bi_encoder", "backbone": {"teacher": "bi"}, "layers": [0], "max_length": 64, "control": False}
BI = {"data": SHORT, "teachers": {"bi": BI_TEACHER, "cross": None}, "student": STUDENT}
ON_LAYERS = {
    "hidden_match": {"teacher": "bi", "layers": {0: -1}, "embeddings": True, "attention": "kl"},
    "relation_match": {"teacher": "bi", "heads": 4},
}


@pytest.fixture(autouse=True)
def log_every_step(monkeypatch):
    monkeypatch.setattr(training, "_LOG_EVERY_STEPS", 1)


def student_of(run):
    train_teachers_once(run)
    cache_signals(run)
    train_student(run)
    return run.student


def history(folder):
    return [row for row in read_card(folder).details["history"] if "learning_rate" in row]


@pytest.mark.slow
def test_layers_beside_embeddings_of_a_narrower_student_resumes_with_the_same_bits(tiny_run, monkeypatch, caplog):
    from tests.tiny.test_training import Interrupted, identical

    changes = {
        **BI,
        "student": {**STUDENT, "layers": None, "backbone": {**BACKBONE, "width": 16, "layers": 1}},
        "objectives": {
            "score_match": None,
            "embedding_match": {"teacher": "bi", "projection": "drop"},
            "hidden_match": {"teacher": "bi", "embeddings": True, "schedule": {"from": 1.0, "to": 0.5}},
            "relation_match": {"teacher": "bi", "heads": 4},
        },
        "training": {
            "epochs": 2,
            "dropout": 0.1,
            "checkpoint_seconds": 0,
            "evaluations_per_epoch": 2,
            "micro_batch": 8,
        },
    }
    undisturbed = student_of(tiny_run("undisturbed", **changes))
    run = tiny_run("disturbed", **changes)
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        Interrupted(patch, 3)
        student_of(run)
    assert identical(student_of(run), undisturbed)
    rows = history(undisturbed)
    for name in ("embedding_match", "hidden_match", "relation_match"):
        assert rows[-1][name] < rows[0][name]
    assert list(read_card(undisturbed).parents) == ["built", "bi"]
    assert load_model(undisturbed).get_embedding_dimension() == 16  # no projection is part of it
    with caplog.at_level("INFO"):
        train_student(run)
    assert f"{run.student} is finished" in caplog.text


def test_layers_alone_need_no_cache(tiny_run):
    run = tiny_run(**BI, objectives={"score_match": None, **ON_LAYERS})
    rows = history(student_of(run))
    assert set(rows[0]) == {"step", "seconds", "hidden_match", "relation_match", "learning_rate", "grad_norm"}
    assert min(rows[0]["hidden_match"], rows[0]["relation_match"]) > 0
    assert not run.signals("bi").exists()
    inputs = training_inputs(run, "student", run.recipe.objectives)
    assert inputs["live"] == {"bi": {"max_length": 64, "precision": "fp32"}}


def test_a_cross_encoder_reads_pairs_with_its_teacher(tiny_run):
    on_layers = {name: {**term, "teacher": "cross"} for name, term in ON_LAYERS.items()}
    rows = history(student_of(tiny_run(data=SHORT, objectives=on_layers)))
    assert all(row[name] > 0 for row in rows for name in ("score_match", *on_layers))


def test_an_adapted_encoder_teaches_its_layers(tiny_run):
    teachers = {"cross": None, "bi": {"kind": "mlm", "backbone": BACKBONE, "max_length": 64}}
    run = tiny_run(**{**BI, "teachers": teachers}, objectives={"score_match": None, **ON_LAYERS})
    rows = history(student_of(run))
    assert rows[-1]["relation_match"] < rows[0]["relation_match"]


def test_int8_recovery_leaves_them_out(tiny_run, caplog):
    from students.export.recovery import recover_student

    run = tiny_run(
        **BI,
        objectives={"score_match": None, **ON_LAYERS},
        export={"precisions": ["int8"], "recover": {"steps": 2}, "calibration_pairs": 10},
    )
    student_of(run)
    with caplog.at_level("INFO"):
        folder = recover_student(run)
    assert "hidden_match and relation_match are left out" in caplog.text
    assert set(history(folder)[0]) == {"step", "seconds", "float_student", "learning_rate", "grad_norm"}


def test_a_vocabulary_of_its_own_is_refused_before_training(tiny_run):
    vocabulary = {"train": {"size": 300}}
    run = tiny_run(
        **{**BI, "student": {**STUDENT, "vocabulary": vocabulary}}, objectives={"score_match": None, **ON_LAYERS}
    )
    with pytest.raises(BadInput, match="student: of .* texts teacher bi reads other tokens.*work across tokenizers"):
        student_of(run)
    assert not run.student.exists()


def test_a_trimmed_vocabulary_is_not(tiny_run):
    vocabulary = {"trim": {"size": 400}}
    run = tiny_run(
        **{**BI, "student": {**STUDENT, "vocabulary": vocabulary}}, objectives={"score_match": None, **ON_LAYERS}
    )
    assert len(load_model(student_of(run)).tokenizer) < 500
    assert history(run.student)[0]["relation_match"] > 0


def test_what_does_not_fit_is_one_line_and_the_doctor_says_it_too(tmp_path, capsys, caplog):
    changes = {**BI, "objectives": {"score_match": None, "relation_match": {"teacher": "bi"}}}
    recipe = write_recipe(tmp_path, **changes)
    from distill.recipe.reading import load_recipe
    from distill.run import Run

    run = Run(load_recipe(recipe))
    train_teachers(run)
    early = [finding for finding in diagnose(run).findings if finding.check == "layers"]
    assert [(finding.level, finding.says) for finding in early] == [
        ("note", "layers were not looked at: the student is not there yet")
    ]
    build_student(run)
    assert main(["train-student", str(recipe)]) == 2
    line = "objectives.relation_match.heads: 48 does not divide the widths of queries, keys and values (32); set one of 1, 2, 4, 8, 16, 32"
    assert line in " ".join(capsys.readouterr().err.split())
    assert not run.student.exists()
    (found,) = [finding for finding in diagnose(run).findings if finding.check == "layers"]
    assert (found.level, found.says) == ("problem", line)
