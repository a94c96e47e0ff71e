"""The common part of every entry point: arguments, messages, the lock, the exit code.

0 done · 1 a gate or a job failed · 2 bad input · 130 interrupted, 143 ended by SIGTERM (start it again)

`accelerate launch` turns every code except 0 into 1, and prints its own traceback. If there are several processes, the
first one prints the error. All of them write it to the launcher's error file, so that its summary names the reason.
"""

import errno
import json
import logging
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import (
    FULL_DISK,
    BadInput,
    MatchDistillError,
    causes,
    full_disk_in,
    missing_package,
    naming_full_disk,
)
from distill.machine.termination import ended_in_order
from distill.progress import say_loading
from distill.wording import printable

if TYPE_CHECKING:
    from distill.run import Run

    LoadStages = Callable[[], Sequence[Callable[[Run], object]]]

__all__ = ["guarded", "join_processes", "launch", "set_up_messages", "stage_main"]

log = logging.getLogger("distill")
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# an impossible path: too long, a file used as a folder or the reverse, links in a circle
_WRONG_PATHS = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
_OURS = ("distill", "teachers", "students", "recipes")


def set_up_messages() -> None:
    """Send this toolkit's messages, and errors of other libraries, to stderr; only on the first process of a launch."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(_Once())
    level = logging.INFO if _is_first() else logging.ERROR
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    for name in ("datasets", "huggingface_hub", "httpx", "httpx2", "openai"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they also raise what they log


class _Once(logging.Filter):
    """Passes each message below a warning once, because stages that use the same data or model log the same messages."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_new = message not in self._said
        self._said.add(message)
        return is_new or record.levelno > logging.INFO


def guarded(work: Callable[[], None]) -> int:
    """Run and return the exit code; an error is printed as one message, without a traceback."""
    _hear_threads()
    try:
        # a process may wait for others outside Python, where no handler runs: there SIGTERM's default action ends it
        with ended_in_order() if os.environ.get("WORLD_SIZE", "1") == "1" else nullcontext():
            work()
    except MatchDistillError as error:
        _say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what was stored stays: start the same command again", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _WRONG_PATHS:
            _say(f"error: {str(error.filename)[:200]}: {os.strerror(error.errno)}; name another path")
            return BadInput.exit_code
        if isinstance(error, MemoryError):
            _say("error: the memory of this machine does not suffice; make the model, the batch or the lengths smaller")
            return 1
        missing = missing_package(error) if isinstance(error, ImportError) else None
        if missing is not None:
            _say(f"error: {missing}")
            return missing.exit_code
        reason = _disk_trouble(error)
        if reason is None:
            _tell_launcher(traceback.format_exc())
            raise
        _say(f"error: {reason} and start again")
        return 1
    return 0


@cache
def _hear_threads() -> None:
    """Report a full disk once: the error in TensorBoard's thread is ignored, since the next write raises it again."""
    report = threading.excepthook

    def hear(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is None or _disk_trouble(failed.exc_value) is None:
            report(failed)

    threading.excepthook = hear


def _say(message: str) -> None:
    """Print an error once, since several processes mostly have the same error, and the launcher sums them up.

    Control characters from file contents or paths are escaped, so that the message stays in its line.
    """
    message = "\n".join(map(printable, message.split("\n")))
    if not _tell_launcher(message) or _is_first():
        print(message, file=sys.stderr)


def _tell_launcher(message: str) -> bool:
    """Write a message for the summary of torch's launcher, in its format; return whether there is a launcher."""
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not error_file:
        return False
    error_record = {"message": {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}}
    temporary = Path(f"{error_file}.{os.getpid()}")
    with suppress(OSError):  # the original error is more important than this file
        temporary.write_text(json.dumps(error_record), encoding="utf-8")
        temporary.replace(error_file)  # the launcher fails on a partial file
        return True
    return False


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _disk_trouble(error: BaseException) -> str | None:
    """Return a message with advice for an error of the disk; None for any other error."""
    if (full := full_disk_in(error)) is not None:
        number = full.errno if isinstance(full, OSError) and full.errno in FULL_DISK else errno.ENOSPC
        return f"{os.strerror(number)}: {_place(full)}{_free(full)}; nothing finished was lost, make room"
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno in _FORBIDDEN:
            return f"{os.strerror(cause.errno)}: {_place(cause)}; nothing finished was lost, allow it or name another place"
    return None


def _place(error: BaseException) -> str:
    return str(getattr(error, "filename", None) or "the disk")


def _free(error: BaseException) -> str:
    """Return in words how much room is left where an error happened; nothing if it names no place."""
    place = getattr(error, "filename", None)
    for folder in () if place is None else Path(str(place)).absolute().parents:
        with suppress(OSError):
            return f"; {shutil.disk_usage(folder).free / 1e6:,.1f} MB are free there"
    return ""


def launch(recipe_path: str, overrides: Sequence[str], load_stages: "LoadStages") -> None:
    """Validate the recipe, lock its folder, read its pairs and run the stages in order.

    :param load_stages: imports and returns the stages: a wrong recipe or wrong pairs are refused before heavy imports
    """
    from distill.recipe.reading import load_recipe
    from distill.run import Run

    run = Run(load_recipe(recipe_path, overrides))
    with run.lock() if _is_first() else nullcontext():
        run.check_files()
        run.read_data()
        join_processes()
        for stage in load_stages():
            with naming_full_disk(run.folder):
                stage(run)
            if _is_first() and not (run.folder / "recipe.json").exists():
                run.write_recipe()
        if _is_first():
            run.write_recipe()


def join_processes() -> None:
    """Find the other processes of this launch, if any."""
    say_loading()
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # Accelerator reads this flag, PartialState alone does not: each of two CPU processes would act as the only one
    PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def stage_main(load_stages: "LoadStages", name: str, argv: Sequence[str] | None = None) -> int:
    """Implement `main` for `accelerate launch -m recipes.<name> recipe.yaml key=value …`."""
    arguments = list(sys.argv[1:] if argv is None else argv)

    def work() -> None:
        if not arguments or arguments[0] in ("-h", "--help"):
            raise BadInput(f"usage: accelerate launch -m recipes.{name} recipe.yaml [key=value …]")
        launch(arguments[0], arguments[1:], load_stages)

    set_up_messages()
    return guarded(work)
