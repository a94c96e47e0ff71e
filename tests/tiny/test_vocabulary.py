"""Models over fewer, other and narrower word embeddings: the same outputs where they must be, stock loaders throughout."""

import copy
import json
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from distill.errors import BadInput, JobFailed
from distill.files.artefact import read_card, write_card
from distill.models.modeling import load_model, prepared, replace_tokenizer, save_model, tokenizer_of, transformer_of
from distill.recipe.schema import NewVocabulary, Static
from distill.runtime.opening import load
from recipes.cli import main
from students.asymmetric import write_router
from students.cut.static import static_model
from students.vocabulary.new_vocabulary import new_vocabulary
from students.vocabulary.trimming import trim_vocabulary
from tests.tiny.conftest import SENTENCES

KOREAN = [text for text in SENTENCES if unicodedata.name(text[0]).startswith("HANGUL")]
ENGLISH = [text for text in SENTENCES if text not in KOREAN]
OTHERS = [
    "機械学習エンジニアを募集しています。",
    "経験者を優遇します。",
    "Инженер по машинному обучению, опыт пять лет.",
]
RAGGED = ["백엔드 개발자", "Backend engineer with five years of Python, Django and PostgreSQL.", "고양이 🙂 cat"]


def wrapped(backend, names, **settings):
    from transformers import PreTrainedTokenizerFast

    first, last = ("[CLS]", "[SEP]") if "[CLS]" in names else ("<s>", "</s>")
    backend.post_processor = processors.RobertaProcessing(
        (last, backend.token_to_id(last)), (first, backend.token_to_id(first))
    )
    roles = {
        "cls_token": first,
        "sep_token": last,
        "pad_token": names[1],
        "unk_token": names[3],
        "mask_token": names[4],
    }
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **roles, **settings)


def make_tokenizer(algorithm):
    """A small tokenizer over Korean, English, Japanese and Russian, padding at id 1 as XLM-R and RoBERTa have it."""
    texts, names = (SENTENCES + OTHERS) * 10, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if algorithm == "unigram":
        backend = Tokenizer(models.Unigram())
        backend.normalizer = normalizers.NFKC()
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        backend.train_from_iterator(
            texts, trainers.UnigramTrainer(vocab_size=400, special_tokens=names, unk_token="<unk>", show_progress=False)
        )
    elif algorithm == "unigram with bytes":
        state = json.loads(make_tokenizer("unigram").backend_tokenizer.to_str())
        state["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
        backend = Tokenizer.from_str(json.dumps({**state, "model": {**state["model"], "byte_fallback": True}}))
    elif algorithm == "wordpiece":
        names = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
        backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        backend.train_from_iterator(
            texts, trainers.WordPieceTrainer(vocab_size=600, special_tokens=names, show_progress=False)
        )
    else:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.train_from_iterator(
            texts,
            trainers.BpeTrainer(
                vocab_size=600,
                special_tokens=names,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
    return wrapped(backend, names)


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def make_model(family, n_tokens, **changes):
    import transformers

    settings = {**SMALL, "vocab_size": n_tokens, "max_position_embeddings": 80, "pad_token_id": 1, "type_vocab_size": 1}
    settings |= {"DistilBert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}}.get(family, {})
    settings |= {"ModernBert": {"bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}}.get(
        family, {}
    )
    config = getattr(transformers, f"{family}Config")(**settings | changes)
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}Model")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "norm" not in name.lower():
                parameter.mul_(4)
    return model


def hidden(model, tokenizer, texts=RAGGED):
    batch = copy.deepcopy(tokenizer)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    return states * batch["attention_mask"].unsqueeze(-1)


SOURCES = {"ko": KOREAN * 2, "en": ENGLISH, "mixed": RAGGED}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # DeBERTa's own file
class TestTrimming:
    @pytest.mark.parametrize(
        ("algorithm", "family"),
        [
            ("unigram", "XLMRoberta"),
            ("unigram", "DebertaV2"),
            ("unigram with bytes", "XLMRoberta"),
            ("wordpiece", "Bert"),
            ("wordpiece", "DistilBert"),
            ("wordpiece", "MPNet"),
            ("wordpiece", "Electra"),
            ("byte-level BPE", "Roberta"),
            ("byte-level BPE", "ModernBert"),
        ],
    )
    def test_all_that_the_corpus_uses_leaves_every_text_as_it_was(self, algorithm, family, tmp_path):
        from transformers import AutoModel, AutoTokenizer

        tokenizer = make_tokenizer(algorithm)
        model = make_model(family, len(tokenizer))
        expected = hidden(model, tokenizer)
        new, report = trim_vocabulary(model, tokenizer, SOURCES, coverage=1.0)
        assert report.n_tokens[0] > report.n_tokens[1] == len(new) == model.config.vocab_size
        for counts in report.sources.values():
            assert (counts.n_covered, counts.n_same, counts.coverage) == (counts.n_texts, counts.n_texts, 1.0)
        assert (report.max_difference, report.changed) == (0.0, ())
        if algorithm == "byte-level BPE":
            assert report.unreachable[1] == 0
        model.save_pretrained(tmp_path)
        new.save_pretrained(tmp_path)
        model, new = AutoModel.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
        assert torch.equal(hidden(model, new), expected)
        assert new("고양이")["input_ids"][0] == new.cls_token_id
        assert (new.pad_token_id, model.config.pad_token_id, model.get_input_embeddings().padding_idx) == (1, 1, 1)

    @pytest.mark.parametrize("algorithm", ["unigram", "wordpiece", "byte-level BPE"])
    def test_the_rest_is_counted_and_listed(self, algorithm):
        tokenizer = make_tokenizer(algorithm)
        model = make_model("Bert", len(tokenizer))
        new, report = trim_vocabulary(model, tokenizer, SOURCES, coverage=0.8)
        assert all(counts.coverage >= 0.8 and counts.n_same == counts.n_covered for counts in report.sources.values())
        n_changed = sum(counts.n_texts - counts.n_covered for counts in report.sources.values())
        assert len(report.changed) == n_changed > 0
        first = report.changed[0]
        assert first["before"] != first["after"]
        assert " ".join(new.tokenize(first["text"])) == first["after"]

    def test_a_size_is_kept_and_one_too_small_is_refused(self):
        for algorithm, size in (("unigram", 150), ("byte-level BPE", 330)):
            tokenizer = make_tokenizer(algorithm)
            _, report = trim_vocabulary(make_model("Bert", len(tokenizer)), tokenizer, SOURCES, size=size)
            assert size - 10 < report.n_tokens[1] <= size and report.unreachable[1] <= report.unreachable[0]
        with pytest.raises(BadInput, match="size 100: special tokens, bytes and single characters .* are 26"):
            trim_vocabulary(make_model("Bert", len(tokenizer)), tokenizer, SOURCES, size=100)

    def test_every_source_is_covered_however_small(self):
        tokenizer = make_tokenizer("unigram")
        sources = {"large": [f"{text} {i}" for i in range(50) for text in ENGLISH], "small": KOREAN[:1]}
        _, report = trim_vocabulary(make_model("Bert", len(tokenizer)), tokenizer, sources, coverage=0.97)
        assert report.sources["small"].coverage >= 0.97

    def test_what_an_unknown_word_was_tried_with_counts_as_its_tokens(self):
        """Without "ab" the word "abcd" is found as "a ##bcd": it was [UNK], and must not pass for unchanged."""
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "ab", "##bcd", "x"]
        backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
        )
        assert tokenizer.tokenize("abcd") == ["[UNK]"]
        model = make_model("Bert", len(words), pad_token_id=0)
        sources = {"texts": ["x abcd", "xbcd", "a abcd x x", *[f"{'x ' * i}" for i in range(2, 9)]]}
        _, whole = trim_vocabulary(copy.deepcopy(model), tokenizer, sources, coverage=1.0)
        assert whole.n_tokens[1] == 7 and whole.sources["texts"].n_covered == 8  # "ab" is in no text's ids
        assert [row["after"] for row in whole.changed] == ["x a ##bcd", "a a ##bcd x x"]

    def test_heads_that_guess_tokens_are_cut_along(self):
        from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

        for algorithm, config, model_class in (
            ("wordpiece", BertConfig, BertForMaskedLM),
            ("byte-level BPE", RobertaConfig, RobertaForMaskedLM),
        ):
            tokenizer = make_tokenizer(algorithm)
            model = model_class(
                config(**SMALL, vocab_size=len(tokenizer), max_position_embeddings=80, pad_token_id=1)
            ).eval()
            torch.nn.init.normal_(model.get_output_embeddings().bias)
            old_ids = tokenizer.get_vocab()
            batch = copy.deepcopy(tokenizer)(KOREAN[:2], padding=True, return_tensors="pt")
            with torch.no_grad():
                before = model(**batch).logits
            new, _ = trim_vocabulary(model, tokenizer, SOURCES, coverage=1.0)
            batch = copy.deepcopy(new)(KOREAN[:2], padding=True, return_tensors="pt")
            with torch.no_grad():
                after = model(**batch).logits
            order = [old_ids[token] for token in sorted(new.get_vocab(), key=new.get_vocab().get)]
            assert torch.allclose(after, before[..., order], atol=1e-6)
            assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
            assert isinstance(model, AutoModelForMaskedLM._model_mapping[type(model.config)])

    def test_weights_keep_their_dtype(self):
        tokenizer = make_tokenizer("unigram")
        model = make_model("XLMRoberta", len(tokenizer)).to(torch.bfloat16)
        trim_vocabulary(model, tokenizer, SOURCES, size=300)
        assert model.get_input_embeddings().weight.dtype == torch.bfloat16

    def test_rows_behind_the_last_token_are_dropped(self):
        tokenizer = make_tokenizer("unigram")
        model = make_model("XLMRoberta", len(tokenizer) + 64)  # rounded up, as ModernBERT's are
        new, _ = trim_vocabulary(model, tokenizer, SOURCES, coverage=1.0)
        assert model.get_input_embeddings().weight.shape[0] == len(new)

    def test_a_tokenizer_of_another_model_is_refused(self):
        tokenizer = make_tokenizer("unigram")
        with pytest.raises(BadInput, match="the tokenizer has token .*, the model 100 word embeddings"):
            trim_vocabulary(make_model("Bert", 100), tokenizer, SOURCES, coverage=1.0)

    def test_text_in_any_form_is_read(self):
        """Composed and decomposed Hangul, emoji with joiners, lone marks, controls: as before, or counted as lost."""
        odd = [
            unicodedata.normalize("NFD", KOREAN[0]),
            "👩‍💻 개발자 🇰🇷",
            "a\u0301\u0301",
            "\x00\ufffd\u200d",
            "<s> </s>",
            "ﷺ",
            "𝕳𝖊𝖑𝖑𝖔",
        ]
        for algorithm in ("unigram", "unigram with bytes", "wordpiece", "byte-level BPE"):
            tokenizer = make_tokenizer(algorithm)
            model = make_model("Bert", len(tokenizer))
            new, report = trim_vocabulary(model, tokenizer, {**SOURCES, "odd": odd}, coverage=1.0)
            assert report.sources["odd"].n_same == len(odd)
            assert max(i for text in odd for i in new(text)["input_ids"]) < len(new)


def test_distill_trim_writes_a_folder_that_stock_loads(xlmr_bi, tmp_path, capsys):
    from sentence_transformers import SentenceTransformer

    (tmp_path / "ko.txt").write_text("\n".join(KOREAN), encoding="utf-8")
    (tmp_path / "en.tsv").write_text("title\tbody\n" + "\n".join(f"{t}\t{t}" for t in ENGLISH) + "\n", encoding="utf-8")
    arguments = [
        "trim",
        str(xlmr_bi),
        str(tmp_path / "small"),
        "--texts",
        str(tmp_path / "ko.txt"),
        "--texts",
        f"{tmp_path / 'en.tsv'}:title,body",
    ]
    assert main([*arguments, "--coverage", "0.9", "--changed", str(tmp_path / "changed.tsv"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["sources"]) == {"ko", "en title", "en body"}
    lines = (tmp_path / "changed.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "source\ttext\tbefore\tafter" and len(lines) == 1 + report["n_changed"] > 1
    card = read_card(tmp_path / "small")
    assert (card.stage, card.details["trim"]["coverage"]) == ("trim", 0.9) and "model" in card.parents
    changed = {line.split("\t")[1] for line in lines[1:]}
    same = [text for text in KOREAN + ENGLISH if text not in changed]
    old, new = (SentenceTransformer(str(folder), device="cpu").encode(same) for folder in (xlmr_bi, tmp_path / "small"))
    assert abs(old - new).max() < 1e-6
    assert main(arguments) == 2
    assert "holds an earlier result" in capsys.readouterr().err
    (tmp_path / "small" / "1_Pooling" / "config.json").write_text("{}")
    arguments[1:3] = [str(tmp_path / "small"), str(tmp_path / "smaller")]
    assert main(arguments) == 2
    assert "was changed or damaged after it was made" in capsys.readouterr().err
    assert not (tmp_path / "smaller").exists()


def test_distill_trim_replaces_what_it_wrote_and_nothing_else(bert_bi, tmp_path, capsys):
    (tmp_path / "ko.txt").write_text("\n".join(KOREAN), encoding="utf-8")
    arguments = ["trim", str(bert_bi), str(tmp_path / "small"), "--texts", str(tmp_path / "ko.txt")]
    assert main([*arguments, "--coverage", "1"]) == 0
    assert main(arguments) == 2
    assert "holds an earlier result, which would be lost; name another folder, or add --overwrite" in (
        capsys.readouterr().err
    )
    assert main([*arguments, "--coverage", "0.5", "--overwrite"]) == 0
    trimmed = read_card(tmp_path / "small")
    assert trimmed.details["trim"]["coverage"] == 0.5
    (tmp_path / "small" / "thesis.txt").write_text("years of work")
    assert main([*arguments, "--overwrite"]) == 2
    assert "holds 1 file that trim did not write (first: thesis.txt)" in capsys.readouterr().err
    (tmp_path / "small" / "thesis.txt").unlink()
    write_card(tmp_path / "small", replace(trimmed, stage="train_student"))
    assert main([*arguments, "--overwrite"]) == 2
    assert "holds other files" in capsys.readouterr().err and read_card(tmp_path / "small").stage == "train_student"


def test_distill_trim_does_not_write_over_a_text_with_a_colon_in_its_name(bert_bi, tmp_path, capsys):
    texts = tmp_path / "a:b.tsv"
    texts.write_text("text\n" + "\n".join(KOREAN) + "\n", encoding="utf-8")
    arguments = ["trim", str(bert_bi), str(tmp_path / "small"), "--texts", str(texts), "--changed", str(texts)]
    assert main([*arguments, "--overwrite"]) == 2
    assert "a:b.tsv" in capsys.readouterr().err and texts.read_text(encoding="utf-8").endswith(f"{KOREAN[-1]}\n")


def test_distill_trim_keeps_the_prompts_of_the_model(bert_bi, tmp_path):
    model = load_model(bert_bi)
    model.prompts = {"query": "Backend engineer: ", "document": "", "nurse": "night shifts: "}
    (tmp_path / "prompted").mkdir()
    save_model(model, tmp_path / "prompted")
    (tmp_path / "ko.txt").write_text("\n".join(KOREAN), encoding="utf-8")
    arguments = ["trim", str(tmp_path / "prompted"), str(tmp_path / "small"), "--texts", str(tmp_path / "ko.txt")]
    assert main([*arguments, "--coverage", "1"]) == 0
    old, new = (load(tmp_path / name) for name in ("prompted", "small"))
    for prompt in model.prompts:
        np.testing.assert_allclose(
            old.encode(KOREAN, prompt_name=prompt), new.encode(KOREAN, prompt_name=prompt), atol=1e-6
        )


def test_distill_trim_refuses_what_has_no_word_embeddings(bert_bi, tmp_path, capsys):
    model = load_model(bert_bi)
    static = prepared(static_model(model, Static(), KOREAN, max_length=64), max_length=64, prompts=None)
    for name in ("static", "router"):
        (tmp_path / name).mkdir()
    save_model(static, tmp_path / "static")
    write_router(tmp_path / "router", bert_bi, bert_bi, "query")
    (tmp_path / "ko.txt").write_text("\n".join(KOREAN), encoding="utf-8")
    for name, message in (("static", "is a static model"), ("router", "is a Router of two models")):
        texts = ["--texts", str(tmp_path / "ko.txt")]
        assert main(["trim", str(tmp_path / name), str(tmp_path / "small"), *texts]) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "small").exists()


class TestNewVocabulary:
    def test_matched_tokens_start_as_they_were(self):
        tokenizer = make_tokenizer("wordpiece")
        model = make_model("Bert", len(tokenizer))
        old_rows, old_ids = model.get_input_embeddings().weight.detach().clone(), tokenizer.get_vocab()
        new, report = new_vocabulary(
            model, tokenizer, SOURCES, NewVocabulary(tokenizer="unigram", size=300, start="exact"), seed=0
        )
        rows, ids = model.get_input_embeddings().weight, new.get_vocab()
        assert torch.equal(rows[ids["[CLS]"]], old_rows[old_ids["[CLS]"]])
        for begin, inside in (("▁", ""), ("", "##")):  # ▁ is a beginning, and so is no ##
            matched = [
                piece for piece in ids if piece.startswith(begin) and inside + piece.removeprefix(begin) in old_ids
            ]
            matched = [piece for piece in matched if piece.removeprefix(begin).isalpha()]
            assert len(matched) > 5
            for piece in matched:
                assert torch.equal(rows[ids[piece]], old_rows[old_ids[inside + piece.removeprefix(begin)]])
        assert report.starts["pieces"] == report.starts["similar"] == 0 and sum(report.starts.values()) == len(new)
        assert new("고양이", "cat")["input_ids"].count(ids["[SEP]"]) == 3  # put around as before
        assert report.fertility["en"][1] > 0

    def test_pieces_of_the_same_text_are_averaged(self):
        tokenizer = make_tokenizer("wordpiece")
        model = make_model("Bert", len(tokenizer))
        old_rows, old_ids = model.get_input_embeddings().weight.detach().clone(), tokenizer.get_vocab()
        corpus = {"en": ["kubernetesdjango"] * 30 + ["catdog"] * 30}
        new, report = new_vocabulary(
            model, tokenizer, corpus, NewVocabulary(tokenizer="wordpiece", size=100, start="mean"), seed=0
        )
        token = max(new.get_vocab(), key=len)
        parts = [old_ids[part] for part in tokenizer.tokenize(token)]
        assert len(parts) > 1 and report.starts["pieces"] > 0
        row = model.get_input_embeddings().weight[new.get_vocab()[token]]
        assert torch.allclose(row, old_rows[parts].mean(dim=0), atol=1e-6)

    def test_focus_mixes_what_stands_in_the_same_texts(self):
        """A word that the old vocabulary lacks stands only beside "cat": it starts as "cat"."""
        tokenizer = make_tokenizer("wordpiece")
        model = make_model("Bert", len(tokenizer))
        old_rows, old_ids = model.get_input_embeddings().weight.detach().clone(), tokenizer.get_vocab()
        pairs = [("삵", "cat"), ("늪", "mat"), ("넋", "fox"), ("몫", "quick"), ("값", "brown")] * 8
        sources = {"ko": [ko for ko, _ in pairs], "en": [en for _, en in pairs]}
        new, report = new_vocabulary(
            model,
            tokenizer,
            sources,
            NewVocabulary(tokenizer="wordpiece", size=300, start="focus"),
            seed=0,
            contexts=pairs,
        )
        rows, ids = model.get_input_embeddings().weight.detach(), new.get_vocab()
        assert report.starts["similar"] > 0
        cosine = torch.nn.functional.cosine_similarity(rows[ids["삵"]], old_rows[old_ids["cat"]], dim=0)
        assert cosine > 0.9

    @pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
    @pytest.mark.parametrize(
        ("algorithm", "family"), [("unigram", "XLMRoberta"), ("byte-level BPE", "Roberta"), ("wordpiece", "MPNet")]
    )
    def test_positions_stay_where_padding_counts_them(self, kind, algorithm, family, tmp_path):
        from transformers import AutoModel, AutoTokenizer

        tokenizer = make_tokenizer(algorithm)
        model = make_model(family, len(tokenizer))
        new, report = new_vocabulary(
            model, tokenizer, SOURCES, NewVocabulary(tokenizer=kind, size=300, start="mean"), seed=0
        )
        assert new.pad_token_id == model.config.pad_token_id == 1
        assert report.n_tokens[1] == len(new) <= 300
        model.save_pretrained(tmp_path)
        new.save_pretrained(tmp_path)
        again = AutoModel.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
        states = hidden(*again)
        assert torch.equal(states, hidden(model, new))
        alone = hidden(*again, texts=RAGGED[:1])  # beside longer texts as alone: padding is seen as such
        assert torch.allclose(states[:1, : alone.shape[1]], alone, atol=1e-5)

    def test_the_same_seed_gives_the_same_model(self):
        made, tokenizer = [], make_tokenizer("wordpiece")
        for _ in range(2):
            model = make_model("Bert", len(tokenizer))
            new, _ = new_vocabulary(
                model, tokenizer, SOURCES, NewVocabulary(tokenizer="unigram", size=300, start="focus"), seed=3
            )
            made.append((new.get_vocab(), model.get_input_embeddings().weight))
        assert made[0][0] == made[1][0] and torch.equal(made[0][1], made[1][1])


def test_an_inexact_cut_is_refused(monkeypatch):
    """The check can fail: a model whose rows do not follow its tokenizer is not given out."""
    from students.vocabulary import trimming as vocabulary

    honest = vocabulary.replace_vocabulary
    monkeypatch.setattr(
        vocabulary,
        "replace_vocabulary",
        lambda model, rows_of, n, ids: honest(model, lambda old: rows_of(old).roll(1, 0), n, ids),
    )
    tokenizer = make_tokenizer("unigram")
    with pytest.raises(JobFailed, match="trimmed, the model differs by"):
        trim_vocabulary(make_model("XLMRoberta", len(tokenizer)), tokenizer, SOURCES, coverage=1.0)


def test_a_sentence_transformer_takes_another_tokenizer(bert_bi, tmp_path):
    model = load_model(bert_bi)
    texts = [*KOREAN, *ENGLISH]
    before = model.encode(texts)
    tokenizer, _ = trim_vocabulary(transformer_of(model), tokenizer_of(model), {"all": texts}, coverage=1.0)
    replace_tokenizer(model, tokenizer)
    save_model(model, tmp_path / "trimmed")
    assert abs(load_model(tmp_path / "trimmed").encode(texts) - before).max() < 1e-6
