"""The fastest export of a student: measured where `distill tune` ran, else as expected of the CPU; never another student's."""

import json
import shutil

import pytest

from distill.errors import BadInput
from distill.files.artefact import Artefact, write_card
from distill.runtime import fastest, tuning
from distill.runtime.fastest import exports_at, faster_float, fastest_export, measured_speeds, speeds_key
from distill.runtime.opening import load
from distill.runtime.settings import Speed, store_speeds
from recipes.cli import main

pytestmark = pytest.mark.integration

FP32_WINS = [
    Speed("openvino-fp32", "openvino", "fp32", 2000.0, 2.0),
    Speed("openvino-int8", "openvino", "int8", 1000.0, 4.0),
]
INT8_WINS = [
    Speed("openvino-fp32", "openvino", "fp32", 1000.0, 4.0),
    Speed("openvino-int8", "openvino", "int8", 2000.0, 2.0),
]


def put(source, folder, precision, *, format="openvino", student="s1"):
    """Copy a graph as an export of a student, with the card that the export stage writes."""
    shutil.copytree(source, folder)
    details = {"format": format, "precision": precision}
    write_card(folder, Artefact("bi_encoder", "export", "f", parents={"student": student}, details=details))
    return folder


@pytest.fixture
def exports(graphs, tmp_path, monkeypatch):
    """A run's folder of two exports."""
    monkeypatch.setenv("MATCHDISTILL_CACHE", str(tmp_path / "cache"))
    for precision in ("fp32", "int8"):
        put(graphs / "bert_bi", tmp_path / "run" / "exports" / f"openvino-{precision}", precision)
    return tmp_path / "run" / "exports"


def cpu(monkeypatch, *, int8=False, bf16=False):
    monkeypatch.setattr(fastest, "multiplies_int8", lambda: int8)
    monkeypatch.setattr(fastest, "multiplies_bf16", lambda: bf16)


def store(exports, speeds, n_threads=1):
    return store_speeds(exports, speeds_key(exports_at(exports).exports, n_threads), speeds)


def taken(path, **options):
    folder, runtime = fastest_export(path, options.get("runtime"), options.get("n_threads", 1), options.get("mode"))
    return folder.name, runtime


@pytest.mark.parametrize(
    ("int8", "bf16", "expected"),
    [(False, False, "fp32"), (True, False, "int8"), (True, True, "int8"), (False, True, "fp32")],
)
def test_not_measured_the_class_of_the_cpu_decides(exports, monkeypatch, caplog, int8, bf16, expected):
    cpu(monkeypatch, int8=int8, bf16=bf16)
    with caplog.at_level("INFO", logger="distill.runtime.fastest"):
        for path in (exports.parent, exports, exports / "openvino-fp32", exports / "openvino-int8"):
            assert taken(path) == (f"openvino-{expected}", "openvino")
    assert len(caplog.records) == 4  # one line each
    assert all(f"openvino-{expected} (expected: " in record.getMessage() for record in caplog.records)
    assert all("not measured, see distill tune" in record.getMessage() for record in caplog.records)


def test_bf16_is_taken_where_it_was_exported_and_is_multiplied(exports, graphs, monkeypatch):
    put(graphs / "bert_bi", exports / "openvino-bf16", "bf16")
    shutil.rmtree(exports / "openvino-int8")
    cpu(monkeypatch, bf16=True)
    assert taken(exports) == ("openvino-bf16", "openvino")
    cpu(monkeypatch)
    assert taken(exports) == ("openvino-fp32", "openvino")


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(("speeds", "expected"), [(FP32_WINS, "openvino-fp32"), (INT8_WINS, "openvino-int8")])
def test_what_was_measured_here_decides(exports, monkeypatch, caplog, int8, speeds, expected):
    cpu(monkeypatch, int8=int8)
    assert store(exports, speeds).parent == exports
    with caplog.at_level("INFO", logger="distill.runtime.fastest"):
        scorer = load(exports.parent, precision="auto", n_threads=1)
    assert scorer.path.name == expected
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"{expected} (measured: 2000 tokens/s, 2.00 ms a call; " in line and " 1000 and 4.00 ms" in line


def test_the_mode_says_what_counts(exports, monkeypatch):
    cpu(monkeypatch, int8=True)
    many = Speed("openvino-fp32", "openvino", "fp32", 3000.0, 2.0)
    single = Speed("openvino-int8", "openvino", "int8", 1000.0, 1.0)
    store(exports, [many, single])
    assert taken(exports, mode="throughput")[0] == "openvino-fp32"
    assert taken(exports, mode="latency")[0] == "openvino-int8"
    assert taken(exports)[0] == "openvino-fp32"  # √(3000 / 2) > √(1000 / 1)
    # what is within the noise of a measurement leaves the expected one
    store(exports, [Speed("openvino-fp32", "openvino", "fp32", 1010.0, 1.0), single])
    assert taken(exports)[0] == "openvino-int8"


def test_a_measurement_holds_for_what_was_measured(exports, graphs, monkeypatch):
    cpu(monkeypatch)
    store(exports, INT8_WINS)
    assert taken(exports)[0] == "openvino-int8"
    assert taken(exports, n_threads=2)[0] == "openvino-fp32"
    graph = exports / "openvino-fp32" / "openvino" / "openvino_model.xml"
    before = graph.read_bytes()
    graph.write_bytes(before + b"\n")
    assert taken(exports)[0] == "openvino-fp32"
    graph.write_bytes(before)
    assert taken(exports)[0] == "openvino-int8"
    put(graphs / "bert_bi", exports / "openvino-fp16", "fp16")  # one more export: which is fastest is not known again
    assert taken(exports)[0] == "openvino-fp32"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"speeds": []}', '{"speeds": [{"folder": "openvino-fp32"}]}'])
def test_half_written_speeds_are_none(exports, text):
    store(exports, FP32_WINS).write_text(text)
    assert measured_speeds(exports_at(exports), 1) is None


def test_a_read_only_folder_is_measured_in_the_cache(exports, tmp_path, monkeypatch):
    from distill.runtime import settings

    write = settings.write_json

    def refuse(path, value):
        if path.parent == exports:
            raise PermissionError(13, "Permission denied", str(path))
        write(path, value)

    monkeypatch.setattr(settings, "write_json", refuse)
    assert store(exports, INT8_WINS).parent == tmp_path / "cache" / "tuning"
    assert measured_speeds(exports_at(exports), 1) == INT8_WINS


def test_only_exports_of_this_student_that_may_be_taken(exports, graphs, monkeypatch):
    cpu(monkeypatch, int8=True)
    put(graphs / "onnx_bi", exports / "onnx-int8_dynamic", "int8_dynamic", format="onnx")
    shutil.copytree(graphs / "bert_bi", exports / "without-a-card")  # passed no gate
    (exports / ".openvino-int8.1.tmp").mkdir()
    found = exports_at(exports)
    assert [one.folder.name for one in found.exports] == ["openvino-fp32", "openvino-int8"]
    assert found.left_out == ["onnx-int8_dynamic: a text's result changes with its neighbours in the batch"]
    assert taken(exports)[0] == "openvino-int8"
    put(graphs / "bert_bi", exports / "openvino-fp16", "fp16", student="s2")
    with pytest.raises(BadInput, match="exports of different students"):
        fastest_export(exports, None, 1, None)
    assert taken(exports / "openvino-fp16") == ("openvino-fp16", "openvino")  # nothing of its student is beside it
    assert taken(exports / "openvino-fp32")[0] == "openvino-int8"


def test_a_runtime_limits_the_choice(exports, graphs, monkeypatch):
    cpu(monkeypatch)
    put(graphs / "onnx_bi", exports / "onnx-fp32", "fp32", format="onnx")
    assert taken(exports) == ("openvino-fp32", "openvino")
    assert taken(exports, runtime="onnx") == ("onnx-fp32", "onnx")
    with pytest.raises(BadInput, match="no export for runtime numpy; there is onnx-fp32, openvino-fp32, openvino-int8"):
        fastest_export(exports, "numpy", 1, None)


def test_what_is_no_export_is_opened_as_it_is(graphs, bert_bi, tmp_path):
    assert load(graphs / "bert_bi", precision="auto", n_threads=1).path == graphs / "bert_bi"
    assert load(bert_bi, precision="auto", n_threads=1).runtime == "torch"
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no export; name a run's folder"):
        load(tmp_path / "empty", precision="auto")
    with pytest.raises(BadInput, match="nowhere"):
        load(tmp_path / "nowhere", precision="auto")
    with pytest.raises(BadInput, match="one of fp32, bf16, auto is accepted"):
        load(graphs / "bert_bi", precision="int8")


def test_an_int8_export_says_that_fp32_was_measured_to_be_faster(exports, monkeypatch):
    cpu(monkeypatch, int8=True)
    assert faster_float(exports / "openvino-int8", 1, None) is None
    store(exports, FP32_WINS)
    assert faster_float(exports / "openvino-int8", 1, None).startswith(
        "fp32 is faster than int8 here (measured: 2000 tokens/s"
    )
    cpu(monkeypatch)
    store(exports, INT8_WINS)
    assert faster_float(exports / "openvino-int8", 1, None) is None  # measured, whatever is expected of the CPU
    assert "fp32 is likely faster than int8 on this CPU" in faster_float(exports / "openvino-int8", 2, None)


def test_the_precisions_are_measured_in_turns(exports, monkeypatch):
    """With a clock of our own: each export's times are told by its place, and one turn is disturbed."""
    now, calls = [0.0], []

    def runs(takes, what):
        def made(engine, *_):
            fp32 = engine._files.folder.name.endswith("fp32")

            def run():
                calls.append((what, fp32))
                disturbed = len(calls) == 7
                now[0] += takes[fp32] + 100 * disturbed

            return run

        return made

    monkeypatch.setattr(tuning, "_throughput", runs({True: 1.0, False: 2.0}, "many"))
    monkeypatch.setattr(tuning, "_single_calls", runs({True: 0.3, False: 0.6}, "single"))
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(tuning, "multiplies_bf16", lambda: False)
    first, second = tuning.measure_precisions(exports_at(exports).exports, 1, seconds=30.0)
    assert (first.folder, second.folder) == ("openvino-fp32", "openvino-int8")
    assert first.tokens_per_s == pytest.approx(2 * second.tokens_per_s)
    assert first.p50_ms == pytest.approx(150.0) and second.p50_ms == pytest.approx(300.0)  # calls of 24 and 64 tokens


def test_bf16_is_asked_of_a_float_graph_and_is_not_taken(exports, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(tuning, "_TURNS", (1, 1))
    speeds = tuning.measure_precisions(exports_at(exports).exports, 1, seconds=0.1)
    assert sorted((one.folder, one.precision, one.judged) for one in speeds) == [
        ("openvino-fp32", "bf16 asked", False),
        ("openvino-fp32", "fp32", True),
        ("openvino-int8", "int8", True),
    ]


@pytest.mark.slow
def test_tune_on_the_command_line_compares_the_exports(exports, capsys, monkeypatch):
    monkeypatch.setattr(tuning, "_LONGEST", 64)
    assert main(["tune", str(exports), "--threads", "1", "--seconds", "0.1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {row["folder"] for row in printed["precisions"]} == {"openvino-fp32", "openvino-int8"}
    assert all(row["tokens_per_s"] > 0 and row["p50_ms"] > 0 for row in printed["precisions"])
    assert taken(exports)[0] == printed["fastest"] and "settings" not in printed
    speeds, settings = exports.glob(".speeds-*.json"), exports.glob("openvino-*/.tuning-*.json")
    stored = list(map(str, [*speeds, *settings]))
    assert len(stored) == 3 and sorted(printed["stored_in"]) == sorted(stored)
    # one export: its own settings, and its place among those beside it
    assert main(["tune", str(exports / "openvino-int8"), "--threads", "1", "--seconds", "0.1"]) == 0
    shown = capsys.readouterr().out
    assert "tokens/s" in shown and "openvino-fp32" in shown and "fastest of both together: openvino-" in shown
    assert main(["tune", str(exports), "--precision", "auto"]) == 2
    assert "tune measures what auto takes later" in capsys.readouterr().err


def test_auto_on_the_command_line(exports, tmp_path, capsys):
    store(exports, INT8_WINS, n_threads=1)
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    (tmp_path / "pairs.tsv").write_text("query\tdocument\none\ttwo\n")
    options = ["--precision", "auto", "--threads", "1"]
    assert (
        main(["embed", str(exports.parent), str(tmp_path / "texts.txt"), "-o", str(tmp_path / "o.npy"), *options]) == 0
    )
    assert main(["score", str(exports), str(tmp_path / "pairs.tsv"), "-o", str(tmp_path / "o.tsv"), *options]) == 0
    assert capsys.readouterr().err.count("openvino-int8") >= 2
