"""How a graph is run on one machine, and where the measured best of that is kept.

`distill tune MODEL` measures (see `distill.tuning`) and stores the result beside the model in a hidden file, which is no
part of the model's revision, or in the cache where the folder is read-only. It is found again by CPU, threads, versions
and graph: moved to another machine, or exported anew, a model runs on the defaults until it is tuned again.
"""

import importlib.metadata
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from distill.artefact import content_hash, write_json
from distill.cache import GraphContent, cache_folder, machine_identity
from distill.errors import BadInput
from distill.model_files import ModelFiles, Precision, Runtime

__all__ = ["MODES", "Mode", "RunSettings", "read_settings", "settings_key", "store_settings"]

Mode = Literal["latency", "throughput"]
MODES = ("latency", "throughput")
_DEFAULT_BATCH_TOKENS = {"openvino": 1024, "onnx": 512}  # of a MiniLM; its widest states then take 6 MB, or 3
_MINILM_FEED_FORWARD = 1536


@dataclass(frozen=True)
class RunSettings:
    """What is chosen by measurement.

    `n_streams` requests of one call are computed side by side, each on its share of the threads, in calls of many
    batches; a call of one or two is computed on `n_latency_threads` threads together. `batch_tokens` are the padded
    tokens of a batch. `skip_layer_norm_fusion` is ONNX Runtime's, slower than the two operations that it fuses on some
    CPUs.
    """

    n_streams: int
    n_latency_threads: int
    batch_tokens: int
    skip_layer_norm_fusion: bool = True

    @classmethod
    def default(cls, files: ModelFiles, runtime: Runtime, n_threads: int) -> "RunSettings":
        """Return what is taken where nothing was measured: a narrow model fills the same memory with more tokens."""
        feed_forward = files.config.get("intermediate_size") or files.config.get("hidden_dim") or _MINILM_FEED_FORWARD
        least = _DEFAULT_BATCH_TOKENS[runtime]
        batch_tokens = max(least, min(4096, least * _MINILM_FEED_FORWARD // int(feed_forward)))
        return cls(n_threads, n_threads, batch_tokens, skip_layer_norm_fusion=runtime != "onnx")


def settings_key(files: ModelFiles, runtime: Runtime, precision: Precision | None, n_threads: int) -> str:
    """Return the hash of all that the fastest settings depend on; the path does not count, a folder may be moved."""
    graph = files.graph(runtime)
    assert graph is not None
    content = GraphContent([graph, graph.with_suffix(".bin")]).content
    package = {"openvino": "openvino", "onnx": "onnxruntime"}[runtime]
    version = importlib.metadata.version(package)
    return content_hash([machine_identity(), n_threads, runtime, version, precision, content])


def read_settings(files: ModelFiles, key: str) -> RunSettings | None:
    """Return the stored settings of a key, from beside the model or from the cache; None where there are none."""
    for path in _places(files, key):
        with suppress(OSError, ValueError, TypeError, KeyError):  # half written, or of another version: measured anew
            stored = json.loads(path.read_text(encoding="utf-8"))["settings"]
            return RunSettings(**{field.name: stored[field.name] for field in fields(RunSettings)})
    return None


def store_settings(files: ModelFiles, key: str, settings: RunSettings, measured: Any) -> Path:
    """Store settings with what was measured; return where.

    :raises BadInput: where neither the model folder nor the cache can be written
    """
    for path in _places(files, key):
        with suppress(OSError):
            write_json(path, {"settings": asdict(settings), "measured": measured})
            return path
    raise BadInput(f"{files.folder} is read-only and there is no cache folder; set MATCHDISTILL_CACHE to one")


def _places(files: ModelFiles, key: str) -> list[Path]:
    cache = cache_folder("tuning")
    return [files.folder / f".tuning-{key}.json", *([] if cache is None else [cache / f"{key}.json"])]
