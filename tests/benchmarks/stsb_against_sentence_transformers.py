"""MiniLM-L6 into three of its layers on STS-B, beside sentence-transformers' own trainer and MSELoss, same wall-clock.

    python -m tests.benchmarks.stsb_against_sentence_transformers ../shared/data/stsb_en runs/stsb_en
    python -m tests.benchmarks.stsb_against_sentence_transformers ../shared/data/stsb_en runs/stsb_en --layers 0,4,5

Theirs as their distillation script has it: 10,534 training sentences, 4 epochs, lr 3e-4, bf16, every second layer; or the
layers that ours chose. The second argument is the folder of a finished `distill run recipes/stsb_en.yaml`: its training and
labelling seconds are read from its cards.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from distill.data.pairs import Pairs, read_pairs
from distill.files.artefact import read_card
from distill.models.modeling import build_model, quiet
from distill.recipe.schema import Columns
from students.cut.depth import keep_layers
from tests.benchmarks.stock_trainer import train_with_stock

COLUMNS = Columns(query="sentence1", document="sentence2", label="score")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--layers", default="0,2,4", help="of theirs")
    arguments = parser.parse_args()
    layers = [int(layer) for layer in arguments.layers.split(",")]
    torch.set_num_threads(2)
    train = read_pairs(str(arguments.data / "stsb_train.tsv.gz"), COLUMNS, label_range=(0, 5))
    dev = read_pairs(str(arguments.data / "stsb_dev.tsv.gz"), COLUMNS, label_range=(0, 5))
    teacher = build_model("bi_encoder", "all-MiniLM-L6-v2", max_length=128)
    print(json.dumps({"who": "teacher", "spearman": spearman(teacher, dev)}), flush=True)
    print(json.dumps({"who": "sentence-transformers", "layers": layers, **theirs(train, dev, layers)}), flush=True)
    from sentence_transformers import SentenceTransformer

    card = read_card(arguments.run / "student")
    manifest = json.loads(next((arguments.run / "signals").glob("*/*/manifest.json")).read_text(encoding="utf-8"))
    ours = {"spearman": spearman(SentenceTransformer(str(arguments.run / "student"), device="cpu"), dev)}
    seconds = {"training": card.details["seconds"] if card else None, "labelling": manifest.get("seconds")}
    print(json.dumps({"who": "ours", **ours, "seconds": seconds}), flush=True)


def theirs(train: Pairs, dev: Pairs, layers: list[int]) -> dict[str, float]:
    texts = list(dict.fromkeys([*train.queries, *train.documents]))
    began = time.perf_counter()
    with quiet():
        teacher = build_model("bi_encoder", "all-MiniLM-L6-v2", max_length=128)
        target = teacher.encode(texts, batch_size=64, show_progress_bar=False)
        labelled = time.perf_counter()
        student = build_model("bi_encoder", "all-MiniLM-L6-v2", max_length=128)
        keep_layers(student[0].model, layers)
    settings = {"num_train_epochs": 4, "learning_rate": 3e-4, "bf16": True, "seed": 42}
    train_with_stock(student, {"sentence": texts, "label": target}, "MSELoss", **settings)
    ended = time.perf_counter()
    return {
        "n_texts": len(texts),
        "labelling_s": round(labelled - began, 1),
        "training_s": round(ended - labelled, 1),
        "spearman": spearman(student, dev),
    }


def spearman(model: object, dev: Pairs) -> float:
    queries, documents = (
        model.eval().encode(texts, batch_size=64, show_progress_bar=False) for texts in (dev.queries, dev.documents)
    )  # type: ignore[attr-defined]
    cosines = (queries * documents).sum(axis=1) / np.linalg.norm(queries, axis=1) / np.linalg.norm(documents, axis=1)
    return round(float(spearmanr(cosines, dev.labels).statistic), 4)


if __name__ == "__main__":
    main()
