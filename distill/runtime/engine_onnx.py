"""Run graphs in ONNX Runtime, with one session for single calls and one that several threads call in parallel.

One call on many threads scales worse than parallel calls on one thread each. The fusion of addition and LayerNorm is
slower than the two operations on some CPUs. For 32 × 134 tokens through MiniLM int8, the defaults took 173 ms, and two
one-thread sessions without that fusion took 114 ms (AMD Zen 5). `distill.runtime.tuning` measures which is better here.

Threads stop spinning when a call ends, because they would occupy the cores of the tokenizer and of the other session.
For pairs that arrive at half of the capacity, this lowered the 99th percentile from 37–62 to 29–32 ms (three layers of
MiniLM, 2 cores).
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import BadInput
from distill.machine.forks import PerProcess
from distill.models.files import Precision, graph_output
from distill.runtime.buckets import PaddedBatch
from distill.runtime.cache import GraphContent, graph_files
from distill.runtime.settings import Mode, RunSettings

__all__ = ["OnnxGraph"]

_INT8_MARKS = (b"DequantizeLinear", b"MatMulInteger", b"DynamicQuantizeMatMul", b"QAttention")


class OnnxGraph:
    """A graph opened for single calls, for parallel calls, or (mode None) for each when it is first needed.

    A forked child opens its own sessions.
    """

    def __init__(
        self,
        path: Path,
        precision: Precision | None,
        n_threads: int,
        settings: RunSettings,
        mode: Mode | None,
        tokens_first: bool = False,
    ) -> None:
        if precision == "bf16":
            raise BadInput("ONNX Runtime has no bf16 on x86 CPUs; leave precision out, or use runtime: openvino")
        self._path, self._n_threads, self._settings, self._mode = path, n_threads, settings, mode
        self._opened = GraphContent(graph_files(path))
        self._for_one, self._for_many = PerProcess[Any](), PerProcess[Any]()
        session = self._side_by_side if mode == "throughput" else self._alone
        ports = {port.name: port.shape[-1] for port in session.get_outputs()}
        self.input_names = [port.name for port in session.get_inputs()]
        self.output_name = graph_output(path, list(ports), tokens_first=tokens_first)
        self.output_width = ports[self.output_name] if isinstance(ports[self.output_name], int) else 0
        self.precision = _precision(path)

    def run(self, batches: Iterable[PaddedBatch]) -> Iterator[tuple[PaddedBatch, np.ndarray]]:
        """Yield every batch with the graph's output, in order; parallel calls compute other batches meanwhile."""
        remaining = iter(batches)
        first = list(islice(remaining, 2 * self._settings.n_streams + 1))
        in_parallel = self._mode == "throughput" or (self._mode is None and len(first) > 2 * self._settings.n_streams)
        if in_parallel and self._settings.n_streams > 1:
            return self._run_side_by_side(chain(first, remaining))
        session = self._alone
        return ((batch, self._call(session, batch)) for batch in chain(first, remaining))

    @property
    def _alone(self) -> Any:
        return self._for_one.get(lambda: self._open(self._settings.n_latency_threads))

    @property
    def _side_by_side(self) -> Any:
        return self._for_many.get(lambda: self._open(max(1, self._n_threads // self._settings.n_streams)))

    def _open(self, n_threads: int) -> Any:
        self._opened.check()
        try:
            import onnxruntime
        except ImportError:
            raise BadInput(f"{self._path} needs onnxruntime: pip install 'matchdistill[onnx]'") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if not self._settings.skip_layer_norm_fusion:
            options.add_session_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
        return onnxruntime.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])

    def _call(self, session: Any, batch: PaddedBatch) -> np.ndarray:
        inputs = {name: batch[1][name] for name in self.input_names}
        values: np.ndarray = session.run([self.output_name], inputs)[0]
        return values

    def _run_side_by_side(self, batches: Iterable[PaddedBatch]) -> Iterator[tuple[PaddedBatch, np.ndarray]]:
        session, running = self._side_by_side, deque[tuple[PaddedBatch, Future[np.ndarray]]]()
        with ThreadPoolExecutor(self._settings.n_streams) as threads:
            for batch in batches:
                running.append((batch, threads.submit(self._call, session, batch)))
                # one batch more than threads: no thread waits while the next batch is padded
                if len(running) > self._settings.n_streams:
                    finished_batch, values = running.popleft()
                    yield finished_batch, values.result()
            for finished_batch, values in running:
                yield finished_batch, values.result()


def _precision(path: Path) -> str:
    """Return the precision by the operator names in the file: sessions do not list nodes, and `onnx` may be missing."""
    content = path.read_bytes()
    return "int8" if any(mark in content for mark in _INT8_MARKS) else "fp32"
