"""Pages with payloads in every string, opened in headless Chromium beside a server that counts who asks.

The report and the ablation's table are HTML; a model card is Markdown, shown as a viewer does that lets HTML through. A
cascade writes no page: numbers as JSON and a picture.
"""

import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from distill.ablation import AblationCell, AblationRow, write_table
from distill.report.build import write_report
from distill.report.model_card import write_model_cards
from tests.conftest import make_run
from tests.unit.test_report import benchmark

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]
KEYS_OF_CODE = {"role", "primary_metric", "metric"}  # names that the code looks up: of no file's choosing


@pytest.fixture
def server():
    """A server on this machine, and the paths that it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", asked
        serving.shutdown()
        thread.join()


def payload(address):
    return (
        f"\"'></td></title></style><script>document.title='own'+'ed';fetch('{address}/script')</script>"
        f"<img src={address}/image onerror=document.title='own'+'ed'>"
        f"<link rel=stylesheet href={address}/style><iframe src={address}/frame></iframe>"
        f"<style>@import url({address}/import);body{{background:url({address}/background)}}</style>"
        f"<svg onload=document.title='own'+'ed'></svg>![x]({address}/markdown)![y][z]\n\n[z]: {address}/reference\n\n"
    )


def poisoned(value, evil):
    """The same value with the payload behind every string, in keys of mappings too where no code looks them up."""
    if isinstance(value, dict):
        return {key: inner if key in KEYS_OF_CODE else poisoned(inner, evil) for key, inner in value.items()}
    if isinstance(value, list):
        return [poisoned(inner, evil) for inner in value]
    return f"{value}{evil}" if isinstance(value, str) else value


def opened(path, tmp_path):
    """Open a page and return its document as the browser has it."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=3000",
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "</html>" in done.stdout, done.stderr[-2000:]
    return done.stdout


def rendered(markdown, path):
    """Write Markdown as a page the way a careless viewer does: HTML in it is let through."""
    from markdown_it import MarkdownIt

    text = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown.partition("\n---\n")[2] or markdown)
    path.write_text(f"<!doctype html><html><title>card</title><body>{text}</body></html>", encoding="utf-8")
    return path


def test_the_server_would_see_it(server, tmp_path):
    address, asked = server
    (tmp_path / "evil.html").write_text(f"<html><title>x</title>{payload(address)}</html>")
    assert "<title>owned</title>" in opened(tmp_path / "evil.html", tmp_path)
    assert {"/script", "/image", "/style", "/frame", "/import"} <= set(asked)
    asked.clear()
    opened(rendered(payload(address), tmp_path / "card.html"), tmp_path)
    assert "/markdown" in asked


def write_the_report(folder, evil):
    write_report(poisoned(benchmark(), evil), folder)
    return folder / "index.html"


def write_the_ablation(folder, evil):
    row = AblationRow(evil, {}, {f"V1{evil}": AblationCell({}, notes=(evil,), problem=evil)}, evil)
    write_table(evil, [row], [f"V1{evil}"], [evil], folder)
    return folder / "ablation.html"


def write_the_ablations_markdown(folder, evil):
    write_the_ablation(folder, evil)
    return rendered((folder / "ablation.md").read_text(encoding="utf-8"), folder / "md.html")


def write_the_card(folder, evil):
    from dataclasses import asdict

    from distill.files.artefact import Artefact, write_json

    run = make_run(folder / "run", card={"license": f"x{evil}", "languages": [f"ko{evil}"]})
    result = poisoned(benchmark(), evil)
    made = {}
    for number, row in enumerate(result["rows"]):
        made[row["name"]] = place = folder / f"model{number}"
        place.mkdir()
        parents = {"backbone": f"team/model{evil}", f"other{evil}": "x"}
        card = Artefact(
            "bi_encoder",
            "train_student",
            "f",
            "r",
            parents,
            details={"control": {"loss": f"bce{evil}", "steps": 3, "trials": {f"a{evil}": 0.1}}},
        )
        write_json(place / "artefact.json", asdict(card))
    write_model_cards(run, result, made)
    cards = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("model*/README.md"))]
    assert len(cards) == len(made)
    return rendered("\n\n".join(card.partition("\n---\n")[2] for card in cards), folder / "cards.html")


@pytest.mark.parametrize(
    "write",
    [write_the_report, write_the_ablation, write_the_ablations_markdown, write_the_card],
    ids=lambda write: write.__name__,
)
def test_nothing_runs_and_nobody_is_asked(write, server, tmp_path):
    address, asked = server
    folder = tmp_path / "page"
    folder.mkdir()
    document = opened(write(folder, payload(address)), tmp_path)
    assert "owned" not in document
    assert "document.title" in document  # the payload is shown, not lost
    assert asked == []
