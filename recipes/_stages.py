"""The functions of each stage, by name; each is imported only when it is needed."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.ray.cluster import Actors
    from distill.run import Run

    Stages = Sequence[Callable[[Run], object]]

__all__ = [
    "benchmark",
    "build_student",
    "cache_signals",
    "cache_signals_on",
    "cascade",
    "every_stage",
    "export",
    "train_student",
    "train_teacher",
]


def train_teacher() -> "Stages":
    """Return the training of teachers."""
    from teachers import train_teachers

    return (train_teachers,)


def cache_signals() -> "Stages":
    """Return the caching of signals."""
    from teachers import cache_signals as stage

    return (stage,)


def cache_signals_on(actors: "Actors") -> "Callable[[], Stages]":
    """Return a function that returns the caching of signals by the actors of a Ray cluster."""

    def stages() -> "Stages":
        from teachers import cache_signals as stage

        return (partial(stage, actors=actors),)

    return stages


def build_student() -> "Stages":
    """Return the building of the student."""
    from students import build_student as stage

    return (stage,)


def train_student() -> "Stages":
    """Return the training of student and control, which builds the student first if needed."""
    from students import train_student as stage

    return (stage,)


def export() -> "Stages":
    """Return the exports of the student, an asymmetric student's Router, and the exports of the matched teacher."""
    from students import calibrate_router, export_router, export_static_student, export_student, export_teacher

    return (export_student, export_static_student, export_router, calibrate_router, export_teacher)


def benchmark() -> "Stages":
    """Return the measurement and its report."""
    from distill.evaluation.benchmark import benchmark as stage

    return (stage,)


def cascade() -> "Stages":
    """Return the fit and measurement of the cascade."""
    from distill.evaluation.cascade_dial import measure_cascade

    return (measure_cascade,)


def every_stage() -> "Stages":
    """Return all stages in order; those of the student do nothing if the recipe has no student."""
    from distill.evaluation.benchmark import check_remote_baselines

    middle = tuple(_if_student(stage) for name in (cache_signals, train_student, export) for stage in name())
    return (check_remote_baselines, *train_teacher(), *middle, *benchmark())


def _if_student(stage: "Callable[[Run], object]") -> "Callable[[Run], object]":
    return lambda run: stage(run) if run.recipe.student is not None else None
