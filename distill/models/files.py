"""Read what a model folder states about itself, from its JSON files and tokenizer.json only.

This module imports neither torch nor transformers: they take seconds to import, and running a graph needs neither.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distill.errors import BadInput, loading
from distill.files.artefact import ModelKind, check_model_folder, is_static_module, read_routes
from distill.files.trust import load_auto, read_json

__all__ = [
    "GRAPHS",
    "PRECISIONS",
    "RUNTIMES",
    "TRANSFORMER_ALONE",
    "WHOLE_MODEL",
    "LightTokenizer",
    "ModelFiles",
    "Precision",
    "Runtime",
    "check_ids",
    "fitting_modules",
    "graph_output",
    "length_limit",
    "open_tokenizer",
    "read_model_files",
    "read_sides",
    "static_tokenizer",
    "usable_positions",
]

Runtime = Literal["torch", "openvino", "onnx", "numpy"]
Precision = Literal["fp32", "bf16"]
RUNTIMES, PRECISIONS = ("torch", "openvino", "onnx", "numpy"), ("fp32", "bf16")

WHOLE_MODEL = ("sentence_embedding", "logits")  # names of graph outputs that are the final result
TRANSFORMER_ALONE = ("last_hidden_state", "token_embeddings")  # graph outputs that other modules of the folder process

GRAPHS: Mapping[Runtime, tuple[str, ...]] = {
    "openvino": ("openvino/openvino_model.xml", "openvino_model.xml"),
    "onnx": ("onnx/model.onnx", "model.onnx"),
}
# the positions of these models start after the padding id, which is 1 if the config names none
_OFFSET_POSITIONS = (
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
    "camembert",
    "mpnet",
    "longformer",
    "data2vec-text",
    "ibert",
    "luke",
    "lilt",
    "markuplm",
)
_DEFAULT_PAD_ID = 1
_OF_WIDTHS = ("shape", "mismatch in its core dimension")  # in messages of torch and numpy about mismatched shapes
_NO_LIMIT = 10**30  # the value of transformers for a tokenizer that states no limit


@dataclass(frozen=True)
class ModelFiles:
    """A complete model folder: `modules` as in modules.json, `settings` and `config` of the transformer, prompts."""

    folder: Path
    kind: ModelKind
    modules: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    config: Mapping[str, Any]
    prompts: Mapping[str, str]
    default_prompt_name: str | None

    @property
    def transformer_folder(self) -> Path:
        """The folder of the transformer's config and tokenizer."""
        return self.folder / str(self.modules[0]["path"])

    @property
    def model_options(self) -> Mapping[str, Any]:
        """The options that stock code passes to the transformer's loader (`model_kwargs`, formerly `model_args`)."""
        return self.settings.get("model_kwargs") or self.settings.get("model_args") or {}

    @property
    def is_static(self) -> bool:
        """Whether the model is a table of token vectors, without a transformer."""
        return is_static_module(self.modules[0])

    @property
    def is_generative(self) -> bool:
        """Whether the model is a decoder that answers yes or no to a pair, with sentence-transformers' LogitScore."""
        return any(str(module["type"]).endswith(".LogitScore") for module in self.modules)

    @property
    def held_runtime(self) -> Runtime:
        """The default runtime: numpy for a static model, else that of a graph in the folder, else torch."""
        if self.is_static:
            return "numpy"
        return next((runtime for runtime in GRAPHS if self.graph(runtime) is not None), "torch")

    @property
    def stated_width(self) -> int | None:
        """The width of the embeddings as the last Dense layer states it; None without one."""
        dense = [module for module in self.modules if str(module["type"]).endswith(".Dense")]
        width = _read(self.folder / str(dense[-1]["path"]) / "config.json").get("out_features") if dense else None
        return width if isinstance(width, int) else None

    def graph(self, runtime: Runtime) -> Path | None:
        """Return the graph file for a runtime; None if the folder has none."""
        paths = (base / name for base in (self.transformer_folder, self.folder) for name in GRAPHS[runtime])
        return next((path for path in paths if path.is_file()), None)


def read_model_files(folder: Path) -> ModelFiles:
    """Read a model folder, written by this toolkit or by sentence-transformers.

    :raises BadInput: if a file is missing or is not valid JSON
    """
    with loading(str(folder)):
        return _files(folder, check_model_folder(folder), read_json(folder / "modules.json", list))


def read_sides(folder: Path) -> dict[str, ModelFiles] | None:
    """Read a sentence-transformers Router as two models, "query" and "document"; return None for a single model.

    :raises BadInput: if a file is missing or is not valid JSON
    """
    with loading(str(folder)):
        kind, routes = check_model_folder(folder), read_routes(folder)
        return None if routes is None else {side: _files(folder, kind, modules) for side, modules in routes.items()}


def _files(folder: Path, kind: ModelKind, modules: Sequence[Mapping[str, Any]]) -> ModelFiles:
    base = folder / modules[0]["path"]
    # the current file name, or one of its older names
    settings_paths = [base / "sentence_bert_config.json", *sorted(base.glob("sentence_*_config.json"))]
    settings = next((path for path in settings_paths if path.is_file()), None)
    stored = _read(folder / "config_sentence_transformers.json")
    return ModelFiles(
        folder,
        kind,
        modules,
        {} if settings is None else _read(settings),
        _read(base / "config.json"),
        stored.get("prompts") or {},
        stored.get("default_prompt_name"),
    )


def _read(path: Path) -> Any:
    return read_json(path) if path.exists() else {}


def check_ids(files: ModelFiles, ids: Any, n_rows: int | None = None) -> None:
    """Check that all token ids have a row in the embedding table.

    *Shape:* ids: any, integers

    :param n_rows: rows of the table; None is the vocabulary size in config.json
    :raises BadInput: naming the id; torch would fail without naming it, and a graph could read memory beyond the table
    """
    table_rows = files.config.get("vocab_size") if n_rows is None else n_rows
    if isinstance(table_rows, int) and ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < table_rows:
        raise BadInput(
            f"{files.folder}: its tokenizer gives the id {int(ids.max())}, its table of embeddings has {table_rows} rows; "
            "tokenizer and weights are not of one model, copy the folder again"
        )


@contextmanager
def fitting_modules(files: ModelFiles) -> Iterator[None]:
    """Turn errors of modules that do not fit together into BadInput; use it around the code that runs the modules.

    :raises BadInput: if a module needs an input that no earlier module gives, has another width, or states a wrong name
    """
    try:
        yield
    except KeyError as missing:
        raise BadInput(
            f"{files.folder}: no module of its modules.json gives {missing.args[0]}; copy the folder again"
        ) from None
    except TypeError as error:
        raise BadInput(
            f"{files.folder}: a module's config.json states what is no name ({error}); copy the folder again"
        ) from None
    except (RuntimeError, ValueError) as error:
        if not any(word in str(error) for word in _OF_WIDTHS):  # such as out of memory
            raise
        raise BadInput(
            f"{files.folder}: the widths of its modules do not fit ({error}); copy the folder again"
        ) from None


def length_limit(config: Mapping[str, Any], wanted: int | None, model_max_length: int) -> int:
    """Return the maximum number of tokens of a model: the setting, limited to the positions that the model has.

    :param wanted: the setting; None is `model_max_length` of the tokenizer

    >>> length_limit({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, None, 10**30)
    512
    """
    positions = usable_positions(config)
    limit = wanted or model_max_length
    return int(min(limit, 8192 if positions is None else positions))


def usable_positions(config: Mapping[str, Any]) -> int | None:
    """Return for how many tokens a model has positions, from its config; None if it has no position table.

    The RoBERTa family starts after the padding id: of 514 rows, 512 can be used with padding id 1, and 510 with 3.

    >>> usable_positions({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 3})
    510
    >>> usable_positions({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 3})
    512
    """
    positions = config.get("max_position_embeddings")
    if not positions or positions < 0:
        return None
    if config.get("model_type") not in _OFFSET_POSITIONS:
        return int(positions)
    pad_id = config.get("pad_token_id")
    fixed = config.get("model_type") == "mpnet"  # transformers always uses 1 for MPNet, whatever the config says
    return int(positions) - (_DEFAULT_PAD_ID if pad_id is None or fixed else int(pad_id)) - 1


def graph_output(graph: object, names: Sequence[str], *, tokens_first: bool = False) -> str:
    """Return the name of the graph output to read: the final result if there is one, else the token embeddings.

    :param tokens_first: prefer the token embeddings
    :raises BadInput: if the graph has neither
    """
    accepted = (*TRANSFORMER_ALONE, *WHOLE_MODEL) if tokens_first else (*WHOLE_MODEL, *TRANSFORMER_ALONE)
    for name in accepted:
        if name in names:
            return name
    raise BadInput(f"{graph} gives {', '.join(names)}; one of {', '.join(accepted)} is needed: export the model again")


# ---------------------------------------------------------------------------------------------------------------------
# The tokenizer
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LightTokenizer:
    """A tokenizer.json with the attributes of a transformers tokenizer that `distill.data.tokens` uses."""

    backend_tokenizer: Any
    model_input_names: Sequence[str]
    pad_token_id: int | None
    truncation_side: str
    model_max_length: int
    is_fast: bool = True


def static_tokenizer(backend: Any) -> LightTokenizer:
    """Wrap the tokenizer of a static model: no special tokens, no padding; its truncation gives the length limit."""
    backend.post_processor = None
    backend.no_padding()
    limit = backend.truncation or {"max_length": _NO_LIMIT, "direction": "right"}
    return LightTokenizer(backend, ("input_ids", "attention_mask"), 0, limit["direction"], limit["max_length"])


def open_tokenizer(files: ModelFiles) -> Any:
    """Open the folder's tokenizer; a folder without tokenizer.json (old or slow tokenizers) needs transformers."""
    base = files.transformer_folder
    if files.is_static:
        from tokenizers import Tokenizer

        return static_tokenizer(Tokenizer.from_file(str(base / "tokenizer.json")))
    if not (base / "tokenizer.json").is_file():
        from transformers import AutoTokenizer

        tokenizer = load_auto(AutoTokenizer, base, local_files_only=True)
        backend = getattr(tokenizer, "backend_tokenizer", None)
    else:
        from tokenizers import Tokenizer

        backend = Tokenizer.from_file(str(base / "tokenizer.json"))
        tokenizer = _light(backend, files.config, _read(base / "tokenizer_config.json"))
    if files.settings.get("do_lower_case") and backend is not None:
        _add_lower_case(backend)
    return tokenizer


def _light(backend: Any, config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> LightTokenizer:
    _set_bert_normalizer(backend, tokenizer_config)
    pad = tokenizer_config.get("pad_token")
    pad = pad.get("content") if isinstance(pad, Mapping) else pad
    pad_id = None if pad is None else backend.token_to_id(pad)
    # token types can always be given: a model with a single type ignores them, and a graph names its inputs
    names = tokenizer_config.get("model_input_names") or ["input_ids", "token_type_ids", "attention_mask"]
    return LightTokenizer(
        backend,
        names,
        config.get("pad_token_id") if pad_id is None else pad_id,
        tokenizer_config.get("truncation_side") or "right",
        int(min(tokenizer_config.get("model_max_length") or _NO_LIMIT, _NO_LIMIT)),
    )


def _set_bert_normalizer(backend: Any, tokenizer_config: Mapping[str, Any]) -> None:
    """Let tokenizer_config.json override tokenizer.json, as transformers does for BERT's own tokenizer."""
    normalizer = backend.normalizer
    if type(normalizer).__name__ != "BertNormalizer" or not str(tokenizer_config.get("tokenizer_class")).startswith(
        "BertToken"
    ):
        return
    normalizer.lowercase = tokenizer_config.get("do_lower_case", True)
    normalizer.strip_accents = tokenizer_config.get("strip_accents")
    normalizer.handle_chinese_chars = tokenizer_config.get("tokenize_chinese_chars", True)
    backend.normalizer = normalizer


def _add_lower_case(backend: Any) -> None:
    """Lower-case before the tokenizer's own normalizer, as sentence-transformers does; doing it twice is harmless."""
    from tokenizers.normalizers import Lowercase, Sequence

    backend.normalizer = Sequence([Lowercase(), *([] if backend.normalizer is None else [backend.normalizer])])
