"""Small models that ship: built, trained on signals, exported."""

from students.export import export_student
from students.train import train_student

__all__ = ["export_student", "train_student"]
