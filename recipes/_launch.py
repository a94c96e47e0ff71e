"""What every entry point does around its stage: arguments, messages, the lock, the exit code.

0 done · 1 a gate or a job failed · 2 bad input · 130 interrupted, 143 ended by SIGTERM (start it again)

`accelerate launch` makes 1 of any of them but 0, and prints its own traceback. Of several processes the first one prints
what went wrong; all of them leave it in the file that the launcher asks for, so that its summary names the reason.
"""

import errno
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import BadInput, MatchDistillError, missing_package
from distill.machine.termination import ended_in_order
from distill.wording import printable

if TYPE_CHECKING:
    from distill.run import Run

    LoadStages = Callable[[], Sequence[Callable[[Run], object]]]

__all__ = ["guarded", "join_processes", "launch", "set_up_messages", "stage_main"]

log = logging.getLogger("distill")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# a path that cannot be: too long, a file taken for a folder or the other way round, links in a circle
_WRONG_PATHS = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
# all that torch and OpenVINO say of a full disk
_CANNOT_WRITE = ("PytorchStreamWriter failed writing", "file write failed", "iostream error")
_OURS = ("distill", "teachers", "students", "recipes")


def set_up_messages() -> None:
    """Send our messages, and errors of others, to stderr; on the first process of a launch only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(_Once())
    level = logging.INFO if _is_first() else logging.ERROR
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    for name in ("datasets", "huggingface_hub", "httpx", "httpx2", "openai"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they log what they raise, and we report what they raise


class _Once(logging.Filter):
    """Lets each message through once: stages that train, score or open the same thing have the same to say of it."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_new = message not in self._said
        self._said.add(message)
        return is_new


def guarded(work: Callable[[], None]) -> int:
    """Run and return the exit code; what went wrong is one message, not a traceback."""
    _hear_threads()
    try:
        # one of several processes may wait for the others outside of Python, where no handler runs: SIGTERM ends it as it is
        with ended_in_order() if os.environ.get("WORLD_SIZE", "1") == "1" else nullcontext():
            work()
    except MatchDistillError as error:
        _say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; nothing finished was lost: start the same command again", file=sys.stderr)
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
    """Report a full disk once: TensorBoard's thread stays silent, since its error is raised again by the next write."""
    report = threading.excepthook

    def hear(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is None or _disk_trouble(failed.exc_value) is None:
            report(failed)

    threading.excepthook = hear


def _say(message: str) -> None:
    """Print what went wrong, once: of several processes most have the same to say, and the launcher sums them up.

    What a message shows of a file or a path stays in its line, and no terminal obeys it.
    """
    message = "\n".join(map(printable, message.split("\n")))
    if not _tell_launcher(message) or _is_first():
        print(message, file=sys.stderr)


def _tell_launcher(message: str) -> bool:
    """Leave a message for the summary of torch's launcher, in the form that it reads; tell whether there is one."""
    asked_for = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not asked_for:
        return False
    said = {"message": {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}}
    temporary = Path(f"{asked_for}.{os.getpid()}")
    with suppress(OSError):  # whatever went wrong is worth more than this file
        temporary.write_text(json.dumps(said), encoding="utf-8")
        temporary.replace(asked_for)  # the launcher stops at half a file
        return True
    return False


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _disk_trouble(error: BaseException) -> str | None:
    """Say what is wrong with the disk and what to do, if that is it: not every library raises an OSError for it."""
    room, full = "; nothing finished was lost, make room", os.strerror(errno.ENOSPC)
    if isinstance(error, OSError) and error.errno in (*_FULL, *_FORBIDDEN):
        advice = room if error.errno in _FULL else "; nothing finished was lost, allow it or name another place"
        return f"{os.strerror(error.errno)}: {error.filename or 'the disk'}{advice}"  # pyarrow has a text of its own
    said = str(error)
    if full in said or any(words in said for words in _CANNOT_WRITE):
        return f"{full}: the disk{room}"
    earlier = (
        error.__cause__ or error.__context__
    )  # a file that cannot be closed hides the one that could not be written
    return None if earlier is None else _disk_trouble(earlier)


def launch(recipe_path: str, overrides: Sequence[str], load_stages: "LoadStages") -> None:
    """Validate the recipe, lock its folder, read its pairs and run stages one after the other.

    :param load_stages: imports and returns them: a wrong recipe and wrong pairs are refused before anything heavy is imported
    """
    from distill.recipe.reading import load_recipe
    from distill.run import Run

    run = Run(load_recipe(recipe_path, overrides))
    with run.lock() if _is_first() else nullcontext():
        run.read_data()
        join_processes()
        for stage in load_stages():
            stage(run)
        if _is_first():
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
