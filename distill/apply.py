"""Use a finished model from the command line: score pairs, embed texts, print what a run found."""

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill.artefact import new_file
from distill.baselines import open_scorer
from distill.data import batched, read_columns, read_pairs
from distill.errors import BadInput
from distill.recipe import Columns
from distill.runtime import load

__all__ = ["embed_file", "names_in", "print_ablation", "print_parity", "print_report", "score_file"]

_ROWS_AT_ONCE = 50_000
_RUNTIMES, _PRECISIONS = ("torch", "openvino", "onnx"), ("fp32", "bf16")


def _options(
    runtime: str | None, precision: str | None, n_threads: int | None, max_length: int | None
) -> dict[str, Any]:
    if runtime is not None and runtime not in _RUNTIMES:
        raise BadInput(f"--runtime {runtime}: one of {', '.join(_RUNTIMES)} is accepted")
    if precision is not None and precision not in _PRECISIONS:
        raise BadInput(
            f"--precision {precision}: one of {', '.join(_PRECISIONS)} is accepted; int8 comes with an int8 export"
        )
    return {"runtime": runtime, "precision": precision, "n_threads": n_threads, "max_length": max_length}


def score_file(
    model: Path,
    source: str,
    output: Path,
    *,
    query_column: str,
    document_column: str,
    runtime: str | None = None,
    precision: str | None = None,
    n_threads: int | None = None,
    max_length: int | None = None,
) -> None:
    """Score the pairs of a file into a TSV: row (from 1), score (cosine or logit), unit_score (in [0, 1])."""
    pairs = read_pairs(source, Columns(query=query_column, document=document_column), labelled=False)
    with new_file(output) as temporary:
        scorer = open_scorer(model, **_options(runtime, precision, n_threads, max_length))
        scores = scorer.score(pairs.queries, pairs.documents, progress=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write("row\tscore\tunit_score\n")
            for row, (score, unit) in enumerate(
                zip(scores.tolist(), scorer.unit(scores).tolist(), strict=True), start=1
            ):
                file.write(f"{row}\t{score:.6f}\t{unit:.6f}\n")
    print(f"{len(scores)} pairs → {output}  ({scorer!r})", file=sys.stderr)


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
) -> None:
    """Embed the lines of a .txt file, or a column of a table, into a .npy of float32 (n_texts, width)."""
    texts = _read_texts(source, column)
    with new_file(output) as temporary:
        scorer = load(model, **_options(runtime, precision, n_threads, max_length))
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
    print(f"{len(texts)} texts → {output}  ({scorer!r})", file=sys.stderr)


def _read_texts(source: str, column: str) -> list[str]:
    if not source.endswith(".txt"):
        return [str(text) for text in read_columns(source, [column], section="--column")[column]]
    try:
        lines = Path(source).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise BadInput(f"{source}: no such file") from None
    except UnicodeDecodeError:
        raise BadInput(f"{source} is not UTF-8; save it as UTF-8 (Korean files are often CP949)") from None
    if not lines:
        raise BadInput(f"{source} is empty")
    return lines


def print_report(folder: Path, *, as_json: bool) -> None:
    """Print the rows of a run's report, as a table or as the JSON that the report is made from."""
    benchmark = json.loads((folder / "report" / "benchmark.json").read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps(benchmark, ensure_ascii=False, indent=2))
        return
    metric = benchmark["primary_metric"]
    columns = ("name", "runtime", metric, "95 %", "of teacher", "p50 ms", "pairs/s", "speed-up", "MB")
    _print_table(columns, [_report_cells(row, metric) for row in benchmark["rows"]])
    print(f"report: {folder / 'report' / 'index.html'}")


def _report_cells(row: Mapping[str, Any], metric: str) -> list[str]:
    estimate = row["metrics"].get(metric) or {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    retention = row["retention"].get(metric)
    return [
        row["name"], f"{row['runtime']} {row['precision']}", f"{estimate['value']:.4f}",
        f"{estimate['low']:.4f}–{estimate['high']:.4f}", "" if retention is None else f"{100 * retention:.1f} %",
        _written_number((row["latency_ms"] or {}).get("p50"), ".2f"), _written_number(row["throughput_pairs_per_s"], ".0f"),
        _written_number(row["speedup"], ".1f", "×"), _written_number(row["size_mb"], ".1f"),
    ]  # fmt: skip


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


def print_parity(folder: Path, *, as_json: bool) -> None:
    """Print how far each export agrees with the torch student."""
    cards = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "exports").glob("*/artefact.json"))
    ]
    parity = [card["details"]["parity"] | {"precision": card["details"]["precision"]} for card in cards]
    if as_json:
        print(json.dumps(parity, ensure_ascii=False, indent=2))
        return
    names = [name for name, value in parity[0].items() if not isinstance(value, list | dict)] if parity else []
    _print_table(
        names,
        [[f"{row[name]:.5f}" if isinstance(row[name], float) else str(row[name]) for name in names] for row in parity],
    )


def _print_table(columns: Any, rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
