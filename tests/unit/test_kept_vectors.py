"""Embeddings that are kept over calls are those that would be computed, and are computed once."""

import numpy as np

from distill.runtime.kept_vectors import _KEY_BYTES, KeptVectors


class Encoder:
    """Gives the length of a text and 1, and notes what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked += texts
        return np.array([[len(text), 1] for text in texts], dtype=np.float32).reshape(-1, 2)


def test_a_text_that_comes_again_is_not_computed_again():
    kept, encode = KeptVectors(2), Encoder()
    assert kept.of(["a", "bbb"], 0, encode).tolist() == [[1, 1], [3, 1]]
    assert kept.of(["cc", "bbb", "dddd", "a"], 0, encode).tolist() == [[2, 1], [3, 1], [4, 1], [1, 1]]
    assert kept.of(["a", "cc"], 0, encode).tolist() == [[1, 1], [2, 1]] and kept.of([], 0, encode).shape == (0, 2)
    assert encode.asked == ["a", "bbb", "cc", "dddd"]


def test_what_is_returned_may_be_changed():
    kept, encode = KeptVectors(2), Encoder()
    for _ in range(3):
        vectors = kept.of(["bbb"], 0, encode)
        assert vectors.tolist() == [[3, 1]]
        vectors /= 2


def test_the_first_stay_where_no_more_fit():
    kept, encode = KeptVectors(2, most_bytes=2 * (8 + _KEY_BYTES)), Encoder()
    for _ in range(2):
        assert kept.of(["a", "bb", "ccc"], 0, encode)[:, 0].tolist() == [1, 2, 3]
    assert encode.asked == ["a", "bb", "ccc", "ccc"]


def test_a_text_whose_prompt_is_left_out_is_another():
    kept, encode = KeptVectors(2), Encoder()
    kept.of(["a"], 0, encode)
    kept.of(["a"], 2, encode)
    assert encode.asked == ["a", "a"]
