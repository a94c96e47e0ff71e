"""Checks, before a student is trained, whether it can learn from these pairs, teachers and cached signals.

The pairs are always checked. Finished and frozen teachers score a few hundred validation pairs. Cached signals are compared with
the teacher's current scores. Nothing is trained, and nothing is written into the run.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from distill.data.cut_texts import sample_cut_texts
from distill.data.pairs import Pairs
from distill.data.splitting import sample
from distill.data.table_writing import table_writer
from distill.diagnosis.findings import Finding, ordered
from distill.diagnosis.scores import (
    check_against_labels,
    check_group_temperature,
    check_same_scores,
    check_scale,
    check_temperature,
    check_wrong_labels,
    suspects,
)
from distill.diagnosis.teachers import check_beside_floor, check_cut, check_prompts, check_tokens
from distill.diagnosis.texts import (
    check_contradictions,
    check_copies,
    check_floor,
    check_labels,
    check_scripts,
    check_sides,
)
from distill.errors import BadInput, MatchDistillError
from distill.files.artefact import read_card, write_json
from distill.files.outputs import output_folder
from distill.metrics.columns import ScoredColumns
from distill.metrics.measures import evaluate_scores, paired_difference, primary_metric
from distill.models.modeling import load_model, save_model
from distill.models.prompts import folder_prompts
from distill.progress import progress, reaching
from distill.recipe.schema import AnyTeacher, Labels, Recipe, Teacher, TokenTeacher
from distill.run import Run
from distill.runtime.opening import load
from distill.runtime.scorer import Scorer
from distill.scorers.baselines import choose_tfidf, floor_texts, term_words, tfidf_cosines
from distill.scorers.black_box import BlackBoxScorer, open_asked
from distill.scorers.token_scorer import TokenScorer
from distill.signals import SignalCache, pair_keys, text_keys
from distill.training.building import model_builder
from distill.training.learnable import all_alike
from teachers.black_boxes import check_black_box, is_trained, mapped_range
from teachers.disagreement import TRAINING_PAIR, Disagreement, find_disagreement, write_disagreement

__all__ = ["Diagnosis", "diagnose", "write_diagnosis"]

log = logging.getLogger(__name__)
_SCORED_AGAIN, _COSINES = (
    32,
    5000,
)  # pairs that are scored again; pairs whose cosines are computed from cached embeddings
_SUSPECTS = 50  # pairs with the largest difference between label and score, listed for a person to read
_SUSPECT_COLUMNS = {"teacher": str, TRAINING_PAIR: int, "query": str, "document": str, "label": float, "score": float}


@dataclass(frozen=True)
class Diagnosis:
    """The findings, problems first, and table rows of the pairs whose label and teacher's score differ most."""

    findings: list[Finding]
    suspects: list[list[Any]] = field(default_factory=list)
    disagreements: list[Disagreement] = field(default_factory=list)
    """For each mixture of teachers, the pairs on which they differ most."""

    @property
    def n_problems(self) -> int:
        """The number of findings that keep a student from learning."""
        return sum(finding.level == "problem" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the findings, without any of the user's texts."""
        return {"n_problems": self.n_problems, "findings": [finding.to_json() for finding in self.findings]}


@dataclass(frozen=True)
class _Floor:
    """TF-IDF as a baseline: the terms it counts, and its cosines on the training and the validation pairs."""

    words: str
    train: np.ndarray
    validation: np.ndarray


def diagnose(run: Run, *, n_pairs: int = 300) -> Diagnosis:
    """Check a recipe's pairs, its finished teachers and their cached signals.

    Each training stage is checked separately.

    :param n_pairs: validation pairs that each teacher scores
    :raises BadInput: if the data cannot be read
    """
    if len(run.stages) == 1:
        return _diagnose(run, n_pairs)
    diagnoses = [_of_stage(str(stage.name), _diagnose(stage, n_pairs)) for stage in run.stages]
    return Diagnosis(
        ordered(finding for diagnosis in diagnoses for finding in diagnosis.findings),
        [row for diagnosis in diagnoses for row in diagnosis.suspects],
        [disagreement for diagnosis in diagnoses for disagreement in diagnosis.disagreements],
    )


def _of_stage(name: str, diagnosis: Diagnosis) -> Diagnosis:
    """Add the name of the training stage to everything that was found."""
    stage = f"stage {name}"
    return Diagnosis(
        [replace(finding, about=f"{stage}: {finding.about}") for finding in diagnosis.findings],
        [[f"{teacher}, {stage}", *row] for teacher, *row in diagnosis.suspects],
        [replace(disagreement, mixture=f"{disagreement.mixture}, {stage}") for disagreement in diagnosis.disagreements],
    )


def _diagnose(run: Run, n_pairs: int) -> Diagnosis:
    split = run.split
    validation = split.validation.select(sample(len(split.validation), n_pairs, run.recipe.seed))
    log.info("doctor: the pairs by TF-IDF")
    texts = floor_texts(run.learned, run.recipe.seed)  # those of the report
    settings, _ = choose_tfidf(texts, split)
    floor = _Floor(term_words(settings), *tfidf_cosines(settings, texts, split.train, validation))
    found = check_scripts(split.train, split.evaluation)
    found += check_sides(split.train, {"evaluation pairs": split.evaluation})
    found += check_labels(split.train, _label_losses(run.recipe))
    found += check_contradictions(split.train)
    found += check_floor(split.train, floor.train)
    log.info("doctor: near copies between training and evaluation pairs")
    copies = check_copies(split.train, split.evaluation)
    # equal texts are near copies too: if near copies are already a warning, drop the split's own note on leaks
    is_warned = any(finding.level == "warning" for finding in copies)
    notes = [note for note in split.notes if not (is_warned and note.startswith("leak: "))]
    found += [*copies, *(Finding("note", "data", "pairs", note) for note in notes)]
    worst: list[list[Any]] = []
    for name, teacher in run.recipe.teachers.items():
        if teacher.kind != "mlm":
            log.info("doctor: teacher %s", name)
            teacher_findings, rows = _examine(run, name, teacher, validation, floor)
            found += teacher_findings
            worst += rows
    found += _layers(run)
    disagreements = []
    for mixture, term in run.recipe.objectives.mixtures().items():
        mixture_findings, disagreement = find_disagreement(run, mixture, term)
        found += mixture_findings
        disagreements += [] if disagreement is None else [disagreement]
    return Diagnosis(ordered(found), worst, disagreements)


def write_diagnosis(diagnosis: Diagnosis, folder: Path, *, overwrite: bool = False) -> None:
    """Write `doctor.json`, and tables of pairs for a person: `suspects.tsv`, and one `disagreement.tsv` per mixture."""
    with output_folder(folder, ours=("doctor.json",), overwrite=overwrite) as temporary:
        write_json(temporary / "doctor.json", diagnosis.to_json())
        with table_writer(temporary / "suspects.tsv", _SUSPECT_COLUMNS) as write:
            for row in diagnosis.suspects:
                write(row)
        for number, disagreement in enumerate(diagnosis.disagreements, start=1):
            name = "disagreement.tsv" if number == 1 else f"disagreement-{number}.tsv"
            write_disagreement(temporary / name, disagreement)


def _examine(
    run: Run, name: str, teacher: AnyTeacher, validation: Pairs, floor: _Floor
) -> tuple[list[Finding], list[list[Any]]]:
    """Return the findings on one teacher, and its suspects."""
    if isinstance(teacher, Teacher):
        scorer, scores, found = _score_with_model(run, name, teacher, validation)
    else:
        scorer, scores, found = _score_with_black_box(run, name, validation)
    about = f"teacher {name}"
    if scorer is None:
        return found, []
    if scores is not None:
        found += check_scale(
            about, scores, teacher.model_kind, score_range=mapped_range(run, name), is_known=is_trained(run, name)
        )
        found += check_against_labels(about, scores, validation.labels, where="validation")
        found += _beside_floor(about, scores, validation, floor)
    try:
        cached = _cached_scores(run, name) if read_card(run.teacher(name)) is not None else None
    except BadInput as problem:
        return [*found, Finding("problem", "stored signals", f"signals of {name}", str(problem))], []
    if cached is None:
        line = "no signals are cached yet" + ("" if scores is None else ": only the teacher itself was looked at")
        return [*found, Finding("note", "signals", about, line)], []
    return [*found, *_signals(run, name, scorer, cached)], _suspects(run, name, cached)


_ScoredTeacher = tuple[
    Scorer | BlackBoxScorer | TokenScorer | None, np.ndarray | None, list[Finding]
]  # None: the teacher cannot score, or not these pairs


def _scores(name: str, scorer: Scorer | BlackBoxScorer | TokenScorer, pairs: Pairs) -> np.ndarray:
    with progress(f"{name}: scoring", len(pairs)) as report, reaching(report, len(pairs)) as count:
        return scorer.score(pairs.queries, pairs.documents, progress=count)


def _score_with_model(run: Run, name: str, teacher: Teacher, pairs: Pairs) -> _ScoredTeacher:
    """Let a trained or frozen model score the pairs; a frozen one is opened even if train-teacher has not copied it."""
    try:
        if read_card(run.teacher(name)) is not None:
            return _score_with_folder(run, name, teacher, pairs, run.teacher(name))
        if not (teacher.frozen and isinstance(teacher.backbone, str)):
            return None, None, [_not_there_yet(run, name)]
        with TemporaryDirectory(prefix="matchdistill-doctor-") as temporary:
            folder = Path(temporary) / "teacher"
            save_model(model_builder(run, teacher)(), folder)
            return _score_with_folder(run, name, teacher, pairs, folder)
    except MatchDistillError as problem:
        return None, None, [Finding("problem", "teacher", f"teacher {name}", str(problem))]


def _score_with_folder(run: Run, name: str, teacher: Teacher, pairs: Pairs, folder: Path) -> _ScoredTeacher:
    scorer = load(folder, runtime="torch", max_length=teacher.max_length)
    scores = _scores(name, scorer, pairs)
    return scorer, scores, list(_reading(run, name, teacher, scorer))


def _score_with_black_box(run: Run, name: str, pairs: Pairs) -> _ScoredTeacher:
    """Let a black box score the pairs, and check that it can answer everything that the recipe will ask."""
    about, box = f"teacher {name}", run.recipe.black_boxes[name]
    scorer: BlackBoxScorer | TokenScorer | None = None
    try:
        check_black_box(run, name, may_ask=False)
    except MatchDistillError as problem:
        return None, None, [Finding("problem", "teacher", about, str(problem).removeprefix(f"{about}: "))]
    found = [Finding("note", "teacher", about, f"{box.nature}: {box.in_words}")]
    if isinstance(box, TokenTeacher) and read_card(run.teacher(name)) is None:
        return None, None, [*found, _not_there_yet(run, name)]
    try:
        scorer = open_asked(run, name, may_ask=False)
        if isinstance(scorer, TokenScorer):
            found += _read_by(about, run, scorer)
        return scorer, _scores(name, scorer, pairs), found
    except BadInput as problem:
        if isinstance(box, TokenTeacher):
            return None, None, [*found, Finding("problem", "teacher", about, str(problem))]
        line = f"what it says of validation pairs is not known, and was not looked at ({str(problem).removeprefix(f'{about}: ')})"
        return scorer, None, [*found, Finding("note", "teacher", about, line)]


def _not_there_yet(run: Run, name: str) -> Finding:
    line = f"not trained yet ({run.teacher(name)} is not there): neither it nor its signals were looked at"
    return Finding("note", "teacher", f"teacher {name}", line, "run train-teacher, then the doctor again")


def _read_by(about: str, run: Run, scorer: TokenScorer) -> Iterator[Finding]:
    """Yield findings on how a token-comparing model reads its texts: unknown tokens, and texts that are too long."""
    queries, documents = (list(dict.fromkeys(side)) for side in (run.split.train.queries, run.split.train.documents))
    yield from check_tokens(about, scorer.tokenizer, list(dict.fromkeys([*queries, *documents])))
    for cut in scorer.cut_texts(queries, documents).values():
        yield from check_cut(about, cut)


def _reading(run: Run, name: str, teacher: Teacher, scorer: Scorer) -> Iterator[Finding]:
    """Yield findings on how a teacher reads its texts: prompts, unknown tokens, and texts that are too long."""
    about, train = f"teacher {name}", run.split.train
    if teacher.model_kind == "bi_encoder":
        yield from check_prompts(about, str(teacher.backbone), folder_prompts(scorer.path))
    yield from check_tokens(about, scorer.tokenizer, list(dict.fromkeys([*train.queries, *train.documents])))
    sides = (train.queries, train.documents)
    texts = sides if teacher.model_kind == "cross_encoder" else ([*train.queries, *train.documents],)
    room = scorer.max_length - scorer.n_template_tokens
    yield from check_cut(about, sample_cut_texts(scorer.tokenizer, *texts, max_length=room))


def _layers(run: Run) -> list[Finding]:
    """Return what makes layer terms unlearnable: layers that do not exist, heads that do not divide a width."""
    from distill.training.layer_terms import LayerLosses
    from distill.training.live_teacher import live_teachers

    objectives, about = run.recipe.objectives, "hidden_match, relation_match"
    if not objectives.live_teachers:
        return []
    missing = [name for name in objectives.live_teachers if read_card(run.teacher(name)) is None]
    if missing or read_card(run.built) is None:
        line = f"layers were not looked at: {'teacher ' + missing[0] if missing else 'the student'} is not there yet"
        return [Finding("note", "layers", about, line, "run build-student, then the doctor again")]
    try:
        LayerLosses(objectives, load_model(run.built), live_teachers(run, objectives))
    except MatchDistillError as problem:
        return [Finding("problem", "layers", about, str(problem))]
    return []


def _label_losses(recipe: Recipe) -> list[str | None]:
    """Return the losses by which the recipe learns from labels."""
    learned: list[str | None] = [
        teacher.loss for teacher in recipe.models.values() if teacher.kind != "mlm" and not teacher.frozen
    ]
    terms = recipe.objectives.label_terms()
    return [*learned, *(term.loss if isinstance(term, Labels) else name for name, term in terms.items())]


def _beside_floor(about: str, scores: np.ndarray, validation: Pairs, floor: _Floor) -> list[Finding]:
    if validation.labels is None or not np.isfinite(scores).all() or np.ptp(validation.labels) == 0:
        return []
    columns = validation.metric_columns
    metrics = evaluate_scores(scores=scores, **columns, seed=0)
    floor_metrics = evaluate_scores(scores=floor.validation, **columns, seed=0)
    metric = primary_metric(metrics, validation.labels)
    if metric not in metrics or metric not in floor_metrics:
        return []
    own_columns, floor_columns = (ScoredColumns.checked(each, **columns) for each in (scores, floor.validation))
    difference = paired_difference(metric, own_columns, floor_columns, seed=0)
    return check_beside_floor(about, metric, metrics[metric].value, floor_metrics[metric].value, difference)


# ---------------------------------------------------------------------------------------------------------------------
# Cached signals
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cached:
    """Cached scores of training pairs: their rows, the scores, and whether they are cosines of cached embeddings.

    `one_vector` tells that all these embeddings are the same.
    """

    rows: np.ndarray
    scores: np.ndarray
    of_embeddings: bool
    one_vector: bool = False


def _cached_scores(run: Run, name: str) -> _Cached | None:
    """Return the cached scores of the training pairs; None if nothing of this teacher is cached.

    :raises BadInput: if a shard is damaged
    """
    cache, train = SignalCache(run.signals(name), run.signal_identity(name)), run.split.train
    rows = cache.known("scores", pair_keys(train.queries, train.documents))
    cached = np.flatnonzero(rows >= 0)
    if len(cached):
        return _Cached(cached, cache.read("scores", rows[cached]), of_embeddings=False)
    chosen = np.array(sample(len(train), _COSINES, run.recipe.seed), dtype=np.int64)
    part, prompts = train.select(chosen.tolist()), run.teacher_prompts(name)
    query_rows = cache.known("embeddings", text_keys(part.queries, prompts[0]))
    document_rows = cache.known("embeddings", text_keys(part.documents, prompts[1]))
    cached = np.flatnonzero((query_rows >= 0) & (document_rows >= 0))
    if not len(cached):
        return None
    sides = [cache.read("embeddings", rows[cached]) for rows in (query_rows, document_rows)]
    norms = [np.linalg.norm(side, axis=1) for side in sides]
    cosines = (sides[0] * sides[1]).sum(axis=1) / np.maximum(norms[0] * norms[1], 1e-12)
    return _Cached(chosen[cached], cosines, of_embeddings=True, one_vector=all_alike(np.concatenate(sides)))


def _signals(run: Run, name: str, scorer: Scorer | BlackBoxScorer | TokenScorer, cached: _Cached) -> list[Finding]:
    """Return the findings on cached scores: their scale, validity, and the effect of the temperature."""
    about, train = f"signals of {name}", run.split.train
    kind, labels = run.recipe.teachers[name].model_kind, train.labels
    if cached.one_vector:
        line = f"the embeddings of {len(cached.rows):,} training pairs are all the same vector"
        return [Finding("problem", "constant", about, line, "take another teacher: a student learns nothing from it")]
    found = check_scale(about, cached.scores, kind, score_range=mapped_range(run, name), is_known=is_trained(run, name))
    finite = np.isfinite(cached.scores)
    rows, scores = cached.rows[finite], cached.scores[finite]
    known_labels = None if labels is None else labels[rows]
    found += check_against_labels(about, scores, known_labels, where="training")
    repeated = np.array(sample(len(rows), _SCORED_AGAIN, run.recipe.seed), dtype=np.int64)
    part = train.select(rows[repeated].tolist())
    try:
        new_scores = _scores(name, scorer, part)
        spread = float(scores.std()) if len(scores) else 0.0
        found += check_same_scores(about, scores[repeated], new_scores, spread=spread)
    except BadInput as problem:  # a black box that has no answer any more, or whose server may not be asked here
        found.append(
            Finding("note", "stored signals", about, f"not compared with the teacher's own scores ({problem})")
        )
    if not cached.of_embeddings:
        found += _temperature(run.recipe, name, scores, train.select(rows.tolist()))
    if known_labels is not None:
        found += check_wrong_labels(about, scores, known_labels)
    return found


def _temperature(recipe: Recipe, name: str, scores: np.ndarray, pairs: Pairs) -> list[Finding]:
    import torch

    from distill.training.objectives import teacher_logits, teacher_unit

    match, kind = recipe.objectives.score_match, recipe.teachers[name].model_kind
    if match is None or match.teacher != name or match.loss == "logit_mse" or not len(scores):
        return []
    about, score_tensor = f"score_match of {name}", torch.from_numpy(scores.astype(np.float64))
    temperature = match.teacher_temperature or match.temperature
    setting = "score_match.temperature" if match.teacher_temperature is None else "score_match.teacher_temperature"
    if match.loss == "mse":  # it has no temperature
        setting = f"score_match.loss to bce and {setting}"
    if match.loss == "kl":
        ids = pairs.query_ids
        groups = np.split(np.argsort(ids, kind="stable"), np.cumsum(np.bincount(ids))[:-1])
        return check_group_temperature(
            about,
            teacher_logits(score_tensor, kind, recipe.objectives.teacher_logit_scale).numpy(),
            groups,
            temperature,
            setting=setting,
        )
    units = teacher_unit(score_tensor, kind, temperature).numpy()
    plain_units = teacher_unit(score_tensor, kind).clamp(1e-6, 1 - 1e-6)
    return check_temperature(about, units, temperature, torch.logit(plain_units).numpy(), setting=setting)


def _suspects(run: Run, name: str, cached: _Cached) -> list[list[Any]]:
    """Return the pairs on which the teacher's score and the label differ most, as rows of the table."""
    train = run.split.train
    if train.labels is None:
        return []
    finite = np.isfinite(cached.scores)
    rows, scores = cached.rows[finite], cached.scores[finite]
    if len(rows) < 2 or np.ptp(train.labels[rows]) == 0:
        return []
    worst = suspects(scores, train.labels[rows], _SUSPECTS)
    return [
        [name, int(row) + 1, train.queries[row], train.documents[row], float(train.labels[row]), float(score)]
        for row, score in zip(rows[worst].tolist(), scores[worst].tolist(), strict=True)
    ]
