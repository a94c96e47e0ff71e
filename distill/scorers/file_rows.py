"""Read the rows of a file of answers: (text, vector) or ((query, document), score), in any of five formats.

    .parquet   a column of lists (of any float type), or of numbers
    .npz       arrays by name: texts as strings (not as objects, which are pickles), vectors in two dimensions
    .csv .tsv  a vector is a JSON list, or numbers separated by spaces, commas or semicolons
    .jsonl     a vector is a list

A row without a valid text (empty, null, or a number that is not finite) is skipped and counted. Vectors and scores are
checked later, and only for the items that are requested.
"""

import json
import logging
import re
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.tables import (
    as_text,
    column_blocks,
    column_values,
    held_name,
    locate,
    parquet_batches,
    text_problem,
)
from distill.errors import BadInput
from distill.files.trust import without_booleans
from distill.recipe.black_box import FileTeacher
from distill.wording import counted

__all__ = ["Item", "answer_rows"]

log = logging.getLogger(__name__)
Item = str | tuple[str, str]
_ROWS_AT_ONCE = 10_000
_BETWEEN_NUMBERS = re.compile(r"[\s,;]+")
_FORMATS = ".parquet, .npz, .csv, .tsv and .jsonl are read (.csv, .tsv and .jsonl also as .gz)"
_SECTION = "the teacher's columns"


def answer_rows(settings: FileTeacher, path: str) -> Iterator[tuple[list[Item], np.ndarray]]:
    """Yield items and their answers in batches. *Shape:* answers: (n_items, width) or (n_items,), float64.

    :raises BadInput: naming the file, and the row if the problem is in one row
    """
    columns = settings.columns
    if settings.signal == "embeddings":
        names, value = [columns.text], columns.vector
    else:
        names, value = [columns.query, columns.document], columns.score
    n_rows = n_left_out = 0
    first_problem = ""
    for texts, answers in _batches(path, names, value):
        kept = [row for row, item in enumerate(texts) if not _problem(item)]
        n_left_out += len(texts) - len(kept)
        if len(kept) < len(texts) and not first_problem:
            row = next(row for row, item in enumerate(texts) if _problem(item))
            first_problem = f"row {n_rows + row + 1}: the text {_problem(texts[row])}"
        values = _vectors(path, answers, n_rows) if settings.signal == "embeddings" else _scores(path, answers, n_rows)
        yield [_item(texts[row]) for row in kept], values if len(kept) == len(texts) else values[kept]
        n_rows += len(texts)
    if not n_rows:
        raise BadInput(f"{path} holds no rows")
    if n_left_out:
        log.warning("%s: %s without a text left out (first: %s)", path, counted(n_left_out, "row"), first_problem)


def _problem(item: tuple[Any, ...]) -> str | None:
    return next((problem for text in item if (problem := text_problem(text)) is not None), None)


def _item(item: tuple[Any, ...]) -> Item:
    texts = tuple(as_text(text) for text in item)
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


# --- formats ----------------------------------------------------------------------------------------------------------


def _batches(path: str, names: list[str], value: str) -> Iterator[tuple[list[tuple[Any, ...]], Any]]:
    """Yield the texts and the answers of rows, in batches."""
    if path.lower().endswith(".npz"):
        yield from _npz(Path(path), names, value)
        return
    suffixes = [suffix.lower() for suffix in Path(path).suffixes if suffix != ".gz"]
    if not suffixes or suffixes[-1] not in (".parquet", ".csv", ".tsv", ".jsonl", ".json"):
        raise BadInput(f"{path[:200]}: {_FORMATS}, not {suffixes[-1] if suffixes else 'a file without suffix'}")
    table = locate(path)
    if table is None:
        raise BadInput(f"{path}: no such file")
    reader = _parquet if table.format == "parquet" else _table
    yield from reader(table.path, names, value, table.format)


def _parquet(path: Path, names: list[str], value: str, form: str) -> Iterator[tuple[list[tuple[Any, ...]], Any]]:
    import pyarrow

    _, batches = parquet_batches(path, _ROWS_AT_ONCE, [*names, value], _SECTION)
    for batch in batches:
        columns = [batch.column(held_name(path, name, batch.schema.names, _SECTION)) for name in [*names, value]]
        texts = list(
            zip(*(column_values(path, name, column) for name, column in zip(names, columns, strict=False)), strict=True)
        )
        answers = columns[-1]
        is_list = pyarrow.types.is_list(answers.type) or pyarrow.types.is_large_list(answers.type)
        if (is_list or pyarrow.types.is_fixed_size_list(answers.type)) and not answers.null_count:
            yield texts, _of_lists(answers)
        else:
            yield texts, column_values(path, value, answers)


def _of_lists(column: Any) -> Any:
    """Return a column of lists as one array if all have the same length, else as lists."""
    flat = column.flatten()
    lengths = np.asarray(column.value_lengths())
    if len(lengths) and (lengths == lengths[0]).all() and not flat.null_count:
        return flat.to_numpy(zero_copy_only=False).reshape(len(lengths), -1)
    return column.to_pylist()


def _npz(path: Path, names: list[str], value: str) -> Iterator[tuple[list[tuple[Any, ...]], Any]]:
    try:
        if path.is_file() and not zipfile.is_zipfile(path):
            raise BadInput(
                f"{path} cannot be read as NPZ: it is cut short, damaged or no archive; write it with np.savez"
            )
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[held_name(path, name, stored.files, _SECTION)] for name in [*names, value]}
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except ValueError as error:
        if "pickle" not in str(error).lower():
            raise BadInput(f"{path} cannot be read as NPZ: {' '.join(str(error).split())[:200]}") from None
        advice = "save texts as np.array(texts, dtype=str)"
        raise BadInput(f"{path} holds Python objects, which are pickles and not read; {advice}") from None
    except (OSError, zipfile.BadZipFile, EOFError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise BadInput(f"{path} cannot be read as NPZ: {reason}; write it with np.savez") from None
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        sizes = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise BadInput(f"{path}: its arrays are not of one length ({sizes}); a row of each belongs together")
    if wrong_names := [name for name in names if arrays[name].dtype.kind != "U" or arrays[name].ndim != 1]:
        array = arrays[wrong_names[0]]
        raise BadInput(
            f"{path}: {wrong_names[0]} is an array of {array.dtype} of shape {array.shape}; one text a row is expected"
        )
    texts = zip(*(arrays[name].tolist() for name in names), strict=True)
    for start in range(0, len(arrays[value]), _ROWS_AT_ONCE):
        yield list(islice(texts, _ROWS_AT_ONCE)), arrays[value][start : start + _ROWS_AT_ONCE]


def _table(path: Path, names: list[str], value: str, form: str) -> Iterator[tuple[list[tuple[Any, ...]], Any]]:
    columns = [*names, value]
    for number, block in enumerate(column_blocks(str(path), columns, section=_SECTION)):
        if not number and any(values.count(None) == len(values) for values in block.values()):
            for _ in column_blocks(str(path), columns, section=_SECTION):
                pass  # a column that no row has is named as such, before a row without a vector is
        yield list(zip(*(block[name] for name in names), strict=True)), block[value]


# --- values -----------------------------------------------------------------------------------------------------------


def _scores(path: str, answers: Any, before: int) -> np.ndarray:
    if isinstance(answers, np.ndarray):
        if answers.dtype.kind not in "fiu" or answers.size != len(answers):
            raise BadInput(
                f"{path}: the scores are an array of {answers.dtype} of shape {answers.shape}; one number a row is expected"
            )
        return answers.reshape(len(answers)).astype(np.float64)
    values = np.empty(len(answers), dtype=np.float64)
    for row, answer in enumerate(answers):
        try:
            if isinstance(answer, bool):  # float() would turn true and false into 1 and 0
                raise TypeError("booleans are no numbers")
            values[row] = np.nan if answer is None or answer == "" else float(answer)
        except (TypeError, ValueError, OverflowError):
            raise BadInput(f"{path} row {before + row + 1}: the score {_shown(answer)} is not a number") from None
    return values


def _vectors(path: str, answers: Any, before: int) -> np.ndarray:
    if isinstance(answers, np.ndarray) and answers.ndim == 2 and answers.dtype.kind in "fiu":
        return answers.astype(np.float64)
    if isinstance(answers, np.ndarray) and answers.dtype.kind not in "fiu":
        raise BadInput(f"{path}: the vectors are an array of {answers.dtype}; real numbers are expected")
    rows = [_vector(path, answer, before + row + 1) for row, answer in enumerate(answers)]
    widths = np.array([len(row) for row in rows])
    if len(widths) and (odd := np.flatnonzero(widths != widths[0])).size:
        raise BadInput(
            f"{path}: its vectors have no common width: {widths[0]} numbers in row {before + 1}, {widths[odd[0]]} in row "
            f"{before + odd[0] + 1}"
        )
    return np.stack(rows) if rows else np.zeros((0, 0))


def _vector(path: str, answer: Any, row: int) -> np.ndarray:
    try:
        numbers = answer
        if isinstance(answer, str):
            text = answer.strip()
            numbers = json.loads(text) if text.startswith("[") else _BETWEEN_NUMBERS.split(text)
        values = [np.nan if number is None else number for number in without_booleans(numbers)]
        vector = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError):
        vector = np.zeros((0, 0))
    if vector.ndim != 1 or not vector.size:
        raise BadInput(f"{path} row {row}: {_shown(answer)} is no vector; a list of numbers is expected")
    return vector


def _shown(value: Any) -> str:
    line = " ".join(repr(value).split())
    return line if len(line) <= 60 else f"{line[:60]}…"
