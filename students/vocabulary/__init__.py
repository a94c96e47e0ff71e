"""Smaller and new vocabularies, and the tokenizer files and tables that change with them.

It knows no recipe but the texts that it is given.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from students.vocabulary.trimming import *

__getattr__ = public(__name__, "trimming")
