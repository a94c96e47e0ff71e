"""A real OpenAI-compatible server on this machine that misbehaves on purpose, and keeps a ledger of what it did.

`with MisbehavingServer(faults) as server:` answers on `server.url`. `faults` says for each request what to do: a list is
used up from the front, a function is asked; None answers well. The ledger counts tokens as bytes / 3 and charges for
every request that the model worked for, whether or not the answer reached anyone.
"""

import hashlib
import json
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INPUT_PRICE, OUTPUT_PRICE = 0.15, 0.60  # dollars per million tokens
FREE = ("429", "429_seconds", "429_date", "500", "503", "400", "400_limit", "400_filter", "401", "404", "quota")
TRANSPORT = ("429", "429_seconds", "500", "503", "reset", "hang", "html", "no_message")
CONTENT = (
    "truncated",
    "missing_field",
    "wrong_type",
    "empty",
    "refusal",
    "wrong_language",
    "empty_section",
    "duplicate",
    "fence",
    "length",
)
EVERY_FAULT = TRANSPORT + CONTENT


def words(rng, language, n):
    """Words that nobody ever used: texts of different requests share next to nothing."""
    if language == "ko":
        return " ".join("".join(chr(rng.randrange(0xAC00, 0xD7A4)) for _ in range(rng.randint(2, 4))) for _ in range(n))
    return " ".join(
        "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 8))) for _ in range(n)
    )


def good_content(rng, language, n_jobs):
    """What a model should write."""
    resume = {
        name: words(rng, language, n)
        for name, n in (("summary", 12), ("experience", 40), ("education", 6), ("skills", 8), ("languages", 2))
    }
    jobs = {
        f"job_{i + 1}": {
            name: words(rng, language, n)
            for name, n in (("title", 2), ("company", 1), ("duties", 20), ("requirements", 20), ("preferred", 8))
        }
        for i in range(n_jobs)
    }
    return {"resume": resume, **jobs}


class MisbehavingServer:
    """Answers chats and embeddings; see the module."""

    def __init__(
        self,
        faults=(),
        *,
        formats=("json_schema", "json_object", "plain"),
        delay=0.0,
        echo_key=False,
        rerank_form="documents",
    ):
        script = list(faults) if not isinstance(faults, Callable) else None
        self._fault = faults if script is None else lambda request: script.pop(0) if script else None
        self.formats, self.delay, self.echo_key, self.rerank_form = formats, delay, echo_key, rerank_form
        self.ledger, self.bodies, self.headers = [], [], []
        self.last_good, self.refusal_delays = {}, []
        self.refuses_late, self.refused, self.answered = False, 0, threading.Event()
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    @property
    def dollars(self):
        return sum(entry["dollars"] for entry in self.ledger)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def _handler(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server.lock:
                    server.bodies.append(body)
                    server.headers.append(dict(self.headers))
                path = self.path.partition("?")[0]
                if path.endswith("/embeddings"):
                    server.embed(self, body)
                elif path.endswith("/rerank"):
                    server.rerank(self, body)
                else:
                    server.chat(self, body)

            def reply(self, status, content, headers=()):
                data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
                try:
                    self.send_response(status)
                    for name, value in {"content-length": str(len(data)), **dict(headers)}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the other side was killed

            def reset(self):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                self.rfile, self.wfile = open("/dev/null", "rb"), open("/dev/null", "wb")

            def log_message(self, *args):
                pass

            def handle(self):
                try:
                    super().handle()
                except OSError:
                    pass

        return Handler

    def error(self, handler, status, headers=(), code=None, message="as told"):
        if self.echo_key:
            message = f"you sent {handler.headers.get('authorization') or handler.headers.get('api-key')}"
        handler.reply(status, {"error": {"message": message, "code": code}}, headers)

    def misbehave(self, handler, fault):
        """Do what is not an answer; False where the fault lies in the answer."""
        replies = {
            "429": lambda: self.error(handler, 429),
            "429_seconds": lambda: self.error(handler, 429, {"retry-after": "0.05"}),
            "429_date": lambda: self.error(handler, 429, {"retry-after": formatdate(time.time() + 2, usegmt=True)}),
            "quota": lambda: self.error(handler, 429, code="insufficient_quota"),
            "500": lambda: self.error(handler, 500),
            "503": lambda: self.error(handler, 503, {"retry-after": "0"}),
            "400": lambda: self.error(handler, 400),
            "400_limit": lambda: self.error(handler, 400, message="use 'max_completion_tokens' instead"),
            "400_filter": lambda: self.error(handler, 400, code="content_filter"),
            "401": lambda: self.error(handler, 401),
            "404": lambda: self.error(handler, 404),
            "reset": handler.reset,
            "hang": lambda: (self.closing.wait(30), handler.reset()),
            "html": lambda: handler.reply(200, "<html><body>Bad gateway</body></html>"),
            "no_message": lambda: handler.reply(200, {"choices": [], "usage": {"prompt_tokens": 1}}),
        }
        if fault in replies:
            replies[fault]()
        return fault in replies

    def chat(self, handler, body):
        form = body.get("response_format", {}).get("type", "plain")
        if form not in self.formats:
            time.sleep(self.refusal_delays.pop(0) if self.refusal_delays else 0)
            self.error(handler, 400, message=f"response_format {form} is not supported")
            return
        user = body["messages"][-1]["content"]
        if user.startswith("Query:\n"):
            self.grade(handler, user)
            return
        number, attempt = map(int, re.search(r"(?:요청 번호|Request) (\d+)\.(\d+)", user).groups())
        request = {"number": number, "attempt": attempt, "time": time.monotonic()}
        with self.lock:
            fault = self._fault(request)
            content = self.content(request, body, fault)
            usage = {
                "prompt_tokens": len(json.dumps(body["messages"], ensure_ascii=False).encode()) // 3,
                "completion_tokens": min(body.get("max_tokens", 10**6), len(content.encode()) // 3),
            }
            dollars = (usage["prompt_tokens"] * INPUT_PRICE + usage["completion_tokens"] * OUTPUT_PRICE) / 1e6
            self.ledger.append(request | {"fault": fault, "dollars": 0.0 if fault in FREE else dollars})
        time.sleep(self.delay)
        if self.misbehave(handler, fault):
            return
        message = {"role": "assistant", "content": "" if fault == "refusal" else content}
        if fault == "refusal":
            message["refusal"] = "I cannot help with that."
        finish = "length" if fault == "length" else "stop"
        handler.reply(200, {"choices": [{"message": message, "finish_reason": finish}], "usage": usage})

    def grade(self, handler, user):
        """Grade a pair from 0 to 4."""
        query, document = user.removeprefix("Query:\n").split("\n\nDocument:\n")
        with self.lock:
            fault = self._fault((query, document))
            usage = {"prompt_tokens": len(user.encode()) // 3, "completion_tokens": 5}
            dollars = (usage["prompt_tokens"] * INPUT_PRICE + usage["completion_tokens"] * OUTPUT_PRICE) / 1e6
            pair = [(query, document)]
            self.ledger.append({"pairs": pair, "fault": fault, "dollars": 0.0 if fault in FREE else dollars})
        time.sleep(self.delay)
        if self.misbehave(handler, fault):
            return
        grade = 7 if fault == "wrong_type" else grade_of(query, document)
        text = "not today" if fault == "empty" else json.dumps({"grade": grade})
        message = {"role": "assistant", "content": f"```json\n{text}\n```" if fault == "fence" else text}
        handler.reply(200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    def rerank(self, handler, body):
        """Score documents for a query, in the form of Jina and Cohere or that of text-embeddings-inference."""
        if self.rerank_form not in body:
            with self.lock:
                self.refused += 1
                is_late = self.refused > 1
            if is_late and self.refuses_late:  # a request that was under way while another found out
                self.answered.wait(10)
            self.error(handler, 422, message=f"missing field `{self.rerank_form}`")
            return
        query, documents = body["query"], body[self.rerank_form]
        n_tokens = sum(len(f"{query}{document}".encode()) for document in documents) // 3  # the query beside each
        with self.lock:
            fault = self._fault([(query, document) for document in documents])
            pairs = [(query, document) for document in documents]
            self.ledger.append(
                {"pairs": pairs, "fault": fault, "dollars": 0.0 if fault in FREE else n_tokens * 0.13 / 1e6}
            )
        time.sleep(self.delay)
        if self.misbehave(handler, fault):
            return
        name = "relevance_score" if self.rerank_form == "documents" else "score"
        entries = [{"index": i, name: relevance_of(query, document)} for i, document in enumerate(documents)]
        if fault == "wrong_count":
            entries.pop()
        elif fault == "nan":
            entries[0][name] = float("nan")
        elif fault == "logits":
            entries[0][name] = 5.5
        random.Random(0).shuffle(entries)
        handler.reply(
            200, {"results": entries, "usage": {"total_tokens": n_tokens}} if name == "relevance_score" else entries
        )
        self.answered.set()

    def content(self, request, body, fault):
        user = body["messages"][-1]["content"]
        language = "ko" if "이력서" in user else "en"
        other = "en" if language == "ko" else "ko"
        rng = random.Random(f"{request['number']}.{request['attempt']}")
        n_jobs = 2 if "job_2:" in user else 1
        good = good_content(rng, other if fault == "wrong_language" else language, n_jobs)
        text = json.dumps(good, ensure_ascii=False)
        if fault == "duplicate" and language in self.last_good:
            return json.dumps(good | {"resume": self.last_good[language]}, ensure_ascii=False)
        if fault == "missing_field":
            del good["resume"]["education"]
        elif fault == "wrong_type":
            good["resume"]["skills"] = ["a", "b"]
        elif fault == "empty_section":
            good["resume"]["experience"] = "  "
        elif fault in ("truncated", "length"):
            return text[: len(text) // 2]
        elif fault == "empty":
            return ""
        elif fault == "fence":
            return f"Here it is:\n```json\n{text}\n```"
        elif fault is None:
            self.last_good[language] = good["resume"]
        return json.dumps(good, ensure_ascii=False)

    def embed(self, handler, body):
        texts, width = body["input"], body.get("dimensions", 8)
        fault = self._fault(texts)
        n_tokens = sum(len(text.encode()) for text in texts) // 3
        self.ledger.append({"texts": texts, "fault": fault, "dollars": n_tokens * 0.13 / 1e6})
        if self.misbehave(handler, fault):
            return
        vectors = [vector_of(text, width) for text in texts]
        if fault == "wrong_count":
            vectors.pop()
        elif fault == "wrong_width":
            vectors[-1] = vectors[-1][:-1]
        elif fault == "nan":
            vectors[-1][0] = float("nan")
        elif fault == "constant":
            vectors = [vector_of("", width) for _ in texts]
        elif fault == "null":
            vectors[-1][0] = None
        elif fault == "other_width":
            vectors = [vector[:4] for vector in vectors]
        entries = [{"index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        if fault == "no_index":
            entries = [{"embedding": vector} for vector in vectors]
        random.Random(0).shuffle(entries)
        handler.reply(200, {"data": entries, "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens}})


def vector_of(text, width=8):
    """The embedding that the server gives a text."""
    rng = random.Random(hashlib.sha256(text.encode()).hexdigest())
    return [rng.uniform(-1, 1) for _ in range(width)]


def relevance_of(query, document):
    """The score in [0, 1] that the server's reranker gives a pair: the share of the query's words in the document."""
    words = query.split()
    return sum(word in document.split() for word in words) / (len(words) + 1) + 0.001 * (len(document) % 7)


def grade_of(query, document):
    """The grade that the server's chat model gives a pair."""
    return min(4, round(8 * relevance_of(query, document)))
