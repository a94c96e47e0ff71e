"""What comes through the runtime's door: taken in every common form, or refused in one line that names the row."""

import numpy as np
import pandas
import pytest

from distill.errors import BadInput
from distill.runtime.arguments import check_count, check_texts, check_vectors, is_texts
from distill.runtime.vectors import Index


@pytest.mark.parametrize(
    "texts",
    [
        ["a", "b"],
        ("a", "b"),
        iter(["a", "b"]),
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        np.array(["a", "b"], dtype=np.dtypes.StringDType()),
        [np.str_("a"), "b"],
        pandas.Series(["a", "b"], index=[7, 3]),
        pandas.Series(["a", "b"], dtype="string"),
        {"a": 1, "b": 2}.keys(),
    ],
)
def test_texts_in_every_form(texts):
    if isinstance(texts, type({}.keys())):  # a set by its interface: it has no order to give back
        with pytest.raises(BadInput, match="texts is dict_keys; a list"):
            check_texts("texts", texts)
        return
    read = check_texts("texts", texts)
    assert read == ["a", "b"] and {type(text) for text in read} == {str}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a", "texts is one text"),
        (b"a", "texts is bytes; a list"),
        (None, "texts is NoneType; a list"),
        (3, "texts is int"),
        ({"a": 1}, "texts is dict"),
        ({"a"}, "texts is set"),
        (np.array([["a"]]), r"texts is ndarray of shape \(1, 1\); a list"),
        (pandas.DataFrame({"text": ["a"]}), r"texts is DataFrame of shape \(1, 1\); a list"),
        (np.array("a"), "of shape"),
        (["a", None], "texts, row 1: a text is expected, got None"),
        (["a", float("nan")], "row 1: a text is expected, got nan"),
        (pandas.Series(["a", None]), "row 1: a text"),
        (["a", b"b"], "row 1: a text is expected, got b'b'"),
        (["a", ["b\n" * 999]], "row 1: a text is expected"),
    ],
)
def test_what_is_no_list_of_texts_is_one_line(texts, message):
    with pytest.raises(BadInput, match=message) as error:
        check_texts("texts", texts)
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


@pytest.mark.parametrize("value", [0, -1, True, False, 1.0, 2.5, "3", np.float32(2), np.True_, float("nan"), [1]])
def test_counts_are_whole_numbers(value):
    with pytest.raises(BadInput, match="top_k .*; at least 1 is expected, a whole number, or None for all"):
        check_count("top_k", value, none="all")
    assert check_count("top_k", np.int64(3)) == 3 and check_count("top_k", None, none="all") is None
    with pytest.raises(BadInput, match="top_k None; at least 1"):
        check_count("top_k", None)


def test_vectors_of_every_kind_and_one_line_for_others():
    for dtype in (np.float16, np.float32, np.float64):
        assert check_vectors("v", np.ones((2, 4), dtype), 4).dtype == np.float32
    assert check_vectors("v", [[1.0, 2.0]], 2).tolist() == [[1, 2]]
    assert check_vectors("v", np.ones((2, 4), np.int8), 4).dtype == np.int8
    wrong = np.ones((3, 4), np.float32)
    wrong[2, 1] = np.nan
    for vectors, message in (
        (wrong, "v, row 2: NaN or infinite"),
        (np.full((2, 4), 1e300), "v, row 0: NaN or infinite"),
        (np.ones((2, 3)), r"v of shape \(2, 3\); \(n, 4\)"),
        (np.ones(4), r"v of shape \(4,\)"),
        (np.ones((2, 4), np.uint8), "v of uint8.*binary codes are searched with an Index"),
        (np.ones((2, 4), bool), "v of bool"),
        (np.ones((2, 4), np.int64), "v of int64"),
        ([[1.0], [1.0, 2.0]], "v: .*a matrix"),
        (np.ones((2, 4), complex), "v of complex"),
    ):
        with pytest.raises(BadInput, match=message):
            check_vectors("v", vectors, 4)
    assert not is_texts(np.zeros((0, 4))) and is_texts([]) and is_texts(np.array([], dtype=object))


def test_an_index_refuses_what_it_cannot_search():
    vectors, binary = np.eye(16, dtype=np.float32), np.zeros((16, 2), np.uint8)
    for parts, message in (
        ({"vectors": vectors[0]}, r"vectors of shape \(16,\)"),
        ({"vectors": binary}, "vectors of shape .*uint8"),
        ({"binary": vectors}, "binary of shape .*float32"),
        ({"vectors": vectors, "binary": binary[:, :1]}, "2 are expected"),
        ({"vectors": vectors, "n_candidates": 0}, "n_candidates 0"),
        ({"vectors": vectors.tolist()}, "vectors of shape"),
    ):
        with pytest.raises(BadInput, match=message):
            Index(**parts)
    index = Index(vectors, np.packbits(vectors > 0, axis=1))
    for queries, message in (
        (vectors[:, :8], r"queries of shape \(16, 8\); \(n_queries, 16\)"),
        (vectors[0], r"queries of shape \(16,\)"),
        (np.full((1, 16), np.nan), "queries, row 0: NaN"),
    ):
        with pytest.raises(BadInput, match=message):
            index.search(queries, top_k=1)
    for top_k in (0, -2, True, 1.5, None):
        with pytest.raises(BadInput, match="top_k"):
            index.search(vectors, top_k=top_k)
    with pytest.raises(BadInput, match=r"queries of shape \(1, 40\); \(n_queries, 16\)"):
        Index(binary=binary).search(np.ones((1, 40)), top_k=1)
    assert index.search(vectors.astype(np.float64), top_k=1)[0][:, 0].tolist() == list(range(16))
    spoilt = vectors.copy()
    spoilt[3] = np.inf
    for held in (Index(spoilt), Index(spoilt, binary)):
        with pytest.raises(BadInput, match="vectors, row 3: NaN or infinite"):
            held.search(vectors[:1], top_k=2)
