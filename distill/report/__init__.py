"""Write the report as a page, pictures and model cards.

Nothing is measured here: the input is the content of `benchmark.json`.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.report.build import *

__getattr__ = public(__name__, "build")
