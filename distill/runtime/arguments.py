"""Check the arguments that a caller passes to the runtime: texts, vectors, numbers and names.

Each check returns the value in the form that the runtime uses, or raises `BadInput` with a one-line message that names
the argument and, if there is one, the row.
"""

import numbers
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from distill.errors import BadInput
from distill.models.files import ModelFiles
from distill.wording import counted

__all__ = [
    "check_choice",
    "check_count",
    "check_scores",
    "check_text_pairs",
    "check_texts",
    "check_truncate",
    "check_vectors",
    "is_texts",
]


def check_texts(name: str, texts: Iterable[str], first_row: int = 0) -> list[str]:
    """Return texts as a list of str; accepted are any sequence or iterator, a numpy array or a pandas Series.

    Every str is a text, including the empty one and the words "NaN" and "None"; None, NaN and numbers are not.

    :param first_row: the row number of the first text, for messages
    :raises BadInput: if it is a single text, has no order or more than one dimension, or a row is not a text
    """
    if isinstance(texts, str):
        raise BadInput(f"{name} is one text; a list of texts is expected")
    unordered = isinstance(texts, bytes | bytearray | Mapping | Set) or getattr(texts, "ndim", 1) != 1
    if unordered or not isinstance(texts, Iterable):
        shape = f" of shape {texts.shape}" if hasattr(texts, "shape") else ""
        raise BadInput(f"{name} is {_type_name(texts)}{shape}; a list of texts is expected")
    checked = list(texts)
    for row, text in enumerate(checked):
        if type(text) is not str:
            if not isinstance(text, str):
                raise BadInput(
                    f"{name}, row {first_row + row}: a text is expected, got {_shown(text)} ({_type_name(text)})"
                )
            checked[row] = str(text)  # a str subclass, such as numpy's
    return checked


def check_text_pairs(queries: Iterable[str], documents: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return both sides of pairs as lists of str.

    :raises BadInput: if a row is not a text, or the sides differ in length
    """
    query_texts, document_texts = check_texts("queries", queries), check_texts("documents", documents)
    if len(query_texts) != len(document_texts):
        query_count, document_count = counted(len(query_texts), "query"), counted(len(document_texts), "document")
        raise BadInput(f"{query_count} and {document_count}; pairs are expected, one document a query")
    return query_texts, document_texts


def check_scores(scores: Any) -> np.ndarray:
    """Return scores as an array of numbers, NaN and infinity among them. *Shape:* any.

    :raises BadInput: if they are no numbers
    """
    try:
        return np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadInput(f"scores are {_shown(scores)} ({_type_name(scores)}); numbers are expected") from None


def check_truncate(files: ModelFiles, truncate: int | None, width: int | None) -> None:
    """Check a number of dimensions to keep.

    :param width: that of the whole embeddings; None where it is not known
    :raises BadInput: if it is none of 1 to `width`, or the model gives no embeddings
    """
    if truncate is None:
        return
    if files.kind != "bi_encoder":
        raise BadInput(f"truncate {truncate}: {files.folder} is a cross-encoder, which has no embeddings; leave it out")
    if width is not None and not 1 <= truncate <= width:
        raise BadInput(
            f"truncate {truncate}: the embeddings of {files.folder} have {counted(width, 'number')}; ask for 1 to that many"
        )


def is_texts(values: Any) -> bool:
    """Tell whether documents are texts, in any container, and not a matrix of vectors.

    >>> is_texts(["a"]), is_texts(np.array(["a"])), is_texts(np.array(["a"], dtype=object)), is_texts(np.zeros((2, 3)))
    (True, True, True, False)
    """
    if not hasattr(values, "__array__"):
        return True
    dtype, ndim = getattr(values, "dtype", None), getattr(values, "ndim", 1)
    return ndim == 1 and getattr(dtype, "kind", "O") in "OSUT"  # T: numpy's variable-length strings


def check_vectors(name: str, vectors: Any, width: int, *, what: str = "n") -> np.ndarray:
    """Return vectors as a float32 or int8 matrix of this width.

    :param what: the name of the number of rows, for messages
    :raises BadInput: if the shape or type is wrong, or a row is not finite

    *Shape:* (n, width), float16, float32, float64 or int8 → (n, width), float32 or int8
    """
    try:
        array = np.asarray(vectors)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged rows, a tensor on a GPU or with a gradient
        raise BadInput(
            f"{name}: {' '.join(str(error).split())[:200]}; a matrix ({what}, {width}) is expected"
        ) from None
    if array.dtype.kind != "f" and array.dtype != np.int8:
        hint = "; binary codes are searched with an Index" if array.dtype == np.uint8 else ""
        raise BadInput(f"{name} of {array.dtype}; float32, float64, float16 or int8 is accepted{hint}")
    if array.ndim != 2 or array.shape[1] != width:
        raise BadInput(f"{name} of shape {array.shape}; ({what}, {width}) is expected")
    if array.dtype == np.int8:
        return array
    with np.errstate(over="ignore"):  # values too large for float32 become infinite and are refused below
        floats = array.astype(np.float32, copy=False)
    finite = np.isfinite(floats).all(axis=1)
    if not finite.all():
        raise BadInput(f"{name}, row {int(finite.argmin())}: NaN or infinite; every number is to be finite")
    return floats


def check_count(name: str, value: Any, *, least: int = 1, none: str | None = None) -> int | None:
    """Return a whole number as an int.

    :param least: the smallest accepted number
    :param none: what None means, for messages; without it, None is not accepted
    :raises BadInput: if the number is too small, or not a whole number: a bool, a float, a text
    """
    if value is None and none is not None:
        return None
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_)
    if not is_whole or int(value) < least:
        instead = "" if none is None else f", or None for {none}"
        raise BadInput(f"{name} {_shown(value)}; at least {least} is expected, a whole number{instead}")
    return int(value)


def check_choice(name: str, value: Any, accepted: Sequence[str], hint: str = "") -> None:
    """Check that a name is one of the accepted ones, or None.

    :raises BadInput: naming the accepted ones
    """
    if value is not None and value not in accepted:
        raise BadInput(f"{name} {_shown(value)}; one of {', '.join(accepted)} is accepted{hint}")


def _type_name(value: Any) -> str:
    return type(value).__name__


def _shown(value: Any) -> str:
    """Return a value as one short line, for messages."""
    line = " ".join(repr(value).split())
    return line if len(line) <= 80 else f"{line[:77]}…"
