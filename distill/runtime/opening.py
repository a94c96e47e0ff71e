"""`load`: any model folder as one scorer, in torch, OpenVINO, ONNX or numpy."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypedDict

from distill.errors import BadInput, loading
from distill.files.artefact import served_side
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
from distill.runtime.arguments import check_choice, check_count
from distill.runtime.engines import Engine, open_graph
from distill.runtime.fastest import faster_float, fastest_export
from distill.runtime.own_tokenizer import own_tokenizer
from distill.runtime.scorer import PairedScorer, Scorer
from distill.runtime.settings import MODES, Mode, Opening, RunSettings, read_settings, settings_key
from distill.wording import load_with

__all__ = ["LoadArguments", "load"]

log = logging.getLogger(__name__)


class LoadArguments(TypedDict, total=False):
    """The keyword arguments of `load` that hold for any model, for functions that hand them on."""

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
    """Load a model folder, ours or any of sentence-transformers, ready to encode or score.

    Several threads may use what is returned, and so may forked children (gunicorn --preload, a multiprocessing pool): a child
    compiles a graph anew when it first needs it, or reads it from the cache; torch computes on one thread there, and a model
    on a GPU is refused.

    :param runtime: None takes what the folder holds, a graph before weights. A static model runs in numpy.
    :param precision: None is fp32 in torch; in OpenVINO what the folder asks for, else the device's own choice
        (bf16 where the CPU has it). An int8 graph stays int8: the precision is then that of its float remainder.
        "auto" opens the fastest of a student's exports, where `path` is a run's folder, its folder of exports or one of
        them: as `distill tune` measured them on this machine, with `mode` saying what counts, else as expected of the CPU
        (int8 where it multiplies that, else bf16, else fp32); the log says which and why. Vectors of two precisions are
        close, not equal: an index is asked in the precision that it was built in. Any other folder is opened as it is.
    :param n_threads: None is every CPU this process may use. In torch the number holds for the whole process.
    :param max_length: tokens of a text or of a pair; None is the model's own limit.
    :param device: such as "cpu" or "cuda:0", torch only; None takes a GPU where there is one.
    :param mode: how a graph is compiled: "latency" for calls of a few texts on all threads, "throughput" for many texts,
        requests side by side; None does both, each when it is first needed, at the memory of both.
    :param tune: None runs a graph with the settings that `distill tune` stored for this machine, if any; True measures
        and stores them where there are none; False takes the defaults; settings are taken as they are.
    :param truncate: keep this many dimensions of each embedding, in unit length again (stock `truncate_dim` leaves that to
        `normalize_embeddings=True`); right for students with `dimensions`.
    :param special_tokens_as_text: read "[SEP]" or "</s>" in a text as ordinary text. Stock sentence-transformers reads it as the
        special token, and so does False: whoever writes a text can then move its score. Prompts are part of the text.
    :raises BadInput: where the folder is not whole or lacks what the runtime needs, and for an option of no such value.
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
    scorer = _opened(folder, read_model_files(folder), opening)
    scorer.side = served_side(scorer.path)
    if scorer.precision == "int8" and scorer.runtime in GRAPHS:
        line = faster_float(scorer.path, opening.n_threads, mode)
        if line is not None:
            log.info(line)
    return scorer


def _opened(path: Path, files: ModelFiles, opening: Opening) -> Scorer:
    """Open one model; `path` is the folder that was asked for, which messages name."""
    runtime = opening.runtime or files.held_runtime
    with loading(str(path)):
        if files.is_generative:
            from distill.runtime.engine_generative import open_generative

            return open_generative(files, replace(opening, runtime=runtime))
        engine = _engine(path, files, runtime, opening)
        own = own_tokenizer(engine.tokenizer, special_tokens_as_text=opening.special_tokens_as_text)
        return Scorer(files, engine, opening.max_length, opening.truncate, own)


def _engine(path: Path, files: ModelFiles, runtime: Runtime, opening: Opening) -> Engine:
    if files.is_static and runtime in ("numpy", "torch"):  # one engine, in numpy: the numbers are the same
        from distill.runtime.engine_static import open_static

        return open_static(files)
    if runtime == "numpy":
        raise BadInput(f"{path} is no static model; {load_with(files.held_runtime)}")
    if runtime == "torch":
        from distill.runtime.engine_torch import open_torch

        return open_torch(files, opening.precision, opening.n_threads, opening.device)
    if opening.device not in (None, "cpu"):
        raise BadInput(
            f"runtime {runtime} runs on the CPU here, not on {opening.device}; for a GPU {load_with('torch')}"
        )
    settings = _settings(files, runtime, opening.precision, opening.n_threads, opening.tune)
    return open_graph(files, runtime, opening.precision, opening.n_threads, settings, opening.mode)


def _check_options(path: object, runtime: object, precision: object, mode: object, tune: object) -> None:
    if not isinstance(path, str | Path):
        raise BadInput(f"a model folder is expected, got {path!r}")
    check_choice("runtime", runtime, RUNTIMES)
    check_choice("precision", precision, (*PRECISIONS, "auto"), "; int8 comes with an int8 export: load its folder")
    check_choice("mode", mode, MODES)
    if tune is not None and not isinstance(tune, bool | RunSettings):
        raise BadInput(f"tune {tune!r}: True, False or RunSettings are accepted, or None for what is stored")


def _settings(
    files: ModelFiles, runtime: Runtime, precision: Precision | None, n_threads: int, tune: bool | RunSettings | None
) -> RunSettings | None:
    """Return the settings to run with; None for those that are stored, or the defaults."""
    if isinstance(tune, RunSettings):
        return tune
    if tune is False:
        return RunSettings.default(files, runtime, n_threads)
    if tune and files.graph(runtime) and not read_settings(files, settings_key(files, runtime, precision, n_threads)):
        from distill.runtime.tuning import tune as measure

        return measure(files, runtime, precision, n_threads)[0]
    return None
