"""The class of a CPU, and what `precision: auto` becomes on it."""

import logging
import os
import subprocess
import sys

import pytest

from distill.errors import JobFailed
from distill.machine import cpu as machine
from distill.machine.cpu import cpu_class, cpu_features, multiplies_bf16, multiplies_int8
from distill.machine.precision import resolve_precision

AVX2 = "sse4_1 avx avx2 fma"
DESKTOP = f"{AVX2} avx_vnni"
SKYLAKE = f"{AVX2} avx512f avx512bw"
CASCADE_LAKE = f"{SKYLAKE} avx512_vnni"
ZEN_4 = f"{CASCADE_LAKE} avx512_bf16"
SAPPHIRE_RAPIDS = f"{ZEN_4} avx512_fp16 avx_vnni amx_tile amx_bf16 amx_int8"


@pytest.fixture
def cpu(monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)

    def become(flags: str, cap: str | None = None) -> None:
        monkeypatch.setattr(machine, "_cpuinfo", lambda: {"model name": "a CPU", "flags": flags})
        if cap is not None:
            monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)

    return become


@pytest.mark.parametrize(
    ("flags", "name", "bf16", "int8"),
    [
        ("sse4_1", "other", False, False),
        (AVX2, "avx2", False, False),
        (DESKTOP, "avx2-vnni", False, True),
        (SKYLAKE, "avx512", False, False),
        (CASCADE_LAKE, "avx512-vnni", False, True),
        (ZEN_4, "avx512-bf16", True, True),
        (SAPPHIRE_RAPIDS, "amx", True, True),
    ],
)
def test_a_class_says_what_is_multiplied(cpu, flags, name, bf16, int8):
    cpu(flags)
    assert (cpu_class(), multiplies_bf16(), multiplies_int8()) == (name, bf16, int8)


@pytest.mark.parametrize(
    ("cap", "name", "bf16", "int8"),
    [
        ("AVX2", "avx2", False, False),
        ("avx2", "avx2", False, False),
        ("AVX2_VNNI", "avx2-vnni", False, True),
        ("AVX512_CORE", "avx512", False, False),
        ("AVX512_CORE_VNNI", "avx512-vnni", False, True),
        ("AVX512_CORE_BF16", "avx512-bf16", True, True),
        ("AVX512_CORE_FP16", "avx512-bf16", True, True),
        ("ALL", "amx", True, True),
        ("DEFAULT", "amx", True, True),
    ],
)
def test_a_large_machine_is_made_a_small_one(cpu, cap, name, bf16, int8):
    cpu(SAPPHIRE_RAPIDS, cap)
    assert (cpu_class(), multiplies_bf16(), multiplies_int8()) == (name, bf16, int8)
    assert "avx2" in cpu_features()


def test_auto_is_bf16_only_where_it_is_multiplied_and_is_said(cpu, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("distill"), "propagate", True)
    caplog.set_level(logging.INFO)
    cpu(AVX2)
    assert resolve_precision("auto", field="training.precision", may_use_gpu=False) == "fp32"
    assert "training.precision: fp32 (auto: this CPU (avx2) does not multiply bf16)" in caplog.text
    cpu(ZEN_4)
    assert resolve_precision("auto", field="signals.precision", may_use_gpu=False) == "bf16"
    assert "signals.precision: bf16 (auto: this CPU (avx512-bf16) multiplies bf16)" in caplog.text


def test_what_is_stated_is_taken_and_a_slow_choice_is_said(cpu, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("distill"), "propagate", True)
    cpu(AVX2)
    assert resolve_precision("bf16", field="training.precision", may_use_gpu=False) == "bf16"
    assert "many times slower than fp32" in caplog.text
    assert resolve_precision("fp32", field="training.precision", may_use_gpu=False) == "fp32"
    with pytest.raises(JobFailed, match=r"training.precision fp16 needs a GPU; set auto, bf16 or fp32"):
        resolve_precision("fp16", field="training.precision", may_use_gpu=False)


def test_a_cap_of_onednn_caps_openvino_too():
    program = "import os, distill.machine.cpu; print(os.environ.get('OV_CPU_MAX_ISA'))"
    for given, expected in (
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, "AVX2"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2", "OV_CPU_MAX_ISA": "SSE41"}, "SSE41"),
        ({}, "None"),
    ):
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.endswith("MAX_CPU_ISA") and name != "OV_CPU_MAX_ISA"
        }
        done = subprocess.run(
            [sys.executable, "-c", program], env=kept | given, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
