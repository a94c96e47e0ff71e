"""Tiny random models with tokenizers trained on a few sentences: whole folders, built once a session in seconds."""

from pathlib import Path

import pytest

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

    from distill.backbone import fresh_backbone
    from distill.modeling import build_model, save_model
    from distill.recipe import FreshBackbone

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
