"""The cache saves time and decides nothing: read-only, half written or written twice, the result is the same."""

import os
import time

import pytest

from distill.errors import BadInput
from distill.runtime import cache
from distill.runtime.cache import GraphContent, cache_folder, cached, file_hash


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MATCHDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def maker(calls):
    """Write what is not there, read what is, and remember which."""

    def make(folder):
        path = None if folder is None else folder / "value"
        calls.append("none" if path is None else "read" if path.exists() else "write")
        if path is not None and not path.exists():
            path.write_text("made")
        if path is not None and path.read_text() != "made":
            raise RuntimeError("half written")
        return "made"

    return make


def test_made_once_then_read(root):
    calls = []
    assert [cached("part", ["a", 1], maker(calls)) for _ in range(2)] == ["made", "made"]
    assert calls == ["write", "read"]
    cached("part", ["a", 2], maker(calls))
    assert calls[-1] == "write"
    assert len([path for path in (root / "part").iterdir() if not path.name.startswith(".")]) == 2


def test_a_broken_entry_is_made_anew(root):
    calls = []
    cached("part", "a", maker(calls))
    next((root / "part").iterdir()).joinpath("value").write_text("ma")
    assert cached("part", "a", maker(calls)) == "made"
    assert calls == ["write", "write"]  # a damaged one is not read


@pytest.mark.parametrize("damage", ["made!", "mads", ""])
def test_a_damaged_entry_is_not_trusted_even_where_it_can_be_read(damage):
    def make(folder):
        path = folder / "value"
        if not path.exists():
            path.write_text("made")
        return path.read_text()

    assert cached("part", "a", make) == "made"
    next(cache_folder("part").iterdir()).joinpath("value").write_text(damage)
    assert cached("part", "a", make) == "made"
    next(cache_folder("part").iterdir()).joinpath("checksums.json").unlink()
    assert cached("part", "a", make) == "made"


def test_an_entry_that_cannot_be_read_is_made_anew():
    calls = []

    def make(folder):
        calls.append(len(list(folder.iterdir())))
        if len(calls) == 2:
            raise RuntimeError("of another version")
        (folder / "value").write_text("made")
        return "made"

    assert [cached("part", "a", make) for _ in range(2)] == ["made", "made"]
    assert calls == [0, 2, 0]  # empty; with its checksums; empty again


def test_a_hash_is_of_the_content_whatever_the_time_says(tmp_path):
    path = tmp_path / "graph"
    hashes = set()
    for text in ("one", "two"):
        path.unlink(missing_ok=True)
        path.write_text(text)
        os.utime(path, (1, 1))
        hashes.add(file_hash(path))
    assert len(hashes) == 2
    content = GraphContent([path, tmp_path / "nothing"])
    content.check()
    os.utime(path, (2, 2))
    content.check()  # touched, and the same
    path.write_text("six")
    with pytest.raises(BadInput, match="graph was replaced after it was loaded; load the folder again"):
        content.check()


@pytest.mark.parametrize("stated", ["off", "/proc/nowhere"])
def test_without_a_cache_it_is_made_every_time(stated, monkeypatch):
    monkeypatch.setenv("MATCHDISTILL_CACHE", stated)
    calls = []
    assert cache_folder("part") is None
    cached("part", "a", maker(calls))
    assert calls == ["none"]


def test_a_full_disk_is_no_failure():
    def make(folder):
        if folder is not None:
            raise OSError(28, "No space left on device")
        return "made"

    assert cached("part", "a", make) == "made"


def test_what_always_fails_raises_its_own_error():
    def make(folder):
        raise ValueError("a bad graph")

    with pytest.raises(ValueError, match="a bad graph"):
        cached("part", "a", make)


def test_of_two_writers_the_first_wins(root):
    calls = []

    def slow(folder):
        cached("part", "a", maker(calls))  # another process, meanwhile
        return maker(calls)(folder)

    assert cached("part", "a", slow) == "made"
    assert [path.name.startswith(".") for path in (root / "part").iterdir()] == [False]


def test_unused_entries_are_removed_when_one_is_written(root):
    cached("part", "old", maker([]))
    old = next((root / "part").iterdir())
    leftover = root / "part" / ".x.1.2.tmp"
    leftover.mkdir()
    for path in (old, leftover):
        os.utime(path, (0, time.time() - cache._UNUSED_SECONDS - 1))
    cached("part", "new", maker([]))
    assert not old.exists() and not leftover.exists()
    assert len(list((root / "part").iterdir())) == 1
