"""Tokens added for a script: other text is read as before, the new tokens are the script's alone, stock loaders take the folder."""

import json
import unicodedata

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from distill.errors import BadInput
from distill.recipe.schema import MoreVocabulary
from students.vocabulary.extending import extend_vocabulary
from students.vocabulary.merges import trained_merges
from students.vocabulary.surface import byte_letters, bytes_of
from tests.tiny.test_vocabulary import KOREAN, OTHERS, hidden, make_model, make_tokenizer, wrapped

ENGLISH = ["The cat sat on the mat.", "Backend engineer with five years of Python, Django and PostgreSQL.", *OTHERS]
WORDS = ["파이썬", "개발자", "데이터", "서버"]
ENDINGS = ["은", "을", "에", "의", "과", "도", "만"]
CORPUS = {"ko": [" ".join(f"{word}{ending}" for word in [*WORDS, ""]) for ending in ENDINGS] + WORDS, "en": ENGLISH}
KINDS = [("wordpiece", "Bert"), ("wordpiece", "MPNet"), ("unigram", "XLMRoberta")]


def spelling_tokenizer(algorithm):
    """A tokenizer that has Korean letters, and no longer piece of them, as BERT's uncased vocabulary has."""
    tokenizer = make_tokenizer(algorithm)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocab = state["model"]["vocab"]
    if isinstance(vocab, dict):
        kept = [piece for piece in sorted(vocab, key=vocab.get) if n_korean(piece) < 2]
        state["model"]["vocab"] = {piece: i for i, piece in enumerate(kept)}
    else:
        state["model"]["vocab"] = [[piece, score] for piece, score in vocab if n_korean(piece) < 2]
    return wrapped(Tokenizer.from_str(json.dumps(state)), [token["content"] for token in state["added_tokens"]])


def letters_bpe():
    backend = Tokenizer(models.BPE(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    names = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
    backend.train_from_iterator(ENGLISH, trainers.BpeTrainer(vocab_size=100, special_tokens=names, show_progress=False))
    return wrapped(backend, names)


def n_korean(piece):
    return sum(unicodedata.name(letter, "").startswith("HANGUL") for letter in piece)


@pytest.mark.parametrize(("algorithm", "family"), KINDS)
def test_text_in_other_scripts_is_read_as_before(algorithm, family, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    tokenizer = spelling_tokenizer(algorithm)
    model = make_model(family, len(tokenizer))
    before = hidden(model, tokenizer, ENGLISH)
    ids = [tokenizer(text)["input_ids"] for text in ENGLISH]
    new, report = extend_vocabulary(model, tokenizer, CORPUS, MoreVocabulary(scripts="hangul", tokens=64), seed=0)
    assert [new(text)["input_ids"] for text in ENGLISH] == ids
    assert torch.equal(hidden(model, new, ENGLISH), before)
    assert report.n_as_before == {"ko": 0, "en": len(set(ENGLISH))}
    assert report.n_tokens[0] < report.n_tokens[1] == len(new) == model.config.vocab_size <= report.n_tokens[0] + 64
    assert report.fertility["ko"][1] < report.fertility["ko"][0] / 2
    assert report.fertility["en"][1] == report.fertility["en"][0]
    model.save_pretrained(tmp_path)
    new.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert torch.equal(hidden(*again, texts=KOREAN), hidden(model, new, KOREAN))
    assert new.pad_token_id == model.config.pad_token_id == 1


@pytest.mark.parametrize("algorithm", ["wordpiece", "unigram"])
def test_new_tokens_are_whole_syllables_of_the_script(algorithm):
    tokenizer = spelling_tokenizer(algorithm)
    known = set(tokenizer.get_vocab())
    new, _ = extend_vocabulary(
        make_model("Bert", len(tokenizer)), tokenizer, CORPUS, MoreVocabulary(scripts="hangul", tokens=200), seed=0
    )
    added = set(new.get_vocab()) - known
    assert added
    for piece in added:
        text = unicodedata.normalize("NFC", piece.removeprefix("##").removeprefix("▁"))
        assert text and all(unicodedata.name(letter).startswith("HANGUL SYLLABLE") for letter in text)
    (token,) = (unicodedata.normalize("NFC", one) for one in new.tokenize("파이썬"))
    assert token.removeprefix("▁") == "파이썬"


def test_a_byte_level_bpe_gets_more_merges(tmp_path):
    """Its pieces are whole letters of the script, after a space or not, or the first bytes of one."""
    from transformers import AutoTokenizer

    tokenizer = make_tokenizer("byte-level BPE")
    model = make_model("Roberta", len(tokenizer))
    texts = [*ENGLISH, "naïve café, Straße, ŷ, Ω, 语言, 😀 ㎏ ௵"]
    before, ids = hidden(model, tokenizer, texts), [tokenizer(text)["input_ids"] for text in texts]
    known = set(tokenizer.get_vocab())
    new, report = extend_vocabulary(model, tokenizer, CORPUS, MoreVocabulary(scripts="hangul", tokens=64), seed=0)
    assert [new(text)["input_ids"] for text in texts] == ids
    assert torch.equal(hidden(model, new, texts), before)
    assert report.n_tokens[0] < report.n_tokens[1] <= report.n_tokens[0] + 64
    assert report.fertility["ko"][1] < report.fertility["ko"][0] and report.n_as_before["en"] == len(ENGLISH)
    for piece in set(new.get_vocab()) - known:
        held = bytes_of(piece).removeprefix(b" ")
        letters = held.decode(errors="ignore")
        assert n_korean(letters) == len(letters) and (
            letters or (2 <= len(held) < 4 and held[0] in b"\xea\xeb\xec\xed")
        )
    new.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert [again(text)["input_ids"] for text in KOREAN] == [new(text)["input_ids"] for text in KOREAN]


def test_merges_are_those_of_the_library():
    """Trained from single bytes on words of one script, they are what its own trainer learns."""
    words = {"서버": 5, "서버에": 3, "버서에": 2, "에서": 4}
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=12, show_progress=False, limit_alphabet=1000)
    backend.train_from_iterator([word for word, n in words.items() for _ in range(n)], trainer)
    expected = json.loads(backend.to_str())["model"]["merges"]
    letters = {byte: letter for letter, byte in byte_letters().items()}
    pieces = {tuple(letters[byte] for byte in word.encode()): n for word, n in words.items()}
    found = trained_merges(pieces, len(expected), {}, lambda piece: True)
    assert len(expected) > 3
    assert {left + right for left, right in found} == {left + right for left, right in expected}


def test_rare_syllables_do_not_fall_out_of_words():
    """Of 16 characters that 64 tokens have room for 집 is none: what stands around it is not one word."""
    tokenizer = spelling_tokenizer("wordpiece")
    corpus = {
        "ko": ["모집합니다 가나다라마바사아자차카타파하 모합 니다"] + ["가나다라마바사아자차카타파하 모합니다"[:14]] * 5
    }
    new, _ = extend_vocabulary(
        make_model("Bert", len(tokenizer)), tokenizer, corpus, MoreVocabulary(scripts="hangul", tokens=64), seed=0
    )
    added = {unicodedata.normalize("NFC", piece.removeprefix("##")) for piece in new.get_vocab()}
    text = " ".join(corpus["ko"])
    assert all(piece in text for piece in added if n_korean(piece) > 1)


def test_words_beside_other_scripts_are_found():
    """In one word with Latin letters a Korean ending is a piece of its own, in the form that goes on with a word."""
    tokenizer = spelling_tokenizer("wordpiece")
    corpus = {"ko": ["python을 python에서 서을 서에서 서버을 서버에서"] * 8}
    new, _ = extend_vocabulary(
        make_model("Bert", len(tokenizer)), tokenizer, corpus, MoreVocabulary(scripts="hangul", tokens=64), seed=0
    )
    assert unicodedata.normalize("NFC", new.tokenize("python에서")[-1]) == "##에서"


def test_focus_starts_a_new_token_as_what_stands_beside_it():
    tokenizer = spelling_tokenizer("wordpiece")
    model = make_model("Bert", len(tokenizer))
    rows, ids = model.get_input_embeddings().weight.detach().clone(), tokenizer.get_vocab()
    pairs = [("고양이", "cat"), ("깔개", "mat"), ("여우", "fox"), ("빠른", "quick"), ("갈색", "brown")] * 8
    sources = {"ko": [ko for ko, _ in pairs], "en": [en for _, en in pairs]}
    new, report = extend_vocabulary(
        model, tokenizer, sources, MoreVocabulary(scripts="hangul", tokens=100), seed=0, contexts=pairs
    )
    assert report.starts["similar"] > 0
    (token,) = new.tokenize("고양이")
    row = model.get_input_embeddings().weight.detach()[new.get_vocab()[token]]
    assert torch.nn.functional.cosine_similarity(row, rows[ids["cat"]], dim=0) > 0.9


@pytest.mark.parametrize("algorithm", ["wordpiece", "unigram"])
def test_the_same_text_gives_the_same_tokens_and_embeddings(algorithm):
    made, tokenizer = [], spelling_tokenizer(algorithm)
    for _ in range(2):
        model = make_model("Bert", len(tokenizer))
        new, _ = extend_vocabulary(model, tokenizer, CORPUS, MoreVocabulary(scripts="hangul"), seed=3)
        made.append((new.get_vocab(), model.get_input_embeddings().weight))
    assert made[0][0] == made[1][0] and torch.equal(made[0][1], made[1][1])


@pytest.mark.parametrize(
    ("algorithm", "corpus", "said"),
    [
        ("wordpiece", {"en": ENGLISH}, "the text has no letter of hangul"),
        ("wordpiece", {}, "the text has no letter of hangul"),
        ("byte-level BPE", {"en": ENGLISH}, "the text has no letter of hangul"),
        ("letters BPE", CORPUS, "a BPE over letters cannot be extended, only over bytes; take train"),
        ("wordpiece", {"ko": ["가"]}, "gives no token of hangul that the tokenizer lacks"),
    ],
)
def test_what_cannot_be_extended_is_said(algorithm, corpus, said):
    tokenizer = letters_bpe() if algorithm == "letters BPE" else make_tokenizer(algorithm)
    if said.endswith("lacks"):
        corpus = {"ko": ["뷁쀍 뷁쀍 뷁쀍"]}  # in no vocabulary, whichever of its ties the trainer took
        tokenizer, _ = extend_vocabulary(
            make_model("Bert", len(tokenizer)), tokenizer, corpus, MoreVocabulary(scripts="hangul"), seed=0
        )
    with pytest.raises(BadInput, match=said):
        extend_vocabulary(
            make_model("Bert", len(tokenizer)), tokenizer, corpus, MoreVocabulary(scripts="hangul"), seed=0
        )
