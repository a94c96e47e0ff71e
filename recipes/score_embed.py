"""Score the pairs or embed the texts of a file of any size, one block of rows at a time; resumable after a kill."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np

from distill.data.pairs import OptionNames, PairReader, Pairs, batched
from distill.data.table_writing import check_form, check_suffix, table_writer
from distill.data.text_blocks import TextReader
from distill.errors import BadInput
from distill.files.artefact import content_files, read_card, revision, versions
from distill.files.growing import growing_array, take_file
from distill.files.hashing import texts_digest
from distill.files.outputs import check_output_file, output_file
from distill.machine.cpu import cpu_class
from distill.models.files import read_model_files, read_sides
from distill.models.prompts import stored_prompt
from distill.progress import byte_progress, progress, reaching
from distill.runtime.opening import load
from distill.runtime.scorer import Scorer
from distill.scorers.cascade import compares_documents
from distill.scorers.opening import check_calibration, open_scorer, result_columns, scorer_folders
from distill.scorers.scoring import PairScorer, check_numbers
from distill.wording import counted
from recipes.options import Embedding, OpeningOptions, OutputPlace, PairFile, Scoring, TextFile

__all__ = ["embed_file", "score_file"]

_ROWS_AT_ONCE = 10_000  # of long résumés some 200 MB
_SLOW_ROWS_AT_ONCE = 1_000


def score_file(model: Path, pairs: PairFile, output: OutputPlace, *, scoring: Scoring, opening: OpeningOptions) -> None:
    """Score the pairs of a file into a table: row (of the input, from 1), score (cosine or logit), unit_score (in [0, 1]).

    The suffix of the output determines the table's format (:mod:`distill.data.table_writing`). The number of a left-out
    row is missing. Only one block is in memory, except for a cascade by the best documents of each query, which needs
    all pairs at once. If the command was killed, finished blocks are not scored again.
    """
    arguments, other_side = opening.arguments(), scoring.other_side
    check_form(output.path)
    inputs: list[str | Path] = [model, pairs.source, *([] if other_side is None else [other_side])]
    check_output_file(output.path, inputs=inputs, overwrite=output.overwrite)
    option_names = OptionNames(columns="--query-column or --document-column", skip="--skip-bad-rows")
    reader = PairReader(
        pairs.source, pairs.columns, skip_bad_rows=pairs.skip_bad_rows, labelled=False, option_names=option_names
    ).checked()
    if (scoring.calibrated or scoring.decide) and opening.precision != "auto":
        check_calibration(model, decide=scoring.decide)
    scorer = open_scorer(
        model,
        other_side=other_side,
        allow_hosts=scoring.allow_hosts,
        key_variable=scoring.key_variable,
        **arguments,
    )
    if isinstance(scorer, Scorer) and (scoring.allow_hosts or scoring.key_variable is not None):
        raise BadInput(f"--allow-host, --key-variable: {model} runs here and asks no host; leave them out")
    columns = result_columns(model, scorer, calibrated=scoring.calibrated, decide=scoring.decide)
    at_once = _is_done_at_once(len(reader), scorer)
    folders = [*_folders_of(model, scorer), *([] if other_side is None else [other_side])]

    def made_from() -> dict[str, str]:
        return {"the pairs": texts_digest(reader.digests), **_decided_by(scorer, folders, opening)}

    with (
        growing_array(output.path, made_from, keep=not at_once) as stored,
        output_file(output.path, inputs=inputs, overwrite=output.overwrite) as temporary,
        table_writer(temporary, {"row": int} | {name: kind for name, (kind, _) in columns.items()}) as write,
        progress("scoring", len(reader), start=stored.n_found, show=not at_once) as report,
        scorer.remembering() if isinstance(scorer, Scorer) and not at_once else nullcontext(),
    ):

        def score(part: Pairs) -> np.ndarray:
            with reaching(report, len(part)) as count:
                scores = scorer.score(part.queries, part.documents, progress=True if at_once else count)
            return check_numbers(model, scores)

        for block, rows in [reader.whole()] if at_once else reader.blocks():
            if not rows:  # all of them are bad
                continue
            size = len(block) if at_once else _rows_at_once(scorer)
            parts = [block.select(part) for part in batched(range(len(block)), size)]
            scores = np.concatenate([stored.next(len(part), partial(score, part)) for part in parts])
            results = [result_of(scores).tolist() for _, result_of in columns.values()]
            for row, *values in zip(rows, *results, strict=True):
                write([row + 1, *values])
    _say_result(f"{counted(len(reader), 'pair')} → {output.path}", scorer, stored.n_found)


def embed_file(
    model: Path, texts: TextFile, output: OutputPlace, *, embedding: Embedding, opening: OpeningOptions
) -> None:
    """Embed the texts of a file into a .npy of float32 (n_texts, width).

    Only one block is in memory. If the command was killed, finished blocks are not embedded again.
    """
    arguments = opening.arguments()
    check_suffix(output.path, ".npy", "an array of embeddings")
    inputs: list[str | Path] = [model, texts.source]
    check_output_file(output.path, inputs=inputs, overwrite=output.overwrite)
    reader = TextReader(texts.source, texts.column).checked()
    if embedding.prompt is not None and opening.precision != "auto" and read_sides(model) is None:
        stored_prompt(read_model_files(model).prompts, embedding.prompt, model)  # before the model is opened
    scorer = load(model, truncate=embedding.truncate, **arguments)
    at_once = _is_done_at_once(len(reader), scorer)
    width = scorer.embedding_width
    if width < scorer.whole_width:
        _say_unless_trained_at(width, scorer.path)
    header = _npy_header((len(reader), width))

    def made_from() -> dict[str, str]:
        options = {f"--{name}": repr(value) for name, value in asdict(embedding).items()}
        return {"the texts": texts_digest(reader.digests), **options, **_decided_by(scorer, [scorer.path], opening)}

    with (
        growing_array(output.path, made_from, keep=not at_once, width=width, dtype=np.float32, header=header) as stored,
        output_file(output.path, inputs=inputs, overwrite=output.overwrite) as temporary,
        progress("embedding", len(reader), start=stored.n_found, show=not at_once) as report,
    ):

        def embed(block: Sequence[str]) -> np.ndarray:
            with reaching(report, len(block)) as count:
                vectors = scorer.encode(block, progress=True if at_once else count, prompt_name=embedding.prompt)
            return check_numbers(model, vectors)

        vectors = (stored.next(len(block), partial(embed, block)) for block in reader.blocks())
        if stored.path is None:
            with temporary.open("wb") as file:
                file.write(header)
                for block in vectors:
                    file.write(block.tobytes())
        else:
            for _ in vectors:
                pass
            take_file(stored.path, temporary)
    _say_result(f"{counted(len(reader), 'text')} → {output.path}, {width} numbers each", scorer, stored.n_found)


def _say_result(written: str, scorer: PairScorer, n_earlier: int) -> None:
    """Print to stderr what was written, and how many texts the model could not read, or not to their end.

    :param n_earlier: rows that an earlier, killed start computed; the model did not read them now
    """
    for line in (scorer.cut_line(), scorer.unread_line()) if isinstance(scorer, Scorer) else ():
        if line is not None:
            print(
                line if not n_earlier else f"after the first {n_earlier:,} rows, of an earlier start: {line}",
                file=sys.stderr,
            )
    print(f"{written}  ({scorer!r})", file=sys.stderr)


def _say_unless_trained_at(width: int, folder: Path) -> None:
    """Warn if a student was not trained at this width of its embeddings, by its card."""
    card = read_card(folder)
    try:
        recipe = {} if card is None else card.recipe
        stages = list((recipe.get("stages") or {}).values())
        objectives = (stages[-1]["objectives"] if stages else None) or recipe["objectives"]
        widths = tuple((objectives["matryoshka"] or {"dimensions": ()})["dimensions"])
    except (AttributeError, LookupError, TypeError):  # the widths of its training are unknown
        return
    if width not in widths:
        trained_widths = (
            f"whole and at {', '.join(map(str, widths))}" if widths else "whole alone (no objectives.matryoshka)"
        )
        print(
            f"{folder}: its embeddings were trained {trained_widths}; at {width} numbers they may match worse, by how much "
            "`distill index-quality --truncate` measures",
            file=sys.stderr,
        )


def _rows_at_once(scorer: PairScorer) -> int:
    """Return the rows of a block, the most that a kill repeats: a cross-encoder may score three pairs a second."""
    return _ROWS_AT_ONCE if scorer.kind == "bi_encoder" else _SLOW_ROWS_AT_ONCE


def _is_done_at_once(n_rows: int, scorer: PairScorer) -> bool:
    """Tell whether all rows are computed at once, so that none is stored before the end."""
    return n_rows <= _rows_at_once(scorer) or compares_documents(scorer)


def _npy_header(shape: tuple[int, int]) -> bytes:
    """Return the header of a .npy file of float32."""
    header = BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def _decided_by(scorer: PairScorer, folders: Sequence[Path], opening: OpeningOptions) -> dict[str, str]:
    """Return what affects a model's numbers, by names for messages: its files, runtime settings and the machine."""
    options = {
        f"--{name.replace('_', '-')}": repr(value) for name, value in asdict(opening).items() if name != "n_threads"
    }
    n_bytes = sum(path.stat().st_size for folder in folders for path in content_files(folder))
    with byte_progress("reading the model's files", n_bytes) as on_bytes:
        revisions = [revision(folder, on_bytes) for folder in folders]
    return {
        "the model": " ".join(revisions),
        **options,
        "what runs": f"{scorer.runtime} {scorer.precision} {scorer.max_length} {getattr(scorer, 'device', None)}",
        "the CPU": cpu_class(),
        **versions(),
    }


def _folders_of(model: Path, scorer: PairScorer) -> list[Path]:
    return [scorer.path] if isinstance(scorer, Scorer) else scorer_folders(model)
