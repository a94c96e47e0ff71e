"""A teacher of kind file: what is found in each format, and every way in which a file is no teacher."""

import json
import unicodedata

import numpy as np
import pytest

from distill.errors import BadInput
from distill.recipe.schema import FileTeacher
from distill.scorers.file_answers import read_answers

TEXTS = ["a cat", "한국어 문장", 'with "quotes", and commas', "7"]
VECTORS = [[1.0, 2.0, 3.0], [0.5, -1.0, 0.25], [3.0, 0.0, 1e-3], [-1.0, -1.0, 2.0]]
PAIRS = [("q one", "d one"), ("q one", "d two"), ("q two", "d one")]
SCORES = [0.9, 0.25, 0.5]


def teacher(path, **fields):
    return FileTeacher.model_validate({"kind": "file", "path": path, "gives": "embeddings", **fields})


def write(folder, suffix, columns):
    """A table of columns in one of the formats."""
    path = folder / f"answers{suffix}"
    names, rows = list(columns), list(zip(*columns.values(), strict=True))
    if suffix == ".npz":
        np.savez(path, **{name: np.array(values) for name, values in columns.items()})
    elif suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    else:
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            if suffix == ".csv":
                csv.writer(file).writerows([names, *[[told(value) for value in row] for row in rows]])
            else:
                file.write("".join("\t".join(map(told, row)) + "\n" for row in [names, *rows]))
    return str(path)


def told(value):
    return json.dumps(value) if isinstance(value, list) else str(value)


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".jsonl", ".csv", ".tsv"])
def test_embeddings_of_each_format(tmp_path, suffix):
    path = write(tmp_path, suffix, {"text": TEXTS, "vector": VECTORS})
    found = read_answers("t", teacher(path), list(reversed(TEXTS)))
    assert found.missing == [] and found.n_folded == 0
    np.testing.assert_allclose(found.of(TEXTS), VECTORS, rtol=1e-6)
    assert found.values.dtype == np.float32


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".jsonl", ".csv", ".tsv"])
def test_scores_of_each_format_are_kept_as_logits(tmp_path, suffix):
    queries, documents = zip(*PAIRS, strict=True)
    columns = {"query": list(queries), "document": list(documents), "score": SCORES}
    found = read_answers("t", teacher(write(tmp_path, suffix, columns), gives="scores"), PAIRS)
    np.testing.assert_allclose(found.of(PAIRS), [np.log(9), np.log(1 / 3), 0.0], atol=1e-6)


def test_a_vector_in_a_cell_is_json_or_numbers_between_marks(tmp_path):
    path = tmp_path / "v.tsv"
    path.write_text("text\tvector\na\t[1, 2.5]\nb\t1 2.5\nc\t1,2.5\nd\t1; 2.5\n")
    assert read_answers("t", teacher(str(path)), list("abcd")).of(list("abcd")).tolist() == [[1.0, 2.5]] * 4


def test_several_files_are_one(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    paths = [
        write(tmp_path / "one", ".npz", {"text": TEXTS[:2], "vector": VECTORS[:2]}),
        write(tmp_path / "two", ".csv", {"text": TEXTS[2:], "vector": VECTORS[2:]}),
    ]
    np.testing.assert_allclose(read_answers("t", teacher(paths), TEXTS).of(TEXTS), VECTORS, rtol=1e-6)


def test_a_text_is_found_as_written_and_else_folded(tmp_path, caplog):
    nfd = unicodedata.normalize("NFD", "한국어  문장")
    columns = {"text": [nfd, "a cat", " a  cat"], "vector": [VECTORS[0], VECTORS[1], VECTORS[1]]}
    caplog.set_level("INFO")
    found = read_answers("t", teacher(write(tmp_path, ".npz", columns)), ["한국어 문장", "a cat", "a\u00a0cat"])
    assert found.n_folded == 2 and "2 texts found only after white space and Unicode were normalized" in caplog.text
    np.testing.assert_allclose(found.of(["한국어 문장", "a cat"]), [VECTORS[0], VECTORS[1]], rtol=1e-6)


def test_objects_with_other_keys_or_a_key_twice(tmp_path):
    path = tmp_path / "answers.jsonl"
    unscored = [{"query": f"q {row}", "document": "d", "": 0.9} for row in range(150)]
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in [*unscored, {"query": "q", "document": "d", "score": 0.5}])
    )
    fields = {"gives": "scores", "scale": "cosine"}
    assert read_answers("t", teacher(str(path), **fields), [("q", "d")]).values.tolist() == [0.5]
    with pytest.raises(BadInput, match="1 of 1 scores are NaN, infinite or missing"):
        read_answers("t", teacher(str(path), **fields), [("q 1", "d")])
    path.write_text('{"query": "q", "document": "d", "score": 0.9, "score": 0.1}\n')
    with pytest.raises(BadInput, match="row 1: 'score' stands twice in one object"):
        read_answers("t", teacher(str(path), **fields), [("q", "d")])
    path.write_text('{"text": "a cat", "vec": [1.0, 2.0]}\n')
    with pytest.raises(BadInput, match="has no column 'vector'; it has text, vec"):
        read_answers("t", teacher(str(path)), ["a cat"])


def test_what_is_missing_is_named(tmp_path):
    path = write(tmp_path, ".npz", {"text": TEXTS, "vector": VECTORS})
    assert read_answers("t", teacher(path), ["a cat", "another", "third"]).missing == ["another", "third"]


def test_what_is_not_asked_for_is_not_checked(tmp_path):
    vectors = [[1.0, 2.0], [float("nan"), 1.0], [3.0, 1.0]]
    path = write(tmp_path, ".npz", {"text": ["a", "b", "c"], "vector": vectors})
    assert read_answers("t", teacher(path), ["a", "c"]).values.tolist() == [[1.0, 2.0], [3.0, 1.0]]


def refused(tmp_path, columns, asked, suffix=".jsonl", **fields):
    with pytest.raises(BadInput) as problem:
        read_answers("mine", teacher(write(tmp_path, suffix, columns), **fields), asked, whole=True)
    message = str(problem.value)
    assert "\n" not in message
    return message


def test_answers_that_differ_are_refused_and_equal_ones_are_one(tmp_path):
    columns = {"text": ["a", "a", "b"], "vector": [[1.0, 2.0], [1.0, 2.5], [0.0, 1.0]]}
    assert "1 item of 2 stand there several times with different answers, as 'a'" in refused(
        tmp_path, columns, ["a", "b"]
    )
    columns["vector"][1] = [1.0, 2.0005]  # a server that rounds
    assert read_answers("t", teacher(write(tmp_path, ".npz", columns)), ["a", "b"]).missing == []


def test_folded_answers_that_differ_are_refused_unless_one_is_as_written(tmp_path):
    columns = {"text": ["a  b", "a   b"], "vector": [[1.0, 2.0], [2.0, 1.0]]}
    assert "different answers" in refused(tmp_path, columns, ["a b"])
    columns = {"text": ["a  b", "a   b", "a b"], "vector": [[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]]}
    assert read_answers("t", teacher(write(tmp_path, ".npz", columns)), ["a b"]).values.tolist() == [[3.0, 3.0]]


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        ([[1.0, float("nan")], [2.0, 1.0]], "1 of 2 vectors hold NaN or infinity, as that of 'a'"),
        ([[1.0, 1e300], [2.0, 1.0]], "1 of 2 vectors hold NaN or infinity"),
        ([[1.0, 2.0], [0.0, 0.0]], "1 of 2 vectors are all zeros, which have no direction, as that of 'b'"),
        ([[1.0, 2.0], [1.0, 2.0]], "all 2 answers are the same vector"),
        ([[1.0, 2.0], [1.0, 2.0, 3.0]], "no common width: 2 numbers in row 1, 3 in row 2"),
        ([[1.0, 2.0], []], "row 2: [] is no vector"),
        ([[1.0, 2.0], "far"], "row 2: 'far' is no vector"),
        ([[1.0, 2.0], None], "row 2"),
        ([[1.0, 2.0], [[1.0, 2.0]]], "is no vector"),
        ([[1.0, 2.0], [True, 2.0]], "row 2: [True, '2.0'] is no vector"),
        ([[1.0, 2.0], "[1.0, false]"], "row 2: '[1.0, false]' is no vector"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_vectors_that_are_none(tmp_path, vectors, says):
    assert says in refused(tmp_path, {"text": ["a", "b"], "vector": vectors}, ["a", "b"])


@pytest.mark.parametrize(
    ("scores", "fields", "says"),
    [
        ([0.5, 2.5], {}, "1 of 2 scores lie outside [0, 1], as 2.5; set score_range, or scale: logit"),
        ([0.5, 5.5], {"score_range": [0, 5]}, "outside [0, 5]"),
        ([0.5, -3.0], {"scale": "cosine"}, "outside [-1, 1], as -3; set scale: logit (log-odds)"),
        ([0.5, float("nan")], {}, "1 of 2 scores are NaN, infinite or missing"),
        ([0.5, None], {}, "1 of 2 scores are NaN, infinite or missing"),
        ([0.5, 0.5], {}, "all 2 answers are the same score, 0.5"),
        ([0.5, "high"], {}, "row 2: the score 'high' is not a number"),
        ([0.5, True], {}, "row 2: the score True is not a number"),
    ],
)
def test_scores_that_are_none(tmp_path, scores, fields, says):
    columns = {"query": ["a", "b"], "document": ["c", "d"], "score": scores}
    assert says in refused(tmp_path, columns, [("a", "c"), ("b", "d")], gives="scores", **fields)


def test_scales_of_scores(tmp_path):
    columns = {"query": ["a", "b", "c"], "document": ["d"] * 3, "score": [0.0, 2.5, 5.0]}
    items = [("a", "d"), ("b", "d"), ("c", "d")]
    path = write(tmp_path, ".npz", columns)
    unit = read_answers("t", teacher(path, gives="scores", score_range=[0, 5]), items).values
    np.testing.assert_allclose(unit, [-13.8155, 0.0, 13.8155], atol=1e-3)
    logits = read_answers("t", teacher(path, gives="scores", scale="logit"), items).values
    assert logits.tolist() == [0.0, 2.5, 5.0]
    assert teacher(path, gives="scores", scale="cosine").model_kind == "bi_encoder"
    assert teacher(path, gives="scores").model_kind == "cross_encoder" and teacher(path).model_kind == "bi_encoder"


def test_files_that_cannot_be_read(tmp_path):
    def says(path, **fields):
        with pytest.raises(BadInput) as problem:
            read_answers("t", teacher(str(path), **fields), ["a"])
        assert "\n" not in str(problem.value)
        return str(problem.value)

    assert "no such file" in says(tmp_path / "none.npz") and "no such file" in says(tmp_path / "none.parquet")
    (tmp_path / "x.pkl").write_bytes(b"x")
    assert ".parquet, .npz, .csv" in says(tmp_path / "x.pkl")
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    assert "cannot be read as NPZ" in says(tmp_path / "bad.npz")
    np.savez(tmp_path / "objects.npz", text=np.array(["a"], dtype=object), vector=np.ones((1, 2)))
    assert "np.array(texts, dtype=str)" in says(tmp_path / "objects.npz")
    np.savez(tmp_path / "short.npz", text=np.array(["a", "b"]), vector=np.ones((1, 2)))
    assert "not of one length (text 2, vector 1)" in says(tmp_path / "short.npz")
    np.savez(tmp_path / "names.npz", texts=np.array(["a", "b"]), vector=np.ones((2, 2)))
    assert "has no column 'text'; it has texts, vector" in says(tmp_path / "names.npz")
    (tmp_path / "empty.csv").write_text("text,vector\n")
    assert "has a header and no rows" in says(tmp_path / "empty.csv")
    (tmp_path / "folder.npz").mkdir()
    assert "cannot be read" in says(tmp_path / "folder.npz")


def test_a_scale_that_changes_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="scale and score_range are for scores"):
        teacher("x.npz", scale="logit")
    with pytest.raises(ValueError, match="score_range is for scale unit"):
        teacher("x.npz", gives="scores", scale="logit", score_range=[0, 5])
    with pytest.raises(ValueError, match="comes first"):
        teacher("x.npz", gives="scores", score_range=[1, 0])
