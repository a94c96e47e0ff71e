"""int8 of MiniLM-L6 on every class of CPU: what this one computes, what exact sums come to, and fp32, in two languages.

    python -m tests.benchmarks.int8_arithmetic ../shared/data
    python -m tests.benchmarks.int8_arithmetic ../shared/data --kinds bi_encoder --formats onnx --pairs 300

A bi-encoder (all-MiniLM-L6-v2 as it is) and a cross-encoder (the same with a score, trained for `--steps` steps on both
languages' STS-B scores), exported to OpenVINO and ONNX with the default settings, calibrated on the training pairs of stsb_en
and korsts, and judged on pairs of both dev sets. The fp32 model is torch's. "arithmetic" is int8 as this CPU computes it
against exact int8 (`students.export.arithmetic`), "to fp32" against torch: of a bi-encoder the mean and the least cosine, of a
cross-encoder Spearman's correlation of the logits and their greatest difference in standard deviations. "loss" is what
Spearman's correlation with the labels loses, with a 95 % interval over resampled pairs. With weights of 8 bits (`--eight-bits`) one sees what there was to mend.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from distill.data.pairs import Pairs, read_pairs
from distill.machine.cpu import cpu_class, cpu_model
from distill.models.backbone import resolve_name
from distill.models.modeling import build_model, save_model
from distill.recipe.schema import Columns
from distill.runtime.opening import load
from students.export.arithmetic import int8_results
from students.export.gate import Thresholds
from students.export.stage import export_model

_COLUMNS = Columns(query="sentence1", document="sentence2", label="score")
_SETS = {"English": ("stsb_en/stsb_{}.tsv.gz"), "Korean": ("korsts/korsts_{}.tsv.gz")}
_MODEL = "all-MiniLM-L6-v2"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=1500, help="of each dev set")
    parser.add_argument("--calibration", type=int, default=300, help="inputs that set the ranges")
    parser.add_argument("--steps", type=int, default=150, help="of the cross-encoder's training, 16 pairs each")
    parser.add_argument("--kinds", default="bi_encoder,cross_encoder")
    parser.add_argument("--formats", default="openvino,onnx")
    parser.add_argument("--eight-bits", action="store_true")
    options = parser.parse_args()
    train = {name: _read(options.data / path.format("train")) for name, path in _SETS.items()}
    dev = {name: _read(options.data / path.format("dev")) for name, path in _SETS.items()}
    print(
        f"{cpu_class()} ({cpu_model()[0]}), {options.pairs} pairs a language, weights of {8 if options.eight_bits else 7} bits"
    )
    print(f"{'':34} {'arithmetic':>17} {'to fp32':>17} {'Spearman fp32':>14} {'int8':>7} {'loss':>8}  95 %")
    with tempfile.TemporaryDirectory() as place:
        for kind in options.kinds.split(","):
            source = (
                Path(resolve_name(_MODEL))
                if kind == "bi_encoder"
                else _cross_encoder(train, Path(place), options.steps)
            )
            judges = [partial(_judge, source, name, pairs, options.pairs) for name, pairs in dev.items()]
            for format in options.formats.split(","):
                _export(source, Path(place) / f"{kind}-{format}", format, train, dev, options)
                for judge in judges:
                    judge(kind, format, Path(place) / f"{kind}-{format}")


def _read(path: Path) -> Pairs:
    return read_pairs(str(path), _COLUMNS, label_range=(0, 5))


def _texts(pairs: Pairs, n: int | None = None) -> list[tuple[str, str]]:
    """Return pairs of a set, spread evenly over it: the sets are sorted by where they come from."""
    rows = range(len(pairs.queries)) if n is None else _rows(pairs, n)
    return [(pairs.queries[row], pairs.documents[row]) for row in rows]


def _rows(pairs: Pairs, n: int) -> list[int]:
    return [int(row) for row in np.linspace(0, len(pairs.queries) - 1, min(n, len(pairs.queries)))]


def _export(source, target, format, train, dev, options):
    began = time.perf_counter()
    export_model(
        source,
        target,
        format=format,
        precision="int8",
        thresholds=Thresholds(),
        n_calibration=options.calibration,
        calibration=[pair for pairs in train.values() for pair in _texts(pairs)],
        held_back=[pair for pairs in dev.values() for pair in _texts(pairs, 50)],
        _overflow_safe=not options.eight_bits,
    )
    print(f"  {target.name} written in {time.perf_counter() - began:.0f} s", flush=True)


def _judge(source: Path, language: str, pairs: Pairs, n: int, kind: str, format: str, folder: Path) -> None:
    shown, labels = _texts(pairs, n), pairs.labels[_rows(pairs, n)]
    reference, own = load(source, runtime="torch"), load(folder, runtime=format)
    left, right = [pair[0] for pair in shown], [pair[1] for pair in shown]
    if kind == "bi_encoder":
        texts = list(dict.fromkeys([*left, *right]))
        here, exact = (int8_results(own, format, texts, exact=exact) for exact in (False, True))
        arithmetic, to_fp32 = _cosines(here, exact), _cosines(own.encode(texts), reference.encode(texts))
    else:
        here, exact = (int8_results(own, format, left, right, exact=exact)[:, 0] for exact in (False, True))
        arithmetic, to_fp32 = _logits(here, exact), _logits(own.score(left, right), reference.score(left, right))
    scores = [np.asarray(scorer.score(left, right)) for scorer in (reference, own)]
    before, after = (float(spearmanr(given, labels).statistic) for given in scores)
    low, high = _interval(*scores, labels)
    print(
        f"{kind:14} {format:10} {language:8} {arithmetic[0]:8.5f} {arithmetic[1]:8.5f} {to_fp32[0]:8.5f} {to_fp32[1]:8.5f} "
        f"{before:14.4f} {after:7.4f} {before - after:+8.4f}  {low:+.4f} to {high:+.4f}",
        flush=True,
    )


def _interval(before: np.ndarray, after: np.ndarray, labels: np.ndarray, n: int = 1000) -> tuple[float, float]:
    """Return the 95 % interval of the loss of Spearman's correlation, over pairs drawn with replacement.

    *Shape:* before, after, labels: (n_pairs,)
    """
    rng, losses = np.random.default_rng(0), []
    for _ in range(n):
        rows = rng.integers(0, len(labels), len(labels))
        of_each = (spearmanr(scores[rows], labels[rows]).statistic for scores in (before, after))
        losses.append(float(next(of_each)) - float(next(of_each)))
    low, high = np.percentile(losses, [2.5, 97.5])
    return float(low), float(high)


def _cosines(own: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """*Shape:* (n_texts, width) each."""
    cosines = (own * other).sum(axis=1) / (np.linalg.norm(own, axis=1) * np.linalg.norm(other, axis=1))
    return float(cosines.mean()), float(cosines.min())


def _logits(own: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """*Shape:* (n_pairs,) each."""
    return float(spearmanr(own, other).statistic), float(np.abs(own - other).max() / other.std())


def _cross_encoder(train: dict[str, Pairs], place: Path, n_steps: int) -> Path:
    """Put a score on MiniLM and train it for a moment: logits of a model that has learned something."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    model = build_model("cross_encoder", _MODEL, max_length=128).train()
    pairs = [pair for one in train.values() for pair in _texts(one)]
    labels = torch.tensor(np.concatenate([one.labels for one in train.values()]), dtype=torch.float32)
    optimizer, rng = torch.optim.AdamW(model.parameters(), lr=1e-4), np.random.default_rng(0)
    for step in range(n_steps):
        rows = rng.choice(len(pairs), 16, replace=False)
        for group in optimizer.param_groups:
            group["lr"] = 1e-4 * (1 - step / n_steps)
        features = model.preprocess([pairs[row] for row in rows])
        loss = binary_cross_entropy_with_logits(model(features)["scores"].squeeze(-1), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"  cross-encoder trained, last loss {float(loss.detach()):.3f}", flush=True)
    save_model(model.eval(), place / "cross")
    return place / "cross"


if __name__ == "__main__":
    main()
