"""Train the recipe's teachers: `accelerate launch -m recipes.train_teacher recipe.yaml [key=value …]`."""

import sys

from recipes._launch import stage_main
from recipes._stages import train_teacher


def main(argv: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    return stage_main(train_teacher, "train_teacher", argv)


if __name__ == "__main__":
    sys.exit(main())
