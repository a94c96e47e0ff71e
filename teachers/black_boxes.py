"""Teachers that are no model in the run: checks before anything is trained, and their cards.

A file must have an answer for every text that the recipe will ask for: those of training, those without labels or
pairs, and those of evaluation if the report has a row for the teacher.
"""

import logging
from itertools import compress

from distill.data.pairs import Pairs
from distill.errors import BadInput
from distill.evaluation.teacher_exports import measured_teachers, primary_teacher
from distill.files.artefact import read_card
from distill.recipe.black_box import BlackBox, CallableTeacher, EndpointTeacher, FileTeacher, ScaledAnswers
from distill.recipe.schema import Teacher
from distill.recipe.token_teachers import TokenTeacher
from distill.run import Run
from distill.scorers.black_box import answers_of, endpoint_of, lacking, open_black_box
from distill.scorers.file_answers import read_answers
from distill.scorers.file_rows import Item
from distill.training.read_texts import are_read
from teachers.described import put_into_run
from teachers.token_teachers import check_token_teacher, take_token_teacher

__all__ = ["check_black_box", "check_black_boxes", "describe_black_box", "is_trained", "items_of", "mapped_range"]

log = logging.getLogger(__name__)


def check_black_boxes(run: Run) -> None:
    """Refuse black boxes that cannot answer, before anything is trained with them.

    :raises BadInput: if a file lacks texts of the recipe, or has invalid answers
    """
    from accelerate import PartialState

    if PartialState().is_main_process:
        for name in run.recipe.black_boxes:
            check_black_box(run, name)
    PartialState().wait_for_everyone()


def check_black_box(run: Run, name: str, *, may_ask: bool = True) -> None:
    """Check one black box; see `check_black_boxes`.

    :param may_ask: False sends no request to an endpoint
    """
    settings = run.recipe.black_boxes[name]
    if isinstance(settings, TokenTeacher):
        if read_card(run.teacher(name)) is None:  # otherwise the whole model is already in the run
            check_token_teacher(settings)
    elif isinstance(settings, FileTeacher):
        _check_file(run, name, settings)
    elif isinstance(settings, EndpointTeacher) and may_ask:
        _check_endpoint(run, name, settings)
    elif isinstance(settings, CallableTeacher) and (name in run.callables or read_card(run.teacher(name)) is None):
        _check_function(run, name)  # a finished teacher does not need the function any more


def mapped_range(run: Run, name: str) -> tuple[float, float] | None:
    """Return the range from which a teacher's scores are mapped to logits; None if they are not."""
    settings = run.recipe.black_boxes.get(name)
    return settings.mapped_range if isinstance(settings, ScaledAnswers) else None


def is_trained(run: Run, name: str) -> bool:
    """Tell whether the run trains this teacher itself, so that the scale of its scores is known."""
    teacher = run.recipe.models.get(name)
    return isinstance(teacher, Teacher) and not teacher.frozen


def items_of(run: Run, name: str) -> dict[str, list[tuple[int, Item]]]:
    """Return the items that a black box will be asked for, with their roles, by the part of the data they belong to.

    Pairs that teachers will find are not known yet. The role is always 0 (query) if the teacher has no prompts.
    """
    settings, parts = run.recipe.black_boxes[name], dict[str, list[tuple[int, Item]]]()
    for stage in run.stages:
        for part, items in _of_stage(stage, name, settings).items():
            parts.setdefault(part, []).extend(items)
    if _gives_threshold(run, name):
        parts.setdefault("validation", []).extend(_of_pairs(settings, run.split.validation))
    if name in measured_teachers(run):
        parts["evaluation"] = _of_pairs(settings, run.split.evaluation)
    return {part: list(dict.fromkeys(items)) for part, items in parts.items()}


def _of_stage(run: Run, name: str, settings: BlackBox) -> dict[str, list[tuple[int, Item]]]:
    """Return the items that one stage of the student's training asks for."""
    split, needs = run.split, run.recipe.objectives.teachers().get(name, set())
    parts: dict[str, list[tuple[int, Item]]] = {}
    if needs:
        parts |= {
            "training": _of_pairs(settings, split.train),
            "unlabelled": _of_pairs(settings, split.unlabelled_pairs),
        }
    if "embeddings" in needs:
        document = int(any(settings.role_prompts))
        lone = [*split.unlabelled, *(source for source, _ in split.parallel)]
        parts["unlabelled"] += [(document, text) for text in lone]
        parts = {part: _read(settings, items) for part, items in parts.items()}
    if name in run.recipe.objectives.mixed_teachers:
        parts["validation"] = _of_pairs(settings, split.validation)
    return parts


def _read(settings: BlackBox, items: list[tuple[int, Item]]) -> list[tuple[int, Item]]:
    """Return the items in the scripts for which this teacher is used."""
    return list(compress(items, are_read([str(text) for _, text in items], settings.scripts)))


def _gives_threshold(run: Run, name: str) -> bool:
    """Return whether the student's threshold is derived from this teacher's, on the validation pairs."""
    student = run.recipe.student
    point = None if student is None else student.calibration.threshold
    return point is not None and point.value is not None and primary_teacher(run) == name


def _of_pairs(settings: BlackBox, pairs: Pairs) -> list[tuple[int, Item]]:
    if settings.signal == "scores":
        return [(0, pair) for pair in zip(pairs.queries, pairs.documents, strict=True)]
    document = int(any(settings.role_prompts))
    return [*((0, text) for text in pairs.queries), *((document, text) for text in pairs.documents)]


def _check_endpoint(run: Run, name: str, settings: EndpointTeacher) -> None:
    items = list(dict.fromkeys(item for part_items in items_of(run, name).values() for item in part_items))
    endpoint_of(run, name, settings).check([item for _, item in items], [role for role, _ in items])


def _check_function(run: Run, name: str) -> None:
    """Call a function on up to two pairs, to check what it returns."""
    scorer, train = open_black_box(run, name), run.split.train.select(range(min(2, len(run.split.train))))
    scorer.score(train.queries, train.documents)


def _check_file(run: Run, name: str, settings: FileTeacher) -> None:
    parts = {part: [item for _, item in part_items] for part, part_items in items_of(run, name).items()}
    items = list(dict.fromkeys(item for part_items in parts.values() for item in part_items))
    answers = read_answers(name, settings, items, whole=True)
    if not answers.missing:
        values_in_words = f"{answers.values.shape[1]} numbers each" if answers.values.ndim == 2 else "scores"
        log.info("teacher %s: %s, %d items, %s", name, settings.in_words, len(items), values_in_words)
        return
    missing = set(answers.missing)
    counts = {part: sum(item in missing for item in part_items) for part, part_items in parts.items()}
    by_part = ", ".join(f"{part} {count:,}" for part, count in counts.items() if count)
    message = lacking(name, settings, answers.missing, len(items), f"; {by_part}")
    if not any(counts[part] for part in counts if part != "evaluation"):
        message += ", or leave this teacher out of the report (benchmark.teachers)"
    raise BadInput(message)


def describe_black_box(run: Run, name: str) -> None:
    """Write a black box's description into its folder, or copy a token-comparing model there, unless it is finished.

    Every process of a launch calls this.
    """
    from accelerate import PartialState

    if PartialState().is_main_process:
        settings = run.recipe.black_boxes[name]
        if isinstance(settings, TokenTeacher):
            take_token_teacher(run, name, settings)
        else:
            _describe(run, name, settings)
    PartialState().wait_for_everyone()


def _describe(run: Run, name: str, settings: BlackBox) -> None:
    answers = answers_of(settings)
    inputs = {"stage": "train_teacher", "name": name, "teacher": answers}
    if put_into_run(run, name, inputs, {**answers, "kind": settings.form}):
        log.info("teacher %s: %s", name, settings.in_words)
