"""Draw pictures/korean-english.svg from the tables of tutorials/korean-english.md and tutorials/black-box.md.

PYTHONPATH=. python docs/draw.py
"""

import re
from pathlib import Path

from distill.report.figures import ACCENT, INK, SOFT, drawing, log_axis, name_points, new_figure

HERE = Path(__file__).resolve().parent
PICTURE = HERE / "pictures" / "korean-english.svg"
FLOOR, TEACHER = "TF-IDF, characters 1–3", "teacher USE"


def rows_of(page: str, section: str) -> dict[str, list[str]]:
    """Return the cells of the first table below a heading, or below the first line that begins so, by their first cell."""
    text = (HERE / page).read_text(encoding="utf-8")
    table = re.search(r"(?:^\|.*\n)+", text[text.index(f"\n{section}") :], re.MULTILINE)
    assert table is not None, f"{page} has no table below {section}"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()]
    return {name: cells for name, *cells in reversed(rows[2:])}  # the first of equal names


def number(cell: str) -> float:
    """Return the first number of a cell.

    >>> number("**0.813** (0.793–0.831)")
    0.813
    """
    found = re.search(r"\d+(?:\.\d+)?", cell)
    assert found is not None, cell
    return float(found[0])


@drawing()
def draw() -> None:
    """Draw KorSTS over the size of each student, as points with names, and lines for the Korean teacher and TF-IDF."""
    page = "tutorials/korean-english.md"
    main, single = rows_of(page, "## 5."), rows_of(page, "**One layer**")
    static = rows_of("tutorials/black-box.md", "## 4.")
    points = {
        "static table, int8": (static["student, int8 table"][2], static["student, int8 table"][0]),
        "one layer, int8": (single["the same in OpenVINO int8"][3], single["the same in OpenVINO int8"][0]),
        "three layers, int8": (main["the same in OpenVINO int8"][3], main["the same in OpenVINO int8"][0]),
        "three layers, fp32": (main["after `task`, seed 2"][3], main["after `task`, seed 2"][0]),
        "MiniLM-L6, fp32": (main["teacher MiniLM-L6"][3], main["teacher MiniLM-L6"][0]),
    }
    values = [(number(size), number(quality)) for size, quality in points.values()]
    figure, (axes,) = new_figure(700, 420, text=12)
    axes.set(ylim=(0.4, 0.9), title="KorSTS dev, Spearman", xlabel="size of the folder, MB")
    log_axis(axes, "x", [size for size, _ in values], room=8)
    for name, style in ((TEACHER, "-"), (FLOOR, ":")):
        height = number(main[name][0])
        axes.axhline(height, color=INK, linestyle=style, linewidth=1)
        axes.text(0.99, height, name, color=SOFT, ha="right", va="bottom", transform=axes.get_yaxis_transform())
    axes.plot(*zip(*values, strict=True), "o", color=ACCENT)
    name_points(axes, values, list(points), must=True)
    figure.savefig(PICTURE, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw()
