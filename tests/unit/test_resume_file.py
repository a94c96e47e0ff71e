import csv
import errno
import gzip
import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from distill.data import resume_file
from distill.data.resume_file import Preparation, prepare_file
from distill.errors import BadInput

RESUME = "성명: 홍길동\n\n[경력]\n한빛상사 3년, 홍길동 팀\n\n[취미]\n등산\n\n[기술]\nSQL\n"
CUT = "[경력]\n한빛상사 3년, 홍길동 팀\n\n[기술]\nSQL"
BLIND_CUT = CUT.replace("홍길동", "[이름]")
KEEP = ("experience", "education", "skills")


def write_csv(path, rows, header=("id", "resume", "label")):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def read_csv(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def refusal(source, output, **options):
    with pytest.raises(BadInput) as caught:
        preparation = Preparation(options.pop("keep", KEEP), options.pop("blind", False))
        prepare_file(str(source), output, **({"column": "resume", "preparation": preparation} | options))
    assert "\n" not in str(caught.value)
    assert not output.exists()
    assert not list(output.parent.glob(".*tmp*"))
    return str(caught.value)


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_csv_keeps_the_other_columns(tmp_path, name):
    source = write_csv(tmp_path / name, [["007", RESUME, 'a "b", c'], ["008", "", "0.50"]])
    done = prepare_file(source, tmp_path / f"out-{name}", column="resume", preparation=Preparation(KEEP))
    assert read_csv(tmp_path / f"out-{name}") == [
        ["id", "resume", "label"],
        ["007", CUT, 'a "b", c'],
        ["008", "", "0.50"],
    ]
    assert (done.n_rows, done.n_sections, done.n_identifiers, done.whole) == (2, 2, 0, 0)


@pytest.mark.parametrize("name", ["in.csv", "in.tsv"])
def test_columns_without_a_name_are_copied(tmp_path, name):
    separator = "," if name.endswith(".csv") else "\t"
    lines = [separator.join(row) + "\n" for row in (["", "resume", ""], ["0", "SQL", "x"])]
    (tmp_path / name).write_text("".join(lines))
    prepare_file(str(tmp_path / name), tmp_path / f"out-{name}", column="resume", preparation=Preparation(blind=True))
    assert (tmp_path / f"out-{name}").read_text() == "".join(lines)


def test_a_lone_carriage_return_stays_in_its_value(tmp_path):
    source = write_csv(tmp_path / "in.csv", [["1", RESUME, "a\rb"], ["2", RESUME, "c"]])
    prepare_file(source, tmp_path / "out.csv", column="resume", preparation=Preparation(KEEP))
    assert read_csv(tmp_path / "out.csv") == [["id", "resume", "label"], ["1", CUT, "a\rb"], ["2", CUT, "c"]]


def test_an_output_that_cannot_be_written(tmp_path):
    source = write_csv(tmp_path / "in.csv", [["1", RESUME, "a"]])
    with pytest.raises(BadInput, match="/proc/out.csv cannot be written"):
        prepare_file(source, Path("/proc/out.csv"), column="resume", preparation=Preparation(KEEP))


def test_blinding_knows_the_name_that_cutting_drops(tmp_path):
    source = write_csv(tmp_path / "table.csv", [["1", RESUME, "x"]])
    done = prepare_file(source, tmp_path / "out.csv", column="resume", preparation=Preparation(KEEP, blind=True))
    assert read_csv(tmp_path / "out.csv")[1][1] == BLIND_CUT
    assert done.n_identifiers == 2


def test_what_went_is_listed(tmp_path):
    source = write_csv(tmp_path / "table.csv", [["1", "Skills: SQL", "x"], ["2", RESUME, "x"]])
    prepare_file(
        source,
        tmp_path / "out.csv",
        column="resume",
        preparation=Preparation(KEEP, blind=True),
        dropped=tmp_path / "dropped.tsv",
    )
    assert (tmp_path / "dropped.tsv").read_text(encoding="utf-8").splitlines() == [
        "row\tkind\ttext",
        "2\tname\t홍길동",
        "2\tname\t홍길동",
        "2\tpersonal\t성명: [이름]",
        "2\tother\t[취미]\\n등산",
    ]


def test_tsv(tmp_path):
    source = tmp_path / "table.tsv"
    source.write_text('id\tresume\n1\t[경력] 가나상사 [취미] "등산"\n', encoding="utf-8")
    prepare_file(str(source), tmp_path / "out.tsv", column="resume", preparation=Preparation(KEEP))
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8") == "id\tresume\n1\t[경력] 가나상사\n"


def test_jsonl_keeps_types_and_key_order(tmp_path):
    source = tmp_path / "table.jsonl"
    row = {"when": "2024-01-02", "resume": RESUME, "score": 1, "more": {"a": [None, 1.0]}}
    source.write_text(json.dumps(row) + "\n\n" + json.dumps(row | {"resume": None}) + "\n", encoding="utf-8")
    prepare_file(str(source), tmp_path / "out.jsonl", column="resume", preparation=Preparation(KEEP))
    first, second = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert first == json.dumps(row | {"resume": CUT}, ensure_ascii=False)
    assert json.loads(second)["resume"] is None


def test_parquet_keeps_the_schema(tmp_path):
    source = tmp_path / "table.parquet"
    table = pa.table({"id": pa.array([1, 2], pa.int8()), "resume": [RESUME, None], "v": [[1.5], []]})
    pyarrow.parquet.write_table(table, source)
    prepare_file(str(source), tmp_path / "out.parquet", column="resume", preparation=Preparation(KEEP))
    out = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert out.schema.equals(table.schema)
    assert out.to_pylist() == [{"id": 1, "resume": CUT, "v": [1.5]}, {"id": 2, "resume": None, "v": []}]


def test_a_resume_without_the_wanted_sections_stays_whole_and_is_counted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("distill"), "propagate", True)  # the command line turns it off
    source = write_csv(tmp_path / "table.csv", [["1", "[취미]\n등산", "x"]])
    done = prepare_file(source, tmp_path / "out.csv", column="resume", preparation=Preparation(KEEP))
    assert done.whole == 1
    assert read_csv(tmp_path / "out.csv")[1][1] == "[취미]\n등산"
    assert "1 of 1 rows have none of experience, education, skills" in caplog.text


class TestRefusals:
    def test_a_missing_column(self, tmp_path):
        source = write_csv(tmp_path / "table.csv", [["1", RESUME, "x"]])
        assert "no column 'cv'; it has id, resume, label" in refusal(source, tmp_path / "out.csv", column="cv")

    def test_files_that_are_missing_empty_or_of_no_rows(self, tmp_path):
        out = tmp_path / "out.csv"
        assert "no such file" in refusal(tmp_path / "none.csv", out)
        (tmp_path / "empty.csv").touch()
        assert "is empty" in refusal(tmp_path / "empty.csv", out)
        assert "no rows" in refusal(write_csv(tmp_path / "header.csv", []), out)
        assert "is a folder" in refusal(tmp_path, out)

    def test_a_value_that_is_no_text(self, tmp_path):
        source = tmp_path / "table.jsonl"
        source.write_text('{"resume": "a"}\n{"resume": ["b"]}\n', encoding="utf-8")
        said = refusal(source, tmp_path / "out.jsonl")
        assert "row 2: resume is no text: a text is expected, got ['b'] (list)" in said

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "line 1 is no JSON"),
            ("[1]", "line 1 is list"),
            ('{"cv": ""}', "no column"),
            ('{"n": ' + "9" * 5000 + "}", "no column 'resume'; it has n"),
            ("[" * 99_999, "is no JSON object"),
        ],
    )
    def test_bad_json(self, tmp_path, line, message):
        source = tmp_path / "table.jsonl"
        source.write_text(line + "\n", encoding="utf-8")
        assert message in refusal(source, tmp_path / "out.jsonl")

    def test_a_row_of_another_length(self, tmp_path):
        source = write_csv(tmp_path / "table.csv", [["1", RESUME, "x"], ["2", RESUME]])
        assert "row 2: 2 values under 3 columns" in refusal(source, tmp_path / "out.csv")

    def test_a_quote_that_is_never_closed(self, tmp_path):
        (tmp_path / "table.csv").write_text('id,resume\n1,"경력\n2,학력\n', encoding="utf-8")
        assert "line 3 is no CSV: unexpected end of data" in refusal(tmp_path / "table.csv", tmp_path / "out.csv")

    def test_another_encoding(self, tmp_path):
        (tmp_path / "table.csv").write_bytes("id,resume\n1,경력\n".encode("cp949"))
        assert "not UTF-8" in refusal(tmp_path / "table.csv", tmp_path / "out.csv")

    def test_no_parquet(self, tmp_path):
        (tmp_path / "table.parquet").write_bytes(b"text")
        assert "cannot be read as PARQUET" in refusal(tmp_path / "table.parquet", tmp_path / "out.parquet")

    def test_options_that_make_no_sense(self, tmp_path):
        source, out = write_csv(tmp_path / "table.csv", [["1", RESUME, "x"]]), tmp_path / "out.csv"
        assert "nothing to do" in refusal(source, out, keep=None)
        assert "'job' is no kind" in refusal(source, out, keep=("job",))
        assert "no kind of section" in refusal(source, out, keep=())
        assert "format of" in refusal(source, tmp_path / "out.tsv")
        assert "different files" in refusal(source, out, dropped=out)
        (tmp_path / "circle.csv").symlink_to("circle.csv")
        assert "cannot be made" in refusal(source, tmp_path / "circle.csv")
        assert "no folder" in refusal(source, tmp_path / "missing" / "out.csv")


def test_half_a_surrogate_pair_is_refused_and_goes_out_of_other_columns_as_it_came(tmp_path):
    source = tmp_path / "table.jsonl"
    source.write_text('{"resume": "성명: 홍길동\\n경력", "x": "\\ud83d"}\n', encoding="utf-8")
    prepare_file(
        str(source),
        tmp_path / "out.jsonl",
        column="resume",
        preparation=Preparation(blind=True),
        dropped=tmp_path / "dropped.tsv",
    )
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == '{"resume": "성명: [이름]\\n경력", "x": "\\ud83d"}\n'
    assert "row 1: x holds half a surrogate pair" in refusal(source, tmp_path / "other.jsonl", column="x")


def test_numbers_of_json_keep_their_spelling(tmp_path):
    source = tmp_path / "table.jsonl"
    lines = ['{"a": 1e5, "resume": "성명: 홍길동", "b" : 0.10}', '{"resume": 123}', '{"b": 1.0}', '{"resume": null}']
    source.write_text("\n".join(lines), encoding="utf-8")
    prepare_file(str(source), tmp_path / "out.jsonl", column="resume", preparation=Preparation(blind=True))
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines() == [
        lines[0].replace("홍길동", "[이름]"),
        *lines[1:],
    ]


def test_an_array_stays_one(tmp_path):
    source = tmp_path / "table.json"
    source.write_text('[{"resume": "성명: 홍길동", "n": 1.50},\n {"n": {"resume": 2}}]', encoding="utf-8")
    prepare_file(str(source), tmp_path / "out.json", column="resume", preparation=Preparation(blind=True))
    assert (tmp_path / "out.json").read_text(
        encoding="utf-8"
    ) == '[{"resume": "성명: [이름]", "n": 1.50},\n{"n": {"resume": 2}}]\n'


def test_a_disk_that_is_full_is_no_fault_of_the_input(tmp_path, monkeypatch):
    source = write_csv(tmp_path / "table.csv", [["1", RESUME, "x"]])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resume_file, "blind_text", full)
    with pytest.raises(OSError, match="No space left"):
        prepare_file(str(source), tmp_path / "out.csv", column="resume", preparation=Preparation(blind=True))


def test_a_failure_leaves_the_old_output(tmp_path, monkeypatch):
    source = write_csv(tmp_path / "table.csv", [["1", RESUME, "x"], ["2", RESUME, "x"]])
    out, dropped = tmp_path / "out.csv", tmp_path / "dropped.tsv"
    out.write_text("old", encoding="utf-8")
    calls = iter([None])

    def fail(text, kinds):
        next(calls)
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(resume_file, "keep_sections", fail)
    with pytest.raises(RuntimeError, match="fire"):
        prepare_file(source, out, column="resume", preparation=Preparation(KEEP), dropped=dropped, overwrite=True)
    assert out.read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "table.csv"]
