import pytest

from distill.errors import BadInput
from distill.recipe.reading import load_recipe, read_raw
from tests.conftest import write_recipe
from tests.unit.test_recipe import SHIPPED, load, problems, write


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

    def test_an_empty_list_says_so(self, tmp_path):
        (line,) = problems(tmp_path, teachers={"cross": {"scripts": []}})
        assert line == "teachers.cross.scripts: [] names nothing; list one at least, or leave it out"

    def test_without_a_near_name_lists_what_is_known(self, tmp_path):
        (line,) = problems(tmp_path, data={"columns": {"zzz": "q"}})
        assert line == "data.columns.zzz: unknown key; known: document, label, query"

    @pytest.mark.parametrize("backbone", [5, 2.5, None, ["a"]])
    def test_a_backbone_that_is_neither_a_name_nor_a_section(self, tmp_path, backbone):
        (line,) = problems(tmp_path, teachers={"cross": {"backbone": backbone}})
        assert line.startswith("teachers.cross.backbone: ") and "a text is expected" in line

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


class TestShapes:
    @pytest.mark.parametrize(
        ("override", "line"),
        [
            ("data.label_range=0,5", "data.label_range: got '0,5'; a list in brackets is expected, as [0, 1]"),
            (
                "data.label_range={low: 0}",
                "data.label_range: got {'low': 0}; a list in brackets is expected, as [0, 1]",
            ),
            ("training=fast", "training: got 'fast'; a section is expected, as {key: value}"),
            ("teachers=", "teachers: got null; a section is expected, as {key: value}"),
            ("export=[fp32]", "export: got ['fp32']; a section is expected, as {key: value}"),
            (
                "name=../evil",
                "name: got '../evil'; letters, digits and . _ - are accepted, and it begins with a letter or a digit",
            ),
            ("data.train=[a,b]", "data.train: got ['a', 'b']; a text is expected"),
            ("seed=1.5", "seed: got 1.5; a whole number is expected"),
            ("training.learning_rate=fast", "training.learning_rate: got 'fast'; a number is expected"),
            ("overwrite=maybe", "overwrite: got 'maybe'; true or false is expected"),
        ],
    )
    def test_are_named_as_yaml_writes_them(self, tmp_path, override, line):
        assert problems(tmp_path, [override])[0] == line


class TestFile:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("name: [", "is not valid YAML"),
            ("name: x\n\tdata: y", "is not valid YAML"),
            ("", "a recipe is a mapping of sections, this is empty"),
            ("- a\n- b", "a recipe is a mapping of sections, this is a list"),
            ("just words", "a recipe is a mapping of sections, this is one text"),
            ("name: 이력서".encode("cp949"), "is not valid YAML"),
        ],
    )
    def test_that_is_no_recipe_is_refused(self, tmp_path, text, says):
        with pytest.raises(BadInput, match=says):
            load_recipe(write(tmp_path, text))

    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            ({"data": {"train": "own.csv"}}, "data.train"),
            ({"data": {"train": "bundled", "labelled_pairs": [{"path": "own.csv"}]}}, "data.labelled_pairs.0.path"),
        ],
    )
    def test_beside_which_the_data_lie_says_where_paths_start(self, tmp_path, monkeypatch, changes, key):
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "own.csv").write_text("query,document,label\n")
        path = write_recipe(tmp_path / "folder", **changes)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(BadInput) as caught:
            load_recipe("folder/recipe.yaml")
        assert str(caught.value) == (
            f"folder/recipe.yaml: {key}: own.csv: no such file; relative paths start at the current folder, not at the "
            "recipe's, where a file of this name is: write folder/own.csv"
        )
        monkeypatch.chdir(tmp_path / "folder")
        load_recipe(path)

    def test_that_is_not_there_says_where_recipes_are(self, tmp_path):
        with pytest.raises(
            BadInput,
            match=r"no such recipe; those of the toolkit go by their names \(.*quickstart.*\) and are in .*recipes",
        ):
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
            [
                "training.learning_rate=5.0e-4",
                "student.layers=[0, 1]",
                "data.max_pairs=null",
                "signals.live=true",
                "teachers.cross.training.epochs=7",
                "data.columns.query=이력서",
            ],
        )
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

    @pytest.mark.parametrize("value", ["a #1.csv", "#1.csv", "'a.csv' # mine", "[a.csv] #", "- a.csv #b", "a: b #c"])
    def test_lose_nothing_to_a_comment(self, tmp_path, value):
        with pytest.raises(BadInput, match=r"the value ends before '#.*', a comment in YAML; put the whole value in q"):
            load(tmp_path, [f"data.train={value}"])

    @pytest.mark.parametrize("value", ['"a #1.csv"', "'a #1.csv'", "a#1.csv"])
    def test_may_hold_what_begins_comments(self, tmp_path, value):
        assert load(tmp_path, [f"data.train={value}"]).data.train == value.strip("'\"")

    @pytest.mark.parametrize("override", ["training.epochs", "=3", "--overwrite", "-x=1", "training.epochs: 3"])
    def test_that_are_none_are_refused(self, tmp_path, override):
        with pytest.raises(BadInput, match="is no override; write key=value"):
            load(tmp_path, [override])

    def test_whose_value_is_no_yaml_are_refused(self, tmp_path):
        with pytest.raises(BadInput, match="the value is not valid YAML"):
            load(tmp_path, ["training.epochs=[1"])

    def test_with_unknown_keys_are_refused_like_the_file(self, tmp_path):
        assert problems(tmp_path, ["training.epoch=3"]) == ["training.epoch: unknown key; did you mean 'epochs'?"]

    def test_change_their_place_alone_where_an_alias_stands_elsewhere(self, tmp_path):
        path = write(tmp_path, "training: &slow {epochs: 1}\nstudent: {training: *slow}")
        assert read_raw(path, ["training.epochs=7"]) == {
            "training": {"epochs": 7},
            "student": {"training": {"epochs": 1}},
        }

    def test_leave_the_mapping_of_a_caller_as_it_is(self):
        given = {"training": {"epochs": 1}}
        assert read_raw(given, ["training.epochs=7"]) == {"training": {"epochs": 7}}
        assert given == {"training": {"epochs": 1}}


class TestNumbers:
    def test_with_a_zero_before_them_are_not_octal(self, tmp_path):
        assert load(tmp_path, ["seed=010"]).seed == 10

    def test_with_a_colon_are_not_sexagesimal(self, tmp_path):
        assert problems(tmp_path, ["training.epochs=1:30"])[0].startswith("training.epochs: got '1:30'")

    @pytest.mark.parametrize(
        ("override", "line"),
        [
            ("training.epochs=true", "training.epochs: got true"),
            ("seed=off", "seed: got false"),
            ("data.label_range=[no, yes]", "data.label_range[0]: got false"),
            ("benchmark.threads=yes", "benchmark.threads: got true"),
            ("student.layers={first: true}", "student.layers.first: got true"),
        ],
    )
    def test_are_not_true_or_false(self, tmp_path, override, line):
        assert problems(tmp_path, [override])[0] == f"{line}; a number is expected, and true and false are none"

    def test_may_be_beside_switches(self, tmp_path):
        assert load(tmp_path, ["training.tensorboard=off", "signals.live=yes"]).signals.live is True


@pytest.mark.parametrize(
    ("endpoint", "line"),
    [
        ("sk-a-secret", "endpoint: a section is expected, as {key: value}"),
        (
            {"model": "m", "key_variable": "sk-a-secret"},
            "endpoint.key_variable: the name of an environment variable is",
        ),
        ({"model": "m", "timeout_s": "sk-a-secret"}, "endpoint.timeout_s: a number is expected"),
    ],
)
@pytest.mark.parametrize("place", ["teachers.paid", "benchmark.baselines.paid"])
def test_a_key_in_the_wrong_field_is_not_repeated(tmp_path, place, endpoint, line):
    section, *inner = place.split(".")
    kind = "endpoint" if section == "teachers" else "remote"
    changes = {"kind": kind, "endpoint": endpoint}
    for name in reversed(inner):
        changes = {name: changes}
    with pytest.raises(BadInput) as caught:
        load(tmp_path, **{section: changes})
    assert f"{place}.{line}" in str(caught.value) and "secret" not in str(caught.value)


def test_a_mapping_that_is_nested_too_deeply_is_refused():
    deep = {}
    for _ in range(3000):
        deep = {"name": deep}
    with pytest.raises(BadInput, match="the recipe is nested too deeply"):
        load_recipe(deep)
