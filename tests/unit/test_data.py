import csv
import gzip
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.data import tables
from distill.data.pairs import (
    PairReader,
    Pairs,
    load_split,
    load_texts,
    read_columns,
    read_pairs,
    read_pairs_with_rows,
    split_pairs,
)
from distill.errors import BadInput
from distill.recipe.schema import Columns, Data, Unlabelled

ROWS = [
    ("개발자 이력서", "백엔드 채용", "1"),
    ("nurse, 5 years", 'a "senior" nurse', "0"),
    ("요리사", "chef\nwanted", "0.5"),
]
HEADER = ("query", "document", "label")


def write_csv(path, rows=ROWS, header=HEADER):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_lines(path, *lines, encoding="utf-8"):
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


def read(path, **options):
    return read_pairs(str(path), options.pop("columns", Columns()), **options)


def refusal(path, **options):
    with pytest.raises(BadInput) as caught:
        read(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


class TestFormats:
    def check(self, pairs, rows=ROWS):
        assert pairs.queries == [row[0] for row in rows]
        assert pairs.documents == [row[1] for row in rows]
        assert pairs.labels.tolist() == [float(row[2]) for row in rows]
        assert pairs.labels.dtype == np.float32

    def test_csv_with_commas_quotes_and_line_breaks(self, tmp_path):
        self.check(read(write_csv(tmp_path / "pairs.csv")))

    def test_csv_with_a_byte_order_mark(self, tmp_path):
        write_csv(tmp_path / "plain.csv")
        path = tmp_path / "excel.csv"
        path.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "plain.csv").read_bytes())
        self.check(read(path))

    def test_csv_gz(self, tmp_path):
        plain = write_csv(tmp_path / "plain.csv")
        path = tmp_path / "pairs.csv.gz"
        path.write_bytes(gzip.compress(plain.read_bytes()))
        self.check(read(path))

    @pytest.mark.parametrize("suffix", [".tsv", ".tsv.gz"])
    def test_tsv_takes_quotes_as_they_are(self, tmp_path, suffix):
        rows = [('"5 years" of Java', 'he said "hi', "1"), ("a'b", '"', "0")]
        text = "".join("\t".join(row) + "\n" for row in [HEADER, *rows]).encode()
        path = tmp_path / f"pairs{suffix}"
        path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
        self.check(read(path), rows)

    @pytest.mark.parametrize("suffix", [".jsonl", ".json", ".jsonl.gz"])
    def test_json_lines(self, tmp_path, suffix):
        text = "".join(
            json.dumps(dict(zip(HEADER, row, strict=True)), ensure_ascii=False) + "\n" for row in ROWS
        ).encode()
        path = tmp_path / f"pairs{suffix}"
        path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
        self.check(read(path))

    def test_json_numbers_are_labels(self, tmp_path):
        path = write_lines(
            tmp_path / "p.jsonl", *(json.dumps({"query": "a", "document": "b", "label": x}) for x in (1, 0, 0.25))
        )
        assert read(path).labels.tolist() == [1.0, 0.0, 0.25]

    def test_parquet(self, tmp_path):
        path = tmp_path / "pairs.parquet"
        columns = {name: [row[i] for row in ROWS] for i, name in enumerate(HEADER)}
        pyarrow.parquet.write_table(pa.table({**columns, "label": [1.0, 0.0, 0.5]}), path)
        self.check(read(path))

    def test_other_columns_names_and_order(self, tmp_path):
        path = write_lines(tmp_path / "p.tsv", "id\tscore\tjd\tresume", "7\t1\tj\tr")
        pairs = read(path, columns=Columns(query="resume", document="jd", label="score"))
        assert (pairs.queries, pairs.documents, pairs.labels.tolist()) == (["r"], ["j"], [1.0])

    def test_one_column_in_two_roles(self, tmp_path):
        path = write_lines(tmp_path / "p.tsv", "text\tlabel", "same\t1")
        pairs = read(path, columns=Columns(query="text", document="text"))
        assert pairs.queries == pairs.documents == ["same"]

    def test_unlabelled_pairs_need_no_label_column(self, tmp_path):
        path = write_lines(tmp_path / "p.tsv", "query\tdocument", "a\tb")
        assert read(path, labelled=False).labels is None

    def test_words_that_pandas_takes_for_missing_are_texts(self, tmp_path):
        path = write_lines(tmp_path / "p.csv", "query,document,label", "NA,null,1", "None,nan,0")
        assert read(path).queries == ["NA", "None"]
        assert read(path).documents == ["null", "nan"]

    def test_numbers_as_texts_keep_their_spelling(self, tmp_path):
        path = write_lines(tmp_path / "p.csv", "query,document,label", "007,1.50,1")
        assert (read(path).queries, read(path).documents) == (["007"], ["1.50"])


class TestLabels:
    def test_are_mapped_from_their_range(self, tmp_path):
        path = write_lines(tmp_path / "p.tsv", "query\tdocument\tlabel", "a\tb\t0", "c\td\t2.5", "e\tf\t5")
        assert read(path, label_range=(0, 5)).labels.tolist() == [0.0, 0.5, 1.0]

    def test_of_a_range_below_zero(self, tmp_path):
        path = write_lines(tmp_path / "p.tsv", "query\tdocument\tlabel", "a\tb\t-1", "c\td\t0", "e\tf\t1")
        assert read(path, label_range=(-1, 1)).labels.tolist() == [0.0, 0.5, 1.0]

    @pytest.mark.parametrize("value", ["NaN", "nan", "inf", "-inf", "", "good", "1,0", "0x1"])
    def test_that_are_no_numbers_are_refused_with_their_row(self, tmp_path, value):
        path = write_lines(tmp_path / "p.tsv", "query\tdocument\tlabel", "a\tb\t1", f"c\td\t{value}")
        assert f"1 of 2 rows cannot be used (row 2: label {value!r} is not a number)" in refusal(path)

    @pytest.mark.parametrize(
        ("values", "label_range", "advice"),
        [
            (["no", "Yes"], (0, 1), "label_range [0, 1]; write words such as yes and no as 1 and 0"),
            (["FALSE", "1"], (0, 1), None),  # of half of the rows it is a slip
            (["True", "f", "1"], (0, 5), "label_range [0, 5]; write words such as yes and no as 5 and 0"),
            (["0,36", "-,5"], (0, 1), "label_range [0, 1]; write a decimal point, not a comma"),
            (["good", ""], (0, 1), "label_range [0, 1]; mend or remove them"),
        ],
    )
    def test_where_most_are_no_numbers_the_message_says_what_is_accepted(self, tmp_path, values, label_range, advice):
        rows = [f"a\tb\t{value}" for value in values]
        message = refusal(write_lines(tmp_path / "p.tsv", "query\tdocument\tlabel", *rows), label_range=label_range)
        if advice is None:
            assert message.endswith("); mend them or set data.skip_bad_rows=true")
        else:
            assert message.endswith(f"); a label is a number within {advice}")

    def test_a_text_in_their_place_is_shown_by_its_beginning(self, tmp_path):
        path = write_lines(tmp_path / "p.tsv", "query\tdocument\tlabel", f"a\tb\t{'private ' * 1000}")
        assert len(refusal(path).removeprefix(str(path))) < 200

    def test_a_file_without_a_header_is_shown_by_its_beginning(self, tmp_path):
        texts = "\t".join(f"{i} {'private ' * 1000}" for i in range(100))
        assert len(refusal(write_lines(tmp_path / "p.tsv", texts, texts)).removeprefix(str(tmp_path))) < 2500

    def test_null_in_json_is_refused(self, tmp_path):
        path = write_lines(tmp_path / "p.jsonl", '{"query": "a", "document": "b", "label": null}')
        assert "row 1: label None is not a number" in refusal(path)

    @pytest.mark.parametrize(("value", "label_range"), [("-0.1", (0, 1)), ("1.5", (0, 1)), ("6", (0, 5))])
    def test_out_of_range_are_refused(self, tmp_path, value, label_range):
        path = write_lines(tmp_path / "p.tsv", "query\tdocument\tlabel", f"a\tb\t{value}")
        assert f"label {value} is outside label_range [0, {label_range[1]}]" in refusal(path, label_range=label_range)

    @pytest.mark.parametrize("label_range", [(1.0, 1.0), (5.0, 0.0), (0.0, float("inf"))])
    def test_a_range_that_is_none_is_refused(self, tmp_path, label_range):
        path = write_lines(tmp_path / "p.tsv", "query\tdocument\tlabel", "a\tb\t1")
        with pytest.raises(BadInput, match="label_range is .* the lower end comes first"):
            read(path, label_range=label_range)


class TestRows:
    @pytest.mark.parametrize("empty", ["", "   ", "\u3000"])
    @pytest.mark.parametrize("side", ["query", "document"])
    def test_with_an_empty_text_are_refused(self, tmp_path, empty, side):
        values = {"query": "q", "document": "d", "label": "1", side: empty}
        path = write_csv(tmp_path / "p.csv", [[values[name] for name in HEADER]])
        assert f"row 1: {side} is empty" in refusal(path)

    def test_only_the_first_five_problems_are_shown(self, tmp_path):
        path = write_lines(tmp_path / "p.tsv", "query\tdocument\tlabel", *["a\tb\tx"] * 8)
        message = refusal(path)
        assert "8 of 8 rows cannot be used" in message
        assert "row 5" in message
        assert "row 6" not in message
        assert message.endswith("; and 3 more); a label is a number within label_range [0, 1]; mend or remove them")

    def test_bad_ones_are_left_out_where_asked_for_and_counted(self, tmp_path, caplog):
        path = write_lines(
            tmp_path / "p.tsv", "query\tdocument\tlabel", "a\tb\t1", "\td\t0", "e\tf\tx", "g\th\t9", "i\tj\t0"
        )
        with caplog.at_level("WARNING", "distill.data.pairs"):
            pairs = read(path, skip_bad_rows=True)
        assert (pairs.queries, pairs.documents, pairs.labels.tolist()) == (["a", "i"], ["b", "j"], [1.0, 0.0])
        assert "3 of 5 rows left out (first: row 2, query is empty)" in caplog.text

    def test_none_left_is_refused_even_then(self, tmp_path):
        path = write_lines(tmp_path / "p.tsv", "query\tdocument\tlabel", "a\tb\tx")
        assert "no usable row is left of 1" in refusal(path, skip_bad_rows=True)


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "content", "says"),
        [
            ("p.tsv", b"", "is empty"),
            ("p.tsv", b"query\tdocument\tlabel\n", "has a header and no rows"),
            ("p.csv", b"query,document,label\n", "has a header and no rows"),
            ("p.tsv", b"query\tquery\tlabel\na\tb\t1\n", "the first line must name each column once"),
            ("p.tsv", b"query\t\tlabel\na\tb\t1\n", "has no column 'document'; it has query, label"),
            (
                "p.tsv",
                b"resume\tjd\tlabel\na\tb\t1\n",
                "has no column 'query'; it has resume, jd, label; set data.columns",
            ),
            ("p.tsv", "query\tdocument\tlabel\n이력서\t공고\t1\n".encode("cp949"), "not UTF-8"),
            (
                "p.csv",
                "질문,문서,label\n가,나,1\n".encode("cp949"),
                "is not UTF-8; save it as UTF-8 (Korean files are often CP949)",
            ),
            ("p.tsv.gz", b"query\tdocument\tlabel\na\tb\t1\n", "cannot be read"),
            (
                "p.tsv.gz",
                gzip.compress(b"query\tdocument\tlabel\n" + b"a\tb\t1\n" * 5000, mtime=0)[:60],
                "cannot be read",
            ),
            (
                "p.xlsx",
                b"PK",
                ".csv, .tsv, .jsonl and .parquet are read (.csv, .tsv and .jsonl also as .gz), not .xlsx",
            ),
            ("pairs", b"x", "not a file without suffix"),
            ("p.jsonl", b"{not json\n", "cannot be read as JSON"),
            ("p.parquet", b"PAR1 no parquet", "cannot be read as PARQUET"),
        ],
    )
    def test_that_cannot_be_used_are_refused_by_name(self, tmp_path, name, content, says):
        path = tmp_path / name
        path.write_bytes(content)
        assert says in refusal(path)

    def test_rows_with_a_value_too_many_are_not_cut(self, tmp_path):
        # pandas takes the first column for row names, or cuts, where every row is one value longer than the header
        path = write_lines(tmp_path / "p.tsv", "query\tdocument\tlabel", "a\tb\t1\tx", "c\td\t0\t")
        assert "row 1: 4 values under 3 columns" in refusal(path)

    def test_rows_that_end_early_are_refused(self, tmp_path):
        path = write_lines(tmp_path / "p.tsv", "query\tdocument\tlabel", "c\td\t0", "a\tb")
        assert "row 2: 2 values under 3 columns" in refusal(path)

    def test_rows_of_another_length_are_refused(self, tmp_path):
        path = write_lines(tmp_path / "p.tsv", "query\tdocument\tlabel", "a\tb\t1", "a\tb\t1\tmore\tand more")
        assert "row 2: 5 values under 3 columns" in refusal(path)

    def test_that_are_missing(self, tmp_path):
        assert refusal(tmp_path / "none.tsv").endswith("none.tsv: no such file")

    def test_that_are_folders(self, tmp_path):
        assert "is a folder; name a .csv, .tsv, .jsonl or .parquet file in it" in refusal(tmp_path)

    def test_hub_name_without_a_network(self):
        with pytest.raises(BadInput, match="nobody/nothing is no file here, and as a hub dataset it cannot be loaded"):
            read_columns("nobody/nothing", ["query"])


class TestPairs:
    def test_query_ids_count_in_order_of_appearance(self):
        assert Pairs(["b", "a", "b", "c"], ["x"] * 4).query_ids.tolist() == [0, 1, 0, 2]

    def test_clusters_are_queries_or_documents_where_no_query_repeats(self):
        assert Pairs(["b", "a", "b"], ["x", "x", "y"]).clusters.tolist() == [0, 1, 0]
        assert Pairs(["a", "b", "c"], ["x", "y", "x"]).clusters.tolist() == [0, 1, 0]
        assert Pairs(["a", "b"], ["x", "y"]).clusters.tolist() == [0, 1] and len(Pairs([], []).clusters) == 0

    def test_select_keeps_the_order_asked_for(self):
        pairs = Pairs(["a", "b", "c"], ["x", "y", "z"], np.array([0.0, 0.5, 1.0], dtype=np.float32)).select([2, 0])
        assert (pairs.queries, pairs.documents, pairs.labels.tolist()) == (["c", "a"], ["z", "x"], [1.0, 0.0])

    def test_fingerprint_knows_texts_labels_order_and_where_a_text_ends(self):
        labels = np.array([0.0, 1.0], dtype=np.float32)
        base = Pairs(["a", "b"], ["x", "y"], labels)
        others = [
            Pairs(["a", "b"], ["x", "y"]),
            Pairs(["b", "a"], ["y", "x"], labels),
            Pairs(["ax", "b"], ["", "y"], labels),
            Pairs(["a", "b"], ["x", "y"], labels[::-1]),
            Pairs(["x", "y"], ["a", "b"], labels),
        ]
        prints = [pairs.fingerprint() for pairs in (base, *others)]
        assert len(set(prints)) == len(prints)
        assert Pairs(["a", "b"], ["x", "y"], labels.copy()).fingerprint() == base.fingerprint()


def texts_of(pairs):
    return {*pairs.queries, *pairs.documents}


some_text = st.integers(0, 40).map(lambda number: f"t{number}")
some_pairs = st.lists(st.tuples(some_text, some_text), min_size=1, max_size=60)


class TestSplit:
    @given(rows=some_pairs, share=st.floats(0.05, 0.5), seed=st.integers(0, 3))
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def test_no_text_stands_on_both_sides_and_no_pair_is_made_up(self, rows, share, seed):
        pairs = Pairs([row[0] for row in rows], [row[1] for row in rows])
        notes = []
        try:
            rest, held = split_pairs(pairs, share, seed=seed, notes=notes)
        except BadInput:
            return  # too few independent texts: said, not split badly
        assert not texts_of(rest) & texts_of(held)
        assert len(rest)
        assert len(held)
        everything = sorted(rows)
        kept = sorted(
            [*zip(rest.queries, rest.documents, strict=True), *zip(held.queries, held.documents, strict=True)]
        )
        n_dropped = len(everything) - len(kept)
        assert all(everything.count(row) >= kept.count(row) for row in set(kept))
        assert bool(notes) == (n_dropped > 0)

    def test_is_the_same_for_the_same_seed_and_another_for_another(self):
        pairs = Pairs([f"q{i // 2}" for i in range(200)], [f"d{i}" for i in range(200)])
        first, again, other = (split_pairs(pairs, 0.2, seed=seed)[1].queries for seed in (1, 1, 2))
        assert first == again
        assert first != other
        assert len(first) == 40

    def test_does_not_depend_on_the_order_of_the_rows(self):
        pairs = Pairs([f"q{i // 2}" for i in range(100)], [f"d{i}" for i in range(100)])
        turned = pairs.select(range(99, -1, -1))
        assert texts_of(split_pairs(pairs, 0.2, seed=1)[1]) == texts_of(split_pairs(turned, 0.2, seed=1)[1])

    def test_adding_pairs_moves_no_query_from_one_side_to_the_other(self):
        # each group's place in the order depends on its own text; 50 more queries only take places in between
        few = Pairs([f"q{i}" for i in range(100)], [f"d{i}" for i in range(100)])
        many = Pairs([f"q{i}" for i in range(150)], [f"d{i}" for i in range(150)])
        held_few, held_many = (set(split_pairs(pairs, 0.2, seed=1)[1].queries) for pairs in (few, many))
        assert len(held_few & held_many) >= 15  # of 20; 30 are held of the 150

    def test_giant_component_holds_queries_out_and_drops_what_shares_a_text(self):
        # every query has its own document and one that everyone is paired with
        n = 40
        pairs = Pairs([f"q{i}" for i in range(n)] * 2, [f"d{i}" for i in range(n)] + ["everyone's"] * n)
        notes = []
        rest, held = split_pairs(pairs, 0.1, seed=0, notes=notes)
        # 8 of 80 pairs: 4 queries with 2 pairs each; the other 36 lose their pair with the common document
        assert (len(held), len(set(held.queries)), len(rest)) == (8, 4, 36)
        assert notes == ["36 pairs were dropped because they use a text of the held-out pairs"]
        assert not texts_of(rest) & texts_of(held)

    def test_one_text_for_all_cannot_be_split(self):
        with pytest.raises(BadInput, match="4 pairs cannot be split .* too few texts are independent of each other"):
            split_pairs(Pairs(["q"] * 4, list("abcd")), 0.25, seed=0)


class TestLoadSplit:
    def write(self, tmp_path, name="train.tsv", prefix="", n=100):
        rows = (f"{prefix}q{i // 2}\t{prefix}d{i}\t{i % 2}" for i in range(n))
        return str(write_lines(tmp_path / name, "query\tdocument\tlabel", *rows))

    def test_makes_three_sets_that_share_no_text(self, tmp_path):
        split = load_split(Data(train=self.write(tmp_path), evaluation_share=0.2, validation_share=0.1), seed=1)
        assert (len(split.evaluation), len(split.validation), len(split.train)) == (20, 8, 72)
        sides = [texts_of(pairs) for pairs in (split.train, split.validation, split.evaluation)]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]

    def test_takes_an_evaluation_file_as_it_is(self, tmp_path):
        evaluation = self.write(tmp_path, "evaluation.tsv", prefix="e", n=10)
        split = load_split(Data(train=self.write(tmp_path, n=600), evaluation=evaluation), seed=1)
        assert split.evaluation.queries == [f"eq{i // 2}" for i in range(10)]
        assert len(split.train) + len(split.validation) == 600
        assert split.notes == ()
        assert split.summary() == "570 training, 30 validation, 10 evaluation pairs"

    def test_says_what_is_too_small_to_learn_from_or_to_choose_by(self, tmp_path):
        texts = write_lines(tmp_path / "texts.txt", *(f"text {i}" for i in range(200)))
        data = Data(train=self.write(tmp_path), unlabelled=[{"path": str(texts)}], validation_share=0.1)
        (shortage,) = load_split(data, seed=1).shortages()
        assert shortage.startswith("10 validation pairs: the best checkpoint is chosen by chance")
        split = load_split(data.model_copy(update={"unlabelled": ()}), seed=1)
        few, _ = split.shortages()
        assert few == "only 80 pairs and texts to learn from: add pairs, of which unlabelled ones count as well"
        assert split.notes == ()

    def test_labels_of_another_range_ask_for_it_and_not_to_be_skipped(self, tmp_path):
        lines = (f"q{i}\td{i}\t{i % 6}" for i in range(60))
        grades = str(write_lines(tmp_path / "grades.tsv", "query\tdocument\tlabel", *lines))
        with pytest.raises(BadInput, match=r"; set label_range to .* label, here 0 and 5 or beyond$"):
            load_split(Data(train=grades), seed=1)
        lines = (f"q{i}\td{i}\t{5 if i == 3 else i % 2}" for i in range(60))  # one label is a slip
        slip = str(write_lines(tmp_path / "slip.tsv", "query\tdocument\tlabel", *lines))
        with pytest.raises(BadInput, match=r"; mend them or set data\.skip_bad_rows=true$"):
            load_split(Data(train=slip), seed=1)

    def test_another_separator_is_said(self, tmp_path):
        table = str(write_lines(tmp_path / "table.csv", "query;document;label", "a;b;1"))
        with pytest.raises(BadInput, match="separated by semicolons: save it with commas"):
            load_split(Data(train=table), seed=1)

    def test_says_that_an_evaluation_file_leaks(self, tmp_path):
        rows = ["query\tdocument\tlabel", "q0\tnew\t1", "fresh\tfresher\t0"]
        evaluation = str(write_lines(tmp_path / "evaluation.tsv", *rows))
        split = load_split(Data(train=self.write(tmp_path, n=600), evaluation=evaluation), seed=1)
        assert split.notes == (
            "leak: 1 of 4 evaluation texts also stand in the training pairs; results on them are too good",
        )

    def test_validation_is_capped(self, tmp_path):
        split = load_split(Data(train=self.write(tmp_path), validation_share=0.5, max_validation_pairs=6), seed=1)
        assert len(split.validation) == 6

    def test_max_pairs_is_a_random_sample_with_the_seed(self, tmp_path):
        data = Data(train=self.write(tmp_path), max_pairs=40, evaluation_share=0.2)
        drawn = []
        for seed in (1, 1, 2):
            split = load_split(data, seed=seed)
            parts = (split.train, split.validation, split.evaluation)
            assert sum(map(len, parts)) == 40
            drawn.append({document for part in parts for document in part.documents})
        assert drawn[0] == drawn[1] != drawn[2]
        places = [int(document[1:]) for document in drawn[0]]  # the head of the file has 0 to 39
        assert 30 < np.mean(places) < 70

    def test_max_pairs_of_unlabelled_pairs_is_a_random_sample_with_the_seed(self, tmp_path):
        given = {"path": self.write(tmp_path, "more.tsv", prefix="u", n=200), "max_pairs": 40}
        data = Data(train=self.write(tmp_path), unlabelled_pairs=[given])
        drawn = [load_split(data, seed=seed).unlabelled_pairs.documents for seed in (1, 1, 2)]
        assert [len(documents) for documents in drawn] == [40, 40, 40]
        assert drawn[0] == drawn[1] != drawn[2]
        places = [int(document.removeprefix("ud")) for document in drawn[0]]  # the head of the file has 0 to 39
        assert 60 < np.mean(places) < 140

    def test_labelled_pairs_of_other_files_are_trained_on_with_their_own_columns_and_range(self, tmp_path):
        lines = [f"{i % 5}\ta{i}\tb{i}" for i in range(50)] + [f"4\td{i}\tc{i}" for i in range(100)]
        other = str(write_lines(tmp_path / "other.tsv", "score\tone\ttwo", *lines))
        section = {
            "path": other,
            "columns": {"query": "one", "document": "two", "label": "score"},
            "label_range": [0, 4],
        }
        alone = load_split(Data(train=self.write(tmp_path)), seed=1)
        split = load_split(Data(train=self.write(tmp_path), labelled_pairs=section), seed=1)
        n_own = len(alone.train)
        assert split.train.select(range(n_own)).fingerprint() == alone.train.fingerprint()
        for part in ("validation", "evaluation"):
            assert getattr(split, part).fingerprint() == getattr(alone, part).fingerprint()
        held_out = texts_of(split.validation) | texts_of(split.evaluation)
        assert not texts_of(split.train) & held_out
        n_left_out = sum(f"d{i}" in held_out for i in range(100))
        assert 0 < n_left_out == 150 - (len(split.train) - n_own)
        assert (
            f"{n_left_out} pairs of {other} hold a text that validates or evaluates and were left out" in split.notes[0]
        )
        assert split.train.labels[n_own : n_own + 5].tolist() == [0, 0.25, 0.5, 0.75, 1]
        few = Data(train=self.write(tmp_path), labelled_pairs={**section, "max_pairs": 20}, labelled_share=0.5)
        assert load_split(few, seed=1).train.documents[-20:] != split.train.documents[-20:]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"columns": {"label": "grade"}}, r"data\.labelled_pairs\.columns"),
            ({"label_range": [0, 0.5]}, r"set data\.labelled_pairs\.label_range to .*, here 0 and 1 or beyond"),
        ],
    )
    def test_what_is_wrong_in_labelled_pairs_names_their_section(self, tmp_path, change, message):
        other = self.write(tmp_path, "other.tsv", prefix="u")
        with pytest.raises(BadInput, match=message):
            load_split(Data(train=self.write(tmp_path), labelled_pairs={"path": other, **change}), seed=1)

    def test_labelled_pairs_that_only_evaluate_are_refused(self, tmp_path):
        rows = ["query\tdocument\tlabel", "fresh\tfresher\t0", "fresh\tfreshest\t1"]
        evaluation = str(write_lines(tmp_path / "evaluation.tsv", *rows))
        with pytest.raises(
            BadInput, match="labelled_pairs: every pair of .*evaluation.tsv holds a validation or evaluation"
        ):
            load_split(
                Data(train=self.write(tmp_path), evaluation=evaluation, labelled_pairs={"path": evaluation}), seed=1
            )

    def test_unlabelled_texts_hold_no_held_out_text(self, tmp_path):
        # every text of the pairs stands in the unlabelled file as well, with 10 of its own
        texts = [f"q{i}" for i in range(50)] + [f"d{i}" for i in range(100)] + [f"own{i}" for i in range(10)]
        source = str(write_lines(tmp_path / "texts.tsv", "text", *texts))
        split = load_split(Data(train=self.write(tmp_path), unlabelled=[{"path": source}]), seed=1)
        held_out = texts_of(split.validation) | texts_of(split.evaluation)
        assert not set(split.unlabelled) & held_out
        assert set(split.unlabelled) == set(texts) - held_out
        assert f"{len(held_out)} unlabelled texts are also held-out texts" in split.notes[0]

    def test_is_the_same_every_time_and_describes_itself(self, tmp_path):
        data = Data(train=self.write(tmp_path))
        first, again = load_split(data, seed=1).describe(), load_split(data, seed=1).describe()
        assert first == again
        assert first["train"]["fingerprint"] != load_split(data, seed=2).describe()["train"]["fingerprint"]
        assert first["unlabelled"]["n_texts"] == 0

    def test_bundled_pairs_are_as_many_as_asked_for(self):
        split = load_split(Data(train="bundled", bundled_pairs=101, evaluation_share=0.2, validation_share=0.1), seed=3)
        assert sum(map(len, (split.train, split.validation, split.evaluation))) == 101
        assert set(split.train.labels.tolist()) == {0.0, 1.0}


class TestUnlabelledTexts:
    def test_lines_of_a_text_file(self, tmp_path):
        path = tmp_path / "texts.txt"
        path.write_bytes("한 줄\r\n\n another \u2028line\n한 줄\n".encode())
        assert load_texts(Unlabelled(path=str(path))) == ["한 줄", "another \u2028line"]
        with pytest.raises(BadInput, match="has one text a line and no columns; leave columns out"):
            load_texts(Unlabelled(path=str(path), columns=("ko",)))

    def test_come_column_after_column_without_repeats_or_empty_ones(self, tmp_path):
        path = write_lines(tmp_path / "t.tsv", "ko\ten", "가\ta", "\tb", "가\ta", " 나 \t")
        texts = load_texts(Unlabelled(path=str(path), columns=("ko", "en")))
        assert texts == ["가", "나", "a", "b"]

    def test_a_key_may_come_after_many_rows_without_it(self, tmp_path):
        path = write_lines(tmp_path / "t.jsonl", *['{"en": "a", "id": 1}'] * 9, '{"ko": "가"}')
        assert load_texts(Unlabelled(path=str(path), columns=("ko", "en"))) == ["가", "a"]
        with pytest.raises(BadInput, match="has no column 'text'; it has en, id; set"):
            load_texts(Unlabelled(path=str(path)))

    def test_are_capped(self, tmp_path):
        path = write_lines(tmp_path / "t.tsv", "text", *(f"t{i}" for i in range(9)))
        given = Unlabelled(path=str(path), max_texts=4)
        first, again, other = (load_texts(given, seed=seed) for seed in (0, 0, 1))
        assert len(first) == len(set(first)) == 4
        assert first == again == sorted(first) != other

    def test_missing_column_is_named_with_the_key_to_set(self, tmp_path):
        path = write_lines(tmp_path / "t.tsv", "sentence", "a")
        with pytest.raises(BadInput, match=r"has no column 'text'; it has sentence; set data\.unlabelled\.columns"):
            load_texts(Unlabelled(path=str(path)))


class TestResumes:
    """One side read as résumés: sections, blinding, or both."""

    RESUME = "홍길동\n010-1234-5678\n\n[경력사항]\n한빛병원 간호사 3년\n\n[자기소개]\n저는 홍길동입니다. 성실합니다."

    def write(self, tmp_path, resumes):
        path = tmp_path / "pairs.jsonl"
        rows = [{"query": r, "document": f"JD {i}", "label": i % 2} for i, r in enumerate(resumes)]
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        return str(path)

    def read(self, tmp_path, **resume):
        resumes = [self.RESUME.replace("3년", f"{i + 2}년") for i in range(39)] + ["텍스트 하나"]
        data = Data(train=self.write(tmp_path, resumes), resume=resume)
        split = load_split(data, seed=0)
        parts = (split.train, split.validation, split.evaluation)
        return [text for part in parts for text in part.queries], split

    def test_wanted_sections_are_kept_and_the_rest_is_counted(self, tmp_path):
        texts, split = self.read(tmp_path, keep=["experience"])
        assert sum("한빛병원" in text for text in texts) == 39
        assert not any("홍길동" in text or "성실" in text for text in texts)
        assert split.notes[0].startswith("1 of 40 résumés hold none of the sections experience")

    def test_blinding_takes_the_name_out_everywhere(self, tmp_path):
        texts, _ = self.read(tmp_path, blind=True)
        assert not any("홍길동" in text or "010-1234" in text for text in texts)
        assert sum("성실합니다" in text for text in texts) == 39

    def test_the_other_side_is_not_touched(self, tmp_path):
        _, split = self.read(tmp_path, side="document", keep=["experience"])
        assert any("홍길동" in text for text in split.train.queries)


class TestBlocks:
    """A file of any size is read a block at a time, and its rows are those of reading it whole."""

    ROWS = (("q1", "d1"), ("q2", ""), ("q3", "d3"), ("q4", "d4"), ("", "d5"), ("q6", "d6"), ("q7", "d7"))

    def written(self, path, rows):
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(
                pa.table({"query": [q for q, _ in rows], "document": [d for _, d in rows]}), path
            )
        elif path.suffix == ".jsonl":
            lines = (json.dumps({"query": query, "document": document}) for query, document in rows)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            path.write_text("query,document\n" + "".join(f"{q},{d}\n" for q, d in rows), encoding="utf-8")
        return str(path)

    def reader(self, source, **options):
        return PairReader(source, Columns(), labelled=False, **options)

    @pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
    def test_rows_are_those_of_reading_it_whole(self, suffix, tmp_path, monkeypatch):
        monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 3)
        source = self.written(tmp_path / f"pairs{suffix}", self.ROWS)
        whole, rows = read_pairs_with_rows(source, Columns(), labelled=False, skip_bad_rows=True)
        checked = self.reader(source, skip_bad_rows=True).checked()
        blocks = list(checked.blocks())
        assert [row for _, kept in blocks for row in kept] == rows == [0, 2, 3, 5, 6] and len(checked) == 5
        assert [query for pairs, _ in blocks for query in pairs.queries] == whole.queries
        assert [document for pairs, _ in blocks for document in pairs.documents] == whole.documents
        assert len(blocks) == 3

    def test_rows_that_cannot_be_used_are_said_before_the_first_block(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 3)
        source = self.written(tmp_path / "pairs.csv", self.ROWS)
        with pytest.raises(
            BadInput, match=r"2 of 7 rows cannot be used \(row 2: document is empty; row 5: query is empty\)"
        ):
            self.reader(source).checked()

    @pytest.mark.parametrize(
        "later",
        [
            ROWS[:4],
            ROWS[:6],  # to the end of a block
            [*ROWS, ("q8", "d8")],
            [*ROWS, ("q8", "d8"), ("q9", "d9"), ("q10", "d10")],
            [("q1", ""), *ROWS[1:]],
            [ROWS[0], ("q2", "d2"), *ROWS[2:]],  # a row that could not be used
            [("p1", "d1"), *ROWS[1:]],  # as many letters
        ],
    )
    @pytest.mark.parametrize("rows_at_once", [3, 7])
    def test_a_file_that_changes_meanwhile_is_refused(self, later, rows_at_once, tmp_path, monkeypatch):
        monkeypatch.setattr(tables, "_ROWS_AT_ONCE", rows_at_once)
        path = tmp_path / "pairs.csv"
        checked = self.reader(self.written(path, self.ROWS), skip_bad_rows=True).checked()
        self.written(path, later)
        os.utime(path, ns=(0, 10**18))  # another time, be the clock as coarse as it may
        for read in (checked.whole, lambda: list(checked.blocks())):
            with pytest.raises(BadInput, match="pairs.csv changed while it was read"):
                read()

    def test_one_row_and_one_column_for_both_sides(self, tmp_path):
        source = self.written(tmp_path / "pairs.csv", self.ROWS[:1])
        reader = PairReader(source, Columns(query="query", document="query"), labelled=False)
        [(pairs, rows)] = reader.checked().blocks()
        assert (pairs.queries, pairs.documents, rows) == (["q1"], ["q1"], [0])

    def test_objects_without_any_key_lack_the_column(self, tmp_path):
        (tmp_path / "pairs.jsonl").write_text("{}\n{}\n")
        with pytest.raises(BadInput, match="has no column 'query'"):
            self.reader(str(tmp_path / "pairs.jsonl")).checked()

    def test_of_a_hub_dataset_no_other_column_is_decoded(self, monkeypatch):
        datasets = pytest.importorskip("datasets")
        held = datasets.Dataset.from_dict(
            {"query": ["q1", "q2"], "document": [0.1, 0.7], "photo": [{"bytes": b"no", "path": None}] * 2}
        )
        held = held.cast_column("photo", datasets.Image()).cast_column("document", datasets.Value("float32"))
        monkeypatch.setattr(datasets, "load_dataset", lambda name, split: held)
        monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 1)
        blocks = list(tables.column_blocks("some/set", ["query", "document", "query"]))
        assert blocks == [{"query": ["q1"], "document": [0.1]}, {"query": ["q2"], "document": [0.7]}]


def test_blinding_in_a_recipe_says_what_it_removed(tmp_path, caplog):
    rows = [f"성명: 김서연 / 경력 {i}년\t공고 {i}\t{i % 2}" for i in range(40)]
    train = str(write_lines(tmp_path / "train.tsv", "query\tdocument\tlabel", *rows))
    with caplog.at_level("INFO"):
        load_split(Data(train=train, resume={"blind": True}), seed=1)
    assert "40 identifiers removed from 40 résumés: name 40" in caplog.text


def test_truth_values_as_labels_are_said_once(tmp_path, caplog):
    rows = [json.dumps({"query": f"q{i}", "document": f"d{i}", "label": i % 2 == 0}) for i in range(4)]
    path = str(write_lines(tmp_path / "pairs.jsonl", *rows))
    assert len(PairReader(path, Columns()).checked().whole()[0]) == 4
    assert caplog.text.count("4 labels are true or false, taken as 1 or 0 of label_range [0, 1]") == 1


def test_empty_lines_are_counted_once(tmp_path, caplog):
    path = tmp_path / "pairs.csv"
    path.write_bytes(b"query,document,label\r\r\na,b,1\r\r\nc,d,0\r\r\n")
    assert len(PairReader(str(path), Columns()).checked().whole()[0]) == 2
    assert caplog.text.count("empty lines left out") == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("경력,b,1".encode("cp949"), r"\(Korean files are often CP949\): iconv .*byte 1 of line 3 \(0xb0\)$"),
        ("경력".encode() + b"\xff,b,1", r"is not UTF-8 at byte 7 of line 3 \(0xff\); mend it there"),
    ],
)
def test_the_first_byte_that_is_no_utf8_is_named(tmp_path, line, says):
    path = tmp_path / "pairs.csv"
    path.write_bytes(b"query,document,label\na,b,1\n" + line + b"\n")
    with pytest.raises(BadInput, match=says):
        read_pairs(str(path), Columns())
