"""Tiny random models with tokenizers trained on a few sentences: whole folders, built once a session in seconds."""

import functools
import gc
import shutil
import sys
from pathlib import Path

import pytest

from distill.evaluation import latency
from tests.conftest import N_THREADS
from tests.tiny.forked import ForkedProcess

SENTENCES = [
    "백엔드 개발자를 채용합니다. Python과 Django 경험이 필요합니다.",
    "머신러닝 엔지니어로 3년간 추천 시스템을 개발했습니다.",
    "Backend engineer with five years of Python, Django and PostgreSQL.",
    "We are looking for a data scientist who knows PyTorch and SQL.",
    "마케팅 담당자, 콘텐츠 기획과 SNS 운영 경험자 우대",
    "Kubernetes와 AWS로 서비스를 운영한 DevOps 엔지니어",
    "A nurse with experience in intensive care and night shifts.",
    "간호사 면허 소지자, 중환자실 경력 2년 이상",
    "The cat sat on the mat and looked at the quick brown fox.",
    "고양이가 매트 위에 앉아 있었다.",
]


def build(folder: Path, kind: str, tokenizer: str, *, max_length: int = 96, pooling: str = "mean") -> Path:
    """Write a random two-layer model folder; Unigram makes it an XLM-RoBERTa, WordPiece a BERT."""
    import torch

    from distill.models.backbone import fresh_backbone
    from distill.models.modeling import build_model, save_model
    from distill.recipe.schema import FreshBackbone

    vocabulary = 300 if tokenizer == "wordpiece" else 200
    settings = FreshBackbone(
        tokenizer=tokenizer, vocabulary=vocabulary, layers=2, width=64, heads=2, max_length=max_length
    )
    backbone = fresh_backbone(settings, SENTENCES * 20, seed=1, folder=folder / "backbones")
    torch.manual_seed(2)
    head = (32,) if kind == "cross_encoder" else None
    model = build_model(kind, backbone, pooling=pooling, head=head, max_length=max_length, seed=3)
    sharpen(model)
    save_model(model, folder / "model")
    return folder / "model"


def sharpen(model) -> None:
    """Scale random weights up: as drawn, all texts of a random encoder are nearly one point and have no ranks."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "LayerNorm" not in name:
                parameter.mul_(3)


@pytest.fixture(scope="module", autouse=True)
def _frozen_garbage():
    """Optimum collects garbage four times an export, over all that a test session holds: seconds each time.

    What lives when a file begins, mostly modules, is left out from then on; models of session fixtures stay anyway.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def threads_of_torch():
    """Loading a torch model with `n_threads` sets them for the process; the last bits of a training depend on them."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(N_THREADS)


@pytest.fixture(autouse=True, scope="session")
def _measuring_processes_share_their_imports():
    """Those of torch models: each would import for eight seconds. `test_latency.py` starts them as users do."""
    start = latency._start

    @functools.wraps(start)
    def forked(runtime, n_threads, errors):
        return ForkedProcess(runtime, errors) if runtime == "torch" else start(runtime, n_threads, errors)

    latency._start = forked
    yield
    latency._start = start


@pytest.fixture(scope="session")
def bert_bi(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("bert_bi"), "bi_encoder", "wordpiece")


@pytest.fixture(scope="session")
def xlmr_bi(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("xlmr_bi"), "bi_encoder", "unigram", pooling="cls")


@pytest.fixture(scope="session")
def bert_cross(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("bert_cross"), "cross_encoder", "wordpiece")


@pytest.fixture(scope="session")
def xlmr_cross(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("xlmr_cross"), "cross_encoder", "unigram")


def write_onnx(folder):
    """Export with the mask handed over ready in four dimensions: transformers 5 breaks the tracer otherwise."""
    import warnings

    import torch
    from transformers import AutoModel

    class Wrapper(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):
            mask = (1 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
            return self.model(input_ids, mask, token_type_ids).last_hidden_state

    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = tuple(torch.ones(2, 7, dtype=torch.int64) for _ in names)
    (folder / "onnx").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Wrapper(AutoModel.from_pretrained(folder)).eval(),
            example,
            str(folder / "onnx/model.onnx"),
            dynamo=False,
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "rows", 1: "tokens"} for name in [*names, "last_hidden_state"]},
            opset_version=17,
        )


@pytest.fixture(scope="session")
def graphs(bert_bi, bert_cross, xlmr_bi, tmp_path_factory):
    """OpenVINO folders of three models, and an ONNX one, all of the transformer alone."""
    from distill.graphs.openvino import export_graph

    root = tmp_path_factory.mktemp("graphs")
    for name, source in {"bert_bi": bert_bi, "bert_cross": bert_cross, "xlmr_bi": xlmr_bi}.items():
        export_graph(source, root / name, "fp32")
    shutil.copytree(bert_bi, root / "onnx_bi")
    write_onnx(root / "onnx_bi")
    return root
