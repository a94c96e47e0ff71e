"""Losses: pure functions of tensors, each with its formula, reduction, shapes, paper and a worked number.

All are means, over pairs, over queries or over texts as said; none has a hidden scale. Temperatures divide logits, and
losses with a temperature carry τ², so that their gradient keeps its size as τ grows (Hinton et al. 2015). Scores and
embeddings are expected in float32: autocast ends before the loss.

    pointwise   a pair's score, a text's embedding            any split of a batch gives the same mean
    lists       the candidates of a query                     the same: a query is never split
    in_batch    the pairs of a step against each other        needs the whole step
    relations   the texts of a step to each other             needs the whole step
    layers      hidden states and relations of tokens         any split of a batch gives the same mean
"""

from distill.training.losses.in_batch import cosent, false_negatives, in_batch_infonce
from distill.training.losses.layers import attention_kl, attention_mse, relation_kl, token_cosine, token_mse
from distill.training.losses.lists import (
    LambdaScheme,
    adr_mse,
    kl_divergence,
    lambda_loss,
    list_mle,
    listnet,
    margin_mse,
    ranknet,
)
from distill.training.losses.pointwise import bce, contrastive, embedding_cosine, embedding_mse, mse
from distill.training.losses.relations import cka, rkd_angle, rkd_distance, similarity_kl, similarity_mse

__all__ = [
    "LambdaScheme",
    "adr_mse",
    "attention_kl",
    "attention_mse",
    "bce",
    "cka",
    "contrastive",
    "cosent",
    "embedding_cosine",
    "embedding_mse",
    "false_negatives",
    "in_batch_infonce",
    "kl_divergence",
    "lambda_loss",
    "list_mle",
    "listnet",
    "margin_mse",
    "mse",
    "ranknet",
    "relation_kl",
    "rkd_angle",
    "rkd_distance",
    "similarity_kl",
    "similarity_mse",
    "token_cosine",
    "token_mse",
]
