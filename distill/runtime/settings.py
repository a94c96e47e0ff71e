"""How a graph is run on one machine, and where the measured best of that is kept.

`distill tune MODEL` measures (see `distill.runtime.tuning`) and stores the result beside the model in a hidden file, which is no
part of the model's revision, or in the cache where the folder is read-only. It is found again by CPU, threads, versions
and graph: moved to another machine, or exported anew, a model runs on the defaults until it is tuned again. How fast the
exports of one student are is stored in the folder that holds them, in the same way.
"""

import importlib.metadata
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from distill.errors import BadInput
from distill.files.artefact import content_hash, write_json
from distill.models.files import ModelFiles, Precision, Runtime
from distill.runtime.cache import GraphContent, cache_folder, machine_identity

__all__ = [
    "MODES",
    "Mode",
    "Opening",
    "RunSettings",
    "Speed",
    "read_settings",
    "read_speeds",
    "settings_key",
    "store_settings",
    "store_speeds",
]

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


@dataclass(frozen=True)
class Opening:
    """How a folder is opened: the checked arguments of `distill.runtime.opening.load`."""

    runtime: Runtime | None
    precision: Precision | None
    n_threads: int
    max_length: int | None
    device: str | None
    mode: Mode | None
    tune: bool | RunSettings | None
    truncate: int | None
    special_tokens_as_text: bool


def settings_key(files: ModelFiles, runtime: Runtime, precision: Precision | None, n_threads: int) -> str:
    """Return the hash of all that the fastest settings depend on; the path does not count, a folder may be moved."""
    graph = files.graph(runtime)
    assert graph is not None
    content = GraphContent([graph, graph.with_suffix(".bin")]).content
    package = {"openvino": "openvino", "onnx": "onnxruntime"}[runtime]
    version = importlib.metadata.version(package)
    return content_hash([machine_identity(), n_threads, runtime, version, precision, content])


@dataclass(frozen=True)
class Speed:
    """How fast one export ran, measured in turns with those beside it.

    `folder` is its name; `tokens_per_s` are tokens of many texts, `p50_ms` is the median time of a call of one text, without
    tokenisation, both medians. `judged` is False for a precision that was asked of a graph and passed no gate of its own:
    it is shown, and not taken.
    """

    folder: str
    runtime: Runtime
    precision: str
    tokens_per_s: float
    p50_ms: float
    judged: bool = True


def read_settings(files: ModelFiles, key: str) -> RunSettings | None:
    """Return the stored settings of a key, from beside the model or from the cache; None where there are none."""
    for path in _places(files.folder, "tuning", key):
        with suppress(OSError, ValueError, TypeError, KeyError):  # half written, or of another version: measured anew
            stored = json.loads(path.read_text(encoding="utf-8"))["settings"]
            return RunSettings(**{field.name: stored[field.name] for field in fields(RunSettings)})
    return None


def store_settings(files: ModelFiles, key: str, settings: RunSettings, measured: Any) -> Path:
    """Store settings with what was measured; return where.

    :raises BadInput: where neither the model folder nor the cache can be written
    """
    return _store(files.folder, "tuning", key, {"settings": asdict(settings), "measured": measured})


def read_speeds(folder: Path, key_of: Callable[[], str]) -> list[Speed] | None:
    """Return the stored speeds of the exports in a folder; None where there are none.

    :param key_of: gives their key; it reads every graph, and is asked only where something is stored at all
    """
    if not any(any(place.parent.glob(place.name)) for place in _places(folder, "speeds", "*")):
        return None
    for path in _places(folder, "speeds", key_of()):
        with suppress(OSError, ValueError, TypeError, KeyError):
            rows = [Speed(**row) for row in json.loads(path.read_text(encoding="utf-8"))["speeds"]]
            if rows and all(row.tokens_per_s > 0 and row.p50_ms > 0 for row in rows):
                return rows
    return None


def store_speeds(folder: Path, key: str, speeds: Sequence[Speed]) -> Path:
    """Store how fast the exports in a folder are; return where.

    :raises BadInput: where neither the folder nor the cache can be written
    """
    return _store(folder, "speeds", key, {"speeds": [asdict(speed) for speed in speeds]})


def _store(folder: Path, what: str, key: str, value: Any) -> Path:
    for path in _places(folder, what, key):
        with suppress(OSError):
            write_json(path, value)
            return path
    raise BadInput(f"{folder} is read-only and there is no cache folder; set MATCHDISTILL_CACHE to one")


_PREFIXES = {"tuning": "", "speeds": "speeds-"}  # of the cache's files


def _places(folder: Path, what: str, key: str) -> list[Path]:
    cache = cache_folder("tuning")
    return [folder / f".{what}-{key}.json", *([] if cache is None else [cache / f"{_PREFIXES[what]}{key}.json"])]
