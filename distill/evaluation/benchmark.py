"""Quality, latency and size of every model of a run, on the same evaluation pairs and on this machine.

Quality is computed once per model, with bootstrap intervals on shared resamples. Speed is measured in one process per
model. The processes take turns, so that other load slows all models alike. Every time includes tokenisation.
"""

import json
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from distill._moved import moved_names
from distill.data.pairs import Pairs
from distill.endpoints.tokens import estimated_tokens
from distill.errors import BadInput
from distill.evaluation.calibrated import (
    calibration_notes,
    measured_calibration,
    stored_calibrations,
    teacher_operating_point,
)
from distill.evaluation.latency import LoadSettings, Measuring, Request, environment, measure_all
from distill.evaluation.teacher_exports import (
    matched_teacher,
    measured_teachers,
    primary_teacher,
    teacher_export_notes,
    wanted_teacher_exports,
    with_split,
)
from distill.files.artefact import (
    Artefact,
    content_hash,
    new_file,
    new_folder,
    read_card,
    read_json,
    revision,
    write_card,
)
from distill.metrics.columns import ScoredColumns
from distill.metrics.measures import Bootstrap, Estimate, evaluate_scores, paired_difference, primary_metric, retention
from distill.metrics.names import METRIC_NAMES
from distill.metrics.rounds import Until
from distill.metrics.standing import (
    beside_untrained,
    floor_of,
    is_broken,
    is_level_with_floor,
    problem_of,
    with_standing,
)
from distill.models.files import Precision, Runtime
from distill.models.modeling import save_model
from distill.progress import progress, reaching, step_progress
from distill.recipe.endpoint import Usage
from distill.recipe.schema import Benchmark, Paragraphs, Remote, TfIdf, TokenTeacher
from distill.report.board_scores import board_scores
from distill.report.build import write_report
from distill.report.model_card import write_model_cards
from distill.run import Run, differences
from distill.scorers.baselines import (
    choose_tfidf,
    floor_texts,
    has_kept_vectors,
    write_paragraphs,
    write_remote,
    write_tfidf,
)
from distill.scorers.black_box import BlackBoxScorer, open_black_box
from distill.scorers.opening import open_scorer
from distill.scorers.scoring import PairScorer
from distill.training.building import model_builder
from distill.wording import in_dollars, label_loss_in_words, values_in_words

__all__ = [
    "BenchmarkEntry",
    "Scored",
    "assemble",
    "benchmark",
    "make_baseline",
    "make_baselines",
    "measure_rows",
    "primary_teacher",
    "recipe_of_models",
    "said_of_pairs",
    "said_of_quality",
    "score_row",
    "student_rows",
    "teacher_row",
]

__getattr__ = moved_names(__name__)  # names from before the rename

log = logging.getLogger(__name__)
_RAW = (
    "latency_by_length",
    "latency_pairs",
    "latency_interval",
    "throughput_pairs",
    "throughput_interval",
    "load_seconds",
    "cold_ms",
    "steady_memory_mb",
    "n_threads",
    "max_length",
    "per_run",
)
_MADE_OF_A_MODEL = (
    "baseline",
    "teacher_export",
)  # rows whose card does not state how a teacher or the student was trained
# nothing is learned, or not everything; it is the teacher, and the report says so
_ROLES_NOT_WARNED_OF = ("untrained", "stage", "teacher_export")
_OURS = ("student", "export")  # what a run serves: calibrated
_BESIDE_FLOOR = ("teacher", *_OURS)  # compared with the best TF-IDF
_FEW_PAIRS = 10  # with fewer, a bootstrap interval is too narrow to mean anything
_SHOWN_CHANGES = 4
_OPTIONAL = ("under_load", "first_score_seconds", "first_score_cold_seconds", "variant")
_UNMEASURED: Mapping[str, Any] = {
    "kind": "remote",
    "runtime": "remote",
    "precision": "unknown",
    **dict.fromkeys(("parameters", "size_mb", "peak_memory_mb", "latency_ms", "throughput_pairs_per_s", *_RAW)),
}


@dataclass(frozen=True)
class BenchmarkEntry:
    """One model of the report."""

    name: str
    role: str
    path: Path
    runtime: Runtime | None
    precision: Precision | None
    max_length: int | None
    other_side: Path | None = None
    """The teacher that serves the other side of an asymmetric student's pairs."""
    threads: int | None = None
    measured_as: str | None = None
    """The row whose speed, memory and size this one has, being the same model with other weights; None is its own."""
    black_box: str | None = None
    """What answers for a teacher that is no model, such as "file": it has no speed, memory or size to measure."""


def benchmark(run: Run) -> None:
    """Measure the models of the run and write `report/`; a report of the same models and settings is kept.

    If there are several processes, only the first one measures.
    """
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    make_baselines(run)
    rows = _rows(run)
    if not rows:
        raise BadInput("this recipe has no model to measure; add teachers, a student or benchmark.baselines")
    inputs = _inputs(run, rows)
    if not run.recipe.overwrite and _is_of(run.report / "benchmark.json", inputs):
        log.info("%s is finished", run.report)
        return
    models = {row.name: row.path for row in rows if row.role != "baseline"}
    for folder in models.values():  # a bad file of scores is refused before anything is measured
        board_scores(folder)
    pairs = run.split.evaluation
    scored = {row.name: score_row(run, row, pairs) for row in rows}
    # the speed of a remote model is that of the network, and each call costs money
    local = [row for row in rows if row.measured_as is None and row.black_box is None and not _is_remote(run, row)]
    speed = measure_rows(local, pairs, run.recipe.benchmark, seed=run.recipe.seed)
    speed |= {row.name: speed[row.measured_as] for row in rows if row.measured_as is not None}
    recipe, changed = recipe_of_models(run, rows)
    bootstrap = Bootstrap(run.recipe.benchmark.bootstrap, run.recipe.seed)
    result = {
        "title": run.recipe.name,
        "inputs": inputs,
        "recipe": recipe,
        **assemble(
            rows,
            scored,
            speed,
            pairs,
            bootstrap=bootstrap,
            comparisons=_comparisons(rows),
        ),
    }
    calibrated = _calibrated(run, rows, scored, bootstrap)
    result["rows"] = [row | calibrated.get(row["name"], {}) for row in result["rows"]]
    result["notes"] = [
        *dict.fromkeys([*run.for_teachers.split.notes, *run.learned.notes]),
        *changed,
        *_notes(run, rows, speed),
        *teacher_export_notes(run),
        *calibration_notes(result["rows"], pairs),
        *said_of_pairs(pairs, result["primary_metric"]),
        *said_of_quality(result),
    ]
    result["data"]["source"] = run.stated.data.evaluation or run.stated.data.train
    write_model_cards(run, result, models)
    write_report(result, run.report)  # last: once it exists, the stage is finished
    log.info("report: %s", run.report / "index.html")


def _is_of(report: Path, inputs: Mapping[str, Any]) -> bool:
    """Tell whether a report is there and has these inputs; one that cannot be read is made again."""
    try:
        return report.is_file() and read_json(report).get("inputs") == inputs
    except BadInput as error:
        log.warning("%s; the report is made again", error)
        return False


def _calibrated(
    run: Run, rows: Sequence[BenchmarkEntry], scored: Mapping[str, "Scored"], bootstrap: Bootstrap
) -> dict[str, dict[str, Any]]:
    """Return by name the calibration entries of rows with a calibration, and the teacher's operating point."""
    pairs, added = run.split.evaluation, dict[str, dict[str, Any]]()
    for row in rows:
        if row.role in _OURS:
            own, kind = scored[row.name], run.student_section.kind
            calibration = measured_calibration(row.path, kind, own.scores, own.unit, pairs, bootstrap)
            added |= {} if calibration is None else {row.name: {"calibration": calibration}}
    point = None if run.recipe.student is None else run.recipe.student.calibration.threshold
    teacher = next((row for row in rows if row.role == "teacher" and row.name == primary_teacher(run)), None)
    # a black box does not score the validation pairs: only this would need them, and calls cost money
    if point is None or teacher is None or not added or (teacher.black_box is not None and point.value is None):
        return added
    entry, validation = teacher, run.split.validation
    operating_point = teacher_operating_point(
        point,
        scored[entry.name].scores,
        pairs,
        lambda: score_row(run, entry, validation).scores,
        validation,
        bootstrap,
    )
    return added if operating_point is None else added | {entry.name: {"operating_point": operating_point}}


def check_remote_baselines(run: Run) -> None:
    """Check before hours of training that the report can call its remote baselines, and log what it will send.

    Only missing vectors are requested. A baseline whose vectors are stored already is not checked.

    :raises BadInput: if a key or a price is missing
    """
    for name, baseline in run.recipe.benchmark.baselines.items():
        if not isinstance(baseline, Remote) or has_kept_vectors(run.baseline(name), baseline):
            continue
        baseline.endpoint.key()
        price, pairs = baseline.endpoint.price, run.split.evaluation
        texts = list(dict.fromkeys([*pairs.queries, *pairs.documents]))
        cost = price.of(Usage(sum(map(estimated_tokens, texts))))
        where = baseline.endpoint.base_url
        log.info("baseline %s will send %d texts to %s, about %s", name, len(texts), where, in_dollars(cost))


def assemble(
    rows: Sequence[BenchmarkEntry],
    scored: Mapping[str, "Scored"],
    speed: Mapping[str, Mapping[str, Any]],
    pairs: Pairs,
    *,
    bootstrap: Bootstrap,
    comparisons: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """Combine scores and measurements into the content of `benchmark.json`.

    Shares and speed-ups refer to the first teacher's row; without one there are none.

    :param speed: the result of `measure_all`, by name; a missing row was not measured
    :param comparisons: names of two rows each, beside teachers, student and exports with the floor; rows without scores
        are skipped
    """
    teacher = next((row.name for row in rows if row.role == "teacher"), None)
    problems = {row.name: problem_of(scored[row.name].scores) for row in rows}
    compared_with = None if teacher is None or problems[teacher] is not None else teacher
    quality = _Quality(scored, pairs, bootstrap, compared_with)
    metrics = {row.name: quality.metrics(row.name) for row in rows}
    sound = [row.name for row in rows if problems[row.name] is None] or [rows[0].name]
    primary = primary_metric(metrics[compared_with or sound[0]], pairs.labels)
    described = [_described(row, scored[row.name].n_parameters, metrics, speed, teacher) for row in rows]
    described = [{**row, "problem": problem} if (problem := problems[row["name"]]) else row for row in described]
    untrained = [
        row.name for row in rows if row.role == "untrained" and row.name in sound and primary in metrics[row.name]
    ]
    for row in described:
        if untrained and row["role"] == "student" and row["name"] in sound and primary in row["metrics"]:
            difference = quality.difference(primary, row["name"], untrained[0])
            row["over_untrained"] = {name: difference[name] for name in ("value", "low", "high")}
    broken = is_broken(described, primary)
    floor = floor_of(described, primary)
    with_floor = [(row.name, str(floor["name"])) for row in rows if floor is not None and row.role in _BESIDE_FLOOR]
    compared = [
        quality.difference(primary, first, second)
        | ({"broken_control": True} if broken and second == "control" else {})
        for first, second in [*comparisons, *with_floor]
        if first in sound and second in sound and primary in metrics[first] and primary in metrics[second]
    ]
    return {
        "primary_metric": primary,
        "data": {
            "n_pairs": len(pairs),
            "n_queries": len(set(pairs.queries)),
            "fingerprint": pairs.fingerprint(),
        },
        "environment": environment(),
        "measuring": _measuring(speed),
        "rows": with_split(with_standing(described, pairs.labels, primary, compared)),
        "comparisons": compared,
    }


@dataclass(frozen=True)
class _Quality:
    """Metrics of rows that scored the same pairs, with intervals over the same resamples."""

    scored: Mapping[str, "Scored"]
    pairs: Pairs
    bootstrap: Bootstrap
    compared_with: str | None
    """The teacher with which the others' agreement is measured; None if its own scores have no meaning."""

    def metrics(self, name: str) -> dict[str, Estimate]:
        """Return every metric that is defined for a row; {} if a score is not finite."""
        own = self.scored[name]
        if not np.isfinite(own.scores).all():
            return {}
        teacher = None if self.compared_with in (None, name) else self.scored[self.compared_with].scores
        return evaluate_scores(
            scores=own.scores,
            **self.pairs.metric_columns,
            unit_scores=own.unit,
            teacher_scores=teacher,
            n_bootstrap=self.bootstrap.n_samples,
            seed=self.bootstrap.seed,
        )

    def difference(self, metric: str, first: str, second: str) -> dict[str, Any]:
        """Return how much better the first of two rows is."""
        columns = (
            ScoredColumns.checked(self.scored[name].scores, **self.pairs.metric_columns) for name in (first, second)
        )
        difference = paired_difference(metric, *columns, n_bootstrap=self.bootstrap.n_samples, seed=self.bootstrap.seed)
        return {"name": f"{first} − {second}", "metric": metric, **difference.to_dict()}


def _measuring(speed: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return how the measurement ended, with the widest interval and its row's name; {} without a measurement."""
    names = list(speed)
    measuring = dict(speed[names[0]]["measuring"]) if names and "measuring" in speed[names[0]] else {}
    place = measuring.pop("widest_place", None)
    return measuring if place is None else {**measuring, "widest_row": names[place]}


def make_baselines(run: Run) -> None:
    """Write the missing folders of baselines; paragraphs last, because they run another baseline's model."""
    baselines = run.recipe.benchmark.baselines
    for name in sorted(baselines, key=lambda name: isinstance(baselines[name], Paragraphs)):
        make_baseline(run, name)


def make_baseline(run: Run, name: str) -> None:
    """Write the folder of one baseline, unless it exists."""
    baseline = run.recipe.benchmark.baselines[name]
    inputs: dict[str, Any] = {"stage": "baseline", "name": name, "baseline": baseline.model_dump(mode="json")}
    if isinstance(baseline, TfIdf) and baseline.fit == "corpus":
        described = run.learned.describe()
        inputs["data"] = described["train"]
        if run.learned.unpaired:
            inputs["unpaired"] = [described["unlabelled"], described["parallel"]]
        if baseline.is_chosen_by_validation:
            inputs["validation"] = described["validation"]
            inputs["evaluation"] = described["evaluation"]  # its script matters where it differs from that of training
    if isinstance(baseline, Paragraphs):
        inputs["model"] = revision(_inner_folder(run, baseline))
    # a remote baseline is three lines, and a new address does not change its vectors
    if not isinstance(baseline, Remote) and run.is_finished(run.baseline(name), inputs):
        return
    details = {"inputs": inputs}
    texts = (
        floor_texts(run.learned, run.recipe.seed) if isinstance(baseline, TfIdf) and baseline.fit == "corpus" else []
    )
    if isinstance(baseline, TfIdf) and baseline.is_chosen_by_validation:
        baseline, values = choose_tfidf(texts, run.split)
        details["validation"] = values
    artefact = Artefact(
        kind=baseline.kind,
        stage="benchmark",
        fingerprint=content_hash(inputs),
        recipe=run.stated.model_dump(mode="json"),
        details=details,
    )
    with new_folder(run.baseline(name)) as folder:
        if isinstance(baseline, TfIdf):
            write_tfidf(folder, baseline, texts)
        elif isinstance(baseline, Remote):
            write_remote(folder, baseline)
        elif isinstance(baseline, Paragraphs):
            inner = os.path.relpath(_inner_folder(run, baseline), run.baseline(name))
            write_paragraphs(folder, baseline.model_copy(update={"model": inner}))
        else:
            save_model(model_builder(run, baseline)(), folder)
        write_card(folder, artefact)


def _inner_folder(run: Run, baseline: Paragraphs) -> Path:
    model = baseline.model
    if model in run.recipe.teachers:
        return run.teacher(model)
    if model in run.recipe.benchmark.baselines:
        return run.baseline(model)
    return run.student if model == "student" else Path(model)


def _own_remote(run: Run, row: BenchmarkEntry) -> Remote | None:
    """Return the remote baseline of the user's own recipe, which names the server and the key."""
    baseline = run.recipe.benchmark.baselines.get(row.name)
    return baseline if isinstance(baseline, Remote) else None


def _is_remote(run: Run, row: BenchmarkEntry) -> bool:
    return _own_remote(run, row) is not None


def _rows(run: Run) -> list[BenchmarkEntry]:
    """List the rows: matched teacher, other teachers, its exports, student, control, exports, baselines."""
    return [
        *(teacher_row(run, name) for name in measured_teachers(run)),
        *_teacher_export_rows(run),
        *student_rows(run),
        *_baseline_rows(run),
    ]


def _teacher_export_rows(run: Run) -> list[BenchmarkEntry]:
    """Return the rows of the existing exports of the matched teacher."""
    name, rows = matched_teacher(run), []
    for format, precision in wanted_teacher_exports(run):
        folder = run.teacher_export(str(name), precision, format)
        if read_card(folder) is not None:
            label = precision if format == "openvino" else f"{format} {precision}"
            length = run.recipe.models[str(name)].max_length
            rows.append(BenchmarkEntry(f"{name} ({label})", "teacher_export", folder, format, None, length))
    return rows


def teacher_row(run: Run, name: str) -> BenchmarkEntry:
    """Return the row of a finished teacher."""
    run.require(run.teacher(name), "train_teacher")
    box = run.recipe.black_boxes.get(name)
    if isinstance(box, TokenTeacher):
        return BenchmarkEntry(name, "teacher", run.teacher(name), "torch", "fp32", None)
    if box is not None:
        return BenchmarkEntry(name, "teacher", run.teacher(name), None, None, None, black_box=box.form)
    return BenchmarkEntry(name, "teacher", run.teacher(name), "torch", "fp32", run.recipe.models[name].max_length)


def student_rows(run: Run) -> list[BenchmarkEntry]:
    """Return the rows of the student before and after training, its control and its exports; none without a student."""
    recipe = run.recipe
    if recipe.student is None:
        return []
    run.require(run.student, "train_student")
    length, match = recipe.student.max_length, recipe.objectives.embedding_match
    other_side = (
        run.teacher(str(match.teacher)) if recipe.student.asymmetric is not None and match is not None else None
    )
    rows = [
        BenchmarkEntry(
            "untrained", "untrained", run.untrained, "torch", "fp32", length, other_side, measured_as="student"
        ),
        *(_stage_row(run, stage, length, other_side) for stage in run.stages[:-1]),
        BenchmarkEntry("student", "student", run.student, "torch", "fp32", length, other_side),
    ]
    if read_card(run.control) is not None:
        rows.append(
            BenchmarkEntry(
                "control", "control", run.control, "torch", "fp32", length, other_side, measured_as="student"
            )
        )
    for format, precision in recipe.exports:
        folder = run.export(precision, format)
        run.require(folder, "export")
        name = f"student ({precision})" if format == "openvino" else f"student ({format} {precision})"
        rows.append(BenchmarkEntry(name, "export", folder, format, None, length, other_side))
    return rows


def _stage_row(run: Run, stage: Run, length: int, other_side: Path | None) -> BenchmarkEntry:
    """Return the row of the student after an earlier training stage; it has its own speed if a later stage cuts it."""
    is_cut = any(later.builds for later in run.stages[stage.place + 1 :])
    name, measured_as = f"after {stage.name}", None if is_cut else "student"
    return BenchmarkEntry(name, "stage", stage.student, "torch", "fp32", length, other_side, measured_as=measured_as)


def _baseline_rows(run: Run) -> list[BenchmarkEntry]:
    return [
        BenchmarkEntry(name, "baseline", run.baseline(name), None, None, None)
        for name in run.recipe.benchmark.baselines
    ]


def _inputs(run: Run, rows: list[BenchmarkEntry]) -> dict[str, Any]:
    """Return all inputs of the report: models, settings, the seed of the resamples, pairs, and the machine and software of the measurement."""
    revisions = {row.name: getattr(read_card(row.path), "revision", None) for row in rows}
    calibrations = stored_calibrations({row.name: row.path for row in rows if row.role in _OURS})
    return {
        **({"calibrations": calibrations} if calibrations else {}),
        "models": revisions,
        "benchmark": run.recipe.benchmark.model_dump(mode="json"),
        "seed": run.recipe.seed,
        "evaluation": run.split.evaluation.fingerprint(),
        "machine": _machine(),
    }


def _machine() -> dict[str, Any]:
    """Return what numbers depend on beside models, settings and pairs: the machine and its software."""
    machine = environment()
    return {name: machine[name] for name in ("cpu", "cpu_flags", "threads", "memory_gb", "python", "versions")}


def recipe_of_models(run: Run, rows: Sequence[BenchmarkEntry]) -> tuple[dict[str, Any], list[str]]:
    """Return the recipe of the models, as their cards state it, and where it differs from the given recipe.

    A stage may have been run with overrides that are missing now.
    """
    stated: dict[str, Any] = run.stated.model_dump(mode="json")
    recipe: dict[str, Any] = json.loads(json.dumps(stated))
    for row in rows:
        card = read_card(row.path)
        if card is None or row.role in _MADE_OF_A_MODEL:
            continue
        if row.role == "teacher" and row.name in card.recipe.get("teachers", {}):
            recipe["teachers"][row.name] = card.recipe["teachers"][row.name]
        parts = {"student": ("student", "objectives", "data", "stages", "seed"), "export": ("export",)}.get(
            row.role, ()
        )
        recipe |= {part: card.recipe[part] for part in parts if part in card.recipe}
    if recipe.get("student") and stated.get("student"):  # the calibration is fitted by the given recipe
        recipe["student"]["calibration"] = stated["student"]["calibration"]
    found = differences(recipe, stated)
    if not found:
        return recipe, []
    changes = ", ".join(found[:_SHOWN_CHANGES])
    more = f" and {len(found) - _SHOWN_CHANGES} more" if len(found) > _SHOWN_CHANGES else ""
    return recipe, [
        f"The models were made by another recipe than the report was asked for with (made by → given: {changes}{more})."
    ]


@dataclass(frozen=True)
class Scored:
    """What one model says of the evaluation pairs. *Shape:* scores, unit (in [0, 1]): (n_pairs,)."""

    scores: np.ndarray
    unit: np.ndarray
    n_parameters: int | None
    """None where nobody knows."""


def score_row(run: Run, row: BenchmarkEntry, pairs: Pairs) -> Scored:
    """Score pairs of the run's own data, or read the scores that this machine has stored.

    Stored scores serve a killed run, and the other stages: calibration, cascade and report score some of the same pairs.
    `overwrite` scores anew what another process has stored.
    """
    kept = _stored_scores(run, row, pairs)
    stored = None if run.recipe.overwrite and kept not in run.scored_here else _read_scores(kept)
    if stored is not None:
        return stored
    scorer = _opened(run, row)
    n_items = len(pairs) if scorer.kind == "cross_encoder" else len({*pairs.queries, *pairs.documents})
    with progress(f"{row.name}: scoring", n_items) as report, reaching(report, n_items) as count:
        scores = scorer.score(pairs.queries, pairs.documents, progress=count)
    scored = Scored(scores, scorer.unit(scores), scorer.n_parameters)
    kept.parent.mkdir(parents=True, exist_ok=True)  # missing if nothing was trained, as with frozen teachers alone
    with new_file(kept) as temporary:
        known = -1 if scored.n_parameters is None else scored.n_parameters
        np.savez(temporary, scores=scores, unit=scored.unit, n_parameters=known)
    run.scored_here.add(kept)
    return scored


def _read_scores(path: Path) -> Scored | None:
    """Return stored scores; None if there are none, or the file cannot be read, as after a power failure."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file) as stored:
            known = int(stored["n_parameters"])
            return Scored(stored["scores"], stored["unit"], None if known < 0 else known)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s cannot be read (%s); the pairs are scored again", path, error)
        return None


def _stored_scores(run: Run, row: BenchmarkEntry, pairs: Pairs) -> Path:
    """Return the file of a row's scores. All that may change them is in its name: model, opening, pairs, machine."""
    cards = [None if path is None else read_card(path) for path in (row.path, row.other_side)]
    inputs = {
        "models": [None if card is None else (card.revision, card.fingerprint) for card in cards],
        "opening": [row.runtime, row.precision, row.max_length, run.recipe.benchmark.threads],
        "pairs": pairs.fingerprint(),
        "machine": _machine(),
    }
    return run.work / f"scores-{content_hash(inputs)}.npz"


def _opened(run: Run, row: BenchmarkEntry) -> PairScorer | BlackBoxScorer:
    if row.role == "teacher" and row.black_box is not None:
        return open_black_box(run, row.name)
    return open_scorer(
        row.path,
        runtime=row.runtime,
        precision=row.precision,
        n_threads=run.recipe.benchmark.threads,
        max_length=row.max_length,
        other_side=row.other_side,
        own=_own_remote(run, row),
    )


def measure_rows(
    rows: Sequence[BenchmarkEntry], pairs: Pairs, settings: Benchmark, *, seed: int, load: LoadSettings | None = None
) -> dict[str, dict[str, Any]]:
    """Measure models in turns on a sample of the pairs; return the result of `measure_all`, by name.

    The sample is spread evenly over the pairs, so that it has all lengths.
    """
    places = np.unique(np.linspace(0, len(pairs) - 1, min(settings.throughput_pairs, len(pairs))).astype(int))
    sample = pairs.select(places.tolist())
    requests = [
        Request(
            row.path,
            row.name,
            row.runtime,
            row.precision,
            row.threads or settings.threads,
            row.max_length,
            count=row.other_side is not None,  # for a whole model, scoring has counted the parameters
        )
        for row in rows
    ]
    seconds, most_seconds = settings.seconds_for(len(rows))
    measuring = Measuring(
        seconds,
        lengths=settings.lengths,
        seed=seed,
        load=load,
        until=Until(settings.interval, most_seconds),
    )
    with step_progress("measuring") as on_progress:
        measured = measure_all(requests, sample.queries, sample.documents, measuring, on_progress=on_progress)
    return {row.name: result for row, result in zip(rows, measured, strict=True)}


def _described(
    row: BenchmarkEntry,
    n_parameters: int | None,
    metrics: Mapping[str, Mapping[str, Estimate]],
    speed: Mapping[str, Mapping[str, Any]],
    teacher: str | None,
) -> dict[str, Any]:
    """Return one row of `benchmark.json`, in the documented form."""
    measured = {"parameters": n_parameters, **speed[row.name]} if speed.get(row.name) else _unmeasured(row)
    pace = measured["throughput_pairs_per_s"]
    teacher_speed = None if teacher is None else speed.get(teacher)  # a teacher that is not a model has no speed
    kept = {} if teacher in (None, row.name) else retention(metrics[row.name], metrics[teacher])
    return {
        "name": row.name,
        "role": row.role,
        "kind": measured["kind"],
        "runtime": measured["runtime"],
        "precision": measured["precision"],
        "parameters": measured["parameters"],
        "size_mb": measured["size_mb"],
        "peak_memory_mb": measured["peak_memory_mb"],
        "metrics": {name: estimate.to_dict() for name, estimate in metrics[row.name].items()},
        "retention": kept,
        "latency_ms": measured["latency_ms"],
        "throughput_pairs_per_s": pace,
        "speedup": None if pace is None or teacher_speed is None else pace / teacher_speed["throughput_pairs_per_s"],
        **{name: measured[name] for name in _RAW},
        **{name: measured[name] for name in _OPTIONAL if name in measured},
    }


def _unmeasured(row: BenchmarkEntry) -> Mapping[str, Any]:
    return _UNMEASURED if row.black_box is None else {**_UNMEASURED, "kind": row.black_box, "runtime": row.black_box}


def _comparisons(rows: Sequence[BenchmarkEntry]) -> list[tuple[str, str]]:
    """Return the pairs of rows that are compared: student and control, teacher and student, exports and student.

    The floor is not among them: which row that is, only the metrics say.
    """
    teachers = [row.name for row in rows if row.role == "teacher"][:1]
    exports = [(row.name, "student") for row in rows if row.role == "export"]
    exports += [(row.name, teacher) for row in rows if row.role == "teacher_export" for teacher in teachers]
    after = [row.name for row in rows if row.role == "stage"]
    steps = [*pairwise(["untrained", *after, "student"])] if after else []  # the gain of each stage
    stages = [(later, earlier) for earlier, later in steps]
    matched = [(teacher, "student") for teacher in teachers]
    return [("student", "control"), ("control", "untrained"), *matched, *stages, *exports]


def said_of_pairs(pairs: Pairs, metric: str) -> list[str]:
    """Return warnings about evaluation pairs on which little can be measured: labels all alike, or few pairs.

    Each is logged as well.

    :param metric: the primary metric, which is the column that a report shows
    """
    warnings = []
    if pairs.labels is not None and len(pairs) and np.ptp(pairs.labels) == 0:
        shown = f"{METRIC_NAMES.get(metric, metric)} is shown instead"
        if metric == "ablation_mse":
            shown += ": the mean squared difference of scores in [0, 1] and labels, where lower is better"
        warnings.append(f"All labels are {pairs.labels[0]:g}, so no ranking can be measured. {shown}.")
    if len(pairs) < _FEW_PAIRS:
        warnings.append(f"Intervals of so few pairs ({len(pairs)}, fewer than {_FEW_PAIRS}) say nothing.")
    for warning in warnings:
        log.warning(warning)
    return warnings


def said_of_quality(result: Mapping[str, Any]) -> list[str]:
    """Return warnings about a report's rows: no quality, a broken control, a student that did not learn, models worse than TF-IDF.

    Each is logged as well.
    """
    rows, metric = result["rows"], result["primary_metric"]
    warnings = [f"{row['name']}: {row['problem']}." for row in rows if row.get("problem")]
    if is_broken(rows, metric):
        warnings.append(
            "The control is broken: it is worse than the untrained student, so student − control shows nothing."
        )
    for row in rows:
        if (learned := beside_untrained(row, metric)) is not None:
            warnings.append(
                f"{learned}: {row['name']}. `distill doctor` with the recipe says whether its teachers and labels can teach."
            )
    floor = floor_of(rows, metric)
    under = [row["name"] for row in rows if row.get("under_floor") and row["role"] not in _ROLES_NOT_WARNED_OF]
    if floor is not None and under:
        value = floor["metrics"][metric]["value"]
        warnings.append(
            f"Worse than {floor['name']} ({value:.3f}), which counts common terms: {', '.join(under)}. "
            "A better teacher or more labels have to come first."
        )
    level = [str(row["name"]) for row in rows if is_level_with_floor(row, floor, result)]
    if floor is not None and level:
        warnings.append(
            f"Not shown to be better than {floor['name']}: {', '.join(level)}. The interval of the difference includes 0."
        )
    for warning in warnings:
        log.warning(warning)
    return warnings


def _control_notes(run: Run) -> list[str]:
    """Return notes on how the control's label loss was chosen."""
    card = read_card(run.control) if run.recipe.student is not None else None
    control = None if card is None else card.details.get("control")
    if control is None:
        return []
    how = label_loss_in_words(control["loss"], control.get("learning_rate"))
    notes = [f"The control is the same student trained on the labels alone, {control['steps']} steps by {how}."]
    if control["trials"]:
        trials = values_in_words(control["trials"])
        notes.append(f"The control's short trials ({control['trial_steps']} steps), on validation pairs: {trials}.")
    if "in_full" in control:
        notes.append(
            f"The control's trainings in full, on validation pairs: {values_in_words(control['in_full'])}. In full are trained "
            "what is not shown to be worse than the best trial and, while all of it ends below that trial, lower learning "
            "rates; the best of all trainings is the control."
        )
    return notes


def _notes(run: Run, rows: list[BenchmarkEntry], speed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    notes = []
    notes += [
        f"The teacher {row.name} is no model here: {run.recipe.black_boxes[row.name].in_words}. Its parameters, size and "
        "speed are unknown, and it has no row of latency."
        for row in rows
        if row.black_box is not None
    ]
    notes += _cost_notes(run, rows)
    if any(row.black_box is not None for row in rows[:1]):
        notes.append("No × teacher is stated: the teacher that is matched has no speed to compare with.")
    if run.recipe.student is not None and all(row.role != "teacher" for row in rows):
        notes.append("No teacher has a row: no share of its quality and no × teacher is stated.")
    if any(_is_remote(run, row) for row in rows):
        notes.append("The speed of a remote baseline is its network's and is not measured.")
    if any(speed.get(row.name, _UNMEASURED)["precision"] == "bf16" for row in rows):
        notes.append(
            "OpenVINO computes in bf16 by default on a CPU that can; each row states the precision that really ran."
        )
    asymmetric = None if run.recipe.student is None else run.recipe.student.asymmetric
    if asymmetric is not None:
        side = asymmetric.side
        notes.append(
            f"The student reads the {side} side of pairs only: its quality is that of its vectors beside the teacher's of the other side; "
            f"its latency, throughput, memory, size and parameters are of the {side} side alone, where other rows read both."
        )
    if run.recipe.student is not None and all(row.role != "control" for row in rows):
        notes.append("There is no control: how much of the student's quality is the teacher's doing is not shown.")
    card = None if run.recipe.student is None else read_card(run.student)
    cut = {} if card is None else card.details.get("cut_texts", {})
    if cut.get("n_cut"):
        notes.append(
            f"max_length {cut['max_length']} cuts {100 * cut['share']:.1f} % of the student's training texts, which lose {cut['median_lost']} tokens each in the median."
        )
    return [*notes, *_control_notes(run), *_floor_notes(run)]


def _cost_notes(run: Run, rows: list[BenchmarkEntry]) -> list[str]:
    """Return notes on the cost of teachers behind endpoints."""
    costs = {row.name: open_black_box(run, row.name, may_ask=False).cost() for row in rows if row.black_box is not None}
    return [
        f"The answers of {name} have cost this run {in_dollars(cost['dollars'])} ({cost['requests']:,} requests)."
        for name, cost in costs.items()
        if cost is not None
    ]


def _floor_notes(run: Run) -> list[str]:
    """Return notes on the terms of each TF-IDF, if validation chose them."""
    notes = []
    for name, baseline in run.recipe.benchmark.baselines.items():
        if isinstance(baseline, TfIdf) and baseline.is_chosen_by_validation:
            card = read_card(run.baseline(name))
            values = {} if card is None else card.details["validation"]
            notes.append(
                f"{name} counts the terms that rank the validation pairs best ({values_in_words(values)})."
                if values
                else f"{name} counts characters 1–3: evaluation and validation are in different scripts, so validation cannot choose."
            )
    return notes
