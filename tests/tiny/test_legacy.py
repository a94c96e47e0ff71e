"""The published project's way in."""

import json
import logging
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from distill.errors import BadInput
from distill.files.artefact import check_model_folder, read_card
from distill.models.backbone import fresh_backbone
from distill.recipe.schema import FreshBackbone
from distill.run import Run
from teachers import Trainer
from tests.conftest import BACKBONE, pairs_file
from tests.tiny.conftest import SENTENCES

COLUMNS = {"col_name1": "query", "col_name2": "document", "label_col": "label"}
CONFIG = {
    "device": "cpu",
    "batch_size": 16,
    "val_split": 0.1,
    "lr": 2e-3,
    "epoch_num": 1,
    "patience": 5,
    "num_logs_per_epoch": 2,
    "use_fp16": False,
    "max_length": 64,
    "embedding_option": "CLS",
}


def write(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**CONFIG, **changes}))
    return path


def trainer(tmp_path, **changes):
    return Trainer(write(tmp_path, **changes), tmp_path / "out", pairs_file(), **COLUMNS)


@pytest.mark.integration
def test_it_trains_a_contrastive_bi_encoder(tmp_path):
    backbone = fresh_backbone(FreshBackbone(**BACKBONE), SENTENCES * 20, seed=1, folder=tmp_path / "backbones")
    folder = trainer(tmp_path, model_name=str(backbone)).train()
    card = read_card(folder)
    assert check_model_folder(folder) == "bi_encoder"
    section = card.details["inputs"]["teacher"]
    assert (section["loss"], section["pooling"], section["training"]["global_batch"]) == ("contrastive", "cls", 16)
    assert sum("validation" in row for row in card.details["history"]) >= 2


@pytest.mark.integration
def test_on_a_cpu_fp16_is_auto_and_a_gpu_that_is_not_there_is_said(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(logging.getLogger("teachers"), "propagate", True)
    caplog.set_level(logging.WARNING, "teachers")
    backbone = fresh_backbone(FreshBackbone(**BACKBONE), SENTENCES * 20, seed=1, folder=tmp_path / "backbones")
    folder = trainer(tmp_path, model_name=str(backbone), use_fp16=True, device="cpu").train()
    assert read_card(folder).details["inputs"]["teacher"]["training"]["precision"] == "auto"
    assert "use_fp16 needs a GPU: training in what this CPU multiplies" in caplog.text


@pytest.mark.parametrize("is_first", [True, False])
def test_of_several_processes_the_first_holds_the_folder(tmp_path, monkeypatch, is_first):
    state = SimpleNamespace(is_main_process=is_first, device=SimpleNamespace(type="cpu"))
    monkeypatch.setattr("accelerate.PartialState", lambda **_: state)
    monkeypatch.setattr("teachers.legacy.train_teachers", lambda run: None)
    trained = trainer(tmp_path, model_name="some/model")
    with Run(trained.recipe).lock(), pytest.raises(BadInput, match="in use") if is_first else nullcontext():
        trained.train()


def test_a_configuration_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CONFIG, "model_name": "some/model"}), encoding="utf-8-sig")
    assert Trainer(path, tmp_path / "out", pairs_file(), **COLUMNS).recipe.teachers["model"].backbone == "some/model"


def test_their_keys_mean_what_they_meant(tmp_path):
    teacher = trainer(tmp_path, model_name="some/model", use_fp16=True, lr="2e-5").recipe.teachers["model"]
    assert (teacher.backbone, teacher.max_length, teacher.pooling) == ("some/model", 64, "cls")
    assert (teacher.training.precision, teacher.training.learning_rate, teacher.training.patience) == ("fp16", 2e-5, 5)
    assert trainer(tmp_path, model_name="some/model").recipe.data.validation_share == 0.1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "model_name is missing"),
        (
            {"model_name": "m", "wandb": True, "optimiser": "sgd"},
            "wandb, optimiser mean nothing here; known: model_name",
        ),
        ({"model_name": "m", "lr": "fast"}, "lr is 'fast'; a number is expected"),
        ({"model_name": "m", "lr": float("nan")}, "lr: got nan; it should be a finite number"),
        ({"model_name": "m", "batch_size": -8}, "1 problem\n  batch_size: got -8"),
        ({"model_name": "m", "batch_size": 8.5}, "batch_size is 8.5; a whole number is expected"),
        ({"model_name": None}, "model_name is None; the name or the folder of an encoder"),
        ({"model_name": "m", "device": 0}, "device is 0; auto, cpu, mps, cuda and cuda:0 are accepted"),
        ({"model_name": "m", "embedding_option": "max"}, "embedding_option: got 'max'"),
        ({"model_name": "m", "val_split": 2}, "val_split: got 2"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, changes, words):
    with pytest.raises(BadInput) as error:
        trainer(tmp_path, **changes)
    assert words in str(error.value)


def test_a_configuration_that_is_not_there(tmp_path):
    with pytest.raises(BadInput, match="no such configuration file"):
        Trainer(tmp_path / "none.json", tmp_path, "pairs.csv")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(BadInput, match="not valid JSON"):
        Trainer(tmp_path / "broken.json", tmp_path, "pairs.csv")
