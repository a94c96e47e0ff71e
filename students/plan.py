"""The planner: the largest students that meet a budget of latency and size, found by measuring on this machine.

Speed does not depend on the weights, so candidates are built with random ones, exported and quantized as a student is,
and measured as a report measures. Three small scouts say roughly where the budget lies; about ten shapes around it are
measured in turns; a cost model fitted to them predicts all other shapes; the largest that are predicted to fit are
measured too, and corrected, until what is proposed was measured.

Larger means more parameters outside the embeddings, which is where depth and width go; at equal ones more vocabulary.
For each number of layers the largest is shown: the choice between deep and wide is a matter of quality, and the
planner measures none.
"""

import logging
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from distill.artefact import write_json
from distill.errors import BadInput, JobFailed
from distill.latency import environment
from distill.recipe import Recipe, Student
from distill.run import Run
from distill.runtime import usable_cpus
from students.cost_model import (
    Budget,
    CostModel,
    Measurement,
    Shape,
    best_by_depth,
    describe,
    fit,
    held_out_errors,
    nearest,
)
from students.ledger import Ledger
from students.measuring import cost_row, measure_folders, texts_of_length
from students.plan_picture import draw_plan
from students.shapes import Candidates, length_of

__all__ = ["MARGIN", "check_model", "choose_shapes", "make_plan"]

log = logging.getLogger(__name__)
MARGIN = 1.10  # a second measurement of the same model on the same machine may come out this much higher
_N_SCOUTS, _SCOUT_SECONDS, _SCOUT_LAYERS = 3, 0.5, 4
_AROUND = (0.25, 1.6)  # shapes are measured where they are thought to cost this much of the budget
_VERIFY_ROUNDS = 3
_DRIFT_TOLD = 0.10
_Costs = Mapping[Shape, Mapping[str, float]]


def make_plan(recipe: Recipe, folder: Path) -> None:
    """Search, and write plan.json, student.yaml, plan.png and measurements.json into `folder`.

    :raises JobFailed: where no shape meets the budget; the nearest is named
    """
    _check_threads(recipe)
    run = Run(recipe)
    with run.lock():
        folder.mkdir(parents=True, exist_ok=True)
        work = folder / ".shapes"
        work.mkdir(exist_ok=True)
        candidates = Candidates(run, work)
        budget = Budget(recipe.plan.budget_p95_ms, recipe.plan.budget_mb)
        ledger = Ledger(folder / "measurements.json", candidates)
        result = _search(candidates, ledger, budget)
        write_json(folder / "plan.json", result)
        draw_plan(result, folder / "plan.png")
        shutil.rmtree(work, ignore_errors=True)
        if result["yaml"] is None:
            (folder / "student.yaml").unlink(missing_ok=True)
            raise JobFailed(_nothing_fits(result, budget))
        (folder / "student.yaml").write_text(result["yaml"], encoding="utf-8")


def _check_threads(recipe: Recipe) -> None:
    wanted, there = recipe.plan.threads, usable_cpus()
    if wanted is not None and wanted > there:
        raise BadInput(f"plan.threads: {wanted}, this process may use {there}; plan on the machine that will serve")


def _nothing_fits(result: Mapping[str, Any], budget: Budget) -> str:
    close = result["students"][0]
    costs = close["measured"]
    return (
        f"no shape meets {budget}; nearest: {Shape(**close['shape'])}: p95 {costs['p95_ms']:.2f} ms, {costs['size_mb']:.1f} MB "
        "as measured; raise the budget, shorten the texts, or allow fewer layers, smaller widths or a smaller vocabulary"
    )


def _search(candidates: Candidates, ledger: Ledger, budget: Budget) -> dict[str, Any]:
    plan, shapes = candidates.plan, candidates.shapes()
    if len(shapes) > plan.measured:
        scouts = _scouts(shapes)
        ledger.measure("scouts", scouts, seconds=min(_SCOUT_SECONDS, plan.seconds))
        rough = fit([one for one in ledger.rows("scouts") if one.shape in scouts])
        chosen = choose_shapes(shapes, scouts, rough, budget, plan.measured, candidates.run.recipe.seed)
        log.info("%d of %d shapes, around the budget, are measured in turns", len(chosen), len(shapes))
    else:
        chosen = shapes
    ledger.measure("measured", chosen, seconds=plan.seconds)
    model_before = fit(ledger.rows("measured"))
    notes = _verify(candidates, ledger, budget, shapes)
    measured = ledger.rows("measured", "verified")
    return _result(candidates, ledger, budget, shapes, measured, model_before, notes)


def _scouts(shapes: Sequence[Shape]) -> list[Shape]:
    """Return a small, a middling and a larger shape of few layers: cheap to build, and apart."""
    least = min(shape.layers for shape in shapes)
    few = sorted(
        (shape for shape in shapes if shape.layers <= max(_SCOUT_LAYERS, least)), key=lambda shape: shape.capacity
    )
    places = {round(share * (len(few) - 1)) for share in (0.0, 0.3, 0.6)}
    return [few[place] for place in sorted(places)][:_N_SCOUTS]


def choose_shapes(
    shapes: Sequence[Shape], scouts: Sequence[Shape], rough: CostModel, budget: Budget, n_shapes: int, seed: int
) -> list[Shape]:
    """Choose the shapes to measure: the scouts, and others around the budget that are as far apart as can be.

    Greedy maximin (Johnson et al. 1990) over the logarithms of layers, width, feed-forward and vocabulary.
    """
    excess = {shape: budget.excess(rough.predict(shape)) for shape in shapes}
    around = [shape for shape in shapes if _AROUND[0] <= excess[shape] <= _AROUND[1]]
    if len(around) < n_shapes:
        around = sorted(shapes, key=lambda shape: abs(math.log(excess[shape])))[: 2 * n_shapes]
    random.Random(seed).shuffle(around)
    chosen = list(scouts)
    while len(chosen) < n_shapes and (left := [shape for shape in around if shape not in chosen]):
        chosen.append(max(left, key=lambda shape: min(_apart(shape, other) for other in chosen)))
    return chosen


def _apart(one: Shape, other: Shape) -> float:
    ratios = (
        one.layers / other.layers, one.width / other.width, one.vocabulary / other.vocabulary,
        one.feed_forward * other.width / (other.feed_forward * one.width),
    )  # fmt: skip
    return sum(math.log(ratio) ** 2 for ratio in ratios)


def _costs(shapes: Sequence[Shape], measured: Sequence[Measurement]) -> dict[Shape, Mapping[str, float]]:
    """Return what each shape costs: measured where it was, else predicted from all that were."""
    model, known = fit(measured), {one.shape: one.costs() for one in measured}
    return {shape: known.get(shape) or model.predict(shape) for shape in shapes}


def _proposed(costs: _Costs, budget: Budget, n_shapes: int) -> list[Shape]:
    return best_by_depth(costs, budget)[:n_shapes] or [nearest(costs, budget)]


def _verify(candidates: Candidates, ledger: Ledger, budget: Budget, shapes: Sequence[Shape]) -> list[str]:
    """Measure what is proposed, until all of it was or rounds run out: what turns out too large gives way to the next."""
    plan, notes = candidates.plan, []
    for _ in range(_VERIFY_ROUNDS):
        measured = ledger.rows("measured", "verified")
        known = {one.shape for one in measured}
        wanted = [shape for shape in _proposed(_costs(shapes, measured), budget, plan.verified) if shape not in known]
        if not wanted:
            break
        anchor = min(ledger.rows("measured"), key=lambda one: abs(math.log(budget.excess(one.costs())))).shape
        for ratio in ledger.measure("verified", wanted, seconds=plan.seconds, along=[anchor]):
            if abs(ratio - 1) > _DRIFT_TOLD:
                notes.append(
                    f"The machine drifted: {anchor} took {ratio:.2f} times as long when the proposals were measured; a quieter machine gives a better plan."
                )
    return notes


def _result(
    candidates: Candidates, ledger: Ledger, budget: Budget, shapes: Sequence[Shape], measured: Sequence[Measurement],
    model_before: CostModel, notes: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    plan, known = candidates.plan, {one.shape: one.costs() for one in measured}
    costs, model = _costs(shapes, measured), fit(measured)
    here = {shape: known[shape] for shape in shapes if shape in known}  # the ledger may know shapes of other plans
    fitting = [shape for shape in here if budget.fits(here[shape])]
    # a plan proposes nothing that was not measured; what is only predicted is shown beside it
    chosen = max(fitting, key=lambda shape: shape.capacity) if fitting else None
    shown = best_by_depth(costs, budget) if chosen is not None else [nearest(here, budget)]
    shown = sorted({*shown, *([chosen] if chosen else [])}, key=lambda shape: shape.capacity, reverse=True)
    students = [
        {
            "shape": asdict(shape), "encoder_parameters": shape.encoder_parameters, "measured": known.get(shape),
            "predicted": (model_before if shape in known else model).predict(shape), "fits": budget.fits(costs[shape]),
            "student": candidates.section(shape),
        }
        for shape in shown
    ]  # fmt: skip
    return {
        "budget": asdict(budget), "plan": plan.model_dump(mode="json"), "kind": candidates.kind, "cut": candidates.cut_name, "length": candidates.length,
        "threads": ledger.n_threads, "environment": environment(), "largest": "parameters outside the embeddings, then vocabulary",
        "students": students, "yaml": None if chosen is None else _yaml(candidates.section(chosen)),
        "measured": [
            {"shape": asdict(one.shape), **one.costs(), "predicted": model_before.predict(one.shape), "fitted": one in ledger.rows("measured")}
            for one in measured
        ],
        "grid": [{"shape": asdict(shape), "encoder_parameters": shape.encoder_parameters, **costs[shape]} for shape in shapes],
        "median_error": held_out_errors(ledger.rows("measured")), "cost_model": describe(model), "notes": list(notes),
    }  # fmt: skip


def _yaml(section: Mapping[str, Any]) -> str:
    """Write a section that is valid as it stands."""
    Student.model_validate(section)
    text = yaml.safe_dump({"student": section}, sort_keys=False, allow_unicode=True, default_flow_style=None, width=160)
    return str(text)


def check_model(recipe: Recipe, model: Path) -> dict[str, Any]:
    """Measure a finished int8 folder as a plan's shapes were measured, on the recipe's text at the plan's length.

    :returns: its costs, the budget and `excess`, the largest ratio of the two
    """
    from distill.runtime import load

    _check_threads(recipe)
    plan, run = recipe.plan, Run(recipe)
    length = length_of(run)
    scorer = load(model, runtime="openvino", n_threads=plan.threads, max_length=length)
    sources = list(dict.fromkeys([*run.split.train.queries, *run.split.train.documents]))
    texts = texts_of_length(scorer.tokenizer, sources, length, scorer.kind)
    result = measure_folders(
        [model], [model.name], texts, length=length, n_threads=plan.threads or usable_cpus(), seconds=2 * plan.seconds, seed=0
    )[0]  # fmt: skip
    budget = Budget(plan.budget_p95_ms, plan.budget_mb)
    costs = cost_row(result)["costs"]
    return {"model": str(model), "budget": asdict(budget), **costs, "excess": budget.excess(costs), "margin": MARGIN}
