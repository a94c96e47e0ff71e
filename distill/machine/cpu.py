"""The CPUs that this process may use, what they are called, and what they can multiply.

OpenVINO, ONNX Runtime and torch count the machine's cores; a container with a quota of two on a machine of 64 then runs
64 threads in the time of two.
"""

import math
import os
import platform
from functools import cache
from pathlib import Path
from typing import Literal

__all__ = ["CpuClass", "cpu_class", "cpu_features", "cpu_model", "multiplies_bf16", "multiplies_int8", "usable_cpus"]

CpuClass = Literal["amx", "avx512-bf16", "avx512-vnni", "avx512", "avx2-vnni", "avx2", "other"]
"""What decides the fastest precision, strongest first. "avx2-vnni" is a desktop CPU since 2021, "other" is no x86 of the
last ten years."""

_CLASSES: tuple[tuple[CpuClass, frozenset[str]], ...] = (
    ("amx", frozenset({"amx_int8", "amx_bf16"})),
    ("avx512-bf16", frozenset({"avx512f", "avx512_bf16"})),
    ("avx512-vnni", frozenset({"avx512f", "avx512_vnni"})),
    ("avx512", frozenset({"avx512f"})),
    ("avx2-vnni", frozenset({"avx2", "avx_vnni"})),
    ("avx2", frozenset({"avx2"})),
)
# what each value of ONEDNN_MAX_CPU_ISA leaves of the flags that are looked at here
_BELOW_AVX512 = {"avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "amx_fp16"}
_AMX = {"amx_int8", "amx_bf16", "amx_fp16"}
_TAKEN_AWAY: dict[str, set[str]] = {
    "SSE41": {*_BELOW_AVX512, "avx_vnni", "avx2"},
    "AVX": {*_BELOW_AVX512, "avx_vnni", "avx2"},
    "AVX2": {*_BELOW_AVX512, "avx_vnni"},
    "AVX2_VNNI": _BELOW_AVX512,
    "AVX2_VNNI_2": _BELOW_AVX512,
    "AVX512_CORE": {*_AMX, "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni"},
    "AVX512_CORE_VNNI": {*_AMX, "avx512_bf16", "avx512_fp16"},
    "AVX512_CORE_BF16": {*_AMX, "avx512_fp16"},
    "AVX512_CORE_FP16": _AMX,
}

# OpenVINO's own kernels heed a cap of their own, and go wrong beside a oneDNN that is capped: Softmax of an int8 graph is not
# compiled, or gives nothing (2026.4, AVX512 capped to AVX2). Its plugin reads the variable when it is loaded, later than this.
if _cap := os.environ.get("ONEDNN_MAX_CPU_ISA"):
    os.environ.setdefault("OV_CPU_MAX_ISA", _cap)


def cpu_class() -> CpuClass:
    """Return the class of this CPU, as far as `ONEDNN_MAX_CPU_ISA` lets its instructions be used."""
    features = cpu_features()
    return next((name for name, needed in _CLASSES if needed <= features), "other")


def cpu_features() -> set[str]:
    """Return the CPU's flags less those that `ONEDNN_MAX_CPU_ISA` takes away from torch."""
    return _flags() - _TAKEN_AWAY.get(os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper(), set())


def multiplies_bf16() -> bool:
    """Whether the CPU multiplies bf16: elsewhere torch computes it about 60 times slower than fp32 (AVX2)."""
    return bool({"avx512_bf16", "amx_bf16"} & cpu_features())


def multiplies_int8() -> bool:
    """Whether the CPU sums products of 8 bits in 32 (VNNI or AMX). Elsewhere sums of two saturate at 16 bits."""
    return bool({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"} & cpu_features())


def usable_cpus() -> int:
    """Return how many CPUs this process may use: its affinity, cut by its cgroup's quota (v1 or v2) and OMP_NUM_THREADS.

    The variable is how one says that others are at work: torch heeds it alone, and would be told otherwise by a runtime.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # "2,1" is one number a nesting level
    limits = [allowed, math.floor(_cgroup_quota() or allowed), int(said) if said.isdigit() else allowed]
    return max(1, min(limits))


def _cgroup_quota() -> float | None:
    """CPUs a container may use; None where there is no limit."""
    root = Path("/sys/fs/cgroup")
    try:
        limit, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit, period = ((root / f"cpu/cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    return None if limit in ("max", "-1") else int(limit) / int(period)


def cpu_model() -> tuple[str, set[str]]:
    """Return the CPU's name and its flags; where there is no /proc, what Python knows and no flags."""
    facts = _cpuinfo()
    return facts.get("model name") or platform.processor() or platform.machine(), _flags()


def _flags() -> set[str]:
    facts = _cpuinfo()
    return set(facts.get("flags", facts.get("Features", "")).split())


@cache
def _cpuinfo() -> dict[str, str]:
    """Facts of the first CPU in /proc/cpuinfo; none where there is no /proc."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
