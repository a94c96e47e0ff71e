"""The largest student within a budget of time and size, found by measuring.

It trains nothing.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from students.plan.search_shapes import MARGIN, Fastest, check_model, choose_shapes, fastest_precision, make_plan

__all__ = ["MARGIN", "Fastest", "check_model", "choose_shapes", "fastest_precision", "make_plan"]
__getattr__ = public(
    __name__,
    {
        "Fastest": "search_shapes",
        "MARGIN": "search_shapes",
        "check_model": "search_shapes",
        "choose_shapes": "search_shapes",
        "fastest_precision": "search_shapes",
        "make_plan": "search_shapes",
    },
)
