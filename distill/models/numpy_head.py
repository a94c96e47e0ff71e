"""Run the modules after the transformer in numpy, on the token embeddings that a graph returns.

The modules are read from the folder's own files, without torch: importing torch takes seconds, and on a CPU each of its
small operations uses a thread pool of its own beside that of the graph. All computation is in float32, whatever the
graph computes in.

Numpy's BLAS has such a pool too. Its threads keep spinning after a matrix product and occupy the graph's cores: 400
short pairs through a three-layer int8 cross-encoder took 1.51 s, and take 0.70 s with one BLAS thread.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from distill.files.trust import read_json
from distill.machine.shared_context import SharedContext

__all__ = [
    "LEGACY_POOLING",
    "NumpyHead",
    "folder_leaves_prompt_out",
    "one_blas_thread",
    "pooling_modes",
    "read_head",
    "read_stages",
]

_Array = np.ndarray
_Stage = Callable[[_Array], _Array]
_Pool = Callable[[_Array, _Array, _Array], _Array]
LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@cache
def _thread_pools() -> Any:
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()  # finding the libraries takes milliseconds, limiting them microseconds


_one_thread = SharedContext(lambda: _thread_pools().limit(limits=1, user_api="blas"))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit numpy's BLAS to one thread inside the block, and restore its threads afterwards."""
    with _one_thread:
        yield


class NumpyHead:
    """Pooling, Dense layers and normalisation as one function.

    *Shape:* token embeddings (n_rows, n_tokens, width), attention mask (n_rows, n_tokens) → (n_rows, output_width)
    """

    def __init__(self, pools: Sequence[str], stages: Sequence[_Stage], n_parameters: int, output_width: int) -> None:
        self._pools, self._stages = [_POOLS[name] for name in pools], stages
        self.n_parameters, self.output_width = n_parameters, output_width

    def __call__(self, tokens: _Array, mask: _Array, n_left_out: int = 0) -> _Array:
        """Pool the token embeddings and apply the following modules.

        :param n_left_out: number of first tokens of each row that the pooling ignores

        *Shape:* (n_rows, n_tokens, width), (n_rows, n_tokens) → (n_rows, output_width)
        """
        pooled_mask = mask
        if n_left_out:
            pooled_mask = mask.copy()
            pooled_mask[:, :n_left_out] = 0
        pooled = [pool(tokens, pooled_mask, mask) for pool in self._pools]
        values = pooled[0] if len(pooled) == 1 else np.concatenate(pooled, axis=1)
        for stage in self._stages:
            values = stage(values)
        return values


def folder_leaves_prompt_out(folder: Path, modules: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether the pooling ignores the prompt's tokens (`include_prompt: false`, as in INSTRUCTOR)."""
    return any(
        _config(folder, module).get("include_prompt") is False for module in modules if _kind(module) == "Pooling"
    )


def read_head(folder: Path, modules: Sequence[Mapping[str, Any]], width: int) -> NumpyHead | None:
    """Read the modules after the transformer; return None if one is of a kind that is not implemented in numpy.

    :param width: the width of the token embeddings
    """
    if not modules or _kind(modules[0]) != "Pooling":
        return None
    config = _config(folder, modules[0])
    pools = pooling_modes(config)
    if not set(pools) <= set(_POOLS):
        return None
    head_parts = read_stages(folder, modules[1:], width * len(pools))
    return None if head_parts is None else NumpyHead(pools, *head_parts)


def read_stages(folder: Path, modules: Sequence[Mapping[str, Any]], width: int) -> tuple[list[_Stage], int, int] | None:
    """Read the modules after the pooling; return their functions, number of parameters and output width.

    :param width: the width of the pooled embedding
    :returns: None if a module is of a kind that is not implemented in numpy
    """
    stages: list[_Stage] = []
    n_parameters, output_width = 0, width
    for module in modules:
        if _kind(module) == "Dropout":  # has no effect outside of training
            continue
        reader = _READERS.get(_kind(module))
        stage = None if reader is None else reader(folder / module["path"], _config(folder, module))
        if stage is None:
            return None
        run, n_own, out_width = stage
        stages.append(run)
        n_parameters, output_width = n_parameters + n_own, out_width or output_width
    return stages, n_parameters, output_width


def _kind(module: Mapping[str, Any]) -> str:
    name = str(module["type"])
    return name.rpartition(".")[2] if name.startswith("sentence_transformers.") else name


def _config(folder: Path, module: Mapping[str, Any]) -> Mapping[str, Any]:
    path = folder / module["path"] / "config.json"
    config: Mapping[str, Any] = read_json(path) if module["path"] and path.is_file() else {}
    return config


# ---------------------------------------------------------------------------------------------------------------------
# Pooling
# ---------------------------------------------------------------------------------------------------------------------


def pooling_modes(config: Mapping[str, Any]) -> list[str]:
    """Return the pooling modes whose results are concatenated, from the current key or the older switches.

    >>> pooling_modes({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    ['cls']
    """
    mode = config.get("pooling_mode")
    if mode is None:
        return [name for key, name in LEGACY_POOLING.items() if config.get(key)] or ["mean"]
    return [mode] if isinstance(mode, str) else list(mode)


def _sum(tokens: _Array, weights: _Array) -> _Array:
    summed: _Array = np.matmul(weights[:, None, :], tokens)[:, 0]
    return summed


def _counted(mask: _Array) -> _Array:
    counts: _Array = np.maximum(mask.sum(axis=1, dtype=np.float32, keepdims=True), 1e-9)
    return counts


# each pooling takes the token embeddings, the mask of the tokens to pool, and the mask of all tokens


def _mean(tokens: _Array, mask: _Array, _: _Array) -> _Array:
    pooled: _Array = _sum(tokens, mask.astype(np.float32)) / _counted(mask)
    return pooled


def _mean_sqrt(tokens: _Array, mask: _Array, _: _Array) -> _Array:
    pooled: _Array = _sum(tokens, mask.astype(np.float32)) / np.sqrt(_counted(mask))
    return pooled


def _weighted_mean(tokens: _Array, mask: _Array, whole_mask: _Array) -> _Array:
    places = np.cumsum(whole_mask, axis=1) * mask  # 1, 2, … from the first real token, pooled or not
    pooled: _Array = _sum(tokens, places.astype(np.float32)) / _counted(places)
    return pooled


def _max(tokens: _Array, mask: _Array, _: _Array) -> _Array:
    greatest: _Array = np.where(mask[:, :, None] > 0, tokens, -np.inf).max(axis=1).astype(np.float32)
    return greatest


def _first(tokens: _Array, mask: _Array, _: _Array) -> _Array:
    # the first real token, also with padding on the left
    chosen: _Array = tokens[np.arange(len(tokens)), mask.argmax(axis=1)]
    return chosen


def _last(tokens: _Array, mask: _Array, _: _Array) -> _Array:
    chosen: _Array = tokens[np.arange(len(tokens)), mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)]
    kept: _Array = chosen * mask.any(axis=1, keepdims=True).astype(chosen.dtype)  # zero if no token is left
    return kept


_POOLS: Mapping[str, _Pool] = {
    "mean": _mean,
    "cls": _first,
    "max": _max,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}

# ---------------------------------------------------------------------------------------------------------------------
# Modules after the pooling: a reader returns the function, its number of parameters, its output width (None: unchanged)
# ---------------------------------------------------------------------------------------------------------------------

_ReadStage = tuple[_Stage, int, int | None] | None


def _normalize(folder: Path, config: Mapping[str, Any]) -> _ReadStage:
    return lambda values: values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12), 0, None


def _dense(folder: Path, config: Mapping[str, Any]) -> _ReadStage:
    activation = _ACTIVATIONS.get(str(config.get("activation_function", "torch.nn.Tanh")).rpartition(".")[2])
    tensors = _tensors(folder)
    # a residual needs a second matrix, another input name a second value: both are rare and run in torch instead
    if activation is None or tensors is None or config.get("use_residual"):
        return None
    if config.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        return None
    run = activation
    weight = np.ascontiguousarray(tensors["linear.weight"].T, dtype=np.float32)  # (in_width, out_width)
    bias = tensors.get("linear.bias", np.zeros(1)).astype(np.float32)
    n_parameters = weight.size + (bias.size if "linear.bias" in tensors else 0)
    return lambda values: run(values @ weight + bias), n_parameters, weight.shape[1]


def _layer_norm(folder: Path, config: Mapping[str, Any]) -> _ReadStage:
    tensors = _tensors(folder)
    if tensors is None:
        return None
    scale, shift = (tensors[f"norm.{name}"].astype(np.float32) for name in ("weight", "bias"))

    def run(values: _Array) -> _Array:
        centred = values - values.mean(axis=1, keepdims=True)
        normed: _Array = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) * scale + shift
        return normed

    return run, scale.size + shift.size, None


def _tensors(folder: Path) -> Mapping[str, _Array] | None:
    path = folder / "model.safetensors"
    if not path.is_file():  # an old pickle, which only torch can read
        return None
    from safetensors.numpy import load_file

    loaded: Mapping[str, _Array] = load_file(path)
    return loaded


_READERS: Mapping[str, Callable[[Path, Mapping[str, Any]], _ReadStage]] = {
    "Normalize": _normalize,
    "Dense": _dense,
    "LayerNorm": _layer_norm,
}


def _erf(x: _Array) -> _Array:
    """Compute the error function to 1.5e-7 (Abramowitz & Stegun 7.1.26); importing scipy takes a quarter of a second.

    >>> [round(float(value), 6) for value in _erf(np.array([0.5, -2.0]))]
    [0.5205, -0.995322]
    """
    z = np.abs(x.astype(np.float64))
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    value: _Array = np.sign(x) * (1 - series * np.exp(-z * z))
    return value


def _gelu(x: _Array) -> _Array:
    value: _Array = (0.5 * x * (1 + _erf(x * np.sqrt(0.5)))).astype(np.float32)
    return value


def _sigmoid(x: _Array) -> _Array:
    value: _Array = 0.5 * (1 + np.tanh(0.5 * x))  # without overflow
    return value


_ACTIVATIONS: Mapping[str, _Stage] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0),
    "Sigmoid": _sigmoid,
    "GELU": _gelu,
}
