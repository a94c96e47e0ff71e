"""Show progress: as a bar on a terminal, else as a line after 5 seconds and every 15 seconds."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["OnProgress", "Progress", "byte_progress", "progress", "reaching", "say_loading", "step_progress"]

log = logging.getLogger(__name__)

OnProgress = Callable[[int], None]
"""A caller's function that receives the number of newly finished pairs or texts."""

_FIRST_LINE_SECONDS, _LINE_EVERY_SECONDS = 5.0, 15.0
_MB = 10**6
_SHOWN_FROM_BYTES = 2 * 10**9  # hashing this much takes some seconds


class Progress(Protocol):
    """A function to which long work reports its progress."""

    def __call__(self, n_done: int, note: str = "", *, total: int | None = None) -> None:
        """Report that `n_done` more items are done.

        :param note: replaces the text behind the bar; "" keeps it
        :param total: replaces the total number of items; None keeps it
        """


def say_loading() -> None:
    """Say that libraries are imported, which takes seconds; nothing is said once they are there."""
    if "torch" not in sys.modules:
        log.info("loading torch and transformers")


@contextmanager
def progress(title: str, total: int, *, start: int = 0, show: bool = True) -> Iterator[Progress]:
    """Yield a function that counts finished items and shows the progress.

    :param total: the number of items; 0 if it is not known yet
    :param start: the number of items that an earlier run finished
    :param show: False shows nothing (processes other than the first)
    """
    if not show:
        yield _silent
    elif sys.stderr.isatty():
        with _bar(title, total, start) as report:
            yield report
    else:
        yield _Lines(title, total, start)


@contextmanager
def reaching(report: Progress, total: int) -> Iterator[OnProgress]:
    """Yield a function whose counts add up to exactly `total` at the end.

    A model counts the unique texts that it reads, and their number may be higher or lower than the number of pairs.

    >>> counts = []
    >>> with reaching(counts.append, 3) as count:
    ...     count(2), count(2)
    (None, None)
    >>> counts
    [2, 1]
    """
    remaining = total

    def count(n_done: int) -> None:
        nonlocal remaining
        if (n := min(n_done, remaining)) > 0:
            remaining -= n
            report(n)

    yield count
    count(remaining)


@contextmanager
def byte_progress(title: str, n_bytes: int) -> Iterator[OnProgress]:
    """Yield a function that counts bytes. Progress is shown in MB, and only if there are 2 GB or more."""
    n_done = 0
    with (
        progress(f"{title}: MB", n_bytes // _MB, show=n_bytes >= _SHOWN_FROM_BYTES) as report,
        reaching(report, n_bytes // _MB) as count,
    ):

        def on_bytes(n: int) -> None:
            nonlocal n_done
            before, n_done = n_done // _MB, n_done + n
            count(n_done // _MB - before)

        yield on_bytes


@contextmanager
def step_progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield a function that takes (steps done so far, total steps, description of the current step)."""
    with progress(title, 0) as report:
        last = 0

        def on_progress(done: int, total: int, what: str) -> None:
            nonlocal last
            report(done - last, what, total=total)
            last = done

        yield on_progress


def _silent(n_done: int, note: str = "", *, total: int | None = None) -> None:
    pass


@contextmanager
def _bar(title: str, total: int, start: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total or None, completed=start, note="")

        def report(n_done: int, note: str = "", *, total: int | None = None) -> None:
            bar.update(task, advance=n_done, total=total)
            if note:
                bar.update(task, note=note)

        yield report


class _Lines:
    def __init__(self, title: str, total: int, start: int) -> None:
        self.title, self.total, self.n_done, self.note = title, total, start, ""
        self.began = time.monotonic()
        self.last = self.began + _FIRST_LINE_SECONDS - _LINE_EVERY_SECONDS

    def __call__(self, n_done: int, note: str = "", *, total: int | None = None) -> None:
        self.n_done += n_done
        self.total = total or self.total
        self.note = note or self.note
        now, finished = time.monotonic(), 0 < self.total <= self.n_done
        of_all = f"/{self.total}" if self.total else ""
        if finished or now - self.last >= _LINE_EVERY_SECONDS:
            self.last = now
            print(
                f"{self.title}  {self.n_done}{of_all}  {now - self.began:.0f} s  {self.note}",
                file=sys.stderr,
                flush=True,
            )
