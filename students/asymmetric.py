"""Asymmetric pairs: a small student for one side, the frozen teacher's vectors for the other.

    student: {kind: bi_encoder, backbone: {teacher: bi}, layers: [0], asymmetric: {side: query}}

The index of documents stays as the teacher built it. Queries come one at a time and need an answer at once, so a much
smaller model encodes them (LEAF, Vujanic & Rueckstieß 2025). The other way round is possible too, if there are many
documents and few queries. The student learns the teacher's embeddings of its own side, and is scored against the
teacher's vectors of the other side. Those are fixed, in training and in use.

`exports/router` holds both models in one sentence-transformers folder: stock `encode_query` and `encode_document` call
the right one. Every export is compared with the teacher on held-out texts: are its vectors close to the teacher's own,
and do they find the same documents?
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import Pairs
from distill.errors import GateFailed
from distill.files.artefact import ASYMMETRIC, Side, new_folder, write_card
from distill.models.modeling import load_model, quiet, save_model
from distill.models.prompts import model_prompts
from distill.recipe.schema import Asymmetric
from distill.run import Run
from distill.runtime.opening import load
from distill.runtime.scorer import Scorer
from distill.runtime.vectors import unit_rows
from distill.scorers.pairing import check_index
from distill.signals import CachedSignals, LiveSignals, SignalCache, SignalSource

__all__ = [
    "Compatibility",
    "check_side",
    "compare_sides",
    "export_router",
    "index_teacher",
    "own_side_pairs",
    "pair_details",
    "write_router",
]

log = logging.getLogger(__name__)
_MOST_OWN, _MOST_OTHER = 1000, 5000  # texts compared: at most 5 million cosines


def index_teacher(run: Run) -> str | None:
    """Return the teacher that serves the other side; None if the student serves both."""
    match = run.recipe.objectives.embedding_match
    return None if run.student_section.asymmetric is None or match is None else str(match.teacher)


def pair_details(run: Run) -> dict[str, Any]:
    """Return a card's entry on an asymmetric student: its side, and the one teacher revision that it fits."""
    asymmetric, teacher = run.student_section.asymmetric, index_teacher(run)
    if asymmetric is None or teacher is None:
        return {}
    revision = run.require(run.teacher(teacher), "train_teacher").revision
    return {ASYMMETRIC: {"side": asymmetric.side, "teacher": teacher, "revision": revision}}


def own_side_pairs(run: Run, pairs: Pairs) -> list[tuple[str, str]]:
    """Return pairs for calibration and parity; if only one side is served, each text of it with the next one."""
    asymmetric = run.student_section.asymmetric
    if asymmetric is None:
        return list(zip(pairs.queries, pairs.documents, strict=True))
    texts = list(dict.fromkeys(pairs.documents if asymmetric.role else pairs.queries))
    return list(zip(texts, [*texts[1:], *texts[:1]], strict=True))


# ---------------------------------------------------------------------------------------------------------------------
# Compatibility
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compatibility:
    """How well one side's vectors replace the teacher's own: `n_own` held-out texts, `n_other` texts of the other side.

    `recall` is the mean share, per query, of the `top_k` documents found with the teacher's vectors that are also found
    with the student's.
    """

    n_own: int
    n_other: int
    width: int
    mean_cosine: float
    min_cosine: float
    top_k: int
    recall: float

    def failures(self, thresholds: Asymmetric) -> list[str]:
        """Return a message for each threshold that is missed, with the measured value."""
        checks = (
            ("mean cosine to the teacher's vectors", self.mean_cosine, "min_cosine", thresholds.min_cosine),
            (f"recall of the teacher's {self.top_k} best", self.recall, "min_recall", thresholds.min_recall),
        )
        return [
            f"{title} {value:.3f}, at least {limit:g} is asked for (student.asymmetric.{key})"
            for title, value, key, limit in checks
            if not value >= limit
        ]


def compare_sides(
    student: np.ndarray, teacher: np.ndarray, other: np.ndarray, *, role: int, top_k: int
) -> Compatibility:
    """Compare one side's vectors with the teacher's of the same texts, and what both find on the other side.

    *Shape:* student, teacher: (n_own, width); other: (n_other, width), the teacher's

    :param role: 0 if the own side holds the queries (each of its rows ranks the other side), 1 if it holds the
        documents (each row of the other side ranks them)
    :raises GateFailed: if the widths differ, so that the vectors share no space
    """
    if student.shape[1] != teacher.shape[1]:
        raise GateFailed(
            f"the student's vectors have {student.shape[1]} numbers, the teacher's {teacher.shape[1]}: they share no space"
        )
    student, teacher, other = (unit_rows(vectors.astype(np.float32)) for vectors in (student, teacher, other))
    cosines = (student * teacher).sum(axis=1)
    student_scores, teacher_scores = student @ other.T, teacher @ other.T  # (n_own, n_other)
    if role:
        student_scores, teacher_scores = student_scores.T, teacher_scores.T
    k = min(top_k, student_scores.shape[1])
    student_best, teacher_best = (
        np.argsort(-scores, axis=1, kind="stable")[:, :k] for scores in (student_scores, teacher_scores)
    )
    shares = [len(np.intersect1d(*rows)) / k for rows in zip(student_best, teacher_best, strict=True)]
    return Compatibility(
        len(student),
        len(other),
        int(student.shape[1]),
        float(cosines.mean()),
        float(cosines.min()),
        k,
        float(np.mean(shares)),
    )


def check_side(run: Run, scorer: Scorer) -> Compatibility:
    """Compare a student's vectors with the teacher's.

    The held-out texts are those of the validation pairs, at most 1,000. The other side's texts are those of the
    validation pairs, then training texts, at most 5,000 in all.

    :raises GateFailed: if a threshold of the recipe is missed
    """
    asymmetric, teacher = run.student_section.asymmetric, index_teacher(run)
    assert asymmetric is not None and teacher is not None
    role, source = asymmetric.role, _source(run, teacher)
    held_back, train = run.split.validation, run.split.train
    own_texts = _side(held_back, role)[:_MOST_OWN]
    other_texts = list(dict.fromkeys([*_side(held_back, 1 - role), *_side(train, 1 - role)]))[:_MOST_OTHER]
    encode = scorer.encode_documents if role else scorer.encode_queries
    report = compare_sides(
        encode(own_texts),
        _vectors(source, own_texts, role),
        _vectors(source, other_texts, 1 - role),
        role=role,
        top_k=asymmetric.top_k,
    )
    failures = report.failures(asymmetric)
    if failures:
        raise GateFailed(
            f"the {scorer.runtime} {scorer.precision} student does not fit the vectors of {teacher}: {'; '.join(failures)}; train longer, keep more layers, or add data.unlabelled"
        )
    log.info(
        "the %s %s student beside %s: mean cosine %.4f, recall at %d %.3f",
        scorer.runtime,
        scorer.precision,
        teacher,
        report.mean_cosine,
        report.top_k,
        report.recall,
    )
    return report


def _side(pairs: Pairs, role: int) -> list[str]:
    return list(dict.fromkeys(pairs.documents if role else pairs.queries))


def _source(run: Run, teacher: str) -> SignalSource:
    if not run.recipe.signals.live:
        return CachedSignals(SignalCache(run.signals(teacher), run.signal_identity(teacher)))
    section = run.recipe.models[teacher]
    scorer = load(
        run.teacher(teacher),
        runtime="torch",
        precision=run.signal_identity(teacher).precision,
        max_length=section.max_length,
    )
    return LiveSignals(scorer, run.teacher_prompts(teacher))


def _vectors(source: SignalSource, texts: list[str], role: int) -> np.ndarray:
    return source.embeddings(texts, [role] * len(texts))(np.arange(len(texts)))


# ---------------------------------------------------------------------------------------------------------------------
# The Router
# ---------------------------------------------------------------------------------------------------------------------


def export_router(run: Run) -> None:
    """Write student and teacher as one sentence-transformers Router, after a check; do nothing without `asymmetric`."""
    from accelerate import PartialState

    asymmetric, teacher = run.student_section.asymmetric, index_teacher(run)
    if asymmetric is None or teacher is None or not PartialState().is_main_process:
        return
    student_card = run.require(run.student, "train_student")
    teacher_card = run.require(run.teacher(teacher), "train_teacher")
    check_index(run.student, run.teacher(teacher))
    described = run.split.describe()
    inputs = {
        "stage": "export",
        "student": student_card.revision,
        "teacher": teacher_card.revision,
        "asymmetric": asymmetric.model_dump(mode="json"),
        "data": {part: described[part]["fingerprint"] for part in ("train", "validation")},
    }
    if run.is_finished(run.router, inputs):
        return
    report = check_side(
        run, load(run.student, runtime="torch", precision="fp32", max_length=run.student_section.max_length)
    )
    parents = {"student": student_card.revision, teacher: teacher_card.revision}
    card = run.card("bi_encoder", "export", inputs, parents, pair_details(run) | {"compatibility": asdict(report)})
    with new_folder(run.router) as folder:
        write_router(folder, run.student, run.teacher(teacher), asymmetric.side)
        write_card(folder, card)
    log.info("router: %s", run.router)


def write_router(folder: Path, student: Path, teacher: Path, side: Side) -> None:
    """Write a Router that uses the student for `side` and the teacher for the other side."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    models = {name: load_model(student if name == side else teacher) for name in ("query", "document")}
    with quiet():
        router = Router.for_query_document(list(models["query"]), list(models["document"]))
        prompts = {name: model_prompts(model)[role] for role, (name, model) in enumerate(models.items())}
        router_model = SentenceTransformer(
            modules=[router],
            device="cpu",
            prompts={name: prompt for name, prompt in prompts.items() if prompt},
            similarity_fn_name="cosine",
        )
        save_model(router_model, folder)
