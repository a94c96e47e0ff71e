"""A runtime that serves: from many threads, from forked children, with options and texts of any kind."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from distill.errors import BadInput
from distill.runtime.opening import load
from distill.runtime.vectors import Index
from recipes.cli import main
from tests.conftest import ROOT
from tests.tiny.conftest import SENTENCES
from tests.tiny.test_runtime import TEXTS

pytestmark = pytest.mark.integration

# ---------------------------------------------------------------------------------------------------------------------
# Threads
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert_bi", "onnx_bi", "torch"])
def test_threads_encode_score_and_count_side_by_side(name, graphs, bert_bi):
    scorer = load(bert_bi if name == "torch" else graphs / name, n_threads=1)
    long = TEXTS * 3
    calls = {
        "encode": lambda: scorer.encode(TEXTS),
        "score": lambda: scorer.score(TEXTS, TEXTS[::-1]),
        "count": lambda: scorer.token_counts(long, long[::-1]),
        "rank": lambda: scorer.rank(TEXTS[0], TEXTS, top_k=3)[1],
        "tokenizer": lambda: np.array(scorer.tokenizer(TEXTS[0])["input_ids"]) if name == "torch" else np.zeros(1),
    }
    expected, errors = {what: call() for what, call in calls.items()}, []

    def work(what):
        try:
            for _ in range(6):
                np.testing.assert_allclose(calls[what](), expected[what], atol=1e-5)
        except Exception as error:
            errors.append((what, error))

    threads = [threading.Thread(target=work, args=(what,)) for what in [*calls, "count", "count", "encode"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# ---------------------------------------------------------------------------------------------------------------------
# Forked children
# ---------------------------------------------------------------------------------------------------------------------

FORKING = """
import gc, json, multiprocessing, os, sys, threading
import numpy as np
from distill.runtime import load
gc.disable()                                              # a fifth of the time of imports
scorers = {path: load(path, n_threads=2) for path in sys.argv[1:]}
gc.enable()
texts = json.loads(sys.stdin.read())
def ask(path):
    scorer = scorers[path]
    return scorer.score(texts, texts[::-1]).tolist()
expected = {path: ask(path) for path in scorers}          # every engine has run in the parent
stop = threading.Event()
def busy():                                               # and runs, and holds its locks, while children are made
    while not stop.is_set():
        for path in scorers: ask(path)
thread = threading.Thread(target=busy); thread.start()
try:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        answers = pool.map(ask, list(scorers) * 2)
finally:
    stop.set(); thread.join()
for path, answer in zip(list(scorers) * 2, answers):
    np.testing.assert_allclose(answer, expected[path], atol=1e-4)
for leave in (os._exit, sys.exit):                        # sys.exit runs destructors: of gunicorn's workers, for one
    pid = os.fork()
    if pid == 0:
        np.testing.assert_allclose(ask(path), expected[path], atol=1e-4)
        leave(0)
    assert os.waitpid(pid, 0)[1] == 0
pid = os.fork()
if pid == 0:
    sys.exit(0)                                           # a child that never asks
assert os.waitpid(pid, 0)[1] == 0
for path in scorers: np.testing.assert_allclose(ask(path), expected[path], atol=1e-4)
print("right")
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs os.fork")
@pytest.mark.parametrize(
    "names",
    [["bert_bi", "bert_cross"], *(pytest.param([name], marks=pytest.mark.slow) for name in ("onnx_bi", "static"))],
)
def test_forked_children_give_what_their_parent_gives(names, graphs, bert_bi, request, tmp_path):
    """Those of a torch model: beside a generative one, in test_generative.py."""
    if names == ["static"]:
        paths = [static_folder(bert_bi, tmp_path)]
    else:
        paths = [str(graphs / name) for name in names]
    check_forked_children(paths)


def check_forked_children(paths):
    """Children forked from a process that has scored, and scores meanwhile, give its scores and end.

    Once in some hundred runs a child waits for ever for a lock of TBB's scheduler, which a thread of OpenVINO held at the
    fork (docs/how-to/serve.md): a second run must end.
    """
    env = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    command = [sys.executable, "-c", FORKING, *paths]
    options = {"cwd": ROOT, "env": env, "input": json.dumps(SENTENCES * 4), "capture_output": True, "text": True}
    try:
        done = subprocess.run(command, **options, timeout=90)
    except subprocess.TimeoutExpired:
        done = subprocess.run(command, **options, timeout=300)
    assert (done.stdout.split(), done.returncode) == (["right"], 0), done.stderr
    assert "TOKENIZERS_PARALLELISM" not in done.stderr


def static_folder(source, tmp_path):
    """A static model of random vectors with the tokenizer of another."""
    from safetensors.numpy import save_file

    folder = tmp_path / "static"
    (folder / "0_StaticEmbedding").mkdir(parents=True)
    shutil.copy(source / "tokenizer.json", folder / "0_StaticEmbedding")
    rows = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32)
    save_file({"embedding.weight": rows}, folder / "0_StaticEmbedding" / "model.safetensors")
    kind = "sentence_transformers.models.StaticEmbedding"
    modules = [{"idx": 0, "name": "0", "path": "0_StaticEmbedding", "type": kind}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "config_sentence_transformers.json").write_text("{}", encoding="utf-8")
    return str(folder)


def test_a_replaced_graph_is_not_compiled_under_the_old_tokenizer(graphs, tmp_path):
    folder = shutil.copytree(graphs / "bert_bi", tmp_path / "model")
    scorer = load(folder, n_threads=2, mode="latency")
    expected = scorer.encode(TEXTS)
    weights = folder / "openvino/openvino_model.bin"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    np.testing.assert_array_equal(scorer.encode(TEXTS), expected)  # what is compiled stays
    scorer._engine._graph._for_one.abandon()  # as in a forked child
    with pytest.raises(BadInput, match="was replaced after it was loaded; load the folder again"):
        scorer.encode(TEXTS)


def test_replaced_weights_beside_an_onnx_graph_are_found(graphs, tmp_path):
    """A model of more than 2 GB has them in a file of their own."""
    import onnx

    folder = shutil.copytree(graphs / "onnx_bi", tmp_path / "model")
    path, options = folder / "onnx/model.onnx", {"location": "model.onnx_data", "size_threshold": 0}
    model = onnx.load(str(path))
    path.unlink()
    onnx.save_model(model, str(path), save_as_external_data=True, **options)
    scorer = load(folder, n_threads=1, mode="latency")
    scorer.encode(TEXTS)
    weights = path.with_name("model.onnx_data")
    content = weights.read_bytes()
    weights.unlink()  # the session has the old file mapped
    weights.write_bytes(content[:-4] + b"\0\0\0\1")
    scorer._engine._graph._for_one.abandon()
    with pytest.raises(BadInput, match="was replaced after it was loaded; load the folder again"):
        scorer.encode(TEXTS)


def test_a_retrained_model_of_the_same_size_and_time_is_served(graphs, tmp_path, monkeypatch):
    monkeypatch.setenv("MATCHDISTILL_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(graphs / "bert_bi", tmp_path / "model")
    weights, answers = folder / "openvino/openvino_model.bin", []
    for change in (b"", b"\0" * 20_000):
        content = weights.read_bytes()
        weights.write_bytes(content[: len(content) - len(change)] + change)
        for path in folder.rglob("*"):
            os.utime(path, (1, 1))
        answers.append(load(folder, n_threads=1).encode(TEXTS))
        monkeypatch.setenv("MATCHDISTILL_CACHE", "off")
        np.testing.assert_array_equal(load(folder, n_threads=1).encode(TEXTS), answers[-1])
        monkeypatch.setenv("MATCHDISTILL_CACHE", str(tmp_path / "cache"))
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


# ---------------------------------------------------------------------------------------------------------------------
# What comes in
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert_bi", "bert_cross"])
def test_texts_and_vectors_in_every_form(name, graphs):
    scorer = load(graphs / name, n_threads=1)
    rows, scores = scorer.rank("Python", SENTENCES)
    for documents in (np.array(SENTENCES), np.array(SENTENCES, dtype=object), [np.str_(text) for text in SENTENCES]):
        found, same = scorer.rank(np.str_("Python"), documents)
        assert found.tolist() == rows.tolist()
        np.testing.assert_allclose(same, scores, atol=1e-6)
    assert scorer.rank("a", np.array([], dtype=object))[0].shape == (0,)
    for top_k in (0, -1, True, 2.0):
        with pytest.raises(BadInput, match="top_k .*at least 1 is expected"):
            scorer.rank("a", SENTENCES, top_k=top_k)
    with pytest.raises(BadInput, match="documents, row 1: a text is expected, got nan"):
        scorer.rank("a", np.array(["b", np.nan], dtype=object))
    with pytest.raises(BadInput, match="2 queries and 1 document;"):
        scorer.token_counts(["a", "b"], ["a"])
    if name == "bert_cross":
        return
    vectors = scorer.encode(SENTENCES)
    assert scorer.rank("Python", vectors.astype(np.float64))[0].tolist() == rows.tolist()
    scorer.rank("Python", vectors.astype(np.float16))
    assert scorer.rank("a", vectors[:0])[0].shape == (0,)
    with pytest.raises(BadInput, match="documents of uint8.*binary codes"):
        scorer.rank("a", scorer.encode(SENTENCES, output="binary"))
    vectors[4, 0] = np.nan
    with pytest.raises(BadInput, match="documents, row 4: NaN or infinite"):
        scorer.rank("a", vectors)
    with pytest.raises(BadInput, match=r"queries of shape \(1, 64\); \(n_queries, 32\)"):
        scorer.search(["a"], Index(vectors[:, :32]), top_k=1)
    with pytest.raises(BadInput, match="index is ndarray"):
        scorer.search(["a"], vectors, top_k=1)
    for options in ({"output": "int4"}, {"batch_tokens": 0}, {"prompt_name": 3}):
        with pytest.raises(BadInput):
            scorer.encode(["a"], **options)
    with pytest.raises(BadInput, match="chunk_size 0"):
        list(scorer.encode_iter(["a"], chunk_size=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "precision 'int8'; one of fp32, bf16.*int8 comes with an int8 export"),
        ({"runtime": "tensorrt"}, "runtime 'tensorrt'; one of torch, openvino, onnx, numpy"),
        ({"mode": "fast"}, "mode 'fast'; one of"),
        ({"n_threads": 0}, "n_threads 0"),
        ({"n_threads": -1}, "n_threads -1"),
        ({"n_threads": 1.5}, "n_threads 1.5"),
        ({"n_threads": True}, "n_threads True"),
        ({"truncate": 0}, "truncate 0"),
        ({"truncate": 2.5}, "truncate 2.5"),
        ({"truncate": 65}, "truncate 65"),
        ({"truncate": "8"}, "truncate '8'"),
        ({"max_length": 4.5}, "max_length 4.5"),
        ({"tune": "yes"}, "tune 'yes'"),
        ({"device": "cuda:0"}, "runs on the CPU here"),
    ],
)
def test_options_of_no_such_value_are_one_line(options, message, graphs):
    with pytest.raises(BadInput, match=message) as error:
        load(graphs / "bert_bi", **options)
    assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="a model folder is expected, got None"):
        load(None)


# ---------------------------------------------------------------------------------------------------------------------
# Special tokens and prompts
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["bert_cross", "xlmr_cross", "bert_bi"])
def test_special_tokens_in_a_text_move_nothing_where_they_are_text(source, request, graphs, tmp_path, capsys):
    folder = request.getfixturevalue(source)
    scorers = [load(folder, n_threads=1, special_tokens_as_text=True), load(folder, n_threads=1)]
    if (graphs / source).exists():
        scorers[:1] = [scorers[0], load(graphs / source, n_threads=1, special_tokens_as_text=True)]
    *plain, stock = scorers
    special = stock.tokenizer.sep_token
    texts = [f"Python {special} Django", special, f"a{special}{stock.tokenizer.pad_token}b"]
    for scorer in plain:
        scores = scorer.score(SENTENCES[:3], texts)
        assert (scorer.token_counts(SENTENCES[:3], texts) > stock.token_counts(SENTENCES[:3], texts)).all()
        assert np.abs(scores - stock.score(SENTENCES[:3], texts)).min() > 1e-4
        np.testing.assert_allclose(scores, plain[0].score(SENTENCES[:3], texts), atol=1e-4)
        np.testing.assert_allclose(scorer.score(SENTENCES, SENTENCES), stock.score(SENTENCES, SENTENCES), atol=1e-4)
    (tmp_path / "pairs.tsv").write_text(f"query\tdocument\na\tb {special} c\n", encoding="utf-8")
    found = []
    for number, flags in enumerate(([], ["--special-tokens-as-text"])):
        target = tmp_path / f"scores-{number}.tsv"
        assert main(["score", str(folder), str(tmp_path / "pairs.tsv"), "-o", str(target), *flags]) == 0
        found.append(float(target.read_text().splitlines()[1].split("\t")[1]))
    assert found == pytest.approx(
        [scorer.score(["a"], [f"b {special} c"])[0] for scorer in (stock, plain[0])], abs=1e-5
    )


@pytest.mark.parametrize("mode", ["mean", "weightedmean", "cls", "lasttoken", ["max", "mean_sqrt_len_tokens"]])
def test_a_prompt_that_is_left_out_of_the_pooling(mode, bert_bi, graphs, tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = shutil.copytree(bert_bi, tmp_path / "model")
    (pooling,) = folder.glob("*_Pooling/config.json")
    config = json.loads(pooling.read_text(encoding="utf-8"))
    changed = {**config, "pooling_mode": mode, "include_prompt": False}
    pooling.write_text(json.dumps(changed), encoding="utf-8")
    path = folder / "config_sentence_transformers.json"
    prompts = {"query": "Python Django: ", "document": ""}
    path.write_text(json.dumps({**json.loads(path.read_text()), "prompts": prompts}), encoding="utf-8")
    if not isinstance(mode, str):
        return check_head(folder, config, tmp_path)
    shutil.copytree(graphs / "bert_bi" / "openvino", folder / "openvino")
    stock = SentenceTransformer(str(folder), device="cpu")
    texts = [*TEXTS, "Python Django: a"]
    left, right = stock.encode_query(texts), stock.encode_document(texts[::-1])
    for runtime, tolerance in (("torch", 1e-5), ("openvino", 1e-4)):
        scorer = load(folder, runtime=runtime, precision="fp32", n_threads=1)
        np.testing.assert_allclose(scorer.encode_queries(texts), left, atol=tolerance)
        np.testing.assert_allclose(scorer.encode(texts, prompt_name="query"), left, atol=tolerance)
        np.testing.assert_allclose(scorer.score(texts, texts[::-1]), (left * right).sum(1), atol=tolerance)
    assert np.abs(left - load(bert_bi).encode([prompts["query"] + text for text in texts])).max() > 1e-2


def check_head(folder, config, tmp_path):
    """Two poolings side by side are as wide as two: compared by their own module."""
    from distill.models.files import read_model_files
    from distill.models.numpy_head import folder_leaves_prompt_out, read_head
    from distill.runtime.engine_torch import load_torch_head

    files = read_model_files(folder)
    assert folder_leaves_prompt_out(folder, files.modules[1:])
    rng = np.random.default_rng(0)
    tokens, mask = rng.normal(size=(3, 9, 64)).astype(np.float32), np.ones((3, 9), np.int64)
    mask[1, 6:] = 0
    ours, theirs = read_head(folder, files.modules[1:], 64), load_torch_head(files, 64, "cpu")
    for n_left_out in (0, 4):
        np.testing.assert_allclose(ours(tokens, mask, n_left_out), theirs(tokens, mask, n_left_out), atol=1e-5)


def test_a_graph_that_pools_the_prompt_in_is_refused(graphs, tmp_path):
    from tests.tiny.test_light_runtime import normalised, whole

    folder = whole(graphs / "bert_bi", tmp_path / "whole_bi", normalised)
    (pooling,) = folder.glob("*_Pooling/config.json")
    config = json.loads(pooling.read_text(encoding="utf-8"))
    pooling.write_text(json.dumps({**config, "include_prompt": False}), encoding="utf-8")
    load(folder, n_threads=1)  # without prompts there is nothing to leave out
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prompts": {"query": "q: "}}), encoding="utf-8")
    with pytest.raises(BadInput, match="pools without the prompt .*export the transformer alone"):
        load(folder, n_threads=1)


@pytest.mark.parametrize("multiplies", [False, True])
def test_an_int8_graph_says_where_fp32_is_faster(multiplies, graphs, tmp_path, monkeypatch, caplog):
    """The class of the CPU decides; two copies of a graph whose precision is told by the folder's own facts."""
    shutil.copytree(graphs / "bert_bi", tmp_path / "openvino-int8")
    monkeypatch.setattr("distill.runtime.engine_openvino._precision", lambda *_: "int8")
    monkeypatch.setattr("distill.runtime.fastest.multiplies_int8", lambda: multiplies)
    with caplog.at_level("INFO", logger="distill.runtime.opening"):
        load(tmp_path / "openvino-int8", n_threads=1)
        assert not caplog.records  # there is no sibling
        shutil.copytree(graphs / "bert_bi", tmp_path / "openvino-fp32")
        load(tmp_path / "openvino-int8", n_threads=1)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (not multiplies) and all(
        "fp32 is likely faster than int8 on this CPU (" in line for line in told
    )
