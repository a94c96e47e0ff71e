"""Tiny random models that compare tokens: a folder like BAAI/bge-m3's, and ColBERTs of three makes."""

import json

from tests.tiny.conftest import SENTENCES, sharpen

WIDTH, POSITIONS = 32, 96


def _encoder(folder, tokenizer):
    """A random encoder with a tokenizer of the sentences; its weights are large, so that texts differ."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from distill.models.backbone import fresh_backbone
    from distill.models.modeling import quiet
    from distill.recipe.schema import FreshBackbone

    settings = FreshBackbone(
        tokenizer=tokenizer, vocabulary=300, layers=2, width=WIDTH, heads=2, feed_forward=64, max_length=POSITIONS
    )
    source = fresh_backbone(settings, SENTENCES * 20, seed=1, folder=folder / "backbones")
    with quiet():
        model = AutoModel.from_pretrained(source, dtype=torch.float32)
        sharpen(model)
        with (
            torch.no_grad()
        ):  # or the first token's state, which differs by what it attends to, is nearly the same of all texts
            for name, parameter in model.named_parameters():
                if "attention" in name and ("value.weight" in name or "dense.weight" in name):
                    parameter.mul_(32)
                elif "word_embeddings" in name:
                    parameter.mul_(4)
        model.save_pretrained(folder / "encoder")
        AutoTokenizer.from_pretrained(source).save_pretrained(folder / "encoder")
    return folder / "encoder"


def linear(n_out, seed):
    """The tensors of a random linear layer; a token's weight is small, so that a lexical match is no more than a cosine."""
    import torch

    generator, size = torch.Generator().manual_seed(seed), 0.02 if n_out == 1 else 0.2
    tensors = {
        "weight": torch.randn(n_out, WIDTH, generator=generator),
        "bias": torch.randn(n_out, generator=generator),
    }
    return {name: size * tensor for name, tensor in tensors.items()}


def build_m3(folder, *, modules=True):
    """Write a folder of the form of BAAI/bge-m3: XLM-RoBERTa, CLS pooling, Normalize, and both heads as .pt.

    :param modules: False leaves modules.json out, as a folder that FlagEmbedding has trained
    """
    import torch

    from distill.models.modeling import build_model, save_model

    encoder = _encoder(folder, "unigram")
    if modules:
        save_model(build_model("bi_encoder", encoder, pooling="cls", max_length=POSITIONS - 2), folder / "m3")
    else:
        encoder.rename(folder / "m3")
    torch.save(linear(1, seed=3), folder / "m3" / "sparse_linear.pt")
    torch.save(linear(WIDTH, seed=4), folder / "m3" / "colbert_linear.pt")
    return folder / "m3"


def build_late(folder, *, expansion=None, skipped=(), prompts=None, document_length=None):
    """Write a folder of sentence-transformers' MultiVectorEncoder."""
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    from distill.models.modeling import quiet

    torch.manual_seed(5)
    with quiet():
        transformer = Transformer(
            str(_encoder(folder, "wordpiece")), query_expansion=expansion, document_length=document_length
        )
        projection = Dense(
            WIDTH, 8, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"
        )
        mask, unit = MultiVectorMask(skiplist_words=list(skipped)), Normalize(module_input_name="token_embeddings")
        model = MultiVectorEncoder(modules=[transformer, projection, mask, unit], prompts=prompts, device="cpu")
        model.max_seq_length = POSITIONS
        model.save_pretrained(str(folder / "late"), create_model_card=False)
    return folder / "late"


def as_pylate(folder):
    """Turn a folder of `build_late` into one as PyLate writes it: Transformer and its own Dense, markers and lengths in the config."""
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))[:2]
    modules[1]["type"] = "pylate.models.Dense.Dense"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    stated = {
        "model_type": "ColBERT",
        "prompts": {},
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 16,
        "document_length": 48,
        "attend_to_expansion_tokens": False,
        "skiplist_words": [",", "."],
        "do_query_expansion": True,
    }
    (folder / "config_sentence_transformers.json").write_text(json.dumps(stated), encoding="utf-8")
    lengths = {"max_seq_length": POSITIONS, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(lengths), encoding="utf-8")
    return folder


def as_stanford(folder):
    """Turn a folder of `build_late` into one as Stanford's ColBERT writes it: encoder and projection in one file."""
    from safetensors.torch import load_file, save_file

    tensors = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    tensors |= load_file(folder / "1_Dense" / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}), encoding="utf-8")
    stated = {"query_maxlen": 20, "doc_maxlen": 44, "query_token_id": "[unused0]", "doc_token_id": "[unused1]"}
    (folder / "artifact.metadata").write_text(json.dumps(stated), encoding="utf-8")
    return folder
