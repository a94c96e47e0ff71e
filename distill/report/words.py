"""Format the numbers of a report, and write its sentences, as plain text without escapes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from distill.metrics.standing import above_chance, beside_untrained, floor_of, is_level_with_floor
from distill.recipe.black_box import BLACK_BOXES
from distill.report.content import (
    LOWER_IS_BETTER,
    METRIC_NAMES,
    RUNTIMES,
    BenchmarkResults,
    Row,
    metric_of,
    number_at,
    ratio,
)

__all__ = [
    "bound",
    "headline",
    "in_units",
    "kept",
    "listed",
    "megabytes",
    "metric_name",
    "nature",
    "percent",
    "speed_share",
    "three_decimals",
    "three_digits",
    "times",
    "verdict",
    "warnings",
    "worth",
    "worth_in_parts",
]

_KINDS = {
    "cross_encoder": "cross-encoder",
    "bi_encoder": "bi-encoder",
    "query_encoder": "query side of a bi-encoder",
    "document_encoder": "document side of a bi-encoder",
    "bge_m3": "BGE-m3",
    "late_interaction": "late interaction",
}
_BLACK_BOXES = {"file": "answers from a file", "endpoint": "answers of an endpoint", "callable": "a Python function"}
_GOOD_SHARE = 0.95  # the headline names the fastest model that keeps this much
_OURS = ("student", "export")
_ROLE_WORDS = {"teacher_export": "teacher, exported", "stage": "student, after a stage"}


def three_digits(value: float) -> str:
    """Return a number with three significant digits, at most two decimals, and separated thousands.

    >>> [three_digits(value) for value in (0.1234, 1.234, 12.34, 123.4, 12345.6)]
    ['0.12', '1.23', '12.3', '123', '12,346']
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def three_decimals(value: float) -> str:
    """Return a metric's value with three decimals.

    >>> three_decimals(0.98765), three_decimals(-0.05), three_decimals(-0.0001)
    ('0.988', '−0.050', '0.000')
    """
    return f"{value:z.3f}".replace("-", "−")


def bound(value: float) -> str:
    """Return a bound of an interval in short form, without the 0 before the decimal point.

    >>> bound(0.8123), bound(-0.05), bound(1.0)
    ('.812', '−.050', '1.000')
    """
    text = three_decimals(value)
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def percent(share: float) -> str:
    """Return a share in percent: 97.9 %."""
    return f"{share * 100:.1f}\u00a0%".replace("-", "−")


def times(factor: float) -> str:
    """Return a factor in short form: 41×, 1.8×, 0.62×."""
    return f"{factor:,.0f}×" if factor >= 10 else f"{factor:.1f}×" if factor >= 1 else f"{factor:.2g}×"


def megabytes(size: float) -> str:
    """Return a size in megabytes with its unit: 23.1 MB, 2.27 GB."""
    return f"{size / 1000:.2f} GB" if size >= 1000 else f"{three_digits(size)} MB"


def in_units(count: float) -> str:
    """Return a number of parameters in short form: 22.7 M, 1.24 G."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{three_digits(count / scale)} {unit}"
    return f"{count:.0f}"


def metric_name(key: str) -> str:
    """Return the name of a metric; the key itself if the metric is not known."""
    return METRIC_NAMES.get(key, key)


def listed(parts: Sequence[str]) -> str:
    """Join phrases with commas and "and".

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def nature(row: Row, reference: str = "teacher") -> str:
    """Return role, kind, variant, runtime and precision in one line; a missing precision is called "not recorded".

    :param reference: the name for the row with which the others are compared; if it is not "teacher", the others have
        no role
    """
    kind, runtime = str(row.get("kind") or ""), str(row.get("runtime") or "")
    precision = row.get("precision") or "precision not recorded"
    role = row.get("role")
    if reference != "teacher":
        role = reference if role == "teacher" else None
    if kind in BLACK_BOXES:
        return f"{role}\u00a0· {_BLACK_BOXES[kind]}\u00a0· parameters unknown"
    parts = (
        _ROLE_WORDS.get(str(role), role),
        _KINDS.get(kind, kind),
        row.get("variant"),
        RUNTIMES.get(runtime, runtime),
        precision,
    )
    return "\u00a0· ".join(str(part) for part in parts if part)


def headline(content: BenchmarkResults) -> str:
    """Return the headline: the fastest student that keeps 95 % of the teacher's quality, else the one that keeps most.

    Warnings follow it (`warnings`).
    """
    ours = [pair for pair in content.labelled() if pair[1].get("role") in _OURS]
    if not ours or content.primary is None:
        return "One model measured" if len(content.rows) == 1 else f"{len(content.rows)} models compared"
    key = content.primary
    good = [pair for pair in ours if (number_at(pair[1], "share", key) or 0) >= _GOOD_SHARE]
    label, row = max(good, key=lambda pair: number_at(pair[1], "speedup") or 0) if good else _keeps_most(ours, key)
    return ". ".join([_best_of_ours(label, row, content), *warnings(content)])


def _best_of_ours(label: str, row: Row, content: BenchmarkResults) -> str:
    """Return a model's share of the teacher's quality with its costs; without a share, its quality."""
    key = content.primary or ""
    share, value = number_at(row, "share", key), metric_of(row, key)
    if share is None:
        return f"{label}: not measured" if value is None else f"{label}: {metric_name(key)} {three_decimals(value)}"
    cost = " and ".join(_costs(row, content.teacher))
    return f"{label}: {percent(share)} of the {content.reference}’s {_metric_in_sentence(key)}{above_chance(key)}{f' at {cost}' if cost else ''}"


def _keeps_most(ours: Sequence[tuple[str, Row]], key: str) -> tuple[str, Row]:
    sign = -1 if key in LOWER_IS_BETTER else 1

    def share_and_value(pair: tuple[str, Row]) -> tuple[float, float]:
        value = metric_of(pair[1], key)
        return number_at(pair[1], "share", key) or 0, -math.inf if value is None else sign * value

    return max(ours, key=share_and_value)


def kept(row: Row, content: BenchmarkResults) -> str | None:
    """Return a model's shares of its teacher's quality, with its costs, as a phrase; None if no share is known."""
    shares = [(key, number_at(row, "share", key)) for key in content.metrics]
    known = [
        f"{percent(share)} of its {_metric_in_sentence(key)}{above_chance(key)}"
        for key, share in shares
        if share is not None
    ]
    if not known:
        return None
    shares_in_words = listed(known).replace("of its", f"of the {content.reference}’s", 1)
    verb = "keeps" if row.get("role") in (*_OURS, "teacher_export") else "reaches"
    costs = _costs(row, content.teacher)
    return f"{verb} {shares_in_words}{f', at {listed(costs)}' if costs else ''}"


def warnings(content: BenchmarkResults) -> list[str]:
    """Return warnings for the headline, as sentences without a full stop: not shown to be better than TF-IDF or untrained."""
    under = [
        label for label, row in content.labelled() if row.get("under_floor") and row.get("role") in ("teacher", *_OURS)
    ]
    sentences = [f"Worse than TF-IDF, which counts common terms: {listed(under)}"] if under else []
    floor = floor_of(content.rows, content.primary or "")
    level = [label for label, row in content.labelled() if is_level_with_floor(row, floor, content.raw)]
    sentences += [f"Not shown to be better than TF-IDF: {listed(level)}"] if level else []
    learned = [(beside_untrained(row, content.primary or ""), label) for label, row in content.labelled()]
    return sentences + [f"{said}: {label}" for said, label in learned if said is not None]


def worth(row: Row, content: BenchmarkResults) -> str | None:
    """Return a model's shares of the possible gain in the primary metric, as a phrase; None if they are unknown.

    A model that is worse than the base of the gain is called below it, because a negative share has no clear meaning.
    """
    key = content.primary or ""
    known = worth_in_parts(row, key)
    best = number_at(row, "retention_best", key)
    differs = best is not None and abs(best - (number_at(row, "retention", key) or best)) > 1e-9
    known = [f"{percent(best)} of its value", *known] if differs and best is not None else known
    base = "best teacher" if content.reference == "teacher" else content.reference
    return f"of the {base}’s {_metric_in_sentence(key)}: {listed(known)}" if known else None


def worth_in_parts(row: Row, key: str) -> list[str]:
    """Return a row's known shares of the gain in a metric: above chance, over the untrained student and over TF-IDF."""
    shares = (
        (("above_chance", key), "above", "chance"),
        (("gain", "untrained", key), "over", "the untrained student"),
        (("gain", "floor", key), "over", "TF-IDF"),
    )
    return [
        f"{percent(share)} {preposition} {base}" if share >= 0 else f"below {base}"
        for path, preposition, base in shares
        if (share := number_at(row, *path)) is not None
    ]


def speed_share(row: Row) -> str | None:
    """Return the two factors of a model's speed-up, in words; None if there is no teacher export to compare with.

    >>> speed_share({"speedup_split": {"model": 5.81, "runtime": 3.9, "beside": "bi (int8)", "same": True}})
    '5.8 from the smaller model × 3.9 from the runtime'
    """
    model, runtime = (number_at(row, "speedup_split", part) for part in ("model", "runtime"))
    if model is None or runtime is None:
        return None
    split = row["speedup_split"]
    beside = "" if split.get("same") else f", beside {split.get('beside')}"
    return f"{_factor(model)} from the smaller model × {_factor(runtime)} from the runtime{beside}"


def _factor(value: float) -> str:
    return times(value).removesuffix("×")


def _costs(row: Row, teacher: Row | None) -> list[str]:
    speedup = number_at(row, "speedup")
    size = ratio(number_at(row, "size_mb"), number_at(teacher, "size_mb"))
    split = speed_share(row)
    phrases = [] if speedup is None else [f"{times(speedup)} its speed{f' ({split})' if split else ''}"]
    return phrases + ([] if not size or size < 0 else [f"{_part(size)} {'of ' if size < 1 else ''}its size"])


def _part(share: float) -> str:
    """Return a share of a size in short form.

    >>> _part(0.0512), _part(1.3)
    ('1/20', '1.3×')
    """
    if share >= 1:
        return times(share)
    return f"1/{1 / share:.0f}" if share < 0.4 else f"{share * 100:.0f}\u00a0%"


def _metric_in_sentence(key: str) -> str:
    """Return the name of a metric for use within a sentence."""
    return "average precision" if key == "average_precision" else metric_name(key)


def verdict(comparison: Mapping[str, Any]) -> str:
    """Return in plain words what the interval of a difference shows."""
    low, high = number_at(comparison, "low"), number_at(comparison, "high")
    if comparison.get("broken_control"):
        return "the control is worse than the untrained student: it is broken, and nothing is shown"
    if low is None or high is None:
        return "no interval was computed, so nothing is shown"
    if low <= 0 <= high:
        return "the interval includes 0: no difference shown"
    first, _, second = str(comparison.get("name", "")).replace(" - ", " − ").partition(" − ")
    wins = (low > 0) != (comparison.get("metric") in LOWER_IS_BETTER)
    if first == "control":
        return "the interval excludes 0: " + (
            "the labels taught it something" if wins else "the control is broken: it is worse than untrained"
        )
    if second == "control":
        return f"the interval excludes 0: the teacher {'helped' if wins else 'did harm'}"
    return f"the interval excludes 0: {(first if wins else second) or 'one of them'} is better"
