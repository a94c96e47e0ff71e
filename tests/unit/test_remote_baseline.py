"""A remote baseline is looked at before anything is trained."""

import logging

import pytest

from distill.errors import BadInput
from distill.evaluation.benchmark import check_remote_baselines
from tests.conftest import make_run

REMOTE = {"kind": "remote", "endpoint": {"model": "text-embedding-3-small"}}


def run_with(folder, **endpoint):
    baseline = {**REMOTE, "endpoint": REMOTE["endpoint"] | endpoint}
    return make_run(folder, benchmark={"baselines": {"openai": baseline}})


def test_a_missing_key_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(BadInput, match="needs a key: set the environment variable OPENAI_API_KEY"):
        check_remote_baselines(run_with(tmp_path))


def test_an_unknown_price_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(BadInput, match="no price is known for model 'nobody-knows'"):
        check_remote_baselines(run_with(tmp_path, model="nobody-knows"))


def test_what_will_be_asked_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    run = run_with(tmp_path)
    pairs = run.split.evaluation
    with caplog.at_level(logging.INFO):
        check_remote_baselines(run)
    n_texts = len({*pairs.queries, *pairs.documents})
    assert f"baseline openai will send {n_texts} texts to https://api.openai.com/v1, about <$0.0001" in caplog.text
    assert "secret" not in caplog.text


def test_kept_vectors_need_no_key(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    run = run_with(tmp_path)
    (run.baseline("openai").parent / "embeddings").mkdir(parents=True)
    check_remote_baselines(run)
