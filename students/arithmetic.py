"""Two classes of CPU, two arithmetics of int8, and how an export comes to the same in both.

    exact        products of 8 bits are summed in 32: VNNI (AVX-512 or AVX), AMX, ARM's dot products
    16 bits      AVX2 and AVX-512 without VNNI: each two neighbouring products, u8 × s8, are summed in 16 bits first, and
                 what is beyond 32,767 is cut off there ("saturation")

    255·127 + 255·127 = 64,770: cut off, weights of 8 bits        255·64 + 255·64 = 32,640: never, weights of 7 bits

MiniLM-L6 with weights of 8 bits, cosine to fp32 in Korean: .995 exact and .905 with 16 bits; with 7 bits .994 in both. An index
that one CPU has built and another one is asked from would mix the two.

Exact arithmetic needs no other CPU: the same rounded numbers are multiplied in float, in a twin of the folder.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from distill import runtime
from distill.machine import cpu_class, cpu_model, multiplies_int8
from distill.onnx import GRAPH, save_onnx
from distill.recipe import ExportFormat
from students.agreement import rank_agreement
from students.gate import Pairs
from students.weights import constant_of

__all__ = ["SAFE_CODE", "Arithmetic", "compare_arithmetics", "exact_twin", "greatest_code"]

SAFE_CODE = 64
"""Weights up to this (7 bits) cannot saturate: 2 · 255 · 64 = 32,640 is less than 2¹⁵."""
_PLACE = ".exact."
_VNNI = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}


@dataclass(frozen=True)
class Arithmetic:
    """How far int8 as this CPU computes it is from exact int8, and whether another CPU could be further away.

    `judged` says it in words. Cosines are of a bi-encoder's embeddings; of a cross-encoder's logits `rank_agreement` is
    Spearman's correlation and `difference` the greatest difference, in standard deviations of the logits.
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
    exported: runtime.Scorer, format: ExportFormat, pairs: Pairs, n_threads: int | None
) -> Arithmetic | None:
    """Run held-back pairs through an int8 export as this CPU computes it, and through its exact twin.

    :returns: None for an export without int8 products
    """
    code = greatest_code(exported.path, format)
    if code is None:
        return None
    safe = code <= SAFE_CODE
    told: dict[str, Any] = {
        "cpu_class": cpu_class(),
        "greatest_code": code,
        "overflow_safe": safe,
        "judged": _in_words(format, safe),
    }
    # on a CPU that multiplies bf16 the float remainder is computed in it: what is compared here is int8
    own = runtime.load(
        exported.path, runtime=format, precision="fp32" if format == "openvino" else None, n_threads=n_threads
    )
    with exact_twin(exported.path, format) as folder:
        exact = runtime.load(folder, runtime=format, n_threads=n_threads)
        own.side = exact.side = exported.side
        compare = _of_logits if exported.kind == "cross_encoder" else _of_embeddings
        return Arithmetic(**told, **compare(own, exact, pairs))


def _of_embeddings(own: runtime.Scorer, exact: runtime.Scorer, pairs: Pairs) -> dict[str, float | None]:
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    left, right = (scorer.encode(texts).astype(np.float64) for scorer in (own, exact))
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines = (left * right).sum(axis=1) / np.maximum(norms, 1e-24)
    return {"mean_cosine": float(cosines.mean()), "min_cosine": float(cosines.min())}


def _of_logits(own: runtime.Scorer, exact: runtime.Scorer, pairs: Pairs) -> dict[str, float | None]:
    queries, documents = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    left, right = (scorer.score(queries, documents).astype(np.float64) for scorer in (own, exact))
    spread = max(float(right.std()), 1e-12)
    return {"rank_agreement": rank_agreement(right, left), "difference": float(np.abs(left - right).max()) / spread}


def _in_words(format: ExportFormat, safe: bool) -> str:
    # ONEDNN_MAX_CPU_ISA, which multiplies_int8 heeds, means nothing to ONNX Runtime
    exact = bool(_VNNI & cpu_model()[1]) if format == "onnx" else multiplies_int8()
    if not exact:
        return f"sums in 16 bits, as this CPU ({cpu_class()}, no VNNI) computes them, and exact sums, computed in float"
    other = "which weights in 7 bits make equal" if safe else "in which weights in 8 bits saturate"
    return (
        f"exact sums, on this CPU ({cpu_class()}) and in float; not run: sums in 16 bits (AVX2 without VNNI), {other}"
    )


# ---------------------------------------------------------------------------------------------------------------------
# The twin
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def exact_twin(folder: Path, format: ExportFormat) -> Iterator[Path]:
    """Yield a copy of an int8 export that multiplies its rounded numbers in float: what exact int8 comes to, on any CPU.

    In OpenVINO the low-precision transformations of the plugin are left out (`LP_TRANSFORMS_MODE`, a private property);
    in ONNX the weights are unpacked beforehand, so that there is nothing to fuse into integer products.
    """
    with TemporaryDirectory(
        dir=folder, prefix=_PLACE
    ) as place:  # inside: it goes with the folder where a process is killed
        twin = Path(place) / ".twin"  # hidden: its compiled graph is not kept
        shutil.copytree(folder, twin, copy_function=_linked, ignore=shutil.ignore_patterns(f"{_PLACE}*"))
        if format == "openvino":
            _say_no_transformations(twin)
        else:
            _unpack_weights(twin / GRAPH)
        yield twin


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _say_no_transformations(twin: Path) -> None:
    path = twin / "sentence_bert_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["model_args"] = {"ov_config": {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"}}
    path.unlink()  # it is the export's own file
    path.write_text(json.dumps(settings), encoding="utf-8")


def _unpack_weights(path: Path) -> None:
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    stored = {value.name: value for value in graph.initializer}
    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            graph.initializer.append(onnx.numpy_helper.from_array(_unpacked(node, stored), node.output[0]))
        elif node.op_type == "MatMulInteger":
            nodes += _in_float(graph, node, stored)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    for old in path.parent.iterdir():
        old.unlink()
    save_onnx(model, path)


def _unpacked(node: Any, stored: dict[str, Any]) -> np.ndarray:
    """Return a weight in float. *Shape:* that of the weight."""
    import onnx

    codes, scale, *zero = (onnx.numpy_helper.to_array(stored[name]).astype(np.float32) for name in node.input)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    shape = [1] * codes.ndim
    if scale.ndim:
        shape[axis] = -1
    offset = zero[0].reshape(shape) if zero else np.float32(0)
    values: np.ndarray = (codes - offset) * scale.reshape(shape)
    return values.astype(np.float32)


def _in_float(graph: Any, node: Any, stored: dict[str, Any]) -> list[Any]:
    """Return what computes an integer product in float; whoever reads it turns it into float anyway."""
    import onnx

    inputs, weight, zero_of_inputs, *zero_of_weight = node.input
    codes = onnx.numpy_helper.to_array(stored[weight]).astype(np.float32)
    if zero_of_weight:
        codes = codes - onnx.numpy_helper.to_array(stored[zero_of_weight[0]]).astype(np.float32)
    result = node.output[0]
    names = [f"{result}_{part}" for part in ("weight", "codes", "zero", "shifted")]
    graph.initializer.append(onnx.numpy_helper.from_array(codes, names[0]))
    make, kind = onnx.helper.make_node, onnx.TensorProto.FLOAT
    return [
        make("Cast", [inputs], [names[1]], to=kind),
        make("Cast", [zero_of_inputs], [names[2]], to=kind),
        make("Sub", names[1:3], [names[3]]),
        make("MatMul", [names[3], names[0]], [result]),
    ]


# ---------------------------------------------------------------------------------------------------------------------
# What the weights are
# ---------------------------------------------------------------------------------------------------------------------


def greatest_code(folder: Path, format: ExportFormat) -> int | None:
    """Return the greatest absolute weight that an int8 product of a graph has; None where there is no such product."""
    codes = list(_codes_openvino(folder) if format == "openvino" else _codes_onnx(folder))
    return max((int(np.abs(values.astype(np.int32)).max()) for values in codes), default=None)


def _codes_openvino(folder: Path) -> Iterator[np.ndarray]:
    import openvino

    graph = openvino.Core().read_model(folder / "openvino" / "openvino_model.xml")
    for node in graph.get_ops():
        if node.get_type_name() != "MatMul":
            continue
        if node.input_value(0).get_node().get_type_name() != "FakeQuantize":
            continue  # weights alone in 8 bits: the product is in float
        constant = constant_of(node.input_value(1).get_node())
        if constant is not None and constant.get_element_type().get_type_name() == "i8":
            yield constant.data


def _codes_onnx(folder: Path) -> Iterator[np.ndarray]:
    import onnx

    graph = onnx.load(str(folder / GRAPH)).graph
    stored = {value.name: value for value in graph.initializer}
    unpacked = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type in ("MatMul", "MatMulInteger"):
            name = unpacked.get(node.input[1], node.input[1])
            if name in stored and stored[name].data_type == onnx.TensorProto.INT8:
                yield onnx.numpy_helper.to_array(stored[name])
