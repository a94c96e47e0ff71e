"""int8 on CPUs with and without VNNI, and how an export gives the same results on both.

    exact        products of 8 bits are summed in 32: VNNI (AVX-512 or AVX), AMX, ARM's dot products
    16 bits      AVX2 and AVX-512 without VNNI: two neighbouring products, u8 × s8, are first summed in 16 bits, and
                 sums above 32,767 are clipped ("saturation")

    weights of 8 bits: 255·127 + 255·127 = 64,770, clipped    weights of 7 bits: 255·64 + 255·64 = 32,640, never clipped

MiniLM-L6 with weights of 8 bits has a cosine to fp32 in Korean of .995 (exact) and .905 (16 bits); with 7 bits .994 in
both, and .998 with the rounding of `students.export.rounding`. If one CPU builds an index and another one queries it, the two would be mixed.

Exact arithmetic can be computed on any CPU: both runtimes have an option for it, see `int8_results`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill import runtime
from distill.data.tokens import tokenize
from distill.graphs.onnx import GRAPH, open_session
from distill.machine.cpu import cpu_class, cpu_model, multiplies_int8, usable_cpus
from distill.recipe.schema import ExportFormat
from students.export.agreement import rank_agreement
from students.export.calibration import as_read
from students.export.gate import TextPairs
from students.export.rounding import EXACT_OPTIONS, SAFE_CODE
from students.export.weights import constant_of, range_of

__all__ = ["Arithmetic", "compare_arithmetics", "greatest_code", "int8_results"]

_WIDTHS = 16  # tokens: OpenVINO keeps memory for each new length
_VNNI = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}


@dataclass(frozen=True)
class Arithmetic:
    """The difference between int8 on this CPU and exact int8, and whether it could be larger on another CPU.

    `judged` states it in words. Cosines are between a bi-encoder's embeddings. For a cross-encoder's logits,
    `rank_agreement` is Spearman's correlation and `difference` the greatest difference, in standard deviations of the
    logits.
    """

    cpu_class: str
    greatest_code: int
    """The greatest absolute weight of an int8 product."""
    overflow_safe: bool
    judged: str
    mean_cosine: float | None = None
    min_cosine: float | None = None
    rank_agreement: float | None = None
    difference: float | None = None


def compare_arithmetics(
    exported: runtime.Scorer, format: ExportFormat, pairs: TextPairs, n_threads: int | None
) -> Arithmetic | None:
    """Run held-out pairs through an int8 export, once as this CPU computes it, once with exact sums.

    :returns: None for an export without int8 products
    """
    code = greatest_code(exported.path, format)
    if code is None:
        return None
    safe = code <= SAFE_CODE
    details: dict[str, Any] = {
        "cpu_class": cpu_class(),
        "greatest_code": code,
        "overflow_safe": safe,
        "judged": _in_words(format, safe),
    }
    pairs = as_read(exported.kind, exported.path, pairs)
    texts: Sequence[str] = list(dict.fromkeys(text for pair in pairs for text in pair))
    documents: Sequence[str] | None = None
    if exported.kind == "cross_encoder":
        texts, documents = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    own, exact = (
        int8_results(exported, format, texts, documents, exact=exact, n_threads=n_threads) for exact in (False, True)
    )
    return Arithmetic(**(details | (_of_embeddings if documents is None else _of_logits)(own, exact)))


def _of_embeddings(own: np.ndarray, exact: np.ndarray) -> dict[str, float | None]:
    """*Shape:* (n_texts, width) each."""
    norms = np.linalg.norm(own, axis=1) * np.linalg.norm(exact, axis=1)
    cosines = (own * exact).sum(axis=1) / np.maximum(norms, 1e-24)
    return {"mean_cosine": float(cosines.mean()), "min_cosine": float(cosines.min())}


def _of_logits(own: np.ndarray, exact: np.ndarray) -> dict[str, float | None]:
    """*Shape:* (n_pairs, 1) each."""
    own_logits, exact_logits = own[:, 0], exact[:, 0]
    spread = max(float(exact_logits.std()), 1e-12)
    return {
        "rank_agreement": rank_agreement(exact_logits, own_logits),
        "difference": float(np.abs(own_logits - exact_logits).max()) / spread,
    }


def int8_results(
    exported: runtime.Scorer,
    format: ExportFormat,
    texts: Sequence[str],
    documents: Sequence[str] | None = None,
    *,
    exact: bool,
    n_threads: int | None = None,
) -> np.ndarray:
    """Return an int8 graph's result for each text or pair, run alone: as this CPU computes it, or exact.

    In OpenVINO exact sums use a private property of the CPU plugin, `LP_TRANSFORMS_MODE: NO`, which keeps the rounded
    numbers in float (the other order of float sums alone gives MiniLM-L6 cosines of .9995). In ONNX Runtime they use
    `session.x64quantprecision`, and are exact to the last bit.

    *Shape:* (n_texts, width), of a cross-encoder (n_pairs, 1); float64
    """
    table = tokenize(exported.tokenizer, texts, documents, max_length=exported.max_length)
    name = "sentence_embedding" if exported.kind == "bi_encoder" else "logits"
    run = (_openvino if format == "openvino" else _onnx)(exported.path, name, exact, n_threads)
    rows = []
    for row, length in enumerate(table.lengths):
        width = min(-(-int(length) // _WIDTHS) * _WIDTHS, max(exported.max_length, int(length)))
        rows.append(run(table.padded(np.array([row]), width)))
    return np.concatenate(rows).astype(np.float64)


_Run = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def _openvino(folder: Path, name: str, exact: bool, n_threads: int | None) -> _Run:
    import openvino

    # on a CPU that multiplies bf16 the float layers would be computed in bf16, but only int8 is compared here
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": n_threads or usable_cpus()}
    options |= EXACT_OPTIONS if exact else {}
    compiled = openvino.Core().compile_model(folder / "openvino" / "openvino_model.xml", "CPU", options)
    inputs = [next(input_name for input_name in port.get_names() if "/" not in input_name) for port in compiled.inputs]
    request = compiled.create_infer_request()

    def run(features: Mapping[str, np.ndarray]) -> np.ndarray:
        request.infer({input_name: features[input_name] for input_name in inputs})
        values: np.ndarray = request.get_tensor(name).data.copy()
        return values

    return run


def _onnx(folder: Path, name: str, exact: bool, n_threads: int | None) -> _Run:
    options = {"session.x64quantprecision": "1"} if exact else {}
    session = open_session(folder / GRAPH, n_threads=n_threads or usable_cpus(), options=options)
    inputs = [port.name for port in session.get_inputs()]
    return lambda features: session.run([name], {input_name: features[input_name] for input_name in inputs})[0]


def _in_words(format: ExportFormat, safe: bool) -> str:
    # ONEDNN_MAX_CPU_ISA, which multiplies_int8 heeds, means nothing to ONNX Runtime
    exact = bool(_VNNI & cpu_model()[1]) if format == "onnx" else multiplies_int8()
    if not exact:
        return f"sums in 16 bits, as this CPU ({cpu_class()}, no VNNI) computes them, and exact sums"
    effect = "which weights in 7 bits make equal" if safe else "in which weights in 8 bits saturate"
    return f"exact sums, on this CPU ({cpu_class()}); not run: sums in 16 bits (AVX2 without VNNI), {effect}"


# ---------------------------------------------------------------------------------------------------------------------
# The weights
# ---------------------------------------------------------------------------------------------------------------------


def greatest_code(folder: Path, format: ExportFormat) -> int | None:
    """Return the greatest absolute weight of a graph's int8 products; None if it has no such product."""
    codes = list(_codes_openvino(folder) if format == "openvino" else _codes_onnx(folder))
    return max((int(np.abs(values.astype(np.int32)).max()) for values in codes), default=None)


def _codes_openvino(folder: Path) -> Iterator[np.ndarray]:
    import openvino

    graph = openvino.Core().read_model(folder / "openvino" / "openvino_model.xml")
    for node in graph.get_ops():
        if node.get_type_name() == "MatMul" and range_of(node) is not None:
            yield constant_of(node.input_value(1).get_node()).data  # type: ignore[union-attr]


def _codes_onnx(folder: Path) -> Iterator[np.ndarray]:
    import onnx

    graph = onnx.load(str(folder / GRAPH)).graph
    initializers = {value.name: value for value in graph.initializer}
    unpacked = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type in ("MatMul", "MatMulInteger"):
            name = unpacked.get(node.input[1], node.input[1])
            if name in initializers and initializers[name].data_type == onnx.TensorProto.INT8:
                yield onnx.numpy_helper.to_array(initializers[name])
