"""Teachers behind an endpoint, against a real local server: each answer is asked once, its cost is known before and after."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest

from distill.endpoints.answers import Answer, BadAnswer, rerank_scores_in, usage_in, vectors_in
from distill.endpoints.budget import BudgetSpent
from distill.endpoints.tokens import estimated_tokens
from distill.errors import BadInput, JobFailed
from distill.recipe.endpoint import Usage
from distill.recipe.schema import EndpointTeacher
from distill.scorers.endpoint_answers import EndpointAnswers
from distill.scorers.remote_scores import grade_in
from distill.wording import in_dollars
from tests.unit.misbehaving_server import (
    INPUT_PRICE,
    OUTPUT_PRICE,
    MisbehavingServer,
    grade_of,
    relevance_of,
    vector_of,
)

TEXTS = [f"text number {i}" for i in range(10)]
PAIRS = [(f"query {i // 4} with words", f"document {i} with query words" + " more" * (i % 3)) for i in range(12)]


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-secret-that-must-not-leak-0123456789")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


def teacher(server, asks, **fields):
    endpoint = {"model": "m", "base_url": server.url, "input_price": INPUT_PRICE, "output_price": OUTPUT_PRICE}
    endpoint |= fields.pop("endpoint", {})
    return EndpointTeacher.model_validate({"kind": "endpoint", "endpoint": endpoint, "asks": asks, **fields})


def ask(settings, folder, items, roles=None, **options):
    answers = EndpointAnswers("te", settings, folder, **options)
    return answers.ask(items, roles or [0] * len(items), lambda _: None), answers


def logit(unit, least=1e-6):
    unit = np.clip(np.asarray(unit, dtype=np.float64), least, 1 - least)
    return np.log(unit / (1 - unit))


def test_embeddings_are_asked_once_behind_their_prompts(tmp_path):
    with MisbehavingServer() as server:
        settings = teacher(server, "embeddings", prompts=["query: ", "passage: "])
        items, roles = ["a", "b", "a"], [0, 1, 1]
        first, answers = ask(settings, tmp_path, items, roles)
        again, _ = ask(settings, tmp_path, items, roles)
    np.testing.assert_allclose(
        first, [vector_of("query: a"), vector_of("passage: b"), vector_of("passage: a")], rtol=1e-6
    )
    assert (first == again).all() and len(server.ledger) == 1
    assert answers.cost() == {"dollars": pytest.approx(usage_cost(server), abs=1e-9), "requests": 1}


def usage_cost(server):
    return sum(sum(len(text.encode()) for text in entry["texts"]) // 3 * INPUT_PRICE / 1e6 for entry in server.ledger)


@pytest.mark.parametrize("form", ["documents", "texts"])
def test_reranks_of_both_forms_are_logits_of_their_scores(tmp_path, form):
    with MisbehavingServer(rerank_form=form) as server:
        settings = teacher(server, "rerank", batch_size=3)
        scores, _ = ask(settings, tmp_path, PAIRS)
        ask(settings, tmp_path, list(reversed(PAIRS)))
    np.testing.assert_allclose(scores, logit([relevance_of(*pair) for pair in PAIRS]), atol=1e-4)
    asked = [pair for entry in server.ledger for pair in entry["pairs"]]
    assert sorted(asked) == sorted(PAIRS)  # each once
    assert len(server.ledger) == 6  # 4 documents of each of 3 queries, 3 at a time


def test_a_refusal_of_the_old_form_after_an_answer_to_the_new_one(tmp_path):
    with MisbehavingServer(rerank_form="texts") as server:
        server.refuses_late = True
        scores, _ = ask(teacher(server, "rerank", batch_size=3, endpoint={"concurrency": 2}), tmp_path, PAIRS)
    assert server.refused == 2
    np.testing.assert_allclose(scores, logit([relevance_of(*pair) for pair in PAIRS]), atol=1e-4)


@pytest.mark.parametrize("formats", [("json_schema",), ("json_object", "plain"), ("plain",)])
def test_grades_of_a_chat_are_shares_of_four(tmp_path, formats):
    with MisbehavingServer(["fence", None], formats=formats) as server:
        settings = teacher(server, "chat")
        scores, answers = ask(settings, tmp_path, PAIRS)
        ask(settings, tmp_path, PAIRS)
    np.testing.assert_allclose(scores, logit([grade_of(*pair) / 4 for pair in PAIRS], 0.01), atol=1e-5)
    assert len(server.ledger) == len(PAIRS)
    assert answers.cost()["dollars"] == pytest.approx(server.dollars)


def test_what_the_rubric_says_is_sent_and_is_another_teacher(tmp_path):
    with MisbehavingServer() as server:
        ask(teacher(server, "chat", rubric="4: 같은 뜻. 0: 다른 뜻."), tmp_path, PAIRS[:1])
        ask(teacher(server, "chat"), tmp_path, PAIRS[:1])
    assert "4: 같은 뜻. 0: 다른 뜻." in server.bodies[0]["messages"][0]["content"]
    assert "exactly what the query asks for" in server.bodies[1]["messages"][0]["content"] and len(server.ledger) == 2


def test_an_answer_that_is_none_is_asked_for_again(tmp_path):
    with MisbehavingServer(["empty", "wrong_type", None]) as server:
        scores, _ = ask(teacher(server, "chat"), tmp_path, PAIRS[:1])
    assert len(server.ledger) == 3
    assert scores[0] == pytest.approx(logit([grade_of(*PAIRS[0]) / 4], 0.01)[0])


def test_pairs_without_a_grade_are_named_and_the_others_are_kept(tmp_path):
    bad = PAIRS[5]
    with MisbehavingServer(lambda pair: "empty" if pair == bad else None) as server:
        settings = teacher(server, "chat")
        with pytest.raises(
            JobFailed, match=r"no score of 1 of 12 pairs after 3 attempts each \(first: no grade from 0 to 4 in 'not"
        ):
            ask(settings, tmp_path, PAIRS)
        n_asked = len(server.ledger)
        ask(settings, tmp_path, [pair for pair in PAIRS if pair != bad])
        assert len(server.ledger) == n_asked == 14


@pytest.mark.parametrize(("fault", "says"), [("wrong_count", "scores came back"), ("nan", "NaN")])
def test_a_rerank_that_is_none(tmp_path, fault, says):
    with MisbehavingServer(lambda _: fault) as server, pytest.raises(JobFailed, match=says):
        ask(teacher(server, "rerank"), tmp_path, PAIRS[:4])


def test_the_budget_of_a_rerank_counts_the_query_with_each_document(tmp_path):
    pairs = [("many words " * 200, f"document {i}") for i in range(32)]  # 24,000 tokens, of 2,600 bytes
    with MisbehavingServer() as server:
        settings = teacher(server, "rerank", budget=0.001)
        with pytest.raises(BudgetSpent):
            ask(settings, tmp_path, pairs)
        assert server.ledger == []
        _, answers = ask(teacher(server, "rerank", budget=0.1), tmp_path, pairs)
    assert answers.cost() == {"dollars": pytest.approx(24_000 * INPUT_PRICE / 1e6, rel=0.05), "requests": 1}


def test_scores_outside_their_scale_are_refused_with_what_to_set(tmp_path):
    with MisbehavingServer(lambda _: "logits") as server:
        with pytest.raises(
            BadInput, match=r"teacher te: m: .* scores lie outside \[0, 1\], as 5.5; set score_range, or scale: logit"
        ):
            ask(teacher(server, "rerank"), tmp_path, PAIRS[:4])
        scores, _ = ask(teacher(server, "rerank", scale="logit"), tmp_path, PAIRS[:4])  # nothing is paid twice
        assert scores.max() == 5.5 and len(server.ledger) == 1


def test_a_budget_is_kept_over_runs_and_nothing_is_asked_twice(tmp_path):
    pairs = [(f"query {i}", f"document {i} " + "with many words " * 10) for i in range(60)]
    with MisbehavingServer() as server:
        for _ in range(2):
            with pytest.raises(JobFailed, match="budget of"):
                ask(teacher(server, "chat", budget=0.0007), tmp_path, pairs)
            assert 0 < len(server.ledger) < len(pairs) and server.dollars <= 0.0007
        ask(teacher(server, "chat", budget=1.0), tmp_path, pairs)
    assert sorted(pair for entry in server.ledger for pair in entry["pairs"]) == sorted(pairs)


def test_the_check_estimates_asks_one_and_keeps_it(tmp_path, caplog):
    caplog.set_level("INFO")
    with MisbehavingServer() as server:
        settings = teacher(server, "embeddings", budget=1.0)
        EndpointAnswers("te", settings, tmp_path).check(TEXTS, [0] * 10)
        dollars = sum(map(estimated_tokens, TEXTS)) * INPUT_PRICE / 1e6
        assert f"10 texts go to m at {settings.endpoint.host}, estimated at {in_dollars(dollars)}" in caplog.text
        assert [entry["texts"] for entry in server.ledger] == [TEXTS[:1]]
        ask(settings, tmp_path, TEXTS)
        assert sorted(text for entry in server.ledger for text in entry["texts"]) == TEXTS
        EndpointAnswers("te", settings, tmp_path).check(TEXTS, [0] * 10)
    assert "all 10 answers of m are cached, nothing is sent" in caplog.text and len(server.ledger) == 2


CHECKED = {
    "401": (["401"], {}, BadInput, "check the key in OPENAI_API_KEY"),
    "404": (["404"], {}, BadInput, "check base_url and the model 'm'"),
    "quota": (["quota"], {}, JobFailed, "quota of this key is used up"),
    "html": (["html"] * 3, {"endpoint": {"max_attempts": 2}}, JobFailed, "failed 2 times in a row"),
    "slow": (["hang"] * 3, {"endpoint": {"max_attempts": 1, "timeout_s": 0.2}}, JobFailed, "timeout"),
    "rate": (["429"] * 5, {"endpoint": {"max_attempts": 2}}, JobFailed, r"failed 2 times in a row \(last: status 429"),
    "budget": ([], {"budget": 1e-6}, BadInput, r"more than its budget of <\$0.0001: raise budget"),
    "price": (
        [],
        {"endpoint": {"input_price": None, "base_url": "https://api.example.com/v1"}},
        BadInput,
        "no price is known",
    ),
    "width": ([None], {"dimensions": 4}, None, ""),
}


@pytest.mark.parametrize("name", CHECKED)
def test_what_the_check_finds_is_one_line(tmp_path, name):
    faults, fields, error, says = CHECKED[name]
    with MisbehavingServer(faults) as server:
        if error is None:
            EndpointAnswers("te", teacher(server, "embeddings", **fields), tmp_path).check(TEXTS, [0] * 10)
            return
        with pytest.raises(error, match=says) as problem:
            EndpointAnswers("te", teacher(server, "embeddings", **fields), tmp_path).check(TEXTS, [0] * 10)
    assert "\n" not in str(problem.value)


def test_a_missing_key_is_known_before_anything_is_sent(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    endpoint = {"model": "text-embedding-3-small", "input_price": 0.02, "output_price": 0.0}
    settings = EndpointTeacher.model_validate({"kind": "endpoint", "endpoint": endpoint})
    with pytest.raises(BadInput, match="set the environment variable OPENAI_API_KEY"):
        EndpointAnswers("te", settings, tmp_path).check(TEXTS, [0] * 10)


def test_nobody_is_asked_where_nobody_may_be(tmp_path):
    with MisbehavingServer() as server:
        settings = teacher(server, "rerank")
        ask(settings, tmp_path, PAIRS[:4])
        with pytest.raises(BadInput, match="8 of 12 were never asked"):
            ask(settings, tmp_path, PAIRS, may_ask=False)
        ask(settings, tmp_path, PAIRS[:4], may_ask=False)
    assert len(server.ledger) == 1


def test_long_texts_are_cut_and_counted(tmp_path, caplog):
    with MisbehavingServer() as server:
        ask(teacher(server, "rerank", max_tokens=8), tmp_path, [("q", "word " * 100)])
    assert len(server.bodies[0]["documents"][0]) == 24 and "1 of 1 pairs hold a text that was cut" in caplog.text


def test_two_at_once_share_a_cache(tmp_path):
    with MisbehavingServer(delay=0.01) as server:
        settings = teacher(server, "chat", cache=str(tmp_path / "shared"))
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        threads = [threading.Thread(target=ask, args=(settings, tmp_path / name, PAIRS)) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        n_asked = len(server.ledger)
        ask(settings, tmp_path / "one", PAIRS)
        assert len(server.ledger) == n_asked


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"results": None},
        {"results": [{"index": 0}]},
        {"results": [{"index": 1, "relevance_score": 1}]},
        {"results": [{"index": 0, "relevance_score": float("nan")}]},
        {"results": [{"index": 0, "score": "high"}]},
        {"results": [{"index": 0, "score": True}]},
    ],
)
def test_no_rerank(response):
    with pytest.raises(BadAnswer):
        rerank_scores_in(response, 1)


def test_booleans_are_no_numbers():
    assert vectors_in({"data": [{"index": 0, "embedding": [1, 0.5]}]}, 1, None).tolist() == [[1.0, 0.5]]
    with pytest.raises(BadAnswer, match="no list of embeddings"):
        vectors_in({"data": [{"index": 0, "embedding": [True, 0.5]}]}, 1, None)
    told = Answer('{"grade": 1}', "stop", None, Usage(1, 1))
    assert grade_in(told) == 1
    with pytest.raises(BadAnswer, match="no grade from 0 to 4 in"):
        grade_in(replace(told, text='{"grade": true}'))


def test_rerankers_count_tokens_together():
    assert usage_in({"usage": {"total_tokens": 7}}) == (7, 0)
    assert usage_in({"usage": []}) is None and usage_in({"meta": {"billed_units": {"search_units": 1}}}) is None


@pytest.mark.parametrize(
    ("asks", "fields", "says"),
    [
        ("rerank", {"dimensions": 4}, "dimensions is for asks: embeddings"),
        ("chat", {"prompts": ["", "x"]}, "prompts is for asks: embeddings"),
        ("embeddings", {"rubric": "x"}, "rubric is for asks: chat"),
        ("rerank", {"temperature": 1.0}, "temperature is for asks: chat"),
        ("chat", {"scale": "logit"}, "whose grades are 0 to 4"),
        ("embeddings", {"score_range": [0, 5]}, "scale and score_range are for scores"),
    ],
)
def test_settings_that_change_nothing_are_refused(asks, fields, says):
    class Nowhere:
        url = "http://localhost:1/v1"

    with pytest.raises(ValueError, match=says):
        teacher(Nowhere, asks, **fields)


def test_a_whole_description_is_read_again():
    class Nowhere:
        url = "http://localhost:1/v1/rerank"

    settings = teacher(Nowhere, "rerank")
    assert EndpointTeacher.model_validate(json.loads(settings.model_dump_json())) == settings
    assert settings.endpoint.base_url == "http://localhost:1/v1"
