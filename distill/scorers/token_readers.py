"""Run models that compare tokens: BGE-m3 with its three outputs, and late interaction with a vector per token.

    M3Reader                an encoder and two heads; texts in batches of similar length
    LateInteractionReader   sentence-transformers' `MultiVectorEncoder`

The model is in the subfolder `model` of the teacher's folder; BGE-m3's heads are beside that subfolder.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distill.data.tokens import tokenize
from distill.errors import BadInput
from distill.files.artefact import INNER_MODEL
from distill.machine.cpu import usable_cpus
from distill.models.files import Precision, check_ids, fitting_modules, read_model_files
from distill.models.late_interaction import late_interaction_lengths, open_late_interaction, set_lengths
from distill.models.m3_heads import M3Heads, read_heads
from distill.models.modeling import quiet
from distill.models.prompts import model_prompts, role_prompts
from distill.recipe.token_teachers import LateInteractionTeacher, M3Teacher
from distill.runtime.buckets import plan_batches
from distill.runtime.engine_torch import TorchEngine, batch_tokens_on, open_torch, place
from distill.runtime.own_tokenizer import own_tokenizer, special_token_ids
from distill.scorers.token_matching import (
    TextOutputs,
    lexical_match,
    lexical_weights,
    mean_max_similarity,
    sum_max_similarity,
)

__all__ = ["HowToRead", "LateInteractionReader", "M3Reader", "TokenReader", "open_late_reader", "open_m3_reader"]

_TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class HowToRead:
    """The caller's options for a model; None means float32, all threads, and a GPU if there is one."""

    precision: Precision | None = None
    n_threads: int | None = None
    device: str | None = None
    special_tokens_as_text: bool = False


class TokenReader(Protocol):
    """A model that encodes each text by itself and compares the outputs of two texts."""

    @property
    def precision(self) -> str:
        """The number format that it computes in."""

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""

    @property
    def limits(self) -> tuple[int, int]:
        """The maximum number of tokens of a query and of a document."""

    @property
    def bytes_per_token(self) -> int:
        """Bytes of memory that the outputs of a text take per token."""

    @property
    def n_parameters(self) -> int:
        """Parameters of the encoder and its heads."""

    def key(self, text: str, role: int) -> Hashable:
        """Return a key that is equal for texts with equal outputs; the role is 0 for queries and 1 for documents."""

    def prompted(self, texts: Sequence[str], role: int) -> list[str]:
        """Put the prompt of the role in front of each text."""

    def read(self, texts: Sequence[str], role: int) -> list[TextOutputs]:
        """Return the outputs of each text that `match` compares."""

    def match(self, query: TextOutputs, document: TextOutputs) -> float:
        """Return the score of a pair."""

    def token_counts(self, texts: Sequence[str], role: int) -> np.ndarray:
        """Return the number of tokens of each text that the model reads. *Shape:* (n_texts,)."""


# ---------------------------------------------------------------------------------------------------------------------
# BGE-m3
# ---------------------------------------------------------------------------------------------------------------------


def open_m3_reader(folder: Path, settings: M3Teacher, how: HowToRead) -> "M3Reader":
    """Open a folder that `teachers.token_teachers` has written.

    :raises BadInput: if the folder is incomplete
    """
    files = read_model_files(folder / INNER_MODEL)
    engine = open_torch(files, how.precision, how.n_threads or usable_cpus(), how.device)
    heads = read_heads(folder, int(engine.transformer.config.hidden_size)).to(engine.device)
    return M3Reader(engine, heads, settings, special_tokens_as_text=how.special_tokens_as_text)


class M3Reader:
    """An encoder with BGE-m3's heads."""

    def __init__(
        self, engine: TorchEngine, heads: M3Heads, settings: M3Teacher, *, special_tokens_as_text: bool = False
    ) -> None:
        self._engine, self._heads, self.weights = engine, heads, settings.weights
        limit = engine.length_limit(settings.max_length)
        if limit < settings.max_length:
            raise BadInput(
                f"max_length {settings.max_length} is more than the {limit} positions of {engine.files.folder}"
            )
        self.limits, self.precision, self.tokenizer = (limit, limit), engine.precision, engine.tokenizer
        self._tokenizer = own_tokenizer(engine.tokenizer, special_tokens_as_text=special_tokens_as_text)
        self._special = np.array(sorted(special_token_ids(engine.tokenizer)))
        self._prompts = role_prompts(engine.files.prompts, engine.files.default_prompt_name)
        self.bytes_per_token = 4 * heads.multi_vector.out_features if self.weights.multi_vector else 8
        self.embedding_width = engine.output_width

    @property
    def n_parameters(self) -> int:
        """Parameters of the encoder and of both heads."""
        return self._engine.count_parameters() + self._heads.n_parameters

    def key(self, text: str, role: int) -> Hashable:
        """Return the text with its prompt in front; the encoder treats queries and documents alike."""
        return self._prompts[role] + text

    def prompted(self, texts: Sequence[str], role: int) -> list[str]:
        """Put the prompt of the role in front of each text."""
        return [self._prompts[role] + text for text in texts]

    def embed(self, texts: Sequence[str], role: int) -> np.ndarray:
        """Return the dense embeddings. *Shape:* (n_texts, width), float32."""
        text_outputs = self._read(self.prompted(texts, role), dense_alone=True)
        return np.stack([outputs.dense for outputs in text_outputs if outputs.dense is not None])

    def read(self, texts: Sequence[str], role: int) -> list[TextOutputs]:
        """Return the outputs of each text: dense always, the others if their weight is not 0."""
        return self._read(self.prompted(texts, role), dense_alone=False)

    def match(self, query: TextOutputs, document: TextOutputs) -> float:
        """Return the weighted mean of the three scores."""
        weights, score = self.weights, 0.0
        if weights.dense:
            assert query.dense is not None and document.dense is not None
            score += weights.dense * float(query.dense @ document.dense)
        if weights.sparse:
            score += weights.sparse * lexical_match(query, document)
        if weights.multi_vector:
            assert query.vectors is not None and document.vectors is not None
            score += weights.multi_vector * mean_max_similarity(query.vectors, document.vectors)
        return score / weights.total

    def token_counts(self, texts: Sequence[str], role: int) -> np.ndarray:
        """Return the number of tokens of each text that the model reads. *Shape:* (n_texts,)."""
        return tokenize(self._tokenizer, self.prompted(texts, role), max_length=self.limits[role]).lengths

    def _read(self, texts: Sequence[str], *, dense_alone: bool) -> list[TextOutputs]:
        import torch

        engine, out = self._engine, [TextOutputs()] * len(texts)
        table = tokenize(self._tokenizer, texts, max_length=self.limits[0])
        for rows, width in plan_batches(
            table.lengths, batch_tokens=engine.batch_tokens, fixed_shapes=False, at_most=self.limits[0]
        ):
            features = table.padded(rows, width)
            check_ids(engine.files, features["input_ids"])
            with torch.inference_mode():
                row_outputs = self._outputs(features, dense_alone)
            for row, outputs in zip(rows.tolist(), row_outputs, strict=True):
                out[row] = outputs
        return out

    def _outputs(self, features: Any, dense_alone: bool) -> list[TextOutputs]:
        engine, heads = self._engine, self._heads
        state, lengths = engine.states(features), features["attention_mask"].sum(axis=1).tolist()
        tokens = state[engine.transformer.module_output_name]  # (n_rows, n_tokens, width)
        with fitting_modules(engine.files):
            dense = _unit(engine.head.apply({**state, "prompt_length": 0})["sentence_embedding"]).cpu().numpy()
        # copy each row: a view would keep the whole batch in memory
        parts: list[dict[str, Any]] = [{"dense": vector.copy()} for vector in dense]
        if self.weights.sparse and not dense_alone:
            weights = heads.sparse(tokens).relu()[..., 0].cpu().numpy()
            for part, ids, own, n in zip(parts, features["input_ids"], weights, lengths, strict=True):
                part["token_ids"], part["token_weights"] = lexical_weights(ids[:n], own[:n], self._special)
        if self.weights.multi_vector and not dense_alone:
            # the first position gives the dense embedding; it is not a token of the text
            vectors = _unit(heads.multi_vector(tokens[:, 1:])).cpu().numpy()
            for part, own, n in zip(parts, vectors, lengths, strict=True):
                part["vectors"] = own[: n - 1].copy()
        return [TextOutputs(**part) for part in parts]


def _unit(vectors: Any) -> Any:
    import torch

    return torch.nn.functional.normalize(vectors.float(), dim=-1)


# ---------------------------------------------------------------------------------------------------------------------
# Late interaction
# ---------------------------------------------------------------------------------------------------------------------


def open_late_reader(folder: Path, settings: LateInteractionTeacher, how: HowToRead) -> "LateInteractionReader":
    """Open a folder that `teachers.token_teachers` has written.

    :raises BadInput: if the folder is incomplete
    """
    if how.special_tokens_as_text:
        raise BadInput(
            f"{folder} reads special tokens in a text as stock sentence-transformers does; leave that option out"
        )
    device = place(how.device, how.n_threads or usable_cpus())
    model = open_late_interaction(folder / INNER_MODEL, device=device)
    set_lengths(str(folder), model, settings.query_length, settings.document_length)
    return LateInteractionReader(model, settings, how.precision or "fp32", device)


class LateInteractionReader:
    """A late-interaction model, run by sentence-transformers' `MultiVectorEncoder`."""

    def __init__(self, model: Any, settings: LateInteractionTeacher, precision: Precision, device: str) -> None:
        self._model, self._device, self.precision = model, device, str(precision)
        self._is_mean = settings.similarity == "meanmaxsim"
        self.tokenizer, self.limits = model.tokenizer, late_interaction_lengths(model)
        self._prompts = model_prompts(model)
        self.bytes_per_token = 4 * int(model.get_embedding_dimension() or model[0].get_embedding_dimension())

    @property
    def n_parameters(self) -> int:
        """Parameters of the encoder and of its projection."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def key(self, text: str, role: int) -> Hashable:
        """Return role and text: the encoder treats queries and documents differently."""
        return role, text

    def prompted(self, texts: Sequence[str], role: int) -> list[str]:
        """Put the prompt of the role in front of each text."""
        return [self._prompts[role] + text for text in texts]

    def read(self, texts: Sequence[str], role: int) -> list[TextOutputs]:
        """Return the vectors of the tokens of each text that are compared."""
        import torch

        encode = self._model.encode_document if role else self._model.encode_query
        kind, out = torch.device(self._device).type, [TextOutputs()] * len(texts)
        lengths, budget = self.token_counts(texts, role), batch_tokens_on(self._device)
        with quiet(), torch.autocast(kind, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            for rows, _ in plan_batches(lengths, batch_tokens=budget, fixed_shapes=False):
                part = [texts[row] for row in rows.tolist()]
                vectors = encode(part, batch_size=len(part), show_progress_bar=False)
                for row, text_vectors in zip(rows.tolist(), vectors, strict=True):
                    out[row] = TextOutputs(vectors=text_vectors.float().cpu().numpy().copy())
        return out

    def match(self, query: TextOutputs, document: TextOutputs) -> float:
        """Return MaxSim, or its mean over the query's tokens."""
        assert query.vectors is not None and document.vectors is not None
        compare = mean_max_similarity if self._is_mean else sum_max_similarity
        return compare(query.vectors, document.vectors)

    def token_counts(self, texts: Sequence[str], role: int) -> np.ndarray:
        """Return the number of tokens of each text that the model reads, with query expansion. *Shape:* (n_texts,)."""
        counts = [np.zeros(0, dtype=np.int64)]
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = self.prompted(texts[start : start + _TEXTS_AT_ONCE], role)
            with quiet():  # `TokenScorer.cut_texts` counts the truncated texts
                features = self._model.preprocess(part, task=("query", "document")[role])
            is_read = features["attention_mask"].bool()
            if "query_expansion_positions" in features:
                is_read = is_read | features["query_expansion_positions"].bool()
            counts.append(is_read.sum(dim=1).numpy())
        return np.concatenate(counts)
