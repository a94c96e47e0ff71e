"""Training and labelling speed beside sentence-transformers' own trainer and `encode`, in one run, on real text.

    python -m tests.benchmarks.speed_against_sentence_transformers ../shared/data/ko_en_parallel/train.tsv.gz

Both train the same 6-layer MiniLM-size student (cut nowhere, weights as they come) on the embeddings of the same teacher,
bf16, the same sentences, batch and learning rate, and are compared on held-out sentences after the same number of
sentences. The halves are interleaved (theirs, ours, theirs, ours) because machines are noisy. Prints one JSON line each.
"""

import argparse
import copy
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.data.pairs import Pairs, read_columns
from distill.models.backbone import resolve_name
from distill.models.modeling import build_model, save_model, tokenizer_of
from distill.recipe.schema import EmbeddingMatch, Objectives, Training
from distill.runtime.opening import load
from distill.training.loop import TrainingOutput, train
from distill.training.objectives import Step
from distill.training.trainset import LoneTexts, Tokenization, TrainSet
from tests.benchmarks.stock_trainer import train_with_stock

MAX_LENGTH, BATCH, RATE, SEED = 128, 64, 1e-4, 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("table", help="ko_en_parallel/train.tsv.gz, or any table with the columns ko and en")
    parser.add_argument("--sentences", type=int, default=3072)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    table = read_columns(arguments.table, ["ko", "en"])
    texts = random.Random(SEED).sample(sorted({*table["ko"], *table["en"]}), arguments.sentences + 512)
    train_texts, held_out = texts[:-512], texts[-512:]
    teacher = build_model("bi_encoder", "all-MiniLM-L6-v2", max_length=MAX_LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        save_model(teacher, Path(folder) / "teacher")
        labelling(Path(folder) / "teacher", train_texts, arguments.rounds)
        target = load(Path(folder) / "teacher", runtime="torch", precision="fp32").encode(texts)
        start = fresh_student()
        for round_number in range(arguments.rounds):
            for trainer in (theirs, ours):
                student = copy.deepcopy(start)
                began = time.perf_counter()
                trainer(student, train_texts, target[:-512], Path(folder) / f"{trainer.__name__}{round_number}")
                seconds = time.perf_counter() - began
                cosine = held_out_cosine(student, held_out, target[-512:])
                report("training", trainer.__name__, round_number, len(train_texts) / seconds, cosine)


def fresh_student() -> Any:
    """A student of MiniLM-L6's size that has to learn: its layers start anew."""
    student = build_model("bi_encoder", "all-MiniLM-L6-v2", max_length=MAX_LENGTH)
    torch.manual_seed(SEED)
    for module in student[0].model.encoder.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.02)
            torch.nn.init.zeros_(module.bias)
    return student


def theirs(student: Any, texts: list[str], target: np.ndarray, folder: Path) -> None:
    """sentence-transformers' trainer with MSELoss, as its distillation script has it."""
    settings = {"num_train_epochs": 1, "learning_rate": RATE, "bf16": True, "seed": SEED}
    train_with_stock(
        student, {"sentence": texts, "label": target}, "MSELoss", per_device_train_batch_size=BATCH, **settings
    )


def ours(student: Any, texts: list[str], target: np.ndarray, folder: Path) -> None:
    """The toolkit's loop, tokenisation included."""
    pairs = Pairs([], [], np.zeros(0, dtype=np.float32))
    trainset = TrainSet.build(
        Tokenization("bi_encoder", tokenizer_of(student), MAX_LENGTH), pairs, lone=LoneTexts(texts)
    )
    vectors = target[[texts.index(text) for text in trainset.texts]]
    trainset.embeddings = lambda rows: vectors[rows]
    settings = Training(
        epochs=1,
        learning_rate=RATE,
        global_batch=BATCH,
        micro_batch=BATCH,
        dropout=None,
        evaluations_per_epoch=0,
        checkpoint_seconds=1e9,
        tensorboard=False,
    )
    objectives = Objectives(embedding_match=EmbeddingMatch(teacher="teacher", loss="mse"))
    train(
        lambda: Step(student, "bi_encoder", objectives),
        trainset,
        None,
        settings,
        seed=SEED,
        output=TrainingOutput("ours", folder),
    )


def held_out_cosine(student: Any, texts: list[str], target: np.ndarray) -> float:
    vectors = student.eval().encode(texts, batch_size=64, show_progress_bar=False)
    return float((vectors * target).sum(axis=1).mean())


def labelling(folder: Path, texts: list[str], rounds: int) -> None:
    """Label with the frozen teacher: `encode` under bf16 autocast beside our scorer, torch and OpenVINO."""
    from sentence_transformers import SentenceTransformer

    from distill.data.words import forget_words
    from distill.graphs.openvino import export_graph

    stock = SentenceTransformer(str(folder), device="cpu")
    export_graph(folder, folder.parent / "graph", "bf16")
    scorers = {
        "ours, torch bf16": load(folder, runtime="torch", precision="bf16"),
        "ours, openvino bf16": load(folder.parent / "graph", runtime="openvino", precision="bf16"),
    }
    for round_number in range(rounds):
        for name in ("encode, torch bf16", *scorers):
            forget_words()  # the texts of every round are the same
            began = time.perf_counter()
            if name in scorers:
                vectors = scorers[name].encode(texts)
            else:
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    vectors = stock.encode(texts, batch_size=32, show_progress_bar=False)
            seconds = time.perf_counter() - began
            if round_number == 0 and name.startswith("encode"):
                reference = vectors
            report(
                "labelling", name, round_number, len(texts) / seconds, float((vectors * reference).sum(axis=1).mean())
            )


def report(what: str, who: str, round_number: int, sentences_per_s: float, cosine: float) -> None:
    row = {
        "what": what,
        "who": who,
        "round": round_number,
        "sentences_per_s": round(sentences_per_s, 1),
        "cosine": round(cosine, 4),
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    resolve_name("all-MiniLM-L6-v2")
    main()
