"""Texts of a file of any size: every row is checked once before any work, then rows are read one block at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distill.data.tables import (
    column_blocks,
    count_gaps,
    line_blocks,
    locate,
    refuse_column,
    refused_rows,
    texts_of,
    unchanged,
)
from distill.files.hashing import texts_digest

__all__ = ["CheckedTexts", "TextReader"]


@dataclass(frozen=True)
class TextReader:
    """How texts are read, as in `distill.data.tables.read_texts`: the lines of a .txt, or a column of a table.

    :param section: the option to set if the column is missing, for the message
    """

    source: str
    column: str = "text"
    section: str = "--column"

    def blocks(self) -> Iterator[tuple[list[str], dict[int, str]]]:
        """Yield blocks of texts, with the problems of the rows that hold none, by row of the block from 0.

        A line of a .txt without a visible character is an empty text, and so is a row with a problem.
        """
        table = locate(self.source, texts=True)
        if table is not None and table.format == "txt":
            refuse_column(self.source, self.column, self.section)
            for lines in line_blocks(table):
                yield texts_of(lines, "text", gaps=True)
        else:
            for block in column_blocks(self.source, [self.column], section=self.section):
                yield texts_of(block[self.column], self.column, gaps=False)

    def checked(self) -> "CheckedTexts":
        """Read and check every row once, without keeping it.

        :raises BadInput: naming the rows that are no texts, or if no line of a .txt has a visible character
        """
        n_rows = n_gaps = 0
        problems, digests = dict[int, str](), list[str]()
        for texts, block_problems in self.blocks():
            problems |= {n_rows + row: problem for row, problem in block_problems.items()}
            n_rows, n_gaps = n_rows + len(texts), n_gaps + texts.count("")
            digests.append(texts_digest(texts))
        if problems:
            table = locate(self.source, texts=True)
            what = "line" if table is not None and table.format == "txt" else "row"
            raise refused_rows(self.source, n_rows, problems, what=what, advice="mend or remove them")
        count_gaps(self.source, n_rows, n_gaps, left_out=False)
        return CheckedTexts(self, n_rows, digests)


@dataclass(frozen=True)
class CheckedTexts:
    """Checked texts; only one block of them is in memory at a time.

    :param digests: the digest of each block when it was checked
    """

    reader: TextReader
    n_rows: int
    digests: Sequence[str]

    def __len__(self) -> int:
        return self.n_rows

    def blocks(self) -> Iterator[list[str]]:
        """Yield blocks of texts.

        :raises BadInput: if the file has changed since it was checked
        """
        file_blocks = (texts for texts, _ in self.reader.blocks())
        yield from unchanged(self.reader.source, file_blocks, self.digests, texts_digest)
