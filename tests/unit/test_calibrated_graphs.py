"""A calibration behind a graph's logits, in both formats: the sigmoid of the result is the calibrated probability."""

import numpy as np
import pytest

from distill.errors import BadInput
from distill.graphs.calibrated import calibrate_onnx, calibrate_openvino, calibrated_logits
from distill.metrics.calibration import Calibration
from distill.metrics.logistic import sigmoid

CALIBRATIONS = {
    "platt": Calibration("platt", "cross_encoder", slope=2.0, bias=-1.0),
    "temperature": Calibration("temperature", "cross_encoder", slope=0.5),
    "isotonic": Calibration("isotonic", "cross_encoder", steps=((-2.0, 0.0, 0.5, 3.0), (0.1, 0.1, 0.6, 0.9))),
    "isotonic to 0 and 1": Calibration("isotonic", "cross_encoder", steps=((-1.0, 1.0), (0.0, 1.0))),
}
LOGITS = np.array([[-9.0], [-2.0], [-1.0], [0.0], [0.25], [0.5], [1.75], [3.0], [9.0]], dtype=np.float32)


def test_worked_values():
    """Platt: 2 · 0.25 − 1; isotonic: 0.25 lies in the middle of 0.1 and 0.6, 1.75 in that of 0.6 and 0.9."""
    assert calibrated_logits(CALIBRATIONS["platt"], np.array([0.25])).tolist() == [-0.5]
    found = sigmoid(calibrated_logits(CALIBRATIONS["isotonic"], np.array([-9.0, 0.25, 1.75, 9.0])))
    np.testing.assert_allclose(found, [0.1, 0.35, 0.75, 0.9])


def onnx_graph(path, output="logits"):
    import onnx
    from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

    values = [make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 1]) for name in ("x", output)]
    graph = make_graph([make_node("Identity", ["x"], [output])], "one", values[:1], values[1:])
    onnx.save_model(make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=10), str(path))


def openvino_graph(path, output="logits"):
    import openvino
    from openvino import opset13 as ops

    given = ops.parameter([-1, 1], np.float32, name="x")
    result = ops.relu(given) if output != "logits" else ops.add(given, np.float32(0))
    result.output(0).get_tensor().set_names({output})
    openvino.save_model(openvino.Model([ops.result(result)], [given], "one"), path, compress_to_fp16=False)


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_an_onnx_graph_gives_calibrated_logits(name, tmp_path):
    import onnxruntime

    onnx_graph(tmp_path / "model.onnx")
    calibrate_onnx(tmp_path / "model.onnx", CALIBRATIONS[name])
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"x": LOGITS})
    agrees(found, name)
    assert [port.name for port in session.get_outputs()] == ["logits"]


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_an_openvino_graph_gives_calibrated_logits(name, tmp_path):
    import openvino

    openvino_graph(tmp_path / "one.xml")
    calibrate_openvino(tmp_path / "one.xml", tmp_path / "two.xml", CALIBRATIONS[name])
    compiled = openvino.Core().compile_model(tmp_path / "two.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    agrees(compiled([LOGITS])["logits"], name)
    assert len(compiled.outputs) == 1


def agrees(found, name):
    calibration = CALIBRATIONS[name]
    np.testing.assert_allclose(found, calibrated_logits(calibration, LOGITS), atol=1e-3 if "0 and 1" in name else 1e-5)
    np.testing.assert_allclose(sigmoid(found), calibration(LOGITS), atol=2e-6)


def test_steps_that_float32_does_not_tell_apart_are_refused(tmp_path):
    onnx_graph(tmp_path / "model.onnx")
    close = Calibration("isotonic", "cross_encoder", steps=((0.1, 0.1 + 1e-9, 0.3), (0.2, 0.8, 0.9)))
    with pytest.raises(BadInput, match="closer together than float32"):
        calibrate_onnx(tmp_path / "model.onnx", close)


def test_a_graph_without_logits_is_refused(tmp_path):
    onnx_graph(tmp_path / "model.onnx", "sentence_embedding")
    openvino_graph(tmp_path / "one.xml", "sentence_embedding")
    with pytest.raises(BadInput, match="gives no logits"):
        calibrate_onnx(tmp_path / "model.onnx", CALIBRATIONS["platt"])
    with pytest.raises(BadInput, match="gives no logits"):
        calibrate_openvino(tmp_path / "one.xml", tmp_path / "two.xml", CALIBRATIONS["platt"])
