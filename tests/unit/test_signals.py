import os
import threading

import numpy as np
import pyarrow as pa
import pytest

from distill.errors import BadInput
from distill.signals import (
    MANIFEST,
    CachedSignals,
    Identity,
    LiveSignals,
    SignalCache,
    describe_scores,
    pair_keys,
    text_keys,
)

TEXTS = [f"text {i}" for i in range(20)]


def identity(**changes):
    return Identity(**{"revision": "abc", "kind": "cross_encoder", "max_length": 64, **changes})


@pytest.fixture
def cache(tmp_path):
    return SignalCache(tmp_path, identity())


def again(cache):
    """The same cache, seen by another process."""
    return SignalCache(cache.folder.parent, cache.identity)


class TestKeys:
    def test_are_sixteen_bytes_of_the_text(self):
        keys = text_keys(["a", "b", "a"])
        assert (keys.shape, keys.dtype) == ((3, 2), np.uint64)
        assert (keys[0] == keys[2]).all()
        assert (keys[0] != keys[1]).any()

    def test_know_the_prompt(self):
        assert (text_keys(["b"], prompt="a") == text_keys(["ab"])).all()

    def test_of_pairs_know_where_the_query_ends(self):
        assert (pair_keys(["ab"], ["c"]) != pair_keys(["a"], ["bc"])).any()
        assert (pair_keys(["a"], ["b"]) != pair_keys(["b"], ["a"])).any()
        assert (pair_keys(["1:a"], ["b"]) != pair_keys(["1"], [":ab"])).any()

    def test_take_lone_surrogates(self):
        assert text_keys(["\ud83d"]).shape == (1, 2)

    def test_of_nothing_are_none(self):
        assert pair_keys([], []).shape == (0, 2)


class TestCache:
    def test_gives_back_what_was_written_in_any_order(self, cache):
        keys, scores = text_keys(TEXTS), np.linspace(-3, 3, 20, dtype=np.float32)
        cache.write("scores", keys[:12], scores[:12])
        cache.write("scores", keys[12:], scores[12:])
        order = np.random.default_rng(0).permutation(20)
        rows = again(cache).find("scores", keys[order], "scores")
        assert np.array_equal(again(cache).read("scores", rows), scores[order])

    def test_embeddings_keep_their_width(self, cache):
        keys, vectors = text_keys(TEXTS), np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
        cache.write("embeddings", keys[:7], vectors[:7])
        cache.write("embeddings", keys[7:], vectors[7:])
        assert again(cache).width() == 5
        rows = cache.find("embeddings", keys[[3, 19, 3]], "embeddings")
        assert np.array_equal(cache.read("embeddings", rows), vectors[[3, 19, 3]])

    def test_scores_and_embeddings_of_one_text_stand_apart(self, cache):
        cache.write("scores", text_keys(["a"]), np.ones(1))
        assert cache.missing("embeddings", text_keys(["a"])).tolist() == [0]
        assert cache.missing("scores", text_keys(["a"])).tolist() == []

    def test_missing_names_each_text_once_at_its_first_place(self, cache):
        cache.write("scores", text_keys(["b"]), np.zeros(1))
        assert cache.missing("scores", text_keys(["a", "b", "c", "a", "c", "d"])).tolist() == [0, 2, 5]

    def test_empty_one_misses_all_and_knows_no_width(self, cache):
        assert cache.missing("scores", text_keys(TEXTS)).tolist() == list(range(20))
        assert cache.width() == 0

    def test_partial_one_goes_on_where_it_was(self, cache):
        keys = text_keys(TEXTS)
        cache.write("scores", keys[:8], np.arange(8))
        # a killed writer leaves a file without a name that counts
        (cache.folder / ".scores-0000.arrow.999.tmp").write_bytes(b"half a shard")
        resumed = again(cache)
        rows = resumed.missing("scores", keys)
        assert rows.tolist() == list(range(8, 20))
        resumed.write("scores", keys[rows], np.arange(8, 20))
        assert resumed.missing("scores", keys).tolist() == []
        assert resumed.read("scores", resumed.find("scores", keys, "scores")).tolist() == list(range(20))

    def test_find_says_how_many_are_missing_and_what_to_run(self, cache):
        cache.write("scores", text_keys(TEXTS[:5]), np.zeros(5))
        with pytest.raises(
            BadInput, match="lacks scores of 15 of 20 items; run `distill cache-signals` with this recipe"
        ):
            cache.find("scores", text_keys(TEXTS), "scores")

    def test_of_another_identity_is_not_read_and_is_named(self, tmp_path, cache):
        keys = text_keys(TEXTS)
        cache.write("scores", keys, np.zeros(20))
        cache.finish({}, seconds=0.0)
        for changes in (
            {"revision": "abd"},
            {"max_length": 65},
            {"prompts": ("q: ", "")},
            {"precision": "bf16"},
            {"dtype": "float16"},
            {"runtime": "openvino"},
            {"kind": "bi_encoder"},
        ):
            other = SignalCache(tmp_path, identity(**changes))
            assert other.missing("scores", keys).tolist() == list(range(20))
            with pytest.raises(BadInput, match=f"another teacher, length or precision: {cache.folder.name}"):
                other.find("scores", keys, "scores")

    def test_half_precision_is_stored_and_read_as_float32(self, tmp_path):
        cache = SignalCache(tmp_path, identity(dtype="float16"))
        keys, vectors = text_keys(TEXTS), np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
        cache.write("embeddings", keys, vectors)
        cache.write("scores", keys, vectors[:, 0])
        read = cache.read("embeddings", cache.find("embeddings", keys, "embeddings"))
        assert read.dtype == np.float32
        assert np.array_equal(read, vectors.astype(np.float16).astype(np.float32))
        assert np.array_equal(cache.read("scores", cache.find("scores", keys, "scores")), read[:, 0])
        full = SignalCache(tmp_path, identity())
        full.write("embeddings", keys, vectors)
        sizes = [
            sum(path.stat().st_size for path in folder.glob("embeddings-*")) for folder in (cache.folder, full.folder)
        ]
        assert sizes[1] - sizes[0] == 20 * 3 * 2  # bytes saved

    @pytest.mark.parametrize("damage", ["cut", "emptied", "overwritten"])
    def test_damaged_shard_is_named(self, cache, damage):
        cache.write("scores", text_keys(TEXTS), np.zeros(20))
        (path,) = cache.folder.glob("scores-*.arrow")
        content = path.read_bytes()
        path.write_bytes(
            {"cut": content[: len(content) // 2], "emptied": b"", "overwritten": b"x" * len(content)}[damage]
        )
        with pytest.raises(
            BadInput, match=rf"{path.name} is damaged .*; remove it and run `distill cache-signals` again"
        ):
            again(cache).missing("scores", text_keys(TEXTS))

    def test_two_writers_at_once_lose_nothing(self, cache):
        keys = text_keys([f"t{i}" for i in range(400)])

        def write(rows):
            own = again(cache)
            for start in range(0, len(rows), 10):
                part = rows[start : start + 10]
                own.write("scores", keys[part], part.astype(np.float32))

        # the parts overlap by 100: both say the same of what they share
        threads = [threading.Thread(target=write, args=(rows,)) for rows in (np.arange(250), np.arange(150, 400))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert cache.missing("scores", keys).tolist() == []
        assert cache.read("scores", cache.find("scores", keys, "scores")).tolist() == list(range(400))
        assert not list(cache.folder.glob("*.tmp"))

    def test_refresh_sees_what_others_wrote(self, cache):
        keys = text_keys(TEXTS)
        assert len(cache.missing("scores", keys)) == 20
        again(cache).write("scores", keys, np.zeros(20))
        assert len(cache.missing("scores", keys)) == 20
        cache.refresh()
        assert len(cache.missing("scores", keys)) == 0

    def test_failed_write_leaves_nothing(self, cache, monkeypatch):
        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(pa.ipc, "new_file", fail)
        with pytest.raises(OSError, match="No space left"):
            cache.write("scores", text_keys(TEXTS), np.zeros(20))
        assert list(cache.folder.iterdir()) == []

    def test_values_stay_on_disk(self, cache):
        width, n = 256, 20_000  # 20 MB
        keys = text_keys([str(i) for i in range(n)])
        cache.write("embeddings", keys, np.random.default_rng(0).random((n, width), dtype=np.float32))
        reader = again(cache)
        before = pa.total_allocated_bytes()
        rows = reader.find("embeddings", keys[:10], "embeddings")
        assert reader.read("embeddings", rows).shape == (10, width)
        values = reader._index("embeddings")._values[0]
        assert not values.flags.owndata
        assert pa.total_allocated_bytes() - before < 1_000_000

    def test_finish_writes_who_said_it_and_how_much(self, cache):
        import json

        cache.write("scores", text_keys(TEXTS), np.zeros(20))
        cache.finish({"scores": {"std": 0.5}}, seconds=2.0)
        manifest = json.loads((cache.folder / "manifest.json").read_text())
        assert manifest["identity"]["revision"] == "abc"
        assert manifest["items"] == {"scores": 20, "embeddings": 0}
        assert manifest["scores"] == {"std": 0.5}

    def test_what_half_precision_cannot_hold_is_refused(self, tmp_path):
        cache = SignalCache(tmp_path, Identity("r", "cross_encoder", 8, dtype="float16"))
        with pytest.raises(
            BadInput, match=r"scores of up to 70000 do not fit into float16; set signals\.dtype=float32"
        ):
            cache.write("scores", pair_keys(["a", "b"], ["c", "d"]), np.array([1.0, -70000.0], dtype=np.float32))
        assert cache.count("scores") == 0

    def test_a_damaged_manifest_is_named(self, cache):
        cache.folder.mkdir(parents=True)
        (cache.folder / MANIFEST).write_text("{")
        with pytest.raises(BadInput, match=f"{MANIFEST} is not valid JSON"):
            cache.summary("cost")

    def test_finish_removes_what_killed_processes_left(self, cache):
        cache.write("scores", text_keys(TEXTS), np.zeros(20))
        dead, alive = (cache.folder / f".scores-0123456789abcdef.{pid}-1.tmp" for pid in (999999999, os.getppid()))
        for path in (dead, alive):
            path.touch()
        cache.finish({}, seconds=0.0)
        assert not dead.exists() and alive.exists()


class TestSources:
    def test_cached_scores_are_found_by_their_pairs(self, cache):
        queries, documents = ["a", "a", "b"], ["x", "y", "x"]
        cache.write("scores", pair_keys(queries, documents), np.array([0.1, 0.2, 0.3]))
        source = CachedSignals(cache)
        assert source.kind == "cross_encoder"
        assert source.scores(["b", "a"], ["x", "y"]) == pytest.approx([0.3, 0.2])

    def test_cached_embeddings_are_found_by_role_and_prompt(self, tmp_path):
        cache = SignalCache(tmp_path, identity(kind="bi_encoder", prompts=("q: ", "d: ")))
        cache.write("embeddings", text_keys(["q: same", "d: same"]), np.array([[1.0, 0.0], [0.0, 1.0]]))
        source = CachedSignals(cache)
        read = source.embeddings(["same", "same"], [0, 1])
        assert source.width == 2
        assert read(np.array([1, 0, 1])).tolist() == [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
        with pytest.raises(BadInput, match="lacks embeddings of 1 of 1 items"):
            source.embeddings(["other"], [0])

    def test_live_ones_ask_the_teacher_with_its_prompts(self):
        class Teacher:
            kind, embedding_width = "bi_encoder", 1

            def score(self, queries, documents):
                return [len(query) + len(document) for query, document in zip(queries, documents, strict=True)]

            def encode(self, texts):
                return [[len(text)] for text in texts]

        source = LiveSignals(Teacher(), ("qqq", "d"))
        assert (source.kind, source.width) == ("bi_encoder", 1)
        assert source.scores(["ab"], ["cde"]).tolist() == [5.0]
        assert source.embeddings(["a", "ab"], [0, 1])(np.array([1, 0])).tolist() == [[3.0], [4.0]]


class TestDescription:
    def test_says_spread_saturation_and_agreement(self):
        # sigmoid(±10) is beyond 0.001 and 0.999: two of four are saturated; the ranks agree with the labels but for a tie
        described = describe_scores(np.array([-10.0, -1.0, 1.0, 10.0]), np.array([0.0, 0.0, 1.0, 1.0]), "cross_encoder")
        assert described["scale"] == "logit"
        assert described["share_saturated"] == 0.5
        assert described["median"] == 0
        assert described["std"] == pytest.approx(7.1063, abs=1e-4)  # √((100 + 1 + 1 + 100)/4)
        assert described["spearman_with_labels"] == pytest.approx(2 / 5**0.5)  # 4 / √(5·4)

    def test_takes_logits_of_any_size(self):
        with np.errstate(all="raise"):
            assert describe_scores(np.array([-1000.0, 0.0]), None, "cross_encoder")["share_saturated"] == 0.5

    def test_of_constant_scores_has_no_correlation(self):
        assert "spearman_with_labels" not in describe_scores(np.zeros(3), np.array([0.0, 1.0, 1.0]), "bi_encoder")


def test_shards_of_several_processes_have_temporary_names_of_their_own(cache):
    cache.write("scores", text_keys(["a"]), np.zeros(1))
    assert [path.name for path in cache.folder.iterdir()] == [next(cache.folder.glob("scores-*.arrow")).name]
    assert os.getpid() > 0
