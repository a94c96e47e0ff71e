"""A plan, kept: the student that a plan proposes, trained for a moment, exported, and measured again beside the budget.

    python -m tests.benchmarks.planned_student runs/planned --budget-p95-ms 5 --budget-mb 40 --threads 2

Plans a fresh encoder for the bundled pairs, trains the proposed `student:` section for 60 steps on their labels, exports
it in the plan's precision and measures that as `distill plan --check` does. Ends with 1 where it costs more than 1.1 times the budget.
About five minutes on two cores.
"""

import argparse
import json
import sys
from pathlib import Path

import yaml

from recipes.cli import main as distill

DATA = {"train": "bundled", "bundled_pairs": 1500}
LEARNED = {
    "objectives": {"labels": {"loss": "infonce"}},
    "training": {
        "max_steps": 60,
        "learning_rate": 1e-3,
        "dropout": 0.0,
        "tensorboard": False,
        "evaluations_per_epoch": 0,
    },
    # what is asked here is speed: a student of 60 steps is not asked to be good
    "export": {"min_cosine": 0.5, "min_mean_cosine": 0.8, "min_rank_agreement": 0.5},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--budget-p95-ms", default="5")
    parser.add_argument("--budget-mb", default="40")
    parser.add_argument("--length", default="256")
    parser.add_argument("--threads", default="2")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    budget = [
        f"--{name}={getattr(arguments, name.replace('-', '_'))}"
        for name in ("budget-p95-ms", "budget-mb", "length", "threads")
    ]
    recipe = {"name": "planned", "output_dir": str(folder / "run"), "data": DATA}
    path = write(folder / "before.yaml", recipe)
    if code := distill(["plan", str(path), *budget]):
        return code
    proposed = yaml.safe_load((folder / "run" / "plan" / "student.yaml").read_text(encoding="utf-8"))
    proposed["student"]["control"] = False
    plan = json.loads((folder / "run" / "plan" / "plan.json").read_text(encoding="utf-8"))
    precision = plan["precision"]
    learned = {**LEARNED, "export": {**LEARNED["export"], "precisions": [precision]}, "plan": {"precision": precision}}
    path = write(folder / "planned.yaml", {**recipe, **learned, **proposed})
    for stage in ("train-student", "export"):
        if code := distill([stage, str(path)]):
            return code
    measured = next(
        student["measured"] for student in plan["students"] if student["student"] == proposed_backbone(proposed)
    )
    print(
        f"\nplanned: p95 {measured['p95_ms']:.2f} ms, {measured['size_mb']:.1f} MB; trained, exported and measured again:"
    )
    return distill(["plan", str(path), *budget, "--check", str(folder / "run" / "exports" / f"openvino-{precision}")])


def proposed_backbone(proposed):
    return {name: value for name, value in proposed["student"].items() if name != "control"}


def write(path, recipe):
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
