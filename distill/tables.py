"""The one door for tables and texts: every reader of this toolkit finds, decodes, parses and checks its files here.

    recipe data · score · embed · prepare · trim --texts · index-quality · unlabelled and parallel texts
      ──▶ locate ──▶ read_columns ──▶ values as written ──▶ as_text: a text, or why it is none

What a text is: a string that is not blank, or a number, as it is written in the file ("007", "1e5"; of Parquet, which
keeps no spelling, the shortest one). Lists, objects, bools, bytes and dates are no texts; Python's form of them is never
taken for one. A null and a missing key are an empty text, which is refused with its row or, where only the set of texts
counts, left out and counted.
"""

import difflib
import logging
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from distill.errors import BadInput
from distill.table_rows import RepeatedKeys, delimited_rows, json_rows, text_lines

__all__ = [
    "Table", "as_text", "column_values", "locate", "parquet_batches", "read_columns", "read_text_columns", "read_texts", "refused_rows",
    "text_problem",
]  # fmt: skip

log = logging.getLogger(__name__)
_FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
_HUB_NAME = re.compile(r"[A-Za-z\d][\w.-]{0,95}/[A-Za-z\d][\w.-]{0,95}")
_ROWS_AT_ONCE = 10_000  # of Parquet
_SHOWN_ROWS, _SHOWN_VALUE, _SHOWN_NAMES = 5, 60, 3
_BLANK = " \t\r\n\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\u200b\u200c\u200d\u2060\ufeff\u00ad"


@dataclass(frozen=True)
class Table:
    """A file that can be read, and its format: csv, tsv, jsonl, parquet or txt."""

    path: Path
    format: str


# --- finding ----------------------------------------------------------------------------------------------------------


def locate(source: str, *, texts: bool = False) -> Table | None:
    """Return the file that a name is, or None where it can only be a hub dataset's.

    The name is taken by the letter: no pattern, no home folder.

    :param texts: whether a .txt of one text a line is accepted, too
    :raises BadInput: where nothing is there, or it is a folder, a pipe, a device, empty, or of another format
    """
    path = Path(source)
    found = _status(source)
    suffix = next((s for s in reversed(path.suffixes) if s != ".gz"), "")
    kinds = _FORMATS | ({".txt": "txt"} if texts else {})
    if found is None:
        if suffix not in kinds and _HUB_NAME.fullmatch(source):
            return None
        raise BadInput(f"{source}: no such file{_near(path)}")
    if stat.S_ISDIR(found.st_mode):
        raise BadInput(f"{source} is a folder; name a .csv, .tsv, .jsonl or .parquet file in it")
    if not stat.S_ISREG(found.st_mode):
        raise BadInput(f"{source} is a pipe or a device, not a file; write what it holds to a file first")
    if suffix not in kinds or (suffix == ".parquet" and path.suffix == ".gz"):
        what = "".join(path.suffixes[-2:]) if suffix == ".parquet" else suffix
        lists = ".txt, .csv, .tsv, .jsonl and .parquet are read (all but .parquet also as .gz)"
        tables = ".csv, .tsv, .jsonl and .parquet are read (.csv, .tsv and .jsonl also as .gz)"
        raise BadInput(f"{source}: {lists if texts else tables}, not {what or 'a file without suffix'}")
    if found.st_size == 0:
        raise BadInput(f"{source} is empty")
    return Table(path, kinds[suffix])


def _status(source: str) -> os.stat_result | None:
    try:
        return Path(source).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # a name too long, one with a NUL, a folder that may not be entered
        raise BadInput(f"{source[:_SHOWN_VALUE]} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _near(path: Path) -> str:
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        return f"; there is no folder {path.parent}"
    near = difflib.get_close_matches(path.name, names, n=_SHOWN_NAMES, cutoff=0.5)
    return f"; near it: {', '.join(near)}" if near else ""


# --- columns ----------------------------------------------------------------------------------------------------------


def read_columns(
    source: str, names: Sequence[str], *, hub_split: str = "train", section: str = "columns"
) -> dict[str, list[Any]]:
    """Read columns of a file or hub dataset, as they are written: strings, None where nothing stands, else what JSON or Parquet holds.

    No other column is looked at. A .csv is read with double quotes as quotes, a .tsv without any.

    :param section: what to set where a column is missing, for the message
    :raises BadInput: naming the file, and the row where there is one
    """
    table = locate(source)
    names = list(dict.fromkeys(names))
    if table is None:
        return _hub_columns(source, names, hub_split, section)
    read = {"jsonl": _json_columns, "parquet": _parquet_columns}.get(table.format, _delimited_columns)
    columns = read(table, names, section)
    if not columns[names[0]]:
        raise BadInput(f"{source} has a header and no rows")
    return columns


def _missing(source: Any, name: str, has: Sequence[str], section: str) -> BadInput:
    return BadInput(f"{source} has no column {name!r}; it has {', '.join(map(str, has))}; set {section}")


def _check_names(source: Any, names: Sequence[str], has: Sequence[str], section: str) -> None:
    if missing := [name for name in names if name not in has]:
        raise _missing(source, missing[0], has, section)


def _delimited_columns(table: Table, names: Sequence[str], section: str) -> dict[str, list[Any]]:
    header, rows = delimited_rows(table.path, table.format)
    _check_names(table.path, names, header, section)
    places, columns = [header.index(name) for name in names], [list[Any]() for _ in names]
    taken = [(place, column.append) for place, column in zip(places, columns, strict=True)]
    for row in rows:
        for place, append in taken:
            append(row[place])
    return dict(zip(names, columns, strict=True))


def _json_columns(table: Table, names: Sequence[str], section: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in names}
    met: dict[str, None] = {}
    for number, (_, row) in enumerate(json_rows(table.path), start=1):
        if isinstance(row, RepeatedKeys) and (twice := row.names.intersection(names)):
            raise BadInput(f"{table.path} row {number}: {min(twice)!r} stands twice in one object")
        if len(met) < len(names) or number <= _SHOWN_ROWS:
            met |= dict.fromkeys(row) if number <= _SHOWN_ROWS else dict.fromkeys(set(names).intersection(row))
        for name, values in columns.items():
            values.append(row.get(name))
    if columns[names[0]]:
        _check_names(table.path, names, list(met), section)
    return columns


def _parquet_columns(table: Table, names: Sequence[str], section: str) -> dict[str, list[Any]]:
    _, batches = parquet_batches(table.path, _ROWS_AT_ONCE, names, section)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for batch in batches:
        for name, values in columns.items():
            values += column_values(table.path, name, batch.column(batch.schema.get_field_index(name)))
    return columns


def parquet_batches(
    path: Path, n_rows: int, names: Sequence[str] | None = None, section: str = "columns"
) -> tuple[Any, Iterator[Any]]:
    """Return the schema of a Parquet file, and its rows (of the named columns, or of all) as record batches.

    :raises BadInput: where it is no Parquet file, is damaged, or lacks a column
    """
    import pyarrow
    import pyarrow.parquet

    def batches() -> Iterator[Any]:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                yield from file.iter_batches(batch_size=n_rows, columns=None if names is None else list(names))
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise _no_parquet(path, error) from None

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _no_parquet(path, error) from None
    if len(set(schema.names)) != len(schema.names):
        raise BadInput(f"{path} must name each column once, it names {str(schema.names)[:200]}")
    _check_names(path, names or (), schema.names, section)
    return schema, batches()


def _no_parquet(path: Path, error: Exception) -> BadInput:
    return BadInput(f"{path} cannot be read as PARQUET: {' '.join(str(error).split())[:300]}")


def column_values(path: Path, name: str, column: Any) -> list[Any]:
    """Return the values of an Arrow column.

    :raises BadInput: of dates and times, which are no texts, and of strings that are not UTF-8
    """
    import pyarrow

    if pyarrow.types.is_temporal(column.type) and column.null_count < len(column):
        raise BadInput(f"{path}: {name} is of type {column.type}; write dates as the text that they should be")
    try:
        values: list[Any] = column.to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise _no_parquet(path, error) from None
    return values


def _hub_columns(name: str, names: Sequence[str], split: str, section: str) -> dict[str, list[Any]]:
    import datasets

    datasets.disable_progress_bars()
    try:
        dataset: Any = datasets.load_dataset(name, split=split)
    except Exception as error:  # network, name and split errors come in many types
        raise BadInput(
            f"{name} is no file here, and as a hub dataset it cannot be loaded: {_innermost(error)}"
        ) from None
    _check_names(name, names, dataset.column_names, section)
    return {column: dataset[column][:] for column in names}


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__


# --- texts ------------------------------------------------------------------------------------------------------------


def as_text(value: Any) -> str:
    """Return a value that `text_problem` accepts as a text, in the spelling that it has in the file.

    >>> as_text("007"), as_text(7), as_text(1.5)
    ('007', '7', '1.5')
    """
    return value if isinstance(value, str) else str(value)


def text_problem(value: Any) -> str | None:
    """Return why a value is no text, or None.

    >>> text_problem("a"), text_problem(7), text_problem(None), text_problem(["a"])
    (None, None, 'is empty', "is no text: a text is expected, got ['a'] (list)")
    """
    if isinstance(value, str):
        return _string_problem(value)
    if value is None:
        return "is empty"
    if isinstance(value, int | Decimal | float) and not isinstance(value, bool) and math.isfinite(value):
        return None
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN_VALUE else shown[:_SHOWN_VALUE] + "…"
    return f"is no text: a text is expected, got {' '.join(shown.split())} ({type(value).__name__})"


def _string_problem(text: str) -> str | None:
    if not text.strip(_BLANK):
        return "is empty"
    if "\0" in text:
        return "holds a NUL character, which no text has"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return f"holds half a surrogate pair (\\u{ord(text[error.start]):04x}), which is no character"
    return None


def refused_rows(source: str, n_rows: int, problems: Mapping[int, str], *, what: str = "row", advice: str) -> BadInput:
    """Return the error that names the first rows that cannot be used."""
    shown = "; ".join(f"{what} {i + 1}: {problems[i]}" for i in sorted(problems)[:_SHOWN_ROWS])
    more = f"; and {len(problems) - _SHOWN_ROWS} more" if len(problems) > _SHOWN_ROWS else ""
    return BadInput(f"{source}: {len(problems)} of {n_rows} {what}s cannot be used ({shown}{more}); {advice}")


def read_text_columns(
    source: str, names: Sequence[str], *, gaps: bool = False, hub_split: str = "train", section: str = "columns"
) -> dict[str, list[str]]:
    """Read columns of texts.

    :param gaps: an empty value, a null or a missing key becomes ""; else it is refused as what is no text always is
    :raises BadInput: naming the rows
    """
    table = read_columns(source, names, hub_split=hub_split, section=section)
    return {name: _checked(source, name, values, gaps) for name, values in table.items()}


def _checked(source: str, name: str, values: Sequence[Any], gaps: bool, what: str = "row") -> list[str]:
    texts, problems = [""] * len(values), dict[int, str]()
    for i, value in enumerate(values):
        problem = text_problem(value)
        if problem is None:
            texts[i] = as_text(value)
        elif not (gaps and problem == "is empty"):
            problems[i] = f"{name} {problem}"
    if problems:
        raise refused_rows(source, len(values), problems, what=what, advice="mend or remove them")
    return texts


def read_texts(source: str, column: str = "text", *, section: str = "--column", gaps: bool = False) -> list[str]:
    r"""Read the lines of a .txt file, split at \n and \r\n alone, or a column of a table.

    :param gaps: leave the empty lines of a .txt out; else they are empty texts, so that lines keep their numbers. Either is
        counted in the log. A table's empty values are refused.
    :raises BadInput: naming the line or row that is no text
    """
    table = locate(source, texts=True)
    if table is None or table.format != "txt":
        return read_text_columns(source, [column], section=section)[column]
    lines = [line.removesuffix("\n").removesuffix("\r") for line in text_lines(table.path)]
    kept = [line for line in lines if line.strip(_BLANK)]
    if len(kept) < len(lines):
        log.warning(
            "%s: %d of %d lines are empty%s", source, len(lines) - len(kept), len(lines), " and left out" * gaps
        )
    if not kept:
        raise BadInput(f"{source} is empty")
    return _checked(source, "text", kept if gaps else lines, gaps=True)
