"""A cross-encoder of BGE-m3's size (568 M, random weights) through every stage on this machine, with its peak memory.

    python -m tests.benchmarks.bge_m3_size runs/bge_m3_size
    python -m tests.benchmarks.bge_m3_size runs/bge_m3_size --export     # the large one itself in int8, in a process of its own

The architecture is XLM-RoBERTa-large with 250,002 pieces of vocabulary; the tokenizer is trained on the bundled pairs, so
its pieces fill only the first rows. Scores mean nothing; memory, time and size do.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

from distill.data.bundled import generate_pairs
from distill.data.pairs import load_split
from distill.evaluation.latency import size_mb
from distill.models.backbone import fresh_backbone
from distill.models.modeling import build_model, quiet, save_model
from distill.recipe.schema import Data, FreshBackbone
from distill.runtime.opening import load
from distill.runtime.scorer import Scorer
from recipes.cli import main as distill
from students.export.gate import Thresholds
from students.export.stage import export_openvino

N_PAIRS = 48
N_LONG_PAIRS = 64
RECIPE = """
name: bge_m3_size
data: {{train: bundled, bundled_pairs: {n_pairs}, evaluation_share: 0.3, validation_share: 0.2}}
teachers:
  large: {{kind: cross_encoder, backbone: {backbone}, frozen: true, head: [256], max_length: 512}}
student:
  kind: cross_encoder
  backbone: {{tokenizer: unigram, vocabulary: 2000, layers: 6, width: 384, heads: 6}}
  max_length: 512
objectives: {{score_match: {{teacher: large, loss: mse}}}}
training: {{epochs: 1, learning_rate: 1.0e-4, evaluations_per_epoch: 0}}
export: {{min_rank_agreement: -1.0, keep_float: null}}
benchmark: {{throughput_pairs: 8, seconds: 10, lengths: [128, 256, 512]}}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--export", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder
    if arguments.export:
        return export_large(folder)
    backbone = random_large(folder)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(n_pairs=N_PAIRS, backbone=backbone), encoding="utf-8")
    for stage in ("train-teacher", "cache-signals", "train-student", "export", "benchmark"):
        began = time.perf_counter()
        code = distill([stage, str(recipe), f"output_dir={folder / 'run'}"])
        report({"stage": stage, "code": code}, began)
    at_512_tokens(folder / "run")


def at_512_tokens(run: Path) -> None:
    """Score pairs of 512 tokens in turns: the large teacher in torch, in int8 the small student and a bi-encoder of its size.

    The bi-encoder, which is what `resume_jd_bge_m3.yaml` makes, reads 256 tokens of each side: attention costs half.
    """
    parts = list(generate_pairs(4 * N_LONG_PAIRS, seed=1))
    pairs = [parts[4 * i : 4 * i + 4] for i in range(N_LONG_PAIRS)]
    queries, documents = ([" ".join(getattr(p, side) for p in four) for four in pairs] for side in ("resume", "jd"))
    teacher = load(run / "teachers/large", runtime="torch", precision="fp32", max_length=512)
    student = load(run / "exports/openvino-int8", max_length=512)
    bi_encoder = load(bi_encoder_of(run, queries, documents))
    for scorer in (teacher, student, bi_encoder):
        assert scorer.token_counts(queries, documents).min() == 512

    def seconds(scorer: Scorer, n_pairs: int) -> float:
        began = time.perf_counter()
        scorer.score(queries[:n_pairs], documents[:n_pairs])
        return (time.perf_counter() - began) / n_pairs

    seconds(teacher, 1), seconds(student, N_LONG_PAIRS), seconds(bi_encoder, N_LONG_PAIRS)  # each meets the shape
    for _ in range(5):
        slow, fast, two = seconds(teacher, 4), seconds(student, N_LONG_PAIRS), seconds(bi_encoder, N_LONG_PAIRS)
        rates = {
            "teacher": round(1 / slow, 2),
            "student_int8": round(1 / fast, 1),
            "bi_encoder_int8": round(1 / two, 1),
        }
        print(
            json.dumps(
                {"pairs_per_s": rates, "student_times": round(slow / fast, 1), "bi_encoder_times": round(slow / two, 1)}
            )
        )


def bi_encoder_of(run: Path, queries: list[str], documents: list[str]) -> Path:
    """Export a bi-encoder with the student's transformer to int8, once; its scores mean as little."""
    folder, target = run.parent / "bi-encoder", run.parent / "bi-encoder-int8"
    if not target.is_dir():
        save_model(build_model("bi_encoder", run / "student", pooling="mean", max_length=256), folder)
        pairs = list(zip(queries, documents, strict=True))
        export_openvino(
            folder,
            target,
            precision="int8",
            calibration=pairs,
            held_back=pairs[:4],
            n_calibration=16,
            thresholds=Thresholds(),
            keep_float=None,
        )
    return target


def report(said: dict[str, Any], began: float) -> None:
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    seconds = round(time.perf_counter() - began, 1)
    print(json.dumps({**said, "seconds": seconds, "peak_gb_so_far": round(peak_gb, 2)}), flush=True)


def export_large(folder: Path) -> None:
    """Export the teacher of a finished run to OpenVINO int8 and measure it; random weights are held to no gate."""
    split = load_split(Data(train="bundled", bundled_pairs=N_PAIRS), 0)
    pairs = list(zip(split.train.queries, split.train.documents, strict=True))
    source, target = folder / "run/teachers/large", folder / "large-int8"
    began = time.perf_counter()
    export_openvino(
        source,
        target,
        precision="int8",
        calibration=pairs,
        held_back=pairs[:4],
        n_calibration=16,
        thresholds=Thresholds(),
    )
    report({"stage": "export large", "size_mb": round(size_mb(target, "openvino"))}, began)


def random_large(folder: Path) -> Path:
    """Write XLM-RoBERTa-large with random weights, once."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    target = folder / "backbone"
    if target.is_dir():
        return target
    split = load_split(Data(train="bundled", bundled_pairs=N_PAIRS), 0)
    small = FreshBackbone(tokenizer="unigram", vocabulary=2000, layers=1, width=32, heads=2)
    source = fresh_backbone(small, [*split.train.queries, *split.train.documents], seed=0, folder=folder / "small")
    config = XLMRobertaConfig(
        vocab_size=250_002,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=8194,
        type_vocab_size=1,
        pad_token_id=1,
    )
    with quiet():
        XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(target)
    for path in source.glob("tokenizer*"):
        (target / path.name).write_bytes(path.read_bytes())
    return target


if __name__ == "__main__":
    main()
