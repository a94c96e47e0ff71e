"""Run an ablation: train what its rows need, score everything on the same pairs, print the table.

Each data version is its own run (`<output_dir>/<version>/`), with teachers and baselines in the usual folders. Finished
models are skipped, interrupted ones resume, and an encoder that two rows start from is adapted once. If a row cannot be
run (no network, no key), the table gives the reason, and the other rows are complete.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from distill.ablation import (
    STAND_INS,
    Ablation,
    AblationCell,
    AblationRow,
    ancestors,
    check_names,
    low_spread_note,
    recipe_of,
    stand_ins_of,
    write_table,
)
from distill.errors import BadInput, JobFailed
from distill.evaluation.benchmark import BenchmarkEntry, make_baseline, score_row
from distill.files.outputs import check_output_folder
from distill.metrics.measures import evaluate_scores
from distill.recipe.schema import Paragraphs, Recipe, Remote
from distill.run import Run
from teachers.train import train_teacher, train_teachers

__all__ = ["run_ablation"]

log = logging.getLogger(__name__)
_STAND_INS = (
    "A smoke run: generated pairs, and in place of every named model a tiny one that was made here. It shows that the rows "
    "run, and nothing of what the published models do."
)


def run_ablation(
    ablation: Ablation, *, only: Sequence[str] = (), versions: Sequence[str] = (), smoke: bool = False
) -> Path:
    """Fill the table and return its folder; every process of a launch calls this.

    :param only: models of the rows to run; empty means all
    :param versions: data versions to run; empty means all
    :raises BadInput: if a row or a version does not exist, or if no version's data can be read
    :raises JobFailed: after the table is written, if a row could not be run
    """
    from accelerate import PartialState

    check_names(ablation, only, versions)
    if PartialState().is_main_process:  # an interrupted ablation resumes in its own folder
        check_output_folder(ablation.folder, ours=_ours(ablation), overwrite=True)
    rows = [row for row in ablation.rows if not only or row.model in only]
    chosen = [version for version in ablation.data if not versions or version in versions]
    cells: dict[str, dict[str, AblationCell]] = {row.name: {} for row in rows}
    title = f"{ablation.name}, smoke run" if smoke else ablation.name
    notes = [_STAND_INS] if smoke else []
    if smoke and (learned := stand_ins_of(ablation, [row.model for row in rows])) is not None:
        stand_ins = Run(learned)
        with stand_ins.lock() if PartialState().is_main_process else nullcontext():
            train_teachers(stand_ins)
    with _embedding_server(smoke) as address:
        runs = {version: Run(_with_address(recipe_of(ablation, version), address)) for version in chosen}
        unreadable = _unreadable(runs)
        for version, run in runs.items():
            if version in unreadable:
                continue
            with run.lock() if PartialState().is_main_process else nullcontext():
                for row in rows:
                    unasked = version not in row.published and row.model not in only
                    if row.published and unasked and not smoke and _is_remote(run, row.model):
                        continue  # no paid request for a row without a published value, unless the row is named
                    log.info("%s · %s", version, row.name)
                    cells[row.name][version] = _cell(run, row.model)
            notes += _notes(version, run, {name: by_version.get(version) for name, by_version in cells.items()})
    notes += [" ".join(problem.split()) for problem in unreadable.values()]
    table = [AblationRow(row.name, row.published, _with_notes(row.name, cells), row.parameters) for row in rows]
    if PartialState().is_main_process:
        write_table(title, table, chosen, notes, ablation.folder)
    _raise_failures(table, unreadable, ablation.folder)
    return ablation.folder


def _raise_failures(table: Sequence[AblationRow], unreadable: Mapping[str, str], folder: Path) -> None:
    """Raise `JobFailed` if a row could not be run or a version's data could not be read."""
    failed = [f"{row.name} ({v}): {cell.problem}" for row in table for v, cell in row.cells.items() if cell.problem]
    if failed or unreadable:
        n_failed = len(failed) + len(unreadable) * len(table)
        lines = "\n  ".join([*unreadable.values(), *failed])
        raise JobFailed(f"{n_failed} rows could not be run; the table in {folder} has the others\n  {lines}")


def _ours(ablation: Ablation) -> list[str]:
    """Return the files by which a folder is recognised as an ablation's: it holds at least one of them."""
    runs = [
        name for version in (*ablation.data, STAND_INS) for name in (f"{version}/recipe.json", f"{version}/.work/lock")
    ]
    return ["ablation.json", *runs]


def _unreadable(runs: dict[str, Run]) -> dict[str, str]:
    """Read the data of all versions before the long training starts; return the problem of each unreadable version.

    :raises BadInput: if no version can be read
    """
    problems = {}
    for version, run in runs.items():
        try:
            run.split  # noqa: B018  # reads the data once, for all rows
        except BadInput as error:
            problems[version] = f"{version}: {error}"
    if len(problems) == len(runs):
        raise BadInput("\n".join(problems.values()))
    for problem in problems.values():
        log.warning("not run: %s", problem)
    return problems


def _cell(run: Run, model: str) -> AblationCell:
    """Train and score one model; an error becomes the cell's problem. All processes train, the main process scores."""
    from accelerate import PartialState

    try:
        seconds = _train(run, model)
        if not PartialState().is_main_process:
            return AblationCell({})
        pairs = run.split.evaluation
        scored_row = score_row(run, _row(run, model), pairs)
        metrics = evaluate_scores(
            scores=scored_row.scores,
            **pairs.metric_columns,
            unit_scores=scored_row.unit,
            n_bootstrap=run.recipe.benchmark.bootstrap,
            seed=run.recipe.seed,
        )
    except (BadInput, JobFailed) as error:
        log.warning("not run: %s", error)
        return AblationCell({}, problem=" ".join(str(error).split()))
    return AblationCell(metrics, float(np.std(scored_row.unit)), scored_row.n_parameters, seconds)


def _train(run: Run, model: str) -> float | None:
    """Train what a row needs, and return the seconds that the training took; None for a model that is not trained."""
    baseline = run.recipe.benchmark.baselines.get(model)
    if isinstance(baseline, Paragraphs):
        return _train(run, baseline.model)
    if model not in run.recipe.teachers:
        return None
    names = ancestors(run.recipe, model)
    for name in names:
        train_teacher(run, name)
    cards = [run.require(run.teacher(name), "train_teacher") for name in names]
    seconds = [card.details["seconds"] for card in cards if "seconds" in card.details]
    return sum(seconds) if seconds else None


def _row(run: Run, model: str) -> BenchmarkEntry:
    """Return a model as a row of the benchmark; the folder of a baseline is written here."""
    if model in run.recipe.teachers:
        return BenchmarkEntry(
            model, "teacher", run.teacher(model), "torch", "fp32", run.recipe.models[model].max_length
        )
    baseline = run.recipe.benchmark.baselines[model]
    if isinstance(baseline, Paragraphs) and baseline.model in run.recipe.benchmark.baselines:
        make_baseline(run, baseline.model)
    make_baseline(run, model)
    return BenchmarkEntry(model, "baseline", run.baseline(model), None, None, None)


def _is_remote(run: Run, model: str) -> bool:
    return isinstance(run.recipe.benchmark.baselines.get(model), Remote)


def _notes(version: str, run: Run, cells: dict[str, AblationCell | None]) -> list[str]:
    pairs = run.split.evaluation
    labels = pairs.labels
    notes = [
        f"{version}: {len(run.split.train):,} pairs for training, {len(pairs):,} for this table; seed {run.recipe.seed}."
    ]
    if labels is not None and any(cell is not None and cell.metrics for cell in cells.values()):
        notes.append(f"{version}: a score that is the same for every pair has {float(np.var(labels)):.4f} at best.")
    return notes + [f"{version}: {note}" for note in run.split.notes]


def _with_notes(name: str, cells: dict[str, dict[str, AblationCell]]) -> dict[str, AblationCell]:
    noted = {}
    for version, cell in cells[name].items():
        others = {other: by_version[version] for other, by_version in cells.items() if version in by_version}
        note = low_spread_note(name, cell, others)
        noted[version] = cell if note is None else AblationCell(**{**vars(cell), "notes": (note,)})
    return noted


# ---------------------------------------------------------------------------------------------------------------------
# A stand-in for a paid endpoint in a smoke run
# ---------------------------------------------------------------------------------------------------------------------


def _with_address(recipe: Recipe, address: str | None) -> Recipe:
    if address is None:
        return recipe
    baselines = {
        name: baseline.model_copy(update={"endpoint": baseline.endpoint.model_copy(update={"base_url": address})})
        if isinstance(baseline, Remote)
        else baseline
        for name, baseline in recipe.benchmark.baselines.items()
    }
    return recipe.model_copy(update={"benchmark": recipe.benchmark.model_copy(update={"baselines": baselines})})


@contextmanager
def _embedding_server(wanted: bool) -> Iterator[str | None]:
    """Serve hashed character trigrams as embeddings on this machine, over HTTP like the real endpoint."""
    if not wanted:
        yield None
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Embeddings)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Embeddings(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        import json

        from sklearn.feature_extraction.text import HashingVectorizer

        request: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        hashed = HashingVectorizer(n_features=256, analyzer="char", ngram_range=(3, 3)).transform(request["input"])
        vectors = np.asarray(hashed.todense()).tolist()
        answer = {
            "object": "list",
            "model": request["model"],
            "data": [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)],
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing to stderr."""
