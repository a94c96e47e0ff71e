"""Train the student and its control: `accelerate launch -m recipes.train_student recipe.yaml [key=value …]`."""

import sys

from recipes._launch import stage_main
from recipes._stages import train_student


def main(argv: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    return stage_main(train_student, "train_student", argv)


if __name__ == "__main__":
    sys.exit(main())
