"""Queries of StyleKQC with candidates that `distill mine` found, to train and to evaluate rankings on.

StyleKQC has clusters of ten Korean sentences of one meaning. For training, each of five queries of a cluster has one of its other
sentences as the positive, and `distill mine` finds negatives among all positives, of which some are unknown answers. For
evaluation, the first sentence of a cluster is the query, the nine others are positives, and BM25's best sentences of other clusters
fill the list.
"""

import csv
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from distill.mining.retrieval import Bm25

__all__ = ["write_mined_candidates"]

N_CLUSTERS, N_PAIRS, N_CANDIDATES = 600, 5, 50


def write_mined_candidates(source: Path, output: Path, options: Sequence[str]) -> tuple[Path, Path]:
    """Write training and evaluation pairs below the output, if they are not there; return the two files.

    :param source: folder of train.csv and dev.csv with the columns cluster and sentence
    :param options: further options of `distill mine`
    """
    train, evaluation, pairs = output / "mined" / "pairs.jsonl", output / "evaluation.csv", output / "pairs.csv"
    output.mkdir(parents=True, exist_ok=True)
    if not evaluation.is_file():
        _write(evaluation, _evaluation_rows(_clusters(source / "dev.csv")))
    if not train.is_file():
        _write(pairs, _positives(_clusters(source / "train.csv")))
        command = [sys.executable, "-m", "recipes.cli", "mine", str(pairs), str(train.parent), "--clusters", "a,b"]
        subprocess.run([*command, *options], check=True)
    return train, evaluation


def _clusters(path: Path) -> dict[str, list[str]]:
    """Return the sentences of each cluster; a sentence of several clusters counts in its first."""
    cluster_of: dict[str, str] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            cluster_of.setdefault(row["sentence"], row["cluster"])
    clusters = defaultdict(list)
    for sentence, name in cluster_of.items():
        clusters[name].append(sentence)
    return dict(clusters)


def _positives(clusters: dict[str, list[str]]) -> Iterable[tuple[str, str, int, str, str]]:
    for name, sentences in list(clusters.items())[:N_CLUSTERS]:
        for query, document in zip(sentences[:N_PAIRS], sentences[N_PAIRS:], strict=False):
            yield query, document, 1, name, name


def _evaluation_rows(clusters: dict[str, list[str]]) -> Iterable[tuple[str, str, int, str, str]]:
    cluster_of = {sentence: name for name, sentences in clusters.items() for sentence in sentences}
    documents = list(cluster_of)
    rows, _ = Bm25(documents, terms="char").search([sentences[0] for sentences in clusters.values()], len(documents))
    for (name, sentences), found in zip(clusters.items(), rows, strict=True):
        others = [documents[row] for row in found if row >= 0 and cluster_of[documents[row]] != name]
        for document in [*sentences[1:], *others[: N_CANDIDATES - len(sentences) + 1]]:
            yield sentences[0], document, int(cluster_of[document] == name), name, cluster_of[document]


def _write(path: Path, rows: Iterable[tuple[str, str, int, str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["query", "document", "label", "a", "b"])
        table.writerows(rows)
