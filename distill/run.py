"""A run's folder: where each model and result is, whether it is finished, and which process is working in it.

    <run>/teachers/<name>/  signals/<name>/  built/  student/  control/  recovered/  exports/<format>-<precision>/
         /stages/<name>/    the student after an earlier training stage, and what a later one cuts before it learns
         /teacher_exports/<name>/<format>-<precision>/  baselines/<name>/  report/
         /.work/            backbones, checkpoints and other leftovers of unfinished stages; safe to remove

A stage is finished when its folder's card has the fingerprint of all its inputs: recipe sections, data, parents.

A recipe with training stages (`stages`) has a `Run` for each of them (`Run.stages`), with the stage's own recipe, data and
folders. The run of the whole recipe is that of the last stage, whose student is the recipe's student.
"""

import copy
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from distill.data.pairs import Split, joined, load_split, load_stage_splits
from distill.data.tables import locate
from distill.errors import BadInput, is_full_disk
from distill.files.artefact import CARD, INNER_MODEL, Artefact, content_hash, read_card, restore_below, write_json
from distill.files.locking import lock, opened_lock
from distill.files.outputs import check_output_folder
from distill.machine.precision import resolve_precision
from distill.metrics.logistic import too_few_pairs
from distill.models.backbone import check_student_dimensions, check_student_layers, check_student_length
from distill.models.prompts import NO_PROMPTS, folder_prompts
from distill.recipe.checks import suggest
from distill.recipe.schema import BlackBox, FileTeacher, FurtherCut, M3Teacher, Recipe, Student, TokenTeacher
from distill.signals import MANIFEST, Identity

__all__ = ["Run", "differences"]

log = logging.getLogger(__name__)
_SHOWN_CHANGES = 4
_FOLDERS = (
    "teachers",
    "signals",
    "built",
    "stages",
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
    """One training stage of a recipe, with its folders.

    `recipe` is the recipe of this stage, `stated` the whole recipe; without stages they are the same.

    :param callables: the functions of the teachers of kind callable, by the teachers' names
    :raises BadInput: for a name that is no teacher of kind callable
    """

    def __init__(self, recipe: Recipe, callables: Mapping[str, Callable[..., Any]] | None = None) -> None:
        self.stated, self.folder, self.place = recipe, recipe.folder, max(len(recipe.stages), 1) - 1
        self.recipe = recipe.in_stages[self.place]
        self.scored_here: set[Path] = set()  # files of scores that this process wrote, also in views of the run
        self.callables = dict(callables or {})
        callable_names = [name for name, box in recipe.black_boxes.items() if box.form == "callable"]
        for name, function in self.callables.items():
            if name not in callable_names:
                raise BadInput(
                    f"callables: no teacher of kind callable is called {name!r}; {suggest(name, callable_names)}"
                )
            if not callable(function):
                raise BadInput(f"callables: {name} is {type(function).__name__}, no function")

    @cached_property
    def stages(self) -> tuple["Run", ...]:
        """The runs of all training stages in order, this one last; a recipe without stages has one."""
        earlier = [self._view(place, recipe) for place, recipe in enumerate(self.stated.in_stages[:-1])]
        stages = (*earlier, self)
        for view in earlier:
            vars(view)["stages"] = stages
        return stages

    @cached_property
    def for_teachers(self) -> "Run":
        """The run with the recipe's own data, from which teachers learn in every stage."""
        if not self.stated.stages:
            return self
        view = self._view(-1, self.stated.model_copy(update={"stages": {}}))
        vars(view).update(stages=(view,), split=self._splits[-1])
        return view

    def _view(self, place: int, recipe: Recipe) -> "Run":
        view = copy.copy(self)
        for name in ("stages", "for_teachers", "split", "learned", "_splits"):
            vars(view).pop(name, None)
        view.place, view.recipe = place, recipe
        return view

    @cached_property
    def split(self) -> Split:
        """The data of the stage, read once."""
        if not self.stated.stages:
            return load_split(self.recipe.data, self.recipe.seed, for_training=True)
        return self.stages[-1]._splits[self.place]

    def check_files(self) -> None:
        """Check what needs no model to be opened: files of teachers exist, and layers that stay are in the backbone.

        :raises BadInput: naming what is missing
        """
        check_student_layers(self.stated)
        check_student_dimensions(self.stated)
        check_student_length(self.stated)
        for name, teacher in self.stated.black_boxes.items():
            for path in teacher.path if isinstance(teacher, FileTeacher) else ():
                if Path(path).exists():
                    continue
                try:
                    locate(path)  # names what is near
                except BadInput as problem:
                    raise BadInput(f"teacher {name}: {problem}") from None
                raise BadInput(f"teacher {name}: {path}: no such file")

    def read_data(self) -> None:
        """Read the data of all stages, which are kept, and log how many pairs and texts each stage has.

        :raises BadInput: on anything that cannot be trained on
        """
        for stage in self.stages:
            log.info("data%s: %s", "" if stage.name is None else f" of stage {stage.name}", stage.split.summary())
            for shortage in stage.split.shortages():
                log.warning("%s", shortage)
        if "cascade" in self.stated.model_fields_set and (problem := too_few_pairs(len(self.split.validation))):
            log.warning("`distill cascade` will refuse this recipe: %s", problem)

    @cached_property
    def _splits(self) -> list[Split]:
        data = {name: recipe.data for name, recipe in zip(self.stated.stages, self.stated.in_stages, strict=True)}
        return load_stage_splits(self.stated.data, data, self.stated.seed)

    @cached_property
    def learned(self) -> Split:
        """The training data of all stages together."""
        return joined([stage.split for stage in self.stages])

    @property
    def name(self) -> str | None:
        """The name of the training stage; None where the recipe has none."""
        return next(islice(self.stated.stages, self.place, None), None) if self.place >= 0 else None

    @property
    def before(self) -> "Run | None":
        """The run of the stage before; None in the first."""
        return self.stages[self.place - 1] if self.place > 0 else None

    @property
    def cut(self) -> FurtherCut | None:
        """What this stage cuts from the student of the stage before."""
        return self.stated.stages[self.name].student if self.name is not None else None

    @property
    def space(self) -> tuple[str, ...]:
        """The teachers in whose space the student's embeddings are, by this stage or an earlier one."""
        return self.recipe.objectives.kept_teachers or (() if self.before is None else self.before.space)

    @property
    def builds(self) -> bool:
        """Whether this stage builds a model before training: the student, a further cut, or a new output space."""
        return self.before is None or self.cut is not None or self.space != self.before.space

    @property
    def student_section(self) -> Student:
        """The recipe's section `student`.

        :raises BadInput: if there is none
        """
        if self.recipe.student is None:
            raise BadInput("this recipe has no student; add the sections student and objectives")
        return self.recipe.student

    def teacher(self, name: str) -> Path:
        """The folder of a teacher."""
        return self.folder / "teachers" / name

    def teacher_prompts(self, name: str) -> tuple[str, str]:
        """The prompts of a finished teacher for queries and documents: the recipe's, or those of the model's folder."""
        teacher = self.recipe.teachers[name]
        if teacher.model_kind == "cross_encoder":
            return NO_PROMPTS
        if isinstance(teacher, M3Teacher):
            return folder_prompts(self.teacher(name) / INNER_MODEL)
        if isinstance(teacher, BlackBox):
            return teacher.role_prompts
        return folder_prompts(self.teacher(name))

    def signals(self, name: str) -> Path:
        """The folder of a teacher's signals."""
        return self.folder / "signals" / name

    @property
    def built(self) -> Path:
        """The folder of the model that was built last: the student before training, or a later stage's cut of it."""
        if self.before is None:
            return self.folder / "built"
        return self._own / "built" if self.builds else self.before.built

    @property
    def untrained(self) -> Path:
        """The folder of the student with the cuts of all stages so far, without training."""
        if self.before is None:
            return self.built
        return self._own / "untrained" if self.builds else self.before.untrained

    @property
    def start(self) -> Path:
        """The folder of the model that this stage starts from."""
        return self.built if self.builds or self.before is None else self.before.student

    @property
    def student(self) -> Path:
        """The folder of the student after this stage."""
        return self.folder / "student" if self is self.stages[-1] else self._own / "student"

    def place_of(self, folder: Path) -> str:
        """Return a folder's path in the run, as cards name a student's start: "built", "stages/general/student"."""
        return folder.relative_to(self.folder).as_posix()

    @property
    def _own(self) -> Path:
        return self.folder / "stages" / str(self.name)

    @property
    def recovered(self) -> Path:
        """The folder of the student after recovery (fine-tuning with simulated int8), if an export needed it."""
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
        """The folder of the cascade of student and teacher."""
        return self.folder / "cascade"

    @property
    def report(self) -> Path:
        """The report's folder."""
        return self.folder / "report"

    @property
    def work(self) -> Path:
        """The folder of unfinished work."""
        return self.folder / ".work"

    @property
    def tokens(self) -> Path:
        """The folder of the tokens of large data sets during training."""
        return self.work / "tokens"

    def drop_tokens(self) -> None:
        """Remove the tokens, once all models of a stage that read them are trained."""
        shutil.rmtree(self.tokens, ignore_errors=True)

    def require(self, folder: Path, stage: str) -> Artefact:
        """Return the card of a finished folder.

        :raises BadInput: naming the stage that makes it
        """
        card = read_card(folder)
        if card is None:
            command = f"distill {stage.replace('_', '-')}"
            raise BadInput(f"{folder} is not there yet; run `{command}` with this recipe first")
        return card

    def card(
        self,
        kind: str,
        stage: str,
        inputs: Mapping[str, Any],
        parents: Mapping[str, str],
        details: Mapping[str, Any] | None = None,
    ) -> Artefact:
        """Return the card of a folder that will be written.

        :param inputs: everything that determines the content; a folder with the same inputs is finished
        :param details: further entries for the card
        """
        return Artefact(
            kind=kind,
            stage=stage,
            fingerprint=content_hash(inputs),
            parents=parents,
            recipe=self.stated.model_dump(mode="json"),
            data=self.split.describe(),
            details={"inputs": inputs, **(details or {})},
        )

    def signal_identity(self, name: str) -> Identity:
        """Return the identity of a teacher's signals: everything that determines them."""
        teacher, signals = self.recipe.teachers[name], self.recipe.signals
        card = self.require(self.teacher(name), "train_teacher")
        if isinstance(teacher, BlackBox):
            kind, prompts = teacher.model_kind, self.teacher_prompts(name)
            box_identity = Identity(card.revision, kind, 0, prompts, runtime=teacher.form, dtype=signals.dtype)
            is_model = isinstance(teacher, TokenTeacher)
            return self._resolved(name, box_identity, [box_identity.runtime]) if is_model else box_identity
        identity = Identity(
            revision=card.revision,
            kind=teacher.model_kind,
            max_length=teacher.max_length,
            prompts=self.teacher_prompts(name),
            runtime=signals.runtime,
            precision="fp32",
            dtype=signals.dtype,
        )
        runtimes = [signals.runtime]
        if signals.runtime == "openvino" and self._has_gpu:  # a GPU labels in torch
            runtimes = ["torch", "openvino"]
        return self._resolved(name, identity, runtimes)

    def _resolved(self, name: str, identity: Identity, runtimes: Sequence[str]) -> Identity:
        """Return the identity with the runtime and precision of this machine, or of a finished cache from another.

        :param runtimes: the one of this machine first; a cache of the others is used if it is finished
        """
        stated = self.recipe.signals.precision
        precisions = [self._signals_here, "bf16", "fp32"] if stated == "auto" else [stated]
        candidates = [
            replace(identity, runtime=runtime, precision=precision) for runtime in runtimes for precision in precisions
        ]
        finished = (found for found in candidates if (self.signals(name) / found.key / MANIFEST).is_file())
        return next(finished, candidates[0])

    @cached_property
    def _has_gpu(self) -> bool:
        import torch

        return torch.cuda.is_available()

    @cached_property
    def _signals_here(self) -> Literal["bf16", "fp32"]:
        """The precision of teachers on this machine if the recipe says auto."""
        return "bf16" if resolve_precision("auto", field="signals.precision") == "bf16" else "fp32"

    def is_finished(self, folder: Path, inputs: Mapping[str, Any]) -> bool:
        """Tell whether a folder was made from these inputs.

        :raises BadInput: if it was made from other inputs, naming what changed, unless the recipe sets overwrite
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
        """Lock the folder against a second launch. If the launch is refused, an empty folder that it created is removed.

        Where a stage has left something, such as an endpoint's spending, `.work` stays and says whose the folder is.

        :raises BadInput: if another process is working in it
        """
        self._check_place()
        new_folders = [place for place in (self.work, *self.work.parents) if not place.exists()]
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if is_full_disk(error):
                raise
            raise BadInput(
                f"{self.folder} cannot be made a folder ({error.strerror}); set another output_dir"
            ) from None
        with opened_lock(self.work / "lock") as file:
            holder = file.read(20).strip() or "?"
            lock(file, f"{self.folder} is in use by process {holder}; wait for it or set another output_dir")
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
            restore_below(self.folder)
            try:
                yield
            except BadInput:
                if self._unfinished():
                    raise
                if self.work in new_folders:
                    (self.work / "lock").unlink(missing_ok=True)  # while it is held: a later process makes its own file
                with suppress(OSError):  # not empty: it has unfinished work
                    for place in new_folders:
                        place.rmdir()
                raise

    def _check_place(self) -> None:
        """Check that the folder is this toolkit's, or holds nothing in the places where stages write.

        :raises BadInput: for a model folder, a path in one, and a folder of something else
        """
        if self.folder.is_file():
            raise BadInput(f"output_dir {self.folder} is a file; name a folder")
        check_output_folder(self.folder / "report", ours=_REPORT, overwrite=True)
        if not self.work.is_dir() and (foreign := self._unfinished()):
            raise BadInput(
                f"{self.folder} holds something that no stage made ({', '.join(foreign)}); move it away or set another output_dir"
            )

    def _unfinished(self) -> list[str]:
        """Return the places of stages that hold something, if neither a recipe nor a card says whose they are."""
        if (self.folder / "recipe.json").is_file() or self._has_cards():
            return []
        places = {name: self.folder / name for name in (_FOLDERS if self.work.is_dir() else (".work", *_FOLDERS))}
        existing = {name: place for name, place in places.items() if place.exists() or place.is_symlink()}
        return [name for name, place in existing.items() if not place.is_dir() or any(place.iterdir())]

    def _has_cards(self) -> bool:
        """Tell whether a stage has finished a folder here; each stage checks the inputs of its own folder."""
        patterns = (f"{name}/{level}{CARD}" for name in _FOLDERS for level in ("", "*/"))
        return any(next(self.folder.glob(pattern), None) is not None for pattern in patterns)

    def write_recipe(self) -> None:
        """Write the resolved recipe beside the results."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "recipe.json", self.stated.model_dump(mode="json"))


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """List the leaves in which two JSON values differ, for example "training.epochs: 3 → 4"."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            change
            for key in keys
            for change in differences(old.get(key), new.get(key), f"{place}.{key}" if place else key)
        ]
    return [] if old == new else [f"{place}: {old} → {new}"]
