"""Prepare the résumés of a table: remove identifying data, keep the wanted sections, list what was removed.

Rows are read, changed and written one at a time, so that a file of any size fits into memory. Every other column is
copied unchanged, JSON numbers in their spelling. :mod:`distill.data.tables` describes what is read and what is refused.
"""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from distill.data.table_rows import RepeatedKeys, delimited_rows, is_array, json_rows, with_value
from distill.data.table_writing import check_form, csv_rows, opened, table_writer
from distill.data.tables import (
    Table,
    as_text,
    column_values,
    held_name,
    is_gap,
    locate,
    named_key,
    parquet_batches,
    text_problem,
)
from distill.errors import BadInput
from distill.files.outputs import is_stream, output_file
from distill.resumes.blinding import blind as blind_text
from distill.resumes.sections import SECTION_KINDS, SectionKind, keep_sections
from distill.wording import counted

__all__ = ["Preparation", "Prepared", "prepare_file"]

log = logging.getLogger(__name__)
_ROWS_AT_ONCE = 10_000  # rows of Parquet
Change = Callable[[Any], Any]
Listing = Callable[[Sequence[Any]], None]


@dataclass(frozen=True)
class Preparation:
    """How a résumé is prepared: it is cut to sections, identifiers are removed, or both."""

    keep: Sequence[str] | None = None
    """Kinds of section to keep; None keeps all. A résumé without any of them stays whole and is counted."""
    blind: bool = False
    """Whether to remove identifiers. This happens before sections are cut, so that a name that only the personal data
    give is also found in the rest."""

    def check(self) -> None:
        """Raise `BadInput` for an unknown kind of section, or if there is nothing to do."""
        if self.keep is None:
            if not self.blind:
                raise BadInput("there is nothing to do: give --keep SECTIONS or --blind")
            return
        if unknown := [kind for kind in self.keep if kind not in SECTION_KINDS]:
            raise BadInput(f"{unknown[0]!r} is no kind of section; {', '.join(SECTION_KINDS)} are")
        if not self.keep:
            raise BadInput(f"no kind of section is to be kept; name some of {', '.join(SECTION_KINDS)}")


@dataclass
class Prepared:
    """Counts: rows read, sections dropped, identifiers removed, and rows without a wanted section (`whole`)."""

    n_rows: int = 0
    n_sections: int = 0
    n_identifiers: int = 0
    whole: int = 0

    def __str__(self) -> str:
        dropped, removed = counted(self.n_sections, "section"), counted(self.n_identifiers, "identifier")
        return f"{counted(self.n_rows, 'row')}; {dropped} dropped, {removed} removed"


def prepare_file(
    source: str,
    output: Path,
    *,
    column: str,
    preparation: Preparation,
    dropped: Path | None = None,
    overwrite: bool = False,
) -> Prepared:
    r"""Write a copy of a table in which one column of résumés is cut to sections, blinded, or both.

    :param source: .csv, .tsv, .jsonl or .parquet (the first three also as .gz).
    :param output: a file of the same format; it is complete or does not exist.
    :param column: the column of résumés. An empty or missing value stays unchanged.
    :param dropped: a table of what was removed: row (from 1), kind, text; :mod:`distill.data.table_writing` describes
        its formats.
    :param overwrite: replace an existing output.
    :raises BadInput: if the output cannot be written, a file or column is missing, the file is empty, a value is no
        text, or there is nothing to do.
    """
    preparation.check()
    table = locate(source)
    if table is None:
        raise BadInput(f"{source}: no such file")
    path = table.path
    _check_places(table, output, dropped)
    prepared = Prepared()
    with ExitStack() as stack:
        temporary = stack.enter_context(output_file(output, inputs=[path], overwrite=overwrite))
        listing: Listing | None = None
        if dropped:
            temporary_listing = stack.enter_context(output_file(dropped, inputs=[path], overwrite=overwrite))
            listing = stack.enter_context(table_writer(temporary_listing, {"row": int, "kind": str, "text": str}))

        def change(value: Any) -> Any:
            prepared.n_rows += 1
            return _changed(value, f"{path} row {prepared.n_rows}: {column}", preparation, listing, prepared)

        _COPIERS[table.format](table, temporary, column, change)
        if prepared.n_rows == 0:
            raise BadInput(f"{path} has a header and no rows")
    if prepared.whole:
        log.warning(
            "%s: %d of %d rows have none of %s and stay whole",
            path,
            prepared.whole,
            prepared.n_rows,
            ", ".join(preparation.keep or ()),
        )
    return prepared


def _check_places(table: Table, output: Path, dropped: Path | None) -> None:
    """Refuse an output of another format, and two paths that are the same file.

    :raises BadInput: naming them
    """
    path = table.path
    same_format = _suffix(output) == _suffix(path) and not (table.format == "parquet" and output.suffix == ".gz")
    if not same_format and not is_stream(output):
        gz = "" if table.format == "parquet" else ", perhaps with .gz"
        raise BadInput(f"{output}: the output has the format of the input, *{_suffix(path)}{gz}")
    targets = [os.path.realpath(place) for place in (path, output, *([dropped] if dropped else []))]
    if len(set(targets)) < len(targets):
        raise BadInput(f"{output}: the input, the output and the list of dropped text must be different files")
    if dropped:
        check_form(dropped)


def _suffix(path: Path) -> str:
    return next((suffix for suffix in reversed(path.suffixes) if suffix != ".gz"), "").lower()


def _changed(value: Any, where: str, preparation: Preparation, listing: Listing | None, prepared: Prepared) -> Any:
    """Return the prepared text, and list and count what was removed."""
    if is_gap(value):
        return value
    if problem := text_problem(value):
        raise BadInput(f"{where} {problem}")
    value = as_text(value)
    removals: list[tuple[str, str]] = []
    if preparation.blind:
        blinded = blind_text(value)
        value = blinded.text
        removals += [(removed.kind, removed.text) for removed in blinded.removed]
        prepared.n_identifiers += len(blinded.removed)
    if preparation.keep is not None:
        start = len(removals)
        kept = keep_sections(value, cast(Sequence[SectionKind], preparation.keep))
        removals += [(section.kind, value[section.start : section.end].strip()) for section in kept.dropped]
        value = kept.text
        prepared.n_sections += len(removals) - start
        prepared.whole += not kept.found
    if listing:
        for kind, text in removals:
            listing([prepared.n_rows, kind, text])
    return value


# --- one copier per format: source, target, column, change of its values ----------------------------------------------


def _copy_csv(table: Table, target: Path, column: str, change: Change) -> None:
    with opened(target) as out:
        header, rows = delimited_rows(table.path, "csv")
        index, write = _column(table.path, header, column), csv_rows(out)
        write(header)
        for row in rows:
            row[index] = change(row[index])
            write(row)


def _copy_tsv(table: Table, target: Path, column: str, change: Change) -> None:
    """Copy a TSV. It has no quotes, so values hold no tabs or line breaks; new line breaks become spaces."""
    with opened(target) as out:
        header, rows = delimited_rows(table.path, "tsv")
        index = _column(table.path, header, column)
        out.write("\t".join(header) + "\n")
        for row in rows:
            row[index] = " ".join(change(row[index]).split("\n"))
            out.write("\t".join(row) + "\n")


def _copy_jsonl(table: Table, target: Path, column: str, change: Change) -> None:
    array, has_column, names = is_array(table.path), False, dict[str, None]()
    with opened(target) as out:
        for number, (line, row) in enumerate(json_rows(table.path), start=1):
            key = named_key(column, row)
            if isinstance(row, RepeatedKeys) and key in row.names:
                raise BadInput(f"{table.path} row {number}: {column!r} stands twice in one object")
            has_column = has_column or key is not None
            if not has_column:
                names |= dict.fromkeys(row)
            original = None if key is None else row[key]
            changed = change(original)
            if array:
                out.write("[" if number == 1 else ",\n")
            out.write(line if changed == original or key is None else with_value(line, key, changed))
            out.write("" if array else "\n")
        out.write("]\n" if array else "")
    if names and not has_column:
        _column(table.path, list(names), column)


def _copy_parquet(table: Table, target: Path, column: str, change: Change) -> None:
    import pyarrow
    import pyarrow.parquet

    schema, batches = parquet_batches(table.path, _ROWS_AT_ONCE)
    index = _column(table.path, schema.names, column)
    kind = schema.field(index)
    with pyarrow.parquet.ParquetWriter(target, schema) as writer:
        for batch in batches:
            values = [_kept(value, change(value)) for value in column_values(table.path, column, batch.column(index))]
            columns = [*batch.columns]
            try:
                columns[index] = pyarrow.array(values, type=kind.type)
            except (pyarrow.ArrowException, TypeError, ValueError):
                raise BadInput(
                    f"{table.path}: column {column} is of type {kind.type}, which holds no prepared text; write it as text"
                ) from None
            writer.write_batch(pyarrow.RecordBatch.from_arrays(columns, schema=schema))


def _kept(original: Any, changed: Any) -> Any:
    """Return the original value, such as a number, if preparing did not change its text."""
    return original if original is None or changed == as_text(original) else changed


def _column(source: Path, names: Sequence[str], column: str) -> int:
    return list(names).index(held_name(source, column, names, "--column"))


_COPIERS: dict[str, Callable[[Table, Path, str, Change], None]] = {
    "csv": _copy_csv,
    "tsv": _copy_tsv,
    "jsonl": _copy_jsonl,
    "parquet": _copy_parquet,
}
