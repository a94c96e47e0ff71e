"""What objectives on layers add to embedding_match: MiniLM-L6 into three of its layers, STS-B, the same steps and seeds.

    distill fetch-data stsb
    python -m tests.benchmarks.layer_objectives --seeds 0 1 --steps 150 -o runs/layer_objectives

Teacher and student are those of recipes/stsb_en.yaml (the layers 0, 4 and 5 stay), without unlabelled texts; no weight is tuned. Of
each run stand there Spearman on the 1,500 dev pairs with its 95 % interval, the mean cosine of the student's embeddings to
the teacher's on 400 dev texts, and the seconds of the training. A finished run is not repeated.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from distill.files.artefact import read_card, read_json, write_json
from distill.metrics.measures import evaluate_scores
from distill.recipe.reading import load_recipe
from distill.run import Run
from distill.runtime.opening import load
from students import build_student, train_student
from teachers import cache_signals, train_teachers

RELATIONS = "objectives.relation_match={teacher: minilm, heads: 48}"
HIDDEN = "objectives.hidden_match={teacher: minilm, loss: mse, embeddings: true}"
VARIANTS = {
    "embedding_match": [],
    "+ relation_match": [RELATIONS],
    "+ hidden_match": [HIDDEN],
    "+ both": [RELATIONS, HIDDEN],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the recipe")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/layer_objectives"))
    given = parser.parse_args()
    for seed in given.seeds:
        for variant in given.variants:
            changes = [f"seed={seed}", f"training.max_steps={given.steps}", *VARIANTS[variant], *given.set]
            print(line(variant, seed, measured(given.output, f"{variant.strip('+ ')}-{seed}", changes)), flush=True)


def measured(output: Path, name: str, changes: list[str]) -> dict[str, Any]:
    """Train and measure one variant."""
    settings = [
        f"output_dir={output / name}",
        "data.unlabelled=[]",
        "student.layers=[0, 4, 5]",
        "student.control=false",
    ]
    run = Run(load_recipe("recipes/stsb_en.yaml", [*settings, "export.precisions=[]", *changes]))
    found = run.folder / "measured.json"
    if found.is_file():
        return read_json(found)
    finished = next((path.parent for path in sorted(output.glob("*/measured.json"))), None)
    if (
        finished is not None and not run.folder.exists()
    ):  # the teacher is frozen, and what it says of a text is the same
        run.work.mkdir(parents=True)
        for part in ("teachers", "signals"):
            shutil.copytree(finished / part, run.folder / part)
    with run.lock():
        for stage in (train_teachers, cache_signals, build_student, train_student):
            stage(run)
    write_json(found, scores_of(run))
    return read_json(found)


def scores_of(run: Run) -> dict[str, Any]:
    """Measure a finished student on the evaluation pairs."""
    pairs = run.split.evaluation
    student, teacher = (
        load(folder, runtime="torch", precision="fp32") for folder in (run.student, run.teacher("minilm"))
    )
    columns = {"labels": pairs.labels, "query_ids": pairs.query_ids, "seed": 0}
    spearman = evaluate_scores(scores=student.score(pairs.queries, pairs.documents), **columns)["spearman"]
    texts = list(dict.fromkeys([*pairs.queries, *pairs.documents]))[:400]
    sides = [model.encode(texts) for model in (student, teacher)]
    norms = [np.linalg.norm(side, axis=1) for side in sides]
    cosine = float(((sides[0] * sides[1]).sum(axis=1) / (norms[0] * norms[1])).mean())
    details = read_card(run.student).details
    rows = [row for row in details["history"] if "learning_rate" in row]
    skipped = ("step", "seconds", "learning_rate", "grad_norm")
    return {
        "spearman": [spearman.value, spearman.low, spearman.high],
        "cosine": cosine,
        "seconds": details["training"]["seconds"],
        "steps": details["training"]["step"],
        "precision": details["training"]["precision"],
        "losses": [{name: value for name, value in row.items() if name not in skipped} for row in (rows[0], rows[-1])],
    }


def line(variant: str, seed: int, found: dict[str, Any]) -> str:
    value, low, high = found["spearman"]
    return (
        f"| {variant} | {seed} | {value:.4f} ({low:.4f}–{high:.4f}) | {found['cosine']:.4f} | {found['seconds']:.0f} s | "
        f"{found['precision']}, {found['steps']} steps, losses {found['losses'][0]} → {found['losses'][1]}"
    )


if __name__ == "__main__":
    main()
