"""Open late-interaction models with sentence-transformers' `MultiVectorEncoder`: its own, PyLate's, Stanford's ColBERT.

Each token of a text becomes a vector. The folder defines prompts or markers before queries and documents, query
expansion with [MASK], and skipped tokens (punctuation).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.errors import BadInput, loading
from distill.files.artefact import PICKLE_FILES, WEIGHT_FILES, check_tokenizer
from distill.files.trust import NO_CODE, check_files, check_module, check_settings, refuse_pickles
from distill.models.backbone import resolve_name
from distill.models.files import usable_positions
from distill.models.modeling import architectures, quiet, stored_json
from distill.models.prompts import PROMPTS_FILE
from distill.models.whole_weights import check_finite, whole_weights

__all__ = ["check_late_interaction", "late_interaction_lengths", "open_late_interaction", "set_lengths"]

_MODULES = ("Transformer", "Dense", "Normalize", "LayerNorm", "Dropout", "MultiVectorMask", "HierarchicalTokenPooling")
_PYLATE_DENSE = "pylate.models.Dense.Dense"  # sentence-transformers loads it as its own Dense
_STANFORD = "HF_ColBERT"
_TYPES = ("MultiVectorEncoder", "ColBERT")
_PYLATE_KEYS = ("query_prefix", "document_prefix", "do_query_expansion", "attend_to_expansion_tokens")
_ANY_LENGTH = 1_000_000
_DENSE = "sentence_transformers.base.modules.dense.Dense"


def open_late_interaction(backbone: str | Path, *, prompts: tuple[str, str] | None = None, device: str = "cpu") -> Any:
    """Open a `MultiVectorEncoder` in float32.

    :param prompts: of queries and documents; None keeps those of the folder
    :raises BadInput: if it is not a late-interaction model, or its files contain something that is not allowed
    """
    import torch
    from sentence_transformers import MultiVectorEncoder

    name = resolve_name(str(backbone))
    prompts_by_role = None if prompts is None else {"query": prompts[0], "document": prompts[1]}
    with quiet(), loading(name), whole_weights(name):
        check_late_interaction(name)
        options: dict[str, Any] = {"model_kwargs": {"dtype": torch.float32}, "prompts": prompts_by_role, **NO_CODE}
        model = MultiVectorEncoder(name, device=device, **options)
    check_finite(name, model)
    return model.eval()


def check_late_interaction(name: str) -> None:
    """Check that a folder or hub repository is a late-interaction model with only allowed modules.

    Any other model would be opened with a randomly initialised projection.

    :raises BadInput: naming the problem
    """
    folder = Path(name)
    if folder.is_dir():
        check_files(folder)
        check_settings(folder)
        check_tokenizer(folder)
        refuse_pickles(folder, WEIGHT_FILES, PICKLE_FILES)
    modules, stored = stored_json(name, "modules.json"), stored_json(name, PROMPTS_FILE)
    module_list = modules if isinstance(modules, list) else []
    if not _is_late_interaction(name, module_list, stored if isinstance(stored, dict) else {}):
        raise BadInput(
            f"{name} is no late-interaction model: one of sentence-transformers' MultiVectorEncoder, PyLate or Stanford's ColBERT "
            "is expected; take a bi-encoder as kind bi_encoder"
        )
    for number, module in enumerate(module_list):
        _check_module(folder, module, f"modules.json: module {number}")


def _check_module(folder: Path, module: Any, where: str) -> None:
    is_pylate_dense = isinstance(module, Mapping) and module.get("type") == _PYLATE_DENSE
    check_module(folder, {**module, "type": _DENSE} if is_pylate_dense else module, where, allowed=_MODULES)
    place = folder / str(module["path"])
    if place.is_dir():
        check_settings(place)
        refuse_pickles(place, WEIGHT_FILES, PICKLE_FILES)


def _is_late_interaction(name: str, modules: list[Any], stored: Mapping[str, Any]) -> bool:
    if not modules:
        return _STANFORD in architectures(name)
    if stored.get("model_type") in _TYPES:
        return True
    kinds = [str(module.get("type")) for module in modules if isinstance(module, Mapping)]
    has_projection = any(kind.endswith(".Dense") for kind in kinds)
    return has_projection and any(key in stored for key in _PYLATE_KEYS)


def late_interaction_lengths(model: Any) -> tuple[int, int]:
    """Return the maximum number of tokens of a query and of a document."""
    transformer, expansion = model[0], model[0].query_expansion
    fixed = None if expansion is None or expansion["strategy"] != "fixed" else expansion["length"]
    positions = usable_positions(transformer.model.config.to_dict()) or _ANY_LENGTH
    query, document = (
        min(length or model.max_seq_length or positions, positions)
        for length in (fixed or transformer.query_length, transformer.document_length)
    )
    return query, document


def set_lengths(name: str, model: Any, query: int | None, document: int | None) -> None:
    """Set other maximum lengths of queries and documents than the folder states; None keeps the folder's value.

    A query shorter than the folder's expansion length is still expanded to that length.

    :raises BadInput: if a length exceeds the encoder's positions, or the query length is below the expansion length
    """
    transformer, expansion = model[0], model[0].query_expansion
    if query is not None and expansion is not None:
        if query < expansion["length"]:
            raise BadInput(
                f"query_length {query} is less than the {expansion['length']} tokens that {name} expands queries to; raise it"
            )
        transformer.query_expansion = {**expansion, "strategy": "min"}
    transformer.query_length = query or transformer.query_length
    transformer.document_length = document or transformer.document_length
    positions = usable_positions(transformer.model.config.to_dict())
    for side, length in (("query", transformer.query_length), ("document", transformer.document_length)):
        if length is not None and positions is not None and length > positions:
            raise BadInput(
                f"{side}_length {length} is more than the {positions} positions of {name}; set it to {positions} or less"
            )
