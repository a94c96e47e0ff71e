"""Ids from remembered words are the tokenizer's own, for every text; what reads over spaces has no memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

import distill.data.words
from distill.data.bundled import generate_pairs
from distill.data.tokens import tokenize
from distill.data.words import WordMemory, forget_words
from distill.models.backbone import train_tokenizer
from distill.models.files import LightTokenizer, static_tokenizer
from distill.runtime.own_tokenizer import own_tokenizer, special_token_ids

TEXTS = [text for pair in generate_pairs(30, seed=3) for text in (pair.resume, pair.jd)]
SPECIALS = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
AROUND = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
)
TRAINED = {kind: train_tokenizer(kind, TEXTS, 400, SPECIALS) for kind in ("wordpiece", "unigram")}


def variant(kind, pre_tokenizer=None, normalizer=None, added=()):
    """A copy of a trained tokenizer with another way of cutting words."""
    backend = Tokenizer.from_str(TRAINED[kind].to_str())
    backend.post_processor = AROUND
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.add_special_tokens(list(added))
    return LightTokenizer(backend, ("input_ids", "token_type_ids", "attention_mask"), 0, "right", 10**30)


xlm_r = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
many_spaces = normalizers.Replace(Regex(" {2,}"), "▁")
REMEMBERED = {
    "wordpiece": variant("wordpiece"),
    "wordpiece, accents stripped": variant("wordpiece", normalizer=normalizers.BertNormalizer()),
    "unigram": variant("unigram"),
    "unigram like XLM-R": variant("unigram", xlm_r, added=[AddedToken("<mask>", lstrip=True)]),
    "unigram like T5": variant(
        "unigram", None, normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(), many_spaces])
    ),
    "unigram without a normalizer": variant("unigram", None, normalizers.Sequence([])),
}
TRAPS = st.sampled_from(
    [
        " ",
        " ",
        " ",
        "  ",
        "\n",
        "\t",
        "▁",
        "¨",
        "\u3000",
        "\xa0",
        "\u200b",
        "\u0301",
        "\x1c",
        "é",
        "경력",
        "k8s",
        "Σ",
        "[MASK]",
        "[SEP]",
        "<mask>",
        "ﬁ",
        "ㅎ",
        "한",
        "\ud800",
        "日本語",
        "🙂",
        "x" * 60,
        "-",
        "a",
    ]
)
HARD_TEXTS = st.lists(st.one_of(TRAPS, st.text(max_size=4)), max_size=12).map("".join)


def same(tokenizer, texts, memory=None, max_length=64):
    memory = memory or WordMemory.of(tokenizer)
    wanted = tokenize(tokenizer, texts, max_length=max_length)
    for _ in range(2):  # learned, and remembered
        found = memory.tokenize(texts, max_length=max_length)
        for name in ("ids", "offsets", "type_ids", "pad_id"):
            one, other = getattr(wanted, name), getattr(found, name)
            assert np.array_equal(one, other), (texts, name)
            assert getattr(one, "dtype", None) == getattr(other, "dtype", None)


@pytest.mark.parametrize("name", REMEMBERED)
class TestIdsAreTheTokenizersOwn:
    def test_of_documents_cut_to_length(self, name):
        same(REMEMBERED[name], TEXTS)
        same(REMEMBERED[name], TEXTS, max_length=3)

    def test_of_any_text(self, name):
        memory = WordMemory.of(REMEMBERED[name])

        @settings(max_examples=100, deadline=None)
        @given(st.lists(HARD_TEXTS, min_size=1, max_size=4))
        def check(texts):
            same(REMEMBERED[name], texts, memory)

        check()

    def test_of_nothing(self, name):
        same(REMEMBERED[name], ["", " ", "\n"])
        assert len(WordMemory.of(REMEMBERED[name]).tokenize([], max_length=8)) == 0


NORMALIZERS = [
    None,
    normalizers.BertNormalizer(),
    normalizers.BertNormalizer(clean_text=False, strip_accents=False, lowercase=False),
    normalizers.NFC(),
    normalizers.NFKC(),
    normalizers.NFKD(),
    normalizers.Lowercase(),
    normalizers.StripAccents(),
    normalizers.Nmt(),
    normalizers.Strip(),
    normalizers.Strip(left=False),
    many_spaces,
    normalizers.Prepend("▁"),
    normalizers.Replace(" ", "▁"),
    normalizers.Replace(Regex(" {2,}"), " "),
    normalizers.Replace(Regex(r"\s+"), " "),
    normalizers.Replace("a ", "b"),
]
PRE_TOKENIZERS = [
    pre_tokenizers.BertPreTokenizer(),
    pre_tokenizers.Whitespace(),
    pre_tokenizers.WhitespaceSplit(),
    pre_tokenizers.Punctuation(),
    pre_tokenizers.Digits(True),
    pre_tokenizers.Digits(False),
    pre_tokenizers.Metaspace(),
    pre_tokenizers.Metaspace(prepend_scheme="never"),
    pre_tokenizers.Metaspace(prepend_scheme="first"),
    pre_tokenizers.Metaspace(replacement="_"),
    pre_tokenizers.Metaspace(split=False),
    pre_tokenizers.ByteLevel(),
    pre_tokenizers.Split(Regex(r"\w+ ?"), "isolated"),
    pre_tokenizers.Split(" ", "merged_with_next"),
    pre_tokenizers.CharDelimiterSplit("-"),
]
ADDED = [
    AddedToken("<mask>", lstrip=True),
    AddedToken("<x>", rstrip=True),
    AddedToken("k8s", single_word=True),
    AddedToken("Python", normalized=True),
    AddedToken("경력", lstrip=True, rstrip=True, special=True),
    AddedToken("é"),
]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(TRAINED)),
    st.lists(st.sampled_from(PRE_TOKENIZERS), min_size=1, max_size=2),
    st.lists(st.sampled_from(NORMALIZERS[1:]), max_size=3),
    st.lists(st.sampled_from(ADDED), max_size=2),
    st.lists(HARD_TEXTS, min_size=1, max_size=4),
)
def test_any_pipeline_has_the_tokenizers_own_ids_or_no_memory(kind, cuts, changes, added, texts):
    cut = cuts[0] if len(cuts) == 1 else pre_tokenizers.Sequence(cuts)
    tokenizer = variant(kind, cut, normalizers.Sequence(changes), added)
    memory = WordMemory.of(tokenizer)
    if memory is not None:
        same(tokenizer, [*texts, "a <mask> k8s <x> b 경력  é", "Python 3 , (주) 5년", " \u0301a b\u0d4e c"], memory)


def test_what_is_known_of_real_models_has_a_memory():
    """BERT, XLM-R as converted in its two ways, T5 and bge-m3, a static model."""
    nfkc = normalizers.NFKC()  # in the place of their charsmap
    for cut, change in (
        (pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer()),
        (xlm_r, nfkc),
        (pre_tokenizers.Metaspace(), normalizers.Sequence([nfkc, normalizers.Replace(Regex(" {2,}"), " ")])),
        (pre_tokenizers.Metaspace(), normalizers.Sequence([nfkc, normalizers.Strip(left=False), many_spaces])),
        (pre_tokenizers.Whitespace(), normalizers.Lowercase()),
        (pre_tokenizers.WhitespaceSplit(), nfkc),
    ):
        tokenizer = variant("unigram", cut, change, [AddedToken("<mask>", lstrip=True, special=True)])
        memory = WordMemory.of(tokenizer)
        assert memory is not None
        same(tokenizer, [*TEXTS, "a <mask> b", "a  b"], memory)
        assert sum(ids is not None for ids in memory._ids.values()) > 500


@pytest.mark.parametrize("kind", sorted(TRAINED))
def test_special_tokens_as_text_are_ordinary_words(kind):
    tokenizer = variant(kind)
    plain = own_tokenizer(tokenizer, special_tokens_as_text=True)
    special = special_token_ids(tokenizer)
    assert len(special) == 4 and own_tokenizer(tokenizer, special_tokens_as_text=False) is tokenizer
    texts = ["a [SEP] b", "[CLS]", "x[MASK]y", "[UNK] [SEP][SEP]", "a"]
    for row, text in enumerate(texts):
        ids = tokenize(plain, [text], max_length=64).ids.tolist()
        assert (ids[0], ids[-1]) == (0, 1) and not set(ids[1:-1]) & special - {2}, (
            text
        )  # 2: of what no piece stands for
        assert row == 4 or set(tokenize(tokenizer, [text], max_length=64).ids.tolist()[1:-1]) & special
    for one in (
        plain,
        own_tokenizer(
            LightTokenizer(plain.backend_tokenizer, ("input_ids",), 0, "right", 9), special_tokens_as_text=True
        ),
    ):
        assert (
            tokenize(one, TEXTS, max_length=64).ids.tolist() == tokenize(tokenizer, TEXTS, max_length=64).ids.tolist()
        )
    same(plain, [*texts, *TEXTS])


def test_a_whole_word_that_is_a_special_token_is_text_as_well():
    """No algorithm finds it among its pieces: WordPiece and WordLevel without a cut at '[', BPE with such a merge, Unigram."""
    pieces = {
        "[PAD]": 0,
        "[UNK]": 1,
        "[SEP]": 2,
        "a": 3,
        "[": 4,
        "S": 5,
        "[S": 6,
        "E": 7,
        "P": 8,
        "]": 9,
        "EP": 10,
        "EP]": 11,
    }
    merges = [("[", "S"), ("E", "P"), ("EP", "]"), ("[S", "EP]")]
    for model in (
        models.WordPiece(pieces, unk_token="[UNK]"),
        models.WordLevel(pieces, "[UNK]"),
        models.BPE(pieces, merges, unk_token="[UNK]"),
        models.Unigram([(piece, -float(n)) for piece, n in pieces.items()], 1),
    ):
        backend = Tokenizer(model)
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        backend.add_special_tokens(["[PAD]", "[UNK]", "[SEP]"])
        tokenizer = LightTokenizer(backend, ("input_ids",), 0, "right", 64)
        plain = own_tokenizer(tokenizer, special_tokens_as_text=True)
        assert tokenize(tokenizer, ["a [SEP]"], max_length=9).ids.tolist() == [3, 2]
        ids = tokenize(plain, ["a [SEP]", "[PAD] a"], max_length=9).ids.tolist()
        assert 2 not in ids and 0 not in ids and ids.count(3) == 2


@pytest.mark.parametrize("kind", sorted(TRAINED))
def test_other_added_tokens_keep_their_ids_behind_special_ones(kind):
    """As in Qwen's tokenizer: special tokens and others follow one another behind the model's pieces."""
    tokenizer = variant(kind, added=["<|end|>"])
    tokenizer.backend_tokenizer.add_tokens(["<tool>"])
    plain = own_tokenizer(tokenizer, special_tokens_as_text=True)
    end, tool = map(tokenizer.backend_tokenizer.token_to_id, ("<|end|>", "<tool>"))
    ids = tokenize(plain, ["a <tool> b <|end|>"], max_length=64).ids.tolist()
    assert tool in ids and end not in ids


def test_a_static_model_has_no_special_tokens():
    tokenizer = static_tokenizer(Tokenizer.from_str(TRAINED["wordpiece"].to_str()))
    same(tokenizer, TEXTS)
    assert WordMemory.of(tokenizer).tokenize([""], max_length=8).lengths.tolist() == [0]


def test_a_known_word_is_not_asked_again(monkeypatch):
    memory = WordMemory.of(REMEMBERED["wordpiece"])
    asked = []
    monkeypatch.setattr(
        distill.data.words,
        "tokenize",
        lambda tokenizer, texts, **options: asked.extend(texts) or tokenize(tokenizer, texts, **options),
    )
    memory.tokenize(["Python 경력\n5년", "경력 Python"], max_length=64)
    assert sorted(asked) == ["5년", "Python", "경력"]
    memory.tokenize(["5년 Python"], max_length=64)
    assert len(asked) == 3
    forget_words()
    memory.tokenize(["Python"], max_length=64)
    assert len(asked) == 4


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(distill.data.words, "_MOST_WORDS", 50)
    monkeypatch.setattr(distill.data.words, "_CHUNK", 4)
    memory = WordMemory.of(REMEMBERED["unigram"])
    same(REMEMBERED["unigram"], TEXTS, memory)
    assert len(memory._ids) < 50 + 4 * 100 < sum(len(text.split()) for text in TEXTS)
    memory.tokenize(["one"], max_length=8)
    memory.tokenize(["two"], max_length=8)
    assert len(memory._ids) <= 2


@pytest.mark.parametrize(
    "tokenizer",
    [
        variant("wordpiece", pre_tokenizers.ByteLevel()),
        variant("unigram", pre_tokenizers.Metaspace(split=False)),
        variant("unigram", pre_tokenizers.Metaspace(prepend_scheme="first")),
        variant("wordpiece", None, normalizers.Replace("New York", "NY")),
        variant("wordpiece", added=["New York"]),
        LightTokenizer(REMEMBERED["wordpiece"].backend_tokenizer, ("input_ids",), 0, "left", 512),
        object(),
    ],
    ids=[
        "byte-level",
        "over spaces",
        "only the first word marked",
        "rewritten",
        "a token of two words",
        "cut on the left",
        "slow",
    ],
)
def test_what_may_read_over_a_space_has_no_memory(tokenizer):
    assert WordMemory.of(tokenizer) is None
