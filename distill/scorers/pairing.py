"""Combine a student that serves one side of pairs with the teacher that serves the other side.

    pair = pair_up(load("runs/r/exports/openvino-int8"), load("runs/r/teachers/bi"))
    scores = pair.score(queries, documents)          # the student's query vectors, the teacher's document vectors

The student's card names the revision of the teacher that it was trained with. Another revision or model has another
vector space and would give meaningless scores that look valid, so it is refused.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import BadInput
from distill.files.artefact import ASYMMETRIC, read_card, revision
from distill.progress import OnProgress
from distill.runtime.scorer import PairedScorer, Scorer

__all__ = ["OneSide", "check_index", "pair_up"]


def pair_up(own: Scorer, other: Scorer) -> PairedScorer:
    """Combine the models of both sides.

    :raises BadInput: if `own` serves both sides, or `other` is not the revision that `own` was trained with
    """
    if own.side is None:
        raise BadInput(f"{own.path} reads both sides of pairs; leave out the model of the other side")
    check_index(own.path, other.path)
    query, document = (own, other) if own.side == "query" else (other, own)
    return PairedScorer(own.path, query, document)


def check_index(own: Path, other: Path) -> None:
    """Check that a folder is the teacher, or an export of it, of exactly the revision that a student was trained with.

    :raises BadInput: naming both revisions
    """
    card, other_card = read_card(own), read_card(other)
    asymmetric: dict[str, Any] = {} if card is None else dict(card.details.get(ASYMMETRIC) or {})
    other_revision = revision(other)  # computed from the files: the card may belong to other files
    exported_from = other_card.parents.values() if other_card is not None and other_card.stage == "export" else ()
    if asymmetric.get("revision") in (other_revision, *exported_from):
        return
    raise BadInput(
        f"{own} writes into the space of {asymmetric.get('teacher')} at revision {asymmetric.get('revision')}; {other} is revision "
        f"{other_revision}: give that teacher, or train the student again beside this one"
    )


class OneSide:
    """One side of an asymmetric student as a scorer, to measure its latency; only that side of a pair is encoded.

    `score` returns the norm of the vector, because only the time is of interest.
    """

    def __init__(self, scorer: Scorer) -> None:
        assert scorer.side is not None
        self.scorer, self.side = scorer, scorer.side
        self.kind, self.runtime, self.precision = f"{scorer.side}_encoder", str(scorer.runtime), scorer.precision
        self.max_length: int | None = scorer.max_length

    @property
    def n_parameters(self) -> int:
        """Number of parameters of this side's model."""
        return self.scorer.n_parameters

    def score(
        self, queries: Sequence[str], documents: Sequence[str], *, progress: bool | OnProgress = False
    ) -> np.ndarray:
        """Encode this side of each pair and return the norms. *Shape:* (n_pairs,), float32."""
        if self.side == "query":
            vectors = self.scorer.encode_queries(queries, progress=progress)
        else:
            vectors = self.scorer.encode_documents(documents, progress=progress)
        lengths: np.ndarray = np.linalg.norm(vectors, axis=1)
        return lengths

    def unit(self, scores: np.ndarray) -> np.ndarray:
        """Return the values unchanged: one side has no score. *Shape:* that of scores."""
        return scores

    def token_counts(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of this side. *Shape:* (n_pairs,)."""
        return self.scorer._tokens(queries if self.side == "query" else documents).lengths
