"""The tables of the page: all models with all numbers, and latency by length, in batches and under load.

This module makes their content as text. The template `report.html` defines their form.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distill.metrics.standing import above_chance
from distill.report.content import (
    IS_TEACHER,
    LOWER_IS_BETTER,
    NO_SHARE,
    BenchmarkResults,
    Row,
    latency_of,
    metric_of,
    number_at,
    role_of,
    throughput_of,
)
from distill.report.series import PERCENTILES, BatchTime, Grid, Line, Load, Service
from distill.report.words import (
    bound,
    in_units,
    listed,
    megabytes,
    metric_name,
    nature,
    percent,
    speed_share,
    three_decimals,
    three_digits,
    times,
)

__all__ = [
    "ColumnHead",
    "ReportTable",
    "Shown",
    "TableLine",
    "batch_tables",
    "length_table",
    "load_table",
    "main_table",
    "measuring_ended",
    "pairs_measured",
]


@dataclass(frozen=True)
class ColumnHead:
    """The head of a column, and whether the column is the first of its group."""

    text: str
    starts: bool = False


@dataclass(frozen=True)
class Shown:
    """A number in a cell, with the lines below it in small type."""

    text: str
    small: Sequence[str] = ()
    strong: bool = False
    heat: float | None = None  # strength of the cell's tint, in percent


@dataclass(frozen=True)
class TableLine:
    """A line of a table: its name with the small text below it, and one cell per column; None: not measured."""

    name: str
    small: str
    cells: Sequence[Shown | None]
    role: str = ""


@dataclass(frozen=True)
class ReportTable:
    """A table with its caption, as a list of paragraphs."""

    name: str
    caption: Sequence[str]
    heads: Sequence[ColumnHead]
    lines: Sequence[TableLine]
    groups: Sequence[tuple[str, int]] = ()  # names of column groups, with the number of their columns


@dataclass(frozen=True)
class _Column:
    """A column of the main table: a number that is compared between rows, and details in small type."""

    group: str
    head: str
    value: Callable[[Row], float | None]
    show: Callable[[float], str]
    small: Callable[[Row], list[str]]  # lines
    better: int = 0  # 1: higher, -1: lower, 0: not compared


def main_table(content: BenchmarkResults) -> ReportTable:
    """Return the table of all models with quality, speed and size."""
    columns = _columns(content)
    best = [_best(column, content.rows) for column in columns]
    before = [None, *(column.group for column in columns)]
    heads = [ColumnHead(column.head, column.group != last) for column, last in zip(columns, before, strict=False)]
    lines = [
        TableLine(
            label,
            nature(row, content.reference),
            [_cell(row, *column_and_best) for column_and_best in zip(columns, best, strict=True)],
            role_of(row),
        )
        for label, row in content.labelled()
    ]
    groups = list(Counter(column.group for column in columns).items())
    return ReportTable("Results", _caption(content), heads, lines, groups)


def _columns(content: BenchmarkResults) -> list[_Column]:
    """Return the columns for which at least one row has a number."""
    quality = [_metric_column(key, content.reference) for key in content.metrics]
    columns = [*quality, _share_column(content.primary), *_speed_columns(content.reference), *_size_columns()]
    return [column for column in columns if any(column.value(row) is not None for row in content.rows)]


def _metric_column(key: str, reference: str) -> _Column:
    def interval(row: Row) -> list[str]:
        low, high = metric_of(row, key, "low"), metric_of(row, key, "high")
        return [] if low is None or high is None else [f"{bound(low)}–{bound(high)}"]

    better = -1 if key in LOWER_IS_BETTER else 1
    name = metric_name(key).replace("Teacher", reference.capitalize())
    return _Column("Quality", name, lambda row: metric_of(row, key), three_decimals, interval, better)


def _share_column(primary: str | None) -> _Column:
    def share(row: Row) -> float | None:
        return None if primary is None or row.get("role") == "teacher" else number_at(row, "share", primary)

    return _Column(
        "Quality", f"Share of {metric_name(primary or '')}{above_chance(primary)}", share, percent, lambda row: []
    )


def _speed_columns(reference: str) -> list[_Column]:
    def tail(row: Row) -> list[str]:
        parts = [(name, number_at(row, "latency_ms", name)) for name in ("p95", "p99")]
        lines = [f"{name} {three_digits(value)}" for name, value in parts if value is not None]
        batch = number_at(row, "latency_ms", "batch")
        lines = [*_measured_interval(row, "latency"), *lines]
        return [f"batch {batch:.0f}", *lines] if batch and batch != 1 else lines

    def speedup(row: Row) -> list[str]:
        factor, split = number_at(row, "speedup"), speed_share(row)
        lines = [] if factor is None or row.get("role") == "teacher" else [f"{times(factor)} {reference}"]
        # one factor per line, because the column is narrow
        parts = (
            []
            if split is None
            else split.replace(" × ", "\n× ").replace("from the ", "").replace("smaller ", "").split("\n")
        )
        return [
            *_measured_interval(row, "throughput"),
            *lines,
            *(f"= {part}" if not i else part for i, part in enumerate(parts)),
        ]

    return [
        _Column("Speed", "p50, ms", latency_of, three_digits, tail, -1),
        _Column("Speed", "Pairs/s", throughput_of, three_digits, speedup, 1),
    ]


def _measured_interval(row: Row, kind: str) -> list[str]:
    low, high = (number_at(row, f"{kind}_interval", part) for part in ("low", "high"))
    return [] if low is None or high is None else [f"{three_digits(low)}–{three_digits(high)}"]


def _size_columns() -> list[_Column]:
    def parameters(row: Row) -> list[str]:
        count = number_at(row, "parameters")
        return [] if count is None else [f"{in_units(count)} params"]

    return [
        _Column("Size", "On disk", lambda row: number_at(row, "size_mb"), megabytes, parameters, -1),
        _Column("Size", "Peak memory", lambda row: number_at(row, "peak_memory_mb"), megabytes, lambda row: [], -1),
    ]


def _best(column: _Column, rows: Sequence[Row]) -> float | None:
    """Return a column's best value without the teacher's rows, times `better`; None if fewer than two rows have one."""
    values = [column.value(row) for row in rows if row.get("role") not in IS_TEACHER]
    known = [value * column.better for value in values if value is not None]
    return max(known) if column.better and len(known) > 1 else None


def _caption(content: BenchmarkResults) -> list[str]:
    data, environment = content.raw.get("data") or {}, content.raw.get("environment") or {}
    counts = [(data.get("n_pairs"), "pairs"), (data.get("n_queries"), "queries")]
    data_in_words = listed([f"{number:,} {word}" for number, word in counts if isinstance(number, int)] or ["the data"])
    cpu = environment.get("cpu")
    threads = environment.get("threads")
    where = f" on {cpu}{f', {threads} threads' if threads else ''}" if cpu else ""
    quality = (
        f"Small type under a quality: its 95 % bootstrap interval over {data_in_words}. Bold: the best apart from the {content.reference}; where "
        "intervals overlap much, that order is not settled."
    )
    if NO_SHARE.intersection(content.metrics) - LOWER_IS_BETTER:
        quality += f" {content.reference.capitalize()} ρ and τ-b: rank agreement with the {content.reference}’s scores."
    if any(row.get("role") == "control" for row in content.rows):
        quality += " The control is the same student, trained on the labels alone; the notes say how."
    if any(row.get("role") == "untrained" for row in content.rows):
        quality += " Untrained: the student before its first step; its speed is the student’s."
    if any(row.get("role") == "stage" for row in content.rows):
        quality += " After …: the student after an earlier stage of its training."
    speed = (
        f"Latency and throughput were measured{where}; latency is for one pair at a time unless a batch is named. "
        f"{pairs_measured(content)} {measuring_ended(content)}"
    )
    return [text.replace("  ", " ") for text in (quality, speed.strip(), _runtime_words(content)) if text]


def _runtime_words(content: BenchmarkResults) -> str:
    """Return notes on the two factors of "× teacher", and on OpenVINO's number format."""
    words = []
    if any(row.get("speedup_split") for row in content.rows):
        words.append(
            "× teacher is against the teacher in PyTorch, and the product of two factors: what the smaller model gives, compared "
            "with the teacher in the same runtime and precision (or in the one that is named), and what that runtime gives the "
            "teacher as well."
        )
    if any(row.get("runtime") == "openvino" for row in content.rows):
        words.append(
            "OpenVINO computes in bf16 by default on CPUs that can; precision is named in each row for that reason."
        )
    return " ".join(words)


def pairs_measured(content: BenchmarkResults) -> str:
    """Return on how many pairs speed was measured: once if all rows agree, else row by row; "" if unknown."""
    known = [
        (label, numbers)
        for label, row in content.labelled()
        if (numbers := (number_at(row, "latency_pairs"), number_at(row, "throughput_pairs"))) != (None, None)
    ]
    different = list(dict.fromkeys(numbers for _, numbers in known))
    if len(different) == 1:
        return f"Every row was measured over the same pairs: {_pair_counts(*different[0])}."
    return "".join(f"{label}: {_pair_counts(*numbers)}. " for label, numbers in known).strip()


def _pair_counts(latency: float | None, throughput: float | None) -> str:
    counts = [(latency, "latency"), (throughput, "throughput")]
    return listed([f"{name} over {count:,.0f}" for count, name in counts if count is not None])


def measuring_ended(content: BenchmarkResults) -> str:
    """Return a note on the intervals of speed, and on the reason why measuring stopped; "" if it is unknown."""
    measuring = content.raw.get("measuring") or {}
    rounds, seconds, limit = (number_at(measuring, key) for key in ("rounds", "seconds", "interval"))
    if rounds is None:
        return ""
    text = f"Small type under p50 and pairs/s: 95 % intervals over {rounds:.0f} rounds of all rows"
    if seconds is not None:
        text += f" ({three_digits(seconds)} s of measuring)"
    if limit is None:
        return f"{text}."
    width, row = number_at(measuring, "widest"), measuring.get("widest_row")
    widest = "" if width is None else f" The widest is {percent(width)} of its value{f' ({row})' if row else ''}."
    if measuring.get("ended_by") == "interval":
        return f"{text}, which ended with every interval within {percent(limit)} of its value.{widest}"
    return (
        f"{text}, which the limit of time ended before every interval was within {percent(limit)} of its value.{widest}"
    )


def _cell(row: Row, column: _Column, best: float | None) -> Shown | None:
    value = column.value(row)
    if value is None:
        return None
    text = column.show(value)
    leads = best is not None and row.get("role") not in IS_TEACHER and column.show(best * column.better) == text
    return Shown(text, column.small(row), leads)


def length_table(lines: Sequence[Line]) -> ReportTable:
    """Return the table of the latency of one pair by its number of tokens."""
    tokens = sorted({point.tokens for line in lines for point in line.points})
    body = []
    for line in lines:
        found = {point.tokens: point for point in line.points}
        points = [found.get(count) for count in tokens]
        small = [[] if point is None or point.p95 is None else [three_digits(point.p95)] for point in points]
        cells = [
            None if point is None else Shown(three_digits(point.p50), under)
            for point, under in zip(points, small, strict=True)
        ]
        body.append(TableLine(line.label, "", cells))
    caption = "p50 of one pair in milliseconds by its tokens, and p95 in small type."
    return ReportTable("Latency by length", [caption], [ColumnHead(f"{count:g}") for count in tokens], body)


def load_table(services: Sequence[Service]) -> ReportTable:
    """Return the table of latencies by arrival rate, as a share of a model's capacity."""
    shares = sorted({load.share for service in services for load in service.loads})
    body = []
    for service in services:
        found = {load.share: load for load in service.loads}
        most = "" if service.capacity is None else f"at most {three_digits(service.capacity)} pairs/s"
        body.append(TableLine(service.label, most, [_under_load(found.get(share)) for share in shares]))
    caption = "p50 in milliseconds by the share of the capacity that arrives; p95, p99 and the rate in small type."
    return ReportTable(
        "Latency under load", [caption], [ColumnHead(f"{share * 100:.0f}\u00a0%") for share in shares], body
    )


def _under_load(load: Load | None) -> Shown | None:
    if load is None:
        return None
    p50, p95, p99 = (three_digits(load.times[name]) for name in PERCENTILES)
    return Shown(p50, [f"p95 {p95}", f"p99 {p99}", f"{three_digits(load.rate)}/s"])


def batch_tables(grids: Sequence[Grid]) -> list[ReportTable]:
    """Return one table per model: pairs per second by batch size and tokens. All tables share one scale of tints."""
    rates = [cell.per_second for grid in grids for cell in grid.cells]
    return [_batch_table(grid, min(rates), max(rates)) for grid in grids]


def _batch_table(grid: Grid, slowest: float, fastest: float) -> ReportTable:
    tokens = sorted({cell.tokens for cell in grid.cells})
    found = {(cell.batch, cell.tokens): cell for cell in grid.cells}
    best = {count: max(cell.per_second for cell in grid.cells if cell.tokens == count) for count in tokens}
    body = [
        TableLine(
            f"{batch:g}",
            "",
            [_batch_cell(found.get((batch, count)), best[count], slowest, fastest) for count in tokens],
        )
        for batch in sorted({cell.batch for cell in grid.cells})
    ]
    return ReportTable(grid.label, [], [ColumnHead(f"{count:g}") for count in tokens], body)


def _batch_cell(cell: BatchTime | None, best: float, slowest: float, fastest: float) -> Shown | None:
    if cell is None:
        return None
    share = math.log(cell.per_second / slowest) / math.log(fastest / slowest) if fastest > slowest else 0.0
    under = [f"{three_digits(cell.p50)} ms"]
    return Shown(three_digits(cell.per_second), under, cell.per_second == best, share * 100)
