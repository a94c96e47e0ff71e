"""Commands on finished models: compare, examine, tune and verify them. `score_embed.py` scores and embeds."""

import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.data.pairs import read_pairs
from distill.data.tables import read_texts
from distill.diagnosis.findings import SEVERITIES
from distill.errors import BadInput, JobFailed, loading
from distill.evaluation.earlier_report import check_against, check_earlier, folder_names
from distill.evaluation.index_quality import index_quality, table_cells
from distill.evaluation.latency import LoadSettings
from distill.files.outputs import check_output_folder
from distill.machine.cpu import multiplies_bf16, usable_cpus
from distill.models.files import read_model_files
from distill.progress import say_loading
from distill.recipe.schema import Benchmark, Recipe
from distill.runtime.arguments import check_truncate
from distill.runtime.fastest import exports_at, fastest_measured
from distill.runtime.opening import load
from distill.scorers.opening import check_local_scorers
from distill.wording import counted, printable
from recipes._launch import join_processes
from recipes.options import (
    LabelledFile,
    OpeningOptions,
    OutputPlace,
    TextFile,
    counts_in,
    numbers_in,
    read_label_range,
)
from recipes.printing import comparison_line, print_benchmark, print_table, print_tuned

if TYPE_CHECKING:
    from distill.run import Run

__all__ = [
    "Boards",
    "Earlier",
    "FolderMeasurement",
    "IndexSearch",
    "bench",
    "evaluate_models",
    "examine",
    "print_index_quality",
    "tune_model",
    "verify_folder",
]


@dataclass(frozen=True)
class IndexSearch:
    """The options of `distill index-quality`.

    :param widths: smaller widths to measure as well, with commas between
    :param corpus: more documents than those of the pairs
    """

    widths: str
    corpus: TextFile | None
    max_queries: int


def print_index_quality(
    model: Path, pairs: LabelledFile, search: IndexSearch, *, opening: OpeningOptions, as_json: bool
) -> None:
    """Print how many results each form of a search index keeps, as a table or JSON."""
    low, high = read_label_range(pairs.label_range)
    widths = numbers_in("--truncate", search.widths, int) if search.widths else []
    file_pairs = read_pairs(
        pairs.source,
        pairs.columns,
        label_range=(low, high),
        labelled=pairs.label_column is not None,
        option_names=pairs.option_names,
    )
    corpus_texts = [] if search.corpus is None else read_texts(search.corpus.source, search.corpus.column, gaps=True)
    if widths and opening.precision != "auto":
        files = read_model_files(model)
        check_truncate(files, max(widths), files.stated_width)  # before the model is opened
    scorer = load(model, **opening.arguments())
    result = index_quality(
        scorer, file_pairs, corpus_texts, widths=widths, max_queries=search.max_queries, progress=True
    )
    if as_json:
        print(json.dumps(result, ensure_ascii=False, indent=2))
        return
    columns_shown = (
        "form",
        "dimensions",
        "MB",
        "MB searched",
        "as exact",
        "recall@10",
        "lost (95 %)",
        "nDCG@10",
        "lost (95 %)",
    )
    print_table(columns_shown, [table_cells(row, result["n_documents"]) for row in result["rows"]])
    print(f"{counted(result['n_queries'], 'query')}, {counted(result['n_documents'], 'document')}, {scorer!r}")


@dataclass(frozen=True)
class FolderMeasurement:
    """How model folders are measured; lists of numbers are separated by commas, an empty list measures nothing.

    :param loads: arrival rates, as shares of the measured capacity
    :param n_shapes: random shapes over which the growth of memory is measured
    """

    seconds: float
    threads: str = ""
    batches: str = ""
    loads: str = ""
    n_shapes: int = 0


@dataclass(frozen=True)
class Earlier:
    """An earlier report to compare with, and the limits of what may have been lost since."""

    report: Path | None = None
    max_slowdown: float | None = None
    max_metric_drop: float | None = None


def bench(
    folders: Sequence[str],
    pairs: LabelledFile | None,
    output: OutputPlace,
    *,
    measurement: FolderMeasurement,
    earlier: Earlier,
    as_json: bool,
) -> None:
    """Measure model folders in turns, print the report, and compare it with an earlier one."""
    if pairs is None:
        files = [folder for folder in folders if Path(folder).is_file()]
        meant = f"; {files[0]} is a file: give it as --pairs {files[0]}" if files else ""
        raise BadInput(f"--pairs is missing: model folders are measured on labelled pairs of yours{meant}")
    limits = {"max_slowdown": earlier.max_slowdown, "max_metric_drop": earlier.max_metric_drop}
    if earlier.report is None and set(limits.values()) != {None}:
        raise BadInput("--max-slowdown and --max-metric-drop compare with an earlier report; name it with --against")
    low, high = read_label_range(pairs.label_range)
    load, counts = _load_settings(measurement), counts_in("--threads", measurement.threads)
    inputs: list[str | Path] = [*folders, pairs.source, *([] if earlier.report is None else [earlier.report])]

    def check() -> None:
        check_output_folder(output.path, inputs=inputs, ours=["benchmark.json"], overwrite=output.overwrite)

    check()
    models = [Path(folder) for folder in folders]
    folder_names(models)  # refuses a folder that is given twice
    check_local_scorers(models)
    file_pairs = read_pairs(pairs.source, pairs.columns, label_range=(low, high), option_names=pairs.option_names)
    if earlier.report is not None:
        check_earlier(earlier.report, models, file_pairs)
    say_loading()
    from distill.evaluation.compare_folders import FolderMeasuring, bench_folders  # takes seconds: checks come before

    result = bench_folders(
        models,
        file_pairs,
        output.path,
        measuring=FolderMeasuring(Benchmark(seconds=measurement.seconds), load, counts),
        source=pairs.source,
        before_writing=check,  # minutes later another process may have written there
    )
    print_benchmark(result, as_json=as_json)
    print(f"report: {output.path / 'index.html'}", file=sys.stderr)
    if earlier.report is not None:
        for row in check_against(result, earlier.report, **limits):
            print(comparison_line(row), file=sys.stderr)


def _load_settings(measurement: FolderMeasurement) -> LoadSettings:
    rates = tuple(numbers_in("--loads", measurement.loads, float))
    if any(not 0 < share < 2 for share in rates):
        raise BadInput(f"--loads {measurement.loads}: shares of the capacity are expected, as 0.25,0.5,0.9")
    return LoadSettings(
        tuple(counts_in("--batches", measurement.batches)), rates, measurement.n_shapes, measurement.seconds
    )


def _read_data_without_notes(run: "Run") -> None:
    """Read a run's data; the notes on it are not logged, because the doctor prints them among its findings."""
    held: list[logging.LogRecord] = []
    data_log, notes = logging.getLogger("distill.data.pairs"), set[str]()

    def hold(record: logging.LogRecord) -> bool:
        held.append(record)
        return False

    data_log.addFilter(hold)
    try:
        run.read_data()
        notes = {note for stage in run.stages for note in stage.split.notes}
    finally:
        data_log.removeFilter(hold)
        for record in held:
            if record.getMessage() not in notes:
                data_log.handle(record)


def examine(recipe: Recipe, n_pairs: int, output: OutputPlace | None, *, as_json: bool) -> None:
    """Print the doctor's findings on a recipe.

    :raises JobFailed: if there is a problem
    """
    from distill.run import Run

    if output is not None:
        check_output_folder(output.path, ours=["doctor.json"], overwrite=output.overwrite)
    run = Run(recipe)
    run.check_files()
    _read_data_without_notes(run)
    join_processes()
    from teachers.doctor import diagnose, write_diagnosis  # takes seconds: wrong pairs are refused before

    diagnosis = diagnose(run, n_pairs=n_pairs)
    if output is not None:
        write_diagnosis(diagnosis, output.path, overwrite=output.overwrite)
    if as_json:
        print(json.dumps(diagnosis.to_json(), ensure_ascii=False, indent=2))
    else:
        for finding in diagnosis.findings:
            print(f"{finding.level:8} {finding.check}: {finding.line}")
        counts = Counter(finding.level for finding in diagnosis.findings)
        print(", ".join(counted(counts[level], level) for level in SEVERITIES))
    if diagnosis.n_problems:
        raise JobFailed(
            f"{counted(diagnosis.n_problems, 'problem')}: a student would learn nothing, or the wrong thing"
        )


@dataclass(frozen=True)
class Boards:
    """What models are evaluated on: tasks of MTEB, and recipes whose evaluation pairs are a task."""

    tasks: Sequence[str] = ()
    recipes: Sequence[str] = ()


def evaluate_models(
    models: Sequence[Path],
    boards: Boards,
    output: Path,
    *,
    opening: OpeningOptions,
    card: bool,
    as_json: bool,
) -> None:
    """Print the main score of models on tasks of MTEB and on the evaluation pairs of recipes.

    :param card: also store the scores beside each model and in its card
    :raises BadInput: for a model, task or recipe that does not exist
    """
    arguments = opening.arguments()
    if not boards.tasks and not boards.recipes:
        raise BadInput(
            "nothing to evaluate on: name --tasks, such as KorSTS, or --recipe with labelled evaluation pairs"
        )
    logging.getLogger("mteb").setLevel(logging.WARNING)
    from distill.evaluation.boards import check_folder, evaluate_on_boards, models_at, recipe_task, tasks_named
    from distill.recipe.reading import load_recipe
    from distill.report.board_scores import check_board_places, store_board_scores

    folders = models_at(models)
    for folder in folders.values() if card else ():
        check_board_places(folder)
    recipes = [load_recipe(recipe) for recipe in dict.fromkeys(boards.recipes)]
    if output.exists():  # else it is made once the tasks are known
        check_folder(output)
    say_loading()
    tasks = [*tasks_named(list(dict.fromkeys(boards.tasks))), *map(recipe_task, recipes)]  # takes seconds
    scores_by_model = evaluate_on_boards(folders, tasks, output, **arguments)
    without_card = [
        name for name, scores in scores_by_model.items() if card and not store_board_scores(folders[name], scores)
    ]
    if without_card:
        print(
            f"no card (README.md) beside {', '.join(without_card)}: the scores are in boards.json alone",
            file=sys.stderr,
        )
    if as_json:
        rows = [{**asdict(score), "model": name} for name, scores in scores_by_model.items() for score in scores]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    width = max(map(len, scores_by_model))
    for name, scores in scores_by_model.items():
        for score in scores:
            print(f"{name:{width}}  {score.score:7.4f}  {score.task} ({score.metric})")
    print(f"results: {output}", file=sys.stderr)


def verify_folder(folder: Path, *, as_json: bool) -> None:
    """Print for every artefact, signal cache and report below a folder whether it is unchanged since it was made.

    :raises JobFailed: if one is not
    """
    from distill.verify import verify  # needs pyarrow, which a serving installation lacks

    verdicts = verify(folder, show=True)
    if as_json:
        print(json.dumps([asdict(verdict) for verdict in verdicts], ensure_ascii=False, indent=2))
    else:
        width = max(len(verdict.place) for verdict in verdicts)
        for verdict in verdicts:  # cards may come from anybody: no control characters, one line each
            print(printable(f"{verdict.state:7} {verdict.place:{width}} {verdict.line}"))
    broken = {verdict.place for verdict in verdicts if verdict.state == "broken"}
    if broken:
        raise JobFailed(
            f"{counted(len(broken), 'place')} of {folder} {'is' if len(broken) == 1 else 'are'} not what was made"
        )


def tune_model(model: Path, opening: OpeningOptions, *, seconds: float, as_json: bool) -> None:
    """Measure how a graph runs fastest here and which export of its student is fastest, store both, and print them."""
    from distill.runtime.settings import settings_key, settings_path
    from distill.runtime.tuning import alone, compare_precisions, stored_files, tune

    if opening.precision == "auto":
        raise BadInput("--precision auto: tune measures what auto takes later; leave it out, or name fp32 or bf16")
    options, threads = opening.arguments(), opening.n_threads or usable_cpus()
    result: dict[str, Any] = {}
    is_model = (model / "modules.json").is_file() or not model.is_dir()
    with loading(str(model)):
        if is_model:
            files = read_model_files(model)
            runtime = options["runtime"] or files.held_runtime
            settings, measured = tune(files, runtime, options["precision"], threads, seconds=seconds)
            stored_at = settings_path(files, settings_key(files, runtime, options["precision"], threads))
            result |= {"settings": asdict(settings), "measured": measured, "stored_in": [str(stored_at)]}
        found_exports = exports_at(model)
        if (
            is_model
            and runtime == "openvino"
            and multiplies_bf16()
            and (found_exports is None or not found_exports.exports)
        ):
            found_exports = alone(files, runtime, threads)  # fp32 beside bf16
        if found_exports is not None and (len(found_exports.exports) > 1 or not is_model or multiplies_bf16()):
            speeds = compare_precisions(found_exports, threads, seconds=seconds)
            best, why = fastest_measured(
                [export for export in found_exports.exports if export.runtime != "numpy"], speeds, None
            )
            result |= {
                "precisions": [asdict(speed) for speed in speeds],
                "fastest": best.folder.name,
                "why": why,
                "left_out": list(found_exports.left_out),
            }
            stored = [*result.get("stored_in", []), *map(str, stored_files(found_exports, threads))]
            result["stored_in"] = list(dict.fromkeys(stored))
    if as_json:
        print(json.dumps(result, ensure_ascii=False, indent=2))
        return
    print_tuned(result)
