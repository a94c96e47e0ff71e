"""Measurements come from a process of their own, whole, and a process that dies is an error with its last words."""

import json
import os
import shutil
import signal
import subprocess

import numpy as np
import pytest

from distill.errors import BadInput, JobFailed
from distill.evaluation import latency
from distill.evaluation.latency import Measuring, Request, environment, measure, measure_all, size_mb
from distill.graphs.openvino import export_graph
from tests.tiny.conftest import SENTENCES

pytestmark = pytest.mark.integration

QUERIES, DOCUMENTS = SENTENCES * 2, [*SENTENCES[1:], *SENTENCES, SENTENCES[0]]


@pytest.fixture(scope="module", autouse=True)
def _processes_start_as_they_do_for_users():
    """Not as in other files, see tests/tiny/conftest.py."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(latency, "_start", latency._start.__wrapped__)
        yield


@pytest.fixture(scope="module")
def light(bert_bi, tmp_path_factory):
    """A graph: its process imports no torch, and dies in a tenth of the time."""
    target = tmp_path_factory.mktemp("light") / "model"
    export_graph(bert_bi, target, "fp32")
    return target


@pytest.fixture(scope="module")
def measured(light, xlmr_cross):
    """A graph and a torch model, each as the report asks for it: a torch process takes 9 CPU seconds of imports."""
    steps = []
    results = measure_all(
        [Request(light, "bi", n_threads=1, count=False), Request(xlmr_cross, "cross", precision="bf16", n_threads=1)],
        QUERIES,
        DOCUMENTS,
        Measuring(0.2, rounds=2, lengths=(32, 64)),
        on_progress=lambda *step: steps.append(step),
    )
    return results, steps


def test_results_are_whole_and_json(measured):
    results, steps = measured
    assert [row["name"] for row in results] == ["bi", "cross"]
    assert [row["kind"] for row in results] == ["bi_encoder", "cross_encoder"]
    assert [row["precision"] for row in results] == ["fp32", "bf16"]
    assert steps[-1] == (6, 6, "measured") and [step[0] for step in steps] == list(range(7))
    for row in results:
        spread = row["latency_ms"]
        assert 0 < spread["p50"] <= spread["p95"] <= spread["p99"] and spread["batch"] == 1
        assert row["throughput_pairs_per_s"] > 0 and 8 <= row["throughput_pairs"] <= len(QUERIES)
        assert row["latency_pairs"] <= row["latency_ms"]["n"]  # each of them once at least
        assert row["peak_memory_mb"] >= row["steady_memory_mb"] > 60 and row["n_threads"] == 1 and row["cold_ms"] > 0
        json.dumps(row, allow_nan=False)
    graph, torch = results
    assert (graph["runtime"], torch["runtime"]) == ("openvino", "torch")
    assert "parameters" not in graph and torch["parameters"] > 10_000
    assert graph["steady_memory_mb"] < torch["steady_memory_mb"] / 2  # its process has imported no torch


def test_raw_samples_give_the_statistics(measured):
    for row in measured[0]:
        samples = row["per_run"]["latency_ms"]
        assert len(samples) == row["latency_ms"]["n"]
        assert np.percentile(samples, 95) == pytest.approx(row["latency_ms"]["p95"], rel=1e-3)
        assert np.median(row["per_run"]["throughput_pairs_per_s"]) == pytest.approx(
            row["throughput_pairs_per_s"], rel=1e-3
        )
        lengths = [point["tokens"] for point in row["latency_by_length"]]
        assert lengths == sorted(set(lengths)) and lengths[0] >= 32
        assert {str(length) for length in lengths} == set(row["per_run"]["latency_by_length_ms"])


def test_size_counts_what_the_runtime_needs(bert_bi, tmp_path):
    folder = shutil.copytree(bert_bi, tmp_path / "model")
    torch_mb = size_mb(folder, "torch")
    (folder / "openvino").mkdir()
    (folder / "openvino/openvino_model.xml").write_bytes(b"x" * 1000)
    (folder / "openvino/openvino_model.bin").write_bytes(b"x" * 9000)
    assert size_mb(folder, "torch") == pytest.approx(torch_mb)
    weights_mb = (folder / "model.safetensors").stat().st_size / 1e6
    assert size_mb(folder, "openvino") == pytest.approx(torch_mb - weights_mb + 0.01)


def test_an_error_in_the_process_is_told_with_its_last_line(light):
    with pytest.raises(JobFailed, match=r"measuring model failed: .*more than the 96 positions"):
        measure(Request(light, max_length=97), QUERIES, DOCUMENTS, Measuring(0.1))


def test_a_killed_process_is_told_as_want_of_memory(light, monkeypatch):
    monkeypatch.setattr(latency._Worker, "setup", lambda worker, *_: os.kill(worker.process.pid, signal.SIGKILL))
    with pytest.raises(JobFailed, match="was killed, most likely for want of memory"):
        measure(Request(light), QUERIES, DOCUMENTS, Measuring(0.1))


def test_no_process_is_left_behind(light, monkeypatch):
    started = []
    popen = subprocess.Popen

    def start(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(latency._Worker, "setup", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        measure(Request(light), QUERIES, DOCUMENTS, Measuring(0.1))
    assert [process.poll() for process in started] == [-9]


def test_bad_requests_are_refused_before_a_process_starts(bert_bi, tmp_path):
    with pytest.raises(BadInput, match="at least one pair"):
        measure(Request(bert_bi), [], [])
    with pytest.raises(BadInput, match="20 queries and 1 documents"):
        measure(Request(bert_bi), QUERIES, ["a"])
    with pytest.raises(BadInput, match="no such directory"):
        measure(Request(tmp_path / "nothing"), QUERIES, DOCUMENTS)
    with pytest.raises(BadInput, match="a positive time"):
        measure(Request(bert_bi), QUERIES, DOCUMENTS, Measuring(0))
    with pytest.raises(BadInput, match="rising upper bounds"):
        measure(Request(bert_bi), QUERIES, DOCUMENTS, Measuring(lengths=(64, 32)))
    with pytest.raises(BadInput, match="rising upper bounds"):  # doubling 0 would reach no length
        measure(Request(bert_bi), QUERIES, DOCUMENTS, Measuring(lengths=(0,)))


def test_a_report_of_remote_models_alone_measures_nothing():
    assert measure_all([], QUERIES, DOCUMENTS) == []


def test_environment_says_where_it_was_measured():
    facts = environment()
    assert facts["cpu"] and facts["threads"] >= 1 and facts["versions"]["torch"] and facts["memory_gb"] > 0
    json.dumps(facts, allow_nan=False)
