"""A run's folder: where each piece stands, whether it is finished, and who is working in it.

    <run>/teachers/<name>/  signals/<name>/  built/  student/  control/  recovered/  exports/<format>-<precision>/
         /teacher_exports/<name>/<format>-<precision>/  baselines/<name>/  report/
         /.work/            backbones, checkpoints and other leftovers of unfinished stages; safe to remove

A stage is finished when its folder carries the fingerprint of all that went into it: recipe sections, data, parents.
"""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from distill.data.pairs import Split, load_split
from distill.errors import BadInput
from distill.files.artefact import Artefact, content_hash, read_card, write_json
from distill.files.outputs import check_output_folder
from distill.machine.precision import resolve_precision
from distill.models.prompts import NO_PROMPTS, folder_prompts
from distill.recipe.checks import suggest
from distill.recipe.schema import BlackBox, Recipe, Student
from distill.signals import MANIFEST, Identity

__all__ = ["Run", "differences"]

log = logging.getLogger(__name__)
_SHOWN_CHANGES = 4
_FOLDERS = (
    "teachers",
    "signals",
    "built",
    "student",
    "control",
    "recovered",
    "exports",
    "teacher_exports",
    "baselines",
    "cascade",
    "report",
)
_REPORT = ("benchmark.json",)


class Run:
    """One recipe and its folder.

    :param callables: the functions of its teachers of kind callable, by their names
    :raises BadInput: for a function that no teacher of the recipe is
    """

    def __init__(self, recipe: Recipe, callables: Mapping[str, Callable[..., Any]] | None = None) -> None:
        self.recipe = recipe
        self.folder = recipe.folder
        self.callables = dict(callables or {})
        known = [name for name, box in recipe.black_boxes.items() if box.form == "callable"]
        for name, function in self.callables.items():
            if name not in known:
                raise BadInput(f"callables: no teacher of kind callable is called {name!r}; {suggest(name, known)}")
            if not callable(function):
                raise BadInput(f"callables: {name} is {type(function).__name__}, no function")

    @cached_property
    def split(self) -> Split:
        """The recipe's data, read once."""
        return load_split(self.recipe.data, self.recipe.seed)

    @property
    def student_section(self) -> Student:
        """The recipe's section of the student.

        :raises BadInput: where it has none
        """
        if self.recipe.student is None:
            raise BadInput("this recipe has no student; add the sections student and objectives")
        return self.recipe.student

    def teacher(self, name: str) -> Path:
        """The folder of a teacher."""
        return self.folder / "teachers" / name

    def teacher_prompts(self, name: str) -> tuple[str, str]:
        """What a finished teacher puts before queries and documents: the recipe's prompts, or those that it came with."""
        teacher = self.recipe.teachers[name]
        if teacher.model_kind == "cross_encoder":
            return NO_PROMPTS
        if isinstance(teacher, BlackBox):
            return teacher.role_prompts
        return folder_prompts(self.teacher(name))

    def signals(self, name: str) -> Path:
        """The folder of a teacher's signals."""
        return self.folder / "signals" / name

    @property
    def built(self) -> Path:
        """The folder of the student before training."""
        return self.folder / "built"

    @property
    def student(self) -> Path:
        """The student's folder."""
        return self.folder / "student"

    @property
    def recovered(self) -> Path:
        """The folder of the student that was trained on with int8 simulated, where an export asked for it."""
        return self.folder / "recovered"

    @property
    def control(self) -> Path:
        """The folder of the same student trained without the teacher."""
        return self.folder / "control"

    def export(self, precision: str, format: str = "openvino") -> Path:
        """The folder of an export."""
        return self.folder / "exports" / f"{format}-{precision}"

    def teacher_export(self, name: str, precision: str, format: str = "openvino") -> Path:
        """The folder of an export of a teacher."""
        return self.folder / "teacher_exports" / name / f"{format}-{precision}"

    def baseline(self, name: str) -> Path:
        """The folder of a baseline of the report."""
        return self.folder / "baselines" / name

    @property
    def router(self) -> Path:
        """The folder of an asymmetric student and its teacher together."""
        return self.folder / "exports" / "router"

    @property
    def cascade(self) -> Path:
        """The folder of student and teacher together."""
        return self.folder / "cascade"

    @property
    def report(self) -> Path:
        """The report's folder."""
        return self.folder / "report"

    @property
    def work(self) -> Path:
        """Where unfinished work lies."""
        return self.folder / ".work"

    def require(self, folder: Path, stage: str) -> Artefact:
        """Return the card of a finished folder.

        :raises BadInput: naming the stage that makes it
        """
        card = read_card(folder)
        if card is None:
            raise BadInput(f"{folder} is not there yet; run the stage {stage} of this recipe first")
        return card

    def card(
        self,
        kind: str,
        stage: str,
        inputs: Mapping[str, Any],
        parents: Mapping[str, str],
        details: Mapping[str, Any] | None = None,
    ) -> Artefact:
        """Return what is known of a folder before it is written.

        :param inputs: all that decides it; the same inputs are a finished stage
        :param details: what is to stand in the card besides
        """
        return Artefact(
            kind=kind,
            stage=stage,
            fingerprint=content_hash(inputs),
            parents=parents,
            recipe=self.recipe.model_dump(mode="json"),
            data=self.split.describe(),
            details={"inputs": inputs, **(details or {})},
        )

    def signal_identity(self, name: str) -> Identity:
        """Return what decides the signals of a teacher of this run."""
        teacher, signals = self.recipe.teachers[name], self.recipe.signals
        card = self.require(self.teacher(name), "train_teacher")
        if isinstance(teacher, BlackBox):
            kind, prompts = teacher.model_kind, teacher.role_prompts
            return Identity(card.revision, kind, 0, prompts, runtime=teacher.form, dtype=signals.dtype)
        identity = Identity(
            revision=card.revision,
            kind=teacher.model_kind,
            max_length=teacher.max_length,
            prompts=self.teacher_prompts(name),
            runtime=signals.runtime,
            precision="fp32",
            dtype=signals.dtype,
        )
        return replace(identity, precision=self._signal_precision(name, identity))

    def _signal_precision(self, name: str, identity: Identity) -> Literal["bf16", "fp32"]:
        """Return what a teacher computes its signals in; where the recipe says auto, a finished cache of another machine serves."""
        stated = self.recipe.signals.precision
        if stated != "auto":
            return stated
        here = self._signals_here
        known: tuple[Literal["bf16", "fp32"], ...] = (here, "bf16", "fp32")
        finished = (
            precision
            for precision in known
            if (self.signals(name) / replace(identity, precision=precision).key / MANIFEST).is_file()
        )
        return next(finished, here)

    @cached_property
    def _signals_here(self) -> Literal["bf16", "fp32"]:
        """What teachers compute in on this machine where the recipe says auto."""
        return "bf16" if resolve_precision("auto", field="signals.precision") == "bf16" else "fp32"

    def is_finished(self, folder: Path, inputs: Mapping[str, Any]) -> bool:
        """Tell whether a folder was made from these inputs.

        :raises BadInput: where it was made from others, naming what changed, unless the recipe says overwrite
        """
        card = read_card(folder) if folder.exists() else None
        if card is not None and card.fingerprint == content_hash(inputs):
            log.info("%s is finished", folder)
            return True
        if card is None:
            if folder.exists() and any(folder.iterdir()):
                raise BadInput(f"{folder} holds something that no stage made; move it away or set another output_dir")
            return False
        if not self.recipe.overwrite:
            changes = differences(card.details.get("inputs", {}), json.loads(json.dumps(inputs, default=str)))
            shown = ", ".join(changes[:_SHOWN_CHANGES]) + (
                f" and {len(changes) - _SHOWN_CHANGES} more" if len(changes) > _SHOWN_CHANGES else ""
            )
            raise BadInput(
                f"{folder} was made from something else ({shown}); set output_dir to a new folder, or overwrite=true to replace it"
            )
        return False

    def work_folder(self, name: str, inputs: Mapping[str, Any]) -> Path:
        """Return the checkpoint folder of a stage with these inputs; those of other inputs are removed."""
        target = self.work / f"{name}-{content_hash(inputs)}"
        for other in self.work.glob(f"{name}-*"):
            if other != target and other.name.rpartition("-")[0] == name:
                shutil.rmtree(other, ignore_errors=True)
        target.mkdir(parents=True, exist_ok=True)
        return target

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second launch out of this folder.

        :raises BadInput: where another process is working in it
        """
        self._check_place()
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(
                f"{self.folder} cannot be made a folder ({error.strerror}); set another output_dir"
            ) from None
        with (self.work / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise BadInput(
                    f"{self.folder} is in use by process {file.read().strip() or '?'}; wait for it or set another output_dir"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def _check_place(self) -> None:
        """Check that the folder is this toolkit's, or holds nothing in the places where stages write.

        :raises BadInput: for a model folder, a path in one, and a folder of something else
        """
        check_output_folder(self.folder / "report", ours=_REPORT, overwrite=True)
        if self.work.is_dir() or (self.folder / "recipe.json").is_file():
            return
        taken = [
            name for name in (".work", *_FOLDERS) if (self.folder / name).exists() or (self.folder / name).is_symlink()
        ]
        foreign = [name for name in taken if not (self.folder / name).is_dir() or any((self.folder / name).iterdir())]
        if foreign:
            raise BadInput(
                f"{self.folder} holds something that no stage made ({', '.join(foreign)}); move it away or set another output_dir"
            )

    def write_recipe(self) -> None:
        """Write the resolved recipe beside the results."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "recipe.json", self.recipe.model_dump(mode="json"))


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """List the leaves in which two JSON values differ, as "training.epochs: 3 → 4"."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            change
            for key in keys
            for change in differences(old.get(key), new.get(key), f"{place}.{key}" if place else key)
        ]
    return [] if old == new else [f"{place}: {old} → {new}"]
