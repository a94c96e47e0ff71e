"""Static students and output dimensions through the stages of tiny runs, beside stock sentence-transformers."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from distill.data.pairs import Pairs
from distill.errors import BadInput, GateFailed
from distill.evaluation.latency import size_mb
from distill.files.artefact import check_model_folder, read_card
from distill.models.modeling import load_model
from distill.recipe.schema import Objectives
from distill.runtime.opening import load
from distill.training import loop as training
from recipes.cli import main
from students import build_student, export_static_student, train_student
from students.cut.dimensions import read_axes
from students.cut.static import token_vectors
from students.export.stage import Thresholds
from students.export.static import export_table
from teachers import cache_signals, train_teachers
from tests.conftest import BI_TEACHER, make_run

pytestmark = pytest.mark.integration

TEXTS = ["백엔드 개발자 Python", "", "night shifts in intensive care", "kubernetes " * 100, "a"]
STATIC = {
    "kind": "bi_encoder",
    "backbone": {"teacher": "bi"},
    "layers": None,
    "static": {},
    "dimensions": 16,
    "max_length": 64,
    "control": False,
    "training": {"learning_rate": 1e-2, "epochs": 2},
}
MATCH = {"score_match": None, "embedding_match": {"teacher": "bi"}}


def static_run(folder, **changes):
    changes = {"teachers": {"bi": BI_TEACHER}, "student": STATIC, "objectives": MATCH, **changes}
    return make_run(folder, **changes)


def trained_student(run):
    train_teachers(run)
    cache_signals(run)
    train_student(run)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with a static student of 16 dimensions, cut to 8 and 4 as well, and its int8 table."""
    run = static_run(tmp_path_factory.mktemp("static") / "run", objectives={**MATCH, "matryoshka": [8, 4]})
    export_static_student(trained_student(run))
    return run


def stock(folder, **options):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", **options)


class TestFolder:
    def test_is_stock_sentence_transformers(self, run):
        modules = [type(module).__name__ for module in stock(run.student)]
        assert modules == ["StaticEmbedding", "Normalize"]
        assert check_model_folder(run.student) == "bi_encoder"

    @pytest.mark.parametrize("name", ["built", "student", "int8"])
    def test_runs_the_same_in_numpy(self, run, name):
        folder = {"built": run.built, "student": run.student, "int8": run.export("int8", "numpy")}[name]
        many = [f"{text} {number}" for number, text in enumerate(TEXTS * 5)] + TEXTS
        scorer = load(folder)
        assert scorer.runtime == "numpy"
        ours = scorer.encode(many)
        assert np.abs(ours - stock(folder).encode(many)).max() < 1e-6
        alone = np.concatenate([scorer.encode([text]) for text in many])
        assert np.array_equal(alone, ours)  # not a bit of it depends on the batch

    def test_reads_no_special_tokens_and_at_most_its_length(self, run):
        counts = load(run.student).token_counts(["a a", "kubernetes " * 100], ["", ""])
        assert counts[1] == 64
        ids = load_model(run.student)[0].tokenizer.encode("a a").ids
        assert counts[0] == len(ids) == len(load_model(run.student)[0].preprocess(["a a"])["input_ids"])

    def test_a_text_without_tokens_is_zero(self, run):
        assert not load(run.student).encode([""]).any()

    def test_int8_is_a_quarter_of_the_size_and_says_so(self, run):
        export = run.export("int8", "numpy")
        table, codes = (load_file(folder / "model.safetensors") for folder in (run.student, export))
        assert codes["embeddings"].dtype == torch.int8
        assert codes["embeddings"].shape == table["embedding.weight"].shape
        card = read_card(export)
        assert card.details["parity"]["min_cosine"] > 0.999
        assert (load(export).precision, load(run.student).precision) == ("int8", "fp32")
        assert size_mb(run.student, "numpy") > table["embedding.weight"].numel() * 4 / 1e6

    def test_int8_is_judged_on_the_labels_like_any_other_export(self, run):
        parity = read_card(run.export("int8", "numpy")).details["parity"]
        assert (
            "worst" not in parity and "text" in json.loads((run.work / "worst-exports-numpy-int8.json").read_text())[0]
        )
        assert parity["metric"] is not None and set(parity["metric_difference"]) == {"value", "low", "high"}

    def test_other_runtimes_are_refused(self, run):
        with pytest.raises(BadInput, match='load it with runtime="numpy"'):
            load(run.student, runtime="onnx")
        with pytest.raises(BadInput, match="is no static model"):
            load(run.teacher("bi"), runtime="numpy")

    def test_half_a_folder_is_refused(self, run, tmp_path):
        import shutil

        shutil.copytree(run.student, tmp_path / "half")
        (tmp_path / "half" / "tokenizer.json").unlink()
        with pytest.raises(BadInput, match="tokenizer.json is missing"):
            load(tmp_path / "half")

    def test_int8_table_that_is_too_far_is_not_put_in_place(self, run, tmp_path):
        pairs = [("one two", "three"), ("four", "five")]
        with pytest.raises(GateFailed, match="too far"):
            export_table(run.student, tmp_path / "int8", pairs, Thresholds(min_cosine=1.1), read_card(run.student))
        assert not (tmp_path / "int8").exists()


def test_model2vec_folders_run_too(run, tmp_path):
    """Their tables may be shared: a row for each cluster of tokens, and a weight for each token."""
    import shutil

    from safetensors.numpy import save_file

    shutil.copytree(run.student, tmp_path / "theirs")
    n_tokens = load_file(run.student / "model.safetensors")["embedding.weight"].shape[0]
    rng = np.random.default_rng(0)
    tensors = {
        "embeddings": rng.normal(size=(50, 16)).astype(np.float32),
        "mapping": rng.integers(0, 50, n_tokens),
        "weights": rng.random(n_tokens).astype(np.float32),
    }
    save_file(tensors, tmp_path / "theirs" / "model.safetensors")
    texts = TEXTS * 4
    assert np.abs(load(tmp_path / "theirs").encode(texts) - stock(tmp_path / "theirs").encode(texts)).max() < 1e-6
    for row in (-1, 50):
        tensors["mapping"][7] = row
        save_file(tensors, tmp_path / "theirs" / "model.safetensors")
        with pytest.raises(BadInput, match="its mapping names rows that its table of 50 token vectors lacks"):
            load(tmp_path / "theirs")


class TestTable:
    def test_a_token_is_what_the_backbone_says_of_it_alone(self, run):
        teacher = load_model(run.teacher("bi"))
        vectors = token_vectors(teacher)
        token = teacher.tokenizer.convert_ids_to_tokens(200)
        ids = [teacher.tokenizer.cls_token_id, 200, teacher.tokenizer.sep_token_id]
        expected = teacher.tokenizer.pad({"input_ids": [ids]}, return_tensors="pt")
        with torch.inference_mode():
            told = teacher[0].model.eval()(**expected).last_hidden_state.mean(dim=1)
        assert token
        assert np.allclose(vectors[200], told[0].numpy(), atol=1e-5)

    def test_special_tokens_say_nothing(self, run):
        table = load_file(run.built / "model.safetensors")["embedding.weight"]
        special = load_model(run.teacher("bi")).tokenizer.all_special_ids
        assert not table[special].any()
        assert table.any(dim=1).sum() == len(table) - len(special)


class TestTraining:
    def test_starts_close_to_the_teacher_and_comes_closer(self, run):
        axes = read_axes(run.built)
        texts = run.split.train.documents
        told = load(run.teacher("bi")).encode(texts) @ axes
        told /= np.linalg.norm(told, axis=1, keepdims=True)
        built, student = ((load(folder).encode(texts) * told).sum(axis=1).mean() for folder in (run.built, run.student))
        assert 0.5 < built < student

    def test_resumes_with_the_same_bits(self, run, tmp_path, monkeypatch):
        from tests.tiny.test_training import Interrupted, identical

        changes = {"training": {"checkpoint_seconds": 0}, "objectives": {**MATCH, "matryoshka": [8, 4]}}
        again = static_run(tmp_path / "again", **changes)
        train_teachers(again)
        cache_signals(again)
        with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
            Interrupted(patch, 4)
            train_student(again)
        train_student(again)
        assert identical(again.student, run.student)

    def test_is_the_same_however_a_step_is_cut(self, run, tmp_path):
        student = {**STATIC, "training": {**STATIC["training"], "micro_batch": 8}}
        cut = static_run(tmp_path / "cut", student=student, objectives={**MATCH, "matryoshka": [8, 4]})
        ours, theirs = (
            load_file(r.student / "model.safetensors")["embedding.weight"] for r in (trained_student(cut), run)
        )
        assert torch.allclose(ours, theirs, atol=1e-4)

    def test_learns_from_labels_without_a_teacher(self, tmp_path, monkeypatch):
        monkeypatch.setattr(training, "_LOG_EVERY_STEPS", 1)
        run = trained_student(
            static_run(tmp_path / "run", objectives={"score_match": None, "labels": {"loss": "contrastive"}})
        )
        losses = [row["labels"] for row in read_card(run.student).details["history"] if "labels" in row]
        assert np.mean(losses[-3:]) < np.mean(losses[:3])

    @pytest.mark.parametrize("weighting", ["sif", pytest.param("none", marks=pytest.mark.slow)])
    def test_other_weightings_build(self, run, tmp_path, weighting):
        other = static_run(tmp_path / "run", student={**STATIC, "static": {"weighting": weighting}}, objectives=MATCH)
        train_teachers(other)
        cache_signals(other)
        build_student(other)
        tables = [load_file(r.built / "model.safetensors")["embedding.weight"] for r in (other, run)]
        assert tables[0].shape == tables[1].shape
        assert not torch.allclose(*tables, atol=1e-3)


def test_agrees_with_the_matryoshka_loss_of_sentence_transformers(run):
    """Theirs is the sum over widths; (cos − y)² for y = 2·label − 1 is four times ((cos + 1)/2 − label)²."""
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss, MatryoshkaLoss

    from distill.training.objectives import Step
    from distill.training.trainset import Tokenization, TrainSet

    model = load_model(run.student)
    pairs = Pairs(
        ["backend developer", "nurse"], ["python and django", "night shifts"], np.array([1.0, 0.0], dtype=np.float32)
    )
    settings = Objectives.model_validate({"labels": {"loss": "contrastive"}, "matryoshka": [8, 4]})
    trainset = TrainSet.build(Tokenization("bi_encoder", load(run.student).tokenizer, 64), pairs)
    units = np.arange(2)
    ours = Step(model, "bi_encoder", settings)(trainset.batch(units, totals=trainset.counts(units)))["labels"]
    theirs = MatryoshkaLoss(model, CosineSimilarityLoss(model), matryoshka_dims=[16, 8, 4])
    features = [model.preprocess(texts) for texts in (pairs.queries, pairs.documents)]
    assert ours.item() == pytest.approx(theirs(features, torch.tensor([1.0, -1.0])).item() / 3 / 4, abs=1e-6)


class TestDimensions:
    @pytest.fixture(scope="class")
    @classmethod
    def built(cls, tmp_path_factory):
        """A student that is its teacher, in 32 dimensions along its axes."""
        student = {
            "kind": "bi_encoder",
            "backbone": {"teacher": "bi"},
            "layers": None,
            "dimensions": 32,
            "control": False,
            "max_length": 64,
        }
        run = static_run(tmp_path_factory.mktemp("dimensions") / "run", student=student)
        train_teachers(run)
        cache_signals(run)
        build_student(run)
        return run

    def test_all_of_them_are_the_teacher_turned(self, built):
        texts = built.split.train.documents[:40]
        student, teacher = (load(folder).encode(texts) for folder in (built.built, built.teacher("bi")))
        assert np.abs(student @ student.T - teacher @ teacher.T).max() < 1e-5
        assert [type(module).__name__ for module in load_model(built.built)][-2:] == ["Dense", "Normalize"]

    def test_the_first_hold_the_most(self, built):
        vectors = load(built.built).encode(built.split.train.documents)
        squares = np.square(vectors).mean(axis=0)
        assert squares[:4].sum() > 0.5 > squares[16:].sum()
        assert read_card(built.built).details["output"]["share_kept"] == pytest.approx(1)

    def test_truncated_as_stock_truncates(self, built):
        texts = TEXTS[:1] + TEXTS[2:]
        expected = stock(built.built, truncate_dim=8).encode(texts, normalize_embeddings=True)
        short = load(built.built, truncate=8)
        assert short.embedding_width == 8
        assert np.abs(short.encode(texts) - expected).max() < 1e-5
        pairs = short.score(texts[:2], texts[1:3])
        assert np.allclose(pairs, (expected[:2] * expected[1:3]).sum(axis=1), atol=1e-5)

    def test_truncation_beyond_the_width_is_refused(self, built):
        with pytest.raises(BadInput, match="truncate 33: the embeddings of .* have 32 numbers"):
            load(built.built, truncate=33)

    def test_a_second_linear_layer_is_folded_into_the_first(self, built, tmp_path):
        from students.cut.dimensions import _with_map

        model = load_model(built.built)
        weight = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
        before = model.encode(TEXTS[:1], normalize_embeddings=False) @ weight
        folded = _with_map(model, weight)
        assert [type(module).__name__ for module in folded] == ["Transformer", "Pooling", "Dense", "Normalize"]
        assert np.allclose(folded.encode(TEXTS[:1]), before / np.linalg.norm(before), atol=1e-5)

    def test_more_than_the_teachers_are_refused(self, tmp_path):
        run = static_run(tmp_path / "run", student={**STATIC, "dimensions": 33})
        train_teachers(run)
        cache_signals(run)
        with pytest.raises(BadInput, match="student.dimensions 33 is more than the teacher's 32"):
            build_student(run)

    def test_without_a_bi_encoder_teacher_they_are_the_students_own_axes(self, tmp_path):
        student = {
            "kind": "bi_encoder",
            "backbone": {"teacher": "cross"},
            "layers": [0],
            "dimensions": 8,
            "control": False,
            "max_length": 64,
        }
        run = make_run(tmp_path / "run", student=student)
        train_teachers(run)
        build_student(run)
        assert load(run.built).embedding_width == 8
        assert read_axes(run.built) is None
        assert "cosine_to_teacher" not in read_card(run.built).details["output"]

    def test_a_student_of_another_width_starts_in_the_teachers_space(self, tmp_path):
        from tests.conftest import BACKBONE

        narrow = {**BACKBONE, "width": 16, "layers": 1}
        student = {"kind": "bi_encoder", "backbone": narrow, "layers": None, "control": False, "max_length": 64}
        run = static_run(tmp_path / "run", student=student)
        train_teachers(run)
        cache_signals(run)
        build_student(run)
        texts = run.split.train.documents
        cosines = (load(run.built).encode(texts) * load(run.teacher("bi")).encode(texts)).sum(axis=1)
        assert cosines.mean() > 0.5  # drawn at random the map would be at right angles
        assert read_axes(run.built) is None


@pytest.mark.slow
def test_serves_one_side_beside_its_teacher(tmp_path):
    """A table for queries against the teacher's index: its int8 export and the stock Router of both."""
    from students import export_router

    one_side = {"side": "query", "min_cosine": 0.3, "min_recall": 0.0}
    run = trained_student(static_run(tmp_path / "run", student={**STATIC, "dimensions": None, "asymmetric": one_side}))
    export_static_student(run)
    export_router(run)
    details = read_card(run.export("int8", "numpy")).details
    assert details["compatibility"]["mean_cosine"] > 0.3
    stricter = static_run(
        tmp_path / "run", student={**STATIC, "dimensions": None, "asymmetric": {**one_side, "min_cosine": 0.99}}
    )
    with pytest.raises(BadInput, match="asymmetric.min_cosine: 0.3 → 0.99"):
        export_static_student(stricter)
    routed = load(run.router)
    assert np.abs(routed.encode_queries(TEXTS) - stock(run.router).encode_query(TEXTS)).max() < 1e-6
    assert np.abs(routed.encode_documents(TEXTS) - load(run.teacher("bi")).encode_documents(TEXTS)).max() < 1e-6


@pytest.mark.parametrize(("asked", "is_said"), [([], False), (["--truncate", "8"], False), (["--truncate", "6"], True)])
def test_a_width_that_was_never_trained_is_said(run, tmp_path, capsys, asked, is_said):
    (tmp_path / "texts.txt").write_text("백엔드 개발자\nbackend engineer\n", encoding="utf-8")
    arguments = ["embed", str(run.student), str(tmp_path / "texts.txt"), "-o", str(tmp_path / "v.npy"), *asked]
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert ("its embeddings were trained whole and at 8, 4; at 6 numbers they may match worse" in said) == is_said
    assert f"2 texts → {tmp_path / 'v.npy'}, {(asked or ['', '16'])[1]} numbers each" in said
