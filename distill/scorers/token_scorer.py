"""Scorers that compare tokens: teachers whose folder `distill.scorers.opening` opens like that of any other scorer.

    <run>/teachers/<name>/scorer.json           its kind, and how it reads and compares
                         /model/                the encoder, as sentence-transformers opens it
                         /sparse_linear.safetensors, colbert_linear.safetensors     BGE-m3's heads

Within a call, a text of many pairs is encoded once: the outputs of the latest texts are kept, up to a gigabyte.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.cut_texts import CutTexts, sample_cut_texts
from distill.errors import BadInput
from distill.files.trust import check_files, read_json
from distill.machine.forks import ForkSafeLock
from distill.metrics.logistic import unit_scores
from distill.progress import OnProgress
from distill.recipe.token_teachers import LateInteractionTeacher, M3Teacher, TokenTeacher
from distill.runtime.arguments import check_text_pairs, check_texts
from distill.runtime.scorer import reporter
from distill.scorers.scoring import SCORER_FILE
from distill.scorers.token_matching import TextOutputs
from distill.scorers.token_readers import HowToRead, M3Reader, TokenReader, open_late_reader, open_m3_reader

__all__ = ["TokenScorer", "open_token_scorer", "read_token_settings"]

_KEPT_BYTES = 1 << 30
_BLOCK_BYTES = 1 << 29  # the most memory that the texts of one block of pairs take
_PAIRS_AT_ONCE = 1024


class TokenScorer:
    """A loaded model that compares tokens; `score` gives cosines, or a sum over tokens, which is treated as a logit."""

    runtime = "torch"

    def __init__(self, folder: Path, settings: TokenTeacher, reader: TokenReader) -> None:
        self.path, self.settings, self._reader = folder, settings, reader
        self.kind, self.precision, self.tokenizer = settings.form, reader.precision, reader.tokenizer
        self.limits, self.max_length = reader.limits, max(reader.limits)
        self._lock = ForkSafeLock()

    def __repr__(self) -> str:
        return f"TokenScorer({str(self.path)!r}, {self.settings.in_words}, max_length={self.max_length})"

    @property
    def n_parameters(self) -> int:
        """Parameters of the encoder and its heads."""
        return self._reader.n_parameters

    @property
    def embedding_width(self) -> int:
        """Width of the dense embeddings.

        :raises BadInput: if the model has none
        """
        return self._embedder().embedding_width

    def score(
        self, queries: Sequence[str], documents: Sequence[str], *, progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Return the score of each pair, which depends only on that pair. *Shape:* (n_pairs,), float32."""
        query_texts, document_texts = check_text_pairs(queries, documents)
        out, texts = np.empty(len(query_texts), dtype=np.float32), _Texts(self._reader)
        with self._lock, reporter(progress, "scoring", len(query_texts)) as report:
            for block in self._blocks(len(query_texts)):
                sides = texts.read(query_texts[block], 0), texts.read(document_texts[block], 1)
                out[block] = [self._reader.match(query, document) for query, document in zip(*sides, strict=True)]
                texts.forget()
                report(len(sides[0]))
        return out

    def encode_queries(self, texts: Sequence[str], *, progress: bool | OnProgress = False) -> np.ndarray:
        """Return the dense embeddings of queries. *Shape:* (n_texts, embedding_width), float32."""
        return self._encode(texts, 0, progress)

    def encode_documents(self, texts: Sequence[str], *, progress: bool | OnProgress = False) -> np.ndarray:
        """Return the dense embeddings of documents. *Shape:* (n_texts, embedding_width), float32."""
        return self._encode(texts, 1, progress)

    def unit(self, scores: np.ndarray) -> np.ndarray:
        """Return (cosine + 1) / 2, or σ(logit). *Shape:* that of scores, float32."""
        return unit_scores(self.settings.model_kind, scores)

    def token_counts(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each pair that the model reads. *Shape:* (n_pairs,)."""
        query_texts, document_texts = check_text_pairs(queries, documents)
        counts: np.ndarray = self._reader.token_counts(query_texts, 0) + self._reader.token_counts(document_texts, 1)
        return counts

    def cut_texts(self, queries: Sequence[str], documents: Sequence[str]) -> dict[str, CutTexts]:
        """Count the texts that the length limit truncates, prompts included; a side without texts is omitted."""
        sides = {"queries": queries, "documents": documents}
        return {
            name: sample_cut_texts(self.tokenizer, self._reader.prompted(texts, role), max_length=self.limits[role])
            for role, (name, texts) in enumerate(sides.items())
            if texts
        }

    def _encode(self, texts: Sequence[str], role: int, progress: bool | OnProgress) -> np.ndarray:
        checked_texts, reader = check_texts("texts", texts), self._embedder()
        out = np.empty((len(checked_texts), reader.embedding_width), dtype=np.float32)
        with self._lock, reporter(progress, "encoding", len(checked_texts)) as report:
            for start in range(0, len(checked_texts), _PAIRS_AT_ONCE):
                part = checked_texts[start : start + _PAIRS_AT_ONCE]
                out[start : start + len(part)] = reader.embed(part, role)
                report(len(part))
        return out

    def _embedder(self) -> M3Reader:
        if not isinstance(self._reader, M3Reader):
            raise BadInput(f"{self.path} gives scores of pairs, no embeddings of texts")
        return self._reader

    def _blocks(self, n_pairs: int) -> Iterator[slice]:
        """Yield slices of the pairs whose texts fit into memory together, even at the maximum length."""
        most = _BLOCK_BYTES // (sum(self.limits) * self._reader.bytes_per_token)
        size = max(1, min(_PAIRS_AT_ONCE, most))
        yield from (slice(start, min(start + size, n_pairs)) for start in range(0, n_pairs, size))


class _Texts:
    """The model's outputs for the latest texts of a call."""

    def __init__(self, reader: TokenReader) -> None:
        self._reader, self._n_bytes = reader, 0
        self._kept: OrderedDict[Hashable, TextOutputs] = OrderedDict()

    def read(self, texts: Sequence[str], role: int) -> list[TextOutputs]:
        """Return the outputs of texts; texts with kept outputs are not encoded again."""
        keys = [self._reader.key(text, role) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._kept}
        for key, outputs in zip(missing, self._reader.read(list(missing.values()), role), strict=True):
            self._kept[key] = outputs
            self._n_bytes += outputs.n_bytes
        for key in keys:
            self._kept.move_to_end(key)
        return [self._kept[key] for key in keys]

    def forget(self) -> None:
        """Drop the least recently used outputs until at most a gigabyte is kept."""
        while self._n_bytes > _KEPT_BYTES:
            self._n_bytes -= self._kept.popitem(last=False)[1].n_bytes


def open_token_scorer(folder: Path, how: HowToRead | None = None, *, max_length: int | None = None) -> TokenScorer:
    """Open the folder of a teacher that compares tokens.

    :param max_length: maximum number of tokens of a text; None is the folder's own setting
    :raises BadInput: if the folder is incomplete
    """
    settings, how = read_token_settings(folder), how or HowToRead()
    names = ("max_length",) if isinstance(settings, M3Teacher) else ("query_length", "document_length")
    if max_length is not None:
        settings = settings.model_copy(update=dict.fromkeys(names, max_length))
    if isinstance(settings, M3Teacher):
        return TokenScorer(folder, settings, open_m3_reader(folder, settings, how))
    return TokenScorer(folder, settings, open_late_reader(folder, settings, how))


def read_token_settings(folder: Path) -> M3Teacher | LateInteractionTeacher:
    """Read the settings of a folder whose model compares tokens.

    :raises BadInput: if its scorer.json has another kind or form
    """
    check_files(folder)
    raw = read_json(folder / SCORER_FILE)
    section: Any = {"bge_m3": M3Teacher, "late_interaction": LateInteractionTeacher}.get(str(raw.get("kind")))
    if section is None:
        raise BadInput(f"{folder} is of kind {str(raw.get('kind'))[:40]}, no model that compares tokens")
    try:
        settings: M3Teacher | LateInteractionTeacher = section.model_validate({**raw, "backbone": str(folder)})
    except ValueError:
        raise BadInput(
            f"{folder / SCORER_FILE} is not what this toolkit writes; run `distill train-teacher` again"
        ) from None
    return settings
