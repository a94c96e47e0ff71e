"""The rows of a model's word embeddings, and everything else that counts tokens: decoder, biases, the config's ids.

A model is changed in place and stays an ordinary model of its class, with another `vocab_size` in its config.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distill.errors import BadInput

__all__ = ["padding_position", "replace_vocabulary", "token_ids_of_config", "word_embedding"]


def word_embedding(transformer: Any) -> Any:
    """Return the embedding module of a transformers encoder. *Shape:* its weight is (n_tokens, width).

    :raises BadInput: if it is not an ordinary embedding
    """
    from torch import nn

    found = transformer.get_input_embeddings()
    if not isinstance(found, nn.Embedding):
        raise BadInput(
            f"{type(transformer).__name__} has no word embeddings of the ordinary kind; its vocabulary stays"
        )
    return found


def padding_position(transformer: Any) -> int | None:
    """Return the padding id that positions are counted from (RoBERTa family, MPNet); None if positions start at 0."""
    from torch import nn

    found = {
        module.padding_idx
        for module in transformer.modules()
        if not isinstance(module, nn.Embedding) and isinstance(getattr(module, "padding_idx", None), int)
    }
    return min(found, default=None)


def token_ids_of_config(config: Any) -> dict[str, int]:
    """Return the token ids that a config names, such as {"pad_token_id": 1}."""
    return {
        name: value
        for name, value in vars(config).items()
        if name.endswith("_token_id") and isinstance(value, int) and not isinstance(value, bool)
    }


def replace_vocabulary(
    transformer: Any, rows_of: Callable[[Any], Any], n_tokens: int, new_ids: Mapping[int, int]
) -> None:
    """Replace a model's word embeddings, in place; type, weight tying and training state are kept.

    :param rows_of: makes new rows from old ones, for embeddings, decoder and bias. *Shape:* (n_old, …) → (n_tokens, …)
    :param new_ids: the new id of each old id that a config or a padding index may name
    :raises BadInput: if positions are counted from a padding id that would change
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
    for name, old_id in token_ids_of_config(config).items():
        setattr(config, name, new_ids.get(old_id))  # an id without a token had no meaning before either


def _counting_tokens(transformer: Any, embedding: Any) -> Sequence[tuple[Any, str]]:
    """Return (module, parameter name) of everything with one row per token: embeddings, decoder, its biases."""
    found = [(embedding, "weight")]
    decoder = transformer.get_output_embeddings()
    if decoder is None:
        return found
    names = {id(module): name for name, module in transformer.named_modules()}
    head = transformer.get_submodule(names[id(decoder)].rpartition(".")[0])
    found.append((decoder, "weight"))
    for module in (decoder, head):  # BERT and RoBERTa have a second bias beside the decoder, tied to the decoder's own
        bias = module._parameters.get("bias")
        if bias is not None and bias.shape == (embedding.num_embeddings,):
            found.append((module, "bias"))
    return found


def _replaced(parameter: Any, rows_of: Callable[[Any], Any], replaced: dict[int, Any]) -> Any:
    """Return the replaced parameter; tied parameters stay tied."""
    from torch import nn

    if id(parameter) not in replaced:
        rows = rows_of(parameter.detach()).to(parameter.dtype).contiguous()
        # the old parameter is kept alive, so that no new object gets its id meanwhile
        replaced[id(parameter)] = (nn.Parameter(rows, requires_grad=parameter.requires_grad), parameter)
    return replaced[id(parameter)][0]
