"""The report as a page, pictures and model cards.

It measures nothing: it gets `benchmark.json`.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.report.build import write_report

__all__ = ["write_report"]
__getattr__ = public(__name__, {"write_report": "build"})
