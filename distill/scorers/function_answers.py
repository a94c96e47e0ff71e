"""Get answers to texts or pairs from a Python function, called for 1,024 items at a time, and check its results."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distill.errors import BadInput, JobFailed
from distill.progress import OnProgress
from distill.recipe.black_box import CallableTeacher
from distill.scorers.file_answers import shown_item, to_scale
from distill.scorers.file_rows import Item

__all__ = ["FunctionAnswers"]

_AT_ONCE = 1024


class FunctionAnswers:
    """The answers of a function; None means that the caller has given none."""

    def __init__(self, name: str, settings: CallableTeacher, function: Callable[..., Any] | None) -> None:
        self.name, self.settings, self._function = name, settings, function

    def ask(self, items: Sequence[Item], roles: Sequence[int], progress: OnProgress) -> np.ndarray:
        """Call the function for the items.

        :raises BadInput: if there is no function, or its result is invalid
        :raises JobFailed: if the function raises an error
        """
        if self._function is None:
            raise BadInput(
                f"teacher {self.name} is of kind callable: its function is given in Python, Run(recipe, "
                f"callables={{{self.name!r}: function}}); a recipe file alone names none"
            )
        parts = []
        for start in range(0, len(items), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            parts.append(self._called(self._function, items[part], roles[part]))
            if parts[-1].shape[1:] != parts[0].shape[1:]:
                widths = f"{parts[0].shape[1]} and {parts[-1].shape[1]} numbers"
                raise BadInput(f"teacher {self.name}: its function returns vectors of {widths}; one width is expected")
            progress(len(parts[-1]))
        return np.concatenate(parts)

    def _called(self, function: Callable[..., Any], items: Sequence[Item], roles: Sequence[int]) -> np.ndarray:
        is_vectors, prompts = self.settings.signal == "embeddings", self.settings.role_prompts
        if is_vectors:
            arguments = [[f"{prompts[role]}{item}" for item, role in zip(items, roles, strict=True)]]
        else:
            arguments = [[item[side] for item in items] for side in (0, 1)]
        try:
            returned = function(*arguments)
        except Exception as error:  # a caller's function may raise anything
            reason = " ".join(str(error).split())[:200]
            raise JobFailed(
                f"teacher {self.name}: its function raised {type(error).__name__} on {len(items)} items: {reason}"
            ) from error
        return self._checked(returned, items, is_vectors)

    def _checked(self, returned: Any, items: Sequence[Item], is_vectors: bool) -> np.ndarray:
        where = f"teacher {self.name}: its function"
        wanted = f"({len(items)}, width)" if is_vectors else f"({len(items)},)"
        try:
            values = np.asarray(returned, dtype=np.float64)
        except (TypeError, ValueError):
            raise BadInput(
                f"{where} returned {type(returned).__name__}; an array of numbers {wanted} is expected"
            ) from None
        if values.ndim != 1 + is_vectors or len(values) != len(items) or not values.size:
            raise BadInput(
                f"{where} returned an array of shape {values.shape} for {len(items)} items; {wanted} is expected"
            )
        rows = values.reshape(len(values), -1)
        with np.errstate(over="ignore"):
            wrong = ~np.isfinite(rows.astype(np.float32)).all(axis=1)
        if is_vectors:
            wrong |= ~rows.any(axis=1)
        if wrong.any():
            what = "NaN, infinity or a vector of zeros" if is_vectors else "NaN or infinity"
            raise BadInput(
                f"{where} returned {what} for {wrong.sum()} of {len(items)} items, as {shown_item(items[int(wrong.argmax())])}"
            )
        if is_vectors:
            vectors: np.ndarray = values.astype(np.float32)
            return vectors
        return to_scale(where, self.settings, values)
