"""Export model folders as OpenVINO graphs: traced, fixed to a precision, in complete sentence-transformers folders.

`distill.graphs.trace` describes the content of the graph. The precision is stored in `sentence_bert_config.json`, where
stock sentence-transformers reads OpenVINO options.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill.errors import JobFailed, is_full_disk
from distill.files.artefact import new_folder
from distill.models.compatibility import make_portable
from distill.models.modeling import quiet

if TYPE_CHECKING:
    from distill.graphs.trace import GraphModule

__all__ = ["GraphPrecision", "Traced", "copy_without_weights", "export_graph", "pin_precision", "save_graph", "trace"]

log = logging.getLogger(__name__)
GraphPrecision = Literal["fp32", "bf16"]
_NOT_COPIED = (
    "model*.safetensors",
    "model.safetensors.index.json",
    "pytorch_model*",
    "*.onnx",
    "*.onnx_data",
    "openvino_model*",
    "artefact.json",
    "training_args.bin",
    "optimizer.pt",
    "scheduler.pt",
    "trainer_state.json",
    "checkpoint-*",
)
_NOT_COPIED_FOLDERS = ("openvino", "onnx")
_STORED_HINT: Mapping[str, str] = {"fp32": "f32", "bf16": "bf16"}
_TINY = 5_000_000  # parameters


def export_graph(source: Path, target: Path, precision: GraphPrecision) -> None:
    """Write a copy of the folder `source` to `target`, with its transformer as a graph; labelling uses it.

    The graph is compared with torch in fp32 only; its results in `precision` are not checked.
    """
    with new_folder(target) as folder:
        copy_without_weights(source, folder)
        pin_precision(folder, precision)
        save_graph(trace(source), folder)


def copy_without_weights(source: Path, folder: Path) -> None:
    """Copy all files but the transformer's weights and graphs; the weights of Dense modules are copied."""
    for path in sorted(source.iterdir()):
        if path.name.startswith(".") or any(path.match(pattern) for pattern in _NOT_COPIED):
            continue
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
        elif path.name not in _NOT_COPIED_FOLDERS:
            shutil.copytree(path, folder / path.name)
    make_portable(folder)  # the source may have been saved by any release


def pin_precision(folder: Path, precision: str | None) -> None:
    """Store the precision where stock sentence-transformers reads it: model_args.ov_config of the transformer module.

    None, and a precision that is in the weights (such as int8), store nothing.
    """
    found = [folder / "sentence_bert_config.json", *sorted(folder.glob("sentence_*_config.json"))]
    path = next((path for path in found if path.is_file()), found[0])
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    # options for loading torch weights (dtype, attention) do not apply to a graph
    settings.pop("model_args", None)
    settings.pop("model_kwargs", None)
    if precision is not None and precision in _STORED_HINT:
        settings["model_args"] = {"ov_config": {"INFERENCE_PRECISION_HINT": _STORED_HINT[precision]}}
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    found[0].write_text(text, encoding="utf-8")


@dataclass
class Traced:
    """A graph that is not compiled, and the config of its transformer, which optimum's quantizer needs."""

    model: Any
    config: Any


def trace(source: Path) -> Traced:
    """Trace a folder into an OpenVINO graph with float32 weights and dynamic shapes, checked against torch.

    :raises JobFailed: if no trace gives the same results as torch
    """
    from distill.graphs.trace import load_graph_module

    first_error = ""
    for attention in ("sdpa", "eager"):
        module = load_graph_module(source, attention=attention)
        try:
            graph = _converted(module)
            _check(module, graph)
        except Exception as error:  # a trace can raise any error of the modelling code
            if is_full_disk(error):
                raise
            first_error = first_error or " ".join(str(error).split())[:300]
            log.debug("%s with attention %s: %s", source, attention, error)
            continue
        return Traced(graph, module.config)
    raise JobFailed(f"{source} cannot be exported to OpenVINO: {first_error}")


def _converted(module: "GraphModule") -> Any:
    import openvino
    import torch

    from distill.graphs.trace import traceable_masks

    # hides the tracer's warnings about data-dependent branches: other shapes are checked afterwards
    with quiet(), torch.no_grad(), traceable_masks():
        graph = openvino.convert_model(module, example_input=module.example)
    for ports, names in ((graph.inputs, module.input_names), (graph.outputs, module.output_names)):
        for port, name in zip(ports, names, strict=True):
            port.get_tensor().set_names({name})
    graph.validate_nodes_and_infer_types()
    return graph.clone()  # without what the conversion has discarded, which NNCF follows from shared constants


def _check(module: "GraphModule", graph: Any) -> None:
    import openvino

    from distill.graphs.trace import check_graph

    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if sum(parameter.numel() for parameter in module.parameters()) < _TINY:
        options["INFERENCE_NUM_THREADS"] = 1  # starting more threads takes longer than the graph
    compiled = openvino.Core().compile_model(graph, "CPU", options)
    check_graph(module, lambda features: list(compiled(features).values()), "the OpenVINO graph")


def save_graph(traced: Traced, folder: Path, *, half: bool = False) -> None:
    """Write a traced (and perhaps quantized) graph with its weights unchanged (float32 or int8), or in float16."""
    import openvino

    path = folder / "openvino" / "openvino_model.xml"
    path.parent.mkdir()
    openvino.save_model(traced.model, path, compress_to_fp16=half)  # the default of save_model is True
