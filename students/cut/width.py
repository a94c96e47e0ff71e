"""The width of a student's layers: feed-forward neurons, attention heads, hidden size.

Heads and neurons are removed by their importance for the model's own scores (`importance`). The result must be an
ordinary config of the stock class, which limits what is possible:

- Feed-forward networks have one width in all layers, so each layer keeps the same number of neurons, its own best ones.
  (Different numbers per layer would be padded with zeros to the widest: never better than keeping that many in each.)
- Nearly all stock encoders tie heads × head size to the hidden size. There, heads and hidden dimensions are removed
  together, and `hidden` sets both. If the config has its own head size (EuroBERT, NomicBERT), heads can be removed
  alone.
- MPNet's layers share one table of relative positions with one column per head, so all layers keep the same heads.
"""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill.errors import BadInput
from distill.files.artefact import ModelKind
from distill.models.modeling import transformer_of
from distill.recipe.schema import Width
from students.cut.hidden import last_states, prediction, project_hidden
from students.cut.importance import PairBatch, head_and_neuron_importance
from students.cut.structure import (
    Layer,
    check_family,
    check_order,
    find_layers,
    keep_heads,
    keep_neurons,
    per_head_tables,
    rebuild,
    stock_model,
)

__all__ = ["best", "narrow"]

_FEW_ROWS = 4  # rows of a batch that are enough to find the parts of every layer
# config keys whose value follows the hidden size if it equals it
_AS_WIDE_AS_HIDDEN = ("embedding_size", "pooler_hidden_size")


@dataclass(frozen=True)
class _Sizes:
    n_heads: int
    head_size: int
    n_neurons: int
    hidden: int


@dataclass(frozen=True)
class _Change:
    """The sizes of the layers before and after."""

    layers: Sequence[Layer]
    old: _Sizes
    new: _Sizes


@dataclass(frozen=True)
class _Sample:
    """The sample for importance and hidden states: the pairs, and the inputs that the transformer accepts of them."""

    batches: Sequence[PairBatch]
    features: Sequence[Mapping[str, Tensor]]


def narrow(
    model: Any, kind: ModelKind, width: Width, batches: Sequence[PairBatch], *, way_back: bool = False
) -> dict[str, Any]:
    """Make a model narrower, in place, and return a description for its card; if nothing shrinks, change nothing.

    :param batches: the sample on which importance and hidden states are measured
    :param way_back: if the hidden size shrinks, add a Dense that maps a bi-encoder's vectors back into the old space
    :raises BadInput: if the architecture cannot have the sizes; the message says which ones it can have
    """
    transformer = transformer_of(model)
    check_family(transformer)
    training = model.training
    model.eval()
    accepted = inspect.signature(transformer.forward).parameters
    features = [
        {name: value.to(transformer.device) for name, value in batch.features.items() if name in accepted}
        for batch in batches
    ]
    first_rows = {name: value[:_FEW_ROWS] for name, value in features[0].items()}
    layers = find_layers(transformer, first_rows)
    old = _sizes(transformer, layers)
    new = _planned(transformer, layers, old, width)
    details = {}
    if new != old:
        check_order(transformer, layers, first_rows)
        if new.hidden != old.hidden:
            _check_modules(model)
        change, sample = _Change(layers, old, new), _Sample(batches, features)
        details = _narrow(model, kind, change, sample, width.hidden_by, way_back)
    model.train(training)
    return details


def _narrow(
    model: Any,
    kind: ModelKind,
    change: _Change,
    sample: _Sample,
    hidden_by: Literal["pca", "dimensions"],
    way_back: bool,
) -> dict[str, Any]:
    transformer, layers, old, new = transformer_of(model), change.layers, change.old, change.new
    config = _config(transformer, layers, old, new)
    stock = stock_model(transformer, config)
    if stock is None:
        raise BadInput(
            f"student.width: {config.model_type} refuses a hidden size of {new.hidden} with {new.n_heads} heads; set hidden to a multiple of {new.n_heads}"
        )
    weights, details = dict(transformer.state_dict()), dict[str, Any]()
    if (new.n_heads, new.n_neurons) != (old.n_heads, old.n_neurons):
        importance = head_and_neuron_importance(model, kind, layers, sample.batches)
        if new.n_neurons != old.n_neurons:
            details["feed_forward"] = new.n_neurons
            for layer, neurons in zip(layers, importance.neurons, strict=True):
                keep_neurons(weights, layer, best(neurons, new.n_neurons))
        if new.n_heads != old.n_heads:
            details["heads"] = _take_heads(transformer, layers, weights, importance.heads, new)
    if new.hidden == old.hidden:
        rebuild(transformer, config, weights)
        return details
    weights, share = project_hidden(transformer, layers, weights, stock, sample.features, hidden_by)
    states_before = [last_states(transformer, each) for each in sample.features]
    rebuild(transformer, config, weights)
    back, offset = prediction((last_states(transformer, each) for each in sample.features), states_before)
    _follow(model, kind, back, offset, way_back)
    return {**details, "hidden": new.hidden, "hidden_by": hidden_by, "variance_kept": round(share, 4)}


def _take_heads(
    transformer: Any, layers: Sequence[Layer], weights: dict[str, Tensor], importance: Tensor, new: _Sizes
) -> list[list[int]]:
    """Keep the best heads of each layer (the same in all layers if they share a table); return them by layer."""
    tables = per_head_tables(transformer)
    if tables:
        importance = importance.sum(dim=0, keepdim=True).expand_as(importance)
    kept = [best(values, new.n_heads) for values in importance]
    for layer, heads in zip(layers, kept, strict=True):
        keep_heads(weights, layer, heads, new.head_size)
    for name in tables:
        weights[f"{name}.weight"] = weights[f"{name}.weight"][:, kept[0]]
    return kept


def best(values: Tensor, n: int) -> list[int]:
    """Return the positions of the n largest values, in ascending order; among equal values the first.

    >>> best(torch.tensor([0.1, 0.3, 0.3, 0.2, 0.3]), 2)
    [1, 2]
    """
    return sorted(sorted(range(len(values)), key=lambda place: (-float(values[place]), place))[:n])


def _sizes(transformer: Any, layers: Sequence[Layer]) -> _Sizes:
    config, layer = transformer.config, layers[0]
    inner = transformer.get_submodule(layer.attention_out).in_features
    n_neurons = transformer.get_submodule(layer.feed_forward_out).in_features
    return _Sizes(config.num_attention_heads, inner // config.num_attention_heads, n_neurons, config.hidden_size)


def _planned(transformer: Any, layers: Sequence[Layer], old: _Sizes, width: Width) -> _Sizes:
    """Return the sizes that the recipe asks for, adjusted to what the architecture can have."""
    n_neurons = _count("feed_forward", width.feed_forward, old.n_neurons)
    hidden = _count("hidden", width.hidden, old.hidden)
    n_heads = _count("heads", width.heads, old.n_heads)
    accepted = _accepted_heads(transformer, layers, old)
    if accepted == [old.n_heads]:
        n_heads, hidden = _tied(transformer.config.model_type, old, width, n_heads, hidden)
    elif isinstance(width.heads, float):
        n_heads = min(accepted, key=lambda count: abs(count - n_heads))
    elif n_heads not in accepted:
        raise BadInput(
            f"student.width.heads: {n_heads}; {transformer.config.model_type} at this hidden size takes {', '.join(map(str, accepted))}"
        )
    return _Sizes(n_heads, old.head_size, n_neurons, hidden)


def _tied(kind: str, old: _Sizes, width: Width, n_heads: int, hidden: int) -> tuple[int, int]:
    """Return heads and hidden size if the architecture ties them: hidden size = heads × head size."""
    size = old.head_size
    if width.hidden is None:
        if n_heads != old.n_heads:
            raise BadInput(
                f"student.width.heads: {kind} has no head size of its own in its config, heads × {size} is its hidden size; set hidden: {n_heads * size} (heads follow: {n_heads}) or leave heads out"
            )
        return n_heads, hidden
    if isinstance(width.hidden, float):
        hidden = max(1, round(hidden / size)) * size
    if hidden % size:
        below = hidden // size * size
        choices = " or ".join(str(choice) for choice in (below, below + size) if choice)
        raise BadInput(f"student.width.hidden: {hidden}; {kind} has whole heads of {size}, set {choices}")
    if width.heads is not None and n_heads != hidden // size:
        raise BadInput(
            f"student.width.heads: {n_heads}; {kind} at hidden size {hidden} has {hidden // size} heads of {size}, leave heads out"
        )
    return hidden // size, hidden


def _count(key: str, part: int | float | None, whole: int) -> int:
    if part is None:
        return whole
    count = max(1, round(part * whole)) if isinstance(part, float) else part
    if count > whole:
        raise BadInput(f"student.width.{key}: {part}; the backbone has {whole}, set {whole} or less")
    return count


def _accepted_heads(transformer: Any, layers: Sequence[Layer], old: _Sizes) -> list[int]:
    """Return the numbers of heads that the class accepts at the same hidden and head size."""
    accepted = []
    for n_heads in range(1, old.n_heads):
        stock = stock_model(transformer, _with_heads(transformer.config, n_heads, old.head_size))
        if stock is not None:
            inner = stock.get_submodule(layers[0].attention_out).in_features
            accepted += [n_heads] * (inner == n_heads * old.head_size)
    return [*accepted, old.n_heads]


def _with_heads(config: Any, n_heads: int, head_size: int) -> Any:
    changed = copy.deepcopy(config)
    changed.num_attention_heads = n_heads
    if getattr(config, "num_key_value_heads", None) == config.num_attention_heads:
        changed.num_key_value_heads = n_heads
    if hasattr(config, "head_dim"):
        changed.head_dim = head_size
    return changed


def _config(transformer: Any, layers: Sequence[Layer], old: _Sizes, new: _Sizes) -> Any:
    config = _with_heads(transformer.config, new.n_heads, new.head_size)
    if new.n_neurons != old.n_neurons:
        setattr(config, _neuron_key(transformer, layers, old.n_neurons), new.n_neurons)
    if new.hidden != old.hidden:
        config.hidden_size = new.hidden
        for name in _AS_WIDE_AS_HIDDEN:
            if getattr(transformer.config, name, None) == old.hidden:
                setattr(config, name, new.hidden)
    return config


def _neuron_key(transformer: Any, layers: Sequence[Layer], n_neurons: int) -> str:
    """Return the config key for the width of the feed-forward networks: the number whose change changes them."""
    numbers: dict[str, Any] = transformer.config.to_dict()
    for name, value in numbers.items():
        if type(value) is int and value == n_neurons:
            changed = copy.deepcopy(transformer.config)
            setattr(changed, name, n_neurons - 1)
            stock = stock_model(transformer, changed)
            if stock is not None and stock.get_submodule(layers[0].feed_forward_out).in_features == n_neurons - 1:
                return name
    raise BadInput(f"{transformer.config.model_type}: its config has no width of feed-forward networks; leave it out")


def _check_modules(model: Any) -> None:
    """Check that the modules after the transformer can be adapted to another hidden size.

    :raises BadInput: if they cannot
    """
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Pooling

    rest = list(model)[1:]
    if not rest:
        raise BadInput(
            "student.width.hidden: this cross-encoder's head is part of its transformer; set student.head (as []) to train a new one"
        )
    if not isinstance(rest[0], Pooling) or not isinstance(rest[0].pooling_mode, str):
        raise BadInput(
            "student.width.hidden: one pooling is expected behind the transformer; set student.pooling: mean or cls"
        )
    has_weights = any(True for module in rest[1:] for _ in module.parameters())
    if has_weights and not isinstance(rest[1], Dense):
        raise BadInput(
            f"student.width.hidden: a {type(rest[1]).__name__} follows the pooling, and only a Dense there takes another width; set student.pooling: mean"
        )
    if any(getattr(module, "use_residual", False) for module in rest[1:2]):
        raise BadInput(
            "student.width.hidden: the first Dense has a residual; set student.pooling: mean for a plain one"
        )


def _follow(model: Any, kind: ModelKind, back: Tensor, offset: Tensor, way_back: bool) -> None:
    """Adapt the modules after the transformer to its new states: they get B z + c in place of the old states.

    *Shape:* back: (old_hidden, new_hidden); offset: (old_hidden,)
    """
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Pooling

    pooling, (old, new) = model[1], back.shape
    model[1] = Pooling(new, pooling_mode=pooling.pooling_mode, include_prompt=pooling.include_prompt)
    if len(model) > 2 and isinstance(model[2], Dense):
        dense = model[2]
        weight, bias = dense.linear.weight.detach(), dense.linear.bias
        shifted = weight @ offset + (0 if bias is None else bias.detach())
        _set_linear(dense, weight @ back, shifted)
    elif kind == "bi_encoder" and way_back:
        dense = Dense(new, old, activation_function=nn.Identity())
        _set_linear(dense, back, offset)
        model.insert(2, dense)


def _set_linear(dense: Any, weight: Tensor, bias: Tensor) -> None:
    dense.linear = nn.Linear(weight.shape[1], weight.shape[0]).to(weight.device)
    with torch.no_grad():
        dense.linear.weight.copy_(weight)
        dense.linear.bias.copy_(bias)
    dense.in_features, dense.bias = weight.shape[1], True
