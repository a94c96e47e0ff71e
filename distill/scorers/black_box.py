"""Black-box teachers: one scorer for any source of answers, so that labelling, doctor and report treat all alike.

    BlackBoxScorer ─▶ Answering: a file (`distill.scorers.file_answers`),
                                 an endpoint (`distill.scorers.endpoint_answers`),
                                 a Python function (`distill.scorers.function_answers`)

The folder of such a teacher, `<run>/teachers/<name>`, holds a `scorer.json` that states the source, and a card whose
revision is a hash of the answers: if the file of answers changes, the cached signals are no longer used.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distill.errors import BadInput
from distill.files.artefact import ModelKind, revision
from distill.metrics.logistic import unit_scores
from distill.progress import OnProgress
from distill.recipe.black_box import BlackBox, CallableTeacher, EndpointTeacher, FileTeacher, ScaledAnswers
from distill.recipe.token_teachers import TokenTeacher
from distill.run import Run
from distill.runtime.vectors import unit_rows
from distill.scorers.endpoint_answers import EndpointAnswers
from distill.scorers.file_answers import read_answers, shown_item
from distill.scorers.file_rows import Item
from distill.scorers.function_answers import FunctionAnswers
from distill.scorers.token_readers import HowToRead
from distill.scorers.token_scorer import TokenScorer, open_token_scorer

__all__ = ["BlackBoxScorer", "answers_of", "endpoint_of", "lacking", "open_asked", "open_black_box"]


class Answering(Protocol):
    """The source of a black box's answers."""

    def ask(self, items: Sequence[Item], roles: Sequence[int], progress: OnProgress) -> np.ndarray:
        """Return the answer to each item.

        *Shape:* (n_items, width) embeddings, or (n_items,) scores as logits or cosines, float32

        :param items: texts or pairs of texts; no item occurs twice in the same role
        :param roles: 0 for a query, 1 for a document; 0 for every pair
        :param progress: called with the number of items answered since its last call
        """


class BlackBoxScorer:
    """A black box with the interface of a model: `score`, and `encode_queries` and `encode_documents` for embeddings.

    `n_parameters` is None, as it is unknown.
    """

    precision, max_length, n_parameters = "unknown", None, None

    def __init__(self, name: str, settings: ScaledAnswers, source: Answering) -> None:
        self.name, self.settings, self._source = name, settings, source
        self.kind: ModelKind = settings.model_kind
        self.runtime = settings.form

    def __repr__(self) -> str:
        return f"BlackBoxScorer({self.name}: {self.settings.form})"

    def score(
        self, queries: Sequence[str], documents: Sequence[str], *, progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Return the score of each pair: logit, cosine, or cosine of embeddings. *Shape:* (n_pairs,), float32."""
        if self.settings.signal == "scores":
            return self._answers(list(zip(queries, documents, strict=True)), [0] * len(queries), progress)
        vectors = self._answers([*queries, *documents], [0] * len(queries) + [1] * len(documents), progress)
        query_vectors, document_vectors = vectors[: len(queries)], vectors[len(queries) :]
        norms = np.linalg.norm(query_vectors, axis=1) * np.linalg.norm(document_vectors, axis=1)
        cosines: np.ndarray = np.einsum("ij,ij->i", query_vectors, document_vectors) / np.maximum(norms, 1e-12)
        return cosines.astype(np.float32)

    def encode_queries(self, texts: Sequence[str], *, progress: bool | OnProgress = False) -> np.ndarray:
        """Return the embeddings of queries. *Shape:* (n_texts, width), float32."""
        return self._embeddings(texts, 0, progress)

    def encode_documents(self, texts: Sequence[str], *, progress: bool | OnProgress = False) -> np.ndarray:
        """Return the embeddings of documents. *Shape:* (n_texts, width), float32."""
        return self._embeddings(texts, 1, progress)

    def encode_by_role(
        self, texts: Sequence[str], roles: Sequence[int], progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Return the embedding of each text in its role. *Shape:* (n_texts, width), float32."""
        return self._answers(list(texts), list(roles), progress)

    def cost(self) -> Mapping[str, Any] | None:
        """Return the cost of its answers for this run, {"dollars", "requests"}; None if it is not an endpoint."""
        return self._source.cost() if isinstance(self._source, EndpointAnswers) else None

    def unit(self, scores: np.ndarray) -> np.ndarray:
        """Return σ(logit) or (cosine + 1) / 2. *Shape:* that of scores, float32."""
        return unit_scores(self.kind, scores)

    def _embeddings(self, texts: Sequence[str], role: int, progress: bool | OnProgress) -> np.ndarray:
        if self.settings.signal != "embeddings":
            raise BadInput(f"teacher {self.name} gives scores of pairs, no embeddings")
        return self._answers(list(texts), [role] * len(texts), progress)

    def _answers(self, items: Sequence[Item], roles: Sequence[int], progress: bool | OnProgress) -> np.ndarray:
        numbers: dict[tuple[int, Item], int] = {}
        rows = [numbers.setdefault(key, len(numbers)) for key in zip(roles, items, strict=True)]
        report = progress if callable(progress) else (lambda _: None)
        if not rows:
            return np.zeros((0, 1) if self.settings.signal == "embeddings" else 0, dtype=np.float32)
        answers = self._source.ask([item for _, item in numbers], [role for role, _ in numbers], report)
        if answers.ndim == 2:  # all bi-encoders of this toolkit give unit vectors
            answers = unit_rows(answers)
        return answers[rows]


class _File:
    """The answers in files; each call of `ask` reads the files once."""

    def __init__(self, name: str, settings: FileTeacher) -> None:
        self.name, self.settings = name, settings

    def ask(self, items: Sequence[Item], roles: Sequence[int], progress: OnProgress) -> np.ndarray:
        """Look up the answers to items.

        :raises BadInput: if one is missing
        """
        found = read_answers(self.name, self.settings, items)
        if found.missing:
            raise BadInput(lacking(self.name, self.settings, found.missing, len(items)))
        progress(len(items))
        return found.of(items)


def lacking(name: str, settings: FileTeacher, missing: Sequence[Item], n_items: int, parts: str = "") -> str:
    """Return the message about items for which a file has no answer."""
    what = "texts" if settings.signal == "embeddings" else "pairs"
    path = settings.path[0] if len(settings.path) == 1 else f"{settings.path[0]} and {len(settings.path) - 1} more"
    advice = "add them to the file"
    if n_other_way := _n_other_way(name, settings, missing):
        columns = settings.columns
        advice = (
            f"{n_other_way:,} of them stand there the other way round, query and document exchanged: set columns.query "
            f"{columns.document} and columns.document {columns.query}"
        )
    return (
        f"teacher {name}: {path} has no answer to {len(missing):,} of the {n_items:,} {what} that the recipe asks for "
        f"({100 * len(missing) / n_items:.1f} %{parts}), as {shown_item(missing[0])}; {advice}"
    )


def _n_other_way(name: str, settings: FileTeacher, missing: Sequence[Item]) -> int:
    """Return how many missing pairs the file contains with query and document exchanged."""
    exchanged = [(item[1], item[0]) for item in missing if not isinstance(item, str)]
    try:
        return len(exchanged) - len(read_answers(name, settings, exchanged).missing) if exchanged else 0
    except BadInput:  # the answers to the exchanged pairs are invalid
        return 0


def open_asked(run: Run, name: str, *, may_ask: bool = True, device: str | None = None) -> BlackBoxScorer | TokenScorer:
    """Open a teacher of a run that is never trained: a black box, or a model that compares tokens.

    :param may_ask: False sends no request to an endpoint; items without a stored answer are then refused
    :param device: the device of a model; None is a GPU if there is one
    """
    if isinstance(run.recipe.black_boxes[name], TokenTeacher):
        return _open_model(run, name, device)
    return open_black_box(run, name, may_ask=may_ask)


def _open_model(run: Run, name: str, device: str | None) -> TokenScorer:
    """Open a model that compares tokens, after checking its files against its card, whose revision keys the signals."""
    folder = run.teacher(name)
    card_revision, file_revision = run.require(folder, "train_teacher").revision, revision(folder)
    if file_revision != card_revision:
        raise BadInput(
            f"{folder}: its files are not those that were written (revision {card_revision}, now {file_revision}); remove it and run `distill train-teacher` again"
        )
    return open_token_scorer(folder, HowToRead(run.signal_identity(name).precision, device=device))


def open_black_box(run: Run, name: str, *, may_ask: bool = True) -> BlackBoxScorer:
    """Open a black box of a run with the settings of its recipe.

    :param may_ask: False sends no request to an endpoint; items without a stored answer are then refused
    """
    settings = run.recipe.black_boxes[name]
    if isinstance(settings, EndpointTeacher):
        return BlackBoxScorer(name, settings, endpoint_of(run, name, settings, may_ask=may_ask))
    if isinstance(settings, CallableTeacher):
        return BlackBoxScorer(name, settings, FunctionAnswers(name, settings, run.callables.get(name)))
    assert isinstance(settings, FileTeacher)
    return BlackBoxScorer(name, settings, _File(name, settings))


def endpoint_of(run: Run, name: str, settings: EndpointTeacher, *, may_ask: bool = True) -> EndpointAnswers:
    """Open the answers of an endpoint, with those that a run has stored."""
    return EndpointAnswers(name, settings, run.signals(name), may_ask=may_ask)


def answers_of(settings: BlackBox) -> Mapping[str, Any]:
    """Return everything that determines the answers of a black box, for its revision.

    :raises BadInput: if a file cannot be read
    """
    if isinstance(settings, EndpointTeacher):  # its address, key and prices do not change the answers
        how = {"batch_size", "budget", "cache", "endpoint", "scripts"}
        return {**settings.deciding(exclude=how), "model": settings.endpoint.model}
    if isinstance(settings, CallableTeacher):
        return settings.deciding(exclude={"scripts"})
    assert isinstance(settings, FileTeacher)
    return {**settings.deciding(exclude={"path", "scripts"}), "files": [_checksum(path) for path in settings.path]}


def _checksum(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except (OSError, ValueError) as error:
        raise BadInput(f"{path[:200]} cannot be read: {getattr(error, 'strerror', None) or error}") from None
