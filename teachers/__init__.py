"""Large models that know: trained on labels, then asked for signals."""

from teachers.label import cache_signals
from teachers.legacy import Trainer
from teachers.train import train_teachers

__all__ = ["Trainer", "cache_signals", "train_teachers"]
