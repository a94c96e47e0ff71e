"""Choose the layers of an encoder that a student keeps.

A student with fewer layers is faster in proportion, and keeps its embeddings, its width and its tokenizer. The layers
to keep are a list, a rule, or measured: `importance` removes one layer at a time, always the one whose removal changes
the model's outputs least (a greedy search, as in Sajjad et al. 2020 and Peer et al. 2022).
"""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from distill.errors import BadInput
from distill.files.artefact import ModelKind
from distill.models.layers import hooked, layer_stack
from distill.models.modeling import transformer_of
from distill.progress import Progress, progress
from distill.recipe.schema import LayerChoice
from students.cut.importance import PairBatch, output_change, outputs
from students.cut.structure import can_be_read, check_family, rebuild, stock_difference

__all__ = ["choose_layers", "cut_config", "keep_layers", "layers_by_importance", "layers_by_rule"]

log = logging.getLogger(__name__)


def choose_layers(
    model: Any, kind: ModelKind, choice: Sequence[int] | LayerChoice, batches: Sequence[PairBatch]
) -> tuple[tuple[int, ...], list[dict[str, float]]]:
    """Return the layers for a recipe's choice and, if they were measured, the change that each removal caused.

    A choice of all layers is said in the log.

    :param batches: the sample on which importance is measured; other choices do not use it
    :raises BadInput: if the encoder has too few layers
    """
    n_layers = transformer_of(model).config.num_hidden_layers
    layers, steps = tuple[int, ...](), list[dict[str, float]]()
    if isinstance(choice, LayerChoice) and choice.importance is not None:
        layers, steps = layers_by_importance(model, kind, choice.importance, batches)
    else:
        layers = layers_by_rule(choice, n_layers) if isinstance(choice, LayerChoice) else tuple(choice)
    if len(layers) == n_layers:
        log.warning("student.layers keeps all %d layers of the backbone, which makes it no smaller", n_layers)
    return layers, steps


def layers_by_rule(choice: LayerChoice, n_layers: int) -> tuple[int, ...]:
    """Return the layers of a rule, counted from 0.

    >>> [layers_by_rule(LayerChoice(**{rule: 3}), 12) for rule in ("first", "last", "spread", "every")]
    [(0, 1, 2), (9, 10, 11), (0, 6, 11), (0, 3, 6, 9)]
    """
    n = choice.number
    _check_number(choice.rule, n, n_layers)
    if choice.rule == "first":
        return tuple(range(n))
    if choice.rule == "last":
        return tuple(range(n_layers - n, n_layers))
    if choice.rule == "every":
        return tuple(range(0, n_layers, n))
    if n == 1:  # MiniLM-L6, distilled to one layer: 0.804 starting from its last layer, 0.719 from its first
        return (n_layers - 1,)
    # equal distances from the first to the last, halves rounded up
    return tuple((2 * i * (n_layers - 1) + n - 1) // (2 * (n - 1)) for i in range(n))


def _check_number(rule: str, n: int, n_layers: int) -> None:
    if n > n_layers:
        raise BadInput(f"student.layers.{rule}: {n}; the backbone has {n_layers} layers, set {n_layers} or fewer")


def keep_layers(transformer: Any, layers: Sequence[int]) -> None:
    """Keep only the given layers of a transformers encoder, counted from 0, in place; its config is updated.

    :raises BadInput: for an architecture without tests of this, a layer that does not exist, or a cut that the
        stock class cannot load
    """
    check_family(transformer)
    path, stack = layer_stack(transformer)
    if max(layers) >= len(stack):
        raise BadInput(f"layers {list(layers)}: the backbone has {len(stack)}, counted from 0 to {len(stack) - 1}")
    config, weights = cut_config(transformer.config, layers), _cut_weights(transformer, path, layers)
    if not can_be_read(config):
        raise BadInput(_unreadable(config, f"layers {list(layers)}"))
    misfits = stock_difference(transformer, config, weights)
    if misfits:
        raise BadInput(
            f"layers {list(layers)}: a {config.model_type} whose first layer was layer {layers[0]} cannot be saved ({misfits[0]} has no place there); keep layer 0"
        )
    if config.model_type == "modernbert":
        _state_period(config, layers)
    rebuild(transformer, config, weights)


def _unreadable(config: Any, layers: str) -> str:
    kinds = sorted(set(getattr(config, "layer_types", None) or ()))
    hint = f"all of them are of the kind {kinds[0]}, keep one of another kind too" if len(kinds) == 1 else "keep others"
    return f"{layers}: transformers cannot read a {config.model_type} of these layers again; {hint}"


def _state_period(config: Any, layers: Sequence[int]) -> None:
    """State the period of a ModernBERT's global layers: readers older than `layer_types` know no other form.

    Such readers are transformers before 5 and text-embeddings-inference. A cut without a period is another model there.
    """
    is_global = [kind == "full_attention" for kind in config.layer_types]
    places = range(len(is_global))
    period = next((n for n in range(1, len(is_global) + 1) if is_global == [i % n == 0 for i in places]), None)
    if period is not None:
        config.global_attn_every_n_layers = period
        return
    log.warning(
        "layers %s: local and global attention do not alternate evenly any more; transformers before 5 and "
        "text-embeddings-inference would read them as another model without an error",
        list(layers),
    )


def cut_config(config: Any, layers: Sequence[int]) -> Any:
    """Return the config of an encoder of these layers; its per-layer settings are cut too (such as ModernBERT's windows)."""
    n_layers, changed = config.num_hidden_layers, copy.deepcopy(config)
    changed.num_hidden_layers = len(layers)
    for name, value in config.to_dict().items():
        if isinstance(value, list | tuple) and name.startswith("layer") and len(value) == n_layers:
            setattr(changed, name, [value[i] for i in layers])
    return changed


def _cut_weights(transformer: Any, path: str, layers: Sequence[int]) -> dict[str, Tensor]:
    """Return the weights of the kept layers and of the rest, under their new names."""
    places = {str(layer): str(place) for place, layer in enumerate(layers)}
    weights = {}
    for name, weight in transformer.state_dict().items():
        if not name.startswith(f"{path}."):
            weights[name] = weight
            continue
        number, _, rest = name.removeprefix(f"{path}.").partition(".")
        if number in places:
            weights[f"{path}.{places[number]}.{rest}"] = weight
    return weights


def layers_by_importance(
    model: Any, kind: ModelKind, n_kept: int, batches: Sequence[PairBatch]
) -> tuple[tuple[int, ...], list[dict[str, float]]]:
    """Remove the layer whose removal changes the outputs least, until `n_kept` layers are left.

    A layer is never removed if the stock class could not load the rest (ModernBERT's first).

    :return: the kept layers, and {"layer", "change"} of each removed one, in the order of removal
    """
    transformer = transformer_of(model)
    check_family(transformer)
    kept = list(range(transformer.config.num_hidden_layers))
    _check_number("importance", n_kept, len(kept))
    training = model.training
    model.eval()
    whole_outputs, steps = outputs(model, kind, batches), []
    n_trials = sum(range(n_kept + 1, len(kept) + 1))
    with progress("layers: leaving out one by one", n_trials * len(batches)) as report:
        while len(kept) > n_kept:
            changes = {
                layer: output_change(whole_outputs, reduced_outputs)
                for layer, reduced_outputs in _without_each(model, kind, kept, batches, report).items()
            }
            if not changes:
                raise BadInput(
                    _unreadable(cut_config(transformer.config, kept[:n_kept]), f"student.layers.importance: {n_kept}")
                )
            least = min(changes, key=lambda layer: changes[layer])
            kept.remove(least)
            steps.append({"layer": least, "change": changes[least]})
    model.train(training)
    return tuple(kept), steps


@torch.no_grad()
def _without_each(
    model: Any, kind: ModelKind, kept: Sequence[int], batches: Sequence[PairBatch], report: Progress
) -> dict[int, Tensor]:
    """Return the outputs without each removable layer. The outputs of the layers before it are computed only once."""
    transformer = transformer_of(model)
    _, stack = layer_stack(transformer)
    others = {layer: [other for other in kept if other != layer] for layer in kept}
    loadable = [layer for layer in kept if _is_loadable(transformer, others[layer])]
    outputs_without: dict[int, list[Tensor]] = {layer: [] for layer in loadable}
    for batch in batches:
        layer_outputs = dict[int, Any]()
        with _only(transformer, [stack[layer] for layer in kept]), hooked(_named(stack, kept), _noting(layer_outputs)):
            outputs(model, kind, [batch])
        for layer in loadable:
            before = [_giving(stack[other], layer_outputs[other]) for other in others[layer] if other < layer]
            behind = [stack[other] for other in others[layer] if other > layer]
            with _only(transformer, [*before, *behind]):
                outputs_without[layer].append(outputs(model, kind, [batch]))
        report(len(kept))
    return {layer: torch.cat(parts) for layer, parts in outputs_without.items()}


def _named(stack: nn.ModuleList, layers: Sequence[int]) -> dict[str, nn.Module]:
    return {str(layer): stack[layer] for layer in layers}


def _noting(layer_outputs: dict[int, Any]) -> Callable[[str, Any, Any], None]:
    def note(name: str, inputs: Any, output: Any) -> None:
        layer_outputs[int(name)] = output

    return note


def _giving(layer: nn.Module, output: Any) -> nn.Module:
    """Return a copy of a layer that returns a given output without computing it again."""
    stand_in = copy.copy(layer)
    stand_in.__dict__["forward"] = lambda *args, **kwargs: output
    return stand_in


def _is_loadable(transformer: Any, layers: Sequence[int]) -> bool:
    path, _ = layer_stack(transformer)
    weights = _cut_weights(transformer, path, layers)
    return not stock_difference(transformer, cut_config(transformer.config, layers), weights)


@contextmanager
def _only(transformer: Any, layers: Sequence[nn.Module]) -> Iterator[None]:
    """Make an encoder run only through these layers."""
    path, stack = layer_stack(transformer)
    parent = transformer.get_submodule(path.rpartition(".")[0])
    name = path.rpartition(".")[2]
    setattr(parent, name, nn.ModuleList(layers))
    try:
        yield
    finally:
        setattr(parent, name, stack)
