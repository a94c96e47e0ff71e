"""A Korean–English student from an English teacher: MiniLM-L6, translations as training text, a new or extended vocabulary.

    python -m tests.benchmarks.korean_english_vocabulary ../shared/data runs/ko_en --start focus --layers 3 --steps 300
    python -m tests.benchmarks.korean_english_vocabulary ../shared/data runs/ko_en --start mean …      # exact, kept
    python -m tests.benchmarks.korean_english_vocabulary ../shared/data runs/ko_en --extend --size 12000 …
    python -m tests.benchmarks.korean_english_vocabulary ../shared/data runs/ko_en --table

The teacher's embeddings of the English side are what the student's of both sides are to match (Reimers & Gurevych 2020).
12,000 pairs of `ko_en_parallel` (without the rows of STS-B dev, and without any text of either dev set), and the English
STS-B training sentences. `kept` is the teacher's own vocabulary, in which Korean is letters and unknown words. Nothing
Korean is labelled anywhere: KorSTS dev is read for the result alone. A run that is killed goes on where it was.
"""

import argparse
import json
import random
import shutil
import time
from pathlib import Path

import numpy as np
import yaml
from scipy.stats import spearmanr

from distill.data.pairs import read_columns, read_pairs
from distill.files.artefact import read_card
from distill.models.modeling import build_model, load_model
from distill.recipe.schema import Columns
from recipes.cli import main as distill

COLUMNS = Columns(query="sentence1", document="sentence2", label="score")
LAYERS = {6: [0, 1, 2, 3, 4, 5], 3: [0, 3, 5], 2: [0, 5]}
N_PAIRS = 12_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--start", choices=["exact", "mean", "focus", "kept"], default="focus")
    parser.add_argument("--extend", action="store_true", help="keep the vocabulary and add --size tokens")
    parser.add_argument("--layers", type=int, choices=LAYERS, default=3)
    parser.add_argument("--tokenizer", choices=["unigram", "wordpiece"], default="unigram")
    parser.add_argument("--size", type=int, default=16_000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=N_PAIRS)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    results = arguments.work / "results.jsonl"
    if arguments.table:
        return print_table(results)
    dev = {
        name: read_pairs(str(arguments.data / path), COLUMNS, label_range=(0, 5))
        for name, path in (("korsts", "korsts/korsts_dev.tsv.gz"), ("stsb", "stsb_en/stsb_dev.tsv.gz"))
    }
    base = signals_of(arguments, dev)
    vocabulary, change = changed(arguments)
    folder = arguments.work / f"{vocabulary}-{arguments.layers}-{arguments.steps}-{arguments.pairs}"
    if not folder.exists():
        for part in ("teachers", "signals"):
            shutil.copytree(base / part, folder / part)
    student = {"layers": LAYERS[arguments.layers], "vocabulary": change}
    began = time.perf_counter()
    run("train-student", recipe(arguments, folder, student))
    found = {name: spearman(load_model(folder / "student"), pairs) for name, pairs in dev.items()}
    at_start = {f"{name} at the start": spearman(load_model(folder / "built"), pairs) for name, pairs in dev.items()}
    built, trained = read_card(folder / "built"), read_card(folder / "student")
    row = {
        "vocabulary": vocabulary,
        "layers": arguments.layers,
        "steps": arguments.steps,
        "pairs": arguments.pairs,
        **found,
        **at_start,
        "parameters": sum(p.numel() for p in load_model(folder / "student").parameters()),
        "starts": built.details.get("vocabulary", {}).get("starts"),
        "seconds": trained.details["seconds"],
        "wall_s": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(row), flush=True)
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def changed(arguments) -> tuple[str, dict | None]:
    """Return the row's name and the recipe's section."""
    size, start = arguments.size, arguments.start
    if start == "kept":
        return start, None
    if arguments.extend:
        return f"extended-{size}-{start}", {"extend": {"scripts": "hangul", "tokens": size, "start": start}}
    kind = arguments.tokenizer
    return f"{kind}-{size}-{start}", {"train": {"tokenizer": kind, "size": size, "start": start}}


def signals_of(arguments, dev) -> Path:
    """Write the translations and ask the teacher, once for all variants."""
    folder = arguments.work / f"base-{arguments.pairs}"
    pairs = folder / "pairs.tsv"
    if not pairs.exists():
        table = read_columns(str(arguments.data / "ko_en_parallel/train.tsv.gz"), ["source", "ko", "en"])
        held_out = {text for part in dev.values() for text in (*part.queries, *part.documents)}
        rows = [
            (ko, en)
            for source, ko, en in zip(table["source"], table["ko"], table["en"], strict=True)
            if ko and en and source != "stsb_dev" and held_out.isdisjoint((ko, en))
        ]
        folder.mkdir(parents=True, exist_ok=True)
        chosen = random.Random(0).sample(rows, min(arguments.pairs, len(rows)))
        pairs.write_text("ko\ten\n" + "".join(f"{ko}\t{en}\n" for ko, en in chosen), encoding="utf-8")
    for stage in ("train-teacher", "cache-signals"):
        run(stage, recipe(arguments, folder, {}))
    for name, part in dev.items():
        scores = folder / f"teacher-{name}.json"
        if not scores.exists():
            teacher = build_model("bi_encoder", "all-MiniLM-L6-v2", max_length=128)
            scores.write_text(json.dumps(spearman(teacher, part)))
            print(f"teacher on {name}: {scores.read_text()}", flush=True)
    return folder


def recipe(arguments, folder: Path, student: dict) -> Path:
    whole = {
        "name": "ko_en",
        "output_dir": str(folder),
        "data": {
            "train": str(arguments.data / "stsb_en/stsb_train.tsv.gz"),
            "label_range": [0, 5],
            "evaluation": str(arguments.data / "korsts/korsts_dev.tsv.gz"),
            "columns": {"query": "sentence1", "document": "sentence2", "label": "score"},
            "parallel": [
                {"path": str(arguments.work / f"base-{arguments.pairs}/pairs.tsv"), "source": "en", "target": "ko"}
            ],
        },
        "teachers": {
            "minilm": {"kind": "bi_encoder", "backbone": "all-MiniLM-L6-v2", "frozen": True, "max_length": 128}
        },
        "signals": {"runtime": "openvino"},
        "student": {"kind": "bi_encoder", "backbone": {"teacher": "minilm"}, "max_length": 128, "control": False}
        | student,
        "objectives": {"embedding_match": {"teacher": "minilm", "loss": "cosine"}},
        "training": {
            "epochs": 1000,
            "max_steps": arguments.steps,
            "learning_rate": 5.0e-4,
            "global_batch": 64,
            "micro_batch": 64,
            "dropout": 0.0,
            "evaluations_per_epoch": 0,
            "tensorboard": False,
        },
    }
    path = folder.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    return path


def run(stage: str, path: Path) -> None:
    code = distill([stage, str(path)])
    if code:
        raise SystemExit(code)


def spearman(model: object, dev: object) -> float:
    queries, documents = (
        model.eval().encode(texts, batch_size=64, show_progress_bar=False) for texts in (dev.queries, dev.documents)
    )  # type: ignore[attr-defined]
    cosines = (queries * documents).sum(axis=1) / np.linalg.norm(queries, axis=1) / np.linalg.norm(documents, axis=1)
    return round(float(spearmanr(cosines, dev.labels).statistic), 4)


def print_table(results: Path) -> None:
    print("| vocabulary and start | layers | steps | M parameters | KorSTS dev | STS-B dev | before training | s |")
    print("|---|---|---|---|---|---|---|---|")
    for line in results.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        before = f"{row['korsts at the start']:.4f}, {row['stsb at the start']:.4f}"
        print(
            f"| {row['vocabulary']} | {row['layers']} | {row['steps']} | {row['parameters'] / 1e6:.1f} | {row['korsts']:.4f} | {row['stsb']:.4f} | {before} | {row['seconds']:.0f} |"
        )


if __name__ == "__main__":
    main()
