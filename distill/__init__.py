"""The library, in packages that follow the flow of data: see the docstring of each package.

From the top: evaluation, report, ray, scorers, training, graphs, runtime, run and signals, models, synthesis, endpoints, data, recipe,
resumes, metrics, files, machine. A package may import those below it; a test checks this.
"""

from distill._moved import install as _install_moved
from distill._telemetry import switch_off as _switch_off_telemetry

__version__ = "0.1.0"

_install_moved()
_switch_off_telemetry()
