"""Open any scorer of pairs from its folder: a model, a baseline, a cascade or a teacher that compares tokens.

`distill score` and the benchmark use `open_scorer`. A folder with a `scorer.json` is one of the other kinds; a folder
without it is a model folder.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Unpack, cast
from urllib.parse import urlsplit

import numpy as np

from distill.errors import BadInput
from distill.files.artefact import INNER_MODEL, check_model_folder
from distill.files.trust import check_files, read_json
from distill.models.stored_calibration import required_calibration, required_threshold
from distill.recipe.black_box import BLACK_BOXES
from distill.recipe.endpoint import Endpoint
from distill.recipe.schema import LateInteractionTeacher, M3Teacher, Paragraphs, Remote, TfIdf, TokenTeacher
from distill.recipe.token_teachers import TOKEN_TEACHERS
from distill.runtime.cache import cache_folder
from distill.runtime.opening import LoadArguments, load
from distill.runtime.scorer import Scorer
from distill.scorers.baselines import ParagraphScorer, RemoteScorer, TfIdfScorer
from distill.scorers.cascade import CascadeScorer, CascadeSettings
from distill.scorers.pairing import pair_up
from distill.scorers.scoring import SCORER_FILE, PairScorer
from distill.scorers.token_readers import HowToRead
from distill.scorers.token_scorer import open_token_scorer, read_token_settings

__all__ = [
    "ResultColumns",
    "check_calibration",
    "check_local_scorers",
    "check_scorer_folder",
    "model_folder",
    "open_scorer",
    "result_columns",
    "scorer_folders",
]

ResultColumns = dict[str, tuple[type, Callable[[np.ndarray], np.ndarray]]]
"""The columns of a table of scores by name: the type of each, and the function that computes it from the scores."""


def open_scorer(
    path: str | Path,
    *,
    other_side: Path | None = None,
    allow_hosts: Sequence[str] = (),
    key_variable: str | None = None,
    own: Remote | None = None,
    **arguments: Unpack[LoadArguments],
) -> PairScorer:
    """Open the scorer in a folder; a model folder is opened as by `distill.runtime.opening.load`.

    :param other_side: the folder of the teacher, for a student that serves one side of pairs; its own settings for
        runtime, precision and length apply
    :param allow_hosts: hosts that a remote scorer may send texts and the key to, such as "api.openai.com" or
        "localhost:8000"; () allows none, because a folder may come from anybody and name any host
    :param key_variable: the environment variable with the key of that host; None is OPENAI_API_KEY
    :param own: the remote baseline as the caller's own recipe states it; it is used without the check of hosts
    :param arguments: arguments of `load` for the model inside
    :raises BadInput: if the folder is incomplete, or names a host that is not allowed
    """
    folder = Path(path)
    if other_side is not None:
        if arguments.get("precision") != "auto":  # "auto" also accepts a folder of exports
            check_model_folder(folder)
        of_this_side: tuple[str, ...] = ("runtime", "precision", "max_length")
        for_both = {name: value for name, value in arguments.items() if name not in of_this_side}
        return pair_up(load(folder, **arguments), load(other_side, **cast(LoadArguments, for_both)))
    if not (folder / SCORER_FILE).is_file():
        return load(folder, **arguments)
    settings = _read_settings(folder)
    if isinstance(settings, TfIdf):
        return TfIdfScorer(folder, settings)
    if isinstance(settings, Remote):
        return RemoteScorer(folder, own or _allowed(folder, settings, allow_hosts, key_variable))
    if isinstance(settings, TokenTeacher):
        return _open_token_scorer(folder, **arguments)
    if isinstance(settings, CascadeSettings):
        student, teacher = (
            load(_within(folder, path), **(arguments | {"runtime": runtime, "max_length": length}))
            for path, runtime, length in settings.models()
        )
        return CascadeScorer(student, teacher, settings)
    return ParagraphScorer(load(_inner(folder, settings), **arguments), settings)


def result_columns(model: str | Path, scorer: PairScorer, *, calibrated: bool, decide: bool) -> ResultColumns:
    """Return the columns that `distill score` writes per pair: score, unit_score, and those from the calibration.

    :param calibrated: add probability
    :param decide: add match: 1 if the score reaches the folder's threshold, else 0
    :raises BadInput: if a calibration is requested and the folder has none; raised before anything is scored
    """
    columns: ResultColumns = {"score": (float, lambda scores: scores), "unit_score": (float, scorer.unit)}
    if not (calibrated or decide):
        return columns
    if not isinstance(scorer, Scorer):
        raise BadInput(f"{model} is a {scorer.kind}, which carries no calibration; leave out --calibrated and --decide")
    if calibrated:
        columns["probability"] = (float, scorer.probability)
    if decide:
        columns["match"] = (int, lambda scores: scorer.decide(scores).astype(int))
    for _, compute in columns.values():
        compute(np.zeros(0))
    return columns


def check_calibration(folder: Path, *, decide: bool) -> None:
    """Check before a model is opened that its folder carries a calibration.

    :param decide: whether a threshold is needed, too
    :raises BadInput: if it does not
    """
    if (folder / "modules.json").is_file():  # a baseline and a folder of exports are opened first, which is quick
        stored = required_calibration(folder, check_model_folder(folder))
        if decide:
            required_threshold(folder, stored)


def _open_token_scorer(folder: Path, **arguments: Unpack[LoadArguments]) -> PairScorer:
    if arguments.get("runtime") not in (None, "torch"):
        raise BadInput(f"{folder} compares tokens, which runs in torch; leave the runtime out")
    precision = arguments.get("precision")
    how = HowToRead(
        None if precision == "auto" else precision,
        arguments.get("n_threads"),
        arguments.get("device"),
        arguments.get("special_tokens_as_text", False),
    )
    return open_token_scorer(folder, how, max_length=arguments.get("max_length"))


def check_scorer_folder(folder: Path) -> str:
    """Check that a folder can be opened as a scorer, and return its kind.

    :raises BadInput: naming the missing file
    """
    if not (folder / SCORER_FILE).is_file():
        return check_model_folder(folder)
    settings = _read_settings(folder)
    if isinstance(settings, Paragraphs):
        check_model_folder(_inner(folder, settings))
    if isinstance(settings, CascadeSettings):
        for path, _, _ in settings.models():
            check_model_folder(_within(folder, path))
    if isinstance(settings, TokenTeacher) and not (folder / INNER_MODEL).is_dir():
        raise BadInput(f"{folder} is not whole: {INNER_MODEL} is missing; copy it again or run `distill train-teacher`")
    return settings.kind


def check_local_scorers(folders: Sequence[Path]) -> None:
    """Check that folders can be opened as scorers that run on this machine, so that their speed can be measured.

    :raises BadInput: if a folder is incomplete, or holds a remote scorer
    """
    for folder in folders:
        if check_scorer_folder(folder) == "remote":
            raise BadInput(
                f"{folder} is a remote scorer, whose speed is its network's; name it in a recipe's benchmark.baselines"
            )


def model_folder(folder: Path) -> Path:
    """Return the folder of the model that a scorer runs: the inner model for paragraphs, the student for a cascade."""
    settings = _read_settings(folder) if (folder / SCORER_FILE).is_file() else None
    if isinstance(settings, CascadeSettings):
        return _within(folder, settings.student)
    return _inner(folder, settings) if isinstance(settings, Paragraphs) else folder


def scorer_folders(folder: Path) -> list[Path]:
    """Return all folders that a scorer's results depend on: its own, and those of the models that it names."""
    settings = _read_settings(folder) if (folder / SCORER_FILE).is_file() else None
    if isinstance(settings, CascadeSettings):
        return [folder, *(_within(folder, path) for path, _, _ in settings.models())]
    return [folder, *([_inner(folder, settings)] if isinstance(settings, Paragraphs) else [])]


class _NoModel(BadInput):
    """The folder holds a teacher that cannot be opened as a scorer."""


_Settings = TfIdf | Remote | Paragraphs | CascadeSettings | M3Teacher | LateInteractionTeacher


def _read_settings(folder: Path) -> _Settings:
    path = folder / SCORER_FILE
    kinds: dict[str, type[_Settings]] = {
        "tfidf": TfIdf,
        "remote": Remote,
        "paragraphs": Paragraphs,
        "cascade": CascadeSettings,
    }
    check_files(folder)
    try:
        raw = read_json(path)
        if raw.get("kind") in TOKEN_TEACHERS:
            return read_token_settings(folder)
        if raw.get("kind") in BLACK_BOXES:
            raise _NoModel(f"{folder} is a teacher of kind {raw['kind']}: no model, and asked by its own recipe alone")
        return kinds[raw["kind"]].model_validate(raw)
    except _NoModel:
        raise
    except (ValueError, KeyError, TypeError, BadInput):
        raise BadInput(f"{path} is not what this toolkit writes; build the folder again") from None


def _allowed(folder: Path, settings: Remote, allow_hosts: Sequence[str], key_variable: str | None) -> Remote:
    """Return the settings of a remote scorer from a folder, after checking that the caller allows its host.

    The folder decides neither which key is sent nor where files are written.

    :raises BadInput: if the host is not allowed, or the folder names another key variable than the caller
    """
    endpoint = settings.endpoint
    parts = urlsplit(endpoint.base_url)
    if not {str(parts.hostname), parts.netloc} & {host.strip().lower() for host in allow_hosts}:
        raise BadInput(
            f"{folder} would send every text to {parts.netloc}; allow it with --allow-host {parts.netloc}, or leave it"
        )
    wanted = key_variable or Endpoint.model_fields["key_variable"].default
    if endpoint.key_variable != wanted:
        raise BadInput(
            f"{folder} asks for the key in {endpoint.key_variable}, the one in {wanted} would be sent; "
            f"say --key-variable {endpoint.key_variable} where that is meant"
        )
    return settings.model_copy(update={"cache": str(_cache_of(folder))})


def _cache_of(folder: Path) -> Path:
    """Return the folder for a scorer's embeddings: beside the baselines of a run, else in the user's cache."""
    run = folder.resolve().parent.parent
    if folder.resolve().parent.name == "baselines" and (run / "recipe.json").is_file():
        return folder.resolve().parent / "embeddings"
    cache = cache_folder("embeddings")
    if cache is None:
        raise BadInput("there is no folder for the embeddings that are paid for; set MATCHDISTILL_CACHE to one")
    return cache


def _inner(folder: Path, settings: Paragraphs) -> Path:
    return _within(folder, settings.model)


def _within(folder: Path, model_path: str) -> Path:
    """Return the model folder that a scorer.json names; outside of a run it must be inside the scorer's folder.

    :raises BadInput: if the path is invalid or leads outside
    """
    try:
        place = (folder / model_path).resolve()
    except (OSError, ValueError, RuntimeError):
        raise BadInput(f"{folder / SCORER_FILE} names a model folder that cannot be: {model_path[:80]!r}") from None
    is_of_a_run = any(_is_run(root) for root in folder.resolve().parents[:2])
    if not is_of_a_run and not place.is_relative_to(folder.resolve()):
        raise BadInput(
            f"{folder / SCORER_FILE} names the model folder {model_path[:120]}, which lies outside of it; copy that one into the folder"
        )
    return place


def _is_run(folder: Path) -> bool:
    return (folder / "recipe.json").is_file() or (folder / ".work").is_dir()
