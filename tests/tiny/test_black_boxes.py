"""Teachers that are no model, from the recipe to the report: a file of embeddings, a file of scores."""

import hashlib
import json
import random

import numpy as np
import pytest

from distill.errors import BadInput
from distill.recipe.reading import validated
from distill.recipe.schema import Recipe
from tests.conftest import BACKBONE, make_run, merge

WIDTH = 12
STUDENT = {"kind": "bi_encoder", "backbone": BACKBONE, "layers": None, "max_length": 64, "control": False}
QUICK = {
    "training": {"max_steps": 2},
    "signals": {"allow_unrelated": True},
    "export": {"precisions": []},
    "benchmark": {"seconds": 0.05, "max_seconds": 0.1, "throughput_pairs": 24, "bootstrap": 20, "baselines": {}},
}


def vector_of(text):
    """A sum of random vectors of its words: texts with words in common are near."""
    words = [random.Random(hashlib.sha256(word.encode()).hexdigest()) for word in text.split()]
    return np.sum([[rng.gauss(0, 1) for _ in range(WIDTH)] for rng in words], axis=0)


def all_texts(run):
    split = run.split
    parts = (split.train, split.validation, split.evaluation)
    return list(dict.fromkeys(text for pairs in parts for text in (*pairs.queries, *pairs.documents)))


def all_pairs(run):
    parts = (run.split.train, run.split.validation, run.split.evaluation)
    return list(dict.fromkeys(pair for pairs in parts for pair in zip(pairs.queries, pairs.documents, strict=True)))


def score_of(query, document):
    one, other = vector_of(query), vector_of(document)
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)) / 2 + 0.5


def with_vectors(folder, **changes):
    """A run whose teacher is a file of embeddings."""
    path = folder / "vectors.npz"
    teachers = {"cross": None, "use": {"kind": "file", "path": str(path), "gives": "embeddings"}}
    base = {
        "teachers": teachers,
        "student": STUDENT,
        "objectives": {"score_match": None, "embedding_match": {"teacher": "use"}},
    }
    run = make_run(folder / "run", **merge(merge(QUICK, base), changes))
    if not path.exists():
        texts = all_texts(run)
        np.savez(path, text=np.array(texts), vector=np.array([vector_of(text) for text in texts]))
    return run


def with_scores(folder, **changes):
    """A run whose teacher is a file of scores."""
    path = folder / "scores.jsonl"
    teachers = {"cross": None, "api": {"kind": "file", "path": str(path), "gives": "scores"}}
    student = {"kind": "cross_encoder", "backbone": BACKBONE, "layers": None, "head": [8]}
    base = {"teachers": teachers, "student": student, "objectives": {"score_match": {"teacher": "api", "loss": "bce"}}}
    run = make_run(folder / "run", **merge(merge(QUICK, base), changes))
    if not path.exists():
        rows = [
            {"query": query, "document": document, "score": score_of(query, document)}
            for query, document in all_pairs(run)
        ]
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return run


def go(run):
    from recipes._stages import every_stage

    for stage in every_stage():
        stage(run)
    return json.loads((run.report / "benchmark.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_file_of_embeddings_teaches(tmp_path):
    run = with_vectors(tmp_path)
    report = go(run)
    rows = {row["name"]: row for row in report["rows"]}
    teacher, student = rows["use"], rows["student"]
    assert teacher["kind"] == "file" and teacher["parameters"] is None and teacher["latency_ms"] is None
    assert teacher["metrics"] and student["speedup"] is None and student["retention"]
    assert any("use is no model here: embeddings out of vectors.npz" in note for note in report["notes"])
    page = (run.report / "index.html").read_text(encoding="utf-8")
    assert "answers from a file" in page and "parameters unknown" in page
    card = (run.teacher("use") / "README.md").read_text(encoding="utf-8")
    assert "Parameters, size and latency are unknown" in card and "load(" not in card
    assert "use is no model here" in (run.student / "README.md").read_text(encoding="utf-8")

    from distill.runtime import load
    from distill.scorers.opening import open_scorer

    assert load(run.student).embedding_width == WIDTH
    with pytest.raises(BadInput, match="is a teacher of kind file: no model"):
        open_scorer(run.teacher("use"))
    # another run of the same recipe does nothing, another file is another teacher
    go(with_vectors(tmp_path))
    with np.load(tmp_path / "vectors.npz") as stored:
        np.savez(tmp_path / "vectors.npz", text=stored["text"], vector=stored["vector"] * 2)
    with pytest.raises(BadInput, match=r"was made from something else \(teacher.files"):
        go(with_vectors(tmp_path))


def test_a_file_of_scores_teaches(tmp_path):
    from distill.evaluation.benchmark import score_row, teacher_row
    from students import train_student
    from teachers import cache_signals, train_teachers

    run = with_scores(tmp_path)
    for stage in (train_teachers, cache_signals, train_student):
        stage(run)
    scored = score_row(run, teacher_row(run, "api"), run.split.evaluation)
    assert scored.n_parameters is None
    assert score_row(run, teacher_row(run, "api"), run.split.evaluation).n_parameters is None  # as it was kept
    pairs = zip(run.split.evaluation.queries, run.split.evaluation.documents, strict=True)
    np.testing.assert_allclose(scored.unit, [score_of(*pair) for pair in pairs], atol=1e-6)


def test_signals_of_a_file_are_those_of_the_file_in_unit_length_and_as_logits(tmp_path):
    from distill.signals import CachedSignals, SignalCache
    from teachers import cache_signals, train_teachers

    (tmp_path / "v").mkdir()
    (tmp_path / "s").mkdir()
    vectors, scores = with_vectors(tmp_path / "v"), with_scores(tmp_path / "s")
    for run in (vectors, scores):
        train_teachers(run)
        cache_signals(run)
    source = CachedSignals(SignalCache(vectors.signals("use"), vectors.signal_identity("use")))
    text = vectors.split.train.queries[3]
    given = vector_of(text)
    np.testing.assert_allclose(
        source.embeddings([text], [0])(np.array([0]))[0], given / np.linalg.norm(given), atol=1e-6
    )
    source = CachedSignals(SignalCache(scores.signals("api"), scores.signal_identity("api")))
    query, document = scores.split.train.queries[3], scores.split.train.documents[3]
    unit = score_of(query, document)
    np.testing.assert_allclose(source.scores([query], [document])[0], np.log(unit / (1 - unit)), atol=1e-5)
    assert source.kind == "cross_encoder"


def test_a_file_that_does_not_cover_the_recipe_is_refused_before_anything_is_trained(tmp_path):
    from teachers import train_teachers

    run = with_vectors(tmp_path)
    texts = all_texts(run)
    held = set(run.split.evaluation.queries)
    kept = [text for text in texts if text not in held]
    np.savez(tmp_path / "vectors.npz", text=np.array(kept), vector=np.array([vector_of(text) for text in kept]))
    with pytest.raises(BadInput) as problem:
        train_teachers(with_vectors(tmp_path))
    message = str(problem.value)
    assert (
        "\n" not in message
        and f"no answer to {len(held)} of the" in message
        and f"; evaluation {len(held)})" in message
    )
    assert "or leave this teacher out of the report (benchmark.teachers)" in message
    assert not run.teacher("use").exists()
    train_teachers(with_vectors(tmp_path, benchmark={"teachers": []}))

    np.savez(
        tmp_path / "vectors.npz", text=np.array(texts[1:]), vector=np.array([vector_of(text) for text in texts[1:]])
    )
    with pytest.raises(BadInput, match=r"no answer to 1 of the .*; training 1\), as .*; add them to the file$"):
        train_teachers(make_like(tmp_path, "another"))


def test_exchanged_columns_are_said(tmp_path):
    from teachers import train_teachers

    with_scores(tmp_path)
    exchanged = {"columns": {"query": "document", "document": "query"}}
    run = with_scores(tmp_path, teachers={"api": exchanged})
    with pytest.raises(
        BadInput, match=r"no answer to (\d+) of the \1 pairs .*; \1 of them stand there the other way round"
    ) as problem:
        train_teachers(run)
    assert "set columns.query query and columns.document document" in str(problem.value)


def make_like(folder, name):
    run = with_vectors(folder)
    return type(run)(run.recipe.model_copy(update={"output_dir": str(folder / name)}))


def test_unlabelled_and_parallel_texts_are_asked_for(tmp_path):
    from teachers.black_boxes import items_of

    (tmp_path / "texts.tsv").write_text("text\none lone text\nanother\n")
    (tmp_path / "parallel.tsv").write_text("en\tko\na source\t한 문장\n", encoding="utf-8")
    data = {
        "unlabelled": [{"path": str(tmp_path / "texts.tsv")}],
        "parallel": [{"path": str(tmp_path / "parallel.tsv")}],
    }
    run = with_vectors(tmp_path, data=data)
    parts = items_of(run, "use")
    assert parts["unlabelled"] == [(0, "one lone text"), (0, "another"), (0, "a source")]
    evaluation = {*run.split.evaluation.queries, *run.split.evaluation.documents}
    assert {text for _, text in parts["evaluation"]} == evaluation


def test_the_doctor_looks_at_a_file_before_and_after(tmp_path):
    from teachers import cache_signals, train_teachers
    from teachers.doctor import diagnose

    run = with_vectors(tmp_path)
    lines = [finding.line for finding in diagnose(run, n_pairs=20).findings]
    assert any("teacher use: no model here: embeddings out of vectors.npz" in line for line in lines)
    assert any("no signals are cached yet" in line for line in lines)
    train_teachers(run)
    cache_signals(run)
    diagnosis = diagnose(run, n_pairs=20)
    assert not any("no signals are cached yet" in finding.line for finding in diagnosis.findings)
    np.savez(tmp_path / "vectors.npz", text=np.array(["x", "y"]), vector=np.eye(2))
    problems = [finding.line for finding in diagnose(run, n_pairs=20).findings if finding.level == "problem"]
    assert any("has no answer to" in line for line in problems)


REFUSED = {
    "signals.live": {"signals": {"live": True}},
    "student.asymmetric: use is no model": {"student": {"asymmetric": {"side": "query"}}},
    "plan.teacher: use is of kind file, no model to cut": {"plan": {"teacher": "use"}},
    "cascade.teacher: use is of kind file, no model to ask": {"cascade": {"teacher": "use"}},
    "from: use is of kind file, no model to find pairs with": {"data": {"unlabelled_pairs": [{"from": "use"}]}},
    "no model to read paragraphs with": {"benchmark": {"baselines": {"p": {"kind": "paragraphs", "model": "use"}}}},
    "teachers.bi.backbone.teacher: use is of kind file": {
        "teachers": {"bi": {"kind": "bi_encoder", "backbone": {"teacher": "use"}}}
    },
}


@pytest.mark.parametrize("says", REFUSED)
def test_no_model_is_asked_of_a_file(tmp_path, says):
    with pytest.raises(ValueError, match=says.replace(".", r"\.")):
        with_vectors(tmp_path, **REFUSED[says])


def test_no_student_is_cut_out_of_a_file(tmp_path):
    raw = with_vectors(tmp_path).recipe.model_dump(mode="json")
    raw["student"]["backbone"] = {"teacher": "use"}
    with pytest.raises(
        BadInput, match=r"student.backbone.teacher: use is of kind file, no model to start from; .*: none"
    ):
        validated(Recipe, raw, "r.yaml")


def test_problems_of_a_file_teacher_are_named_by_their_place(tmp_path):
    raw = with_vectors(tmp_path).recipe.model_dump(mode="json")
    raw["teachers"]["use"] = {"kind": "file", "pth": "x.npz", "gives": "vectors"}
    with pytest.raises(BadInput) as problem:
        validated(Recipe, raw, "r.yaml")
    lines = str(problem.value).split("\n  ")
    assert "teachers.use.path: missing" in lines and "teachers.use.pth: unknown key; did you mean 'path'?" in lines
    assert "teachers.use.gives: got 'vectors'; it should be 'scores' or 'embeddings'" in lines and len(lines) == 4
    raw["teachers"]["use"] = {"kind": "fil", "backbone": "x"}
    with pytest.raises(BadInput, match=r"teachers.use.kind: got 'fil'; .*'cross_encoder', 'bi_encoder', 'mlm'.*'file'"):
        validated(Recipe, raw, "r.yaml")


def test_scores_are_no_embeddings(tmp_path):
    with pytest.raises(ValueError, match="api gives scores of pairs; this term needs a teacher that gives embeddings"):
        with_scores(tmp_path, student=STUDENT, objectives={"score_match": None, "embedding_match": {"teacher": "api"}})


def test_a_cascade_of_a_file_is_refused_in_one_line(tmp_path):
    from distill.evaluation.cascade_dial import _models

    with pytest.raises(BadInput, match="no model that a cascade could ask"):
        _models(with_vectors(tmp_path))


def test_a_plan_knows_the_width_of_a_file(tmp_path):
    from students.plan.shapes import Candidates

    assert Candidates(with_vectors(tmp_path), tmp_path / "plan")._output_width == WIDTH


def test_a_teacher_whose_threshold_is_taken_over_answers_to_the_validation_pairs(tmp_path):
    from teachers.black_boxes import items_of

    assert "validation" not in items_of(with_vectors(tmp_path), "use")
    point = {"calibration": {"kind": "platt", "threshold": {"value": 0.5}}}
    parts = items_of(with_vectors(tmp_path, student=point), "use")
    assert {text for _, text in parts["validation"]} >= set(with_vectors(tmp_path).split.validation.queries)


def test_signals_of_a_file_need_no_training_before(tmp_path):
    from teachers import cache_signals

    run = with_vectors(tmp_path)
    cache_signals(run)
    assert (run.teacher("use") / "scorer.json").is_file() and any(run.signals("use").iterdir())
    other = with_vectors(tmp_path, output_dir=str(tmp_path / "other"))
    np.savez(tmp_path / "vectors.npz", text=np.array(["a"]), vector=np.ones((1, 3)))
    with pytest.raises(BadInput, match="has no answer to"):
        cache_signals(other)
    assert not other.teacher("use").exists()
