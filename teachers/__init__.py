"""Teachers, the large models: trained on labels, then run once to compute the signals for students."""

from teachers.label import cache_signals
from teachers.legacy import Trainer
from teachers.train import train_teachers

__all__ = ["Trainer", "cache_signals", "train_teachers"]
