"""Smaller and new vocabularies, and the tokenizer files and embedding tables that change with them.

The functions work on the texts that they are given; only `corpus` reads the texts of a run.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from students.vocabulary.trimming import *

__getattr__ = public(__name__, "trimming")
