"""Everything of `distill.ray` that needs no Ray: reading, keys, shards, what an actor does, what a driver counts."""

import errno
import gzip
import json
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import BadInput, JobFailed
from distill.files.artefact import revision
from distill.ray import actors
from distill.ray.actors import EmbedActor, ScoreActor
from distill.ray.attempts import MOST_TRIES, Attempts, attempt
from distill.ray.batches import Batched, RayJob, ShardActor, state_of
from distill.ray.cluster import Actors
from distill.ray.labelling import LabelActor, TeacherFolder
from distill.ray.reading import PATH, PROBLEM, ROW, find_source, rows_of_file
from distill.ray.shards import JOB, ShardFolder, row_keys, shard_name
from distill.ray.storage import files_below, place_at
from distill.ray.tally import Tally
from distill.runtime.opening import load
from distill.signals import KeySet
from recipes.cli import main
from tests.static_model import write_static_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_static_model(tmp_path_factory.mktemp("static") / "model")


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def rows(source):
    return pa.concat_tables(table for file in source.files for table in rows_of_file(source, file, 100))


class TestReading:
    def test_a_csv_keeps_what_is_written(self, tmp_path):
        source = find_source(
            write(tmp_path / "a.csv", 'id,text\n007,"a, b"\n1e5,c\n'), ["text"], ["id"], section="--column"
        )
        assert rows(source).select(["text", "id", PROBLEM]).to_pydict() == {
            "text": ["a, b", "c"],
            "id": ["007", "1e5"],
            PROBLEM: [None, None],
        }

    def test_a_row_that_is_no_text_is_named(self, tmp_path):
        lines = ['{"text": "a"}', '{"text": null}', '{"text": ["x"]}', "{}"]
        source = find_source(write(tmp_path / "a.jsonl", "\n".join(lines)), ["text"], None, section="--column")
        table = rows(source)
        assert table["text"].to_pylist() == ["a", None, None, None]
        assert table[PROBLEM].to_pylist()[:2] == [None, "row 2: text is empty"]
        assert table[PROBLEM].to_pylist()[2].startswith("row 3: text is no text")
        assert table[PATH].to_pylist() == [str(tmp_path / "a.jsonl")] * 4

    def test_kept_values_of_json_are_written_out(self, tmp_path):
        lines = [{"text": "a", "id": 7}, {"text": "b", "id": "x"}, {"text": "c", "id": [1]}, {"text": "d"}]
        source = find_source(
            write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines))), ["text"], ["id"], section="--column"
        )
        assert rows(source)["id"].to_pylist() == ["7", "x", '["1"]', None]

    def test_a_txt_of_carriage_returns_alone_is_refused(self, tmp_path):
        source = find_source(write(tmp_path / "old.txt", "a\rb\rc"), ["text"], None, section="--column")
        with pytest.raises(BadInput, match=r"old.txt: its lines end in \\r alone; save it with"):
            rows(source)

    def test_a_txt_splits_at_line_feeds_alone(self, tmp_path):
        source = find_source(write(tmp_path / "a.txt", "one\u2028two\n\nthree\r\n"), ["text"], None, section="--column")
        table = rows(source)
        assert table["text"].to_pylist() == ["one\u2028two", None, "three"]
        assert table[PROBLEM].to_pylist() == [None, "row 2: text is empty", None]

    def test_a_packed_tsv_and_an_arrow_file(self, tmp_path):
        with gzip.open(tmp_path / "a.tsv.gz", "wt", encoding="utf-8") as file:
            file.write('text\tid\n"a"\t1\n')
        packed = find_source(str(tmp_path / "a.tsv.gz"), ["text"], ["id"], section="--column")
        assert rows(packed)["text"].to_pylist() == ['"a"']
        table = pa.table({"text": ["b", None], "id": [1, 2]})
        with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        arrow = rows(find_source(str(tmp_path / "b.arrow"), ["text"], ["id"], section="--column"))
        assert arrow["id"].to_pylist() == [1, 2]
        assert arrow[PROBLEM].to_pylist() == [None, "row 2: text is empty"]

    def test_another_filesystem_is_read_by_the_same_rules(self):
        import fsspec

        with fsspec.open("memory://room/a.csv", "wb") as file:
            file.write(b"text\nred\n")
        source = find_source("memory://room", ["text"], None, section="--column")
        table = rows(source)
        assert table["text"].to_pylist() == ["red"]
        assert table[PATH][0].as_py().startswith("memory://")

    def test_parquet_keeps_types(self, tmp_path):
        pq.write_table(pa.table({"text": ["a", " "], "id": [1, None], "x": [0, 0]}), tmp_path / "a.parquet")
        table = rows(find_source(str(tmp_path), ["text"], ["id"], section="--column"))
        assert table.schema.names == ["text", "id", PATH, ROW, PROBLEM]
        assert table["id"].type == pa.int64()
        assert table[PROBLEM].to_pylist() == [None, "row 2: text is empty"]

    @pytest.mark.parametrize(
        ("files", "texts", "kept", "said"),
        [
            ({}, ["text"], None, "no such file"),
            ({"a.csv": "text\na\n", "b.txt": "a\n"}, ["text"], None, "several forms"),
            ({"a.doc": "a"}, ["text"], None, "are read"),
            ({"a.csv": "body\na\n"}, ["text"], None, "no column 'text'; it has body; set --column"),
            ({"a.csv": "text\na\n"}, ["text"], ["id"], "no column 'id'; it has text; set --keep"),
            ({"a.txt": "a\n"}, ["text"], ["id"], "one text a line"),
            ({"a.csv": "text,_x\na,b\n"}, ["text"], ["_x"], "begins with _"),
            ({"a.parquet": "no parquet"}, ["text"], None, "cannot be read as PARQUET"),
        ],
    )
    def test_what_cannot_be_read_is_said(self, tmp_path, files, texts, kept, said):
        for name, text in files.items():
            write(tmp_path / name, text)
        with pytest.raises(BadInput, match=said):
            find_source(str(tmp_path), texts, kept, section="--column")

    def test_hidden_files_are_no_tables(self, tmp_path):
        write(tmp_path / "a.csv", "text\na\n")
        write(tmp_path / "_SUCCESS", "")
        write(tmp_path / ".a.csv.crc", "")
        assert len(find_source(str(tmp_path), ["text"], None, section="--column").files) == 1


def filled(folder, values):
    keys = row_keys([[value] for value in values])
    folder.write(shard_name(keys), pa.table({"id": values}), keys)
    return keys


class TestShards:
    @pytest.fixture
    def folder(self, tmp_path):
        return ShardFolder(place_at(str(tmp_path / "out")))

    def test_hold_rows_with_their_keys(self, folder):
        folder.begin({"a": 1})
        keys = filled(folder, [1, 2, 3])
        assert np.array_equal(folder.keys(), keys)
        assert pq.read_table(folder.place.path)["id"].to_pylist() == [1, 2, 3], "other readers leave _job.json out"

    def test_a_batch_written_twice_is_one_file(self, folder):
        folder.begin({})
        filled(folder, [1, 2])
        filled(folder, [1, 2])
        assert len(folder.shards()) == 1

    def test_rows_of_two_shards_are_settled(self, folder):
        folder.begin({})
        for values in ([1, 2], [2, 3], [1, 3]):
            filled(folder, values)
        assert folder.settle() == 3
        assert sorted(pq.read_table(folder.place.path)["id"].to_pylist()) == [1, 2, 3]
        assert folder.settle() == 0

    def test_other_settings_are_refused_and_named(self, folder):
        folder.begin({"precision": "fp32"})
        folder.check({"precision": "fp32"}, [], overwrite=False)
        with pytest.raises(BadInput, match="precision: fp32 → bf16"):
            folder.check({"precision": "bf16"}, [], overwrite=False)

    def test_overwrite_takes_our_files_away_only(self, folder):
        folder.begin({"a": 1})
        filled(folder, [1])
        write(folder.place.local / "notes.md", "mine")
        folder.check({"a": 2}, [], overwrite=True)
        folder.begin({"a": 2})
        assert [file.name for file in folder.shards()] == []
        assert (folder.place.local / "notes.md").read_text() == "mine"

    def test_what_a_killed_process_left_goes(self, folder):
        folder.begin({})
        left = folder.place.local / ".shard-0.parquet.host-1.tmp"
        left.write_bytes(b"half")
        folder.begin({})
        assert not left.exists()

    def test_what_a_full_disk_left_of_the_first_write_is_nobodys(self, folder, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        full_disk = SimpleNamespace(
            **{
                name: getattr(folder.place.filesystem, name)
                for name in ("get_file_info", "create_dir", "open_output_stream")
            },
            move=full,
        )
        with pytest.raises(OSError, match="No space"):
            ShardFolder(replace(folder.place, filesystem=full_disk)).begin({"a": 1})
        assert [file.name for file in files_below(folder.place, hidden=True)] != []
        folder.check({"a": 1}, [], overwrite=False)
        folder.begin({"a": 1})
        assert [file.name for file in files_below(folder.place, hidden=True)] == [JOB]

    def test_a_folder_of_others_is_refused(self, folder):
        folder.place.local.mkdir()
        write(folder.place.local / "thesis.tex", "…")
        with pytest.raises(BadInput, match="other files"):
            folder.check({}, [], overwrite=True)

    def test_a_damaged_shard_is_named(self, folder):
        folder.begin({})
        write(folder.place.local / "shard-0.parquet", "no")
        with pytest.raises(BadInput, match=r"shard-0.parquet is damaged"):
            folder.keys()

    def test_an_object_store_holds_one_too(self):
        folder = ShardFolder(place_at("memory://job/out"))
        folder.check({"a": 1}, [], overwrite=False)
        folder.begin({"a": 1})
        filled(folder, [1, 2])
        assert len(folder.keys()) == 2
        assert JOB in [name.rpartition("/")[2] for name in folder.place.filesystem.handler.fs.find("/job/out")]

    def test_keys_tell_rows_apart(self):
        keys = row_keys([["a", "b"], ["ab", ""], ["a", None], ["a", "b"]])
        assert len(np.unique(keys, axis=0)) == 3


def test_a_key_set_finds_what_it_holds():
    keys = row_keys([[i] for i in range(50)])
    held = KeySet(keys[:40])
    assert held.find(keys).tolist() == [*range(40), *[-1] * 10]
    assert KeySet(keys[:0]).find(keys[:2]).tolist() == [-1, -1]


class TestAttempts:
    def test_work_that_fails_twice_is_done_the_third_time(self):
        failures = [OSError("disk"), OSError("disk")]

        def work():
            if failures:
                raise failures.pop()
            return 7

        begun = Attempts()
        assert (attempt(work, partial(begun.begin, "a")).value, begun.begin("a")) == (7, 4)

    def test_a_failure_is_told_after_the_last_try(self):
        tried = attempt(lambda: 1 / 0, partial(Attempts().begin, "a"))
        assert (tried.problem, tried.tries) == ("ZeroDivisionError: division by zero", MOST_TRIES)

    def test_bad_input_is_not_tried_again(self):
        def work():
            raise BadInput("no")

        tried = attempt(work, partial(Attempts().begin, "a"))
        assert (tried.problem, tried.tries, tried.is_bad_input) == ("no", 1, True)

    def test_a_batch_that_ends_its_process_is_given_up(self):
        begun = Attempts()
        for _ in range(MOST_TRIES):
            begun.begin("a")
        tried = attempt(lambda: 1, partial(begun.begin, "a"))
        assert "3 processes ended" in tried.problem


def counter():
    begun = Attempts()
    return lambda name: partial(begun.begin, name)


def embedding_job(model, source, **changes):
    return RayJob(source, (model,), partial(EmbedActor, model), {"prompt": None}, **changes)


class TestShardActor:
    @pytest.fixture
    def folder(self, tmp_path):
        made = ShardFolder(place_at(str(tmp_path / "out")))
        made.begin({})
        return made

    def actor(self, job, folder, done=()):
        return ShardActor(job, folder, state_of(job), KeySet(row_keys(done)), counter())

    def source(self, tmp_path, text, **changes):
        return find_source(write(tmp_path / "a.csv", text), ["text"], ["id"], section="--column")

    def test_writes_what_one_process_computes(self, model, folder, tmp_path):
        source = self.source(tmp_path, "text,id\nred,1\nblau,2\n")
        told = self.actor(embedding_job(model, source), folder).handle(rows(source))
        table = pq.read_table(folder.place.path)
        assert table.schema.names == ["id", "embedding", "key"]
        assert table["id"].to_pylist() == ["1", "2"]
        assert np.allclose(table["embedding"].to_pylist(), load(model).encode(["red", "blau"]))
        assert (told.computed, told.problem, told.shard) == (2, None, folder.shards()[0].name)

    def test_does_each_row_once(self, model, folder, tmp_path):
        source = self.source(tmp_path, "text,id\nred,1\nred,1\nred,2\nblau,3\n")
        told = self.actor(embedding_job(model, source), folder, [["blau", "3"]]).handle(rows(source))
        assert (told.rows, told.computed, told.repeated, told.done_before) == (4, 2, 1, 1)
        assert pq.read_table(folder.place.path)["id"].to_pylist() == ["1", "2"]

    def test_a_batch_that_comes_again_is_not_computed_again(self, model, folder, tmp_path):
        source = self.source(tmp_path, "text,id\nred,1\n")
        actor = self.actor(embedding_job(model, source), folder)
        first = actor.handle(rows(source))
        before = folder.shards()[0].local.stat().st_mtime_ns
        again = actor.handle(rows(source))
        assert (again.shard, again.tries) == (first.shard, 2)
        assert folder.shards()[0].local.stat().st_mtime_ns == before

    def test_batches_of_the_same_rows_are_repeats_and_no_retries(self, model, folder, tmp_path):
        (tmp_path / "parts").mkdir()
        for number in range(MOST_TRIES + 2):
            write(tmp_path / "parts" / f"{number}.csv", "text,id\nred,1\nblau,2\n")
        source = find_source(str(tmp_path / "parts"), ["text"], ["id"], section="--column")
        actor = self.actor(embedding_job(model, source), folder)
        told = [actor.handle(table) for file in source.files for table in rows_of_file(source, file, 100)]
        assert [(batch.computed, batch.repeated, batch.tries, batch.problem) for batch in told] == [
            (2, 0, 1, None),
            *[(0, 2, 1, None)] * (MOST_TRIES + 1),
        ]
        assert pq.read_table(folder.place.path)["id"].to_pylist() == ["1", "2"]

    def test_a_batch_with_a_row_that_is_no_text_is_refused_by_name(self, model, folder, tmp_path):
        source = self.source(tmp_path, "text,id\nred,1\n,2\n")
        told = self.actor(embedding_job(model, source), folder).handle(rows(source))
        assert told.problem == f"1 row cannot be used ({tmp_path / 'a.csv'}: row 2: text is empty)"
        assert (told.is_bad_input, folder.shards()) == (True, [])

    def test_or_left_out_and_counted(self, model, folder, tmp_path):
        source = self.source(tmp_path, "text,id\nred,1\n,2\n")
        told = self.actor(embedding_job(model, source, skip_bad_rows=True), folder).handle(rows(source))
        assert (told.computed, told.left_out, told.problem) == (1, 1, None)
        assert told.first_left_out.endswith("row 2: text is empty")

    def test_another_model_on_another_machine_is_refused(self, model, folder, tmp_path):
        job = embedding_job(model, self.source(tmp_path, "text,id\nred,1\n"))
        with pytest.raises(BadInput, match=r"runtime numpy, where the job began torch"):
            ShardActor(job, folder, state_of(job) | {"runtime": "torch"}, KeySet(row_keys([])), counter())

    def test_a_kept_column_must_not_hide_a_result(self, model, tmp_path):
        source = find_source(
            write(tmp_path / "a.csv", "text,embedding\nred,1\n"), ["text"], ["embedding"], section="--column"
        )
        with pytest.raises(BadInput, match="--keep embedding"):
            state_of(embedding_job(model, source))


class TestActorsOfOnesOwn:
    """As `map_batches` calls them, with numpy columns."""

    def test_embeddings_are_added(self, model):
        batch = EmbedActor(model, column="body", output="vector")({"body": np.array(["red", "blau"], dtype=object)})
        assert np.allclose(batch["vector"], load(model).encode(["red", "blau"]))

    def test_scores_are_added(self, model):
        given = {"query": np.array(["red"], dtype=object), "document": np.array(["red blau"], dtype=object)}
        batch = ScoreActor(model)(given)
        assert list(batch) == ["query", "document", "score", "unit_score"]
        assert batch["score"] == pytest.approx(load(model).score(["red"], ["red blau"]))

    def test_a_null_is_refused_with_its_row(self, model):
        with pytest.raises(BadInput, match="1"):
            EmbedActor(model)({"text": np.array(["red", None], dtype=object)})

    def test_a_calibration_that_is_not_there_is_refused_at_the_start(self, model):
        with pytest.raises(BadInput, match="carries no calibration"):
            ScoreActor(model, calibrated=True)

    def test_a_cascade_of_the_best_documents_is_one_machine_s(self, model, monkeypatch):
        monkeypatch.setattr(actors, "compares_documents", lambda scorer: True)
        with pytest.raises(BadInput, match="a query's documents lie in several batches; leave --engine ray out"):
            ScoreActor(model)

    def test_a_teacher_answers_a_chunk(self, model):
        actor = LabelActor(TeacherFolder(model, revision(model), {}), "embeddings", counter())
        told = actor(pa.table({"role": [0, 1], "text": ["red", "blau"], "_number": [4, 4]}))
        values = np.frombuffer(told["values"][0], dtype=np.float32).reshape(2, -1)
        assert (told["number"], told["problem"]) == ([4], [""])
        assert np.array_equal(values, load(model).encode(["red", "blau"]))

    def test_another_teacher_in_the_folder_is_refused(self, model):
        with pytest.raises(BadInput, match="another model"):
            LabelActor(TeacherFolder(model, "0" * 16, {}), "scores", counter())


class TestTally:
    def test_counts_rates_and_what_was_tried_again(self):
        tally = Tally()
        tally.add(Batched("shard-a", "host:1", 10, computed=8, repeated=2, seconds=2.0, cpu_seconds=1.0))
        tally.add(
            Batched(
                "shard-b",
                "host:2",
                10,
                computed=9,
                left_out=1,
                seconds=3.0,
                cpu_seconds=3.0,
                tries=2,
                first_left_out="x: row 3",
                paths="x",
            )
        )
        assert tally.counts == {"rows": 20, "computed": 17, "done_before": 0, "repeated": 2, "left_out": 1}
        assert list(tally.lines()) == [
            "actor host:1: 8 rows, 4.0 a second, 8.0 a CPU second",
            "actor host:2: 9 rows, 3.0 a second, 3.0 a CPU second",
            "1 row left out (one of them: x: row 3)",
            "shard-b (x) was begun 2 times, and is done",
        ]
        tally.check()

    @pytest.mark.parametrize(("is_bad_input", "error"), [(True, BadInput), (False, JobFailed)])
    def test_names_what_failed(self, is_bad_input, error):
        tally = Tally()
        tally.add(
            Batched("", "host:1", 10, problem="1 row cannot be used (x: row 3)", is_bad_input=is_bad_input, paths="x")
        )
        with pytest.raises(
            error, match=r"1 batch of 10 rows failed \(x: 1 row cannot be used \(x: row 3\)\); the others"
        ):
            tally.check()


class TestActorsOfACluster:
    def test_one_that_does_not_fit_is_refused(self):
        with pytest.raises(BadInput, match="2 CPUs and 0 GPUs, one actor takes 1 and 1"):
            Actors(gpus=1).count({"CPU": 2.0})

    def test_more_than_fit_now_are_waited_for_and_said(self, caplog):
        assert Actors(n=3).count({"CPU": 2.0}) == 3
        assert "the cluster holds 2 now" in caplog.text


class TestCommands:
    def test_options_of_a_cluster_need_the_engine(self, tmp_path, capsys):
        assert main(["embed", "m", "t.csv", "-o", str(tmp_path / "o.npy"), "--actors", "2"]) == 2
        assert "--actors is of a Ray cluster; add --engine ray" in capsys.readouterr().err

    def test_another_engine_is_refused(self, tmp_path, capsys):
        assert main(["cache-signals", "r.yaml", "--engine", "spark"]) == 2
        assert "--engine spark: one of ray is accepted" in capsys.readouterr().err

    def test_threads_are_the_cpus_of_an_actor(self, model, tmp_path, capsys):
        command = ["embed", str(model), "t.csv", "-o", str(tmp_path / "o"), "--engine", "ray", "--threads", "2"]
        assert main(command) == 2
        assert "set --actor-cpus" in capsys.readouterr().err

    def test_a_remote_scorer_is_one_machine_s(self, model, tmp_path, capsys):
        command = ["score", str(model), "t.csv", "-o", str(tmp_path / "o"), "--engine", "ray", "--allow-host", "h"]
        assert main(command) == 2
        assert "a host is asked by one process" in capsys.readouterr().err

    def test_a_missing_ray_is_one_line(self, model, tmp_path, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        source = write(tmp_path / "a.csv", "query,document\nred,blau\n")
        assert main(["score", str(model), source, "-o", str(tmp_path / "out"), "--engine", "ray"]) == 2
        assert capsys.readouterr().err.strip().endswith("pip install ray, or pip install 'matchdistill[ray]'")
        assert not (tmp_path / "out").exists()
