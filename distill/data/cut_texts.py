"""How much of the texts `max_length` cuts off: counted once per stage, for the log and the card."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distill.data.tokens import tokenize

__all__ = ["CutTexts", "count_cut_texts", "sample_cut_texts"]

log = logging.getLogger(__name__)
_SAMPLED = 2000  # sequences at the limit that are tokenised again without it, to find their full lengths
_NO_LIMIT = 1 << 20
_SEED = 0


@dataclass(frozen=True)
class CutTexts:
    """Counts of sequences (texts, or a cross-encoder's pairs) over `max_length` tokens, and the tokens they lose."""

    n: int
    n_cut: int
    median_lost: int
    max_length: int

    @property
    def share(self) -> float:
        """The share of sequences that are cut."""
        return self.n_cut / max(self.n, 1)

    def to_json(self) -> dict[str, Any]:
        """Return the entry for a card."""
        return {**asdict(self), "share": round(self.share, 4)}

    def say(self, name: str) -> None:
        """Log how many sequences are cut, as a warning if there are any."""
        if self.n_cut:
            log.warning(
                "%s: max_length %d cuts %d of %d texts (%.1f %%), which lose %d tokens each in the median",
                name,
                self.max_length,
                self.n_cut,
                self.n,
                100 * self.share,
                self.median_lost,
            )
        else:
            log.info("%s: max_length %d cuts none of %d texts", name, self.max_length, self.n)


def count_cut_texts(
    tokenizer: Any,
    lengths: np.ndarray,
    texts: Sequence[str],
    pair_texts: Sequence[str] | None = None,
    *,
    max_length: int,
) -> CutTexts:
    """Count the sequences that were cut to `max_length` tokens; estimated from 2,000 if more are at the limit.

    :param lengths: number of tokens of each sequence after the cut. *Shape:* (n_sequences,)
    :param texts: the same sequences; `pair_texts` are their second texts
    """
    full_rows = np.flatnonzero(lengths >= max_length)
    sampled_rows = full_rows
    if len(full_rows) > _SAMPLED:
        sampled_rows = np.sort(np.random.default_rng(_SEED).choice(full_rows, _SAMPLED, replace=False))
    if len(sampled_rows) == 0:
        return CutTexts(len(lengths), 0, 0, max_length)
    first_texts = [texts[row] for row in sampled_rows.tolist()]
    second_texts = None if pair_texts is None else [pair_texts[row] for row in sampled_rows.tolist()]
    n_lost = tokenize(tokenizer, first_texts, second_texts, max_length=_NO_LIMIT).lengths - lengths[sampled_rows]
    losses = n_lost[n_lost > 0]
    n_cut = round(len(full_rows) * len(losses) / len(sampled_rows))
    return CutTexts(len(lengths), n_cut, int(np.median(losses)) if len(losses) else 0, max_length)


def sample_cut_texts(
    tokenizer: Any, texts: Sequence[str], pair_texts: Sequence[str] | None = None, *, max_length: int
) -> CutTexts:
    """Estimate from up to 2,000 random texts how many a limit of `max_length` tokens cuts; exact for fewer."""
    rows = np.arange(len(texts))
    if len(rows) > _SAMPLED:
        rows = np.sort(np.random.default_rng(_SEED).choice(rows, _SAMPLED, replace=False))
    second_texts = None if pair_texts is None else [pair_texts[row] for row in rows.tolist()]
    lengths = tokenize(tokenizer, [texts[row] for row in rows.tolist()], second_texts, max_length=_NO_LIMIT).lengths
    losses = lengths[lengths > max_length] - max_length
    n_cut = round(len(texts) * len(losses) / max(len(rows), 1))
    return CutTexts(len(texts), n_cut, int(np.median(losses)) if len(losses) else 0, max_length)
