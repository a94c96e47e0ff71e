"""`distill fetch-data`: writes a public set, from the hub or from a folder, as the CSV files that recipes name."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.data.public_sets import PUBLIC_SETS, PublicSet
from distill.data.table_writing import table_writer
from distill.data.tables import as_text, named_key, read_columns, text_problem
from distill.errors import BadInput
from distill.files.outputs import check_output_file, output_file

__all__ = ["fetch"]

log = logging.getLogger(__name__)
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz")
_LONGEST = 250
_TextColumns = Mapping[str, Sequence[Any]]


def fetch(name: str, output: Path, *, source: Path | None = None, overwrite: bool = False) -> str:
    """Write the files of a public set below `output`; return a line that says what was written.

    Everything is read before anything is written.

    :param source: a folder that holds the set; None reads it from the hub
    :raises BadInput: if the set is unknown, the hub cannot be reached, the folder does not hold the set, or a file
        already exists
    """
    if name not in PUBLIC_SETS:
        raise BadInput(f"fetch-data {name}: no such set; accepted: {', '.join(PUBLIC_SETS)}")
    public_set = PUBLIC_SETS[name]
    targets = {file: output / public_set.folder / file for file in public_set.splits}
    for target in targets.values():
        if target.parent.is_dir():
            check_output_file(target, overwrite=overwrite)
    found_files = {file: _found(name, public_set, source, file) for file in targets} if source is not None else {}
    columns_by_file = {file: _read(name, public_set, found_files.get(file), file) for file in targets}
    rows_by_file = {file: _whole_rows(columns) for file, columns in columns_by_file.items()}
    for file, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            output_file(target, overwrite=overwrite) as temporary,
            table_writer(temporary, dict.fromkeys(public_set.columns, str)) as write,
        ):
            for row in rows_by_file[file]:
                write(row)
    n_dropped = sum(len(next(iter(columns.values()))) for columns in columns_by_file.values()) - sum(
        map(len, rows_by_file.values())
    )
    left_out = f"; {n_dropped:,} rows without a text were left out" if n_dropped else ""
    counts = ", ".join(f"{target} ({len(rows_by_file[file]):,} rows)" for file, target in targets.items())
    origin = (
        f"{public_set.hub} on the hub, {public_set.licence}"
        if source is None
        else ", ".join(map(str, found_files.values()))
    )
    return f"{name}: {counts}, from {origin}{left_out}"


def _found(name: str, public_set: PublicSet, source: Path, file: str) -> Path:
    """Return the file in a folder that holds a part of a set, under our name or one of its other names."""
    if not source.is_dir():
        raise BadInput(f"--from {source}: no such folder; name one that holds {name}")
    stems = list(dict.fromkeys([Path(file).stem, *public_set.elsewhere[file]]))
    for folder in (source / public_set.folder, source):
        for stem in stems:
            for suffix in _SUFFIXES:
                if (folder / f"{stem}{suffix}").is_file():
                    return folder / f"{stem}{suffix}"
    expected = " or ".join(f"{stem}{_SUFFIXES[0]}" for stem in stems)
    raise BadInput(
        f"--from {source}: neither {source} nor {source / public_set.folder} holds {expected} "
        f"(or the same as {', '.join(_SUFFIXES[1:])})"
    )


def _read(name: str, public_set: PublicSet, path: Path | None, file: str) -> _TextColumns:
    if path is None:
        return _from_hub(name, public_set, public_set.splits[file])
    return read_columns(
        str(path), list(public_set.columns), section=f"another folder: {name} is read from these columns"
    )


def _from_hub(name: str, public_set: PublicSet, split: str) -> _TextColumns:
    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(
        logging.CRITICAL
    )  # the import resets the level; the library logs what it raises anyway
    log.info("%s: %s of %s from the hub", name, split, public_set.hub)
    try:
        dataset: Any = datasets.load_dataset(
            public_set.hub, public_set.configuration, split=split, revision=public_set.revision
        )
    except Exception as error:  # network, name and format errors come in many types
        reason = " ".join(str(_first(error)).split())[:_LONGEST] or type(error).__name__
        if datasets.config.HF_HUB_OFFLINE:
            reason = "HF_HUB_OFFLINE is set, so the hub is not asked"
        raise BadInput(
            f"{name}: {public_set.hub} cannot be had from the hub ({reason}); where a folder holds it: "
            f"distill fetch-data {name} --from FOLDER"
        ) from None
    hub_names = {
        our_name: named_key(hub_name, dataset.column_names) for our_name, hub_name in public_set.columns.items()
    }
    if None in hub_names.values():
        raise BadInput(
            f"{name}: {public_set.hub} has the columns {', '.join(dataset.column_names)}; "
            f"{', '.join(public_set.columns.values())} are expected"
        )
    return {our_name: dataset[hub_name][:] for our_name, hub_name in hub_names.items()}


def _first(error: BaseException) -> BaseException:
    """Return the first error of a chain: an unreachable hub ends, after five tries, in a closed client."""
    earlier = error.__cause__ or error.__context__
    return error if earlier is None else _first(earlier)


def _whole_rows(columns: _TextColumns) -> list[list[str]]:
    rows = zip(*columns.values(), strict=True)
    return [[as_text(value) for value in row] for row in rows if all(text_problem(value) is None for value in row)]
