"""The ladder: MiniLM-L6 with fewer layers or narrower ones, before and after a short distillation on STS-B.

    python -m tests.benchmarks.student_ladder ../shared/data/stsb_en runs/ladder            # all of it, resumable
    python -m tests.benchmarks.student_ladder ../shared/data/stsb_en runs/ladder --minutes 5   # as far as it gets
    python -m tests.benchmarks.student_ladder ../shared/data/stsb_en runs/ladder --table    # what is there, as Markdown

Every student is a run of recipes/stsb_en.yaml on the 10,534 training sentences alone (one epoch by default), with the
teacher and its signals shared. Spearman on STS-B dev with its 95 % interval; sizes and latencies are of one student for
each architecture: they do not depend on which layers or neurons stayed.
"""

import argparse
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from distill.evaluation.latency import Measuring, Request, measure_all, size_mb
from distill.files.artefact import write_json
from distill.metrics.measures import evaluate_scores
from distill.recipe.reading import load_recipe
from distill.run import Run
from distill.runtime.opening import load

CHOICES = ("importance", "spread", "first", "last")
BASES = ("pca", "dimensions")
RECIPE = Path(__file__).parents[2] / "recipes" / "stsb_en.yaml"
_SHOWN_AT_ONCE = 4  # architectures measured side by side: each is two processes


def students() -> dict[str, dict[str, Any]]:
    """Every rung by name, with what its recipe says of the student."""
    rungs: dict[str, dict[str, Any]] = {"6 layers": {"layers": None}}
    for n in (5, 4, 3, 2, 1):
        rungs |= {f"{n} layers, {how}": {"layers": {how: n}} for how in CHOICES}
    rungs |= {f"feed-forward {share:.0%}": {"width": {"feed_forward": share}} for share in (0.75, 0.5, 0.25)}
    for hidden in (288, 256, 192, 128, 96, 64):
        rungs |= {f"hidden {hidden}, {by}": {"width": {"hidden": hidden, "hidden_by": by}} for by in BASES}
    rungs["3 layers, feed-forward 50%"] = {"layers": {"importance": 3}, "width": {"feed_forward": 0.5}}
    rungs["4 layers, feed-forward 25%"] = {"layers": {"importance": 4}, "width": {"feed_forward": 0.25}}
    return rungs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after this")
    parser.add_argument("--only", nargs="*", help="names of rungs; all by default")
    parser.add_argument("--latency", action="store_true", help="export and measure instead of training")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    until = time.monotonic() + 60 * arguments.minutes
    if arguments.latency:
        measure(arguments, until)
    elif not arguments.table:
        train(arguments, until)
    print(table(arguments.output))


def open_run(arguments: argparse.Namespace, name: str, student: dict[str, Any]) -> Run:
    settings = {
        "data.train": str(arguments.data / "stsb_train.tsv.gz"),
        "data.evaluation": str(arguments.data / "stsb_dev.tsv.gz"),
        "data.unlabelled": [],
        "student.layers": None,
        "student.control": False,
        "training.epochs": arguments.epochs,
        "training.evaluations_per_epoch": 0,
        "training.tensorboard": False,
        "export.precisions": ["int8"],
        "output_dir": str(arguments.output / name.replace(" ", "-").replace(",", "").replace("%", "")),
        **{f"student.{key}": value for key, value in student.items()},
    }
    return Run(load_recipe(RECIPE, [f"{key}={json.dumps(value)}" for key, value in settings.items()]))


def train(arguments: argparse.Namespace, until: float) -> None:
    from students import build_student, train_student
    from teachers import cache_signals, train_teachers

    rungs = students()
    base = open_run(arguments, "teacher", {})
    if not (base.folder / "result.json").exists():
        train_teachers(base)
        cache_signals(base)
        write_json(
            base.folder / "result.json",
            {"after": evaluate(base, base.teacher("minilm")), **described(base.teacher("minilm"))},
        )
    for name in arguments.only or rungs:
        run = open_run(arguments, name, rungs[name])
        if (run.folder / "result.json").exists():
            continue
        if time.monotonic() > until:
            break
        run.folder.mkdir(parents=True, exist_ok=True)
        for shared in ("teachers", "signals"):
            link = run.folder / shared
            if not link.exists():
                link.symlink_to((base.folder / shared).resolve())
        build_student(run)
        before, details = evaluate(run, run.built), json.loads((run.built / "artefact.json").read_text())["details"]
        chosen = {key: details[key] for key in ("layers", "width") if key in details}
        twin = same_layers(arguments.output, chosen)
        if twin is None:
            began = time.monotonic()
            train_student(run)
            seconds = round(time.monotonic() - began, 1)
            twin = {"after": evaluate(run, run.student), "seconds": seconds, **described(run.student)}
        after, seconds = twin["after"], twin["seconds"]
        write_json(run.folder / "result.json", {**twin, **chosen, "before": before})
        shutil.rmtree(run.built)
        print(f"{name}: {before['value']:.4f} → {after['value']:.4f} in {seconds} s, {chosen}", flush=True)


def same_layers(output: Path, chosen: dict[str, Any]) -> dict[str, Any] | None:
    """Find a finished student of the same layers at full width: two ways of choosing may come to the same."""
    for path in output.glob("*/result.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        if "width" not in {*chosen, *result} and "layers" in {*chosen} & {*result}:
            if result["layers"]["kept"] == chosen["layers"]["kept"]:
                return result
    return None


def evaluate(run: Run, folder: Path) -> dict[str, float | int]:
    pairs = run.split.evaluation
    scores = load(folder, runtime="torch", precision="fp32", max_length=128).score(pairs.queries, pairs.documents)
    return evaluate_scores(scores=scores, labels=pairs.labels, seed=0)["spearman"].to_dict()


def described(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    keys = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    return {"size_mb": round(size_mb(folder, "torch"), 1), "architecture": [config[key] for key in keys]}


def measure(arguments: argparse.Namespace, until: float) -> None:
    """Export and measure one student of each architecture, a few at a time, always beside the whole model."""
    from students import export_student

    whole = arguments.output / "6-layers"
    first_of: dict[str, Run] = {}
    for name, student in students().items():
        run = open_run(arguments, name, student)
        if run.student.exists() and (run.folder / "result.json").exists():
            first_of.setdefault(architecture_of(run.folder), run)
    waiting = [run for run in first_of.values() if not (run.folder / "latency.json").exists()]
    for start in range(0, len(waiting), _SHOWN_AT_ONCE):
        chunk = waiting[start : start + _SHOWN_AT_ONCE]
        if time.monotonic() > until:
            break
        for run in chunk:
            export_student(run)
        folders = list(dict.fromkeys([whole, *(run.folder for run in chunk)]))
        requests = [
            Request(path, f"{folder.name} {runtime}", runtime, "fp32" if runtime == "torch" else None, 2, 128)
            for folder in folders
            for runtime, path in (("torch", folder / "student"), ("openvino", folder / "exports" / "openvino-int8"))
        ]
        pairs = chunk[0].split.evaluation
        sample = pairs.select(np.linspace(0, len(pairs) - 1, 256).astype(int).tolist())
        measured = measure_all(requests, sample.queries, sample.documents, Measuring(2.0, lengths=(64,)))
        values = [
            {
                "p50_ms": one["latency_ms"]["p50"],
                "size_mb": one["size_mb"],
                "pairs_per_s": one["throughput_pairs_per_s"],
            }
            for one in measured
        ]
        for folder, torch_values, int8_values in zip(folders, values[::2], values[1::2], strict=True):
            if not (folder / "latency.json").exists():
                write_json(
                    folder / "latency.json",
                    {"torch": torch_values, "int8": int8_values, "whole": values[0], "whole_int8": values[1]},
                )


def architecture_of(folder: Path) -> str:
    return json.dumps(json.loads((folder / "result.json").read_text(encoding="utf-8"))["architecture"])


def table(output: Path) -> str:
    """All that is there, as Markdown."""
    latencies = {
        architecture_of(path.parent): json.loads(path.read_text(encoding="utf-8"))
        for path in output.glob("*/latency.json")
    }
    lines = [
        "| student | kept | MB | int8 MB | p50 ms | int8 p50 ms | before | after (95 %) | of teacher |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    teacher = json.loads((output / "teacher" / "result.json").read_text(encoding="utf-8"))["after"]["value"]
    for name in ("teacher", *students()):
        folder = output / name.replace(" ", "-").replace(",", "").replace("%", "")
        if not (folder / "result.json").exists():
            continue
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        speed = latencies.get(architecture_of(folder))
        cells = (
            ["", "", ""]
            if speed is None
            else [
                f"{speed['int8']['size_mb']:.1f}",
                f"{speed['torch']['p50_ms']:.2f}",
                f"{speed['int8']['p50_ms']:.2f}",
            ]
        )
        after = result["after"]
        lines.append(
            f"| {name} | {kept(result)} | {result['size_mb']} | {' | '.join(cells)} | {result['before']['value']:.4f} "
            if "before" in result
            else f"| {name} | | {result['size_mb']} | {' | '.join(cells)} | "
        )
        lines[-1] += (
            f"| {after['value']:.4f} ({after['low']:.4f}–{after['high']:.4f}) | {after['value'] / teacher:.1%} |"
        )
    return "\n".join(lines)


def kept(result: dict[str, Any]) -> str:
    parts = []
    if "layers" in result:
        parts.append("layers " + ", ".join(map(str, result["layers"]["kept"])))
    if "width" in result and "variance_kept" in result["width"]:
        parts.append(f"{result['architecture'][2]} heads, {result['width']['variance_kept']:.0%} of variance")
    return "; ".join(parts)


if __name__ == "__main__":
    main()
