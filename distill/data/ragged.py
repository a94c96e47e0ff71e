"""Many short arrays of row numbers in two flat ones: a million of one value each take 16 MB, as single arrays 120."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

__all__ = ["Ragged", "starts"]


def starts(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the start of each part, and the end of the last. *Shape:* lengths: (n,) → (n + 1,) int64."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


@dataclass(frozen=True)
class Ragged(Sequence[np.ndarray]):
    """An array of numbers divided into parts.

    *Shape:* values: (n_values,); offsets: (n_parts + 1,), part i is values[offsets[i]:offsets[i + 1]]

    >>> parts = Ragged.cut(np.array([3, 1, 2]), [2, 0, 1])
    >>> len(parts), parts[0].tolist(), parts.lengths.tolist(), parts.joined(np.array([2, 0])).tolist()
    (3, [3, 1], [2, 0, 1], [2, 3, 1])
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def cut(cls, values: np.ndarray, lengths: Sequence[int] | np.ndarray) -> "Ragged":
        """Divide an array into parts of these lengths. *Shape:* lengths: (n_parts,)."""
        return cls(values, starts(lengths))

    @classmethod
    def single(cls, values: np.ndarray) -> "Ragged":
        """Make each value its own part."""
        return cls(values, np.arange(len(values) + 1))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, part: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, part: slice) -> "Sequence[np.ndarray]": ...
    def __getitem__(self, part: int | slice) -> "np.ndarray | Sequence[np.ndarray]":
        if isinstance(part, slice):
            return [self[number] for number in range(len(self))[part]]
        number = range(len(self))[part]  # raises IndexError after the last part
        return self.values[self.offsets[number] : self.offsets[number + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """The number of values of each part. *Shape:* (n_parts,)."""
        return np.diff(self.offsets)

    def lengths_of(self, parts: np.ndarray) -> np.ndarray:
        """Return the number of values of some parts. *Shape:* parts: (n,)."""
        lengths: np.ndarray = self.offsets[parts + 1] - self.offsets[parts]
        return lengths

    def several(self) -> list[np.ndarray]:
        """Return the parts with more than one value."""
        return [self[part] for part in np.flatnonzero(self.lengths > 1).tolist()]

    def joined(self, parts: np.ndarray) -> np.ndarray:
        """Return the values of some parts, concatenated in the given order. *Shape:* parts: (n,)."""
        lengths = self.lengths_of(parts)
        shifts = self.offsets[parts] - np.cumsum(lengths) + lengths
        values: np.ndarray = self.values[np.repeat(shifts, lengths) + np.arange(lengths.sum())]
        return values

    def followed_by(self, other: "Ragged") -> "Ragged":
        """Return these parts, followed by the parts of another."""
        values = np.concatenate([self.values, other.values])
        return Ragged.cut(values, np.concatenate([self.lengths, other.lengths]))

    def mapped(self, *numbers: np.ndarray) -> "Ragged":
        """Return, for each part, the entries of these arrays at the part's values: each once, ascending.

        *Shape:* each of numbers: (n,) with n larger than every value
        """
        part = np.repeat(np.arange(len(self)), self.lengths)
        entries = [array[self.values] for array in numbers]
        if not len(part):
            return Ragged.cut(np.zeros(0, dtype=np.int64), np.zeros(len(self), dtype=np.int64))
        n = 1 + max(int(array_entries.max()) for array_entries in entries)
        part_entries = np.unique(np.concatenate([part * n + array_entries for array_entries in entries]))
        return Ragged.cut(part_entries % n, np.bincount(part_entries // n, minlength=len(self)))
