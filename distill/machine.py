"""The CPUs that this process may use, and what they are called.

OpenVINO, ONNX Runtime and torch count the machine's cores; a container with a quota of two on a machine of 64 then runs
64 threads in the time of two.
"""

import math
import os
import platform
from pathlib import Path

__all__ = ["cpu_model", "usable_cpus"]


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
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    return facts.get("model name", platform.machine()), set(facts.get("flags", facts.get("Features", "")).split())
