"""What all pictures of matplotlib share: colours, axes without a frame, plain numbers on a log axis.

No global state and no display: a figure is made, drawn on and saved.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["ACCENT", "INK", "PAPER", "SOFT", "in_points", "new_canvas", "plain_ticks", "save_canvas"]

INK, ACCENT, SOFT = "#1c2024", "#0a6b66", "#5d656d"
PAPER = "#d9d9d2"  # what stands behind the rest
_LAYOUT_DPI = 100  # in which pixels are counted while laying out
_SAVED_DPI = 200


def new_canvas(n_axes: int = 1, *, size: tuple[float, float] = (9, 5), grid: str = "y") -> tuple[Any, list[Any]]:
    """Make a figure with axes side by side.

    :param size: in inches
    :param grid: the axis whose grid is drawn: "x", "y" or "both"
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=_LAYOUT_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    made = list(figure.subplots(1, n_axes, squeeze=False)[0])
    for axes in made:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis=grid, color="#e2e2dc")
        axes.set_axisbelow(True)
    return figure, made


def plain_ticks(axis: Any, ticks: Sequence[float]) -> None:
    """Label the given places of a log axis with plain numbers, and no others."""
    axis.set_ticks(ticks, [f"{tick:,g}" for tick in ticks])
    axis.set_ticks([], minor=True)


def in_points(pixels: float) -> float:
    """Turn pixels of the layout into points, in which matplotlib shifts a text."""
    return pixels * 72 / _LAYOUT_DPI


def save_canvas(figure: Any, path: Path) -> str:
    """Write a figure as PNG; return the file's name."""
    figure.savefig(path, dpi=_SAVED_DPI, format="png")
    return path.name
