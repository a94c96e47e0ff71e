"""Checks of a teacher's scores as numbers: whether the scale is right, and whether a student can learn from them.

A cross-encoder's scores are logits, a bi-encoder's are cosines. The usual errors: probabilities instead of logits, a
sigmoid applied twice, logits instead of cosines, scores assigned to the wrong pairs, a temperature that makes all
targets nearly equal.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from distill.diagnosis.findings import Finding, Severity
from distill.files.artefact import ModelKind
from distill.metrics.logistic import sigmoid
from distill.training.learnable import LEAST_SPREAD, rank_correlation

__all__ = [
    "Contamination",
    "check_against_labels",
    "check_group_temperature",
    "check_same_scores",
    "check_scale",
    "check_temperature",
    "check_wrong_labels",
    "contamination",
    "suspects",
]

_LEAST = 50  # scores; fewer are not checked
_SLACK = 1e-3  # tolerance for the rounding of cosines
_SIGMOID_OF_ONE = 1 / (1 + math.exp(-1))  # the highest value that a sigmoid of a probability can reach
_WIDE, _WIDE_TWICE = 0.3, 0.1  # least range of scores to call them probabilities, and a sigmoid of probabilities
_LEAST_TARGET_SPREAD = 0.02  # of targets in [0, 1]
_MOST_AT_ENDS = 0.9  # largest share of targets within 0.001 of 0 or 1
_NO_RELATION = 0.2  # an interval that contains 0: no relation if it ends below this, else too few pairs to tell
# share of the scores' standard deviation: differences below it come from another precision or machine
_SAME_SHARE = 0.05
_LEAST_CONTAMINATION, _LEAST_FLATNESS, _LEAST_BEYOND = 0.03, 0.6, 8
_LEAST_AUC = 0.8  # least ROC-AUC of scores that can distinguish wrong labels from overlapping classes
_NORMAL_95_ONE_SIDED = 1.645


def check_scale(
    about: str,
    scores: np.ndarray,
    kind: ModelKind,
    *,
    score_range: tuple[float, float] | None = None,
    is_known: bool = False,
) -> list[Finding]:
    """Tell logits, probabilities and cosines apart by their range, and find scores that are not finite or all equal.

    :param score_range: the range from which the scores of a black box were mapped to logits; None if they were not
    :param is_known: whether the scale needs no guess: the run trains the teacher itself

    *Shape:* scores: (n_pairs,)
    """
    not_finite = ~np.isfinite(scores)
    if not_finite.any():
        message = f"{int(not_finite.sum())} of {len(scores)} scores are not finite, the first in row {int(np.flatnonzero(not_finite)[0])}"
        return [Finding("problem", "finite", about, message, "compute the signals again with signals.precision=fp32")]
    if len(scores) < _LEAST:
        return []
    low, high, spread = float(scores.min()), float(scores.max()), float(scores.std())
    numbers = {"least": low, "greatest": high, "std": spread}
    if spread < LEAST_SPREAD:
        message = f"all {len(scores)} scores are {low:.4g}"
        return [
            Finding("problem", "constant", about, message, "train this teacher longer, or take another one", numbers)
        ]
    if is_known:
        return []
    if kind == "bi_encoder":
        if low >= -1 - _SLACK and high <= 1 + _SLACK:
            return []
        message = f"scores from {low:.3g} to {high:.3g} are taken for cosines, which lie in [-1, 1]"
        advice = "set the teacher's kind to cross_encoder where they are logits, normalise its embeddings, or lower weights.sparse of a bge_m3"
        return [Finding("problem", "scale", about, message, advice, numbers)]
    if low < -_SLACK or high > 1 + _SLACK or high - low < _WIDE_TWICE:
        return []  # a teacher that has hardly learned may have logits this close to each other
    said, advice = f"scores from {low:.3g} to {high:.3g} are taken for logits, and look", "take the model's raw scores"
    if score_range is not None:  # a user knows the scores before they are mapped
        least, greatest = score_range
        first, last = (least + (greatest - least) * float(sigmoid(np.array(end))) for end in (low, high))
        numbers |= {"least_given": first, "greatest_given": last}
        said = (
            f"its scores from {first:.3g} to {last:.3g}, mapped from score_range [{least:g}, {greatest:g}] to logits from "
            f"{low:.3g} to {high:.3g}, look"
        )
        advice = "set score_range to the lowest and the highest score that it can give, or give its raw scores"
    if 0.5 - _SLACK <= low and high <= _SIGMOID_OF_ONE + _SLACK:
        message = f"{said} like a sigmoid of a sigmoid"
        return [Finding("problem", "sigmoid twice", about, message, f"{advice} as signals", numbers)]
    if high - low < _WIDE:
        return []
    advice = f"{advice} (no sigmoid) as signals"
    return [Finding("problem", "scale", about, f"{said} like probabilities", advice, numbers)]


def check_against_labels(
    about: str, scores: np.ndarray, labels: np.ndarray | None, *, where: Literal["training", "validation"]
) -> list[Finding]:
    """Compare scores with labels by Spearman's correlation and its 95 % interval.

    :param labels: NaN for pairs without a label
    :param where: the part of the data that the pairs are from

    *Shape:* scores, labels: (n_pairs,)
    """
    known = np.isfinite(scores) if labels is None else np.isfinite(scores) & np.isfinite(labels)
    if labels is None or known.sum() < _LEAST or np.ptp(labels[known]) == 0 or np.ptp(scores[known]) == 0:
        return []
    rho, low, high = rank_correlation(scores[known], labels[known])
    numbers = {"spearman": rho, "low": low, "high": high, "n_pairs": int(known.sum())}
    message = f"Spearman to the labels of {int(known.sum())} {where} pairs {rho:.3f} ({low:.3f} to {high:.3f})"
    if high < 0:
        advice = "check whether the labels, or the scores, are inverted"
        return [Finding("problem", "against labels", about, message, advice, numbers)]
    if low <= 0:
        level: Severity = "problem" if high < _NO_RELATION else "warning"
        advice = "check the teacher's head, its prompts and whether scores belong to their pairs; or train it longer"
        return [Finding(level, "unrelated to labels", about, f"{message}: no relation is shown", advice, numbers)]
    return [Finding("note", "labels", about, message, "", numbers)]


def check_same_scores(about: str, stored: np.ndarray, asked: np.ndarray, *, spread: float) -> list[Finding]:
    """Compare stored scores with the teacher's current scores of the same pairs.

    :param spread: the standard deviation of all stored scores; the median difference may be a twentieth of it

    *Shape:* stored, asked: (n_pairs,)
    """
    difference = float(np.median(np.abs(stored - asked)))
    numbers = {"median_difference": difference, "n_pairs": len(stored)}
    if not len(stored) or difference <= _SAME_SHARE * spread:
        return []
    correlation = 0.0
    if min(np.ptp(stored), np.ptp(asked)) > 0:
        correlation = float(np.corrcoef(stored, asked)[0, 1])
    numbers["correlation"] = correlation
    message = f"the stored scores of {len(stored)} pairs differ from the teacher's own by {difference:.3g} (median; correlation {correlation:.2f})"
    if correlation < 0.5:
        message += ": rows do not belong to their pairs, or another model gave them"
    else:
        message += ": another revision, prompt, length or scale gave them"
    advice = "remove the folder of these signals and run cache-signals again"
    return [Finding("problem", "stored signals", about, message, advice, numbers)]


def check_temperature(
    about: str,
    units: np.ndarray,
    temperature: float,
    logits: np.ndarray,
    *,
    setting: str = "score_match.temperature",
) -> list[Finding]:
    """Check whether targets in [0, 1] still distinguish pairs after the temperature.

    :param units: the targets that the student is trained on
    :param logits: the scores before the temperature
    :param setting: what of the recipe sets the temperature of these targets

    *Shape:* units, logits: (n_pairs,)
    """
    if len(units) < _LEAST or float(logits.std()) < LEAST_SPREAD:
        return []
    spread, ends = float(units.std()), _share_at_ends(units)
    numbers = {"temperature": temperature, "target_std": spread, "share_at_ends": ends}
    better_temperature = _better_temperature(logits)
    if better_temperature is not None:
        advice = f"set {setting} to about {better_temperature:.2g}, or match logits"
    else:
        advice = "no temperature spreads scores that lie this far from 0; set score_match.loss to logit_mse"
    if spread < _LEAST_TARGET_SPREAD:
        message = f"at temperature {temperature:g} the targets have a standard deviation of {spread:.4f}: all pairs look alike"
        return [Finding("problem", "temperature", about, message, advice, numbers)]
    if ends > _MOST_AT_ENDS:
        message = f"at temperature {temperature:g}, {ends:.0%} of the targets lie within 0.001 of 0 or 1: the order of pairs is lost"
        return [Finding("warning", "temperature", about, message, advice, numbers)]
    return []


def _better_temperature(logits: np.ndarray) -> float | None:
    """Return half of the logits' standard deviation, or, where they lie far from 0, what spreads the targets most.

    None if the targets are alike at every temperature.
    """
    half = max(float(logits.std()) / 2, 1e-3)
    for candidates in ([half], np.geomspace(half, 2 * max(half, float(np.abs(logits).max())), 40).tolist()):
        targets = [(sigmoid(logits / temperature), temperature) for temperature in candidates]
        units, temperature = max(targets, key=lambda target: float(target[0].std()))
        if units.std() >= _LEAST_TARGET_SPREAD and _share_at_ends(units) <= _MOST_AT_ENDS:
            return temperature
    return None


def _share_at_ends(units: np.ndarray) -> float:
    return float(((units < 0.001) | (units > 0.999)).mean())


def check_group_temperature(
    about: str,
    logits: np.ndarray,
    groups: Sequence[np.ndarray],
    temperature: float,
    *,
    setting: str = "score_match.temperature",
) -> list[Finding]:
    """Check that the distribution over a query's candidates is, on average, neither uniform nor concentrated on one.

    The measure is the entropy divided by its largest possible value: 1 is uniform, 0 is a single candidate.

    :param setting: what of the recipe sets the temperature of the teacher's logits

    *Shape:* logits: (n_pairs,); groups: rows of each query's candidates
    """
    lists = [rows for rows in groups if len(rows) > 1]
    if len(lists) < _LEAST:
        return []
    shares = [_entropy_share(logits[rows] / temperature) for rows in lists]
    mean = float(np.mean(shares))
    numbers = {"temperature": temperature, "entropy_share": mean}
    spread = float(np.median([logits[rows].std() for rows in lists]))
    advice = f"set {setting} to about {max(spread, 1e-3):.2g}"
    if mean > 0.995:
        message = f"at temperature {temperature:g} every candidate of a query has about the same share (entropy {mean:.3f} of the greatest)"
        return [Finding("problem", "temperature", about, message, advice, numbers)]
    if mean < 0.005:
        message = (
            f"at temperature {temperature:g} one candidate of a query has all (entropy {mean:.3f} of the greatest)"
        )
        return [Finding("warning", "temperature", about, message, advice, numbers)]
    return []


def _entropy_share(logits: np.ndarray) -> float:
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    return float(-(shares * np.log(np.maximum(shares, 1e-300))).sum() / math.log(len(shares)))


# ---------------------------------------------------------------------------------------------------------------------
# Wrong labels
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contamination:
    """A bound on the share of one class's scores that may belong to the other class.

    :param share: upper bound of the share
    :param low: its lower confidence limit, 95 % one-sided, over the scores of the examined class
    :param flatness: the bound in the tail divided by the bound at the middle: near 1 for a mixture, near 0 for two
        overlapping classes
    :param n_beyond: number of scores that the bound in the tail is computed from
    """

    share: float
    low: float
    flatness: float
    n_beyond: int

    @property
    def is_shown(self) -> bool:
        """Whether the share is larger than overlapping classes explain."""
        return self.low > _LEAST_CONTAMINATION and self.flatness >= _LEAST_FLATNESS and self.n_beyond >= _LEAST_BEYOND


def contamination(own: np.ndarray, others: np.ndarray) -> Contamination:
    """Bound the share of one class's scores that belong to the other class.

    If a share ε of the negatives are positives, F₋ = (1 − ε) G + ε F₊ for some G. So P₋(score > t) ≥ ε P₊(score > t) at
    every t, and the ratio bounds ε from above (Scott 2015, mixture proportion estimation). If the classes merely
    overlap, the ratio falls with t; in a mixture it stays at ε. It is computed at the t above which half of the other
    class lies, and at the t above which a fifth of it lies.

    *Shape:* own: (n,) scores of the examined class; others: (m,)

    >>> positives, negatives = np.arange(1000.0) + 5000, np.arange(1000.0)
    >>> contamination(negatives, positives).share
    0.0
    >>> found = contamination(np.concatenate([negatives[:900], positives[::10]]), positives)
    >>> round(found.share, 2), round(found.flatness, 1), found.is_shown
    (0.1, 1.0, True)
    """
    middle, tail = (np.quantile(others, share) for share in (0.5, 0.8))
    n_beyond = int((own > tail).sum())
    tail_share, middle_share = float((others > tail).mean()), float((others > middle).mean())
    if n_beyond == 0 or tail_share == 0 or middle_share == 0:
        return Contamination(0.0, 0.0, 0.0, n_beyond)
    share = n_beyond / len(own)
    low = max(0.0, share - _NORMAL_95_ONE_SIDED * math.sqrt(share * (1 - share) / len(own)))
    ratio = share / tail_share
    return Contamination(ratio, low / tail_share, ratio / (float((own > middle).mean()) / middle_share), n_beyond)


def check_wrong_labels(about: str, scores: np.ndarray, labels: np.ndarray) -> list[Finding]:
    """Look for negatives that are positives, and the other way round; the labels must have exactly two values.

    A teacher that was trained on these labels has also learned the wrong ones, so fewer of them show. Scores with a
    ROC-AUC below 0.8 are not checked.

    *Shape:* scores, labels: (n_pairs,)
    """
    from sklearn.metrics import roc_auc_score

    values = np.unique(labels)
    if len(values) != 2:
        return []
    negative, positive = scores[labels == values[0]], scores[labels == values[1]]
    if min(len(negative), len(positive)) < _LEAST or roc_auc_score(labels == values[1], scores) < _LEAST_AUC:
        return []
    found = []
    for check, what, bound in (
        ("false negatives", "negatives have the scores of positives", contamination(negative, positive)),
        ("false positives", "positives have the scores of negatives", contamination(-positive, -negative)),
    ):
        if bound.is_shown:
            message = f"up to {bound.share:.0%} of the {what}"
            advice = (
                "read the suspects (-o FOLDER writes them); mend the labels, or learn from the teacher's scores alone"
            )
            found.append(Finding("warning", check, about, message, advice, asdict(bound)))
    return found


def suspects(scores: np.ndarray, labels: np.ndarray, n: int) -> np.ndarray:
    """Return the rows whose label and score differ most, the largest difference first; both are ranks in [0, 1].

    *Shape:* scores, labels: (n_pairs,); result: at most (n,)
    """
    from scipy.stats import rankdata

    ranks = [(rankdata(values) - 0.5) / len(values) for values in (scores, labels)]
    differences = np.abs(ranks[0] - ranks[1])
    return np.argsort(-differences, kind="stable")[:n]
