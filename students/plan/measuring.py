"""Measures exported students on texts of one length, as the benchmark measures them."""

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.data.tokens import tokenize
from distill.errors import BadInput
from distill.evaluation.latency import Measuring, Request, measure_all
from distill.progress import step_progress

__all__ = ["cost_row", "measure_folders", "texts_of_length"]

_ROUNDS = 5  # each shape is measured once per round, in turns, so that drift of the machine affects all shapes equally
_N_TEXTS = 32  # texts that a shape is measured on


def measure_folders(
    folders: Sequence[tuple[str, Path]],
    texts: tuple[list[str], list[str]],
    *,
    length: int,
    n_threads: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Measure exported folders in turns, as `distill.evaluation.latency.measure_all` does, on texts of one length.

    :param folders: each with the name to display
    :param texts: queries and documents
    """
    requests = [Request(folder, name, "openvino", None, n_threads, length, count=False) for name, folder in folders]
    with step_progress("measuring") as on_progress:
        return measure_all(requests, *texts, Measuring(seconds, _ROUNDS, (2 * length,)), on_progress=on_progress)


def cost_row(result: dict[str, Any]) -> dict[str, Any]:
    """Return the costs of a measurement, and its raw samples."""
    latency = result["latency_ms"]
    costs = {
        "p50_ms": latency["p50"],
        "p95_ms": latency["p95"],
        "text_ms": 1000 / result["throughput_pairs_per_s"],
        "size_mb": result["size_mb"],
    }
    return {"costs": costs, "n": latency["n"], "latency_ms": result["per_run"]["latency_ms"]}


def texts_of_length(
    tokenizer: Any, sources: Sequence[str], n_tokens: int, kind: str, n_texts: int = _N_TEXTS
) -> tuple[list[str], list[str]]:
    """Make texts with a given number of tokens from any texts, cut between words; the last word may be truncated later.

    For a bi-encoder, query and document are the same text of `n_tokens`; for a cross-encoder, each has half of them.
    """
    n_each = n_tokens if kind == "bi_encoder" else -(-n_tokens // 2)
    words = [word for text in sources for word in text.split()]
    if not words:
        raise BadInput("a plan needs text to measure with; the recipe's training pairs hold no word")
    step = max(1, len(words) // (2 * n_texts))
    texts = [_text_from(tokenizer, words, place * step, n_each) for place in range(2 * n_texts)]
    return (texts[:n_texts], texts[:n_texts]) if kind == "bi_encoder" else (texts[:n_texts], texts[n_texts:])


def _text_from(tokenizer: Any, words: Sequence[str], start: int, n_tokens: int) -> str:
    """Return the shortest run of words from `start`, wrapping around at the end, with at least `n_tokens` tokens."""
    run = [words[(start + place) % len(words)] for place in range(n_tokens)]  # a word has at least one token

    def n_of(n_words: int) -> int:
        return int(tokenize(tokenizer, [" ".join(run[:n_words])], max_length=1 << 20).lengths[0])

    n_words = bisect_left(range(1, len(run) + 1), n_tokens, key=n_of) + 1
    return " ".join(run[:n_words])
