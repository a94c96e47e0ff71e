"""Pages with payloads in every string: no script, no picture, no request; and what a model folder may not say."""

import html.parser
import re

import pytest

from distill.ablation import AblationCell, AblationRow, write_table
from distill.files.outputs import inert
from distill.report.build import write_report
from tests.unit.test_report import benchmark

EVIL = '"><script>alert(1)</script><img src=http://evil/x onerror=alert(1)>![x](http://evil/y)</title></style>'
LOADING = {"script", "iframe", "object", "embed", "video", "audio", "source", "form", "base", "input"}


class Page(html.parser.HTMLParser):
    """All tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def poisoned(value):
    """The same value with the payload behind every string; keys that code looks up stay."""
    if isinstance(value, dict):
        return {key: poisoned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [poisoned(inner) for inner in value]
    return f"{value}{EVIL}" if isinstance(value, str) else value


def check(text):
    page = Page(text)
    policy = [
        attributes["content"]
        for tag, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policy) == 1 and policy[0].startswith("default-src 'none'") and "script" not in policy[0]
    for tag, attributes in page.tags:
        assert tag not in LOADING
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
            assert (attributes.get(name) or "").startswith(("data:", "#")) or name not in attributes, (tag, attributes)
    assert not re.search(r"url\(|@import", re.sub(r"<body.*", "", text, flags=re.DOTALL))
    assert "alert(1)" in text  # the payload is shown, not lost


@pytest.mark.integration
def test_report(tmp_path):
    content = benchmark()
    content["rows"] = content["rows"][:3]  # a picture of all seven takes seconds, with names of this length
    for row in content["rows"]:
        row["kind"], row["runtime"], row["precision"] = (
            f"{row.get(key)}{EVIL}" for key in ("kind", "runtime", "precision")
        )
    for key in ("title", "recipe", "data", "environment", "notes"):
        if key in content:
            content[key] = poisoned(content[key])
    write_report(content, tmp_path)
    check((tmp_path / "index.html").read_text(encoding="utf-8"))


def test_ablation(tmp_path):
    write_table(
        EVIL,
        [AblationRow(EVIL, {}, {f"V1{EVIL}": AblationCell({}, notes=(EVIL,), problem=EVIL)}, EVIL)],
        [f"V1{EVIL}"],
        [EVIL],
        tmp_path,
    )
    check((tmp_path / "ablation.html").read_text(encoding="utf-8"))
    text = (tmp_path / "ablation.md").read_text(encoding="utf-8")
    assert "<" not in text and "![" not in text


@pytest.mark.parametrize("text", [EVIL, "`x`<img src=y>", "![a][b]\n\n[b]: http://evil"])
def test_markdown_holds_no_tag_and_no_picture(text):
    assert not re.search(r"<[a-zA-Z/!]|!\[", inert(text))
