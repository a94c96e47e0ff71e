"""Losses that compare the units of a step with each other, over any number of passes and processes (GradCache).

A step of InfoNCE, CoSENT, CKA … is one function of all its embeddings. If a step takes several passes:

    1  every pass is run without a graph; its outputs are gathered on every process
    2  the losses of the whole step are computed, with their gradients with respect to the outputs
    3  every pass is run again, from the same random state, and these gradients are propagated back through it;
       losses on layers, which do not depend on the outputs, are computed here

(Gao et al. 2021). The result is that of one pass over the whole step, at the cost of a second forward pass. Parameters
beside the model get their gradient in 2. It is added in the first pass of 3, so that DDP averages it like all others.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor

from distill.errors import BadInput
from distill.training.task import TaskStep, Units

__all__ = ["CoupledStep", "check_couplable", "run_coupled"]

Passes = Sequence[Sequence[np.ndarray]]
"""Unit numbers, passes[p][process]."""


@dataclass(frozen=True)
class CoupledStep:
    """What one step of the training is about."""

    units: Units
    passes: Passes
    totals: Mapping[Any, int]
    """How many units, pairs, groups … the whole step has: what losses are means over."""
    factors: Mapping[str, float]
    """By loss, what it is multiplied with at this step."""
    seed_of: Callable[[int], int]
    """Gives the random state of a pass by its number."""


def check_couplable(accelerator: Accelerator, task: TaskStep, title: str) -> None:
    """Refuse parameters that step 2 cannot read whole.

    :raises BadInput: if FSDP shards the parameters beside the model
    """
    if accelerator.distributed_type == DistributedType.FSDP and task.beside_the_model():
        raise BadInput(
            f"{title}: an objective compares the units of a step with each other, and another learns a projection or a scale, "
            "which FSDP shards; launch it with DDP (recipes/accelerate/multi_gpu.yaml), or leave one of the two out"
        )


def run_coupled(
    accelerator: Accelerator, step: Any, task: TaskStep, coupled: CoupledStep
) -> tuple[dict[str, Tensor], int]:
    """Accumulate the gradients of a step; return its losses by name and the number of tokens that this process read.

    :param step: the task as accelerate has wrapped it
    """
    units, passes, totals, seed_of = coupled.units, coupled.passes, coupled.totals, coupled.seed_of
    mine = accelerator.process_index
    batches = [
        units.batch(per_process[mine], totals=totals, n_processes=accelerator.num_processes).to(accelerator.device)
        for per_process in passes
    ]
    parts: list[Tensor] = []  # of every pass, of every process
    for number, (batch, per_process) in enumerate(zip(batches, passes, strict=True)):
        torch.manual_seed(seed_of(number))
        with torch.no_grad():
            outputs = step(batch, outputs_only=True)["outputs"]
        parts += _gathered(accelerator, outputs, [_n_outputs(units, own) for own in per_process])
    whole = units.batch(np.concatenate([own for per_process in passes for own in per_process]), totals=totals)
    terms, pulls, beside = _gradients(task, whole.to(accelerator.device), torch.cat(parts), coupled.factors)
    owned = torch.split(pulls, [len(part) for part in parts])[mine :: accelerator.num_processes]
    for number, (batch, pull) in enumerate(zip(batches, owned, strict=True)):
        torch.manual_seed(seed_of(number))
        last = number == len(batches) - 1
        with nullcontext() if last else accelerator.no_sync(step):
            # DDP averages over processes, but the gradients have to be summed
            given = (accelerator.num_processes * pull, beside if number == 0 else [])
            found = {name: coupled.factors.get(name, 1.0) * loss for name, loss in step(batch, pulls=given).items()}
            accelerator.backward(torch.stack(list(found.values())).sum())
        for name in found.keys() - {"pull", "nothing"}:  # losses on layers, which are of no outputs
            terms[name] = terms.get(name, torch.zeros((), device=accelerator.device)) + found[name].detach()
    return terms, sum(int(part["attention_mask"].sum()) for batch in batches for part in batch.inputs)


def _n_outputs(units: Units, own: np.ndarray) -> int:
    return int(units.unit_sequences[own].sum()) if len(own) else 0


def _gathered(accelerator: Accelerator, outputs: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return every process's outputs of a pass; an empty share has none. *Shape:* (n_sequences, …) each."""
    if accelerator.num_processes == 1:
        return [outputs]
    longest, own = max(sizes), sizes[accelerator.process_index]
    padded = outputs.new_zeros(longest, *outputs.shape[1:])
    padded[:own] = outputs[:own]
    everyone = torch.split(accelerator.gather(padded), longest)
    return [part[:size] for part, size in zip(everyone, sizes, strict=True)]


def _gradients(
    task: TaskStep, whole: Any, outputs: Tensor, factors: Mapping[str, float]
) -> tuple[dict[str, Tensor], Tensor, list[Tensor]]:
    """Return a whole step's losses, and their gradients in its outputs and the parameters beside the model."""
    outputs = outputs.detach().requires_grad_()
    learned = [parameter for parameter in task.beside_the_model() if parameter.requires_grad]
    losses = {name: factors.get(name, 1.0) * loss for name, loss in task.losses_of(whole, outputs).items()}
    if not losses:
        return {}, torch.zeros_like(outputs), [torch.zeros_like(parameter) for parameter in learned]
    total = torch.stack(list(losses.values())).sum()
    found = torch.autograd.grad(total, [outputs, *learned], allow_unused=True, materialize_grads=True)
    return {name: loss.detach() for name, loss in losses.items()}, found[0], list(found[1:])
