"""Build the student before training: `accelerate launch -m recipes.build_student recipe.yaml [key=value …]`."""

import sys

from recipes._launch import stage_main
from recipes._stages import build_student


def main(argv: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    return stage_main(build_student, "build_student", argv)


if __name__ == "__main__":
    sys.exit(main())
