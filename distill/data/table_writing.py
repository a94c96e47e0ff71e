r"""Writes the tables of all commands: the suffix of the output decides its form.

    .csv      commas; double quotes around what needs them
    .tsv      tabs, no quotes; tabs, line breaks and backslashes of a text as \t, \n, \r, \\
    .jsonl    an object a line
    .parquet  typed columns

The first three also as .gz. A stream (a terminal, a pipe, /dev/stdout) has no suffix and gets a .tsv. Another suffix is
refused before any work: a file that is not what its name says is misread later.
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
_ROWS_AT_ONCE = 10_000  # of Parquet
_DIGITS = 6  # of a number with a fraction, in the forms that are text


def check_form(target: Path) -> str:
    """Return the form of a table that is to be written: csv, tsv, jsonl or parquet.

    :raises BadInput: for a suffix that stands for none of them
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
    """Check the suffix of an output that has one form only.

    :param what: what is written, for the message
    :raises BadInput: for another suffix
    """
    if target.suffix.lower() != suffix and not is_stream(target):
        raise BadInput(f"{target}: {what} is written as {suffix}, not as {target.suffix or 'a file without suffix'}")


@contextmanager
def opened(path: Path) -> Iterator[IO[str]]:
    """Open a file for text in UTF-8, its line ends as they are written; a .gz is compressed, without a time and a name: equal rows give equal bytes."""
    with path.open("wb") as raw, ExitStack() as stack:
        packed: Any = raw
        if path.suffix == ".gz":
            packed = stack.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0))
        yield stack.enter_context(TextIOWrapper(packed, encoding="utf-8", newline=""))


@contextmanager
def table_writer(path: Path, columns: Mapping[str, type]) -> Iterator[Callable[[TableRow], None]]:
    """Yield a function that writes a row, with a value for each column.

    :param path: what `distill.files.outputs.output_file` yields; its suffix is that of the output
    :param columns: int, float or str by name
    """
    with _FORM_WRITERS[check_form(path)](path, columns) as write:
        yield write


def csv_rows(file: IO[str]) -> Callable[[Sequence[str]], None]:
    """Return a function that writes a row of a CSV, with double quotes around what needs them."""
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)  # before 3.13 a lone \r was left bare

    def write(row: Sequence[str]) -> None:
        (quoted if any("\r" in value for value in row) else plain).writerow(row)

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
            arrays = [pyarrow.array(each, field.type) for each, field in zip(values, schema, strict=True)]
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
