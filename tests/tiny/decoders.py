"""Tiny random decoders with tokenizers: embedders in the form of Qwen3-Embedding and e5-mistral."""

from pathlib import Path

from tests.tiny.conftest import SENTENCES

QUERY_PROMPT = "Instruct: 백엔드 Python developer\nQuery: "
DECODERS = ("qwen3", "mistral", "gemma3_text")


def plain_decoder(folder: Path, family: str) -> Path:
    """Write a language model, as `AutoModelForCausalLM` saves it: its tokenizer pads on the left and ends a text with EOS."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from distill.models.backbone import fresh_backbone
    from distill.models.modeling import quiet
    from distill.recipe.schema import FreshBackbone

    settings = FreshBackbone(vocabulary=300, layers=1, width=32, heads=2, max_length=96)
    tokenizer = AutoTokenizer.from_pretrained(
        fresh_backbone(settings, SENTENCES * 20, seed=1, folder=folder / "tokens")
    )
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <|im_end|>",
        pair="$A $B <|im_end|>",
        special_tokens=[("<|im_end|>", tokenizer.eos_token_id)],
    )
    tokenizer.padding_side = "left"
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        sliding_window=64,
        initializer_range=0.4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with quiet():
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / "plain")
        tokenizer.save_pretrained(folder / "plain")
    return folder / "plain"


def decoder_embedder(folder: Path, family: str) -> Path:
    """Write it as an embedder: the last token's state, in unit length, with an instruction before queries."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    from distill.models.modeling import quiet

    with quiet():
        body = Transformer(str(plain_decoder(folder, family)), max_seq_length=96)
        modules = [body, Pooling(body.get_embedding_dimension(), pooling_mode="lasttoken"), Normalize()]
        model = SentenceTransformer(modules=modules, device="cpu", prompts={"query": QUERY_PROMPT, "document": ""})
        model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"
