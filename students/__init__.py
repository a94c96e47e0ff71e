"""Students, the small models: built, trained on the teachers' signals, exported. A stage is imported when it is asked for."""

from typing import TYPE_CHECKING

from distill._public import public

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

__getattr__ = public(
    __name__, "build", "train", "export.stage", "export.static", "export.teacher", "asymmetric", "calibrate"
)
