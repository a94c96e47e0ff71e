"""What each objective gives on four routes, from the same start, with the same steps and seeds.

    python -m tests.benchmarks.objectives stsb_en --steps 100 -o runs/objectives_stsb        # after: distill fetch-data stsb
    python -m tests.benchmarks.objectives korsts -o runs/objectives_korsts                   # after: distill run korean_english
    python -m tests.benchmarks.objectives question_pair --data DATA -o runs/objectives_question_pair

| route | teacher | student | pairs | metric |
|---|---|---|---|---|
| stsb_en | MiniLM-L6, frozen | three of its layers | STS-B | Spearman |
| korsts | the Korean–English student, trained on the labels | one of its layers | KorSTS | Spearman |
| stylekqc | the same, trained on labels and mined negatives | one of its layers | 3,000 queries with mined candidates | nDCG@10 |
| question_pair | the same | one of its layers | 3,300 queries with mined candidates | nDCG@10 |

Every objective takes the learning rate of --rates that is best for it on the validation pairs, with the first seed. Its weight is
1, in mixtures too. The teacher of a seed is the same for all rows. A row has the metric on the evaluation pairs, of each seed and
their mean, and the mean's difference to the best row of labels alone with a 95 % interval: a bootstrap over the queries, of the
mean over the seeds. A finished run is not repeated.
"""

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import Pairs
from distill.files.artefact import read_json, write_json
from distill.metrics.columns import ScoredColumns
from distill.metrics.measures import defined_metrics, metric_value, paired_samples
from distill.recipe.reading import load_recipe
from distill.run import Run
from distill.runtime.opening import load
from students import build_student, train_student
from teachers import cache_signals, train_teachers
from tests.benchmarks.mined_candidates import SETS, write_mined_candidates

LABELS = {
    "labels: cosent": {"cosent": {}},
    "labels: contrastive": {"labels": {"loss": "contrastive"}},
    "labels: bce": {"labels": {"loss": "bce"}},
}
OF_PAIRS: Mapping[str, dict[str, Any]] = {
    **LABELS,
    "embedding_match": {"embedding_match": {"loss": "cosine"}},
    "embedding_match mse": {"embedding_match": {"loss": "mse"}},
    "score_match mse": {"score_match": {"loss": "mse"}},
    "cosent of the teacher": {"cosent": {"teacher": True}},
    "rkd": {"rkd": {}},
    "similarity": {"similarity": {}},
    "cka": {"cka": {}},
    "embedding_match + similarity": {"embedding_match": {"loss": "cosine"}, "similarity": {}},
    "embedding_match + cosent": {"embedding_match": {"loss": "cosine"}, "cosent": {}},
    "similarity + cosent": {"similarity": {}, "cosent": {}},
    "embedding_match + relation_match": {"embedding_match": {"loss": "cosine"}, "relation_match": {"heads": 48}},
    "embedding_match + hidden_match": {
        "embedding_match": {"loss": "cosine"},
        "hidden_match": {"loss": "mse", "embeddings": True},
    },
}
OF_LISTS: Mapping[str, dict[str, Any]] = {
    "labels: infonce": {"labels": {"loss": "infonce"}},
    "labels: listnet": {"listnet": {}},
    "labels: cosent": {"cosent": {}},
    "labels: bce": {"labels": {"loss": "bce"}},
    "margin_mse": {"margin_mse": {"teacher": True}},
    "kl": {"score_match": {"loss": "kl"}},
    "listnet": {"listnet": {"teacher": True}},
    "ranknet": {"ranknet": {"teacher": True}},
    "lambda_loss": {"lambda_loss": {"teacher": True}},
    "list_mle": {"list_mle": {"teacher": True}},
    "adr_mse": {"adr_mse": {"teacher": True}},
    "cosent of the teacher": {"cosent": {"teacher": True}},
    "score_match mse": {"score_match": {"loss": "mse"}},
    "embedding_match": {"embedding_match": {"loss": "cosine"}},
    "margin_mse + labels: infonce": {"margin_mse": {"teacher": True}, "labels": {"loss": "infonce"}},
    "embedding_match + labels: infonce": {"embedding_match": {"loss": "cosine"}, "labels": {"loss": "infonce"}},
}
_FROM_TEACHER = ("embedding_match", "score_match", "rkd", "similarity", "cka", "relation_match", "hidden_match")
N_DRAWS = 1000


@dataclass(frozen=True)
class Route:
    """A recipe with its changes, its teacher, the rows of its table, and the metric."""

    recipe: str
    teacher: str
    changes: tuple[str, ...]
    rows: Mapping[str, dict[str, Any]]
    metric: str

    def objectives(self, name: str) -> dict[str, Any]:
        """Return the section `objectives` of a row, with the teacher's name where one is needed."""
        section = {}
        for term, settings in self.rows[name].items():
            is_taught = settings.get("teacher") is True or term in _FROM_TEACHER
            section[term] = {**settings, "teacher": self.teacher} if is_taught else settings
        return section

    def is_labels_alone(self, name: str) -> bool:
        """Tell whether a row uses no teacher."""
        return all("teacher" not in settings for settings in self.objectives(name).values())


_MINED = (
    "data.unlabelled_pairs=[]",
    "data.columns={query: query, document: document, label: label}",
    "data.label_range=[0, 1]",
    "data.candidates=16",
    "teachers.bi.loss=infonce",
    "training.global_batch=16",
    "training.micro_batch=16",
)
ROUTES = {
    "stsb_en": Route(
        "recipes/stsb_en.yaml", "minilm", ("data.unlabelled=[]", "student.layers=[0, 4, 5]"), OF_PAIRS, "spearman"
    ),
    "korsts": Route("recipes/korsts.yaml", "bi", ("data.unlabelled_pairs=[]",), OF_PAIRS, "spearman"),
    **dict.fromkeys(SETS, Route("recipes/korsts.yaml", "bi", _MINED, OF_LISTS, "ndcg_at_10")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("route", choices=ROUTES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3])
    parser.add_argument("--rows", nargs="+", help="some of the table's rows; default: all")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the recipe")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of ROUTE/{train,dev}.csv")
    parser.add_argument(
        "--mine", nargs="*", default=[], metavar="OPTION", help="options of distill mine, without their --"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/objectives"))
    given = parser.parse_args()
    if given.route in SETS:
        options = [f"--{option}" for option in given.mine]
        train, evaluation = write_mined_candidates(given.data / given.route, given.output / "data", options)
        given.set = [f"data.train={train}", f"data.evaluation={evaluation}", *given.set]
    rows = {}
    for name in given.rows or ROUTES[given.route].rows:
        rows[name] = measured(name, given)
        values = " ".join(f"{run['value']:.4f}" for run in rows[name])
        print(f"{name}: rate {rows[name][0]['rate']:g}, {ROUTES[given.route].metric} {values}", flush=True)
    labels_alone = [name for name in rows if ROUTES[given.route].is_labels_alone(name)]
    best = max(labels_alone, key=lambda name: mean_of(rows[name]), default=None)
    print_table(rows, given, ("best labels", best))


def measured(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Train and measure an objective with each seed, at its best learning rate."""
    first, *others = given.seeds
    tried = [trained(name, first, rate, given) for rate in given.rates]
    best = max(tried, key=lambda run: float(run["validation"]))
    return [best, *(trained(name, seed, best["rate"], given) for seed in others)]


def trained(name: str, seed: int, rate: float, given: argparse.Namespace) -> dict[str, Any]:
    folder = f"{folder_name(name)}-{rate:g}-{seed}"
    run = run_of(folder, name, seed, rate, given)
    found = run.folder / "measured.json"
    if found.is_file():
        return read_json(found)
    if not run.folder.exists():  # the teacher of a seed, and what it says of a text, are the same
        run.work.mkdir(parents=True)
        finished = [path.parent for path in sorted(given.output.glob(f"*-{seed}/measured.json"))]
        for part in ("teachers", "signals"):
            made = next((folder / part for folder in finished if (folder / part).is_dir()), None)
            if made is not None:  # a run of labels alone has no signals
                shutil.copytree(made, run.folder / part)
    with run.lock():
        for stage in (train_teachers, cache_signals, build_student, train_student):
            stage(run)
    write_json(found, {"rate": rate, "seed": seed, **scores_of(run, ROUTES[given.route].metric)})
    return read_json(found)


def folder_name(row: str) -> str:
    """Return a row's name as that of a folder."""
    return "".join(letter if letter.isalnum() else "_" for letter in row)


def run_of(folder: str, name: str, seed: int, rate: float, given: argparse.Namespace) -> Run:
    route = ROUTES[given.route]
    changes = [f"output_dir={given.output / folder}", f"seed={seed}", f"objectives={route.objectives(name)!r}"]
    changes += [f"student.training={{max_steps: {given.steps}, learning_rate: {rate}}}", "student.control=false"]
    return Run(load_recipe(route.recipe, [*route.changes, "export.precisions=[]", *changes, *given.set]))


def scores_of(run: Run, metric: str) -> dict[str, Any]:
    """Score evaluation and validation pairs with a finished student; a metric that is not defined is None."""
    student, values, scores = load(run.student, runtime="torch", precision="fp32"), {}, None
    for part, pairs in (("validation", run.split.validation), ("value", run.split.evaluation)):
        scores = np.asarray(student.score(pairs.queries, pairs.documents))
        columns = columns_of(scores, pairs)
        values[part] = metric_value(metric, columns) if metric in defined_metrics(columns) else None
    assert scores is not None
    return {**values, "scores": scores.tolist()}


def columns_of(scores: Any, pairs: Pairs) -> ScoredColumns:
    return ScoredColumns.checked(scores, **pairs.metric_columns)


def mean_of(runs: list[dict[str, Any]]) -> float:
    return float(np.mean([run["value"] for run in runs]))


def print_table(
    rows: Mapping[str, list[dict[str, Any]]], given: argparse.Namespace, compared: tuple[str, str | None]
) -> None:
    """Print each row's mean and its difference to a row, of which `compared` gives what it is called and its name."""
    route = ROUTES[given.route]
    pairs = run_of("table", next(iter(route.rows)), given.seeds[0], given.rates[0], given).split.evaluation
    called, control = compared
    print(f"\n| learns | rate | {route.metric} by seed | mean | − {called} (95 %) |\n|---|---|---|---|---|")
    for name, runs in rows.items():
        by_seed = ", ".join(f"{run['value']:.4f}" for run in runs)
        difference = ""
        if control is not None and name != control:
            low, high = interval(runs, rows[control], pairs, route.metric)
            difference = f"{mean_of(runs) - mean_of(rows[control]):+.4f} ({low:+.4f} to {high:+.4f})"
        print(f"| {name} | {runs[0]['rate']:g} | {by_seed} | {mean_of(runs):.4f} | {difference} |")


def interval(
    runs: list[dict[str, Any]], others: list[dict[str, Any]], pairs: Pairs, metric: str
) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two rows' means over the seeds, from the same resamples."""
    samples = [
        paired_samples(
            metric, columns_of(run["scores"], pairs), columns_of(other["scores"], pairs), n_bootstrap=N_DRAWS, seed=0
        )[1]
        for run, other in zip(runs, others, strict=True)
    ]
    low, high = np.nanquantile(np.mean(samples, axis=0), [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
