"""One scorer over any model folder: torch, an OpenVINO graph or an ONNX graph, with the same numbers.

    scorer = load("student-int8")
    scores = scorer.score(resumes, job_descriptions)

A graph of ours goes from token ids to the result (`distill.graph`). Behind one that gives token embeddings alone, pooling,
Dense and Normalize are the sentence-transformers modules of the folder, run in float32: a folder means the same in every
runtime and in stock sentence-transformers.

Texts are tokenised without padding, sorted by length and cut into batches by a token budget. Graphs see few shapes:
OpenVINO keeps memory for every new one (400 random shapes of MiniLM int8: +2.1 GB), so lengths go up to the next of
about twenty steps and batches hold a power of two. Measured on 2 cores with mixed lengths (mean 57 tokens): steps of
8 to 32 tokens are 10 % faster than 32 throughout, and two streams of one thread no faster than one request of two.
"""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from distill.artefact import ModelKind, check_model_folder
from distill.errors import BadInput
from distill.head import numpy_head, one_blas_thread
from distill.modeling import loading, quiet

__all__ = ["Precision", "Runtime", "Scorer", "load", "usable_cpus"]

Runtime = Literal["torch", "openvino", "onnx"]
Precision = Literal["fp32", "bf16"]
Features = dict[str, Any]
Progress = Callable[[int], None]
NumpyHead = Callable[[np.ndarray, np.ndarray], np.ndarray]

GRAPHS: Mapping[Runtime, tuple[str, ...]] = {
    "openvino": ("openvino/openvino_model.xml", "openvino_model.xml"),
    "onnx": ("onnx/model.onnx", "model.onnx"),
}
_CHUNK = 8192  # texts tokenised and sorted together: bounds the memory, and long enough to fill batches of one length
_BATCH_TOKENS: Mapping[str, int] = {"torch": 1024, "openvino": 2048, "onnx": 512, "cuda": 65_536}
_OV_PRECISIONS: Mapping[str, str] = {"fp32": "f32", "bf16": "bf16"}
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text")
_QUERY_PROMPTS, _DOCUMENT_PROMPTS = ("query",), ("document", "passage", "corpus")
_ONNX_INT8_MARKS = (b"DequantizeLinear", b"MatMulInteger", b"DynamicQuantizeMatMul", b"QAttention")
_LOW_PRECISION = ("i8", "u8", "i4", "u4", "nf4", "f8e4m3", "f8e5m2")


def load(
    path: str | Path,
    *,
    runtime: Runtime | None = None,
    precision: Precision | None = None,
    n_threads: int | None = None,
    max_length: int | None = None,
    device: str | None = None,
) -> "Scorer":
    """Load a model folder, ours or any of sentence-transformers, ready to encode or score.

    :param runtime: None takes what the folder holds, a graph before weights.
    :param precision: None is fp32 in torch; in OpenVINO what the folder asks for, else the device's own choice
        (bf16 where the CPU has it). An int8 graph stays int8: the precision is then that of its float remainder.
    :param n_threads: None is every CPU this process may use. In torch the number holds for the whole process.
    :param max_length: tokens of a text or of a pair; None is the model's own limit.
    :param device: such as "cpu" or "cuda:0", torch only; None takes a GPU where there is one.
    :raises BadInput: where the folder is not whole or lacks what the runtime needs.
    """
    folder = Path(path)
    kind = check_model_folder(folder)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    chosen = runtime or _held(folder)
    engine: _Engine
    with loading(str(folder)):
        if chosen == "torch":
            engine = _torch_engine(folder, modules[0], precision, n_threads, device)
        else:
            engine = _graph_engine(folder, modules[0], chosen, precision, n_threads, device)
        head = [_head_module(folder, module).to(engine.device).eval() for module in modules[1:]]
    return Scorer(folder, kind, engine, head, max_length)


def usable_cpus() -> int:
    """Return how many CPUs this process may use: its affinity, cut by the quota of its cgroup (v1 or v2)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return allowed if quota is None else max(1, min(allowed, math.floor(quota)))


def _cgroup_quota() -> float | None:
    """CPUs a container may use; OpenVINO, ONNX Runtime and torch look at the machine's instead."""
    root = Path("/sys/fs/cgroup")
    try:
        limit, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit, period = ((root / f"cpu/cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    return None if limit in ("max", "-1") else int(limit) / int(period)


def _held(folder: Path) -> Runtime:
    for runtime, names in GRAPHS.items():
        if any((folder / name).is_file() for name in names):
            return runtime
    return "torch"


# ---------------------------------------------------------------------------------------------------------------------
# Engines: token ids in, what the transformer gives out
# ---------------------------------------------------------------------------------------------------------------------


class _Engine(Protocol):
    """What runs the transformer of a folder."""

    @property
    def runtime(self) -> Runtime: ...
    @property
    def precision(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def config(self) -> Any: ...
    @property
    def max_length(self) -> int: ...
    @property
    def fixed_shapes(self) -> bool: ...

    def run(self, features: Mapping[str, np.ndarray]) -> Features:
        """Run one padded batch.

        *Shape:* features: each (n_rows, n_padded); token_embeddings: (n_rows, n_padded, width)
        """

    def count_parameters(self) -> int:
        """Return the number of parameters of the transformer."""


@dataclass
class _TorchEngine:
    transformer: Any
    precision: str
    device: str
    max_length: int
    runtime: Runtime = "torch"
    fixed_shapes: bool = False

    @property
    def tokenizer(self) -> Any:
        return self.transformer.tokenizer

    @property
    def config(self) -> Any:
        return self.transformer.config

    def run(self, features: Mapping[str, np.ndarray]) -> Features:
        import torch

        tensors: Features = {name: torch.from_numpy(values).to(self.device) for name, values in features.items()}
        device_type = torch.device(self.device).type
        with torch.autocast(device_type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            out: Features = self.transformer(tensors)
        name = self.transformer.module_output_name
        return {**out, name: out[name].float()}

    def count_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.transformer.parameters())


def _torch_engine(
    folder: Path, module: Mapping[str, Any], precision: Precision | None, n_threads: int | None, device: str | None
) -> _TorchEngine:
    import torch
    from sentence_transformers.base.modules import Transformer

    weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    if not any((folder / module["path"] / name).is_file() for name in weights):
        raise BadInput(f"{folder} holds no torch weights, only a graph; load it with runtime: {_held(folder)}")
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if torch.device(chosen).type == "cpu":
        torch.set_num_threads(n_threads or usable_cpus())
    # transformers 5 loads the dtype of the checkpoint unless told otherwise
    kwargs = {"dtype": torch.float32}
    with quiet():
        transformer = Transformer.load(
            str(folder), subfolder=module["path"], local_files_only=True, model_kwargs=kwargs
        ).to(chosen)
    limit = _length_limit(_settings(folder, module), transformer.tokenizer, transformer.config)
    return _TorchEngine(transformer.eval(), precision or "fp32", chosen, limit)


@dataclass
class _GraphEngine:
    runtime: Runtime
    precision: str
    tokenizer: Any
    config: Any
    max_length: int
    graph: "_Graph"
    device: str = "cpu"
    fixed_shapes: bool = True

    def run(self, features: Mapping[str, np.ndarray]) -> Features:
        import torch

        names = self.graph.input_names
        given = {name: features[name] if name in features else _missing(name, features) for name in names}
        out = torch.from_numpy(self.graph.call(given))
        return {"attention_mask": torch.from_numpy(features["attention_mask"]), self.graph.output_label: out}

    def run_to_end(self, features: Mapping[str, np.ndarray], head: NumpyHead) -> np.ndarray:
        """Run one padded batch through graph and head without torch. *Shape:* (n_rows, output_width)."""
        names = self.graph.input_names
        given = {name: features[name] if name in features else _missing(name, features) for name in names}
        return head(self.graph.call(given), features["attention_mask"])

    @property
    def is_whole(self) -> bool:
        """Whether the graph ends in the result and not in token embeddings."""
        return self.graph.output_label != "token_embeddings"

    def run_whole(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Run one padded batch through a whole graph. *Shape:* (n_rows, output_width)."""
        names = self.graph.input_names
        given = {name: features[name] if name in features else _missing(name, features) for name in names}
        return self.graph.call(given)

    def count_parameters(self) -> int:
        """Count those of the torch model, on the meta device: a graph folds and splits its constants."""
        import torch
        from transformers import AutoModel, AutoModelForSequenceClassification

        auto = AutoModelForSequenceClassification if self.graph.output_label == "scores" else AutoModel
        with torch.device("meta"), quiet():
            return sum(parameter.numel() for parameter in auto.from_config(self.config).parameters())


def _missing(name: str, features: Mapping[str, np.ndarray]) -> np.ndarray:
    """Make an input the tokenizer does not give: types are zero, positions count up."""
    ids = features["input_ids"]
    if name == "position_ids":
        return np.broadcast_to(np.arange(ids.shape[1], dtype=np.int64), ids.shape).copy()
    return np.zeros_like(ids)


def _graph_engine(
    folder: Path,
    module: Mapping[str, Any],
    runtime: Runtime,
    precision: Precision | None,
    n_threads: int | None,
    device: str | None,
) -> _GraphEngine:
    graph = next((folder / name for name in GRAPHS[runtime] if (folder / name).is_file()), None)
    if graph is None:
        raise BadInput(f"{folder} holds no {GRAPHS[runtime][0]}; export it, or load it with runtime: {_held(folder)}")
    if device not in (None, "cpu"):
        raise BadInput(f"runtime {runtime} runs on the CPU here, not on {device}; use runtime: torch for a GPU")
    settings = _settings(folder, module)
    tokenizer, config = _tokenizer_and_config(folder / module["path"], settings)
    open_graph = _open_openvino if runtime == "openvino" else _open_onnx
    opened = open_graph(graph, settings, precision, n_threads or usable_cpus())
    limit = _length_limit(settings, tokenizer, config)
    return _GraphEngine(runtime, opened.precision, tokenizer, config, limit, opened)


@dataclass(frozen=True)
class _Graph:
    """A compiled graph; `output_label` says what it gives: token_embeddings, scores of a head of its own, or the result."""

    precision: str
    input_names: Sequence[str]
    output_label: str
    call: Callable[[dict[str, np.ndarray]], np.ndarray]


def _open_openvino(graph: Path, settings: Mapping[str, Any], precision: Precision | None, n_threads: int) -> _Graph:
    import openvino

    core = openvino.Core()
    model = core.read_model(graph)
    names, outputs = [_name(port) for port in model.inputs], [_name(port) for port in model.outputs]
    wanted, label = _graph_output(graph, outputs)
    for port, name in zip(list(model.outputs), outputs, strict=True):
        if name != wanted:
            model.remove_result(port.node)  # what nobody asks for is not computed, converted or copied
    # where stock sentence-transformers looks for OpenVINO options, so that both run the same
    stored = (settings.get("model_kwargs") or {}).get("ov_config") or {}
    options = {"PERFORMANCE_HINT": "LATENCY", **stored, "INFERENCE_NUM_THREADS": n_threads}
    if precision is not None:
        options["INFERENCE_PRECISION_HINT"] = _OV_PRECISIONS[precision]
    compiled = core.compile_model(model, "CPU", options)
    request = compiled.create_infer_request()
    port = compiled.output(wanted)

    def call(given: dict[str, np.ndarray]) -> np.ndarray:
        # the result lives in the request's own memory until the next call: the head reduces it before that
        request.infer(given, share_inputs=True, share_outputs=True)
        values: np.ndarray = request.get_tensor(port).data
        return values

    return _Graph(_openvino_precision(model, compiled), names, label, call)


def _openvino_precision(model: Any, compiled: Any) -> str:
    """Say what really runs: "int8" where weights or activations are quantized, else what the plugin settled on."""
    for node in model.get_ops():
        kind = node.get_type_name()
        if kind == "FakeQuantize":
            return "int8"
        # a scalar of a small type may be a mask or a flag, a matrix is a weight
        if kind == "Constant" and len(node.shape) > 1 and node.get_element_type().get_type_name() in _LOW_PRECISION:
            return "int8"
    hint: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return {"f32": "fp32", "f16": "fp16"}.get(hint, hint)


def _name(port: Any) -> str:
    name: str = min(port.get_names(), key=lambda name: ("/" in name, name))  # a port may carry inner names too
    return name


def _open_onnx(graph: Path, settings: Mapping[str, Any], precision: Precision | None, n_threads: int) -> _Graph:
    try:
        import onnxruntime
    except ImportError:
        raise BadInput(f"{graph} needs onnxruntime; install it with: pip install 'matchdistill[onnx]'") from None
    if precision == "bf16":
        raise BadInput("ONNX Runtime has no bf16 on x86 CPUs; leave precision out, or use runtime: openvino")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    wanted, label = _graph_output(graph, [port.name for port in session.get_outputs()])

    def call(given: dict[str, np.ndarray]) -> np.ndarray:
        values: np.ndarray = session.run([wanted], given)[0]
        return values

    return _Graph(_onnx_precision(graph), [port.name for port in session.get_inputs()], label, call)


def _onnx_precision(graph: Path) -> str:
    """Look for operator names in the file: sessions do not list nodes, and the `onnx` package is no dependency."""
    content = graph.read_bytes()
    return "int8" if any(mark in content for mark in _ONNX_INT8_MARKS) else "fp32"


def _graph_output(graph: Path, names: Sequence[str]) -> tuple[str, str]:
    tokens = next((name for name in ("last_hidden_state", "token_embeddings") if name in names), None)
    for name in ("sentence_embedding", "logits"):
        if name in names:
            return name, "scores" if name == "logits" and tokens is None else "result"
    if tokens is not None:
        return tokens, "token_embeddings"
    accepted = "sentence_embedding, logits, last_hidden_state, token_embeddings"
    raise BadInput(f"{graph} gives {', '.join(names)}; one of {accepted} is needed: export the model again")


# ---------------------------------------------------------------------------------------------------------------------
# What the folder says
# ---------------------------------------------------------------------------------------------------------------------


def _settings(folder: Path, module: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read the transformer module's settings, under the name of today or one of its older names."""
    base = folder / module["path"]
    found = [base / "sentence_bert_config.json", *sorted(base.glob("sentence_*_config.json"))]
    path = next((path for path in found if path.is_file()), None)
    settings: Mapping[str, Any] = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    return settings


def _tokenizer_and_config(folder: Path, settings: Mapping[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    if settings.get("do_lower_case") and tokenizer.is_fast:
        _add_lower_case(tokenizer.backend_tokenizer)
    return tokenizer, config


def _add_lower_case(backend: Any) -> None:
    """Lower-case in front of the tokenizer's own normalizer, as sentence-transformers does; twice does no harm."""
    from tokenizers.normalizers import Lowercase, Sequence

    backend.normalizer = Sequence([Lowercase(), *([] if backend.normalizer is None else [backend.normalizer])])


def _length_limit(settings: Mapping[str, Any], tokenizer: Any, config: Any) -> int:
    """Return how many tokens the model takes: the folder's setting, cut to the positions that the model really has."""
    positions = getattr(config, "max_position_embeddings", None)
    limit = settings.get("max_seq_length") or tokenizer.model_max_length
    if not positions or positions < 0:
        return int(min(limit, 8192))
    if config.model_type in _OFFSET_POSITIONS:
        positions -= (config.pad_token_id or 0) + 1  # counted from after the padding id: 514 rows, 512 tokens
    return int(min(limit, positions))


def _head_module(folder: Path, module: Mapping[str, Any]) -> Any:
    from sentence_transformers.util import import_from_string

    if not str(module["type"]).startswith("sentence_transformers."):
        raise BadInput(f"{folder}/modules.json names {module['type']}; only sentence_transformers' own modules are run")
    return import_from_string(module["type"]).load(str(folder), subfolder=module["path"], local_files_only=True)


# ---------------------------------------------------------------------------------------------------------------------
# Batches
# ---------------------------------------------------------------------------------------------------------------------


def padded_length(n_tokens: int) -> int:
    """Round a length up to a step of 8, 16 or 32 tokens: about twenty lengths to 512, and little padding.

    >>> [padded_length(n) for n in (1, 9, 33, 65, 500)]
    [8, 16, 48, 96, 512]
    """
    step = 8 if n_tokens <= 32 else 16 if n_tokens <= 64 else 32
    return -(-n_tokens // step) * step


def plan_batches(lengths: np.ndarray, *, batch_tokens: int, fixed_shapes: bool) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (rows, padded length), longest first: memory that suffices for the first batch suffices for all.

    A row is never padded to more than twice its own length, or 16 tokens. With `fixed_shapes` the number of rows is a power of two,
    so that a long list and a remainder share their shapes.

    *Shape:* lengths: (n_texts,)

    >>> [(rows.tolist(), n) for rows, n in plan_batches(np.array([3, 60, 5, 64]), batch_tokens=128, fixed_shapes=True)]
    [([3, 1], 64), ([2, 0], 8)]
    """
    order = np.argsort(-lengths, kind="stable")
    ascending = -lengths[order]
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        width = padded_length(longest) if fixed_shapes else -(-longest // 8) * 8
        shortest = width // 2 if width > 16 else 0
        alike = int(np.searchsorted(ascending, -shortest, side="right")) - start
        n_rows = max(1, min(batch_tokens // width, alike))
        if fixed_shapes:
            n_rows = 1 << (n_rows.bit_length() - 1)
        yield order[start : start + n_rows], width
        start += n_rows


def _check_texts(name: str, texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise BadInput(f"{name} is one text; a list of texts is expected")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadInput(f"{name}, row {row}: a text is expected, got {text!r} ({type(text).__name__})")
    return list(texts)


@contextmanager
def _reporter(progress: bool | Progress, what: str, total: int) -> Iterator[Progress]:
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda _: None
    else:
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(console=Console(file=sys.stderr), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda n_done: bar.advance(task, n_done)


# ---------------------------------------------------------------------------------------------------------------------
# The scorer
# ---------------------------------------------------------------------------------------------------------------------


class Scorer:
    """A loaded model folder. Not for use from several threads at once: its graph request is one and reused.

    `kind` is "bi_encoder" or "cross_encoder"; `precision` is what really runs ("fp32", "bf16" or "int8"), `max_length`
    the tokens of a text, or of a pair in a cross-encoder.
    """

    def __init__(
        self, path: Path, kind: ModelKind, engine: _Engine, head: Sequence[Any], max_length: int | None
    ) -> None:
        self.path, self.kind = path, kind
        self.runtime, self.precision, self.device = engine.runtime, engine.precision, engine.device
        self.max_length = _checked_length(max_length, engine)
        self.tokenizer = engine.tokenizer
        self._engine, self._head = engine, list(head)
        self._numpy_head = numpy_head(self._head) if isinstance(engine, _GraphEngine) else None
        self._prompts = _prompts(path)

    def __repr__(self) -> str:
        return f"Scorer({str(self.path)!r}, {self.kind}, {self.runtime} {self.precision}, max_length={self.max_length})"

    @cached_property
    def n_parameters(self) -> int:
        """Parameters of the transformer and of the head; of the torch architecture also where a graph runs."""
        head: int = sum(parameter.numel() for module in self._head for parameter in module.parameters())
        return self._engine.count_parameters() + head

    @property
    def embedding_width(self) -> int:
        """Width of a sentence embedding; of a cross-encoder, the number of scores a pair gets."""
        for module in reversed(self._head):
            if hasattr(module, "get_embedding_dimension"):
                return int(module.get_embedding_dimension())
        config = self._engine.config
        return int(config.num_labels if self.kind == "cross_encoder" else config.hidden_size)

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_tokens: int | None = None,
        progress: bool | Progress = False,
        prompt_name: str | None = None,
    ) -> np.ndarray:
        """Return sentence embeddings in the order of the texts; identical texts are encoded once.

        :param batch_tokens: padded tokens of one batch; None is the measured best of the runtime.
        :param progress: True for a bar on stderr, or a function that is told how many more unique texts are done.
        :param prompt_name: a prompt stored in the folder, such as "query"; None is the folder's default prompt, if any.
        :raises BadInput: for a cross-encoder, for what is no text (the row is named) and for an unknown prompt.

        *Shape:* result: (n_texts, embedding_width), float32
        """
        if self.kind != "bi_encoder":
            raise BadInput(f"{self.path} is a cross-encoder, it has no embeddings: use score(queries, documents)")
        prompt = self._prompt(prompt_name)
        return self._encode(_check_texts("texts", texts), prompt, batch_tokens, progress)

    def score(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        *,
        batch_tokens: int | None = None,
        progress: bool | Progress = False,
    ) -> np.ndarray:
        """Score pairs: the cosine for a bi-encoder, the raw logit for a cross-encoder (no sigmoid; `unit` applies one).

        A bi-encoder that stores prompts named "query" and "document" (or "passage", "corpus") has them applied, as
        stock `encode_query` and `encode_document` do. Its embeddings of all unique texts are held in memory.

        :raises BadInput: where the lists differ in length or hold what is no text, or the model gives several labels.

        *Shape:* queries, documents: n texts each; result: (n,), float32
        """
        left, right = _check_texts("queries", queries), _check_texts("documents", documents)
        if len(left) != len(right):
            raise BadInput(f"{len(left)} queries and {len(right)} documents; pairs are expected, one document a query")
        if self.kind == "cross_encoder":
            return self._score_jointly(left, right, batch_tokens, progress)
        return self._cosines(left, right, batch_tokens, progress)

    def encode_queries(self, texts: Sequence[str], *, progress: bool | Progress = False) -> np.ndarray:
        """Return embeddings under the stored query prompt, if any, as `score` uses them; see `encode`."""
        return self._encode(_check_texts("texts", texts), self._task_prompt(*_QUERY_PROMPTS), None, progress)

    def encode_documents(self, texts: Sequence[str], *, progress: bool | Progress = False) -> np.ndarray:
        """Return embeddings under the stored document prompt, if any, as `score` uses them; see `encode`."""
        return self._encode(_check_texts("texts", texts), self._task_prompt(*_DOCUMENT_PROMPTS), None, progress)

    def token_counts(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return how many tokens are read of each pair: together, or of both sides. *Shape:* (n_pairs,)."""
        from distill.tokens import tokenize

        if self.kind == "cross_encoder":
            return tokenize(self.tokenizer, queries, documents, max_length=self.max_length).lengths
        left, right = (tokenize(self.tokenizer, texts, max_length=self.max_length) for texts in (queries, documents))
        total: np.ndarray = left.lengths + right.lengths
        return total

    def unit(self, scores: np.ndarray) -> np.ndarray:
        """Map scores onto [0, 1]: (cosine + 1) / 2, or the sigmoid of the logit. *Shape:* that of scores, float32."""
        values = np.asarray(scores, dtype=np.float64)
        if self.kind == "bi_encoder":
            return np.clip((values + 1) / 2, 0, 1).astype(np.float32)
        return (0.5 * (1 + np.tanh(values / 2))).astype(np.float32)  # the sigmoid, without overflow

    def _cosines(
        self, queries: list[str], documents: list[str], batch_tokens: int | None, progress: bool | Progress
    ) -> np.ndarray:
        asked, told = self._task_prompt(*_QUERY_PROMPTS), self._task_prompt(*_DOCUMENT_PROMPTS)
        texts = [asked + text for text in queries] + [told + text for text in documents]
        unique, positions = _unique(texts)
        vectors = self._run(unique, None, batch_tokens, progress, "encoding")
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        left, right = positions[: len(queries)], positions[len(queries) :]
        parts = [
            np.einsum("ij,ij->i", vectors[left[i : i + _CHUNK]], vectors[right[i : i + _CHUNK]])
            for i in range(0, len(queries), _CHUNK)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)

    def _score_jointly(
        self, queries: list[str], documents: list[str], batch_tokens: int | None, progress: bool | Progress
    ) -> np.ndarray:
        if self.embedding_width != 1:
            raise BadInput(f"{self.path} gives {self.embedding_width} scores a pair; one is expected")
        return self._run(queries, documents, batch_tokens, progress, "scoring")[:, 0]

    def _encode(self, texts: list[str], prompt: str, batch_tokens: int | None, progress: bool | Progress) -> np.ndarray:
        unique, positions = _unique([prompt + text for text in texts] if prompt else texts)
        vectors = self._run(unique, None, batch_tokens, progress, "encoding")
        return vectors if len(unique) == len(texts) else vectors[positions]

    def _prompt(self, name: str | None) -> str:
        if name is None:
            name = self._prompts.get("default_prompt_name")
            return "" if name is None else self._prompts["prompts"][name]
        if name not in self._prompts["prompts"]:
            known = ", ".join(self._prompts["prompts"]) or "none"
            raise BadInput(f"{self.path} stores no prompt named {name}; stored: {known}")
        return str(self._prompts["prompts"][name])

    def _task_prompt(self, *names: str) -> str:
        stored = next((name for name in names if self._prompts["prompts"].get(name)), None)
        return self._prompt(stored)

    def _run(
        self,
        texts: Sequence[str],
        pair_texts: Sequence[str] | None,
        batch_tokens: int | None,
        progress: bool | Progress,
        what: str,
    ) -> np.ndarray:
        """Run texts, or pairs, chunk by chunk. *Shape:* result: (n_texts, embedding_width)."""
        out = np.empty((len(texts), self.embedding_width), dtype=np.float32)
        budget = batch_tokens or _BATCH_TOKENS["torch" if self.device == "cpu" else "cuda"]
        if batch_tokens is None and self.runtime != "torch":
            budget = _BATCH_TOKENS[self.runtime]
        quiet_blas = nullcontext() if self._numpy_head is None else one_blas_thread()
        with _reporter(progress, what, len(texts)) as report, quiet_blas:
            for start in range(0, len(texts), _CHUNK):
                part = slice(start, start + _CHUNK)
                self._run_chunk(
                    texts[part], None if pair_texts is None else pair_texts[part], budget, out[part], report
                )
        return out

    def _run_chunk(
        self, texts: Sequence[str], pair_texts: Sequence[str] | None, budget: int, out: np.ndarray, report: Progress
    ) -> None:
        from distill.tokens import tokenize

        table = tokenize(self.tokenizer, texts, pair_texts, max_length=self.max_length)
        batches = plan_batches(table.lengths, batch_tokens=budget, fixed_shapes=self._engine.fixed_shapes)
        for rows, width in batches:
            features = {name: tensor.numpy() for name, tensor in table.batch(rows, multiple=width).items()}
            out[rows] = self._forward(features)
            report(len(rows))

    def _forward(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Run transformer and head. *Shape:* features each (n_rows, n_padded); result: (n_rows, embedding_width)."""
        if isinstance(self._engine, _GraphEngine) and self._engine.is_whole:
            return self._engine.run_whole(features).reshape(len(features["input_ids"]), -1)
        if self._numpy_head is not None and isinstance(self._engine, _GraphEngine):
            return self._engine.run_to_end(features, self._numpy_head)
        import torch

        with torch.inference_mode():
            state = self._engine.run(features)
            for module in self._head:
                state = module(state)
            values: np.ndarray = state["scores" if self.kind == "cross_encoder" else "sentence_embedding"].cpu().numpy()
        return values.reshape(len(values), -1)


def _checked_length(wanted: int | None, engine: _Engine) -> int:
    if wanted is None:
        return engine.max_length
    if wanted < 3:
        raise BadInput(f"max_length {wanted} leaves no room for a text; 3 tokens are the least")
    positions = _length_limit({"max_seq_length": wanted}, engine.tokenizer, engine.config)
    if positions < wanted:
        raise BadInput(f"max_length {wanted} is more than the {positions} positions of the model; ask for no more")
    return wanted


def _prompts(folder: Path) -> dict[str, Any]:
    path = folder / "config_sentence_transformers.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {"prompts": config.get("prompts") or {}, "default_prompt_name": config.get("default_prompt_name")}


def _unique(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the different texts in order of appearance, and where each of the texts stands among them."""
    index: dict[str, int] = {}
    positions = np.fromiter((index.setdefault(text, len(index)) for text in texts), dtype=np.int64, count=len(texts))
    return list(index), positions
