"""The page of a report: one HTML file, in `report.html` around a section for each thing that there is data for."""

from collections.abc import Mapping
from html import escape
from importlib import resources
from string import Template
from typing import Any

import yaml

from distill.report.content import LOWER_IS_BETTER, Benchmark, latency_of, number_at
from distill.report.series import grids_of, lines_of, points_of, services_of
from distill.report.svg import DESK, DESK_HALF, PHONE, panels, scatter, traces
from distill.report.tables import batch_tables, length_table, load_table, main_table
from distill.report.words import headline, kept, metric_name, verdict, worth
from distill.wording import difference_in_words

__all__ = ["page"]


def page(content: Benchmark) -> str:
    """Give the whole page."""
    template = Template(resources.files("distill.report").joinpath("report.html").read_text(encoding="utf-8"))
    when = (content.raw.get("environment") or {}).get("date")
    sections = (
        main_table(content),
        _quality_section(content),
        _kept_section(content),
        _comparison_section(content),
        _length_section(content),
        _batch_section(content),
        _load_section(content),
        _facts_section(content),
        _notes_section(content),
        _recipe_section(content),
    )
    return template.substitute(
        title=escape(str(content.raw.get("title") or "Benchmark")),
        when=f'<p class="when">Measured {escape(str(when))}</p>' if when else "",
        headline=_prose(headline(content)),
        body="\n".join(section for section in sections if section),
    )


def _section(heading: str, *parts: str) -> str:
    return "\n".join(["<section>", f"<h2>{escape(heading)}</h2>", *parts, "</section>"])


def _prose(text: str) -> str:
    """Escape a sentence and keep the parts of a hyphened metric on one line."""
    return escape(text).replace("ROC-AUC", '<span class="whole">ROC-AUC</span>')


def _strong(text: str) -> str:
    return f'<strong class="name">{escape(text)}</strong>'


def _quality_section(content: Benchmark) -> str:
    points = points_of(content, latency_of)
    if not points or content.primary is None:
        return ""
    name = metric_name(content.primary)
    title = f"{name} against latency"
    svgs = [scatter(points, name, title, shape) for shape in (DESK, PHONE)]
    more = (
        f"{'Down' if content.primary in LOWER_IS_BETTER else 'Up'} and to the left is better. Vertical lines are 95 % "
        "intervals; the dashed line joins the models that no other beats in both. Squares: teacher and its exports. Filled circles: "
        "students and their exports. Open circles: the rest."
    )
    return _section(title, "<figure>", *svgs, f"<figcaption>{more}</figcaption>", "</figure>")


def _kept_section(content: Benchmark) -> str:
    others = [(label, row) for label, row in content.labelled() if row.get("role") != "teacher"]
    said = [(label, text) for label, row in others if (text := kept(row, content)) is not None]
    if content.teacher is None or not said:
        return ""
    more = {label: worth(row, content) for label, row in others}
    items = [
        f"<li>{_strong(label)} {_prose(text)}.{f' {_prose(_capital(more[label]))}.' if more[label] else ''}</li>"
        for label, text in said
    ]
    return _section("What each keeps", "<ul>", *items, "</ul>")


def _capital(text: str | None) -> str:
    return "" if not text else text[0].upper() + text[1:]


def _comparison_section(content: Benchmark) -> str:
    comparisons = [one for one in content.raw.get("comparisons") or [] if number_at(one, "value") is not None]
    if not comparisons:
        return ""
    about = (
        "Differences on the same pairs, with the 95 % interval of the difference over resampled data. They do not "
        "cover what another training run of the same recipe would give."
    )
    items = [f"<li>{_comparison(one)}</li>" for one in comparisons]
    return _section("Comparisons", f'<p class="soft">{about}</p>', "<ul>", *items, "</ul>")


def _comparison(one: Mapping[str, Any]) -> str:
    value, low, high = (number_at(one, part) for part in ("value", "low", "high"))
    number = "" if value is None else difference_in_words(value, low, high)
    name, metric = _strong(str(one.get("name", ""))), escape(metric_name(str(one.get("metric", ""))))
    return f"{name}, {metric}: {number} – {escape(verdict(one))}."


def _length_section(content: Benchmark) -> str:
    lines = lines_of(content)
    if not lines:
        return ""
    title = "Latency by length"
    svgs = [traces(lines, f"{title}: p50 in milliseconds by tokens", shape) for shape in (DESK_HALF, PHONE)]
    return _section(title, '<figure class="half">', *svgs, "</figure>", length_table(lines))


def _batch_section(content: Benchmark) -> str:
    grids = grids_of(content)
    if not grids:
        return ""
    about = (
        "Pairs a second by the size of the batch and the tokens of a pair, and in small type the p50 of the whole batch "
        "in milliseconds. The stronger the tint, the faster, on one scale for all models. Bold: the batch that gives "
        "most at a length."
    )
    tables = batch_tables(grids)
    return _section("Batches", f'<p class="soft">{about}</p>', '<div class="panels">', *tables, "</div>")


def _load_section(content: Benchmark) -> str:
    services = services_of(content)
    if not services:
        return ""
    about = (
        "Pairs arrive at random, so many a second, and wait in line: latency is what a user sees, waiting included. Each "
        "model was given shares of its own capacity; look for your rate on the scale below, which is the same for all."
    )
    figures = [
        f'<figure><figcaption class="name">{escape(service.label)}</figcaption>\n{svg}\n</figure>'
        for service, svg in zip(services, panels(services), strict=True)
    ]
    return _section(
        "Latency under load", f'<p class="soft">{about}</p>', '<div class="panels">', *figures, "</div>",
        load_table(services),
    )  # fmt: skip


def _facts_section(content: Benchmark) -> str:
    lists = [("Data", content.raw.get("data")), ("Environment", content.raw.get("environment"))]
    parts = [f"<div><h2>{heading}</h2>{_facts(facts)}</div>" for heading, facts in lists if facts]
    return "\n".join(['<section class="pair">', *parts, "</section>"]) if parts else ""


def _facts(facts: Mapping[str, Any]) -> str:
    items = [(_fact_name(key), _fact(value)) for key, value in facts.items() if value is not None]
    return "<dl>" + "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in items) + "</dl>"


def _fact_name(key: str) -> str:
    """Write a key as a word: n_pairs is pairs."""
    return {"cpu": "CPU"}.get(key, key.removeprefix("n_").replace("_", " "))


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return " · ".join(f"{key} {_fact(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list):
        return ", ".join(_fact(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _notes_section(content: Benchmark) -> str:
    notes = [f"<li>{escape(str(note))}</li>" for note in content.raw.get("notes") or []]
    return _section("Notes", "<ul>", *notes, "</ul>") if notes else ""


def _recipe_section(content: Benchmark) -> str:
    recipe = content.raw.get("recipe")
    if not recipe:
        return ""
    text = yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False, width=100)
    return _section("Recipe", f'<pre tabindex="0">{escape(text)}</pre>')
