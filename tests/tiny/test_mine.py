"""`distill mine` on tiny models: who is found, who is left out, what is written, and what a kill costs."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.data.pairs import Pairs
from distill.errors import BadInput
from distill.mining.cached import CachedScorer
from distill.mining.choosing import FalseNegatives, RankStratum, read_strata
from distill.mining.mine import MiningInputs, MiningSettings, mine
from distill.runtime.opening import load
from distill.runtime.scorer import PairedScorer
from recipes.cli import main

TOPICS = ["python developer", "night nurse", "tax lawyer", "bus driver", "line cook"]
QUERIES = [f"{topic} from {place}" for topic in TOPICS for place in ("seoul", "busan")]
ANSWERS = [f"we look for a {topic} in {place}" for topic in TOPICS for place in ("seoul", "busan")]
PAIRS = Pairs(QUERIES, ANSWERS, np.ones(len(QUERIES), dtype=np.float32))
CLUSTERS = ([topic for topic in TOPICS for _ in range(2)],) * 2
ALL = MiningSettings(depth=10, strata=(RankStratum(1, 10, 10),))


def read(folder):
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]


def test_by_bm25_the_own_document_and_the_own_text_are_left_out(tmp_path):
    more = [
        "bus driver from seoul",
        "we look for  a bus driver in seoul",
        "쉬는 날",
    ]  # a query, a copy, nothing in common
    mined = mine(tmp_path / "out", MiningInputs(PAIRS, more), ALL)
    rows = read(tmp_path / "out")
    assert [row["kind"] for row in rows[:10]] == ["given"] * 10
    assert [(row["query"], row["document"], row["label"]) for row in rows[:10]] == [
        (query, answer, 1.0) for query, answer in zip(QUERIES, ANSWERS, strict=True)
    ]
    found = {(row["query"], row["document"]) for row in rows[10:]}
    assert not found & {*zip(QUERIES, ANSWERS, strict=True)} and ("bus driver from seoul",) * 2 not in found
    assert all(row["label"] == 0 and row["score"] is None and 1 <= row["rank"] <= 10 for row in rows[10:])
    assert ("bus driver from busan", "bus driver from seoul") in found
    assert mined.counts["documents"] == 12 and mined.counts["repeated documents"] == 1
    assert mined.counts["drawn"] == len(rows) - 10
    assert not any("teacher" in name for name in mined.counts)  # there is none
    # the other city of the same trade is found early, a text without a common term never
    of_nurse = {row["document"]: row["rank"] for row in rows[10:] if row["query"] == "night nurse from seoul"}
    assert of_nurse["we look for a night nurse in busan"] <= 3 and "쉬는 날" not in of_nurse


@pytest.mark.parametrize("pair", [("", "a text"), ("a text", "\u200b")])
def test_a_pair_without_a_text_is_refused_before_the_folder_is_made(tmp_path, pair):
    query, document = pair
    pairs = Pairs(["night nurse", query], ["nurse wanted", document])
    with pytest.raises(BadInput, match="pair 1: its query or document shows no character"):
        mine(tmp_path / "out", MiningInputs(pairs), ALL)
    assert not (tmp_path / "out").exists()


def test_false_negatives_are_counted_where_clusters_are_known(tmp_path):
    mined = mine(tmp_path / "out", MiningInputs(PAIRS, clusters=CLUSTERS), ALL)
    shares = mined.counts["false negatives"]
    # of the 10 documents each query finds 9 others, one of which is of its own trade
    assert shares["before"] == pytest.approx(10 / mined.counts["drawn"]) and shares["after"] == shares["before"]
    assert shares["other candidates left out as answers"] == 0


@pytest.fixture(scope="module")
def bi(bert_bi):
    return load(bert_bi, n_threads=1)


@pytest.fixture(scope="module")
def cross(bert_cross):
    return load(bert_cross, n_threads=1)


def test_a_teacher_leaves_out_what_it_takes_for_an_answer(tmp_path, bi, cross):
    teacher = CachedScorer(cross, tmp_path / "signals")
    bare = mine(
        tmp_path / "bare", MiningInputs(PAIRS), ALL, retriever=CachedScorer(bi, tmp_path / "signals"), teacher=teacher
    )
    limit = float(np.nanmedian(bare.scores))
    limited = MiningSettings(
        depth=10, strata=ALL.strata, false_negatives=FalseNegatives(max_score=limit), labels="teacher"
    )
    mined = mine(
        tmp_path / "out",
        MiningInputs(PAIRS),
        limited,
        retriever=CachedScorer(bi, tmp_path / "signals"),
        teacher=teacher,
    )
    rows = [row for row in read(tmp_path / "out") if row["kind"] == "mined"]
    expected = cross.unit(cross.score([row["query"] for row in rows], [row["document"] for row in rows]))
    np.testing.assert_allclose([row["score"] for row in rows], expected, atol=1e-5)
    assert all(row["score"] < limit and row["label"] == row["score"] for row in rows)
    assert mined.counts["drawn"] + mined.counts["taken for answers by the teacher"] == bare.counts["drawn"] == 90


def test_a_bi_encoder_scores_what_it_found_and_its_margin_is_that_of_the_own_answer(tmp_path, bi):
    scorer = CachedScorer(bi, tmp_path / "signals")
    settings = MiningSettings(depth=10, strata=ALL.strata, false_negatives=FalseNegatives(margin=0.0))
    mine(tmp_path / "out", MiningInputs(PAIRS), settings, retriever=scorer)
    own = dict(zip(QUERIES, bi.unit(bi.score(QUERIES, ANSWERS)), strict=True))
    rows = [row for row in read(tmp_path / "out") if row["kind"] == "mined"]
    assert rows and all(row["score"] < own[row["query"]] for row in rows)


def test_for_a_query_without_a_positive_a_margin_says_nothing_and_nothing_is_drawn(tmp_path, cross, caplog):
    half = Pairs(QUERIES, ANSWERS, np.array([1.0, 0.0] * 5, dtype=np.float32))
    teacher = CachedScorer(cross, tmp_path / "signals")

    def counts(name, **limits):
        return mine(
            tmp_path / name, MiningInputs(half), replace(ALL, false_negatives=FalseNegatives(**limits)), teacher=teacher
        ).counts

    told = "queries without a positive, so without a limit: nothing is drawn"
    wide = counts("wide", margin=-1.0)  # a limit that no score reaches
    assert (wide[told], wide["queries without any"], wide["taken for answers by the teacher"]) == (5, 5, 0)
    assert {row["query"] for row in read(tmp_path / "wide") if row["kind"] != "given"} == set(QUERIES[::2])
    assert counts("both", margin=-1.0, max_score=1.0)[told] == 0 and "have no candidate" not in caplog.text
    few = replace(half, labels=np.array([1.0, *[0.0] * 9], dtype=np.float32))
    limits = replace(ALL, false_negatives=FalseNegatives(margin=-1.0))
    mine(tmp_path / "few", MiningInputs(few), limits, teacher=teacher)
    assert "9 of 10 queries have no candidate; of 9 of them they have no positive pair" in caplog.text
    none = MiningInputs(replace(half, labels=np.zeros(10, dtype=np.float32)))
    unlimited = "without a positive pair, and so without a limit: 10 queries.* keeps the scores"
    with pytest.raises(BadInput, match=unlimited):
        mine(tmp_path / "none", none, replace(ALL, false_negatives=FalseNegatives(margin=-1.0)), teacher=teacher)


def test_what_was_scored_is_not_asked_again(tmp_path, cross, monkeypatch):
    teacher = CachedScorer(cross, tmp_path / "signals")
    monkeypatch.setattr("distill.mining.cached._AT_ONCE", 8)
    asked = []

    class Killed(Exception):
        pass

    def score(queries, documents):
        if len(asked) == 3:
            raise Killed
        asked.append(len(queries))
        return type(cross).score(cross, queries, documents)

    monkeypatch.setattr(cross, "score", score)
    with pytest.raises(Killed):
        mine(tmp_path / "out", MiningInputs(PAIRS), ALL, teacher=teacher)
    assert not (tmp_path / "out" / "pairs.jsonl").exists()
    before = sum(asked)
    asked.clear()
    monkeypatch.setattr(cross, "score", lambda q, d: asked.append(len(q)) or type(cross).score(cross, q, d))
    mined = mine(tmp_path / "out", MiningInputs(PAIRS), ALL, teacher=teacher)
    assert before == 24 and sum(asked) == int(np.isfinite(mined.scores).sum()) + len(PAIRS) - before
    asked.clear()
    other = MiningSettings(depth=10, strata=(RankStratum(1, 5, 2),), false_negatives=FalseNegatives(max_score=1.0))
    with pytest.raises(BadInput, match=r"begun with other settings \(strata, limits on scores\)"):
        mine(tmp_path / "out", MiningInputs(PAIRS), other, teacher=teacher)
    mine(tmp_path / "out", MiningInputs(PAIRS), other, teacher=teacher, overwrite=True)
    assert not asked


def test_another_length_of_the_retriever_finds_anew(tmp_path, bert_bi):
    short, long = (CachedScorer(load(bert_bi, max_length=length), tmp_path / "signals") for length in (4, 32))
    first = mine(tmp_path / "out", MiningInputs(PAIRS), ALL, retriever=short)
    with pytest.raises(BadInput, match=r"begun with other settings \(retriever, teacher\)"):
        mine(tmp_path / "out", MiningInputs(PAIRS), ALL, retriever=long)
    again = mine(tmp_path / "out", MiningInputs(PAIRS), ALL, retriever=long, overwrite=True)
    alone = mine(tmp_path / "alone", MiningInputs(PAIRS), ALL, retriever=long)
    np.testing.assert_array_equal(again.rows, alone.rows)
    assert (again.rows != first.rows).any()


def test_a_text_of_both_sides_is_encoded_by_the_model_of_each_side(tmp_path, bert_bi, xlmr_bi):
    both = PairedScorer(bert_bi, load(bert_bi), load(xlmr_bi))
    queries, documents = CachedScorer(both, tmp_path / "signals").embeddings(QUERIES, QUERIES)
    np.testing.assert_allclose(queries, both.encode_queries(QUERIES), atol=1e-5)
    np.testing.assert_allclose(documents, both.encode_documents(QUERIES), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (MiningSettings(false_negatives=FalseNegatives(margin=0.1)), "limits on scores need a teacher"),
        (MiningSettings(labels="teacher"), "labels of the teacher need a teacher"),
        (MiningSettings(depth=5), "stratum 11-100:4 begins behind the 5 documents"),
    ],
)
def test_what_cannot_be_is_refused_before_a_folder_is_made(settings, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        mine(tmp_path / "out", MiningInputs(PAIRS), settings)
    assert not (tmp_path / "out").exists()


def test_ranks_above_the_depth_are_said(tmp_path, caplog):
    mine(tmp_path / "out", MiningInputs(PAIRS), MiningSettings(depth=5, strata=read_strata("1-10:2")))
    assert "stratum 1-10:2: ranks above the depth of 5 do not exist" in caplog.text


def test_a_cross_encoder_finds_no_candidates(tmp_path, cross):
    with pytest.raises(BadInput, match="is a cross_encoder; a bi-encoder or bm25 finds candidates"):
        mine(tmp_path / "out", MiningInputs(PAIRS), ALL, retriever=CachedScorer(cross, tmp_path / "signals"))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "pairs.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "document", "label", "a", "b"])
        writer.writerows(
            [query, answer, 1, *names] for query, answer, *names in zip(QUERIES, ANSWERS, *CLUSTERS, strict=True)
        )
    return path


def test_the_command(table, tmp_path, bert_bi, capsys):
    out = tmp_path / "mined"
    options = ["--depth", "10", "--strata", "1-10:3", "--clusters", "a,b", "--teacher", str(bert_bi)]
    assert main(["mine", str(table), str(out), *options, "--json"]) == 0
    printed = capsys.readouterr()
    counts = json.loads(printed.out)
    assert counts["queries"] == 10 and counts["drawn"] == 30 and 0 <= counts["false negatives"]["after"] <= 1
    assert json.loads((out / "card.json").read_text(encoding="utf-8"))["counts"] == counts
    first = (out / "pairs.jsonl").read_bytes()
    assert main(["mine", str(table), str(out), *options]) == 0
    assert (out / "pairs.jsonl").read_bytes() == first
    assert "10  queries" in capsys.readouterr().out
    assert main(["mine", str(table), str(out), *options, "--seed", "3"]) == 2
    assert "was begun with other settings (seed)" in capsys.readouterr().err
    # what comes out is read as training data
    assert main(["mine", str(out / "pairs.jsonl"), str(tmp_path / "again"), "--depth", "10", "--strata", "1-10:1"]) == 0


class TestTheSameCommandAgain:
    def test_edited_pairs_are_not_replaced_without_consent(self, table, tmp_path, capsys):
        pairs, command = tmp_path / "mined" / "pairs.jsonl", ["mine", str(table), str(tmp_path / "mined")]
        assert main(command) == 0
        made = pairs.read_bytes()
        pairs.write_bytes(made[: made.index(b"\n") + 1])
        edited = pairs.read_bytes()
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "was changed after it was made" in error and "--overwrite" in error
        assert pairs.read_bytes() == edited
        assert main([*command, "--overwrite"]) == 0 and pairs.read_bytes() == made
        pairs.rename(tmp_path / "edited.jsonl")
        assert main(command) == 0 and pairs.read_bytes() == made

    def test_unchanged_pairs_stay_as_they_are(self, table, tmp_path):
        pairs, command = tmp_path / "mined" / "pairs.jsonl", ["mine", str(table), str(tmp_path / "mined")]
        assert main(command) == 0
        inode = pairs.stat().st_ino
        assert main(command) == 0 and pairs.stat().st_ino == inode

    def test_a_folder_from_before_the_digest_is_written_again(self, table, tmp_path):
        folder, command = tmp_path / "mined", ["mine", str(table), str(tmp_path / "mined")]
        assert main(command) == 0
        card = json.loads((folder / "card.json").read_text())
        made = (folder / "pairs.jsonl").read_bytes()
        (folder / "card.json").write_text(json.dumps({name: card[name] for name in ("settings", "counts")}))
        (folder / "pairs.jsonl").write_text("")
        assert main(command) == 0
        assert (folder / "pairs.jsonl").read_bytes() == made and json.loads((folder / "card.json").read_text()) == card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strata", "1-10"], "strata '1-10'; ranks and a number are expected"),
        (["--labels", "one"], "--labels one: one of zero, teacher is accepted"),
        (["--clusters", "a"], "--clusters a: two columns with a comma between are expected"),
        (["--clusters", "a,z"], "z"),
        (["--label-column", "grade"], "grade"),
        (["--margin", "0.1"], "limits on scores need a teacher"),
        (["--retriever", "bm52"], "--retriever bm52 is no model folder; bm25 is accepted, or the path of a bi-encoder"),
        (["--documents", "nowhere.txt"], "nowhere.txt"),
        (["--all-positive", "--label-range", "0,5"], "--label-range is of labels"),
        (["--label-range", "2,5"], "is outside --label-range [2, 5]"),
        (["--terms", "letters"], "--terms letters: one of word, char is accepted"),
        (["--terms", "word", "--retriever", "nowhere"], "terms are what BM25 counts, and nowhere finds the candidates"),
    ],
)
def test_bad_options_are_one_line(options, message, table, tmp_path, capsys):
    assert main(["mine", str(table), str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and not (tmp_path / "out" / "pairs.jsonl").exists()


def test_links_in_a_circle_are_no_model(table, tmp_path, capsys):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert main(["mine", str(table), str(tmp_path / "out"), "--retriever", str(tmp_path / "a")]) == 2
    assert "is no model folder" in capsys.readouterr().err


def test_a_foreign_folder_is_left_alone(table, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert main(["mine", str(table), str(tmp_path / "mine")]) == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


class TestWhatANewcomerFound:
    def test_an_empty_text_is_no_candidate(self, tmp_path, bi):
        mined = mine(
            tmp_path / "out", MiningInputs(PAIRS, ["", "\u200b "]), ALL, retriever=CachedScorer(bi, tmp_path / "s")
        )
        assert mined.counts["documents"] == 10 and all(row["document"].strip() for row in read(tmp_path / "out"))

    def test_a_query_in_two_unicode_forms_is_one(self, tmp_path):
        forms = ["\u1112\u1161\u11ab 개발자", "한 개발자", "한\u200b 개발자"]
        pairs = Pairs(forms, ["한 개발자 모집", "한국 개발자 모집", "두 개발자 모집"], None)
        settings = MiningSettings(depth=4, strata=(RankStratum(1, 4, 3),))
        mined = mine(tmp_path / "out", MiningInputs(pairs, ["세 개발자 모집"]), settings)
        assert mined.queries == forms[:1] and mined.counts["drawn"] == 1
        assert [row["document"] for row in read(tmp_path / "out") if row["kind"] == "mined"] == ["세 개발자 모집"]

    def test_damaged_retrieval_is_made_again(self, tmp_path, caplog):
        mine(tmp_path / "out", MiningInputs(PAIRS), ALL)
        first = (tmp_path / "out" / "pairs.jsonl").read_bytes()
        (kept,) = (tmp_path / "out" / ".work").glob("retrieved-*.npy")
        kept.write_bytes(kept.read_bytes()[:200])
        mine(tmp_path / "out", MiningInputs(PAIRS), ALL)
        assert (
            tmp_path / "out" / "pairs.jsonl"
        ).read_bytes() == first and "is damaged and is made again" in caplog.text

    def test_a_folder_does_not_read_itself(self, tmp_path):
        mine(tmp_path / "out", MiningInputs(PAIRS), ALL)
        before = (tmp_path / "out" / "pairs.jsonl").read_bytes()
        inputs = MiningInputs(PAIRS, sources=[str(tmp_path / "out" / "pairs.jsonl")])
        with pytest.raises(BadInput, match="holds an input of this command"):
            mine(tmp_path / "out", inputs, ALL, overwrite=True)
        assert (tmp_path / "out" / "pairs.jsonl").read_bytes() == before

    def test_nothing_left_is_an_error(self, tmp_path, bi):
        none = MiningSettings(depth=10, strata=ALL.strata, false_negatives=FalseNegatives(max_score=0.0))
        with pytest.raises(
            BadInput, match=r"no candidate can be drawn for any of 10 queries: of 100 documents .* 10 are"
        ):
            mine(tmp_path / "out", MiningInputs(PAIRS), none, retriever=CachedScorer(bi, tmp_path / "s"))
        assert not (tmp_path / "out" / "pairs.jsonl").exists()

    def test_nothing_left_of_quick_work_leaves_no_folder(self, tmp_path):
        with pytest.raises(BadInput, match="no candidate can be drawn for any of 1 query"):
            mine(tmp_path / "out", MiningInputs(PAIRS.select([0])), ALL)
        assert not (tmp_path / "out").exists()

    def test_a_text_of_two_clusters_is_refused_and_an_empty_name_is_not_known(self, tmp_path):
        with pytest.raises(BadInput, match=r"is of the clusters 'python developer' and 'other'; a text has one"):
            odd = Pairs([QUERIES[0], QUERIES[0]], ANSWERS[:2], None)
            mine(tmp_path / "a", MiningInputs(odd, clusters=(["python developer", "other"], ["x", "x"])), ALL)
        mined = mine(tmp_path / "b", MiningInputs(PAIRS, clusters=([""] * 10, [""] * 10)), ALL)
        assert mined.counts["false negatives"]["before"] == 0

    def test_a_place_where_no_folder_can_be(self, tmp_path):
        with pytest.raises(BadInput, match=r"cannot be made a folder|cannot be written into"):
            mine(Path("/proc/mined"), MiningInputs(PAIRS), ALL)
