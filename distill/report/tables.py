"""The tables of the page: all models with all numbers, and latency by length, in batches and under load."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from distill.report.content import (
    IS_TEACHER,
    LOWER_IS_BETTER,
    NO_SHARE,
    Benchmark,
    Row,
    latency_of,
    metric_of,
    number_at,
    role_of,
    throughput_of,
)
from distill.report.series import PERCENTILES, Cell, Grid, Line, Service
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

__all__ = ["batch_tables", "length_table", "load_table", "main_table", "measuring_ended", "pairs_measured"]

_MISSING = '<span class="none" title="not measured">–</span>'


@dataclass(frozen=True)
class _Column:
    """A column of the main table: a number that is compared and, in small type, what goes with it."""

    group: str
    head: str
    value: Callable[[Row], float | None]
    show: Callable[[float], str]
    small: Callable[[Row], list[str]]  # lines
    better: int = 0  # 1: higher, -1: lower, 0: not compared


def main_table(content: Benchmark) -> str:
    """Every model with its qualities, speed and size; on a phone a card a model."""
    columns = _columns(content)
    best = [_best(column, content.rows) for column in columns]
    body = [_table_row(label, row, columns, best) for label, row in content.labelled()]
    table = [
        '<table role="table">',
        f"<caption>{_caption(content)}</caption>",
        _table_head(columns),
        '<tbody role="rowgroup">',
        *body,
        "</tbody>",
        "</table>",
    ]
    return _scrolled("scroll cards first", "Results", table)


def _columns(content: Benchmark) -> list[_Column]:
    """Columns that any row has a number for."""
    quality = [_metric_column(key) for key in content.metrics]
    columns = [*quality, _share_column(content.primary), *_speed_columns(), *_size_columns()]
    return [column for column in columns if any(column.value(row) is not None for row in content.rows)]


def _metric_column(key: str) -> _Column:
    def interval(row: Row) -> list[str]:
        low, high = metric_of(row, key, "low"), metric_of(row, key, "high")
        return [] if low is None or high is None else [f"{bound(low)}–{bound(high)}"]

    better = -1 if key in LOWER_IS_BETTER else 1
    return _Column("Quality", metric_name(key), lambda row: metric_of(row, key), three_decimals, interval, better)


def _share_column(primary: str | None) -> _Column:
    def share(row: Row) -> float | None:
        return None if primary is None or row.get("role") == "teacher" else number_at(row, "retention", primary)

    return _Column("Quality", f"Share of {metric_name(primary or '')}", share, percent, lambda row: [])


def _speed_columns() -> list[_Column]:
    def tail(row: Row) -> list[str]:
        parts = [(name, number_at(row, "latency_ms", name)) for name in ("p95", "p99")]
        said = [f"{name} {three_digits(value)}" for name, value in parts if value is not None]
        batch = number_at(row, "latency_ms", "batch")
        said = [*_measured_interval(row, "latency"), *said]
        return [f"batch {batch:.0f}", *said] if batch and batch != 1 else said

    def speedup(row: Row) -> list[str]:
        factor, split = number_at(row, "speedup"), speed_share(row)
        said = [] if factor is None or row.get("role") == "teacher" else [f"{times(factor)} teacher"]
        # a factor a line: the column is narrow
        parts = [] if split is None else split.replace(" × ", "\n× ").replace("from the ", "").split("\n")
        return [
            *_measured_interval(row, "throughput"),
            *said,
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
    """Best shown value beside the teacher, or None where there are not two to choose from."""
    values = [column.value(row) for row in rows if row.get("role") not in IS_TEACHER]
    known = [value * column.better for value in values if value is not None]
    return max(known) if column.better and len(known) > 1 else None


def _caption(content: Benchmark) -> str:
    data, environment = content.raw.get("data") or {}, content.raw.get("environment") or {}
    counts = [(data.get("n_pairs"), "pairs"), (data.get("n_queries"), "queries")]
    said = listed([f"{number:,} {word}" for number, word in counts if isinstance(number, int)] or ["the data"])
    cpu = environment.get("cpu")
    threads = environment.get("threads")
    where = f" on {cpu}{f', {threads} threads' if threads else ''}" if cpu else ""
    quality = (
        f"Small type under a quality: its 95 % bootstrap interval over {said}. Bold: the best apart from the teacher; where "
        "intervals overlap much, that order is not settled."
    )
    if NO_SHARE.intersection(content.metrics) - LOWER_IS_BETTER:
        quality += " Teacher ρ and τ-b: rank agreement with the teacher’s scores."
    if any(row.get("role") == "control" for row in content.rows):
        quality += " The control is the same student, trained on the labels alone, by the loss that validation prefers."
    if any(row.get("role") == "untrained" for row in content.rows):
        quality += " Untrained: the student before its first step; its speed is the student’s."
    speed = (
        f"Latency and throughput were measured{where}; latency is for one pair at a time unless a batch is named. "
        f"{pairs_measured(content)} {measuring_ended(content)}"
    )
    return "<br>".join(
        escape(text.replace("  ", " ")) for text in (quality, speed.strip(), _runtime_words(content)) if text
    )


def _runtime_words(content: Benchmark) -> str:
    """Say what × teacher is made of, and what OpenVINO computes in."""
    words = []
    if any(row.get("speedup_split") for row in content.rows):
        words.append(
            "× teacher is against the teacher in PyTorch, and the product of two factors: what the smaller model gives, held "
            "against the teacher in the same runtime and precision (where another is named, against that), and what that "
            "runtime gives the teacher too."
        )
    if any(row.get("runtime") == "openvino" for row in content.rows):
        words.append(
            "OpenVINO computes in bf16 by default on CPUs that can; precision is named in each row for that reason."
        )
    return " ".join(words)


def pairs_measured(content: Benchmark) -> str:
    """Say over how many pairs speed was measured: once where all rows have the same, else row by row; "" where it is not known."""
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


def measuring_ended(content: Benchmark) -> str:
    """Say what the small intervals of speed are and why measuring stopped; "" where it is not known."""
    said = content.raw.get("measuring") or {}
    rounds, seconds, limit = (number_at(said, key) for key in ("rounds", "seconds", "interval"))
    if rounds is None:
        return ""
    text = f"Small type under p50 and pairs/s: 95 % intervals over {rounds:.0f} rounds of all rows"
    if seconds is not None:
        text += f" ({three_digits(seconds)} s of measuring)"
    if limit is None:
        return f"{text}."
    width, row = number_at(said, "widest"), said.get("widest_row")
    widest = "" if width is None else f" The widest is {percent(width)} of its value{f' ({row})' if row else ''}."
    if said.get("ended_by") == "interval":
        return f"{text}, which ended with every interval within {percent(limit)} of its value.{widest}"
    return (
        f"{text}, which the limit of time ended before every interval was within {percent(limit)} of its value.{widest}"
    )


def _table_head(columns: Sequence[_Column]) -> str:
    groups = Counter(column.group for column in columns)
    over = "".join(
        f'<th role="columnheader" scope="colgroup" colspan="{count}" class="start">{group}</th>'
        for group, count in groups.items()
    )
    heads = "".join(
        f'<th role="columnheader" scope="col" class="wrap{start}">{escape(column.head)}</th>'
        for column, start in zip(columns, _starts(columns), strict=True)
    )
    return "\n".join(
        [
            '<thead role="rowgroup">',
            f'<tr role="row" class="groups"><td role="cell"></td>{over}</tr>',
            f'<tr role="row"><th role="columnheader" scope="col">Model</th>{heads}</tr>',
            "</thead>",
        ]
    )


def _starts(columns: Sequence[_Column]) -> list[str]:
    """Class of each column: the first of a group stands apart."""
    before = [None, *(column.group for column in columns)]
    return [" start" if column.group != last else "" for column, last in zip(columns, before, strict=False)]


def _table_row(label: str, row: Row, columns: Sequence[_Column], best: Sequence[float | None]) -> str:
    cells = [_cell(row, column, top, start) for column, top, start in zip(columns, best, _starts(columns), strict=True)]
    head = f'<span class="name">{escape(label)}</span> <small>{escape(nature(row))}</small>'
    return f'<tr role="row" class="{role_of(row)}"><th role="rowheader" scope="row">{head}</th>{"".join(cells)}</tr>'


def _cell(row: Row, column: _Column, best: float | None, start: str) -> str:
    value = column.value(row)
    label = f'role="cell" data-label="{escape(column.head)}"'
    if value is None:
        return f'<td {label} class="missing{start}">{_MISSING}</td>'
    text = escape(column.show(value))
    leads = (
        best is not None
        and row.get("role") not in IS_TEACHER
        and column.show(best * column.better) == column.show(value)
    )
    under = "".join(f" <small>{escape(line)}</small>" for line in column.small(row))
    return f'<td {label} class="{start.strip()}">{f"<strong>{text}</strong>" if leads else text}{under}</td>'


def length_table(lines: Sequence[Line]) -> str:
    """Latency of one pair by its tokens."""
    tokens = sorted({point.tokens for line in lines for point in line.points})
    heads = "".join(f'<th scope="col">{count:g}<span class="unit"> tokens</span></th>' for count in tokens)
    body = [f'<tr><th scope="row">{escape(line.label)}</th>{_length_cells(line, tokens)}</tr>' for line in lines]
    caption = "p50 of one pair in milliseconds by its tokens, and p95 in small type."
    return _table_by_model("Latency by length", caption, heads, body)


def _length_cells(line: Line, tokens: Sequence[float]) -> str:
    found = {point.tokens: point for point in line.points}
    cells = []
    for count in tokens:
        point = found.get(count)
        text = _MISSING if point is None else three_digits(point.p50)
        small = f" <small>{three_digits(point.p95)}</small>" if point is not None and point.p95 is not None else ""
        cells.append(f"<td>{text}{small}</td>")
    return "".join(cells)


def load_table(services: Sequence[Service]) -> str:
    """Latencies by the share of a model's capacity that arrives."""
    shares = sorted({load.share for service in services for load in service.loads})
    heads = "".join(f'<th scope="col">{share * 100:.0f}\u00a0%</th>' for share in shares)
    body = [
        f'<tr><th scope="row">{escape(service.label)}{_capacity(service)}</th>{_load_cells(service, shares)}</tr>'
        for service in services
    ]
    caption = "p50 in milliseconds by the share of the capacity that arrives; p95, p99 and the rate in small type."
    return _table_by_model("Latency under load", caption, heads, body)


def _capacity(service: Service) -> str:
    return "" if service.capacity is None else f" <small>at most {three_digits(service.capacity)} pairs/s</small>"


def _load_cells(service: Service, shares: Sequence[float]) -> str:
    found = {load.share: load for load in service.loads}
    cells = []
    for share in shares:
        load = found.get(share)
        if load is None:
            cells.append(f"<td>{_MISSING}</td>")
            continue
        p50, p95, p99 = (three_digits(load.times[name]) for name in PERCENTILES)
        rate = f"{three_digits(load.rate)}/s"
        cells.append(f"<td>{p50} <small>p95 {p95}</small> <small>p99 {p99}</small> <small>{rate}</small></td>")
    return "".join(cells)


def batch_tables(grids: Sequence[Grid]) -> list[str]:
    """Pairs a second by batch and tokens, a table a model; tints are on one scale for all."""
    rates = [cell.per_second for grid in grids for cell in grid.cells]
    return [_batch_table(grid, min(rates), max(rates)) for grid in grids]


def _batch_table(grid: Grid, slowest: float, fastest: float) -> str:
    tokens = sorted({cell.tokens for cell in grid.cells})
    heads = "".join(f'<th scope="col">{count:g}</th>' for count in tokens)
    found = {(cell.batch, cell.tokens): cell for cell in grid.cells}
    best = {count: max(cell.per_second for cell in grid.cells if cell.tokens == count) for count in tokens}
    body = [
        f'<tr><th scope="row">{batch:g}</th>'
        + "".join(_batch_cell(found.get((batch, count)), best[count], slowest, fastest) for count in tokens)
        + "</tr>"
        for batch in sorted({cell.batch for cell in grid.cells})
    ]
    over = f'<tr><td></td><th scope="colgroup" colspan="{len(tokens)}">tokens</th></tr>'
    head = f'<thead>{over}<tr><th scope="col">batch</th>{heads}</tr></thead>'
    caption = f'<caption class="name">{escape(grid.label)}</caption>'
    table = ['<table class="heat">', caption, head, "<tbody>", *body, "</tbody>", "</table>"]
    return _scrolled("scroll", f"{grid.label}, batches by length", table)


def _batch_cell(cell: Cell | None, best: float, slowest: float, fastest: float) -> str:
    if cell is None:
        return f"<td>{_MISSING}</td>"
    share = math.log(cell.per_second / slowest) / math.log(fastest / slowest) if fastest > slowest else 0.0
    text = three_digits(cell.per_second)
    text = f"<strong>{text}</strong>" if cell.per_second == best else text
    return f'<td style="--heat: {share * 100:.0f}%">{text} <small>{three_digits(cell.p50)} ms</small></td>'


def _table_by_model(name: str, caption: str, heads: str, body: Iterable[str]) -> str:
    head = f'<thead><tr><th scope="col">Model</th>{heads}</tr></thead>'
    table = ["<table>", f"<caption>{caption}</caption>", head, "<tbody>", *body, "</tbody>", "</table>"]
    return _scrolled("scroll half", name, table)


def _scrolled(kind: str, name: str, table: Iterable[str]) -> str:
    """Put a table into a region that scrolls by itself, by keyboard too."""
    region = f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(name)}">'
    return "\n".join([region, *table, "</div>"])
