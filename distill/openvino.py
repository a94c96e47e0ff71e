"""OpenVINO graphs of model folders: traced, pinned to a precision, written as whole sentence-transformers folders.

Only the transformer becomes a graph; pooling, Dense and Normalize stay the modules they were. The pin is kept where
stock sentence-transformers reads OpenVINO options, in `sentence_bert_config.json`.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from distill.artefact import check_model_folder, new_folder
from distill.modeling import quiet

__all__ = ["GraphPrecision", "copy_without_weights", "export_graph", "pin_precision", "save_graph", "trace"]

GraphPrecision = Literal["fp32", "bf16", "int8"]
_NOT_COPIED = (
    "model*.safetensors", "model.safetensors.index.json", "pytorch_model*", "*.onnx", "*.onnx_data", "openvino_model*",
    "artefact.json", "training_args.bin", "optimizer.pt", "scheduler.pt", "trainer_state.json", "checkpoint-*",
)  # fmt: skip
_NOT_COPIED_FOLDERS = ("openvino", "onnx")
_STORED_HINT: Mapping[str, str] = {"fp32": "f32", "bf16": "bf16"}


def export_graph(source: Path, target: Path, precision: GraphPrecision) -> None:
    """Write `target`: the folder `source` with its transformer as a graph, unchecked; labelling uses it."""
    with new_folder(target) as folder:
        copy_without_weights(source, folder)
        pin_precision(folder, precision)
        save_graph(trace(source), folder)


def copy_without_weights(source: Path, folder: Path) -> None:
    """Copy all but the transformer's weights and graphs; those of Dense modules, in their own folders, come along."""
    for path in sorted(source.iterdir()):
        if path.name.startswith(".") or any(path.match(pattern) for pattern in _NOT_COPIED):
            continue
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
        elif path.name not in _NOT_COPIED_FOLDERS:
            shutil.copytree(path, folder / path.name)


def pin_precision(folder: Path, precision: GraphPrecision) -> None:
    """Store the precision where stock sentence-transformers looks: model_kwargs.ov_config of its transformer module."""
    found = [folder / "sentence_bert_config.json", *sorted(folder.glob("sentence_*_config.json"))]
    path = next((path for path in found if path.is_file()), found[0])
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    # options for loading torch weights (dtype, attention) mean nothing to a graph
    settings.pop("model_args", None)
    settings.pop("model_kwargs", None)
    if precision in _STORED_HINT:
        settings["model_kwargs"] = {"ov_config": {"INFERENCE_PRECISION_HINT": _STORED_HINT[precision]}}
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    found[0].write_text(text, encoding="utf-8")


def trace(source: Path) -> Any:
    """Trace the transformer into an OpenVINO graph with float32 weights and dynamic shapes, not yet compiled."""
    with quiet():  # on its own: the import sets the level of optimum's logger again
        from optimum.intel import OVModelForFeatureExtraction, OVModelForSequenceClassification
    with quiet():  # the tracer's warnings on data-dependent branches: parity at other shapes is what settles those
        settings = json.loads((source / "modules.json").read_text(encoding="utf-8"))
        has_own_head = len(settings) == 1 and check_model_folder(source) == "cross_encoder"
        model_class = OVModelForSequenceClassification if has_own_head else OVModelForFeatureExtraction
        # load_in_8bit=False: optimum compresses the weights of models over 1 B parameters unless told not to
        return model_class.from_pretrained(
            str(source.resolve()), export=True, compile=False, load_in_8bit=False, local_files_only=True
        )


def save_graph(model: Any, folder: Path) -> None:
    """Write a traced (and perhaps quantized) graph with its weights as they are, float32 or int8."""
    import openvino

    path = folder / "openvino" / "openvino_model.xml"
    path.parent.mkdir()
    openvino.save_model(model.model, path, compress_to_fp16=False)  # the default of save_model is True
