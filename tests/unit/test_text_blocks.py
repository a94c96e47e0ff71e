"""Texts read a block at a time are those that are read whole."""

import json
import logging

import pyarrow
import pyarrow.parquet
import pytest

from distill.data import tables
from distill.data.tables import read_texts
from distill.data.text_blocks import TextReader
from distill.errors import BadInput

TEXTS = ["하나", "two", "3", "NaN", "다섯"]


def written(path, values):
    """Write texts to a table or a .txt; "" is an empty value."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": values}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": value}) + "\n" for value in values), encoding="utf-8")
    else:
        header = ["text"] if path.suffix == ".csv" else []
        path.write_text("".join(f"{value}\n" for value in [*header, *values]), encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 2)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".txt"])
def test_blocks_are_the_texts(tmp_path, suffix):
    source = written(tmp_path / f"texts{suffix}", TEXTS)
    checked = TextReader(source).checked()
    assert list(checked.blocks()) == [TEXTS[:2], TEXTS[2:4], TEXTS[4:]]
    assert len(checked) == 5 and read_texts(source) == TEXTS


def test_empty_lines_keep_their_numbers_and_are_counted(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    checked = TextReader(written(tmp_path / "texts.txt", ["", "a", "\u200b", "b"])).checked()
    assert [text for block in checked.blocks() for text in block] == ["", "a", "", "b"]
    assert "of 4 lines, 2 show no character; kept as empty texts" in caplog.text


def test_a_column_of_lines_is_refused(tmp_path):
    source = written(tmp_path / "texts.txt", TEXTS)
    for read in (lambda: read_texts(source, "resume", gaps=True), lambda: TextReader(source, "resume").checked()):
        with pytest.raises(
            BadInput, match="texts.txt is one text a line and has no column 'resume'; leave --column out"
        ):
            read()


def test_rows_that_are_no_texts_are_named_over_all_blocks(tmp_path):
    source = written(tmp_path / "texts.csv", ["a", '""', "c", "d", "\u200b"])
    with pytest.raises(BadInput, match="2 of 5 rows cannot be used .row 2: text is empty; row 5: text holds only inv"):
        TextReader(source).checked()


@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_a_file_without_a_text_is_refused(tmp_path, suffix):
    with pytest.raises(BadInput, match="is empty|cannot be used"):
        TextReader(written(tmp_path / f"texts{suffix}", [" ", "\u200b"])).checked()


@pytest.mark.parametrize("later", [TEXTS[:4], TEXTS[:3], [*TEXTS, "six"], ["eins", *TEXTS[1:]]])
def test_a_file_that_changes_meanwhile_is_refused(tmp_path, later):
    checked = TextReader(written(tmp_path / "texts.txt", TEXTS)).checked()
    written(tmp_path / "texts.txt", later)
    with pytest.raises(BadInput, match="changed while it was read"):
        list(checked.blocks())
