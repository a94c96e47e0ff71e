"""Pairs without labels: what the student learns from by the teachers' signals alone.

    data.unlabelled_pairs: path, bundled ──▶ Split.unlabelled_pairs            known before anything is trained
    data.labelled_share, max_labelled    ──▶ the other training pairs          the same
    data.unlabelled_pairs: from          ──▶ pairs that a trained teacher finds, kept in `<run>/.work`

Teachers and control learn from the labelled pairs. A pair that holds a text of the validation or evaluation pairs is left
out and counted, and so is one that stands among the labelled pairs or came before.
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from distill.artefact import content_hash, write_json
from distill.data import BUNDLED_CANDIDATES, Pairs, read_as_resumes, read_pairs
from distill.errors import BadInput
from distill.recipe import Data, UnlabelledPairs
from distill.run import Run
from distill.splitting import take_groups, text_key
from distill.synthetic import generate_groups

__all__ = ["find_pairs", "keep_labelled", "load_unlabelled_pairs", "taught_pairs"]

log = logging.getLogger(__name__)
_QUERIES_AT_ONCE = 256


def keep_labelled(train: Pairs, data: Data, seed: int, notes: list[str]) -> tuple[Pairs, Pairs]:
    """Split pairs by query into (labelled, the rest without labels), as `labelled_share` or `max_labelled` say.

    What keeps its labels is training and validation together: checkpoints are picked on few labels, too.

    The queries are taken in an order that depends on the seed and their texts alone: a small share is part of a larger one.

    :raises BadInput: where no pair would keep its label
    """
    if data.labelled_share is None and data.max_labelled is None:
        return train, Pairs([], [])
    target = round(data.labelled_share * len(train)) if data.labelled_share is not None else data.max_labelled or 0
    if target >= len(train):
        return train, Pairs([], [])
    by_query: dict[str, list[int]] = {}
    for row, query in enumerate(train.queries):
        by_query.setdefault(text_key(query), []).append(row)
    kept = take_groups(by_query, max(1, target), seed)
    if data.max_labelled is not None:
        kept = kept[:target]
    if not kept:
        raise BadInput(
            f"data.labelled_share, max_labelled: no query has so few pairs that {target} of {len(train)} could keep "
            "their labels; set more"
        )
    labelled, taken = train.select(kept), set(kept)
    rest = train.select(row for row in range(len(train)) if row not in taken)
    notes.append(
        f"{len(labelled)} of {len(train)} pairs keep their labels, for training and validation together; the others are used without"
    )
    return labelled, Pairs(rest.queries, rest.documents)


def load_unlabelled_pairs(
    data: Data, seed: int, train: Pairs, rest: Pairs, held_out: set[str], notes: list[str]
) -> Pairs:
    """Return the pairs that lost their labels, and those of `data.unlabelled_pairs` that need no teacher.

    :param train: the labelled pairs
    :param rest: those whose labels are not used
    :param held_out: keys of texts that must not be trained on (`distill.splitting.text_key`)
    """
    found = list(zip(rest.queries, rest.documents, strict=True))
    found += [pair for given in data.unlabelled_pairs for pair in _source(given, data, seed, notes)]
    if not found:
        return Pairs([], [])
    already = set(zip(train.queries, train.documents, strict=True))
    fresh = [pair for pair in dict.fromkeys(found) if pair not in already]
    clean = [pair for pair in fresh if held_out.isdisjoint(map(text_key, pair))]
    if dropped := len(fresh) - len(clean):
        notes.append(f"{dropped} unlabelled pairs hold a held-out text and were left out of training")
    if dropped := len(found) - len(fresh):
        notes.append(f"{dropped} unlabelled pairs are training pairs already, or came twice, and were left out")
    if not clean:
        raise BadInput(
            f"data.unlabelled_pairs: none of {len(found)} pairs is left; they are held-out or training pairs"
        )
    return _pairs_of(clean)


def _source(given: UnlabelledPairs, data: Data, seed: int, notes: list[str]) -> Iterable[tuple[str, str]]:
    if given.bundled is not None:
        pairs = _bundled(given.bundled, data, seed)
    elif given.path is not None:
        pairs = read_pairs(
            given.path, given.columns or data.columns, skip_bad_rows=data.skip_bad_rows, hub_split=data.hub_split,
            labelled=False,
        )  # fmt: skip
        pairs = pairs.select(range(min(given.max_pairs or len(pairs), len(pairs))))
    else:
        return []
    if data.resume is not None:
        pairs, said = read_as_resumes(pairs, data.resume)
        notes += said
    return zip(pairs.queries, pairs.documents, strict=True)


def _bundled(n_pairs: int, data: Data, seed: int) -> Pairs:
    """Generate the groups that follow on those of `train: bundled`: other résumés, other job descriptions."""
    start = -(-data.bundled_pairs // BUNDLED_CANDIDATES)
    n_groups = -(-n_pairs // BUNDLED_CANDIDATES)
    groups = generate_groups(n_groups, seed=seed, n_candidates=BUNDLED_CANDIDATES, start=start)
    return _pairs_of([(pair.resume, pair.jd) for group in groups for pair in group][:n_pairs])


def _pairs_of(pairs: Iterable[tuple[str, str]]) -> Pairs:
    pairs = list(pairs)
    return Pairs([query for query, _ in pairs], [document for _, document in pairs])


def taught_pairs(run: Run) -> Pairs:
    """Return all pairs that the student learns from: the labelled ones, then those without (their label is NaN).

    :raises BadInput: where a teacher that is to find pairs is not trained yet
    """
    split = run.split
    found = [split.train, split.unlabelled_pairs]
    found += [_found(run, given) for given in run.recipe.data.unlabelled_pairs if given.teacher is not None]
    if not any(len(pairs) for pairs in found[1:]):
        return split.train
    labels = split.train.labels
    if labels is None:
        labels = np.full(len(split.train), np.nan, dtype=np.float32)
    seen = set(zip(split.train.queries, split.train.documents, strict=True))
    more = [
        pair
        for pairs in found[1:]
        for pair in dict.fromkeys(zip(pairs.queries, pairs.documents, strict=True))
        if pair not in seen and not seen.add(pair)  # type: ignore[func-returns-value]
    ]
    extra = _pairs_of(more)
    return Pairs(
        [*split.train.queries, *extra.queries], [*split.train.documents, *extra.documents],
        np.concatenate([labels, np.full(len(extra), np.nan, dtype=np.float32)]),
    )  # fmt: skip


def _found(run: Run, given: UnlabelledPairs) -> Pairs:
    """Return what a teacher finds; found once for each of its revisions."""
    from accelerate import PartialState

    name = str(given.teacher)
    texts = Pairs([*run.split.train.queries, *run.split.unlabelled_pairs.queries],
                  [*run.split.train.documents, *run.split.unlabelled_pairs.documents])  # fmt: skip
    inputs = {
        "revision": run.require(run.teacher(name), "train_teacher").revision, "per_query": given.per_query,
        "texts": texts.fingerprint(),
    }  # fmt: skip
    path = run.work / f"pairs-{name}-{content_hash(inputs)}.json"
    with PartialState().main_process_first():
        if not path.is_file():
            pairs = find_pairs(run.teacher(name), texts, per_query=given.per_query, **_how(run, name))
            log.info("%s found %d pairs for %d queries", name, len(pairs), len(set(texts.queries)))
            write_json(path, list(zip(pairs.queries, pairs.documents, strict=True)))
    return _pairs_of((query, document) for query, document in json.loads(path.read_text(encoding="utf-8")))


def _how(run: Run, name: str) -> dict[str, int]:
    return {"max_length": run.recipe.teachers[name].max_length}


def find_pairs(teacher: Path, texts: Pairs, *, per_query: int, max_length: int | None = None) -> Pairs:
    """Pair each query with the `per_query` documents nearest to it, by the cosine of a bi-encoder's embeddings.

    Exact search; a query's own text is no document of it.

    :param texts: whose queries and documents are paired anew
    """
    from distill.runtime import load

    scorer = load(teacher, runtime="torch", precision="fp32", max_length=max_length)
    queries, documents = list(dict.fromkeys(texts.queries)), list(dict.fromkeys(texts.documents))
    index = scorer.encode_documents(documents)
    vectors = scorer.encode_queries(queries)
    found = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        cosines = vectors[start : start + _QUERIES_AT_ONCE] @ index.T
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : per_query + 1]
        for query, places in zip(queries[start : start + _QUERIES_AT_ONCE], nearest, strict=True):
            own = [documents[place] for place in places if documents[place] != query]
            found += [(query, document) for document in own[:per_query]]
    return _pairs_of(found)
