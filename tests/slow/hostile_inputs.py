"""Try hostile inputs on the real commands: python -m tests.slow.hostile_inputs [WORD]... [--seconds N] [--fresh]

Each case goes through the real command, most of them in-process. Printed are the exit code, the number of lines, what was
left over, and the seconds; then a summary. Expected of each: an exit code of 2 (or 1 where a job fails), no traceback,
every file that was there unchanged, no file but the named output, no request to a host that was not named, less than 20 s.

A run goes on where the last one stopped: what was tried stands in build/hostile.jsonl (a changed case is tried again), and
--seconds stops before the next case once so many have passed. The summary is over all cases that were tried, in whatever
run; the exit code is 0 where all were and none went wrong, 3 where some are left, 1 where one went wrong.
"""

import argparse
import hashlib
import inspect
import io
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from contextlib import redirect_stderr
from pathlib import Path

from tests.conftest import ROOT
from tests.slow.commands import as_process, finished_run, in_process
from tests.slow.hostile_cases import CASES, PORT

LIMIT = 20
RESULTS = ROOT / "build" / "hostile.jsonl"
REQUESTS = []
PROCESSES = {
    "score onto an input",
    "scorer.json: remote",
    "recipe: layers as a bomb",
    "layout onto the model",
    "recipe path: a pipe",
}


def start_server():
    """A host that nobody named: it notes who asks, and answers without end."""
    server = socket.create_server(("127.0.0.1", 0))
    PORT[0] = server.getsockname()[1]

    def serve(connection):
        with connection:
            REQUESTS.append(connection.recv(65536))
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
                for _ in range(2048):  # 2 GB
                    connection.sendall(b" " * (1 << 20))
            except OSError:
                pass

    def accept():
        while True:
            threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def state(folder):
    """Every path below a folder with what it is."""
    found = {}
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(root) / name
            if path.is_symlink():
                found[path] = os.readlink(path)
            elif path.is_file():
                found[path] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[path] = "folder" if path.is_dir() else "special"
    return found


def size(paths):
    """Bytes of the files among some paths."""
    return sum(path.stat().st_size for path in paths if path.is_file() and not path.is_symlink())


def run_case(number, title, prepare, codes, root, finished):
    """Return the row of a case, with what is wrong with it."""
    folder = root / f"{number:03d}"
    folder.mkdir()
    argv = prepare(folder, finished)
    before, n_requests, home = state(folder), len(REQUESTS), state(finished.folder) if number % 25 == 0 else None
    start = time.perf_counter()
    code, text = (as_process if title in PROCESSES else in_process)(argv)
    seconds = time.perf_counter() - start
    after = state(folder)
    ours = folder / "run"  # a run goes on in its own folder
    lost = [path for path, content in before.items() if after.get(path) != content and not path.is_relative_to(ours)]
    new = [path for path in after if path not in before and not path.is_relative_to(ours)]
    elsewhere = [path for place in ("home", "tmp") for path in state(root / place)]
    asked = len(REQUESTS) - n_requests if "--allow-host" not in argv else 0
    lines = [line for line in text.strip().splitlines() if line.strip()]
    checks = {
        "traceback": code == -1 or "Traceback" in text,
        f"exit code {code}": code not in codes,
        "no message": not lines,
        f"files lost {[path.name for path in lost][:3]}": bool(lost),
        f"leftovers {[path.name for path in (*new, *elsewhere)][:3]}": bool(new or elsewhere),
        "request": asked > 0,
        "slow": seconds > LIMIT - (0 if title in PROCESSES else 5),  # a process of its own imports for 5 s
        "inputs changed": home is not None and home != state(finished.folder),
    }
    row = {
        "rc": code,
        "lines": len(lines),
        "lost": len(lost) + checks["inputs changed"],
        "left": len(new) + len(elsewhere),
        "bytes": size([*new, *elsewhere]),
        "requests": asked,
        "seconds": round(seconds, 2),
        "wrong": [what for what, is_so in checks.items() if is_so],
        "text": text[-2000:],
    }
    for path in (folder, root / "home", root / "tmp"):
        shutil.rmtree(path, ignore_errors=True)
    make_places(root)
    return row


def make_places(root):
    """Make the folders that stand for the user's home and for temporary files."""
    for place in ("home", "tmp"):
        (root / place).mkdir(exist_ok=True)


def identity(number):
    """A case's number, title and code: a changed one is tried again."""
    title, prepare, _, codes = CASES[number]
    cells = [repr(cell.cell_contents)[:500] for cell in prepare.__closure__ or () if not callable(cell.cell_contents)]
    code = json.dumps([inspect.getsource(prepare), repr(prepare.__defaults__)[:500], cells, codes], default=str)
    return f"{number} {title} {hashlib.sha256(code.encode()).hexdigest()[:12]}"


def tried():
    """What earlier runs found, by identity."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.is_file() else []
    rows = [json.loads(line) for line in lines]
    return {row["case"]: row for row in rows}


def try_cases(numbers, seconds):
    """Try cases until the time is over, and note each."""
    os.environ |= {"AWS_SECRET_ACCESS_KEY": "a secret of the user", "OPENAI_API_KEY": "a-key-of-the-user"}
    start_server()
    RESULTS.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hostile-") as temporary, RESULTS.open("a", encoding="utf-8") as results:
        root, end = Path(temporary), time.monotonic() + seconds
        with redirect_stderr(io.StringIO()):
            finished = finished_run(root)
        make_places(root)
        os.environ |= {"HOME": str(root / "home"), "TMPDIR": str(root / "tmp")}
        tempfile.tempdir = str(root / "tmp")
        os.chdir(root)  # short names of sockets, and nothing is left in the checkout
        print("| case | rc | lines | left over | s |\n|---|---|---|---|---|")
        for number in numbers:
            if time.monotonic() > end:
                break
            title, prepare, _, codes = CASES[number]
            row = {"case": identity(number)} | run_case(number, title, prepare, codes, root, finished)
            strange = [path.name for path in root.iterdir() if path.name not in ("finished", "home", "tmp")]
            if strange:
                row["wrong"].append(f"strange files {strange[:3]}")
                row["bytes"] += size([root / name for name in strange])
            results.write(json.dumps(row, ensure_ascii=False) + "\n")
            results.flush()
            mark = f" **{', '.join(row['wrong'])}**" if row["wrong"] else ""
            print(
                f"| {title}{mark} | {row['rc']} | {row['lines']} | {row['left']} | {row['seconds']:.1f} |", flush=True
            )
            if row["wrong"]:
                print("\n".join(row["text"].strip().splitlines()[-12:]), file=sys.stderr, flush=True)
        os.chdir(ROOT)


def summary(rows, n_cases):
    """Lines of a table over all cases that were tried."""

    def n(what):
        return sum(any(what in fault for fault in row["wrong"]) for row in rows)

    slowest = max(rows, key=lambda row: row["seconds"])
    values = {
        "cases tried": f"{len(rows)} of {n_cases}",
        "tracebacks": n("traceback"),
        "files lost": sum(row["lost"] for row in rows),
        "files left over": sum(row["left"] for row in rows),
        "bytes outside the output": sum(row["bytes"] for row in rows),
        "requests to hosts that were not named": sum(row["requests"] for row in rows),
        "another exit code": n("exit code"),
        "without a message": n("no message"),
        f"slower than {LIMIT} s": n("slow"),
        "slowest": f"{slowest['seconds']:.1f} s ({slowest['case'].split(' ', 1)[1].rpartition(' ')[0]})",
        "median lines of a message": sorted(row["lines"] for row in rows)[len(rows) // 2],
        "went wrong": sum(bool(row["wrong"]) for row in rows),
    }
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in values.items())]


def main(argv=None):
    """Try what is left, print the summary, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="of the titles of the cases to try; default: all")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop before the next case after so many")
    parser.add_argument("--fresh", action="store_true", help="try all again")
    asked = parser.parse_args(argv)
    if asked.fresh:
        RESULTS.unlink(missing_ok=True)
    chosen = [i for i, case in enumerate(CASES) if not asked.words or any(word in case[0] for word in asked.words)]
    earlier = tried()
    # what went wrong is tried again: it may be mended
    left = [i for i in chosen if earlier.get(identity(i), {"wrong": True})["wrong"]]
    if left:
        try_cases(left, asked.seconds)
    known = tried()
    rows = [known[identity(i)] for i in chosen if identity(i) in known]
    print("\n" + "\n".join(summary(rows, len(chosen))))
    if any(row["wrong"] for row in rows):
        return 1
    return 0 if len(rows) == len(chosen) else 3


if __name__ == "__main__":
    sys.exit(main())
