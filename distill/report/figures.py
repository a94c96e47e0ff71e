"""Draw figures with matplotlib: a common style, names that do not overlap, and output of a figure as SVG and PNG.

Sizes are pixels: a figure has 72 dots per inch, so that a point is a pixel of the SVG. pyplot, a display and the user's
matplotlibrc are not used. The layout is the same on every machine, because it uses matplotlib's own font; letters that
this font lacks are assumed to be square. The SVG contains its text as text, in the font of the page.
"""

import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

__all__ = [
    "ACCENT",
    "INK",
    "PAPER",
    "SHADE",
    "SOFT",
    "drawing",
    "log_axis",
    "name_ends",
    "name_points",
    "new_figure",
    "save_png",
    "set_ticks",
    "spread",
    "to_svg",
    "wrapped",
]

INK, ACCENT, SOFT, PAPER = "#1c2024", "#0a6b66", "#5d656d", "#ffffff"
SHADE = "#d9d9d2"  # for the background
_LINE = "#e2e2dc"
_VARIABLES = {INK: "ink", ACCENT: "accent", SOFT: "soft", _LINE: "line", PAPER: "paper"}  # CSS variables of the page
_DPI = 72
_PNG_DPI = 144
_SQUARE = "\u2014"  # one em wide; replaces letters of unknown width
_STYLE: Mapping[str, Any] = {
    "axes.autolimit_mode": "round_numbers",
    "axes.axisbelow": True,
    "axes.edgecolor": _LINE,
    "axes.formatter.limits": [-6, 9],
    "axes.formatter.useoffset": False,
    "axes.labelcolor": SOFT,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": SOFT,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.dpi": _DPI,
    "figure.titlesize": "medium",
    "grid.color": _LINE,
    "grid.linewidth": 1,
    "legend.frameon": False,
    "lines.linewidth": 1.75,
    "lines.markersize": 6,
    "svg.fonttype": "none",
    "svg.hashsalt": "matchdistill",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": _LINE,
    "xtick.labelcolor": SOFT,
    "xtick.major.pad": 6,
    "ytick.labelcolor": SOFT,
    "ytick.left": False,
    "ytick.major.pad": 8,
}
# settings of adjustText for all attempts; iterations are limited, not time, which would depend on the machine
_SETTINGS: Mapping[str, Any] = {"explode_radius": 0, "prevent_crossings": False, "iter_lim": 100}
_STRONG: Mapping[str, Any] = {
    "force_text": (0.2, 0.8),
    "force_static": (0.2, 0.8),
    "expand": (1.02, 1.2),
    "max_move": 3,
}
_WEAK: Mapping[str, Any] = {"force_text": (0.1, 0.4), "force_static": (0.1, 0.4), "expand": (1.04, 1.2), "max_move": 5}
# Each attempt: the direction in which a name starts from its mark; the forces; whether names avoid bars, too.
# Chosen on reports of 7 models at 928 and 344 pixels: each of the four is the first to succeed in some picture.
_ATTEMPTS = (((1, 0), _STRONG, True), ((0, 0), _STRONG, True), ((-1, 0), _STRONG, False), ((0, 0), _WEAK, False))
_CROWDED = 0.25  # if names cover a larger share of the axes, no attempt succeeds, so none is made
_MOST_NAMES = 12  # the same for more names than this
_ROUNDS = 60  # rounds of pushing apart names that still overlap after all attempts
_NEAR = 7  # pixels around a mark without names
_LINES = 3  # most lines of a name
_OWN_FONT = "DejaVu Sans"
_HANGUL_FONTS = ("Noto Sans CJK KR", "Noto Sans CJK JP", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "AppleGothic")


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in this module's style, independent of the user's settings. It is a context manager and a decorator."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(
    width: float, height: float, *, n_axes: int = 1, text: float = 13, grid: str = "y"
) -> tuple[Any, list[Any]]:
    """Create a figure with axes side by side. Call it within `drawing`.

    :param text: size of all text, in pixels
    :param grid: the axis whose grid is drawn: "x", "y" or "both"
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matplotlib.rcParams["font.size"] = text
    figure = Figure(figsize=(width / _DPI, height / _DPI), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = list(figure.subplots(1, n_axes, squeeze=False)[0])
    for axes in all_axes:
        axes.grid(axis=grid)
    return figure, all_axes


def log_axis(axes: Any, which: str, values: Sequence[float], *, room: int) -> None:
    """Make an axis logarithmic, with a range around values and plain numbers as labels: 1, 2, 5, 10 and so on.

    :param which: "x" or "y"
    :param room: if there are more labels than this, only powers of ten are labelled
    """
    steps = [lead * 10.0**power for power in range(-15, 18) for lead in (1, 2, 5)]
    low, high = min(values) / 1.3, max(values) * 1.3
    if sum(low <= step <= high for step in steps) < 2:
        low, high = max(step for step in steps if step <= low), min(step for step in steps if step >= high)
    ticks = [step for step in steps if low <= step <= high]
    if len(ticks) > room:
        ticks = [tick for tick in ticks if f"{tick:e}".startswith("1")]
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    set_ticks(axes, which, ticks)


def set_ticks(axes: Any, which: str, ticks: Sequence[float]) -> None:
    """Label only the given places of an axis, with plain numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(ticks, [f"{tick:,g}" for tick in ticks])
    axis.set_ticks([], minor=True)


def wrapped(name: str, width: int) -> str:
    """Break a name into at most three lines of `width` letters, and end it with … if it is longer.

    Hangul and Han letters are wider, so a line holds fewer of them. Unprintable characters become spaces.
    """
    printable = "".join(letter if letter.isprintable() else " " for letter in name)
    n_wide = sum(ord(letter) >= 0x1100 for letter in printable)
    letters = max(4, int(width / (1 + 0.75 * n_wide / max(1, len(printable)))))
    lines = textwrap.wrap(printable, letters)
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], f"{lines[_LINES - 1][: letters - 1].rstrip()}…"]
    return "\n".join(lines) or "–"


# ---------------------------------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------------------------------


def name_points(
    axes: Any,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    bars: Sequence[Any] = (),
    *,
    must: bool = False,
) -> bool:
    """Put a name beside each point, without overlaps. If there is no room, place no name and return False.

    Call it last, because it fixes the layout of the figure. adjustText moves the names. Of several attempts the first
    is taken in which no name covers another name or a point. A name that had to move away is connected to its point
    with a line.

    :param bars: vertical matplotlib lines that names avoid if there is room
    :param must: if there is no room, take the attempt with the fewest overlaps
    """
    with _square_letters(axes.figure):
        _settle(axes.figure)
        marks = axes.transData.transform(points)
        text_options = {"ha": "center", "va": "center", "gid": "label", "in_layout": False}
        texts = [axes.text(*point, _squares(name), **text_options) for point, name in zip(points, names, strict=True)]
        attempts = []
        for start, forces, beside_bars in _ATTEMPTS if must or not _crowded(axes, texts) else ():
            _begin(axes, marks, texts, start)
            covered = _adjusted(axes, marks, texts, bars if beside_bars else (), forces)
            attempts.append((covered, [text.get_position() for text in texts]))
            if not covered:
                break
        covered, places = min(attempts, key=lambda attempt: attempt[0], default=(1, []))
        if covered and not must:
            for text in texts:
                text.remove()
            return False
        for text, place in zip(texts, places, strict=True):
            text.set_position(place)
        if covered:
            _part(axes, texts)
        for text, name, mark in zip(texts, names, marks, strict=True):
            _anchor(axes, text, mark)
            text.set_text(name)
    return True


def _begin(axes: Any, marks: Any, texts: Sequence[Any], start: tuple[int, int]) -> None:
    """Put each name at its mark, or beside it.

    :param start: direction from the mark, horizontal and vertical: 1, 0 or −1
    """
    back = axes.transData.inverted()
    for text, mark in zip(texts, marks, strict=True):
        box = text.get_window_extent()
        moved = (mark[0] + start[0] * (box.width / 2 + 12), mark[1] + start[1] * (box.height / 2 + 12))
        text.set_position(back.transform(moved))


def _crowded(axes: Any, texts: Sequence[Any]) -> bool:
    covered = sum(box.width * box.height for box in (text.get_window_extent() for text in texts))
    return len(texts) > _MOST_NAMES or bool(covered > _CROWDED * axes.bbox.width * axes.bbox.height)


def _adjusted(axes: Any, marks: Any, texts: Sequence[Any], bars: Sequence[Any], forces: Mapping[str, Any]) -> int:
    """Move names away from each other, marks and bars; return the number of remaining overlaps with names and marks."""
    from adjustText import adjust_text
    from matplotlib.transforms import Bbox

    to, back = axes.transData, axes.transData.inverted()
    boxes = [Bbox(back.transform([mark - _NEAR, mark + _NEAR])) for mark in marks]
    ends = [to.transform(bar.get_xydata()) for bar in bars]
    boxes += [Bbox(back.transform([(low[0] - 2, low[1]), (high[0] + 2, high[1])])) for low, high in ends]
    across, up = back.transform(marks).T
    with _hidden(axes.figure):  # adjustText first draws the figure for its layout, which is already fixed here
        adjust_text(
            list(texts), objects=boxes, target_x=across, target_y=up, avoid_self=False, ax=axes, **_SETTINGS, **forces
        )
    placed = [text.get_window_extent().padded(2) for text in texts]
    covered = [Bbox([mark - 4, mark + 4]) for mark in marks]
    return sum(box.overlaps(obstacle) for i, box in enumerate(placed) for obstacle in [*placed[:i], *covered])


@contextmanager
def _hidden(figure: Any) -> Iterator[None]:
    """Make a figure invisible, so that drawing it takes no time."""
    figure.set_visible(False)
    yield
    figure.set_visible(True)


def _part(axes: Any, texts: Sequence[Any]) -> None:
    """Push overlapping names apart, each pair along the axis with the smaller overlap."""
    to, back = axes.transData, axes.transData.inverted()
    for _ in range(_ROUNDS):
        boxes = [text.get_window_extent().padded(1) for text in texts]
        pairs = [(i, j) for j in range(len(boxes)) for i in range(j) if boxes[i].overlaps(boxes[j])]
        if not pairs:
            return
        moves = [[0.0, 0.0] for _ in texts]
        for i, j in pairs:
            first, second = boxes[i], boxes[j]
            depths = (
                min(first.x1, second.x1) - max(first.x0, second.x0),
                min(first.y1, second.y1) - max(first.y0, second.y0),
            )
            axis = int(depths[1] < depths[0])
            middles = [(box.x0 + box.x1, box.y0 + box.y1)[axis] for box in (first, second)]
            step = (depths[axis] / 2 + 0.5) * (1 if middles[0] > middles[1] else -1)
            moves[i][axis] += step
            moves[j][axis] -= step
        for text, move in zip(texts, moves, strict=True):
            text.set_position(back.transform(to.transform(text.get_position()) + move))


def _anchor(axes: Any, text: Any, at: Any) -> None:
    """Align a name at the side of its box next to its mark, because a browser's font may be narrower or wider.

    A name that is far from its mark is connected to it with a line.
    """
    box, back = text.get_window_extent(), axes.transData.inverted()
    side = "left" if at[0] <= box.x0 else "right" if at[0] >= box.x1 else "center"
    x = {"left": box.x0, "right": box.x1, "center": (box.x0 + box.x1) / 2}[side]
    text.set(position=back.transform((x, (box.y0 + box.y1) / 2)), ha=side, multialignment="left")
    near = [min(max(at[0], box.x0), box.x1), min(max(at[1], box.y0), box.y1)]
    away = ((near - at) ** 2).sum() ** 0.5
    if away > 2 * _NEAR:
        ends = [at + (near - at) * _NEAR / away, near]
        axes.plot(*zip(*back.transform(ends), strict=True), color=SOFT, linewidth=0.75, gid="lead", zorder=1.5)


def name_ends(axes: Any, ends: Sequence[tuple[float, float]], names: Sequence[str], *, away: float = 14) -> None:
    """Put a name to the right of each line's end.

    If ends are close, names are moved up or down and connected with a line.

    Call it last, because it makes room at the right and fixes the layout of the figure.
    """
    with _square_letters(axes.figure):
        text_options = {"textcoords": "offset points", "va": "center", "gid": "label", "annotation_clip": False}
        texts = [
            axes.annotate(_squares(name), end, (away, 0), **text_options) for name, end in zip(names, ends, strict=True)
        ]
        _settle(axes.figure)
        places = axes.transData.transform(ends)
        heights = [text.get_window_extent().height + 2 for text in texts]
        frame = axes.figure.bbox
        moved = spread([place[1] for place in places], heights, frame.y0, frame.y1)
        back = axes.transData.inverted()
        for text, name, place, height in zip(texts, names, places, moved, strict=True):
            text.set(position=(away, height - place[1]), text=name)
            if abs(height - place[1]) > 3:
                lead = [(place[0] + 5, place[1]), (place[0] + away - 3, height)]
                axes.plot(
                    *zip(*back.transform(lead), strict=True), color=SOFT, linewidth=0.75, gid="lead", clip_on=False
                )


def spread(places: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Return new middles of boxes, so that boxes do not overlap, keep their order, and stay in bounds if possible.

    >>> spread([10, 11, 50], [8, 8, 8], 0, 100), spread([99, 98], [8, 8], 0, 100)
    ([10, 18.0, 50], [96.0, 88.0])
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    placed, edge = list(places), low
    for i in order:
        placed[i] = max(places[i], edge + heights[i] / 2)
        edge = placed[i] + heights[i] / 2
    edge = high
    for i in reversed(order):
        placed[i] = min(placed[i], edge - heights[i] / 2)
        edge = placed[i] - heights[i] / 2
    return placed


def _settle(figure: Any) -> None:
    """Compute the layout of the figure and fix it."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.autoscale(False)


def _squares(name: str) -> str:
    """Replace letters that matplotlib's font lacks with a character as wide as Hangul, Kana and Han letters."""
    known = _letters(_OWN_FONT)
    return "".join(letter if letter == "\n" or letter in known else _SQUARE for letter in name)


@contextmanager
def _square_letters(figure: Any) -> Iterator[None]:
    """Replace letters that the font lacks with squares in every text of a figure, and restore them at the end."""
    from matplotlib.text import Text

    before = [(text, text.get_text()) for text in figure.findobj(Text)]
    for text, name in before:
        text.set_text(_squares(name))
    yield
    for text, name in before:
        text.set_text(name)


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------

_SVG = "{http://www.w3.org/2000/svg}"
_OWN_ID = re.compile(r".*[._]\d+$")  # group names of matplotlib; other names are gids set here
_DROPPED = {f"{_SVG}{tag}" for tag in ("defs", "metadata", "clipPath", "style")}


@drawing()
def to_svg(figure: Any, *, kind: str, title: str, about: str) -> str:
    """Return a figure as an SVG element of a page, with the page's colours and font.

    It contains only paths and texts, without a style element, references or links. The `gid` of an artist becomes the
    class of its group.

    :param kind: the CSS class of the element
    :param title: the title for screen readers and the tooltip
    :param about: a description of the drawing in words
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream, canvas = StringIO(), figure.canvas
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser has a font for letters that matplotlib's font lacks
        # not `savefig`, which would compute the layout a second time
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    figure.set_canvas(canvas)
    root = ElementTree.fromstring(stream.getvalue())
    shapes = {f"#{path.get('id')}": path for path in root.iter(f"{_SVG}path") if path.get("id")}
    text = next((label.get_fontsize() for axes in figure.axes for label in axes.get_xticklabels()), 13)
    head = f'<svg class="{kind}" viewBox="{root.get("viewBox")}" role="img" aria-label="{escape(title)}" font-size="{text:g}">'
    parts = [part for child in root for part in _elements(child, shapes)]
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<desc>{escape(about)}</desc>", *parts, "</svg>"])


def _elements(node: ElementTree.Element, shapes: Mapping[str, ElementTree.Element]) -> Iterator[str]:
    """Yield the paths and texts below a node. A mark becomes the path of its shape, moved to its place."""
    style = _css(node)
    if node.tag in _DROPPED:
        return
    if node.tag == f"{_SVG}path":
        yield f'<path d="{_rounded(node.get("d"))}"{style}/>'
    elif node.tag == f"{_SVG}use":
        shape = shapes[node.get("{http://www.w3.org/1999/xlink}href", "")]
        place = _rounded(f"{node.get('x')} {node.get('y')}")
        yield f'<path d="{_rounded(shape.get("d"))}" transform="translate({place})"{_css(shape, node)}/>'
    elif node.tag == f"{_SVG}text":
        transform = node.get("transform", "")
        transform = "" if transform.startswith("rotate(-0 ") else f' transform="{_rounded(transform)}"'
        at = "".join(f' {key}="{_rounded(node.get(key))}"' for key in ("x", "y") if node.get(key))
        yield f"<text{at}{transform}{style}>{escape(node.text or '')}</text>"
    else:
        below = [part for child in node for part in _elements(child, shapes)]
        name = node.get("id") or ""
        own = "tick" if name[1:5] == "tick" else "" if _OWN_ID.match(name) else name
        yield from [f'<g class="{escape(own)}">{"".join(below)}</g>'] if own and below else below


def _css(*nodes: ElementTree.Element) -> str:
    """Return the style attribute for nodes, with CSS variables as colours and no font.

    Later nodes override earlier ones.
    """
    rules: dict[str, str] = {}
    for node in nodes:
        parts = [rule.partition(":") for rule in node.get("style", "").split(";") if rule]
        rules |= {key.strip(): value.strip() for key, _, value in parts}
    rules.pop("font-family", None)
    declarations = {
        key: f"var(--{_VARIABLES[value]})" if value in _VARIABLES else value for key, value in rules.items()
    }
    return (
        f' style="{escape("; ".join(f"{key}: {value}" for key, value in declarations.items()))}"'
        if declarations
        else ""
    )


def _rounded(text: str | None) -> str:
    """Return a text with its decimal numbers rounded to one decimal."""
    return re.sub(
        r"-?\d+\.\d+", lambda found: f"{float(found[0]):z.1f}".removesuffix(".0"), " ".join((text or "").split())
    )


@drawing()
def save_png(figure: Any, path: Path) -> str:
    """Write a figure as PNG and return the file's name. Call `to_svg` before, because letters may be removed here.

    Hangul and Han letters are drawn with a font of this machine. If matplotlib finds none, these letters are left out,
    and the name becomes for example `model 1: int8`. The page has the full name.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text

    lacking: list[str] = []
    for text in figure.findobj(Text):
        name = text.get_text()
        fonts = [_OWN_FONT, *_fonts_beside(name)]
        if _left_of(name, fonts) != name and name not in lacking:
            lacking.append(name)
        instead = f"model {lacking.index(name) + 1}" if name in lacking else ""
        text.set(text=_drawable(name, fonts, instead), fontfamily=fonts)
    for text in figure.findobj(lambda artist: artist.get_gid() == "label"):
        text.set_path_effects([withStroke(linewidth=4, foreground=PAPER)])
    figure.set(dpi=_PNG_DPI, facecolor=PAPER)
    figure.patch.set_visible(True)  # `to_svg` has hidden the background, and dark text is not visible in a dark viewer
    figure.canvas.print_png(
        path, pil_kwargs={"compress_level": 4}
    )  # the default of 6 takes twice the time for 1 % fewer bytes
    figure.set(dpi=_DPI)
    return path.name


def _drawable(name: str, fonts: Sequence[str], instead: str) -> str:
    """Return a name without letters that no font has. If letters are missing, `instead` is put before the rest."""
    remaining = _left_of(name, fonts)
    if remaining == name:
        return name
    remaining = remaining.strip(" ()\n")
    return f"{instead}: {remaining}" if any(letter.isalnum() for letter in remaining) else instead


def _left_of(name: str, fonts: Sequence[str]) -> str:
    known = frozenset().union(*map(_letters, fonts), "\n")
    return "".join(letter for letter in name if letter in known)


@cache
def _letters(font: str) -> frozenset[str]:
    """Return the letters that a font has."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(map(chr, get_font(findfont(font)).get_charmap()))


def _fonts_beside(name: str) -> list[str]:
    """Return a font with Hangul and Han letters, in a list, if the name has letters that matplotlib's font lacks."""
    if _letters(_OWN_FONT).issuperset(name.replace("\n", "")):
        return []
    from matplotlib.font_manager import fontManager

    known = {font.name for font in fontManager.ttflist}
    return [font for font in _HANGUL_FONTS if font in known][:1]
