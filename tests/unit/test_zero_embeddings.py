"""Texts of unknown tokens alone in the training of a static student, whose embeddings of them are zero."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from distill.data.tokens import TokenTable
from distill.models.modeling import bi_encoder
from distill.recipe.schema import Objectives
from distill.training.fitting import _say_zero_texts
from distill.training.loop import _Loop
from distill.training.objectives import Step


def test_their_gradient_is_zero_and_the_others_learn():
    vectors = np.array([[0, 0], [1, 2], [2, -1]], dtype=np.float32)
    words = Tokenizer(WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    model = bi_encoder([StaticEmbedding(words, embedding_weights=vectors)], None)
    step = Step(model, "bi_encoder", Objectives.model_validate({"labels": {"loss": "mse"}}))
    inputs = {"input_ids": torch.tensor([[0], [1], [2]]), "attention_mask": torch.ones(3, 1, dtype=torch.long)}
    unit = step._run(SimpleNamespace(inputs=[inputs], order=torch.arange(3)), "sentence_embedding")
    assert not unit[0].any() and unit[1:].norm(dim=1).tolist() == pytest.approx([1, 1])
    (unit[0] @ unit[1] + unit[1] @ torch.tensor([1.0, 0.0])).backward()
    gradient = model[0].embedding.weight.grad.to_dense()
    assert not gradient[0].any() and 0 < gradient[1].norm() < 1


def test_they_are_counted_and_said(caplog):
    tokens = TokenTable(np.array([0, 0, 1, 2]), np.array([0, 1, 3, 3, 4]), None, pad_id=0)
    _say_zero_texts("student", np.array([[0.0], [1.0], [1.0]]), tokens)
    assert "student: 2 of 4 texts consist of unknown tokens alone" in caplog.text


def test_a_gradient_thousands_of_times_as_long_is_said_once(caplog):
    loop = SimpleNamespace(
        title="student", norms=[], new_norms={}, has_said_norm=False, settings=SimpleNamespace(max_grad_norm=1.0)
    )
    for end in (10, 20):
        loop.new_norms = {step: torch.tensor(4e18 if step % 10 == 7 else 0.5) for step in range(end - 9, end + 1)}
        _Loop._say_odd_norms(loop)
    assert len(caplog.records) == 1 and "the gradient of step 7 has the norm 4e+18, in the median 0.5" in caplog.text
