"""gunicorn --preload: four forked workers of one loaded model answer a thousand requests, all of them right."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from distill.runtime.opening import load
from tests.conftest import ROOT
from tests.tiny.conftest import SENTENCES

pytestmark = pytest.mark.slow
APP = """
import json, os
from distill.runtime import load
scorer = load(os.environ["MODEL"])
scorer.encode(["warm"])
def app(environ, start_response):
    texts = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    start_response("200 OK", [("Content-Type", "application/json"), ("Worker", str(os.getpid()))])
    return [json.dumps(scorer.encode(texts).tolist()).encode()]
"""


def test_four_workers_answer_a_thousand_requests(bert_bi, tmp_path):
    pytest.importorskip("gunicorn")
    from distill.graphs.openvino import export_graph

    export_graph(bert_bi, tmp_path / "model", "fp32")
    (tmp_path / "serving.py").write_text(APP, encoding="utf-8")
    env = {**os.environ, "MODEL": str(tmp_path / "model")}
    command = [
        "-m",
        "gunicorn",
        "--preload",
        "-w",
        "4",
        "-b",
        "127.0.0.1:8731",
        "--chdir",
        str(tmp_path),
        "serving:app",
    ]
    server = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env)
    expected = load(tmp_path / "model").encode(SENTENCES)

    def ask(number):
        chosen = number % len(SENTENCES)
        body = json.dumps([SENTENCES[chosen]]).encode()
        with urllib.request.urlopen("http://127.0.0.1:8731", data=body, timeout=60) as answer:
            np.testing.assert_allclose(json.loads(answer.read())[0], expected[chosen], atol=1e-4)
            return answer.headers["Worker"]

    try:
        for _ in range(120):
            try:
                ask(0)
                break
            except OSError:
                time.sleep(0.5)
        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(ask, range(1000)))) == 4
    finally:
        server.terminate()
        assert server.wait(30) == 0
