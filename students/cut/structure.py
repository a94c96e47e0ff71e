"""Find the structure of an encoder by a forward pass: its stack of layers, and the parts of each layer.

    x ─▶ attention_in (query, key, value: three maps or one) ─▶ heads ─▶ attention_out ─▶ + x
      ─▶ feed_forward_in (one map or, gated, two) ─▶ neurons ─▶ feed_forward_out ─▶ +

The code looks up no attribute names. The stack is the one module list whose length is the number of layers in the
config. The parts follow from which linear maps read the same tensor, and in which order. The result is checked before
use: with its heads and neurons permuted, the encoder must give the same output (`check_order`). A changed encoder is
always the stock class built from the changed config, so that it has no weight that the class would not load
(`rebuild`).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distill.errors import BadInput
from distill.models.layers import hooked, layer_stack
from distill.models.modeling import quiet

__all__ = [
    "MODEL_TYPES",
    "Layer",
    "can_be_read",
    "check_family",
    "check_order",
    "find_layers",
    "keep_heads",
    "keep_neurons",
    "per_head_tables",
    "rebuild",
    "stock_difference",
    "stock_model",
]

MODEL_TYPES = (
    "bert",
    "camembert",
    "deberta-v2",
    "distilbert",
    "electra",
    "eurobert",
    "modernbert",
    "mpnet",
    "nomic_bert",
    "roberta",
    "xlm-roberta",
)
"""The model types that cutting layers and width is tested on."""

_ORDER_TOLERANCE = 1e-4  # relative difference of the outputs after heads and neurons are permuted: float32 rounding


@dataclass(frozen=True)
class Layer:
    """The linear maps of one layer by function; the names are paths in the encoder.

    *Shape:* attention_out: (hidden_size, n_heads · head_size); each of attention_in and position_in:
    (k · n_heads · head_size, hidden_size), k = 3 if one map makes query, key and value; feed_forward_out:
    (hidden_size, n_neurons); each of feed_forward_in: (k · n_neurons, hidden_size), k = 2 if one map is gate and value.
    """

    attention_in: tuple[str, ...]
    position_in: tuple[str, ...]
    """Maps of relative positions to heads, as in DeBERTa."""
    attention_out: str
    feed_forward_in: tuple[str, ...]
    feed_forward_out: str


def check_family(transformer: Any) -> None:
    """Refuse an architecture that cutting layers and width is not tested on.

    :raises BadInput: with a list of the tested ones
    """
    kind = transformer.config.model_type
    if kind not in MODEL_TYPES:
        raise BadInput(
            f"{kind}: layers and width are taken from these families, each verified by tests: {', '.join(MODEL_TYPES)}; name a small model as student.backbone instead"
        )


@torch.no_grad()
def find_layers(transformer: Any, features: Mapping[str, Tensor]) -> list[Layer]:
    """Run one forward pass and return the parts of every layer.

    :param features: any batch of token ids with its mask
    :raises BadInput: if the linear maps of a layer are not called in the order of attention and a feed-forward network
    """
    path, stack = layer_stack(transformer)
    calls: dict[int, list[tuple[str, Tensor]]] = {i: [] for i in range(len(stack))}
    maps = {
        f"{path}.{i}.{name}": module
        for i, layer in enumerate(stack)
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    }

    def note(name: str, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        calls[int(name.removeprefix(f"{path}.").partition(".")[0])].append((name, inputs[0]))

    with hooked(maps, note):
        transformer(**features)
    return [_parts(transformer, layer_calls) for layer_calls in calls.values()]


def _parts(transformer: Any, calls: Sequence[tuple[str, Tensor]]) -> Layer:
    reading = [name for name, tensor in calls if _same(tensor, calls[0][1])]
    ups = [name for name, tensor in calls[:-1] if _same(tensor, calls[-2][1])]
    before = [name for name, _ in calls[: len(calls) - 1 - len(ups)]]
    if len(before) < 2 or before[-1] in reading or set(ups) & set(before):
        raise BadInput(
            f"{type(transformer).__name__}: no attention and feed-forward network found in {[name for name, _ in calls]}; name a small model as student.backbone instead"
        )
    positions = dict.fromkeys(name for name in before[:-1] if name not in reading)
    return Layer(tuple(dict.fromkeys(reading)), tuple(positions), before[-1], tuple(ups), calls[-1][0])


def _same(first: Tensor, second: Tensor) -> bool:
    return first.data_ptr() == second.data_ptr() and first.shape == second.shape


def per_head_tables(transformer: Any) -> list[str]:
    """Return the embedding tables with one column per head that all layers share (MPNet's relative positions)."""
    path, _ = layer_stack(transformer)
    n_heads = transformer.config.num_attention_heads
    return [
        name
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Embedding) and module.embedding_dim == n_heads and not name.startswith(f"{path}.")
    ]


def keep_heads(weights: dict[str, Tensor], layer: Layer, heads: Sequence[int], head_size: int) -> None:
    """Keep the given heads of a layer, in the given order, by editing its weights in the mapping."""
    inner = weights[f"{layer.attention_out}.weight"].shape[1]
    kept = torch.cat([torch.arange(head * head_size, (head + 1) * head_size) for head in heads])
    for name in (*layer.attention_in, *layer.position_in):
        _keep_rows(weights, name, kept, inner)
    weights[f"{layer.attention_out}.weight"] = weights[f"{layer.attention_out}.weight"][:, kept]


def keep_neurons(weights: dict[str, Tensor], layer: Layer, neurons: Sequence[int]) -> None:
    """Keep the given feed-forward neurons of a layer, in the given order, by editing its weights in the mapping."""
    n_neurons = weights[f"{layer.feed_forward_out}.weight"].shape[1]
    kept = torch.as_tensor(neurons)
    for name in layer.feed_forward_in:
        _keep_rows(weights, name, kept, n_neurons)
    weights[f"{layer.feed_forward_out}.weight"] = weights[f"{layer.feed_forward_out}.weight"][:, kept]


def _keep_rows(weights: dict[str, Tensor], name: str, kept: Tensor, block: int) -> None:
    """Keep rows of a map whose output is one or several blocks of `block` rows: the same rows of each block."""
    n_rows = len(weights[f"{name}.weight"])
    if n_rows % block:
        raise BadInput(
            f"{name} has {n_rows} rows, no multiple of {block}: grouped heads are not taken apart; name a small model as student.backbone instead"
        )
    rows = torch.cat([start + kept for start in range(0, n_rows, block)])
    for suffix in ("weight", "bias"):
        if f"{name}.{suffix}" in weights:
            weights[f"{name}.{suffix}"] = weights[f"{name}.{suffix}"][rows]


@torch.no_grad()
def check_order(transformer: Any, layers: Sequence[Layer], features: Mapping[str, Tensor]) -> None:
    """Check that permuting heads and neurons leaves the outputs unchanged, so that the parts were found correctly.

    :raises BadInput: if the outputs change
    """
    n_heads = transformer.config.num_attention_heads
    head_size = transformer.get_submodule(layers[0].attention_out).in_features // n_heads
    weights = {name: weight.clone() for name, weight in transformer.state_dict().items()}
    permuted = dict(weights)
    generator = torch.Generator().manual_seed(0)
    heads = torch.randperm(n_heads, generator=generator)
    for name in per_head_tables(transformer):
        permuted[f"{name}.weight"] = permuted[f"{name}.weight"][:, heads]
    for layer in layers:
        keep_heads(permuted, layer, heads.tolist(), head_size)
        n_neurons = permuted[f"{layer.feed_forward_out}.weight"].shape[1]
        keep_neurons(permuted, layer, torch.randperm(n_neurons, generator=generator).tolist())
    before = transformer(**features)[0]
    transformer.load_state_dict(permuted)
    after = transformer(**features)[0]
    transformer.load_state_dict(weights)
    difference = float((before - after).abs().max() / before.abs().max())
    if not difference < _ORDER_TOLERANCE:
        raise BadInput(
            f"{type(transformer).__name__}: its heads and neurons are not where they were taken to be (another order changes the outputs by {difference:.2g}); name a small model as student.backbone instead"
        )


def can_be_read(config: Any) -> bool:
    """Tell whether transformers accepts a config when it saves it, and when it reads it again.

    ModernBERT's class refuses a config of global layers alone (transformers 5.5): its positions have two kinds.
    """
    from huggingface_hub.errors import StrictDataclassError

    try:
        config.validate()
        with quiet():
            type(config).from_dict(copy.deepcopy(config).to_dict())
    except (ValueError, StrictDataclassError):
        return False
    return True


def stock_model(transformer: Any, config: Any) -> Any:
    """Build an encoder's class from a config, without memory for its weights; return None if the class refuses it."""
    config = copy.deepcopy(config)
    if not can_be_read(config):
        return None
    try:
        with torch.device("meta"):
            return _without_absent(type(transformer)(config), transformer)
    except ValueError:
        return None


def stock_difference(transformer: Any, config: Any, weights: Mapping[str, Tensor]) -> list[str]:
    """List the weights that the class, built from a config, would not load or would miss."""
    stock = stock_model(transformer, config)
    if stock is None:
        return [f"{type(transformer).__name__} refuses the config"]
    stock_shapes = {name: weight.shape for name, weight in stock.state_dict().items()}
    shapes = {name: weight.shape for name, weight in weights.items()}
    return sorted(name for name in {*stock_shapes, *shapes} if stock_shapes.get(name) != shapes.get(name))


def rebuild(transformer: Any, config: Any, weights: Mapping[str, Tensor]) -> None:
    """Turn an encoder, in place, into its stock class built from a config, with the given weights.

    Everything that the class derives from the config (head counts, layer numbers, windows) is then consistent with it.

    :raises BadInput: if the class builds other weights from that config
    """
    from transformers.initialization import no_init_weights

    misfits = stock_difference(transformer, config, weights)
    if misfits:
        raise BadInput(
            f"{type(transformer).__name__} cannot be loaded from such a config: {', '.join(misfits[:3])}{' …' if len(misfits) > 3 else ''} would not fit"
        )
    with no_init_weights():
        stock = _without_absent(type(transformer)(copy.deepcopy(config)), transformer)
    stock.load_state_dict(dict(weights))
    requires_grad = {name: parameter.requires_grad for name, parameter in transformer.named_parameters()}
    for name, parameter in stock.named_parameters():
        parameter.requires_grad_(requires_grad.get(name, True))
    first = next(transformer.parameters())
    stock.to(device=first.device, dtype=first.dtype).train(transformer.training)
    transformer.__dict__ = stock.__dict__  # both have the same class, so this replaces the whole object


def _without_absent(stock: Any, transformer: Any) -> Any:
    """Remove modules that the class builds by default but this encoder does not have, such as BERT's pooler."""
    for name, child in transformer._modules.items():
        if child is None:
            stock._modules[name] = None
    return stock
