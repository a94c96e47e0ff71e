"""Resolve the precision `auto` of a recipe by what the hardware multiplies."""

import logging
from typing import Literal

from distill.errors import JobFailed
from distill.machine.cpu import cpu_class, multiplies_bf16

__all__ = ["Computed", "Stated", "resolve_precision"]

log = logging.getLogger(__name__)
Stated = Literal["auto", "bf16", "fp16", "fp32"]
Computed = Literal["bf16", "fp16", "fp32"]
_BF16_CAPABILITY = (8, 0)  # compute capability of a CUDA device: Ampere and later multiply bf16


def resolve_precision(stated: Stated, *, field: str, may_use_gpu: bool = True) -> Computed:
    """Return the precision to compute in, and log how `auto` was resolved.

    `auto` is bf16 if the device multiplies bf16 (CUDA of capability 8.0 or higher; a CPU with AVX512-BF16 or AMX), else
    fp32. On a CPU with only AVX2, a matrix product in bf16 takes about 60 times as long as in fp32.
    `ONEDNN_MAX_CPU_ISA` is respected.

    :param field: the recipe's field, for messages, such as "training.precision"
    :param may_use_gpu: False for work that runs on the CPU even if there is a GPU
    :raises JobFailed: if fp16 is requested without a GPU
    """
    device, has_bf16, on_gpu = _device(may_use_gpu)
    if stated == "auto":
        resolved: Computed = "bf16" if has_bf16 else "fp32"
        log.info(
            "%s: %s (auto: %s %s bf16)", field, resolved, device, "multiplies" if has_bf16 else "does not multiply"
        )
        return resolved
    if stated == "fp16" and not on_gpu:
        raise JobFailed(f"{field} fp16 needs a GPU; set auto, bf16 or fp32")
    if stated == "bf16" and not has_bf16:
        log.warning(
            "%s: bf16 as stated, but %s does not multiply it: this is many times slower than fp32; auto takes fp32 here",
            field,
            device,
        )
    return stated


def _device(may_use_gpu: bool) -> tuple[str, bool, bool]:
    """Return the name of the device, whether it multiplies bf16, and whether it is a GPU."""
    if may_use_gpu:
        import torch
        from accelerate import PartialState

        device = PartialState().device  # the CPU if ACCELERATE_USE_CPU is set
        if device.type == "cuda":
            capability = torch.cuda.get_device_capability(device)
            return torch.cuda.get_device_name(device), capability >= _BF16_CAPABILITY, True
    return f"this CPU ({cpu_class()})", multiplies_bf16(), False
