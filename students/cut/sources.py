"""Sources of a teacher's signals for a student's training, and the teacher's embeddings in fewer dimensions."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.files.artefact import ModelKind
from distill.recipe.objectives import EmbeddingMatch
from distill.run import Run
from distill.runtime.opening import load
from distill.signals import CachedSignals, LiveSignals, SignalCache, SignalSource
from distill.training.mixtures import join_teachers
from distill.training.read_texts import ReadScripts

__all__ = ["AlongAxes", "embedding_source", "scripts_of", "signal_source"]


def signal_source(run: Run, name: str) -> SignalSource:
    """Return the signals of a teacher: from the cache, or from the teacher itself if the recipe says live."""
    source, scripts = _of_all_texts(run, name), run.recipe.teachers[name].scripts
    return source if scripts is None else ReadScripts(source, name, scripts)


def _of_all_texts(run: Run, name: str) -> SignalSource:
    if run.recipe.signals.live:
        scorer = load(
            run.teacher(name),
            runtime="torch",
            precision=run.signal_identity(name).precision,
            max_length=run.recipe.models[name].max_length,
        )
        return LiveSignals(scorer, run.teacher_prompts(name))
    return CachedSignals(SignalCache(run.signals(name), run.signal_identity(name)))


def scripts_of(run: Run, names: Iterable[str]) -> dict[str, Any]:
    """Return the scripts that teachers read, for a fingerprint; {} if all of them read all texts."""
    scripts = {
        name: list(teacher_scripts)
        for name in names
        if (teacher_scripts := run.recipe.teachers[name].scripts) is not None
    }
    return {"scripts": scripts} if scripts else {}


def embedding_source(run: Run, match: EmbeddingMatch) -> SignalSource:
    """Return the embeddings that a term matches: one teacher's, or those of several teachers joined."""
    sources = {name: signal_source(run, name) for name in match.shares}
    return sources[str(match.teacher)] if match.teachers is None else join_teachers(match, sources)


@dataclass(frozen=True)
class AlongAxes:
    """A teacher whose embeddings are projected onto other axes, such as its principal ones.

    *Shape:* axes: (teacher_width, width)
    """

    source: SignalSource
    axes: np.ndarray

    @property
    def kind(self) -> ModelKind:
        """The teacher's kind."""
        return self.source.kind

    @property
    def width(self) -> int:
        """The width of its embeddings after the projection."""
        return int(self.axes.shape[1])

    def scores(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Return the teacher's scores unchanged."""
        return self.source.scores(queries, documents)

    def embeddings(self, texts: Sequence[str], roles: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function from indices of these texts to embeddings along the axes, (n, width), of unit length."""
        source_vectors = self.source.embeddings(texts, roles)

        def along(numbers: np.ndarray) -> np.ndarray:
            vectors: np.ndarray = source_vectors(numbers) @ self.axes
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            return vectors

        return along
