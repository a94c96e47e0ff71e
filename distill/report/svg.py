"""The pictures of the page as SVG: quality against latency, latency by length, and latency under load.

Colours are the page's: a part has the class of what it is, within a group that has the class of its role.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from distill.report.content import IS_TEACHER
from distill.report.layout import Axis, Box, along, linear_axis, log_axis, place, spread, text_width, toward
from distill.report.series import PERCENTILES, Line, Point, Service
from distill.report.words import three_decimals, three_digits

__all__ = ["DESK", "DESK_HALF", "PANEL", "PHONE", "Shape", "panels", "scatter", "traces"]


@dataclass(frozen=True)
class Shape:
    """Size of a picture in pixels; text is drawn at its true size, so a phone has a picture of its own."""

    kind: str
    width: float
    height: float
    text: float = 13


DESK = Shape("desk", 928, 440)
DESK_HALF = Shape("desk", 736, 360)
PHONE = Shape("phone", 344, 340, 12)
PANEL = Shape("panel", 344, 248, 12)  # one of several side by side, of the same size on a phone


class _Curve(NamedTuple):
    """What is drawn as one line: values across and up, from left to right."""

    name: str
    role: str
    points: list[tuple[float, float]]


def scatter(points: Sequence[Point], metric: str, title: str, shape: Shape) -> str:
    """Quality against latency: marks with intervals, labels that keep clear of each other, and the front."""
    size = shape.text
    x = log_axis([point.x for point in points], size * 3.6, shape.width - 4)
    y = linear_axis([v for p in points for v in (p.low, p.y, p.high)], shape.height - size * 3.8, size * 2.2)
    step = y.ticks[1] - y.ticks[0]
    frame = _frame(shape, x, y, ("p50 latency, ms (log scale)", metric), max(0, math.ceil(-math.log10(step) - 1e-9)))
    anchors = [(x.at(point.x), y.at(point.y)) for point in points]
    bars = [Box(x.at(p.x) - 2, y.at(p.high), x.at(p.x) + 2, y.at(p.low)) for p in points]
    front = sorted((x.at(point.x), y.at(point.y)) for point in points if point.front)
    within = Box(x.start, y.end - size * 0.5, x.end, y.start)
    boxes = place(anchors, [point.label for point in points], size, bars + along(front), within)
    marks = [_mark(point, x, y) for point in points]
    labels = [part for at, box, p in zip(anchors, boxes, points, strict=True) for part in _note(at, box, p.label, size)]
    about = "; ".join(f"{p.label}: {three_decimals(p.y)} at {three_digits(p.x)} ms" for p in points)
    joined = f'<path d="{_path(front)}" class="front"/>' if len(front) > 1 else ""
    return _svg(shape, title, about, [*frame, joined, *marks, *labels])


def traces(lines: Sequence[Line], title: str, shape: Shape) -> str:
    """Latency by length, each line named at its end."""
    size = shape.text
    curves = [_Curve(line.label, line.role, [(point.tokens, point.p50) for point in line.points]) for line in lines]
    margin = min(max(text_width(curve.name, size) for curve in curves) + 14, shape.width * 0.45)
    x = _length_axis({tokens for curve in curves for tokens, _ in curve.points}, size * 3.6, shape.width - margin)
    y = log_axis([p50 for curve in curves for _, p50 in curve.points], shape.height - size * 3.8, size * 2.2)
    ends = spread([y.at(curve.points[-1][1]) for curve in curves], size * 1.3, size * 2, y.start)
    parts = _frame(shape, x, y, ("tokens a pair", "p50, ms (log scale)"), None)
    for curve, end in zip(curves, ends, strict=True):
        parts += _trace(curve, x, y, (x.end + 14, end), size)
    return _svg(shape, title, _read_out(curves), parts)


def panels(services: Sequence[Service]) -> list[str]:
    """Each model's percentiles by the rate of arrivals, in a picture of its own, all on one scale."""
    size = PANEL.text
    loads = [load for service in services for load in service.loads]
    times = [load.times[name] for load in loads for name in PERCENTILES]
    x = log_axis([load.rate for load in loads], size * 3.6, PANEL.width - size * 3)
    y = log_axis(times, PANEL.height - size * 3.8, size * 2.2)
    return [_panel(service, x, y) for service in services]


def _panel(service: Service, x: Axis, y: Axis) -> str:
    size = PANEL.text
    curves = [
        _Curve(name, service.role, [(load.rate, load.times[name]) for load in service.loads]) for name in PERCENTILES
    ]
    ends = spread([y.at(curve.points[-1][1]) for curve in curves], size * 1.15, y.end, y.start)
    right = x.at(service.loads[-1].rate) + 10
    parts = _frame(PANEL, x, y, ("pairs/s that arrive (log scale)", "ms (log scale)"), None)
    for curve, end in zip(curves, ends, strict=True):
        parts += _trace(curve, x, y, (right, end), size)
    title = f"{service.label}: latency in milliseconds by pairs a second"
    return _svg(PANEL, title, _read_out(curves), parts)


def _svg(shape: Shape, title: str, about: str, parts: Iterable[str]) -> str:
    head = (
        f'<svg class="{shape.kind}" viewBox="0 0 {shape.width:g} {shape.height:g}" role="img" '
        f'aria-label="{escape(title)}" font-size="{shape.text:g}">'
    )
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<desc>{escape(about)}</desc>", *parts, "</svg>"])


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _path(spots: Iterable[tuple[float, float]]) -> str:
    return "".join(f"{'ML'[i > 0]}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(spots))


def _frame(shape: Shape, x: Axis, y: Axis, names: tuple[str, str], decimals: int | None) -> list[str]:
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


def _length_axis(lengths: Iterable[float], start: float, end: float) -> Axis:
    """Log axis with a tick at each length that was measured."""
    tokens = sorted(lengths)
    high = tokens[-1] if len(tokens) > 1 else tokens[0] * 2
    return Axis(tokens[0], high, start + 6, end, tokens, log=True)


def _mark(point: Point, x: Axis, y: Axis) -> str:
    px, py = x.at(point.x), y.at(point.y)
    bar = _rule(px, y.at(point.low), px, y.at(point.high), "bar")
    square = f'<rect x="{px - 4.5:.1f}" y="{py - 4.5:.1f}" width="9" height="9" class="mark"/>'
    circle = f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4.75" class="mark"/>'
    return f'<g class="{point.role}">{bar}{square if point.role in IS_TEACHER else circle}</g>'


def _note(at: tuple[float, float], box: Box, label: str, size: float) -> list[str]:
    """Draw a label, and a line to its mark where it had to move away."""
    middle = (box.left + box.right) / 2
    anchor, x = (
        ("start", box.left) if at[0] <= box.left else ("end", box.right) if at[0] >= box.right else ("middle", middle)
    )
    near = (min(max(at[0], box.left), box.right), min(max(at[1], box.top), box.bottom))
    far = math.dist(at, near)
    lead = [] if far < 16 else [_rule(*toward(at, near, 7), *toward(near, at, 1), "lead")]
    return [*lead, _text(x, box.bottom - size * 0.33, label, "", anchor)]


def _trace(curve: _Curve, x: Axis, y: Axis, at: tuple[float, float], size: float) -> list[str]:
    """Draw a curve, and its name at a place to the right of its end."""
    spots = [(x.at(across), y.at(up)) for across, up in curve.points]
    dots = "".join(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.25" class="mark"/>' for px, py in spots)
    lead = _rule(spots[-1][0] + 5, spots[-1][1], at[0] - 3, at[1], "lead") if abs(at[1] - spots[-1][1]) > 3 else ""
    body = f'<g class="{curve.role}"><path d="{_path(spots)}" class="trace"/>{dots}</g>'
    return [body, lead, _text(at[0], at[1] + size * 0.35, curve.name)]


def _read_out(curves: Iterable[_Curve]) -> str:
    """Say in words what is drawn, for who does not see it."""
    said = [(name, [f"{three_digits(p50)} ms at {across:g}" for across, p50 in points]) for name, _, points in curves]
    return "; ".join(f"{name}: {', '.join(points)}" for name, points in said)
