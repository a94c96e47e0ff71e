"""Training stages of a recipe: what is merged, what is refused, and which texts a stage may learn from."""

import pytest

from distill.data.pairs import joined
from distill.data.splitting import text_key
from distill.recipe.reading import load_recipe
from tests.conftest import BI_TEACHER, make_run, tiny_recipe

STUDENT = {"kind": "bi_encoder", "backbone": {"teacher": "bi"}, "layers": [0, 1], "dimensions": None}
BI = {"teachers": {"bi": BI_TEACHER, "cross": None}, "student": STUDENT, "objectives": {"score_match": None}}
GENERAL = {"objectives": {"embedding_match": {"teacher": "bi"}}, "training": {"epochs": 2}}
TASK = {"objectives": {"labels": {}}}


def run_of(tmp_path, stages, **changes):
    return make_run(tmp_path / "run", **{**BI, **changes}, stages=stages)


def problem(tmp_path, stages, **changes):
    from distill.recipe.schema import Recipe

    with pytest.raises(ValueError) as caught:
        Recipe.model_validate(tiny_recipe(tmp_path / "run", **{**BI, **changes}, stages=stages))
    return str(caught.value)


class TestMerging:
    def test_training_and_data_go_key_by_key_and_objectives_whole(self, tmp_path):
        stages = {
            "general": {**GENERAL, "data": {"max_pairs": 100}},
            "task": {**TASK, "training": {"learning_rate": 1e-4}, "data": {"validation_share": 0.2}},
        }
        own = {"training": {"epochs": 5, "weight_decay": 0.5}}
        run = run_of(tmp_path, stages, student={**STUDENT, **own}, training={"global_batch": 16})
        general, task = run.stages
        assert task is run and (general.name, task.name) == ("general", "task")
        for stage, epochs, rate in ((general, 2, 2e-3), (task, 5, 1e-4)):
            training = stage.student_section.training
            assert (training.epochs, training.learning_rate) == (epochs, rate)
            assert (training.weight_decay, training.global_batch) == (0.5, 16)  # of the student, and of the recipe
        assert (general.recipe.data.max_pairs, general.recipe.data.validation_share) == (100, 0.1)
        assert (task.recipe.data.max_pairs, task.recipe.data.validation_share) == (None, 0.2)
        assert list(general.recipe.objectives.terms()) == ["embedding_match"]
        assert list(task.recipe.objectives.terms()) == ["labels"]
        assert run.stated.stages and not run.recipe.stages

    def test_what_a_stage_does_not_say_is_the_recipe_s(self, tmp_path):
        stages = {"first": {"training": {"epochs": 2}}, "second": {}}
        run = run_of(tmp_path, stages, objectives={"score_match": None, "embedding_match": {"teacher": "bi"}})
        assert [stage.recipe.objectives for stage in run.stages] == 2 * [run.stated.objectives]
        assert run.stages[0].split is run.split  # read once

    def test_the_stored_recipe_reads_as_the_same(self, tmp_path):
        stages = {"general": {**GENERAL, "data": {"max_pairs": 100}}, "task": {**TASK, "student": {"layers": [0]}}}
        recipe = run_of(tmp_path, stages).stated
        assert type(recipe).model_validate(recipe.model_dump(mode="json")) == recipe

    def test_a_recipe_without_stages_is_one(self, tmp_path):
        run = make_run(tmp_path / "run")
        assert run.stages == (run,) and run.for_teachers is run and run.recipe is run.stated
        assert (run.name, run.before, run.cut, run.builds) == (None, None, None, True)
        assert run.start == run.built == run.untrained == run.folder / "built"

    def test_folders(self, tmp_path):
        stages = {"wide": GENERAL, "narrow": {**GENERAL, "student": {"layers": [0]}}, "task": TASK}
        wide, narrow, task = run_of(tmp_path, stages).stages
        folder = task.folder
        assert (wide.start, wide.student) == (folder / "built", folder / "stages/wide/student")
        assert (narrow.start, narrow.untrained) == (folder / "stages/narrow/built", folder / "stages/narrow/untrained")
        assert (task.start, task.student) == (narrow.student, folder / "student")
        assert (task.built, task.untrained) == (narrow.built, narrow.untrained)
        assert not task.builds and task.space == ("bi",)  # labels leave the embeddings where they are

    def test_an_override_of_one_stage(self, tmp_path):
        import yaml

        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(tiny_recipe(tmp_path / "run", **BI, stages={"general": GENERAL, "task": TASK})))
        recipe = load_recipe(path, ["stages.task.training.epochs=7"])
        assert [own.student.training.epochs for own in recipe.in_stages] == [2, 7]


class TestRefusals:
    @pytest.mark.parametrize(
        ("stages", "said"),
        [
            ({"a": {"objectives": {"labels": {"loss": "mse"}}}}, "stages.a.objectives.labels.loss: a bi_encoder learns"),
            ({"a": {}, "b": TASK}, "stages.a.objectives: the student learns nothing"),
            ({"a": GENERAL, "b": {"objectives": {"margin_mse": {"teacher": "bi"}}}}, "stages.b.objectives.margin_mse: margins"),
            ({"a": GENERAL, "b": {"objectives": {"embedding_match": {"teacher": "usf"}}}}, "stages.b.objectives.embedding_match.teacher: no teacher"),
            ({"a": {**TASK, "data": {"evaluation_share": 0.3}}}, "stages.a.data.evaluation_share: all stages are judged"),
            ({"a": {**TASK, "data": {"evaluation": "x.csv"}}}, "stages.a.data.evaluation: all stages are judged"),
            ({"a": {**TASK, "student": {"layers": [0]}}}, "stages.a.student: the first stage trains what the section"),
            ({"a": TASK, "b": {**TASK, "student": {}}}, "nothing is taken away"),
            ({"a": {**TASK, "data": {"unlabelled": [{"path": "x.txt"}]}}}, "stages.a.data.unlabelled: only a bi-encoder's objectives on embeddings"),
        ],
    )  # fmt: skip
    def test_in_one_line_with_its_place(self, tmp_path, stages, said):
        assert said in problem(tmp_path, stages)

    def test_keys_that_no_stage_has(self, tmp_path):
        import yaml

        from distill.errors import BadInput

        path = tmp_path / "recipe.yaml"
        stages = {"a": {**TASK, "trainin": {}, "data": {"trian": "x"}, "student": {"layer": [0], "kind": "bi_encoder"}}}
        path.write_text(yaml.safe_dump(tiny_recipe(tmp_path / "run", **BI, stages=stages)))
        with pytest.raises(BadInput) as caught:
            load_recipe(path)
        lines = str(caught.value).splitlines()[1:]
        assert sorted(line.strip() for line in lines) == [
            "stages.a.data.trian: unknown key; did you mean 'train'?",
            "stages.a.student.kind: unknown key; known: dimensions, embedding_rank, layers, width",
            "stages.a.student.layer: unknown key; did you mean 'layers'?",
            "stages.a.trainin: unknown key; did you mean 'training'?",
        ]

    def test_what_stages_inherit_is_said_once(self, tmp_path):
        import yaml

        from distill.errors import BadInput

        path = tmp_path / "recipe.yaml"
        stages = {"a": {**GENERAL, "data": {"max_pairs": 9}}, "b": {**TASK, "training": {"epochs": 2}}}
        recipe = tiny_recipe(
            tmp_path / "run", **BI, stages=stages, data={"max_validation_pairs": 0}, training={"schedule": "x"}
        )
        path.write_text(yaml.safe_dump(recipe))
        with pytest.raises(BadInput) as caught:
            load_recipe(path)
        lines = [line.strip().partition(":")[0] for line in str(caught.value).splitlines()[1:]]
        assert sorted(lines) == ["data.max_validation_pairs", "training.schedule"]

    def test_objectives_that_no_stage_takes(self, tmp_path):
        said = problem(tmp_path, {"a": TASK}, objectives={"score_match": {"teacher": "bi"}})
        assert "objectives: every stage has objectives of its own" in said

    def test_stages_without_a_student(self, tmp_path):
        assert "stages: there is no student to train in stages" in problem(tmp_path, {"a": TASK}, student=None)

    def test_a_product_of_a_product_and_more_dimensions(self, tmp_path):
        cut = {**GENERAL, "student": {"embedding_rank": 8, "dimensions": 32}}
        said = problem(tmp_path, {"a": GENERAL, "b": cut}, student={**STUDENT, "embedding_rank": 16, "dimensions": 16})
        assert "stages.b.student.embedding_rank: the word embeddings are a product already" in said
        assert "stages.b.student.dimensions: 32 of 16 takes nothing away" in said

    def test_an_index_of_two_teachers(self, tmp_path):
        other = {"objectives": {"embedding_match": {"teacher": "other"}}}
        changes = {
            "teachers": {"bi": BI_TEACHER, "other": BI_TEACHER, "cross": None},
            "student": {**STUDENT, "asymmetric": {}},
        }
        assert "stages: an asymmetric student has one index" in problem(tmp_path, {"a": GENERAL, "b": other}, **changes)

    def test_a_plan_of_a_student_that_is_cut_again(self, tmp_path):
        import yaml

        from distill.errors import BadInput
        from distill.recipe.planning import load_plan

        path, stages = tmp_path / "recipe.yaml", {"a": GENERAL, "b": {**GENERAL, "student": {"layers": [0]}}}
        path.write_text(yaml.safe_dump(tiny_recipe(tmp_path / "run", **BI, stages=stages, plan={"budget_mb": 5})))
        with pytest.raises(BadInput, match=r"stages\.b\.student: it cuts the planned student again"):
            load_plan(str(path), [], {}, None)


class TestData:
    """What a stage names may hold the recipe's held-out texts, and what validates another stage."""

    def write(self, path, pairs):
        lines = ["query\tdocument\tlabel", *(f"{query}\t{document}\t{label}" for query, document, label in pairs)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    def run(self, tmp_path):
        own = [(f"query {n}", f"document {n}", n % 2) for n in range(60)]
        other = [(f"other query {n}", f"other document {n}", n % 2) for n in range(40)]
        texts = tmp_path / "texts.txt"
        texts.write_text(
            "\n".join(text for pair in [*own, *other] for text in pair[:2]) + "\nalone\n", encoding="utf-8"
        )
        general = {**GENERAL, "data": {"unlabelled": [{"path": str(texts)}]}}
        task = {**TASK, "data": {"train": self.write(tmp_path / "other.tsv", other + own)}}
        data = {"train": self.write(tmp_path / "own.tsv", own), "evaluation_share": 0.2, "validation_share": 0.2}
        return run_of(tmp_path, {"general": general, "task": task}, data=data)

    def test_nobody_learns_from_what_judges_another(self, tmp_path):
        run = self.run(tmp_path)
        general, task = run.stages
        assert general.split.evaluation == task.split.evaluation == run.for_teachers.split.evaluation
        assert set(task.split.validation.queries) - set(general.split.validation.queries)
        held_out = {
            text
            for split in (general.split, task.split)
            for part in (split.validation, split.evaluation)
            for text in (*part.queries, *part.documents)
        }
        for split in (general.split, task.split, run.for_teachers.split):
            assert len(split.train) > 10
            assert held_out.isdisjoint([*split.train.queries, *split.train.documents, *split.unpaired])
        assert "alone" in general.split.unlabelled and task.split.unlabelled == []
        assert (
            "12 training pairs hold a text that is an evaluation text and were left out of training" in task.split.notes
        )

    def test_texts_without_labels_leave_the_pairs_as_they_are(self, tmp_path):
        """Not only the same pairs: a leak of a file is said and stays, as in a recipe without stages."""
        pairs = [(f"query {n}", f"document {n}", n % 2) for n in range(60)]
        texts = tmp_path / "texts.txt"
        texts.write_text("alone\n", encoding="utf-8")
        evaluation = self.write(
            tmp_path / "evaluation.tsv", [*pairs[:5], *((f"x {n}", f"y {n}", n % 2) for n in range(9))]
        )
        data = {"train": self.write(tmp_path / "own.tsv", pairs), "evaluation": evaluation, "validation_share": 0.2}
        stages = {"general": {**GENERAL, "data": {"unlabelled": [{"path": str(texts)}]}}, "task": TASK}
        general, task = run_of(tmp_path, stages, data=data).stages
        assert general.split.train is task.split.train and general.split.validation is task.split.validation
        assert (general.split.unlabelled, task.split.unlabelled) == (["alone"], [])
        assert any(note.startswith("leak: 10 of 28") for note in task.split.notes)

    def test_teachers_learn_from_the_recipe_s_own_data(self, tmp_path):
        run = self.run(tmp_path)
        assert run.for_teachers.recipe.data == run.stated.data
        assert not any(query.startswith("other") for query in run.for_teachers.split.train.queries)

    def test_all_that_is_learned_from_is_there_once(self, tmp_path):
        run = self.run(tmp_path)
        learned = run.learned
        pairs = list(zip(learned.train.queries, learned.train.documents, strict=True))
        assert len(pairs) == len(set(pairs))
        assert set(learned.train.queries) == {query for stage in run.stages for query in stage.split.train.queries}
        assert learned.unlabelled == run.stages[0].split.unlabelled
        assert joined([run.split]) is run.split
        assert {text_key(text) for text in learned.unpaired}.isdisjoint(map(text_key, run.split.evaluation.queries))
