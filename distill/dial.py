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
from distill.baselines import SCORER_FILE
from distill.benchmark import Row, measure_rows, primary_teacher, score_row, student_rows, teacher_row
from distill.canvas import ACCENT, INK, SOFT, new_canvas, save_canvas
from distill.cascade import Cascade, CascadeSettings, fit_cascade, top_k_of_queries
from distill.data import Pairs
from distill.errors import BadInput
from distill.latency import environment
from distill.metrics import evaluate_scores, paired_difference, primary_metric
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
    held_back, evaluated = (
        {row.name: score_row(run, row, pairs).scores.astype(np.float64) for row in (student, teacher)}
        for pairs in (validation, evaluation)
    )
    cascade = fit_cascade(held_back[student.name], held_back[teacher.name], validation.labels)
    speed = measure_rows((student, teacher), evaluation, run.recipe.benchmark, seed=run.recipe.seed)
    seconds = 1 / speed[student.name]["throughput_pairs_per_s"], 1 / speed[teacher.name]["throughput_pairs_per_s"]
    dial = _dial(run, cascade, evaluated[student.name], evaluated[teacher.name], seconds)
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
    """Return the student (an int8 export, else any, else the student itself) and the teacher."""
    teacher = teacher_row(run, run.recipe.cascade.teacher or primary_teacher(run))
    _ = run.student_section  # refuses a recipe without one
    rows = student_rows(run)
    exports = [row for row in rows if row.role == "export"]
    students = exports or [row for row in rows if row.role == "student"]
    return next((row for row in exports if row.path.name.endswith("-int8")), students[0]), teacher


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

    Below the teacher's cost that is the student; at the teacher's cost it is the better of the two.
    """
    student = next((place for place in positions if place["share"] == 0), None)
    rivals: tuple[str, ...] = ("teacher", "student")
    equal = next((place for place in positions if place["minus_teacher"]["high"] >= 0), None)
    if student is not None and student["minus_teacher"]["low"] > 0:
        rivals = ("student",)
        said = f"the student alone beats the teacher's {metric}, at {student['share_of_teacher_cost']:.0%} of its cost"
    elif equal is None:
        said = f"no share equals the teacher's {metric}"
    else:
        said = (
            f"equals the teacher's {metric} within the interval from {equal['share']:.0%} of the pairs on, "
            f"at {equal['share_of_teacher_cost']:.0%} of its cost"
        )
    affordable = [place for place in positions if place["share"] > 0 and place["share_of_teacher_cost"] <= 1]
    for other in rivals:
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
    positions, metric = dial["positions"], dial["metric"]
    shares = [100 * place["share"] for place in positions]
    values = [place[metric]["value"] for place in positions]
    figure, (axes,) = new_canvas(size=(7, 4.2))
    low, high = ([place[metric][end] for place in positions] for end in ("low", "high"))
    axes.fill_between(shares, low, high, alpha=0.15, color=ACCENT, linewidth=0)
    axes.plot(shares, values, "o-", color=ACCENT, label="cascade")
    axes.plot(shares, [place["blind"] for place in positions], ":", color=SOFT, label="the same share, drawn blindly")
    for name, color in (("teacher", INK), ("student", ACCENT)):
        axes.axhline(dial["alone"][name]["value"], color=color, linestyle="--", linewidth=1, label=f"{name} alone")
    axes.set_xlabel("pairs that the teacher is asked, %")
    axes.set_ylabel(metric)
    axes.legend(frameon=False)
    save_canvas(figure, path)


def read_dial(folder: Path) -> dict[str, Any]:
    """Read the dial of a cascade's folder."""
    dial: dict[str, Any] = json.loads((folder / DIAL).read_text(encoding="utf-8"))
    return dial
