"""Trainings that once learned nothing, crashed or kept the wrong weights, and said nothing of it."""

import json
import logging
import math

import numpy as np
import pytest
import torch

from distill.errors import BadInput, JobFailed
from distill.files.artefact import read_card
from distill.signals import SignalCache, pair_keys
from distill.training import loop as training
from students import train_student
from teachers import cache_signals, train_teachers
from tests.conftest import BACKBONE, BI_TEACHER

pytestmark = pytest.mark.integration

CROSS = {"kind": "cross_encoder", "backbone": BACKBONE, "head": [16], "max_length": 64}
SHORT = {"max_pairs": 120}


@pytest.fixture(autouse=True)
def log_every_step(monkeypatch):
    monkeypatch.setattr(training, "_LOG_EVERY_STEPS", 1)


def written(path, rows):
    path.write_text(
        "query\tdocument\tlabel\n" + "".join(f"{q}\t{d}\t{label}\n" for q, d, label in rows), encoding="utf-8"
    )
    return str(path)


def strict_history(folder):
    """The card's history, read by a parser that takes no NaN and no Infinity."""

    def refuse(constant):
        raise AssertionError(constant)

    card = json.loads((folder / "artefact.json").read_text(), parse_constant=refuse)
    return card["details"]["history"]


class TestWhatCannotRank:
    def test_positives_alone_keep_the_last_weights_and_say_so(self, tmp_path, caplog):
        file = written(tmp_path / "pos.tsv", [(f"job {i}", f"we hire job {i}", 1) for i in range(60)])
        from distill.recipe.schema import Recipe
        from distill.run import Run

        recipe = {
            "name": "pos",
            "output_dir": str(tmp_path / "run"),
            "data": {"train": file, "validation_share": 0.2},
            "teachers": {"bi": {**BI_TEACHER, "loss": "infonce"}},
            "training": {
                "epochs": 3,
                "global_batch": 16,
                "micro_batch": 16,
                "learning_rate": 2e-3,
                "precision": "fp32",
                "tensorboard": False,
            },
        }
        run = Run(Recipe.model_validate(recipe))
        with caplog.at_level(logging.INFO):
            train_teachers(run)
        said = read_card(run.teacher("bi")).details["training"]
        assert (said["best_step"], said["best_value"], said["kept"]) == (0, None, "last")
        assert said["kept_because"] == "every validation label is 1"
        assert "every validation label is 1, so no evaluation can pick weights; the last ones are kept" in caplog.text
        assert not any("validation" in row for row in strict_history(run.teacher("bi")))
        # the last weights are those of a run that never evaluates
        never = {
            **recipe,
            "output_dir": str(tmp_path / "never"),
            "training": {**recipe["training"], "evaluations_per_epoch": 0},
        }
        other = Run(Recipe.model_validate(never))
        train_teachers(other)
        assert read_card(other.teacher("bi")).revision == read_card(run.teacher("bi")).revision

    def test_an_undefined_value_is_no_best_one(self, tiny_run, monkeypatch):
        values = iter([float("nan"), 0.6, float("nan")])
        monkeypatch.setattr("distill.training.trainset.validation_value", lambda scores, labels: next(values))
        run = tiny_run(data=SHORT, training={"epochs": 3, "evaluations_per_epoch": 1})
        train_teachers(run)
        said = read_card(run.teacher("cross")).details["training"]
        assert (said["best_step"], said["best_value"], said["kept"]) == (6, 0.6, "best")
        assert [row["validation"] for row in strict_history(run.teacher("cross")) if "validation" in row] == [
            None,
            0.6,
            None,
        ]

    def test_a_value_that_is_never_defined_keeps_the_last(self, tiny_run, monkeypatch):
        monkeypatch.setattr("distill.training.trainset.validation_value", lambda scores, labels: float("nan"))
        run = tiny_run(data=SHORT, training={"evaluations_per_epoch": 1})
        train_teachers(run)
        card = read_card(run.teacher("cross"))
        assert card.details["training"]["kept_because"] == "the validation value was undefined in every evaluation"
        assert card.metrics["validation"] is None


class TestStepsWithoutAnything:
    @pytest.mark.parametrize("loss", ["margin_mse", "kl"])
    def test_count_for_nothing_and_training_goes_on(self, tiny_run, tmp_path, loss, caplog):
        rows = [(f"query {q}", f"document {q} {d} {'good' if d else 'bad'}", d) for q in range(12) for d in (0, 1)]
        rows += [(f"lone {q}", f"other {q} {'good' if q % 2 else 'bad'}", q % 2) for q in range(80)]
        objectives = (
            {"score_match": None, "margin_mse": {"teacher": "cross"}}
            if loss == "margin_mse"
            else {"score_match": {"teacher": "cross", "loss": "kl"}}
        )
        run = tiny_run(
            data={"train": written(tmp_path / "mixed.tsv", rows), "candidates": 4},
            objectives=objectives,
            training={"global_batch": 4, "micro_batch": 4},
            signals={"allow_unrelated": True},
        )
        train_teachers(run)
        cache_signals(run)
        with caplog.at_level(logging.WARNING):
            train_student(run)
        name = "score_match" if loss == "kl" else "margin_mse"
        steps = [row for row in strict_history(run.student) if "learning_rate" in row]
        idle = [row for row in steps if name not in row]
        assert idle and len(idle) < len(steps)
        assert all(row["grad_norm"] == 0 for row in idle)
        assert read_card(run.student).details["training"]["n_idle_steps"] == len(idle)
        assert f"{len(idle)} of {len(steps)} steps held nothing to learn from" in caplog.text

    def test_of_a_schedule_that_begins_at_zero_are_said_to_be_its(self, tiny_run, caplog):
        rising = {"score_match": {"teacher": "cross", "schedule": {"from": 0}}}
        run = tiny_run(data=SHORT, objectives=rising, signals={"allow_unrelated": True})
        train_teachers(run)
        cache_signals(run)
        with caplog.at_level(logging.WARNING):
            train_student(run)
        assert "held nothing to learn from (no group, no positive, or all weights scheduled to 0)" in caplog.text

    def test_of_a_whole_run_stop_it_before_it_starts(self, tiny_run, tmp_path):
        rows = [(f"lone {q}", f"other {q} {'good' if q % 2 else 'bad'}", q % 2) for q in range(80)]
        run = tiny_run(
            data={"train": written(tmp_path / "lone.tsv", rows), "candidates": 4},
            objectives={"score_match": None, "margin_mse": {"teacher": "cross"}},
            signals={"allow_unrelated": True},
        )
        with pytest.raises(
            BadInput, match="student: margin_mse compares the candidates of a query, and no training query"
        ):
            train_teachers(run)
        assert not run.teacher("cross").exists()

    def test_a_control_of_constant_labels_is_refused_before_the_student_is_trained(self, tiny_run, tmp_path):
        rows = [(f"lone {q}", f"other {q}", 1) for q in range(80)]
        run = tiny_run(data={"train": written(tmp_path / "ones.tsv", rows)}, student={"control": True})
        with pytest.raises(BadInput, match=r"labels alone teach the control nothing; set student\.control=false"):
            train_student(run)


class TestUnrelatedSignals:
    def many(self, tmp_path):
        """360 pairs that a few steps tell apart: enough to tell a teacher from noise."""
        rows = [(f"job {i}", f"{'good' if i % 2 else 'bad'} {i}", i % 2) for i in range(360)]
        return written(tmp_path / "many.tsv", rows)

    def shuffle(self, run):
        """Give the cached scores to other pairs than those that the teacher scored."""
        pairs = run.split.train
        cache, keys = (
            SignalCache(run.signals("cross"), run.signal_identity("cross")),
            pair_keys(pairs.queries, pairs.documents),
        )
        scores = cache.read("scores", cache.find("scores", keys, "scores"))
        for shard in cache.folder.glob("scores-*.arrow"):
            shard.unlink()
        cache.refresh()
        cache.write("scores", keys, np.random.default_rng(3).permutation(scores))

    def test_that_are_shuffled_stop_the_student(self, tiny_run, tmp_path):
        run = tiny_run(data={"train": self.many(tmp_path)}, training={"epochs": 4})
        train_teachers(run)
        cache_signals(run)
        self.shuffle(run)
        with pytest.raises(
            JobFailed, match="student: the scores of teacher cross have nothing to do with the labels: Spearman"
        ):
            train_student(run)
        assert not run.student.exists()

    def test_of_a_teacher_of_noise_stop_the_labelling(self, tiny_run, tmp_path, monkeypatch):
        run = tiny_run(data={"train": self.many(tmp_path)})
        train_teachers(run)
        rng = np.random.default_rng(3)
        monkeypatch.setattr(
            "distill.runtime.scorer.Scorer.score", lambda self, queries, documents, **_: rng.normal(size=len(queries))
        )
        with pytest.raises(
            JobFailed, match=r"teacher cross have nothing to do with the labels.*signals\.allow_unrelated=true"
        ):
            cache_signals(run)


class TestLengths:
    @pytest.mark.parametrize(("kind", "length"), [("bi_encoder", 100), ("cross_encoder", 99), ("mlm", 97)])
    def test_that_eight_does_not_divide(self, tiny_run, tmp_path, kind, length):
        words = ["python", "seoul", "sales", "개발", "연구", "nurse"]
        text = [" ".join(words[(i * j) % 6] for j in range(150)) for i in range(1, 41)]
        file = written(tmp_path / "long.tsv", [(f"q{i} {t}", f"d{i} {t}", i % 2) for i, t in enumerate(text)])
        teacher = {"kind": kind, "backbone": {**BACKBONE, "max_length": length}, "max_length": length}
        run = tiny_run(
            data={"train": file}, teachers={"long": teacher}, training={"global_batch": 8, "evaluations_per_epoch": 1}
        )
        from teachers.train import train_teacher

        train_teacher(run, "long")
        if kind != "mlm":
            from distill.runtime.opening import load

            scores = load(run.teacher("long"), max_length=length).score(text[:3], text[3:6])
            assert np.isfinite(scores).all()


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from distill.models.backbone import fresh_backbone
    from distill.models.modeling import quiet
    from distill.recipe.schema import FreshBackbone
    from tests.tiny.conftest import SENTENCES

    folder = tmp_path_factory.mktemp("reranker")
    settings = FreshBackbone(tokenizer="unigram", vocabulary=200, layers=1, width=32, heads=2, max_length=96)
    encoder = fresh_backbone(settings, SENTENCES * 20, seed=1, folder=folder)
    with quiet():
        AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=1).save_pretrained(folder / "rr")
        AutoTokenizer.from_pretrained(encoder).save_pretrained(folder / "rr")
    return folder / "rr"


class TestLora:
    def teacher(self, reranker, targets):
        lora = {"rank": 4, "target_modules": targets}
        return {"cross": {**CROSS, "head": None, "backbone": str(reranker), "lora": lora}}

    @pytest.mark.parametrize("targets", ["all-linear", ["query", "value"], ["out_proj", "query"]])
    def test_trains_a_head_of_two_layers_whole(self, tiny_run, reranker, targets):
        from safetensors.torch import load_file

        run = tiny_run(data=SHORT, teachers=self.teacher(reranker, targets), training={"learning_rate": 1e-2})
        train_teachers(run)
        before, after = load_file(reranker / "model.safetensors"), load_file(run.teacher("cross") / "model.safetensors")
        assert set(before) == set(after)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert {name for name in before if name.startswith("classifier.")} <= moved
        assert not any("embeddings" in name or "LayerNorm" in name for name in moved)
        assert any("query" in name for name in moved)

    @pytest.mark.parametrize("targets", [["query", "valeu"], ["q_proj"]])
    def test_names_what_it_does_not_find(self, tiny_run, reranker, targets):
        run = tiny_run(data=SHORT, teachers=self.teacher(reranker, targets))
        with pytest.raises(BadInput, match=f"has no {targets[-1]}; there are .*query, .*value"):
            train_teachers(run)
        assert not run.teacher("cross").exists()

    def test_of_the_head_alone_is_no_lora(self, tiny_run, reranker):
        with pytest.raises(BadInput, match="out_proj are of the head, which is trained whole anyway"):
            train_teachers(tiny_run(data=SHORT, teachers=self.teacher(reranker, ["out_proj"])))


class TestOverflow:
    """fp16's scaler, the real one, on the CPU: accelerate itself asks for a GPU, so it is put in by hand."""

    @pytest.fixture
    def fp16(self, monkeypatch):
        from accelerate.state import AcceleratorState

        make = training.make_accelerator

        def with_scaler(settings):
            accelerator = make(settings)
            accelerator.scaler, accelerator.native_amp = torch.amp.GradScaler("cpu"), True
            accelerator.state._mixed_precision = "fp16"
            backward, first = accelerator.backward, [True]

            def overflowing(loss, **options):
                factor, first[0] = (1e38 if first[0] else 1.0), False
                backward(loss * factor, **options)

            monkeypatch.setattr(accelerator, "backward", overflowing)
            return accelerator

        monkeypatch.setattr(training, "make_accelerator", with_scaler)
        yield
        AcceleratorState._reset_state()

    def test_of_a_step_is_null_in_a_checkpoint_that_can_be_written(self, tiny_run, fp16):
        run = tiny_run(data=SHORT, training={"checkpoint_seconds": 0, "max_steps": 3})
        train_teachers(run)
        norms = [row["grad_norm"] for row in strict_history(run.teacher("cross"))]
        assert norms[0] is None
        assert all(math.isfinite(norm) and norm > 0 for norm in norms[1:])
        assert read_card(run.teacher("cross")).details["training"]["n_skipped_steps"] == 1

    def test_without_a_scaler_stops(self, tiny_run, monkeypatch):
        monkeypatch.setattr(training._Loop, "_clip", lambda self: torch.tensor(float("inf")))
        run = tiny_run(data=SHORT)
        with pytest.raises(
            JobFailed, match="teacher cross: the gradient is no number at step 1; lower training.learning_rate"
        ):
            train_teachers(run)
        assert not run.teacher("cross").exists()
