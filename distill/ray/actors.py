"""Actors for `ray.data.map_batches`: one model a process, on the CPUs and GPUs that Ray gave to the actor.

    dataset.map_batches(
        ScoreActor, fn_constructor_args=["student"], fn_constructor_kwargs={"query": "resume", "document": "jd"},
        compute=ray.data.ActorPoolStrategy(size=8), num_cpus=1)

Each takes a batch as Ray gives it by default, a mapping of column names to numpy arrays, and adds its results to it. A folder with
a graph, or a static one, runs without torch.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np

from distill.errors import BadInput
from distill.runtime.opening import LoadArguments, load
from distill.scorers.cascade import compares_documents
from distill.scorers.opening import open_scorer, result_columns
from distill.wording import load_with

__all__ = ["EmbedActor", "ScoreActor", "on_this_share"]

_Columns = Mapping[str, Any]


class EmbedActor:
    """Adds embeddings to batches with a column of texts.

    :param model: a bi-encoder's folder, which this machine sees under this path
    :param column: of the texts
    :param output: the column to add
    :param prompt: a prompt that is stored with the model, such as "query"
    :param truncate: keep this many dimensions
    :param arguments: of `distill.runtime.load`; threads and device are those that Ray gave, unless they are stated
    :raises BadInput: where the folder is not whole, is no bi-encoder or lacks the prompt
    """

    def __init__(
        self,
        model: str | Path,
        *,
        column: str = "text",
        output: str = "embedding",
        prompt: str | None = None,
        truncate: int | None = None,
        **arguments: Unpack[LoadArguments],
    ) -> None:
        self.inputs, self.outputs, self.prompt = (column,), (output,), prompt
        self.scorer = load(model, truncate=truncate, **on_this_share(model, arguments))
        self.results([])  # a cross-encoder, and a prompt that there is not, are refused before any batch

    def __call__(self, batch: _Columns) -> dict[str, Any]:
        """Return the batch with the embeddings of its texts. *Shape:* result[output]: (n_rows, width) float32."""
        return {**batch, **self.results(*(list(batch[name]) for name in self.inputs))}

    def results(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the columns that are added. *Shape:* (n_texts, width) float32."""
        return {self.outputs[0]: self.scorer.encode(texts, prompt_name=self.prompt)}


class ScoreActor:
    """Adds scores to batches of pairs: `score` and `unit_score`, and what a calibration adds.

    :param model: a folder that gives scores: a model, a baseline or a cascade
    :param query: the column of the queries
    :param document: the column of the documents
    :param calibrated: add `probability`, by the calibration that the folder carries
    :param decide: add `match`, 1 where the score reaches the folder's threshold
    :param arguments: of `distill.scorers.opening.open_scorer`; threads and device are those that Ray gave, unless they are stated
    :raises BadInput: where the folder cannot be opened, carries no calibration that is asked for, or is a cascade that must
        see all documents of a query, which a batch has not
    """

    def __init__(
        self,
        model: str | Path,
        *,
        query: str = "query",
        document: str = "document",
        calibrated: bool = False,
        decide: bool = False,
        **arguments: Any,
    ) -> None:
        self.inputs = (query, document)
        self.scorer = open_scorer(model, **on_this_share(model, cast(LoadArguments, arguments)))
        if compares_documents(self.scorer):
            raise BadInput(
                f"{model} asks its teacher about the best documents of each query (cascade.top_k), and on Ray a query's documents "
                "lie in several batches; leave --engine ray out, or make the cascade with cascade.share"
            )
        self._columns = result_columns(model, self.scorer, calibrated=calibrated, decide=decide)
        self.outputs = tuple(self._columns)

    def __call__(self, batch: _Columns) -> dict[str, Any]:
        """Return the batch with the scores of its pairs. *Shape:* (n_rows,) each."""
        return {**batch, **self.results(*(list(batch[name]) for name in self.inputs))}

    def results(self, queries: Sequence[str], documents: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the columns that are added. *Shape:* (n_pairs,) each."""
        scores = self.scorer.score(queries, documents)
        return {name: told(scores) for name, (_, told) in self._columns.items()}


def _share_of_this_actor() -> LoadArguments:
    """Return threads and device that Ray gave to this actor; nothing elsewhere than in one."""
    ray: Any = sys.modules.get("ray")  # an actor has imported it
    if ray is None or not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None:
        return {}
    held = ray.get_runtime_context().get_assigned_resources()
    return {"n_threads": max(1, int(held.get("CPU", 1))), "device": "cuda:0" if held.get("GPU", 0) else "cpu"}


def on_this_share(model: str | Path, stated: LoadArguments) -> LoadArguments:
    """Return how a model is opened in this actor: as stated, else with the threads and the device that Ray gave.

    :raises BadInput: for a runtime of CPUs in an actor with a GPU
    """
    share = _share_of_this_actor()
    if share.get("device") == "cuda:0" and stated.get("runtime") not in (None, "torch"):
        raise BadInput(
            f"{model}: runtime {stated['runtime']} runs on CPUs, and the actor has a GPU; {load_with('torch')}"
        )
    return cast(LoadArguments, {**share, **{name: value for name, value in stated.items() if value is not None}})
