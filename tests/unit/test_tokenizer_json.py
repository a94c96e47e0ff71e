"""Tokenizers cut on their own JSON: what is kept, where ids stand, and the traps of each algorithm."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from distill.data.scripts import script_of
from distill.errors import BadInput
from distill.models.backbone import train_tokenizer
from students.vocabulary.surface import byte_letters, surface
from students.vocabulary.tokenizer_json import TokenizerJson

TEXTS = [
    "백엔드 개발자를 채용합니다. Python과 Django 경험이 필요합니다.",
    "간호사 면허 소지자, 중환자실 경력 2년 이상 🙂",
    "Backend engineer with five years of Python, Django and PostgreSQL.",
    "The café sat on the mat, naïve and quick.",
    "機械学習エンジニアを募集しています。",
    "Wir suchen Entwicklerinnen für größere Projekte.",
]
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]


def trained(algorithm):
    """A small tokenizer with XLM-R's specials; a fifth token is only added and stands behind the model."""
    if algorithm == "BPE":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=SPECIALS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    elif algorithm == "Unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIALS, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 10, trainer)
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]),
        ]
    )
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>")
    return TokenizerJson.of_backend(tokenizer)


TRAINED = {name: trained(name) for name in ("Unigram", "WordPiece", "BPE")}


def used_by(tokenizer, texts):
    return {i for one in tokenizer.backend().encode_batch(texts) for i in one.ids}


def cut_to(tokenizer, texts, scripts=("HANGUL", "LATIN")):
    kept = used_by(tokenizer, texts) | tokenizer.named_ids()
    kept |= tokenizer.letter_ids(lambda letter: script_of(letter) in ("", *scripts))
    order = tokenizer.in_order(tokenizer.with_parents(kept), pad_id=1)
    return tokenizer.cut(order), order


@pytest.mark.parametrize("algorithm", TRAINED)
class TestCutting:
    def test_texts_whose_tokens_survive_keep_their_pieces(self, algorithm):
        before = TRAINED[algorithm]
        after, order = cut_to(before, TEXTS[:4])
        assert len(order) < len(before.tokens)
        for text in TEXTS[:4]:
            old = before.backend().encode(text)
            new = after.backend().encode(text)
            assert (new.tokens, [order[i] for i in new.ids]) == (old.tokens, old.ids)

    def test_ids_follow_wherever_they_stand(self, algorithm):
        after, _ = cut_to(TRAINED[algorithm], TEXTS[:1])
        assert list(after.tokens) == list(range(len(after.tokens)))
        assert [after.ids[token] for token in SPECIALS] == [0, 1, 2, 3]
        assert after.ids["<mask>"] == len(after.tokens) - 1
        assert after.state["padding"]["pad_id"] == 1
        assert after.backend().encode("a").ids[0] == after.ids["<s>"]
        assert after.backend().get_vocab() == after.ids  # what the loader numbers is what was written

    def test_nothing_becomes_unreachable(self, algorithm):
        before = TRAINED[algorithm]
        after, _ = cut_to(before, TEXTS[:2])
        assert set(after.unreachable()) <= set(before.unreachable())

    def test_characters_of_kept_scripts_stay_and_others_go(self, algorithm):
        before = TRAINED[algorithm]
        after, _ = cut_to(before, TEXTS[:1])
        hangul = {piece for piece in before.model_pieces.values() if script_of(piece.removeprefix("##")) == "HANGUL"}
        assert hangul <= set(after.ids)
        assert all(script_of(piece) not in ("CJK", "HIRAGANA", "KATAKANA") for piece in after.ids)

    @settings(max_examples=150, deadline=None)
    @given(text=st.text(max_size=60))
    def test_any_text_gives_ids_of_the_vocabulary(self, algorithm, text):
        check_any_text(algorithm, text)

    @pytest.mark.slow
    @settings(max_examples=10_000, deadline=None)
    @given(text=st.text(max_size=120))
    def test_ten_thousand_texts_give_ids_of_the_vocabulary(self, algorithm, text):
        check_any_text(algorithm, text)


CUT = {name: cut_to(tokenizer, TEXTS[:3]) for name, tokenizer in TRAINED.items()}
BACKENDS = {name: (TRAINED[name].backend(), after.backend(), order) for name, (after, order) in CUT.items()}


def check_any_text(algorithm, text):
    old, new, order = BACKENDS[algorithm]
    ids, before = new.encode(text).ids, old.encode(text).ids
    assert all(0 <= i < len(order) for i in ids)
    if set(before) <= set(order) and TRAINED[algorithm].unk_id not in before:
        assert [order[i] for i in ids] == before


def unigram(pieces, unk_id=0):
    state = json.loads(Tokenizer(models.Unigram(pieces, unk_id)).to_str())
    return TokenizerJson(state)


def test_unigram_keeps_the_lowest_score_for_it_is_what_unknown_characters_cost():
    pieces = [("<unk>", 0.0), ("Xb", -12.0), ("c", -12.0), ("d", -12.0), ("bcd", -1.0), ("zzz", -40.0)]
    before = unigram(pieces)
    # X is unknown at −40 − 10: "Xb c d" costs 36, "<unk> bcd" 51
    assert before.backend().encode("Xbcd").tokens == ["Xb", "c", "d"]
    # without "zzz" it is unknown at −12 − 10, and "<unk> bcd" costs 23
    assert before.cut([0, 1, 2, 3, 4]).backend().encode("Xbcd").tokens == ["X", "bcd"]
    assert 5 in before.letter_ids(lambda letter: False)


def test_merges_need_their_parents():
    vocab = {token: i for i, token in enumerate(["a", "b", "c", "ab", "bc", "abc", "abcabc"])}
    merges = [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc"), ("abc", "abc")]
    before = TokenizerJson.of_backend(Tokenizer(models.BPE(vocab, merges)))
    # both merges that make "abc" count: which one is taken depends on the text around
    assert {before.tokens[i] for i in before.with_parents([vocab["abcabc"]])} == set(vocab)
    assert before.with_parents([vocab["ab"]]) == {0, 1, 3}
    naive = before.cut([0, 1, 2, 6])  # "abcabc" without what it is made of
    assert naive.unreachable() == ["abcabc"]
    whole = before.cut(sorted(before.with_parents([vocab["ab"]])))
    assert (whole.state["model"]["merges"], whole.unreachable()) == ([["a", "b"]], [])


def test_padding_keeps_its_id_where_a_lower_one_goes():
    before = unigram([("<unk>", 0.0), ("a", -1.0), ("<pad>", 0.0), ("b", -2.0), ("c", -3.0)])
    assert before.in_order({0, 2, 3, 4}, pad_id=2) == [0, 3, 2, 4]
    assert before.in_order({0, 2}, pad_id=2) == [0, 2]  # there is nothing to stand before it
    after = before.cut([0, 3, 2, 4])
    assert after.ids == {"<unk>": 0, "b": 1, "<pad>": 2, "c": 3}


def test_a_vocabulary_of_words_is_refused():
    with pytest.raises(BadInput, match="WordLevel; Unigram, WordPiece and BPE"):
        TokenizerJson.of_backend(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))


def test_bytes_are_written_as_the_library_writes_them():
    assert sorted(byte_letters()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    written = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("한é\n")[0][0]
    assert bytes(byte_letters()[letter] for letter in written) == "한é\n".encode()[: len(written)]


@pytest.mark.parametrize(
    ("algorithm", "piece", "expected"),
    [
        ("Unigram", "▁the", (True, "the")),
        ("Unigram", "ing", (False, "ing")),
        ("Unigram", "▁", None),
        ("WordPiece", "the", (True, "the")),
        ("WordPiece", "##ing", (False, "ing")),
        ("WordPiece", "##", (True, "##")),
        ("BPE", "Ġthe", (True, "the")),
        ("BPE", "ing", (False, "ing")),
        ("BPE", "íķľ", (False, "한")),
        ("BPE", "íķ", None),
    ],
)
def test_surfaces(algorithm, piece, expected):
    assert surface(TRAINED[algorithm], piece) == expected


@pytest.mark.parametrize(
    ("letter", "script"),
    [
        ("한", "HANGUL"),
        ("ᄒ", "HANGUL"),
        ("é", "LATIN"),
        ("語", "CJK"),
        ("あ", "HIRAGANA"),
        ("ー", "KATAKANA"),
        ("7", ""),
        (".", ""),
        ("🙂", ""),
        ("ab", ""),
    ],
)
def test_scripts(letter, script):
    assert script_of(letter) == script


def test_a_unigram_vocabulary_holds_the_characters_of_its_text():
    text = " ".join(chr(0xAC00 + i) for i in range(500))
    with pytest.raises(BadInput, match=r"a unigram vocabulary of 100 tokens does not hold the 500 characters"):
        train_tokenizer("unigram", [text] * 3, 100, {"unk_token": "<unk>"})


def test_an_unknown_token_that_is_no_token_is_none():
    backend = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")], unk_token="<unk>"))
    named = TokenizerJson.of_backend(backend)
    assert named.unk_id is None and named.cut([0, 1, 2]).read(["ab"]) == [[2]]
