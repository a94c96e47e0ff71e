"""Where distillation pays: one recipe with fewer and fewer labels, everything else alike.

    python -m tests.benchmarks.labelled_shares recipes/quickstart.yaml                       # shares 1.0 0.3 0.1 0.03, seed 0
    python -m tests.benchmarks.labelled_shares recipes/korsts.yaml --seeds 0 1 2 --set training.epochs=2 -o runs/shares
    python -m tests.benchmarks.labelled_shares recipes/korsts.yaml --table                   # of what is finished, nothing is run

Each run is `distill run` in its own process, with `data.labelled_share` and `seed`, without exports: they change no quality.
Pairs that lose their label stay as pairs without one. A finished run is not repeated, one that was killed goes on where it
was, and frozen teachers, which no label changes, are taken from a finished run with what they said of each pair.
`table.md`, `table.json`, `shares.svg` and `shares.png` are written anew after every run.

An interval is that of one run, over its evaluation pairs; of several seeds the mean of their ends. It does not say how much
seeds differ: each seed has a row of its own for that.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.errors import BadInput
from distill.files.artefact import write_json
from distill.recipe.reading import load_recipe
from distill.recipe.schema import Teacher
from distill.report.figures import ACCENT, INK, SOFT, drawing, new_figure, set_ticks

SHARES = (1.0, 0.3, 0.1, 0.03)
ROWS = ("untrained", "control", "student", "best teacher", "TF-IDF")
COMPARED = "student − control"
_FAST = ("export.precisions=[]", "benchmark.seconds=0.2", "benchmark.throughput_pairs=64")
_COMMAND = "labelled_shares.json"
_STYLES = {
    "untrained": (SOFT, ":", "v"),
    "control": (SOFT, "-", "s"),
    "student": (ACCENT, "-", "o"),
    "best teacher": (INK, "-", "^"),
    "TF-IDF": (INK, ":", "x"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    shown = list(sys.argv[1:] if arguments is None else arguments)
    command = shlex.join(["python", "-m", "tests.benchmarks.labelled_shares", *shown])
    try:
        name = load_recipe(given.recipe, given.set).name
        output = given.output or Path("runs") / "labelled_shares" / name
        wanted = [(share, seed) for seed in given.seeds for share in given.shares]
        for share, seed in [] if given.table else wanted:
            run_one(given.recipe, output, share, seed, given.set)
            write_results(output, wanted, name=name, command=command)
        write_results(output, wanted, name=name, command=command)
    except BadInput as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    print((output / "table.md").read_text(encoding="utf-8"))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--shares", type=_share, nargs="+", default=list(SHARES), help="of the labels; 1.0 is all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the recipe, for every run"
    )
    parser.add_argument("-o", "--output", type=Path, help="runs/labelled_shares/NAME by default")
    parser.add_argument("--table", action="store_true", help="run nothing")
    return parser


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: above 0, up to 1")
    return share


# ---------------------------------------------------------------------------------------------------------------------
# Runs
# ---------------------------------------------------------------------------------------------------------------------


def folder_of(output: Path, share: float, seed: int) -> Path:
    return output / f"labels-{share:g}-seed-{seed}"


def overrides(output: Path, share: float, seed: int, given: Sequence[str]) -> list[str]:
    """Return what the recipe is run with; max_labelled is the other way to say how many labels there are."""
    labelled = "null" if share == 1 else f"{share:g}"
    return [
        *_FAST,
        *given,
        "data.max_labelled=null",
        f"data.labelled_share={labelled}",
        f"seed={seed}",
        f"output_dir={json.dumps(str(folder_of(output, share, seed).resolve()))}",
    ]


def is_finished(folder: Path, command: Sequence[str]) -> bool:
    """Tell whether a run is finished.

    :raises BadInput: where it was started with another command
    """
    stored = folder / _COMMAND
    if not stored.is_file():
        return False
    started = json.loads(stored.read_text(encoding="utf-8"))
    if started["command"] != list(command):
        raise BadInput(
            f"{folder} was run with other overrides ({shlex.join(started['command'])}); choose another folder with -o, or remove it"
        )
    return bool(started["finished"])


def run_one(recipe: Path, output: Path, share: float, seed: int, given: Sequence[str]) -> None:
    """Run the recipe with a share of its labels, unless that run is finished.

    :raises BadInput: where the run fails; its own words are on the terminal
    """
    folder, command = folder_of(output, share, seed), [str(recipe), *overrides(output, share, seed, given)]
    if is_finished(folder, command):
        return
    folder.mkdir(parents=True, exist_ok=True)
    taken = take_frozen(load_recipe(recipe, list(given)).teachers, output, folder)
    print(f"{folder.name}{': ' + ', '.join(taken) + ' taken from a finished run' if taken else ''}", file=sys.stderr)
    write_json(folder / _COMMAND, {"command": command, "finished": False})
    finished = subprocess.run([sys.executable, "-m", "recipes.cli", "run", *command], check=False)
    if finished.returncode:
        raise BadInput(f"{folder.name}: distill run ended with {finished.returncode}; run this again to go on")
    write_json(folder / _COMMAND, {"command": command, "finished": True})


def take_frozen(teachers: Mapping[str, Teacher], output: Path, folder: Path) -> list[str]:
    """Link the frozen teachers of a finished run, and copy their signals; return their names."""
    sources = [path.parent for path in sorted(output.glob(f"*/{_COMMAND}")) if json.loads(path.read_text())["finished"]]
    taken = []
    for name in (name for name, teacher in teachers.items() if teacher.frozen and isinstance(teacher.backbone, str)):
        source = next((path for path in sources if (path / "teachers" / name).is_dir()), None)
        if source is None or (folder / "teachers" / name).exists():
            continue
        shutil.copytree(source / "teachers" / name, folder / "teachers" / name, copy_function=_link)
        if (source / "signals" / name).is_dir():
            shutil.copytree(source / "signals" / name, folder / "signals" / name)
        taken.append(name)
    return taken


def _link(source: str, target: str) -> None:
    """Link a file: teachers are large, and written whole or not at all."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


# ---------------------------------------------------------------------------------------------------------------------
# Table and picture
# ---------------------------------------------------------------------------------------------------------------------


def read_report(folder: Path, share: float, seed: int) -> dict[str, Any]:
    """Read a run's report: the value of each row, with its interval, in the report's first metric."""
    report = json.loads((folder / "report" / "benchmark.json").read_text(encoding="utf-8"))
    metric = report["primary_metric"]
    values = {row["name"]: row["metrics"].get(metric) for row in report["rows"]}
    rows: dict[str, Any] = {row["role"]: values[row["name"]] for row in report["rows"] if row["role"] in ROWS}
    for name, belongs in (
        ("best teacher", lambda row: row["role"] == "teacher"),
        ("TF-IDF", lambda row: row["kind"] == "tfidf"),
    ):
        known = [values[row["name"]] for row in report["rows"] if belongs(row) and values[row["name"]] is not None]
        rows[name] = max(known, key=lambda estimate: float(estimate["value"]), default=None)
    compared = next((one for one in report["comparisons"] if one["name"] == COMPARED), None)
    return {
        "share": share,
        "seed": seed,
        "metric": metric,
        "n_pairs": report["data"]["n_pairs"],
        "machine": _machine(report["environment"]),
        "rows": {name: _ends(rows.get(name)) for name in ROWS},
        COMPARED: _ends(compared),
    }


def _machine(environment: Mapping[str, Any]) -> str:
    flags = " ".join(environment.get("cpu_flags") or ["no vector flags"])
    return f"{environment['cpu']} ({flags}), {environment['threads']} threads, {environment['memory_gb']:g} GB"


def _ends(estimate: Mapping[str, Any] | None) -> dict[str, float] | None:
    return None if estimate is None else {end: float(estimate[end]) for end in ("value", "low", "high")}


def share_of_gain(rows: Mapping[str, Mapping[str, float] | None], name: str = "student") -> float | None:
    """Return (row − untrained) / (best teacher − untrained); None where the teacher gains nothing, or a row is missing."""
    untrained, teacher, row = rows["untrained"], rows["best teacher"], rows[name]
    if untrained is None or teacher is None or row is None or teacher["value"] <= untrained["value"]:
        return None
    return (row["value"] - untrained["value"]) / (teacher["value"] - untrained["value"])


def mean_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean over seeds of values and of the ends of their intervals; a row that one seed lacks is lacking."""
    return {
        "share": runs[0]["share"],
        "seed": None,
        "n_seeds": len(runs),
        "rows": {name: _mean([run["rows"][name] for run in runs]) for name in ROWS},
        COMPARED: _mean([run[COMPARED] for run in runs]),
    }


def _mean(estimates: Sequence[Mapping[str, float] | None]) -> dict[str, float] | None:
    known = [estimate for estimate in estimates if estimate is not None]
    if len(known) < len(estimates):
        return None
    return {end: sum(estimate[end] for estimate in known) / len(known) for end in ("value", "low", "high")}


def by_share(runs: Sequence[Mapping[str, Any]]) -> list[tuple[dict[str, Any], list[Mapping[str, Any]]]]:
    """Return (mean, runs) of each share, most labels first."""
    shares = sorted({run["share"] for run in runs}, reverse=True)
    groups = [[run for run in runs if run["share"] == share] for share in shares]
    return [(mean_of(group), group) for group in groups]


def table(runs: Sequence[Mapping[str, Any]], *, name: str, command: str) -> str:
    """Return the table as Markdown: the mean over the seeds of each share, then each seed where there are several."""
    metric = runs[0]["metric"]
    header = ("labels", "seed", *ROWS, COMPARED, "share of the gain: control", "student")
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    for mean, group in by_share(runs):
        if len(group) > 1:
            lines.append(_line(mean, f"mean of {len(group)}"))
        lines += [_line(run, str(run["seed"])) for run in group]
    counts = sorted({run["n_pairs"] for run in runs})
    pairs = " to ".join(f"{count:,}" for count in sorted({counts[0], counts[-1]}))
    machines = "; ".join(sorted({run["machine"] for run in runs}))
    return "\n".join(
        [
            f"# {name}: what the share of labelled data does",
            "",
            f"{metric} on {pairs} evaluation pairs, 95 % interval over them. Share of the gain: "
            "(row − untrained) / (best teacher − untrained).",
            "",
            *lines,
            "",
            f"Machine: {machines}.",
            "",
            f"    {command}",
            "",
        ]
    )


def _line(run: Mapping[str, Any], seed: str) -> str:
    gains = [share_of_gain(run["rows"], name) for name in ("control", "student")]
    cells = [
        f"{100 * run['share']:g} %",
        seed,
        *(_cell(run["rows"][name]) for name in ROWS),
        _cell(run[COMPARED], "+"),
        *("–" if gain is None else f"{gain:.0%}" for gain in gains),
    ]
    return f"| {' | '.join(cells)} |"


def _cell(estimate: Mapping[str, float] | None, sign: str = "") -> str:
    if estimate is None:
        return "–"
    value, low, high = (f"{estimate[end]:{sign}.4f}" for end in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


@drawing()
def draw(runs: Sequence[Mapping[str, Any]], folder: Path, *, name: str) -> None:
    """Draw one line per row over the share of labels, with intervals, as shares.svg and shares.png."""
    figure, (axes,) = new_figure(700, 440, text=12)
    means = [mean for mean, _ in by_share(runs)]
    for place, row in enumerate(ROWS):
        points = [(mean["share"], mean["rows"][row]) for mean in means if mean["rows"][row] is not None]
        if not points:
            continue
        color, style, marker = _STYLES[row]
        values = [estimate["value"] for _, estimate in points]
        # a percentile interval need not hold the value itself
        below = [max(0.0, estimate["value"] - estimate["low"]) for _, estimate in points]
        above = [max(0.0, estimate["high"] - estimate["value"]) for _, estimate in points]
        shift = 1.02 ** (place - len(ROWS) // 2)  # or the intervals of one share would hide each other
        axes.errorbar(
            [100 * share * shift for share, _ in points],
            values,
            yerr=[below, above],
            color=color,
            linestyle=style,
            marker=marker,
            markersize=5,
            linewidth=1.5,
            elinewidth=0.8,
            capsize=2,
            label=row,
        )
    axes.set_xscale("log")
    set_ticks(axes, "x", sorted(100 * mean["share"] for mean in means))
    axes.set_xlabel("labelled pairs, % (log)")
    axes.set_ylabel(runs[0]["metric"])
    axes.set_title(name)
    axes.legend(frameon=False)
    for kind in ("svg", "png"):
        figure.savefig(
            folder / f"shares.{kind}", format=kind, dpi=144, metadata={"Date": None} if kind == "svg" else None
        )


def write_results(output: Path, wanted: Sequence[tuple[float, int]], *, name: str, command: str) -> None:
    """Write table and picture of the runs that are finished.

    :raises BadInput: where none is
    """
    places = [(folder_of(output, share, seed), share, seed) for share, seed in wanted]
    runs = [read_report(*place) for place in places if (place[0] / "report" / "benchmark.json").is_file()]
    if not runs:
        raise BadInput(f"{output} holds no finished run of these shares and seeds; run this without --table first")
    (output / "table.md").write_text(table(runs, name=name, command=command), encoding="utf-8")
    write_json(
        output / "table.json", {"name": name, "command": command, "runs": runs, "means": [m for m, _ in by_share(runs)]}
    )
    draw(runs, output, name=name)


if __name__ == "__main__":
    sys.exit(main())
