"""OpenVINO graphs: compiled for this machine, run by requests that work side by side."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.buckets import Batch
from distill.model_files import ModelFiles, Precision, graph_output

__all__ = ["OpenVinoGraph", "open_openvino"]

_PRECISIONS: Mapping[str, str] = {"fp32": "f32", "bf16": "bf16"}
_LOW_PRECISION = ("i8", "u8", "i4", "u4", "nf4", "f8e4m3", "f8e5m2")


@dataclass(frozen=True)
class OpenVinoGraph:
    """A compiled graph and its requests, which are used again and again: a new one costs memory and time."""

    precision: str
    input_names: Sequence[str]
    output_name: str
    output_width: int
    requests: Sequence[Any]

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yield every batch with the graph's output, in order; while one is read the others are computed."""
        free, running = list(self.requests), deque[tuple[Any, Batch]]()
        try:
            for batch in batches:
                if not free:
                    request, done = running.popleft()
                    yield done, self._output(request)
                    free.append(request)
                request = free.pop()
                # the inputs are read where they lie: `running` keeps them until then
                request.start_async({name: batch[1][name] for name in self.input_names}, share_inputs=True)
                running.append((request, batch))
            while running:
                request, done = running.popleft()
                yield done, self._output(request)
        finally:
            for request, _ in running:
                request.wait()

    def _output(self, request: Any) -> np.ndarray:
        request.wait()
        # a view of the request's own memory, good until its next start
        values: np.ndarray = request.get_tensor(self.output_name).data
        return values


def open_openvino(path: Path, files: ModelFiles, precision: Precision | None, n_threads: int) -> OpenVinoGraph:
    """Compile a graph; `precision` None is what the folder pins, else the device's own choice."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    # where stock sentence-transformers looks for OpenVINO options, so that both run the same
    stored = (files.settings.get("model_kwargs") or {}).get("ov_config") or {}
    options = {"PERFORMANCE_HINT": "LATENCY", **stored, "INFERENCE_NUM_THREADS": n_threads}
    if precision is not None:
        options["INFERENCE_PRECISION_HINT"] = _PRECISIONS[precision]
    output = graph_output(path, [name for port in model.outputs for name in port.get_names()])
    compiled = core.compile_model(model, "CPU", options)
    shape = compiled.output(output).get_partial_shape()
    width = shape[len(shape) - 1]
    return OpenVinoGraph(
        _precision(model, compiled), [_name(port) for port in model.inputs], output,
        width.get_length() if width.is_static else 0, [compiled.create_infer_request()],
    )  # fmt: skip


def _precision(model: Any, compiled: Any) -> str:
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
