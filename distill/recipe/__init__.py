"""A recipe: its schema, the checks of the whole, and how it is read from YAML and the command line.

It opens no data and no model.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.recipe.endpoint import *
    from distill.recipe.reading import *
    from distill.recipe.schema import *

__getattr__ = public(__name__, "schema", "reading", "endpoint")
