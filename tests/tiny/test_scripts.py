"""Teachers whose embeddings are learned of texts in some scripts alone."""

import numpy as np
import pytest
import torch

from distill.errors import BadInput, JobFailed
from distill.runtime import load
from distill.signals import SignalCache
from distill.training.fitting import _build_step, _load_pairs
from distill.training.learnable import check_pairs
from distill.training.read_texts import ReadScripts, are_read
from students import build_student, train_student
from students.train import training_inputs, training_job
from teachers import cache_signals, train_teachers
from tests.conftest import BACKBONE, make_run, merge
from tests.tiny.test_black_boxes import all_texts

MATCH = {"teachers": {"one": 3, "two": 1}}


def run_of(folder, n_hangul=None, **changes):
    """Two files of vectors; that of teacher `one` holds the texts in Latin letters alone."""
    teachers = {
        name: {"kind": "file", "path": str(folder / f"{name}.npz"), "gives": "embeddings"} for name in ("one", "two")
    }
    teachers["one"]["scripts"] = "latin"
    base = {
        "teachers": {"cross": None, **teachers},
        "student": {"kind": "bi_encoder", "backbone": BACKBONE, "layers": None, "control": False},
        "objectives": {"score_match": None, "embedding_match": MATCH},
        "training": {"max_steps": 2},
        "benchmark": {"teachers": ["two"]},
    }
    run = make_run(folder / "run", **merge(base, changes))
    texts = all_texts(run)
    read = are_read(texts, ["latin"])
    assert 0 < read.sum() < len(texts)
    for name, width, chosen in (("one", 6, read), ("two", 10, np.ones(len(texts), dtype=bool))):
        vectors = np.random.default_rng(width).normal(size=(len(texts), width))
        np.savez(folder / f"{name}.npz", text=np.array(texts)[chosen], vector=vectors[chosen])
    return run


def step_of(run):
    objectives = run.recipe.objectives
    job = training_job(run, "student", objectives, training_inputs(run, "student", objectives))
    return job, _build_step(job), _load_pairs(run, job, False)[0]


@pytest.mark.integration
@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"student": {"dimensions": 8}}, marks=pytest.mark.slow),
        {"student": {"dimensions": 8}, "objectives": {"matryoshka": [4]}},
        {"objectives": {"embedding_match": {**MATCH, "combine": "each", "projection": "drop"}}},
        pytest.param({"objectives": {"embedding_match": {**MATCH, "loss": "mse"}}}, marks=pytest.mark.slow),
        {"objectives": {"embedding_match": None, "similarity": {"teacher": "one"}, "rkd": {"teacher": "two"}}},
    ],
)
def test_a_student_learns_of_each_teacher_what_it_reads(tmp_path, caplog, changes):
    caplog.set_level("INFO")
    run = run_of(tmp_path, **changes)
    for stage in (train_teachers, cache_signals, train_student):
        stage(run)
    _, _, units = step_of(run)
    texts = list(dict.fromkeys(units.teacher_texts))
    n_read = int(are_read(texts, ["latin"]).sum())
    assert f"one is trained on {n_read} of {len(texts)} texts, those in latin" in caplog.text
    one = SignalCache(run.signals("one"), run.signal_identity("one")).folder
    assert f'"embeddings": {n_read}' in (one / "manifest.json").read_text(encoding="utf-8")
    assert np.isfinite(load(run.student).encode(texts[:3])).all()
    if "dimensions" in changes.get("student", {}):
        assert load(run.student).embedding_width == 8


def test_the_loss_is_that_of_what_is_known(tmp_path):
    run = run_of(tmp_path)
    for stage in (train_teachers, cache_signals, build_student):
        stage(run)
    job, step, units = step_of(run)
    rows = np.arange(len(units))
    batch = units.batch(rows, totals=units.counts(rows))
    embeddings = torch.from_numpy(np.random.default_rng(0).normal(size=(len(batch.order), 16)).astype(np.float32))
    loss = float(step.losses_of(batch, embeddings)["embedding_match"])
    told = batch.teacher_embeddings.numpy()
    by_text = []
    for own, teacher in zip(embeddings.numpy().astype(np.float64), told.astype(np.float64), strict=True):
        known = slice(0, 16) if np.isfinite(teacher[0]) else slice(6, 16)
        own, teacher = own[known], teacher[known]
        cosine = own @ teacher / np.linalg.norm(own) / np.linalg.norm(teacher)
        by_text.append((1.0 if known.start == 0 else 0.25) * (1 - cosine))
    assert {bool(np.isfinite(row[0])) for row in told} == {True, False}
    assert loss == pytest.approx(np.mean(by_text), abs=1e-6)
    # the same, whatever the passes
    halves = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    place, parts = 0, []
    for half in halves:
        part = units.batch(half, totals=units.counts(rows))
        n = len(part.order)
        parts.append(float(step.losses_of(part, embeddings[place : place + n])["embedding_match"]))
        place += n
    assert place == len(embeddings) and sum(parts) == pytest.approx(loss, abs=1e-6)
    assert job.some_unread


def test_a_text_that_is_read_must_have_an_answer(tmp_path):
    run = run_of(tmp_path)
    texts = [text for text in all_texts(run) if are_read([text], ["latin"])[0]]
    kept = sorted(set(texts) - {run.split.train.queries[0], *run.split.train.documents[:40]})
    np.savez(tmp_path / "one.npz", text=np.array(kept), vector=np.ones((len(kept), 6)) + np.arange(len(kept))[:, None])
    with pytest.raises(BadInput, match=r"teacher one: .* no answer to \d+ of"):
        train_teachers(run)


def test_nan_of_a_text_that_is_read_is_not_taken_for_one_that_is_not():
    class Source:
        kind, width = "bi_encoder", 2

        def embeddings(self, texts, roles):
            return lambda numbers: np.full((len(numbers), 2), np.nan, dtype=np.float32)

    read = ReadScripts(Source(), "one", ("latin",)).embeddings(["가", "a"], [0, 0])
    assert np.isnan(read(np.array([0]))).all()
    with pytest.raises(JobFailed, match="teacher one gives NaN or infinity"):
        read(np.array([0, 1]))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"teachers": {"one": {"scripts": ["klingon"]}}}, "Input should be 'latin', 'hangul'"),
        ({"teachers": {"one": {"scripts": []}}}, "at least 1 item"),
        ({"objectives": {"embedding_match": {"teachers": None, "teacher": "two"}}}, "changes nothing here"),
        ({"objectives": {"cosent": {"teacher": "one"}}}, r"objectives.cosent learns its scores"),
        (
            {"objectives": {"labels": {"loss": "infonce", "guide": {"teacher": "one"}}}},
            "a guide of objectives.labels has to read every text",
        ),
    ],
)
def test_scripts_where_every_text_needs_an_answer(tmp_path, changes, problem):
    with pytest.raises((BadInput, ValueError), match=problem):
        run_of(tmp_path, **changes)


def test_a_teacher_that_reads_none_of_the_texts_is_named(tmp_path):
    run = run_of(tmp_path, teachers={"one": {"scripts": ["thai"]}})
    with pytest.raises(BadInput, match="teachers.one.scripts: no text of the recipe is in thai"):
        train_teachers(run)


def test_a_teacher_may_read_pairs_without_labels_alone(tmp_path):
    (tmp_path / "thai.csv").write_text("query,document\nสวัสดี,ลาก่อน\n", encoding="utf-8")
    data = {"unlabelled_pairs": [{"path": str(tmp_path / "thai.csv")}]}
    check_pairs(
        run_of(tmp_path, teachers={"one": {"scripts": ["latin", "thai"]}, "two": {"scripts": ["thai"]}}, data=data)
    )


@pytest.mark.integration
def test_a_later_stage_keeps_the_axes_of_both_teachers(tmp_path):
    stages = {
        "general": {"objectives": {"embedding_match": MATCH}},
        "task": {"objectives": {"cosent": {}, "embedding_match": MATCH}},
    }
    run = run_of(tmp_path, student={"dimensions": 8}, objectives={"embedding_match": None}, stages=stages)
    for stage in (train_teachers, cache_signals, train_student):
        stage(run)
    job, step, _ = step_of(run)
    assert step.axes.shape == (16, 8) and job.some_unread and step.projection is None
    assert load(run.student).embedding_width == 8
