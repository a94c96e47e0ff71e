"""Models are what they say: nothing missing, nothing NaN, no head drawn at random, the prompts and positions of their folder."""

import json
import logging
import shutil
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from distill.data.pairs import Pairs
from distill.errors import BadInput, JobFailed
from distill.models.backbone import fresh_backbone
from distill.models.modeling import build_model, load_model, quiet, save_model
from distill.models.prompts import folder_prompts
from distill.models.whole_weights import whole_weights
from distill.recipe.schema import FreshBackbone, Width
from distill.runtime.opening import load
from students import build_student, train_student
from students.cut.importance import pair_batches
from students.cut.width import narrow
from teachers import cache_signals, train_teachers
from tests.conftest import BI_TEACHER
from tests.tiny.conftest import SENTENCES

SHORT = {"max_pairs": 120}
FROZEN_CROSS = {"kind": "cross_encoder", "frozen": True, "max_length": 64, "head": None}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A plain transformers folder of a BERT with two layers."""
    settings = FreshBackbone(vocabulary=300, layers=2, width=32, heads=2, max_length=96)
    return fresh_backbone(settings, SENTENCES * 20, seed=1, folder=tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def reranker(encoder, tmp_path_factory):
    """The same with a sequence classification head of one label."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("reranker") / "model"
    torch.manual_seed(0)
    with quiet():
        AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=1).save_pretrained(folder)
        AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return folder


def changed(source, target, change):
    """Copy a folder with its tensors changed: change({name: tensor}) → {name: tensor}."""
    shutil.copytree(source, target)
    save_file(change(load_file(source / "model.safetensors")), target / "model.safetensors", metadata={"format": "pt"})
    return target


def with_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


class TestMissingWeights:
    def refused(self, folder, match, kind="bi_encoder"):
        with pytest.raises(BadInput, match=match):
            build_model(kind, folder, max_length=64)

    def test_a_layer_is_named(self, encoder, tmp_path):
        without = changed(encoder, tmp_path / "m", lambda t: {k: v for k, v in t.items() if "layer.1." not in k})
        self.refused(without, r"the weights lack encoder\.layer\.1\.\S+, .* and 12 more of BertModel")

    def test_a_prefix_of_a_wrapped_model(self, encoder, tmp_path):
        wrapped = changed(encoder, tmp_path / "m", lambda t: {f"module.{k}": v for k, v in t.items()})
        self.refused(wrapped, r"the weights lack embeddings\..* it has module\.embeddings\.\S+, .* instead")

    def test_more_layers_in_the_config(self, encoder, tmp_path):
        shutil.copytree(encoder, tmp_path / "m")
        self.refused(with_config(tmp_path / "m", num_hidden_layers=3), r"the weights lack encoder\.layer\.2\.")

    def test_another_shape(self, encoder, tmp_path):
        narrow = changed(
            encoder,
            tmp_path / "m",
            lambda t: {k: v[:, :16].clone() if k.endswith("0.intermediate.dense.weight") else v for k, v in t.items()},
        )
        self.refused(narrow, r"encoder\.layer\.0\.intermediate\.dense\.weight of BertModel have another shape")

    def test_a_classifiers_head(self, reranker, tmp_path):
        headless = changed(reranker, tmp_path / "m", lambda t: {k: v for k, v in t.items() if "classifier" not in k})
        self.refused(
            headless, r"lack classifier\.bias, classifier\.weight of BertForSequenceClassification", "cross_encoder"
        )

    def test_a_classifiers_pooler_but_not_an_encoders(self, reranker, encoder, tmp_path):
        without = changed(reranker, tmp_path / "m", lambda t: {k: v for k, v in t.items() if "pooler" not in k})
        self.refused(without, r"lack bert\.pooler\.dense\.bias", "cross_encoder")
        build_model("bi_encoder", without, max_length=64)  # an encoder's pooler is used by nobody

    def test_in_an_artefact_and_in_the_torch_runtime(self, bert_bi, tmp_path):
        without = changed(bert_bi, tmp_path / "m", lambda t: {k: v for k, v in t.items() if "layer.1." not in k})
        for open_folder in (load_model, lambda folder: load(folder, runtime="torch")):
            with pytest.raises(BadInput, match=r"the weights lack encoder\.layer\.1\."):
                open_folder(without)

    def test_what_the_file_has_besides_is_said(self, encoder, reranker, tmp_path, caplog):
        shutil.copytree(encoder, tmp_path / "m")
        with caplog.at_level(logging.INFO):
            build_model("bi_encoder", with_config(tmp_path / "m", num_hidden_layers=1), max_length=64)
            build_model("bi_encoder", reranker, max_length=64)
        said = {
            record.levelname: record.getMessage() for record in caplog.records if "also holds" in record.getMessage()
        }
        assert "encoder.layer.1." in said["WARNING"]  # a layer less than there is
        assert "classifier.weight" in said["INFO"]


class TestNotANumber:
    def test_in_a_backbone_an_artefact_and_the_torch_runtime(self, encoder, bert_bi, tmp_path):
        def spoil(tensors):
            name = next(name for name in tensors if name.endswith("layer.0.output.dense.weight"))
            tensors[name][3, 1] = float("nan")
            return tensors

        with pytest.raises(BadInput, match=r"encoder\.layer\.0\.output\.dense\.weight \(row 3\) holds NaN or infinity"):
            build_model("bi_encoder", changed(encoder, tmp_path / "a", spoil), max_length=64)
        folder = changed(bert_bi, tmp_path / "b", spoil)
        for open_folder in (load_model, lambda folder: load(folder, runtime="torch")):
            with pytest.raises(BadInput, match=r"layer\.0\.output\.dense\.weight \(row 3\) holds NaN or infinity"):
                open_folder(folder)

    def test_is_not_saved(self, bert_cross, tmp_path):
        model = load_model(bert_cross)
        with torch.no_grad():
            model[-1].linear.bias[0] = float("inf")
        with pytest.raises(JobFailed, match=r"linear\.bias \(row 0\)"):
            save_model(model, tmp_path / "m")
        assert not (tmp_path / "m").exists()


class TestFrozenScorers:
    def refused(self, tiny_run, match, **teacher):
        run = tiny_run(data=SHORT, teachers={"cross": {**FROZEN_CROSS, **teacher}})
        with pytest.raises(BadInput, match=match):
            train_teachers(run)
        assert not run.teacher("cross").exists()

    def test_of_a_headless_encoder_are_refused(self, tiny_run, encoder, bert_bi):
        for folder in (encoder, bert_bi):
            self.refused(
                tiny_run, "has no head that scores pairs, and a frozen teacher gets no new one", backbone=str(folder)
            )

    def test_that_generate_without_a_scorer_are_refused(self, tiny_run, encoder, tmp_path):
        from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

        config = Qwen3Config(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=96,
        )
        with quiet():
            Qwen3ForCausalLM(config).save_pretrained(tmp_path / "qwen")
            AutoTokenizer.from_pretrained(encoder).save_pretrained(tmp_path / "qwen")
        said = r"is a generative reranker \(Qwen3ForCausalLM\) without the description of its scorer: modules.json is missing"
        self.refused(tiny_run, said, backbone=str(tmp_path / "qwen"))

    def test_with_a_new_head_are_refused(self, tiny_run, reranker):
        self.refused(tiny_run, "pooling and head ask for a new, random head", backbone=str(reranker), head=[8])

    def test_with_a_head_of_their_own_score_as_they_did(self, tiny_run, reranker, bert_cross):
        from sentence_transformers import CrossEncoder

        pairs = list(zip(SENTENCES[:4], SENTENCES[4:8], strict=True))
        for name, folder in (("classifier", reranker), ("modules", bert_cross)):
            run = tiny_run(name, data=SHORT, teachers={"cross": {**FROZEN_CROSS, "backbone": str(folder)}})
            train_teachers(run)
            with quiet():
                stock = CrossEncoder(str(folder), device="cpu").predict(pairs, activation_fn=torch.nn.Identity())
            ours = load(run.teacher("cross"), runtime="torch").score(*zip(*pairs, strict=True))
            np.testing.assert_allclose(ours, stock, atol=1e-5)


def test_threads_that_load_at_the_same_time_leave_the_libraries_as_they_were(bert_bi):
    """Entered by two threads, left in the order in which they entered."""
    from transformers import AutoModel, PreTrainedModel

    original, level = PreTrainedModel.__dict__["from_pretrained"], logging.getLogger("transformers").level
    entered, may_leave = threading.Event(), threading.Event()

    def other():
        with quiet(), whole_weights("other"):
            entered.set()
            may_leave.wait(60)

    thread = threading.Thread(target=other)
    with quiet(), whole_weights("first"):
        thread.start()
        assert entered.wait(60)
    try:  # the other thread is still inside, and this one loads what it likes
        AutoModel.from_pretrained(bert_bi, num_hidden_layers=3)
    finally:
        may_leave.set()
        thread.join()
    assert PreTrainedModel.__dict__["from_pretrained"] is original
    assert logging.getLogger("transformers").level == level


def test_a_norm_between_layers_stays(bert_bi, tmp_path):
    """Only the last one is replaced by our own; before a Dense with an activation it changes the result."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize

    body = list(load_model(bert_bi))[:2]
    (tmp_path / "source").mkdir()
    torch.manual_seed(0)
    save_model(
        SentenceTransformer(modules=[*body, Normalize(), Dense(64, 32), Normalize()], device="cpu"), tmp_path / "source"
    )
    model = build_model("bi_encoder", tmp_path / "source", max_length=64)
    expected = SentenceTransformer(str(tmp_path / "source"), device="cpu").encode(SENTENCES)
    np.testing.assert_allclose(model.encode(SENTENCES), expected, atol=1e-6)
    batches = pair_batches(model, "bi_encoder", Pairs(SENTENCES, SENTENCES, None), max_length=64)
    with pytest.raises(BadInput, match="a Normalize follows the pooling"):
        narrow(model, "bi_encoder", Width(hidden=32), batches)


@pytest.fixture(scope="module")
def e5_like(bert_bi, tmp_path_factory):
    """A bi-encoder whose folder stores prompts, under the names of E5."""
    from sentence_transformers import SentenceTransformer

    folder = tmp_path_factory.mktemp("e5") / "model"
    with quiet():
        model = SentenceTransformer(str(bert_bi), device="cpu")
        model.prompts = {"query": "백엔드 query: ", "passage": "Python passage: ", "document": ""}
        model.save(str(folder), create_model_card=False)
    return folder


PROMPTS = ("백엔드 query: ", "Python passage: ")


class TestPrompts:
    def frozen(self, folder, **changes):
        return {"bi": {**BI_TEACHER, "backbone": str(folder), "frozen": True, **changes}}

    def test_of_a_frozen_teacher_stay_are_said_and_key_the_cache(self, tiny_run, e5_like, caplog):
        run = tiny_run(data=SHORT, teachers=self.frozen(e5_like))
        with caplog.at_level(logging.INFO):
            train_teachers(run)
        assert "'백엔드 query: ' before queries, 'Python passage: ' before documents" in caplog.text
        assert folder_prompts(run.teacher("bi")) == PROMPTS
        assert run.signal_identity("bi").prompts == PROMPTS
        texts = (SENTENCES[:2], SENTENCES[2:4])
        np.testing.assert_allclose(load(run.teacher("bi")).score(*texts), load(e5_like).score(*texts), atol=1e-6)

    def test_of_the_recipe_rule_over_them(self, tiny_run, e5_like):
        run = tiny_run(data=SHORT, teachers=self.frozen(e5_like, prompts=["", ""]))
        train_teachers(run)
        assert folder_prompts(run.teacher("bi")) == ("", "")
        assert run.signal_identity("bi").prompts == ("", "")

    def test_reach_the_signals_and_the_student(self, tiny_run, e5_like):
        """A student that keeps all layers and its teacher's prompts is at cosine 1 to the labels before it learns."""
        run = tiny_run(
            data=SHORT,
            teachers=self.frozen(e5_like),
            signals={"allow_unrelated": True},
            student={"kind": "bi_encoder", "backbone": {"teacher": "bi"}, "layers": [0, 1]},
            objectives={"score_match": None, "embedding_match": {"teacher": "bi"}},
            training={"max_steps": 1, "learning_rate": 1e-9},
        )
        train_teachers(run)
        cache_signals(run)
        build_student(run)
        assert folder_prompts(run.built) == PROMPTS
        train_student(run)
        card = json.loads((run.student / "artefact.json").read_text())
        assert card["details"]["history"][0]["embedding_match"] == pytest.approx(0, abs=1e-5)
        assert folder_prompts(run.student) == PROMPTS

    @pytest.mark.parametrize(
        ("prompts", "default"), [({"query": "query: ", "passage": "passage: "}, None), ({"all": "represent: "}, "all")]
    )
    def test_stock_reads_those_that_the_model_learned(self, bert_bi, tmp_path, prompts, default):
        """Stock `encode_document` takes an empty prompt "document" before "passage", and before the default."""
        from sentence_transformers import SentenceTransformer

        source = shutil.copytree(bert_bi, tmp_path / "source")
        path = source / "config_sentence_transformers.json"
        stored = {"prompts": prompts, "default_prompt_name": default}
        path.write_text(json.dumps(json.loads(path.read_text()) | stored))
        (tmp_path / "built").mkdir()
        save_model(build_model("bi_encoder", source, max_length=64), tmp_path / "built")
        ours, stock = load(tmp_path / "built"), SentenceTransformer(str(tmp_path / "built"), device="cpu")
        np.testing.assert_allclose(stock.encode_query(SENTENCES), ours.encode_queries(SENTENCES), atol=1e-5)
        np.testing.assert_allclose(stock.encode_document(SENTENCES), ours.encode_documents(SENTENCES), atol=1e-5)
        assert folder_prompts(tmp_path / "built") == folder_prompts(source)

    def test_of_a_default_are_not_put_twice(self, tiny_run, bert_bi, tmp_path):
        from sentence_transformers import SentenceTransformer

        with quiet():
            model = SentenceTransformer(str(bert_bi), device="cpu")
            model.prompts, model.default_prompt_name = {"query": "query: ", "all": "all: "}, "query"
            model.save(str(tmp_path / "default"), create_model_card=False)
        run = tiny_run(
            data=SHORT,
            teachers=self.frozen(tmp_path / "default"),
            signals={"allow_unrelated": True},
            student={"kind": "bi_encoder", "backbone": {"teacher": "bi"}, "layers": [0, 1]},
            objectives={"score_match": None, "embedding_match": {"teacher": "bi"}},
        )
        train_teachers(run)
        cache_signals(run)
        from students.cut.sources import signal_source

        text = run.split.train.queries[0]
        cached = signal_source(run, "bi").embeddings([text], [0])(np.array([0]))[0]
        with quiet():
            stock = SentenceTransformer(str(bert_bi), device="cpu").encode("query: " + text)
        np.testing.assert_allclose(cached, stock, atol=1e-5)

    def test_that_pooling_leaves_out_are_not_trained(self, tiny_run, e5_like, tmp_path):
        shutil.copytree(e5_like, tmp_path / "m")
        pooling = tmp_path / "m" / "1_Pooling" / "config.json"
        pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "include_prompt": False}))
        teacher = {"bi": {**BI_TEACHER, "backbone": str(tmp_path / "m")}}
        with pytest.raises(BadInput, match="include_prompt: false"):
            train_teachers(tiny_run("with", data=SHORT, teachers=teacher))
        without = tiny_run("without", data=SHORT, teachers={"bi": {**teacher["bi"], "prompts": ["", ""]}})
        train_teachers(without)


@pytest.fixture(scope="module")
def padded_at_three(tmp_path_factory):
    """A RoBERTa of 66 positions whose padding id is 3, as rinna/japanese-roberta-base has it: 62 are usable."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    folder = tmp_path_factory.mktemp("roberta")
    words = {word: number for number, word in enumerate(["[UNK]", "[CLS]", "[SEP]", "[PAD]", *"abcdefgh"])}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    ).save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=12,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=66,
        pad_token_id=3,
    )
    with quiet():
        RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


class TestPaddingIdOfThree:
    LONG = " ".join("abcdefgh"[i % 8] for i in range(100))

    def test_leaves_fewer_positions(self, padded_at_three):
        with pytest.raises(
            BadInput, match="max_length 64 is more than the 62 positions of this roberta encoder; set it to 62"
        ):
            build_model("bi_encoder", padded_at_three, max_length=64)

    def test_a_full_text_is_trained_and_labelled(self, padded_at_three, tmp_path):
        from distill.data.tokens import tokenize

        model = build_model("bi_encoder", padded_at_three, max_length=62)
        save_model(model, tmp_path / "m")
        table = tokenize(model[0].tokenizer, [self.LONG, "a b"], max_length=62)
        batch = table.batch([0, 1])
        assert batch["input_ids"].shape == (2, 62)  # 64, the next multiple of 8, has no positions
        trained = model.eval()(dict(batch))["sentence_embedding"].detach().numpy()
        np.testing.assert_allclose(load(tmp_path / "m").encode([self.LONG, "a b"]), trained, atol=1e-5)

    def test_stays_where_it_is_in_a_trimmed_vocabulary(self, padded_at_three):
        from distill.models.modeling import tokenizer_of, transformer_of
        from students.vocabulary.trimming import trim_vocabulary

        model = build_model("bi_encoder", padded_at_three, max_length=62)
        tokenizer, report = trim_vocabulary(
            transformer_of(model), tokenizer_of(model), {"train": ["a b c", "a a b"]}, coverage=1.0
        )
        assert tokenizer.pad_token_id == 3 and report.max_difference < 1e-5
        with pytest.raises(BadInput, match="62 positions"):
            from distill.models.modeling import prepared

            prepared(model, max_length=63, prompts=None)
