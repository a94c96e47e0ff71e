"""One scorer over any model folder: torch, an OpenVINO graph or an ONNX graph, with the same numbers.

    scorer = load("student-int8")
    scores = scorer.score(resumes, job_descriptions)
    rows, scores = scorer.rank("백엔드 개발자", resumes, top_k=10)
    for vectors in scorer.encode_iter(a_million_texts, output="int8"): ...

With a graph neither torch nor transformers is imported. Texts are tokenised in bulk without padding, sorted by length
and cut into batches of few shapes by a token budget. Identical texts are encoded once, and results keep the caller's
order.
"""

import itertools
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from distill._moved import moved_names
from distill.data.ragged import starts
from distill.data.tables import is_no_text
from distill.data.tokens import TokenTable, tokenize, unknown_id
from distill.data.words import WordMemory
from distill.errors import BadInput
from distill.files.artefact import Side
from distill.machine.forks import ForkSafeLock
from distill.metrics.logistic import unit_scores
from distill.models.files import (
    ModelFiles,
)
from distill.models.numpy_head import folder_leaves_prompt_out
from distill.models.prompts import DOCUMENT_PROMPTS as _DOCUMENT_PROMPTS
from distill.models.prompts import QUERY_PROMPTS as _QUERY_PROMPTS
from distill.models.prompts import stored_prompt
from distill.models.stored_calibration import StoredCalibration, required_calibration, required_threshold
from distill.progress import OnProgress
from distill.runtime.arguments import (
    check_choice,
    check_count,
    check_scores,
    check_text_pairs,
    check_texts,
    check_truncate,
    check_vectors,
    is_texts,
)
from distill.runtime.buckets import PaddedBatch, plan_batches
from distill.runtime.engines import ANY_LENGTH, Engine
from distill.runtime.kept_vectors import KeptVectors
from distill.runtime.own_tokenizer import own_tokenizer, special_token_ids
from distill.runtime.settings import RunSettings
from distill.runtime.vectors import OUTPUTS, Index, Output, packed, row_cosines, top_rows, truncated
from distill.wording import counted

__all__ = ["PairedScorer", "Scorer", "reporter"]

__getattr__ = moved_names(__name__)  # names from before the rename

log = logging.getLogger(__name__)

_Item = TypeVar("_Item", str, tuple[str, str])
_CHUNK = 8192  # texts tokenised and sorted together: bounds the memory, and is enough to fill batches of one length


class Scorer:
    """A loaded model folder. Calls from several threads run one after another, because each uses all allowed CPUs.

    It also works in a forked child, see `load`.

    `kind` is "bi_encoder" or "cross_encoder"; `precision` is the one of the computation ("fp32", "bf16", "int8" or
    "int4"); `max_length` is the most tokens of a text, or of a pair for a cross-encoder.
    """

    def __init__(
        self,
        files: ModelFiles,
        engine: Engine,
        max_length: int | None,
        truncate: int | None = None,
        tokenizer: Any = None,
    ) -> None:
        self.path, self.kind = files.folder, files.kind
        check_truncate(files, truncate, engine.output_width)
        self.truncate = truncate
        self.runtime, self.precision, self.device = engine.runtime, engine.precision, engine.device
        self.max_length = _checked_length(max_length, engine)
        self._n_positions = engine.length_limit(ANY_LENGTH)
        self.tokenizer = engine.tokenizer
        self.side: Side | None = None  # the side that it serves, if another model serves the other
        self.n_template_tokens = 0  # the part of max_length that a generative reranker's template takes
        self._n_read = self._n_at_limit = self._n_unread = 0
        self._unknown = unknown_id(engine.tokenizer)
        self._files, self._engine, self._lock = files, engine, ForkSafeLock()
        self._tokenizer = tokenizer or own_tokenizer(engine.tokenizer, special_tokens_as_text=False)
        self._words: WordMemory | None = None
        self._has_words: bool | None = None  # not known yet
        self._has_said_gaps = False
        self._leaves_prompt_out = folder_leaves_prompt_out(files.folder, files.modules[1:])
        self._n_parameters: int | None = None
        self._calibration: StoredCalibration | None = None
        self._kept: KeptVectors | None = None

    def __repr__(self) -> str:
        return f"Scorer({str(self.path)!r}, {self.kind}, {self.runtime} {self.precision}, max_length={self.max_length})"

    @property
    def n_parameters(self) -> int:
        """Number of parameters of transformer and head; with a graph, those of the torch architecture."""
        if self._n_parameters is None:
            self._n_parameters = self._engine.count_parameters()
        return self._n_parameters

    @property
    def settings(self) -> RunSettings | None:
        """The settings by which a graph runs here, measured or default; None in torch."""
        return self._engine.settings

    @property
    def embedding_width(self) -> int:
        """Width of a sentence embedding; for a cross-encoder the number of scores of a pair."""
        return self.truncate or self.whole_width

    @property
    def whole_width(self) -> int:
        """Dimensions of an embedding before truncation; 1 for a cross-encoder."""
        return self._engine.output_width

    def cut_line(self) -> str | None:
        """Return a sentence for a log on the texts so far that fill `max_length`, or None if there is none.

        What such a text has beyond is not read. Equal texts of a call count once.
        """
        if not self._n_at_limit:
            return None
        what = "pair" if self.kind == "cross_encoder" else "text"
        more = f" (the model can read {self._n_positions})" if self.max_length < self._n_positions else ""
        return (
            f"{self._n_at_limit:,} of {counted(self._n_read, f'different {what}')} reach max_length {self.max_length}{more}; "
            "what is beyond it was not read"
        )

    def unread_line(self) -> str | None:
        """Return a sentence on the texts so far of which the tokenizer does not know at least half, or None if there is none.

        Such texts are alike to the model, whatever they say. Equal texts of a call count once.
        """
        if not self._n_unread:
            return None
        what = "pair" if self.kind == "cross_encoder" else "text"
        return (
            f"{self._n_unread:,} of {counted(self._n_read, f'different {what}')} consist of unknown tokens by half or more; "
            "their scores say nothing: the model was not made for their script"
        )

    # -----------------------------------------------------------------------------------------------------------------
    # Embeddings
    # -----------------------------------------------------------------------------------------------------------------

    def encode(
        self,
        texts: Iterable[str],
        *,
        output: Output = "float32",
        batch_tokens: int | None = None,
        progress: bool | OnProgress = False,
        prompt_name: str | None = None,
    ) -> np.ndarray:
        """Return sentence embeddings in the order of the texts; identical texts are encoded once.

        Here and in `score`, `rank` and `search` every str is a text, as in stock sentence-transformers: an empty text
        has the embedding of the special tokens alone (zero for a static model), and half a surrogate pair is read as
        U+FFFD. Files are read more strictly: an empty value of a table is refused with its row.

        :param output: "int8" (each vector scaled by its greatest absolute value: compare by cosine) and "binary" (eight
            signs a byte) are for an index, see `distill.runtime.vectors`.
        :param batch_tokens: padded tokens of one batch; None is the runtime's best value by measurement.
        :param progress: True for a bar on stderr, or a function that is called with the number of newly finished texts.
        :param prompt_name: a prompt stored in the folder, such as "query"; None is the folder's default prompt, if any.
        :raises BadInput: for a cross-encoder, a value that is not a text (with its row), and an unknown prompt.

        *Shape:* result: (n_texts, embedding_width), float32 or int8; binary (n_texts, embedding_width / 8), uint8
        """
        self._check_bi_encoder()
        check_choice("output", output, OUTPUTS)
        prompt = self._prompt(prompt_name)
        return packed(self._encode(check_texts("texts", texts), prompt, batch_tokens, progress), output)

    def encode_iter(
        self,
        texts: Iterable[str],
        *,
        chunk_size: int = _CHUNK,
        output: Output = "float32",
        batch_tokens: int | None = None,
        progress: bool | OnProgress = False,
        prompt_name: str | None = None,
    ) -> Iterator[np.ndarray]:
        """Yield the embeddings of `chunk_size` texts at a time, for any number of texts in bounded memory.

        The texts may come from a generator, which is read one chunk at a time; see `encode`.
        """
        self._check_bi_encoder()
        check_choice("output", output, OUTPUTS)
        prompt, start = self._prompt(prompt_name), 0
        for chunk in _chunks(texts, chunk_size):
            yield packed(self._encode(check_texts("texts", chunk, start), prompt, batch_tokens, progress), output)
            start += len(chunk)

    def encode_queries(
        self, texts: Iterable[str], *, batch_tokens: int | None = None, progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Return embeddings under the stored query prompt, if any, as `score` uses them; see `encode`."""
        self._check_bi_encoder()
        return self._encode(check_texts("texts", texts), self._task_prompt(*_QUERY_PROMPTS), batch_tokens, progress)

    def encode_documents(
        self, texts: Iterable[str], *, batch_tokens: int | None = None, progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Return embeddings under the stored document prompt, if any, as `score` uses them; see `encode`."""
        self._check_bi_encoder()
        return self._encode(check_texts("texts", texts), self._task_prompt(*_DOCUMENT_PROMPTS), batch_tokens, progress)

    # -----------------------------------------------------------------------------------------------------------------
    # Scores
    # -----------------------------------------------------------------------------------------------------------------

    def score(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        *,
        calibrated: bool = False,
        batch_tokens: int | None = None,
        progress: bool | OnProgress = False,
    ) -> np.ndarray:
        """Score pairs: the cosine for a bi-encoder, the raw logit for a cross-encoder (no sigmoid; `unit` applies one).

        Identical texts of a bi-encoder, and identical pairs of a cross-encoder, are read once.

        The scale depends on the model. `calibrated=True` returns the probability of a match instead.

        If a bi-encoder stores prompts named "query" and "document" (or "passage", "corpus"), they are applied, as by
        stock `encode_query` and `encode_document`. The embeddings of all unique texts are held in memory.

        A pair with a side that is empty, holds only invisible characters or half a surrogate pair has a score that
        says nothing. `distill score` refuses such a row; here the first call with such pairs warns with their number.

        :param calibrated: return probabilities in [0, 1]; see `probability`
        :raises BadInput: if the lists differ in length or contain a value that is not a text (see `encode`), the model
            gives several labels, or `calibrated` is set for a folder without a calibration.

        *Shape:* queries, documents: n texts each; result: (n,), float32
        """
        query_texts, document_texts = check_text_pairs(queries, documents)
        self._say_gaps(query_texts, document_texts)
        if calibrated:
            self._stored_calibration()  # refused before anything is computed
        if self.kind == "cross_encoder":
            scores = self._logits(query_texts, document_texts, batch_tokens, progress)
        else:
            scores = self._cosines(query_texts, document_texts, batch_tokens, progress)
        return self.probability(scores) if calibrated else scores

    def rank(
        self,
        query: str,
        documents: Sequence[str] | np.ndarray,
        *,
        top_k: int | None = None,
        calibrated: bool = False,
        progress: bool | OnProgress = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the best documents for one query, best first, and their scores as by `score`.

        :param documents: texts (a list, a numpy array or a pandas Series), or for a bi-encoder their embeddings
            (n_documents, embedding_width), float32, float64, float16 or int8.
        :param top_k: None ranks all documents.
        :param calibrated: return probabilities instead of scores; the order is the same
        :raises BadInput: for documents that are neither, for embeddings that are not finite, and if `calibrated` is set
            for a folder without a calibration

        *Shape:* result: (k,) rows, int64, and (k,) scores, float32; equal scores keep the order of the documents
        """
        query_texts = check_texts("query", [query])
        top_k = check_count("top_k", top_k, none="all documents")
        if calibrated:
            self._stored_calibration()
        if not is_texts(documents):
            scores = self._cosines_to(query_texts[0], documents)
        elif self.kind == "cross_encoder":
            document_texts = check_texts("documents", documents)
            scores = self._logits(query_texts * len(document_texts), document_texts, None, progress)
        else:
            document_texts = check_texts("documents", documents)
            scores = self._cosines(query_texts * len(document_texts), document_texts, None, progress)
        rows = top_rows(scores, len(scores) if top_k is None else top_k)
        return rows, self.probability(scores[rows]) if calibrated else scores[rows]

    def search(
        self, queries: Iterable[str], index: Index, *, top_k: int, progress: bool | OnProgress = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return for each query the rows of its best documents in an index, best first, and their cosines.

        :raises BadInput: for an index of another width, or with vectors that are not finite, and for a top_k below 1

        *Shape:* result: (n_queries, k) rows, int64, and (n_queries, k) cosines, float32
        """
        if not isinstance(index, Index):
            raise BadInput(
                f"index is {type(index).__name__}; Index(vectors=…, binary=…) of distill.runtime.vectors is expected"
            )
        check_count("top_k", top_k)
        self._check_reads_queries()
        return index.search(self.encode_queries(queries, progress=progress), top_k=top_k)

    def token_counts(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return the number of tokens that `score` reads of each pair: both sides, prompts included. *Shape:* (n_pairs,)."""
        query_texts, document_texts = check_text_pairs(queries, documents)
        if self.kind == "cross_encoder":
            return self._tokens(query_texts, document_texts).lengths
        total: np.ndarray = self._lengths(query_texts, _QUERY_PROMPTS)
        total += self._lengths(document_texts, _DOCUMENT_PROMPTS)
        return total

    def unit(self, scores: np.ndarray) -> np.ndarray:
        """Map scores onto [0, 1]: (cosine + 1) / 2, or the sigmoid of the logit; NaN stays NaN.

        :raises BadInput: if they are no numbers

        *Shape:* that of scores, float32
        """
        return unit_scores(self.kind, check_scores(scores))

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Map scores onto the probability of a match, by the folder's calibration (`calibration.json`).

        It was fitted to labelled validation pairs. If their labels are grades, it gives the expected grade. `unit`
        needs no fit and gives the same order, but no probability.

        :raises BadInput: if the folder has no calibration, or the embeddings are truncated, which changes the cosines

        *Shape:* that of scores, float32
        """
        probabilities: np.ndarray = self._stored_calibration().calibration(check_scores(scores)).astype(np.float32)
        return probabilities

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """Tell which scores of `score` are matches: those that reach the folder's threshold (`calibration.json`).

        :raises BadInput: if the folder has no threshold

        *Shape:* that of scores, bool
        """
        threshold = required_threshold(self.path, self._stored_calibration())
        decided: np.ndarray = check_scores(scores) >= threshold
        return decided

    def _say_gaps(self, queries: list[str], documents: list[str]) -> None:
        """Warn once of pairs that `distill score` would refuse."""
        if self._has_said_gaps:
            return
        n_gaps = sum(is_no_text(left) or is_no_text(right) for left, right in zip(queries, documents, strict=True))
        if n_gaps:
            self._has_said_gaps = True
            log.warning(
                "%s: %d of %s have a side without a text (empty, only invisible characters, or half a surrogate pair): "
                "their scores say nothing; leave them out",
                self.path,
                n_gaps,
                counted(len(queries), "pair"),
            )

    def _stored_calibration(self) -> StoredCalibration:
        if self._calibration is None:
            if self.truncate is not None:
                raise BadInput(
                    f"{self.path} is opened with truncate {self.truncate}; its calibration is for whole embeddings: leave truncate out"
                )
            self._calibration = required_calibration(self.path, self.kind)
        return self._calibration

    def _cosines(
        self, queries: list[str], documents: list[str], batch_tokens: int | None, progress: bool | OnProgress
    ) -> np.ndarray:
        if self.side is not None:
            raise BadInput(
                f"{self.path} reads the {self.side} side of pairs only; give the other side's model too, see distill.scorers.pairing"
            )
        query_prompt, document_prompt = self._task_prompt(*_QUERY_PROMPTS), self._task_prompt(*_DOCUMENT_PROMPTS)
        if self._leaves_prompt_out and query_prompt != document_prompt:  # equal texts then have two embeddings
            sides = (
                self._encode(texts, prompt, batch_tokens, progress)
                for texts, prompt in ((queries, query_prompt), (documents, document_prompt))
            )
            rows = np.arange(len(queries))
            return row_cosines(next(sides), rows, next(sides), rows)
        texts = [query_prompt + text for text in queries] + [document_prompt + text for text in documents]
        unique, positions = _unique(texts)
        n_left_out = self._n_left_out(query_prompt)
        vectors = self._embedded(unique, batch_tokens, progress, n_left_out)
        left, right = positions[: len(queries)], positions[len(queries) :]
        return row_cosines(vectors, left, vectors, right)

    def _cosines_to(self, query: str, documents: Any) -> np.ndarray:
        self._check_bi_encoder()
        self._check_reads_queries()
        vectors = check_vectors("documents", documents, self.embedding_width, what="n_documents")
        floats = vectors.astype(np.float32, copy=False)
        query_vector = self.encode_queries([query])[0]
        norms = np.linalg.norm(floats, axis=1) * np.linalg.norm(query_vector)
        cosines: np.ndarray = floats @ query_vector / np.maximum(norms, 1e-12)
        return cosines

    def _logits(
        self, queries: list[str], documents: list[str], batch_tokens: int | None, progress: bool | OnProgress
    ) -> np.ndarray:
        unique, positions = _unique(list(zip(queries, documents, strict=True)))
        unique_queries, unique_documents = ([pair[side] for pair in unique] for side in (0, 1))
        logits: np.ndarray = self._score_jointly(unique_queries, unique_documents, batch_tokens, progress)[positions]
        return logits

    def _score_jointly(
        self, queries: list[str], documents: list[str], batch_tokens: int | None, progress: bool | OnProgress
    ) -> np.ndarray:
        if self.embedding_width != 1:
            raise BadInput(f"{self.path} gives {self.embedding_width} scores a pair; one is expected")
        return self._run(queries, documents, batch_tokens, progress, "scoring")[:, 0]

    # -----------------------------------------------------------------------------------------------------------------
    # From texts to values
    # -----------------------------------------------------------------------------------------------------------------

    def _check_bi_encoder(self) -> None:
        if self.kind != "bi_encoder":
            raise BadInput(f"{self.path} is a cross-encoder, it has no embeddings: use score(queries, documents)")

    def _check_reads_queries(self) -> None:
        if self.side == "document":
            raise BadInput(
                f"{self.path} reads the document side of pairs only, and a search needs queries; give the other side's model too, see distill.scorers.pairing"
            )

    def _encode(
        self, texts: list[str], prompt: str, batch_tokens: int | None, progress: bool | OnProgress
    ) -> np.ndarray:
        unique, positions = _unique([prompt + text for text in texts] if prompt else texts)
        vectors = self._embedded(unique, batch_tokens, progress, self._n_left_out(prompt))
        return vectors if len(unique) == len(texts) else vectors[positions]

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Keep up to 256 MB of embeddings between calls: a text that recurs in a file's blocks is encoded once."""
        if self.kind == "bi_encoder":
            self._kept = KeptVectors(self.embedding_width)
        try:
            yield
        finally:
            self._kept = None

    def _embedded(
        self, unique: list[str], batch_tokens: int | None, progress: bool | OnProgress, n_left_out: int
    ) -> np.ndarray:
        def compute(texts: Sequence[str]) -> np.ndarray:
            return self._run(texts, None, batch_tokens, progress, "encoding", n_left_out)

        kept = self._kept
        return compute(unique) if kept is None else kept.of(unique, n_left_out, compute)

    def _prompt(self, name: str | None) -> str:
        name, prompts = name or self._files.default_prompt_name, self._files.prompts
        return "" if name is None else stored_prompt(prompts, name, self.path)

    def _task_prompt(self, *names: str) -> str:
        return self._prompt(next((name for name in names if self._files.prompts.get(name)), None))

    def _lengths(self, texts: Sequence[str], prompt_names: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each text under the prompt of its side. *Shape:* (n_texts,)."""
        prompt = self._task_prompt(*prompt_names)
        return self._tokens([prompt + text for text in texts]).lengths

    def _n_left_out(self, prompt: str) -> int:
        """Return the number of prompt tokens that the pooling leaves out, counted as in stock sentence-transformers."""
        if not (prompt and self._leaves_prompt_out):
            return 0
        ids = tokenize(self._tokenizer, [prompt], max_length=self.max_length).ids
        return len(ids) - (len(ids) > 0 and int(ids[-1]) in special_token_ids(self.tokenizer))

    def _tokens(self, texts: Sequence[str], pair_texts: Sequence[str] | None = None) -> TokenTable:
        if self._has_words is None:  # two threads may both set it, to equal values
            self._words = WordMemory.of(self._tokenizer)
            self._has_words = self._words is not None
        words = self._words
        if pair_texts is None and words is not None:
            return words.tokenize(texts, max_length=self.max_length)
        return tokenize(self._tokenizer, texts, pair_texts, max_length=self.max_length)

    def _run(
        self,
        texts: Sequence[str],
        pair_texts: Sequence[str] | None,
        batch_tokens: int | None,
        progress: bool | OnProgress,
        what: str,
        n_left_out: int = 0,
    ) -> np.ndarray:
        """Run texts, or pairs, chunk by chunk. *Shape:* result: (n_texts, embedding_width)."""
        out = np.empty((len(texts), self.embedding_width), dtype=np.float32)
        wanted = check_count("batch_tokens", batch_tokens, none="the measured best of the runtime")
        budget = wanted or self._engine.batch_tokens
        with self._lock, reporter(progress, what, len(texts)) as report:
            for rows, values in self._engine.run(self._batches(texts, pair_texts, budget), n_left_out):
                if values.shape[1] != self._engine.output_width:
                    raise BadInput(
                        f"{self.path}: its modules give {values.shape[1]} numbers, and state {self._engine.output_width}; "
                        "copy the folder again"
                    )
                out[rows] = values if self.truncate is None else truncated(values, self.truncate)
                report(len(rows))
        return out

    def _count_read(self, lengths: np.ndarray) -> None:
        self._n_read += len(lengths)
        self._n_at_limit += int((lengths >= self.max_length).sum())

    def _count_unread(self, table: TokenTable) -> None:
        if self._unknown is not None:
            unread = table.ids == self._unknown
            known = ~np.isin(table.ids, [self._unknown, *special_token_ids(self.tokenizer)])
            n_unknown, n_known = (np.diff(starts(mask)[table.offsets]) for mask in (unread, known))
            self._n_unread += int(((n_unknown > 0) & (n_unknown >= n_known)).sum())

    def _batches(self, texts: Sequence[str], pair_texts: Sequence[str] | None, budget: int) -> Iterator[PaddedBatch]:
        """Tokenise one chunk at a time, and cut it into batches of texts of similar length."""
        for start in range(0, len(texts), _CHUNK):
            part = slice(start, start + _CHUNK)
            table = self._tokens(texts[part], None if pair_texts is None else pair_texts[part])
            self._count_read(table.lengths)
            self._count_unread(table)
            planned = plan_batches(
                table.lengths, batch_tokens=budget, fixed_shapes=self._engine.fixed_shapes, at_most=self._n_positions
            )
            for rows, width in planned:
                yield start + rows, table.padded(rows, width)


def _joined(*lines: str | None) -> str | None:
    return "; ".join(line for line in lines if line is not None) or None


class PairedScorer(Scorer):
    """A query model and a document model with one embedding space: a Router, or a student with its teacher.

    `tokenizer`, `precision`, `n_parameters` and similar properties are those of the query model.
    """

    def __init__(self, path: Path, query: Scorer, document: Scorer) -> None:
        if query.embedding_width != document.embedding_width:
            raise BadInput(
                f"{query.path} writes vectors of {query.embedding_width} numbers, {document.path} of "
                f"{document.embedding_width}: they share no space"
            )
        super().__init__(query._files, query._engine, query.max_length, query.truncate, query._tokenizer)
        self.path, self.query, self.document = path, query, document
        self._lock = query._lock

    def __repr__(self) -> str:
        return f"PairedScorer(query={self.query!r}, document={self.document!r})"

    def encode(
        self,
        texts: Iterable[str],
        *,
        output: Output = "float32",
        batch_tokens: int | None = None,
        progress: bool | OnProgress = False,
        prompt_name: str | None = None,
    ) -> np.ndarray:
        """Return embeddings of the side that `prompt_name` names, by default of documents, as stock `encode` does.

        See `Scorer.encode`.
        """
        check_choice("output", output, OUTPUTS)
        if prompt_name in _QUERY_PROMPTS:
            return packed(self.encode_queries(texts, batch_tokens=batch_tokens, progress=progress), output)
        if prompt_name in _DOCUMENT_PROMPTS:
            return packed(self.encode_documents(texts, batch_tokens=batch_tokens, progress=progress), output)
        return self.document.encode(
            texts, output=output, batch_tokens=batch_tokens, progress=progress, prompt_name=prompt_name
        )

    def encode_iter(
        self,
        texts: Iterable[str],
        *,
        chunk_size: int = _CHUNK,
        output: Output = "float32",
        batch_tokens: int | None = None,
        progress: bool | OnProgress = False,
        prompt_name: str | None = None,
    ) -> Iterator[np.ndarray]:
        """Yield the embeddings of `chunk_size` texts at a time, of the side that `prompt_name` names."""
        start = 0
        for chunk in _chunks(texts, chunk_size):
            checked = check_texts("texts", chunk, start)
            yield self.encode(
                checked, output=output, batch_tokens=batch_tokens, progress=progress, prompt_name=prompt_name
            )
            start += len(chunk)

    def cut_line(self) -> str | None:
        """Return what both models say of cut texts, or None."""
        return _joined(self.query.cut_line(), self.document.cut_line())

    def unread_line(self) -> str | None:
        """Return what both models say of texts that they cannot read, or None."""
        return _joined(self.query.unread_line(), self.document.unread_line())

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Keep embeddings of both models between calls; see `Scorer.remembering`."""
        with self.query.remembering(), self.document.remembering():
            yield

    def encode_queries(
        self, texts: Iterable[str], *, batch_tokens: int | None = None, progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Return embeddings of the query model."""
        return self.query.encode_queries(texts, batch_tokens=batch_tokens, progress=progress)

    def encode_documents(
        self, texts: Iterable[str], *, batch_tokens: int | None = None, progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Return embeddings of the document model."""
        return self.document.encode_documents(texts, batch_tokens=batch_tokens, progress=progress)

    def token_counts(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return the number of tokens that both models read of each pair. *Shape:* (n_pairs,)."""
        query_texts, document_texts = check_text_pairs(queries, documents)
        total: np.ndarray = self.query._lengths(query_texts, _QUERY_PROMPTS)
        total += self.document._lengths(document_texts, _DOCUMENT_PROMPTS)
        return total

    def _cosines(
        self, queries: list[str], documents: list[str], batch_tokens: int | None, progress: bool | OnProgress
    ) -> np.ndarray:
        (query_texts, left), (document_texts, right) = _unique(queries), _unique(documents)
        return row_cosines(
            self.encode_queries(query_texts, batch_tokens=batch_tokens, progress=progress),
            left,
            self.encode_documents(document_texts, batch_tokens=batch_tokens, progress=progress),
            right,
        )


def _checked_length(wanted: int | None, engine: Engine) -> int:
    if wanted is not None and wanted < 3:
        raise BadInput(f"max_length {wanted} leaves no room for a text; 3 tokens are the least")
    limit = engine.length_limit(wanted)
    if limit < 1:
        raise BadInput(
            f"the model folder states {limit} tokens (max_seq_length) as its longest text; copy the folder again"
        )
    if wanted is not None and limit < wanted:
        raise BadInput(f"max_length {wanted} is more than the {limit} positions of the model; ask for no more")
    return limit


def _chunks(texts: Iterable[str], chunk_size: int) -> Iterator[list[str]]:
    """Yield `chunk_size` texts at a time, not checked yet."""
    size = check_count("chunk_size", chunk_size) or 1
    check_texts(
        "texts", texts if isinstance(texts, str | bytes) else texts[:0] if isinstance(texts, np.ndarray) else []
    )
    left = iter(texts)
    while chunk := list(itertools.islice(left, size)):
        yield chunk


def _unique(items: Sequence[_Item]) -> tuple[list[_Item], np.ndarray]:
    """Return the distinct texts or pairs in order of appearance, and the index of each item among them."""
    index: dict[_Item, int] = {}
    positions = np.fromiter((index.setdefault(item, len(index)) for item in items), dtype=np.int64, count=len(items))
    return list(index), positions


@contextmanager
def reporter(progress: bool | OnProgress, what: str, total: int) -> Iterator[OnProgress]:
    """Yield the progress callback: the caller's function, one that moves a bar on stderr, or one that does nothing."""
    if callable(progress):
        yield progress
    elif not progress or not sys.stderr.isatty():  # in a log or a pipe a bar would leave an empty line
        yield lambda _: None
    else:
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(console=Console(file=sys.stderr), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda n_done: bar.advance(task, n_done)
