"""AdamW that moves only the rows of a table which a step met.

A table of token vectors has millions of numbers, and a step of a static student meets some hundred of its rows. Plain
AdamW reads and writes the whole table and two moments of it each time: with 30,522 × 384 numbers and 256 texts a step
that is 8 times the work of the rest. The gradient of a sparse `nn.EmbeddingBag` names its rows, and these alone are moved,
as `torch.optim.SparseAdam` does it. What differs from plain Adam: a row that a step does not meet keeps still, where
Adam would go on along its old momentum. Rows are not decayed.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["RowAdamW", "clip_row_gradients"]


class RowAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter 2019) for dense gradients, and Adam row by row for sparse ones."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all parameters that have a gradient; with a gradient scaler that found an overflow, none."""
        if closure is not None:
            raise ValueError("a closure would need the gradients twice")
        found_inf = getattr(self, "found_inf", None)  # set by a scaler for optimizers that skip by themselves
        overflowed = found_inf is not None and bool(found_inf)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    if not overflowed:
                        self._step_rows(parameter, group)
                    parameter.grad = None
        return super().step()

    def _step_rows(self, table: Tensor, group: dict[str, Any]) -> None:
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        state["step"] += 1
        n_steps, (beta1, beta2) = float(state["step"]), group["betas"]
        gradient = cast(Tensor, table.grad).coalesce()
        rows, values = gradient.indices()[0], gradient.values()  # (n_rows,), (n_rows, width)
        if (grad_scale := getattr(self, "grad_scale", None)) is not None:  # the scaler left the unscaling to this step
            values = values / grad_scale
        mean = state["exp_avg"][rows].lerp_(values, 1 - beta1)
        square = state["exp_avg_sq"][rows].mul_(beta2).addcmul_(values, values, value=1 - beta2)
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean, square
        spread = (square / (1 - beta2**n_steps)).sqrt_().add_(group["eps"])
        table.index_add_(0, rows, mean / spread, alpha=-group["lr"] / (1 - beta1**n_steps))


def clip_row_gradients(parameters: Sequence[Tensor], limit: float) -> Tensor:
    """Scale gradients, sparse ones among them, to a common norm of `limit` at most; return the norm before.

    >>> weight = torch.zeros(4, 1, requires_grad=True)
    >>> torch.nn.functional.embedding(torch.tensor([1, 1, 2]), weight, sparse=True).sum().backward()
    >>> clip_row_gradients([weight], 1.0).item()  # rows 1 and 2 have gradients 2 and 1
    2.236068
    >>> weight.grad.to_dense().flatten().tolist()
    [0.0, 0.894427, 0.447213, 0.0]
    """
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()  # a row met twice has two parts, whose norm is not their sum's
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    values = [gradient.values() if gradient.is_sparse else gradient for gradient in gradients]
    norm: Tensor = torch.stack([value.norm() for value in values]).norm()
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(scale)
    return norm
