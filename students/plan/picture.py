"""A plan as a picture: predicted costs against measured ones, and the largest student for each latency.

Both are in the plan's precision; a dotted line shows the other precision.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.report.figures import ACCENT, INK, SHADE, SOFT, drawing, name_points, new_figure, save_png, set_ticks

__all__ = ["draw_plan", "frontier"]


@drawing()
def draw_plan(result: Mapping[str, Any], path: Path) -> None:
    """Draw a plan's result into a PNG."""
    figure, (left, right) = new_figure(1080, 450, n_axes=2, text=12, grid="both")
    _draw_errors(left, result)
    _draw_frontier(right, result)
    save_png(figure, path)


def _draw_errors(axes: Any, result: Mapping[str, Any]) -> None:
    rows = result["measured"]
    ends = [min(row["p95_ms"] for row in rows) / 1.3, max(row["p95_ms"] for row in rows) * 1.3]
    axes.fill_between(
        ends, [0.9 * end for end in ends], [1.1 * end for end in ends], color=ACCENT, alpha=0.12, linewidth=0
    )
    axes.plot(ends, ends, color=SOFT, linewidth=1)
    for fitted, color, label in ((True, SOFT, "fitted to"), (False, ACCENT, "predicted, then measured")):
        chosen = [row for row in rows if row["fitted"] is fitted]
        axes.plot(
            [row["p95_ms"] for row in chosen],
            [row["predicted"]["p95_ms"] for row in chosen],
            "o",
            color=color,
            label=label,
        )
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="measured p95, ms", ylabel="predicted p95, ms")
    axes.set_title(f"prediction and measurement in {result['precision']}, band ±10 %", color=INK)
    _plain(axes, "x", ends)
    _plain(axes, "y", ends)
    axes.legend(frameon=False, loc="lower right")


def _draw_frontier(axes: Any, result: Mapping[str, Any]) -> None:
    grid, limit = result["grid"], result["budget"]["size_mb"]
    fits = [limit is None or row["size_mb"] <= limit for row in grid]
    for wanted, color, label in ((True, SOFT, "shapes"), (False, SHADE, f"over {limit} MB")):
        chosen = [row for row, fit in zip(grid, fits, strict=True) if fit is wanted]
        if chosen:
            axes.plot(
                [row["p95_ms"] for row in chosen],
                [row["encoder_parameters"] / 1e6 for row in chosen],
                "o",
                color=color,
                markersize=4,
                label=label,
            )
    points = [(row["p95_ms"], row["encoder_parameters"] / 1e6) for row, fit in zip(grid, fits, strict=True) if fit]
    axes.plot(*zip(*frontier(points), strict=True), "--", color=ACCENT, alpha=0.5) if points else None
    other_points = [(row["other"]["p95_ms"], row["encoder_parameters"] / 1e6) for row in grid]
    axes.plot(
        *zip(*frontier(other_points), strict=True), ":", color=SOFT, label=f"the same in {result['other']}, of any size"
    )
    if result["budget"]["p95_ms"] is not None:
        axes.axvline(result["budget"]["p95_ms"], color=INK, linewidth=1, label="budget")
    axes.set(
        xscale="log", yscale="log", xlabel="p95 at batch 1, ms", ylabel="million parameters outside the embeddings"
    )
    axes.set_title(f"what a latency buys in {result['precision']}", color=INK)
    _plain(axes, "x", axes.get_xlim())
    _plain(axes, "y", axes.get_ylim())
    axes.legend(frameon=False, loc="lower right")
    _draw_students(axes, [student for student in result["students"] if student["measured"]])


def _draw_students(axes: Any, students: Sequence[Mapping[str, Any]]) -> None:
    """Mark the proposed students, with their layers and width."""
    points = [(student["measured"]["p95_ms"], student["encoder_parameters"] / 1e6) for student in students]
    names = [f"{student['shape']['layers']} × {student['shape']['width']}" for student in students]
    axes.plot([x for x, _ in points], [y for _, y in points], "o", color=ACCENT, gid="mark student")
    if points:
        name_points(axes, points, names, must=True)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points whose value no cheaper point reaches, cheapest first.

    >>> frontier([(1.0, 5.0), (2.0, 4.0), (3.0, 9.0)])
    [(1.0, 5.0), (3.0, 9.0)]
    """
    best: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or value > best[-1][1]:
            best.append((cost, value))
    return best


def _plain(axes: Any, which: str, ends: Sequence[float]) -> None:
    """Label a log axis at 1, 2 and 5 times powers of ten, with plain numbers."""
    ticks = [lead * 10**power for power in range(-3, 6) for lead in (1, 2, 5)]
    set_ticks(axes, which, [tick for tick in ticks if ends[0] <= tick <= ends[-1]])
