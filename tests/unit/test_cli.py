"""The `distill` command in-process: exit codes, messages, scoring and embedding with tiny models."""

import errno
import fcntl
import json
import os
import re
import shlex
import shutil
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import HfApi
from huggingface_hub.utils import filter_repo_objects

from distill.data import tables
from distill.data.tables import read_columns
from distill.errors import BadInput
from distill.files.artefact import Artefact, new_folder, write_card
from distill.recipe.schema import TfIdf
from distill.runtime.scorer import Scorer
from distill.scorers.baselines import write_tfidf
from distill.scorers.cascade import CascadeScorer, CascadeSettings, fit_cascade
from recipes import _stages, benchmark, cache_signals, export, score_embed, train_student, train_teacher
from recipes._launch import _hear_threads, guarded
from recipes.cli import app, main
from recipes.printing import print_parity, print_table, print_tuned
from tests.conftest import ROOT, make_run, write_recipe

PAIRS = [
    ("백엔드 개발자", "Backend engineer wanted"),
    ("간호사 5년", "a nurse"),
    ("chef", "요리사 채용"),
    ("간호사 5년", "요리사 채용"),
]


@pytest.fixture
def pairs_file(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("query\tdocument\n" + "".join(f"{q}\t{d}\n" for q, d in PAIRS), encoding="utf-8")
    return path


@pytest.fixture
def call(capsys):
    """Run the command; returns (exit code, stdout, stderr)."""

    def run(*argv, entry=main):
        code = entry([str(argument) for argument in argv])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


class TestHelp:
    def test_without_a_command_it_is_printed_alone(self, call):
        code, out, err = call()
        assert code == 2 and (out + err).startswith("Usage: distill")
        assert "error:" not in err and "see distill --help" not in err

    def test_lists_the_commands(self, call):
        code, out, err = call("--help")
        assert (code, err) == (0, "")
        for command in (
            "run",
            "train-teacher",
            "cache-signals",
            "train-student",
            "export",
            "benchmark",
            "score",
            "embed",
            "ablate",
            "prepare",
            "synthesize",
        ):
            assert f" {command} " in out

    def test_the_pipelines_gate_is_made_of_commands_that_there_are(self):
        import typer

        steps = yaml.safe_load((ROOT / "recipes/ci/gate.yaml").read_text(encoding="utf-8"))["jobs"]["gate"]["steps"]
        lines = [shlex.split(step["run"]) for step in steps if step.get("run", "").startswith("distill ")]
        commands = typer.main.get_command(app).commands
        assert [line[1] for line in lines] == ["export", "benchmark"]
        for _, command, *arguments in lines:
            commands[command].make_context(command, arguments)  # refuses an option that is none

    @pytest.mark.parametrize(
        "command", ["run", "train-teacher", "cache-signals", "train-student", "export", "benchmark"]
    )
    def test_of_stages_shows_recipe_and_overrides(self, call, command):
        code, out, _ = call(command, "--help")
        assert code == 0
        assert re.search(r"RECIPE\.yaml\}? \[{1,2}KEY=VALUE\]\.\.\.", out)  # typer 0.29 draws more brackets

    def test_of_score_shows_the_options(self, call):
        code, out, _ = call("score", "--help")
        assert code == 0
        for option in (
            "--output",
            "--query-column",
            "--document-column",
            "--runtime",
            "--precision",
            "--threads",
            "--max-length",
        ):
            assert option in out


class TestExitCodes:
    @pytest.mark.parametrize(
        ("argv", "says"),
        [
            (["distil"], "No such command 'distil'"),
            (["run"], "Missing argument 'RECIPE.yaml'"),
            (["run", "x.yaml", "--fast"], "No such option"),
            (["mine", "pairs.tsv", "out", "--document-column", "query"], "column 'query' is named for both sides"),
            (["index-quality", "m", "p.tsv", "--document-column", "query"], "column 'query' is named for both sides"),
            (["score", "model"], "Missing argument"),
            (["score", "model", "pairs.tsv"], "Missing option '-o'"),
            (["score", "model", "pairs.tsv", "-o", "x.tsv", "--threads", "0"], "Invalid value for '--threads'"),
            (["score", "model", "pairs.tsv", "-o", "x.tsv", "--threads", "many"], "not a whole number"),
        ],
    )
    def test_wrong_usage_is_2_with_one_line_on_stderr(self, call, argv, says):
        code, out, err = call(*argv)
        assert (code, out) == (2, "")
        assert says in err
        assert len(err.splitlines()) == 1
        assert err.startswith("error: ")

    @pytest.mark.parametrize(
        ("argv", "says"),
        [
            (["benchmark", "quickstart", "--max-metric-drop", "0.01"], "--max-metric-drop is for model folders"),
            (["benchmark", "quickstart", "-o", "report"], "--output is for model folders"),
            (["index-quality", "model", "pairs.tsv", "--label-range", "0,5"], "--label-range is of labels"),
            (["index-quality", "model", "pairs.tsv", "--column", "jd"], "--column is of the corpus"),
            (["mine", "pairs.tsv", "out", "--column", "jd"], "--column is of the documents"),
            (["mine", "pairs.tsv", "out", "--all-positive", "--positive-from", "0.9"], "--positive-from is of labels"),
            (["plan", "--budget-mb", "9", "--check", "model", "--overwrite"], "--overwrite is of a plan"),
        ],
    )
    def test_an_option_that_nothing_would_read_is_2(self, call, argv, says):
        code, out, err = call(*argv)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {says}") and len(err.splitlines()) == 1

    @pytest.mark.parametrize(
        "entry", [train_teacher, cache_signals, train_student, export, benchmark], ids=lambda m: m.__name__
    )
    def test_stage_without_a_recipe_is_2_and_says_how(self, call, entry):
        code, out, err = call(entry=entry.main)
        assert (code, out) == (2, "")
        assert f"usage: accelerate launch -m {entry.__name__} recipe.yaml [key=value …]" in err

    def test_bad_recipe_is_2(self, call, tmp_path):
        code, out, err = call("run", write_recipe(tmp_path), "trainig.epochs=3")
        assert (code, out) == (2, "")
        assert "trainig: unknown key; did you mean 'training'?" in err
        assert not (tmp_path / "run").exists()

    def test_missing_recipe_is_2(self, call, tmp_path):
        code, _, err = call("train-teacher", tmp_path / "none.yaml")
        assert (code, len(err.splitlines())) == (2, 1)
        assert "no such recipe" in err

    def test_failed_job_is_1(self, call, tmp_path):
        path = write_recipe(tmp_path)
        code, _, err = call("train-teacher", path, "training.precision=fp16")
        assert code == 1
        assert "error: training.precision fp16 needs a GPU; set auto, bf16 or fp32" in err

    def test_interrupted_is_130_and_says_to_go_on(self, call, tmp_path, monkeypatch):
        def interrupt(_):
            raise KeyboardInterrupt

        monkeypatch.setattr("teachers.train_teachers", interrupt)
        code, _, err = call("train-teacher", write_recipe(tmp_path))
        assert code == 130
        assert "start the same command again" in err

    def test_full_disk_is_1_with_the_file(self, call, tmp_path, monkeypatch):
        def fill(_):
            raise OSError(28, "No space left on device", "/data/x")

        monkeypatch.setattr("teachers.train_teachers", fill)
        code, _, err = call("train-teacher", write_recipe(tmp_path))
        assert code == 1
        assert "No space left on device: /data/x" in err

    def test_the_recipe_is_beside_what_the_first_stage_made(self, call, tmp_path, monkeypatch):
        def stop(_):
            assert (tmp_path / "run" / "recipe.json").is_file()
            raise KeyboardInterrupt

        monkeypatch.setattr(_stages, "every_stage", lambda: (lambda run: None, stop))
        recipe = write_recipe(tmp_path, output_dir=str(tmp_path / "run"))
        assert call("run", recipe)[0] == 130

    def test_a_command_near_another_is_suggested_once(self, call):
        assert call("serve")[2].count("Did you mean") == 1

    def test_what_a_message_shows_of_a_file_moves_no_cursor(self, capsys):
        def refuse():
            raise BadInput("a\x1b]0;b\x07 \u202e\u200bc\rd\n  이력서 é")

        assert guarded(refuse) == 2
        assert capsys.readouterr().err == "error: a\\x1b]0;b\\x07 \\u202e\\u200bc\\rd\n  이력서 é\n"

    def test_errors_of_ours_that_are_none_are_not_hidden(self, tmp_path, monkeypatch):
        def fail(_):
            raise ZeroDivisionError

        monkeypatch.setattr("teachers.train_teachers", fail)
        with pytest.raises(ZeroDivisionError):
            main(["train-teacher", str(write_recipe(tmp_path))])

    def test_missing_stage_is_named(self, call, tmp_path):
        for command in ("cache-signals", "build-student", "train-student"):
            code, _, err = call(command, write_recipe(tmp_path))
            assert code == 2
            assert (
                f"{tmp_path / 'run' / 'teachers' / 'cross'} is not there yet; run `distill train-teacher` with this recipe first"
                in err
            )

    def test_a_launch_that_is_refused_leaves_no_folder_behind(self, call, tmp_path):
        path = write_recipe(tmp_path, output_dir=str(tmp_path / "some" / "where"))
        assert call("cache-signals", path)[0] == 2
        assert not (tmp_path / "some").exists()
        (tmp_path / "some" / "where" / ".work").mkdir(parents=True)
        (tmp_path / "some" / "where" / ".work" / "kept").touch()
        assert call("cache-signals", path)[0] == 2
        assert {place.name for place in (tmp_path / "some").rglob("*") if place.is_file()} == {"kept", "lock"}

    def test_what_a_refused_launch_spent_is_kept_and_the_next_one_goes_on(self, tmp_path):
        run = make_run(tmp_path / "run")
        spending = run.signals("e") / "spending.jsonl"
        with pytest.raises(BadInput, match="401"), run.lock():
            spending.parent.mkdir(parents=True)
            spending.write_text('{"hold": "a", "dollars": 0.5}\n')
            raise BadInput("the server answered 401")
        with run.lock():
            assert spending.read_text() == '{"hold": "a", "dollars": 0.5}\n'

    def test_second_launch_on_a_folder_is_2(self, call, tmp_path):
        path, work = write_recipe(tmp_path), tmp_path / "run" / ".work"
        work.mkdir(parents=True)
        with (work / "lock").open("w") as file:
            file.write("4321")
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX)
            code, _, err = call("train-teacher", path)
        assert code == 2
        assert f"error: {tmp_path / 'run'} is in use by process 4321; wait for it or set another output_dir\n" == err

    def test_a_lock_that_is_a_link_empties_no_file(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("years of work")
        run = make_run(tmp_path / "run")
        run.work.mkdir(parents=True)
        (run.work / "lock").symlink_to(tmp_path / "thesis.txt")
        with pytest.raises(BadInput, match="lock is a link"), run.lock():
            pass
        assert (tmp_path / "thesis.txt").read_text() == "years of work"

    def test_a_filesystem_without_locks_is_not_in_use(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "flock", refuse)
        with pytest.raises(BadInput, match="this filesystem locks no files"), make_run(tmp_path / "run").lock():
            pass

    def test_unfinished_run_whose_work_was_removed_is_still_ours(self, tmp_path):
        run = make_run(tmp_path / "run")
        run.teacher("cross").mkdir(parents=True)
        write_card(run.teacher("cross"), Artefact("cross_encoder", "train_teacher", "0123456789abcdef"))
        with run.lock():
            assert run.work.is_dir()

    def test_folder_that_no_stage_made_is_not_touched(self, call, tmp_path):
        mine = tmp_path / "run" / "teachers" / "cross" / "thesis.txt"
        mine.parent.mkdir(parents=True)
        mine.write_text("years of work")
        code, _, err = call("train-teacher", write_recipe(tmp_path), "overwrite=true")
        assert code == 2
        assert "holds something that no stage made" in err
        assert mine.read_text() == "years of work"


def stock_scores(folder, pairs):
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from torch import nn

    if "cross" in folder.name:
        return CrossEncoder(str(folder), device="cpu").predict(pairs, activation_fn=nn.Identity())
    model = SentenceTransformer(str(folder), device="cpu")
    left, right = (model.encode([pair[i] for pair in pairs]) for i in (0, 1))
    return (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


class TestScore:
    @pytest.mark.parametrize("kind", ["bi", "cross"])
    def test_writes_what_stock_sentence_transformers_says(self, call, trained, pairs_file, tmp_path, kind):
        folder, output = trained.teacher(kind), tmp_path / "scores.tsv"
        code, out, err = call("score", folder, pairs_file, "-o", output)
        assert (code, out) == (0, "")
        assert "4 pairs → " in err
        header, *rows = [line.split("\t") for line in output.read_text().splitlines()]
        assert header == ["row", "score", "unit_score"]
        assert [row[0] for row in rows] == ["1", "2", "3", "4"]
        scores = np.array([float(row[1]) for row in rows])
        np.testing.assert_allclose(scores, stock_scores(folder, PAIRS), atol=2e-5)
        unit = 1 / (1 + np.exp(-scores)) if kind == "cross" else (scores + 1) / 2
        np.testing.assert_allclose([float(row[2]) for row in rows], unit, atol=2e-6)

    def test_reads_other_columns(self, call, bi_folder, tmp_path):
        path, output = tmp_path / "pairs.csv", tmp_path / "scores.tsv"
        path.write_text("이력서,공고\n개발자,developer\n", encoding="utf-8")
        code, _, _ = call(
            "score", bi_folder, path, "-o", output, "--query-column", "이력서", "--document-column", "공고"
        )
        assert code == 0
        assert len(output.read_text().splitlines()) == 2

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (
                ["--query-column", "resume"],
                "has no column 'resume'; it has query, document; set --query-column or --document-column",
            ),
            (["--runtime", "tensorrt"], "--runtime tensorrt: one of torch, openvino, onnx, numpy is accepted"),
            (
                ["--precision", "int8"],
                "--precision int8: one of fp32, bf16, auto is accepted; int8 comes with an int8 export",
            ),
            (
                ["--runtime", "openvino"],
                'holds no openvino/openvino_model.xml; export it, or load it with runtime="torch" (--runtime torch of a command)',
            ),
            (["--max-length", "5000"], "max_length 5000 is more than the 96 positions of the model"),
            (["--max-length", "x"], "is not a whole number; see distill score --help"),
            (["--document-column", "query"], "column 'query' is named for both sides"),
            (["--allow-host", "example.org"], "runs here and asks no host; leave them out"),
        ],
    )
    def test_refuses_in_one_line_and_leaves_no_output(self, call, bi_folder, pairs_file, tmp_path, options, says):
        output = tmp_path / "scores.tsv"
        code, out, err = call("score", bi_folder, pairs_file, "-o", output, *options)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert says in err
        assert [path.name for path in tmp_path.iterdir()] == ["pairs.tsv"]

    def test_output_in_a_missing_folder(self, call, bi_folder, pairs_file, tmp_path):
        code, _, err = call("score", bi_folder, pairs_file, "-o", tmp_path / "no" / "scores.tsv")
        assert code == 2
        assert f"{tmp_path / 'no'} is no folder; make it first, or name another output" in err

    def test_an_empty_path_is_not_the_current_folder(self, call, pairs_file, tmp_path):
        for command in (("score", "", pairs_file), ("trim", "", tmp_path / "small")):
            code, out, err = call(*command, "-o", tmp_path / "scores.tsv")
            assert (code, out) == (2, "")
            assert (
                err == "error: argument 2 is empty; a path or a name is expected there (is a shell variable not set?)\n"
            )

    def test_changed_settings_are_said_once(self, call, cross_folder, pairs_file, tmp_path):
        shutil.copytree(cross_folder, tmp_path / "model")
        config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
        (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"label2id": {"a": 0}}), encoding="utf-8")
        code, _, err = call("score", tmp_path / "model", pairs_file, "-o", tmp_path / "scores.tsv")
        assert code == 0 and err.count("config.json changed since the folder was made") == 1

    def test_a_baseline_has_no_embeddings(self, call, tmp_path):
        (tmp_path / "tfidf").mkdir()
        write_tfidf(tmp_path / "tfidf", TfIdf(fit="pair"), [])
        (tmp_path / "texts.txt").write_text("a\n")
        code, _, err = call("embed", tmp_path / "tfidf", tmp_path / "texts.txt", "-o", tmp_path / "e.npy")
        assert (code, len(err.splitlines())) == (2, 1)
        assert "only scores pairs (scorer.json): a baseline, a cascade or" in err and "has no embeddings" in err

    def test_missing_model(self, call, pairs_file, tmp_path):
        code, _, err = call("score", tmp_path / "none", pairs_file, "-o", tmp_path / "scores.tsv")
        assert code == 2
        assert "none is no model folder: there is no such directory" in err

    @pytest.mark.parametrize("piece", ["modules.json", "model.safetensors", "2_Dense/model.safetensors", "config.json"])
    def test_model_folder_with_a_missing_piece(self, call, cross_folder, pairs_file, tmp_path, piece):
        folder = tmp_path / "model"
        shutil.copytree(cross_folder, folder)
        (folder / piece).unlink()
        code, _, err = call("score", folder, pairs_file, "-o", tmp_path / "scores.tsv")
        assert (code, len(err.splitlines())) == (2, 1)
        assert piece in err

    def test_existing_output_is_replaced_only_by_a_whole_one(self, call, bi_folder, pairs_file, tmp_path):
        output = tmp_path / "scores.tsv"
        output.write_text("yesterday's")
        assert call("score", tmp_path / "none", pairs_file, "-o", output)[0] == 2
        code, _, err = call("score", bi_folder, pairs_file, "-o", output)
        assert code == 2 and "would be lost" in err and "--overwrite" in err
        assert call("score", tmp_path / "none", pairs_file, "-o", output, "--overwrite")[0] == 2
        assert output.read_text() == "yesterday's"
        assert call("score", bi_folder, pairs_file, "-o", output, "--overwrite")[0] == 0
        assert output.read_text().startswith("row\t")

    ODD = "query\tdocument\n개발자\tdeveloper\n\tnurse\n요리사\t\u200b\n간호사\tNaN\n"

    def test_rows_without_two_texts_are_refused_with_what_score_can_do(self, call, bi_folder, tmp_path):
        (tmp_path / "pairs.tsv").write_text(self.ODD, encoding="utf-8")
        code, _, err = call("score", bi_folder, tmp_path / "pairs.tsv", "-o", tmp_path / "s.tsv")
        assert code == 2
        assert "row 2: query is empty; row 3: document holds only invisible characters" in err
        assert err.endswith("mend them or set --skip-bad-rows\n") and "data." not in err

    def test_skipped_rows_are_counted_and_leave_a_gap_in_the_numbers(self, call, bi_folder, tmp_path):
        (tmp_path / "pairs.tsv").write_text(self.ODD, encoding="utf-8")
        code, _, err = call("score", bi_folder, tmp_path / "pairs.tsv", "-o", tmp_path / "s.tsv", "--skip-bad-rows")
        assert code == 0
        assert "2 of 4 rows left out (first: row 2, query is empty)" in err
        assert [line.split("\t")[0] for line in (tmp_path / "s.tsv").read_text().splitlines()] == ["row", "1", "4"]

    def test_a_file_of_several_blocks_has_the_scores_of_one(
        self, call, bi_folder, cross_folder, pairs_file, tmp_path, monkeypatch
    ):
        for folder in (bi_folder, cross_folder):
            output = tmp_path / f"{folder.name}.tsv"
            assert call("score", folder, pairs_file, "-o", output)[0] == 0
            with monkeypatch.context() as patched:
                patched.setattr(tables, "_ROWS_AT_ONCE", 2)
                patched.setattr(score_embed, "_ROWS_AT_ONCE", 2)
                patched.setattr(score_embed, "_SLOW_ROWS_AT_ONCE", 1)
                code, _, err = call("score", folder, pairs_file, "-o", tmp_path / "blocks.tsv", "--overwrite")
            assert (code, "scoring  4/4" in err) == (0, True)
            whole, blocks = (np.loadtxt(path, skiprows=1) for path in (output, tmp_path / "blocks.tsv"))
            np.testing.assert_allclose(blocks, whole, atol=1e-5)

    def test_a_text_of_several_blocks_is_encoded_once(self, call, bi_folder, pairs_file, tmp_path, monkeypatch):
        read, run = [], Scorer._run
        monkeypatch.setattr(Scorer, "_run", lambda self, texts, *rest: read.extend(texts) or run(self, texts, *rest))
        monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 1)
        monkeypatch.setattr(score_embed, "_ROWS_AT_ONCE", 1)
        assert call("score", bi_folder, pairs_file, "-o", tmp_path / "s.tsv")[0] == 0
        assert sorted(read) == sorted({text for pair in PAIRS for text in pair})

    def test_what_was_scored_before_a_kill_is_not_scored_again(
        self, call, bi_folder, cross_folder, pairs_file, tmp_path, monkeypatch
    ):
        output, asked = tmp_path / "s.tsv", []
        assert call("score", cross_folder, pairs_file, "-o", tmp_path / "whole.tsv")[0] == 0
        score = Scorer.score

        def until_killed(self, queries, documents, **options):
            asked.append(list(queries))
            if len(asked) == 2:
                raise KeyboardInterrupt
            return score(self, queries, documents, **options)

        monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 3)
        monkeypatch.setattr(score_embed, "_SLOW_ROWS_AT_ONCE", 1)
        monkeypatch.setattr(Scorer, "score", until_killed)
        code, _, err = call("score", cross_folder, pairs_file, "-o", output)
        assert (
            code == 130 and "holds the first row; the same command continues after them" in err and not output.exists()
        )
        code, _, err = call("score", cross_folder, pairs_file, "-o", output)
        assert code == 0 and "continuing after the first row" in err and "scoring  4/4" in err
        assert sum(map(len, asked)) == 1 + len(PAIRS)  # the one that was killed twice
        whole, continued = (np.loadtxt(path, skiprows=1) for path in (tmp_path / "whole.tsv", output))
        np.testing.assert_allclose(continued, whole, atol=1e-5)
        assert not list(tmp_path.glob(".s.tsv*"))

    @pytest.mark.parametrize("name", ["s.tsv", "s.jsonl", "e.npy"])
    def test_a_model_that_gives_no_number_writes_nothing(
        self, call, bi_folder, pairs_file, tmp_path, monkeypatch, name
    ):
        run = Scorer._run
        monkeypatch.setattr(Scorer, "_run", lambda self, *arguments: run(self, *arguments) * np.nan)
        texts = tmp_path / "texts.txt"
        texts.write_text("one\n")
        command = ("embed", bi_folder, texts) if name == "e.npy" else ("score", bi_folder, pairs_file)
        code, _, err = call(*command, "-o", tmp_path / name)
        assert code == 1 and "says NaN or infinity of" in err and "Traceback" not in err
        assert not (tmp_path / name).exists()

    def test_what_another_model_scored_is_not_taken(
        self, call, bi_folder, cross_folder, pairs_file, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 1)
        for name in ("_ROWS_AT_ONCE", "_SLOW_ROWS_AT_ONCE"):
            monkeypatch.setattr(score_embed, name, 1)
        output, score, n_blocks = tmp_path / "s.tsv", Scorer.score, iter(range(9))

        def twice(*args, **options):
            if next(n_blocks) == 2:
                raise BadInput("no more")
            return score(*args, **options)

        with monkeypatch.context() as patched:
            patched.setattr(Scorer, "score", twice)
            assert call("score", cross_folder, pairs_file, "-o", output)[0] == 2
        code, _, err = call("score", bi_folder, pairs_file, "-o", output)
        assert code == 0 and "an earlier attempt (the first 2 rows) differs in the model" in err
        assert call("score", bi_folder, pairs_file, "-o", tmp_path / "whole.tsv")[0] == 0
        assert output.read_text() == (tmp_path / "whole.tsv").read_text()

    def test_embeddings_of_several_blocks_go_on_behind_a_kill(self, call, bi_folder, tmp_path, monkeypatch):
        texts = tmp_path / "texts.txt"
        texts.write_text("하나\n\n셋\nfour\nfive\n", encoding="utf-8")
        assert call("embed", bi_folder, texts, "-o", tmp_path / "whole.npy")[0] == 0
        monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 2)
        monkeypatch.setattr(score_embed, "_ROWS_AT_ONCE", 2)
        encode, asked = Scorer.encode, []

        def until_killed(self, texts, **options):
            asked.append(list(texts))
            if len(asked) == 2:
                raise KeyboardInterrupt
            return encode(self, texts, **options)

        monkeypatch.setattr(Scorer, "encode", until_killed)
        assert call("embed", bi_folder, texts, "-o", tmp_path / "v.npy")[0] == 130
        code, _, err = call("embed", bi_folder, texts, "-o", tmp_path / "v.npy")
        assert code == 0 and "continuing after the first 2 rows" in err
        assert asked == [["하나", ""], ["셋", "four"], ["셋", "four"], ["five"]]
        np.testing.assert_allclose(np.load(tmp_path / "v.npy"), np.load(tmp_path / "whole.npy"), atol=1e-6)
        assert not list(tmp_path.glob(".v.npy*"))

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            (["--truncate", "8"], "--truncate"),
            (["--max-length", "16"], "--max-length"),
            (["--prompt", "nope"], None),
        ],
    )
    def test_embeddings_of_other_settings_are_not_taken(self, call, bi_folder, tmp_path, monkeypatch, changed, named):
        texts = tmp_path / "texts.txt"
        texts.write_text("하나\n둘\n셋\n", encoding="utf-8")
        monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 1)
        monkeypatch.setattr(score_embed, "_ROWS_AT_ONCE", 1)
        encode, asked = Scorer.encode, []

        def until_killed(self, texts, **options):
            asked.append(texts)
            if len(asked) == 3:
                raise KeyboardInterrupt
            return encode(self, texts, **options)

        with monkeypatch.context() as patched:
            patched.setattr(Scorer, "encode", until_killed)
            assert call("embed", bi_folder, texts, "-o", tmp_path / "v.npy")[0] == 130
        code, _, err = call("embed", bi_folder, texts, "-o", tmp_path / "v.npy", *changed)
        if named is None:  # refused: the earlier attempt is as it was
            assert code == 2 and "prompt" in err
            assert "continuing after the first 2 rows" in call("embed", bi_folder, texts, "-o", tmp_path / "v.npy")[2]
        else:
            assert code == 0 and f"an earlier attempt (the first 2 rows) differs in {named}" in err
            assert call("embed", bi_folder, texts, "-o", tmp_path / "whole.npy", *changed)[0] == 0
            np.testing.assert_allclose(np.load(tmp_path / "v.npy"), np.load(tmp_path / "whole.npy"), atol=1e-6)

    def test_vectors_stay_where_their_output_is_refused_in_the_end(self, call, bi_folder, tmp_path, monkeypatch):
        texts, output, encode = tmp_path / "texts.txt", tmp_path / "v.npy", Scorer.encode
        texts.write_text("하나\n둘\n셋\n", encoding="utf-8")
        monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 1)
        monkeypatch.setattr(score_embed, "_ROWS_AT_ONCE", 1)

        def meanwhile(self, texts, **options):
            output.write_text("somebody's")
            return encode(self, texts, **options)

        with monkeypatch.context() as patched:
            patched.setattr(Scorer, "encode", meanwhile)
            assert call("embed", bi_folder, texts, "-o", output)[0] == 2
        assert output.read_text() == "somebody's"
        code, _, err = call("embed", bi_folder, texts, "-o", output, "--overwrite")
        assert code == 0 and "continuing after the first 3 rows" in err and np.load(output).shape[0] == 3

    def test_a_block_of_rows_that_cannot_be_used_to_a_stream(self, bi_folder, tmp_path, monkeypatch, capfd):
        (tmp_path / "pairs.tsv").write_text("query\tdocument\n\ta\n\tb\nc\td\ne\tf\n", encoding="utf-8")
        monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 1)
        monkeypatch.setattr(score_embed, "_ROWS_AT_ONCE", 1)
        argv = ["score", str(bi_folder), str(tmp_path / "pairs.tsv"), "--skip-bad-rows", "-o", "/dev/stdout"]
        assert main(argv) == 0
        assert [line.split("\t")[0] for line in capfd.readouterr().out.splitlines()] == ["row", "3", "4"]

    def test_a_cascade_of_the_best_documents_sees_all_of_a_query(self, call, tmp_path, monkeypatch):
        (tmp_path / "pairs.tsv").write_text("query\tdocument\nq\ta\nq\tbb\nq\tccc\nq\tdddd\n", encoding="utf-8")
        monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 2)
        monkeypatch.setattr(score_embed, "_ROWS_AT_ONCE", 2)
        asked = []

        class Lengths:
            runtime = precision = "none"

            def score(self, queries, documents, *, progress=False):
                asked.append(list(documents))
                return np.array([len(document) for document in documents], dtype=np.float32)

        rng = np.random.default_rng(0)
        labels = np.arange(200) % 2 * 1.0
        fitted = fit_cascade(labels + rng.normal(size=200), labels + rng.normal(size=200), labels)
        settings = CascadeSettings(
            student="s", teacher="t", student_runtime="torch", teacher_runtime="torch", student_max_length=8, teacher_max_length=8,
            top_k=1, cascade=fitted,
        )  # fmt: skip
        monkeypatch.setattr(score_embed, "open_scorer", lambda *_, **__: CascadeScorer(Lengths(), Lengths(), settings))
        assert call("score", tmp_path / "cascade", tmp_path / "pairs.tsv", "-o", tmp_path / "s.tsv")[0] == 0
        assert asked == [["a", "bb", "ccc", "dddd"], ["dddd"]]

    def test_the_suffix_decides_the_form(self, call, bi_folder, pairs_file, tmp_path):
        scores = {}
        for suffix in ("csv", "tsv", "jsonl", "parquet", "csv.gz"):
            assert call("score", bi_folder, pairs_file, "-o", tmp_path / f"s.{suffix}")[0] == 0
            table = read_columns(str(tmp_path / f"s.{suffix}"), ["row", "score", "unit_score"])
            scores[suffix] = [float(value) for value in table["score"]]
            assert [int(row) for row in table["row"]] == [1, 2, 3, 4]
        assert (tmp_path / "s.csv").read_text().startswith("row,score,unit_score\n1,")
        for values in scores.values():
            assert values == pytest.approx(scores["parquet"], abs=1e-6)

    def test_another_suffix_is_refused_before_any_work(self, call, tmp_path, pairs_file):
        code, _, err = call("score", tmp_path / "none", pairs_file, "-o", tmp_path / "s.xlsx")
        assert (code, len(err.splitlines())) == (2, 1)
        assert "a table is written as .csv, .tsv, .jsonl (each also .gz) or .parquet, not as .xlsx" in err

    def test_one_pair_is_no_plural_and_there_are_no_empty_lines(self, call, bi_folder, tmp_path):
        (tmp_path / "pairs.csv").write_text("query,document\na,b\n")
        _, out, err = call("score", bi_folder, tmp_path / "pairs.csv", "-o", tmp_path / "s.csv")
        assert out == "" and err.startswith("1 pair → ") and len(err.splitlines()) == 1

    def test_a_run_a_file_and_a_recipe_are_no_models(self, call, trained, pairs_file, tmp_path):
        code, _, err = call("score", trained.folder, pairs_file, "-o", tmp_path / "s.csv")
        assert (code, len(err.splitlines())) == (2, 1)
        assert "in it are teachers/bi, teachers/cross: name one of them" in err
        code, _, err = call("score", pairs_file, pairs_file, "-o", tmp_path / "s.csv")
        assert code == 2 and "is no model folder: it is a file; name a folder" in err

    @pytest.mark.parametrize("command", ["score", "prepare"])
    def test_what_goes_to_stdout_is_the_table_alone(self, bi_folder, pairs_file, capfd, command):
        argv = {
            "score": ["score", bi_folder, pairs_file],
            "prepare": ["prepare", pairs_file, "--column", "query", "--blind"],
        }
        assert main([*map(str, argv[command]), "-o", "/dev/stdout"]) == 0
        out, err = capfd.readouterr()
        lines = out.splitlines()
        assert len(lines) == 5 and {line.count("\t") for line in lines} == {2 if command == "score" else 1}
        assert "4 " in err and all(line.strip() for line in err.splitlines())


class TestEmbed:
    def test_a_text_file_has_no_columns(self, call, bi_folder, tmp_path):
        (tmp_path / "texts.txt").write_text("하나\n", encoding="utf-8")
        code, _, err = call("embed", bi_folder, tmp_path / "texts.txt", "--column", "query", "-o", tmp_path / "v.npy")
        assert code == 2 and "has no column 'query'; leave --column out" in err

    def test_an_array_is_no_table(self, call, bi_folder, pairs_file, tmp_path):
        code, _, err = call("embed", bi_folder, pairs_file, "--column", "query", "-o", tmp_path / "v.csv")
        assert (code, len(err.splitlines())) == (2, 1)
        assert "an array of embeddings is written as .npy, not as .csv" in err

    def test_lines_of_a_text_file(self, call, bi_folder, tmp_path):
        path, output = tmp_path / "texts.txt", tmp_path / "vectors.npy"
        texts = ["개발자", "nurse", "", "개발자"]
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
        code, out, err = call("embed", bi_folder, path, "-o", output)
        assert (code, out) == (0, "")
        assert "4 texts → " in err
        from sentence_transformers import SentenceTransformer

        vectors = np.load(output)
        assert (vectors.shape, vectors.dtype) == ((4, 32), np.float32)
        np.testing.assert_allclose(vectors, SentenceTransformer(str(bi_folder), device="cpu").encode(texts), atol=1e-5)

    def test_column_of_a_table(self, call, bi_folder, tmp_path):
        path, output = tmp_path / "texts.jsonl", tmp_path / "vectors.npy"
        path.write_text("".join(json.dumps({"id": i, "jd": f"text {i}"}) + "\n" for i in range(3)))
        assert call("embed", bi_folder, path, "-o", output, "--column", "jd")[0] == 0
        assert np.load(output).shape == (3, 32)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ([], "has no column 'text'; it has id, jd; set --column"),
            (["--column", "jd", "--prompt", "title"], "stores no prompt named title; stored: "),
        ],
    )
    def test_refuses_in_one_line(self, call, bi_folder, tmp_path, options, says):
        path = tmp_path / "texts.jsonl"
        path.write_text('{"id": 1, "jd": "x"}\n')
        code, _, err = call("embed", bi_folder, path, "-o", tmp_path / "vectors.npy", *options)
        assert (code, len(err.splitlines())) == (2, 1)
        assert says in err
        assert not (tmp_path / "vectors.npy").exists()

    @pytest.mark.parametrize(
        ("recipe", "is_said"),
        [
            ({"objectives": {"matryoshka": None}}, True),
            ({"objectives": {"matryoshka": {"dimensions": [8]}}}, False),
            ({"objectives": {"matryoshka": {"dimensions": [8]}}, "stages": {"a": {"objectives": None}}}, False),
            (
                {
                    "objectives": {"matryoshka": None},
                    "stages": {"a": {"objectives": {"matryoshka": {"dimensions": [8]}}}},
                },
                False,
            ),
            ({"objectives": {"matryoshka": [8]}}, False),
            ({}, False),
        ],
    )
    def test_widths_of_the_last_stage_are_those_of_the_training(self, tmp_path, capsys, recipe, is_said):
        write_card(tmp_path, Artefact("bi_encoder", "train_student", "0123456789abcdef", recipe=recipe))
        score_embed._say_unless_trained_at(8, tmp_path)
        assert ("trained whole alone" in capsys.readouterr().err) == is_said

    def test_cross_encoder_has_no_embeddings(self, call, cross_folder, tmp_path):
        (tmp_path / "texts.txt").write_text("a\n")
        code, _, err = call("embed", cross_folder, tmp_path / "texts.txt", "-o", tmp_path / "vectors.npy")
        assert code == 2
        assert "is a cross-encoder, it has no embeddings" in err

    @pytest.mark.parametrize(
        ("content", "says"), [(b"", "is empty"), ("이력서\n".encode("cp949"), "is not UTF-8"), (None, "no such file")]
    )
    def test_bad_text_file(self, call, bi_folder, tmp_path, content, says):
        path = tmp_path / "texts.txt"
        if content is not None:
            path.write_bytes(content)
        code, _, err = call("embed", bi_folder, path, "-o", tmp_path / "vectors.npy")
        assert code == 2
        assert says in err


def test_messages_of_a_stage_go_to_stderr(call, tmp_path):
    code, out, err = call("train-teacher", write_recipe(tmp_path), "training.max_steps=1")
    assert (code, out) == (0, "")
    assert "teacher cross" in err
    assert (tmp_path / "run" / "recipe.json").is_file()
    again = call("train-teacher", write_recipe(tmp_path), "training.max_steps=1")
    assert again[0] == 0
    assert [line for line in again[2].splitlines() if "finished" in line] == [
        f"{tmp_path / 'run' / 'teachers' / 'cross'} is finished"
    ]
    assert again[2].startswith("data: ")


@pytest.mark.parametrize("width", [None, 60, 400])
def test_a_table_loses_no_number_in_a_narrow_terminal_or_a_file(width, capsys, monkeypatch):
    columns = ["name", *(f"a column {number}" for number in range(20))]
    rows = [[f"model {row}", *(f"0.{row}{number:03d}" for number in range(19)), ""] for row in range(2)]
    if width is not None:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(columns, rows)
    out = capsys.readouterr().out
    assert "…" not in out and all(cell in out for row in rows for cell in row)
    if width == 60:
        assert max(map(len, out.splitlines())) < 60
        assert out.startswith("model 0: a column 0 0.0000; a column 1 0.0001;") and "column 19" not in out
    else:
        assert [line.count("│") for line in out.splitlines()[3:5]] == [22, 22]


def test_a_table_shows_names_as_they_are(capsys):
    names = ["model[v2]", "model[/v2]", "model:smile:"]
    print_table(["name[a]", "value"], [[name, "1"] for name in names])
    out = capsys.readouterr().out
    assert all(name in out for name in ["name[a]", *names])


def test_the_table_of_exports_has_a_row_for_each_and_its_numbers(tmp_path, capsys):
    judged = {"cpu_class": "avx2", "greatest_code": 64}
    for name, precision, arithmetic, overlap in (
        ("onnx-fp32", "fp32", None, None),
        ("openvino-int8", "int8", judged, 0.5),
    ):
        parity = {"kind": "bi_encoder", "n_pairs": 16, "rank_agreement": 0.25, "top_k_overlap": overlap}
        details = {"precision": precision, "parity": parity | {"worst": ["a"], "arithmetic": arithmetic}}
        (tmp_path / "exports" / name).mkdir(parents=True)
        (tmp_path / "exports" / name / "artefact.json").write_text(json.dumps({"details": details}))
    (tmp_path / "exports" / "router").mkdir()
    (tmp_path / "exports" / "router" / "artefact.json").write_text('{"details": {}}')
    print_parity(tmp_path, as_json=False)
    cells = [re.split(" *[│┃] *", line)[1:-1] for line in capsys.readouterr().out.splitlines() if line[0] in "│┃"]
    assert cells == [
        ["export", "n pairs", "rank agreement", "top k overlap"],
        ["onnx-fp32", "16", "0.25000", ""],
        ["openvino-int8", "16", "0.25000", "0.50000"],
    ]
    print_parity(tmp_path, as_json=True)
    first, second = json.loads(capsys.readouterr().out)
    assert (first["export"], first["precision"], second["arithmetic"]) == ("onnx-fp32", "fp32", judged)


class TestPush:
    def test_a_dry_run_lists_what_would_be_sent_and_asks_nobody(self, call, bi_folder, tmp_path, monkeypatch):
        monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was made"))
        folder = shutil.copytree(bi_folder, tmp_path / "model")
        (folder / ".hidden").write_text("x")
        (folder / ".cache").mkdir()
        (folder / ".cache" / "token").write_text("x")
        (folder / "1_Pooling" / ".env").write_text("x")
        (folder / "README.md").write_text("hello")
        before = sorted(path.name for path in tmp_path.rglob("*"))
        code, out, _ = call("push", folder, "team/model", "--dry-run")
        assert code == 0
        *files, last = out.splitlines()
        listed = {line.split("  ")[-1] for line in files}
        present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert listed == present - {".hidden", ".cache/token", "1_Pooling/.env"}
        assert "to team/model (private); nothing was sent" in last
        assert sorted(path.name for path in tmp_path.rglob("*")) == before

    def test_a_push_sends_what_its_dry_run_lists(self, call, bi_folder, tmp_path, monkeypatch):
        folder, sent = shutil.copytree(bi_folder, tmp_path / "model"), []

        def upload(_, *, folder_path, ignore_patterns, **__):  # as the hub's client chooses files
            found = [str(path.relative_to(folder_path)) for path in Path(folder_path).rglob("*") if path.is_file()]
            sent.extend(filter_repo_objects(found, ignore_patterns=ignore_patterns))

        monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: None)
        monkeypatch.setattr(HfApi, "upload_folder", upload)
        (folder / "README.md").write_text("hello")
        (folder / "1_Pooling" / ".env").write_text("x")
        _, out, _ = call("push", folder, "team/model", "--dry-run")
        assert call("push", folder, "team/model")[0] == 0
        assert set(sent) == {line.split("  ")[-1] for line in out.splitlines()[:-1]}

    def test_the_texts_in_an_older_card_are_not_sent(self, call, bi_folder, tmp_path, monkeypatch):
        folder, sent = shutil.copytree(bi_folder, tmp_path / "model"), {}
        (folder / "README.md").write_text("hello")
        parity = {"n_pairs": 2, "worst": [{"text": "Jane Doe, 010-1234", "cosine": 0.9}]}
        write_card(folder, Artefact("bi_encoder", "export", "f", details={"parity": parity}))
        before = (folder / "artefact.json").read_bytes()
        monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: None)
        monkeypatch.setattr(
            HfApi, "upload_folder", lambda _, *, ignore_patterns, **__: sent.update(left=ignore_patterns)
        )
        monkeypatch.setattr(
            HfApi,
            "upload_file",
            lambda _, *, path_or_fileobj, path_in_repo, **__: sent.update({path_in_repo: path_or_fileobj}),
        )
        code, _, err = call("push", folder, "team/model")
        assert code == 0 and "1 text of your held-back pairs" in err
        assert "artefact.json" in sent["left"] and (folder / "artefact.json").read_bytes() == before
        assert json.loads(sent["artefact.json"])["details"]["parity"] == {"n_pairs": 2}
        *files, _ = call("push", folder, "team/model", "--dry-run")[1].splitlines()
        assert f"{len(sent['artefact.json']):,} bytes  artefact.json" in {line.strip() for line in files}

    def test_a_dry_run_refuses_what_a_push_would(self, call, bi_folder, tmp_path):
        folder = shutil.copytree(bi_folder, tmp_path / "model")
        (folder / "README.md").unlink(missing_ok=True)
        assert "has no README.md" in call("push", folder, "team/model", "--dry-run")[2]
        (folder / "README.md").write_text("hello")
        code, _, err = call("push", folder, "a b", "--dry-run")
        assert (code, len(err.splitlines())) == (2, 1)

    def test_a_folder_that_is_not_what_was_made_is_not_sent(self, call, bi_folder, tmp_path):
        folder = shutil.copytree(bi_folder, tmp_path / "model")
        (folder / "README.md").write_text("hello")
        write_card(folder, Artefact("bi_encoder", "train_student", "f"))
        assert call("push", folder, "team/model", "--dry-run")[0] == 0
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        code, _, err = call("push", folder, "team/model", "--dry-run")
        assert (code, len(err.splitlines())) == (2, 1)
        assert "was changed or damaged after it was made: its files are of revision" in err


class TestData:
    """Commands that make or change data."""

    def test_synthesis_is_estimated_without_a_key_or_a_request(self, call, tmp_path, monkeypatch):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        code, out, _ = call("synthesize", tmp_path / "pairs", "--pairs", 1000, "--estimate")
        assert code == 0
        assert "500 requests" in out and "$" in out
        assert not (tmp_path / "pairs").exists()

    def test_synthesis_without_a_key_is_one_line(self, call, tmp_path, monkeypatch):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        code, _, err = call("synthesize", tmp_path / "pairs", "--pairs", 10)
        assert code == 2
        assert "set the environment variable OPENAI_API_KEY" in err
        assert not (tmp_path / "pairs").exists()

    def test_synthesis_names_every_wrong_option(self, call, tmp_path):
        code, _, err = call("synthesize", tmp_path / "pairs", "--pairs", 10, "--languages", "ko,xx", "--budget", -1)
        assert code == 2
        assert "languages" in err and "budget_usd" in err

    def test_resumes_are_cut_blinded_and_what_went_is_listed(self, call, tmp_path):
        source, output, dropped = (tmp_path / name for name in ("in.csv", "out.csv", "dropped.tsv"))
        source.write_text('id,resume\n1,"성명: 홍길동\n[경력]\n한빛병원 간호사 3년"\n', encoding="utf-8")
        code, _, err = call("prepare", source, "-o", output, "--keep", "experience", "--blind", "--dropped", dropped)
        assert code == 0, err
        assert "한빛병원" in output.read_text(encoding="utf-8") and "홍길동" not in output.read_text(encoding="utf-8")
        assert "홍길동" in dropped.read_text(encoding="utf-8")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ((), "nothing to do"),
            (("--keep", "hobbies"), "'hobbies' is no kind of section"),
            (("--blind", "--column", "cv"), "has no column 'cv'; it has id, resume"),
        ],
    )
    def test_what_cannot_be_prepared_is_one_line(self, call, tmp_path, options, words):
        source = tmp_path / "in.csv"
        source.write_text("id,resume\n1,text\n", encoding="utf-8")
        code, _, err = call("prepare", source, "-o", tmp_path / "out.csv", *options)
        assert code == 2
        assert words in err
        assert not (tmp_path / "out.csv").exists()

    def test_ablation_without_a_smoke_section_is_one_line(self, call, tmp_path):
        path = tmp_path / "table.yaml"
        path.write_text(
            "name: x\ndata: {V1: {train: bundled}}\nbaselines: {tfidf: {kind: tfidf}}\nrows: [{name: a, model: tfidf}]\n"
        )
        code, _, err = call("ablate", path, "--smoke")
        assert code == 2
        assert "has no section smoke" in err
        code, _, err = call("ablate", path, "--rows", "nobody", f"output_dir={tmp_path / 'out'}")
        assert code == 2
        assert "no row has that model; there are tfidf" in err

    def test_a_recipe_with_nothing_to_train_is_one_line(self, call, tmp_path):
        path = tmp_path / "recipe.yaml"
        path.write_text("name: x\ndata: {train: bundled}\n")
        code, _, err = call("run", path, f"output_dir={tmp_path / 'out'}")
        assert code == 2
        assert "neither teachers nor a student" in err
        code, _, err = call("train-student", path, f"output_dir={tmp_path / 'out'}")
        assert code == 2
        assert "this recipe has no student" in err


def _raise(error):
    raise error


class TestDisk:
    """A full disk is one line and exit code 1, whichever library met it."""

    @pytest.mark.parametrize(
        "error",
        [
            OSError(28, "No space left on device", "/runs/x"),
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            OSError(28, "Error writing bytes to file. Detail: [errno 28] No space left on device"),
            RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
            RuntimeError("basic_ios::clear: iostream error"),
        ],
    )
    def test_it_is_said_in_one_line(self, capsys, error):
        def work():
            raise error

        assert guarded(work) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: No space left on device: ")
        assert said.endswith("make room and start again\n")

    def test_a_write_that_names_no_file_names_the_folder_and_its_room(self, capsys, tmp_path):
        def work():
            with new_folder(tmp_path / "student"):
                raise OSError(28, "No space left on device")

        assert guarded(work) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"error: No space left on device: {tmp_path / 'student'}; ")
        assert "MB are free there; nothing finished was lost" in said

    def test_what_may_not_be_written_needs_no_room(self, capsys):
        def work():
            raise PermissionError(13, "Permission denied", "/runs/x")

        assert guarded(work) == 1
        said = "error: Permission denied: /runs/x; nothing finished was lost, allow it or name another place and start again\n"
        assert capsys.readouterr().err == said

    def test_it_is_heard_through_the_error_of_closing_the_file(self, capsys):
        def work():
            try:
                raise OSError(28, "No space left on device")
            finally:
                raise RuntimeError("unexpected pos 9664 vs 9556")

        assert guarded(work) == 1
        assert capsys.readouterr().err.startswith("error: No space left on device: ")

    def test_the_file_is_named_that_an_earlier_error_names(self, capsys):
        def work():
            try:
                raise OSError(28, "No space left on device", "/runs/x")
            finally:
                raise RuntimeError("unexpected pos 9664 vs 9556")

        assert guarded(work) == 1
        assert capsys.readouterr().err.startswith("error: No space left on device: /runs/x;")

    def test_a_thread_that_meets_it_first_is_silent_another_is_not(self, capsys, monkeypatch):
        heard = []
        monkeypatch.setattr(threading, "excepthook", heard.append)
        _hear_threads.cache_clear()

        def work():
            for error in (OSError(28, "No space left on device"), ValueError("a defect")):
                thread = threading.Thread(target=_raise, args=(error,))
                thread.start()
                thread.join()

        assert guarded(work) == 0
        assert [type(failed.exc_value) for failed in heard] == [ValueError]
        assert capsys.readouterr().err == ""

    def test_other_errors_keep_their_traceback(self):
        def work():
            raise RuntimeError("a defect")

        with pytest.raises(RuntimeError, match="a defect"):
            guarded(work)


class TestUnderALauncher:
    """Of several processes the first one prints what went wrong, and each leaves it where torch's launcher looks."""

    @pytest.fixture
    def error_file(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
        return tmp_path / "error.json"

    @pytest.mark.parametrize(("rank", "printed"), [("0", True), ("1", False)])
    def test_bad_input_is_printed_once_and_left_for_the_summary(self, call, error_file, monkeypatch, rank, printed):
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

        monkeypatch.setenv("RANK", rank)
        code, _, err = call(error_file.with_name("none.yaml"), entry=train_teacher.main)
        assert code == 2
        assert ("no such recipe" in err) is printed
        failure = ProcessFailure(local_rank=int(rank), pid=1, exitcode=code, error_file=str(error_file))
        assert "none.yaml: no such recipe" in str(ChildFailedError("recipes.train_teacher", {int(rank): failure}))
        assert [path.name for path in error_file.parent.iterdir()] == ["error.json"]

    def test_a_process_that_cannot_leave_it_prints_it(self, call, error_file, monkeypatch):
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(error_file.parent / "none" / "error.json"))
        assert "no such recipe" in call(error_file.with_name("none.yaml"), entry=train_teacher.main)[2]

    def test_a_defect_leaves_its_traceback(self, error_file):
        def work():
            raise RuntimeError("a defect")

        with pytest.raises(RuntimeError, match="a defect"):
            guarded(work)
        left = json.loads(error_file.read_text(encoding="utf-8"))["message"]["message"]
        assert left.startswith("Traceback")
        assert left.endswith("RuntimeError: a defect\n")


@pytest.mark.parametrize("judged", [True, False])
def test_a_precision_without_a_gate_is_explained_below_the_table(judged, capsys):
    """ "bf16 asked" and "no gate" stood in the table, and nothing said what they mean."""
    speed = {"folder": "openvino-fp32", "precision": "bf16 asked", "tokens_per_s": 9.0, "p50_ms": 1.0, "judged": judged}
    stored = ["exports/.speeds-1.json", "exports/openvino-fp32/.tuning-2.json"]
    print_tuned({"precisions": [speed], "fastest": "openvino-fp32", "left_out": [], "stored_in": stored})
    shown = capsys.readouterr().out
    assert shown.endswith("".join(f"stored in {path}\n" for path in stored))
    assert ("another precision than it was made for" in shown) == (not judged) == ("never chosen" in shown)
