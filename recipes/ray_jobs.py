"""`--engine ray`: read the command line's options and call `distill.ray`."""

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from distill.errors import BadInput
from distill.files.artefact import CALIBRATION, content_hash
from distill.ray.actors import EmbedActor, ScoreActor
from distill.ray.batches import RayJob
from distill.ray.jobs import run_job
from distill.ray.reading import find_source
from distill.ray.shards import ShardFolder
from distill.ray.storage import place_at
from distill.runtime.fastest import fastest_export
from distill.scorers.opening import check_calibration, scorer_folders
from distill.wording import counted
from recipes.options import Embedding, OpeningOptions, OutputPlace, PairFile, RayOptions, Scoring, TextFile

__all__ = ["embed_on_ray", "score_on_ray"]


def embed_on_ray(
    model: Path, texts: TextFile, output: OutputPlace, *, embedding: Embedding, opening: OpeningOptions, ray: RayOptions
) -> None:
    """Embed a column of texts into a folder of Parquet shards."""
    model, arguments = _opened_as(model, opening, ray)
    options = asdict(embedding)
    work = partial(EmbedActor, model, column=texts.column, **options, **arguments)
    settings = {**options, "special_tokens_as_text": opening.special_tokens_as_text}
    rows = find_source(texts.source, [texts.column], ray.keep, section="--column")
    work.keywords["column"] = rows.texts[0]
    _run(RayJob(rows, (model,), work, settings, ray.shard_rows), output, ray, "text")


def score_on_ray(
    model: Path, pairs: PairFile, output: OutputPlace, *, scoring: Scoring, opening: OpeningOptions, ray: RayOptions
) -> None:
    """Score pairs into a folder of Parquet shards.

    :raises BadInput: for a scorer that sends texts to a host, and as `run_job`
    """
    if scoring.allow_hosts or scoring.key_variable:
        raise BadInput(
            "--allow-host, --key-variable: a host is asked by one process, within one budget; leave --engine ray out"
        )
    query, document = pairs.columns.query, pairs.columns.document
    model, arguments = _opened_as(model, opening, ray)
    other_side = None if scoring.other_side is None else scoring.other_side.absolute()
    if scoring.calibrated or scoring.decide:
        check_calibration(model, decide=scoring.decide)
    calibration = {"calibrated": scoring.calibrated, "decide": scoring.decide}
    work = partial(ScoreActor, model, query=query, document=document, other_side=other_side, **calibration, **arguments)
    calibration_file = model / CALIBRATION
    settings = {
        "special_tokens_as_text": opening.special_tokens_as_text,
        "calibration": content_hash(calibration_file.read_text(encoding="utf-8"))
        if any(calibration.values()) and calibration_file.is_file()
        else None,
    }
    models = (*scorer_folders(model), *([] if other_side is None else [other_side]))
    rows = find_source(pairs.source, (query, document), ray.keep, section="--query-column or --document-column")
    if rows.form == "txt":
        raise BadInput(f"{pairs.source} has one text a line, and pairs have two; name a table")
    job = RayJob(rows, models, work, settings, ray.shard_rows, pairs.skip_bad_rows)
    _run(job, output, ray, "pair")


def _opened_as(model: Path, opening: OpeningOptions, ray: RayOptions) -> tuple[Path, dict[str, Any]]:
    """Return the folder that every machine opens, and the arguments to open it.

    :raises BadInput: for options that hold for one machine only
    """
    if opening.n_threads is not None:
        raise BadInput("--threads is of one machine; the threads of an actor are its CPUs: set --actor-cpus")
    arguments = opening.arguments()
    del arguments["n_threads"]
    folder = model.absolute()
    if arguments["precision"] == "auto":  # chosen once, for the CPU of this machine: vectors of two precisions differ
        folder, runtime = fastest_export(folder, arguments["runtime"], max(1, int(ray.actors.cpus)), None)
        arguments |= {"runtime": runtime, "precision": None}
    return folder, arguments


def _run(job: RayJob, output: OutputPlace, ray: RayOptions, noun: str) -> None:
    folder = ShardFolder(place_at(output.address))
    tally = run_job(job, folder, ray.actors, overwrite=output.overwrite)
    counts = tally.counts
    notes = [
        f"{counts[name]:,} {words}"
        for name, words in (
            ("done_before", "were there already"),
            ("repeated", "came more than once"),
            ("left_out", "left out"),
        )
        if counts[name]
    ]
    summary = ", ".join([f"{counts['computed']:,} computed", *notes])
    print(f"{counted(counts['rows'], noun)} → {folder.place}  ({summary})", file=sys.stderr)
