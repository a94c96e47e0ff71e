import pytest

from tests.unit.test_recipe import BI, load, problems


class TestSectionsAgree:
    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            (
                {"objectives": {"score_match": {"teacher": "cros"}}},
                "objectives.score_match.teacher: no teacher is called 'cros'; did you mean 'cross'?",
            ),
            (
                {"export": {"keep_float": ["("]}},
                "export: keep_float '(' is no regular expression (missing ), unterminated subpattern at position 0)",
            ),
            (
                {"objectives": {"logit_scale": 5.0}},
                "objectives.logit_scale: changes nothing here; it is for a bi_encoder whose terms need logits",
            ),
            (
                {"objectives": {"teacher_logit_scale": 5.0}},
                "objectives.teacher_logit_scale: changes nothing here; it is for a bi_encoder teacher in terms that need logits",
            ),
            (
                {"objectives": {"labels": {"positive_from": 0.7}}},
                "objectives.labels.positive_from: changes nothing without loss infonce; leave it out",
            ),
            (
                {"teachers": {"cross": {"positive_from": 0.7}}},
                "teachers.cross.positive_from: changes nothing without loss infonce; leave it out",
            ),
            (
                {"signals": {"live": True, "runtime": "openvino"}},
                "signals.runtime: changes nothing with signals.live, which stores nothing and computes in torch; leave it out",
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
                "objectives: the student learns nothing; set one of labels, score_match, margin_mse, embedding_match, listnet, ranknet, lambda_loss, list_mle, adr_mse, cosent, rkd, similarity, cka, hidden_match, relation_match",
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
                "data.unlabelled: only a bi-encoder's objectives on embeddings (embedding_match, rkd, similarity, cka) or layers (hidden_match, relation_match) and a teacher of kind mlm learn from texts without pairs; set one or drop them",
            ),
            *(
                (
                    {"objectives": {name: {"teacher": "cross"}}},
                    f"objectives.{name}: it compares the candidates of a query; set data.candidates (say 4)",
                )
                for name in ("listnet", "ranknet", "lambda_loss", "list_mle", "adr_mse")
            ),
            *(
                (
                    {"objectives": {name: {"teacher": "bi"}}, "teachers": {"bi": BI}},
                    f"objectives.{name}: a cross-encoder student has no text embeddings; use score_match",
                )
                for name in ("rkd", "similarity", "cka")
            ),
            (
                {"objectives": {"cka": {"teacher": "cross"}}, "student": {"kind": "bi_encoder"}},
                "objectives.cka.teacher: cross is a cross-encoder; only a bi-encoder has text embeddings",
            ),
            (
                {
                    "objectives": {"labels": {"loss": "infonce", "guide": {"teacher": "cros"}}},
                    "student": {"kind": "bi_encoder"},
                },
                "objectives.labels.guide.teacher: no teacher is called 'cros'; did you mean 'cross'?",
            ),
            (
                {"objectives": {"labels": {"loss": "bce", "guide": {"teacher": "cross"}}}},
                "objectives.labels: guide is for loss infonce, not bce; leave it out",
            ),
            (
                {"objectives": {"labels": {"temperature": 0.1}}},
                "objectives.labels.temperature: changes nothing without loss infonce; leave it out",
            ),
            (
                {"teachers": {"cross": {"temperature": 0.1}}},
                "teachers.cross.temperature: changes nothing without loss infonce; leave it out",
            ),
            (
                {"objectives": {"score_match": {"loss": "logit_mse", "temperature": 2}}},
                "objectives.score_match: temperature is for bce and kl, not logit_mse; leave it out",
            ),
            (
                {"objectives": {"similarity": {"teacher": "bi", "temperature": 0.1}}},
                "objectives.similarity: temperature is for kl, not mse; leave it out",
            ),
            (
                {"objectives": {"lambda_loss": {"scheme": "lambdarank", "mu": 2}}, "data": {"candidates": 4}},
                "objectives.lambda_loss: mu is for scheme ndcg_loss2pp, not lambdarank; leave it out",
            ),
            (
                {"objectives": {"score_match": {"loss": "mse", "teacher_temperature": 2}}},
                "objectives.score_match: teacher_temperature is for bce and kl, not mse; leave it out",
            ),
            *(
                (
                    {
                        "objectives": {name: {"teacher": "use"}},
                        "teachers": {"use": {"kind": "file", "path": "x.npz", "gives": "embeddings"}},
                    },
                    f"objectives.{name}.teacher: use is of kind file, no model whose layers could be matched; models among the teachers: cross",
                )
                for name in ("hidden_match", "relation_match")
            ),
            (
                {"objectives": {"relation_match": {"teacher": "bi"}}, "teachers": {"bi": BI}},
                "objectives.relation_match.teacher: bi is a bi_encoder, and the student a cross_encoder, which reads other sequences; name a teacher of the student's kind, or use score_match",
            ),
            *(
                (
                    {"objectives": {"hidden_match": {"teacher": "cross", "layers": layers}}},
                    f"objectives.hidden_match.layers: got {layers!r}; it should be uniform, last, skip, or pairs such as {{0: 1, 2: 5}} (student: teacher)",
                )
                for layers in ("middle", {}, {"a": 1}, [0, 1])
            ),
            (
                {"objectives": {"hidden_match": {"teacher": "crs"}}},
                "objectives.hidden_match.teacher: no teacher is called 'crs'; did you mean 'cross'?",
            ),
            (
                {"objectives": {"relation_match": {"teacher": "cross", "queries": 0, "keys": 0, "values": 0}}},
                "objectives.relation_match: queries, keys and values are all 0, nothing is learned; set one",
            ),
            (
                {
                    "teachers": {"bi": BI},
                    "student": {"kind": "bi_encoder", "layers": None, "static": {}, "backbone": {"teacher": "bi"}},
                    "objectives": {"score_match": None, "hidden_match": {"teacher": "bi"}},
                },
                "objectives.hidden_match: a static student has no layers; use embedding_match",
            ),
            (
                {
                    "objectives": {"score_match": None, "hidden_match": {"teacher": "cross"}},
                    "export": {"precisions": ["int8"], "recover": {"match_student": None}},
                },
                "export.recover.match_student: objectives on layers (hidden_match) are not learned there, and nothing else is; leave it at 1.0",
            ),
            (
                {"objectives": {"cosent": {}}, "training": {"global_batch": 1}},
                "objectives.cosent: cosent compares the pairs of a step, and a step holds one; set training.global_batch (say 32)",
            ),
            (
                {"objectives": {"score_match": {"schedule": {"kind": "constant", "start": 0.5}}}},
                "objectives: nothing is learned from 0 to 0.5 of the steps, all terms are scheduled to 0 there; change a schedule, or leave one out",
            ),
            (
                {"objectives": {"score_match": {"schedule": {"start": 0.5, "end": 0.5}}}},
                "objectives.score_match.schedule: start 0.5 is not before end 0.5",
            ),
            (
                {"objectives": {"score_match": {"schedule": {"from": 1, "to": 1}}}},
                "objectives.score_match.schedule: from and to are both 1, nothing changes; set the weight instead",
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
                "teachers.cross.loss: a cross_encoder learns labels by bce or mse or cosent, not contrastive",
            ),
            (
                {"teachers": {"control": BI}},
                "teachers.control: the report calls a row control that is no teacher; choose another name",
            ),
            (
                {"teachers": {"adapted": {"kind": "mlm", "backbone": "some/encoder", "head": []}}},
                "teachers.adapted.head: means nothing for kind mlm; leave it out",
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
            (
                {"data": {"columns": {"query": "text", "document": "text"}}},
                "data.columns: query and document are both 'text', so each text would be matched with itself",
            ),
        ],
    )
    def test_or_say_which_do_not(self, tmp_path, changes, line):
        assert problems(tmp_path, **changes) == [line]

    def test_several_disagreements_come_together(self, tmp_path):
        lines = problems(
            tmp_path,
            teachers={"cross": {"frozen": True, "loss": "infonce"}},
            objectives={"score_match": {"loss": "kl"}},
        )
        assert [line.partition(":")[0] for line in lines] == [
            "teachers.cross.frozen",
            "teachers.cross.loss",
            "objectives.score_match.loss",
        ]

    def test_a_teacher_may_start_from_an_earlier_one(self, tmp_path):
        recipe = load(tmp_path, teachers={"more": {"kind": "bi_encoder", "backbone": {"teacher": "cross"}}})
        assert recipe.teachers["more"].backbone.teacher == "cross"

    def test_what_agrees_passes(self, tmp_path):
        recipe = load(
            tmp_path,
            data={"candidates": 4, "unlabelled": [{"path": "x.tsv"}]},
            teachers={"bi": BI},
            student={"kind": "bi_encoder", "prompts": ["q: ", "d: "]},
            objectives={
                "labels": {"loss": "infonce"},
                "score_match": {"loss": "kl"},
                "margin_mse": {"teacher": "bi"},
                "embedding_match": {"teacher": "bi"},
            },
        )
        assert recipe.objectives.teachers() == {"cross": {"scores"}, "bi": {"scores", "embeddings"}}


def test_fingerprints_keep_what_was_made_before_a_field_was_there():
    """A field that was a constant changes a fingerprint where its value changes, and nowhere else."""
    from distill.recipe.schema import Labels, Objectives, Teacher, Training

    assert "positive_from" not in Labels().deciding() and Labels(positive_from=0.7).deciding()["positive_from"] == 0.7
    objectives = Objectives(labels=Labels(loss="infonce", positive_from=0.7), logit_scale=5.0)
    assert objectives.deciding()["labels"]["positive_from"] == 0.7 and objectives.deciding()["logit_scale"] == 5.0
    assert set(Objectives(labels=Labels()).deciding()) == set(Objectives().model_dump()) - {
        "logit_scale",
        "teacher_logit_scale",
    }
    teacher = Teacher(kind="bi_encoder", backbone="x", training=Training(auxiliary_learning_rate=1e-2))
    assert teacher.deciding()["training"]["auxiliary_learning_rate"] == 1e-2
    assert "auxiliary_learning_rate" not in Teacher(kind="bi_encoder", backbone="x").deciding()["training"]
    assert set(teacher.deciding(exclude={"training"})) == set(teacher.model_dump()) - {"training", "positive_from"}


def test_a_name_too_long_for_a_folder_is_no_model(tmp_path):
    baselines = {"long": {"kind": "paragraphs", "model": "a" * 300}}
    assert problems(tmp_path, benchmark={"baselines": baselines})[0].startswith(
        "benchmark.baselines.long.model: no model"
    )


def test_further_files_have_two_columns(tmp_path):
    one = {"path": "a.csv", "columns": {"query": "text", "document": "text"}}
    for key in ("labelled_pairs", "unlabelled_pairs"):
        assert f"data.{key}.0.columns: query and document are both 'text'" in problems(tmp_path, data={key: one})[0]


@pytest.mark.parametrize("lengths", [[64, 32], [32, 32], []])
def test_bounds_of_lengths_rise_and_are_checked_before_anything_is_trained(tmp_path, lengths):
    line = f"benchmark.lengths: {lengths} do not rise; upper bounds in tokens are expected, as [64, 128, 256]"
    assert problems(tmp_path, benchmark={"lengths": lengths}) == [line]


def test_a_teacher_of_the_report_is_one_of_the_recipe(tmp_path):
    line = "benchmark.teachers: no teacher is called 'crss'; did you mean 'cross'?"
    assert problems(tmp_path, benchmark={"teachers": ["cross", "crss"]}) == [line]


def test_a_folder_called_tilde_is_not_made(tmp_path):
    line = "output_dir: ~/runs/x: ~ is not the home folder here; write the whole path"
    assert problems(tmp_path, ["output_dir=~/runs/x"]) == [line]
    remote = {"kind": "remote", "endpoint": {"model": "m"}, "cache": "~/answers"}
    assert problems(tmp_path, benchmark={"baselines": {"paid": remote}})[0].startswith(
        "benchmark.baselines.paid.cache: ~"
    )
