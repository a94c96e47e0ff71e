"""Quality beside latency beside size: every model of a run on the same evaluation pairs, on this machine.

Quality is computed once per model, with bootstrap intervals on shared resamples. Speed is measured in a process of each
model's own, round by round in turns, so that a noisy neighbour slows all alike; tokenisation is inside every number.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.artefact import read_card
from distill.latency import Request, environment, measure_all
from distill.metrics import Estimate, evaluate_scores, paired_difference, retention
from distill.progress import progress
from distill.report import write_report
from distill.run import Run
from distill.runtime import Precision, Runtime, load

__all__ = ["benchmark"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Row:
    """One model of the report."""

    name: str
    role: str
    path: Path
    runtime: Runtime
    precision: Precision | None
    max_length: int


def benchmark(run: Run) -> None:
    """Measure what the run has made and write `report/`; a report of the same models and settings is kept."""
    rows = _rows(run)
    inputs = _inputs(run, rows)
    report = run.report / "benchmark.json"
    if (
        report.is_file()
        and json.loads(report.read_text(encoding="utf-8")).get("inputs") == inputs
        and not run.recipe.overwrite
    ):
        log.info("%s is finished", run.report)
        return
    pairs = run.split.evaluation
    scores = {row.name: _scores(run, row) for row in rows}
    speed = _speed(run, rows)
    teacher = next(row.name for row in rows if row.role == "teacher")
    query_ids = pairs.query_ids
    metrics = {
        row.name: evaluate_scores(
            scores=scores[row.name][0], labels=pairs.labels, query_ids=query_ids, unit_scores=scores[row.name][1],
            teacher_scores=None if row.name == teacher else scores[teacher][0],
            n_bootstrap=run.recipe.benchmark.bootstrap, seed=run.recipe.seed,
        )
        for row in rows
    }  # fmt: skip
    primary = _primary_metric(metrics[teacher], pairs.labels)
    result = {
        "title": run.recipe.name, "primary_metric": primary, "inputs": inputs, "recipe": run.recipe.model_dump(mode="json"),
        "data": {"n_pairs": len(pairs), "n_queries": len(set(pairs.queries)), "source": run.recipe.data.evaluation or run.recipe.data.train},
        "environment": environment(),
        "rows": [_described(row, metrics, speed, teacher) for row in rows],
        "comparisons": _comparisons(run, scores, teacher, primary), "notes": [*run.split.notes, *_notes(run, rows, speed)],
    }  # fmt: skip
    write_report(result, run.report)
    log.info("report: %s", run.report / "index.html")


def _primary_metric(metrics: Mapping[str, Estimate], labels: np.ndarray | None) -> str:
    """Return what the report leads with: ROC-AUC where labels are two values, else Spearman."""
    graded = labels is not None and len(np.unique(labels)) > 2
    wanted = ("spearman", "roc_auc", "ndcg_at_10") if graded else ("roc_auc", "spearman", "ndcg_at_10")
    return next((name for name in wanted if name in metrics), "ablation_mse")


def _rows(run: Run) -> list[_Row]:
    """List the models: the teacher that is matched first, others, student, control, exports."""
    recipe = run.recipe
    names = list(recipe.teachers) if recipe.benchmark.teachers is None else list(recipe.benchmark.teachers)
    names.sort(key=lambda name: name != primary_teacher(run))
    rows = [
        _Row(name, "teacher", run.teacher(name), "torch", "fp32", recipe.teachers[name].max_length) for name in names
    ]
    for row in rows:
        run.require(row.path, "train_teacher")
    run.require(run.student, "train_student")
    rows.append(_Row("student", "student", run.student, "torch", "fp32", recipe.student.max_length))
    if read_card(run.control) is not None:
        rows.append(_Row("control", "control", run.control, "torch", "fp32", recipe.student.max_length))
    for precision in recipe.export.precisions:
        run.require(run.export(precision), "export")
        rows.append(
            _Row(f"student ({precision})", "export", run.export(precision), "openvino", None, recipe.student.max_length)
        )
    return rows


def primary_teacher(run: Run) -> str:
    """Return the teacher that retention is measured against: of scores before of embeddings."""
    objectives = run.recipe.objectives
    named = [
        term.teacher for term in (objectives.score_match, objectives.margin_mse, objectives.embedding_match) if term
    ]
    return named[0] if named else next(iter(run.recipe.teachers))


def _inputs(run: Run, rows: list[_Row]) -> dict[str, Any]:
    revisions = {row.name: getattr(read_card(row.path), "revision", None) for row in rows}
    return {
        "models": revisions,
        "benchmark": run.recipe.benchmark.model_dump(mode="json"),
        "evaluation": run.split.evaluation.fingerprint(),
    }


def _scores(run: Run, row: _Row) -> tuple[np.ndarray, np.ndarray]:
    """Score the evaluation pairs, or find the scores that a killed run left. *Shape:* (n_pairs,), (n_pairs,) in [0, 1]."""
    pairs, card = run.split.evaluation, read_card(row.path)
    revision = "none" if card is None else card.revision
    kept = run.work / f"scores-{revision}-{pairs.fingerprint()}.npz"
    if kept.is_file():
        with np.load(kept) as stored:
            return stored["scores"], stored["unit"]
    scorer = load(
        row.path,
        runtime=row.runtime,
        precision=row.precision,
        n_threads=run.recipe.benchmark.threads,
        max_length=row.max_length,
    )
    n_items = len(pairs) if scorer.kind == "cross_encoder" else len({*pairs.queries, *pairs.documents})
    with progress(f"{row.name}: scoring", n_items) as report:
        scores = scorer.score(pairs.queries, pairs.documents, progress=report)
    unit = scorer.unit(scores)
    temporary = kept.with_suffix(".tmp.npz")
    np.savez(temporary, scores=scores, unit=unit)
    temporary.replace(kept)
    return scores, unit


def _speed(run: Run, rows: list[_Row]) -> dict[str, dict[str, Any]]:
    settings, pairs = run.recipe.benchmark, run.split.evaluation
    requests = [
        Request(row.path, row.name, row.runtime, row.precision, settings.threads, row.max_length) for row in rows
    ]
    # evenly over the evaluation pairs, so that all lengths are there
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(settings.throughput_pairs, len(pairs))).astype(int))
    sample = pairs.select(chosen.tolist())
    with progress("measuring", 0) as report:
        last = 0

        def on_progress(done: int, total: int, what: str) -> None:
            nonlocal last
            report(done - last, what, total=total)
            last = done

        measured = measure_all(
            requests,
            sample.queries,
            sample.documents,
            seconds=settings.seconds,
            lengths=settings.lengths,
            seed=run.recipe.seed,
            on_progress=on_progress,
        )
    return {row.name: result for row, result in zip(rows, measured, strict=True)}


def _described(
    row: _Row, metrics: Mapping[str, Mapping[str, Estimate]], speed: Mapping[str, Mapping[str, Any]], teacher: str
) -> dict[str, Any]:
    """Return one row of the contract that the README documents."""
    measured = speed[row.name]
    kept = {"retention": {}} if row.name == teacher else {"retention": retention(metrics[row.name], metrics[teacher])}
    return {
        "name": row.name, "role": row.role, "kind": measured["kind"], "runtime": measured["runtime"], "precision": measured["precision"],
        "parameters": measured["parameters"], "size_mb": measured["size_mb"], "peak_memory_mb": measured["peak_memory_mb"],
        "metrics": {name: estimate.to_dict() for name, estimate in metrics[row.name].items()}, **kept,
        "latency_ms": measured["latency_ms"], "throughput_pairs_per_s": measured["throughput_pairs_per_s"],
        "speedup": measured["throughput_pairs_per_s"] / speed[teacher]["throughput_pairs_per_s"],
        **{name: measured[name] for name in ("latency_by_length", "throughput_pairs", "load_seconds", "cold_ms", "steady_memory_mb", "n_threads", "max_length", "per_run")},
    }  # fmt: skip


def _comparisons(
    run: Run, scores: Mapping[str, tuple[np.ndarray, np.ndarray]], teacher: str, metric: str
) -> list[dict[str, Any]]:
    """Compare what a reader asks of: student and control, teacher and student, exports and student."""
    pairs, recipe = run.split.evaluation, run.recipe
    wanted = [("student", "control"), (teacher, "student")] + [
        (name, "student") for name in scores if name.startswith("student (")
    ]
    compared = []
    for one, other in wanted:
        if one in scores and other in scores:
            difference = paired_difference(
                metric, scores_a=scores[one][0], scores_b=scores[other][0], labels=pairs.labels, query_ids=pairs.query_ids,
                n_bootstrap=recipe.benchmark.bootstrap, seed=recipe.seed,
            )  # fmt: skip
            compared.append({"name": f"{one} − {other}", "metric": metric, **difference.to_dict()})
    return compared


def _notes(run: Run, rows: list[_Row], speed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    notes = []
    if any(speed[row.name]["precision"] == "bf16" for row in rows):
        notes.append(
            "OpenVINO computes in bf16 by default on a CPU that can; each row states the precision that really ran."
        )
    if all(row.role != "control" for row in rows):
        notes.append("There is no control: how much of the student's quality is the teacher's doing is not shown.")
    return notes
