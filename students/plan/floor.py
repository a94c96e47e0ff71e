"""What a plan can cost at least, by arithmetic: an impossible budget is refused before anything is built or measured.

Nothing heavy is imported. The floor is low on purpose: a byte for each weight, as int8 has, and the multiply-adds of
the matrices at a rate that no CPU has. A budget above it may still be impossible, which measurements show.
"""

from collections.abc import Sequence
from pathlib import Path

from distill.errors import BadInput, JobFailed
from distill.machine.cpu import usable_cpus
from distill.recipe.schema import PLANNED_VOCABULARY, FreshBackbone, Plan, Recipe, TeacherBackbone
from distill.run import Run
from students.plan.cost_model import CostLimits, Shape, nearest

__all__ = ["check_plan", "cut_backbone", "fresh_shapes", "heads_of", "length_of", "refuse_impossible"]

_WIDTHS = (128, 192, 256, 320, 384, 448, 512, 640, 768)  # if plan.widths is not set
_LAYERS = (2, 3, 4, 5, 6, 8, 10, 12)  # if plan.layers is not set
_FEED_FORWARD = (2.0, 4.0)  # times the width, if plan.feed_forward is not set
_LENGTH = 256  # largest number of tokens that a plan measures with, if plan.length is not set
_MOST_PER_MS = 1e10  # multiply-adds of one thread: AMX has 1,024 in int8 a cycle, twice that at 5 GHz
_LEAST_MS = 0.01  # a call from Python


def check_plan(recipe: Recipe, folder: Path | None) -> None:
    """Check what is known of a plan before the libraries are imported that build and measure.

    :param folder: the plan's; where it holds measurements, they tell more of the budget. None if a finished model is checked
    :raises BadInput: if there are fewer CPUs than threads
    :raises JobFailed: if no fresh encoder can meet the budget
    """
    n_threads, n_cpus = recipe.plan.threads, usable_cpus()
    if n_threads is not None and n_threads > n_cpus:
        raise BadInput(f"plan.threads: {n_threads}, this process may use {n_cpus}; plan on the machine that will serve")
    run = Run(recipe)
    if folder is None or cut_backbone(run) is not None or (folder / "measurements.json").exists():
        return
    is_filled = recipe.data.train == "bundled"  # else the texts may be too few for the vocabulary
    vocabularies = (recipe.plan.vocabulary or (PLANNED_VOCABULARY,)) if is_filled else (0,)
    refuse_impossible(fresh_shapes(recipe.plan, vocabularies, length_of(run)), recipe.plan)


def refuse_impossible(shapes: Sequence[Shape], plan: Plan) -> None:
    """Refuse a budget that no shape can meet, by arithmetic alone.

    :raises JobFailed: naming the nearest shape, and what it takes at least
    """
    budget, n_threads = CostLimits(plan.budget_p95_ms, plan.budget_mb), plan.threads or usable_cpus()
    bytes_each = 4 if plan.precision == "fp32" else 1
    floors = {
        shape: {
            "p95_ms": _LEAST_MS + shape.length * shape.encoder_parameters / _MOST_PER_MS / n_threads,
            "size_mb": bytes_each * (shape.encoder_parameters + shape.vocabulary * shape.width) / 1e6,
        }
        for shape in shapes
    }
    closest = nearest(floors, budget)
    if not budget.fits(floors[closest]):
        raise JobFailed(
            f"no shape meets {budget} in {'fp32' if plan.precision == 'fp32' else 'int8 or fp32'}; nearest: {closest}, "
            f"which takes {floors[closest]['p95_ms']:.3g} ms and {floors[closest]['size_mb']:.3g} MB at least, by arithmetic "
            "alone; raise the budget, shorten the texts, or allow fewer layers, smaller widths or a smaller vocabulary"
        )


def heads_of(width: int) -> int:
    """Return the number of attention heads of a fresh encoder: of size 64 if that divides the width, else 32, else 16.

    >>> heads_of(384), heads_of(160), heads_of(48)
    (6, 5, 3)
    """
    size = next((size for size in (64, 32, 16) if width % size == 0), None)
    if size is None:
        raise BadInput(f"plan.widths: {width} is no multiple of 16; attention heads need one")
    return width // size


def fresh_shapes(plan: Plan, vocabularies: Sequence[int], length: int) -> list[Shape]:
    """Return every shape of a fresh encoder that the plan allows."""
    return [
        Shape(layers, width, round(ratio * width), heads_of(width), vocabulary, length)
        for vocabulary in vocabularies
        for layers in plan.layers or _LAYERS
        for width in plan.widths or _WIDTHS
        for ratio in plan.feed_forward or _FEED_FORWARD
    ]


def cut_backbone(run: Run) -> str | TeacherBackbone | None:
    """Return the encoder that the plan cuts: a teacher or a named encoder; None for fresh encoders."""
    plan, student = run.recipe.plan, run.recipe.student
    if plan.teacher is not None:
        return TeacherBackbone(teacher=plan.teacher)
    return None if student is None or isinstance(student.backbone, FreshBackbone) else student.backbone


def length_of(run: Run) -> int:
    """Return the number of tokens that a plan measures with."""
    plan, student = run.recipe.plan, run.recipe.student
    longest = _LENGTH if student is None else min(_LENGTH, student.max_length)
    return longest if plan.length is None else plan.length
