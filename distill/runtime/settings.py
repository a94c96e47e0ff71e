"""The settings that a graph runs with on a machine, and where the measured best ones are stored.

`distill tune MODEL` measures (see `distill.runtime.tuning`) and stores the result beside the model in a hidden file,
which is not part of the model's revision, or in the cache if the folder is read-only. The key of the result is a hash
of CPU, threads, version and graph: on another machine, or after a new export, a model runs with the defaults until it
is tuned again. The speeds of a student's exports are stored in the same way, in the folder that holds the exports.
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
from distill.runtime.cache import GraphContent, cache_folder, graph_files, machine_identity

__all__ = [
    "MODES",
    "Mode",
    "Opening",
    "RunSettings",
    "Speed",
    "read_settings",
    "read_speeds",
    "settings_key",
    "settings_path",
    "speeds_path",
    "store_settings",
    "store_speeds",
]

Mode = Literal["latency", "throughput"]
MODES = ("latency", "throughput")
_DEFAULT_BATCH_TOKENS = {"openvino": 1024, "onnx": 512}  # for a MiniLM, whose widest states then take 6 MB, or 3
_MINILM_FEED_FORWARD = 1536
_MOST_THREADS, _MOST_BATCH_TOKENS = 1024, 65_536  # of stored settings


@dataclass(frozen=True)
class RunSettings:
    """The settings that are chosen by measurement.

    In a call with many batches, `n_streams` requests run in parallel, each on its share of the threads. In a call with
    few batches, each batch runs on `n_latency_threads` threads. `batch_tokens` is the number of padded tokens per
    batch. `skip_layer_norm_fusion` enables a fusion of ONNX Runtime that on some CPUs is slower than the two operations
    it fuses.
    """

    n_streams: int
    n_latency_threads: int
    batch_tokens: int
    skip_layer_norm_fusion: bool = True

    @classmethod
    def default(cls, files: ModelFiles, runtime: Runtime, n_threads: int) -> "RunSettings":
        """Return the settings without measurement; a narrow model gets more tokens per batch for the same memory."""
        feed_forward = files.config.get("intermediate_size") or files.config.get("hidden_dim") or _MINILM_FEED_FORWARD
        least = _DEFAULT_BATCH_TOKENS[runtime]
        batch_tokens = max(least, min(4096, least * _MINILM_FEED_FORWARD // int(feed_forward)))
        return cls(n_threads, n_threads, batch_tokens, skip_layer_norm_fusion=runtime != "onnx")


@dataclass(frozen=True)
class Opening:
    """The checked arguments of `distill.runtime.opening.load`."""

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
    """Return the hash of everything that the fastest settings depend on; the path is not part of it."""
    graph = files.graph(runtime)
    assert graph is not None
    content = GraphContent(graph_files(graph)).content
    package = {"openvino": "openvino", "onnx": "onnxruntime"}[runtime]
    version = importlib.metadata.version(package)
    return content_hash([machine_identity(), n_threads, runtime, version, precision, content])


@dataclass(frozen=True)
class Speed:
    """The measured speed of one export; the exports of a student are measured in turns.

    `folder` is the name of its folder. `tokens_per_s` is the median speed for many texts, and `p50_ms` is the median
    time of a call with one text; both are without tokenisation. `judged` is False if the graph ran in another precision
    than its own, which has passed no gate: that speed is shown but never chosen.
    """

    folder: str
    runtime: Runtime
    precision: str
    tokens_per_s: float
    p50_ms: float
    judged: bool = True


def read_settings(files: ModelFiles, key: str) -> RunSettings | None:
    """Return the stored settings of a key, from beside the model or from the cache; None if there are none."""
    for path in _places(files.folder, "tuning", key):
        with suppress(OSError, ValueError, TypeError, KeyError):  # a partial file, or of another version: ignore it
            stored = json.loads(path.read_text(encoding="utf-8"))["settings"]
            settings = RunSettings(**{field.name: stored[field.name] for field in fields(RunSettings)})
            if _is_possible(settings):
                return settings
    return None


def _is_possible(settings: RunSettings) -> bool:
    """Tell whether settings can have been measured; a downloaded folder may hold any."""
    n_threads = (settings.n_streams, settings.n_latency_threads)
    numbers = (*n_threads, settings.batch_tokens)
    return (
        all(type(number) is int and number >= 1 for number in numbers)
        and max(n_threads) <= _MOST_THREADS
        and settings.batch_tokens <= _MOST_BATCH_TOKENS
        and isinstance(settings.skip_layer_norm_fusion, bool)
    )


def store_settings(files: ModelFiles, key: str, settings: RunSettings, measured: Any) -> Path:
    """Store settings together with the measurements, and return the path.

    :raises BadInput: if neither the model folder nor the cache can be written
    """
    return _store(files.folder, "tuning", key, {"settings": asdict(settings), "measured": measured})


def read_speeds(folder: Path, key_of: Callable[[], str]) -> list[Speed] | None:
    """Return the stored speeds of the exports in a folder; None if there are none.

    :param key_of: returns their key; it reads every graph, so it is called only if any speeds are stored
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
    """Store the speeds of the exports in a folder, and return the path.

    :raises BadInput: if neither the folder nor the cache can be written
    """
    return _store(folder, "speeds", key, {"speeds": [asdict(speed) for speed in speeds]})


def settings_path(files: ModelFiles, key: str) -> Path | None:
    """Return the file that holds the settings of a key; None if there is none."""
    return _stored_path(files.folder, "tuning", key)


def speeds_path(folder: Path, key: str) -> Path | None:
    """Return the file that holds the speeds of the exports in a folder; None if there is none."""
    return _stored_path(folder, "speeds", key)


def _stored_path(folder: Path, what: str, key: str) -> Path | None:
    return next((path for path in _places(folder, what, key) if path.is_file()), None)


def _store(folder: Path, what: str, key: str, value: Any) -> Path:
    for path in _places(folder, what, key):
        with suppress(OSError):
            write_json(path, value)
            return path
    raise BadInput(f"{folder} is read-only and there is no cache folder; set MATCHDISTILL_CACHE to one")


_PREFIXES = {"tuning": "", "speeds": "speeds-"}  # of file names in the cache


def _places(folder: Path, what: str, key: str) -> list[Path]:
    cache = cache_folder("tuning")
    return [folder / f".{what}-{key}.json", *([] if cache is None else [cache / f"{_PREFIXES[what]}{key}.json"])]
