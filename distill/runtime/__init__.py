"""Run a finished model fast and exactly: torch, OpenVINO, ONNX or numpy behind one scorer.

This package neither trains nor exports models.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.runtime.opening import *
    from distill.runtime.scorer import *
    from distill.runtime.settings import *

__getattr__ = public(__name__, "opening", "scorer", "settings")
