"""Pairs without labels: what the student learns from by the teachers' signals alone.

    data.unlabelled_pairs: path, bundled ──▶ Split.unlabelled_pairs            known before anything is trained
    data.labelled_share, max_labelled    ──▶ the other training pairs          the same
    data.unlabelled_pairs: from          ──▶ pairs that a trained teacher finds, kept in `<run>/.work`

Teachers and control learn from the labelled pairs. A pair that holds a text of the validation or evaluation pairs is left
out and counted, and so is one that stands among the labelled pairs or came before.
"""

import json
import logging
from pathlib import Path

import numpy as np

from distill.data.pairs import Pairs, pairs_of
from distill.files.artefact import content_hash, write_json
from distill.recipe.schema import UnlabelledPairs
from distill.run import Run
from distill.runtime.vectors import nearest_rows

__all__ = ["find_pairs", "taught_pairs"]

log = logging.getLogger(__name__)


def taught_pairs(run: Run) -> Pairs:
    """Return all pairs that the student learns from: the labelled ones, then those without (their label is NaN).

    :raises BadInput: where a teacher that is to find pairs is not trained yet
    """
    split = run.split
    found = [split.train, split.unlabelled_pairs]
    found += [_found(run, settings) for settings in run.recipe.data.unlabelled_pairs if settings.teacher is not None]
    if not any(len(pairs) for pairs in found[1:]):
        return split.train
    labels = split.train.labels
    if labels is None:
        labels = np.full(len(split.train), np.nan, dtype=np.float32)
    seen = set(zip(split.train.queries, split.train.documents, strict=True))
    new_pairs = [
        pair
        for pairs in found[1:]
        for pair in dict.fromkeys(zip(pairs.queries, pairs.documents, strict=True))
        if pair not in seen and not seen.add(pair)  # type: ignore[func-returns-value]
    ]
    extra = pairs_of(new_pairs)
    return Pairs(
        [*split.train.queries, *extra.queries],
        [*split.train.documents, *extra.documents],
        np.concatenate([labels, np.full(len(extra), np.nan, dtype=np.float32)]),
    )


def _found(run: Run, settings: UnlabelledPairs) -> Pairs:
    """Return what a teacher finds; found once for each of its revisions."""
    from accelerate import PartialState

    name = str(settings.teacher)
    texts = Pairs(
        [*run.split.train.queries, *run.split.unlabelled_pairs.queries],
        [*run.split.train.documents, *run.split.unlabelled_pairs.documents],
    )
    inputs = {
        "revision": run.require(run.teacher(name), "train_teacher").revision,
        "per_query": settings.per_query,
        "texts": texts.fingerprint(),
    }
    path = run.work / f"pairs-{name}-{content_hash(inputs)}.json"
    with PartialState().main_process_first():
        if not path.is_file():
            pairs = find_pairs(run.teacher(name), texts, per_query=settings.per_query, **_how(run, name))
            log.info("%s found %d pairs for %d queries", name, len(pairs), len(set(texts.queries)))
            write_json(path, list(zip(pairs.queries, pairs.documents, strict=True)))
    return pairs_of((query, document) for query, document in json.loads(path.read_text(encoding="utf-8")))


def _how(run: Run, name: str) -> dict[str, int]:
    return {"max_length": run.recipe.models[name].max_length}


def find_pairs(teacher: Path, texts: Pairs, *, per_query: int, max_length: int | None = None) -> Pairs:
    """Pair each query with the `per_query` documents nearest to it, by the cosine of a bi-encoder's embeddings.

    Exact search; a query's own text is no document of it.

    :param texts: whose queries and documents are paired anew
    """
    from distill.runtime.opening import load

    scorer = load(teacher, runtime="torch", precision="fp32", max_length=max_length)
    queries, documents = list(dict.fromkeys(texts.queries)), list(dict.fromkeys(texts.documents))
    rows, _ = nearest_rows(scorer.encode_queries(queries), scorer.encode_documents(documents), per_query + 1)
    found = []
    for query, places in zip(queries, rows, strict=True):
        near_documents = [documents[place] for place in places if documents[place] != query]
        found += [(query, document) for document in near_documents[:per_query]]
    return pairs_of(found)
