"""Rows that outlive the command that computed them: what is taken again, and what never is."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distill.errors import BadInput
from distill.files import growing, locking
from distill.files.growing import growing_array, take_file
from tests.conftest import ROOT

FROM = {"the model": "m1", "the pairs": "p1"}
ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


def attempt(target, *, stop_after=None, made_from=FROM, rows=ROWS, size=2, **options):
    """Compute the rows of an output, as far as the attempt gets; return the rows and where each computed block starts."""
    computed, found = [], []
    options = {"width": 2, "dtype": np.float32, "keep": True} | options
    try:
        with growing_array(target, lambda: made_from, **options) as array:
            for start in range(0, len(rows), size):
                block = rows[start : start + size]

                def compute(block=block, start=start):
                    if len(found) == stop_after:
                        raise KeyboardInterrupt
                    computed.append(start)
                    return block

                found.append(np.array(array.next(len(block), compute)))
    except KeyboardInterrupt:
        pass
    return (np.concatenate(found) if found else None), computed


def unfinished(target):
    return target.with_name(f".{target.name}.unfinished")


def stored(target, suffix):
    [path] = unfinished(target).glob(f"*.{suffix}")
    return path


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out.npy"


class TestContinues:
    def test_what_an_attempt_computed_is_not_computed_again(self, target, caplog):
        assert attempt(target, stop_after=2)[1] == [0, 2]
        rows, computed = attempt(target)
        assert computed == [4]
        np.testing.assert_array_equal(rows, ROWS)
        assert "holds the first 4 rows; the same command continues after them" in caplog.text
        assert "out.npy: continuing after the first 4 rows" in caplog.text
        assert os.listdir(target.parent) == []

    @pytest.mark.parametrize("width", [0, 2])
    @pytest.mark.parametrize("header", [b"", b"head"])
    def test_a_row_that_is_not_whole_is_computed_again(self, target, width, header):
        rows = ROWS if width else ROWS[:, 0]
        options = {"width": width, "header": header, "rows": rows}
        attempt(target, stop_after=2, **options)
        with stored(target, "rows").open("ab") as file:
            file.write(b"tor")
        found, computed = attempt(target, **options)
        assert computed == [4]
        np.testing.assert_array_equal(found, rows)
        attempt(target, stop_after=2, **options)
        with growing_array(target, lambda: FROM, keep=True, width=width, dtype=np.float32, header=header) as array:
            array.next(4, lambda: 1 / 0)
            array.next(2, lambda: rows[4:])
            assert array.path.read_bytes() == header + rows.tobytes()

    def test_other_blocks_than_before_give_the_same_rows(self, target):
        attempt(target, stop_after=1)
        rows, computed = attempt(target, size=3)
        np.testing.assert_array_equal(rows, ROWS)
        assert computed == [0, 3]

    def test_after_a_process_that_was_killed(self, target):
        program = (
            "import os, sys, numpy as np; from pathlib import Path\n"
            "from distill.files.growing import growing_array\n"
            f"with growing_array(Path(sys.argv[1]), lambda: {FROM!r}, keep=True, width=2, dtype=np.float32) as array:\n"
            "    array.next(2, lambda: np.arange(4).reshape(2, 2))\n"
            "    os.kill(os.getpid(), 9)\n"
        )
        done = subprocess.run([sys.executable, "-c", program, str(target)], cwd=ROOT, check=False)
        assert done.returncode == -signal.SIGKILL
        rows, computed = attempt(target)
        assert computed == [2, 4]
        np.testing.assert_array_equal(rows, ROWS)


class TestTakesNothingElse:
    def test_rows_of_another_model(self, target, caplog):
        attempt(target, stop_after=2, rows=ROWS + 100)
        rows, computed = attempt(target, made_from=FROM | {"the model": "m2"})
        assert computed == [0, 2, 4]
        np.testing.assert_array_equal(rows, ROWS)
        assert (
            "out.npy: an earlier attempt (the first 4 rows) differs in the model; all rows are computed" in caplog.text
        )
        assert os.listdir(target.parent) == []  # those of the other model neither, now that the output is there

    def test_rows_of_another_width(self, target):
        attempt(target, stop_after=2)
        assert attempt(target, width=1, rows=ROWS[:, :1])[1] == [0, 2, 4]

    def test_an_attempt_that_computes_nothing_leaves_an_earlier_one(self, target):
        attempt(target, stop_after=2)
        with pytest.raises(BadInput), growing_array(target, lambda: FROM | {"the model": "m2"}, keep=True):
            raise BadInput("no such prompt")
        assert attempt(target)[1] == [4]

    def test_two_attempts_that_were_killed_keep_their_own_rows(self, target):
        other = FROM | {"the model": "m2"}
        attempt(target, stop_after=2)
        attempt(target, stop_after=1, made_from=other, rows=ROWS + 100)
        rows, computed = attempt(target, made_from=other, rows=ROWS + 100)
        np.testing.assert_array_equal(rows, ROWS + 100)
        assert computed == [2, 4]

    @pytest.mark.parametrize(
        "state", ["", "[]", "{}", '{"made_from": 1, "n_rows": 2}', "x", '{"made_from": {}, "n_rows": "2"}']
    )
    def test_rows_of_which_nobody_knows_how_many_there_are(self, target, state, caplog):
        attempt(target, stop_after=1)
        stored(target, "json").write_text(state)
        rows, computed = attempt(target)
        assert computed == [0, 2, 4] and "is damaged; its rows are computed again" in caplog.text
        np.testing.assert_array_equal(rows, ROWS)

    @pytest.mark.parametrize("n_rows", [-1, 7, 10**30, True])
    def test_more_rows_than_there_are(self, target, n_rows):
        attempt(target, stop_after=1)
        path = stored(target, "json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"n_rows": n_rows}))
        assert attempt(target)[1] == [0, 2, 4]

    def test_rows_whose_number_could_not_be_written(self, target, monkeypatch, caplog):
        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
            patched.setattr(growing, "write_json", full)
            attempt(target)
        assert "continues after" not in caplog.text and os.listdir(target.parent) == []
        assert attempt(target)[1] == [0, 2, 4]


class TestFolder:
    def test_belongs_to_one_process(self, target):
        with growing_array(target, lambda: FROM, keep=True):
            with pytest.raises(
                BadInput, match=r"another process is writing .*out\.npy; wait for it, or name another out"
            ):
                attempt(target)

    def test_that_is_removed_before_it_is_opened_is_made_again(self, target, monkeypatch):
        opening, times = os.open, []

        def removed_first(path, *arguments, **options):
            if path == unfinished(target) and not times:
                times.append(unfinished(target).rmdir())
            return opening(path, *arguments, **options)

        monkeypatch.setattr(locking.os, "open", removed_first)
        assert attempt(target)[1] == [0, 2, 4] and times

    def test_that_is_removed_while_one_waits_for_it_is_made_again(self, target, monkeypatch):
        flock, times = locking.fcntl.flock, []

        def removed_first(descriptor, flags):
            if not times:
                unfinished(target).rmdir()
            times.append(descriptor)
            flock(descriptor, flags)

        monkeypatch.setattr(locking.fcntl, "flock", removed_first)
        assert attempt(target)[1] == [0, 2, 4] and len(times) == 2

    def test_is_gone_where_nothing_was_computed(self, target):
        with pytest.raises(BadInput), growing_array(target, lambda: FROM, keep=True):
            raise BadInput("a file that cannot be read")
        assert os.listdir(target.parent) == []

    def test_of_somebody_else_is_not_touched(self, target):
        unfinished(target).mkdir()
        (unfinished(target) / "notes.txt").write_text("mine")
        with pytest.raises(BadInput, match=r"holds notes\.txt, which is no file of an unfinished output"):
            attempt(target)
        assert (unfinished(target) / "notes.txt").read_text() == "mine"

    def test_that_holds_a_link_is_refused(self, target):
        attempt(target, stop_after=1)
        path, mine = stored(target, "rows"), target.with_name("mine")
        path.unlink()
        mine.write_text("mine")
        path.symlink_to(mine)
        with pytest.raises(BadInput, match="which is no file of an unfinished output"):
            attempt(target)
        assert mine.read_text() == "mine"

    def test_that_is_a_file_or_a_link_is_refused(self, target, tmp_path):
        unfinished(target).write_text("mine")
        with pytest.raises(BadInput, match="is no folder"):
            attempt(target)
        assert unfinished(target).read_text() == "mine"
        unfinished(target).unlink()
        unfinished(target).symlink_to(tmp_path)
        with pytest.raises(BadInput, match="is no folder"):
            attempt(target)

    def test_that_is_not_used_is_said(self, target, caplog):
        attempt(target, stop_after=1)
        assert attempt(target, keep=False)[1] == [0, 2, 4]
        assert "holds rows of an earlier attempt, which are not used" in caplog.text

    def test_that_cannot_be_removed_is_said(self, target, monkeypatch, caplog):
        def denied(path):
            raise OSError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "rmdir", denied)
        assert attempt(target)[1] == [0, 2, 4]
        assert "cannot be removed (Permission denied); it is not needed any more" in caplog.text


def test_a_stream_stores_nothing_and_hashes_no_model(caplog):
    with growing_array(Path("/dev/null"), lambda: 1 / 0, keep=True) as array:
        assert array.next(2, lambda: np.ones(2)).tolist() == [1, 1] and array.path is None
        assert array.next(0, lambda: np.zeros(0)).tolist() == []
    assert not caplog.text


def test_rows_of_another_shape_are_an_error(target):
    with pytest.raises(ValueError, match="shape"), growing_array(target, lambda: FROM, keep=True, width=3) as array:
        array.next(2, lambda: np.ones((2, 2)))


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_is_taken_stays(tmp_path, monkeypatch, links):
    source, temporary = tmp_path / "rows", tmp_path / "temporary"
    source.write_text("rows")
    temporary.touch()
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    take_file(source, temporary)
    assert source.read_text() == temporary.read_text() == "rows"
