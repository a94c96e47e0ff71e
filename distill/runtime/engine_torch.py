"""Run a folder's own modules in torch, in float32 or under bf16 autocast."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np

from distill.errors import BadInput
from distill.files.trust import NO_CODE
from distill.machine.forks import is_forked_since
from distill.models.files import ModelFiles, Precision, Runtime, check_ids, fitting_modules, length_limit
from distill.runtime.buckets import Features, PaddedBatch
from distill.wording import load_with

__all__ = ["TorchEngine", "TorchHead", "batch_tokens_on", "check_process", "load_torch_head", "open_torch", "place"]


log = logging.getLogger(__name__)


@cache
def _one_thread_in_children() -> None:
    """Make forked children compute on one thread: OpenMP's thread pool is not copied, so more threads would hang."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_take_one_thread)


def _take_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@cache
def _log_one_thread() -> None:
    log.info("torch computes on one thread in this forked process; load the model after the fork for more")


def place(device: str | None, n_threads: int) -> str:
    """Return the device for a torch model, and set the threads of this process and its forked children.

    :param device: None is a GPU if there is one, else the CPU
    """
    import torch

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if torch.device(chosen).type == "cpu":
        torch.set_num_threads(n_threads)
    _one_thread_in_children()
    return chosen


def batch_tokens_on(device: str) -> int:
    """Return the padded tokens per batch: large batches are faster on a GPU, batches that fit the cache on a CPU."""
    return 1024 if device == "cpu" else 65_536


class _PlacedEngine(Protocol):
    @property
    def files(self) -> ModelFiles: ...
    @property
    def device(self) -> str: ...
    @property
    def process(self) -> int: ...


def check_process(engine: _PlacedEngine) -> None:
    """Check that this process can run an engine; log once that a forked child computes on one thread.

    :raises BadInput: if this is a forked child of a process that put the model on a GPU
    """
    if not is_forked_since(engine.process):
        return
    if engine.device != "cpu":
        raise BadInput(f"{engine.files.folder} lies on {engine.device}, which a forked child cannot use; load it there")
    _log_one_thread()


class TorchHead:
    """The folder's modules after the transformer, in torch, with the interface of `NumpyHead`."""

    def __init__(self, modules: Sequence[Any], width: int) -> None:
        self.modules = modules
        widths = [int(m.get_embedding_dimension()) for m in modules if hasattr(m, "get_embedding_dimension")]
        self.output_width = widths[-1] if widths else width
        self.n_parameters = sum(parameter.numel() for module in modules for parameter in module.parameters())

    def __call__(self, tokens: np.ndarray, mask: np.ndarray, n_left_out: int = 0) -> np.ndarray:
        """Run the modules. *Shape:* (n_rows, n_tokens, width), (n_rows, n_tokens) → (n_rows, output_width)."""
        import torch

        with torch.inference_mode():
            inputs = {"token_embeddings": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask)}
            return _result(self.apply({**inputs, "prompt_length": n_left_out}))

    def apply(self, state: dict[str, Any]) -> dict[str, Any]:
        """Run the modules one after the other."""
        for module in self.modules:
            state = module(state)
        return state


def _result(state: Mapping[str, Any]) -> np.ndarray:
    """Return the final result of the modules: scores or embeddings. *Shape:* (n_rows, output_width), float32."""
    values = state["scores"] if "scores" in state else state["sentence_embedding"]
    result: np.ndarray = values.float().cpu().numpy()
    return result.reshape(len(result), -1)


def load_torch_head(files: ModelFiles, width: int, device: str) -> TorchHead:
    """Load the modules after the transformer onto a device."""
    _one_thread_in_children()
    return TorchHead([_module(files, module).to(device).eval() for module in files.modules[1:]], width)


def _module(files: ModelFiles, module: Mapping[str, Any]) -> Any:
    from sentence_transformers.util import import_from_string

    if not str(module["type"]).startswith("sentence_transformers."):
        raise BadInput(
            f"{files.folder}/modules.json: {module['type']}; only sentence_transformers' own modules are run"
        )
    return import_from_string(module["type"]).load(str(files.folder), subfolder=module["path"], local_files_only=True)


@dataclass(frozen=True)
class TorchEngine:
    """A loaded transformer and its head."""

    transformer: Any
    head: TorchHead
    precision: str
    device: str
    files: ModelFiles
    runtime: Runtime = "torch"
    fixed_shapes: bool = False
    settings: None = None
    process: int = field(default_factory=os.getpid)

    @property
    def batch_tokens(self) -> int:
        """Default number of padded tokens per batch."""
        return batch_tokens_on(self.device)

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self.transformer.tokenizer

    @property
    def output_width(self) -> int:
        """Width of an embedding, or the number of scores."""
        own_head = len(self.files.modules) == 1 and self.files.kind == "cross_encoder"
        return int(self.transformer.config.num_labels) if own_head else self.head.output_width

    def length_limit(self, wanted: int | None) -> int:
        """Return the maximum number of tokens of a text or pair."""
        stored = self.files.settings.get("max_seq_length")
        config = self.transformer.config.to_dict()  # includes defaults that config.json may omit
        return length_limit(config, wanted or stored, self.tokenizer.model_max_length)

    def run(self, batches: Iterable[PaddedBatch], n_left_out: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows, values) of every batch.

        :raises BadInput: if this is a forked child of a process that put the model on a GPU
        """
        import torch

        check_process(self)
        for rows, features in batches:
            check_ids(self.files, features["input_ids"])
            with torch.inference_mode():  # ends before the yield, so as not to affect the caller's torch code
                values = self._forward(features, n_left_out)
            yield rows, values

    def _forward(self, features: Features, n_left_out: int) -> np.ndarray:
        state = self.states(features)
        with fitting_modules(self.files):
            return _result(self.head.apply({**state, "prompt_length": n_left_out}))

    def states(self, features: Features) -> dict[str, Any]:
        """Run the transformer alone and return the inputs of the head, on the device; its own output is in float32."""
        import torch

        placed = {name: torch.from_numpy(values).to(self.device) for name, values in features.items()}
        device_type = torch.device(self.device).type
        with torch.autocast(device_type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            out = self.transformer(placed)
        name = self.transformer.module_output_name
        return {**out, name: out[name].float()}

    def count_parameters(self) -> int:
        """Return the number of parameters."""
        total: int = self.head.n_parameters + sum(parameter.numel() for parameter in self.transformer.parameters())
        return total


def open_torch(files: ModelFiles, precision: Precision | None, n_threads: int, device: str | None) -> TorchEngine:
    """Load the modules of a folder.

    :param precision: None is "fp32"
    :param device: None is a GPU if there is one
    :raises BadInput: if the folder holds no torch weights
    """
    import torch
    from sentence_transformers.base.modules import Transformer

    from distill.models.modeling import quiet
    from distill.models.whole_weights import check_finite, whole_weights

    weights = ("model.safetensors", "model.safetensors.index.json")
    if not any((files.transformer_folder / name).is_file() for name in weights):
        raise BadInput(f"{files.folder} holds no torch weights, only a graph; {load_with(files.held_runtime)}")
    chosen = place(device, n_threads)
    # transformers 5 uses the checkpoint's dtype by default
    kwargs = {"dtype": torch.float32}
    with quiet(), whole_weights(str(files.folder)):
        transformer = Transformer.load(
            str(files.folder), subfolder=files.modules[0]["path"], local_files_only=True, model_kwargs=kwargs, **NO_CODE
        ).to(chosen)
        head = load_torch_head(files, int(transformer.config.hidden_size), chosen)
    for part in (transformer, *head.modules):
        check_finite(str(files.folder), part)
    return TorchEngine(transformer.eval(), head, precision or "fp32", chosen, files)
