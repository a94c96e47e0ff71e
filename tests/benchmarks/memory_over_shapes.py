"""Memory over a thousand random (batch, length) calls of one loaded model: it has to stay flat.

    python -m tests.benchmarks.memory_over_shapes MODEL [--stock]

Each call encodes 1 to 64 texts of one random length. Prints the resident memory after loading, after the first hundred calls
and at the end, and the growth in between; --stock does the same with sentence-transformers' OpenVINO backend.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import psutil

from distill.runtime.opening import load

WORDS = "the cat sat on a mat and looked at how old men drink red wine with her big dog in our new car".split()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--longest", type=int, default=400)
    parser.add_argument("--most-rows", type=int, default=64)
    parser.add_argument("--stock", action="store_true")
    arguments = parser.parse_args()
    rng, rss = random.Random(0), psutil.Process().memory_info
    encode = opened(arguments)
    encode(["a first text"])
    memory = {"loaded_mb": rss().rss / 1e6}
    for number in range(arguments.calls):
        # few tokens a call in all: the shapes are what is tested, not the speed
        length = rng.randint(1, arguments.longest)
        n_rows = rng.randint(1, min(arguments.most_rows, max(1, 4096 // length)))
        encode([" ".join(rng.choices(WORDS, k=length)) for _ in range(n_rows)])
        if number + 1 == arguments.calls // 10:
            memory["after_a_tenth_mb"] = rss().rss / 1e6
    memory["end_mb"] = rss().rss / 1e6
    memory["growth_mb"] = memory["end_mb"] - memory["loaded_mb"]
    print(json.dumps({"who": "stock" if arguments.stock else "ours", "calls": arguments.calls, **memory}))


def opened(arguments: argparse.Namespace) -> Any:
    if not arguments.stock:
        return load(arguments.model).encode
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(arguments.model), backend="openvino", device="cpu")
    return lambda texts: model.encode(texts, batch_size=len(texts), show_progress_bar=False)


if __name__ == "__main__":
    main()
