"""The machinery, in rooms by the way of the data: see the docstring of each package.

From the top: evaluation, report, ray, scorers, training, graphs, runtime, run and signals, models, synthesis, endpoints, data, recipe,
resumes, metrics, files, machine. A room may import those below it; a test says so.
"""

from distill._moved import install as _install_moved
from distill._telemetry import switch_off as _switch_off_telemetry

__version__ = "0.1.0"

_install_moved()
_switch_off_telemetry()
