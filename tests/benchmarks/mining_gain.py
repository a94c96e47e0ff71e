"""What mined negatives give a student that learns to rank with InfoNCE, by how they were found and filtered.

    python -m tests.benchmarks.mining_gain question_pair MODEL --data DATA -o runs/mining_gain     # MODEL: a bi-encoder's folder

Every row starts from MODEL, with the same steps of 16 queries. "given pairs" takes its negatives from the step
alone; the other rows add up to 8 mined documents to a query. MODEL filters where the row says so. Each learning rate has
a table of its own: the validation pairs are of each row's own file, so they cannot choose a rate that is fair to all rows. The
evaluation lists are filled by BM25: a row that trains on BM25's nearest meets the same kind of negatives again.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.mined_candidates import SETS, write_mined_candidates
from tests.benchmarks.objectives import folder_name, print_table, trained

GIVEN = "given pairs"
FOUND: dict[str, Sequence[str] | None] = {  # options of `distill mine`
    GIVEN: None,
    "BM25, all": [],
    "BM25, filtered": ["--teacher=MODEL", "--relative-margin=0.05"],
    "MODEL, all": ["--retriever=MODEL"],
    "MODEL, filtered": ["--retriever=MODEL", "--relative-margin=0.05"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("route", choices=SETS)
    parser.add_argument(
        "model", help="folder of the bi-encoder that the student starts from, and that filters or finds"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4])
    parser.add_argument("--rows", nargs="+", default=list(FOUND), choices=list(FOUND))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of ROUTE/{train,dev}.csv")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/mining_gain"))
    given = parser.parse_args()
    rows: dict[float, dict[str, list[dict[str, Any]]]] = {rate: {} for rate in given.rates}
    for name in given.rows:
        one = with_candidates(name, given)
        for rate in given.rates:
            runs = [trained("labels: infonce", seed, rate, one) for seed in given.seeds]
            print(f"{name}: rate {rate:g}, " + " ".join(f"{run['value']:.4f}" for run in runs), flush=True)
            rows[rate][name] = runs
    for table in rows.values():
        print_table(table, one, (GIVEN, GIVEN if GIVEN in table else None))


def with_candidates(name: str, given: argparse.Namespace) -> argparse.Namespace:
    """Find the candidates of a row, and return the arguments of its trainings."""
    options = FOUND[name]
    if options is not None:
        options = [option.replace("MODEL", given.model) for option in options]
    folder = given.output / folder_name(name)
    train, evaluation = write_mined_candidates(given.data / given.route, folder, options)
    changes = [f"data.train={train}", f"data.evaluation={evaluation}", "teachers={}"]
    changes += [f"student.backbone={given.model}", "student.layers=null"]
    return argparse.Namespace(**{**vars(given), "output": folder, "set": changes})


if __name__ == "__main__":
    main()
