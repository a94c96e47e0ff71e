"""The content of a report: a checked and completed benchmark, and access to the numbers in its rows.

The docstring of `distill.report.build` lists the fields of a benchmark. Any of them may be missing. `number_at` and the
functions that use it then return None, and the report leaves the number out.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np

from distill.errors import BadInput
from distill.metrics.names import LOWER_IS_BETTER, METRIC_NAMES, NO_SHARE
from distill.metrics.standing import Row, first_teacher, share_of

__all__ = [
    "IS_TEACHER",
    "LOWER_IS_BETTER",
    "METRIC_NAMES",
    "NO_SHARE",
    "RUNTIMES",
    "BenchmarkResults",
    "Row",
    "latency_of",
    "metric_of",
    "number_at",
    "ratio",
    "role_of",
    "throughput_of",
]


RUNTIMES = {"torch": "PyTorch", "openvino": "OpenVINO", "onnx": "ONNX Runtime"}
IS_TEACHER = ("teacher", "teacher_export")
_PRIMARY = ("ndcg_at_10", "roc_auc", "spearman")
_ROLES = ("teacher", "teacher_export", "untrained", "stage", "student", "control", "export", "baseline")


@dataclass(frozen=True)
class BenchmarkResults:
    """A checked benchmark, its rows in the order of their roles."""

    raw: dict[str, Any]
    rows: list[Row]
    labels: list[str]  # one per row; two are only equal if name, runtime and precision of the rows are
    metrics: list[str]  # all metrics that at least one row has
    primary: str | None
    teacher: Row | None
    reference: str  # the name for the row with which the others are compared: teacher, first model

    @classmethod
    def of(cls, benchmark: Mapping[str, Any]) -> "BenchmarkResults":
        """Check the content of `benchmark.json` and complete its rows.

        :raises BadInput: if there are no rows, a row has no name, or no row has the given primary metric
        """
        raw = _plain(benchmark)
        rows = _checked_rows(raw.get("rows"))
        teacher = first_teacher(rows)
        rows = [_completed(row, teacher) for row in rows]
        metrics = _metrics_in(rows)
        primary, reference = _primary(raw.get("primary_metric"), metrics), str(raw.get("reference") or "teacher")
        return cls(raw, rows, _labels(rows), metrics, primary, teacher, reference)

    def labelled(self) -> list[tuple[str, Row]]:
        """Return (label, row) for each row."""
        return list(zip(self.labels, self.rows, strict=True))


def number_at(values: Mapping[str, Any] | None, *path: str) -> float | None:
    """Return the number at a path of keys, or None if there is no number."""
    found: Any = values
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def metric_of(row: Row, key: str, part: str = "value") -> float | None:
    """Return a metric's value, or the `low`, `high` or `n` of its interval; None if it is missing."""
    return number_at(row, "metrics", key, part)


def latency_of(row: Row) -> float | None:
    """Return the median latency in milliseconds."""
    return number_at(row, "latency_ms", "p50")


def throughput_of(row: Row) -> float | None:
    """Return the throughput in pairs per second."""
    return number_at(row, "throughput_pairs_per_s")


def role_of(row: Row) -> str:
    """Return the role in which a row is shown; a row without a known role is shown as a baseline."""
    return str(row["role"]) if row.get("role") in _ROLES else "baseline"


def ratio(above: float | None, below: float | None) -> float | None:
    """Return above / below; None if one is missing or the divisor is not above 0."""
    return above / below if above is not None and below is not None and below > 0 else None


def _plain(value: Any) -> Any:
    """Convert arrays, dataclasses and paths to JSON types, and numbers that are not finite to None.

    Bytes of a path that are no UTF-8 are written as escapes, since no file could hold them.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, int):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()


def _checked_rows(rows: Any) -> list[Row]:
    if not isinstance(rows, list) or not rows:
        raise BadInput("rows: a benchmark without models has nothing to report; give one row a model")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping) or not row.get("name"):
            raise BadInput(f"rows: row {number} has no name; give each model one")
    return sorted(rows, key=lambda row: _ROLES.index(row["role"]) if row.get("role") in _ROLES else len(_ROLES))


def _metrics_in(rows: Sequence[Row]) -> list[str]:
    present = {key for row in rows for key in row.get("metrics") or {} if metric_of(row, key) is not None}
    return [key for key in METRIC_NAMES if key in present] + sorted(present - set(METRIC_NAMES))


def _primary(wanted: str | None, metrics: list[str]) -> str | None:
    if wanted and wanted not in metrics:
        raise BadInput(f"primary_metric: no row has {wanted!r}; there are {', '.join(metrics) or 'none'}")
    return wanted or next((key for key in (*_PRIMARY, *metrics) if key in metrics), None)


def _completed(row: Row, teacher: Row | None) -> Row:
    """Add shares of the teacher's values, and the speed-up, if they are missing and can be computed."""
    if teacher is None:
        return row
    keys = [key for key in row.get("metrics") or {} if key not in NO_SHARE]
    shares = {key: ratio(metric_of(row, key), metric_of(teacher, key)) for key in keys}
    stored_shares = {key: value for key, value in (row.get("retention") or {}).items() if value is not None}
    speedup = number_at(row, "speedup")
    if speedup is None:
        speedup = ratio(throughput_of(row), throughput_of(teacher))
    printed = {key: share_of(row, teacher, key) for key in keys}
    return {**row, "retention": {**shares, **stored_shares}, "share": printed, "speedup": speedup}


def _labels(rows: Sequence[Row]) -> list[str]:
    """Return a label for each row: name and precision, and also the runtime if two labels would be equal without it."""
    short = [_label(row, "precision") for row in rows]
    alike = {label for label, count in Counter(short).items() if count > 1}
    return [
        _label(row, "runtime", "precision") if name in alike else name for name, row in zip(short, rows, strict=True)
    ]


def _label(row: Row, *keys: str) -> str:
    name = str(row["name"])
    details = [RUNTIMES.get(str(row[key]), str(row[key])) for key in keys if row.get(key)]
    more = [text for text in details if text.lower() not in name.lower()]
    if more and name.endswith(")"):  # add to the brackets that the name has already
        return f"{name[:-1]}, {' '.join(more)})"
    return f"{name} ({' '.join(more)})" if more else name
