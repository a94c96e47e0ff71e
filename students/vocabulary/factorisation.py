"""Word embeddings as a product of two smaller matrices, for a vocabulary that must not shrink.

W ≈ 1 bᵀ + A B with A (n_tokens, rank) and B (rank, width): the mean of the rows, and a truncated SVD of the rest, which
is the best approximation of that rank. 250 002 × 384 at rank 128 is a third of the parameters.

The factors need a class that stock transformers can load. ALBERT and ELECTRA have their own embedding size, but
normalise *before* they project: LayerNorm over `rank` values, then B, is another function than BERT's LayerNorm over
`width` values of A B + positions + types. MobileBERT projects first and adds positions and types at full width, as
needed here. Without its bottlenecks, with one feed-forward network and ordinary LayerNorms, its layers are BERT's
layers. So a factorised BERT is an ordinary `MobileBertModel`. RoBERTa and XLM-R count positions from the padding id on.
For texts padded on the right these are consecutive positions, so MobileBERT's table is theirs without the first rows.

MobileBERT builds some of its LayerNorms with torch's ε of 1e-5, whatever the config says (BERT's is 1e-12). For this
reason alone, a factorisation of full rank is not bit-identical to its source.
"""

from dataclasses import asdict, dataclass
from typing import Any

from distill.errors import BadInput
from students.vocabulary.word_embeddings import padding_position, word_embedding

__all__ = ["FactorisationReport", "factorise_embeddings"]

_LIKE_BERT = ("bert", "roberta", "xlm-roberta", "camembert", "electra")


@dataclass(frozen=True)
class FactorisationReport:
    """What a factorisation keeps.

    :param energy: share of the squared distances of the rows from their mean that the factors keep
    """

    rank: int
    width: int
    n_parameters: tuple[int, int]
    energy: float

    def to_json(self) -> dict[str, Any]:
        """Return the report for a card."""
        return asdict(self)


def factorise_embeddings(
    transformer: Any, tokenizer: Any, rank: int, frequencies: Any = None
) -> tuple[Any, FactorisationReport]:
    """Return a `MobileBertModel` of the same layers whose word embeddings are factors of the given rank.

    :param frequencies: how often each token is used, as weights of the squared errors; None gives all tokens the same
        weight. *Shape:* (n_tokens,)
    :raises BadInput: for an architecture that has no factorised class in transformers
    """
    import torch
    from transformers import MobileBertModel

    _check(transformer, tokenizer, rank)
    rows = word_embedding(transformer).weight.detach()
    position = padding_position(transformer)
    first_place = 0 if position is None else position + 1
    config = _config(transformer.config, tokenizer.pad_token_id, rank, first_place)
    factorised = MobileBertModel(config, add_pooling_layer=False).to(rows.dtype)
    with torch.no_grad():
        factors, projection, mean, energy = _factors(rows, rank, frequencies)
        target, source = factorised.embeddings, transformer.embeddings
        if rank < config.hidden_size:
            target.word_embeddings.weight.copy_(factors)
            target.embedding_transformation.weight.copy_(projection.T)
            target.embedding_transformation.bias.copy_(mean)
        else:  # MobileBERT uses no projection between equal sizes
            target.word_embeddings.weight.copy_(rows)
        target.position_embeddings.weight.copy_(source.position_embeddings.weight[first_place:])
        target.token_type_embeddings.weight.copy_(source.token_type_embeddings.weight)
        target.LayerNorm.load_state_dict(source.LayerNorm.state_dict())
        factorised.encoder.load_state_dict(transformer.encoder.state_dict())  # the same layers, name by name
    return factorised.train(transformer.training), FactorisationReport(
        rank=rank,
        width=config.hidden_size,
        n_parameters=(transformer.num_parameters(), factorised.num_parameters()),
        energy=energy,
    )


def _check(transformer: Any, tokenizer: Any, rank: int) -> None:
    config, name = transformer.config, type(transformer).__name__
    if config.model_type not in _LIKE_BERT:
        raise BadInput(
            f"embedding_rank: {name} has no factorised form in transformers (its position or attention scheme is its own); {', '.join(_LIKE_BERT)} have; trim the vocabulary instead"
        )
    width = config.hidden_size
    if not 1 <= rank <= width:
        raise BadInput(f"embedding_rank {rank}: the embeddings of {name} are {width} wide; give less than that")
    if word_embedding(transformer).embedding_dim != width:
        raise BadInput(f"embedding_rank: the embeddings of {name} are factorised already")
    if getattr(config, "is_decoder", False) or not hasattr(transformer, "embeddings"):
        raise BadInput(f"embedding_rank: {name} is no bare encoder; give the encoder without its head")
    if padding_position(transformer) is not None and tokenizer.padding_side != "right":
        raise BadInput(
            f"embedding_rank: {name} counts positions from the first real token, a factorised one from the first of all; its tokenizer pads on the left, where these differ; set padding_side to right"
        )


def _config(config: Any, pad_token_id: int, rank: int, first_place: int) -> Any:
    from transformers import MobileBertConfig

    same = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_act",
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "type_vocab_size",
        "initializer_range",
        "layer_norm_eps",
    )
    return MobileBertConfig(
        **{name: getattr(config, name) for name in same},
        max_position_embeddings=config.max_position_embeddings - first_place,
        pad_token_id=pad_token_id,
        embedding_size=rank,
        trigram_input=False,
        use_bottleneck=False,
        num_feedforward_networks=1,
        key_query_shared_bottleneck=False,
        normalization_type="layer_norm",
        classifier_activation=False,
    )


def _factors(rows: Any, rank: int, frequencies: Any) -> tuple[Any, Any, Any, float]:
    """Return (A, B, b, energy): the A B + b of that rank with the least squared error, weighted by frequency.

    *Shape:* rows: (n_tokens, width); A: (n_tokens, rank); B: (rank, width); b: (width,)
    """
    import torch

    doubles = rows.double()
    weights = (
        torch.ones(len(doubles), dtype=torch.double) if frequencies is None else torch.as_tensor(frequencies).double()
    )
    weights = (weights / weights.sum())[:, None]
    mean = (weights * doubles).sum(dim=0)
    centred = doubles - mean
    squares, directions = torch.linalg.eigh(centred.T @ (weights * centred))  # ascending; (width,), (width, width)
    kept = directions[:, -rank:].flip(1)
    factors = centred @ kept
    energy = float(squares[-rank:].clamp_min(0).sum() / squares.clamp_min(0).sum().clamp_min(1e-300))
    return factors, kept.T, mean, energy
