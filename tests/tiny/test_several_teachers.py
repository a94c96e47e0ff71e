"""Several teachers in one term, from the recipe to the student and the table of where they disagree."""

import csv
import json

import numpy as np
import pytest

from distill.errors import BadInput
from distill.signals import CachedSignals, SignalCache
from students import train_student
from teachers import cache_signals, train_teachers
from teachers.doctor import diagnose, write_diagnosis
from tests.conftest import BACKBONE, make_run, merge
from tests.tiny.test_black_boxes import all_texts


def run_of(folder, **changes):
    """Teachers: grades from 0 to 1, and narrow cosines; a small cross-encoder learns their mixture."""
    teachers = {
        "cross": None,
        "graded": {"kind": "file", "path": str(folder / "graded.jsonl"), "gives": "scores"},
        "use": {"kind": "file", "path": str(folder / "use.jsonl"), "gives": "scores", "scale": "cosine"},
    }
    base = {
        "data": {"validation_share": 0.35},
        "teachers": teachers,
        "student": {"kind": "cross_encoder", "backbone": BACKBONE, "layers": None, "head": [8]},
        "objectives": {"score_match": {"teacher": None, "teachers": {"graded": 0.7, "use": 0.3}, "loss": "bce"}},
        "training": {"max_steps": 2},
        "signals": {"allow_unrelated": True},
    }
    run = make_run(folder / "run", **merge(base, changes))
    if not (folder / "use.jsonl").exists():
        labels = {}
        for part in (run.split.train, run.split.validation, run.split.evaluation):
            labels |= zip(zip(part.queries, part.documents, strict=True), part.labels.tolist(), strict=True)
        rng = np.random.default_rng(0)
        for name, low, slope, noise in (("graded", 0.0, 0.6, 0.4), ("use", 0.7, 0.1, 0.1)):
            rows = [(pair, low + slope * label + noise * rng.random()) for pair, label in labels.items()]
            lines = [
                json.dumps({"query": q, "document": d, "score": score}, ensure_ascii=False) for (q, d), score in rows
            ]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return run


@pytest.mark.integration
@pytest.mark.parametrize(
    "mixing", [None, {"weights": "fitted", "calibration": "isotonic"}, {"calibration": "temperature"}]
)
def test_a_student_learns_a_mixture(tmp_path, caplog, mixing):
    caplog.set_level("INFO")
    run = run_of(tmp_path, objectives={"score_match": {"mixing": mixing}})
    for stage in (train_teachers, cache_signals, train_student):
        stage(run)
    how = (mixing or {}).get("weights", "fixed")
    assert f"teachers mixed by {how} weights: graded " in caplog.text
    n_validation = len(run.split.validation)
    assert f"on {n_validation} pairs" in caplog.text
    source = CachedSignals(SignalCache(run.signals("use"), run.signal_identity("use")))
    assert len(source.scores(run.split.validation.queries, run.split.validation.documents)) == n_validation
    card = json.loads((run.student / "artefact.json").read_text(encoding="utf-8"))
    assert set(card["parents"]) == {"built", "graded", "use"}
    [shares] = card["details"]["mixtures"].values()
    assert sum(shares.values()) == pytest.approx(1) and (how == "fitted" or shares["graded"] == pytest.approx(0.7))
    train_student(run)  # finished
    with pytest.raises(BadInput, match=r"made from something else .*score_match.teachers.use: 0.3 → 0.5"):
        train_student(run_of(tmp_path, objectives={"score_match": {"mixing": mixing, "teachers": {"use": 0.5}}}))


@pytest.mark.integration
@pytest.mark.parametrize("combine", ["concatenate", "each"])
def test_a_student_learns_the_spaces_of_two_teachers(tmp_path, combine):
    from distill.runtime import load
    from distill.training.fitting import _build_step
    from students.train import training_inputs, training_job

    widths = {"one": 6, "two": 10}
    teachers = {name: {"kind": "file", "path": str(tmp_path / f"{name}.npz"), "gives": "embeddings"} for name in widths}
    match = {
        "teachers": {"one": 3, "two": 1},
        "combine": combine,
        "projection": "keep" if combine == "concatenate" else "drop",
    }
    run = make_run(
        tmp_path / "run",
        **merge(
            {
                "teachers": {"cross": None, **teachers},
                "student": {"kind": "bi_encoder", "backbone": BACKBONE, "layers": None, "control": False},
                "objectives": {"score_match": None, "embedding_match": match},
                "training": {"max_steps": 2},
            },
            {},
        ),
    )
    texts = all_texts(run)
    for name, width in widths.items():
        vectors = np.random.default_rng(width).normal(size=(len(texts), width))
        np.savez(tmp_path / f"{name}.npz", text=np.array(texts), vector=vectors)
    for stage in (train_teachers, cache_signals, train_student):
        stage(run)
    step = _build_step(
        training_job(run, "student", run.recipe.objectives, training_inputs(run, "student", run.recipe.objectives))
    )
    if combine == "concatenate":
        assert load(run.student).embedding_width == 16 and step.projection is None and step.block_widths == ()
    else:
        assert load(run.student).embedding_width == 32
        assert step.projection.out_features == 16 and step.block_widths == (6, 10)


def test_the_doctor_shows_where_teachers_disagree(tmp_path):
    run = run_of(tmp_path)
    lines = [finding.line for finding in diagnose(run, n_pairs=20).findings]
    assert any(
        "mixture graded 0.7 + use 0.3 (fixed, platt): graded and use are not in the run yet" in line for line in lines
    )
    train_teachers(run)
    cache_signals(run)
    diagnosis = diagnose(run, n_pairs=20)
    [finding] = [finding for finding in diagnosis.findings if finding.check == "mixture"]
    assert "weights graded 0.70, use 0.30; the calibrated probabilities differ by 0." in finding.line
    write_diagnosis(diagnosis, tmp_path / "doctor")
    with (tmp_path / "doctor" / "disagreement.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    teachers = ["teacher graded", "teacher use"]
    assert list(rows[0]) == ["training_pair", "query", "document", "label", "mixture", *teachers, "spread"]
    spreads = [float(row["spread"]) for row in rows]
    assert spreads == sorted(spreads, reverse=True) and len(rows) == min(200, len(run.split.train))
    first, train = rows[0], run.split.train
    row = int(first["training_pair"]) - 1
    assert (train.queries[row], train.documents[row]) == (first["query"], first["document"])
    told = [float(first[f"teacher {name}"]) for name in ("graded", "use")]
    assert float(first["mixture"]) == pytest.approx(0.7 * told[0] + 0.3 * told[1], abs=1e-5)
    assert abs(told[0] - told[1]) == pytest.approx(spreads[0], abs=1e-5)


def test_too_few_validation_pairs_are_known_before_anything_is_trained(tmp_path):
    with pytest.raises(BadInput, match="teachers are calibrated on labelled validation pairs before they are mixed"):
        train_teachers(run_of(tmp_path, data={"validation_share": 0.05}))
    assert not (tmp_path / "run" / "teachers").exists()


def test_a_file_must_hold_the_validation_pairs_too(tmp_path):
    run = run_of(tmp_path)
    held = set(zip(run.split.validation.queries, run.split.validation.documents, strict=True))
    lines = (tmp_path / "graded.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if (json.loads(line)["query"], json.loads(line)["document"]) not in held]
    (tmp_path / "graded.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match=rf"no answer to {len(held)} of the .*; validation {len(held)}\)"):
        train_teachers(run_of(tmp_path))


def test_an_unknown_teacher_of_a_mixture_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"objectives.score_match.teachers: no teacher is called 'usee'; did you mean 'use'"
    ):
        run_of(tmp_path, objectives={"score_match": {"teachers": {"use": 0.5, "usee": 0.5}}})
