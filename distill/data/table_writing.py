r"""Writes the tables of all commands: the suffix of the output determines its format.

    .csv      commas; double quotes around values that need them
    .tsv      tabs, no quotes; tabs, line breaks and backslashes in a text are written as \t, \n, \r, \\
    .jsonl    one object per line
    .parquet  typed columns

The first three may also be .gz. A stream (a terminal, a pipe, /dev/stdout) has no suffix and gets a .tsv. Any
other suffix is refused before any work, because a file with a wrong suffix is misread later.
"""

import csv
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

from distill.errors import BadInput
from distill.files.outputs import is_stream

__all__ = ["FORMS", "check_form", "check_suffix", "csv_rows", "opened", "table_writer"]

FORMS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet"}
TableRow = Sequence[Any]
_ROWS_AT_ONCE = 10_000  # rows of Parquet
_DIGITS = 6  # decimals of a float, in the text formats


def check_form(target: Path) -> str:
    """Return the format of a table to write: csv, tsv, jsonl or parquet.

    :raises BadInput: for any other suffix
    """
    if is_stream(target):
        return "tsv"
    packed = target.suffix == ".gz"
    suffix = Path(target.stem).suffix if packed else target.suffix
    form = FORMS.get(suffix.lower())
    if form is None or (packed and form == "parquet"):
        raise BadInput(
            f"{target}: a table is written as .csv, .tsv, .jsonl (each also .gz) or .parquet, not as "
            f"{''.join(target.suffixes[-1 - packed :]) or 'a file without suffix'}"
        )
    return form


def check_suffix(target: Path, suffix: str, what: str) -> None:
    """Check the suffix of an output that has only one format.

    :param what: what is written, for the message
    :raises BadInput: for another suffix
    """
    if target.suffix.lower() != suffix and not is_stream(target):
        raise BadInput(f"{target}: {what} is written as {suffix}, not as {target.suffix or 'a file without suffix'}")


@contextmanager
def opened(path: Path) -> Iterator[IO[str]]:
    """Open a file for writing UTF-8 text, without translating line ends; a .gz is compressed.

    The .gz stores no time and no name, so that equal rows give equal bytes.
    """
    with path.open("wb") as raw, ExitStack() as stack:
        stream: Any = raw
        if path.suffix == ".gz":
            stream = stack.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0))
        yield stack.enter_context(TextIOWrapper(stream, encoding="utf-8", newline=""))


@contextmanager
def table_writer(path: Path, columns: Mapping[str, type]) -> Iterator[Callable[[TableRow], None]]:
    """Yield a function that writes a row, with a value for each column.

    :param path: a path from `distill.files.outputs.output_file`; its suffix is that of the output
    :param columns: int, float or str by name
    """
    with _FORM_WRITERS[check_form(path)](path, columns) as write:
        yield write


def csv_rows(file: IO[str]) -> Callable[[Sequence[str]], None]:
    """Return a function that writes a row of a CSV, with double quotes around values that need them."""
    plain_writer = csv.writer(file, lineterminator="\n")
    # before Python 3.13 a lone \r was not quoted
    quoting_writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(row: Sequence[str]) -> None:
        (quoting_writer if any("\r" in value for value in row) else plain_writer).writerow(row)

    return write


@contextmanager
def _csv_writer(path: Path, columns: Mapping[str, type]) -> Iterator[Callable[[TableRow], None]]:
    with opened(path) as file:
        write = csv_rows(file)
        write(list(columns))
        yield lambda row: write([_shown(value) for value in row])


@contextmanager
def _tsv_writer(path: Path, columns: Mapping[str, type]) -> Iterator[Callable[[TableRow], None]]:
    with opened(path) as file:
        file.write("\t".join(columns) + "\n")
        yield lambda row: print(*(_escaped(_shown(value)) for value in row), sep="\t", end="\n", file=file)


@contextmanager
def _jsonl_writer(path: Path, columns: Mapping[str, type]) -> Iterator[Callable[[TableRow], None]]:
    with opened(path) as file:

        def write(row: TableRow) -> None:
            values = (round(value, _DIGITS) if isinstance(value, float) else value for value in row)
            record = dict(zip(columns, values, strict=True))
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")

        yield write


@contextmanager
def _parquet_writer(path: Path, columns: Mapping[str, type]) -> Iterator[Callable[[TableRow], None]]:
    import pyarrow
    import pyarrow.parquet

    types = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    rows: list[TableRow] = []
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            values = zip(*rows, strict=True) if rows else ([] for _ in columns)
            arrays = [pyarrow.array(column, field.type) for column, field in zip(values, schema, strict=True)]
            writer.write_batch(pyarrow.RecordBatch.from_arrays(arrays, schema=schema))
            rows.clear()

        def write(row: TableRow) -> None:
            rows.append(row)
            if len(rows) == _ROWS_AT_ONCE:
                flush()

        yield write
        flush()


def _shown(value: Any) -> str:
    return f"{value:.{_DIGITS}f}" if isinstance(value, float) else str(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\r", "\\r").replace("\n", "\\n")


_FORM_WRITERS = {"csv": _csv_writer, "tsv": _tsv_writer, "jsonl": _jsonl_writer, "parquet": _parquet_writer}
