"""Read columns and texts of files: all commands and recipes find their files and check their values only here.

Rows, encodings and headers are those of `distill.data.table_rows`.

    recipe data · score · embed · prepare · trim --texts · index-quality · unlabelled and parallel texts
      ──▶ locate ──▶ read_columns ──▶ values as written ──▶ as_text: a text, or the reason why it is none

A text is a string with a visible character, or a number in the spelling of the file ("007", "1e5"; Parquet keeps no
spelling, so the shortest one is used). The words "NaN", "None" and "null" are texts like any other word: a missing
value is an empty value, a null or a missing key. Lists, objects, bools, bytes, dates and the number NaN are no texts;
their Python representation is never used as one. Values that are missing, empty or hold only invisible characters are
refused with their row number, or left out and counted if only the set of texts matters.

Column names are compared in NFC: macOS and some exporters write "이력서" as separate letters.
"""

import difflib
import logging
import math
import os
import re
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from distill.data.public_sets import advice_for
from distill.data.table_rows import EMPTY_LINES, RepeatedKeys, delimited_rows, json_rows, text_rows
from distill.errors import BadInput
from distill.wording import printable

__all__ = [
    "Table",
    "as_text",
    "column_blocks",
    "column_values",
    "count_gaps",
    "first_names",
    "held_name",
    "is_gap",
    "is_no_text",
    "line_blocks",
    "locate",
    "named_key",
    "parquet_batches",
    "read_columns",
    "read_text_columns",
    "read_texts",
    "refuse_column",
    "refused_rows",
    "shown_value",
    "text_problem",
    "texts_of",
    "unchanged",
]

log = logging.getLogger(__name__)
Block = TypeVar("Block")
_FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
_HUB_NAME = re.compile(r"[A-Za-z\d][\w.-]{0,95}/[A-Za-z\d][\w.-]{0,95}")
_ROWS_AT_ONCE = 10_000
_SHOWN_ROWS, _SHOWN_VALUE, _SHOWN_NAMES, _SHOWN_COLUMNS = 5, 60, 3, 30
_SEPARATORS = {
    "\t": "tabs: name the file .tsv",
    ";": "semicolons: save it with commas",
    "|": "bars: save it with commas",
    ",": "commas: name the file .csv",
}
_EMPTY, _INVISIBLE = "is empty", "holds only invisible characters"
# a character that shows something: not white space, not a control character, not default-ignorable in Unicode
_VISIBLE = re.compile(
    "[^\\s\\x00-\\x1f\\x7f-\\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True)
class Table:
    """A file that can be read, and its format: csv, tsv, jsonl, parquet or txt."""

    path: Path
    format: str


# --- finding ----------------------------------------------------------------------------------------------------------


def locate(source: str, *, texts: bool = False) -> Table | None:
    """Return the file of this name, or None if the name can only be a hub dataset's.

    The name is taken literally: no glob pattern, no home folder.

    :param texts: whether a .txt with one text per line is accepted too
    :raises BadInput: if the file is missing, or is a folder, a pipe, a device, empty, or of another format
    """
    path = Path(source)
    found = _status(source)
    suffix = next((s for s in reversed(path.suffixes) if s != ".gz"), "").lower()
    kinds = _FORMATS | ({".txt": "txt"} if texts else {})
    if found is None:
        if suffix not in kinds and _HUB_NAME.fullmatch(source):
            return None
        if "://" in source:
            raise BadInput(f"{source}: an address is not read here; download it, and name the file")
        if path.is_symlink():
            raise BadInput(f"{source}: a link to {os.readlink(path)}, which is not there")
        raise BadInput(f"{source}: no such file{advice_for(path) or _near(path)}")
    if stat.S_ISDIR(found.st_mode):
        raise BadInput(f"{source} is a folder; name a .csv, .tsv, .jsonl or .parquet file in it")
    if not stat.S_ISREG(found.st_mode):
        raise BadInput(f"{source} is a pipe or a device, not a file; write what it holds to a file first")
    if suffix not in kinds or (suffix == ".parquet" and path.suffix == ".gz"):
        format_name = "".join(path.suffixes[-2:]) if suffix == ".parquet" else suffix
        accepted_with_texts = ".txt, .csv, .tsv, .jsonl and .parquet are read (all but .parquet also as .gz)"
        accepted_tables = ".csv, .tsv, .jsonl and .parquet are read (.csv, .tsv and .jsonl also as .gz)"
        raise BadInput(
            f"{source}: {accepted_with_texts if texts else accepted_tables}, not {format_name or 'a file without suffix'}"
        )
    if found.st_size == 0:
        raise BadInput(f"{source} is empty")
    return Table(path, kinds[suffix])


def _status(source: str) -> os.stat_result | None:
    try:
        return Path(source).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # a name too long, one with a NUL, a folder without permission
        raise BadInput(f"{source[:_SHOWN_VALUE]} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _near(path: Path) -> str:
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        return f"; there is no folder {path.parent}"
    if not path.name.startswith("."):
        names = [name for name in names if not name.startswith(".")]  # such as our own half-written files
    names = [name for name in names if (path.parent / name).is_file()]
    by_stem = defaultdict[str, list[str]](list)  # what short names share in a suffix makes none of them near
    for name in names:
        by_stem[name.partition(".")[0]].append(name)
    near_stems = difflib.get_close_matches(path.name.partition(".")[0], by_stem, n=_SHOWN_NAMES, cutoff=0.7)
    near_names = [name for stem in near_stems for name in by_stem[stem]][:_SHOWN_NAMES]
    return f"; near it: {', '.join(near_names)}" if near_names else ""


# --- columns ----------------------------------------------------------------------------------------------------------


def read_columns(
    source: str, names: Sequence[str], *, hub_split: str = "train", section: str = "columns"
) -> dict[str, list[Any]]:
    """Read columns of a file or hub dataset with the values as written.

    Values are strings, None if missing, or other objects of JSON or Parquet.

    No other column is read. In a .csv double quotes are quotes, in a .tsv they are not.

    :param section: the option to set if a column is missing, for the message
    :raises BadInput: naming the file, and the row if there is one
    """
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for block in column_blocks(source, names, hub_split=hub_split, section=section):
        for name, values in block.items():
            columns[name] += values
    return columns


def column_blocks(
    source: str, names: Sequence[str], *, hub_split: str = "train", section: str = "columns"
) -> Iterator[dict[str, list[Any]]]:
    """Yield what `read_columns` returns, 10,000 rows at a time, so that only one block is in memory.

    :raises BadInput: as `read_columns`; for a .jsonl that lacks a column, only after its last row
    """
    table, names = locate(source), list(dict.fromkeys(names))
    if table is None:
        blocks = _hub_blocks(source, names, hub_split, section)
    else:
        read_blocks = {"jsonl": _json_blocks, "parquet": _parquet_blocks}.get(table.format, _delimited_blocks)
        blocks = read_blocks(table, names, section)
    n_rows = 0
    for block in blocks:
        n_rows += len(block[names[0]])
        yield block
    if not n_rows:
        raise BadInput(f"{source} has a header and no rows")


def first_names(source: str) -> list[str]:
    """Return the columns of a .csv or .tsv, or the keys of the first row of a .jsonl; [] of anything else."""
    table = locate(source)
    if table is None or table.format == "parquet":
        return []
    if table.format == "jsonl":
        return list(next(json_rows(table.path), ("", {}))[1])
    return delimited_rows(table.path, table.format)[0]


def line_blocks(table: Table) -> Iterator[list[str]]:
    r"""Yield the lines of a .txt, split only at \n and \r\n, 10,000 at a time.

    :raises BadInput: if its lines end in \r alone
    """
    lines = text_rows(table.path)
    while block := list(islice(lines, _ROWS_AT_ONCE)):
        yield block


def _missing(source: Any, name: str, names: Sequence[str], section: str) -> BadInput:
    shown = [_shown_name(str(column)) for column in names[:_SHOWN_COLUMNS]]
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    advice = f"set {section}"
    if len(names) == 1 and (separator := next((one for one in _SEPARATORS if one in str(names[0])), None)):
        advice = f"its columns are separated by {_SEPARATORS[separator]}"
    return BadInput(f"{source} has no column {name!r}; it has {', '.join(shown)}{more}; {advice}")


def _shown_name(name: str) -> str:
    """Return a column's name for a message: in quotes if it has unusual blanks or invisible characters."""
    is_plain = name.isprintable() and name == " ".join(name.split())
    shown = name if is_plain else f"'{printable(name)}'"
    return shown if len(shown) <= _SHOWN_VALUE else f"{shown[:_SHOWN_VALUE]}…"


def held_name(source: Any, name: str, has: Sequence[str], section: str) -> str:
    """Return a column's name in the spelling of the source. Columns whose name is empty are not looked at.

    :param section: the option to set if the column is missing, for the message
    :raises BadInput: if the column is missing; the message names the columns that exist
    """
    names = [column for column in has if column]
    found = named_key(name, names)
    if found is None:
        raise _missing(source, name, names, section)
    return found


def named_key(name: str, keys: Iterable[str]) -> str | None:
    r"""Return the key with this name, spelled exactly or else equal in NFC; None if there is none.

    >>> named_key("\uc774\ub984", ["\u110b\u1175\u1105\u1173\u11b7", "id"]) == "\u110b\u1175\u1105\u1173\u11b7"
    True
    """
    if name in keys:
        return name
    normalized = unicodedata.normalize("NFC", name)
    return next((key for key in keys if unicodedata.normalize("NFC", str(key)) == normalized), None)


def _delimited_blocks(table: Table, names: Sequence[str], section: str) -> Iterator[dict[str, list[Any]]]:
    header, rows = delimited_rows(table.path, table.format)
    places = [header.index(held_name(table.path, name, header, section)) for name in names]
    while block_rows := list(islice(rows, _ROWS_AT_ONCE)):
        yield {name: [row[place] for row in block_rows] for name, place in zip(names, places, strict=True)}


def _json_blocks(table: Table, names: Sequence[str], section: str) -> Iterator[dict[str, list[Any]]]:
    shown_keys, found_names = dict[str, None](), set[str]()
    numbered, number = enumerate(json_rows(table.path), start=1), 0
    while block_rows := list(islice(numbered, _ROWS_AT_ONCE)):
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for number, (_, row) in block_rows:
            keys = {name: name if name in row else named_key(name, row) for name in names}
            if isinstance(row, RepeatedKeys) and (repeated := row.names.intersection(filter(None, keys.values()))):
                raise BadInput(f"{table.path} row {number}: {min(repeated)!r} stands twice in one object")
            if number <= _SHOWN_ROWS:
                shown_keys |= dict.fromkeys(row)
            if len(found_names) < len(names):  # a key may come late
                found_names |= {name for name, key in keys.items() if key is not None}
            for name, values in columns.items():
                key = keys[name]
                values.append(None if key is None else row[key])
        yield columns
    if number and (missing := [name for name in names if name not in found_names]):
        raise _missing(table.path, missing[0], list(shown_keys), section)


def _parquet_blocks(table: Table, names: Sequence[str], section: str) -> Iterator[dict[str, list[Any]]]:
    _, batches = parquet_batches(table.path, _ROWS_AT_ONCE, names, section)
    for batch in batches:
        places = {name: held_name(table.path, name, batch.schema.names, section) for name in names}
        columns = {
            name: batch.column(batch.schema.get_field_index(stored_name)) for name, stored_name in places.items()
        }
        yield {name: column_values(table.path, name, column) for name, column in columns.items()}


def parquet_batches(
    path: Path, n_rows: int, names: Sequence[str] | None = None, section: str = "columns"
) -> tuple[Any, Iterator[Any]]:
    """Return the schema of a Parquet file, and its rows as record batches (of the named columns, or of all).

    :raises BadInput: if the file is not Parquet, is damaged, or lacks a column
    """
    import pyarrow
    import pyarrow.parquet

    stored_names: list[str] | None = None

    def batches() -> Iterator[Any]:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                yield from file.iter_batches(batch_size=n_rows, columns=stored_names)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise _no_parquet(path, error) from None

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _no_parquet(path, error) from None
    if len({unicodedata.normalize("NFC", name) for name in schema.names}) != len(schema.names):
        raise BadInput(f"{path} must name each column once, it names {str(schema.names)[:200]}")
    if names is not None:
        stored_names = [held_name(path, name, schema.names, section) for name in names]
    return schema, batches()


def _no_parquet(path: Path | str, error: Exception) -> BadInput:
    return BadInput(f"{path} cannot be read as PARQUET: {' '.join(str(error).split())[:300]}")


def column_values(path: Path | str, name: str, column: Any) -> list[Any]:
    """Return the values of an Arrow column; floats of 16 or 32 bits as the shortest number that stands for them.

    :raises BadInput: for dates and times, which are no texts, and for strings that are not UTF-8
    """
    import pyarrow

    if pyarrow.types.is_temporal(column.type) and column.null_count < len(column):
        raise BadInput(f"{path}: {name} is of type {column.type}; write dates as the text that they should be")
    try:
        values: list[Any] = column.to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise _no_parquet(path, error) from None
    if pyarrow.types.is_float32(column.type) or pyarrow.types.is_float16(column.type):
        short = column.type.to_pandas_dtype()  # 0.1 in 32 bits is 0.10000000149011612 in 64
        return [None if value is None else float(str(short(value))) for value in values]
    return values


def _hub_blocks(name: str, names: Sequence[str], split: str, section: str) -> Iterator[dict[str, list[Any]]]:
    import datasets

    datasets.disable_progress_bars()
    try:
        dataset: Any = datasets.load_dataset(name, split=split)
    except Exception as error:  # network, name and split errors come in many types
        raise BadInput(
            f"{name} is no file here, and as a hub dataset it cannot be loaded: {_innermost(error)}"
        ) from None
    spellings = {column: held_name(name, column, dataset.column_names, section) for column in names}
    # a row decodes all its columns, images too
    dataset = dataset.select_columns(list(dict.fromkeys(spellings.values()))).with_format("arrow")
    for start in range(0, len(dataset), _ROWS_AT_ONCE):
        rows = dataset[start : start + _ROWS_AT_ONCE]
        yield {column: column_values(name, column, rows.column(spellings[column])) for column in names}


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__


# --- texts ------------------------------------------------------------------------------------------------------------


def as_text(value: Any) -> str:
    """Return a value that `text_problem` accepts as a text, in the spelling of the file.

    >>> as_text("007"), as_text(7), as_text(1.5)
    ('007', '7', '1.5')
    """
    return value if isinstance(value, str) else str(value)


def text_problem(value: Any) -> str | None:
    """Return why a value is not a text, or None if it is one.

    >>> text_problem("a"), text_problem(7), text_problem(None), text_problem(["a"])
    (None, None, 'is empty', "is no text: a text is expected, got ['a'] (list)")
    >>> text_problem("NaN"), text_problem("\u200b"), text_problem(float("nan"))
    (None, 'holds only invisible characters', 'is no text: a text is expected, got nan (float)')
    """
    if isinstance(value, str):
        return _string_problem(value)
    if value is None:
        return _EMPTY
    if isinstance(value, int | Decimal | float) and not isinstance(value, bool) and math.isfinite(value):
        return None
    return f"is no text: a text is expected, got {shown_value(value)} ({type(value).__name__})"


def shown_value(value: Any) -> str:
    """Return a value for a message: in one line, and only its beginning.

    >>> shown_value("a b"), len(shown_value("x" * 1000))
    ("'a b'", 61)
    """
    shown = repr(value)
    return " ".join((shown if len(shown) <= _SHOWN_VALUE else shown[:_SHOWN_VALUE] + "…").split())


def is_gap(value: Any) -> bool:
    """Return whether a value is missing: None, an empty string, or a string without a visible character.

    >>> is_gap(None), is_gap(" \u200b"), is_gap("nan")
    (True, True, False)
    """
    return value is None or (isinstance(value, str) and "\0" not in value and _VISIBLE.search(value) is None)


def is_no_text(text: str) -> bool:
    """Return whether a string is what files are refused for: empty, only invisible characters, NUL, or half a surrogate pair."""
    return _string_problem(text) is not None


def _string_problem(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL character, which no text has"
    if _VISIBLE.search(text) is None:
        return _INVISIBLE if text.strip() else _EMPTY
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return f"holds half a surrogate pair (\\u{ord(text[error.start]):04x}), which is no character"
    return None


def refused_rows(source: str, n_rows: int, problems: Mapping[int, str], *, what: str = "row", advice: str) -> BadInput:
    """Return the error that names the first unusable rows."""
    shown = "; ".join(f"{what} {i + 1}: {problems[i]}" for i in sorted(problems)[:_SHOWN_ROWS])
    more = f"; and {len(problems) - _SHOWN_ROWS} more" if len(problems) > _SHOWN_ROWS else ""
    return BadInput(f"{source}: {len(problems)} of {n_rows} {what}s cannot be used ({shown}{more}); {advice}")


def read_text_columns(
    source: str, names: Sequence[str], *, gaps: bool = False, hub_split: str = "train", section: str = "columns"
) -> dict[str, list[str]]:
    """Read columns of texts.

    :param gaps: an empty value, a null or a missing key becomes ""; otherwise it is refused, like any other non-text
    :raises BadInput: naming the rows
    """
    table = read_columns(source, names, hub_split=hub_split, section=section)
    return {name: _checked(source, name, values, gaps) for name, values in table.items()}


def _checked(source: str, name: str, values: Sequence[Any], gaps: bool, what: str = "row") -> list[str]:
    texts, problems = texts_of(values, name, gaps=gaps)
    if problems:
        raise refused_rows(source, len(values), problems, what=what, advice="mend or remove them")
    return texts


def texts_of(values: Sequence[Any], name: str, *, gaps: bool) -> tuple[list[str], dict[int, str]]:
    """Return the values of a column as texts, and the problems of those that are no texts, by row from 0.

    :param gaps: missing values become ""; otherwise they are problems too
    """
    texts, problems = [""] * len(values), dict[int, str]()
    for i, value in enumerate(values):
        problem = text_problem(value)
        if problem is None:
            texts[i] = as_text(value)
        elif not (gaps and is_gap(value)):
            problems[i] = f"{name} {problem}"
    return texts, problems


def read_texts(source: str, column: str = "text", *, section: str = "--column", gaps: bool = False) -> list[str]:
    r"""Read the lines of a .txt file, split only at \n and \r\n, or a column of a table.

    :param gaps: leave out the lines of a .txt without a visible character; otherwise they become empty texts, so that
        lines keep their numbers. Either is counted in the log. A table's empty values are refused.
    :raises BadInput: naming the line or row that is no text, or if lines end in \r alone, or a .txt is to have a column
    """
    table = locate(source, texts=True)
    if table is None or table.format != "txt":
        return read_text_columns(source, [column], section=section)[column]
    refuse_column(source, column, section)
    lines = list(text_rows(table.path))
    kept = [line for line in lines if not is_gap(line)]
    count_gaps(source, len(lines), len(lines) - len(kept), left_out=gaps)
    return _checked(source, "text", kept if gaps else lines, gaps=True)


def refuse_column(source: str, column: str, section: str) -> None:
    """Refuse the name of a column of a .txt, which has none; "text" stands for no name.

    :raises BadInput: naming it
    """
    if column != "text":
        raise BadInput(f"{source} is one text a line and has no column {column!r}; leave {section} out")


def count_gaps(source: str, n_lines: int, n_gaps: int, *, left_out: bool) -> None:
    """Log how many lines of a .txt have no visible character.

    :param left_out: whether these lines are left out, or kept as empty texts
    :raises BadInput: if no line has a visible character
    """
    if n_gaps == n_lines:
        raise BadInput(f"{source} is empty: none of its lines holds a text")
    if n_gaps:
        what = "left out" if left_out else "kept as empty texts, so that lines keep their numbers"
        log.warning("%s: of %d lines, %d show no character; %s", source, n_lines, n_gaps, what)


@contextmanager
def _empty_lines_said_before() -> Iterator[None]:
    """While this lasts, empty lines are not counted in the log: the first reading has done so."""
    rows_log = logging.getLogger(delimited_rows.__module__)

    def is_news(record: logging.LogRecord) -> bool:
        return record.msg != EMPTY_LINES

    rows_log.addFilter(is_news)
    try:
        yield
    finally:
        rows_log.removeFilter(is_news)


def unchanged(
    source: str, blocks: Iterable[Block], digests: Sequence[str], digest_of: Callable[[Block], str]
) -> Iterator[Block]:
    """Yield the blocks of a source and check that they have not changed.

    :param digests: digests of the blocks from the first reading
    :raises BadInput: at the first block that has changed, or if there are more or fewer blocks
    """
    n_blocks, error = 0, BadInput(f"{source} changed while it was read; run the command again")
    with _empty_lines_said_before():
        for n_blocks, block in enumerate(blocks, start=1):
            if n_blocks > len(digests) or digest_of(block) != digests[n_blocks - 1]:
                raise error
            yield block
    if n_blocks != len(digests):
        raise error
