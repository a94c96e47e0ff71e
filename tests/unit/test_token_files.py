"""Tokens of large sets on disk: those of `tokenize`, once for all that read the same, and never another's."""

import shutil

import numpy as np
import pytest

from distill.data import token_files
from distill.data.token_files import tokenize_once
from distill.data.tokens import tokenize

TEXTS = ["python engineer in Seoul", "cook", "파이썬 개발자 " * 20, "", "a \ud800 b"] * 3
DOCUMENTS = ["wanted: " + text for text in reversed(TEXTS)]


@pytest.fixture
def tokenizer(bi_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(bi_folder)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(token_files, "LEAST_SEQUENCES", 3)


def same(ours, theirs):
    return all(np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in ("ids", "offsets", "type_ids"))


@pytest.mark.parametrize("given", [(TEXTS,), (TEXTS, DOCUMENTS)])
def test_they_are_those_of_memory_and_made_once(given, tokenizer, tmp_path, monkeypatch):
    done = []
    made = tokenize_once(tmp_path, tokenizer, *given, max_length=16, on_progress=done.append)
    assert same(made, tokenize(tokenizer, *given, max_length=16)) and sum(done) == len(TEXTS)
    monkeypatch.setattr(token_files, "token_parts", lambda *_, **__: pytest.fail("it tokenises again"))
    again = tokenize_once(tmp_path, tokenizer, *given, max_length=16, on_progress=done.append)
    assert same(again, made) and sum(done) == 2 * len(TEXTS)
    assert not again.ids.flags.owndata
    assert again.padded(np.array([0, 2]), 16)["input_ids"].shape == (2, 16)


def test_what_decides_them_decides_the_folder(tokenizer, tmp_path):
    for number, (texts, max_length) in enumerate([(TEXTS, 16), (TEXTS[::-1], 16), (TEXTS, 8)], start=1):
        found = tokenize_once(tmp_path, tokenizer, texts, max_length=max_length)
        assert len(list(tmp_path.iterdir())) == number
        assert same(found, tokenize(tokenizer, texts, max_length=max_length))
    tokenizer.add_tokens(["Seoul"])
    assert same(tokenize_once(tmp_path, tokenizer, TEXTS, max_length=16), tokenize(tokenizer, TEXTS, max_length=16))
    assert len(list(tmp_path.iterdir())) == 4


def test_texts_are_told_apart_where_their_letters_are_the_same(tokenizer, tmp_path):
    for texts in (["ab", "c", "d"], ["a", "bc", "d"]):
        assert same(tokenize_once(tmp_path, tokenizer, texts, max_length=8), tokenize(tokenizer, texts, max_length=8))


@pytest.mark.parametrize("damage", ["cut off", "changed", "missing", "no card"])
def test_what_is_not_whole_is_made_again(damage, tokenizer, tmp_path):
    wanted = tokenize_once(tmp_path, tokenizer, TEXTS, max_length=16)
    [folder] = tmp_path.iterdir()
    path = folder / ("tokens.json" if damage == "no card" else "ids.bin")
    content = path.read_bytes()
    path.unlink()
    if damage in ("cut off", "changed"):
        path.write_bytes(content[:-4] if damage == "cut off" else bytes([content[0] ^ 1]) + content[1:])
    assert same(tokenize_once(tmp_path, tokenizer, TEXTS, max_length=16), wanted)
    assert len(list(tmp_path.iterdir())) == 1


def test_small_sets_and_other_tokenizers_stay_in_memory(tokenizer, tmp_path, monkeypatch):
    class Slow:
        """A tokenizer without a Rust one behind it."""

        model_input_names = ("input_ids",)
        pad_token_id = 0

        def __call__(self, texts, pairs, **_):
            return {"input_ids": [[1, 2] for _ in texts]}

    assert len(tokenize_once(tmp_path, Slow(), TEXTS, max_length=16)) == len(TEXTS)
    monkeypatch.setattr(token_files, "LEAST_SEQUENCES", 50)
    assert same(tokenize_once(tmp_path, tokenizer, TEXTS, max_length=16), tokenize(tokenizer, TEXTS, max_length=16))
    assert not list(tmp_path.iterdir())


def test_a_removed_folder_does_not_disturb_who_reads_it(tokenizer, tmp_path):
    made = tokenize_once(tmp_path, tokenizer, TEXTS, max_length=16)
    shutil.rmtree(tmp_path)
    assert same(made, tokenize(tokenizer, TEXTS, max_length=16))
