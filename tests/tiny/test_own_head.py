"""Rerankers that bring their own classification head, as bge-reranker does: trained, asked, cut and exported with it."""

import json

import numpy as np
import pytest
import torch

from distill.files.artefact import read_card
from distill.models.backbone import fresh_backbone
from distill.models.modeling import load_model, quiet, transformer_of
from distill.recipe.schema import FreshBackbone
from distill.runtime.opening import load
from recipes.cli import main
from tests.conftest import write_recipe
from tests.tiny.conftest import SENTENCES, sharpen

pytestmark = pytest.mark.integration

PAIRS = (SENTENCES[:4], SENTENCES[4:8])


@pytest.fixture(scope="module", params=["wordpiece", pytest.param("unigram", marks=pytest.mark.slow)])
def reranker(request, tmp_path_factory):
    """A transformers checkpoint of a sequence classifier with one label, and no modules.json."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("reranker")
    settings = FreshBackbone(
        tokenizer=request.param,
        vocabulary=200 if request.param == "unigram" else 300,
        layers=2,
        width=32,
        heads=2,
        max_length=96,
    )
    backbone = fresh_backbone(settings, SENTENCES * 20, seed=1, folder=folder / "backbones")
    torch.manual_seed(0)
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=1)
        sharpen(model)
        model.save_pretrained(folder / "model")
        AutoTokenizer.from_pretrained(backbone).save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def run_folder(reranker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    recipe = write_recipe(
        folder,
        data={"max_pairs": 120},
        teachers={"cross": {"kind": "cross_encoder", "backbone": str(reranker), "head": None, "max_length": 64}},
        export={"precisions": ["fp32"], "calibration_pairs": 20, "parity_pairs": 20},
    )
    for stage in ("train-teacher", "cache-signals", "train-student", "export"):
        assert main([stage, str(recipe)]) == 0
    return folder / "run"


def test_the_head_stays_and_is_trained(reranker, run_folder):
    from transformers import AutoModelForSequenceClassification

    with quiet():
        before = AutoModelForSequenceClassification.from_pretrained(reranker).classifier.state_dict()
        after = AutoModelForSequenceClassification.from_pretrained(
            run_folder / "teachers" / "cross"
        ).classifier.state_dict()
    assert len(json.loads((run_folder / "teachers" / "cross" / "modules.json").read_text())) == 1
    assert any((before[name] != after[name]).any() for name in before)


def test_stock_and_own_runtime_give_the_same_logits(run_folder):
    from sentence_transformers import CrossEncoder

    ours = load(run_folder / "teachers" / "cross", runtime="torch").score(*PAIRS)
    stock = CrossEncoder(str(run_folder / "teachers" / "cross"), device="cpu").predict(
        list(zip(*PAIRS, strict=True)), activation_fn=torch.nn.Identity()
    )
    assert ours == pytest.approx(np.asarray(stock), abs=1e-5)


def test_the_student_cut_from_it_has_it_too_and_exports(run_folder):
    student = load_model(run_folder / "student")
    assert transformer_of(student).config.num_hidden_layers == 1
    assert type(transformer_of(student)).__name__.endswith("ForSequenceClassification")
    torch_scores = load(run_folder / "student", runtime="torch").score(*PAIRS)
    graph_scores = load(run_folder / "exports" / "openvino-fp32", runtime="openvino").score(*PAIRS)
    assert graph_scores == pytest.approx(torch_scores, abs=1e-4)
    assert read_card(run_folder / "exports" / "openvino-fp32").kind == "cross_encoder"
