"""A student with noise in its weights comes back to its teacher by each objective alone, through the one training loop."""

import copy
import itertools

import numpy as np
import pytest
import torch

from distill.data.pairs import Pairs
from distill.models.modeling import load_model, tokenizer_of
from distill.recipe.schema import (
    AdrMse,
    Cka,
    CoSent,
    Guide,
    Labels,
    LambdaLoss,
    ListMle,
    ListNet,
    Objectives,
    RankNet,
    Rkd,
    Schedule,
    ScoreMatch,
    Similarity,
    Training,
)
from distill.training.loop import TrainingOutput, train
from distill.training.negatives import GuideVectors
from distill.training.objectives import Step
from distill.training.trainset import Tokenization, TrainSet
from tests.tiny.conftest import SENTENCES

pytestmark = pytest.mark.integration  # two dozen trainings

BI, CROSS = "bi_encoder", "cross_encoder"
QUERIES, DOCUMENTS = SENTENCES[:5], SENTENCES[5:]
TRAINING = Training(
    max_steps=12,
    epochs=100,
    learning_rate=3e-3,
    global_batch=5,
    micro_batch=5,
    precision="fp32",
    evaluations_per_epoch=0,
    tensorboard=False,
)


@pytest.fixture(scope="module")
def models(bert_cross, bert_bi):
    loaded = {CROSS: load_model(bert_cross), BI: load_model(bert_bi)}
    for module in itertools.chain(*(model.modules() for model in loaded.values())):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return loaded


@pytest.fixture(scope="module")
def pairs():
    """Each query with all documents; the first answers the first and so on."""
    labels = np.eye(5, dtype=np.float32).ravel()
    queries, documents = zip(*itertools.product(QUERIES, DOCUMENTS), strict=True)
    return Pairs(list(queries), list(documents), labels)


@pytest.fixture(scope="module")
def told(pairs, models):
    """What both say: scores of the pairs, and the second one's embeddings by text."""
    lines = list(zip(pairs.queries, pairs.documents, strict=True))
    scores = models[CROSS].predict(lines, activation_fn=torch.nn.Identity())
    vectors = models[BI].encode(SENTENCES, normalize_embeddings=True)
    rows = {text: vector for text, vector in zip(SENTENCES, vectors, strict=True)}
    cosines = [rows[query] @ rows[document] for query, document in lines]
    # the logits of random weights are small: spread as those of a trained cross-encoder
    spread = (3 * (scores - scores.mean()) / scores.std()).astype(np.float32)
    return {"cross": spread, "bi": np.array(cosines, dtype=np.float32)}, rows


def noisy(model, size):
    """A copy of a model with noise of so many times its weights' spread in them."""
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter += size * parameter.std() * torch.randn(parameter.shape, generator=generator)
    return model


def learn(objectives, model, pairs, told, folder, **changes):
    """The step before and after training, and the units."""
    kind, (scores, rows) = (CROSS if hasattr(model, "predict") else BI), told
    units = TrainSet.build(Tokenization(kind, tokenizer_of(model), 24), pairs, candidates=5)
    units.teacher_scores, units.coupled = scores, objectives.couples
    if kind == BI:
        vectors = np.stack([rows[text] for text in units.texts])
        units.relations = {"bi": vectors.__getitem__}
        units.in_batch_negatives = objectives.labels is not None
        if units.in_batch_negatives and objectives.labels.guide:
            units.guide = GuideVectors(vectors.__getitem__, objectives.labels.guide.margin)

    def build_step():
        return Step(copy.deepcopy(model), kind, objectives, teacher_kinds={"cross": CROSS, "bi": BI})

    settings = TRAINING.model_copy(update=changes)
    step, result = train(build_step, units, None, settings, seed=0, output=TrainingOutput("student", folder))
    assert result.step == settings.max_steps
    return build_step(), step, units


def scores_of(step, units):
    """The student's scores of all pairs, in their order. *Shape:* (n_pairs,)."""
    batch = units.batch(np.arange(len(units)), totals=units.counts(np.arange(len(units))))
    with torch.no_grad():
        predicted = step.eval()(batch, predict=True)["scores"].numpy()
    scores = np.empty(len(predicted))
    scores[batch.rows] = predicted
    return scores


def agreement(step, units, told):
    """The mean correlation of a query's five ranks with what was told of them."""
    ranks = [
        values.reshape(5, 5).argsort(axis=1).argsort(axis=1) for values in (scores_of(step, units), np.asarray(told))
    ]
    return float(np.mean([np.corrcoef(*rows)[0, 1] for rows in zip(*ranks, strict=True)]))


def likeness(step, units, rows):
    """The correlation of the cosines of all pairs of texts, the student's and the teacher's."""
    vectors = step.model.eval().encode(units.texts, normalize_embeddings=True)
    told = np.stack([rows[text] for text in units.texts])
    above = np.triu_indices(len(units.texts), 1)
    return float(np.corrcoef((vectors @ vectors.T)[above], (told @ told.T)[above])[0, 1])


LISTS = {
    "listnet": ListNet,
    "ranknet": RankNet,
    "lambda_loss": LambdaLoss,
    "list_mle": ListMle,
    "adr_mse": AdrMse,
    "cosent": CoSent,
}


@pytest.mark.parametrize("name", LISTS)
def test_a_cross_encoder_takes_on_its_teachers_order(name, models, pairs, told, tmp_path):
    objectives = Objectives(**{name: LISTS[name](teacher="cross")})
    before, after, units = learn(objectives, noisy(models[CROSS], 1.5), pairs, told, tmp_path)
    assert agreement(before, units, told[0]["cross"]) < 0.5
    assert agreement(after, units, told[0]["cross"]) > 0.85


@pytest.mark.parametrize("name", ["ranknet", "adr_mse", "cosent"])
def test_a_bi_encoder_takes_on_its_teachers_order(name, models, pairs, told, tmp_path):
    objectives = Objectives(**{name: LISTS[name](teacher="bi")})
    before, after, units = learn(objectives, noisy(models[BI], 3), pairs, told, tmp_path, micro_batch=3)
    start = agreement(before, units, told[0]["bi"])
    assert start < 0.8
    assert agreement(after, units, told[0]["bi"]) > max(0.85, start + 0.1)


@pytest.mark.parametrize("name", ["listnet", "list_mle", "lambda_loss"])
def test_labels_are_learned_by_the_same_losses(name, models, pairs, told, tmp_path):
    objectives = Objectives(**{name: LISTS[name]()})
    before, after, units = learn(objectives, models[BI], pairs, told, tmp_path)
    right = [(scores_of(step, units).reshape(5, 5).argmax(axis=1) == np.arange(5)).sum() for step in (before, after)]
    assert right[0] < 4 <= right[1]


@pytest.mark.parametrize(
    ("name", "term"),
    [
        ("rkd", Rkd(teacher="bi", angle=0)),
        ("rkd", Rkd(teacher="bi", distance=0)),
        pytest.param("similarity", Similarity(teacher="bi"), marks=pytest.mark.slow),
        ("similarity", Similarity(teacher="bi", loss="kl")),
        ("cka", Cka(teacher="bi")),
    ],
    ids=["distance", "angle", "mse", "kl", "cka"],
)
def test_texts_come_to_lie_as_the_teachers(name, term, models, pairs, told, tmp_path):
    before, after, units = learn(
        Objectives(**{name: term}),
        noisy(models[BI], 3),
        pairs,
        told,
        tmp_path,
        micro_batch=3,
        max_steps=30 if name == "similarity" else 12,
    )
    start = likeness(before, units, told[1])
    assert start < 0.8
    assert likeness(after, units, told[1]) > max(0.85, start + 0.1)


def test_infonce_finds_the_answers_beside_a_guide(models, pairs, told, tmp_path):
    guided = Objectives(labels=Labels(loss="infonce", guide=Guide(teacher="bi", margin=0.02)))
    before, after, units = learn(guided, noisy(models[BI], 3), pairs, told, tmp_path, micro_batch=3)
    guide = told[0]["bi"].reshape(5, 5)
    left_out = (guide > guide.diagonal()[:, None] - 0.02) & ~np.eye(5, dtype=bool)
    assert 0 < left_out.sum() < 20
    found = [
        (np.where(left_out, -2, scores_of(step, units).reshape(5, 5)).argmax(axis=1) == np.arange(5)).sum()
        for step in (before, after)
    ]
    assert found[0] < 5 == found[1]


def test_a_term_that_fades_out_leaves_the_last_word_to_the_one_that_comes_in(models, pairs, told, tmp_path):
    against = {"cross": told[0]["cross"], "bi": -told[0]["cross"] / 10}  # the second says the opposite
    both = Objectives(
        score_match=ScoreMatch(
            teacher="bi", loss="logit_mse", schedule=Schedule(kind="cosine", first=1.0, last=0.0, end=0.3)
        ),
        listnet=ListNet(teacher="cross", schedule=Schedule(start=0.1, end=0.4)),
    )
    _, after, units = learn(both, noisy(models[CROSS], 0.6), pairs, (against, told[1]), tmp_path)
    assert agreement(after, units, against["cross"]) > 0.85
