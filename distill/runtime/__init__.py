"""Fast and exact answers of a finished model: torch, OpenVINO, ONNX or numpy behind one scorer.

It trains and exports nothing.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.runtime.opening import load
    from distill.runtime.scorer import PairedScorer, Scorer
    from distill.runtime.settings import Mode, RunSettings

__all__ = ["Mode", "PairedScorer", "RunSettings", "Scorer", "load"]
__getattr__ = public(
    __name__,
    {"Mode": "settings", "PairedScorer": "scorer", "RunSettings": "settings", "Scorer": "scorer", "load": "opening"},
)
