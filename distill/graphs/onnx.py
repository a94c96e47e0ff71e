"""Export model folders as ONNX graphs with torch's own exporter; optimum-onnx needs an older transformers.

The TorchScript exporter is used. On a CPU, ONNX Runtime runs its graphs faster than those of the newer exporter (313
against 335 ms for 32 texts of 134 tokens, MiniLM-L6), and it needs no further package. `distill.graphs.trace` describes
the content of a graph. A graph is accepted only after `check_graph` has compared it with torch.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import BadInput, JobFailed, is_full_disk
from distill.files.trust import load_auto
from distill.models.modeling import quiet

if TYPE_CHECKING:
    from distill.graphs.trace import GraphModule

__all__ = ["GRAPH", "keep_outputs", "open_session", "save_onnx", "write_onnx", "write_tokenizer"]

log = logging.getLogger(__name__)

GRAPH = Path("onnx") / "model.onnx"
_OPSET = 17  # the first opset with LayerNormalization as one operation; all runtimes of recent years support it
_ONE_FILE_BYTES = 2**31 - 2**20  # the limit of protobuf; the weights of larger models go into a separate file


def write_onnx(source: Path, folder: Path) -> dict[str, Any]:
    """Write `onnx/model.onnx` into a folder: the model of `source` in float32, checked against torch.

    A model of more than 2 GB keeps its weights in `onnx/model.onnx_data`.

    :returns: the options of the export, and the greatest difference of each output from torch
    :raises BadInput: if onnx or onnxruntime are not installed
    :raises JobFailed: if no export gives the same results as torch
    """
    from distill.graphs.trace import check_graph, load_graph_module

    _require_packages()
    path, first_error = folder / GRAPH, ""
    path.parent.mkdir(parents=True, exist_ok=True)
    for attention in ("eager", "sdpa"):  # "eager" first: the exporter makes fewer operations of it than of "sdpa"
        module = load_graph_module(source, attention=attention)
        try:
            _export(module, path)
            session = open_session(path)
            names = list(module.output_names)
            differences = check_graph(module, lambda features, s=session, n=names: s.run(n, features), "the ONNX graph")  # type: ignore[misc]
        except Exception as error:  # tracer, exporter and runtime raise errors of many types
            if is_full_disk(error):
                raise
            first_error = first_error or " ".join(str(error).split())[:300]
            log.debug("%s with attention %s: %s", source, attention, error)
            continue
        return {"attention": attention, "opset": _OPSET, "differences": differences}
    raise JobFailed(f"{source} cannot be exported to ONNX: {first_error}")


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise BadInput(
            f"ONNX exports need {error.name}; install it with: pip install 'matchdistill[onnx]', or leave onnx out of export.formats"
        ) from None


def _export(module: "GraphModule", path: Path) -> None:
    import torch

    from distill.graphs.trace import traceable_masks

    for leftover in path.parent.iterdir():
        leftover.unlink()
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in (*module.input_names, "last_hidden_state")}
    axes |= {name: {0: "batch_size"} for name in module.output_names if name not in axes}
    with quiet(), torch.no_grad(), traceable_masks(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        torch.onnx.export(
            module,
            module.example,
            str(path),
            dynamo=False,
            opset_version=_OPSET,
            input_names=list(module.input_names),
            output_names=list(module.output_names),
            dynamic_axes=axes,
        )
    if len(list(path.parent.iterdir())) > 1 or path.stat().st_size > _ONE_FILE_BYTES:
        _gather_weights(path)


def _gather_weights(path: Path) -> None:
    """Merge the weights, which the exporter writes as one file each, into the single file that optimum expects."""
    import onnx

    model = onnx.load(str(path))
    for scattered in path.parent.iterdir():
        scattered.unlink()
    save_onnx(model, path)


def save_onnx(model: Any, path: Path) -> None:
    """Write a model as one file, or with its weights in a second file if one file would be too large."""
    import onnx

    large = model.ByteSize() > _ONE_FILE_BYTES
    onnx.save_model(
        model, str(path), save_as_external_data=large, all_tensors_to_one_file=True, location=f"{path.name}_data"
    )


def open_session(path: Path, *, n_threads: int | None = None, options: Mapping[str, str] | None = None) -> Any:
    """Open a graph in ONNX Runtime on the CPU.

    :param n_threads: threads of one call; None is the default of ONNX Runtime
    :param options: entries of the session's configuration, such as "session.x64quantprecision"
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    if n_threads is not None:
        settings.intra_op_num_threads = n_threads
    for name, value in (options or {}).items():
        settings.add_session_config_entry(name, value)
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def keep_outputs(path: Path, target: Path, names: Sequence[str] | None) -> None:
    """Write a copy of a graph with only these outputs, for tools that read the first one; None keeps all.

    :raises BadInput: if the graph lacks one of them
    """
    import onnx

    model = onnx.load(str(path))
    if names is not None:
        kept = {output.name: output for output in model.graph.output}
        missing = [name for name in names if name not in kept]
        if missing:
            raise BadInput(f"{path} gives {', '.join(kept)} and not {missing[0]}; export the model again")
        del model.graph.output[:]
        model.graph.output.extend(kept[name] for name in names)
    save_onnx(model, target)


def write_tokenizer(source: Path, folder: Path, *, max_length: int) -> Any:
    """Write `tokenizer.json` with truncation, padding and lower-casing included, and return transformers' tokenizer.

    transformers sets the first two at each call, and sentence-transformers the third. A program that uses only
    `tokenizers` reads them from this file.

    :raises BadInput: if the tokenizer cannot be saved as tokenizer.json
    """
    from tokenizers import Tokenizer, normalizers
    from transformers import AutoTokenizer

    with quiet():
        tokenizer = load_auto(AutoTokenizer, source, local_files_only=True)
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise BadInput(f"{type(tokenizer).__name__} has no tokenizer.json, which everything but transformers reads")
    backend = Tokenizer.from_str(fast.to_str())
    if _lower_cases(source):
        own = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    backend.enable_truncation(max_length, strategy="longest_first", direction=tokenizer.truncation_side)
    if tokenizer.pad_token is not None:
        backend.enable_padding(
            direction=tokenizer.padding_side,
            pad_id=tokenizer.pad_token_id,
            pad_type_id=tokenizer.pad_token_type_id,
            pad_token=str(tokenizer.pad_token),
        )
    backend.save(str(folder / "tokenizer.json"))
    return tokenizer


def _lower_cases(source: Path) -> bool:
    path = next(iter(sorted(source.glob("sentence_*_config.json"))), None)
    return path is not None and bool(json.loads(path.read_text(encoding="utf-8")).get("do_lower_case"))
