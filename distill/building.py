"""Build the model that a recipe's section describes: a named one, a fresh encoder, or layers of a teacher.

Cutting keeps the teacher's embeddings, tokenizer and, where the kinds agree, its pooling and head. The stack of layers
is found by structure (a module list as long as the config says), so that BERT, XLM-R, MPNet, DistilBERT and their like
need no table of attribute names. What was cut is saved, loaded and compared before anything is trained.
"""

import copy
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from distill.artefact import check_model_folder
from distill.backbone import fresh_backbone
from distill.errors import BadInput, JobFailed
from distill.modeling import (
    bi_encoder,
    build_model,
    cross_encoder,
    load_model,
    prepared,
    quiet,
    save_model,
    tokenizer_of,
    transformer_of,
)
from distill.recipe import CutBackbone, Encoder, FreshBackbone, Student, Teacher
from distill.run import Run

__all__ = ["cut_layers", "model_builder"]

_TOLERANCE = 1e-5


def model_builder(run: Run, section: Teacher | Student | Encoder) -> Callable[..., Any]:
    """Return a function that builds the section's model, untrained and the same on every call.

    It takes `output_width`: the width of a teacher's space, where a bi-encoder is to write into it. Files that all
    processes share (a fresh backbone) are made here, by the first process.
    """
    from accelerate import PartialState

    backbone, seed, kind = section.backbone, run.recipe.seed, section.model_kind
    if isinstance(backbone, CutBackbone):
        return partial(_cut, run.teacher(backbone.teacher), section, backbone.layers, seed)
    name = str(backbone)
    if isinstance(backbone, FreshBackbone):
        train = run.split.train
        texts = list(dict.fromkeys([*train.queries, *train.documents, *run.split.unlabelled]))
        with PartialState().main_process_first(), quiet():
            name = str(fresh_backbone(backbone, texts, seed=seed, folder=run.work / "backbones"))
    return partial(
        build_model, kind, name, pooling=section.pooling, head=section.head, max_length=section.max_length,
        prompts=section.prompts, seed=seed,
    )  # fmt: skip


def _cut(
    teacher: Path,
    section: Teacher | Student | Encoder,
    layers: Sequence[int] | None,
    seed: int,
    *,
    output_width: int | None = None,
) -> Any:
    import torch

    model, teacher_kind = load_model(teacher), check_model_folder(teacher)
    if layers is not None:
        cut_layers(transformer_of(model), layers)
    torch.manual_seed(seed)
    same = section.model_kind == teacher_kind and section.pooling is None and section.head is None
    if section.model_kind == "bi_encoder":
        model = bi_encoder(list(model) if same else [model[0]], section.pooling, output_width)
    elif not same:
        model = cross_encoder(model[0], section.pooling, section.head)
    if layers is not None:
        _check_reload(model)
    return prepared(model, max_length=section.max_length, prompts=section.prompts)


def cut_layers(transformer: Any, layers: Sequence[int]) -> None:
    """Keep only the given layers of a transformers encoder, counted from 0, in place; its config says so afterwards.

    :raises BadInput: where a layer does not exist, or no stack of layers is found
    """
    from torch import nn

    config = transformer.config
    n_layers = config.num_hidden_layers
    if max(layers) >= n_layers:
        raise BadInput(f"layers {list(layers)}: the teacher has {n_layers}, counted from 0 to {n_layers - 1}")
    stacks = [
        (name, module)
        for name, module in transformer.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    stacks = [(name, module) for name, module in stacks if len({type(layer) for layer in module}) == 1]
    if n_layers > 1 and len(stacks) != 1:
        raise BadInput(
            f"{type(transformer).__name__}: {len(stacks)} stacks of {n_layers} layers found where one is expected; name a small model as student.backbone instead"
        )
    name, stack = stacks[0]
    parent = transformer.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], nn.ModuleList(stack[i] for i in layers))
    config.num_hidden_layers = len(layers)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:  # local and global attention by layer, as in ModernBERT
        config.layer_types = [kinds[i] for i in layers]


def _check_reload(model: Any) -> None:
    """Save, load and compare: an architecture whose config does not describe the cut would come back as another model."""
    import torch

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save_model(model, Path(folder))
        again = load_model(Path(folder))
        batch = tokenizer_of(model)(["one two three", "four"], padding=True, return_tensors="pt")
        with quiet():
            here, there = (transformer_of(copy.deepcopy(m)).eval()(**batch)[0] for m in (model, again))
    difference = float((here - there).abs().max())
    if not difference < _TOLERANCE:
        raise JobFailed(
            f"{type(transformer_of(model)).__name__} cut to {transformer_of(model).config.num_hidden_layers} layers is another model when loaded again (difference {difference:.2g}); name a small model as student.backbone instead"
        )
