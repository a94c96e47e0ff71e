"""Use finished models from the command line: score pairs, embed texts, compare, tune and verify folders."""

import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import Asked, PairReader, Pairs, batched, read_pairs
from distill.data.table_writing import check_form, check_suffix, table_writer
from distill.data.tables import read_texts
from distill.data.text_blocks import TextReader
from distill.diagnosis.findings import SEVERITIES
from distill.errors import BadInput, JobFailed, loading
from distill.evaluation.index_quality import index_quality, table_cells
from distill.evaluation.latency import LoadSettings
from distill.files.artefact import content_files, revision, versions
from distill.files.growing import growing_array, take_file
from distill.files.hashing import texts_digest
from distill.files.outputs import check_output_file, check_output_folder, output_file
from distill.machine.cpu import cpu_class, multiplies_bf16, usable_cpus
from distill.models.files import read_model_files
from distill.progress import byte_progress, progress, reaching
from distill.recipe.schema import Benchmark, Recipe
from distill.runtime.fastest import exports_at, fastest_measured
from distill.runtime.opening import load
from distill.runtime.scorer import Scorer
from distill.scorers.cascade import compares_documents
from distill.scorers.opening import open_scorer, result_columns, scorer_folders
from distill.scorers.scoring import PairScorer
from distill.wording import counted, printable
from recipes._launch import join_processes
from recipes.options import (
    Embedding,
    LabelledFile,
    OpeningOptions,
    OutputPlace,
    PairFile,
    Scoring,
    TextFile,
    counts_in,
    numbers_in,
    read_label_range,
)
from recipes.printing import comparison_line, print_benchmark, print_table, print_tuned

__all__ = [
    "Boards",
    "Earlier",
    "FolderMeasurement",
    "IndexSearch",
    "bench",
    "embed_file",
    "evaluate_models",
    "examine",
    "print_index_quality",
    "score_file",
    "tune_model",
    "verify_folder",
]

_ROWS_AT_ONCE = 10_000  # of long résumés some 200 MB
_SLOW_ROWS_AT_ONCE = 1_000


def score_file(model: Path, pairs: PairFile, output: OutputPlace, *, scoring: Scoring, opening: OpeningOptions) -> None:
    """Score the pairs of a file into a table: row (of the input, from 1), score (cosine or logit), unit_score (in [0, 1]).

    The suffix of the output decides the table's form (:mod:`distill.data.table_writing`). A row that is left out leaves a gap
    in the numbers. Of any number of pairs one block is in memory, except where a cascade asks about the best documents of a
    query: that takes all pairs at once. What was scored of several blocks when the command was killed is not scored again.
    """
    arguments, other_side = opening.arguments(), scoring.other_side
    check_form(output.path)
    inputs: list[str | Path] = [model, pairs.source, *([] if other_side is None else [other_side])]
    check_output_file(output.path, inputs=inputs, overwrite=output.overwrite)
    asked = Asked(columns="--query-column or --document-column", skip="--skip-bad-rows")
    read = PairReader(
        pairs.source, pairs.columns, skip_bad_rows=pairs.skip_bad_rows, labelled=False, asked=asked
    ).checked()
    scorer = open_scorer(
        model,
        other_side=other_side,
        allow_hosts=scoring.allow_hosts,
        key_variable=scoring.key_variable,
        **arguments,
    )
    columns = result_columns(model, scorer, calibrated=scoring.calibrated, decide=scoring.decide)
    at_once = _is_done_at_once(len(read), scorer)
    folders = [*_folders_of(model, scorer), *([] if other_side is None else [other_side])]

    def made_from() -> dict[str, str]:
        return {"the pairs": texts_digest(read.digests), **_decided_by(scorer, folders, opening)}

    with (
        growing_array(output.path, made_from, keep=not at_once) as stored,
        output_file(output.path, inputs=inputs, overwrite=output.overwrite) as temporary,
        table_writer(temporary, {"row": int} | {name: kind for name, (kind, _) in columns.items()}) as write,
        progress("scoring", len(read), start=stored.n_found, show=not at_once) as report,
        scorer.remembering() if isinstance(scorer, Scorer) and not at_once else nullcontext(),
    ):

        def score(part: Pairs) -> np.ndarray:
            with reaching(report, len(part)) as count:
                return scorer.score(part.queries, part.documents, progress=True if at_once else count)

        for block, rows in [read.whole()] if at_once else read.blocks():
            if not rows:  # none of them can be used
                continue
            size = len(block) if at_once else _rows_at_once(scorer)
            parts = [block.select(part) for part in batched(range(len(block)), size)] if size < len(block) else [block]
            scores = np.concatenate([stored.next(len(part), partial(score, part)) for part in parts])
            results = [told(scores).tolist() for _, told in columns.values()]
            for row, *values in zip(rows, *results, strict=True):
                write([row + 1, *values])
    print(f"{counted(len(read), 'pair')} → {output.path}  ({scorer!r})", file=sys.stderr)


def embed_file(
    model: Path, texts: TextFile, output: OutputPlace, *, embedding: Embedding, opening: OpeningOptions
) -> None:
    """Embed the texts of a file into a .npy of float32 (n_texts, width).

    Of any number of texts one block is in memory, and what was embedded when the command was killed is not embedded again.
    """
    arguments = opening.arguments()
    check_suffix(output.path, ".npy", "an array of embeddings")
    inputs: list[str | Path] = [model, texts.source]
    check_output_file(output.path, inputs=inputs, overwrite=output.overwrite)
    read = TextReader(texts.source, texts.column).checked()
    scorer = load(model, truncate=embedding.truncate, **arguments)
    at_once = _is_done_at_once(len(read), scorer)
    width = scorer.embedding_width
    header = _npy_header((len(read), width))

    def made_from() -> dict[str, str]:
        asked = {f"--{name}": repr(value) for name, value in asdict(embedding).items()}
        return {"the texts": texts_digest(read.digests), **asked, **_decided_by(scorer, [scorer.path], opening)}

    with (
        growing_array(output.path, made_from, keep=not at_once, width=width, dtype=np.float32, header=header) as stored,
        output_file(output.path, inputs=inputs, overwrite=output.overwrite) as temporary,
        progress("embedding", len(read), start=stored.n_found, show=not at_once) as report,
    ):

        def embed(block: Sequence[str]) -> np.ndarray:
            with reaching(report, len(block)) as count:
                return scorer.encode(block, progress=True if at_once else count, prompt_name=embedding.prompt)

        vectors = (stored.next(len(block), partial(embed, block)) for block in read.blocks())
        if stored.path is None:
            with temporary.open("wb") as file:
                file.write(header)
                for block in vectors:
                    file.write(block.tobytes())
        else:
            for _ in vectors:
                pass
            take_file(stored.path, temporary)
    print(f"{counted(len(read), 'text')} → {output.path}  ({scorer!r})", file=sys.stderr)


def _rows_at_once(scorer: PairScorer) -> int:
    """Return how many rows a killed command computes again at most: a cross-encoder may score three pairs a second."""
    return _ROWS_AT_ONCE if scorer.kind == "bi_encoder" else _SLOW_ROWS_AT_ONCE


def _is_done_at_once(n_rows: int, scorer: PairScorer) -> bool:
    """Tell whether all rows are computed in one go, and none is stored until all are there."""
    return n_rows <= _rows_at_once(scorer) or compares_documents(scorer)


def _npy_header(shape: tuple[int, int]) -> bytes:
    """Return what stands before the numbers of a .npy of float32."""
    header = BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def _decided_by(scorer: PairScorer, folders: Sequence[Path], opening: OpeningOptions) -> dict[str, str]:
    """Return what decides a model's numbers, under names that a message can use: its files, how it runs, and on what."""
    asked = {
        f"--{name.replace('_', '-')}": repr(value) for name, value in asdict(opening).items() if name != "n_threads"
    }
    n_bytes = sum(path.stat().st_size for folder in folders for path in content_files(folder))
    with byte_progress("reading the model's files", n_bytes) as on_bytes:
        revisions = [revision(folder, on_bytes) for folder in folders]
    return {
        "the model": " ".join(revisions),
        **asked,
        "what runs": f"{scorer.runtime} {scorer.precision} {scorer.max_length} {getattr(scorer, 'device', None)}",
        "the CPU": cpu_class(),
        **versions(),
    }


def _folders_of(model: Path, scorer: PairScorer) -> list[Path]:
    return [scorer.path] if isinstance(scorer, Scorer) else scorer_folders(model)


@dataclass(frozen=True)
class IndexSearch:
    """What is searched in forms of an index.

    :param widths: smaller widths to measure as well, with commas between
    :param corpus: more documents than those of the pairs
    """

    widths: str
    corpus: TextFile | None
    max_queries: int


def print_index_quality(
    model: Path, pairs: LabelledFile, search: IndexSearch, *, opening: OpeningOptions, as_json: bool
) -> None:
    """Print what each form of a search index keeps, as a table or JSON."""
    low, high = read_label_range(pairs.label_range)
    widths = numbers_in("--truncate", search.widths, int) if search.widths else []
    read = read_pairs(
        pairs.source,
        pairs.columns,
        label_range=(low, high),
        labelled=pairs.label_column is not None,
        asked=pairs.asked,
    )
    more = [] if search.corpus is None else read_texts(search.corpus.source, search.corpus.column, gaps=True)
    scorer = load(model, **opening.arguments())
    result = index_quality(scorer, read, more, widths=widths, max_queries=search.max_queries, progress=True)
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
    """How model folders are measured; lists of numbers have commas between, an empty one asks for nothing of its kind.

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
    """An earlier report to compare with, and the most that may have been lost since."""

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
    """Measure model folders side by side, print the report, and hold it against an earlier one."""
    from distill.evaluation.compare_folders import (  # seconds of imports, which score does without
        FolderMeasuring,
        bench_folders,
        check_against,
        check_earlier,
    )

    if pairs is None:
        raise BadInput("--pairs is missing: model folders are measured on labelled pairs of yours")
    limits = {"max_slowdown": earlier.max_slowdown, "max_metric_drop": earlier.max_metric_drop}
    if earlier.report is None and set(limits.values()) != {None}:
        raise BadInput("--max-slowdown and --max-metric-drop compare with an earlier report; name it with --against")
    low, high = read_label_range(pairs.label_range)
    load, counts = _load_settings(measurement), counts_in("--threads", measurement.threads)
    inputs: list[str | Path] = [*folders, pairs.source, *([] if earlier.report is None else [earlier.report])]

    def check() -> None:
        check_output_folder(output.path, inputs=inputs, ours=["benchmark.json"], overwrite=output.overwrite)

    check()
    if earlier.report is not None:
        check_earlier(earlier.report, [Path(folder) for folder in folders])
    result = bench_folders(
        [Path(folder) for folder in folders],
        read_pairs(pairs.source, pairs.columns, label_range=(low, high), asked=pairs.asked),
        output.path,
        measuring=FolderMeasuring(Benchmark(seconds=measurement.seconds), load, counts),
        source=pairs.source,
        before_writing=check,  # minutes later another process may have written there
    )
    print_benchmark(result, output.path, as_json=as_json)
    if earlier.report is not None:
        for row in check_against(result, earlier.report, **limits):
            print(comparison_line(row), file=sys.stderr)


def _load_settings(asked: FolderMeasurement) -> LoadSettings:
    rates = tuple(numbers_in("--loads", asked.loads, float))
    if any(not 0 < share < 2 for share in rates):
        raise BadInput(f"--loads {asked.loads}: shares of the capacity are expected, as 0.25,0.5,0.9")
    return LoadSettings(tuple(counts_in("--batches", asked.batches)), rates, asked.n_shapes, asked.seconds)


def examine(recipe: Recipe, n_pairs: int, output: OutputPlace | None, *, as_json: bool) -> None:
    """Print what keeps a student of this recipe from learning, and what may cost it quality.

    :raises JobFailed: where there is a problem
    """
    from distill.run import Run
    from teachers.doctor import diagnose, write_diagnosis

    if output is not None:
        check_output_folder(output.path, ours=["doctor.json"], overwrite=output.overwrite)
    join_processes()
    diagnosis = diagnose(Run(recipe), n_pairs=n_pairs)
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

    :param card: store the scores beside each model and in its card, too
    :raises BadInput: for a model, task or recipe that there is not
    """
    arguments = opening.arguments()
    if not boards.tasks and not boards.recipes:
        raise BadInput(
            "nothing to evaluate on: name --tasks, such as KorSTS, or --recipe with labelled evaluation pairs"
        )
    logging.getLogger("mteb").setLevel(logging.WARNING)
    from distill.evaluation.boards import evaluate_on_boards, models_at, recipe_task, tasks_named
    from distill.recipe.reading import load_recipe
    from distill.report.board_scores import check_board_places, store_board_scores

    named = models_at(models)
    for folder in named.values() if card else ():
        check_board_places(folder)
    asked = [
        *tasks_named(list(dict.fromkeys(boards.tasks))),
        *(recipe_task(load_recipe(recipe)) for recipe in dict.fromkeys(boards.recipes)),
    ]
    found = evaluate_on_boards(named, asked, output, **arguments)
    bare = [name for name, scores in found.items() if card and not store_board_scores(named[name], scores)]
    if bare:
        print(f"no card (README.md) beside {', '.join(bare)}: the scores are in boards.json alone", file=sys.stderr)
    if as_json:
        rows = [{**asdict(score), "model": name} for name, scores in found.items() for score in scores]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    width = max(map(len, found))
    for name, scores in found.items():
        for score in scores:
            print(f"{name:{width}}  {score.score:7.4f}  {score.task} ({score.metric})")
    print(f"results: {output}", file=sys.stderr)


def verify_folder(folder: Path, *, as_json: bool) -> None:
    """Print of every artefact, cached signal and report below a folder whether it is what was made.

    :raises JobFailed: where one is not
    """
    from distill.verify import verify  # with pyarrow, which an installation for serving has not

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
    from distill.runtime.tuning import alone, compare_precisions, tune

    if opening.precision == "auto":
        raise BadInput("--precision auto: tune measures what auto takes later; leave it out, or name fp32 or bf16")
    options, threads = opening.arguments(), opening.n_threads or usable_cpus()
    result: dict[str, Any] = {}
    is_model = (model / "modules.json").is_file() or not model.is_dir()
    with loading(str(model)):
        if is_model:
            files = read_model_files(model)
            chosen = options["runtime"] or files.held_runtime
            settings, measured = tune(files, chosen, options["precision"], threads, seconds=seconds)
            result |= {"settings": asdict(settings), "measured": measured}
        found = exports_at(model)
        if is_model and chosen == "openvino" and multiplies_bf16() and (found is None or not found.exports):
            found = alone(files, chosen, threads)  # fp32 beside bf16
        if found is not None and (len(found.exports) > 1 or not is_model or multiplies_bf16()):
            speeds = compare_precisions(found, threads, seconds=seconds)
            best, why = fastest_measured([one for one in found.exports if one.runtime != "numpy"], speeds, None)
            result |= {
                "precisions": [asdict(speed) for speed in speeds],
                "fastest": best.folder.name,
                "why": why,
                "left_out": list(found.left_out),
            }
    if as_json:
        print(json.dumps(result, ensure_ascii=False, indent=2))
        return
    print_tuned(result)
