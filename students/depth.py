"""Which layers of an encoder a student keeps.

The stack of layers is found by structure (a module list as long as the config says), so that BERT, XLM-R, MPNet,
DistilBERT and their like need no table of attribute names.
"""

from collections.abc import Sequence
from typing import Any

from distill.errors import BadInput

__all__ = ["keep_layers"]


def keep_layers(transformer: Any, layers: Sequence[int]) -> None:
    """Keep only the given layers of a transformers encoder, counted from 0, in place; its config says so afterwards.

    :raises BadInput: where a layer does not exist, or no stack of layers is found
    """
    from torch import nn

    config = transformer.config
    n_layers = config.num_hidden_layers
    if max(layers) >= n_layers:
        raise BadInput(f"layers {list(layers)}: the backbone has {n_layers}, counted from 0 to {n_layers - 1}")
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
