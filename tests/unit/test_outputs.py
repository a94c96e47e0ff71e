"""The one door for outputs: what is refused, what is written as it is, what an overwrite needs."""

import errno
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from distill.errors import BadInput
from distill.files.outputs import check_output_folder, is_stream, output_file, output_folder
from tests.conftest import ROOT


def write(target, text="new", **options):
    with output_file(target, **options) as path:
        path.write_text(text)


def model_folder(folder, *names):
    folder.mkdir(parents=True)
    for name in names or ("modules.json",):
        (folder / name).write_text("{}")
    return folder


class TestFile:
    def test_is_new_and_alone(self, tmp_path):
        write(tmp_path / "out.tsv")
        assert (tmp_path / "out.tsv").read_text() == "new"
        assert os.listdir(tmp_path) == ["out.tsv"]

    @pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no folder in memory here")
    def test_in_memory_stays_like_any_other(self):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            target = Path(folder) / "out.tsv"
            target.write_text("mine")
            with pytest.raises(BadInput, match="would be lost"):
                write(target)
            assert not is_stream(target) and is_stream(Path("/dev/null"))

    def test_of_the_user_stays_unless_told(self, tmp_path):
        target = tmp_path / "out.tsv"
        target.write_text("mine")
        target.chmod(0o640)
        with pytest.raises(BadInput, match="4 bytes, which would be lost.*--overwrite"):
            write(target)
        assert target.read_text() == "mine"
        write(target, overwrite=True)
        assert target.read_text() == "new" and target.stat().st_mode & 0o777 == 0o640

    def test_that_is_empty_loses_nothing(self, tmp_path):
        (tmp_path / "out.tsv").touch()  # as mktemp leaves it
        write(tmp_path / "out.tsv")
        assert (tmp_path / "out.tsv").read_text() == "new"

    def test_that_comes_meanwhile_stays(self, tmp_path):
        with pytest.raises(BadInput, match="there already"), output_file(tmp_path / "out") as path:
            path.write_text("new")
            (tmp_path / "out").write_text("other")
        assert (tmp_path / "out").read_text() == "other" and os.listdir(tmp_path) == ["out"]

    def test_clears_what_killed_processes_left_but_not_what_others_write(self, tmp_path):
        dead, alive, other = ".999999999.tmp.out.tsv", f".{os.getppid()}.tmp.out.tsv", ".999999999.tmp.other.tsv"
        for name in (dead, alive, other):
            (tmp_path / name).touch()
        write(tmp_path / "out.tsv")
        assert sorted(os.listdir(tmp_path)) == sorted([alive, other, "out.tsv"])

    def test_that_finds_no_room_is_no_bad_input(self, tmp_path, monkeypatch):
        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "touch", full)
        with pytest.raises(OSError, match="No space left"), output_file(tmp_path / "out"):
            pass

    def test_sigterm_leaves_nothing(self, tmp_path):
        program = (
            "import signal, sys\nfrom pathlib import Path\nfrom distill.files.outputs import output_file\n"
            "from recipes._launch import guarded\n"
            "def work():\n with output_file(Path(sys.argv[1])) as path:\n"
            "  path.write_text('half')\n  signal.raise_signal(signal.SIGTERM)\n"
            "sys.exit(guarded(work))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "out"], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert (done.returncode, done.stderr) == (
            143,
            "error: ended by SIGTERM; what was stored stays: start the same command again\n",
        )
        assert os.listdir(tmp_path) == []

    def test_that_fails_leaves_nothing(self, tmp_path):
        with pytest.raises(RuntimeError), output_file(tmp_path / "out") as path:
            path.write_text("half")
            raise RuntimeError
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        "how", ["itself", "another spelling", "link", "hard link", "in a folder", "hard link into a folder"]
    )
    def test_is_no_input(self, tmp_path, how):
        folder = tmp_path / "inputs"
        folder.mkdir()
        given = folder / "pairs.tsv"
        given.write_text("mine")
        target, inputs = given, [given]
        if how == "another spelling":
            target = tmp_path / "inputs" / ".." / "inputs" / "pairs.tsv"
        elif how == "in a folder":
            target, inputs = folder / "new.tsv", [folder]
        elif how != "itself":
            target, inputs = tmp_path / "link", [folder] if "folder" in how else [given]
            os.link(given, target) if "hard" in how else target.symlink_to(given)
        with pytest.raises(BadInput, match="input of this command"):
            write(target, inputs=["hub/name", *inputs], overwrite=True)
        assert given.read_text() == "mine"

    @pytest.mark.parametrize(
        "names", [("modules.json",), ("artefact.json",), ("scorer.json",), ("config.json", "model.safetensors")]
    )
    def test_lies_in_no_model_folder(self, tmp_path, names):
        model = model_folder(tmp_path / "model", *names)
        (model / "openvino").mkdir()
        for target in (model / "scores.tsv", model / "openvino" / "scores.tsv", model / names[-1]):
            with pytest.raises(BadInput, match="lies in the model folder"):
                write(target, overwrite=True)

    def test_beside_a_config_of_something_else_is_fine(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        write(tmp_path / "out.tsv")

    def test_is_no_link(self, tmp_path):
        (tmp_path / "mine").write_text("mine")
        for goal in ("mine", "nowhere"):
            (tmp_path / "link").unlink(missing_ok=True)
            (tmp_path / "link").symlink_to(tmp_path / goal)
            with pytest.raises(BadInput, match=f"is a link to .*{goal}"):
                write(tmp_path / "link", overwrite=True)
        assert (tmp_path / "mine").read_text() == "mine" and (tmp_path / "link").is_symlink()

    @pytest.mark.parametrize("name", ["no/out", "file/out", ".", "x" * 300, "x" * 250, "a\0b"])
    def test_has_a_place(self, tmp_path, name):
        (tmp_path / "file").touch()
        with pytest.raises(BadInput, match="folder|cannot be written"):
            write(tmp_path / name)
        assert os.listdir(tmp_path) == ["file"]

    def test_a_device_is_written_into(self):
        before = os.stat("/dev/null")
        write(Path("/dev/null"))
        assert os.path.samestat(before, os.stat("/dev/null"))

    def test_stdout_that_is_appended_to_a_file_loses_nothing(self, tmp_path):
        (tmp_path / "log").write_text("before")
        with (tmp_path / "log").open("a") as file:
            stream = Path(f"/dev/fd/{file.fileno()}")
            with pytest.raises(BadInput, match="is there already .6 bytes, which would be lost"):
                write(stream)
            assert (tmp_path / "log").read_text() == "before"
            write(stream, overwrite=True)
        assert (tmp_path / "log").read_text() == "new"

    def test_a_pipe_is_written_into(self, tmp_path):
        pipe, read = tmp_path / "pipe", []
        os.mkfifo(pipe)
        reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
        reader.start()
        write(pipe)
        reader.join(10)
        assert read == ["new"] and pipe.is_fifo()


class TestNewFolder:
    def test_is_whole_or_not_there(self, tmp_path):
        with pytest.raises(RuntimeError), output_folder(tmp_path / "out") as folder:
            (folder / "half").touch()
            raise RuntimeError
        assert os.listdir(tmp_path) == []
        with output_folder(tmp_path / "out") as folder:
            (folder / "whole").touch()
        assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == ["whole"]

    def test_that_another_process_wrote_meanwhile_stays(self, tmp_path):
        with pytest.raises(BadInput, match=r"holds other files \(theirs\)"), output_folder(tmp_path / "out") as folder:
            (folder / "ours").touch()
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs").touch()
        assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == ["theirs"]

    def test_replaces_an_earlier_result_only_when_told(self, tmp_path):
        for name in ("card.json", "old"):
            (tmp_path / "out").mkdir(exist_ok=True)
            (tmp_path / "out" / name).touch()
        with pytest.raises(BadInput, match="--overwrite"), output_folder(tmp_path / "out", ours=["card.json"]):
            pass
        with output_folder(tmp_path / "out", ours=["card.json"], overwrite=True) as folder:
            (folder / "new").touch()
        assert os.listdir(tmp_path / "out") == ["new"]


@pytest.mark.slow  # two processes import what a command needs
def test_of_two_processes_on_one_output_one_wins(tmp_path):
    source = tmp_path / "in.csv"
    source.write_text(
        "id,resume\n" + "".join(f'{i},"성명: 홍길동\n경력 {i}년"\n' for i in range(3000)), encoding="utf-8"
    )
    command = [sys.executable, "-m", "recipes.cli", "prepare", source, "--blind", "-o", tmp_path / "out.csv"]
    started = [subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in started]
    assert sorted(process.returncode for process in started) == [0, 2]
    assert sum("is there already" in text for text in said) == 1 and not any("Traceback" in text for text in said)
    assert len((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()) == 6001
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


class TestFolder:
    def test_is_new_or_empty(self, tmp_path):
        (tmp_path / "empty").mkdir()
        check_output_folder(tmp_path / "new" / "deep")
        check_output_folder(tmp_path / "empty")
        assert os.listdir(tmp_path) == ["empty"]

    def test_of_something_else_is_refused_whatever_is_said(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(BadInput, match=r"holds other files \(notes.txt\)"):
            check_output_folder(tmp_path, ours=["benchmark.json"], overwrite=True)

    def test_with_nothing_but_what_a_killed_process_left_is_nobodys(self, tmp_path):
        (tmp_path / ".report.999999999.tmp").mkdir()
        check_output_folder(tmp_path, ours=["benchmark.json"])

    def test_of_ours_needs_a_word(self, tmp_path):
        (tmp_path / "benchmark.json").touch()
        with pytest.raises(BadInput, match="--overwrite"):
            check_output_folder(tmp_path, ours=["benchmark.json"])
        check_output_folder(tmp_path, ours=["benchmark.json"], overwrite=True)

    def test_a_file_that_is_read_does_not_lie_in_it(self, tmp_path):
        """An earlier result that is written once more would be read as its own input, and lost."""
        for name in ("benchmark.json", "pairs.tsv"):
            (tmp_path / name).write_text("x")
        with pytest.raises(BadInput, match="holds an input of this command"):
            check_output_folder(tmp_path, inputs=[tmp_path / "pairs.tsv"], ours=["benchmark.json"], overwrite=True)

    @pytest.mark.parametrize(
        "place", ["model", "model/inner", ".", "link", "model/modules.json", "model/modules.json/x"]
    )
    def test_is_no_input_and_around_none(self, tmp_path, place):
        model = model_folder(tmp_path / "model")
        (tmp_path / "link").symlink_to(model)
        with pytest.raises(BadInput):
            check_output_folder(tmp_path / place, inputs=[model], ours=["modules.json"], overwrite=True)
        assert os.listdir(model) == ["modules.json"]
