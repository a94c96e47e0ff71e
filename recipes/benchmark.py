"""Measure every model of the run and write the report: `accelerate launch -m recipes.benchmark recipe.yaml [key=value …]`."""

import sys

from recipes._launch import stage_main
from recipes._stages import benchmark


def main(argv: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    return stage_main(benchmark, "benchmark", argv)


if __name__ == "__main__":
    sys.exit(main())
