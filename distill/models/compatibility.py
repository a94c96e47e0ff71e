"""Rewrite the settings of saved folders so that earlier releases can also read them.

sentence-transformers 6 and transformers 5 write names that only they know, but still read all earlier names. Stock
`SentenceTransformer(path, backend="onnx")` needs optimum-onnx, which supports transformers only up to 4.57, and many
serving programs are older still. With the new names, they fail with a ModuleNotFoundError or an "Unrecognized
processing class".

    modules.json                 sentence_transformers.base.modules.normalize.Normalize → sentence_transformers.models.Normalize;
                                 the same in router_config.json, where an empty route_mappings is removed
    Pooling/config.json          pooling_mode: mean → word_embedding_dimension, pooling_mode_mean_tokens: true, …
    Dense/config.json            without the names of input and output, if they are the default
    sentence_bert_config.json    without the defaults of a text encoder, with max_seq_length; model_kwargs → model_args
    tokenizer_config.json        TokenizersBackend → PreTrainedTokenizerFast, its former name; a list of
                                 extra_special_tokens → additional_special_tokens

A bi-encoder then opens in sentence-transformers 3 to 6, a Router in 5 and 6, and a cross-encoder made of modules in 5.4
to 6: before 5.4, a `CrossEncoder` could only be a sequence classifier of transformers.
"""

import json
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from distill.files.artefact import write_json
from distill.models.numpy_head import LEGACY_POOLING, pooling_modes

__all__ = ["make_portable", "pooling_flags", "portable_tokenizer"]

_Config = dict[str, Any]
_MODULE = re.compile(r"sentence_transformers\.(?:base|sentence_transformer)\.modules\.(?:\w+\.)?(\w+)")
_SHARED_MODULES = ("Dense", "Normalize", "Pooling", "Router", "StaticEmbedding", "Transformer")
_TEXT_ENCODER = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
_ONE_VECTOR = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}


def make_portable(folder: Path) -> None:
    """Rewrite the JSON files of a folder that sentence-transformers saved; unknown entries stay unchanged."""
    for path in folder.rglob("modules.json"):
        write_json(path, [{**module, "type": _shared_name(module["type"])} for module in _read(path)])
    for path in folder.rglob("router_config.json"):
        _rewrite(path, _router)
    for path in folder.rglob("*_Pooling/config.json"):
        _rewrite(path, _pooling)
    for path in folder.rglob("*_Dense/config.json"):
        _rewrite(path, lambda config: _without(config, _ONE_VECTOR))
    for path in folder.rglob("tokenizer_config.json"):
        _rewrite(path, portable_tokenizer)
    for path in folder.rglob("sentence_bert_config.json"):
        beside = path.with_name("tokenizer_config.json")
        limit = _read(beside).get("model_max_length") if beside.is_file() else None
        write_json(path, _transformer(_read(path), limit))


def pooling_flags(width: int, modes: Collection[str]) -> dict[str, Any]:
    """Return the config of a pooling layer in the form that every release up to 5.3 wrote."""
    return {"word_embedding_dimension": width, **{flag: mode in modes for flag, mode in LEGACY_POOLING.items()}}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _rewrite(path: Path, change: Callable[[_Config], _Config]) -> None:
    write_json(path, change(_read(path)))


def _shared_name(name: str) -> str:
    """Return the original name of a module, which all releases know.

    >>> _shared_name("sentence_transformers.sentence_transformer.modules.pooling.Pooling")
    'sentence_transformers.models.Pooling'
    """
    match = _MODULE.fullmatch(name)
    return f"sentence_transformers.models.{match[1]}" if match and match[1] in _SHARED_MODULES else name


def _router(config: _Config) -> _Config:
    parameters = {key: value for key, value in config.get("parameters", {}).items() if key != "route_mappings" or value}
    types = {name: _shared_name(kind) for name, kind in config["types"].items()}
    return {**config, "types": types, "parameters": parameters}


def _pooling(config: _Config) -> _Config:
    modes = pooling_modes(config)
    if not config.get("pooling_mode") or not set(modes) <= set(LEGACY_POOLING.values()):
        return config
    other_settings = {key: value for key, value in config.items() if key not in ("embedding_dimension", "pooling_mode")}
    return {**pooling_flags(config["embedding_dimension"], modes), **other_settings}


def _without(config: _Config, defaults: _Config) -> _Config:
    """Remove the default entries if all are present and unchanged, else none: a reader knows all names or none."""
    present = {key: config[key] for key in defaults if key in config}
    return {key: value for key, value in config.items() if key not in defaults} if present == defaults else config


def _transformer(config: _Config, max_length: int | None) -> _Config:
    config = _without(config, _TEXT_ENCODER)
    if "transformer_task" in config:  # not a plain text encoder; older releases cannot read it
        return config
    for new_name, old_name in (
        ("model_kwargs", "model_args"),
        ("processor_kwargs", "tokenizer_args"),
        ("config_kwargs", "config_args"),
    ):
        if new_name in config:
            config[old_name] = config.pop(new_name)
    return {"max_seq_length": max_length, "do_lower_case": False, **config}


def portable_tokenizer(config: _Config) -> _Config:
    """Return the content of tokenizer_config.json with names that earlier releases know."""
    config = {key: value for key, value in config.items() if key not in ("backend", "is_local")}
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    return config
