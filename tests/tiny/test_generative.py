"""Generative rerankers as frozen teachers: the folder's own scorer, template and instruction, with stock CrossEncoder's numbers."""

import json
import logging
import multiprocessing
import shutil

import numpy as np
import pytest
import torch

from distill.data.pairs import Pairs
from distill.errors import BadInput
from distill.evaluation.benchmark import score_row, teacher_row
from distill.models.backbone import fresh_backbone
from distill.models.modeling import quiet
from distill.recipe.schema import FreshBackbone
from distill.runtime.opening import load
from distill.signals import SignalCache, pair_keys
from recipes.cli import main
from students import build_student
from students.export.stage import export_model
from teachers import cache_signals, train_teachers
from tests.tiny.conftest import SENTENCES
from tests.tiny.test_server import check_forked_children

FROZEN = {"kind": "cross_encoder", "frozen": True, "max_length": 96, "head": None}
SHORT = {"max_pairs": 120}
INSTRUCTION = "백엔드 Python developer"
# as Qwen3-Reranker has it: fixed words around, an instruction, and an opened answer at the end
TEMPLATE = """<|im_start|> {{ (messages | selectattr("role", "eq", "system") | list)[0].content if (messages | selectattr("role", "eq", "system") | list) else "" }} query: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }} document: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }} <|im_end|>"""
PAIRS = [(SENTENCES[i], SENTENCES[-1 - i] * (1 + i % 3)) for i in range(9)]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A folder of a tiny Qwen3 with a LogitScore, as sentence-transformers saves it."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    base = tmp_path_factory.mktemp("decoder")
    settings = FreshBackbone(vocabulary=300, layers=1, width=32, heads=2, max_length=96)
    tokenizer = AutoTokenizer.from_pretrained(fresh_backbone(settings, SENTENCES * 20, seed=1, folder=base / "tokens"))
    tokenizer.add_tokens(["yes", "no"])
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"})
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.4,
        pad_token_id=tokenizer.pad_token_id,
    )
    with quiet():
        Qwen3ForCausalLM(config).save_pretrained(base / "plain")
        tokenizer.save_pretrained(base / "plain")
        body = Transformer(str(base / "plain"), transformer_task="text-generation", max_seq_length=96)
        head = LogitScore(*tokenizer.convert_tokens_to_ids(["yes", "no"]))
        model = CrossEncoder(
            modules=[body, head], device="cpu", prompts={"query": INSTRUCTION}, default_prompt_name="query"
        )
        model.save(str(base / "model"), create_model_card=False)
    return base / "model"


@pytest.fixture(scope="module")
def stock(decoder):
    """Raw scores, and what predict gives."""
    from sentence_transformers import CrossEncoder

    with quiet():
        model = CrossEncoder(str(decoder), device="cpu")
        return model.predict(PAIRS, activation_fn=torch.nn.Identity()), model.predict(PAIRS)


def test_scores_are_stock_ones(decoder, stock):
    scorer = load(decoder)
    scores = scorer.score(*zip(*PAIRS, strict=True))
    assert scores.std() > 0.05
    np.testing.assert_allclose(scores, stock[0], atol=2e-5)
    np.testing.assert_allclose(scorer.unit(scores), stock[1], atol=1e-5)
    np.testing.assert_allclose(scorer.score(*zip(*PAIRS, strict=True), batch_tokens=1), stock[0], atol=2e-5)
    assert (scorer.kind, scorer.runtime, scorer.precision) == ("cross_encoder", "torch", "fp32")
    rows, ranked = scorer.rank(PAIRS[0][0], [document for _, document in PAIRS], top_k=3)
    assert (np.diff(ranked) <= 0).all() and len(rows) == 3
    counts = scorer.token_counts(*zip(*PAIRS, strict=True))
    assert (counts > scorer.n_template_tokens).all() and counts.max() <= scorer.max_length


def test_pairs_that_are_too_long_keep_the_end_of_the_template(decoder):
    from sentence_transformers import CrossEncoder

    long = [(" ".join(SENTENCES), " ".join(SENTENCES * 2)), ("a", "b")]
    with quiet():
        model = CrossEncoder(str(decoder), device="cpu")
    model.max_seq_length = 64
    expected = model.predict(long, activation_fn=torch.nn.Identity())
    scorer = load(decoder, max_length=64)
    np.testing.assert_allclose(scorer.score(*zip(*long, strict=True)), expected, atol=2e-5)
    assert scorer.token_counts(*zip(*long, strict=True))[0] == 64


def test_as_a_frozen_teacher_it_labels_and_is_a_row(tiny_run, decoder, tmp_path, caplog):
    from sentence_transformers import CrossEncoder

    run = tiny_run(
        data=SHORT, teachers={"cross": {**FROZEN, "backbone": str(decoder)}}, signals={"allow_unrelated": True}
    )
    with caplog.at_level(logging.INFO):
        train_teachers(run)
        cache_signals(run)
    assert f"a generative reranker, scored by its own LogitScore; instruction {INSTRUCTION!r}" in caplog.text
    pairs = run.split.train
    with quiet():
        model = CrossEncoder(str(decoder), device="cpu")
    model.max_seq_length = 96
    expected = model.predict(list(zip(pairs.queries, pairs.documents, strict=True)), activation_fn=torch.nn.Identity())
    cache = SignalCache(run.signals("cross"), run.signal_identity("cross"))
    keys = pair_keys(pairs.queries, pairs.documents)
    np.testing.assert_allclose(cache.read("scores", cache.find("scores", keys, "scores")).ravel(), expected, atol=5e-5)
    row = teacher_row(run, "cross")
    few = run.split.evaluation.select(range(5))
    expected = model.predict(list(zip(few.queries, few.documents, strict=True)))
    np.testing.assert_allclose(score_row(run, row, few).unit, expected, atol=1e-5)
    # the copy opens in stock sentence-transformers, too
    with quiet():
        again = CrossEncoder(str(run.teacher("cross")), device="cpu")
    np.testing.assert_allclose(again.predict(list(zip(few.queries, few.documents, strict=True))), expected, atol=1e-6)
    # and `distill score` reads it
    file = tmp_path / "pairs.tsv"
    file.write_text(
        "query\tdocument\n" + "".join(f"{q}\t{d}\n" for q, d in zip(["a b", "c"], ["d", "e f"], strict=True))
    )
    assert main(["score", str(run.teacher("cross")), str(file), "-o", str(tmp_path / "scores.tsv")]) == 0
    last = [float(line.split("\t")[-1]) for line in (tmp_path / "scores.tsv").read_text().splitlines()[1:]]
    np.testing.assert_allclose(last, model.predict([("a b", "d"), ("c", "e f")]), atol=1e-5)

    refused = tiny_run(
        "run",
        data=SHORT,
        teachers={"cross": {**FROZEN, "backbone": str(decoder)}},
        student={"kind": "cross_encoder", "backbone": {"teacher": "cross"}, "layers": [0]},
    )
    with pytest.raises(BadInput, match="generative reranker: it teaches as it is, and no other model is cut out of it"):
        build_student(refused)


def test_arguments_are_checked_as_of_every_scorer(decoder):
    scorer = load(decoder)
    with pytest.raises(BadInput, match="batch_tokens -1; at least 1 is expected"):
        scorer.score(["a"], ["b"], batch_tokens=-1)
    with pytest.raises(BadInput, match="1 query and 0 documents"):
        scorer.token_counts(["a"], [])


def test_is_not_exported_and_runs_in_torch_alone(decoder, tmp_path):
    with pytest.raises(BadInput, match="generative reranker: it runs in torch and is not exported"):
        export_model(decoder, tmp_path / "out", precision="fp32", held_back=Pairs(*map(list, zip(*PAIRS, strict=True))))
    assert not (tmp_path / "out").exists()
    with pytest.raises(BadInput, match="it runs in torch alone, not in openvino"):
        load(decoder, runtime="openvino")
    with pytest.raises(BadInput, match="special_tokens_as_text is not there for it"):
        load(decoder, special_tokens_as_text=True)


def test_its_vocabulary_is_not_trimmed(decoder, tmp_path, capsys):
    """Its scorer names yes and no by their ids, and its template is made of tokens that no text has."""
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    assert main(["trim", str(decoder), str(tmp_path / "small"), "--texts", str(tmp_path / "texts.txt")]) == 2
    assert "is a generative reranker" in capsys.readouterr().err and not (tmp_path / "small").exists()


def changed(decoder, folder, change):
    shutil.copytree(decoder, folder)
    change(folder)
    return folder


def logit_score(**values):
    def change(folder):
        path = folder / "1_LogitScore" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def module_paths(path):
    def change(folder):
        modules = json.loads((folder / "modules.json").read_text())
        modules[1]["path"] = path
        (folder / "modules.json").write_text(json.dumps(modules))

    return change


def template(text):
    def change(folder):
        (folder / "chat_template.jinja").write_text(text)

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (logit_score(true_token_id=10_000), r"LogitScore reads the tokens 10000, \d+ of a vocabulary of"),
        (logit_score(true_token_id="yes"), "LogitScore reads the tokens yes"),
        (logit_score(module_input_name="attention_mask"), "LogitScore is to come last and to read causal_logits"),
        (lambda folder: (folder / "1_LogitScore" / "config.json").unlink(), "1_LogitScore/config.json is missing"),
        (lambda folder: (folder / "modules.json").unlink(), "modules.json"),
        (module_paths("../elsewhere"), "leads out of the folder"),
        (template("{{ messages[0].content }}"), "cannot be loaded"),
        (template("{% for %}"), "cannot be loaded"),
        (template("word " * 200 + TEMPLATE), r"alone take \d+ tokens; max_length 96 leaves no room for a pair"),
    ],
)
def test_spoiled_folders_are_one_line(tiny_run, decoder, tmp_path, change, match):
    folder = changed(decoder, tmp_path / "m", change)
    with pytest.raises(BadInput, match=match):
        load(folder)
    run = tiny_run(data=SHORT, teachers={"cross": {**FROZEN, "backbone": str(folder)}})
    with pytest.raises(BadInput, match=match):
        train_teachers(run)
    assert not run.teacher("cross").exists()


@pytest.mark.slow
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs os.fork")
def test_forked_children_score_as_their_parent(decoder, bert_bi):
    """And so does a torch encoder: in the same process, whose imports take most of the time."""
    check_forked_children([str(decoder), str(bert_bi)])
