"""The report as a page, pictures and model cards.

It measures nothing: it gets `benchmark.json`.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.report.build import *

__getattr__ = public(__name__, "build")
