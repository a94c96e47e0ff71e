"""A model folder with random changes to its files loads and scores, or is refused in words: never another exception.

MATCHDISTILL_FUZZ_RUNS=2000 runs more of them.
"""

import json
import os
import shutil
import time

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from distill.errors import BadInput, MatchDistillError
from distill.metrics.calibration import Calibration
from distill.models.stored_calibration import StoredCalibration, write_calibration
from distill.scorers.opening import open_scorer
from tests.tiny.conftest import build, write_onnx
from tests.unit.test_fuzz_recipe import at, odd, places

pytestmark = pytest.mark.integration

RUNS = int(os.environ.get("MATCHDISTILL_FUZZ_RUNS", "0"))
SECONDS = 20
fuzzed = settings(max_examples=RUNS or 15, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folders = tmp_path_factory.mktemp("fuzz")
    build(folders / "bi", "bi_encoder", "wordpiece")
    build(folders / "cross", "cross_encoder", "unigram")
    platt = Calibration("platt", "bi_encoder", slope=9.0, bias=-5.0)
    write_calibration(folders / "bi" / "model", StoredCalibration(platt, 0.5, {"by": "recall"}, {"pairs": 60}))
    steps = Calibration("isotonic", "cross_encoder", steps=((-2.0, 0.0, 1.5), (0.1, 0.4, 0.8)))
    write_calibration(folders / "cross" / "model", StoredCalibration(steps))
    return [folders / "bi" / "model", folders / "cross" / "model"]


def used(folder):
    """Open a folder and score two pairs; what is refused is one message."""
    start = time.perf_counter()
    try:
        open_scorer(folder, n_threads=1).score(["개발자 nurse", "a"], ["서울 engineer", "b"], calibrated=True)
    except MatchDistillError as refused:
        assert str(refused).strip() and len(str(refused)) < 3000
    assert time.perf_counter() - start < SECONDS


def copied(source, tmp_path_factory):
    target = tmp_path_factory.getbasetemp() / "fuzzed-model"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def test_a_folder_without_one_of_its_modules_is_refused(whole, tmp_path_factory):
    for source in whole:
        folder = copied(source, tmp_path_factory)
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        del modules[1]  # the pooling
        (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
        with pytest.raises(BadInput, match="no module of its modules.json gives sentence_embedding"):
            open_scorer(folder, n_threads=1).score(["a"], ["b"])


def test_modules_whose_widths_do_not_fit_are_refused(whole, bert_cross, tmp_path_factory):
    for source, runtime in ((whole[1], "torch"), (bert_cross, "onnx")):  # behind a graph they run in numpy
        folder = copied(source, tmp_path_factory)
        if runtime == "onnx":
            write_onnx(folder)
        path = folder / "1_Pooling" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "pooling_mode_cls_token": True}), encoding="utf-8")
        with pytest.raises(BadInput, match="the widths of its modules do not fit"):
            open_scorer(folder, runtime=runtime, n_threads=1).score(["a"], ["b"])


@pytest.mark.parametrize(
    ("module", "changed", "says"),
    [
        ("", {"max_seq_length": -(10**23)}, "as its longest text"),
        ("2_Normalize", {"module_input_name": []}, "states what is no name"),
        (
            "1_Pooling",
            {"word_embedding_dimension": 1, "embedding_dimension": 1},
            "its modules give 64 numbers, and state 1",
        ),
    ],
)
def test_what_modules_state_of_themselves_is_refused_where_it_is_wrong(whole, tmp_path_factory, module, changed, says):
    folder = copied(whole[0], tmp_path_factory)
    path = folder / module / "config.json" if module else folder / "sentence_bert_config.json"
    stated = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**stated, **{key: value for key, value in changed.items() if key in stated}}), "utf-8")
    with pytest.raises(BadInput, match=says):
        open_scorer(folder, n_threads=1).score(["a"], ["b"])


@seed(1)
@fuzzed
@given(st.data())
def test_changed_json(whole, tmp_path_factory, data):
    folder = copied(data.draw(st.sampled_from(whole)), tmp_path_factory)
    files = sorted(path for path in folder.rglob("*.json"))
    for path in data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=2, unique=True)):
        value = json.loads(path.read_text(encoding="utf-8"))
        # of a tokenizer the few keys around the vocabulary, of the others any
        found = [
            place for place in places(value) if place and len(place) <= (2 if path.name == "tokenizer.json" else 4)
        ]
        *parents, last = data.draw(st.sampled_from(found))
        node, changed = at(value, parents), data.draw(odd)
        if data.draw(st.booleans()):
            node[last] = changed
        else:
            del node[last]
        path.write_text(json.dumps(value, default=str, skipkeys=True), encoding="utf-8")
    used(folder)


@seed(2)
@fuzzed
@given(st.data())
def test_changed_bytes(whole, tmp_path_factory, data):
    folder = copied(data.draw(st.sampled_from(whole)), tmp_path_factory)
    path = data.draw(st.sampled_from(sorted(path for path in folder.rglob("*") if path.is_file())))
    content = bytearray(path.read_bytes())
    how = data.draw(st.sampled_from(["cut", "flip", "empty", "grow", "gone", "folder"]))
    if how in ("gone", "folder"):
        path.unlink()
        if how == "folder":
            path.mkdir()
        used(folder)
        return
    if how == "flip" and content:  # mostly in the header, where lengths and names are
        for place in data.draw(st.lists(st.integers(0, min(len(content), 400) - 1), min_size=1, max_size=4)):
            content[place] = data.draw(st.integers(0, 255))
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "grow": content + b"\0" * 7}.get(how, content))
    used(folder)
