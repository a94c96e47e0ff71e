"""Keep old names of modules and objects for one version: `distill.modeling` is now `distill.models.modeling`."""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

__all__ = ["MOVED", "MOVED_NAMES", "install", "moved_names"]

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
MOVED_NAMES = {
    "distill.endpoints.client": {
        "PRICES": "distill.recipe.endpoint.PRICES",
        "PRICES_AS_OF": "distill.recipe.endpoint.PRICES_AS_OF",
        "BudgetSpent": "distill.endpoints.budget.BudgetSpent",
        "Price": "distill.recipe.endpoint.Price",
        "estimated_tokens": "distill.endpoints.tokens.estimated_tokens",
        "most_tokens": "distill.endpoints.tokens.most_tokens",
    },
    "distill.ablation": {"Cell": "distill.ablation.AblationCell", "TableRow": "distill.ablation.AblationRow"},
    "distill.diagnosis.findings": {
        "LEVELS": "distill.diagnosis.findings.SEVERITIES",
        "Level": "distill.diagnosis.findings.Severity",
    },
    "distill.evaluation.benchmark": {"Row": "distill.evaluation.benchmark.BenchmarkEntry"},
    "distill.evaluation.latency": {"Load": "distill.evaluation.latency.LoadSettings"},
    "distill.resumes.sections": {
        "KINDS": "distill.resumes.section_headings.SECTION_KINDS",
        "Kind": "distill.resumes.section_headings.SectionKind",
        "Section": "distill.resumes.sections.ResumeSection",
    },
    "distill.runtime.scorer": {"Progress": "distill.progress.OnProgress"},
    "distill.scorers.baselines": {
        name: f"distill.scorers.opening.{name}" for name in ("check_scorer_folder", "model_folder", "open_scorer")
    },
    "students.export.calibration": {"spread": "students.export.calibration.rows_over_lengths"},
    "students.export.gate": {"Pairs": "students.export.gate.TextPairs"},
    "students.export.recovery": {"from_first_process": "distill.machine.processes.from_first_process"},
    "students.export.stage": {
        "Format": "distill.recipe.schema.ExportFormat",
        "Precision": "distill.recipe.schema.ExportPrecision",
    },
}


def moved_names(module: str) -> Callable[[str], Any]:
    """Return a module's `__getattr__`, which finds moved names in their new modules and warns."""

    def get(name: str) -> Any:
        if name not in MOVED_NAMES[module]:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, _, new = MOVED_NAMES[module][name].rpartition(".")
        warnings.warn(f"{module}.{name} is {place}.{new} now", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(place), new)

    return get


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import a moved module under its old name, with a warning."""

    def __init__(self) -> None:
        self._own: dict[str, importlib.machinery.ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        warnings.warn(f"{spec.name} is {MOVED[spec.name]} now", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(MOVED[spec.name])
        self._own[module.__name__] = module.__spec__  # the import system replaces it with the spec of the old name
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the module's own spec. The module is not executed again, because its new name has been imported."""
        module.__spec__ = self._own[module.__name__]


def install() -> None:
    """Make the old names of modules importable."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
