"""The report of a benchmark: JSON, CSV, pictures and one HTML page that needs nothing else.

`write_report` takes what `benchmark.json` holds:

    title           str
    primary_metric  str, optional: the metric of the headline and the picture; else the first there is of ndcg_at_10,
                    roc_auc and spearman
    recipe          mapping, shown as YAML
    data            mapping, such as n_pairs, n_queries, source
    environment     mapping, such as cpu, threads, versions (a mapping), platform, date
    rows            list of models, see below
    comparisons     list of {name: "a − b", metric, value, low, high, n}
    notes           list of str

and a row:

    name, role (teacher, student, control, export, baseline), kind, runtime, precision
    parameters, size_mb, peak_memory_mb
    metrics         {key: {value, low, high, n}}
    retention       {key: share of the teacher's value}
    latency_ms      {batch, p50, p95, p99}
    throughput_pairs_per_s, speedup (× the teacher's throughput)
    latency_by_length  [{tokens, p50, p95}]
    under_load      {batches: [{tokens, batch, p50}], capacity_pairs_per_s, open_loop: [{load, rate, p50, p95, p99}]}:
                    milliseconds of a whole batch; then latencies of pairs that arrive at `rate` a second, which is
                    `load` of the capacity
    per_run         raw samples: kept in the JSON, not shown

Only `rows` and each row's `name` must be there. What is missing or not finite is left out, never guessed; a share or a
speed-up that is missing is worked out where the teacher's row has what it takes.
"""

import csv
import html
import io
import json
import math
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from distill.errors import BadInput

__all__ = ["write_report"]

Row = Mapping[str, Any]
FloatArray = npt.NDArray[np.float64]

METRIC_NAMES = {
    "spearman": "Spearman",
    "roc_auc": "ROC-AUC",
    "average_precision": "Average precision",
    "ndcg_at_10": "NDCG@10",
    "ablation_mse": "Ablation MSE",
    "teacher_spearman": "Teacher ρ",
    "teacher_kendall": "Teacher τ-b",
}
LOWER_IS_BETTER = {"ablation_mse"}
NO_SHARE = {"ablation_mse", "teacher_spearman", "teacher_kendall"}
PRIMARY = ("ndcg_at_10", "roc_auc", "spearman")
ROLES = ("teacher", "student", "control", "export", "baseline")
KINDS = {
    "cross_encoder": "cross-encoder", "bi_encoder": "bi-encoder",
    "query_encoder": "query side of a bi-encoder", "document_encoder": "document side of a bi-encoder",
}  # fmt: skip
RUNTIMES = {"torch": "PyTorch", "openvino": "OpenVINO", "onnx": "ONNX Runtime"}
PERCENTILES = ("p50", "p95", "p99")
GOOD_SHARE = 0.95  # the headline names the fastest model that keeps this much
JSON_NAME, CSV_NAME, HTML_NAME = "benchmark.json", "benchmark.csv", "index.html"
QUALITY_LATENCY, QUALITY_THROUGHPUT = "quality_latency.png", "quality_throughput.png"
LATENCY_BY_LENGTH = "latency_by_length.png"


def write_report(benchmark: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the report of a benchmark into a folder, which is made if need be, and give the files written.

    These are benchmark.json, benchmark.csv, index.html and, where there is something to draw, quality_latency.png,
    quality_throughput.png and latency_by_length.png. All are finished in a temporary folder before the first is put in
    place, so a failure leaves an earlier report as it was; a picture of an earlier report that this one has no data for
    is removed. `BadInput` is raised where there are no rows, a row has no name, or no row has the primary metric.
    """
    content = _Benchmark.of(benchmark)
    folder.mkdir(parents=True, exist_ok=True)
    # Inside the folder, for the folder may be a mount of its own and a rename cannot leave one.
    with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as scratch:
        names = _write_all(content, Path(scratch))
        for name in names:
            os.replace(Path(scratch) / name, folder / name)
    for name in {QUALITY_LATENCY, QUALITY_THROUGHPUT, LATENCY_BY_LENGTH} - set(names):
        (folder / name).unlink(missing_ok=True)
    return [folder / name for name in names]


def _write_all(content: "_Benchmark", folder: Path) -> list[str]:
    text = json.dumps(content.raw, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    (folder / JSON_NAME).write_text(text, encoding="utf-8")
    (folder / CSV_NAME).write_text(_csv(content), encoding="utf-8", newline="")
    (folder / HTML_NAME).write_text(_page(content), encoding="utf-8")
    return [JSON_NAME, CSV_NAME, HTML_NAME, *_write_pictures(content, folder)]


# --- Input ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Benchmark:
    """A checked benchmark, its rows in the order of their roles."""

    raw: dict[str, Any]
    rows: list[Row]
    labels: list[str]  # one a row, no two alike unless the rows are
    metrics: list[str]  # those that any row has
    primary: str | None
    teacher: Row | None

    @classmethod
    def of(cls, benchmark: Mapping[str, Any]) -> "_Benchmark":
        raw = _plain(benchmark)
        rows = _checked_rows(raw.get("rows"))
        teacher = next((row for row in rows if row.get("role") == "teacher"), None)
        rows = [_completed(row, teacher) for row in rows]
        metrics = _metrics_of(rows)
        return cls(raw, rows, _labels(rows), metrics, _primary(raw.get("primary_metric"), metrics), teacher)

    def labelled(self) -> list[tuple[str, Row]]:
        return list(zip(self.labels, self.rows, strict=True))


def _plain(value: Any) -> Any:
    """Turn arrays, dataclasses and paths into what JSON knows, and numbers that are not finite into None."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _checked_rows(rows: Any) -> list[Row]:
    if not isinstance(rows, list) or not rows:
        raise BadInput("rows: a benchmark without models has nothing to report; give one row a model")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping) or not row.get("name"):
            raise BadInput(f"rows: row {number} has no name; give each model one")
    return sorted(rows, key=lambda row: ROLES.index(row["role"]) if row.get("role") in ROLES else len(ROLES))


def _metrics_of(rows: Sequence[Row]) -> list[str]:
    there = {key for row in rows for key in row.get("metrics") or {} if _metric(row, key) is not None}
    return [key for key in METRIC_NAMES if key in there] + sorted(there - set(METRIC_NAMES))


def _primary(asked: str | None, metrics: list[str]) -> str | None:
    if asked and asked not in metrics:
        raise BadInput(f"primary_metric: no row has {asked!r}; there are {', '.join(metrics) or 'none'}")
    return asked or next((key for key in (*PRIMARY, *metrics) if key in metrics), None)


def _completed(row: Row, teacher: Row | None) -> Row:
    """Add shares of the teacher and the speed-up where they are missing and can be worked out."""
    if teacher is None:
        return row
    keys = [key for key in row.get("metrics") or {} if key not in NO_SHARE]
    shares = {key: _ratio(_metric(row, key), _metric(teacher, key)) for key in keys}
    speedup = _ratio(_number(row, "throughput_pairs_per_s"), _number(teacher, "throughput_pairs_per_s"))
    given = {key: value for key, value in (row.get("retention") or {}).items() if value is not None}
    own = _number(row, "speedup")
    return {**row, "retention": {**shares, **given}, "speedup": speedup if own is None else own}


def _labels(rows: Sequence[Row]) -> list[str]:
    """Name and precision, and the runtime where two rows would still be alike."""
    short = [_label(row, "precision") for row in rows]
    alike = {label for label, count in Counter(short).items() if count > 1}
    return [
        _label(row, "runtime", "precision") if name in alike else name for name, row in zip(short, rows, strict=True)
    ]


def _label(row: Row, *keys: str) -> str:
    name = str(row["name"])
    shown = [RUNTIMES.get(str(row[key]), str(row[key])) for key in keys if row.get(key)]
    more = [text for text in shown if text.lower() not in name.lower()]
    return f"{name} ({' '.join(more)})" if more else name


def _number(values: Mapping[str, Any] | None, *path: str) -> float | None:
    """Give the number at a path of keys, or None where there is none."""
    found: Any = values
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _metric(row: Row, key: str, part: str = "value") -> float | None:
    return _number(row, "metrics", key, part)


def _latency(row: Row) -> float | None:
    return _number(row, "latency_ms", "p50")


def _throughput(row: Row) -> float | None:
    return _number(row, "throughput_pairs_per_s")


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below is not None and below > 0 else None


# --- CSV -----------------------------------------------------------------------------------------------------------


def _csv(content: _Benchmark) -> str:
    """One flat line a row; what a row lacks is empty."""
    flat = [_flat(row, content.metrics) for row in content.rows]
    columns = list(dict.fromkeys(column for row in flat for column in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Row, metrics: Iterable[str]) -> dict[str, Any]:
    texts = ("name", "role", "kind", "runtime", "precision")
    sizes = ("parameters", "size_mb", "peak_memory_mb", "throughput_pairs_per_s", "speedup")
    flat = {key: row.get(key) for key in (*texts, *sizes)}
    for part in ("batch", "p50", "p95", "p99"):
        flat["latency_batch" if part == "batch" else f"latency_{part}_ms"] = (row.get("latency_ms") or {}).get(part)
    for key in metrics:
        flat |= {key: _metric(row, key)} | {f"{key}_{part}": _metric(row, key, part) for part in ("low", "high", "n")}
        flat |= {f"{key}_retention": _number(row, "retention", key)}
    for point in row.get("latency_by_length") or []:
        flat |= {f"latency_{point.get('tokens')}_tokens_{part}_ms": point.get(part) for part in ("p50", "p95")}
    return flat


# --- Numbers and words ---------------------------------------------------------------------------------------------


def _three(value: float) -> str:
    """Three significant digits, at most two decimals, thousands apart.

    >>> [_three(value) for value in (0.1234, 1.234, 12.34, 123.4, 12345.6)]
    ['0.12', '1.23', '12.3', '123', '12,346']
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _quality(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _short(value: float) -> str:
    """Write a bound of an interval in little room.

    >>> _short(0.8123), _short(-0.05), _short(1.0)
    ('.812', '−.050', '1.000')
    """
    return _quality(value).replace("0.", ".", 1) if abs(value) < 0.9995 else _quality(value)


def _percent(share: float) -> str:
    return f"{share * 100:.1f}\u00a0%"


def _times(factor: float) -> str:
    """Write a factor as it is read: 41×, 1.8×, 0.62×."""
    return f"{factor:,.0f}×" if factor >= 10 else f"{factor:.1f}×" if factor >= 1 else f"{factor:.2g}×"


def _part(share: float) -> str:
    """Put a share of a size in words.

    >>> _part(0.0512), _part(1.3)
    ('1/20', '1.3×')
    """
    if share >= 1:
        return _times(share)
    return f"1/{1 / share:.0f}" if share < 0.4 else f"{share * 100:.0f}\u00a0%"


def _size(megabytes: float) -> str:
    return f"{megabytes / 1000:.2f} GB" if megabytes >= 1000 else f"{_three(megabytes)} MB"


def _count(number: float) -> str:
    """Write a number of parameters: 22.7 M, 1.24 G."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{_three(number / scale)} {unit}"
    return f"{number:.0f}"


def _metric_name(key: str) -> str:
    return METRIC_NAMES.get(key, key)


def _spoken(key: str) -> str:
    """Name a metric inside a sentence."""
    return "average precision" if key == "average_precision" else _metric_name(key)


def _listed(parts: Sequence[str]) -> str:
    """Join phrases as a sentence does.

    >>> _listed(["a", "b", "c"]), _listed(["a"])
    ('a, b and c', 'a')
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _nature(row: Row) -> str:
    """Role, kind, runtime and precision in one line; a precision that is not known is said to be so."""
    kind, runtime = str(row.get("kind") or ""), str(row.get("runtime") or "")
    precision = row.get("precision") or "precision not recorded"
    parts = (row.get("role"), KINDS.get(kind, kind), RUNTIMES.get(runtime, runtime), precision)
    return "\u00a0· ".join(str(part) for part in parts if part)


def _headline(content: _Benchmark) -> str:
    """Name the fastest student that keeps 95 % of the teacher, or else the one that keeps most, in one sentence."""
    ours = [pair for pair in content.labelled() if pair[1].get("role") in ("student", "export")]
    if not ours or content.primary is None:
        return "One model measured" if len(content.rows) == 1 else f"{len(content.rows)} models compared"
    key = content.primary
    good = [pair for pair in ours if (_number(pair[1], "retention", key) or 0) >= GOOD_SHARE]
    label, row = max(good, key=lambda pair: _number(pair[1], "speedup") or 0) if good else _keeps_most(ours, key)
    share = _number(row, "retention", key)
    if share is None:
        value = _metric(row, key)
        return f"{label}: {_metric_name(key)} {_quality(value)}" if value is not None else f"{label}: not measured"
    cost = " and ".join(_costs(row, content.teacher))
    return f"{label}: {_percent(share)} of the teacher’s {_spoken(key)}{f' at {cost}' if cost else ''}"


def _keeps_most(ours: Sequence[tuple[str, Row]], key: str) -> tuple[str, Row]:
    def kept(pair: tuple[str, Row]) -> tuple[float, float]:
        value = _metric(pair[1], key)
        signed = -math.inf if value is None else -value if key in LOWER_IS_BETTER else value
        return _number(pair[1], "retention", key) or 0, signed

    return max(ours, key=kept)


def _costs(row: Row, teacher: Row | None) -> list[str]:
    speedup = _number(row, "speedup")
    size = _ratio(_number(row, "size_mb"), _number(teacher, "size_mb"))
    said = [] if speedup is None else [f"{_times(speedup)} its speed"]
    return said + ([] if not size or size < 0 else [f"{_part(size)} {'of ' if size < 1 else ''}its size"])


def _kept(label: str, row: Row, content: _Benchmark) -> str | None:
    """Say what a model keeps of its teacher, or nothing where no share is known."""
    shares = [(key, _number(row, "retention", key)) for key in content.metrics]
    known = [f"{_percent(share)} of its {_spoken(key)}" for key, share in shares if share is not None]
    if not known:
        return None
    said = _listed(known).replace("of its", "of the teacher’s", 1)
    verb = "keeps" if row.get("role") in ("student", "export") else "reaches"
    costs = _costs(row, content.teacher)
    return f"{_strong(label)} {verb} {_prose(said)}{f', at {_listed(costs)}' if costs else ''}."


def _verdict(comparison: Mapping[str, Any]) -> str:
    """Say in plain words what an interval of a difference shows."""
    low, high = _number(comparison, "low"), _number(comparison, "high")
    if low is None or high is None:
        return "no interval was computed, so nothing is shown"
    if low <= 0 <= high:
        return "the interval includes 0: no difference shown"
    first, _, second = str(comparison.get("name", "")).replace(" - ", " − ").partition(" − ")
    wins = (low > 0) != (comparison.get("metric") in LOWER_IS_BETTER)
    if "control" in second:
        return f"the interval excludes 0: the teacher {'helped' if wins else 'did harm'}"
    return f"the interval excludes 0: {(first if wins else second) or 'one of them'} is better"


# --- HTML ----------------------------------------------------------------------------------------------------------


def _escape(text: Any) -> str:
    return html.escape(str(text), quote=True)


def _prose(text: str) -> str:
    """Escape a sentence and keep the parts of a hyphened metric on one line."""
    return _escape(text).replace("ROC-AUC", '<span class="whole">ROC-AUC</span>')


def _strong(text: str) -> str:
    return f'<strong class="name">{_escape(text)}</strong>'


def _page(content: _Benchmark) -> str:
    template = Template(resources.files("distill").joinpath("report.html").read_text(encoding="utf-8"))
    when = (content.raw.get("environment") or {}).get("date")
    sections = (
        _main_table(content),
        _quality_section(content),
        _kept_section(content),
        _comparison_section(content),
        _length_section(content),
        _batch_section(content),
        _load_section(content),
        _facts_section(content),
        _notes_section(content),
        _recipe_section(content),
    )
    return template.substitute(
        title=_escape(content.raw.get("title") or "Benchmark"),
        when=f'<p class="when">Measured {_escape(when)}</p>' if when else "",
        headline=_prose(_headline(content)),
        body="\n".join(section for section in sections if section),
    )


def _section(heading: str, *parts: str) -> str:
    return "\n".join(["<section>", f"<h2>{_escape(heading)}</h2>", *parts, "</section>"])


@dataclass(frozen=True)
class _Column:
    """A column of the main table: a number that is compared and, in small type, what goes with it."""

    group: str
    head: str
    value: Callable[[Row], float | None]
    show: Callable[[float], str]
    small: Callable[[Row], list[str]]  # lines
    better: int = 0  # 1: higher, -1: lower, 0: not compared


def _columns(content: _Benchmark) -> list[_Column]:
    """Columns that any row has a number for."""
    quality = [_metric_column(key) for key in content.metrics]
    columns = [*quality, *_share_columns(content.primary), *_speed_columns(), *_size_columns()]
    return [column for column in columns if any(column.value(row) is not None for row in content.rows)]


def _metric_column(key: str) -> _Column:
    def interval(row: Row) -> list[str]:
        low, high = _metric(row, key, "low"), _metric(row, key, "high")
        return [] if low is None or high is None else [f"{_short(low)}–{_short(high)}"]

    better = -1 if key in LOWER_IS_BETTER else 1
    return _Column("Quality", _metric_name(key), lambda row: _metric(row, key), _quality, interval, better)


def _share_columns(primary: str | None) -> list[_Column]:
    def share(row: Row) -> float | None:
        return None if primary is None or row.get("role") == "teacher" else _number(row, "retention", primary)

    return [_Column("Quality", f"Share of {_metric_name(primary or '')}", share, _percent, lambda row: [])]


def _speed_columns() -> list[_Column]:
    def tail(row: Row) -> list[str]:
        parts = [(name, _number(row, "latency_ms", name)) for name in ("p95", "p99")]
        said = [f"{name} {_three(value)}" for name, value in parts if value is not None]
        batch = _number(row, "latency_ms", "batch")
        return [f"batch {batch:.0f}", *said] if batch and batch != 1 else said

    def speedup(row: Row) -> list[str]:
        factor = _number(row, "speedup")
        return [] if factor is None or row.get("role") == "teacher" else [f"{_times(factor)} teacher"]

    return [
        _Column("Speed", "p50, ms", _latency, _three, tail, -1),
        _Column("Speed", "Pairs/s", _throughput, _three, speedup, 1),
    ]


def _size_columns() -> list[_Column]:
    def parameters(row: Row) -> list[str]:
        count = _number(row, "parameters")
        return [] if count is None else [f"{_count(count)} params"]

    return [
        _Column("Size", "On disk", lambda row: _number(row, "size_mb"), _size, parameters, -1),
        _Column("Size", "Peak memory", lambda row: _number(row, "peak_memory_mb"), _size, lambda row: [], -1),
    ]


def _main_table(content: _Benchmark) -> str:
    columns = _columns(content)
    best = [_best(column, content.rows) for column in columns]
    body = [_table_row(label, row, columns, best) for label, row in content.labelled()]
    return "\n".join(
        [
            '<div class="scroll cards first" tabindex="0" role="region" aria-label="Results">',
            '<table role="table">',
            f"<caption>{_caption(content)}</caption>",
            _table_head(columns),
            '<tbody role="rowgroup">',
            *body,
            "</tbody>",
            "</table>",
            "</div>",
        ]
    )


def _caption(content: _Benchmark) -> str:
    data, environment = content.raw.get("data") or {}, content.raw.get("environment") or {}
    counts = [(data.get("n_pairs"), "pairs"), (data.get("n_queries"), "queries")]
    said = _listed([f"{number:,} {word}" for number, word in counts if isinstance(number, int)] or ["the data"])
    cpu = environment.get("cpu")
    threads = environment.get("threads")
    where = f" on {cpu}{f', {threads} threads' if threads else ''}" if cpu else ""
    text = (
        f"Small type under a quality: its 95 % bootstrap interval over {said}. Latency and throughput were measured"
        f"{where}; latency is for one pair at a time unless a batch is named. Bold: the best apart from the "
        "teacher; where intervals overlap much, that order is not settled."
    )
    if NO_SHARE.intersection(content.metrics) - LOWER_IS_BETTER:
        text += " Teacher ρ and τ-b: rank agreement with the teacher’s scores."
    if any(row.get("role") == "control" for row in content.rows):
        text += " The control is the same student, trained without the teacher."
    if any(row.get("runtime") == "openvino" for row in content.rows):
        text += (
            " OpenVINO computes in bf16 by default on CPUs that can; precision is named in each row for that reason."
        )
    return _escape(text)


def _table_head(columns: Sequence[_Column]) -> str:
    groups = Counter(column.group for column in columns)
    over = "".join(
        f'<th role="columnheader" scope="colgroup" colspan="{count}" class="start">{group}</th>'
        for group, count in groups.items()
    )
    heads = "".join(
        f'<th role="columnheader" scope="col" class="wrap{start}">{_escape(column.head)}</th>'
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


def _best(column: _Column, rows: Sequence[Row]) -> float | None:
    """Best shown value beside the teacher, or None where there are not two to choose from."""
    values = [column.value(row) for row in rows if row.get("role") != "teacher"]
    known = [value * column.better for value in values if value is not None]
    return max(known) if column.better and len(known) > 1 else None


def _table_row(label: str, row: Row, columns: Sequence[_Column], best: Sequence[float | None]) -> str:
    cells = [_cell(row, column, top, start) for column, top, start in zip(columns, best, _starts(columns), strict=True)]
    role = row.get("role") if row.get("role") in ROLES else "baseline"
    head = f'<span class="name">{_escape(label)}</span> <small>{_escape(_nature(row))}</small>'
    return f'<tr role="row" class="{role}"><th role="rowheader" scope="row">{head}</th>{"".join(cells)}</tr>'


def _cell(row: Row, column: _Column, best: float | None, start: str) -> str:
    value = column.value(row)
    label = f'role="cell" data-label="{_escape(column.head)}"'
    if value is None:
        return f'<td {label} class="missing{start}"><span class="none" title="not measured">–</span></td>'
    text = _escape(column.show(value))
    leads = (
        best is not None and row.get("role") != "teacher" and column.show(best * column.better) == column.show(value)
    )
    under = "".join(f" <small>{_escape(line)}</small>" for line in column.small(row))
    return f'<td {label} class="{start.strip()}">{f"<strong>{text}</strong>" if leads else text}{under}</td>'


def _quality_section(content: _Benchmark) -> str:
    points = _points(content, _latency)
    if not points or content.primary is None:
        return ""
    name = _metric_name(content.primary)
    title = f"{name} against latency"
    svgs = [_scatter(points, name, title, shape) for shape in (DESK, PHONE)]
    more = (
        "Up and to the left is better. Vertical lines are 95 % intervals; the dashed line joins the models that no "
        "other beats in both. Squares: teacher. Filled circles: students and their exports. Open circles: the rest."
    )
    lower = content.primary in LOWER_IS_BETTER
    if lower:
        more = more.replace("Up and to the left", "Down and to the left")
    return _section(title, "<figure>", *svgs, f"<figcaption>{_escape(more)}</figcaption>", "</figure>")


def _kept_section(content: _Benchmark) -> str:
    others = [(label, row) for label, row in content.labelled() if row.get("role") != "teacher"]
    said = [text for label, row in others if (text := _kept(label, row, content)) is not None]
    if content.teacher is None or not said:
        return ""
    return _section("What each keeps", "<ul>", *(f"<li>{text}</li>" for text in said), "</ul>")


def _comparison_section(content: _Benchmark) -> str:
    comparisons = [one for one in content.raw.get("comparisons") or [] if _number(one, "value") is not None]
    if not comparisons:
        return ""
    about = (
        "Differences on the same pairs, with the 95 % interval of the difference over resampled data. They do not "
        "cover what another training run of the same recipe would give."
    )
    items = [f"<li>{_comparison(one)}</li>" for one in comparisons]
    return _section("Comparisons", f'<p class="soft">{about}</p>', "<ul>", *items, "</ul>")


def _comparison(one: Mapping[str, Any]) -> str:
    value, low, high = (_number(one, part) for part in ("value", "low", "high"))
    interval = "" if low is None or high is None else f" ({_signed(low)} to {_signed(high)})"
    number = "" if value is None else f"{_signed(value)}{interval}"
    name, metric = _strong(str(one.get("name", ""))), _escape(_metric_name(str(one.get("metric", ""))))
    return f"{name}, {metric}: {number} – {_escape(_verdict(one))}."


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _length_section(content: _Benchmark) -> str:
    lines = _lines(content)
    if not lines:
        return ""
    title = "Latency by length"
    svgs = [_traces(lines, f"{title}: p50 in milliseconds by tokens", shape) for shape in (DESK_HALF, PHONE)]
    return _section(title, '<figure class="half">', *svgs, "</figure>", _length_table(lines))


def _length_table(lines: Sequence["_Line"]) -> str:
    tokens = sorted({point.tokens for line in lines for point in line.points})
    heads = "".join(f'<th scope="col">{count:g}<span class="unit"> tokens</span></th>' for count in tokens)
    body = [f'<tr><th scope="row">{_escape(line.label)}</th>{_length_cells(line, tokens)}</tr>' for line in lines]
    caption = "<caption>p50 of one pair in milliseconds by its tokens, and p95 in small type.</caption>"
    head = f'<thead><tr><th scope="col">Model</th>{heads}</tr></thead>'
    region = '<div class="scroll half" tabindex="0" role="region" aria-label="Latency by length">'
    return "\n".join([region, "<table>", caption, head, "<tbody>", *body, "</tbody>", "</table>", "</div>"])


def _length_cells(line: "_Line", tokens: Sequence[float]) -> str:
    found = {point.tokens: point for point in line.points}
    cells = []
    for count in tokens:
        point = found.get(count)
        text = '<span class="none" title="not measured">–</span>' if point is None else _three(point.p50)
        small = f" <small>{_three(point.p95)}</small>" if point is not None and point.p95 is not None else ""
        cells.append(f"<td>{text}{small}</td>")
    return "".join(cells)


def _batch_section(content: _Benchmark) -> str:
    grids = _grids(content)
    if not grids:
        return ""
    rates = [cell.per_second for grid in grids for cell in grid.cells]
    about = (
        "Pairs a second by the size of the batch and the tokens of a pair, and in small type the p50 of the whole batch "
        "in milliseconds. The stronger the tint, the faster, on one scale for all models. Bold: the batch that gives "
        "most at a length."
    )
    tables = [_batch_table(grid, min(rates), max(rates)) for grid in grids]
    return _section("Batches", f'<p class="soft">{about}</p>', '<div class="panels">', *tables, "</div>")


def _batch_table(grid: "_Grid", slowest: float, fastest: float) -> str:
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
    name = _escape(grid.label)
    region = f'<div class="scroll" tabindex="0" role="region" aria-label="{name}, batches by length">'
    caption = f'<caption class="name">{name}</caption>'
    return "\n".join(
        [region, '<table class="heat">', caption, head, "<tbody>", *body, "</tbody>", "</table>", "</div>"]
    )


def _batch_cell(cell: "_Cell | None", best: float, slowest: float, fastest: float) -> str:
    if cell is None:
        return '<td><span class="none" title="not measured">–</span></td>'
    share = math.log(cell.per_second / slowest) / math.log(fastest / slowest) if fastest > slowest else 0.0
    text = _three(cell.per_second)
    text = f"<strong>{text}</strong>" if cell.per_second == best else text
    return f'<td style="--heat: {share * 100:.0f}%">{text} <small>{_three(cell.p50)} ms</small></td>'


def _load_section(content: _Benchmark) -> str:
    services = _services(content)
    if not services:
        return ""
    about = (
        "Pairs arrive at random, so many a second, and wait in line: latency is what a user sees, waiting included. Each "
        "model was given shares of its own capacity; look for your rate on the scale below, which is the same for all."
    )
    loads = [load for service in services for load in service.loads]
    x = _log_axis([load.rate for load in loads], PANEL.text * 3.6, PANEL.width - PANEL.text * 3)
    times = [load.times[name] for load in loads for name in PERCENTILES]
    y = _log_axis(times, PANEL.height - PANEL.text * 3.8, PANEL.text * 2.2)
    panels = [_load_panel(service, x, y) for service in services]
    return _section(
        "Latency under load", f'<p class="soft">{about}</p>', '<div class="panels">', *panels, "</div>",
        _load_table(services),
    )  # fmt: skip


def _load_panel(service: "_Service", x: "_Axis", y: "_Axis") -> str:
    lines = [
        _Line(name, service.role, [_Measured(load.rate, load.times[name], None) for load in service.loads])
        for name in PERCENTILES
    ]
    title = f"{service.label}: latency in milliseconds by pairs a second"
    svg = _svg(PANEL, title, "; ".join(_trace_about(line) for line in lines), _load_parts(lines, x, y))
    return f'<figure><figcaption class="name">{_escape(service.label)}</figcaption>\n{svg}\n</figure>'


def _load_table(services: Sequence["_Service"]) -> str:
    shares = sorted({load.share for service in services for load in service.loads})
    heads = "".join(f'<th scope="col">{share * 100:.0f}\u00a0%</th>' for share in shares)
    body = [
        f'<tr><th scope="row">{_escape(service.label)}{_capacity(service)}</th>{_load_cells(service, shares)}</tr>'
        for service in services
    ]
    caption = "<caption>p50 in milliseconds by the share of the capacity that arrives; p95, p99 and the rate in small type.</caption>"
    head = f'<thead><tr><th scope="col">Model</th>{heads}</tr></thead>'
    region = '<div class="scroll half" tabindex="0" role="region" aria-label="Latency under load">'
    return "\n".join([region, "<table>", caption, head, "<tbody>", *body, "</tbody>", "</table>", "</div>"])


def _capacity(service: "_Service") -> str:
    return "" if service.capacity is None else f" <small>at most {_three(service.capacity)} pairs/s</small>"


def _load_cells(service: "_Service", shares: Sequence[float]) -> str:
    found = {load.share: load for load in service.loads}
    cells = []
    for share in shares:
        load = found.get(share)
        if load is None:
            cells.append('<td><span class="none" title="not measured">–</span></td>')
            continue
        p50, p95, p99 = (_three(load.times[name]) for name in PERCENTILES)
        cells.append(
            f"<td>{p50} <small>p95 {p95}</small> <small>p99 {p99}</small> <small>{_three(load.rate)}/s</small></td>"
        )
    return "".join(cells)


def _facts_section(content: _Benchmark) -> str:
    lists = [("Data", content.raw.get("data")), ("Environment", content.raw.get("environment"))]
    parts = [f"<div><h2>{heading}</h2>{_facts(facts)}</div>" for heading, facts in lists if facts]
    return "\n".join(['<section class="pair">', *parts, "</section>"]) if parts else ""


def _facts(facts: Mapping[str, Any]) -> str:
    items = [(_fact_name(key), _fact(value)) for key, value in facts.items() if value is not None]
    return "<dl>" + "".join(f"<dt>{_escape(key)}</dt><dd>{_escape(value)}</dd>" for key, value in items) + "</dl>"


def _fact_name(key: str) -> str:
    """Write a key as a word: n_pairs is pairs."""
    return {"cpu": "CPU"}.get(key, key.removeprefix("n_").replace("_", " "))


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return " · ".join(f"{key} {_fact(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list):
        return ", ".join(_fact(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _notes_section(content: _Benchmark) -> str:
    notes = [f"<li>{_escape(note)}</li>" for note in content.raw.get("notes") or []]
    return _section("Notes", "<ul>", *notes, "</ul>") if notes else ""


def _recipe_section(content: _Benchmark) -> str:
    recipe = content.raw.get("recipe")
    if not recipe:
        return ""
    text = yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False, width=100)
    return _section("Recipe", f'<pre tabindex="0">{_escape(text)}</pre>')


# --- Pictures: what is drawn ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Point:
    """A model in a picture of quality against time."""

    label: str
    role: str
    x: float
    y: float
    low: float
    high: float
    front: bool = False


@dataclass(frozen=True)
class _Measured:
    """Latency at a length, in milliseconds."""

    tokens: float
    p50: float
    p95: float | None


@dataclass(frozen=True)
class _Line:
    """Latency of a model by length."""

    label: str
    role: str
    points: list[_Measured]


def _points(content: _Benchmark, x: Callable[[Row], float | None], less: bool = True) -> list[_Point]:
    """Models that have the primary metric and a time; those that no other beats in both are the front."""
    found = [
        point for label, row in content.labelled() if (point := _point(label, row, content.primary, x)) is not None
    ]
    sign = -1 if content.primary in LOWER_IS_BETTER else 1
    keys = [(point.x if less else -point.x, -sign * point.y) for point in found]
    front = [not any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in keys) for own in keys]
    return [_Point(**{**asdict(point), "front": leads}) for point, leads in zip(found, front, strict=True)]


def _point(label: str, row: Row, primary: str | None, x: Callable[[Row], float | None]) -> _Point | None:
    across, up = x(row), _metric(row, primary or "")
    if across is None or across <= 0 or up is None:
        return None
    low, high = _metric(row, primary or "", "low"), _metric(row, primary or "", "high")
    return _Point(label, str(row.get("role")), across, up, up if low is None else low, up if high is None else high)


def _lines(content: _Benchmark) -> list[_Line]:
    lines = []
    for label, row in content.labelled():
        given = [(_number(one, "tokens"), _number(one, "p50"), one) for one in row.get("latency_by_length") or []]
        points = [
            _Measured(tokens, p50, _number(one, "p95"))
            for tokens, p50, one in given
            if tokens and p50 and min(tokens, p50) > 0
        ]
        if points:
            lines.append(_Line(label, str(row.get("role")), sorted(points, key=lambda point: point.tokens)))
    return lines


@dataclass(frozen=True)
class _Cell:
    """A batch size at a length: milliseconds of a batch, and pairs a second."""

    batch: float
    tokens: float
    p50: float

    @property
    def per_second(self) -> float:
        return 1000 * self.batch / self.p50


@dataclass(frozen=True)
class _Grid:
    """A model in batches of each size at each length."""

    label: str
    cells: list[_Cell]


@dataclass(frozen=True)
class _Load:
    """Latencies in milliseconds, by the name of the percentile, where `rate` pairs a second arrive."""

    share: float  # of the capacity
    rate: float
    times: dict[str, float]


@dataclass(frozen=True)
class _Service:
    """A model under each load, the least first."""

    label: str
    role: str
    capacity: float | None  # pairs a second
    loads: list[_Load]


def _grids(content: _Benchmark) -> list[_Grid]:
    grids = []
    for label, row in content.labelled():
        given = [_positive(one, ("batch", "tokens", "p50")) for one in _under_load(row, "batches")]
        cells = [_Cell(**one) for one in given if one is not None]
        if cells:
            grids.append(_Grid(label, cells))
    return grids


def _services(content: _Benchmark) -> list[_Service]:
    services = []
    for label, row in content.labelled():
        given = [_positive(one, ("load", "rate", *PERCENTILES)) for one in _under_load(row, "open_loop")]
        loads = [
            _Load(one["load"], one["rate"], {name: one[name] for name in PERCENTILES})
            for one in given
            if one is not None
        ]
        if loads:
            capacity = _number(row, "under_load", "capacity_pairs_per_s")
            loads.sort(key=lambda load: load.rate)
            services.append(_Service(label, str(row.get("role")), capacity, loads))
    return services


def _under_load(row: Row, what: str) -> list[Any]:
    found = (row.get("under_load") or {}).get(what)
    return found if isinstance(found, list) else []


def _positive(values: Any, keys: Sequence[str]) -> dict[str, float] | None:
    """Give these numbers, or None where one of them is missing or has no logarithm."""
    known = {key: number for key in keys if (number := _number(values, key)) is not None and number > 0}
    return known if len(known) == len(keys) else None


# --- Pictures: layout ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shape:
    """Size of a picture in pixels; text is drawn at its true size, so a phone has a picture of its own."""

    kind: str
    width: float
    height: float
    text: float = 13


DESK = _Shape("desk", 928, 440)
DESK_HALF = _Shape("desk", 736, 360)
PHONE = _Shape("phone", 344, 340, 12)
PANEL = _Shape("panel", 344, 248, 12)  # one of several side by side, of the same size on a phone


@dataclass(frozen=True)
class _Axis:
    """Values from `low` to `high` on pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[float]
    log: bool = False

    def at(self, value: float) -> float:
        low, high, own = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (own - low) / (high - low) * (self.end - self.start)


def _log_axis(values: Sequence[float], start: float, end: float) -> _Axis:
    """Axis around the values with ticks at 1, 2, 5, 10 and so on: two at least, and no more than there is room for."""
    steps = [mantissa * 10.0**power for power in range(-15, 18) for mantissa in (1, 2, 5)]
    low, high = min(values) / 1.3, max(values) * 1.3
    if sum(low <= step <= high for step in steps) < 2:
        low, high = max(step for step in steps if step <= low), min(step for step in steps if step >= high)
    ticks = [step for step in steps if low <= step <= high]
    room = (end - start) / 48 if end > start else (start - end) / 28  # numbers are wider than high
    if len(ticks) > room:
        ticks = [tick for tick in ticks if f"{tick:e}".startswith("1")]
    return _Axis(low, high, start, end, ticks, log=True)


def _linear_axis(values: Sequence[float], start: float, end: float) -> _Axis:
    """Axis with four to eight round ticks around the values."""
    span = max(max(values) - min(values), 0.01)
    raw = span / 5
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(m * scale for m in (1, 2, 5, 10) if m * scale >= raw)
    low, high = math.floor(min(values) / step) * step, math.ceil(max(values) / step) * step
    high = high if high > low else low + step
    ticks = [low + i * step for i in range(round((high - low) / step) + 1)]
    return _Axis(low, high, start, end, ticks)


class _Box(NamedTuple):
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float


def _text_width(text: str, size: float) -> float:
    """Width in pixels of a text, guessed with room to spare: Hangul, Kana and Han letters are square."""
    return sum(1.0 if ord(letter) >= 0x1100 else 0.57 for letter in text) * size


def _place(
    anchors: Sequence[tuple[float, float]], texts: Sequence[str], size: float, taken: Sequence[_Box], within: _Box
) -> list[_Box]:
    """Find a place for each label near its anchor, clear of other labels, marks and bars as far as there is room.

    Greedy: each label takes the place that costs least, in pixels covered and steps away. What comes first has the
    choice, so several orders are tried and the one that costs least in all is kept. Deterministic.
    """
    known = [*taken, *(_Box(x - 7, y - 7, x + 7, y + 7) for x, y in anchors)]
    tries = [_around(x, y, _text_width(text, size), size * 1.25) for (x, y), text in zip(anchors, texts, strict=True)]
    alone = [_alone(places, known, within) for places in tries]
    rng = np.random.default_rng(0)
    orders = [list(range(len(texts))), *(rng.permutation(len(texts)).tolist() for _ in range(31))]
    _, best = min(_placed(tries, alone, order) for order in orders)
    return [places[chosen] for places, chosen in zip(tries, best, strict=True)]


def _alone(places: Sequence[_Box], known: Sequence[_Box], within: _Box) -> FloatArray:
    """Cost of each place before other labels come in: what lies outside weighs most, then what is covered."""
    area = (places[0].right - places[0].left) * (places[0].bottom - places[0].top)
    outside = area - _overlaps(places, [within])[:, 0]
    cost: FloatArray = 10 * outside + _overlaps(places, known).sum(axis=1) + 1.5 * np.arange(len(places))
    return cost


def _placed(
    tries: Sequence[Sequence[_Box]], alone: Sequence[FloatArray], order: Sequence[int]
) -> tuple[float, list[int]]:
    """Total cost of one greedy order, and the number of the place that each label takes."""
    total, chosen, placed = 0.0, [0] * len(order), list[_Box]()
    for i in order:
        costs = alone[i] + (3 * _overlaps(tries[i], placed).sum(axis=1) if placed else 0)
        chosen[i] = int(np.argmin(costs))
        total += float(costs[chosen[i]])
        placed.append(tries[i][chosen[i]])
    return total, chosen


def _overlaps(some: Sequence[_Box], others: Sequence[_Box]) -> FloatArray:
    """Area that each two boxes share: (some, others)."""
    one, two = np.asarray(some, dtype=float)[:, None], np.asarray(others, dtype=float)
    sides = np.minimum(one[..., 2:], two[..., 2:]) - np.maximum(one[..., :2], two[..., :2])
    area: FloatArray = np.maximum(sides, 0).prod(axis=-1)
    return area


def _around(x: float, y: float, width: float, height: float) -> list[_Box]:
    """Places beside, above and below a mark, then the same farther off."""
    places = []
    for gap in (10.0, 16.0, 24.0, 34.0, 46.0, 62.0):
        for down in (0.0, -1.0, 1.0):
            top = y - height / 2 + down * gap
            places += [(x + gap, top), (x - gap - width, top)]
        places += [(x - width / 2, y - gap - height), (x - width / 2, y + gap)]
    return [_Box(left, top, left + width, top + height) for left, top in places]


def _spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move heights apart to at least `gap`, keeping their order, within bounds as far as there is room."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed: list[float] = []
    for i in order:
        placed.append(max(heights[i], placed[-1] + gap if placed else low))
    limit = high
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - gap
    return [placed[order.index(i)] for i in range(len(heights))]


# --- Pictures: SVG -------------------------------------------------------------------------------------------------


def _svg(shape: _Shape, title: str, about: str, parts: Iterable[str]) -> str:
    head = (
        f'<svg class="{shape.kind}" viewBox="0 0 {shape.width:g} {shape.height:g}" role="img" '
        f'aria-label="{_escape(title)}" font-size="{shape.text:g}">'
    )
    return "\n".join([head, f"<title>{_escape(title)}</title>", f"<desc>{_escape(about)}</desc>", *parts, "</svg>"])


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{_escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _frame(shape: _Shape, x: _Axis, y: _Axis, names: tuple[str, str], decimals: int | None) -> list[str]:
    """Hairlines, ticks and the names of both axes."""
    parts = [_text(0, shape.text, names[1], "axis")]
    for tick in y.ticks:
        parts.append(_rule(x.start, y.at(tick), x.end, y.at(tick), "grid"))
        label = f"{tick:g}" if decimals is None else f"{tick:.{decimals}f}"
        parts.append(_text(x.start - 8, y.at(tick) + shape.text * 0.35, label, "tick", "end"))
    for tick in x.ticks:
        parts.append(_rule(x.at(tick), y.start, x.at(tick), y.start + 4, "grid"))
        parts.append(_text(x.at(tick), y.start + shape.text + 8, f"{tick:,g}", "tick", "middle"))
    return [*parts, _text(x.end, shape.height - 4, names[0], "axis", "end")]


def _scatter(points: Sequence[_Point], metric: str, title: str, shape: _Shape) -> str:
    """Quality against latency: marks with intervals, labels that keep clear of each other, and the front."""
    size = shape.text
    x = _log_axis([point.x for point in points], size * 3.6, shape.width - 4)
    y = _linear_axis([v for p in points for v in (p.low, p.high)], shape.height - size * 3.8, size * 2.2)
    step = y.ticks[1] - y.ticks[0]
    frame = _frame(shape, x, y, ("p50 latency, ms (log scale)", metric), max(0, math.ceil(-math.log10(step) - 1e-9)))
    anchors = [(x.at(point.x), y.at(point.y)) for point in points]
    bars = [_Box(x.at(p.x) - 2, y.at(p.high), x.at(p.x) + 2, y.at(p.low)) for p in points]
    front = sorted((x.at(point.x), y.at(point.y)) for point in points if point.front)
    within = _Box(x.start, y.end - size * 0.5, x.end, y.start)
    boxes = _place(anchors, [point.label for point in points], size, bars + _along(front), within)
    marks = [_mark(point, x, y) for point in points]
    labels = [part for at, box, p in zip(anchors, boxes, points, strict=True) for part in _note(at, box, p.label, size)]
    about = "; ".join(f"{p.label}: {_quality(p.y)} at {_three(p.x)} ms" for p in points)
    return _svg(shape, title, about, [*frame, _front(front), *marks, *labels])


def _front(front: Sequence[tuple[float, float]]) -> str:
    path = "".join(f"{'ML'[i > 0]}{px:.1f} {py:.1f}" for i, (px, py) in enumerate(front))
    return f'<path d="{path}" class="front"/>' if len(front) > 1 else ""


def _along(path: Sequence[tuple[float, float]]) -> list[_Box]:
    """Small boxes along a line, so that a label keeps off it where it can."""
    spots = []
    for start, end in pairwise(path):
        length = math.dist(start, end)
        spots += [_toward(start, end, pixels) for pixels in range(0, int(length), 8)]
    return [_Box(x - 3, y - 3, x + 3, y + 3) for x, y in spots]


def _mark(point: _Point, x: _Axis, y: _Axis) -> str:
    px, py = x.at(point.x), y.at(point.y)
    bar = _rule(px, y.at(point.low), px, y.at(point.high), "bar")
    square = f'<rect x="{px - 4.5:.1f}" y="{py - 4.5:.1f}" width="9" height="9" class="mark"/>'
    circle = f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4.75" class="mark"/>'
    role = point.role if point.role in ROLES else "baseline"
    return f'<g class="{role}">{bar}{square if role == "teacher" else circle}</g>'


def _note(at: tuple[float, float], box: _Box, label: str, size: float) -> list[str]:
    """Draw a label, and a line to its mark where it had to move away."""
    middle = (box.left + box.right) / 2
    anchor, x = (
        ("start", box.left) if at[0] <= box.left else ("end", box.right) if at[0] >= box.right else ("middle", middle)
    )
    near = (min(max(at[0], box.left), box.right), min(max(at[1], box.top), box.bottom))
    far = math.dist(at, near)
    lead = [] if far < 16 else [_rule(*_toward(at, near, 7), *_toward(near, at, 1), "lead")]
    return [*lead, _text(x, box.bottom - size * 0.33, label, "", anchor)]


def _toward(start: tuple[float, float], end: tuple[float, float], pixels: float) -> tuple[float, float]:
    share = pixels / max(math.dist(start, end), 1e-9)
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _traces(lines: Sequence[_Line], title: str, shape: _Shape) -> str:
    """Latency by length, each line named at its end."""
    size = shape.text
    margin = min(max(_text_width(line.label, size) for line in lines) + 14, shape.width * 0.45)
    x = _length_axis(lines, size * 3.6, shape.width - margin)
    y = _log_axis([point.p50 for line in lines for point in line.points], shape.height - size * 3.8, size * 2.2)
    ends = _spread([y.at(line.points[-1].p50) for line in lines], size * 1.3, size * 2, y.start)
    parts = _frame(shape, x, y, ("tokens a pair", "p50, ms (log scale)"), None)
    for line, end in zip(lines, ends, strict=True):
        parts += _trace(line, x, y, (x.end + 14, end), size)
    return _svg(shape, title, "; ".join(_trace_about(line) for line in lines), parts)


def _length_axis(lines: Sequence[_Line], start: float, end: float) -> _Axis:
    """Log axis with a tick at each length that was measured."""
    tokens = sorted({point.tokens for line in lines for point in line.points})
    high = tokens[-1] if len(tokens) > 1 else tokens[0] * 2
    return _Axis(tokens[0], high, start + 6, end, tokens, log=True)


def _trace(line: _Line, x: _Axis, y: _Axis, at: tuple[float, float], size: float) -> list[str]:
    spots = [(x.at(point.tokens), y.at(point.p50)) for point in line.points]
    path = "".join(f"{'ML'[i > 0]}{px:.1f} {py:.1f}" for i, (px, py) in enumerate(spots))
    dots = "".join(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.25" class="mark"/>' for px, py in spots)
    role = line.role if line.role in ROLES else "baseline"
    lead = _rule(spots[-1][0] + 5, spots[-1][1], at[0] - 3, at[1], "lead") if abs(at[1] - spots[-1][1]) > 3 else ""
    body = f'<g class="{role}"><path d="{path}" class="trace"/>{dots}</g>'
    return [body, lead, _text(at[0], at[1] + size * 0.35, line.label)]


def _load_parts(lines: Sequence[_Line], x: _Axis, y: _Axis) -> list[str]:
    """Draw a model's percentiles by the rate of arrivals, each named at its end."""
    size = PANEL.text
    parts = _frame(PANEL, x, y, ("pairs/s that arrive (log scale)", "ms (log scale)"), None)
    ends = _spread([y.at(line.points[-1].p50) for line in lines], size * 1.15, y.end, y.start)
    right = x.at(lines[0].points[-1].tokens) + 10
    for line, end in zip(lines, ends, strict=True):
        parts += _trace(line, x, y, (right, end), size)
    return parts


def _trace_about(line: _Line) -> str:
    return f"{line.label}: " + ", ".join(f"{_three(p.p50)} ms at {p.tokens:g}" for p in line.points)


# --- Pictures: PNG -------------------------------------------------------------------------------------------------


def _write_pictures(content: _Benchmark, folder: Path) -> list[str]:
    """Draw what there is data for; names of the files."""
    name = _metric_name(content.primary or "")
    drawn = []
    latency, throughput, lines = _points(content, _latency), _points(content, _throughput, less=False), _lines(content)
    with warnings.catch_warnings():
        # A letter that the font lacks, or a first run that builds the font cache, is no reason to lose a report.
        warnings.simplefilter("ignore")
        if latency:
            drawn.append(_png_scatter(latency, name, "p50 latency, ms (log scale)", folder / QUALITY_LATENCY))
        if throughput:
            drawn.append(_png_scatter(throughput, name, "pairs per second (log scale)", folder / QUALITY_THROUGHPUT))
        if lines:
            drawn.append(_png_traces(lines, folder / LATENCY_BY_LENGTH))
    return drawn


INK, ACCENT, SOFT = "#1c2024", "#0a6b66", "#5d656d"


def _style(role: str) -> dict[str, Any]:
    color = INK if role == "teacher" else ACCENT if role in ("student", "export") else SOFT
    return {"color": color, "marker": "s" if role == "teacher" else "o", "mfc": "white" if color == SOFT else color}


def _canvas() -> tuple[Any, Any]:
    """Figure and axes without a global state or a display; 100 dpi while laying out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e2e2dc")
    axes.set_axisbelow(True)
    return figure, axes


def _plain_ticks(axis: Any, ticks: Sequence[float]) -> None:
    """Label the given places of a log axis with plain numbers, and no others."""
    axis.set_ticks(ticks, [f"{tick:,g}" for tick in ticks])
    axis.set_ticks([], minor=True)


def _save(figure: Any, path: Path) -> str:
    figure.savefig(path, dpi=200, format="png")
    return path.name


def _png_scatter(points: Sequence[_Point], metric: str, across: str, path: Path) -> str:
    figure, axes = _canvas()
    axis = _log_axis([point.x for point in points], 0, 800)
    axes.set(xscale="log", xlim=(axis.low, axis.high), xlabel=across, ylabel=_drawable(metric, "quality"))
    _plain_ticks(axes.xaxis, axis.ticks)
    front = sorted((point.x, point.y) for point in points if point.front)
    axes.plot(*zip(*front, strict=True), "--", color=ACCENT, alpha=0.4)
    for point in points:
        style = _style(point.role)
        axes.plot([point.x] * 2, [point.low, point.high], color=style["color"], alpha=0.5, linewidth=1.25)
        axes.plot(point.x, point.y, **style)
    _png_labels(figure, axes, points)
    return _save(figure, path)


def _png_labels(figure: Any, axes: Any, points: Sequence[_Point]) -> None:
    """Place labels as in the SVG; matplotlib's pixels go upwards, so y is turned over."""
    figure.canvas.draw()
    frame = axes.get_window_extent()
    texts = [_drawable(point.label, f"model {number}") for number, point in enumerate(points, 1)]
    pixels = axes.transData.transform([(p.x, y) for p in points for y in (p.y, p.low, p.high)]).reshape(-1, 3, 2)
    bars = [_Box(x - 2, -high, x + 2, -low) for (x, _), (_, low), (_, high) in pixels]
    bars += _along(sorted((x, -y) for ((x, y), _, _), point in zip(pixels, points, strict=True) if point.front))
    within = _Box(frame.x0, -frame.y1, frame.x1, -frame.y0)
    boxes = _place([(x, -y) for (x, y), _, _ in pixels], texts, 12.5, bars, within)
    for box, text in zip(boxes, texts, strict=True):
        at = axes.transData.inverted().transform((box.left, -(box.top + box.bottom) / 2))
        axes.text(*at, text, fontsize=9, va="center", color=INK).set_in_layout(False)


def _png_traces(lines: Sequence[_Line], path: Path) -> str:
    figure, axes = _canvas()
    for number, line in enumerate(lines, 1):
        style = _style(line.role) | {"linestyle": "--" if _style(line.role)["color"] == SOFT else "-"}
        tokens, medians = [point.tokens for point in line.points], [point.p50 for point in line.points]
        axes.plot(tokens, medians, label=_drawable(line.label, f"model {number}"), **style)
    axes.set(xscale="log", yscale="log", xlabel="tokens a pair", ylabel="p50 latency, ms (log scale)")
    _plain_ticks(axes.xaxis, sorted({point.tokens for line in lines for point in line.points}))
    axis = _log_axis([point.p50 for line in lines for point in line.points], 0, 400)
    axes.set_ylim(axis.low, axis.high)
    _plain_ticks(axes.yaxis, axis.ticks)
    figure.canvas.draw()
    _png_line_names(axes, lines)
    return _save(figure, path)


def _png_line_names(axes: Any, lines: Sequence[_Line]) -> None:
    """Name each line at its right end, moved apart where ends are close."""
    ends = [axes.transData.transform((line.points[-1].tokens, line.points[-1].p50)) for line in lines]
    heights = _spread([y for _, y in ends], 16, 0, 1e9)
    for number, ((_, y), to, line) in enumerate(zip(ends, heights, lines, strict=True), 1):
        end = (line.points[-1].tokens, line.points[-1].p50)
        beside = (9, (to - y) * 72 / 100)  # points; the layout is at 100 dpi
        text = _drawable(line.label, f"model {number}")
        axes.annotate(text, end, beside, textcoords="offset points", fontsize=9, va="center", color=INK)


def _drawable(text: str, instead: str) -> str:
    """Leave out letters that matplotlib's own font lacks, as in a Korean name, and add something to tell it by."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans")).get_charmap()
    plain = text.replace("$", r"\$")  # or it starts a formula
    if all(ord(letter) in known for letter in plain):
        return plain
    kept = "".join(letter for letter in plain if ord(letter) in known).strip(" ()")
    return f"{instead}: {kept}" if any(letter.isalpha() for letter in kept) else instead
