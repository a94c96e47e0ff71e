"""The modules behind the transformer, in numpy: what follows a graph's token embeddings.

Torch's own would do, but on a CPU each of its small operations starts and joins a thread pool of its own beside the
graph's, and of a one-layer student that was most of the time. Float32 throughout, whatever the graph computes in.

Numpy's own BLAS has such a pool too, whose threads go on spinning after a product and take the graph's cores: 400 short
pairs through a three-layer int8 cross-encoder took 1.51 s, and with one BLAS thread take 0.70 s.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

__all__ = ["numpy_head", "one_blas_thread"]

_Array = np.ndarray
_Stage = Callable[[_Array], _Array]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep numpy's BLAS to the calling thread, and give it back its threads afterwards."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> Any:
    """Find the libraries once: looking for them takes milliseconds, setting them microseconds."""
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def numpy_head(modules: Sequence[Any]) -> Callable[[_Array, _Array], _Array] | None:
    """Return pooling, Dense layers and normalisation as one function, or None where a module is another.

    *Shape:* token embeddings (n_rows, n_tokens, width), attention mask (n_rows, n_tokens) → (n_rows, output_width)
    """
    if not modules or type(modules[0]).__name__ != "Pooling":
        return None
    pool = {"mean": _mean, "cls": _first}.get(str(modules[0].pooling_mode))
    stages = [_stage(module) for module in modules[1:]]
    if pool is None or any(stage is None for stage in stages):
        return None

    def run(tokens: _Array, mask: _Array) -> _Array:
        values = pool(tokens, mask)
        for stage in stages:
            values = stage(values) if stage is not None else values
        return values

    return run


def _mean(tokens: _Array, mask: _Array) -> _Array:
    weights = mask[:, None, :].astype(np.float32)  # (n_rows, 1, n_tokens)
    pooled: _Array = np.matmul(weights, tokens)[:, 0] / np.maximum(weights.sum(axis=2), 1e-9)
    return pooled


def _first(tokens: _Array, mask: _Array) -> _Array:
    # the first real token, also where padding stands on the left
    chosen: _Array = tokens[np.arange(len(tokens)), mask.argmax(axis=1)]
    return chosen


def _stage(module: Any) -> _Stage | None:
    name = type(module).__name__
    if name == "Normalize":
        return lambda values: values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    if name != "Dense" or module.use_residual:
        return None
    activation = _activation(module.activation_function)
    if activation is None:
        return None
    weight = module.linear.weight.detach().float().numpy().T.copy()
    bias = 0.0 if module.linear.bias is None else module.linear.bias.detach().float().numpy()
    return lambda values: activation(values @ weight + bias)


def _activation(function: Any) -> _Stage | None:
    from scipy.special import erf, expit

    root_half = np.float32(np.sqrt(0.5))
    known: dict[str, _Stage] = {
        "Identity": lambda x: x,
        "Tanh": np.tanh,
        "ReLU": lambda x: np.maximum(x, 0),
        "Sigmoid": expit,
    }
    if type(function).__name__ == "GELU" and function.approximate == "none":
        return lambda x: (0.5 * x * (1 + erf(x * root_half))).astype(np.float32)
    return known.get(type(function).__name__)
