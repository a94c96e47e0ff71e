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
    own_index = accelerator.process_index
    batches = [
        units.batch(per_process[own_index], totals=totals, n_processes=accelerator.num_processes).to(accelerator.device)
        for per_process in passes
    ]
    parts: list[Tensor] = []  # of every pass, of every process
    for number, (batch, per_process) in enumerate(zip(batches, passes, strict=True)):
        torch.manual_seed(seed_of(number))
        with torch.no_grad():
            outputs = step(batch, outputs_only=True)["outputs"]
        parts += _gathered(accelerator, outputs, [_n_outputs(units, unit_numbers) for unit_numbers in per_process])
    whole = units.batch(
        np.concatenate([unit_numbers for per_process in passes for unit_numbers in per_process]), totals=totals
    )
    terms, pulls, beside_gradients = _gradients(task, whole.to(accelerator.device), torch.cat(parts), coupled.factors)
    own_pulls = torch.split(pulls, [len(part) for part in parts])[own_index :: accelerator.num_processes]
    for number, (batch, pull) in enumerate(zip(batches, own_pulls, strict=True)):
        torch.manual_seed(seed_of(number))
        last = number == len(batches) - 1
        with nullcontext() if last else accelerator.no_sync(step):
            # DDP averages over processes, but the gradients have to be summed
            gradients = (accelerator.num_processes * pull, beside_gradients if number == 0 else [])
            losses = {
                name: coupled.factors.get(name, 1.0) * loss for name, loss in step(batch, pulls=gradients).items()
            }
            accelerator.backward(torch.stack(list(losses.values())).sum())
        for name in losses.keys() - {"pull", "nothing"}:  # losses on layers, which are of no outputs
            terms[name] = terms.get(name, torch.zeros((), device=accelerator.device)) + losses[name].detach()
    return terms, sum(int(part["attention_mask"].sum()) for batch in batches for part in batch.inputs)


def _n_outputs(units: Units, unit_numbers: np.ndarray) -> int:
    return units.unit_sequences_of(unit_numbers) if len(unit_numbers) else 0


def _gathered(accelerator: Accelerator, outputs: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return every process's outputs of a pass; an empty share has none. *Shape:* (n_sequences, …) each."""
    if accelerator.num_processes == 1:
        return [outputs]
    longest, own_size = max(sizes), sizes[accelerator.process_index]
    padded = outputs.new_zeros(longest, *outputs.shape[1:])
    padded[:own_size] = outputs[:own_size]
    all_outputs = torch.split(accelerator.gather(padded), longest)
    return [part[:size] for part, size in zip(all_outputs, sizes, strict=True)]


def _gradients(
    task: TaskStep, whole: Any, outputs: Tensor, factors: Mapping[str, float]
) -> tuple[dict[str, Tensor], Tensor, list[Tensor]]:
    """Return a whole step's losses, and their gradients in its outputs and the parameters beside the model."""
    outputs = outputs.detach().requires_grad_()
    parameters = [parameter for parameter in task.beside_the_model() if parameter.requires_grad]
    losses = {name: factors.get(name, 1.0) * loss for name, loss in task.losses_of(whole, outputs).items()}
    if not losses:
        return {}, torch.zeros_like(outputs), [torch.zeros_like(parameter) for parameter in parameters]
    total = torch.stack(list(losses.values())).sum()
    gradients = torch.autograd.grad(total, [outputs, *parameters], allow_unused=True, materialize_grads=True)
    return {name: loss.detach() for name, loss in losses.items()}, gradients[0], list(gradients[1:])
