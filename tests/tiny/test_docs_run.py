"""The tutorials and the README as a reader follows them: their Python blocks and commands, with a tiny model in MiniLM's place."""

import os
import subprocess
import sys

import pytest

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


def call(folder, *command):
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tutorial's table, recipe and run; the same run stands where the quickstart's would."""
    folder = tmp_path_factory.mktemp("docs")
    call(folder, "-c", blocks(OWN_CSV, "python")[0])
    (folder / "mine.yaml").write_text(blocks(OWN_CSV, "yaml")[0], encoding="utf-8")
    assert len((folder / "pairs.csv").read_text(encoding="utf-8").splitlines()) == 721
    run = next(one for one in commands(OWN_CSV) if one[1] == "run")
    call(folder, "-m", "recipes.cli", *run[1:], *TINY)
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
    assert call(folder, "-c", "\n".join(code))


def test_the_commands_that_use_a_student_run(folder):
    (folder / "texts.txt").write_text("one text\nand another\n", encoding="utf-8")
    seen = 0
    for page in (README, QUICKSTART, OWN_CSV):
        for _, *arguments in commands(page):
            if arguments[0] in ("score", "embed"):
                columns = {"resume": "query", "jd": "document"}  # the table is the tutorial's
                call(folder, "-m", "recipes.cli", *(columns.get(one, one) for one in arguments), "--overwrite")
                seen += 1
    assert seen == 5 and (folder / "scores.csv").is_file() and (folder / "vectors.npy").is_file()


@pytest.mark.parametrize("name", ["train_a_student", "search_an_index"])
def test_the_examples_run(folder, name):
    said = call(folder, str(ROOT / "docs" / "examples" / f"{name}.py"))
    assert ("roc_auc" in said) if name == "train_a_student" else ("recall@10" in said)
