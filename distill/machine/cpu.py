"""Find the CPUs that this process may use, their name, and the number formats that they multiply.

OpenVINO, ONNX Runtime and torch count the machine's cores. In a container with a quota of 2 CPUs on a machine with 64,
they would run 64 threads on the time of 2 CPUs.
"""

import math
import os
import platform
from functools import cache
from pathlib import Path
from typing import Literal

__all__ = ["CpuClass", "cpu_class", "cpu_features", "cpu_model", "multiplies_bf16", "multiplies_int8", "usable_cpus"]

CpuClass = Literal["amx", "avx512-bf16", "avx512-vnni", "avx512", "avx2-vnni", "avx2", "other"]
"""The classes of CPUs that differ in their fastest precision, strongest first. "avx2-vnni" is a desktop CPU since 2021;
"other" is not an x86 CPU of the last ten years."""

_CLASSES: tuple[tuple[CpuClass, frozenset[str]], ...] = (
    ("amx", frozenset({"amx_int8", "amx_bf16"})),
    ("avx512-bf16", frozenset({"avx512f", "avx512_bf16"})),
    ("avx512-vnni", frozenset({"avx512f", "avx512_vnni"})),
    ("avx512", frozenset({"avx512f"})),
    ("avx2-vnni", frozenset({"avx2", "avx_vnni"})),
    ("avx2", frozenset({"avx2"})),
)
# the flags, of those used here, that each value of ONEDNN_MAX_CPU_ISA disables
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

# OpenVINO's own kernels have a separate limit and fail if only oneDNN is limited: Softmax of an int8 graph does not
# compile or gives no result (2026.4, AVX512 limited to AVX2). The plugin reads the variable later, when it is loaded.
if _cap := os.environ.get("ONEDNN_MAX_CPU_ISA"):
    os.environ.setdefault("OV_CPU_MAX_ISA", _cap)


def cpu_class() -> CpuClass:
    """Return the class of this CPU, by the instructions that `ONEDNN_MAX_CPU_ISA` allows."""
    features = cpu_features()
    return next((name for name, needed in _CLASSES if needed <= features), "other")


def cpu_features() -> set[str]:
    """Return the CPU's flags without those that `ONEDNN_MAX_CPU_ISA` disables."""
    return _flags() - _TAKEN_AWAY.get(os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper(), set())


def multiplies_bf16() -> bool:
    """Tell whether the CPU multiplies bf16; without it, bf16 in torch is about 60 times slower than fp32 (AVX2)."""
    return bool({"avx512_bf16", "amx_bf16"} & cpu_features())


def multiplies_int8() -> bool:
    """Tell whether the CPU sums 8-bit products in 32 bits (VNNI or AMX); else sums of two saturate at 16 bits."""
    return bool({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"} & cpu_features())


def usable_cpus() -> int:
    """Return how many CPUs this process may use: the minimum of affinity, cgroup quota (v1 or v2) and OMP_NUM_THREADS.

    Users set the variable when other programs need the machine. torch respects it by itself; the other runtimes must be
    given the number.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # "2,1" has one number per nesting level
    omp_threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    limits = [allowed, math.floor(_cgroup_quota() or allowed), int(omp_threads) if omp_threads.isdigit() else allowed]
    return max(1, min(limits))


def _cgroup_quota() -> float | None:
    """Return the number of CPUs that the cgroup allows; None if there is no limit."""
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
    """Return the CPU's name and flags; without /proc, return Python's name for the CPU and no flags."""
    fields = _cpuinfo()
    return fields.get("model name") or platform.processor() or platform.machine(), _flags()


def _flags() -> set[str]:
    fields = _cpuinfo()
    return set(fields.get("flags", fields.get("Features", "")).split())


@cache
def _cpuinfo() -> dict[str, str]:
    """Return the fields of the first CPU in /proc/cpuinfo; none if there is no /proc."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
