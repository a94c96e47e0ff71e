"""A tiny run that is killed at random moments of each of its stages, and what it is compared with: an undisturbed one.

The processes are forked by a server that has imported all that a run imports, so that one begins within a second. Each is
the real command with its own memory, files and children, and is killed alone, as the memory killer does it.
"""

import fcntl
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from distill.errors import BadInput
from distill.files.artefact import CALIBRATION, read_card, revision, write_json
from distill.recipe.schema import Recipe
from distill.run import Run
from distill.verify import verify
from tests.conftest import ROOT, SHORT_BENCHMARK, merge, pairs_file, tiny_recipe

CHANGES = {
    "data": {"validation_share": 0.25},  # enough for a calibration
    "training": {
        "epochs": 10,
        "dropout": 0.1,
        "checkpoint_seconds": 0.2,
        "evaluations_per_epoch": 1,
        "global_batch": 16,
    },
    "student": {"control": True},
    "signals": {"shard_size": 1},
    "export": {"precisions": ["fp32", "int8"], "calibration_pairs": 20, "parity_pairs": 20, "min_rank_agreement": 0.5},
    "benchmark": {**SHORT_BENCHMARK, "teacher_exports": ["fp32"]},
}


@dataclass(frozen=True)
class Stage:
    """What a stage makes, the words that say that it begins and that it is done, its share of the kills, whether it goes on."""

    makes: tuple[str, ...]
    begins: tuple[str, ...]
    ends: str
    share: float
    goes_on: bool = True


STAGES = {
    "train_teacher": Stage(("teachers",), ("teacher cross: tokenizing",), "teacher cross: /", 0.25),
    "cache_signals": Stage(("signals",), ("teacher cross: /", "teachers/cross is finished"), "signals of cross: ", 0.2),
    "train_student": Stage(
        ("built", "student", "control"),
        ("student: tokenizing", "student is finished"),
        "student: platt calibration",
        0.3,
    ),
    "export": Stage(
        ("exports", "teacher_exports"),
        ("/control, validation ", "/control is finished"),
        "teacher_exports/cross/openvino-fp32: ",
        0.15,
        goes_on=False,
    ),
    "benchmark": Stage(
        ("report", "baselines"),
        ("teacher_exports/cross/openvino-fp32: ", "teacher_exports/cross/openvino-fp32 is finished"),
        "report: ",
        0.1,
        goes_on=False,
    ),
}
"""What takes longer by kill has a smaller share: most of a report's time goes into the processes that measure its rows."""

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.slow.killing", "tests.slow.imported"])


def _command(argv, output):
    """Be a command, in a process that the server has forked."""
    from recipes.cli import main

    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    raise SystemExit(main(argv))


class Command:
    """`distill run` in a process of its own, with what it has printed so far and when."""

    def __init__(self, recipe):
        output, given = _SERVER.Pipe(duplex=False)
        self.process = _SERVER.Process(target=_command, args=(["run", str(recipe)], given))
        self.began = time.monotonic()
        self.process.start()
        given.close()
        self.printed = []
        self.reader = threading.Thread(target=self._read, args=(output,), daemon=True)
        self.reader.start()

    def _read(self, output):
        with output, os.fdopen(os.dup(output.fileno()), encoding="utf-8") as lines:
            for line in lines:
                self.printed.append((time.monotonic(), line))

    @property
    def text(self):
        """All that was printed."""
        return "".join(line for _, line in self.printed)

    def when(self, *texts):
        """When a line with one of these texts was printed first; None if none was."""
        return next((at for at, line in self.printed if any(text in line for text in texts)), None)

    def wait_for(self, *texts):
        """Wait until a line holds one of these texts, or the run has ended."""
        while self.process.is_alive() and self.when(*texts) is None:
            time.sleep(0.01)

    def finish(self):
        """Wait for its end, which is to be a good one."""
        self.reader.join(timeout=1800)
        self.process.join(timeout=60)  # its output has ended, and it may be about to
        assert self.process.exitcode == 0, self.text[-3000:]
        assert "Traceback" not in self.text, self.text[-3000:]

    def kill(self):
        """Kill the process alone; return which of the processes that it started outlive it."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        self.process.kill()
        self.process.join()
        self.reader.join(timeout=30)
        _, alive = psutil.wait_procs(children, timeout=120)  # one that is importing notices after that
        return alive


def run_of(folder):
    """The run below a folder that `write_recipe_of` has written to."""
    return Run(Recipe.model_validate(yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))))


def write_recipe_of(folder, pairs):
    """Write the recipe of a run below a folder, and return its path."""
    path = folder / "recipe.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    recipe = tiny_recipe(folder / "run", **merge(CHANGES, {"data": {"train": str(pairs)}}))
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def _models(*folders):
    """Contents of model folders, what their cards say of them, their metrics and calibrations."""
    found = {}
    for folder in folders:
        card, calibration = read_card(folder), folder / CALIBRATION
        fitted = calibration.read_text(encoding="utf-8") if calibration.exists() else None
        found[folder.name] = (revision(folder), card.revision, dict(card.metrics), fitted)
    return found


def _report(run):
    """The metrics of a report; times and sizes in memory are others each time."""
    report = json.loads((run.report / "benchmark.json").read_text(encoding="utf-8"))
    return {
        "rows": {row["name"]: row["metrics"] for row in report["rows"]},
        "retention": {row["name"]: row.get("retention") for row in report["rows"]},
        "comparisons": report["comparisons"],
    }


MADE = {
    "train_teacher": lambda run: _models(run.teacher("cross")),
    # the names of shards hold the checksums of their bytes
    "cache_signals": lambda run: sorted(path.name for path in run.signals("cross").glob("*/*.arrow")),
    "train_student": lambda run: _models(run.built, run.student, run.control),
    "export": lambda run: {
        "student": _models(*(run.export(precision) for precision in ("fp32", "int8"))),
        "teacher": _models(run.teacher_export("cross", "fp32")),
    },
    "benchmark": _report,
}
"""What each stage has made and is to make again, bit by bit."""


def leftovers(folder):
    """What a killed process had under a temporary name."""
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp") or ".tmp." in path.name]


def broken(folder):
    """What `distill verify` says of finished folders that are not whole; nothing where nothing is finished yet."""
    try:
        return [f"{found.place}: {found.line}" for found in verify(folder) if found.state == "broken"]
    except BadInput:  # no folder, or none that is finished
        return []


def _sources():
    """A hash of the code, of this module and of the recipe: what an earlier version made is compared with nothing."""
    digest = hashlib.sha256(json.dumps(CHANGES, sort_keys=True).encode() + Path(__file__).read_bytes())
    for room in ("distill", "teachers", "students", "recipes"):
        for path in sorted((ROOT / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Campaign:
    """Kills spread over all stages of one run, noted in a file, so that a campaign that was killed goes on.

    Every row of `rows` is one start of the command: killed in a stage; or past its end, where what the stage has made is
    compared and thrown away, so that the next kill finds the stage anew; or the last one, which finishes the run.
    """

    def __init__(self, folder, n_kills, say=lambda line: None):
        self.folder, self.n_kills, self.say = folder.resolve(), n_kills, say
        self.notes = self.folder / "kills.json"
        of = _sources()
        known = json.loads(self.notes.read_text(encoding="utf-8")) if self.notes.is_file() else {}
        if known.get("of") != of:
            if known:
                say("the code is another than that of the earlier kills: all begins anew")
            shutil.rmtree(self.folder, ignore_errors=True)
            known = {"of": of, "seconds": {}, "at": None, "rows": []}
        self.known = known
        self.calm, self.disturbed = self.folder / "calm", self.folder / "disturbed"

    @property
    def rows(self):
        """Every start of the command so far."""
        return self.known["rows"]

    @property
    def seconds(self):
        """How long each stage of the undisturbed run took."""
        return self.known["seconds"]

    def kills(self, name):
        """How many kills a stage has had."""
        return sum(row["stage"] == name and row["killed"] for row in self.rows)

    def share(self, name):
        """How many kills a stage is to have, so that those of all are `n_kills`."""
        place = list(STAGES).index(name)
        bounds = [sum(stage.share for stage in list(STAGES.values())[:n]) for n in (place, place + 1)]
        return round(self.n_kills * bounds[1]) - round(self.n_kills * bounds[0])

    def run(self):
        """Kill and start again until every stage has had its share, then finish the run and compare it."""
        self._prepare()
        while (name := next((name for name in STAGES if self.kills(name) < self.share(name)), None)) is not None:
            self._turn_to(name)
            self._start(name)
        if not self.rows or self.rows[-1]["stage"] != "finish":
            self._finish()

    def _note(self, **row):
        if row:
            self.rows.append(row)
        write_json(self.notes, self.known)

    def _prepare(self):
        """Make the undisturbed run, once, and the recipe of the other; wait for a command that outlived its campaign."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pairs = self.folder / "pairs.tsv"
        if not pairs.exists():
            shutil.copyfile(pairs_file(), pairs)
        self.recipe = write_recipe_of(self.disturbed, pairs)
        _wait_until_free(self.disturbed / "run")
        if self.seconds:
            return
        shutil.rmtree(self.calm, ignore_errors=True)
        self.say("an undisturbed run")
        command = Command(write_recipe_of(self.calm, pairs))
        command.finish()
        for name, stage in STAGES.items():
            self.seconds[name] = round(command.when(stage.ends) - command.when(*stage.begins), 2)
        self.say(", ".join(f"{name} {seconds} s" for name, seconds in self.seconds.items()))
        self._note()

    def _turn_to(self, name):
        """Put the run where a stage has not begun, unless it is the one that the last kill was in."""
        if self.known["at"] != name:
            self._undo(name)
            self.known["at"] = name
            self._note()

    def _undo(self, name):
        """Take away what a stage and the later ones have made: first out of the way, so that nothing stands there in part."""
        for later in list(STAGES)[list(STAGES).index(name) :]:
            for part in STAGES[later].makes:
                self._throw_away(self.disturbed / "run" / part)

    def _throw_away(self, folder):
        if folder.exists():
            aside = self.folder / "thrown" / folder.name
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(exist_ok=True)
            folder.rename(aside)
            shutil.rmtree(aside)

    def _start(self, name):
        """Start the command and kill it at a random moment of a stage."""
        stage, rng = STAGES[name], random.Random(f"{name} {len(self.rows)}")
        # where it goes on, some kills come to its end by and by; where it begins anew, each falls anywhere
        after = rng.uniform(0, self.seconds[name] * (0.4 if stage.goes_on else 1))
        command = Command(self.recipe)
        try:
            command.wait_for(*stage.begins)
            command.process.join(timeout=after)
        finally:
            outliving = command.kill()
        ended, code = command.when(stage.ends) is not None, command.process.exitcode
        assert code in (0, -9) and (ended or code), command.text[-3000:]
        assert "Traceback" not in command.text, command.text[-3000:]
        row = {"stage": name, "killed": not ended, "after": round(after, 2), "outliving": [str(p) for p in outliving]}
        row |= {"broken": broken(self.disturbed / "run"), "last": command.printed[-1][1].strip()}
        if ended:
            row["same"] = self._same(name)
            self._undo(name)
            self._throw_away(self.disturbed / "run" / ".work")
            (self.disturbed / "run" / ".work").mkdir()
        self._note(**row)
        self.say(self._line(row))

    def _line(self, row):
        n = sum(row["killed"] for row in self.rows)
        if row["killed"]:
            return f"{n}/{self.n_kills}  {row['stage']}, killed after {row['after']} s: {row['last'][:90]}"
        return f"{n}/{self.n_kills}  {row['stage']} came to its end: {'the same bits' if row['same'] else 'OTHER BITS'}"

    def _same(self, name):
        """Whether a stage has made what that of the undisturbed run has."""
        return MADE[name](run_of(self.disturbed)) == MADE[name](run_of(self.calm))

    def _finish(self):
        """Let the command come to its end undisturbed, and compare all that the run has made."""
        command = Command(self.recipe)
        try:
            command.finish()
        finally:
            command.kill()
        same = {name: self._same(name) for name in STAGES}
        left = [str(path) for path in leftovers(self.disturbed / "run")]
        self._note(
            stage="finish", killed=False, same=same, left=left, broken=broken(self.disturbed / "run"), outliving=[]
        )
        self.say(f"finished: {'the same bits' if all(same.values()) else 'OTHER BITS'}")

    def faults(self):
        """All that is not as it should be, in words."""
        said = [f"{row['stage']}: {line}" for row in self.rows for line in (*row["broken"], *row["outliving"])]
        said += [f"{row['stage']}: other bits" for row in self.rows if row.get("same") is False]
        for row in self.rows:
            if row["stage"] == "finish":
                said += [f"{name}: other bits at the end" for name, same in row["same"].items() if not same]
                said += [f"left over: {path}" for path in row["left"]]
        return said

    def table(self):
        """Lines of a table: what each stage has gone through."""
        lines = ["| stage | kills | continuations | ends compared | same bits |", "|---|---:|---:|---:|---|"]
        last = [row for row in self.rows if row["stage"] == "finish"][-1:]
        totals = [0, 0, 0]
        for name in STAGES:
            compared = [row["same"] for row in self.rows if row["stage"] == name and not row["killed"]]
            compared += [row["same"][name] for row in last]
            counts = (self.kills(name), self._continuations(name), len(compared))
            totals = [total + count for total, count in zip(totals, counts, strict=True)]
            same = "yes" if compared and all(compared) else "no" if compared else "not compared yet"
            lines.append(f"| `{name}` | {' | '.join(map(str, counts))} | {same} |")
        other = any("other bits" in fault for fault in self.faults())
        every = "no" if other else "yes" if last else "not finished yet"
        return [*lines, f"| all | {' | '.join(map(str, totals))} | {every} |"]

    def _continuations(self, name):
        """How many starts came after a kill in a stage and went on from what it had left."""
        pairs = zip(self.rows, self.rows[1:], strict=False)
        return sum(before["stage"] == name and before["killed"] for before, _ in pairs)


def _wait_until_free(folder):
    """Wait for a command of an earlier campaign that was killed without it."""
    path = Path(folder) / ".work" / "lock"
    if path.exists():
        with path.open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
