"""Build sentence-transformers models around a backbone: `[Transformer, Pooling, …]`, from stock modules only.

    bi-encoder       Transformer → Pooling → (Dense into the teacher's width) → Normalize
    static           StaticEmbedding → Normalize: a bi-encoder that is a table of token vectors
    cross-encoder    Transformer → Pooling → Dense + GELU … → Dense → one score

The cross-encoder is that of the ablation: the mean of all token embeddings, an MLP, one logit. A model with its own
head (a reranker with a classification head, a bi-encoder with Dense layers) keeps it if the recipe sets neither pooling
nor head.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from distill.errors import BadInput, loading
from distill.files.artefact import (
    ModelKind,
    check_model_folder,
    check_named_settings,
    check_pair_prompt,
    check_tokenizer,
)
from distill.files.trust import NO_CODE, check_module, check_source, read_json
from distill.machine.shared_context import SharedContext
from distill.models.backbone import resolve_name
from distill.models.compatibility import make_portable
from distill.models.files import static_tokenizer, usable_positions
from distill.models.prompts import PROMPTS_FILE, give_prompts, keep_prompts, role_prompts
from distill.models.whole_weights import check_finite, whole_weights
from distill.recipe.schema import Pooling

__all__ = [
    "DEFAULT_HEAD",
    "architectures",
    "bi_encoder",
    "brings_scores",
    "build_model",
    "cross_encoder",
    "is_generative",
    "is_static",
    "lacks_of_scorer",
    "load_model",
    "loading",
    "prepared",
    "quiet",
    "replace_tokenizer",
    "replace_transformer",
    "save_model",
    "set_dropout",
    "stored_file",
    "stored_json",
    "stored_prompts",
    "tokenizer_of",
    "transformer_of",
    "without_last_norm",
]

log = logging.getLogger(__name__)
DEFAULT_HEAD = (256,)  # hidden widths of a cross-encoder's MLP


@contextmanager
def _quiet_process() -> Iterator[None]:
    from transformers.utils import logging as transformers_logging

    noisy = [logging.getLogger(name) for name in ("sentence_transformers", "transformers", "optimum", "nncf")]
    levels = [logger.level for logger in noisy]
    bars = transformers_logging.is_progress_bar_enabled()
    _set_levels(noisy, [logging.ERROR] * len(noisy))
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _set_levels(noisy, levels)
        if bars:
            transformers_logging.enable_progress_bar()


_quiet = SharedContext(_quiet_process)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the loaders' progress bars, key reports and deprecation warnings; errors are still raised."""
    with _quiet:
        yield


def _set_levels(loggers: Sequence[logging.Logger], levels: Sequence[int]) -> None:
    """Set the levels that differ: each change clears the caches of all loggers, which takes 0.3 ms."""
    for logger, level in zip(loggers, levels, strict=True):
        if logger.level != level:
            logger.setLevel(level)


def build_model(
    kind: ModelKind,
    backbone: str | Path,
    *,
    pooling: Pooling | None = None,
    head: Sequence[int] | None = None,
    max_length: int,
    prompts: tuple[str, str] | None = None,
    seed: int = 0,
    own_scorer: bool = False,
) -> Any:
    """Build a model around a backbone; new layers are initialised from `seed`.

    :param pooling: None uses the model's own pooling, or the mean
    :param head: hidden widths of a cross-encoder's MLP; None uses the model's own head, or (256,)
    :param max_length: the most tokens of a text or pair
    :param prompts: of queries and documents; None keeps those of the backbone
    :param own_scorer: True lets a generative reranker keep its LogitScore, unless `head` or `pooling` is given; False
        replaces it by a new head on the decoder
    :raises BadInput: if the name cannot be loaded
    """
    import torch

    name = resolve_name(str(backbone))
    torch.manual_seed(seed)
    with quiet(), loading(name), whole_weights(name):
        check_source(name)
        check_named_settings(Path(name))
        if kind == "bi_encoder":
            model = bi_encoder(_own_modules(name, pooling), pooling)
            settings = _prompt_settings(name)
            keep_prompts(model, settings.get("prompts"), settings.get("default_prompt_name"))
        elif (
            head is None and pooling is None and (brings_scores(name) or (own_scorer and lacks_of_scorer(name) is None))
        ):
            model = _with_own_head(name)
        else:
            model = cross_encoder(_transformer(name), pooling, head)
    check_finite(name, model)
    model = prepared(model, max_length=max_length, prompts=prompts)
    if is_generative(model):
        from distill.models.generative import check_generative

        check_generative(name, model, max_length)
    return model


def prepared(model: Any, *, max_length: int, prompts: tuple[str, str] | None) -> Any:
    """Set a model's maximum length and prompts, freeze the parameters that are never used, and return the model.

    :param prompts: of queries and documents; None keeps those of the loaded model
    """
    _set_max_length(model, max_length)
    _freeze_unused(model)
    if prompts is not None:
        give_prompts(model, prompts)
    return model


def _own_modules(name: str, pooling: Pooling | None) -> list[Any]:
    from sentence_transformers import SentenceTransformer

    modules = stored_json(name, "modules.json")
    if pooling is None and modules:
        for number, module in enumerate(modules):  # also for a hub repository, before anything of it is imported
            check_module(Path(name), module, f"modules.json: module {number}")
        return list(SentenceTransformer(name, device="cpu", model_kwargs=_model_options(), **NO_CODE))
    return [_transformer(name)]


def bi_encoder(modules: Sequence[Any], pooling: Pooling | None, output_width: int | None = None) -> Any:
    """Build a bi-encoder from a transformer, or from all modules of an existing one, whose pooling is then kept.

    :param output_width: adds a Dense layer without bias before Normalize, to map embeddings into the teacher's space
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling as PoolingModule
    from torch import nn

    body = without_last_norm(modules)
    if len(body) == 1 and not is_static(body):
        body.append(PoolingModule(body[0].get_embedding_dimension(), pooling_mode=pooling or _usual_pooling(body[0])))
    if output_width is not None:
        width = SentenceTransformer(modules=body, device="cpu").get_embedding_dimension()
        body.append(Dense(width, output_width, bias=False, activation_function=nn.Identity()))
    return SentenceTransformer(modules=[*body, Normalize()], device="cpu")


def without_last_norm(modules: Iterable[Any]) -> list[Any]:
    """Return the modules of a bi-encoder without the Normalize at its end; one before a Dense stays."""
    body = list(modules)
    while type(body[-1]).__name__ == "Normalize":
        body.pop()
    return body


def _usual_pooling(transformer: Any) -> Pooling:
    """Return "mean", or "lasttoken" for a decoder, in which only the last token attends to the whole text."""
    kinds = getattr(transformer.model.config, "architectures", None) or []
    if not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
        return "mean"
    log.info("%s is a decoder: its last token's state becomes the embedding (pooling: lasttoken)", kinds[0])
    return "lasttoken"


def cross_encoder(transformer: Any, pooling: Pooling | None, head: Sequence[int] | None) -> Any:
    """Build a cross-encoder: transformer, pooling, an MLP with the given hidden widths, one score."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Pooling as PoolingModule
    from torch import nn

    width = transformer.get_embedding_dimension()
    modules = [transformer, PoolingModule(width, pooling_mode=pooling or "mean")]
    for hidden in DEFAULT_HEAD if head is None else head:
        modules.append(Dense(width, hidden, activation_function=nn.GELU()))
        width = hidden
    modules.append(Dense(width, 1, activation_function=nn.Identity(), module_output_name="scores"))
    return CrossEncoder(modules=modules, device="cpu")


def _with_own_head(name: str) -> Any:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(name, device="cpu", model_kwargs=_model_options(), **NO_CODE)
    if model.num_labels != 1:
        raise BadInput(
            f"{name} puts out {model.num_labels} scores; a cross-encoder here has one; set head to train a new one"
        )
    if not is_generative(model):  # a generative model's template includes the prompt
        check_pair_prompt(name, model.prompts, model.default_prompt_name)
    return model


def _model_options() -> dict[str, Any]:
    # transformers 5 uses the checkpoint's dtype by default; training needs float32
    import torch

    return {"dtype": torch.float32}


def _transformer(name: str) -> Any:
    from sentence_transformers.base.modules import Transformer

    if Path(name).is_dir():
        check_tokenizer(Path(name))
    # every loader needs this option: otherwise transformers asks on a terminal whether to run the code, and "y" runs it
    return Transformer(
        name, model_kwargs={**_model_options(), **NO_CODE}, processor_kwargs={**NO_CODE}, config_kwargs={**NO_CODE}
    )


def stored_file(name: str, file_name: str) -> Path | None:
    """Return the path of a file in a model folder or hub repository; None if it does not exist."""
    from transformers.utils import cached_file

    path = cached_file(
        name, file_name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return None if path is None else Path(path)


def stored_json(name: str, file_name: str) -> dict[str, Any] | list[Any] | None:
    """Read a JSON file of a model folder or hub repository; return None if it does not exist.

    :raises BadInput: if the file is not valid JSON
    """
    path = stored_file(name, file_name)
    if path is None:
        return None
    found: dict[str, Any] | list[Any] = read_json(path, list if file_name == "modules.json" else dict)
    return found


def brings_scores(name: str) -> bool:
    """Tell whether a model has a trained scoring head: a sequence classifier's, or a Dense with output "scores"."""
    modules = stored_json(name, "modules.json")
    if not isinstance(modules, list):
        return any(architecture.endswith("ForSequenceClassification") for architecture in architectures(name))
    if len(modules) == 1:
        return any(kind.endswith("ForSequenceClassification") for kind in architectures(name, modules[0]["path"]))
    dense = [module["path"] for module in modules if str(module["type"]).endswith(".Dense")]
    configs = [stored_json(name, f"{path}/config.json") for path in dense]
    return any(isinstance(config, dict) and config.get("module_output_name") == "scores" for config in configs)


def lacks_of_scorer(name: str) -> str | None:
    """Return which part of a generative reranker's scorer is missing or not described; None if nothing is missing."""
    modules = stored_json(name, "modules.json")
    if not isinstance(modules, list):
        return "modules.json is missing"
    for number, module in enumerate(modules):
        check_module(Path(name), module, f"modules.json: module {number}")
    scorer = next((module["path"] for module in modules if str(module["type"]).endswith(".LogitScore")), None)
    if scorer is None:
        return "modules.json names no LogitScore"
    return None if stored_json(name, f"{scorer}/config.json") is not None else f"{scorer}/config.json is missing"


def is_generative(model: Any) -> bool:
    """Tell whether a loaded model is a decoder that answers yes or no to a pair (it has a LogitScore module)."""
    return any(type(module).__name__ == "LogitScore" for module in model.children())


def architectures(name: str, path: str = "") -> list[str]:
    """Return the architectures that a model's config names, such as ["Qwen3ForCausalLM"]."""
    config = stored_json(name, f"{path}/config.json" if path else "config.json")
    return list(config.get("architectures") or []) if isinstance(config, dict) else []


def stored_prompts(name: str) -> tuple[str, str]:
    """Return the stored prompts for queries and documents of a model, given by name or path.

    :raises BadInput: if the name cannot be loaded
    """
    resolved = resolve_name(name)
    with quiet(), loading(name):
        settings = _prompt_settings(resolved)
        return role_prompts(settings.get("prompts"), settings.get("default_prompt_name"))


def _prompt_settings(name: str) -> dict[str, Any]:
    settings = stored_json(name, PROMPTS_FILE)
    return settings if isinstance(settings, dict) else {}


def transformer_of(model: Any) -> Any:
    """Return the transformers encoder inside a sentence-transformers model."""
    return model[0].model


def tokenizer_of(model: Any) -> Any:
    """Return a model's tokenizer in the form that `distill.data.tokens` expects."""
    tokenizer = model[0].tokenizer
    return static_tokenizer(tokenizer) if is_static(model) else tokenizer


def is_static(model: Any) -> bool:
    """Tell whether a model, or the first of a list of modules, is a table of token vectors without a transformer."""
    modules = model if isinstance(model, list) else model.children()
    return type(next(iter(modules), None)).__name__ == "StaticEmbedding"


def replace_tokenizer(model: Any, tokenizer: Any) -> None:
    """Give a model another tokenizer."""
    processor = model[0].processor
    if processor is tokenizer_of(model):
        model[0].processor = tokenizer
    else:  # a processor for more than text
        processor.tokenizer = tokenizer


def replace_transformer(model: Any, transformer: Any) -> None:
    """Give a model another transformers encoder."""
    model[0].model = transformer


def _set_max_length(model: Any, max_length: int) -> None:
    if is_static(model):
        # stock sentence-transformers truncates as tokenizer.json says, and adds no special tokens
        static_tokenizer(model[0].tokenizer)
        model[0].tokenizer.enable_truncation(max_length)
        return
    config = transformer_of(model).config
    positions = usable_positions(config.to_dict())  # includes defaults that config.json may omit
    if positions is not None and max_length > positions:
        raise BadInput(
            f"max_length {max_length} is more than the {positions} positions of this {config.model_type} encoder; set it to {positions} or less"
        )
    model.max_seq_length = max_length
    # a stored tokenizer.json may still have truncation and padding switched on
    backend = getattr(tokenizer_of(model), "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()


def _freeze_unused(model: Any) -> None:
    """Freeze BERT's pooler: our pooling does not use it, so it never gets a gradient, and DDP would wait for one."""
    if len(model) > 1 and not is_static(model):
        pooler = getattr(transformer_of(model), "pooler", None)
        for parameter in [] if pooler is None else pooler.parameters():
            parameter.requires_grad_(False)


def set_dropout(model: Any, probability: float) -> None:
    """Set all dropout probabilities of a model for this run; the saved config keeps its own values."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        for name in ("attention_dropout", "dropout_prob"):  # some attention classes store them as plain floats
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, probability)


def load_model(folder: Path, *, dtype: Literal["float32", "auto"] = "float32") -> Any:
    """Load a model folder in torch, for training or labelling.

    :param dtype: "float32" for training; "auto" is the dtype of the stored weights
    :raises BadInput: if a file is missing or does not load
    """
    from sentence_transformers import CrossEncoder, SentenceTransformer

    kind = check_model_folder(folder)
    model_class = SentenceTransformer if kind == "bi_encoder" else CrossEncoder
    with quiet(), loading(str(folder)), whole_weights(str(folder)):
        model = model_class(str(folder), device="cpu", model_kwargs={**_model_options(), "dtype": dtype}, **NO_CODE)
    check_finite(str(folder), model)
    _freeze_unused(model)
    return model


def save_model(model: Any, folder: Path) -> None:
    """Write a model as a plain sentence-transformers folder, with safetensors only, that older releases can also read.

    :raises JobFailed: if its weights contain NaN or infinity
    """
    check_finite(folder.name.strip("."), model, trained=True)
    with quiet():
        model.save(str(folder), create_model_card=False, safe_serialization=True)
    make_portable(folder)
