"""Vocabulary trimming: find the tokens that a corpus uses, and cut a model down to them.

Most parameters of a multilingual encoder are word embeddings of languages that the student will never read. Removing
them (Abdaoui et al. 2020, "Load What You Need") is exact for covered texts: a text whose tokens are all kept gets the
same tokens and the same embedding as before. The report counts these texts, and how the other texts change.

A source is a named list of texts: a language or a domain. The coverage is reached in every source separately. Otherwise
a thousand résumés beside a million lines of another language could all fall into the share that is not covered.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from distill.data.scripts import Sources, kept_scripts, script_of
from distill.data.tokens import TokenTable, tokenize
from distill.errors import BadInput, JobFailed
from students.vocabulary.tokenizer_json import TokenizerJson, rebuilt
from students.vocabulary.word_embeddings import (
    padding_position,
    replace_vocabulary,
    token_ids_of_config,
    word_embedding,
)

__all__ = ["TextCounts", "TrimReport", "trim_vocabulary"]

_NO_LIMIT = 1 << 24  # tokens: no text is truncated while a corpus is counted
_TOLERANCE = 1e-6  # of hidden states on covered texts: equal up to rounding
_CHECKED_TEXTS = 200  # covered texts whose hidden states are compared
_CHECKED_TOKENS = 128  # tokens compared per text
_SHOWN = 20


@dataclass(frozen=True)
class TextCounts:
    """How the texts of one source change.

    :param n_covered: texts whose tokens are all kept
    :param n_same: covered texts with the same tokens after the cut; every other covered text is an error
    :param coverage: share of the token occurrences that are kept
    :param fertility: tokens per word (words are split at white space), before and after
    :param unknown: share of unknown tokens, before and after
    """

    n_texts: int
    n_covered: int
    n_same: int
    coverage: float
    fertility: tuple[float, float]
    unknown: tuple[float, float]


@dataclass(frozen=True)
class TrimReport:
    """What a cut changed.

    :param unreachable: number of tokens that the tokenizer never produces, before and after
    :param max_difference: largest absolute difference in the last hidden states of `n_checked` covered texts
    :param changed: texts that lost a token: source, text, tokens before and after
    """

    algorithm: str
    n_tokens: tuple[int, int]
    n_parameters: tuple[int, int]
    unreachable: tuple[int, int]
    scripts: tuple[str, ...]
    sources: dict[str, TextCounts]
    n_checked: int
    max_difference: float
    changed: tuple[dict[str, Any], ...] = field(repr=False)

    def to_json(self, *, n_changed: int = _SHOWN) -> dict[str, Any]:
        """Return the report for a card, with the first `n_changed` changed texts."""
        return {**asdict(self), "n_changed": len(self.changed), "changed": list(self.changed[:n_changed])}


def trim_vocabulary(
    transformer: Any, tokenizer: Any, sources: Sources, *, coverage: float | None = None, size: int | None = None
) -> tuple[Any, TrimReport]:
    """Cut a model, in place, to the tokens that the sources use; return its new tokenizer and a report of the losses.

    :param coverage: least share of each source's token occurrences to keep
    :param size: largest number of tokens to keep, the most frequent first; each source has the same weight
    :raises BadInput: if the tokenizer, the model or the size do not allow the cut
    :raises JobFailed: if a covered text changes
    """
    if (coverage is None) == (size is None):
        raise BadInput("give coverage or size to trim a vocabulary, one of them")
    texts = {name: list(dict.fromkeys(source_texts)) for name, source_texts in sources.items()}
    if not any(texts.values()):
        raise BadInput("a vocabulary is trimmed to the tokens of a corpus; there are no texts")
    before = TokenizerJson.of(tokenizer)
    n_rows = word_embedding(transformer).num_embeddings
    if max(before.tokens) >= n_rows:
        raise BadInput(f"the tokenizer has token {max(before.tokens)}, the model {n_rows} word embeddings")
    tokenizer_copy = copy.deepcopy(tokenizer)  # a copy: tokenizing resets truncation and padding
    tables = {name: _tokenized(tokenizer_copy, source_texts) for name, source_texts in texts.items()}
    kept = _kept(transformer, before, texts, tables, coverage=coverage, size=size)
    position = padding_position(transformer)
    order = before.in_order(kept, tokenizer.pad_token_id if position is None else position)
    after = before.cut(order)
    new_tokenizer = rebuilt(tokenizer, after)
    new_tokenizer_copy = copy.deepcopy(new_tokenizer)
    cut = _Cut(before, after, np.array(order), np.isin(np.arange(n_rows), order))

    covered = {name: _covered(before, table, texts[name], cut.survives) for name, table in tables.items()}
    drawn = _sample([text for name, rows in covered.items() for text in np.array(texts[name], dtype=object)[rows]])
    hidden = _hidden_states(transformer, tokenizer_copy, drawn)
    n_parameters = transformer.num_parameters()
    replace_vocabulary(transformer, lambda old: old[order].clone(), len(order), {old: i for i, old in enumerate(order)})
    difference = _difference(hidden, _hidden_states(transformer, new_tokenizer_copy, drawn))

    changed: list[dict[str, Any]] = []
    text_counts = {}
    for name, table in tables.items():
        text_counts[name], text_changes = cut.counts(
            texts[name], table, _tokenized(new_tokenizer_copy, texts[name]), covered[name]
        )
        changed += [{"source": name, **text_change} for text_change in text_changes]
    report = TrimReport(
        algorithm=before.algorithm,
        n_tokens=(len(before.tokens), len(order)),
        n_parameters=(n_parameters, transformer.num_parameters()),
        unreachable=(len(before.unreachable()), len(after.unreachable())),
        scripts=tuple(kept_scripts(texts)),
        sources=text_counts,
        n_checked=len(drawn),
        max_difference=difference,
        changed=tuple(changed),
    )
    _refuse_inexact(report)
    return new_tokenizer, report


def _kept(
    transformer: Any,
    before: TokenizerJson,
    texts: Mapping[str, Sequence[str]],
    tables: Mapping[str, TokenTable],
    *,
    coverage: float | None,
    size: int | None,
) -> set[int]:
    """Return the ids of the tokens to keep."""
    n_rows = word_embedding(transformer).num_embeddings
    scripts = kept_scripts(texts)
    always = before.named_ids() | before.letter_ids(lambda letter: script_of(letter) in ("", *scripts))
    always |= set(token_ids_of_config(transformer.config).values()) & set(before.tokens)
    counts = [np.bincount(table.ids, minlength=n_rows) for table in tables.values() if len(table.ids)]
    if coverage:
        return _covering(before, counts, always, coverage)
    return _most_frequent(before, counts, always, size or 0)


def _refuse_inexact(report: TrimReport) -> None:
    wrong = {name: counts.n_covered - counts.n_same for name, counts in report.sources.items()}
    if any(wrong.values()):
        listing = ", ".join(f"{n} of {name}" for name, n in wrong.items() if n)
        raise JobFailed(f"trimmed, {listing} of the texts whose tokens all survive have other pieces than before")
    if not report.max_difference <= _TOLERANCE:
        raise JobFailed(f"trimmed, the model differs by {report.max_difference:.2g} on texts whose tokens all survive")


def _tokenized(tokenizer: Any, texts: Sequence[str]) -> TokenTable:
    return tokenize(tokenizer, texts, max_length=_NO_LIMIT, special_tokens=False)


# ---------------------------------------------------------------------------------------------------------------------
# Which tokens are kept
# ---------------------------------------------------------------------------------------------------------------------


def _covering(before: TokenizerJson, counts: Sequence[np.ndarray], always: set[int], coverage: float) -> set[int]:
    """Return the smallest set of most frequent tokens that covers every source, and the tokens they are merged from."""
    kept = set(always)
    for n_uses in counts:
        order = np.lexsort((np.arange(len(n_uses)), -n_uses))
        free = np.zeros(len(n_uses), dtype=bool)
        free[list(always)] = True
        order = order[~free[order]]
        reached = n_uses[free].sum() + np.concatenate([[0], np.cumsum(n_uses[order])])
        n_needed = int(np.argmax(reached >= coverage * n_uses.sum()))  # the first position that reaches the coverage
        kept |= set(order[:n_needed].tolist())
    return before.with_parents(kept)


def _most_frequent(before: TokenizerJson, counts: Sequence[np.ndarray], always: set[int], size: int) -> set[int]:
    kept = before.with_parents(always)
    if len(kept) > size:
        raise BadInput(
            f"size {size}: special tokens, bytes and single characters of the scripts in the corpus are {len(kept)} tokens already; give more"
        )
    shares = sum(n_uses / n_uses.sum() for n_uses in counts)
    order = np.lexsort((np.arange(len(shares)), -np.asarray(shares)))
    for i in order[np.asarray(shares)[order] > 0].tolist():
        if i in kept:
            continue
        grown = kept | before.with_parents([i])
        if len(grown) <= size:
            kept = grown
        if len(kept) == size:
            break
    return kept


# ---------------------------------------------------------------------------------------------------------------------
# What changes
# ---------------------------------------------------------------------------------------------------------------------


def _covered(before: TokenizerJson, table: TokenTable, texts: Sequence[str], survives: np.ndarray) -> np.ndarray:
    """Return the row numbers of the texts whose tokens are all kept. *Shape:* (n_covered,)."""
    n_lost = np.concatenate([[0], np.cumsum(~survives[table.ids])])[table.offsets]
    rows: np.ndarray = np.flatnonzero(np.diff(n_lost) == 0)
    if before.algorithm != "WordPiece" or before.unk_id is None:
        return rows
    n_unknown = np.concatenate([[0], np.cumsum(table.ids == before.unk_id)])[table.offsets]
    unknown = np.diff(n_unknown) > 0
    tried_pieces = _TriedPieces(before)
    return np.array(
        [i for i in rows.tolist() if not unknown[i] or all(survives[list(tried_pieces.of(texts[i]))])], dtype=np.int64
    )


class _TriedPieces:
    """The tokens that WordPiece matches in a word before it gives up and returns [UNK].

    If one of them were removed, another token could match there, and the word might no longer be unknown.
    """

    def __init__(self, before: TokenizerJson) -> None:
        model = before.state["model"]
        self.ids, self.prefix = before.ids, model["continuing_subword_prefix"]
        self.max_characters, self.backend = model["max_input_chars_per_word"], before.backend()

    def of(self, text: str) -> Iterator[int]:
        backend = self.backend
        normal = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
        words = (
            [normal]
            if backend.pre_tokenizer is None
            else [w for w, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]
        )
        for word in words:
            yield from self._of_word(word) if len(word) <= self.max_characters else ()

    def _of_word(self, word: str) -> Iterator[int]:
        start = 0
        while start < len(word):
            pieces = ((self.prefix * (start > 0) + word[start:end], end) for end in range(len(word), start, -1))
            found = next(((piece, end) for piece, end in pieces if piece in self.ids), None)
            if found is None:
                return
            yield self.ids[found[0]]
            start = found[1]


@dataclass(frozen=True)
class _Cut:
    """A vocabulary before and after the cut."""

    before: TokenizerJson
    after: TokenizerJson
    order: np.ndarray
    """The old id of each new token. *Shape:* (n_new,)."""
    survives: np.ndarray
    """Which old tokens are kept. *Shape:* (n_old,)."""

    def counts(
        self, texts: Sequence[str], old: TokenTable, new: TokenTable, covered: np.ndarray
    ) -> tuple[TextCounts, list[dict[str, str]]]:
        """Count how texts change, and return those that lost a token, with their tokens before and after.

        :param covered: the row numbers of the texts whose tokens are all kept
        """
        old_ids = self.order[new.ids]  # new tokens as old ids: (n_new_tokens,)
        is_covered = np.zeros(len(texts), dtype=bool)
        is_covered[covered] = True
        n_same, changed = 0, list[dict[str, str]]()
        for i, text in enumerate(texts):
            first, second = old.ids[old.offsets[i] : old.offsets[i + 1]], old_ids[new.offsets[i] : new.offsets[i + 1]]
            if is_covered[i]:
                n_same += np.array_equal(first, second)
            else:
                pieces = [" ".join(self.before.tokens[int(token)] for token in side) for side in (first, second)]
                changed.append({"text": text, "before": pieces[0], "after": pieces[1]})
        n_words = max(sum(len(text.split()) for text in texts), 1)
        unknown = [
            float((ids == unk).mean()) if len(ids) and unk is not None else 0.0
            for ids, unk in ((old.ids, self.before.unk_id), (new.ids, self.after.unk_id))
        ]
        counts = TextCounts(
            n_texts=len(texts),
            n_covered=len(covered),
            n_same=n_same,
            coverage=float(self.survives[old.ids].mean()) if len(old.ids) else 1.0,
            fertility=(len(old.ids) / n_words, len(new.ids) / n_words),
            unknown=(unknown[0], unknown[1]),
        )
        return counts, changed


def _sample(texts: Sequence[str]) -> list[str]:
    """Choose texts evenly over the range of lengths, so that short and long texts are checked."""
    ascending = sorted(texts, key=lambda text: (len(text), text))
    places = np.unique(np.linspace(0, len(ascending) - 1, min(_CHECKED_TEXTS, len(ascending))).astype(int))
    return [ascending[i] for i in places]


def _hidden_states(transformer: Any, tokenizer: Any, texts: Sequence[str]) -> list[Any]:
    """Return the last hidden states, zero at padding. *Shape:* each batch (n_texts, n_tokens, width)."""
    import torch

    was_training, found = transformer.training, []
    transformer.eval()
    with torch.no_grad():
        for start in range(0, len(texts), 32):
            batch = tokenizer(
                list(texts[start : start + 32]),
                padding=True,
                truncation=True,
                return_tensors="pt",
                max_length=min(tokenizer.model_max_length, _CHECKED_TOKENS),
            ).to(transformer.device)
            output = transformer(**batch, output_hidden_states=True).hidden_states[-1]
            found.append(output.float() * batch["attention_mask"].unsqueeze(-1))
    transformer.train(was_training)
    return found


def _difference(before: Sequence[Any], after: Sequence[Any]) -> float:
    return max((float((a - b).abs().max()) for a, b in zip(before, after, strict=True)), default=0.0)
