"""Teachers that compare tokens, on tiny random models of the published forms, against loops written from the papers' formulas."""

import json
import math
import os
import pickle
import random
import shutil
from functools import cache

import numpy as np
import pytest

from distill.errors import BadInput
from distill.scorers.token_readers import HowToRead
from distill.scorers.token_scorer import TokenScorer, open_token_scorer
from tests.conftest import BACKBONE, make_run, merge, pairs_file
from tests.tiny.conftest import SENTENCES
from tests.tiny.token_models import POSITIONS, WIDTH, as_pylate, as_stanford, build_late, build_m3, linear

QUICK = {
    "training": {"max_steps": 2},
    "signals": {"allow_unrelated": True},
    "export": {"precisions": []},
    "benchmark": {"seconds": 0.05, "max_seconds": 0.1, "throughput_pairs": 24, "bootstrap": 20, "baselines": {}},
}
STUDENT = {"kind": "bi_encoder", "backbone": BACKBONE, "layers": None, "max_length": 64, "control": False}
QUERIES = [SENTENCES[i] for i in (0, 0, 2, 3, 4, 8, 8, 9)]
DOCUMENTS = [SENTENCES[i] for i in (1, 2, 2, 8, 0, 9, 3, 9)]


@pytest.fixture(scope="module")
def m3_source(tmp_path_factory):
    return build_m3(tmp_path_factory.mktemp("m3"))


@pytest.fixture(scope="module")
def late_source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("late")
    return build_late(
        folder,
        expansion={"strategy": "fixed", "length": 24},
        skipped=[".", ","],
        prompts={"query": "q: ", "document": "d: "},
        document_length=40,
    )


def run_with(folder, teachers, **changes):
    """A run of a student that learns the scores of the first of these teachers."""
    base = {
        "teachers": {"cross": None, **teachers},
        "student": STUDENT,
        "objectives": {"score_match": {"teacher": next(iter(teachers))}},
    }
    return make_run(folder / "run", **merge(merge(QUICK, base), changes))


def taken(folder, settings):
    """A scorer of a teacher as a run takes it."""
    from teachers import train_teachers

    run = run_with(folder, {"one": settings})
    train_teachers(run)
    return open_token_scorer(run.teacher("one"))


def edit(path, changes):
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def m3(source, **settings):
    return {"kind": "bge_m3", "backbone": str(source), "max_length": 64, **settings}


def late(source, **settings):
    return {"kind": "late_interaction", "backbone": str(source), **settings}


# ---------------------------------------------------------------------------------------------------------------------
# BGE-m3
# ---------------------------------------------------------------------------------------------------------------------


def m3_by_hand(source, query, document):
    """The three scores of one pair, token by token."""
    (q_dense, q_lexical, q_vectors), (d_dense, d_lexical, d_vectors) = (
        m3_text(source, text) for text in (query, document)
    )
    lexical = sum(weight * d_lexical[token] for token, weight in q_lexical.items() if token in d_lexical)
    multi_vector = sum(max(dot(q, d) for d in d_vectors) for q in q_vectors) / len(q_vectors)
    return dot(q_dense, d_dense), lexical, multi_vector


@cache
def m3_text(source, text):
    """What BGE-m3 says of one text alone, without padding: its embedding, a weight of each token, a vector of each."""
    import torch

    encoder, tokenizer = encoder_of(source)
    sparse, colbert = (torch.load(source / f"{name}_linear.pt", weights_only=True) for name in ("sparse", "colbert"))
    special = {tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    ids = tokenizer(text, truncation=True, max_length=64)["input_ids"]
    with torch.no_grad():
        states = encoder(input_ids=torch.tensor([ids])).last_hidden_state[0].double().tolist()
    lexical, vectors = {}, []
    for place, (token, state) in enumerate(zip(ids, states, strict=True)):
        if token not in special:
            weight = max(0.0, dot(state, sparse["weight"][0].tolist()) + float(sparse["bias"][0]))
            lexical[token] = max(weight, lexical.get(token, 0.0))
        if place > 0:
            rows = zip(colbert["weight"].tolist(), colbert["bias"].tolist(), strict=True)
            vectors.append(unit([dot(state, row) + bias for row, bias in rows]))
    return unit(states[0]), lexical, vectors


@cache
def encoder_of(source):
    """The encoder and the tokenizer of a folder, as transformers opens them."""
    from transformers import AutoModel, AutoTokenizer

    from distill.models.modeling import quiet

    with quiet():
        return AutoModel.from_pretrained(source).eval(), AutoTokenizer.from_pretrained(source)


def unit(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def dot(one, other):
    return sum(x * y for x, y in zip(one, other, strict=True))


class TestM3:
    def test_the_three_scores_and_their_mean_are_those_of_the_paper(self, m3_source, tmp_path):
        by_hand = [m3_by_hand(m3_source, *pair) for pair in zip(QUERIES, DOCUMENTS, strict=True)]
        assert np.ptp(by_hand, axis=0).min() > 0.05, "a comparison of scores that are all alike shows nothing"
        weights = {
            "dense": (1, 0, 0),
            "sparse": (0, 1, 0),
            "multi": (0, 0, 1),
            "all": (0.4, 0.2, 0.4),
            "two": (3, 1, 0),
        }
        for name, (dense, sparse, multi) in weights.items():
            stated = {"dense": dense, "sparse": sparse, "multi_vector": multi}
            scorer = taken(tmp_path / name, m3(m3_source, weights=stated))
            expected = [dot(stated.values(), scores) / sum(stated.values()) for scores in by_hand]
            np.testing.assert_allclose(scorer.score(QUERIES, DOCUMENTS), expected, rtol=2e-6, atol=2e-6, err_msg=name)

    def test_dense_embeddings_are_those_of_the_bi_encoder(self, m3_source, tmp_path):
        from distill.runtime.opening import load

        scorer = taken(tmp_path, m3(m3_source))
        vectors = load(m3_source, max_length=64).encode(SENTENCES)
        np.testing.assert_allclose(scorer.encode_queries(SENTENCES), vectors, atol=1e-6)
        np.testing.assert_allclose(scorer.encode_documents(SENTENCES[:1]), vectors[:1], atol=1e-6)

    def test_prompts_are_read_by_all_outputs(self, m3_source, tmp_path):
        scorer = taken(tmp_path, m3(m3_source, prompts=["Python ", ""]))
        plain = taken(tmp_path / "plain", m3(m3_source))
        asked = [f"Python {query}" for query in QUERIES]
        np.testing.assert_allclose(scorer.score(QUERIES, DOCUMENTS), plain.score(asked, DOCUMENTS), atol=1e-6)
        assert np.abs(scorer.score(QUERIES, DOCUMENTS) - plain.score(QUERIES, DOCUMENTS)).max() > 1e-3

    def test_a_folder_that_flagembedding_trained_has_no_modules(self, tmp_path):
        source = build_m3(tmp_path, modules=False)
        pair = QUERIES[2], DOCUMENTS[3]
        dense = taken(tmp_path, m3(source, weights={"dense": 1, "sparse": 0, "multi_vector": 0})).score(
            *([x] for x in pair)
        )
        assert dense[0] == pytest.approx(m3_by_hand(source, *pair)[0], abs=2e-6)

    def test_bf16_is_close(self, m3_source, tmp_path):
        exact = taken(tmp_path, m3(m3_source))
        rounded = open_token_scorer(exact.path, HowToRead(precision="bf16"))
        difference = np.abs(exact.score(QUERIES, DOCUMENTS) - rounded.score(QUERIES, DOCUMENTS))
        assert rounded.precision == "bf16" and 1e-6 < difference.max() < 0.2

    def test_longer_texts_than_the_model_has_positions_for_are_refused(self, m3_source, tmp_path):
        with pytest.raises(BadInput, match=f"max_length 512 is more than the {POSITIONS}"):
            taken(tmp_path, m3(m3_source, max_length=512))


# ---------------------------------------------------------------------------------------------------------------------
# Late interaction
# ---------------------------------------------------------------------------------------------------------------------


def late_by_hand(source, query, document, *, expanded_to, skipped, limit, prompts):
    """MaxSim of one pair, and the number of the query's tokens: each text alone, token by token."""
    import torch
    from safetensors.torch import load_file

    encoder, tokenizer = encoder_of(source)
    rows = load_file(source / "1_Dense" / "model.safetensors")["linear.weight"].tolist()
    ids = tokenizer(prompts[0] + query, truncation=True, max_length=expanded_to)["input_ids"]
    mask = [1] * len(ids) + [0] * (expanded_to - len(ids))  # expansions are not attended to, and score all the same
    ids = ids + [tokenizer.mask_token_id] * (expanded_to - len(ids))
    told = tokenizer(prompts[1] + document, truncation=True, max_length=limit)["input_ids"]
    left_out = {tokenizer.convert_tokens_to_ids(word) for word in skipped}
    sides = []
    for tokens, attended in ((ids, mask), (told, [1] * len(told))):
        with torch.no_grad():
            out = encoder(input_ids=torch.tensor([tokens]), attention_mask=torch.tensor([attended])).last_hidden_state[
                0
            ]
        sides.append([unit([dot(row, state) for row in rows]) for state in out.double().tolist()])
    documents = [vector for token, vector in zip(told, sides[1], strict=True) if token not in left_out]
    assert len(documents) < len(told) or not any(token in left_out for token in told)
    return sum(max(dot(q, d) for d in documents) for q in sides[0]), len(ids)


HOW = {"expanded_to": 24, "skipped": [".", ","], "limit": 40, "prompts": ("q: ", "d: ")}


class TestLateInteraction:
    def test_scores_are_maxsim_and_its_mean(self, late_source, tmp_path):
        by_hand = [late_by_hand(late_source, *pair, **HOW) for pair in zip(QUERIES, DOCUMENTS, strict=True)]
        sums = taken(tmp_path / "sum", late(late_source, similarity="maxsim")).score(QUERIES, DOCUMENTS)
        means = taken(tmp_path / "mean", late(late_source)).score(QUERIES, DOCUMENTS)
        np.testing.assert_allclose(sums, [total for total, _ in by_hand], rtol=2e-6)
        np.testing.assert_allclose(means, [total / n for total, n in by_hand], rtol=2e-6)
        assert np.ptp(sums) > 0.5

    def test_a_folder_of_pylate(self, late_source, tmp_path):
        source = as_pylate(shutil.copytree(late_source, tmp_path / "pylate"))
        scorer = taken(tmp_path, late(source))
        assert scorer.limits == (16, 48)
        how = {"expanded_to": 16, "skipped": [",", "."], "limit": 48, "prompts": ("[Q] ", "[D] ")}
        expected = [late_by_hand(source, *pair, **how) for pair in zip(QUERIES, DOCUMENTS, strict=True)]
        np.testing.assert_allclose(scorer.score(QUERIES, DOCUMENTS), [total / n for total, n in expected], rtol=2e-6)

    def test_a_folder_of_stanford(self, late_source, tmp_path):
        source = as_stanford(shutil.copytree(late_source, tmp_path / "stanford"))
        scorer = taken(tmp_path, late(source))
        assert scorer.limits == (20, 44)
        from sentence_transformers import MultiVectorEncoder

        from distill.models.modeling import quiet

        with quiet():
            model = MultiVectorEncoder(str(source), device="cpu")
            pairs = zip(model.encode_query(QUERIES), model.encode_document(DOCUMENTS), strict=True)
        expected = [float((query @ document.T).max(dim=1).values.mean()) for query, document in pairs]
        np.testing.assert_allclose(scorer.score(QUERIES, DOCUMENTS), expected, rtol=2e-6)

    def test_lengths_of_the_recipe(self, late_source, tmp_path):
        short = taken(tmp_path / "short", late(late_source, document_length=16))
        how = HOW | {"limit": 16}
        expected = [late_by_hand(late_source, *pair, **how) for pair in zip(QUERIES, DOCUMENTS, strict=True)]
        np.testing.assert_allclose(short.score(QUERIES, DOCUMENTS), [total / n for total, n in expected], rtol=2e-6)
        longer = taken(tmp_path / "long", late(late_source, query_length=60))
        assert longer.limits == (60, 40)
        long_query = " ".join(SENTENCES[2:4])
        counts = longer.token_counts([long_query, "a"], ["a", "a"]) - longer.token_counts(["a", "a"], ["a", "a"])
        assert counts[0] > 0 and counts[1] == 0, "a query is read whole, and a short one expanded to 24 as before"
        with pytest.raises(BadInput, match="query_length 16 is less than the 24 tokens that"):
            taken(tmp_path / "less", late(late_source, query_length=16))
        with pytest.raises(BadInput, match=f"document_length 300 is more than the {POSITIONS} positions"):
            taken(tmp_path / "more", late(late_source, document_length=300))

    def test_longer_documents_make_no_longer_queries(self, tmp_path):
        source = build_late(tmp_path)
        edit(source / "sentence_bert_config.json", {"max_seq_length": 20})
        scorer = taken(tmp_path, late(source, document_length=60))
        long = " ".join(SENTENCES)
        assert scorer.limits == (20, 60)
        assert scorer.token_counts([long], [long]).tolist() == [80]

    def test_what_is_no_late_interaction_is_refused(self, late_source, m3_source, tmp_path):
        for number, source in enumerate((m3_source, late_source.parent / "encoder")):
            with pytest.raises(BadInput, match="is no late-interaction model"):
                taken(tmp_path / str(number), late(source))

    def test_a_late_interaction_model_is_no_bi_encoder(self, late_source, tmp_path):
        from distill.runtime.opening import load

        with pytest.raises(BadInput, match="MultiVectorMask is not run here"):
            load(late_source)
        scorer = taken(tmp_path, late(late_source))
        with pytest.raises(BadInput, match="no embeddings"):
            scorer.encode_queries(["a"])


# ---------------------------------------------------------------------------------------------------------------------
# Both
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scorers(m3_source, late_source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorers")
    return {
        "m3": taken(folder / "m3", m3(m3_source)),
        "late": taken(folder / "late", late(late_source, document_length=90)),
    }


@pytest.mark.parametrize("name", ["m3", "late"])
def test_a_score_depends_on_nothing_but_its_pair(scorers, name):
    rng = random.Random(0)
    texts = [" ".join(rng.choice(SENTENCES).split()[: rng.randint(1, 8)]) for _ in range(40)] + [
        " ".join(SENTENCES),
        "",
        "a",
    ]
    pairs = [(rng.choice(texts), rng.choice(texts)) for _ in range(24)] + [("", ""), (texts[40], ""), ("", texts[40])]
    whole = scorers[name].score(*zip(*pairs, strict=True))
    order = list(range(len(pairs)))
    rng.shuffle(order)
    shuffled = scorers[name].score(*zip(*(pairs[i] for i in order), strict=True))
    alone = np.concatenate([scorers[name].score([query], [document]) for query, document in pairs])
    np.testing.assert_allclose(shuffled, whole[order], rtol=0, atol=1e-6)
    np.testing.assert_allclose(alone, whole, rtol=0, atol=1e-6)
    assert len(scorers[name].score([], [])) == 0


@pytest.mark.parametrize("name", ["m3", "late"])
def test_blocks_and_forgetting_change_nothing(scorers, name, monkeypatch):
    from distill.scorers import token_scorer

    whole = scorers[name].score(QUERIES, DOCUMENTS)
    monkeypatch.setattr(token_scorer, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(token_scorer, "_KEPT_BYTES", 3000)
    np.testing.assert_allclose(scorers[name].score(QUERIES, DOCUMENTS), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["m3", "late"])
def test_a_teachers_folder_is_opened_like_any_other(scorers, name):
    from distill.scorers.opening import check_scorer_folder, open_scorer

    scorer = open_scorer(scorers[name].path, runtime="torch", precision="fp32", device="cpu", n_threads=1)
    assert isinstance(scorer, TokenScorer) and scorer.kind == check_scorer_folder(scorer.path)
    np.testing.assert_allclose(scorer.score(QUERIES, DOCUMENTS), scorers[name].score(QUERIES, DOCUMENTS), atol=1e-6)
    assert scorer.n_parameters > 10_000 and "TokenScorer(" in repr(scorer)
    assert (scorer.token_counts(QUERIES, DOCUMENTS) > 4).all()
    assert open_scorer(scorers[name].path, max_length=30).max_length == 30
    with pytest.raises(BadInput, match="runs in torch"):
        open_scorer(scorers[name].path, runtime="openvino")


def test_the_command_scores_with_one(scorers, tmp_path):
    from recipes.cli import main

    assert main(["score", str(scorers["late"].path), pairs_file(), "-o", str(tmp_path / "scores.csv")]) == 0
    header, *rows = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 240 and "score" in header


def test_cut_texts_are_counted_with_their_prompts(scorers):
    long = " ".join(SENTENCES)
    cut = scorers["late"].cut_texts(["a", long], [long])
    assert (cut["queries"].n, cut["queries"].n_cut, cut["queries"].max_length) == (2, 1, 24)
    assert cut["documents"].n_cut == 1 and cut["documents"].max_length == 90
    assert list(scorers["m3"].cut_texts([], ["a"])) == ["documents"]


# ---------------------------------------------------------------------------------------------------------------------
# A folder from anywhere
# ---------------------------------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class TestTrust:
    @pytest.fixture
    def source(self, m3_source, tmp_path):
        return shutil.copytree(m3_source, tmp_path / "m3")

    def test_a_pickle_that_runs_code_runs_nothing(self, source, tmp_path):
        (source / "sparse_linear.pt").write_bytes(pickle.dumps({"weight": Evil(tmp_path / "ran"), "bias": 1}))
        with pytest.raises(BadInput, match=r"sparse_linear\.pt holds more than tensors, and could run code"):
            taken(tmp_path, m3(source))
        assert not (tmp_path / "ran").exists()
        assert not (tmp_path / "run" / "teachers" / "one").exists(), "no half a folder"

    def test_safetensors_are_taken_first(self, source, tmp_path):
        from safetensors.torch import save_file

        expected = taken(tmp_path / "pt", m3(source)).score(QUERIES, DOCUMENTS)
        for name, n_out, seed in (("sparse_linear", 1, 3), ("colbert_linear", WIDTH, 4)):
            save_file(linear(n_out, seed=seed), source / f"{name}.safetensors")
            (source / f"{name}.pt").write_bytes(b"nobody opens this")
        assert (taken(tmp_path / "st", m3(source)).score(QUERIES, DOCUMENTS) == expected).all()

    def test_an_encoder_that_is_a_pickle_alone_is_read_as_tensors(self, source, tmp_path):
        import torch
        from safetensors.torch import load_file

        expected = taken(tmp_path / "st", m3(source)).score(QUERIES, DOCUMENTS)
        torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
        (source / "model.safetensors").unlink()
        scorer = taken(tmp_path / "pt", m3(source))
        assert (scorer.score(QUERIES, DOCUMENTS) == expected).all()
        assert not [*scorer.path.rglob("*.bin"), *scorer.path.rglob("*.pt")]
        (source / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil(tmp_path / "ran")}, protocol=2))
        with pytest.raises(BadInput, match="cannot be loaded: "):
            taken(tmp_path / "evil", m3(source))
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        ("tensors", "says"),
        [
            (None, r"has neither sparse_linear\.safetensors nor sparse_linear\.pt: it is no BGE-m3"),
            ([1.0], "holds list; the tensors of a linear layer by name are expected"),
            ({"weight": (1, WIDTH)}, "is no linear layer"),
            ({"weight": (1, WIDTH), "bias": (1,), "more": (1,)}, "is no linear layer"),
            ({"weight": (2, WIDTH), "bias": (1,)}, "is no linear layer"),
            ({"weight": (WIDTH,), "bias": ()}, "is no linear layer"),
            ({"weight": (0, WIDTH), "bias": (0,)}, "is no linear layer"),
            ({"weight": (2, WIDTH), "bias": (2,)}, "sparse_linear gives 2 numbers a token; one weight is expected"),
            ({"weight": (1, 7), "bias": (1,)}, f"reads states of width 7, its encoder has {WIDTH}"),
            ("nan", r"weight \(row 0\) holds NaN or infinity"),
            (b"\x80", r"sparse_linear\.pt"),
        ],
    )
    def test_heads_that_are_none(self, source, tmp_path, tensors, says):
        import torch

        path = source / "sparse_linear.pt"
        path.unlink()
        if isinstance(tensors, bytes):
            path.write_bytes(tensors)
        elif tensors == "nan":
            torch.save({"weight": torch.full((1, WIDTH), torch.nan), "bias": torch.zeros(1)}, path)
        elif tensors is not None:
            held = (
                {name: torch.zeros(shape) for name, shape in tensors.items()} if isinstance(tensors, dict) else tensors
            )
            torch.save(held, path)
        with pytest.raises(BadInput, match=says) as problem:
            taken(tmp_path, m3(source))
        assert len(str(problem.value).splitlines()) == 1

    def test_a_head_that_lies_elsewhere_is_refused(self, source, tmp_path):
        (source / "sparse_linear.pt").rename(tmp_path / "elsewhere.pt")
        (source / "sparse_linear.pt").symlink_to(tmp_path / "elsewhere.pt")
        with pytest.raises(BadInput, match="is a link out of the folder"):
            taken(tmp_path, m3(source))

    def test_a_projection_that_was_not_copied_is_named(self, late_source, tmp_path):
        source = shutil.copytree(late_source, tmp_path / "source")
        shutil.rmtree(source / "1_Dense")
        with pytest.raises(BadInput, match=r"source lacks 1_Dense/config\.json, which modules\.json: module 1 names"):
            taken(tmp_path / "taken", late(source))

    def test_late_interaction_folders_are_not_trusted_either(self, late_source, tmp_path):
        source = shutil.copytree(late_source, tmp_path / "late")
        modules = json.loads((source / "modules.json").read_text(encoding="utf-8"))
        for change, says in (
            ({"type": "pylate.models.Dense.Evil"}, "is not run here"),
            ({"type": "sentence_transformers.models.Router"}, "is not run here"),
            ({"path": "../x"}, "leads out of the folder"),
        ):
            edited = [modules[0], {**modules[1], **change}, *modules[2:]]
            (source / "modules.json").write_text(json.dumps(edited), encoding="utf-8")
            with pytest.raises(BadInput, match=says):
                taken(tmp_path, late(source))
        (source / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
        (source / "1_Dense" / "model.safetensors").rename(source / "1_Dense" / "pytorch_model.bin")
        with pytest.raises(BadInput, match="is a pickle"):
            taken(tmp_path, late(source))


# ---------------------------------------------------------------------------------------------------------------------
# In a run
# ---------------------------------------------------------------------------------------------------------------------


def learned(folder, m3_source, late_source, **changes):
    teachers = {"m3": m3(m3_source), "late": late(late_source)}
    objectives = {
        "score_match": {"teacher": None, "teachers": {"m3": 0.5, "late": 0.5}, "loss": "bce"},
        "embedding_match": {"teacher": "m3"},
    }
    base = {"data": {"validation_share": 0.3}, "objectives": objectives}
    return run_with(folder, teachers, **merge(base, changes))


def test_signals_are_what_the_teacher_says(m3_source, late_source, tmp_path):
    from distill.signals import CachedSignals, SignalCache
    from teachers import cache_signals, train_teachers

    run = learned(tmp_path, m3_source, late_source)
    train_teachers(run)
    cache_signals(run)
    train = run.split.train
    for name in ("m3", "late"):
        cache = SignalCache(run.signals(name), run.signal_identity(name))
        scorer = open_token_scorer(run.teacher(name))
        scores = CachedSignals(cache).scores(train.queries, train.documents)
        np.testing.assert_allclose(scores, scorer.score(train.queries, train.documents), rtol=0, atol=1e-6)
    signals = CachedSignals(SignalCache(run.signals("m3"), run.signal_identity("m3")))
    assert signals.width == WIDTH and signals.kind == "bi_encoder"
    vectors = signals.embeddings(train.documents, [1] * len(train))(np.arange(len(train)))
    np.testing.assert_allclose(
        vectors, open_token_scorer(run.teacher("m3")).encode_documents(train.documents), atol=1e-6
    )
    manifest = json.loads(
        (run.signals("m3") / run.signal_identity("m3").key / "manifest.json").read_text(encoding="utf-8")
    )
    assert {"scores queries", "scores documents", "embeddings documents"} <= set(manifest["cut_texts"])


def test_a_head_that_changed_meets_no_old_signal(m3_source, tmp_path):
    import torch

    from distill.verify import verify
    from teachers import cache_signals, train_teachers

    source = shutil.copytree(m3_source, tmp_path / "m3")
    run = run_with(tmp_path, {"m3": m3(source)})
    train_teachers(run)
    cache_signals(run)
    before = run.signal_identity("m3")
    assert not [verdict for verdict in verify(run.folder) if verdict.state == "broken"]
    torch.save(linear(1, seed=9), source / "sparse_linear.pt")
    with pytest.raises(BadInput, match=r"was made from something else \(parents\.backbone"):
        train_teachers(run)
    again = run_with(tmp_path, {"m3": m3(source)}, overwrite=True)
    train_teachers(again)
    other_head = again.signal_identity("m3")
    other_weights = run_with(tmp_path, {"m3": m3(source, weights={"sparse": 0.3})}, overwrite=True)
    train_teachers(other_weights)
    assert len({before.key, other_head.key, other_weights.signal_identity("m3").key}) == 3

    from safetensors.torch import save_file

    save_file(linear(1, seed=10), run.teacher("m3") / "sparse_linear.safetensors")
    assert [verdict.place for verdict in verify(run.folder) if verdict.state == "broken"] == ["teachers/m3"]
    with pytest.raises(BadInput, match="its files are not those that were written"):
        cache_signals(other_weights)


def test_the_doctor_asks_them(m3_source, late_source, tmp_path):
    from teachers import cache_signals, train_teachers
    from teachers.doctor import diagnose

    run = learned(tmp_path, m3_source, late_source)
    found = diagnose(run).findings
    assert [finding.line for finding in found if "not trained yet" in finding.line and "m3" in finding.line]
    train_teachers(run)
    cache_signals(run)
    found = [
        finding
        for finding in diagnose(run).findings
        if finding.about in ("teacher m3", "signals of m3", "teacher late")
    ]
    lines = [finding.line for finding in found]
    assert any("used as it is: 0.4 dense + 0.2 sparse + 0.4 multi_vector of m3" in line for line in lines)
    assert any("max_length 24 cuts" in line for line in lines), "queries of the late interaction are short"
    assert not [finding for finding in found if finding.level == "problem" and "same" in finding.line]


def taught_by(scorers, path):
    """Write the tests' pairs with labels that both teachers have a part in: a mixture is fitted to labels that scores rise with."""
    from distill.data.pairs import read_pairs
    from distill.recipe.schema import Columns

    pairs = read_pairs(pairs_file(), Columns())
    scores = [scorer.score(pairs.queries, pairs.documents) for scorer in scorers.values()]
    mean = sum((one - one.mean()) / one.std() for one in scores)
    labels = np.argsort(np.argsort(mean)) / (len(mean) - 1)
    rows = zip(pairs.queries, pairs.documents, labels, strict=True)
    lines = [f"{query}\t{document}\t{label:.4f}" for query, document, label in rows]
    path.write_text("\n".join(["query\tdocument\tlabel", *lines]) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.slow
def test_a_student_of_both_and_the_report(m3_source, late_source, scorers, tmp_path):
    from recipes._stages import every_stage

    told = taught_by(scorers, tmp_path / "told.tsv")
    run = learned(tmp_path, m3_source, late_source, data={"train": told}, benchmark={"teachers": ["m3"]})
    for stage in every_stage():
        stage(run)
    report = json.loads((run.report / "benchmark.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in report["rows"]}
    assert rows["m3"]["kind"] == "bge_m3" and rows["m3"]["latency_ms"]["p50"] > 0
    assert rows["m3"]["size_mb"] > 0.05 and rows["m3"]["parameters"] > 10_000
    assert rows["student"]["speedup"] > 0 and rows["student"]["retention"]
    card = (run.teacher("m3") / "README.md").read_text(encoding="utf-8")
    assert "open_scorer(" in card and not card.startswith("---")
    assert "BGE-m3" in (run.report / "index.html").read_text(encoding="utf-8")
