"""Checks of the pairs themselves, without a model: sides, labels, copies between parts, scripts."""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from distill.data.pairs import Pairs
from distill.data.scripts import script_shares
from distill.data.splitting import sample, text_key
from distill.diagnosis.findings import Finding, Severity
from distill.training.learnable import rank_correlation

__all__ = [
    "check_contradictions",
    "check_copies",
    "check_floor",
    "check_labels",
    "check_scripts",
    "check_sides",
]

_SAMPLED, _SEED = 2000, 0  # texts or pairs of a part that a check reads
_LEAST = 50  # pairs; with fewer, a classifier's accuracy and a ROC-AUC are not reliable
_TOLD_APART, _LIKE_OTHER = 0.9, 0.3  # share of recognised texts: at least in training; at most if swapped
_SWAPPED_ROWS, _MIXED = 0.05, 0.02  # shares of rows: at least with both texts swapped, at most with one
_COPIED, _COPIED_PAIRS = 0.9, 0.05  # least cosine of character 4-grams; least share of evaluation pairs
_AT_ONCE = 256


def _sampled(pairs: Pairs, n: int = _SAMPLED) -> Pairs:
    return pairs if len(pairs) <= n else pairs.select(sample(len(pairs), n, _SEED))


# ---------------------------------------------------------------------------------------------------------------------
# Sides
# ---------------------------------------------------------------------------------------------------------------------


def check_sides(train: Pairs, others: dict[str, Pairs]) -> list[Finding]:
    """Look for swapped queries and documents, if the two kinds of text can be told apart by their characters.

    A naive Bayes classifier learns the two sides from one half of the training pairs. The other half shows whether the
    sides can be told apart at all, and how many rows have both texts on the wrong side.
    """
    pairs = _sampled(train)
    if len(pairs) < 2 * _LEAST:
        return []
    half = len(pairs) // 2
    order = np.random.default_rng(_SEED).permutation(len(pairs)).tolist()
    is_swapped = _side_reader(pairs.select(order[:half]))
    swapped, mixed, right = is_swapped(pairs.select(order[half:]))
    found = []
    if mixed <= _MIXED and swapped >= _SWAPPED_ROWS:
        message = f"in {swapped:.0%} of the rows query and document seem to be swapped"
        found.append(
            Finding("warning", "swapped sides", "training pairs", message, "mend these rows", {"share": swapped})
        )
    if right < _TOLD_APART:
        return found
    for name, part in others.items():
        if len(part) < _LEAST:
            continue
        *_, alike = is_swapped(_sampled(part))
        if alike <= _LIKE_OTHER:
            message = f"its queries read like the documents of training, and its documents like the queries ({1 - alike:.0%} of the texts)"
            advice = "swap data.columns.query and data.columns.document of one of the files"
            numbers = {"recognised_in_training": right, "recognised_here": alike}
            found.append(Finding("problem", "swapped sides", name, message, advice, numbers))
    return found


def _side_reader(pairs: Pairs) -> Any:
    """Return a function from pairs to shares: of rows with both sides wrong, of rows with one wrong, of correct texts."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.naive_bayes import MultinomialNB

    counts = HashingVectorizer(
        analyzer="char_wb", ngram_range=(1, 3), n_features=2**16, alternate_sign=False, norm=None
    )
    texts = [*pairs.queries, *pairs.documents]
    model = MultinomialNB().fit(counts.transform(texts), np.repeat([0, 1], len(pairs)))

    def shares_wrong(others: Pairs) -> tuple[float, float, float]:
        as_query = model.predict(counts.transform(others.queries)) == 0
        as_document = model.predict(counts.transform(others.documents)) == 1
        both_wrong, one_wrong = ~as_query & ~as_document, as_query != as_document
        return float(both_wrong.mean()), float(one_wrong.mean()), float((as_query.mean() + as_document.mean()) / 2)

    return shares_wrong


# ---------------------------------------------------------------------------------------------------------------------
# Labels
# ---------------------------------------------------------------------------------------------------------------------


def check_labels(pairs: Pairs, losses: Sequence[str | None]) -> list[Finding]:
    """Check whether the labels differ at all; only InfoNCE can learn from positives alone.

    :param losses: the losses by which the teachers and the student learn labels; None is the default loss
    """
    if pairs.labels is None or not len(pairs) or np.ptp(pairs.labels) > 0:
        return []
    message = f"the label of all {len(pairs)} pairs is {float(pairs.labels[0]):g}"
    if losses and all(loss == "infonce" for loss in losses):
        advice = "loss infonce learns from positives alone; the other checks of labels say nothing here"
        return [Finding("note", "labels alike", "training pairs", message, advice)]
    advice = "add pairs with other labels, or learn by loss infonce (bi-encoders, positives alone)"
    level: Severity = (
        "problem" if losses else "warning"
    )  # even if no model learns from labels, the control and the metrics need them
    return [Finding(level, "labels alike", "training pairs", message, advice)]


def check_contradictions(pairs: Pairs) -> list[Finding]:
    """Count pairs that occur twice with labels at least half the range apart, and pairs of equal texts labelled 0."""
    if pairs.labels is None:
        return []
    seen: dict[tuple[str, str], list[float]] = {}
    n_equal_negative = 0
    for query, document, label in zip(pairs.queries, pairs.documents, pairs.labels.tolist(), strict=True):
        left, right = text_key(query), text_key(document)
        n_equal_negative += left == right and label == 0
        seen.setdefault((min(left, right), max(left, right)), []).append(label)
    n_apart = sum(max(labels) - min(labels) >= 0.5 for labels in seen.values())
    found = []
    if n_apart >= max(5, 0.01 * len(seen)):
        message = (
            f"{n_apart} of {len(seen)} pairs stand there several times with labels half of the range apart or more"
        )
        found.append(
            Finding("warning", "contradictory labels", "training pairs", message, "keep one label of each pair")
        )
    if n_equal_negative >= max(5, 0.01 * len(pairs)):
        message = f"{n_equal_negative} of {len(pairs)} pairs have the same text on both sides and the label 0"
        found.append(Finding("warning", "false negatives", "training pairs", message, "mend or remove them"))
    return found


def check_floor(pairs: Pairs, floor: np.ndarray) -> list[Finding]:
    """Check whether pairs that share more terms have lower labels: labels are inverted, or all negatives are hard.

    *Shape:* floor: (n_pairs,) TF-IDF cosines
    """
    if pairs.labels is None or len(pairs) < _LEAST or np.ptp(pairs.labels) == 0 or np.ptp(floor) == 0:
        return []
    rho, low, high = rank_correlation(floor, pairs.labels)
    numbers = {"spearman": rho, "low": low, "high": high}
    correlation = f"Spearman of TF-IDF to the labels {rho:.3f} ({low:.3f} to {high:.3f})"
    if high >= 0:
        return [Finding("note", "floor", "training pairs", correlation, "", numbers)]
    message = f"{correlation}: pairs with more terms in common have lower labels"
    advice = "check whether the labels are inverted (0 is no match, 1 is a match; data.label_range)"
    return [
        Finding("problem" if high < -0.1 else "warning", "inverted labels", "training pairs", message, advice, numbers)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Copies between parts
# ---------------------------------------------------------------------------------------------------------------------


@cache
def _bare_sign(sign: str) -> str:
    # the vowel signs of Devanagari or Thai are marks, no letters: without them different words are alike
    return sign if sign.isalnum() or unicodedata.category(sign)[0] == "M" else " "


def _bare(text: str) -> str:
    """Return the letters and digits of a text in lower case, with one space in place of everything between them."""
    return " ".join("".join(map(_bare_sign, text_key(text).casefold())).split())


def check_copies(train: Pairs, evaluation: Pairs) -> list[Finding]:
    """Count evaluation pairs with a near copy in training: equal up to case, punctuation or a few letters.

    A split leaves no equal text in both parts (`distill.data.pairs`), but near copies. Evaluation pairs of a file of
    their own may have equal texts too, which count as near. Texts are near if the cosine of their character 4-grams is
    0.9 or more. Both texts must have a near copy in the same training pair.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    evaluation = _sampled(evaluation)
    if not len(train) or not len(evaluation):
        return []
    counts = HashingVectorizer(analyzer="char_wb", ngram_range=(4, 4), n_features=2**20, alternate_sign=False)
    pool = list(dict.fromkeys(map(_bare, (*train.queries, *train.documents))))
    rows = {text: row for row, text in enumerate(pool)}
    pairs_of: dict[int, set[int]] = {}
    for number, pair in enumerate(zip(train.queries, train.documents, strict=True)):
        for text in pair:
            pairs_of.setdefault(rows[_bare(text)], set()).add(number)
    texts = list(dict.fromkeys(map(_bare, (*evaluation.queries, *evaluation.documents))))
    near = dict(zip(texts, _near(counts.transform(texts), counts.transform(pool)), strict=True))

    def near_pairs(text: str) -> set[int]:
        return set().union(*(pairs_of[row] for row in near[_bare(text)]))

    sides = [
        (near_pairs(query), near_pairs(document))
        for query, document in zip(evaluation.queries, evaluation.documents, strict=True)
    ]
    n_pairs = sum(bool(left & right) for left, right in sides)
    n_texts = sum(bool(rows_near) for rows_near in near.values())
    share = n_pairs / len(evaluation)
    numbers = {"pairs": share, "texts": n_texts / len(texts)}
    message = f"{n_pairs} of {len(evaluation)} evaluation pairs, and {n_texts} of {len(texts)} texts, have a near copy in training"
    if share >= _COPIED_PAIRS:
        advice = "remove them from the training file: the report is too kind otherwise"
        return [Finding("warning", "leak", "evaluation pairs", message, advice, numbers)]
    return [Finding("note", "leak", "evaluation pairs", message, "", numbers)]


def _near(texts: Any, pool: Any) -> Iterator[list[int]]:
    """Yield, for each text, the near rows of the pool."""
    transposed = pool.T.tocsc()
    for start in range(0, texts.shape[0], _AT_ONCE):
        products = (texts[start : start + _AT_ONCE] @ transposed).tocsr()
        for row in range(products.shape[0]):
            part = slice(products.indptr[row], products.indptr[row + 1])
            yield products.indices[part][products.data[part] >= _COPIED].tolist()


# ---------------------------------------------------------------------------------------------------------------------
# Scripts
# ---------------------------------------------------------------------------------------------------------------------


def check_scripts(train: Pairs, evaluation: Pairs) -> list[Finding]:
    """Report the scripts of the training texts, and the scripts of evaluation that are missing in training."""
    if not len(train) or not len(evaluation):
        return []
    parts = [_sampled(part) for part in (train, evaluation)]
    shares, evaluation_shares = (script_shares([*part.queries, *part.documents]) for part in parts)
    shares_text = ", ".join(f"{script.lower()} {share:.0%}" for script, share in shares.items() if share >= 0.01)
    found = [Finding("note", "scripts", "training texts", shares_text, "", shares)]
    for script, share in evaluation_shares.items():
        if share >= 0.2 and shares.get(script, 0.0) < 0.01:
            message = f"{share:.0%} of the texts are in {script.lower()}, and next to none of training"
            found.append(
                Finding(
                    "warning",
                    "scripts",
                    "evaluation texts",
                    message,
                    "train on texts of this language",
                    evaluation_shares,
                )
            )
    return found
