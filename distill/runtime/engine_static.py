"""Run static models: a table of token vectors, their mean, and the modules after it. Numpy only, microseconds per text.

The table has one of two forms, both of which stock sentence-transformers loads: `embedding.weight` in float, or the
form of model2vec, `embeddings` with a weight per row (and optionally a row per token). Tables of this toolkit are int8,
with each row's scale as its weight: a quarter of the size, decoded when a row is looked up.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from distill.errors import BadInput
from distill.models.files import ModelFiles, Runtime, open_tokenizer
from distill.models.numpy_head import one_blas_thread, read_stages
from distill.runtime.buckets import PaddedBatch

__all__ = ["StaticEngine", "TokenVectors", "open_static"]

_NO_LIMIT = 1 << 20  # tokens of a text; there is no limit of positions
_FEW_TEXTS = 8  # up to this number, looking up rows is faster than building a sparse matrix


@cache
def _has_scipy() -> bool:
    """Tell whether scipy is installed for sparse sums; a serving install omits its 140 MB and sums half as fast."""
    return find_spec("scipy") is not None


class TokenVectors:
    """A table of token vectors that computes their means.

    *Shape:* table: (n_rows, width); scales: (n_tokens,), or None if the table holds the values themselves; rows:
    (n_tokens,), the row of each token, or None if row and token id are the same
    """

    def __init__(self, table: np.ndarray, scales: np.ndarray | None = None, rows: np.ndarray | None = None) -> None:
        self.table, self._scales, self._rows = table, scales, rows

    @property
    def precision(self) -> str:
        """The number format of the table."""
        return {"float32": "fp32", "float16": "fp16"}.get(self.table.dtype.name, self.table.dtype.name)

    @property
    def n_parameters(self) -> int:
        """Number of learned values."""
        return self.table.size + (0 if self._scales is None else self._scales.size)

    def means(self, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Average the vectors of each text; a text without tokens becomes zero.

        Both implementations add tokens one after the other, so a text gets the same bits alone and among many.

        *Shape:* ids: (n_tokens,), texts one after the other; lengths: (n_texts,) → (n_texts, width), float32
        """
        one_by_one = len(lengths) <= _FEW_TEXTS or not _has_scipy()
        sums = self._sums_of_few(ids, lengths) if one_by_one else self._sums(ids, lengths)
        sums /= np.maximum(lengths, 1).astype(np.float32)[:, None]
        return sums

    def _vectors(self, ids: np.ndarray) -> np.ndarray:
        n_rows = min(
            len(part)
            for part in (self._scales, self._rows, self.table if self._rows is None else None)
            if part is not None
        )
        if ids.size and int(ids.max()) >= n_rows:
            raise BadInput(
                f"the tokenizer gives the id {int(ids.max())}, the table of token vectors has {n_rows} rows; tokenizer and "
                "weights are not of one model, copy the folder again"
            )
        weights = None if self._scales is None else self._scales[ids].astype(np.float32)
        rows = ids if self._rows is None else self._rows[ids]
        vectors: np.ndarray = self.table[rows].astype(np.float32, copy=False)
        return vectors if weights is None else vectors * weights[:, None]

    def _sums_of_few(self, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        vectors, ends = self._vectors(ids), np.cumsum(lengths)
        return np.stack([vectors[end - n : end].sum(axis=0) for n, end in zip(lengths, ends, strict=True)])

    def _sums(self, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        from scipy.sparse import csr_matrix

        table: np.ndarray = self.table
        if self._scales is not None or self._rows is not None or table.dtype != np.float32:
            used, ids = np.unique(ids, return_inverse=True)  # decode only these rows
            table = self._vectors(used)
        ones, starts = np.ones(len(ids), dtype=np.float32), np.concatenate([[0], np.cumsum(lengths)])
        sums: np.ndarray = csr_matrix((ones, ids, starts), shape=(len(lengths), len(table))) @ table
        return sums


class StaticEngine:
    """A table of token vectors and the modules after it."""

    runtime: Runtime = "numpy"
    device, fixed_shapes, batch_tokens = "cpu", False, 16_384
    settings: None = None

    def __init__(self, tokenizer: Any, vectors: TokenVectors, stages: Sequence[Any], n_more: int, width: int) -> None:
        self.tokenizer, self.precision, self.output_width = tokenizer, vectors.precision, width
        self._vectors, self._stages, self._n_more = vectors, stages, n_more

    def length_limit(self, wanted: int | None) -> int:
        """Return the maximum number of tokens: `wanted`, else the limit of tokenizer.json."""
        return int(min(wanted or self.tokenizer.model_max_length, _NO_LIMIT))

    def run(self, batches: Iterable[PaddedBatch], n_left_out: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows, values) of every batch; `n_left_out` has no effect."""
        # without a Dense there is no matrix product, and limiting the threads would cost more than a text
        with one_blas_thread() if self._n_more else nullcontext():
            for rows, features in batches:
                mask = features["attention_mask"].astype(bool)
                values = self._vectors.means(features["input_ids"][mask], mask.sum(axis=1))
                for stage in self._stages:
                    values = stage(values)
                yield rows, values

    def count_parameters(self) -> int:
        """Return the number of parameters."""
        return self._vectors.n_parameters + self._n_more


def open_static(files: ModelFiles) -> StaticEngine:
    """Open a folder whose first module is a `StaticEmbedding`.

    :raises BadInput: if the folder holds no token vectors, or a later module cannot run in numpy
    """
    from safetensors.numpy import load_file

    vectors = _token_vectors(files, load_file(files.transformer_folder / "model.safetensors"))
    head_parts = read_stages(files.folder, files.modules[1:], vectors.table.shape[1])
    if head_parts is None:
        names = ", ".join(str(module["type"]) for module in files.modules[1:])
        raise BadInput(f"{files.folder}/modules.json: {names}; behind a static table Dense and Normalize are run")
    return StaticEngine(open_tokenizer(files), vectors, *head_parts)


def _token_vectors(files: ModelFiles, tensors: Mapping[str, np.ndarray]) -> TokenVectors:
    if "embedding.weight" in tensors:
        return TokenVectors(tensors["embedding.weight"])
    if "embeddings" not in tensors:
        raise BadInput(f"{files.folder} holds no token vectors (embedding.weight or embeddings); build it again")
    table, rows = tensors["embeddings"], tensors.get("mapping")
    if rows is not None and not (rows.dtype.kind in "iu" and ((rows >= 0) & (rows < len(table))).all()):
        raise BadInput(
            f"{files.folder}/model.safetensors: its mapping names rows that its table of {len(table)} token vectors lacks; "
            "copy the folder again"
        )
    return TokenVectors(table, tensors.get("weights"), rows)
