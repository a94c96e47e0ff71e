"""Recipes: the schema, the checks across sections, and reading from YAML and the command line.

No module here opens data or loads a model.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.recipe.endpoint import *
    from distill.recipe.reading import *
    from distill.recipe.schema import *

__getattr__ = public(__name__, "schema", "reading", "endpoint")
