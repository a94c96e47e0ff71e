"""A student as a graph: exported, quantized, compared with its source and refused where it is not the same.

It trains only to recover int8.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from students.export.stage import *

__getattr__ = public(__name__, "stage")
