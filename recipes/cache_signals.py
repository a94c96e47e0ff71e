"""Cache the teachers' signals: `accelerate launch -m recipes.cache_signals recipe.yaml [key=value …]`."""

import sys

from recipes._launch import stage_main
from recipes._stages import cache_signals


def main(argv: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    return stage_main(cache_signals, "cache_signals", argv)


if __name__ == "__main__":
    sys.exit(main())
