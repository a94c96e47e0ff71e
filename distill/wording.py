"""Format values for logs, notes and reports: values that may be undefined, and differences with their intervals."""

import math
from collections.abc import Mapping

__all__ = [
    "counted",
    "difference_in_words",
    "in_dollars",
    "label_loss_in_words",
    "load_with",
    "or_least",
    "printable",
    "signed",
    "value_in_words",
    "values_in_words",
]

_MOST_DECIMALS = 9


def or_least(value: float | None) -> float:
    """Return a value for comparison. An undefined value (None) becomes −inf, less than any other.

    >>> max([None, -1.0, 0.0], key=or_least)
    0.0
    """
    return -math.inf if value is None else value


def value_in_words(value: float | None) -> str:
    """Return a metric's value with four decimals, or "undefined".

    >>> value_in_words(0.98765), value_in_words(None)
    ('0.9877', 'undefined')
    """
    return "undefined" if value is None else f"{value:.4f}"


def values_in_words(values: Mapping[str, float | None]) -> str:
    """Return metric values with their names, as text.

    >>> values_in_words({"bce": 0.5, "mse": None})
    'bce 0.5000, mse undefined'
    """
    return ", ".join(f"{name} {value_in_words(value)}" for name, value in values.items())


def in_dollars(amount: float) -> str:
    """Return an amount in dollars with two decimals; a small amount gets enough decimals for its first two digits.

    >>> in_dollars(12.5), in_dollars(0.0), in_dollars(0.00135), in_dollars(0.051), in_dollars(2.6e-7)
    ('$12.50', '$0', '$0.0014', '$0.051', '<$0.0001')
    """
    if abs(amount) < 0.0001:
        return "<$0.0001" if amount else "$0"
    decimals = max(2, 1 - math.floor(math.log10(abs(amount)))) if math.isfinite(amount) else 2
    return f"${amount:.{decimals}f}"


def load_with(runtime: str) -> str:
    """Return how to open a folder in another runtime, in Python and on the command line.

    >>> load_with("torch")
    'load it with runtime="torch" (--runtime torch of a command)'
    """
    return f'load it with runtime="{runtime}" (--runtime {runtime} of a command)'


def signed(value: float, decimals: int = 3) -> str:
    """Return a difference with its sign. A value that rounds to zero gets a plus.

    >>> signed(0.0123), signed(-0.0123), signed(-0.00001)
    ('+0.012', '−0.012', '+0.000')
    """
    return f"{value:+z.{decimals}f}".replace("-", "−")


def difference_in_words(value: float, low: float | None, high: float | None, decimals: int = 3) -> str:
    """Return a difference and its interval. If the interval excludes 0, there are enough decimals to show it.

    >>> difference_in_words(0.026, 0.018, 0.034)
    '+0.026 (+0.018 to +0.034)'
    >>> difference_in_words(0.0169, 0.00023, 0.0337)
    '+0.0169 (+0.0002 to +0.0337)'
    >>> difference_in_words(0.0, -0.0004, 0.0004), difference_in_words(0.1, None, None)
    ('+0.000 (+0.000 to +0.000)', '+0.100')
    """
    if low is None or high is None:
        return signed(value, decimals)
    parts = (value, low, high)
    if low > 0 or high < 0:
        while decimals < _MOST_DECIMALS and any(part and round(part, decimals) == 0 for part in parts):
            decimals += 1
    shown, first, last = (signed(part, decimals) for part in parts)
    return f"{shown} ({first} to {last})"


def label_loss_in_words(loss: str, learning_rate: float | None = None) -> str:
    """Return the loss with which a control learned the labels, and its learning rate, as text.

    >>> label_loss_in_words("cosent", 1e-4), label_loss_in_words("recipe")
    ('cosent at a learning rate of 0.0001', "the recipe's terms on labels")
    """
    rate = "" if learning_rate is None else f" at a learning rate of {learning_rate:g}"
    return ("the recipe's terms on labels" if loss == "recipe" else loss) + rate


def counted(n: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural.

    >>> counted(1, "pair"), counted(0, "pair"), counted(1200, "query")
    ('1 pair', '0 pairs', '1,200 queries')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"


def printable(text: str) -> str:
    """Return a text with control characters and line breaks escaped, so that unknown text stays on one line.

    >>> printable("ok" + chr(27)) == "ok" + ascii(chr(27))[1:-1], printable("학생 é")
    (True, '학생 é')
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
