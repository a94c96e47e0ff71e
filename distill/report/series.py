"""The data for a report's pictures and tables: each model's points, lines, batches and loads, with checked numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distill.report.content import LOWER_IS_BETTER, BenchmarkResults, Row, metric_of, number_at, role_of

__all__ = [
    "PERCENTILES",
    "BatchTime",
    "Grid",
    "LengthTime",
    "Line",
    "Load",
    "Point",
    "Service",
    "grids_of",
    "lines_of",
    "points_of",
    "services_of",
]

PERCENTILES = ("p50", "p95", "p99")


@dataclass(frozen=True)
class Point:
    """A model in a picture of quality (y) against latency or throughput (x).

    :param front: no other model is at least as good in both
    """

    label: str
    role: str
    x: float
    y: float
    low: float
    high: float
    front: bool = False


@dataclass(frozen=True)
class LengthTime:
    """Latency at a length, in milliseconds."""

    tokens: float
    p50: float
    p95: float | None


@dataclass(frozen=True)
class Line:
    """Latency of a model by length, in ascending order of length."""

    label: str
    role: str
    points: list[LengthTime]


@dataclass(frozen=True)
class BatchTime:
    """A batch size at a length, with milliseconds per batch and pairs per second."""

    batch: float
    tokens: float
    p50: float

    @property
    def per_second(self) -> float:
        """Pairs per second."""
        return 1000 * self.batch / self.p50


@dataclass(frozen=True)
class Grid:
    """A model's times for batches of each size at each length."""

    label: str
    cells: list[BatchTime]


@dataclass(frozen=True)
class Load:
    """Latencies in milliseconds, by the name of the percentile, when `rate` pairs per second arrive."""

    share: float  # of the capacity
    rate: float
    times: dict[str, float]


@dataclass(frozen=True)
class Service:
    """A model under each load, in ascending order of the rate."""

    label: str
    role: str
    capacity: float | None  # pairs per second
    loads: list[Load]


def points_of(content: BenchmarkResults, x: Callable[[Row], float | None], less: bool = True) -> list[Point]:
    """Return the models that have the primary metric and `x`. Models that no other model beats are marked as the front.

    :param x: returns a row's latency or throughput
    :param less: whether less of `x` is better (latency); False: more is better (throughput)
    """
    candidates = [_point(label, row, content.primary or "", x(row)) for label, row in content.labelled()]
    found = [point for point in candidates if point is not None]
    sign = -1 if content.primary in LOWER_IS_BETTER else 1
    keys = [(point.x if less else -point.x, -sign * point.y) for point in found]
    front = [not any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in keys) for own in keys]
    return [replace(point, front=leads) for point, leads in zip(found, front, strict=True)]


def _point(label: str, row: Row, primary: str, across: float | None) -> Point | None:
    up, low, high = (metric_of(row, primary, part) for part in ("value", "low", "high"))
    if across is None or across <= 0 or up is None:
        return None
    return Point(label, role_of(row), across, up, up if low is None else low, up if high is None else high)


def lines_of(content: BenchmarkResults) -> list[Line]:
    """Return the models whose latency was measured by length."""
    lines = []
    for label, row in content.labelled():
        points = [
            LengthTime(**known, p95=number_at(entry, "p95"))
            for entry in row.get("latency_by_length") or []
            if (known := _positive(entry, ("tokens", "p50"))) is not None
        ]
        if points:
            lines.append(Line(label, role_of(row), sorted(points, key=lambda point: point.tokens)))
    return lines


def grids_of(content: BenchmarkResults) -> list[Grid]:
    """Return the models that were measured in batches."""
    grids = []
    for label, row in content.labelled():
        measured = [_positive(entry, ("batch", "tokens", "p50")) for entry in _under_load(row, "batches")]
        cells = [BatchTime(**numbers) for numbers in measured if numbers is not None]
        if cells:
            grids.append(Grid(label, cells))
    return grids


def services_of(content: BenchmarkResults) -> list[Service]:
    """Return the models that were measured with randomly arriving pairs."""
    services = []
    for label, row in content.labelled():
        measured = [_positive(entry, ("load", "rate", *PERCENTILES)) for entry in _under_load(row, "open_loop")]
        loads = [
            Load(numbers["load"], numbers["rate"], {name: numbers[name] for name in PERCENTILES})
            for numbers in measured
            if numbers is not None
        ]
        if loads:
            capacity = number_at(row, "under_load", "capacity_pairs_per_s")
            services.append(Service(label, role_of(row), capacity, sorted(loads, key=lambda load: load.rate)))
    return services


def _under_load(row: Row, what: str) -> list[Any]:
    found = (row.get("under_load") or {}).get(what)
    return found if isinstance(found, list) else []


def _positive(values: Any, keys: Sequence[str]) -> dict[str, float] | None:
    """Return the numbers of these keys; None if one of them is missing or not above 0 (axes are logarithmic)."""
    known = {key: number for key in keys if (number := number_at(values, key)) is not None and number > 0}
    return known if len(known) == len(keys) else None
