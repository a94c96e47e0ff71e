"""No network, one thread a test process, caches of their own; and the tiny runs that most tests are made of."""

import atexit
import gc
import json
import logging
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

# two processes share the tests of two cores, and tiny models are not faster on two threads
N_THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
_MEMORY = Path("/dev/shm")  # files of the tests lie in memory if there is room: some disks take 3 ms to remove a file
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 2 * 1024**3:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))
_CACHE = tempfile.mkdtemp(prefix="matchdistill-tests-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT"))
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
# byte code of this project and of the rewritten tests is kept: every process would compile all of it anew
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# before anything imports torch or datasets; subprocesses inherit it
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_DATASETS_CACHE=_CACHE,
    MATCHDISTILL_CACHE=os.path.join(_CACHE, "matchdistill"),
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS=str(N_THREADS),
    OMP_WAIT_POLICY="passive",
    TF_CPP_MIN_LOG_LEVEL="3",
)

import pytest  # noqa: E402
import yaml  # noqa: E402

ROOT = Path(__file__).parent.parent
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

BACKBONE = {
    "tokenizer": "wordpiece",
    "vocabulary": 500,
    "layers": 2,
    "width": 32,
    "heads": 2,
    "feed_forward": 64,
    "max_length": 96,
}
TRAINING = {
    "epochs": 1,
    "learning_rate": 2e-3,
    "global_batch": 32,
    "micro_batch": 32,
    "precision": "fp32",
    "dropout": 0.0,
    "tensorboard": False,
    "evaluations_per_epoch": 0,
}


def merge(base, changes):
    """Lay nested changes over a mapping; None in a change is a value like any other, a whole backbone replaces one."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict) and "tokenizer" not in value
        merged[key] = merge(merged[key], value) if both else value
    return merged


def pairs_file():
    """240 pairs of 60 queries, from 2 to 30 words long: the bundled ones, cut short."""
    from distill.data.bundled import generate_groups

    path = Path(_CACHE) / "pairs.tsv"
    if not path.exists():
        rng, lines = random.Random(0), ["query\tdocument\tlabel"]
        for number, group in enumerate(generate_groups(60, seed=0, n_candidates=4)):
            query = cut(f"{number} {group[0].resume}", rng)
            lines += [f"{query}\t{cut(f'{number}-{i} {pair.jd}', rng)}\t{pair.label}" for i, pair in enumerate(group)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def cut(text, rng):
    """The first words of a text, in one line."""
    return " ".join(text.split()[: rng.randint(2, 15)])


def tiny_recipe(output_dir, /, **changes):
    """A whole recipe as a mapping: short pairs, one cross-encoder teacher, a student of its first layer.

    teachers={"cross": None} takes that teacher away.
    """
    base = {
        "name": "tiny",
        "output_dir": str(output_dir),
        "data": {"train": pairs_file(), "validation_share": 0.1},
        "teachers": {"cross": {"kind": "cross_encoder", "backbone": BACKBONE, "head": [16], "max_length": 64}},
        "student": {
            "kind": "cross_encoder",
            "backbone": {"teacher": "cross"},
            "layers": [0],
            "max_length": 64,
            "control": False,
        },
        "objectives": {"score_match": {"teacher": "cross", "loss": "bce"}},
        "training": TRAINING,
        "signals": {"precision": "fp32"},
    }
    recipe = merge(base, changes)
    if isinstance(recipe["teachers"], dict):  # what is none is for the recipe to refuse
        recipe["teachers"] = {name: teacher for name, teacher in recipe["teachers"].items() if teacher is not None}
    return recipe


def write_recipe(folder, /, **changes):
    """Write a tiny recipe whose results go to `folder`/run, and return its path."""
    path = folder / "recipe.yaml"
    path.write_text(
        yaml.safe_dump(tiny_recipe(folder / "run", **changes), allow_unicode=True, sort_keys=False), encoding="utf-8"
    )
    return path


def make_run(output_dir, /, **changes):
    """A `Run` of a tiny recipe."""
    from distill.recipe.schema import Recipe
    from distill.run import Run

    return Run(Recipe.model_validate(tiny_recipe(output_dir, **changes)))


_TAUGHT = {}  # folders of teachers by what they were made of


def train_teachers_once(run):
    """Train the teachers of a run; where an earlier test of this process has trained the same, they are copied and found finished."""
    from teachers import train_teachers

    made_of = json.dumps(
        run.recipe.model_dump(mode="json", include={"data", "teachers", "training", "seed"}), sort_keys=True
    )
    folder = run.folder / "teachers"
    if made_of in _TAUGHT and not folder.exists():
        shutil.copytree(_TAUGHT[made_of], folder)
    train_teachers(run)
    if made_of not in _TAUGHT:
        _TAUGHT[made_of] = shutil.copytree(folder, Path(tempfile.mkdtemp(dir=_CACHE)) / "teachers")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collect no garbage while all modules are imported: a fifth of that time, for next to nothing that is thrown away."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Files with whole exports, plans and ablations begin first, so that both processes end with small ones."""
    long = {item.path for item in items if item.get_closest_marker("integration")}
    items.sort(key=lambda item: item.path not in long)


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", r"ignore:'click\.:DeprecationWarning")  # typer 0.25 beside click 8.5
    # `datasets` leaves the CSV reader of pandas open; the rest of this warning stays an error
    config.addinivalue_line("filterwarnings", r"ignore:unclosed file <_io\..* name='.*\.[ct]sv':ResourceWarning")


@pytest.fixture(autouse=True, scope="session")
def _threads():
    import torch

    torch.set_num_threads(N_THREADS)


@pytest.fixture(autouse=True)
def _logs_are_heard():
    """Undo what a command line of an earlier test did to the loggers, so that `caplog` hears them in any order of tests."""
    for name in ("distill", "recipes", "students", "teachers"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        if logger.level != logging.NOTSET:  # to set it takes half a millisecond, and every test comes through here
            logger.setLevel(logging.NOTSET)


@pytest.fixture
def tiny_run(tmp_path):
    """Make runs below the test's own folder: tiny_run("name", training={"epochs": 2})."""

    def make(name="run", **changes):
        return make_run(tmp_path / name, **changes)

    return make


SHORT_BENCHMARK = {
    "seconds": 0.1,
    "max_seconds": 0.1,
    "throughput_pairs": 16,
    "bootstrap": 50,
    "lengths": [16, 32],
    "threads": 2,
}
"""Settings with which a whole report takes seconds."""
BI_TEACHER = {"kind": "bi_encoder", "backbone": BACKBONE, "max_length": 64}


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run with a cross-encoder and a bi-encoder teacher. Read from it, copy it, leave it as it is."""
    from teachers import train_teachers

    run = make_run(tmp_path_factory.mktemp("trained") / "run", teachers={"bi": BI_TEACHER})
    train_teachers(run)
    return run


@pytest.fixture(scope="session")
def bi_folder(trained):
    """The folder of a finished tiny bi-encoder."""
    return trained.teacher("bi")


@pytest.fixture(scope="session")
def cross_folder(trained):
    """The folder of a finished tiny cross-encoder."""
    return trained.teacher("cross")
