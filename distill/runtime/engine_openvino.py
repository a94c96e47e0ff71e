"""Run OpenVINO graphs: compiled once for this machine, run by parallel requests."""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from distill.machine.cpu import multiplies_bf16
from distill.machine.forks import PerProcess
from distill.models.files import ModelFiles, Precision, graph_output
from distill.runtime.buckets import PaddedBatch
from distill.runtime.cache import GraphContent, cached, graph_files, machine_identity
from distill.runtime.settings import Mode, RunSettings

__all__ = ["OpenVinoGraph"]

_PRECISIONS: Mapping[str, str] = {"fp32": "f32", "bf16": "bf16"}
# a scalar of a small type may be a mask or a flag; a matrix is a weight
_INT8 = re.compile(rb'type="FakeQuantize"|element_type="(?:i8|u8|i4|u4|nf4|f8e4m3|f8e5m2)" shape="\d+, ?\d+')
_INT4 = re.compile(rb'element_type="(?:i4|u4)" shape="\d+, ?\d+')
_Compiled = tuple[Any, Sequence[Any]]  # a compiled model and its requests


class OpenVinoGraph:
    """A graph compiled for single requests, for parallel requests, or (mode None) for each when it is first needed.

    Requests are reused, because a new one costs memory and time. A forked child compiles its own graph.
    """

    def __init__(
        self,
        files: ModelFiles,
        precision: Precision | None,
        n_threads: int,
        settings: RunSettings,
        mode: Mode | None,
        tokens_first: bool = False,
    ) -> None:
        path = files.graph("openvino")
        assert path is not None, "open_graph has looked"
        self._core, self._path, self._mode = PerProcess[Any](), path, mode
        self._n_threads, self._settings = n_threads, settings
        # the OpenVINO options that stock sentence-transformers uses, so that both compute the same
        self._options = {**(files.model_options.get("ov_config") or {})}
        if precision is not None:
            self._options["INFERENCE_PRECISION_HINT"] = _PRECISIONS[precision]
        elif not multiplies_bf16():  # OpenVINO itself ignores ONEDNN_MAX_CPU_ISA, unlike oneDNN
            self._options.setdefault("INFERENCE_PRECISION_HINT", "f32")
        self._opened = GraphContent(graph_files(path))
        self._for_one, self._for_many = PerProcess[_Compiled](), PerProcess[_Compiled]()
        compiled = self._side_by_side if self._takes_streams else self._alone
        self.input_names = [_name(port) for port in compiled[0].inputs]
        outputs = [name for port in compiled[0].outputs for name in port.get_names()]
        self.output_name = graph_output(path, outputs, tokens_first=tokens_first)
        width = compiled[0].output(self.output_name).get_partial_shape()[-1]
        self.output_width = int(width.get_length()) if width.is_static else 0
        self.precision = _precision(path, compiled[0])

    def run(self, batches: Iterable[PaddedBatch]) -> Iterator[tuple[PaddedBatch, np.ndarray]]:
        """Yield every batch with the graph's output, in order; other batches are computed meanwhile."""
        remaining = iter(batches)
        first = list(islice(remaining, 2 * self._settings.n_streams + 1))
        in_parallel = self._takes_streams or (self._mode is None and len(first) > 2 * self._settings.n_streams)
        requests = (self._side_by_side if in_parallel else self._alone)[1]
        return self._run(requests, chain(first, remaining))

    @property
    def _takes_streams(self) -> bool:
        return self._mode == "throughput"

    @property
    def _alone(self) -> _Compiled:
        return self._for_one.get(lambda: self._compile(1, self._settings.n_latency_threads))

    @property
    def _side_by_side(self) -> _Compiled:
        if self._settings.n_streams == 1 and self._settings.n_latency_threads == self._n_threads:
            return self._alone
        return self._for_many.get(lambda: self._compile(self._settings.n_streams, self._n_threads))

    def _compile(self, n_streams: int, n_threads: int) -> _Compiled:
        import openvino

        self._opened.check()
        core = self._core.get(openvino.Core)
        options = {**self._options, "NUM_STREAMS": n_streams, "INFERENCE_NUM_THREADS": n_threads}

        def make(folder: Path | None) -> Any:
            kept = {} if folder is None else {"CACHE_DIR": str(folder)}
            return core.compile_model(str(self._path), "CPU", {**options, **kept})

        # a hidden folder is still being written and will get another name
        if self._opened.is_large or self._path.parent.parent.name.startswith("."):
            compiled = make(None)
        else:
            # OpenVINO identifies cached models by path, size and time, which can be equal for two trainings
            compiled = cached("openvino", [self._opened.identity(), options, machine_identity(), _version()], make)
        # one request more than streams: no stream waits while a result is read and the next batch is padded
        return compiled, [compiled.create_infer_request() for _ in range(n_streams + (n_streams > 1))]

    def _run(self, requests: Sequence[Any], batches: Iterable[PaddedBatch]) -> Iterator[tuple[PaddedBatch, np.ndarray]]:
        free, running = list(requests), deque[tuple[Any, PaddedBatch]]()
        try:
            for batch in batches:
                if not free:
                    request, finished_batch = running.popleft()
                    yield finished_batch, self._output(request)
                    free.append(request)
                request = free.pop()
                # inputs are not copied; `running` keeps them alive until the request is done
                request.start_async({name: batch[1][name] for name in self.input_names}, share_inputs=True)
                running.append((request, batch))
            while running:
                request, finished_batch = running.popleft()
                yield finished_batch, self._output(request)
        finally:
            for request, _ in running:
                request.wait()

    def _output(self, request: Any) -> np.ndarray:
        request.wait()
        # a view of the request's memory, valid until its next start
        values: np.ndarray = request.get_tensor(self.output_name).data
        return values


def _version() -> str:
    import openvino

    return str(openvino.get_version())


def _precision(path: Path, compiled: Any) -> str:
    """Return the precision that really runs: the smallest integer type in the graph, else the plugin's choice."""
    graph = path.read_bytes()
    if _INT4.search(graph):
        return "int4"
    if _INT8.search(graph):
        return "int8"
    hint: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return {"f32": "fp32", "f16": "fp16"}.get(hint, hint)


def _name(port: Any) -> str:
    name: str = min(port.get_names(), key=lambda name: ("/" in name, name))  # a port may also have inner names
    return name
