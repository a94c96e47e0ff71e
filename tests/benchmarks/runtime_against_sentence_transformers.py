"""`encode` beside stock sentence-transformers, tokenisation inside: MiniLM-L6 and three layers of it, mixed lengths.

    python -m tests.benchmarks.runtime_against_sentence_transformers --data ../shared/data --models /tmp/minilm

Candidates: ours on an OpenVINO int8 folder; stock with backend="openvino" on the very same folder; stock in torch, float32.
Real Korean and English text of 8 to 400 tokens, every CPU that the process may use. The candidates go in turn, round by
round, on texts that no round repeats, and each round gives one ratio. Prints one JSON line a model, with the machine.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.latency import environment
from distill.machine import usable_cpus
from distill.model_files import open_tokenizer, read_model_files
from distill.modeling import build_model, quiet, save_model
from distill.runtime import load
from students.export import Thresholds, export_openvino
from tests.benchmarks.mixed_texts import mixed_texts, sentences

LAYERS = {"minilm-l6": (0, 1, 2, 3, 4, 5), "minilm-l3": (0, 2, 4)}
MAX_LENGTH, SEED = 512, 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="where the exported models are kept")
    parser.add_argument("--texts", type=int, default=250, help="a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tune", action="store_true", help="measure the settings for this machine first")
    parser.add_argument("--only", default=",".join(LAYERS))
    arguments = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # stock and ours alike
    torch.set_num_threads(usable_cpus())
    pools = sentences(arguments.data)
    print(json.dumps(environment()), flush=True)
    for name in arguments.only.split(","):
        source, int8 = export(name, arguments.models, pools)
        tokenizer = open_tokenizer(read_model_files(source)).backend_tokenizer
        texts = mixed_texts(pools, tokenizer, arguments.texts * (arguments.rounds + 1), seed=SEED)
        lengths = [len(tokenizer.encode(text).ids) for text in texts]
        print(
            json.dumps({"model": name, **compare(source, int8, texts, arguments), "tokens": spread(lengths)}),
            flush=True,
        )


def export(name: str, models: Path, pools: dict[str, list[str]]) -> tuple[Path, Path]:
    """Write the torch folder and its int8 export, or find them."""
    source, int8 = models / name, models / f"{name}-int8"
    if not source.exists():
        model = build_model("bi_encoder", "all-MiniLM-L6-v2", max_length=MAX_LENGTH)
        encoder = model[0].model.encoder
        encoder.layer = torch.nn.ModuleList([encoder.layer[i] for i in LAYERS[name]])
        model[0].model.config.num_hidden_layers = len(encoder.layer)
        save_model(model, source)
    if not int8.exists():
        tokenizer = open_tokenizer(read_model_files(source)).backend_tokenizer
        texts = mixed_texts(pools, tokenizer, 700, seed=SEED + 1)
        pairs = list(zip(texts[::2], texts[1::2], strict=True))
        export_openvino(
            source, int8, precision="int8", calibration=pairs[:300], held_back=pairs[300:], n_calibration=150,
            thresholds=Thresholds(mean_cosine=0.99),
        )  # fmt: skip
    return source, int8


def compare(source: Path, int8: Path, texts: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    with quiet():
        stock = SentenceTransformer(str(int8), backend="openvino", device="cpu")
        stock_torch = SentenceTransformer(str(source), device="cpu")
    ours = load(int8, tune=arguments.tune or None)
    candidates: dict[str, Callable[[list[str]], np.ndarray]] = {
        "ours": ours.encode,
        "stock_openvino": lambda part: stock.encode(part, show_progress_bar=False),
        "stock_torch": lambda part: stock_torch.encode(part, show_progress_bar=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    parts = [texts[i : i + arguments.texts] for i in range(0, len(texts), arguments.texts)]
    cosines = []
    for number, part in enumerate(parts):  # the first is a warm-up of all
        order = list(candidates)
        for name in order[number % 3 :] + order[: number % 3]:
            began = time.perf_counter()
            vectors = candidates[name](part)
            seconds[name].append(time.perf_counter() - began)
            if name != "stock_torch":
                cosines.append(vectors)
        left, right = cosines[-2:]
        cosines = [*cosines[:-2], (left * right).sum(axis=1)]
    timed = {name: np.array(values[1:]) for name, values in seconds.items()}
    return {
        "precision": ours.precision, "settings": repr(ours.settings),
        "times_stock_openvino": spread(timed["stock_openvino"] / timed["ours"]),
        "times_stock_torch_fp32": spread(timed["stock_torch"] / timed["ours"]),
        "texts_per_s": {name: round(arguments.texts / float(np.median(values)), 1) for name, values in timed.items()},
        "cosine_to_stock_openvino": {"mean": float(np.mean(cosines)), "min": float(np.min(cosines))},
        "load_average": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def spread(values: Any) -> dict[str, float]:
    return {name: round(float(np.percentile(values, q)), 2) for name, q in (("median", 50), ("min", 0), ("max", 100))}


if __name__ == "__main__":
    main()
