"""Rows that outlive the command that computed them: what is taken again, and what never is."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from distill.errors import BadInput
from distill.files.growing import GrowingArray, growing_array

FROM = {"model": "m1", "pairs": "p1"}
ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


class Computed(list):
    """Gives rows of an array and remembers which were asked for."""

    def blocks(self, array: GrowingArray, rows, size=2):
        for start in range(0, len(rows), size):

            def compute(block=rows[start : start + size], start=start):
                self.append(start)
                return block

            yield array.next(len(rows[start : start + size]), compute)


def attempt(target, *, stop_after=None, made_from=FROM, rows=ROWS, **options):
    """Compute the rows of an output, as far as the attempt gets; return the rows and where each computed block starts."""
    computed, found = Computed(), []
    options = {"width": 2, "dtype": np.float32} | options
    try:
        with growing_array(target, made_from, **options) as array:
            for number, block in enumerate(computed.blocks(array, rows)):
                if number == stop_after:
                    raise KeyboardInterrupt
                found.append(block)
    except KeyboardInterrupt:
        pass
    return (np.concatenate(found) if found else None), list(computed)


def unfinished(target):
    return target.with_name(f".{target.name}.unfinished")


def test_what_an_attempt_computed_is_not_computed_again(tmp_path, caplog):
    target = tmp_path / "out.npy"
    assert attempt(target, stop_after=1)[1] == [0, 2]
    rows, computed = attempt(target)
    assert computed == [4]
    np.testing.assert_array_equal(rows, ROWS)
    assert "4 rows of the result are stored in" in caplog.text and "going on behind the 4 rows" in caplog.text
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("width", [0, 2])
@pytest.mark.parametrize("header", [b"", b"head"])
def test_a_row_that_is_not_whole_is_computed_again(tmp_path, width, header):
    target = tmp_path / "out.npy"
    rows = ROWS if width else ROWS[:, 0]
    attempt(target, stop_after=1, width=width, header=header, rows=rows)
    kept = unfinished(target) / "rows.bin"
    with kept.open("ab") as file:
        file.write(b"tor")
    with growing_array(target, FROM, width=width, dtype=np.float32, header=header) as array:
        assert array.n_found == 4 and kept.stat().st_size == len(header) + 4 * 4 * max(1, width)
        computed = Computed()
        found = np.concatenate(list(computed.blocks(array, rows)))
        assert computed == [4] and kept.read_bytes() == header + rows.tobytes()
    np.testing.assert_array_equal(found, rows)


def test_other_blocks_than_before_give_the_same_rows(tmp_path):
    target = tmp_path / "out.npy"
    attempt(target, stop_after=0)
    with growing_array(target, FROM, width=2, dtype=np.float32) as array:
        computed = Computed()
        np.testing.assert_array_equal(np.concatenate(list(computed.blocks(array, ROWS, size=3))), ROWS)
        assert computed == [0, 3]


def test_rows_of_another_model_are_never_taken(tmp_path, caplog):
    target = tmp_path / "out.npy"
    attempt(target, stop_after=2, rows=ROWS + 100)
    rows, computed = attempt(target, made_from=FROM | {"model": "m2"})
    assert computed == [0, 2, 4]
    np.testing.assert_array_equal(rows, ROWS)
    assert "6 rows done with other model; all is computed anew" in caplog.text


@pytest.mark.parametrize(
    "state", ["", "[]", "{}", '{"made_from": 1, "n_rows": 2}', "x", '{"made_from": {}, "n_rows": "2"}']
)
def test_a_damaged_state_starts_anew(tmp_path, state):
    target = tmp_path / "out.npy"
    attempt(target, stop_after=1)
    (unfinished(target) / "state.json").write_text(state)
    rows, computed = attempt(target)
    assert computed == [0, 2, 4]
    np.testing.assert_array_equal(rows, ROWS)


@pytest.mark.parametrize("n_rows", [-1, 7, 10**30, True])
def test_a_state_that_says_more_than_there_is_starts_anew(tmp_path, n_rows):
    target = tmp_path / "out.npy"
    attempt(target, stop_after=1)
    (unfinished(target) / "state.json").write_text(json.dumps({"made_from": FROM, "n_rows": n_rows}))
    assert attempt(target)[1] == [0, 2, 4]


def test_two_processes_do_not_write_one_array(tmp_path):
    target = tmp_path / "out.npy"
    with growing_array(target, FROM), pytest.raises(BadInput, match="another process is writing"):
        attempt(target)


def test_nothing_is_left_where_nothing_was_computed(tmp_path):
    with pytest.raises(BadInput), growing_array(tmp_path / "out.npy", FROM):
        raise BadInput("a file that cannot be read")
    assert os.listdir(tmp_path) == []


def test_a_stream_keeps_nothing(caplog):
    caplog.set_level(logging.INFO)
    with growing_array(Path("/dev/null"), FROM) as array:
        assert array.next(2, lambda: np.ones(2)).tolist() == [1, 1] and array.path is None
    assert not caplog.text


def test_what_is_no_folder_of_ours_is_not_touched(tmp_path):
    unfinished(tmp_path / "out.npy").write_text("mine")
    with pytest.raises(BadInput, match="is no folder"), growing_array(tmp_path / "out.npy", FROM):
        pass
    assert unfinished(tmp_path / "out.npy").read_text() == "mine"


def test_rows_of_another_shape_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="shape"), growing_array(tmp_path / "out.npy", FROM, width=3) as array:
        array.next(2, lambda: np.ones((2, 2)))
