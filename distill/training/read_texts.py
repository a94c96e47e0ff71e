"""Teachers whose embeddings are learned of texts in some scripts alone, such as an English teacher of a Korean–English student.

teacher ──▶ its embedding of a text that it reads
        ──▶ NaN of any other text            terms on embeddings leave such numbers out, see `losses.pointwise`
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from distill.data.scripts import NO_LETTERS, main_script
from distill.errors import JobFailed
from distill.files.artefact import ModelKind
from distill.signals import SignalSource

__all__ = ["ReadScripts", "any_unread", "are_read"]


def are_read(texts: Sequence[str], scripts: Sequence[str] | None) -> np.ndarray:
    """Tell which texts are mostly in one of these scripts, or have no letters; None is all. *Shape:* (n_texts,) bool.

    >>> are_read(["Python 개발자를 찾습니다", "we look for developers", "2024-05"], ["latin"]).tolist()
    [False, True, True]
    """
    if scripts is None:
        return np.ones(len(texts), dtype=bool)
    accepted_scripts = {*(script.upper() for script in scripts), NO_LETTERS}
    return np.fromiter((main_script(text) in accepted_scripts for text in texts), dtype=bool, count=len(texts))


@dataclass(frozen=True)
class ReadScripts:
    """A source of signals of the texts in some scripts; its embeddings of all other texts are NaN."""

    source: SignalSource
    name: str
    scripts: tuple[str, ...]

    @property
    def kind(self) -> ModelKind:
        """The teacher's kind."""
        return self.source.kind

    @property
    def width(self) -> int:
        """The width of its embeddings."""
        return self.source.width

    def scores(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return the teacher's scores of pairs, whatever they are written in."""
        return self.source.scores(queries, documents)

    def embeddings(self, texts: Sequence[str], roles: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
        """Return a reader of the embeddings. *Shape:* of what it returns (n, width) float32.

        :raises JobFailed: by the reader, where a text that is read has no finite embedding
        """
        in_scripts = are_read(texts, self.scripts)
        places = np.cumsum(in_scripts) - 1
        read = self.source.embeddings(list(compress(texts, in_scripts)), list(compress(roles, in_scripts)))

        def vectors_of(numbers: np.ndarray) -> np.ndarray:
            vectors = np.full((len(numbers), self.width), np.nan, dtype=np.float32)
            chosen = in_scripts[numbers]
            if chosen.any():
                vectors[chosen] = read(places[numbers[chosen]])
            if not np.isfinite(vectors[chosen]).all():
                raise JobFailed(
                    f"teacher {self.name} gives NaN or infinity; run `distill cache-signals` anew with signals.precision=fp32"
                )
            return vectors

        return vectors_of


def any_unread(sources: Iterable[SignalSource]) -> bool:
    """Tell whether some teacher does not read all texts, so that it has no embedding of them."""
    return any(isinstance(source, ReadScripts) for source in sources)
