"""`encode` beside stock runtimes on one class of CPU, each at its best precision, tokenisation inside.

    python -m tests.benchmarks.runtime_against_sentence_transformers --data ../shared/data --models /tmp/minilm

MiniLM-L6 and three of its layers. Candidates: our runtime on the fp32 and the int8 folder (and in bf16 where this CPU
multiplies it); stock sentence-transformers with backend="openvino" on the very same folders; stock sentence-transformers in
torch, fp32 (and bf16); onnxruntime with its default options on our fp32 and int8 ONNX graphs, batches of 32 texts in the
order of their lengths. Real Korean and English text of 8 to 400 tokens, every CPU that the process may use. The candidates
go in turn, round by round, on texts that no round repeats, and each round gives one ratio: our fastest precision over the
fastest stock candidate, both chosen by their median.

Prints the class of the CPU, one row a candidate as Markdown, and one JSON line a model. `share of peak` is the
multiplications and additions of the graph on the real tokens, per second, over those of a matrix product of 2,048 in
torch fp32 in the same run. To see a smaller class on a larger machine set ONEDNN_MAX_CPU_ISA (see CONTRIBUTING.md).
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.evaluation.latency import environment
from distill.machine.cpu import cpu_class, multiplies_bf16, usable_cpus
from distill.models.files import open_tokenizer, read_model_files
from distill.models.modeling import build_model, quiet, save_model
from distill.runtime.opening import load
from students.export.stage import Thresholds, export_model
from tests.benchmarks.mixed_texts import mixed_texts, sentences

LAYERS = {"minilm-l6": (0, 1, 2, 3, 4, 5), "minilm-l3": (0, 2, 4)}
MAX_LENGTH, SEED = 512, 0
Encode = Callable[[list[str]], np.ndarray]


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
    print(json.dumps({"class": cpu_class(), **environment()}), flush=True)
    for name in arguments.only.split(","):
        folders = export(name, arguments.models, pools)
        tokenizer = open_tokenizer(read_model_files(folders["torch"])).backend_tokenizer
        texts = mixed_texts(pools, tokenizer, arguments.texts * (arguments.rounds + 1), seed=SEED)
        lengths = np.array([len(tokenizer.encode(text).ids) for text in texts])
        found = compare(folders, texts, arguments)
        show(name, found, n_texts=arguments.texts, flops_a_text=flops(folders["torch"], lengths) / len(texts))
        print(json.dumps({"model": name, **found, "tokens": spread(lengths)}), flush=True)


def export(name: str, models: Path, pools: dict[str, list[str]]) -> dict[str, Path]:
    """Write the torch folder and its four exports, or find them."""
    source = models / name
    if not source.exists():
        model = build_model("bi_encoder", "all-MiniLM-L6-v2", max_length=MAX_LENGTH)
        encoder = model[0].model.encoder
        encoder.layer = torch.nn.ModuleList([encoder.layer[i] for i in LAYERS[name]])
        model[0].model.config.num_hidden_layers = len(encoder.layer)
        save_model(model, source)
    folders = {"torch": source}
    tokenizer = open_tokenizer(read_model_files(source)).backend_tokenizer
    texts = mixed_texts(pools, tokenizer, 700, seed=SEED + 1)
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    for format in ("openvino", "onnx"):
        for precision in ("fp32", "int8"):
            folder = folders[f"{format}-{precision}"] = models / f"{name}-{format}-{precision}"
            if not folder.exists():
                export_model(
                    source,
                    folder,
                    format=format,
                    precision=precision,
                    calibration=pairs[:300],
                    held_back=pairs[300:],
                    n_calibration=150,
                    thresholds=Thresholds(),
                )
    return folders


def candidates_of(folders: Mapping[str, Path], tune: bool) -> dict[str, Encode]:
    """Return every candidate by its name: runtime and precision."""
    from sentence_transformers import SentenceTransformer

    def stock(folder: Path, backend: str, **options: Any) -> Encode:
        with quiet():
            model = SentenceTransformer(str(folder), backend=backend, device="cpu", **options)
        return lambda texts: model.encode(texts, show_progress_bar=False)

    made: dict[str, Encode] = {
        "ours fp32": load(folders["openvino-fp32"], tune=tune or None).encode,
        "ours int8": load(folders["openvino-int8"], tune=tune or None).encode,
        "stock openvino fp32": stock(folders["openvino-fp32"], "openvino"),
        "stock openvino int8": stock(folders["openvino-int8"], "openvino"),
        "stock torch fp32": stock(folders["torch"], "torch"),
        "onnxruntime fp32": onnxruntime_loop(folders["onnx-fp32"]),
        "onnxruntime int8": onnxruntime_loop(folders["onnx-int8"]),
    }
    if multiplies_bf16():
        made["ours bf16"] = load(folders["openvino-fp32"], precision="bf16", tune=tune or None).encode
        made["stock torch bf16"] = stock(folders["torch"], "torch", model_kwargs={"torch_dtype": torch.bfloat16})
        hint = {"ov_config": {"INFERENCE_PRECISION_HINT": "bf16"}}
        made["stock openvino bf16"] = stock(folders["openvino-fp32"], "openvino", model_kwargs=hint)
    return made


def onnxruntime_loop(folder: Path, batch: int = 32) -> Encode:
    """Return onnxruntime's own session over batches of texts of like length, padded to the longest of each."""
    import onnxruntime
    from transformers import AutoTokenizer

    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cpus()
    session = onnxruntime.InferenceSession(str(folder / "onnx/model.onnx"), options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]

    def run(texts: list[str]) -> np.ndarray:
        order = np.argsort([-len(text) for text in texts], kind="stable")  # as sentence-transformers does
        vectors: list[np.ndarray] = [np.empty(0)] * len(texts)
        for start in range(0, len(texts), batch):
            rows = order[start : start + batch]
            tokens = tokenizer(
                [texts[row] for row in rows], padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="np"
            )
            (values,) = session.run(["sentence_embedding"], {name: tokens[name] for name in names})
            for row, value in zip(rows, values, strict=True):
                vectors[row] = value
        return np.stack(vectors)

    return run


def compare(folders: Mapping[str, Path], texts: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    candidates = candidates_of(folders, arguments.tune)
    names = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    least_cosine = dict.fromkeys(names, 1.0)
    parts = [texts[i : i + arguments.texts] for i in range(0, len(texts), arguments.texts)]
    peaks = []
    for number, part in enumerate(parts):  # the first is a warm-up of all
        turn = number % len(names)
        vectors = {}
        for name in names[turn:] + names[:turn]:
            began = time.perf_counter()
            vectors[name] = candidates[name](part)
            seconds[name].append(time.perf_counter() - began)
        truth = vectors["stock torch fp32"]
        for name, found in vectors.items():
            cosines = (found.astype(np.float32) * truth).sum(axis=1) / np.linalg.norm(found.astype(np.float32), axis=1)
            least_cosine[name] = min(least_cosine[name], float(cosines.min()))
        peaks.append(peak_flops())
    timed = {name: np.array(values[1:]) for name, values in seconds.items()}

    def best(ours: bool) -> str:
        mine = [name for name in names if name.startswith("ours") == ours]
        return min(mine, key=lambda name: float(np.median(timed[name])))

    ours, stock = best(True), best(False)
    return {
        "ours": ours,
        "stock": stock,
        "times_best_stock": spread(timed[stock] / timed[ours]),
        "int8_over_fp32": spread(timed["ours fp32"] / timed["ours int8"]),
        "seconds": {name: round(float(np.median(values)), 4) for name, values in timed.items()},
        "times": {name: spread(timed[name] / timed[ours]) for name in names},
        "least_cosine": {name: round(value, 4) for name, value in least_cosine.items()},
        "peak_flops": float(np.median(peaks)),
        "load_average": round(os.getloadavg()[0], 1),
    }


def show(name: str, found: Mapping[str, Any], *, n_texts: int, flops_a_text: float) -> None:
    print(f"\n{name} on {cpu_class()}: {found['ours']} is {found['times_best_stock']['median']} × {found['stock']}\n")
    print(f"| candidate | texts/s | time over {found['ours']} | least cosine to torch fp32 | share of peak |")
    print("|---|---:|---|---:|---:|")
    for candidate, took in sorted(found["seconds"].items(), key=lambda item: item[1]):
        ratio, share = found["times"][candidate], flops_a_text * n_texts / took / found["peak_flops"]
        print(
            f"| {candidate} | {n_texts / took:.0f} | {ratio['median']} ({ratio['min']}–{ratio['max']}) | "
            f"{found['least_cosine'][candidate]} | {share:.0%} |"
        )
    print(flush=True)


def flops(folder: Path, lengths: np.ndarray) -> float:
    """Return the multiplications and additions of the encoder's products on these texts, without padding."""
    config = read_model_files(folder).config
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    per_token = 2 * layers * (4 * width * width + 2 * width * inner)
    attention = 2 * layers * 2 * width * np.square(lengths.astype(np.float64)).sum()
    return float(per_token * lengths.sum() + attention)


def peak_flops(size: int = 2048) -> float:
    """Return the multiplications and additions per second of one large matrix product in torch fp32."""
    one, other = torch.randn(size, size), torch.randn(size, size)
    one @ other
    began = time.perf_counter()
    one @ other
    return 2 * size**3 / (time.perf_counter() - began)


def spread(values: Any) -> dict[str, float]:
    return {name: round(float(np.percentile(values, q)), 2) for name, q in (("median", 50), ("min", 0), ("max", 100))}


if __name__ == "__main__":
    main()
