"""Our static int8 for ONNX beside onnxruntime as it comes: one model, one machine, taking turns.

    python -m tests.benchmarks.onnx_against_onnxruntime ../shared/data/korsts --sentences 768 --rounds 5

Theirs: `torch.onnx.export`, `quantize_static` with default settings, calibrated on the same texts, an `InferenceSession`
with default options over batches of 32 texts in the order they come, pooling in numpy. The newer exporter is taken where
onnxscript is installed; the older one, which fails on transformers 5 by itself, gets our masks otherwise, so that their
graph is better than it would be. A second line runs our graph in their loop: what is left is the runtime's part.
End to end, tokenisation included; quality is the cosine to torch in float32.
"""

import argparse
import csv
import gzip
import importlib.util
import json
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

from distill.data.words import forget_words
from distill.graphs.trace import load_graph_module, traceable_masks
from distill.machine.cpu import usable_cpus
from distill.models.backbone import resolve_name
from distill.models.modeling import quiet
from distill.runtime.opening import load
from students.export.stage import Thresholds, export_model

_BATCH = 32
_NAMES = ("input_ids", "attention_mask", "token_type_ids")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("korsts", type=Path)
    parser.add_argument("--sentences", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    options = parser.parse_args()
    model = Path(resolve_name(options.model))
    calibration, evaluated = _pairs(options.korsts, "train")[:400], _pairs(options.korsts, "dev")
    texts = [text for pair in evaluated for text in pair][: options.sentences]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        report = export_model(
            model,
            folder / "ours",
            format="onnx",
            precision="int8",
            calibration=calibration,
            held_back=evaluated[-100:],
            thresholds=Thresholds(),
        )
        theirs = _plain(model, folder, [text for pair in calibration for text in pair][:300])
        ours, reference = load(folder / "ours"), load(model, runtime="torch")
        loops = {
            "onnxruntime, defaults": _loop(model, theirs),
            "our graph, their loop": _loop(model, folder / "ours" / "onnx" / "model.onnx"),
            "ours": lambda: ours.encode(texts),
        }
        runs = {name: (lambda loop=loop: loop(texts)) if name != "ours" else loop for name, loop in loops.items()}
        _compare(runs, reference.encode(texts), options.rounds)
        print(json.dumps({"pairs": report.n_pairs, "rank_agreement": report.rank_agreement, "threads": usable_cpus()}))


def _compare(runs, expected, rounds):
    vectors = {name: run() for name, run in runs.items()}  # every shape once
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            forget_words()  # the texts of every round are the same
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    first = next(iter(runs))
    for name, values in vectors.items():
        cosines = (values * expected).sum(axis=1) / np.linalg.norm(values, axis=1)
        ratios = sorted(one / own for one, own in zip(seconds[first], seconds[name], strict=True))
        print(
            f"{name:24} {len(values) / np.median(seconds[name]):7.1f} sentences/s   × {np.median(ratios):.2f} "
            f"({ratios[0]:.2f}–{ratios[-1]:.2f})   cosine mean {cosines.mean():.4f} least {cosines.min():.4f}"
        )


def _plain(model: Path, folder: Path, calibration: list[str]) -> Path:
    """Export and quantize as the documentation of both shows first."""
    import torch
    from onnxruntime.quantization import quantize_static
    from transformers import AutoModel, AutoTokenizer

    target, written = folder / "plain.onnx", folder / "plain-int8.onnx"
    with quiet():
        encoder, tokenizer = (
            AutoModel.from_pretrained(model, dtype=torch.float32).eval(),
            AutoTokenizer.from_pretrained(model),
        )
    if importlib.util.find_spec("onnxscript"):
        example = tuple(torch.ones(2, 9, dtype=torch.int64) for _ in _NAMES)
        axes = {name: {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")} for name in _NAMES}
        with quiet():
            torch.onnx.export(
                encoder,
                example,
                str(target),
                input_names=list(_NAMES),
                output_names=["last_hidden_state"],
                dynamic_shapes=axes,
            )
    else:
        module = load_graph_module(model)
        axes = {name: {0: "rows", 1: "tokens"} for name in (*_NAMES, "last_hidden_state")}
        with quiet(), torch.no_grad(), traceable_masks():
            torch.onnx.export(
                module,
                module.example,
                str(target),
                dynamo=False,
                opset_version=17,
                input_names=list(_NAMES),
                output_names=["last_hidden_state", "sentence_embedding"],
                dynamic_axes=axes,
            )

    class Reader:
        rest = iter(calibration)

        def get_next(self):
            text = next(self.rest, None)
            return (
                None if text is None else dict(tokenizer([text], truncation=True, max_length=256, return_tensors="np"))
            )

    logging.disable(logging.WARNING)
    quantize_static(str(target), str(written), Reader(), extra_options={"DefaultTensorType": 1})
    logging.disable(logging.NOTSET)
    return written


def _loop(model: Path, graph: Path):
    """Batches in the order of the texts, padded to the longest, mean pooling in numpy where the graph has none."""
    from transformers import AutoTokenizer

    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cpus()
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]

    def run(texts: list[str]) -> np.ndarray:
        rows = []
        for start in range(0, len(texts), _BATCH):
            batch = tokenizer(
                texts[start : start + _BATCH], padding=True, truncation=True, max_length=256, return_tensors="np"
            )
            (tokens,) = session.run(["last_hidden_state"], {name: batch[name] for name in names})
            mask = batch["attention_mask"][..., None].astype(np.float32)
            pooled = (tokens * mask).sum(axis=1) / mask.sum(axis=1)
            rows.append(pooled / np.linalg.norm(pooled, axis=1, keepdims=True))
        return np.concatenate(rows)

    return run


def _pairs(folder: Path, part: str) -> list[tuple[str, str]]:
    (path,) = folder.glob(f"*{part}*.tsv.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [(row["sentence1"], row["sentence2"]) for row in rows]


if __name__ == "__main__":
    main()
