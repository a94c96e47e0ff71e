"""Actors for `ray.data.map_batches`: one model per process, on the CPUs and GPUs that Ray assigned to the actor.

    dataset.map_batches(
        ScoreActor, fn_constructor_args=["student"], fn_constructor_kwargs={"query": "resume", "document": "jd"},
        compute=ray.data.ActorPoolStrategy(size=8), num_cpus=1)

Each actor takes a batch in Ray's default format, a mapping of column names to numpy arrays, and adds its results as
columns. Folders with a graph, and static models, run without torch.
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

    :param model: a bi-encoder's folder, as a path on this machine
    :param column: the column with the texts
    :param output: the column to add
    :param prompt: the name of a prompt that is stored with the model, such as "query"
    :param truncate: keep this many dimensions
    :param arguments: arguments of `distill.runtime.load`; by default, threads and device are those that Ray assigned
    :raises BadInput: if the folder is incomplete, is not a bi-encoder or lacks the prompt
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
        self.results([])  # refuses a cross-encoder or an unknown prompt before the first batch

    def __call__(self, batch: _Columns) -> dict[str, Any]:
        """Return the batch with the embeddings of its texts. *Shape:* result[output]: (n_rows, width) float32."""
        return {**batch, **self.results(*(list(batch[name]) for name in self.inputs))}

    def results(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the new column. *Shape:* (n_texts, width) float32."""
        return {self.outputs[0]: self.scorer.encode(texts, prompt_name=self.prompt)}


class ScoreActor:
    """Adds scores to batches of pairs: `score` and `unit_score`, and optional columns of a calibration.

    :param model: a folder that can score pairs: a model, a baseline or a cascade
    :param query: the column of the queries
    :param document: the column of the documents
    :param calibrated: add `probability`, with the calibration in the folder
    :param decide: add `match`, which is 1 if the score reaches the folder's threshold
    :param arguments: arguments of `distill.scorers.opening.open_scorer`; by default, threads and device are those that
        Ray assigned
    :raises BadInput: if the folder cannot be opened, lacks the requested calibration, or is a cascade that needs all
        documents of a query, because a batch may lack some of them
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
        """Return the new columns. *Shape:* each (n_pairs,)."""
        scores = self.scorer.score(queries, documents)
        return {name: compute(scores) for name, (_, compute) in self._columns.items()}


def _share_of_this_actor() -> LoadArguments:
    """Return the threads and the device that Ray assigned to this actor; {} outside of an actor."""
    ray: Any = sys.modules.get("ray")  # in an actor, Ray has been imported
    if ray is None or not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None:
        return {}
    resources = ray.get_runtime_context().get_assigned_resources()
    return {"n_threads": max(1, int(resources.get("CPU", 1))), "device": "cuda:0" if resources.get("GPU", 0) else "cpu"}


def on_this_share(model: str | Path, stated: LoadArguments) -> LoadArguments:
    """Return the arguments for opening a model in this actor: the given ones, else Ray's threads and device.

    :raises BadInput: if the runtime only runs on CPUs and the actor has a GPU
    """
    share = _share_of_this_actor()
    if share.get("device") == "cuda:0" and stated.get("runtime") not in (None, "torch"):
        raise BadInput(
            f"{model}: runtime {stated['runtime']} runs on CPUs, and the actor has a GPU; {load_with('torch')}"
        )
    return cast(LoadArguments, {**share, **{name: value for name, value in stated.items() if value is not None}})
