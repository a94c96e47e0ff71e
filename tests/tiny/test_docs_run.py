"""The tutorials and the README as a reader follows them: their Python blocks and commands, with a tiny model in MiniLM's place."""

import contextlib
import io
import os
import subprocess
import sys
import warnings

import pytest

from recipes.cli import main
from students.export.quantize_openvino import has_optimum
from tests.conftest import BACKBONE, ROOT
from tests.unit.test_docs import blocks, commands

pytestmark = pytest.mark.integration

README, QUICKSTART, OWN_CSV, SERVE = (
    ROOT / name
    for name in ("README.md", "docs/tutorials/quickstart.md", "docs/tutorials/own-csv.md", "docs/how-to/serve.md")
)
TINY = [
    f"teachers.minilm={{kind: bi_encoder, backbone: {BACKBONE}, loss: infonce, max_length: 64, training: {{max_steps: 4}}}}",
    "student.layers=[0]",
    "student.control=false",
    "training.max_steps=4",
    "training.tensorboard=false",
    "benchmark.seconds=0.1",
    "benchmark.bootstrap=20",
    "benchmark.teachers=[]",  # each row of the report is a process: seconds of imports
    "benchmark.baselines={}",
    "export.precisions=[int8]",
]


def run_code(folder, code):
    """Run a block of Python in this process, in a folder, as a script in which a warning is no error; returns what it prints."""
    with contextlib.chdir(folder), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as printed:
        warnings.simplefilter("default")
        exec(code, {"__name__": "__main__"})
    return printed.getvalue()


def call(folder, *command):
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def run_command(folder, *arguments):
    """Run a `distill` command in this process: a process of its own takes seconds to import what is here already."""
    with contextlib.chdir(folder):
        assert main(list(arguments)) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tutorial's table, recipe and run; the same run stands where the quickstart's would."""
    folder = tmp_path_factory.mktemp("docs")
    subprocess.run([sys.executable, "-c", blocks(OWN_CSV, "python")[0]], cwd=folder, check=True)
    (folder / "mine.yaml").write_text(blocks(OWN_CSV, "yaml")[0], encoding="utf-8")
    assert len((folder / "pairs.csv").read_text(encoding="utf-8").splitlines()) == 721
    os.symlink(folder / "pairs.csv", folder / "resumes.csv")
    run = next(one for one in commands(OWN_CSV) if one[1] == "run")
    run_command(folder, *run[1:], *TINY)
    os.symlink(folder / "runs" / "mine", folder / "runs" / "quickstart")
    return folder


def test_the_recipe_of_the_readme_is_that_of_the_tutorial():
    import yaml

    (short,), (long, *_) = blocks(README, "yaml"), blocks(OWN_CSV, "yaml")
    assert yaml.safe_load(short) | {"benchmark": {"seconds": 1}} == yaml.safe_load(long)


def test_all_python_blocks_run(folder):
    code = [
        *blocks(README, "python"),
        *blocks(QUICKSTART, "python"),
        *blocks(OWN_CSV, "python")[1:],
        *blocks(SERVE, "python"),
    ]
    assert len(code) == 6
    if not has_optimum():  # stock sentence-transformers opens OpenVINO through it
        code = [block for block in code if 'backend="openvino"' not in block]
    assert run_code(folder, "\n".join(code))


def test_the_commands_that_use_a_student_run(folder):
    (folder / "texts.txt").write_text("one text\nand another\n", encoding="utf-8")
    seen = 0
    for page in (README, QUICKSTART, OWN_CSV):
        for _, *arguments in commands(page):
            if arguments[0] in ("score", "embed"):
                columns = {"resume": "query", "jd": "document"}  # the table is the tutorial's
                run_command(folder, *(columns.get(one, one) for one in arguments), "--overwrite")
                seen += 1
    assert seen == 5 and (folder / "scores.csv").is_file() and (folder / "vectors.npy").is_file()


@pytest.mark.slow
def test_the_example_of_training_runs(folder):
    """In this process: a process of its own takes ten seconds to import what is here already."""
    assert "roc_auc" in run_code(folder, (ROOT / "docs/examples/train_a_student.py").read_text(encoding="utf-8"))


def test_the_example_of_an_index_runs(folder):
    assert "recall@10" in call(folder, str(ROOT / "docs/examples/search_an_index.py"))
