"""What models are compared with: TF-IDF against scikit-learn, paragraphs by hand, and folders that are whole."""

import json
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from distill.errors import BadInput
from distill.metrics.measures import AblationMse
from distill.recipe.schema import Paragraphs, Recipe, TfIdf
from distill.run import Run
from distill.scorers.baselines import (
    ParagraphScorer,
    split_paragraphs,
    write_paragraphs,
    write_tfidf,
)
from distill.scorers.opening import check_scorer_folder, open_scorer
from tests.conftest import pairs_file

QUERIES = [
    "백엔드 개발자 Python Django 5년",
    "간호사 면허, 중환자실 경력",
    "a nurse in intensive care",
    "!!",
    "데이터 분석가 SQL SQL SQL",
]
DOCUMENTS = [
    "Python 백엔드 개발자 채용",
    "간호사를 찾습니다 중환자실",
    "we look for a welder",
    "??",
    "SQL 데이터 엔지니어",
]


def expected_by_pair(query, document, **options):
    """The published computation: a vectorizer that has seen nothing but the two texts."""
    try:
        rows = TfidfVectorizer(**options).fit_transform([query, document]).toarray()
    except ValueError:
        return 0.0
    return float(rows[0] @ rows[1])


class TestTfIdf:
    @pytest.mark.parametrize(
        "options", [{}, {"analyzer": "char", "ngrams": (2, 4)}, {"analyzer": "char_wb", "ngrams": (3, 3)}]
    )
    def test_each_pair_alone_is_scikit_learn(self, tmp_path, options):
        write_tfidf(tmp_path, TfIdf(fit="pair", **options), [])
        plain = {"analyzer": options.get("analyzer", "word"), "ngram_range": options.get("ngrams", (1, 1))}
        expected = [expected_by_pair(q, d, **plain) for q, d in zip(QUERIES, DOCUMENTS, strict=True)]
        scorer = open_scorer(tmp_path)
        assert scorer.score(QUERIES, DOCUMENTS) == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize("options", [{}, {"analyzer": "char", "ngrams": (2, 4)}])
    def test_of_a_corpus_is_scikit_learn(self, tmp_path, options):
        corpus = [*QUERIES, *DOCUMENTS, "another text about Python"]
        write_tfidf(tmp_path, TfIdf(**options), corpus)
        plain = TfidfVectorizer(analyzer=options.get("analyzer", "word"), ngram_range=options.get("ngrams", (1, 1)))
        plain.fit(corpus)
        left, right = (plain.transform(texts).toarray() for texts in (QUERIES, DOCUMENTS))
        scorer = open_scorer(tmp_path)
        assert scorer.score(QUERIES, DOCUMENTS) == pytest.approx((left * right).sum(axis=1), abs=1e-9)
        assert scorer.n_parameters == len(plain.vocabulary_)

    def test_scores_are_on_the_scale_of_the_published_table(self, tmp_path):
        write_tfidf(tmp_path, TfIdf(fit="pair"), [])
        unit = open_scorer(tmp_path).unit(np.array([-1.0, 0.0, 0.5, 1.0]))
        assert unit == pytest.approx([0, 0.5, 0.75, 1])
        # by hand: ((0.5 − 1)² + (0.75 − 0)²) / 2
        mse = AblationMse().compute(predictions=unit[1:3], references=np.array([1.0, 0.0]))
        assert mse["ablation_mse"] == pytest.approx((0.25 + 0.5625) / 2, abs=1e-9)

    @pytest.mark.parametrize("fit", ["corpus", "pair"])
    def test_the_unicode_form_of_a_text_makes_no_difference(self, tmp_path, fit):
        composed = ["이력서 Zürich", "공고 Zürich", "이력서 서울"]
        decomposed = [unicodedata.normalize("NFD", text) for text in composed]
        write_tfidf(tmp_path, TfIdf(fit=fit), decomposed)
        scorer = open_scorer(tmp_path)
        expected = scorer.score(composed[:1] * 3, composed)
        assert expected[1] > 0 and expected[2] > 0
        np.testing.assert_array_equal(scorer.score(composed[:1] * 3, decomposed), expected)

    def test_a_vocabulary_in_another_unicode_form_is_used_as_it_is(self, tmp_path):
        text = unicodedata.normalize("NFD", "이력서")
        write_tfidf(tmp_path, TfIdf(), [text])
        (tmp_path / "vocabulary.json").write_text(json.dumps([text]), encoding="utf-8")
        assert open_scorer(tmp_path).score([text], [text]) == pytest.approx([1])

    def test_texts_without_terms_are_refused(self, tmp_path):
        with pytest.raises(BadInput, match="nothing to count"):
            write_tfidf(tmp_path, TfIdf(), ["!", "?"])

    def test_no_pairs_have_no_scores(self, tmp_path):
        write_tfidf(tmp_path, TfIdf(fit="pair"), [])
        assert open_scorer(tmp_path).score([], []).shape == (0,)

    @pytest.mark.parametrize("content", ["{", '{"kind": "bm25"}', '{"kind": "tfidf", "fit": "moon"}', "[]"])
    def test_a_damaged_folder_is_one_line(self, tmp_path, content):
        (tmp_path / "scorer.json").write_text(content)
        with pytest.raises(BadInput, match="build the folder again"):
            check_scorer_folder(tmp_path)


class TestParagraphs:
    @given(st.text(alphabet=st.sampled_from(list("ab가 \n.!")), max_size=400), st.integers(40, 80))
    @settings(max_examples=150, deadline=None)
    def test_nothing_but_space_is_lost_and_none_is_long(self, text, at_most):
        pieces = split_paragraphs(text, at_most, 10)
        assert pieces
        assert "".join("".join(pieces).split()) == "".join(text.split())
        assert all(len(piece) <= at_most + 2 * 10 + 2 for piece in pieces) or not text.strip()

    def test_the_score_is_the_mean_of_the_best_from_either_side(self):
        vectors = {"q1": [1, 0], "q2": [0, 1], "d1": [1, 0], "d2": [0.6, 0.8], "d3": [-1, 0]}
        scorer = ParagraphScorer(FakeEncoder(vectors), Paragraphs(model="x", top_k=2))
        scorer._paragraphs = str.split
        # best of each query paragraph: 1 and 0.8; of each document paragraph: 1, 0.8 and 0 (two best: 0.9)
        assert scorer.score(["q1 q2"], ["d1 d2 d3"]) == pytest.approx([(0.9 + 0.9) / 2])
        assert scorer.score(["q1 q2"], ["d1 d2 d3"]) == pytest.approx(scorer.score(["d1 d2 d3"], ["q1 q2"]))
        scorer = ParagraphScorer(FakeEncoder(vectors), Paragraphs(model="x", top_k=5))
        scorer._paragraphs = str.split
        assert scorer.score(["q1 q2"], ["d1 d2 d3"]) == pytest.approx([(0.9 + 0.6) / 2])

    def test_a_model_that_is_gone_is_one_line(self, tmp_path):
        (tmp_path / ".work").mkdir()  # a run's folder
        folder = tmp_path / "baselines" / "paragraphs"
        folder.mkdir(parents=True)
        write_paragraphs(folder, Paragraphs(model="../../teachers/bi"))
        with pytest.raises(BadInput, match="no such directory"):
            check_scorer_folder(folder)

    @pytest.mark.parametrize("model", ["../teachers/bi", "/etc", "inner/../../bi"])
    def test_a_folder_of_no_run_names_no_model_elsewhere(self, tmp_path, model):
        write_paragraphs(tmp_path, Paragraphs(model=model))
        with pytest.raises(BadInput, match="which lies outside of it"):
            check_scorer_folder(tmp_path)


class FakeEncoder:
    """Known vectors by paragraph."""

    kind, runtime, precision, max_length = "bi_encoder", "torch", "fp32", 64

    def __init__(self, vectors):
        self.vectors = vectors

    def encode_queries(self, texts):
        return np.array([self.vectors[text] for text in texts], dtype=np.float32)

    encode_documents = encode_queries


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ([-0.5, 0.0, -0.2], "char_wb"),  # 0 is a value, and more than −0.2
        ([float("nan"), -1.0, float("nan")], "char_wb"),  # −1 is a value, and more than none
        ([0.4, 0.4, 0.4], "word"),  # of equals the first
        ([float("nan")] * 3, "word"),
    ],
)
def test_the_terms_that_rank_best_are_taken_whatever_the_sign(given, chosen, monkeypatch):
    from distill.data.pairs import Pairs, Split
    from distill.scorers.baselines import choose_tfidf
    from distill.training import trainset

    values = iter(given)
    monkeypatch.setattr(trainset, "validation_value", lambda scores, labels: next(values))
    pairs = Pairs(["a nurse", "a cook"], ["nurse", "nurse"], np.array([1.0, 0.0], dtype=np.float32))
    settings, said = choose_tfidf(["a nurse cooks", "nurse and cook"], Split(pairs, pairs, pairs))
    assert settings.analyzer == chosen
    assert list(said.values()) == [None if value != value else value for value in given]


def test_characters_are_taken_where_validation_is_in_another_script(caplog):
    """Words chosen on English pairs had a Spearman of .098 on Korean ones, where characters have .742."""
    from distill.data.pairs import Pairs, Split
    from distill.scorers.baselines import choose_tfidf

    english = Pairs(["a nurse", "a cook"], ["nurse", "nurse"], np.array([1.0, 0.0], dtype=np.float32))
    korean = Pairs(["간호사를 찾습니다"], ["간호사 모집"], np.array([1.0], dtype=np.float32))
    with caplog.at_level("INFO"):
        settings, values = choose_tfidf(["a nurse", "간호사"], Split(english, english, korean))
    assert (settings.analyzer, settings.ngrams, values) == ("char", (1, 3), {})
    assert "characters 1–3: 100% of the evaluation texts are in hangul, of the validation texts 0%" in caplog.text


@pytest.mark.parametrize("n_korean", [49, 51])
def test_a_few_texts_more_of_one_script_are_no_other_script(n_korean, caplog):
    """Of 51 % Latin and 49 % Korean texts, the more frequent script of each part was a coin toss."""
    from distill.data.pairs import Pairs, Split
    from distill.scorers.baselines import choose_tfidf

    def mixed(n):
        texts = ["간호사를 찾습니다"] * n + ["a nurse is wanted"] * (100 - n)
        return Pairs(texts, texts, (np.arange(100) % 2).astype(np.float32))

    with caplog.at_level("INFO"):
        _, values = choose_tfidf(
            ["a nurse is wanted", "간호사를 찾습니다"], Split(mixed(50), mixed(50), mixed(n_korean))
        )
    assert values and "TF-IDF counts" not in caplog.text


def test_the_note_on_terms_that_validation_could_not_choose_gives_the_reason(monkeypatch):
    from types import SimpleNamespace

    from distill.evaluation import benchmark
    from distill.recipe.schema import TfIdf

    monkeypatch.setattr(benchmark, "read_card", lambda _: SimpleNamespace(details={"validation": {}}))
    recipe = SimpleNamespace(benchmark=SimpleNamespace(baselines={"tfidf": TfIdf(fit="corpus")}))
    (note,) = benchmark._floor_notes(SimpleNamespace(recipe=recipe, baseline=lambda name: name))
    assert note == (
        "tfidf counts characters 1–3: evaluation and validation are in different scripts, so validation cannot choose."
    )


def test_stored_scores_are_of_this_machine_and_this_opening(tmp_path, monkeypatch):
    from distill.evaluation import benchmark

    baselines = {"tfidf": {"kind": "tfidf", "fit": "pair"}}
    recipe = Recipe.model_validate(
        {
            "name": "stored",
            "data": {"train": pairs_file()},
            "teachers": {},
            "benchmark": {"baselines": baselines},
            "output_dir": str(tmp_path / "run"),
        }
    )
    run = Run(recipe)
    benchmark.make_baselines(run)
    (row,) = benchmark._rows(run)
    opened, open_row = [], benchmark._opened
    monkeypatch.setattr(benchmark, "_opened", lambda *given: opened.append(1) or open_row(*given))

    def n_opened(run, row=row):
        opened.clear()
        benchmark.score_row(run, row, run.split.evaluation)
        return len(opened)

    assert (n_opened(run), n_opened(run)) == (1, 0)
    assert n_opened(run, replace(row, max_length=8)) == 1
    assert n_opened(Run(recipe.model_copy(update={"overwrite": True}))) == 1
    here = benchmark.environment()
    monkeypatch.setattr(benchmark, "environment", lambda: here | {"date": "later", "load_average": 9})
    assert n_opened(run) == 0
    monkeypatch.setattr(benchmark, "environment", lambda: here | {"cpu": "another"})
    assert n_opened(run) == 1
    monkeypatch.setattr(benchmark, "environment", lambda: here | {"versions": here["versions"] | {"openvino": "0"}})
    assert n_opened(run) == 1


def test_the_floor_is_fitted_on_all_text_that_a_student_learns_from():
    from distill.data.pairs import Pairs, Split
    from distill.scorers.baselines import floor_texts

    pairs = Pairs(["a"], ["b"], np.ones(1, dtype=np.float32))
    split = Split(pairs, pairs, pairs, unlabelled=["c"], parallel=[("d", "e")], unlabelled_pairs=Pairs(["f"], ["a"]))
    assert floor_texts(split, seed=0) == ["a", "b", "c", "d", "e", "f"]
