"""The rows of a model's word embeddings, and whatever else in it counts tokens: a tied decoder, its bias, the config's ids.

A model is changed in place and stays what its class says: another `vocab_size` in an ordinary config.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distill.errors import BadInput

__all__ = ["padding_position", "replace_vocabulary", "token_ids_of_config", "word_embedding"]


def word_embedding(transformer: Any) -> Any:
    """Return the embedding module of a transformers encoder. *Shape:* its weight is (n_tokens, width).

    :raises BadInput: where it has none of the ordinary kind
    """
    from torch import nn

    found = transformer.get_input_embeddings()
    if not isinstance(found, nn.Embedding):
        raise BadInput(
            f"{type(transformer).__name__} has no word embeddings of the ordinary kind; its vocabulary stays"
        )
    return found


def padding_position(transformer: Any) -> int | None:
    """Return the padding id that positions are counted from (RoBERTa's family and MPNet); None where they start at 0."""
    from torch import nn

    found = {
        module.padding_idx
        for module in transformer.modules()
        if not isinstance(module, nn.Embedding) and isinstance(getattr(module, "padding_idx", None), int)
    }
    return min(found, default=None)


def token_ids_of_config(config: Any) -> dict[str, int]:
    """Return the token ids that a config names, as {"pad_token_id": 1}."""
    return {
        name: value
        for name, value in vars(config).items()
        if name.endswith("_token_id") and isinstance(value, int) and not isinstance(value, bool)
    }


def replace_vocabulary(
    transformer: Any, rows_of: Callable[[Any], Any], n_tokens: int, new_ids: Mapping[int, int]
) -> None:
    """Give a model other word embeddings, in place: type, tying and training state are kept.

    :param rows_of: makes new rows of old ones, for embeddings, decoder and bias alike. *Shape:* (n_old, …) → (n_tokens, …)
    :param new_ids: the new id of each old one that a config or a padding index may name
    :raises BadInput: where positions are counted from a padding id that would move
    """
    embedding, config = word_embedding(transformer), transformer.config
    offset = padding_position(transformer)
    if offset is not None and new_ids.get(offset) != offset:
        raise BadInput(
            f"{type(transformer).__name__} counts positions from padding id {offset}, which would become {new_ids.get(offset)}; its tokenizer must keep it"
        )
    replaced: dict[int, Any] = {}
    for module, name in _counting_tokens(transformer, embedding):
        setattr(module, name, _replaced(getattr(module, name), rows_of, replaced))
    embedding.num_embeddings = n_tokens
    if embedding.padding_idx is not None:
        embedding.padding_idx = new_ids.get(embedding.padding_idx)
    decoder = transformer.get_output_embeddings()
    if decoder is not None:
        decoder.out_features = n_tokens
    config.vocab_size = n_tokens
    for name, old in token_ids_of_config(config).items():
        setattr(config, name, new_ids.get(old))  # an id that no token had meant nothing before, either


def _counting_tokens(transformer: Any, embedding: Any) -> Sequence[tuple[Any, str]]:
    """Return (module, parameter name) of all that has one row for each token: embeddings, decoder, its biases."""
    found = [(embedding, "weight")]
    decoder = transformer.get_output_embeddings()
    if decoder is None:
        return found
    names = {id(module): name for name, module in transformer.named_modules()}
    head = transformer.get_submodule(names[id(decoder)].rpartition(".")[0])
    found.append((decoder, "weight"))
    for module in (decoder, head):  # BERT and RoBERTa keep a bias beside the decoder, tied to the one in it
        bias = module._parameters.get("bias")
        if bias is not None and bias.shape == (embedding.num_embeddings,):
            found.append((module, "bias"))
    return found


def _replaced(parameter: Any, rows_of: Callable[[Any], Any], replaced: dict[int, Any]) -> Any:
    """Replace a parameter; what was one parameter in two places is one again."""
    from torch import nn

    if id(parameter) not in replaced:
        rows = rows_of(parameter.detach()).to(parameter.dtype).contiguous()
        # the old one is kept beside the new: its id is not given to another meanwhile
        replaced[id(parameter)] = (nn.Parameter(rows, requires_grad=parameter.requires_grad), parameter)
    return replaced[id(parameter)][0]
