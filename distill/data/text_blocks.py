"""Texts of a file of any size: every row is checked once, before any work, then read a block at a time."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from distill.data.tables import column_blocks, is_gap, line_blocks, locate, refused_rows, texts_of
from distill.errors import BadInput
from distill.files.hashing import texts_digest

__all__ = ["CheckedTexts", "TextReader", "unchanged"]

log = logging.getLogger(__name__)
Block = TypeVar("Block")


@dataclass(frozen=True)
class TextReader:
    """How texts are read, as `distill.data.tables.read_texts` does: the lines of a .txt, or a column of a table.

    :param section: what to set where the column is missing, for the message
    """

    source: str
    column: str = "text"
    section: str = "--column"

    def checked(self) -> "CheckedTexts":
        """Read every row once, keeping none.

        :raises BadInput: naming the rows that are no texts; where a .txt shows no character at all
        """
        n_rows = n_gaps = 0
        problems, digests = dict[int, str](), list[str]()
        for values in self.blocks():
            texts, found = self._texts(values)
            problems |= {n_rows + row: problem for row, problem in found.items()}
            n_rows += len(values)
            n_gaps += sum(map(is_gap, values))
            digests.append(texts_digest(texts))
        what = "line" if self._is_lines() else "row"
        if problems:
            raise refused_rows(self.source, n_rows, problems, what=what, advice="mend or remove them")
        if n_gaps == n_rows:
            raise BadInput(f"{self.source} is empty: none of its {what}s holds a text")
        if n_gaps:
            log.warning(
                "%s: of %d lines, %d show no character; kept as empty texts, so that lines keep their numbers",
                self.source,
                n_rows,
                n_gaps,
            )
        return CheckedTexts(self, n_rows, digests)

    def blocks(self) -> Iterator[Sequence[Any]]:
        """Yield the values of some rows at a time, as they are written."""
        table = locate(self.source, texts=True)
        if table is not None and table.format == "txt":
            yield from line_blocks(table)
        else:
            for block in column_blocks(self.source, [self.column], section=self.section):
                yield block[self.column]

    def _is_lines(self) -> bool:
        table = locate(self.source, texts=True)
        return table is not None and table.format == "txt"

    def _texts(self, values: Sequence[Any]) -> tuple[list[str], dict[int, str]]:
        is_lines = self._is_lines()
        return texts_of(values, "text" if is_lines else self.column, gaps=is_lines)


@dataclass(frozen=True)
class CheckedTexts:
    """Texts of which one block is in memory.

    :param digests: of each block as it was checked
    """

    reader: TextReader
    n_rows: int
    digests: Sequence[str]

    def __len__(self) -> int:
        return self.n_rows

    def blocks(self) -> Iterator[list[str]]:
        """Yield the texts of some rows at a time.

        :raises BadInput: where the file is not what it was when it was checked
        """
        read = (self.reader._texts(values)[0] for values in self.reader.blocks())
        yield from unchanged(self.reader.source, read, self.digests, texts_digest)


def unchanged(
    source: str, blocks: Iterable[Block], digests: Sequence[str], digest_of: Callable[[Block], str]
) -> Iterator[Block]:
    """Yield the blocks of a source as long as they are what they were.

    :param digests: of the blocks when they were checked
    :raises BadInput: at the first block that is another one, and where there are more or fewer
    """
    n_blocks, changed = 0, BadInput(f"{source} changed while it was read; run the command again")
    for n_blocks, block in enumerate(blocks, start=1):
        if n_blocks > len(digests) or digest_of(block) != digests[n_blocks - 1]:
            raise changed
        yield block
    if n_blocks != len(digests):
        raise changed
