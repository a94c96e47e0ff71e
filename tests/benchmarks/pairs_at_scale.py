"""Resident memory and time of each stage at 10,000, 100,000 and a million pairs of distinct texts.

    python -m tests.benchmarks.pairs_at_scale -o runs/scale
    python -m tests.benchmarks.pairs_at_scale -o runs/scale --format csv --pairs 10000 100000

The pairs are made of random words. A frozen encoder of one layer gives the embedding of every text, a static student learns
them for so many steps, which are the same at each size, and scores all pairs again. Each stage is a process of its own, whose
memory is read ten times a second: what it holds itself, and with what it maps of files, which the system takes back where it
needs the room. `table.md`, `series.json` and `memory.svg` are written below the output.
"""

import argparse
import csv
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import yaml

from distill.files.artefact import write_json
from distill.report.figures import ACCENT, INK, SOFT, drawing, new_figure

SIZES = (10_000, 100_000, 1_000_000)
STAGES = ("train_teacher", "cache_signals", "train_student", "score")
_STYLES = ((SOFT, ":"), (INK, "--"), (ACCENT, "-"))
_CHUNK = 50_000
_LETTERS = np.array(list("abcdefghiklmnoprstuvw"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/scale"))
    parser.add_argument("--pairs", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    backbone = make_backbone(given.output / "backbone")
    measured: list[dict[str, Any]] = []
    for n_pairs in given.pairs:
        folder = given.output / f"{given.format}-{n_pairs}"
        folder.mkdir(exist_ok=True)
        data = write_pairs(folder / f"pairs.{given.format}", n_pairs)
        recipe = write_recipe(folder, data, backbone, given.steps)
        for stage in STAGES:
            measured.append(
                {
                    "pairs": n_pairs,
                    "stage": stage,
                    **watched(command(stage, recipe, folder, data), folder / f"{stage}.log"),
                }
            )
            write_json(given.output / "series.json", measured)
            print(line_of(measured[-1]), flush=True)
    said = shlex.join(["python", "-m", "tests.benchmarks.pairs_at_scale", *(arguments or sys.argv[1:])])
    (given.output / "table.md").write_text(table(measured, said), encoding="utf-8")
    draw(measured, given.output / "memory.svg")


# ---------------------------------------------------------------------------------------------------------------------
# Data and recipe
# ---------------------------------------------------------------------------------------------------------------------


def texts(n_texts: int, seed: int) -> Iterator[list[str]]:
    """Yield texts of 6 to 14 random words, in chunks: about 60 characters each."""
    rng = np.random.default_rng(seed)
    words = np.array(["".join(rng.choice(_LETTERS, rng.integers(3, 9))) for _ in range(5000)])
    for start in range(0, n_texts, _CHUNK):
        lengths = rng.integers(6, 15, min(_CHUNK, n_texts - start))
        drawn = words[rng.integers(0, len(words), int(lengths.sum()))]
        yield [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]


def write_pairs(path: Path, n_pairs: int) -> Path:
    """Write pairs with a graded label, chunk by chunk, unless they are there."""
    if path.is_file():
        return path
    labels = np.random.default_rng(2)
    chunks = (
        {"query": queries, "document": documents, "label": labels.random(len(queries)).round(3)}
        for queries, documents in zip(texts(n_pairs, 0), texts(n_pairs, 1), strict=True)
    )
    temporary = path.with_suffix(".part")
    if path.suffix == ".csv":
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("query", "document", "label"))
            for chunk in chunks:
                writer.writerows(zip(*chunk.values(), strict=True))
    else:
        tables = (pa.table(chunk) for chunk in chunks)
        first = next(tables)
        with parquet.ParquetWriter(temporary, first.schema) as writer:
            writer.write_table(first)
            for more in tables:
                writer.write_table(more)
    return temporary.rename(path)


def make_backbone(folder: Path) -> Path:
    """Make an encoder of one layer and width 64, with a vocabulary of these words."""
    from distill.models.backbone import fresh_backbone
    from distill.models.modeling import build_model, save_model
    from distill.recipe.schema import FreshBackbone

    if not folder.is_dir():
        shape = FreshBackbone(vocabulary=6000, layers=1, width=64, heads=2, max_length=64)
        made = fresh_backbone(shape, next(texts(20_000, 0)), seed=0, folder=folder.with_name("fresh"))
        save_model(build_model("bi_encoder", made, max_length=64, seed=0), folder)
    return folder


def write_recipe(folder: Path, data: Path, backbone: Path, steps: int) -> Path:
    recipe = {
        "name": "scale",
        "output_dir": str(folder / "run"),
        "data": {"train": str(data), "evaluation_share": 0.001},
        "teachers": {"t": {"kind": "bi_encoder", "backbone": str(backbone), "frozen": True, "max_length": 64}},
        "student": {
            "kind": "bi_encoder",
            "backbone": {"teacher": "t"},
            "static": {},
            "max_length": 64,
            "control": False,
        },
        "objectives": {"embedding_match": {"teacher": "t"}},
        "training": {"max_steps": steps, "global_batch": 256, "evaluations_per_epoch": 0},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def command(stage: str, recipe: Path, folder: Path, data: Path) -> list[str]:
    if stage != "score":
        return [sys.executable, "-m", f"recipes.{stage}", str(recipe)]
    scored = folder / f"scores{data.suffix}"
    return [sys.executable, "-m", "recipes.cli", "score", str(folder / "run/student"), str(data), "-o", str(scored)]


# ---------------------------------------------------------------------------------------------------------------------
# Measuring
# ---------------------------------------------------------------------------------------------------------------------


def watched(asked: Sequence[str], printed: Path) -> dict[str, Any]:
    """Run a command; return its seconds, and over time its own memory and that with mapped files, in MB.

    :param printed: takes what it prints
    """
    series, began = list[tuple[float, int, int]](), time.monotonic()
    with printed.open("w", encoding="utf-8") as file, subprocess.Popen(asked, stdout=file, stderr=file) as running:
        while running.poll() is None:
            series.append((round(time.monotonic() - began, 1), *memory_of(running.pid)))
            time.sleep(0.1)
    if running.returncode:
        raise SystemExit(f"{shlex.join(asked)} ended with {running.returncode}: {printed}")
    _, own, mapped = zip(*series, strict=True)
    return {"seconds": time.monotonic() - began, "own_mb": max(own), "mapped_mb": max(mapped), "series": series}


def memory_of(pid: int) -> tuple[int, int]:
    """Return a process's own memory, and its resident memory with mapped files, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    kilobytes = {
        name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "kB" in value
    }
    return tuple(round(kilobytes.get(name, 0) * 1024 / 1e6) for name in ("RssAnon", "VmRSS"))  # type: ignore[return-value]


# ---------------------------------------------------------------------------------------------------------------------
# Table and picture
# ---------------------------------------------------------------------------------------------------------------------


def line_of(one: dict[str, Any]) -> str:
    microseconds = 1e6 * one["seconds"] / one["pairs"]
    memory = f"{one['own_mb']:,} | {one['mapped_mb']:,}"
    return f"| {one['pairs']:,} | `{one['stage']}` | {one['seconds']:.0f} | {microseconds:.0f} | {memory} |"


def table(measured: Sequence[dict[str, Any]], said: str) -> str:
    head = [
        "| pairs | stage | s | µs a pair | own memory, peak MB | with mapped files |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    return "\n".join([*head, *map(line_of, measured), "", f"*Command:* `{said}`.", ""])


@drawing()
def draw(measured: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw own memory over the time of each stage, one panel a stage and one line a size."""
    figure, panels = new_figure(900, 300, n_axes=len(STAGES), text=11)
    sizes = sorted({one["pairs"] for one in measured})
    for axes, stage in zip(panels, STAGES, strict=True):
        for n_pairs, (color, line) in zip(sizes, _STYLES, strict=False):
            series = next(one["series"] for one in measured if (one["pairs"], one["stage"]) == (n_pairs, stage))
            seconds, own, _ = zip(*series, strict=True)
            axes.plot(seconds, own, line, color=color, label=f"{n_pairs:,} pairs")
        axes.set(title=stage, xlabel="seconds", ylim=(0, 1.1 * max(one["own_mb"] for one in measured)))
    panels[0].set_ylabel("own memory, MB")
    panels[0].legend(frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
