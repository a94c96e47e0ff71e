"""The interface of the published project: `Trainer(config_file=…, …).train()`, translated into a recipe of this toolkit.

    from teachers import Trainer
    Trainer(config_file="config.json", checkpoints_path="checkpoints", csv_file_path="pairs.csv",
            col_name1="resume", col_name2="jd", label_col="label").train()

The JSON keys keep their meaning: a contrastive bi-encoder trained on the MSE of (cos + 1)/2 and the label, a random
share held out, evaluated `num_logs_per_epoch` times per epoch. The result is the same folder that the recipe would
produce.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from distill.errors import BadInput
from distill.recipe.reading import validated
from distill.recipe.schema import Recipe
from distill.run import Run
from teachers.train import train_teachers

__all__ = ["Trainer"]

log = logging.getLogger(__name__)
_DEVICES = re.compile(r"auto|cpu|mps|cuda(?::\d+)?")
_PRECISION = {True: "fp16", False: "fp32"}
_POOLING = {"CLS": "cls", "mean": "mean"}


class Trainer:
    """Train a contrastive bi-encoder from a configuration of the published project.

    :param config_file: JSON with model_name, device, batch_size, val_split, lr, epoch_num, patience, num_logs_per_epoch,
        use_fp16, max_length, embedding_option ("CLS" or "mean"); only model_name is required
    :param checkpoints_path: the run's folder; the model is in its `teachers/model`
    :param csv_file_path: the pairs, with a header
    :raises BadInput: for unknown keys, naming all of them, and for values out of range
    """

    def __init__(
        self,
        config_file: str | Path,
        checkpoints_path: str | Path,
        csv_file_path: str | Path,
        col_name1: str = "resume",
        col_name2: str = "jd",
        label_col: str = "label",
    ) -> None:
        config = _read(Path(config_file))
        columns = {"query": col_name1, "document": col_name2, "label": label_col}
        self.device = _device(config.pop("device", "auto"), Path(config_file))
        make = partial(
            _recipe, path=Path(config_file), folder=str(checkpoints_path), pairs=str(csv_file_path), columns=columns
        )
        self.recipe = make(config)
        self._on_a_cpu = make({**config, "use_fp16": "auto"}) if config.get("use_fp16") else self.recipe

    def train(self) -> Path:
        """Train, or resume a killed run, and return the model's folder."""
        from accelerate import PartialState

        state = PartialState(cpu=self.device == "cpu")
        if self.device not in ("auto", "cpu") and state.device.type != self.device.partition(":")[0]:
            log.warning("device is %s, this machine has none: training on %s", self.device, state.device.type)
        elif self.device.partition(":")[2] not in ("", "0"):
            log.warning("device is %s: the first visible GPU is used, set CUDA_VISIBLE_DEVICES to choose", self.device)
        if state.device.type != "cuda" and self.recipe is not self._on_a_cpu:
            log.warning("use_fp16 needs a GPU: training in what this CPU multiplies")
            self.recipe = self._on_a_cpu
        run = Run(self.recipe)
        with run.lock() if state.is_main_process else nullcontext():
            train_teachers(run)
        return run.teacher("model")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BadInput(f"{path}: no such configuration file")
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise BadInput(f"{path}: a JSON object is expected, this is {type(config).__name__}")
    if unknown := [key for key in config if key not in {*_KEYS, "device"}]:
        raise BadInput(
            f"{path}: {', '.join(unknown)} mean{'s' * (len(unknown) == 1)} nothing here; known: {', '.join([*_KEYS, 'device'])}"
        )
    if "model_name" not in config:
        raise BadInput(f"{path}: model_name is missing; name the encoder to train")
    if not isinstance(config["model_name"], str) or not config["model_name"].strip():
        raise BadInput(
            f"{path}: model_name is {config['model_name']!r}; the name or the folder of an encoder is expected"
        )
    return config


def _device(device: Any, path: Path) -> str:
    if not isinstance(device, str) or not _DEVICES.fullmatch(device):
        raise BadInput(f"{path}: device is {device!r}; auto, cpu, mps, cuda and cuda:0 are accepted")
    return device


def _whole(value: Any) -> int:
    number = float(value)
    if isinstance(value, bool) or not number.is_integer():
        raise ValueError("not a whole number")
    return int(number)


# The published project's key → its place in a recipe, and the conversion of its value
_KEYS: Mapping[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "model_name": (("teacher", "backbone"), str),
    "max_length": (("teacher", "max_length"), _whole),
    "embedding_option": (("teacher", "pooling"), lambda value: _POOLING.get(value, value)),
    "batch_size": (("training", "global_batch"), _whole),
    "lr": (("training", "learning_rate"), float),
    "epoch_num": (("training", "epochs"), float),
    "patience": (("training", "patience"), _whole),
    "num_logs_per_epoch": (("training", "evaluations_per_epoch"), _whole),
    "use_fp16": (("training", "precision"), lambda value: _PRECISION.get(value, value)),
    "val_split": (("data", "validation_share"), float),
}
_THEIR_DEFAULTS = {
    "batch_size": 8,
    "val_split": 0.03,
    "lr": 2e-5,
    "epoch_num": 3,
    "patience": 5,
    "num_logs_per_epoch": 5,
    "use_fp16": False,
    "max_length": 512,
    "embedding_option": "mean",
}


def _recipe(config: Mapping[str, Any], path: Path, folder: str, pairs: str, columns: Mapping[str, str]) -> Recipe:
    sections: dict[str, dict[str, Any]] = {
        "teacher": {"kind": "bi_encoder", "loss": "contrastive"},
        "training": {},
        "data": {"train": pairs, "columns": dict(columns)},
    }
    for key, value in {**_THEIR_DEFAULTS, **config}.items():
        (section, name), written = _KEYS[key]
        try:
            sections[section][name] = written(value)
        except (TypeError, ValueError, OverflowError):
            kind = "a whole number" if written is _whole else "a number"
            raise BadInput(f"{path}: {key} is {value!r}; {kind} is expected") from None
    training = sections["training"] | {"micro_batch": sections["training"]["global_batch"]}
    raw = {
        "name": "trainer",
        "output_dir": folder,
        "data": sections["data"],
        "teachers": {"model": {**sections["teacher"], "training": training}},
    }
    try:
        return validated(Recipe, raw, path)
    except BadInput as error:
        raise BadInput(_in_their_words(str(error))) from None


def _in_their_words(problems: str) -> str:
    """Replace the recipe's keys in the messages by the published project's; drop repeated lines."""
    for key, ((section, name), _) in _KEYS.items():
        place = {"teacher": "teachers.model.", "training": "teachers.model.training.", "data": "data."}[section]
        problems = problems.replace(f"{place}{name}:", f"{key}:")
    lines = problems.replace("teachers.model.training.micro_batch:", "batch_size:").split("\n")[1:]
    head = problems.partition(":")[0]
    lines = list(dict.fromkeys(lines))
    return "\n".join([f"{head}: {len(lines)} problem{'s' * (len(lines) > 1)}", *lines])
