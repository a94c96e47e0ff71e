"""Export the student to OpenVINO or ONNX: `accelerate launch -m recipes.export recipe.yaml [key=value …]`."""

import sys

from recipes._launch import stage_main
from recipes._stages import export


def main(argv: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    return stage_main(export, "export", argv)


if __name__ == "__main__":
    sys.exit(main())
