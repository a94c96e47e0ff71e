"""Use a finished model from the command line: score pairs, embed texts, print what a run found."""

import csv
import json
import logging
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import Asked, batched, read_pairs, read_pairs_with_rows
from distill.data.table_writing import check_form, check_suffix, table_writer
from distill.data.tables import read_texts
from distill.diagnosis.findings import SEVERITIES
from distill.errors import BadInput, GateFailed, JobFailed, loading
from distill.evaluation.index_quality import index_quality, table_cells
from distill.evaluation.latency import LoadSettings
from distill.files.outputs import check_output_folder, output_file
from distill.machine.cpu import multiplies_bf16, usable_cpus
from distill.models.files import read_model_files
from distill.ray.cluster import Actors
from distill.recipe.schema import Benchmark, Columns, Recipe
from distill.runtime.fastest import exports_at, fastest_measured
from distill.runtime.opening import load
from distill.scorers.opening import open_scorer, result_columns
from distill.verify import verify
from distill.wording import counted, printable
from recipes._launch import join_processes

__all__ = [
    "RayOptions",
    "bench",
    "embed_file",
    "evaluate_models",
    "examine",
    "names_in",
    "one_of",
    "opening_options",
    "print_ablation",
    "print_check",
    "print_dial",
    "print_index_quality",
    "print_parity",
    "print_plan",
    "print_report",
    "print_trim",
    "ray_options",
    "read_label_range",
    "read_texts",
    "score_file",
    "tune_model",
    "verify_folder",
]

_ROWS_AT_ONCE = 50_000
_WIDEST = 10_000  # of a table, in characters
_LARGEST = 1e12  # of a number on the command line; what is larger, or no number, is a slip
_COLUMNS = "--query-column or --document-column"
_LABELLED = Asked(columns="--query-column, --document-column or --label-column", skip=None, label_range="--label-range")
_RUNTIMES, _PRECISIONS = ("torch", "openvino", "onnx", "numpy"), ("fp32", "bf16", "auto")


def one_of(option: str, value: str, accepted: Sequence[str]) -> Any:
    """Return the value of an option.

    :raises BadInput: where it is none of those that are accepted
    """
    if value not in accepted:
        raise BadInput(f"{option} {value}: one of {', '.join(accepted)} is accepted")
    return value


def opening_options(
    runtime: str | None, precision: str | None, n_threads: int | None, max_length: int | None
) -> dict[str, Any]:
    """Return how a model is opened, as `load` takes it.

    :raises BadInput: on a runtime or precision that there is not
    """
    if runtime is not None:
        one_of("--runtime", runtime, _RUNTIMES)
    if precision is not None and precision not in _PRECISIONS:
        raise BadInput(
            f"--precision {precision}: one of {', '.join(_PRECISIONS)} is accepted; int8 comes with an int8 export"
        )
    return {"runtime": runtime, "precision": precision, "n_threads": n_threads, "max_length": max_length}


@dataclass(frozen=True)
class RayOptions:
    """How a command runs on Ray.

    :param keep: columns of the input that stand beside the result; None keeps the texts
    """

    actors: Actors
    keep: tuple[str, ...] | None = None
    shard_rows: int = 8192


def ray_options(engine: str | None, given: Mapping[str, Any]) -> RayOptions | None:
    """Return the options of Ray; None where it is not the engine.

    :param given: the values of `--actors`, `--actor-cpus`, `--actor-gpus`, `--ray-address`, and perhaps of `--keep` and
        `--shard-rows`, None where an option was not given
    :raises BadInput: for another engine, and for one of these options without it
    """
    stated = {name: value for name, value in given.items() if value is not None}
    if engine is None:
        if stated:
            option = f"--{next(iter(stated)).replace('_', '-')}"
            raise BadInput(f"{option} is of a Ray cluster; add --engine ray, or leave it out")
        return None
    one_of("--engine", engine, ("ray",))
    names = {"actors": "n", "actor_cpus": "cpus", "actor_gpus": "gpus", "ray_address": "address"}
    actors = Actors(**{names[name]: value for name, value in stated.items() if name in names})
    options = RayOptions(actors, shard_rows=stated.get("shard_rows", RayOptions.shard_rows))
    return replace(options, keep=tuple(names_in(stated["keep"])) if "keep" in stated else None)


def score_file(
    model: Path,
    source: str,
    output: Path,
    *,
    query_column: str,
    document_column: str,
    other_side: Path | None = None,
    runtime: str | None = None,
    precision: str | None = None,
    n_threads: int | None = None,
    max_length: int | None = None,
    special_tokens_as_text: bool = False,
    allow_hosts: Sequence[str] = (),
    key_variable: str | None = None,
    calibrated: bool = False,
    decide: bool = False,
    skip_bad_rows: bool = False,
    overwrite: bool = False,
) -> None:
    """Score the pairs of a file into a table: row (of the input, from 1), score (cosine or logit), unit_score (in [0, 1]).

    :param calibrated: write the column probability, too, by the calibration that the model's folder carries
    :param decide: write the column match, 1 where the score reaches the folder's threshold, else 0

    The suffix of the output decides the table's form (:mod:`distill.data.table_writing`). A row that is left out leaves a gap
    in the numbers.
    """
    options = opening_options(runtime, precision, n_threads, max_length)
    check_form(output)
    inputs: list[str | Path] = [model, source, *([] if other_side is None else [other_side])]
    with output_file(output, inputs=inputs, overwrite=overwrite) as temporary:
        pairs, rows = read_pairs_with_rows(
            source,
            Columns(query=query_column, document=document_column),
            labelled=False,
            skip_bad_rows=skip_bad_rows,
            asked=Asked(columns=_COLUMNS, skip="--skip-bad-rows"),
        )
        scorer = open_scorer(
            model,
            other_side=other_side,
            special_tokens_as_text=special_tokens_as_text,
            allow_hosts=allow_hosts,
            key_variable=key_variable,
            **options,
        )
        columns = result_columns(model, scorer, calibrated=calibrated, decide=decide)
        scores = scorer.score(pairs.queries, pairs.documents, progress=True)
        results = [told(scores).tolist() for _, told in columns.values()]
        with table_writer(temporary, {"row": int} | {name: kind for name, (kind, _) in columns.items()}) as write:
            for row, *values in zip(rows, *results, strict=True):
                write([row + 1, *values])
    print(f"{counted(len(scores), 'pair')} → {output}  ({scorer!r})", file=sys.stderr)


def embed_file(
    model: Path,
    source: str,
    output: Path,
    *,
    column: str,
    prompt: str | None = None,
    runtime: str | None = None,
    precision: str | None = None,
    n_threads: int | None = None,
    max_length: int | None = None,
    truncate: int | None = None,
    special_tokens_as_text: bool = False,
    overwrite: bool = False,
) -> None:
    """Embed the lines of a .txt file, or a column of a table, into a .npy of float32 (n_texts, width)."""
    options = opening_options(runtime, precision, n_threads, max_length)
    check_suffix(output, ".npy", "an array of embeddings")
    with output_file(output, inputs=[model, source], overwrite=overwrite) as temporary:
        texts = read_texts(source, column)
        scorer = load(model, truncate=truncate, special_tokens_as_text=special_tokens_as_text, **options)
        with temporary.open("wb") as file:
            width = scorer.embedding_width
            header = {
                "descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)),
                "fortran_order": False,
                "shape": (len(texts), width),
            }
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in batched(texts, _ROWS_AT_ONCE):  # written as it goes: any number of texts in bounded memory
                file.write(
                    np.ascontiguousarray(
                        scorer.encode(chunk, progress=True, prompt_name=prompt), dtype=np.float32
                    ).tobytes()
                )
    print(f"{counted(len(texts), 'text')} → {output}  ({scorer!r})", file=sys.stderr)


def print_index_quality(
    model: Path,
    source: str,
    *,
    columns: tuple[str, str, str | None],
    label_range: str,
    truncate: str,
    corpus: str | None,
    column: str,
    max_queries: int,
    runtime: str | None,
    precision: str | None,
    n_threads: int | None,
    max_length: int | None,
    as_json: bool,
) -> None:
    """Print what each form of a search index keeps, as a table or JSON."""
    query, document, label = columns
    named = Columns(query=query, document=document, label=label or "label")
    low, high = read_label_range(label_range)
    widths = _numbers("--truncate", truncate, int) if truncate else []
    pairs = read_pairs(source, named, label_range=(low, high), labelled=label is not None, asked=_LABELLED)
    more = [] if corpus is None else read_texts(corpus, column, gaps=True)
    scorer = load(model, **opening_options(runtime, precision, n_threads, max_length))
    result = index_quality(scorer, pairs, more, widths=widths, max_queries=max_queries, progress=True)
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
    _print_table(columns_shown, [table_cells(row, result["n_documents"]) for row in result["rows"]])
    print(f"{counted(result['n_queries'], 'query')}, {counted(result['n_documents'], 'document')}, {scorer!r}")


def bench(
    folders: Sequence[str],
    pairs: str | None,
    output: Path,
    *,
    columns: tuple[str, str, str],
    label_range: str,
    seconds: float,
    threads: str,
    batches: str,
    loads: str,
    n_shapes: int,
    against: Path | None,
    max_slowdown: float | None,
    max_metric_drop: float | None,
    as_json: bool,
    overwrite: bool = False,
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
    if against is None and (max_slowdown, max_metric_drop) != (None, None):
        raise BadInput("--max-slowdown and --max-metric-drop compare with an earlier report; name it with --against")
    low, high = read_label_range(label_range)
    load, counts = _load_settings(batches, loads, n_shapes, seconds), _counts("--threads", threads)
    inputs: list[str | Path] = [*folders, pairs, *([] if against is None else [against])]

    def check() -> None:
        check_output_folder(output, inputs=inputs, ours=["benchmark.json"], overwrite=overwrite)

    check()
    if against is not None:
        check_earlier(against, [Path(folder) for folder in folders])
    query, document, label = columns
    read = read_pairs(
        pairs, Columns(query=query, document=document, label=label), label_range=(low, high), asked=_LABELLED
    )
    result = bench_folders(
        [Path(folder) for folder in folders],
        read,
        output,
        measuring=FolderMeasuring(Benchmark(seconds=seconds), load, counts),
        source=pairs,
        before_writing=check,  # minutes later another process may have written there
    )
    _print_benchmark(result, output, as_json=as_json)
    if against is not None:
        for row in check_against(result, against, max_slowdown=max_slowdown, max_metric_drop=max_metric_drop):
            print(_comparison_line(row), file=sys.stderr)


def _load_settings(batches: str, loads: str, n_shapes: int, seconds: float) -> LoadSettings:
    rates = tuple(_numbers("--loads", loads, float))
    if any(not 0 < share < 2 for share in rates):
        raise BadInput(f"--loads {loads}: shares of the capacity are expected, as 0.25,0.5,0.9")
    return LoadSettings(tuple(_counts("--batches", batches)), rates, n_shapes, seconds)


def _counts(option: str, given: str) -> list[int]:
    counts = [int(n) for n in _numbers(option, given, int)]
    if min([*counts, 1]) < 1:
        raise BadInput(f"{option} {given}: numbers from 1 are expected")
    return counts


def _comparison_line(row: Mapping[str, Any]) -> str:
    ratios = ", ".join(
        f"{what} × {ratio['value']:.3f} ({ratio['low']:.3f}–{ratio['high']:.3f})"
        for what, ratio in row["slowdown"].items()
    )
    return f"{row['name']}: slowdown {ratios}; metric drop {row['metric_drop']}"


def examine(recipe: Recipe, n_pairs: int, output: Path | None, *, overwrite: bool, as_json: bool) -> None:
    """Print what keeps a student of this recipe from learning, and what may cost it quality.

    :raises JobFailed: where there is a problem
    """
    from distill.run import Run
    from teachers.doctor import diagnose, write_diagnosis

    if output is not None:
        check_output_folder(output, ours=["doctor.json"], overwrite=overwrite)
    join_processes()
    diagnosis = diagnose(Run(recipe), n_pairs=n_pairs)
    if output is not None:
        write_diagnosis(diagnosis, output, overwrite=overwrite)
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


def evaluate_models(
    models: Sequence[Path],
    tasks: Sequence[str],
    recipes: Sequence[str],
    output: Path,
    options: Mapping[str, Any],
    *,
    card: bool,
    as_json: bool,
) -> None:
    """Print the main score of models on tasks of MTEB and on the evaluation pairs of recipes.

    :param card: store the scores beside each model and in its card, too
    :raises BadInput: for a model, task or recipe that there is not
    """
    if not tasks and not recipes:
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
        *tasks_named(list(dict.fromkeys(tasks))),
        *(recipe_task(load_recipe(recipe)) for recipe in dict.fromkeys(recipes)),
    ]
    found = evaluate_on_boards(named, asked, output, **options)
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


def read_label_range(text: str) -> tuple[float, float]:
    """Read the least and the greatest label, a comma between.

    :raises BadInput: on anything else
    """
    low, high = _numbers("--label-range", text, float, n=2)
    if not low < high:
        raise BadInput(f"--label-range {text}: the lower end comes first, as 0,5")
    return low, high


def _numbers(option: str, text: str, form: type[int] | type[float], n: int | None = None) -> list[Any]:
    try:
        values = [form(part) for part in text.split(",") if part.strip()]
    except ValueError:
        values = None
    if values is None or any(not abs(value) < _LARGEST for value in values) or (n is not None and len(values) != n):
        raise BadInput(
            f"{option} {text}: {'numbers' if n is None else f'{n} numbers'} with commas between are expected"
        )
    return values


def tune_model(
    model: Path, *, runtime: str | None, precision: str | None, n_threads: int | None, seconds: float, as_json: bool
) -> None:
    """Measure how a graph runs fastest here and which export of its student is fastest, store both, and print them."""
    from distill.runtime.tuning import alone, compare_precisions, tune

    if precision == "auto":
        raise BadInput("--precision auto: tune measures what auto takes later; leave it out, or name fp32 or bf16")
    options, threads = opening_options(runtime, precision, None, None), n_threads or usable_cpus()
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
    _print_tuned(result)


def _print_tuned(result: Mapping[str, Any]) -> None:
    if "settings" in result:
        columns = ("measured", *result["settings"], "tokens/s")
        _print_table(columns, [[_cell(value) for value in row.values()] for row in result["measured"]])
        print("stored: " + ", ".join(f"{name} {_cell(value)}" for name, value in result["settings"].items()))
    if "precisions" in result:
        rows = [
            [
                speed["folder"],
                speed["precision"],
                f"{speed['tokens_per_s']:.0f}",
                f"{speed['p50_ms']:.2f}",
                "fastest"
                if speed["judged"] and speed["folder"] == result["fastest"]
                else ""
                if speed["judged"]
                else "no gate",
            ]
            for speed in result["precisions"]
        ]
        _print_table(("export", "precision", "tokens/s", "p50 ms", ""), rows)
        for line in result["left_out"]:
            print(f"left out {line}")
        print(f'fastest of both together: {result["fastest"]}; precision="auto" opens it on this machine')


def _cell(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def print_report(folder: Path, *, as_json: bool) -> None:
    """Print the rows of a run's report, as a table or as the JSON that the report is made from."""
    benchmark = json.loads((folder / "report" / "benchmark.json").read_text(encoding="utf-8"))
    _print_benchmark(benchmark, folder / "report", as_json=as_json)


def _print_benchmark(benchmark: Mapping[str, Any], folder: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(benchmark, ensure_ascii=False, indent=2))
        return
    metric = benchmark["primary_metric"]
    columns = ("name", "runtime", metric, "95 %", "of teacher", "p50 ms", "pairs/s", "speed-up", "MB")
    _print_table(columns, [_report_cells(row, metric) for row in benchmark["rows"]])
    print(f"report: {folder / 'index.html'}")


def _report_cells(row: Mapping[str, Any], metric: str) -> list[str]:
    estimate = row["metrics"].get(metric) or {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    retention = row["retention"].get(metric)
    return [
        row["name"],
        f"{row['runtime']} {row['precision']}",
        f"{estimate['value']:.4f}",
        f"{estimate['low']:.4f}–{estimate['high']:.4f}",
        "" if retention is None else f"{100 * retention:.1f} %",
        _written_number((row["latency_ms"] or {}).get("p50"), ".2f"),
        _written_number(row["throughput_pairs_per_s"], ".0f"),
        _written_number(row["speedup"], ".1f", "×"),
        _written_number(row["size_mb"], ".1f"),
    ]


def _written_number(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


def names_in(listed: str) -> list[str]:
    """Return the names of a comma-separated option.

    >>> names_in("tfidf, mbert,")
    ['tfidf', 'mbert']
    """
    return [name.strip() for name in listed.split(",") if name.strip()]


def print_ablation(folder: Path, *, as_json: bool) -> None:
    """Print an ablation's table, or the JSON that it is made from; nothing where there is none yet."""
    path = folder / "ablation.json"
    if not path.is_file():
        return
    if as_json:
        print(path.read_text(encoding="utf-8"), end="")
        return
    with (folder / "ablation.csv").open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    short = [
        i for i, name in enumerate(header) if not name.endswith(("95 %", "nDCG@10", "Spearman", "parameters published"))
    ]
    _print_table([header[i] for i in short], [[line[i] for i in short] for line in lines])
    print(f"table: {folder / 'ablation.html'}")


def print_dial(folder: Path, *, as_json: bool) -> None:
    """Print a run's cascade: quality and cost at each share of pairs that the teacher is asked."""
    from distill.evaluation.cascade_dial import read_dial

    dial = read_dial(folder / "cascade")
    if as_json:
        print(json.dumps(dial, ensure_ascii=False, indent=2))
        return
    metric = dial["metric"]
    columns = ("asked", metric, "95 %", "drawn blindly", "− teacher, 95 %", "equals", "ms a pair", "of its cost")
    _print_table(columns, [_dial_cells(place, metric) for place in dial["positions"]])
    alone = (
        f"{name} alone {row['value']:.4f} at {row['ms_per_pair']:.3f} ms a pair" for name, row in dial["alone"].items()
    )
    print(f"evaluation pairs; equals: within the margin of {dial['margin']:g}, Holm over {len(dial['positions'])}")
    print(f"{', '.join(alone)}\n{dial['verdict']}\ncascade: {folder / 'cascade'}")


def _dial_cells(place: Mapping[str, Any], metric: str) -> list[str]:
    estimate, difference = place[metric], place["minus_teacher"]
    return [
        f"top {place['top_k']}: {place['share']:.0%}" if "top_k" in place else f"{place['share']:.0%}",
        f"{estimate['value']:.4f}",
        f"{estimate['low']:.4f}–{estimate['high']:.4f}",
        f"{place['blind']:.4f}",
        f"{difference['low']:+.4f} to {difference['high']:+.4f}",
        "yes" if difference["holds"] else "not shown",
        f"{place['ms_per_pair']:.3f}",
        f"{place['share_of_teacher_cost']:.0%}",
    ]


def print_parity(folder: Path, *, as_json: bool) -> None:
    """Print how far each export agrees with the torch student: a row for each, and a column for each number that one of them has."""
    found = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))["details"]
        for path in sorted((folder / "exports").glob("*/artefact.json"))
    }
    # a Router has none: it is not an export of one model
    parity = {
        name: details["parity"] | {"precision": details["precision"]}
        for name, details in found.items()
        if "parity" in details
    }
    if as_json:
        print(json.dumps([{"export": name} | row for name, row in parity.items()], ensure_ascii=False, indent=2))
        return
    numbers = {
        name: {key: value for key, value in row.items() if isinstance(value, int | float)}
        for name, row in parity.items()
    }
    columns = list(dict.fromkeys(key for row in numbers.values() for key in row))
    rows = [[name, *(_parity_cell(row.get(key)) for key in columns)] for name, row in numbers.items()]
    _print_table(["export", *(key.replace("_", " ") for key in columns)], rows)


def _parity_cell(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}" if isinstance(value, float) else str(value)


def print_plan(folder: Path, *, as_json: bool) -> None:
    """Print the students that a plan proposes, or the JSON that holds all of it."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps(plan, ensure_ascii=False, indent=2))
        return
    where, own, other = plan["environment"], plan["precision"], plan["other"]
    print(f"{plan['kind']}, {plan['length']} tokens, {counted(plan['threads'], 'thread')} of {where['cpu']}")
    print(
        f"planned in {own} ({plan['why']}): int8 takes {plan['int8_of_fp32']:.2f} of fp32's time; {other} is shown beside it"
    )
    columns = (
        "layers",
        "width",
        "feed-forward",
        "vocabulary",
        "encoder M",
        "in",
        "p95 ms",
        "predicted",
        "p50 ms",
        "per s",
        "MB",
        "predicted",
    )
    _print_table(columns, [_student_cells(student, name) for student in plan["students"] for name in (own, other)])
    print(f"largest: by {plan['largest']}; a row without p95 was predicted, not measured. {_held_out(plan)}")
    for note in plan["notes"]:
        print(note)
    print(f"\n{plan['yaml']}\n{folder / 'plan.png'}  {folder / 'student.yaml'}  {folder / 'plan.json'}")


def _held_out(plan: Mapping[str, Any]) -> str:
    """Say how well the cost model predicts shapes that it was not fitted to."""
    if plan["median_error"] is None:
        return "One shape alone was possible: nothing says how well others would be predicted."
    errors = [
        f"{100 * plan[name]['p95_ms']:.0f} % (p95), {100 * plan[name]['p50_ms']:.0f} % (p50), {100 * plan[name]['size_mb']:.1f} % (size)"
        for name in ("median_error", "median_error_other")
    ]
    return (
        f"Held out one by one, the shapes that were fitted to are predicted within {errors[0]} in {plan['precision']}, "
        f"{errors[1]} in {plan['other']}, in the median."
    )


def _student_cells(student: Mapping[str, Any], precision: str) -> list[str]:
    """Return a row of one student in one precision; a student has one for each."""
    shape, costs = student["shape"], student["by_precision"][precision]
    measured, predicted = costs["measured"] or {}, costs["predicted"]
    per_second = None if not measured else 1000 / measured["text_ms"]
    return [
        str(shape["layers"]),
        str(shape["width"]),
        str(shape["feed_forward"]),
        str(shape["vocabulary"]),
        f"{student['encoder_parameters'] / 1e6:.2f}",
        precision,
        _written_number(measured.get("p95_ms"), ".2f"),
        f"{predicted['p95_ms']:.2f}",
        _written_number(measured.get("p50_ms"), ".2f"),
        _written_number(per_second, ".0f"),
        _written_number(measured.get("size_mb"), ".1f"),
        f"{predicted['size_mb']:.1f}",
    ]


def print_check(costs: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a model was measured to cost beside its budget.

    :raises GateFailed: where it costs more, by more than the margin of a second measurement
    """
    if as_json:
        print(json.dumps(costs, ensure_ascii=False, indent=2))
    else:
        budget = costs["budget"]
        columns = ("model", "p95 ms", "budget", "p50 ms", "per s", "MB", "budget")
        cells = [
            costs["model"],
            f"{costs['p95_ms']:.2f}",
            _written_number(budget["p95_ms"], "g"),
            f"{costs['p50_ms']:.2f}",
            f"{1000 / costs['text_ms']:.0f}",
            f"{costs['size_mb']:.1f}",
            _written_number(budget["size_mb"], "g"),
        ]
        _print_table(columns, [cells])
    if costs["excess"] > costs["margin"]:
        raise GateFailed(
            f"{costs['model']} costs {costs['excess']:.2f} times its budget; {costs['margin']:g} is allowed"
        )


def print_trim(report: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what trimming a vocabulary did: a row for each source, and the model as a whole."""
    if as_json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
        return
    columns = ("source", "texts", "unchanged", "of tokens", "tokens/word", "after", "unknown", "after")
    rows = []
    for name, counts in report["sources"].items():
        fertility, unknown = counts["fertility"], counts["unknown"]
        rows.append(
            [
                name,
                str(counts["n_texts"]),
                f"{counts['n_same'] / counts['n_texts']:.2%}",
                f"{counts['coverage']:.3%}",
                *(f"{value:.3f}" for value in fertility),
                *(f"{value:.3%}" for value in unknown),
            ]
        )
    _print_table(columns, rows)
    for name, (before, after) in (
        (f"{report['algorithm']} tokens", report["n_tokens"]),
        ("parameters", report["n_parameters"]),
        ("MB on disk", report["size_mb"]),
        ("tokens that are never given", report["unreachable"]),
    ):
        print(f"{name}: {before:,} → {after:,}")
    print(
        f"texts whose tokens all survive are unchanged: checked on all of them, and the model on {report['n_checked']} (largest difference {report['max_difference']:.1g})"
    )


def _print_table(columns: Iterable[str], rows: list[list[str]]) -> None:
    """Print a table as wide as it is; where a terminal is narrower, a paragraph for each row: rich would cut the numbers off."""
    from rich.console import Console
    from rich.table import Table

    columns = list(columns)

    table = Table()
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    room, needed = Console(), Console(width=_WIDEST)
    if sys.stdout.isatty() and needed.measure(table).maximum > room.width:
        for row in rows:
            told = "; ".join(f"{column} {cell}" for column, cell in zip(columns[1:], row[1:], strict=True) if cell)
            print(textwrap.fill(told, room.width - 1, initial_indent=f"{row[0]}: ", subsequent_indent="  "))
        return
    needed.print(table)
