"""Recipes that change a student's vocabulary, learn from translations, or factorise: built, trained, exported, loaded."""

import json
import shutil

import pytest

from distill.files.artefact import read_card, write_card
from distill.models.modeling import load_model, save_model, tokenizer_of, transformer_of
from distill.recipe.schema import Unlabelled
from students import build_student, export_student, train_student
from students.trim import _read
from students.vocabulary.corpus import read_corpus, student_corpus
from teachers import cache_signals
from tests.conftest import BI_TEACHER, make_run

pytestmark = pytest.mark.integration

KO_EN = [("고양이가 잔다", "the cat sleeps"), ("개가 짖는다", "the dog barks"), ("나는 파이썬을 안다", "I know Python")]


@pytest.fixture
def parallel(tmp_path):
    path = tmp_path / "parallel.tsv"
    rows = [(f"{ko} {i}", f"{en} {i}") for i in range(12) for ko, en in KO_EN]
    path.write_text("ko\ten\n" + "".join(f"{ko}\t{en}\n" for ko, en in rows), encoding="utf-8")
    return str(path)


def run_of(trained, tmp_path, parallel, **student):
    """A run on a copy of the finished teachers."""
    run = make_run(
        tmp_path / "run",
        teachers={"bi": BI_TEACHER},
        data={"parallel": [{"path": parallel}], "max_pairs": 120},
        student={"kind": "bi_encoder", "backbone": {"teacher": "bi"}, "layers": [0], "max_length": 64, "control": False}
        | student,
        objectives={"score_match": None, "embedding_match": {"teacher": "bi"}},
        export={"precisions": ["fp32"]},
    )
    shutil.copytree(trained.folder / "teachers", run.folder / "teachers")
    return run


def test_a_new_vocabulary_is_built_trained_and_exported(trained, tmp_path, parallel):
    run = run_of(
        trained,
        tmp_path,
        parallel,
        vocabulary={"train": {"tokenizer": "unigram", "size": 400, "start": "focus"}},
        embedding_rank=16,
    )
    cache_signals(run)
    train_student(run)
    card = read_card(run.built)
    assert card.details["vocabulary"]["starts"]["copied"] > 5
    assert set(card.details["vocabulary"]["fertility"]) == {"train", "parallel source", "parallel target"}
    assert card.details["embedding_rank"]["rank"] == 16
    student = load_model(run.student)
    assert transformer_of(student).config.model_type == "mobilebert"
    assert transformer_of(student).config.vocab_size == len(tokenizer_of(student)) <= 400
    assert student.encode("고양이가 잔다").shape == (32,)
    export_student(run)
    assert read_card(run.export("fp32")).details["parity"]["min_cosine"] > 0.9999


def test_translations_teach_their_source(trained, tmp_path, parallel):
    run = run_of(trained, tmp_path, parallel)
    cache_signals(run)
    cached = json.loads(next(run.signals("bi").glob("*/manifest.json")).read_text())["items"]["embeddings"]
    pairs = run.split.train
    assert cached == len({*pairs.queries, *pairs.documents, *(source for source, _ in run.split.parallel)})
    train_student(run)  # Korean texts were never asked of the teacher: they are not missed


def test_a_trimmed_student_is_another_build_when_its_texts_change(trained, tmp_path, parallel):
    texts = {"texts": [{"path": parallel, "columns": ["ko", "en"]}]}
    run = run_of(trained, tmp_path, parallel, vocabulary={"trim": {"coverage": 1.0}, **texts})
    build_student(run)
    report = read_card(run.built).details["vocabulary"]
    assert set(report["sources"]) == {"parallel ko", "parallel en"}
    assert report["n_tokens"][1] < report["n_tokens"][0]
    before = read_card(run.built).fingerprint
    with open(parallel, "a", encoding="utf-8") as file:
        file.write("새 문장\tnew sentence\n")
    again = make_run(
        run.folder, **{**json.loads(run.recipe.model_dump_json(exclude={"output_dir", "name"})), "overwrite": True}
    )
    build_student(again)
    assert read_card(run.built).fingerprint != before


def test_files_of_one_name_are_sources_of_their_own(tmp_path, caplog):
    """The coverage holds in every source: a rare language in a file of the same name was covered with the others."""
    for folder, text in (("ko", "나는 집에 간다"), ("en", "held out")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "corpus.tsv").write_text(f"text\n{text}\nmore\n", encoding="utf-8")
    paths = [str(tmp_path / folder / "corpus.tsv") for folder in ("ko", "en")]
    assert list(_read(paths).sources.values()) == [["나는 집에 간다", "more"], ["held out", "more"]]
    assert list(_read(paths).sources) == ["corpus", "corpus 2"]
    with caplog.at_level("INFO"):
        corpus = read_corpus([Unlabelled(path=path) for path in paths], without={"held out"})
    assert list(corpus.sources.values()) == [["나는 집에 간다", "more"], ["more"]]
    assert "1 row with a held-out text left out of the vocabulary's text" in caplog.text


def test_columns_of_a_row_belong_together(parallel):
    corpus = read_corpus([Unlabelled(path=parallel, columns=("ko", "en"), max_texts=2)], without={"the cat sleeps 0"})
    english = dict(KO_EN)
    assert len(corpus.contexts) == 2  # rows at random, each whole
    for korean, translated in corpus.contexts:
        words, _, number = korean.rpartition(" ")
        assert translated == f"{english[words]} {number}"
    assert corpus.sources["parallel en"] == [translated for _, translated in corpus.contexts]


def test_prompts_are_part_of_the_corpus(trained, tmp_path, parallel):
    run = run_of(trained, tmp_path, parallel, prompts=["query: ", "passage: "])
    assert student_corpus(run).sources["prompts"] == ["query: ", "passage: "]


def test_pairs_without_labels_are_part_of_the_corpus(trained, tmp_path, parallel):
    run = run_of(trained, tmp_path, parallel)
    before = student_corpus(run)
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("query\tdocument\nlone query\tlone document\n", encoding="utf-8")
    given = json.loads(run.recipe.model_dump_json(exclude={"output_dir", "name"}))
    given["data"]["unlabelled_pairs"] = [{"path": str(pairs)}]
    corpus = student_corpus(make_run(run.folder, **given))
    assert corpus.sources["unlabelled pairs"] == ["lone query", "lone document"]
    assert corpus.contexts == [*before.contexts, ("lone query",), ("lone document",)]


def test_a_trimmed_student_keeps_the_tokens_of_every_named_prompt(trained, tmp_path, parallel):
    run = run_of(trained, tmp_path, parallel, vocabulary={"trim": {"coverage": 1.0}})
    teacher, card = load_model(run.teacher("bi")), read_card(run.teacher("bi"))
    tokenizer = tokenizer_of(teacher)
    used = {token for text in run.split.training_texts for token in tokenizer.tokenize(text)}
    unused = next(token for token in tokenizer.get_vocab() if len(token) > 3 and token.isalpha() and token not in used)
    teacher.prompts = {**teacher.prompts, "nurse": f"{unused} "}
    shutil.rmtree(run.teacher("bi"))
    run.teacher("bi").mkdir()
    save_model(teacher, run.teacher("bi"))
    write_card(run.teacher("bi"), card)
    build_student(run)
    assert tokenizer_of(load_model(run.built)).tokenize(f"{unused} ") == [unused]
