"""Baselines: TF-IDF, a pretrained encoder without training, an encoder behind an endpoint, matching by paragraph.

Each baseline is a folder under `<run>/baselines/`. `distill.scorers.opening` opens it, `distill score` scores with it,
and it is a row of every report. A pretrained encoder is an ordinary model folder; each other baseline holds a
`scorer.json` that states its kind, and no pickle. All baselines give a cosine; (cos + 1) / 2 is their score in [0, 1].
"""

import logging
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distill._moved import moved_names
from distill.data.pairs import Pairs, Split
from distill.data.scripts import script_shares
from distill.data.splitting import sample
from distill.errors import BadInput, loading
from distill.files.artefact import write_json
from distill.files.trust import read_json
from distill.progress import OnProgress
from distill.recipe.schema import Paragraphs, Remote, TfIdf
from distill.runtime.scorer import Scorer
from distill.runtime.vectors import unit_rows
from distill.scorers.scoring import SCORER_FILE, PairScorer
from distill.wording import or_least

__all__ = [
    "PairScorer",
    "ParagraphScorer",
    "RemoteScorer",
    "TfIdfScorer",
    "choose_tfidf",
    "floor_texts",
    "has_kept_vectors",
    "split_paragraphs",
    "term_words",
    "tfidf_cosines",
    "write_paragraphs",
    "write_remote",
    "write_tfidf",
]

__getattr__ = moved_names(__name__)

_VOCABULARY, _IDF = "vocabulary.json", "idf.npy"
_PAIRS_AT_ONCE = 4096
_OTHER_SCRIPTS = 0.5  # difference of a script's shares above which validation does not predict the evaluation
_MOST_UNPAIRED = 100_000  # texts without labels; more would change the frequencies little
_FLOORS: tuple[tuple[Literal["word", "char", "char_wb"], tuple[int, int]], ...] = (
    ("word", (1, 1)),
    ("char_wb", (2, 4)),
    ("char", (1, 3)),
)
_SENTENCE_END = re.compile(r"(?<=[.!?。])\s+")
log = logging.getLogger(__name__)
_BLANK_LINES = re.compile(r"\n\s*\n")


class _Cosines:
    """Common base of the scorers that give cosines."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self, 'settings', '')})"

    def unit(self, scores: np.ndarray) -> np.ndarray:
        """Return (cosine + 1) / 2, as the published ablation did for every encoder. *Shape:* that of scores, float32."""
        return np.clip((np.asarray(scores, dtype=np.float64) + 1) / 2, 0, 1).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------------------
# TF-IDF
# ---------------------------------------------------------------------------------------------------------------------


class TfIdfScorer(_Cosines):
    """Cosine of TF-IDF vectors, with scikit-learn: fitted on the training texts, or on each pair alone.

    If it is fitted on each pair alone, as in the published ablation, a term has one of two weights: one for terms in
    both texts, one for terms in a single text. A term that is rare in the language then counts no more than a common
    one.
    """

    kind, runtime, precision, max_length = "tfidf", "scikit-learn", "fp64", None

    def __init__(self, path: Path, settings: TfIdf) -> None:
        self.path, self.settings = path, settings

    @property
    def variant(self) -> str:
        """The terms that it counts, for the report's row."""
        return term_words(self.settings)

    @cached_property
    def _vectorizer(self) -> Any:
        vectorizer = _vectorizer(self.settings, vocabulary=self._vocabulary)
        with loading(str(self.path)):
            idf = np.load(self.path / _IDF, allow_pickle=False)
            if idf.shape != (len(self._vocabulary),) or not np.isfinite(idf).all():
                raise BadInput(f"{self.path / _IDF} does not fit the vocabulary beside it; build the folder again")
            vectorizer.idf_ = idf
        return vectorizer

    @cached_property
    def _vocabulary(self) -> list[str]:
        terms: list[str] = read_json(self.path / _VOCABULARY, list)
        if len({term for term in terms if isinstance(term, str)}) < len(terms):
            raise BadInput(f"{self.path / _VOCABULARY} is no list of different words; build the folder again")
        return terms

    @property
    def n_parameters(self) -> int:
        """Number of fitted inverse document frequencies."""
        return 0 if self.settings.fit == "pair" else len(self._vocabulary)

    def score(
        self, queries: Sequence[str], documents: Sequence[str], *, progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Return the cosine of each pair, 0 if a text has no term. *Shape:* (n_pairs,), float64 as in scikit-learn."""
        report = progress if callable(progress) else (lambda _: None)
        score = self._by_pair if self.settings.fit == "pair" else self._by_corpus
        parts = [np.zeros(0)]
        for start in range(0, len(queries), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            parts.append(score(queries[part], documents[part]))
            report(len(parts[-1]))
        return np.concatenate(parts)

    def _by_corpus(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        return _row_products(self._vectorizer, queries, documents)

    def _by_pair(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        return np.array([self._one(query, document) for query, document in zip(queries, documents, strict=True)])

    def _one(self, query: str, document: str) -> float:
        try:
            rows = _vectorizer(self.settings).fit_transform([query, document])
        except ValueError:  # neither text has a term
            return 0.0
        return float((rows[0] @ rows[1].T)[0, 0])

    def token_counts(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return the number of terms of each pair. *Shape:* (n_pairs,)."""
        terms = _vectorizer(self.settings).build_analyzer()
        return np.array([len(terms(query)) + len(terms(doc)) for query, doc in zip(queries, documents, strict=True)])


def _vectorizer(settings: TfIdf, vocabulary: Sequence[str] | None = None) -> Any:
    """Return a vectorizer that reads texts in NFC, or as they are if the terms of its vocabulary are not in NFC."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    is_nfc = all(unicodedata.is_normalized("NFC", term) for term in vocabulary or ())
    return TfidfVectorizer(
        analyzer=settings.analyzer or "word",
        ngram_range=settings.ngrams or (1, 1),
        vocabulary=vocabulary,
        strip_accents=partial(unicodedata.normalize, "NFC") if is_nfc else None,
    )


def _fitted(settings: TfIdf, texts: Sequence[str]) -> Any:
    try:
        return _vectorizer(settings).fit(texts)
    except ValueError as error:
        raise BadInput(f"TF-IDF finds nothing to count in the training texts ({error})") from None


def _row_products(vectorizer: Any, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """Return the dot product of query and document vectors, which have unit length. *Shape:* (n_pairs,), float64."""
    query_vectors, document_vectors = (vectorizer.transform(texts) for texts in (queries, documents))
    return np.asarray(query_vectors.multiply(document_vectors).sum(axis=1)).ravel()


def floor_texts(split: Split, seed: int) -> list[str]:
    """Return the texts that TF-IDF is fitted on: all training texts, and at most 100,000 texts without labels."""
    unpaired = split.unpaired
    drawn = [unpaired[row] for row in sample(len(unpaired), _MOST_UNPAIRED, seed)]
    return list(dict.fromkeys([*split.train.queries, *split.train.documents, *drawn]))


def choose_tfidf(texts: Sequence[str], split: Split) -> tuple[TfIdf, dict[str, float | None]]:
    """Choose the kind of terms whose TF-IDF ranks the validation pairs best; return it and the value of each kind.

    Words alone are too weak a baseline for Korean: on KorSTS words reach a Spearman of .565, characters 1 to 3 of .742.
    If the validation pairs cannot be ranked (no labels, or all labels equal), words are chosen and all values are None.
    If the share of some script among the evaluation texts differs by more than a half from that among the validation
    texts, validation does not predict the evaluation: characters 1 to 3 are chosen, and no values are returned.

    :param texts: the texts that TF-IDF is fitted on
    """
    if (scripts := _other_scripts(split)) is not None:
        log.info("TF-IDF counts characters 1–3: %s", scripts)
        return TfIdf(analyzer="char", ngrams=(1, 3)), {}
    validation = split.validation
    from distill.training.trainset import validation_value  # imported here because it imports torch

    values: list[float | None] = []
    for analyzer, ngrams in _FLOORS:
        fitted = _fitted(TfIdf(analyzer=analyzer, ngrams=ngrams), texts)
        scores = _row_products(fitted, validation.queries, validation.documents)
        value = math.nan if validation.labels is None else validation_value(scores, validation.labels)
        values.append(value if math.isfinite(value) else None)
    best = max(range(len(_FLOORS)), key=lambda place: or_least(values[place]))  # the first of equal ones
    names = [f"{analyzer} {ngrams[0]}–{ngrams[1]}" for analyzer, ngrams in _FLOORS]
    return TfIdf(analyzer=_FLOORS[best][0], ngrams=_FLOORS[best][1]), dict(zip(names, values, strict=True))


def _other_scripts(split: Split) -> str | None:
    """Return in words how the scripts of evaluation and validation differ; None if they are alike, or a part is empty."""
    if not len(split.validation) or not len(split.evaluation):
        return None
    validation, evaluation = (
        script_shares([*pairs.queries[:1000], *pairs.documents[:1000]])
        for pairs in (split.validation, split.evaluation)
    )
    differences = {
        script: evaluation.get(script, 0.0) - validation.get(script, 0.0) for script in {**evaluation, **validation}
    }
    script = max(differences, key=lambda name: abs(differences[name]))  # the first of equal ones: one of the evaluation
    if abs(differences[script]) <= _OTHER_SCRIPTS:
        return None
    shares = (evaluation.get(script, 0.0), validation.get(script, 0.0))
    return f"{shares[0]:.0%} of the evaluation texts are in {script.lower()}, of the validation texts {shares[1]:.0%}"


def tfidf_cosines(settings: TfIdf, texts: Sequence[str], *parts: Pairs) -> list[np.ndarray]:
    """Fit TF-IDF on texts and return the cosines of the pairs of each part. *Shape:* (n_pairs,) for each part, float64.

    :raises BadInput: if the texts contain no term
    """
    fitted = _fitted(settings, texts)
    return [_row_products(fitted, part.queries, part.documents) for part in parts]


def term_words(settings: TfIdf) -> str:
    """Return in words which terms a TF-IDF scorer counts.

    >>> term_words(TfIdf()), term_words(TfIdf(analyzer="char", ngrams=(1, 3)))
    ('words', 'characters 1–3')
    """
    first, last = settings.ngrams or (1, 1)
    name = {"word": "words", "char": "characters", "char_wb": "characters within words"}[settings.analyzer or "word"]
    return name if (name, first, last) == ("words", 1, 1) else f"{name} {first}" + (f"–{last}" if last > first else "")


def write_tfidf(folder: Path, settings: TfIdf, texts: Sequence[str]) -> None:
    """Fit a TF-IDF scorer and write its folder.

    :raises BadInput: if the texts contain no term
    """
    write_json(folder / SCORER_FILE, settings.model_dump(mode="json"))
    if settings.fit == "pair":
        return
    fitted = _fitted(settings, texts)
    write_json(folder / _VOCABULARY, fitted.get_feature_names_out().tolist())
    np.save(folder / _IDF, fitted.idf_)


# ---------------------------------------------------------------------------------------------------------------------
# An encoder behind an endpoint
# ---------------------------------------------------------------------------------------------------------------------


class RemoteScorer(_Cosines):
    """Cosine of embeddings from an OpenAI-compatible endpoint; each text is paid for once."""

    kind, runtime, precision, max_length, n_parameters = "remote", "remote", "unknown", None, 0

    def __init__(self, path: Path, settings: Remote) -> None:
        from distill.scorers.remote_embeddings import RemoteEmbeddings

        self.path, self.settings = path, settings
        self.embeddings = RemoteEmbeddings(
            settings.endpoint, _vectors_of(path, settings), dimensions=settings.dimensions
        )

    def score(
        self, queries: Sequence[str], documents: Sequence[str], *, progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Return the cosine of each pair. *Shape:* (n_pairs,), float32."""
        texts = list(dict.fromkeys([*queries, *documents]))
        row_of = {text: number for number, text in enumerate(texts)}
        vectors = self.embeddings.encode(texts)
        vectors = unit_rows(vectors)
        query_rows, document_rows = ([row_of[text] for text in side] for side in (queries, documents))
        if callable(progress):
            progress(len(texts))
        cosines: np.ndarray = np.einsum("ij,ij->i", vectors[query_rows], vectors[document_rows])
        return cosines.astype(np.float32)

    def token_counts(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return an estimate: only the server has the tokenizer. *Shape:* (n_pairs,)."""
        from distill.endpoints.tokens import estimated_tokens

        return np.array([estimated_tokens(q) + estimated_tokens(d) for q, d in zip(queries, documents, strict=True)])


def has_kept_vectors(folder: Path, settings: Remote) -> bool:
    """Tell whether a remote baseline has a folder of embeddings on disk; it need not hold all of them."""
    return _vectors_of(folder, settings).is_dir()


def _vectors_of(folder: Path, settings: Remote) -> Path:
    return Path(settings.cache) if settings.cache else folder.parent / "embeddings"


def write_remote(folder: Path, settings: Remote) -> None:
    """Write the folder of a remote scorer, without the API key."""
    write_json(folder / SCORER_FILE, settings.model_dump(mode="json"))


# ---------------------------------------------------------------------------------------------------------------------
# Matching by paragraphs
# ---------------------------------------------------------------------------------------------------------------------


def split_paragraphs(text: str, max_characters: int = 400, min_characters: int = 20) -> list[str]:
    r"""Cut a text at blank lines; cut a long block also at line ends, then sentence ends, then anywhere.

    A piece shorter than `min_characters`, such as a heading, is joined to the next one. The result has at least one
    piece.

    >>> split_paragraphs("Skills\n\nPython and SQL for ten years.\n\nNursing in intensive care.", 40, 10)
    ['Skills\nPython and SQL for ten years.', 'Nursing in intensive care.']
    """
    pieces: list[str] = []
    opening = ""
    for block in _BLANK_LINES.split(text):
        for piece in _cut(block.strip(), max_characters):
            whole = f"{opening}\n{piece}" if opening else piece
            if len(whole) < min_characters:
                opening = whole
            else:
                pieces.append(whole)
                opening = ""
    if opening:
        pieces = [*pieces[:-1], f"{pieces[-1]}\n{opening}"] if pieces else [opening]
    return pieces or [text]


def _cut(block: str, at_most: int) -> Iterator[str]:
    """Yield pieces of lines, of sentences of a line or of characters of a sentence, as long as `at_most` allows."""
    piece = ""
    for part, joint in _parts(block, at_most):
        if piece and len(piece) + len(joint) + len(part) > at_most:
            yield piece
            piece = part
        else:
            piece = f"{piece}{joint}{part}" if piece else part
    if piece:
        yield piece


def _parts(block: str, at_most: int) -> Iterator[tuple[str, str]]:
    for line in filter(None, (line.strip() for line in block.splitlines())):
        if len(line) <= at_most:
            yield line, "\n"
            continue
        for number, sentence in enumerate(_SENTENCE_END.split(line)):
            for start in range(0, len(sentence), at_most):
                joint = "" if start else " " if number else "\n"
                yield sentence[start : start + at_most], joint


class ParagraphScorer(_Cosines):
    """A bi-encoder applied to paragraphs: the mean of the `top_k` best matches in both directions.

    Each paragraph of the query has one best cosine among the document's paragraphs; the k highest of these are
    averaged. The same is done from the document's side, and the score is the mean of both averages. A match in one
    paragraph of a long text is therefore not diluted by the rest of the text.
    """

    kind = "paragraphs"

    def __init__(self, scorer: Scorer, settings: Paragraphs) -> None:
        if scorer.kind != "bi_encoder":
            raise BadInput(f"{scorer.path} is a cross-encoder; paragraphs are matched by a bi-encoder")
        self.scorer, self.settings = scorer, settings
        self.runtime, self.precision, self.max_length = str(scorer.runtime), scorer.precision, scorer.max_length

    @property
    def n_parameters(self) -> int:
        """Number of parameters of the bi-encoder."""
        return self.scorer.n_parameters

    def score(
        self, queries: Sequence[str], documents: Sequence[str], *, progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Return the symmetric mean of the best paragraph cosines. *Shape:* (n_pairs,), float32."""
        report = progress if callable(progress) else (lambda _: None)
        parts = [np.zeros(0, dtype=np.float32)]
        for start in range(0, len(queries), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            query_vectors = self._embedded(queries[part], self.scorer.encode_queries)
            document_vectors = self._embedded(documents[part], self.scorer.encode_documents)
            pairs = zip(queries[part], documents[part], strict=True)
            parts.append(
                np.array([self._match(query_vectors[q] @ document_vectors[d].T) for q, d in pairs], dtype=np.float32)
            )
            report(len({*queries[part], *documents[part]}))
        return np.concatenate(parts)

    def _embedded(self, texts: Sequence[str], encode: Callable[[Sequence[str]], np.ndarray]) -> dict[str, np.ndarray]:
        """Return the unit vectors of each text's paragraphs. *Shape:* each (n_paragraphs, width)."""
        pieces = {text: self._paragraphs(text) for text in texts}
        flat = [piece for text_pieces in pieces.values() for piece in text_pieces]
        vectors = encode(flat)
        vectors = unit_rows(vectors)
        ends = np.cumsum([len(text_pieces) for text_pieces in pieces.values()])
        return dict(zip(pieces, np.split(vectors, ends[:-1]), strict=True))

    def _paragraphs(self, text: str) -> list[str]:
        return split_paragraphs(text, self.settings.max_characters)

    def _match(self, cosines: np.ndarray) -> float:
        """Return the score of one pair. *Shape:* cosines: (n_query_paragraphs, n_document_paragraphs)."""
        k = self.settings.top_k
        sides = (np.sort(cosines.max(axis=axis))[-k:].mean() for axis in (1, 0))
        return float(sum(sides)) / 2

    def token_counts(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return the bi-encoder's tokens of each pair, without special tokens of paragraphs. *Shape:* (n_pairs,)."""
        return self.scorer.token_counts(queries, documents)


def write_paragraphs(folder: Path, settings: Paragraphs) -> None:
    """Write the folder of a paragraph scorer: its settings, with the path of its model relative to this folder."""
    write_json(folder / SCORER_FILE, settings.model_dump(mode="json"))
