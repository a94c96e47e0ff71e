"""One behaviour of all readers: recipe data, score, embed, prepare, trim --texts and index-quality, on the same odd inputs.

A reader is asked through the function that its command calls for its texts. `None` as the expected result is the texts
"a b" and "c d"; a string is what the one line of `BadInput` says.
"""

import codecs
import csv
import gzip
import io
import json
import os
import re
import tempfile
import unicodedata
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.pairs import load_parallel, load_texts, read_columns, read_pairs
from distill.data.resume_file import Preparation, prepare_file
from distill.data.tables import read_texts
from distill.errors import BadInput
from distill.recipe.schema import Columns, Parallel, Unlabelled
from students.trim import _read as read_trim_texts
from students.vocabulary.corpus import read_corpus
from tests.conftest import ROOT

RIGHT = ["a b", "c d"]
INVISIBLE = "holds only invisible characters"
ONE = Columns(query="text", document="text")


def recipe(path, _):
    return read_pairs(str(path), Columns(query="text", document="text", label="label")).queries


def score(path, _):
    return read_pairs(str(path), ONE, labelled=False).queries


def embed(path, _):
    return read_texts(str(path), "text")


def index_quality(path, _):
    return read_texts(str(path), "text", gaps=True)


def trim(path, _):
    (texts,) = read_trim_texts([str(path)]).sources.values()
    return texts


def prepare(path, folder):
    out = folder / f"out{''.join(path.suffixes[-2:])}"
    try:
        prepare_file(str(path), out, column="text", preparation=Preparation(blind=True))
    except BadInput:
        assert not out.exists()
        raise
    return [str(text) for text in read_columns(str(out), ["text"])["text"]]


def unlabelled(path, _):
    return load_texts(Unlabelled(path=str(path)))


def parallel(path, _):
    return [source for source, _ in load_parallel(Parallel(path=str(path), source="text", target="text"))]


def vocabulary(path, _):
    (texts,) = read_corpus([Unlabelled(path=str(path))]).sources.values()
    return texts


READERS = [recipe, score, embed, prepare, trim, index_quality, unlabelled, parallel, vocabulary]
KEEP_GAPS = {"prepare": ["a b", "None", "c d"]}  # a copy keeps an empty value
SKIP_GAPS = {"unlabelled", "parallel", "vocabulary"}  # sets of texts: empty ones are counted in the log


def jsonl(*rows):
    return "\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows).encode()


def parquet(values, label=True, name="text"):
    rows = {name: values, **({"label": [1] * len(values)} if label else {})}
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table(rows), sink)
    return sink.getvalue()


NFC = "이력서"
NFD = unicodedata.normalize("NFD", NFC)
A, C = {"text": "a b", "label": 1}, {"text": "c d", "label": 0}
CSV = b"text,label\na b,1\nc d,0\n"
TSV = CSV.replace(b",", b"\t")
INPUTS = {
    # delimited
    "row too long.csv": (b"text,label\na b,1\nc, d,0\n", "row 2: 3 values under 2 columns"),
    "all rows too long.csv": (b"text,label\na, b,1\nc, d,0\n", "row 1: 3 values under 2 columns"),
    "row too long.tsv": (b"text\tlabel\na\tb\t1\n", "row 1: 3 values under 2 columns"),
    "row too short.csv": (b"text,label\na b,1\nc d\n", "row 2: 1 value under 2 columns"),
    "row too short.tsv": (b"text\tlabel\na b\n", "row 1: 1 value under 2 columns"),
    "quote not closed.csv": (b'text,label\n"a b,1\nc d,0\n', "row of line 2 opens a quote"),
    "windows.csv": (CSV.replace(b"\n", b"\r\n"), None),
    "windows.tsv": (TSV.replace(b"\n", b"\r\n"), None),
    "old mac.csv": (CSV.replace(b"\n", b"\r"), None),
    "old mac.tsv": (TSV.replace(b"\n", b"\r"), "its lines end in \\r alone"),
    "no end of line.csv": (CSV.rstrip(), None),
    "empty lines.csv": (b"text,label\na b,1\n\nc d,0\n\n\n", None),
    "empty lines.tsv": (b"text\tlabel\na b\t1\n\nc d\t0\n\n\n", None),
    "lone carriage return.csv": (b'text,label\n"a\rb",1\n', ["a\rb"]),
    "lone carriage return.tsv": (b"text\tlabel\na\rb\t1\n", ["a\rb"]),
    "odd line ends.csv": ('text,label\n"a\u2028b\x0cc\x85d\x1ce",1\n'.encode(), ["a\u2028b\x0cc\x85d\x1ce"]),
    "odd line ends.tsv": ("text\tlabel\na\u2028b\x0cc\x85d\x1ce\t1\n".encode(), ["a\u2028b\x0cc\x85d\x1ce"]),
    "spellings.csv": (b"text,label\n007,1\n1e5,1\nNA,1\n1.50,1\n", ["007", "1e5", "NA", "1.50"]),
    "words for nothing.csv": (
        b"text,label\nNaN,1\nnan,1\nNone,1\nnull,1\nN/A,0\n",
        ["NaN", "nan", "None", "null", "N/A"],
    ),
    "words for nothing.tsv": (b"text\tlabel\nNaN\t1\nNone\t1\n", ["NaN", "None"]),
    "capitals.CSV": (CSV, None),
    "capitals.Tsv": (TSV, None),
    "numbers.csv": (b"text,label\n12,1\n-0.50,1\n1e999,1\n", ["12", "-0.50", "1e999"]),
    "header in NFD.csv": (f"{NFD},text,label\nx,a b,1\ny,c d,0\n".encode(), None),
    "header twice by NFC.csv": (f"{NFD},{NFC},text,label\nx,y,a b,1\n".encode(), "must name each column once"),
    "header twice.csv": (b"text,text,label\na,b,1\n", "must name each column once"),
    "header with a gap.tsv": (b"text\t\tlabel\na b\tx\t1\nc d\t\t0\n", None),
    "index of pandas.csv": (b",text,label\n0,a b,1\n1,c d,0\n", None),
    "empty last columns.csv": (b"text,label,,\na b,1,,\nc d,0,,\n", None),
    "header twice beside a gap.csv": (b",text,text,label\n0,a,b,1\n", "must name each column once"),
    "no column with the name.csv": (b",words,label\n0,a,1\n", "has no column 'text'; it has words, label"),
    "header of gaps.csv": (b",,\n0,a,1\n", "the first line must name the columns, all of its names are empty"),
    "header only.csv": (b"text,label\n", "has a header and no rows"),
    "header only.tsv": (b"text\tlabel", "has a header and no rows"),
    "nothing.csv": (b"", "is empty"),
    "nothing but a mark.csv": (codecs.BOM_UTF8, "is empty"),
    "no such column.csv": (b"words,label\na,1\n", "has no column 'text'; it has words, label"),
    "blanks in the header.csv": (b"words, text ,label\na,b,1\n", "has no column 'text'; it has words, ' text ', label"),
    "invisible in the header.csv": (
        "words,text\u200b,label\na,b,1\n".encode(),
        r"has no column 'text'; it has words, 'text\u200b', label",
    ),
    "first line empty.csv": (b"\ntext,label\na,1\n", "the first line must name the columns, it is empty"),
    "first line empty.tsv": (b"\ntext\tlabel\na\t1\n", "the first line must name the columns, it is empty"),
    "nul.csv": (b"text,label\na\0b,1\n", "row 1: text holds a NUL character"),
    "nul in the header.tsv": (b"te\0xt\tlabel\na\t1\n", "holds NUL bytes"),
    # encodings
    "marked.csv": (codecs.BOM_UTF8 + CSV, None),
    "utf-16.csv": (CSV.decode().encode("utf-16"), None),
    "utf-16 big.tsv": (codecs.BOM_UTF16_BE + TSV.decode().encode("utf-16-be"), None),
    "utf-16.jsonl": (jsonl(A, C).decode().encode("utf-16"), None),
    "utf-16 without a mark.csv": (CSV.decode().encode("utf-16-le"), "holds NUL bytes"),
    "utf-16 cut off.csv": (CSV.decode().encode("utf-16")[:-1], "is not UTF-16"),
    "cp949.csv": (
        "text,label\n경력,1\n".encode("cp949"),
        "is not UTF-8; save it as UTF-8 (Korean files are often CP949)",
    ),
    "cp949.jsonl": ('{"text": "경력"}'.encode("cp949"), "is not UTF-8"),
    "cp949.tsv": ("글\tlabel\n경력\t1\n".encode("cp949"), "is not UTF-8"),
    "gzip.csv.gz": (gzip.compress(CSV), None),
    "gzip.jsonl.gz": (gzip.compress(jsonl(A, C)), None),
    "gzip cut off.csv.gz": (gzip.compress(CSV * 500)[:60], "cannot be read"),
    "gzip damaged.tsv.gz": (gzip.compress(TSV)[:12] + b"\xff\xff\xff" + gzip.compress(TSV)[15:], "cannot be read"),
    "no gzip.csv.gz": (CSV, "cannot be read"),
    "gzip unnamed.csv": (gzip.compress(CSV), "is gzipped; name it with .gz"),
    "gzip.parquet.gz": (gzip.compress(parquet(["a b"])), "not .parquet.gz"),
    "workbook.csv": (b"PK\x03\x04rest", "a ZIP or Excel file"),
    "other.xlsx": (b"PK\x03\x04rest", "not .xlsx"),
    # JSON
    "words for nothing.jsonl": (jsonl({"text": "NaN", "label": 1}, {"text": "None", "label": 0}), ["NaN", "None"]),
    "late key.jsonl": (jsonl(A, {**C, "source": "web"}), None),
    "mixed types beside.jsonl": (jsonl({**A, "id": 7, "m": None}, {**C, "id": "x7", "m": {"a": [1]}}), None),
    "numbers.jsonl": (
        jsonl('{"text": 1, "label": 0}', '{"text": 1.50, "label": 0.5}', '{"text": 1e5, "label": 1}'),
        ["1", "1.50", "1e5"],
    ),
    "number then word.jsonl": (jsonl({"text": 5, "label": 1}, {"text": "word", "label": 0.5}), ["5", "word"]),
    "list.jsonl": (
        jsonl({**A, "text": ["a", "b"]}),
        "row 1: text is no text: a text is expected, got ['a', 'b'] (list)",
    ),
    "object.jsonl": (
        jsonl(A, {**C, "text": {"t": "d"}}),
        "row 2: text is no text: a text is expected, got {'t': 'd'} (dict)",
    ),
    "bool.jsonl": (jsonl({**A, "text": True}), "row 1: text is no text: a text is expected, got True (bool)"),
    "nan.jsonl": (b'{"text": NaN, "label": 1}', "row 1: text is no text: a text is expected, got nan (float)"),
    "half a pair.jsonl": (b'{"text": "a \\ud800", "label": 1}', "row 1: text holds half a surrogate pair (\\ud800)"),
    "escaped nul.jsonl": (b'{"text": "a \\u0000", "label": 1}', "row 1: text holds a NUL character"),
    "key twice.jsonl": (b'{"text": "a", "text": "b", "label": 1}', "row 1: 'text' stands twice in one object"),
    "other key twice.jsonl": (b'{"text": "a b", "x": 1, "x": 2, "label": 1}', ["a b"]),
    "broken line.jsonl": (jsonl(A) + b'\n{"text": ', "line 2 is no JSON object"),
    "list as a line.jsonl": (jsonl(A) + b"\n[1]", "line 2 is list; each line must be an object"),
    "null as a line.jsonl": (b"null", "line 1 is null"),
    "deep.jsonl": (b'{"x": ' + b"[" * 99_999, "nested too deeply"),
    "never the key.jsonl": (jsonl({"words": "a"}, {"other": "b"}), "has no column 'text'; it has words, other"),
    "array.json": (json.dumps([A, C]).encode(), None),
    "array of numbers.json": (b"[1]", "row 1 is str"),
    # Parquet
    "strings.parquet": (parquet(RIGHT), None),
    "words for nothing.parquet": (parquet(["NaN", "nan", "None"]), ["NaN", "nan", "None"]),
    "nan.parquet": (parquet([1.5, float("nan")]), "row 2: text is no text: a text is expected, got nan (float)"),
    "large strings.parquet": (parquet(pa.array(RIGHT, pa.large_string())), None),
    "dictionary.parquet": (parquet(pa.array(RIGHT).dictionary_encode()), None),
    "integers.parquet": (parquet(pa.array([7, 8], pa.int16())), ["7", "8"]),
    "floats.parquet": (parquet([1.5, 0.25]), ["1.5", "0.25"]),
    "short floats.parquet": (parquet(pa.array([0.1, 1.7], pa.float32())), ["0.1", "1.7"]),
    "shorter floats.parquet": (parquet(pa.array(np.float16([0.1, 1.7]))), ["0.1", "1.7"]),
    "lists.parquet": (parquet([["a"], ["b"]]), "row 1: text is no text: a text is expected, got ['a'] (list)"),
    "bools.parquet": (parquet([True]), "row 1: text is no text: a text is expected, got True (bool)"),
    "bytes.parquet": (parquet([b"a"]), "row 1: text is no text: a text is expected, got b'a' (bytes)"),
    "structs.parquet": (parquet([{"t": "d"}]), "row 1: text is no text: a text is expected, got {'t': 'd'} (dict)"),
    "dates.parquet": (
        parquet([date(2024, 1, 2)]),
        "text is of type date32[day]; write dates as the text that they should be",
    ),
    "times.parquet": (parquet([datetime(2024, 1, 2)]), "text is of type timestamp[us]"),
    "no rows.parquet": (parquet(pa.array([], pa.string())), "has a header and no rows"),
    "text as parquet.parquet": (CSV, "cannot be read as PARQUET"),
    "damaged.parquet": (parquet(RIGHT)[:-30] + b"PAR1", "cannot be read as PARQUET"),
    # names
    "pairs[1].tsv": (TSV, None),
    "pairs*.csv": (CSV, None),
    "없음?.jsonl": (jsonl(A, C), None),
}


def said(reader, path, folder):
    with pytest.raises(BadInput) as caught:
        reader(path, folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


# one door reads for all of them: the inner loop goes through it by two
MARKED_READERS = [
    reader if reader in (recipe, prepare) else pytest.param(reader, marks=pytest.mark.integration) for reader in READERS
]


@pytest.mark.parametrize("reader", MARKED_READERS, ids=[reader.__name__ for reader in READERS])
class TestReaders:
    @pytest.mark.parametrize("name", INPUTS)
    def test_odd_inputs(self, reader, name, tmp_path):
        content, expected = INPUTS[name]
        path = tmp_path / name
        path.write_bytes(content)
        (tmp_path / "pairs1.tsv").write_text("text\tlabel\nanother\t1\n")
        if isinstance(expected, str):
            message = said(reader, path, tmp_path)
            assert expected.removeprefix("row 1: ") in message if reader is prepare else expected in message
        else:
            assert reader(path, tmp_path) == (expected or RIGHT)

    @pytest.mark.parametrize("name", ["d.csv", "d.jsonl"])
    def test_dates_stay_as_they_are_written(self, reader, name, tmp_path):
        date_like = "2024-01-02T00:00:00"
        path = tmp_path / name
        path.write_text(
            f"text,label\n{date_like},1\n" if name == "d.csv" else json.dumps({"text": date_like, "label": 1})
        )
        if reader is not prepare:  # takes it for a birth date, and out
            assert reader(path, tmp_path) == [date_like]

    @pytest.mark.parametrize(
        "content",
        [
            ("g.jsonl", jsonl(A, {**C, "text": None}, C)),
            ("g.jsonl", jsonl(A, {"label": 1}, C)),
            ("g.parquet", parquet(["a b", None, "c d"])),
        ],
    )
    def test_a_gap_is_no_word(self, reader, content, tmp_path):
        path = tmp_path / content[0]
        path.write_bytes(content[1])
        if reader is prepare:
            assert reader(path, tmp_path) == KEEP_GAPS["prepare"]
        elif reader.__name__ in SKIP_GAPS:
            assert reader(path, tmp_path) == RIGHT
        else:
            assert "row 2: text is empty" in said(reader, path, tmp_path)

    @pytest.mark.parametrize(
        ("blank", "says"),
        [
            ("", "is empty"),
            (" ", "is empty"),
            ("\u00a0", "is empty"),
            ("\u200b", INVISIBLE),
            ("\ufeff \u3000", INVISIBLE),
            ("\u3164", INVISIBLE),
            ("\u200e\u202c", INVISIBLE),
            ("\x01\x7f", INVISIBLE),
            ("\u2800", INVISIBLE),
            ("\ufe0f", INVISIBLE),
        ],
    )
    def test_blank_texts_are_gaps(self, reader, blank, says, tmp_path):
        path = tmp_path / "g.tsv"
        path.write_text(f"text\tlabel\na b\t1\n{blank}\t0\nc d\t0\n", encoding="utf-8")
        if reader is prepare:
            assert reader(path, tmp_path) == ["a b", blank, "c d"]
        elif reader.__name__ in SKIP_GAPS:
            assert reader(path, tmp_path) == RIGHT
        else:
            assert f"row 2: text {says}" in said(reader, path, tmp_path)

    def test_what_is_no_file_is_said_without_waiting(self, reader, tmp_path):
        (tmp_path / "folder.csv").mkdir()
        assert "is a folder" in said(reader, tmp_path / "folder.csv", tmp_path)
        os.mkfifo(tmp_path / "pipe.csv")
        assert "is a pipe or a device" in said(reader, tmp_path / "pipe.csv", tmp_path)
        (tmp_path / "device.csv").symlink_to("/dev/zero")
        assert "is a pipe or a device" in said(reader, tmp_path / "device.csv", tmp_path)

    def test_a_name_that_is_not_there_is_said_with_its_neighbours(self, reader, tmp_path):
        (tmp_path / "pairs.tsv").write_bytes(TSV)
        (tmp_path / "pairs_run").mkdir()  # such as the run's own folder
        assert "no such file; near it: pairs.tsv" in said(reader, tmp_path / "pairs.csv", tmp_path)
        (tmp_path / f".{os.getpid()}.tmp.pairs.csv").touch()  # what a command writes at this moment
        assert said(reader, tmp_path / "pairs.csv", tmp_path).endswith("near it: pairs.tsv")
        assert said(reader, tmp_path / "x.tsv", tmp_path).endswith("no such file")  # a suffix alone is not near
        assert "there is no folder" in said(reader, tmp_path / "none" / "pairs.csv", tmp_path)
        assert "cannot be read" in said(reader, tmp_path / ("a" * 300 + ".csv"), tmp_path)

    def test_a_file_that_looks_like_a_hub_name_is_a_file(self, reader, tmp_path, monkeypatch):
        (tmp_path / "team").mkdir()
        (tmp_path / "team" / "pairs.csv").write_bytes(CSV)
        monkeypatch.chdir(tmp_path)
        assert reader(tmp_path.__class__("team/pairs.csv"), tmp_path) == RIGHT


NAMED_IN = {
    "csv": lambda name: f"{name},label\n가 나,1\n".encode(),
    "tsv": lambda name: f"{name}\tlabel\n가 나\t1\n".encode(),
    "jsonl": lambda name: jsonl({name: "가 나", "label": 1}),
    "parquet": lambda name: parquet(["가 나"], name=name),
}


@pytest.mark.parametrize(("held", "asked"), [(NFD, NFC), (NFC, NFD), (NFC, NFC)])
@pytest.mark.parametrize("suffix", NAMED_IN)
def test_a_column_is_found_by_its_name_in_nfc(suffix, held, asked, tmp_path):
    path, out = tmp_path / f"pairs.{suffix}", tmp_path / f"out.{suffix}"
    path.write_bytes(NAMED_IN[suffix](held))
    assert read_texts(str(path), asked) == ["가 나"]
    assert read_pairs(str(path), Columns(query=asked, document=asked)).queries == ["가 나"]
    prepare_file(str(path), out, column=asked, preparation=Preparation(blind=True))
    assert read_columns(str(out), [held])[held] == ["가 나"]  # the copy spells it as its source does
    with pytest.raises(BadInput, match="has no column '이력'"):
        read_texts(str(path), "이력")


@pytest.mark.parametrize(
    ("content", "n"), [(b"text\na\n\n\n", 2), (b"text,label\na,1\n\nb,1\n\n", 2), (b"text\na\n", 0)]
)
def test_empty_lines_at_the_end_are_counted_as_those_between_rows(content, n, tmp_path, caplog):
    path = tmp_path / "texts.csv"
    path.write_bytes(content)
    assert read_texts(str(path))[0] == "a"
    assert (f"{n} empty lines left out" in caplog.text) == bool(n)


@pytest.mark.parametrize("source", ["https://example.com/pairs.csv", "s3://bucket/pairs.csv"])
def test_an_address_is_not_taken_for_a_path(source):
    with pytest.raises(BadInput, match="an address is not read here; download it"):
        read_texts(source)


def test_keys_of_a_large_object_are_counted_once(tmp_path):
    path = tmp_path / "wide.jsonl"
    keys = ", ".join(f'"{number}": 0' for number in range(50_000))
    path.write_text(f'{{"text": "a", "0": 1, {keys}}}', encoding="utf-8")
    assert read_texts(str(path), "text") == ["a"]
    with pytest.raises(BadInput, match="row 1: '0' stands twice in one object"):
        read_texts(str(path), "0")


def test_a_link_to_nowhere_is_called_one(tmp_path):
    path = tmp_path / "pairs.csv"
    path.symlink_to("gone.csv")
    with pytest.raises(BadInput, match=r"a link to gone\.csv, which is not there"):
        read_texts(str(path))


def test_lines_that_end_in_a_carriage_return_alone_are_not_one_text(tmp_path):
    path = tmp_path / "old mac.txt"
    path.write_bytes(b"a\rb\rc")
    with pytest.raises(BadInput, match=r"its lines end in \\r alone; save it with \\n"):
        read_texts(str(path))
    path.write_bytes(b"a\rb\nc\n")
    assert read_texts(str(path)) == ["a\rb", "c"]


class TestTextFiles:
    """.txt: a text a line, for embed, trim and index-quality."""

    @pytest.mark.parametrize("reader", [embed, trim, index_quality], ids=lambda reader: reader.__name__)
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"a b\nc d\n", RIGHT),
            (b"a b\r\nc d", RIGHT),
            (codecs.BOM_UTF8 + b"a b\nc d", RIGHT),
            ("a b\nc d".encode("utf-16"), RIGHT),
            ("a\u2028b\x0cc\x85d\x1ce\rf\nc d\n".encode(), ["a\u2028b\x0cc\x85d\x1ce\rf", "c d"]),
            (b"", "is empty"),
            ("경력".encode("cp949"), "is not UTF-8"),
            (b"a\0b\n", "row 1: text holds a NUL character"),
        ],
    )
    def test_lines(self, reader, content, expected, tmp_path):
        path = tmp_path / "t.txt"
        path.write_bytes(content)
        if isinstance(expected, str):
            assert expected in said(reader, path, tmp_path)
        else:
            assert reader(path, tmp_path) == expected

    def test_an_empty_line_is_an_empty_text_where_lines_are_counted(self, tmp_path):
        path = tmp_path / "t.txt"
        path.write_text("a b\n\nc d\n")
        assert embed(path, tmp_path) == ["a b", "", "c d"]
        assert trim(path, tmp_path) == index_quality(path, tmp_path) == RIGHT
        path.write_text("\n \n")
        assert "is empty" in said(embed, path, tmp_path)

    def test_gzip(self, tmp_path):
        path = tmp_path / "t.txt.gz"
        path.write_bytes(gzip.compress(b"a b\nc d\n"))
        assert embed(path, tmp_path) == RIGHT


class TestLabels:
    @pytest.mark.parametrize(
        "value", ["NaN", "Infinity", "-Infinity", '"1_0"', '"１"', "1e999", "[1]", "{}", "null", '""']
    )
    def test_that_are_no_numbers(self, tmp_path, value):
        path = tmp_path / "p.jsonl"
        path.write_text(json.dumps(A) + f'\n{{"text": "c", "label": {value}}}')
        assert "row 2: label" in said(recipe, path, tmp_path)
        assert "is not a number" in said(recipe, path, tmp_path)

    def test_numbers_are_numbers(self, tmp_path):
        path = tmp_path / "p.jsonl"
        path.write_bytes(
            jsonl(*(f'{{"text": "a", "label": {label}}}' for label in ("0", "1", "0.5", "1e0", "true", '"1"')))
        )
        pairs = read_pairs(str(path), Columns(query="text", document="text"))
        assert pairs.labels.tolist() == [0.0, 1.0, 0.5, 1.0, 1.0, 1.0]

    def test_a_late_half_in_a_large_file(self, tmp_path):
        path = tmp_path / "p.jsonl"
        long = "x" * 1000
        with path.open("w") as file:
            file.writelines(json.dumps({"text": f"{long}{i}", "label": i % 2, "id": 7}) + "\n" for i in range(12_000))
            file.write(json.dumps({"text": "last", "label": 0.5, "id": "x7"}))
        assert path.stat().st_size > 10 << 20
        assert read_pairs(str(path), Columns(query="text", document="text")).labels[-1] == 0.5


SUFFIXES = [".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt", ".csv.gz", ".jsonl.gz"]
PIECES = [
    b"text",
    b",",
    b"\t",
    b"\n",
    b"\r\n",
    b"\r",
    b'"',
    b'""',
    b"label",
    b"1",
    b"\0",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    "경력".encode(),
    "경력".encode("cp949"),
    b"{",
    b"}",
    b"[",
    b"]",
    b'{"text": "a"}',
    b'"text": ',
    b"\\ud800",
    b"NaN",
    b"1e999",
    b"null",
    b"PAR1",
    b"\x1f\x8b",
    gzip.compress(b"text\na\n"),
    parquet(["a"])[:200],
    b"\xe2\x80\xa8",
    b"\x1c",
]


@given(
    content=st.binary(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join),
    suffix=st.sampled_from(SUFFIXES),
)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_any_bytes_are_rows_or_bad_input(content, suffix, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    path.write_bytes(content)
    for read in (lambda: read_texts(str(path), "text"), lambda: read_columns(str(path), ["text", "label"])):
        try:
            rows = read()
        except BadInput as error:
            assert "\n" not in str(error)
        else:
            assert len(rows) > 0


@given(
    rows=st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=10),
    suffix=st.sampled_from([".csv", ".jsonl", ".parquet"]),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_a_writer_wrote_is_read_as_it_was(rows, suffix, tmp_path_factory):
    rows = [tuple(value.encode("utf-8", "ignore").decode() for value in row) for row in rows]
    path = tmp_path_factory.getbasetemp() / f"whole{suffix}"
    if suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerows([("text", "label"), *rows])
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in rows), encoding="utf-8")
    else:
        pa.parquet.write_table(pa.table({"text": [a for a, _ in rows], "label": [b for _, b in rows]}), path)
    table = read_columns(str(path), ["text", "label"])
    assert list(zip(table["text"], table["label"], strict=True)) == rows


PAGE = ROOT / "docs" / "explanations" / "readers.md"
ODDITIES = {
    "a null.jsonl": jsonl(A, {**C, "text": None}, C),
    "a missing key.jsonl": jsonl(A, {"label": 1}, C),
    "a null.parquet": parquet(["a b", None, "c d"]),
    "an empty text.tsv": b"text\tlabel\na b\t1\n\t0\nc d\t0\n",
    "a zero-width space alone.tsv": "text\tlabel\na b\t1\n\u200b\t0\nc d\t0\n".encode(),
}
HEAD = """# What every reader makes of odd inputs

One door reads the texts of all commands (`distill/data/tables.py`), so an odd file is read the same, or refused with the same
words, by each of them. This page is made by `python -m tests.unit.test_readers` from the data of that test, which also
checks that the page is up to date. The column is `text`; what is refused is refused in one line that ends with exit code 2.

- *recipe*: `data.train` · *score*: `distill score` and `benchmark` · *embed*: `distill embed` · *prepare*: `distill prepare --blind`
- *trim*: `distill trim --texts` · *index-quality*: its corpus · *sets*: `data.unlabelled`, `data.parallel`, texts of a vocabulary

`=` reads the same texts, or refuses with the same reason, as the recipe does. `copied`: prepare keeps a value in which
nothing stands, because its copy has the rows of its source. `left out`: of a set of texts it is no member, and is counted.
"""
SHOWN = {
    "recipe": recipe,
    "score": score,
    "embed": embed,
    "prepare": prepare,
    "trim": trim,
    "index-quality": index_quality,
    "sets": unlabelled,
}


def outcome(reader, name, content, folder):
    """What a reader returns for an input: the texts, or what it says without the file's name."""
    path = folder / name
    path.write_bytes(content)
    try:
        return reader(path, folder)
    except BadInput as error:
        said = str(error).replace(f"{path}: ", "").replace(f"{path} ", "").replace(str(path), "it")
        # recipe and score name the row in a list of rows, prepare stops at the first
        said = re.sub(r"^\d+ of \d+ rows cannot be used \((.*?)(; row .*)?\); mend.*$", r"\1", said)
        return (
            said.replace(f"{folder}/", "")
            .replace("row 1: text", "text")
            .replace(": text ", " text ")
            .removeprefix("row 1 ")
        )
    finally:
        path.unlink()
        (folder / f"out{''.join(path.suffixes[-2:])}").unlink(missing_ok=True)


def cell(reader, own, first):
    """How a reader's outcome differs from the recipe's."""
    if isinstance(own, str) and isinstance(first, str):
        one, other = (re.sub(r"^(row \d+:? )?|; set .*$", "", said) for said in (own, first))
        if one.startswith(".txt, "):
            return "= (.txt is read, too)"
        return "=" if one == other else f"refused: {own}"
    if own == first:
        return "="
    if isinstance(own, str):
        return f"refused: {own}"
    return "copied" if reader is prepare else "left out" if own == RIGHT else repr(own)


def page(folder):
    """The page's text."""
    lines = [HEAD, f"| input | {' | '.join(SHOWN)} |", f"|---|{'---|' * len(SHOWN)}"]
    inputs = {name: content for name, (content, _) in INPUTS.items()} | ODDITIES
    for name, content in inputs.items():
        first, *others = (outcome(reader, name, content, folder) for reader in SHOWN.values())
        shown = f"refused: {first}" if isinstance(first, str) else "reads " + ", ".join(map(ascii, first))
        cells = [cell(reader, own, first) for reader, own in zip(list(SHOWN.values())[1:], others, strict=True)]
        row = " | ".join([f"`{name}`", " ".join(shown.replace("|", "\\|").replace("<", "&lt;").split())[:160], *cells])
        lines.append(f"| {row} |")
    return "\n".join(lines) + "\n"


def test_the_page_of_all_readers_is_up_to_date(tmp_path):
    assert PAGE.read_text(encoding="utf-8") == page(tmp_path), "python -m tests.unit.test_readers writes it"


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(page(Path(folder)), encoding="utf-8")
