"""Planted faults, and what refuses or names each: the list, and tests of those that no other module has.

a bad control            the report: broken, and no "the teacher helped"
a constant export        the gate
a saturated export       the gate: int8 that overflows on the other CPUs, and scores that are all at one end
shuffled signals         before the student's first step
a noise teacher          after labelling
a random head            a frozen teacher is refused
a missing tensor         whoever opens the folder
NaN weights              whoever opens or saves the folder
prompts missing          the cache is that of other prompts, and is not read
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.data.pairs import Pairs
from distill.errors import BadInput, GateFailed
from distill.evaluation.benchmark import BenchmarkEntry, Scored, assemble, said_of_quality
from distill.files.artefact import revision
from distill.metrics.measures import Bootstrap
from distill.models.modeling import load_model, quiet, save_model
from distill.report.words import verdict
from distill.runtime.opening import load
from students.cut.sources import signal_source
from students.export import stage as export
from teachers import cache_signals, train_teachers
from tests.conftest import BI_TEACHER
from tests.tiny.conftest import SENTENCES

pytestmark = pytest.mark.integration

PAIRS = [(left, right) for left in SENTENCES for right in SENTENCES if left != right]
TESTED_ELSEWHERE = {
    "a bad control": ("unit/test_standing.py", "test_a_control_below_the_untrained_student_is_broken"),
    "a constant export": ("unit/test_gate.py", "test_an_export_that_answers_the_same_for_everything_is_refused"),
    "a saturated export": ("tiny/test_export.py", "test_weights_of_8_bits_are_refused"),
    "shuffled signals": ("tiny/test_silent_training.py", "test_that_are_shuffled_stop_the_student"),
    "a noise teacher": ("tiny/test_silent_training.py", "test_of_a_teacher_of_noise_stop_the_labelling"),
    "a random head": ("tiny/test_whole_models.py", "test_of_a_headless_encoder_are_refused"),
    "a missing tensor": ("tiny/test_whole_models.py", "test_in_an_artefact_and_in_the_torch_runtime"),
    "NaN weights": ("tiny/test_whole_models.py", "test_in_a_backbone_an_artefact_and_the_torch_runtime"),
    "prompts missing": ("tiny/test_whole_models.py", "test_of_a_frozen_teacher_stay_are_said_and_key_the_cache"),
}


@pytest.mark.parametrize("fault", TESTED_ELSEWHERE)
def test_each_fault_has_its_test(fault):
    file, name = TESTED_ELSEWHERE[fault]
    assert re.search(rf"^ *def {name}\(", (Path(__file__).parent.parent / file).read_text(encoding="utf-8"), re.M)


def test_a_bad_control_shows_nothing_in_a_report(tmp_path):
    labels = (np.arange(120) % 2).astype(np.float32)
    pairs = Pairs([f"q{i}" for i in range(120)], [f"d{i}" for i in range(120)], labels)
    rng, signal = np.random.default_rng(0), {"teacher": 3.0, "untrained": 1.0, "student": 3.0, "control": -2.0}
    rows = [BenchmarkEntry(name, name, tmp_path, "torch", "fp32", None) for name in signal]
    scored = {}
    for name, strength in signal.items():
        scores = strength * labels + rng.normal(size=120)
        scored[name] = Scored(scores, 1 / (1 + np.exp(-scores)), 1)
    result = assemble(rows, scored, {}, pairs, bootstrap=Bootstrap(50, 0), comparisons=[("student", "control")])
    assert said_of_quality(result) == [
        "The control is broken: it is worse than the untrained student, so student − control shows nothing."
    ]
    assert verdict(result["comparisons"][0]).endswith("it is broken, and nothing is shown")


def spoiled(source, folder, change):
    """Write a copy of a model with its weights changed, as a tracer with a fault would see them."""
    model = load_model(source)
    with torch.no_grad():
        change(model)
    save_model(model, folder)
    return folder


def exported_from(monkeypatch, weights):
    """Let exports be written from other weights than those that they are judged against."""
    write = export.write_openvino_graph
    monkeypatch.setattr(export, "write_openvino_graph", lambda source, *rest: write(weights, *rest))


def test_a_constant_export_is_refused_in_a_run_of_its_own(xlmr_cross, tmp_path, monkeypatch):
    exported_from(
        monkeypatch, spoiled(xlmr_cross, tmp_path / "constant", lambda model: model[-1].linear.weight.zero_())
    )
    with pytest.raises(GateFailed, match="rank_agreement is undefined: the export tells nothing apart"):
        export.export_model(xlmr_cross, tmp_path / "export", precision="fp32", held_back=PAIRS[::3], n_threads=1)
    assert not (tmp_path / "export").exists()


def test_a_saturated_export_is_refused(xlmr_cross, tmp_path, monkeypatch):
    """All scores are 1.0 in [0, 1], though logits still have an order."""
    exported_from(
        monkeypatch, spoiled(xlmr_cross, tmp_path / "saturated", lambda model: model[-1].linear.bias.add_(60))
    )
    with pytest.raises(GateFailed, match="max_difference"):
        export.export_model(xlmr_cross, tmp_path / "export", precision="fp32", held_back=PAIRS[::3], n_threads=1)
    assert not (tmp_path / "export").exists()


def test_prompts_that_a_teacher_has_lost_do_not_read_the_cache_that_had_them(tiny_run, bert_bi, tmp_path):
    shutil.copytree(bert_bi, tmp_path / "prompted")
    stored = tmp_path / "prompted" / "config_sentence_transformers.json"
    stored.write_text(
        json.dumps({**json.loads(stored.read_text()), "prompts": {"query": "query: ", "document": "passage: "}})
    )
    teacher = {"bi": {**BI_TEACHER, "backbone": str(tmp_path / "prompted"), "frozen": True}}
    changes = {
        "data": {"max_pairs": 120},
        "signals": {"allow_unrelated": True},
        "student": {"kind": "bi_encoder", "backbone": {"teacher": "bi"}, "layers": [0]},
        "objectives": {"score_match": None, "embedding_match": {"teacher": "bi"}},
    }
    run = tiny_run(teachers=teacher, **changes)
    train_teachers(run)
    cache_signals(run)
    kept = run.teacher("bi") / "config_sentence_transformers.json"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "prompts": {}}))
    texts = [run.split.train.queries[0]]
    with quiet(), pytest.raises(BadInput):
        signal_source(run, "bi").embeddings(texts, [0])


def test_nan_weights_of_an_export_are_refused(bert_bi, tmp_path, monkeypatch):
    """A graph that gives NaN is not finite on the pairs of the gate."""
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(bert_bi, tmp_path / "nan")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layer.0.output.dense.weight"))
    tensors[name][3, 1] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert revision(folder) != revision(bert_bi)
    exported_from(monkeypatch, folder)
    with pytest.raises(BadInput, match=r"layer\.0\.output\.dense\.weight \(row 3\) holds NaN or infinity"):
        export.export_model(bert_bi, tmp_path / "export", precision="fp32", held_back=PAIRS[::3], n_threads=1)
    assert not (tmp_path / "export").exists()
    with pytest.raises(BadInput, match="holds NaN or infinity"):
        load(folder)
