"""Check that the sections of a recipe agree: return one line per problem, with its place and a remedy.

The functions are pure and in the order of the recipe. `distill.recipe.schema` calls them for every recipe, so this
module imports its classes for type hints only. The attributes `kind` and `form` tell the forms of a section apart.
"""

from __future__ import annotations

import difflib
import os.path
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.recipe.black_box import BlackBox
    from distill.recipe.schema import (
        Backbone,
        Export,
        FreshBackbone,
        LabelLoss,
        Labels,
        Objectives,
        Recipe,
        Signals,
        SoleLoss,
        Student,
        Teacher,
        TrainingStage,
    )
    from distill.recipe.section import Section

__all__ = ["LABEL_LOSSES", "SOLE_LOSSES", "problems_of", "suggest"]

LABEL_LOSSES: Mapping[str, tuple[LabelLoss, ...]] = {
    "cross_encoder": ("bce", "mse"),
    "bi_encoder": ("contrastive", "bce", "infonce"),
    "mlm": (),
}
"""The losses of `objectives.labels` for each kind of model; the default is the first."""
SOLE_LOSSES: Mapping[str, tuple[SoleLoss, ...]] = {
    kind: (*LABEL_LOSSES[kind], "cosent") for kind in ("cross_encoder", "bi_encoder")
}
"""The label losses for teachers and the control, by kind of model; the default is the first."""
_ROWS_OF_THE_STUDENT = ("untrained", "student", "control")
_ON_LAYERS = ("hidden_match", "relation_match")
_LISTS = ("listnet", "ranknet", "lambda_loss", "list_mle", "adr_mse")
_NOT_FOR_MLM = ("frozen", "head", "loss", "prompts", "lora")


def problems_of(recipe: Recipe) -> list[str]:
    """Return the contradictions between the sections of a recipe; [] if there are none."""
    return [
        *_home_problems(recipe),
        *_column_problems(recipe),
        *_teacher_problems(recipe),
        *_student_problems(recipe),
        *(_stage_problems(recipe) if recipe.stages else _learning_problems(recipe)),
        *_live_problems(recipe.signals),
        *_export_problems(recipe.export),
        *_recover_problems(recipe),
        *_benchmark_problems(recipe),
        *_baseline_problems(recipe),
        *_cascade_problems(recipe),
        *_plan_problems(recipe),
    ]


def _home_problems(recipe: Recipe) -> list[str]:
    """Refuse a folder to write whose path begins with ~, which only a shell replaces: a folder of that name would be made."""
    boxes = {f"teachers.{name}": box for name, box in recipe.black_boxes.items()}
    scorers = boxes | {f"benchmark.baselines.{name}": made for name, made in recipe.benchmark.baselines.items()}
    places = {"output_dir": recipe.output_dir} | {
        f"{place}.cache": getattr(scorer, "cache", None) for place, scorer in scorers.items()
    }
    return [
        f"{place}: {path}: ~ is not the home folder here; write the whole path"
        for place, path in places.items()
        if path is not None and path.startswith("~")
    ]


def _column_problems(recipe: Recipe) -> list[str]:
    sections = {"data": recipe.data} | {
        f"stages.{name}.data": stage.data for name, stage in recipe.stages.items() if stage.data is not None
    }
    named = {f"{place}.columns": data.columns for place, data in sections.items()} | {
        f"{place}.{key}.{number}.columns": source.columns
        for place, data in sections.items()
        for key in ("labelled_pairs", "unlabelled_pairs")
        for number, source in enumerate(getattr(data, key))
    }
    return [
        f"{place}: query and document are both {columns.query!r}, so each text would be matched with itself"
        for place, columns in named.items()
        if columns is not None and columns.query == columns.document
    ]


def _learning_problems(recipe: Recipe) -> list[str]:
    """Return the problems of one stage's objectives and data."""
    return [
        *_learned_problems(recipe),
        *(f"data.{name}: {problem}" for name, problem in _idle_data(recipe).items()),
    ]


def _learned_problems(recipe: Recipe) -> list[str]:
    student = recipe.student
    return [
        *([] if student is None else _dimension_problems(student, recipe.objectives)),
        *_objective_problems(recipe),
        *_black_box_problems(recipe),
        *_unlabelled_pair_problems(recipe),
    ]


def _stage_problems(recipe: Recipe) -> list[str]:
    """Return the problems of each stage, and of the stages together."""
    if recipe.student is None:
        return ["stages: there is no student to train in stages; add the section student"]
    problems = _cut_problems(recipe, recipe.student) + _heir_problems(recipe)
    for (name, stage), own in zip(recipe.stages.items(), recipe.in_stages, strict=True):
        problems += [_placed(name, stage, problem) for problem in _learned_problems(own)]
    return list(dict.fromkeys([*problems, *_idle_stage_data(recipe)]))


def _placed(name: str, stage: TrainingStage, problem: str) -> str:
    """Put the stage's name before a problem, if the problem is one of that stage."""
    of_stage = problem.startswith(("objectives", "data.")) or (
        problem.startswith("student.dimensions") and stage.student is not None
    )
    return f"stages.{name}.{problem}" if of_stage else problem


def _heir_problems(recipe: Recipe) -> list[str]:
    """Refuse keys that no stage may change, and keys of the recipe that every stage overrides."""
    problems = [
        f"stages.{name}.data.{key}: all stages are judged on the recipe's evaluation pairs; set data.{key}"
        for name, stage in recipe.stages.items()
        for key in ("evaluation", "evaluation_share")
        if stage.data is not None and getattr(stage.data, key) != getattr(recipe.data, key)
    ]
    heirs = [name for name, stage in recipe.stages.items() if stage.objectives is None]
    if not heirs and recipe.objectives != type(recipe.objectives)():
        problems.append("objectives: every stage has objectives of its own; leave them out here, or there")
    student = recipe.student
    indexes = {own.objectives.embedding_match.taught_by for own in recipe.in_stages if own.objectives.embedding_match}
    if student is not None and student.asymmetric is not None and len(indexes) > 1:
        problems.append(
            "stages: an asymmetric student has one index; name the same teacher in embedding_match of all stages"
        )
    return problems


def _cut_problems(recipe: Recipe, student: Student) -> list[str]:
    """Refuse cuts that a stage cannot make."""
    problems, first = [], next(iter(recipe.stages))
    is_factorised, width = student.embedding_rank is not None, student.dimensions
    for name, stage in recipe.stages.items():
        where, cut = f"stages.{name}.student", stage.student
        if cut is None:
            continue
        if name == first:
            problems.append(f"{where}: the first stage trains what the section student builds; cut there")
        if student.static is not None:
            set_keys = [key for key in ("layers", "width", "embedding_rank") if getattr(cut, key) is not None]
            problems += [f"{where}.{key}: means nothing for a static student; leave it out" for key in set_keys]
        if cut.embedding_rank is not None and is_factorised:
            problems.append(f"{where}.embedding_rank: the word embeddings are a product already; leave it out")
        if cut.dimensions is not None and width is not None and cut.dimensions >= width:
            problems.append(f"{where}.dimensions: {cut.dimensions} of {width} takes nothing away; set fewer")
        is_factorised, width = is_factorised or cut.embedding_rank is not None, cut.dimensions or width
    return problems


def _idle_stage_data(recipe: Recipe) -> list[str]:
    """Refuse data that a stage sets and does not use, and data of the recipe that no stage uses."""
    # a teacher of kind mlm learns from the recipe's own text, not from a stage's
    idle = [_idle_data(own, is_adapted=own.data.unlabelled == recipe.data.unlabelled) for own in recipe.in_stages]
    problems = [
        f"stages.{name}.data.{key}: {problem}"
        for (name, stage), found in zip(recipe.stages.items(), idle, strict=True)
        for key, problem in found.items()
        if stage.data is not None and getattr(stage.data, key) != getattr(recipe.data, key)
    ]
    for key, problem in idle[0].items():
        if getattr(recipe.data, key) and all(key in found for found in idle):
            problems.append(f"data.{key}: {problem}")
    return problems


def suggest(name: str, known: Sequence[str]) -> str:
    """Return a suggestion for an unknown name: the nearest known name, else all known names.

    >>> suggest("frosen", ["kind", "frozen"]), suggest("zzz", ["kind", "frozen"])
    ("did you mean 'frozen'?", 'known: frozen, kind')
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"


def _teacher_problems(recipe: Recipe) -> list[str]:
    problems = []
    earlier: list[str] = []
    problems += [
        f"teachers.{name}: the report calls a row {name} that is no teacher; choose another name"
        for name in recipe.teachers
        if name in _ROWS_OF_THE_STUDENT
    ]
    for name, teacher in recipe.models.items():
        where, parent = f"teachers.{name}", _teacher_in(teacher.backbone)
        if parent is not None and parent in recipe.black_boxes:
            problems.append(_no_weights(f"{where}.backbone.teacher", parent, recipe))
        elif parent is not None and parent not in earlier:
            known = ", ".join(earlier) or "none"
            problems.append(f"{where}.backbone.teacher: no earlier teacher is called {parent!r}; earlier: {known}")
        earlier.append(name)
        if teacher.frozen and _fresh_in(teacher.backbone):
            problems.append(f"{where}.frozen: a fresh encoder knows nothing yet; train it (frozen: false)")
        problems += _mlm_problems(where, teacher)
        if teacher.kind != "mlm":
            problems += _sole_loss_problems(f"{where}.loss", teacher, teacher.loss, recipe)
        problems += _infonce_problems(where, teacher)
        problems += _text_problems(where, teacher)
    return problems


def _mlm_problems(where: str, teacher: Teacher) -> list[str]:
    if teacher.kind != "mlm":
        return (
            [] if teacher.mlm is None else [f"{where}.mlm: only a teacher of kind mlm has it, this is a {teacher.kind}"]
        )
    set_keys = [name for name in _NOT_FOR_MLM if getattr(teacher, name) not in (None, False)]
    return [f"{where}.{name}: means nothing for kind mlm; leave it out" for name in set_keys]


def _student_problems(recipe: Recipe) -> list[str]:
    student = recipe.student
    if student is None:
        return []
    parent, problems = _teacher_in(student.backbone), []
    if parent is not None and parent not in recipe.models:
        problems.append(_no_weights("student.backbone.teacher", parent, recipe))
    problems += _static_problems(student)
    if not isinstance(student.control, bool):
        problems += _sole_loss_problems("student.control.loss", student, student.control.loss, recipe)
    point = student.calibration.threshold
    if point is not None and point.value is not None and not recipe.teachers:
        problems.append(
            "student.calibration.threshold.value: it is a teacher's threshold, and there is no teacher; name precision or recall"
        )
    return problems + _text_problems("student", student)


def _static_problems(student: Student) -> list[str]:
    if student.static is None:
        return []
    problems = []
    if student.kind == "cross_encoder":
        problems.append(
            "student.static: a table of token vectors embeds one text alone; set student.kind to bi_encoder"
        )
    if _fresh_in(student.backbone):
        problems.append("student.static: a fresh encoder has nothing to put into the table; name a teacher or a model")
    set_keys = [name for name in ("layers", "head", "embedding_rank") if getattr(student, name) is not None]
    return problems + [f"student.{name}: means nothing for a static student; leave it out" for name in set_keys]


def _dimension_problems(student: Student, objectives: Objectives) -> list[str]:
    problems = []
    if student.dimensions is not None and student.kind == "cross_encoder":
        problems.append("student.dimensions: a cross-encoder puts out one score; dimensions are for bi-encoders")
    if student.dimensions is not None and student.asymmetric is not None:
        problems.append("student.dimensions: an asymmetric student writes into the teacher's whole space; leave it out")
    if objectives.matryoshka is None:
        return problems
    where = "objectives.matryoshka"
    if student.kind == "cross_encoder":
        return [*problems, f"{where}: a cross-encoder has no embeddings to cut short"]
    if student.dimensions is None:
        return [*problems, f"{where}: set student.dimensions too, the width of the whole embedding (say 384)"]
    problems += [
        f"{where}: {width} is more than student.dimensions, {student.dimensions}"
        for width in objectives.matryoshka.dimensions
        if width > student.dimensions
    ]
    match = objectives.embedding_match
    if match is not None and match.projection == "drop":
        problems.append(
            f"{where}: each width would need a projection of its own; set embedding_match.projection to keep"
        )
    return problems


def _text_problems(where: str, section: Teacher | Student) -> list[str]:
    if section.prompts is not None and section.kind == "cross_encoder":
        return [f"{where}.prompts: a cross-encoder reads both texts at once; prompts are for bi-encoders"]
    fresh = _fresh_in(section.backbone)
    if fresh and section.max_length > fresh.max_length:
        return [f"{where}.max_length: {section.max_length} is more than the fresh backbone's {fresh.max_length}"]
    return []


def _loss_problems(where: str, loss: str | None, kind: str, known: Mapping[str, Sequence[str]]) -> list[str]:
    if loss is not None and loss not in known[kind]:
        return [f"{where}: a {kind} learns labels by {' or '.join(known[kind])}, not {loss}"]
    return []


def _sole_loss_problems(where: str, model: Teacher | Student, loss: str | None, recipe: Recipe) -> list[str]:
    problems = _loss_problems(where, loss, model.kind, SOLE_LOSSES)
    return problems + (_cosent_problems(where, recipe, model) if loss == "cosent" else [])


def _cosent_problems(where: str, recipe: Recipe, model: Teacher | Student) -> list[str]:
    """Refuse steps of a single pair, because cosent compares the pairs of a step."""
    if model.training.global_batch * (recipe.data.candidates or 1) < 2:
        return [
            f"{where}: cosent compares the pairs of a step, and a step holds one; set training.global_batch (say 32)"
        ]
    return []


def _objective_problems(recipe: Recipe) -> list[str]:
    objectives, student = recipe.objectives, recipe.student
    term_names = [name for name, _ in objectives if name not in ("matryoshka", "logit_scale", "teacher_logit_scale")]
    terms = objectives.terms()
    if student is None:
        idle = terms or objectives.matryoshka
        return ["objectives: there is no student to learn by them; add the section student"] if idle else []
    if not terms:
        return [f"objectives: the student learns nothing; set one of {', '.join(term_names)}"]
    problems = []
    for name, term in terms.items():
        for teacher, signal in term.needs():
            where = f"objectives.{name}.guide.teacher" if name == "labels" else f"objectives.{name}.teacher"
            where += "s" * (getattr(term, "teachers", None) is not None)
            problems += _named_teacher_problems(where, teacher, signal, recipe)
    if objectives.labels is not None:
        problems += _loss_problems("objectives.labels.loss", objectives.labels.loss, student.kind, LABEL_LOSSES)
    problems += (
        _script_problems(recipe, student)
        + _candidate_problems(recipe)
        + _schedule_problems(objectives)
        + ([] if objectives.cosent is None else _cosent_problems("objectives.cosent", recipe, student))
    )
    problems += _unused_problems(recipe, student)
    problems += _layer_problems(recipe, student)
    return problems + _embedding_problems(recipe, student) + _asymmetric_problems(recipe, student)


def _unused_problems(recipe: Recipe, student: Student) -> list[str]:
    """Refuse settings of objectives that differ from their default but have no effect."""
    objectives, terms, problems = recipe.objectives, recipe.objectives.terms().values(), []
    teachers = [getattr(term, "teacher", None) for term in terms if term.compares_teacher_logits]
    has_cosines = student.kind == "bi_encoder" and any(term.compares_logits for term in terms)
    if objectives.logit_scale != _default(objectives, "logit_scale") and not has_cosines:
        problems.append("objectives.logit_scale: changes nothing here; it is for a bi_encoder whose terms need logits")
    if objectives.teacher_logit_scale != _default(objectives, "teacher_logit_scale") and not any(
        name in recipe.teachers and recipe.teachers[name].model_kind == "bi_encoder" for name in teachers
    ):
        problems.append(
            "objectives.teacher_logit_scale: changes nothing here; it is for a bi_encoder teacher in terms that need logits"
        )
    return problems + ([] if objectives.labels is None else _infonce_problems("objectives.labels", objectives.labels))


def _infonce_problems(where: str, section: Teacher | Labels) -> list[str]:
    """Refuse settings of InfoNCE if the labels are learned with another loss."""
    return [
        f"{where}.{name}: changes nothing without loss infonce; leave it out"
        for name in ("temperature", "positive_from")
        if section.loss != "infonce" and getattr(section, name) != _default(section, name)
    ]


def _default(section: Section, name: str) -> object:
    return type(section).model_fields[name].default


def _named_teacher_problems(where: str, teacher: str, signal: str, recipe: Recipe) -> list[str]:
    if teacher not in recipe.teachers:
        return [_unknown_teacher(where, teacher, recipe)]
    box, kind = recipe.black_boxes.get(teacher), recipe.teachers[teacher].kind
    if box is not None:
        return _signal_problems(where, teacher, box, signal)
    if kind == "mlm":
        return [f"{where}: {teacher} is of kind mlm, an encoder to start from; it has learned no labels to teach"]
    if kind == "cross_encoder" and signal == "embeddings":
        return [f"{where}: {teacher} is a cross-encoder; only a bi-encoder has text embeddings"]
    return []


def _signal_problems(where: str, teacher: str, box: BlackBox, signal: str) -> list[str]:
    """Refuse a black box without the signal that a term needs. Embeddings serve as scores, too: their cosines."""
    if signal == "embeddings" and not box.has_embeddings:
        return [f"{where}: {teacher} gives scores of pairs; this term needs a teacher that gives embeddings of texts"]
    return []


def _script_problems(recipe: Recipe, student: Student) -> list[str]:
    """Refuse `scripts` of a teacher if every text needs an embedding, or every pair a score, or if it has no effect."""
    problems, terms = [], recipe.objectives.terms()
    needs = {
        name: {(key, signal) for key, term in terms.items() for to, signal in term.needs() if to == name}
        for name in recipe.teachers
    }
    for name, teacher in recipe.teachers.items():
        where = f"teachers.{name}.scripts"
        if teacher.scripts is None:
            continue
        shows_layers = name in recipe.objectives.live_teachers and teacher.model_kind == "bi_encoder"
        if not shows_layers and not any(signal == "embeddings" for _, signal in needs[name]):
            problems.append(f"{where}: changes nothing here; it is for teachers whose embeddings or layers are learned")
        for key, signal in sorted(needs[name]):
            if signal == "scores":
                problems.append(
                    f"{where}: objectives.{key} learns its scores, and pairs in other scripts would have none; leave one of them out"
                )
            elif key == "labels":
                problems.append(
                    f"{where}: a guide of objectives.labels has to read every text; leave scripts or guide out"
                )
        if student.asymmetric is not None:
            problems.append(
                f"{where}: a teacher that serves the other side of pairs has to read every text; leave it out"
            )
    return problems


def _black_box_problems(recipe: Recipe) -> list[str]:
    """Refuse settings that need a model from a teacher that is a black box."""
    boxes, student = recipe.black_boxes, recipe.student
    match = recipe.objectives.embedding_match
    problems = []
    if boxes and recipe.signals.live:
        problems.append(
            f"signals.live: {next(iter(boxes))} is no model that could be asked during training; leave it out: what it says is cached"
        )
    if student is not None and student.asymmetric is not None and match is not None:
        if match.teachers is not None:
            problems.append(
                "student.asymmetric: one teacher serves the other side of pairs; name one in embedding_match.teacher"
            )
        elif match.teacher in boxes:
            problems.append(
                f"student.asymmetric: {match.teacher} is no model that could serve the other side of pairs; leave asymmetric out"
            )
    if recipe.cascade.teacher in boxes:
        problems.append(_no_weights("cascade.teacher", str(recipe.cascade.teacher), recipe, "to ask unsure pairs"))
    return problems


def _no_weights(where: str, name: str, recipe: Recipe, purpose: str = "to start from") -> str:
    """Return why a name cannot be used as a model: there is no such teacher, or it is a black box."""
    if name not in recipe.teachers:
        return _unknown_teacher(where, name, recipe)
    known = ", ".join(recipe.models) or "none"
    return f"{where}: {name} is of kind {recipe.teachers[name].kind}, no model {purpose}; models among the teachers: {known}"


def _schedule_problems(objectives: Objectives) -> list[str]:
    """Refuse schedules that leave a part of the training without any term."""
    schedules = [term.schedule for term in objectives.terms().values() if term.schedule is not None]
    places = sorted({0.0, 1.0, *(place for schedule in schedules for place in (schedule.start, schedule.end))})
    for start, end in pairwise(places):
        if not any(objectives.factors((start + end) / 2).values()):
            return [
                f"objectives: nothing is learned from {start:g} to {end:g} of the steps, all terms are scheduled to 0 there; "
                "change a schedule, or leave one out"
            ]
    return []


def _unlabelled_pair_problems(recipe: Recipe) -> list[str]:
    problems = []
    for number, source in enumerate(recipe.data.unlabelled_pairs):
        where, name = f"data.unlabelled_pairs.{number}.from", source.teacher
        if name is not None and name not in recipe.models:
            problems.append(_no_weights(where, name, recipe, "to find pairs with"))
        elif name is not None and recipe.teachers[name].kind != "bi_encoder":
            problems.append(f"{where}: {name} is a {recipe.teachers[name].kind}; a bi_encoder finds pairs")
    return problems


def _idle_data(recipe: Recipe, *, is_adapted: bool = True) -> dict[str, str]:
    """Return the data keys that nothing learns from, each with the reason.

    :param is_adapted: whether a teacher of kind mlm, if there is one, learns from these texts without pairs
    """
    objectives, student, idle = recipe.objectives, recipe.student, dict[str, str]()
    if student is None:
        return idle
    if recipe.data.unlabelled_pairs and not objectives.from_teachers:
        idle["unlabelled_pairs"] = (
            "the student learns from no teacher, and pairs without labels say nothing else; "
            "set objectives.score_match, or drop them"
        )
    if not objectives.terms():
        return idle
    is_read = is_adapted and any(teacher.kind == "mlm" for teacher in recipe.teachers.values())
    is_read = is_read or student.vocabulary is not None or (objectives.from_texts and student.kind == "bi_encoder")
    if recipe.data.unlabelled and not is_read:
        idle["unlabelled"] = (
            "only a bi-encoder's objectives on embeddings (embedding_match, rkd, similarity, cka) or layers (hidden_match, relation_match) and a teacher of kind mlm learn from texts without pairs; set one or drop them"
        )
    if recipe.data.parallel and not any(term.signal == "embeddings" for term in objectives.terms().values()):
        idle["parallel"] = (
            "translations are learned by objectives on embeddings alone (embedding_match, rkd, similarity, cka); set one or drop them"
        )
    return idle


def _candidate_problems(recipe: Recipe) -> list[str]:
    if recipe.data.candidates is not None:
        return []
    match, problems = recipe.objectives.score_match, []
    if match is not None and match.loss == "kl":
        problems.append(
            "objectives.score_match.loss: kl compares the candidates of a query; set data.candidates (say 4)"
        )
    if recipe.objectives.margin_mse is not None:
        problems.append("objectives.margin_mse: margins need several documents per query; set data.candidates (say 4)")
    return problems + [
        f"objectives.{name}: it compares the candidates of a query; set data.candidates (say 4)"
        for name, term in recipe.objectives.terms().items()
        if name in _LISTS
    ]


def _embedding_problems(recipe: Recipe, student: Student) -> list[str]:
    if student.kind == "bi_encoder":
        return []
    return [
        f"objectives.{name}: a cross-encoder student has no text embeddings; use score_match"
        for name, term in recipe.objectives.terms().items()
        if term.signal == "embeddings"
    ]


def _layer_problems(recipe: Recipe, student: Student) -> list[str]:
    """Refuse terms on layers if student or teacher has no layers to read, or if they read different sequences."""
    layer_terms = {name: term for name, term in recipe.objectives.terms().items() if name in _ON_LAYERS}
    problems = []
    for name, term in layer_terms.items():
        where, teacher = f"objectives.{name}.teacher", str(getattr(term, "teacher", None))
        if teacher not in recipe.models:
            problems.append(_no_weights(where, teacher, recipe, "whose layers could be matched"))
        elif recipe.models[teacher].model_kind != student.kind:
            problems.append(
                f"{where}: {teacher} is a {recipe.teachers[teacher].kind}, and the student a {student.kind}, which reads other sequences; name a teacher of the student's kind, or use score_match"
            )
        if student.static is not None:
            problems.append(f"objectives.{name}: a static student has no layers; use embedding_match")
    others = recipe.objectives.terms().keys() - layer_terms.keys()
    recover = recipe.export.recover
    if layer_terms and not others and recover is not None and recover.match_student is None:
        problems.append(
            f"export.recover.match_student: objectives on layers ({', '.join(layer_terms)}) are not learned there, and nothing else is; leave it at 1.0"
        )
    return problems


def _asymmetric_problems(recipe: Recipe, student: Student) -> list[str]:
    match = recipe.objectives.embedding_match
    if student.asymmetric is None:
        return []
    if student.kind != "bi_encoder":
        return ["student.asymmetric: a cross-encoder reads both sides at once; set student.kind to bi_encoder"]
    if match is None:
        return [
            "student.asymmetric: the student learns to write into a teacher's space; set objectives.embedding_match to that teacher"
        ]
    if match.projection == "drop":
        return [
            "objectives.embedding_match.projection: an asymmetric student stays in the teacher's space; leave it at keep"
        ]
    return []


def _live_problems(signals: Signals) -> list[str]:
    """Refuse settings of the cache if the teachers are asked during training, which they are in torch."""
    return [
        f"signals.{name}: changes nothing with signals.live, which stores nothing and computes in torch; leave it out"
        for name in ("dtype", "runtime", "shard_size")
        if signals.live and getattr(signals, name) != _default(signals, name)
    ]


def _export_problems(export: Export) -> list[str]:
    wanted = export.wanted
    idle = [
        precision
        for precision in export.precisions
        if precision not in {wanted_precision for _, wanted_precision in wanted}
    ]
    problems = [
        f"export.precisions: {precision} does not come in {' or '.join(export.formats)}; "
        f"add {next(format for format, known in export.PRECISIONS.items() if precision in known)} to export.formats"
        for precision in idle
    ]
    return problems + [
        f"export.precisions: none comes in {format}; it has {', '.join(export.PRECISIONS[format])}"
        for format in export.formats
        if format not in dict(wanted) and export.precisions and not idle
    ]


def _recover_problems(recipe: Recipe) -> list[str]:
    export, student, where = recipe.export, recipe.student, "export.recover"
    if export.recover is None:
        return []
    if student is None:
        return [f"{where}: there is no student to train on; add the section student, or leave it out"]
    if student.static is not None:
        return [f"{where}: a static student has no layers that int8 could be simulated in; leave it out"]
    if "int8" not in export.precisions:
        return [f"{where}: it is for int8 alone; add int8 to export.precisions, or leave it out"]
    return []


def _benchmark_problems(recipe: Recipe) -> list[str]:
    benchmark, formats = recipe.benchmark, recipe.export.formats
    problems = [
        _unknown_teacher("benchmark.teachers", name, recipe)
        for name in benchmark.teachers or ()
        if name not in recipe.teachers
    ]
    if benchmark.max_seconds is not None and benchmark.max_seconds < (benchmark.seconds or 0):
        problems.append(
            f"benchmark.max_seconds: {benchmark.max_seconds:g} is less than benchmark.seconds, {benchmark.seconds:g}, which are measured "
            "in any case"
        )
    if not benchmark.lengths or list(benchmark.lengths) != sorted(set(benchmark.lengths)):
        problems.append(
            f"benchmark.lengths: {list(benchmark.lengths)} do not rise; upper bounds in tokens are expected, as [64, 128, 256]"
        )
    if benchmark.teacher_exports and recipe.student is None:
        problems.append(
            "benchmark.teacher_exports: a teacher is exported beside the student, and there is none; leave it out"
        )
    known = {precision for format in formats for precision in recipe.export.PRECISIONS[format]}
    return problems + [
        f"benchmark.teacher_exports: {precision} does not come in {' or '.join(formats)}; accepted: {', '.join(sorted(known))}"
        for precision in benchmark.teacher_exports or ()
        if precision not in known
    ]


def _baseline_problems(recipe: Recipe) -> list[str]:
    problems = []
    for name, baseline in recipe.benchmark.baselines.items():
        where = f"benchmark.baselines.{name}"
        if name in recipe.teachers or name in _ROWS_OF_THE_STUDENT:
            problems.append(f"{where}: the report has a row of that name already; choose another")
        if baseline.kind == "encoder" and _teacher_in(baseline.backbone) is not None:
            problems.append(
                f"{where}.backbone: an encoder as it comes is a name, a path or a fresh one; a teacher has a row of its own"
            )
        if baseline.kind == "paragraphs":
            problems += _paragraph_problems(f"{where}.model", baseline.model, recipe)
    return problems


def _paragraph_problems(where: str, model: str, recipe: Recipe) -> list[str]:
    student = recipe.student if model == "student" else None
    if student is not None and student.asymmetric is not None:
        return [f"{where}: the student serves one side only; paragraphs are matched by a model of both"]
    if model in recipe.black_boxes:
        return [_no_weights(where, model, recipe, "to read paragraphs with")]
    section = recipe.student if model == "student" else recipe.teachers.get(model)
    if section is not None:
        is_cross = section.model_kind == "cross_encoder"
        return [f"{where}: {model} is a cross-encoder; paragraphs are matched by a bi-encoder"] if is_cross else []
    encoders = [name for name, baseline in recipe.benchmark.baselines.items() if baseline.kind == "encoder"]
    if model in encoders or os.path.isdir(model):  # False for an impossible name
        return []
    known = [*recipe.teachers, "student", *encoders]
    return [f"{where}: no model or folder is called {model!r}; {suggest(model, known)}"]


def _cascade_problems(recipe: Recipe) -> list[str]:
    name, problems = recipe.cascade.teacher, []
    if name is not None and name not in recipe.teachers:
        problems.append(_unknown_teacher("cascade.teacher", name, recipe))
    if recipe.cascade.share is not None and recipe.cascade.top_k is not None:
        problems.append("cascade: share and top_k are two ways to choose; set one")
    return problems


def _plan_problems(recipe: Recipe) -> list[str]:
    plan, student = recipe.plan, recipe.student
    if plan.teacher is not None and plan.teacher not in recipe.models:
        return [_no_weights("plan.teacher", plan.teacher, recipe, "to cut")]
    if student is not None and plan.length is not None and plan.length > student.max_length:
        return [f"plan.length: {plan.length} is more than the {student.max_length} tokens of student.max_length"]
    cut = plan.teacher
    if cut is None and student is not None:
        cut = student.backbone if isinstance(student.backbone, str) else _teacher_in(student.backbone)
    if cut is not None and plan.family is not None:
        return [
            f"plan.family: means nothing here, the plan cuts layers of {cut}; leave it out, or make student.backbone a fresh encoder"
        ]
    return []


def _unknown_teacher(where: str, name: str, recipe: Recipe) -> str:
    return f"{where}: no teacher is called {name!r}; {suggest(name, list(recipe.teachers))}"


def _teacher_in(backbone: Backbone) -> str | None:
    return backbone.teacher if not isinstance(backbone, str) and backbone.form == "teacher" else None


def _fresh_in(backbone: Backbone) -> FreshBackbone | None:
    return backbone if not isinstance(backbone, str) and backbone.form == "fresh" else None
