"""The text that a student's vocabulary is fitted to, and changes to the vocabulary of a whole model.

A source is a language or a domain: one side of the pairs, or one column of a file. Columns of one row belong together.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import held_out_keys
from distill.data.splitting import sample, text_key
from distill.data.tables import read_text_columns
from distill.files.artefact import content_hash
from distill.models.modeling import replace_tokenizer, replace_transformer, tokenizer_of, transformer_of
from distill.recipe.schema import Student, Unlabelled, Vocabulary
from distill.run import Run
from distill.wording import counted
from students.vocabulary.extending import extend_vocabulary
from students.vocabulary.factorisation import factorise_embeddings
from students.vocabulary.new_vocabulary import new_vocabulary
from students.vocabulary.tokenizer_json import TokenizerJson
from students.vocabulary.trimming import trim_vocabulary

__all__ = ["Corpus", "change_vocabulary", "factorise", "read_corpus", "student_corpus"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """Texts by source, and groups of texts that belong together (a sentence and its translation; else one text)."""

    sources: dict[str, list[str]] = field(default_factory=dict)
    contexts: list[tuple[str, ...]] = field(default_factory=list)

    def fingerprint(self) -> str:
        """Return 16 hex digits of SHA-256 over the sources and contexts."""
        return content_hash([self.sources, self.contexts])

    def add(self, name: str, texts: Iterable[str]) -> None:
        """Add a source, without empty texts and repeats; do nothing if no text is left."""
        if found := list(dict.fromkeys(text for text in texts if text.strip())):
            self.sources[name] = [*self.sources.get(name, []), *found]

    def add_column(self, name: str, texts: Iterable[str]) -> None:
        """Add a column of a file as a source of its own, with a number if another file's column has the name."""
        names = (name, *(f"{name} {number}" for number in range(2, len(self.sources) + 3)))
        self.add(next(free for free in names if free not in self.sources), texts)


def student_corpus(run: Run, section: Student | None = None) -> Corpus:
    """Return the corpus of the student's vocabulary: its own texts, or what the student trains on in all stages.

    :param section: the student's section; None is the recipe's
    """
    section = section or run.student_section
    vocabulary, split = section.vocabulary, run.learned
    if vocabulary is not None and vocabulary.texts:
        held_out = held_out_keys(*(stage.split.validation for stage in run.stages), split.evaluation)
        corpus = read_corpus(vocabulary.texts, without=held_out, seed=run.recipe.seed)
    else:
        corpus = Corpus()
        corpus.add("train", [*split.train.queries, *split.train.documents])
        without_labels = [*split.unlabelled_pairs.queries, *split.unlabelled_pairs.documents]
        corpus.add("unlabelled pairs", without_labels)
        corpus.add("unlabelled", split.unlabelled)
        corpus.add("parallel source", [source for source, _ in split.parallel])
        corpus.add("parallel target", [target for _, target in split.parallel])
        lone_texts = [*split.train.queries, *split.train.documents, *split.unlabelled, *without_labels]
        corpus.contexts.extend(split.parallel)
        corpus.contexts.extend((text,) for text in dict.fromkeys(lone_texts))
    corpus.add("prompts", section.prompts or ())  # prompts come before every text, so none of their tokens may be lost
    return corpus


def read_corpus(texts: Sequence[Unlabelled], *, without: Collection[str] = (), seed: int = 0) -> Corpus:
    """Read files; each column is a source, each row a context.

    :param without: keys of texts (`text_key`) whose rows are left out
    :param seed: of the draw, if only `max_texts` rows are used
    """
    corpus = Corpus()
    for entry in texts:
        table = read_text_columns(entry.path, entry.columns, gaps=True, section="texts.columns")
        rows = list(zip(*(table[column] for column in entry.columns), strict=True))
        if without:
            n_read = len(rows)
            rows = [row for row in rows if not any(text_key(text) in without for text in row)]
            if len(rows) < n_read:
                n_left_out = counted(n_read - len(rows), "row")
                log.info("%s: %s with a held-out text left out of the vocabulary's text", entry.path, n_left_out)
        kept = [rows[row] for row in sample(len(rows), entry.max_texts, seed)]
        name = Path(entry.path).name.partition(".")[0]
        for column, column_texts in zip(entry.columns, zip(*kept, strict=True), strict=False):
            corpus.add_column(f"{name} {column}", column_texts)
        corpus.contexts.extend(context for row in kept if (context := tuple(text for text in row if text)))
    return corpus


def change_vocabulary(model: Any, vocabulary: Vocabulary, corpus: Corpus, *, seed: int) -> dict[str, Any]:
    """Trim, replace or extend the vocabulary of a sentence-transformers model, in place; return the report."""
    transformer, tokenizer = transformer_of(model), tokenizer_of(model)
    log.info("vocabulary: tokenizing the corpus for another vocabulary than the %s tokens", f"{len(tokenizer):,}")
    if vocabulary.trim is not None:
        new_tokenizer, trimmed = trim_vocabulary(
            transformer, tokenizer, corpus.sources, coverage=vocabulary.trim.coverage, size=vocabulary.trim.size
        )
        report = trimmed.to_json()
    elif vocabulary.train is not None:
        new_tokenizer, trained = new_vocabulary(
            transformer,
            tokenizer,
            corpus.sources,
            vocabulary.train,
            seed=seed,
            contexts=corpus.contexts,
        )
        report = trained.to_json()
    elif vocabulary.extend is not None:
        new_tokenizer, extended = extend_vocabulary(
            transformer, tokenizer, corpus.sources, vocabulary.extend, seed=seed, contexts=corpus.contexts
        )
        report = extended.to_json()
        log.info("vocabulary: %d → %d tokens", *extended.n_tokens)
    replace_tokenizer(model, new_tokenizer)
    return report


def factorise(model: Any, rank: int, corpus: Corpus) -> dict[str, Any]:
    """Factorise the word embeddings of a sentence-transformers model, in place; return the report.

    Tokens are weighted by their number of uses in the corpus plus one. With these weights MiniLM-L6 at rank 128 keeps a
    mean cosine of 0.94 to itself before; with equal weights 0.72.
    """
    transformer, tokenizer = transformer_of(model), tokenizer_of(model)
    frequencies = np.ones(transformer.config.vocab_size)
    backend = TokenizerJson.of(tokenizer).backend()
    for texts in corpus.sources.values():
        for encoding in backend.encode_batch_fast(texts):
            np.add.at(frequencies, encoding.ids, 1)
    factorised, report = factorise_embeddings(transformer, tokenizer, rank, frequencies)
    replace_transformer(model, factorised)
    return report.to_json()
