"""Add low-rank adapters to a model's encoder (Hu et al. 2021); its other parts, such as its head, are fully trained."""

from collections.abc import Sequence
from typing import Any

from distill.errors import BadInput
from distill.models.activation_checkpointing import is_checkpointing
from distill.models.modeling import is_generative, is_static, transformer_of
from distill.recipe.schema import Lora

__all__ = ["add_adapters", "merged"]


def add_adapters(model: Any, lora: Lora) -> None:
    """Add LoRA adapters to a model's encoder and freeze its other weights; its head and later modules stay trainable.

    :raises BadInput: if the encoder does not have a target module, naming those that it has
    """
    from peft import LoraConfig, get_peft_model

    transformer = transformer_of(model)
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=_targets(transformer, lora)
    )
    if is_checkpointing(transformer):
        transformer.enable_input_require_grads()  # otherwise frozen embeddings would stop the gradient
    # the head of a generative reranker is its language-model head, which stays frozen
    own_head = [] if is_generative(model) else _head(transformer)
    head = [parameter for module in own_head for parameter in module.parameters()]
    model[0].model = get_peft_model(transformer, config)
    for parameter in head:
        parameter.requires_grad_(True)


def merged(model: Any) -> Any:
    """Merge a model's adapters into its weights, in place; no part of peft is left. Other models are unchanged."""
    if not is_static(model) and hasattr(transformer_of(model), "merge_and_unload"):
        model[0].model = transformer_of(model).merge_and_unload()
    return model


def _head(transformer: Any) -> list[Any]:
    """Return the head of a sequence classifier: its modules besides the encoder, one or several."""
    encoder = transformer.base_model
    return [] if encoder is transformer else [child for child in transformer.children() if child is not encoder]


def _targets(transformer: Any, lora: Lora) -> list[str]:
    """Return the full names of the encoder's layers that match the recipe's targets.

    :raises BadInput: if a target matches no layer, or all of them match only the head
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    in_head = {id(module) for part in _head(transformer) for module in part.modules()}
    kinds = (nn.Linear, nn.Embedding, Conv1D)
    layers = {name: module for name, module in transformer.named_modules() if isinstance(module, kinds)}
    in_encoder = {name: module for name, module in layers.items() if id(module) not in in_head}
    if lora.target_modules == "all-linear":
        return [name for name, module in in_encoder.items() if not isinstance(module, nn.Embedding)]
    wanted: Sequence[str] = lora.target_modules
    if unknown := [target for target in wanted if not _matching(target, layers)]:
        known = sorted({name.rpartition(".")[2] for name in in_encoder})
        raise BadInput(
            f"lora.target_modules: {type(transformer).__name__} has no {' and no '.join(unknown)}; there are {', '.join(known)}"
        )
    chosen = list(dict.fromkeys(name for target in wanted for name in _matching(target, in_encoder)))
    if not chosen:
        raise BadInput(
            f"lora.target_modules: {', '.join(wanted)} are of the head, which is trained whole anyway; name layers of the encoder, or all-linear"
        )
    return chosen


def _matching(target: str, names: Any) -> list[str]:
    return [name for name in names if name == target or name.endswith(f".{target}")]
