"""What each objective gives: MiniLM-L6 into three of its layers on STS-B, from the same start, with the same steps and seeds.

    distill fetch-data stsb
    python -m tests.benchmarks.objectives --seeds 0 1 2 --steps 100 -o runs/objectives

Teacher and student are those of recipes/stsb_en.yaml (the layers 0, 4 and 5 stay), without unlabelled texts. Every objective takes
the learning rate of --rates that is best for it on the validation pairs, with the first seed. Its weight is 1, in mixtures too.
A row has Spearman on the 1,500 dev pairs, of each seed and their mean, and the mean's difference to the best row of labels
alone with a 95 % interval: a bootstrap over the dev pairs, of the mean over the seeds. A finished run is not repeated.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from distill.files.artefact import read_json, write_json
from distill.recipe.reading import load_recipe
from distill.run import Run
from distill.runtime.opening import load
from students import build_student, train_student
from teachers import cache_signals, train_teachers

MATCH = "objectives.embedding_match={teacher: minilm, loss: cosine}"
NO_MATCH = "objectives.embedding_match=null"
OBJECTIVES = {
    "embedding_match mse": ["objectives.embedding_match={teacher: minilm, loss: mse}"],
    "score_match mse": [NO_MATCH, "objectives.score_match={teacher: minilm, loss: mse}"],
    "rkd": [NO_MATCH, "objectives.rkd={teacher: minilm}"],
    "similarity": [NO_MATCH, "objectives.similarity={teacher: minilm}"],
    "cka": [NO_MATCH, "objectives.cka={teacher: minilm}"],
    "embedding_match": [],
    "embedding_match + similarity": ["objectives.similarity={teacher: minilm}"],
    "embedding_match + cosent": ["objectives.cosent={}"],
    "similarity + cosent": [NO_MATCH, "objectives.similarity={teacher: minilm}", "objectives.cosent={}"],
    "embedding_match + relation_match": ["objectives.relation_match={teacher: minilm, heads: 48}"],
    "embedding_match + hidden_match": ["objectives.hidden_match={teacher: minilm, loss: mse, embeddings: true}"],
}
LABELS = {
    "labels: cosent": [NO_MATCH, "objectives.cosent={}"],
    "labels: mse": [NO_MATCH, "objectives.labels={loss: mse}"],
    "labels: bce": [NO_MATCH, "objectives.labels={loss: bce}"],
}
N_DRAWS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4])
    parser.add_argument("--rows", nargs="+", default=[*LABELS, *OBJECTIVES], choices=[*LABELS, *OBJECTIVES])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the recipe")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/objectives"))
    given = parser.parse_args()
    rows = {}
    for name in given.rows:
        rows[name] = measured(name, given)
        told = " ".join(f"{found['spearman']:.4f}" for found in rows[name])
        print(f"{name}: rate {rows[name][0]['rate']:g}, Spearman {told}", flush=True)
    labels = run_of(given, "labels", []).split.evaluation.labels
    print_table(rows, labels)


def measured(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Train and measure an objective with each seed, at its best learning rate."""
    first, *others = given.seeds
    tried = [trained(name, first, rate, given) for rate in given.rates]
    best = max(tried, key=lambda found: float(found["validation"]))
    return [best, *(trained(name, seed, best["rate"], given) for seed in others)]


def trained(name: str, seed: int, rate: float, given: argparse.Namespace) -> dict[str, Any]:
    changes = [f"seed={seed}", f"training.max_steps={given.steps}", f"training.learning_rate={rate}"]
    folder = f"{''.join(letter if letter.isalnum() else '_' for letter in name)}-{rate:g}-{seed}"
    run = run_of(given, folder, [*{**OBJECTIVES, **LABELS}[name], *changes, *given.set])
    found = run.folder / "measured.json"
    if found.is_file():
        return read_json(found)
    finished = [path.parent for path in sorted(given.output.glob("*/measured.json"))]
    if not run.folder.exists():  # the teacher is frozen, and what it says of a text is the same
        run.work.mkdir(parents=True)
        for part in ("teachers", "signals"):
            made = next((folder / part for folder in finished if (folder / part).is_dir()), None)
            if made is not None:  # a run of labels alone has no signals
                shutil.copytree(made, run.folder / part)
    with run.lock():
        for stage in (train_teachers, cache_signals, build_student, train_student):
            stage(run)
    write_json(found, {"rate": rate, "seed": seed, **scores_of(run)})
    return read_json(found)


def run_of(given: argparse.Namespace, folder: str, changes: list[str]) -> Run:
    settings = [f"output_dir={given.output / folder}", "data.unlabelled=[]", "student.layers=[0, 4, 5]"]
    settings += ["student.control=false", "export.precisions=[]"]
    return Run(load_recipe("recipes/stsb_en.yaml", [*settings, *changes]))


def scores_of(run: Run) -> dict[str, Any]:
    """Score evaluation and validation pairs with a finished student."""
    student, pairs = load(run.student, runtime="torch", precision="fp32"), run.split.evaluation
    scores = np.asarray(student.score(pairs.queries, pairs.documents))
    judged = run.split.validation
    validation = spearman(np.asarray(student.score(judged.queries, judged.documents)), judged.labels)
    return {"spearman": spearman(scores, pairs.labels), "validation": validation, "scores": scores.tolist()}


def spearman(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(scores), rankdata(labels))[0, 1])


def print_table(rows: dict[str, list[dict[str, Any]]], labels: np.ndarray) -> None:
    """Print each row's mean and its difference to the best row of labels alone."""
    draws = np.random.default_rng(0).integers(0, len(labels), size=(N_DRAWS, len(labels)))
    means = {name: np.mean([one["spearman"] for one in found]) for name, found in rows.items()}
    resampled = {name: resampled_means(found, labels, draws) for name, found in rows.items()}
    control = max((name for name in rows if name in LABELS), key=lambda name: float(means[name]), default=None)
    print("\n| objective | rate | Spearman by seed | mean | − best labels (95 %) |\n|---|---|---|---|---|")
    for name, found in rows.items():
        by_seed = ", ".join(f"{one['spearman']:.4f}" for one in found)
        difference = ""
        if control is not None and name != control:
            low, high = np.quantile(resampled[name] - resampled[control], [0.025, 0.975])
            difference = f"{means[name] - means[control]:+.4f} ({low:+.4f} to {high:+.4f})"
        print(f"| {name} | {found[0]['rate']:g} | {by_seed} | {means[name]:.4f} | {difference} |")


def resampled_means(found: list[dict[str, Any]], labels: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return the mean over the seeds for each draw of pairs. *Shape:* (n_draws,)"""
    scores = [np.asarray(one["scores"]) for one in found]
    return np.array([np.mean([spearman(one[rows], labels[rows]) for one in scores]) for rows in draws])


if __name__ == "__main__":
    main()
