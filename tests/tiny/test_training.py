"""Teachers and students on tiny models: what the loop promises, and what stands in the folders afterwards."""

import contextlib
import json
import math
import shutil

import numpy as np
import pyarrow
import pytest
import torch
from safetensors.torch import load_file

from distill.errors import BadInput, JobFailed, Terminated
from distill.files.artefact import read_card, revision
from distill.models.modeling import load_model
from distill.recipe.schema import Training
from distill.runtime.opening import load
from distill.training import fitting
from distill.training import loop as training
from distill.training.trainset import Tokenization, TrainSet, validation_value
from recipes.cli import main
from students import build_student, train_student
from students.cut.depth import keep_layers
from teachers import cache_signals, train_teachers
from teachers.train import train_teacher
from tests.conftest import BACKBONE, BI_TEACHER, make_run, train_teachers_once, write_recipe

pytestmark = pytest.mark.integration

SHORT = {"max_pairs": 120}  # 96 pairs for training: 3 steps of 32 an epoch
ONLY_BI = {"bi": BI_TEACHER, "cross": None}
BI_STUDENT = {"kind": "bi_encoder", "backbone": {"teacher": "bi"}, "layers": [0], "max_length": 64, "control": False}
CROSS = {"kind": "cross_encoder", "backbone": BACKBONE, "head": [16], "max_length": 64}


@pytest.fixture(autouse=True)
def log_every_step(monkeypatch):
    monkeypatch.setattr(training, "_LOG_EVERY_STEPS", 1)


def weights(folder):
    """All weights of a model folder by file and name."""
    return {
        f"{path.parent.relative_to(folder)}/{name}": value
        for path in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def furthest(folder, other):
    """The largest difference between the weights of two folders.

    A bias of the attention's keys moves all scores of a query alike, which softmax does not see: its gradient is zero
    but for rounding, and Adam makes steps of rounding as long as any other.
    """
    ours, theirs = weights(folder), weights(other)
    assert set(ours) == set(theirs)
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours if "key.bias" not in name)


def load_model_weights(folder):
    """The weights of a folder's transformer under the names of today."""
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder).state_dict()


def identical(folder, other):
    ours, theirs = weights(folder), weights(other)
    return set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def history(folder):
    return [row for row in read_card(folder).details["history"] if "learning_rate" in row]


def validations(folder):
    return [row["validation"] for row in read_card(folder).details["history"] if "validation" in row]


def losses_of(folder):
    skipped = {"step", "seconds", "learning_rate", "grad_norm"}
    return [sum(value for name, value in row.items() if name not in skipped) for row in history(folder)]


def teacher_of(run, name="cross"):
    train_teachers(run)
    return run.teacher(name)


def built_of(run):
    """The student before training."""
    build_student(run)
    return load_model(run.built)


def student_of(run):
    train_teachers_once(run)
    cache_signals(run)
    train_student(run)
    return run.student


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A teacher of two epochs whose steps are passes of 32 pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_LOG_EVERY_STEPS", 1)
        return teacher_of(make_run(tmp_path_factory.mktemp("whole") / "run", training={"epochs": 2}))


class TestCurve:
    @pytest.mark.parametrize("settings", [{"micro_batch": 16}, {"micro_batch": 4}, {"token_budget": 512}], ids=str)
    def test_is_the_same_however_a_step_is_cut(self, tiny_run, whole, settings):
        folder = teacher_of(tiny_run(training={"epochs": 2, **settings}))
        assert len(losses_of(folder)) == 12
        assert losses_of(folder) == pytest.approx(losses_of(whole), abs=1e-5)
        assert furthest(folder, whole) < 1e-5

    def test_is_the_same_with_gradient_checkpointing(self, tiny_run, whole):
        folder = teacher_of(tiny_run(training={"epochs": 2, "gradient_checkpointing": True}))
        assert losses_of(folder) == pytest.approx(losses_of(whole), abs=1e-5)

    def test_is_another_with_another_seed(self, tiny_run, whole):
        assert furthest(teacher_of(tiny_run(training={"epochs": 2}, seed=7)), whole) > 1e-3

    def test_goes_down(self, whole):
        losses = losses_of(whole)
        assert np.mean(losses[-3:]) < np.mean(losses[:3])

    def test_history_says_what_happened(self, whole):
        row = history(whole)[0]
        assert set(row) == {"step", "seconds", "labels", "learning_rate", "grad_norm"}
        assert [row["step"] for row in history(whole)] == list(range(1, 13))
        assert read_card(whole).details["training"]["step"] == 12
        assert row["labels"] == pytest.approx(math.log(2), abs=0.1)  # an untrained head is undecided


class TestSchedule:
    def test_linear_by_hand(self):
        settings = Training(warmup_share=0.2, schedule="linear")
        # 10 steps, 2 of warm-up: 1/2, 2/2, then 8/8, 7/8, … 1/8
        assert [training.learning_rate_factor(step, 10, settings) for step in range(10)] == pytest.approx(
            [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
        )

    def test_cosine_by_hand(self):
        settings = Training(warmup_share=0, schedule="cosine")
        # ½(1 + cos(π·step/4))
        assert [training.learning_rate_factor(step, 4, settings) for step in range(4)] == pytest.approx(
            [1, 0.853553, 0.5, 0.146447], abs=1e-6
        )

    def test_constant_by_hand(self):
        settings = Training(warmup_share=0.5, schedule="constant")
        assert [training.learning_rate_factor(step, 4, settings) for step in range(4)] == [0.5, 1, 1, 1]

    def test_is_what_the_loop_uses_and_ends_at_max_steps(self, tiny_run):
        settings = {"max_steps": 5, "warmup_share": 0.2, "learning_rate": 1e-3, "micro_batch": 8}
        folder = teacher_of(tiny_run(data=SHORT, training={**settings, "epochs": 3}))
        assert [row["learning_rate"] for row in history(folder)] == pytest.approx(
            [1e-3, 1e-3, 0.75e-3, 0.5e-3, 0.25e-3]
        )


class Interrupted:
    """Interrupts the loop after a number of checkpoints, as Ctrl-C would."""

    def __init__(self, monkeypatch, after):
        self.left, save = after, training._Loop._save

        def save_then_stop(loop):
            save(loop)
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

        monkeypatch.setattr(training._Loop, "_save", save_then_stop)


RESUMED = {"epochs": 2, "dropout": 0.1, "checkpoint_seconds": 0, "evaluations_per_epoch": 2, "micro_batch": 16}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run with dropout and evaluations ends with that nobody interrupts."""
    return teacher_of(make_run(tmp_path_factory.mktemp("undisturbed") / "run", data=SHORT, training=RESUMED))


class TestResume:
    @pytest.mark.parametrize(
        "after", [3, pytest.param(1, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)]
    )
    def test_ends_with_the_same_bits(self, tiny_run, undisturbed, monkeypatch, after):
        run = tiny_run(data=SHORT, training=RESUMED)
        with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
            Interrupted(patch, after)
            train_teachers(run)
        assert not run.teacher("cross").exists()
        assert len(list(run.work.glob("teacher cross-*/step-*"))) == 1
        folder = teacher_of(run)
        assert identical(folder, undisturbed)
        assert validations(folder) == validations(undisturbed)
        assert not list(run.work.glob("teacher cross-*"))

    def test_ends_with_the_same_bits_when_interrupted_twice(self, tiny_run, undisturbed, monkeypatch):
        run = tiny_run(data=SHORT, training=RESUMED)
        for after in (2, 3):
            with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
                Interrupted(patch, after)
                train_teachers(run)
        assert identical(teacher_of(run), undisturbed)

    def test_sigterm_leaves_a_checkpoint_of_its_step(self, tiny_run, undisturbed, monkeypatch):
        """The signal itself is raised in tests/unit/test_termination.py: here it would end the process of all tests if it went wrong."""
        run = tiny_run(data=SHORT, training={**RESUMED, "checkpoint_seconds": 1000})
        steps, one_step = [], training._Loop._one_step

        def counted(loop, began):
            one_step(loop, began)
            steps.append(loop.state.step)

        @contextlib.contextmanager
        def requests(grace):
            assert grace is None  # of one process
            yield lambda: 3 in steps

        with pytest.raises(Terminated, match=r"teacher cross: SIGTERM at step 3 of \d+; its checkpoint is written"):
            with monkeypatch.context() as patch:
                patch.setattr(training._Loop, "_one_step", counted)
                patch.setattr(training, "termination_requests", requests)
                train_teachers(run)
        assert steps == [1, 2, 3] and Terminated.exit_code == 143
        assert [path.name for path in run.work.glob("teacher cross-*/step-*")] == ["step-00000003"]
        assert identical(teacher_of(run), undisturbed)

    def test_half_a_checkpoint_is_none(self, tiny_run, undisturbed, monkeypatch):
        run = tiny_run(data=SHORT, training=RESUMED)
        with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
            Interrupted(patch, 3)
            train_teachers(run)
        (checkpoint,) = run.work.glob("teacher cross-*/step-*")
        half = checkpoint.with_name(".checkpoint.tmp")
        half.mkdir()
        (half / "model.safetensors").write_bytes(b"half")
        assert identical(teacher_of(run), undisturbed)

    def test_of_another_recipe_starts_afresh(self, tiny_run, monkeypatch):
        run = tiny_run(data=SHORT, training=RESUMED)
        with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
            Interrupted(patch, 3)
            train_teachers(run)
        folder = teacher_of(tiny_run(data=SHORT, training={**RESUMED, "learning_rate": 1e-3}))
        assert history(folder)[0]["step"] == 1
        assert len(history(folder)) == 6

    @pytest.mark.slow
    def test_of_a_student_with_a_projection_schedules_and_a_loss_over_whole_steps(self, tiny_run, monkeypatch):
        changes = {
            "data": SHORT,
            "teachers": ONLY_BI,
            "training": RESUMED,
            "student": {**BI_STUDENT, "backbone": {**BACKBONE, "width": 16, "layers": 1}},
            "objectives": {
                "score_match": {"teacher": "bi", "loss": "bce", "schedule": {"kind": "cosine", "from": 1, "to": 0.2}},
                "embedding_match": {
                    "teacher": "bi",
                    "projection": "drop",
                    "schedule": {"kind": "constant", "start": 0.2},
                },
                "cka": {"teacher": "bi"},
            },
        }
        undisturbed = student_of(tiny_run("undisturbed", **changes))
        run = tiny_run("disturbed", **changes)
        train_teachers_once(run)
        cache_signals(run)
        with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
            Interrupted(patch, 3)
            train_student(run)
        train_student(run)
        assert identical(run.student, undisturbed)
        assert history(run.student)[0]["embedding_match"] == 0 < history(run.student)[-1]["embedding_match"]


class TestEvaluation:
    SETTINGS = {"epochs": 5, "evaluations_per_epoch": 1, "schedule": "constant", "warmup_share": 0}  # noqa: RUF012

    def scripted(self, monkeypatch, values):
        """Let the evaluations give these values, one after the other."""
        left = iter(values)
        monkeypatch.setattr("distill.training.trainset.validation_value", lambda scores, labels: next(left))

    def test_stops_after_patience_without_gain(self, tiny_run, monkeypatch):
        self.scripted(monkeypatch, [0.6, 0.7, 0.7, 0.65, 0.9])
        folder = teacher_of(run := tiny_run(data=SHORT, training={**self.SETTINGS, "patience": 2}))
        summary = read_card(folder).details["training"]
        # three steps an epoch: the fourth evaluation, at step 12, is the second one in a row that is no better than 0.7
        assert (summary["step"], summary["best_step"], summary["best_value"]) == (12, 6, 0.7)
        assert summary["stopped_early"] is True
        assert read_card(folder).metrics == {"validation": 0.7, "n": len(run.split.validation)}

    def test_patience_that_ends_with_the_last_step_stops_nothing(self, tiny_run, monkeypatch):
        self.scripted(monkeypatch, [0.7, 0.6, 0.6])
        folder = teacher_of(tiny_run(data=SHORT, training={**self.SETTINGS, "epochs": 3, "patience": 2}))
        summary = read_card(folder).details["training"]
        assert (summary["step"], summary["best_step"], summary["stopped_early"]) == (9, 3, False)

    def test_takes_the_best_weights_not_the_last(self, tiny_run, monkeypatch):
        self.scripted(monkeypatch, [0.6, 0.9, 0.7, 0.65, 0.8])
        best = teacher_of(tiny_run("best", data=SHORT, training=self.SETTINGS))
        assert len(losses_of(best)) == 15
        ended_there = {**self.SETTINGS, "max_steps": 6, "evaluations_per_epoch": 0}
        assert identical(best, teacher_of(tiny_run("ended", data=SHORT, training=ended_there)))

    def test_every_process_has_read_the_best_weights_before_they_are_removed(self, tiny_run, monkeypatch):
        from accelerate import Accelerator
        from safetensors import torch as safetensors

        order = []

        def told(name, function):
            return lambda *given, **options: (order.append(name), function(*given, **options))[1]

        monkeypatch.setattr(safetensors, "load_file", told("read", safetensors.load_file))
        monkeypatch.setattr(Accelerator, "wait_for_everyone", told("wait", Accelerator.wait_for_everyone))
        monkeypatch.setattr("distill.training.fitting._save", told("save", fitting._save))
        teacher_of(tiny_run(data=SHORT, training={**self.SETTINGS, "epochs": 1}))
        assert order[order.index("save") - 2 : order.index("save")] == ["read", "wait"]

    def test_off_takes_the_last(self, tiny_run):
        folder = teacher_of(tiny_run(data=SHORT, training={"evaluations_per_epoch": 0}))
        assert validations(folder) == []
        assert read_card(folder).metrics["validation"] is None

    @pytest.mark.parametrize("prompts", [None, ["where is ", "an answer to everything: "]])
    def test_value_is_that_of_the_written_model(self, tiny_run, prompts):
        from sklearn.metrics import roc_auc_score

        of_bi = {
            "teachers": {"bi": {**BI_TEACHER, "prompts": prompts}, "cross": None},
            "student": BI_STUDENT,
            "objectives": {"score_match": {"teacher": "bi"}},
        }
        run = tiny_run(training={"epochs": 2, "evaluations_per_epoch": 2}, **({} if prompts is None else of_bi))
        folder = teacher_of(run, "cross" if prompts is None else "bi")
        pairs = run.split.validation
        scores = load(folder).score(pairs.queries, pairs.documents)
        assert read_card(folder).metrics["validation"] == pytest.approx(roc_auc_score(pairs.labels, scores), abs=1e-6)

    @pytest.mark.parametrize(
        ("scores", "labels", "value"),
        [
            ([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], 0.75),  # of 4 positive–negative pairs, 3 are in order
            ([1, 2, 3], [0.1, 0.2, 0.9], 1.0),
            ([1, 2, 3], [0.5, 0.9, 0.1], -0.5),  # ranks 1, 2, 3 against 2, 3, 1: 1 − 6·(1 + 1 + 4)/24
            ([1, 1, 1], [0, 1, 0], math.nan),  # undefined is no value
            ([1, float("nan"), 1], [0, 1, 0], math.nan),
            ([1, 2, 3], [1, 1, 1], math.nan),
        ],
    )
    def test_value_by_hand(self, scores, labels, value):
        assert validation_value(np.array(scores), np.array(labels)) == pytest.approx(value, nan_ok=True)

    def test_each_epoch_has_as_many_evaluations_as_were_asked_for(self, tiny_run):
        sections = {"data": {**SHORT, "evaluation_share": 0.1}, "training": {"epochs": 2, "evaluations_per_epoch": 4}}
        run = tiny_run(**sections, teachers={"cross": {"training": {"global_batch": 16, "micro_batch": 16}}})
        n_steps = -(-len(run.split.train) // 16)
        history = read_card(teacher_of(run)).details["history"]
        evaluated = [row["step"] for row in history if "validation" in row]
        assert n_steps % 4 and evaluated == sorted({-(-part * n_steps // 4) for part in range(1, 9)})


class TestFailures:
    def test_loss_that_is_no_number(self, tiny_run):
        run = tiny_run(data=SHORT, training={"learning_rate": 1e30, "max_grad_norm": None, "warmup_share": 0})
        with pytest.raises(
            JobFailed, match=r"teacher cross: the loss is no number at step \d+ .*; lower training\.learning_rate"
        ):
            train_teachers(run)
        assert not run.teacher("cross").exists()

    def test_teacher_that_says_the_same_of_everything(self, tiny_run, monkeypatch):
        run = tiny_run(data=SHORT)
        train_teachers(run)
        monkeypatch.setattr(
            "distill.runtime.scorer.Scorer.score", lambda self, queries, documents, **_: np.full(len(queries), 0.3)
        )
        with pytest.raises(JobFailed, match="the scores of teacher cross are nearly equal"):
            cache_signals(run)

    def test_teacher_that_says_nan(self, tiny_run, monkeypatch):
        run = tiny_run(data=SHORT)
        train_teachers(run)
        monkeypatch.setattr(
            "distill.runtime.scorer.Scorer.score", lambda self, queries, documents, **_: np.full(len(queries), np.nan)
        )
        with pytest.raises(
            JobFailed, match=r"the teacher gives NaN or infinity for \d+ items; set signals.precision=fp32"
        ):
            cache_signals(run)
        assert not list(run.signals("cross").rglob("*.arrow"))

    def test_a_gpu_labels_in_torch_unless_a_cpu_has_finished(self, tiny_run):
        changes = {"data": SHORT, "signals": {"runtime": "openvino"}}
        with_gpu, without = tiny_run(**changes), tiny_run(**changes)
        with_gpu.__dict__["_has_gpu"], without.__dict__["_has_gpu"] = True, False
        teacher_of(without)
        assert with_gpu.signal_identity("cross").runtime == "torch"
        cache_signals(without)
        assert without.signal_identity("cross").runtime == with_gpu.signal_identity("cross").runtime == "openvino"

    def test_student_before_its_signals(self, tiny_run):
        run = tiny_run(data=SHORT)
        train_teachers(run)
        with pytest.raises(
            BadInput, match=r"lacks scores of \d+ of \d+ items; run `distill cache-signals` with this recipe"
        ):
            train_student(run)
        assert not run.student.exists()

    def test_max_length_over_the_positions(self, tiny_run, bi_folder):
        run = tiny_run(data=SHORT, teachers={"cross": {**CROSS, "backbone": str(bi_folder), "max_length": 512}})
        with pytest.raises(
            BadInput, match="max_length 512 is more than the 96 positions of this bert encoder; set it to 96 or less"
        ):
            train_teachers(run)

    def test_layers_out_of_range(self, tiny_run):
        run = tiny_run(data=SHORT, student={"layers": [0, 2]})
        train_teachers(run)
        cache_signals(run)
        with pytest.raises(BadInput, match=r"layers \[0, 2\]: the backbone has 2, counted from 0 to 1"):
            train_student(run)


class TestTeachers:
    def test_lora_is_merged_into_a_plain_folder(self, tiny_run, monkeypatch):
        from sentence_transformers import CrossEncoder
        from torch import nn

        seen, train = {}, training.train

        def train_and_look(build_step, trainset, validation, *args, **kwargs):
            step, result = train(build_step, trainset, validation, *args, **kwargs)
            seen["adapters"] = sum("lora" in name for name, _ in step.named_parameters())
            units = np.arange(len(validation))
            with torch.no_grad():
                batch = validation.batch(units, totals=validation.counts(units))
                seen["scores"] = step.eval()(batch, predict=True)["scores"].numpy()
            return step, result

        monkeypatch.setattr("distill.training.fitting.train", train_and_look)
        lora = {"rank": 4, "alpha": 8, "target_modules": ["query", "value"]}
        run = tiny_run(teachers={"cross": {**CROSS, "lora": lora}}, training={"learning_rate": 1e-2})
        folder = teacher_of(run)
        assert seen["adapters"] == 8  # A and B of two matrices in two layers
        pairs = run.split.validation
        stock = CrossEncoder(str(folder), device="cpu")
        scores = stock.predict(list(zip(pairs.queries, pairs.documents, strict=True)), activation_fn=nn.Identity())
        np.testing.assert_allclose(scores, seen["scores"], atol=1e-5)
        (backbone,) = run.work.glob("backbones/*/model.safetensors")
        fresh, trained = load_model_weights(backbone.parent), load_model_weights(folder)
        assert set(fresh) == set(trained)
        moved = {name for name in fresh if "pooler" not in name and not torch.equal(fresh[name], trained[name])}
        assert {name.split(".")[-2] for name in moved} == {"query", "value"}

    @pytest.mark.slow
    def test_lora_resumes_with_the_same_bits(self, tiny_run, monkeypatch):
        changes = {
            "data": SHORT,
            "teachers": {"cross": {**CROSS, "lora": {"rank": 2, "dropout": 0.1}}},
            "training": RESUMED,
        }
        undisturbed = teacher_of(tiny_run("undisturbed", **changes))
        run = tiny_run("disturbed", **changes)
        with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
            Interrupted(patch, 3)
            train_teachers(run)
        assert identical(teacher_of(run), undisturbed)

    def test_frozen_is_taken_as_it_is(self, tiny_run, bi_folder):
        run = tiny_run(teachers={"bi": {**BI_TEACHER, "backbone": str(bi_folder), "frozen": True}}, data=SHORT)
        train_teachers(run)
        assert furthest(run.teacher("bi"), bi_folder) == 0
        card = read_card(run.teacher("bi"))
        assert card.parents == {"backbone": revision(bi_folder)}
        assert "history" not in card.details

    def test_how_the_student_trains_is_nothing_to_a_frozen_one(self, tiny_run, bi_folder):
        bi = {**BI_TEACHER, "backbone": str(bi_folder), "frozen": True}
        train_teacher(tiny_run(teachers={"bi": bi}, data=SHORT), "bi")
        train_teacher(tiny_run(teachers={"bi": bi}, data=SHORT, training={"epochs": 7}), "bi")
        with pytest.raises(BadInput, match=r"\(teacher.max_length: \d+ → 24\)"):
            train_teacher(tiny_run(teachers={"bi": {**bi, "max_length": 24}}, data=SHORT, training={"epochs": 7}), "bi")

    def test_infonce_of_a_student_with_a_guide_and_a_control_without_it(self, tiny_run, caplog):
        run = tiny_run(
            data=SHORT,
            teachers={"bi": BI_TEACHER},
            student={**BI_STUDENT, "control": {"loss": "infonce", "steps": 2}},
            objectives={"score_match": None, "labels": {"loss": "infonce", "guide": {"teacher": "bi", "margin": 0.1}}},
            training={"max_steps": 3},
        )
        with caplog.at_level("INFO"):
            student = student_of(run)
        assert caplog.text.count("infonce: the guide bi leaves out") == 1  # the control has none
        assert list(read_card(student).parents) == ["built", "bi"]
        assert list(read_card(run.control).parents) == ["built"]

    def test_objectives_that_the_pairs_give_nothing_to_are_refused_before_a_teacher_is_trained(
        self, tiny_run, tmp_path
    ):
        pairs = tmp_path / "pairs.tsv"
        lines = [f"query {i}\tdocument {i}\t{i % 2}" for i in range(60)]
        pairs.write_text("query\tdocument\tlabel\n" + "\n".join(lines))
        run = tiny_run(data={"train": str(pairs), "candidates": 4}, objectives={"ranknet": {"teacher": "cross"}})
        with pytest.raises(
            BadInput, match="student: ranknet compares the candidates of a query, and no training query has two"
        ):
            train_teachers(run)
        assert not run.teacher("cross").exists()

    def test_infonce(self, tiny_run):
        teacher = {**BI_TEACHER, "loss": "infonce", "temperature": 0.1}
        run = tiny_run(
            data=SHORT, teachers={"bi": teacher}, training={"epochs": 5, "micro_batch": 16, "learning_rate": 5e-3}
        )
        losses = losses_of(teacher_of(run, "bi"))
        assert all(math.isfinite(loss) for loss in losses)
        assert np.mean(losses[-5:]) < np.mean(losses[:5])

    def test_of_each_kind_loads_in_stock_sentence_transformers(self, bi_folder, cross_folder):
        from sentence_transformers import CrossEncoder, SentenceTransformer

        assert SentenceTransformer(str(bi_folder), device="cpu").encode(["가"]).shape == (1, 32)
        assert CrossEncoder(str(cross_folder), device="cpu").predict([("가", "b")]).shape == (1,)

    def test_same_recipe_gives_the_same_bits(self, tiny_run, trained):
        again = tiny_run(teachers={"bi": BI_TEACHER})
        train_teachers(again)
        for name in ("cross", "bi"):
            assert identical(again.teacher(name), trained.teacher(name))
            assert read_card(again.teacher(name)).revision == read_card(trained.teacher(name)).revision


def parameter_shapes(folder):
    return {name: tuple(value.shape) for name, value in weights(folder).items()}


class TestStudents:
    def test_kept_layers_are_the_teachers(self, tiny_run):
        run = tiny_run(data=SHORT, student={"backbone": {"teacher": "cross"}, "layers": [1]})
        teacher, student = load_model(teacher_of(run)), built_of(run)
        ours, theirs = student[0].model.state_dict(), teacher[0].model.state_dict()
        assert student[0].model.config.num_hidden_layers == 1
        for name, value in ours.items():
            assert torch.equal(value, theirs[name.replace("layer.0.", "layer.1.")])

    def test_with_all_layers_is_the_teacher(self, tiny_run):
        run = tiny_run(data=SHORT, student={"backbone": {"teacher": "cross"}, "layers": [0, 1]})
        teacher = load_model(teacher_of(run))
        pairs = [("개발자", "developer"), ("간호사", "nurse wanted")]
        assert np.array_equal(built_of(run).predict(pairs), teacher.predict(pairs))

    def test_layers_that_are_not_there(self, cross_folder):
        with pytest.raises(BadInput, match=r"layers \[2\]: the backbone has 2"):
            keep_layers(load_model(cross_folder)[0].model, [2])

    @pytest.mark.parametrize(("projection", "width"), [("keep", 32), pytest.param("drop", 16, marks=pytest.mark.slow)])
    def test_embeddings_of_another_width(self, tiny_run, projection, width):
        run = tiny_run(
            data=SHORT,
            teachers=ONLY_BI,
            student={
                **BI_STUDENT,
                "backbone": {**BACKBONE, "width": 16, "layers": 1},
                "control": {"loss": "bce", "steps": 2},
            },
            objectives={"score_match": None, "embedding_match": {"teacher": "bi", "projection": projection}},
            training={"epochs": 4},
        )
        folder = student_of(run)
        assert load(folder).embedding_width == width
        assert load(folder).encode(["가"]).shape == (1, width)
        assert parameter_shapes(run.control) == parameter_shapes(folder)
        losses = losses_of(folder)
        assert losses[-1] < 0.7 * losses[0]

    @pytest.mark.parametrize("loss", ["cosine", pytest.param("mse", marks=pytest.mark.slow)])
    def test_embeddings_are_matched_text_by_text(self, tiny_run, tmp_path, loss):
        texts = tmp_path / "texts.tsv"
        texts.write_text("text\n" + "".join(f"a text of its own, number {i}\n" for i in range(9)))
        run = tiny_run(
            data={**SHORT, "unlabelled": [{"path": str(texts)}]},
            teachers=ONLY_BI,
            student={**BI_STUDENT, "backbone": {**BACKBONE, "width": 16, "layers": 1}},
            objectives={"score_match": None, "embedding_match": {"teacher": "bi", "loss": loss}},
            training={"max_steps": 1, "global_batch": 1000, "learning_rate": 1e-12, "weight_decay": 0},
        )
        folder = student_of(run)  # one step that moves nothing: its loss is that of the student as it was drawn
        pairs, lone = run.split.train, run.split.unlabelled
        seen = [*pairs.queries, *pairs.documents, *lone]
        assert len(lone) == 9
        cosines = (load(folder).encode(seen) * load(run.teacher("bi")).encode(seen)).sum(axis=1)
        (stated,) = losses_of(folder)
        assert stated == pytest.approx((1 if loss == "cosine" else 2) * (1 - cosines.mean()), rel=1e-4)

    @pytest.mark.slow
    def test_control_learns_from_labels_alone(self, tiny_run):
        run = tiny_run(data=SHORT, student={"control": True})
        student_of(run)
        assert set(history(run.student)[0]) & {"labels", "score_match"} == {"score_match"}
        assert set(history(run.control)[0]) & {"labels", "score_match"} == {"labels"}
        assert parameter_shapes(run.control) == parameter_shapes(run.student)
        # cut from the teacher, the teacher is the parent of both; both start from the same weights
        teacher = read_card(run.teacher("cross")).revision
        built = read_card(run.built)
        assert built.parents == {"cross": teacher}
        assert read_card(run.student).parents == {"built": built.revision, "cross": teacher}
        assert read_card(run.control).parents == {"built": built.revision}
        assert furthest(run.student, run.control) > 1e-4

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({}, marks=pytest.mark.slow),
            {
                "teachers": ONLY_BI,
                "student": BI_STUDENT,
                "objectives": {"score_match": {"teacher": "bi", "loss": "mse"}, "embedding_match": {"teacher": "bi"}},
            },
        ],
        ids=["scores", "embeddings"],
    )
    def test_live_signals_make_the_same_student_as_cached_ones(self, tiny_run, changes):
        cached, live = (
            tiny_run("cached", data=SHORT, **changes),
            tiny_run("live", data=SHORT, signals={"live": True}, **changes),
        )
        assert furthest(student_of(cached), student_of(live)) < 1e-5
        assert not live.signals("cross").exists()
        assert losses_of(live.student) == pytest.approx(losses_of(cached.student), abs=1e-5)

    @pytest.mark.slow
    def test_all_objectives_over_candidates_prompts_and_unlabelled_texts(self, tiny_run, tmp_path):
        texts = tmp_path / "texts.tsv"
        texts.write_text("text\n" + "".join(f"a text of its own, number {i}\n" for i in range(40)))
        teacher = {**BI_TEACHER, "prompts": ["query: ", "passage: "], "loss": "bce"}
        more = {
            "listnet": {"teacher": "cross", "teacher_temperature": 2},
            "ranknet": {},
            "lambda_loss": {"teacher": "bi", "k": 2},
            "list_mle": {},
            "adr_mse": {"teacher": "cross"},
            "cosent": {"teacher": "bi"},
            "rkd": {"teacher": "bi"},
            "similarity": {"teacher": "bi"},
            "cka": {"teacher": "bi", "schedule": {"from": 1, "to": 2}},
        }
        run = tiny_run(
            data={**SHORT, "candidates": 4, "unlabelled": [{"path": str(texts)}]},
            teachers={"bi": teacher},
            student={**BI_STUDENT, "prompts": ["q: ", "d: "], "control": {"loss": "infonce", "steps": 2}},
            objectives={
                "labels": {"loss": "bce", "weight": 0.3},
                "score_match": {"teacher": "cross", "loss": "kl", "temperature": 2},
                "margin_mse": {"teacher": "bi", "weight": 0.01},
                "embedding_match": {"teacher": "bi"},
                **more,
            },
            training={"epochs": 2, "micro_batch": 8},
        )
        folder = student_of(run)
        assert {"labels", "score_match", "margin_mse", "embedding_match", *more} <= set(history(folder)[0])
        assert all(history(folder)[0][name] > 0 for name in more)
        assert all(math.isfinite(loss) for loss in losses_of(folder))
        assert load_model(folder).prompts == {"query": "q: ", "document": "d: "}
        items = json.loads(next(run.signals("bi").glob("*/manifest.json")).read_text())["items"]
        train = run.split.train
        assert items == {
            "scores": len(train),
            "embeddings": len({*train.queries}) + len({*train.documents, *run.split.unlabelled}),
        }

    def test_unigram_backbone(self, tiny_run):
        backbone = {**BACKBONE, "tokenizer": "unigram", "vocabulary": 600}
        run = tiny_run(data=SHORT, teachers={"cross": {**CROSS, "backbone": backbone}}, training={"max_steps": 2})
        student_of(run)
        assert load_model(run.student)[0].model.config.model_type == "xlm-roberta"


def stamps(run):
    return {
        path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file() and ".work" not in path.parts
    }


class TestFolders:
    def test_second_run_changes_nothing(self, tiny_run):
        changes = {"data": SHORT, "student": {"control": True}}
        student_of(tiny_run(**changes))
        before = stamps(tiny_run(**changes))
        student_of(tiny_run(**changes))
        after = stamps(tiny_run(**changes))
        manifests = {path for path in after if path.name == "manifest.json"}
        assert {path for path in after if after[path] != before.get(path)} <= manifests
        assert set(before) == set(after)

    def test_what_does_not_decide_the_result_may_change(self, tiny_run):
        student_of(tiny_run(data=SHORT))
        before = stamps(tiny_run())
        other = tiny_run(
            data=SHORT,
            training={"checkpoint_seconds": 5, "tensorboard": False},
            signals={"shard_size": 7},
            benchmark={"seconds": 1},
        )
        student_of(other)
        after = stamps(other)
        assert {path.name for path in after if after[path] != before.get(path)} <= {"manifest.json"}

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"training": {"epochs": 2}}, "teacher.training.epochs: 1.0 → 2.0"),
            ({"teachers": {"cross": {"head": [8]}}}, r"teacher.head: \[16\] → \[8\]"),
            ({"seed": 7}, "seed: 42 → 7"),
            ({"data": {"max_pairs": 124}}, "data.train.n_pairs"),
        ],
    )
    def test_finished_folder_of_another_recipe_is_refused(self, tiny_run, changes, named):
        first = tiny_run(data=SHORT)
        train_teachers(first)
        before = stamps(first)
        other = tiny_run(**{"data": SHORT, **changes})
        with pytest.raises(
            BadInput,
            match=rf"was made from something else \(.*{named}.*\); set output_dir to a new folder, or overwrite",
        ):
            train_teachers(other)
        assert stamps(first) == before

    def test_overwrite_rebuilds_and_its_heirs_follow(self, tiny_run):
        student_of(tiny_run(data=SHORT))
        other = tiny_run(data=SHORT, seed=7, overwrite=True)
        first = read_card(other.student)
        student_of(other)
        assert read_card(other.student).revision != first.revision
        assert read_card(other.student).parents["cross"] == read_card(other.teacher("cross")).revision
        assert read_card(other.built).parents == {"cross": read_card(other.teacher("cross")).revision}
        assert len(list(other.signals("cross").iterdir())) == 2  # the old teacher's signals keep their own identity

    def test_student_of_a_teacher_that_changed_is_refused(self, tiny_run):
        run = tiny_run(data=SHORT)
        student_of(run)
        shutil.rmtree(run.teacher("cross"))
        other = tiny_run(data=SHORT, teachers={"cross": {"training": {"epochs": 2}}})
        train_teachers(other)
        cache_signals(other)
        with pytest.raises(BadInput, match=r"built was made from something else \(parents\.cross: "):
            train_student(other)

    def test_cache_is_filled_only_with_what_is_missing(self, tiny_run, monkeypatch):
        run = tiny_run(data=SHORT, signals={"shard_size": 10})
        train_teachers(run)
        cache_signals(run)
        shards = sorted(run.signals("cross").rglob("*.arrow"))
        assert len(shards) == math.ceil(len(run.split.train) / 10)
        content = shards[3].read_bytes()
        n_rows = pyarrow.ipc.open_file(shards[3]).read_all().num_rows
        shards[3].unlink()
        asked = []
        score = __import__("distill.runtime.scorer", fromlist=["Scorer"]).Scorer.score

        def counted(self, queries, documents, **options):
            asked.append(len(queries))
            return score(self, queries, documents, **options)

        monkeypatch.setattr("distill.runtime.scorer.Scorer.score", counted)
        cache_signals(tiny_run(data=SHORT, signals={"shard_size": 10}))
        assert asked == [n_rows]
        assert len(shards[3].read_bytes()) == len(content)

    def test_second_launch_on_the_same_folder_is_refused(self, tiny_run, tmp_path, capsys):
        import os

        run = tiny_run()
        with run.lock():
            assert main(["train-teacher", str(write_recipe(tmp_path))]) == 2
        assert (
            capsys.readouterr().err
            == f"error: {run.folder} is in use by process {os.getpid()}; wait for it or set another output_dir\n"
        )
        with run.lock():  # and it is free again afterwards
            pass

    def test_leftovers_are_gone_when_a_stage_is_finished(self, tiny_run):
        run = tiny_run(data=SHORT, training={"checkpoint_seconds": 0, "evaluations_per_epoch": 2})
        student_of(run)
        assert {path.name for path in run.work.iterdir()} <= {"lock", "backbones"}
        assert {path.name for path in run.folder.iterdir()} == {".work", "built", "signals", "student", "teachers"}


def test_trainset_is_the_same_on_every_process(tiny_run):
    run = tiny_run(data=SHORT)
    tokenizer = load_model(teacher_of(run))[0].tokenizer
    one, two = (TrainSet.build(Tokenization("cross_encoder", tokenizer, 64), run.split.train) for _ in range(2))
    assert np.array_equal(one.tokens.ids, two.tokens.ids)
    assert max(one.tokens.lengths) <= 64
