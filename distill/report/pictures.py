"""The pictures of a report: quality against latency and throughput, latency by length and under load, and reliability.

Each picture is one figure. The page contains it as SVG, some in a second size for phones, because text is not scaled.
The PNG files show the same figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.report.calibrated import STAGES, Curve, curve_of
from distill.report.content import IS_TEACHER, BenchmarkResults, latency_of, throughput_of
from distill.report.figures import (
    ACCENT,
    INK,
    PAPER,
    SOFT,
    drawing,
    log_axis,
    name_ends,
    name_points,
    new_figure,
    save_png,
    set_ticks,
    to_svg,
    wrapped,
)
from distill.report.series import PERCENTILES, Line, Point, Service, lines_of, points_of, services_of
from distill.report.words import metric_name, three_decimals, three_digits

__all__ = ["PNG_FILES", "Picture", "Pictures", "draw"]

PNG_FILES = ("quality_latency.png", "quality_throughput.png", "latency_by_length.png", "reliability.png")
_LATENCY, _THROUGHPUT = "p50 latency, ms (log scale)", "pairs per second (log scale)"


@dataclass(frozen=True)
class _Shape:
    """Size of a picture and of its text in pixels, and the maximum number of letters in a line of a name."""

    kind: str
    width: float
    height: float
    text: float = 13
    letters: int = 60


_DESK = _Shape("desk", 928, 440)
_DESK_HALF = _Shape("desk", 736, 360)
_PHONE = _Shape("phone", 344, 340, 12, 22)
_SQUARE = _Shape("desk", 480, 480)
_PANEL = _Shape("panel", 344, 248, 12)  # one of several side by side; it has the same size on a phone


@dataclass(frozen=True)
class Picture:
    """A figure with a title and a description in words."""

    figure: Any
    kind: str
    title: str
    about: str

    @cached_property
    def svg(self) -> str:
        """The figure as an SVG element of the page."""
        return to_svg(self.figure, kind=self.kind, title=self.title, about=self.about)


@dataclass(frozen=True)
class Pictures:
    """The pictures for which there is data. If a picture has several sizes, the first is the largest."""

    quality_latency: Sequence[Picture] = ()
    quality_throughput: Sequence[Picture] = ()
    latency_by_length: Sequence[Picture] = ()
    under_load: Sequence[Picture] = ()  # one per model
    reliability: Sequence[Picture] = ()

    def write(self, folder: Path) -> list[str]:
        """Write the files of `PNG_FILES` for which there is data, and return their names."""
        of_files = (self.quality_latency, self.quality_throughput, self.latency_by_length, self.reliability)
        return [
            save_png(sizes[0].figure, folder / name) for name, sizes in zip(PNG_FILES, of_files, strict=True) if sizes
        ]


def draw(content: BenchmarkResults) -> Pictures:
    """Draw all pictures for which a benchmark has data."""
    latency, throughput = points_of(content, latency_of), points_of(content, throughput_of, less=False)
    lines, services, name = lines_of(content), services_of(content), metric_name(content.primary or "")
    curve = curve_of(content)
    return Pictures(
        [_scatter(latency, name, _LATENCY, shape) for shape in (_DESK, _PHONE)] if latency else [],
        [_scatter(throughput, name, _THROUGHPUT, _DESK)] if throughput else [],
        [_by_length(lines, shape) for shape in (_DESK_HALF, _PHONE)] if lines else [],
        _panels(services),
        [_reliability(curve, shape) for shape in (_SQUARE, _PHONE)] if curve is not None else [],
    )


def _scatter(points: Sequence[Point], metric: str, across: str, shape: _Shape) -> Picture:
    """Draw quality against time, with names at the points, or with numbers and a key if there is no room for names."""
    names = [wrapped(point.label, shape.letters) for point in points]
    figure = _scattered(points, metric, across, shape, names)
    if figure is None:
        figure = _scattered(
            points, metric, across, shape, [str(number) for number in range(1, len(points) + 1)], key=True
        )
    what, unit = ("latency", "ms") if across == _LATENCY else ("throughput", "pairs/s")
    title = f"{metric} against {what}"
    about = "; ".join(f"{p.label}: {three_decimals(p.y)} at {three_digits(p.x)} {unit}" for p in points)
    return Picture(figure, shape.kind, title, about)


@drawing()
def _scattered(
    points: Sequence[Point], metric: str, across: str, shape: _Shape, names: Sequence[str], *, key: bool = False
) -> Any:
    """Draw points with their names; return None if there is no room for the names.

    :param key: names are numbers, which are placed in any case, and a key below explains them
    """
    columns, letters = (1, 38) if shape.width < 500 else (2, 50)
    numbered = zip(names, points, strict=True)
    key_entries = [wrapped(f"{number}  {point.label}", letters) for number, point in numbered] if key else []
    height = shape.height + 1.7 * shape.text * _lines_of_key(key_entries, columns)
    figure, (axes,) = new_figure(shape.width, height, text=shape.text)
    _name_axes(figure, axes, across, metric)
    log_axis(axes, "x", [point.x for point in points], room=int(shape.width / 52))
    axes.margins(y=0, tight=False)
    front = sorted((point.x, point.y) for point in points if point.front)
    axes.plot(
        *zip(*front, strict=True), color=ACCENT, alpha=0.4, linestyle=(0, (4, 3)), linewidth=1.5, gid="front", zorder=1
    )
    bars, marks = [], []
    for point in points:
        style = _style(point.role)
        bar = {"color": style["color"], "alpha": 0.55, "linewidth": 1.25, "gid": f"bar {point.role}"}
        bars += axes.plot([point.x] * 2, [point.low, point.high], **bar)
        marks += axes.plot(point.x, point.y, gid=f"mark {point.role}", linestyle="", clip_on=False, **style)
    if key:
        figure.legend(marks, key_entries, loc="outside lower left", ncols=columns, handletextpad=0.2, borderpad=0)
    placed = name_points(axes, [(point.x, point.y) for point in points], names, bars, must=key)
    return figure if placed else None


def _lines_of_key(key_entries: Sequence[str], columns: int) -> int:
    """Return the number of lines in the key's longest column."""
    lines, per_column = [text.count("\n") + 1 for text in key_entries], -(-len(key_entries) // columns)
    return max((sum(lines[start : start + per_column]) for start in range(0, len(lines), per_column or 1)), default=0)


@drawing()
def _by_length(lines: Sequence[Line], shape: _Shape) -> Picture:
    """Draw the latency of each model by length, named at the line's end."""
    names = [wrapped(line.label, shape.letters) for line in lines]
    rows = sum(name.count("\n") + 1 for name in names)
    figure, (axes,) = new_figure(shape.width, max(shape.height, shape.text * (1.4 * rows + 5)), text=shape.text)
    _name_axes(figure, axes, "tokens a pair", "p50, ms (log scale)")
    tokens = sorted({point.tokens for line in lines for point in line.points})
    axes.set(xscale="log", xlim=(tokens[0] / 1.05, tokens[-1] * 1.02 if len(tokens) > 1 else tokens[0] * 2))
    set_ticks(axes, "x", tokens)
    log_axis(axes, "y", [point.p50 for line in lines for point in line.points], room=int(shape.height / 36))
    for line in lines:
        _trace(axes, line.role, [(point.tokens, point.p50) for point in line.points])
    name_ends(axes, [(line.points[-1].tokens, line.points[-1].p50) for line in lines], names)
    curves = [(line.label, [(point.tokens, point.p50) for point in line.points]) for line in lines]
    return Picture(figure, shape.kind, "Latency by length: p50 in milliseconds by tokens", _read_out(curves))


@drawing()
def _panels(services: Sequence[Service]) -> list[Picture]:
    """Draw one picture per model: its latency percentiles by the rate of arrivals. All pictures have the same scale."""
    rates = [load.rate for service in services for load in service.loads]
    times = [load.times[name] for service in services for load in service.loads for name in PERCENTILES]
    pictures = []
    for service in services:
        figure, (axes,) = new_figure(_PANEL.width, _PANEL.height, text=_PANEL.text)
        _name_axes(figure, axes, "pairs/s that arrive (log scale)", "ms (log scale)")
        log_axis(axes, "x", rates, room=6)
        log_axis(axes, "y", times, room=6)
        curves = [(name, [(load.rate, load.times[name]) for load in service.loads]) for name in PERCENTILES]
        for _, points in curves:
            _trace(axes, service.role, points)
        name_ends(axes, [points[-1] for _, points in curves], PERCENTILES, away=10)
        title = f"{service.label}: latency in milliseconds by pairs a second"
        pictures.append(Picture(figure, _PANEL.kind, title, _read_out(curves)))
    return pictures


@drawing()
def _reliability(curve: Curve, shape: _Shape) -> Picture:
    """Draw the share of matches by probability, before and after calibration, with the diagonal for comparison."""
    figure, (axes,) = new_figure(shape.width, shape.height, text=shape.text, grid="both")
    _name_axes(figure, axes, "probability", "share of matches")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color=SOFT, linestyle=(0, (4, 3)), linewidth=1.25, gid="front", zorder=1)
    names, marks = ("unit score", f"calibrated ({curve.kind})"), []
    for stage, color, face in zip(STAGES, (SOFT, ACCENT), (PAPER, ACCENT), strict=True):
        bins = curve.bins[stage]
        for entry in bins:
            bar = {"color": color, "alpha": 0.55, "linewidth": 1.25, "gid": f"bar {stage}", "clip_on": False}
            axes.plot([entry.probability] * 2, [entry.low, entry.high], **bar)
        points = [(entry.probability, entry.share) for entry in bins]
        style = {"color": color, "marker": "o", "mfc": face, "mew": 1.75, "markersize": 6.5, "clip_on": False}
        marks += axes.plot(*zip(*points, strict=True), gid=f"trace {stage}", **style)
    figure.legend(marks, names, loc="outside lower left", ncols=2, borderpad=0)
    descriptions = [
        f"{name}: {', '.join(f'{three_decimals(entry.share)} at {three_decimals(entry.probability)}' for entry in curve.bins[stage])}"
        for name, stage in zip(names, STAGES, strict=True)
    ]
    title = f"{curve.label}: share of matches by probability, before and after calibration"
    return Picture(figure, shape.kind, title, "; ".join(descriptions))


def _name_axes(figure: Any, axes: Any, across: str, up: str) -> None:
    """Name both axes with horizontal text: the vertical axis above the figure, the horizontal axis at its right end."""
    figure.suptitle(wrapped(up, 40), x=0, ha="left", color=SOFT)
    axes.set_xlabel(across, loc="right")


def _trace(axes: Any, role: str, points: Sequence[tuple[float, float]]) -> None:
    style = _style(role)
    dashes = (0, (4, 3)) if style["color"] == SOFT else "-"
    axes.plot(
        *zip(*points, strict=True), linestyle=dashes, gid=f"trace {role}", clip_on=False, **style | {"markersize": 6.5}
    )


def _style(role: str) -> dict[str, Any]:
    color = INK if role in IS_TEACHER else ACCENT if role in ("student", "export") else SOFT
    filled = role in ("teacher", "student", "export")
    face = color if filled else PAPER
    return {"color": color, "marker": "s" if role in IS_TEACHER else "o", "mfc": face, "mew": 1.75, "markersize": 9}


def _read_out(curves: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """Return the curves in words, for readers who cannot see the picture."""
    readings = [(name, [f"{three_digits(p50)} ms at {across:g}" for across, p50 in points]) for name, points in curves]
    return "; ".join(f"{name}: {', '.join(points)}" for name, points in readings)
