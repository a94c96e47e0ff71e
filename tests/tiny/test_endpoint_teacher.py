"""A student of a server, from the recipe to the report's notes: what is asked, what a failure leaves, what it has cost."""

import json

import numpy as np
import pytest

from distill.errors import BadInput, JobFailed
from distill.evaluation.benchmark import _cost_notes, score_row, teacher_row
from distill.signals import CachedSignals, SignalCache
from tests.conftest import BACKBONE, make_run, merge
from tests.unit.misbehaving_server import MisbehavingServer, relevance_of, vector_of

PROMPTS = ["query: ", "passage: "]
BI = {"kind": "bi_encoder", "backbone": BACKBONE, "layers": None, "max_length": 64, "control": False}
CROSS = {"kind": "cross_encoder", "backbone": BACKBONE, "layers": None, "head": [8]}


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-secret-that-must-not-leak-0123456789")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


def run_of(folder, server, asks="embeddings", **changes):
    endpoint = {"model": "m", "base_url": server.url, "input_price": 0.15, "output_price": 0.6, "max_attempts": 2}
    teacher = {"kind": "endpoint", "endpoint": endpoint, "asks": asks, "batch_size": 16}
    embeddings = {"score_match": None, "embedding_match": {"teacher": "te"}}
    base = {
        "teachers": {"cross": None, "te": teacher | ({"prompts": PROMPTS} if asks == "embeddings" else {})},
        "student": BI if asks == "embeddings" else CROSS,
        "objectives": embeddings if asks == "embeddings" else {"score_match": {"teacher": "te", "loss": "bce"}},
        "training": {"max_steps": 2},
        "signals": {"allow_unrelated": True},
    }
    return make_run(folder / "run", **merge(base, changes))


def stages(run):
    from students import train_student
    from teachers import cache_signals, train_teachers

    for stage in (train_teachers, cache_signals, train_student):
        stage(run)


def test_a_student_of_a_server_of_embeddings(tmp_path):
    from distill.runtime import load

    with MisbehavingServer() as server:
        run = run_of(tmp_path, server)
        stages(run)
        texts = [text for entry in server.ledger for text in entry["texts"]]
        split = run.split
        expected = {PROMPTS[0] + text for text in split.train.queries} | {
            PROMPTS[1] + text for text in split.train.documents
        }
        assert len(texts) == len(set(texts)) and expected == set(texts) | set()
        scored = score_row(run, teacher_row(run, "te"), split.evaluation)
        held = [text for entry in server.ledger for text in entry["texts"]]
        assert len(held) == len(set(held)) > len(texts)
        stages(run)  # finished
        assert len([text for entry in server.ledger for text in entry["texts"]]) == len(held)
    assert scored.n_parameters is None and np.abs(scored.scores).max() <= 1 + 1e-6
    source = CachedSignals(SignalCache(run.signals("te"), run.signal_identity("te")))
    text = split.train.documents[0]
    given = np.array(vector_of(PROMPTS[1] + text))
    np.testing.assert_allclose(
        source.embeddings([text], [1])(np.array([0]))[0], given / np.linalg.norm(given), atol=1e-6
    )
    assert load(run.student).embedding_width == 8
    manifest = json.loads((source.cache.folder / "manifest.json").read_text())
    assert manifest["cost"]["requests"] >= len(texts) // 16 and 0 < manifest["cost"]["dollars"]
    [note] = _cost_notes(run, [teacher_row(run, "te")])
    assert note.startswith("The answers of te have cost this run $0.0") and "requests)" in note
    assert "sk-a-secret" not in "".join(
        path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()
    )


def test_a_server_that_fails_midway_is_asked_for_the_rest_alone(tmp_path):
    broken = [False]

    def fault(pairs):
        return "500" if broken[0] and len(fine) >= 5 else fine.append(len(pairs))

    fine = []
    with MisbehavingServer(fault) as server:
        broken[0] = True
        run = run_of(tmp_path, server, "rerank")
        with pytest.raises(JobFailed, match="failed 2 times in a row"):
            stages(run)
        broken[0] = False
        stages(run_of(tmp_path, server, "rerank"))
    answered = [pair for entry in server.ledger if entry["fault"] is None for pair in entry["pairs"]]
    split = run.split
    assert len(answered) == len(set(answered))
    assert set(answered) == set(zip(split.train.queries, split.train.documents, strict=True))
    source = CachedSignals(SignalCache(run.signals("te"), run.signal_identity("te")))
    unit = [relevance_of(*pair) for pair in zip(split.train.queries, split.train.documents, strict=True)]
    scores = source.scores(split.train.queries, split.train.documents)
    np.testing.assert_allclose(1 / (1 + np.exp(-scores)), unit, atol=1e-5)


def test_what_can_be_known_is_known_before_anything_is_written(tmp_path, monkeypatch):
    from teachers import train_teachers

    with MisbehavingServer() as server:
        run = run_of(tmp_path, server, teachers={"te": {"budget": 1e-9}})
        with pytest.raises(BadInput, match="teacher te: .* more than its budget"):
            train_teachers(run)
        assert not server.ledger and not run.teacher("te").exists()
        far = {"base_url": "https://api.example.com/v1", "key_variable": "NO_SUCH_KEY"}
        run = run_of(tmp_path, server, teachers={"te": {"endpoint": far}})
        with pytest.raises(BadInput, match="set the environment variable NO_SUCH_KEY"):
            train_teachers(run)
        assert not (tmp_path / "run" / "signals").exists()


def test_the_doctor_asks_no_server(tmp_path):
    from teachers.doctor import diagnose

    with MisbehavingServer() as server:
        run = run_of(tmp_path, server, "rerank")
        lines = [finding.line for finding in diagnose(run, n_pairs=20).findings]
        assert not server.ledger and not run.signals("te").exists()
    assert any("no model here: rerank scores of m at 127.0.0.1" in line for line in lines)
    assert any("were never asked" in line for line in lines)


def test_one_vector_for_every_text_is_refused_and_found(tmp_path):
    from teachers import cache_signals, train_teachers
    from teachers.doctor import diagnose

    with MisbehavingServer(lambda _: "constant") as server:
        run = run_of(tmp_path, server)
        train_teachers(run)
        with pytest.raises(JobFailed, match="teacher te gives every text the same embedding"):
            cache_signals(run)
        n_asked = len(server.ledger)
        found = {finding.about: finding for finding in diagnose(run, n_pairs=20).findings if finding.level == "problem"}
        assert len(server.ledger) == n_asked
    assert "are all the same vector" in found["signals of te"].says


def test_another_address_is_the_same_teacher_and_another_rubric_is_not(tmp_path):
    from teachers import train_teachers

    with MisbehavingServer() as server, MisbehavingServer() as moved:
        train_teachers(run_of(tmp_path, server, "chat"))
        train_teachers(run_of(tmp_path, moved, "chat"))
        with pytest.raises(BadInput, match=r"was made from something else \(teacher.rubric"):
            train_teachers(run_of(tmp_path, moved, "chat", teachers={"te": {"rubric": "4: yes. 0: no."}}))
