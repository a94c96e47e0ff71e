"""Teachers, the large models: trained on labels, then run once to produce the signals that students learn from."""

from teachers.label import cache_signals
from teachers.legacy import Trainer
from teachers.train import train_teachers

__all__ = ["Trainer", "cache_signals", "train_teachers"]
