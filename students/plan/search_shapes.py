"""The planner: find the largest students within a budget of latency and size, by measuring on this machine.

Speed does not depend on the weights. So candidates are built with random weights, exported and quantized like a
student, and measured like the models of a report. Three small shapes (the scouts) show roughly where the budget lies.
About ten shapes around it are measured in turns. A cost model fitted to them predicts the cost of all other shapes.
The largest shapes that are predicted to fit are measured too, and the model is refitted, until every proposed shape
has been measured.

Larger means more parameters outside the embeddings, because depth and width add them; among equals, a larger
vocabulary. The largest shape of each number of layers is shown: the choice between deep and wide is a matter of
quality, which the planner does not measure.

Each shape is measured in fp32 and in int8. The budget applies to the precision that is faster on this machine, among
those that the recipe exports. Whether int8 keeps the quality is decided by the gate, once there are learned weights;
so both precisions are shown.
"""

import logging
import math
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from distill.errors import BadInput, JobFailed
from distill.evaluation.latency import environment
from distill.files.artefact import write_json
from distill.machine.cpu import usable_cpus
from distill.recipe.schema import Recipe, Student
from distill.run import Run
from students.plan.cost_model import (
    PRECISIONS,
    CostLimits,
    CostModel,
    Measurement,
    Shape,
    best_by_depth,
    describe,
    fit_cost_model,
    held_out_errors,
    nearest,
)
from students.plan.floor import check_plan, length_of, refuse_impossible
from students.plan.ledger import Ledger
from students.plan.measuring import cost_row, measure_folders, texts_of_length
from students.plan.picture import draw_plan
from students.plan.shapes import Candidates

__all__ = ["MARGIN", "Fastest", "check_model", "choose_shapes", "fastest_precision", "make_plan"]

log = logging.getLogger(__name__)
MARGIN = 1.10  # a repeated measurement of the same model on the same machine may be this many times higher
_N_SCOUTS, _SCOUT_SECONDS, _SCOUT_LAYERS = 3, 0.5, 4
_AROUND = (0.25, 1.6)  # shapes are measured if their predicted cost is within this range, in multiples of the budget
_VERIFY_ROUNDS = 3  # rounds of measuring what the cost model proposes; the model is refitted in each round
_DRIFT_NOTED = 0.10  # the plan reports drift of the machine from this relative change on
_Costs = Mapping[Shape, Mapping[str, float]]


@dataclass(frozen=True)
class Fastest:
    """The precision of a plan, and the reason; `int8_of_fp32` is the median ratio of p50 in int8 to p50 in fp32."""

    precision: str
    int8_of_fp32: float
    why: str

    @property
    def other(self) -> str:
        """The other precision, which is shown beside it."""
        return next(precision for precision in PRECISIONS if precision != self.precision)


def fastest_precision(recipe: Recipe, ledger: Ledger, phase: str) -> Fastest:
    """Return the precision to plan in: the recipe's, or the only one exported, or the faster one as measured."""
    fp32, int8 = (
        {measurement.shape: measurement.p50_ms for measurement in ledger.rows(phase, precision=name)}
        for name in PRECISIONS
    )
    ratio = float(np.median([int8[shape] / fp32[shape] for shape in int8 if shape in fp32]))
    exported = [name for name in PRECISIONS if name in recipe.export.precisions]
    if recipe.plan.precision != "auto":
        return Fastest(recipe.plan.precision, ratio, "plan.precision says so")
    if len(exported) == 1:
        return Fastest(exported[0], ratio, f"of the two export.precisions has {exported[0]} alone")
    return Fastest("int8" if ratio <= 1 else "fp32", ratio, "the faster one here")


def make_plan(recipe: Recipe, folder: Path) -> None:
    """Search, and write plan.json, student.yaml, plan.png and measurements.json into `folder`.

    :raises JobFailed: if no shape meets the budget; the message names the nearest shape
    """
    check_plan(recipe, folder)
    run = Run(recipe)
    with run.lock(), _place(folder) as work:
        candidates = Candidates(run, work)
        budget = CostLimits(recipe.plan.budget_p95_ms, recipe.plan.budget_mb)
        ledger = Ledger(folder / "measurements.json", candidates)
        result = _search(candidates, ledger, budget)
        write_json(folder / "plan.json", result)
        draw_plan(result, folder / "plan.png")
        shutil.rmtree(work, ignore_errors=True)
        if result["yaml"] is None:
            (folder / "student.yaml").unlink(missing_ok=True)
            raise JobFailed(_nothing_fits(result, budget))
        (folder / "student.yaml").write_text(result["yaml"], encoding="utf-8")


@contextmanager
def _place(folder: Path) -> Iterator[Path]:
    """Create the plan's folder and yield a subfolder for the shapes; if the recipe is refused, remove new folders."""
    work = folder / ".shapes"
    new = [place for place in (work, folder) if not place.exists()]
    work.mkdir(parents=True, exist_ok=True)
    try:
        yield work
    except (BadInput, JobFailed):
        if work in new:  # otherwise it holds models built by an earlier plan that was interrupted
            shutil.rmtree(work, ignore_errors=True)
        if folder in new:
            with suppress(OSError):  # the folder is not empty: it holds measurements
                folder.rmdir()
        raise


def _nothing_fits(result: Mapping[str, Any], budget: CostLimits) -> str:
    closest, other_precision = result["students"][0], result["other"]
    costs, other_costs = closest["measured"], closest["by_precision"][other_precision]["measured"]
    # the other precision may meet the budget: a budget of size alone, on a CPU without int8 instructions
    hint = (
        f"; in {other_precision} it meets the budget: plan.precision={other_precision}"
        if budget.fits(other_costs)
        else ""
    )
    return (
        f"no shape meets {budget} in {result['precision']}; nearest: {Shape(**closest['shape'])}: p95 {costs['p95_ms']:.2f} ms, "
        f"{costs['size_mb']:.1f} MB as measured{hint}; raise the budget, shorten the texts, or allow fewer layers, smaller widths "
        "or a smaller vocabulary"
    )


def _search(candidates: Candidates, ledger: Ledger, budget: CostLimits) -> dict[str, Any]:
    plan, shapes, recipe = candidates.plan, candidates.shapes(), candidates.run.recipe
    if not ledger.phases:  # else measurements tell more
        refuse_impossible(shapes, plan)
    if len(shapes) > plan.measured:
        scouts = _scouts(shapes)
        ledger.measure("scouts", scouts, seconds=min(_SCOUT_SECONDS, plan.seconds))
        fastest = fastest_precision(recipe, ledger, "scouts")
        rough = fit_cost_model(
            [
                measurement
                for measurement in ledger.rows("scouts", precision=fastest.precision)
                if measurement.shape in scouts
            ]
        )
        if _is_hopeless(shapes, ledger.rows("scouts", precision=fastest.precision), budget):
            chosen = scouts[:1]
            log.warning("the smallest shape is over the budget by far: no other one is measured")
        else:
            chosen = choose_shapes(shapes, scouts, rough, budget, plan.measured, recipe.seed)
            log.info("%d of %d shapes, around the budget, are measured in turns", len(chosen), len(shapes))
    else:
        chosen = shapes
    ledger.measure("measured", chosen, seconds=plan.seconds)
    fastest = fastest_precision(recipe, ledger, "measured")
    log.info("planned in %s (%s): int8 takes %.2f of fp32's time", fastest.precision, fastest.why, fastest.int8_of_fp32)
    models_before = {name: fit_cost_model(ledger.rows("measured", precision=name)) for name in PRECISIONS}
    notes = _verify(candidates, ledger, budget, shapes, fastest.precision)
    return _Found(candidates, ledger, budget, shapes, fastest, models_before, notes).to_json()


def _scouts(shapes: Sequence[Shape]) -> list[Shape]:
    """Return a small, a medium and a larger shape with few layers: cheap to build, and far apart."""
    least = min(shape.layers for shape in shapes)
    shallow = sorted(
        (shape for shape in shapes if shape.layers <= max(_SCOUT_LAYERS, least)), key=lambda shape: shape.capacity
    )
    places = {round(share * (len(shallow) - 1)) for share in (0.0, 0.3, 0.6)}
    return [shallow[place] for place in sorted(places)][:_N_SCOUTS]


def _is_hopeless(shapes: Sequence[Shape], scouts: Sequence[Measurement], budget: CostLimits) -> bool:
    """Tell whether the shape that is smallest in every number is over the budget by more than a measurement varies.

    Half of its calls take longer than the limit of the p95, then, or its folder is larger.
    """
    for row in scouts:
        costs = {"p95_ms": row.p50_ms / MARGIN, "size_mb": row.size_mb}
        if all(_is_within(row.shape, shape) for shape in shapes) and not budget.fits(costs):
            return True
    return False


def _is_within(shape: Shape, other: Shape) -> bool:
    return all(mine <= theirs for mine, theirs in zip(astuple(shape), astuple(other), strict=True))


def choose_shapes(
    shapes: Sequence[Shape], scouts: Sequence[Shape], rough: CostModel, budget: CostLimits, n_shapes: int, seed: int
) -> list[Shape]:
    """Choose the shapes to measure: the scouts, and shapes around the budget that are as far apart as possible.

    Greedy maximin (Johnson et al. 1990) over the logarithms of layers, width, feed-forward and vocabulary.
    """
    excess = {shape: budget.excess(rough.predict(shape)) for shape in shapes}
    around = [shape for shape in shapes if _AROUND[0] <= excess[shape] <= _AROUND[1]]
    if len(around) < n_shapes:
        around = sorted(shapes, key=lambda shape: abs(math.log(excess[shape])))[: 2 * n_shapes]
    random.Random(seed).shuffle(around)
    chosen = list(scouts)
    while len(chosen) < n_shapes and (remaining := [shape for shape in around if shape not in chosen]):
        chosen.append(max(remaining, key=lambda shape: min(_apart(shape, other) for other in chosen)))
    return chosen


def _apart(first: Shape, second: Shape) -> float:
    ratios = (
        first.layers / second.layers,
        first.width / second.width,
        first.vocabulary / second.vocabulary,
        first.feed_forward * second.width / (second.feed_forward * first.width),
    )
    return sum(math.log(ratio) ** 2 for ratio in ratios)


def _costs(shapes: Sequence[Shape], measured: Sequence[Measurement]) -> dict[Shape, Mapping[str, float]]:
    """Return the costs of each shape: measured ones where there are any, else those that a fitted model predicts."""
    model, known = fit_cost_model(measured), {measurement.shape: measurement.costs() for measurement in measured}
    return {shape: known.get(shape) or model.predict(shape) for shape in shapes}


def _proposed(costs: _Costs, budget: CostLimits, n_shapes: int) -> list[Shape]:
    return best_by_depth(costs, budget)[:n_shapes] or [nearest(costs, budget)]


def _verify(
    candidates: Candidates, ledger: Ledger, budget: CostLimits, shapes: Sequence[Shape], precision: str
) -> list[str]:
    """Measure the proposed shapes until all are measured or the rounds run out; return notes on drift of the machine.

    If a measured shape is over the budget, the next one is proposed.
    """
    plan, notes = candidates.plan, []
    for _ in range(_VERIFY_ROUNDS):
        measured = ledger.rows("measured", "verified", precision=precision)
        known = {measurement.shape for measurement in measured}
        unmeasured = [
            shape for shape in _proposed(_costs(shapes, measured), budget, plan.verified) if shape not in known
        ]
        if not unmeasured:
            break
        fitted = ledger.rows("measured", precision=precision)
        anchor = min(fitted, key=lambda measurement: abs(math.log(budget.excess(measurement.costs())))).shape
        for ratio in ledger.measure("verified", unmeasured, seconds=plan.seconds, along=[anchor]):
            if abs(ratio - 1) > _DRIFT_NOTED:
                notes.append(
                    f"The machine drifted: {anchor} took {ratio:.2f} times as long when the proposals were measured; a quieter machine gives a better plan."
                )
    return notes


@dataclass
class _Found:
    """The measurements of a search, as the content of plan.json."""

    candidates: Candidates
    ledger: Ledger
    budget: CostLimits
    shapes: Sequence[Shape]
    fastest: Fastest
    before: Mapping[str, CostModel]
    """The cost models by precision that chose the verified shapes."""
    notes: Sequence[str]

    def __post_init__(self) -> None:
        self.own, self.other = self.fastest.precision, self.fastest.other
        self.rows = {name: self.ledger.rows("measured", "verified", precision=name) for name in PRECISIONS}
        self.known = {
            name: {measurement.shape: measurement.costs() for measurement in rows} for name, rows in self.rows.items()
        }
        self.model = {name: fit_cost_model(rows) for name, rows in self.rows.items()}
        self.costs = {name: _costs(self.shapes, rows) for name, rows in self.rows.items()}
        known = self.known[self.own]
        # the ledger may hold shapes of other plans
        self.here = {shape: known[shape] for shape in self.shapes if shape in known}
        fitting = [shape for shape in self.here if self.budget.fits(self.here[shape])]
        # a plan only proposes shapes that were measured; shapes with predicted costs are only shown beside them
        self.chosen = max(fitting, key=lambda shape: shape.capacity) if fitting else None

    def to_json(self) -> dict[str, Any]:
        """Return the content of plan.json."""
        errors = {name: held_out_errors(self.ledger.rows("measured", precision=name)) for name in PRECISIONS}
        return {
            "budget": asdict(self.budget),
            "plan": self.candidates.plan.model_dump(mode="json"),
            "kind": self.candidates.kind,
            "cut": self.candidates.cut_name,
            "length": self.candidates.length,
            "precision": self.own,
            "other": self.other,
            "why": self.fastest.why,
            "int8_of_fp32": self.fastest.int8_of_fp32,
            "threads": self.ledger.n_threads,
            "environment": environment(),
            "largest": "parameters outside the embeddings, then vocabulary",
            "students": [self._student(shape) for shape in self._shown()],
            "yaml": None if self.chosen is None else _yaml(self.candidates.section(self.chosen)),
            "measured": self._measured(),
            "grid": [self._on_grid(shape) for shape in self.shapes],
            "median_error": errors[self.own],
            "median_error_other": errors[self.other],
            "cost_model": describe(self.model[self.own]),
            "cost_model_other": describe(self.model[self.other]),
            "notes": list(self.notes),
        }

    def _shown(self) -> list[Shape]:
        """Return the best shape of each depth and the chosen one, the largest first; if none fits, the nearest."""
        if self.chosen is None:
            return [nearest(self.here, self.budget)]
        shapes = {*best_by_depth(self.costs[self.own], self.budget), self.chosen}
        return sorted(shapes, key=lambda shape: shape.capacity, reverse=True)

    def _student(self, shape: Shape) -> dict[str, Any]:
        by_precision = {
            name: {
                "measured": self.known[name].get(shape),
                "fits": self.budget.fits(self.costs[name][shape]),
                "predicted": (self.before if shape in self.known[name] else self.model)[name].predict(shape),
            }
            for name in PRECISIONS
        }
        return {
            "shape": asdict(shape),
            "encoder_parameters": shape.encoder_parameters,
            **by_precision[self.own],
            "by_precision": by_precision,
            "student": self.candidates.section(shape),
        }

    def _measured(self) -> list[dict[str, Any]]:
        fitted = {measurement.shape for measurement in self.ledger.rows("measured", precision=self.own)}
        return [
            {
                "shape": asdict(measurement.shape),
                **measurement.costs(),
                "predicted": self.before[self.own].predict(measurement.shape),
                "fitted": measurement.shape in fitted,
                "other": self.known[self.other].get(measurement.shape),
            }
            for measurement in self.rows[self.own]
        ]

    def _on_grid(self, shape: Shape) -> dict[str, Any]:
        return {
            "shape": asdict(shape),
            "encoder_parameters": shape.encoder_parameters,
            **self.costs[self.own][shape],
            "other": self.costs[self.other][shape],
        }


def _yaml(section: Mapping[str, Any]) -> str:
    """Validate a student section and return it as YAML."""
    Student.model_validate(section)
    text = yaml.safe_dump({"student": section}, sort_keys=False, allow_unicode=True, default_flow_style=None, width=160)
    return str(text)


def check_model(recipe: Recipe, model: Path) -> dict[str, Any]:
    """Measure a finished export of any precision the way a plan measures shapes: on the recipe's texts, at its length.

    :returns: its costs, the budget, and `excess`, the largest ratio of a cost to its budget
    """
    from distill.runtime.opening import load

    plan, run = recipe.plan, Run(recipe)
    length = length_of(run)
    scorer = load(model, runtime="openvino", n_threads=plan.threads, max_length=length)
    texts = texts_of_length(scorer.tokenizer, run.learned.training_texts, length, scorer.kind)
    result = measure_folders(
        [(model.name, model)],
        texts,
        length=length,
        n_threads=plan.threads or usable_cpus(),
        seconds=2 * plan.seconds,
    )[0]
    budget = CostLimits(plan.budget_p95_ms, plan.budget_mb)
    costs = cost_row(result)["costs"]
    return {"model": str(model), "budget": asdict(budget), **costs, "excess": budget.excess(costs), "margin": MARGIN}
