"""The largest student within a budget of time and size, found by measuring.

It trains nothing.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from students.plan.search_shapes import *

__getattr__ = public(__name__, "search_shapes")
