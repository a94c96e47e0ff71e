"""Scored pairs and texts: every table is read and written here, split, tokenised and counted.

It knows no model.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.data.pairs import *

__getattr__ = public(__name__, "pairs")
