"""The pictures of a report as PNG files, drawn by matplotlib and laid out as on the page."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.report.canvas import ACCENT, INK, SOFT, in_points, new_canvas, plain_ticks, save_canvas
from distill.report.content import IS_TEACHER, Benchmark, latency_of, throughput_of
from distill.report.layout import Box, along, log_axis, place, spread
from distill.report.series import Line, Point, lines_of, points_of
from distill.report.words import metric_name

__all__ = ["PICTURES", "write_pictures"]

PICTURES = ("quality_latency.png", "quality_throughput.png", "latency_by_length.png")


def write_pictures(content: Benchmark, folder: Path) -> list[str]:
    """Draw those of `PICTURES` that there is data for; names of the files."""
    name = metric_name(content.primary or "")
    drawn = []
    latency, throughput = points_of(content, latency_of), points_of(content, throughput_of, less=False)
    lines = lines_of(content)
    quality_latency, quality_throughput, latency_by_length = (folder / file for file in PICTURES)
    with warnings.catch_warnings():
        # A letter that the font lacks, or a first run that builds the font cache, is no reason to lose a report.
        warnings.simplefilter("ignore")
        if latency:
            drawn.append(_draw_points(latency, name, "p50 latency, ms (log scale)", quality_latency))
        if throughput:
            drawn.append(_draw_points(throughput, name, "pairs per second (log scale)", quality_throughput))
        if lines:
            drawn.append(_draw_lines(lines, latency_by_length))
    return drawn


def _draw_points(points: Sequence[Point], metric: str, across: str, path: Path) -> str:
    figure, (axes,) = new_canvas()
    axis = log_axis([point.x for point in points], 0, 800)
    axes.set(xscale="log", xlim=(axis.low, axis.high), xlabel=across, ylabel=_drawable(metric, "quality"))
    plain_ticks(axes.xaxis, axis.ticks)
    front = sorted((point.x, point.y) for point in points if point.front)
    axes.plot(*zip(*front, strict=True), "--", color=ACCENT, alpha=0.4)
    for point in points:
        style = _style(point.role)
        axes.plot([point.x] * 2, [point.low, point.high], color=style["color"], alpha=0.5, linewidth=1.25)
        axes.plot(point.x, point.y, **style)
    _name_points(figure, axes, points)
    return save_canvas(figure, path)


def _name_points(figure: Any, axes: Any, points: Sequence[Point]) -> None:
    """Place labels as in the SVG; matplotlib's pixels go upwards, so y is turned over."""
    figure.canvas.draw()
    frame = axes.get_window_extent()
    texts = [_drawable(point.label, f"model {number}") for number, point in enumerate(points, 1)]
    pixels = axes.transData.transform([(p.x, y) for p in points for y in (p.y, p.low, p.high)]).reshape(-1, 3, 2)
    bars = [Box(x - 2, -high, x + 2, -low) for (x, _), (_, low), (_, high) in pixels]
    bars += along(sorted((x, -y) for ((x, y), _, _), point in zip(pixels, points, strict=True) if point.front))
    within = Box(frame.x0, -frame.y1, frame.x1, -frame.y0)
    boxes = place([(x, -y) for (x, y), _, _ in pixels], texts, 12.5, bars, within)
    for box, text in zip(boxes, texts, strict=True):
        at = axes.transData.inverted().transform((box.left, -(box.top + box.bottom) / 2))
        axes.text(*at, text, fontsize=9, va="center", color=INK).set_in_layout(False)


def _draw_lines(lines: Sequence[Line], path: Path) -> str:
    figure, (axes,) = new_canvas()
    for line in lines:
        style = _style(line.role)
        tokens, medians = [point.tokens for point in line.points], [point.p50 for point in line.points]
        axes.plot(tokens, medians, linestyle="--" if style["color"] == SOFT else "-", **style)
    axes.set(xscale="log", yscale="log", xlabel="tokens a pair", ylabel="p50 latency, ms (log scale)")
    plain_ticks(axes.xaxis, sorted({point.tokens for line in lines for point in line.points}))
    axis = log_axis([point.p50 for line in lines for point in line.points], 0, 400)
    axes.set_ylim(axis.low, axis.high)
    plain_ticks(axes.yaxis, axis.ticks)
    figure.canvas.draw()
    _name_lines(axes, lines)
    return save_canvas(figure, path)


def _name_lines(axes: Any, lines: Sequence[Line]) -> None:
    """Name each line at its right end, moved apart where ends are close."""
    ends = [(line.points[-1].tokens, line.points[-1].p50) for line in lines]
    heights = [axes.transData.transform(end)[1] for end in ends]
    moved = spread(heights, 16, 0, 1e9)
    for number, (line, end, own, to) in enumerate(zip(lines, ends, heights, moved, strict=True), 1):
        beside = (9, in_points(to - own))
        text = _drawable(line.label, f"model {number}")
        axes.annotate(text, end, beside, textcoords="offset points", fontsize=9, va="center", color=INK)


def _style(role: str) -> dict[str, Any]:
    color = INK if role in IS_TEACHER else ACCENT if role in ("student", "export") else SOFT
    return {"color": color, "marker": "s" if role in IS_TEACHER else "o", "mfc": "white" if color == SOFT else color}


def _drawable(text: str, instead: str) -> str:
    """Leave out letters that matplotlib's own font lacks, as in a Korean name, and add something to tell it by."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans")).get_charmap()
    plain = text.replace("$", r"\$")  # or it starts a formula
    if all(ord(letter) in known for letter in plain):
        return plain
    kept = "".join(letter for letter in plain if ord(letter) in known).strip(" ()")
    return f"{instead}: {kept}" if any(letter.isalpha() for letter in kept) else instead
