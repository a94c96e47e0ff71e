"""Switch off the telemetry of OpenVINO and NNCF, which send usage data to Google Analytics.

By default they do so with each import and conversion.
They send it from a fork of the whole process, about six forks per conversion. The forks took five sixths of the CPU
time of a small model's export. If `openvino_telemetry` cannot be imported, both use their own stub instead.
"""

import sys
from pathlib import Path

__all__ = ["switch_off"]

_NAME = "openvino_telemetry"


def switch_off() -> None:
    """Prevent the import of `openvino_telemetry`, unless the user has opted in (`opt_in_out --opt_in`).

    This only affects later imports. If OpenVINO has been imported before, its own setting applies.
    """
    if not _has_opted_in():
        sys.modules.setdefault(_NAME, None)  # type: ignore[arg-type]  # None makes an import fail


def _has_opted_in() -> bool:
    try:
        return (Path.home() / "intel" / _NAME).read_text(encoding="utf-8").strip() == "1"
    except (OSError, RuntimeError, ValueError):  # no such file, no home folder, or not UTF-8
        return False
