"""`distill.synthesis.synthesize` against a real server that misbehaves: what comes out is exact, paid once, and holds no key."""

import hashlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from collections import Counter

import pytest

from distill.data.bundled_words import FAMILIES, LEVELS
from distill.endpoints.answers import Answer
from distill.errors import BadInput, JobFailed
from distill.recipe.endpoint import Usage
from distill.synthesis.answers import NearDuplicates, Unusable, read_answer
from distill.synthesis.prompts import ResumeAndJobs, asked_kinds, makes_random_negative, messages_of, stratum_of
from distill.synthesis.synthesize import estimate, make_settings, synthesize
from tests.conftest import ROOT
from tests.unit.misbehaving_server import (
    EVERY_FAULT,
    INPUT_PRICE,
    OUTPUT_PRICE,
    MisbehavingServer,
    good_content,
    words,
)

KEY = "sk-a-secret-that-must-not-leak-0123456789"


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)


def settings_for(server, n_pairs=12, **changes):
    options = {
        "n_pairs": n_pairs,
        "base_url": server.url,
        "input_price": INPUT_PRICE,
        "output_price": OUTPUT_PRICE,
        "timeout_s": 60.0,  # of a machine that is busy with other things; tests in which the server hangs give less
        "budget_usd": 100.0,
    }
    return make_settings(**options | changes)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def check_pairs(folder, n_pairs):
    pairs = lines(folder / "pairs.jsonl")
    assert len(pairs) == n_pairs
    assert len({(pair["resume"], pair["jd"]) for pair in pairs}) == n_pairs
    assert all(pair["resume"].strip() and pair["jd"].strip() for pair in pairs)
    return pairs


def once_each(faults, first=3):
    """Faults by the number of the request: the first one that comes with number `first` + i meets fault i.

    By the order of arrival they would depend on threads: one request might meet several, and none its first answer.
    """
    waiting = dict(enumerate(faults, start=first))
    return lambda request: waiting.pop(request["number"], None)


def some_faults(share, seed=8):
    """Faults drawn for each request, and each time it comes, so that every kind comes."""
    times = Counter()

    def fault(request):
        times[request["number"]] += 1
        rng = random.Random(f"{seed}/{request['number']}/{times[request['number']]}")
        return rng.choice(EVERY_FAULT) if rng.random() < share else None

    return fault


# what is asked


def test_every_cell_comes_once_before_any_comes_twice():
    settings = make_settings(n_pairs=10_000)
    n_cells = len(FAMILIES) * len(LEVELS) * 2
    cells = [stratum_of(slot, settings) for slot in range(2 * n_cells)]
    counted = Counter((cell.family.key, cell.level, cell.language) for cell in cells[:n_cells])
    assert set(counted.values()) == {1} and len(counted) == n_cells
    assert len({cell.family.key for cell in cells[: len(FAMILIES)]}) == len(FAMILIES)
    assert cells[:n_cells] == cells[n_cells:]


def test_a_number_always_asks_for_the_same():
    settings = make_settings(n_pairs=40, seed=3)
    assert messages_of(7, 1, settings) == messages_of(7, 1, settings)
    assert messages_of(7, 1, settings) != messages_of(7, 1, make_settings(n_pairs=40, seed=4))
    assert messages_of(7, 1, settings) != messages_of(7 + settings.n_requests, 1, settings)
    assert stratum_of(7, settings) == stratum_of((7 + settings.n_requests) % settings.n_requests, settings)


def test_five_requests_hold_every_grade_twice():
    settings = make_settings(n_pairs=100, labels="grades")
    kinds = Counter(kind for slot in range(15, 20) for kind in asked_kinds(slot, settings))
    assert kinds == {f"grade_{grade}": 2 for grade in range(5)}


def test_kinds_are_not_tied_to_cells():
    settings = make_settings(n_pairs=4000)
    seen = {
        (kind, cell.level, cell.language)
        for slot in range(settings.n_requests)
        for cell in [stratum_of(slot, settings)]
        for kind in (asked_kinds(slot, settings)[1:] or ("random_negative",))
    }
    assert len(seen) == 3 * len(LEVELS) * 2
    share = sum(makes_random_negative(slot, settings) for slot in range(2000)) / 2000
    assert share == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("labels", ["binary", "grades"])
def test_prompts_are_whole_in_both_languages(labels):
    settings = make_settings(n_pairs=200, labels=labels)
    for slot in range(settings.n_requests):
        system, user = messages_of(slot, 1, settings)
        assert "{" not in user["content"] and "JSON" in system["content"]
        assert f"job_{len(asked_kinds(slot, settings))}:" in user["content"]


# what is answered


def answer_with(text, finish="stop", refusal=None):
    return Answer(text, finish, refusal, Usage(1, 1))


def content_text(language="ko", **changes):
    return json.dumps(good_content(random.Random(1), language, 2) | changes, ensure_ascii=False)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (answer_with("", refusal="no"), "refused"),
        (answer_with("x", finish="content_filter"), "refused"),
        (answer_with(content_text(), finish="length"), "cut off at max_tokens"),
        (answer_with(" \n"), "empty"),
        (answer_with("I would rather not."), "not JSON"),
        (answer_with(content_text()[:300]), "not JSON"),
        (answer_with('{"resume": "\\ud800"}'), "not JSON"),
        (answer_with(content_text(job_2=None)), "wrong shape"),
        (answer_with(content_text(more=1)), "wrong shape"),
        (answer_with(content_text("en")), "wrong language"),
        (
            answer_with(
                content_text(resume={k: "가" for k in ("summary", "experience", "education", "skills", "languages")})
            ),
            "too short",
        ),
        (
            answer_with(
                content_text(resume={k: " " for k in ("summary", "experience", "education", "skills", "languages")})
            ),
            "empty section",
        ),
        (answer_with(content_text(job_2=json.loads(content_text())["job_1"])), "job descriptions alike"),
    ],
)
def test_what_cannot_be_used_says_why(answer, reason):
    with pytest.raises(Unusable) as caught:
        read_answer(answer, 2, "ko")
    assert caught.value.reason == reason


def test_a_fence_is_forgiven():
    content = read_answer(answer_with(f"Sure!\n```json\n{content_text()}\n```\n"), 2, "ko")
    assert isinstance(content, ResumeAndJobs) and len(content.jobs) == 2


def test_chinese_is_not_english():
    resume = good_content(random.Random(1), "en", 2)["resume"] | {"experience": "工作经验" * 100}
    with pytest.raises(Unusable, match="wrong language"):
        read_answer(answer_with(content_text("en", resume=resume)), 2, "en")


def test_near_duplicates_follow_the_true_similarity():
    rng = random.Random(0)
    found = Counter()
    for _ in range(60):
        tokens = words(rng, "en", 120).split()
        texts = NearDuplicates(threshold=0.7)
        texts.add("a", " ".join(tokens))
        nearly = tokens[:116] + words(rng, "en", 4).split()  # Jaccard about 0.93
        half = tokens[:60] + words(rng, "en", 60).split()  # about 0.33
        found["nearly"] += texts.find(" ".join(nearly)) == "a"
        found["half"] += texts.find(" ".join(half)) == "a"
    assert found == {"nearly": 60, "half": 0} or found == {"nearly": 60}


def test_near_duplicates_compare_what_the_split_compares():
    texts = NearDuplicates(threshold=0.99)
    text = "성명 홍길동, 쿠버네티스와 도커로 서비스를 운영한 백엔드 개발자. Five years of work on compilers."
    texts.add("a", text)
    assert texts.find(unicodedata.normalize("NFD", text)) == "a"
    assert texts.find(text.replace(" ", "\u00a0\u200b ")) == "a"
    assert texts.find("A nurse of the night shift, with a licence of ten years.") is None


@pytest.mark.slow  # a measurement of time: not for a busy machine
def test_near_duplicates_take_linear_time_on_texts_that_have_much_in_common():
    """Two thirds of each text are sentences of a pool: many meet in a band, and all of them are compared."""
    rng = random.Random(2)
    pool = [words(rng, "ko", 9) for _ in range(15)]
    texts = ["\n".join(rng.sample(pool, 11) + [words(rng, "ko", 9) for _ in range(4)]) for _ in range(1600)]
    found, seconds = NearDuplicates(threshold=0.7), []
    for half in (texts[:800], texts[800:]):
        started = time.process_time()
        for text in half:
            found.find(text)
            found.add(text[:9], text)
        seconds.append(time.process_time() - started)
    assert seconds[1] < 1.5 * seconds[0] + 0.1  # twice the texts to compare with


# the run


def test_sixty_pairs_from_a_server_that_fails_in_every_way(tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with MisbehavingServer(once_each(EVERY_FAULT)) as server:
        path = synthesize(settings_for(server, 60, timeout_s=3.0), tmp_path / "out")
        assert path == tmp_path / "out" / "pairs.jsonl"
        pairs = check_pairs(tmp_path / "out", 60)
        assert {entry["fault"] for entry in server.ledger} == {None, *EVERY_FAULT}
        assert all(header["authorization"] == f"Bearer {KEY}" for header in server.headers)
        card = json.loads((tmp_path / "out" / "card.json").read_text())
        assert server.dollars <= card["cost_usd"] + 1e-9

    assert Counter(pair["label"] for pair in pairs) == {0: 30, 1: 30}
    kinds = Counter(pair["kind"] for pair in pairs)
    assert set(kinds) == {
        "positive",
        "random_negative",
        "skill_negative",
        "seniority_negative",
    }
    assert card["near_duplicates_removed"] >= 1
    expected = {"cut off at max_tokens", "empty", "empty section", "no message in the response", "not JSON", "refused"}
    assert set(card["rejected_by_reason"]) == expected | {"wrong language", "wrong shape"}
    assert {"status 429", "status 500", "status 503", "timeout"} <= set(card["server_faults_of_last_run"])
    assert_no_key(tmp_path, caplog, capfd)


def assert_no_key(folder, caplog, capfd):
    printed = capfd.readouterr()
    assert KEY not in caplog.text and KEY not in printed.out and KEY not in printed.err
    for path in folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_data_train_reads_the_pairs(tmp_path):
    from distill.data.pairs import read_pairs
    from distill.recipe.schema import Columns

    with MisbehavingServer() as server:
        graded = synthesize(settings_for(server, 10, labels="grades", languages="ko"), tmp_path / "out")
    pairs = read_pairs(str(graded), Columns(query="resume", document="jd", label="label"), label_range=(0.0, 4.0))
    assert len(pairs) == 10 and sorted(pairs.labels.tolist()) == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1, 1]
    assert "[0, 4]" in (tmp_path / "out" / "README.md").read_text()


def test_an_odd_number_of_pairs(tmp_path):
    with MisbehavingServer() as server:
        synthesize(settings_for(server, 7), tmp_path / "out")
        assert len(server.ledger) == 4
    check_pairs(tmp_path / "out", 7)


def test_a_finished_folder_is_left_as_it_is(tmp_path):
    with MisbehavingServer() as server:
        path = synthesize(settings_for(server), tmp_path / "out")
        before = path.read_bytes()
        synthesize(settings_for(server), tmp_path / "out")
        assert len(server.ledger) == 6
    assert path.read_bytes() == before


def test_cut_at_any_byte_it_goes_on_exactly(tmp_path):
    rng = random.Random(0)
    with MisbehavingServer() as server:
        settings = settings_for(server, concurrency=1)
        whole = synthesize(settings, tmp_path / "out").read_bytes()
        answers = (tmp_path / "out" / "answers.jsonl").read_bytes()
        for _ in range(12):
            n_asked = len(server.ledger)
            (tmp_path / "out" / "card.json").unlink()
            cut = rng.randrange(len(answers))
            (tmp_path / "out" / "answers.jsonl").write_bytes(answers[:cut])
            (tmp_path / "out" / "pairs.jsonl").write_bytes(whole[: rng.randrange(len(whole))])
            n_stored = answers[:cut].count(b"\n")
            synthesize(settings, tmp_path / "out", show_progress=False)
            assert len(server.ledger) - n_asked == 6 - n_stored
            assert (tmp_path / "out" / "answers.jsonl").read_bytes() == answers
            assert (tmp_path / "out" / "pairs.jsonl").read_bytes() == whole


def test_a_changed_setting_is_refused(tmp_path):
    with MisbehavingServer() as server:
        synthesize(settings_for(server), tmp_path / "out")
        with pytest.raises(BadInput, match=r"--seed was 0 and is now 1; set them back or name another folder"):
            synthesize(settings_for(server, seed=1), tmp_path / "out")
        with pytest.raises(BadInput, match="--model was 'gpt-4o-mini' and is now 'gpt-4o'"):
            synthesize(settings_for(server, model="gpt-4o"), tmp_path / "out")
        synthesize(settings_for(server, concurrency=2, budget_usd=1.0), tmp_path / "out")  # not what pairs depend on


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with MisbehavingServer() as server, pytest.raises(BadInput, match="holds other files"):
        synthesize(settings_for(server), tmp_path)


def test_a_damaged_line_is_named(tmp_path):
    with MisbehavingServer() as server:
        synthesize(settings_for(server), tmp_path / "out")
        path = tmp_path / "out" / "answers.jsonl"
        path.write_bytes(b"{nonsense\n" + path.read_bytes())
        with pytest.raises(BadInput, match=r"answers.jsonl: line 1 is not JSON"):
            synthesize(settings_for(server), tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("answers.jsonl", '{"request": 1}', "answers.jsonl: line 1 is not an object with request, family"),
        ("answers.jsonl", "[1]", "is not an object with"),
        ("spending.jsonl", '{"hold": "a", "dollars": "1"}', "is not an object with dollars"),
        ("rejected.jsonl", "{}", "is not an object with request, reason"),
        ("settings.json", "", "settings.json is damaged"),
        ("settings.json", "[]", "settings.json is damaged"),
    ],
)
def test_a_file_of_another_shape_is_named(tmp_path, name, content, message):
    with MisbehavingServer() as server:
        synthesize(settings_for(server), tmp_path / "out")
        (tmp_path / "out" / "card.json").unlink()
        (tmp_path / "out" / name).write_text(content + "\n")
        with pytest.raises(BadInput, match=message):
            synthesize(settings_for(server), tmp_path / "out")


def test_a_place_where_no_folder_can_be_is_said(tmp_path):
    (tmp_path / "file").touch()
    with MisbehavingServer() as server, pytest.raises(BadInput, match="cannot be made a folder"):
        synthesize(settings_for(server), tmp_path / "file" / "out")


def test_the_budget_stops_cleanly_and_a_larger_one_goes_on(tmp_path):
    with MisbehavingServer(some_faults(0.2)) as server:
        small = settings_for(server, 60, budget_usd=0.008, concurrency=4)
        with pytest.raises(JobFailed) as caught:
            synthesize(small, tmp_path / "out")
        message = str(caught.value)
        assert caught.value.exit_code == 1 and "\n" not in message
        assert "budget of $0.0080 is used up" in message and "of 60 pairs are stored" in message
        assert "larger budget" in message
        assert 0 < server.dollars <= 0.008
        stored = {line["request"] for line in lines(tmp_path / "out" / "answers.jsonl")}
        n_asked = len(server.ledger)
        synthesize(settings_for(server, 60), tmp_path / "out")
        assert stored and not stored & {entry["number"] for entry in server.ledger[n_asked:]}
    check_pairs(tmp_path / "out", 60)


def test_a_model_that_never_answers_well_ends_the_run(tmp_path):
    with MisbehavingServer(lambda request: "wrong_type") as server:
        with pytest.raises(
            JobFailed, match=r"no usable answer to request \d or its 5 substitutes \(last: wrong shape\)"
        ):
            synthesize(settings_for(server, 4, concurrency=1), tmp_path / "out")
        assert [entry["attempt"] for entry in server.ledger[:4]] == [1, 2, 3, 1]
        assert len(server.ledger) == 18
    rejected = lines(tmp_path / "out" / "rejected.jsonl")
    assert rejected[0]["detail"].startswith("resume.skills") and rejected[0]["text"]


def test_a_server_that_stays_away_ends_the_run(tmp_path):
    with MisbehavingServer(lambda request: "500") as server:
        with pytest.raises(JobFailed, match=r"failed 3 times in a row \(last: status 500\)"):
            synthesize(settings_for(server, max_attempts=3), tmp_path / "out")
        assert server.dollars == 0


@pytest.mark.parametrize("fault", ["401", "404", "400", "quota"])
def test_a_refused_key_ends_at_once_without_naming_it(tmp_path, caplog, capfd, fault):
    caplog.set_level(logging.DEBUG)
    with MisbehavingServer(lambda request: fault, echo_key=True) as server:
        with pytest.raises((BadInput, JobFailed)) as caught:
            synthesize(settings_for(server, concurrency=1), tmp_path / "out")
        assert len(server.ledger) == (3 if fault == "400" else 1)  # a 400 may mean the response format
    assert "[key]" in str(caught.value) and KEY not in str(caught.value) and "\n" not in str(caught.value)
    assert_no_key(tmp_path, caplog, capfd)


def test_a_server_without_json_schema_is_asked_in_plain_words(tmp_path):
    with MisbehavingServer(formats=("plain",)) as server:
        synthesize(settings_for(server, concurrency=1), tmp_path / "out")
        forms = [body.get("response_format", {}).get("type", "plain") for body in server.bodies]
    assert forms[:3] == ["json_schema", "json_object", "plain"] and set(forms[2:]) == {"plain"}
    check_pairs(tmp_path / "out", 12)


def test_two_processes_do_not_share_a_folder(tmp_path):
    import fcntl

    with MisbehavingServer() as server:
        synthesize(settings_for(server), tmp_path / "out")
        with (tmp_path / "out" / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(BadInput, match="another process is writing"):
                synthesize(settings_for(server), tmp_path / "out")


DRIVER = """
import json, sys
from pathlib import Path
from distill.synthesis.synthesize import make_settings, synthesize
synthesize(make_settings(**json.loads(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.mark.integration
def test_ctrl_c_leaves_a_folder_that_goes_on(tmp_path):
    holding = threading.Event()
    holding.set()
    with MisbehavingServer(lambda request: "hang" if holding.is_set() and request["number"] >= 6 else None) as server:
        settings = settings_for(server, 60)
        options = {"n_pairs": 60, "base_url": server.url, "input_price": INPUT_PRICE, "output_price": OUTPUT_PRICE}
        options |= {"timeout_s": 60.0, "budget_usd": 100.0, "concurrency": 2}
        command = [sys.executable, "-c", DRIVER, json.dumps(options), str(tmp_path / "out")]
        # a suite that runs in the background has SIGINT ignored, and its children would inherit that
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(os.environ),
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        answers = tmp_path / "out" / "answers.jsonl"
        while process.poll() is None and not (answers.exists() and answers.read_bytes().count(b"\n") >= 4):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=60)[1]
        assert process.returncode not in (0, None) and "KeyboardInterrupt" in printed and KEY not in printed
        stored = {line["request"] for line in lines(answers)}
        assert 4 <= len(stored) <= 6
        n_asked = len(server.ledger)
        holding.clear()
        synthesize(settings, tmp_path / "out")
        assert not stored & {entry["number"] for entry in server.ledger[n_asked:]}
        card = json.loads((tmp_path / "out" / "card.json").read_text())
        assert server.dollars <= card["cost_usd"] + 1e-9
    check_pairs(tmp_path / "out", 60)


# settings and estimate


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_pairs": 1}, r"--pairs \(n_pairs\): .*greater than or equal to 2"),
        ({"n_pairs": 5, "languages": "ko,fr"}, r"--languages: Input should be .ko. or .en."),
        ({"n_pairs": 5, "budget_usd": 0}, r"--budget \(budget_usd\): "),
        ({"n_pairs": 5, "base_url": "https://me:pass@host/v1"}, "the key belongs in the environment"),
        ({"n_pairs": 5, "base_url": "host/v1"}, "must look like https"),
        ({"n_pairs": 5, "pears": 1}, "pears"),
        ({"n_pairs": 5, "key_variable": KEY}, "--key-variable: "),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(BadInput, match=message) as caught:
        make_settings(**options)
    assert KEY not in str(caught.value) and "pass" not in str(caught.value).replace("password", "")


def test_a_missing_key_or_price_is_said_before_anything_is_made(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="no price is known for model 'mine'"):
        synthesize(make_settings(n_pairs=4, model="mine"), tmp_path / "out")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(BadInput, match="set the environment variable OPENAI_API_KEY"):
        synthesize(make_settings(n_pairs=4), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_estimate_grows_with_the_pairs_and_stays_below_the_worst_case():
    few, many = (estimate(make_settings(n_pairs=n)) for n in (100, 10_000))
    assert 0 < few.dollars < few.worst_dollars and few.n_requests == 50
    assert many.dollars == pytest.approx(100 * few.dollars, rel=0.1)
    assert "50 requests" in str(few) and "$" in str(few)


def test_the_pairs_do_not_depend_on_the_hash_seed():
    program = "from distill.synthesis.synthesize import *; from distill.synthesis.prompts import messages_of; print(messages_of(5, 1, make_settings(n_pairs=50)))"
    printed = {
        hashlib.sha256(
            subprocess.run(
                [sys.executable, "-c", program],
                cwd=ROOT,
                env=os.environ | {"PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
            ).stdout
        ).hexdigest()
        for seed in ("1", "2")
    }
    assert len(printed) == 1
