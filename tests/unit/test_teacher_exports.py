"""Which exports the matched teacher gets, and the two factors of × teacher: worked by hand."""

from shutil import copytree

import numpy as np
import pytest

from distill.errors import BadInput
from distill.evaluation import cascade_dial
from distill.evaluation.benchmark import BenchmarkEntry, Scored
from distill.evaluation.cascade_dial import _models
from distill.evaluation.teacher_exports import (
    keep_refusal,
    refusal,
    teacher_export_notes,
    wanted_teacher_exports,
    with_split,
)
from distill.recipe.schema import Recipe
from distill.report.content import BenchmarkResults
from distill.report.tables import measuring_ended, pairs_measured
from distill.report.words import headline, kept
from distill.run import Run
from tests.conftest import BI_TEACHER, make_run

FRESH = {
    "kind": "bi_encoder",
    "backbone": {"tokenizer": "wordpiece", "vocabulary": 300, "layers": 1, "width": 16, "heads": 1},
}


def row(name, role, runtime, precision, per_second, **more):
    return {
        "name": name,
        "role": role,
        "kind": "bi_encoder",
        "runtime": runtime,
        "precision": precision,
        "metrics": {"roc_auc": {"value": 0.9}},
        "throughput_pairs_per_s": per_second,
        "size_mb": 10.0,
        **more,
    }


ROWS = [
    row("bi", "teacher", "torch", "fp32", 10.0),
    row("bi (fp32)", "teacher_export", "openvino", "fp32", 30.0),
    row("bi (int8)", "teacher_export", "openvino", "int8", 40.0),
    row("student", "student", "torch", "fp32", 50.0),
    row("student (fp32)", "export", "openvino", "fp32", 120.0),
    row("student (int8)", "export", "openvino", "int8", 240.0),
]


def test_each_export_is_held_against_the_teacher_in_the_same_runtime_and_precision():
    done = {one["name"]: one.get("speedup_split") for one in with_split(ROWS)}
    assert done["student (fp32)"] == {"beside": "bi (fp32)", "model": 4.0, "runtime": 3.0, "same": True}
    assert done["student (int8)"] == {"beside": "bi (int8)", "model": 6.0, "runtime": 4.0, "same": True}
    assert done["student"] is None and done["bi (fp32)"] is None


def test_where_the_same_is_missing_the_nearest_is_named():
    rows = [*ROWS[:2], ROWS[5], row("student (onnx int8)", "export", "onnx", "int8", 60.0)]
    done = {one["name"]: one.get("speedup_split") for one in with_split(rows)}
    assert done["student (int8)"] == {"beside": "bi (fp32)", "model": 8.0, "runtime": 3.0, "same": False}
    assert done["student (onnx int8)"]["beside"] == "bi (fp32)" and not done["student (onnx int8)"]["same"]
    assert with_split([ROWS[0], ROWS[5]]) == [ROWS[0], ROWS[5]]


def test_headline_and_sentences_show_both_factors():
    content = BenchmarkResults.of({"rows": with_split(ROWS), "primary_metric": "roc_auc"})
    assert headline(content) == (
        "student (int8): 100.0\u00a0% of the teacher’s ROC-AUC above chance at 24× its speed "
        "(6.0 from the smaller model × 4.0 from the runtime) and 1.0× its size"
    )
    exported = next(one for one in content.rows if one["name"] == "bi (int8)")
    assert kept(exported, content) == (
        "keeps 100.0\u00a0% of the teacher’s ROC-AUC above chance, at 4.0× its speed and 1.0× its size"
    )
    beside = BenchmarkResults.of({"rows": with_split([*ROWS[:2], ROWS[5]]), "primary_metric": "roc_auc"})
    assert "8.0 from the smaller model × 3.0 from the runtime, beside bi (fp32)" in headline(beside)


def test_pairs_are_said_once_where_they_are_the_same_for_all():
    same = [{**one, "latency_pairs": 24, "throughput_pairs": 64} for one in ROWS]
    assert pairs_measured(BenchmarkResults.of({"rows": same})) == (
        "Every row was measured over the same pairs: latency over 24 and throughput over 64."
    )
    other = [{**same[0], "latency_pairs": 8}, same[3]]
    assert pairs_measured(BenchmarkResults.of({"rows": other})) == (
        "bi (fp32): latency over 8 and throughput over 64. student (fp32): latency over 24 and throughput over 64."
    )
    assert pairs_measured(BenchmarkResults.of({"rows": ROWS})) == ""


@pytest.mark.parametrize(
    ("ended_by", "words"),
    [
        (
            "interval",
            "which ended with every interval within 10.0\u00a0% of its value. The widest is 8.0\u00a0% of its value (bi).",
        ),
        (
            "seconds",
            "which the limit of time ended before every interval was within 10.0\u00a0% of its value. The widest",
        ),
    ],
)
def test_what_ended_the_measuring_is_said(ended_by, words):
    said = {"rounds": 7, "seconds": 42.0, "ended_by": ended_by, "interval": 0.1, "widest": 0.08, "widest_row": "bi"}
    assert words in measuring_ended(BenchmarkResults.of({"rows": ROWS, "measuring": said}))
    assert measuring_ended(BenchmarkResults.of({"rows": ROWS})) == ""


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, [("openvino", "fp32"), ("openvino", "int8")]),
        ({"export": {"precisions": ["int8_weights", "bf16"]}}, [("openvino", "bf16")]),
        (
            {"export": {"formats": ["openvino", "onnx"], "precisions": ["bf16", "int8"]}},
            [("openvino", "bf16"), ("openvino", "int8"), ("onnx", "int8")],
        ),
        ({"benchmark": {"teacher_exports": ["fp32"]}}, [("openvino", "fp32")]),
        ({"benchmark": {"teacher_exports": []}}, []),
        ({"benchmark": {"teachers": []}}, []),
    ],
)
def test_the_teacher_gets_what_the_student_has(tmp_path, changes, wanted):
    run = make_run(tmp_path, **changes)
    assert wanted_teacher_exports(run) == wanted


def test_what_is_not_there_is_said_with_its_reason(tmp_path):
    run = make_run(tmp_path)
    assert teacher_export_notes(run) == [
        "There is no row of the teacher cross in openvino fp32: the stage export of this recipe has not made it.",
        "There is no row of the teacher cross in openvino int8: the stage export of this recipe has not made it.",
    ]
    folder = run.teacher_export("cross", "int8")
    keep_refusal(folder, {"a": 1}, "the graph has no result")
    assert refusal(folder, {"a": 1}) == "the graph has no result" and refusal(folder, {"a": 2}) is None
    assert teacher_export_notes(run)[1].endswith("int8: the graph has no result.")
    (without,) = teacher_export_notes(make_run(tmp_path, benchmark={"teacher_exports": []}))
    assert "measured in torch alone (benchmark.teacher_exports leaves it out)" in without
    assert teacher_export_notes(make_run(tmp_path, export={"precisions": []})) == []


def test_a_full_disk_is_no_reason_to_leave_an_export_out(trained, tmp_path, monkeypatch):
    from students.export import teacher as exporting

    run = make_run(tmp_path / "run", teachers={"bi": BI_TEACHER}, export={"precisions": ["fp32"]})
    copytree(trained.folder, run.folder)
    target = run.teacher_export("cross", "fp32")

    def fails(error):
        def export(*_, **__):
            raise error

        monkeypatch.setattr(exporting, "export_model", export)
        exporting.export_teacher(run)

    with pytest.raises(RuntimeError, match="iostream"):
        fails(RuntimeError("basic_ios::clear: iostream error"))
    with pytest.raises(OSError, match="Input/output"):
        fails(OSError(5, "Input/output error"))
    fails(MemoryError())
    assert refusal(target) is None
    fails(ValueError("no rule for this operator\nand its texts"))
    assert refusal(target) == "no rule for this operator"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmark": {"seconds": 10, "max_seconds": 5}}, r"max_seconds: 5 is less than benchmark\.seconds, 10"),
        (
            {"benchmark": {"teacher_exports": ["int8_dynamic"]}},
            "teacher_exports: int8_dynamic does not come in openvino",
        ),
    ],
)
def test_settings_that_contradict_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        make_run(tmp_path, **changes)


def test_a_recipe_without_a_student_exports_no_teacher(tmp_path):
    base = make_run(tmp_path).recipe.model_dump(mode="json") | {"student": None}
    base["objectives"] = {}
    assert wanted_teacher_exports(Run(Recipe.model_validate(base))) == []
    base["benchmark"]["teacher_exports"] = ["fp32"]
    with pytest.raises(ValueError, match="there is none; leave it out"):
        Recipe.model_validate(base)


def test_a_cascade_without_a_teacher_or_with_one_side_is_refused(tmp_path):
    stated = make_run(tmp_path / "labels", student=FRESH).recipe.model_dump(mode="json")
    with pytest.raises(BadInput, match="has no teacher to compare the student with"):
        _models(Run(Recipe.model_validate({**stated, "teachers": {}, "objectives": {"labels": {}}})))
    match = {"embedding_match": {"teacher": "bi"}}
    one_side = {"kind": "bi_encoder", "backbone": {"teacher": "bi"}, "asymmetric": {"side": "query"}}
    run = make_run(tmp_path / "one", teachers={"bi": BI_TEACHER}, objectives=match, student=one_side)
    with pytest.raises(BadInput, match="reads one side of pairs"):
        _models(run)


def test_a_cascade_of_a_model_without_finite_scores_is_refused(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    models = [BenchmarkEntry(name, name, tmp_path, None, None, None) for name in ("student", "teacher")]
    monkeypatch.setattr(cascade_dial, "_models", lambda _: models)
    monkeypatch.setattr(cascade_dial, "too_few_pairs", lambda _: None)
    monkeypatch.setattr(
        cascade_dial, "score_row", lambda *_: Scored(np.full(len(_[2]), np.nan), np.zeros(len(_[2])), 1)
    )
    with pytest.raises(BadInput, match="student: .* scores are not finite.*; a cascade needs two models"):
        cascade_dial.measure_cascade(run)
