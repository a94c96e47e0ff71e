"""Metrics with intervals, comparisons of two models, and of a model with teacher, control and the TF-IDF floor.

This package runs no model.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.metrics.measures import *

__getattr__ = public(__name__, "measures")
