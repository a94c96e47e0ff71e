"""Run generative rerankers: decoders that answer yes or no to a pair, in the form of stock `CrossEncoder`.

    modules.json     Transformer (transformer_task: text-generation) → LogitScore
    the pair         is put into the folder's chat template, with its instruction (the default prompt) if it stores one
    the score        logit of "yes" − logit of "no" at the last token; `unit` of it equals `CrossEncoder.predict`

The folder's own code reads the pairs, in torch: template, instruction and padding are not reimplemented here. Such a
model is a teacher, frozen or trained; it is not exported, and no student is cut from it.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distill.data.tokens import tokenizer_lock
from distill.errors import BadInput, loading
from distill.models.files import ModelFiles, Runtime, check_ids, length_limit
from distill.models.generative import check_generative, default_prompt
from distill.progress import OnProgress
from distill.runtime.arguments import check_count, check_text_pairs
from distill.runtime.buckets import PaddedBatch
from distill.runtime.engine_torch import batch_tokens_on, check_process, place
from distill.runtime.scorer import Scorer, reporter
from distill.runtime.settings import Opening

__all__ = ["GenerativeScorer", "open_generative"]

log = logging.getLogger(__name__)
_PAIRS_AT_ONCE = 256  # pairs that are sorted by length together


@dataclass(frozen=True)
class GenerativeEngine:
    """A loaded `CrossEncoder` that consists of a decoder and a LogitScore."""

    model: Any
    precision: str
    device: str
    files: ModelFiles
    runtime: Runtime = "torch"
    fixed_shapes: bool = False
    settings: None = None
    output_width: int = 1
    process: int = field(default_factory=os.getpid)

    @property
    def batch_tokens(self) -> int:
        """Default number of padded tokens per batch."""
        return batch_tokens_on(self.device)

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self.model[0].tokenizer

    def length_limit(self, wanted: int | None) -> int:
        """Return the maximum number of tokens of a pair, template and instruction included."""
        stored = self.files.settings.get("max_seq_length")
        return length_limit(self.model[0].model.config.to_dict(), wanted or stored, self.tokenizer.model_max_length)

    def run(self, batches: Iterable[PaddedBatch], n_left_out: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Refuse batches of token ids: this engine needs texts, because the template joins both texts of a pair.

        :raises BadInput: always
        """
        raise BadInput(f"{self.files.folder} is a generative reranker: it scores pairs of texts, nothing else")

    def features(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Apply the template and the tokenizer to pairs; the result is padded on the left."""
        with (
            loading(str(self.files.folder)),
            tokenizer_lock(getattr(self.tokenizer, "backend_tokenizer", self.tokenizer)),
        ):
            features: dict[str, Any] = self.model.preprocess(list(pairs), prompt=default_prompt(self.model))
        check_ids(self.files, features["input_ids"].numpy())
        return features

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Return the log-odds of yes for each pair. *Shape:* (n_pairs,), float32."""
        import torch
        from sentence_transformers.util import batch_to_device

        features = batch_to_device(self.features(pairs), torch.device(self.device))
        kind, is_bf16 = torch.device(self.device).type, self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16, enabled=is_bf16):
            scores = self.model(features)["scores"]
        result: np.ndarray = scores.float().cpu().numpy().reshape(len(pairs), -1)[:, 0]
        return result

    def count_parameters(self) -> int:
        """Return the number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())


class GenerativeScorer(Scorer):
    """A cross-encoder whose score is the log-odds of yes."""

    _engine: GenerativeEngine

    def __init__(self, files: ModelFiles, engine: GenerativeEngine, max_length: int | None) -> None:
        super().__init__(files, engine, max_length, None, engine.tokenizer)
        self.n_template_tokens = check_generative(str(files.folder), engine.model, self.max_length)
        engine.model.max_seq_length = self.max_length

    def token_counts(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each pair, those of the template included. *Shape:* (n_pairs,)."""
        pairs = list(zip(*check_text_pairs(queries, documents), strict=True))
        counts = [np.zeros(0, dtype=np.int64)]
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            mask = self._engine.features(pairs[start : start + _PAIRS_AT_ONCE])["attention_mask"]
            counts.append(mask.sum(1).numpy())
        return np.concatenate(counts)

    def _score_jointly(
        self, queries: list[str], documents: list[str], batch_tokens: int | None, progress: bool | OnProgress
    ) -> np.ndarray:
        check_process(self._engine)
        pairs = list(zip(queries, documents, strict=True))
        wanted = check_count("batch_tokens", batch_tokens, none="the measured best of the runtime")
        budget, out = wanted or self._engine.batch_tokens, np.empty(len(pairs), dtype=np.float32)
        with self._lock, reporter(progress, "scoring", len(pairs)) as report:
            for rows in self._planned(pairs, budget):
                out[rows] = self._engine.score([pairs[row] for row in rows])
                report(len(rows))
        return out

    def _planned(self, pairs: Sequence[tuple[str, str]], budget: int) -> Iterator[list[int]]:
        """Yield rows of pairs of similar length whose padded tokens fit the budget, at least one row per batch."""
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            part = pairs[start : start + _PAIRS_AT_ONCE]
            lengths = self._engine.features(part)["attention_mask"].sum(1).numpy()
            self._count_read(lengths)
            rows: list[int] = []
            for row in np.argsort(lengths, kind="stable"):  # each row is the longest of its batch so far
                if rows and (len(rows) + 1) * int(lengths[row]) > budget:
                    yield rows
                    rows = []
                rows.append(start + int(row))
            if rows:
                yield rows


def open_generative(files: ModelFiles, opening: Opening) -> GenerativeScorer:
    """Open a folder whose modules end in LogitScore; a device of None is a GPU if there is one.

    :raises BadInput: if an option is not possible for such a model, or the folder cannot score a pair
    """
    from distill.models.modeling import load_model

    name = f"{files.folder} is a generative reranker (LogitScore)"
    if files.kind != "cross_encoder":
        raise BadInput(
            f"{name}, and config_sentence_transformers.json does not say model_type: CrossEncoder; copy the folder again"
        )
    if opening.runtime != "torch":
        raise BadInput(f"{name}: it runs in torch alone, not in {opening.runtime}; leave runtime out, or say torch")
    if opening.truncate is not None:
        raise BadInput(f"truncate {opening.truncate}: {files.folder} gives no embeddings but scores")
    if opening.special_tokens_as_text:
        raise BadInput(f"{name}, whose template is made of special tokens: special_tokens_as_text is not there for it")
    chosen = place(opening.device, opening.n_threads)
    model = load_model(files.folder).to(chosen).eval()
    engine = GenerativeEngine(model, opening.precision or "fp32", chosen, files)
    return GenerativeScorer(files, engine, opening.max_length)
