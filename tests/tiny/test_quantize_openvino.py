"""NNCF called directly gives the bytes that optimum-intel gives."""

import re

import pytest

from distill.data.tokens import tokenize
from distill.graphs.openvino import Traced, trace
from distill.models.files import open_tokenizer, read_model_files
from students.export import graphs, quantize_openvino
from students.export.graphs import Quantization, write_openvino_graph
from tests.tiny.conftest import SENTENCES
from tests.tiny.families import build_family

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def traced(bert_bi):
    return trace(bert_bi)


@pytest.fixture
def sample(bert_bi):
    table = tokenize(open_tokenizer(read_model_files(bert_bi)), SENTENCES[:6], max_length=32)
    rows = range(len(SENTENCES[:6]))
    return [{name: tensor.numpy() for name, tensor in table.batch([row], multiple=1).items()} for row in rows]


def written(folder):
    """The weights, and the graph without what says who made it."""
    text = (folder / "openvino/openvino_model.xml").read_text(encoding="utf-8")
    return (folder / "openvino/openvino_model.bin").read_bytes(), re.sub(r"(?s)<rt_info>.*?</rt_info>", "", text)


@pytest.mark.parametrize(
    ("precision", "alpha", "overflow_safe"),
    [
        ("int8", 0.5, True),
        pytest.param("int8", 0.0, False, marks=pytest.mark.slow),
        pytest.param("int8", -1, True, marks=pytest.mark.slow),
        ("int8_weights", 0.5, True),
        pytest.param("int4_weights", 0.5, True, marks=pytest.mark.slow),
    ],
)
def test_both_ways_write_the_same_graph(
    precision, alpha, overflow_safe, bert_bi, traced, sample, monkeypatch, tmp_path
):
    pytest.importorskip("optimum.intel", reason="optimum-intel is not installed: there is one way")
    monkeypatch.setattr(graphs, "trace", lambda _: Traced(traced.model.clone(), traced.config))
    made = {}
    for is_there in (True, False):
        monkeypatch.setattr(quantize_openvino, "has_optimum", lambda is_there=is_there: is_there)
        folder = tmp_path / str(is_there)
        folder.mkdir()
        kept, stored = write_openvino_graph(
            bert_bi, folder, Quantization(precision, sample, alpha, "ffn_down", 0.6, overflow_safe)
        )
        made[is_there] = written(folder), kept, stored
    assert made[True] == made[False]


@pytest.mark.slow
def test_alpha_is_heeded_down_to_zero(bert_bi, traced, sample, monkeypatch, tmp_path):
    """optimum's own option takes 0 for its default."""
    monkeypatch.setattr(graphs, "trace", lambda _: Traced(traced.model.clone(), traced.config))
    weights = set()
    for alpha in (0.0, 0.95):
        folder = tmp_path / str(alpha)
        folder.mkdir()
        write_openvino_graph(bert_bi, folder, Quantization("int8", sample, alpha))
        weights.add(written(folder)[0])
    assert len(weights) == 2


def test_an_optimum_that_does_not_fit_is_named_and_passed_over(monkeypatch, caplog):
    import sys
    import types

    broken = types.ModuleType("optimum.intel")  # as 2.2 beside transformers 5.24: it is there, and its names are not
    monkeypatch.setitem(sys.modules, "optimum.intel", broken)
    assert not quantize_openvino.has_optimum.__wrapped__()
    assert "optimum-intel cannot be used (cannot import name 'OVConfig'" in caplog.text


def test_a_missing_optimum_is_nothing_to_speak_of(monkeypatch, caplog):
    import sys

    for name in [name for name in sys.modules if name.startswith("optimum.intel")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optimum.intel", None)  # what import makes of a module that is not there
    assert not quantize_openvino.has_optimum.__wrapped__()
    assert not caplog.text


def test_what_the_conversion_has_discarded_is_not_quantized(tmp_path):
    """NNCF follows a constant to all of its readers; those of DeBERTa's graph were no longer in it."""
    graph = trace(build_family(tmp_path, "deberta-v2", "bi_encoder")).model
    names = {node.get_friendly_name() for node in graph.get_ops()}
    readers = (port for node in graph.get_ops() for out in node.outputs() for port in out.get_target_inputs())
    assert {port.get_node().get_friendly_name() for port in readers} <= names
