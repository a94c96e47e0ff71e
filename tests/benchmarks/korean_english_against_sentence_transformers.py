"""The Korean–English student beside sentence-transformers' own trainer and losses: same texts, same start, same time.

    python -m tests.benchmarks.korean_english_against_sentence_transformers runs/korean_english --teacher use
    python -m tests.benchmarks.korean_english_against_sentence_transformers runs/korean_english --teacher minilm

The argument is the folder of a finished `distill run korean_english`; call it where that was called, so that the recipe's
paths hold. Theirs trains as their multilingual distillation script does: the labels of a text are a teacher's vector
(MSELoss), and a translation has that of its English side. They take one teacher:

    use      of both languages, so of all texts; its 512 numbers reduced to the student's 384 by PCA, as in their script
    minilm   of the English texts and, by the translations, of Korean; the student starts in its space

STS-B's labels follow (CoSENTLoss), once at each of two learning rates. Each stage takes as many CPU seconds as the training
of ours took seconds (their labels come for free), in steps of 64. Their start is our built student without its last
projection: they have no means to add Korean tokens to MiniLM. Its own vocabulary writes Korean in letters.
"""

import argparse
import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from distill.data.pairs import read_pairs
from distill.data.tables import read_text_columns, read_texts
from distill.files.artefact import read_card
from distill.machine.cpu import multiplies_bf16
from distill.models.modeling import build_model
from distill.recipe.schema import Columns
from tests.benchmarks.stock_trainer import cpu_seconds_with_stock

BATCH = 64
LEARNING_RATES = {"general": [5e-4], "task": [1e-4, 4e-4]}  # the recipe's, and for the labels a lower one
STS = Columns(query="sentence1", document="sentence2", label="score")
QUESTIONS = Columns(query="question1", document="question2", label="label")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--teacher", choices=("use", "minilm"), default="use")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    seconds = {
        "general": _seconds(given.run / "stages" / "general" / "student"),
        "task": _seconds(given.run / "student"),
    }
    student = _start(given.run / "built")
    texts, labels = _vectors_of_use() if given.teacher == "use" else _vectors_of_minilm()
    print(json.dumps({"theirs": given.teacher, "texts": len(texts), "seconds": seconds}), flush=True)
    order = np.random.default_rng(given.seed).permutation(len(texts))
    general = {"sentence": [texts[row] for row in order], "label": labels[order]}
    (student,) = _trained(student, general, "MSELoss", "general", seconds, given.seed)
    pairs = read_pairs("data/stsb_en/train.csv", STS, label_range=(0, 5))
    assert pairs.labels is not None
    task = {"sentence1": pairs.queries, "sentence2": pairs.documents, "score": pairs.labels.tolist()}
    _trained(student, task, "CoSENTLoss", "task", seconds, given.seed)


def _seconds(folder: Path) -> float:
    card = read_card(folder)
    if card is None:
        raise SystemExit(f"{folder} is no finished stage")
    return float(card.details["seconds"])


def _start(built: Path) -> Any:
    """Return transformer and pooling of the built student, whose embeddings are those of MiniLM's space."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(built), device="cpu")
    student = SentenceTransformer(modules=[model[0], model[1]], device="cpu")
    student.max_seq_length = 128
    return student


def _vectors_of_use() -> tuple[list[str], np.ndarray]:
    translations = read_text_columns("data/ko_en_parallel/train.csv", ["en", "ko"])
    source_of = {text: text for text in read_texts("data/use/texts.parquet")}
    source_of |= {text: text for text in translations["en"]}
    source_of = dict(zip(translations["ko"], translations["en"], strict=True)) | source_of
    stored = parquet.read_table("data/use/vectors.parquet")
    row_of = {text: row for row, text in enumerate(stored["text"].to_pylist())}
    stored_vectors = stored["vector"].combine_chunks().flatten().to_numpy().reshape(len(stored), -1)
    vectors = stored_vectors[[row_of[source] for source in source_of.values()]]
    sample = np.random.default_rng(0).choice(len(vectors), 20_000, replace=False)
    return list(source_of), PCA(384, random_state=0).fit(vectors[sample]).transform(vectors).astype(np.float32)


def _vectors_of_minilm() -> tuple[list[str], np.ndarray]:
    teacher = build_model("bi_encoder", "all-MiniLM-L6-v2", max_length=128)
    translations = read_text_columns("data/ko_en_parallel/train.csv", ["en", "ko"])
    english = [text for text in read_texts("data/use/texts.parquet") if text.isascii()]
    sources = list(dict.fromkeys([*english, *translations["en"]]))
    vectors = teacher.encode(sources, batch_size=BATCH, show_progress_bar=False)
    row_of = {text: row for row, text in enumerate(sources)}
    texts = dict(zip(translations["ko"], translations["en"], strict=True)) | {text: text for text in sources}
    return list(texts), vectors[[row_of[source] for source in texts.values()]]


def _trained(
    start: Any, columns: Mapping[str, Sequence[Any]], loss: str, stage: str, seconds: Mapping[str, float], seed: int
) -> list[Any]:
    """Train at each learning rate of the stage, and print what comes out; return the students.

    A few steps of a copy say how many fit into the stage's seconds, so that the schedule ends with them.
    """
    settings = {"bf16": multiplies_bf16(), "seed": seed}
    tried, students = 40, []
    for rate in LEARNING_RATES[stage]:
        short, long = (
            cpu_seconds_with_stock(copy.deepcopy(start), columns, loss, max_steps=n, learning_rate=rate, **settings)
            for n in (2, 2 + tried)
        )
        n_steps = max(tried, round(seconds[stage] * tried / (long - short)))
        student = copy.deepcopy(start)
        taken = cpu_seconds_with_stock(student, columns, loss, max_steps=n_steps, learning_rate=rate, **settings)
        said = {"stage": stage, "loss": loss, "learning_rate": rate, "steps": n_steps, "cpu_seconds": round(taken)}
        print(json.dumps({**said, **_dev_scores(student)}), flush=True)
        students.append(student)
    return students


def _dev_scores(model: Any) -> dict[str, float]:
    """Return Spearman on KorSTS and STS-B, and ROC-AUC on Question pair, of the dev sets."""
    found = {}
    for name, columns, label_range in (
        ("korsts", STS, (0, 5)),
        ("stsb_en", STS, (0, 5)),
        ("question_pair", QUESTIONS, (0, 1)),
    ):
        pairs = read_pairs(f"data/{name}/dev.csv", columns, label_range=label_range)
        left, right = (
            model.eval().encode(texts, batch_size=BATCH, show_progress_bar=False)
            for texts in (pairs.queries, pairs.documents)
        )
        cosines = (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
        is_binary = name == "question_pair"
        value = roc_auc_score(pairs.labels, cosines) if is_binary else spearmanr(cosines, pairs.labels).statistic
        found[name] = round(float(value), 4)
    return found


if __name__ == "__main__":
    main()
