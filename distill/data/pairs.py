"""Pairs of texts with labels: read from a file or the hub, checked once, split so that no text is in two parts.

    CSV · TSV · JSONL · Parquet (each also .gz where the format allows it) · hub datasets · `bundled`
      ──▶ Pairs(queries, documents, labels in [0, 1])  ──▶ Split(train, validation, evaluation)

A text of the evaluation pairs, query or document, is in no other part, unless they are a file of their own: then equal
texts are counted in a note. STS-like sets use the same sentence as query and as document, so both columns are compared.
Errors in a file are reported with their row before anything is trained.
"""

import hashlib
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from distill.data.bundled import generate_groups
from distill.data.splitting import (
    Drawn,
    Groups,
    Way,
    beyond_chance,
    held_together,
    hold_out,
    label_shift,
    numbered,
    sample,
    take_nested_groups,
    text_key,
)
from distill.data.tables import (
    column_blocks,
    first_names,
    locate,
    read_columns,
    read_text_columns,
    read_texts,
    refused_rows,
    shown_value,
    texts_of,
    unchanged,
)
from distill.errors import BadInput
from distill.files.hashing import texts_digest
from distill.recipe.schema import Columns, Data, Parallel, Resume, Unlabelled, UnlabelledPairs, is_label_range
from distill.wording import counted

__all__ = [
    "CheckedPairs",
    "OptionNames",
    "PairReader",
    "Pairs",
    "Split",
    "held_out_keys",
    "joined",
    "load_parallel",
    "load_split",
    "load_stage_splits",
    "load_texts",
    "pairs_of",
    "read_columns",
    "read_pairs",
    "read_pairs_with_rows",
    "split_pairs",
]

log = logging.getLogger(__name__)
_BUNDLED_CANDIDATES = 4  # documents per query in the bundled data
_OUTSIDE = re.compile(r"label (\S+) is outside ")
_NO_NUMBER = re.compile(r"label (.+) is not a number")
_WORDS = re.compile(r"'\s*(?:yes|no|true|false|y|n|t|f)\s*'", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"'\s*[+-]?[0-9]*,[0-9]+\s*'")
_A_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")
_FEW_TO_LEARN_FROM, _FEW_TO_CHOOSE_BY = 100, 20  # pairs and texts; pairs
T = TypeVar("T")


@dataclass(frozen=True)
class Pairs:
    """Pairs of a query and a document. `labels` has a value in [0, 1] for each pair, or is None if there are no labels.

    *Shape:* queries, documents, labels: (n_pairs,)
    """

    queries: list[str]
    documents: list[str]
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.queries)

    def select(self, rows: Iterable[int]) -> "Pairs":
        """Return the pairs of the given rows, in that order."""
        rows = list(rows)
        labels = None if self.labels is None else self.labels[rows]
        return Pairs([self.queries[i] for i in rows], [self.documents[i] for i in rows], labels)

    def labelled(self) -> "Pairs":
        """Return the pairs whose label is not NaN; no pairs if `labels` is None."""
        return self.select([] if self.labels is None else np.flatnonzero(np.isfinite(self.labels)).tolist())

    @property
    def query_ids(self) -> np.ndarray:
        """The id of each pair's query: equal for equal texts, numbered by first appearance. *Shape:* (n_pairs,)."""
        return numbered(self.queries, {})

    @property
    def clusters(self) -> np.ndarray:
        """The number of each pair's cluster: pairs that a bootstrap draws together. *Shape:* (n_pairs,).

        Pairs of one query are not independent. If no query repeats, those of one document are the clusters.
        """
        queries = self.query_ids
        return queries if len(self) > queries.max(initial=-1) + 1 else numbered(self.documents, {})

    @cached_property
    def metric_columns(self) -> dict[str, Any]:
        """What a metric needs beside scores: labels, query_ids, clusters; arguments of `evaluate_scores`, numbered once."""
        return {"labels": self.labels, "query_ids": self.query_ids, "clusters": self.clusters}

    def fingerprint(self) -> str:
        """Return 16 hex digits of SHA-256 over texts and labels in order."""
        digest = hashlib.sha256()
        for query, document in zip(self.queries, self.documents, strict=True):
            digest.update(f"{len(query)}:{query}{len(document)}:{document}".encode("utf-8", "surrogatepass"))
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, dtype=np.float32).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class OptionNames:
    """The settings that error messages name: those of a recipe or of a command line.

    :param columns: the setting that names the columns
    :param skip: the setting that leaves out bad rows; None if there is none
    :param label_range: the setting with the lowest and the highest label
    """

    columns: str = "data.columns"
    skip: str | None = "data.skip_bad_rows=true"
    label_range: str = "label_range"


@dataclass(frozen=True)
class Split:
    """Three disjoint sets of pairs, single texts, and notes for the user on how they were made.

    :param parallel: source and target texts, translations of each other
    :param unlabelled_pairs: training pairs without labels; see `distill.training.unlabelled`
    """

    train: Pairs
    validation: Pairs
    evaluation: Pairs
    unlabelled: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    parallel: list[tuple[str, str]] = field(default_factory=list)
    unlabelled_pairs: Pairs = field(default_factory=lambda: Pairs([], []))

    @property
    def unpaired(self) -> list[str]:
        """Every training text that is in no labelled pair, each once."""
        paired = (*self.unlabelled_pairs.queries, *self.unlabelled_pairs.documents)
        return list(dict.fromkeys([*self.unlabelled, *(text for pair in self.parallel for text in pair), *paired]))

    @property
    def training_texts(self) -> list[str]:
        """Every training text, in a pair or not, each once."""
        return list(dict.fromkeys([*self.train.queries, *self.train.documents, *self.unpaired]))

    def summary(self) -> str:
        """Return how many pairs and texts there are of each kind, in one line."""
        sizes = {
            "training": len(self.train),
            "unlabelled": len(self.unlabelled_pairs),
            "validation": len(self.validation),
            "evaluation": len(self.evaluation),
        }
        pairs = ", ".join(f"{number:,} {kind}" for kind, number in sizes.items() if number or kind != "unlabelled")
        text_counts = [
            *([counted(len(self.unlabelled), "unpaired text")] if self.unlabelled else []),
            *([counted(len(self.parallel), "translation")] if self.parallel else []),
        ]
        return "; ".join([f"{pairs} pairs", *text_counts])

    def shortages(self) -> list[str]:
        """Return which parts are too small for training, or for choosing a checkpoint; one sentence each."""
        sentences = []
        n_learned = len(self.train) + len(self.unlabelled_pairs) + len(self.unlabelled) + len(self.parallel)
        if n_learned < _FEW_TO_LEARN_FROM:
            sentences.append(
                f"only {n_learned} pairs and texts to learn from: add pairs, of which unlabelled ones count as well"
            )
        if len(self.validation) < _FEW_TO_CHOOSE_BY:
            sentences.append(
                f"{counted(len(self.validation), 'validation pair')}: the best checkpoint is chosen by chance; "
                "set a larger data.validation_share"
            )
        return sentences

    def describe(self) -> dict[str, Any]:
        """Return sizes and fingerprints, for `artefact.json`."""
        parts = {"train": self.train, "validation": self.validation, "evaluation": self.evaluation}
        description: dict[str, Any] = {
            name: {"n_pairs": len(pairs), "n_queries": len(set(pairs.queries)), "fingerprint": pairs.fingerprint()}
            for name, pairs in parts.items()
        }
        texts = Pairs(self.unlabelled, [""] * len(self.unlabelled))
        description["unlabelled"] = {"n_texts": len(texts), "fingerprint": texts.fingerprint()}
        if len(self.unlabelled_pairs):
            paired = {"n_pairs": len(self.unlabelled_pairs), "pairs": self.unlabelled_pairs.fingerprint()}
            description["unlabelled"] |= paired
        translations = Pairs([source for source, _ in self.parallel], [target for _, target in self.parallel])
        description["parallel"] = {"n_pairs": len(translations), "fingerprint": translations.fingerprint()}
        return description


@dataclass(frozen=True)
class _Parts:
    """Labelled pairs in three parts, and the pairs whose labels are not used."""

    train: Pairs
    validation: Pairs
    evaluation: Pairs
    unjudged: Pairs
    n_seen: int = 0
    """Evaluation pairs that are also pairs to train on."""


def load_split(data: Data, seed: int, *, for_training: bool = False) -> Split:
    """Read what the recipe's `data` section names and split it.

    :param for_training: refuse evaluation pairs that are all training pairs, too; else they are a note
    :raises BadInput: on anything that cannot be trained on.
    """
    notes: list[str] = []
    parts = _draw(data, seed, notes)
    if for_training:
        _check_evaluation(parts, data)
    return _with_texts(parts, data, seed, notes)


def _check_evaluation(parts: "_Parts", data: Data) -> None:
    """Refuse a file of evaluation pairs that are all training pairs: nothing would be measured.

    :raises BadInput: naming both files
    """
    if parts.n_seen == len(parts.evaluation):
        raise BadInput(
            f"data.evaluation: each of the {counted(parts.n_seen, 'pair')} of {data.evaluation} is also a pair of {data.train} (data.train); name "
            "pairs that are not trained on, or leave data.evaluation out, and a share of the training pairs is held out"
        )


def _draw(data: Data, seed: int, notes: list[str], earlier_evaluation: Pairs | None = None) -> _Parts:
    """Read labelled pairs and draw the held-out pairs.

    :param earlier_evaluation: evaluation pairs, if already drawn; training pairs with one of their texts are left out
    """
    pairs, n_seen = _load_pairs(data.train, data, seed, notes), 0
    if earlier_evaluation is not None:
        evaluation = earlier_evaluation
        rest = _without(pairs, held_out_keys(evaluation), notes, "training pair")
        if not len(rest):
            raise BadInput(f"{data.train}: every pair holds an evaluation text; nothing is left to train on")
    elif data.evaluation is None:
        rest, evaluation = _held_out(pairs, data.evaluation_share, data.split, seed, notes, "evaluation")
        if data.train != "bundled" and {"kind", "rank", "score"} <= set(first_names(data.train)):
            notes.append(
                f"{data.train} has the columns of `distill mine`: evaluation pairs are mined, too, and their labels are guesses; set "
                "data.evaluation to given pairs"
            )
    else:
        rest, evaluation = pairs, _load_pairs(data.evaluation, data, seed, notes)
        n_seen = _n_shared(rest, evaluation)
        notes += _leaks(rest, evaluation, n_seen)
    if evaluation.labels is None:
        raise BadInput("the evaluation pairs have no labels; the report has nothing to compare with")
    rest, unjudged = keep_labelled(rest, data, seed, notes)  # validation labels are labels too
    share = min(data.validation_share, data.max_validation_pairs / max(len(rest), 1))
    few = f"{_label_limit(data)} leaves too few labels: " if len(unjudged) else ""
    try:
        train, validation = _held_out(rest, share, data.split, seed + 1, notes, "validation")
        if data.evaluation is None and earlier_evaluation is None:
            _check_classes(pairs, {"training": train, "evaluation": evaluation})
    except BadInput as error:
        if not few or f"all {len(evaluation)} evaluation" in str(error):
            raise
        reason = str(error).partition("; ")[0]
        raise BadInput(f"{few}{reason}; raise {_label_limit(data)}, or leave it out") from None
    notes += _unlike(train, {"evaluation": evaluation, "validation": validation})
    further = load_labelled_pairs(data, seed, held_out_keys(validation, evaluation), notes)
    return _Parts(_joined([train, *further]) if further else train, validation, evaluation, unjudged, n_seen)


def _label_limit(data: Data) -> str:
    """Return the name of the setting that limits the labels."""
    return "data.labelled_share" if data.labelled_share is not None else "data.max_labelled"


def _with_texts(parts: _Parts, data: Data, seed: int, notes: list[str]) -> Split:
    """Read texts and pairs without labels, remove held-out texts from them, and log all notes."""
    train, validation, evaluation = parts.train, parts.validation, parts.evaluation
    held_out = held_out_keys(validation, evaluation)
    unlabelled_pairs = load_unlabelled_pairs(data, seed, train, parts.unjudged, held_out, notes)
    texts = dict.fromkeys(text for source in data.unlabelled for text in load_texts(source, seed=seed))
    unlabelled = [text for text in texts if text_key(text) not in held_out]
    if dropped := len(texts) - len(unlabelled):
        which = "text is also a held-out text and was" if dropped == 1 else "texts are also held-out texts and were"
        notes.append(f"{dropped} unlabelled {which} left out of training")
    all_parallel = list(dict.fromkeys(pair for section in data.parallel for pair in load_parallel(section, seed=seed)))
    parallel = [pair for pair in all_parallel if held_out.isdisjoint(map(text_key, pair))]
    if dropped := len(all_parallel) - len(parallel):
        notes.append(f"{_holding(dropped, 'parallel pair')} a held-out text and {_were(dropped)} left out of training")
    for note in notes:
        log.warning(note)
    return Split(train, validation, evaluation, unlabelled, tuple(notes), parallel, unlabelled_pairs)


def load_stage_splits(own: Data, stages: Mapping[str, Data], seed: int) -> list[Split]:
    """Read the data of each training stage, then the recipe's own, from which its teachers learn.

    All stages are evaluated on the recipe's evaluation pairs. No stage trains on validation texts of another one.
    Stages that differ only in texts without labels have the same pairs in the same parts.

    :param stages: the data of each stage by its name
    :raises BadInput: on anything that cannot be trained on
    """
    notes: list[str] = []
    drawn_parts = [(own, _draw(own, seed, notes))]
    _check_evaluation(drawn_parts[0][1], own)
    splits = [(own, _with_texts(drawn_parts[0][1], own, seed, notes))]
    for name, data in stages.items():
        if any(data == earlier_data for earlier_data, _ in splits):
            continue
        log.info("data of stage %s:", name)
        notes = []
        parts = next(
            (earlier_parts for earlier_data, earlier_parts in drawn_parts if _has_same_pairs(data, earlier_data)), None
        )
        if parts is None:
            parts = _draw(data, seed, notes, splits[0][1].evaluation)
            drawn_parts.append((data, parts))
        splits.append((data, _with_texts(parts, data, seed, notes)))
    held_out = [(split.validation, held_out_keys(split.validation)) for _, split in splits]
    freed = [
        (
            data,
            _freed(
                split, set[str]().union(*(keys for validation, keys in held_out if validation is not split.validation))
            ),
        )
        for data, split in splits
    ]
    return [next(split for data, split in freed if data == stage_data) for stage_data in (*stages.values(), own)]


def _has_same_pairs(data: Data, other: Data) -> bool:
    """Tell whether two sections differ only in data without labels, and in how pairs are grouped."""
    ignored_fields = {
        name: getattr(data, name) for name in ("unlabelled", "unlabelled_pairs", "parallel", "candidates")
    }
    return data == other.model_copy(update=ignored_fields)


def _freed(split: Split, held_out: set[str]) -> Split:
    """Remove training items that contain a validation text of another stage.

    :raises BadInput: if no training pair is left
    """
    if not held_out:
        return split
    notes: list[str] = []
    train = _without(split.train, held_out, notes, "training pair", "validates another stage")
    unpaired = _without(split.unlabelled_pairs, held_out, notes, "unlabelled pair", "validates another stage")
    unlabelled = [text for text in split.unlabelled if text_key(text) not in held_out]
    parallel = [pair for pair in split.parallel if held_out.isdisjoint(map(text_key, pair))]
    if dropped := len(split.unlabelled) - len(unlabelled) + len(split.parallel) - len(parallel):
        which = "text validates" if dropped == 1 else "texts validate"
        notes.append(
            f"{dropped} unlabelled or parallel {which} another stage and {_were(dropped)} left out of training"
        )
    if not len(train):
        raise BadInput(
            "every training pair of a stage holds a text that validates another stage; nothing is left of it"
        )
    for note in notes:
        log.warning(note)
    return replace(
        split,
        train=train,
        unlabelled=unlabelled,
        parallel=parallel,
        unlabelled_pairs=unpaired,
        notes=(*split.notes, *notes),
    )


def _without(
    pairs: Pairs, held_out: set[str], notes: list[str], what: str, why: str = "is an evaluation text"
) -> Pairs:
    """Return the pairs that contain no text of these keys; the notes state how many are left out.

    :param what: the pairs in the singular; words behind the first "pair" stay as they are
    """
    kept = [
        row
        for row, pair in enumerate(zip(pairs.queries, pairs.documents, strict=True))
        if held_out.isdisjoint(map(text_key, pair))
    ]
    if dropped := len(pairs) - len(kept):
        notes.append(f"{_holding(dropped, what)} a text that {why} and {_were(dropped)} left out of training")
    return pairs if not dropped else pairs.select(kept)


def _holding(n: int, what: str) -> str:
    """Return a number of pairs with its verb.

    >>> _holding(1, "training pair"), _holding(2, "pair of x.csv")
    ('1 training pair holds', '2 pairs of x.csv hold')
    """
    return f"{n} {what} holds" if n == 1 else f"{n} {what.replace('pair', 'pairs', 1)} hold"


def _were(n: int) -> str:
    return "was" if n == 1 else "were"


def joined(splits: Sequence[Split]) -> Split:
    """Return the training data of all these splits together, each text or pair once, without labels.

    Validation and evaluation pairs are those of the last split. A single split is returned as it is.
    """
    last = splits[-1]
    if all(split is last for split in splits):
        return last
    return replace(
        last,
        train=_together([split.train for split in splits]),
        unlabelled=list(dict.fromkeys(text for split in splits for text in split.unlabelled)),
        notes=tuple(dict.fromkeys(note for split in splits for note in split.notes)),
        parallel=list(dict.fromkeys(pair for split in splits for pair in split.parallel)),
        unlabelled_pairs=_together([split.unlabelled_pairs for split in splits]),
    )


def _together(parts: Sequence[Pairs]) -> Pairs:
    return pairs_of(dict.fromkeys(pair for pairs in parts for pair in zip(pairs.queries, pairs.documents, strict=True)))


def held_out_keys(*parts: Pairs) -> set[str]:
    """Return the `text_key` of every text of these pairs; training data must not contain them."""
    return {text_key(text) for part in parts for text in (*part.queries, *part.documents)}


def _held_out(pairs: Pairs, share: float, way: Way, seed: int, notes: list[str], name: str) -> tuple[Pairs, Pairs]:
    """Split, and add a note if nothing could be held out, besides the notes of `split_pairs`."""
    keys = _keys(pairs)
    drawn = _drawn(keys, share, seed=seed, name=name, way=way)
    if drawn.n_dropped:
        notes.append(_dropped(drawn, name))
    if drawn.way == "component" and (note := held_together(*keys, share, sizes=drawn.sizes, seed=seed, name=name)):
        notes.append(note)
    return pairs.select(drawn.rest), pairs.select(drawn.held)


def _check_classes(whole: Pairs, parts: dict[str, Pairs]) -> None:
    """Refuse a split in which all labels of a part are equal although the data has several."""
    if whole.labels is None or np.ptp(whole.labels) == 0:
        return
    for name, part in parts.items():
        if part.labels is not None and np.ptp(part.labels) == 0:
            raise BadInput(
                f"all {len(part)} {name} pairs got the label {part.labels[0]:g} in the split of {len(whole)} pairs with labels of "
                f"{whole.labels.min():g} to {whole.labels.max():g}; set another data.split, a larger data.evaluation_share or another "
                "seed, or give evaluation pairs of their own"
            )


def _unlike(train: Pairs, parts: dict[str, Pairs]) -> list[str]:
    """Return notes on parts whose labels differ from the training pairs' by more than chance (over queries)."""
    notes = []
    for name, part in parts.items():
        if train.labels is None or part.labels is None:
            continue
        shift = label_shift(part.labels, map(text_key, part.queries), train.labels, map(text_key, train.queries))
        if beyond_chance(shift):
            notes.append(
                f"the {len(part)} {name} pairs are unlike the {len(train)} training pairs: their mean label is {part.labels.mean():.2f}, "
                f"that of training {train.labels.mean():.2f}, {shift:.0f} standard errors apart; results on them say little of the rest"
            )
    return notes


def _load_pairs(
    source: str, data: Data, seed: int, notes: list[str], option_names: OptionNames = OptionNames()
) -> Pairs:
    if source == "bundled":
        pairs = _bundled_pairs(data.bundled_pairs, seed)
    else:
        pairs = read_pairs(
            source,
            data.columns,
            label_range=data.label_range,
            skip_bad_rows=data.skip_bad_rows,
            hub_split=data.hub_split,
            option_names=option_names,
        )
        if data.max_pairs is not None and data.max_pairs < len(pairs):
            pairs = pairs.select(sample(len(pairs), data.max_pairs, seed))
    if data.resume is None:
        return pairs
    pairs, resume_notes = _read_as_resumes(pairs, data.resume, source)
    notes += resume_notes
    return pairs


def _read_as_resumes(pairs: Pairs, resume: Resume, source: str) -> tuple[Pairs, list[str]]:
    """Blind one side and keep the chosen sections, each text once. Returns the pairs and notes for the user.

    What is removed is counted by kind in the log.
    """
    from distill.resumes.blinding import blind
    from distill.resumes.sections import keep_sections

    texts = pairs.queries if resume.side == "query" else pairs.documents
    prepared: dict[str, str] = {}
    n_whole, identifiers, sections = 0, Counter[str](), Counter[str]()
    for text in dict.fromkeys(texts):
        prepared_text = text
        if resume.blind:  # before sections are cut: a name from the personal data must be found in the other sections
            blinded = blind(text)
            prepared_text = blinded.text
            identifiers.update(removed.kind for removed in blinded.removed)
        if resume.keep is not None:
            kept = keep_sections(prepared_text, resume.keep)
            sections.update(section.kind for section in kept.dropped)
            n_whole += not kept.found
            prepared_text = kept.text if kept.found else prepared_text
        prepared[text] = prepared_text if prepared_text.strip() else text
    for counts, wanted, what in (
        (sections, resume.keep is not None, "sections dropped"),
        (identifiers, resume.blind, "identifiers removed"),
    ):
        kinds = ", ".join(f"{kind} {n}" for kind, n in counts.most_common())
        if wanted:
            log.info(
                "%s: %d %s from %s%s",
                source,
                counts.total(),
                what,
                counted(len(prepared), "résumé"),
                kinds and f": {kinds}",
            )
    notes = []
    if n_whole and resume.keep is not None:
        notes.append(
            f"{n_whole} of {len(prepared)} résumés hold none of the sections {', '.join(resume.keep)} and were read whole"
        )
    resume_texts = [prepared[text] for text in texts]
    if resume.side == "query":
        return Pairs(resume_texts, pairs.documents, pairs.labels), notes
    return Pairs(pairs.queries, resume_texts, pairs.labels), notes


def _bundled_pairs(n_pairs: int, seed: int) -> Pairs:
    groups = generate_groups(-(-n_pairs // _BUNDLED_CANDIDATES), seed=seed, n_candidates=_BUNDLED_CANDIDATES)
    pairs = [pair for group in groups for pair in group][:n_pairs]
    labels = np.array([pair.label for pair in pairs], dtype=np.float32)
    return Pairs([pair.resume for pair in pairs], [pair.jd for pair in pairs], labels)


def read_pairs(
    source: str,
    columns: Columns,
    *,
    label_range: tuple[float, float] = (0.0, 1.0),
    skip_bad_rows: bool = False,
    hub_split: str = "train",
    labelled: bool = True,
    option_names: OptionNames = OptionNames(),
) -> Pairs:
    """Read query, document and label columns and map labels to [0, 1].

    :param skip_bad_rows: leave out bad rows, and log their number and the first of them
    :param labelled: False reads pairs without labels (for scoring).
    :param option_names: the settings that messages name
    :raises BadInput: for a missing file or column, an empty file, empty texts, labels that are not numbers or out of
        range.
    """
    return read_pairs_with_rows(
        source,
        columns,
        label_range=label_range,
        skip_bad_rows=skip_bad_rows,
        hub_split=hub_split,
        labelled=labelled,
        option_names=option_names,
    )[0]


def read_pairs_with_rows(
    source: str,
    columns: Columns,
    *,
    label_range: tuple[float, float] = (0.0, 1.0),
    skip_bad_rows: bool = False,
    hub_split: str = "train",
    labelled: bool = True,
    option_names: OptionNames = OptionNames(),
) -> tuple[Pairs, list[int]]:
    """Return pairs as `read_pairs` does, with the row of each in the source from 0; left-out rows are missing."""
    reader = PairReader(source, columns, label_range, skip_bad_rows, hub_split, labelled, option_names)
    problems: dict[int, str] = {}

    def parts() -> Iterator[Pairs]:
        for block, block_problems in reader.blocks():
            problems.update(block_problems)
            yield block

    pairs = _joined(parts())
    reader.check(len(pairs), problems)
    keep = [row for row in range(len(pairs)) if row not in problems]
    return (pairs if not problems else pairs.select(keep)), keep


def _joined(parts: Iterable[Pairs]) -> Pairs:
    """Concatenate pairs; either all parts have labels, or none."""
    joined, labels = Pairs([], []), list[np.ndarray]()
    for part in parts:
        joined.queries.extend(part.queries)
        joined.documents.extend(part.documents)
        labels += [] if part.labels is None else [part.labels]
    return replace(joined, labels=np.concatenate(labels) if labels else None)


@dataclass(frozen=True)
class PairReader:
    """How pairs are read from a file or hub dataset; the parameters are those of `read_pairs`."""

    source: str
    columns: Columns
    label_range: tuple[float, float] = (0.0, 1.0)
    skip_bad_rows: bool = False
    hub_split: str = "train"
    labelled: bool = True
    option_names: OptionNames = OptionNames()
    _truth_values: list[int] = field(default_factory=list, compare=False)
    """The number of labels in each block read that are true or false."""

    def __post_init__(self) -> None:
        low, high = self.label_range
        if not is_label_range(low, high):
            raise BadInput(f"{self.option_names.label_range} is [{low:g}, {high:g}]; the lower end comes first")

    def blocks(self) -> Iterator[tuple[Pairs, dict[int, str]]]:
        """Yield blocks of all rows, bad ones included, and the reasons why rows are bad, by row from 0."""
        columns, start = self.columns, 0
        names = [columns.query, columns.document] + ([columns.label] if self.labelled else [])
        for table in column_blocks(self.source, names, hub_split=self.hub_split, section=self.option_names.columns):
            documents, problems = texts_of(table[columns.document], columns.document, gaps=False)
            queries, new_problems = texts_of(table[columns.query], columns.query, gaps=False)
            problems |= new_problems
            labels = None
            if self.labelled:
                self._truth_values.append(sum(isinstance(label, bool | np.bool_) for label in table[columns.label]))
                labels, new_problems = _to_unit(table[columns.label], self.label_range, self.option_names.label_range)
                problems = new_problems | problems
            block = Pairs(queries, documents, labels)
            yield block, {start + row: problem for row, problem in problems.items()}
            start += len(block)

    def check(self, n_rows: int, problems: Mapping[int, str]) -> None:
        """Refuse bad rows, or log how many are left out.

        :raises BadInput: naming the first bad rows, or if no row is left
        """
        if n_truth_values := sum(self._truth_values):
            what = "label is" if n_truth_values == 1 else "labels are"
            within = "{} [{:g}, {:g}]".format(self.option_names.label_range, *self.label_range)
            log.warning("%s: %d %s true or false, taken as 1 or 0 of %s", self.source, n_truth_values, what, within)
        if problems and not self.skip_bad_rows:
            raise refused_rows(self.source, n_rows, problems, advice=self._advice(n_rows, problems))
        if problems:
            first, left_out = min(problems), f"{self.source}: {len(problems)} of {n_rows} rows left out"
            log.warning("%s (first: row %d, %s)", left_out, first + 1, problems[first])
        if len(problems) == n_rows:
            raise BadInput(f"{self.source}: no usable row is left of {counted(n_rows, 'row')}")

    def _advice(self, n_rows: int, problems: Mapping[int, str]) -> str:
        outside = [float(label[1]) for label in map(_OUTSIDE.match, problems.values()) if label is not None]
        if len(outside) == len(problems) and 4 * len(problems) > n_rows:  # fewer are slips
            low, high = min(*outside, self.label_range[0]), max(*outside, self.label_range[1])
            return f"set {self.option_names.label_range} to the lowest and the highest possible label, here {low:g} and {high:g} or beyond"
        no_numbers = [found[1] for found in map(_NO_NUMBER.fullmatch, problems.values()) if found is not None]
        if 2 * len(no_numbers) > n_rows:
            return self._advice_on_labels(no_numbers)
        if self.option_names.skip is None or 2 * len(problems) > n_rows:  # skipping them is no remedy
            return "mend or remove them"
        return f"mend them or set {self.option_names.skip}"

    def _advice_on_labels(self, shown_values: Sequence[str]) -> str:
        """Return what a label is, and how to write those that are words or have a decimal comma."""
        low, high = self.label_range
        remedies = []
        if any(map(_WORDS.fullmatch, shown_values)):
            remedies.append(f"write words such as yes and no as {high:g} and {low:g}")
        if any(map(_DECIMAL_COMMA.fullmatch, shown_values)):
            remedies.append("write a decimal point, not a comma")
        accepted = f"a label is a number within {self.option_names.label_range} [{low:g}, {high:g}]"
        return f"{accepted}; {', and '.join(remedies) or 'mend or remove them'}"

    def checked(self) -> "CheckedPairs":
        """Read every row once, keeping none, so that bad rows are reported before any work.

        :raises BadInput: as `read_pairs`
        """
        n_rows, problems, digests = 0, dict[int, str](), list[str]()
        for block, block_problems in self.blocks():
            n_rows += len(block)
            problems |= block_problems
            digests.append(_block_digest(block, block_problems))
        self.check(n_rows, problems)
        return CheckedPairs(self, n_rows, problems, digests)


@dataclass(frozen=True)
class CheckedPairs:
    """Pairs of a file of any size; one block at a time is in memory.

    :param problems: why rows are left out, by row from 0
    :param digests: the digest of each block when it was checked
    """

    reader: PairReader
    n_rows: int
    problems: Mapping[int, str]
    digests: Sequence[str]

    def __len__(self) -> int:
        return self.n_rows - len(self.problems)

    def blocks(self) -> Iterator[tuple[Pairs, list[int]]]:
        """Yield the usable pairs, with the row of each from 0.

        :raises BadInput: if the file has changed since it was checked
        """
        start = 0
        file_blocks = self.reader.blocks()
        for block, block_problems in unchanged(
            self.reader.source, file_blocks, self.digests, lambda block_and_problems: _block_digest(*block_and_problems)
        ):
            rows = range(start, start + len(block))
            keep = [row for row in rows if row not in block_problems]
            yield (block if not block_problems else block.select(row - start for row in keep)), keep
            start = rows.stop

    def whole(self) -> tuple[Pairs, list[int]]:
        """Return all usable pairs, and the row of each from 0.

        :raises BadInput: as `blocks`
        """
        parts = list(self.blocks())
        return _joined(block for block, _ in parts), [row for _, rows in parts for row in rows]


def _block_digest(block: Pairs, problems: Mapping[int, str]) -> str:
    labels = () if block.labels is None else (block.labels.tobytes().hex(),)
    return texts_digest(block.queries, block.documents, labels, map(str, problems))


def _to_unit(
    values: Sequence[Any], label_range: tuple[float, float], range_name: str
) -> tuple[np.ndarray, dict[int, str]]:
    low, high = label_range
    labels, problems = np.zeros(len(values), dtype=np.float32), {}
    for i, value in enumerate(values):
        number = _number(value)
        if number is None:
            problems[i] = f"label {shown_value(value)} is not a number"
        elif not low <= number <= high:
            problems[i] = f"label {number:g} is outside {range_name} [{low:g}, {high:g}]"
        else:
            labels[i] = (number - low) / (high - low)
    return labels, problems


def _number(value: Any) -> float | None:
    """Return a number, or the value of a string in the notation of CSV and JSON (not "1_0" or "１"), else None."""
    if isinstance(value, str) and not _A_NUMBER.fullmatch(value):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def load_texts(source: Unlabelled, *, seed: int = 0) -> list[str]:
    """Read the lines of a .txt or the text columns of a table, column after column, without empty texts and repeats.

    :param seed: draws the `max_texts` texts
    :raises BadInput: if the file cannot be read, or columns are named for a .txt
    """
    section, found = "data.unlabelled.columns", locate(source.path, texts=True)
    if found is not None and found.format == "txt":
        if source.columns != Unlabelled.model_fields["columns"].default:
            raise BadInput(f"{section}: {source.path} has one text a line and no columns; leave columns out")
        all_texts = [text.strip() for text in read_texts(source.path, gaps=True)]
    else:
        table = read_text_columns(source.path, source.columns, gaps=True, section=section)
        all_texts = [text.strip() for name in source.columns for text in table[name]]
    texts = list(dict.fromkeys(filter(None, all_texts)))
    if len(texts) < len(all_texts):
        log.info("%s: %d of %d texts are empty or repeats", source.path, len(all_texts) - len(texts), len(all_texts))
    return [texts[row] for row in sample(len(texts), source.max_texts, seed)]


def load_parallel(given: Parallel, *, seed: int = 0) -> list[tuple[str, str]]:
    """Read texts with their translations as (source, target), each pair once, without those that lack a side.

    :param seed: draws the `max_pairs` pairs
    """
    table = read_text_columns(given.path, [given.source, given.target], gaps=True, section="data.parallel")
    rows = zip(table[given.source], table[given.target], strict=True)
    pairs = [pair for pair in dict.fromkeys((source.strip(), target.strip()) for source, target in rows) if all(pair)]
    if len(pairs) < (n_rows := len(table[given.source])):
        log.info("%s: %d of %d pairs lack a side or are repeats", given.path, n_rows - len(pairs), n_rows)
    return [pairs[row] for row in sample(len(pairs), given.max_pairs, seed)]


def keep_labelled(train: Pairs, data: Data, seed: int, notes: list[str]) -> tuple[Pairs, Pairs]:
    """Split pairs by query into (labelled, the rest without labels), as `labelled_share` or `max_labelled` say.

    The labelled pairs are for training and validation together, so checkpoints are chosen with few labels as well.

    Whole queries are taken in an order that depends only on the seed and their texts, up to the first that does not
    fit, so a small share is part of a larger one.

    :raises BadInput: if no pair would keep its label
    """
    if data.labelled_share is None and data.max_labelled is None:
        return train, Pairs([], [])
    target = round(data.labelled_share * len(train)) if data.labelled_share is not None else data.max_labelled or 0
    limit = _label_limit(data)
    if target >= len(train):
        notes.append(
            f"{limit} has no effect: the {counted(len(train), 'pair')} to train on and validate by all keep their labels"
        )
        return train, Pairs([], [])
    kept = take_nested_groups(Groups.by_text(map(text_key, train.queries)), max(1, target), seed)
    if not kept:
        raise BadInput(
            f"{limit}: the first query drawn has more pairs than the {target} of {len(train)} that may keep their labels; "
            "set more"
        )
    labelled, kept_set = train.select(kept), set(kept)
    rest = train.select(row for row in range(len(train)) if row not in kept_set)
    notes.append(
        f"{len(labelled)} of {len(train)} pairs keep their labels, for training and validation together; the others are used without"
    )
    return labelled, Pairs(rest.queries, rest.documents)


def load_labelled_pairs(data: Data, seed: int, held_out: set[str], notes: list[str]) -> list[Pairs]:
    """Read the files of `data.labelled_pairs`, without pairs that hold a held-out text.

    :param held_out: keys of held-out texts (`distill.data.splitting.text_key`)
    :raises BadInput: as `read_pairs`, or if no pair of a file is left
    """
    files, section_name = [], "data.labelled_pairs"
    option_names = OptionNames(columns=f"{section_name}.columns", label_range=f"{section_name}.label_range")
    for section in data.labelled_pairs:
        own = {
            "columns": section.columns or data.columns,
            "label_range": section.label_range or data.label_range,
            "max_pairs": section.max_pairs,
        }
        pairs = _load_pairs(section.path, data.model_copy(update=own), seed, notes, option_names)
        pairs = _without(pairs, held_out, notes, f"pair of {section.path}", "validates or evaluates")
        if not len(pairs):
            raise BadInput(f"{section_name}: every pair of {section.path} holds a validation or evaluation text")
        log.info("%s: %s with labels to train on", section.path, counted(len(pairs), "pair"))
        files.append(pairs)
    return files


def load_unlabelled_pairs(
    data: Data, seed: int, train: Pairs, rest: Pairs, held_out: set[str], notes: list[str]
) -> Pairs:
    """Return the pairs whose labels are not used, and those of `data.unlabelled_pairs` that need no teacher.

    :param train: the labelled pairs
    :param rest: the pairs whose labels are not used
    :param held_out: keys of held-out texts (`distill.data.splitting.text_key`)
    """
    found = list(zip(rest.queries, rest.documents, strict=True))
    found += [pair for section in data.unlabelled_pairs for pair in _source(section, data, seed, notes)]
    if not found:
        return Pairs([], [])
    training_pairs = set(zip(train.queries, train.documents, strict=True))
    new_pairs = [pair for pair in dict.fromkeys(found) if pair not in training_pairs]
    clean = [pair for pair in new_pairs if held_out.isdisjoint(map(text_key, pair))]
    if dropped := len(new_pairs) - len(clean):
        notes.append(
            f"{_holding(dropped, 'unlabelled pair')} a held-out text and {_were(dropped)} left out of training"
        )
    if n_known := len(found) - len(new_pairs):
        which = (
            "pair is a training pair already, or came" if n_known == 1 else "pairs are training pairs already, or came"
        )
        notes.append(f"{n_known} unlabelled {which} twice, and {_were(n_known)} left out")
    if not clean:
        where = "data.unlabelled_pairs" if data.unlabelled_pairs else _label_limit(data)
        causes = [f"{n_known} came twice or are training pairs already"] if n_known else []
        causes += [f"{_holding(dropped, 'pair')} a text of the validation or evaluation pairs"] if dropped else []
        advice = "; give pairs of other texts" + (
            f", or another data.evaluation than {data.evaluation}" if dropped and data.evaluation else ""
        )
        raise BadInput(
            f"{where}: none of {counted(len(found), 'pair')} without labels is left: {', '.join(causes)}{advice}"
        )
    return pairs_of(clean)


def _source(section: UnlabelledPairs, data: Data, seed: int, notes: list[str]) -> Iterable[tuple[str, str]]:
    if section.bundled is not None:
        pairs = _bundled(section.bundled, data, seed)
    elif section.path is not None:
        pairs = read_pairs(
            section.path,
            section.columns or data.columns,
            skip_bad_rows=data.skip_bad_rows,
            hub_split=data.hub_split,
            labelled=False,
            option_names=OptionNames(columns="data.unlabelled_pairs.columns"),
        )
        pairs = pairs.select(sample(len(pairs), section.max_pairs, seed))
    else:
        return []
    if data.resume is not None:
        pairs, resume_notes = _read_as_resumes(pairs, data.resume, section.path or "bundled")
        notes += resume_notes
    return zip(pairs.queries, pairs.documents, strict=True)


def _bundled(n_pairs: int, data: Data, seed: int) -> Pairs:
    """Generate the groups after those of `train: bundled`: different résumés and job descriptions."""
    start = -(-data.bundled_pairs // _BUNDLED_CANDIDATES)
    n_groups = -(-n_pairs // _BUNDLED_CANDIDATES)
    groups = generate_groups(n_groups, seed=seed, n_candidates=_BUNDLED_CANDIDATES, start=start)
    return pairs_of([(pair.resume, pair.jd) for group in groups for pair in group][:n_pairs])


def pairs_of(pairs: Iterable[tuple[str, str]]) -> Pairs:
    """Return (query, document) tuples as pairs without labels."""
    pairs = list(pairs)
    return Pairs([query for query, _ in pairs], [document for _, document in pairs])


def split_pairs(
    pairs: Pairs,
    share: float,
    *,
    seed: int,
    notes: list[str] | None = None,
    name: str = "held-out",
    way: Way = "auto",
) -> tuple[Pairs, Pairs]:
    """Split pairs into (rest, held out), so that no text is on both sides; texts are compared by `text_key`.

    Pairs that share a text, directly or through other pairs, form a component. Whole components are held out, in an
    order that depends only on the seed and their texts. If components are too large (many queries share one document),
    queries are held out instead, and the remaining pairs that contain a held-out text are dropped.

    :param way: hold out whole components, queries or documents; auto is as above
    :raises BadInput: if nothing could be held out, or nothing would be left.
    """
    drawn = _drawn(_keys(pairs), share, seed=seed, name=name, way=way)
    if notes is not None and drawn.n_dropped:
        notes.append(_dropped(drawn, name))
    return pairs.select(drawn.rest), pairs.select(drawn.held)


def _keys(pairs: Pairs) -> tuple[list[str], list[str]]:
    return [text_key(text) for text in pairs.queries], [text_key(text) for text in pairs.documents]


def _drawn(keys: tuple[list[str], list[str]], share: float, *, seed: int, name: str, way: Way) -> Drawn:
    """Draw the held-out pairs.

    :raises BadInput: if none or all of them would be held out
    """
    drawn = hold_out(*keys, share, seed=seed, way=way)
    if not drawn.held or not drawn.rest:
        hint = ", or name a file of pairs in data.evaluation" if name == "evaluation" else ""
        hint += "" if way == "auto" else ", or set data.split=auto"
        raise BadInput(
            f"{counted(len(keys[0]), 'pair')} cannot be split into training and {name}: too few texts are independent of each other; add pairs whose texts stand in no other pair{hint}"
        )
    return drawn


def _dropped(drawn: Drawn, name: str) -> str:
    if drawn.n_dropped == 1:
        return f"1 pair was dropped because it uses a text of the {name} pairs"
    return f"{drawn.n_dropped} pairs were dropped because they use a text of the {name} pairs"


def _n_shared(train: Pairs, evaluation: Pairs) -> int:
    """Return how many evaluation pairs are also training pairs."""
    trained = set(zip(*_keys(train), strict=True))
    return sum(pair in trained for pair in zip(*_keys(evaluation), strict=True))


def _leaks(train: Pairs, evaluation: Pairs, n_pairs: int) -> list[str]:
    texts = held_out_keys(evaluation)
    shared = len(texts & held_out_keys(train))
    if not shared:
        return []
    whole = f", and {n_pairs} of {len(evaluation)} pairs are training pairs, too" if n_pairs else ""
    return [
        f"leak: {shared} of {len(texts)} evaluation texts also stand in the training pairs{whole}; results on them are too good"
    ]


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
