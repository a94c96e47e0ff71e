"""Recovery for int8: the simulation is what a static int8 graph computes, and a student that fell short holds after it."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from distill.errors import BadInput
from distill.files.artefact import read_card, revision, write_card
from distill.models.modeling import load_model, save_model, transformer_of
from distill.recipe.objectives import EmbeddingMatch
from distill.recipe.reading import load_recipe
from distill.recipe.schema import Objectives, Recover
from students.export.float_layers import stays_float
from students.export.quantize_onnx import smooth_scale
from students.export.recovery import RecoveryStep
from students.export.simulation import Int8Linear, rounded, simulate_int8
from students.export.stage import export_student
from students.train import train_student
from tests.conftest import BI_TEACHER, make_run, write_recipe

pytestmark = pytest.mark.integration

# of the planted student's teacher little is learned here: planting took it far from what that one says
RECOVER = {"steps": 30, "learning_rate": 1e-3, "objectives": 1e-3}
OUTLIERS = "encoder.layer.1.output.dense"


def simulated(alpha=-1.0):
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    low, high = torch.tensor([-1.0, -0.5, 0.0, -3.0]), torch.tensor([1.0, 2.0, 0.5, 1.5])
    return layer, Int8Linear(layer, low, high, alpha)


def by_hand(layer, rows, low, high, smooth):
    """Quantize and dequantize in numpy, with ranges over the whole tensor and weights in 7 bits."""
    weight, x = layer.weight.detach().numpy() * smooth, rows / smooth
    step, scale = (high - low) / 255, np.abs(weight).max(axis=1, keepdims=True) / 64
    zero = np.round(-low / step)
    codes = np.clip(np.round(x / step + zero), 0, 255)
    return (codes - zero) * step, np.round(weight / scale) * scale


ROWS = np.array([[0.3, -0.2, 0.4, 1.1], [0.9, 1.7, 0.1, -2.9], [-0.7, 0.0, 0.2, 0.6]], dtype=np.float32)


def test_the_simulation_is_quantize_and_dequantize():
    layer, int8 = simulated()
    inputs, weight = by_hand(layer, ROWS, -3.0, 2.0, 1.0)
    expected = inputs @ weight.T + layer.bias.detach().numpy()
    np.testing.assert_allclose(int8(torch.from_numpy(ROWS)).detach().numpy(), expected, atol=1e-5)
    assert np.abs(expected - layer(torch.from_numpy(ROWS)).detach().numpy()).max() > 1e-4


class TwoBehindANorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.query, self.key = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, input_ids):
        normed = self.norm(nn.functional.one_hot(input_ids, 8).float())
        return self.query(normed) + self.key(normed)


def test_layers_behind_one_norm_are_smoothed_by_one_scale():
    """As in both graphs: the norm's output is divided once. Each layer had a scale of its own weights here."""
    model, sample = TwoBehindANorm(), [{"input_ids": np.arange(8)[None]}]
    with torch.no_grad():
        model.key.weight.mul_(torch.logspace(-1, 1, 8)[None])
        greatest = model.norm(torch.eye(8)).abs().amax(dim=0).numpy()
    weights = [layer.weight.detach().numpy().T for layer in (model.query, model.key)]
    simulate_int8(model, sample, alpha=0.5)
    for layer in (model.query, model.key):
        np.testing.assert_allclose(layer.smooth, smooth_scale(greatest, weights, 0.5), rtol=1e-5)


def test_the_teachers_embeddings_lie_as_in_training(bert_bi):
    objectives = Objectives(embedding_match=EmbeddingMatch(teacher="bi"))
    facts = {"block_widths": (3, 4), "some_unread": True, "axes": np.eye(2, dtype=np.float32)}
    job = SimpleNamespace(sources={}, kind="bi_encoder", objectives=objectives, **facts)
    step = RecoveryStep(load_model(bert_bi), job, Recover(match_student=None), None)
    assert (step.block_widths, step.some_unread) == ((3, 4), True) and torch.equal(step.axes, torch.eye(2))


def test_smoothed_products_are_rounded_as_the_export_rounds_them():
    layer, int8 = simulated(alpha=0.5)
    smooth = int8.smooth.numpy()
    assert smooth.argmax() == 3 or smooth.std() > 0.1
    low, high = (np.array([-1.0, -0.5, 0.0, -3.0]) / smooth).min(), (np.array([1.0, 2.0, 0.5, 1.5]) / smooth).max()
    inputs, weight = by_hand(layer, ROWS, low, high, smooth)
    expected = inputs @ weight.T + layer.bias.detach().numpy()
    np.testing.assert_allclose(int8(torch.from_numpy(ROWS)).detach().numpy(), expected, atol=1e-5)


def test_bf16_rounds_nothing_but_the_products():
    _, int8 = simulated()
    exact = int8(torch.from_numpy(ROWS))
    with torch.autocast("cpu", torch.bfloat16):
        products = int8(torch.from_numpy(ROWS))
    assert products.dtype == torch.bfloat16
    torch.testing.assert_close(products.float(), exact, atol=0.02, rtol=0.01)


def test_gradients_are_straight_through():
    layer, int8 = simulated()
    rows = torch.from_numpy(ROWS).clone()
    rows[0, 0] = 50.0  # outside of the range: nothing is learned there
    rows.requires_grad_()
    upstream = torch.arange(9.0).reshape(3, 3)
    (int8(rows) * upstream).sum().backward()
    inputs, weight = by_hand(layer, rows.detach().numpy(), -3.0, 2.0, 1.0)
    torch.testing.assert_close(layer.weight.grad, upstream.T @ torch.from_numpy(inputs).float(), atol=1e-4, rtol=1e-4)
    expected = upstream @ torch.from_numpy(weight).float()
    expected[0, 0] = 0
    torch.testing.assert_close(rows.grad, expected, atol=1e-4, rtol=1e-4)
    assert rounded(torch.tensor([2.5, -0.4])).tolist() == [2.0, 0.0]


def test_what_the_export_keeps_in_float_is_not_simulated(bert_bi):
    sample = [{"input_ids": np.array([[2, 7, 9, 3]]), "attention_mask": np.ones((1, 4), dtype=np.int64)}]
    names = {}
    for keep in (None, "search", "ffn_down", (r"layer\.1\.", "layer.0.*query")):
        model = load_model(bert_bi)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        names[keep] = simulate_int8(transformer_of(model), sample, keep_float=keep)
        after = model.state_dict()
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert len(names[None]) == len(names["search"]) == 12 and "pooler.dense" not in names[None]
    assert set(names[None]) - set(names["ffn_down"]) == {f"encoder.layer.{i}.output.dense" for i in (0, 1)}
    assert len(names[(r"layer\.1\.", "layer.0.*query")]) == 5
    assert stays_float("encoder.layer.0.output.dense", [r"dense/aten::linear"])  # either graph's name of it will do


# ---------------------------------------------------------------------------------------------------------------------
# A student whose int8 falls short
# ---------------------------------------------------------------------------------------------------------------------


def changes(**export):
    open_gate = {"min_cosine": -1, "min_mean_cosine": -1, "min_rank_agreement": -1, "min_batch_cosine": -1}
    return {
        "teachers": {"bi": BI_TEACHER},
        "student": {
            "kind": "bi_encoder",
            "backbone": {"teacher": "bi"},
            "layers": [0, 1],
            "max_length": 24,
            "control": False,
            "training": {"global_batch": 8, "micro_batch": 8, "max_steps": 4},
        },
        "objectives": {"score_match": None, "embedding_match": {"teacher": "bi"}},
        "export": {
            "formats": ["onnx"],
            "precisions": ["int8"],
            "keep_float": None,
            "calibration_pairs": 20,
            "parity_pairs": 30,
            "max_metric_drop": 1,
            **open_gate,
            **export,
        },
        "overwrite": True,
    }


def plant(folder):
    """Give a down-projection weights that nothing reads, so large that the others round to few steps."""
    model = load_model(folder)
    layer = transformer_of(model).encoder.layer[1]
    with torch.no_grad():
        for parameter in model.parameters():  # weights as drawn add next to nothing to what they are added to
            parameter.mul_(10 if parameter.dim() == 2 else 1)
        layer.intermediate.dense.weight[0] = 0
        layer.intermediate.dense.bias[0] = 0
        layer.output.dense.weight[:, 0] = 60 * layer.output.dense.weight.std()
    card = read_card(folder)
    save_model(model, folder)
    write_card(folder, card)


@pytest.fixture(scope="module", autouse=True)
def nearest_step():
    """Rounding that looks at the outputs repairs what is planted here, better than recovery: .99956, .9979 recovered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("students.export.quantize_onnx._round_to_outputs", lambda *given, **named: None)
        yield


@pytest.fixture(scope="module")
def planted(trained, tmp_path_factory):
    """A trained student with planted outliers, its int8 without a gate, and a threshold that it misses."""
    from teachers import cache_signals

    folder = tmp_path_factory.mktemp("recovery") / "run"
    run = make_run(folder, **changes())
    shutil.copytree(trained.teacher("bi"), run.teacher("bi"))
    cache_signals(run)
    train_student(run)
    plant(run.student)
    export_student(run)
    parity = read_card(run.export("int8", "onnx")).details["parity"]
    return run, parity, {"min_mean_cosine": 1 - 0.6 * (1 - parity["mean_cosine"])}


@pytest.fixture(scope="module")
def recovered(planted):
    run, _, limit = planted
    again = make_run(run.folder, **changes(recover=RECOVER, **limit))
    export_student(again)
    return again


@pytest.mark.slow
def test_without_recovery_a_layer_goes_into_float(planted, tmp_path):
    run, _, limit = planted
    copy = shutil.copytree(run.folder, tmp_path / "run")
    again = make_run(copy, **changes(**limit))
    export_student(again)
    details = read_card(again.export("int8", "onnx")).details
    assert "recovery" not in details and not again.recovered.exists()
    assert [name for name in details["search"]["kept_float"] if OUTLIERS in name]


def test_with_recovery_int8_holds_throughout(planted, recovered):
    run, parity, limit = planted
    card = read_card(recovered.export("int8", "onnx"))
    assert "search" not in card.details and card.details["calibration"]["n_kept_float"] == 0
    told = card.details["recovery"]
    assert told["used"] and told["before"]["mean_cosine"] == parity["mean_cosine"] < limit["min_mean_cosine"]
    assert told["after"]["mean_cosine"] == card.details["parity"]["mean_cosine"] >= limit["min_mean_cosine"]
    # judged against the student as it was, and made of the recovered one
    assert card.parents == {"student": revision(run.student), "recovered": told["revision"]}


def test_the_recovered_student_is_an_ordinary_folder(planted, recovered):
    from sentence_transformers import SentenceTransformer

    run, _, _ = planted
    card = read_card(recovered.recovered)
    assert card.stage == "recover_student" and card.parents == {"student": revision(run.student)}
    assert {"float_student", "embedding_match"} <= card.details["history"][0].keys()
    stock, ours = SentenceTransformer(str(recovered.recovered), device="cpu"), load_model(recovered.recovered)
    assert not [module for module in stock.modules() if isinstance(module, Int8Linear)]
    assert stock.state_dict().keys() == load_model(run.student).state_dict().keys()
    texts = ["Backend engineer", "간호사 면허 소지자"]
    np.testing.assert_allclose(stock.encode(texts), ours.encode(texts), atol=1e-6)
    cosines = (stock.encode(texts) * load_model(run.student).encode(texts)).sum(axis=1)
    assert (cosines > 0.9).all() and (cosines < 1 - 1e-7).all()


@pytest.mark.slow
def test_it_is_made_once_and_the_same_bits_again(recovered, tmp_path):
    made = recovered.recovered / "artefact.json"
    stamp = made.stat().st_mtime_ns
    export_student(recovered)  # finished
    assert made.stat().st_mtime_ns == stamp
    copy = shutil.copytree(recovered.folder, tmp_path / "run", ignore=shutil.ignore_patterns("recovered", "exports"))
    settings = recovered.recipe.export.model_dump(mode="json")
    again = make_run(copy, **changes(**settings))
    export_student(again)
    assert revision(again.recovered) == revision(recovered.recovered)
    assert revision(again.export("int8", "onnx")) == revision(recovered.export("int8", "onnx"))


def test_another_section_makes_it_anew(planted, recovered):
    _, _, limit = planted
    other = changes(recover={**RECOVER, "steps": 31}, **limit) | {"overwrite": False}
    with pytest.raises(BadInput, match=r"onnx-int8 was made from something else \(export\.recover\.steps: 30 → 31\)"):
        export_student(make_run(recovered.folder, **other))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"export": {"recover": {}, "precisions": ["fp32"]}}, "export.recover: it is for int8 alone"),
        ({"export": {"recover": {"stpes": 3}}}, "export.recover.stpes: unknown key; did you mean 'steps'?"),
        ({"export": {"recover": {"match_student": None, "objectives": None}}}, "export.recover: nothing is learned"),
        (
            {"export": {"recover": {}}, "student": None, "objectives": {"score_match": None}},
            "export.recover: there is no",
        ),
        (
            {
                "export": {"recover": {}},
                "teachers": {"bi": BI_TEACHER},
                "student": {"kind": "bi_encoder", "backbone": {"teacher": "bi"}, "layers": None, "static": {}},
            },
            "export.recover: a static student has no layers",
        ),
    ],
)
def test_what_cannot_be_recovered_is_refused(tmp_path, given, line):
    with pytest.raises(BadInput) as caught:
        load_recipe(write_recipe(tmp_path, **given))
    assert line in str(caught.value)
