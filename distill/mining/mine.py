"""Mine more pairs from pairs: candidates for each query, drawn from the documents that a retriever finds.

    pairs (and more documents)
      → retrieved     the `depth` nearest documents of each query, by BM25 or a bi-encoder
      → scored        by a teacher, in [0, 1]
      → allowed       without the query's own documents, its own text, and documents that the teacher takes for answers
      → drawn         a given number from each stratum of ranks
      → pairs.jsonl   the given pairs and the drawn ones; card.json counts what was left out

Retrieved and scored candidates are stored in `.work` of the folder. So a killed run can resume, and a run with other
limits or strata retrieves and scores nothing again.
"""

import io
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distill.data.pairs import Pairs
from distill.data.splitting import text_key
from distill.data.table_writing import table_writer
from distill.errors import BadInput
from distill.files.artefact import content_hash, new_file, write_json
from distill.files.hashing import file_digest
from distill.files.locking import only_process
from distill.files.outputs import check_output_folder, make_folder
from distill.files.trust import read_json
from distill.mining.cached import CachedScorer
from distill.mining.choosing import FalseNegatives, RankStratum, draw_candidates
from distill.mining.retrieval import Bm25, Terms, terms_of
from distill.runtime.vectors import nearest_rows
from distill.wording import counted

__all__ = ["MINED", "Mined", "MiningInputs", "MiningSettings", "check_mining_settings", "mine"]

log = logging.getLogger(__name__)
MINED = ("settings.json", ".lock")  # what an earlier folder of mined pairs holds
_SHOWN = {"false_negatives": "limits on scores"}  # what messages call a setting
_PAIRS, _CARD = "pairs.jsonl", "card.json"
_DIGEST = "pairs_sha256"  # key in the card
_COLUMNS: Mapping[str, type] = {
    "query": str,
    "document": str,
    "label": float,
    "kind": str,
    "rank": int,
    "score": float,
}


@dataclass(frozen=True)
class MiningSettings:
    """How candidates are found and chosen.

    :param depth: number of documents retrieved for each query
    :param strata: how many candidates are drawn from which ranks
    :param labels: labels of the drawn pairs. zero: each is a negative. teacher: the teacher's score (Augmented SBERT,
        Thakur et al. 2021).
    :param positive_from: the least label of a positive
    :param terms: the terms that BM25 counts; None chooses by the script of the documents
    """

    depth: int = 100
    strata: tuple[RankStratum, ...] = (RankStratum(1, 10, 4), RankStratum(11, 100, 4))
    false_negatives: FalseNegatives = field(default_factory=FalseNegatives)
    labels: Literal["zero", "teacher"] = "zero"
    positive_from: float = 0.5
    terms: Terms | None = None
    seed: int = 0


@dataclass(frozen=True)
class MiningInputs:
    """The inputs of mining.

    :param pairs: queries with documents. Labels None: every pair is a positive.
    :param documents: more documents, without known queries
    :param clusters: the cluster names of the queries and of the documents of the pairs: texts of one cluster answer
        each other. They are used only to measure false negatives.
    :param sources: the files and folders that the inputs were read from; no output may replace them
    """

    pairs: Pairs
    documents: Sequence[str] = ()
    clusters: tuple[Sequence[str], Sequence[str]] | None = None
    sources: Sequence[str | Path] = ()


@dataclass(frozen=True)
class Mined:
    """The mined candidates, in the order of the queries. `rows` are indices into `documents`, -1 if nothing was found.

    *Shape:* rows, scores (NaN without a teacher), drawn: (n_queries, depth)
    """

    queries: list[str]
    documents: list[str]
    rows: np.ndarray
    scores: np.ndarray
    drawn: np.ndarray
    counts: dict[str, Any]


class _NothingToDraw(BadInput):
    """No query has a candidate that the settings allow."""


def mine(
    folder: Path,
    inputs: MiningInputs,
    settings: MiningSettings,
    *,
    retriever: CachedScorer | None = None,
    teacher: CachedScorer | None = None,
    overwrite: bool = False,
) -> Mined:
    """Mine candidates and write `pairs.jsonl` and `card.json` into a folder. The same call resumes a killed run.

    :param folder: new, empty, or an earlier one with the same inputs and settings
    :param retriever: a bi-encoder; None is BM25
    :param teacher: scores the candidates; None is the retriever
    :param overwrite: allow an earlier folder of other settings; its stored results are reused if they fit
    :raises BadInput: if a pair lacks a text, if the folder has other settings, if its pairs were changed after they were
        written, if limits or labels need a teacher and there is none, or if nothing can be drawn
    """
    teacher = teacher or retriever
    check_mining_settings(
        settings, None if retriever is None else retriever.scorer.path, has_teacher=teacher is not None
    )
    if settings.strata[-1].last > settings.depth:
        log.warning("stratum %s: ranks above the depth of %d do not exist", settings.strata[-1], settings.depth)
    _check(inputs, retriever)
    check_output_folder(folder, inputs=inputs.sources, ours=MINED, overwrite=True)
    is_new = not folder.exists()
    make_folder(folder)
    with only_process(folder):
        card = {} if overwrite else _card_of_unchanged(folder)
        settings_json = _begin(folder, inputs, settings, retriever, teacher, overwrite=overwrite)
        try:
            mined = _mined(folder / ".work", inputs, settings, retriever, teacher)
        except _NothingToDraw as error:
            if teacher is not None:
                raise BadInput(f"{error}; {folder} keeps the scores, --overwrite uses them for other limits") from None
            if is_new:
                shutil.rmtree(folder)
            raise
        if _DIGEST not in card or card.get("settings") != settings_json:
            _write_pairs(folder, inputs, settings, mined)
            digest = _digest(folder / _PAIRS)
            write_json(folder / _CARD, {"settings": settings_json, "counts": mined.counts, _DIGEST: digest})
    return mined


def check_mining_settings(settings: MiningSettings, retriever: Path | None, *, has_teacher: bool) -> None:
    """Refuse settings that contradict each other, before any file or model is opened.

    :param retriever: the folder of the model that finds candidates; None is BM25
    :param has_teacher: whether a model scores the candidates
    :raises BadInput: if limits or labels need a teacher and there is none, if terms are given with a model, or if the
        last stratum begins after the depth
    """
    if not has_teacher and settings.false_negatives.is_set:
        raise BadInput(
            "limits on scores need a teacher that scores the candidates; name one (--teacher), or leave the limits out"
        )
    if not has_teacher and settings.labels == "teacher":
        raise BadInput("labels of the teacher need a teacher; name one (--teacher), or take zero")
    if settings.strata[-1].first > settings.depth:
        raise BadInput(
            f"stratum {settings.strata[-1]} begins behind the {settings.depth} documents that are looked at; raise the depth"
        )
    if retriever is not None and settings.terms is not None:
        raise BadInput(f"terms are what BM25 counts, and {retriever} finds the candidates; leave them out")


def _check(inputs: MiningInputs, retriever: CachedScorer | None) -> None:
    if retriever is not None and retriever.scorer.kind != "bi_encoder":
        raise BadInput(f"{retriever.scorer.path} is a {retriever.scorer.kind}; a bi-encoder or bm25 finds candidates")
    if not len(inputs.pairs):
        raise BadInput("there are no pairs, so no queries to find candidates for")
    for row, pair in enumerate(zip(inputs.pairs.queries, inputs.pairs.documents, strict=True)):
        if not all(map(text_key, pair)):
            raise BadInput(f"pair {row}: its query or document shows no character; leave the pair out")


def _card_of_unchanged(folder: Path) -> dict[str, Any]:
    """Return the card of a finished folder; {} if there is none, or no pairs.

    :raises BadInput: if the pairs are no longer those that the card describes
    """
    if not (folder / _CARD).is_file() or not (folder / _PAIRS).is_file():
        return {}
    card: dict[str, Any] = read_json(folder / _CARD)
    if _DIGEST in card and card[_DIGEST] != _digest(folder / _PAIRS):
        raise BadInput(
            f"{folder / _PAIRS} was changed after it was made, and would be replaced; move it elsewhere, name another folder, "
            "or add --overwrite"
        )
    return card


def _digest(path: Path) -> str:
    return str(file_digest(path, "sha256").hexdigest())


def _begin(
    folder: Path,
    inputs: MiningInputs,
    settings: MiningSettings,
    retriever: CachedScorer | None,
    teacher: CachedScorer | None,
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """Write the settings of the folder, or check that an earlier run had the same."""
    settings_json: dict[str, Any] = {
        "pairs": inputs.pairs.fingerprint(),
        "documents": content_hash(list(inputs.documents)),
        "retriever": "bm25" if retriever is None else retriever.name,
        "teacher": None if teacher is None else teacher.name,
        **json.loads(json.dumps(asdict(settings))),
    }
    path = folder / "settings.json"
    try:
        earlier_settings = (
            json.loads(path.read_text(encoding="utf-8")) if path.is_file() and not overwrite else settings_json
        )
        changed = [
            _SHOWN.get(name, name) for name in settings_json if earlier_settings.get(name) != settings_json[name]
        ]
    except (ValueError, AttributeError):
        raise BadInput(f"{path} is damaged; name another folder, or add --overwrite") from None
    if changed:
        raise BadInput(
            f"{folder} was begun with other settings ({', '.join(changed)}); name another folder, or add --overwrite: "
            "what was retrieved and scored is used where it fits"
        )
    write_json(path, settings_json)
    return settings_json


# ---------------------------------------------------------------------------------------------------------------------
# Stages
# ---------------------------------------------------------------------------------------------------------------------


def _mined(
    work: Path,
    inputs: MiningInputs,
    settings: MiningSettings,
    retriever: CachedScorer | None,
    teacher: CachedScorer | None,
) -> Mined:
    pairs = inputs.pairs
    # keep one of several equal texts: Unicode forms, white space and invisible characters make no difference
    query_of, document_of = _first_of_each(pairs.queries), _first_of_each([*pairs.documents, *inputs.documents])
    queries, documents = list(query_of.values()), list(document_of.values())
    row_of = {key: row for row, key in enumerate(document_of)}
    rows = _retrieved(work, queries, documents, settings, retriever)
    found = rows >= 0
    own_rows = np.array([row_of.get(text_key(query), -2) for query in queries], dtype=np.int64)
    excluded = ~found | (rows == own_rows[:, None])
    number_of = {key: number for number, key in enumerate(query_of)}
    query_numbers = np.array([number_of[text_key(query)] for query in pairs.queries], dtype=np.int64)
    document_rows = np.array([row_of[text_key(document)] for document in pairs.documents], dtype=np.int64)
    for number, row in zip(query_numbers, document_rows, strict=True):
        excluded[number] |= rows[number] == row
    scores = np.full(rows.shape, np.nan, dtype=np.float32)
    limits = np.full(len(queries), np.inf)
    if teacher is not None:
        candidate_places = np.argwhere(~excluded)
        texts = [(queries[query], documents[rows[query, place]]) for query, place in candidate_places]
        positives = _positives(pairs, settings)
        texts += [(pairs.queries[row], pairs.documents[row]) for row in positives]
        values = teacher.scores([query for query, _ in texts], [document for _, document in texts])
        scores[~excluded] = values[: len(candidate_places)]
        lowest = _lowest(values[len(candidate_places) :], query_numbers[positives], len(queries))
        limits = settings.false_negatives.limits(lowest)
    without_limit = np.isneginf(limits)  # for these queries it is unknown which candidates are answers
    taken_for_answers = ~excluded & settings.false_negatives.taken_for_answers(scores, limits)
    allowed = ~excluded & ~without_limit[:, None] & ~taken_for_answers
    drawn = draw_candidates(allowed, settings.strata, settings.seed)
    wanted = sum(stratum.number for stratum in settings.strata)
    counts: dict[str, Any] = {
        "queries": len(queries),
        "documents": len(documents),
        "repeated documents": len(pairs.documents) + len(inputs.documents) - len(documents),
        "candidates found": int(found.sum()),
        "own documents and own texts left out": int((found & excluded).sum()),
        **({} if teacher is None else {"taken for answers by the teacher": int(taken_for_answers.sum())}),
        "drawn": int(drawn.sum()),
        "queries with fewer than were asked for": int((drawn.sum(axis=1) < wanted).sum()),
        "queries without any": int((~drawn.any(axis=1)).sum()),
    }
    if settings.false_negatives.is_set:
        counts["queries without a positive, so without a limit: nothing is drawn"] = int(without_limit.sum())
    if inputs.clusters is not None:
        drawn_without_limits = draw_candidates(~excluded, settings.strata, settings.seed)
        answers = _answers(inputs, queries, documents, row_of, rows)
        counts["false negatives"] = {
            "before": _share(answers, drawn_without_limits),
            "after": _share(answers, drawn),
            "other candidates left out as answers": _share(taken_for_answers, ~excluded & ~answers),
        }
    if drawn.any():
        _say_what_left_most_without(drawn, excluded, taken_for_answers, without_limit)
    else:
        raise _NothingToDraw(
            f"no candidate can be drawn for any of {counted(len(queries), 'query')}: of "
            f"{counted(counts['candidates found'], 'document')} that were found for them, {counts['own documents and own texts left out']} "
            f"are the query's own documents or its own text, and {int(taken_for_answers.sum())} have a score at or above the limit; "
            f"without a positive pair, and so without a limit: {counted(int(without_limit.sum()), 'query')}. Change the limits or "
            "the strata, or give more documents"
        )
    return Mined(queries, documents, rows, scores, drawn, counts)


def _say_what_left_most_without(
    drawn: np.ndarray, excluded: np.ndarray, taken_for_answers: np.ndarray, without_limit: np.ndarray
) -> None:
    """Warn if most queries have no candidate, of the filter that removed those of most of these queries.

    *Shape:* drawn, excluded, taken_for_answers: (n_queries, depth); without_limit: (n_queries,)
    """
    empty = np.asarray(~drawn.any(axis=1))
    if 2 * empty.sum() <= len(empty):
        return
    unfound = empty & excluded.all(axis=1)
    unlimited = empty & ~unfound & without_limit
    answers = empty & ~unfound & ~unlimited & (excluded | taken_for_answers).all(axis=1)
    causes = {
        "only their own documents were found: give more --documents": unfound,
        "they have no positive pair, so a margin sets no limit: add positives, or set --max-score": unlimited,
        "every candidate scores at or above the limit: take a smaller --margin or --relative-margin, a larger --max-score or "
        "--percentile, or a teacher of this language": answers,
        "their candidates have ranks outside --strata: widen the strata": empty & ~unfound & ~unlimited & ~answers,
    }
    cause, queries = max(causes.items(), key=lambda item: int(item[1].sum()))
    n_empty = int(empty.sum())
    log.warning(
        "%d of %s have no candidate; of %d of them %s", n_empty, counted(len(empty), "query"), queries.sum(), cause
    )


def _first_of_each(texts: Sequence[str]) -> dict[str, str]:
    """Return the first of each group of equal texts, by key; texts without a visible character are skipped."""
    found: dict[str, str] = {}
    for text in texts:
        if key := text_key(text):
            found.setdefault(key, text)
    return found


def _retrieved(
    work: Path, queries: list[str], documents: list[str], settings: MiningSettings, retriever: CachedScorer | None
) -> np.ndarray:
    """Return the rows of the nearest documents of each query, stored on disk. *Shape:* (n_queries, depth)."""
    terms = None if retriever is not None else settings.terms or terms_of(documents)
    if terms is not None:
        log.info("BM25 counts %s", "words" if terms == "word" else "2 and 3 characters within words")
    content_key = content_hash(
        [queries, documents, settings.depth, terms if retriever is None else retriever.name, "retrieved, version 2"]
    )
    path = work / f"retrieved-{content_key}.npy"
    try:
        loaded: np.ndarray = np.load(path, allow_pickle=False)
        if loaded.shape[0] == len(queries) and loaded.dtype == np.int64 and (loaded < len(documents)).all():
            return loaded
        log.warning("%s is damaged and is made again", path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError):
        log.warning("%s is damaged and is made again", path)
    if retriever is None:
        assert terms is not None
        rows, _ = Bm25(documents, terms=terms).search(queries, settings.depth)
    else:
        rows, _ = nearest_rows(*retriever.embeddings(queries, documents), settings.depth)
    work.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()  # numpy's error for a full disk has no error number
    np.save(content, rows)
    with new_file(path) as temporary:
        temporary.write_bytes(content.getbuffer())
    return rows


def _positives(pairs: Pairs, settings: MiningSettings) -> np.ndarray:
    """Return the rows of the given pairs that are positives. *Shape:* (n_positives,)."""
    return np.flatnonzero(np.ones(len(pairs)) if pairs.labels is None else pairs.labels >= settings.positive_from)


def _lowest(scores: np.ndarray, queries: np.ndarray, n_queries: int) -> np.ndarray:
    """Return the lowest score of each query; NaN for a query without scores. *Shape:* (n,), (n,) → (n_queries,)."""
    lowest = np.full(n_queries, np.inf)
    np.minimum.at(lowest, queries, scores)
    return np.where(np.isinf(lowest), np.nan, lowest)


def _answers(
    inputs: MiningInputs, queries: list[str], documents: list[str], row_of: Mapping[str, int], rows: np.ndarray
) -> np.ndarray:
    """Return which candidates are in the cluster of their query. *Shape:* that of rows, bool."""
    assert inputs.clusters is not None
    numbers: dict[str, int] = {}
    query_clusters = np.full(len(queries), -1)
    document_clusters = np.full(len(documents) + 1, -2)  # the last entry: not found
    number_of = {text_key(query): number for number, query in enumerate(queries)}
    cluster_of: dict[str, str] = {}
    for query, document, *clusters in zip(inputs.pairs.queries, inputs.pairs.documents, *inputs.clusters, strict=True):
        for text, cluster in zip((query, document), clusters, strict=True):
            if cluster and cluster_of.setdefault(text_key(text), cluster) != cluster:
                raise BadInput(
                    f"the text {text[:60]!r} is of the clusters {cluster_of[text_key(text)]!r} and {cluster!r}; a text has one"
                )
        if clusters[0]:
            query_clusters[number_of[text_key(query)]] = numbers.setdefault(clusters[0], len(numbers))
        if clusters[1]:
            document_clusters[row_of[text_key(document)]] = numbers.setdefault(clusters[1], len(numbers))
    in_cluster: np.ndarray = document_clusters[rows] == query_clusters[:, None]
    return in_cluster


def _share(counted: np.ndarray, among: np.ndarray) -> float | None:
    return float((counted & among).sum() / among.sum()) if among.any() else None


# ---------------------------------------------------------------------------------------------------------------------
# Output
# ---------------------------------------------------------------------------------------------------------------------


def _write_pairs(folder: Path, inputs: MiningInputs, settings: MiningSettings, mined: Mined) -> None:
    pairs = inputs.pairs
    labels = np.ones(len(pairs)) if pairs.labels is None else pairs.labels
    with new_file(folder / _PAIRS) as temporary:
        with table_writer(temporary, _COLUMNS) as write:
            for query, document, label in zip(pairs.queries, pairs.documents, labels.tolist(), strict=True):
                write([query, document, label, "given", None, None])
            for number, place in np.argwhere(mined.drawn):
                score = None if np.isnan(mined.scores[number, place]) else float(mined.scores[number, place])
                label = score if settings.labels == "teacher" else 0.0
                document = mined.documents[mined.rows[number, place]]
                write([mined.queries[number], document, label, "mined", int(place) + 1, score])
        # after a kill between the two files, an earlier card would describe other pairs
        (folder / _CARD).unlink(missing_ok=True)
