"""Read rows of texts in parallel from files that need not fit on one machine, with the same rules as on one machine.

    .csv .tsv .jsonl .json .txt   by `distill.data.table_rows`; each may be .gz
    .parquet .arrow .feather      by pyarrow

A task reads a file in batches of rows and passes each batch on at once. The results are tables of the wanted columns,
with the columns `_path` (the file), `_row` (the row's number in it) and `_problem` (the row and why it cannot be used, or
null). Columns that are only kept are strings if the format has no types (all formats except Parquet and Arrow).
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet

from distill.data.table_rows import delimited_rows, json_rows, text_rows
from distill.data.tables import as_text, column_values, held_name, is_gap, named_key, text_problem
from distill.errors import BadInput
from distill.ray.storage import Place, files_below, place_at

__all__ = [
    "BATCH",
    "PATH",
    "PROBLEM",
    "ROW",
    "Source",
    "as_value",
    "find_source",
    "from_value",
    "read_batches",
    "rows_of_file",
]

BATCH, PATH, PROBLEM, ROW = "_batch", "_path", "_problem", "_row"
_FORMS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".txt": "txt",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_SHOWN = 3
_MOST_FOOTERS = 200  # if there are more files, they are not opened for the number of rows


@dataclass(frozen=True)
class Source:
    """Files of one format, and the columns that are read.

    :param address: the path or address of the files
    :param form: the format, such as csv
    :param texts: the columns with texts
    :param kept: the columns that are copied to the output
    """

    address: str
    files: tuple[Place, ...]
    form: str
    texts: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        return list(dict.fromkeys((*self.texts, *self.kept)))


def find_source(address: str, texts: Sequence[str], kept: Sequence[str] | None, *, section: str) -> Source:
    """Find a file, or all files below a folder, and check that the first file has the columns.

    :param kept: columns to copy to the output; None copies the texts
    :param section: the setting that names the columns, for the message about a missing column
    :raises BadInput: if there is no file, formats are mixed or not supported, or a column is missing
    """
    place = place_at(address)
    files = files_below(place)
    if not files:
        raise BadInput(f"{address}: no such file, and no folder that holds one")
    forms = {_form(file) for file in files}
    if len(forms) > 1:
        raise BadInput(
            f"{address} holds files of several forms ({', '.join(sorted(forms))}); name a folder of one form"
        )
    form = forms.pop()
    if form == "txt" and kept:
        raise BadInput(f"{address} has one text a line and no columns; leave --keep out")
    text_columns = ("text",) if form == "txt" else tuple(texts)
    source = Source(str(place), tuple(files), form, text_columns, text_columns if kept is None else tuple(kept))
    for name in dict.fromkeys((*source.texts, *source.kept)):
        held_name(files[0], name, _columns_of(files[0], form), section if name in source.texts else "--keep")
        if name.startswith("_"):
            raise BadInput(f"column {name!r}: a name that begins with _ is taken by the job; rename it")
    return source


def _form(file: Place) -> str:
    suffixes = PurePosixPath(file.path.removesuffix(".gz")).suffixes
    form = _FORMS.get(suffixes[-1].lower() if suffixes else "")
    if form is None or (form in ("parquet", "arrow") and file.suffix == ".gz"):
        raise BadInput(f"{file}: {', '.join(_FORMS)} are read (those of text also as .gz)")
    return form


def _columns_of(file: Place, form: str) -> list[str]:
    """Return the names of a file's columns; for JSON, those of its first rows."""
    if form == "txt":
        return ["text"]
    if form in ("csv", "tsv"):
        return delimited_rows(file, form)[0]
    if form == "jsonl":
        return list(dict.fromkeys(key for _, row in islice(json_rows(file), _SHOWN) for key in row))
    try:
        with file.open() as raw:
            schema = pyarrow.parquet.read_schema(raw) if form == "parquet" else pa.ipc.open_file(raw).schema
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(file, form, error) from None
    if len({unicodedata.normalize("NFC", name) for name in schema.names}) != len(schema.names):
        raise BadInput(f"{file} must name each column once, it names {str(schema.names)[:200]}")
    return list(schema.names)


def _unreadable(file: Place, form: str, error: Exception) -> BadInput:
    return BadInput(f"{file} cannot be read as {form.upper()}: {' '.join(str(error).split())[:300]}")


def read_batches(source: Source, n_rows: int, n_tasks: int) -> tuple[Any, int]:
    """Return a Ray dataset of batches of a source's rows, and the number of rows; 0 if it is not known yet.

    Each batch is a single value of the column `_batch`. However Ray splits the data into blocks, the same files
    therefore give the same batches.

    :param n_rows: rows of a batch; the last batch of a file may have fewer
    :param n_tasks: number of files that are read at the same time. Reading reserves no CPUs, because the actors may
        hold all of them and wait for rows.
    """
    import ray.data

    items = [{"path": file.path} for file in source.files]
    batches = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _batches_of_paths,
        batch_size=1,
        fn_kwargs={"source": replace(source, files=source.files[:1]), "n_rows": n_rows},  # each task gets a copy
        num_cpus=0,
        compute=ray.data.TaskPoolStrategy(size=min(n_tasks, len(items))),
    )
    return batches, _rows_in(source)


def _rows_in(source: Source) -> int:
    """Return the number of rows in the footers of Parquet files; 0 for other formats or too many files."""
    if source.form != "parquet" or len(source.files) > _MOST_FOOTERS:
        return 0
    n_rows = 0
    for file in source.files:
        try:
            with file.open() as raw:
                n_rows += pyarrow.parquet.read_metadata(raw).num_rows
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _unreadable(file, "parquet", error) from None
    return n_rows


def _batches_of_paths(batch: Mapping[str, Any], source: Source, n_rows: int) -> Iterator[pa.Table]:
    for path in batch["path"].tolist():
        for table in rows_of_file(source, replace(source.files[0], path=path), n_rows):
            yield pa.table({BATCH: pa.array([as_value(table)], pa.large_binary())})


def as_value(table: pa.Table) -> bytes:
    """Return a table as bytes, for one value of a column."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_value(batch: bytes) -> pa.Table:
    """Return the table from the bytes that `as_value` returned."""
    with pa.ipc.open_stream(batch) as reader:
        return reader.read_all()


def rows_of_file(source: Source, file: Place, n_rows: int) -> Iterator[pa.Table]:
    """Yield the rows of a file, `n_rows` at a time.

    :raises BadInput: if the file does not have the format, is damaged or lacks a column
    """
    start = 0
    for columns in _columns_in_parts(file, source, n_rows):
        if source.form == "jsonl":
            columns = {name: values if name in source.texts else _written(values) for name, values in columns.items()}
        checked = _checked(columns, source.texts, str(file), start)
        yield checked
        start += len(checked)


def _columns_in_parts(file: Place, source: Source, n_rows: int) -> Iterator[dict[str, Any]]:
    form, names = source.form, source.columns
    if form in ("parquet", "arrow"):
        yield from _typed_parts(file, source, n_rows)
        return
    if form == "txt":
        rows: Iterable[tuple[Any, ...]] = ((text,) for text in text_rows(file))
    elif form == "jsonl":
        rows = (tuple(row.get(named_key(name, row) or name) for name in names) for _, row in json_rows(file))
    else:
        header, raw_rows = delimited_rows(file, form)
        places = [header.index(held_name(file, name, header, "the columns")) for name in names]
        rows = (tuple(row[place] for place in places) for row in raw_rows)
    remaining = iter(rows)
    while part := list(islice(remaining, n_rows)):
        yield dict(zip(names, map(list, zip(*part, strict=True)), strict=True))


def _typed_parts(file: Place, source: Source, n_rows: int) -> Iterator[dict[str, Any]]:
    names = _columns_of(file, source.form)
    held_names = {name: held_name(file, name, names, "the columns") for name in source.columns}
    try:
        with file.open() as raw:
            for batch in _record_batches(raw, source.form, list(held_names.values()), n_rows):
                yield {name: batch.column(batch.schema.get_field_index(place)) for name, place in held_names.items()}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(file, source.form, error) from None


def _record_batches(raw: IO[bytes], form: str, column_names: list[str], n_rows: int) -> Iterator[pa.RecordBatch]:
    if form == "parquet":
        yield from pyarrow.parquet.ParquetFile(raw).iter_batches(batch_size=n_rows, columns=column_names)
        return
    with pa.ipc.open_file(raw) as reader:
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            yield from (batch.slice(start, n_rows) for start in range(0, len(batch), n_rows))


def _written(values: Sequence[Any]) -> list[str | None]:
    """Return JSON values as strings: strings and numbers as they are, other values as JSON; null becomes None."""
    plain = (str, int, float)
    return [
        None if value is None else as_text(value) if isinstance(value, plain) else json.dumps(value, ensure_ascii=False)
        for value in values
    ]


def _checked(columns: Mapping[str, Any], texts: Sequence[str], path: str, start: int) -> pa.Table:
    """Return rows as a table of their columns, `_path`, `_row` and `_problem`.

    :param columns: values of each column, as a list or an Arrow column
    :param start: number of earlier rows of the file
    """
    problems: dict[int, str] = {}
    arrays: dict[str, Any] = {}
    for name, values in columns.items():
        raw_values = (
            values if isinstance(values, list) else column_values(path, name, values) if name in texts else None
        )
        if raw_values is None:
            arrays[name] = values
            continue
        found = {
            i: problem for i, value in enumerate(raw_values) if (problem := _problem(value, name in texts)) is not None
        }
        problems |= {i: f"row {start + i + 1}: {name} {problem}" for i, problem in found.items()}
        strings = (None if value is None or i in found else as_text(value) for i, value in enumerate(raw_values))
        arrays[name] = pa.array(strings, pa.string())
    n_rows = len(next(iter(columns.values())))
    arrays[PATH] = pa.array([path] * n_rows, pa.string())
    arrays[ROW] = pa.array(range(start + 1, start + n_rows + 1), pa.int64())
    arrays[PROBLEM] = pa.array([problems.get(i) for i in range(n_rows)], pa.string())
    return pa.table(arrays)


def _problem(value: Any, is_text: bool) -> str | None:
    return None if not is_text and is_gap(value) else text_problem(value)
