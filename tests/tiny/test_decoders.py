"""Decoders as teachers: embedders in the form of Qwen3-Embedding and e5-mistral, and rerankers that are trained by LoRA."""

import json

import numpy as np
import pytest

from distill.models.modeling import quiet
from distill.recipe.schema import Recipe
from distill.run import Run
from distill.runtime import load
from distill.signals import CachedSignals, SignalCache
from students import train_student
from teachers import cache_signals, train_teachers
from tests.conftest import BACKBONE, make_run, merge
from tests.tiny.conftest import SENTENCES
from tests.tiny.decoders import DECODERS, QUERY_PROMPT, decoder_embedder, plain_decoder
from tests.tiny.test_generative import PAIRS, changed, decoder, logit_score  # noqa: F401  # a fixture

BI = {"kind": "bi_encoder", "backbone": BACKBONE, "layers": None, "max_length": 64, "control": False}
WAYS = {
    "frozen": {"frozen": True},
    "lora": {"lora": {"rank": 4}, "loss": "infonce"},
    "whole": {"loss": "contrastive"},
}


@pytest.fixture(scope="module")
def embedders(tmp_path_factory):
    return {family: decoder_embedder(tmp_path_factory.mktemp(family), family) for family in DECODERS}


def run_of(folder, backbone, **changes):
    base = {
        "data": {"max_pairs": 120},
        "teachers": {"cross": None, "bi": {"kind": "bi_encoder", "backbone": str(backbone), "max_length": 64}},
        "student": BI,
        "objectives": {"score_match": None, "embedding_match": {"teacher": "bi"}},
        "signals": {"allow_unrelated": True},
        "training": {"max_steps": 3},
    }
    return make_run(folder / "run", **merge(base, changes))


def stock(folder, max_length=None):
    from sentence_transformers import SentenceTransformer

    with quiet():
        model = SentenceTransformer(str(folder), device="cpu")
    if max_length is not None:
        model.max_seq_length = max_length
    return model


@pytest.mark.parametrize("family", DECODERS)
def test_vectors_are_stock_ones_with_the_instruction_before_queries(embedders, family):
    model, scorer = stock(embedders[family]), load(embedders[family])
    queries, documents = model.encode_query(SENTENCES), model.encode_document(SENTENCES)
    assert model[1].pooling_mode == "lasttoken" and np.abs(queries - documents).max() > 1e-3
    np.testing.assert_allclose(scorer.encode_queries(SENTENCES), queries, atol=2e-6)
    np.testing.assert_allclose(scorer.encode_documents(SENTENCES), documents, atol=2e-6)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("family", "way"),
    [
        # one family in each way, and each family in one
        pytest.param(family, way, marks=[] if way == "frozen" or family == DECODERS[0] else pytest.mark.slow)
        for family in DECODERS
        for way in WAYS
    ],
)
def test_as_a_teacher_it_labels_as_stock_does(tmp_path, embedders, family, way):
    run = run_of(tmp_path, embedders[family], teachers={"bi": WAYS[way]})
    train_teachers(run)
    cache_signals(run)
    model, texts = stock(run.teacher("bi"), 64), run.split.train.queries[:10]
    source = CachedSignals(SignalCache(run.signals("bi"), run.signal_identity("bi")))
    expected = model.encode_query(texts)
    np.testing.assert_allclose(source.embeddings(texts, [0] * 10)(np.arange(10)), expected, atol=3e-6)
    assert run.teacher_prompts("bi") == (QUERY_PROMPT, "") and model[1].pooling_mode == "lasttoken"
    moved = np.abs(expected - stock(embedders[family], 64).encode_query(texts)).max()
    assert moved == 0 if way == "frozen" else moved > 1e-4
    if family == DECODERS[0]:
        train_student(run)
        assert load(run.student).embedding_width == 32


def test_a_language_model_as_it_is_gives_its_last_tokens_state(tmp_path, caplog):
    caplog.set_level("INFO")
    plain = plain_decoder(tmp_path, "qwen3")
    told = {"bi": {"frozen": True, "prompts": [QUERY_PROMPT, ""]}}
    run = run_of(tmp_path, plain, teachers=told)
    train_teachers(run)
    model = stock(run.teacher("bi"))
    assert model[1].pooling_mode == "lasttoken" and model.prompts["query"] == QUERY_PROMPT
    assert "Qwen3ForCausalLM is a decoder: its last token's state becomes the embedding" in caplog.text
    # the state of the last token of a text alone, without padding
    import torch
    from transformers import AutoModel, AutoTokenizer

    with quiet():
        tokenizer, body = AutoTokenizer.from_pretrained(plain), AutoModel.from_pretrained(plain).eval()
    vectors = load(run.teacher("bi")).encode_queries(SENTENCES)
    for text, vector in zip(SENTENCES, vectors, strict=True):
        given = tokenizer(QUERY_PROMPT + text, return_tensors="pt", truncation=True, max_length=64)
        with torch.inference_mode():
            state = body(given["input_ids"], given["attention_mask"]).last_hidden_state[0, -1].numpy()
        np.testing.assert_allclose(vector, state / np.linalg.norm(state), atol=3e-6)
    mean = run_of(tmp_path / "mean", plain, teachers={"bi": {"frozen": True, "pooling": "mean"}})
    train_teachers(mean)
    assert stock(mean.teacher("bi"))[1].pooling_mode == "mean"


@pytest.mark.integration
@pytest.mark.parametrize("way", [{"lora": {"rank": 4}}, {}])
def test_a_generative_reranker_is_trained_and_stays_one(tmp_path, decoder, way):  # noqa: F811
    from safetensors.numpy import load_file
    from sentence_transformers import CrossEncoder

    teacher = {"kind": "cross_encoder", "backbone": str(decoder), "head": None, "max_length": 96, **way}
    run = make_run(
        tmp_path / "run",
        data={"max_pairs": 120},
        teachers={"cross": teacher},
        training={"max_steps": 6, "learning_rate": 1e-2},
        signals={"allow_unrelated": True},
    )
    train_teachers(run)
    modules = json.loads((run.teacher("cross") / "modules.json").read_text())
    assert modules[-1]["type"].endswith("LogitScore")
    with quiet():
        before, after = (CrossEncoder(str(folder), device="cpu") for folder in (decoder, run.teacher("cross")))
    assert after.prompts == before.prompts and after[0].tokenizer.chat_template == before[0].tokenizer.chat_template
    told = [model.predict(PAIRS) for model in (before, after)]
    assert np.abs(told[0] - told[1]).max() > 1e-3
    np.testing.assert_allclose(
        load(run.teacher("cross")).unit(load(run.teacher("cross")).score(*zip(*PAIRS, strict=True))), told[1], atol=1e-5
    )
    if "lora" in way:  # adapters alone: the vocabulary is as it was
        name = "model.embed_tokens.weight"
        old, new = (load_file(folder / "model.safetensors")[name] for folder in (decoder, run.teacher("cross")))
        np.testing.assert_array_equal(old, new)
    cache_signals(run)
    train_student_of(run, tmp_path)


def train_student_of(run, folder):
    """A small cross-encoder learns from its cached scores."""
    raw = run.recipe.model_dump(mode="json")
    raw["student"] |= {"backbone": BACKBONE, "layers": None, "head": [8]}
    student = Run(Recipe.model_validate(raw))
    train_student(student)
    assert load(student.student).kind == "cross_encoder"


def test_training_reads_pairs_as_stock_does(decoder):  # noqa: F811
    """Tokens, template and padding of a training batch are those of predict."""
    import torch
    from sentence_transformers import CrossEncoder

    from distill.models.generative import tokenize_templated

    with quiet():
        model = CrossEncoder(str(decoder), device="cpu").eval()
    model.max_seq_length = 64
    pairs = [*PAIRS, (" ".join(SENTENCES), " ".join(SENTENCES * 2))]
    counts = []
    table, cut = tokenize_templated(model, *zip(*pairs, strict=True), on_progress=counts.append)
    assert sum(counts) == len(pairs) and (cut.n_cut, cut.n) == (1, len(pairs))
    with torch.inference_mode():
        scores = model(table.batch(np.arange(len(pairs))))["scores"].ravel().numpy()
    np.testing.assert_allclose(scores, model.predict(pairs, activation_fn=torch.nn.Identity()), atol=2e-5)
    assert (table.batch([0, 9])["attention_mask"][:, -1] == 1).all()


def test_a_head_that_is_asked_for_replaces_the_scorer(tmp_path, decoder):  # noqa: F811
    run = make_run(
        tmp_path / "run",
        data={"max_pairs": 120},
        teachers={"cross": {"kind": "cross_encoder", "backbone": str(decoder), "head": [8], "max_length": 96}},
        training={"max_steps": 2},
    )
    train_teachers(run)
    modules = json.loads((run.teacher("cross") / "modules.json").read_text())
    assert modules[-1]["type"].endswith("Dense")


def test_a_score_of_yes_alone(tmp_path, decoder):  # noqa: F811
    """As bge-reranker-v2-gemma: the logit of one token."""
    import torch
    from sentence_transformers import CrossEncoder

    folder = changed(decoder, tmp_path / "yes", logit_score(false_token_id=None))
    with quiet():
        expected = CrossEncoder(str(folder), device="cpu").predict(PAIRS, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(load(folder).score(*zip(*PAIRS, strict=True)), expected, atol=2e-5)
