"""Translations: read, kept apart from what is held out, and matched to the teacher's embedding of their source."""

import numpy as np
import pytest

from distill.data.pairs import Pairs, load_parallel, load_split
from distill.errors import BadInput
from distill.recipe.schema import Data, Parallel
from distill.training.trainset import LoneTexts, Tokenization, TrainSet
from tests.conftest import pairs_file
from tests.unit.test_objectives import WordTokenizer
from tests.unit.test_recipe import load, problems


def parallel_file(folder, rows):
    path = folder / "parallel.tsv"
    path.write_text("ko\ten\n" + "".join(f"{ko}\t{en}\n" for ko, en in rows), encoding="utf-8")
    return str(path)


class TestReading:
    def test_each_pair_once_and_whole(self, tmp_path):
        rows = [("고양이", "cat"), ("고양이 ", " cat"), ("개", ""), ("", "dog"), ("냥이", "cat"), ("집", "house")]
        given = Parallel(path=parallel_file(tmp_path, rows))
        assert load_parallel(given) == [("cat", "고양이"), ("cat", "냥이"), ("house", "집")]
        two = [load_parallel(given.model_copy(update={"max_pairs": 2}), seed=seed) for seed in range(9)]
        assert all(len(pairs) == 2 and set(pairs) < set(load_parallel(given)) for pairs in two)
        assert len(set(map(tuple, two))) == 3  # a random sample, not the head of the file

    def test_columns_are_named(self, tmp_path):
        with pytest.raises(BadInput, match=r"has no column 'de'; it has ko, en; set data.parallel"):
            load_parallel(Parallel(path=parallel_file(tmp_path, [("집", "house")]), target="de"))

    def test_held_out_texts_stay_out_on_either_side(self, tmp_path):
        data = Data(train=pairs_file())
        held_out = load_split(data, seed=1).evaluation.queries[0]
        path = parallel_file(tmp_path, [("집", "house"), (held_out, "home"), ("가정", held_out)])
        split = load_split(data.model_copy(update={"parallel": (Parallel(path=path),)}), seed=1)
        assert split.parallel == [("house", "집")]
        assert "2 parallel pairs hold a held-out text and were left out of training" in split.notes
        assert split.describe()["parallel"]["n_pairs"] == 1
        assert split.unpaired == ["house", "집"]


class TestRecipe:
    def test_translations_need_an_embedding_to_match(self, tmp_path):
        assert problems(tmp_path, data={"parallel": [{"path": "p.tsv"}]}) == [
            "data.parallel: translations are learned by objectives on embeddings alone (embedding_match, rkd, similarity, cka); set one or drop them"
        ]

    def test_vocabulary_says_what_it_is(self, tmp_path):
        recipe = load(tmp_path, student={"vocabulary": {"trim": {"size": 300}, "texts": [{"path": "a.tsv"}]}})
        assert recipe.student.vocabulary.trim.size == 300
        assert problems(tmp_path, student={"vocabulary": {"trim": {}}, "embedding_rank": 0}) == [
            "student.vocabulary.trim: set coverage (as 0.999) or size (as 32000), one of them",
            "student.embedding_rank: got 0; it should be greater than or equal to 1",
        ]
        assert problems(tmp_path, student={"vocabulary": {}}) == [
            "student.vocabulary: set trim, train or extend, one of them"
        ]
        assert problems(tmp_path, student={"vocabulary": {"train": {"strat": "mean"}}}) == [
            "student.vocabulary.train.strat: unknown key; did you mean 'start'?"
        ]


def test_both_sides_are_taught_by_the_source():
    """As Reimers & Gurevych have it: the student's vectors of "cat" and of "고양이" both go to the teacher's of "cat"."""
    pairs = Pairs(["cat"], ["dog"], np.ones(1, dtype=np.float32))
    parallel = [("cat", "고양이"), ("kitty", "고양이"), ("house", "집")]
    trainset = TrainSet.build(Tokenization("bi_encoder", WordTokenizer(), 16), pairs, lone=LoneTexts(parallel=parallel))
    taught = list(zip(trainset.texts, trainset.teacher_texts, strict=True))
    assert taught == [
        ("cat", "cat"),
        ("dog", "dog"),
        ("kitty", "kitty"),
        ("house", "house"),
        ("고양이", "cat"),
        ("고양이", "kitty"),
        ("집", "house"),
    ]
    assert [len(rows) for rows in trainset.unit_texts] == [2, 1, 1, 1, 1, 1, 1]  # one pair, six lone texts
    asked = {"cat": 1.0, "dog": 2.0, "kitty": 3.0, "house": 4.0}
    trainset.embeddings = lambda rows: np.array(
        [[asked[trainset.teacher_texts[row]]] for row in rows], dtype=np.float32
    )
    units = np.arange(len(trainset))
    batch = trainset.batch(units, totals=trainset.counts(units))
    assert batch.teacher_embeddings.flatten().tolist() == [1, 2, 1, 3, 4, 1, 3, 4]
