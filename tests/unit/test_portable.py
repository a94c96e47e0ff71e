"""Saved folders in the words of earlier releases; that those releases read them is tests/slow/test_other_readers.py."""

import json

from distill.models.compatibility import make_portable

BASE = "sentence_transformers.base.modules"


def rewritten(folder, **files):
    """Write JSON files, by their paths with / as __, make the folder portable and give them back."""
    paths = {name: folder / (name.replace("__", "/") + ".json") for name in files}
    for name, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(files[name]), encoding="utf-8")
    make_portable(folder)
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items()}


def test_modules_have_the_names_that_they_always_had(tmp_path):
    kinds = [
        f"{BASE}.transformer.Transformer",
        "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        f"{BASE}.Normalize",
        "my_package.modules.Own",
        "sentence_transformers.sentence_transformer.modules.bow.BoW",
    ]
    router = {
        "types": {"query_0_Transformer": kinds[0]},
        "structure": {"query": ["query_0_Transformer"]},
        "parameters": {"default_route": "query", "route_mappings": {}},
    }
    made = rewritten(tmp_path, modules=[{"idx": 0, "type": kind} for kind in kinds], router_config=router)
    assert [module["type"].rpartition(".")[0] for module in made["modules"]] == [
        *["sentence_transformers.models"] * 3,
        "my_package.modules",
        "sentence_transformers.sentence_transformer.modules.bow",
    ]
    assert made["router_config"]["types"] == {"query_0_Transformer": "sentence_transformers.models.Transformer"}
    assert made["router_config"]["structure"] == router["structure"]
    assert made["router_config"]["parameters"] == {"default_route": "query"}


def test_pooling_is_said_in_flags(tmp_path):
    made = rewritten(
        tmp_path,
        **{
            "1_Pooling__config": {"embedding_dimension": 8, "pooling_mode": "cls", "include_prompt": True},
            "side__2_Pooling__config": {"embedding_dimension": 8, "pooling_mode": ["mean", "max"]},
            "3_Pooling__config": {"embedding_dimension": 8, "pooling_mode": "of tomorrow"},
        },
    )
    first = made["1_Pooling__config"]
    assert first["word_embedding_dimension"] == 8 and first["include_prompt"] is True
    assert [key for key, value in first.items() if value is True] == ["pooling_mode_cls_token", "include_prompt"]
    both = made["side__2_Pooling__config"]
    assert both["pooling_mode_mean_tokens"] and both["pooling_mode_max_tokens"] and not both["pooling_mode_cls_token"]
    assert made["3_Pooling__config"] == {"embedding_dimension": 8, "pooling_mode": "of tomorrow"}


def test_what_is_the_default_is_left_out_and_what_is_not_stays(tmp_path):
    one = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    made = rewritten(
        tmp_path,
        **{
            "2_Dense__config": {"in_features": 4, **one},
            "3_Dense__config": {"in_features": 4, **one, "module_output_name": "scores"},
        },
    )
    assert made["2_Dense__config"] == {"in_features": 4}
    assert made["3_Dense__config"] == {"in_features": 4, **one, "module_output_name": "scores"}


def test_the_transformer_is_said_with_its_length(tmp_path):
    text = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
    }
    options = {"model_kwargs": {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}}
    made = rewritten(tmp_path, sentence_bert_config={**text, **options}, tokenizer_config={"model_max_length": 96})
    assert made["sentence_bert_config"] == {
        "max_seq_length": 96,
        "do_lower_case": False,
        "model_args": options["model_kwargs"],
    }
    own_head = {**text, "transformer_task": "sequence-classification"}
    assert rewritten(tmp_path, sentence_bert_config=own_head)["sentence_bert_config"] == own_head
    lower = {"do_lower_case": True, **text}
    assert rewritten(tmp_path, sentence_bert_config=lower)["sentence_bert_config"]["do_lower_case"] is True


def test_the_tokenizer_has_a_class_that_transformers_4_knows(tmp_path):
    saved = {"backend": "tokenizers", "is_local": True, "tokenizer_class": "TokenizersBackend", "pad_token": "[PAD]"}
    made = rewritten(tmp_path, tokenizer_config={**saved, "extra_special_tokens": ["<job>"]})["tokenizer_config"]
    assert made == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "[PAD]",
        "additional_special_tokens": ["<job>"],
    }
    again = rewritten(tmp_path, tokenizer_config=made)["tokenizer_config"]
    assert again == made
