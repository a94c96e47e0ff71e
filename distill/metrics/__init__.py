"""Metrics with intervals, comparisons of two models, and how a model stands to teacher, control and floor.

It runs no model.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.metrics.measures import *

__getattr__ = public(__name__, "measures")
