"""A query-side student beside its teacher's document vectors, from training to a Router that stock code opens."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from distill.errors import BadInput, GateFailed
from distill.evaluation import benchmark, latency
from distill.files.artefact import read_card, revision, write_card
from distill.models.modeling import load_model, save_model
from distill.report.model_card import use_of
from distill.report.templates import render
from distill.runtime.opening import load
from distill.runtime.scorer import PairedScorer
from distill.scorers.opening import open_scorer
from distill.scorers.pairing import pair_up
from distill.training.fitting import _learn_one_side
from recipes.cli import main
from students.asymmetric import write_router
from tests.conftest import BI_TEACHER, make_run

pytestmark = pytest.mark.integration

LENIENT = {"side": "query", "min_cosine": -1, "min_recall": 0, "top_k": 5}
PROMPTED = {**BI_TEACHER, "prompts": ["query: ", "passage: "]}


def changes(**asymmetric):
    return {
        "teachers": {"bi": PROMPTED},
        "student": {
            "kind": "bi_encoder",
            "backbone": {"teacher": "bi"},
            "layers": [0],
            "prompts": ["query: ", "passage: "],
            "control": False,
            "asymmetric": {**LENIENT, **asymmetric},
        },
        "objectives": {"score_match": {"teacher": "bi", "loss": "mse"}, "embedding_match": {"teacher": "bi"}},
        "export": {
            "precisions": ["int8"],
            "calibration_pairs": 20,
            "min_cosine": 0.5,
            "min_mean_cosine": 0.5,
            "min_rank_agreement": 0.5,
        },
        "benchmark": {"seconds": 0.1, "max_seconds": 0.1, "throughput_pairs": 16, "bootstrap": 20, "threads": 1},
    }


@pytest.fixture(scope="module")
def finished(trained, tmp_path_factory):
    """A run up to the exports: the teacher is trained elsewhere already."""
    from students import export_router, export_student, train_student
    from teachers import cache_signals, train_teachers

    run = make_run(tmp_path_factory.mktemp("asymmetric") / "run", **changes())
    for stage in (train_teachers, cache_signals, train_student, export_student, export_router):
        stage(run)
    return run


def texts(run):
    pairs = run.split.evaluation
    return list(pairs.queries), list(pairs.documents)


def test_the_student_knows_its_side_and_its_teacher(finished):
    stated = read_card(finished.student).details["asymmetric"]
    assert stated == {"side": "query", "teacher": "bi", "revision": revision(finished.teacher("bi"))}
    for folder in (finished.router, finished.export("int8")):
        card = read_card(folder)
        found = card.details["compatibility"]
        assert card.details["asymmetric"] == stated and found["top_k"] == 5 and found["width"] == 32
        assert 0 < found["recall"] <= 1 and -1 < found["min_cosine"] <= found["mean_cosine"] <= 1
        assert found["n_own"] == len(set(finished.split.validation.queries))


def test_a_wrong_row_is_counted_over_all_chunks():
    scorer = object.__new__(PairedScorer)
    scorer.encode = lambda texts, **_: np.zeros((len(texts), 2))
    with pytest.raises(BadInput, match="texts, row 5: a text is expected, got None"):
        list(scorer.encode_iter([*"abcde", None], chunk_size=4))


def test_stock_code_routes_as_we_do(finished):
    from sentence_transformers import SentenceTransformer

    queries, documents = texts(finished)
    stock, ours = SentenceTransformer(str(finished.router), device="cpu"), load(finished.router)
    assert isinstance(ours, PairedScorer)
    asked, told = stock.encode_query(queries[:8]), stock.encode_document(documents[:8])
    np.testing.assert_allclose(ours.encode_queries(queries[:8]), asked, atol=1e-5)
    np.testing.assert_allclose(ours.encode_documents(documents[:8]), told, atol=1e-5)
    np.testing.assert_allclose(ours.encode(queries[:8], prompt_name="query"), asked, atol=1e-5)
    np.testing.assert_allclose(ours.encode(documents[:8], prompt_name="document"), told, atol=1e-5)
    np.testing.assert_allclose(ours.encode(documents[:8]), stock.encode(documents[:8]), atol=1e-5)  # the default route
    np.testing.assert_allclose(
        np.concatenate(list(ours.encode_iter(iter(queries[:8]), chunk_size=3, prompt_name="query"))), asked, atol=1e-5
    )
    np.testing.assert_allclose(ours.score(queries[:8], documents[:8]), (asked * told).sum(axis=1), atol=1e-5)
    _, scores = ours.rank(queries[0], documents, top_k=3)
    np.testing.assert_allclose(
        scores, np.sort(ours.score(queries[:1] * len(documents), documents))[::-1][:3], atol=1e-5
    )
    # each side is the very model that it was made of
    np.testing.assert_allclose(asked, load_model(finished.student).encode_query(queries[:8]), atol=1e-6)
    np.testing.assert_allclose(told, load_model(finished.teacher("bi")).encode_document(documents[:8]), atol=1e-6)


def test_student_and_teacher_together_score_as_the_router(finished, tmp_path, capsys):
    queries, documents = texts(finished)
    pair = open_scorer(finished.student, other_side=finished.teacher("bi"))
    expected = load(finished.router).score(queries, documents)
    np.testing.assert_allclose(pair.score(queries, documents), expected, atol=1e-5)
    assert pair.n_parameters < load(finished.teacher("bi")).n_parameters
    table, scores = tmp_path / "pairs.tsv", tmp_path / "scores.tsv"
    table.write_text("query\tdocument\n" + "".join(f"{q}\t{d}\n" for q, d in zip(queries, documents, strict=True)))
    int8 = str(finished.export("int8"))
    assert main(["score", int8, str(table), "-o", str(scores)]) == 2  # alone it would score against itself
    assert "reads the query side of pairs only" in capsys.readouterr().err
    assert main(["score", int8, str(table), "-o", str(scores), "--other-side", str(finished.teacher("bi"))]) == 0
    found = [float(line.split("\t")[1]) for line in scores.read_text().splitlines()[1:]]
    assert np.corrcoef(found, expected)[0, 1] > 0.95
    assert main(["score", str(finished.router), str(table), "-o", str(scores), "--overwrite"]) == 0
    found = [float(line.split("\t")[1]) for line in scores.read_text().splitlines()[1:]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_both_models_heed_batch_tokens(finished):
    both = pair_up(load(finished.student), load(finished.teacher("bi")))
    for name in ("query", "document"):
        assert both.encode(["a"], prompt_name=name, batch_tokens=64).shape[0] == 1
        with pytest.raises(BadInput, match="batch_tokens"):
            both.encode(["a"], prompt_name=name, batch_tokens=0)


def test_a_translation_is_matched_with_its_source():
    units = SimpleNamespace(
        texts=["src", "tgt"], teacher_texts=["src", "src"], roles=[1, 1], learn_one_side=lambda role: None
    )
    _learn_one_side(
        units, SimpleNamespace(own_role=1, other_source=SimpleNamespace(embeddings=lambda texts, roles: texts))
    )
    assert units.embeddings == ["src", "src"]


def test_another_revision_of_the_teacher_is_refused(finished, tmp_path):
    student, other = load(finished.student), shutil.copytree(finished.teacher("bi"), tmp_path / "other")
    assert pair_up(student, load(other)).query is student  # a copy is the same revision
    settings = other / "sentence_bert_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "max_seq_length": 32}))
    with pytest.raises(BadInput, match=r"writes into the space of bi at revision .*; .* is revision"):
        pair_up(student, load(other))
    # an export of the right revision is the same space, one of another is not
    card = read_card(finished.teacher("bi"))
    write_card(other, type(card)("bi_encoder", "export", "x", parents={"bi": revision(finished.teacher("bi"))}))
    assert pair_up(student, load(other)).document.path == other
    write_card(other, type(card)("bi_encoder", "export", "x", parents={"bi": "0123"}))
    with pytest.raises(BadInput, match="is revision"):
        pair_up(student, load(other))
    with pytest.raises(BadInput, match="reads both sides of pairs"):
        pair_up(load(finished.teacher("bi")), student)


def test_only_the_own_side_is_learned_and_scored_against_the_teacher(finished):
    """The scores of a training step are those of the student's queries and the teacher's documents."""
    import torch

    from distill.training.objectives import Step
    from distill.training.trainset import LoneTexts, Tokenization, TrainSet

    pairs = finished.split.train
    model, teacher = load_model(finished.student), load_model(finished.teacher("bi"))
    trainset = TrainSet.build(
        Tokenization("bi_encoder", model.tokenizer, 64, ("query: ", "passage: "), by_role=True),
        pairs,
        lone=LoneTexts(["a lone text"], role=0),
        candidates=2,
    )
    trainset.learn_one_side(0)
    trainset.embeddings = lambda rows: teacher.encode(
        [("query: ", "passage: ")[trainset.roles[row]] + trainset.texts[row] for row in rows]
    )
    units = np.array([0, 1, len(trainset) - 1])
    batch = trainset.batch(units, totals=trainset.counts(units))
    read = sum(part["input_ids"].shape[0] for part in batch.inputs)
    chosen = np.concatenate([trainset.unit_pairs[unit] for unit in units])
    assert read == len(units) and trainset.roles[-1] == 0  # one query each, and no document
    step = Step(model.eval(), "bi_encoder", finished.recipe.objectives, teacher_kinds={"bi": "bi_encoder"})
    with torch.no_grad():
        scores = step(batch, predict=True)["scores"].numpy()
    expected = (
        model.encode_query([pairs.queries[row] for row in chosen])
        * teacher.encode_document([pairs.documents[row] for row in chosen])
    ).sum(axis=1)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_rows_of_the_report_pair_student_and_teacher(finished):
    rows = {row.name: row for row in benchmark._rows(finished)}
    assert rows["student"].other_side == rows["student (int8)"].other_side == finished.teacher("bi")
    assert rows["bi"].other_side is None
    queries, documents = texts(finished)
    scored = benchmark.score_row(finished, rows["student"], finished.split.evaluation)
    expected = load(finished.router, runtime="torch").score(queries, documents)
    np.testing.assert_allclose(scored.scores, expected, atol=1e-5)
    assert any(
        "reads the query side of pairs only" in note for note in benchmark._notes(finished, list(rows.values()), {})
    )


def test_the_model_card_names_the_other_side(finished):
    card = read_card(finished.export("int8"))
    said = render("model_card_use.md", use=use_of({"runtime": "openvino"}, card))
    assert (
        f"It reads the query side of pairs. Vectors of the other side are those of `bi` at revision `{revision(finished.teacher('bi'))}`"
        in said
    )


def test_latency_is_that_of_the_own_side(finished):
    queries, documents = texts(finished)
    asked = {"path": finished.export("int8"), "runtime": None, "precision": None, "n_threads": 1, "max_length": None}
    scorer, facts = latency._load(asked)
    assert facts["kind"] == "query_encoder" and facts["precision"] == "int8"
    both = load(finished.router).token_counts(queries, documents)
    own = scorer.token_counts(queries, documents)
    assert (own < both).all()
    np.testing.assert_allclose(scorer.score(queries[:3], [""] * 3), 1, atol=1e-5)  # no document is read


def test_a_pair_that_does_not_fit_is_not_put_in_place(finished, tmp_path):
    from students import export_router

    run = make_run(finished.folder, **changes(min_cosine=0.9999, min_recall=0.99))
    shutil.move(finished.router, tmp_path / "router")
    try:
        with pytest.raises(GateFailed, match=r"mean cosine to the teacher's vectors 0\.\d+, at least 0\.9999"):
            export_router(run)
        assert not finished.router.exists()
    finally:
        shutil.move(tmp_path / "router", finished.router)


@pytest.mark.parametrize("family", ["bert_bi", "xlmr_bi"])
def test_a_router_of_two_families(family, bert_bi, xlmr_bi, tmp_path):
    """Tokenizers, lengths and pooling of both sides stay their own."""
    from sentence_transformers import SentenceTransformer

    student, teacher = (bert_bi, xlmr_bi) if family == "bert_bi" else (xlmr_bi, bert_bi)
    (tmp_path / "router").mkdir()
    write_router(tmp_path / "router", student, teacher, "document")
    stock, ours = (
        SentenceTransformer(str(tmp_path / "router"), device="cpu"),
        load(tmp_path / "router", runtime="torch"),
    )
    sample = ["백엔드 개발자를 채용합니다.", "a nurse with experience"]
    np.testing.assert_allclose(ours.encode_documents(sample), stock.encode_document(sample), atol=1e-5)
    np.testing.assert_allclose(ours.encode_documents(sample), load(student).encode(sample), atol=1e-5)
    np.testing.assert_allclose(ours.encode_queries(sample), load(teacher).encode(sample), atol=1e-5)
    (tmp_path / "router" / "query_0_Transformer" / "config.json").unlink()
    with pytest.raises(BadInput, match=r"query_0_Transformer/config\.json is missing"):
        load(tmp_path / "router")


@pytest.mark.parametrize(
    ("prompts", "default"), [({"query": "query: ", "passage": "passage: "}, None), ({"all": "represent: "}, "all")]
)
def test_a_router_keeps_the_prompts_of_both_sides(prompts, default, bert_bi, tmp_path):
    """Under whatever name a side stores its prompt, as E5 does, or as the default prompt."""
    from sentence_transformers import SentenceTransformer

    model = load_model(bert_bi)
    model.prompts, model.default_prompt_name = prompts, default
    for name in ("side", "router"):
        (tmp_path / name).mkdir()
    save_model(model, tmp_path / "side")
    write_router(tmp_path / "router", tmp_path / "side", tmp_path / "side", "query")
    stock, ours = SentenceTransformer(str(tmp_path / "router"), device="cpu"), load(tmp_path / "router")
    sample, side = ["백엔드 개발자를 채용합니다.", "a nurse with experience"], load(tmp_path / "side")
    for expected, router_vectors, stock_vectors in (
        (side.encode_queries(sample), ours.encode_queries(sample), stock.encode_query(sample)),
        (side.encode_documents(sample), ours.encode_documents(sample), stock.encode_document(sample)),
    ):
        np.testing.assert_allclose(router_vectors, expected, atol=1e-5)
        np.testing.assert_allclose(stock_vectors, expected, atol=1e-5)
