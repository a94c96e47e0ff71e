"""Several teachers as one: their scores are calibrated to probabilities and averaged, and the mean's logit is learned.

    p_i = calibrated score of teacher i        fitted on the labelled validation pairs
    p   = Σ wᵢ pᵢ                              Σ wᵢ = 1; fixed, fitted, or by agreement for each pair
    z   = ln(p / (1 − p))                      what every term reads, as the logits of a cross-encoder

Without the first step the teacher with the widest range would dominate: logits of ±10 beside cosines of .6 to .8.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distill.data.pairs import Pairs
from distill.errors import BadInput, JobFailed
from distill.files.artefact import ModelKind
from distill.metrics.calibration import LEAST_PAIRS, Calibration, fit_calibration
from distill.metrics.logistic import logit
from distill.recipe.objectives import EmbeddingMatch, Mixing, ScoreTerm
from distill.runtime.vectors import unit_rows
from distill.signals import SignalSource

__all__ = ["JoinedSignals", "MixedSignals", "check_mixtures", "fitted_shares", "join_teachers", "mix_teachers"]

log = logging.getLogger(__name__)
_CLIP = 1e-6
_EM_STEPS = 500
_EM_DONE = 1e-9


@dataclass(frozen=True)
class MixedSignals:
    """Scores of several teachers as one; a source of signals like a single teacher's.

    :param shares: of each teacher, adding up to 1
    :param how: "agreement" changes the shares for each pair
    """

    sources: Mapping[str, SignalSource]
    calibrations: Mapping[str, Calibration]
    shares: Mapping[str, float]
    how: str

    kind: ModelKind = "cross_encoder"
    width: int = 0

    def scores(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return the logits of the mixture. *Shape:* (n_pairs,) float32."""
        mixed = self.mixed(self.probabilities(queries, documents))
        return logit(np.clip(mixed, _CLIP, 1 - _CLIP)).astype(np.float32)

    def probabilities(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return each teacher's calibrated scores, in the order of the shares. *Shape:* (n_teachers, n_pairs), float64."""
        return np.stack(
            [self.calibrations[name](self.sources[name].scores(queries, documents)) for name in self.shares]
        )

    def mixed(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the mixture of calibrated scores. *Shape:* (n_teachers, n_pairs) → (n_pairs,)."""
        shares = np.array(list(self.shares.values()))[:, None]
        if self.how == "agreement":
            shares = shares * agreement(probabilities) ** 2
            shares = shares / np.maximum(shares.sum(axis=0), 1e-12)
        mixture: np.ndarray = (shares * probabilities).sum(axis=0)
        return mixture

    def embeddings(self, texts: Sequence[str], roles: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
        """Not available: a mixture has only scores.

        :raises BadInput: always
        """
        raise BadInput("a mixture of teachers has scores, no embeddings")


@dataclass(frozen=True)
class JoinedSignals:
    """Concatenated embeddings of several teachers, each times a factor; a source of signals like a single teacher's.

    With factors √w of weights that add up to 1 the result has unit length, and its cosine is the weighted mean of theirs.
    """

    sources: Mapping[str, SignalSource]
    factors: Mapping[str, float]
    kind: ModelKind = "bi_encoder"

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each teacher's embeddings."""
        return tuple(source.width for source in self.sources.values())

    @property
    def width(self) -> int:
        """The sum of the widths."""
        return sum(self.widths)

    def scores(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Not available: joined teachers have only embeddings.

        :raises BadInput: always
        """
        raise BadInput("embeddings of several teachers together have no scores")

    def embeddings(self, texts: Sequence[str], roles: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
        """Return a reader of the joined embeddings. *Shape:* of what it returns (n, width) float32."""
        readers = [(source.embeddings(texts, roles), self.factors[name]) for name, source in self.sources.items()]
        return lambda numbers: np.concatenate(
            [factor * unit_rows(read(numbers)).astype(np.float32) for read, factor in readers], axis=1
        )


def join_teachers(match: EmbeddingMatch, sources: Mapping[str, SignalSource]) -> JoinedSignals:
    """Return the embeddings that a term matches: the joined ones of its teachers."""
    factors = {name: 1.0 if match.combine == "each" else share**0.5 for name, share in match.shares.items()}
    return JoinedSignals({name: sources[name] for name in match.shares}, factors)


def agreement(probabilities: np.ndarray) -> np.ndarray:
    """Return each teacher's agreement with the others: 1 − the mean distance to them. *Shape:* that of the argument.

    >>> agreement(np.array([[0.8], [0.8], [0.2]])).round(2).ravel().tolist()
    [0.7, 0.7, 0.4]
    """
    n = len(probabilities)
    distances = np.abs(probabilities[:, None] - probabilities[None]).sum(axis=1) / (n - 1)
    agreed: np.ndarray = 1 - distances
    return agreed


def check_mixtures(mixtures: Mapping[str, ScoreTerm], validation: Pairs) -> None:
    """Refuse mixtures that the validation pairs cannot calibrate, before anything is trained.

    :raises BadInput: if there are too few labels, or all are equal
    """
    for name in mixtures:
        labels = validation.labelled().labels
        known_labels = np.zeros(0) if labels is None else labels
        if len(known_labels) < LEAST_PAIRS:
            raise BadInput(
                f"teachers are calibrated on labelled validation pairs before they are mixed ({name}), and there are {len(known_labels)}; "
                f"{LEAST_PAIRS} at least are needed: raise data.validation_share, or name one teacher"
            )
        if np.ptp(known_labels) == 0:
            raise BadInput(
                f"every validation label is {known_labels[0]:g}; teachers cannot be calibrated on them ({name})"
            )


def mix_teachers(term: ScoreTerm, sources: Mapping[str, SignalSource], validation: Pairs) -> MixedSignals:
    """Calibrate a term's teachers on the labelled validation pairs, and fit the weights if the recipe says so.

    :param sources: the teachers' signals, including those of the validation pairs
    :raises JobFailed: if a teacher's scores do not increase with the labels
    """
    check_mixtures({str(term.taught_by): term}, validation)
    pairs, mixing = validation.labelled(), term.how_mixed
    assert term.teachers is not None and pairs.labels is not None
    labels = pairs.labels.astype(np.float64)
    calibrations = {
        name: calibration(
            name, mixing, sources[name].kind, sources[name].scores(pairs.queries, pairs.documents), labels
        )
        for name in term.teachers
    }
    total = sum(term.teachers.values())
    shares = {name: weight / total for name, weight in term.teachers.items()}
    mixed = MixedSignals({name: sources[name] for name in shares}, calibrations, shares, mixing.weights)
    if mixing.weights == "fitted":
        fitted = fitted_shares(mixed.probabilities(pairs.queries, pairs.documents), labels, list(shares.values()))
        mixed = MixedSignals(mixed.sources, calibrations, dict(zip(shares, fitted, strict=True)), mixing.weights)
    shares_text = ", ".join(f"{name} {share:.2f}" for name, share in mixed.shares.items())
    log.info(
        "teachers mixed by %s weights: %s; calibrated (%s) on %d pairs",
        mixing.weights,
        shares_text,
        mixing.calibration,
        len(pairs),
    )
    return mixed


# ---------------------------------------------------------------------------------------------------------------------
# Calibration
# ---------------------------------------------------------------------------------------------------------------------


def calibration(name: str, mixing: Mixing, kind: ModelKind, scores: np.ndarray, labels: np.ndarray) -> Calibration:
    """Return a function from a teacher's scores to probabilities, fitted to labels in [0, 1]. *Shape:* both (n_pairs,).

    :raises JobFailed: where the scores do not rise with the labels
    """
    fitted = fit_calibration(mixing.calibration, kind, scores, labels)
    if fitted is None:
        raise JobFailed(
            f"the scores of teacher {name} do not rise with the labels of {len(labels)} validation pairs; leave it out of the mixture"
        )
    return fitted


def fitted_shares(probabilities: np.ndarray, labels: np.ndarray, start: Sequence[float]) -> list[float]:
    """Return the shares of greatest likelihood of the labels, by expectation-maximisation; grades are probabilities.

    *Shape:* probabilities: (n_teachers, n_pairs); labels: (n_pairs,)

    >>> good, bad = np.array([0.9, 0.1, 0.8, 0.2]), np.array([0.1, 0.9, 0.2, 0.8])
    >>> [round(share, 3) for share in fitted_shares(np.stack([good, bad]), np.array([1.0, 0.0, 1.0, 0.0]), [0.5, 0.5])]
    [1.0, 0.0]
    """
    likelihoods = np.clip(np.stack([probabilities, 1 - probabilities]), _CLIP, 1)  # of a match, and of none
    weights = np.stack([labels, 1 - labels])[:, None]  # (2, 1, n_pairs)
    shares = np.asarray(start, dtype=np.float64) / np.sum(start)
    for _ in range(_EM_STEPS):
        parts = shares[None, :, None] * likelihoods
        new_shares = (weights * parts / parts.sum(axis=1, keepdims=True)).sum(axis=(0, 2)) / len(labels)
        done = np.abs(new_shares - shares).max() < _EM_DONE
        shares = new_shares
        if done:
            break
    return [float(share) for share in shares]
