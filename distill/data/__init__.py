"""Scored pairs and texts: every table is read, written, split, tokenised and counted here.

Nothing here depends on a model.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.data.pairs import *

__getattr__ = public(__name__, "pairs")
