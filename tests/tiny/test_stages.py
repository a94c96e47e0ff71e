"""Training stages of a tiny student, for real: each starts where the one before ended, and a killed one where it was."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file

from distill.errors import BadInput
from distill.files.artefact import read_card
from distill.models.modeling import load_model, tokenizer_of, transformer_of
from distill.recipe.reading import load_recipe
from distill.run import Run
from distill.training import fitting
from distill.verify import verify
from recipes.cli import main
from students import build_student, train_student
from students.train import training_inputs, training_job
from teachers import cache_signals
from teachers.doctor import diagnose
from tests.conftest import BACKBONE, BI_TEACHER, ROOT, make_run, pairs_file, train_teachers_once, write_recipe
from tests.tiny.test_training import Interrupted, identical
from tests.unit.test_docs import blocks

pytestmark = pytest.mark.integration

BI = {
    "data": {"max_pairs": 120},
    "teachers": {"bi": BI_TEACHER, "cross": None},
    "student": {"kind": "bi_encoder", "backbone": {"teacher": "bi"}, "layers": [0, 1]},
    "objectives": {"score_match": None},
}
NARROW = {**BACKBONE, "width": 16, "feed_forward": 32, "layers": 1}
FRESH = {**BI, "student": {"kind": "bi_encoder", "backbone": NARROW, "layers": None}}
MATCH = {"embedding_match": {"teacher": "bi"}}
DROP = {"embedding_match": {"teacher": "bi", "projection": "drop"}}
GENERAL = {"objectives": MATCH, "training": {"max_steps": 3}}
TASK = {"objectives": {"labels": {}}, "training": {"max_steps": 2, "learning_rate": 1e-3}}
TWO = {"general": GENERAL, "task": TASK}


def taught(run):
    train_teachers_once(run)
    cache_signals(run)
    return run


def trained(run):
    train_student(taught(run))
    return run


def made_at(run):
    return {stage.name: (stage.student / "artefact.json").stat().st_mtime_ns for stage in run.stages}


def layers_of(folder):
    return transformer_of(load_model(folder)).config.num_hidden_layers


def test_each_stage_starts_from_the_student_of_the_one_before(tiny_run, caplog):
    caplog.set_level(logging.INFO)
    general, task = trained(tiny_run(**BI, stages=TWO)).stages
    first, last = read_card(general.student), read_card(task.student)
    assert first.parents["built"] == read_card(general.built).revision
    assert last.parents == {"stages/general/student": first.revision}
    assert (first.details["training"]["step"], last.details["training"]["step"]) == (3, 2)
    assert "stage task (2 of 2) starts from" in caplog.text
    assert "student: handed over: the weights; anew: AdamW's moments" in caplog.text
    assert last.recipe["stages"]["task"]["training"]["learning_rate"] == 1e-3
    before = made_at(task)
    train_student(tiny_run(**BI, stages=TWO))
    assert made_at(task) == before


# of two checkpoints of the first stage and one of the second
@pytest.mark.parametrize("after", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_killed_run_goes_on_at_its_stage_with_the_same_weights(tiny_run, monkeypatch, after):
    changes = {**BI, "training": {"checkpoint_seconds": 0, "dropout": 0.1}}
    calm = trained(tiny_run("calm", **changes, stages=TWO))
    run = taught(tiny_run("killed", **changes, stages=TWO))
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        Interrupted(patch, after)
        train_student(run)
    assert run.stages[0].student.exists() == (after > 2) and not run.student.exists()
    train_student(tiny_run("killed", **changes, stages=TWO))
    for there, here in zip(calm.stages, run.stages, strict=True):
        assert identical(there.student, here.student)


def test_a_changed_stage_is_trained_anew_with_those_after_it_alone(tiny_run):
    run = trained(tiny_run(**BI, stages=TWO))
    before, old = made_at(run), read_card(run.student).revision
    changed = {**TWO, "task": {**TASK, "training": {"max_steps": 1}}}
    with pytest.raises(
        BadInput, match=r"run/student was made from something else \(student\.training\.max_steps: 2 → 1"
    ):
        train_student(tiny_run(**BI, stages=changed))
    again = tiny_run(**BI, stages=changed, overwrite=True)
    train_student(again)
    assert made_at(again)["general"] == before["general"] and read_card(again.student).revision != old
    changed = {**changed, "general": {**GENERAL, "training": {"max_steps": 2}}}
    with pytest.raises(BadInput, match=r"stages/general/student was made from something else"):
        train_student(tiny_run(**BI, stages=changed))


def test_a_stage_of_another_name_is_refused_before_it_is_trained(tiny_run):
    trained(tiny_run(**BI, stages=TWO))
    run = tiny_run(**BI, stages={"other": GENERAL, "task": TASK})
    with pytest.raises(
        BadInput, match=r"it started from stages/general/student, and is to start from stages/other/student"
    ):
        train_student(run)
    assert not (run.folder / "stages" / "other").exists()
    train_student(tiny_run(**BI, stages=TWO))  # as it was, it is finished


def test_nothing_is_asked_twice(tiny_run, tmp_path, monkeypatch):
    from distill.signals import SignalCache

    asked, write = [], SignalCache.write
    monkeypatch.setattr(SignalCache, "write", lambda cache, kind, keys, values: (asked.extend((kind, *key) for key in keys.tolist()), write(cache, kind, keys, values))[1])  # fmt: skip
    texts = tmp_path / "texts.txt"
    texts.write_text("one text\nanother text\n", encoding="utf-8")
    both = {
        "objectives": {**MATCH, "score_match": {"teacher": "bi", "loss": "mse"}},
        "data": {"unlabelled": [{"path": str(texts)}]},
    }
    run = taught(tiny_run(**BI, stages={"general": GENERAL, "both": both}))
    train = run.split.train
    n_texts = len({*train.queries, *train.documents, *run.split.unlabelled})
    assert len(run.split.unlabelled) == 2 and run.stages[0].split.unlabelled == []
    assert len(asked) == len(set(asked)) == n_texts + len(set(zip(train.queries, train.documents, strict=True)))
    (manifest,) = run.signals("bi").glob("*/manifest.json")
    assert "scores" in json.loads(manifest.read_text())
    n = len(asked)
    cache_signals(tiny_run(**BI, stages={"general": GENERAL, "both": both}))
    train_student(run)
    assert len(asked) == n


class TestHandingOver:
    def step(self, run):
        objectives = run.recipe.objectives
        return fitting._build_step(
            training_job(run, "student", objectives, training_inputs(run, "student", objectives))
        )

    def test_of_a_projection_and_a_scale(self, tiny_run, caplog):
        caplog.set_level(logging.INFO)
        first = {"objectives": {**DROP, "labels": {"loss": "bce"}}, "training": {"max_steps": 3}}
        run = trained(tiny_run(**FRESH, stages={"first": first, "second": first}))
        kept = load_file(run.stages[0].student / "beside_the_model.safetensors")
        assert kept["projection"].shape == (32, 16) and kept["scale_and_bias"][0] != 10
        step = self.step(run)
        assert torch.equal(step.projection.weight, kept["projection"])
        assert torch.equal(step.scale_and_bias, kept["scale_and_bias"])
        assert (
            "handed over: the weights, the projection, scale and bias of cosines; anew: AdamW's moments" in caplog.text
        )
        assert not (run.student / "beside_the_model.safetensors").exists()  # the last one hands over to nobody

    def test_what_means_something_else_starts_anew(self, tiny_run, caplog):
        caplog.set_level(logging.INFO)
        changes = {
            **FRESH,
            "teachers": {"bi": BI_TEACHER, "other": {**BI_TEACHER, "frozen": False}, "cross": None},
        }
        first = {"objectives": {**DROP, "labels": {"loss": "bce"}}, "training": {"max_steps": 2}}
        other = {
            "embedding_match": {"teacher": "other", "projection": "drop"},
            "labels": {"loss": "bce"},
            "logit_scale": 5,
        }
        run = trained(tiny_run(**changes, stages={"first": first, "second": {**first, "objectives": other}}))
        step = self.step(run)
        assert step.scale_and_bias.tolist() == [5, 0]
        assert "anew: the projection, scale and bias of cosines, AdamW's moments" in caplog.text


@pytest.fixture(scope="module")
def shrunk(tmp_path_factory):
    """Two layers learn, one of them goes and what is left learns again, and then the labels."""
    stages = {"wide": GENERAL, "narrow": {**GENERAL, "student": {"layers": [0]}}, "task": TASK}
    student = {**BI["student"], "control": {"loss": "contrastive"}}
    folder = tmp_path_factory.mktemp("shrinking") / "run"
    return trained(make_run(folder, **{**BI, "student": student}, stages=stages))


class TestShrinking:
    def test_a_later_stage_cuts_the_student_of_the_one_before(self, shrunk):
        wide, narrow, task = shrunk.stages
        assert [layers_of(stage.student) for stage in shrunk.stages] == [2, 1, 1]
        assert read_card(narrow.built).parents == {
            "stages/wide/student": read_card(wide.student).revision,
            "bi": read_card(shrunk.teacher("bi")).revision,
        }
        weights, cut = load_model(wide.student).state_dict(), load_model(narrow.built).state_dict()
        assert all(torch.equal(weights[name], value) for name, value in cut.items())
        assert task.start == narrow.student

    def test_the_control_starts_from_the_same_cuts_without_training(self, shrunk):
        untrained = shrunk.folder / "stages/narrow/untrained"
        assert shrunk.untrained == untrained and layers_of(untrained) == layers_of(shrunk.control) == 1
        weights, cut = load_model(shrunk.folder / "built").state_dict(), load_model(untrained).state_dict()
        assert all(torch.equal(weights[name], value) for name, value in cut.items())
        control = read_card(shrunk.control)
        assert control.parents == {"stages/narrow/untrained": read_card(untrained).revision}
        assert control.details["control"]["steps"] == 3 + 3 + 2 == control.details["training"]["step"]

    def test_the_control_tries_the_learning_rate_of_each_stage(self, shrunk):
        said = read_card(shrunk.control).details["control"]
        assert set(said["trials"]) == {"contrastive at 0.001", "contrastive at 0.002"}
        assert said["learning_rate"] in (0.001, 0.002) and said["trials"][
            f"contrastive at {said['learning_rate']}"
        ] == max(said["trials"].values())

    def test_its_rows(self, shrunk):
        from distill.evaluation.benchmark import student_rows

        recipe = shrunk.stated.model_copy(update={"export": shrunk.recipe.export.model_copy(update={"precisions": ()})})
        rows = {row.name: row for row in student_rows(type(shrunk)(recipe))}
        assert list(rows) == ["untrained", "after wide", "after narrow", "student", "control"]
        assert rows["untrained"].path == shrunk.untrained
        # of another size than the student a row has a speed of its own
        assert (rows["after wide"].measured_as, rows["after narrow"].measured_as) == (None, "student")

    def test_verify_knows_what_each_folder_was_made_by(self, shrunk):
        shrunk.write_recipe()
        verdicts = verify(shrunk.folder)
        places = {verdict.place: verdict for verdict in verdicts if verdict.state == "ok"}
        assert {
            "built",
            "stages/wide/student",
            "stages/narrow/built",
            "stages/narrow/untrained",
            "student",
            "control",
        } <= set(places)
        assert [verdict for verdict in verdicts if verdict.state == "broken" or "recipe.json" in verdict.line] == []
        stages = {name: stage.model_dump(mode="json") for name, stage in shrunk.stated.stages.items()}
        stages["wide"]["training"]["max_steps"] = 9
        recipe = shrunk.folder / "recipe.json"
        recipe.write_text(json.dumps(json.loads(recipe.read_text()) | {"stages": stages}))
        noted = {
            verdict.place for verdict in verify(shrunk.folder) if "student.training.max_steps: 3 → 9" in verdict.line
        }
        assert noted == {"stages/wide/student"}
        shrunk.write_recipe()


@pytest.mark.slow
def test_dimensions_of_a_later_stage_lie_along_the_teacher_s_axes(tiny_run):
    from students.cut.dimensions import read_axes

    changes = {**BI, "student": {**BI["student"], "dimensions": 16}}
    stages = {"general": GENERAL, "task": GENERAL, "narrow": {**GENERAL, "student": {"dimensions": 8}}}
    general, task, narrow = trained(tiny_run(**changes, stages=stages)).stages
    assert [load_model(stage.student).get_embedding_dimension() for stage in (general, task, narrow)] == [16, 16, 8]
    assert read_axes(task.built).shape == (32, 16) and task.built == general.built
    assert read_axes(narrow.built).shape == (32, 8)
    narrow.write_recipe()
    assert [
        verdict for verdict in verify(narrow.folder) if verdict.state == "broken" or "recipe.json" in verdict.line
    ] == []
    first = load_model(narrow.built).encode(["a text"])[0]
    assert abs(float((first**2).sum()) - 1) < 1e-5


@pytest.mark.slow
def test_layers_go_and_the_axes_stay(tiny_run):
    from students.cut.dimensions import read_axes

    changes = {**BI, "student": {**BI["student"], "dimensions": 16}}
    run = trained(tiny_run(**changes, stages={"wide": GENERAL, "narrow": {**GENERAL, "student": {"layers": [0], "width": {"hidden": 16}}}}))  # fmt: skip
    wide, narrow = run.stages
    assert (read_axes(narrow.built) == read_axes(wide.built)).all()
    assert transformer_of(load_model(run.student)).config.hidden_size == 16
    assert load_model(run.student).get_embedding_dimension() == 16


def test_a_stage_into_another_space_gets_an_output_into_it(tiny_run):
    labels, match = trained(tiny_run(**FRESH, stages={"labels": TASK, "match": GENERAL})).stages
    assert load_model(labels.student).get_embedding_dimension() == 16
    assert match.built == match.folder / "stages/match/built"
    assert (
        load_model(match.student).get_embedding_dimension()
        == 32
        == load_model(match.untrained).get_embedding_dimension()
    )


def test_a_fresh_student_reads_the_text_of_all_stages(tiny_run, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"zzyzx{n} 뷁" for n in range(40)), encoding="utf-8")
    later = {"objectives": DROP, "data": {"unlabelled": [{"path": str(texts)}]}}
    run = taught(tiny_run(**FRESH, stages={"task": TASK, "general": later}))
    build_student(run)
    assert "뷁" in tokenizer_of(load_model(run.built)).get_vocab()
    assert "뷁" not in tokenizer_of(load_model(run.teacher("bi"))).get_vocab()


def test_the_doctor_looks_at_each_stage(tiny_run):
    run = tiny_run(**BI, stages=TWO)
    train_teachers_once(run)
    about = {finding.about.partition(":")[0] for finding in diagnose(run, n_pairs=50).findings}
    assert about == {"stage general", "stage task"}


@pytest.mark.slow
def test_a_whole_run_has_a_row_after_each_stage(tmp_path, capsys):
    measuring = {"seconds": 0.1, "max_seconds": 0.1, "throughput_pairs": 16, "bootstrap": 50, "lengths": [32]}
    recipe = write_recipe(
        tmp_path,
        **{**BI, "student": {**BI["student"], "control": {"loss": "contrastive"}}},
        stages=TWO,
        export={"precisions": []},
        benchmark={**measuring, "baselines": {}, "teachers": [], "teacher_exports": []},
    )
    assert main(["run", str(recipe), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["role"]) for row in report["rows"]] == [
        ("untrained", "untrained"),
        ("after general", "stage"),
        ("student", "student"),
        ("control", "control"),
    ]
    names = [one["name"] for one in report["comparisons"]]
    assert {"after general − untrained", "student − after general"} <= set(names)
    card = (tmp_path / "run/student/README.md").read_text(encoding="utf-8")
    assert "objective `embedding_match` of stage general" in card and "objective `labels` of stage task" in card
    page = (tmp_path / "run/report/index.html").read_text(encoding="utf-8")
    assert "student, after a stage" in page


TINY_PAGE = [
    f"data.train={pairs_file()}",
    "data.evaluation=null",
    "data.columns={}",
    "data.label_range=[0, 1]",
    "data.max_pairs=120",
    f"teachers.minilm={{kind: bi_encoder, backbone: { ({**BACKBONE, 'layers': 4}) }, max_length: 64}}",
    "student.max_length=64",
    "student.control=false",
    "training.max_steps=2",
    "training.precision=fp32",
    "training.tensorboard=false",
]


@pytest.mark.parametrize("number", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_the_recipes_of_the_page_train(tmp_path, number):
    """With a tiny teacher of four layers in MiniLM's place."""
    text = blocks(ROOT / "docs/how-to/stages.md", "yaml")[number]
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "texts.txt").write_text("one text\nanother\n", encoding="utf-8")
    texts = f"stages.general.data={{unlabelled: [{{path: {tmp_path / 'texts.txt'}}}]}}"
    overrides = [*TINY_PAGE, f"output_dir={tmp_path / 'run'}", *([texts] if number == 0 else [])]
    run = trained(Run(load_recipe(tmp_path / "recipe.yaml", overrides)))
    assert [layers_of(stage.student) for stage in run.stages] == ([3, 3] if number == 0 else [3, 1])
    if number:
        assert transformer_of(load_model(run.student)).config.intermediate_size == BACKBONE["feed_forward"] // 2


class TestOtherStudents:
    @pytest.mark.slow
    def test_a_cross_encoder_loses_a_layer_between_stages(self, tiny_run):
        cross = {"objectives": {"score_match": {"teacher": "cross", "loss": "bce"}}, "training": {"max_steps": 2}}
        changes = {"data": {"max_pairs": 120}, "student": {"layers": [0, 1]}, "objectives": {"score_match": None}}
        narrow = {**cross, "student": {"layers": {"importance": 1}, "width": {"feed_forward": 0.5}}}
        run = trained(tiny_run(**changes, stages={"wide": cross, "narrow": narrow}))
        assert [layers_of(stage.student) for stage in run.stages] == [2, 1] and layers_of(run.untrained) == 1

    def test_word_embeddings_become_a_product_between_stages(self, tiny_run):
        narrow = {**GENERAL, "student": {"embedding_rank": 8}}
        run = trained(tiny_run(**BI, stages={"whole": GENERAL, "product": narrow}))
        kinds = [transformer_of(load_model(stage.student)).config.model_type for stage in run.stages]
        assert kinds == ["bert", "mobilebert"]

    def test_a_table_of_tokens_learns_in_stages(self, tiny_run):
        student = {"kind": "bi_encoder", "backbone": {"teacher": "bi"}, "layers": None, "static": {}, "dimensions": 16}
        stages = {"general": GENERAL, "narrow": {**GENERAL, "student": {"dimensions": 8}}}
        run = trained(tiny_run(**{**BI, "student": student}, stages=stages))
        assert [load_model(stage.student).get_embedding_dimension() for stage in run.stages] == [16, 8]

    @pytest.mark.slow
    def test_a_student_of_one_side_learns_in_stages(self, tiny_run):
        student = {**BI["student"], "asymmetric": {"side": "query", "min_cosine": -1, "min_recall": 0}, "control": True}
        run = trained(tiny_run(**{**BI, "student": student}, stages={"general": GENERAL, "task": {**TASK, "objectives": {**MATCH, "labels": {}}}}))  # fmt: skip
        assert read_card(run.student).details["asymmetric"]["teacher"] == "bi"
        assert read_card(run.control).details["training"]["step"] == 5
