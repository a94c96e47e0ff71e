"""The form of a table follows its name, whatever stands in it."""

import csv
import gzip
import json
import os

import pyarrow.parquet
import pytest

from distill.data.table_writing import check_form, check_suffix, table_writer
from distill.errors import BadInput
from distill.files.outputs import output_file
from distill.wording import counted

COLUMNS = {"row": int, "score": float, "text": str}
ROWS = [[1, 0.1234564, 'a "b", c'], [2, -1.0, "tab\there\r\nand \\ there"], [30, 1e-9, "이력서 🏳️‍🌈"], [4, 2.0, "\r"]]


def write(path):
    with output_file(path) as temporary, table_writer(temporary, COLUMNS) as row:
        for values in ROWS:
            row(values)
    return path


def test_csv_is_quoted_where_it_needs_to_be(tmp_path):
    path = write(tmp_path / "x.csv")
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["row", "score", "text"]
    assert [row[2] for row in rows] == [row[2] for row in ROWS]
    assert [row[:2] for row in rows] == [["1", "0.123456"], ["2", "-1.000000"], ["30", "0.000000"], ["4", "2.000000"]]
    assert path.read_bytes().startswith(b'row,score,text\n1,0.123456,"a ""b"", c"\n')


def test_tsv_has_no_quotes_and_a_line_a_row(tmp_path):
    header, *rows = write(tmp_path / "x.tsv").read_bytes().decode().rstrip("\n").split("\n")
    assert header == "row\tscore\ttext"
    assert rows[0] == '1\t0.123456\ta "b", c'
    assert rows[1] == "2\t-1.000000\ttab\\there\\r\\nand \\\\ there"
    assert rows[3] == "4\t2.000000\t\\r"


def test_jsonl_has_numbers_and_texts_as_they_are(tmp_path):
    rows = [json.loads(line) for line in write(tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == {"row": 1, "score": 0.123456, "text": 'a "b", c'}
    assert [row["text"] for row in rows] == [row[2] for row in ROWS]


def test_parquet_is_typed(tmp_path):
    table = pyarrow.parquet.read_table(write(tmp_path / "x.parquet"))
    assert [str(field.type) for field in table.schema] == ["int64", "double", "string"]
    assert table.to_pylist() == [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]


def test_a_table_without_rows_has_its_header(tmp_path):
    for name in ("x.csv", "x.tsv", "x.parquet"):
        with output_file(tmp_path / name) as temporary, table_writer(temporary, COLUMNS):
            pass
    assert (tmp_path / "x.csv").read_text() == "row,score,text\n"
    assert pyarrow.parquet.read_table(tmp_path / "x.parquet").schema.names == list(COLUMNS)


def test_gz_is_compressed(tmp_path):
    assert gzip.decompress(write(tmp_path / "x.csv.gz").read_bytes()) == write(tmp_path / "y.csv").read_bytes()


def test_gz_of_equal_rows_has_equal_bytes_at_any_time_and_under_any_name(tmp_path, monkeypatch):
    first = write(tmp_path / "x.csv.gz").read_bytes()
    monkeypatch.setattr("gzip.time.time", lambda: 10**9)
    assert write(tmp_path / "y.csv.gz").read_bytes() == first


@pytest.mark.parametrize("name", ["x.xlsx", "x", "x.txt", "x.csv.zip", "x.parquet.gz", ".csv", "x.gz", "x.json"])
def test_another_name_is_refused(name, tmp_path):
    with pytest.raises(
        BadInput, match=r"a table is written as .csv, .tsv, .jsonl \(each also .gz\) or .parquet, not as"
    ):
        check_form(tmp_path / name)


def test_a_stream_has_no_name(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    assert check_form(tmp_path / "pipe.csv") == "tsv"
    assert check_form(tmp_path / "x.CSV") == "csv"


def test_an_array_of_embeddings_is_no_table(tmp_path):
    check_suffix(tmp_path / "x.npy", ".npy", "an array of embeddings")
    with pytest.raises(BadInput, match=r"an array of embeddings is written as .npy, not as .csv"):
        check_suffix(tmp_path / "x.csv", ".npy", "an array of embeddings")


def test_one_is_no_plural():
    assert [counted(n, "pair") for n in (0, 1, 2)] == ["0 pairs", "1 pair", "2 pairs"]
