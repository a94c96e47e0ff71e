"""What `Run.check_files` refuses before anything heavy is imported."""

import json
import subprocess
import sys

import pytest

from distill.errors import BadInput
from distill.recipe.schema import Recipe
from distill.run import Run
from tests.conftest import pairs_file


def run_of(tmp_path, **changes):
    folder = tmp_path / "encoder"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "num_hidden_layers": 6}))
    stated = {
        "name": "early",
        "data": {"train": pairs_file()},
        "teachers": {"t": {"kind": "bi_encoder", "backbone": str(folder), "frozen": True}},
        "student": {"kind": "bi_encoder", "backbone": {"teacher": "t"}, "layers": [0, 5]},
        "objectives": {"score_match": {"teacher": "t"}},
        "output_dir": str(tmp_path / "run"),
    }
    return Run(Recipe.model_validate({**stated, **changes}))


@pytest.mark.parametrize("layers", [[0, 6], {"importance": 7}, {"last": 8}])
def test_layers_that_the_backbone_does_not_have(tmp_path, layers):
    run_of(tmp_path).check_files()
    student = {"kind": "bi_encoder", "backbone": {"teacher": "t"}, "layers": layers}
    with pytest.raises(
        BadInput, match=r"student\.layers .*: the backbone has 6 layers, counted from 0 to 5: at most 6 can"
    ):
        run_of(tmp_path, student=student).check_files()


@pytest.mark.parametrize("is_matched", [True, False])
def test_dimensions_that_no_embedding_has(tmp_path, is_matched):
    fresh = {"layers": 1, "width": 32, "heads": 2}
    teachers = {"t": {"kind": "bi_encoder", "backbone": {**fresh, "width": 48}}}
    student = {"kind": "bi_encoder", "backbone": fresh, "dimensions": 40}
    objectives = {"embedding_match" if is_matched else "score_match": {"teacher": "t"}}
    changes = {"teachers": teachers, "student": student, "objectives": objectives}
    if is_matched:
        run_of(tmp_path, **changes).check_files()
        student["dimensions"] = 49
    with pytest.raises(BadInput, match=r"student\.dimensions 4\d is more than the (teacher's 48|student's 32)"):
        run_of(tmp_path, **changes).check_files()


@pytest.mark.parametrize("content", ["{", "[]", '{"num_hidden_layers": "six"}'])
def test_a_config_that_says_nothing_is_left_to_who_opens_it(tmp_path, content):
    run = run_of(tmp_path)
    (tmp_path / "encoder" / "config.json").write_text(content)
    run.check_files()


def test_a_file_of_a_teacher_that_is_not_there(tmp_path):
    teachers = {"t": {"kind": "file", "path": str(tmp_path / "none.csv"), "gives": "scores"}}
    student = {"kind": "bi_encoder", "backbone": {"layers": 1, "width": 32, "heads": 2}}
    with pytest.raises(BadInput, match=r"teacher t: .*none\.csv: no such file"):
        run_of(tmp_path, teachers=teachers, student=student).check_files()


_COMMANDS = {
    "benchmark MODEL MODEL --pairs PAIRS -o OUT": "a folder is given twice",
    "benchmark MODEL --pairs PAIRS -o OUT --against none.json": "none.json: no such file",
    "score MODEL PAIRS -o OUT.csv --calibrated": "carries no calibration",
    "embed MODEL PAIRS --column query -o OUT.npy --prompt none": "stores no prompt named none",
    "embed MODEL PAIRS --column query -o OUT.npy --truncate 5": "have 4 numbers; ask for 1 to that many",
    "index-quality MODEL PAIRS --truncate 5": "have 4 numbers; ask for 1 to that many",
    "evaluate MODEL -o OUT --tasks KorSTS --recipe none.yaml": "none.yaml: no such recipe",
    "evaluate MODEL -o PAIRS --tasks KorSTS": "cannot be",
    "mine PAIRS TMP --retriever MODEL": "holds",
    "mine PAIRS OUT --retriever MODEL --teacher none": "none is no model folder",
    "ablate ablation_resume_jd --smoke --rows none": "--rows none: no row has that model",
    "trim MODEL OUT --texts none.txt": "none.txt: no such file",
    "plan --budget-mb 0.001 -o OUT": "no shape meets size ≤ 0.001 MB",
    "plan --budget-mb 10 --threads 4096": "plan.threads: 4096",
    "plan --budget-mb 0.001 --check none": "none is no model folder",
}
# what takes seconds to import cannot be imported at all; a process of its own, because this one may have done so
_WITHOUT_LIBRARIES = """
import contextlib, io, json, sys
sys.modules |= dict.fromkeys(("torch", "evaluate", "transformers", "mteb"))
from recipes.cli import main
said = []
for command in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        said.append([main(command.split()), errors.getvalue().strip()])
print(json.dumps(said))
"""


def model_in(folder):
    (folder / "1_Dense").mkdir(parents=True)
    for weights in ("model.safetensors", "1_Dense/model.safetensors"):
        (folder / weights).write_bytes(b"")
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": 8}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "1_Dense" / "config.json").write_text('{"in_features": 8, "out_features": 4}')
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate({"": "Transformer", "1_Dense": "Dense"}.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def test_mistakes_in_options_are_refused_before_anything_heavy(tmp_path):
    places = {"MODEL": model_in(tmp_path / "model"), "PAIRS": pairs_file(), "TMP": tmp_path, "OUT": tmp_path / "out"}
    commands = list(_COMMANDS)
    for name, place in places.items():
        commands = [command.replace(name, str(place)) for command in commands]
    process = subprocess.run(
        [sys.executable, "-c", _WITHOUT_LIBRARIES],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=True,
    )
    for (code, errors), wanted in zip(json.loads(process.stdout), _COMMANDS.values(), strict=True):
        last = errors.splitlines()[-1]
        assert code in (1, 2) and last.startswith("error: ") and wanted in last, errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_student_that_reads_more_than_its_backbone_can(tmp_path):
    run_of(tmp_path)
    config = {"model_type": "bert", "num_hidden_layers": 6, "max_position_embeddings": 256}
    for length, backbone in ((257, str(tmp_path / "encoder")), (257, {"teacher": "t"}), (256, {"teacher": "t"})):
        run = run_of(tmp_path, student={"kind": "bi_encoder", "backbone": backbone, "max_length": length})
        (tmp_path / "encoder" / "config.json").write_text(json.dumps(config))
        if length == 256:
            run.check_files()
            continue
        with pytest.raises(BadInput, match=r"student\.max_length: 257 is more than the 256 positions of its backbone"):
            run.check_files()


def test_too_few_pairs_for_a_cascade_are_said_with_the_data(tmp_path, caplog):
    run_of(tmp_path, cascade={"share": 0.2}, data={"train": "bundled", "bundled_pairs": 80}).read_data()
    assert "`distill cascade` will refuse this recipe:" in caplog.text and "50 at least" in caplog.text
