"""`distill trim`: writes a model folder again with fewer tokens, and reports what was lost."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.data.table_writing import check_form, table_writer
from distill.data.tables import read_texts
from distill.errors import BadInput
from distill.files.artefact import (
    CARD,
    Artefact,
    check_model_folder,
    check_unchanged,
    content_files,
    content_hash,
    read_card,
    revision,
    write_card,
)
from distill.files.outputs import check_output_file, check_output_folder, output_file, output_folder
from distill.models.backbone import resolve_name
from distill.models.files import read_model_files, read_sides
from distill.models.modeling import load_model, replace_tokenizer, save_model, tokenizer_of, transformer_of
from distill.progress import say_loading
from distill.wording import counted
from students.vocabulary.corpus import Corpus

if TYPE_CHECKING:
    from students.vocabulary.trimming import TrimReport

__all__ = ["KeptTokens", "trim_folder"]

_CHANGED = ("source", "text", "before", "after")
_COVERAGE = 0.999


@dataclass(frozen=True)
class KeptTokens:
    """How much of a vocabulary is kept: by coverage or by size; one of the two is set."""

    coverage: float | None
    """Least share of each source's token occurrences to keep."""
    size: int | None
    """Largest number of tokens."""

    @classmethod
    def from_options(cls, coverage: float | None, size: int | None) -> "KeptTokens":
        """Return what --coverage and --size ask for; without both, 99.9 % of the occurrences are kept.

        :raises BadInput: if both are given, or if the coverage is not a share
        """
        if coverage is not None and size is not None:
            raise BadInput("--coverage and --size: give one of them")
        if coverage is not None and not 0 < coverage <= 1:
            raise BadInput(f"--coverage {coverage}: a share above 0 and up to 1 is accepted")
        return cls(_COVERAGE if coverage is None and size is None else coverage, size)


def trim_folder(
    model: str,
    target: Path,
    texts: Sequence[str],
    kept: KeptTokens,
    *,
    changed: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Trim a model folder's vocabulary to files of text and write it to another folder; return the report.

    :param texts: .txt files with one text per line, or tables as FILE:COLUMN,COLUMN; each column is a source
    :param changed: a table to write, with every text that lost a token, and its tokens before and after
    :param overwrite: replace an existing `changed`, and a target that an earlier trim wrote
    :raises BadInput: if a file, the model or the target cannot be used
    """
    source = Path(resolve_name(model))
    kind = check_model_folder(source)
    _check_has_word_embeddings(source)
    check_unchanged(source)  # the trimmed model gets its own card, which would hide changes to the source's files
    input_paths: list[str | Path] = [source, *(_file_and_columns(text)[0] for text in texts)]
    ours = _recognised_by(target)
    check_output_folder(target, inputs=input_paths, ours=ours, overwrite=overwrite)
    if changed is not None:
        if target.resolve() in changed.resolve().parents:
            raise BadInput(f"{changed} lies in {target}, the folder of the new model; name a path outside of it")
        check_form(changed)
        check_output_file(changed, inputs=input_paths, overwrite=overwrite)
    corpus = _read(texts)
    say_loading()
    from students.build import check_reload  # takes seconds: wrong input is refused before
    from students.vocabulary.trimming import trim_vocabulary

    trimmed_model = load_model(source, dtype="auto")
    corpus.add("prompts", filter(None, trimmed_model.prompts.values()))  # they come before every text
    tokenizer, report = trim_vocabulary(
        transformer_of(trimmed_model), tokenizer_of(trimmed_model), corpus.sources, **asdict(kept)
    )
    replace_tokenizer(trimmed_model, tokenizer)
    if changed is not None:
        _list_changed(report, changed, input_paths, overwrite)
    parents, settings = {source.name: revision(source)}, asdict(kept)
    inputs = {"stage": "trim", "parents": parents, "corpus": corpus.fingerprint(), **settings}
    base = read_card(source) or Artefact(kind=kind, stage="trim", fingerprint="")
    card = replace(
        base,
        stage="trim",
        fingerprint=content_hash(inputs),
        parents={**base.parents, **parents},
        details={
            **base.details,
            "inputs": inputs,
            "trim": {**settings, "corpus": corpus.fingerprint(), **report.to_json()},
        },
    )
    with output_folder(target, ours=ours, overwrite=overwrite) as folder:
        save_model(trimmed_model, folder)
        check_reload(trimmed_model, folder)
        write_card(folder, card)
    return {
        "model": str(source),
        "target": str(target),
        "size_mb": (_mb(source), _mb(target)),
        "not_taken_over": [path.name for path in sorted(source.iterdir()) if not (target / path.name).exists()],
        **report.to_json(),
    }


def _recognised_by(target: Path) -> tuple[str, ...]:
    """Return the file by which a folder that trim wrote is recognised; () for any other folder, which is not replaced.

    :raises BadInput: if files were added to a folder that trim wrote
    """
    card = read_card(target)
    if card is None or card.stage != "trim":
        return ()
    added = sorted({str(path.relative_to(target)) for path in content_files(target)} - set(card.files))
    if added:
        raise BadInput(
            f"{target} holds {counted(len(added), 'file')} that trim did not write (first: {added[0]}), which would be lost; move what was added, or name a new folder"
        )
    return (CARD,)


def _check_has_word_embeddings(source: Path) -> None:
    """Refuse a folder that is not one encoder with its word embeddings.

    :raises BadInput: naming what it is
    """
    if read_sides(source) is not None:
        raise BadInput(f"{source} is a Router of two models, each with a vocabulary of its own; trim one of them")
    files = read_model_files(source)
    if files.is_static:
        raise BadInput(
            f"{source} is a static model, without a transformer whose word embeddings could be cut; set student.vocabulary.trim in its recipe"
        )
    if files.is_generative:
        raise BadInput(
            f"{source} is a generative reranker, whose template and answers need tokens that no text shows; trim an encoder"
        )
    if files.held_runtime != "torch":
        raise BadInput(
            f"{source} is an export for {files.held_runtime}, which has no weights to cut; trim the student that it was made from"
        )


def _read(texts: Sequence[str]) -> Corpus:
    corpus = Corpus()
    for argument in texts:
        path, columns = _file_and_columns(argument)
        for column in columns:
            column_texts = read_texts(path, column, section="--texts FILE:COLUMN", gaps=True)
            corpus.add_column(f"{Path(path).name.partition('.')[0]} {column}".removesuffix(" text"), column_texts)
    if not corpus.sources:
        raise BadInput("--texts: no text was found in the files; the tokens that they use are what is kept")
    return corpus


def _file_and_columns(argument: str) -> tuple[str, list[str]]:
    """Return the file and the columns of FILE:COLUMN,COLUMN; a file that exists under the whole name is that file."""
    path, colon, columns = (argument, "", "") if os.path.exists(argument) else argument.partition(":")
    return path, columns.split(",") if colon else ["text"]


def _list_changed(report: "TrimReport", path: Path, inputs: Sequence[str | Path], overwrite: bool) -> None:
    with (
        output_file(path, inputs=inputs, overwrite=overwrite) as temporary,
        table_writer(temporary, dict.fromkeys(_CHANGED, str)) as write,
    ):
        for row in report.changed:
            write([str(row[name]) for name in _CHANGED])


def _mb(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)
