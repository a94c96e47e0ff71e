"""Prepare the résumés of a table: take out who a person is, keep the wanted sections, list what went.

Rows are read, changed and written one by one, so that a file of any size fits in memory, and every other column comes
out as it went in: the readers of :mod:`distill.data` would hold the whole table and guess the types of JSON values.
"""

import csv
import gzip
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from distill.blinding import blind as blind_text
from distill.errors import BadInput
from distill.outputs import is_stream, output_file
from distill.sections import KINDS, Kind, keep_sections

__all__ = ["Prepared", "prepare_file"]

log = logging.getLogger(__name__)
_FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
_ROWS_AT_ONCE = 10_000  # of Parquet
_MAX_CELL = 2**31 - 1  # csv refuses values of more than 128 KiB unless told
Change = Callable[[Any], Any]


@dataclass
class Prepared:
    """What was done: rows read, sections dropped and identifiers removed, and the rows that had no wanted section."""

    n_rows: int = 0
    n_sections: int = 0
    n_identifiers: int = 0
    whole: int = 0

    def __str__(self) -> str:
        return f"{self.n_rows} rows; {self.n_sections} sections dropped, {self.n_identifiers} identifiers removed"


def prepare_file(
    source: str,
    output: Path,
    *,
    column: str,
    keep: Sequence[str] | None = None,
    blind: bool = False,
    dropped: Path | None = None,
    overwrite: bool = False,
) -> Prepared:
    r"""Write a copy of a table in which one column of résumés is cut to sections, blinded, or both.

    :param source: .csv, .tsv, .jsonl or .parquet (the first three also as .gz).
    :param output: a file of the same format; it is there when all is done, or not at all.
    :param column: the column of résumés. An empty or missing value stays as it is.
    :param keep: kinds of section to keep; None keeps all. A résumé that has none of them stays whole and is counted.
    :param blind: whether to take out identifiers; done before sections are cut, so that a name that only the personal
        data tell is found in the rest.
    :param dropped: a TSV of what went: row (from 1), kind, text (tabs, line breaks and backslashes as \t, \n, \\).
    :param overwrite: replace an output that is there already.
    :raises BadInput: on an output that cannot be written, a missing file or column, an empty file, a value that is no text, or nothing to do.
    """
    path = Path(source)
    kinds = _checked_kinds(keep)
    if kinds is None and not blind:
        raise BadInput("there is nothing to do: name sections to keep, or ask for blinding")
    file_format = _checked_format(path)
    if _format(output) != file_format and not is_stream(output):
        raise BadInput(f"{output} is to be of the format of {path}: *{_suffix(path)}, perhaps with .gz")
    targets = [path.resolve(), output.resolve(), *([dropped.resolve()] if dropped else [])]
    if len(set(targets)) < len(targets):
        raise BadInput(f"{' and '.join(map(str, targets))} must be different files")

    done = Prepared()
    with ExitStack() as stack:
        temporary = stack.enter_context(output_file(output, inputs=[path], overwrite=overwrite))
        listing: IO[str] | None = None
        if dropped:
            written = stack.enter_context(output_file(dropped, inputs=[path], overwrite=overwrite))
            listing = stack.enter_context(_opened(written, "wt"))
            listing.write("row\tkind\ttext\n")

        def change(value: Any) -> Any:
            done.n_rows += 1
            return _changed(value, f"{path} row {done.n_rows}: {column}", kinds, blind, listing, done)

        _COPIERS[file_format](path, temporary, column, change)
        if done.n_rows == 0:
            raise BadInput(f"{path} has a header and no rows")
    if done.whole:
        log.warning(
            "%s: %d of %d rows have none of %s and stay whole", path, done.whole, done.n_rows, ", ".join(kinds or ())
        )
    return done


def _checked_kinds(keep: Sequence[str] | None) -> tuple[Kind, ...] | None:
    if keep is None:
        return None
    if unknown := [kind for kind in keep if kind not in KINDS]:
        raise BadInput(f"{unknown[0]!r} is no kind of section; {', '.join(KINDS)} are")
    if not keep:
        raise BadInput(f"no kind of section is to be kept; name some of {', '.join(KINDS)}")
    return cast(tuple[Kind, ...], tuple(keep))


def _suffix(path: Path) -> str:
    return next((suffix for suffix in reversed(path.suffixes) if suffix != ".gz"), "")


def _format(path: Path) -> str | None:
    return _FORMATS.get(_suffix(path))


def _checked_format(path: Path) -> str:
    if path.is_dir():
        raise BadInput(f"{path} is a folder; name a .csv, .tsv, .jsonl or .parquet file in it")
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    file_format = _format(path)
    if file_format is None or (file_format == "parquet" and path.suffix == ".gz"):
        raise BadInput(f"{path}: .csv, .tsv, .jsonl and .parquet are read (.csv, .tsv and .jsonl also as .gz)")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty")
    return file_format


def _changed(
    value: Any, where: str, kinds: tuple[Kind, ...] | None, blind: bool, listing: IO[str] | None, done: Prepared
) -> Any:
    """Return the prepared text, and write down and count what it lost."""
    if value is None or value == "":
        return value
    if not isinstance(value, str):
        raise BadInput(f"{where} is {value!r}, a {type(value).__name__}; a résumé is a text")
    went: list[tuple[str, str]] = []
    if blind:
        blinded = blind_text(value)
        value = blinded.text
        went += [(removed.kind, removed.text) for removed in blinded.removed]
        done.n_identifiers += len(blinded.removed)
    if kinds is not None:
        start = len(went)
        kept = keep_sections(value, kinds)
        went += [(section.kind, value[section.start : section.end].strip()) for section in kept.dropped]
        value = kept.text
        done.n_sections += len(went) - start
        done.whole += not kept.found
    if listing:
        listing.writelines(f"{done.n_rows}\t{kind}\t{_escaped(text)}\n" for kind, text in went)
    return value


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\r", "\\r").replace("\n", "\\n")


# --- one copier per format: source, target, column, change of its values ----------------------------------------------


@contextmanager
def _opened(path: Path, mode: str, *, bom: bool = False) -> Iterator[IO[str]]:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    errors = (
        "strict" if "r" in mode else "backslashreplace"
    )  # half a surrogate pair, as \\ud800 in JSON, goes out as it came
    with opener(path, mode, encoding="utf-8-sig" if bom else "utf-8", errors=errors, newline="") as file:
        yield file


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text with their ends; what cannot be read is said with its file."""
    try:
        with _opened(path, "rt", bom=True) as file:  # spreadsheets put a byte order mark first
            yield from file
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8; save it as UTF-8 (Korean files are often CP949)") from None
    except (OSError, EOFError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None


def _copy_csv(source: Path, target: Path, column: str, change: Change) -> None:
    csv.field_size_limit(_MAX_CELL)
    with _opened(target, "wt") as out:
        rows, plain = _csv_rows(source), csv.writer(out, lineterminator="\n")
        quoted = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)  # before 3.13 a lone \r was left bare
        header = next(rows, [])
        at = _column(source, header, column)
        plain.writerow(header)
        for number, row in enumerate(rows, start=1):
            if not row:
                continue
            if len(row) != len(header):
                raise BadInput(f"{source} row {number}: {len(row)} values under {len(header)} columns")
            row[at] = change(row[at])
            (quoted if any("\r" in value for value in row) else plain).writerow(row)


def _csv_rows(source: Path) -> Iterator[list[str]]:
    reader = csv.reader(_lines(source), strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise BadInput(f"{source} line {reader.line_num} is no CSV: {error}") from None


def _copy_tsv(source: Path, target: Path, column: str, change: Change) -> None:
    """Copy a TSV, which has no quotes: its values hold neither tabs nor line breaks, and a text that got some loses them."""
    with _opened(target, "wt") as out:
        lines = (line.rstrip("\r\n") for line in _lines(source))
        header = next(lines, "").split("\t")
        at = _column(source, header, column)
        out.write("\t".join(header) + "\n")
        for number, line in enumerate(lines, start=1):
            row = line.split("\t")
            if len(row) != len(header):
                raise BadInput(f"{source} row {number}: {len(row)} values under {len(header)} columns")
            row[at] = " ".join(change(row[at]).split("\n"))
            out.write("\t".join(row) + "\n")


def _copy_jsonl(source: Path, target: Path, column: str, change: Change) -> None:
    with _opened(target, "wt") as out:
        for number, line in enumerate(_lines(source), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:  # an integer of 5,000 digits is a ValueError
                raise BadInput(f"{source} line {number} is no JSON object: {error}") from None
            if not isinstance(row, dict):
                raise BadInput(f"{source} line {number} is {type(row).__name__}; each line must be an object")
            if column not in row:
                _column(source, list(row), column)
            row[column] = change(row[column])
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def _copy_parquet(source: Path, target: Path, column: str, change: Change) -> None:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(source)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise BadInput(f"{source} cannot be read as PARQUET: {' '.join(str(error).split())[:300]}") from None
    with table:
        at = _column(source, table.schema_arrow.names, column)
        kind = table.schema_arrow.field(at)
        with pyarrow.parquet.ParquetWriter(target, table.schema_arrow) as writer:
            for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE):
                values = [change(value) for value in batch.column(at).to_pylist()]
                columns = [*batch.columns]
                columns[at] = pyarrow.array(values, type=kind.type)
                writer.write_batch(pyarrow.RecordBatch.from_arrays(columns, schema=table.schema_arrow))


def _column(source: Path, names: Sequence[str], column: str) -> int:
    if column not in names:
        raise BadInput(f"{source} has no column {column!r}; it has {', '.join(names)}; set --column")
    if len(set(names)) != len(names):
        raise BadInput(f"{source}: the first line must name each column once, it is {list(names)}")
    return list(names).index(column)


_COPIERS: dict[str, Callable[[Path, Path, str, Change], None]] = {
    "csv": _copy_csv,
    "tsv": _copy_tsv,
    "jsonl": _copy_jsonl,
    "parquet": _copy_parquet,
}
