"""Measure a run's cascade: quality against the share of pairs that the teacher is asked, and what each share costs.

The cascade is fitted on the validation pairs and measured on the evaluation pairs, on which student and teacher have both
scored everything: every position of the dial is then arithmetic. Costs are seconds a pair of both models, measured in turns.

Two questions are answered with intervals. At which share does the cascade equal the teacher? And does it beat whatever
single model its cost could buy? Beside the cascade stands chance: the same share of pairs, drawn blindly.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill.artefact import Artefact, content_hash, new_folder, read_card, write_card, write_json
from distill.baselines import SCORER_FILE, open_scorer
from distill.benchmark import Row, primary_metric, primary_teacher, score_row
from distill.cascade import Cascade, CascadeSettings, fit_cascade, top_k_of_queries
from distill.data import Pairs
from distill.errors import BadInput
from distill.latency import Request, environment, measure_all
from distill.metrics import evaluate_scores, paired_difference
from distill.progress import progress
from distill.run import Run

__all__ = ["DIAL", "measure_cascade", "read_dial"]

log = logging.getLogger(__name__)
DIAL = "dial.json"
_SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
_TOP_K = (0, 1, 2, 3, 5, 10, 20)
_BLIND_DRAWS = 20


def measure_cascade(run: Run) -> None:
    """Fit, measure and write `cascade/`: a folder that `distill score` opens, with its dial as JSON and as a picture.

    :raises BadInput: where the run has no finished student or teacher, or no labels to fit on
    """
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    student, teacher = _models(run)
    settings, evaluation, validation = run.recipe.cascade, run.split.evaluation, run.split.validation
    inputs: dict[str, Any] = {
        "stage": "cascade", "settings": settings.model_dump(mode="json"), "seed": run.recipe.seed,
        "models": {row.name: getattr(read_card(row.path), "revision", None) for row in (student, teacher)},
        "data": {part: run.split.describe()[part] for part in ("validation", "evaluation")},
    }  # fmt: skip
    if run.is_finished(run.cascade, inputs):
        return
    if validation.labels is None or evaluation.labels is None:
        raise BadInput("a cascade is fitted on labels; this recipe's pairs have none")
    held_back = {row.name: _scores(run, row, validation) for row in (student, teacher)}
    cascade = fit_cascade(held_back[student.name], held_back[teacher.name], validation.labels)
    student_scores, teacher_scores = (score_row(run, row).scores.astype(np.float64) for row in (student, teacher))
    seconds = _seconds_a_pair(run, student, teacher)
    dial = _dial(run, cascade, student_scores, teacher_scores, seconds)
    dial |= {"student": student.name, "teacher": teacher.name, "environment": environment()}
    chosen = _chosen(settings.share, dial)
    level = None if settings.top_k else cascade.level(held_back[student.name], chosen)
    with new_folder(run.cascade) as folder:
        described = CascadeSettings(
            student=os.path.relpath(student.path, run.cascade), teacher=os.path.relpath(teacher.path, run.cascade),
            student_runtime=student.runtime or "torch", teacher_runtime=teacher.runtime or "torch",
            student_max_length=student.max_length or 512, teacher_max_length=teacher.max_length or 512,
            level=None if level == float("inf") else level, top_k=settings.top_k, cascade=cascade,
        )  # fmt: skip
        write_json(folder / SCORER_FILE, described.model_dump(mode="json"))
        write_json(folder / DIAL, {**dial, "chosen_share": None if settings.top_k else chosen})
        _draw(dial, folder / "dial.png")
        card = Artefact(
            kind="cascade", stage="cascade", fingerprint=content_hash(inputs), parents=inputs["models"],
            recipe=run.recipe.model_dump(mode="json"), data=run.split.describe(), details={"inputs": inputs},
        )  # fmt: skip
        write_card(folder, card)
    log.info("cascade: %s; %s", run.cascade, dial["verdict"])


def _models(run: Run) -> tuple[Row, Row]:
    """Return the student (its int8 export, where there is one) and the teacher."""
    section, settings = run.student_section, run.recipe.cascade
    name = settings.teacher or primary_teacher(run)
    run.require(run.teacher(name), "train_teacher")
    teacher = Row(name, "teacher", run.teacher(name), "torch", "fp32", run.recipe.teachers[name].max_length)
    exports = run.recipe.exports
    if not exports:
        run.require(run.student, "train_student")
        return Row("student", "student", run.student, "torch", "fp32", section.max_length), teacher
    format, precision = next((export for export in exports if export[1] == "int8"), exports[0])
    folder = run.export(precision, format)
    run.require(folder, "export")
    return Row(f"student ({precision})", "export", folder, format, None, section.max_length), teacher


def _scores(run: Run, row: Row, pairs: Pairs) -> np.ndarray:
    scorer = open_scorer(
        row.path, runtime=row.runtime, precision=row.precision, n_threads=run.recipe.benchmark.threads,
        max_length=row.max_length,
    )  # fmt: skip
    n_items = len(pairs) if scorer.kind == "cross_encoder" else len({*pairs.queries, *pairs.documents})
    with progress(f"{row.name}: scoring held-back pairs", n_items) as report:
        return np.asarray(scorer.score(pairs.queries, pairs.documents, progress=report), dtype=np.float64)


def _seconds_a_pair(run: Run, student: Row, teacher: Row) -> tuple[float, float]:
    """Measure both in turns, as the benchmark does."""
    settings, pairs = run.recipe.benchmark, run.split.evaluation
    rows = np.unique(np.linspace(0, len(pairs) - 1, min(settings.throughput_pairs, len(pairs))).astype(int))
    sample = pairs.select(rows.tolist())
    requests = [
        Request(row.path, row.name, row.runtime, row.precision, settings.threads, row.max_length)
        for row in (student, teacher)
    ]
    one, two = measure_all(
        requests, sample.queries, sample.documents, seconds=settings.seconds, lengths=settings.lengths
    )
    return 1 / one["throughput_pairs_per_s"], 1 / two["throughput_pairs_per_s"]


def _dial(
    run: Run, cascade: Cascade, student_scores: np.ndarray, teacher_scores: np.ndarray, seconds: tuple[float, float]
) -> dict[str, Any]:
    pairs, top_k = run.split.evaluation, run.recipe.cascade.top_k is not None
    metric = primary_metric(_estimates(run, teacher_scores, pairs), pairs.labels)
    rng = np.random.default_rng(run.recipe.seed)
    positions = []
    for place in _TOP_K if top_k else _SHARES:
        routed = (
            top_k_of_queries(pairs.queries, student_scores, int(place))
            if top_k
            else cascade.routed(student_scores, place)
        )
        share = float(routed.mean())
        mixed = cascade.combined(student_scores, teacher_scores, routed)
        blind = [
            _value(run, cascade.combined(student_scores, teacher_scores, rng.permutation(routed)), pairs, metric)
            for _ in range(_BLIND_DRAWS)
        ]
        positions.append({
            **({"top_k": int(place)} if top_k else {}), "share": share, metric: _estimates(run, mixed, pairs)[metric].to_dict(),
            "blind": float(np.mean(blind)), "ms_per_pair": 1000 * (seconds[0] + share * seconds[1]),
            "share_of_teacher_cost": (seconds[0] + share * seconds[1]) / seconds[1],
            "minus_teacher": _difference(run, mixed, teacher_scores, pairs, metric),
            "minus_student": _difference(run, mixed, student_scores, pairs, metric),
        })  # fmt: skip
    alone = {
        name: _estimates(run, scores, pairs)[metric].to_dict() | {"ms_per_pair": 1000 * cost}
        for name, scores, cost in (
            ("student", student_scores, seconds[0]),
            ("teacher", teacher_scores, seconds[1]),
        )
    }
    return {"metric": metric, "alone": alone, "positions": positions, "verdict": _verdict(metric, positions)}


def _estimates(run: Run, scores: np.ndarray, pairs: Pairs) -> Mapping[str, Any]:
    return evaluate_scores(
        scores=scores, labels=pairs.labels, query_ids=pairs.query_ids, n_bootstrap=run.recipe.benchmark.bootstrap,
        seed=run.recipe.seed,
    )  # fmt: skip


def _value(run: Run, scores: np.ndarray, pairs: Pairs, metric: str) -> float:
    estimates = evaluate_scores(
        scores=scores, labels=pairs.labels, query_ids=pairs.query_ids, n_bootstrap=2, seed=run.recipe.seed
    )
    return float(estimates[metric].value)


def _difference(run: Run, one: np.ndarray, other: np.ndarray, pairs: Pairs, metric: str) -> dict[str, float | int]:
    estimate = paired_difference(
        metric, scores_a=one, scores_b=other, labels=pairs.labels, query_ids=pairs.query_ids,
        n_bootstrap=run.recipe.benchmark.bootstrap, seed=run.recipe.seed,
    )  # fmt: skip
    return estimate.to_dict()


def _verdict(metric: str, positions: list[dict[str, Any]]) -> str:
    """Say at which share the teacher is equalled, and whether the cascade beats the best model that its cost could buy.

    Below the teacher's cost that is the student; at the teacher's cost it is the teacher.
    """
    equal = next((place for place in positions if place["minus_teacher"]["high"] >= 0), None)
    if equal is None:
        said = f"no share equals the teacher's {metric}"
    else:
        said = (
            f"equals the teacher's {metric} within the interval from {equal['share']:.0%} of the pairs on, "
            f"at {equal['share_of_teacher_cost']:.0%} of its cost"
        )
    affordable = [place for place in positions if place["share"] > 0 and place["share_of_teacher_cost"] <= 1]
    for other in ("teacher", "student"):
        better = next((place for place in affordable if place[f"minus_{other}"]["low"] > 0), None)
        if better is not None:
            return f"{said}; beats the {other} alone, at no more than the teacher's cost, from {better['share']:.0%} on"
    return f"{said}; beats no single model of equal cost"


def _chosen(share: float | None, dial: Mapping[str, Any]) -> float:
    """Return the share that was asked for, or the least that equals the teacher; 1 where none does."""
    if share is not None:
        return share
    equal = (place["share"] for place in dial["positions"] if place["minus_teacher"]["high"] >= 0)
    return float(next(equal, 1.0))


def _draw(dial: Mapping[str, Any], path: Path) -> None:
    """Draw quality against share, with the two models alone and blind routing beside it."""
    from matplotlib.figure import Figure

    positions, metric = dial["positions"], dial["metric"]
    shares = [100 * place["share"] for place in positions]
    values = [place[metric]["value"] for place in positions]
    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    low, high = ([place[metric][end] for place in positions] for end in ("low", "high"))
    axes.fill_between(shares, low, high, alpha=0.15, color="#1f6feb", linewidth=0)
    axes.plot(shares, values, "o-", color="#1f6feb", label="cascade")
    axes.plot(
        shares, [place["blind"] for place in positions], ":", color="#6e7781", label="the same share, drawn blindly"
    )
    for name, colour in (("teacher", "#1a7f37"), ("student", "#bc4c00")):
        axes.axhline(dial["alone"][name]["value"], color=colour, linestyle="--", linewidth=1, label=f"{name} alone")
    axes.set_xlabel("pairs that the teacher is asked, %")
    axes.set_ylabel(metric)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)


def read_dial(folder: Path) -> dict[str, Any]:
    """Read the dial of a cascade's folder."""
    dial: dict[str, Any] = json.loads((folder / DIAL).read_text(encoding="utf-8"))
    return dial
