"""Texts are compared as readers see them, and a split says what it cannot represent."""

import logging
import unicodedata

import numpy as np
import pytest

from distill.data.cut_texts import count_cut_texts, sample_cut_texts
from distill.data.pairs import Pairs, keep_labelled, load_split, split_pairs
from distill.data.splitting import _components, beyond_chance, held_together, hold_out, label_shift, sample, text_key
from distill.data.tokens import tokenize
from distill.errors import BadInput
from distill.recipe.schema import Data, Parallel, Unlabelled
from students.vocabulary.corpus import read_corpus
from tests.unit.test_objectives import WordTokenizer

VARIANTS = {
    "same": lambda text: text,
    "trailing space": lambda text: text + " ",
    "leading tabs": lambda text: "\u3000 " + text,
    "nbsp": lambda text: text.replace(" ", "\u00a0"),
    "two spaces": lambda text: text.replace(" ", "  "),
    "nfd": lambda text: unicodedata.normalize("NFD", text),
    "zero width": lambda text: "\ufeff" + text.replace("발", "발\u200b"),
}


def write(path, header, rows):
    path.write_text("\n".join("\t".join(map(str, row)) for row in [header, *rows]) + "\n", encoding="utf-8")
    return str(path)


def korean(n, change=lambda text: text, start=0):
    return [(change(f"파이썬 개발자 {i}"), change(f"채용 공고 {i}"), i % 2) for i in range(start, start + n)]


HEADER = ("query", "document", "label")


class TestKeys:
    @pytest.mark.parametrize("name", VARIANTS)
    def test_fold_what_reads_the_same(self, name):
        assert text_key(VARIANTS[name]("파이썬 개발자 é")) == "파이썬 개발자 é"

    def test_keep_what_does_not(self):
        assert len({text_key(text) for text in ("ab", "a b", "AB", "ａb", "a-b")}) == 5


@pytest.mark.parametrize("name", VARIANTS)
class TestLeaks:
    def test_of_an_evaluation_file_are_told(self, tmp_path, name):
        train = write(tmp_path / "train.tsv", HEADER, korean(40))
        evaluation = write(tmp_path / "evaluation.tsv", HEADER, korean(20, VARIANTS[name]))
        split = load_split(Data(train=train, evaluation=evaluation), 0)
        assert split.notes[0].startswith("leak: 40 of 40 evaluation texts also stand in the training pairs")
        assert split.evaluation.queries[3] == VARIANTS[name]("파이썬 개발자 3")  # the text itself is not changed

    def test_one_file_is_split_by_what_texts_are(self, name):
        rows = [*korean(60), *((q, d + "!", y) for q, d, y in korean(60, VARIANTS[name]))]
        pairs = Pairs([row[0] for row in rows], [row[1] for row in rows])
        rest, held = split_pairs(pairs, 0.2, seed=0)
        assert len(rest) + len(held) == 120
        assert not {text_key(query) for query in rest.queries} & {text_key(query) for query in held.queries}

    def test_unlabelled_parallel_and_vocabulary_texts_are_compared_alike(self, tmp_path, name):
        train = write(tmp_path / "train.tsv", HEADER, korean(40))
        copies = [VARIANTS[name](text) for row in korean(40) for text in row[:2]]
        unlabelled = write(tmp_path / "texts.tsv", ["text"], [[text] for text in copies])
        parallel = write(
            tmp_path / "parallel.tsv", ["ko", "en"], [[text, f"text {i}"] for i, text in enumerate(copies)]
        )
        split = load_split(
            Data(train=train, unlabelled=(Unlabelled(path=unlabelled),), parallel=(Parallel(path=parallel),)), 0
        )
        held = {text_key(t) for part in (split.validation, split.evaluation) for t in (*part.queries, *part.documents)}
        assert len(held) == 12
        assert not held & {text_key(text) for text in split.unlabelled}
        assert len(split.unlabelled) == len(split.parallel) == 80 - 12
        corpus = read_corpus([Unlabelled(path=unlabelled)], without=held)
        assert len(corpus.sources["texts"] if "texts" in corpus.sources else corpus.sources["texts text"]) == 80 - 12


def linked(n_lone=200, n_queries=100, n_documents=20, seed=0):
    """Lone pairs with few positives, and one component (queries that share documents) with many."""
    rng = np.random.default_rng(seed)
    rows = [(f"q{i}", f"d{i}", float(rng.random() < 0.09)) for i in range(n_lone)]
    for i in range(n_queries):
        for j in {i % n_documents, (i + 1) % n_documents, *rng.choice(n_documents, 3)}:
            rows.append((f"Q{i}", f"D{j}", float(rng.random() < 0.6)))
    return rows


class TestWhatCannotBeSeparated:
    def split(self, tmp_path, **data):
        train = write(tmp_path / "train.tsv", HEADER, linked())
        return load_split(Data(train=train, evaluation_share=0.1, validation_share=0.05, **data), 0)

    def test_is_said_with_counts_and_the_cost_of_the_other_ways(self, tmp_path):
        split = self.split(tmp_path)
        rows = linked()
        n = len(rows) - 200
        assert (
            f"{n} of {len(rows)} pairs hang together over shared texts in 1 group larger than the evaluation share"
            in split.notes[0]
        )
        assert "are drawn from the other 200 alone; data.split=query draws from all and drops" in split.notes[0]
        assert all(query.startswith("q") for query in split.evaluation.queries)
        (unlike,) = [note for note in split.notes if f"the {len(split.evaluation)} evaluation pairs are unlike" in note]
        assert (
            f"their mean label is {split.evaluation.labels.mean():.2f}, that of training {split.train.labels.mean():.2f}"
            in unlike
        )

    @pytest.mark.parametrize("way", ["query", "document"])
    def test_other_ways_draw_from_all_and_say_what_they_dropped(self, tmp_path, way):
        split = self.split(tmp_path, split=way)
        assert any(query.startswith("Q") for query in split.evaluation.queries)
        rows = linked()
        keys = [row[0] for row in rows], [row[1] for row in rows]
        drawn = hold_out(*keys, 0.1, seed=0, way=way)
        sizes = hold_out(*keys, 0.1, seed=0, way="component").sizes
        said = held_together(*keys, 0.1, sizes=sizes, seed=0, name="evaluation")
        assert (
            f"data.split=query draws from all and drops {hold_out(*keys, 0.1, seed=0, way='query').n_dropped} pairs"
            in said
        )
        assert split.notes[0] == f"{drawn.n_dropped} pairs were dropped because they use a text of the evaluation pairs"
        assert drawn.n_dropped > 0
        sides = [{*part.queries, *part.documents} for part in (split.train, split.validation, split.evaluation)]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])

    def test_components_alone_are_refused_where_there_is_but_one(self):
        pairs = Pairs([f"q{i}" for i in range(40)], ["everyone's"] * 40)
        with pytest.raises(
            BadInput, match="cannot be split .*pairs whose texts stand in no other pair.*or set data.split=auto"
        ):
            split_pairs(pairs, 0.1, seed=0, way="component")

    def test_nothing_is_said_of_data_that_can_be_separated(self):
        keys = [f"q{i // 4}" for i in range(400)], [f"d{i}" for i in range(400)]
        sizes = hold_out(*keys, 0.1, seed=0).sizes
        assert sizes.tolist() == [4] * 100
        assert held_together(*keys, 0.1, sizes=sizes, seed=0, name="evaluation") is None

    @pytest.mark.parametrize("seed", range(5))
    def test_components_are_what_following_shared_texts_gives(self, seed):
        rng = np.random.default_rng(seed)
        rows = [(f"t{a}", f"t{b}") for a, b in rng.integers(0, 90, (60, 2))]
        together = [{row} for row in range(len(rows))]
        for row, texts in enumerate(rows):
            linked = [group for group in together if any({*texts} & {*rows[other]} for other in group)]
            together = [group for group in together if group not in linked] + [set().union({row}, *linked)]
        groups = _components(*map(list, zip(*rows, strict=True)))
        parts = list(groups.rows)
        assert sorted(map(sorted, together)) == sorted(part.tolist() for part in parts)
        assert groups.names == [min(min(rows[row]) for row in part) for part in parts]

    def test_a_text_that_is_its_own_key_is_not_copied(self):
        for text in ("plain words", "한국어 문장"):
            assert text_key(text) is text


@pytest.mark.parametrize("given", [False, True])
def test_evaluation_pairs_that_would_be_mined_are_warned_of(tmp_path, given):
    rows = [(*pair, "mined", 1, 0.5) for pair in korean(40)]
    train = write(tmp_path / "train.tsv", (*HEADER, "kind", "rank", "score"), rows)
    evaluation = write(tmp_path / "evaluation.tsv", HEADER, korean(20)) if given else None
    notes = load_split(Data(train=train, evaluation=evaluation), 0).notes
    assert any("evaluation pairs are mined, too" in note for note in notes) is not given


class TestLabels:
    def test_a_part_of_one_class_is_refused(self, tmp_path):
        rows = [(f"q{i}", f"d{i}", int(i == 7)) for i in range(60)]
        with pytest.raises(BadInput, match="pairs got the label 0 in the split of 60 pairs with labels of 0 to 1"):
            load_split(Data(train=write(tmp_path / "t.tsv", HEADER, rows)), 0)

    def test_data_of_one_class_are_the_users_own_matter(self, tmp_path):
        rows = [(f"q{i}", f"d{i}", 1) for i in range(60)]
        assert len(load_split(Data(train=write(tmp_path / "t.tsv", HEADER, rows)), 0).train)

    def test_shift_in_standard_errors_by_hand(self):
        # each row a cluster, the mean of all 0.625: 50 × 0.625² + 50 × 0.375², and 25 × 0.625² + 75 × 0.375², over 200 rows
        same = np.array([0.0, 1.0] * 50)
        other = np.array([0.0, 1.0, 1.0, 1.0] * 25)
        clusters = [str(i) for i in range(100)]
        expected = 0.25 / np.sqrt((26.5625 + 20.3125) / 200 * (1 / 100 + 1 / 100))
        assert label_shift(same, clusters, other, clusters) == pytest.approx(expected)
        assert label_shift(same, clusters, same, clusters) == 0
        # rows of one cluster are one observation: ten rows with one label each, ten times
        wide = np.repeat([0.0, 1.0], 50)
        tens = [str(i // 10) for i in range(100)]
        # the mean of all 0.75: 5 × 7.5² + 5 × 2.5² + 10 × 2.5²
        assert label_shift(wide, tens, np.ones(100), tens) == pytest.approx(0.5 / np.sqrt(375 / 200 * 2 / 100))

    def test_a_few_rows_of_nearly_one_label_are_no_shift(self):
        few, many = np.array([1.0] * 22 + [0.0] * 2), np.array([1.0] * 314 + [0.0] * 142)
        shift = label_shift(few, map(str, range(24)), many, map(str, range(456)))
        assert shift == pytest.approx(2.4, abs=0.1) and not beyond_chance(shift)

    def test_chance_is_not_told(self, tmp_path):
        rng = np.random.default_rng(3)
        rows = [(f"q{i // 4}", f"d{i}", int(rng.random() < 0.3)) for i in range(800)]
        path = write(tmp_path / "t.tsv", HEADER, rows)
        assert sum(bool(load_split(Data(train=path), seed).notes) for seed in range(20)) <= 1


def test_samples_are_random_and_in_order():
    drawn = sample(1000, 100, 5)
    assert drawn == sorted(set(drawn)) and len(drawn) == 100 and max(drawn) > 800
    assert drawn == sample(1000, 100, 5) != sample(1000, 100, 6)
    assert sample(5, 9, 0) == sample(5, None, 0) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("limit", ["max_labelled", "labelled_share"])
def test_a_smaller_share_of_labels_is_part_of_a_larger_one(limit):
    queries = [f"q{query}" for query in range(60) for _ in range(1 + query % 7)]
    pairs = Pairs(queries, [f"d{row}" for row in range(len(queries))], np.zeros(len(queries), dtype=np.float32))
    for seed in range(5):
        before = set()
        for n in range(8, len(pairs), 3):
            data = Data(train="x", **{limit: n if limit == "max_labelled" else n / len(pairs)})
            labelled, rest = keep_labelled(pairs, data, seed, [])
            assert before <= set(labelled.documents) and n - 7 < len(labelled) <= n
            assert not set(labelled.queries) & set(rest.queries)  # whole queries
            before = set(labelled.documents)


def test_a_query_with_more_pairs_than_may_keep_labels_is_said():
    pairs = Pairs(["q"] * 5, list("abcde"), np.zeros(5, dtype=np.float32))
    with pytest.raises(BadInput, match="the first query drawn has more pairs than the 3 of 5 that may keep their"):
        keep_labelled(pairs, Data(train="x", max_labelled=3), 0, [])


class TestCutTexts:
    TEXTS = ("a", "a b c", "a b c d", "a b c d e f g h")

    def test_are_counted_with_what_they_lose(self):
        tokenizer = WordTokenizer()
        whole = tokenize(tokenizer, self.TEXTS, max_length=1 << 10).lengths
        limit = int(whole[1])
        kept = tokenize(tokenizer, self.TEXTS, max_length=limit).lengths
        cut = count_cut_texts(tokenizer, kept, self.TEXTS, max_length=limit)
        assert (cut.n, cut.n_cut, cut.median_lost, cut.share) == (4, 2, 3, 0.5)  # 1 and 5 tokens
        assert sample_cut_texts(tokenizer, self.TEXTS, max_length=limit) == cut
        assert cut.to_json() == {"n": 4, "n_cut": 2, "median_lost": 3, "max_length": limit, "share": 0.5}

    def test_none_are_cut(self):
        tokenizer = WordTokenizer()
        lengths = tokenize(tokenizer, self.TEXTS, max_length=1 << 10).lengths
        assert count_cut_texts(tokenizer, lengths, self.TEXTS, max_length=1 << 10).n_cut == 0

    def test_are_said(self, caplog, monkeypatch):
        monkeypatch.setattr(logging.getLogger("distill"), "propagate", True)  # the command line turns it off
        tokenizer = WordTokenizer()
        with caplog.at_level("INFO", "distill.data.cut_texts"):
            sample_cut_texts(
                tokenizer, self.TEXTS, max_length=int(tokenize(tokenizer, self.TEXTS, max_length=99).lengths[1])
            ).say("teacher a")
        assert "cuts 2 of 4 texts (50.0 %), which lose 3 tokens each in the median" in caplog.text


def test_what_limits_the_labels_is_named(tmp_path):
    train = write(tmp_path / "train.tsv", HEADER, korean(40))
    with pytest.raises(BadInput, match=r"data\.max_labelled leaves too few labels: .*; raise data\.max_labelled"):
        load_split(Data(train=train, max_labelled=1), 0)
    notes = load_split(Data(train=train, max_labelled=3000), 0).notes
    assert any(note.startswith("data.max_labelled has no effect: the 3") for note in notes)


def test_an_evaluation_of_training_pairs_alone_is_refused(tmp_path):
    train = write(tmp_path / "train.tsv", HEADER, korean(40))
    with pytest.raises(BadInput, match=r"data\.evaluation: each of the 40 pairs of .* is also a pair of"):
        load_split(Data(train=train, evaluation=train), 0, for_training=True)
    pairs = [*korean(20), ("q", "d", "1")]
    evaluation = write(tmp_path / "evaluation.tsv", HEADER, pairs)
    notes = load_split(Data(train=train, evaluation=evaluation), 0, for_training=True).notes
    assert "and 20 of 21 pairs are training pairs, too" in notes[0]
