"""Résumés of job families that no model saw: recipes/resume_jd.yaml, trained on three quarters of the families.

    distill run korean_english
    python -m tests.benchmarks.resume_families -o runs/resume_families --set teachers.bi.backbone=runs/korean_english/student

Writes bundled pairs of all families but every fourth (4,500, and 4,500 more to be used without labels), and two sets of 900 pairs:
`seen`, other pairs of the same families, and `unseen`, pairs of the left-out families. Runs the recipe, reports on both sets and
prints each model's ROC-AUC on them.
"""

import argparse
import csv
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from distill.data import bundled
from distill.data.bundled_words import FAMILIES
from distill.files.artefact import read_json

UNSEEN = FAMILIES[::4]
SEEN = tuple(family for family in FAMILIES if family not in UNSEEN)
N_CANDIDATES = 4
PARTS = {
    "train": (SEEN, 0, 4500),
    "unlabelled": (SEEN, 4500, 4500),
    "seen": (SEEN, 9000, 900),
    "unseen": (UNSEEN, 0, 900),
}
"""The families of each file, the number of its first pair and its length."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the recipe")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/resume_families"))
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    files = {name: write_pairs(given.output / f"{name}.csv", name, given.seed) for name in PARTS}
    values = {part: reported(files, part, given) for part in ("seen", "unseen")}
    print("\n| model | " + " | ".join(values) + " |\n|---|---|---|")
    for name, value in values["seen"].items():
        print(f"| {name} | {value} | {values['unseen'].get(name, '')} |")


def write_pairs(path: Path, part: str, seed: int) -> Path:
    families, start, n_pairs = PARTS[part]
    with patch.object(bundled, "FAMILIES", families):
        groups = bundled.generate_groups(
            n_pairs // N_CANDIDATES, seed=seed, n_candidates=N_CANDIDATES, start=start // N_CANDIDATES
        )
        pairs = [pair for group in groups for pair in group]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["resume", "jd", "label"])
        table.writerows((pair.resume, pair.jd, pair.label) for pair in pairs)
    return path


def reported(files: dict[str, Path], part: str, given: argparse.Namespace) -> dict[str, str]:
    """Run the recipe with a set of evaluation pairs: what is trained does not depend on it. Return the ROC-AUC of each row."""
    columns = "{query: resume, document: jd, label: label}"
    changes: Sequence[str] = [
        f"data.train={files['train']}",
        f"data.evaluation={files[part]}",
        f"data.columns={columns}",
        f"data.unlabelled_pairs=[{{path: {files['unlabelled']}}}]",
        f"output_dir={given.output / 'run'}",
        f"seed={given.seed}",
    ]
    command = [sys.executable, "-m", "recipes.cli", "run", "recipes/resume_jd.yaml", *changes, *given.set]
    shutil.rmtree(given.output / "run" / "baselines", ignore_errors=True)  # TF-IDF's terms heed the evaluation pairs
    subprocess.run(command, check=True)
    rows = read_json(given.output / "run" / "report" / "benchmark.json")["rows"]
    estimates = {row["name"]: row["metrics"]["roc_auc"] for row in rows}
    return {name: f"{roc['value']:.3f} ({roc['low']:.3f}–{roc['high']:.3f})" for name, roc in estimates.items()}


if __name__ == "__main__":
    main()
