"""Wrap a model folder as one traceable module, from token ids to the embedding or the score.

    bi-encoder      input_ids, attention_mask, (token_type_ids) → last_hidden_state, sentence_embedding
    cross-encoder   the same → last_hidden_state, logits; with a classification head of its own → logits alone

`sentence_embedding` and `logits` are the result. `last_hidden_state` is also an output, because stock
sentence-transformers and optimum request it from a graph and run pooling themselves; a runtime that does not request it
has no extra cost.

The traced modules are those of the folder, so that a graph computes what stock code computes. One function is replaced:
transformers 5 builds attention masks with operations that no tracer supports (`IndexError` in `sdpa_mask`). A simple
mask function is put into transformers' register of mask functions instead; it supports full and sliding-window
attention. MPNet and DeBERTa build their own masks, which can be traced. `check_graph` compares the resulting graph with
torch at shapes that were not used for tracing.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.data.tokens import pad_token_id
from distill.errors import BadInput, JobFailed
from distill.files.artefact import ModelKind, check_model_folder
from distill.models.files import length_limit
from distill.models.modeling import is_generative, load_model, tokenizer_of, transformer_of

__all__ = ["TOLERANCE", "GraphModule", "check_graph", "load_graph_module", "traceable_masks"]

TOLERANCE = 1e-4
_LONGEST_CHECKED = 512  # tokens; a row of 8,192 tokens would take minutes in a large model
_SHAPES = ((1, 1), (3, 5), (2, 40), (5, 17))  # (rows, tokens); none is the traced shape, (2, 9)
_TRACED = (2, 9)
_RESULT: Mapping[ModelKind, str] = {"bi_encoder": "sentence_embedding", "cross_encoder": "logits"}


class GraphModule(nn.Module):
    """All modules of a folder as one module with positional tensor inputs, as tracers need it.

    `head` is the prefix of graph node names that belong to the modules after the transformer.
    """

    head = "modules_behind"

    def __init__(self, model: Any, kind: ModelKind, path: Path) -> None:
        super().__init__()
        transformer, *modules_behind = model
        self.transformer = transformer
        self.modules_behind = nn.ModuleList(modules_behind)
        self.kind, self.path = kind, path
        self.config = transformer_of(model).config
        self.tokenizer = tokenizer_of(model)
        self.max_length = length_limit(self.config.to_dict(), model.max_seq_length, self.tokenizer.model_max_length)
        self.input_names = _input_names(transformer_of(model), self.tokenizer)
        self.output_names = ("last_hidden_state",) * bool(modules_behind) + (_RESULT[kind],)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run all modules and return the outputs in the order of `output_names`.

        *Shape:* inputs, in the order of `input_names`: (n_rows, n_tokens) each;
        last_hidden_state: (n_rows, n_tokens, width), sentence_embedding: (n_rows, width), logits: (n_rows, 1)
        """
        features: dict[str, Any] = dict(zip(self.input_names, inputs, strict=True))
        features = self.transformer(features)
        tokens = features.get("token_embeddings")
        for module in self.modules_behind:
            features = module(features)
        result = features["sentence_embedding" if self.kind == "bi_encoder" else "scores"]
        return (result,) if tokens is None else (tokens, result)

    @property
    def example(self) -> tuple[Tensor, ...]:
        """Inputs for tracing. *Shape:* (2, 9) each; the second row may be padded."""
        features = self.features(*_TRACED, seed=0)
        return tuple(torch.from_numpy(features[name]) for name in self.input_names)

    def features(self, n_rows: int, n_tokens: int, *, seed: int, left: bool = False) -> dict[str, np.ndarray]:
        """Draw random inputs of different lengths; the first row has no padding. *Shape:* (n_rows, n_tokens) each.

        :param left: pad on the left
        """
        rng = np.random.default_rng(seed)
        special = set(self.tokenizer.all_special_ids)
        candidates = np.array([i for i in range(min(len(self.tokenizer), 5000)) if i not in special])
        ids = rng.choice(candidates, size=(n_rows, n_tokens))
        lengths = np.concatenate([[n_tokens], rng.integers(1, n_tokens + 1, n_rows - 1)])
        columns = np.arange(n_tokens)
        mask = columns >= n_tokens - lengths[:, None] if left else columns < lengths[:, None]
        types = (columns >= lengths[:, None] // 2) & mask
        inputs = {
            "input_ids": np.where(mask, ids, pad_token_id(self.tokenizer)),
            "attention_mask": mask,
            "token_type_ids": types if getattr(self.config, "type_vocab_size", 0) > 1 else np.zeros_like(ids),
        }
        return {name: inputs[name].astype(np.int64) for name in self.input_names}


def load_graph_module(source: Path, *, attention: str = "sdpa") -> GraphModule:
    """Load a folder in float32, ready for tracing.

    :param attention: "sdpa" keeps attention as one operation that a runtime may fuse; "eager" writes it as matrix
        products. A model family without SDPA keeps its own attention unless "eager" is given.
    :raises BadInput: if the folder is incomplete, or a graph of token ids cannot compute the result of its modules
    """
    kind = check_model_folder(source)
    model = load_model(source).eval()
    if type(model[0]).__name__ != "Transformer":
        raise BadInput(f"{source} starts with {type(model[0]).__name__}; only a Transformer in front becomes a graph")
    if is_generative(model):
        raise BadInput(
            f"{source} is a generative reranker: it runs in torch and is not exported; for labelling set signals.runtime=torch"
        )
    if any(getattr(module, "include_prompt", True) is False for module in model):
        raise BadInput(f"{source} pools without the prompt (include_prompt: false), whose length no graph is told")
    encoder = transformer_of(model)
    if attention == "eager" or encoder._supports_sdpa:
        encoder.set_attn_implementation(attention)
    return GraphModule(model, kind, source).eval()  # tracers reset parts to the mode of the whole


def _input_names(encoder: Any, tokenizer: Any) -> tuple[str, ...]:
    """Return the names of the inputs, with token types only if the tokenizer makes them and the encoder uses them."""
    takes = inspect.signature(encoder.forward).parameters
    wanted = "token_type_ids" in tokenizer.model_input_names and "token_type_ids" in takes
    has_types = wanted and getattr(encoder.config, "type_vocab_size", 1) > 0
    return ("input_ids", "attention_mask", "token_type_ids") if has_types else ("input_ids", "attention_mask")


# ---------------------------------------------------------------------------------------------------------------------
# Masks that tracers follow
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def traceable_masks() -> Iterator[None]:
    """Make transformers build attention masks with a traceable function inside this block."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as registered

    for name in ("eager", "sdpa"):
        registered[name] = _additive_mask
    try:
        yield
    finally:
        for name in ("eager", "sdpa"):
            del registered[name]  # removes the local entry; the global one below it was never changed


def _additive_mask(
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Tensor],
    attention_mask: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """Return 0 where a token may attend and a very large negative number elsewhere.

    *Shape:* attention_mask: (n_rows, n_tokens); result: (n_rows, 1, 1 or n_tokens, n_tokens)
    """
    from transformers.masking_utils import bidirectional_mask_function

    visible = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
    if visible is None or mask_function is not bidirectional_mask_function:
        zero = torch.zeros(1, dtype=torch.long)
        queries = torch.arange(q_length)[None, None, :, None]
        keys = torch.arange(kv_length)[None, None, None, :]
        in_reach = mask_function(zero, zero, queries, keys)
        visible = in_reach if visible is None else visible & in_reach
    # the minimum of bfloat16, because a runtime in bfloat16 would round the minimum of float32 to minus infinity
    return (1.0 - visible.to(torch.float32)) * torch.finfo(torch.bfloat16).min


# ---------------------------------------------------------------------------------------------------------------------
# Comparison with torch
# ---------------------------------------------------------------------------------------------------------------------


def check_graph(
    module: GraphModule, run: Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]], what: str
) -> dict[str, float]:
    """Compare a graph with torch at new shapes: one token, mixed lengths, padding on either side, the longest text.

    :param run: takes named inputs and returns the outputs in the order of `output_names`
    :param what: names the graph in messages
    :returns: the greatest absolute difference of each output, over real tokens
    :raises JobFailed: if a shape differs, or a difference is above `TOLERANCE` · max(1, greatest absolute value of
        torch)
    """
    greatest = dict.fromkeys(module.output_names, 0.0)
    for number, features in enumerate(_checked_features(module)):
        with torch.inference_mode():
            expected = module(*(torch.from_numpy(features[name]) for name in module.input_names))
        results = run(features)
        for name, reference, values in zip(module.output_names, expected, results, strict=True):
            wanted = reference.numpy()
            if values.shape != wanted.shape:
                raise JobFailed(f"{what} of {module.path}: {name} is {values.shape}, torch's {wanted.shape}")
            real_tokens = features["attention_mask"].astype(bool) if wanted.ndim == 3 else slice(None)
            if not np.isfinite(wanted[real_tokens]).all():
                raise JobFailed(f"torch itself computes NaN or infinity ({name}); train {module.path} again or copy it")
            gap = float(np.abs(values[real_tokens] - wanted[real_tokens]).max())
            limit = TOLERANCE * max(1.0, float(np.abs(wanted[real_tokens]).max()))
            if not gap <= limit:  # a NaN too
                shape = "×".join(map(str, features["input_ids"].shape))
                raise JobFailed(
                    f"{what} of {module.path} ({module.config.model_type}) is not what torch computes: {name} differs by "
                    f"{gap:.2g} at {shape} tokens (check {number}), at most {limit:.2g} is accepted; this family cannot be exported so"
                )
            greatest[name] = max(greatest[name], gap)
    return greatest


def _checked_features(module: GraphModule) -> Iterator[dict[str, np.ndarray]]:
    limit = min(module.max_length, _LONGEST_CHECKED)
    for seed, (n_rows, n_tokens) in enumerate(_SHAPES):
        yield module.features(n_rows, min(n_tokens, limit), seed=seed + 1)
    # a classification head reads the first position: with padding there, its result is meaningless in torch as well
    has_own_head = len(module.output_names) == 1
    yield module.features(3, min(23, limit), seed=8, left=not has_own_head or module.tokenizer.padding_side == "left")
    yield module.features(1, limit, seed=9)
