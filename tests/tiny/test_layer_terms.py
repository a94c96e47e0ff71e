"""Objectives on layers, on real tiny models: what hooks read, which tokens count, what a step adds up to, and what is learned."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch

from distill.data.pairs import Pairs
from distill.data.tokens import tokenize
from distill.errors import BadInput
from distill.models.activation_checkpointing import enable_checkpointing
from distill.models.layers import EncoderLayers
from distill.models.modeling import load_model, tokenizer_of, transformer_of
from distill.recipe.schema import EmbeddingMatch, HiddenMatch, Objectives, RelationMatch, Rkd, Schedule, Training
from distill.training import losses
from distill.training.batching import Planner
from distill.training.layer_terms import LayerLosses
from distill.training.live_teacher import LiveTeacher, token_ids, tokens_read_alike
from distill.training.loop import TrainingOutput, train
from distill.training.objectives import Step
from distill.training.trainset import LoneTexts, Tokenization, TrainSet
from tests.tiny.conftest import SENTENCES
from tests.tiny.decoders import DECODERS, plain_decoder
from tests.tiny.families import FAMILIES, build_family

BI, CROSS = "bi_encoder", "cross_encoder"
PAIRS = Pairs(SENTENCES[:5], SENTENCES[5:], np.linspace(0, 1, 5, dtype=np.float32))
LONE = ["고양이", "A nurse and a cat"]


def live(folder, name="deep", max_length=48, precision="fp32"):
    return LiveTeacher(name, folder, max_length, precision)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """Teachers of three layers, four heads and another width, with the tokenizer of a student of two: by kind."""
    return {kind: encoder(tmp_path_factory.mktemp(kind), kind, layers=3, width=48, heads=4) for kind in (BI, CROSS)}


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """Students of two layers, two heads and width 32: by kind."""
    return {kind: encoder(tmp_path_factory.mktemp(kind), kind, layers=2, width=32, heads=2) for kind in (BI, CROSS)}


def encoder(folder, kind, **shape):
    from distill.models.backbone import fresh_backbone
    from distill.models.modeling import build_model, save_model
    from distill.recipe.schema import FreshBackbone
    from tests.tiny.conftest import sharpen

    settings = FreshBackbone(tokenizer="wordpiece", vocabulary=300, feed_forward=64, max_length=64, **shape)
    backbone = fresh_backbone(settings, SENTENCES * 20, seed=1, folder=folder / "backbones")
    model = build_model(kind, backbone, head=(16,) if kind == CROSS else None, max_length=48, seed=3)
    sharpen(model)
    save_model(model, folder / "model")
    return folder / "model"


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


# ---------------------------------------------------------------------------------------------------------------------
# What is read
# ---------------------------------------------------------------------------------------------------------------------


def batch_of(model, texts=tuple(SENTENCES[:4])):
    table = tokenize(tokenizer_of(model), list(texts), max_length=48)
    return table.batch(np.arange(len(table)))


def seen_in(model, features):
    """All states and vectors of one forward pass."""
    layers = EncoderLayers(model, "it")
    every = range(len(layers))
    with torch.no_grad(), layers.watched(every, every, True) as passes:
        layers.module(dict(features))
    return layers, passes[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_transformers(family, tmp_path):
    model = load_model(build_family(tmp_path, family, BI)).eval()
    features = batch_of(model)
    layers, seen = seen_in(model, features)
    with torch.no_grad():
        expected = transformer_of(model)(**features, output_hidden_states=True).hidden_states
    assert len(expected) == len(layers) + 1
    for state, known in zip([seen.embeddings, *seen.states.values()], expected, strict=True):
        assert torch.equal(state, known)
    width = layers.width
    assert {tuple(one.shape) for one in seen.vectors[1].values()} == {(*features["input_ids"].shape, width)}
    assert layers.widths(0) == {"queries": width, "keys": width, "values": width}


@pytest.mark.parametrize("family", ["bert", "electra", "distilbert", "roberta", "xlm-roberta"])
def test_queries_and_keys_make_the_attention_of_transformers(family, tmp_path):
    """Accepted for `attention` are families where this holds."""
    model = load_model(build_family(tmp_path, family, BI)).eval()
    features = batch_of(model)
    _, seen = seen_in(model, features)
    transformer_of(model).set_attn_implementation("eager")
    with torch.no_grad():
        expected = transformer_of(model)(**features, output_attentions=True).attentions
    mask = features["attention_mask"].bool()
    for layer, known in enumerate(expected):
        queries, keys = (
            seen.vectors[layer][kind].unflatten(2, (2, -1)).transpose(1, 2) for kind in ("queries", "keys")
        )
        scores = queries @ keys.transpose(2, 3) / queries.shape[3] ** 0.5
        own = scores.masked_fill(~mask[:, None, None, :], -1e9).softmax(dim=3)
        rows = mask[:, None, :].expand(own.shape[:3])
        assert torch.allclose(own[rows], known[rows], atol=1e-6)


@pytest.mark.parametrize("family", DECODERS)
def test_decoders_have_layers_and_grouped_keys(family, tmp_path):
    from distill.models.modeling import build_model

    model = build_model(BI, plain_decoder(tmp_path, family), max_length=48)
    layers, seen = seen_in(model, batch_of(model))
    assert layers.widths(0) == {"queries": 32, "keys": 16, "values": 16}
    assert seen.states[1].shape[2] == 32
    teacher = transformer_of(model)
    with torch.no_grad():
        expected = teacher(**batch_of(model), output_hidden_states=True).hidden_states
    assert torch.equal(seen.states[0], expected[1])
    assert torch.equal(seen.states[1], expected[2])


def test_modernberts_one_map_is_taken_apart_in_its_order(tmp_path):
    model = load_model(build_family(tmp_path, "modernbert", BI)).eval()
    _, seen = seen_in(model, batch_of(model))
    weight = dict(transformer_of(model).named_modules())["layers.1.attn.Wqkv"].weight
    normed = transformer_of(model).layers[1].attn_norm(seen.states[0])
    for kind, part in zip(("queries", "keys", "values"), weight.chunk(3), strict=True):
        assert torch.allclose(seen.vectors[1][kind], normed @ part.T, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Which tokens
# ---------------------------------------------------------------------------------------------------------------------


def units_of(model, kind=BI, lone=None):
    return TrainSet.build(Tokenization(kind, tokenizer_of(model), 48), PAIRS, lone=lone or LoneTexts(LONE))


def alike_in(student, folder, kind=BI, **teacher):
    units = units_of(student, kind)
    return units, tokens_read_alike("student", {"deep": live(folder, **teacher)}, tokenizer_of(student), units, PAIRS)


@pytest.mark.parametrize("kind", [BI, CROSS])
def test_a_tokenizer_of_the_same_tokens(kind, flat, deep):
    units, alike = alike_in(load_model(flat[kind]), deep[kind], kind)
    assert len(alike) == len(units.tokens) == (5 if kind == CROSS else 12)
    assert alike.all()


def test_a_text_that_the_teacher_cuts_shorter_does_not_count(flat, deep, caplog):
    student = load_model(flat[BI])
    units, alike = alike_in(student, deep[BI], max_length=16)
    assert alike.tolist() == (units.tokens.lengths <= 16).tolist()
    assert 6 <= alike.sum() < 12
    assert f"student: of {(~alike).sum()} of 12 texts teacher deep reads other tokens" in caplog.text
    assert "leave these out" in caplog.text


def test_texts_in_other_scripts_than_the_teachers_do_not_count(flat, deep, caplog):
    student = load_model(flat[BI])
    units = units_of(student)
    teacher = dataclasses.replace(live(deep[BI]), scripts=("latin",))
    with caplog.at_level("INFO"):
        alike = tokens_read_alike("student", {"deep": teacher}, tokenizer_of(student), units, PAIRS)
    hangul, latin = (
        np.array([sum(first <= letter <= last for letter in text.lower()) for text in units.texts])
        for first, last in (("가", "힣"), ("a", "z"))
    )
    assert alike.tolist() == (latin > hangul).tolist()
    assert 5 <= alike.sum() <= 8
    assert f"student: layers of deep are trained on {alike.sum()} of 12 texts, those in latin" in caplog.text


def test_another_tokenizer_is_refused_with_the_terms_that_work(flat, xlmr_bi):
    with pytest.raises(
        BadInput, match="of 12 of 12 texts teacher deep reads other tokens.*score_match, embedding_match"
    ) as error:
        alike_in(load_model(flat[BI]), xlmr_bi)
    assert "\n" not in str(error.value)


def test_prompts_are_part_of_what_is_read(flat, deep, tmp_path):
    from distill.models.modeling import save_model
    from distill.models.prompts import give_prompts

    teacher = load_model(deep[BI])
    give_prompts(teacher, ("query: ", "query: "))
    save_model(teacher, tmp_path / "prompted")
    student = load_model(flat[BI])
    with pytest.raises(BadInput, match="prompts \\['query: ', 'query: '\\]"):
        alike_in(student, tmp_path / "prompted")
    units = TrainSet.build(Tokenization(BI, tokenizer_of(student), 48, ("query: ", "query: ")), PAIRS)
    told = {"deep": live(tmp_path / "prompted")}
    assert tokens_read_alike("student", told, tokenizer_of(student), units, PAIRS).all()


def test_a_translation_does_not_count_its_source_does(flat, deep):
    student = load_model(flat[BI])
    units = units_of(student, lone=LoneTexts(parallel=[("The cat sat on the mat", "고양이가 매트 위에 앉아 있었다")]))
    alike = tokens_read_alike("student", {"deep": live(deep[BI])}, tokenizer_of(student), units, PAIRS)
    assert [units.texts[row] for row in np.flatnonzero(~alike)] == ["고양이가 매트 위에 앉아 있었다"]


def test_a_trimmed_vocabulary_has_the_tokens_under_other_ids(deep):
    """Every id moves, some tokens go: texts that held one are read otherwise."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from distill.data.tokens import pad_token_id

    teacher = tokenizer_of(load_model(deep[BI]))
    import json

    state = json.loads(teacher.backend_tokenizer.to_str())
    gone = "cat"
    kept = [token for token in sorted(state["model"]["vocab"]) if token != gone]
    state["model"]["vocab"] = {token: number for number, token in enumerate(kept)}
    for added in state["added_tokens"]:
        added["id"] = state["model"]["vocab"][added["content"]]
    for pair in (state["post_processor"]["cls"], state["post_processor"]["sep"]):
        pair[1] = state["model"]["vocab"][pair[0]]
    own = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    ids = token_ids(own, teacher)
    assert ids[pad_token_id(own)] == pad_token_id(teacher)
    units = TrainSet.build(Tokenization(BI, own, 48), PAIRS, lone=LoneTexts(LONE))
    alike = tokens_read_alike("student", {"deep": live(deep[BI])}, own, units, PAIRS)
    lost = [units.texts[row] for row in np.flatnonzero(~alike)]
    assert lost
    assert all("cat" in text.lower() for text in lost)
    told = tokenize(teacher, units.texts, max_length=48)
    for row in np.flatnonzero(alike):
        span = slice(units.tokens.offsets[row], units.tokens.offsets[row + 1])
        other = slice(told.offsets[row], told.offsets[row + 1])
        assert ids[units.tokens.ids[span]].tolist() == told.ids[other].tolist()


# ---------------------------------------------------------------------------------------------------------------------
# Steps
# ---------------------------------------------------------------------------------------------------------------------


BOTH = Objectives(
    hidden_match=HiddenMatch(teacher="deep", layers={0: 1, -1: -1}, embeddings=True, weight=0.5),
    relation_match=RelationMatch(teacher="deep", heads=8, values=2.0),
)


def step_of(student, teachers, objectives=BOTH, kind=BI):
    model = without_dropout(copy.deepcopy(student))
    torch.manual_seed(0)
    step = Step(model, kind, objectives, projected_width=48 if objectives.embedding_match else None)
    step.layer_losses = LayerLosses(objectives, model, teachers)
    return step


def told_units(student, teachers, kind=BI, **changes):
    units = units_of(student, kind, **changes)
    units.alike = tokens_read_alike("student", teachers, tokenizer_of(student), units, PAIRS)
    vectors = np.random.default_rng(0).normal(size=(len(units.tokens), 48)).astype(np.float32)
    units.embeddings = vectors.__getitem__
    units.relations = {"deep": units.embeddings} if kind == BI else {}
    return units


def gradients_of(step, batches):
    """Losses and gradients of some passes of a step, added up."""
    step.zero_grad()
    sums = {}
    for batch in batches:
        terms = step(batch)
        sum(terms.values()).backward()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value.item()
    return sums, {name: one.grad.clone() for name, one in step.named_parameters() if one.grad is not None}


def assert_same(one, other, atol=2e-5):
    assert one[0] == pytest.approx(other[0], abs=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        assert torch.allclose(gradient, other[1][name], atol=atol), name


@pytest.mark.integration
@pytest.mark.parametrize("kind", [BI, CROSS])
@pytest.mark.parametrize("max_length", [48, 16])
def test_a_step_is_the_same_however_it_is_cut(kind, max_length, flat, deep):
    """With 16 tokens for the teacher, some texts do not count: the mean is over the tokens of those that do."""
    student, teachers = (
        load_model(flat[kind]),
        {"deep": live(deep[kind], max_length=48 if kind == CROSS else max_length)},
    )
    step, units = step_of(student, teachers, kind=kind), told_units(student, teachers, kind)
    every = np.arange(len(units))
    totals = units.counts(every)
    whole = gradients_of(step, [units.batch(every, totals=totals)])
    assert set(whole[0]) == {"hidden_match", "relation_match", "nothing"}
    for size in (1, 2, 3):
        cut = [units.batch(every[start : start + size], totals=totals) for start in range(0, len(every), size)]
        assert_same(gradients_of(step, cut), whole)
    idle = units.batch(np.zeros(0, dtype=np.int64), totals=totals)  # of a process that has run out of units
    assert_same(gradients_of(step, [units.batch(every, totals=totals), idle]), whole)


def test_a_step_is_what_its_parts_say(flat, deep):
    """Each text by itself, without padding, read by stock transformers; then the mean over tokens."""
    student, teachers = load_model(flat[BI]), {"deep": live(deep[BI])}
    step, units = step_of(student, teachers), told_units(student, teachers)
    every = np.arange(len(units))
    found = {name: loss.item() for name, loss in step(units.batch(every, totals=units.counts(every))).items()}
    projections = step.layer_losses.projections
    hidden, relations, n_tokens = 0.0, 0.0, 0
    teacher = load_model(deep[BI])
    for row in np.concatenate(units.unit_texts):
        features = units.tokens.batch([row], multiple=1)
        (_, own), (_, other) = seen_in(step.model, features), seen_in(teacher, features)
        mask, count = features["attention_mask"].bool(), int(features["attention_mask"].sum())
        parts = [
            losses.token_mse(projections["states"](own.states[0]), other.states[1], mask),
            losses.token_mse(projections["states"](own.states[1]), other.states[2], mask),
            losses.token_mse(projections["embeddings"](own.embeddings), other.embeddings, mask),
        ]
        hidden += count * 0.5 * sum(part.item() for part in parts) / 3
        for kind, weight in {"queries": 1, "keys": 1, "values": 2}.items():
            loss = losses.relation_kl(own.vectors[1][kind], other.vectors[2][kind], mask, 8)
            relations += count * weight * loss.item()
        n_tokens += count
    assert found["hidden_match"] == pytest.approx(hidden / n_tokens, rel=1e-5)
    assert found["relation_match"] == pytest.approx(relations / n_tokens, rel=1e-5)


@pytest.mark.parametrize("attention", ["mse", "kl"])
def test_a_student_that_is_its_teacher_has_no_loss(attention, deep):
    teacher = load_model(deep[BI])
    objectives = Objectives(
        hidden_match=HiddenMatch(teacher="deep", embeddings=True, attention=attention),
        relation_match=RelationMatch(teacher="deep", heads=4),
    )
    step, units = step_of(teacher, {"deep": live(deep[BI])}, objectives), None
    units = told_units(teacher, {"deep": live(deep[BI])})
    every = np.arange(len(units))
    terms, gradients = gradients_of(step, [units.batch(every, totals=units.counts(every))])
    assert terms == pytest.approx({"hidden_match": 0, "relation_match": 0, "nothing": 0}, abs=1e-8)
    assert max(gradient.abs().max() for gradient in gradients.values()) < 1e-6
    assert not step.layer_losses.projections  # of one width there is nothing to project


def test_a_coupled_step_of_several_passes_has_them_too(flat, deep):
    from tests.unit.test_objectives import run_in_threads

    objectives = BOTH.model_copy(update={"rkd": Rkd(teacher="deep", angle=0)})
    student, teachers = load_model(flat[BI]), {"deep": live(deep[BI])}
    step, units = step_of(student, teachers, objectives), told_units(student, teachers)
    every, units.coupled = np.arange(len(units)), True
    totals = units.counts(every)
    whole = gradients_of(step, [units.batch(every, totals=totals)])
    assert {"rkd", "hidden_match", "relation_match"} < set(whole[0])
    for n_processes, micro_batch in ((1, 2), (2, 2)):
        planner = Planner(
            units.unit_lengths, units.unit_sequences, len(every), micro_batch, 10**6, 0, n_processes, coupled=True
        )
        passes = list(planner._passes(every))
        assert len(passes) > 1
        sums, gradients = run_in_threads(step, units, passes, totals, n_processes)
        assert sums == pytest.approx({name: loss for name, loss in whole[0].items() if name != "nothing"}, abs=1e-5)
        for name, gradient in whole[1].items():
            assert torch.allclose(gradients[name], gradient, atol=2e-5), name


def test_prefixes_of_a_matryoshka_do_not_repeat_them(flat, deep):
    from distill.recipe.schema import Matryoshka

    student, teachers = load_model(flat[BI]), {"deep": live(deep[BI])}
    units = told_units(student, teachers)
    every = np.arange(len(units))
    batch = units.batch(every, totals=units.counts(every))
    plain = step_of(student, teachers)(batch)
    nested = step_of(student, teachers, BOTH.model_copy(update={"matryoshka": Matryoshka(dimensions=(8, 16))}))(batch)
    assert {name: loss.item() for name, loss in nested.items()} == {name: loss.item() for name, loss in plain.items()}


def test_checkpointed_activations_give_the_same_gradients(flat, deep):
    student, teachers = load_model(flat[BI]), {"deep": live(deep[BI])}
    units = told_units(student, teachers)
    every = np.arange(len(units))
    batch = units.batch(every, totals=units.counts(every))
    found = []
    for checkpointed in (False, True):
        step = step_of(student, teachers).train()
        if checkpointed:
            enable_checkpointing(transformer_of(step.model))
        found.append(gradients_of(step, [batch]))
    assert_same(*found, atol=1e-6)


def test_the_teacher_computes_in_its_own_precision(flat, deep):
    student = load_model(flat[BI])
    by_precision = {}
    for precision in ("fp32", "bf16"):
        teachers = {"deep": live(deep[BI], precision=precision)}
        step, units = step_of(student, teachers), told_units(student, teachers)
        every = np.arange(len(units))
        batch = units.batch(every, totals=units.counts(every))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            step(batch)
        by_precision[precision] = step.layer_losses._teacher_layers(batch.inputs[0])["deep"]
    assert by_precision["fp32"].vectors[2]["keys"].dtype == torch.float32
    assert by_precision["bf16"].vectors[2]["keys"].dtype == torch.bfloat16


@pytest.mark.parametrize("student_in", ["fp32", "bf16"])
def test_gradients_are_finite(student_in, flat, deep):
    student, teachers = load_model(flat[BI]), {"deep": live(deep[BI], precision="bf16")}
    objectives = BOTH.model_copy(update={"embedding_match": EmbeddingMatch(teacher="deep", projection="drop")})
    step, units = step_of(student, teachers, objectives), told_units(student, teachers)
    every = np.arange(len(units))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=student_in == "bf16"):
        terms = step(units.batch(every, totals=units.counts(every)))
    torch.stack(list(terms.values())).sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in step.parameters() if one.grad is not None)


def test_no_projection_and_no_hook_stays_behind(flat, deep):
    student, teachers = load_model(flat[BI]), {"deep": live(deep[BI])}
    step, units = step_of(student, teachers), told_units(student, teachers)
    names = set(step.state_dict())
    assert {"layer_losses.projections.states.weight", "layer_losses.projections.embeddings.weight"} < names
    assert all(name.startswith(("model.", "layer_losses.projections.")) for name in names)
    every = np.arange(len(units))
    step(units.batch(every, totals=units.counts(every)))
    models = (step.model, teachers["deep"].model)
    assert not [one for model in models for one in model.modules() if one._forward_hooks]


# ---------------------------------------------------------------------------------------------------------------------
# What is refused
# ---------------------------------------------------------------------------------------------------------------------

REFUSED = [
    (HiddenMatch(teacher="deep", layers={2: 0}), "layers: the student has no layer 2; it has 2, 0 to 1, or -1"),
    (HiddenMatch(teacher="deep", layers={0: -4}), "layers: teacher deep has no layer -4; it has 3, 0 to 2"),
    (HiddenMatch(teacher="deep", layers={1: 0, -1: 2}), "names a layer of the student twice"),
    (HiddenMatch(teacher="deep", attention="kl"), "attention: the student has 2 attention heads, teacher deep 4"),
    (
        RelationMatch(teacher="deep"),
        "heads: 48 does not divide the widths of queries, keys and values .32, 48.; set one of 1, 2, 4, 8, 16",
    ),
    (RelationMatch(teacher="deep", heads=8, teacher_layer=3), "teacher_layer: teacher deep has no layer 3"),
    (RelationMatch(teacher="deep", heads=8, student_layer=-3), "student_layer: the student has no layer -3"),
]


@pytest.mark.parametrize(("term", "line"), REFUSED, ids=[line.partition(":")[0] for _, line in REFUSED])
def test_what_does_not_fit_is_refused_in_one_line(term, line, flat, deep):
    name = "hidden_match" if isinstance(term, HiddenMatch) else "relation_match"
    with pytest.raises(BadInput, match=line) as error:
        LayerLosses(Objectives(**{name: term}), load_model(flat[BI]), {"deep": live(deep[BI])})
    assert str(error.value).startswith(f"objectives.{name}.")
    assert "\n" not in str(error.value)


def test_fewer_layers_in_the_teacher(flat, deep):
    objectives = Objectives(hidden_match=HiddenMatch(teacher="deep", layers="last"))
    with pytest.raises(BadInput, match="last matches 3 layers of the student with 2 of the teacher; set uniform"):
        LayerLosses(objectives, load_model(deep[BI]), {"deep": live(flat[BI])})
    LayerLosses(Objectives(hidden_match=HiddenMatch(teacher="deep")), load_model(deep[BI]), {"deep": live(flat[BI])})


@pytest.mark.parametrize("family", ["mpnet", "deberta-v2", "modernbert"])
def test_attention_that_is_more_than_queries_times_keys(family, tmp_path, flat):
    objectives = Objectives(hidden_match=HiddenMatch(teacher="deep", attention="mse"))
    with pytest.raises(BadInput, match=f"attention: teacher deep is of type {family}, whose attention is more than"):
        LayerLosses(objectives, load_model(flat[BI]), {"deep": live(build_family(tmp_path, family, BI))})


def test_unknown_maps_of_attention(flat, deep):
    student = load_model(flat[BI])
    for layer in transformer_of(student).encoder.layer:
        layer.attention.self.sought = layer.attention.self.__dict__["_modules"].pop("query")
    with pytest.raises(
        BadInput, match="the student: no linear maps of queries, keys and values are known in BertLayer"
    ):
        LayerLosses(BOTH, student, {"deep": live(deep[BI])})


# ---------------------------------------------------------------------------------------------------------------------
# What is learned
# ---------------------------------------------------------------------------------------------------------------------

LEARNING = Training(
    max_steps=30,
    epochs=100,
    learning_rate=3e-3,
    global_batch=4,
    micro_batch=4,
    precision="fp32",
    evaluations_per_epoch=0,
    tensorboard=False,
    checkpoint_seconds=1e6,
)


def learned(objectives, student, teachers, folder, **changes):
    units = told_units(student, teachers, lone=LoneTexts(LONE))
    settings = LEARNING.model_copy(update=changes)

    def build_step():
        return step_of(student, teachers, objectives)

    step, result = train(build_step, units, None, settings, seed=0, output=TrainingOutput("student", folder))
    return build_step(), step, units, result


def distance(step, teacher, units):
    """How far the last states (projected), or their relations, are from the teacher's, over all texts."""
    features = units.tokens.batch(np.arange(len(units.tokens)))
    mask = features["attention_mask"].bool()
    (_, own), (_, other) = seen_in(step.model.eval(), features), seen_in(teacher, features)
    if "states" in step.layer_losses.projections:
        return losses.token_mse(step.layer_losses.projections["states"](own.states[1]), other.states[2], mask).item()
    vectors = [(own.vectors[1][kind], other.vectors[2][kind]) for kind in ("queries", "keys", "values")]
    return sum(losses.relation_kl(*pair, mask, 8).item() for pair in vectors)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("objectives", "falls_to"),
    [
        (Objectives(hidden_match=HiddenMatch(teacher="deep")), 0.6),
        (Objectives(relation_match=RelationMatch(teacher="deep", heads=8)), 0.5),
    ],
    ids=["hidden", "relations"],
)
def test_a_student_comes_nearer_to_its_teacher(objectives, falls_to, flat, deep, tmp_path):
    student, teachers = load_model(flat[BI]), {"deep": live(deep[BI])}
    before, after, units, result = learned(objectives, student, teachers, tmp_path)
    (name,) = objectives.terms()
    logged = [row[name] for row in result.history if name in row]
    assert logged[-1] < falls_to * logged[0]
    teacher = load_model(deep[BI])
    assert distance(after, teacher, units) < falls_to * distance(before, teacher, units)


def test_schedules_are_heeded(flat, deep, tmp_path):
    late = Objectives(
        hidden_match=HiddenMatch(teacher="deep", schedule=Schedule(kind="constant", end=0.5)),
        relation_match=RelationMatch(teacher="deep", heads=8, schedule=Schedule(kind="constant", start=0.5)),
    )
    _, _, _, result = learned(late, load_model(flat[BI]), {"deep": live(deep[BI])}, tmp_path, max_steps=4)
    first, last = result.history[0], result.history[-1]
    assert first["hidden_match"] > 0 == first["relation_match"]
    assert last["relation_match"] > 0 == last["hidden_match"]


@pytest.mark.integration
def test_goes_on_with_the_same_bits(flat, deep, tmp_path, monkeypatch):
    from distill.training import loop

    student, teachers = load_model(flat[BI]), {"deep": live(deep[BI])}
    _, undisturbed, _, _ = learned(BOTH, student, teachers, tmp_path / "undisturbed", max_steps=8, checkpoint_seconds=0)
    update, done = loop._Loop._update, itertools.count()

    def killed(self, **given):
        if next(done) == 5:
            raise KeyboardInterrupt
        return update(self, **given)

    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr(loop._Loop, "_update", killed)
        learned(BOTH, student, teachers, tmp_path / "disturbed", max_steps=8, checkpoint_seconds=0)
    assert list((tmp_path / "disturbed").glob("step-*"))
    _, step, _, _ = learned(BOTH, student, teachers, tmp_path / "disturbed", max_steps=8, checkpoint_seconds=0)
    expected = undisturbed.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in step.state_dict().items())
