"""Measure model folders side by side (`distill benchmark A B C --pairs pairs.tsv`).

The other folders are compared with the first. The report is like that of a run (`distill.evaluation.benchmark`). It
also has the time from a cold start to the first score, in a process that does nothing else, and on request batches of
each size, an open loop and memory over random shapes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.data.pairs import Pairs
from distill.errors import JobFailed
from distill.evaluation.benchmark import BenchmarkEntry, Scored, assemble, measure_rows, said_of_pairs
from distill.evaluation.earlier_report import check_against as check_against  # it was defined here
from distill.evaluation.earlier_report import check_earlier as check_earlier
from distill.evaluation.earlier_report import folder_names as _names
from distill.evaluation.latency import LoadSettings
from distill.files.artefact import read_card
from distill.metrics.measures import Bootstrap
from distill.progress import progress, reaching
from distill.recipe.schema import Benchmark
from distill.report.build import write_report
from distill.scorers.opening import check_local_scorers, open_scorer

__all__ = ["FolderMeasuring", "bench_folders"]

_SEED = 0  # of pairs and resamples; fixed, so that all reports draw the same
# texts are passed through stdin: an argument is limited to 128 KiB, and every user of the machine can read it
_FIRST_SCORE = (
    "import json, sys; from distill.scorers.opening import open_scorer; "
    "query, document = json.load(sys.stdin.buffer); open_scorer(sys.argv[1]).score([query], [document])"
)


@dataclass(frozen=True)
class FolderMeasuring:
    """How each folder is measured."""

    settings: Benchmark
    load: LoadSettings
    threads: Sequence[int] = ()
    """Each model is measured with each of these numbers of threads; () is `settings.threads`."""


def bench_folders(
    folders: Sequence[Path],
    pairs: Pairs,
    output: Path,
    *,
    measuring: FolderMeasuring,
    source: str = "",
    before_writing: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Measure model folders on the same pairs and write a report; return the content of its `benchmark.json`.

    :param source: the source of the pairs, as shown in the report
    :param before_writing: called after all measurements; if it raises, the output is left as it is
    :raises BadInput: if a folder is incomplete, or a folder is given twice
    """
    check_local_scorers(folders)
    rows = _rows(folders, measuring.threads or (measuring.settings.threads,))
    for folder in folders[1:]:
        open_scorer(folder, n_threads=rows[0].threads)  # refused before the first one has scored all pairs
    scored = {row.name: _scored(row, pairs) for row in rows}
    speed = measure_rows(rows, pairs, measuring.settings, seed=_SEED, load=measuring.load)
    with progress("from start to first score", len(rows)) as report:
        first_scores = dict[str, dict[str, float]]()
        for row in rows:
            first_scores[row.name] = _first_score(row, pairs)
            report(1)
    measured = {row.name: speed[row.name] | first_scores[row.name] for row in rows}
    result = assemble(
        rows,
        scored,
        measured,
        pairs,
        bootstrap=Bootstrap(measuring.settings.bootstrap, _SEED),
        comparisons=[(row.name, rows[0].name) for row in rows[1:]],
    )
    cards = {row.name: read_card(row.path) for row in rows}
    result |= {
        "title": "benchmark",
        "reference": "first model",
        "notes": said_of_pairs(pairs, result["primary_metric"]),
        "models": {name: getattr(card, "revision", None) for name, card in cards.items()},
    }
    result["data"]["source"] = source
    before_writing()
    write_report(result, output)
    return result


def _rows(folders: Sequence[Path], threads: Sequence[int | None]) -> list[BenchmarkEntry]:
    """Return a row for each folder with each number of threads. The others are compared with the first row."""
    return [
        BenchmarkEntry(
            name if len(threads) < 2 else f"{name} ({n} threads)",
            "teacher" if not (place or i) else "export",
            folder,
            None,
            None,
            None,
            threads=n,
        )
        for i, (name, folder) in enumerate(zip(_names(folders), folders, strict=True))
        for place, n in enumerate(threads)
    ]


def _scored(row: BenchmarkEntry, pairs: Pairs) -> Scored:
    scorer = open_scorer(row.path, n_threads=row.threads)
    with progress(f"{row.name}: scoring", len(pairs)) as report, reaching(report, len(pairs)) as count:
        scores = scorer.score(pairs.queries, pairs.documents, progress=count)
    return Scored(scores, scorer.unit(scores), scorer.n_parameters)


def _first_score(row: BenchmarkEntry, pairs: Pairs) -> dict[str, float]:
    """Time two processes from start to first score; return the better time and the first, which may fill caches."""
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    texts, seconds = json.dumps([pairs.queries[0], pairs.documents[0]]), []
    for _ in range(2):
        start = time.perf_counter()
        command = [sys.executable, "-P", "-c", _FIRST_SCORE, str(row.path)]  # -P: no import from the current folder
        done = subprocess.run(command, input=texts, env=environment, capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - start)
        if done.returncode:
            raise JobFailed(
                f"{row.name} does not score in a process of its own: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
            )
    return {"first_score_seconds": round(min(seconds), 3), "first_score_cold_seconds": round(seconds[0], 3)}
