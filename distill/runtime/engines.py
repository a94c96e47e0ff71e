"""Engines that run a model folder, in torch or as a graph: from padded token ids to sentence embeddings or scores.

A graph with the output `sentence_embedding` (bi-encoder) or `logits` (cross-encoder) is the whole model. A graph with
only `last_hidden_state` is the transformer alone, and the folder's other modules run after it in numpy, in float32. If
one of them is not implemented in numpy, they run in torch, which is then imported.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distill.errors import BadInput
from distill.files.trust import load_auto
from distill.models.files import (
    TRANSFORMER_ALONE,
    ModelFiles,
    Precision,
    Runtime,
    check_ids,
    fitting_modules,
    length_limit,
    open_tokenizer,
)
from distill.models.numpy_head import folder_leaves_prompt_out, one_blas_thread, read_head
from distill.runtime.buckets import Features, PaddedBatch
from distill.runtime.settings import Mode, RunSettings, read_settings, settings_key
from distill.wording import load_with

__all__ = ["ANY_LENGTH", "CompiledGraph", "Engine", "GraphEngine", "open_graph"]

ANY_LENGTH = 2**31  # more than any model reads: the model then uses its own limit
_HEAD = 1000  # bytes at the start of a graph's file that contain its root element


class Engine(Protocol):
    """The interface that a scorer uses, the same for torch and graphs."""

    @property
    def runtime(self) -> Runtime:
        """The runtime that runs the model."""

    @property
    def precision(self) -> str:
        """The precision that it really computes in: "fp32", "bf16", "int8", "int4"."""

    @property
    def device(self) -> str:
        """The device: "cpu", or the name of a GPU."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer in the form that `distill.data.tokens` expects."""

    @property
    def output_width(self) -> int:
        """Width of an embedding, or the number of scores."""

    @property
    def settings(self) -> RunSettings | None:
        """The settings that a graph runs with; None in torch."""

    @property
    def batch_tokens(self) -> int:
        """Default number of padded tokens per batch."""

    @property
    def fixed_shapes(self) -> bool:
        """Whether every new shape costs memory, so that only few shapes may be used."""

    def length_limit(self, wanted: int | None) -> int:
        """Return the maximum number of tokens if `wanted` are requested; None is the folder's own setting."""

    def run(self, batches: Iterable[PaddedBatch], n_left_out: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows, values) of every batch; the next step may overwrite the values.

        :param n_left_out: number of first tokens of each text, those of a prompt, that the pooling ignores

        *Shape:* features: each (n_rows, n_padded); values: (n_rows, output_width), float32
        """

    def count_parameters(self) -> int:
        """Return the number of parameters of transformer and head together."""


def _check_openvino(folder: Path, path: Path) -> None:
    """Check that a file is an OpenVINO graph with weights beside it; OpenVINO itself would try other formats.

    The readers of those formats print to stderr.

    :raises BadInput: naming the file
    """
    with path.open("rb") as file:
        if b"<net" not in file.read(_HEAD):
            raise BadInput(f"{path} is no graph of OpenVINO; copy the folder again or rebuild it")
    if not path.with_suffix(".bin").is_file():
        raise BadInput(
            f"{folder} is not a whole model folder: {path.with_suffix('.bin').relative_to(folder)} is missing; copy it "
            "again or rebuild it"
        )


def open_graph(
    files: ModelFiles,
    runtime: Runtime,
    precision: Precision | None,
    n_threads: int,
    settings: RunSettings | None = None,
    mode: Mode | None = None,
) -> "GraphEngine":
    """Open the graph of a folder.

    :param settings: None uses those stored for this machine, or the defaults
    :raises BadInput: if the folder holds no such graph
    """
    path = files.graph(runtime)
    if path is None:
        wanted = "openvino/openvino_model.xml" if runtime == "openvino" else "onnx/model.onnx"
        raise BadInput(f"{files.folder} holds no {wanted}; export it, or {load_with(files.held_runtime)}")
    if runtime == "openvino":
        _check_openvino(files.folder, path)
    settings = settings or read_settings(files, settings_key(files, runtime, precision, n_threads))
    settings = settings or RunSettings.default(files, runtime, n_threads)
    # pooling inside a graph cannot ignore a prompt; use the token embeddings if they are an output too
    tokens_first = any(files.prompts.values()) and folder_leaves_prompt_out(files.folder, files.modules[1:])
    graph: CompiledGraph
    if runtime == "openvino":
        from distill.runtime.engine_openvino import OpenVinoGraph

        graph = OpenVinoGraph(files, precision, n_threads, settings, mode, tokens_first)
    else:
        from distill.runtime.engine_onnx import OnnxGraph

        graph = OnnxGraph(path, precision, n_threads, settings, mode, tokens_first)
    if tokens_first and graph.output_name not in TRANSFORMER_ALONE:
        raise BadInput(
            f"{files.folder} pools without the prompt (include_prompt: false), and its graph pools inside, with it; "
            f"export the transformer alone, or {load_with('torch')}"
        )
    return GraphEngine(runtime, files, open_tokenizer(files), graph, settings)


# ---------------------------------------------------------------------------------------------------------------------
# Graphs
# ---------------------------------------------------------------------------------------------------------------------


class CompiledGraph(Protocol):
    """A graph ready to run; `output_width` is the last dimension of its output, 0 if that dimension is dynamic."""

    @property
    def precision(self) -> str:
        """The precision that it really computes in: "fp32", "bf16", "int8", "int4"."""

    @property
    def input_names(self) -> Sequence[str]:
        """The names of the graph's inputs."""

    @property
    def output_name(self) -> str:
        """The name of the output that is read."""

    @property
    def output_width(self) -> int:
        """Width of an embedding, or the number of scores."""

    def run(self, batches: Iterable[PaddedBatch]) -> Iterator[tuple[PaddedBatch, np.ndarray]]:
        """Yield every batch with the graph's output; the next step may overwrite the output."""


class Head(Protocol):
    """The modules after the transformer."""

    n_parameters: int
    output_width: int

    def __call__(self, tokens: np.ndarray, mask: np.ndarray, n_left_out: int = 0) -> np.ndarray:
        """Run the modules. *Shape:* (n_rows, n_padded, width), (n_rows, n_padded) → (n_rows, output_width)."""


class GraphEngine:
    """A compiled graph and the modules after it."""

    device, fixed_shapes = "cpu", True

    def __init__(
        self, runtime: Runtime, files: ModelFiles, tokenizer: Any, graph: CompiledGraph, settings: RunSettings
    ) -> None:
        self.runtime, self.precision, self.tokenizer = runtime, graph.precision, tokenizer
        self.settings, self.batch_tokens = settings, settings.batch_tokens
        self._files, self._graph = files, graph
        self._head: Head | None = None
        width = graph.output_width or int(files.config.get("hidden_size") or files.config["dim"])
        if graph.output_name in TRANSFORMER_ALONE:
            self._head = read_head(files.folder, files.modules[1:], width) or _torch_head(files, width)
        self.output_width = width if self._head is None else self._head.output_width

    def length_limit(self, wanted: int | None) -> int:
        """Return the maximum number of tokens of a text or pair."""
        stored = self._files.settings.get("max_seq_length")
        return length_limit(self._files.config, wanted or stored, self.tokenizer.model_max_length)

    def run(self, batches: Iterable[PaddedBatch], n_left_out: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows, values) of every batch."""
        with one_blas_thread():
            for (rows, features), values in self._graph.run(self._given(batches)):
                if self._head is not None:
                    with fitting_modules(self._files):
                        values = self._head(values, features["attention_mask"], n_left_out)
                yield rows, values

    def _given(self, batches: Iterable[PaddedBatch]) -> Iterator[PaddedBatch]:
        """Yield each batch with exactly the inputs that the graph names, and the attention mask."""
        names = self._graph.input_names
        for rows, features in batches:
            check_ids(self._files, features["input_ids"])
            inputs = {name: features[name] if name in features else _missing(name, features) for name in names}
            yield rows, {**inputs, "attention_mask": features["attention_mask"]}

    def count_parameters(self) -> int:
        """Count the parameters of the torch model on the meta device: a graph folds and splits its constants."""
        import torch
        from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

        from distill.models.modeling import quiet

        has_own_head = len(self._files.modules) == 1 and self._files.kind == "cross_encoder"
        auto = AutoModelForSequenceClassification if has_own_head else AutoModel
        with torch.device("meta"), quiet():
            config = load_auto(AutoConfig, self._files.transformer_folder, local_files_only=True)
            encoder = sum(parameter.numel() for parameter in auto.from_config(config).parameters())
        head = self._head or read_head(self._files.folder, self._files.modules[1:], self.output_width)
        return int(encoder) + (0 if head is None else head.n_parameters)


def _torch_head(files: ModelFiles, width: int) -> Head:
    from distill.runtime.engine_torch import load_torch_head

    return load_torch_head(files, width, "cpu")


def _missing(name: str, features: Features) -> np.ndarray:
    """Make an input that the tokenizer does not give: token types are zero, positions count up."""
    ids = features["input_ids"]
    if name == "position_ids":
        return np.broadcast_to(np.arange(ids.shape[1], dtype=np.int64), ids.shape).copy()
    return np.zeros_like(ids)
