"""Word embeddings as two factors: an ordinary MobileBERT that computes what the source would with the product of them."""

import copy

import numpy as np
import pytest
import torch

from distill.errors import BadInput
from distill.models.modeling import load_model, save_model, transformer_of
from students.vocabulary.corpus import Corpus, factorise
from students.vocabulary.factorisation import factorise_embeddings
from tests.tiny.conftest import SENTENCES
from tests.tiny.test_vocabulary import hidden, make_model, make_tokenizer


def same_epsilon(model):
    """MobileBERT builds these LayerNorms with torch's own ε."""
    model.embeddings.LayerNorm.eps = 1e-5
    for layer in model.encoder.layer:
        layer.output.LayerNorm.eps = 1e-5
    return model


FAMILIES = [("wordpiece", "Bert"), ("unigram", "XLMRoberta"), ("byte-level BPE", "Roberta"), ("wordpiece", "Electra")]


@pytest.mark.parametrize(("algorithm", "family"), FAMILIES)
def test_full_rank_is_the_source(algorithm, family):
    tokenizer = make_tokenizer(algorithm)
    model = make_model(family, len(tokenizer), embedding_size=32)
    factorised, report = factorise_embeddings(model, tokenizer, 32)
    assert report.energy == pytest.approx(1)
    difference = (hidden(factorised, tokenizer) - hidden(same_epsilon(copy.deepcopy(model)), tokenizer)).abs().max()
    assert difference < 1e-5


@pytest.mark.parametrize(("algorithm", "family"), FAMILIES)
def test_a_low_rank_is_the_source_with_the_product_in_its_place(algorithm, family, tmp_path):
    from transformers import AutoModel, MobileBertModel

    tokenizer = make_tokenizer(algorithm)
    model = make_model(family, len(tokenizer), embedding_size=32)
    factorised, report = factorise_embeddings(model, tokenizer, 5, np.arange(len(tokenizer)) + 1)
    table = factorised.embeddings
    product = table.embedding_transformation(table.word_embeddings.weight).detach()
    with torch.no_grad():
        same_epsilon(model).embeddings.word_embeddings.weight.copy_(product)
    assert (hidden(factorised, tokenizer) - hidden(model, tokenizer)).abs().max() < 1e-5
    assert table.word_embeddings.weight.shape == (len(tokenizer), 5)
    # the table shrinks from n·32 to n·5, and 5·32 + 32 come with the projection; positions below the padding id go
    n_gone = 27 * len(tokenizer) - 6 * 32 + (0 if family in ("Bert", "Electra") else 2 * 32)
    pooler = sum(p.numel() for name, p in model.named_parameters() if name.startswith("pooler"))
    assert report.n_parameters[0] - report.n_parameters[1] == n_gone + pooler
    factorised.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path, add_pooling_layer=False)
    assert isinstance(again, MobileBertModel)
    assert torch.equal(hidden(again, tokenizer), hidden(factorised, tokenizer))


def test_the_factors_are_the_best_of_their_rank():
    """Of rows (3, 0), (−3, 0), (0, 1), (0, −1) the first axis holds 18 of 20; seen often, the others decide."""
    from students.vocabulary.factorisation import _factors

    rows = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    factors, projection, mean, energy = _factors(rows, 1, None)
    assert energy == pytest.approx(0.9) and mean.abs().max() < 1e-12
    assert torch.allclose((factors @ projection).float(), rows * torch.tensor([1.0, 0.0]), atol=1e-6)
    factors, projection, _, energy = _factors(rows, 1, [1, 1, 100, 100])
    assert energy == pytest.approx(200 / 218)
    assert torch.allclose((factors @ projection).float(), rows * torch.tensor([0.0, 1.0]), atol=1e-6)


def test_a_whole_model_is_factorised_where_its_tokens_are_used(xlmr_bi, tmp_path):
    corpus, vectors = Corpus({"all": SENTENCES}), {}
    source = load_model(xlmr_bi).encode(SENTENCES)
    for name, given in (("used", corpus), ("alike", Corpus())):
        model = load_model(xlmr_bi)
        assert factorise(model, 24, given)["rank"] == 24
        save_model(model, tmp_path / name)
        vectors[name] = load_model(tmp_path / name).encode(SENTENCES)
        assert transformer_of(model).config.model_type == "mobilebert"
    kept = {name: float((rows * source).sum(axis=1).mean()) for name, rows in vectors.items()}
    assert kept["used"] > kept["alike"]


@pytest.mark.parametrize(
    ("family", "rank", "message"),
    [
        ("MPNet", 8, "MPNetModel has no factorised form in transformers"),
        ("ModernBert", 8, "ModernBertModel has no factorised form"),
        ("Bert", 33, "embedding_rank 33: the embeddings of BertModel are 32 wide"),
    ],
)
def test_what_no_class_has_factors_for_is_refused(family, rank, message):
    tokenizer = make_tokenizer("wordpiece")
    with pytest.raises(BadInput, match=message):
        factorise_embeddings(make_model(family, len(tokenizer)), tokenizer, rank)


def test_positions_that_depend_on_padding_are_refused_on_the_left():
    tokenizer = make_tokenizer("unigram")
    tokenizer.padding_side = "left"
    with pytest.raises(BadInput, match="pads on the left"):
        factorise_embeddings(make_model("XLMRoberta", len(tokenizer)), tokenizer, 8)


def test_factors_are_not_factorised_again():
    tokenizer = make_tokenizer("wordpiece")
    with pytest.raises(BadInput, match="factorised already"):
        factorise_embeddings(make_model("Electra", len(tokenizer), embedding_size=16), tokenizer, 8)
