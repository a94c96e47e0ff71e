"""Put a calibration into a cross-encoder's graph, so that the sigmoid of its output is the calibrated probability.

    platt, temperature   slope · logit + bias
    isotonic             log(p / (1 − p)) of p = p₀ + Σᵢ mᵢ · (clip(logit, xᵢ, xᵢ₊₁) − xᵢ), linear between its steps

The output keeps its name. Programs that do not know about the calibration, such as sentence-transformers and
text-embeddings-inference, apply a sigmoid to the logit of a model with one label.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import BadInput
from distill.graphs.onnx import save_onnx
from distill.metrics.calibration import Calibration
from distill.metrics.logistic import logit

__all__ = ["calibrate_onnx", "calibrate_openvino", "calibrated_logits"]

_RESULT = "logits"
_BEFORE = "logits_before_calibration"
_CLIP = 2.0**-20  # probabilities are clipped by this: logits stay within ±13.9, and float32 can represent 1 − 2⁻²⁰


def calibrated_logits(calibration: Calibration, logits: np.ndarray) -> np.ndarray:
    """Return the output of a calibrated graph for given logits. *Shape:* that of logits."""
    if calibration.kind != "isotonic":
        return calibration.slope * logits + calibration.bias
    probabilities = np.clip(calibration(logits), _CLIP, 1 - _CLIP)
    return logit(probabilities)


def _segments(calibration: Calibration) -> Mapping[str, np.ndarray]:
    """Return the segments of an isotonic calibration. *Shape:* low, high, rise: (n_steps − 1,); first: ().

    :raises BadInput: if two steps are equal in float32, in which the graph computes
    """
    scores, probabilities = (np.array(side) for side in calibration.steps)
    if (np.diff(scores.astype(np.float32)) <= 0).any():
        raise BadInput("the calibration has steps closer together than float32 tells apart; fit it again")
    rise = np.diff(probabilities) / np.diff(scores)
    found = {"low": scores[:-1], "high": scores[1:], "rise": rise, "first": probabilities[0]}
    return {name: values.astype(np.float32) for name, values in found.items()}


def calibrate_onnx(path: Path, calibration: Calibration) -> None:
    """Add a calibration after the logits of an ONNX graph, in place.

    :raises BadInput: if the graph has no logits
    """
    import onnx

    model = onnx.load(str(path))
    if _RESULT not in {output.name for output in model.graph.output}:
        raise BadInput(f"{path} gives no {_RESULT}, and a calibration is put behind those of a cross-encoder")
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [_BEFORE if name == _RESULT else name for name in names]
    constants, nodes = _onnx_line(calibration) if calibration.kind == "isotonic" else _onnx_affine(calibration)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    model.graph.node.extend(nodes)
    save_onnx(model, path)


def _onnx_affine(calibration: Calibration) -> tuple[dict[str, np.ndarray], list[Any]]:
    from onnx.helper import make_node

    constants = {"calibration_slope": calibration.slope, "calibration_bias": calibration.bias}
    nodes = [
        make_node("Mul", [_BEFORE, "calibration_slope"], ["calibration_scaled"]),
        make_node("Add", ["calibration_scaled", "calibration_bias"], [_RESULT]),
    ]
    return {name: np.float32(value) for name, value in constants.items()}, nodes  # type: ignore[misc]


def _onnx_line(calibration: Calibration) -> tuple[dict[str, np.ndarray], list[Any]]:
    from onnx.helper import make_node

    constants: dict[str, Any] = {f"calibration_{name}": values for name, values in _segments(calibration).items()}
    constants |= {"calibration_least": np.float32(_CLIP), "calibration_most": np.float32(1 - _CLIP)}
    constants |= {"calibration_one": np.float32(1), "calibration_axis": np.array([-1], dtype=np.int64)}
    steps = [
        ("Max", [_BEFORE, "low"], "raised"),
        ("Min", ["raised", "high"], "clipped"),
        ("Sub", ["clipped", "low"], "along"),
        ("Mul", ["along", "rise"], "risen"),
        ("ReduceSum", ["risen", "axis"], "sum"),
        ("Add", ["sum", "first"], "line"),
        ("Max", ["line", "least"], "above"),
        ("Min", ["above", "most"], "probability"),
        ("Sub", ["one", "probability"], "rest"),
        ("Log", ["probability"], "log"),
        ("Log", ["rest"], "log_rest"),
        ("Sub", ["log", "log_rest"], _RESULT),
    ]
    graph_names = {_BEFORE: _BEFORE, _RESULT: _RESULT}
    nodes = [
        make_node(
            kind,
            [graph_names.get(name, f"calibration_{name}") for name in inputs],
            [graph_names.get(output, f"calibration_{output}")],
        )
        for kind, inputs, output in steps
    ]
    return constants, nodes


def calibrate_openvino(source: Path, target: Path, calibration: Calibration) -> None:
    """Write an OpenVINO graph with a calibration after its logits; both paths name an .xml file.

    :raises BadInput: if the graph has no logits
    """
    import openvino

    model = openvino.Core().read_model(source)
    result = next((port for port in model.outputs if _RESULT in port.get_names()), None)
    if result is None:
        raise BadInput(f"{source} gives no {_RESULT}, and a calibration is put behind those of a cross-encoder")
    logits = result.get_node().input_value(0)
    logits.get_tensor().set_names({_BEFORE})
    calibrated = (
        _openvino_line(calibration, logits) if calibration.kind == "isotonic" else _openvino_affine(calibration, logits)
    )
    calibrated.output(0).get_tensor().set_names({_RESULT})
    model.add_results([openvino.opset13.result(calibrated)])
    model.remove_result(result.get_node())
    model.validate_nodes_and_infer_types()
    openvino.save_model(model, target, compress_to_fp16=False)


def _openvino_affine(calibration: Calibration, logits: Any) -> Any:
    from openvino import opset13 as ops

    return ops.add(ops.multiply(logits, np.float32(calibration.slope)), np.float32(calibration.bias))


def _openvino_line(calibration: Calibration, logits: Any) -> Any:
    from openvino import opset13 as ops

    segments = _segments(calibration)
    offsets = ops.subtract(ops.minimum(ops.maximum(logits, segments["low"]), segments["high"]), segments["low"])
    line = ops.add(
        ops.reduce_sum(ops.multiply(offsets, segments["rise"]), np.array([-1]), keep_dims=True), segments["first"]
    )
    probability = ops.clamp(line, _CLIP, 1 - _CLIP)
    return ops.subtract(ops.log(probability), ops.log(ops.subtract(np.float32(1), probability)))
