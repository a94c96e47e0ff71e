"""Queries with candidates that `distill mine` found, of two Korean sets, to train and to evaluate rankings on.

    python -m tests.benchmarks.mined_candidates data/question_pair data/question_lists --mine teacher=MODEL relative-margin=0.05

StyleKQC has clusters of ten sentences of one meaning. For training, each of five queries of a cluster has one of its other
sentences as the positive, and `distill mine` finds negatives among all positives, of which some are unknown answers. For
evaluation, the first sentence of a cluster is the query, the nine others are positives, and BM25's best sentences of other clusters
fill the list.

Question pair has pairs of questions, labelled same or not. Pairs that differ in white space alone are left out. For training,
`distill mine` finds negatives among the second questions. For evaluation, each first question of a positive has its second one
as the only positive, and BM25's best of all questions of the set fill the list, if they are no labelled positives; a few of
them will be unlabelled ones.
"""

import argparse
import csv
import itertools
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from distill.mining.retrieval import Bm25

__all__ = ["SETS", "write_mined_candidates"]

N_CLUSTERS, N_PAIRS, N_CANDIDATES = 600, 5, 50
Row = tuple[str, str, int, str, str]  # query, document, label, and the cluster of each, "" if it is unknown


def write_mined_candidates(source: Path, output: Path, options: Sequence[str] | None) -> tuple[Path, Path]:
    """Write training and evaluation pairs below the output, if they are not there; return the two files.

    :param source: folder of train.csv and dev.csv, named like one of SETS
    :param options: further options of `distill mine`; None mines nothing and trains on the given pairs
    """
    given_rows, evaluation_rows, known = SETS[source.name]
    train, evaluation, pairs = output / "mined" / "pairs.jsonl", output / "evaluation.csv", output / "pairs.csv"
    output.mkdir(parents=True, exist_ok=True)
    if not evaluation.is_file():
        _write(evaluation, evaluation_rows(source))
    if not pairs.is_file():
        _write(pairs, given_rows(source))
    if options is None:
        return pairs, evaluation
    if not train.is_file():
        command = [sys.executable, "-m", "recipes.cli", "mine", str(pairs), str(train.parent)]
        subprocess.run([*command, *known, *options], check=True)
    return train, evaluation


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["query", "document", "label", "a", "b"])
        table.writerows(rows)


# ---------------------------------------------------------------------------------------------------------------------
# StyleKQC
# ---------------------------------------------------------------------------------------------------------------------


def _clusters(path: Path) -> dict[str, list[str]]:
    """Return the sentences of each cluster; a sentence of several clusters counts in its first."""
    cluster_of: dict[str, str] = {}
    for row in _rows(path):
        cluster_of.setdefault(row["sentence"], row["cluster"])
    clusters = defaultdict(list)
    for sentence, name in cluster_of.items():
        clusters[name].append(sentence)
    return dict(clusters)


def _positives_of_clusters(source: Path) -> Iterable[Row]:
    for name, sentences in itertools.islice(_clusters(source / "train.csv").items(), N_CLUSTERS):
        for query, document in zip(sentences[:N_PAIRS], sentences[N_PAIRS:], strict=False):
            yield query, document, 1, name, name


def _lists_of_clusters(source: Path) -> Iterable[Row]:
    clusters = _clusters(source / "dev.csv")
    cluster_of = {sentence: name for name, sentences in clusters.items() for sentence in sentences}
    documents = list(cluster_of)
    found = _nearest([sentences[0] for sentences in clusters.values()], documents, len(documents))
    for (name, sentences), near in zip(clusters.items(), found, strict=True):
        others = [document for document in near if cluster_of[document] != name]
        for document in [*sentences[1:], *others[: N_CANDIDATES - len(sentences) + 1]]:
            yield sentences[0], document, int(cluster_of[document] == name), name, cluster_of[document]


# ---------------------------------------------------------------------------------------------------------------------
# Question pair
# ---------------------------------------------------------------------------------------------------------------------


def _questions(path: Path) -> list[tuple[str, str, int]]:
    pairs = [(row["question1"], row["question2"], int(row["label"])) for row in _rows(path)]
    return [(one, other, label) for one, other, label in pairs if _joined(one) != _joined(other)]


def _labelled_questions(source: Path) -> Iterable[Row]:
    for query, document, label in _questions(source / "train.csv"):
        yield query, document, label, "", ""


def _lists_of_questions(source: Path) -> Iterable[Row]:
    pairs, held_out = _questions(source / "train.csv"), _questions(source / "dev.csv")
    same = {frozenset(pair[:2]) for pair in [*pairs, *held_out] if pair[2]}
    documents = list(dict.fromkeys(text for pair in [*held_out, *pairs] for text in pair[:2]))
    positives = {query: document for query, document, label in held_out if label}
    for (query, positive), near in zip(
        positives.items(), _nearest(list(positives), documents, 2 * N_CANDIDATES), strict=True
    ):
        others = [text for text in near if _joined(text) != _joined(query) and frozenset((query, text)) not in same]
        yield query, positive, 1, "", ""
        for document in others[: N_CANDIDATES - 1]:
            yield query, document, 0, "", ""


def _joined(text: str) -> str:
    return "".join(text.split())


def _nearest(queries: Sequence[str], documents: Sequence[str], depth: int) -> Iterable[list[str]]:
    """Yield the documents that BM25 over characters finds for each query, the best first."""
    rows, _ = Bm25(documents, terms="char").search(queries, depth)
    for found in rows:
        yield [documents[row] for row in found if row >= 0]


SETS = {  # rows of training pairs and of evaluation pairs, and what distill mine is told of them
    "stylekqc": (_positives_of_clusters, _lists_of_clusters, ["--clusters", "a,b"]),
    "question_pair": (_labelled_questions, _lists_of_questions, []),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of train.csv and dev.csv, named like one of the sets")
    parser.add_argument("output", type=Path)
    parser.add_argument("--mine", nargs="*", default=[], metavar="OPTION", help="options of distill mine, without --")
    given = parser.parse_args()
    print(*write_mined_candidates(given.source, given.output, [f"--{option}" for option in given.mine]), sep="\n")
