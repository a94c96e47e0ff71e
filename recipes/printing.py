"""Output of the commands on a run, a report or a model: tables for a person, JSON for a program."""

import csv
import json
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill.data.tokens import MANY_UNKNOWN
from distill.errors import GateFailed
from distill.metrics.standing import above_chance, first_teacher, share_of
from distill.wording import counted

__all__ = [
    "comparison_line",
    "print_ablation",
    "print_benchmark",
    "print_check",
    "print_dial",
    "print_parity",
    "print_plan",
    "print_report",
    "print_table",
    "print_trim",
    "print_tuned",
]

_WIDEST = 10_000  # of a table, in characters


def print_tuned(result: Mapping[str, Any]) -> None:
    """Print the measurements of `distill tune`, and the settings that it stored."""
    if "settings" in result:
        columns = ("measured", *result["settings"], "tokens/s")
        print_table(columns, [[_cell(value) for value in row.values()] for row in result["measured"]])
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
        print_table(("export", "precision", "tokens/s", "p50 ms", ""), rows)
        if not all(speed["judged"] for speed in result["precisions"]):
            print(
                '"asked" is an export run in another precision than it was made for. No gate has compared its scores '
                "with the student's there, so it is shown but never chosen."
            )
        for line in result["left_out"]:
            print(f"left out {line}")
        print(f'fastest of both together: {result["fastest"]}; precision="auto" opens it on this machine')
    for path in result["stored_in"]:
        print(f"stored in {path}")


def _cell(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def print_report(folder: Path, *, as_json: bool) -> None:
    """Print the rows of a run's report, as a table or as the JSON that the report is made from."""
    benchmark = json.loads((folder / "report" / "benchmark.json").read_text(encoding="utf-8"))
    print_benchmark(benchmark, as_json=as_json)


def print_benchmark(benchmark: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the rows of a report."""
    if as_json:
        print(json.dumps(benchmark, ensure_ascii=False, indent=2))
        return
    metric = benchmark["primary_metric"]
    columns = (
        "name",
        "runtime",
        metric,
        "95 %",
        f"of {benchmark.get('reference', 'teacher')}",
        "p50 ms",
        "pairs/s",
        "speed-up",
        "MB",
    )
    teacher = first_teacher(benchmark["rows"])
    print_table(columns, [_report_cells(row, metric, teacher) for row in benchmark["rows"]])
    if above_chance(metric) and teacher is not None:
        print(
            f"{columns[4]}: (ROC-AUC − 0.5) / (the {benchmark.get('reference', 'teacher')}'s − 0.5), so that chance is 0 %"
        )
    measuring = benchmark.get("measuring") or {}
    if measuring.get("ended_by") == "seconds" and "widest" in measuring:
        print(
            f"Speed is less certain than wished: measuring ended by its limit of time, with 95 % intervals of up to "
            f"{measuring['widest']:.0%} of their value ({measuring.get('widest_row')}; wished: {measuring['interval']:.0%})."
        )


def _report_cells(row: Mapping[str, Any], metric: str, teacher: Mapping[str, Any] | None) -> list[str]:
    estimate = row["metrics"].get(metric) or {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    share = None if row is teacher or not row["retention"] else share_of(row, teacher, metric)
    return [
        row["name"],
        f"{row['runtime']} {row['precision']}",
        f"{estimate['value']:.4f}",
        f"{estimate['low']:.4f}–{estimate['high']:.4f}",
        "" if share is None else f"{100 * share:.1f} %",
        _written_number((row["latency_ms"] or {}).get("p50"), ".2f"),
        _written_number(row["throughput_pairs_per_s"], ".0f"),
        _written_number(row["speedup"], ".1f" if (row["speedup"] or 1) >= 1 else ".2g", "×"),
        _written_number(row["size_mb"], ".1f"),
    ]


def _written_number(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


def print_ablation(folder: Path, *, as_json: bool) -> None:
    """Print an ablation's table, or the JSON that it is made from; nothing if there is none yet."""
    path = folder / "ablation.json"
    if not path.is_file():
        return
    if as_json:
        print(path.read_text(encoding="utf-8"), end="")
        return
    with (folder / "ablation.csv").open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    column_numbers = [
        i for i, name in enumerate(header) if not name.endswith(("95 %", "nDCG@10", "Spearman", "parameters published"))
    ]
    print_table([header[i] for i in column_numbers], [[line[i] for i in column_numbers] for line in lines])
    print(f"table: {folder / 'ablation.html'}")


def print_dial(folder: Path, *, as_json: bool) -> None:
    """Print a run's cascade: quality and cost for each share of pairs that is sent to the teacher."""
    from distill.evaluation.cascade_dial import read_dial

    dial = read_dial(folder / "cascade")
    if as_json:
        print(json.dumps(dial, ensure_ascii=False, indent=2))
        return
    metric = dial["metric"]
    columns = ("asked", metric, "95 %", "drawn blindly", "− teacher, 95 %", "equals", "ms a pair", "of its cost")
    print_table(columns, [_dial_cells(place, metric) for place in dial["positions"]])
    sentences = (
        f"{name} alone {row['value']:.4f} at {row['ms_per_pair']:.3f} ms a pair" for name, row in dial["alone"].items()
    )
    print(f"evaluation pairs; equals: within the margin of {dial['margin']:g}, Holm over {len(dial['positions'])}")
    print("a sent pair's score is a logistic mixture of both models' scores, so a share of 1 is not the teacher alone")
    print(f"{', '.join(sentences)}\n{dial['verdict']}\ncascade: {folder / 'cascade'}")


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
    """Print the agreement of each export with the torch student: a row for each export, a column for each value."""
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
    print_table(["export", *(key.replace("_", " ") for key in columns)], rows)


def _parity_cell(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}" if isinstance(value, float) else str(value)


def print_plan(folder: Path, *, as_json: bool) -> None:
    """Print the students that a plan proposes, or the whole plan as JSON."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps(plan, ensure_ascii=False, indent=2))
        return
    environment, precision, other_precision = plan["environment"], plan["precision"], plan["other"]
    print(f"{plan['kind']}, {plan['length']} tokens, {counted(plan['threads'], 'thread')} of {environment['cpu']}")
    print(
        f"planned in {precision} ({plan['why']}): int8 takes {plan['int8_of_fp32']:.2f} of fp32's time; {other_precision} is shown beside it"
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
    print_table(
        columns,
        [_student_cells(student, name) for student in plan["students"] for name in (precision, other_precision)],
    )
    print(f"largest: by {plan['largest']}; a row without p95 was predicted, not measured. {_held_out(plan)}")
    for note in plan["notes"]:
        print(note)
    print(f"\n{plan['yaml']}\n{folder / 'plan.png'}  {folder / 'student.yaml'}  {folder / 'plan.json'}")


def _held_out(plan: Mapping[str, Any]) -> str:
    """Return a message on how well the cost model predicts shapes that it was not fitted to."""
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
    """Print a model's measured cost beside its budget.

    :raises GateFailed: if it is over the budget by more than the margin of a second measurement
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
        print_table(columns, [cells])
    if costs["excess"] > costs["margin"]:
        raise GateFailed(
            f"{costs['model']} costs {costs['excess']:.2f} times its budget; {costs['margin']:g} is allowed"
        )


def print_trim(report: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the result of trimming a vocabulary: a row for each source, and the whole model."""
    if as_json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
        return
    columns = ("source", "texts", "unchanged", "of tokens", "tokens/word", "after", "unknown", "unknown after")
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
    print_table(columns, rows)
    for name, counts in report["sources"].items():
        if counts["unknown"][0] > MANY_UNKNOWN:
            print(
                f"{name}: {counts['unknown'][0]:.0%} of its tokens are unknown to the model, trimmed or not: it cannot read them."
            )
    for name, (before, after) in (
        (f"{report['algorithm']} tokens", report["n_tokens"]),
        ("parameters", report["n_parameters"]),
        ("MB on disk", report["size_mb"]),
        ("tokens that no text produces", report["unreachable"]),
    ):
        print(f"{name}: {before:,} → {after:,}")
    print(
        f"Texts whose tokens all stay have the same tokens as before, by a check of every text, and the same embeddings, by "
        f"{counted(report['n_checked'], 'text')} through the model (greatest difference {report['max_difference']:.1g})."
    )
    if report["not_taken_over"]:
        print(
            f"Not taken over from {report['model']}: {', '.join(report['not_taken_over'])}. They describe the model before it was trimmed."
        )


def print_table(columns: Iterable[str], rows: list[list[str]]) -> None:
    """Print a table at its full width; on a narrower terminal print a paragraph per row: rich would cut numbers."""
    from rich.console import Console
    from rich.table import Table

    columns, table = list(columns), Table()
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    terminal, wide = Console(), Console(width=_WIDEST, markup=False, emoji=False)  # names are no markup
    if sys.stdout.isatty() and wide.measure(table).maximum > terminal.width:
        for row in rows:
            line = "; ".join(f"{column} {cell}" for column, cell in zip(columns[1:], row[1:], strict=True) if cell)
            print(textwrap.fill(line, terminal.width - 1, initial_indent=f"{row[0]}: ", subsequent_indent="  "))
        return
    wide.print(table)


def comparison_line(row: Mapping[str, Any]) -> str:
    """Return a line on how much slower and worse a model is than in an earlier report."""
    ratios = ", ".join(
        f"{measure} × {ratio['value']:.3f} ({ratio['low']:.3f}–{ratio['high']:.3f})"
        for measure, ratio in row["slowdown"].items()
    )
    return f"{row['name']}: slowdown {ratios}; metric drop {row['metric_drop']}"
