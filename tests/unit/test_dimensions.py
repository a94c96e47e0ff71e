"""Axes, least squares, prefixes, token weights and row-wise Adam: numbers worked by hand, and stock torch beside ours."""

import numpy as np
import pytest
import torch
from torch import nn

from distill.recipe.schema import EmbeddingMatch, Labels, Matryoshka, Objectives
from distill.training.objectives import Step, matryoshka_shares
from distill.training.row_adam import RowAdamW, clip_row_gradients
from distill.training.trainset import Batch
from students.cut.dimensions import _sample, least_squares, principal_axes
from students.cut.sources import AlongAxes
from students.cut.static import token_weights
from students.export.static import int8_rows
from tests.conftest import BI_TEACHER, make_run
from tests.unit.test_recipe import problems


def unit_vectors(n, width, seed=0):
    drawn = np.random.default_rng(seed).normal(size=(n, width))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


class TestAxes:
    def test_by_hand(self):
        # E[xxᵀ] of (1, 0), (1, 0), (0, 1) is diagonal: 2/3 and 1/3, whatever the mean (2/3, 1/3) is
        axes, share = principal_axes(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 1)
        assert np.allclose(axes, [[1.0], [0.0]])
        assert share == pytest.approx(2 / 3)

    def test_all_of_them_are_a_rotation_that_leaves_cosines_alone(self):
        vectors = unit_vectors(50, 8)
        axes, share = principal_axes(vectors, 8)
        assert share == pytest.approx(1)
        turned = vectors @ axes
        assert np.allclose(turned @ turned.T, vectors @ vectors.T, atol=1e-5)

    def test_no_other_subspace_keeps_the_similarities_better(self):
        vectors = unit_vectors(200, 10) * np.linspace(2, 0.2, 10)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        gram = vectors @ vectors.T

        def error(axes):
            kept = vectors @ axes
            return np.square(kept @ kept.T - gram).sum()

        axes, _ = principal_axes(vectors, 3)
        others = [np.linalg.qr(np.random.default_rng(seed).normal(size=(10, 3)))[0] for seed in range(20)]
        assert error(axes) < min(error(other) for other in others)

    def test_point_the_same_way_for_the_same_vectors(self):
        vectors = unit_vectors(60, 6)
        one, _ = principal_axes(vectors, 6)
        other, _ = principal_axes(vectors[::-1], 6)
        assert np.allclose(one, other, atol=1e-5)
        assert (one[np.abs(one).argmax(axis=0), np.arange(6)] > 0).all()


class TestSample:
    """The texts on which axes and maps are fitted, with the role that the student learns each of them in."""

    def sample(self, tmp_path, **student):
        files = {name: tmp_path / f"{name}.tsv" for name in ("unlabelled", "pairs", "parallel")}
        files["unlabelled"].write_text("text\nalone\n", encoding="utf-8")
        files["pairs"].write_text("query\tdocument\nlone query\tlone document\n", encoding="utf-8")
        files["parallel"].write_text("en\tko\nsource\ttarget\n", encoding="utf-8")
        run = make_run(
            tmp_path / "run",
            data={
                "unlabelled": [{"path": str(files["unlabelled"])}],
                "unlabelled_pairs": [{"path": str(files["pairs"])}],
                "parallel": [{"path": str(files["parallel"])}],
            },
            teachers={"bi": BI_TEACHER},
            student={"kind": "bi_encoder", "backbone": {"teacher": "bi"}, **student},
            objectives={"score_match": None, "embedding_match": {"teacher": "bi"}},
        )
        return {text: (teacher_text, role) for text, teacher_text, role in _sample(run)}

    def test_has_pairs_without_labels(self, tmp_path):
        sample = self.sample(tmp_path)
        assert sample["lone query"] == ("lone query", 0) and sample["lone document"] == ("lone document", 1)
        assert sample["alone"] == ("alone", 1) and sample["target"] == ("source", 1)

    @pytest.mark.parametrize(("side", "role"), [("query", 0), ("document", 1)])
    def test_has_lone_texts_in_the_role_of_an_asymmetric_student(self, side, role, tmp_path):
        sample = self.sample(tmp_path, asymmetric={"side": side})
        assert sample["alone"] == ("alone", role) and sample["target"] == ("source", role)


class TestLeastSquares:
    def test_by_hand(self):
        # one dimension: W = Σxt / (Σx² + 10/1) = (1·2 + 1·4) / (2 + 10)
        assert least_squares(np.array([[1.0], [1.0]]), np.array([[2.0], [4.0]])).item() == pytest.approx(0.5)

    def test_finds_the_map_that_is_there(self):
        vectors, true = unit_vectors(20_000, 5), np.random.default_rng(1).normal(size=(5, 3))
        assert np.allclose(least_squares(vectors, vectors @ true), true, atol=5e-3)

    def test_more_dimensions_than_texts_are_no_singular_matrix(self):
        assert np.isfinite(least_squares(unit_vectors(4, 16), unit_vectors(4, 2))).all()


class TestTokenWeights:
    def test_none_is_one(self):
        assert token_weights(np.array([5, 0]), "none").tolist() == [1.0, 1.0]

    def test_sif_of_a_text_without_tokens_is_one(self):
        assert token_weights(np.array([0, 0]), "sif").tolist() == [1.0, 1.0]

    def test_equally_frequent_tokens_keep_their_order(self):
        weights = token_weights(np.array([0, 3, 0, 3]), "zipf")
        assert weights.tolist() == pytest.approx(np.log([4, 2, 5, 3]).tolist())


class Vectors(nn.Module):
    """A bi-encoder that knows two texts by heart: their vectors are its parameters."""

    def __init__(self, vectors):
        super().__init__()
        self.vectors = nn.Parameter(torch.tensor(vectors))

    def forward(self, features):
        return {"sentence_embedding": self.vectors[features["input_ids"][:, 0]]}

    def get_embedding_dimension(self):
        return self.vectors.shape[1]


def batch_of(teacher_embeddings, label=1.0):
    return Batch(
        inputs=[{"input_ids": torch.tensor([[0], [1]]), "attention_mask": torch.ones(2, 1, dtype=torch.long)}],
        order=torch.arange(2),
        query_rows=torch.tensor([0]),
        document_rows=torch.tensor([1]),
        labels=torch.tensor([label]),
        teacher_scores={},
        teacher_embeddings=torch.tensor(teacher_embeddings),
        slots=torch.zeros(0, 0, dtype=torch.long),
        slot_mask=torch.zeros(0, 0, dtype=torch.bool),
        excluded=None,
        share={"pairs": 1.0, "labelled": 1.0, "groups": 1.0, "texts": 1.0, "positives": 1.0},
        rows=np.array([0]),
    )


# at width 3: a = (2, 2, 1)/3, b = (2, −2, 1)/3, cos = 1/9; of the first two numbers: (1, 1)/√2, (1, −1)/√2, cos = 0
STUDENT = [[2 / 3, 2 / 3, 1 / 3], [2 / 3, -2 / 3, 1 / 3]]


class TestMatryoshka:
    def losses(self, objectives, teacher=((1.0, 0.0, 0.0), (1.0, 0.0, 0.0)), student=STUDENT):
        step = Step(Vectors(student), "bi_encoder", objectives)
        terms = step(batch_of([list(row) for row in teacher]))
        assert terms.pop("nothing") == 0
        return {name: value.item() for name, value in terms.items()}

    def test_labels_by_hand(self):
        # contrastive: ((1/9 + 1)/2 − 1)² = (4/9)² at width 3, (1/2 − 1)² = 1/4 at width 2; half of each
        objectives = Objectives(labels=Labels(loss="contrastive"), matryoshka=Matryoshka(dimensions=(2,)))
        assert self.losses(objectives) == {"labels": pytest.approx((16 / 81 + 1 / 4) / 2)}

    def test_embeddings_by_hand_and_weighted(self):
        # 1 − cos to (1, 0, 0): 1 − 2/3 at width 3, 1 − 1/√2 at width 2; weights 1 and 3
        objectives = Objectives(
            embedding_match=EmbeddingMatch(teacher="t"), matryoshka=Matryoshka(dimensions=(3, 2), weights=(1.0, 3.0))
        )
        expected = 0.25 * (1 / 3) + 0.75 * (1 - 0.5**0.5)
        assert self.losses(objectives) == {"embedding_match": pytest.approx(expected)}

    def test_prefixes_are_matched_in_unit_length(self):
        # the prefix (0.6, 0.8) of the teacher has length 1 of 2: to match it by the squared difference costs nothing
        student = [[0.3, 0.4, 0.75**0.5]] * 2
        objectives = Objectives(
            embedding_match=EmbeddingMatch(teacher="t", loss="mse"), matryoshka=Matryoshka(dimensions=(2,))
        )
        both = self.losses(objectives, teacher=student, student=student)
        assert both == {"embedding_match": pytest.approx(0, abs=1e-6)}

    def test_whole_width_alone_is_no_other_loss(self):
        plain = Objectives(labels=Labels(), embedding_match=EmbeddingMatch(teacher="t"))
        assert self.losses(plain.model_copy(update={"matryoshka": Matryoshka(dimensions=(3,))})) == pytest.approx(
            self.losses(plain)
        )

    def test_shares_add_up_to_one(self):
        shares = matryoshka_shares(Matryoshka(dimensions=(64, 32), weights=(2.0, 0.5)), 128)
        assert shares == {64: pytest.approx(2 / 3.5), 32: pytest.approx(0.5 / 3.5), 128: pytest.approx(1 / 3.5)}


class Told:
    kind, width = "bi_encoder", 3

    def scores(self, queries, documents):
        return np.zeros(len(queries), dtype=np.float32)

    def embeddings(self, texts, roles):
        return lambda numbers: np.eye(3, dtype=np.float32)[numbers]


def test_embeddings_along_axes_have_unit_length():
    axes = np.array([[0.6, 0.8], [0.8, -0.6], [0.0, 0.0]], dtype=np.float32)
    source = AlongAxes(Told(), axes)
    told = source.embeddings(["a", "b", "c"], [0, 0, 0])(np.array([1, 0, 2]))
    assert np.allclose(told, [[0.8, -0.6], [0.6, 0.8], [0, 0]])
    assert (source.width, source.kind) == (2, "bi_encoder")


class TestRowAdam:
    def trained(self, optimizer_class, *, sparse, n_steps=5, every_row=True, **options):
        torch.manual_seed(0)
        table = nn.EmbeddingBag(6, 4, mode="mean", sparse=sparse)
        layer = nn.Linear(4, 1)
        optimizer = optimizer_class(
            [{"params": list(table.parameters())}, {"params": list(layer.parameters())}], **options
        )
        for step in range(n_steps):
            ids = torch.tensor([0, 1, 2, 3, 4, 5, 1] if every_row else [step % 3, 1])
            optimizer.zero_grad(set_to_none=True)
            layer(table(ids, torch.tensor([0, len(ids) - 1]))).square().sum().backward()
            optimizer.step()
        return table.weight.detach(), layer.weight.detach()

    def test_is_adamw_where_a_step_meets_every_row(self):
        options = {"lr": 0.1, "weight_decay": 0.0}
        ours = self.trained(RowAdamW, sparse=True, **options)
        theirs = self.trained(torch.optim.AdamW, sparse=False, **options)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))

    def test_is_torchs_sparse_adam_where_it_does_not(self):
        def both(groups, lr):
            table, layer = (group["params"] for group in groups)
            sparse, dense = torch.optim.SparseAdam(table, lr=lr), torch.optim.Adam(layer, lr=lr)

            class Two:
                def zero_grad(self, set_to_none):
                    sparse.zero_grad(), dense.zero_grad()

                def step(self):
                    sparse.step(), dense.step()

            return Two()

        ours = self.trained(RowAdamW, sparse=True, every_row=False, lr=0.1, weight_decay=0.0)
        theirs = self.trained(both, sparse=True, every_row=False, lr=0.1)
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours, theirs, strict=True))

    def test_rows_that_no_step_met_keep_still(self):
        torch.manual_seed(0)
        start = nn.EmbeddingBag(6, 4).weight.detach()
        table, _ = self.trained(RowAdamW, sparse=True, every_row=False, lr=0.1)
        assert torch.equal(table[3:], start[3:])
        assert not torch.equal(table[:3], start[:3])

    def test_an_overflow_moves_nothing(self):
        table, scaler = nn.EmbeddingBag(6, 4, mode="mean", sparse=True), torch.amp.GradScaler("cpu")
        layer = nn.Linear(4, 1)
        optimizer = RowAdamW([*table.parameters(), *layer.parameters()], lr=0.1, fused=True)
        before = [parameter.detach().clone() for parameter in (table.weight, layer.weight)]
        ids, offsets = torch.tensor([0, 1]), torch.tensor([0, 1])
        scaler.scale(layer(table(ids, offsets)).sum() * torch.inf).backward()
        scaler.step(optimizer)
        assert torch.equal(table.weight, before[0]) and torch.equal(layer.weight, before[1])
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(layer(table(ids, offsets)).sum()).backward()
        scaler.step(optimizer)
        assert torch.isfinite(table.weight).all() and not torch.equal(table.weight, before[0])

    def test_clips_as_torch_clips_dense_gradients(self):
        gradients = []
        for sparse in (True, False):
            torch.manual_seed(0)
            table, layer = nn.EmbeddingBag(6, 4, sparse=sparse), nn.Linear(4, 1)
            layer(table(torch.tensor([1, 1, 2]), torch.tensor([0, 2]))).sum().backward()
            parameters = [*table.parameters(), *layer.parameters()]
            clip = clip_row_gradients if sparse else torch.nn.utils.clip_grad_norm_
            norm = clip(parameters, 0.5)
            gradients.append([norm, *(p.grad.to_dense() if p.grad.is_sparse else p.grad for p in parameters)])
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_int8_rows_are_off_by_half_a_step_at_most():
    table = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32) * np.logspace(-3, 3, 40)[:, None]
    codes, scales = int8_rows(table.astype(np.float32))
    assert codes.dtype == np.int8
    assert (np.abs(codes * scales[:, None] - table) <= 0.5001 * scales[:, None]).all()


BI = {"kind": "bi_encoder", "backbone": {"teacher": "cross"}, "layers": None}
LEARN = {"score_match": {"teacher": "cross", "loss": "bce"}}


class TestRecipe:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            (
                {"student": {**BI, "kind": "cross_encoder", "static": {}}},
                "student.static: a table of token vectors embeds one text",
            ),
            ({"student": {**BI, "static": {}, "layers": [0]}}, "student.layers: means nothing for a static student"),
            ({"student": {**BI, "static": {}, "head": [4]}}, "student.head: means nothing for a static student"),
            (
                {"student": {**BI, "static": {}, "backbone": {"tokenizer": "wordpiece"}}},
                "student.static: a fresh encoder has nothing",
            ),
            ({"student": {**BI, "static": {"weighting": "idf"}}}, "student.static.weighting: got 'idf'"),
            (
                {"student": {**BI, "static": {"dimension": 4}}},
                "student.static.dimension: unknown key; known: weighting",
            ),
            (
                {"student": {**BI, "kind": "cross_encoder", "dimensions": 8}},
                "student.dimensions: a cross-encoder puts out one score",
            ),
            ({"student": {**BI, "dimensions": 1}}, "student.dimensions: got 1"),
            (
                {"student": BI, "objectives": {**LEARN, "matryoshka": [8]}},
                "objectives.matryoshka: set student.dimensions too",
            ),
            (
                {"student": {**BI, "dimensions": 8}, "objectives": {**LEARN, "matryoshka": [16, 4]}},
                "objectives.matryoshka: 16 is more than student.dimensions, 8",
            ),
            (
                {"student": {**BI, "dimensions": 8}, "objectives": {**LEARN, "matryoshka": [4, 4]}},
                "objectives.matryoshka: dimensions [4, 4]: each width once",
            ),
            (
                {
                    "student": {**BI, "dimensions": 8},
                    "objectives": {**LEARN, "matryoshka": {"dimensions": [4, 2], "weights": [1]}},
                },
                "objectives.matryoshka: 1 weights for 2 dimensions",
            ),
            (
                {"objectives": {**LEARN, "matryoshka": [8]}},
                "objectives.matryoshka: a cross-encoder has no embeddings to cut",
            ),
            (
                {"student": {**BI, "dimensions": 8}, "objectives": {"score_match": None, "matryoshka": [8]}},
                "objectives: the student learns nothing",
            ),
        ],
    )
    def test_refusals(self, tmp_path, changes, says):
        (line,) = problems(tmp_path, **changes)
        assert line.startswith(says)

    def test_prefixes_need_the_projection_to_stay(self, tmp_path):
        changes = {
            "teachers": {"bi": {"kind": "bi_encoder", "backbone": {"teacher": "cross"}}},
            "student": {**BI, "dimensions": 8},
            "objectives": {**LEARN, "matryoshka": [4], "embedding_match": {"teacher": "bi", "projection": "drop"}},
        }
        (line,) = problems(tmp_path, **changes)
        assert "set embedding_match.projection to keep" in line

    def test_static_student_is_its_own_fp32(self, tmp_path):
        from tests.unit.test_recipe import load

        recipe = load(tmp_path, student={**BI, "static": {}}, objectives=LEARN)
        assert recipe.exports == [("numpy", "int8")]
        assert load(tmp_path, student={**BI, "static": {}}, export={"precisions": ["fp32"]}).exports == []
