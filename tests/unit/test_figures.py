"""Figures: axes, names, SVG as part of a page, PNG with what the fonts can draw."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from distill.report import figures
from distill.report.figures import drawing, log_axis, name_points, new_figure, save_png, spread, to_svg, wrapped
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "values, room, ticks",
    [
        ([0.41, 212], 20, [0.5, 1, 2, 5, 10, 20, 50, 100, 200]),
        ([0.41, 212], 6, [1, 10, 100]),
        ([3.0], 6, [2, 5]),  # two at least
    ],
)
@drawing()
def test_axes_hold_all_values(values, room, ticks):
    _, (axes,) = new_figure(400, 300)
    log_axis(axes, "x", values, room=room)
    low, high = axes.get_xlim()
    assert low < min(values) and high > max(values)
    assert axes.get_xticks() == pytest.approx(ticks)
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"{tick:g}" for tick in ticks]


def test_spread_keeps_a_gap_and_the_order():
    assert spread([10, 11, 50], [8, 8, 8], 0, 100) == [10, 18, 50]
    assert spread([99, 98], [8, 8], 0, 100) == [96, 88]
    assert spread([50, 50], [20, 10], 0, 100) == [50, 65]


def test_the_users_style_is_neither_used_nor_changed():
    with matplotlib.rc_context({"font.size": 40, "axes.facecolor": "red"}):
        with drawing():
            figure, (axes,) = new_figure(300, 200, text=12)
            assert axes.get_facecolor() == (1, 1, 1, 1) and axes.xaxis.label.get_size() == 12
        assert matplotlib.rcParams["font.size"] == 40 and matplotlib.rcParams["axes.facecolor"] == "red"
    assert "matplotlib.pyplot" not in str(type(figure.canvas))


@drawing()
def drawn(label):
    figure, (axes,) = new_figure(300, 200)
    axes.plot([1, 2, 3], [1, 2, 3], gid="trace student", marker="o", linestyle="")
    assert name_points(axes, [(2, 2)], [wrapped(label, 30)], [])
    return figure


@pytest.mark.parametrize(
    "label, shown",
    [
        ("cost $5 x^2", "cost $5 x^2"),
        ('<b>&"', "&lt;b&gt;&amp;"),
        ("a\x00b\u200bc", "a b c"),
        ("#1c2024; fill", "#1c2024; fill"),  # a colour of ours, in a name
        ("학생 (int8)", "학생 (int8)"),
        ("🎓", "🎓"),
    ],
)
def test_a_name_is_text_as_it_is_written(label, shown, tmp_path):
    figure = drawn(label)
    svg = to_svg(figure, kind="desk", title=label, about=label)
    assert f">{shown}" in svg.replace("&quot;", "")
    assert svg.count("<svg") == 1 and '<g class="trace student">' in svg
    assert save_png(figure, tmp_path / "a.png") == "a.png"  # a warning would be an error
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG" and picture.convert("RGBA").getextrema()[3] == (
            255,
            255,
        )  # paper lies under all of it
        assert picture.getpixel((0, 0))[:3] == (255, 255, 255)


def test_letters_of_no_font_are_left_out_of_the_png():
    own = ["DejaVu Sans"]
    assert figures._drawable("학생 (int8)", own, "model 1") == "model 1: int8"
    assert figures._drawable("학생", own, "model 2") == "model 2"
    assert figures._drawable("student (int8)", own, "") == "student (int8)"


def test_hangul_has_its_width_where_the_font_lacks_it():
    """Layout takes a square for a letter that it cannot measure, so that a name in the browser's font has its room."""
    assert figures._squares("학생 a") == "\u2014\u2014 a"
    with drawing():
        _, (axes,) = new_figure(300, 200, text=20)
        text = axes.text(0, 0, figures._squares("한국어 모델"))
        assert text.get_window_extent().width == pytest.approx(5 * 20 + 0.3 * 20, rel=0.05)


def test_names_that_find_no_room_are_refused():
    with drawing():
        figure, (axes,) = new_figure(300, 200)
        points = [(float(x), float(y)) for x, y in np.ndindex(5, 5)]
        axes.plot(*zip(*points, strict=True), linestyle="", marker="o")
        assert not name_points(axes, points, ["a name that is rather long"] * 25, [])
        assert not figure.findobj(lambda one: one.get_gid() == "label")


def test_reports_draw_without_pyplots_state_and_keep_it_light():
    program = (
        "import sys, distill.report.build, distill.runtime, distill.runtime.opening; "
        "print(*sorted({'matplotlib', 'jinja2', 'adjustText'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_long_names_are_cut_and_never_collapse_the_picture():
    assert wrapped("a student of a name", 9) == "a student\nof a name"
    assert wrapped("x" * 100, 10) == f"{'x' * 10}\n{'x' * 10}\n{'x' * 9}…"
    assert max(map(len, wrapped("이력서 문단 임베딩 모델", 10).split("\n"))) <= 6
    assert wrapped("", 10) == "–"
