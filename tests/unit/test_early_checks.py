"""What `Run.check_files` refuses before anything heavy is imported."""

import json

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
    with pytest.raises(BadInput, match=r"student\.layers .*: the backbone has 6 layers, counted from 0 to 5"):
        run_of(tmp_path, student=student).check_files()


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
