"""Real Korean and English text of mixed lengths, for the benchmarks of the runtime."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import read_columns

__all__ = ["mixed_texts", "sentences"]


def sentences(data: Path) -> dict[str, list[str]]:
    """Return the Korean and the English sentences of ../shared/data."""
    parallel = read_columns(str(data / "ko_en_parallel/train.tsv.gz"), ["ko", "en"])
    korean = set(parallel["ko"])
    for name in ("formal", "tech", "colloquial"):
        korean |= set(read_columns(str(data / f"ko_text/{name}.tsv.gz"), ["text"])["text"])
    return {"ko": sorted(korean), "en": sorted(set(parallel["en"]))}


def mixed_texts(
    pools: dict[str, list[str]], tokenizer: Any, n_texts: int, *, shortest: int = 8, longest: int = 400, seed: int = 0
) -> list[str]:
    """Join sentences of one language up to a drawn number of tokens, log-uniform: many short texts, some long."""
    rng = random.Random(seed)
    count: Callable[[str], int] = lambda text: len(tokenizer.encode(text).ids)  # noqa: E731
    texts: list[str] = []
    while len(texts) < n_texts:
        wanted = round(float(np.exp(rng.uniform(np.log(shortest), np.log(longest)))))
        pool, words = pools[rng.choice(("ko", "en"))], list[str]()
        while count(" ".join(words)) < wanted:
            words += rng.choice(pool).split()
        while words and count(" ".join(words)) > wanted:
            words.pop()
        if count(" ".join(words)) >= shortest:
            texts.append(" ".join(words))
    return texts
