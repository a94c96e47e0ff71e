"""Find the layers of an encoder, and record their states, queries, keys and values in a forward pass.

    embeddings ─▶ layer 0 ─▶ state 0 ─▶ layer 1 ─▶ state 1 … ─▶ (last norm) ─▶ the last state

Forward hooks read the states, and read queries, keys and values directly after their linear maps: before rotary
positions, norms of heads and relative positions. The numbers are therefore the same for eager, SDPA and flash
attention.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from torch import Tensor, nn

from distill.errors import BadInput
from distill.models.modeling import transformer_of

__all__ = ["EncoderLayers", "SeenLayers", "Vectors", "hooked", "layer_stack"]

Vectors = Literal["queries", "keys", "values"]
_NAMES: Mapping[Vectors, tuple[str, ...]] = {
    "queries": ("query", "q", "q_lin", "q_proj", "query_proj"),
    "keys": ("key", "k", "k_lin", "k_proj", "key_proj"),
    "values": ("value", "v", "v_lin", "v_proj", "value_proj"),
}
_FUSED = "Wqkv"  # in ModernBERT: queries, then keys, then values
_LAST_NORMS = ("final_norm", "norm")  # after the last layer, in ModernBERT and in decoders
_END, _EMBEDDINGS = "end", "embeddings"


def layer_stack(
    transformer: Any, instead: str = "name a small model as student.backbone instead"
) -> tuple[str, nn.ModuleList]:
    """Return the path and the list of an encoder's layers: modules of one class, as many as the config says.

    :param instead: advice for the error message
    :raises BadInput: if there is not exactly one such list
    """
    n_layers = transformer.config.num_hidden_layers
    stacks = [
        (path, module)
        for path, module in transformer.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers and len({type(layer) for layer in module}) == 1
    ]
    if len(stacks) != 1:
        raise BadInput(
            f"{type(transformer).__name__}: {len(stacks)} stacks of {n_layers} layers found where one is expected; {instead}"
        )
    return stacks[0]


@contextmanager
def hooked(modules: Mapping[str, nn.Module], hook: Any) -> Iterator[None]:
    """Call hook(name, inputs, output) after every forward of the modules; a result other than None replaces output."""

    def calling(name: str) -> Any:
        return lambda module, inputs, output: hook(name, inputs, output)

    handles = [module.register_forward_hook(calling(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class SeenLayers:
    """The recorded tensors of one forward pass.

    *Shape:* embeddings, states[layer]: (n_sequences, n_tokens, width); vectors[layer][…]: (n_sequences, n_tokens, their
    width)
    """

    embeddings: Tensor | None = None
    states: dict[int, Tensor] = field(default_factory=dict)
    vectors: dict[int, dict[Vectors, Tensor]] = field(default_factory=dict)

    def part(self, rows: Tensor, n_tokens: int) -> "SeenLayers":
        """Return the part of some sequences and their first `n_tokens` tokens. *Shape:* rows: (n_sequences,) bool."""
        return SeenLayers(
            None if self.embeddings is None else self.embeddings[rows, :n_tokens],
            {layer: state[rows, :n_tokens] for layer, state in self.states.items()},
            {
                layer: {kind: tensor[rows, :n_tokens] for kind, tensor in vectors.items()}
                for layer, vectors in self.vectors.items()
            },
        )


class EncoderLayers:
    """The layers of a model's encoder.

    :param model: a sentence-transformers model with a transformer
    :param who: the model's name for messages, such as "teacher minilm"
    :raises BadInput: if no stack of layers is found
    """

    def __init__(self, model: Any, who: str) -> None:
        self.module, self.encoder, self.who = model[0], transformer_of(model).base_model, who
        self.stack = layer_stack(self.encoder, f"the layers of {who} cannot be matched, leave the objective out")[1]

    def __len__(self) -> int:
        return len(self.stack)

    @property
    def kind(self) -> str:
        """The architecture, as in `config.json`: "bert"."""
        return str(self.encoder.config.model_type)

    @property
    def width(self) -> int:
        """The width of hidden states."""
        return int(self.encoder.config.hidden_size)

    @property
    def n_heads(self) -> int:
        """Attention heads of a layer."""
        return int(self.encoder.config.num_attention_heads)

    def place(self, layer: int) -> int | None:
        """Return a layer's number counted from 0, where −1 means the last layer; None if it does not exist."""
        return layer % len(self) if -len(self) <= layer < len(self) else None

    def widths(self, layer: int) -> dict[Vectors, int]:
        """Return the widths of queries, keys and values, all heads together.

        :raises BadInput: if the linear maps are not found
        """
        maps = self._maps[layer]
        return {kind: int(maps[kind].out_features) // (3 if self._is_fused(layer) else 1) for kind in get_args(Vectors)}

    @cached_property
    def _maps(self) -> list[dict[Vectors, Any]]:
        return [self._maps_in(layer) for layer in self.stack]

    def _maps_in(self, layer: nn.Module) -> dict[Vectors, Any]:
        linear = {
            name.rpartition(".")[2]: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)
        }
        if _FUSED in linear:
            return dict.fromkeys(get_args(Vectors), linear[_FUSED])
        found = {kind: [linear[name] for name in names if name in linear] for kind, names in _NAMES.items()}
        if any(len(maps) != 1 for maps in found.values()):
            raise BadInput(
                f"{self.who}: no linear maps of queries, keys and values are known in {type(layer).__name__} ({', '.join(linear)}); leave relation_match and hidden_match.attention out"
            )
        return {kind: maps[0] for kind, maps in found.items()}

    def _ends_in(self, layer: int) -> nn.Module:
        """Return the module whose output is a layer's state, as in transformers' `hidden_states`."""
        norms = [getattr(self.encoder, name) for name in _LAST_NORMS if hasattr(self.encoder, name)]
        module: nn.Module = norms[0] if norms and layer == len(self) - 1 else self.stack[layer]
        return module

    def _is_fused(self, layer: int) -> bool:
        return len({id(module) for module in self._maps[layer].values()}) == 1

    @contextmanager
    def watched(
        self, states: Collection[int], vectors: Collection[int], embeddings: bool
    ) -> Iterator[list[SeenLayers]]:
        """Yield a list to which each forward pass inside the block appends its recorded tensors.

        :param states: layers whose states are recorded
        :param vectors: layers whose queries, keys and values are recorded
        :param embeddings: record the input of the first layer
        """
        modules: dict[str, nn.Module] = {f"state {layer}": self._ends_in(layer) for layer in states}
        modules |= {_EMBEDDINGS: self.stack[0]} if embeddings else {}
        for layer in vectors:
            modules |= {f"{kind} {layer}": module for kind, module in self._maps[layer].items()}
        passes: list[SeenLayers] = []
        tensors: dict[str, Tensor] = {}

        def note(name: str, inputs: tuple[Tensor, ...], output: Any) -> None:
            if name == _END:
                passes.append(self._seen(tensors, states, vectors))
                tensors.clear()
                return
            value = inputs[0] if name == _EMBEDDINGS else output if isinstance(output, Tensor) else output[0]
            tensors.setdefault(name, value)  # keep the first call: DeBERTa applies the maps to positions afterwards

        # sentence-transformers calls the encoder's `forward` directly, so hooks of the encoder would not run
        with hooked({**modules, _END: self.module}, note):
            yield passes

    def _seen(self, tensors: Mapping[str, Tensor], states: Collection[int], vectors: Collection[int]) -> SeenLayers:
        return SeenLayers(
            tensors.get(_EMBEDDINGS),
            {layer: tensors[f"state {layer}"] for layer in states},
            {layer: self._vectors(tensors, layer) for layer in vectors},
        )

    def _vectors(self, tensors: Mapping[str, Tensor], layer: int) -> dict[Vectors, Tensor]:
        if self._is_fused(layer):
            parts = tensors[f"queries {layer}"].chunk(3, dim=-1)
            return dict(zip(get_args(Vectors), parts, strict=True))
        return {kind: tensors[f"{kind} {layer}"] for kind in get_args(Vectors)}
