"""Models on the tasks of MTEB, through the runtime that serves them, and on a recipe's own evaluation pairs in the same format.

    model folder ──▶ `load` ──▶ MTEB's protocol ──▶ results/<model>/<revision>/<task>.json, MTEB's own
    a run's folder ──▶ its teachers, the student before training, student, control and every export, each a model

What stands in the results folder for a model's revision is not computed again (MTEB's cache).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import Pairs, load_split
from distill.data.scripts import main_script
from distill.errors import BadInput, JobFailed
from distill.files.artefact import read_card, revision
from distill.recipe.schema import Recipe
from distill.runtime.opening import load
from distill.runtime.scorer import Scorer

__all__ = ["BoardResult", "board_models", "evaluate_on_boards", "pairs_task", "recipe_task", "tasks_named"]

log = logging.getLogger(__name__)
_LANGUAGES = {"HANGUL": "kor-Hang", "KANA": "jpn-Jpan", "CJK": "zho-Hans"}
_OF_A_RUN = ("built", "student", "control")
_LEAST_PAIRS = 3


@dataclass(frozen=True)
class BoardResult:
    """A model's main score on a task: of an STS task Spearman's correlation of the cosines, of pair classification average precision."""

    model: str
    task: str
    metric: str
    score: float


def board_models(path: Path) -> dict[str, Path]:
    """Return the models that a path stands for, by name: one model folder, or all of a run.

    :raises BadInput: where it is neither
    """
    if (path / "modules.json").is_file():
        return {f"{path.absolute().parent.name}/{path.name}": path}
    if not path.is_dir():
        raise BadInput(f"{path} is no folder; name a model folder, or a run's folder")
    found = [*sorted(path.glob("teachers/*")), *(path / name for name in _OF_A_RUN), *sorted(path.glob("exports/*"))]
    models = {str(folder.relative_to(path)): folder for folder in found if (folder / "modules.json").is_file()}
    if not models:
        raise BadInput(f"{path} holds no model; name a model folder, or the folder of a run with finished models")
    return {f"{path.name}/{'untrained' if name == 'built' else name}": folder for name, folder in models.items()}


def tasks_named(names: Sequence[str]) -> list[Any]:
    """Return MTEB's tasks of these names; the name of a benchmark, such as "MTEB(kor, v2)", stands for all of its tasks.

    :raises BadInput: for a name that MTEB does not know
    """
    import mteb

    tasks: list[Any] = []
    boards = {board.name for board in mteb.get_benchmarks()}
    for name in names:
        try:
            tasks += mteb.get_benchmark(name).tasks if name in boards else [mteb.get_task(name)]
        except KeyError as error:
            raise BadInput(f"MTEB knows no task or benchmark {name!r} ({_first_line(error)})") from None
    return tasks


def recipe_task(recipe: Recipe) -> Any:
    """Return the evaluation pairs of a recipe as a task of MTEB's form.

    :raises BadInput: where they have no labels
    """
    pairs = load_split(recipe.data, recipe.seed).evaluation
    return pairs_task(f"{recipe.name}-evaluation", pairs)


def pairs_task(name: str, pairs: Pairs) -> Any:
    """Return labelled pairs as a task: pair classification where labels are 0 and 1, else semantic textual similarity.

    Queries are encoded as MTEB's queries, documents as its documents, each with the model's own prompt.

    :raises BadInput: where fewer than three pairs have labels, or all labels are alike
    """
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.pair_classification import AbsTaskPairClassification
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import PromptType

    known = pairs.labelled()
    labels = np.zeros(0) if known.labels is None else known.labels
    if len(labels) < _LEAST_PAIRS or np.ptp(labels) == 0:
        raise BadInput(
            f"{name}: {len(labels)} labelled pairs, with labels that are all alike; pairs with different labels are needed"
        )
    is_binary = set(np.unique(labels).tolist()) <= {0.0, 1.0}
    column = "labels" if is_binary else "score"
    language = _LANGUAGES.get(main_script(" ".join(known.queries[:200])), "eng-Latn")
    log.info(
        "%s: %d pairs, %s, language %s (by its script)",
        name,
        len(labels),
        "pair classification" if is_binary else "STS",
        language,
    )
    values = labels.astype(int).tolist() if is_binary else labels.tolist()
    table = Dataset.from_dict({"sentence1": list(known.queries), "sentence2": list(known.documents), column: values})
    form: Any = AbsTaskPairClassification if is_binary else AbsTaskSTS

    class OwnPairs(form):  # type: ignore[misc]
        metadata = TaskMetadata(
            name=name,
            description="The evaluation pairs of a recipe.",
            dataset={"path": "local", "revision": known.fingerprint()},
            type="PairClassification" if is_binary else "STS",
            category="t2t",
            eval_splits=["test"],
            eval_langs=[language],
            main_score="max_ap" if is_binary else "cosine_spearman",
        )
        min_score, max_score = 0, 1
        input1_prompt_type, input2_prompt_type = PromptType.query, PromptType.document

        def load_data(self, *_: Any, **__: Any) -> None:
            self.dataset, self.data_loaded = DatasetDict({"test": table}), True

    return OwnPairs()


class BoardModel:
    """One of our scorers as MTEB's encoder, or as its cross-encoder; the runtime batches by itself.

    MTEB asks by keyword, with arguments that mean nothing here (task_metadata, hf_split, batch_size).
    """

    def __init__(self, scorer: Scorer, name: str, its_revision: str) -> None:
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        self._scorer = scorer
        self.mteb_model_meta = ModelMeta(
            loader=None,
            name=f"local/{name.replace('/', '__')}",
            revision=its_revision,
            release_date=None,
            languages=None,
            n_parameters=None,
            memory_usage_mb=None,
            max_tokens=scorer.max_length,
            embed_dim=scorer.embedding_width if scorer.kind == "bi_encoder" else None,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=[],
            similarity_fn_name=ScoringFunction.COSINE,
            use_instructions=None,
            training_datasets=None,
            model_type=["dense" if scorer.kind == "bi_encoder" else "cross-encoder"],
        )


class _Encoder(BoardModel):
    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> np.ndarray:
        texts = [text for batch in inputs for text in batch["text"]]
        is_query = prompt_type is not None and prompt_type.value == "query"
        return self._scorer.encode_queries(texts) if is_query else self._scorer.encode_documents(texts)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)


class _CrossEncoder(BoardModel):
    def predict(self, inputs1: Any, inputs2: Any, **_: Any) -> np.ndarray:
        queries, documents = ([text for batch in inputs for text in batch["text"]] for inputs in (inputs1, inputs2))
        return self._scorer.score(queries, documents)


def evaluate_on_boards(
    models: Mapping[str, Path], tasks: Sequence[Any], results: Path, **options: Any
) -> list[BoardResult]:
    """Run models on tasks and keep what MTEB writes in a folder.

    :param options: how models are opened, as `load` takes it
    :raises BadInput: for a task that is none of the model's kind
    :raises JobFailed: where a task's data cannot be had
    """
    found = []
    for name, folder in models.items():
        scorer = load(folder, **options)
        _check_kinds(name, scorer, tasks)
        card = read_card(folder)
        its_revision = card.revision if card is not None else revision(folder)
        model = (_Encoder if scorer.kind == "bi_encoder" else _CrossEncoder)(scorer, name, its_revision)
        for task in tasks:
            found.append(_result(name, model, task, results))
    return found


def _check_kinds(name: str, scorer: Scorer, tasks: Sequence[Any]) -> None:
    """Refuse a cross-encoder on tasks that compare embeddings.

    :raises BadInput: naming them
    """
    others = [
        task.metadata.name
        for task in tasks
        if task.metadata.type not in ("Reranking", "Retrieval", "InstructionReranking")
    ]
    if scorer.kind == "cross_encoder" and others:
        raise BadInput(
            f"{name} is a cross-encoder, and {', '.join(others[:3])} compare embeddings; MTEB asks cross-encoders in its reranking tasks alone"
        )


def _result(name: str, model: BoardModel, task: Any, results: Path) -> BoardResult:
    import mteb

    metadata = task.metadata
    try:
        outcome = mteb.evaluate(
            model,
            task,
            cache=mteb.ResultCache(results),
            show_progress_bar=False,
            co2_tracker=False,
            encode_kwargs={"batch_size": 4096},
        )
    except (OSError, ConnectionError) as error:  # no hub, no network, no such dataset
        raise JobFailed(
            f"{metadata.name}: its data cannot be had ({_first_line(error)}); a network, or HF_HUB_OFFLINE=0, is needed"
        ) from None
    result = outcome.task_results[0]
    return BoardResult(name, metadata.name, metadata.main_score, float(result.get_score()))


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
