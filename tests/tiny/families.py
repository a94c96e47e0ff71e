"""Tiny random encoders of eight families, as whole model folders with a tokenizer."""

from pathlib import Path

from tests.tiny.conftest import SENTENCES, sharpen

BERT, ROBERTA = "wordpiece", "unigram"  # the second kind counts positions from behind the padding id, which is 1
FAMILIES = {
    "bert": BERT,
    "electra": BERT,
    "distilbert": BERT,
    "modernbert": BERT,
    "deberta-v2": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "mpnet": ROBERTA,
}
MAX_LENGTH = 96


def build_family(folder: Path, family: str, kind: str, *, own_head: bool = False, pooling: str = "mean") -> Path:
    """Write a two-layer model; `own_head` makes it a transformers classifier with one label, as rerankers are."""
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    from distill.models.backbone import fresh_backbone
    from distill.models.modeling import build_model, quiet, save_model
    from distill.recipe.schema import FreshBackbone

    settings = FreshBackbone(
        tokenizer=FAMILIES[family], vocabulary=200, layers=1, width=32, heads=2, max_length=MAX_LENGTH
    )
    source = fresh_backbone(settings, SENTENCES * 20, seed=1, folder=folder / "backbones")
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(source)
        torch.manual_seed(2)
        model_class = AutoModelForSequenceClassification if own_head else AutoModel
        model = model_class.from_config(_config(family, tokenizer))
        sharpen(model)
        encoder = folder / "encoder"
        model.save_pretrained(encoder)
        tokenizer.save_pretrained(encoder)
        head = None if own_head or kind == "bi_encoder" else (16,)
        made = build_model(kind, encoder, pooling=None if own_head else pooling, head=head, max_length=MAX_LENGTH)
        save_model(made, folder / "model")
    return folder / "model"


def _config(family, tokenizer):
    from transformers import AutoConfig

    positions = MAX_LENGTH + 2 if FAMILIES[family] == ROBERTA else MAX_LENGTH
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": positions,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "num_labels": 1,
    }
    if family == "distilbert":
        sizes = {**sizes, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
            del sizes[name]
    own = {
        "roberta": {"type_vocab_size": 1},
        "xlm-roberta": {"type_vocab_size": 1},
        "electra": {"embedding_size": 16},
        # windows of 8 tokens: a mask without them is another result
        "modernbert": {
            "local_attention": 16,
            "global_attn_every_n_layers": 2,
            "cls_token_id": tokenizer.cls_token_id,
            "sep_token_id": tokenizer.sep_token_id,
            "bos_token_id": tokenizer.cls_token_id,
            "eos_token_id": tokenizer.sep_token_id,
        },
        "deberta-v2": {
            "relative_attention": True,
            "position_buckets": 16,
            "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    }
    return AutoConfig.for_model(family, **sizes, **own.get(family, {}))
