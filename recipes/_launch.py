"""What every entry point does around its stage: arguments, messages, the lock, the exit code.

0 done · 1 a gate or a job failed · 2 bad input · 130 interrupted (start it again, it goes on)
"""

import errno
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from distill.errors import BadInput, MatchDistillError

if TYPE_CHECKING:
    from distill.run import Run

    LoadStages = Callable[[], Sequence[Callable[[Run], object]]]

__all__ = ["guarded", "join_processes", "launch", "set_up_messages", "stage_main"]

log = logging.getLogger("distill")
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
_TORCH_CANNOT_WRITE = ("PytorchStreamWriter failed writing", "file write failed")  # all it says of a full disk
_OURS = ("distill", "teachers", "students", "recipes")


def set_up_messages() -> None:
    """Send our messages, and errors of others, to stderr; on the first process of a launch only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    for name in ("datasets", "huggingface_hub", "httpx"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they log what they raise, and we report what they raise


def guarded(work: Callable[[], None]) -> int:
    """Run and return the exit code; what went wrong is one message, not a traceback."""
    try:
        work()
    except MatchDistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        reason = _disk_trouble(error)
        if reason is None:
            raise
        print(f"error: {reason}; nothing finished was lost, make room and start again", file=sys.stderr)
        return 1
    return 0


def _disk_trouble(error: Exception) -> str | None:
    """Say what is wrong with the disk, if that is it: not every library raises an OSError for it."""
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return f"{error.strerror}: {error.filename or 'the disk'}"
    said = str(error)
    full = os.strerror(errno.ENOSPC)
    return f"{full}: the disk" if full in said or any(words in said for words in _TORCH_CANNOT_WRITE) else None


def launch(recipe_path: str, overrides: Sequence[str], load_stages: "LoadStages") -> None:
    """Validate the recipe, lock its folder and run stages one after the other.

    :param load_stages: imports and returns them: a wrong recipe is refused before anything heavy is imported
    """
    from distill.recipe import load_recipe

    recipe = load_recipe(recipe_path, overrides)
    join_processes()
    from distill.run import Run

    run = Run(recipe)
    is_first = os.environ.get("RANK", "0") == "0"
    with run.lock() if is_first else nullcontext():
        for stage in load_stages():
            stage(run)
        if is_first:
            run.write_recipe()


def join_processes() -> None:
    """Find the other processes of this launch, if any."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # Accelerator reads this flag, a bare PartialState does not: two CPU processes would each take themselves for the only one
    PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def stage_main(load_stages: "LoadStages", name: str, argv: Sequence[str] | None = None) -> int:
    """Be the `main` of `accelerate launch -m recipes.<name> recipe.yaml key=value …`."""
    arguments = list(sys.argv[1:] if argv is None else argv)

    def work() -> None:
        if not arguments or arguments[0] in ("-h", "--help"):
            raise BadInput(f"usage: accelerate launch -m recipes.{name} recipe.yaml [key=value …]")
        launch(arguments[0], arguments[1:], load_stages)

    set_up_messages()
    return guarded(work)
