"""Switch off usage data: OpenVINO and NNCF send some to Google Analytics with each import and conversion by default.

They send it from forks of the whole process, about six per conversion, which took five sixths of the CPU time of a
small model's export. If `openvino_telemetry` cannot be imported, both use their own stub.
"""

import sys
from pathlib import Path

__all__ = ["switch_off"]

_NAME = "openvino_telemetry"


def switch_off() -> None:
    """Block the import of `openvino_telemetry`, unless the user has opted in (`opt_in_out --opt_in`).

    It only affects later imports: if OpenVINO was imported before, its own setting is used.
    """
    if not _has_opted_in():
        sys.modules.setdefault(_NAME, None)  # type: ignore[arg-type]  # None is how Python is told that there is none


def _has_opted_in() -> bool:
    try:
        return (Path.home() / "intel" / _NAME).read_text(encoding="utf-8").strip() == "1"
    except (OSError, RuntimeError, ValueError):  # no file, no home, no text
        return False
