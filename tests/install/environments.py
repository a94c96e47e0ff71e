"""Clean virtual environments, and commands in them that see nothing of this checkout."""

import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

from tests.conftest import ROOT

HIDDEN = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")


class Environment:
    """A virtual environment made anew, with what it took to install into it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seconds = folder, 0.0
        venv.create(folder, with_pip=True, clear=True)
        self.bare_mb = size_mb(folder)

    def install(self, *arguments: str) -> None:
        """Call pip, which heeds its own PIP_* variables."""
        started = time.perf_counter()
        self.call("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments, cwd=ROOT)
        self.seconds += time.perf_counter() - started

    def call(self, program: str, *arguments: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment; stop where it ends with another code than expected."""
        environment = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        path = self.folder / "bin" / program
        done = subprocess.run(
            [str(path), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != code:
            shown = " ".join([program, *arguments])
            sys.exit(f"{shown}\nended with {done.returncode}, expected {code}:\n{done.stdout}\n{done.stderr}")
        return done

    def describe(self) -> str:
        """Say how much was installed, in how many seconds."""
        whole = size_mb(self.folder)
        return (
            f"{whole - self.bare_mb:.0f} MB installed (du: {whole:.0f} MB with Python's own pip), {self.seconds:.0f} s"
        )


def size_mb(folder: Path) -> float:
    """Return the space on disk, as du counts it."""
    return sum(path.lstat().st_blocks for path in folder.rglob("*") if not path.is_symlink()) * 512 / 2**20


def copy_of_the_sources(target: Path) -> Path:
    """Copy what git has, as it is now: a build in the checkout would leave its folders there, and could use earlier ones."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / name)
    return target
