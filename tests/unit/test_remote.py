"""`distill.endpoints` against a real local server: retries, limits, money, the key, and embeddings that are paid once."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from pydantic import BaseModel

from distill.endpoints import metered
from distill.endpoints.answers import BadAnswer
from distill.endpoints.budget import Budget, BudgetSpent
from distill.endpoints.client import Client
from distill.endpoints.ledger import JsonLines, budget_of
from distill.endpoints.tokens import estimated_tokens, most_tokens
from distill.errors import BadInput, JobFailed
from distill.recipe.endpoint import Endpoint, Price
from distill.scorers.answer_store import AnswerStore
from distill.scorers.remote_embeddings import EmbeddingBatch, RemoteEmbeddings
from tests.conftest import ROOT
from tests.unit.misbehaving_server import INPUT_PRICE, OUTPUT_PRICE, MisbehavingServer, vector_of

KEY = "sk-a-secret-that-must-not-leak-0123456789"
ASK = [{"role": "user", "content": "Request 1.1"}]


class Shape(BaseModel):
    word: str


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


def endpoint_of(server, **changes):
    return Endpoint(
        **{
            "model": "m",
            "base_url": server.url,
            "input_price": INPUT_PRICE,
            "output_price": OUTPUT_PRICE,
            "timeout_s": 60.0,  # of a machine that is busy with other things; tests in which the server hangs give less
        }
        | changes
    )


def ask(endpoint, n=1, budget=None):
    """Ask n times at once; return the client afterwards."""

    async def main():
        async with Client(endpoint, budget) as client:
            await asyncio.gather(*(client.chat(ASK, Shape, max_tokens=100) for _ in range(n)))
            return client

    return asyncio.run(main())


# failures


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("429", "status 429"),
        ("429_seconds", "status 429"),
        ("500", "status 500"),
        ("503", "status 503"),
        ("reset", "broken connection (ReadError)"),
        ("hang", "timeout"),
        ("html", "status 200 without JSON"),
    ],
)
def test_what_may_pass_is_tried_again(fault, cause):
    n_faults = 1 if fault == "hang" else 2  # it takes as long as the timeout
    with MisbehavingServer([fault] * n_faults) as server:
        client = ask(endpoint_of(server, timeout_s=3.0))
        assert client.faults == {cause: n_faults} and len(server.ledger) == client.n_requests == n_faults + 1


@pytest.mark.parametrize(("fault", "least"), [("429_seconds", 0.05), ("429_date", 0.9)])
def test_retry_after_is_honoured_in_seconds_and_as_a_date(fault, least):
    with MisbehavingServer([fault]) as server:
        ask(endpoint_of(server))
        first, second = (entry["time"] for entry in server.ledger)
    assert least <= second - first < least + 1.5


def test_retry_after_makes_all_wait():
    with MisbehavingServer(["429_date"], delay=0.02) as server:
        began = time.monotonic()
        ask(endpoint_of(server, concurrency=1), n=3)
        assert all(entry["time"] - began > 0.9 for entry in server.ledger[1:])


def test_retry_after_of_hours_ends_the_work():
    assert metered.retry_after("7200") == 7200 and metered.retry_after("soon") is None
    assert metered.retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        ("401", "check the key in OPENAI_API_KEY"),
        ("404", "check base_url and the model 'm'"),
        ("quota", "quota of this key"),
    ],
)
def test_what_stays_ends_at_once_in_one_line(fault, hint, caplog):
    caplog.set_level(logging.DEBUG)
    with MisbehavingServer([fault], echo_key=True) as server:
        with pytest.raises((BadInput, JobFailed), match=hint) as caught:
            ask(endpoint_of(server))
        assert len(server.ledger) == 1
    assert KEY not in str(caught.value) and KEY not in repr(caught.value) and KEY not in caplog.text
    assert "[key]" in str(caught.value) and "\n" not in str(caught.value)


def test_no_server_at_all():
    with MisbehavingServer() as server:
        endpoint = endpoint_of(server, max_attempts=2)
    with pytest.raises(JobFailed, match=r"failed 2 times in a row \(last: cannot connect"):
        ask(endpoint)


def test_a_slow_drip_is_a_timeout():
    """httpx2 limits each read; an answer that comes byte by byte must end too."""

    async def main():
        closed = asyncio.Event()

        async def drip(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            try:
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.05)
            except OSError:  # the client has hung up
                writer.close()
                closed.set()

        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        endpoint = Endpoint(model="m", base_url=f"http://127.0.0.1:{port}", timeout_s=0.3, max_attempts=1)
        async with Client(endpoint) as client:
            with pytest.raises(JobFailed, match="last: timeout"):
                await client.chat(ASK, Shape, max_tokens=10)
        await asyncio.wait_for(closed.wait(), timeout=60)
        server.close()

    asyncio.run(main())


def test_an_answer_without_end_is_not_read(monkeypatch):
    """The bound holds for what is unpacked, and what was sent counts as paid."""
    monkeypatch.setattr(metered, "_LARGEST_ANSWER", 1 << 16)
    n_sent = 0

    async def main():
        async def flood(reader, writer):
            nonlocal n_sent
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2000000000\r\n\r\n")
            try:
                while n_sent < 50_000_000:
                    writer.write(b" " * 10_000)
                    await writer.drain()
                    n_sent += 10_000
            except OSError:
                pass
            writer.close()

        server = await asyncio.start_server(flood, "127.0.0.1", 0)
        budget = Budget(1.0)
        port = server.sockets[0].getsockname()[1]
        endpoint = Endpoint(model="m", base_url=f"http://127.0.0.1:{port}", input_price=1.0, output_price=1.0)
        async with Client(endpoint, budget) as client:
            with pytest.raises(JobFailed, match="sends more than 0 MiB, which is no answer; check base_url"):
                await client.chat(ASK, Shape, max_tokens=100)
            assert client.n_requests == 1 and budget.spent > 100 / 1e6
        server.close()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert n_sent < 20_000_000


def test_a_server_that_asks_to_wait_for_hours_ends_the_work():
    with MisbehavingServer() as server:
        server.misbehave = lambda handler, fault: server.error(handler, 429, {"retry-after": "7200"}) or True
        with pytest.raises(JobFailed, match=r"asks to wait 7200 s \(status 429\); go on later"):
            ask(endpoint_of(server))
        assert len(server.ledger) == 1
        server.misbehave = lambda handler, fault: server.error(handler, 429, {"retry-after": "94608000"}) or True
        with pytest.raises(JobFailed, match=r"asks to wait 1,095 days \(status 429\); go on later"):
            ask(endpoint_of(server))


def test_the_budget_holds_across_retries():
    """Each attempt may be paid for: the second one is not sent where only one fits."""
    with MisbehavingServer(["html", "html"]) as server:
        budget = Budget(0.0002)
        with pytest.raises(BudgetSpent):
            ask(endpoint_of(server), budget=budget)
        assert len(server.ledger) == 1 and server.dollars <= budget.spent <= 0.0002


# formats, headers, keys


def test_nothing_of_the_environment_is_sent_but_the_key(monkeypatch):
    """openai would take all of these."""
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, f"{name}-of-the-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-mine: of-the-environment\nauthorization: Bearer of-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/of-the-environment")
    with MisbehavingServer() as server:
        ask(endpoint_of(server))
        (headers,) = server.headers
    assert "of-the-environment" not in json.dumps(headers) and headers["authorization"] == f"Bearer {KEY}"
    assert set(headers) <= metered._SENT_HEADERS | {"authorization"}


def test_a_redirect_is_not_followed():
    with MisbehavingServer() as elsewhere, MisbehavingServer() as server:
        there = {"location": f"{elsewhere.url}/chat/completions"}
        server.misbehave = lambda handler, fault: server.error(handler, 307, there) or True
        with pytest.raises(BadInput, match="answered 307"):
            ask(endpoint_of(server))
        assert not elsewhere.bodies and len(server.bodies) == 1


def test_a_missing_package_is_named():
    program = (
        "import sys; sys.modules['openai'] = None\n"
        "from distill.errors import BadInput\n"
        "from distill.scorers.remote_embeddings import EmbeddingBatch, RemoteEmbeddings\n"
        "from distill.synthesis.synthesize import estimate, make_settings, synthesize\n"
        "print(estimate(make_settings(n_pairs=4)).n_requests)\n"
        "try: synthesize(make_settings(n_pairs=4), 'nowhere')\n"
        "except BadInput as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "2",
        "calls of a language-model server need openai; install it with: pip install 'matchdistill[synthesis]'",
    ]
    assert not (ROOT / "nowhere").exists()


@pytest.mark.parametrize("formats", [("json_schema",), ("json_object", "plain"), ("plain",)])
def test_the_best_format_that_the_server_takes(formats):
    with MisbehavingServer(formats=formats) as server:
        ask(endpoint_of(server))
        last = server.bodies[-1]
    assert last.get("response_format", {}).get("type", "plain") == formats[0]
    assert ("word" in last["messages"][0]["content"]) == (formats[0] != "json_schema")


def test_a_late_refusal_of_a_format_that_was_given_up_is_no_failure():
    with MisbehavingServer(formats=("plain",)) as server:
        server.refusal_delays = [0.0, 0.3]
        ask(endpoint_of(server), n=2)
        assert len(server.ledger) == 2


def test_a_400_once_the_format_is_proven_is_final():
    with MisbehavingServer([None, "400"]) as server:

        async def main():
            async with Client(endpoint_of(server)) as client:
                await client.chat(ASK, Shape, max_tokens=100)
                await client.chat(ASK, Shape, max_tokens=100)

        with pytest.raises(BadInput, match="answered 400"):
            asyncio.run(main())
        assert len(server.ledger) == 2


def test_a_model_with_another_name_for_the_limit():
    with MisbehavingServer(["400_limit"]) as server:
        ask(endpoint_of(server))
        assert [name for body in server.bodies for name in body if name.startswith("max_")] == [
            "max_tokens",
            "max_completion_tokens",
        ]
        assert server.bodies[-1]["response_format"]["type"] == "json_schema"


def test_a_prompt_that_a_filter_stops_is_a_bad_answer():
    with MisbehavingServer(["400_filter"]) as server, pytest.raises(BadAnswer, match="content filter"):
        ask(endpoint_of(server))


def test_a_wrong_endpoint_does_not_repeat_what_was_given():
    for wrong in ({"key_variable": KEY}, {"base_url": f"https://{KEY}@host/v1"}):
        with pytest.raises(ValueError) as caught:
            Endpoint(**{"model": "m"} | wrong)
        assert KEY not in str(caught.value)


def test_azure_gets_its_header_and_version():
    with MisbehavingServer() as server:
        ask(endpoint_of(server, api_version="2024-10-21"))
        assert server.headers[0]["api-key"] == KEY and "authorization" not in server.headers[0]
    assert Endpoint(model="gpt-4o", base_url="https://x.openai.azure.com/openai/v1").is_azure


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://localhost:port/v1", "Port could not be cast"),
        ("http://localhost:99999/v1", "Port out of range"),
        ("localhost:11434", "must look like"),
        (
            "https://x.openai.azure.com/openai/deployments/d?api-version=2024-10-21",
            r"end before the '\?'.* api_version",
        ),
        ("https://x.openai.azure.com/openai/deployments/d", "api_version is missing"),
    ],
)
def test_an_address_that_cannot_be_one(url, message):
    with pytest.raises(ValueError, match=message):
        Endpoint(model="m", base_url=url)


@pytest.mark.parametrize("end", ["", "/", "/chat/completions", "/embeddings"])
def test_the_whole_address_of_a_call_is_understood(end):
    with MisbehavingServer() as server:
        ask(endpoint_of(server, base_url=server.url + end))
    assert Endpoint(model="m", base_url="http://localhost:11434/v1" + end).base_url == "http://localhost:11434/v1"


def test_a_key_is_found_however_the_server_writes_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", 'sk/a"secret/0123456789')
    with MisbehavingServer(["401"], echo_key=True) as server, pytest.raises(BadInput) as caught:
        ask(endpoint_of(server))
    assert "secret" not in str(caught.value) and "[key]" in str(caught.value)


def test_a_server_that_fails_is_spoken_of_once(caplog):
    with MisbehavingServer(["500", "500", "503"]) as server:
        ask(endpoint_of(server))
    assert [record.getMessage().partition(": ")[2] for record in caplog.records if record.levelname == "WARNING"] == [
        "status 500; trying again",
        "status 503; trying again",
    ]


def test_a_local_server_needs_neither_key_nor_price(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with MisbehavingServer() as server:
        client = ask(Endpoint(model="mine", base_url=server.url))
        assert "authorization" not in server.headers[0]
    assert client.budget.spent == 0


@pytest.mark.parametrize("key", ["sk-with space", "sk-two\nlines", "sk-한글"])
def test_a_key_that_no_header_can_hold_is_refused_without_naming_it(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(BadInput) as caught:
        Endpoint(model="gpt-4o").key()
    assert "sk-" not in str(caught.value)


def test_the_key_is_in_no_repr():
    endpoint = Endpoint(model="gpt-4o")

    async def main():
        async with Client(endpoint) as client:
            return repr(client) + repr(vars(client))

    assert KEY not in repr(endpoint) + str(endpoint.model_dump()) + asyncio.run(main())


def test_prices():
    assert Endpoint(model="gpt-4o-mini-2024-07-18").price == Price(0.15, 0.60)
    assert Endpoint(model="mine", base_url="http://localhost:11434/v1").price == Price(0, 0)
    assert Endpoint(model="gpt-4o", output_price=1.0).price == Price(2.5, 1.0)
    assert Endpoint(model="mine", input_price=0.1, output_price=0).price == Price(0.1, 0)
    for half in ({}, {"input_price": 1.0}, {"output_price": 1.0}):  # a forgotten half would not be counted
        with pytest.raises(BadInput, match="0 for a server that is free"):
            Endpoint(model="mine", **half).price  # noqa: B018


@pytest.mark.parametrize("text", ["Kubernetes", "쿠버네티스 운영 경험 5년", "🙂" * 9, ""])
def test_token_bounds(text):
    assert estimated_tokens(text) <= max(3, most_tokens(text))


# limits


def test_requests_per_minute_come_evenly():
    with MisbehavingServer() as server:
        ask(endpoint_of(server, requests_per_minute=1200, concurrency=30), n=30)
        times = sorted(entry["time"] for entry in server.ledger)
    assert times[-1] - times[0] > 0.25  # 20 per second, 20 of the 30 at once: half a second; a busy machine starts late


def test_tokens_per_minute_are_corrected_by_what_was_used():
    async def main():
        rate = metered.Rate(6000)  # 100 per second
        began = time.monotonic()
        await rate.take(120)  # more than the bucket holds: a debt
        rate.correct(-100)
        await rate.take(80)
        assert time.monotonic() - began < 0.1
        await rate.take(30)
        assert 0.25 < time.monotonic() - began < 0.6

    asyncio.run(main())


def test_concurrency():
    with MisbehavingServer(delay=0.05) as server:
        began = time.monotonic()
        ask(endpoint_of(server, concurrency=2), n=6)
    assert time.monotonic() - began > 0.14


def test_the_budget_waits_for_what_comes_back_and_then_stops():
    async def main():
        changes = []
        budget = Budget(1.0, spent=0.2, record=changes.append)
        first = await budget.hold(0.5)
        waiting = asyncio.create_task(budget.hold(0.5))
        await asyncio.sleep(0)
        assert not waiting.done()
        budget.settle(first, 0.1)
        second = await waiting
        budget.settle(second, None)  # nobody knows: all of it
        assert budget.spent == pytest.approx(0.8)
        with pytest.raises(BudgetSpent, match=r"budget of \$1\.00 is used up: \$0\.80 are spent"):
            await budget.hold(0.3)
        assert [set(change) for change in changes] == [{"hold", "dollars"}, {"settled", "dollars"}] * 2

    asyncio.run(main())


def test_money_follows_usage_and_what_is_unknown_counts_in_full():
    with MisbehavingServer(["500", "hang", None]) as server:
        budget = Budget(1.0)
        ask(endpoint_of(server, timeout_s=3.0), budget=budget)
        worst = (most_tokens(json.dumps(server.bodies[0])) * INPUT_PRICE + 100 * OUTPUT_PRICE) / 1e6
        assert budget.spent == pytest.approx(worst + server.ledger[-1]["dollars"], rel=0.05)
        assert budget.spent > server.dollars


# embeddings


def embeddings(server, folder, **changes):
    endpoint = endpoint_of(server, model="text-embedding-3-large", input_price=0.13)
    return RemoteEmbeddings(endpoint, folder, **changes)


def test_the_second_run_asks_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="distill")
    texts = [f"text {i % 40}" for i in range(100)]
    with MisbehavingServer() as server:
        encoder = embeddings(server, tmp_path, batch=EmbeddingBatch(7))
        first = encoder.encode(texts)
        assert first.dtype == np.float32 and first.shape == (100, 8)
        assert np.allclose(first, [vector_of(text) for text in texts])
        sent = [text for entry in server.ledger for text in entry["texts"]]
        assert sorted(sent) == sorted(set(texts)) and encoder.n_requests == 6
        assert encoder.cost == pytest.approx(server.dollars)
        again = embeddings(server, tmp_path)
        assert np.array_equal(again.encode(texts[::-1]), first[::-1])
        assert again.n_requests == 0 and again.cost == 0 and len(server.ledger) == 6
        again.encode([*texts, "one more"])
        assert again.n_requests == 1 and server.ledger[-1]["texts"] == ["one more"]
    assert "text-embedding-3-large: 100 texts, 40 asked, <$0.0001 so far" in caplog.text
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_models_and_dimensions_do_not_mix(tmp_path):
    with MisbehavingServer() as server:
        assert embeddings(server, tmp_path).encode(["a"]).shape == (1, 8)
        assert embeddings(server, tmp_path, dimensions=4).encode(["a"]).shape == (1, 4)
        assert len(server.ledger) == 2


def test_a_shard_cut_at_any_byte_loses_only_the_torn_vector(tmp_path):
    texts = [f"text {i}" for i in range(10)]
    with MisbehavingServer() as server:
        expected = embeddings(server, tmp_path).encode(texts)
        shard = next(tmp_path.rglob("*.vectors"))
        content = shard.read_bytes()
        size = len(content) // 10
        for cut in (0, 1, size - 1, size, 5 * size + 3, len(content) - 1):
            shard.write_bytes(content[:cut])
            assert np.array_equal(embeddings(server, tmp_path).encode(texts), expected)
            assert len(server.ledger[-1]["texts"]) == 10 - cut // size
            for other in set(tmp_path.rglob("*.vectors")) - {shard}:
                other.unlink()
        shard.write_bytes(content[:50] + b"\xff" + content[51:])  # a flipped byte in the first vector
        assert np.array_equal(embeddings(server, tmp_path).encode(texts), expected)
        assert server.ledger[-1]["texts"] == texts[:1]


def test_many_shards_keep_no_file_open(tmp_path):
    """A limit of 1,024 open files is usual, and each call that asks writes a shard."""
    vectors = np.arange(160, dtype=np.float32).reshape(40, 4)
    texts = [f"text {row}" for row in range(40)]
    before = len(os.listdir("/proc/self/fd"))
    writer = AnswerStore(tmp_path, {"model": "m"})
    for text, vector in zip(texts, vectors, strict=True):
        writer.add([text], vector[None])
        writer.close()
    for store in (writer, AnswerStore(tmp_path, {"model": "m"})):
        np.testing.assert_array_equal(store.gather([*texts[::-1], texts[0]]), [*vectors[::-1], vectors[0]])
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("wrong_count", "3 texts sent and 2 embeddings came back"),
        ("wrong_width", "no common width"),
        ("nan", "NaN or infinity"),
        ("null", "holds null"),
        ("no_message", "no list of embeddings"),
    ],
)
def test_wrong_embeddings_are_refused_and_not_kept(tmp_path, fault, message):
    with MisbehavingServer([fault] * 3) as server:
        with pytest.raises(BadAnswer, match=f"text-embedding-3-large at .* after 3 attempts each .*{message}"):
            embeddings(server, tmp_path).encode(["a", "b", "c"])
        assert embeddings(server, tmp_path).encode(["a", "b", "c"]).shape == (3, 8)


def test_an_invalid_embedding_is_asked_again_and_the_others_are_kept(tmp_path):
    texts = [f"text {i}" for i in range(12)]
    with MisbehavingServer(lambda sent: "nan" if "text 5" in sent else None) as server:
        with pytest.raises(BadAnswer, match="no embedding of 2 of 12 texts .*what it embedded is kept"):
            embeddings(server, tmp_path, batch=EmbeddingBatch(2)).encode(texts)
        assert sum("text 5" in entry["texts"] for entry in server.ledger) == 3 and len(server.ledger) == 5 + 3
        assert embeddings(server, tmp_path).missing(texts) == ["text 4", "text 5"]
    with MisbehavingServer(["nan", "null"]) as server:
        assert embeddings(server, tmp_path).encode(texts).shape == (12, 8)


def test_embeddings_without_an_index_are_not_taken_in_order(tmp_path):
    with (
        MisbehavingServer(["no_index"]) as server,
        pytest.raises(BadInput, match=f"{server.url}: .*no index.*required"),
    ):
        embeddings(server, tmp_path).encode(["a", "b"])


def test_a_damaged_card_of_the_cache_is_named(tmp_path):
    with MisbehavingServer() as server:
        embeddings(server, tmp_path).encode(["a"])
        (card,) = tmp_path.rglob("identity.json")
        card.write_text("{")
        with pytest.raises(BadInput, match="identity.json is damaged"):
            embeddings(server, tmp_path)


def test_a_model_that_changed_its_width_is_refused(tmp_path):
    with MisbehavingServer([None, *["other_width"] * 3]) as server:
        embeddings(server, tmp_path).encode(["a"])
        with pytest.raises(BadAnswer, match="width 4, those kept in .* have 8"):
            embeddings(server, tmp_path).encode(["b"])


def test_failures_on_the_way_do_not_change_the_vectors(tmp_path):
    texts = [f"text {i}" for i in range(30)]
    with MisbehavingServer(["500", "reset", "429_seconds", "html", "503"]) as server:
        vectors = embeddings(server, tmp_path, batch=EmbeddingBatch(4)).encode(texts)
    assert np.allclose(vectors, [vector_of(text) for text in texts])


def test_long_texts_are_cut_with_a_warning(tmp_path, caplog):
    with MisbehavingServer() as server:
        encoder = embeddings(server, tmp_path, max_tokens=10)
        encoder.encode(["short", "가" * 100, "a" * 100])
        assert sorted(map(len, server.ledger[0]["texts"])) == [5, 6, 30]
    assert encoder.n_truncated == 2 and "2 of 3 texts were cut to about 10 tokens" in caplog.text


def test_batches_are_limited_by_tokens(tmp_path):
    with MisbehavingServer() as server:
        embeddings(server, tmp_path, batch=EmbeddingBatch(tokens=100)).encode([f"{i} " + "가" * 30 for i in range(6)])
        assert [len(entry["texts"]) for entry in server.ledger] == [2, 2, 2]


def test_empty_texts_are_refused(tmp_path):
    with MisbehavingServer() as server, pytest.raises(BadInput, match=r"1 of 2 texts are empty \(first: number 2\)"):
        embeddings(server, tmp_path).encode(["a", " "])


def test_the_budget_of_embeddings_stops_and_keeps_what_was_paid(tmp_path):
    texts = [f"text number {i}" for i in range(50)]
    with MisbehavingServer() as server:
        with pytest.raises(BudgetSpent):
            embeddings(server, tmp_path, batch=EmbeddingBatch(5), budget=Budget(0.00003)).encode(texts)
        n_asked = len(server.ledger)
        assert 0 < n_asked < 10 and server.dollars <= 0.00003
        embeddings(server, tmp_path, batch=EmbeddingBatch(5)).encode(texts)
        assert len(server.ledger) == 10


def test_no_texts(tmp_path):
    with MisbehavingServer() as server:
        assert len(embeddings(server, tmp_path).encode([])) == 0


@pytest.mark.parametrize("dollars", ["NaN", "-5.0", "Infinity"])
def test_an_amount_that_is_none_does_not_lift_a_limit(tmp_path, dollars):
    (tmp_path / "spending").write_text(f'{{"hold": "a", "dollars": {dollars}}}\n')
    with pytest.raises(BadInput, match="spending: line 1 has .* dollars; restore the file"):
        budget_of(JsonLines(tmp_path / "spending", dollars=int | float), 1.0)
