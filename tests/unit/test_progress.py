"""Long work is heard of: a first line soon, then one every quarter of a minute, and what takes long in one piece is announced."""

import logging
import sys

import pytest

from distill.progress import progress, say_loading


def test_the_first_line_comes_soon_and_the_next_ones_at_times(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr("distill.progress.time.monotonic", lambda: now)
    said = []
    with progress("scoring", 100) as report:
        for second in range(1, 41):
            now = float(second)
            report(1)
            said += [second] if capsys.readouterr().err else []
    assert said == [5, 20, 35]


@pytest.mark.parametrize("is_there", [True, False])
def test_imports_that_take_seconds_are_announced(monkeypatch, caplog, is_there):
    monkeypatch.setitem(sys.modules, "torch", object())
    if not is_there:
        monkeypatch.delitem(sys.modules, "torch")
    with caplog.at_level(logging.INFO, logger="distill"):
        say_loading()
    assert bool(caplog.messages) != is_there
