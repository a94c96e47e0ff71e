"""Export the student to OpenVINO, as is and int8: `accelerate launch -m recipes.export recipe.yaml [key=value …]`."""

import sys

from recipes._launch import stage_main


def main(argv: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    from students import export_student

    return stage_main(export_student, "export", argv)


if __name__ == "__main__":
    sys.exit(main())
