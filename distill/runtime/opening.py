"""Open any model folder as a scorer with `load`, in torch, OpenVINO, ONNX or numpy."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypedDict

from distill.errors import BadInput, CannotLoad, loading
from distill.files.artefact import check_unchanged, served_side
from distill.machine.cpu import usable_cpus
from distill.models.files import (
    GRAPHS,
    PRECISIONS,
    RUNTIMES,
    ModelFiles,
    Precision,
    Runtime,
    read_model_files,
    read_sides,
)
from distill.progress import say_loading
from distill.runtime.arguments import check_choice, check_count, check_truncate
from distill.runtime.engines import Engine, open_graph
from distill.runtime.fastest import faster_float, fastest_export
from distill.runtime.own_tokenizer import own_tokenizer
from distill.runtime.scorer import PairedScorer, Scorer
from distill.runtime.settings import MODES, Mode, Opening, RunSettings, read_settings, settings_key
from distill.wording import load_with

__all__ = ["LoadArguments", "load"]

log = logging.getLogger(__name__)


class LoadArguments(TypedDict, total=False):
    """The keyword arguments of `load` that apply to any model, for functions that pass them on."""

    runtime: Runtime | None
    precision: Precision | Literal["auto"] | None
    n_threads: int | None
    max_length: int | None
    device: str | None
    special_tokens_as_text: bool


def load(
    path: str | Path,
    *,
    runtime: Runtime | None = None,
    precision: Precision | Literal["auto"] | None = None,
    n_threads: int | None = None,
    max_length: int | None = None,
    device: str | None = None,
    mode: Mode | None = None,
    tune: bool | RunSettings | None = None,
    truncate: int | None = None,
    special_tokens_as_text: bool = False,
) -> Scorer:
    """Load a model folder, written by this toolkit or by sentence-transformers, ready to encode or score.

    Several threads may share the returned scorer, and so may forked children (gunicorn --preload, a multiprocessing
    pool). A child compiles a graph anew when it first needs it, or reads it from the cache. In a child, torch computes
    on one thread, and a model on a GPU is refused.

    :param runtime: None uses a graph if the folder holds one, else the weights in torch. A static model runs in numpy.
    :param precision: None is fp32 in torch; in OpenVINO it is the folder's setting, else the device's own choice (bf16
        if the CPU supports it). An int8 graph stays int8: the precision then applies to its float part. "auto" opens
        the fastest of a student's exports, if `path` is a run's folder, its folder of exports or one of them. The
        choice follows the measurements of `distill tune` on this machine, for the given `mode`. Without measurements it
        follows the CPU (int8 if the CPU multiplies int8, else bf16, else fp32). The log states the choice and the
        reason. Vectors of two precisions are close but not equal, so search an index in the precision that it was built
        in. Any other folder is opened as with None.
    :param n_threads: None is every CPU that this process may use. In torch the number applies to the whole process.
    :param max_length: maximum number of tokens of a text or a pair; None is the model's own limit.
    :param device: such as "cpu" or "cuda:0", torch only; None is a GPU if there is one.
    :param mode: how a graph is compiled: "latency" for calls with few texts, each on all threads; "throughput" for many
        texts, with parallel requests; None compiles both, each when it is first needed, and needs the memory of both.
    :param tune: None runs a graph with the settings that `distill tune` stored for this machine, if any; True measures
        and stores them if there are none; False uses the defaults; a RunSettings is used as given.
    :param truncate: keep the first dimensions of each embedding, this many, and rescale it to unit length (stock
        `truncate_dim` rescales only with `normalize_embeddings=True`); meant for students with `dimensions`.
    :param special_tokens_as_text: True reads "[SEP]" or "</s>" in a text as ordinary text. False reads it as the
        special token, as stock sentence-transformers does, so the author of a text can change its score. Prompts are
        part of the text.
    :raises BadInput: if the folder is incomplete or lacks what the runtime needs, or an option has an invalid value.
    """
    _check_options(path, runtime, precision, mode, tune)
    opening = Opening(
        runtime,
        None if precision == "auto" else precision,
        check_count("n_threads", n_threads, none="every CPU this process may use") or usable_cpus(),
        check_count("max_length", max_length, none="the model's own limit"),
        device,
        mode,
        tune,
        check_count("truncate", truncate, none="the whole embedding"),
        special_tokens_as_text,
    )
    folder = Path(path)
    if precision == "auto":
        folder, runtime = fastest_export(folder, runtime, opening.n_threads, mode)
        opening = replace(opening, runtime=runtime)
    sides = read_sides(folder)
    if sides is not None:
        return PairedScorer(folder, *(_opened(folder, sides[side], opening) for side in ("query", "document")))
    files = read_model_files(folder)
    check_truncate(files, truncate, files.stated_width)  # before a library is imported that takes seconds
    scorer = _opened(folder, files, opening)
    scorer.side = served_side(scorer.path)
    if scorer.precision == "int8" and scorer.runtime in GRAPHS:
        line = faster_float(scorer.path, opening.n_threads, mode)
        if line is not None:
            log.info(line)
    return scorer


def _opened(path: Path, files: ModelFiles, opening: Opening) -> Scorer:
    """Open one model; `path` is the folder that the caller named, for messages."""
    try:
        return _read(path, files, opening)
    except CannotLoad:
        check_unchanged(path)  # a damaged folder says so, not in the words of the library that stumbled over it
        raise


def _read(path: Path, files: ModelFiles, opening: Opening) -> Scorer:
    runtime = opening.runtime or files.held_runtime
    with loading(str(path)):
        if files.is_generative:
            from distill.runtime.engine_generative import open_generative

            return open_generative(files, replace(opening, runtime=runtime))
        engine = _engine(path, files, runtime, opening)
        own = own_tokenizer(engine.tokenizer, special_tokens_as_text=opening.special_tokens_as_text)
        return Scorer(files, engine, opening.max_length, opening.truncate, own)


def _engine(path: Path, files: ModelFiles, runtime: Runtime, opening: Opening) -> Engine:
    if files.is_static and runtime in ("numpy", "torch"):  # both use the engine in numpy, with the same results
        from distill.runtime.engine_static import open_static

        return open_static(files)
    if runtime == "numpy":
        raise BadInput(f"{path} is no static model; {load_with(files.held_runtime)}")
    if runtime == "torch":
        say_loading()
        from distill.runtime.engine_torch import open_torch

        return open_torch(files, opening.precision, opening.n_threads, opening.device)
    if opening.device not in (None, "cpu"):
        raise BadInput(
            f"runtime {runtime} runs on the CPU here, not on {opening.device}; for a GPU {load_with('torch')}"
        )
    settings = _settings(files, runtime, opening.precision, opening.n_threads, opening.tune)
    return open_graph(files, runtime, opening.precision, opening.n_threads, settings, opening.mode)


def _check_options(path: object, runtime: object, precision: object, mode: object, tune: object) -> None:
    if not isinstance(path, str | Path) or path == "":
        raise BadInput(f"a model folder is expected, got {path!r}")
    check_choice("runtime", runtime, RUNTIMES)
    check_choice("precision", precision, (*PRECISIONS, "auto"), "; int8 comes with an int8 export: load its folder")
    check_choice("mode", mode, MODES)
    if tune is not None and not isinstance(tune, bool | RunSettings):
        raise BadInput(f"tune {tune!r}: True, False or RunSettings are accepted, or None for what is stored")


def _settings(
    files: ModelFiles, runtime: Runtime, precision: Precision | None, n_threads: int, tune: bool | RunSettings | None
) -> RunSettings | None:
    """Return the settings to run with; None means the stored ones or the defaults."""
    if isinstance(tune, RunSettings):
        return tune
    if tune is False:
        return RunSettings.default(files, runtime, n_threads)
    if tune and files.graph(runtime) and not read_settings(files, settings_key(files, runtime, precision, n_threads)):
        from distill.runtime.tuning import tune as measure

        return measure(files, runtime, precision, n_threads)[0]
    return None
