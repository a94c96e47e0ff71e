"""Compiled graphs and measured settings: kept, found again on such a machine, and done without where they do not serve."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distill.errors import BadInput
from distill.graphs.openvino import export_graph
from distill.models.files import read_model_files
from distill.runtime import settings as settings_module
from distill.runtime import tuning
from distill.runtime.opening import load
from distill.runtime.settings import RunSettings, read_settings, settings_key, store_settings
from recipes.cli import main
from tests.conftest import ROOT
from tests.tiny.conftest import build, write_onnx
from tests.tiny.test_runtime import TEXTS

pytestmark = pytest.mark.integration


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MATCHDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(graphs, tmp_path):
    return shutil.copytree(graphs / "bert_bi", tmp_path / "model")


def entries(cache):
    return sorted(path for path in (cache / "openvino").iterdir())


# ---------------------------------------------------------------------------------------------------------------------
# The compiled graph
# ---------------------------------------------------------------------------------------------------------------------


def loaded_from_cache(scorer):
    compiled, _ = scorer._engine._graph._alone
    return compiled.get_property("LOADED_FROM_CACHE")


def test_the_compiled_graph_is_kept_and_read(folder, cache):
    first, second = load(folder, n_threads=1), load(folder, n_threads=1)
    assert (loaded_from_cache(first), loaded_from_cache(second)) == (False, True)
    np.testing.assert_array_equal(first.encode(TEXTS), second.encode(TEXTS))
    assert (first.precision, second.precision) == ("fp32", "fp32")


def test_another_graph_under_the_same_name_is_compiled_anew(folder, graphs, cache):
    expected = load(folder, n_threads=1).encode(TEXTS)
    weights = folder / "openvino/openvino_model.bin"
    changed = np.frombuffer(weights.read_bytes(), dtype=np.uint8).copy()
    changed[-4096 * 4 :] = 0  # the same size, other weights
    weights.write_bytes(changed.tobytes())
    scorer = load(folder, n_threads=1)
    assert not loaded_from_cache(scorer)
    assert not np.allclose(scorer.encode(TEXTS), expected, atol=1e-3)


@pytest.mark.parametrize(
    "damage", [lambda blob: b"", lambda blob: blob[: len(blob) // 2], lambda blob: b"\0" * len(blob)]
)
def test_a_damaged_cache_is_no_failure(folder, cache, damage):
    expected = load(folder, n_threads=1).encode(TEXTS)
    (blob,) = [path for path in entries(cache)[0].iterdir() if path.suffix == ".blob"]
    blob.chmod(0o600)
    blob.write_bytes(damage(blob.read_bytes()))
    np.testing.assert_array_equal(load(folder, n_threads=1).encode(TEXTS), expected)


def test_two_processes_start_together(folder, cache):
    program = "import sys; from distill.runtime import load; print(load(sys.argv[1], n_threads=1).encode(['a']).sum())"
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(answers) == 1
    assert len(entries(cache)) == 1 and not entries(cache)[0].name.startswith(".")


# ---------------------------------------------------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["latency", "throughput", None])
@pytest.mark.parametrize("name", ["bert_bi", "onnx_bi"])
def test_settings_do_not_change_the_numbers(graphs, name, mode):
    expected = load(graphs / name, n_threads=1, tune=False).encode(TEXTS)
    for settings in (
        RunSettings(1, 1, 256),
        RunSettings(2, 1, 64, skip_layer_norm_fusion=False),
        RunSettings(3, 2, 4096),
    ):
        scorer = load(graphs / name, n_threads=2, mode=mode, tune=settings)
        assert scorer.settings == settings
        np.testing.assert_allclose(scorer.encode(TEXTS), expected, atol=1e-5)
        np.testing.assert_allclose(scorer.encode(TEXTS[:1]), expected[:1], atol=1e-5)


def test_stored_settings_are_found_by_machine_threads_and_graph(folder, cache, monkeypatch):
    files, wanted = read_model_files(folder), RunSettings(3, 2, 333)
    key = settings_key(files, "openvino", None, 1)
    assert store_settings(files, key, wanted, []).parent == folder
    assert load(folder, n_threads=1).settings == wanted
    assert load(folder, n_threads=1, tune=False).settings == RunSettings.default(files, "openvino", 1)
    assert load(folder, n_threads=2).settings == RunSettings.default(files, "openvino", 2)
    assert load(folder, n_threads=1, precision="bf16").settings != wanted
    with monkeypatch.context() as patch:
        patch.setattr(settings_module, "machine_identity", lambda: ["another CPU"])
        assert load(folder, n_threads=1).settings != wanted
    graph = folder / "openvino/openvino_model.xml"
    graph.write_bytes(graph.read_bytes() + b"\n")
    assert load(folder, n_threads=1).settings != wanted


def test_a_read_only_folder_is_tuned_in_the_cache(folder, cache, monkeypatch):
    def refuse(path, value):
        if path.parent == folder:
            raise PermissionError(13, "Permission denied", str(path))
        write(path, value)

    write = settings_module.write_json
    monkeypatch.setattr(settings_module, "write_json", refuse)
    files, wanted = read_model_files(folder), RunSettings(1, 1, 777)
    key = settings_key(files, "openvino", None, 1)
    assert store_settings(files, key, wanted, []).parent == cache / "tuning"
    assert load(folder, n_threads=1).settings == wanted
    monkeypatch.setenv("MATCHDISTILL_CACHE", "off")
    with pytest.raises(BadInput, match="read-only and there is no cache folder"):
        store_settings(files, key, wanted, [])


POSSIBLE = {"n_streams": 1, "n_latency_threads": 1, "batch_tokens": 512, "skip_layer_norm_fusion": True}
IMPOSSIBLE = [
    {"n_streams": "1"},
    {"n_streams": -1},
    {"n_latency_threads": 10**6},
    {"batch_tokens": 0},
    {"batch_tokens": 10**9},
    {"batch_tokens": 512.5},
    {"skip_layer_norm_fusion": "no"},
]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"settings": {"n_streams": 1}}',
        "[]",
        *(json.dumps({"settings": POSSIBLE | change}) for change in IMPOSSIBLE),
    ],
)
def test_half_written_and_impossible_settings_are_none(folder, cache, text):
    files = read_model_files(folder)
    (folder / f".tuning-{settings_key(files, 'openvino', None, 1)}.json").write_text(text)
    assert read_settings(files, settings_key(files, "openvino", None, 1)) is None
    load(folder, n_threads=1)


@pytest.mark.parametrize("name", ["bert_bi", "onnx_bi"])
def test_the_search_takes_what_is_fastest(graphs, name, monkeypatch):
    """With a clock of our own: each candidate's time is told by its settings."""
    now = [0.0]

    def run(engine, table, batch_tokens):
        way = engine.settings

        def timed():
            now[0] += 1 + (way.n_streams != 2) + abs(batch_tokens - 512) / 512 + (way.skip_layer_norm_fusion is True)

        return timed

    monkeypatch.setattr(tuning, "_throughput", run)

    def single(engine, table):
        def timed():
            now[0] += engine.settings.n_latency_threads

        return timed

    monkeypatch.setattr(tuning, "_single_calls", single)
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: now[0])
    runtime = "onnx" if name == "onnx_bi" else "openvino"
    best, measured = tuning.fastest_settings(read_model_files(graphs / name), runtime, None, 2)
    assert (best.n_streams, best.batch_tokens, best.n_latency_threads) == (2, 512, 1)
    assert best.skip_layer_norm_fusion is (runtime == "openvino")
    assert {row["what"] for row in measured} == {"throughput", "latency"}


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_no_sample_is_padded_beyond_the_positions(runtime, tmp_path, monkeypatch):
    """A model of 100 positions: 100 is no length that batches are padded to, the next one is 112."""
    monkeypatch.setattr(tuning, "_ROUNDS", (1, 1))
    source = build(tmp_path / "source", "bi_encoder", "wordpiece", max_length=100)
    if runtime == "onnx":
        write_onnx(source)
    else:
        export_graph(source, tmp_path / "graph", "fp32")
    files = read_model_files(source if runtime == "onnx" else tmp_path / "graph")
    best, _ = tuning.fastest_settings(files, runtime, None, 1, seconds=0.1)
    assert best.n_streams == 1


def test_tune_on_the_command_line_and_when_loading(folder, cache, capsys, monkeypatch):
    monkeypatch.setattr(tuning, "_ROUNDS", (2, 2))  # what is measured when loading has 15 seconds
    monkeypatch.setattr(tuning, "_LONGEST", 64)
    assert main(["tune", str(folder), "--threads", "1", "--seconds", "0.1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert load(folder, n_threads=1).settings == RunSettings(**printed["settings"])
    assert all(row["tokens_per_s"] > 0 for row in printed["measured"])
    assert len(list(folder.glob(".tuning-*.json"))) == 1
    assert load(folder, n_threads=2, tune=True).settings is not None
    assert len(list(folder.glob(".tuning-*.json"))) == 2
    assert main(["tune", str(folder), "--threads", "1", "--seconds", "0.1"]) == 0
    shown = capsys.readouterr().out
    (stored,) = printed["stored_in"]
    assert Path(stored).parent == folder and Path(stored).is_file()
    assert "tokens/s" in shown and f"stored in {stored}\n" in shown


def test_a_torch_model_has_nothing_to_tune(bert_bi, capsys):
    assert main(["tune", str(bert_bi)]) == 2
    assert "nothing to tune, export it first" in capsys.readouterr().err
