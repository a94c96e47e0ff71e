"""Fewer layers and narrower ones, on a tiny random model of every family, loaded again with the stock libraries."""

import copy

import pytest
import torch

from distill.data.pairs import Pairs
from distill.errors import BadInput
from distill.models.backbone import fresh_backbone
from distill.models.layers import layer_stack
from distill.models.modeling import build_model, load_model, quiet, save_model, transformer_of
from distill.recipe.schema import FreshBackbone, LayerChoice, Width
from students import build_student
from students.cut.depth import choose_layers, cut_config, keep_layers, layers_by_importance
from students.cut.importance import head_and_neuron_importance, output_change, outputs, pair_batches
from students.cut.structure import MODEL_TYPES, can_be_read, check_order, find_layers
from students.cut.width import best, narrow
from teachers import train_teachers
from tests.conftest import BI_TEACHER
from tests.tiny.conftest import SENTENCES

pytestmark = pytest.mark.integration

N_LAYERS, N_HEADS, HIDDEN, N_NEURONS = 4, 4, 32, 48
SIZES = {
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS,
    "hidden_size": HIDDEN,
    "intermediate_size": N_NEURONS,
    "max_position_embeddings": 66,
}
RELATIVE = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "pos_att_type": "p2c|c2p",
}
VARIANTS = {
    "bert": {},
    "camembert": {},
    "electra": {"embedding_size": 16},
    "electra-base": {"embedding_size": HIDDEN},
    "roberta": {},
    "xlm-roberta": {},
    "mpnet": {},
    "modernbert": {"local_attention": 8},
    "distilbert": {"dim": HIDDEN, "n_layers": N_LAYERS, "n_heads": N_HEADS, "hidden_dim": N_NEURONS},
    "deberta-v2": {**RELATIVE, "share_att_key": True},
    "deberta-v2-conv": {**RELATIVE, "conv_kernel_size": 3},
    "eurobert": {"num_key_value_heads": N_HEADS},
    "nomic_bert": {},
}
FREE_HEADS = ("eurobert", "nomic_bert")
# the others of their family differ from these in little and take as long
_SLOW = {"camembert", "roberta", "electra-base"}
PAIRS = Pairs(SENTENCES[:8], SENTENCES[2:], None)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    settings = FreshBackbone(tokenizer="unigram", vocabulary=200, layers=1, width=32, heads=2, max_length=64)
    folder = fresh_backbone(settings, SENTENCES * 20, seed=1, folder=tmp_path_factory.mktemp("tokenizer"))
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory):
    """Plain transformers folders by variant, made when asked for."""
    from transformers import AutoConfig, AutoModel

    made = {}

    def folder(name):
        if name not in made:
            kind = name.removesuffix("-conv").removesuffix("-base")
            sizes = {} if kind == "distilbert" else SIZES
            config = AutoConfig.for_model(
                kind,
                vocab_size=len(tokenizer),
                pad_token_id=1,
                bos_token_id=0,
                eos_token_id=2,
                cls_token_id=0,
                sep_token_id=2,
                **{**sizes, **VARIANTS[name]},
            )
            torch.manual_seed(0)
            with quiet(), torch.no_grad():
                model = AutoModel.from_config(config)
                for parameter in model.parameters():  # as drawn, norms do nothing and heads are all alike
                    parameter.copy_(
                        2 * parameter if parameter.dim() > 1 else parameter + 0.2 * torch.randn_like(parameter)
                    )
                made[name] = tmp_path_factory.mktemp(name)
                model.save_pretrained(made[name])
            tokenizer.save_pretrained(made[name])
        return made[name]

    return folder


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow) if name in _SLOW else name for name in VARIANTS])
def model(request, folders):
    return build_model("bi_encoder", folders(request.param), max_length=64).eval()


def embeddings(model):
    return torch.from_numpy(model.eval().encode(SENTENCES, show_progress_bar=False))


def batches_of(model, kind="bi_encoder"):
    return pair_batches(model, kind, PAIRS, max_length=64)


def check_reload(model, folder):
    """Save, and load with stock transformers and sentence-transformers: the same vectors and token embeddings."""
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    save_model(model, folder)
    with quiet():
        again, plain = SentenceTransformer(str(folder), device="cpu"), AutoModel.from_pretrained(folder).eval()
    assert torch.allclose(embeddings(model), embeddings(again), atol=1e-6)
    features = features_of(model)
    with torch.no_grad():
        ours, theirs = transformer_of(model)(**features)[0], plain(**features)[0]
    assert torch.allclose(ours, theirs, atol=1e-5)
    return plain.config


def features_of(model):
    batch = model.tokenizer(SENTENCES[:3], padding=True, return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def source_with(model, edit):
    """A model's embeddings after an edit of its weights: what a cut must come to."""
    edited = copy.deepcopy(model)
    with torch.no_grad():
        edit(transformer_of(edited))
    return embeddings(edited)


def test_every_family_is_here():
    assert {name.removesuffix("-conv").removesuffix("-base") for name in VARIANTS} == set(MODEL_TYPES)


class TestDepth:
    def test_cut_is_the_source_run_through_these_layers(self, model, tmp_path):
        from students.cut.depth import _only

        cut = copy.deepcopy(model)
        keep_layers(transformer_of(cut), [0, 2])
        config = check_reload(cut, tmp_path)
        assert config.num_hidden_layers == 2
        _, stack = layer_stack(transformer_of(model))
        with _only(transformer_of(model), [stack[0], stack[2]]):
            assert torch.allclose(embeddings(cut), embeddings(model), atol=1e-6)

    def test_all_layers_are_the_source(self, model):
        cut = copy.deepcopy(model)
        keep_layers(transformer_of(cut), range(N_LAYERS))
        ours, theirs = cut.state_dict(), model.state_dict()
        assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert torch.equal(embeddings(cut), embeddings(model))

    def test_windows_go_with_their_layers(self, folders, tmp_path):
        model = build_model("bi_encoder", folders("modernbert"), max_length=64)
        assert transformer_of(model).config.layer_types == [
            "full_attention",
            *["sliding_attention"] * 2,
            "full_attention",
        ]
        keep_layers(transformer_of(model), [0, 1, 3])
        config = check_reload(model, tmp_path)
        assert config.layer_types == ["full_attention", "sliding_attention", "full_attention"]
        layers = transformer_of(model).layers
        assert [layer.attn.sliding_window for layer in layers] == [None, 5, None]
        assert [layer.attn.layer_idx for layer in layers] == [0, 1, 2]

    @pytest.mark.parametrize(("layers", "period"), [([0, 1, 3], 2), ([0, 1, 2], 3), ([0, 2], 2), ([0, 3, 1, 2], None)])
    def test_earlier_readers_know_windows_by_their_period(self, folders, layers, period, tmp_path, caplog):
        model = build_model("bi_encoder", folders("modernbert"), max_length=64)
        keep_layers(transformer_of(model), layers)
        config = check_reload(model, tmp_path)
        assert ("would read them as another model" in caplog.text) is (period is None)
        if period is not None:
            assert config.global_attn_every_n_layers == period
            read_by_period = ["sliding_attention" if i % period else "full_attention" for i in range(len(layers))]
            assert config.layer_types == read_by_period

    def test_the_layer_without_a_norm_stays(self, folders):
        model = build_model("bi_encoder", folders("modernbert"), max_length=64)
        with pytest.raises(BadInput, match=r"layers \[2, 3\]: .*attn_norm.* keep layer 0"):
            keep_layers(transformer_of(model), [2, 3])
        kept, _ = layers_by_importance(model, "bi_encoder", 2, batches_of(model))
        assert kept[0] == 0

    def test_a_choice_of_all_layers_is_said(self, folders, caplog):
        model = build_model("bi_encoder", folders("bert"), max_length=64)
        n_layers = transformer_of(model).config.num_hidden_layers
        choose_layers(model, "bi_encoder", LayerChoice(first=n_layers - 1), [])
        assert not caplog.records
        choose_layers(model, "bi_encoder", LayerChoice(first=n_layers), [])
        assert f"student.layers keeps all {n_layers} layers of the backbone" in caplog.text

    def test_a_config_that_cannot_be_read_again_is_refused(self, folders):
        """A ModernBERT of global layers alone: transformers 5.5 saves it, and refuses it when it is loaded."""
        model = build_model("bi_encoder", folders("modernbert"), max_length=64)
        if can_be_read(cut_config(transformer_of(model).config, [0])):
            pytest.skip("this version of transformers reads a ModernBERT of global layers alone")
        for layers in ([0], [0, 3]):
            with pytest.raises(BadInput, match="of the kind full_attention, keep one of another kind too"):
                keep_layers(transformer_of(model), layers)
        with pytest.raises(BadInput, match=r"student\.layers\.importance: 1: .*keep one of another kind too"):
            layers_by_importance(model, "bi_encoder", 1, batches_of(model))

    @pytest.mark.parametrize("name", ["eurobert", "modernbert"])
    def test_what_does_nothing_goes_first(self, folders, name):
        """In a pre-norm encoder a layer whose maps write nothing passes its input through."""
        model = build_model("bi_encoder", folders(name), max_length=64).eval()
        with torch.no_grad():
            layer = find_layers(transformer_of(model), features_of(model))[2]
            for part in (layer.attention_out, layer.feed_forward_out):
                transformer_of(model).get_submodule(part).weight.zero_()
        kept, steps = choose_layers(model, "bi_encoder", LayerChoice(importance=2), batches_of(model))
        assert steps[0] == {"layer": 2, "change": 0.0}
        assert len(kept) == 2 and steps[1]["change"] > 0
        assert transformer_of(model).config.num_hidden_layers == N_LAYERS  # nothing was cut yet
        assert len(transformer_of(model).layers) == N_LAYERS

    def test_greedy_step_is_the_least_change(self, folders):
        model = build_model("bi_encoder", folders("bert"), max_length=64).eval()
        batches = batches_of(model)
        whole, changes = outputs(model, "bi_encoder", batches), []
        for layer in range(N_LAYERS):
            cut = copy.deepcopy(model)
            keep_layers(transformer_of(cut), [other for other in range(N_LAYERS) if other != layer])
            changes.append(output_change(whole, outputs(cut, "bi_encoder", batches)))
        _, steps = layers_by_importance(model, "bi_encoder", 3, batches)
        assert steps == [{"layer": changes.index(min(changes)), "change": pytest.approx(min(changes), abs=1e-6)}]

    def test_what_stands_before_a_layer_is_computed_once(self, model):
        """Each trial's outputs are those of the encoder cut there, to the bit."""
        from students.cut.depth import _only, _without_each

        model.eval()
        batches, (_, stack) = batches_of(model), layer_stack(transformer_of(model))
        n_runs = [0] * N_LAYERS
        for number, layer in enumerate(stack):
            part = next(layer.children())
            part.register_forward_hook(lambda *_, number=number: n_runs.__setitem__(number, n_runs[number] + 1))
        said = _without_each(model, "bi_encoder", [0, 1, 3], batches, lambda n_done: None)
        assert n_runs == [n * len(batches) for n in (1, 1 + (0 in said), 0, 1 + len(said) - (3 in said))]
        assert len(said) >= (1 if transformer_of(model).config.model_type == "modernbert" else 2)
        for layer, given in said.items():
            with _only(transformer_of(model), [stack[other] for other in (0, 1, 3) if other != layer]):
                assert torch.equal(outputs(model, "bi_encoder", batches), given)

    def test_unknown_family(self, folders, tokenizer):
        from transformers import AlbertConfig, AlbertModel

        albert = AlbertModel(AlbertConfig(vocab_size=len(tokenizer), embedding_size=16, **SIZES))
        with pytest.raises(BadInput, match="albert: .*bert, camembert, deberta-v2, .*xlm-roberta; name a small model"):
            keep_layers(albert, [0])


class TestFeedForward:
    def test_narrow_is_the_source_without_the_other_neurons(self, model, tmp_path):
        batches, cut = batches_of(model), copy.deepcopy(model)
        layers = find_layers(transformer_of(model), features_of(model))
        importance = head_and_neuron_importance(copy.deepcopy(model), "bi_encoder", layers, batches)
        assert narrow(cut, "bi_encoder", Width(feed_forward=0.5), batches) == {"feed_forward": N_NEURONS // 2}

        def without(transformer):
            for layer, values in zip(layers, importance.neurons, strict=True):
                mask = torch.zeros(N_NEURONS)
                mask[best(values, N_NEURONS // 2)] = 1
                transformer.get_submodule(layer.feed_forward_out).weight.mul_(mask)

        assert torch.allclose(embeddings(cut), source_with(model, without), atol=1e-5)
        config = check_reload(cut, tmp_path)
        assert getattr(config, "hidden_dim", None) or config.intermediate_size == N_NEURONS // 2


class TestHeads:
    @pytest.mark.parametrize("name", FREE_HEADS)
    def test_narrow_is_the_source_without_the_other_heads(self, folders, name, tmp_path):
        model = build_model("bi_encoder", folders(name), max_length=64).eval()
        cut, layers = copy.deepcopy(model), find_layers(transformer_of(model), features_of(model))
        kept = narrow(cut, "bi_encoder", Width(heads=2), batches_of(model))["heads"]
        size = HIDDEN // N_HEADS

        def without(transformer):
            for layer, heads in zip(layers, kept, strict=True):
                for dropped in set(range(N_HEADS)) - set(heads):
                    transformer.get_submodule(layer.attention_out).weight[:, dropped * size : (dropped + 1) * size] = 0

        assert torch.allclose(embeddings(cut), source_with(model, without), atol=1e-5)
        config = check_reload(cut, tmp_path)
        assert (config.num_attention_heads, config.head_dim, config.hidden_size) == (2, size, HIDDEN)
        if name == "eurobert":  # its config wants heads that divide the hidden size all the same
            with pytest.raises(BadInput, match="heads: 3; .* takes 1, 2, 4"):
                narrow(model, "bi_encoder", Width(heads=3), batches_of(model))

    def test_tied_ones_are_refused_with_the_way_out(self, model, request):
        if request.node.callspec.params["model"] in FREE_HEADS:
            return
        before = transformer_of(model).state_dict()
        with pytest.raises(BadInput, match=r"student.width.heads: .* set hidden: 16 \(heads follow: 2\)"):
            narrow(model, "bi_encoder", Width(heads=0.5), batches_of(model))
        assert all(torch.equal(before[name], value) for name, value in transformer_of(model).state_dict().items())

    def test_layers_that_share_a_table_keep_the_same_heads(self, folders):
        model = build_model("bi_encoder", folders("mpnet"), max_length=64)
        details = narrow(model, "bi_encoder", Width(hidden=16), batches_of(model))
        assert details["heads"] == [details["heads"][0]] * N_LAYERS
        assert transformer_of(model).encoder.relative_attention_bias.embedding_dim == 2


class TestHidden:
    @pytest.mark.parametrize("by", ["pca", "dimensions"])
    def test_narrow_loads_again(self, model, by, tmp_path):
        source = embeddings(model)
        details = narrow(
            model, "bi_encoder", Width(hidden=0.75, feed_forward=24, hidden_by=by), batches_of(model), way_back=True
        )
        assert details["hidden"] == 24 and 0.5 < details["variance_kept"] < 1
        config = check_reload(model, tmp_path)
        assert config.hidden_size == 24
        assert model.get_embedding_dimension() == HIDDEN  # the Dense leads back into the old space
        assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "Dense", "Normalize"]
        closeness = (embeddings(model) * source).sum(dim=1).mean()
        assert closeness > 0.75, f"random vectors of this width have a cosine around 0, these {closeness:.3f}"

    def test_full_width_is_the_source(self, model):
        source, before = embeddings(model), {name: value.clone() for name, value in model.state_dict().items()}
        for width in (
            Width(hidden=1.0, feed_forward=1.0, heads=1.0),
            Width(hidden=HIDDEN, feed_forward=N_NEURONS, heads=N_HEADS),
        ):
            assert narrow(model, "bi_encoder", width, batches_of(model), way_back=True) == {}
            after = model.state_dict()
            assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
        assert torch.equal(embeddings(model), source)

    @pytest.mark.parametrize(
        ("width", "message"),
        [
            ({"hidden": 20}, "hidden: 20; bert has whole heads of 8, set 16 or 24"),
            ({"hidden": 40}, "hidden: 40; the backbone has 32, set 32 or less"),
            ({"hidden": 16, "heads": 3}, "heads: 3; bert at hidden size 16 has 2 heads of 8"),
            ({"feed_forward": 49}, "feed_forward: 49; the backbone has 48"),
        ],
    )
    def test_what_cannot_be(self, folders, width, message):
        model = build_model("bi_encoder", folders("bert"), max_length=64)
        with pytest.raises(BadInput, match=f"student.width.{message}"):
            narrow(model, "bi_encoder", Width(**width), batches_of(model))

    def test_head_of_a_cross_encoder_follows(self, bert_cross, tmp_path):
        model = load_model(bert_cross).eval()
        batches = batches_of(model, "cross_encoder")
        before = outputs(model, "cross_encoder", batches)
        narrow(model, "cross_encoder", Width(hidden=32), batches)
        after = outputs(model, "cross_encoder", batches)
        assert output_change(before, after) < 0.5
        save_model(model, tmp_path)
        assert torch.allclose(outputs(load_model(tmp_path).eval(), "cross_encoder", batches), after, atol=1e-5)

    def test_head_inside_the_transformer_stays_as_wide(self, tokenizer, tmp_path):
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(0)
        with quiet():
            BertForSequenceClassification(
                BertConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=1, **SIZES)
            ).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        model = build_model("cross_encoder", tmp_path, max_length=64)
        batches = batches_of(model, "cross_encoder")
        with pytest.raises(BadInput, match="head is part of its transformer; set student.head"):
            narrow(model, "cross_encoder", Width(hidden=16), batches)
        narrow(model, "cross_encoder", Width(feed_forward=8), batches)
        keep_layers(transformer_of(model), [1, 3])
        save_model(model, tmp_path / "cut")
        again = load_model(tmp_path / "cut").eval()
        assert transformer_of(again).config.intermediate_size == 8
        assert torch.allclose(
            outputs(again, "cross_encoder", batches), outputs(model.eval(), "cross_encoder", batches), atol=1e-6
        )


class TestImportance:
    @pytest.mark.parametrize("name", ["bert", "modernbert"])
    def test_is_how_far_a_score_moves_with_the_gate(self, folders, name):
        """Against central differences: a head's or neuron's gate moved by ±1 % of its output."""
        model = build_model("bi_encoder", folders(name), max_length=64).double().eval()
        layers = find_layers(transformer_of(model), features_of(model))
        batches = pair_batches(model, "bi_encoder", PAIRS.select([0]), max_length=64)
        found = head_and_neuron_importance(model, "bi_encoder", layers, batches)
        size = HIDDEN // N_HEADS

        def slope(part, columns):
            weight, step, scores = transformer_of(model).get_submodule(part).weight, 0.01, []
            for factor in (1 + step, 1 - step):
                with torch.no_grad():
                    kept = weight.clone()
                    weight[:, columns] *= factor
                    vectors = torch.nn.functional.normalize(
                        model(dict(batches[0].features))["sentence_embedding"], dim=1
                    )
                    scores.append(float(vectors[0] @ vectors[1]))
                    weight.copy_(kept)
            return abs(scores[0] - scores[1]) / (2 * step)

        for i in (0, 3):
            head = slope(layers[i].attention_out, slice(size, 2 * size))
            assert found.heads[i, 1] == pytest.approx(head, rel=1e-2)
            assert found.neurons[i, 7] == pytest.approx(slope(layers[i].feed_forward_out, [7]), rel=1e-2, abs=1e-7)

    def test_parts_taken_for_others_are_found_out(self, folders):
        model = build_model("bi_encoder", folders("eurobert"), max_length=64).eval()
        transformer, features = transformer_of(model), features_of(model)
        layers = find_layers(transformer, features)
        check_order(transformer, layers, features)
        before = {name: value.clone() for name, value in transformer.state_dict().items()}
        wrong = [
            layers[0].__class__(**{**vars(layer), "feed_forward_in": layer.feed_forward_in[:1]}) for layer in layers
        ]
        with pytest.raises(BadInput, match="not where they were taken to be"):
            check_order(transformer, wrong, features)
        assert all(torch.equal(before[name], value) for name, value in transformer.state_dict().items())

    def test_sample_is_seeded_and_bounded(self, bert_bi):
        model = load_model(bert_bi)
        many = Pairs([f"{i} " + "개발자 developer " * 40 for i in range(600)], ["Python SQL " * 40] * 600, None)
        one, same, other = (pair_batches(model, "bi_encoder", many, max_length=96, seed=seed) for seed in (0, 0, 1))
        total = sum(int(batch.features["attention_mask"].sum()) for batch in one)
        assert 8_000 < total <= 16_384
        assert all(
            torch.equal(a.features["input_ids"], b.features["input_ids"]) for a, b in zip(one, same, strict=True)
        )
        assert not torch.equal(one[0].features["input_ids"], other[0].features["input_ids"])


class TestStage:
    def test_a_recipe_cuts_and_narrows(self, tiny_run):
        run = tiny_run(
            data={"max_pairs": 120},
            teachers={"bi": BI_TEACHER},
            student={
                "kind": "bi_encoder",
                "backbone": {"teacher": "bi"},
                "layers": {"importance": 1},
                "width": {"hidden": 16, "feed_forward": 0.5},
            },
            objectives={"score_match": None, "embedding_match": {"teacher": "bi"}},
        )
        train_teachers(run)
        build_student(run)
        built, card = load_model(run.built), run.require(run.built, "build_student")
        config = transformer_of(built).config
        assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size) == (
            1,
            16,
            1,
            32,
        )
        assert built.get_embedding_dimension() == 32
        assert len(card.details["layers"]["kept"]) == 1 == len(card.details["layers"]["left_out"])
        assert card.details["width"]["hidden"] == 16 and len(card.details["width"]["heads"][0]) == 1
