"""The scorer gives what stock sentence-transformers gives, whatever the batch, the length or the runtime."""

import json
import shutil

import numpy as np
import pytest

from distill.errors import BadInput
from distill.files.artefact import Artefact, write_card
from distill.machine.cpu import usable_cpus
from distill.runtime.buckets import _CALL_TOKENS, padded_length, plan_batches
from distill.runtime.opening import load
from tests.tiny.conftest import SENTENCES, write_onnx

TEXTS = [*SENTENCES, "", "a", " ".join(SENTENCES), SENTENCES[0], "가나다 " * 300]
QUERIES, DOCUMENTS = TEXTS, [*TEXTS[3:], *TEXTS[:3]]


def stock_encode(folder, texts, **options):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", **options).encode(texts)


def stock_predict(folder, pairs, **options):
    from sentence_transformers import CrossEncoder
    from torch import nn

    return CrossEncoder(str(folder), device="cpu", **options).predict(pairs, activation_fn=nn.Identity())


@pytest.mark.parametrize("name", ["bert_bi", "xlmr_bi"])
def test_torch_embeddings_are_those_of_stock_sentence_transformers(name, request):
    folder = request.getfixturevalue(name)
    scorer = load(folder, n_threads=1)
    assert (scorer.kind, scorer.runtime, scorer.precision, scorer.max_length) == ("bi_encoder", "torch", "fp32", 96)
    ours = scorer.encode(TEXTS)
    assert ours.dtype == np.float32 and ours.shape == (len(TEXTS), scorer.embedding_width) == (len(TEXTS), 64)
    np.testing.assert_allclose(ours, stock_encode(folder, TEXTS), atol=1e-5)


@pytest.mark.parametrize("name", ["bert_cross", "xlmr_cross"])
def test_torch_logits_are_those_of_stock_sentence_transformers(name, request):
    folder = request.getfixturevalue(name)
    scorer = load(folder, n_threads=1)
    assert scorer.kind == "cross_encoder"
    logits = scorer.score(QUERIES, DOCUMENTS)
    np.testing.assert_allclose(logits, stock_predict(folder, list(zip(QUERIES, DOCUMENTS, strict=True))), atol=1e-5)
    np.testing.assert_allclose(scorer.unit(logits), 1 / (1 + np.exp(-logits)), atol=1e-6)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (
            {"prompts": {"query": "Is it a match? "}, "default_prompt_name": "query"},
            "prompt 'Is it a match\\? ' before",
        ),
        ({"prompts": {"query": "a: "}, "default_prompt_name": ["query"]}, "prompts are to be texts by name"),
    ],
)
def test_a_prompt_before_every_pair_is_not_left_out_in_silence(bert_cross, tmp_path, stored, message):
    folder = shutil.copytree(bert_cross, tmp_path / "prompted")
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | stored))
    with pytest.raises(BadInput, match=message):
        load(folder)


@pytest.mark.parametrize("name", ["bert_bi", "xlmr_bi"])
def test_bi_encoder_scores_are_cosines(name, request):
    scorer = load(request.getfixturevalue(name), n_threads=1)
    scores = scorer.score(QUERIES, DOCUMENTS)
    left, right = scorer.encode(QUERIES), scorer.encode(DOCUMENTS)
    np.testing.assert_allclose(scores, (left * right).sum(1), atol=1e-5)
    assert scorer.unit(np.array([-1, 0, 1])).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("length", [3, 8, 95, 96])
def test_truncation_is_that_of_stock(bert_bi, length):
    from sentence_transformers import SentenceTransformer

    stock = SentenceTransformer(str(bert_bi), device="cpu")
    stock.max_seq_length = length
    np.testing.assert_allclose(load(bert_bi, max_length=length).encode(TEXTS), stock.encode(TEXTS), atol=1e-5)


def test_what_fills_max_length_is_counted(bert_bi, bert_cross):
    scorer = load(bert_bi, max_length=8)
    assert scorer.cut_line() is None
    scorer.encode(["a", "a", "b"])
    assert scorer.cut_line() is None
    scorer.encode(["a b c d e f g h i j k"] * 2)
    assert scorer.cut_line().startswith("1 of 3 different texts reach max_length 8 (the model can read ")
    pairs = load(bert_cross, max_length=8)
    scores = pairs.score(["a b c d e f g h", "a", "a", "a b c d e f g h"], ["a b c d e f g h", "b", "b", "b"])
    assert scores[1] == scores[2] and scores[0] != scores[1]
    assert pairs.cut_line().startswith("2 of 3 different pairs reach max_length 8 ")


def test_texts_of_unknown_tokens_are_counted(bert_bi, bert_cross):
    scorer = load(bert_bi)
    scorer.encode(["a b", "a ლ b"])
    assert scorer.unread_line() is None
    scorer.encode(["ლ", "ლ", "ა ბ", "a b"])
    assert scorer.unread_line().startswith("2 of 5 different texts consist of unknown tokens by half or more")
    pairs = load(bert_cross)
    pairs.score(["a", "ლ", "ლ a", "ლ", "a"], ["b", "ა", "ა b", "a b", "b"])
    assert pairs.unread_line().startswith("2 of 4 different pairs consist")


def test_a_damaged_graph_is_called_so(bert_bi, tmp_path):
    graph = shutil.copytree(bert_bi, tmp_path / "graph")
    weights = graph / "model.safetensors"
    write_card(graph, Artefact("bi_encoder", "student", "f"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BadInput, match="graph was changed or damaged after it was made"):
        load(graph)
    (graph / "artefact.json").unlink()
    with pytest.raises(BadInput, match="graph cannot be loaded: "):
        load(graph)


def test_results_do_not_depend_on_the_batch(xlmr_bi):
    scorer = load(xlmr_bi, n_threads=1)
    together = scorer.encode(TEXTS)
    np.testing.assert_allclose(together, np.concatenate([scorer.encode([text]) for text in TEXTS]), atol=1e-5)
    np.testing.assert_allclose(together, scorer.encode(TEXTS, batch_tokens=8), atol=1e-5)


def test_identical_texts_are_encoded_once_and_order_is_kept(bert_bi):
    scorer = load(bert_bi, n_threads=1)
    done = []
    vectors = scorer.encode([*TEXTS, *TEXTS], progress=done.append)
    assert sum(done) == len(set(TEXTS))
    assert (vectors[: len(TEXTS)] == vectors[len(TEXTS) :]).all()


def test_stored_truncation_and_padding_are_switched_off(bert_bi, tmp_path):
    folder = shutil.copytree(bert_bi, tmp_path / "model")
    state = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    state["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    state["padding"] = {
        "strategy": {"Fixed": 90},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (folder / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    np.testing.assert_allclose(load(folder).encode(TEXTS), load(bert_bi).encode(TEXTS), atol=1e-6)


def test_bf16_is_close_and_says_so(bert_bi):
    scorer = load(bert_bi, precision="bf16", n_threads=1)
    assert scorer.precision == "bf16"
    assert (scorer.encode(TEXTS) * load(bert_bi).encode(TEXTS)).sum(1).min() > 0.99


def test_prompts_are_those_of_encode_query_and_encode_document(bert_bi, tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = shutil.copytree(bert_bi, tmp_path / "model")
    path = folder / "config_sentence_transformers.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "prompts": {"query": "query: ", "document": "cat: "}}), encoding="utf-8")
    stock, scorer = SentenceTransformer(str(folder), device="cpu"), load(folder)
    left, right = stock.encode_query(QUERIES), stock.encode_document(DOCUMENTS)
    np.testing.assert_allclose(scorer.score(QUERIES, DOCUMENTS), (left * right).sum(1), atol=1e-5)
    np.testing.assert_allclose(scorer.encode(TEXTS, prompt_name="query"), stock.encode_query(TEXTS), atol=1e-5)
    with pytest.raises(BadInput, match="no prompt named passage; stored: query, document"):
        scorer.encode(TEXTS, prompt_name="passage")


def test_no_texts_give_no_rows(bert_bi, bert_cross):
    assert load(bert_bi).encode([]).shape == (0, 64)
    assert load(bert_bi).score([], []).shape == (0,)
    assert load(bert_cross).score([], []).shape == (0,)


@pytest.mark.parametrize("bad", [None, float("nan"), 3, b"bytes"])
def test_what_is_no_text_is_named(bert_bi, bert_cross, bad):
    with pytest.raises(BadInput, match="texts, row 1: a text is expected"):
        load(bert_bi).encode(["a", bad])
    with pytest.raises(BadInput, match="documents, row 1: a text is expected"):
        load(bert_cross).score(["a", "b"], ["a", bad])


def test_bad_calls_are_refused(bert_bi, bert_cross, tmp_path):
    with pytest.raises(BadInput, match="2 queries and 1 document;"):
        load(bert_bi).score(["a", "b"], ["a"])
    with pytest.raises(BadInput, match="one text; a list"):
        load(bert_bi).encode("a")
    with pytest.raises(BadInput, match="cross-encoder, it has no embeddings"):
        load(bert_cross).encode(["a"])
    with pytest.raises(BadInput, match="more than the 96 positions"):
        load(bert_bi, max_length=97)
    with pytest.raises(BadInput, match="no room for a text"):
        load(bert_bi, max_length=2)
    with pytest.raises(BadInput, match=r"no openvino/openvino_model\.xml; export it"):
        load(bert_bi, runtime="openvino")
    with pytest.raises(BadInput, match="no such directory"):
        load(tmp_path / "nothing")


def test_parameters_are_counted_with_the_head(bert_cross):
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(bert_cross), device="cpu")
    assert load(bert_cross).n_parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["bi", "cross"])
def test_onnx_gives_what_torch_gives(kind, request, tmp_path):
    pytest.importorskip("onnxruntime")
    source = request.getfixturevalue(f"bert_{kind}")
    folder = shutil.copytree(source, tmp_path / "model")
    write_onnx(folder)
    scorer, reference = load(folder, n_threads=1), load(folder, runtime="torch")
    assert (scorer.runtime, scorer.precision) == ("onnx", "fp32")
    assert scorer.n_parameters == reference.n_parameters
    np.testing.assert_allclose(scorer.score(QUERIES, DOCUMENTS), reference.score(QUERIES, DOCUMENTS), atol=1e-4)
    with pytest.raises(BadInput, match="no bf16"):
        load(folder, precision="bf16")


def test_few_shapes_and_every_row_once():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 513, 5000)
    batches = list(plan_batches(lengths, batch_tokens=2048, fixed_shapes=True))
    rows = np.concatenate([rows for rows, _ in batches])
    assert sorted(rows.tolist()) == list(range(5000))
    assert len({(len(rows), width) for rows, width in batches}) <= 100
    for chosen, width in batches:
        assert lengths[chosen].max() <= width == padded_length(int(lengths[chosen].max()))
        assert len(chosen) * width <= 2048
    padded = sum(len(chosen) * width for chosen, width in batches)
    assert padded < 1.05 * lengths.sum()
    assert {len(chosen) for chosen, _ in batches} <= {2**power for power in range(9)}
    assert padded_length(512) == 512


def test_batches_cost_the_least_of_all_cuts():
    """Against every way to cut the sorted lengths into pieces of 1, 2, 4 and 8."""

    def cheapest(widths):
        if not widths:
            return 0
        cuts = [cheapest(widths[n:]) + n * widths[0] + _CALL_TOKENS for n in (1, 2, 4, 8) if n <= len(widths)]
        return min(cuts)

    rng = np.random.default_rng(1)
    for _ in range(20):
        lengths = rng.integers(1, 200, 9)
        planned = list(plan_batches(lengths, batch_tokens=10_000, fixed_shapes=True))
        widths = [padded_length(int(n)) for n in np.sort(lengths)[::-1]]
        assert sum(len(rows) * width + _CALL_TOKENS for rows, width in planned) == cheapest(widths)


@pytest.mark.parametrize("fixed_shapes", [True, False])
def test_no_batch_is_longer_than_the_model(fixed_shapes):
    lengths = np.array([100, 99, 3, 0])
    widths = [n for _, n in plan_batches(lengths, batch_tokens=512, fixed_shapes=fixed_shapes, at_most=100)]
    assert max(widths) == 100 and min(widths) == 8
    assert list(plan_batches(lengths[:0], batch_tokens=512, fixed_shapes=fixed_shapes)) == []


def test_usable_cpus_heed_what_torch_heeds(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    there = usable_cpus()
    assert there >= 1
    for said, expected in (("1", 1), ("1,2", 1), ("9999", there), ("many", there), ("", there)):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert usable_cpus() == expected
