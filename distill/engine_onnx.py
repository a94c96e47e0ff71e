"""ONNX graphs in ONNX Runtime."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.buckets import Batch
from distill.errors import BadInput
from distill.model_files import Precision, graph_output

__all__ = ["OnnxGraph", "open_onnx"]

_INT8_MARKS = (b"DequantizeLinear", b"MatMulInteger", b"DynamicQuantizeMatMul", b"QAttention")


@dataclass(frozen=True)
class OnnxGraph:
    """A session."""

    precision: str
    input_names: Sequence[str]
    output_name: str
    output_width: int
    session: Any

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yield every batch with the graph's output."""
        for batch in batches:
            given = {name: batch[1][name] for name in self.input_names}
            yield batch, self.session.run([self.output_name], given)[0]


def open_onnx(path: Path, precision: Precision | None, n_threads: int) -> OnnxGraph:
    """Open a graph in a session."""
    try:
        import onnxruntime
    except ImportError:
        raise BadInput(f"{path} needs onnxruntime; install it with: pip install 'matchdistill[onnx]'") from None
    if precision == "bf16":
        raise BadInput("ONNX Runtime has no bf16 on x86 CPUs; leave precision out, or use runtime: openvino")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    ports = {port.name: port.shape[-1] for port in session.get_outputs()}
    output = graph_output(path, list(ports))
    width = ports[output] if isinstance(ports[output], int) else 0
    return OnnxGraph(_precision(path), [port.name for port in session.get_inputs()], output, width, session)


def _precision(path: Path) -> str:
    """Look for operator names in the file: sessions do not list nodes, and the `onnx` package is no dependency."""
    content = path.read_bytes()
    return "int8" if any(mark in content for mark in _INT8_MARKS) else "fp32"
