"""The machinery: recipe schema, data, losses, signals, the training loop, metrics, artefacts, benchmark and report."""

__version__ = "0.1.0"
