r"""Rows of a table file, one at a time and as they are written: the one place that decodes and parses tables.

    .csv    double quotes are quotes; a line break of any kind within them is kept
    .tsv    no quotes; lines end only in \n or \r\n, so that a value may hold a single \r
    .jsonl  one object per line; .json also: one array of objects
    .txt    one text per line; lines end only in \n or \r\n (a form feed or U+2028 is part of a text)

Each may be gzipped. The encoding is UTF-8, with or without a byte order mark, or UTF-16 with one.
"""

import csv
import gzip
import json
import logging
import re
import unicodedata
import zlib
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator
from io import TextIOWrapper
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import IO, Any, Literal, Protocol

from distill.errors import BadInput
from distill.wording import counted

__all__ = [
    "RepeatedKeys",
    "TableFile",
    "delimited_rows",
    "is_array",
    "json_rows",
    "text_lines",
    "text_rows",
    "with_value",
]

log = logging.getLogger(__name__)
EMPTY_LINES = "%s: %s left out, row numbers do not count them"
_MAX_CELL = 2**31 - 1  # the default limit of csv is 128 KiB per value
_SHOWN = 200
_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_OTHER_FILES = {
    b"\x1f\x8b": "gzipped; name it with .gz at its end",
    b"PK\x03\x04": "a ZIP or Excel file; save it as text",
    b"PAR1": "a Parquet file; name it .parquet",
}


class RepeatedKeys(dict[str, Any]):
    """A JSON object with repeated keys; `names` holds them."""

    names: frozenset[str] = frozenset()


class TableFile(Protocol):
    """The interface of a file to read: a `pathlib.Path`, or a file of another filesystem. Messages show its str()."""

    @property
    def name(self) -> str:
        """The last part of the path."""

    @property
    def suffix(self) -> str:
        """The end of the name, from the last dot."""

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """Open the file for reading bytes."""


def text_lines(path: TableFile, *, newline: str = "\n") -> Iterator[str]:
    r"""Yield the lines of a file with their line ends.

    :param newline: "\n" if only that ends a line, or "" for any of \n, \r\n and \r
    :raises BadInput: if the file has another encoding, is no text, or is a damaged .gz
    """
    encoding = "UTF-8"
    try:
        with path.open("rb") as raw, _unpacked(path, raw) as file:
            encoding = _encoding(path, file)
        with path.open("rb") as raw, TextIOWrapper(_unpacked(path, raw), encoding, newline=newline) as lines:
            yield from lines
    except UnicodeError:
        problem = _not_utf8(path) if encoding == "utf-8-sig" else None
        raise BadInput(problem or _not_decoded(path, encoding)) from None
    except EOFError:
        raise BadInput(f"{path} cannot be read: it ends early; it was cut off, copy it again") from None
    except (OSError, zlib.error) as error:
        raise BadInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def text_rows(path: TableFile) -> Iterator[str]:
    r"""Yield the texts of a .txt: its lines without their line ends.

    :raises BadInput: if the lines end in \r alone, because they would be read as one text
    """
    for number, line in enumerate(text_lines(path)):
        if number == 0 and "\r" in line and not line.endswith("\n"):
            raise BadInput(f"{path}: its lines end in \\r alone; save it with \\n")
        yield line.removesuffix("\n").removesuffix("\r")


def _unpacked(path: TableFile, raw: IO[bytes]) -> Any:
    return gzip.open(raw) if path.suffix == ".gz" else raw


def _encoding(path: TableFile, raw: IO[bytes]) -> str:
    head = raw.read(4)
    for mark, description in _OTHER_FILES.items():
        if head.startswith(mark):
            raise BadInput(f"{path} is {description}")
    return next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), "utf-8-sig")


def _not_utf8(path: TableFile) -> str | None:
    """Return where a file stops being UTF-8, and what to do; None if it is UTF-8 when read again."""
    where, is_utf8_elsewhere, is_cp949 = "", False, True
    with path.open("rb") as raw, _unpacked(path, raw) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode("utf-8")
                is_utf8_elsewhere |= not line.removeprefix(BOM_UTF8).isascii()
                continue
            except UnicodeDecodeError as error:
                where = where or f"byte {error.start + 1} of line {number} (0x{line[error.start]:02x})"
            is_cp949 = is_cp949 and _decodes(line, "cp949")
    if not where:
        return None
    if is_cp949 and not is_utf8_elsewhere:
        advice = "save it as UTF-8 (Korean files are often CP949): iconv -f cp949 -t utf-8"
        return f"{path} is not UTF-8; {advice}; it ceases to be at {where}"
    return f"{path} is not UTF-8 at {where}; mend it there, or save the file as UTF-8"


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _not_decoded(path: TableFile, encoding: str) -> str:
    return f"{path} is not {encoding.upper()}, whatever its first bytes say; save it as UTF-8"


# --- CSV and TSV ------------------------------------------------------------------------------------------------------


def delimited_rows(path: TableFile, file_format: str) -> tuple[list[str], Iterator[list[str]]]:
    """Return the header of a .csv or .tsv and its rows, each with a value for every column.

    Empty lines are no rows, and are counted in the log; in a file with one column an empty line is an empty value,
    unless no row follows. A name may be empty, of several columns too: an index of pandas, empty columns of a
    spreadsheet. Nobody can ask for such a column.

    :raises BadInput: if the header names no column or one twice; naming a row that has more or fewer values than the
        header has columns
    """
    rows = _csv_rows(path) if file_format == "csv" else _tsv_rows(path)
    header = next(rows, None)
    if header is None:
        raise BadInput(f"{path} is empty")
    if not header:
        raise BadInput(f"{path}: the first line must name the columns, it is empty")
    if any("\0" in name for name in header):
        raise BadInput(f"{path} holds NUL bytes: it is no text, or UTF-16 without its mark; save it as UTF-8")
    names = [unicodedata.normalize("NFC", name) for name in header if name]
    if not names:
        raise BadInput(f"{path}: the first line must name the columns, all of its names are empty")
    if len(set(names)) != len(names):
        raise BadInput(f"{path}: the first line must name each column once, it is {str(header)[:_SHOWN]}")
    if file_format == "tsv" and "\r" in "".join(header):
        raise BadInput(f"{path}: its lines end in \\r alone; save it with \\n")
    return header, _whole_rows(path, header, rows, file_format)


def _whole_rows(path: TableFile, header: list[str], rows: Iterator[list[str]], file_format: str) -> Iterator[list[str]]:
    number = n_empty = pending = 0
    n_columns = len(header)
    for row in rows:
        if not row:
            pending += 1
            continue
        if n_columns == 1:
            yield from ([""] for _ in range(pending))
            number += pending
        else:
            n_empty += pending
        pending = 0
        number += 1
        if len(row) != n_columns:
            values_text, columns_text = counted(len(row), "value"), counted(n_columns, "column")
            raise BadInput(f"{path} row {number}: {values_text} under {columns_text}; {_ADVICE[file_format]}")
        yield row
    n_empty += pending  # at the end of a file they are no values, even of one column
    if n_empty:
        log.warning(EMPTY_LINES, path, counted(n_empty, "empty line"))


_ADVICE = {
    "csv": 'a text with a comma, a quote or a line break in it stands in double quotes, a quote in it as ""',
    "tsv": "a text holds no tab and no line break",
}


def _csv_rows(path: TableFile) -> Iterator[list[str]]:
    csv.field_size_limit(_MAX_CELL)
    reader = csv.reader(text_lines(path, newline=""), strict=True)
    began = 1  # the line where the next row begins
    try:
        for row in reader:
            began = reader.line_num + 1
            yield row
    except csv.Error as error:
        message = f"{path} line {reader.line_num} is no CSV: {error}"
        if reader.line_num > began:  # only a value in quotes goes over several lines
            message += f"; the row of line {began} opens a quote that is not closed"
        raise BadInput(message) from None


def _tsv_rows(path: TableFile) -> Iterator[list[str]]:
    for line in text_lines(path):
        content = line.removesuffix("\n").removesuffix("\r")
        yield content.split("\t") if content else []


# --- JSON -------------------------------------------------------------------------------------------------------------


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    repeated = RepeatedKeys(row)
    counts = Counter(name for name, _ in pairs)
    repeated.names = frozenset(name for name, n in counts.items() if n > 1)
    return repeated


# numbers keep their spelling; NaN and infinities, which JSON does not allow, become floats and are refused as values
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=str, parse_float=str, parse_constant=float)


def is_array(path: TableFile) -> bool:
    """Return whether a .json holds one array of objects, rather than one object per line."""
    if not path.name.removesuffix(".gz").lower().endswith(".json"):
        return False
    first = next((line.lstrip() for line in text_lines(path) if line.strip()), "")
    return first.startswith("[")


def json_rows(path: TableFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each object as written and as parsed, with its numbers as strings.

    :raises BadInput: naming a line that is not an object
    """
    if is_array(path):
        yield from _array_rows(path, "".join(text_lines(path)))
        return
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        row = _parsed(path, line, f"line {number}")
        if not isinstance(row, dict):
            raise BadInput(f"{path} cannot be read as JSON: line {number} is {_kind(row)}; each line must be an object")
        yield line.strip(), row


def _array_rows(path: TableFile, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = _parsed(path, text, "it")
    position = text.index("[") + 1
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise BadInput(f"{path} cannot be read as JSON: row {number} is {_kind(row)}; each must be an object")
        position = text.index("{", position)
        _, end = _DECODER.raw_decode(text, position)
        yield text[position:end], row
        position = end


def with_value(line: str, key: str, text: str) -> str:
    """Return the text of an object with another string under one of its keys.

    >>> with_value('{"n": 1e5, "a": "b"}', "a", "c")
    '{"n": 1e5, "a": "c"}'
    """
    position = line.index("{") + 1
    while True:
        name, position = scanstring(line, line.index('"', position) + 1, True)
        position = _NOT_BLANK.search(line, line.index(":", position) + 1).start()  # type: ignore[union-attr]
        _, end = _DECODER.raw_decode(line, position)
        if name == key:
            return line[:position] + json.dumps(text, ensure_ascii=False) + line[end:]
        position = end


_NOT_BLANK = re.compile(r"[^ \t\r\n]")


def _parsed(path: TableFile, text: str, where: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos + 1}"
    except RecursionError:
        reason = "it is nested too deeply"
    raise BadInput(f"{path} cannot be read as JSON: {where} is no JSON object: {reason}")


def _kind(value: Any) -> str:
    return "null" if value is None else "a number" if isinstance(value, float) else type(value).__name__
