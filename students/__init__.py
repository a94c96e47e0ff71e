"""Students, the small models: built, trained on the teachers' signals, exported. A stage is imported when it is asked for."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from students.asymmetric import export_router
    from students.build import build_student
    from students.calibrate import calibrate_router
    from students.export.stage import export_student
    from students.export.static import export_static_student
    from students.export.teacher import export_teacher
    from students.train import train_student

__all__ = [
    "build_student",
    "calibrate_router",
    "export_router",
    "export_static_student",
    "export_student",
    "export_teacher",
    "train_student",
]
_HOMES = {
    "build_student": "build",
    "calibrate_router": "calibrate",
    "export_router": "asymmetric",
    "export_static_student": "export.static",
    "export_student": "export.stage",
    "export_teacher": "export.teacher",
    "train_student": "train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
