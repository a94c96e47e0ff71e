"""The training data: tokenised units with their labels and the teachers' signals, and batches of them.

A unit is a pair, a query with its candidates, or a text without a pair (for the embedding objective). Units of all
kinds are drawn together. A loss is a mean over its basis: pairs, queries ("groups"), texts or positives. A `Batch`
has its share of each basis in the whole step, so the losses of all passes and processes add up to the step's mean.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from distill.data.cut_texts import CutTexts, count_cut_texts
from distill.data.pairs import Pairs
from distill.data.ragged import Ragged
from distill.data.splitting import numbered
from distill.data.token_files import tokenize_once
from distill.data.tokens import TokenTable, tokenize
from distill.files.artefact import ModelKind
from distill.models.generative import tokenize_templated
from distill.training.negatives import GuideVectors, Negatives

__all__ = ["Basis", "Batch", "LoneTexts", "Tokenization", "TrainSet", "group_pairs", "is_ordered", "validation_value"]

Basis = Literal["pairs", "labelled", "groups", "ordered", "texts", "positives", "tokens"]
_BASES: tuple[Basis, ...] = get_args(Basis)
_SPLIT_GAIN = 0.8  # a pass is encoded in two parts if that leaves at most this share of the padded tokens
_GOLDEN = 0x9E3779B97F4A7C15  # multiplying by it scatters consecutive numbers (Fibonacci hashing)


@dataclass
class Batch:
    """One forward pass.

    Sequences are the texts of a bi-encoder (every pair's query, then document, then unpaired texts) or a cross-encoder's pairs.

    *Shape:* inputs: parts of the sequences, each {name: (n_part, n_tokens)}; order: (n_sequences,), where sequence i
    stands in the concatenated parts; query_rows, document_rows: (n_pairs,) sequence of each side (bi-encoder); labels
    (NaN where a pair has none), teacher_scores[name]: (n_pairs,); teacher_embeddings: (n_sequences, teacher_width);
    slots: (n_groups, n_candidates) pair of each candidate, with slot_mask; excluded: (n_pairs, n_pairs); alike:
    (n_sequences,) bool, those for which all live teachers have the student's tokens; relations[teacher]: (n_sequences,
    its width); distinct: (n_texts,) one sequence of each text, in an order unrelated to the data.

    If only one side is learned, `query_rows` and `document_rows` both index its sequences, and the teacher's vectors of
    the other side are given (`other_role`: 0 queries, 1 documents). *Shape:* other_embeddings: (n_pairs, teacher_width)
    """

    inputs: list[dict[str, Tensor]]
    order: Tensor
    query_rows: Tensor
    document_rows: Tensor
    labels: Tensor | None
    teacher_scores: dict[str, Tensor]
    teacher_embeddings: Tensor | None
    slots: Tensor
    slot_mask: Tensor
    excluded: Tensor | None
    share: dict[Basis, float]
    rows: np.ndarray
    other_embeddings: Tensor | None = None
    other_role: int | None = None
    relations: dict[str, Tensor] = field(default_factory=dict)
    distinct: Tensor | None = None
    alike: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Move every tensor to a device."""
        moved = {name: _moved(value, device) for name, value in vars(self).items()}
        return Batch(**moved)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, list):
        return [_moved(item, device) for item in value]
    if isinstance(value, dict):
        return {name: _moved(item, device) for name, item in value.items()}
    return value


@dataclass(frozen=True)
class Tokenization:
    """How the texts of a training become sequences of tokens."""

    kind: ModelKind
    tokenizer: Any
    max_length: int
    prompts: tuple[str, str] = ("", "")
    """What is put before queries and documents."""
    by_role: bool = False
    """Keep a text that is both query and document apart: needed where some model of the run prompts the roles differently."""
    on_progress: Callable[[int], None] | None = None
    generative: Any = None
    """The generative reranker whose template puts pairs together; None is any other model."""
    store: Path | None = None
    """Holds the tokens of large sets, for the trainings that read the same; None keeps all in memory."""

    def of(self, texts: Sequence[str], documents: Sequence[str] | None = None) -> tuple[TokenTable, CutTexts | None]:
        """Tokenise texts, or pairs of them, and count what was cut off."""
        if self.generative is not None and documents is not None:
            return tokenize_templated(self.generative, texts, documents, self.on_progress)
        columns = (texts,) if documents is None else (texts, documents)
        tokens = self._tokens(*columns)
        return tokens, count_cut_texts(self.tokenizer, tokens.lengths, *columns, max_length=self.max_length)

    def _tokens(self, *columns: Sequence[str]) -> TokenTable:
        options: dict[str, Any] = {"max_length": self.max_length, "on_progress": self.on_progress}
        if self.store is None:
            return tokenize(self.tokenizer, *columns, **options)
        from accelerate import PartialState

        with PartialState().main_process_first():  # the others read what it has written
            return tokenize_once(self.store, self.tokenizer, *columns, **options)


@dataclass(frozen=True)
class LoneTexts:
    """Texts without a pair; a bi-encoder learns the teacher's embeddings of them."""

    unlabelled: Sequence[str] = ()
    parallel: Sequence[tuple[str, str]] = ()
    """Source and target texts: each is a lone text, both with the teacher's embedding of the source."""
    role: int = 1
    """0 reads them as queries, 1 as documents."""


class _Sequences:
    """Gives texts sequence numbers: a text has the same number in both roles, unless roles are kept apart."""

    def __init__(self, by_role: bool) -> None:
        self.by_role = by_role
        self.texts: list[str] = []
        self.roles: list[int] = []
        self.teacher_texts: list[str] = []
        """The text whose teacher embedding each is to match: itself, or the one that it translates."""
        self._of_own: tuple[dict[str, int], dict[str, int]] = ({}, {})  # by role; of millions no tuple is kept
        self._of_translations: dict[tuple[int, str, str], int] = {}

    def rows(self, role: int, texts: Sequence[str], teacher_texts: Sequence[str]) -> np.ndarray:
        """Return the number of each text. *Shape:* (n_texts,)."""
        role = role if self.by_role else 0
        numbers = (
            self._number(role, text, teacher_text) for text, teacher_text in zip(texts, teacher_texts, strict=True)
        )
        return np.fromiter(numbers, dtype=np.int64, count=len(texts))

    def _number(self, role: int, text: str, teacher_text: str) -> int:
        new_number = len(self.texts)
        if text == teacher_text:
            number = self._of_own[role].setdefault(text, new_number)
        else:
            number = self._of_translations.setdefault((role, text, teacher_text), new_number)
        if number == new_number:
            self.texts.append(text)
            self.roles.append(role)
            self.teacher_texts.append(teacher_text)
        return number

    def lone_rows(self, lone: LoneTexts) -> np.ndarray:
        """Return the number of each lone text, the unlabelled first, then sources and targets."""
        sources, targets = [source for source, _ in lone.parallel], [target for _, target in lone.parallel]
        columns = ((lone.unlabelled, lone.unlabelled), (sources, sources), (targets, sources))
        return np.concatenate([self.rows(lone.role, texts, teacher_texts) for texts, teacher_texts in columns])


@dataclass
class TrainSet:
    """Units over a token table.

    :param query_rows: sequence of each pair's query; a cross-encoder's sequence i is pair i. *Shape:* (n_pairs,)
    :param unit_pairs: the pairs of each unit, empty for a lone text
    :param unit_texts: the sequences of each unit
    :param embeddings: gives the teacher's embeddings of sequences, (n, teacher_width)
    """

    kind: ModelKind
    tokens: TokenTable
    query_rows: np.ndarray
    document_rows: np.ndarray
    labels: np.ndarray | None
    unit_pairs: Ragged
    unit_texts: Ragged
    teacher_scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    embeddings: Callable[[np.ndarray], np.ndarray] | None = None
    in_batch_negatives: bool = False
    """Documents of other pairs are negatives, except those in `Batch.excluded`."""
    positive_from: float = 0.5
    """The least label of a positive for InfoNCE."""
    guide: GuideVectors | None = None
    """A teacher that detects false negatives among them."""
    coupled: bool = False
    """The objectives compare the units of a step with each other."""
    relations: dict[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    """By teacher, its embeddings of sequences, for objectives on distances between texts."""
    some_unread: bool = False
    """Some teacher does not read all texts: where it has no embedding, its numbers are NaN."""
    valued_at_start: bool = False
    texts: list[str] = field(default_factory=list)
    """The bare text of each sequence of a bi-encoder, and in `roles` whether it is a query (0) or a document (1)."""
    roles: list[int] = field(default_factory=list)
    own_role: int | None = None
    """The one side that is learned, the other being the teacher's; None learns both."""
    teacher_texts: list[str] = field(default_factory=list)
    """The text whose teacher embedding each sequence is to match: its own, or the one that it translates."""
    cut: CutTexts | None = None
    """How much `max_length` cut off the sequences."""
    alike: np.ndarray | None = None
    """The sequences whose tokens are the same in all live teachers; None without these. *Shape:* (n_sequences,)."""

    @classmethod
    def build(
        cls,
        tokenization: Tokenization,
        pairs: Pairs,
        *,
        candidates: int | None = None,
        lone: LoneTexts | None = None,
    ) -> "TrainSet":
        """Tokenise pairs (and lone texts, for a bi-encoder) and group them into units.

        :param candidates: the most documents of a query in one unit; None makes each pair a unit
        """
        groups = group_pairs(pairs, candidates)
        if tokenization.kind == "cross_encoder":
            tokens, cut = tokenization.of(pairs.queries, pairs.documents)
            rows = np.arange(len(pairs))
            return cls(tokenization.kind, tokens, rows, rows, pairs.labels, groups, groups, cut=cut)
        sequences = _Sequences(tokenization.by_role)
        query_rows = sequences.rows(0, pairs.queries, pairs.queries)
        document_rows = sequences.rows(1, pairs.documents, pairs.documents)
        lone_rows = sequences.lone_rows(lone or LoneTexts())
        tokens, cut = tokenization.of(
            [tokenization.prompts[role] + text for role, text in zip(sequences.roles, sequences.texts, strict=True)]
        )
        lone_units = Ragged.single(np.array(list(dict.fromkeys(lone_rows.tolist())), dtype=np.int64))
        no_pairs = Ragged.cut(np.zeros(0, dtype=np.int64), [0] * len(lone_units))
        return cls(
            tokenization.kind,
            tokens,
            query_rows,
            document_rows,
            pairs.labels,
            groups.followed_by(no_pairs),
            groups.mapped(query_rows, document_rows).followed_by(lone_units),
            texts=sequences.texts,
            roles=sequences.roles,
            teacher_texts=sequences.teacher_texts,
            cut=cut,
        )

    def learn_one_side(self, role: int) -> None:
        """Learn only queries (0) or only documents (1); the roles must have been kept apart (`by_role`)."""
        own_rows = self.document_rows if role else self.query_rows
        self.own_role = role
        lone_units = np.flatnonzero(self.unit_pairs.lengths == 0)  # they come after the pairs
        with_pairs = Ragged(self.unit_pairs.values, self.unit_pairs.offsets[: len(self) + 1 - len(lone_units)])
        self.unit_texts = with_pairs.mapped(own_rows).followed_by(Ragged.single(self.unit_texts.joined(lone_units)))

    @property
    def cannot_rank(self) -> str | None:
        """The reason why predictions cannot be ranked against the pairs' labels; None if they can."""
        if self.labels is None:
            return "the validation pairs have no labels"
        if len(self.labels) and np.ptp(self.labels) == 0:
            return f"every validation label is {float(self.labels[0]):g}"
        return None

    def __len__(self) -> int:
        return len(self.unit_pairs)

    @property
    def unit_lengths(self) -> np.ndarray:
        """Tokens of each unit's longest sequence. *Shape:* (n_units,)."""
        lengths, starts = self.tokens.lengths[self.unit_texts.values], self.unit_texts.offsets[:-1]
        return np.maximum.reduceat(lengths, starts) if len(starts) else lengths

    @property
    def unit_sequences(self) -> np.ndarray:
        """Sequences of each unit. *Shape:* (n_units,)."""
        return self.unit_texts.lengths

    def counts(self, units: np.ndarray) -> dict[Basis, int]:
        """Return the size of each basis in the given units."""
        pairs = self._pairs(units)
        labels = np.zeros(0) if self.labels is None else self.labels[pairs]
        groups = [self.unit_pairs[unit] for unit in units[self.unit_pairs.lengths_of(units) > 1].tolist()]
        return {
            "pairs": len(pairs),
            "labelled": int(np.isfinite(labels).sum()),
            "groups": len(groups),
            "ordered": sum(is_ordered(self.labels, group) for group in groups),
            "texts": int(self.unit_sequences_of(units)),
            "positives": int((labels >= self.positive_from).sum()),
            "tokens": self._tokens_of(units),
        }

    def unit_sequences_of(self, units: np.ndarray) -> int:
        """Return the number of sequences in the given units."""
        return int(self.unit_texts.lengths_of(units).sum())

    def _tokens_of(self, units: np.ndarray) -> int:
        """Return how many tokens of the given units are the same for student and live teachers."""
        if self.alike is None or not len(units):
            return 0
        rows = self.unit_texts.joined(units)
        return int(self.tokens.lengths[rows][self.alike[rows]].sum())

    def _pairs(self, units: np.ndarray) -> np.ndarray:
        return self.unit_pairs.joined(units)

    def batch(self, units: np.ndarray, *, totals: Mapping[Basis, int], n_processes: int = 1) -> Batch:
        """Build the pass over the given units of a step with the given totals.

        An empty `units` gives a pass over unit 0 with weight zero, so that a process without units still takes part.
        """
        counts = self.counts(units)
        share: dict[Basis, float] = {basis: n_processes * counts[basis] / max(totals[basis], 1) for basis in _BASES}
        units = units if len(units) else np.array([0])
        pairs = self._pairs(units)
        rows = pairs if self.kind == "cross_encoder" else self.unit_texts.joined(units)
        place_of = {int(row): i for i, row in enumerate(rows)}  # for a text in two units either place is right
        inputs, order = self._inputs(rows)
        slots, slot_mask = self._slots(units)
        query_rows, document_rows, other_embeddings = self._sides(pairs)
        return Batch(
            inputs=inputs,
            order=order,
            query_rows=torch.tensor([place_of[int(row)] for row in query_rows], dtype=torch.long),
            document_rows=torch.tensor([place_of[int(row)] for row in document_rows], dtype=torch.long),
            labels=None if self.labels is None else torch.from_numpy(self.labels[pairs]),
            teacher_scores={name: torch.from_numpy(scores[pairs]) for name, scores in self.teacher_scores.items()},
            teacher_embeddings=None if self.embeddings is None else torch.from_numpy(self.embeddings(rows)),
            slots=slots,
            slot_mask=slot_mask,
            excluded=torch.from_numpy(self._negatives.excluded(pairs)) if self.in_batch_negatives else None,
            share=share,
            rows=pairs,
            other_embeddings=other_embeddings,
            other_role=None if self.own_role is None else 1 - self.own_role,
            relations={name: torch.from_numpy(embeddings(rows)) for name, embeddings in self.relations.items()},
            distinct=_distinct(rows) if self.relations else None,
            alike=None if self.alike is None else torch.from_numpy(self.alike[rows]),
        )

    @cached_property
    def _negatives(self) -> Negatives:
        return self.negatives(self.guide)

    def negatives(self, guide: GuideVectors | None = None) -> Negatives:
        """Return which documents of a step are no negatives of its queries."""
        return Negatives(
            self.query_rows,
            self.document_rows,
            self.labels,
            guide,
            positive_from=self.positive_from,
            text_numbers=numbered(self.texts, {}) if self.texts else None,
        )

    def _sides(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, Tensor | None]:
        """Return the sequences of both sides; for one learned side its own twice, and the other's teacher vectors."""
        queries, documents = self.query_rows[pairs], self.document_rows[pairs]
        if self.own_role is None:
            return queries, documents, None
        if self.embeddings is None:
            raise ValueError("one side is learned against the teacher's embeddings of the other; there are none")
        own_rows, other_rows = (documents, queries) if self.own_role else (queries, documents)
        return own_rows, own_rows, torch.from_numpy(self.embeddings(other_rows))

    def value(self, rows: np.ndarray, outputs: np.ndarray) -> float:
        """Return the validation value of predictions of pairs. *Shape:* rows, outputs: (n_pairs,)."""
        if self.labels is None:
            raise ValueError("pairs without labels give no validation value")
        return validation_value(outputs, self.labels[rows])

    def _inputs(self, rows: np.ndarray) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Pad sequences in one part, or in two if short and long ones are mixed (queries and their documents)."""
        lengths = self.tokens.lengths[rows]
        by_length = np.argsort(lengths, kind="stable")
        ascending = lengths[by_length]
        padded = np.arange(1, len(rows) + 1) * ascending + (len(rows) - np.arange(1, len(rows) + 1)) * ascending[-1]
        cut = int(np.argmin(padded)) + 1
        parts = [by_length[:cut], by_length[cut:]] if padded[cut - 1] < _SPLIT_GAIN * padded[-1] else [by_length]
        order = np.empty(len(rows), dtype=np.int64)
        order[np.concatenate(parts)] = np.arange(len(rows))
        return [self.tokens.batch(rows[part]) for part in parts], torch.from_numpy(order)

    def _slots(self, units: np.ndarray) -> tuple[Tensor, Tensor]:
        sizes = self.unit_pairs.lengths_of(units).tolist()
        group_sizes = [size for size in sizes if size > 1]
        slots = torch.zeros(len(group_sizes), max(group_sizes, default=0), dtype=torch.long)
        mask = torch.zeros_like(slots, dtype=torch.bool)
        start = group = 0
        for size in sizes:
            if size > 1:
                slots[group, :size] = torch.arange(start, start + size)
                mask[group, :size] = True
                group += 1
            start += size
        return slots, mask


def _distinct(rows: np.ndarray) -> Tensor:
    """Return a position of each distinct row, in an order that depends neither on the plan nor on the data's order."""
    distinct, places = np.unique(rows, return_index=True)
    return torch.from_numpy(places[np.argsort(distinct.astype(np.uint64) * np.uint64(_GOLDEN), kind="stable")])


def group_pairs(pairs: Pairs, candidates: int | None) -> Ragged:
    """Return single pairs, or each query's pairs in runs of at most `candidates`."""
    if candidates is None:
        return Ragged.single(np.arange(len(pairs)))
    queries = pairs.query_ids
    sizes = np.bincount(queries)
    runs = [min(candidates, size - start) for size in sizes.tolist() for start in range(0, size, candidates)]
    return Ragged.cut(np.argsort(queries, kind="stable"), runs)


def is_ordered(labels: np.ndarray | None, group: np.ndarray) -> bool:
    """Tell whether the known labels of a query's candidates differ. *Shape:* labels: (n_pairs,); group: (n_candidates,)."""
    if labels is None:
        return False
    known = labels[group][np.isfinite(labels[group])]
    return len(known) > 1 and bool(np.ptp(known) > 0)


def validation_value(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the metric that picks the checkpoint: ROC-AUC for two label values, else Spearman; NaN if constant.

    *Shape:* scores, labels: (n_pairs,)

    >>> validation_value(np.array([0.1, 0.9, 0.8]), np.array([0.0, 1.0, 0.0]))
    1.0
    """
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    if not np.isfinite(scores).all() or np.ptp(scores) == 0 or np.ptp(labels) == 0:
        return float("nan")
    values = np.unique(labels)
    return float(
        roc_auc_score(labels == values[1], scores) if len(values) == 2 else spearmanr(scores, labels).statistic
    )
