import json
from pathlib import Path

import pytest
import yaml

from distill.errors import BadInput
from distill.recipe.reading import load_recipe
from distill.recipe.schema import (
    Data,
    Export,
    FreshBackbone,
    Recipe,
    Student,
    Teacher,
    TeacherBackbone,
    Training,
    TrainingStage,
)
from tests.conftest import ROOT, merge, write_recipe

BI = {"kind": "bi_encoder", "backbone": "some/encoder"}
SHIPPED = sorted(path for path in (ROOT / "recipes").glob("*.yaml") if not path.name.startswith("ablation"))


def load(folder, overrides=(), **changes):
    return load_recipe(write_recipe(folder, **changes), overrides)


def problems(folder, overrides=(), **changes):
    """The lines of what is wrong with a recipe, without the first one."""
    with pytest.raises(BadInput) as caught:
        load(folder, overrides, **changes)
    first, *lines = str(caught.value).splitlines()
    assert first.endswith(f"{len(lines)} problem{'s' if len(lines) > 1 else ''}")
    return [line.strip() for line in lines]


def write(folder, text):
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


class TestValues:
    @pytest.mark.parametrize(
        ("changes", "place"),
        [
            ({"training": {"learning_rate": -1e-4}}, "training.learning_rate: got -0.0001;"),
            ({"training": {"learning_rate": 0}}, "training.learning_rate: got 0;"),
            ({"training": {"learning_rate": "fast"}}, "training.learning_rate: got 'fast';"),
            ({"training": {"global_batch": 0}}, "training.global_batch: got 0;"),
            ({"training": {"global_batch": 1.5}}, "training.global_batch: got 1.5;"),
            ({"training": {"warmup_share": 1}}, "training.warmup_share: got 1;"),
            ({"training": {"precision": "int8"}}, "training.precision: got 'int8';"),
            ({"training": {"schedule": "linaer"}}, "training.schedule: got 'linaer';"),
            ({"data": {"evaluation_share": 0}}, "data.evaluation_share: got 0;"),
            ({"data": {"evaluation_share": 1.0}}, "data.evaluation_share: got 1.0;"),
            ({"data": {"candidates": 1}}, "data.candidates: got 1;"),
            (
                {"data": {"unlabelled": [{"path": "t.csv", "columns": []}]}},
                "data.unlabelled.0.columns: [] names nothing; list one at least",
            ),
            ({"data": {"label_range": [5, 0]}}, "data: label_range is [5.0, 0.0]; the lower end comes first"),
            ({"data": {"label_range": [0, 0]}}, "data: label_range is [0.0, 0.0]; the lower end comes first"),
            (
                {"data": {"labelled_pairs": [{"path": "a.csv", "label_range": [5, 0]}]}},
                "data.labelled_pairs.0: label_range is [5.0, 0.0]; the lower end comes first",
            ),
            (
                {"data": {"labelled_pairs": [{"path": "bundled"}]}},
                "data.labelled_pairs.0: path is a file or a hub dataset; generated pairs are data.train=bundled",
            ),
            ({"data": {"label_range": [0, float("inf")]}}, "data.label_range.1: got inf; it should be a finite number"),
            ({"training": {"epochs": float("inf")}}, "training.epochs: got inf;"),
            ({"training": {"learning_rate": float("nan")}}, "training.learning_rate: got nan;"),
            ({"student": {"max_length": 4}}, "student.max_length: got 4;"),
            ({"student": {"kind": "biencoder"}}, "student.kind: got 'biencoder';"),
            ({"student": {"layers": []}}, "student.layers: got []; layers are a list from 0 on"),
            ({"student": {"layers": 3}}, "student.layers: got 3; layers are a list from 0 on"),
            ({"student": {"layers": [-1]}}, "student.layers: got [-1]; layers are a list from 0 on"),
            ({"student": {"layers": {"evry": 2}}}, "student.layers.evry: unknown key; did you mean 'every'?"),
            ({"student": {"layers": {"first": 0}}}, "student.layers.first: got 0;"),
            ({"student": {"layers": {"first": 1, "last": 1}}}, "student.layers: first and last given; layers are"),
            ({"student": {"layers": {}}}, "student.layers: no rule given; layers are"),
            ({"student": {"width": {}}}, "student.width: nothing is made narrower; set feed_forward, heads or hidden"),
            ({"student": {"width": {"hiden": 8}}}, "student.width.hiden: unknown key; did you mean 'hidden'?"),
            ({"student": {"width": {"heads": 1.5}}}, "student.width.heads: got 1.5; a share in (0, 1], as 0.5, or a"),
            ({"student": {"width": {"hidden": 0}}}, "student.width.hidden: got 0; a share in (0, 1]"),
            ({"student": {"width": {"hidden": True}}}, "student.width.hidden: got True; a share in (0, 1]"),
            ({"student": {"width": {"hidden": 8, "hidden_by": "svd"}}}, "student.width.hidden_by: got 'svd';"),
            (
                {"student": {"layers": [1, 0]}},
                "student.layers: [1, 0] must ascend without repeats",
            ),
            (
                {"student": {"layers": [0, 0]}},
                "student.layers: [0, 0] must ascend without repeats",
            ),
            (
                {"teachers": {"cross": {"backbone": {"heads": 3}}}},
                "teachers.cross.backbone: width 32 is not divisible by 3 heads",
            ),
            ({"teachers": {"cross": {"head": [0]}}}, "teachers.cross.head.0: got 0;"),
            ({"name": "../up"}, "name: got '../up';"),
            ({"name": ""}, "name: got '';"),
            ({"export": {"precisions": ["int4"]}}, "export.precisions.0: got 'int4';"),
            ({"training": "fast"}, "training: got 'fast';"),
            ({"training": [1]}, "training: "),
            ({"teachers": ["cross"]}, "teachers: "),
        ],
    )
    def test_bad_ones_are_refused_with_their_place(self, tmp_path, changes, place):
        lines = problems(tmp_path, **changes)
        assert any(line.startswith(place) for line in lines), lines

    def test_a_teacher_may_not_be_named_like_a_path(self, tmp_path):
        lines = problems(tmp_path, teachers={"../evil": {"kind": "cross_encoder", "backbone": "x"}})
        assert "../evil" in lines[0]

    def test_all_problems_come_at_once(self, tmp_path):
        lines = problems(
            tmp_path,
            trainign={},
            training={"learning_rate": -1, "epochs": 0},
            data={"candidates": 1},
            student={"kind": "x"},
        )
        places = {line.partition(":")[0] for line in lines}
        assert places == {"trainign", "training.learning_rate", "training.epochs", "data.candidates", "student.kind"}
        assert len(lines) == 5

    def test_what_is_missing_is_named(self, tmp_path):
        path = write(tmp_path, "name: x\n")
        with pytest.raises(BadInput) as caught:
            load_recipe(path)
        assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
            "data: missing",
        ]

    def test_teachers_alone_are_a_recipe_but_objectives_need_a_student(self, tmp_path):
        alone = {"kind": "bi_encoder", "backbone": "some/encoder"}
        text = yaml.safe_dump({"name": "x", "data": {"train": "bundled"}, "teachers": {"bi": alone}})
        assert load_recipe(write(tmp_path, text)).student is None
        more = yaml.safe_dump({"name": "x", "data": {"train": "bundled"}, "objectives": {"labels": {}}})
        with pytest.raises(BadInput, match="objectives: there is no student to learn by them; add the section student"):
            load_recipe(write(tmp_path, more))

    @pytest.mark.parametrize("written", ["1e-4", "1.0e-4", "0.0001", "'1e-4'", "+1e-4"])
    def test_yaml_reads_1e_4_as_text_and_it_is_a_number_all_the_same(self, tmp_path, written):
        recipe = load(tmp_path, [f"training.learning_rate={written}"])
        assert recipe.training.learning_rate == 0.0001

    def test_yaml_turns_no_into_false_which_is_not_a_precision(self, tmp_path):
        assert problems(tmp_path, ["training.precision=no"])[0].startswith("training.precision: got false;")

    def test_yaml_turns_a_bare_number_into_no_name(self, tmp_path):
        assert problems(tmp_path, ["name=2026"]) == ["name: got 2026; a text is expected; put a number in quotes"]


class TestTraining:
    def test_of_the_recipe_is_laid_under_a_teachers_and_the_students_own(self, tmp_path):
        recipe = load(
            tmp_path,
            training={"epochs": 5, "weight_decay": 0.2},
            student={"training": {"epochs": 9}},
            teachers={"cross": {"training": {"learning_rate": 3e-5}}},
        )
        teacher, student = recipe.teachers["cross"].training, recipe.student.training
        assert (teacher.epochs, teacher.learning_rate, teacher.weight_decay) == (5, 3e-5, 0.2)
        assert (student.epochs, student.learning_rate, student.weight_decay) == (9, 2e-3, 0.2)
        assert recipe.training.epochs == 5

    def test_own_section_may_switch_off_what_the_recipe_sets(self, tmp_path):
        recipe = load(tmp_path, training={"max_steps": 10}, student={"training": {"max_steps": None}})
        assert recipe.student.training.max_steps is None
        assert recipe.teachers["cross"].training.max_steps == 10

    def test_null_is_the_defaults(self, tmp_path):
        text = write_recipe(tmp_path).read_text(encoding="utf-8")
        head, _, tail = text.partition("training:\n")
        tail = "\n".join(line for line in tail.splitlines() if not line.startswith("  "))
        path = write(tmp_path, f"{head}training:\n{tail}\n")
        with pytest.raises(BadInput, match="training: got null"):
            load_recipe(path)

    def test_bad_value_in_one_teacher_is_named_there(self, tmp_path):
        (line,) = problems(tmp_path, teachers={"cross": {"training": {"epochs": -1}}})
        assert line.startswith("teachers.cross.training.epochs: got -1;")


class TestResolved:
    def test_goes_through_json_and_back(self, tmp_path):
        recipe = load(
            tmp_path,
            teachers={"bi": {**BI, "prompts": ["q: ", "d: "], "lora": {"target_modules": ["query"]}}},
            data={"label_range": [0, 5]},
            student={"training": {"epochs": 9}},
        )
        stored = json.loads(json.dumps(recipe.model_dump(mode="json")))
        again = Recipe.model_validate(stored)
        assert again == recipe
        assert isinstance(again.student.backbone, TeacherBackbone)
        assert isinstance(again.teachers["cross"].backbone, FreshBackbone)
        assert again.student.training.epochs == 9

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
    def test_shipped_ones_too(self, path):
        recipe = load_recipe(path)
        assert Recipe.model_validate(json.loads(json.dumps(recipe.model_dump(mode="json")))) == recipe

    def test_states_every_run_in_full(self, tmp_path):
        dumped = load(tmp_path, training={"weight_decay": 0.3}).model_dump(mode="json")
        assert dumped["teachers"]["cross"]["training"]["weight_decay"] == 0.3
        assert dumped["student"]["training"] == dumped["training"]

    def test_folder_is_the_output_dir_or_runs_and_the_name(self, tmp_path):
        assert load(tmp_path, output_dir=None).folder == Path("runs/tiny")
        assert load(tmp_path).folder == tmp_path / "run"

    def test_is_frozen(self, tmp_path):
        with pytest.raises(ValueError, match="frozen"):
            load(tmp_path).seed = 1


def test_merge_of_the_test_helpers_keeps_what_is_not_named():
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"c": None}}) == {"a": {"b": 1, "c": None}}


def test_sections_made_in_python_are_merged_like_those_of_a_file():
    student = {"kind": "bi_encoder", "backbone": "m", "training": {"patience": 2}}
    stage = {"data": {"train": "b.csv"}, "training": {"max_steps": 9}}
    raw = {
        "name": "x",
        "data": {"train": "a.csv", "label_range": [0, 5]},
        "teachers": {"t": {"kind": "cross_encoder", "backbone": {"layers": 2}}},
        "student": student,
        "objectives": {"labels": {}},
        "training": {"epochs": 1},
        "stages": {"one": stage, "two": {}},
    }
    made = {
        "data": Data(**raw["data"]),
        "teachers": {"t": Teacher(**raw["teachers"]["t"])},
        "student": Student(**student),
        "training": Training(epochs=1),
        "stages": {"one": TrainingStage(data=Data(train="b.csv"), training=Training(max_steps=9)), "two": {}},
    }
    assert Recipe(**raw | made) == Recipe(**raw)
    assert Recipe(**raw | made).stages["one"].training == Training(epochs=1, patience=2, max_steps=9)


def test_an_export_that_is_named_twice_is_wanted_once():
    wanted = Export(formats=("onnx", "onnx"), precisions=("int8", "fp32", "int8")).wanted
    assert wanted == [("onnx", "int8"), ("onnx", "fp32")]
