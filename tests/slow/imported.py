"""What a server of forks imports before it forks: all that a run imports, so that a command begins within a second."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch; tiny models are not faster on two threads

import matplotlib.figure  # noqa: F401
import nncf  # noqa: F401
import openvino  # noqa: F401
import scipy.stats  # noqa: F401
import sentence_transformers.base.modules  # noqa: F401

import distill.report.build  # noqa: F401
from recipes import cli, commands  # noqa: F401
from recipes._stages import every_stage

every_stage()
