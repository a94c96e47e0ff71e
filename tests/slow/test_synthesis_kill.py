"""1,000 pairs from a server of which 30 % of answers are faulty, killed five times: exact, unique, paid once, in budget."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.conftest import ROOT
from tests.unit.misbehaving_server import CONTENT, INPUT_PRICE, OUTPUT_PRICE, TRANSPORT, MisbehavingServer

pytestmark = pytest.mark.slow

N_PAIRS, N_KILLS, FAULTY = 1000, 5, 0.3
BUDGET = 1.0  # dollars
KEY = "sk-a-secret-that-must-not-leak-0123456789"
FAULTS = [fault for fault in (*TRANSPORT, *CONTENT) if fault != "429"]  # without Retry-After it waits seconds
DRIVER = """
import json, sys
from pathlib import Path
from distill.synthesis.synthesize import make_settings, synthesize
synthesize(make_settings(**json.loads(sys.argv[1])), Path(sys.argv[2]))
"""


def stored_requests(folder):
    """The numbers of the requests whose answers are whole on disk."""
    path = folder / "answers.jsonl"
    content = path.read_bytes() if path.exists() else b""
    return {json.loads(line)["request"] for line in content[: content.rfind(b"\n") + 1].splitlines()}


def spent(folder):
    """What the folder's own books say: each request at what it cost, or at its worst where that is not known."""
    changes = [json.loads(line) for line in (folder / "spending.jsonl").read_text().splitlines()]
    return sum({change.get("hold") or change["settled"]: change["dollars"] for change in changes}.values())


def start(server, folder, budget=BUDGET):
    options = {
        "n_pairs": N_PAIRS,
        "base_url": server.url,
        "input_price": INPUT_PRICE,
        "output_price": OUTPUT_PRICE,
        "timeout_s": 2.0,
        "budget_usd": budget,
        "concurrency": 8,
    }
    command = [sys.executable, "-c", DRIVER, json.dumps(options), str(folder)]
    environment = os.environ | {"OPENAI_API_KEY": KEY}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def test_killed_five_times(tmp_path):
    folder, rng = tmp_path / "out", random.Random()
    faults = random.Random(1)
    asked_again, printed = [], ""
    with MisbehavingServer(lambda r: faults.choice(FAULTS) if faults.random() < FAULTY else None, delay=0.02) as server:
        for kill in range(N_KILLS):
            stored, n_asked = stored_requests(folder), len(server.ledger)
            process = start(server, folder)
            target = rng.randint(1, 2 * (500 - len(stored)) // (N_KILLS + 2 - kill))  # answers until the kill
            while process.poll() is None and len(stored_requests(folder)) < len(stored) + target:
                time.sleep(rng.uniform(0.001, 0.02))
            process.kill()
            printed += process.communicate()[1]
            assert process.returncode == -9, printed
            time.sleep(0.2)  # what was in flight arrives
            asked_again += stored & {entry["number"] for entry in server.ledger[n_asked:]}
        small = spent(folder) + 0.02
        process = start(server, folder, budget=small)
        printed += process.communicate(timeout=100)[1]
        assert process.returncode == 1 and f"the budget of ${small:.4f} is used up" in printed
        assert server.dollars <= spent(folder) <= small
        stored, n_asked = stored_requests(folder), len(server.ledger)
        process = start(server, folder)
        printed += process.communicate(timeout=400)[1]
        assert process.returncode == 0, printed
        asked_again += stored & {entry["number"] for entry in server.ledger[n_asked:]}
        ledger, dollars = list(server.ledger), server.dollars

    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    seen = Counter(entry["fault"] for entry in ledger)
    answers = [json.loads(line)["request"] for line in (folder / "answers.jsonl").read_text().splitlines()]
    print(
        f"{len(pairs)} pairs from {len(ledger)} requests; server ${dollars:.4f} ≤ card ${card['cost_usd']:.4f}; "
        f"rejected {card['rejected_by_reason']}, near duplicates {card['near_duplicates_removed']}; faults {dict(seen)}"
    )
    assert len(pairs) == N_PAIRS
    assert len({(pair["resume"], pair["jd"]) for pair in pairs}) == N_PAIRS
    assert len({pair["resume"] for pair in pairs}) == N_PAIRS // 2
    assert all(pair["resume"].strip() and pair["jd"].strip() and pair["label"] in (0, 1) for pair in pairs)
    assert len(answers) == len(set(answers)) == len({number % 500 for number in answers}) == N_PAIRS // 2
    assert asked_again == []
    assert dollars <= card["cost_usd"] <= BUDGET
    assert set(seen) == {None, *FAULTS}
    assert KEY not in printed
    assert all(KEY.encode() not in path.read_bytes() for path in folder.rglob("*") if path.is_file())
