"""Modules of version 0.1 under their old names, for one version: `distill.modeling` is `distill.models.modeling` now."""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

__all__ = ["MOVED", "install"]

MOVED = {
    "distill.artefact": "distill.files.artefact",
    "distill.backbone": "distill.models.backbone",
    "distill.baselines": "distill.scorers.baselines",
    "distill.benchmark": "distill.evaluation.benchmark",
    "distill.blinding": "distill.resumes.blinding",
    "distill.index_quality": "distill.evaluation.index_quality",
    "distill.latency": "distill.evaluation.latency",
    "distill.losses": "distill.training.losses",
    "distill.model_files": "distill.models.files",
    "distill.modeling": "distill.models.modeling",
    "distill.objectives": "distill.training.objectives",
    "distill.onnx": "distill.graphs.onnx",
    "distill.openvino": "distill.graphs.openvino",
    "distill.sections": "distill.resumes.sections",
    "distill.synthetic": "distill.data.bundled",
    "distill.tables": "distill.data.tables",
    "distill.vectors": "distill.runtime.vectors",
    "students.calibration": "students.export.calibration",
    "students.gate": "students.export.gate",
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the module at its new place for its old name, with a warning."""

    def __init__(self) -> None:
        self._own: dict[str, importlib.machinery.ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        warnings.warn(f"{spec.name} is {MOVED[spec.name]} now", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(MOVED[spec.name])
        self._own[module.__name__] = module.__spec__  # the import system writes the old name's over it
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Keep the module as it is: it has been run under its own name."""
        module.__spec__ = self._own[module.__name__]


def install() -> None:
    """Let the old names be imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
