"""Students, the small models: built, trained on the teachers' signals, exported."""

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
