"""Metrics with intervals, comparisons of two models, and comparisons with teacher, untrained student and TF-IDF.

No module here runs a model.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.metrics.measures import *

__getattr__ = public(__name__, "measures")
