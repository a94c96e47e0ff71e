"""Output dimensions, Matryoshka prefixes and static students of MiniLM-L6 on STS-B: size, latency, Spearman and its interval.

    python -m tests.benchmarks.dimensions_and_static ../shared/data runs/dimensions teacher pca cut     # some pieces
    python -m tests.benchmarks.dimensions_and_static ../shared/data runs/dimensions table               # what they gave

Each piece is one model, built and (where it says so) trained, in its own run folder with the teacher and its signals copied
in; pieces that are there are kept. Three layers are 0, 2, 4, trained on the embeddings of the STS-B training pairs and
8,000 other sentences for four epochs, as in recipes/stsb_en.yaml. Latency is one pair at a time, tokenisation included.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import Pairs
from distill.evaluation.latency import Measuring, Request, measure_all
from distill.files.artefact import read_card
from distill.metrics.measures import evaluate_scores
from distill.recipe.schema import Recipe
from distill.run import Run
from distill.runtime.opening import load
from students import build_student, export_static_student, train_student
from teachers import cache_signals, train_teachers

LAYERS = {"backbone": {"teacher": "minilm"}, "layers": [0, 2, 4]}
STATIC = {
    "backbone": {"teacher": "minilm"},
    "training": {"learning_rate": 1.0e-2, "global_batch": 256, "micro_batch": 256, "token_budget": 65536},
}
MATRYOSHKA = {"matryoshka": [256, 128, 64]}
# name: student, more objectives, trained or only built, widths that it is cut to
PIECES: dict[str, tuple[dict[str, Any], dict[str, Any], bool, list[int]]] = {
    "teacher": ({"backbone": {"teacher": "minilm"}}, {}, False, [256, 128, 64]),
    "pca256": ({"backbone": {"teacher": "minilm"}, "dimensions": 256}, {}, False, []),
    "pca128": ({"backbone": {"teacher": "minilm"}, "dimensions": 128}, {}, False, []),
    "pca64": ({"backbone": {"teacher": "minilm"}, "dimensions": 64}, {}, False, []),
    "layers": (LAYERS, {}, True, [256, 128, 64]),
    "layers384": ({**LAYERS, "dimensions": 384}, {}, True, [256, 128, 64]),
    "layers384-matryoshka": ({**LAYERS, "dimensions": 384}, MATRYOSHKA, True, [256, 128, 64]),
    "layers256": ({**LAYERS, "dimensions": 256}, {}, True, []),
    "layers128": ({**LAYERS, "dimensions": 128}, {}, True, []),
    "layers64": ({**LAYERS, "dimensions": 64}, {}, True, []),
    "static-none": ({**STATIC, "static": {"weighting": "none"}, "dimensions": 256}, {}, True, []),
    "static-sif": ({**STATIC, "static": {"weighting": "sif"}, "dimensions": 256}, {}, True, []),
    "static": ({**STATIC, "static": {}, "dimensions": 256}, {}, True, []),
    "static-matryoshka": ({**STATIC, "static": {}, "dimensions": 384}, MATRYOSHKA, True, [256, 128, 64]),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("pieces", nargs="+", choices=[*PIECES, "table"])
    arguments = parser.parse_args()
    for piece in arguments.pieces:
        if piece == "table":
            print(table(arguments.data, arguments.runs))
        elif not (arguments.runs / f"{piece}.json").is_file():
            result = measured(arguments.data, arguments.runs, piece)
            (arguments.runs / f"{piece}.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
            print(piece, json.dumps(result), flush=True)


def recipe(data: Path, folder: Path, student: dict[str, Any], objectives: dict[str, Any]) -> Recipe:
    sts = data / "stsb_en"
    return Recipe.model_validate(
        {
            "name": "dimensions",
            "output_dir": str(folder),
            "data": {
                "train": str(sts / "stsb_train.tsv.gz"),
                "evaluation": str(sts / "stsb_dev.tsv.gz"),
                "label_range": [0, 5],
                "columns": {"query": "sentence1", "document": "sentence2", "label": "score"},
                "unlabelled": [
                    {"path": str(data / "ko_en_parallel/train.tsv.gz"), "columns": ["en"], "max_texts": 8000}
                ],
            },
            "teachers": {
                "minilm": {"kind": "bi_encoder", "backbone": "all-MiniLM-L6-v2", "frozen": True, "max_length": 128}
            },
            "signals": {"runtime": "openvino"},
            "student": {"kind": "bi_encoder", "max_length": 128, "control": False, **student},
            "objectives": {"embedding_match": {"teacher": "minilm"}, **objectives},
            "training": {
                "epochs": 4,
                "learning_rate": 3.0e-4,
                "global_batch": 64,
                "micro_batch": 64,
                "dropout": 0.0,
                "tensorboard": False,
            },
        }
    )


def measured(data: Path, runs: Path, piece: str) -> dict[str, Any]:
    """Build and train a piece; return Spearman and interval of what was built, trained and exported, at each width."""
    student, objectives, is_trained, widths = PIECES[piece]
    run = Run(recipe(data, runs / piece, student, objectives))
    base = Run(recipe(data, runs / "base", {"backbone": {"teacher": "minilm"}}, {}))
    train_teachers(base)
    cache_signals(base)
    for part in ("teachers", "signals"):
        shutil.copytree(base.folder / part, run.folder / part, dirs_exist_ok=True)
    build_student(run)
    result: dict[str, Any] = {"built": spearman(run.built, run.split.evaluation, [None, *widths])}
    if is_trained:
        train_student(run)
        result["student"] = spearman(run.student, run.split.evaluation, [None, *widths])
        card = read_card(run.student)
        assert card is not None
        n_texts = 2 * len(run.split.train) + len(run.split.unlabelled)
        result["seconds"] = card.details["training"]["seconds"]
        result["texts_per_second"] = run.recipe.student.training.epochs * n_texts / result["seconds"]
        if "static" in student:
            export_static_student(run)
            result["int8"] = spearman(run.export("int8", "numpy"), run.split.evaluation, [None])
    return result


def spearman(folder: Path, pairs: Pairs, widths: list[int | None]) -> dict[str, Any]:
    found = {}
    for width in widths:
        scorer = load(folder, truncate=width)
        estimates = evaluate_scores(
            scores=scorer.score(pairs.queries, pairs.documents),
            labels=pairs.labels,
            query_ids=pairs.query_ids,
            seed=42,
        )
        found[str(scorer.embedding_width)] = estimates["spearman"].to_dict()
    return found


def table(data: Path, runs: Path) -> str:
    """Return all that was measured as one Markdown table, with size and latency in turns."""
    folders: dict[tuple[str, str], Path] = {}
    results = {
        piece: json.loads((runs / f"{piece}.json").read_text(encoding="utf-8"))
        for piece in PIECES
        if (runs / f"{piece}.json").is_file()
    }
    for piece, result in results.items():
        run = Run(recipe(data, runs / piece, *PIECES[piece][:2]))
        stages = {"built": run.built, "student": run.student, "int8": run.export("int8", "numpy")}
        folders |= {(piece, stage): stages[stage] for stage in stages if stage in result}
    # one architecture is measured once: training changes no speed
    timed = {key: folder for key, folder in folders.items() if key[1] != "built" or "student" not in results[key[0]]}
    evaluation = Run(recipe(data, runs / "base", {"backbone": {"teacher": "minilm"}}, {})).split.evaluation
    sample = evaluation.select(np.linspace(0, len(evaluation) - 1, 300).astype(int).tolist())
    speed = dict(
        zip(
            timed,
            measure_all(
                [Request(folder, f"{piece} {stage}", None, None, 2, 128) for (piece, stage), folder in timed.items()],
                sample.queries,
                sample.documents,
                Measuring(2.0, rounds=4),
            ),
            strict=True,
        )
    )
    lines = ["| model | dimensions | Spearman (95 %) | p50 ms | pairs/s | MB |", "|---|---:|---|---:|---:|---:|"]
    for (piece, stage), _ in folders.items():
        measured_speed = speed.get((piece, stage)) or speed[(piece, "student")]
        for width, estimate in results[piece][stage].items():
            lines.append(
                f"| {piece}, {stage} | {width} | {estimate['value']:.4f} ({estimate['low']:.4f}–{estimate['high']:.4f}) | "
                f"{measured_speed['latency_ms']['p50']:.2f} | {measured_speed['throughput_pairs_per_s']:.0f} | {measured_speed['size_mb']:.1f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
