"""How far the planner's predictions are from measurements, on shapes that it never measured.

    python -m tests.benchmarks.planner_error runs/plan --budget-p95-ms 5 --threads 2

Plans (or takes the plan that is there), draws shapes that cost between a quarter and three times the budget and were not
measured, measures them in turns, and prints each beside its prediction. Two processes' worth of cores and about
four minutes for the plan and four for the shapes; ends with 1 where the median error of p95 is above 10 %.
"""

import argparse
import json
import random
import sys
from pathlib import Path

import numpy as np

from distill.recipe.planning import load_plan
from distill.run import Run
from recipes._launch import set_up_messages
from students.plan.cost_model import COSTS, Shape
from students.plan.ledger import Ledger
from students.plan.search_shapes import make_plan
from students.plan.shapes import Candidates

LIMIT = 0.10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--budget-p95-ms", type=float, default=5.0)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--kind", choices=["bi_encoder", "cross_encoder"])
    parser.add_argument("--family", choices=["bert", "xlm-roberta"])
    parser.add_argument("--shapes", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    given = {name: getattr(arguments, name) for name in ("budget_p95_ms", "length", "threads", "kind", "family")}
    recipe, folder = load_plan(None, [], given, arguments.folder)
    set_up_messages()
    if not (folder / "plan.json").is_file():
        make_plan(recipe, folder)
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    predicted = {Shape(**row["shape"]): row for row in plan["grid"]}
    seen = {Shape(**row["shape"]) for row in plan["measured"]}
    low, high = 0.25 * arguments.budget_p95_ms, 3 * arguments.budget_p95_ms
    unseen = [shape for shape, row in predicted.items() if shape not in seen and low <= row["p95_ms"] <= high]
    drawn = sorted(random.Random(arguments.seed).sample(unseen, min(arguments.shapes, len(unseen))))
    measured = measure(recipe, folder, drawn, plan["precision"])
    return report(drawn, predicted, measured, folder)


def measure(recipe, folder, shapes, precision):
    work = folder / ".shapes"
    work.mkdir(exist_ok=True)
    ledger = Ledger(folder / "measurements.json", Candidates(Run(recipe), work))
    ledger.measure("held_out", shapes, seconds=recipe.plan.seconds)
    return {one.shape: one.costs() for one in ledger.rows("held_out", precision=precision)}


def report(shapes, predicted, measured, folder):
    errors = {cost: [predicted[shape][cost] / measured[shape][cost] - 1 for shape in shapes] for cost in COSTS}
    print(f"{'shape':<48}" + "".join(f"{cost:>10}{'predicted':>11}{'error':>8}" for cost in COSTS))
    for place, shape in enumerate(shapes):
        cells = (
            f"{measured[shape][cost]:>10.2f}{predicted[shape][cost]:>11.2f}{errors[cost][place]:>+8.1%}"
            for cost in COSTS
        )
        print(f"{shape!s:<48}" + "".join(cells))
    median = {cost: float(np.median(np.abs(values))) for cost, values in errors.items()}
    worst = {cost: float(np.max(np.abs(values))) for cost, values in errors.items()}
    print(
        f"median error over {len(shapes)} shapes: " + ", ".join(f"{cost} {value:.1%}" for cost, value in median.items())
    )
    print("largest: " + ", ".join(f"{cost} {value:.1%}" for cost, value in worst.items()))
    (folder / "planner_error.json").write_text(
        json.dumps({"n": len(shapes), "median": median, "largest": worst}, indent=2)
    )
    return int(median["p95_ms"] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
