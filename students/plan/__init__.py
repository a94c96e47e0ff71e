"""Finds the largest student within a budget of time and size, by measuring.

Nothing here trains a model.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from students.plan.search_shapes import *

__getattr__ = public(__name__, "search_shapes")
