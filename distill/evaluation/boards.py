"""Evaluate models on MTEB tasks with the runtime that serves them, and on a recipe's evaluation pairs as such a task.

    model folder ──▶ `load` ──▶ MTEB's protocol ──▶ results/<model>/<revision>/<task>.json, in MTEB's format
    a run's folder ──▶ its teachers, the student before training, student, control and every export, each a model

Results that the results folder already has for a model's revision are not computed again (MTEB's cache).
"""

import difflib
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import Pairs, load_split
from distill.data.scripts import script_shares
from distill.errors import BadInput, JobFailed
from distill.files.artefact import ModelKind, check_model_folder, read_card, revision
from distill.recipe.schema import Recipe
from distill.report.board_scores import BoardScore
from distill.runtime.opening import load
from distill.runtime.scorer import Scorer
from distill.wording import counted

__all__ = [
    "board_models",
    "check_folder",
    "evaluate_on_boards",
    "models_at",
    "pairs_task",
    "recipe_task",
    "tasks_named",
]

log = logging.getLogger(__name__)
_OF_A_RUN = ("teachers/*", "teacher_exports/*/*", "built", "stages/*/student", "student", "control", "exports/*")
# the most common language of each script, because MTEB requires a language
_LANGUAGES = {
    "ARABIC": "ara-Arab",
    "CJK": "zho-Hans",
    "CYRILLIC": "rus-Cyrl",
    "DEVANAGARI": "hin-Deva",
    "GREEK": "ell-Grek",
    "HANGUL": "kor-Hang",
    "HEBREW": "heb-Hebr",
    "KANA": "jpn-Jpan",
    "LATIN": "eng-Latn",
    "THAI": "tha-Thai",
}
_LEAST_SCRIPT_SHARE = 0.05  # the least share of a script in the queries for its language to be listed
_LEAST_PAIRS = 3


def board_models(path: Path) -> dict[str, Path]:
    """Return the models at a path by name: one model folder, or all models of a run's folder.

    :raises BadInput: if the path is neither
    """
    path = path.resolve()
    if (path / "modules.json").is_file():
        return {f"{path.parent.name}/{path.name}": path}
    if not path.is_dir():
        raise BadInput(f"{path} is no folder; name a model folder, or a run's folder")
    found = [folder for pattern in _OF_A_RUN for folder in sorted(path.glob(pattern))]
    models = {str(folder.relative_to(path)): folder for folder in found if (folder / "modules.json").is_file()}
    if not models:
        raise BadInput(f"{path} holds no model; name a model folder, or the folder of a run with finished models")
    return {f"{path.name}/{'untrained' if name == 'built' else name}": folder for name, folder in models.items()}


def models_at(paths: Sequence[Path]) -> dict[str, Path]:
    """Return the models at several paths by name.

    If several models share a name, all but the first get their full path.

    :raises BadInput: if a path is neither a model folder nor a run's folder
    """
    models: dict[str, Path] = {}
    for path in paths:
        for name, folder in board_models(path).items():
            is_other = models.get(name, folder) != folder
            models[str(folder).lstrip("/") if is_other else name] = folder
    return models


def tasks_named(names: Sequence[str]) -> list[Any]:
    """Return MTEB's tasks by name. The name of a benchmark, such as "MTEB(kor, v2)", gives all of its tasks.

    :raises BadInput: if MTEB does not know a name
    """
    import mteb

    tasks: list[Any] = []
    boards = {board.name for board in mteb.get_benchmarks()}
    for name in names:
        try:
            tasks += mteb.get_benchmark(name).tasks if name in boards else [mteb.get_task(name)]
        except KeyError:
            known = {known.lower(): known for known in (*boards, *(task.metadata.name for task in mteb.get_tasks()))}
            near = ", ".join(known[one] for one in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6))
            hint = (
                f"did you mean {near}?" if near else "give a name as MTEB spells it, such as KorSTS or 'MTEB(kor, v2)'"
            )
            raise BadInput(f"MTEB knows no task or benchmark {name!r}; {hint}") from None
    return tasks


def recipe_task(recipe: Recipe) -> Any:
    """Return the evaluation pairs of a recipe as an MTEB task.

    :raises BadInput: if fewer than three pairs have labels, or all labels are equal
    """
    pairs = load_split(recipe.data, recipe.seed).evaluation
    return pairs_task(f"{recipe.name}-evaluation", pairs)


def pairs_task(name: str, pairs: Pairs) -> Any:
    """Return labelled pairs as a task: pair classification if all labels are 0 or 1, else semantic textual similarity.

    Queries are encoded as MTEB's queries and documents as its documents, each with the model's own prompt.

    :raises BadInput: if fewer than three pairs have labels, or all labels are equal
    """
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.pair_classification import AbsTaskPairClassification
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import PromptType

    known = pairs.labelled()
    labels = np.zeros(0) if known.labels is None else known.labels
    if len(labels) < _LEAST_PAIRS:
        raise BadInput(f"{name}: {counted(len(labels), 'labelled pair')}; {_LEAST_PAIRS} at least are needed")
    if np.ptp(labels) == 0:
        raise BadInput(f"{name}: all {len(labels)} labels are alike; pairs with different labels are needed")
    is_binary = set(np.unique(labels).tolist()) <= {0.0, 1.0}
    column = "labels" if is_binary else "score"
    shares = script_shares(known.queries)
    languages = [
        _LANGUAGES[script] for script, share in shares.items() if script in _LANGUAGES and share >= _LEAST_SCRIPT_SHARE
    ]
    languages = languages or [_LANGUAGES["LATIN"]]
    log.info(
        "%s: %d pairs, %s, language %s (by its script)",
        name,
        len(labels),
        "pair classification" if is_binary else "STS",
        ", ".join(languages),
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
            eval_langs=languages,
            main_score="max_ap" if is_binary else "cosine_spearman",
        )
        min_score, max_score = 0, 1
        input1_prompt_type, input2_prompt_type = PromptType.query, PromptType.document

        def load_data(self, *_: Any, **__: Any) -> None:
            self.dataset, self.data_loaded = DatasetDict({"test": table}), True

    return OwnPairs()


class BoardModel:
    """Wraps a scorer as an encoder or cross-encoder for MTEB. The scorer's runtime forms the batches.

    MTEB also passes keyword arguments that are ignored here (task_metadata, hf_split, batch_size).
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
) -> dict[str, list[BoardScore]]:
    """Run models on tasks, keep MTEB's results in a folder, and return each model's scores.

    An earlier result in the folder is reused if model, data, runtime, precision and `max_length` are the same.

    :param options: options of `load` with which models are opened
    :raises BadInput: if a task does not fit the model's kind, two tasks have the same name, or the folder cannot be
        written
    :raises JobFailed: if a task's data cannot be loaded
    """
    names = [task.metadata.name for task in tasks]
    if len(set(names)) < len(names):
        raise BadInput(
            f"two tasks have one name ({', '.join(sorted({name for name in names if names.count(name) > 1}))}); name each once, or give recipes other names"
        )
    check_folder(results)
    _check_kinds({name: check_model_folder(folder) for name, folder in models.items()}, tasks)
    found = {}
    for name, folder in models.items():
        scorer = load(folder, **options)
        card = read_card(folder)
        its_revision = card.revision if card is not None else revision(folder)
        opened = f"{its_revision}-{scorer.runtime}-{scorer.precision}-{scorer.max_length}"
        model = (_Encoder if scorer.kind == "bi_encoder" else _CrossEncoder)(scorer, name, opened)
        as_opened = f"{scorer.runtime} {scorer.precision}, {scorer.max_length} tokens"
        found[name] = [replace(_score(model, task, results), model=its_revision, opened=as_opened) for task in tasks]
    return found


def check_folder(results: Path) -> None:
    """Create the folder of the results.

    :raises BadInput: if it cannot be written
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
    except OSError as error:
        raise BadInput(
            f"{results} cannot be a folder of results ({error.strerror}); name another one with -o"
        ) from None


def _check_kinds(kinds: Mapping[str, ModelKind], tasks: Sequence[Any]) -> None:
    """Refuse cross-encoders on tasks that compare embeddings, before any model is run.

    :raises BadInput: with the names of these tasks, of the cross-encoders and of the other models
    """
    others = [
        task.metadata.name
        for task in tasks
        if task.metadata.type not in ("Reranking", "Retrieval", "InstructionReranking")
    ]
    crosses = [name for name, kind in kinds.items() if kind == "cross_encoder"]
    if crosses and others:
        rest = [name for name in kinds if name not in crosses]
        what = f"{', '.join(crosses)} {'is a cross-encoder' if len(crosses) == 1 else 'are cross-encoders'}"
        compared = f"{', '.join(others[:3])} {'compares' if len(others) == 1 else 'compare'} embeddings"
        instead = f"; nothing was evaluated, name these models alone: {', '.join(rest)}" if rest else ""
        raise BadInput(f"{what}, and {compared}; MTEB asks cross-encoders in its reranking tasks alone{instead}")


def _score(model: BoardModel, task: Any, results: Path) -> BoardScore:
    import mteb

    metadata, cache = task.metadata, mteb.ResultCache(results)
    has_result = _has_result(cache.get_task_result_path(metadata.name, model.mteb_model_meta), metadata)
    try:
        outcome = mteb.evaluate(
            model,
            task,
            cache=cache,
            overwrite_strategy="only-missing" if has_result else "always",
            show_progress_bar=False,
            co2_tracker=False,
            encode_kwargs={"batch_size": 4096},
        )
    except OSError as error:  # no hub, no network, no such dataset
        if error.errno is not None and not isinstance(error, ConnectionError):
            raise
        raise JobFailed(
            f"{metadata.name}: its data cannot be had ({_first_line(error)}); a network, or HF_HUB_OFFLINE=0, is needed"
        ) from None
    score = float(outcome.task_results[0].get_score())
    return BoardScore(metadata.name, metadata.type, metadata.main_score, score, str(metadata.revision), "", "")


def _has_result(path: Path, metadata: Any) -> bool:
    """Return whether the file holds a complete result on the same data."""
    if not path.is_file():
        return False
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        same = bool(stored["scores"]) and stored["dataset_revision"] == metadata.revision
    except (ValueError, KeyError, TypeError):
        log.warning("%s is incomplete; the task is run again", path)
        return False
    if not same:
        log.info("%s: the stored result in %s is of other data; the task is run again", metadata.name, path.parent)
    return same


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
