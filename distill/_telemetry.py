"""No usage data leaves: OpenVINO and NNCF send some to Google Analytics with each import and conversion unless that is switched off.

They send it from a fork of the whole process: half a dozen forks a conversion, which took five sixths of the CPU time of a small
model's export. Both do without `openvino_telemetry` where it cannot be imported, and use a stand-in of their own.
"""

import sys
from pathlib import Path

__all__ = ["switch_off"]

_NAME = "openvino_telemetry"


def switch_off() -> None:
    """Keep `openvino_telemetry` from being imported, unless its user has opted in (`opt_in_out --opt_in`).

    It works for what is imported later: where OpenVINO was there first, its own setting holds.
    """
    if not _has_opted_in():
        sys.modules.setdefault(_NAME, None)  # type: ignore[arg-type]  # None is how Python is told that there is none


def _has_opted_in() -> bool:
    try:
        return (Path.home() / "intel" / _NAME).read_text(encoding="utf-8").strip() == "1"
    except (OSError, RuntimeError, ValueError):  # no file, no home, no text
        return False
