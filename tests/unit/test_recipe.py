import json
from pathlib import Path

import pytest
import yaml

from distill.errors import BadInput
from distill.recipe import FreshBackbone, Recipe, TeacherBackbone
from distill.recipe_reading import load_recipe
from tests.conftest import ROOT, merge, write_recipe

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


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({"trainign": {}}, "trainign: unknown key; did you mean 'training'?"),
            ({"training": {"learning_rte": 1e-4}}, "training.learning_rte: unknown key; did you mean 'learning_rate'?"),
            ({"data": {"columns": {"qurey": "q"}}}, "data.columns.qurey: unknown key; did you mean 'query'?"),
            ({"teachers": {"cross": {"frosen": True}}}, "teachers.cross.frosen: unknown key; did you mean 'frozen'?"),
            (
                {"teachers": {"cross": {"lora": {"rnak": 4}}}},
                "teachers.cross.lora.rnak: unknown key; did you mean 'rank'?",
            ),
            (
                {"teachers": {"cross": {"training": {"epoch": 2}}}},
                "teachers.cross.training.epoch: unknown key; did you mean 'epochs'?",
            ),
            (
                {"teachers": {"cross": {"backbone": {"vocabulray": 500}}}},
                "teachers.cross.backbone.vocabulray: unknown key; did you mean 'vocabulary'?",
            ),
            ({"student": {"layer": [0]}}, "student.layer: unknown key; did you mean 'layers'?"),
            ({"student": {"backbone": {"layers": [0]}}}, "student.backbone.layers: unknown key; known: teacher"),
            (
                {"objectives": {"score_match": {"temprature": 2}}},
                "objectives.score_match.temprature: unknown key; did you mean 'temperature'?",
            ),
            ({"objectives": {"score_mtach": None}}, "objectives.score_mtach: unknown key; did you mean 'score_match'?"),
            ({"signals": {"dtpye": "float16"}}, "signals.dtpye: unknown key; did you mean 'dtype'?"),
            ({"export": {"keep_flaot": None}}, "export.keep_flaot: unknown key; did you mean 'keep_float'?"),
            ({"benchmark": {"thread": 2}}, "benchmark.thread: unknown key; did you mean 'threads'?"),
        ],
    )
    def test_is_named_with_its_path_and_the_nearest_name(self, tmp_path, changes, line):
        assert problems(tmp_path, **changes) == [line]

    def test_without_a_near_name_lists_what_is_known(self, tmp_path):
        (line,) = problems(tmp_path, data={"columns": {"zzz": "q"}})
        assert line == "data.columns.zzz: unknown key; known: document, label, query"

    def test_of_a_section_that_others_inherit_is_said_once(self, tmp_path):
        assert len(problems(tmp_path, training={"learning_rte": 1e-4})) == 1

    @pytest.mark.parametrize("name", ["training", "name", "fresh", "cut", "data"])
    def test_in_a_teacher_whose_name_is_also_a_key(self, tmp_path, name):
        teacher = {"kind": "bi_encoder", "backbone": "some/encoder", "training": {"epoch": 1}, "frosen": True}
        lines = problems(tmp_path, teachers={name: teacher})
        assert [line.partition(":")[0] for line in lines] == [
            f"teachers.{name}.training.epoch",
            f"teachers.{name}.frosen",
        ]
        assert lines[1].endswith("did you mean 'frozen'?")

    def test_in_both_a_teacher_and_the_recipe_is_said_twice(self, tmp_path):
        lines = problems(tmp_path, training={"epoch": 1}, teachers={"cross": {"training": {"epoch": 2}}})
        assert [line.partition(":")[0] for line in lines] == ["teachers.cross.training.epoch", "training.epoch"]


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
            ({"data": {"label_range": [5, 0]}}, "data: label_range is [5.0, 0.0]; the lower end comes first"),
            ({"data": {"label_range": [0, 0]}}, "data: label_range is [0.0, 0.0]; the lower end comes first"),
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
            tmp_path, trainign={}, training={"learning_rate": -1, "epochs": 0}, data={"candidates": 1}, student={"kind": "x"}
        )  # fmt: skip
        places = {line.partition(":")[0] for line in lines}
        assert places == {"trainign", "training.learning_rate", "training.epochs", "data.candidates", "student.kind"}
        assert len(lines) == 5

    def test_what_is_missing_is_named(self, tmp_path):
        path = write(tmp_path, "name: x\n")
        with pytest.raises(BadInput) as caught:
            load_recipe(path)
        assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
            "data: missing",
        ]  # fmt: skip

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
        assert problems(tmp_path, ["training.precision=no"])[0].startswith("training.precision: got False;")

    def test_yaml_turns_a_bare_number_into_no_name(self, tmp_path):
        assert problems(tmp_path, ["name=2026"]) == ["name: got 2026; it should be a valid string"]


class TestFile:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("name: [", "is not valid YAML"),
            ("name: x\n\tdata: y", "is not valid YAML"),
            ("", "a recipe is a mapping of sections, this is NoneType"),
            ("- a\n- b", "a recipe is a mapping of sections, this is list"),
            ("just words", "a recipe is a mapping of sections, this is str"),
            ("name: 이력서".encode("cp949"), "is not valid YAML"),
        ],
    )
    def test_that_is_no_recipe_is_refused(self, tmp_path, text, says):
        with pytest.raises(BadInput, match=says):
            load_recipe(write(tmp_path, text))

    def test_that_is_not_there_says_where_recipes_are(self, tmp_path):
        with pytest.raises(BadInput, match="no such recipe; the ones that come with the toolkit are in .*recipes"):
            load_recipe(tmp_path / "missing.yaml")

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
    def test_that_ships_is_valid_short_and_explained(self, path):
        text = path.read_text(encoding="utf-8")
        assert load_recipe(path).name == path.stem
        assert len(text.splitlines()) <= 40
        assert text.startswith("# ")


class TestOverrides:
    def test_are_yaml_and_reach_any_depth(self, tmp_path):
        recipe = load(
            tmp_path,
            ["training.learning_rate=5.0e-4", "student.layers=[0, 1]", "data.max_pairs=null", "signals.live=true",
             "teachers.cross.training.epochs=7", "data.columns.query=이력서"],
        )  # fmt: skip
        assert recipe.training.learning_rate == 0.0005
        assert recipe.student.layers == (0, 1)
        assert recipe.data.max_pairs is None
        assert recipe.signals.live is True
        assert recipe.teachers["cross"].training.epochs == 7
        assert recipe.data.columns.query == "이력서"

    def test_may_hold_an_equals_sign_in_the_value(self, tmp_path):
        assert load(tmp_path, ["output_dir=a=b"]).output_dir == "a=b"

    def test_replace_what_is_no_mapping(self, tmp_path):
        recipe = load(tmp_path, ["student.backbone=some/model", "teachers.cross.lora.rank=2"])
        assert recipe.student.backbone == "some/model"
        assert recipe.teachers["cross"].lora.rank == 2

    def test_switch_an_objective_off(self, tmp_path):
        recipe = load(tmp_path, ["objectives.score_match=null", "objectives.labels={weight: 2}"])
        assert recipe.objectives.score_match is None
        assert recipe.objectives.labels.weight == 2

    @pytest.mark.parametrize("override", ["training.epochs", "=3", "--overwrite", "-x=1", "training.epochs: 3"])
    def test_that_are_none_are_refused(self, tmp_path, override):
        with pytest.raises(BadInput, match="is no override; write key=value"):
            load(tmp_path, [override])

    def test_whose_value_is_no_yaml_are_refused(self, tmp_path):
        with pytest.raises(BadInput, match="the value is not valid YAML"):
            load(tmp_path, ["training.epochs=[1"])

    def test_with_unknown_keys_are_refused_like_the_file(self, tmp_path):
        assert problems(tmp_path, ["training.epoch=3"]) == ["training.epoch: unknown key; did you mean 'epochs'?"]


class TestTraining:
    def test_of_the_recipe_is_laid_under_a_teachers_and_the_students_own(self, tmp_path):
        recipe = load(
            tmp_path, training={"epochs": 5, "weight_decay": 0.2}, student={"training": {"epochs": 9}},
            teachers={"cross": {"training": {"learning_rate": 3e-5}}},
        )  # fmt: skip
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
        with pytest.raises(BadInput, match="training: got None"):
            load_recipe(path)

    def test_bad_value_in_one_teacher_is_named_there(self, tmp_path):
        (line,) = problems(tmp_path, teachers={"cross": {"training": {"epochs": -1}}})
        assert line.startswith("teachers.cross.training.epochs: got -1;")


BI = {"kind": "bi_encoder", "backbone": "some/encoder"}


class TestSectionsAgree:
    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            (
                {"objectives": {"score_match": {"teacher": "cros"}}},
                "objectives.score_match.teacher: no teacher is called 'cros'; did you mean 'cross'?",
            ),
            (
                {"objectives": {"margin_mse": {"teacher": "zzz"}}, "data": {"candidates": 4}},
                "objectives.margin_mse.teacher: no teacher is called 'zzz'; known: cross",
            ),
            (
                {"student": {"backbone": {"teacher": "crss"}}},
                "student.backbone.teacher: no teacher is called 'crss'; did you mean 'cross'?",
            ),
            (
                {"objectives": {"score_match": {"loss": "kl"}}},
                "objectives.score_match.loss: kl compares the candidates of a query; set data.candidates (say 4)",
            ),
            (
                {"objectives": {"margin_mse": {"teacher": "cross"}}},
                "objectives.margin_mse: margins need several documents per query; set data.candidates (say 4)",
            ),
            (
                {"objectives": {"score_match": None}},
                "objectives: the student learns nothing; set one of labels, score_match, margin_mse, embedding_match",
            ),
            (
                {"objectives": {"embedding_match": {"teacher": "bi"}}, "teachers": {"bi": BI}},
                "objectives.embedding_match: a cross-encoder student has no text embeddings; use score_match",
            ),
            (
                {"objectives": {"embedding_match": {"teacher": "cross"}}, "student": {"kind": "bi_encoder"}},
                "objectives.embedding_match.teacher: cross is a cross-encoder; only a bi-encoder has text embeddings",
            ),
            (
                {"data": {"unlabelled": [{"path": "x.tsv"}]}},
                "data.unlabelled: only objectives.embedding_match and a teacher of kind mlm learn from texts without pairs; set one or drop them",
            ),
            (
                {"objectives": {"labels": {"loss": "infonce"}}},
                "objectives.labels.loss: a cross_encoder learns labels by bce or mse, not infonce",
            ),
            (
                {"objectives": {"labels": {"loss": "mse"}}, "student": {"kind": "bi_encoder"}},
                "objectives.labels.loss: a bi_encoder learns labels by contrastive or bce or infonce, not mse",
            ),
            (
                {"teachers": {"cross": {"loss": "contrastive"}}},
                "teachers.cross.loss: a cross_encoder learns labels by bce or mse, not contrastive",
            ),
            (
                {"teachers": {"cross": {"frozen": True}}},
                "teachers.cross.frozen: a fresh encoder knows nothing yet; train it (frozen: false)",
            ),
            (
                {"teachers": {"cross": {"max_length": 128}}},
                "teachers.cross.max_length: 128 is more than the fresh backbone's 96",
            ),
            (
                {"teachers": {"cross": {"prompts": ["q: ", "d: "]}}},
                "teachers.cross.prompts: a cross-encoder reads both texts at once; prompts are for bi-encoders",
            ),
            (
                {"student": {"prompts": ["q: ", "d: "]}},
                "student.prompts: a cross-encoder reads both texts at once; prompts are for bi-encoders",
            ),
            (
                {"teachers": {"more": {"kind": "bi_encoder", "backbone": {"teacher": "later"}}, "later": BI}},
                "teachers.more.backbone.teacher: no earlier teacher is called 'later'; earlier: cross",
            ),
        ],
    )  # fmt: skip
    def test_or_say_which_do_not(self, tmp_path, changes, line):
        assert problems(tmp_path, **changes) == [line]

    def test_several_disagreements_come_together(self, tmp_path):
        lines = problems(
            tmp_path, teachers={"cross": {"frozen": True, "loss": "infonce"}}, objectives={"score_match": {"loss": "kl"}}
        )  # fmt: skip
        assert [line.partition(":")[0] for line in lines] == [
            "teachers.cross.frozen", "teachers.cross.loss", "objectives.score_match.loss",
        ]  # fmt: skip

    def test_a_teacher_may_start_from_an_earlier_one(self, tmp_path):
        recipe = load(tmp_path, teachers={"more": {"kind": "bi_encoder", "backbone": {"teacher": "cross"}}})
        assert recipe.teachers["more"].backbone.teacher == "cross"

    def test_what_agrees_passes(self, tmp_path):
        recipe = load(
            tmp_path, data={"candidates": 4, "unlabelled": [{"path": "x.tsv"}]}, teachers={"bi": BI},
            student={"kind": "bi_encoder", "prompts": ["q: ", "d: "]},
            objectives={
                "labels": {"loss": "infonce"}, "score_match": {"loss": "kl"}, "margin_mse": {"teacher": "bi"},
                "embedding_match": {"teacher": "bi"},
            },
        )  # fmt: skip
        assert recipe.objectives.teachers() == {"cross": {"scores"}, "bi": {"scores", "embeddings"}}


class TestResolved:
    def test_goes_through_json_and_back(self, tmp_path):
        recipe = load(
            tmp_path, teachers={"bi": {**BI, "prompts": ["q: ", "d: "], "lora": {"target_modules": ["query"]}}},
            data={"label_range": [0, 5]}, student={"training": {"epochs": 9}},
        )  # fmt: skip
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
